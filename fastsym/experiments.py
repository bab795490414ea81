"""The experiments of the paper, point by point, and what lies beyond them.

A point is a random network, samples of it and the recipes that are to recover it; its result is a
row for each recipe with the errors of W, of A and of the outputs. `EXPERIMENTS` says which points
an experiment has; `run` goes through them.

Errors of W and A are `fastsym.parameter_error`: summed squared distances of matched, normalised
weights. The output error is the mean over 10 000 fresh inputs and all outputs of the squared
difference to the noiseless outputs of the true network.
"""

import importlib.util
import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from fastsym import hermite, spectral
from fastsym.datasets import DISTRIBUTIONS, make_network, sample_blocks
from fastsym.engine import accumulate
from fastsym.estimator import TwoLayerRegressor
from fastsym.metrics import parameter_error
from fastsym.network import TwoLayerNetwork
from fastsym.refine import refine
from fastsym.residuals import Sample
from fastsym.sources import from_arrays

Array = NDArray[np.float64]

RECIPES = {
    "pair": "paper's text: one random pair",
    "als": "paper's practice: CP-ALS, then W by gradient",
    "spectral": "fastsym, moments alone",
    "refined": "fastsym, refined",
    "truth": "optimum from the truth",
}
"""Recipes by name, in the order of the figures."""

PEERS = {"adam": "PyTorch Adam", "lbfgs": "PyTorch L-BFGS"}
"""Recipes that need PyTorch (extra `peers`)."""

RECOVERED = 0.01
"""A recipe has recovered a network when its errors of W and A are at most this."""

TRIALS = 5
_TEST_ROWS = 10_000


@dataclass(frozen=True)
class Point:
    """One trial.

    Parameters
    ----------
    series : str
        Which line or panel of a figure it belongs to.
    x : float
        Its place on the horizontal axis.
    n_samples, n_features, n_hidden, n_outputs : int
    distribution : str
    noise : float
    hidden_condition, output_condition : float
    trial : int
        Seed of the network and the samples.
    recipes : tuple of str
    """

    series: str
    x: float
    n_samples: int
    n_features: int
    n_hidden: int
    n_outputs: int
    distribution: str = "gaussian"
    noise: float = 0.0
    hidden_condition: float = 1.0
    output_condition: float = 1.0
    trial: int = 0
    recipes: tuple[str, ...] = tuple(RECIPES)


def square(k: int, n: int, **how: Any) -> Point:
    """Point with d = k = m.

    Parameters
    ----------
    k, n : int
        Hidden units and samples.
    how : object
        Other fields of `Point`.

    Returns
    -------
    point : Point
    """
    return Point(n_samples=n, n_features=k, n_hidden=k, n_outputs=k, **how)


def trials(points: Iterable[Point], quick: bool) -> Iterator[Point]:
    """Repeat each point for five seeds, or two.

    Parameters
    ----------
    points : iterable of Point
    quick : bool

    Yields
    ------
    point : Point
    """
    for point in points:
        for trial in range(2 if quick else TRIALS):
            yield replace(point, trial=trial)


def sample_efficiency(quick: bool) -> list[Point]:
    """Error against the number of samples at d = 10 and 32, and against d at 10 000 samples.

    Parameters
    ----------
    quick : bool
        Fewer points and trials.

    Returns
    -------
    points : list of Point
        Series "d=10", "d=32" and "dimension".

    References
    ----------
    Section 6 of the paper, sample efficiency.
    """
    small = [40, 60, 80, 120, 200, 400, 1000, 3000, 10_000, 30_000, 100_000]
    large = [140, 200, 400, 600, 1000, 3000, 10_000, 30_000, 100_000]
    sizes = [10, 14, 18, 22, 27, 32]
    if quick:
        small, large, sizes = [60, 120, 1000, 10_000], [600, 10_000], [10, 16, 24]
    points = [square(10, n, series="d=10", x=n) for n in small]
    points += [square(32, n, series="d=32", x=n) for n in large]
    points += [square(d, 10_000, series="dimension", x=d) for d in sizes]
    return list(trials(points, quick))


