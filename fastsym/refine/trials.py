"""Trials of one hidden unit more or less: it counts if the loss falls by more than chance.

The fall is that from the best fit found without the unit to the best found with it, chance what
`fastsym.refine.chance` bounds.
"""

from collections.abc import Iterator
from copy import copy
from typing import NamedTuple

import numpy as np
from scipy import linalg

from fastsym.algebra import Matrix, unit_rows, whitening
from fastsym.refine.chance import RIDGE, Rows, between
from fastsym.refine.coordinates import Point
from fastsym.refine.minimisation import Fit, minimise
from fastsym.refine.problem import TOLERANCE, Problem
from fastsym.refine.starts import repaired

_WORTH_ADDING = (0.5, 0.7)  # fall at once, in units of the bound, from which a unit is tried
_WIDE = 16  # features above which the second of these counts: chance comes closer to the bound
_LOOKED_AT = 1 << 22  # numbers that a look for a new unit may take
_WORTH_REMOVING = 30.0  # the same, up to which it is tried without one
_NEAR = 0.7  # of the bound, from which another start for the same number may reach it
_TRIED = 3  # units taken out by turns
_SMALL = 0.01  # share of the sum of squares up to which it is tried in any case
_SPLITS = (0.02, 0.5)  # radians by which the halves of a unit are turned
_ROUGH = 0.03  # of the bound
_EVALUATIONS = 60
_MUCH = 10.0  # dependence of rows
_EXACT = 1e-24


class Count(NamedTuple):
    """A number of hidden units that was tried.

    Parameters
    ----------
    n_hidden : int
    loss : float
        Mean over the samples in memory of the squared norm of the residual.
    criterion : float
        The loss and what the units beyond the first number tried explain by chance: lower is
        better. NaN where a linear term decided.
    """

    n_hidden: int
    loss: float
    criterion: float


def _enlarged(point: Point, k: int, hidden: Matrix, output: Matrix) -> Point:
    """Put a unit after the k units of a point, before the constant."""
    return Point(np.insert(point.hidden, k, hidden, 0), np.insert(point.outputs, k, output, 1))


