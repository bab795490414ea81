import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import TwoLayerNetwork, make_two_layer, parameter_error
from fastsym.archive import write_arrays
from fastsym.datasets import make_network
from fastsym.metrics import match_neurons, output_error


def random_network(rng, k=3, d=5, m=4, slope=0.25):
    return TwoLayerNetwork(
        rng.standard_normal((k, d)),
        rng.standard_normal((m, k)),
        hidden_intercept=rng.standard_normal(k),
        output_intercept=rng.standard_normal(m),
        linear_weights=rng.standard_normal((m, d)),
        negative_slope=slope,
    )


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
        assert plain["format_version"] == 4


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
    np.testing.assert_array_equal(order[match_neurons(truth, same).order], np.arange(4))


def test_parameter_error_counts_signs_and_tiny_distances():
    truth = TwoLayerNetwork(np.eye(2), np.eye(2))
    flipped = TwoLayerNetwork(-np.eye(2), np.eye(2))
    # y = A h(-x) = A h(x) - A x: sum |a_i|^2 |w_i|^2 / 4 is 1/2, |A|^2 is 2.
    assert parameter_error(truth, flipped) == (0, 0, 2, 4)
    assert parameter_error(truth, flipped, up_to_sign=False) == (8, 0, 0, 0)
    turned = TwoLayerNetwork([[1, 1e-12], [0, 1]], np.eye(2))
    np.testing.assert_allclose(parameter_error(truth, turned).hidden_error, 1e-24, rtol=1e-3)


def test_parameter_error_pairs_on_both_sums(rng):
    # By the hidden rows alone the pairing would be the identity, by the columns alone a swap.
    truth = TwoLayerNetwork(np.eye(2), np.eye(2))
    turn = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
    estimate = TwoLayerNetwork(turn, [[0, 1], [1, 0]])
    hidden, output, *_ = parameter_error(truth, estimate, up_to_sign=False)
    # identity: 4 (1 - cos 0.5) + 4; swap: (2 - 2 sin 0.5) + (2 + 2 sin 0.5) + 0
    assert output == 0
    np.testing.assert_allclose(hidden, 4)
    # The second unit of the swap is closer to the opposite one.
    hidden, output, wrong_signs, _ = parameter_error(truth, estimate)
    assert (output, wrong_signs) == (0, 1)
    np.testing.assert_allclose(hidden, 4 - 4 * np.sin(0.5))


@given(st.integers(0, 999), st.integers(0, 4), st.sampled_from([0.0, 0.25]))
def test_networks_of_one_function_differ_in_signs_alone(seed, k, slope):
    rng = np.random.default_rng(seed)
    truth = random_network(rng, k, 3, 2, slope)
    signs, order = rng.choice([-1.0, 1.0], k), rng.permutation(k)
    same = truth.flipped(signs)
    scale = rng.uniform(0.1, 10, k)
    same = TwoLayerNetwork(
        (same.hidden_weights * scale[:, None])[order],
        (same.output_weights / scale)[:, order],
        hidden_intercept=(same.hidden_intercept * scale)[order],
        output_intercept=same.output_intercept,
        linear_weights=same.linear_weights,
        negative_slope=slope,
    )
    matching = match_neurons(truth, same)
    np.testing.assert_array_equal(order[matching.order], np.arange(k))
    np.testing.assert_array_equal(matching.signs, signs)
    assert matching.error.wrong_signs == (signs < 0).sum()
    np.testing.assert_allclose(matching.error._replace(wrong_signs=0), 0, atol=1e-24)


def changed(network, **changes):
    names = ("hidden_weights", "output_weights", "hidden_intercept", "output_intercept",
             "linear_weights", "negative_slope")  # fmt: skip
    return TwoLayerNetwork(**{name: getattr(network, name) for name in names} | changes)


def test_parts_of_a_wrong_network_are_told_apart(rng):
    truth = random_network(rng)
    form = truth.absolute_form()
    size = (truth.linear_weights**2).sum() + (truth.output_intercept**2).sum() + sum(
        (0.625 * np.linalg.norm(np.outer(a, [b, *w]))) ** 2
        for a, b, w in zip(
            truth.output_weights.T, form.hidden_intercept, form.hidden_weights, strict=True
        )
    )  # fmt: skip
    moved = changed(truth, linear_weights=truth.linear_weights + 0.1)
    np.testing.assert_allclose(parameter_error(truth, moved), (0, 0, 0, 20 * 0.01 / size))
    moved = changed(truth, output_intercept=truth.output_intercept + 0.1)
    np.testing.assert_allclose(parameter_error(truth, moved), (0, 0, 0, 4 * 0.01 / size))
    bias = changed(truth, hidden_intercept=0 * truth.hidden_intercept)
    rows = np.column_stack([truth.hidden_intercept, truth.hidden_weights])
    cosines = np.linalg.norm(rows[:, 1:], axis=1) / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(parameter_error(truth, bias)[:2], ((2 - 2 * cosines).sum(), 0))
    # A sign alone: the linear part of the unit is missing.
    rows = rows * np.array([[1], [-1], [1]])
    flipped = changed(truth, hidden_weights=rows[:, 1:], hidden_intercept=rows[:, 0])
    error = parameter_error(truth, flipped)
    assert error.wrong_signs == 1
    missing = 1.25 * np.outer(truth.output_weights[:, 1], rows[1])
    np.testing.assert_allclose(error.linear_error, (missing**2).sum() / size)


