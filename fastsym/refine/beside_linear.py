"""The search beside a free linear part: greedy and random starts, units added and dropped.

In y = c + L x + A h(W x + b) with c and L free, the sign of a unit does not matter, which most bad
optima without them come from. What is left of these is found by adding a unit where the residual
bends most and dropping the one that is needed least. The lowest optimum is believed where one unit
more gains no more than it does of noise, and an independent run ended at the same loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsym.algebra import Matrix
from fastsym.refine.certificates import AMPLE, NOTICEABLE, Verdict, judge_exact
from fastsym.refine.greedy import (
    Effort,
    best_rows,
    greedy_start,
    random_start,
    residual_of,
    rows_for_scores,
    without,
)
from fastsym.refine.lack_of_fit import UNTESTED, LackOfFit, lack_of_fit
from fastsym.refine.minimisation import Fit, lowest_loss, minimise
from fastsym.refine.problem import Problem
from fastsym.refine.search import Say, SearchResult, silent
from fastsym.refine.starts import generator_of, kicked

RUNS = 5
"""Independent runs at most."""

_ROUNDS, _FAILURES = 12, 3  # of adding and dropping units, in each run
_FIRST, _STEPS = 14, 10  # evaluations of a start, and after a unit comes or goes
_ROUGH = 1e-2  # what these leave, of what the weights explain by chance
_LOWER = 2.0  # sigma^2 by which a loss must fall to count
_GAIN = 4.0  # times (n_coordinates + n_outputs) sigma^2: the most that a unit gains of noise
_SAME = 0.1  # of what the weights explain by chance: optima as close are one
_MANY = 4  # times the rows for scores, near optima
_ALIKE = 0.2  # the same, of the squared difference of the predictions
_CLOSE, _NEAR = 0.05, 1.0  # the same: where the loss is not rough; where roughness keeps them apart
_MOST_WORK = 6e11  # multiplications for normal matrices, after which a search ends
_IDLE = 4  # kicks in a row that find nothing lower
_EFFORT = Effort(nearby=200)
_HOPE = 3.0  # times the promised decrease may come at most


@dataclass(eq=False)
class _Run:
    """Where a run is; by how much a unit more lowered the loss there, in sigma^2."""

    name: str
    fit: Fit
    gain: float = np.inf
    failures: int = 0
    rounds: int = 0
    wide: Fit | None = None  # with a unit more
    kicked: bool = False
    residual: tuple[Fit, Matrix] | None = None

    @property
    def loss(self) -> float:
        return self.fit.residuals.loss

    @property
    def ended(self) -> bool:
        return self.fit.exact or self.failures >= _FAILURES or self.rounds >= _ROUNDS


def search_beside_linear(
    problem: Problem,
    random_state: Any = None,
    say: Say = silent,
    *,
    given: Sequence[Fit] = (),
    max_runs: int = RUNS,
) -> SearchResult:
    """Search for the global optimum with the linear part free.

    Parameters
    ----------
    problem : Problem
        With a linear part (`Problem.with_linear`); n_hidden of 0 is allowed.
    random_state : None, int, RandomState or Generator
        None: fixed.
    say : callable
        Called with a line for each run.
    given : sequence of Fit
        Ends of runs that were made before.
    max_runs : int, default=5
        Those included.

    Returns
    -------
    result : SearchResult
        A fit for each run; signs of units are arbitrary.

    Raises
    ------
    ValueError
        If the problem has no linear part.
    """
    if not problem.linear:
        raise ValueError(
            "the search beside a linear part needs a problem that has one; use with_linear()."
        )
    if not problem.coordinates.n_free:
        fit = problem.fit(problem.regressed(np.empty((0, problem.fixed.shape[1]))))
        lack = lack_of_fit(problem, fit.point)
        return SearchResult([fit], Verdict("exact" if fit.exact else "agreement", lack), [fit])
    search = _Search(problem, generator_of(random_state))
    search.runs = [_Run("given", fit) for fit in given]
    for one in range(len(given), max(max_runs, 1)):
        search.start("random" if (one - len(given)) % 2 else "greedy")
        if one or search.exhausted or search.lowest.fit.exact:
            search.settle()
        say(search.line())
        last = one == max_runs - 1 or search.exhausted
        if search.judged(last).final or last:
            break
    fits = [run.fit for run in search.runs]
    return SearchResult(fits, search.verdict, fits)


class _Search:
    """The runs so far, and what is said of the lowest."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self.problem, self._rng = problem, rng
        self._many = problem.spread(_MANY * rows_for_scores(problem))
        self.runs: list[_Run] = []
        self.verdict = Verdict("none", UNTESTED, "no run was made", final=False)
        self._needed = 2 if problem.unit <= AMPLE else 3
        self._tested: tuple[Fit, LackOfFit] | None = None
        self._work = 0.0
        q = problem.coordinates.to_inputs.shape[1]
        self._most = _GAIN * (q + problem.n_outputs)

    @property
    def lowest(self) -> _Run:
        """The run that is lowest."""
        best = lowest_loss([run.fit for run in self.runs])
        return next(run for run in self.runs if run.fit is best)

    @property
    def exhausted(self) -> bool:
        """Whether the search has taken as much time as it may."""
        return self._work > _MOST_WORK

    def _counted(self, fit: Fit) -> Fit:
        """Count the multiplications of a minimisation: normal matrices, formed and factored."""
        k, q = len(fit.point.hidden) - len(self.problem.fixed), fit.point.hidden.shape[1]
        each = self.problem.sample.n_samples * (k * q) ** 2 / 2 + (k * q) ** 3 / 3
        self._work += len(fit.history) * each
        return fit

    def start(self, name: str) -> None:
        """Begin a run."""
        draw = greedy_start if name == "greedy" else random_start
        hidden = draw(self.problem, self._rng)
        self.runs.append(_Run(name, self._stepped(hidden, _FIRST)))

    def _excess(self, run: _Run) -> float:
        """Loss above the lowest, of what the weights explain by chance."""
        lowest = self.lowest.loss
        return (run.loss - lowest) / (lowest * self.problem.unit) if lowest > 0 else 0.0

    def _agreeing(self) -> list[_Run]:
        """List the runs that ended at the lowest loss, and predict the same.

        Where the loss is rough, optima far apart come as low by chance.
        """
        lowest = self.lowest
        chance = self.problem.unit * lowest.loss
        return [
            run
            for run in self.runs
            if run.loss - lowest.loss <= _SAME * chance
            and (
                run is lowest
                or _apart(self._residual(run), self._residual(lowest)) <= _ALIKE * chance
            )
        ]

    def _residual(self, run: _Run) -> Matrix:
        if run.residual is None or run.residual[0] is not run.fit:
            run.residual = run.fit, residual_of(self.problem, run.fit)
        return run.residual[1]

    def settle(self) -> None:
        """Improve the runs until enough of them agree, or none gets lower."""
        for _ in range(RUNS * (_ROUNDS + 1)):
            lowest = self.lowest
            if lowest.fit.exact or self.exhausted:
                break
            near = self._agreeing()
            agreed, smooth = len(near) >= self._needed, self._smoothly_agreed()
            left = [run for run in self.runs if not (run.ended or run in near)]
            close = [run for run in self.runs if self._excess(run) <= _NEAR and not run.kicked]
            if left and not agreed:
                self._improve(left[-1])
            elif not (lowest.ended or (agreed and np.isfinite(lowest.gain))):
                self._improve(lowest)
            elif close and not smooth:
                self._kick(lowest if lowest in close else close[0])
            else:
                break
        if not self.lowest.fit.exact:
            fit = self.problem.fit(self.lowest.fit.point, roughly=self.exhausted)
            self.lowest.fit = self._counted(fit)

    def _kick(self, run: _Run) -> None:
        """Look for lower optima about a run's, where the loss is rough, until it agrees."""
        about, idle = [run.fit], 0
        run.kicked = True
        for start in kicked(self.problem, about, self._rng):
            fit = self.problem.fit(start.point(self.problem), roughly=True)
            about.append(self._counted(fit))
            lowest = lowest_loss(about)
            idle += 1
            if run.loss - lowest.residuals.loss > _LOWER * self.problem.variance(run.fit.residuals):
                run.fit, idle = lowest, 0
            if idle == _IDLE or self.exhausted or (idle == 0 and self._smoothly_agreed()):
                break

    def _smoothly_agreed(self) -> bool:
        near = self._agreeing()
        return len(near) >= self._needed and all(self._excess(run) <= _CLOSE for run in near)

    def _improve(self, run: _Run) -> None:
        """Add a unit where the residual bends most, and drop the one that is needed least.

        The new one may be that where the optimum is good; so one of the others goes. Where the loss
        gets no lower, the next of them is tried, and in the end two at once.
        """
        run.rounds += 1
        k = self.problem.coordinates.n_free
        if run.wide is None:
            run.wide = self._with_more(run.fit)
            fall = run.loss - run.wide.residuals.loss
            run.gain = max(fall, 0.0) / self.problem.resized(k + 1).variance(run.wide.residuals)
        if run.failures < _FAILURES - 1:
            fit = self._with_less(run.wide, keep=k, rank=run.failures)
        else:
            fit = self._with_less(self._with_more(run.wide), keep=k)
            fit = self._with_less(fit, keep=k + 1)
        hope = _HOPE * fit.history[-1].decrement * fit.residuals.loss
        lower = run.loss - _LOWER * self.problem.variance(run.fit.residuals)
        if not fit.exact and fit.residuals.loss - hope < lower:
            fit = self._counted(self.problem.fit(fit.point, roughly=True))
        if fit.residuals.loss < lower:
            run.fit, run.failures, run.gain, run.wide = fit, 0, np.inf, None
        else:
            run.failures += 1

    def _with_more(self, fit: Fit) -> Fit:
        hidden = fit.point.hidden[: len(fit.point.hidden) - len(self.problem.fixed)]
        rows = best_rows(self._many.resized(len(hidden)), hidden, 1, self._rng, _EFFORT)
        return self._stepped(np.concatenate([hidden, rows]), _STEPS)

    def _with_less(self, fit: Fit, keep: int, rank: int = 0) -> Fit:
        return self._stepped(without(self.problem, fit, keep, rank), _STEPS)

    def _stepped(self, hidden: Matrix, steps: int) -> Fit:
        problem = self.problem.resized(len(hidden))
        fit = minimise(
            problem,
            problem.regressed(hidden),
            tolerance=_ROUGH * problem.unit,
            max_evaluations=steps,
        )
        return self._counted(fit)

    def _lack(self) -> LackOfFit:
        fit = self.lowest.fit
        if self._tested is None or self._tested[0] is not fit:
            self._tested = fit, lack_of_fit(self.problem, fit.point, fit.normal)
        return self._tested[1]

    def judged(self, last: bool) -> Verdict:
        """Judge the lowest; last: whether there will be no other run."""
        problem, run, agreeing = self.problem, self.lowest, len(self._agreeing())
        if run.fit.exact:
            self.verdict = judge_exact(problem, [one.fit for one in self.runs], trusted=False)
            return self.verdict
        lack = UNTESTED
        if last or (agreeing >= self._needed and run.gain < self._most):
            lack = self._lack()
        if lack.p_value <= NOTICEABLE:
            self._needed = max(self._needed, 3)
        reason = ""
        if problem.unit >= 1:
            reason = (
                f"the samples do not determine the weights: {problem.n_parameters} of these, "
                f"{problem.sample.n_effective:.6g} samples of {problem.n_outputs} outputs"
            )
        elif problem.n_distinct * problem.n_outputs <= problem.n_parameters:
            reason = (
                f"{problem.n_distinct} different rows of X with {problem.n_outputs} outputs do not "
                f"determine {problem.n_parameters} weights"
            )
        elif lack.significant:
            reason = (
                f"the residual depends on x (p = {lack.p_value:.2g}): the model is wrong, or the "
                "optimum is not found"
            )
        elif not run.gain < self._most:
            reason = (
                f"one unit more lowers the loss by {run.gain:.3g} times the variance of the noise, "
                f"of which at most {self._most:.3g} would be chance: a unit is missing, or the "
                "optimum is not found"
            )
        elif agreeing < self._needed:
            reason = (
                f"of {len(self.runs)} independent runs {agreeing} ended at the lowest loss, "
                f"{self._needed} are needed"
            )
        if reason and self.exhausted:
            reason += "; the search ended early, for its time"
        certificate = "none" if reason else "agreement"
        final = not reason or problem.unit >= 1
        self.verdict = Verdict(certificate, lack, reason, final)
        return self.verdict

    def line(self) -> str:
        """Say how the last run ended."""
        run = self.runs[-1]
        loss = self.problem.user_loss(run.fit.residuals) / self.problem.sample.weight
        return (
            f"fastsym: run {len(self.runs)}: loss {loss:.6g} after {run.rounds} rounds of adding "
            f"and dropping units ({run.name})"
        )


def _apart(one: Matrix, other: Matrix) -> float:
    """Sum of squared differences of predictions, from residuals."""
    return float(((one - other) ** 2).sum())
