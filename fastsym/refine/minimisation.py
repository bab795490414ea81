"""Levenberg-Marquardt, the normal matrix renewed only when it pays.

Reference: Marquardt (1963), doi:10.1137/0111030.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from fastsym.algebra import Matrix
from fastsym.refine.coordinates import Coordinates, Point, Step, moved
from fastsym.refine.normal import Normal
from fastsym.sums.values import Residuals

_KINKS = 10  # of the tolerance: a step that does not descend from there met kinks of the loss
_EXACT = 1e-29  # loss / sum |y|^2 that only rounding is left of
_ROUNDING = 1e-20  # below this a step that does not descend is due to rounding
_LAST_STEP_MARGIN = 0.1  # later steps contract less than the first: 5 to 10 times as measured
_POOR = 0.1  # contraction a step from which a normal matrix of an earlier point is renewed
_DESCENT = 1e-4  # share of the promised decrease that a step must give
_REJECTED = 6
_LIMIT_SLACK = 3.0  # times the tolerance still counts when the evaluations are used up
_DAMPING = 1e-3
_EPS = float(np.finfo(float).eps)


class Objective(Protocol):
    """A sum of squared residuals to minimise."""

    coordinates: Coordinates
    total: float  # sum of |y|^2, for the level of rounding

    def reached(self, point: Point) -> tuple[Point, Residuals]:
        """Point that stands for a trial point, and loss and gradient there: a pass.

        It is the trial point itself, or the one with its rows and outputs that fit best.
        """
        ...

    def normal(self, point: Point) -> Normal:
        """Gauss-Newton normal matrix at a point."""
        ...


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
    # relative decrease left after a step that was not evaluated, or at the limit, undamped
    promised: float | None = None


def lowest_loss(fits: Sequence[Fit]) -> Fit:
    """Pick the fit of the lowest loss; one whose loss is not a number is above all others.

    Parameters
    ----------
    fits : sequence of Fit

    Returns
    -------
    fit : Fit
        The first of them if several are as low.
    """
    return min(fits, key=lambda one: _or_infinity(one.residuals.loss))


def _or_infinity(loss: float) -> float:
    return loss if np.isfinite(loss) else np.inf


def gradients(residuals: Residuals, coordinates: Coordinates) -> tuple[Matrix, Matrix]:
    """Return minus half of the gradient of the loss in white coordinates.

    Parameters
    ----------
    residuals : Residuals
    coordinates : Coordinates

    Returns
    -------
    hidden_gradient : ndarray of shape (n_free, n_coordinates)
    output_gradient : ndarray of shape (n_outputs, n_units)
    """
    hidden = residuals.hidden_gradient @ coordinates.to_inputs
    return hidden, residuals.output_gradient


def gradient_norm(hidden_gradient: Matrix, output_gradient: Matrix, weight: float) -> float:
    """Return the norm of the gradient of the mean loss.

    Parameters
    ----------
    hidden_gradient, output_gradient : ndarray
        As `gradients` returns them.
    weight : float
        Sum of the sample weights.

    Returns
    -------
    norm : float
    """
    norm = 2 * np.hypot(np.linalg.norm(hidden_gradient), np.linalg.norm(output_gradient))
    return float(norm / weight)


def minimise(
    objective: Objective,
    point: Point,
    *,
    tolerance: float,
    max_evaluations: int,
    damping: float = _DAMPING,
    last_step: bool = False,
    report: Callable[[Evaluation], object] | None = None,
) -> Fit:
    """Levenberg-Marquardt from a point.

    Parameters
    ----------
    objective : Objective
    point : Point
    tolerance : float
        Stop when the linearised problem promises a relative decrease of the loss below this.
    max_evaluations : int
        At least one is made.
    damping : float, default=1e-3
        At the start.
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
    descent = _Descent(
        objective, point, tolerance, max(max_evaluations, 1), damping, last_step, report
    )
    return descent.run()


