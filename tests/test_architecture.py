"""The order of the rooms, how large a room may be, and what an import may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastsym

PACKAGE = Path(fastsym.__file__).parent
ROOT = Path(__file__).parent.parent

# A module may import from those before it in this list, and from no others: inside of functions and
# where only types are checked too. A folder's own module comes after those in it.
ORDER = """
exceptions _validation activation algebra archive
network identifiability metrics datasets

sources.source
sources.formats.rows sources.formats.cursor
sources.formats.npy sources.formats.npz sources.formats.hdf5 sources.formats.zarr
sources.formats.parquet sources.formats
sources.arrays sources.iterables sources.files sources.dask sources

sums.kernels sums.threads sums.support sums.units sums.frame sums.layout sums.staging sums.reducer
sums.values sums.moments sums.residuals sums

engine.progress engine.checkpoint engine.passes engine.cluster engine.gather engine

spectral.diagonalization spectral.diagnostics spectral.equations spectral.solution spectral

refine.coordinates refine.sample refine.normal refine.implicit refine.minimisation refine.projection
refine.problem refine.checks refine.lack_of_fit refine.certificates refine.starts refine.chance
refine.trials refine.counting refine.search
refine.signs refine.greedy refine.beside_linear refine.decoding refine.forms
refine.growth refine.decay refine.prediction refine.unknown
refine.influence refine.standard_errors refine.result refine.outcome
refine.refinement refine.reservoir refine.drift refine.expansion refine.stream
refine

fitting one_pass attributes estimator
plotting report

studies.hermite studies.recipes studies.tensor studies.experiments studies.figures studies.demo
studies

cli.options cli.output cli.shards cli.fitting cli.studies cli.info cli
__main__
diagnostics experiments frame moments stream
""".split()

LONGEST_FILE = 450
LONGEST_BODY = 60
MOST_PARAMETERS = 9

# The kernels are one file, because Numba's cache does not see an edit in another.
LONG_FILES = {"fastsym/sums/kernels.py"}

# Public entry points, whose parameters are the choices that a user has.
MANY_PARAMETERS = {
    "refine.refinement.refine",
    "datasets.stream_two_layer",
    "cli.fitting.fit",
    "cli.shards.moments",
}


def path_of(module):
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def all_modules():
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imported(module):
    """Modules of the package that a module imports anywhere."""
    known = set(ORDER)
    for node in ast.walk(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if not name.startswith("fastsym."):
                continue
            parts = name.removeprefix("fastsym.").split(".")
            # The longest beginning that is a module: what follows is a name in it.
            found = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
            found = [each for each in found if each in known]
            assert found or name == "fastsym.__version__", f"{module} imports {name}"
            yield from found[:1]


def test_every_module_has_its_place():
    assert sorted({*all_modules()} - {"__init__"}) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_arrows_point_one_way(module):
    allowed = set(ORDER[: ORDER.index(module)])
    assert set(imported(module)) <= allowed


def test_kernels_import_numerics_only():
    tree = ast.parse(path_of("sums.kernels").read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.split(".")[0])
    assert roots <= {"numba", "numpy", "llvmlite", "typing"}


def test_tiles_are_known_to_the_layout_alone():
    users = {module for module in ORDER if "sums.kernels" in set(imported(module))}
    assert users <= {"sums.layout", "cli.info"}


@pytest.mark.parametrize("folder", ["fastsym", "benchmarks", "tests"])
def test_no_file_is_too_long(folder):
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in (ROOT / folder).rglob("*.py")
    }
    long = {name for name, length in lengths.items() if length > LONGEST_FILE}
    assert long <= LONG_FILES


def functions(module):
    """Every function of a module with its name in it, nested ones too."""

    def walk(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{prefix}.{child.name}", child
                yield from walk(child, f"{prefix}.{child.name}")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}.{child.name}")
            else:
                yield from walk(child, prefix)

    yield from walk(ast.parse(path_of(module).read_text()), module)


def body_lines(function):
    """Lines of the body without the docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("module", ORDER)
def test_no_function_is_too_long(module):
    long = {name: body_lines(f) for name, f in functions(module)}
    assert not {name: n for name, n in long.items() if n > LONGEST_BODY}


def n_parameters(function):
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_no_function_takes_too_much():
    many = {
        name
        for module in ORDER
        for name, function in functions(module)
        if n_parameters(function) > MOST_PARAMETERS and function.name != "__init__"
    }
    assert many == MANY_PARAMETERS


def loaded_by(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_loads_nothing_heavy():
    assert not loaded_by("import fastsym") & {"numpy", "numba", "scipy", "sklearn", "typer"}


def test_sources_load_no_library_of_a_format():
    heavy = {"dask", "distributed", "h5py", "zarr", "pyarrow", "numba", "sklearn"}
    assert not loaded_by("import fastsym.sources") & heavy


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


DOORS = ("diagnostics", "experiments", "frame", "moments", "stream")


@pytest.mark.parametrize("first", ["import fastsym.{}", "fastsym.{}"])
def test_modules_import_by_their_old_places(first):
    """Those too that live in a folder; whichever comes first, in a new process."""
    doors = [name for name in DOORS if name in fastsym.__all__ or first.startswith("import")]
    code = "import fastsym, sys\n" + "".join(
        f"{first.format(name)}\nimport fastsym.{name} as module\n"
        f"assert module is sys.modules[module.__name__]\n"
        f"assert module.__name__.count('.') == 2\n"
        for name in doors
    )
    subprocess.run([sys.executable, "-c", code], check=True)
