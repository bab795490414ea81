"""Refinement to maximum likelihood: from a start to the least-squares optimum of all samples."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastsym._validation import check_enough, check_pair
from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.engine import Passes, accumulate_residuals, as_passes
from fastsym.engine.gather import check_rereadable, spread_sample
from fastsym.engine.progress import Callback
from fastsym.exceptions import ConvergenceWarning, IdentifiabilityWarning, warn
from fastsym.network import TwoLayerNetwork
from fastsym.refine.checks import angle_errors, flaws, parallel
from fastsym.refine.coordinates import Coordinates, Point
from fastsym.refine.minimisation import Evaluation, Fit, lowest_loss, minimise
from fastsym.refine.normal import DENSE_PARAMETERS, DenseNormal, Normal, ScaledNormal
from fastsym.refine.problem import Problem
from fastsym.refine.search import (
    MAX_STARTS,
    Say,
    SearchResult,
    no_worse_than_nothing,
    search_in_turn,
    settle,
    silent,
)
from fastsym.refine.standard_errors import standard_errors
from fastsym.refine.starts import Start, as_starts, silenced
from fastsym.sources import PairedRows, Source
from fastsym.sums.threads import one_blas_thread
from fastsym.sums.values import Residuals

PASS_TOLERANCE = 5e-3
"""Like `fastsym.refine.problem.TOLERANCE`, for passes over all samples."""

_FRESH = 0.02  # radians that units may have turned since the normal matrix was taken


@dataclass(frozen=True, eq=False)
class Refinement:
    """A refined network and how sure it is.

    Parameters
    ----------
    network : TwoLayerNetwork
        Rows of W (with their biases) of unit length.
    loss : float
        Mean over all samples of the squared norm of the residual. After a last step that was not
        evaluated, that of the last pass less what the linearised problem promised.
    n_samples : int
    n_passes : int
        Passes over all samples; 0 if they were all in memory.
    n_evaluations : int
        Evaluations on the samples in memory, of all starts.
    converged : bool
        Whether the optimum was reached within the tolerance and is certified.
    certificate : str
        Why it is held for the global optimum: "exact" (only rounding is left), "spectral" (a
        clear spectral start and no lack of fit), "agreement" (two starts ended at the same lowest
        loss; four if there is a lack of fit), "no lack of fit" (lowest of at least four starts,
        the residual like noise), or "none".
    misfit : float
        Lack of fit: dependence of the residual on x, in standard deviations
        (`fastsym.refine.checks.lack_of_fit`).
    start_losses : list of float
        Loss of each start on the samples in memory, in order.
    noise_covariance : ndarray of shape (n_outputs, n_outputs)
        Of the residual, corrected for the number of fitted weights.
    decrement : float
        Relative decrease of the loss that the linearised problem still promises.
    history : list of Evaluation
        Of the passes over all samples, or on the samples in memory if these are all.
    """

    network: TwoLayerNetwork
    loss: float
    n_samples: int
    n_passes: int
    n_evaluations: int
    converged: bool
    certificate: str
    misfit: float
    start_losses: list[float]
    noise_covariance: Matrix
    decrement: float
    history: list[Evaluation]
    _normal: Normal | None = field(repr=False)
    _coordinates: Coordinates = field(repr=False)
    _scale: float = field(repr=False)  # weight of all samples over that of the normal matrix

    def standard_errors(self) -> tuple[Matrix, Matrix]:
        """Return the standard errors of the weights.

        Gauge: rows of W, with their biases if there are any, of unit length. The covariance is the
        inverse Gauss-Newton (Fisher information) matrix, with the scores' covariance under
        `noise_covariance` in between, so that it holds for outputs of unequal noise too.

        Returns
        -------
        hidden_stderr : ndarray of shape (n_hidden, n_features), or (n_hidden, 1 + n_features)
            With intercepts, the first column belongs to the biases.
        output_stderr : ndarray of shape (n_outputs, n_hidden), or (n_outputs, n_hidden + 1)
            With intercepts, the last column belongs to the output intercept.

        Raises
        ------
        ValueError
            If there are more than 4096 hidden weights, for which no normal matrix is formed, or the
            samples do not determine the weights.
        """
        if not isinstance(self._normal, DenseNormal):
            raise ValueError(
                "standard errors need the normal matrix, which is formed for at most "
                f"{DENSE_PARAMETERS} hidden weights, and finite; this network has "
                f"{self.network.hidden_weights.size} and a loss of {self.loss:.3g}."
            )
        try:
            return standard_errors(
                self._normal, self._coordinates, self.noise_covariance, self._scale
            )
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"there are no standard errors: the normal matrix cannot be inverted ({error}), "
                "the samples do not determine the weights; use a smaller n_hidden."
            ) from None


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
        starts that agree with the linear part of y, A W, are tried until two (four, where the
        residual depends on x) agree on the lowest loss within a hundredth of what the weights
        explain by chance, or the lowest of four shows no lack of fit, or max_starts are used up.
    fit_intercept : bool, default=False
        Fit hidden biases and an output intercept too. They begin at those of the start. The method
        of moments does not know of them, so that nothing is promised when they are large: the
        optimum found is certified only if its residual shows no lack of fit.
    max_starts : int, default=20
        For each start that is given, itself included.
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
        If units are parallel or unused, so that their weights are not determined.

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
    problem = _problem_of(sample, network, fit_intercept, n_jobs)
    found = search_in_turn(problem, itertools.chain([first], starts), max_starts, random_state, say)
    found = no_worse_than_nothing(problem, found)
    fit = lowest_loss(found.fits)
    near = settle(problem, fit, random_state)
    fit = lowest_loss([fit, *near])
    n_evaluations = sum(len(one.history) for one in [*found.fits, *near])
    whole = sample.n_samples >= source.n_samples
    n_passes = 0
    if not whole:
        everything = _AllSamples(source, problem, fit.normal, n_jobs)
        fit = _polish(everything, fit.point, max_passes, say)
        n_passes = everything.n_passes
        if found.certificate == "exact" and not fit.exact:
            # The sample is without noise, the rest is not.
            found = found._replace(certificate="none")
        if not fit.residuals.loss <= everything.total:
            # As far as the sample tells this is worse than predicting zero. Look whether it is.
            everything = _AllSamples(source, problem, None, n_jobs)
            zero = _polish(everything, next(silenced(fit)).point(problem), max_passes, say)
            n_passes += everything.n_passes
            if lowest_loss([fit, zero]) is zero:
                fit, found = zero, found._replace(certificate="none")
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
    sample: PairedRows, network: TwoLayerNetwork, fit_intercept: bool, n_jobs: int | None
) -> Problem:
    """Check the samples held in memory, and put them into white coordinates."""
    X, Y = check_pair(
        sample.X[:], sample.Y[:], network.n_features, network.n_outputs, values=not sample.checked
    )
    weights = sample.weights
    if weights is None:
        check_enough(len(X), network.n_features)
    else:
        check_enough(int((weights > 0).sum()), network.n_features, weights.sum())
    activation = Activation(network.negative_slope)
    return Problem(X, Y, weights, network.n_hidden, activation, fit_intercept, n_jobs)


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
        )
        self._scale = total.weight / self.problem.sample.weight
        return total

    def normal(self, point: Point) -> Normal:
        """Give the fit's normal matrix until the weights have turned, then that of the sample."""
        normal = self._normal
        if normal is None or not np.abs(point.hidden - normal.point.hidden).max() < _FRESH:
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


