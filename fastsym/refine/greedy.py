"""Units where the residual bends most: candidate rows, greedy starts, units added and dropped.

All of it is for problems with a free linear part, where the sign of a unit does not matter. A
candidate's score is by how much the loss falls when it joins and all outputs are regressed anew,
|R h~|^2 / |h~|^2 with h~ the part of its output that the present units do not give; scores of
hundreds of candidates are one matrix product (orthogonal matching pursuit: Pati, Rezaiifar and
Krishnaprasad (1993), doi:10.1109/ACSSC.1993.342465).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fastsym.algebra import Matrix, unit_rows
from fastsym.refine.minimisation import Fit, minimise
from fastsym.refine.problem import Problem
from fastsym.refine.projection import Projection, Regression

ROWS = 1500
"""Rows at least that candidates are scored on, if there are so many."""

_ROWS_PER_WEIGHT = 8
_SPREAD = 0.7  # of their biases, in standard deviations of the projections
_BEYOND = (0.4, 0.95)  # of the distance of a sample: where a kink may be that few are beyond
_BENDS = 4  # eigenvectors of an output direction
_DIRECTIONS = 3  # of the outputs
_SHIFTS = (0.0, 0.6, -0.6)  # their biases
_AWAY = (0.2, 0.8)  # how far candidates near rows that are there are
_TRIALS = 8  # of each candidate that climbs, in a round
_STRIDE, _SHORTER = 0.5, 0.75
_ROUNDS = 12  # of a greedy start at least, before units join several at once
_STEPS, _TOLERANCE = 6, 0.3  # evaluations of a greedy round, and what they may leave
_RANDOM = 25  # evaluations on some rows, from random rows of W
_OTHER = 0.1  # share of a unit's square off those picked before it, to be another one
_NOTHING = 1e-5  # share of a unit's square that is rounding


class Effort(NamedTuple):
    """Random candidates of each kind; how many climb, and of the far ones; rounds of climbing.

    Likewise of candidates near units that are there.
    """

    drawn: int = 300
    climbing: int = 6
    climbing_far: int = 4
    climbs: int = 8
    nearby: int = 0
    climbing_near: int = 4


THOROUGH = Effort()
_QUICK = Effort(drawn=150, climbs=4)  # in greedy starts


class Scores:
    """By how much the loss falls when a unit joins those of a regression.

    Parameters
    ----------
    projection : Projection
    regression : Regression
        Its last one.
    slope : float
        Of the activation for negative arguments.
    """

    def __init__(self, projection: Projection, regression: Regression, slope: float) -> None:
        # Single precision is enough to tell candidates apart.
        self._white, self._slope = projection.white.astype(np.float32), np.float32(slope)
        self._residual = regression.residual.astype(np.float32)
        basis = linalg.solve_triangular(
            regression.factor, regression.units, trans="T", check_finite=False
        )
        self._basis = basis.astype(np.float32)

    def parts(self, rows: Matrix) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Units, what the present ones explain of them, and products with the residual.

        Parameters
        ----------
        rows : ndarray of shape (n_rows, n_coordinates)

        Returns
        -------
        units : ndarray of shape (n_rows, n_samples)
        explained : ndarray of shape (n_units, n_rows)
            In an orthonormal basis of the present units.
        products : ndarray of shape (n_outputs, n_rows)
        """
        h = rows.astype(np.float32) @ self._white
        np.maximum(h, self._slope * h if self._slope else np.float32(0), out=h)
        return h, self._basis @ h.T, self._residual @ h.T

    def __call__(self, rows: Matrix) -> Matrix:
        """Score candidate rows, shape (n_rows,)."""
        h, explained, products = self.parts(rows)
        squares = np.einsum("ij,ij->i", h, h)
        left = squares - (explained**2).sum(axis=0)
        left = np.where(left > _NOTHING * squares, left, np.inf)
        return (products**2).sum(axis=0) / left


def best_rows(
    problem: Problem,
    hidden: Matrix,
    n_rows: int,
    rng: np.random.Generator,
    effort: Effort = THOROUGH,
) -> Matrix:
    """Find rows of units that explain most of what others leave.

    Random rows and eigenvectors of the residual's bends are scored, the best of them moved uphill,
    and of these the best is taken; then the one that explains most of what is left, and so on.

    Parameters
    ----------
    problem : Problem
        With a linear part.
    hidden : ndarray of shape (n_present, n_coordinates)
        Rows of the units that are there.
    n_rows : int
    rng : Generator
    effort : Effort

    Returns
    -------
    rows : ndarray of shape (n_found, n_coordinates)
        At least one, and n_rows at most.
    """
    projection = projection_of(problem)
    regression = projection.regress(hidden)
    score = Scores(projection, regression, problem.activation.negative_slope)
    return picked_rows(problem, regression.residual, score, n_rows, rng, effort, unit_rows(hidden))


