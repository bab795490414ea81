"""Hermite moments against full tensors, and their decomposition on exact ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym.studies import hermite


def full_tensor(X, y):
    """E[y He3(x)], all of it."""
    d, n = X.shape[1], len(X)
    T = np.einsum("n,na,nb,nc->abc", y, X, X, X) / n
    first, eye = y @ X / n, np.eye(d)
    for spec in ("a,bc->abc", "b,ac->abc", "c,ab->abc"):
        T -= np.einsum(spec, first, eye)
    return T


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 60), st.integers(0, 99))
def test_contractions_are_those_of_the_full_tensor(d, n_directions, n, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    accumulator = hermite.HermiteAccumulator(rng.standard_normal((n_directions, d)))
    for part in np.array_split(np.arange(n), 3):
        accumulator.update(X[part], y[part])
    moments = accumulator.result()
    expected = np.einsum("abc,lc->lab", full_tensor(X, y), moments.directions)
    np.testing.assert_allclose(moments.third, expected, atol=1e-12)
    assert moments.mean == pytest.approx(y.mean())
    np.testing.assert_allclose(moments.first, y @ X / n, atol=1e-13)


class Exact:
    """Moments of the population, for y = sum_i c_i He3(w_i . x)."""

    def __init__(self, W, c, directions):
        self.directions = directions
        self.mean, self.first = 0.0, np.zeros(W.shape[1])
        self.third = 6 * np.einsum("i,iv,lv,ia,ib->lab", c, W, directions, W, W)


def unit_rows(rng, r, d):
    W = rng.standard_normal((r, d))
    return W / np.linalg.norm(W, axis=1, keepdims=True)


@pytest.mark.parametrize(("d", "r"), [(1, 1), (5, 1), (5, 3), (8, 8), (20, 12)])
def test_exact_moments_give_the_weights_and_coefficients(d, r, rng):
    W, c = unit_rows(rng, r, d), rng.uniform(0.5, 2, r) * rng.choice([-1, 1], r)
    moments = Exact(W, c, np.linalg.qr(rng.standard_normal((d, d)))[0])
    found = hermite.decompose(moments, r)
    cosines = found @ W.T
    match = np.abs(cosines).argmax(axis=0)
    assert sorted(match) == list(range(r))
    np.testing.assert_allclose(np.abs(cosines[match, np.arange(r)]), 1, atol=1e-9)
    # The sign of a unit goes with that of its coefficient.
    signs = np.sign(cosines[match, np.arange(r)])
    np.testing.assert_allclose(hermite.coefficients(moments, found)[match] * signs, c, atol=1e-7)
    X = rng.standard_normal((50, d))
    t = X @ W.T
    np.testing.assert_allclose(
        hermite.predict(moments, found, hermite.coefficients(moments, found), X),
        (t**3 - 3 * t) @ c, atol=1e-6,
    )  # fmt: skip


def test_too_many_units_and_bad_samples(rng):
    moments = Exact(unit_rows(rng, 3, 3), np.ones(3), np.eye(3))
    for n_units in (0, 4):
        with pytest.raises(ValueError, match=r"n_units must be from 1 to n_features=3"):
            hermite.decompose(moments, n_units)
    with pytest.raises(ValueError, match="NaN"):
        hermite.HermiteAccumulator(np.eye(2)).update([[1, np.nan]], [1])
    with pytest.raises(ValueError, match="expected 2"):
        hermite.HermiteAccumulator(np.eye(2)).update([[1.0]], [1])


def test_samples_agree_with_the_population(rng):
    d, r, n = 4, 3, 400_000
    W, c = unit_rows(rng, r, d), np.array([1.0, -0.5, 2.0])
    X = rng.standard_normal((n, d))
    t = X @ W.T
    blocks = [
        (X[i : i + 50_000], ((t**3 - 3 * t) @ c)[i : i + 50_000]) for i in range(0, n, 50_000)
    ]
    moments = hermite.accumulate_hermite(blocks, d, d, 0)
    exact = Exact(W, c, moments.directions)
    # The standard deviation of an entry is below 60 / sqrt(n).
    assert np.abs(moments.third - exact.third).max() < 5 * 60 / np.sqrt(n)
    assert np.abs(exact.third).max() > 3


def test_merged_and_restored_they_are_those_of_one_stream(rng):
    X, y, directions = rng.standard_normal((20_000, 3)), rng.standard_normal(20_000), np.eye(3)
    whole = hermite.HermiteAccumulator(directions).update(X, y).result()
    parts = [hermite.HermiteAccumulator(directions).update(X[i], y[i])
             for i in np.array_split(np.arange(20_000), 3)]  # fmt: skip
    merged = (parts[0] + parts[1] + parts[2]).result()
    restored = hermite.HermiteAccumulator(directions).restore(parts[0].to_arrays())
    restored.merge(parts[1]).merge(parts[2])
    assert merged.n_samples == whole.n_samples == 20_000
    np.testing.assert_allclose(merged.third, whole.third, atol=1e-12)
    np.testing.assert_array_equal(restored.result().third, merged.third)
