"""Linear algebra that several rooms need: pairs and triples, packing, whitening, unit rows.

A symmetric k x k matrix is held as its pairs (a, b), a <= b, in lexicographic order. Packed with
sqrt(2) for a < b the pairs keep inner products.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_CHUNK_COLUMNS = 256
_KEPT_UP_TO = 64
_SHORT, _LONG = 1e-140, 1e140  # lengths whose squares lose no digits


def pair_indices(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs a <= b of k axes in lexicographic order, that of the kernels.

    Parameters
    ----------
    k : int

    Returns
    -------
    a, b : ndarray of shape (k (k + 1) / 2,)
        Read-only.
    """
    return _kept_pairs(k) if k <= _KEPT_UP_TO else _pairs(k)


def _pairs(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    a, b = np.triu_indices(k)
    a.setflags(write=False)
    b.setflags(write=False)
    return a, b


# Each step of a refinement asks for small ones, and NumPy works them out anew.
_kept_pairs = lru_cache(None)(_pairs)


def pair_positions(k: int) -> NDArray[np.intp]:
    """Return the positions of the pairs {a, b} among the pairs.

    Parameters
    ----------
    k : int

    Returns
    -------
    positions : ndarray of shape (k, k)
    """
    a, b = pair_indices(k)
    positions = np.empty((k, k), np.intp)
    positions[a, b] = positions[b, a] = np.arange(len(a))
    return positions


def triple_positions(k: int) -> NDArray[np.intp]:
    """Return the positions of the triples {l, a, b} among the triples of k axes.

    Parameters
    ----------
    k : int

    Returns
    -------
    positions : ndarray of shape (k, k (k + 1) / 2)
        For l and a pair (a, b).
    """
    a, b = pair_indices(k)
    sorted_triples = np.sort(
        np.stack(np.broadcast_arrays(np.arange(k)[:, None], a[None], b[None])), axis=0
    )
    first, second, third = sorted_triples
    pairs_from = np.arange(k, 0, -1) * np.arange(k + 1, 1, -1) // 2  # pairs with both >= a
    start = np.concatenate([[0], np.cumsum(pairs_from)])[:-1]
    offset = np.arange(k) * k - np.arange(k) * (np.arange(k) - 1) // 2  # of the pair (a, a)
    return start[first] + offset[second] + (third - second) - offset[first]


def packing_weights(k: int) -> Matrix:
    """Return the weights of the pairs with which packing keeps inner products.

    Parameters
    ----------
    k : int

    Returns
    -------
    weights : ndarray of shape (k (k + 1) / 2,)
        1 for a = b, sqrt(2) for a < b.
    """
    a, b = pair_indices(k)
    return np.where(a == b, 1, np.sqrt(2))


def from_pairs(pairs: Matrix, k: int) -> Matrix:
    """Write pairs out as symmetric matrices.

    Parameters
    ----------
    pairs : ndarray of shape (..., k (k + 1) / 2)
    k : int

    Returns
    -------
    matrices : ndarray of shape (..., k, k)
    """
    a, b = pair_indices(k)
    matrices = np.empty((*pairs.shape[:-1], k, k))
    matrices[..., a, b] = matrices[..., b, a] = pairs
    return matrices


def from_upper(matrix: Matrix) -> Matrix:
    """Complete a symmetric matrix of which the upper triangle counts.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)

    Returns
    -------
    symmetric : ndarray of shape (n, n)
    """
    upper = np.triu(matrix)
    return upper + np.triu(upper, 1).T


def congruence(pairs: Matrix, transform: Matrix) -> Matrix:
    """Apply U -> transform^T U transform to each column.

    Parameters
    ----------
    pairs : ndarray of shape (k (k + 1) / 2, n_columns)
        A column has the pairs of a U, without weights.
    transform : ndarray of shape (k, k)

    Returns
    -------
    pairs : ndarray of shape (k (k + 1) / 2, n_columns)
    """
    k = len(transform)
    a, b = pair_indices(k)
    positions = pair_positions(k)
    result = np.empty_like(pairs)
    # Unpacking all columns at once would take a k x k x P array.
    for first in range(0, pairs.shape[1], _CHUNK_COLUMNS):
        columns = slice(first, first + _CHUNK_COLUMNS)
        full = pairs[positions, columns]
        full = np.matmul(transform.T, np.tensordot(transform.T, full, 1))
        result[:, columns] = full[a, b]
    return result


def whitening(moment: Matrix, tolerance: float = 0.0) -> Matrix:
    """Whitening map of a second-moment matrix, without the directions in which it is singular.

    Parameters
    ----------
    moment : ndarray of shape (n, n)
        Symmetric positive semi-definite.
    tolerance : float, default=0.0
        Eigenvalues of the matrix scaled to unit diagonal count as zero up to this share of the
        largest, or 100 n eps if that is more; the scaling makes the rank independent of units.

    Returns
    -------
    whiten : ndarray of shape (n, rank)
        whiten^T moment whiten = I.

    Raises
    ------
    ValueError
        If the moment is not finite.
    """
    if not len(moment):
        return np.empty((0, 0))
    if not np.isfinite(moment).all():
        raise ValueError("the second moments are not finite: values are too large; rescale them.")
    scale = np.sqrt(np.maximum(np.diag(moment), 0))
    scale = np.where(scale > 0, scale, 1)
    values, vectors = np.linalg.eigh(moment / scale / scale[:, None])
    kept = values > max(tolerance, 100 * len(moment) * np.finfo(float).eps) * values[-1]
    return vectors[:, kept] / np.sqrt(values[kept]) / scale[:, None]


def row_lengths(rows: Matrix) -> Matrix:
    """Return what rows are to be divided by for unit length: their lengths, 1 for a row of zeros.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_columns)

    Returns
    -------
    lengths : ndarray of shape (n_rows,)
    """
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(rows, axis=1)
    if not ((lengths > _SHORT) & (lengths < _LONG)).all():
        # Squares vanish or overflow where the rows do not.
        largest = np.abs(rows).max(axis=1, initial=0)
        exponents = np.frexp(largest)[1]
        lengths = np.ldexp(np.linalg.norm(np.ldexp(rows, -exponents[:, None]), axis=1), exponents)
    return np.where(lengths > 0, lengths, 1)


def unit_rows(rows: Matrix) -> Matrix:
    """Scale rows to unit length; a row of zeros stays.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_columns)

    Returns
    -------
    units : ndarray of shape (n_rows, n_columns)
    """
    return rows / row_lengths(rows)[:, None]


def absolute_cosines(rows: Matrix) -> Matrix:
    """Return |cosine| of the angles between all rows, 1 for parallel and for opposite ones.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_columns)

    Returns
    -------
    cosines : ndarray of shape (n_rows, n_rows)
    """
    units = unit_rows(rows)
    return np.minimum(np.abs(units @ units.T), 1.0)
