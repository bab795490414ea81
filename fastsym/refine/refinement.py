"""Refinement to maximum likelihood: from a start to the least-squares optimum of all samples."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastsym._validation import check_enough, check_pair
from fastsym.activation import Activation
from fastsym.engine import Passes, accumulate_residuals, as_passes
from fastsym.engine.gather import check_rereadable, spread_sample
from fastsym.engine.progress import Callback
from fastsym.network import TwoLayerNetwork
from fastsym.refine.coordinates import Point
from fastsym.refine.minimisation import Fit, lowest_loss, minimise
from fastsym.refine.normal import Normal, ScaledNormal
from fastsym.refine.outcome import FRESH, result_of
from fastsym.refine.problem import Problem
from fastsym.refine.result import Refinement
from fastsym.refine.search import (
    MAX_STARTS,
    Say,
    no_worse_than_nothing,
    search_in_turn,
    silent,
)
from fastsym.refine.starts import Start, as_starts, silenced
from fastsym.sources import PairedRows, Source
from fastsym.sums.threads import one_blas_thread
from fastsym.sums.values import Residuals

PASS_TOLERANCE = 5e-3
"""Like `fastsym.refine.problem.TOLERANCE`, for passes over all samples."""


@one_blas_thread()
def refine(
    source: Source,
    start: TwoLayerNetwork | Start | Iterable[Start],
    *,
    sample: PairedRows | None = None,
    trusted: bool = False,
    fit_intercept: bool = False,
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
    start : TwoLayerNetwork, Start or iterable of Start
        The first one's number of hidden units and negative slope stay. Of an iterable, for one a
        generator, the next start is asked for only if nothing certifies those before.
    sample : PairedRows, default=None
        Rows of the source to hold in memory, as `spread_sample` gives them. None: drawn anew.
    trusted : bool, default=False
        Whether a network given as the start comes from a clear spectral gap; a `Start` says it
        itself. If so, and its optimum shows no lack of fit, no other start is tried. Otherwise
        starts that agree with the linear part of y, A W, and random ones are tried until something
        certifies the lowest (`fastsym.refine.certificates`), or max_starts are used up.
    fit_intercept : bool, default=False
        Fit hidden biases and an output intercept too. They begin at those of the start. The method
        of moments does not know of them, so that nothing is promised when they are large: the
        optimum found is certified only if its residual shows no lack of fit.
    max_starts : int, default=20
        For each start that is given, itself included; those about an optimum not.
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
    starts = as_starts(start, trusted)
    first, network = _first_of(starts)
    if sample is None:
        sample = spread_sample(source, network.n_hidden)
    whole = sample.n_samples >= source.n_samples
    problem = _problem_of(sample, network, fit_intercept, n_jobs, whole)
    found = search_in_turn(problem, itertools.chain([first], starts), max_starts, random_state, say)
    found = no_worse_than_nothing(problem, found)
    fit = found.lowest
    n_evaluations = sum(len(one.history) for one in found.fits)
    n_passes = 0
    if not whole:
        everything = _AllSamples(source, problem, fit.normal, n_jobs)
        fit = _polish(everything, fit.point, max_passes, say)
        n_passes = everything.n_passes
        if found.certificate == "exact" and not fit.exact:
            # The sample is without noise, the rest is not.
            found = found.doubted("the samples in memory are without noise, the others are not")
        if not fit.residuals.loss <= everything.total:
            # As far as the sample tells this is worse than predicting zero. Look whether it is.
            everything = _AllSamples(source, problem, None, n_jobs)
            zero = _polish(everything, next(silenced(fit)).point(problem), max_passes, say)
            n_passes += everything.n_passes
            if lowest_loss([fit, zero]) is zero:
                fit, found = (
                    zero,
                    found.doubted("that of the sample is worse than zero"),
                )
    return result_of(
        problem,
        fit,
        found,
        n_evaluations,
        n_passes=n_passes,
        normal_weight=problem.sample.weight,
    )


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


def _problem_of(
    sample: PairedRows,
    network: TwoLayerNetwork,
    fit_intercept: bool,
    n_jobs: int | None,
    whole: bool,
) -> Problem:
    """Check the samples held in memory, and put them into white coordinates."""
    X, Y = check_pair(
        sample.X[:], sample.Y[:], network.n_features, network.n_outputs, values=not sample.checked
    )
    weights = sample.weights
    check_enough(len(X) if weights is None else int((weights > 0).sum()), network.n_features)
    activation = Activation(network.negative_slope)
    return Problem(X, Y, weights, network.n_hidden, activation, fit_intercept, n_jobs, whole)


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

    def residuals(self, point: Point) -> Residuals:
        """Loss and gradient at a point: a pass."""
        self.n_passes += 1
        total = accumulate_residuals(
            self.source,
            self.coordinates.weights(point),
            point.outputs,
            self.problem.activation,
            n_jobs=self._n_jobs,
            check=self.n_passes == 1,
            units=self.problem.units,
        )
        self._scale = total.weight / self.problem.sample.weight
        return total

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
