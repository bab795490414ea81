"""How rows get to the kernels: aligned buffers of one layout, and one caller at a time.

Rows are staged as sqrt(weight) (1, x, y, 0 ...). The square root makes every product of two entries
weighted by `weight`, and a ReLU network commutes with it, relu(c t) = c relu(t).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SUPERBLOCK_ROWS = 8192
"""Rows staged before they are accumulated; also the pilot of a stream."""

MAX_LANES = 64
LANE_BYTES = 8 << 20
_PAGE = 4096

# Numba's workqueue layer aborts when two threads enter a parallel function at once.
_kernel_lock = threading.Lock()


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


def check_n_jobs(n_jobs: Any) -> None:
    """Raise ValueError if n_jobs is not None, -1 or a positive integer."""
    if n_jobs is not None and not (
        isinstance(n_jobs, Integral) and (int(n_jobs) >= 1 or n_jobs == -1)
    ):
        raise ValueError(f"n_jobs must be None, -1 or at least 1, got {n_jobs!r}.")


def staged_rows(n_features: int, n_outputs: int) -> int:
    """Rows of a superblock: SUPERBLOCK_ROWS, more if that is few for so many columns.

    Parameters
    ----------
    n_features, n_outputs : int

    Returns
    -------
    n_rows : int
        A multiple of SUPERBLOCK_ROWS, at least 4 (n_features + n_outputs).
    """
    factor = -(-4 * (n_features + n_outputs) // SUPERBLOCK_ROWS)
    return SUPERBLOCK_ROWS * max(1, factor)


def aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Zeros that begin at a page: NumPy's own begin anywhere, and vectors then straddle lines."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _PAGE, np.uint8)
    start = -memory.ctypes.data % _PAGE
    return memory[start : start + size].view(dtype).reshape(shape)


def padded(n: int) -> int:
    """Round up to whole tiles of the kernels."""
    return -(-n // 8) * 8


def padded_matrix(
    matrix: NDArray[np.float64], columns: int | None = None, dtype: DTypeLike = np.float64
) -> NDArray[Any]:
    """Copy a matrix into zeros with its columns rounded up to whole tiles (of `columns`)."""
    result = np.zeros((len(matrix), padded(columns or matrix.shape[1])), dtype)
    result[:, : matrix.shape[1]] = matrix
    return result


def lanes_of(sizes: int) -> int:
    """Private copies of sums of `sizes` numbers: a power of two, bounded by memory."""
    lanes = MAX_LANES
    while lanes > 1 and lanes * 8 * sizes > LANE_BYTES:
        lanes //= 2
    return lanes


def stage(
    out: NDArray[Any],
    X: NDArray[Any],
    Y: NDArray[Any],
    weights: NDArray[Any] | None = None,
    first: int = 0,
) -> int:
    """Write sqrt(weight) (1, x, y) into rows of `out`, as many as it has room for.

    Parameters
    ----------
    out : ndarray of shape (n_rows, at least 1 + n_features + n_outputs)
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    weights : ndarray of shape (n_samples,), default=None
        Positive; None: all 1.
    first : int, default=0
        Sample to begin with.

    Returns
    -------
    count : int
        Rows written.
    """
    d, m = X.shape[1], Y.shape[1]
    count = min(len(out), len(X) - first)
    out, part = out[:count], slice(first, first + count)
    out[:, 0] = 1
    out[:, 1 : 1 + d] = X[part]
    out[:, 1 + d : 1 + d + m] = Y[part]
    if weights is not None:
        out[:, : 1 + d + m] *= np.sqrt(weights[part])[:, None]
    return count


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
