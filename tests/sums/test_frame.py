import numpy as np
import pytest

from fastsym import make_two_layer
from fastsym.algebra import whitening
from fastsym.datasets import make_network
from fastsym.exceptions import RankDeficientWarning
from fastsym.sums.frame import Frame, estimate_frame, frame_of

from .. import naive


def test_frame_of_a_population_spans_the_rows_of_w(rng):
    network = make_network(7, 3, 5, hidden_condition=3, random_state=rng)
    X = naive.antithetic(rng.standard_normal((500, 7)))
    Y = network.predict(X)
    frame = estimate_frame(X, Y, 3)
    x, y = X @ frame.input_map, Y @ frame.output_map
    np.testing.assert_allclose(x.T @ x / len(x), np.eye(3), atol=1e-12)
    # W x is a function of x'.
    coefficients = np.linalg.lstsq(x, X @ network.hidden_weights.T, rcond=None)[0]
    np.testing.assert_allclose(x @ coefficients, X @ network.hidden_weights.T, atol=1e-11)
    # The odd part of y' is x' / 2.
    np.testing.assert_allclose((y[:500] - y[500:]) / 2, x[:500] / 2, atol=1e-11)
    assert (frame.n_features, frame.n_hidden, frame.n_outputs, frame.n_pilot) == (7, 3, 5, 1000)


def test_frame_of_checked_samples_is_the_frame(rng):
    X, Y, _ = make_two_layer(500, 4, 3, 4, random_state=0)
    weights = rng.uniform(0.5, 2, 500)
    for hidden, wanted in ((3, 3), ("auto", None)):
        assert frame_of(X, Y, wanted) == estimate_frame(X, Y, hidden)
        assert frame_of(X, Y, wanted, weights, 0.2) == estimate_frame(
            X, Y, hidden, sample_weight=weights, negative_slope=0.2
        )


def test_even_map_is_the_regression_on_pairs(rng):
    X, Y, _ = make_two_layer(4000, 4, 3, 4, noise=0.1, random_state=0)
    frame = estimate_frame(X, Y, 3)
    terms = np.concatenate([np.ones((4000, 1)), naive.pairs(X @ frame.input_map)], axis=1)
    residual = Y - X @ np.linalg.lstsq(X, Y - Y.mean(axis=0), rcond=None)[0]
    expected = np.linalg.lstsq(terms, residual, rcond=None)[0]
    np.testing.assert_allclose(frame.even_map, expected, atol=1e-6)


def test_even_map_is_the_mean_when_the_pilot_is_small():
    X, Y, _ = make_two_layer(20, 4, 4, 4, random_state=0)
    frame = estimate_frame(X, Y, 4)
    np.testing.assert_array_equal(frame.even_map[1:], 0)
    residual = Y - X @ np.linalg.lstsq(X, Y - Y.mean(axis=0), rcond=None)[0]
    np.testing.assert_allclose(frame.even_map[0], residual.mean(axis=0))


@pytest.mark.parametrize("distribution", ["gaussian", "student_t", "rademacher"])
def test_noise_floor_is_seldom_exceeded_by_chance(distribution):
    exceeded = 0
    for seed in range(20):
        X, Y, _ = make_two_layer(
            2000, 10, 3, 9, distribution=distribution, noise=0.3, random_state=seed
        )
        frame = estimate_frame(X, Y)
        assert (frame.correlations[:3] > 2 * frame.noise_floor).all()
        exceeded += frame.correlations[3] > frame.noise_floor
    assert exceeded <= 1


def test_auto_without_noise_and_with_unrelated_outputs(rng):
    X, Y, _ = make_two_layer(5000, 9, 4, 9, random_state=0)
    assert estimate_frame(X, Y).n_hidden == 4
    frame = estimate_frame(X, rng.standard_normal((5000, 3)))
    assert frame.n_hidden == 1
    assert frame.correlations[0] < frame.noise_floor


def test_auto_does_not_depend_on_units(rng):
    X, Y, _ = make_two_layer(5000, 9, 4, 9, noise=0.1, random_state=0)
    scales = np.logspace(-6, 6, 9)
    assert estimate_frame(X * scales, Y * scales[::-1]).n_hidden == 4


def test_whitening_drops_null_directions(rng):
    moment = np.cov(rng.standard_normal((4, 100)))
    basis = rng.standard_normal((6, 4))
    singular = basis @ moment @ basis.T
    whiten = whitening(singular)
    assert whiten.shape == (6, 4)
    np.testing.assert_allclose(whiten.T @ singular @ whiten, np.eye(4), atol=1e-10)


def test_dependent_features_warn():
    X, Y, _ = make_two_layer(1000, 4, 2, 3, random_state=0)
    X[:, 3] = X[:, 0] - 2 * X[:, 1]
    with pytest.warns(RankDeficientWarning, match="rank 3 of 4"):
        estimate_frame(X, Y, 2)


def test_frames_compare_by_value_and_survive_arrays():
    X, Y, _ = make_two_layer(1000, 4, 2, 3, random_state=0)
    frame = estimate_frame(X, Y, 2)
    again = Frame.from_arrays(frame.to_arrays())
    assert frame == again
    assert hash(frame) == hash(again)
    assert frame != estimate_frame(X[:900], Y[:900], 2)
    assert frame != 1
