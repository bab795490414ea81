"""Networks of any sizes with real biases: how many are found, and said to be: prints a table.

python -m benchmarks.tables.any_network [--sizes D,K,M ...] [--kinds BIAS,NOISE ...]
    [--inputs NAME ...] [--problems N] [--seed S] [--rows N]

Truth: rows of W of unit length, entries of A of either sign and size 0.5 to 1.5, biases of BIAS
standard deviations of the inputs, outputs of standard deviation one, NOISE in the same unit. The
number of units is told, and whether there are biases. The generator of the truth starts no fit.

A network is found if its loss is within 0.05 units of that of the optimum next to the truth (a
unit: what the weights explain by chance, p sigma^2), or, without noise, zero to rounding. Its signs
are right if each unit, matched to the truth, bends the same way, and open if a linear part is left:
the optimum next to the truth has one then too. A certificate is right if the network is found and
its signs are right or open. Wrong and silent: no such network, and nothing warned of it. Seconds
are those of the processor, one thread.
"""

import argparse
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

import fastsym
from benchmarks.tables.fits import load, one_thread, told
from fastsym.datasets import DISTRIBUTIONS
from fastsym.refine.problem import Problem as LeastSquares

SIZES = (
    (10, 10, 1), (5, 10, 1), (20, 10, 1), (5, 20, 5), (10, 20, 5), (10, 20, 1), (30, 10, 1),
    (10, 10, 3),
)  # fmt: skip
KINDS = ((0.0, 0.0), (0.5, 0.3), (1.0, 0.1))
INPUTS = ("gaussian", "laplace", "uniform", "gaussian_mixture")
HARD_INPUTS = ("rademacher", "clusters")
SLACK = 0.05  # units above the optimum
EXACT = 1e-20  # of the mean square of the outputs
N_CLUSTERS = 4


def clusters(rng, n, d):
    """Balls of radius 0.3 around a few points at distance one from zero, times sqrt(d)."""
    centres = rng.standard_normal((N_CLUSTERS, d))
    centres *= np.sqrt(d) / np.linalg.norm(centres, axis=1, keepdims=True)
    return centres[rng.integers(N_CLUSTERS, size=n)] + 0.3 * rng.standard_normal((n, d))


SAMPLERS = DISTRIBUTIONS | {"clusters": clusters}


class Cell(NamedTuple):
    """What the problems of a line of the table have in common."""

    d: int
    k: int
    m: int
    bias: float
    noise: float
    inputs: str = "gaussian"

    def __str__(self):
        sizes = f"({self.d}, {self.k}, {self.m})"
        return f"{sizes:13} bias {self.bias:<3g} noise {self.noise:<4g} {self.inputs:16}"


class Problem(NamedTuple):
    """Samples and the network that made them."""

    X: np.ndarray
    Y: np.ndarray
    truth: fastsym.TwoLayerNetwork
    cell: Cell


def rows_of(k):
    return 4000 if k <= 10 else max(6000, 200 * k)


def draw(cell, seed, number, n=None):
    """Draw a problem of a cell."""
    d, k, m, bias, noise, inputs = cell
    name = f"{cell}".encode()
    rng = np.random.default_rng([seed, number, *name])
    X = SAMPLERS[inputs](rng, n or rows_of(k), d)
    X /= np.sqrt((X**2).mean())
    W = rng.standard_normal((k, d))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    A = rng.choice([-1.0, 1.0], (m, k)) * rng.uniform(0.5, 1.5, (m, k))
    b = bias * rng.standard_normal(k)
    truth = fastsym.TwoLayerNetwork(W, A, hidden_intercept=b)
    A = A / truth.predict(X).std(axis=0).mean()
    truth = fastsym.TwoLayerNetwork(W, A, hidden_intercept=b)
    Y = truth.predict(X)
    return Problem(X, Y + noise * rng.standard_normal(Y.shape), truth, cell)


def loss_of(problem, network):
    """Mean squared norm of the residual."""
    return float(((problem.Y - network.predict(problem.X)) ** 2).sum(axis=1).mean())


def descended(problem, network, linear=False):
    """Loss of the optimum next to a network, with or without a free linear part."""
    X, Y, _, cell = problem
    samples = LeastSquares(X, Y, None, network.n_hidden, network.activation, cell.bias > 0)
    samples = samples.with_linear(linear)
    fit = samples.fit(samples.point(network))
    return loss_of(problem, samples.network(fit.point))


def excess_of(problem, loss, linear=False):
    """Units by which a loss is above that of the optimum next to the truth."""
    (n, d), (_, k, m, bias, noise, _) = problem.X.shape, problem.cell
    if not noise:
        return 0.0 if loss <= EXACT * (problem.Y**2).sum(axis=1).mean() else np.inf
    lowest = descended(problem, problem.truth, linear)
    intercepts = bias > 0
    weights = k * (d + intercepts + m - 1) + m * intercepts + d * m * linear
    return (loss / lowest - 1) * n * m / weights


