"""The number of hidden units, from a first guess: `n_hidden="auto"`."""

from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple

import numpy as np

from fastsym import spectral
from fastsym._validation import check_pair
from fastsym.activation import Activation
from fastsym.algebra import Matrix, absolute_cosines
from fastsym.exceptions import IdentifiabilityWarning, RankError, warn
from fastsym.network import TwoLayerNetwork
from fastsym.refine.coordinates import Point
from fastsym.refine.lack_of_fit import lack_of_fit
from fastsym.refine.minimisation import Fit
from fastsym.refine.problem import Problem
from fastsym.refine.starts import Start
from fastsym.refine.trials import Count, Trials
from fastsym.sources import PairedRows
from fastsym.spectral import SpectralSolution
from fastsym.sums.values import Moments

_DOUBT = (0.8, 1.25)  # falls, in units of the bound, that leave the count in doubt
_OPPOSITE = 0.98  # cosine of two units and of their outputs from which they make a linear term
_TESTED = 0.02  # weights for each observation up to which a lack of fit is seen
_ROUNDS = 4
_ABSOLUTE = Activation(-1.0)


class Counted(NamedTuple):
    """The number of units found.

    Parameters
    ----------
    network : TwoLayerNetwork
        A fit of the samples in memory with so many units.
    path : tuple of Count
        In the order in which they were tried.
    doubt : str
        Why the count is in doubt; empty if it is not.
    linear_term : str
        What a linear term in x would change; empty if the samples do not ask for one.
    """

    network: TwoLayerNetwork
    path: tuple[Count, ...]
    doubt: str
    linear_term: str


def count_units(problem: Problem, point: Point) -> Counted:
    """Find the number of hidden units that samples in memory show, from a first guess.

    Units are added and removed while the loss says so (`fastsym.refine.trials`). A linear term of
    y, which is of no such network, is matched by pairs of opposite units relu(v.x) - relu(-v.x):
    where there are such pairs, or the residual is linear in x, units are counted beside a free
    linear term, and that number is taken if it is the smaller one and describes y as well.

    Parameters
    ----------
    problem : Problem
        Of the number of units guessed.
    point : Point
        Where to begin.

    Returns
    -------
    counted : Counted
    """
    trials = Trials(problem, point)
    trials.settle()
    problem, fit, path = trials.problem, trials.fit, tuple(trials.path)
    doubt, linear_term = _doubt(trials), ""
    if not trials.exact(fit) or _opposite_pairs(problem, fit.point):
        beside = _BesideLinear(trials)
        if beside.is_asked_for() and beside.count():
            problem, fit = beside.network_fit()
            weight = problem.sample.weight
            loss = problem.user_loss(fit.residuals) / weight
            unit = loss * weight / fit.residuals.loss if fit.residuals.loss > 0 else 1.0
            path = (*path, Count(problem.coordinates.n_free, loss, float("nan")))
            linear_term = (
                f"with a linear term in x beside them, {problem.coordinates.n_free} hidden units "
                f"have a loss of {beside.loss * unit / weight:.4g}, without it one of "
                f"{loss:.4g}"
            )
            doubt = _doubt(beside.trials)
    return Counted(problem.network(fit.point), path, doubt, linear_term)


def describes(
    sample: PairedRows, start: Start, *, n_jobs: int | None = None, whole: bool = False
) -> bool:
    """Say whether a network without biases describes samples in memory, from a first guess.

    Parameters
    ----------
    sample : PairedRows
    start : Start
        With a network of the number of units guessed.
    n_jobs, whole
        As for `counted_network`.

    Returns
    -------
    answer : bool
        Whether its optimum is exact, or there are fifty observations for each weight and none of
        a lack of fit. With fewer the test sees little.
    """
    problem = _problem_of(sample, start, n_jobs, whole)
    fit = problem.fit(start.point(problem))
    if fit.exact or problem.unit > _TESTED:
        return fit.exact
    return not lack_of_fit(problem, fit.point, fit.normal).significant


def _problem_of(sample: PairedRows, start: Start, n_jobs: int | None, whole: bool) -> Problem:
    X, Y = check_pair(sample.X[:], sample.Y[:], values=not sample.checked)
    network = start.network
    assert isinstance(network, TwoLayerNetwork)
    how = network.n_hidden, network.activation
    return Problem(X, Y, sample.weights, *how, n_jobs=n_jobs, whole=whole)


def counted_network(
    sample: PairedRows,
    start: Start,
    *,
    n_jobs: int | None = None,
    whole: bool = False,
) -> tuple[TwoLayerNetwork, tuple[Count, ...]]:
    """Find the number of hidden units of samples in memory, and warn where it is in doubt.

    Parameters
    ----------
    sample : PairedRows
    start : Start
        With a network of the number of units guessed.
    n_jobs : int, default=None
        Threads at most.
    whole : bool, default=False
        Whether these are all samples, as for `Problem`.

    Returns
    -------
    network : TwoLayerNetwork
        A fit of these samples.
    path : tuple of Count

    Raises
    ------
    ValueError
        If the samples are not finite, or all of X is zero.

    Warns
    -----
    IdentifiabilityWarning
        If another number of units is as good but for chance, or y has a linear term.
    """
    problem = _problem_of(sample, start, n_jobs, whole)
    counted = count_units(problem, start.point(problem))
    if counted.doubt:
        tried = ", ".join(f"{one.n_hidden}: {one.loss:.6g}" for one in counted.path)
        warn(
            f'n_hidden="auto" found {counted.network.n_hidden} hidden units, which is in doubt: '
            f"{counted.doubt}; losses by number of units {tried}; compare fits of these numbers on "
            "other samples, or take more samples",
            IdentifiabilityWarning,
        )
    if counted.linear_term:
        warn(
            f"Y has a linear term in X, which no network of this kind has: {counted.linear_term}; "
            "regress Y on X beside the network, or give n_hidden: two opposite units match one "
            "direction of a linear term",
            IdentifiabilityWarning,
        )
    return counted.network, counted.path