def result_of(
    problem: Problem,
    fit: Fit,
    found: SearchResult,
    n_evaluations: int,
    *,
    n_passes: int,
    normal_weight: float,
) -> Refinement:
    """Put together what a refinement has found, and warn of what is wrong with it.

    Parameters
    ----------
    problem : Problem
    fit : Fit
        Of all samples.
    found : SearchResult
        Of the samples in memory.
    n_evaluations : int
    n_passes : int
    normal_weight : float
        Weight of the samples that the fit's normal matrix was summed over.

    Returns
    -------
    refinement : Refinement

    Raises
    ------
    ValueError
        If the residuals overflow.
    """
    residuals, coordinates = fit.residuals, problem.coordinates
    if not np.isfinite(residuals.residual_moment).all():
        raise ValueError(
            "the squared residuals of the samples overflow: some values of Y, or of X, are too far "
            "from those that the fit began with; rescale or remove these rows."
        )
    normal: Normal | None = fit.normal
    if isinstance(normal, ScaledNormal):
        normal = normal.normal
    if not isinstance(normal, DenseNormal):
        normal = None
    elif np.abs(fit.point.hidden - normal.point.hidden).max() > _FRESH:
        try:
            normal, normal_weight = problem.normal(fit.point), problem.sample.weight
        except np.linalg.LinAlgError:
            normal = None
    freedom = residuals.weight - problem.n_parameters / problem.n_outputs
    noise = residuals.residual_moment / residuals.weight
    decrement = fit.promised
    if decrement is None:
        decrement = next(one.decrement for one in reversed(fit.history) if one.accepted)
    result = Refinement(
        network=problem.network(fit.point),
        loss=residuals.loss / residuals.weight,
        n_samples=residuals.n_samples,
        n_passes=n_passes,
        n_evaluations=n_evaluations,
        converged=fit.converged and found.certificate != "none",
        certificate=found.certificate,
        misfit=found.misfit,
        start_losses=[one.residuals.loss / problem.sample.weight for one in found.fits],
        noise_covariance=noise * residuals.weight / max(freedom, 1.0),
        decrement=decrement,
        history=fit.history,
        _normal=normal,
        _coordinates=coordinates,
        _scale=residuals.weight / normal_weight,
    )
    _warn_of(problem, fit, result)
    return result


