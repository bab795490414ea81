"""What is said of an optimum: the result of a refinement, put together, and its warnings."""

from dataclasses import replace

import numpy as np

from fastsym.algebra import Matrix, absolute_cosines
from fastsym.exceptions import (
    ConvergenceWarning,
    IdentifiabilityWarning,
    LackOfFitWarning,
    warn,
)
from fastsym.refine.checks import angle_errors, flaws, parallel
from fastsym.refine.minimisation import Evaluation, Fit
from fastsym.refine.normal import DenseNormal, Normal, ScaledNormal
from fastsym.refine.problem import Problem
from fastsym.refine.result import Refinement
from fastsym.refine.search import SearchResult
from fastsym.refine.standard_errors import StandardErrors
from fastsym.refine.unknown import Unknown, output_unit
from fastsym.sums.support import warn_of_rank
from fastsym.sums.units import LARGEST_MEAN_SQUARE, Units, check_weight
from fastsym.sums.values import Residuals

_MUCH_WORSE = -5.0  # R2 against a linear predictor, from which its loss is less than a sixth
_NEAR = 0.95  # cosine of two units whose errors are worked out together

FRESH = 0.02
"""Radians that units may have turned since the normal matrix was taken."""

_CAUSES = {
    "linear": "mostly a linear part, as of a linear term beside the network",
    "constant": "an even part that does not grow as |x|, as of a constant, of biases or of squares",
    "bends": "bends |v.x|, as of more units than n_hidden",
}


