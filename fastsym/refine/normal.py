"""The normal matrix of Gauss-Newton steps for y = A h(W u), the output weights projected out.

With E = sum h h^T, M_ij = sum s_i s_j u u^T and V_i = sum h (s_i u)^T = (w_j^T M_ij)_j the
Gauss-Newton normal matrix of W, A eliminated, is

    S_(i, i') = (A^T A)_ii' (M_ii' - V_i^T E^-1 V_i')

whatever the number of outputs. References: Golub and Pereyra (1973), doi:10.1137/0710036, for the
projection; Kaufman (1975), doi:10.1007/BF01932995.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import LinearOperator, cg

from fastsym.activation import Activation
from fastsym.algebra import Matrix, from_pairs, pair_indices
from fastsym.refine.coordinates import Coordinates, Point, Step

DENSE_PARAMETERS = 4096
"""Hidden weights up to which the normal matrix is formed; conjugate gradients above."""

_EPS = float(np.finfo(float).eps)
_TINY = float(np.finfo(float).tiny)
_RIDGE = 1e-13
_RIDGES = 9  # tries, each a hundred times the one before: the last is far above the matrix itself
_CG_ITERATIONS = 300


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


def _cho_solve(factor: Matrix, right: Matrix) -> Matrix:
    # What is not finite is found in the step: a message of LAPACK's says nothing to the user.
    return linalg.cho_solve((factor, False), right, check_finite=False)


def _factor(gram: Matrix) -> Matrix:
    """Upper R with R^T R = gram, diagonal scaled, a ridge in place of what rounding has left."""
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

    Parameters
    ----------
    moments : ndarray of shape (n_units (n_units + 1) / 2, n_inputs (n_inputs + 1) / 2)
        As `Sample.mask_moments` returns them, with n_inputs = 1 + n_features.
    point : Point
        Where they were taken.
    coordinates : Coordinates
    """

    def __init__(self, moments: Matrix, point: Point, coordinates: Coordinates) -> None:
        T, k, K = coordinates.to_inputs, coordinates.n_free, len(point.hidden)
        (n_inputs, q), outputs = T.shape, point.outputs
        white = np.matmul(T.T, np.matmul(from_pairs(moments, n_inputs), T))
        first, second = pair_indices(K)
        M = np.empty((K, K, q, q))
        M[first, second] = M[second, first] = white
        # V[i, j] = M_ij w_j = sum s_i u h_j
        V = np.einsum("ijab,jb->ija", M, point.hidden)
        gram = np.einsum("ija,ia->ij", V, point.hidden)
        self.outputs, self.k, self.q = outputs, k, q
        self.gram_factor = _factor((gram + gram.T) / 2)
        self.coupling = V[:k]
        # R^-T V_i, with E = R^T R
        projected = linalg.solve_triangular(
            self.gram_factor,
            V[:k].transpose(1, 0, 2).reshape(K, k * q),
            trans="T",
            check_finite=False,
        )
        self._inner = M[:k, :k].transpose(0, 2, 1, 3).reshape(k * q, k * q)
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
        floor = max((np.diag(unit_moment) * self._before).max(), diagonal.max(), _TINY)
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
        solved = _cho_solve(R, output_gradient.T).T  # g_A E^-1
        weighted = A[:, :k].T @ solved
        right = hidden_gradient - np.einsum("ij,ija->ia", weighted, self.coupling)
        right -= self._units * (right * self._units).sum(axis=1, keepdims=True)
        factor, scale = self._cholesky(damping)
        step = _cho_solve(factor, right.ravel() / scale) / scale
        hidden = step.reshape(k, self.q)
        hidden = hidden - self._units * (hidden * self._units).sum(axis=1, keepdims=True)
        moved = np.einsum("ija,ia->ij", self.coupling, hidden)
        outputs = _cho_solve(R, (output_gradient - A[:, :k] @ moved).T).T
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
        solved = _cho_solve(self.gram_factor, flat.T).T.reshape(n_steps, m, n_units)
        weighted = np.einsum("oi,boj->bij", A, solved)
        right = hidden_gradients - np.einsum("bij,ija->bia", weighted, self.coupling, optimize=True)
        right -= self._units * (right * self._units).sum(axis=2, keepdims=True)
        factor, scale = self._cholesky(damping)
        steps = _cho_solve(factor, right.reshape(n_steps, k * q).T / scale[:, None]).T / scale
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
        blocks = matrix.reshape(self.k, self.q, -1).copy()
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


