"""Whether what a fit says of itself is true: prints tables.

python -m benchmarks.tables.truth [TABLE ...] [--problems N] [--seed S]

All tables without a name, those of `streams`, `coverage`, `auto` and `scales` too, which are
modules of their own and take some minutes each.

A certificate is false where `converged_` is True and the loss is above that of the optimum near the
true network by more than 0.1 % and more than 0.1 unit (the loss that the p weights explain by
chance, p / (n m)); without noise, where another network was found. It is silent if nothing was
warned of besides, and a false alarm is an optimum (within the same) that is not certified.
"""

import argparse
import subprocess
import sys
import time
import warnings
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

import fastsym
from benchmarks.tables.fits import PAPER
from fastsym.activation import Activation
from fastsym.datasets import DISTRIBUTIONS
from fastsym.refine import refine
from fastsym.refine.lack_of_fit import lack_of_fit
from fastsym.refine.problem import Problem as LeastSquares
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
        model = fastsym.TwoLayerRegressor(k, **PAPER).fit(X, Y)
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


MISSPECIFIED = ("units", "biases", "tanh", "layers", "linear", "constant", "square")


def misspecify(rng, kind):
    """Draw data that no network of the fitted kind made, and the number of units to fit."""
    d, m = rng.integers(4, 11), rng.integers(3, 9)
    k = int(rng.integers(2, min(d, m)))
    n = int(np.exp(rng.uniform(np.log(300), np.log(5000))))
    X = DISTRIBUTIONS[rng.choice(sorted(DISTRIBUTIONS))](rng, n, d)
    W, A = weights_of(rng, d, k, m, "plain")
    t = X @ W.T
    Y = np.maximum(t, 0) @ A.T
    size = np.sqrt((Y**2).mean())
    if kind == "units":
        extra = rng.standard_normal((int(rng.integers(1, 4)), d))
        Y += np.maximum(X @ unit_rows(extra).T, 0) @ rng.standard_normal((len(extra), m))
    if kind == "biases":
        Y = np.maximum(t + rng.uniform(0.3, 1, k) * rng.choice([-1, 1], k), 0) @ A.T
    if kind == "tanh":
        Y = np.tanh(2 * t) @ A.T
    if kind == "layers":
        inner = unit_rows(rng.standard_normal((2 * k, d)))
        Y = np.maximum(np.maximum(X @ inner.T - 0.5, 0) @ rng.standard_normal((2 * k, k)), 0) @ A.T
    if kind == "linear":
        Y += 0.5 * size * X @ rng.standard_normal((d, m)) / np.sqrt(d)
    if kind == "constant":
        Y += 0.5 * size * rng.standard_normal(m)
    if kind == "square":
        Y += (
            0.3
            * size
            * np.outer((X @ unit_rows(rng.standard_normal((1, d)))[0]) ** 2, rng.standard_normal(m))
        )
    noise = float(rng.choice([0.03, 0.1, 0.3]))
    return X, Y + noise * np.sqrt((Y**2).mean()) * rng.standard_normal(Y.shape), k


def misspecified(problems, seed):
    """Data that the model does not describe: certified, warned of; and problems that it does."""
    table = defaultdict(Counter)
    for number in range(problems):
        rng = np.random.default_rng([seed, number, 1])
        kind = (*MISSPECIFIED, "none of these")[number % 8]
        X, Y, k = misspecify(rng, kind)
        if not Y.std() > 0:  # layers of which nothing comes through
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = fastsym.TwoLayerRegressor(k, **PAPER).fit(X, Y).refinement_
        lack = result.lack_of_fit
        told = {one.category.__name__ for one in caught}
        row = table[kind]
        row["n"] += 1
        row["certified"] += result.converged
        row["misfit >= 5"] += lack.misfit >= 5
        row["silent, misfit >= 5"] += lack.misfit >= 5 and not told
        row["p < 0.05"] += lack.p_value < 0.05
        row["LackOfFitWarning"] += "LackOfFitWarning" in told
        row["any warning"] += bool(told)
        row["cause " + lack.cause] += lack.significant
    for kind, row in table.items():
        print(f"{kind:14} " + ", ".join(f"{name} {count}" for name, count in row.items() if count))


def samples_of(rng, n, d, k, m, distribution, noise):
    """Samples of a plain network with noise of a kind, 0.3 in size."""
    W, A = weights_of(rng, d, k, m, "plain")
    X = DISTRIBUTIONS[distribution](rng, n, d)
    E = rng.standard_normal((n, m))
    if noise == "heteroscedastic":
        E *= 0.1 + (X**2).sum(axis=1, keepdims=True) / d
    if noise == "t3":
        E = rng.standard_t(3, (n, m))
    truth = fastsym.TwoLayerNetwork(W, A)
    return X, truth.predict(X) + 0.3 * E, truth


def tested(X, Y, truth):
    """The lack of fit at the optimum near the truth."""
    problem = LeastSquares(X, Y, None, truth.n_hidden, Activation(0.0))
    fit = problem.fit(problem.point(truth))
    return problem, lack_of_fit(problem, fit.point, fit.normal)


