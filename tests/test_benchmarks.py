"""Every benchmark runs at a tiny size, so that the suite cannot rot."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("bench_*.py"))
PREFIXES = ("time_", "timeraw_", "track_")


def benchmarks():
    for module_name in MODULES:
        module = importlib.import_module(f"benchmarks.{module_name}")
        for class_name, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ != module.__name__:
                continue
            methods = [name for name in dir(cls) if name.startswith(PREFIXES)]
            assert methods, f"{module_name}.{class_name} has no benchmark"
            for method in methods:
                yield pytest.param(cls, method, id=f"{module_name}.{class_name}.{method}")


def first_parameters(cls):
    params = getattr(cls, "params", ())
    nested = params and isinstance(params[0], (list, tuple))
    return tuple(p[0] for p in params) if nested else tuple(params[:1])


@pytest.mark.parametrize(("cls", "method"), list(benchmarks()))
def test_benchmark_runs(cls, method, monkeypatch):
    monkeypatch.setenv("ASV_SLOW", "1")
    instance = cls()
    if hasattr(cls, "rows"):
        instance.rows = 500
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
