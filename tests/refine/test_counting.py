"""n_hidden="auto": the fit decides how many hidden units there are."""

import warnings

import numpy as np
import pytest

from fastsym import TwoLayerNetwork, TwoLayerRegressor, make_two_layer
from fastsym.activation import Activation
from fastsym.datasets import make_network
from fastsym.exceptions import IdentifiabilityWarning
from fastsym.refine import count_units, refine
from fastsym.refine.chance import Rows
from fastsym.refine.problem import Problem
from fastsym.sources import from_arrays


def samples(network, n, noise, seed):
    rng = np.random.default_rng([seed, 5])
    X = rng.standard_normal((n, network.n_features))
    return X, network.predict(X) + noise * rng.standard_normal((n, network.n_outputs))


def auto(X, Y, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TwoLayerRegressor("auto", **how).fit(X, Y)


def dependent_columns(seed):
    """Four units, whose outputs span two directions."""
    rng = np.random.default_rng([seed, 6])
    network = make_network(6, 4, 6, random_state=seed)
    A = rng.standard_normal((6, 2)) @ rng.standard_normal((2, 4)) / 2
    return TwoLayerNetwork(network.hidden_weights, A)


def small_angle(seed):
    """Four units, two of them eight degrees apart."""
    network = make_network(6, 4, 6, random_state=seed)
    W, angle = network.hidden_weights.copy(), np.deg2rad(8)
    W[1] = np.cos(angle) * W[0] + np.sin(angle) * W[1]
    return TwoLayerNetwork(W, network.output_weights)


def small_unit(seed):
    network = make_network(6, 4, 6, random_state=seed)
    return TwoLayerNetwork(network.hidden_weights, network.output_weights * [1, 1, 1, 0.02])


@pytest.mark.parametrize("draw", [dependent_columns, small_angle, small_unit])
@pytest.mark.parametrize("seed", range(100, 103))
def test_units_that_the_correlations_miss(draw, seed):
    network = draw(seed)
    X, Y = samples(network, 2000, 0.01, seed)
    model = auto(X, Y)
    truth = refine(from_arrays(X, Y), network, trusted=True, max_starts=1)
    assert model.network_.n_hidden == 4
    assert model.loss_ == pytest.approx(truth.loss, rel=1e-3)
    assert {3, 4} <= {one.n_hidden for one in model.n_hidden_path_}


@pytest.mark.parametrize("seed", range(100, 104))
def test_repeated_and_dependent_rows_are_no_units(seed):
    network = make_network(9, 3, 9, random_state=seed)
    X, Y = samples(network, 300, 0.3, seed)
    for rows in (np.repeat(np.arange(300), 10), np.tile(np.arange(300), 10)):
        assert auto(X[rows], Y[rows]).network_.n_hidden == 3
    rng = np.random.default_rng([seed, 7])
    rows = rng.standard_normal((6000, 18))
    for i in range(1, len(rows)):
        rows[i] = 0.95 * rows[i - 1] + np.sqrt(1 - 0.95**2) * rows[i]
    X, noise = rows[:, :9], rows[:, 9:]
    assert auto(X, network.predict(X) + 0.3 * noise).network_.n_hidden == 3


@pytest.mark.parametrize("rank", [1, 3])
def test_a_linear_term_is_named_and_is_no_unit(rank):
    network = make_network(7, 3, 7, random_state=100)
    X, Y = samples(network, 1000, 0.1, 100)
    rng = np.random.default_rng([100, 8])
    Y += X @ rng.standard_normal((7, rank)) @ rng.standard_normal((rank, 7)) / 5
    with pytest.warns(IdentifiabilityWarning, match="linear term in X.*3 hidden units have a loss"):
        model = TwoLayerRegressor("auto", fit_intercept=False, linear=False).fit(X, Y)
    assert model.network_.n_hidden == 3
    assert max(one.n_hidden for one in model.n_hidden_path_) > 3
    found = TwoLayerRegressor("auto").fit(X, Y)
    assert found.network_.n_hidden == 3
    assert found.refinement_.linear
    assert found.loss_ < model.loss_


def test_opposite_units_of_a_network_are_no_linear_term():
    network = make_network(5, 3, 5, random_state=101)
    W = network.hidden_weights.copy()
    W[1] = -W[0]
    network = TwoLayerNetwork(W, network.output_weights)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = TwoLayerRegressor("auto", fit_intercept=False, linear=False).fit(
            *samples(network, 2000, 0.05, 101)
        )
    assert model.network_.n_hidden == 3
    assert not any("linear term" in str(one.message) for one in caught)


def test_plain_problems_are_right_without_a_warning():
    for seed in range(100, 110):
        X, Y, _ = make_two_layer(600, 8, 1 + seed % 5, 7, noise=0.2, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = TwoLayerRegressor("auto").fit(X, Y)
        assert model.network_.n_hidden == 1 + seed % 5


def test_the_smallest_exact_fit():
    X, Y = samples(dependent_columns(100), 500, 0.0, 100)
    model = auto(X, Y)
    assert model.network_.n_hidden == 4
    assert model.loss_ < 1e-25


def test_a_guess_too_high_or_too_low_ends_at_the_same_number():
    X, Y, _ = make_two_layer(1500, 7, 4, 7, noise=0.2, random_state=102)
    losses = []
    for guess in (1, 3, 4, 6):
        start = make_network(7, guess, 7, random_state=202 + guess)
        problem = Problem(X, Y, None, guess, Activation(0.0), False, 1)
        counted = count_units(problem, problem.point(start))
        assert counted.network.n_hidden == 4
        assert counted.path[0].n_hidden == guess
        losses.append(float(((Y - counted.network.predict(X)) ** 2).sum()))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-3)


@pytest.mark.parametrize("seed", [100, 101])
def test_units_order_and_weights_do_not_matter(seed):
    network = small_unit(seed)
    X, Y = samples(network, 1000, 0.02, seed)
    first = auto(X, Y)
    order = np.random.default_rng(seed).permutation(6)
    weights = np.full(len(X), 37.0)
    others = [auto(X, Y[:, order]), auto(X[:, order], Y), auto(1024 * X, Y / 4096)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        others.append(TwoLayerRegressor("auto").fit(X, Y, weights))
        others.append(TwoLayerRegressor("auto").fit(X, Y, weights / 37**2))
    for other in others:
        assert other.network_.n_hidden == first.network_.n_hidden


def test_the_bound_is_that_of_its_formula():
    """For independent rows of equal noise and one output: M is the noise's variance."""
    rng = np.random.default_rng(103)
    X, w = rng.standard_normal((20_000, 4)), np.array([0.6, 0.8, 0.0, 0.0])
    residual = 0.5 * rng.standard_normal((20_000, 1))
    problem = Problem(X, residual, None, 1, Activation(0.0), False, 1)
    point = problem.point(TwoLayerNetwork(w[None], np.ones((1, 1))))
    bound = Rows(problem).chance(residual, point.hidden[0], point.outputs[:, 0], 0)
    h = np.maximum(X @ w, 0)
    M = float(((residual[:, 0] * h) ** 2).sum() / (h**2).sum())
    t = 3 + np.log(20_000) / 2
    # Blocks of independent rows vary by chance: at most 1.5 times in so few blocks and angles.
    assert 0.95 < bound / (M * (1 + 2 * np.sqrt(t) + 2 * t)) < 1.5


def test_chance_stays_below_the_bound():
    """The best unit more, from the truth, on data without one."""
    falls = []
    for seed in range(100, 112):
        X, Y, network = make_two_layer(500, 6, 2, 6, noise=0.5, random_state=seed)
        problem = Problem(X, Y, None, 2, Activation(0.0), False, 1)
        counted = count_units(problem, problem.point(network))
        assert counted.network.n_hidden == 2
        losses = {one.n_hidden: one for one in counted.path}
        falls.append(losses[2].loss - losses[3].loss)
        assert losses[3].criterion > losses[2].criterion
    assert min(falls) > 0


def test_streams_and_moments_have_no_path():
    X, Y, _ = make_two_layer(2000, 5, 3, 5, noise=0.1, random_state=104)
    assert TwoLayerRegressor(3).fit(X, Y).n_hidden_path_ == ()
    assert TwoLayerRegressor("auto").partial_fit(X, Y).n_hidden_path_ == ()
    assert TwoLayerRegressor("auto", refine=False).fit(X, Y).n_hidden_path_ == ()
