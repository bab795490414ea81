"""Data in any units: the same fit, in these units; what no sum holds is an error that says so."""

import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastsym import MomentAccumulator, TwoLayerNetwork, TwoLayerRegressor, make_two_layer
from fastsym.algebra import row_lengths
from fastsym.engine import gather
from fastsym.metrics import output_error, parameter_error
from fastsym.refine import refine
from fastsym.sources import from_arrays, from_blocks
from fastsym.sums.frame import Frame, estimate_frame

pytestmark = pytest.mark.filterwarnings("error")

D, M, K = 4, 3, 2
RTOL = 1e-6

exponents = st.integers(-150, 150)
BOUNDS = (-150, -120, -60, 60, 120, 150)


def problem(n=300, noise=0.1, seed=5):
    X, Y, _ = make_two_layer(n, D, K, M, noise=noise, random_state=seed)
    return X, Y


def in_other_units(network, x_factors, y_factors):
    """The network of x times x_factors and y times y_factors, rows of W of unit length.

    Logarithms, as an oracle that cannot overflow in between.
    """
    with np.errstate(divide="ignore"):
        W = np.log10(np.abs(network.hidden_weights)) - np.log10(x_factors)
        A = np.log10(np.abs(network.output_weights)) + np.log10(y_factors)[:, None]
    largest = W.max(axis=1, keepdims=True)
    lengths = largest + np.log10((10.0 ** (2 * (W - largest))).sum(axis=1, keepdims=True)) / 2
    hidden = np.sign(network.hidden_weights) * 10.0 ** (W - lengths)
    return hidden, np.sign(network.output_weights) * 10.0 ** (A + lengths.T)


def matched(hidden, found):
    """Order of found rows that is that of hidden, and distances relative to a feature's weights."""
    top = np.maximum(np.abs(hidden).max(axis=0), 1e-290)
    distances = (np.abs(found[None] - hidden[:, None]) / top).max(axis=2)
    order = distances.argmin(axis=1)
    assert sorted(order) == list(range(len(hidden)))
    return order, distances.min(axis=1)


def check_same(plain, scaled, X, x_factors, y_factors, rtol=RTOL):
    """A fit of scaled data is that of the plain data, in its units."""
    x_factors = np.broadcast_to(x_factors, D)
    y_factors = np.broadcast_to(y_factors, M)
    hidden, outputs = in_other_units(plain.network_, x_factors, y_factors)
    found, found_outputs = scaled.network_.hidden_weights, scaled.network_.output_weights
    order, distances = matched(hidden, found)  # rounding may change the order of the units
    assert (distances <= 10 * rtol).all()
    sizes = np.abs(outputs).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found_outputs[:, order] / sizes, outputs / sizes, atol=10 * rtol)
    expected = plain.predict(X)
    predicted = scaled.predict(X * x_factors)
    for o, factor in enumerate(y_factors):
        np.testing.assert_allclose(
            predicted[:, o] / factor, expected[:, o], atol=rtol * np.abs(expected[:, o]).max()
        )


def ten_to(exponent):
    return 10.0 ** np.asarray(exponent, float)


def entry_points(X, Y, source=None, **how):
    """A fit by each way in."""

    def stream():
        model = TwoLayerRegressor(K, **how)
        for rows in np.array_split(np.arange(len(X)), 5):
            model.partial_fit(X[rows], Y[rows])
        return model

    def moments():
        accumulator = MomentAccumulator(K).update(X, Y)
        return TwoLayerRegressor(K).fit_moments(accumulator)

    def shards():
        frame = estimate_frame(X, Y, K)
        half = len(X) // 2
        parts = [
            MomentAccumulator(frame=frame).update(X[rows], Y[rows])
            for rows in (slice(half), slice(half, None))
        ]
        return TwoLayerRegressor(K).fit_moments(parts[0].merge(parts[1]))

    return {
        "fit": lambda: TwoLayerRegressor(K, **how).fit(X, Y),
        "auto": lambda: TwoLayerRegressor(**how).fit(X, Y),
        "moments alone": lambda: TwoLayerRegressor(K, refine=False, **how).fit(X, Y),
        "intercept": lambda: TwoLayerRegressor(K, fit_intercept=True).fit(X, Y),
        "slope": lambda: TwoLayerRegressor(K, refine=False, negative_slope=0.2).fit(X, Y),
        "once": lambda: TwoLayerRegressor(K).fit(
            from_blocks(iter([(X[:200], Y[:200]), (X[200:], Y[200:])]))
        ),
        "partial_fit": stream,
        "fit_moments": moments,
        "shards": shards,
        "refine_on": lambda: moments().refine_on(from_arrays(X, Y)),
    }


