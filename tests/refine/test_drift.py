"""Whether a change of the network is seen, and nothing else taken for one."""

import numpy as np
import pytest

from fastsym import make_two_layer
from fastsym.activation import Activation
from fastsym.refine.drift import change_of, row_residuals
from fastsym.refine.problem import Problem

N, D, K, M = 6000, 4, 2, 3


def values(network, X):
    return np.maximum(X @ network.hidden_weights.T, 0) @ network.output_weights.T


def found(X, Y, network):
    problem = Problem(X, Y, None, K, Activation())
    fit = problem.fit(problem.point(network))
    return change_of(problem, fit), problem, fit


def drawn(seed, noise=0.3):
    X, Y, network = make_two_layer(N, D, K, M, random_state=seed)
    return X, Y + noise * np.random.default_rng([seed, 1]).standard_normal((N, M)), network


CONSTANT = {
    "iid": lambda X, t: (X, np.ones(N)),
    "noise grows": lambda X, t: (X, 4 * t),
    "noise at the end alone": lambda X, t: (X, (t > 0.75) * 1.0),
    "inputs grow": lambda X, t: (X * 10 ** (2 * t - 1)[:, None], np.ones(N)),
    "a feature is dead at first": lambda X, t: (
        X * np.where((t < 0.4)[:, None], [0, 1, 1, 1], 1),
        np.ones(N),
    ),
    "sorted": lambda X, t: (X[np.argsort(X[:, 0])], np.ones(N)),
    "noise by the inputs": lambda X, t: (X, (X**2).sum(axis=1) / D),
}


@pytest.mark.parametrize("kind", CONSTANT)
def test_level(kind):
    """At most one alarm of twenty, though the limit is far out."""
    alarms = 0
    for seed in range(20):
        X, _, network = drawn(seed)
        X, noise = CONSTANT[kind](X, np.arange(N) / N)
        rng = np.random.default_rng([seed, 2])
        Y = values(network, X) + 0.3 * noise[:, None] * rng.standard_normal((N, M))
        alarms += found(X, Y, network)[0] is not None
    assert alarms <= 1


@pytest.mark.parametrize("place", [0.25, 0.5, 0.8])
def test_a_change_is_seen(place):
    for seed in range(5):
        X, Y, network = drawn(seed)
        other = make_two_layer(10, D, K, M, random_state=seed + 100)[2]
        late = np.arange(N) >= place * N
        Y[late] += 0.3 * values(other, X[late])
        change, problem, fit = found(X, Y, network)
        assert change is not None
        assert abs(change.row / N - place) <= 0.26
        squares = (row_residuals(problem, fit.point) ** 2).sum(axis=1)
        means = squares[: change.row].mean(), squares[change.row :].mean()
        np.testing.assert_allclose(change.losses, means)


def test_promised_is_what_two_fits_give():
    X, Y, network = drawn(0)
    other = make_two_layer(10, D, K, M, random_state=100)[2]
    Y[N // 2 :] += 0.3 * values(other, X[N // 2 :])
    change, _, fit = found(X, Y, network)
    assert change.row == N // 2
    halves = [found(X[part], Y[part], network)[2] for part in (slice(N // 2), slice(N // 2, N))]
    decrease = 1 - sum(half.residuals.loss for half in halves) / fit.residuals.loss
    np.testing.assert_allclose(change.promised, decrease, rtol=0.2)


def test_nothing_is_said_of_exact_fits():
    X, Y, network = make_two_layer(N, D, K, M, random_state=0)
    assert found(X, Y, network)[0] is None
