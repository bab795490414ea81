"""Networks y = sum_i sigma(w_i . x) from third-order Hermite moments, for Gaussian x.

With sigma(t) = a0 + a1 t + a3 t^3 the third Hermite moment E[y He3(x)] is 6 a3 sum_i w_i^(x)3 for
unit w_i. Contracted with directions v it gives d x d matrices 6 a3 W^T diag(W v) W, which are all
that is accumulated: for r <= d units they have one joint diagonalizer, W. For r > d there is none.
Mondelli and Montanari show, for d^(3/2) << r << d^2 and under an assumption on the hardness of
tensor decomposition, that no polynomial-time method learns such weights well enough to predict
better than the constant E[y].
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym._validation import as_generator, check_pair
from fastsym.diagonalization import uwedge

Array = NDArray[np.float64]


class HermiteMoments:
    """E[y], E[y x] and contractions of E[y He3(x)], accumulated in one pass.

    Parameters
    ----------
    n_features : int
    directions : ndarray of shape (n_directions, n_features)
        v_1, v_2, ... that the third moment is contracted with.
    """

    def __init__(self, n_features: int, directions: Array) -> None:
        self.directions = directions
        self.n_samples = 0
        self._mean = 0.0
        self._first = np.zeros(n_features)
        self._third = np.zeros((len(directions), n_features, n_features))

    def update(self, X: Any, y: Any) -> "HermiteMoments":
        """Take in samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Standard Gaussian.
        y : array_like of shape (n_samples,)

        Returns
        -------
        self : HermiteMoments

        Raises
        ------
        ValueError
            If they are not finite or do not match.
        """
        X, Y = check_pair(X, y, len(self._first), 1)
        y = np.asarray(Y[:, 0], np.float64)
        self.n_samples += len(X)
        self._mean += float(y.sum())
        self._first += y @ X
        for total, weight in zip(self._third, (X @ self.directions.T).T, strict=True):
            total += X.T @ (X * (y * weight)[:, None])
        return self

    @property
    def mean(self) -> float:
        """E[y]."""
        return self._mean / self.n_samples

    @property
    def first(self) -> Array:
        """E[y x], shape (n_features,)."""
        return self._first / self.n_samples

    @property
    def third(self) -> Array:
        """E[y He3(x)] contracted with each direction, (n_directions, n_features, n_features).

        He3(x)(v) = (v.x) (x x^T - I) - x v^T - v x^T.
        """
        first, eye = self.first, np.eye(len(self._first))
        result = self._third / self.n_samples
        for matrix, v in zip(result, self.directions, strict=True):
            matrix -= (v @ first) * eye + np.outer(first, v) + np.outer(v, first)
        return result


def decompose(moments: HermiteMoments, n_units: int, random_state: Any = None) -> Array:
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
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def coefficients(moments: HermiteMoments, weights: Array) -> Array:
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


def predict(moments: HermiteMoments, weights: Array, c: Array, X: Array) -> Array:
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
    blocks: Iterable[tuple[Array, Array]], n_features: int, n_directions: int, random_state: Any
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
    moments = HermiteMoments(n_features, directions)
    for X, y in blocks:
        moments.update(X, y)
    return moments
