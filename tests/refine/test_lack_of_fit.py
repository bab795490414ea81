"""The lack-of-fit test: its statistics against plain NumPy, its level, its power, its causes."""

import numpy as np
import pytest

from fastsym import TwoLayerNetwork, TwoLayerRegressor, make_two_layer
from fastsym.activation import Activation
from fastsym.algebra import whitening
from fastsym.datasets import DISTRIBUTIONS
from fastsym.exceptions import LackOfFitWarning
from fastsym.refine import lack_of_fit as module
from fastsym.refine.lack_of_fit import UNTESTED, lack_of_fit
from fastsym.refine.problem import Problem


def network_of(rng, d, k, m):
    W = rng.standard_normal((k, d))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    return TwoLayerNetwork(W, rng.standard_normal((m, k)))


def noise_of(rng, kind, X, m):
    noise = rng.standard_normal((len(X), m))
    if kind == "heteroscedastic":
        noise *= 0.1 + (X**2).sum(axis=1, keepdims=True) / X.shape[1]
    if kind == "t3":
        noise = rng.standard_t(3, noise.shape)
    return noise


def at_optimum(X, Y, network, **how):
    """The test at the optimum near a network."""
    problem = Problem(X, Y, None, network.n_hidden, Activation(0.0), **how)
    fit = problem.fit(problem.point(network))
    return problem, fit, lack_of_fit(problem, fit.point, fit.normal)


@pytest.mark.parametrize("noise", ["homoscedastic", "heteroscedastic", "t3"])
@pytest.mark.parametrize(("n", "distribution"), [(120, "laplace"), (600, "gaussian")])
def test_level(n, distribution, noise):
    p_values = []
    for seed in range(120):
        rng = np.random.default_rng([1, seed])
        X = DISTRIBUTIONS[distribution](rng, n, 6)
        truth = network_of(rng, 6, 3, 4)
        Y = truth.predict(X) + 0.3 * noise_of(rng, noise, X, 4)
        p_values.append(at_optimum(X, Y, truth)[2].p_value)
    # 120 draws of a chance of 0.05 are at most 13 with probability 0.996.
    assert (np.array(p_values) < 0.05).sum() <= 13
    assert min(p_values) > 1e-4


