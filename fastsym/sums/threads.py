"""Threads of the kernels and of BLAS: how many, and who may use them when."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np

_OPERATIONS = 1e6  # that a thread is worth, about a tenth of a millisecond

# Numba's workqueue layer aborts when two threads enter a parallel function at once.
_kernel_lock = threading.Lock()


def check_n_jobs(n_jobs: Any) -> None:
    """Raise ValueError if n_jobs is not None, -1 or a positive integer."""
    if n_jobs is not None and not (
        isinstance(n_jobs, Integral) and (int(n_jobs) >= 1 or n_jobs == -1)
    ):
        raise ValueError(f"n_jobs must be None, -1 or at least 1, got {n_jobs!r}.")


@contextmanager
def kernel_threads(n_jobs: int | None) -> Iterator[int]:
    """Hold the parallel kernels for this thread; yields the number of threads, n_jobs at most."""
    import numba

    with _kernel_lock:
        before = numba.get_num_threads()
        threads = before if n_jobs is None or n_jobs == -1 else min(n_jobs, before)
        numba.set_num_threads(threads)
        try:
            yield threads
        finally:
            numba.set_num_threads(before)


def run_kernel(
    parallel: Callable[..., None],
    serial: Callable[..., None],
    n_jobs: int | None,
    arguments: Callable[[int], tuple[Any, ...]],
    operations: float = np.inf,
) -> None:
    """Run a kernel on n_jobs threads at most, or its serial build in this thread for n_jobs = 1.

    The serial build takes no lock and starts no threads, for callers that have threads of their
    own. Both give the same bits.

    Parameters
    ----------
    parallel, serial : callable
        The two builds of the kernel.
    n_jobs : int or None
        None or -1: all threads that Numba has.
    arguments : callable
        Gives the arguments of the kernel for a number of threads.
    operations : float, default=inf
        Multiplications of the call: a thread more for each million of them, where starting threads
        costs more, beside other work on the machine a hundred times more.
    """
    if n_jobs == 1:
        serial(*arguments(1))
        return
    worth = 1 + operations // _OPERATIONS
    if worth < (n_jobs if n_jobs and n_jobs > 0 else np.inf):
        n_jobs = int(worth) if np.isfinite(worth) else n_jobs
    with kernel_threads(n_jobs) as threads:
        parallel(*arguments(threads))


@lru_cache(1)
def _blas_pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread; also a decorator.

    OpenBLAS's threads spin for some 20 ms after each call, NumPy's and SciPy's apart, and take the
    cores from the kernels: measured 2 to 9 times slower fits on two cores. All matrices that BLAS
    gets here are small.
    """
    with _blas_pools().limit(limits=1, user_api="blas"):
        yield
