"""Networks y = sum_i sigma(w_i . x) from third-order Hermite moments, for Gaussian x.

With sigma(t) = a0 + a1 t + a3 t^3 the third Hermite moment E[y He3(x)] is 6 a3 sum_i w_i^(x)3 for
unit w_i. Contracted with directions v it gives d x d matrices 6 a3 W^T diag(W v) W, which are all
that is accumulated: for r <= d units they have one joint diagonalizer, W. For r > d there is none.
Mondelli and Montanari show, for d^(3/2) << r << d^2 and under an assumption on the hardness of
tensor decomposition, that no polynomial-time method learns such weights well enough to predict
better than the constant E[y].
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from fastsym._validation import as_generator, check_pair
from fastsym.algebra import Matrix, unit_rows
from fastsym.spectral.diagonalization import uwedge
from fastsym.sums.layout import Lanes
from fastsym.sums.reducer import Arrays, Reducer
from fastsym.sums.staging import Stager


class HermiteMoments(NamedTuple):
    """Expectations over Gaussian samples.

    Parameters
    ----------
    n_samples : int
    directions : ndarray of shape (n_directions, n_features)
        v_1, v_2, ... that the third moment is contracted with.
    mean : float
        E[y].
    first : ndarray of shape (n_features,)
        E[y x].
    third : ndarray of shape (n_directions, n_features, n_features)
        E[y He3(x)] contracted with each direction, He3(x)(v) = (v.x) (x x^T - I) - x v^T - v x^T.
    """

    n_samples: int
    directions: Matrix
    mean: float
    first: Matrix
    third: Matrix


class HermiteSums(Lanes):
    """Sums of y, y x and y (v.x) x x^T over staged rows, by matrix products.

    Parameters
    ----------
    directions : ndarray of shape (n_directions, n_features)
    """

    def __init__(self, directions: Matrix) -> None:
        d = directions.shape[1]
        self.directions = directions
        super().__init__({"mean": (), "first": (d,), "third": (len(directions), d, d)}, most=1)

    def add(self, rows: Matrix, n_rows: int) -> None:
        """Add the first n_rows of staged rows (1, x, y, 0 ...)."""
        d = self.directions.shape[1]
        X, y = np.ascontiguousarray(rows[:n_rows, 1 : 1 + d]), rows[:n_rows, 1 + d]
        self.used = 1
        self.arrays["mean"][0] += y.sum()
        self.arrays["first"][0] += y @ X
        for total, weight in zip(self.arrays["third"][0], (X @ self.directions.T).T, strict=True):
            total += X.T @ (X * (y * weight)[:, None])


class HermiteAccumulator(Reducer):
    """One pass over samples of one output: Hermite moments of order up to three.

    Parameters
    ----------
    directions : ndarray of shape (n_directions, n_features)
        That the third moment is contracted with.
    """

    _strangers = "other directions"
    _sums: HermiteSums

    def __init__(self, directions: Matrix) -> None:
        super().__init__(None, Stager(directions.shape[1], 1), HermiteSums(directions))

    def update(self, X: Any, y: Any) -> "HermiteAccumulator":
        """Take in samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Standard Gaussian.
        y : array_like of shape (n_samples,)

        Returns
        -------
        self : HermiteAccumulator

        Raises
        ------
        ValueError
            If they are not finite or do not match.
        """
        return self.take(*check_pair(X, y, self._sums.directions.shape[1], 1))

    def _add(self, stager: Stager) -> None:
        if stager.weighted:
            raise ValueError("Hermite moments take no sample weights.")
        self._sums.add(stager.rows, stager.count)

    def _identity(self) -> Arrays:
        return {"directions": self._sums.directions}

    def result(self) -> HermiteMoments:
        """Return the moments of the samples so far."""
        self._flush()
        n, totals = self._n_summed, self._sums.totals()
        first, third = totals["first"] / n, totals["third"] / n
        eye = np.eye(len(first))
        for matrix, v in zip(third, self._sums.directions, strict=True):
            matrix -= (v @ first) * eye + np.outer(first, v) + np.outer(v, first)
        return HermiteMoments(n, self._sums.directions, float(totals["mean"] / n), first, third)


def decompose(moments: HermiteMoments, n_units: int, random_state: Any = None) -> Matrix:
    """Find unit weights whose third powers span the contracted moments.

    Parameters
    ----------
    moments : HermiteMoments
    n_units : int
        At most n_features.
    random_state : None, int, RandomState or Generator
        Of the joint diagonalization. None: fixed.

    Returns
    -------
    weights : ndarray of shape (n_units, n_features)
        Rows of unit length, of any sign.

    Raises
    ------
    ValueError
        If n_units exceeds n_features.

    References
    ----------
    Mondelli and Montanari, "On the connection between learning two-layer neural networks and tensor
    decomposition", AISTATS 2019, arXiv:1802.07301; Tichavsky and Yeredor (2009),
    doi:10.1109/TSP.2008.2009271, for the joint diagonalization.
    """
    third = moments.third
    d = third.shape[1]
    if not 1 <= n_units <= d:
        raise ValueError(f"n_units must be from 1 to n_features={d}, got {n_units}.")
    # The span of the weights: leading left singular space of all contractions side by side.
    basis = np.linalg.svd(third.transpose(1, 0, 2).reshape(d, -1))[0][:, :n_units]
    small = basis.T @ third @ basis
    if n_units == 1:
        return basis.T
    weights = uwedge(small, 0 if random_state is None else random_state).detectors.T @ basis.T
    return unit_rows(weights)


def coefficients(moments: HermiteMoments, weights: Matrix) -> Matrix:
    """Coefficients c of sum_i c_i He3(w_i . x) that agree best with the contracted moments.

    Parameters
    ----------
    moments : HermiteMoments
    weights : ndarray of shape (n_units, n_features)
        Rows of unit length.

    Returns
    -------
    c : ndarray of shape (n_units,)
    """
    outer = np.einsum("ia,ib->iab", weights, weights)
    # E[He3(w.x) He3(x)] = 6 w (x) w (x) w
    design = 6 * np.einsum("lv,iv,iab->ilab", moments.directions, weights, outer)
    design = design.reshape(len(weights), -1).T
    return np.linalg.lstsq(design, moments.third.ravel())[0]


def predict(moments: HermiteMoments, weights: Matrix, c: Matrix, X: Matrix) -> Matrix:
    """E[y] + E[y x].x + sum_i c_i He3(w_i . x).

    Parameters
    ----------
    moments : HermiteMoments
    weights : ndarray of shape (n_units, n_features)
        No rows: the predictor that ignores the tensor.
    c : ndarray of shape (n_units,)
    X : ndarray of shape (n_samples, n_features)

    Returns
    -------
    y : ndarray of shape (n_samples,)
    """
    t = X @ weights.T
    return moments.mean + X @ moments.first + (t**3 - 3 * t) @ c


def accumulate_hermite(
    blocks: Iterable[tuple[Matrix, Matrix]], n_features: int, n_directions: int, random_state: Any
) -> HermiteMoments:
    """Hermite moments of blocks of samples, contracted with random directions.

    Parameters
    ----------
    blocks : iterable of (X, y)
    n_features, n_directions : int
    random_state : None, int, RandomState or Generator
        Of the directions, orthonormal if there are at most n_features.

    Returns
    -------
    moments : HermiteMoments
    """
    rng = as_generator(random_state)
    directions = rng.standard_normal((n_directions, n_features))
    if n_directions <= n_features:
        directions = np.linalg.qr(directions.T)[0].T
    accumulator = HermiteAccumulator(directions)
    for X, y in blocks:
        accumulator.update(X, y)
    return accumulator.result()
