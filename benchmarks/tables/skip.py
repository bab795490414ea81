"""One start, with a free linear part and without: how often it ends at the optimum; a picture.

python -m benchmarks.tables.skip [--cells D,K,M,BIAS,NOISE ...] [--problems N] [--seed S]
    [--rows N] [--out FILE.png]

Networks are those of `any_network`. An optimum counts as found if its loss is within 0.05 units of
that of the optimum next to the truth, in the same model (a unit: what the weights explain by
chance, p sigma^2), or, without noise, zero to rounding. Random starts are the same rows with the
linear part and without; the generator of the truth draws none of them. "search" is that of
`fastsym.refine.beside_linear`: greedy and random starts, units added and dropped until something
certifies the optimum.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.tables.any_network import (
    Cell,
    draw,
    is_found,
    loss_of,
    numbers,
)
from benchmarks.tables.fits import load, one_thread
from fastsym.plotting import BLUE, GREEN, GREY, SKY, new_axes
from fastsym.refine.beside_linear import search_beside_linear
from fastsym.refine.greedy import greedy_start
from fastsym.refine.problem import Problem as LeastSquares

CELLS = ((10, 10, 1, 0.0, 0.0), (5, 20, 5, 0.0, 0.0), (10, 10, 1, 0.5, 0.3))
BIASES = 0.7  # of random starts, in standard deviations of the projections
STARTS = {
    "random": ("one random start, no linear part", GREY),
    "beside": ("the same start beside a free linear part", SKY),
    "greedy": ("one greedy start beside it", BLUE),
    "search": ("search beside it: swaps, up to five runs", GREEN),
}


def random_rows(problem, rng):
    """Rows in random directions of the white coordinates, as the search draws them."""
    k, q = problem.coordinates.n_free, problem.coordinates.to_inputs.shape[1]
    bias = int(problem.fit_intercept)
    rows = rng.standard_normal((k, q))
    rows[:, bias:] /= np.linalg.norm(rows[:, bias:], axis=1, keepdims=True)
    rows[:, :bias] *= BIASES
    return rows


def fits(samples, rng):
    """Fit from each kind of start; yields its name, whether L was free, and the fit."""
    rows, wide = random_rows(samples, rng), samples.with_linear()
    yield "random", False, samples.fit(samples.regressed(rows))
    yield "beside", True, wide.fit(wide.regressed(rows))
    yield "greedy", True, wide.fit(wide.regressed(greedy_start(wide, rng)))
    yield "search", True, search_beside_linear(wide, rng).lowest


def found_in(cell, problems, seed, n_rows):
    """Count the problems of a cell that each kind of start solves."""
    found = dict.fromkeys(STARTS, 0)
    for number in range(problems):
        problem = draw(cell, seed, number, n_rows)
        samples = LeastSquares(
            problem.X, problem.Y, None, cell.k, problem.truth.activation, cell.bias > 0
        )
        rng = np.random.default_rng([seed, number])  # not of the truth, which has its name besides
        for name, linear, fit in fits(samples, rng):
            model = samples.with_linear(linear)
            loss = loss_of(problem, model.network(fit.point))
            found[name] += is_found(problem, loss, linear)
    return found


def line_of(cell, found, problems):
    """Counts of a cell as text."""
    counts = ", ".join(f"{name} {count}" for name, count in found.items())
    return f"{cell} of {problems}: {counts}"


def picture(counts, problems, path):
    """Draw the counts as bars, a group for each cell."""
    ax = new_axes(1, 1, (7.2, 3.4))
    width = 0.8 / len(STARTS)
    for i, (name, (label, color)) in enumerate(STARTS.items()):
        xs = np.arange(len(counts)) + (i - (len(STARTS) - 1) / 2) * width
        found = [cell[name] for cell in counts.values()]
        bars = ax.bar(xs, found, width, color=color, label=label)
        ax.bar_label(bars, fontsize=8)
    names = [
        f"d = {cell.d}, k = {cell.k}, m = {cell.m}\nbiases {cell.bias:g}, noise {cell.noise:g}"
        for cell in counts
    ]
    ax.set_xticks(range(len(counts)), names)
    ax.set(ylim=(0, 1.1 * problems), ylabel=f"networks found, of {problems}")
    ax.figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    ax.figure.savefig(path, dpi=130)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", type=numbers(float), default=CELLS,
                        metavar="D,K,M,BIAS,NOISE")  # fmt: skip
    parser.add_argument("--problems", type=int, default=40, help="in each cell")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--out", type=Path, help="file of the picture")
    arguments = parser.parse_args(argv)
    counts = {}
    with one_thread():
        load()
        for *sizes, bias, noise in arguments.cells:
            cell = Cell(*map(int, sizes), bias, noise)
            counts[cell] = found_in(cell, arguments.problems, arguments.seed, arguments.rows)
            print(line_of(cell, counts[cell], arguments.problems), flush=True)
    if arguments.out:
        picture(counts, arguments.problems, arguments.out)


if __name__ == "__main__":
    main()
