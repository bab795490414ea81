"""Figures of the refinement. The results are printed.

python -m benchmarks.tables.refinement [exact] [noise] [grid] [time] [wide] [sizes] [passes]
    [stream] [coverage] [tails]

`grid` and `time` need the peers: pip install ".[peers]".
"""

import sys
import time
import warnings

import numpy as np

import fastsym
from fastsym.datasets import DISTRIBUTIONS
from fastsym.metrics import output_error
from fastsym.refine import refine
from fastsym.sources import from_arrays


def fitted(X, Y, k, **how):
    """Refined model; warnings are part of the answer and looked at through `converged_`."""
    return fastsym.TwoLayerRegressor(k, **how).fit(X, Y)


def from_truth(X, Y, network):
    """The same optimizer started at the truth."""
    return refine(from_arrays(X, Y), network, trusted=True, max_starts=1)


def total_error(network, estimate):
    return sum(fastsym.parameter_error(network, estimate))


def exact():
    """Noiseless recovery: relative output error on the samples, and both parameter errors."""
    for name in DISTRIBUTIONS:
        worst = []
        for seed in range(5):
            X, Y, network = fastsym.make_two_layer(
                2000, 10, 10, 10, distribution=name, random_state=seed
            )
            model = fitted(X, Y, 10)
            error = fastsym.parameter_error(network, model.network_)
            worst.append((output_error(Y, model.predict(X)), *error[:2]))
        print(f"d=k=m=10, n=2000, {name:17} largest of five seeds: output %.1e, W %.1e, A %.1e"
              % tuple(np.max(worst, axis=0)))  # fmt: skip
    for k, n, seeds in ((10, 120, 20), (10, 80, 20), (32, 600, 10)):
        errors, times = [], []
        for seed in range(seeds):
            X, Y, network = fastsym.make_two_layer(n, k, k, k, random_state=seed)
            start = time.perf_counter()
            model = fitted(X, Y, k)
            times.append(time.perf_counter() - start)
            errors.append(max(fastsym.parameter_error(network, model.network_)))
        solved = sum(e <= 1e-20 for e in errors)
        print(f"d=k=m={k}, n={n}, gaussian: exact in {solved} of {seeds}, "
              f"median {np.median(times):.2g} s a fit")  # fmt: skip


def noise():
    """Loss and error over those of the same optimizer started at the truth, 20 seeds."""
    for name in ("gaussian", "gaussian_mixture", "rademacher"):
        for level, sizes in ((0.1, (300, 1000, 3000, 30_000)), (0.5, (1000, 3000, 30_000))):
            for n in sizes:
                losses, errors, certified = [], [], 0
                for seed in range(20):
                    X, Y, network = fastsym.make_two_layer(
                        n, 10, 10, 10, distribution=name, noise=level, random_state=seed
                    )
                    model, truth = fitted(X, Y, 10), from_truth(X, Y, network)
                    losses.append(model.loss_ / truth.loss)
                    errors.append(
                        total_error(network, model.network_) / total_error(network, truth.network)
                    )
                    certified += model.converged_
                print(
                    f"{name:17} noise {level} n={n:5}: loss ratio median {np.median(losses):.5f} "
                    f"largest {max(losses):.5f}; error ratio median {np.median(errors):.3f} "
                    f"largest {max(errors):.3f}; certified {certified} of 20",
                    flush=True,
                )


CONDITIONS = ((1, 1), (30, 1), (1, 30), (100, 1), (1, 100), (10, 10))
GRID = ("gaussian", "gaussian_mixture", "rademacher", "laplace", "student_t")


