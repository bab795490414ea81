"""The number of units that samples show, beside networks that made them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from fastsym.activation import Activation
from fastsym.refine.growth import chance_gain, grown
from fastsym.refine.problem import Problem


def samples(d, k, m, *, n=2000, noise=0.3, seed=0):
    """Draw samples of a network whose units are of about one size, with biases."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((k, d))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    A = rng.choice([-1.0, 1.0], (m, k)) * rng.uniform(0.5, 1.5, (m, k))
    X = rng.standard_normal((n, d))
    Y = X @ rng.standard_normal((d, m)) / 2 + rng.standard_normal(m)
    Y = Y + np.maximum(X @ W.T + 0.5 * rng.standard_normal(k), 0) @ A.T
    return X, Y + noise * Y.std(axis=0) * rng.standard_normal((n, m))


def problem_of(X, Y, weights=None, slope=0.0):
    return Problem(X, Y, weights, 1, Activation(slope), True).with_linear()


def grow(X, Y, **how):
    return grown(problem_of(X, Y), np.random.default_rng(0), **how)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("d", "k", "m", "noise"),
    [(6, 3, 1, 0.3), (10, 6, 3, 0.3), (4, 8, 4, 0.2), (6, 4, 1, 0.0), (4, 8, 4, 0.0)],
)
def test_units_are_as_many_as_made_the_samples(d, k, m, noise, seed):
    found = grow(*samples(d, k, m, noise=noise, seed=seed))
    assert found.n_hidden == k
    assert found.fit.converged
    assert found.fit.exact == (noise == 0)
    assert found.path[0][0] == 0
    assert max(k for k, _ in found.path) > k or found.fit.exact


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 4), st.integers(5, 60))
def test_linear_samples_have_no_units(seed, d, m, rows):
    X, Y = samples(d, 0, m, n=rows * (d + 1), noise=1.0, seed=seed)
    X = np.random.default_rng(seed).permuted(X, axis=0)
    found = grow(X, Y)
    assert found.n_hidden == 0
    expected = LinearRegression().fit(X, Y).predict(X)
    np.testing.assert_allclose(found.problem.network(found.fit.point).predict(X), expected)


def test_weights_count():
    X, Y = samples(6, 3, 1)
    other = samples(6, 4, 1, seed=1)
    X, Y = (np.concatenate(pair) for pair in zip((X, Y), other, strict=True))
    weights = np.concatenate([np.ones(2000), np.full(2000, 1e-6)])
    found = grown(problem_of(X, Y, weights), np.random.default_rng(0))
    assert found.n_hidden == 3


def test_leaky_units():
    X, Y = samples(5, 4, 2, noise=0.2)
    found = grown(problem_of(X, Y, slope=0.3), np.random.default_rng(0))
    # Beside a linear part the slope changes the sizes of units alone.
    assert found.n_hidden == 4


def test_limits():
    X, Y = samples(6, 5, 2)
    assert grow(X, Y, most=2).n_hidden == 2
    assert grow(X, Y, most=0).n_hidden == 0
    problem = problem_of(X, Y)
    found = grow(X, Y, freedom=1 / problem.resized(3).unit)
    assert max(k for k, _ in found.path) == 3
    assert found.freedom == pytest.approx(1 / found.problem.unit)


def test_what_units_explain_of_noise_grows_with_their_weights():
    gains = [
        chance_gain(problem_of(*samples(d, 0, m, n=200))) for d, m in [(2, 1), (2, 5), (20, 5)]
    ]
    assert gains == sorted(gains)
    assert 3 < gains[0] / 3 < 7
    assert 3 < gains[2] / 25 < 4


def test_lines_are_said():
    lines = []
    X, Y = samples(4, 1, 1)
    found = grow(X, Y, say=lines.append)
    assert len(lines) == len(found.path)
    assert lines[0].startswith("fastsym: 0 hidden units")


def test_growth_needs_a_linear_part():
    X, Y = samples(3, 1, 1)
    with pytest.raises(ValueError, match=r"with_linear\(\)"):
        grown(Problem(X, Y, None, 1, Activation(), True), np.random.default_rng(0))
