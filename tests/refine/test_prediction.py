"""Samples of unknown origin: rows that were not fitted, beside a ridge regression."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.linear_model import RidgeCV

from fastsym.activation import Activation
from fastsym.refine.prediction import predictive
from fastsym.refine.problem import Problem

from .test_growth import samples


def problem_of(X, Y, intercept=True):
    return Problem(X, Y.reshape(len(X), -1), None, 1, Activation(), intercept).with_linear()


def predict(found, X):
    return found.problem.network(found.point).predict(X)


def r2(Y, predicted):
    Y = Y.reshape(len(Y), -1)
    squares, total = ((Y - predicted) ** 2).sum(axis=0), ((Y - Y.mean(axis=0)) ** 2).sum(axis=0)
    return float(np.mean(1 - squares / total))


def halves(X, Y, seed):
    """Rows to fit, standardised, and others."""
    order = np.random.default_rng(seed).permutation(len(X))
    fitted, others = order[::2], order[1::2]
    mean, deviation = X[fitted].mean(axis=0), X[fitted].std(axis=0)
    X = (X - mean) / np.where(deviation > 0, deviation, 1)
    return X[fitted], Y[fitted], X[others], Y[others]


def classes(data):
    return data.data, np.eye(data.target.max() + 1)[data.target]


REAL = {  # R2 that networks reach, less what two halves may differ by
    "diabetes": (lambda: datasets.load_diabetes(return_X_y=True), 0.38),
    "friedman": (lambda: datasets.make_friedman1(600, noise=1.0, random_state=0), 0.90),
    "iris": (lambda: classes(datasets.load_iris()), 0.80),
    "wine": (lambda: classes(datasets.load_wine()), 0.80),
    "cancer": (lambda: datasets.load_breast_cancer(return_X_y=True), 0.80),
    "linnerud": (lambda: datasets.load_linnerud(return_X_y=True), -np.inf),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", REAL)
def test_other_rows_are_predicted(name, seed):
    load, least = REAL[name]
    X, Y, Z, V = halves(*(one.astype(float) for one in load()), seed)
    found = predictive(problem_of(X, Y))
    reached = r2(V, predict(found, Z))
    ridge = RidgeCV(np.logspace(-3, 4, 15)).fit(X, Y).predict(Z).reshape(len(Z), -1)
    assert reached > max(least, r2(V, ridge) - 0.03)


def test_digits_get_many_units():
    X, Y, Z, V = halves(*classes(datasets.load_digits()), 0)
    found = predictive(problem_of(X, Y))
    assert r2(V, predict(found, Z)) > 0.85
    assert found.decay is not None
    assert found.n_hidden > 10


def test_what_a_network_made_is_found_without_decay():
    X, Y = samples(6, 3, 1)
    found = predictive(problem_of(X, Y))
    assert (found.n_hidden, found.decay, found.share) == (3, None, 0.0)
    assert found.grown.n_hidden == 3
    assert np.isnan(found.held_out)  # many samples for each weight: nothing to compare


def test_few_samples_of_a_network_are_compared():
    X, Y = samples(6, 3, 1, n=700, noise=0.1, seed=2)
    X, Y, Z, V = halves(X, Y, 0)
    found = predictive(problem_of(X, Y))
    assert found.n_hidden == 3
    assert found.decay is None
    assert found.held_out == pytest.approx(r2(V, predict(found, Z)), abs=0.02)


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 3))
def test_linear_samples_are_a_linear_regression(seed, d, m):
    X, Y = samples(d, 0, m, n=40 * (d + 1), noise=0.7, seed=seed)
    found = predictive(problem_of(X, Y))
    assert (found.n_hidden, found.decay) == (0, None)


@settings(max_examples=20)
@given(
    st.integers(0, 2**31), st.integers(2, 30), st.integers(1, 6), st.integers(1, 3), st.booleans()
)
def test_few_samples_of_anything(seed, n, d, m, intercept):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((n, m))
    X[:, 0] = rng.choice([0.0, 1.0, seed % 3], n) + np.arange(n) % 2
    found = predictive(problem_of(X, Y, intercept), random_state=0)
    Z = rng.standard_normal((200, d))
    assert np.isfinite(predict(found, np.concatenate([X, Z]))).all()
    assert found.decay is None or found.decay.ridge >= 0


def test_random_state_is_all_that_is_random():
    X, Y = samples(4, 3, 2, n=150)
    one, other = (predictive(problem_of(X, Y), random_state=7) for _ in range(2))
    np.testing.assert_array_equal(one.point.hidden, other.point.hidden)
    np.testing.assert_array_equal(one.point.outputs, other.point.outputs)
    assert one.held_out == other.held_out


def test_lines_are_said():
    X, Y = samples(4, 3, 2, n=60)
    lines = []
    found = predictive(problem_of(X, Y), say=lines.append)
    assert any("held-out R2" in line for line in lines)
    assert found.share in (0.0, np.inf) or found.decay.alpha > 0


def test_prediction_needs_a_linear_part():
    X, Y = samples(3, 1, 1)
    with pytest.raises(ValueError, match=r"with_linear\(\)"):
        predictive(Problem(X, Y, None, 1, Activation(), True))