NAMES = sorted(entry_points(*problem(300)))


def quietly(fit):
    """Call a fit; what it says of the data is not the matter here, but NumPy must say nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return fit()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=6)
@given(exponents, exponents)
@example(150, 150)
@example(-150, -150)
@example(150, -150)
@example(-150, 150)
@example(-120, -120)
def test_any_factor_gives_the_same_fit(name, of_x, of_y):
    X, Y = problem(noise=0.0 if name == "intercept" else 0.1)
    x_factor, y_factor = ten_to(of_x), ten_to(of_y)
    plain = quietly(entry_points(X, Y)[name])
    scaled = quietly(entry_points(X * x_factor, Y * y_factor)[name])
    if name == "intercept":  # biases are part of the unit rows
        expected = plain.predict(X) * y_factor
        np.testing.assert_allclose(
            scaled.predict(X * x_factor), expected, atol=RTOL * np.abs(expected).max()
        )
    else:
        check_same(plain, scaled, X, x_factor, y_factor)
    if hasattr(plain, "refinement_"):
        assert scaled.converged_ == plain.converged_
        assert scaled.refinement_.certificate == plain.refinement_.certificate


@pytest.mark.parametrize("name", [name for name in NAMES if name != "intercept"])
@settings(max_examples=6)
@given(st.tuples(*[exponents] * D), exponents)
@example((-150, 150, 0, 60), 100)
@example((-6, 6, 0, 3), 0)
@example((20, -20, 3, 0), -10)
def test_features_in_units_of_their_own_give_the_same_fit(name, of_x, of_y):
    X, Y = problem()
    x_factors, y_factor = ten_to(of_x), ten_to(of_y)
    # A = Y / X must be a number.
    y_factor = ten_to(np.clip(of_y, -150 + min(of_x), 150 + min(of_x)))
    plain = quietly(entry_points(X, Y)[name])
    scaled = quietly(entry_points(X * x_factors, Y * y_factor)[name])
    check_same(plain, scaled, X, x_factors, y_factor)


@settings(max_examples=15)
@given(exponents, st.tuples(*[exponents] * M))
@example(0, (-150, 150, 0))
@example(0, (-6, 6, 0))
def test_outputs_in_units_of_their_own_give_the_network_that_made_them(of_x, of_y):
    """Without noise: with noise, the sum of squares weighs columns of Y by their size."""
    X, Y, network = make_two_layer(300, D, K, M, random_state=5)
    x_factor, y_factors = ten_to(of_x), ten_to(of_y)
    for how in ({}, {"refine": False}):
        model = quietly(lambda: TwoLayerRegressor(K, **how).fit(X * x_factor, Y * y_factors))  # noqa: B023
        predicted = model.predict(X * x_factor)
        if not how:
            np.testing.assert_allclose(
                predicted / y_factors, network.predict(X), atol=RTOL * np.abs(Y).max()
            )
        assert np.isfinite(predicted).all()


@settings(max_examples=15)
@given(exponents, exponents, exponents)
@example(150, 150, 150)
@example(-150, -150, -150)
@example(-120, 0, 0)
@example(120, 0, 0)
def test_weights_may_be_of_any_size(of_weights, of_x, of_y):
    X, Y = problem()
    weights = np.random.default_rng(1).uniform(0.5, 2, len(X))
    factor, x_factor, y_factor = ten_to(of_weights), ten_to(of_x), ten_to(of_y)
    for how in ({}, {"refine": False}):
        plain = TwoLayerRegressor(K, **how).fit(X, Y, weights)
        scaled = TwoLayerRegressor(K, **how).fit(X * x_factor, Y * y_factor, weights * factor)
        check_same(plain, scaled, X, x_factor, y_factor)
        stream = TwoLayerRegressor(K, **how)
        for rows in np.array_split(np.arange(len(X)), 3):
            stream.partial_fit(X[rows] * x_factor, Y[rows] * y_factor, weights[rows] * factor)
        check_same(plain, stream, X, x_factor, y_factor)


@settings(max_examples=10)
@given(exponents, exponents)
@example(-150, 150)
@example(150, -150)
@example(-120, -120)
def test_what_a_refinement_says_is_in_the_users_units(of_x, of_y):
    X, Y = problem(noise=0.3)
    x_factor, y_factor = ten_to(of_x), ten_to(of_y)
    plain = TwoLayerRegressor(K).fit(X, Y)
    scaled = TwoLayerRegressor(K).fit(X * x_factor, Y * y_factor)
    for name, degree in (("loss_", 2), ("noise_covariance_", 2)):
        np.testing.assert_allclose(
            getattr(scaled, name) / y_factor**degree, getattr(plain, name), rtol=RTOL
        )
    assert scaled.refinement_.misfit == pytest.approx(plain.refinement_.misfit, rel=1e-5, abs=1e-5)
    np.testing.assert_allclose(
        np.array(scaled.refinement_.start_losses) / y_factor**2,
        plain.refinement_.start_losses,
        rtol=RTOL,
    )
    assert scaled.refinement_.history[-1].loss == pytest.approx(scaled.loss_)
    order, _ = matched(plain.hidden_weights_, scaled.hidden_weights_)
    np.testing.assert_allclose(scaled.hidden_stderr_[order], plain.hidden_stderr_, rtol=1e-5)
    np.testing.assert_allclose(
        scaled.output_stderr_[:, order] * (x_factor / y_factor), plain.output_stderr_, rtol=1e-5
    )


@settings(max_examples=10)
@given(st.tuples(*[st.integers(-120, 120)] * D))
@example((-100, 100, 0, 0))
def test_standard_errors_of_features_in_units_of_their_own(of_x):
    """Relative to a feature's own weights, where its unit is not the largest of the row."""
    X, Y = problem(noise=0.3)
    factors = ten_to(of_x)
    model = TwoLayerRegressor(K).fit(X * factors, Y)
    # The delta method by hand: the ratio of two weights of a row does not know of its length.
    plain = TwoLayerRegressor(K).fit(X, Y)
    smallest = factors.argmin()
    small = np.flatnonzero(factors > factors.min() * 1e6)
    assert np.isfinite(model.hidden_stderr_).all()
    assert (model.hidden_stderr_[:, small] > 0).all()
    order, _ = matched(
        in_other_units(plain.network_, factors, np.ones(M))[0], model.hidden_weights_
    )
    ratio = model.hidden_stderr_[order] * factors / factors[smallest]
    # |dw_j / w_s - w_j dw_s / w_s^2| in the plain gauge, bounded by its two parts
    W, errors = plain.hidden_weights_, plain.hidden_stderr_
    w_s, e_s = W[:, [smallest]], errors[:, [smallest]]
    bound = errors / np.abs(w_s) + np.abs(W) * e_s / w_s**2
    assert (ratio[:, small] <= (1 + 1e-6) * bound[:, small]).all()


