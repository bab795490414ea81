"""Standard errors: against slow NumPy in the unit gauge, and against the spread of many fits."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import TwoLayerNetwork, TwoLayerRegressor, make_two_layer
from fastsym.metrics import match_neurons
from fastsym.refine import influence, refine
from fastsym.refine.coordinates import UnitGauge
from fastsym.refine.minimisation import minimise
from fastsym.refine.problem import Problem
from fastsym.sources import from_arrays
from fastsym.sources.arrays import PairedRows

D, K, M = 3, 2, 3


def augmented(X):
    return np.column_stack([np.ones(len(X)), X])


def flat_of(network, intercept, linear):
    """Weights of units (bias, w), or w alone, then (A, c, L), of what there is, in one vector."""
    hidden, A = network.hidden_weights, network.output_weights
    if intercept:
        hidden = np.column_stack([network.hidden_intercept, hidden])
        A = np.column_stack([A, network.output_intercept])
    if linear:
        A = np.column_stack([A, network.linear_weights])
    return np.concatenate([hidden.ravel(), A.ravel()])


def outputs_of(flat, U, slope, intercept, linear):
    """Predictions with the rows of W brought to unit length."""
    hidden = flat[: K * U.shape[1]].reshape(K, -1)
    hidden = hidden / np.linalg.norm(hidden, axis=1)[:, None]
    t = U @ hidden.T
    h = np.where(t > 0, t, slope * t)
    h = np.column_stack([h, affine_part(U, intercept, linear)])
    return h @ flat[K * U.shape[1] :].reshape(M, -1).T


def affine_part(U, intercept, linear):
    """Columns of u that c and L multiply."""
    return U[:, 0 if intercept else (0 if linear else U.shape[1]) : U.shape[1] if linear else 1]


def jacobian_of(network, X, intercept, linear):
    """Derivative of the predictions by all weights, by differences, (n, m, p)."""
    slope, U = network.negative_slope, augmented(X) if intercept else X
    flat = flat_of(network, intercept, linear)
    columns = []
    for step in 1e-6 * np.eye(len(flat)):
        up, down = (outputs_of(flat + sign * step, U, slope, intercept, linear) for sign in (1, -1))
        columns.append((up - down) / 2e-6)
    return np.stack(columns, axis=2)


def slow_sandwich(network, X, residual, weights, intercept, linear, beyond):
    """Sandwich, the Jacobian by differences; HC3, or with kinks and cross terms, unshrunk."""
    J, U = jacobian_of(network, X, intercept, linear), augmented(X) if intercept else X
    q = U.shape[1]
    H = np.einsum("n,nop,noq->pq", weights, J, J)
    if beyond:
        H += second_part(network, U, residual, weights, intercept, linear)
    inverse = np.linalg.pinv(H, rcond=1e-9)
    meat, leverage = np.zeros_like(H), 0 if beyond else 1
    for w, j, r in zip(weights, J, residual, strict=True):
        score = w * j.T @ np.linalg.solve(np.eye(M) - leverage * w * j @ inverse @ j.T, r)
        meat += np.outer(score, score)
    errors = np.sqrt(np.diag(inverse @ meat @ inverse))
    return errors[: K * q].reshape(K, q), errors[K * q :].reshape(M, -1)


def second_part(network, U, residual, weights, intercept, linear):
    """Sum of minus r times the second derivatives, on the tangent space of unit white rows."""
    slope = network.negative_slope
    q, hidden = U.shape[1], flat_of(network, intercept, linear)[: K * U.shape[1]].reshape(K, -1)
    C = (U * weights[:, None]).T @ U / weights.sum()
    n_effective = weights.sum() ** 2 / (weights**2).sum()
    width = n_effective**-0.2
    n_outputs = K + affine_part(U, intercept, linear).shape[1]
    H = np.zeros((K * q + M * n_outputs,) * 2)
    for i, w in enumerate(hidden):
        sd = np.sqrt(w @ C @ w)
        t = U @ w
        kernel = np.maximum(1 - (t / sd / width) ** 2, 0) * 0.75 / width / sd
        bend = weights * (1 - slope) * kernel * (residual @ network.output_weights[:, i])
        P = np.eye(q) - np.outer(w, C @ w) / (w @ C @ w)
        block = slice(i * q, (i + 1) * q)
        H[block, block] = -P.T @ ((U * bend[:, None]).T @ U) @ P
        s = np.where(t > 0, 1, slope)
        for o in range(M):
            at = K * q + o * n_outputs + i
            H[block, at] = H[at, block] = -P.T @ ((weights * s * residual[:, o]) @ U)
    return H


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("linear", [False, True])
def test_agrees_with_slow_numpy(intercept, beyond, slope, linear, monkeypatch):
    rng = np.random.default_rng(5)
    X, _, plain = make_two_layer(300, D, K, M, random_state=1)
    X, weights = X * [1.0, 0.3, 2.0], rng.uniform(0.2, 2, 300)
    hidden = np.column_stack([[0.2, -0.3] if intercept else [0, 0], plain.hidden_weights])
    hidden /= np.linalg.norm(hidden, axis=1)[:, None]
    network = TwoLayerNetwork(
        hidden[:, 1:],
        plain.output_weights,
        hidden_intercept=hidden[:, 0],
        output_intercept=[1.0, -1.0, 0.5] if intercept else None,
        linear_weights=rng.standard_normal((M, D)) if linear else None,
        negative_slope=slope,
    )
    # A unit that is missing, noise that grows with x, and nothing that the weights explain: they
    # are optimal.
    residual = np.maximum(X[:, :1] - 0.5 * X[:, 1:2], 0) * [0.3, -0.2, 0.3]
    residual += 0.1 * (1 + np.abs(X[:, :1])) * rng.standard_normal((300, M))
    J, root = jacobian_of(network, X, intercept, linear), np.sqrt(weights)[:, None]
    explained = (J * root[:, :, None]).reshape(-1, J.shape[2])
    residual -= J @ np.linalg.lstsq(explained, (residual * root).ravel(), rcond=1e-9)[0]
    if linear:
        residual *= 0.3  # what is determined worse is a saddle sooner
    # Of the terms beyond Gauss-Newton, leverages have no part.
    share = 0.0 if beyond else 1.0
    monkeypatch.setattr(influence, "_shrunk", lambda terms, chance: (1 - share) * terms)
    Y = network.predict(X) + residual
    problem = Problem(X, Y, weights, K, network.activation, intercept).with_linear(linear)
    point, coordinates = problem.point(network), problem.coordinates
    gauge = UnitGauge(point, coordinates)
    hidden, outputs = influence.Influences(
        problem.sample, point, coordinates, network.activation, share
    ).squared(gauge)
    found = (hidden * gauge.size**2)[:, gauge.first :], outputs * gauge.output_size**2
    expected = slow_sandwich(network, X, residual, weights, intercept, linear, beyond)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.sqrt(one), other, rtol=1e-4)


def ordered(refinement, network, kind="robust"):
    """W, A and their errors, units in the order of a network."""
    order = match_neurons(network, refinement.network).order
    hidden, outputs = refinement.standard_errors(kind)
    found = refinement.network
    W, A = found.hidden_weights[order], found.output_weights[:, order]
    return W, A, hidden[order], outputs[:, order]


def assert_same(one, other, rtol):
    for kind in ("robust", "classical"):
        pairs = zip(ordered(one, one.network, kind), ordered(other, one.network, kind), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(b, a, rtol=rtol)


@given(st.floats(-6, 6), st.booleans())
def test_the_unit_of_weights_does_not_matter(exponent, streamed):
    X, Y, _ = make_two_layer(600, 4, 2, 3, noise=0.2, random_state=0)
    weights = np.random.default_rng(0).exponential(size=600)
    models = []
    for scale in (1.0, 10.0**exponent):
        model = TwoLayerRegressor("auto", n_jobs=1)
        take = model.partial_fit if streamed else model.fit
        models.append(take(X, Y, sample_weight=scale * weights))
    one, other = (model.refinement_ for model in models)
    assert other.network.n_hidden == one.network.n_hidden == 2
    assert (other.certificate, other.converged) == (one.certificate, one.converged)
    assert len(other.start_losses) == len(one.start_losses)
    np.testing.assert_allclose(other.misfit, one.misfit, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(other.loss, one.loss, rtol=1e-9)
    np.testing.assert_allclose(other.noise_covariance, one.noise_covariance, rtol=1e-6)
    assert_same(one, other, 1e-6)
    ours, theirs = (model.diagnostics_ for model in models)
    np.testing.assert_allclose(theirs.noise_floor, ours.noise_floor, rtol=1e-9)
    np.testing.assert_allclose(theirs.gap, ours.gap, rtol=1e-6)


def test_equal_weights_are_none():
    X, Y, _ = make_two_layer(500, 4, 2, 3, noise=0.2, random_state=0)
    one = TwoLayerRegressor(2).fit(X, Y)
    other = TwoLayerRegressor(2).fit(X, Y, sample_weight=np.full(500, 100.0))
    assert_same(one.refinement_, other.refinement_, 1e-6)


def test_kinds():
    X, Y, _ = make_two_layer(500, 4, 2, 3, noise=0.2, random_state=0)
    model = TwoLayerRegressor(2, stderr="classical").fit(X, Y)
    classical = model.hidden_stderr_
    model.stderr = "robust"
    assert not np.array_equal(classical, model.hidden_stderr_)
    np.testing.assert_allclose(classical, model.hidden_stderr_, rtol=0.5)
    with pytest.raises(ValueError, match=r'stderr must be "robust" or "classical", got .both'):
        model.refinement_.standard_errors("both")
    with pytest.raises(ValueError, match="stderr must be"):
        TwoLayerRegressor(2, stderr="both").fit(X, Y)


def test_rows_are_spread_over_a_sample_that_is_too_long(monkeypatch):
    X, Y, _ = make_two_layer(6000, 4, 2, 3, noise=0.2, random_state=0)
    weights = np.random.default_rng(0).uniform(0.5, 2, size=6000)
    whole = TwoLayerRegressor(2).fit(X, Y, sample_weight=weights)
    monkeypatch.setattr("fastsym.refine.standard_errors.KEPT_ROWS", 2000)
    part = TwoLayerRegressor(2).fit(X, Y, sample_weight=weights)
    assert part.refinement_._errors._sample.n_samples == 2000
    expected = ordered(whole.refinement_, whole.network_)
    found = ordered(part.refinement_, whole.network_)
    for i in (2, 3):
        np.testing.assert_allclose(found[i], expected[i], rtol=0.15)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_a_copy_has_the_errors_and_not_the_samples(duplicate):
    X, Y, _ = make_two_layer(5000, 4, 2, 3, noise=0.2, random_state=0)
    model = TwoLayerRegressor(2).fit(X, Y)
    errors = duplicate(model.refinement_._errors)
    assert len(pickle.dumps(model)) < 50_000
    assert len(pickle.dumps(errors)) < 2000
    for kind in ("robust", "classical"):
        for a, b in zip(errors.of(kind), model.refinement_.standard_errors(kind), strict=True):
            np.testing.assert_array_equal(a, b)


def inside(truth, refinement, kind="robust"):
    """Shares of W and of A within 1.96 standard errors."""
    W, A, hidden, outputs = ordered(refinement, truth, kind)
    return [
        (np.abs(W - truth.hidden_weights) <= 1.96 * hidden).mean(),
        (np.abs(A - truth.output_weights) <= 1.96 * outputs).mean(),
    ]


@pytest.mark.parametrize(("n", "weighted"), [(200, False), (2000, False), (2000, True)])
@pytest.mark.filterwarnings("ignore")
def test_coverage_where_noise_grows_with_x(n, weighted):
    shares = {"robust": [], "classical": []}
    for seed in range(80):
        X, _, truth = make_two_layer(n, D, K, M, random_state=seed)
        size = 0.2 * (0.1 + (X**2).sum(axis=1) / D)
        rng = np.random.default_rng([seed, 1])
        Y = truth.predict(X) + size[:, None] * rng.standard_normal((n, M))
        source = from_arrays(X, Y, rng.exponential(size=n) if weighted else None)
        found = refine(source, truth, trusted=True, max_starts=1, n_jobs=1)
        for kind, each in shares.items():
            each.append(inside(truth, found, kind))
    robust, classical = (np.mean(each, axis=0) for each in shares.values())
    # 80 fits of some ten independent weights: a standard error of 0.01 of their share.
    assert (np.abs(robust - 0.95) <= 0.03).all(), robust
    assert (classical < 0.92).all(), classical


@pytest.mark.filterwarnings("ignore")
def test_coverage_of_the_optimum_of_a_wrong_model():
    rng = np.random.default_rng(11)
    _, _, network = make_two_layer(8, D, K, M, random_state=3)
    linear = 0.3 * rng.standard_normal((D, M))
    X = rng.standard_normal((1 << 17, D))
    problem = Problem(X, network.predict(X) + X @ linear, None, K, network.activation)
    start = problem.point(network)
    fit = minimise(problem, start, tolerance=1e-12, max_evaluations=1000)
    target, shares = problem.network(fit.point), []
    for seed in range(80):
        rng = np.random.default_rng([seed, 2])
        X = rng.standard_normal((4000, D))
        Y = network.predict(X) + X @ linear + 0.2 * rng.standard_normal((4000, M))
        rows = PairedRows(X, Y, checked=True)
        shares.append(inside(target, refine(rows, target, sample=rows, max_starts=1)))
    assert (np.abs(np.mean(shares, axis=0) - 0.95) <= 0.035).all(), np.mean(shares, axis=0)
