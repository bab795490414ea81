"""Every benchmark runs at a tiny size, so that the suite cannot rot."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("bench_*.py"))
PREFIXES = ("time_", "timeraw_", "track_")
# They start processes, two of them to compile all kernels in an empty cache.
SLOW = {"track_first_fit_cold", "track_first_fit_warm", "track_import_beyond_numba"}


def benchmarks():
    for module_name in MODULES:
        module = importlib.import_module(f"benchmarks.{module_name}")
        for class_name, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ != module.__name__:
                continue
            methods = [name for name in dir(cls) if name.startswith(PREFIXES)]
            assert methods, f"{module_name}.{class_name} has no benchmark"
            for method in methods:
                marks = [pytest.mark.slow] if method in SLOW else []
                name = f"{module_name}.{class_name}.{method}"
                yield pytest.param(cls, method, marks=marks, id=name)


def first_parameters(cls):
    params = getattr(cls, "params", ())
    nested = params and isinstance(params[0], (list, tuple))
    return tuple(p[0] for p in params) if nested else tuple(params[:1])


@pytest.mark.parametrize(("cls", "method"), list(benchmarks()))
def test_benchmark_runs(cls, method, monkeypatch):
    monkeypatch.setenv("ASV_SLOW", "1")
    instance = cls()
    for attribute, least in (("rows", 500), ("repeats", 1)):
        if hasattr(cls, attribute):
            setattr(instance, attribute, least)
    parameters = first_parameters(cls)
    if hasattr(cls, "setup_cache"):
        instance.setup_cache()
    if hasattr(cls, "setup"):
        try:
            instance.setup(*parameters)
        except NotImplementedError as reason:  # asv's way to skip
            pytest.skip(str(reason))
    result = getattr(instance, method)(*parameters)
    if hasattr(cls, "teardown"):
        instance.teardown(*parameters)
    if method.startswith("track_"):
        assert result >= 0
    if method.startswith("timeraw_"):
        exec(inspect.cleandoc(result), {})


def test_asv_configuration_is_valid_json_and_names_what_is_there():
    config = json.loads((ROOT / "asv.conf.json").read_text())
    assert (ROOT / config["benchmark_dir"]).is_dir()
    assert MODULES