@pytest.mark.parametrize("of_x", [-150, 0, 150])
@pytest.mark.parametrize("of_y", [-150, 0, 150])
@pytest.mark.parametrize("refined", [False, True])
def test_sources_larger_than_the_sample_in_memory(monkeypatch, of_x, of_y, refined):
    X, Y = problem(4000)
    x_factor, y_factor = ten_to(of_x), ten_to(of_y)
    monkeypatch.setattr(gather, "SAMPLE_ROWS", 500)
    how = {"refine": refined}
    plain = TwoLayerRegressor(K, **how).fit(from_arrays(X, Y))
    scaled = TwoLayerRegressor(K, **how).fit(from_arrays(X * x_factor, Y * y_factor))
    if refined:
        assert scaled.n_passes_ > 0
    check_same(plain, scaled, X, x_factor, y_factor)


@pytest.mark.parametrize("factors", [(-150, 150), (150, -150), (-150, -150)])
def test_streams_longer_than_the_pilot_and_the_first_samples(monkeypatch, factors):
    monkeypatch.setattr("fastsym.refine.stream.sample_rows", lambda *_: 8192)
    X, Y = problem(30_000)
    x_factor, y_factor = ten_to(factors)

    def streamed(X, Y):
        model = TwoLayerRegressor(K)
        for first in range(0, len(X), 5000):
            model.partial_fit(X[first : first + 5000], Y[first : first + 5000])
        return model

    check_same(streamed(X, Y), streamed(X * x_factor, Y * y_factor), X, x_factor, y_factor)


