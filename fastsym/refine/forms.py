"""Which parts the model has beside A h(W x): biases and a constant, a linear part; and its search.

With a linear part L x free, the sign of a unit does not matter, h(-t) = h(t) - (1 + a) t, and most
wrong optima are gone: networks that the moments do not give are searched for so. The signs are
decoded afterwards, and L is dropped where that costs no more than chance.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from fastsym.refine.beside_linear import search_beside_linear
from fastsym.refine.certificates import NOTICEABLE, Verdict, resolution
from fastsym.refine.decoding import Found, costs_chance, without_linear
from fastsym.refine.greedy import best_rows
from fastsym.refine.lack_of_fit import UNTESTED, lack_of_fit
from fastsym.refine.minimisation import Fit, lowest_loss
from fastsym.refine.problem import Problem
from fastsym.refine.search import (
    MAX_STARTS,
    Say,
    SearchResult,
    settled,
    silent,
)
from fastsym.refine.starts import Start, generator_of

Choice = bool | Literal["auto"]
GivenSearch = Callable[[Problem, Iterable[Start], int], SearchResult]

_HOPELESS = 1e-6  # p-value of the lack of fit from which no other start is tried in a form
FEW_STARTS = 4
"""Starts that are tried where a search beside a linear part may follow."""

_REGROWN = 2  # times that some units are dropped and others grow
_AGAIN = 3  # searches beside a linear part, where the signs show a lower optimum


class Form(NamedTuple):
    """Parts of the model beside A h(W x).

    Parameters
    ----------
    intercept : bool or "auto"
        Biases b and a constant c; "auto": where the samples ask for them.
    linear : bool or "auto"
        A linear part L x; "auto": where no signs of the units stand for it.
    """

    intercept: Choice = False
    linear: Choice = False

    def moments_know(self, n_hidden: int, n_features: int, n_outputs: int) -> bool:
        """Whether the method of moments gives networks of this form and size."""
        small = 1 <= n_hidden <= min(n_features, n_outputs)
        return small and self.intercept is not True and self.linear is not True


PLAIN = Form()
"""The model of the paper."""


def search_forms(
    problem_of: Callable[[bool], Problem],
    starts: Iterable[Start],
    form: Form,
    given_search: GivenSearch,
    *,
    wide: bool = True,
    beside: Found | None = None,
    random_state: Any = None,
    say: Say = silent,
) -> Found:
    """Search in the form that is asked for, or in the smallest that describes the samples.

    What the moments know comes first. Where that is not certified, or does not describe the
    samples, units are searched for in the largest form, beside a free linear part, and parts that
    explain no more than chance are dropped.

    Parameters
    ----------
    problem_of : callable
        Gives the problem with intercepts, or without.
    starts : iterable of Start
        Each is asked for only if nothing certifies those before. May be empty.
    form : Form
    given_search : callable
        Searches from starts, and others, so many at most, where the moments know of the networks.
    wide : bool, default=True
        Whether to search beside a linear part; if not, there is one form, the smallest asked for.
    beside : Found, default=None
        What was found beside a linear part. None: that is searched for.
    random_state : None, int, RandomState or Generator
        Of the starts of that. None: fixed.
    say : callable
        Called with a line for each start.

    Returns
    -------
    found : Found
    """
    smallest = problem_of(form.intercept is True).with_linear(form.linear is True)
    given = _Kept(starts)
    k, rank = smallest.coordinates.n_free, smallest.whiten.shape[1]
    known = form.moments_know(k, rank, smallest.n_outputs)
    alone = None
    if (known and beside is None) or not wide:
        alone = Found(smallest, _given(smallest, given, form, given_search, wide))
        enough = suffices(alone.result) or (form == PLAIN and alone.result.certified)
        if enough or not wide:
            return alone
    elif fits := [smallest.fit(one.point(smallest)) for one in given]:
        alone = Found(smallest, SearchResult(fits, _UNJUDGED, fits))
    largest = smallest if beside is None else beside.problem
    if beside is None and form.intercept == "auto" and problem_of(True).with_linear().unit < 1:
        largest = problem_of(True)
    largest = largest.with_linear()
    if known and alone is not None and (largest.unit >= 1 or not largest.is_dense):
        return alone
    rng = generator_of(random_state)
    if beside is None:
        beside = Found(largest, search_beside_linear(largest, rng, say))
        beside = _regrown(beside, rng, say)
    found = _smallest_form(problem_of, form, beside, alone, say)
    for _ in range(_AGAIN):
        lower = _lower_beside(beside, found)
        if lower is None:
            break
        beside = _confirmed(beside, lower, rng, say)
        found = _smallest_form(problem_of, form, beside, alone, say)
    found = _settled(found, rng)
    if known and not found.result.certified and found.problem.n_parameters == smallest.n_parameters:
        # No larger form is better: it is worth more starts.
        again = Found(smallest, given_search(smallest, given.so_far, MAX_STARTS))
        found = _joined(found, again)
    return found


def _regrown(beside: Found, rng: np.random.Generator, say: Say) -> Found:
    """Drop some units of a certified optimum and let others grow, to see if one is lower nearby.

    Where units are more than features, or their kinks near the margin of the samples, there are
    optima of nearly the same loss.
    """
    problem, result = beside.problem, beside.result
    k, q = problem.coordinates.n_free, problem.coordinates.to_inputs.shape[1]
    if not result.certified or result.lowest.exact or k < 2:
        return beside
    best, n_dropped = result.lowest, max(2, k // 4)
    for _ in range(_REGROWN if k < q else 2 * _REGROWN):
        kept = np.sort(rng.permutation(k)[: k - min(n_dropped, k)])
        rows = best.point.hidden[kept]
        while len(rows) < k:
            more = best_rows(problem.resized(len(rows)), rows, 1, rng)[:1]
            part = problem.resized(len(rows) + 1)
            fit = part.fit(part.regressed(np.concatenate([rows, more])), roughly=True)
            rows = fit.point.hidden[: len(rows) + 1]
        if fit.residuals.loss < best.residuals.loss:
            best = problem.fit(fit.point)
    if best is not result.lowest:
        ratio = best.residuals.loss / result.lowest.residuals.loss
        say(f"fastsym: units grown anew: the loss is {ratio:.6g} times as high")
        result = result._replace(lows=[*result.lows, best])
    return beside._replace(result=result)


def _settled(found: Found, rng: np.random.Generator) -> Found:
    """Look about the lowest optimum, which may be one of many at kinks of the loss."""
    result = found.result
    fit = settled(found.problem, result.lowest, rng)
    if fit.residuals.loss < result.lowest.residuals.loss:
        result = result._replace(lows=[*result.lows, fit])
    return found._replace(result=result)


def _lower_beside(beside: Found, found: Found) -> Fit | None:
    """Fit with all parts from units that were fitted without some: None if that is no lower.

    With the signs fixed the way to the optimum is another.
    """
    best, problem = beside.result.lowest, beside.problem
    if best.exact or (costs_chance(found, beside) and not _is_lower(found, beside)):
        return None
    k = problem.coordinates.n_free
    weights = found.problem.coordinates.weights(found.result.lowest.point)[:k]
    fit = problem.fit(problem.regressed(weights @ problem.coordinates.from_inputs.T))
    bound = best.residuals.loss * (1 - resolution(problem))
    return fit if fit.exact or fit.residuals.loss < bound else None


def _is_lower(found: Found, beside: Found) -> bool:
    return found.result.lowest.residuals.loss < beside.result.lowest.residuals.loss


def _confirmed(beside: Found, lower: Fit, rng: np.random.Generator, say: Say) -> Found:
    """Search again, where a certified optimum was not the lowest: that must end at the same."""
    problem = beside.problem
    ratio = lower.residuals.loss / beside.result.lowest.residuals.loss
    say(f"fastsym: from an optimum without the linear part the loss is {ratio:.6g} times as high")
    again = search_beside_linear(problem, rng, say)
    fits = [*beside.result.fits, lower, *again.fits]
    result = SearchResult(fits, again.verdict, [*beside.result.lows, lower, *again.lows])
    if again.lowest.residuals.loss > result.lowest.residuals.loss * (1 + resolution(problem)):
        result = result.doubted("an optimum without the linear part led to a lower loss, alone")
    return Found(problem, result)


def _given(
    problem: Problem, given: "_Kept", form: Form, given_search: GivenSearch, wide: bool
) -> SearchResult:
    """Search from the starts given: from few of them if larger forms may follow."""
    if form == PLAIN or not wide:
        return given_search(problem, given, MAX_STARTS)
    first = given_search(problem, given, 1)
    if first.certified or first.verdict.lack_of_fit.p_value < _HOPELESS:
        return first
    return given_search(problem, given.so_far, FEW_STARTS)


_UNJUDGED = Verdict("none", UNTESTED, "another start ended at a lower loss, but alone")


def _smallest_form(
    problem_of: Callable[[bool], Problem],
    form: Form,
    beside: Found,
    alone: Found | None,
    say: Say,
) -> Found:
    """Drop what explains no more than chance from the optimum of the largest form.

    alone is an optimum of the smallest form, if there is one.
    """
    forms: list[Found] = []
    for intercept in (False, True):
        if form.intercept not in (intercept, "auto"):
            continue
        with_linear = beside
        if intercept != beside.problem.fit_intercept:
            if intercept:  # more weights than observations
                continue
            with_linear = without_biases(problem_of(False).with_linear(), beside)
        if form.linear is not True:
            forms.append(without_linear(problem_of(intercept), with_linear, say))
        if form.linear is not False:
            forms.append(with_linear)
    if alone is not None:
        same = [one.problem.n_parameters == alone.problem.n_parameters for one in forms]
        forms[same.index(True)] = _joined(alone, forms[same.index(True)])
    forms.sort(key=lambda one: one.problem.n_parameters)
    accepted = (one for one in forms if costs_chance(one, beside))
    found = next(accepted, forms[-1])
    if not costs_chance(found, beside):
        reason = "no signs of the units stand for the linear part that the samples show"
        found = found._replace(result=found.result.doubted(reason))
    say(f"fastsym: biases: {found.problem.fit_intercept}, linear part: {found.problem.linear}")
    return found


def without_biases(problem: Problem, found: Found) -> Found:
    """Fit without biases from units that were fitted with them.

    Parameters
    ----------
    problem : Problem
        Without intercepts.
    found : Found
        With them.

    Returns
    -------
    found : Found
        Certified as before.
    """
    best = found.result.lowest
    weights = found.problem.coordinates.weights(best.point)[: problem.coordinates.n_free].copy()
    weights[:, 0] = 0
    fit = problem.fit(problem.regressed(weights @ problem.coordinates.from_inputs.T))
    lack = UNTESTED if fit.exact else lack_of_fit(problem, fit.point, fit.normal)
    verdict = found.result.verdict._replace(lack_of_fit=lack)
    return Found(problem, SearchResult([fit], verdict, [fit]))


class _Kept:
    """Starts that are asked for one by one, and those so far."""

    def __init__(self, starts: Iterable[Start]) -> None:
        self._starts, self.so_far = iter(starts), list[Start]()

    def __iter__(self) -> Iterator[Start]:
        for start in self._starts:
            self.so_far.append(start)
            yield start


def suffices(result: SearchResult) -> bool:
    """Whether a certified optimum describes the samples.

    Parameters
    ----------
    result : SearchResult

    Returns
    -------
    answer : bool
    """
    return result.certified and result.verdict.lack_of_fit.p_value > NOTICEABLE


def _joined(one: Found | None, other: Found) -> Found:
    """Put together the optima of two searches in one form; the lower one's verdict holds."""
    if one is None:
        return other
    lower = lowest_loss([other.result.lowest, one.result.lowest])
    # One that is as low but for rounding is the same optimum, and its verdict that of a search.
    bound = lower.residuals.loss * (1 + resolution(other.problem))
    found = other.result.lowest
    same = found.exact if lower.exact else found.residuals.loss <= bound
    result = other.result if same else one.result
    fits = [*one.result.fits, *other.result.fits]
    return other._replace(
        result=result._replace(fits=fits, lows=[*one.result.lows, *other.result.lows])
    )
