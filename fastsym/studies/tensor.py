"""Tensor decomposition beside the trivial predictor, as the number of units grows."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from fastsym.algebra import Matrix, unit_rows
from fastsym.studies import hermite

_TRIALS = 5
_SHARES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 20.0)  # r / d


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
        itertools.product(sizes, _SHARES, range(2 if quick else _TRIALS)), 1
    ):
        r = max(1, round(share * d))
        rows.append(_tensor_trial(d, r, trial, 50_000 if quick else 100_000))
        if callback is not None:
            callback(done)
    return rows


def n_tensor_trials(quick: bool) -> int:
    """Count the trials of `tensor_connection`.

    Parameters
    ----------
    quick : bool

    Returns
    -------
    n_trials : int
    """
    return len(_SHARES) * (2 if quick else 2 * _TRIALS)


def _tensor_trial(d: int, r: int, trial: int, n: int) -> dict[str, Any]:
    rng = np.random.default_rng([trial, d, r])
    W = rng.standard_normal((r, d))
    W = unit_rows(W)

    def samples(count: int) -> tuple[Matrix, Matrix]:
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