@pytest.mark.parametrize("of_x", [-30, -150, 150])
def test_two_passes_of_moments(of_x):
    X, Y, _ = make_two_layer(20_000, 22, 20, 20, random_state=0)
    plain = TwoLayerRegressor(20, refine=False).fit(X, Y)
    scaled = TwoLayerRegressor(20, refine=False).fit(X * ten_to(of_x), Y)
    assert parameter_error(plain.network_, scaled.network_).hidden_error < 1e-12


@pytest.mark.parametrize("of_x", [-150, -40, -10, 10, 30, 150])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_float32_arithmetic(of_x, dtype):
    X, Y = problem()
    if dtype == "float32":
        of_x = int(np.clip(of_x, -25, 25))
    x_factor, y_factor = ten_to(of_x), ten_to(-of_x)
    for how in ({"compute_dtype": "float32"}, {"compute_dtype": "float32", "refine": False}):
        rtol = 1e-3 if "refine" in how else RTOL if dtype == "float64" else 1e-4
        plain = TwoLayerRegressor(K, **how).fit(X, Y)
        scaled_X, scaled_Y = (X * x_factor).astype(dtype), (Y * y_factor).astype(dtype)
        check_same(
            plain, TwoLayerRegressor(K, **how).fit(scaled_X, scaled_Y), X, x_factor, y_factor, rtol
        )
        stream = TwoLayerRegressor(K, **how)
        for rows in np.array_split(np.arange(len(X)), 3):
            stream.partial_fit(scaled_X[rows], scaled_Y[rows])
        check_same(plain, stream, X, x_factor, y_factor, rtol)


def test_a_start_in_the_users_units():
    X, Y = problem()
    plain = TwoLayerRegressor(K).fit(X, Y)
    network = TwoLayerNetwork(plain.hidden_weights_, 1e140 * plain.output_weights_ * 1e150)
    found = refine(from_arrays(X * 1e-150, Y * 1e140), network, trusted=True)
    np.testing.assert_allclose(found.network.hidden_weights, plain.hidden_weights_, atol=1e-6)
    assert found.n_evaluations <= 3


def test_power_of_two_factors_do_not_change_a_bit():
    X, Y = problem()
    small, large = 2.0**-400, 2.0**420
    one = TwoLayerRegressor(K).fit(X * small, Y * large)
    other = TwoLayerRegressor(K).fit(X * large, Y * small)
    np.testing.assert_array_equal(one.predict(X * small) / large, other.predict(X * large) / small)


def test_a_frame_keeps_its_units_in_a_file(tmp_path):
    X, Y = problem()
    frame = estimate_frame(X * 1e-120, Y * 1e130, K)
    loaded = Frame.load(frame.save(tmp_path / "frame.npz"))
    assert loaded == frame
    assert loaded.units is not None
    accumulator = MomentAccumulator(frame=loaded).update(X[:150] * 1e-120, Y[:150] * 1e130)
    again = MomentAccumulator.load(accumulator.save(tmp_path / "moments.npz"))
    for each in (accumulator, again):
        each.update(X[150:] * 1e-120, Y[150:] * 1e130)
    one, other = accumulator.moments(), again.moments()
    np.testing.assert_array_equal(one.second, other.second)
    np.testing.assert_allclose(np.diag(one.second), np.ones(1 + D + M), atol=50)


