"""The arrows between the rooms, and what an import may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastsym

PACKAGE = Path(fastsym.__file__).parent

# Each module may import from those before it in this list, and from no others.
ORDER = [
    "exceptions", "_validation", "_files", "_kernels", "rows", "sources", "network", "staging",
    "frame", "moments", "residuals", "progress", "checkpoint", "engine", "distributed",
    "diagnostics", "diagonalization", "spectral", "gauss_newton",
    "problem", "refine", "stream", "metrics", "datasets", "estimator", "hermite", "experiments",
    "plotting", "report", "reproduce", "demo", "cli", "__main__",
]  # fmt: skip


def imported(module):
    """Modules of the package that a module imports anywhere, type checking excepted."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped and node.module:
            parts = node.module.split(".")
            if parts[0] == "fastsym":
                names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return names - {"__version__"}


def test_every_module_has_its_place():
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_arrows_point_one_way(module):
    allowed = set(ORDER[: ORDER.index(module)])
    assert imported(module) <= allowed


def test_kernels_import_numerics_only():
    tree = ast.parse((PACKAGE / "_kernels.py").read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.split(".")[0])
    assert roots <= {"numba", "numpy", "llvmlite", "typing"}


def loaded_by(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_loads_nothing_heavy():
    assert not loaded_by("import fastsym") & {"numpy", "numba", "scipy", "sklearn", "typer"}


def test_scikit_learn_is_not_loaded_for_moments_and_spectral():
    code = (
        "import fastsym, numpy as np\n"
        "X, Y, _ = fastsym.make_two_layer(500, 3, 2, 2, random_state=0)\n"
        "moments = fastsym.MomentAccumulator(2).update(X, Y).moments()\n"
        "fastsym.spectral.solve(moments)"
    )
    assert not loaded_by(code) & {"sklearn", "typer"}


def test_help_loads_no_numerics():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fastsym", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in names
    assert not names & {"numpy", "numba", "scipy", "sklearn"}


def test_public_names_exist_and_are_documented():
    for name in fastsym.__all__:
        value = getattr(fastsym, name)
        assert name == "__version__" or value.__doc__
    assert set(fastsym.__all__) <= set(dir(fastsym))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastsym.nothing