def noise(quick: bool) -> list[Point]:
    """Error against the standard deviation of the label noise, 10 000 samples.

    Parameters
    ----------
    quick : bool
        Fewer points and trials.

    Returns
    -------
    points : list of Point
        Series "gaussian" and "gaussian_mixture".

    References
    ----------
    Section 6 of the paper, robustness to noise.
    """
    levels = [0.01, 0.3, 1.0] if quick else [0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]
    points = [
        square(10, 10_000, series=name, x=level, distribution=name, noise=level)
        for name in ("gaussian", "gaussian_mixture")
        for level in levels
    ]
    return list(trials(points, quick))


def conditioning(quick: bool) -> list[Point]:
    """Error against the condition number of W and of A, mixture of Gaussians, 20 000 samples.

    Parameters
    ----------
    quick : bool
        Fewer points and trials.

    Returns
    -------
    points : list of Point
        Series "W" and "A".

    References
    ----------
    Section 6 of the paper, robustness to the condition number.
    """
    conditions = [1, 10, 100] if quick else [1, 2, 5, 10, 20, 50, 100]
    points = [
        square(
            10, 20_000, series=series, x=value, distribution="gaussian_mixture",
            hidden_condition=value if series == "W" else 1.0,
            output_condition=value if series == "A" else 1.0,
        )
        for series in ("W", "A")
        for value in conditions
    ]  # fmt: skip
    return list(trials(points, quick))


def beyond(quick: bool) -> list[Point]:
    """All seven distributions, d > k and m > k, with PyTorch's optimizers where it is installed.

    Parameters
    ----------
    quick : bool
        Fewer trials, without PyTorch.

    Returns
    -------
    points : list of Point
        A series for each problem.
    """
    points = [
        square(10, 10_000, series=name, x=i, distribution=name, noise=0.1)
        for i, name in enumerate(DISTRIBUTIONS)
    ]
    shapes = {"d=30, k=10, m=10": (30, 10, 10), "d=10, k=10, m=30": (10, 10, 30),
              "d=30, k=10, m=30": (30, 10, 30)}  # fmt: skip
    points += [
        Point(name, 7 + i, 10_000, *sizes, noise=0.1)
        for i, (name, sizes) in enumerate(shapes.items())
    ]
    peers = tuple(PEERS) if importlib.util.find_spec("torch") and not quick else ()
    # PyTorch takes seconds a fit: two trials show where it ends.
    return [
        replace(point, recipes=point.recipes + peers) if point.trial < 2 else point
        for point in trials(points, quick)
    ]


EXPERIMENTS: dict[str, Callable[[bool], list[Point]]] = {
    "sample-efficiency": sample_efficiency,
    "noise": noise,
    "conditioning": conditioning,
    "beyond": beyond,
}
"""Experiments by name; each is a function of `quick` that lists the points."""


def run(
    points: Iterable[Point], callback: Callable[[int], object] | None = None
) -> list[dict[str, Any]]:
    """Run points one after the other.

    Parameters
    ----------
    points : iterable of Point
    callback : callable, default=None
        Called with the number of points done.

    Returns
    -------
    rows : list of dict
        One for each point and recipe: the fields of the point, "recipe", "hidden_error",
        "output_weight_error", "output_error", "seconds", and "failure", the error where a recipe
        could not be applied (too few samples), whose errors are then NaN.
    """
    rows = []
    for done, point in enumerate(points, 1):
        rows += run_point(point)
        if callback is not None:
            callback(done)
    return rows


