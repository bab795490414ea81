"""Data that no network made: a fit ends with something finite, or says what is wrong."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import TwoLayerRegressor

# Of 20 starts and 6 kicks, each at most 200 evaluations and one that shows the limit.
MOST_EVALUATIONS = 26 * 201

COLUMNS = {
    "gaussian": lambda rng, n: rng.standard_normal(n),
    "uniform": lambda rng, n: rng.uniform(size=n),
    "signs": lambda rng, n: rng.choice([-1.0, 1.0], n),
    "integers": lambda rng, n: rng.integers(-3, 4, n).astype(float),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "count": lambda rng, n: np.arange(n) % 3.0,
    "constant": lambda rng, n: np.full(n, 2.5),
    "zero": lambda rng, n: np.zeros(n),
    "one value": lambda rng, n: np.eye(1, n)[0],
}
TARGETS = {
    "gaussian": lambda rng, X: rng.standard_normal(len(X)),
    "constant": lambda rng, X: np.full(len(X), 1.5),
    "linear": lambda rng, X: X @ rng.standard_normal(X.shape[1]),
    "absolute": lambda rng, X: np.abs(X[:, 0]),
    "sine": lambda rng, X: np.sin(X).sum(axis=1),
    "classes": lambda rng, X: np.arange(len(X)) % 3.0,
    "cauchy": lambda rng, X: rng.standard_cauchy(len(X)),
    "one value": lambda rng, X: np.eye(1, len(X))[0],
    "relu": lambda rng, X: np.maximum(X[:, 0], 0),
}


@st.composite
def tables(draw):
    """X and Y of columns of any kind, some of them repeated, summed and scaled."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    d = draw(st.integers(1, 4))
    n = draw(st.one_of(st.just(d + 1), st.integers(d + 1, 60)))
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=d, max_size=d))
    X = np.stack([COLUMNS[kind](rng, n) for kind in kinds], axis=1)
    kinds = draw(st.lists(st.sampled_from(sorted(TARGETS)), min_size=1, max_size=3))
    Y = np.stack([TARGETS[kind](rng, X) for kind in kinds], axis=1)
    if d > 1 and (how := draw(st.sampled_from(["as it is", "twice", "dependent"]))) != "as it is":
        X[:, -1] = X[:, 0] if how == "twice" else X[:, :-1].sum(axis=1)
    scales = st.sampled_from([1.0, 1.0, 1e-8, 1e-3, 1e4, 1e8])
    return X * [draw(scales) for _ in range(d)], Y * draw(scales)


@given(tables(), st.sampled_from(["auto", 1, 2, 3]), st.booleans())
def test_a_fit_ends_with_a_model_or_speaks_of_the_data(table, n_hidden, intercept):
    X, Y = table
    k = n_hidden if n_hidden == "auto" else min(n_hidden, X.shape[1], Y.shape[1])
    model = TwoLayerRegressor(k, fit_intercept=intercept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            model.fit(X, Y)
        except ValueError as error:
            assert "X" in str(error) or "Y" in str(error) or "samples" in str(error), error
            return
    refinement = model.refinement_
    assert refinement.n_evaluations <= MOST_EVALUATIONS
    prediction = model.predict(X)
    assert np.isfinite(prediction).all()
    assert ((Y - prediction) ** 2).sum() <= (1 + 1e-9) * (Y**2).sum()
    assert np.isfinite([refinement.loss, refinement.decrement]).all() or not refinement.converged


@given(tables())
def test_moments_alone_give_a_finite_network_or_speak_of_the_data(table):
    X, Y = table
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            model = TwoLayerRegressor(1, refine=False).fit(X, Y)
        except ValueError as error:
            assert "X" in str(error) or "Y" in str(error) or "samples" in str(error), error
            return
    assert np.isfinite(model.predict(X)).all()


def test_a_unit_that_one_sample_drives_does_not_hang():
    X = np.random.RandomState(0).uniform(size=(30, 3))
    with pytest.warns(UserWarning):
        model = TwoLayerRegressor(n_hidden=1).fit(X, np.arange(30) % 3)
    assert model.loss_ <= 5 / 3  # of predicting zero