class _Descent:
    """One minimisation: the present point, what is known there, and how steps are damped."""

    def __init__(
        self,
        objective: Objective,
        point: Point,
        tolerance: float,
        max_evaluations: int,
        damping: float,
        last_step: bool,
        report: Callable[[Evaluation], object] | None,
    ) -> None:
        self.objective, self.tolerance, self.limit = objective, tolerance, max_evaluations
        self.last_step, self.report = last_step, report
        self.history: list[Evaluation] = []
        self.damping = damping
        self.easier = np.inf  # damping for the next normal matrix
        self.before = np.inf  # decrease promised by the step that led here
        self.normal: Normal | None = None
        self.fresh = False  # whether the normal matrix is of this point
        self._stand_at(*objective.reached(point))
        self.step, self.decrement = self._solved(damping), np.nan

    def run(self) -> Fit:
        if not (np.isfinite(self.loss) and self._renew()):
            self._tell(self.loss, np.nan, np.nan, True)
            return Fit(self.point, self.residuals, None, False, False, self.history)
        for _ in range(self.limit):
            end = self._look()
            if end is None:
                end = self._descend()
            if end is not None:
                return end
        return self._ended(exact=False, close=False, slack=_LIMIT_SLACK)

    def _look(self) -> Fit | None:
        """Work out a step from the present point; the fit if there is none to evaluate."""
        step = self.step = self._solved(self.damping)
        self.decrement = step.predicted / self.loss if self.loss > 0 else 0.0
        norm = gradient_norm(*self.gradients, self.residuals.weight)
        self._tell(self.loss, norm, self.decrement, True)
        exact = self.loss <= _EXACT * self.objective.total
        met = step.solved and self.decrement <= self.tolerance and self.damping <= 1
        if exact or met:
            return Fit(self.point, self.residuals, self.normal, True, exact, self.history)
        if self.last_step and self.damping == 0 and (end := self._end_unseen()) is not None:
            return end
        if len(self.history) >= self.limit:
            return self._ended(exact=False, close=False, slack=_LIMIT_SLACK)
        # A frozen normal matrix contracts by a factor a step; renew it when that is poor.
        if not self.fresh and not step.predicted <= _POOR * self.before:
            if not self._renew():
                return self._ended(exact=False, close=False, slack=_LIMIT_SLACK)
            self.damping = min(self.damping, self.easier)
            self.step = self._solved(self.damping)
        return None

    def _end_unseen(self) -> Fit | None:
        """Take the step as the last one if it will leave nothing to do."""
        known = 0 < abs(self.before) < np.inf
        contraction = self.step.predicted / self.before if known else 1.0
        promised = contraction * self.decrement
        if not (contraction < 0.1 and promised <= _LAST_STEP_MARGIN * self.tolerance):
            return None
        left = self.residuals.with_loss(self.loss - self.step.predicted)
        point = moved(self.point, self.step, self.objective.coordinates.n_free)
        return Fit(point, left, self.normal, True, False, self.history, promised)

    def _descend(self) -> Fit | None:
        """Evaluate steps until one lowers the loss, and take it; the fit if none will."""
        self.before = self.step.predicted
        rejected = 0
        for _ in range(self.limit):
            step = self.step
            trial = moved(self.point, step, self.objective.coordinates.n_free)
            trial, attempt = self.objective.reached(trial)
            gain = (self.loss - attempt.loss) / step.predicted if step.predicted > 0 else -np.inf
            # A loss that is not finite gives -inf or NaN.
            if gain > _DESCENT:
                self._adapt_damping(gain)
                self._stand_at(trial, attempt)
                return None
            self._tell(attempt.loss, np.nan, step.predicted / self.loss, False)
            rejected += self.fresh
            exact = self.loss <= _ROUNDING * self.objective.total
            # Damped until only rounding is promised, and that is not there: this is a kink.
            if self.fresh and step.solved and step.predicted <= _EPS * self.loss:
                return self._ended(exact, True, slack=_LIMIT_SLACK)
            # The loss has a kink where a sample changes sides, and its gradient jumps there: the
            # linearised problem then promises what no step can give.
            near = self.decrement <= _KINKS * self.tolerance
            close = step.solved and near and self.damping <= 1
            # Where evaluations are passes, one that shows nothing but rounding is enough.
            if (exact and self.last_step) or close or rejected >= _REJECTED:
                return self._ended(exact, close, slack=3 * _KINKS)
            if len(self.history) >= self.limit:
                return self._ended(exact, close, slack=_LIMIT_SLACK)
            if self.fresh:
                self.damping = max(10 * self.damping, _DAMPING)
            elif not self._renew():
                return self._ended(exact, close, slack=_LIMIT_SLACK)
            self.step = self._solved(self.damping)
        return self._ended(exact=False, close=False, slack=_LIMIT_SLACK)

    def _adapt_damping(self, gain: float) -> None:
        """Damp by what a step gave of what it promised."""
        self.easier = np.inf
        if gain < 0.25:
            self.damping = max(4 * self.damping, _DAMPING)
        elif gain > 0.75:
            # For the next normal matrix: this one is factored already.
            self.easier = self.damping / 10 if self.damping > 1e-9 else 0.0

    def _stand_at(self, point: Point, residuals: Residuals) -> None:
        self.point, self.residuals, self.loss = point, residuals, residuals.loss
        with np.errstate(all="ignore"):  # where the loss is not finite there is no step
            self.gradients = gradients(residuals, self.objective.coordinates)
        self.fresh = False

    def _renew(self) -> bool:
        """Take the normal matrix at the present point; False, and the old one, if there is none."""
        try:
            self.normal = self.objective.normal(self.point)
        except np.linalg.LinAlgError:
            return False
        self.fresh = True
        return True

    def _solved(self, damping: float) -> Step:
        """Step from the present point; one that promises NaN if there is none."""
        hidden_gradient, output_gradient = self.gradients
        none = Step(
            np.zeros_like(hidden_gradient), np.zeros_like(self.point.outputs), np.nan, False
        )
        if self.normal is None or not _finite(*self.gradients):
            return none
        try:
            with np.errstate(all="ignore"):
                step = self.normal.solve(hidden_gradient, output_gradient, damping)
        except np.linalg.LinAlgError:
            return none
        return step if _finite(step.hidden, step.outputs) else none

    def _ended(self, exact: bool, close: bool, slack: float) -> Fit:
        """Judge the present point, without damping."""
        promised = None
        if not (exact or close):
            undamped = self._solved(0.0)
            bound = slack * self.tolerance * self.loss
            close = undamped.solved and undamped.predicted <= bound
            if not close and self.loss > 0 and np.isfinite(undamped.predicted):
                # What a damped step promises is no bound, and may be next to nothing.
                promised = undamped.predicted / self.loss
        ended = exact or close
        return Fit(self.point, self.residuals, self.normal, ended, exact, self.history, promised)

    def _tell(self, loss: float, norm: float, decrement: float, accepted: bool) -> None:
        mean = loss / self.residuals.weight
        self.history.append(Evaluation(mean, norm, decrement, self.damping, accepted))
        if self.report is not None:
            self.report(self.history[-1])


def _finite(*matrices: Matrix) -> bool:
    return all(bool(np.isfinite(matrix).all()) for matrix in matrices)
