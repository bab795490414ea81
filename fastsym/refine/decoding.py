"""From a fit beside a free linear part to a network without one: signs, and nearly linear units."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from fastsym.refine.coordinates import Point
from fastsym.refine.greedy import without
from fastsym.refine.lack_of_fit import UNTESTED, lack_of_fit
from fastsym.refine.minimisation import Fit
from fastsym.refine.problem import Problem
from fastsym.refine.search import Say, SearchResult, silent
from fastsym.refine.signs import decode_signs

_PATTERNS = 8
_FAR = (60.0, 3.0)  # variances, and these for each weight of L: patterns as far are not tried
_CHANCE = (4.0, 5.0)  # deviations and variances that dropping parts of the model may cost
_TIE = 10.0  # variances: a pattern of signs as near to the best is as likely but for chance
_LINEAR_UNITS = 3  # units at most that are on one side of their kink for nearly all samples
_ENUMERATED = 10  # other units whose signs are tried beside these
_NEAR, _OPTIMA = 0.5, 3  # of what the weights explain by chance: optima whose signs are tried
_COSINE = 0.99  # of the rows of one unit in two optima
_TRIED = 4
_LEAST = 6.0  # times (n_coordinates + n_outputs) variances: a unit that explains less may be chance
_BIASES = (2.5, -2.5, 4.0)  # of these at first, in standard deviations of their projections


class Found(NamedTuple):
    """A problem of some form, and the optima found there."""

    problem: Problem
    result: SearchResult


def costs_chance(smaller: Found, larger: Found) -> bool:
    """Whether the parts that a smaller form lacks explain no more than chance.

    Twice the fall of the log-likelihood is about chi-squared, with a degree of freedom for each
    weight.

    Parameters
    ----------
    smaller, larger : Found
        The optima of one form, and of one with further parts.

    Returns
    -------
    answer : bool
    """
    without, with_them = smaller.result.lowest, larger.result.lowest
    if without.exact or with_them.exact:
        return without.exact
    problem = larger.problem
    fall = (without.residuals.loss - with_them.residuals.loss) / problem.variance(
        with_them.residuals
    )
    extra = problem.n_parameters - smaller.problem.n_parameters
    deviations, more = _CHANCE
    return bool(fall <= extra + deviations * np.sqrt(2 * extra) + more)


def without_linear(problem: Problem, beside: Found, say: Say = silent) -> Found:
    """Decode the signs of units that were fitted beside a linear part, and fit without it.

    Units that are active for nearly all samples, or for nearly none, are lost beside a linear part,
    and others fit chance in their place. Where no signs stand for the linear part, the units that
    do least are left out, and what linear part then remains is given to units with large biases.

    Parameters
    ----------
    problem : Problem
        Without a linear part.
    beside : Found
        With it.
    say : callable
        Called with a line for the best pattern.

    Returns
    -------
    found : Found
        Certified as `beside` is.
    """
    best, k = beside.result.lowest, problem.coordinates.n_free
    unit = beside.problem.variance(best.residuals)
    fits: list[Fit] = []
    for optimum in _near(beside):
        fits = _ordered([*fits, *map(problem.fit, _signed(problem, optimum, unit))])
        found = Found(problem, SearchResult(fits, beside.result.verdict, fits))
        if costs_chance(found, beside):
            break
    if problem.fit_intercept and not fits[0].exact:
        if _fits_chance(beside) or not costs_chance(found, beside):
            fits = _ordered([*fits, *_with_linear_units(problem, beside)])
    lowest = fits[0]
    say(f"fastsym: signs of {k} units: loss {lowest.residuals.loss / problem.sample.weight:.6g}")
    lack = UNTESTED if lowest.exact else lack_of_fit(problem, lowest.point, lowest.normal)
    result = SearchResult(fits, beside.result.verdict._replace(lack_of_fit=lack), fits)
    if len(fits) > 1 and not lowest.exact:
        gap = (fits[1].residuals.loss - lowest.residuals.loss) / unit
        if gap < _TIE and not _same(fits[0], fits[1], k):
            result = result._replace(open_signs=float(gap))
    return Found(problem, result)


def _near(beside: Found) -> list[Fit]:
    """List the lowest optima of different runs: units of the lowest may be chance's."""
    optima = _ordered([*beside.result.lows])
    bound = optima[0].residuals.loss * (1 + _NEAR * beside.problem.unit)
    return [one for one in optima if one.residuals.loss <= bound][:_OPTIMA]