class ImplicitNormal:
    """The same operator applied sample by sample, for numbers of weights too large to store it.

    S v = J^T (I - P_h) J v, J the derivative of the outputs by the hidden weights and P_h the
    projection on the hidden units; conjugate gradients need one product with the sample each.
    The square of J is never formed, so that its condition number does not enter the rounding.

    Parameters
    ----------
    inputs : ndarray of shape (n_samples, 1 + n_features)
        sqrt(weight) (1, x), as `Sample.inputs`.
    weight : float
        Sum of the sample weights.
    point : Point
    coordinates : Coordinates
    activation : Activation
    """

    def __init__(
        self,
        inputs: Matrix,
        weight: float,
        point: Point,
        coordinates: Coordinates,
        activation: Activation,
    ) -> None:
        self.k, self.q = coordinates.n_free, coordinates.to_inputs.shape[1]
        self._inputs, self._weight, self._point = inputs, weight, point
        self._T = coordinates.to_inputs
        self._units, self.outputs = point.hidden[: self.k], point.outputs
        weights = coordinates.weights(point)
        t = inputs @ weights.T
        self._masks = activation.derivative(t)
        self._h = self._masks * t
        self.gram_factor = _factor(self._h.T @ self._h)

    @property
    def point(self) -> Point:
        """Where it was taken."""
        return self._point

    def _outward(self, hidden: Matrix) -> Matrix:
        """Differentiate the units along a step, (n, k)."""
        return self._masks[:, : self.k] * (self._inputs @ (self._T @ hidden.T))

    def _project(self, units: Matrix) -> Matrix:
        """E^-1 h^T units, (K, k)."""
        return _cho_solve(self.gram_factor, self._h.T @ units)

    def _back(self, units: Matrix) -> Matrix:
        """Transpose of `_outward`."""
        return (self._inputs.T @ (self._masks[:, : self.k] * units)).T @ self._T

    def _tangent(self, hidden: Matrix) -> Matrix:
        return hidden - self._units * (hidden * self._units).sum(axis=1, keepdims=True)

    def solve(self, hidden_gradient: Matrix, output_gradient: Matrix, damping: float) -> Step:
        """Solve for a step by conjugate gradients, preconditioned by the diagonal blocks."""
        k, q, A = self.k, self.q, self.outputs[:, : self.k]
        moment = A.T @ A
        # For symmetric white inputs a diagonal block of sum s u u^T is half of the identity.
        block = np.diag(moment) * self._weight / 2
        block = np.maximum(block, _EPS * block.max())

        def apply(flat: Matrix) -> Matrix:
            hidden = self._tangent(flat.reshape(k, q))
            units = self._outward(hidden)
            units = units - self._h @ self._project(units)
            product = self._back(units @ moment)
            return (self._tangent(product) + (damping + _RIDGE) * block[:, None] * hidden).ravel()

        solved = _cho_solve(self.gram_factor, output_gradient.T).T
        right = self._tangent(hidden_gradient - self._back(self._h @ (solved.T @ A)))
        size = k * q
        operator = LinearOperator((size, size), apply, dtype=float)
        inverse = LinearOperator(
            (size, size), lambda flat: (flat.reshape(k, q) / block[:, None]).ravel(), dtype=float
        )
        flat, unsolved = cg(operator, right.ravel(), rtol=1e-6, maxiter=_CG_ITERATIONS, M=inverse)
        hidden = self._tangent(flat.reshape(k, q))
        moved = self._h.T @ self._outward(hidden)  # (K, k)
        outputs = _cho_solve(self.gram_factor, output_gradient.T - moved @ A.T).T
        predicted = float((solved * output_gradient).sum() + (hidden * right).sum())
        return Step(hidden, outputs, predicted, unsolved == 0)