def run_point(point: Point) -> list[dict[str, Any]]:
    """Recover the network of a point by each of its recipes.

    Parameters
    ----------
    point : Point

    Returns
    -------
    rows : list of dict
        As `run` returns them.
    """
    rng = np.random.default_rng([point.trial, point.n_features, point.n_hidden, point.n_outputs])
    truth = make_network(
        point.n_features,
        point.n_hidden,
        point.n_outputs,
        hidden_condition=point.hidden_condition,
        output_condition=point.output_condition,
        random_state=rng,
    )

    def samples(n: int, level: float) -> tuple[Array, Array]:
        return next(
            sample_blocks(
                truth,
                n,
                block_rows=n,
                distribution=point.distribution,
                noise=level,
                random_state=rng,
            )
        )

    X, Y = samples(point.n_samples, point.noise)
    X_test, Y_test = samples(_TEST_ROWS, 0.0)
    fields = asdict(point)
    fields.pop("recipes")
    rows = []
    for recipe in point.recipes:
        row: dict[str, Any] = fields | {"recipe": recipe, "failure": ""}
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # hard points are the purpose of some
                network = recover(recipe, X, Y, point.n_hidden, truth, point.trial)
        except (ValueError, np.linalg.LinAlgError) as error:
            row |= {"failure": str(error), "seconds": time.perf_counter() - start}
            row |= dict.fromkeys(("hidden_error", "output_weight_error", "output_error"), np.nan)
        else:
            row["seconds"] = time.perf_counter() - start
            row["hidden_error"], row["output_weight_error"] = parameter_error(truth, network)
            row["output_error"] = float(((network.predict(X_test) - Y_test) ** 2).mean())
        rows.append(row)
    return rows


def recover(
    recipe: str, X: Array, Y: Array, n_hidden: int, truth: TwoLayerNetwork, seed: int
) -> TwoLayerNetwork:
    """Recover a network from samples by a recipe.

    Parameters
    ----------
    recipe : str
        One of `RECIPES` or `PEERS`.
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    n_hidden : int
    truth : TwoLayerNetwork
        Where the recipe "truth" starts; the others do not see it.
    seed : int
        Of what a recipe draws.

    Returns
    -------
    network : TwoLayerNetwork

    Raises
    ------
    ValueError
        If the samples are too few for the recipe.
    """
    if recipe == "refined":
        return TwoLayerRegressor(n_hidden).fit(X, Y).network_
    source = from_arrays(X, Y)
    if recipe == "truth":
        return refine(source, truth, trusted=True, max_starts=1).network
    if recipe in PEERS:
        return _torch_fit(recipe, X, Y, n_hidden, seed)
    moments = accumulate(source, n_hidden).moments()
    method = "uwedge" if recipe == "spectral" else recipe
    network = spectral.solve(moments, method=method, random_state=seed).network
    return _gradient_fit(X, Y, network) if recipe == "als" else network


def _gradient_fit(X: Array, Y: Array, start: TwoLayerNetwork) -> TwoLayerNetwork:
    """Fit W by gradient (L-BFGS) with A as it is: the last step of the paper's practice."""
    sample = Sample(X, Y)
    shape = start.hidden_weights.shape
    outputs = start.output_weights

    def loss(flat: Array) -> tuple[float, Array]:
        hidden = np.concatenate([np.zeros((shape[0], 1)), flat.reshape(shape)], axis=1)
        residuals = sample.residuals(hidden, outputs, 0.0)
        n = residuals.n_samples
        return residuals.loss / n, -2 / n * residuals.hidden_gradient[:, 1:].ravel()

    found = minimize(
        loss, start.hidden_weights.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200}
    )
    return TwoLayerNetwork(found.x.reshape(shape), outputs)


