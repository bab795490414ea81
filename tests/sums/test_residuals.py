"""The sums of the refinement against plain NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym.activation import Activation
from fastsym.refine.sample import Sample
from fastsym.sums.residuals import ResidualAccumulator

from .. import naive

SHAPES = [(1, 1, 1), (3, 2, 2), (4, 5, 3), (9, 8, 8), (7, 10, 12), (17, 3, 1)]


def problem(n, d, k, m, seed=0):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((n, m))
    hidden, outputs = rng.standard_normal((k, 1 + d)), rng.standard_normal((m, k))
    return X, Y, hidden, outputs, rng.choice([0.5, 1.0, 2.0, 3.0], n)


def assert_sums(residuals, expected):
    for name, value in expected.items():
        got = getattr(residuals, name)
        np.testing.assert_allclose(
            got, value, rtol=1e-11, atol=1e-11 * np.abs(value).max(initial=0)
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 127, 128, 1001])
@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_sums_agree_with_numpy(shape, n, slope):
    X, Y, hidden, outputs, weights = problem(n, *shape)
    for w in (None, weights):
        sample = Sample(X, Y, w)
        residuals = sample.residuals(hidden, outputs, slope)
        assert_sums(residuals, naive.residuals(X, Y, hidden, outputs, slope, w))
        assert residuals.n_samples == n
        np.testing.assert_allclose(residuals.weight, n if w is None else w.sum())
        got = sample.mask_moments(hidden, slope)
        expected = naive.mask_moments(X, hidden, slope, w)
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_fixed", [1, 5])
def test_units_behind_the_free_ones_are_linear(shape, n_fixed):
    for k in (0, shape[1]):
        X, Y, hidden, outputs, weights = problem(300, shape[0], k + n_fixed, shape[2])
        residuals = Sample(X, Y, weights).residuals(hidden, outputs, 0.3, k)
        assert_sums(residuals, naive.residuals(X, Y, hidden, outputs, 0.3, weights, k))


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=4))
def test_chunks_do_not_change_a_bit(sizes):
    n = sum(sizes)
    X, Y, hidden, outputs, weights = problem(n, 3, 2, 2)
    whole = ResidualAccumulator(3, 2, hidden, outputs, Activation()).take(X, Y, weights).result()
    parts, first = ResidualAccumulator(3, 2, hidden, outputs, Activation()), 0
    for size in sizes:
        rows = slice(first, first + size)
        parts.take(X[rows], Y[rows], weights[rows])
        first += size
    total = parts.result()
    for name in ("hidden_gradient", "output_gradient", "residual_moment", "weight"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(total, name))


@pytest.mark.parametrize("shape", [(10, 10, 10), (24, 24, 24)])
def test_threads_do_not_change_a_bit(shape):
    X, Y, hidden, outputs, _ = problem(3000, *shape)
    results = []
    for n_jobs in (1, 2, None):
        sample = Sample(X, Y, n_jobs=n_jobs)
        residuals = sample.residuals(hidden, outputs, 0.1)
        results.append(
            [residuals.hidden_gradient, residuals.residual_moment, sample.mask_moments(hidden, 0.1)]
        )
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_gradient_is_the_derivative_of_the_loss():
    X, Y, hidden, outputs, _ = problem(500, 4, 3, 2)
    sample = Sample(X, Y)
    base = sample.residuals(hidden, outputs, 0.2)
    step = 1e-6
    for gradient, which in ((base.hidden_gradient, 0), (base.output_gradient, 1)):
        for index in ((0, 0), (1, 2)):
            losses = []
            for sign in (1, -1):
                moved = [hidden.copy(), outputs.copy()]
                moved[which][index] += sign * step
                losses.append(sample.residuals(*moved, 0.2).loss)
            slope = (losses[0] - losses[1]) / (2 * step)
            np.testing.assert_allclose(-2 * gradient[index], slope, rtol=1e-5)