def test_linear_error_of_weights_of_any_size(rng):
    truth, other = random_network(rng), random_network(rng)
    expected = parameter_error(truth, other)
    large = [
        changed(
            one,
            hidden_weights=one.hidden_weights * 2.0**500,
            hidden_intercept=one.hidden_intercept * 2.0**500,
            output_weights=one.output_weights * 2.0**100,
            output_intercept=one.output_intercept * 2.0**600,
            linear_weights=one.linear_weights * 2.0**600,
        )
        for one in (truth, other)
    ]
    np.testing.assert_allclose(parameter_error(*large), expected, rtol=1e-12)
    zero = TwoLayerNetwork([[0.0]], [[0.0]])
    assert parameter_error(zero, zero) == (0, 0, 0, 0)
    assert parameter_error(zero, changed(zero, linear_weights=[[1.0]])).linear_error == np.inf


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
    assert loaded.linear_weights.shape == (4, 5)
    assert not loaded.linear_weights.any()


def test_linear_weights(tmp_path, rng):
    network = random_network(rng)
    L = network.linear_weights
    X = rng.standard_normal((20, 5))
    t = X @ network.hidden_weights.T + network.hidden_intercept
    units = np.where(t > 0, t, 0.25 * t)
    expected = units @ network.output_weights.T + network.output_intercept + X @ L.T
    np.testing.assert_allclose(network.predict(X), expected, atol=1e-13)
    loaded = TwoLayerNetwork.load(network.save(tmp_path / "n.npz"))
    np.testing.assert_array_equal(loaded.linear_weights, L)
    np.testing.assert_array_equal(loaded.predict(X), network.predict(X))
    with pytest.raises(ValueError, match="read-only"):
        L[0, 0] = 1


@pytest.mark.parametrize("linear", [True, False])
def test_no_hidden_unit(tmp_path, rng, linear):
    L = rng.standard_normal((2, 3)) if linear else None
    network = TwoLayerNetwork(
        np.empty((0, 3)), np.empty((2, 0)), linear_weights=L, output_intercept=[1, -1]
    )
    assert (network.n_features, network.n_hidden, network.n_outputs) == (3, 0, 2)
    X = rng.standard_normal((5, 3))
    expected = np.array([[1, -1]]) + (X @ L.T if linear else np.zeros((5, 2)))
    np.testing.assert_allclose(network.predict(X), expected, atol=1e-15)
    loaded = TwoLayerNetwork.load(network.save(tmp_path / "n.npz"))
    np.testing.assert_array_equal(loaded.predict(X), network.predict(X))
    np.testing.assert_array_equal(loaded.flipped([]).predict(X), network.predict(X))
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="predictions overflow"):
        TwoLayerNetwork(
            np.empty((0, 1)), np.empty((1, 0)), linear_weights=[[1e200]]
        ).predict([[1e200]])  # fmt: skip


@pytest.mark.parametrize(("d", "m", "slope"), [(5, 4, 0.25), (2, 4, 0.0), (3, 1, 0.5)])
@pytest.mark.parametrize("linear", [True, False])
def test_augmented_units_are_the_network(d, m, slope, linear, rng):
    network = random_network(rng, 3, d, m, slope)
    if not linear:
        network = TwoLayerNetwork(
            network.hidden_weights, network.output_weights, negative_slope=slope
        )
    hidden, outputs = network.augmented()
    X = rng.standard_normal((20, d))
    t = np.column_stack([np.ones(20), X]) @ hidden.T
    t[:, :3] = np.where(t[:, :3] > 0, t[:, :3], slope * t[:, :3])
    np.testing.assert_allclose(t @ outputs.T, network.predict(X), atol=1e-13)
    assert len(hidden) == 4 + linear * d


@given(st.integers(0, 999), st.integers(0, 4), st.sampled_from([0.0, 0.25]))
def test_signs_of_units_and_the_form_without(seed, k, slope):
    rng = np.random.default_rng(seed)
    network = random_network(rng, k, 3, 2, slope)
    signs = rng.choice([-1, 1], k)
    flipped = network.flipped(signs)
    X = rng.standard_normal((30, 3))
    np.testing.assert_allclose(flipped.predict(X), network.predict(X), atol=1e-12)
    np.testing.assert_array_equal(flipped.hidden_intercept, network.hidden_intercept * signs)
    one, other = network.absolute_form(), flipped.absolute_form()
    np.testing.assert_array_equal(other.hidden_weights, one.hidden_weights * signs[:, None])
    for name in ("output_weights", "linear_weights", "output_intercept"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=1e-12)
    units = np.abs(X @ one.hidden_weights.T + one.hidden_intercept)
    again = one.output_intercept + X @ one.linear_weights.T + units @ one.output_weights.T
    np.testing.assert_allclose(again, network.predict(X), atol=1e-12)


@pytest.mark.parametrize("signs", [[1, 1], [1, -1, 0], [1, np.nan, 1]])
def test_bad_signs(signs, rng):
    with pytest.raises(ValueError, match="signs must hold 3 numbers 1 or -1, got"):
        random_network(rng).flipped(signs)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"hidden_intercept": [1.0]}, r"hidden_intercept must hold 2 finite numbers, got shape"),
        ({"output_intercept": [np.nan]}, "output_intercept must hold 1 finite numbers"),
        (
            {"linear_weights": [[1.0]]},
            r"linear_weights must have one row.*shape \(1, 2\), got \(1, 1",
        ),
        ({"linear_weights": [[np.inf, 1.0]]}, "linear_weights contains infinity"),
        ({"negative_slope": 1.0}, "negative_slope must be a number from 0 to below 1, got 1.0"),
        ({"negative_slope": "leaky"}, "negative_slope must be a number"),
    ],
)
def test_bad_slope_and_intercepts(how, message):
    with pytest.raises(ValueError, match=message):
        TwoLayerNetwork([[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0]], **how)
