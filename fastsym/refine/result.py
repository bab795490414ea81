"""What a refinement found, and what is said of it."""

from dataclasses import dataclass, field

import numpy as np

from fastsym.algebra import Matrix, absolute_cosines
from fastsym.exceptions import (
    ConvergenceWarning,
    IdentifiabilityWarning,
    LackOfFitWarning,
    warn,
)
from fastsym.network import TwoLayerNetwork
from fastsym.refine.checks import angle_errors, flaws, parallel
from fastsym.refine.lack_of_fit import LackOfFit
from fastsym.refine.minimisation import Evaluation, Fit
from fastsym.refine.normal import DenseNormal, Normal, ScaledNormal
from fastsym.refine.problem import Problem
from fastsym.refine.search import SearchResult
from fastsym.refine.standard_errors import StandardErrors

_NEAR = 0.95  # cosine of two units whose errors are worked out together

FRESH = 0.02
"""Radians that units may have turned since the normal matrix was taken."""


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
        Evaluations on the samples in memory, of all starts; not of those about an optimum.
    converged : bool
        Whether the optimum was reached within the tolerance and is certified to be the global one.
        It says nothing of whether the model describes the samples, which `lack_of_fit` does.
    certificate : str
        Why it is held for the global optimum: "exact" (only rounding is left, and the equations
        determine the network), "spectral" (a clear spectral start, ample samples and no lack of
        fit), "agreement" (two independent starts ended at the lowest loss, and starts about it no
        lower; three where samples are few, half of them where there is a lack of fit), "no lack of
        fit" (lowest of at least four starts, where the test would notice the excess loss of
        another), or "none" (see `fastsym.refine.certificates`).
    reason : str
        Why nothing is certified; empty if something is.
    lack_of_fit : LackOfFit
        Whether the residual depends on x: p-value, size in standard deviations, likely cause, and
        what the test would notice (`fastsym.refine.lack_of_fit`).
    r2 : float
        1 - loss / loss of the best constant, on the samples in memory.
    r2_linear : float
        1 - loss / loss of the best linear predictor with a constant, on the samples in memory.
    start_losses : list of float
        Loss of each start on the samples in memory, in order.
    noise_covariance : ndarray of shape (n_outputs, n_outputs)
        Of the residual, weighted as the samples are, corrected for the number of fitted weights.
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
    reason: str
    lack_of_fit: LackOfFit
    r2: float
    r2_linear: float
    start_losses: list[float]
    noise_covariance: Matrix
    decrement: float
    history: list[Evaluation]
    _errors: StandardErrors = field(repr=False)

    @property
    def misfit(self) -> float:
        """Lack of fit in standard deviations of its null distribution."""
        return self.lack_of_fit.misfit

    def standard_errors(self, kind: str = "robust") -> tuple[Matrix, Matrix]:
        """Return the standard errors of the weights.

        Gauge: rows of W, with their biases if there are any, of unit length. They are worked out
        when they are first asked for, the robust ones from the samples in memory (at most 65 536),
        for the number of all samples.

        Parameters
        ----------
        kind : {"robust", "classical"}, default="robust"
            "robust": the sandwich estimator, which holds for noise that depends on x and for
            sample weights of any origin. "classical": for noise of one covariance,
            `noise_covariance`, whatever x, and weights that have nothing to do with it.

        Returns
        -------
        hidden_stderr : ndarray of shape (n_hidden, n_features), or (n_hidden, 1 + n_features)
            With intercepts, the first column belongs to the biases.
        output_stderr : ndarray of shape (n_outputs, n_hidden), or (n_outputs, n_hidden + 1)
            With intercepts, the last column belongs to the output intercept.

        Raises
        ------
        ValueError
            If kind is neither, if there are more than 4096 hidden weights, for which no normal
            matrix is formed, or the samples do not determine the weights.

        References
        ----------
        White (1980), doi:10.2307/1912934.
        """
        return self._errors.of(kind)


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
    residuals = fit.residuals
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
    elif np.abs(fit.point.hidden - normal.point.hidden).max() > FRESH:
        try:
            normal, normal_weight = problem.normal(fit.point), problem.sample.weight
        except np.linalg.LinAlgError:
            normal = None
    n_effective = problem.effective(residuals)
    freedom = n_effective - problem.n_parameters / problem.n_outputs
    noise = residuals.residual_moment / residuals.weight * (n_effective / max(freedom, 1.0))
    decrement = fit.promised
    if decrement is None:
        decrement = next(one.decrement for one in reversed(fit.history) if one.accepted)
    loss = residuals.loss / residuals.weight
    constant, linear = (
        1 - loss * problem.sample.weight / one if one > 0 else float("nan")
        for one in problem.baselines()
    )
    result = Refinement(
        network=problem.network(fit.point),
        loss=loss,
        n_samples=residuals.n_samples,
        n_passes=n_passes,
        n_evaluations=n_evaluations,
        converged=fit.converged and found.certificate != "none",
        certificate=found.certificate,
        reason=found.verdict.reason,
        lack_of_fit=found.verdict.lack_of_fit,
        r2=constant,
        r2_linear=linear,
        start_losses=[one.residuals.loss / problem.sample.weight for one in found.fits],
        noise_covariance=noise,
        decrement=decrement,
        history=fit.history,
        _errors=StandardErrors(
            problem, fit.point, normal, noise, residuals.n_samples, normal_weight
        ),
    )
    _warn_of_units(problem, fit, result, normal, normal_weight)
    _warn_of_optimum(fit, result)
    _warn_of_fit(problem, result)
    return result


