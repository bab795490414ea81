"""Refinement to maximum likelihood: from a start to the least-squares optimum of all samples."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np

from fastsym._validation import (
    check_alpha,
    check_choice,
    check_enough,
    check_n_hidden,
    check_negative_slope,
    check_pair,
)
from fastsym.activation import Activation
from fastsym.engine import Passes, accumulate_residuals, as_passes
from fastsym.engine.gather import check_rereadable, spread_sample
from fastsym.engine.progress import Callback
from fastsym.network import TwoLayerNetwork
from fastsym.refine.coordinates import Point
from fastsym.refine.forms import Choice, Form, search_forms
from fastsym.refine.minimisation import Fit, lowest_loss, minimise
from fastsym.refine.normal import Normal, ScaledNormal
from fastsym.refine.outcome import FRESH, result_of
from fastsym.refine.problem import Problem
from fastsym.refine.result import Refinement
from fastsym.refine.search import (
    MAX_STARTS,
    Say,
    SearchResult,
    no_worse_than_nothing,
    search,
    search_in_turn,
    silent,
)
from fastsym.refine.starts import Start, as_starts, other_starts, silenced
from fastsym.refine.unknown import held_small_as_asked, search_unknown
from fastsym.sources import PairedRows, Source
from fastsym.sums.threads import one_blas_thread
from fastsym.sums.values import Residuals

PASS_TOLERANCE = 5e-3
"""Like `fastsym.refine.problem.TOLERANCE`, for passes over all samples."""


@one_blas_thread()
def refine(
    source: Source,
    start: int | str | TwoLayerNetwork | Start | Iterable[Start],
    *,
    sample: PairedRows | None = None,
    trusted: bool = False,
    fit_intercept: Choice = False,
    linear: Choice = False,
    alpha: float | Literal["auto"] = "auto",
    negative_slope: float | None = None,
    max_starts: int = MAX_STARTS,
    max_passes: int = 4,
    n_jobs: int | None = None,
    random_state: Any = None,
    verbose: int = 0,
    callback: Callback | None = None,
) -> Refinement:
    """Bring a network to the least-squares optimum of a source of samples.

    A sample spread over the source is held in memory; Levenberg-Marquardt brings the start to the
    optimum of the sample, other starts join in when that one is in doubt; then a few passes over
    all samples, with the normal matrix of the sample, bring it to the optimum of all.

    With Gaussian noise of equal variance this is maximum likelihood, and its error meets the
    Cramer-Rao bound.

    Parameters
    ----------
    source : Source
        Samples that can be read more than once.
    start : int, "auto", TwoLayerNetwork, Start or iterable of Start
        The first one's number of hidden units and negative slope stay. Of an iterable, for one a
        generator, the next start is asked for only if nothing certifies those before. An int: the
        number of hidden units, and no start. "auto": neither; units are counted beside a free
        linear part, and where the samples do not determine the weights of a network that predicts
        well, these are held small (`fastsym.refine.prediction`).
    sample : PairedRows, default=None
        Rows of the source to hold in memory, as `spread_sample` gives them. None: drawn anew.
    trusted : bool, default=False
        Whether a network given as the start comes from a clear spectral gap; a `Start` says it
        itself. If so, and its optimum shows no lack of fit, no other start is tried. Otherwise
        starts that agree with the linear part of y, A W, and random ones are tried until something
        certifies the lowest (`fastsym.refine.certificates`), or max_starts are used up.
    fit_intercept : bool or "auto", default=False
        Fit hidden biases b and an output intercept c too. "auto": where an optimum without them is
        not certified, or shows a lack of fit, and they explain more than chance.
    linear : bool or "auto", default=False
        Fit a linear part L x beside the units. "auto": where no signs of the units stand for the
        linear part that the samples show.
    alpha : float or "auto", default="auto"
        Weight decay, as for `fastsym.TwoLayerRegressor`. "auto": none, unless start is "auto" and
        other samples are predicted better with it.
    negative_slope : float, default=None
        Of the units, where start is an int; None: 0.
    max_starts : int, default=20
        For each start that is given, itself included; those about an optimum not. With more than
        one, networks that the moments do not give (with intercepts, more units than features or
        outputs) are searched for beside a free linear part (`fastsym.refine.beside_linear`).
    max_passes : int, default=4
        Passes over all samples at most, and as many again if these end above the loss of predicting
        zero; none is needed if the samples fit in memory (`sample_rows`).
    n_jobs : int, default=None
        Threads at most; None or -1: all that Numba has.
    random_state : None, int, RandomState or Generator
        Of further starts. None: fixed.
    verbose : int, default=0
        1 prints loss, gradient norm and promised decrease of each start and pass.
    callback : callable, default=None
        Called with a `fastsym.engine.Event` after each block of a pass over all samples.

    Returns
    -------
    refinement : Refinement

    Raises
    ------
    TypeError
        If the source cannot be read twice, or start is none of the above.
    ValueError
        If the samples are not finite, do not fit the start, or are no more than its features.

    Warns
    -----
    ConvergenceWarning
        If the optimum was not reached or not certified.
    IdentifiabilityWarning
        If units are parallel or unused, or an exact fit is one of many, so that the weights are not
        determined.
    LackOfFitWarning
        If the residual depends on x: the model does not describe the samples.
    RankDeficientWarning
        If the samples do not show all directions of x, or, where all are in memory, a few rows
        alone show one: weights in these directions are zero.

    References
    ----------
    Marquardt (1963), doi:10.1137/0111030; Golub and Pereyra (1973), doi:10.1137/0710036.
    """
    say: Say = print if verbose else silent
    check_rereadable(source)
    source = as_passes(source, callback)
    starts: Iterator[Start] = iter(())
    if isinstance(start, int | np.integer | str):
        k = check_n_hidden(start) or 1
        shape = source.n_features, k, source.n_outputs
        activation = Activation(check_negative_slope(negative_slope or 0.0))
    else:
        starts = as_starts(start, trusted)
        first, network = _first_of(starts)
        starts, activation = itertools.chain([first], starts), network.activation
        shape = network.n_features, network.n_hidden, network.n_outputs
    if sample is None:
        sample = spread_sample(source, shape[1])
    whole = sample.n_samples >= source.n_samples
    problem_of = _problems_of(sample, shape, activation, n_jobs, whole)
    form = Form(check_choice("fit_intercept", fit_intercept), check_choice("linear", linear))

    def search_from(problem: Problem, given: Iterable[Start], most: int) -> SearchResult:
        most = min(most, max_starts)
        result = search_in_turn(problem, given, most, random_state, say)
        others = other_starts(problem, random_state)
        return result if result.fits else search(problem, others, most, say)

    how: dict[str, Any] = {"random_state": random_state, "say": say}
    unknown = None
    alpha = check_alpha(alpha)
    if alpha != "auto" and alpha > 0:
        most = None if isinstance(start, str) else shape[1]
        unknown = held_small_as_asked(problem_of, form, alpha, most=most, random_state=random_state)
        problem, found = unknown.found
    elif isinstance(start, str):
        free = alpha == "auto"
        unknown = search_unknown(problem_of, form, search_from, decay=free, **how)
        problem, found = unknown.found
    else:
        wide = max_starts > 1
        problem, found = search_forms(problem_of, starts, form, search_from, wide=wide, **how)
    found = no_worse_than_nothing(problem, found)
    n_evaluations, n_passes, fit = sum(len(one.history) for one in found.fits), 0, found.lowest
    if not whole:
        decayed = unknown is not None and unknown.predicted.decay is not None
        everything = _AllSamples(source, problem, fit.normal, n_jobs)
        fit, found = _polished(everything, found, 0 if decayed else max_passes, say)
        n_passes = everything.n_passes
    return result_of(
        problem,
        fit,
        found,
        n_evaluations,
        n_passes=n_passes,
        normal_weight=problem.sample.weight,
        unknown=unknown,
    )


def _polished(
    samples: "_AllSamples", found: SearchResult, max_passes: int, say: Say
) -> tuple[Fit, SearchResult]:
    """Bring the optimum of the samples in memory to that of all."""
    fit, problem = found.lowest, samples.problem
    if not max_passes:
        return fit._replace(residuals=samples.reached(fit.point)[1]), found
    fit = _polish(samples, fit.point, max_passes, say)
    if found.certificate == "exact" and not fit.exact:
        # The sample is without noise, the rest is not.
        found = found.doubted("the samples in memory are without noise, the others are not")
    if not fit.residuals.loss <= samples.total:
        # As far as the sample tells this is worse than predicting zero. Look whether it is.
        again = samples.anew()
        zero = _polish(again, next(silenced(fit)).point(problem), max_passes, say)
        samples.n_passes += again.n_passes
        if lowest_loss([fit, zero]) is zero:
            fit, found = zero, found.doubted("that of the sample is worse than zero")
    return fit, found


def _first_of(starts: Iterator[Start]) -> tuple[Start, TwoLayerNetwork]:
    """Take the first start, which must be a network: it says how many hidden units there are."""
    first = next(starts, None)
    if first is None:
        raise ValueError("start must hold at least one Start, got an iterable without any.")
    if not (isinstance(first, Start) and isinstance(first.network, TwoLayerNetwork)):
        raise TypeError(
            "the first start must be a Start that holds a TwoLayerNetwork, got "
            f"{type(first).__name__}"
            f"{f' with {type(first.network).__name__}' if isinstance(first, Start) else ''}."
        )
    return first, first.network


def _problems_of(
    sample: PairedRows,
    shape: tuple[int, int, int],
    activation: Activation,
    n_jobs: int | None,
    whole: bool,
) -> Callable[[bool], Problem]:
    """Check the samples held in memory; give the problem with intercepts, or without."""
    d, k, m = shape
    X, Y = check_pair(sample.X[:], sample.Y[:], d, m, values=not sample.checked)
    weights = sample.weights
    check_enough(len(X) if weights is None else int((weights > 0).sum()), d)
    return lambda intercept: Problem(X, Y, weights, k, activation, intercept, n_jobs, whole)


class _AllSamples:
    """The problem of all samples: residuals by passes, the normal matrix of those in memory."""

    def __init__(
        self, source: Passes, problem: Problem, normal: Normal | None, n_jobs: int | None
    ) -> None:
        self.source, self.problem, self.coordinates = source, problem, problem.coordinates
        self.share = problem.sample.n_samples / source.n_samples
        self.total = problem.total / self.share
        self.n_passes = 0
        self._normal, self._n_jobs = normal, n_jobs
        self._scale = 1.0

    def anew(self) -> "_AllSamples":
        """Return the same problem, without a normal matrix."""
        return _AllSamples(self.source, self.problem, None, self._n_jobs)

    def reached(self, point: Point) -> tuple[Point, Residuals]:
        """Return the point, and loss and gradient there: a pass."""
        self.n_passes += 1
        total = accumulate_residuals(
            self.source,
            self.coordinates.weights(point),
            point.outputs,
            self.problem.activation,
            n_free=self.coordinates.n_free,
            n_jobs=self._n_jobs,
            check=self.n_passes == 1,
            units=self.problem.units,
        )
        self._scale = total.weight / self.problem.sample.weight
        return point, total

    def normal(self, point: Point) -> Normal:
        """Give the fit's normal matrix until the weights have turned, then that of the sample."""
        normal = self._normal
        if normal is None or not np.abs(point.hidden - normal.point.hidden).max() < FRESH:
            normal = self.problem.normal(point)
        return ScaledNormal(normal, self._scale)


def _polish(samples: _AllSamples, point: Point, max_passes: int, say: Say) -> Fit:
    """Go over all samples, from the optimum of those in memory."""
    return minimise(
        samples,
        point,
        tolerance=PASS_TOLERANCE * samples.problem.unit * samples.share,
        max_evaluations=max_passes,
        damping=0.0,
        last_step=True,
        report=lambda one: say(
            f"fastsym: pass {samples.n_passes} over {samples.source.n_samples} samples: "
            f"loss {one.loss:.6g}, gradient norm {one.gradient_norm:.2g}, promised decrease "
            f"{one.decrement:.2g}"
        ),
    )
