"""Levenberg-Marquardt for y = A h(W u) with the output weights projected out.

Weights live in coordinates in which the inputs are white, with rows of W of unit length (the scale
of a unit belongs to A), so that neither the units of the features nor the scale gauge of the
network adds to the condition number. With E = sum h h^T, M_ij = sum s_i s_j u u^T and
V_i = sum h (s_i u)^T = (w_j^T M_ij)_j the Gauss-Newton normal matrix of W, A eliminated, is

    S_(i, i') = (A^T A)_ii' (M_ii' - V_i^T E^-1 V_i')

whatever the number of outputs. References: Marquardt (1963), doi:10.1137/0111030; Golub and Pereyra
(1973), doi:10.1137/0710036, for the projection; Kaufman (1975), doi:10.1007/BF01932995.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.sparse.linalg import LinearOperator, cg

from fastsym.frame import pair_indices
from fastsym.residuals import Residuals, Sample

Matrix = NDArray[np.float64]

DENSE_PARAMETERS = 4096
"""Hidden weights up to which the normal matrix is formed; conjugate gradients above."""

_EPS = float(np.finfo(float).eps)
_TINY = float(np.finfo(float).tiny)
_KINKS = 10  # of the tolerance: a step that does not descend from there met kinks of the loss
_EXACT = 1e-29  # loss / sum |y|^2 that only rounding is left of
_ROUNDING = 1e-20  # below this a step that does not descend is due to rounding
_LAST_STEP_MARGIN = 0.1  # later steps contract less than the first: 5 to 10 times as measured
_REJECTED = 6
_LIMIT_SLACK = 3.0  # times the tolerance still counts when the evaluations are used up
_RIDGE = 1e-13
_RIDGES = 9  # tries, each a hundred times the one before: the last is far above the matrix itself
_CG_ITERATIONS = 300


class Point(NamedTuple):
    """Weights in white coordinates.

    hidden is (n_units, n_coordinates), unit rows; outputs is (n_outputs, n_units). With an output
    intercept the last unit is the constant 1 and stays as it is.
    """

    hidden: Matrix
    outputs: Matrix


class Coordinates(NamedTuple):
    """Map between white coordinates and weights of u = (1, x).

    A row of weights of u is hidden @ to_inputs.T. n_free units may turn; a further one is the
    constant.
    """

    to_inputs: Matrix  # (1 + d, q), to_inputs^T E[u u^T] to_inputs = I where the data determine it
    from_inputs: Matrix  # (q, 1 + d), its left inverse
    n_free: int

    def weights(self, point: Point) -> Matrix:
        """Rows (bias, w) of all units, shape (n_units, 1 + d)."""
        return point.hidden @ self.to_inputs.T

    def point(self, weights: Matrix, outputs: Matrix) -> Point:
        """Point of rows (bias, w): rescaled to unit length, the outputs accordingly."""
        hidden = weights @ self.from_inputs.T
        return unit_rows(hidden, outputs, self.n_free)


def unit_rows(hidden: Matrix, outputs: Matrix, n_free: int) -> Point:
    """Bring the rows of units that may turn to unit length, and their scale to the outputs.

    Parameters
    ----------
    hidden : ndarray of shape (n_units, n_coordinates)
    outputs : ndarray of shape (n_outputs, n_units)
    n_free : int

    Returns
    -------
    point : Point
    """
    length = np.linalg.norm(hidden, axis=1)
    length[n_free:] = 1
    safe = np.where(length > 0, length, 1)
    return Point(hidden / safe[:, None], outputs * safe)


class Step(NamedTuple):
    """A step, and by how much the linearised sum of squares falls.

    `solved` says whether the linearised problem was solved; if not, `predicted` is no bound.
    """

    hidden: Matrix  # (n_free, q)
    outputs: Matrix  # (m, n_units)
    predicted: float
    solved: bool = True


def moved(point: Point, step: Step, n_free: int) -> Point:
    """Take a step, and bring rows back to unit length.

    Parameters
    ----------
    point : Point
    step : Step
    n_free : int
        Units that may turn.

    Returns
    -------
    point : Point
    """
    hidden = np.concatenate([point.hidden[:n_free] + step.hidden, point.hidden[n_free:]])
    return unit_rows(hidden, point.outputs + step.outputs, n_free)


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
        matrix[np.diag_indices_from(matrix)] = shifted
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
        a, b = pair_indices(n_inputs)
        full = np.empty((len(moments), n_inputs, n_inputs))
        full[:, a, b] = full[:, b, a] = moments
        white = np.matmul(T.T, np.matmul(full, T))
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
            self.gram_factor, V[:k].transpose(1, 0, 2).reshape(K, k * q), trans="T"
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
        k, q = self.k, self.q
        A = self.outputs[:, :k]
        scaled, scale = self._scaled(A.T @ A)
        inverse = linalg.inv(scaled)
        tangent = inverse.reshape(k, q, k * q)
        for i, unit in enumerate(self._units):
            tangent[i] -= np.outer(unit, unit @ tangent[i])
        inverse /= scale
        inverse /= scale[:, None]
        scores = self._weighted(A.T @ noise @ A)
        return inverse @ scores @ inverse.T


class ImplicitNormal:
    """The same operator applied sample by sample, for numbers of weights too large to store it.

    S v = J^T (I - P_h) J v, J the derivative of the outputs by the hidden weights and P_h the
    projection on the hidden units; conjugate gradients need one product with the sample each.
    The square of J is never formed, so that its condition number does not enter the rounding.

    Parameters
    ----------
    sample : Sample
    point : Point
    coordinates : Coordinates
    slope : float
    """

    def __init__(
        self, sample: Sample, point: Point, coordinates: Coordinates, slope: float
    ) -> None:
        self.k, self.q = coordinates.n_free, coordinates.to_inputs.shape[1]
        self._sample, self._T, self._point = sample, coordinates.to_inputs, point
        self._units, self.outputs = point.hidden[: self.k], point.outputs
        weights = coordinates.weights(point)
        t = sample.inputs @ weights.T
        self._masks = np.where(t > 0, 1.0, slope)
        self._h = self._masks * t
        self.gram_factor = _factor(self._h.T @ self._h)

    @property
    def point(self) -> Point:
        """Where it was taken."""
        return self._point

    def _outward(self, hidden: Matrix) -> Matrix:
        """Differentiate the units along a step, (n, k)."""
        return self._masks[:, : self.k] * (self._sample.inputs @ (self._T @ hidden.T))

    def _project(self, units: Matrix) -> Matrix:
        """E^-1 h^T units, (K, k)."""
        return _cho_solve(self.gram_factor, self._h.T @ units)

    def _back(self, units: Matrix) -> Matrix:
        """Transpose of `_outward`."""
        return (self._sample.inputs.T @ (self._masks[:, : self.k] * units)).T @ self._T

    def _tangent(self, hidden: Matrix) -> Matrix:
        return hidden - self._units * (hidden * self._units).sum(axis=1, keepdims=True)

    def solve(self, hidden_gradient: Matrix, output_gradient: Matrix, damping: float) -> Step:
        """Solve for a step by conjugate gradients, preconditioned by the diagonal blocks."""
        k, q, A = self.k, self.q, self.outputs[:, : self.k]
        moment = A.T @ A
        # For symmetric white inputs a diagonal block of sum s u u^T is half of the identity.
        block = np.diag(moment) * self._sample.weight / 2
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


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the loss: a row of the history.

    Parameters
    ----------
    loss : float
        Mean over samples of the squared norm of the residual.
    gradient_norm : float
        Norm of the gradient of that mean by the weights, white coordinates.
    decrement : float
        Relative decrease of the loss that the linearised problem still promises.
    damping : float
    accepted : bool
        Whether the point is better than all before.
    """

    loss: float
    gradient_norm: float
    decrement: float
    damping: float
    accepted: bool


