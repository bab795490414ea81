"""Which of many starts to believe."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastsym.refine.certificates import (
    AMPLE,
    NOTICEABLE,
    SEVERAL,
    Verdict,
    agreeing,
    judge,
    judge_exact,
    judge_trusted,
    resolution,
)
from fastsym.refine.checks import flaws
from fastsym.refine.lack_of_fit import UNTESTED, LackOfFit, lack_of_fit
from fastsym.refine.minimisation import Fit, lowest_loss
from fastsym.refine.problem import EVALUATIONS, Problem
from fastsym.refine.starts import (
    Start,
    followed_by_others,
    generator_of,
    kicked,
    repaired,
    replaced,
    silenced,
)

MAX_STARTS = 20

_LITTLE = 0.1  # of the resolution: a round that gains less ends them
_COARSE = 0.005  # share of the loss that the weights explain, above which kinks are far apart
_ROUNDS = 3  # of kicks about an optimum, each about what the one before found
_SETTLED = 4  # optima that starts are drawn about, where samples are ample; else the lowest ones

Say = Callable[[str], object]


class SearchResult(NamedTuple):
    """Optima of all starts, and why the lowest is believed.

    Parameters
    ----------
    fits : list of Fit
        One for each start, in order.
    verdict : Verdict
    lows : list of Fit
        The lowest that was found about each of them; itself where nothing was looked for.
    open_signs : float, default=inf
        How far above the lowest the next optimum with other signs of the units is, in variances of
        the noise, if that is near.
    """

    fits: list[Fit]
    verdict: Verdict
    lows: list[Fit]
    open_signs: float = float("inf")

    @property
    def lowest(self) -> Fit:
        """The lowest of all."""
        return lowest_loss(self.lows)

    @property
    def certificate(self) -> str:
        """As in `Refinement`."""
        return self.verdict.certificate

    @property
    def certified(self) -> bool:
        """Whether the lowest is held for the global optimum."""
        return self.certificate != "none"

    def doubted(self, reason: str) -> "SearchResult":
        """Return the same, certified by nothing."""
        verdict = self.verdict._replace(certificate="none", reason=reason)
        return self._replace(verdict=verdict)


def silent(line: str) -> None:
    """Say nothing.

    Parameters
    ----------
    line : str
    """


def search(
    problem: Problem, starts: Iterable[Start], max_starts: int = MAX_STARTS, say: Say = silent
) -> SearchResult:
    """Minimise on the sample from as many starts as certify the lowest loss.

    Where the lowest optimum has doubled or unused units, a repaired start comes before the next.
    Before starts that agree are believed, others are drawn about the lowest optimum: where it is
    one of many, at kinks of the loss or along directions that are hardly determined, these end
    lower.

    Parameters
    ----------
    problem : Problem
    starts : iterable of Start
        At least one; no more of them are taken than are needed.
    max_starts : int, default=20
        Repaired ones included, those about an optimum not.
    say : callable
        Called with a line for each start.

    Returns
    -------
    result : SearchResult
    """
    given = iter(starts)
    repairs: Iterator[Start] = iter(())
    fits: list[Fit] = []
    lows, doubtful = _Lows(problem), None
    verdict = Verdict("none", UNTESTED, "no start was given", final=False)
    max_starts = max(max_starts, 1)
    while len(fits) < max_starts and not verdict.final:
        repair = next(repairs, None)
        start = next(given, None) if repair is None else repair
        if start is None:  # what there is must do
            max_starts = len(fits)
            break
        fit = problem.fit(start.point(problem))
        fits.append(fit)
        # The moments know of nothing beside the units.
        trusted = start.trusted and not len(problem.fixed)
        lows.add(fit)
        say(_line(problem, fits, start))
        best = lows.lowest
        if best.exact:
            verdict = judge_exact(problem, lows.fits, trusted and fit is best)
        elif trusted and fit is best:
            verdict = lows.judged_trusted(fit)
        elif len(fits) < max_starts and lows.worth_a_look(max_starts):
            verdict = lows.judged(max_starts)
        # A flaw that comes back after a repair belongs to the network, or to the samples.
        if fit is best and repair is None and flaws(problem, fit.point):
            repairs = repaired(problem, fit.point)
        elif verdict.lack_of_fit.p_value <= NOTICEABLE and lows.lowest is not doubtful:
            doubtful = lows.lowest
            repairs = replaced(problem, doubtful.point)
    if fits and not verdict.final and not lows.lowest.exact:
        verdict = lows.judged(max_starts)
    return SearchResult(fits, verdict, lows.fits)


class _Lows:
    """The lowest optimum that is found about each start's, looked for when it is asked for."""

    def __init__(self, problem: Problem) -> None:
        self._problem, self._rng = problem, generator_of(None)
        self.fits: list[Fit] = []
        self._settled: set[int] = set()
        self._tested: tuple[Fit, LackOfFit] | None = None  # the lowest that was tested last

    def add(self, fit: Fit) -> None:
        """Add the optimum of a start."""
        self.fits.append(fit)

    @property
    def lowest(self) -> Fit:
        """The lowest of all."""
        return lowest_loss(self.fits)

    def worth_a_look(self, max_starts: int) -> bool:
        """Whether the starts so far may certify something."""
        several = len(self.fits) >= min(SEVERAL, max_starts)
        return several or agreeing(self._problem, self.fits, self.lowest) > 1

    def judged_trusted(self, fit: Fit) -> Verdict:
        """Judge the optimum of a trusted start, settled where kinks are far apart or stopped it."""
        if self._problem.unit > _COARSE or fit.history[-1].damping > 1:
            self._settle_lowest()
        return judge_trusted(self._problem, self.lowest)

    def judged(self, max_starts: int) -> Verdict:
        """Settle the lowest, and, where no other agrees with it, the next: then judge."""
        self._settle_lowest()
        if self._problem.unit > _COARSE and len(self._settled) < 2:
            self._settle_next()
            self._settle_lowest()
        verdict = self._verdict(max_starts)
        if not verdict.final and len(self.fits) >= SEVERAL:
            self._settle_next()
            self._settle_lowest()
            verdict = self._verdict(max_starts)
        return verdict

    def _verdict(self, max_starts: int) -> Verdict:
        if self.lowest.exact:
            return judge_exact(self._problem, self.fits, trusted=False)
        lowest = self.lowest
        if self._tested is None or self._tested[0] is not lowest:
            self._tested = lowest, lack_of_fit(self._problem, lowest.point, lowest.normal)
        return judge(self._problem, self.fits, lowest, self._tested[1], max_starts)

    def _settle_lowest(self) -> None:
        for _ in range(_SETTLED):
            if (one := self._index_of_lowest()) in self._settled:
                break
            self._settle(one)

    def _settle_next(self) -> None:
        """Settle the lowest that is not settled yet, which may reach what others did not."""
        left = [i for i in range(len(self.fits)) if i not in self._settled]
        most = _SETTLED if self._problem.unit <= AMPLE else 2
        if left and len(self._settled) < most:
            self._settle(min(left, key=lambda i: self.fits[i].residuals.loss))

    def _index_of_lowest(self) -> int:
        lowest = self.lowest
        return next(i for i, one in enumerate(self.fits) if one is lowest)

    def _settle(self, one: int) -> None:
        """Replace an optimum by the lowest about it, until starts about that end no lower."""
        self._settled.add(one)
        self.fits[one] = settled(self._problem, self.fits[one], self._rng)


