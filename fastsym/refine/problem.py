"""The least-squares problem of samples in memory, in white coordinates."""

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym.activation import Activation
from fastsym.algebra import Matrix, row_lengths, unit_rows, whitening
from fastsym.network import TwoLayerNetwork
from fastsym.refine.coordinates import Coordinates, Point
from fastsym.refine.minimisation import Fit, minimise
from fastsym.refine.normal import DENSE_PARAMETERS, DenseNormal, ImplicitNormal, Normal
from fastsym.refine.sample import Sample
from fastsym.sums.support import supported_whitening
from fastsym.sums.units import Units, units_of
from fastsym.sums.values import Residuals

TOLERANCE = 1e-3
"""Decrease still promised, of the loss that the weights explain by chance.

The distance from the optimum is then about the square root of this in standard errors, and adds
this share to the squared error.
"""

_EPS = 1e-13
EVALUATIONS = 200
"""Evaluations of a minimisation on samples in memory at most."""

_ROUGHLY, _ROUGH_EVALUATIONS = 10.0, 40  # enough to see whether an optimum is lower than another


class Problem:
    """Samples in memory, in white coordinates.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    weights : ndarray of shape (n_samples,) or None
        Positive; None: all 1.
    n_hidden : int
    activation : Activation
    fit_intercept : bool, default=False
    n_jobs : int, default=None
        Threads at most.
    whole : bool, default=False
        Whether no other samples will count: then directions of x that a few of these alone show get
        no weights.
    units : Units or None, default="of X and Y"
        Those of another problem; None: of a usual size. As it is, they are taken from X and Y.

    Raises
    ------
    ValueError
        If all of X is zero, or one value or weight is too far from all others.
    """

    def __init__(
        self,
        X: NDArray[Any],
        Y: NDArray[Any],
        weights: NDArray[Any] | None,
        n_hidden: int,
        activation: Activation,
        fit_intercept: bool = False,
        n_jobs: int | None = None,
        whole: bool = False,
        units: Units | str | None = "of X and Y",
    ) -> None:
        self.units = units_of(X, Y, weights) if isinstance(units, str) else units
        self.sample = Sample(X, Y, weights, n_jobs, self.units)
        self.activation, self.fit_intercept = activation, fit_intercept
        self.n_outputs = self.sample.n_outputs
        inputs, targets = self.sample.inputs, self.sample.targets
        total = self.sample.weight
        self._gram, self._cross = inputs.T @ inputs, inputs.T @ targets
        C = self._gram[1:, 1:] / total
        whiten = supported_whitening(inputs[:, 1:], C) if whole else whitening(C)
        self.input_moment, self.whiten = C, whiten
        d, rank = whiten.shape
        if rank == 0:
            raise ValueError("X is zero in every sample, which determines no weights.")
        bias = int(fit_intercept)
        to_inputs = np.zeros((1 + d, bias + rank))
        from_inputs = np.zeros((bias + rank, 1 + d))
        to_inputs[1:, bias:] = whiten
        from_inputs[bias:, 1:] = whiten.T @ C
        if fit_intercept:
            to_inputs[0, 0] = from_inputs[0, 0] = 1
        self.coordinates = Coordinates(to_inputs, from_inputs, n_hidden)
        # A W in white coordinates of x
        linear_part = 1 / activation.odd_gain * (self._cross[1:].T / total)
        self.linear_part = linear_part @ whiten
        self.total = float((targets**2).sum())

    @property
    def n_parameters(self) -> int:
        """Number of weights that are free: those of W but for the lengths of its rows, and A."""
        k, q = self.coordinates.n_free, self.coordinates.to_inputs.shape[1]
        return k * (q - 1) + self.n_outputs * (k + int(self.fit_intercept))

    def resized(self, n_hidden: int) -> "Problem":
        """Return the problem of another number of hidden units, on the same samples."""
        other = copy(self)
        other.coordinates = self.coordinates._replace(n_free=n_hidden)
        return other

    @property
    def unit(self) -> float:
        """Share of the loss that the weights explain by chance, n_parameters / (n n_outputs).

        n is the effective number of samples.
        """
        return self.n_parameters / (self.sample.n_effective * self.n_outputs)

    def effective(self, residuals: Residuals) -> float:
        """Effective number of the samples that residuals were summed over.

        Of samples that are not in memory the weights are taken to vary as of those that are.
        """
        sample = self.sample
        return sample.n_effective * (residuals.n_samples / sample.n_samples)

    @property
    def is_dense(self) -> bool:
        """Whether normal matrices are formed."""
        coordinates = self.coordinates
        return coordinates.n_free * coordinates.to_inputs.shape[1] <= DENSE_PARAMETERS

    def baselines(self) -> tuple[float, float]:
        """Return the losses of the best constant and of the best linear predictor with a constant.

        Sums over the samples, as `total` is of the prediction of zero; 0 where only rounding is
        left.
        """
        constant = self.total - float((self._cross[0] ** 2).sum() / self._gram[0, 0])
        whiten = whitening(self._gram)
        linear = self.total - float(((whiten.T @ self._cross) ** 2).sum())
        constant, linear = (one if one > _EPS * self.total else 0.0 for one in (constant, linear))
        return constant, linear

    def user_loss(self, residuals: Residuals) -> float:
        """Return a sum of squared residuals in the user's units."""
        if self.units is None:
            return residuals.loss
        return self.units.loss(residuals.residual_moment)

    def point(self, network: TwoLayerNetwork) -> Point:
        """White coordinates of a network.

        Raises
        ------
        ValueError
            If its shape is not that of the problem.
        """
        W, A = network.hidden_weights, network.output_weights
        expected = self.sample.n_features, self.coordinates.n_free, self.n_outputs
        if (network.n_features, network.n_hidden, network.n_outputs) != expected:
            raise ValueError(
                f"a start must have (n_features, n_hidden, n_outputs) = {expected} as the samples "
                f"and the first start, got {(W.shape[1], *W.shape[:1], *A.shape[:1])}."
            )
        weights = np.concatenate([network.hidden_intercept[:, None], W], axis=1)
        constants = network.output_intercept[:, None]
        if self.units is not None:
            weights, A = self.units.from_user(weights, A)
            constants = np.ldexp(constants, -self.units.outputs[:, None])
        if self.fit_intercept:
            constant = np.zeros((1, 1 + network.n_features))
            constant[0, 0] = 1
            weights = np.concatenate([weights, constant])
            A = np.concatenate([A, constants], axis=1)
        return self.coordinates.point(weights, A)

    def network(self, point: Point) -> TwoLayerNetwork:
        """Network of a point, rows (bias, w) of unit length."""
        k = self.coordinates.n_free
        weights, outputs = self.coordinates.weights(point)[:k], point.outputs[:, :k]
        constant = point.outputs[:, k:]
        if self.units is None:
            lengths = row_lengths(weights)
            weights, outputs = weights / lengths[:, None], outputs * lengths
        else:
            weights, outputs = self.units.to_user(weights, outputs)
            constant = self.units.output_to_user(constant)
        return TwoLayerNetwork(
            weights[:, 1:],
            outputs,
            hidden_intercept=weights[:, 0] if self.fit_intercept else None,
            output_intercept=constant[:, 0] if self.fit_intercept else None,
            negative_slope=self.activation.negative_slope,
        )

    def residuals(self, point: Point) -> Residuals:
        """Loss and gradient at a point."""
        weights = self.coordinates.weights(point)
        return self.sample.residuals(weights, point.outputs, self.activation.negative_slope)

    def regressed(self, hidden: Matrix) -> Point:
        """Point with these hidden weights and the outputs that fit them best."""
        hidden = unit_rows(hidden)
        h = self.activation(self.sample.inputs @ self.coordinates.weights(Point(hidden, hidden)).T)
        whiten = whitening(h.T @ h)
        return Point(hidden, (self.sample.targets.T @ h) @ whiten @ whiten.T)

    def normal(self, point: Point) -> Normal:
        """Gauss-Newton normal matrix at a point, formed or not as its size allows."""
        sample, coordinates = self.sample, self.coordinates
        if not self.is_dense:
            return ImplicitNormal(sample.inputs, sample.weight, point, coordinates, self.activation)
        weights = coordinates.weights(point)
        moments = sample.mask_moments(weights, self.activation.negative_slope)
        return DenseNormal(moments, point, coordinates)

    def fit(self, point: Point, *, roughly: bool = False) -> Fit:
        """Minimise the loss on these samples from a point; roughly: to a hundredth of the unit."""
        tolerance, evaluations = TOLERANCE * self.unit, EVALUATIONS
        if roughly:
            tolerance, evaluations = _ROUGHLY * tolerance, _ROUGH_EVALUATIONS
        return minimise(self, point, tolerance=tolerance, max_evaluations=evaluations)
