"""Recipes: how a network is recovered from samples, by name.

Two are the paper's, two this package's; one starts at the truth and says what the samples allow.
PyTorch's optimizers are there for comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize

from fastsym import spectral
from fastsym.algebra import Matrix
from fastsym.engine import accumulate
from fastsym.estimator import TwoLayerRegressor
from fastsym.network import TwoLayerNetwork
from fastsym.refine import refine
from fastsym.refine.sample import Sample
from fastsym.sources import from_arrays


@dataclass(frozen=True)
class Task:
    """What a recipe is given; fields as the parameters of `recover`."""

    X: Matrix
    Y: Matrix
    n_hidden: int
    truth: TwoLayerNetwork
    seed: int


Recipe = Callable[[Task], TwoLayerNetwork]


def recover(
    recipe: str, X: Matrix, Y: Matrix, n_hidden: int, truth: TwoLayerNetwork, seed: int
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
    return {**RECIPES, **PEERS}[recipe](Task(X, Y, n_hidden, truth, seed))


def _solved(task: Task, method: str) -> TwoLayerNetwork:
    """Solve the moments alone."""
    moments = accumulate(from_arrays(task.X, task.Y), task.n_hidden).moments()
    return spectral.solve(moments, method=method, random_state=task.seed).network


def _als(task: Task) -> TwoLayerNetwork:
    return _gradient_fit(task.X, task.Y, _solved(task, "als"))


def _refined(task: Task) -> TwoLayerNetwork:
    return TwoLayerRegressor(task.n_hidden).fit(task.X, task.Y).network_


def _from_truth(task: Task) -> TwoLayerNetwork:
    source = from_arrays(task.X, task.Y)
    return refine(source, task.truth, trusted=True, max_starts=1).network


def _gradient_fit(X: Matrix, Y: Matrix, start: TwoLayerNetwork) -> TwoLayerNetwork:
    """Fit W by gradient (L-BFGS) with A as it is: the last step of the paper's practice."""
    sample = Sample(X, Y)
    shape = start.hidden_weights.shape
    outputs = start.output_weights

    def loss(flat: Matrix) -> tuple[float, Matrix]:
        hidden = np.concatenate([np.zeros((shape[0], 1)), flat.reshape(shape)], axis=1)
        residuals = sample.residuals(hidden, outputs, 0.0)
        n = residuals.n_samples
        return residuals.loss / n, -2 / n * residuals.hidden_gradient[:, 1:].ravel()

    found = minimize(
        loss, start.hidden_weights.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200}
    )
    return TwoLayerNetwork(found.x.reshape(shape), outputs)


def _torch_fit(task: Task, train: Callable[[Any, Any, int, Any], None]) -> TwoLayerNetwork:
    """Train by PyTorch from one random start, as it is commonly done."""
    import torch

    generator = torch.Generator().manual_seed(task.seed)
    x, y = torch.from_numpy(task.X), torch.from_numpy(task.Y)

    def start(rows: int, columns: int) -> Any:
        drawn = torch.randn(rows, columns, generator=generator, dtype=x.dtype)
        return (drawn / columns**0.5).requires_grad_()

    k = task.n_hidden
    weights = [start(k, x.shape[1]), start(y.shape[1], k)]

    def loss(rows: Any) -> Any:
        hidden = torch.relu(x[rows] @ weights[0].T)
        return ((hidden @ weights[1].T - y[rows]) ** 2).sum() / len(x[rows])

    train(weights, loss, len(x), generator)
    W, A = (each.detach().numpy() for each in weights)
    return TwoLayerNetwork(W, A)


def _train_by_lbfgs(weights: Any, loss: Any, n_samples: int, generator: Any) -> None:
    import torch

    search = torch.optim.LBFGS(
        weights, max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-14
    )

    def closure() -> Any:
        search.zero_grad()
        value = loss(slice(None))
        value.backward()
        return value

    search.step(closure)


def _train_by_adam(weights: Any, loss: Any, n_samples: int, generator: Any) -> None:
    import torch

    epochs, batch = 200, 256
    adam = torch.optim.Adam(weights, lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(n_samples, generator=generator).split(batch):
            adam.zero_grad()
            loss(rows).backward()
            adam.step()
        schedule.step()


RECIPES: dict[str, Recipe] = {
    "pair": partial(_solved, method="pair"),  # the paper's text: one random pair
    "als": _als,  # the paper's practice: CP-ALS, then W by gradient
    "spectral": partial(_solved, method="uwedge"),
    "refined": _refined,
    "truth": _from_truth,
}
"""Recipes by name, in the order of the figures."""

PEERS: dict[str, Recipe] = {
    "adam": partial(_torch_fit, train=_train_by_adam),
    "lbfgs": partial(_torch_fit, train=_train_by_lbfgs),
}
"""Recipes that need PyTorch (extra `peers`)."""
