"""Seconds of fits with more hidden units than inputs or outputs: prints a table.

python -m benchmarks.tables.wide_speed [SIZE ...] [--problems N] [--seed S]

Networks of `any_network`, Gaussian inputs, biases of half a standard deviation, noise 0.3; one
thread, seconds on the clock and of the processor. SIZE is d,k,m,n.
"""

import argparse
import time

import numpy as np

import fastsym
from benchmarks.tables.any_network import Cell, draw, is_found, loss_of, numbers
from benchmarks.tables.fits import load, one_thread, told

SIZES = ((10, 10, 1, 4000), (10, 20, 5, 4000), (20, 100, 1, 20_000))
BIAS, NOISE = 0.5, 0.3


def measured(size, seed, number):
    """Clock and processor seconds of a fit, whether certified, and whether right."""
    d, k, m, n = size
    problem = draw(Cell(d, k, m, BIAS, NOISE), seed, number, n)
    start = time.perf_counter()
    fit = told(lambda: fastsym.TwoLayerRegressor(k, fit_intercept=True).fit(problem.X, problem.Y))
    clock = time.perf_counter() - start
    network = fit.result.network_
    linear = bool(np.any(network.linear_weights))
    found = is_found(problem, loss_of(problem, network), linear)
    return clock, fit.seconds, fit.result.converged_, found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=numbers(int), default=SIZES, metavar="SIZE")
    parser.add_argument("--problems", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    with one_thread():
        load()
        for size in arguments.sizes:
            fits = [measured(size, arguments.seed, i) for i in range(arguments.problems)]
            clock, processor, certified, found = np.array(fits, float).T
            print(
                f"(d, k, m, n) = {size}: {np.median(clock):.2f} s (least {clock.min():.2f}, most "
                f"{clock.max():.2f}), of the processor {np.median(processor):.2f} s; certified "
                f"{int(certified.sum())}, found {int(found.sum())} of {len(fits)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