CHANGES = {
    "constant": lambda rng, X: np.ones(1),
    "linear": lambda rng, X: X @ rng.standard_normal((len(X[0]), 6)),
    "unit": lambda rng, X: np.outer(
        np.maximum(X @ rng.standard_normal(X.shape[1]), 0), rng.standard_normal(6)
    ),
    "square": lambda rng, X: np.outer((X @ rng.standard_normal(8)) ** 2, rng.standard_normal(6)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_power_and_cause(change):
    for seed in range(5):
        rng = np.random.default_rng([2, seed])
        X, truth = rng.standard_normal((1500, 8)), network_of(rng, 8, 4, 6)
        Y = truth.predict(X) + 0.3 * rng.standard_normal((1500, 6))
        assert at_optimum(X, Y, truth)[2].p_value > 0.002
        result = at_optimum(X, Y + 0.3 * CHANGES[change](rng, X), truth)[2]
        assert result.p_value < 1e-6
        assert result.significant
        if change == "constant":
            assert result.cause == "constant"


def test_what_is_detectable_is_detected():
    """An excess loss of three times `detectable`, in bends, is seen; a tenth of it hardly ever."""
    seen = {0.1: 0, 3.0: 0}
    for seed in range(20):
        rng = np.random.default_rng([3, seed])
        X, truth = rng.standard_normal((2000, 6)), network_of(rng, 6, 3, 5)
        noise = 0.3 * rng.standard_normal((2000, 5))
        result = at_optimum(X, truth.predict(X) + noise, truth)[2]
        for share in seen:
            loss = result.detectable * share * (noise**2).sum()
            bend = np.outer(np.abs(X @ rng.standard_normal(6)), rng.standard_normal(5))
            bend -= bend.mean(axis=0)
            bend *= np.sqrt(loss / (bend**2).sum())
            found = at_optimum(X, truth.predict(X) + noise + bend, truth)[2]
            seen[share] += found.p_value < 0.05
    assert seen[0.1] <= 5
    assert seen[3.0] >= 10


def test_scores_are_off_the_tangent_space():
    """The projected products do not change, to first order, with the weights."""
    rng = np.random.default_rng(4)
    X, truth = rng.standard_normal((400, 4)), network_of(rng, 4, 2, 3)
    Y = truth.predict(X) + 0.3 * rng.standard_normal((400, 3))
    problem = Problem(X, Y, None, 2, Activation(0.0))
    point = problem.fit(problem.point(truth)).point
    normal = problem.normal(point)
    k, q = 2, 4
    t = problem.sample.inputs @ problem.coordinates.weights(point).T
    h = np.maximum(t, 0)
    white = whitening(h.T @ h)
    rows = module._Rows(
        problem.sample.inputs[:, :1],
        problem.sample.inputs @ problem.coordinates.to_inputs,
        h @ white,
        (t > 0).astype(float),
        rng.standard_normal((400, 3)),
        point.outputs,
        white.T @ h.T @ h,
    )
    features = module._features(problem, rows)

    def projected(residual):
        these = rows._replace(residual=residual)
        scores = module._sums(400, features, these)
        return module._projected(scores, features, these, normal, 1.0, 1.0)[0]

    # The tangent space, by hand: all moves of A, and those of W at right angles to its rows.
    moves = []
    for o in range(3):
        for j in range(k):
            move = np.zeros((400, 3))
            move[:, o] = h[:, j]
            moves.append(move)
    for i in range(k):
        for a in range(q):
            step = np.eye(q)[a] - point.hidden[i] * point.hidden[i, a]
            moves.append(np.outer(rows.masks[:, i] * (rows.x @ step), point.outputs[:, i]))
    size = np.abs(projected(rows.residual)).max()
    for move in moves:
        assert np.abs(projected(move)).max() < 1e-3 * size  # features are in float32
    # and an oracle for what is left: least squares of the residual on all of these moves
    J = np.stack([move.ravel() for move in moves], axis=1)
    left = rows.residual.ravel() - J @ np.linalg.lstsq(J, rows.residual.ravel(), rcond=None)[0]
    beyond = features.values - rows.units @ features.by_units
    expected = beyond.T @ left.reshape(400, 3)
    np.testing.assert_allclose(features.gram, beyond.T @ beyond, atol=1e-3 * len(X))
    np.testing.assert_allclose(projected(rows.residual), expected, atol=1e-3 * size)


def test_invariances():
    """Rotations of x, permutations and common factors of y, and common weights change nothing."""
    rng = np.random.default_rng(5)
    X, truth = rng.standard_normal((900, 5)), network_of(rng, 5, 3, 4)
    Y = truth.predict(X) + 0.3 * rng.standard_normal((900, 4))
    one = at_optimum(X, Y, truth)[2]
    W, A = truth.hidden_weights, truth.output_weights
    order = [2, 0, 3, 1]
    permuted = at_optimum(X, Y[:, order], TwoLayerNetwork(W, A[order]))[2]
    scaled = at_optimum(1024 * X, Y / 64, TwoLayerNetwork(W / 1024, A / 64))[2]
    for other in (permuted, scaled):
        assert other.p_value == pytest.approx(one.p_value, abs=0.02)
        assert other.misfit == pytest.approx(one.misfit, rel=1e-2)
    weighted = Problem(X, Y, np.full(900, 4.0), 3, Activation(0.0))
    fit = weighted.fit(weighted.point(truth))
    heavy = lack_of_fit(weighted, fit.point, fit.normal)
    assert heavy.misfit == pytest.approx(one.misfit, rel=1e-2)
    assert heavy.detectable == pytest.approx(one.detectable, rel=1e-2)


@pytest.mark.parametrize("rows", ["repeated", "tiled", "time series", "outlier"])
def test_level_of_rows_that_are_not_independent(rows):
    p_values = []
    for seed in range(40):
        rng = np.random.default_rng([8, seed])
        n = 150 if rows in ("repeated", "tiled") else 1500
        X, truth, noise = rng.standard_normal((n, 5)), network_of(rng, 5, 2, 3), None
        noise = rng.standard_normal((n, 3))
        if rows == "time series":
            for i in range(1, n):
                X[i] = 0.9 * X[i - 1] + np.sqrt(1 - 0.81) * X[i]
                noise[i] = 0.9 * noise[i - 1] + np.sqrt(1 - 0.81) * noise[i]
        if rows == "outlier":
            noise[0] *= 100
        Y = truth.predict(X) + 0.3 * noise
        if rows == "repeated":
            X, Y = np.repeat(X, 10, axis=0), np.repeat(Y, 10, axis=0)
        if rows == "tiled":
            X, Y = np.tile(X, (10, 1)), np.tile(Y, (10, 1))
        p_values.append(at_optimum(X, Y, truth)[2].p_value)
    # The bound of independent rows is 6; a time series of so few lengths is not quite at its level.
    assert (np.array(p_values) < 0.05).sum() <= (12 if rows == "time series" else 6)
    assert (np.array(p_values) < 0.002).sum() <= 2


def test_nothing_to_test():
    X, Y, truth = make_two_layer(60, 5, 3, 4, random_state=0)
    problem = Problem(X, np.zeros_like(Y), None, 3, Activation(0.0))
    zero = problem.point(TwoLayerNetwork(truth.hidden_weights, np.zeros((4, 3))))
    assert lack_of_fit(problem, zero) == UNTESTED
    few = Problem(X[:6], Y[:6], None, 3, Activation(0.0))  # 24 observations, 24 weights
    assert lack_of_fit(few, few.point(truth)) == UNTESTED
    point = problem.point(truth)
    with np.errstate(all="ignore"):
        huge = point._replace(outputs=point.outputs * 1e200)
        assert lack_of_fit(problem, huge).significant


def test_a_fit_warns_of_data_that_no_network_made():
    rng = np.random.default_rng(6)
    X = rng.standard_normal((2000, 6))
    Y = X @ rng.standard_normal((6, 4)) + 0.1 * rng.standard_normal((2000, 4))
    with pytest.warns(LackOfFitWarning, match=r"p = .* R2 is 0\.\d+ against the constant"):
        model = TwoLayerRegressor(3, fit_intercept=False, linear=False).fit(X, Y)
    result = model.refinement_
    assert result.lack_of_fit.significant
    centred = Y - Y.mean(axis=0)
    assert result.r2 == pytest.approx(1 - model.loss_ * 2000 / (centred**2).sum())
    design = np.column_stack([np.ones(2000), X])
    residual = Y - design @ np.linalg.lstsq(design, Y, rcond=None)[0]
    assert result.r2_linear == pytest.approx(1 - model.loss_ * 2000 / (residual**2).sum())
    assert result.r2_linear < 0  # a linear predictor is better, and it says so


def test_where_a_linear_predictor_is_far_better_a_linear_term_is_named():
    rng = np.random.default_rng(9)
    X = rng.standard_normal((2000, 8))
    Y = X @ rng.standard_normal((8, 6)) + 0.1 * rng.standard_normal((2000, 6))
    with pytest.warns(LackOfFitWarning, match="a linear term beside the network"):
        result = TwoLayerRegressor(4, fit_intercept=False, linear=False).fit(X, Y).refinement_
    assert result.lack_of_fit.cause == "linear"
    # The share of the loss that the linear predictor, of noise 0.1, has not.
    assert result.lack_of_fit.explained == pytest.approx(1 - 0.06 / result.loss, rel=0.01)


def test_a_constant_is_named_and_mended():
    X, Y, _ = make_two_layer(3000, 6, 4, 5, noise=0.2, random_state=7)
    with pytest.warns(LackOfFitWarning, match="try fit_intercept=True"):
        TwoLayerRegressor(4, fit_intercept=False, linear=False).fit(X, Y + 1)
    assert (
        not TwoLayerRegressor(4, fit_intercept=True)
        .fit(X, Y + 1)
        .refinement_.lack_of_fit.significant
    )
