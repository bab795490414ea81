"""Weight decay against penalties and regressions that are written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym.activation import Activation
from fastsym.refine.coordinates import normalised
from fastsym.refine.decay import Decay, Decayed, DecayPath, evened, path_to, ridge_of
from fastsym.refine.implicit import ImplicitNormal
from fastsym.refine.minimisation import gradients
from fastsym.refine.problem import Problem

from .test_normal import explicit

SHARES = (1.0, 0.5, 0.25)


def samples(n=200, d=4, m=2, seed=0, noise=0.3):
    """Inputs in unequal units, and outputs that bend."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) * rng.choice([0.2, 1, 5], d) + 1
    Y = np.abs(X / X.std(axis=0) @ rng.standard_normal((d, 3)) - 1) @ rng.standard_normal((3, m))
    return X, Y + noise * rng.standard_normal((n, m))


def problem_of(X, Y, weights=None, slope=0.0, intercept=True):
    return Problem(X, Y, weights, 1, Activation(slope), intercept).with_linear()


def draw(problem, k, seed=0):
    """Draw a point with k units, in no way fitted."""
    rng = np.random.default_rng(seed)
    problem = problem.resized(k)
    K, q = k + len(problem.fixed), problem.coordinates.to_inputs.shape[1]
    hidden = np.concatenate([rng.standard_normal((k, q)), problem.fixed])
    return problem, normalised(hidden, rng.standard_normal((problem.n_outputs, K)), k)


def written_out(problem, point, decay, X, Y, weights=None):
    """Loss with weight decay of a network, from its weights in the features' own units."""
    network = problem.network(point)
    weights = np.ones(len(X)) if weights is None else weights
    mean = weights @ X / weights.sum()
    deviations = np.sqrt(weights @ (X - mean) ** 2 / weights.sum())
    lengths = np.linalg.norm(network.hidden_weights * deviations, axis=1)
    columns = np.linalg.norm(network.output_weights, axis=0)
    # The scale of a unit between W and A at which the sum of squares is lowest.
    scale = np.sqrt(columns / lengths)
    squares = (scale * lengths) ** 2 + (columns / scale) ** 2
    residuals = (Y - network.predict(X)) ** 2
    ridge = decay.ridge * ((network.linear_weights * deviations) ** 2).sum()
    return weights @ residuals.sum(axis=1) + decay.alpha * squares.sum() + ridge


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_loss_is_that_of_the_network_with_its_penalty(slope, weighted):
    X, Y = samples()
    weights = np.random.default_rng(1).uniform(0.2, 3, len(X)) if weighted else None
    for problem in (one := problem_of(X, Y, weights, slope), evened(one)):
        problem, point = draw(problem, 3)
        decay = Decay(2.5, 7.0)
        point, residuals = Decayed(problem, decay).reached(point)
        expected = written_out(problem, point, decay, X, Y, weights)
        np.testing.assert_allclose(residuals.loss, expected, rtol=1e-9)


@given(seed=st.integers(0, 2**31), k=st.integers(0, 5), alpha=st.floats(0, 100))
def test_regressed_outputs_never_raise_the_loss(seed, k, alpha):
    X, Y = samples(60, seed=seed % 5)
    problem, point = draw(evened(problem_of(X, Y)), k, seed)
    decay = Decay(alpha, 3.0)
    before = written_out(problem, point, decay, X, Y)
    _, residuals = Decayed(problem, decay).reached(point)
    assert residuals.loss <= before * (1 + 1e-9)


def test_gradient_is_that_of_the_loss():
    X, Y = samples()
    problem, point = draw(evened(problem_of(X, Y)), 3)
    decayed = Decayed(problem, Decay(5.0, 2.0))
    point, residuals = decayed.reached(point)
    by_hidden, by_outputs = gradients(residuals, problem.coordinates)
    rng, step = np.random.default_rng(2), 1e-6
    for _ in range(5):
        hidden, outputs = np.zeros_like(point.hidden), rng.standard_normal(point.outputs.shape)
        hidden[:3] = rng.standard_normal((3, hidden.shape[1]))
        hidden -= point.hidden * (hidden * point.hidden).sum(axis=1, keepdims=True)
        hidden[3:] = 0

        def loss(t, hidden=hidden, outputs=outputs):
            moved = normalised(point.hidden + t * hidden, point.outputs + t * outputs, 3)
            return written_out(problem, moved, decayed.decay, X, Y)

        slope = (loss(step) - loss(-step)) / (2 * step)
        expected = -2 * ((by_hidden * hidden[:3]).sum() + (by_outputs * outputs).sum())
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-4 * residuals.loss)