def _torch_fit(optimizer: str, X: Array, Y: Array, k: int, seed: int) -> TwoLayerNetwork:
    """Train by PyTorch from one random start, as it is commonly done."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(X), torch.from_numpy(Y)

    def start(rows: int, columns: int) -> Any:
        drawn = torch.randn(rows, columns, generator=generator, dtype=x.dtype)
        return (drawn / columns**0.5).requires_grad_()

    weights = [start(k, X.shape[1]), start(Y.shape[1], k)]

    def loss(rows: Any) -> Any:
        hidden = torch.relu(x[rows] @ weights[0].T)
        return ((hidden @ weights[1].T - y[rows]) ** 2).sum() / len(x[rows])

    if optimizer == "lbfgs":
        search = torch.optim.LBFGS(
            weights, max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-14
        )

        def closure() -> Any:
            search.zero_grad()
            value = loss(slice(None))
            value.backward()
            return value

        search.step(closure)
    else:
        epochs, batch = 200, 256
        adam = torch.optim.Adam(weights, lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(batch):
                adam.zero_grad()
                loss(rows).backward()
                adam.step()
            schedule.step()
    W, A = (each.detach().numpy() for each in weights)
    return TwoLayerNetwork(W, A)


def tensor_connection(
    quick: bool, callback: Callable[[int], object] | None = None
) -> list[dict[str, Any]]:
    """Third-order Hermite moments: learned against trivial predictor as r grows past d^(3/2).

    y = sum_i sigma(w_i . x) with r random unit w_i, sigma(t) = 1 + He3(t) / sqrt(6), x Gaussian, no
    noise. The decomposition has min(r, d) units; the trivial predictor is the constant E[y].

    Parameters
    ----------
    quick : bool
        Fewer points and trials.
    callback : callable, default=None
        Called with the number of trials done.

    Returns
    -------
    rows : list of dict
        "d", "r", "trial", "ratio" (squared error of the learned over the trivial predictor on
        fresh samples) and "weight_error" (mean squared distance of the true weights to the nearest
        recovered ones, signs matched).

    References
    ----------
    Mondelli and Montanari, arXiv:1802.07301.
    """
    sizes = (12,) if quick else (12, 20)
    rows = []
    for done, (d, share, trial) in enumerate(
        itertools.product(sizes, _SHARES, range(2 if quick else TRIALS)), 1
    ):
        r = max(1, round(share * d))
        rows.append(_tensor_trial(d, r, trial, 50_000 if quick else 100_000))
        if callback is not None:
            callback(done)
    return rows


_SHARES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 20.0)  # r / d


def n_tensor_trials(quick: bool) -> int:
    """Count the trials of `tensor_connection`.

    Parameters
    ----------
    quick : bool

    Returns
    -------
    n_trials : int
    """
    return len(_SHARES) * (2 if quick else 2 * TRIALS)


def _tensor_trial(d: int, r: int, trial: int, n: int) -> dict[str, Any]:
    rng = np.random.default_rng([trial, d, r])
    W = rng.standard_normal((r, d))
    W /= np.linalg.norm(W, axis=1, keepdims=True)

    def samples(count: int) -> tuple[Array, Array]:
        X = rng.standard_normal((count, d))
        t = X @ W.T
        return X, (1 + (t**3 - 3 * t) / np.sqrt(6)).sum(axis=1)

    blocks = (samples(10_000) for _ in range(n // 10_000))
    moments = hermite.accumulate_hermite(blocks, d, d, rng)
    weights = hermite.decompose(moments, min(r, d))
    c = hermite.coefficients(moments, weights)
    X, y = samples(20_000)
    learned = ((hermite.predict(moments, weights, c, X) - y) ** 2).mean()
    trivial = ((moments.mean - y) ** 2).mean()
    nearest = np.abs(W @ weights.T).max(axis=1)
    return {
        "d": d,
        "r": r,
        "trial": trial,
        "n_samples": n,
        "ratio": float(learned / trivial),
        "weight_error": float((2 - 2 * nearest).mean()),
    }


def recovered_from(rows: list[dict[str, Any]], recipe: str) -> float | None:
    """Smallest number of samples from which a recipe recovers the network in all trials.

    Parameters
    ----------
    rows : list of dict
        Of one series over the number of samples, as `run` returns them.
    recipe : str

    Returns
    -------
    n_samples : float or None
        Both errors are at most `RECOVERED` in all trials there and at all larger numbers; None if
        not even at the largest.
    """
    mine = [row for row in rows if row["recipe"] == recipe]
    found = None
    for x in sorted({row["x"] for row in mine}, reverse=True):
        at = [row for row in mine if row["x"] == x]
        # NaN fails the comparison.
        if not all(
            row["hidden_error"] <= RECOVERED and row["output_weight_error"] <= RECOVERED
            for row in at
        ):
            break
        found = x
    return found
