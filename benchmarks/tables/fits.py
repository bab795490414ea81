"""What the tables of fits share: one thread, and what a fit took and said."""

import time
import warnings
from contextlib import contextmanager
from typing import Any, NamedTuple

import numba
from threadpoolctl import threadpool_limits

import fastsym

PAPER = {"fit_intercept": False, "linear": False}
"""Parameters of an estimator: the model of the paper, y = A relu(W x), and no larger one."""


class Told(NamedTuple):
    """What a function returned, its processor time, and the kinds of warnings it gave."""

    result: Any
    seconds: float
    warned: tuple


def told(function):
    """Call a function; seconds are those of the processor, which neighbours do not change."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.process_time()
        result = function()
        seconds = time.process_time() - start
    return Told(result, seconds, tuple(sorted({one.category.__name__ for one in caught})))


def quiet(function):
    """Call a function without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()


@contextmanager
def one_thread():
    """One thread for Numba, BLAS, OpenMP and, if it is there, PyTorch."""
    torch = has_torch()
    if torch:
        torch.set_num_threads(1)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        numba.set_num_threads(before)


def has_torch():
    """PyTorch, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def load():
    """Fit something small, so that no measured fit loads or compiles the kernels."""
    X, Y, _ = fastsym.make_two_layer(500, 3, 2, 2, noise=0.3, random_state=0)
    quiet(lambda: fastsym.TwoLayerRegressor(2, fit_intercept=True).fit(X, Y))
    quiet(lambda: fastsym.TwoLayerRegressor().fit(X, Y))
