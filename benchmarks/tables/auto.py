"""n_hidden="auto" by regime: right, too many, too few, and wrong without a warning.

python -m benchmarks.tables.auto [number of seeds] [first seed] [regime ...]

A problem is one of 2 to 6 hidden units with n m / p from 10 to 300 observations for each weight.
Units are distinguishable if, in the fit from the truth, each pair of rows of W is three standard
errors apart (their two errors together, over all features) and each column of A is three standard
errors from zero; errors of repeated and of dependent rows count with the effective number of rows.
A wrong count is silent if nothing warns and the loss is more than 0.1 % above that of the fit from
the truth.
"""

import sys
import warnings
from typing import NamedTuple

import numpy as np

import fastsym
from benchmarks.tables.fits import PAPER
from fastsym.datasets import make_network
from fastsym.refine import refine
from fastsym.sources import from_arrays

AUTOCORRELATION = 0.95
REPEATS = 10


class Problem(NamedTuple):
    """Samples, the network without what no network of the kind has, rows for one independent."""

    X: np.ndarray
    Y: np.ndarray
    network: fastsym.TwoLayerNetwork
    dependence: float = 1.0


def noise_free(rng, k, d, m, regime):
    """Draw a network of a regime."""
    seed = int(rng.integers(2**31))
    condition = 10 ** rng.uniform(1, 2.5) if regime == "condition" else 1.0
    network = make_network(d, k, m, hidden_condition=condition, random_state=seed)
    W, A = network.hidden_weights.copy(), network.output_weights.copy()
    if regime == "rank":
        rank = k - 1 if rng.random() < 0.5 else max(k // 2, 1)
        U, S, V = np.linalg.svd(rng.standard_normal((m, k)), full_matrices=False)
        A = U[:, :rank] * S[:rank] @ V[:rank] / S[0]
    if regime == "angles":
        angle = np.deg2rad(rng.uniform(3, 20))
        W /= np.linalg.norm(W, axis=1)[:, None]
        W[1] = np.cos(angle) * W[0] + np.sin(angle) * W[1]
    if regime == "sizes":
        A = A * 10 ** rng.uniform(-3, 0, k)
    return fastsym.TwoLayerNetwork(W, A)


def autoregressive(rng, n, columns):
    """Gaussian rows of unit variance, each AUTOCORRELATION times the one before plus noise."""
    rows = rng.standard_normal((n, columns))
    for i in range(1, n):
        rows[i] *= np.sqrt(1 - AUTOCORRELATION**2)
        rows[i] += AUTOCORRELATION * rows[i - 1]
    return rows


def problem(regime, seed):
    """Draw a problem of a regime."""
    rng = np.random.default_rng((seed, sum(map(ord, regime))))
    k = int(rng.integers(2, 7))
    d, m = (int(size) for size in rng.integers(k, 11, 2))
    if regime == "linear" or rng.random() < 0.7:  # room for too many
        d, m = max(d, k + 3), max(m, k + 3)
    network, level = noise_free(rng, k, d, m, regime), 10 ** rng.uniform(-3, np.log10(0.3))
    dependence = 1.0
    n = int(10 ** rng.uniform(1, 2.5) * k * (d + m - 1) / m) + 1
    X, noise = rng.standard_normal((n, d)), rng.standard_normal((n, m))
    if regime == "dependent":
        dependence = (1 + AUTOCORRELATION**2) / (1 - AUTOCORRELATION**2)
        n = int(n * dependence)
        X, noise = autoregressive(rng, n, d), autoregressive(rng, n, m)
    elif regime == "heteroscedastic":
        noise *= (0.1 + (X**2).sum(axis=1) / d)[:, None]
    elif regime == "t3":
        noise = rng.standard_t(3, (n, m)) / np.sqrt(3)
    elif regime == "outliers":
        noise *= np.where(rng.random(n) < 0.01, 10.0, 1.0)[:, None]
    elif regime == "unequal":
        noise *= 10 ** rng.uniform(-1.5, 0, m)
    Y = network.predict(X) + (0.0 if regime == "noiseless" else level) * noise
    if regime == "linear":
        rank = int(rng.integers(1, 4))
        Y += X @ rng.standard_normal((d, rank)) @ rng.standard_normal((rank, m)) / np.sqrt(9 * d)
    if regime in ("repeated", "tiled"):
        repeat = (
            np.repeat if regime == "repeated" else lambda Z, times, axis: np.tile(Z, (times, 1))
        )
        X, Y, dependence = repeat(X, REPEATS, axis=0), repeat(Y, REPEATS, axis=0), float(REPEATS)
    return Problem(X, Y, network, dependence)


def distinguishable(refinement, dependence):
    """Whether all units of a fit are three standard errors apart, and from nothing."""
    try:
        hidden, output = (error * np.sqrt(dependence) for error in refinement.standard_errors())
    except ValueError:
        return False
    W, A = refinement.network.hidden_weights, refinement.network.output_weights
    errors = np.linalg.norm(hidden, axis=1)
    cosines = np.abs(W @ W.T) - np.eye(len(W))
    apart = np.arccos(np.minimum(cosines, 1)) > 3 * np.hypot(errors[:, None], errors)
    sized = np.linalg.norm(A, axis=0) > 3 * np.linalg.norm(output, axis=0)
    return bool((apart | np.eye(len(W), dtype=bool)).all() and sized.all())


REGIMES = (
    "plain", "noiseless", "rank", "angles", "sizes", "condition", "linear", "repeated", "tiled",
    "dependent", "heteroscedastic", "t3", "outliers", "unequal",
)  # fmt: skip


class Outcome(NamedTuple):
    """Of one fit."""

    found: int
    true: int
    apart: bool
    warned: bool
    high: bool


def outcome(regime, seed):
    """Fit a problem with n_hidden="auto", and from the truth."""
    X, Y, network, dependence = problem(regime, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = refine(from_arrays(X, Y), network, trusted=True, max_starts=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fastsym.TwoLayerRegressor("auto", **PAPER).fit(X, Y)
    high = model.loss_ > 1.001 * truth.loss + 1e-20 * (Y**2).sum() / len(Y)
    apart = distinguishable(truth, dependence)
    return Outcome(model.network_.n_hidden, network.n_hidden, apart, bool(caught), high)


def main(n_seeds=30, first=1000, regimes=REGIMES):
    """Print a line for each regime."""
    print(f"{'regime':16}{'right':>12}{'many':>6}{'few':>6}  {'not apart: right':18}"
          f"{'many':>6}{'few':>6}{'wrong, silent':>15}{'and high':>10}"
          f"{'right, warned':>15}")  # fmt: skip
    for regime in regimes:
        all_of = [outcome(regime, seed) for seed in range(first, first + n_seeds)]
        cells = []
        for apart in (True, False):
            of = [one for one in all_of if one.apart == apart]
            right = sum(one.found == one.true for one in of)
            many = sum(one.found > one.true for one in of)
            cells += [f"{right} of {len(of)}", many, len(of) - right - many]
        silent = [one for one in all_of if one.found != one.true and not one.warned]
        warned = sum(one.warned for one in all_of if one.found == one.true)
        print(f"{regime:16}{cells[0]:>12}{cells[1]:>6}{cells[2]:>6}  {cells[3]:18}{cells[4]:>6}"
              f"{cells[5]:>6}{len(silent):>15}{sum(one.high for one in silent):>10}"
              f"{warned:>15}", flush=True)  # fmt: skip


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    named = [word for word in sys.argv[1:] if not word.isdigit()]
    main(*numbers, regimes=tuple(named) or REGIMES)
