"""Coverage of the nominal 95 % intervals of the weights, robust and classical: prints a table.

python -m benchmarks.tables.coverage [seeds [first_seed]]

Networks of 6 features, 4 hidden units and 5 outputs. Where the model is wrong the target is the
least-squares optimum of 2^19 other samples, and the fits start from it: coverage is a statement of
one optimum.
"""

import sys
import time
import warnings

import numpy as np

import fastsym
from fastsym.metrics import match_neurons
from fastsym.refine import refine
from fastsym.refine.minimisation import minimise
from fastsym.refine.problem import Problem
from fastsym.sources import from_arrays

D, K, M = 6, 4, 5
LARGE = 1 << 19


def gaussian(rng, n):
    return rng.standard_normal((n, D))


def student(rng, n):
    return rng.standard_t(5, (n, D)) * np.sqrt(3 / 5)


def growing(X):
    return 0.3 * (0.1 + (X**2).sum(axis=1, keepdims=True) / D)


def even(X):
    return np.full((len(X), 1), 0.3)


def network_of(seed, intercept=False, k=K):
    """Draw a network, rows (bias, w) of unit length."""
    _, _, plain = fastsym.make_two_layer(8, D, k, M, random_state=seed)
    rng = np.random.default_rng([seed, 7])
    b = 0.3 * rng.standard_normal(k) if intercept else np.zeros(k)
    hidden = np.column_stack([b, plain.hidden_weights])
    hidden /= np.linalg.norm(hidden, axis=1)[:, None]
    if not intercept:
        return fastsym.TwoLayerNetwork(hidden[:, 1:], plain.output_weights)
    return fastsym.TwoLayerNetwork(
        hidden[:, 1:],
        plain.output_weights,
        hidden_intercept=hidden[:, 0],
        output_intercept=rng.standard_normal(M),
    )


def saturating(t):
    return np.tanh(1.5 * np.maximum(t, 0))


def one_more(X):
    return network_of(1000, k=1).predict(X)


def linear(X):
    return 0.3 * X @ np.random.default_rng(1001).standard_normal((D, M))


WRONG = {
    "one unit more": lambda net, X: net.predict(X) + one_more(X),
    "+ linear part": lambda net, X: net.predict(X) + linear(X),
    "tanh units": lambda net, X: saturating(X @ net.hidden_weights.T) @ net.output_weights.T,
}
"""Outputs without noise of what the model cannot describe, given a network."""


class Tally:
    """Shares of the weights within 1.96 standard errors, by part and kind."""

    def __init__(self):
        self.hits = {}

    def add(self, truth, found, refinement):
        order = match_neurons(truth, found).order
        with_intercept = bool(np.any(truth.output_intercept))
        for kind in ("robust", "classical"):
            hidden, output = refinement.standard_errors(kind)
            errors = {
                "W": (found.hidden_weights[order] - truth.hidden_weights,
                      hidden[order, int(with_intercept):]),
                "A": (found.output_weights[:, order] - truth.output_weights, output[:, order]),
            }  # fmt: skip
            if with_intercept:
                errors["b"] = (
                    found.hidden_intercept[order] - truth.hidden_intercept,
                    hidden[order, 0],
                )
                errors["c"] = found.output_intercept - truth.output_intercept, output[:, K]
            for part, (error, stderr) in errors.items():
                inside = (np.abs(error) <= 1.96 * stderr).mean()
                self.hits.setdefault((kind, part), []).append(inside)

    def print(self, name, seconds):
        texts = []
        for kind in ("robust", "classical"):
            parts = [part for one, part in self.hits if one == kind]
            shares = [
                f"{part} {np.mean(hits):.3f}+-{np.std(hits) / np.sqrt(len(hits)):.3f}"
                for part in parts
                for hits in [self.hits[kind, part]]
            ]
            texts.append(f"{kind:9} {' '.join(shares)}")
        print(f"{name:44} {'; '.join(texts)}  ({seconds:.0f} s)", flush=True)


