"""What a refinement found, and what is said of it."""

from dataclasses import dataclass, field, replace

import numpy as np

from fastsym.algebra import Matrix
from fastsym.exceptions import ConvergenceWarning, IdentifiabilityWarning, warn
from fastsym.network import TwoLayerNetwork
from fastsym.refine.checks import angle_errors, flaws, parallel
from fastsym.refine.coordinates import Coordinates
from fastsym.refine.minimisation import Evaluation, Fit
from fastsym.refine.normal import DENSE_PARAMETERS, DenseNormal, Normal, ScaledNormal
from fastsym.refine.problem import Problem
from fastsym.refine.search import SearchResult
from fastsym.refine.standard_errors import standard_errors
from fastsym.sums.support import warn_of_rank
from fastsym.sums.units import LARGEST_MEAN_SQUARE, Units, check_weight
from fastsym.sums.values import Residuals

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
    _units: Units | None = field(repr=False)  # of the normal matrix

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
        coordinates, noise, units = self._coordinates, self.noise_covariance, self._units
        shift = 0
        if units is not None:
            noise = units.covariance(noise, -1)
            to_user, shift = units.map_to_user(coordinates.to_inputs)
            coordinates = coordinates._replace(to_inputs=to_user)
        try:
            hidden, outputs = standard_errors(self._normal, coordinates, noise, self._scale)
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"there are no standard errors: the normal matrix cannot be inverted ({error}), "
                "the samples do not determine the weights; use a smaller n_hidden."
            ) from None
        if units is not None:
            k = self.network.n_hidden
            outputs[:, :k] = np.ldexp(outputs[:, :k], shift)
            outputs = units.output_to_user(outputs)
        return hidden, outputs


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
    check_sizes(residuals, problem.units)
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
    freedom = residuals.weight - problem.n_parameters / problem.n_outputs
    noise = residuals.residual_moment / residuals.weight
    noise = noise * residuals.weight / max(freedom, 1.0)
    decrement = fit.promised
    if decrement is None:
        decrement = next(one.decrement for one in reversed(fit.history) if one.accepted)
    result = Refinement(
        network=problem.network(fit.point),
        loss=_user_loss(residuals, problem.units) / residuals.weight,
        n_samples=residuals.n_samples,
        n_passes=n_passes,
        n_evaluations=n_evaluations,
        converged=fit.converged and found.certificate != "none",
        certificate=found.certificate,
        misfit=found.misfit,
        start_losses=[
            _user_loss(one.residuals, problem.units) / problem.sample.weight for one in found.fits
        ],
        noise_covariance=noise if problem.units is None else problem.units.covariance(noise),
        decrement=decrement,
        history=_user_history(fit, problem.units),
        _normal=normal,
        _coordinates=coordinates,
        _scale=residuals.weight / normal_weight,
        _units=problem.units,
    )
    warn_of_rank(problem.input_moment, problem.whiten)
    _warn_of(problem, fit, result)
    return result


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


def _user_loss(residuals: Residuals, units: Units | None) -> float:
    return residuals.loss if units is None else units.loss(residuals.residual_moment)


def _user_history(fit: Fit, units: Units | None) -> list[Evaluation]:
    """History with losses in the square of the user's largest unit of Y."""
    if units is None:
        return fit.history
    exponent = 2 * int(units.outputs.max())
    with np.errstate(over="ignore"):
        return [replace(one, loss=float(np.ldexp(one.loss, exponent))) for one in fit.history]


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
