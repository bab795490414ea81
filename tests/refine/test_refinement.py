"""Refinement: exact without noise, the truth-started optimum with it, and honest when in doubt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import (
    TwoLayerNetwork,
    TwoLayerRegressor,
    make_two_layer,
    parameter_error,
)
from fastsym import refine as refine_module
from fastsym.activation import Activation
from fastsym.datasets import DISTRIBUTIONS
from fastsym.engine import gather
from fastsym.exceptions import ConvergenceWarning
from fastsym.metrics import match_neurons, output_error
from fastsym.refine import problem as problem_module
from fastsym.refine import refine, sample_rows
from fastsym.refine.problem import Problem
from fastsym.sources import from_arrays, from_blocks


def total_error(network, estimate):
    return sum(parameter_error(network, estimate))


def same_function(one, two, rtol):
    X = np.random.default_rng(0).standard_normal((200, one.n_features))
    return output_error(one.predict(X), two.predict(X)) <= rtol


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_exact_without_noise(distribution):
    X, Y, network = make_two_layer(1000, 6, 4, 5, distribution=distribution, random_state=0)
    model = TwoLayerRegressor(4).fit(X, Y)
    assert output_error(Y, model.predict(X)) <= 1e-24
    assert max(parameter_error(network, model.network_)) <= 1e-20
    assert model.converged_
    assert model.refinement_.certificate == "exact"


@pytest.mark.parametrize("condition", [(100, 1), (1, 100), (10, 10)])
def test_exact_on_ill_conditioned_weights(condition):
    X, Y, _ = make_two_layer(
        5000, 8, 8, 8, hidden_condition=condition[0], output_condition=condition[1], random_state=1
    )
    model = TwoLayerRegressor(8).fit(X, Y)
    assert output_error(Y, model.predict(X)) <= 1e-20


def test_exact_from_few_samples():
    for seed in range(5):
        X, Y, network = make_two_layer(60, 6, 6, 6, random_state=seed)
        model = TwoLayerRegressor(6).fit(X, Y)
        assert max(parameter_error(network, model.network_)) <= 1e-20


@pytest.mark.parametrize(("n", "noise"), [(300, 0.1), (1000, 0.5), (60_000, 0.3)])
def test_as_good_as_from_the_truth(n, noise):
    X, Y, network = make_two_layer(n, 6, 4, 5, noise=noise, random_state=3)
    model = TwoLayerRegressor(4).fit(X, Y)
    truth = refine(from_arrays(X, Y), network, trusted=True, max_starts=1)
    assert model.converged_
    assert model.loss_ <= 1.001 * truth.loss
    assert total_error(network, model.network_) <= 1.1 * total_error(network, truth.network)
    residual = Y - model.predict(X)
    # The last step of a pass over all samples is not looked at again.
    rtol = 1e-12 if n < 32_768 else 1e-6
    np.testing.assert_allclose(model.loss_, (residual**2).sum() / n, rtol=rtol)
    spectral = TwoLayerRegressor(4, refine=False).fit(X, Y)
    assert model.loss_ < ((Y - spectral.predict(X)) ** 2).sum() / n


def test_passes_over_all_samples_reach_the_optimum_of_all(monkeypatch):
    X, Y, network = make_two_layer(30_000, 6, 4, 5, noise=0.3, random_state=0)
    whole = refine(from_arrays(X, Y), network, trusted=True)
    assert whole.n_passes == 0
    unit = Problem(X, Y, None, 4, Activation()).unit
    monkeypatch.setattr(gather, "SAMPLE_ROWS", 2000)
    model = TwoLayerRegressor(4).fit(X, Y)
    assert 2 <= model.n_passes_ <= 4
    assert model.converged_
    assert model.refinement_.n_samples == 30_000
    assert model.diagnostics_.n_samples == 2000
    # Within the tolerance that is promised.
    assert model.loss_ - whole.loss <= 2 * refine_module.PASS_TOLERANCE * unit * whole.loss
    losses = [one.loss for one in model.refinement_.history if one.accepted]
    assert losses == sorted(losses, reverse=True)
    assert model.loss_ <= losses[-1]
    residual = Y - model.predict(X)
    np.testing.assert_allclose(model.loss_, (residual**2).sum() / len(X), rtol=1e-6)
    np.testing.assert_allclose(model.hidden_stderr_, _ordered(model, whole)[0], rtol=0.15)


def _ordered(model, refinement):
    """Standard errors of a refinement in the order of a model's units."""
    order = match_neurons(model.network_, refinement.network).order
    hidden, output = refinement.standard_errors()
    return hidden[order], output[:, order]


