"""Data that no network made: a fit ends with something finite, or says what is wrong."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import TwoLayerRegressor, make_two_layer
from fastsym.engine import gather

# Of two searches of 20 starts, of the sample and of all samples, of outputs of zero, and of
# six kicks; each takes 200 evaluations at most, and one that shows the limit.
MOST_EVALUATIONS = (2 * 20 + 1 + 6) * 201

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


def fitted(fit):
    """Call a fit; the model, or None for an error that speaks of the data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return fit()
        except ValueError as error:
            assert re.search(r"\b(X|Y|samples|sample_weight|rows)\b", str(error)), error
            return None


def check_finite(model, X):
    """The model is finite, after a bounded number of steps."""
    refinement = model.refinement_
    assert refinement.n_evaluations <= MOST_EVALUATIONS
    assert np.isfinite(refinement.loss)
    assert np.isfinite(refinement.decrement) or not refinement.converged
    assert np.isfinite(model.predict(X)).all()


def check(model, X, Y, weights=None):
    """The model is finite, and no worse than predicting zero."""
    check_finite(model, X)
    prediction = model.predict(X).reshape(Y.shape)
    weights = np.ones(len(X)) if weights is None else weights
    assert (
        weights @ (Y - prediction) ** 2 @ np.ones(Y.shape[1]) <= (1 + 1e-9) * (weights @ Y**2).sum()
    )


@given(
    tables(),
    st.sampled_from(["auto", 1, 2, 3]),
    st.booleans(),
    st.sampled_from([0.0, 0.0, 0.3]),
    st.booleans(),
)
def test_a_fit_ends_with_a_model_or_speaks_of_the_data(table, n_hidden, bias, slope, weighted):
    X, Y = table
    k = n_hidden if n_hidden == "auto" else min(n_hidden, X.shape[1], Y.shape[1])
    weights = np.arange(len(X)) % 4.0 if weighted else None
    model = TwoLayerRegressor(k, fit_intercept=bias, negative_slope=slope)
    if fitted(lambda: model.fit(X, Y, sample_weight=weights)) is not None:
        check(model, X, Y, weights)


@given(tables())
def test_a_stream_ends_with_a_model_or_speaks_of_the_data(table):
    X, Y = table
    model = TwoLayerRegressor(1)

    def fit():
        for rows in np.array_split(np.arange(len(X)), min(3, len(X))):
            model.partial_fit(X[rows], Y[rows])
        return model.network_

    if fitted(fit) is not None:
        check(model, X, Y)


@given(tables(), st.sampled_from([1.0, 1e3, 1e8]))
def test_rows_outside_of_the_sample_in_memory_may_be_anything(table, size):
    X, Y = table
    rng = np.random.default_rng(0)
    X = np.concatenate([np.tile(X, (20, 1)) + 1e-3 * rng.standard_normal((20 * len(X), 1)), X])
    Y = np.tile(Y, (21, 1))
    X[-1] *= size
    model = TwoLayerRegressor(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "SAMPLE_ROWS", 8)
        patch.setattr(gather, "_ROWS_PER_SQUARE", 1)
        if fitted(lambda: model.fit(X, Y)) is not None:
            check_finite(model, X)  # eight rows say little of how large the others are


def test_one_outlier_outside_of_the_sample_does_not_spoil_the_fit(monkeypatch):
    monkeypatch.setattr(gather, "SAMPLE_ROWS", 500)
    X, Y, _ = make_two_layer(20_000, 4, 2, 3, noise=0.1, random_state=0)
    X[10_007] *= 1e7  # not in the sample
    model = fitted(lambda: TwoLayerRegressor(2).fit(X, Y))
    check(model, X, Y)
    assert not model.converged_
    Y[10_007] = 1e200
    with pytest.raises(ValueError, match="overflow"):
        TwoLayerRegressor(2).fit(X, Y)


@given(tables())
def test_moments_alone_give_a_finite_network_or_speak_of_the_data(table):
    X, Y = table
    model = fitted(lambda: TwoLayerRegressor(1, refine=False).fit(X, Y))
    assert model is None or np.isfinite(model.predict(X)).all()


def test_a_unit_that_one_sample_drives_does_not_hang():
    X = np.random.RandomState(0).uniform(size=(30, 3))
    with pytest.warns(UserWarning):
        model = TwoLayerRegressor(n_hidden=1).fit(X, np.arange(30) % 3)
    assert model.loss_ <= 5 / 3  # of predicting zero
