import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import TwoLayerNetwork, parameter_error
from fastsym.identifiability import merge_units
from fastsym.spectral.diagnostics import near_units


def random_network(rng, k, d, m, slope=0.0, bias=True):
    return TwoLayerNetwork(
        rng.standard_normal((k, d)),
        rng.standard_normal((m, k)),
        hidden_intercept=rng.standard_normal(k) if bias else None,
        output_intercept=rng.standard_normal(m) if bias else None,
        negative_slope=slope,
    )


@given(
    st.integers(0, 999), st.integers(0, 5), st.integers(0, 6), st.sampled_from([0.0, 0.25]),
    st.booleans(),
)  # fmt: skip
def test_split_units_are_merged(seed, k, more, slope, bias):
    """Units of a network, some of them written as several on one hyperplane, some constant."""
    rng = np.random.default_rng(seed)
    plain = random_network(rng, k, 3, 2, slope, bias)
    copies = np.concatenate([np.arange(k), rng.integers(0, k, more * (k > 0))])
    rng.shuffle(copies)
    copies = copies.astype(int)
    factors = rng.uniform(0.5, 2, len(copies)) * rng.choice([-1, 1], len(copies))
    rows = plain.hidden_rows[copies] * factors[:, None]
    still = np.zeros((2, 4))
    still[:, 0] = [0.5, -0.5] if bias else 0
    rows = np.concatenate([rows, still])
    network = TwoLayerNetwork(
        rows[:, 1:], rng.standard_normal((2, len(rows))), hidden_intercept=rows[:, 0],
        negative_slope=slope,
    )  # fmt: skip
    merged = merge_units(network)
    X = rng.standard_normal((50, 3))
    np.testing.assert_allclose(merged.predict(X), network.predict(X), atol=1e-11)
    assert merged.n_hidden == k
    # Written in another order and with other signs it is the same network again.
    order = rng.permutation(len(rows))
    other = network.flipped(rng.choice([-1, 1], len(rows)))
    other = TwoLayerNetwork(
        other.hidden_weights[order], other.output_weights[:, order],
        hidden_intercept=other.hidden_intercept[order], output_intercept=other.output_intercept,
        linear_weights=other.linear_weights, negative_slope=slope,
    )  # fmt: skip
    error = parameter_error(merged, merge_units(other))._replace(wrong_signs=0)
    np.testing.assert_allclose(error, 0, atol=1e-18)


def test_nothing_is_merged_that_differs(rng):
    network = random_network(rng, 6, 2, 1)
    merged = merge_units(network)
    assert merged.n_hidden == 6
    np.testing.assert_allclose(parameter_error(network, merged), 0, atol=1e-28)
    assert not merged.linear_weights.any()
    # One direction, two places.
    two = TwoLayerNetwork([[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0]], hidden_intercept=[0.0, 1.0])
    assert merge_units(two).n_hidden == 2


def test_what_cancels_is_linear_or_nothing():
    line = merge_units(TwoLayerNetwork([[2.0], [-2.0]], [[1.0, -1.0]], negative_slope=0.5))
    assert line.n_hidden == 0
    np.testing.assert_allclose(line.linear_weights, [[3.0]])
    nothing = merge_units(TwoLayerNetwork([[2.0], [4.0]], [[1.0, -0.5]]))
    assert nothing.n_hidden == 0
    np.testing.assert_array_equal(nothing.predict([[1.0], [-1.0]]), [[0.0], [0.0]])


@pytest.mark.parametrize("gap", [1e-12, 1e-6])
def test_tolerance(gap):
    network = TwoLayerNetwork([[1.0, 0.0], [1.0, gap]], [[1.0, 1.0]])
    assert merge_units(network).n_hidden == (1 if gap < 1e-10 else 2)
    assert merge_units(network, tolerance=1e-5).n_hidden == 1


def test_units_that_bend_in_other_places_are_not_near():
    W, A = [[1.0, 0.0], [1.0, 0.01]], [[1.0, 0.0], [0.0, 1.0]]
    assert len(near_units(TwoLayerNetwork(W, A))) == 1
    assert not near_units(TwoLayerNetwork(W, A, hidden_intercept=[1.0, -1.0]))
    opposite = TwoLayerNetwork([W[0], [-1, -0.01]], A, hidden_intercept=[1.0, -1.0])
    assert len(near_units(opposite)) == 1
