"""Whether what a fit says of itself is true: prints tables.

python -m benchmarks.tables.truth [TABLE ...] [--problems N] [--seed S]

A certificate is false where `converged_` is True and the loss is above that of the optimum near the
true network by more than 0.1 % and more than 0.1 unit (the loss that the p weights explain by
chance, p / (n m)); without noise, where another network was found. It is silent if nothing was
warned of besides, and a false alarm is an optimum (within the same) that is not certified.
"""

import argparse
import time
import warnings
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

import fastsym
from fastsym.datasets import DISTRIBUTIONS
from fastsym.refine import refine
from fastsym.sources import from_arrays

REGIMES = (
    "plain",
    "angles",
    "condition",
    "sizes",
    "rank-deficient A",
    "scales",
    "outliers",
    "shifts",
)
RATIOS = (1.2, 3, 10, 100, 1000)


class Problem(NamedTuple):
    """Samples, the network that made them, and how."""

    X: np.ndarray
    Y: np.ndarray
    truth: fastsym.TwoLayerNetwork
    noise: float
    regime: str
    ratio: float


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def weights_of(rng, d, k, m, regime):
    """Weights of a regime: what makes units hard to tell apart."""
    W, A = unit_rows(rng.standard_normal((k, d))), rng.standard_normal((m, k))
    if regime == "angles" and k > 1:
        angle = np.radians(np.exp(rng.uniform(np.log(0.3), np.log(20))))
        turned = rng.standard_normal(d)
        turned -= W[0] * (W[0] @ turned)
        W[1] = np.cos(angle) * W[0] + np.sin(angle) * turned / max(np.linalg.norm(turned), 1e-9)
    if regime == "condition":
        condition = np.exp(rng.uniform(0, np.log(1e4)))
        U, _, V = np.linalg.svd(W, full_matrices=False)
        W = unit_rows(U * np.geomspace(1, 1 / condition, len(U[0])) @ V)
    if regime == "sizes":
        A *= np.exp(rng.uniform(np.log(1e-4), 0, k))
    if regime == "rank-deficient A" and k > 1:
        rank = rng.integers(1, k)
        A = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, k))
    return W, A


def draw(seed, number):
    """Draw problem `number` of a seed."""
    rng = np.random.default_rng([seed, number])
    regime = REGIMES[number % len(REGIMES)]
    d, m = rng.integers(1, 13), rng.integers(1, 11)
    k = rng.integers(1, min(d, m, 8) + 1)
    W, A = weights_of(rng, d, k, m, regime)
    p = k * (d + m - 1)
    ratio = np.exp(rng.uniform(np.log(1.2), np.log(1000)))
    n = int(np.clip(np.ceil(ratio * p / m), d + 1, 30_000))
    X = DISTRIBUTIONS[rng.choice(sorted(DISTRIBUTIONS))](rng, n, d)
    noise = float(rng.choice([0, 0.01, 0.03, 0.1, 0.3, 1]))
    if regime == "shifts":
        X = X + rng.standard_normal(d) * rng.choice([0.1, 0.5, 2])
    truth = fastsym.TwoLayerNetwork(W, A)
    clean = truth.predict(X)
    Y = clean + noise * rng.standard_normal((n, m)) * np.sqrt((clean**2).mean())
    if regime == "outliers":
        rows = rng.random(n) < 0.01
        Y[rows] += 10 * rng.standard_normal((rows.sum(), m)) * np.sqrt((clean**2).mean())
        noise = noise or 0.1 * rows.any()
    if regime == "scales":
        scale = np.exp(rng.uniform(np.log(1e-6), np.log(1e6), d))
        X, truth = X * scale, fastsym.TwoLayerNetwork(W / scale, A)
    return Problem(X, Y, truth, float(noise), regime, n * m / p)


class Verdict(NamedTuple):
    """What became of a problem."""

    kind: str  # "false", "false alarm", "right", or "open": not the optimum, and not claimed
    silent: bool
    excess: float
    units: float
    certificate: str
    seconds: float


def judge(problem, max_starts=None):
    """Fit a problem and compare with the optimum near the truth."""
    X, Y, truth, noise, _, _ = problem
    n, m = Y.shape
    k, d = truth.hidden_weights.shape
    unit = k * (d + m - 1) / (n * m)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        model = fastsym.TwoLayerRegressor(k).fit(X, Y)
        seconds = time.perf_counter() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = refine(from_arrays(X, Y), truth, max_starts=1)
    loss, lowest = model.loss_, best.loss
    level = 1e-20 * (Y**2).sum(axis=1).mean()
    excess = loss / lowest - 1 if lowest > level else (0.0 if loss <= level else np.inf)
    optimal = excess <= max(1e-3, 0.1 * unit)
    if not noise and optimal:
        error = sum(fastsym.parameter_error(truth, model.network_))
        optimal = error < 1e-3
    if model.converged_:
        kind = "right" if optimal else "false"
    else:
        kind = "false alarm" if optimal else "open"
    return Verdict(kind, not caught, excess, excess / unit, model.refinement_.certificate, seconds)


def certificates(problems, seed):
    """Rates of false, silent and false-alarm certificates by regime and n m / p."""
    table, by_certificate = defaultdict(Counter), defaultdict(Counter)
    worst, refused = [], []
    spent = 0.0
    for number in range(problems):
        problem = draw(seed, number)
        try:
            verdict = judge(problem)
        except ValueError as error:
            refused.append(f"  refused {number}: {problem.regime}, n = {len(problem.X)}: {error}")
            continue
        spent += verdict.seconds
        low = max(r for r in RATIOS if r <= max(problem.ratio, 1.2))
        for key in (
            problem.regime,
            f"n m / p from {low:g}",
            "all",
            *["n m / p >= 10"] * (low >= 10),
        ):
            table[key]["n"] += 1
            table[key][verdict.kind] += 1
            table[key]["silent"] += verdict.kind == "false" and verdict.silent
        by_certificate[verdict.certificate][verdict.kind] += 1
        if verdict.kind == "false" or (verdict.kind == "false alarm" and low >= 10):
            worst.append((number, problem, verdict))
    for key, row in table.items():
        at_optimum = row["right"] + row["false alarm"]
        share = row["false alarm"] / max(at_optimum, 1)
        print(
            f"{key:18} {row['n']:5} problems: false {row['false']:3} ({row['false'] / row['n']:.1%}"
            f"), silent {row['silent']}; false alarms {row['false alarm']:3} of {at_optimum} at "
            f"the optimum ({share:.1%}); not found, not claimed {row['open']}"
        )
    for name, row in by_certificate.items():
        print(f"certificate {name!r}: {dict(row)}")
    for number, problem, verdict in worst:
        (k, d), m = problem.truth.hidden_weights.shape, problem.Y.shape[1]
        sizes = len(problem.X), d, k, m
        silent = ", silent" if verdict.silent else ""
        print(
            f"  {verdict.kind} {number}: {problem.regime}, (n, d, k, m) = {sizes}, noise "
            f"{problem.noise:g}, n m / p {problem.ratio:.1f}: {verdict.certificate}, loss above by "
            f"{verdict.excess:.2g}, {verdict.units:.2g} units{silent}"
        )
    print("\n".join(refused))
    print(f"{spent:.1f} s in fits")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="*", default=["certificates"])
    parser.add_argument("--problems", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.tables:
        globals()[name](arguments.problems, arguments.seed)


if __name__ == "__main__":
    main()
