"""Scores of candidate units, units added and dropped, against plain regressions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym.activation import Activation
from fastsym.algebra import unit_rows
from fastsym.refine import greedy
from fastsym.refine.problem import Problem


def problem_of(seed, n=300, d=4, k=3, m=2, slope=0.0, bias=True, weighted=False):
    """Samples of a network with biases, or of none, in memory."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) + 0.3 * bias
    W, A, b = rng.standard_normal((k, d)), rng.standard_normal((m, k)), 0.5 * rng.standard_normal(k)
    t = X @ W.T + b * bias
    Y = np.maximum(t, slope * t) @ A.T + 0.2 * rng.standard_normal((n, m))
    weights = rng.uniform(0.5, 2, n) if weighted else None
    return Problem(X, Y, weights, k, Activation(slope), bias, n_jobs=1).with_linear()


def loss_of(problem, hidden):
    """Loss of rows with the outputs that fit best, by NumPy's least squares."""
    u = problem.sample.inputs @ problem.coordinates.to_inputs
    t = u @ unit_rows(hidden).T
    slope = problem.activation.negative_slope
    units = np.concatenate([np.maximum(t, slope * t), u], axis=1)
    found = np.linalg.lstsq(units, problem.sample.targets, rcond=None)[0]
    return float(((problem.sample.targets - units @ found) ** 2).sum())


CASES = pytest.mark.parametrize(
    ("slope", "bias", "weighted"), [(0.0, True, False), (0.0, False, True), (0.25, True, True)]
)


@CASES
def test_a_score_is_what_a_unit_saves(slope, bias, weighted, rng):
    problem = problem_of(1, slope=slope, bias=bias, weighted=weighted)
    q = problem.coordinates.to_inputs.shape[1]
    present, candidates = rng.standard_normal((2, q)), unit_rows(rng.standard_normal((20, q)))
    projection = problem.resized(2).projection
    scores = greedy.Scores(projection, projection.regress(present), slope)(candidates)
    before = loss_of(problem, present)
    saved = [before - loss_of(problem, np.concatenate([present, one[None]])) for one in candidates]
    # Scores are in single precision.
    np.testing.assert_allclose(scores, saved, rtol=2e-3, atol=1e-5 * before)


@CASES
def test_a_regression_is_least_squares(slope, bias, weighted, rng):
    problem = problem_of(2, slope=slope, bias=bias, weighted=weighted)
    k, q = 3, problem.coordinates.to_inputs.shape[1]
    hidden = rng.standard_normal((k, q))
    point, residuals = problem.reached(problem.completed(problem.regressed(hidden)._replace(
        hidden=unit_rows(hidden), outputs=rng.standard_normal((problem.n_outputs, k))
    )))  # fmt: skip
    assert residuals.loss == pytest.approx(loss_of(problem, hidden), rel=1e-10)
    # The pass over the samples says the same of the point that was reached.
    passed = problem.residuals(point)
    assert passed.loss == pytest.approx(residuals.loss, rel=1e-10)
    scale = np.abs(passed.hidden_gradient).max()
    np.testing.assert_allclose(residuals.hidden_gradient, passed.hidden_gradient, atol=1e-9 * scale)
    assert np.abs(passed.output_gradient).max() < 1e-9 * problem.total


@CASES
def test_a_saliency_is_what_a_unit_was_worth(slope, bias, weighted, rng):
    problem = problem_of(3, slope=slope, bias=bias, weighted=weighted)
    q = problem.coordinates.to_inputs.shape[1]
    hidden = rng.standard_normal((5, q))
    saliencies = problem.projection.regress(hidden).saliencies(5)
    after = [loss_of(problem, np.delete(hidden, i, axis=0)) for i in range(5)]
    np.testing.assert_allclose(saliencies, np.array(after) - loss_of(problem, hidden), rtol=1e-6)


def test_the_least_is_left_out(rng):
    problem = problem_of(4)
    hidden = rng.standard_normal((5, problem.coordinates.to_inputs.shape[1]))
    fit = problem.resized(5).fit(problem.regressed(hidden))
    rows = fit.point.hidden[:5]
    losses = [loss_of(problem, np.delete(rows, i, axis=0)) for i in range(3)]
    for rank, i in enumerate(np.argsort(losses)):
        left = greedy.without(problem, fit, keep=3, rank=rank)
        np.testing.assert_array_equal(left, np.delete(rows, i, axis=0))


def test_several_rows_are_no_one_row_twice(rng):
    problem = problem_of(5, n=1000, k=4)
    rows = greedy.best_rows(problem.resized(0), np.empty((0, 5)), 4, rng)
    losses = [loss_of(problem, rows[:n]) for n in range(5)]
    assert (np.diff(losses) < -0.01 * losses[0]).any()
    assert (np.diff(losses) < 0).all()
    cosines = np.abs(rows @ rows.T) - np.eye(4)
    assert cosines.max() < 0.99


@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 3))
def test_greedy_starts_explain_more_with_each_unit(seed, bias, m):
    problem = problem_of(seed % 1000, d=3, k=3, m=m, bias=bias)
    rng = np.random.default_rng(seed)
    hidden = greedy.greedy_start(problem, rng)
    assert hidden.shape == (3, len(problem.fixed))
    assert loss_of(problem, hidden) < loss_of(problem, hidden[:0])


@given(st.integers(0, 2**32 - 1))
def test_a_rotation_of_the_outputs_turns_nothing(seed):
    """Scores sum over outputs: candidates of rotated outputs have the same."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((200, 3)), rng.standard_normal((200, 3))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rows = unit_rows(rng.standard_normal((10, 4)))
    scores = []
    for targets in (Y, Y @ turn):
        problem = Problem(X, targets, None, 2, Activation(), True, n_jobs=1, units=None)
        projection = problem.with_linear().resized(0).projection
        regression = projection.regress(np.empty((0, 4)))
        scores.append(greedy.Scores(projection, regression, 0.0)(rows))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=1e-3)


def test_a_linear_part_is_needed():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((50, 3)), rng.standard_normal((50, 1))
    problem = Problem(X, Y, None, 2, Activation())
    with pytest.raises(ValueError, match="with_linear"):
        greedy.best_rows(problem, np.empty((0, 3)), 1, rng)
