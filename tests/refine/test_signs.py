"""Decoding of signs against all patterns, planted ones, and the laws that any decoder obeys."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import TwoLayerNetwork
from fastsym.refine.signs import decode_signs


def planted(k, d, m, seed=0, slope=0.0, noise=0.0):
    """Units, a linear part that signs give up to noise, and these signs."""
    rng = np.random.default_rng(seed)
    A, W = rng.standard_normal((m, k)), rng.standard_normal((k, d))
    signs = rng.choice([-1.0, 1.0], k)
    linear = (1 + slope) / 2 * (A * (signs - 1)) @ W
    return A, W, linear + noise * rng.standard_normal((m, d)), signs


def brute(A, W, linear, slope=0.0, precision=None):
    """Squared distances of all patterns, one by one."""
    P = np.eye(len(A)) if precision is None else precision
    found = []
    for signs in itertools.product([-1.0, 1.0], repeat=len(W)):
        D = linear.copy()
        for i, sign in enumerate(signs):
            D += (1 + slope) / 2 * (1 - sign) * np.outer(A[:, i], W[i])
        found.append((np.trace(D.T @ P @ D), signs))
    return sorted(found)


@pytest.mark.parametrize(
    ("k", "d", "m"), [(1, 1, 1), (2, 3, 1), (5, 2, 2), (8, 3, 1), (10, 4, 2), (12, 5, 1)]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_all_patterns(k, d, m, weighted, rng):
    A, W, linear, _ = planted(k, d, m, seed=k, slope=0.25, noise=0.7)
    precision = None
    if weighted:
        root = rng.standard_normal((m + 1, m))
        precision = root.T @ root
    expected = brute(A, W, linear, 0.25, precision)[:8]
    found = decode_signs(A, W, linear, 0.25, precision=precision)
    np.testing.assert_allclose(found.distances, [one[0] for one in expected], rtol=1e-9)
    np.testing.assert_array_equal(found.signs, [one[1] for one in expected])


@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_the_network_of_the_signs_is_the_function(slope, rng):
    """h(-t) = h(t) - (1 + a) t, seen from outside: predictions, with the constant that is free."""
    A, W, linear, _ = planted(6, 4, 2, slope=slope)
    b = rng.standard_normal(6)
    X = rng.standard_normal((50, 4))
    found = decode_signs(A, W, linear, slope)
    assert found.distances[0] < 1e-25 < 1e-3 < found.distances[1]
    s = found.signs[0]
    t = X @ W.T + b
    expected = X @ linear.T + np.where(t > 0, t, slope * t) @ A.T
    network = TwoLayerNetwork(
        s[:, None] * W, A, hidden_intercept=s * b, negative_slope=slope,
        output_intercept=(1 + slope) / 2 * A @ ((1 - s) * b),
    )  # fmt: skip
    np.testing.assert_allclose(network.predict(X), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("k", "d", "m", "noise"),
    [(10, 10, 1, 0), (20, 20, 1, 0), (20, 5, 5, 0.05), (22, 11, 2, 0.05), (23, 23, 1, 0),
     (20, 10, 1, 0), (30, 20, 1, 0), (60, 20, 5, 0), (60, 20, 5, 0.1)],
)  # fmt: skip
def test_planted_signs(k, d, m, noise):
    for seed in range(3):
        A, W, linear, signs = planted(k, d, m, seed, noise=noise)
        found = decode_signs(A, W, linear)
        assert len(found.distances) == 8
        assert (np.diff(found.distances) >= 0).all()
        assert len(np.unique(found.signs, axis=0)) == 8
        np.testing.assert_array_equal(found.signs[0], signs)
        left = linear - 0.5 * (A * (found.signs[:, None] - 1)) @ W
        np.testing.assert_allclose(
            found.distances, (left**2).sum(axis=(1, 2)), rtol=1e-8, atol=1e-24 * (linear**2).sum()
        )


def test_a_search_beyond_all_patterns_finds_the_nearest(monkeypatch):
    monkeypatch.setattr("fastsym.refine.signs._ENUMERATED", 0)
    for seed in range(5):
        A, W, linear, _ = planted(10, 4, 2, seed, noise=0.5)
        expected = brute(A, W, linear)[:8]
        found = decode_signs(A, W, linear)
        np.testing.assert_array_equal(found.signs, [one[1] for one in expected])


sizes = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(0, 999))


@given(sizes=sizes, searched=st.booleans())
def test_order_signs_and_bases_do_not_matter(sizes, searched):
    k, d, m, seed = sizes
    k += 22 * searched
    rng = np.random.default_rng(seed)
    A, W, linear, _ = planted(k, d + 8 * searched, m + 2 * searched, seed, noise=0.1)
    found = decode_signs(A, W, linear, top=3)

    order = rng.permutation(k)
    permuted = decode_signs(A[:, order], W[order], linear, top=3)
    np.testing.assert_allclose(permuted.distances, found.distances, rtol=1e-8)
    np.testing.assert_array_equal(permuted.signs, found.signs[:, order])

    # -(w, b) for some units, with the linear part that it takes; scales of rows; other coordinates.
    flips = rng.choice([-1.0, 1.0], k)
    scale = rng.uniform(0.1, 10, k)
    turn, other = (np.linalg.qr(rng.standard_normal((n, n)))[0] for n in (W.shape[1], len(A)))
    flipped = decode_signs(
        other @ A / scale, (flips * scale)[:, None] * W @ turn,
        other @ (linear + (A * (1 - flips) / 2) @ W) @ turn, top=3,
    )  # fmt: skip
    np.testing.assert_allclose(flipped.distances, found.distances, rtol=1e-8)
    np.testing.assert_array_equal(flipped.signs, found.signs * flips)


@given(st.integers(-400, 400), st.integers(-400, 400))
def test_any_unit_of_the_data(by_hidden, by_output):
    A, W, linear, signs = planted(5, 3, 2)
    linear = np.ldexp(linear, by_hidden + by_output)
    found = decode_signs(np.ldexp(A, by_output), np.ldexp(W, by_hidden), linear, top=2)
    np.testing.assert_array_equal(found.signs[0], signs)


def test_units_without_a_linear_part():
    A, W, linear, signs = planted(6, 4, 2)
    A[:, 2] = 0
    W[4] = 0
    linear = 0.5 * (A * (signs - 1)) @ W
    found = decode_signs(A, W, linear, top=100)
    assert len(found.signs) == 2**4
    assert (found.signs[:, [2, 4]] == 1).all()
    told = [0, 1, 3, 5]
    np.testing.assert_array_equal(found.signs[0, told], signs[told])


def test_none_and_one():
    linear = np.array([[1.0, -2.0]])
    none = decode_signs(np.empty((1, 0)), np.empty((0, 2)), linear)
    assert none.signs.shape == (1, 0)
    np.testing.assert_allclose(none.distances, [5])
    one = decode_signs(np.ones((1, 1)), np.array([[-1.0, 2.0]]), linear)
    np.testing.assert_array_equal(one.signs, [[-1], [1]])
    np.testing.assert_allclose(one.distances, [0, 5], atol=1e-30)


@pytest.mark.parametrize("k", [4, 30])
def test_ties_are_seen(k):
    """Two units with one linear part: which of them is flipped cannot be known."""
    A, W, _, signs = planted(k, 10, 4)
    A[:, 1], W[1] = A[:, 0], W[0]
    signs[:2] = 1, -1
    found = decode_signs(A, W, 0.5 * (A * (signs - 1)) @ W)
    assert found.distances[1] < 1e-24 < 1e-3 < found.distances[2]
    np.testing.assert_array_equal(found.signs[:2, 2:], [signs[2:]] * 2)
    assert {tuple(row) for row in found.signs[:2, :2]} == {(1, -1), (-1, 1)}


@pytest.mark.parametrize("k", [5, 25])
def test_a_precision_of_zero_knows_nothing(k):
    A, W, linear, _ = planted(k, 10, 3)
    found = decode_signs(A, W, linear, precision=np.zeros((3, 3)))
    np.testing.assert_array_equal(found.distances, 0)


def test_many_more_units_than_equations_end():
    A, W, linear, _ = planted(60, 5, 1)
    found = decode_signs(A, W, linear, top=20)
    assert len(found.signs) == 20
    assert (np.diff(found.distances) >= 0).all()
    # Of 2^60 patterns in five dimensions many are near: none of them is known to be right.
    assert found.distances[-1] < 0.05 * (linear**2).sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": np.ones((2, 4))}, r"must have shapes \(m, k\), \(k, d\) and \(m, d\)"),
        ({"linear": np.ones((2, 4))}, r"must have shapes \(m, k\), \(k, d\) and \(m, d\)"),
        ({"hidden": np.full((3, 5), np.nan)}, "hidden must be finite"),
        ({"precision": np.eye(3)}, r"precision must have shape \(2, 2\), got \(3, 3\)"),
        ({"top": 0}, "top must be at least 1, got 0"),
    ],
)
def test_errors(change, message):
    A, W, linear, _ = planted(3, 5, 2)
    with pytest.raises(ValueError, match=message):
        decode_signs(**{"outputs": A, "hidden": W, "linear": linear, **change})
