"""Weights in coordinates in which the inputs are white, and steps in them.

Rows of W have unit length there (the scale of a unit belongs to A), so that neither the units of
the features nor the scale gauge of the network adds to the condition number.
"""

from typing import NamedTuple

import numpy as np

from fastsym.algebra import Matrix, row_lengths


class Point(NamedTuple):
    """Weights in white coordinates.

    hidden is (n_units, n_coordinates), unit rows; outputs is (n_outputs, n_units). The last units
    are fixed and linear, rows of the identity: the constant 1, of an output intercept, and the
    coordinates of x, of a linear part.
    """

    hidden: Matrix
    outputs: Matrix


class Coordinates(NamedTuple):
    """Map between white coordinates and weights of u = (1, x).

    A row of weights of u is hidden @ to_inputs.T. n_free units may turn; further ones are fixed and
    linear.
    """

    to_inputs: Matrix  # (1 + d, q), to_inputs^T E[u u^T] to_inputs = I where the data determine it
    from_inputs: Matrix  # (q, 1 + d), its left inverse
    n_free: int

    def weights(self, point: Point) -> Matrix:
        """Rows (bias, w) of all units, shape (n_units, 1 + d)."""
        return point.hidden @ self.to_inputs.T

    def point(self, weights: Matrix, outputs: Matrix) -> Point:
        """Point of rows (bias, w): rescaled to unit length, the outputs accordingly."""
        hidden = weights @ self.from_inputs.T
        return normalised(hidden, outputs, self.n_free)


class Step(NamedTuple):
    """A step, and by how much the linearised sum of squares falls.

    `solved` says whether the linearised problem was solved; if not, `predicted` is no bound.
    """

    hidden: Matrix  # (n_free, q)
    outputs: Matrix  # (m, n_units)
    predicted: float
    solved: bool = True


class UnitGauge:
    """From small changes in white coordinates to those of unit rows of (bias, w), and of A.

    Parameters
    ----------
    point : Point
    coordinates : Coordinates

    Attributes
    ----------
    turn : ndarray of shape (n_free, 1 + d, q)
        Derivative of a unit row by the row in white coordinates, over `size`.
    size : ndarray of shape (n_free, 1 + d)
        Taken out of `turn`: features in units far apart have squares that would vanish.
    stretch : ndarray of shape (n_free, q)
        Derivative of the length of (bias, w), which belongs to A.
    length : ndarray of shape (n_free,)
    affine : ndarray of shape (n_fixed, n_affine)
        Derivative of (c, L), of what there is of it, by the outputs of fixed units, over
        `affine_size`.
    affine_size : ndarray of shape (n_affine,)
    first : int
        First column of unit rows that counts: 0 with intercepts, 1 without.
    """

    def __init__(self, point: Point, coordinates: Coordinates) -> None:
        k, T = coordinates.n_free, coordinates.to_inputs
        weights = point.hidden[:k] @ T.T
        lengths = row_lengths(weights)
        units = weights / lengths[:, None]
        self.turn = (np.eye(len(T)) - units[:, :, None] * units[:, None, :]) @ T
        self.turn /= lengths[:, None, None]
        self.size = np.abs(self.turn).max(axis=2)
        self.turn /= np.where(self.size > 0, self.size, 1)[:, :, None]
        self.stretch = units @ T
        self.length = lengths
        self.first = 0 if np.any(T[0]) else 1
        affine = point.hidden[k:] @ T.T
        alone = self.first == 0 and len(affine) == 1  # the constant
        affine = affine[:, self.first : 1 if alone else None] if len(affine) else affine[:, :0]
        size = np.abs(affine).max(axis=0, initial=0)
        self.affine_size = np.where(size > 0, size, 1)
        self.affine = affine / self.affine_size

    @property
    def output_size(self) -> Matrix:
        """What errors of (A, c, L) are to be multiplied by, shape (n_free + n_affine,)."""
        return np.concatenate([np.ones(len(self.length)), self.affine_size])


def normalised(hidden: Matrix, outputs: Matrix, n_free: int) -> Point:
    """Bring the rows of units that may turn to unit length, and their scale to the outputs.

    Parameters
    ----------
    hidden : ndarray of shape (n_units, n_coordinates)
    outputs : ndarray of shape (n_outputs, n_units)
    n_free : int

    Returns
    -------
    point : Point
    """
    lengths = row_lengths(hidden)
    lengths[n_free:] = 1
    return Point(hidden / lengths[:, None], outputs * lengths)


def moved(point: Point, step: Step, n_free: int) -> Point:
    """Take a step, and bring rows back to unit length.

    Parameters
    ----------
    point : Point
    step : Step
    n_free : int
        Units that may turn.

    Returns
    -------
    point : Point
    """
    hidden = np.concatenate([point.hidden[:n_free] + step.hidden, point.hidden[n_free:]])
    return normalised(hidden, point.outputs + step.outputs, n_free)
