"""Features of many tasks, and a new task learnt on them from few samples: prints a table.

python -m benchmarks.tables.multitask [--problems N] [--seed S] [--rows N ...]

Fifty tasks, the outputs, share eight hidden units with biases in forty features. Their network is
fitted to ROWS samples with a noise of 0.3 standard deviations. A new task, another combination of
the same units, has 50 samples with the same noise: its last layer is fitted to the units found, by
ridge regression, beside what learns it from nothing. R2 is that of 10 000 samples without noise.
"""

import argparse

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor

import fastsym
from benchmarks.tables.fits import load, one_thread, told

D, K, M = 40, 8, 50
NOISE, BIAS = 0.3, 0.5
NEW_ROWS, TEST_ROWS = 50, 10_000
ALPHAS = np.logspace(-3, 4, 15)


def ridge():
    return RidgeCV(ALPHAS)


def searched(seed):
    """MLPRegressor of eight units, by L-BFGS, its ridge by cross-validation."""
    model = MLPRegressor(hidden_layer_sizes=K, solver="lbfgs", max_iter=500, random_state=seed)
    return GridSearchCV(model, {"alpha": [0.1, 1, 10, 100]}, cv=3)


SCRATCH = {
    "ridge": lambda seed: ridge(),
    "MLPRegressor": searched,
    "TwoLayerRegressor": lambda seed: fastsym.TwoLayerRegressor(),
}
"""Models that learn the new task from nothing, each from a seed."""


def network_of(rng):
    """Draw the units and the tasks, the last of which is new; outputs of deviation about one."""
    W = rng.standard_normal((K, D))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    b = BIAS * rng.standard_normal(K)
    A = rng.standard_normal((M + 1, K))
    network = fastsym.TwoLayerNetwork(W, A, hidden_intercept=b)
    size = network.predict(rng.standard_normal((TEST_ROWS, D))).std(axis=0)
    return fastsym.TwoLayerNetwork(W, A / size[:, None], hidden_intercept=b)


def units_of(network, X):
    """Hidden units, and the features beside them, as the sign of a unit may be open."""
    hidden = np.maximum(X @ network.hidden_weights.T + network.hidden_intercept, 0)
    return np.hstack([hidden, X]) if np.any(network.linear_weights) else hidden


def features_error(truth, network):
    """Root mean square of the angles between paired rows (b, w), up to sign, in radians."""
    rows = []
    for one in (truth, network):
        row = np.column_stack([one.hidden_intercept, one.hidden_weights])
        rows.append(row / np.linalg.norm(row, axis=1, keepdims=True))
    cosines = np.abs(rows[0] @ rows[1].T)
    pairs = linear_sum_assignment(-cosines)
    missing = np.full(max(K - len(pairs[0]), 0), np.pi / 2)
    angles = np.arccos(np.minimum(cosines[pairs], 1))
    return float(np.sqrt((np.append(angles, missing) ** 2).mean()))


def compare(seed, number, rows):
    """Errors of the features, R2 of a new task by each way, and the fit of the tasks."""
    rng = np.random.default_rng([seed, number])
    truth = network_of(rng)

    def sample(n, noise):
        X = rng.standard_normal((n, D))
        Y = truth.predict(X)
        return X, Y + noise * rng.standard_normal(Y.shape)

    X, Y = sample(rows, NOISE)
    fit = told(lambda: fastsym.TwoLayerRegressor(K, fit_intercept=True).fit(X, Y[:, :M]))
    network = fit.result.network_
    X, Y = sample(NEW_ROWS, NOISE)
    X_test, Y_test = sample(TEST_ROWS, 0.0)
    y, y_test = Y[:, M], Y_test[:, M]
    scores = {
        name: ridge().fit(units_of(of, X), y).score(units_of(of, X_test), y_test)
        for name, of in (("true units", truth), ("units found", network))
    }
    for name, make in SCRATCH.items():
        model = told(lambda make=make: make(number).fit(X, y)).result
        scores[name] = model.score(X_test, y_test)
    return features_error(truth, network), scores, fit


def table(problems, seed, rows):
    """Print a line for a number of samples of the fifty tasks."""
    errors, every, fits = zip(*(compare(seed, i, rows) for i in range(problems)), strict=True)
    scores = ", ".join(f"{name} {np.mean([one[name] for one in every]):.3f}" for name in every[0])
    certified = sum(fit.result.converged_ for fit in fits)
    seconds = np.median([fit.seconds for fit in fits])
    print(
        f"{rows:6} samples: features off by {np.median(errors):.4f} radians, at most "
        f"{max(errors):.4f}, certified {certified} of {problems}, {seconds:.2f} s; R2 of a new "
        f"task: {scores}",
        flush=True,
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 1000, 5000])
    arguments = parser.parse_args(argv)
    with one_thread():
        load()
        for rows in arguments.rows:
            table(arguments.problems, arguments.seed, rows)


if __name__ == "__main__":
    main()
