"""Held-out rows of data of unknown origin, `TwoLayerRegressor()` beside others: prints tables.

python -m benchmarks.tables.real_data [DATA ...] [--models MODEL ...] [--repeats R] [--seed S]
    [--results FILE]

R times two-fold cross-validation. Inputs are standardised by the training rows, outputs divided by
their standard deviation in them, and centred too for the others, which learn slowly without it;
classes are columns of zeros and ones. R2 is the mean over the outputs. One thread, seconds of the
processor for one fit. FILE keeps a line for each fit that was done, and what is in it is not done
again.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, RepeatedKFold
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from benchmarks.tables.fits import has_torch, load, one_thread, told
from fastsym import TwoLayerRegressor

MANY_ROWS = 20_000  # more than this: no search over grids


def one_hot(data):
    return data.data, np.eye(data.target.max() + 1)[data.target]


# Friedman's second and third functions as they come, and with his noise, a third of the signal.
DATA = {
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True),
    "friedman1": lambda: datasets.make_friedman1(1000, noise=1.0, random_state=0),
    "friedman2": lambda: datasets.make_friedman2(1000, random_state=0),
    "friedman2 noisy": lambda: datasets.make_friedman2(1000, noise=125.0, random_state=0),
    "friedman3": lambda: datasets.make_friedman3(1000, random_state=0),
    "friedman3 noisy": lambda: datasets.make_friedman3(1000, noise=0.1, random_state=0),
    "linnerud": lambda: datasets.load_linnerud(return_X_y=True),
    "digits": lambda: one_hot(datasets.load_digits()),
    "iris": lambda: one_hot(datasets.load_iris()),
    "wine": lambda: one_hot(datasets.load_wine()),
    "breast cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "friedman1 large": lambda: datasets.make_friedman1(100_000, noise=1.0, random_state=0),
}


class TorchNetwork:
    """PyTorch: AdamW on four fifths of the rows until the rest is no longer predicted better.

    One network for each width; that of the lowest loss of the rows kept aside predicts.
    """

    patience, epochs = 30, 1000

    def __init__(self, seed, widths=(4, 8, 16, 32)):
        self.seed, self.widths = seed, widths

    def fit(self, X, y):
        import torch

        torch.manual_seed(self.seed)
        self.flat = y.ndim == 1
        order = np.random.default_rng(self.seed).permutation(len(X))
        x = torch.tensor(X[order], dtype=torch.float32)
        y = torch.tensor(y.reshape(len(X), -1)[order], dtype=torch.float32)
        rows = len(x) // 5
        kept, rest = (x[:rows], y[:rows]), (x[rows:], y[rows:])
        self.loss, self.network = min(
            (self._train(torch, width, *rest, *kept) for width in self.widths),
            key=lambda found: found[0],
        )
        return self

    def _train(self, torch, width, x, y, x_kept, y_kept):
        network = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, y.shape[1]),
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-2)
        batch = 32 if len(x) < 10_000 else 256
        best, state, since = np.inf, network.state_dict(), 0
        for _ in range(self.epochs):
            for rows in torch.randperm(len(x)).split(batch):
                optimizer.zero_grad()
                ((network(x[rows]) - y[rows]) ** 2).mean().backward()
                optimizer.step()
            with torch.no_grad():
                loss = float(((network(x_kept) - y_kept) ** 2).mean())
            since += 1
            if loss < best:
                best, since = loss, 0
                state = {name: value.clone() for name, value in network.state_dict().items()}
            if since >= self.patience:
                break
        network.load_state_dict(state)
        return best, network

    def predict(self, X):
        import torch

        with torch.no_grad():
            Y = self.network(torch.tensor(X, dtype=torch.float32)).numpy()
        return Y[:, 0] if self.flat else Y


def boosting(seed, y):
    model = HistGradientBoostingRegressor(random_state=seed)
    return model if y.ndim == 1 else MultiOutputRegressor(model)


def searched(seed, y):
    """L-BFGS, width and ridge by three-fold cross-validation of the training rows."""
    if len(y) > MANY_ROWS:
        return None
    model = MLPRegressor(solver="lbfgs", max_iter=500, random_state=seed)
    grid = {"hidden_layer_sizes": [(10,), (50,)], "alpha": [0.01, 0.1, 1, 10]}
    return GridSearchCV(model, grid, cv=3)


MODELS = {
    "TwoLayerRegressor": lambda seed, y: TwoLayerRegressor(),
    "linear": lambda seed, y: LinearRegression(),
    "ridge": lambda seed, y: RidgeCV(np.logspace(-3, 4, 15)),
    "MLP 50": lambda seed, y: MLPRegressor(hidden_layer_sizes=50, max_iter=2000, random_state=seed),
    "MLP 50, stopped early": lambda seed, y: MLPRegressor(
        hidden_layer_sizes=50,
        early_stopping=True,
        max_iter=2000,
        n_iter_no_change=30,
        random_state=seed,
    ),
    "MLP, grid": searched,
    "boosting": boosting,
    "PyTorch": lambda seed, y: TorchNetwork(seed) if has_torch() else None,
}
"""Each takes a seed and the outputs, and returns a model, or None where it has nothing to try."""


def held_out(model, X, y, train, test):
    """Fit on some rows; R2 of others and what the fit took and said."""
    scaler = StandardScaler().fit(X[train])
    scale = y[train].std(axis=0)
    y = y / np.where(scale > 0, scale, 1.0)
    if not isinstance(model, TwoLayerRegressor):
        y = y - y[train].mean(axis=0)
    try:
        fit = told(lambda: model.fit(scaler.transform(X[train]), y[train]))
    except ValueError as error:
        return {"refused": str(error)}
    line = {
        "r2": float(r2_score(y[test], model.predict(scaler.transform(X[test])))),
        "seconds": fit.seconds,
        "warned": fit.warned,
    }
    if hasattr(model, "converged_"):
        line |= {"units": model.network_.n_hidden, "certified": bool(model.converged_)}
    return line


def folds(name, X, y, model, arguments, done):
    """What became of the fits of a model to the folds of a data set; those of `done` are there."""
    splits = RepeatedKFold(n_splits=2, n_repeats=arguments.repeats, random_state=arguments.seed)
    for number, (train, test) in enumerate(splits.split(X)):
        key = json.dumps([name, model, arguments.seed, number])
        if key not in done:
            made = MODELS[model](number, y[train])
            if made is None:
                return
            done[key] = held_out(made, X, y, train, test)
            if arguments.results:
                with open(arguments.results, "a") as file:
                    file.write(json.dumps({"key": key} | done[key]) + "\n")
        yield done[key]


def line_of(model, fits):
    """A line of the table."""
    refused = [fit["refused"] for fit in fits if "refused" in fit]
    fits = [fit for fit in fits if "refused" not in fit]
    text = f"  {model:22}"
    if fits:
        r2, seconds = ([fit[name] for fit in fits] for name in ("r2", "seconds"))
        text += (
            f"R2 {np.mean(r2):8.3f}, lowest {min(r2):8.3f}; {np.median(seconds):6.2f} s, longest "
            f"{max(seconds):6.2f}"
        )
        units = [fit["units"] for fit in fits if "units" in fit]
        if units:
            certified = sum(fit["certified"] for fit in fits)
            text += f"; units {min(units)}-{max(units)}, certified {certified} of {len(fits)}"
        warned = Counter(name for fit in fits for name in fit["warned"])
        if warned:
            text += "; " + ", ".join(f"{name} {count}" for name, count in warned.items())
    if refused:
        text += f"; refused {len(refused)}: {refused[0]}"
    return text


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="*", help=f"of {', '.join(DATA)}; all if none is named")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", help="file of fits that were done, to go on from")
    arguments = parser.parse_args(argv)
    done = {}
    if arguments.results and Path(arguments.results).exists():
        for row in map(json.loads, Path(arguments.results).read_text().splitlines()):
            done[row.pop("key")] = row
    with one_thread():
        load()
        for name in arguments.data or DATA:
            if name not in DATA:
                parser.error(f"no data {name!r}, only {', '.join(DATA)}")
            X, y = DATA[name]()
            print(f"{name}: {X.shape[0]} rows, {X.shape[1]} features, {y[:1].size} outputs")
            for model in arguments.models:
                fits = list(folds(name, X, y, model, arguments, done))
                print(line_of(model, fits) if fits else f"  {model:22}left out", flush=True)


if __name__ == "__main__":
    main()