def picked_rows(
    problem: Problem,
    residual: Matrix,
    score: Scores,
    n_rows: int,
    rng: np.random.Generator,
    effort: Effort = THOROUGH,
    hidden: Matrix | None = None,
) -> Matrix:
    """Draw candidates, move the best uphill, and pick of them one after the other.

    Parameters
    ----------
    problem : Problem
        With a linear part.
    residual : ndarray of shape (n_outputs, n_samples)
        Of the samples, along which candidates are drawn; times the roots of the weights.
    score : Scores
    n_rows : int
    rng : Generator
    effort : Effort
    hidden : ndarray of shape (n_present, n_coordinates), default=None
        Rows of the units that are there, near which candidates are drawn; None: of none.

    Returns
    -------
    rows : ndarray of shape (n_found, n_coordinates)
        At least one, and n_rows at most.
    """
    projection, bias = projection_of(problem), int(problem.fit_intercept)
    drawn = _drawn(effort.drawn, projection, bias, rng)
    bent = _bent(projection, residual, bias)
    far = _far(effort.drawn, projection, residual, rng) if bias else bent[:0]
    near = _near(effort.nearby, bent[:0] if hidden is None else hidden, rng)
    rows = np.concatenate([drawn, bent, far, near])
    kinds = np.repeat(range(3), [len(drawn) + len(bent), len(far), len(near)])
    scores = score(rows)
    order = np.argsort(-scores, kind="stable")
    climbing = effort.climbing, effort.climbing_far, effort.climbing_near
    best = np.concatenate([order[kinds[order] == i][:few] for i, few in enumerate(climbing)])
    if n_rows > 1:
        # The best may all be on one hill.
        best = order[_pursued(score, rows[order], max(effort.climbing, 2 * n_rows))]
    climbed = _climbed(score, rows[best], scores[best], effort.climbs, rng)
    if n_rows > 1:
        climbed = np.concatenate([climbed, rows[best]])
    return climbed[_pursued(score, climbed, n_rows)]


def _drawn(n: int, projection: Projection, bias: int, rng: np.random.Generator) -> Matrix:
    """Draw rows in random directions, with biases of the size of projections."""
    q = len(projection.white)
    rows = rng.standard_normal((n, q))
    if bias:
        rows[:, 1:] = unit_rows(rows[:, 1:])
        rows[:, 0] *= _SPREAD
    return unit_rows(rows)


def _far(n: int, projection: Projection, residual: Matrix, rng: np.random.Generator) -> Matrix:
    """Kinks that few samples are beyond: across the way to samples whose residual is large.

    Such samples lie in about the direction of a unit that few of them drive, which random
    directions hardly find.
    """
    squares = (residual**2).sum(axis=0)
    total = squares.sum()
    if not 0 < total < np.inf:
        return np.empty((0, len(projection.white)))
    which = rng.choice(len(squares), n, p=squares / total)
    points = projection.white[1:, which].T / projection.white[0, which, None]
    lengths = np.linalg.norm(points, axis=1)
    shifts = -lengths * rng.uniform(*_BEYOND, n)
    return unit_rows(np.column_stack([shifts, unit_rows(points)]))


def _near(n: int, hidden: Matrix, rng: np.random.Generator) -> Matrix:
    """Draw rows near those that are there, of which one may stand for two."""
    if not (n and len(hidden)):
        return hidden[:0]
    rows = hidden[rng.integers(len(hidden), size=n)]
    shifts = rng.standard_normal(rows.shape) / np.sqrt(rows.shape[1])
    return unit_rows(rows + rng.uniform(*_AWAY, (n, 1)) * shifts)


def _bent(projection: Projection, residual: Matrix, bias: int) -> Matrix:
    """Directions in which the residual bends: eigenvectors of sums of r x x^T.

    For several outputs r is their combinations whose bends are largest.
    """
    x = projection.white[bias:]
    bends = np.stack([(x * one) @ x.T for one in residual])
    if len(bends) > 1:
        flat = bends.reshape(len(bends), -1)
        right = np.linalg.svd(flat, full_matrices=False)[2]
        bends = right[:_DIRECTIONS].reshape(-1, *bends.shape[1:])
    rows = []
    for one in bends:
        values, vectors = np.linalg.eigh((one + one.T) / 2)
        largest = np.argsort(-np.abs(values), kind="stable")[:_BENDS]
        rows.append(vectors[:, largest].T)
    directions = np.concatenate(rows)
    if not bias:
        return directions
    shifted = [np.insert(directions, 0, shift, axis=1) for shift in _SHIFTS]
    return unit_rows(np.concatenate(shifted))


def _climbed(
    score: Scores, rows: Matrix, scores: Matrix, climbs: int, rng: np.random.Generator
) -> Matrix:
    """Move rows to the best of perturbed ones, again and again, ever less far."""
    n, q = rows.shape
    rows, scores, stride = rows.copy(), scores.copy(), _STRIDE
    for _ in range(climbs):
        shifts = stride / np.sqrt(q) * rng.standard_normal((n, _TRIALS, q))
        trials = unit_rows((rows[:, None] + shifts).reshape(n * _TRIALS, q))
        scored = score(trials).reshape(n, _TRIALS)
        best = scored.argmax(axis=1)
        better = np.flatnonzero(scored.max(axis=1) > scores)
        rows[better] = trials.reshape(n, _TRIALS, q)[better, best[better]]
        scores[better] = scored[better, best[better]]
        stride *= _SHORTER
    return rows


