"""Directions of x that samples show, and what is said of the others."""

import numpy as np

from fastsym.algebra import Matrix, whitening
from fastsym.exceptions import RankDeficientWarning, warn

_ROUNDING = 1e-26  # share of the mean square of a feature that is rounding
FEW_ROWS = 4
"""1 / leverage below which a row is one of a few that determine the fit there."""


def supported_whitening(rows: Matrix, moment: Matrix, roots: Matrix | None = None) -> Matrix:
    """`whitening` of all samples, without directions that a few rows alone show.

    The weights of such a direction would be made to fit these rows, whatever they are, and say
    nothing of any other. 1 / leverage of a row is the number of rows that determine the fit there:
    what X loses without the rows for which that is below `FEW_ROWS` has no support. Rank alone
    counts, so that heavy tails and conditions lose nothing. As in the null space of X, weights
    have no part in what is lost, where each feature has the root mean square of the others as unit.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        sqrt(weight) x.
    moment : ndarray of shape (n_features, n_features)
        Mean of x x^T.
    roots : ndarray of shape (n_samples,), default=None
        sqrt(weight), where there is a constant beside x: rows are centred then, and what is the
        same in all rows but a few is not shown by the others. None: there is none.

    Returns
    -------
    whiten : ndarray of shape (n_features, rank)
        whiten^T moment whiten = I.

    References
    ----------
    Huber, "Robust Statistics" (1981), section 7.2, doi:10.1002/0471725250, for the leverage.
    """
    whiten = shown = whitening(moment)
    rank = whiten.shape[1]
    # One of a few rows may be so large that the others are seen only when it is left out.
    for _ in range(FEW_ROWS - 1):
        white = rows @ shown
        # The sum of all leverages is the rank.
        leverage = np.einsum("ij,ij->i", white, white)
        few = leverage > leverage.sum() / (FEW_ROWS * max(shown.shape[1], 1))
        if not few.any():
            break
        rows = rows[~few]
        if len(rows) <= 2 * rank:
            return whiten
        if roots is not None:
            roots = roots[~few]
            rows = rows - np.outer(roots, roots @ rows / (roots @ roots))
            rows[:, (rows**2).mean(axis=0) <= _ROUNDING * np.diag(moment)] = 0
        shown = whitening(rows.T @ rows / len(rows))
    if not 0 < shown.shape[1] < rank:
        return whiten
    return shown @ whitening(shown.T @ moment @ shown)


def smallest_variance(moment: Matrix, whiten: Matrix) -> float:
    """Return the smallest variance kept, relative to the largest, features at unit mean square.

    Parameters
    ----------
    moment : ndarray of shape (n_features, n_features)
    whiten : ndarray of shape (n_features, rank)
        whiten^T moment whiten = I.

    Returns
    -------
    share : float
    """
    scale = np.sqrt(np.maximum(np.diag(moment), 0))
    sizes = np.linalg.svd(scale[:, None] * whiten, compute_uv=False)
    return float((sizes.min() / sizes.max()) ** 2) if sizes.size else 0.0


def warn_of_rank(moment: Matrix, whiten: Matrix) -> None:
    """Say how many directions of x the samples do not show, if there are any.

    Parameters
    ----------
    moment : ndarray of shape (n_features, n_features)
        E[x x^T], not centred.
    whiten : ndarray of shape (n_features, rank)
        whiten^T moment whiten = I.

    Warns
    -----
    RankDeficientWarning
        If the rank is below n_features.
    """
    n_features, rank = whiten.shape
    if rank == n_features:
        return
    few = whitening(moment).shape[1] - rank
    parts = [
        f"{count} {what}"
        for count, what in (
            (n_features - rank - few, "constant zero or linearly dependent"),
            (few, "shown by a few rows alone"),
        )
        if count
    ]
    warn(
        f"the second moments of X have rank {rank} of {n_features} (directions: "
        f"{', '.join(parts)}; the smallest variance kept is "
        f"{smallest_variance(moment, whiten):.2g} of the largest): weights in the remaining "
        f"{n_features - rank} directions are set to zero",
        RankDeficientWarning,
    )