def grid(peers=True):
    """150 noiseless problems, n = 10 000: solved counts at 1e-20 and 1e-6, and times."""
    from benchmarks.tables import peers as others

    def relu(W, A, X):
        return np.maximum(X @ W.T, 0) @ A.T

    methods = {
        "torch Adam": lambda X, Y: relu(*others.adam(X, Y, 10), X),
        "torch L-BFGS": lambda X, Y: relu(*others.lbfgs(X, Y, 10), X),
        "MLPRegressor": lambda X, Y: others.mlp(X, Y, 10).predict(X),
        "torch-levenberg-marquardt": lambda X, Y: relu(
            *others.torch_lm(X, Y, 10, loss_wanted=1e-22 * float((Y**2).sum() / len(Y))), X
        ),
        "fastsym LM, random start": lambda X, Y: relu(*others.own_random(X, Y, 10), X),
    }
    errors = {name: {} for name in ("fastsym", "fastsym, first start", *methods)}
    times = {name: [] for name in errors}
    for condition in CONDITIONS:
        for name in errors:
            errors[name][condition] = []
        for distribution in GRID:
            for seed in range(5):
                X, Y, _ = fastsym.make_two_layer(
                    10_000, 10, 10, 10, distribution=distribution, random_state=seed,
                    hidden_condition=condition[0], output_condition=condition[1],
                )  # fmt: skip
                start = time.perf_counter()
                model = fitted(X, Y, 10)
                times["fastsym"].append(time.perf_counter() - start)
                errors["fastsym"][condition].append(output_error(Y, model.predict(X)))
                first = model.refinement_.start_losses[0] * len(Y) / (Y**2).sum()
                errors["fastsym, first start"][condition].append(first)
                for name, method in methods.items():
                    start = time.perf_counter()
                    error = output_error(Y, method(X, Y))
                    times[name].append(time.perf_counter() - start)
                    errors[name][condition].append(error)
        for name in errors:
            got = np.array(errors[name][condition])
            print(f"condition {condition!s:9} {name:26} 1e-20: {(got <= 1e-20).sum():2} of 25, "
                  f"1e-6: {(got <= 1e-6).sum():2} of 25", flush=True)  # fmt: skip
    for name, by_condition in errors.items():
        got = np.concatenate(list(by_condition.values()))
        spent = times[name] or [0.0]
        print(f"all 150   {name:26} 1e-20: {(got <= 1e-20).sum():3}, 1e-6: "
              f"{(got <= 1e-6).sum():3}; seconds median {np.median(spent):.3g}, largest "
              f"{max(spent):.3g}")  # fmt: skip