def _warn_of(problem: Problem, fit: Fit, result: Refinement) -> None:
    hidden_errors, output_errors = angle_errors(problem, fit.point, fit.residuals)
    found = flaws(problem, fit.point, hidden_errors)
    if found:
        dead = [i for i, j in found if i == j]
        alike = [pair for pair in found if pair[0] != pair[1]]
        parts = []
        if alike:
            parts.append(
                f"hidden units whose rows of W are parallel, within three standard errors: {alike}"
            )
        if dead:
            parts.append(f"hidden units that do nothing beyond the noise: {dead}")
        warn(
            f"the network is not identifiable from these samples, its weights are one choice of "
            f"many: {'; '.join(parts)}; use a smaller n_hidden than {result.network.n_hidden}",
            IdentifiabilityWarning,
        )
    units = [i for i in range(problem.coordinates.n_free) if (i, i) not in found]
    columns = fit.point.outputs[:, units].T
    if problem.n_outputs > 1 and (alike := parallel(columns, output_errors[units])):
        pairs = [(units[i], units[j]) for i, j in alike]
        warn(
            f"columns of A of the hidden units {pairs} are parallel, within three standard errors: "
            "the method of moments cannot tell these units apart, and the fit rests on the "
            "refinement alone",
            IdentifiabilityWarning,
        )
    if not fit.converged:
        warn(
            f"refinement stopped after {len(fit.history)} evaluations at loss {result.loss:.4g}; "
            f"the linearised problem still promises a relative decrease of {result.decrement:.2g}",
            ConvergenceWarning,
        )
    elif result.certificate == "none":
        lowest = sorted(result.start_losses)[:2]
        warn(
            f"the optimum is not certified: {len(result.start_losses)} starts gave lowest losses "
            f"{', '.join(f'{loss:.6g}' for loss in lowest)} (lack of "
            f"fit {result.misfit:.1f} standard deviations): the samples are few or noisy for these "
            "weights, or n_hidden is not theirs",
            ConvergenceWarning,
        )