def level(problems, seed):
    """Share of p-values below 0.05 where the model is right: 0.05 is nominal."""
    for ratio in (3, 10, 100):
        for distribution in ("gaussian", "laplace", "rademacher"):
            for noise in ("homoscedastic", "heteroscedastic", "t3"):
                values = []
                for number in range(problems):
                    rng = np.random.default_rng([seed, number, 2])
                    d, k, m = ((6, 3, 4), (10, 8, 8), (5, 1, 1))[number % 3]
                    n = max(d + 2, int(np.ceil(ratio * k * (d + m - 1) / m)))
                    X, Y, truth = samples_of(rng, n, d, k, m, distribution, noise)
                    values.append(tested(X, Y, truth)[1].p_value)
                values = np.array(values)
                print(
                    f"n m / p {ratio:3}, {distribution:10} {noise:15}: p < 0.05 in "
                    f"{(values < 0.05).mean():.3f}, < 0.002 in {(values < 0.002).mean():.4f} of "
                    f"{problems}"
                )


def power(problems, seed):
    """Share of p-values below 0.05 by excess loss in units, for one missing unit of any size."""
    for ratio in (10, 100, 1000):
        for units in (0.3, 1, 3, 10):
            hits, detectable = [], []
            for number in range(problems):
                rng = np.random.default_rng([seed, number, 3])
                d, k, m = ((6, 3, 4), (10, 8, 8))[number % 2]
                n = int(np.ceil(ratio * k * (d + m - 1) / m))
                X, Y, truth = samples_of(rng, n, d, k, m, "gaussian", "homoscedastic")
                bend = np.abs(X @ unit_rows(rng.standard_normal((1, d)))[0])
                bend = np.outer(bend - bend.mean(), rng.standard_normal(m))
                bend *= np.sqrt(units * k * (d + m - 1) * 0.09 / (bend**2).sum())
                problem, found = tested(X, Y + bend, truth)
                hits.append(found.p_value < 0.05)
                detectable.append(found.detectable / problem.unit)
            print(
                f"n m / p {ratio:4}: a bend of {units:4} units is noticed in {np.mean(hits):.2f} "
                f"of {problems} (`detectable` is {np.median(detectable):.2f} units in bends)"
            )


def told(X, Y, k, **how):
    """Fit and return the model, and the names of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fastsym.TwoLayerRegressor(k, **PAPER).fit(X, Y, **how)
    return model, sorted({one.category.__name__ for one in caught})


def few(n, d, k, m, distribution, seeds, seed):
    """Noiseless fits of few samples: certified, exact by the truth, false, silent."""
    row = Counter()
    for number in range(seeds):
        rng = np.random.default_rng([seed, number, 4])
        W, A = weights_of(rng, d, k, m, "plain")
        X = DISTRIBUTIONS[distribution](rng, n, d)
        truth = fastsym.TwoLayerNetwork(W, A)
        try:
            model, warned = told(X, truth.predict(X), k)
        except ValueError:
            row["refused"] += 1
            continue
        right = sum(fastsym.parameter_error(truth, model.network_)) < 1e-3
        row["right"] += right
        row["certified"] += model.converged_
        row["false"] += model.converged_ and not right
        row["silent"] += model.converged_ and not right and not warned
        row["right, not certified"] += right and not model.converged_
    print(f"(n, d, k, m) = ({n}, {d}, {k}, {m}), {distribution}: of {seeds} {dict(row)}")


def quoted(problems, seed):
    """The fits that once were confident and wrong."""
    few(48, 33, 1, 1, "sphere", problems, seed)
    few(12, 10, 2, 3, "rademacher", problems, seed)
    few(19, 10, 1, 1, "gaussian_mixture", problems, seed)
    for n in (20, 24, 28, 32, 50, 100):
        few(n, 10, 10, 10, "gaussian", max(problems // 3, 1), seed)
    rng = np.random.default_rng([seed, 5])
    X = rng.standard_normal((3000, 8))
    Y = X @ rng.standard_normal((8, 6)) + 0.3 * rng.standard_normal((3000, 6))
    model, warned = told(X, Y, 4)
    result = model.refinement_
    print(
        f"linear data: R2 {result.r2:.3f}, against a linear predictor {result.r2_linear:.3f}, p "
        f"{result.lack_of_fit.p_value:.1g}, cause {result.lack_of_fit.cause}, converged_ "
        f"{model.converged_}, warnings {warned}"
    )
    X, Y, _ = fastsym.make_two_layer(5000, 8, 4, 6, noise=0.3, random_state=seed)
    for factor in (0.01, 1, 100):
        model, warned = told(X, Y, "auto", sample_weight=np.full(5000, factor))
        errors = np.median(model.hidden_stderr_)
        print(f"weights {factor}: auto {model.network_.n_hidden}, median error {errors:.5f}")


TABLES = (certificates, misspecified, level, power, quoted)
OTHERS = ("streams", "coverage", "auto", "scales")  # modules of their own


def main():
    tables = {table.__name__: table for table in TABLES}
    names = (*tables, *OTHERS)
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(names)}; all if none is named")
    parser.add_argument("--problems", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.tables or names:
        if name not in names:
            parser.error(f"no table {name!r}, only {', '.join(names)}")
        print(f"== {name}", flush=True)
        if name in tables:
            tables[name](arguments.problems, arguments.seed)
        else:
            subprocess.run([sys.executable, "-m", f"benchmarks.tables.{name}"], check=True)


if __name__ == "__main__":
    main()
