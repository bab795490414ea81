"""The problems of `any_network` by others, with ten times the processor time of fastsym.

python -m benchmarks.tables.competitors [--sizes D,K,M ...] [--kinds BIAS,NOISE ...]
    [--inputs NAME ...] [--problems N] [--seed S] [--rows N] [--methods METHOD ...]
    [--times FACTOR] [--seconds SECONDS]

Each takes the number of units and whether there are biases, and restarts from random weights until
its time is over; its lowest loss counts. What it found may be finished by Levenberg-Marquardt
outside of that time, so that nobody loses by a tolerance: a network counts as found by
the rule of `any_network` then. FACTOR is that of fastsym's time on the problem, SECONDS takes the
place of both.

Expand and cluster (Martinelli, Simsek, Gerstner, Brea, ICML 2024, arXiv:2304.12794), small: four
students of four times the width; their input weights, up to scale and sign, are clustered; clusters
with a member of each student are kept as the units of one network, which is trained with a free
linear part, as the sign of a unit is open. Its number of units is not told.
"""

import time

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg import lstsq
from sklearn.neural_network import MLPRegressor

import fastsym
from benchmarks.tables.any_network import (
    HARD_INPUTS,
    INPUTS,
    cells_of,
    descended,
    draw,
    is_found,
    judge,
    line_of,
    loss_of,
    parser_of,
)
from benchmarks.tables.fits import has_torch, load, one_thread, quiet

STUDENTS = 4
WIDER = 4
ANGLE = 0.2  # radians, of units that are taken for one
RUN_SECONDS = 1.0  # of Adam, whose learning rate falls to zero within a run
LEAST_SECONDS = 0.5  # of anybody


class Budget:
    """Processor time that may be spent."""

    def __init__(self, seconds):
        self.start, self.seconds = time.process_time(), seconds

    @property
    def share(self):
        """What part is spent."""
        return (time.process_time() - self.start) / self.seconds

    @property
    def over(self):
        return self.share >= 1