def right(tally, seed, n, inputs, noise, weighting=None, intercept=False, chunk=0):
    """A network that the model describes."""
    net, rng = network_of(seed, intercept), np.random.default_rng([seed, 1])
    X = inputs(rng, n)
    size = noise(X)
    Y = net.predict(X) + size * rng.standard_normal((n, M))
    weights = None if weighting is None else weighting(size[:, 0], rng)
    model = fastsym.TwoLayerRegressor(K, fit_intercept=intercept, linear=False, n_jobs=1)
    if chunk:
        for first in range(0, n, chunk):
            part = slice(first, first + chunk)
            model.partial_fit(X[part], Y[part])
    else:
        model.fit(X, Y, sample_weight=weights)
    tally.add(net, model.network_, model.refinement_)


_TARGETS = {}


def wrong(tally, seed, n, what, noise):
    """A network that the model does not describe."""
    net = network_of(0)
    if what not in _TARGETS:
        X = gaussian(np.random.default_rng(999), LARGE)
        Y = WRONG[what](net, X)
        problem = Problem(X, Y, None, K, net.activation)
        point = problem.point(net)
        fit = minimise(problem, point, tolerance=1e-12, max_evaluations=1000)
        _TARGETS[what] = problem.network(fit.point)
    target, rng = _TARGETS[what], np.random.default_rng([seed, 2])
    X = gaussian(rng, n)
    Y = WRONG[what](net, X) + noise * rng.standard_normal((n, M))
    found = refine(from_arrays(X, Y), target, max_starts=1, n_jobs=1)
    tally.add(target, found.network, found)


def inverse_variance(size, rng):
    return 1 / size**2


def importance(size, rng):
    return rng.exponential(size=len(size))


CASES = {
    "homoscedastic, n = 60": (right, 60, gaussian, even),
    "homoscedastic, n = 200": (right, 200, gaussian, even),
    "homoscedastic, n = 2000": (right, 2000, gaussian, even),
    "homoscedastic, intercepts, n = 2000": (right, 2000, gaussian, even, None, True),
    "noise .1 + |x|^2/d, n = 200": (right, 200, gaussian, growing),
    "noise .1 + |x|^2/d, n = 2000": (right, 2000, gaussian, growing),
    "noise .1 + |x|^2/d, intercepts, n = 2000": (right, 2000, gaussian, growing, None, True),
    "the same, Student t inputs, n = 200": (right, 200, student, growing),
    "the same, Student t inputs, n = 2000": (right, 2000, student, growing),
    "inverse-variance weights, n = 200": (right, 200, gaussian, growing, inverse_variance),
    "inverse-variance weights, n = 2000": (right, 2000, gaussian, growing, inverse_variance),
    "the same times 100, n = 2000": (
        right, 2000, gaussian, growing, lambda size, rng: 100 / size**2),
    "inverse-variance, Student t, n = 2000": (right, 2000, student, growing, inverse_variance),
    "exponential weights, n = 2000": (right, 2000, gaussian, even, importance),
    "exponential weights, noise grows, n = 2000": (right, 2000, gaussian, growing, importance),
    "one unit more, n = 2000": (wrong, 2000, "one unit more", 0.3),
    "one unit more, n = 20 000": (wrong, 20_000, "one unit more", 0.3),
    "+ linear part, n = 2000": (wrong, 2000, "+ linear part", 0.3),
    "+ linear part, n = 20 000": (wrong, 20_000, "+ linear part", 0.3),
    "tanh units, n = 2000": (wrong, 2000, "tanh units", 0.3),
    "tanh units, n = 20 000": (wrong, 20_000, "tanh units", 0.3),
    "noise .1 + |x|^2/d, n = 60 000": (right, 60_000, gaussian, growing),
    "stream, noise .1 + |x|^2/d, n = 60 000": (
        right, 60_000, gaussian, growing, None, False, 5000),
    "stream, homoscedastic, n = 60 000": (right, 60_000, gaussian, even, None, False, 5000),
}  # fmt: skip


def main(seeds=100, first=500, *names):
    warnings.simplefilter("ignore")
    for name, (run, *arguments) in CASES.items():
        if names and not any(part in name for part in names):
            continue
        tally, start = Tally(), time.perf_counter()
        for seed in range(int(first), int(first) + int(seeds)):
            run(tally, seed, *arguments)
        tally.print(name, time.perf_counter() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
