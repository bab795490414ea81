"""The search beside a free linear part, from samples to a verdict, on seeds of its own."""

import numpy as np
import pytest

from fastsym.activation import Activation
from fastsym.algebra import absolute_cosines
from fastsym.refine.beside_linear import RUNS, search_beside_linear
from fastsym.refine.problem import Problem


def drawn(seed, n, d, k, m, bias=0.0, noise=0.0, slope=0.0):
    """Samples of a random network, and its rows (b, w)."""
    rng = np.random.default_rng([seed, 4])
    W = rng.standard_normal((k, d))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    A = rng.choice([-1.0, 1.0], (m, k)) * rng.uniform(0.5, 1.5, (m, k))
    b = bias * rng.standard_normal(k)
    X = rng.standard_normal((n, d))
    t = X @ W.T + b
    Y = np.maximum(t, slope * t) @ A.T
    Y += noise * Y.std() * rng.standard_normal((n, m))
    return X, Y, np.column_stack([b, W])


def problem_of(X, Y, k, bias, slope=0.0):
    return Problem(X, Y, None, k, Activation(slope), bias, n_jobs=1).with_linear()


def rows_of(problem, fit):
    """Rows (b, w) of the units that turn."""
    return problem.coordinates.weights(fit.point)[: problem.coordinates.n_free]


def matched(found, true):
    """Smallest over the true rows of the largest |cosine| with a row that was found."""
    both = absolute_cosines(np.concatenate([true, found]))
    return both[: len(true), len(true) :].max(axis=1).min()


@pytest.mark.parametrize(
    ("shape", "bias", "slope"),
    [((5, 4, 1), 0.0, 0.0), ((4, 8, 1), 0.0, 0.0), ((3, 6, 2), 0.5, 0.0), ((6, 5, 1), 0.5, 0.25)],
)
def test_exact_networks_are_found_and_certified(shape, bias, slope):
    d, k, m = shape
    for seed in range(3):
        X, Y, true = drawn(seed, 2000, d, k, m, bias, slope=slope)
        problem = problem_of(X, Y, k, bias > 0, slope)
        result = search_beside_linear(problem)
        assert result.certificate == "exact"
        assert result.lowest.exact
        assert matched(rows_of(problem, result.lowest), true) > 1 - 1e-10


@pytest.mark.parametrize(("d", "k", "m", "bias"), [(5, 5, 1, 0.5), (3, 6, 2, 0.5), (8, 4, 3, 1.0)])
def test_noisy_networks_are_found_and_certified(d, k, m, bias):
    """As low as from the truth, within a twentieth of what the weights explain by chance."""
    certified = 0
    for seed in range(4):
        X, Y, true = drawn(10 + seed, 3000, d, k, m, bias, noise=0.1)
        problem = problem_of(X, Y, k, True)
        result = search_beside_linear(problem)
        from_truth = problem.fit(problem.regressed(true @ problem.coordinates.from_inputs.T))
        loss = from_truth.residuals.loss
        if result.certified:
            certified += 1
            assert result.lowest.residuals.loss < loss * (1 + 0.05 * problem.unit)
    assert certified >= 3


def test_the_order_of_samples_units_and_outputs_is_none():
    """Found are the same network and certificate for permuted and rotated samples."""
    X, Y, _ = drawn(20, 2000, 4, 5, 2, 0.5, noise=0.1)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    order = np.random.default_rng(1).permutation(len(X))
    losses = []
    for inputs, targets in ((X, Y), (X, Y[:, ::-1]), (X @ turn, Y), (X[order], Y[order])):
        problem = problem_of(inputs, targets, 5, True)
        result = search_beside_linear(problem)
        assert result.certified
        losses.append(result.lowest.residuals.loss / problem.total)
    np.testing.assert_allclose(losses, losses[0], rtol=0.02 * problem.unit)


def test_it_is_the_same_again_and_other_seeds_say_the_same():
    X, Y, _ = drawn(21, 1500, 4, 3, 1, 0.5, noise=0.1)
    problem = problem_of(X, Y, 3, True)
    first, again = search_beside_linear(problem), search_beside_linear(problem)
    np.testing.assert_array_equal(first.lowest.point.hidden, again.lowest.point.hidden)
    other = search_beside_linear(problem, random_state=5)
    assert other.lowest.residuals.loss == pytest.approx(first.lowest.residuals.loss, rel=1e-4)


def test_a_missing_unit_is_noticed():
    """With a unit too few the residual depends on x, or one more gains far more than chance."""
    for seed in range(3):
        X, Y, _ = drawn(30 + seed, 3000, 4, 5, 1, 0.5, noise=0.1)
        result = search_beside_linear(problem_of(X, Y, 4, True))
        assert not result.certified
        assert "unit" in result.verdict.reason or "residual" in result.verdict.reason
        assert len(result.fits) <= RUNS


def test_too_few_samples_determine_nothing():
    X, Y, _ = drawn(40, 30, 4, 5, 1, noise=0.1)
    result = search_beside_linear(problem_of(X, Y, 5, True))
    assert result.certificate == "none"
    assert "determine" in result.verdict.reason


def test_without_hidden_units_it_is_a_regression():
    X, Y, _ = drawn(41, 500, 4, 3, 2, 0.5, noise=0.1)
    problem = problem_of(X, Y, 0, True)
    result = search_beside_linear(problem)
    u = np.column_stack([np.ones(len(X)), X])
    residual = Y - u @ np.linalg.lstsq(u, Y, rcond=None)[0]
    assert problem.user_loss(result.lowest.residuals) == pytest.approx((residual**2).sum())
    assert not result.lowest.point.hidden[len(problem.fixed) :].size


def test_more_units_than_the_function_has_are_not_exact_certificates():
    """Of a linear function any unit does nothing: the network is not determined."""
    rng = np.random.default_rng(50)
    X = rng.standard_normal((500, 4))
    result = search_beside_linear(problem_of(X, X @ rng.standard_normal((4, 1)), 2, False))
    assert result.certificate == "none"
    assert result.lowest.residuals.loss < 1e-20 * (X**2).sum()


def test_a_linear_part_is_needed():
    X, Y, _ = drawn(51, 100, 3, 2, 1)
    with pytest.raises(ValueError, match="with_linear"):
        search_beside_linear(Problem(X, Y, None, 2, Activation()))


def test_runs_are_told():
    X, Y, _ = drawn(52, 1000, 3, 2, 1, noise=0.1)
    lines = []
    result = search_beside_linear(problem_of(X, Y, 2, False), say=lines.append)
    assert len(lines) == len(result.fits)
    assert all(line.startswith("fastsym: run ") for line in lines)


def test_few_different_rows_certify_nothing():
    rng = np.random.default_rng(41)
    X, Y, _ = drawn(41, 600, 5, 20, 5, bias=0.5)
    X = np.sign(X)  # 32 different rows
    Y = np.maximum(X @ rng.standard_normal((5, 20)) + rng.standard_normal(20), 0)
    Y = Y @ rng.standard_normal((20, 5)) + 0.3 * rng.standard_normal((600, 5))
    problem = Problem(X, Y, None, 20, Activation(), fit_intercept=True).with_linear()
    assert problem.n_distinct == 32
    found = search_beside_linear(problem)
    assert found.certificate == "none"
    assert "32 different rows" in found.verdict.reason
    assert Problem(X + Y, Y, None, 1, Activation()).n_distinct == 600
