"""The normal matrix as an operator, for numbers of weights too large to store it."""

from collections.abc import Callable

import numpy as np
from scipy import linalg

from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.refine.coordinates import Coordinates, Point, Step
from fastsym.refine.normal import Penalty, cho_solve, gram_factor

_EPS = float(np.finfo(float).eps)
_RIDGE = 1e-13


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
    penalty : Penalty, default=None
        Added to the loss; None: nothing.
    tolerance : float, default=1e-6
        Residual of the linear equations, relative, at which conjugate gradients end.
    iterations : int, default=300
        Of conjugate gradients at most.
    """

    def __init__(
        self,
        inputs: Matrix,
        weight: float,
        point: Point,
        coordinates: Coordinates,
        activation: Activation,
        penalty: Penalty | None = None,
        *,
        tolerance: float = 1e-6,
        iterations: int = 300,
    ) -> None:
        self.k, self.q = coordinates.n_free, coordinates.to_inputs.shape[1]
        self._penalty, self._tolerance, self._iterations = penalty, tolerance, iterations
        self._inputs, self._weight, self._point = inputs, weight, point
        self._T = coordinates.to_inputs
        self._units, self.outputs = point.hidden[: self.k], point.outputs
        weights = coordinates.weights(point)
        t = inputs @ weights.T
        self._masks = activation.derivative(t[:, : self.k])
        self._h = activation.of_units(t, self.k)
        gram = self._h.T @ self._h
        self.gram_factor = gram_factor(gram if penalty is None else gram + penalty.outputs)
        # R^-T h^T: the projection on the units is its product with its transpose.
        self._basis = linalg.solve_triangular(
            self.gram_factor, self._h.T, trans="T", check_finite=False
        )

    @property
    def point(self) -> Point:
        """Where it was taken."""
        return self._point

    def _outward(self, hidden: Matrix) -> Matrix:
        """Differentiate the units along a step, (n, k)."""
        return self._masks * (self._inputs @ (self._T @ hidden.T))

    def _back(self, units: Matrix) -> Matrix:
        """Transpose of `_outward`."""
        return (self._inputs.T @ (self._masks * units)).T @ self._T

    def _tangent(self, hidden: Matrix) -> Matrix:
        return hidden - self._units * (hidden * self._units).sum(axis=1, keepdims=True)

    def solve(self, hidden_gradient: Matrix, output_gradient: Matrix, damping: float) -> Step:
        """Solve for a step by conjugate gradients, preconditioned by the diagonal blocks."""
        A = self.outputs[:, : self.k]
        moment = A.T @ A
        # For symmetric white inputs a diagonal block of sum s u u^T is half of the identity.
        block = np.diag(moment) * self._weight / 2
        block = np.maximum(block, _EPS * block.max(initial=0))[:, None] * np.ones(self.q)
        penalty = self._penalty
        if penalty is not None:
            block = block + np.outer(penalty.hidden, np.diag(penalty.metric))

        def apply(hidden: Matrix) -> Matrix:
            hidden = self._tangent(hidden)
            units = self._outward(hidden)
            units -= self._basis.T @ (self._basis @ units)
            product = self._back(units @ moment)
            if penalty is not None:
                product += penalty.hidden[:, None] * (hidden @ penalty.metric)
            return self._tangent(product + (damping + _RIDGE) * block * hidden)

        solved = cho_solve(self.gram_factor, output_gradient.T).T
        right = self._tangent(hidden_gradient - self._back(self._h @ (solved.T @ A)))
        hidden, solved_to = _conjugate_gradients(
            apply, right, block, self._tolerance, self._iterations
        )
        hidden = self._tangent(hidden)
        moved = self._h.T @ self._outward(hidden)  # (K, k)
        outputs = cho_solve(self.gram_factor, output_gradient.T - moved @ A.T).T
        predicted = float((solved * output_gradient).sum() + (hidden * right).sum())
        return Step(hidden, outputs, predicted, solved_to)


def _conjugate_gradients(
    apply: Callable[[Matrix], Matrix],
    right: Matrix,
    diagonal: Matrix,
    tolerance: float,
    iterations: int,
) -> tuple[Matrix, bool]:
    """Solve apply(x) = right, preconditioned by a diagonal; whether that was reached."""
    x, residual = np.zeros_like(right), right.copy()
    bound = tolerance * np.linalg.norm(right)
    scaled = residual / diagonal
    direction, size = scaled, float(np.vdot(residual, scaled))
    for _ in range(iterations):
        if not np.linalg.norm(residual) > bound:
            break
        image = apply(direction)
        curvature = float(np.vdot(direction, image))
        if not curvature > 0:
            return x, False
        x += size / curvature * direction
        residual -= size / curvature * image
        scaled = residual / diagonal
        before, size = size, float(np.vdot(residual, scaled))
        direction = scaled + size / before * direction
    return x, bool(np.linalg.norm(residual) <= bound)
