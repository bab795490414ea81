"""Rows on their way to the kernels, in one layout: buffers of sqrt(weight) (1, x, y, 0 ...).

The square root makes every product of two entries weighted by `weight`, and a ReLU network commutes
with it, relu(c t) = c relu(t).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastsym.sums.layout import aligned_zeros, padded
from fastsym.sums.units import Units

SUPERBLOCK_ROWS = 8192
"""Rows staged before they are summed; also the pilot of a stream."""


def staged_rows(n_features: int, n_outputs: int) -> int:
    """Rows of a superblock: SUPERBLOCK_ROWS, more if that is few for so many columns.

    Parameters
    ----------
    n_features, n_outputs : int

    Returns
    -------
    n_rows : int
        A multiple of SUPERBLOCK_ROWS, at least 4 (n_features + n_outputs).
    """
    factor = -(-4 * (n_features + n_outputs) // SUPERBLOCK_ROWS)
    return SUPERBLOCK_ROWS * max(1, factor)


def stage(
    out: NDArray[Any],
    X: NDArray[Any],
    Y: NDArray[Any],
    weights: NDArray[Any] | None = None,
    first: int = 0,
    units: Units | None = None,
) -> int:
    """Write sqrt(weight) (1, x, y) into rows of `out`, as many as it has room for.

    Parameters
    ----------
    out : ndarray of shape (n_rows, at least 1 + n_features + n_outputs)
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    weights : ndarray of shape (n_samples,), default=None
        Positive; None: all 1.
    first : int, default=0
        Sample to begin with.
    units : Units, default=None
        To bring the samples into. None: as they are.

    Returns
    -------
    count : int
        Rows written.
    """
    d, m = X.shape[1], Y.shape[1]
    count = min(len(out), len(X) - first)
    out, part = out[:count], slice(first, first + count)
    X, Y, weights = X[part], Y[part], None if weights is None else weights[part]
    if units is not None:
        X, Y, weights = units.rows(X, Y, weights)
    out[:, 0] = 1
    out[:, 1 : 1 + d] = X
    out[:, 1 + d : 1 + d + m] = Y
    if weights is not None:
        out[:, : 1 + d + m] *= np.sqrt(weights)[:, None]
    return count


class Stager:
    """Buffer of staged rows that says when it is full.

    Parameters
    ----------
    n_features, n_outputs : int
    n_rows : int, default=SUPERBLOCK_ROWS
        Of the buffer.
    dtype : dtype, default=float64
    units : Units, default=None
        Of the staged rows. None: as they are.

    Attributes
    ----------
    rows : ndarray of shape (n_rows, padded(1 + n_features + n_outputs))
        The first `count` are staged.
    count : int
    weighted : bool
        Whether any weight was given since the beginning.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        n_rows: int = SUPERBLOCK_ROWS,
        dtype: DTypeLike = np.float64,
        units: Units | None = None,
    ) -> None:
        self.n_features, self.n_outputs, self._n_rows = n_features, n_outputs, n_rows
        self.rows = aligned_zeros((n_rows, padded(1 + n_features + n_outputs)), dtype)
        self.units = units
        self.count, self.weighted = 0, units is not None and units.root != 0

    def convert(self, dtype: DTypeLike, units: Units | None) -> None:
        """Bring the staged rows, and those to come, into another dtype and from none into units.

        Parameters
        ----------
        dtype : dtype
        units : Units or None

        Raises
        ------
        ValueError
            If a value cannot be represented.
        """
        if units is None and self.rows.dtype == dtype:
            return
        before = self.staged
        staged = before if units is None else units.staged(before)
        self.rows = aligned_zeros(self.rows.shape, dtype)
        with np.errstate(over="ignore"):
            self.rows[: self.count, : staged.shape[1]] = staged
        self.units = units
        self.weighted |= units is not None and units.root != 0
        bad = ~np.isfinite(self.staged).all(axis=1)
        if bad.any():
            X, Y = np.split(before[bad.argmax(), 1:], [self.n_features])
            raise ValueError(
                f"row {bad.argmax()} holds {np.abs(X).max():.3g} in X and {np.abs(Y).max():.3g} in "
                f"Y, which {self.rows.dtype} cannot represent beside the other rows; remove it, or "
                'use compute_dtype="float64".'
            )

    def check_representable(self, X: NDArray[Any], Y: NDArray[Any]) -> None:
        """Raise ValueError if a value overflows where it is staged.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        Y : ndarray of shape (n_samples, n_outputs)
        """
        if self.rows.dtype == np.float64:
            return
        scaled = (X, Y) if self.units is None else self.units.rows(X, Y, None)[:2]
        for name, given, rows in (("X", X, scaled[0]), ("Y", Y, scaled[1])):
            if rows.dtype == self.rows.dtype or not len(rows):
                continue
            if float(np.abs(rows).max()) > float(np.finfo(self.rows.dtype).max):
                raise ValueError(
                    f"{name} holds {float(np.abs(given).max()):.3g}, which {self.rows.dtype} "
                    f"cannot represent beside the pilot's values; remove such rows of {name} or "
                    'use compute_dtype="float64".'
                )

    def largest_values(self) -> str:
        """Say what the largest values among the staged rows are."""
        staged = self.staged.astype(np.float64)
        if self.units is not None:
            staged = np.ldexp(staged, self.units.exponents)
        _, X, Y = np.split(np.abs(staged), [1, 1 + self.n_features], 1)
        return f"{X.max():.3g} in X and {Y.max():.3g} in Y"

    def fill(
        self, X: NDArray[Any], Y: NDArray[Any], weights: NDArray[np.float64] | None = None
    ) -> Iterator[None]:
        """Stage samples; yields whenever the buffer is full, and empties it after that.

        If what is done with a full buffer raises, it stays full, and is the first to be yielded
        the next time.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        Y : ndarray of shape (n_samples, n_outputs)
        weights : ndarray of shape (n_samples,), default=None
            Positive; None: all 1.

        Yields
        ------
        None
        """
        self.weighted |= weights is not None
        taken = 0
        while taken < len(X):
            count = stage(self.rows[self.count :], X, Y, weights, taken, self.units)
            taken += count
            yield from self._advance(count)

    def refill(self, rows: NDArray[Any]) -> Iterator[None]:
        """Take in rows that another buffer has staged, as `fill` takes samples.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, at least 1 + n_features + n_outputs)

        Yields
        ------
        None
        """
        width = 1 + self.n_features + self.n_outputs
        taken = 0
        while taken < len(rows):
            count = min(len(self.rows) - self.count, len(rows) - taken)
            self.rows[self.count : self.count + count, :width] = rows[taken : taken + count, :width]
            taken += count
            yield from self._advance(count)

    def _advance(self, count: int) -> Iterator[None]:
        self.count += count
        if self.count == len(self.rows):
            yield
            self.count = 0

    @property
    def staged(self) -> NDArray[Any]:
        """The staged rows without padding, a view of shape (count, 1 + n_features + n_outputs)."""
        return self.rows[: self.count, : 1 + self.n_features + self.n_outputs]

    @property
    def weight(self) -> float:
        """Sum of the weights of the staged rows; their number without weights."""
        if not self.weighted:
            return float(self.count)
        first = self.rows[: self.count, 0].astype(np.float64)
        return float(first @ first)

    @property
    def weight_square(self) -> float:
        """Sum of the squared weights of the staged rows; their number without weights."""
        if not self.weighted:
            return float(self.count)
        with np.errstate(over="ignore"):  # infinite where one weight dwarfs the others
            square = self.rows[: self.count, 0].astype(np.float64) ** 2
            return float(square @ square)

    def samples(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]:
        """Return the staged rows as (X, Y, weights); weights is None where all are 1."""
        d, staged = self.n_features, self.staged
        X, Y = staged[:, 1 : 1 + d], staged[:, 1 + d :]
        if not self.weighted:
            return X, Y, None
        root = staged[:, :1].astype(np.float64)
        return X / root, Y / root, root[:, 0] ** 2

    def check(self, rows: NDArray[Any]) -> None:
        """Raise ValueError if these are not rows that `staged` of such a buffer gave.

        Parameters
        ----------
        rows : ndarray
        """
        width = 1 + self.n_features + self.n_outputs
        if rows.ndim != 2 or rows.dtype != self.rows.dtype or rows.shape[1] != width:
            raise ValueError(
                f"staged must have shape (n, {width}) and dtype {self.rows.dtype}, got "
                f"{rows.shape} and {rows.dtype}."
            )
        if len(rows) >= len(self.rows):
            raise ValueError(f"{len(rows)} staged rows are more than {len(self.rows) - 1}.")

    def restore(self, rows: NDArray[Any], weighted: bool) -> None:
        """Take over rows that were checked.

        Parameters
        ----------
        rows : ndarray of shape (count, 1 + n_features + n_outputs)
        weighted : bool
        """
        self.rows[: len(rows), : rows.shape[1]] = rows
        self.count, self.weighted = len(rows), weighted

    def __getstate__(self) -> dict[str, Any]:
        # The room for more rows need not be sent or copied.
        return self.__dict__ | {"rows": self.rows[: self.count]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild with a buffer that is aligned, and this object's own."""
        self.__dict__.update(state)
        rows = state["rows"]
        self.rows = aligned_zeros((self._n_rows, rows.shape[1]), rows.dtype)
        self.rows[: self.count] = rows
