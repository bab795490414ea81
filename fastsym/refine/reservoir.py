"""A sample of fixed size of a stream, each of its rows as likely in it as any other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym.sources import Block, PairedRows

_SEED = 0  # part of the method: the same stream gives the same sample


class Reservoir:
    """Uniform sample of the rows of a stream, without replacement.

    Row i of the stream, counted from 0, takes the place of row floor(u_i (i + 1)) of the sample if
    there is one, with u_i the i-th number of a fixed generator: the sample does not depend on how
    rows arrive. Rows keep their weights, which do not count for whether they are drawn.

    Parameters
    ----------
    first : (X, Y, weights)
        The first rows of the stream, as many as the sample is to have. They are kept, not copied.
        weights of shape (n_rows,), or None where all are 1.

    References
    ----------
    Vitter (1985), doi:10.1145/3147.3165, algorithm R.
    """

    def __init__(self, first: Block) -> None:
        self._X, self._Y, weights = first
        n_rows = len(self._X)
        self._weights = np.ones(n_rows) if weights is None else weights
        self._numbers = np.arange(n_rows)
        self._n_taken = n_rows
        self._random = np.random.default_rng(_SEED)

    @property
    def n_rows(self) -> int:
        """Size of the sample."""
        return len(self._X)

    @property
    def n_taken(self) -> int:
        """Number of rows of the stream so far, the first ones included."""
        return self._n_taken

    @property
    def numbers(self) -> NDArray[np.intp]:
        """Numbers within the stream of the rows of `sample`, ascending."""
        return np.sort(self._numbers)

    def take(
        self, X: NDArray[Any], Y: NDArray[Any], weights: NDArray[np.float64] | None = None
    ) -> "Reservoir":
        """Go on with the rows that come next.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        Y : ndarray of shape (n_samples, n_outputs)
        weights : ndarray of shape (n_samples,), default=None
            None: all 1.

        Returns
        -------
        self : Reservoir
        """
        numbers = np.arange(self._n_taken, self._n_taken + len(X))
        places = (self._random.random(len(X)) * (numbers + 1.0)).astype(np.intp)
        rows = np.flatnonzero(places < self.n_rows)
        # Of several rows for one place the last one stays.
        np.maximum.at(self._numbers, places[rows], numbers[rows])
        rows = rows[self._numbers[places[rows]] == numbers[rows]]
        places = places[rows]
        self._X[places], self._Y[places] = X[rows], Y[rows]
        self._weights[places] = 1.0 if weights is None else weights[rows]
        self._n_taken += len(X)
        return self

    def sample(self, in_order: bool = True) -> PairedRows:
        """Return the sample.

        Parameters
        ----------
        in_order : bool, default=True
            A copy in the order of the stream; if not, the rows themselves, until `take`.

        Returns
        -------
        sample : PairedRows
            Without weights where all are 1.
        """
        X, Y, weights = self._X, self._Y, self._weights
        if in_order:
            order = np.argsort(self._numbers)
            X, Y, weights = X[order], Y[order], weights[order]
        return PairedRows(X, Y, None if (weights == 1).all() else weights, checked=True)