class Fit(NamedTuple):
    """Where a minimisation ended; normal is None if there is no normal matrix there."""

    point: Point
    residuals: Residuals
    normal: Normal | None
    converged: bool
    exact: bool
    history: list[Evaluation]
    promised: float | None = None  # relative decrease left after a step that was not evaluated


def minimise(
    point: Point,
    coordinates: Coordinates,
    evaluate: Callable[[Point], Residuals],
    normal_at: Callable[[Point], Normal],
    *,
    total: float,
    tolerance: float,
    max_evaluations: int,
    damping: float = 1e-3,
    normal: Normal | None = None,
    last_step: bool = False,
    report: Callable[[Evaluation], object] | None = None,
) -> Fit:
    """Levenberg-Marquardt from a point, the normal matrix renewed only when it pays.

    Parameters
    ----------
    point : Point
    coordinates : Coordinates
    evaluate : callable
        Residuals at a point: a pass over the samples.
    normal_at : callable
        Normal matrix at a point.
    total : float
        Sum of |y|^2, for the level of rounding.
    tolerance : float
        Stop when the linearised problem promises a relative decrease of the loss below this.
    max_evaluations : int
    damping : float
        At the start.
    normal : Normal, default=None
        Already known at the point.
    last_step : bool, default=False
        Take a last step without an evaluation after it, where the step before shows that nothing
        will be left to do. The loss is then the one before less what the linearised problem
        promised.
    report : callable, default=None
        Called with each `Evaluation`.

    Returns
    -------
    fit : Fit
        `converged` if the tolerance is met or only rounding is left (`exact`).
    """
    history: list[Evaluation] = []

    def told(loss: float, norm: float, decrement: float, accepted: bool) -> None:
        history.append(Evaluation(loss, norm, decrement, damping, accepted))
        if report is not None:
            report(history[-1])

    def solved(damping: float) -> Step:
        """Step from the present point; one that promises NaN if there is none."""
        none = Step(np.zeros_like(gradient), np.zeros_like(point.outputs), np.nan, False)
        if not (np.isfinite(gradient).all() and np.isfinite(residuals.output_gradient).all()):
            return none
        try:
            with np.errstate(all="ignore"):
                step = known.solve(gradient, residuals.output_gradient, damping)
        except np.linalg.LinAlgError:
            return none
        usable = np.isfinite(step.hidden).all() and np.isfinite(step.outputs).all()
        return step if usable else none

    def ended(exact: bool, close: bool, slack: float) -> Fit:
        """Judge the last point, without damping."""
        if not (exact or close):
            undamped = solved(0.0)
            close = undamped.solved and undamped.predicted <= slack * tolerance * loss
        return Fit(point, residuals, known, exact or close, exact, history)

    residuals = evaluate(point)
    loss = residuals.loss
    try:
        if not np.isfinite(loss):
            raise np.linalg.LinAlgError("the loss is not finite")
        known = normal_at(point) if normal is None else normal
    except np.linalg.LinAlgError:
        told(loss / residuals.weight, np.nan, np.nan, True)
        return Fit(point, residuals, None, False, False, history)
    fresh, before, easier = True, np.inf, np.inf
    for _ in range(max_evaluations):
        loss = residuals.loss
        gradient = residuals.hidden_gradient[: coordinates.n_free] @ coordinates.to_inputs
        step = solved(damping)
        decrement = step.predicted / loss if loss > 0 else 0.0
        exact = loss <= _EXACT * total
        converged = exact or (step.solved and decrement <= tolerance and damping <= 1)
        n = residuals.weight
        norm = 2 * np.hypot(np.linalg.norm(gradient), np.linalg.norm(residuals.output_gradient)) / n
        told(loss / n, float(norm), decrement, True)
        if converged:
            return Fit(point, residuals, known, True, exact, history)
        contraction = step.predicted / before if np.isfinite(before) else 1.0
        if last_step and damping == 0 and contraction < 0.1:
            promised = contraction * decrement
            if promised <= _LAST_STEP_MARGIN * tolerance:
                left = residuals.with_loss(loss - step.predicted)
                point = moved(point, step, coordinates.n_free)
                return Fit(point, left, known, True, False, history, promised)
        if len(history) >= max_evaluations:
            return ended(exact, False, _LIMIT_SLACK)
        # A frozen normal matrix contracts by a factor a step; renew it when that is poor.
        if not fresh and not step.predicted <= 0.1 * before:
            try:
                known, fresh, damping = normal_at(point), True, min(damping, easier)
            except np.linalg.LinAlgError:
                return ended(exact, False, _LIMIT_SLACK)
            step = solved(damping)
        before = step.predicted
        rejected = 0
        for _ in range(max_evaluations):
            trial = moved(point, step, coordinates.n_free)
            attempt = evaluate(trial)
            gain = (loss - attempt.loss) / step.predicted if step.predicted > 0 else -np.inf
            # A loss that is not finite gives -inf or NaN.
            if gain > 1e-4:
                break
            exact = loss <= _ROUNDING * total
            told(attempt.loss / n, np.nan, step.predicted / loss, False)
            rejected += fresh
            # The loss has a kink where a sample changes sides, and its gradient jumps there: the
            # linearised problem then promises what no step can give.
            close = step.solved and decrement <= _KINKS * tolerance and damping <= 1
            # Where evaluations are passes, one that shows nothing but rounding is enough.
            if (exact and last_step) or close or rejected >= _REJECTED:
                return ended(exact, close, 3 * _KINKS)
            if len(history) >= max_evaluations:
                return ended(exact, close, _LIMIT_SLACK)
            if not fresh:
                try:
                    known, fresh = normal_at(point), True
                except np.linalg.LinAlgError:
                    return ended(exact, close, _LIMIT_SLACK)
            else:
                damping = max(10 * damping, 1e-3)
            step = solved(damping)
        easier = np.inf
        if gain < 0.25:
            damping = max(4 * damping, 1e-3)
        elif gain > 0.75:
            # For the next normal matrix: this one is factored already.
            easier = damping / 10 if damping > 1e-9 else 0.0
        point, residuals, fresh = trial, attempt, False
    return ended(False, False, _LIMIT_SLACK)
