"""Steps and covariances against explicit Jacobians."""

import numpy as np
import pytest

from fastsym import TwoLayerNetwork, make_two_layer, parameter_error
from fastsym.activation import Activation
from fastsym.refine.implicit import ImplicitNormal
from fastsym.refine.normal import DenseNormal, ScaledNormal
from fastsym.refine.problem import Problem

from .. import naive


def make(
    n=400, d=5, k=3, m=4, slope=0.0, fit_intercept=False, seed=0, noise=0.3, linear=False, shift=0.0
):
    X, Y, network = make_two_layer(n, d, k, m, noise=noise, random_state=seed)
    X = X + shift
    problem = Problem(X, Y, None, k, Activation(slope), fit_intercept).with_linear(linear)
    rng = np.random.default_rng(seed)
    point = problem.point(network)
    k_free = problem.coordinates.n_free
    hidden = point.hidden.copy()
    hidden[:k_free] += 0.1 * rng.standard_normal(hidden[:k_free].shape)
    hidden[:k_free] /= np.linalg.norm(hidden[:k_free], axis=1, keepdims=True)
    return X, Y, problem, point._replace(hidden=hidden)


def explicit(problem, point, X):
    """Jacobian in white coordinates of the units that may turn, and of the outputs."""
    coordinates = problem.coordinates
    weights = coordinates.weights(point)
    slope = problem.activation.negative_slope
    J = naive.jacobian(X, weights, point.outputs, slope, coordinates.n_free)
    n_units, n_inputs = weights.shape
    k, q = coordinates.n_free, coordinates.to_inputs.shape[1]
    by_hidden = J[:, : n_units * n_inputs].reshape(len(J), n_units, n_inputs)[:, :k]
    by_hidden = (by_hidden @ coordinates.to_inputs).reshape(len(J), k * q)
    return np.concatenate([by_hidden, J[:, n_units * n_inputs :]], axis=1)


@pytest.mark.parametrize("slope", [0.0, 0.25])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("kind", [DenseNormal, ImplicitNormal])
def test_step_is_the_least_squares_step(slope, fit_intercept, linear, kind):
    shift = np.arange(5) / 10 if fit_intercept else 0
    X, Y, problem, point = make(
        slope=slope, fit_intercept=fit_intercept, linear=linear, shift=shift
    )
    coordinates = problem.coordinates
    k, q = coordinates.n_free, coordinates.to_inputs.shape[1]
    weights = coordinates.weights(point)
    if kind is DenseNormal:
        normal = problem.normal(point)
    else:
        sample = problem.sample
        how = coordinates, problem.activation
        normal = ImplicitNormal(sample.inputs, sample.weight, point, *how)
    sums = problem.residuals(point)
    gradient = sums.hidden_gradient[:k] @ coordinates.to_inputs
    step = normal.solve(gradient, sums.output_gradient, 0.0)

    J = explicit(problem, point, X)
    _, _, h, _ = naive.activations(X, weights, slope, n_free=k)
    r = (Y - h @ point.outputs.T).ravel()
    # Steps that leave the length of each unit's row, which A could undo.
    gauge = np.zeros((k, J.shape[1]))
    for i in range(k):
        gauge[i, i * q : (i + 1) * q] = point.hidden[i]
    expected = np.linalg.lstsq(
        np.concatenate([J, 1e3 * gauge]), np.concatenate([r, np.zeros(k)]), rcond=None
    )[0]
    tight = 1e-9 if kind is DenseNormal else 1e-4  # conjugate gradients stop at 1e-6 of the start
    scale = np.abs(expected).max()
    np.testing.assert_allclose(step.hidden.ravel(), expected[: k * q], atol=tight * scale)
    np.testing.assert_allclose(step.outputs.ravel(), expected[k * q :], atol=tight * scale)
    decrease = r @ r - ((r - J @ expected) ** 2).sum()
    np.testing.assert_allclose(step.predicted, decrease, rtol=10 * tight)
    half = ScaledNormal(normal, 2.0).solve(gradient, sums.output_gradient, 0.0)
    np.testing.assert_allclose(half.hidden, step.hidden / 2)
    np.testing.assert_allclose(half.predicted, step.predicted / 2)


@pytest.mark.parametrize("unequal", [False, True])
def test_covariance_is_that_of_least_squares(unequal):
    X, _, problem, point = make()
    coordinates = problem.coordinates
    k, q, m = coordinates.n_free, coordinates.to_inputs.shape[1], problem.n_outputs
    noise = np.diag([0.1, 0.4, 1.0, 2.0]) if unequal else 0.3 * np.eye(m)
    normal = problem.normal(point)
    J = explicit(problem, point, X)
    # A basis of the steps that keep the length of the rows.
    blocks = [np.linalg.svd(point.hidden[i : i + 1])[2][1:].T for i in range(k)]
    tangent = np.zeros((J.shape[1], k * (q - 1) + m * k))
    for i, block in enumerate(blocks):
        tangent[i * q : (i + 1) * q, i * (q - 1) : (i + 1) * (q - 1)] = block
    tangent[k * q :, k * (q - 1) :] = np.eye(m * k)
    J = J @ tangent
    bread = np.linalg.inv(J.T @ J)
    rows = J.reshape(len(X), m, -1)
    meat = np.einsum("nop,oq,nqr->pr", rows, noise, rows, optimize=True)
    expected = (tangent @ bread @ meat @ bread @ tangent.T)[: k * q, : k * q]
    got = normal.covariance(noise)
    np.testing.assert_allclose(got, expected, atol=1e-9 * np.abs(expected).max())


def test_damping_shortens_the_step():
    _, _, problem, point = make()
    normal, sums = problem.normal(point), problem.residuals(point)
    gradient = sums.hidden_gradient @ problem.coordinates.to_inputs
    lengths = [
        np.linalg.norm(normal.solve(gradient, sums.output_gradient, damping).hidden)
        for damping in (0.0, 1.0, 10.0)
    ]
    assert lengths[0] > lengths[1] > lengths[2] > 0


def test_minimum_without_noise_is_exact():
    X, Y, network = make_two_layer(500, 6, 4, 5, random_state=0)
    problem = Problem(X, Y, None, 4, Activation())
    point = problem.point(network)
    rng = np.random.default_rng(0)
    start = point._replace(hidden=point.hidden + 0.2 * rng.standard_normal(point.hidden.shape))
    fit = problem.fit(start)
    assert fit.exact
    assert fit.converged
    assert max(parameter_error(network, problem.network(fit.point))) < 1e-25
    losses = [one.loss for one in fit.history if one.accepted]
    assert losses == sorted(losses, reverse=True)
    assert fit.history[0].decrement > 0.5


def test_units_of_the_features_do_not_matter():
    X, Y, network = make_two_layer(3000, 5, 3, 4, noise=0.1, random_state=0)
    mixing = np.random.default_rng(0).standard_normal((5, 5)) @ np.diag([1e-4, 1, 1e3, 10, 1e-2])
    plain = Problem(X, Y, None, 3, Activation())
    mixed = Problem(X @ mixing, Y, None, 3, Activation())
    one = plain.fit(plain.point(network))
    turned = TwoLayerNetwork(
        np.linalg.solve(mixing, network.hidden_weights.T).T, network.output_weights
    )
    two = mixed.fit(mixed.point(turned))
    np.testing.assert_allclose(one.residuals.loss, two.residuals.loss, rtol=1e-6)
