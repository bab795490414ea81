"""Units that join one by one beside a free linear part, as long as each explains more than noise.

Of noise, the best of all units explains about 2 to 3 (d + m) variances, d and m the numbers of
directions of x and of outputs: it has so many weights, and is the best of many. A unit counts where
it explains more than `chance_gain`. Units join until some in a row do not; then those without which
the loss rises by no more than that go, the least first.
"""

from typing import NamedTuple

import numpy as np

from fastsym.algebra import Matrix
from fastsym.refine.greedy import best_rows, projection_of, rows_for_scores
from fastsym.refine.minimisation import Fit, minimise
from fastsym.refine.problem import Problem
from fastsym.refine.search import Say, silent

_ROWS = 16_384  # that units are found on; the optimum is that of all
_CHANCE = (2.5, 5.0)  # weights, and roots of them, that a unit explains of noise
_CYCLES, _REPEATED = 3, 600  # of growth and thinning after the first, with so few hidden weights
_MOST_WEIGHTS = 3000  # hidden weights that growth ends at: a minute or so
_BEYOND, _SHARE = 2, 4  # units that do not pay before growth ends; one more for each so many
_TOGETHER = 8  # of as many units one more joins at once
_STEPS, _TOLERANCE = 6, 0.3  # evaluations of a round, and what they may leave
_CLOSE, _CLOSE_TOLERANCE = 15, 1e-2  # the same where units are compared
_LEAST_FREEDOM = 2.0  # observations for each weight below which nothing is compared


class Grown(NamedTuple):
    """Where growth ended.

    Parameters
    ----------
    problem : Problem
        Of the number of units found.
    fit : Fit
        The optimum, rows of units in no order, signs arbitrary.
    path : tuple of (int, float)
        Numbers of units that were tried, and the loss of each on the samples in memory.
    """

    problem: Problem
    fit: Fit
    path: tuple[tuple[int, float], ...]

    @property
    def n_hidden(self) -> int:
        """Number of units found."""
        return self.problem.coordinates.n_free

    @property
    def freedom(self) -> float:
        """Observations for each weight."""
        return 1 / self.problem.unit


def chance_gain(problem: Problem) -> float:
    """Bound what one more unit explains of noise, in variances of the noise.

    Simulated with n from 100 to 4000, 2 to 30 features of four kinds and 1 or 5 outputs, the gain
    over (d + m) is 2 to 3 on the average, and at most 5.1 for d + m = 3 and 3.1 for 35; 4.7, which
    is above the bound, for 100 samples of 30 features, where `predictive` tries no units.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    gain : float
    """
    weights = problem.coordinates.to_inputs.shape[1] - int(problem.fit_intercept)
    weights += problem.n_outputs
    return _CHANCE[0] * weights + _CHANCE[1] * np.sqrt(weights)


def grown(
    problem: Problem,
    rng: np.random.Generator,
    *,
    most: int = 10_000,
    freedom: float = _LEAST_FREEDOM,
    again: bool = True,
    say: Say = silent,
) -> Grown:
    """Find the number of units that samples in memory show, and an optimum with so many.

    Parameters
    ----------
    problem : Problem
        With a linear part, of any n_hidden.
    rng : Generator
    most : int, default=10_000
        Units at most.
    freedom : float, default=2.0
        Observations for each weight at least: with fewer no unit joins.
    again : bool, default=True
        Whether to grow and thin again from where that ended, as long as it pays.
    say : callable
        Called with a line for each number of units.

    Returns
    -------
    grown : Grown

    Raises
    ------
    ValueError
        If the problem has no linear part.
    """
    growth = _Growth(problem.spread(_ROWS), rng, say, most=most, freedom=freedom)
    fit = growth.thinned(growth.enlarged(growth.without_units()))
    for _ in range(_CYCLES if again else 0):
        if fit.exact or not 0 < growth.weights(fit) <= _REPEATED:
            break
        other = growth.thinned(growth.enlarged(fit))
        if not growth.cost(other, fit) < growth.cost(fit, other):
            break
        fit = other
    problem = problem.resized(growth.units(fit))
    return Grown(problem, problem.fit(fit.point), tuple(growth.path))


