"""What to believe of a point: lack of fit, units that are one or do nothing, errors of angles."""

import numpy as np

from fastsym.algebra import Matrix, absolute_cosines, unit_rows, whitening
from fastsym.refine.coordinates import Point
from fastsym.refine.problem import Problem
from fastsym.sums.values import Residuals

MISFIT = 5.0
"""Lack of fit, in standard deviations, from which a start is in doubt."""

PARALLEL = 0.999
"""Cosine of two units, or of their outputs, from which they are one."""

_MISFIT_ROWS = 8192  # enough to see what spoils a neuron
_DEAD = 1e-8
_UNDETERMINED = 0.3  # standard error of an angle, in radians
_NO_ANGLE = 1e100
_TINY = float(np.finfo(float).tiny)


def lack_of_fit(problem: Problem, point: Point) -> float:
    """Measure how the residual depends on x, in standard deviations; infinite if it is not finite.

    With features phi = w.x of the units and |v.x + b| for random directions v in the span of A W,
    b = 0 for half of them, centred and white, sum |sum r phi|^2 / n has expectation tr(S) n_phi and
    variance 2 tr(S^2) n_phi for noise of covariance S that does not depend on x.

    Parameters
    ----------
    problem : Problem
    point : Point

    Returns
    -------
    misfit : float
    """
    sample, coordinates, k = problem.sample, problem.coordinates, problem.coordinates.n_free
    step = max(1, sample.n_samples // max(_MISFIT_ROWS, 16 * (5 * k + 1)))
    inputs = sample.inputs[::step]
    t = inputs @ coordinates.weights(point).T
    residual = sample.targets[::step] - problem.activation(t) @ point.outputs.T
    # The span of A W, from second moments alone, is right also where the fit is not.
    bias, rng = int(problem.fit_intercept), np.random.default_rng(0)
    span = np.linalg.svd(problem.linear_part, full_matrices=False)[2][:k]
    directions = unit_rows(rng.standard_normal((4 * k, len(span))) @ span)
    offsets = 0.7 * rng.standard_normal(4 * k) * (np.arange(4 * k) % 2)
    axes = coordinates.to_inputs[:, bias:] @ directions.T
    axes[0] += offsets
    features = np.concatenate([inputs[:, :1], t[:, :k], np.abs(inputs @ axes)], axis=1)
    gram = features.T @ features
    products = features.T @ residual
    if not (np.isfinite(gram).all() and np.isfinite(products).all()):
        return float("inf")
    # Regress out the constant.
    gram_even = gram[1:, 1:] - np.outer(gram[1:, 0], gram[0, 1:]) / gram[0, 0]
    products = products[1:] - np.outer(gram[1:, 0], products[0]) / gram[0, 0]
    whiten = whitening(gram_even, 1e-8)
    n_features = whiten.shape[1]
    S = residual.T @ residual / len(residual)
    statistic = float(((whiten.T @ products) ** 2).sum())
    spread = np.sqrt(2 * n_features * float((S**2).sum()))
    expected = n_features * float(np.trace(S))
    return (statistic - expected) / spread if spread > 0 else 0.0


def flaws(problem: Problem, point: Point, errors: Matrix | None = None) -> list[tuple[int, int]]:
    """List pairs (i, j) of units that are one, and (i, i) for a unit that does nothing.

    Parameters
    ----------
    problem : Problem
    point : Point
    errors : ndarray of shape (n_hidden,), default=None
        Standard errors of the units' angles, in radians: units count as one from three of them on,
        and as doing nothing if their angle is not determined.

    Returns
    -------
    pairs : list of (int, int)
    """
    k = problem.coordinates.n_free
    size = np.linalg.norm(point.outputs[:, :k], axis=0)
    dead = size <= _DEAD * max(size.max(), _TINY)
    if errors is not None:
        dead |= errors > _UNDETERMINED
    pairs = [(int(i), int(i)) for i in np.flatnonzero(dead)]
    alive = np.flatnonzero(~dead)
    known = None if errors is None else errors[alive]
    return pairs + [(int(alive[i]), int(alive[j])) for i, j in parallel(point.hidden[alive], known)]


def parallel(rows: Matrix, errors: Matrix | None = None) -> list[tuple[int, int]]:
    """List the pairs of rows that are parallel or opposite.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_columns)
    errors : ndarray of shape (n_rows,), default=None
        Standard errors of their angles, in radians; rows within three of them count too.

    Returns
    -------
    pairs : list of (int, int)
    """
    cosines = absolute_cosines(rows)
    close = cosines > PARALLEL
    if errors is not None:
        close |= np.arccos(cosines) < 3 * np.hypot(errors[:, None], errors)
    first, second = np.nonzero(np.triu(close, 1))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def angle_errors(problem: Problem, point: Point, residuals: Residuals) -> tuple[Matrix, Matrix]:
    """Estimate the errors of the angles of rows of W and of columns of A, in radians.

    From the diagonal of the normal matrix: half of the samples are on the active side of a unit, so
    that sum s u u^T is about weight / 2 in white coordinates.

    Parameters
    ----------
    problem : Problem
    point : Point
    residuals : Residuals
        There.

    Returns
    -------
    hidden_errors, output_errors : ndarray of shape (n_hidden,)
    """
    k = problem.coordinates.n_free
    size = np.linalg.norm(point.outputs[:, :k], axis=0)
    variance = residuals.loss / (residuals.weight * problem.n_outputs)
    information = size**2 * residuals.weight / 2
    # A unit that does nothing has no angle: the limit keeps products with it finite.
    error = np.sqrt(variance / np.maximum(information, variance * _NO_ANGLE**-2 + _TINY))
    dimension = problem.coordinates.to_inputs.shape[1]
    return error * np.sqrt(dimension - 1), error * np.sqrt(problem.n_outputs - 1)
