"""Data of unknown origin, with the estimator as it comes."""

import warnings

import numpy as np
import pytest
from sklearn import datasets
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from fastsym import TwoLayerRegressor, parameter_error
from fastsym.exceptions import ConvergenceWarning, IdentifiabilityWarning

from .test_forms import network_of, samples


def quietly(X, Y, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TwoLayerRegressor(**how).fit(X, Y)


def test_units_of_one_output_are_counted_and_found():
    network = network_of(6, 3, 1, 0.4, 21)
    X, Y = samples(network, 4000, 0.05, 21)
    model = TwoLayerRegressor().fit(X, Y)
    assert model.network_.n_hidden == 3
    assert model.converged_
    assert not model.refinement_.linear
    error = parameter_error(network, model.network_)
    assert error.wrong_signs == 0
    assert error.hidden_error < 0.01
    assert [one.n_hidden for one in model.n_hidden_path_][:4] == [0, 1, 2, 3]
    losses = [one.loss for one in model.n_hidden_path_[:4]]
    assert losses == sorted(losses, reverse=True)


def test_of_linear_data_it_makes_a_linear_regression():
    rng = np.random.default_rng(22)
    X = rng.standard_normal((3000, 5)) + 2
    y = 1 + X @ rng.standard_normal(5) + 0.3 * rng.standard_normal(3000)
    model = TwoLayerRegressor().fit(X, y)
    assert model.network_.n_hidden == 0
    assert model.refinement_.certificate == "linear"
    assert model.converged_
    oracle = LinearRegression().fit(X, y)
    np.testing.assert_allclose(model.linear_weights_[0], oracle.coef_, rtol=1e-8)
    np.testing.assert_allclose(model.output_intercept_, oracle.intercept_, rtol=1e-8)


@pytest.mark.parametrize("name", ["diabetes", "iris", "wine", "linnerud"])
def test_held_out_rows_are_predicted_no_worse_than_by_ridge_regression(name):
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name in ("iris", "wine"):
        y = np.eye(3)[y]
    order = np.random.default_rng(5).permutation(len(X))
    scores = []
    for half in (order[::2], order[1::2]):
        rest = np.setdiff1d(order, half)
        scale = StandardScaler().fit(X[half])
        train, test = scale.transform(X[half]), scale.transform(X[rest])
        model = quietly(train, y[half])
        ridge = RidgeCV(np.logspace(-3, 4, 30)).fit(train, y[half])
        scores.append([r2_score(y[rest], one.predict(test)) for one in (model, ridge)])
    ours, theirs = np.mean(scores, axis=0)
    assert ours > theirs - (0.2 if name == "linnerud" else 0.02)  # ten rows
    assert model.refinement_.alpha >= 0


def test_weights_that_are_held_small_are_certified_by_nothing():
    X, y = datasets.load_wine(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    with pytest.warns(IdentifiabilityWarning, match="held small"):
        model = TwoLayerRegressor().fit(X, np.eye(3)[y])
    assert not model.converged_
    assert model.refinement_.alpha > 0
    assert 0.7 < model.refinement_.held_out_r2 < 1
    assert "held small" in model.refinement_.reason
    with pytest.raises(ValueError, match="held small"):
        _ = model.hidden_stderr_


def test_what_no_network_made_says_so():
    X, y = datasets.make_friedman1(3000, noise=0.5, random_state=1)
    with pytest.warns((ConvergenceWarning, IdentifiabilityWarning)):
        model = TwoLayerRegressor().fit(X, y)
    assert not model.converged_
    assert model.score(X, y) > 0.96


def test_streams_of_one_output_count_too():
    network = network_of(5, 2, 1, 0.4, 23)
    X, Y = samples(network, 25_000, 0.05, 23)
    model = TwoLayerRegressor()
    for first in range(0, 25_000, 5000):
        model.partial_fit(X[first : first + 5000], Y[first : first + 5000])
    assert r2_score(Y, model.predict(X)) > 0.99


def test_a_weight_decay_that_is_given():
    network = network_of(5, 4, 2, 0.4, 24)
    X, Y = samples(network, 400, 0.3, 24)
    penalties, losses = [], []
    for alpha in (100.0, 10.0, 1.0):
        model = TwoLayerRegressor(alpha=alpha).fit(X, Y)
        found = model.network_
        assert model.refinement_.alpha == pytest.approx(alpha)
        assert not model.converged_
        sizes = np.linalg.norm(found.output_weights, axis=0)
        sizes *= np.linalg.norm(found.hidden_weights * X.std(axis=0), axis=1)
        penalties.append(sizes.sum())
        losses.append(model.loss_)
    assert penalties == sorted(penalties)
    assert losses == sorted(losses, reverse=True)
    # At the optimum no unit lowers the penalised loss: for random ones |sum r h| <= alpha |w|. The
    # path takes a few steps at each alpha.
    residual = Y - TwoLayerRegressor(alpha=10.0).fit(X, Y).predict(X)
    rng = np.random.default_rng(25)
    rows = rng.standard_normal((200, 5))
    h = np.maximum(X @ rows.T + rng.standard_normal(200), 0)
    offers = np.linalg.norm(residual.T @ h, axis=0) / np.linalg.norm(rows * X.std(axis=0), axis=1)
    assert offers.max() < 1.3 * 10
    without = Y - Y.mean(axis=0)
    assert np.linalg.norm(without.T @ h, axis=0).max() > 100  # that it is no empty bound
    assert TwoLayerRegressor(2, alpha=10.0).fit(X, Y).network_.n_hidden <= 2
    assert TwoLayerRegressor(4, alpha=0).fit(X, Y).refinement_.alpha == 0
    scaled = TwoLayerRegressor(alpha=1e90).fit(X, Y * 1e90)
    np.testing.assert_allclose(scaled.predict(X) / 1e90, model.predict(X), atol=2e-3)


def test_streams_take_no_weight_decay_and_say_so():
    X, y = datasets.load_diabetes(return_X_y=True)
    with pytest.raises(ValueError, match=r"alpha=1\.0 needs samples that can be read"):
        TwoLayerRegressor(alpha=1.0).partial_fit(X, y)
    for alpha in ("auto", 0):
        model = quietly_streamed(X, y, alpha=alpha)
        assert (model.refinement_.alpha > 0) <= (alpha == "auto")
        assert np.isnan(model.refinement_.held_out_r2) == (alpha == 0)


def quietly_streamed(X, y, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = TwoLayerRegressor(**how).partial_fit(X, y)
        assert model.n_hidden_ >= 0
    return model


def test_without_a_linear_part_nothing_is_held_small():
    X, y = datasets.load_diabetes(return_X_y=True)
    model = quietly(X, y, linear=False)
    assert model.n_hidden_ >= 1
    assert model.refinement_.alpha == 0
    assert np.isnan(model.refinement_.held_out_r2)
    assert not model.linear_weights_.any()


@pytest.mark.parametrize("how", [{"alpha": -1}, {"alpha": "much"}, {"alpha": np.inf}])
def test_other_alphas_are_refused(how):
    with pytest.raises(ValueError, match='alpha must be "auto" or a number'):
        TwoLayerRegressor(**how).fit(np.eye(5), np.ones(5))
    for more in ({"linear": False}, {"refine": False}):
        with pytest.raises(ValueError, match="alpha above 0 needs"):
            TwoLayerRegressor(2, alpha=1.0, **more).fit(np.eye(5), np.ones((5, 2)))