def is_found(problem, loss, linear=False):
    """Whether a loss is that of the optimum next to the truth."""
    return excess_of(problem, loss, linear) <= SLACK


def signs_are_right(truth, network):
    """Whether the units of two networks, paired up to their sign, point the same way."""
    if network.n_hidden != truth.n_hidden:
        return False
    rows = []
    for one in (truth, network):
        row = np.column_stack([one.hidden_intercept, one.hidden_weights])
        rows.append(row / np.maximum(np.linalg.norm(row, axis=1, keepdims=True), 1e-300))
    cosines = rows[0] @ rows[1].T
    return bool((cosines[linear_sum_assignment(-np.abs(cosines))] > 0).all())


class Verdict(NamedTuple):
    """What became of a problem."""

    excess: float
    signs: bool
    open: bool
    certified: bool
    warned: tuple
    seconds: float

    @property
    def found(self):
        return self.excess <= SLACK

    @property
    def right(self):
        return self.found and (self.signs or self.open)


def judge(problem):
    """Fit a problem; a refusal is a fit that found nothing and says so."""
    k, biased = problem.cell.k, problem.cell.bias > 0
    try:
        fit = told(
            lambda: fastsym.TwoLayerRegressor(k, fit_intercept=biased).fit(problem.X, problem.Y)
        )
    except ValueError:
        return Verdict(np.inf, False, False, False, ("refused",), 0.0)
    model = fit.result
    network = model.network_
    linear = bool(np.any(network.linear_weights))
    excess = excess_of(problem, loss_of(problem, network), linear)
    signs = not linear and signs_are_right(problem.truth, network)
    return Verdict(excess, signs, linear, bool(model.converged_), fit.warned, fit.seconds)


def line_of(verdicts):
    """Counts of a cell as text."""
    found, signs, still = (
        sum(getattr(one, name) for one in verdicts) for name in ("found", "signs", "open")
    )
    right = sum(one.certified and one.right for one in verdicts)
    wrong = sum(one.certified and not one.right for one in verdicts)
    silent = sum(not one.right and not one.warned for one in verdicts)
    refused = sum(one.warned == ("refused",) for one in verdicts)
    seconds = [one.seconds for one in verdicts]
    return (
        f"found {found:3} of {len(verdicts)}, signs {signs:3} (open {still}); certified and right "
        f"{right:3}, and wrong {wrong}; wrong and silent {silent}; {np.median(seconds):.2f} s, "
        f"longest {max(seconds):.2f}" + (f"; refused {refused}" if refused else "")
    )


def table(cells, problems, seed, rows=None):
    """Print a line for each cell; returns the verdicts of all."""
    every = []
    for cell in cells:
        verdicts = [judge(draw(cell, seed, number, rows)) for number in range(problems)]
        print(f"{cell} {line_of(verdicts)}", flush=True)
        for number, one in enumerate(verdicts):
            if one.certified and not one.right:
                signs = "open" if one.open else "right" if one.signs else "wrong"
                print(
                    f"    certified and wrong {number}: {one.excess:.3g} units above, signs "
                    f"{signs}, {', '.join(one.warned) or 'silent'}"
                )
        every += verdicts
    if len(cells) > 1:
        print(f"{'all':50} {line_of(every)}", flush=True)
    return every


def numbers(kind):
    """Type of an argument: numbers with commas between."""
    return lambda text: tuple(kind(word) for word in text.split(","))


def parser_of(description, sizes=SIZES, inputs=INPUTS):
    """Arguments that choose cells."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--sizes", nargs="+", type=numbers(int), default=sizes, metavar="D,K,M")
    parser.add_argument("--kinds", nargs="+", type=numbers(float), default=KINDS,
                        metavar="BIAS,NOISE")  # fmt: skip
    parser.add_argument("--inputs", nargs="+", default=inputs, choices=SAMPLERS)
    parser.add_argument("--problems", type=int, default=40, help="in each cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, help="samples; None: by the number of units")
    return parser


def cells_of(arguments):
    """Every cell that is chosen."""
    return [
        Cell(*sizes, *kind, inputs)
        for inputs in arguments.inputs
        for sizes in arguments.sizes
        for kind in arguments.kinds
    ]


def main(argv=None):
    parser = parser_of(__doc__.splitlines()[0], inputs=(*INPUTS, *HARD_INPUTS))
    arguments = parser.parse_args(argv)
    with one_thread():
        load()
        table(cells_of(arguments), arguments.problems, arguments.seed, arguments.rows)


if __name__ == "__main__":
    main()