def _pursued(score: Scores, rows: Matrix, n_rows: int) -> list[int]:
    """Pick rows one after the other, each the one that explains most of what is left."""
    h, explained, products = score.parts(rows)
    gram = h @ h.T - explained.T @ explained
    sizes = np.maximum(np.diag(gram), 0)  # rounding leaves less than nothing of some
    picked: list[int] = []
    for _ in range(min(n_rows, len(rows))):
        left = np.diag(gram).copy()
        left[picked] = 0
        left = np.where(left > _OTHER * sizes, left, np.inf)
        one = int(((products**2).sum(axis=0) / left).argmax())
        if picked and not np.isfinite(left[one]):
            break
        picked.append(one)
        if np.isfinite(left[one]):
            along = gram[one] / gram[one, one]
            products = products - np.outer(products[:, one], along)
            gram = gram - np.outer(gram[one], along)
    return picked


def rows_for_scores(problem: Problem) -> int:
    """Rows that are enough to score candidates of a problem.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    n_rows : int
    """
    return max(ROWS, _ROWS_PER_WEIGHT * problem.n_parameters // problem.n_outputs)


def greedy_start(problem: Problem, rng: np.random.Generator) -> Matrix:
    """Add units where the residual bends most, a few steps of all of them after each.

    Parameters
    ----------
    problem : Problem
        With a linear part. So many of its samples are used as the units that are there ask for.
    rng : Generator

    Returns
    -------
    hidden : ndarray of shape (n_hidden, n_coordinates)
        Rows of units, not at an optimum.
    """
    k = problem.coordinates.n_free
    hidden = np.empty((0, problem.coordinates.to_inputs.shape[1]))
    some = problem.spread(rows_for_scores(problem.resized(0)))
    while len(hidden) < k:
        n_rows = min(k - len(hidden), max(1, k // _ROUNDS) if k > 2 * _ROUNDS else 1)
        rows = best_rows(some.resized(len(hidden)), hidden, n_rows, rng, _QUICK)
        hidden = np.concatenate([hidden, rows])
        if (enough := rows_for_scores(problem.resized(len(hidden)))) > some.sample.n_samples:
            some = problem.spread(enough)
        hidden = _moved(some, hidden, _STEPS)
    return hidden


def random_start(problem: Problem, rng: np.random.Generator) -> Matrix:
    """Draw rows in random directions, and take some steps.

    Parameters
    ----------
    problem : Problem
        With a linear part. So many of its samples are used as the units ask for.
    rng : Generator

    Returns
    -------
    hidden : ndarray of shape (n_hidden, n_coordinates)
    """
    some = problem.spread(rows_for_scores(problem))
    k, bias = some.coordinates.n_free, int(some.fit_intercept)
    return _moved(some, _drawn(k, projection_of(some), bias, rng), _RANDOM)


def _moved(some: Problem, hidden: Matrix, steps: int) -> Matrix:
    problem = some.resized(len(hidden))
    fit = minimise(
        problem,
        problem.regressed(hidden),
        tolerance=_TOLERANCE * problem.unit,
        max_evaluations=steps,
    )
    return fit.point.hidden[: len(hidden)]


def without(problem: Problem, fit: Fit, keep: int, rank: int = 0) -> Matrix:
    """Leave out one of the first units, of those that the loss grows least without.

    Parameters
    ----------
    problem : Problem
        With a linear part, of any number of units.
    fit : Fit
    keep : int
        Units behind the first of this number stay.
    rank : int, default=0
        0: the one that is needed least; 1: the next.

    Returns
    -------
    hidden : ndarray of shape (n_units - 1, n_coordinates)
        Rows of the others.
    """
    k = len(fit.point.hidden) - len(problem.fixed)
    hidden = fit.point.hidden[:k]
    saliencies = projection_of(problem).regress(hidden).saliencies(k)[:keep]
    order = np.argsort(saliencies, kind="stable")
    return np.delete(hidden, order[min(rank, len(order) - 1)], axis=0)


def residual_of(problem: Problem, fit: Fit) -> Matrix:
    """Residual of a fit, times the roots of the weights.

    Parameters
    ----------
    problem : Problem
        With a linear part.
    fit : Fit

    Returns
    -------
    residual : ndarray of shape (n_outputs, n_samples)
    """
    k = len(fit.point.hidden) - len(problem.fixed)
    return projection_of(problem).regress(fit.point.hidden[:k]).residual


def projection_of(problem: Problem) -> Projection:
    """Return the projection of a problem, or say that it needs a linear part.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    projection : Projection

    Raises
    ------
    ValueError
        If the problem has no linear part.
    """
    if problem.projection is None:
        raise ValueError("candidates are for problems with a linear part; use with_linear().")
    return problem.projection
