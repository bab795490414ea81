import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastsym import MomentAccumulator, TwoLayerRegressor, make_two_layer, parameter_error
from fastsym.exceptions import SpectralGapWarning

FEW_SAMPLES = {
    "check_sample_weight_equivalence_on_dense_data": "it has 27 samples of 30 features, and fewer "
    "samples than features are an error here; test_weights_count_as_repeats is the same with more"
}


@parametrize_with_checks(
    [TwoLayerRegressor(), TwoLayerRegressor(n_hidden=1)],
    expected_failed_checks=lambda estimator: FEW_SAMPLES,
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def problem():
    return make_two_layer(20_000, 6, 4, 5, noise=0.1, random_state=0)


def test_fit_recovers_the_network(problem):
    X, Y, network = problem
    model = TwoLayerRegressor(n_hidden="auto").fit(X, Y)
    assert model.hidden_weights_.shape == (4, 6)
    assert model.output_weights_.shape == (5, 4)
    assert max(parameter_error(network, model.network_)) < 0.01
    noise_share = 5 * 0.01 / Y.var(axis=0).sum()
    np.testing.assert_allclose(model.score(X, Y), 1 - noise_share, atol=0.01)
    np.testing.assert_array_equal(model.predict(X), model.network_.predict(X))
    assert model.n_features_in_ == 6
    assert model.diagnostics_.gap > 10
    assert model.diagnostics_.n_samples == 20_000


def test_partial_fit_is_the_stream_and_fit_forgets_it(problem):
    X, Y, _ = problem
    model = TwoLayerRegressor(n_hidden=4, refine=False)
    for first in range(0, 20_000, 1234):
        model.partial_fit(X[first : first + 1234], Y[first : first + 1234])
    stream = MomentAccumulator(4).update(X, Y)
    same = TwoLayerRegressor().fit_moments(stream)
    np.testing.assert_array_equal(model.hidden_weights_, same.hidden_weights_)
    assert same.n_features_in_ == 6
    before = model.hidden_weights_
    model.partial_fit(X[:5000] * 2, Y[:5000] * 2)
    assert model.diagnostics_.n_samples == 25_000
    assert not np.array_equal(before, model.hidden_weights_)
    model.fit(X, Y)
    assert model.diagnostics_.n_samples == 20_000
    model.partial_fit(X[:9000], Y[:9000])
    assert model.diagnostics_.n_samples == 9000


def test_single_rows(problem):
    X, Y, _ = problem
    model = TwoLayerRegressor(n_hidden=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpectralGapWarning)
        for i in range(40):
            model.partial_fit(X[i : i + 1], Y[i : i + 1])
        assert model.predict(X[:3]).shape == (3, 5)


def test_one_output(problem):
    X, y, network = make_two_layer(20_000, 6, 1, 1, noise=0.1, random_state=0)
    flat = TwoLayerRegressor().fit(X, y[:, 0])
    assert flat.predict(X).shape == (20_000,)
    assert TwoLayerRegressor().fit(X, y).predict(X).shape == (20_000, 1)
    assert parameter_error(network, flat.network_).hidden_error < 1e-3
    assert flat.score(X, y[:, 0]) > 0.9


def test_threads_do_not_change_a_bit(problem):
    X, Y, _ = problem
    one, two = (TwoLayerRegressor(4, n_jobs=n).fit(X, Y).hidden_weights_ for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_float32_is_close(problem):
    X, Y, _ = problem
    exact = TwoLayerRegressor(4).fit(X, Y)
    single = TwoLayerRegressor(4, compute_dtype="float32").fit(X.astype("f4"), Y.astype("f4"))
    assert max(parameter_error(exact.network_, single.network_)) < 1e-9


def test_works_with_scikit_learns_tools(problem):
    X, Y, _ = problem
    assert clone(TwoLayerRegressor(3, n_jobs=2)).get_params()["n_jobs"] == 2
    search = GridSearchCV(TwoLayerRegressor(), {"n_hidden": [1, 2, 4]}, cv=2)
    search.fit(X[:2000], Y[:2000])
    assert search.best_params_ == {"n_hidden": 4}
    assert make_pipeline(MaxAbsScaler(), TwoLayerRegressor(4)).fit(X, Y).score(X, Y) > 0.9


def test_feature_names(problem):
    import pandas as pd

    X, Y, _ = problem
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = TwoLayerRegressor(4).fit(frame, pd.DataFrame(Y))
    assert model.feature_names_in_.tolist() == list("abcdef")
    np.testing.assert_array_equal(
        model.hidden_weights_, TwoLayerRegressor(4).fit(X, Y).hidden_weights_
    )
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("fedcba")])


def test_verbose_prints_figures(problem, capsys):
    X, Y, _ = problem
    TwoLayerRegressor(4, verbose=1).fit(X, Y)
    assert "20000 samples, n_hidden=4, gap" in capsys.readouterr().out


def test_not_fitted_and_bad_arguments(problem):
    X, Y, _ = problem
    model = TwoLayerRegressor()
    for name in ("hidden_weights_", "output_weights_", "network_", "diagnostics_"):
        with pytest.raises(NotFittedError):
            getattr(model, name)
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(ValueError, match="fit_intercept=True needs refine=True"):
        TwoLayerRegressor(refine=False, fit_intercept=True).fit(X, Y)
    with pytest.raises(ValueError, match="negative_slope must be a number from 0 to below 1"):
        TwoLayerRegressor(negative_slope=1).fit(X, Y)
    with pytest.raises(ValueError, match=r"at most min\(n_features, n_outputs\)"):
        TwoLayerRegressor(6, refine=False).fit(X, Y)
    with pytest.raises(TypeError, match="moments must be a MomentAccumulator"):
        model.fit_moments(X)
    bad = X.copy()
    bad[12, 0] = np.nan
    with pytest.raises(ValueError, match=r"X contains NaN \(first in row 12\)"):
        model.fit(bad, Y)
    with pytest.raises(ValueError, match="compute_dtype must be"):
        TwoLayerRegressor(compute_dtype="int8").fit(X, Y)


def test_a_subclass_may_have_parameters_of_its_own(problem):
    class Named(TwoLayerRegressor):
        def __init__(self, n_hidden="auto", *, name="", refine=True):
            super().__init__(n_hidden, refine=refine)
            self.name = name

    X, Y = problem[:2]
    mine, plain = Named(2, name="mine").fit(X, Y), TwoLayerRegressor(2).fit(X, Y)
    np.testing.assert_array_equal(mine.hidden_weights_, plain.hidden_weights_)


def test_parameters_are_checked_at_every_chunk(problem):
    X, Y = problem[:2]
    model = TwoLayerRegressor(2, refine=False, fit_intercept=True)
    with pytest.raises(ValueError, match="fit_intercept=True needs refine=True"):
        model.partial_fit(X, Y)
    assert not hasattr(model, "n_features_in_")
    model.set_params(fit_intercept=False).partial_fit(X, Y)
    with pytest.raises(ValueError, match="negative_slope must be"):
        model.set_params(negative_slope=2).partial_fit(X, Y)