def solved_for(moments: Callable[[], Moments], random_state: Any = None) -> SpectralSolution | None:
    """Solve moments for the number of units found, if they show it without a doubt.

    Parameters
    ----------
    moments : callable
        Gives the moments, or raises RankError itself.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    solution : SpectralSolution or None
    """
    try:
        solution = spectral.solve(moments(), random_state=random_state, warn=False)
    except RankError:
        return None
    return None if solution.diagnostics.doubt else solution


def _doubt(trials: Trials) -> str:
    """Say which number of units comes close to the one found."""
    k = trials.problem.coordinates.n_free
    return "; ".join(
        f"the {'last' if which == k else 'next'} of {which} units lowers the loss "
        f"{trials.ratios[which]:.2f} times as much as chance may"
        for which in (k, k + 1)
        if _DOUBT[0] < trials.ratios.get(which, 0.0) < _DOUBT[1]
    )


def _opposite_pairs(problem: Problem, point: Point) -> int:
    """Count the pairs of units that are opposite and have opposite outputs."""
    k = problem.coordinates.n_free
    units, outputs = point.hidden[:k], point.outputs[:, :k].T
    opposite = (absolute_cosines(units) > _OPPOSITE) & (units @ units.T < 0)
    opposite &= (absolute_cosines(outputs) > _OPPOSITE) & (outputs @ outputs.T < 0)
    return int(np.triu(opposite, 1).sum())


class _BesideLinear:
    """Units counted beside a free linear term, by turns: y = x B + A |W x|, x B taken off y.

    relu(t) = t / 2 + |t| / 2: with x B free a network is one of absolute values.
    """

    def __init__(self, trials: Trials) -> None:
        self.trials, self.plain = trials, trials
        self.n_before = trials.problem.coordinates.n_free
        self.before = trials.fit.residuals.loss
        self.loss = np.inf
        self.linear = np.zeros((trials.rows.x.shape[1], trials.problem.n_outputs))

    def is_asked_for(self) -> bool:
        """Whether there are opposite pairs, or the residual is linear in x beyond chance."""
        rows, point = self.plain.rows, self.plain.fit.point
        return bool(_opposite_pairs(self.plain.problem, point)) or rows.is_linear(
            rows.residual(point), self.plain.problem.n_parameters
        )

    def count(self) -> bool:
        """Whether fewer units describe y as well, with the linear term."""
        plain = self.plain
        gain = (1 - plain.problem.activation.negative_slope) / 2
        k, point = self.n_before, plain.fit.point
        outputs = point.outputs.copy()
        outputs[:, :k] *= gain
        point = Point(point.hidden, outputs)
        for _ in range(_ROUNDS):
            self.linear = self._regressed(point)
            problem = self._problem(k)
            self.trials = Trials(problem, point)
            self.trials.settle()
            k, point = self.trials.problem.coordinates.n_free, self.trials.fit.point
        loss = self.trials.fit.residuals.loss
        self.loss = loss
        return k < self.n_before and loss <= (1 + plain.problem.unit) * self.before

    def _regressed(self, point: Point) -> Matrix:
        """Regress on x what the absolute values do not explain."""
        rows = self.plain.rows
        rest = rows.targets - _ABSOLUTE(rows.all @ point.hidden.T) @ point.outputs.T
        return rows.x.T @ rest / rows.weight

    def _problem(self, k: int) -> Problem:
        """Absolute values only, on what the linear term leaves."""
        rows = self.plain.rows
        problem = copy(self.plain.problem.resized(k))
        problem.activation = _ABSOLUTE
        problem.sample = problem.sample.with_targets(rows.targets - rows.x @ self.linear)
        problem.total = float((problem.sample.targets**2).sum())
        return problem

    def network_fit(self) -> tuple[Problem, Fit]:
        """Fit a network of so many units to y itself."""
        k, point = self.trials.problem.coordinates.n_free, self.trials.fit.point
        problem = self.plain.problem.resized(k)
        slope, bias = problem.activation.negative_slope, int(problem.fit_intercept)
        hidden, outputs = point.hidden.copy(), point.outputs.copy()
        outputs[:, :k] *= 2 / (1 - slope)
        # The sides of the units are those that agree with the linear term.
        terms = np.stack([np.outer(hidden[i, bias:], outputs[:, i]).ravel() for i in range(k)], 1)
        sides = np.linalg.lstsq(terms, self.linear.ravel(), rcond=None)[0]
        hidden[:k][sides < 0] *= -1
        return problem, problem.fit(Point(hidden, outputs))