class Student:
    """A network in PyTorch, from random weights."""

    def __init__(self, X, Y, width, biased, rng, linear=False):
        import torch

        self.torch, self.biased = torch, biased
        d, m = X.shape[1], Y.shape[1]
        W = rng.standard_normal((width, d)) / np.sqrt(d)
        A = rng.standard_normal((m, width)) / np.sqrt(width)
        self.x, self.y = torch.tensor(X), torch.tensor(Y)
        self.W, self.A = torch.tensor(W, requires_grad=True), torch.tensor(A, requires_grad=True)
        self.b = torch.tensor(0.5 * biased * rng.standard_normal(width), requires_grad=biased)
        self.c = torch.zeros(m, dtype=torch.float64, requires_grad=biased)
        self.L = torch.zeros((m, d), dtype=torch.float64, requires_grad=linear)
        every = (self.W, self.A, self.b, self.c, self.L)
        self.parameters = [one for one in every if one.requires_grad]

    def loss(self, rows=slice(None)):
        x = self.x[rows]
        hidden = self.torch.relu(x @ self.W.T + self.b)
        return ((hidden @ self.A.T + x @ self.L.T + self.c - self.y[rows]) ** 2).mean()

    def network(self):
        W, A, b, c, L = (one.detach().numpy() for one in (self.W, self.A, self.b, self.c, self.L))
        return fastsym.TwoLayerNetwork(
            W, A, hidden_intercept=b, output_intercept=c, linear_weights=L
        )

    def lbfgs(self, budget, iterations=1000):
        """Train by L-BFGS with a strong Wolfe line search, until no progress or time."""
        optimizer = self.torch.optim.LBFGS(
            self.parameters, max_iter=20, history_size=20, line_search_fn="strong_wolfe",
            tolerance_grad=1e-12, tolerance_change=1e-14,
        )  # fmt: skip

        def closure():
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            return loss

        before = np.inf
        for _ in range(iterations // 20):
            loss = optimizer.step(closure).item()
            if budget.over or not loss < before * (1 - 1e-5):
                break
            before = loss
        return self

    def adam(self, budget, batch=256):
        """Train by Adam for all of a budget, the learning rate a cosine from 1e-2 to zero."""
        optimizer = self.torch.optim.Adam(self.parameters, lr=1e-2)
        while not budget.over:
            for rows in self.torch.randperm(len(self.x)).split(batch):
                share = min(budget.share, 1.0)
                optimizer.param_groups[0]["lr"] = 5e-3 * (1 + np.cos(np.pi * share))
                optimizer.zero_grad()
                self.loss(rows).backward()
                optimizer.step()
        return self


def lowest(problem, networks):
    """The network of the lowest loss."""
    return min(networks, key=lambda network: loss_of(problem, network))


def torch_lbfgs(problem, k, seconds, rng):
    budget, found = Budget(seconds), []
    while not found or not budget.over:
        student = Student(problem.X, problem.Y, k, problem.cell.bias > 0, rng)
        found.append(student.lbfgs(budget).network())
    return lowest(problem, found)


def torch_adam(problem, k, seconds, rng):
    runs = max(1, round(seconds / RUN_SECONDS))
    students = (Student(problem.X, problem.Y, k, problem.cell.bias > 0, rng) for _ in range(runs))
    return lowest(problem, [one.adam(Budget(seconds / runs)).network() for one in students])


def sklearn_lbfgs(problem, k, seconds, rng):
    """MLPRegressor(solver="lbfgs"), which always has biases."""
    budget, found = Budget(seconds), []
    Y = problem.Y if problem.Y.shape[1] > 1 else problem.Y[:, 0]
    while not found or not budget.over:
        model = MLPRegressor(
            hidden_layer_sizes=k, solver="lbfgs", alpha=0.0, max_iter=1000, max_fun=10_000,
            tol=1e-8, random_state=int(rng.integers(2**31)),
        )  # fmt: skip
        quiet(lambda model=model: model.fit(problem.X, Y))
        (W, A), (b, c) = model.coefs_, model.intercepts_
        found.append(fastsym.TwoLayerNetwork(W.T, A.T, hidden_intercept=b, output_intercept=c))
    return lowest(problem, found)


def recurring(networks):
    """Rows (b, w) of unit length that every network has, up to sign: means of clusters."""
    rows, owners = [], []
    for owner, network in enumerate(networks):
        row = np.column_stack([network.hidden_intercept, network.hidden_weights])
        length = np.linalg.norm(row, axis=1)
        size = length * np.linalg.norm(network.output_weights, axis=0)
        kept = size > 1e-3 * size.max()
        rows.append(row[kept] / length[kept, None])
        owners += [owner] * int(kept.sum())
    rows, owners = np.vstack(rows), np.array(owners)
    above = np.triu_indices(len(rows), 1)
    angles = np.arccos(np.minimum(np.abs(rows @ rows.T), 1))[above]
    labels = fcluster(linkage(angles, "average"), ANGLE, "distance")
    units = []
    for label in np.unique(labels):
        of = labels == label
        if len(np.unique(owners[of])) == len(networks):
            signs = np.sign(rows[of] @ rows[of][0])
            units.append((signs[:, None] * rows[of]).mean(axis=0))
    return np.array(units).reshape(-1, rows.shape[1])


def expand_and_cluster(problem, k, seconds, rng):
    """Four parts in five of the time for the students, the rest for the network of what recurs."""
    X, Y, biased = problem.X, problem.Y, problem.cell.bias > 0
    wide = [
        Student(X, Y, WIDER * k, biased, rng).lbfgs(Budget(0.8 * seconds / STUDENTS)).network()
        for _ in range(STUDENTS)
    ]
    units = recurring(wide)
    if not len(units):
        return fastsym.TwoLayerNetwork(np.zeros((1, X.shape[1])), np.zeros((Y.shape[1], 1)))
    student = Student(X, Y, len(units), biased, rng, linear=True)
    basis = np.hstack([np.maximum(units[:, 0] + X @ units[:, 1:].T, 0), X])
    outputs = lstsq(basis, Y)[0].T
    torch = student.torch
    with torch.no_grad():
        student.b.copy_(torch.tensor(units[:, 0]))
        student.W.copy_(torch.tensor(units[:, 1:]))
        student.A.copy_(torch.tensor(outputs[:, : len(units)]))
        student.L.copy_(torch.tensor(outputs[:, len(units) :]))
    return student.lbfgs(Budget(0.2 * seconds)).network()


METHODS = {
    "L-BFGS": torch_lbfgs,
    "Adam": torch_adam,
    "MLPRegressor": sklearn_lbfgs,
    "expand and cluster": expand_and_cluster,
}
"""Each takes a problem, the number of units, seconds and a generator, and returns a network."""
OF_TORCH = ("L-BFGS", "Adam", "expand and cluster")


def compete(problem, method, seconds, seed):
    """Whether a method finds the network, and whether with more units than there are."""
    network = METHODS[method](problem, problem.cell.k, seconds, np.random.default_rng(seed))
    linear = bool(np.any(network.linear_weights))
    loss = min(loss_of(problem, network), descended(problem, network, linear))
    found = is_found(problem, loss, linear)
    return found, found and network.n_hidden > problem.cell.k


def table(cells, arguments, methods):
    """Print a line for fastsym and one for each method in each cell."""
    for cell in cells:
        verdicts, results = [], {method: [] for method in methods}
        for number in range(arguments.problems):
            problem = draw(cell, arguments.seed, number, arguments.rows)
            seconds = arguments.seconds
            if seconds is None:
                verdicts.append(judge(problem))
                seconds = max(arguments.times * verdicts[-1].seconds, LEAST_SECONDS)
            for method in methods:
                result = compete(problem, method, seconds, [arguments.seed, number, 1])
                results[method].append(result)
        print(f"{cell} {line_of(verdicts) if verdicts else f'{arguments.seconds:g} s each'}")
        for method, of in results.items():
            found, more = np.sum(of, axis=0)
            extra = f", {more} of these with more units" if more else ""
            print(f"    {method:20} found {found:3} of {len(of)}{extra}", flush=True)


def main(argv=None):
    parser = parser_of(__doc__.splitlines()[0], inputs=(*INPUTS, *HARD_INPUTS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--seconds", type=float)
    arguments = parser.parse_args(argv)
    methods = arguments.methods
    if not has_torch():
        methods = [method for method in methods if method not in OF_TORCH]
        print(f"without PyTorch, so without {', '.join(OF_TORCH)}")
    with one_thread():
        load()
        table(cells_of(arguments), arguments, methods)


if __name__ == "__main__":
    main()
