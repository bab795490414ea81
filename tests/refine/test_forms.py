"""Which parts of the model are found, and that nothing is given to chance."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import TwoLayerNetwork, TwoLayerRegressor, make_two_layer, parameter_error
from fastsym.activation import Activation
from fastsym.refine import refine
from fastsym.refine.certificates import Verdict
from fastsym.refine.decoding import Found, costs_chance, without_linear
from fastsym.refine.forms import Form
from fastsym.refine.lack_of_fit import UNTESTED
from fastsym.refine.problem import Problem
from fastsym.refine.search import SearchResult
from fastsym.sources import from_arrays

PAPER = {"fit_intercept": False, "linear": False}


def network_of(d, k, m, bias, seed):
    rng = np.random.default_rng([seed, 13])
    W = rng.standard_normal((k, d))
    W /= np.linalg.norm(W, axis=1)[:, None]
    A = rng.choice([-1.0, 1.0], (m, k)) * rng.uniform(0.5, 1.5, (m, k)) / np.sqrt(k)
    return TwoLayerNetwork(W, A, hidden_intercept=bias * rng.standard_normal(k))


def samples(network, n, noise, seed):
    rng = np.random.default_rng([seed, 17])
    X = rng.standard_normal((n, network.n_features))
    return X, network.predict(X) + noise * rng.standard_normal((n, network.n_outputs))


def test_the_papers_data_give_the_papers_model_to_the_bit():
    X, Y, _ = make_two_layer(3000, 6, 4, 5, noise=0.1, random_state=3)
    free, paper = TwoLayerRegressor(4).fit(X, Y), TwoLayerRegressor(4, **PAPER).fit(X, Y)
    assert not free.refinement_.fit_intercept
    assert not free.refinement_.linear
    np.testing.assert_array_equal(free.hidden_weights_, paper.hidden_weights_)
    np.testing.assert_array_equal(free.output_weights_, paper.output_weights_)


@pytest.mark.parametrize("sizes", [(6, 5, 1), (3, 5, 2), (4, 4, 4)])
def test_biases_are_found_where_there_are(sizes):
    network = network_of(*sizes, 0.5, 1)
    model = TwoLayerRegressor(sizes[1]).fit(*samples(network, 4000, 0.02, 1))
    assert model.converged_
    assert model.refinement_.fit_intercept
    assert not model.refinement_.linear
    error = parameter_error(network, model.network_)
    assert error.wrong_signs == 0
    assert error.hidden_error < 0.01 * sizes[1]
    # As near as the samples tell.
    inside = np.abs(np.sort(model.hidden_intercept_) - np.sort(_unit_biases(network)))
    assert (inside < 6 * model.hidden_intercept_stderr_.max()).all()


def _unit_biases(network):
    rows = np.column_stack([network.hidden_intercept, network.hidden_weights])
    return rows[:, 0] / np.linalg.norm(rows, axis=1)


@pytest.mark.parametrize("sizes", [(5, 4, 1), (4, 6, 2)])
def test_without_noise_it_is_exact_and_signs_are_right(sizes):
    network = network_of(*sizes, 0.0, 2)
    X, Y = samples(network, 1500, 0.0, 2)
    model = TwoLayerRegressor(sizes[1]).fit(X, Y)
    assert model.refinement_.certificate == "exact"
    assert not model.refinement_.linear
    error = parameter_error(network, model.network_)
    assert error.wrong_signs == 0
    assert error.hidden_error < 1e-18


def test_a_linear_part_is_found_where_no_signs_stand_for_it():
    network = network_of(5, 3, 2, 0.5, 3)
    X, Y = samples(network, 4000, 0.05, 3)
    L = np.random.default_rng(4).standard_normal((2, 5))
    model = TwoLayerRegressor(3).fit(X, Y + X @ L.T)
    assert model.refinement_.linear
    truth = TwoLayerNetwork(
        network.hidden_weights,
        network.output_weights,
        hidden_intercept=network.hidden_intercept,
        linear_weights=L,
    )
    error = parameter_error(truth, model.network_)
    assert error.hidden_error < 0.01
    assert error.linear_error < 0.01
    assert model.linear_stderr_.shape == (2, 5)
    never = TwoLayerRegressor(3, linear=False).fit(X, Y + X @ L.T)
    assert not never.refinement_.linear
    assert not never.converged_
    assert never.loss_ > model.loss_


def test_one_start_alone_is_not_searched_beside():
    network = network_of(4, 6, 1, 0.5, 5)
    X, Y = samples(network, 2000, 0.1, 5)
    found = refine(from_arrays(X, Y), network, fit_intercept=True, max_starts=1)
    assert len(found.start_losses) == 1
    assert found.loss <= ((Y - network.predict(X)) ** 2).sum() / 2000


def test_the_order_of_features_and_units_of_y_do_not_matter():
    network = network_of(5, 4, 2, 0.5, 6)
    X, Y = samples(network, 3000, 0.05, 6)
    first = TwoLayerRegressor(4).fit(X, Y)
    other = TwoLayerRegressor(4).fit(X[:, ::-1] * 3, Y * 1e3)
    np.testing.assert_allclose(other.loss_, 1e6 * first.loss_, rtol=1e-3)
    np.testing.assert_allclose(
        other.predict(X[:50, ::-1] * 3), 1e3 * first.predict(X[:50]), atol=20, rtol=0.02
    )


def found_at(problem, point):
    fit = problem.fit(point)
    return Found(problem, SearchResult([fit], Verdict("agreement", UNTESTED), [fit]))


@given(st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4))
def test_any_signs_beside_a_linear_part_are_decoded(signs):
    network = network_of(5, 4, 1, 0.4, 7)
    X, Y = samples(network, 600, 0.0, 7)
    problem = Problem(X, Y, None, 4, Activation(), fit_intercept=True)
    larger = problem.with_linear()
    hidden = np.array(signs)[:, None] * problem.point(network).hidden[:4]
    found = without_linear(problem, found_at(larger, larger.regressed(hidden)))
    assert found.result.lowest.exact
    assert parameter_error(network, problem.network(found.result.lowest.point)).wrong_signs == 0


def test_a_unit_that_is_active_for_all_samples_is_the_linear_part_of_others():
    plain = network_of(5, 4, 3, 0.4, 8)
    bias = plain.hidden_intercept.copy()
    bias[0] = 8.0
    network = TwoLayerNetwork(plain.hidden_weights, plain.output_weights, hidden_intercept=bias)
    X, Y = samples(network, 3000, 0.1, 8)
    model = TwoLayerRegressor(4, fit_intercept=True, linear=False).fit(X, Y)
    truth = refine(from_arrays(X, Y), network, fit_intercept=True, max_starts=1)
    assert model.loss_ <= truth.loss * 1.0005


def test_what_chance_explains_is_dropped_and_no_more():
    rng = np.random.default_rng(9)
    dropped = 0
    for _ in range(40):
        X, Y = rng.standard_normal((400, 6)), rng.standard_normal((400, 2))
        problem = Problem(X, Y, None, 0, Activation(), fit_intercept=True)
        pair = [
            found_at(one, one.regressed(np.empty((0, 7))))
            for one in (problem, problem.with_linear())
        ]
        dropped += costs_chance(*pair)
        told = Problem(X, Y + X[:, :1] * 0.5, None, 0, Activation(), fit_intercept=True)
        pair = [
            found_at(one, one.regressed(np.empty((0, 7)))) for one in (told, told.with_linear())
        ]
        assert not costs_chance(*pair)
    assert dropped == 40  # four deviations above what chi-squared gives


def test_a_form_says_what_moments_know():
    assert Form("auto", "auto").moments_know(3, 4, 3)
    assert not Form("auto", "auto").moments_know(3, 4, 2)
    assert not Form(True, "auto").moments_know(3, 4, 4)
    assert not Form(False, True).moments_know(3, 4, 4)


@pytest.mark.parametrize("how", [{"fit_intercept": "yes"}, {"linear": None}, {"linear": 1}])
def test_other_choices_are_refused(how):
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    with pytest.raises(ValueError, match='must be True, False or "auto"'):
        TwoLayerRegressor(2, **how).fit(X, Y)


def test_a_stream_finds_the_form_too():
    network = network_of(4, 5, 1, 0.5, 11)
    X, Y = samples(network, 30_000, 0.1, 11)
    model = TwoLayerRegressor(5)
    for first in range(0, 30_000, 7000):
        model.partial_fit(X[first : first + 7000], Y[first : first + 7000, 0])
    assert model.refinement_.fit_intercept
    assert not model.refinement_.linear
    whole = TwoLayerRegressor(5).fit(X, Y[:, 0])
    np.testing.assert_allclose(model.loss_, whole.loss_, rtol=5e-3)
    residual = Y[:, 0] - model.predict(X)
    assert residual @ residual / 30_000 <= 1.002 * whole.loss_


def test_a_fit_is_as_sure_when_it_is_refined_again():
    network = network_of(4, 3, 2, 0.5, 12)
    X, Y = samples(network, 1500, 0.1, 12)
    for how in ({"fit_intercept": True}, {"fit_intercept": True, "linear": True}):
        model = TwoLayerRegressor(3, **how).fit(X, Y)
        assert model.converged_
        loss = model.loss_
        model.refine_on(from_arrays(X, Y))
        assert model.converged_
        np.testing.assert_allclose(model.loss_, loss, rtol=1e-5)


def test_a_regression_is_refined_to_a_regression():
    rng = np.random.default_rng(13)
    X = rng.standard_normal((300, 4))
    y = X @ rng.standard_normal(4) + 3 + rng.standard_normal(300)
    model = TwoLayerRegressor().fit(X, y)
    assert model.network_.n_hidden == 0
    before = model.predict(X)
    model.refine_on(from_arrays(X, y[:, None]))
    np.testing.assert_allclose(np.ravel(model.predict(X)), before, rtol=1e-9)
    assert model.linear_stderr_.shape == (1, 4)


def test_one_feature_may_have_many_kinks():
    rng = np.random.default_rng(14)
    x = rng.standard_normal((500, 1))
    y = np.abs(x[:, 0] + 0.3) + np.maximum(x[:, 0] - 1, 0) + 0.05 * rng.standard_normal(500)
    for k in (2, 3, 4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert TwoLayerRegressor(k).fit(x, y).score(x, y) > 0.98


def test_choices_may_come_from_an_array():
    X, Y, _ = make_two_layer(300, 3, 2, 2, noise=0.1, random_state=0)
    one = TwoLayerRegressor(2, fit_intercept=np.True_, linear=np.False_).fit(X, Y)
    other = TwoLayerRegressor(2, fit_intercept=True, linear=False).fit(X, Y)
    np.testing.assert_array_equal(one.output_weights_, other.output_weights_)
