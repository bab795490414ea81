"""Variable projection in memory: at given rows of W all outputs are those that fit best.

A step of the hidden weights takes the outputs, the constant and the linear part along only so far
as the problem is linear; regressed anew at each point they are exact. References: Golub and
Pereyra (1973), doi:10.1137/0710036.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fastsym.activation import Activation
from fastsym.algebra import Matrix, unit_rows
from fastsym.refine.coordinates import Coordinates, Point
from fastsym.refine.normal import gram_factor
from fastsym.refine.sample import Sample
from fastsym.sums.values import Residuals


class Regression(NamedTuple):
    """Hidden rows with the outputs that fit best.

    Arrays with a column for each sample belong to the `Projection`, and hold until it regresses
    again.
    """

    point: Point
    units: Matrix  # (K, n), times the roots of the weights; the last ones are fixed
    residual: Matrix  # (m, n), times the roots of the weights
    factor: Matrix  # (K, K), upper R with R^T R = units units^T + penalty

    @property
    def loss(self) -> float:
        """Sum of squared residuals."""
        return float(np.vdot(self.residual, self.residual))

    def saliencies(self, n_free: int) -> Matrix:
        """Increase of the loss when a unit is left out and the outputs regressed again.

        It is |a_i|^2 / (E^-1)_ii with E = sum h h^T (Hassibi and Stork (1993), "Second order
        derivatives for network pruning").

        Parameters
        ----------
        n_free : int
            Units that may turn, the first ones.

        Returns
        -------
        saliencies : ndarray of shape (n_free,)
        """
        inverse = linalg.solve_triangular(self.factor, np.eye(len(self.factor)), check_finite=False)
        squares = (inverse[:n_free] ** 2).sum(axis=1)
        return (self.point.outputs[:, :n_free] ** 2).sum(axis=0) / squares


class Projection:
    """Samples in memory, laid out for regressions on units: a row for each unit.

    Parameters
    ----------
    sample : Sample
    coordinates : Coordinates
    activation : Activation
    fixed : ndarray of shape (n_fixed, n_coordinates)
        Rows of the linear units.
    """

    def __init__(
        self, sample: Sample, coordinates: Coordinates, activation: Activation, fixed: Matrix
    ) -> None:
        self._sample, self._activation, self.fixed = sample, activation, fixed
        self.white = np.ascontiguousarray(coordinates.to_inputs.T @ sample.inputs.T)
        self.targets = np.ascontiguousarray(sample.targets.T)
        self._linear = fixed @ self.white
        # Kept from call to call: memory that is new costs as much as the sums.
        self._work: tuple[Matrix, Matrix] | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_work": None}

    def _room(self, k: int) -> tuple[Matrix, Matrix]:
        """Arrays for the k units that turn, behind which the linear ones stand, and for masks."""
        if self._work is None or len(self._work[1]) != k:
            n = self.white.shape[1]
            units = np.empty((k + len(self.fixed), n))
            units[k:] = self._linear
            self._work = units, np.empty((k, n))
        return self._work

    def regress(self, hidden: Matrix, penalty: Matrix | None = None) -> Regression:
        """Regress the targets on units.

        Parameters
        ----------
        hidden : ndarray of shape (n_free, n_coordinates)
            Rows of those that may turn.
        penalty : ndarray of shape (n_units, n_units), default=None
            trace(B penalty B^T) of the output weights B is added to the loss, and penalty to the
            gram matrix. None: nothing.

        Returns
        -------
        regression : Regression

        Raises
        ------
        numpy.linalg.LinAlgError
            If the units are not finite.
        """
        k, slope = len(hidden), self._activation.negative_slope
        rows = unit_rows(hidden)
        units, work = self._room(k)
        np.matmul(rows, self.white, out=units[:k])
        if slope:
            np.multiply(units[:k], slope, out=work)
        np.maximum(units[:k], work if slope else 0.0, out=units[:k])
        gram = units @ units.T
        factor = gram_factor(gram if penalty is None else gram + penalty)
        outputs = linalg.cho_solve((factor, False), units @ self.targets.T, check_finite=False).T
        residual = self.targets - outputs @ units
        # Once more, for what rounding of the gram matrix has left.
        left = units @ residual.T if penalty is None else units @ residual.T - penalty @ outputs.T
        outputs += linalg.cho_solve((factor, False), left, check_finite=False).T
        residual = self.targets - outputs @ units
        point = Point(np.concatenate([rows, self.fixed]), outputs)
        return Regression(point, units, residual, factor)

    def residuals(self, regression: Regression) -> Residuals:
        """Loss and gradient at the last regression; outputs that fit best have none.

        Parameters
        ----------
        regression : Regression

        Returns
        -------
        residuals : Residuals
        """
        point, residual = regression.point, regression.residual
        k = len(point.hidden) - len(self.fixed)
        units, driven = self._room(k)
        np.matmul(point.outputs[:, :k].T, residual, out=driven)
        slopes = self._activation.derivative if self._activation.negative_slope else _is_positive
        np.multiply(driven, slopes(units[:k]), out=driven)
        sample = self._sample
        return Residuals(
            n_samples=sample.n_samples,
            weight=sample.weight,
            hidden_gradient=driven @ sample.inputs,
            output_gradient=np.zeros_like(point.outputs),
            residual_moment=residual @ residual.T,
        )


def _is_positive(units: Matrix) -> NDArray[np.bool_]:
    return units > 0
