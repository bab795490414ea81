import numpy as np
import pytest

from fastsym import TwoLayerNetwork, make_two_layer, parameter_error
from fastsym.archive import write_arrays
from fastsym.datasets import make_network
from fastsym.metrics import match_neurons, output_error


def test_predict_is_a_relu_b(rng):
    W, A, X = rng.standard_normal((3, 5)), rng.standard_normal((4, 3)), rng.standard_normal((7, 5))
    network = TwoLayerNetwork(W, A)
    expected = [
        [sum(a * max(w @ x, 0) for a, w in zip(row, W, strict=True)) for row in A] for x in X
    ]
    np.testing.assert_allclose(network.predict(X), expected)
    assert (network.n_features, network.n_hidden, network.n_outputs) == (5, 3, 4)


def test_predict_in_blocks_is_predict_at_once(rng):
    network = make_network(3, 2, 2, random_state=0)
    X = rng.standard_normal((70_000, 3))
    hidden = np.maximum(X @ network.hidden_weights.T, 0)
    np.testing.assert_allclose(network.predict(X), hidden @ network.output_weights.T, atol=1e-14)


def test_value_is_frozen_and_independent_of_its_source(rng):
    W, A = rng.standard_normal((3, 5)), rng.standard_normal((4, 3))
    network = TwoLayerNetwork(W, A)
    before = W[0, 0]
    W[0, 0] = 99
    assert network.hidden_weights[0, 0] == before
    with pytest.raises(ValueError, match="read-only"):
        network.hidden_weights[0, 0] = 1
    with pytest.raises(AttributeError):
        network.hidden_weights = W


@pytest.mark.parametrize("order", ["C", "F"])
def test_save_and_load(tmp_path, rng, order):
    network = TwoLayerNetwork(
        np.asarray(rng.standard_normal((3, 5)), order=order), rng.standard_normal((4, 3))
    )
    path = network.save(tmp_path / "any name")
    assert path == tmp_path / "any name"
    loaded = TwoLayerNetwork.load(path)
    np.testing.assert_array_equal(loaded.hidden_weights, network.hidden_weights)
    np.testing.assert_array_equal(loaded.output_weights, network.output_weights)
    with np.load(path, allow_pickle=False) as plain:  # NumPy alone can read it
        assert plain["format_version"] == 3


def test_bad_weights_and_inputs():
    with pytest.raises(ValueError, match=r"one row for each column.*\(2, 3\) and \(2, 3\)"):
        TwoLayerNetwork(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="hidden_weights contains NaN"):
        TwoLayerNetwork([[np.nan]], [[1.0]])
    network = TwoLayerNetwork(np.ones((2, 3)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="X has 2 features, but the network expects 3"):
        network.predict(np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"X contains infinity \(first in row 1\)"):
        network.predict([[1, 2, 3], [np.inf, 0, 0]])


# Metrics


def test_parameter_error_ignores_order_and_scale(rng):
    truth = make_network(6, 4, 5, random_state=0)
    order, scale = rng.permutation(4), rng.uniform(0.1, 10, 4)
    same = TwoLayerNetwork(
        (truth.hidden_weights * scale[:, None])[order], (truth.output_weights / scale)[:, order]
    )
    assert max(parameter_error(truth, same)) < 1e-28
    np.testing.assert_array_equal(order[match_neurons(truth, same)[0]], np.arange(4))


def test_parameter_error_counts_signs_and_tiny_distances():
    truth = TwoLayerNetwork(np.eye(2), np.eye(2))
    flipped = TwoLayerNetwork(-np.eye(2), np.eye(2))
    assert parameter_error(truth, flipped) == (8.0, 0.0)
    turned = TwoLayerNetwork([[1, 1e-12], [0, 1]], np.eye(2))
    np.testing.assert_allclose(parameter_error(truth, turned).hidden_error, 1e-24, rtol=1e-3)


def test_parameter_error_pairs_on_both_sums(rng):
    # By the hidden rows alone the pairing would be the identity, by the columns alone a swap.
    truth = TwoLayerNetwork(np.eye(2), np.eye(2))
    turn = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
    estimate = TwoLayerNetwork(turn, [[0, 1], [1, 0]])
    hidden, output = parameter_error(truth, estimate)
    # identity: 4 (1 - cos 0.5) + 4; swap: (2 - 2 sin 0.5) + (2 + 2 sin 0.5) + 0
    assert output == 0
    np.testing.assert_allclose(hidden, 4)


def test_parameter_error_needs_one_shape():
    with pytest.raises(ValueError, match=r"\(3, 2, 2\) and \(4, 2, 2\)"):
        parameter_error(make_network(3, 2, 2), make_network(4, 2, 2))


def test_output_error():
    assert output_error([[3.0], [4.0]], [[3.0], [4.0]]) == 0
    assert output_error([3.0, 4.0], [0.0, 0.0]) == 1
    assert output_error([0.0], [1.0]) == np.inf
    with pytest.raises(ValueError, match=r"same shape.*\(2, 1\) and \(1, 1\)"):
        output_error([1.0, 2.0], [1.0])
    X, Y, network = make_two_layer(100, 3, 2, 2, noise=0.5, random_state=0)
    expected = np.linalg.norm(Y - network.predict(X)) ** 2 / np.linalg.norm(Y) ** 2
    np.testing.assert_allclose(output_error(Y, network.predict(X)), expected)


def test_slope_and_intercepts(tmp_path, rng):
    W, A = rng.standard_normal((3, 5)), rng.standard_normal((4, 3))
    b, c = rng.standard_normal(3), rng.standard_normal(4)
    network = TwoLayerNetwork(W, A, hidden_intercept=b, output_intercept=c, negative_slope=0.25)
    X = rng.standard_normal((20, 5))
    t = X @ W.T + b
    expected = np.where(t > 0, t, 0.25 * t) @ A.T + c
    np.testing.assert_allclose(network.predict(X), expected, atol=1e-14)
    loaded = TwoLayerNetwork.load(network.save(tmp_path / "n.npz"))
    np.testing.assert_array_equal(loaded.predict(X), network.predict(X))
    assert loaded.negative_slope == 0.25


def test_files_of_version_1_are_read(tmp_path, rng):
    W, A = rng.standard_normal((3, 5)), rng.standard_normal((4, 3))
    old = write_arrays(tmp_path / "old", "network", 1, {"hidden_weights": W, "output_weights": A})
    loaded = TwoLayerNetwork.load(old)
    np.testing.assert_array_equal(loaded.hidden_weights, W)
    assert loaded.negative_slope == 0
    assert not loaded.hidden_intercept.any()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"hidden_intercept": [1.0]}, r"hidden_intercept must hold 2 finite numbers, got shape"),
        ({"output_intercept": [np.nan]}, "output_intercept must hold 1 finite numbers"),
        ({"negative_slope": 1.0}, "negative_slope must be a number from 0 to below 1, got 1.0"),
        ({"negative_slope": "leaky"}, "negative_slope must be a number"),
    ],
)
def test_bad_slope_and_intercepts(how, message):
    with pytest.raises(ValueError, match=message):
        TwoLayerNetwork([[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0]], **how)