def settled(problem: Problem, fit: Fit, rng: np.random.Generator) -> Fit:
    """Find the lowest optimum about one: draw starts there until they end no lower.

    Parameters
    ----------
    problem : Problem
    fit : Fit
    rng : Generator

    Returns
    -------
    fit : Fit
    """
    best = fit
    for _ in range(_ROUNDS):
        if best.exact or not np.isfinite(best.residuals.loss):
            break
        about = [best]
        for start in kicked(problem, about, rng):
            about.append(problem.fit(start.point(problem), roughly=True))  # noqa: PERF401
        lowest = lowest_loss(about)
        step = best.residuals.loss - lowest.residuals.loss
        if not step > _LITTLE * resolution(problem) * best.residuals.loss:
            # The linearised problem may promise more; neither a step nor a start about it does.
            ended = len(best.history) < EVALUATIONS
            best = best._replace(converged=best.converged or ended)
            break
        best = problem.fit(lowest.point)
    return best


def _line(problem: Problem, fits: list[Fit], start: Start) -> str:
    history = fits[-1].history
    loss = problem.user_loss(fits[-1].residuals) / problem.sample.weight
    return (
        f"fastsym: start {len(fits)}: loss {loss:.6g} after "
        f"{len(history)} evaluations, gradient norm {history[-1].gradient_norm:.2g} ({start.name})"
    )


def search_in_turn(
    problem: Problem,
    starts: Iterable[Start],
    max_starts: int = MAX_STARTS,
    random_state: Any = None,
    say: Say = silent,
) -> SearchResult:
    """Search from one start after the other, with others in between, until one is certified.

    Parameters
    ----------
    problem : Problem
    starts : iterable of Start
        At least one. Each gets a search of its own, in which moment starts and random ones follow
        it; the next is asked for only if that certifies nothing.
    max_starts : int, default=20
        Of each search.
    random_state : None, int, RandomState or Generator
        Of the others. None: fixed.
    say : callable
        Called with a line for each start.

    Returns
    -------
    result : SearchResult
        Of all searches together.
    """
    result = SearchResult([], Verdict("none", UNTESTED, "no start was given"), [])
    for start in starts:
        candidates = followed_by_others(problem, start, random_state)
        found = search(problem, candidates, max_starts, say)
        if result.fits:
            now = found.lowest.residuals.loss
            if result.lowest.residuals.loss < now * (1 - resolution(problem)):
                found = found.doubted("another start ended at a lower loss, but alone")
        fits, lows = [*result.fits, *found.fits], [*result.lows, *found.lows]
        result = SearchResult(fits, found.verdict, lows)
        if result.certificate != "none":
            break
    return result


def no_worse_than_nothing(problem: Problem, found: SearchResult) -> SearchResult:
    """Add a fit that begins with outputs of zero, if all were worse than predicting zero.

    Parameters
    ----------
    problem : Problem
    found : SearchResult

    Returns
    -------
    found : SearchResult
        Certified by nothing if so.
    """
    lowest = found.lowest
    if lowest.residuals.loss <= problem.total:
        return found
    fit = problem.fit(next(silenced(lowest)).point(problem))
    found = found.doubted("all starts ended above the loss of predicting zero")
    return found._replace(fits=[*found.fits, fit], lows=[*found.lows, fit])
