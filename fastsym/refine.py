"""Refinement to maximum likelihood: from a start to the least-squares optimum of all samples.

`refine` reads top to bottom as the method: a sample spread over the source is held in memory;
Levenberg-Marquardt brings the start to the optimum of the sample, other starts join in when that
one is in doubt; then a few passes over all samples, with the normal matrix of the sample, bring it
to the optimum of all.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fastsym._validation import as_generator, check_pair
from fastsym.engine import accumulate_residuals, as_passes, sample_of
from fastsym.exceptions import ConvergenceWarning, IdentifiabilityWarning
from fastsym.gauss_newton import (
    DENSE_PARAMETERS,
    Coordinates,
    DenseNormal,
    Evaluation,
    Fit,
    Normal,
    Point,
    ScaledNormal,
    minimise,
)
from fastsym.network import TwoLayerNetwork
from fastsym.problem import Problem, lowest_loss, parallel, search, settle
from fastsym.progress import Callback
from fastsym.residuals import Residuals
from fastsym.sources import PairedRows, Source, is_source
from fastsym.staging import one_blas_thread

Matrix = NDArray[np.float64]

SAMPLE_ROWS = 16384
"""Samples held in memory at least, if there are so many."""

SAMPLE_BYTES = 256 << 20

PASS_TOLERANCE = 5e-3
"""Like `fastsym.problem.TOLERANCE`, for passes over all samples."""

_ROWS_PER_SQUARE = 16
_SAMPLE_SHARE = 100
_FRESH = 0.02  # radians that units may have turned since the normal matrix was taken


def sample_rows(n_samples: int | None, n_features: int, n_hidden: int, n_outputs: int) -> int:
    """Count the samples to hold in memory, all if they are at most twice as many.

    At least 16 384 and 16 n_hidden^2 and a hundredth of all, at most 256 MB. The final error does
    not depend on it but through the number of passes: see docs/method.md.

    Parameters
    ----------
    n_samples : int or None
        None: of a stream, whose length is not known.
    n_features, n_hidden, n_outputs : int

    Returns
    -------
    n_rows : int
    """
    columns = n_features + n_outputs
    wanted = max(
        SAMPLE_ROWS,
        _ROWS_PER_SQUARE * n_hidden**2,
        8 * columns,
        (n_samples or 0) // _SAMPLE_SHARE,
    )
    wanted = min(wanted, max(SAMPLE_BYTES // (8 * (1 + columns)), 8 * columns))
    return wanted if n_samples is None or n_samples > 2 * wanted else n_samples


def check_rereadable(source: Any) -> None:
    """Raise TypeError, naming the one-pass mode, if a source cannot be read more than once.

    Parameters
    ----------
    source : object

    Raises
    ------
    TypeError
        If it is not a `fastsym.sources.Source`, or one of a generator.
    """
    if not is_source(source) or getattr(source, "read_once", False):
        raise TypeError(
            f"source must be readable more than once (see fastsym.sources), got "
            f"{type(source).__name__}; for a stream that can be read only once use the one-pass "
            "mode, TwoLayerRegressor(refine=True).partial_fit."
        )


def spread_sample(source: Source, n_hidden: int) -> PairedRows:
    """Read the samples that refinement holds in memory, spread evenly over the source.

    Parameters
    ----------
    source : Source
    n_hidden : int

    Returns
    -------
    sample : PairedRows
        `sample_rows` of them.

    Raises
    ------
    TypeError
        If the source cannot be read twice.
    ValueError
        If one of these samples is not finite; rows are numbered within the source.
    """
    check_rereadable(source)
    rows = sample_rows(source.n_samples, source.n_features, n_hidden, source.n_outputs)
    return PairedRows(*sample_of(source, rows))


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
        Lack of fit: dependence of the residual on x, in standard deviations (`Problem.misfit`).
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
            return _standard_errors(
                self._normal, self._coordinates, self.noise_covariance, self._scale
            )
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"there are no standard errors: the normal matrix cannot be inverted ({error}), "
                "the samples do not determine the weights; use a smaller n_hidden."
            ) from None


def moment_start(
    sample: PairedRows, n_hidden: int, *, negative_slope: float = 0.0, random_state: Any = None
) -> TwoLayerNetwork:
    """Draw a network that agrees with the linear part of y, for samples without a spectral start.

    Parameters
    ----------
    sample : PairedRows
    n_hidden : int
    negative_slope : float, default=0.0
    random_state : None, int, RandomState or Generator
        None: fixed.

    Returns
    -------
    network : TwoLayerNetwork
        A = U S^1/2 Q, W = Q^T S^1/2 V^T, with the best approximation A W = U S V^T of rank
        n_hidden in white coordinates and Q random orthogonal.
    """
    X, Y = check_pair(sample.X[:], sample.Y[:])
    problem = Problem(X, Y, sample.weights, n_hidden, negative_slope, False, None)
    rng = as_generator(0 if random_state is None else random_state)
    return problem.network(next(problem.moment_starts(rng)))


@one_blas_thread()
def refine(
    source: Source,
    start: TwoLayerNetwork,
    *,
    sample: PairedRows | None = None,
    trusted: bool = False,
    second_start: Callable[[], TwoLayerNetwork | None] | None = None,
    fit_intercept: bool = False,
    max_starts: int = 20,
    max_passes: int = 4,
    n_jobs: int | None = None,
    random_state: Any = None,
    verbose: int = 0,
    callback: Callback | None = None,
) -> Refinement:
    """Bring a network to the least-squares optimum of a source of samples.

    With Gaussian noise of equal variance this is maximum likelihood, and its error meets the
    Cramer-Rao bound.

    Parameters
    ----------
    source : Source
        Samples that can be read more than once.
    start : TwoLayerNetwork
        Its number of hidden units and negative slope stay.
    sample : PairedRows, default=None
        Rows of the source to hold in memory, as `spread_sample` gives them. None: drawn anew.
    trusted : bool, default=False
        Whether the start comes from a clear spectral gap. If so, and its optimum shows no lack of
        fit, no other start is tried. Otherwise starts that agree with the linear part of y, A W,
        are tried until two (four, where the residual depends on x) agree on the lowest loss within
        a hundredth of what the weights explain by chance, or the lowest of four shows no lack of
        fit, or max_starts are used up.
    second_start : callable, default=None
        Asked for another network when nothing certifies the first; None if there is none.
    fit_intercept : bool, default=False
        Fit hidden biases and an output intercept too. They begin at those of the start. The method
        of moments does not know of them, so that nothing is promised when they are large: the
        optimum found is certified only if its residual shows no lack of fit.
    max_starts : int, default=20
    max_passes : int, default=4
        Passes over all samples at most; none is needed if the samples fit in memory
        (`sample_rows`).
    n_jobs : int, default=None
        Threads at most; None or -1: all that Numba has.
    random_state : None, int, RandomState or Generator
        Of further starts. None: fixed.
    verbose : int, default=0
        1 prints loss, gradient norm and promised decrease of each start and pass.
    callback : callable, default=None
        Called with a `fastsym.progress.Event` after each block of a pass over all samples.

    Returns
    -------
    refinement : Refinement

    Raises
    ------
    TypeError
        If the source cannot be read twice.
    ValueError
        If the samples are not finite, do not fit the start, or are fewer than its features.

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
    say: Callable[[str], object] = print if verbose else lambda _: None
    check_rereadable(source)
    source = as_passes(source, callback)
    if sample is None:
        sample = spread_sample(source, start.n_hidden)
    X, Y = check_pair(sample.X[:], sample.Y[:], start.n_features, start.n_outputs)
    problem = Problem(
        X, Y, sample.weights, start.n_hidden, start.negative_slope, fit_intercept, n_jobs
    )
    how = max_starts, random_state, say
    fits, certificate, misfit = search(problem, problem.point(start), trusted, *how)
    if certificate == "none" and second_start is not None:
        other = second_start()
        if other is not None:
            more, certificate, misfit = search(problem, problem.point(other), trusted, *how)
            lowest = min(one.residuals.loss for one in more)
            if min(one.residuals.loss for one in fits) < lowest:
                certificate = "none"  # it speaks for an optimum that is not the lowest
            fits += more
    fit = lowest_loss(fits)
    if not fit.residuals.loss <= problem.total:
        # No start was of use. With outputs of zero its units are at least no worse than nothing.
        zero = fit.point._replace(outputs=np.zeros_like(fit.point.outputs))
        fits.append(fit := problem.fit(zero))
        certificate = "none"
    near = settle(problem, fit, random_state)
    fit = lowest_loss([fit, *near])
    n_evaluations = sum(len(one.history) for one in [*fits, *near])
    whole = sample.n_samples >= source.n_samples
    if not whole:
        fit = _polish(source, problem, fit, max_passes, n_jobs, say)
        if certificate == "exact" and not fit.exact:
            certificate = "none"  # the sample is without noise, the rest is not
    return result_of(
        problem,
        fit,
        fits,
        certificate,
        misfit,
        n_evaluations,
        n_passes=0 if whole else len(fit.history),
        normal_weight=problem.sample.weight,
    )


