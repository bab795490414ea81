"""The loss of a stream about a point: sums since it was taken, and a sample that judges a step."""

from dataclasses import replace

import numpy as np

from fastsym.algebra import row_lengths
from fastsym.refine.coordinates import Point, moved
from fastsym.refine.drift import row_residuals
from fastsym.refine.minimisation import Evaluation, Fit, gradient_norm, gradients
from fastsym.refine.normal import Normal, ScaledNormal
from fastsym.refine.outcome import check_sizes
from fastsym.refine.problem import Problem
from fastsym.sums.residuals import ResidualAccumulator
from fastsym.sums.values import Residuals

_ROUNDING = 1e-20  # loss / sum |y|^2 up to which residuals are rounding
_CHANCE, _DEVIATIONS = 2.0, 6.0
_LOSS_ERRORS = 4.0  # standard errors that the losses of the sums and of the sample may be apart


def chance(problem: Problem) -> float:
    """Return by how much the loss of an estimate may be above the lowest one by chance.

    The optimum of other samples has a loss on these that is above the lowest one by a share of
    p / (n m) on average, p the number of weights, and more where the noise is not equal.

    Parameters
    ----------
    problem : Problem
        Of a reservoir.

    Returns
    -------
    share : float
        Of the lowest loss.
    """
    return problem.unit * (_CHANCE + _DEVIATIONS * np.sqrt(2 / problem.n_parameters))


def is_rounding(problem: Problem, residuals: Residuals) -> bool:
    """Tell whether only rounding is left of residuals.

    Parameters
    ----------
    problem : Problem
        Says how large the outputs are.
    residuals : Residuals
        Of these samples or others.

    Returns
    -------
    answer : bool
    """
    mean = problem.total / problem.sample.weight
    return bool(residuals.loss <= _ROUNDING * mean * residuals.weight)


class Expansion:
    """The loss about a point: the samples before it was taken, and sums over those since then.

    Parameters
    ----------
    problem : Problem
    fit : Fit
        The point, in coordinates of the problem, and the residuals of the samples before, of
        which it is the optimum.
    n_jobs : int, default=None
        Threads at most.

    Attributes
    ----------
    new : ResidualAccumulator
        Takes in the samples that come.
    """

    def __init__(self, problem: Problem, fit: Fit, n_jobs: int | None = None) -> None:
        # As weights: coordinates are those of the reservoir, and change with it.
        self.weights, self.outputs = problem.coordinates.weights(fit.point), fit.point.outputs
        self.before = fit.residuals
        d, m = problem.sample.n_features, problem.n_outputs
        activation = problem.activation
        n_free = problem.coordinates.n_free
        self.new = ResidualAccumulator(
            d, m, self.weights, self.outputs, activation, n_jobs, problem.units, n_free
        )

    def point(self, problem: Problem) -> Point:
        """Give the point in coordinates of a problem.

        Parameters
        ----------
        problem : Problem

        Returns
        -------
        point : Point
        """
        return problem.coordinates.point(self.weights, self.outputs)

    def step(self, problem: Problem, normal: Normal | None) -> Fit:
        """Take a Gauss-Newton step from the sums; these can go on.

        Parameters
        ----------
        problem : Problem
            Of a sample of all rows.
        normal : Normal or None
            Of the problem, near the point. None: no step is taken.

        Returns
        -------
        fit : Fit
            `residuals` are those of the samples before the point and since then, after the step as
            far as the linearised problem tells; `converged` says whether there is a step, small
            enough for that to hold.
        """
        coordinates, before, new = problem.coordinates, self.before, self.new.peek()
        check_sizes(new, problem.units)
        length = row_lengths(self.weights @ coordinates.from_inputs.T)
        length[coordinates.n_free :] = 1
        new = replace(
            new,
            hidden_gradient=new.hidden_gradient * length[: coordinates.n_free, None],
            output_gradient=new.output_gradient / length,
        )
        gradient = gradients(new, coordinates)
        whole = replace(
            new,
            n_samples=before.n_samples + new.n_samples,
            weight=before.weight + new.weight,
            residual_moment=before.residual_moment + new.residual_moment,
        )
        point, loss = self.point(problem), whole.loss
        here = Fit(point, whole, None, False, False, [])
        if normal is None:
            return here
        try:
            step = ScaledNormal(normal, whole.weight / problem.sample.weight).solve(*gradient, 0.0)
            point = moved(point, step, coordinates.n_free)
        except np.linalg.LinAlgError:
            return here
        if not all(np.isfinite(part).all() for part in (*point, step.predicted)):
            return here
        decrement = step.predicted / loss if loss else 0.0
        last = Evaluation(
            loss=max(loss - step.predicted, 0.0) / whole.weight,
            gradient_norm=gradient_norm(*gradient, whole.weight),
            decrement=decrement,
            damping=0,
            accepted=True,
        )
        small = decrement <= chance(problem) or is_rounding(problem, whole)
        return Fit(
            point, whole.with_loss(max(loss - step.predicted, 0.0)), normal, small, False, [last]
        )


def is_near_optimum(problem: Problem, fit: Fit) -> bool:
    """Tell whether what the linearised problem promises after a step is chance.

    Parameters
    ----------
    problem : Problem
        Of a reservoir.
    fit : Fit
        As by `Expansion.step`.

    Returns
    -------
    answer : bool
    """
    if not fit.converged or fit.normal is None:
        return False
    there = problem.residuals(fit.point)
    if not np.isfinite(there.loss):
        return False
    step = fit.normal.solve(*gradients(there, problem.coordinates), 0.0)
    small = step.predicted <= chance(problem) * there.loss
    return bool(small) or is_rounding(problem, there)


def chosen(problem: Problem, step: Fit, best: Fit) -> Fit:
    """Pick the step where it is as good as the optimum of the reservoir, but for chance.

    Parameters
    ----------
    problem : Problem
        Of a reservoir.
    step : Fit
        As by `Expansion.step`.
    best : Fit
        The lowest of a search.

    Returns
    -------
    fit : Fit
        One of the two; a step with the loss of the reservoir where that of the sums, in which what
        came before a point has its loss there, is not within its error.
    """
    if not step.converged:
        return best
    if best.exact and not is_rounding(problem, step.residuals):
        # Noise that these samples do not have: they cannot say what is chance.
        return step._replace(converged=best.converged)
    there = problem.residuals(step.point)
    near = there.loss <= (1 + chance(problem)) * best.residuals.loss
    if not (near or is_rounding(problem, there)):
        return best
    return _with_credible_loss(problem, step._replace(converged=best.converged), there)


def _with_credible_loss(problem: Problem, step: Fit, there: Residuals) -> Fit:
    weight = problem.sample.weight
    squares = (row_residuals(problem, step.point) ** 2).sum(axis=1)
    error = np.sqrt(squares.var() * len(squares)) / weight
    mean, summed = squares.sum() / weight, step.residuals.loss / step.residuals.weight
    if abs(mean - summed) <= _LOSS_ERRORS * error or is_rounding(problem, step.residuals):
        return step
    moment = there.residual_moment * (step.residuals.weight / weight)
    return step._replace(residuals=replace(step.residuals, residual_moment=moment))