def _joint_errors(normal: DenseNormal, noise: Matrix) -> Matrix:
    """Errors of the units' angles from the inverse of the whole normal matrix, in radians."""
    try:
        covariance = normal.covariance(noise)
    except np.linalg.LinAlgError:
        return np.full(normal.k, np.inf)
    return np.sqrt(np.maximum(covariance.diagonal().reshape(normal.k, -1).sum(axis=1), 0))


def _warn_of_units(
    problem: Problem, fit: Fit, result: Refinement, normal: Normal | None, normal_weight: float
) -> None:
    hidden_errors, output_errors = angle_errors(problem, fit.point, fit.residuals)
    near = absolute_cosines(fit.point.hidden[: len(hidden_errors)]) > _NEAR
    if np.triu(near, 1).any() and isinstance(normal, DenseNormal):
        # Units near each other share what the samples say of them: the diagonal is not enough.
        share = normal_weight / fit.residuals.weight
        joint = _joint_errors(normal, result.noise_covariance * share)
        hidden_errors = np.maximum(hidden_errors, joint)
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


_CAUSES = {
    "linear": "mostly a linear part, as of a linear term beside the network",
    "constant": "an even part that does not grow as |x|, as of a constant, of biases or of squares",
    "bends": "bends |v.x|, as of more units than n_hidden",
}


def _warn_of_fit(problem: Problem, result: Refinement) -> None:
    lack = result.lack_of_fit
    if not lack.significant:
        return
    remedy = "use a larger n_hidden if n_features and n_outputs allow it"
    if lack.cause == "constant" and not problem.fit_intercept:
        remedy = "try fit_intercept=True"
    elif lack.cause == "linear":
        remedy = "the model has none: a pair of opposite units stands for a direction of it"
    warn(
        f"the network does not describe the samples: the residual depends on x (p = "
        f"{lack.p_value:.2g}, {lack.misfit:.1f} standard deviations; R2 is {result.r2:.4g} against "
        f"the constant, {result.r2_linear:.4g} against a linear predictor). It has "
        f"{_CAUSES.get(lack.cause, 'no finite value')}, {lack.explained:.2g} of the loss; {remedy}",
        LackOfFitWarning,
    )
