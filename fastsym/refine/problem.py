"""The least-squares problem of samples in memory, in white coordinates."""

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym.activation import Activation
from fastsym.algebra import Matrix, row_lengths, unit_rows, whitening
from fastsym.network import TwoLayerNetwork
from fastsym.refine.coordinates import Coordinates, Point
from fastsym.refine.implicit import ImplicitNormal
from fastsym.refine.minimisation import Evaluation, Fit, minimise
from fastsym.refine.normal import DENSE_PARAMETERS, DenseNormal, Normal
from fastsym.refine.projection import Projection
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
_SAME = 1e-13  # of their size: projections as near are of equal rows
_CONSTANT = 1e-26  # share of the square of a feature that rounding leaves of its mean
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
        self._gram, self._cross = inputs.T @ inputs, inputs.T @ targets
        rows, mean = inputs[:, 1:], np.zeros(self.sample.n_features)
        if fit_intercept:
            rows, mean = _centred(rows, inputs[:, :1], self._gram)
        C = rows.T @ rows / self.sample.weight
        roots = inputs[:, 0] if fit_intercept else None
        whiten = supported_whitening(rows, C, roots) if whole else whitening(C)
        self.input_moment, self.whiten = C, whiten
        rank = whiten.shape[1]
        if rank == 0:
            constant = "constant" if fit_intercept else "zero"
            raise ValueError(f"X is {constant} in every sample, which determines no weights.")
        self.coordinates = _white_coordinates(whiten, C, mean if fit_intercept else None, n_hidden)
        q = int(fit_intercept) + rank
        self.fixed = np.eye(q)[: int(fit_intercept)]
        self.projection: Projection | None = None
        # A W in white coordinates of x
        self.linear_part = (rows.T @ targets).T / self.sample.weight @ whiten / activation.odd_gain
        self.total = float((targets**2).sum())

    @property
    def n_parameters(self) -> int:
        """Number of weights that are free: those of W but for the lengths of its rows, A, c, L."""
        k, q = self.coordinates.n_free, self.coordinates.to_inputs.shape[1]
        return k * (q - 1) + self.n_outputs * (k + len(self.fixed))

    def resized(self, n_hidden: int) -> "Problem":
        """Return the problem of another number of hidden units, on the same samples."""
        other = copy(self)
        other.coordinates = self.coordinates._replace(n_free=n_hidden)
        return other

    @property
    def linear(self) -> bool:
        """Whether there is a linear part L x beside the units."""
        return len(self.fixed) > int(self.fit_intercept)

    def with_linear(self, linear: bool = True) -> "Problem":
        """Return the problem with a linear part beside the units, or without, same samples."""
        other = copy(self)
        other.fixed = np.eye(self.coordinates.to_inputs.shape[1])
        if not linear:
            other.fixed = other.fixed[: int(self.fit_intercept)]
        other._project()
        return other

    def spread(self, n_rows: int) -> "Problem":
        """Return the problem of rows spread evenly over the samples, in the same coordinates.

        Parameters
        ----------
        n_rows : int
            All samples if there are no more.

        Returns
        -------
        problem : Problem
        """
        if n_rows >= self.sample.n_samples:
            return self
        return self._of(self.sample.spread(n_rows))

    def taken(self, rows: NDArray[np.intp]) -> "Problem":
        """Return the problem of some of the samples, in the same coordinates.

        Parameters
        ----------
        rows : ndarray of shape (n_rows,)
            Their numbers.

        Returns
        -------
        problem : Problem
        """
        return self._of(self.sample.taken(rows))

    def _of(self, sample: Sample) -> "Problem":
        other = copy(self)
        other.sample = sample
        inputs, targets = other.sample.inputs, other.sample.targets
        other._gram, other._cross = inputs.T @ inputs, inputs.T @ targets
        other.total = float((targets**2).sum())
        other._project()
        return other

    def rescaled(self, scale: Matrix) -> "Problem":
        """Return the problem in other coordinates: these, each times a factor.

        Parameters
        ----------
        scale : ndarray of shape (n_coordinates,)
            Positive.

        Returns
        -------
        problem : Problem
            Of the same samples; coordinates of x are `scale` times the white ones.
        """
        other = copy(self)
        to_inputs, from_inputs, n_free = self.coordinates
        coordinates = Coordinates(to_inputs * scale, from_inputs / scale[:, None], n_free)
        other.coordinates = coordinates
        other._project()
        return other

    def _project(self) -> None:
        """Lay the samples out for projections, where there is a linear part."""
        arrays = self.sample, self.coordinates, self.activation, self.fixed
        self.projection = Projection(*arrays) if self.linear else None

    @property
    def unit(self) -> float:
        """Share of the loss that the weights explain by chance, n_parameters / (n n_outputs).

        n is the effective number of samples.
        """
        return self.n_parameters / (self.sample.n_effective * self.n_outputs)

    def variance(self, residuals: Residuals) -> float:
        """Estimate the variance of the noise of an output at an optimum, in the unit of the loss.

        Parameters
        ----------
        residuals : Residuals
            There, of these samples.

        Returns
        -------
        variance : float
            Loss over the observations less the weights; positive.
        """
        observations = self.sample.n_effective * self.n_outputs
        loss = max(residuals.loss, float(np.finfo(float).tiny))
        return loss / max(observations - self.n_parameters, 1.0)

    def effective(self, residuals: Residuals) -> float:
        """Effective number of the samples that residuals were summed over.

        Of samples that are not in memory the weights are taken to vary as of those that are.
        """
        sample = self.sample
        return sample.n_effective * (residuals.n_samples / sample.n_samples)

    @property
    def n_distinct(self) -> int:
        """Number of samples with different x, but for coincidence: equal ones are one equation."""
        inputs = self.sample.inputs
        root = inputs[:, 0]
        along = np.random.default_rng(0).standard_normal(inputs.shape[1] - 1)
        values = np.sort(inputs[:, 1:] @ along / root)
        size = max(np.abs(values).max(), float(np.finfo(float).tiny))
        return 1 + int((np.diff(values) > _SAME * size).sum())

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
        affine = np.concatenate([network.output_intercept[:, None], network.linear_weights], axis=1)
        if self.units is not None:
            weights, A = self.units.from_user(weights, A)
            affine = self.units.affine_from_user(affine)
        point = self.coordinates.point(weights, A)
        return self.completed(point, affine @ self.coordinates.from_inputs.T @ self.fixed.T)

    def network(self, point: Point) -> TwoLayerNetwork:
        """Network of a point, rows (bias, w) of unit length."""
        k = self.coordinates.n_free
        weights, outputs = self.coordinates.weights(point)[:k], point.outputs[:, :k]
        affine = point.outputs[:, k:] @ point.hidden[k:] @ self.coordinates.to_inputs.T
        if self.units is None:
            lengths = row_lengths(weights)
            weights, outputs = weights / lengths[:, None], outputs * lengths
        else:
            weights, outputs = self.units.to_user(weights, outputs)
            affine = self.units.affine_to_user(affine)
        return TwoLayerNetwork(
            weights[:, 1:],
            outputs,
            hidden_intercept=weights[:, 0] if self.fit_intercept else None,
            output_intercept=affine[:, 0] if self.fit_intercept else None,
            linear_weights=affine[:, 1:] if self.linear else None,
            negative_slope=self.activation.negative_slope,
        )

    def completed(self, point: Point, outputs: Matrix | None = None) -> Point:
        """Put the fixed units behind those of a point.

        Parameters
        ----------
        point : Point
            Of units that may turn.
        outputs : ndarray of shape (n_outputs, n_fixed), default=None
            Of the fixed ones; None: zeros.
        """
        if outputs is None:
            outputs = np.zeros((self.n_outputs, len(self.fixed)))
        return Point(
            np.concatenate([point.hidden, self.fixed]),
            np.concatenate([point.outputs, outputs], axis=1),
        )

    def residuals(self, point: Point) -> Residuals:
        """Loss and gradient at a point."""
        weights = self.coordinates.weights(point)
        slope, n_free = self.activation.negative_slope, self.coordinates.n_free
        return self.sample.residuals(weights, point.outputs, slope, n_free)

    def reached(self, point: Point) -> tuple[Point, Residuals]:
        """Loss and gradient at a point; with a linear part, its outputs are regressed anew."""
        if self.projection is not None:
            try:
                regression = self.projection.regress(point.hidden[: self.coordinates.n_free])
                return regression.point, self.projection.residuals(regression)
            except np.linalg.LinAlgError:
                pass  # what is not finite is found in the loss
        return point, self.residuals(point)

    def units_at(self, hidden: Matrix) -> Matrix:
        """Evaluate units, the fixed ones last, times the roots of the weights: (n_samples, K)."""
        t = self.sample.inputs @ (hidden @ self.coordinates.to_inputs.T).T
        return self.activation.of_units(t, len(hidden) - len(self.fixed))

    def regressed(self, hidden: Matrix) -> Point:
        """Point with these rows of units that may turn and all outputs that fit them best."""
        if self.projection is not None:
            return self.projection.regress(hidden).point
        hidden = np.concatenate([unit_rows(hidden), self.fixed])
        h = self.units_at(hidden)
        whiten = whitening(h.T @ h)
        return Point(hidden, (self.sample.targets.T @ h) @ whiten @ whiten.T)

    def normal(self, point: Point) -> Normal:
        """Gauss-Newton normal matrix at a point, formed or not as its size allows."""
        sample, coordinates = self.sample, self.coordinates
        if not self.is_dense:
            return ImplicitNormal(sample.inputs, sample.weight, point, coordinates, self.activation)
        slope, free = self.activation.negative_slope, coordinates.weights(point)
        moments = sample.mask_moments(free[: coordinates.n_free], slope)
        return DenseNormal(moments, point, coordinates, self._gram, slope)

    def _regression(self) -> Fit:
        """Fit of no units: the constant and the linear part alone."""
        point = self.regressed(np.empty((0, self.coordinates.to_inputs.shape[1])))
        residuals = self.residuals(point)
        exact = residuals.loss <= _EPS**2 * self.total
        only = Evaluation(residuals.loss / residuals.weight, 0.0, 0.0, 0.0, True)
        return Fit(point, residuals, self.normal(point), True, exact, [only])

    def fit(self, point: Point, *, roughly: bool = False) -> Fit:
        """Minimise the loss on these samples from a point; roughly: to a hundredth of the unit."""
        if not self.coordinates.n_free:
            return self._regression()
        tolerance, evaluations = TOLERANCE * self.unit, EVALUATIONS
        if roughly:
            tolerance, evaluations = _ROUGHLY * tolerance, _ROUGH_EVALUATIONS
        return minimise(self, point, tolerance=tolerance, max_evaluations=evaluations)


def _centred(rows: Matrix, roots: Matrix, gram: Matrix) -> tuple[Matrix, Matrix]:
    """Take the mean off sqrt(weight) x; a feature that is constant but for rounding becomes 0."""
    mean = gram[0, 1:] / gram[0, 0]
    rows = rows - roots * mean
    constant = (rows**2).sum(axis=0) <= _CONSTANT * np.diag(gram)[1:]
    rows[:, constant] = 0
    return rows, mean


def _white_coordinates(
    whiten: Matrix, C: Matrix, mean: Matrix | None, n_hidden: int
) -> Coordinates:
    """White coordinates of x, or, with a mean, of (1, x - mean)."""
    (d, rank), bias = whiten.shape, int(mean is not None)
    to_inputs, from_inputs = np.zeros((1 + d, bias + rank)), np.zeros((bias + rank, 1 + d))
    to_inputs[1:, bias:] = whiten
    from_inputs[bias:, 1:] = whiten.T @ C
    if mean is not None:
        to_inputs[0, 0] = from_inputs[0, 0] = 1
        to_inputs[0, 1:] = -mean @ whiten
        from_inputs[0, 1:] = mean
    return Coordinates(to_inputs, from_inputs, n_hidden)
