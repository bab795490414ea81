"""Every Python block of the README and the docs runs, and every docstring example is true."""

import doctest
import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import fastsym
from fastsym import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGE = Path(fastsym.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.parent != PACKAGE or not path.name.startswith("__")
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page):
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, page.name, "exec"), namespace)


def commands(page):
    """The lines of a page that call the command line, without their comments."""
    for line in page.read_text().splitlines():
        if re.match(r" {4}(?:.* && )?fastsym ", line):
            yield shlex.split(line.partition("#")[0].partition("fastsym ")[2])


@pytest.fixture
def folder_of_the_docs(tmp_path, monkeypatch):
    """A folder with the files that README and docs speak of."""
    h5py, pandas = pytest.importorskip("h5py"), pytest.importorskip("pandas")
    X, Y, _ = fastsym.make_two_layer(20_000, 12, 10, 11, noise=0.1, random_state=0)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "Y.npy", Y)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["X"], file["Y"], file["run1/X"], file["run1/Y"] = X, Y, X, Y
    X, Y, _ = fastsym.make_two_layer(20_000, 6, 4, 5, noise=0.1, random_state=0)
    np.savez(tmp_path / "all.npz", X=X, Y=Y)
    (tmp_path / "shards").mkdir()
    for i, rows in enumerate(np.array_split(np.arange(20_000), 2)):
        np.savez(tmp_path / "shards" / f"part{i}.npz", X=X[rows], Y=Y[rows])
    X, Y, _ = fastsym.make_two_layer(20_000, 3, 1, 1, noise=0.1, random_state=0)
    table = pandas.DataFrame(X, columns=["x0", "x1", "x2"])
    table["target"] = Y[:, 0]
    table.to_parquet(tmp_path / "all.parquet")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_run(page, folder_of_the_docs, monkeypatch, capsys):
    """In the order of the page, but for those that take minutes or need a cluster."""
    for arguments in commands(page):
        if arguments[0] in ("demo", "reproduce") or "--dask" in arguments:
            continue
        monkeypatch.setattr(sys, "argv", ["fastsym", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert not exit_.value.code, (arguments, capsys.readouterr().err)


def test_pages_have_commands():
    counts = {page.name: len(list(commands(page))) for page in PAGES}
    assert counts["README.md"] >= 5
    assert counts["sources.md"] >= 2
    assert counts["scaling.md"] >= 6


def test_readme_has_examples():
    assert len(re.findall("```python", PAGES[0].read_text())) >= 3


def test_links_between_pages_and_code_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module):
    failed, _ = doctest.testmod(importlib.import_module(f"fastsym.{module}"))
    assert failed == 0


def test_public_classes_have_examples():
    for value in (
        fastsym.TwoLayerRegressor,
        fastsym.MomentAccumulator,
        fastsym.TwoLayerNetwork,
        fastsym.make_two_layer,
    ):
        assert ">>>" in value.__doc__


def test_documented_parameters_are_the_real_ones():
    """Each parameter of a public function or class is in its docstring, and none besides."""
    import inspect

    # Commands and kernels have a text of their own.
    left_out = ("_", "cli.", "sums.kernels")
    for module in [module for module in MODULES if not module.startswith(left_out)]:
        for name, value in vars(importlib.import_module(f"fastsym.{module}")).items():
            if getattr(value, "__module__", "") != f"fastsym.{module}" or name.startswith("_"):
                continue
            if not inspect.isfunction(value):
                continue
            section = re.search(
                r"Parameters\n\s*-+\n(.*?)(?:\n\s*\w+\n\s*---|\Z)", value.__doc__, re.S
            )
            parameters = inspect.signature(value).parameters
            if section is None:
                assert not parameters or "\n" not in value.__doc__.strip(), f"{module}.{name}"
                continue
            for parameter in parameters:
                assert re.search(rf"\b{parameter}\b", section[1]), f"{module}.{name}: {parameter}"
