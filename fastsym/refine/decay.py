"""Weight decay: alpha (|W|^2 + |A|^2) beside the loss, where samples do not determine the weights.

Scale moves freely between a unit's row of W and its column of A, so that this is 2 alpha times the
sum of |a_i| |w_i|: at a large alpha there are few units, as with the lasso. W is measured in
standard deviations of the features, biases are free, and the linear part has a ridge of its own. At
given lengths the penalty is a sum of squares that touches it from above: each step, and each
regression, minimises that one and lowers the other (majorisation).

References: Krogh and Hertz (1991), "A simple weight decay can improve generalization"; Neyshabur,
Tomioka and Srebro (2015), arXiv:1412.6614, for the sum over units; Bach (2017), arXiv:1412.8690,
for units that join one by one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fastsym.algebra import Matrix
from fastsym.refine.coordinates import Point
from fastsym.refine.greedy import Effort, Scores, picked_rows
from fastsym.refine.implicit import ImplicitNormal
from fastsym.refine.minimisation import minimise
from fastsym.refine.normal import Normal, Penalty
from fastsym.refine.problem import Problem
from fastsym.refine.projection import Projection, Regression
from fastsym.sums.values import Residuals

MOST_UNITS = 64
"""Units that a path may have."""

_WEIGHTS = 4.0  # of units for each observation at most
_EFFORT = Effort(drawn=150, climbing=10, climbing_far=4, climbs=5)
_ROUNDS, _JOINING = 2, 3  # rounds in which units join at each alpha, and how many in each
_STEPS, _TOLERANCE = 4, 1e-3  # evaluations of a round, and the relative decrease that ends it
_CG_ITERATIONS, _CG_TOLERANCE = 10, 0.2
_OVER = 1.02  # times alpha: what a unit that joins must offer
_DEAD = 1e-4  # share of the largest |a| |w| below which a unit is dropped
_RIDGES = np.logspace(-4, 4, 41)  # of n
_EPS = 1e-9
_INFLATED = 1.4  # times that degrees of freedom count in choosing the ridge
_HINT = 1e-4  # share of a product below alpha |w| that still says which way is up
_LEAST = 1e-3  # share of a unit's square that is taken to be its own


class Decay(NamedTuple):
    """What is added to the sum of squared residuals."""

    alpha: float
    """Of (|W|^2 + |A|^2)."""
    ridge: float
    """Of |L|^2."""


@dataclass(frozen=True)
class PenalisedResiduals(Residuals):
    """Residuals of samples, and what the weights add to the loss and its gradients."""

    penalty: float = 0.0

    @property
    def loss(self) -> float:
        """Sum of squared residuals and penalty."""
        return float(np.trace(self.residual_moment)) + self.penalty


class Decayed:
    """The loss of samples in memory with weight decay, an `Objective`.

    Parameters
    ----------
    problem : Problem
        With a linear part.
    decay : Decay

    Raises
    ------
    ValueError
        If the problem has no linear part.
    """

    def __init__(self, problem: Problem, decay: Decay) -> None:
        if problem.projection is None:
            raise ValueError("weight decay is for problems with a linear part; use with_linear().")
        self.problem, self.decay = problem, decay
        self.projection: Projection = problem.projection
        self.coordinates, self.total = problem.coordinates, problem.total
        T = self.coordinates.to_inputs
        # |w|^2 of a row h of white coordinates, in standard deviations of the features: h metric h
        self._variances = np.concatenate([[0.0], np.diag(problem.input_moment)])
        self.metric = (T.T * self._variances) @ T
        self._ridge = decay.ridge * (problem.fixed @ self.metric @ problem.fixed.T)

    def lengths(self, rows: Matrix) -> Matrix:
        """Lengths |w| of rows (b, w), shape (n_rows,)."""
        return np.sqrt(np.maximum(np.einsum("ij,ij->i", rows @ self.metric, rows), 0))

    def products(self, point: Point) -> Matrix:
        """Return |a| |w| of the units that may turn, shape (n_free,)."""
        k = self.coordinates.n_free
        return np.linalg.norm(point.outputs[:, :k], axis=0) * self.lengths(point.hidden[:k])

    def _about(self, point: Point) -> Penalty:
        """Squares that touch the penalty at a point."""
        k, alpha = self.coordinates.n_free, self.decay.alpha
        columns = np.linalg.norm(point.outputs[:, :k], axis=0)
        columns = np.maximum(columns, _EPS * max(columns.max(initial=0), _EPS))
        scale = columns / np.maximum(self.lengths(point.hidden[:k]), _EPS)
        outputs = np.zeros((len(point.hidden), len(point.hidden)))
        outputs[np.arange(k), np.arange(k)] = alpha / np.maximum(scale, _EPS)
        outputs[k:, k:] = self._ridge
        return Penalty(alpha * scale, self.metric, outputs)

    def regress(self, point: Point) -> Regression:
        """Regress the outputs at given rows, about those of a point: the loss does not rise."""
        hidden = point.hidden[: self.coordinates.n_free]
        return self.projection.regress(hidden, self._about(point).outputs)

    def reached(self, point: Point) -> tuple[Point, Residuals]:
        """Point with its outputs regressed, and loss and gradient there."""
        regression = self.regress(point)
        point, k = regression.point, self.coordinates.n_free
        sums, about = self.projection.residuals(regression), self._about(point)
        fixed = point.outputs[:, k:]
        penalty = 2 * self.decay.alpha * self.products(point).sum()
        penalty += np.einsum("ij,ij->", fixed @ self._ridge, fixed)
        rows = self.coordinates.weights(point)[:k]
        gradient = regression.residual @ regression.units.T - point.outputs @ about.outputs
        return point, PenalisedResiduals(
            n_samples=sums.n_samples,
            weight=sums.weight,
            hidden_gradient=sums.hidden_gradient - about.hidden[:, None] * rows * self._variances,
            output_gradient=gradient,
            residual_moment=sums.residual_moment,
            penalty=float(penalty),
        )

    def normal(self, point: Point) -> Normal:
        """Gauss-Newton normal matrix at a point, not formed."""
        sample = self.problem.sample
        return ImplicitNormal(
            sample.inputs, sample.weight, point, self.coordinates, self.problem.activation,
            self._about(point), tolerance=_CG_TOLERANCE, iterations=_CG_ITERATIONS,
        )  # fmt: skip

    def fit(self, point: Point) -> Point:
        """Take some steps of Levenberg-Marquardt."""
        if not self.coordinates.n_free:
            return self.regress(point).point
        return minimise(self, point, tolerance=_TOLERANCE, max_evaluations=_STEPS).point


class _Offers(Scores):
    """Scores of units with decay: products with the residual count above alpha |w|."""

    def __init__(self, decayed: Decayed, regression: Regression) -> None:
        slope = decayed.problem.activation.negative_slope
        super().__init__(decayed.projection, regression, slope)
        self._decayed = decayed

    def parts(self, rows: Matrix) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """As of `Scores`, the products shrunk; next to nothing is left of those below."""
        h, explained, products = super().parts(rows)
        sizes = np.maximum(np.linalg.norm(products, axis=0), _EPS)
        offered = 1 - _OVER * self._decayed.decay.alpha * self._decayed.lengths(rows) / sizes
        return h, explained, products * np.maximum(offered, _HINT)

    def joining(self, rows: Matrix) -> tuple[Matrix, Matrix]:
        """Rows that offer more than their decay costs, and outputs to begin with."""
        h, explained, products = super().parts(rows)
        sizes = np.linalg.norm(products, axis=0)
        enough = sizes > _OVER * self._decayed.decay.alpha * self._decayed.lengths(rows)
        h, explained, products = self.parts(rows[enough])
        squares = np.einsum("ij,ij->i", h, h)
        left = np.maximum(squares - (explained**2).sum(axis=0), _LEAST * squares)
        return rows[enough], (products / np.maximum(left, _EPS)).astype(np.float64)


class DecayPath:
    """Networks of ever less weight decay, each from the one before, with units that join.

    At an optimum |sum r h(w x + b)| <= alpha |w| for all rows (b, w): as long as candidates exceed
    that, units join. The number of units is therefore that of the decay, as with the lasso.

    Parameters
    ----------
    problem : Problem
        With a linear part, of any n_hidden.
    ridge : float
        Of |L|^2.
    rng : Generator
    most : int, default=64
        Units at most.

    Attributes
    ----------
    point : Point
        The last network; at first that without units.
    problem : Problem
        Of its number of units.
    decay : Decay
        That it was fitted with.
    unit : float
        Of alpha: sigma sqrt(n), sigma^2 the mean square that no unit leaves.
    """

    def __init__(
        self, problem: Problem, ridge: float, rng: np.random.Generator, most: int = MOST_UNITS
    ) -> None:
        self._rng, self._whole = rng, problem
        self.problem, self.decay = problem.resized(0), Decay(0.0, ridge)
        empty = np.empty((0, problem.coordinates.to_inputs.shape[1]))
        start = self.problem.completed(Point(empty, np.empty((problem.n_outputs, 0))))
        self.point, residuals = Decayed(self.problem, self.decay).reached(start)
        sample = problem.sample
        variance = np.trace(residuals.residual_moment) / (sample.weight * problem.n_outputs)
        self.unit = float(np.sqrt(variance / sample.n_effective)) * sample.weight
        weights = empty.shape[1] - 1 + problem.n_outputs  # of a unit
        room = _WEIGHTS * sample.n_effective * problem.n_outputs / weights
        self._most = min(most, int(room) + 1)
        self._joining = max(_JOINING, problem.n_outputs // 2)

    @property
    def n_hidden(self) -> int:
        """Units of the last network."""
        return self.problem.coordinates.n_free

    def lower(self, share: float) -> Point:
        """Go on to another alpha.

        Parameters
        ----------
        share : float
            alpha in units of sigma sqrt(n), sigma^2 the mean square that no unit leaves.

        Returns
        -------
        point : Point
        """
        self.decay = self.decay._replace(alpha=float(share) * self.unit)
        self.point = Decayed(self.problem, self.decay).fit(self.point)
        for _ in range(_ROUNDS):
            if self.n_hidden >= self._most or not self._join():
                break
            self.point = Decayed(self.problem, self.decay).fit(self.point)
        self._drop()
        return self.point

    def _join(self) -> bool:
        """Let units join where the residual asks for them; whether any did."""
        decayed = Decayed(self.problem, self.decay)
        regression = decayed.regress(self.point)
        score = _Offers(decayed, regression)
        n_more = min(self._joining, self._most - self.n_hidden)
        problem, residual = self.problem, regression.residual
        rows = picked_rows(problem, residual, score, n_more, self._rng, _EFFORT)
        rows, columns = score.joining(rows)
        if not len(rows):
            return False
        k, outputs = self.n_hidden, regression.point.outputs
        hidden = np.concatenate([regression.point.hidden[:k], rows])
        self._stand(hidden, np.concatenate([outputs[:, :k], columns], axis=1), outputs[:, k:])
        return True

    def _drop(self) -> None:
        """Drop units of which decay has left nothing."""
        sizes, k = Decayed(self.problem, self.decay).products(self.point), self.n_hidden
        kept = np.flatnonzero(sizes > _DEAD * sizes.max(initial=0))
        if len(kept) < k:
            columns = self.point.outputs
            self._stand(self.point.hidden[kept], columns[:, kept], columns[:, k:])

    def _stand(self, hidden: Matrix, outputs: Matrix, fixed: Matrix) -> None:
        self.problem = self._whole.resized(len(hidden))
        self.point = self.problem.completed(Point(hidden, outputs), fixed)


def evened(problem: Problem) -> Problem:
    """Return the problem in coordinates half-way between white and standardised features.

    In white coordinates directions that x hardly shows are as large as others: random rows are
    mostly noise there. With a correlation matrix of eigenvalues e these are scaled to e / (1 + e).

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    problem : Problem
        With a linear part.
    """
    bias = int(problem.fit_intercept)
    variances = np.diag(problem.input_moment)[:, None]
    inverse = (variances * problem.whiten**2).sum(axis=0)  # 1 / e
    scale = np.concatenate([np.ones(bias), 1 / np.sqrt(1 + inverse)])
    return problem.rescaled(scale).with_linear()


def ridge_of(problem: Problem) -> float:
    """Choose the ridge of a linear part without units by generalised cross-validation.

    Parameters
    ----------
    problem : Problem
        With a linear part.

    Returns
    -------
    ridge : float
        Of |L|^2, features in standard deviations.

    References
    ----------
    Golub, Heath and Wahba (1979), doi:10.1080/00401706.1979.10489751; Kim and Gu (2004),
    doi:10.1046/j.1369-7412.2003.05316.x, for degrees of freedom that count 1.4 times, so that few
    samples do not get next to no ridge.
    """
    bias = int(problem.fit_intercept)
    decayed = Decayed(problem.resized(0), Decay(0.0, 0.0))
    white, targets = decayed.projection.white[bias:], decayed.projection.targets
    squares = float((targets**2).sum())
    if bias:  # x is centred: the constant has nothing in common with it
        root = problem.sample.inputs[:, 0]
        squares -= float(((targets @ root) ** 2).sum() / (root @ root))
    metric = decayed.metric[bias:, bias:]
    gram, vectors = linalg.eigh(white @ white.T, metric)
    gram = np.maximum(gram, _EPS * gram[-1])
    explained = ((vectors.T @ (white @ targets.T)) ** 2).sum(axis=1) / gram
    ridges = np.concatenate([[0.0], _RIDGES * problem.sample.weight])
    kept = gram / (gram + ridges[:, None])
    losses = np.maximum(squares - (2 * kept - kept**2) @ explained, _EPS * squares)
    n = problem.sample.n_effective
    freedom = n - bias - _INFLATED * kept.sum(axis=1)
    criterion = np.where(freedom > 0.5, losses / np.maximum(freedom, 0.5) ** 2, np.inf)
    return float(ridges[int(criterion.argmin())])


def path_to(
    problem: Problem,
    ridge: float,
    shares: Iterable[float],
    rng: np.random.Generator,
    most: int = MOST_UNITS,
) -> DecayPath:
    """Walk a path of weight decay to the last of its alphas.

    Parameters
    ----------
    problem : Problem
        With a linear part.
    ridge : float
    shares : iterable of float
        As for `DecayPath.lower`.
    rng : Generator
    most : int, default=64
        Units at most.

    Returns
    -------
    path : DecayPath
    """
    path = DecayPath(problem, ridge, rng, most)
    for share in shares:
        path.lower(share)
    return path