def test_exact_in_one_pass_without_noise(monkeypatch):
    monkeypatch.setattr(gather, "SAMPLE_ROWS", 1000)
    X, Y, network = make_two_layer(20_000, 6, 4, 5, random_state=0)
    model = TwoLayerRegressor(4).fit(X, Y)
    assert model.n_passes_ == 1
    assert max(parameter_error(network, model.network_)) <= 1e-20


def test_conjugate_gradients_find_the_same(monkeypatch):
    X, Y, _ = make_two_layer(3000, 6, 4, 5, noise=0.2, random_state=0)
    dense = TwoLayerRegressor(4).fit(X, Y)
    monkeypatch.setattr(problem_module, "DENSE_PARAMETERS", 0)
    implicit = TwoLayerRegressor(4).fit(X, Y)
    np.testing.assert_allclose(implicit.loss_, dense.loss_, rtol=1e-5)
    with pytest.raises(ValueError, match="standard errors need the normal matrix"):
        _ = implicit.hidden_stderr_


@given(st.integers(0, 2**31))
def test_rotated_scaled_and_permuted_problems_have_rotated_solutions(seed):
    rng = np.random.default_rng(seed)
    X, Y, network = make_two_layer(400, 4, 3, 3, noise=0.1, random_state=7)
    rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    mixing = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    scale = float(rng.choice([1e-3, 1.0, 1e4]))
    order = rng.permutation(3)
    base = refine(from_arrays(X, Y), network, trusted=True)
    turned = refine(
        from_arrays(X @ rotation, scale * Y @ mixing),
        TwoLayerNetwork(
            network.hidden_weights[order] @ rotation,
            scale * mixing.T @ network.output_weights[:, order],
        ),
        trusted=True,
    )
    np.testing.assert_allclose(turned.loss, scale**2 * base.loss, rtol=2e-3)
    back = TwoLayerNetwork(
        turned.network.hidden_weights @ rotation.T,
        mixing @ turned.network.output_weights / scale,
    )
    assert same_function(base.network, back, 1e-3)


def test_weights_count_as_repeats():
    X, Y, _ = make_two_layer(600, 5, 3, 4, noise=0.2, random_state=0)
    weights = np.random.default_rng(0).integers(0, 4, 600)
    for how in ({"refine": False}, {}):
        weighted = TwoLayerRegressor(3, **how).fit(X, Y, sample_weight=weights)
        repeated = TwoLayerRegressor(3, **how).fit(
            np.repeat(X, weights, axis=0), np.repeat(Y, weights, axis=0)
        )
        tight = 1e-16 if how else 1e-4
        assert same_function(weighted.network_, repeated.network_, tight)
    # Both are within the tolerance of the optimum, 1e-3 of the 1 % that the weights explain.
    np.testing.assert_allclose(weighted.loss_, repeated.loss_, rtol=3e-5)
    # What is said of chance counts samples: one of weight 2 has one noise, two rows have two.
    n_effective = weights.sum() ** 2 / (weights**2).sum()
    share = 1 - 3 * (5 - 1 + 4) / (4 * np.array([n_effective, weights.sum()]))
    noise = repeated.noise_covariance_ * share[1] / share[0]
    np.testing.assert_allclose(weighted.noise_covariance_, noise, atol=3e-5)
    order = match_neurons(weighted.network_, repeated.network_).order
    weighted.stderr = repeated.stderr = "classical"
    stderr = repeated.hidden_stderr_[order] * np.sqrt(weights.sum() / n_effective)
    np.testing.assert_allclose(weighted.hidden_stderr_, stderr, rtol=0.02)