@pytest.mark.parametrize("first_has_a_frame", [False, True])
@pytest.mark.parametrize("second_has_a_frame", [False, True])
def test_accumulators_with_and_without_a_frame_are_merged(first_has_a_frame, second_has_a_frame):
    X, Y = problem()
    X, Y, weights = X * 1e-120, Y * 1e130, np.full(len(X), 1e100)
    frame = estimate_frame(X, Y, K, sample_weight=weights)
    whole = MomentAccumulator(K, frame=frame).update(X, Y, weights)
    parts = []
    for has_frame, rows in (
        (first_has_a_frame, slice(150)), (second_has_a_frame, slice(150, None))
    ):  # fmt: skip
        part = MomentAccumulator(K, frame=frame if has_frame else None)
        parts.append(part.update(X[rows], Y[rows], weights[rows]))
    merged = parts[0].merge(parts[1])
    assert merged.weight == pytest.approx(weights.sum())
    np.testing.assert_allclose(merged.moments().second, whole.moments().second, rtol=1e-12)


HUGE = [("X", 1e154), ("Y", 1e154), ("Y", -1e200), ("X", 1e300), ("sample_weight", 1e200)]


@pytest.mark.parametrize(("name", "value"), HUGE)
@pytest.mark.parametrize("way", ["fit", "moments", "stream", "late", "late moments", "late stream"])
def test_one_huge_value_is_an_error_that_names_it(monkeypatch, name, value, way):
    late = way.startswith("late")
    X, Y = problem(20_000 if late else 300)
    weights = np.ones(len(X))
    row = len(X) - 7 if late else 100
    {"X": X[:, 1], "Y": Y[:, 1], "sample_weight": weights}[name][row] = value
    monkeypatch.setattr(gather, "SAMPLE_ROWS", 500)
    monkeypatch.setattr(gather, "staged_rows", lambda *_: 100)
    monkeypatch.setattr("fastsym.refine.stream.sample_rows", lambda *_: 8192)

    def fit():
        if "stream" in way:
            model = TwoLayerRegressor(K)
            for first in range(0, len(X), 4000):
                rows = slice(first, first + 4000)
                model.partial_fit(X[rows], Y[rows], weights[rows])
            return model.network_
        refined = "moments" not in way
        return TwoLayerRegressor(K, refine=refined).fit(X, Y, weights).network_

    message = f"{name}.*(holds|overflow|too large)" if late else rf"{name} holds {value:.3g}"
    message = message.replace("+", r"\+")
    if late:
        message = f"({name}.*(holds|overflow|too large|too far)|overflow.*{name}|{name} holds)"
    with pytest.raises(ValueError, match=message):
        quietly(fit)


def test_values_of_y_that_have_no_square():
    X, Y = problem()
    with pytest.raises(ValueError, match=r"Y holds values of .*e\+16., whose squares overflow"):
        TwoLayerRegressor(K).fit(X, Y * 1e160)
    with pytest.raises(ValueError, match="output weights overflow: X is too small"):
        TwoLayerRegressor(K).fit(X * 1e-200, Y * 1e150)


def test_predictions_that_overflow():
    network = TwoLayerNetwork([[1e200, 1.0]], [[1e200]])
    with pytest.raises(ValueError, match=r"predictions overflow.*row 1"):
        network.predict([[1e-300, 0.0], [1.0, 1.0]])


@given(st.integers(-300, 300))
def test_lengths_of_rows_do_not_overflow(exponent):
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [5.0, 12.0]]) * ten_to(exponent)
    np.testing.assert_allclose(row_lengths(rows) / ten_to(exponent) * [1, ten_to(exponent), 1],
                               [5, 1, 13], rtol=1e-12)  # fmt: skip


@given(exponents)
def test_errors_of_outputs_and_weights_do_not_overflow(exponent):
    Y = np.random.default_rng(0).standard_normal((50, 2))
    factor = ten_to(2 * exponent)
    assert output_error(factor * Y, factor * 1.1 * Y) == pytest.approx(0.01)
    W, A = np.eye(2), Y[:3].T
    one, other = TwoLayerNetwork(W, A.T), TwoLayerNetwork(W * factor, A.T * factor)
    assert parameter_error(one, other).hidden_error < 1e-20