def _polish(
    source: Source,
    problem: Problem,
    fit: Fit,
    max_passes: int,
    n_jobs: int | None,
    say: Callable[[str], object],
) -> Fit:
    """Go over all samples with the normal matrix of the sample."""
    coordinates, scale = problem.coordinates, 1.0
    passes = 0

    def evaluate(point: Point) -> Residuals:
        nonlocal scale, passes
        passes += 1
        total = accumulate_residuals(
            source,
            coordinates.weights(point),
            point.outputs,
            problem.slope,
            n_jobs=n_jobs,
            check=passes == 1,
        )
        scale = total.weight / problem.sample.weight
        return total

    def normal_at(point: Point) -> Normal:
        # The fit's own normal matrix serves until the weights have turned.
        own = fit.normal
        if own is None or not np.abs(point.hidden - own.point.hidden).max() < _FRESH:
            own = problem.normal(point)
        return ScaledNormal(own, scale)

    share = problem.sample.n_samples / source.n_samples
    return minimise(
        fit.point,
        coordinates,
        evaluate,
        normal_at,
        total=problem.total / share,
        tolerance=PASS_TOLERANCE * problem.unit * share,
        max_evaluations=max_passes,
        damping=0.0,
        last_step=True,
        report=lambda one: say(
            f"fastsym: pass {passes} over {source.n_samples} samples: loss {one.loss:.6g}, "
            f"gradient norm {one.gradient_norm:.2g}, promised decrease {one.decrement:.2g}"
        ),
    )