def test_bad_weights():
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    model = TwoLayerRegressor(2)
    for weights, message in (
        (np.ones(99), r"sample_weight must have shape \(100,\)"),
        (np.full(100, -1.0), "sample_weight must be finite and at least 0, got -1.0 in row 0"),
        (np.full(100, np.nan), "got nan in row 0"),
        (np.zeros(100), "sample_weight is zero for every sample"),
        (["a"] * 100, "sample_weight must be numeric"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(X, Y, sample_weight=weights)


@pytest.mark.parametrize("slope", [0.1, 0.5])
def test_leaky_slope(slope):
    X, _, plain = make_two_layer(4000, 6, 4, 5, random_state=0)
    network = TwoLayerNetwork(plain.hidden_weights, plain.output_weights, negative_slope=slope)
    Y = network.predict(X)
    np.testing.assert_allclose(
        Y, np.where((t := X @ plain.hidden_weights.T) > 0, t, slope * t) @ plain.output_weights.T
    )
    spectral = TwoLayerRegressor(4, negative_slope=slope, refine=False).fit(X, Y)
    assert max(parameter_error(network, spectral.network_)) < 1e-2
    model = TwoLayerRegressor(4, negative_slope=slope).fit(X, Y)
    assert max(parameter_error(network, model.network_)) < 1e-20
    assert model.network_.negative_slope == slope
    wrong = TwoLayerRegressor(4, fit_intercept=False, linear=False).fit(X, Y)
    assert wrong.loss_ > 1e-3


@pytest.mark.filterwarnings("ignore::fastsym.exceptions.ConvergenceWarning")
def test_no_hidden_unit_is_a_linear_regression(rng):
    X, Y = rng.standard_normal((500, 3)) + 1, rng.standard_normal((500, 2))
    Y += X @ [[1.0, 0], [0, -1], [0.5, 0.5]]
    start = TwoLayerNetwork(np.empty((0, 3)), np.empty((2, 0)))
    found = refine(from_arrays(X, Y), start, fit_intercept=True, linear=True, max_starts=1)
    U = np.column_stack([np.ones(500), X])
    expected = np.linalg.lstsq(U, Y)[0]
    np.testing.assert_allclose(found.network.affine_part, expected.T, atol=1e-12)
    residual = Y - U @ expected
    np.testing.assert_allclose(found.loss, (residual**2).sum() / 500)
    variances = (residual**2).sum(axis=0) / (500 - 4)
    errors = np.sqrt(np.outer(variances, np.diag(np.linalg.inv(U.T @ U))))
    hidden, output = found.standard_errors("classical")
    assert hidden.shape == (0, 4)
    np.testing.assert_allclose(output, errors, rtol=1e-6)
    np.testing.assert_allclose(found.standard_errors()[1], errors, rtol=0.3)


def test_intercepts():
    X, _, plain = make_two_layer(3000, 6, 4, 5, random_state=0)
    network = TwoLayerNetwork(
        plain.hidden_weights,
        plain.output_weights,
        hidden_intercept=[0.1, -0.2, 0.0, 0.3],
        output_intercept=[1.0, -2.0, 0.5, 0.0, 3.0],
    )
    Y = network.predict(X)
    model = TwoLayerRegressor(4, fit_intercept=True).fit(X, Y)
    assert model.converged_
    assert same_function(network, model.network_, 1e-20)
    np.testing.assert_allclose(model.output_intercept_, network.output_intercept, atol=1e-10)
    assert model.hidden_intercept_stderr_.shape == (4,)
    assert model.output_intercept_stderr_.shape == (5,)
    assert model.hidden_stderr_.shape == (4, 6)
    assert model.output_stderr_.shape == (5, 4)
    np.testing.assert_allclose(
        np.linalg.norm(model.hidden_weights_, axis=1) ** 2 + model.hidden_intercept_**2, 1
    )
    without = TwoLayerRegressor(4, fit_intercept=False, linear=False).fit(X[:500], Y[:500])
    assert without.loss_ > 0.1
    with pytest.raises(AttributeError, match="fit_intercept=True"):
        _ = without.output_intercept_stderr_


@pytest.mark.slow
def test_coverage_of_standard_errors():
    inside = {"W": [], "A": [], "b": [], "c": []}
    for seed in range(60):
        X, _, plain = make_two_layer(1500, 4, 3, 3, random_state=seed)
        network = TwoLayerNetwork(
            plain.hidden_weights / np.linalg.norm(plain.hidden_weights, axis=1)[:, None],
            plain.output_weights,
            output_intercept=[0.5, 0.0, -0.5],
        )
        rng = np.random.default_rng(seed)
        Y = network.predict(X) + np.array([0.1, 0.3, 0.6]) * rng.standard_normal((1500, 3))
        model = TwoLayerRegressor(3, fit_intercept=True, n_jobs=1).fit(X, Y)
        order = match_neurons(network, model.network_).order
        for name, error, stderr in (
            ("W", network.hidden_weights - model.hidden_weights_[order],
             model.hidden_stderr_[order]),
            ("A", network.output_weights - model.output_weights_[:, order],
             model.output_stderr_[:, order]),
            ("b", -model.hidden_intercept_[order], model.hidden_intercept_stderr_[order]),
            ("c", network.output_intercept - model.output_intercept_,
             model.output_intercept_stderr_),
        ):  # fmt: skip
            inside[name].append(np.abs(error) <= 1.96 * stderr)
        assert 0.8 < model.noise_covariance_[1, 1] / 0.09 < 1.25
    for name, hits in inside.items():
        # 60 fits: the standard error of a share of 0.95 is 0.01 and more for few weights a fit.
        assert 0.88 <= np.mean(hits) <= 0.99, name


def test_sources_that_cannot_be_read_twice_are_refused():
    X, Y, network = make_two_layer(100, 3, 2, 2, random_state=0)
    stream = ((X[i : i + 10], Y[i : i + 10]) for i in range(0, 100, 10))
    message = r"readable more than once .* got generator; .*one-pass"
    with pytest.raises(TypeError, match=message):
        refine(stream, network)
    with pytest.raises(TypeError, match=message.replace("generator", "BlockSource")):
        refine(from_blocks(stream), network)


def test_noise_outside_of_the_sample_is_not_called_exact(monkeypatch):
    monkeypatch.setattr(gather, "SAMPLE_ROWS", 1000)
    X, Y, _ = make_two_layer(20_000, 4, 3, 3, random_state=0)
    source = from_arrays(X, Y)
    used = {x.tobytes() for x in source.spread(1000)[0]}
    outside = np.array([x.tobytes() not in used for x in X])
    Y[outside] += np.random.default_rng(0).standard_normal((outside.sum(), 3))
    with pytest.warns(ConvergenceWarning):
        model = TwoLayerRegressor(3).fit(X, Y)
    assert model.refinement_.certificate == "none"
    assert not model.converged_
    assert 2 < model.loss_ < 4


def test_bad_values_are_named_by_their_row_in_the_source(monkeypatch):
    monkeypatch.setattr(gather, "SAMPLE_ROWS", 1000)
    X, Y, _ = make_two_layer(20_000, 4, 3, 3, random_state=0)
    for n_hidden in (3, "auto"):
        for row in range(12_000, 12_040, 3):  # in the sample or not
            bad = Y.copy()
            bad[row, 1] = np.inf
            with pytest.raises(ValueError, match=rf"Y contains infinity \(first in row {row}\)"):
                TwoLayerRegressor(n_hidden).fit(X, bad)


def test_refine_on_after_a_stream():
    X, Y, network = make_two_layer(30_000, 6, 4, 5, noise=0.3, random_state=0)
    model = TwoLayerRegressor(4, refine=False)
    for first in range(0, 30_000, 5000):
        model.partial_fit(X[first : first + 5000], Y[first : first + 5000])
    with pytest.raises(AttributeError, match="not refined"):
        _ = model.loss_
    before = total_error(network, model.network_)
    model.refine_on(from_arrays(X, Y))
    best = refine(from_arrays(X, Y), network, trusted=True)
    np.testing.assert_allclose(model.loss_, best.loss, rtol=1e-5)
    assert total_error(network, model.network_) < before


def test_sample_rows():
    assert sample_rows(1000, 10, 10, 10) == 1000
    assert sample_rows(32_768, 10, 10, 10) == 32_768
    assert sample_rows(32_769, 10, 10, 10) == 16_384
    assert sample_rows(10**8, 10, 10, 10) == 10**6
    assert sample_rows(10**6, 64, 64, 64) == 16 * 64**2
    assert sample_rows(None, 10, 10, 10) == 16_384
    assert sample_rows(10**9, 1000, 10, 1000) * 8 * 2001 <= 256 << 20


def test_verbose_prints_passes(capsys, monkeypatch):
    monkeypatch.setattr(gather, "SAMPLE_ROWS", 2000)
    X, Y, _ = make_two_layer(20_000, 6, 4, 5, noise=0.1, random_state=0)
    TwoLayerRegressor(4, verbose=1).fit(X, Y)
    out = capsys.readouterr().out
    assert "start 1: loss 0.0" in out
    assert "pass 2 over 20000 samples: loss 0.0" in out
    assert "gradient norm" in out