class _Growth:
    """Units that join and leave, and the numbers that were tried."""

    def __init__(
        self, problem: Problem, rng: np.random.Generator, say: Say, *, most: int, freedom: float
    ) -> None:
        self._problem, self._rng, self._say = problem, rng, say
        self._most, self._freedom = most, freedom
        self._gain = chance_gain(problem)
        self.path: list[tuple[int, float]] = []

    def units(self, fit: Fit) -> int:
        """Count the units of a fit."""
        return len(fit.point.hidden) - len(self._problem.fixed)

    def weights(self, fit: Fit) -> int:
        """Count the hidden weights of a fit."""
        return self.units(fit) * self._problem.coordinates.to_inputs.shape[1]

    def _hidden(self, fit: Fit) -> Matrix:
        return fit.point.hidden[: self.units(fit)]

    def _variance(self, fit: Fit) -> float:
        """Of the noise, in the unit of the loss."""
        return self._problem.resized(self.units(fit)).variance(fit.residuals)

    def cost(self, fit: Fit, other: Fit) -> float:
        """Loss, and what its units explain of noise, its variance that of the lower of two."""
        variance = min(self._variance(fit), self._variance(other))
        return fit.residuals.loss + self.units(fit) * self._gain * variance

    def _fitted(self, hidden: Matrix, *, closely: bool) -> Fit:
        steps, tolerance = (_CLOSE, _CLOSE_TOLERANCE) if closely else (_STEPS, _TOLERANCE)
        problem = self._problem.resized(len(hidden))
        start, tolerance = problem.regressed(hidden), tolerance * problem.unit
        fit = minimise(problem, start, tolerance=tolerance, max_evaluations=steps)
        self.path.append((len(hidden), fit.residuals.loss))
        mean = problem.user_loss(fit.residuals) / problem.sample.weight
        self._say(f"fastsym: {len(hidden)} hidden units beside a linear part: loss {mean:.6g}")
        return fit

    def without_units(self) -> Fit:
        """Fit the linear part alone."""
        return self._fitted(
            np.empty((0, self._problem.coordinates.to_inputs.shape[1])), closely=True
        )

    def enlarged(self, fit: Fit) -> Fit:
        """Let units join until some more of them explain no more than noise."""
        paid = self.units(fit)
        while not fit.exact and self.weights(fit) < _MOST_WEIGHTS:
            k = self.units(fit)
            n_more = min(1 + k // _TOGETHER, self._most - k)
            room = 1 / self._problem.resized(k + n_more).unit
            if n_more < 1 or room < self._freedom or k - paid >= _BEYOND + paid // _SHARE:
                break
            present = self._problem.resized(k)
            some = present.spread(rows_for_scores(present))
            rows = best_rows(some, self._hidden(fit), n_more, self._rng)
            larger = self._fitted(np.concatenate([self._hidden(fit), rows]), closely=False)
            if larger.exact or self.cost(larger, fit) < self.cost(fit, larger):
                paid = self.units(larger)
            fit = larger
        return fit

    def thinned(self, fit: Fit) -> Fit:
        """Drop units as long as those left explain as much, but for noise."""
        if self.units(fit):
            fit = self._fitted(self._hidden(fit), closely=True)
        n_less = 1 + self.units(fit) // _TOGETHER
        while n_less and self.units(fit):
            n_less = min(n_less, 1 + self.units(fit) // _TOGETHER)
            smaller = self._fitted(self._fewer(self._hidden(fit), n_less), closely=True)
            as_good = not fit.exact and self.cost(smaller, fit) <= self.cost(fit, smaller)
            if smaller.exact or as_good:
                fit = smaller
            else:
                n_less //= 2
        return fit

    def _fewer(self, hidden: Matrix, n_less: int) -> Matrix:
        """Rows without those that the loss grows least without, one after the other."""
        for _ in range(n_less):
            regression = projection_of(self._problem).regress(hidden)
            least = int(regression.saliencies(len(hidden)).argmin())
            hidden = np.delete(hidden, least, axis=0)
        return hidden