def test_step_is_that_of_least_squares_with_rows_for_the_penalty():
    X, Y = samples()
    problem, point = draw(evened(problem_of(X, Y)), 3)
    decayed = Decayed(problem, Decay(5.0, 2.0))
    point, residuals = decayed.reached(point)
    about, coordinates = decayed._about(point), problem.coordinates
    k, q, m = 3, coordinates.to_inputs.shape[1], problem.n_outputs
    sample = problem.sample
    normal = ImplicitNormal(
        sample.inputs, sample.weight, point, coordinates, problem.activation, about, tolerance=1e-12
    )
    step = normal.solve(*gradients(residuals, coordinates), 0.0)

    J = explicit(problem, point, X)
    residual = (Y - problem.network(point).predict(X)).ravel()
    root = np.linalg.cholesky(about.metric + 1e-14 * np.eye(q)).T
    by_hidden = np.zeros((k * q, J.shape[1]))
    for i in range(k):
        block = slice(i * q, (i + 1) * q)
        by_hidden[block, block] = np.sqrt(about.hidden[i]) * root
    values, vectors = np.linalg.eigh(about.outputs)
    root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    by_outputs = np.zeros((m * len(root), J.shape[1]))
    by_outputs[:, k * q :] = np.kron(np.eye(m), root)
    gauge = np.zeros((k, J.shape[1]))
    for i in range(k):
        gauge[i, i * q : (i + 1) * q] = 1e4 * point.hidden[i]
    now = np.concatenate([point.hidden[:k].ravel(), point.outputs.ravel()])
    rows = np.concatenate([J, by_hidden, by_outputs, gauge])
    right = [residual, -by_hidden @ now, -by_outputs @ now, np.zeros(k)]
    expected = np.linalg.lstsq(rows, np.concatenate(right), rcond=None)[0]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(step.hidden.ravel(), expected[: k * q], atol=1e-5 * scale)
    np.testing.assert_allclose(step.outputs.ravel(), expected[k * q :], atol=1e-5 * scale)


def test_path_ends_where_no_unit_offers_more_than_its_decay():
    X, Y = samples(300)
    path = path_to(evened(problem_of(X, Y)), 10.0, SHARES, np.random.default_rng(0))
    for _ in range(40):
        path.lower(SHARES[-1])
    network, alpha = path.problem.network(path.point), path.decay.alpha
    deviations, residual = X.std(axis=0), Y - network.predict(X)

    def offers(b, W):
        """|sum r h| / |w| of rows, over alpha."""
        products = residual.T @ np.maximum(X @ W.T + b, 0)
        return np.linalg.norm(products, axis=0) / np.linalg.norm(W * deviations, axis=1) / alpha

    present = offers(network.hidden_intercept, network.hidden_weights)
    sizes = np.linalg.norm(network.output_weights, axis=0)
    sizes *= np.linalg.norm(network.hidden_weights * deviations, axis=1)
    np.testing.assert_allclose(present[sizes > 0.05 * sizes.max()], 1, atol=0.02)
    rng = np.random.default_rng(3)
    W = rng.standard_normal((4000, X.shape[1])) / deviations
    b = -(X[rng.integers(0, len(X), 4000)] * W).sum(axis=1)
    assert offers(b, W).max() < 1.1
    assert offers(b, W).max() > 0.7  # or nothing was tested


def test_less_decay_fits_more_closely():
    X, Y = samples()
    path = DecayPath(evened(problem_of(X, Y)), 10.0, np.random.default_rng(0))
    losses = [path.problem.residuals(path.point).loss]
    for share in SHARES:
        losses.append(path.problem.residuals(path.lower(share)).loss)
        assert path.n_hidden == len(path.point.hidden) - len(path.problem.fixed)
    assert np.all(np.diff(losses) < 0)
    assert path.n_hidden > 0


def test_units_at_most():
    X, Y = samples()
    even = evened(problem_of(X, Y))
    assert path_to(even, 10.0, SHARES, np.random.default_rng(0), most=2).n_hidden == 2


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("d", [3, 12])
def test_ridge_by_generalised_cross_validation(d, intercept):
    rng = np.random.default_rng(d)
    X = rng.standard_normal((40, d)) * 10.0 ** rng.integers(-2, 3, d)
    X -= 0 if intercept else X.mean(axis=0)
    Y = X / X.std(axis=0) @ rng.standard_normal((d, 2)) + 3 * rng.standard_normal((40, 2))
    ridge = ridge_of(evened(problem_of(X, Y, intercept=intercept)))
    Z = (X - X.mean(axis=0)) / X.std(axis=0) if intercept else X / np.sqrt((X**2).mean(axis=0))
    C = Y - Y.mean(axis=0) if intercept else Y

    def criterion(ridge):
        hat = Z @ np.linalg.solve(Z.T @ Z + ridge * np.eye(d), Z.T)
        left = ((C - hat @ C) ** 2).sum()
        return left / (40 - int(intercept) - 1.4 * np.trace(hat)) ** 2

    tried = [criterion(one) for one in np.concatenate([[0], 40 * np.logspace(-4, 4, 81)])]
    assert criterion(ridge) <= min(tried) * 1.005


@given(power=st.integers(-8, 8), columns=st.integers(-8, 8))
def test_units_of_features_and_outputs_do_not_matter(power, columns):
    X, Y = samples(60)
    factors = np.array([2.0**columns, 1, 1, 2.0**-columns])

    def predictions(X, Y):
        even = evened(problem_of(X, Y))
        path = path_to(even, ridge_of(even), SHARES[:2], np.random.default_rng(0))
        return path.problem.network(path.point).predict(X)

    expected = predictions(X, Y)
    found = predictions(X * factors, Y * 2.0**power) / 2.0**power
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_evened_coordinates_are_others_of_the_same_network():
    X, Y = samples()
    problem, point = draw(problem_of(X, Y), 3)
    even = evened(problem)
    to_inputs, from_inputs, _ = even.coordinates
    np.testing.assert_allclose(from_inputs @ to_inputs, np.eye(5), atol=1e-10)
    network = problem.network(point)
    again = even.network(even.point(network))
    np.testing.assert_allclose(again.predict(X), network.predict(X), rtol=1e-9)
    white = even.projection.white[1:]
    assert np.all(np.mean(white**2, axis=1) < 1)


def test_decay_needs_a_linear_part():
    X, Y = samples()
    with pytest.raises(ValueError, match=r"with_linear\(\)"):
        Decayed(Problem(X, Y, None, 1, Activation(), True), Decay(1.0, 1.0))
