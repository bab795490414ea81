"""Two-layer ReLU networks y = c + L x + A relu(W x + b), fitted to samples.

Public names are imported when they are first used, so that ``import fastsym`` is quick and the
command line does not load what it does not need.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "MomentAccumulator": "sums.moments",
    "TwoLayerNetwork": "network",
    "TwoLayerRegressor": "estimator",
    "accumulate": "engine",
    "make_two_layer": "datasets",
    "parameter_error": "metrics",
}

__all__ = [
    "MomentAccumulator",
    "TwoLayerNetwork",
    "TwoLayerRegressor",
    "__version__",
    "accumulate",
    "datasets",
    "diagnostics",
    "engine",
    "exceptions",
    "experiments",
    "identifiability",
    "make_two_layer",
    "metrics",
    "moments",
    "parameter_error",
    "plotting",
    "refine",
    "report",
    "sources",
    "spectral",
    "stream",
]

if TYPE_CHECKING:
    from fastsym import (
        datasets,
        diagnostics,
        engine,
        exceptions,
        experiments,
        identifiability,
        metrics,
        moments,
        plotting,
        refine,
        report,
        sources,
        spectral,
        stream,
    )
    from fastsym.datasets import make_two_layer
    from fastsym.engine import accumulate
    from fastsym.estimator import TwoLayerRegressor
    from fastsym.metrics import parameter_error
    from fastsym.network import TwoLayerNetwork
    from fastsym.sums.moments import MomentAccumulator


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"fastsym.{_PUBLIC[name]}"), name)
    if name in __all__:
        # Modules that live in a folder have a door here, such as diagnostics.py.
        return importlib.import_module(f"fastsym.{name}")
    raise AttributeError(f"module 'fastsym' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
