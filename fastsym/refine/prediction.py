"""Samples of unknown origin: the network that predicts other samples best.

Two families are compared. Units that each explain more than noise (`fastsym.refine.growth`),
without a penalty: with many samples for each weight nothing is better, and what a network made it
finds again. And a path of weight decay (`fastsym.refine.decay`), from a ridge regression downwards,
for samples that do not determine the weights of a network that predicts well. Both are fitted to
parts of the samples and predict the others, which says where on the path to stop, and which of the
two it is.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym.algebra import Matrix
from fastsym.refine.coordinates import Point
from fastsym.refine.decay import MOST_UNITS, Decay, DecayPath, evened, path_to, ridge_of
from fastsym.refine.growth import Grown, grown
from fastsym.refine.problem import Problem
from fastsym.refine.search import Say, silent
from fastsym.refine.starts import generator_of

SHARES = 1.78 * 10 ** (-np.arange(10) / 4)
"""Values of alpha that are tried, in sigma sqrt(n), sigma^2 the mean square that ridge leaves."""

_AMPLE = 50.0  # observations for each weight from which units without a penalty are not doubted
_DETERMINED = 30.0  # from which decay must be better by more than chance
_FEWEST_ROWS = 20  # with fewer, parts of them decide nothing but the ridge
_SURELY, _BARELY = 2.0, 0.5  # standard errors; the latter for units rather than ridge alone
_ROWS_FOR_UNITS = 20  # times the coordinates: rows from which units without a penalty are tried
_LEAST_FREEDOM = 5.0  # observations for each weight that these may have
_FEW, _MORE_FOLDS, _FOLDS = 150, 5, 3  # fewer rows are cut into more parts
_MANY, _LARGE = 400, 100_000  # rows, or values of X times outputs, for which one part is enough
_PART = 3  # of which one is held out
_MOST_ROWS = 8192  # for weight decay
_PATIENCE = 2  # alphas in a row that predict worse


class Predicted(NamedTuple):
    """The network that predicts best, and how well.

    Parameters
    ----------
    problem : Problem
        Of its number of units, in coordinates of its own.
    point : Point
    decay : Decay or None
        That it was fitted with; None: without.
    share : float
        `decay.alpha` in sigma sqrt(n); 0 without decay, infinite without units.
    held_out : float
        R2 of samples that were not fitted, against their mean; NaN if none were held out.
    grown : Grown or None
        Units without a penalty, if these were tried.
    """

    problem: Problem
    point: Point
    decay: Decay | None
    share: float
    held_out: float
    grown: Grown | None

    @property
    def n_hidden(self) -> int:
        """Number of units."""
        return self.problem.coordinates.n_free


def predictive(
    problem: Problem, random_state: Any = None, say: Say = silent, *, decay: bool = True
) -> Predicted:
    """Find the network that predicts other samples best, with any number of units.

    Parameters
    ----------
    problem : Problem
        With a linear part, of any n_hidden.
    random_state : None, int, RandomState or Generator
        Of the parts, and of candidate units. None: fixed.
    say : callable
        Called with a line for each step.
    decay : bool, default=True
        Whether weights may be held small.

    Returns
    -------
    predicted : Predicted

    Raises
    ------
    ValueError
        If the problem has no linear part.
    """
    rng = generator_of(random_state)
    units = None
    if (
        not decay
        or problem.sample.n_effective >= _ROWS_FOR_UNITS * problem.coordinates.to_inputs.shape[1]
    ):
        units = grown(problem, rng, freedom=_LEAST_FREEDOM, say=say)
        if not decay or units.fit.exact or units.freedom >= _AMPLE:
            return Predicted(units.problem, units.fit.point, None, 0.0, float("nan"), units)
    folds = _Folds(problem.spread(_MOST_ROWS), rng)
    errors = folds.decay_errors(say)
    best = int(np.argmin(errors.sum(axis=1)))
    few = problem.sample.n_samples < _FEWEST_ROWS
    if few or not _deviation(errors[0] - errors[best]) > _BARELY:
        best = 0
    if units is not None:
        without = folds.unit_errors(units.n_hidden)
        needed = _SURELY if units.freedom >= _DETERMINED else 0.0
        if not _deviation(without - errors[best]) > needed:
            held_out = folds.r2(without)
            say(f"fastsym: {units.n_hidden} units without decay: held-out R2 {held_out:.4g}")
            return Predicted(units.problem, units.fit.point, None, 0.0, held_out, units)
    path = path_to(folds.even, folds.ridge, SHARES[:best], rng)
    share = float(SHARES[best - 1]) if best else float("inf")
    return Predicted(path.problem, path.point, path.decay, share, folds.r2(errors[best]), units)


def held_small(
    problem: Problem, alpha: float, most: int | None = None, random_state: Any = None
) -> Predicted:
    """Fit with a weight decay that is given.

    Parameters
    ----------
    problem : Problem
        With a linear part, of any n_hidden.
    alpha : float
        Positive, in the unit of the problem's outputs.
    most : int, default=None
        Units at most. None: as many as the decay asks for, 64 at most.
    random_state : None, int, RandomState or Generator
        Of candidate units. None: fixed.

    Returns
    -------
    predicted : Predicted
    """
    even = evened(problem.spread(_MOST_ROWS))
    path = DecayPath(even, ridge_of(even), generator_of(random_state), most or MOST_UNITS)
    share = alpha / path.unit if path.unit > 0 else float("inf")
    for one in [*SHARES[SHARES > share], share]:
        path.lower(float(one))
    return Predicted(path.problem, path.point, path.decay, share, float("nan"), None)


def _deviation(differences: Matrix) -> float:
    """Mean in standard errors."""
    error = differences.std() / np.sqrt(len(differences))
    mean = float(differences.mean())
    return float(mean / error) if error > 0 else float(np.sign(mean)) * np.inf if mean else 0.0


class _Folds:
    """Parts of the samples, each predicted from the others."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self.problem, self.even = problem, evened(problem)
        self.ridge = ridge_of(self.even)
        sample = problem.sample
        order = rng.permutation(sample.n_samples)
        size = sample.n_samples * sample.n_features * sample.n_outputs
        if sample.n_samples >= _MANY or size >= _LARGE:
            self._held_out = [order[::_PART]]
        else:
            parts = _MORE_FOLDS if sample.n_samples < _FEW else _FOLDS
            self._held_out = [order[part::parts] for part in range(parts)]
        self._fitted = [np.setdiff1d(order, rows) for rows in self._held_out]
        self._rng = rng

    def decay_errors(self, say: Say) -> Matrix:
        """Squared errors of each row that is held out, along the path: (n_alphas, n_rows).

        The first ones are those of ridge regression. The path ends where the errors rise.
        """
        paths = [
            DecayPath(part := self.even.taken(rows), self._ridge_of(part), self._rng)
            for rows in self._fitted
        ]
        tests = [self.even.taken(rows) for rows in self._held_out]
        errors = [self._errors(paths, tests)]
        best = 0
        for share in SHARES:
            for path in paths:
                path.lower(share)
            errors.append(self._errors(paths, tests))
            units = [path.n_hidden for path in paths]
            r2 = self.r2(errors[-1])
            say(f"fastsym: decay {share:.3g}: {units} units, held-out R2 {r2:.4g}")
            best = int(np.argmin([one.sum() for one in errors]))
            if len(errors) - 1 - best >= _PATIENCE and len(errors) > _PATIENCE + 2:
                break
        return np.array(errors)

    def _ridge_of(self, part: Problem) -> float:
        return self.ridge * part.sample.weight / self.problem.sample.weight

    def unit_errors(self, n_hidden: int) -> Matrix:
        """Squared errors of units without decay, so many or a few more, shape (n_rows,)."""
        found = []
        for fitted, held_out in zip(self._fitted, self._held_out, strict=True):
            part, most = self.problem.taken(fitted), n_hidden + 4
            freedom = _LEAST_FREEDOM
            units = grown(part, self._rng, most=most, freedom=freedom, again=False)
            found.append(_errors_of(self.problem.taken(held_out), units.fit.point))
        return np.concatenate(found)

    @staticmethod
    def _errors(paths: list[DecayPath], tests: list[Problem]) -> Matrix:
        pairs = zip(paths, tests, strict=True)
        return np.concatenate([_errors_of(test, path.point) for path, test in pairs])

    def r2(self, errors: Matrix) -> float:
        """R2 of the rows that are held out, against the mean of all."""
        constant = self.problem.baselines()[0]
        rows: NDArray[np.intp] = np.concatenate(self._held_out)
        share = len(rows) / self.problem.sample.n_samples
        return float(1 - errors.sum() / (constant * share)) if constant > 0 else float("nan")


def _errors_of(problem: Problem, point: Point) -> Matrix:
    """Squared errors of rows, times their weights."""
    residual = problem.sample.targets - problem.units_at(point.hidden) @ point.outputs.T
    return (residual**2).sum(axis=1)
