"""The normal matrix of Gauss-Newton steps for y = A h(W u), the output weights projected out.

With E = sum h h^T, M_ij = sum s_i s_j u u^T and V_i = sum h (s_i u)^T = (w_j^T M_ij)_j the
Gauss-Newton normal matrix of W, A eliminated, is

    S_(i, i') = (A^T A)_ii' (M_ii' - V_i^T E^-1 V_i')

whatever the number of outputs. References: Golub and Pereyra (1973), doi:10.1137/0710036, for the
projection; Kaufman (1975), doi:10.1007/BF01932995.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from scipy import linalg

from fastsym.algebra import Matrix, from_pairs, pair_indices
from fastsym.refine.coordinates import Coordinates, Point, Step

DENSE_PARAMETERS = 4096
"""Hidden weights up to which the normal matrix is formed; conjugate gradients above."""

_EPS = float(np.finfo(float).eps)
_TINY = float(np.finfo(float).tiny)
_RIDGE = 1e-13
_RIDGES = 9  # tries, each a hundred times the one before: the last is far above the matrix itself


class Penalty(NamedTuple):
    """Squares of the weights, as they are added to the loss about one point.

    They are sum_i hidden_i h_i metric h_i^T over the rows h_i that may turn, and
    trace(B outputs B^T), B the output weights of all units.
    """

    hidden: Matrix  # (n_free,)
    metric: Matrix  # (q, q)
    outputs: Matrix  # (K, K)


class Normal(Protocol):
    """The normal matrix at one point."""

    @property
    def point(self) -> Point:
        """Where it was taken."""
        ...

    def solve(self, hidden_gradient: Matrix, output_gradient: Matrix, damping: float) -> Step:
        """Solve for a step; the gradients are sums of s (A^T r) u^T and of r h^T."""
        ...


def _ridged_cholesky(matrix: Matrix, ridge: float, relative: bool) -> Matrix:
    """Upper R with R^T R = matrix + ridge, the ridge raised until there is one.

    The ridge is added to the diagonal, or, if relative, is a share of it, where it is not zero.
    The matrix is overwritten.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not finite, or no ridge helps.
    """
    if not np.isfinite(matrix).all():
        raise np.linalg.LinAlgError("the normal matrix is not finite")
    diagonal = matrix.diagonal().copy()
    share = relative & (diagonal > _EPS)
    for _ in range(_RIDGES):
        shifted = np.where(share, diagonal * (1 + ridge), diagonal + ridge)
        np.fill_diagonal(matrix, shifted)
        try:
            return linalg.cholesky(matrix, check_finite=False)
        except linalg.LinAlgError:
            ridge *= 100
    raise np.linalg.LinAlgError(f"the normal matrix is not positive definite with {ridge:.2g} I")


def cho_solve(factor: Matrix, right: Matrix) -> Matrix:
    """Solve R^T R x = right, for finite or other numbers.

    Parameters
    ----------
    factor : ndarray of shape (n, n)
        Upper R.
    right : ndarray of shape (n, ...)

    Returns
    -------
    solution : ndarray of shape (n, ...)
    """
    # What is not finite is found in the step: a message of LAPACK's says nothing to the user.
    return linalg.cho_solve((factor, False), right, check_finite=False)


def gram_factor(gram: Matrix) -> Matrix:
    """Factor a gram matrix, a ridge in place of what rounding has left.

    Parameters
    ----------
    gram : ndarray of shape (n_units, n_units)

    Returns
    -------
    factor : ndarray of shape (n_units, n_units)
        Upper R with R^T R = gram.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not finite.
    """
    scale = np.sqrt(np.maximum(np.diag(gram), 0))
    scale = np.where(scale > 0, scale, 1)
    scaled = gram / scale / scale[:, None]
    return _ridged_cholesky(scaled, _RIDGE * len(gram), relative=False) * scale


@dataclass(frozen=True, eq=False)
class ScaledNormal:
    """The normal matrix of a sample, times `scale`, in place of that of all samples."""

    normal: Normal
    scale: float

    @property
    def point(self) -> Point:
        """Where it was taken."""
        return self.normal.point

    def solve(self, hidden_gradient: Matrix, output_gradient: Matrix, damping: float) -> Step:
        """Solve for a step."""
        step = self.normal.solve(hidden_gradient, output_gradient, damping)
        scale = self.scale
        hidden, outputs = step.hidden / scale, step.outputs / scale
        return Step(hidden, outputs, step.predicted / scale, step.solved)


class DenseNormal:
    """Schur complement of the hidden weights, formed from the mask moments.

    Fixed units have the slope 1, and s = 1 or a: sum s_i u u^T = (M_ii + a M_0) / (1 + a), with
    M_0 = sum u u^T.

    Parameters
    ----------
    moments : ndarray of shape (n_free (n_free + 1) / 2, n_inputs (n_inputs + 1) / 2)
        As `Sample.mask_moments` returns them, with n_inputs = 1 + n_features.
    point : Point
        Where they were taken.
    coordinates : Coordinates
    input_gram : ndarray of shape (n_inputs, n_inputs)
        M_0, of the same samples.
    slope : float
        a.
    """

    def __init__(
        self,
        moments: Matrix,
        point: Point,
        coordinates: Coordinates,
        input_gram: Matrix,
        slope: float,
    ) -> None:
        T, k, K = coordinates.to_inputs, coordinates.n_free, len(point.hidden)
        (n_inputs, q), outputs = T.shape, point.outputs
        white = np.matmul(T.T, np.matmul(from_pairs(moments, n_inputs), T))
        first, second = pair_indices(k)
        M = np.empty((k, k, q, q))
        M[first, second] = M[second, first] = white
        # V[i, j] = M_ij w_j = sum s_i u h_j
        V = np.empty((k, K, q))
        V[:, :k] = np.einsum("ijab,jb->ija", M, point.hidden[:k])
        gram = np.empty((K, K))
        gram[:k, :k] = np.einsum("ija,ia->ij", V[:, :k], point.hidden[:k])
        if K > k:
            fixed, whole = point.hidden[k:], T.T @ input_gram @ T
            halves = (M[np.arange(k), np.arange(k)] + slope * whole) / (1 + slope)
            V[:, k:] = fixed @ halves
            gram[:k, k:] = np.einsum("ija,ia->ij", V[:, k:], point.hidden[:k])
            gram[k:, :k] = gram[:k, k:].T
            gram[k:, k:] = fixed @ whole @ fixed.T
        self.outputs, self.k, self.q = outputs, k, q
        self.gram_factor = gram_factor((gram + gram.T) / 2)
        self.coupling = V
        # R^-T V_i, with E = R^T R
        projected = linalg.solve_triangular(
            self.gram_factor,
            V.transpose(1, 0, 2).reshape(K, k * q),
            trans="T",
            check_finite=False,
        )
        self._inner = M.transpose(0, 2, 1, 3).reshape(k * q, k * q)
        self._before = self._inner.diagonal().reshape(k, q).mean(axis=1)
        self._inner -= projected.T @ projected
        self._point = point
        self._units = point.hidden[:k]
        self._factors: dict[float, tuple[Matrix, Matrix]] = {}

    @property
    def point(self) -> Point:
        """Where it was taken."""
        return self._point

    def _weighted(self, unit_moment: Matrix) -> Matrix:
        """Multiply block (i, i') of the projected moments by unit_moment[i, i']."""
        k, q = self.k, self.q
        blocks = self._inner.reshape(k, q, k, q) * unit_moment[:, None, :, None]
        return blocks.reshape(k * q, k * q)

    def _scaled(self, unit_moment: Matrix) -> tuple[Matrix, Matrix]:
        """Weight, scale to unit diagonal, fix the gauge: each unit's direction gets weight 1."""
        k, q = self.k, self.q
        matrix = self._weighted(unit_moment)
        diagonal = matrix.diagonal().reshape(k, q).mean(axis=1)
        # One scale a unit, which keeps directions at right angles. Below the rounding of what the
        # projection took away (a unit that one sample alone drives) there is nothing to scale.
        before = np.diag(unit_moment) * self._before
        floor = max(before.max(initial=0), diagonal.max(initial=0), _TINY)
        scale = np.sqrt(np.maximum(diagonal, _EPS * floor))
        scaled = matrix / np.repeat(scale, q) / np.repeat(scale, q)[:, None]
        blocks = scaled.reshape(k, q, k, q)
        for i, unit in enumerate(self._units):
            blocks[i, :, i, :] += np.outer(unit, unit)
        return scaled, np.repeat(scale, q)

    def _cholesky(self, damping: float) -> tuple[Matrix, Matrix]:
        if damping not in self._factors:
            A = self.outputs[:, : self.k]
            scaled, scale = self._scaled(A.T @ A)
            factor = _ridged_cholesky(scaled, max(damping, _RIDGE), relative=True)
            self._factors = {damping: (factor, scale)}  # the last one is what is asked for again
        return self._factors[damping]

    def solve(self, hidden_gradient: Matrix, output_gradient: Matrix, damping: float) -> Step:
        """Solve for a step."""
        k, A = self.k, self.outputs
        R = self.gram_factor
        solved = cho_solve(R, output_gradient.T).T  # g_A E^-1
        weighted = A[:, :k].T @ solved
        right = hidden_gradient - np.einsum("ij,ija->ia", weighted, self.coupling)
        right -= self._units * (right * self._units).sum(axis=1, keepdims=True)
        factor, scale = self._cholesky(damping)
        step = cho_solve(factor, right.ravel() / scale) / scale
        hidden = step.reshape(k, self.q)
        hidden = hidden - self._units * (hidden * self._units).sum(axis=1, keepdims=True)
        moved = np.einsum("ija,ia->ij", self.coupling, hidden)
        outputs = cho_solve(R, (output_gradient - A[:, :k] @ moved).T).T
        # A is exact given the step of W; of W's part a damped step attains at least half.
        predicted = float((solved * output_gradient).sum() + (hidden * right).sum())
        return Step(hidden, outputs, predicted)

    def hidden_steps(
        self, hidden_gradients: Matrix, output_gradients: Matrix, damping: float = 0.0
    ) -> Matrix:
        """Solve for many steps at once, of which the hidden weights count.

        Parameters
        ----------
        hidden_gradients : ndarray of shape (n_steps, k, q)
        output_gradients : ndarray of shape (n_steps, n_outputs, n_units)
        damping : float, default=0.0

        Returns
        -------
        steps : ndarray of shape (n_steps, k, q)
        """
        k, q, A = self.k, self.q, self.outputs[:, : self.k]
        n_steps, m, n_units = output_gradients.shape
        flat = output_gradients.reshape(n_steps * m, n_units)
        solved = cho_solve(self.gram_factor, flat.T).T.reshape(n_steps, m, n_units)
        weighted = np.einsum("oi,boj->bij", A, solved)
        right = hidden_gradients - np.einsum("bij,ija->bia", weighted, self.coupling, optimize=True)
        right -= self._units * (right * self._units).sum(axis=2, keepdims=True)
        factor, scale = self._cholesky(damping)
        steps = cho_solve(factor, right.reshape(n_steps, k * q).T / scale[:, None]).T / scale
        steps = steps.reshape(n_steps, k, q)
        return steps - self._units * (steps * self._units).sum(axis=2, keepdims=True)

    @property
    def condition(self) -> float:
        """Smallest over largest eigenvalue, each unit's block scaled, the gauge fixed."""
        A = self.outputs[:, : self.k]
        try:
            values = np.linalg.eigvalsh(self._scaled(A.T @ A)[0])
        except np.linalg.LinAlgError:
            return 0.0
        return float(max(values[0] / values[-1], 0.0)) if values[-1] > 0 else 0.0

    def draw(self, rng: np.random.Generator) -> Matrix:
        """Draw a step of the hidden weights with this matrix's inverse as covariance.

        Parameters
        ----------
        rng : Generator

        Returns
        -------
        step : ndarray of shape (k, q)
        """
        factor, scale = self._cholesky(0.0)
        normals = rng.standard_normal(len(scale))
        step = linalg.solve_triangular(factor, normals, check_finite=False) / scale
        step = step.reshape(self.k, self.q)
        return step - self._units * (step * self._units).sum(axis=1, keepdims=True)

    def inverse(self, curvature: Matrix | None = None) -> Matrix:
        """Inverse of the Schur complement on the tangent space, rows kept at unit length.

        Parameters
        ----------
        curvature : ndarray of shape (k q, k q), default=None
            Symmetric; added to the Schur complement on the tangent space.

        Returns
        -------
        inverse : ndarray of shape (k q, k q)

        Raises
        ------
        numpy.linalg.LinAlgError
            If there is none, or, with a curvature, if the sum is not positive definite.
        """
        A = self.outputs[:, : self.k]
        scaled, scale = self._scaled(A.T @ A)
        if curvature is None:
            inverse = np.linalg.inv(scaled).astype(np.float64, copy=False)
            if np.linalg.norm(scaled, 1) * np.linalg.norm(inverse, 1) > 1 / _RIDGE:
                raise np.linalg.LinAlgError("its condition is above 1e13")
        else:
            scaled += self._on_tangent(self._on_tangent(curvature).T) / scale / scale[:, None]
            inverse = linalg.cho_solve(linalg.cho_factor(scaled), np.eye(len(scaled)))
        return self._on_tangent(inverse) / scale / scale[:, None]

    def _on_tangent(self, matrix: Matrix) -> Matrix:
        """Project the rows (k q of them) of a matrix off each unit's own direction."""
        blocks = matrix.reshape(self.k, self.q, matrix.shape[1]).copy()
        for i, unit in enumerate(self._units):
            blocks[i] -= np.outer(unit, unit @ blocks[i])
        return blocks.reshape(matrix.shape)

    def covariance(self, noise: Matrix) -> Matrix:
        """Covariance of the hidden weights in these coordinates, rows kept at unit length.

        Parameters
        ----------
        noise : ndarray of shape (n_outputs, n_outputs)
            Covariance of the noise.

        Returns
        -------
        covariance : ndarray of shape (k q, k q)
            Schur complement^-1 (scores' covariance) Schur complement^-1 on the tangent space.
        """
        A, inverse = self.outputs[:, : self.k], self.inverse()
        return inverse @ self._weighted(A.T @ noise @ A) @ inverse.T
