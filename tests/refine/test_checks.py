"""What a fit says of itself: lack of fit, doubled and unused units, certificates, warnings."""

import warnings

import numpy as np
import pytest

from fastsym import (
    TwoLayerNetwork,
    TwoLayerRegressor,
    make_two_layer,
    parameter_error,
)
from fastsym.activation import Activation
from fastsym.engine import gather
from fastsym.exceptions import ConvergenceWarning, IdentifiabilityWarning, SpectralGapWarning
from fastsym.metrics import match_neurons, output_error
from fastsym.refine import refine
from fastsym.refine.checks import flaws
from fastsym.refine.problem import Problem
from fastsym.refine.starts import repaired
from fastsym.sources import from_arrays


def total_error(network, estimate):
    return sum(parameter_error(network, estimate))


def same_function(one, two, rtol):
    X = np.random.default_rng(0).standard_normal((200, one.n_features))
    return output_error(one.predict(X), two.predict(X)) <= rtol


def test_doubled_and_dead_units_are_repaired():
    X, Y, network = make_two_layer(3000, 5, 4, 4, noise=0.05, random_state=0)
    W, A = network.hidden_weights.copy(), network.output_weights.copy()
    W[3] = W[0]
    A[:, 3] = A[:, 0] / 2
    A[:, 0] /= 2
    problem = Problem(X, Y, None, 4, Activation())
    doubled = problem.point(TwoLayerNetwork(W, A))
    assert flaws(problem, doubled) == [(0, 3)]
    mended = next(repaired(problem, doubled)).point(problem)
    assert flaws(problem, mended) == []
    assert problem.residuals(mended).loss < problem.residuals(doubled).loss
    A = network.output_weights.copy()
    A[:, 1] = 0
    dead = problem.point(TwoLayerNetwork(network.hidden_weights, A))
    assert flaws(problem, dead) == [(1, 1)]
    for start in (doubled, dead):
        again = problem.fit(next(repaired(problem, start)).point(problem))
        assert max(parameter_error(network, problem.network(again.point))) < 1e-2
    assert not list(repaired(problem, problem.point(network)))
    # The search does it by itself.
    result = refine(from_arrays(X, Y), TwoLayerNetwork(W, A), max_starts=3)
    assert max(parameter_error(network, result.network)) < 1e-2


def test_a_bad_start_is_not_believed():
    X, Y, network = make_two_layer(3000, 5, 4, 4, noise=0.05, random_state=0)
    rng = np.random.default_rng(0)
    bad = TwoLayerNetwork(rng.standard_normal((4, 5)), rng.standard_normal((4, 4)))
    result = refine(from_arrays(X, Y), bad)
    assert result.certificate == "agreement"
    assert len(result.start_losses) >= 2
    assert max(parameter_error(network, result.network)) < 1e-2
    lowest = sorted(result.start_losses)[:2]
    assert lowest[1] - lowest[0] <= 1e-3 * lowest[0]


def test_not_certified_warns_with_figures():
    # Five units where the network has eight: many optima, and a residual that depends on x.
    X, Y, _ = make_two_layer(2000, 8, 8, 8, random_state=0)
    rng = np.random.default_rng(0)
    start = TwoLayerNetwork(rng.standard_normal((5, 8)), rng.standard_normal((8, 5)))
    with pytest.warns(ConvergenceWarning, match=r"not certified: of 2 starts .* p = \d"):
        result = refine(from_arrays(X, Y), start, max_starts=2)
    assert not result.converged
    assert result.certificate == "none"


def test_too_few_passes_warn(monkeypatch):
    monkeypatch.setattr(gather, "SAMPLE_ROWS", 500)
    X, Y, network = make_two_layer(50_000, 6, 4, 5, noise=0.3, random_state=0)
    with pytest.warns(ConvergenceWarning, match="still promises a relative decrease of"):
        result = refine(from_arrays(X, Y), network, trusted=True, max_passes=1)
    assert not result.converged
    assert result.n_passes == 1


def degenerate(change, noise=0.1):
    """Samples of a network made not identifiable, and the two units it is about."""
    X, _, network = make_two_layer(8000, 6, 4, 5, random_state=1)
    W, A = network.hidden_weights.copy(), network.output_weights.copy()
    change(W, A)
    rng = np.random.default_rng(0)
    truth = TwoLayerNetwork(W, A)
    return X, truth.predict(X) + noise * rng.standard_normal((8000, 5)), truth


def double_row(W, A):
    W[1] = 2 * W[0]


def oppose_row(W, A):
    W[1] = -W[0]


def double_column(W, A):
    A[:, 1] = 2 * A[:, 0]


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("change", [double_row, oppose_row, double_column])
def test_parallel_units_are_named_and_fitted(change, noise):
    X, Y, truth = degenerate(change, noise)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = TwoLayerRegressor(4).fit(X, Y)
    messages = [str(w.message) for w in caught if w.category is IdentifiabilityWarning]
    assert any("[" in message for message in messages)
    assert any(w.category is SpectralGapWarning for w in caught)
    if change is not double_row:
        # Both units are seen; the warning names them.
        order = match_neurons(truth, model.network_).order
        assert any(str(tuple(sorted(order[:2].tolist()))) in message for message in messages)
    # The best fit all the same.
    assert model.loss_ <= 5 * noise**2 * 1.02 + 1e-20


def test_more_units_than_the_samples_show():
    X, Y, _ = make_two_layer(20_000, 6, 4, 5, noise=0.1, random_state=0)
    with pytest.warns(SpectralGapWarning, match="the samples do not show n_hidden=5 units"):
        model = TwoLayerRegressor(5).fit(X, Y)
    assert model.loss_ <= 1.001 * TwoLayerRegressor(4).fit(X, Y).loss_


def test_a_poor_gap_is_not_reported_when_the_refinement_is_certified():
    X, Y, _ = make_two_layer(1000, 10, 10, 10, noise=0.5, random_state=0)
    with pytest.warns(SpectralGapWarning):
        TwoLayerRegressor(10, refine=False).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpectralGapWarning)
        model = TwoLayerRegressor(10).fit(X, Y)
    assert model.refinement_.certificate == "agreement"


def test_the_same_samples_give_the_same_fit():
    X, Y, _ = degenerate(double_row)  # no spectral start: all starts are drawn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, two = (TwoLayerRegressor(4).fit(X, Y) for _ in range(2))
        streams = [TwoLayerRegressor(4).partial_fit(X, Y) for _ in range(2)]
        for a, b in ((one, two), streams):
            np.testing.assert_array_equal(a.hidden_weights_, b.hidden_weights_)
            assert a.refinement_.start_losses == b.refinement_.start_losses
