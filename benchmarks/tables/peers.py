"""What a user would train with instead, from a random start: each returns weights (W, A).

Needs the extra: pip install ".[peers]". All in float64 on all cores. Adam takes blocks of 256
samples in random order; the others see all samples at once.
"""

import time
import warnings

import numpy as np
from sklearn.neural_network import MLPRegressor

import fastsym
from fastsym.refine import refine
from fastsym.sources import from_arrays

BATCH = 256
EPOCHS = 200


# The peers are imported where they are used: one is enough for its own figures.


def random_weights(d, k, m, seed):
    """W and A with independent normal entries of variance 1 / d and 1 / k."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((k, d)) / np.sqrt(d), rng.standard_normal((m, k)) / np.sqrt(k)


def _network(X, Y, k, seed):
    import torch

    W, A = random_weights(X.shape[1], k, Y.shape[1], seed)
    return [torch.nn.Parameter(torch.tensor(w)) for w in (W, A)]


def _weights(parameters):
    return tuple(p.detach().numpy() for p in parameters)


def adam(X, Y, k, seed=0):
    """PyTorch Adam: 200 epochs, learning rate 1e-2 with a cosine to zero."""
    import torch

    torch.manual_seed(seed)
    W, A = _network(X, Y, k, seed)
    x, y = torch.tensor(X), torch.tensor(Y)
    steps = EPOCHS * -(-len(x) // BATCH)
    optimizer = torch.optim.Adam([W, A], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for first in range(0, len(x), BATCH):
            rows = order[first : first + BATCH]
            optimizer.zero_grad()
            loss = ((torch.relu(x[rows] @ W.T) @ A.T - y[rows]) ** 2).mean()
            loss.backward()
            optimizer.step()
            schedule.step()
    return _weights((W, A))


def lbfgs(X, Y, k, seed=0):
    """PyTorch L-BFGS: strong Wolfe line search, at most 2000 iterations."""
    import torch

    W, A = _network(X, Y, k, seed)
    x, y = torch.tensor(X), torch.tensor(Y)
    optimizer = torch.optim.LBFGS(
        [W, A], max_iter=2000, max_eval=4000, history_size=20, line_search_fn="strong_wolfe",
        tolerance_grad=1e-14, tolerance_change=1e-16,
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss = ((torch.relu(x @ W.T) @ A.T - y) ** 2).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return _weights((W, A))


def lbfgs_to(X, Y, k, loss_wanted, seed=0, max_iter=2000, own_tolerances=False):
    """L-BFGS stopped as soon as the mean squared residual norm is at most loss_wanted.

    own_tolerances: those that PyTorch sets, 1e-7 for the gradient and 1e-9 for changes. Returns the
    weights, the seconds until then, and whether it got there.
    """
    import torch

    gradient, change = (1e-7, 1e-9) if own_tolerances else (1e-14, 1e-16)
    W, A = _network(X, Y, k, seed)
    x, y = torch.tensor(X), torch.tensor(Y)
    optimizer = torch.optim.LBFGS(
        [W, A], max_iter=max_iter, max_eval=2 * max_iter, history_size=20,
        line_search_fn="strong_wolfe", tolerance_grad=gradient, tolerance_change=change,
    )  # fmt: skip
    start = time.perf_counter()
    reached = []

    class Reached(Exception):
        pass

    def closure():
        optimizer.zero_grad()
        loss = ((torch.relu(x @ W.T) @ A.T - y) ** 2).sum(dim=1).mean()
        if loss.item() <= loss_wanted:
            reached.append(time.perf_counter() - start)
            raise Reached
        loss.backward()
        return loss

    try:
        optimizer.step(closure)
    except Reached:
        pass
    seconds = reached[0] if reached else time.perf_counter() - start
    return _weights((W, A)), seconds, bool(reached)


def mlp(X, Y, k, seed=0):
    """scikit-learn's MLPRegressor(solver="lbfgs"); returns the fitted regressor, it has biases."""
    model = MLPRegressor(
        hidden_layer_sizes=(k,), solver="lbfgs", alpha=0.0, max_iter=2000, max_fun=100_000,
        tol=1e-14, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, Y)


def torch_lm(X, Y, k, seed=0, loss_wanted=0.0, seconds=60.0, steps=200):
    """torch-levenberg-marquardt: Cholesky, until loss_wanted, no progress, or `seconds`."""
    import torch
    from torch_levenberg_marquardt.loss import MSELoss
    from torch_levenberg_marquardt.training import LevenbergMarquardtModule

    W, A = random_weights(X.shape[1], k, Y.shape[1], seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(X.shape[1], k, bias=False),
        torch.nn.ReLU(),
        torch.nn.Linear(k, Y.shape[1], bias=False),
    ).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(W))
        model[2].weight.copy_(torch.tensor(A))
    module = LevenbergMarquardtModule(
        model, MSELoss(), attempts_per_step=10, solve_method="cholesky", max_batch_size=1000
    )
    x, y = torch.tensor(X), torch.tensor(Y)
    start, before = time.perf_counter(), np.inf
    poor = 0
    for _ in range(steps):
        try:
            _, loss, stop, _ = module.training_step(x, y)
        except torch.linalg.LinAlgError:
            break
        loss = loss.item() * Y.shape[1]
        poor = poor + 1 if loss > before * (1 - 1e-6) else 0
        before = min(before, loss)
        if stop or loss <= loss_wanted or poor >= 5 or time.perf_counter() - start > seconds:
            break
    return model[0].weight.detach().numpy(), model[2].weight.detach().numpy()


def own_random(X, Y, k, seed=0):
    """This package's Levenberg-Marquardt from a plain random start, and no other."""
    network = fastsym.TwoLayerNetwork(*random_weights(X.shape[1], k, Y.shape[1], seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refined = refine(from_arrays(X, Y), network, max_starts=1).network
    return refined.hidden_weights, refined.output_weights
