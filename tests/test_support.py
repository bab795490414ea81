"""Directions of x that samples hardly show: no weights, and one warning that says how many."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from fastsym import MomentAccumulator, TwoLayerRegressor, make_two_layer
from fastsym.exceptions import RankDeficientWarning
from fastsym.metrics import parameter_error
from fastsym.sums.frame import estimate_frame
from fastsym.sums.support import smallest_variance, supported_whitening, whitening


def rank_warnings(fit):
    """What a function returns, and the RankDeficientWarnings it gave."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        result = fit()
    return result, [str(one.message) for one in given if one.category is RankDeficientWarning]


def rare(n=400, seed=3):
    """A network of five features, a sixth that two rows alone have, and a seventh of zeros."""
    X, Y, network = make_two_layer(n, 5, 3, 4, noise=0.1, random_state=seed)
    X = np.concatenate([X, np.zeros((n, 2))], axis=1)
    X[[3, 70], 5] = [0.001, 0.002]
    return X, Y, network


@pytest.mark.parametrize("turned", [False, True])
def test_what_two_rows_alone_show_has_no_weights(turned):
    X, Y, network = rare()
    rotation = np.eye(7)
    if turned:
        rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 7)))[0]
    model, said = rank_warnings(lambda: TwoLayerRegressor(3).fit(X @ rotation, Y))
    assert len(said) == 1
    assert (
        "rank 5 of 7 (directions: 1 constant zero or linearly dependent, 1 shown by a few"
        in (said[0])
    )
    new = np.random.default_rng(1).standard_normal((100, 7))
    expected = network.predict(new[:, :5])
    # Turned, what is small beside all features is in the null space of all but two rows too.
    predicted = model.predict(new @ rotation)
    assert r2_score(expected, predicted) > 0.9
    if not turned:
        np.testing.assert_allclose(model.hidden_weights_[:, 5:], 0, atol=1e-12)


@pytest.mark.parametrize(
    "how", [{}, {"refine": False}, {"n_hidden": "auto"}, {"fit_intercept": True}]
)
def test_the_rank_is_said_once(how):
    X, Y, _ = make_two_layer(500, 5, 3, 4, noise=0.1, random_state=0)
    X = np.concatenate([X, X[:, :1] - X[:, 1:2], np.zeros((500, 1))], axis=1)
    settings = {"n_hidden": 3, **how}
    said = rank_warnings(lambda: TwoLayerRegressor(**settings).fit(X, Y))[1]
    assert len(said) == 1
    assert "rank 5 of 7 (directions: 2 constant zero or linearly dependent; the smallest" in said[0]

    def stream():
        model = TwoLayerRegressor(**settings)
        for rows in np.array_split(np.arange(500), 4):
            model.partial_fit(X[rows], Y[rows])
        return model.network_

    assert len(rank_warnings(stream)[1]) == 1
    accumulator = MomentAccumulator(3).update(X, Y)
    assert len(rank_warnings(lambda: TwoLayerRegressor().fit_moments(accumulator))[1]) == 1
    assert len(rank_warnings(lambda: estimate_frame(X, Y, 3))[1]) == 1


def test_the_smallest_variance_is_that_of_features_at_unit_size():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 2))
    X = np.stack([x[:, 0], 1e5 * (x[:, 0] + 0.01 * x[:, 1])], axis=1)
    moment = X.T @ X / len(X)
    scale = np.sqrt(np.diag(moment))
    values = np.linalg.eigvalsh(moment / scale / scale[:, None])
    found = smallest_variance(moment, whitening(moment))
    assert found == pytest.approx(values[0] / values[1], rel=1e-6)


@given(st.integers(0, 2**31), st.sampled_from(["cauchy", "outlier", "signs", "few", "condition"]))
def test_other_inputs_keep_all_directions(seed, kind):
    """Heavy tails, one row far out, few rows, conditions of 1e6: all of them determine weights."""
    rng = np.random.default_rng(seed)
    n, d = (12, 10) if kind == "few" else (200, 5)
    X = rng.standard_normal((n, d))
    if kind == "cauchy":
        X = rng.standard_cauchy((n, d))
    elif kind == "outlier":
        X[7] *= 1e5
    elif kind == "signs":
        X = np.sign(X)
    elif kind == "condition":
        X[:, 1] = X[:, 0] + 1e-5 * X[:, 1]
    moment = X.T @ X / n
    expected = whitening(moment)
    np.testing.assert_array_equal(supported_whitening(X, moment), expected)
    weights = rng.uniform(0.5, 2, n)
    roots = np.sqrt(weights)
    rows = roots[:, None] * (X - weights @ X / weights.sum())
    moment = rows.T @ rows / weights.sum()
    np.testing.assert_array_equal(supported_whitening(rows, moment, roots), whitening(moment))


@pytest.mark.parametrize("shift", [0.0, 3.0, 1e6])
def test_a_feature_that_few_rows_change_is_not_shown_beside_a_constant(shift):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4))
    X[:, 2] = shift
    X[5, 2] += 1.0
    weights = rng.uniform(0.5, 2, 300)
    roots = np.sqrt(weights)
    rows = roots[:, None] * (X - weights @ X / weights.sum())
    moment = rows.T @ rows / weights.sum()
    whiten = supported_whitening(rows, moment, roots)
    assert whiten.shape == (4, 3)
    np.testing.assert_allclose(whiten[2], 0, atol=1e-9)
    # Without a constant that is a direction like others, unless it is zero elsewhere.
    moment = X.T @ X / 300
    assert supported_whitening(X, moment).shape[1] == (3 if shift == 0 else 4)


def test_noiseless_recovery_from_ill_conditioned_inputs():
    X, _, network = make_two_layer(3000, 5, 3, 4, random_state=2)
    mixing = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    X = X @ (mixing * np.logspace(0, -5, 5)) @ mixing.T
    model, said = rank_warnings(lambda: TwoLayerRegressor(3).fit(X, network.predict(X)))
    assert parameter_error(network, model.network_).hidden_error < 1e-8
    assert said == []


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_held_out_digits(seed):
    """Pixels that are zero in nearly all rows gave an R2 of far below zero."""
    data = load_digits(n_class=5)
    X, X_test, Y, Y_test = train_test_split(data.data, np.eye(5)[data.target], random_state=seed)
    model, said = rank_warnings(lambda: TwoLayerRegressor(5).fit(X, Y))
    linear = LinearRegression().fit(X, Y)
    assert r2_score(Y_test, model.predict(X_test)) > r2_score(Y_test, linear.predict(X_test)) - 0.1
    assert len(said) == 1
