"""Joint diagonalization by congruence: N_l ~ Z D_l Z^T for symmetric, indefinite N_l.

Z need not be orthogonal, so Jacobi rotations do not apply, nor do methods for positive definite
matrices. `METHODS` is the table of those that `solve` knows by name.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from fastsym._validation import as_generator
from fastsym.algebra import Matrix

_UWEDGE_ITERATIONS = 500
_UWEDGE_STARTS = 8
_UWEDGE_AGREEMENT = 1e-6
_ALS_ITERATIONS = 500
_ALS_STARTS = 10


class JointDiagonalization(NamedTuple):
    """Z (k, k) with N_l ~ Z D_l Z^T, unit columns, and the residual as in `Diagnostics`."""

    detectors: Matrix
    residual: float


def _residual(matrices: Matrix, Z: Matrix) -> float:
    """Off-diagonal root mean square of Z^-1 N_l Z^-T, rows scaled to a unit diagonal over l."""
    V = np.linalg.pinv(Z)
    rotated = V @ matrices @ V.T
    diagonal = np.einsum("lii->li", rotated)
    scale = np.sqrt(np.linalg.norm(diagonal, axis=0))
    scale = np.where(scale > 0, scale, 1)
    off = rotated / np.outer(scale, scale)
    off[:, np.arange(len(Z)), np.arange(len(Z))] = 0
    return float(np.linalg.norm(off) / np.sqrt(len(Z)))


def uwedge(matrices: Matrix, random_state: Any = None) -> JointDiagonalization:
    """Joint diagonalization by congruence, unweighted (U-WEDGE).

    Parameters
    ----------
    matrices : ndarray of shape (n_matrices, k, k)
        Symmetric, possibly indefinite, about Z D_l Z^T with a Z that need not be orthogonal.
    random_state : None, int, RandomState or Generator
        Draws the combinations of the matrices that give the starts.

    Returns
    -------
    result : JointDiagonalization
        The best of up to 8 starts; once two starts end in the same best value, no more are made.

    References
    ----------
    Tichavsky and Yeredor, IEEE Trans. Signal Processing 57(3), 2009,
    doi:10.1109/TSP.2008.2009271.
    """
    generator = as_generator(random_state)
    best_value, best = np.inf, np.eye(matrices.shape[1])
    for start in range(_UWEDGE_STARTS):
        Z = _definite_start(matrices, generator) if start == 0 else None
        if Z is None:
            Z = random_pair(matrices, generator).detectors
        value, Z = _uwedge_from(matrices, Z)
        agree = abs(value - best_value) <= _UWEDGE_AGREEMENT * value + 1e-20
        if value < best_value:
            best_value, best = value, Z
        if agree:
            break
    return JointDiagonalization(best, _residual(matrices, best))


def _definite_start(matrices: Matrix, generator: np.random.Generator) -> Matrix | None:
    """Start from the matrix of the span closest to I, sum_i c_i z_i z_i^T.

    When it is positive definite it whitens the z_i, and the eigenvectors of any combination are
    close to them. None when it is not.
    """
    n_matrices, k, _ = matrices.shape
    basis = np.linalg.qr(matrices.reshape(n_matrices, -1).T)[0]
    closest = (basis @ (basis.T @ np.eye(k).ravel())).reshape(k, k)
    values, vectors = np.linalg.eigh((closest + closest.T) / 2)
    if values[0] <= 1e-6 * values[-1]:
        return None
    whiten, unwhiten = vectors / np.sqrt(values), vectors * np.sqrt(values)
    combination = np.tensordot(generator.standard_normal(n_matrices), matrices, 1)
    return unwhiten @ np.linalg.eigh(whiten.T @ combination @ whiten)[1]


def _uwedge_from(matrices: Matrix, Z: Matrix) -> tuple[float, Matrix]:
    """Iterate from Z; return the criterion (sum of squared off-diagonals) and Z, unit columns."""
    V = np.linalg.pinv(Z)
    previous = np.inf
    for _ in range(_UWEDGE_ITERATIONS):
        # Rows of V scaled so that each diagonal has norm 1 over l, which fixes the criterion.
        diagonal = np.einsum("ia,lab,ib->li", V, matrices, V, optimize=True)
        scale = np.linalg.norm(diagonal, axis=0)
        V = V / np.sqrt(np.where(scale > 0, scale, 1))[:, None]
        rotated = V @ matrices @ V.T
        diagonal = np.einsum("lii->li", rotated)
        off = rotated.copy()
        off[:, np.arange(len(V)), np.arange(len(V))] = 0
        criterion = float((off**2).sum())
        if not np.isfinite(criterion):
            return np.inf, Z
        if previous - criterion <= 1e-12 * criterion and previous < np.inf:
            break
        previous = criterion
        # Least squares for the mixing I + E that explains the off-diagonals to first order:
        # rotated_l[i, j] ~ E_ij d_l[j] + E_ji d_l[i], two unknowns for each pair (i, j).
        gram = diagonal.T @ diagonal
        projected = np.einsum("lij,lj->ij", rotated, diagonal)
        own = np.diag(gram)
        determinant = np.outer(own, own) - gram**2
        solvable = determinant > 1e-12 * np.outer(own, own)
        step = own[:, None] * projected - gram * projected.T
        mixing = np.where(solvable, step / np.where(solvable, determinant, 1), 0)
        np.fill_diagonal(mixing, 1)
        V = np.linalg.lstsq(mixing, V, rcond=None)[0]
    Z = np.linalg.pinv(V)
    return criterion, Z / np.linalg.norm(Z, axis=0)


def random_pair(matrices: Matrix, random_state: Any = None) -> JointDiagonalization:
    """Simultaneous diagonalization of one random pair, the recipe of the paper's text.

    Two random combinations of the matrices are Z D Z^T and Z D' Z^T; the eigenvectors of the first
    times the inverse of the second are the columns of Z. Where sampling error makes two of them a
    complex pair, an orthonormal basis of the plane of its real and imaginary parts is taken.

    Parameters
    ----------
    matrices : ndarray of shape (n_matrices, k, k)
    random_state : None, int, RandomState or Generator

    Returns
    -------
    result : JointDiagonalization

    References
    ----------
    Section 3 of the paper (simultaneous diagonalization).
    """
    weights = as_generator(random_state).standard_normal((2, len(matrices)))
    first, second = np.tensordot(weights, matrices, 1)
    values, vectors = linalg.eig(first @ np.linalg.pinv(second))
    Z = vectors.real / np.linalg.norm(vectors.real, axis=0)
    for i in np.flatnonzero(values.imag > 0):  # LAPACK puts the conjugate next to it
        plane = np.stack([vectors[:, i].real, vectors[:, i].imag], axis=1)
        Z[:, i : i + 2] = np.linalg.svd(plane, full_matrices=False)[0]
    return JointDiagonalization(Z, _residual(matrices, Z))


def cp_als(matrices: Matrix, random_state: Any = None) -> JointDiagonalization:
    """CP decomposition of the stacked matrices by alternating least squares, with restarts.

    The tensor sum_i z_i o z_i o d_i is fitted with free factors from 10 random starts; the fit with
    the least error is kept and its two estimates of each z_i averaged. It can end with a neuron
    doubled and another lost.

    Parameters
    ----------
    matrices : ndarray of shape (n_matrices, k, k)
    random_state : None, int, RandomState or Generator

    Returns
    -------
    result : JointDiagonalization

    References
    ----------
    Section 6 of the paper (practical recipe of its experiments); Kolda and Bader, SIAM Review
    51(3), 2009, doi:10.1137/07070111X.
    """
    k = matrices.shape[1]
    generator = as_generator(random_state)
    best: tuple[float, Matrix, Matrix] | None = None
    total = float((matrices**2).sum())
    for _ in range(_ALS_STARTS):
        U, V = generator.standard_normal((2, k, k))
        previous = np.inf
        for _ in range(_ALS_ITERATIONS):
            V /= _column_lengths(V)
            U /= _column_lengths(U)
            D = np.einsum("lab,ai,bi->li", matrices, U, V, optimize=True)
            D = D @ np.linalg.pinv((U.T @ U) * (V.T @ V))
            U = np.einsum("lab,bi,li->ai", matrices, V, D, optimize=True)
            U = U @ np.linalg.pinv((V.T @ V) * (D.T @ D))
            V = np.einsum("lab,ai,li->bi", matrices, U, D, optimize=True)
            products = V
            gram = (U.T @ U) * (D.T @ D)
            V = V @ np.linalg.pinv(gram)
            error = total - 2 * float((V * products).sum()) + float((V @ gram * V).sum())
            if previous - error <= 1e-5 * abs(error) or error <= 1e-14 * total:
                break
            previous = error
        if np.isfinite(error) and (best is None or error < best[0]):
            best = error, U, V
    if best is None:  # the matrices are too large for their squares
        return JointDiagonalization(np.eye(k), _residual(matrices, np.eye(k)))
    _, U, V = best
    U, V = U / _column_lengths(U), V / _column_lengths(V)
    Z = U + V * np.where((U * V).sum(axis=0) < 0, -1, 1)
    Z /= _column_lengths(Z)
    return JointDiagonalization(Z, _residual(matrices, Z))


def _column_lengths(columns: Matrix) -> Matrix:
    """Lengths of columns, 1 for a column of zeros, which stays so."""
    lengths = np.linalg.norm(columns, axis=0)
    return np.where(lengths > 0, lengths, 1)


class Diagonalizer(NamedTuple):
    """A joint diagonalization and what goes with it in `solve`.

    Parameters
    ----------
    function : callable
        Of the matrices and a random_state, as `uwedge`; returns a JointDiagonalization.
    reduce_variance : bool, default=True
        Take E[x y^T] with the control variate of the frame. The direct form of two passes is in
        the coordinates that this gives, so only such diagonalizers can use it. False: as the
        samples have it, as the paper does.
    seed : int, default=0
        Stands for a random_state of None; None: drawn anew each time.
    """

    function: Callable[[Matrix, Any], JointDiagonalization]
    reduce_variance: bool = True
    seed: int | None = 0


METHODS: Mapping[str, Diagonalizer] = {
    "uwedge": Diagonalizer(uwedge),
    "pair": Diagonalizer(random_pair, reduce_variance=False, seed=None),
    "als": Diagonalizer(cp_als, reduce_variance=False, seed=None),
}
"""The joint diagonalizations that `solve` knows by name."""


def diagonalizer_of(
    method: str | Callable[[Matrix, Any], JointDiagonalization],
) -> tuple[str, Diagonalizer]:
    """Look up a joint diagonalization, or take one as it is.

    Parameters
    ----------
    method : str or callable
        A name in `METHODS`, or a function as `Diagonalizer` has it, which is treated as U-WEDGE is.

    Returns
    -------
    name : str
    diagonalizer : Diagonalizer

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if callable(method):
        return getattr(method, "__name__", type(method).__name__), Diagonalizer(method)
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    return method, METHODS[method]
