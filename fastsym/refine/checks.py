"""Units that are one or do nothing, and errors of angles."""

import numpy as np

from fastsym.algebra import Matrix, absolute_cosines
from fastsym.refine.coordinates import Point
from fastsym.refine.problem import Problem
from fastsym.sums.values import Residuals

PARALLEL = 0.999
"""Cosine of two units, or of their outputs, from which they are one."""

_DEAD = 1e-8
_UNDETERMINED = 0.3  # standard error of an angle, in radians
_NO_ANGLE = 1e100
_TINY = float(np.finfo(float).tiny)


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
    dead = size <= _DEAD * max(size.max(initial=0), _TINY)
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
    that sum s u u^T is about weight / 2 in white coordinates; the effective number of samples is
    their weight, in the unit in which that is so.

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
    information = size**2 * problem.effective(residuals) / 2
    # A unit that does nothing has no angle: the limit keeps products with it finite.
    error = np.sqrt(variance / np.maximum(information, variance * _NO_ANGLE**-2 + _TINY))
    dimension = problem.coordinates.to_inputs.shape[1]
    return error * np.sqrt(dimension - 1), error * np.sqrt(problem.n_outputs - 1)
