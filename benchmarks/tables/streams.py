"""Streams in orders that a method of one pass may trip over. The results are printed.

python -m benchmarks.tables.streams [first seed] [last seed] [rows]

For each order of 60 000 rows (d=8, k=6, m=8, noise 0.3), over the seeds: the loss over all rows of
the network found in one pass over that of the least-squares optimum of all rows (the lower of two
fits that may read them again, one of them started at the truth), median and largest; `loss_` over
the loss itself, the farthest from 1; how many say that they converged, how many say that the
network changes, and how many are wrong (loss more than 2 % above, or "exact" with a loss above
rounding) and say that they converged, or nothing.
"""

import sys
import warnings

import numpy as np

import fastsym
from benchmarks.tables.fits import PAPER
from fastsym.refine import refine
from fastsym.sources import from_arrays

D, K, M, NOISE = 8, 6, 8, 0.3
WRONG, ROUNDING = 1.02, 1e-20


def values(network, X):
    return np.maximum(X @ network.hidden_weights.T, 0) @ network.output_weights.T


def clusters(rng, n, distance):
    """Four pairs of clusters at plus and minus a centre; their numbers."""
    centres = rng.standard_normal((4, D))
    centres *= distance / np.linalg.norm(centres, axis=1, keepdims=True)
    which = rng.integers(0, 4, n)
    signs = rng.choice([-1.0, 1.0], n)
    return rng.standard_normal((n, D)) + signs[:, None] * centres[which], which


def made(order, seed, n):
    """Rows X, Y, their sample weights or None, the true network, and the sizes of the chunks."""
    rng = np.random.default_rng([seed, 12])
    network = fastsym.datasets.make_network(D, K, M, random_state=seed)
    X, weights, noise, chunk = rng.standard_normal((n, D)), None, np.full(n, NOISE), 5000
    time = np.arange(n) / n
    early = time < 1 / 3
    which = None
    if order.endswith("clusters"):
        X, which = clusters(rng, n, 1.0 if "near" in order else 30.0)
    elif order == "scale drift":
        X *= 10 ** (2 * time - 1)[:, None]
    elif order in ("dead features", "small features"):
        X[early, :2] *= 0 if order == "dead features" else 1e-3
    elif order == "noiseless first":
        noise[early] = 0
    Y = values(network, X)
    if order in ("weights drift", "network changes"):
        other = fastsym.datasets.make_network(D, K, M, random_state=seed + 10_000)
        share = time[:, None] if order == "weights drift" else (time > 0.5)[:, None]
        Y = (1 - share) * Y + share * values(other, X)
    Y += noise[:, None] * rng.standard_normal((n, M))
    if order == "sample weights grow":
        weights = 10 ** (2 * time - 1)
    if order == "tiny first blocks":
        chunk = 7
    keys = {
        "sorted by x0": X[:, 0],
        "sorted by y0": Y[:, 0],
        "sorted by |x|": np.linalg.norm(X, axis=1),
    }
    key = which if which is not None else keys.get(order)
    if key is not None:
        rows = np.argsort(key, kind="stable")
        X, Y = X[rows], Y[rows]
    return X, Y, weights, network, chunk


ORDERS = (
    "iid",
    "tiny first blocks",
    "sorted by x0",
    "sorted by y0",
    "sorted by |x|",
    "near clusters",
    "distant clusters",
    "scale drift",
    "dead features",
    "small features",
    "noiseless first",
    "weights drift",
    "network changes",
    "sample weights grow",
)


def streamed(X, Y, weights, chunk, n_hidden=K):
    """Fit in one pass; the first hundred chunks of that size, then larger ones."""
    model = fastsym.TwoLayerRegressor(n_hidden, **PAPER)
    first, count = 0, 0
    while first < len(X):
        size = chunk if count < 100 else max(chunk, 5000)
        part = slice(first, first + size)
        model.partial_fit(X[part], Y[part], None if weights is None else weights[part])
        first, count = first + size, count + 1
    return model


def mean_loss(network, X, Y, weights):
    squares = ((Y - network.predict(X)) ** 2).sum(axis=1)
    return float(np.average(squares, weights=weights))


def outcome(order, seed, n):
    """Ratio of the loss to the optimum's, loss_ over the loss, converged, change named, wrong."""
    X, Y, weights, truth, chunk = made(order, seed, n)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = streamed(X, Y, weights, chunk)
        found = model.network_
    said = [str(one.message) for one in caught if "converg" in one.category.__name__.lower()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimum = min(
            mean_loss(
                fastsym.TwoLayerRegressor(K, **PAPER).fit(X, Y, weights).network_, X, Y, weights
            ),
            mean_loss(
                refine(from_arrays(X, Y, weights), truth, trusted=True).network, X, Y, weights
            ),
        )
    loss = mean_loss(found, X, Y, weights)
    changes = any("changes during the stream" in line for line in said)
    exact = model.refinement_.certificate == "exact" and loss > ROUNDING
    wrong = (loss > WRONG * optimum or exact) and (model.converged_ or not said)
    return loss / optimum, model.loss_ / loss, model.converged_, changes, wrong


def main(first, last, n):
    for order in ORDERS:
        rows = [outcome(order, seed, n) for seed in range(first, last + 1)]
        ratio, told, converged, changes, wrong = (
            np.array(column) for column in zip(*rows, strict=True)
        )
        print(
            f"{order:20} loss over the optimum's: median {np.median(ratio):.4f} largest "
            f"{ratio.max():.4f}; loss_ over the loss {told[np.abs(told - 1).argmax()]:.3f}; "
            f"converged {converged.sum()}, change named {changes.sum()}, wrong and converged or "
            f"silent {wrong.sum()} of {len(rows)}",
            flush=True,
        )


if __name__ == "__main__":
    given = [int(one) for one in sys.argv[1:]]
    main(*(given + [0, 9, 60_000][len(given) :]))