def result_of(
    problem: Problem,
    fit: Fit,
    found: SearchResult,
    n_evaluations: int,
    *,
    n_passes: int,
    normal_weight: float,
    unknown: Unknown | None = None,
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
    unknown : Unknown, default=None
        Where the number of units was not given.

    Returns
    -------
    refinement : Refinement

    Raises
    ------
    ValueError
        If the residuals overflow.
    """
    residuals = fit.residuals
    check_sizes(residuals, problem.units)
    normal, normal_weight = _normal_near(problem, fit, normal_weight)
    decay = None if unknown is None else unknown.predicted.decay
    n_effective = problem.effective(residuals)
    freedom = n_effective - problem.n_parameters / problem.n_outputs
    noise = residuals.residual_moment / residuals.weight * (n_effective / max(freedom, 1.0))
    decrement = fit.promised
    if decrement is None:
        accepted = (one.decrement for one in reversed(fit.history) if one.accepted)
        decrement = next(accepted, float("nan"))
    in_memory, lack = found.lowest.residuals.loss, found.verdict.lack_of_fit
    constant, linear = (
        1 - in_memory / one if one > 0 else float("-inf") for one in problem.baselines()
    )
    if lack.significant and linear < _MUCH_WORSE:
        # The fit has bent to what it cannot follow, and its residual shows anything.
        lack = lack._replace(cause="linear", explained=1 - 1 / (1 - linear))
    weights = residuals.n_samples, normal_weight
    result = Refinement(
        network=problem.network(fit.point),
        loss=problem.user_loss(residuals) / residuals.weight,
        n_samples=residuals.n_samples,
        n_passes=n_passes,
        n_evaluations=n_evaluations,
        converged=fit.converged and found.certificate != "none",
        certificate=found.certificate,
        reason=found.verdict.reason,
        lack_of_fit=lack,
        r2=constant,
        r2_linear=linear,
        start_losses=[
            problem.user_loss(one.residuals) / problem.sample.weight for one in found.fits
        ],
        noise_covariance=noise if problem.units is None else problem.units.covariance(noise),
        decrement=decrement,
        history=_user_history(fit, problem.units),
        fit_intercept=problem.fit_intercept,
        linear=problem.linear,
        alpha=0.0 if decay is None else float(decay.alpha) * output_unit(problem),
        held_out_r2=float("nan") if unknown is None else unknown.predicted.held_out,
        n_hidden_path=() if unknown is None else unknown.path,
        _errors=StandardErrors(problem, fit.point, normal, noise, *weights, decay is not None),
    )
    warn_of_rank(problem.input_moment, problem.whiten)
    if decay is not None:
        if np.isfinite(result.held_out_r2):  # it was not asked for
            _warn_of_decay(result)
        return result
    if problem.coordinates.n_free:
        _warn_of_units(problem, fit, result, normal, noise * (normal_weight / n_effective))
    _warn_of_optimum(fit, result)
    _warn_of_signs(found)
    _warn_of_fit(problem, result)
    return result


def _normal_near(
    problem: Problem, fit: Fit, normal_weight: float
) -> tuple[DenseNormal | None, float]:
    """Return the normal matrix near a fit, taken anew if units have turned, and its weight."""
    normal: Normal | None = fit.normal
    if isinstance(normal, ScaledNormal):
        normal = normal.normal
    if isinstance(normal, DenseNormal):
        if np.abs(fit.point.hidden - normal.point.hidden).max(initial=0) <= FRESH:
            return normal, normal_weight
        try:
            normal, normal_weight = problem.normal(fit.point), problem.sample.weight
        except np.linalg.LinAlgError:
            normal = None
    return normal if isinstance(normal, DenseNormal) else None, normal_weight


def check_sizes(residuals: Residuals, units: Units | None) -> None:
    """Raise ValueError if some rows are so large that the sums hold nothing of the others.

    Parameters
    ----------
    residuals : Residuals
    units : Units or None
        In which they are.

    Raises
    ------
    ValueError
        If so.
    """
    squares, weight = np.diag(residuals.residual_moment), residuals.weight
    check_weight(weight, residuals.n_samples, units)
    if not (
        np.isfinite(residuals.residual_moment).all()
        and (squares <= LARGEST_MEAN_SQUARE * weight).all()
    ):
        raise ValueError(
            "the squared residuals of the samples overflow, or hold nothing but those of the "
            "largest: some values of Y, or of X, are too far from those that the fit began with; "
            "rescale or remove these rows."
        )


def _user_history(fit: Fit, units: Units | None) -> list[Evaluation]:
    """History with losses in the square of the user's largest unit of Y."""
    if units is None:
        return fit.history
    exponent = 2 * int(units.outputs.max())
    with np.errstate(over="ignore"):
        return [replace(one, loss=float(np.ldexp(one.loss, exponent))) for one in fit.history]


def _joint_errors(normal: DenseNormal, noise: Matrix) -> Matrix:
    """Errors of the units' angles from the inverse of the whole normal matrix, in radians."""
    try:
        covariance = normal.covariance(noise)
    except np.linalg.LinAlgError:
        return np.full(normal.k, np.inf)
    return np.sqrt(np.maximum(covariance.diagonal().reshape(normal.k, -1).sum(axis=1), 0))


def _warn_of_units(
    problem: Problem, fit: Fit, result: Refinement, normal: Normal | None, noise: Matrix
) -> None:
    hidden_errors, output_errors = angle_errors(problem, fit.point, fit.residuals)
    near = absolute_cosines(fit.point.hidden[: len(hidden_errors)]) > _NEAR
    if np.triu(near, 1).any() and isinstance(normal, DenseNormal):
        # Units near each other share what the samples say of them: the diagonal is not enough.
        hidden_errors = np.maximum(hidden_errors, _joint_errors(normal, noise))
    found = flaws(problem, fit.point, hidden_errors)
    if found:
        dead = [i for i, j in found if i == j]
        alike = [pair for pair in found if pair[0] != pair[1]]
        parts = []
        if alike:
            parts.append(
                f"hidden units whose rows of {'(b, W)' if problem.fit_intercept else 'W'} are "
                f"parallel, within three standard errors: {alike}"
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


def _warn_of_optimum(fit: Fit, result: Refinement) -> None:
    if not fit.converged:
        warn(
            f"refinement stopped after {len(fit.history)} evaluations at loss {result.loss:.4g}; "
            f"the linearised problem still promises a relative decrease of {result.decrement:.2g}",
            ConvergenceWarning,
        )
    elif result.certificate == "none" and fit.exact:
        warn(f"{result.reason}; use more samples, or a smaller n_hidden", IdentifiabilityWarning)
    elif result.certificate == "none":
        lowest = ", ".join(f"{loss:.6g}" for loss in sorted(result.start_losses)[:2])
        warn(
            f"the optimum is not certified: {result.reason}; the lowest losses of starts are "
            f"{lowest}; use more samples, or another n_hidden",
            ConvergenceWarning,
        )


def _warn_of_decay(result: Refinement) -> None:
    if not result.network.n_hidden:  # a ridge regression
        return
    warn(
        f"the samples do not determine the weights of a network that predicts well: "
        f"{result.reason}; the network of {result.network.n_hidden} hidden units predicts, its "
        "weights mean nothing by themselves; give n_hidden to have the least-squares optimum",
        IdentifiabilityWarning,
    )


def _warn_of_signs(found: SearchResult) -> None:
    if np.isfinite(found.open_signs):
        warn(
            "the signs of the units are in doubt: an optimum with other signs has a sum of squares "
            f"only {found.open_signs:.2g} variances of the noise above; predictions are nearly the "
            "same; use more samples, or linear=True, with which signs do not matter",
            IdentifiabilityWarning,
        )


def _warn_of_fit(problem: Problem, result: Refinement) -> None:
    lack = result.lack_of_fit
    if not lack.significant:
        return
    remedy = 'use a larger n_hidden, or "auto"'
    if lack.cause == "constant" and not problem.fit_intercept:
        remedy = "try fit_intercept=True"
    elif lack.cause == "linear":
        remedy = "try linear=True"
    warn(
        f"the network does not describe the samples: the residual depends on x (p = "
        f"{lack.p_value:.2g}, {lack.misfit:.1f} standard deviations; R2 is {result.r2:.4g} against "
        f"the constant, {result.r2_linear:.4g} against a linear predictor). It has "
        f"{_CAUSES.get(lack.cause, 'no finite value')}, {lack.explained:.2g} of the loss; {remedy}",
        LackOfFitWarning,
    )
