"""A uniform sample of a stream."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from fastsym.refine.reservoir import Reservoir


def rows_of(n, weighted=False):
    """Rows that carry their number, so that it can be read off everywhere."""
    numbers = np.arange(n, dtype=float)
    return numbers[:, None] + [0, 0.25], -numbers[:, None], numbers + 1 if weighted else None


def sampled(n, size, cuts=(), weighted=False):
    X, Y, weights = rows_of(n, weighted)

    def part(a, b):
        return X[a:b].copy(), Y[a:b].copy(), None if weights is None else weights[a:b].copy()

    reservoir = Reservoir(part(0, size))
    ends = [size, *sorted(cuts), n]
    for first, last in pairwise(ends):
        reservoir.take(*part(first, last))
    return reservoir


def test_rows_stay_together_and_in_order():
    reservoir = sampled(1000, 64, [200, 201, 700], weighted=True)
    sample = reservoir.sample()
    numbers = reservoir.numbers
    assert len(set(numbers.tolist())) == 64 == reservoir.n_rows
    assert (np.diff(numbers) > 0).all()
    np.testing.assert_array_equal(sample.X[:], numbers[:, None] + [0, 0.25])
    np.testing.assert_array_equal(sample.Y[:, 0], -numbers)
    np.testing.assert_array_equal(sample.weights, numbers + 1.0)
    assert reservoir.n_taken == 1000
    unordered = reservoir.sample(in_order=False)
    np.testing.assert_array_equal(np.sort(unordered.X[:, 0]), numbers)


def test_without_weights_there_are_none():
    assert sampled(100, 10).sample().weights is None


@given(st.lists(st.integers(64, 999), max_size=20))
def test_chunks_change_nothing(cuts):
    np.testing.assert_array_equal(sampled(1000, 64).numbers, sampled(1000, 64, cuts).numbers)


def test_the_oracle_row_by_row_gives_the_same():
    expected, random = list(range(50)), np.random.default_rng(0)
    for i in range(50, 3000):
        place = int(random.random() * (i + 1))
        if place < 50:
            expected[place] = i
    assert sorted(expected) == sampled(3000, 50, [60, 61, 500, 2100]).numbers.tolist()


@pytest.mark.parametrize("n", [600, 5000])
def test_all_rows_are_as_likely(monkeypatch, n):
    """Chi-squared of how often rows of twenty parts of the stream are drawn, over 200 samples."""
    counts = np.zeros(20)
    for seed in range(200):
        monkeypatch.setattr("fastsym.refine.reservoir._SEED", seed)
        counts += np.histogram(sampled(n, 100, [150, 400]).numbers, bins=20, range=(0, n))[0]
    expected = 200 * 100 / 20
    # Drawn without replacement: the variance of a count is smaller by 1 - 100 / n.
    statistic = ((counts - expected) ** 2).sum() / expected / (1 - 100 / n)
    assert chi2.ppf(0.001, 19) < statistic < chi2.ppf(0.999, 19)