def shortest(function, repeats):
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def timing():
    """Time to the optimum at noise 0.1.

    A peer is stopped as soon as its loss is above ours by no more than what fastsym's own passes
    leave (5e-3 of what the weights explain by chance); its median start of three counts. L-BFGS
    also until it stops by itself, with the tolerances that PyTorch sets (2000 iterations at most).
    """
    from benchmarks.tables import peers as others

    def loss(weights, X, Y):
        W, A = weights
        return float(((Y - np.maximum(X @ W.T, 0) @ A.T) ** 2).sum() / len(Y))

    fitted(*fastsym.make_two_layer(2000, 10, 10, 10, noise=0.1, random_state=1)[:2], 10)
    for k, n, repeats in ((10, 2000, 5), (10, 100_000, 5), (10, 1_000_000, 3), (32, 100_000, 3)):
        X, Y, _ = fastsym.make_two_layer(n, k, k, k, noise=0.1, random_state=0)
        own, model = shortest(lambda X=X, Y=Y, k=k: fitted(X, Y, k), repeats)
        ours, passes = model.loss_, model.n_passes_
        wanted = ours * (1 + 5e-3 * (2 * k * k) / (n * k))
        print(f"d=k=m={k} n={n}: fastsym {own:.3f} s, {passes} passes, loss {ours:.6f}; peers to "
              f"a loss of 1 + {wanted / ours - 1:.1g} times that", flush=True)  # fmt: skip

        def report(name, rounds, own=own):
            seconds, ratio = sorted(rounds)[len(rounds) // 2]
            print(f"  {name}, median of {len(rounds)} starts: {seconds:.3g} s (all: "
                  f"{', '.join(f'{s:.3g}' for s, _ in sorted(rounds))}), loss ratio "
                  f"1 + {ratio - 1:.1g}: {seconds / own:.0f} times", flush=True)  # fmt: skip

        if n == 2000:
            rounds = []
            for seed in range(3):
                start = time.perf_counter()
                weights = others.torch_lm(X, Y, k, seed, loss_wanted=wanted)
                rounds.append((time.perf_counter() - start, loss(weights, X, Y) / ours))
            report("torch-levenberg-marquardt", rounds)
        starts = range(1 if n == 1_000_000 else 3)
        rounds = []
        for seed in starts:
            weights, seconds, _ = others.lbfgs_to(X, Y, k, wanted, seed)
            rounds.append((seconds, loss(weights, X, Y) / ours))
        report("torch L-BFGS", rounds)
        rounds = []
        for seed in starts:
            weights, seconds, _ = others.lbfgs_to(X, Y, k, 0.0, seed, own_tolerances=True)
            rounds.append((seconds, loss(weights, X, Y) / ours))
        report("torch L-BFGS until it stops", rounds)
        if (k, n) == (10, 100_000):
            start = time.perf_counter()
            weights = others.adam(X, Y, k)
            seconds = time.perf_counter() - start
            print(f"  torch Adam, 200 epochs: {seconds:.1f} s, loss ratio "
                  f"{loss(weights, X, Y) / ours:.5f}: {seconds / own:.0f} times",
                  flush=True)  # fmt: skip


def wide():
    """d = 300, k = 10, m = 30, n = 100 000, noise 0.1: error over that from the truth."""
    for seed in range(3):
        X, Y, network = fastsym.make_two_layer(100_000, 300, 10, 30, noise=0.1, random_state=seed)
        start = time.perf_counter()
        model = fitted(X, Y, 10)
        seconds = time.perf_counter() - start
        truth = from_truth(X, Y, network)
        ratio = total_error(network, model.network_) / total_error(network, truth.network)
        print(f"d=300 k=10 m=30 n=100000 seed {seed}: error ratio {ratio:.4f}, loss ratio "
              f"{model.loss_ / truth.loss:.7f}, {model.n_passes_} passes, {seconds:.1f} s",
              flush=True)  # fmt: skip


def sizes():
    """The sample held in memory: final error with it over that with all samples in memory."""
    from fastsym.engine import gather as module
    from fastsym.refine import problem

    for k, n in ((10, 200_000), (24, 200_000)):
        for distribution in ("gaussian", "laplace"):
            X, Y, network = fastsym.make_two_layer(
                n, k, k, k, noise=0.3, distribution=distribution, random_state=0
            )
            source = from_arrays(X, Y)
            kept = module.SAMPLE_ROWS
            try:
                module.SAMPLE_ROWS = n
                everything = refine(source, network, trusted=True)
            finally:
                module.SAMPLE_ROWS = kept
            model = fitted(X, Y, k)
            ratio = total_error(network, model.network_) / total_error(network, everything.network)
            print(f"k={k} n={n} {distribution}: sample of "
                  f"{module.sample_rows(n, k, k, k)}: error ratio {ratio:.4f}, "
                  f"{model.n_passes_} passes, tolerance {problem.TOLERANCE}",
                  flush=True)  # fmt: skip


def passes():
    """Passes over all samples for n >= 100 000, over shapes, noise and distributions."""
    for d, k, m, n in ((10, 10, 10, 100_000), (20, 10, 15, 300_000), (32, 32, 32, 100_000),
                       (5, 3, 4, 1_000_000), (10, 10, 10, 2_000_000)):  # fmt: skip
        for distribution in ("gaussian", "gaussian_mixture", "rademacher", "student_t"):
            counts = []
            for level in (0.0, 0.1, 1.0):
                X, Y, _ = fastsym.make_two_layer(
                    n, d, k, m, noise=level, distribution=distribution, random_state=0
                )
                model = fitted(X, Y, k)
                counts.append(f"{model.n_passes_}{'' if model.converged_ else ' (not converged)'}")
            print(f"d={d} k={k} m={m} n={n} {distribution:17} passes at noise 0, 0.1, 1: "
                  f"{', '.join(counts)}", flush=True)  # fmt: skip


def stream():
    """One pass by partial_fit: error over that of the optimum of all samples."""
    for distribution in ("gaussian", "laplace"):
        for n in (20_000, 100_000, 500_000):
            ratios = []
            for seed in range(5):
                X, Y, network = fastsym.make_two_layer(
                    n, 10, 10, 10, noise=0.3, distribution=distribution, random_state=seed
                )
                model = fastsym.TwoLayerRegressor(10)
                for first in range(0, n, 10_000):
                    model.partial_fit(X[first : first + 10_000], Y[first : first + 10_000])
                best = from_truth(X, Y, network)
                ratios.append(
                    total_error(network, model.network_) / total_error(network, best.network)
                )
            print(f"one pass, {distribution}, n={n}: error ratio median {np.median(ratios):.3f}, "
                  f"largest {max(ratios):.3f}", flush=True)  # fmt: skip


def tails():
    """Squared error of W from moments alone with the even weight over that without."""
    from fastsym.sums import frame

    for k in (4, 10):
        for distribution in ("student_t", "laplace"):
            for level in (0.0, 0.3):
                medians = []
                for threshold in (frame.HEAVY_TAILS, np.inf):
                    kept, frame.HEAVY_TAILS = frame.HEAVY_TAILS, threshold
                    errors = []
                    for seed in range(12):
                        X, Y, network = fastsym.make_two_layer(
                            50_000, k, k, k, noise=level, distribution=distribution,
                            random_state=seed,
                        )  # fmt: skip
                        model = fitted(X, Y, k, refine=False)
                        error = fastsym.parameter_error(network, model.network_, up_to_sign=False)
                        errors.append(error.hidden_error)
                    medians.append(np.median(errors))
                    frame.HEAVY_TAILS = kept
                print(f"{distribution:9} k={k:2} n=50000 noise {level}: W with even weight "
                      f"{medians[0]:.2g}, without {medians[1]:.2g}, ratio "
                      f"{medians[0] / medians[1]:.2f}", flush=True)  # fmt: skip


def coverage():
    """Share of 95 % intervals that hold the true weight, 200 fits each."""
    for distribution, unequal in (("gaussian", False), ("laplace", False), ("gaussian", True)):
        hits = {"W": [], "A": []}
        for seed in range(200):
            X, Y, network = fastsym.make_two_layer(
                3000, 6, 4, 5, distribution=distribution, random_state=seed
            )
            rng = np.random.default_rng(10_000 + seed)
            scale = np.array([0.1, 0.2, 0.5, 1.0, 1.5]) if unequal else 0.3
            model = fitted(X, Y + scale * rng.standard_normal(Y.shape), 4)
            order = fastsym.metrics.match_neurons(network, model.network_).order
            length = np.linalg.norm(network.hidden_weights, axis=1)
            W = network.hidden_weights / length[:, None] - model.hidden_weights_[order]
            A = network.output_weights * length - model.output_weights_[:, order]
            hits["W"].append((np.abs(W) <= 1.96 * model.hidden_stderr_[order]).mean())
            hits["A"].append((np.abs(A) <= 1.96 * model.output_stderr_[:, order]).mean())
        print(f"{distribution}{', unequal noise' if unequal else ''}: coverage of W "
              f"{np.mean(hits['W']):.3f}, of A {np.mean(hits['A']):.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    names = {"time": timing}
    everything = "exact noise wide sizes passes stream coverage tails"
    for name in sys.argv[1:] or everything.split():
        print(f"== {name}", flush=True)
        names.get(name, globals().get(name))()