def _added(problem: Problem, rows: Rows, point: Point) -> Iterator[tuple[float, Point]]:
    """Yield points with a unit more, and by how much they lower the sum of squares at once.

    The unit goes where the residual bends or where it is linear, or a unit is split in two.
    """
    k, bias, residual = problem.coordinates.n_free, int(problem.fit_intercept), rows.residual(point)
    larger = problem.resized(k + 1)
    dead = np.eye(1, point.hidden.shape[1], bias)[0]
    grown = _enlarged(point, k, dead, np.zeros(problem.n_outputs))
    looked_at = copy(larger)
    size = problem.sample.n_samples * problem.n_outputs * rows.x.shape[1]
    looked_at.sample = problem.sample.thinned(1 + size // _LOOKED_AT)
    directions = [start.point(larger).hidden[k] for start in repaired(looked_at, grown)]
    directions.append(dead.copy())
    directions[-1][bias:] = np.linalg.svd(rows.x.T @ residual, full_matrices=False)[0][:, 0]
    units = rows.units(point)
    gram = units.T @ units
    for direction in directions:
        # A bend does not tell a direction from its opposite.
        both = np.stack([direction, -direction])
        h = rows.activation(rows.all @ both.T)
        shared = linalg.lstsq(gram, units.T @ h, check_finite=False)[0]
        h -= units @ shared
        size = np.maximum((h**2).sum(axis=0), np.finfo(float).tiny)
        products = h.T @ residual / size[:, None]
        falls = (products**2).sum(axis=1) * size
        side = int(falls.argmax())
        outputs = point.outputs - np.outer(products[side], shared[:, side])
        start = _enlarged(point._replace(outputs=outputs), k, both[side], products[side])
        yield float(falls[side]), start
    yield from _split(rows, point, k, residual)


def _split(rows: Rows, point: Point, k: int, residual: Matrix) -> Iterator[tuple[float, Point]]:
    """Yield the point where the unit is split of which the residual tells two sides apart.

    At an optimum sum s_i x r^T is zero along the unit's own outputs only.
    """
    step = 1 + k * rows.all.size // _LOOKED_AT
    falls = [_sides(rows, w, residual, step)[0] for w in point.hidden[:k]]
    i = int(np.argmax(falls))
    w, a = point.hidden[i], point.outputs[:, i]
    fall, turn, b = _sides(rows, w, residual, 1)
    if fall == 0:
        return
    angle = float(np.linalg.norm(b)) / max(float(np.linalg.norm(a)), 1e-300)
    angle = float(np.clip(angle, *_SPLITS))
    hidden, outputs = point.hidden.copy(), point.outputs.copy()
    hidden[i], other = unit_rows(np.stack([w + angle * turn, w - angle * turn]))
    outputs[:, i] = a / 2 + b / (2 * angle)
    yield fall, _enlarged(Point(hidden, outputs), k, other, a / 2 - b / (2 * angle))


def _sides(rows: Rows, w: Matrix, residual: Matrix, step: int) -> tuple[float, Matrix, Matrix]:
    """Fit s(w.x) (turn.x) b to every step-th row of the residual: fall of its squares, turn, b."""
    x, across = rows.all[::step], linalg.null_space(w[None])
    turned = rows.activation.derivative(x @ w)[:, None] * (x @ across)
    whiten = whitening(turned.T @ turned, RIDGE) if turned.size else turned
    if not whiten.size:
        return 0.0, np.zeros_like(w), np.zeros(residual.shape[1])
    products = whiten.T @ (turned.T @ residual[::step])
    left, S, right = np.linalg.svd(products, full_matrices=False)
    turn = across @ (whiten @ left[:, 0])
    length = float(np.linalg.norm(turn))
    return float(S[0] ** 2), turn / length, S[0] * right[0] * length


def _without(rows: Rows, point: Point, k: int) -> Iterator[tuple[float, int, Point]]:
    """Yield cost, number of the unit and point without it, the outputs of the others refitted.

    The unit that costs least comes first.
    """
    h = rows.units(point)
    gram = h.T @ h
    scale = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    inverse = linalg.pinvh(gram / scale / scale[:, None] + RIDGE * np.eye(len(gram)))
    inverse = inverse / scale / scale[:, None]
    costs = (point.outputs[:, :k] ** 2).sum(axis=0) / np.diag(inverse)[:k]
    for j in np.argsort(costs):
        outputs = point.outputs - np.outer(point.outputs[:, j], inverse[j] / inverse[j, j])
        rest = np.arange(len(point.hidden)) != j
        yield float(costs[j]), int(j), Point(point.hidden[rest], outputs[:, rest])


class Trials:
    """The present fit, the numbers of units tried, and the falls that decided.

    Parameters
    ----------
    problem : Problem
        Of the number of units to begin with.
    point : Point
        Where to begin.

    Attributes
    ----------
    problem, fit
        Of the number of units found so far.
    path : list of Count
    ratios : dict of int to float
        By k, the fall of the loss from k - 1 to k units, in units of the bound.
    """

    def __init__(self, problem: Problem, point: Point) -> None:
        self.rows, self.problem = Rows(problem), problem
        self.fit = problem.fit(point)
        self.criterion = self.fit.residuals.loss
        self.path = [self._count(problem, self.fit, self.criterion)]
        self.ratios: dict[int, float] = {}

    def _count(self, problem: Problem, fit: Fit, criterion: float) -> Count:
        loss = fit.residuals.loss
        mean = problem.user_loss(fit.residuals) / self.rows.weight
        ratio = criterion / loss if loss > 0 else 1.0
        return Count(problem.coordinates.n_free, float(mean), float(mean * ratio))

    def _compared(self, smaller: Fit, larger: Fit, unit: int, n_parameters: int) -> float:
        """Bound on the fall between two fits, `unit` the one that only the larger has."""
        hidden, output = larger.point.hidden[unit], larger.point.outputs[:, unit]
        bounds = [
            self.rows.chance(self.rows.residual(one.point), hidden, output, n_parameters)
            for one in (smaller, larger)
        ]
        return between(*bounds)

    def _at_most(self) -> float:
        """Cost that exceeds the limit unless rows depend very much on each other."""
        n, m = self.rows.n, self.problem.n_outputs
        x = np.log(n) + self.rows.x.shape[1]
        chance = m + 2 * np.sqrt(m * x) + 2 * x
        return float(_MUCH * _WORTH_REMOVING * chance * self.fit.residuals.loss / n)

    def _roughly(self, problem: Problem, point: Point, bound: float) -> Fit:
        """Minimise until what is left is small beside the bound, where evaluations take time."""
        if not self.rows.many:
            return problem.fit(point)
        tolerance = max(TOLERANCE * problem.unit, _ROUGH * bound / self.fit.residuals.loss)
        return minimise(problem, point, tolerance=tolerance, max_evaluations=_EVALUATIONS)

    def exact(self, fit: Fit) -> bool:
        """Whether only rounding is left of the samples.

        Parameters
        ----------
        fit : Fit

        Returns
        -------
        exact : bool
        """
        return fit.exact or fit.residuals.loss <= _EXACT * self.problem.total

    def settle(self) -> None:
        """Add units while they are needed, and then remove those that are not."""
        limit = min(self.problem.sample.n_features, self.problem.n_outputs)
        while self.problem.coordinates.n_free < limit and self.add():
            pass
        while self.remove():
            pass

    def add(self) -> bool:
        """Try a unit more.

        Returns
        -------
        added : bool
            False if it is not needed.
        """
        k, n_parameters = self.problem.coordinates.n_free, self.problem.n_parameters
        if self.exact(self.fit):
            return False
        larger = self.problem.resized(k + 1)
        residual = self.rows.residual(self.fit.point)
        best: Fit | None = None
        candidates = _added(self.problem, self.rows, self.fit.point)
        for fall, point in sorted(candidates, key=lambda one: -one[0]):
            bound = self.rows.chance(residual, point.hidden[k], point.outputs[:, k], n_parameters)
            if self.rows.many and fall < _WORTH_ADDING[self.rows.x.shape[1] > _WIDE] * bound:
                continue
            fit = self._roughly(larger, point, bound)
            if best is None or fit.residuals.loss < best.residuals.loss:
                best = fit
            ratio = (self.fit.residuals.loss - fit.residuals.loss) / bound
            if self.rows.many and not _NEAR < ratio < 1:
                break
        if best is None:
            return False
        bound = self._compared(self.fit, best, k, n_parameters)
        return self._judged(larger, best, self.fit.residuals.loss - best.residuals.loss, bound, 1)

    def remove(self) -> bool:
        """Try a unit less.

        Returns
        -------
        removed : bool
            False if it is needed.
        """
        k = self.problem.coordinates.n_free
        if k <= 1:
            return False
        smaller = self.problem.resized(k - 1)
        candidates = list(_without(self.rows, self.fit.point, k))[: 1 if self.rows.many else _TRIED]
        if not self._is_worth_removing(*candidates[0][:2], smaller.n_parameters):
            return False
        fits = [(smaller.fit(point), j) for _, j, point in candidates]
        fit, j = min(fits, key=lambda one: one[0].residuals.loss)
        if self.exact(self.fit) and not self.exact(fit):
            return False
        bound = self._compared(fit, self.fit, j, smaller.n_parameters)
        return self._judged(smaller, fit, fit.residuals.loss - self.fit.residuals.loss, bound, -1)

    def _is_worth_removing(self, cost: float, j: int, n_parameters: int) -> bool:
        """Whether a unit costs so little that a fit without it may do."""
        small = _SMALL * self.problem.total
        if self.exact(self.fit):
            return cost <= 1e-6 * self.problem.total
        if cost <= small:
            return True
        if cost > self._at_most():
            return False
        point = self.fit.point
        residual = self.rows.residual(point)
        bound = self.rows.chance(residual, point.hidden[j], point.outputs[:, j], n_parameters)
        return cost <= _WORTH_REMOVING * bound

    def _judged(self, problem: Problem, fit: Fit, fall: float, bound: float, sign: int) -> bool:
        """Take a fit with one unit more (sign 1) or less (-1) in place of the present one."""
        k = max(problem.coordinates.n_free, self.problem.coordinates.n_free)
        self.ratios[k] = fall / bound if bound > 0 else np.inf
        criterion = self.criterion + sign * (bound - fall)
        self.path.append(self._count(problem, fit, criterion))
        taken = fall > bound if sign > 0 else fall <= bound
        if taken:
            self.problem, self.fit, self.criterion = problem, problem.fit(fit.point), criterion
        return taken
