"""Every Python block of the README and the docs runs, and every docstring example is true."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import fastsym

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = [path.stem for path in Path(fastsym.__file__).parent.glob("*.py")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page):
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, page.name, "exec"), namespace)


def test_readme_has_examples():
    assert len(re.findall("```python", PAGES[0].read_text())) >= 3


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith("__")])
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

    for module in MODULES:
        if module.startswith("_") or module == "cli":
            continue
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