def result_of(
    problem: Problem,
    fit: Fit,
    fits: list[Fit],
    certificate: str,
    misfit: float,
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
    fits : list of Fit
        Of the samples in memory, one for each start.
    certificate : str
    misfit : float
    n_evaluations : int
    n_passes : int
    normal_weight : float
        Weight of the samples that the fit's normal matrix was summed over.

    Returns
    -------
    refinement : Refinement
    """
    residuals, coordinates = fit.residuals, problem.coordinates
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
        converged=fit.converged and certificate != "none",
        certificate=certificate,
        misfit=misfit,
        start_losses=[one.residuals.loss / problem.sample.weight for one in fits],
        noise_covariance=noise * residuals.weight / max(freedom, 1.0),
        decrement=decrement,
        history=fit.history,
        _normal=normal,
        _coordinates=coordinates,
        _scale=residuals.weight / normal_weight,
    )
    _warn(problem, fit, result)
    return result


def _warn(problem: Problem, fit: Fit, result: Refinement) -> None:
    hidden_errors, output_errors = problem.angle_errors(fit.point, fit.residuals)
    flaws = problem.flaws(fit.point, hidden_errors)
    if flaws:
        dead = [i for i, j in flaws if i == j]
        alike = [pair for pair in flaws if pair[0] != pair[1]]
        parts = []
        if alike:
            parts.append(
                f"hidden units whose rows of W are parallel, within three standard errors: {alike}"
            )
        if dead:
            parts.append(f"hidden units that do nothing beyond the noise: {dead}")
        warnings.warn(
            f"the network is not identifiable from these samples, its weights are one choice of "
            f"many: {'; '.join(parts)}; use a smaller n_hidden than {result.network.n_hidden}",
            IdentifiabilityWarning,
            stacklevel=6,
        )
    units = [i for i in range(problem.coordinates.n_free) if (i, i) not in flaws]
    columns = fit.point.outputs[:, units].T
    if problem.n_outputs > 1 and (alike := parallel(columns, output_errors[units])):
        pairs = [(units[i], units[j]) for i, j in alike]
        warnings.warn(
            f"columns of A of the hidden units {pairs} are parallel, within three standard errors: "
            "the method of moments cannot tell these units apart, and the fit rests on the "
            "refinement alone",
            IdentifiabilityWarning,
            stacklevel=6,
        )
    if not fit.converged:
        warnings.warn(
            f"refinement stopped after {len(fit.history)} evaluations at loss {result.loss:.4g}; "
            f"the linearised problem still promises a relative decrease of {result.decrement:.2g}",
            ConvergenceWarning,
            stacklevel=6,
        )
    elif result.certificate == "none":
        lowest = sorted(result.start_losses)[:2]
        warnings.warn(
            f"the optimum is not certified: {len(result.start_losses)} starts gave lowest losses "
            f"{', '.join(f'{loss:.6g}' for loss in lowest)} (lack of "
            f"fit {result.misfit:.1f} standard deviations): the samples are few or noisy for these "
            "weights, or n_hidden is not theirs",
            ConvergenceWarning,
            stacklevel=6,
        )


def _standard_errors(
    normal: DenseNormal, coordinates: Coordinates, noise: Matrix, scale: float
) -> tuple[Matrix, Matrix]:
    """Delta method from white coordinates to unit rows of (bias, w)."""
    k, q = normal.k, normal.q
    T, A = coordinates.to_inputs, normal.outputs
    K = A.shape[1]
    covariance = normal.covariance(noise) / scale
    weights = normal.point.hidden[:k] @ T.T
    length = np.linalg.norm(weights, axis=1)
    length = np.where(length > 0, length, 1)
    units = weights / length[:, None]
    blocks = covariance.reshape(k, q, k, q)
    hidden = np.empty((k, len(T)))
    for i in range(k):
        turn = (np.eye(len(T)) - np.outer(units[i], units[i])) @ T / length[i]
        hidden[i] = np.einsum("xa,ab,xb->x", turn, blocks[i, :, i, :], turn)
    gram_inverse = linalg.cho_solve((normal.gram_factor, False), np.eye(K)) / scale
    # dA_o = E^-1 (scores of A_o - sum_i A_oi V_i dw_i); A in the unit gauge is A_i |w_i|
    response = linalg.cho_solve(
        (normal.gram_factor, False), normal.coupling.transpose(1, 0, 2).reshape(K, k * q)
    )
    full_length = np.ones(K)
    full_length[:k] = length
    output = np.empty((len(A), K))
    for o in range(len(A)):
        change = -response * np.repeat(A[o, :k], q) * full_length[:, None]
        for i in range(k):
            change[i, i * q : (i + 1) * q] += A[o, i] * (units[i] @ T)
        output[o] = np.einsum("ja,ab,jb->j", change, covariance, change, optimize=True)
        output[o] += noise[o, o] * np.diag(gram_inverse) * full_length**2
    bias = 0 if np.any(T[0]) else 1
    return np.sqrt(np.maximum(hidden[:, bias:], 0)), np.sqrt(np.maximum(output, 0))
