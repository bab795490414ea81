"""Accuracy of the spectral layer at the sizes the project promises: prints a table.

python -m benchmarks.tables.accuracy [paper large wide distributions auto single]
"""

import sys
import warnings

import numpy as np

import fastsym
from fastsym.datasets import DISTRIBUTIONS


def solve(X, Y, k, method="uwedge", random_state=0):
    source = fastsym.sources.from_arrays(X, Y)
    moments = fastsym.accumulate(source, k).moments()
    return fastsym.spectral.solve(moments, method=method, random_state=random_state).network


def paper_error(truth, network):
    """Squared errors of W and A as in the paper, where a wrong sign is an error of W."""
    return fastsym.parameter_error(truth, network, up_to_sign=False)[:2]


def paper():
    """d = k = m = 10, orthonormal, Gaussian, noiseless, n = 10 000."""
    errors = {"pair": [], "als": [], "uwedge": []}
    for seed in range(60):
        X, Y, network = fastsym.make_two_layer(10_000, 10, 10, 10, random_state=seed)
        for method, values in errors.items():
            values.append(paper_error(network, solve(X, Y, 10, method, seed)))
    for method, values in errors.items():
        batches = np.reshape(values, (6, 10, 2)).mean(axis=1)
        print(
            f"paper, method {method:7}: mean of 60 trials W {np.mean(values, axis=0)[0]:.2g} "
            f"A {np.mean(values, axis=0)[1]:.2g}; median W {np.median(values, axis=0)[0]:.2g} "
            f"A {np.median(values, axis=0)[1]:.2g}; means of tens, W: "
            + " ".join(f"{batch[0]:.2g}" for batch in batches)
        )


def large():
    """Error a neuron for k = 32 and 64, five seeds."""
    for k, n, noise in ((32, 10_000, 0.3), (64, 30_000, 0.1)):
        errors = []
        for seed in range(5):
            X, Y, network = fastsym.make_two_layer(n, k, k, k, noise=noise, random_state=seed)
            errors.append(np.array(paper_error(network, solve(X, Y, k))) / k)
        print(
            f"d=k=m={k}, n={n}, noise {noise}: largest error a neuron of five seeds: "
            f"W {np.max(errors, axis=0)[0]:.2g} A {np.max(errors, axis=0)[1]:.2g}"
        )


def wide():
    """d = 300, k = 10, m = 30, noise 0.1, n = 100 000."""
    errors = []
    for seed in range(5):
        X, Y, network = fastsym.make_two_layer(100_000, 300, 10, 30, noise=0.1, random_state=seed)
        one_pass = fastsym.MomentAccumulator(10).update(X, Y).moments()
        estimate = fastsym.spectral.solve(one_pass).network
        errors.append(paper_error(network, estimate))
    print(f"d=300, k=10, m=30, one pass: largest of five seeds W, A {np.max(errors, axis=0)}")


def distributions():
    """d = k = m = 8, n = 100 000, noise 0.1, ten seeds."""
    for name in DISTRIBUTIONS:
        errors = []
        for seed in range(10):
            X, Y, network = fastsym.make_two_layer(
                100_000, 8, 8, 8, distribution=name, noise=0.1, random_state=seed
            )
            errors.append(paper_error(network, solve(X, Y, 8))[0])
        print(
            f"{name:17} W: median {np.median(errors):.2g}, largest {max(errors):.2g}, "
            f"at most 0.05 in {sum(e <= 0.05 for e in errors)} of 10"
        )


def auto():
    """n_hidden="auto" on 100 random problems, from the pilot of one pass."""
    right, rng = [], np.random.default_rng(1)
    for seed in range(100):
        k = int(rng.integers(2, 13))
        d, m = rng.integers(k, 31, 2)
        X, Y, _ = fastsym.make_two_layer(20_000, d, k, m, noise=0.1, random_state=seed)
        right.append(fastsym.MomentAccumulator().update(X, Y).frame.n_hidden == k)
    print(f"auto: right in {sum(right)} of {len(right)} problems")


def single():
    """Effect of compute_dtype="float32" on the weights, d = k = m = 10, three seeds."""
    for n, noise in ((20_000, 0.1), (1_000_000, 0.0)):
        for seed in range(3):
            X, Y, network = fastsym.make_two_layer(n, 10, 10, 10, noise=noise, random_state=seed)
            double, single = (
                fastsym.TwoLayerRegressor(10, refine=False, compute_dtype=dtype).fit(X, Y).network_
                for dtype in ("float64", "float32")
            )
            errors = [paper_error(network, e) for e in (double, single)]
            apart = paper_error(double, single)
            print(
                f"n={n}, noise {noise}: error W, A in float64 {errors[0][0]:.3g} "
                f"{errors[0][1]:.3g}, in float32 {errors[1][0]:.3g} {errors[1][1]:.3g}, "
                f"apart {apart[0]:.1g} {apart[1]:.1g}"
            )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or ["paper", "large", "wide", "distributions", "auto", "single"]:
        globals()[name]()
