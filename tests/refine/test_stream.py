"""Refinement in one pass."""

import pickle

import numpy as np
import pytest

from fastsym import (
    MomentAccumulator,
    TwoLayerRegressor,
    make_two_layer,
    parameter_error,
)
from fastsym.engine import gather
from fastsym.refine import problem, refine
from fastsym.refine.normal import ScaledNormal
from fastsym.refine.stream import StreamRefiner
from fastsym.sources import from_arrays
from fastsym.sums.staging import SUPERBLOCK_ROWS


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A short buffer, so that doublings come early."""
    monkeypatch.setattr(gather, "SAMPLE_ROWS", 8192)


def feed(model, X, Y, size, weights=None):
    for first in range(0, len(X), size):
        part = slice(first, first + size)
        model.partial_fit(X[part], Y[part], None if weights is None else weights[part])
    return model


@pytest.mark.parametrize("how", [{}, {"fit_intercept": True}, {"negative_slope": 0.2}])
def test_one_pass_is_as_good_as_the_optimum(how):
    X, Y, network = make_two_layer(80_000, 5, 3, 4, noise=0.5, random_state=0)
    if "negative_slope" in how:
        Y = Y + 0.2 * (np.minimum(X @ network.hidden_weights.T, 0) @ network.output_weights.T)
    model = feed(TwoLayerRegressor(3, **how), X, Y, 3000)
    assert model.n_passes_ == 1
    assert model.converged_
    assert model.refinement_.n_samples == 80_000
    best = TwoLayerRegressor(3, **how).fit(X, Y)
    errors = [sum(parameter_error(network, m.network_)) for m in (model, best)]
    assert errors[0] <= 1.1 * errors[1]
    residual = Y - model.predict(X)
    np.testing.assert_allclose(model.loss_, (residual**2).sum() / len(X), rtol=1e-3)
    np.testing.assert_allclose(model.noise_covariance_, best.noise_covariance_, atol=2e-3)
    apart = parameter_error(model.network_, best.network_)
    assert sum(apart) < 0.1 * errors[1]


def test_exact_without_noise():
    X, Y, network = make_two_layer(30_000, 5, 3, 4, random_state=0)
    model = feed(TwoLayerRegressor(3), X, Y, 7000)
    assert max(parameter_error(network, model.network_)) < 1e-20


def test_asking_on_the_way_changes_nothing():
    X, Y, network = make_two_layer(40_000, 5, 3, 4, noise=0.3, random_state=0)
    quiet = feed(TwoLayerRegressor(3), X, Y, 5000)
    asked = TwoLayerRegressor(3)
    errors = []
    for first in range(0, 40_000, 5000):
        asked.partial_fit(X[first : first + 5000], Y[first : first + 5000])
        errors.append(sum(parameter_error(network, asked.network_)))
    np.testing.assert_array_equal(quiet.hidden_weights_, asked.hidden_weights_)
    assert errors[-1] < errors[0]


def test_short_streams_are_refined_whole():
    X, Y, network = make_two_layer(3000, 5, 3, 4, noise=0.3, random_state=0)
    model = feed(TwoLayerRegressor(3), X, Y, 100)
    whole = refine(from_arrays(X, Y), network, trusted=True)
    np.testing.assert_allclose(model.loss_, whole.loss, rtol=1e-5)
    assert model.n_passes_ == 0


def test_weights_count_as_repeats():
    X, Y, _ = make_two_layer(20_000, 5, 3, 4, noise=0.3, random_state=0)
    weights = np.random.default_rng(0).integers(0, 3, 20_000)
    weighted = feed(TwoLayerRegressor(3), X, Y, 4000, weights)
    best = TwoLayerRegressor(3).fit(np.repeat(X, weights, axis=0), np.repeat(Y, weights, axis=0))
    assert sum(parameter_error(weighted.network_, best.network_)) < 1e-4
    np.testing.assert_allclose(weighted.loss_, best.loss_, rtol=1e-3)
    model = TwoLayerRegressor(3).partial_fit(X, Y)
    before = model.hidden_weights_
    model.partial_fit(X[:5] * 100, Y[:5], sample_weight=np.zeros(5))
    np.testing.assert_array_equal(model.hidden_weights_, before)


def test_memory_is_bounded():
    X, Y, _ = make_two_layer(100_000, 5, 3, 4, noise=0.3, random_state=0)
    moments = MomentAccumulator(3)
    refiner = StreamRefiner(moments)
    for first in range(0, 100_000, 10_000):
        refiner.take(X[first : first + 10_000], Y[first : first + 10_000])
        assert refiner.n_kept < 2 * SUPERBLOCK_ROWS
    assert moments.n_samples == 100_000


def test_normal_matrix_too_large_to_form(monkeypatch):
    monkeypatch.setattr(problem, "DENSE_PARAMETERS", 0)
    X, Y, network = make_two_layer(30_000, 5, 3, 4, noise=0.3, random_state=0)
    model = feed(TwoLayerRegressor(3), X, Y, 5000)
    best = TwoLayerRegressor(3).fit(X, Y)
    errors = [sum(parameter_error(network, m.network_)) for m in (model, best)]
    assert errors[0] <= 1.1 * errors[1]


def test_a_start_in_doubt_is_sought_again():
    # At this noise the first samples do not show the units; four times as many do.
    X, Y, network = make_two_layer(120_000, 6, 6, 6, noise=3.0, random_state=0)
    model = feed(TwoLayerRegressor(6), X, Y, 10_000)
    truth = refine(from_arrays(X, Y), network, trusted=True, max_starts=1)
    assert model.loss_ <= 1.001 * truth.loss


def test_a_step_that_cannot_be_taken_loses_no_sample(monkeypatch):
    X, Y, _ = make_two_layer(60_000, 5, 3, 4, noise=0.3, random_state=0)
    expected = feed(TwoLayerRegressor(3), X, Y, 10_000)
    model, original, failures = TwoLayerRegressor(3), ScaledNormal.solve, []

    def fails_once(self, *gradients):
        if not failures:
            failures.append(self.scale)
            raise np.linalg.LinAlgError
        return original(self, *gradients)

    monkeypatch.setattr(ScaledNormal, "solve", fails_once)
    feed(model, X, Y, 10_000)
    assert model.refinement_.n_samples == 60_000
    assert failures
    # The optimum of the rows in memory takes the place of the step.
    np.testing.assert_allclose(model.hidden_weights_, expected.hidden_weights_, atol=1e-3)


def test_a_model_in_the_middle_of_a_stream_can_be_sent(monkeypatch):
    X, Y, _ = make_two_layer(40_000, 5, 3, 4, noise=0.3, random_state=0)
    model = feed(TwoLayerRegressor(3), X[:30_000], Y[:30_000], 10_000)
    other = pickle.loads(pickle.dumps(model))
    for one in (model, other):
        one.partial_fit(X[30_000:], Y[30_000:])
    np.testing.assert_array_equal(model.hidden_weights_, other.hidden_weights_)
    np.testing.assert_array_equal(model.diagnostics_.singular_values,
                                  other.diagnostics_.singular_values)  # fmt: skip
