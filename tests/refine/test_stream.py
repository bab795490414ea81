"""Refinement in one pass."""

import pickle
import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsym import (
    MomentAccumulator,
    TwoLayerRegressor,
    make_two_layer,
    parameter_error,
)
from fastsym.datasets import make_network
from fastsym.engine import gather
from fastsym.exceptions import ConvergenceWarning
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


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 39_999), max_size=12))
def test_chunks_change_no_bit(cuts):
    """Both stages and a look at 24 576 rows; features are dead at first, so that a search comes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "SAMPLE_ROWS", 8192)
        X, Y, _ = small_at_first(40_000, 0.0)
        expected = _fitted_in(X, Y, [])
        model = _fitted_in(X, Y, cuts)
    np.testing.assert_array_equal(model.hidden_weights_, expected.hidden_weights_)
    np.testing.assert_array_equal(model.output_weights_, expected.output_weights_)
    assert model.loss_ == expected.loss_
    assert model.refinement_.certificate == expected.refinement_.certificate


def _fitted_in(X, Y, cuts):
    model = TwoLayerRegressor(3)
    for first, last in pairwise([0, *sorted(set(cuts)), len(X)]):
        model.partial_fit(X[first:last], Y[first:last])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.hidden_weights_  # noqa: B018 (works the fit out)
    return model


def drawn(X, seed=0, noise=0.3):
    """Outputs of a network of 5 features, 3 units and 4 outputs for given inputs."""
    network = make_network(5, 3, 4, random_state=seed)
    rng = np.random.default_rng([seed, 7])
    return network.predict(X) + noise * rng.standard_normal((len(X), 4)), network


def normal(n, seed=0):
    return np.random.default_rng([seed, 8]).standard_normal((n, 5))


def small_at_first(n, scale):
    X = normal(n)
    X[: n // 3, :2] *= scale
    return X, *drawn(X)


def sorted_by(key, n):
    X = normal(n)
    Y, network = drawn(X)
    rows = np.argsort(key(X, Y), kind="stable")
    return X[rows], Y[rows], network


def clusters(distance, n):
    X, which = normal(n), np.arange(n) * 4 // n
    signs = np.where(np.arange(n) % 2, 1.0, -1.0)
    X += distance * signs[:, None] * np.eye(5)[which]
    return X, *drawn(X)


def growing(n):
    X = normal(n) * 10 ** np.linspace(-1, 1, n)[:, None]
    return X, *drawn(X)


def noisy_later(n):
    X = normal(n)
    Y, network = drawn(X)
    Y[: n // 3] = network.predict(X[: n // 3])
    return X, Y, network


def changing(n, share):
    X = normal(n)
    (Y, network), (later, _) = drawn(X), drawn(X, seed=1)
    return X, (1 - share) * Y + share * later, network


N = 30_000
ORDERS = {
    "iid": lambda: (normal(N), *drawn(normal(N))),
    "by x0": lambda: sorted_by(lambda X, _: X[:, 0], N),
    "by y0": lambda: sorted_by(lambda _, Y: Y[:, 0], N),
    "by |x|": lambda: sorted_by(lambda X, _: np.linalg.norm(X, axis=1), N),
    "near clusters": lambda: clusters(1.0, N),
    "distant clusters": lambda: clusters(30.0, N),
    "scale drift": lambda: growing(N),
    "dead features": lambda: small_at_first(N, 0.0),
    "small features": lambda: small_at_first(N, 1e-3),
    "noiseless first": lambda: noisy_later(N),
    "weights drift": lambda: changing(20_000, np.linspace(0, 1, 20_000)[:, None]),
    "network changes": lambda: changing(20_000, np.repeat([0, 1], 10_000)[:, None]),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_order_of_the_rows(order):
    X, Y, network = ORDERS[order]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = feed(TwoLayerRegressor(3), X, Y, 1000)
        loss = ((Y - model.predict(X)) ** 2).sum() / len(X)
    optimum = refine(from_arrays(X, Y), network, trusted=True).loss
    assert loss <= 1.02 * optimum
    np.testing.assert_allclose(model.loss_, loss, rtol=0.03)
    assert model.refinement_.certificate != "exact"
    assert model.refinement_.n_samples == len(X)
    named = [one for one in caught if "changes during the stream" in str(one.message)]
    assert len(named) == (order in ("by y0", "weights drift", "network changes"))


def test_tiny_first_blocks():
    X, Y, _ = ORDERS["iid"]()
    model = TwoLayerRegressor(3)
    for row in range(300):
        model.partial_fit(X[row : row + 1], Y[row : row + 1])
    model = feed(model, X[300:], Y[300:], 5000)
    whole = feed(TwoLayerRegressor(3), X, Y, N)
    np.testing.assert_array_equal(model.hidden_weights_, whole.hidden_weights_)


def test_a_change_is_named_with_its_rows():
    X, Y, _ = ORDERS["network changes"]()
    with pytest.warns(ConvergenceWarning, match="network changes") as caught:
        loss = feed(TwoLayerRegressor(3), X, Y, 5000).loss_
    message = next(str(one.message) for one in caught if "network changes" in str(one.message))
    row, before, after = map(
        float,
        re.search(r"number (\d+) have loss ([\d.]+), those after it ([\d.]+),", message).groups(),
    )
    assert abs(row - 10_000) < 500
    np.testing.assert_allclose((before + after) / 2, loss, rtol=0.03)


def test_exact_in_memory_alone_is_no_certificate():
    X, Y, _ = make_two_layer(60_000, 5, 3, 4, random_state=0)
    model = feed(TwoLayerRegressor(3), X, Y, 10_000)
    held = set(np.array(model._stream._refiner._stage._reservoir.numbers).tolist())
    odd = next(row for row in range(59_000, 60_000) if row not in held)
    Y[odd] += 1
    with pytest.warns(ConvergenceWarning, match="fitted exactly"):
        model = feed(TwoLayerRegressor(3), X, Y, 10_000)
        assert not model.converged_
    np.testing.assert_allclose(model.loss_, 4 / 60_000, rtol=1e-3)


def test_another_number_of_units_in_all_rows():
    n = 30_000
    X = normal(n)
    X[:10_000, 2:] = 0
    Y, _ = drawn(X)
    with pytest.warns(UserWarning) as caught:
        k = feed(TwoLayerRegressor(), X, Y, 5000).network_.n_hidden
    said = [str(one.message) for one in caught if 'n_hidden="auto"' in str(one.message)]
    assert k == 2
    assert len(said) == 1
    assert "give n_hidden=3" in said[0]
