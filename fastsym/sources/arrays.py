"""Samples that can be read by ranges of rows: arrays, frames and opened files."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastsym._validation import as_rows, check_weights, weighted_rows
from fastsym.sources.formats.rows import RowRange, Rows
from fastsym.sources.source import (
    Block,
    check_block_rows,
    joined,
    rows_of_block,
    spread_runs,
)


class PairedRows:
    """Samples (X, Y) that can be read by rows, more than once.

    Parameters
    ----------
    X : array of shape (n_samples, n_features) or Rows
    Y : array of shape (n_samples, n_outputs) or Rows
    weights : array of shape (n_samples,) or Rows with one column, default=None
        Importance of the samples, at least 0, in any unit; None: all 1.
    block_rows : int, default=None
        Rows read at once. None: about 8 MiB of X and Y, less where memory is short.
    first_row : int, default=0
        Number of the first row, for messages.
    checked : bool, default=False
        Whether the values are known to be finite, so that readers need not look again.

    Raises
    ------
    ValueError
        If the numbers of rows differ.
    """

    def __init__(
        self,
        X: Rows,
        Y: Rows,
        weights: Rows | None = None,
        *,
        block_rows: int | None = None,
        first_row: int = 0,
        checked: bool = False,
    ) -> None:
        if X.shape[0] != Y.shape[0]:
            raise ValueError(
                "X and Y must have the same number of rows, got inconsistent numbers of samples: "
                f"{X.shape[0]} and {Y.shape[0]}."
            )
        if weights is not None and (
            weights.shape[0] != X.shape[0] or weights.shape[1:] not in ((), (1,))
        ):
            raise ValueError(
                f"the weights must have shape ({X.shape[0]},), one number a sample, got shape "
                f"{weights.shape}."
            )
        self.X, self.Y = X, Y
        self.weights: Any = weights
        self.block_rows, self.first_row = check_block_rows(block_rows), first_row
        self.checked = checked

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.X.shape[0]

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return self.X.shape[1]

    @property
    def n_outputs(self) -> int:
        """Columns of Y."""
        return self.Y.shape[1]

    @property
    def in_memory(self) -> bool:
        """Whether X and Y are arrays in memory; a memory map is not."""
        return all(type(rows) is np.ndarray for rows in (self.X, self.Y))

    def blocks(self, first_row: int = 0) -> Iterator[Block]:
        """Yield the samples from a row on in order as (X, Y, weights), `block_rows` at a time."""
        n_rows = self.block_rows
        if n_rows is None:
            n_rows = rows_of_block(
                sum(rows.shape[1] * rows.dtype.itemsize for rows in (self.X, self.Y))
            )
        for first in range(first_row, self.n_samples, n_rows):
            yield self._rows(first, min(first + n_rows, self.n_samples))

    def _rows(self, first: int, last: int) -> Block:
        weights = None
        if self.weights is not None:
            weights = np.asarray(self.weights[first:last], np.float64).reshape(-1)
        return self.X[first:last], self.Y[first:last], weights

    def spread(self, n_rows: int) -> Block:
        """Return about `n_rows` samples in short runs evenly spaced over all rows.

        All samples are returned when there are no more than `n_rows`.
        """
        if n_rows >= self.n_samples:
            return self._rows(0, self.n_samples)
        starts, run = spread_runs(self.n_samples, n_rows)
        return joined([self._rows(at, at + run) for at in starts])

    def split(self, n_parts: int) -> list["PairedRows"]:
        """Divide into at most `n_parts` sources of consecutive rows, about equally many each."""
        n_parts = min(n_parts, self.n_samples)
        bounds = np.linspace(0, self.n_samples, n_parts + 1).astype(int).tolist()
        return [self._part(a, b) for a, b in itertools.pairwise(bounds)]

    def _part(self, first: int, last: int) -> "PairedRows":
        def part(rows: Rows) -> Rows:
            if isinstance(rows, np.ndarray):
                return rows[first:last]
            return RowRange(rows, first, last)

        return PairedRows(
            part(self.X),
            part(self.Y),
            None if self.weights is None else part(self.weights),
            block_rows=self.block_rows,
            first_row=self.first_row + first,
            checked=self.checked,
        )


def from_arrays(X: Any, Y: Any, sample_weight: Any = None) -> PairedRows:
    """Make a source of arrays, without copying them unless a weight is 0.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features)
        Also a pandas or polars frame, or a NumPy memory map.
    Y : array_like of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight : array_like of shape (n_samples,), default=None
        At least 0; a sample of weight 0 is as absent.

    Returns
    -------
    source : PairedRows

    Raises
    ------
    ValueError
        If either is not a real numeric array, the numbers of rows differ, or the weights are not
        one finite number of at least 0 a sample, or all 0.
    """
    X, Y = as_rows("X", X), as_rows("Y", Y)
    if sample_weight is None:
        return PairedRows(X, Y)
    return PairedRows(*weighted_rows(X, Y, check_weights(sample_weight, len(X))))
