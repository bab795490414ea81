"""Which of many starts to believe."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastsym.refine.checks import MISFIT, flaws, lack_of_fit
from fastsym.refine.minimisation import Fit, lowest_loss
from fastsym.refine.problem import Problem
from fastsym.refine.starts import (
    Start,
    followed_by_moment_starts,
    generator_of,
    kicked,
    repaired,
    silenced,
)

MAX_STARTS = 20

_AGREEMENT = 0.01  # of the loss that the weights explain by chance
_SEVERAL = 4  # starts
_COARSE = 0.015  # share of the loss that the weights explain, above which kinks are far apart

Say = Callable[[str], object]


class SearchResult(NamedTuple):
    """Optima of all starts, and why the lowest is believed.

    Parameters
    ----------
    fits : list of Fit
        One for each start, in order.
    certificate : str
        As in `Refinement`.
    misfit : float
        Lack of fit of the lowest; 0 if it is exact.
    """

    fits: list[Fit]
    certificate: str
    misfit: float


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

    Parameters
    ----------
    problem : Problem
    starts : iterable of Start
        At least one; no more of them are taken than are needed.
    max_starts : int, default=20
        Repaired ones included.
    say : callable
        Called with a line for each start.

    Returns
    -------
    result : SearchResult
    """
    given = iter(starts)
    repairs: Iterator[Start] = iter(())
    fits: list[Fit] = []
    result = SearchResult(fits, "none", 0.0)
    for _ in range(max(max_starts, 1)):
        repair = next(repairs, None)
        start = next(given, None) if repair is None else repair
        if start is None:  # what there is must do
            return _judged(problem, fits, len(fits))
        fit = problem.fit(start.point(problem))
        fits.append(fit)
        say(_line(problem, fits, start))
        best = lowest_loss(fits)
        if best.exact:
            return SearchResult(fits, "exact", 0.0)
        found = flaws(problem, fit.point)
        if start.trusted and fit is best and fit.converged and not found:
            misfit = lack_of_fit(problem, fit.point)
            if misfit < MISFIT:
                return SearchResult(fits, "spectral", misfit)
        result = _judged(problem, fits, max_starts)
        if result.certificate != "none":
            return result
        # A flaw that comes back after a repair belongs to the network, or to the samples.
        mend = found and fit is best and repair is None
        repairs = repaired(problem, fit.point) if mend else iter(())
    return result


def _judged(problem: Problem, fits: list[Fit], max_starts: int) -> SearchResult:
    """Compare the starts so far."""
    best = lowest_loss(fits)
    lowest = best.residuals.loss
    agreeing = sum(
        one.residuals.loss - lowest <= _AGREEMENT * problem.unit * lowest for one in fits
    )
    if agreeing <= 1 and len(fits) < min(_SEVERAL, max_starts):
        return SearchResult(fits, "none", 0.0)
    misfit = lack_of_fit(problem, best.point)
    # With a lack of fit the model is wrong, or the starts are all in one wrong valley, of which
    # there are many where biases are free.
    needed = 2 if misfit < MISFIT else _SEVERAL
    if agreeing >= needed and not (problem.fit_intercept and misfit >= MISFIT):
        return SearchResult(fits, "agreement", misfit)
    if len(fits) >= _SEVERAL and misfit < MISFIT:
        return SearchResult(fits, "no lack of fit", misfit)
    return SearchResult(fits, "none", misfit)


def _line(problem: Problem, fits: list[Fit], start: Start) -> str:
    history, loss = fits[-1].history, fits[-1].residuals.loss
    return (
        f"fastsym: start {len(fits)}: loss {loss / problem.sample.weight:.6g} after "
        f"{len(history)} evaluations, gradient norm {history[-1].gradient_norm:.2g} ({start.name})"
    )


def search_in_turn(
    problem: Problem,
    starts: Iterable[Start],
    max_starts: int = MAX_STARTS,
    random_state: Any = None,
    say: Say = silent,
) -> SearchResult:
    """Search from one start after the other, with moment starts in between, until one is certified.

    Parameters
    ----------
    problem : Problem
    starts : iterable of Start
        At least one. Each gets a search of its own, in which moment starts follow it; the next is
        asked for only if that certifies nothing.
    max_starts : int, default=20
        Of each search.
    random_state : None, int, RandomState or Generator
        Of the moment starts. None: fixed.
    say : callable
        Called with a line for each start.

    Returns
    -------
    result : SearchResult
        Of all searches together.
    """
    result = SearchResult([], "none", 0.0)
    for start in starts:
        before = result.fits
        candidates = followed_by_moment_starts(problem, start, random_state)
        fits, certificate, misfit = search(problem, candidates, max_starts, say)
        if before and lowest_loss(before).residuals.loss < lowest_loss(fits).residuals.loss:
            certificate = "none"  # it speaks for an optimum that is not the lowest
        result = SearchResult([*before, *fits], certificate, misfit)
        if certificate != "none":
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
    lowest = lowest_loss(found.fits)
    if lowest.residuals.loss <= problem.total:
        return found
    fit = problem.fit(next(silenced(lowest)).point(problem))
    return SearchResult([*found.fits, fit], "none", found.misfit)


def settle(problem: Problem, fit: Fit, random_state: Any = None) -> list[Fit]:
    """Minimise again from near an optimum, where few samples make the loss rough.

    With few samples for each weight the kinks of the loss, one where a sample changes sides of a
    unit, are as far apart as the standard errors, and each may hold a minimum. Units are moved by
    two to eight standard errors at random, and the lowest loss is kept.

    Parameters
    ----------
    problem : Problem
    fit : Fit
    random_state : None, int, RandomState or Generator

    Returns
    -------
    fits : list of Fit
        Empty if the fit is exact or the samples are many.
    """
    if fit.exact or problem.unit < _COARSE or not np.isfinite(fit.residuals.loss):
        return []
    fits = [fit]
    for start in kicked(problem, fits, generator_of(random_state)):
        fits.append(problem.fit(start.point(problem)))  # noqa: PERF401 (starts follow the fits)
    return fits[1:]