def _ordered(fits: list[Fit]) -> list[Fit]:
    def loss(one: Fit) -> float:
        return one.residuals.loss if np.isfinite(one.residuals.loss) else np.inf

    return sorted(fits, key=loss)


def _same(one: Fit, other: Fit, k: int) -> bool:
    """Whether two optima have the same units, with their signs."""
    cosines = one.point.hidden[:k] @ other.point.hidden[:k].T
    return bool((cosines.max(axis=1) > _COSINE).all())


def _signed(problem: Problem, best: Fit, unit: float) -> Iterator[Point]:
    """Yield the units with the signs whose linear parts come closest to the whole one."""
    k, bias = problem.coordinates.n_free, int(problem.fit_intercept)
    hidden, outputs = best.point.hidden[:k], best.point.outputs
    slope = problem.activation.negative_slope
    linear = outputs[:, k + bias :]
    patterns = decode_signs(outputs[:, :k], hidden[:, bias:], linear, slope, top=_PATTERNS)
    costs = patterns.distances * problem.sample.weight / unit
    far = costs[0] + _FAR[0] + _FAR[1] * problem.n_outputs * problem.whiten.shape[1]
    for signs in patterns.signs[costs <= far]:
        yield problem.regressed(signs[:, None] * hidden)


def _fits_chance(beside: Found) -> bool:
    """Whether a unit explains so little beside the linear part that chance may be all of it."""
    problem, fit = beside.problem, beside.result.lowest
    k, q = problem.coordinates.n_free, problem.coordinates.to_inputs.shape[1]
    assert problem.projection is not None
    least = problem.projection.regress(fit.point.hidden[:k]).saliencies(k).min()
    return bool(least < _LEAST * (q + problem.n_outputs) * problem.variance(fit.residuals))


def _with_linear_units(problem: Problem, beside: Found) -> Iterator[Fit]:
    """Fit units with their signs, and some with large biases for what linear part remains."""
    k, larger, fit = problem.coordinates.n_free, beside.problem, beside.result.lowest
    for n_linear in range(1, min(_LINEAR_UNITS, k, problem.whiten.shape[1]) + 1):
        left = k - n_linear
        smaller = larger.resized(left)
        fit = smaller.fit(smaller.regressed(without(larger.resized(left + 1), fit, left + 1)))
        if left > _ENUMERATED:
            continue
        hidden, outputs = fit.point.hidden[:left], fit.point.outputs
        terms = np.einsum("oi,ia->ioa", outputs[:, :left], hidden[:, 1:])
        terms *= problem.activation.odd_gain
        whole = outputs[:, left + 1 :] + terms.sum(axis=0)
        patterns = np.array(list(product((1.0, -1.0), repeat=left)))
        remainders = whole - np.tensordot(patterns, terms, 1)
        sizes = np.linalg.svd(remainders, compute_uv=False)
        distances = (sizes[:, n_linear:] ** 2).sum(axis=1)
        points = []
        for one in np.argsort(distances, kind="stable")[: _PATTERNS // 2]:
            directions = np.linalg.svd(remainders[one])[2][:n_linear]
            for bias in _BIASES:
                rows = np.insert(directions, 0, bias, axis=1)
                rows = np.concatenate([patterns[one][:, None] * hidden, rows])
                points.append(problem.regressed(rows))
        points.sort(key=lambda point: problem.residuals(point).loss)
        for point in points[:_TRIED]:
            yield problem.fit(point)
