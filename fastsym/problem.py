"""Samples held in memory for refinement: starts, their optima, and which of them to believe."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym._validation import as_generator
from fastsym.frame import whitening
from fastsym.gauss_newton import (
    DENSE_PARAMETERS,
    Coordinates,
    DenseNormal,
    Fit,
    ImplicitNormal,
    Normal,
    Point,
    minimise,
    unit_rows,
)
from fastsym.network import TwoLayerNetwork
from fastsym.residuals import Residuals, Sample

Matrix = NDArray[np.float64]

MISFIT = 5.0
"""Lack of fit, in standard deviations, from which a start is in doubt."""

PARALLEL = 0.999
"""Cosine of two units, or of their outputs, from which they are one."""

TOLERANCE = 1e-3
"""Decrease still promised, of the loss that the weights explain by chance.

The distance from the optimum is then about the square root of this in standard errors, and adds
this share to the squared error.
"""

_AGREEMENT = 0.01  # in the same unit
_SEVERAL = 4  # starts
_MISFIT_ROWS = 8192  # enough to see what spoils a neuron
_COARSE = 0.015  # share of the loss that the weights explain, above which kinks are far apart
_KICKS = (2.0, 4.0, 8.0, 2.0, 4.0, 8.0)  # standard errors
_EVALUATIONS = 200
_DEAD = 1e-8
_UNDETERMINED = 0.3  # standard error of an angle, in radians
_NO_ANGLE = 1e100
_TINY = float(np.finfo(float).tiny)


class Problem:
    """Samples in memory, in white coordinates.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    weights : ndarray of shape (n_samples,) or None
        Positive; None: all 1.
    n_hidden : int
    slope : float
        Of the activation for negative arguments.
    fit_intercept : bool
    n_jobs : int or None
    """

    def __init__(
        self,
        X: NDArray[Any],
        Y: NDArray[Any],
        weights: NDArray[Any] | None,
        n_hidden: int,
        slope: float,
        fit_intercept: bool,
        n_jobs: int | None,
    ) -> None:
        self.sample = Sample(X, Y, weights, n_jobs)
        self.slope, self.fit_intercept = slope, fit_intercept
        self.n_outputs = self.sample.n_outputs
        inputs, targets = self.sample.inputs, self.sample.targets
        total = self.sample.weight
        C = inputs[:, 1:].T @ inputs[:, 1:] / total
        whiten = whitening(C)
        d, rank = whiten.shape
        bias = int(fit_intercept)
        to_inputs = np.zeros((1 + d, bias + rank))
        from_inputs = np.zeros((bias + rank, 1 + d))
        to_inputs[1:, bias:] = whiten
        from_inputs[bias:, 1:] = whiten.T @ C
        if fit_intercept:
            to_inputs[0, 0] = from_inputs[0, 0] = 1
        self.coordinates = Coordinates(to_inputs, from_inputs, n_hidden)
        # A W in white coordinates of x
        self.linear_part = 2 / (1 + slope) * (targets.T @ inputs[:, 1:] / total) @ whiten
        self.total = float((targets**2).sum())
        n_units = n_hidden + bias
        self.n_parameters = n_hidden * (bias + rank - 1) + self.n_outputs * n_units

    @property
    def unit(self) -> float:
        """Share of the loss that the weights explain by chance, n_parameters / (n n_outputs)."""
        return self.n_parameters / (self.sample.n_samples * self.n_outputs)

    def point(self, network: TwoLayerNetwork) -> Point:
        """White coordinates of a network."""
        W, A = network.hidden_weights, network.output_weights
        weights = np.concatenate([network.hidden_intercept[:, None], W], axis=1)
        if self.fit_intercept:
            constant = np.zeros((1, 1 + network.n_features))
            constant[0, 0] = 1
            weights = np.concatenate([weights, constant])
            A = np.concatenate([A, network.output_intercept[:, None]], axis=1)
        return self.coordinates.point(weights, A)

    def network(self, point: Point) -> TwoLayerNetwork:
        """Network of a point, rows (bias, w) of unit length."""
        k = self.coordinates.n_free
        weights = self.coordinates.weights(point)[:k]
        length = np.linalg.norm(weights, axis=1)
        length = np.where(length > 0, length, 1)
        weights = weights / length[:, None]
        return TwoLayerNetwork(
            weights[:, 1:],
            point.outputs[:, :k] * length,
            hidden_intercept=weights[:, 0] if self.fit_intercept else None,
            output_intercept=point.outputs[:, k] if self.fit_intercept else None,
            negative_slope=self.slope,
        )

    def residuals(self, point: Point) -> Residuals:
        """Loss and gradient at a point."""
        return self.sample.residuals(self.coordinates.weights(point), point.outputs, self.slope)

    def normal(self, point: Point) -> Normal:
        """Gauss-Newton normal matrix at a point, formed or not as its size allows."""
        weights = self.coordinates.weights(point)
        if self.coordinates.n_free * self.coordinates.to_inputs.shape[1] > DENSE_PARAMETERS:
            return ImplicitNormal(self.sample, point, self.coordinates, self.slope)
        moments = self.sample.mask_moments(weights, self.slope)
        return DenseNormal(moments, point, self.coordinates)

    def fit(self, point: Point) -> Fit:
        """Minimise the loss on these samples from a point."""
        return minimise(
            point,
            self.coordinates,
            self.residuals,
            self.normal,
            total=self.total,
            tolerance=TOLERANCE * self.unit,
            max_evaluations=_EVALUATIONS,
        )

    def misfit(self, point: Point) -> float:
        """Measure how the residual depends on x, in standard deviations; infinite if it is not.

        With features phi = w.x of the units and |v.x + b| for random directions v in the span of
        A W, b = 0 for half of them, centred and white, sum |sum r phi|^2 / n has expectation
        tr(S) n_phi and variance 2 tr(S^2) n_phi for noise of covariance S that does not depend on
        x.
        """
        weights, k = self.coordinates.weights(point), self.coordinates.n_free
        step = max(1, self.sample.n_samples // max(_MISFIT_ROWS, 16 * (5 * k + 1)))
        inputs = self.sample.inputs[::step]
        t = inputs @ weights.T
        residual = (
            self.sample.targets[::step] - np.where(t > 0, t, self.slope * t) @ point.outputs.T
        )
        # The span of A W, from second moments alone, is right also where the fit is not.
        bias, rng = int(self.fit_intercept), np.random.default_rng(0)
        span = np.linalg.svd(self.linear_part, full_matrices=False)[2][:k]
        directions = rng.standard_normal((4 * k, len(span))) @ span
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        offsets = 0.7 * rng.standard_normal(4 * k) * (np.arange(4 * k) % 2)
        axes = self.coordinates.to_inputs[:, bias:] @ directions.T
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

    def moment_starts(self, rng: np.random.Generator) -> Iterator[Point]:
        """Yield starts without end, A0 = U S^1/2 Q, W0 = Q^T S^1/2 V^T for random orthogonal Q.

        U S V^T is the best approximation of A W of rank n_hidden.
        """
        k = self.coordinates.n_free
        U, S, V = np.linalg.svd(self.linear_part, full_matrices=False)
        rank = min(k, len(S))
        while True:
            Q = np.linalg.qr(rng.standard_normal((k, k)))[0][:rank]
            hidden = (Q.T * np.sqrt(S[:rank])) @ V[:rank]
            outputs = (U[:, :rank] * np.sqrt(S[:rank])) @ Q
            yield self._with_constants(hidden, outputs, rng)

    def _with_constants(self, hidden: Matrix, outputs: Matrix, rng: np.random.Generator) -> Point:
        k = len(hidden)
        if self.fit_intercept:
            # Moments say nothing of biases: they are drawn, of the size of the units' arguments.
            size = np.linalg.norm(hidden, axis=1, keepdims=True)
            biases = 0.5 * size * rng.standard_normal((k, 1))
            hidden = np.concatenate([biases, hidden], axis=1)
            hidden = np.concatenate([hidden, np.eye(1, hidden.shape[1])])
            outputs = np.concatenate([outputs, np.zeros((len(outputs), 1))], axis=1)
        return unit_rows(hidden, outputs, k)

    def flaws(self, point: Point, errors: Matrix | None = None) -> list[tuple[int, int]]:
        """List pairs (i, j) of units that are one, and (i, i) for a unit that does nothing.

        With errors of shape (n_hidden,), those of the units' angles in radians, units count as one
        from three standard errors of their angle on, and as doing nothing if their angle is not
        determined.
        """
        k = self.coordinates.n_free
        size = np.linalg.norm(point.outputs[:, :k], axis=0)
        dead = size <= _DEAD * max(size.max(), np.finfo(float).tiny)
        if errors is not None:
            dead |= errors > _UNDETERMINED
        pairs = [(int(i), int(i)) for i in np.flatnonzero(dead)]
        alive = np.flatnonzero(~dead)
        known = None if errors is None else errors[alive]
        return pairs + [
            (int(alive[i]), int(alive[j])) for i, j in parallel(point.hidden[alive], known)
        ]

    def angle_errors(self, point: Point, residuals: Residuals) -> tuple[Matrix, Matrix]:
        """Estimate the errors of the angles of rows of W and of columns of A, in radians.

        Each of shape (n_hidden,), from the diagonal of the normal matrix: half of the samples are
        on the active side of a unit, so that sum s u u^T is about weight / 2 in white coordinates.
        """
        k = self.coordinates.n_free
        size = np.linalg.norm(point.outputs[:, :k], axis=0)
        variance = residuals.loss / (residuals.weight * self.n_outputs)
        information = size**2 * residuals.weight / 2
        # A unit that does nothing has no angle: the limit keeps products with it finite.
        error = np.sqrt(variance / np.maximum(information, variance * _NO_ANGLE**-2 + _TINY))
        dimension = self.coordinates.to_inputs.shape[1]
        return error * np.sqrt(dimension - 1), error * np.sqrt(self.n_outputs - 1)

    def repaired(self, point: Point) -> Point | None:
        """Merge doubled units, and set free ones where the residual bends most.

        The even part of a missing unit is a |w.x|, so that sum r_o x x^T has a w w^T in it: the
        free unit gets the leading eigenvector of the output direction that shows most of it.
        """
        free = sorted({j for _, j in self.flaws(point)})
        if not free:
            return None
        bias = int(self.fit_intercept)
        hidden, outputs = point.hidden.copy(), point.outputs.copy()
        for i, j in self.flaws(point):
            if i != j and hidden[i] @ hidden[j] > 0:
                outputs[:, i] += outputs[:, j]
            outputs[:, j] = 0
        x = self.sample.inputs @ self.coordinates.to_inputs[:, bias:]
        for j in free:
            t = self.sample.inputs @ self.coordinates.weights(Point(hidden, outputs)).T
            residual = self.sample.targets - np.where(t > 0, t, self.slope * t) @ outputs.T
            q = x.shape[1]
            bends = np.einsum("no,na,nb->oab", residual, x, x, optimize=True)
            bends -= np.trace(bends, axis1=1, axis2=2)[:, None, None] * np.eye(q) / q
            direction = np.linalg.svd(bends.reshape(len(bends), -1), full_matrices=False)[0][:, 0]
            values, vectors = np.linalg.eigh(np.tensordot(direction, bends, 1))
            hidden[j] = 0
            hidden[j, bias:] = vectors[:, np.abs(values).argmax()]
            unit = x @ hidden[j, bias:]
            active = np.where(unit > 0, unit, self.slope * unit)
            if (square := active @ active) > 0:
                outputs[:, j] = active @ residual / square
        return Point(hidden, outputs)


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
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / np.where(length > 0, length, 1)
    cosine = np.minimum(np.abs(units @ units.T), 1.0)
    close = cosine > PARALLEL
    if errors is not None:
        close |= np.arccos(cosine) < 3 * np.hypot(errors[:, None], errors)
    first, second = np.nonzero(np.triu(close, 1))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def search(
    problem: Problem,
    start: Point,
    trusted: bool,
    max_starts: int,
    random_state: Any = None,
    say: Callable[[str], object] = lambda _: None,
) -> tuple[list[Fit], str, float]:
    """Minimise on the sample from as many starts as certify the lowest loss.

    Parameters
    ----------
    problem : Problem
    start : Point
    trusted : bool
        As for `refine`.
    max_starts : int
    random_state : None, int, RandomState or Generator
    say : callable
        Called with a line for each start.

    Returns
    -------
    fits : list of Fit
    certificate : str
        As in `Refinement`.
    misfit : float
        Of the best fit; 0 if it is exact.
    """
    rng = as_generator(0 if random_state is None else random_state)
    others = problem.moment_starts(rng)
    fits: list[Fit] = []
    point, repaired = start, None
    scale = problem.sample.weight
    misfit = 0.0
    for number in range(1, max(max_starts, 1) + 1):
        fit = problem.fit(point)
        fits.append(fit)
        last = fit.history[-1]
        say(
            f"fastsym: start {len(fits)}: loss {fit.residuals.loss / scale:.6g} after "
            f"{len(fit.history)} evaluations, gradient norm {last.gradient_norm:.2g}"
        )
        best = lowest_loss(fits)
        if best.exact:
            return fits, "exact", 0.0
        flaws = problem.flaws(fit.point)
        if len(fits) == 1:
            misfit = problem.misfit(fit.point)
            if trusted and fit.converged and misfit < MISFIT and not flaws:
                return fits, "spectral", misfit
        lowest = best.residuals.loss
        agreeing = sum(
            one.residuals.loss - lowest <= _AGREEMENT * problem.unit * lowest for one in fits
        )
        if agreeing > 1 or len(fits) >= min(_SEVERAL, max_starts):
            misfit = problem.misfit(best.point)
            # With a lack of fit the model is wrong, or the starts are all in one wrong valley,
            # of which there are many where biases are free.
            needed = 2 if misfit < MISFIT else _SEVERAL
            if agreeing >= needed and not (problem.fit_intercept and misfit >= MISFIT):
                return fits, "agreement", misfit
            if len(fits) >= _SEVERAL and misfit < MISFIT:
                return fits, "no lack of fit", misfit
        # A flaw that comes back after a repair belongs to the network, or to the samples.
        repaired = (
            problem.repaired(fit.point) if flaws and fit is best and repaired is None else None
        )
        if number < max_starts:
            point = next(others) if repaired is None else repaired
    return fits, "none", misfit


def lowest_loss(fits: Sequence[Fit]) -> Fit:
    """Pick the fit of the lowest loss; one whose loss is not a number is above all others.

    Parameters
    ----------
    fits : sequence of Fit

    Returns
    -------
    fit : Fit
    """
    return min(fits, key=lambda one: _or_infinity(one.residuals.loss))


def _or_infinity(loss: float) -> float:
    return loss if np.isfinite(loss) else np.inf


def settle(problem: Problem, fit: Fit, random_state: Any = None) -> list[Fit]:
    """Minimise again from near an optimum, where few samples make the loss rough.

    With few samples for each weight the kinks of the loss, one where a sample changes sides of a
    unit, are as far apart as the standard errors, and each may hold a minimum. Units are moved by
    two to eight standard errors at random, and the lowest loss is kept.

    Parameters
    ----------
    problem : Problem
    fit : Fit
    random_state : None, int, RandomState or Generator

    Returns
    -------
    fits : list of Fit
        None if the fit is exact or the samples are many.
    """
    if fit.exact or problem.unit < _COARSE or not np.isfinite(fit.residuals.loss):
        return []
    rng = as_generator(0 if random_state is None else random_state)
    k = problem.coordinates.n_free
    fits = []
    for kick in _KICKS:
        hidden, outputs = fit.point.hidden.copy(), fit.point.outputs
        errors = problem.angle_errors(fit.point, fit.residuals)[0] / np.sqrt(hidden.shape[1])
        errors = np.minimum(errors, 1.0)
        hidden[:k] += kick * errors[:, None] * rng.standard_normal(hidden[:k].shape)
        hidden[:k] /= np.linalg.norm(hidden[:k], axis=1, keepdims=True)
        fits.append(problem.fit(Point(hidden, outputs)))
        if fits[-1].residuals.loss < fit.residuals.loss:
            fit = fits[-1]
    return fits
