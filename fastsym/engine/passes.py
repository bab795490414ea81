"""Passes over a source: rows from it into a reducer.

The only place where a source and a reducer meet; reading overlaps computing here.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastsym._validation import check_pair, check_weights
from fastsym.engine.checkpoint import Checkpoint
from fastsym.engine.progress import Callback, Event
from fastsym.sources import Block, Source
from fastsym.sums.reducer import Reducer

R = TypeVar("R", bound=Reducer)


class Passes:
    """A source, and how it is read: what is told of each pass, and where it is taken up again.

    It is a source itself, so that what takes a source takes passes too.

    Parameters
    ----------
    source : Source
    callback : callable, default=None
        Called with a `fastsym.engine.Event` after each block.
    checkpoint : Checkpoint, default=None
        Where sums are saved, and where passes go on from.
    """

    def __init__(
        self,
        source: Source,
        *,
        callback: Callback | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.source = source
        self._callback, self._checkpoint = callback, checkpoint
        self._n_passes = 0

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.source.n_samples

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return self.source.n_features

    @property
    def n_outputs(self) -> int:
        """Columns of Y."""
        return self.source.n_outputs

    @property
    def in_memory(self) -> bool:
        """Whether the samples are in memory."""
        return self.source.in_memory

    @property
    def checked(self) -> bool:
        """Whether the values are known to be finite."""
        return getattr(self.source, "checked", False)

    @property
    def first_row(self) -> int:
        """Number of the first row, for messages."""
        return self.source.first_row

    def blocks(self, first_row: int = 0) -> Iterator[Block]:
        """Yield the samples from a row on in order."""
        return self.source.blocks(first_row)

    def spread(self, n_rows: int) -> Block:
        """Return about so many samples evenly spread over all."""
        return self.source.spread(n_rows)

    def read(self, what: str, reducer: R, *, check: bool = True) -> R:
        """Read all rows into a reducer.

        Parameters
        ----------
        what : str
            Name of the pass.
        reducer : Reducer
            Empty.
        check : bool, default=True
            Whether to check the values; not needed for samples that were checked before.
            Sources that say so are not checked again.

        Returns
        -------
        reducer : Reducer
            With all rows; not always the same object.

        Raises
        ------
        ValueError
            If a value is not finite; rows are numbered within the source.
        """
        self._n_passes += 1
        first_row, done = 0, False
        if self._checkpoint is not None:
            first_row, done = self._checkpoint.begin(self._n_passes, reducer)
        start = time.perf_counter()

        def tell(n_rows: int) -> None:
            if self._callback is not None:
                seconds = time.perf_counter() - start
                rate = (n_rows - first_row) / seconds if n_rows > first_row else 0.0
                self._callback(Event(what, self._n_passes, n_rows, self.n_samples, rate))

        if done:
            tell(first_row)
            return reducer
        reducer, n_rows = self._fold(reducer, first_row, check and not self.checked, tell)
        if self._checkpoint is not None:
            self._checkpoint.write(self._n_passes, reducer, n_rows, done=True)
        return reducer

    def _fold(self, reducer: R, first_row: int, check: bool, tell: Any) -> tuple[R, int]:
        """Read the rows from `first_row` on here, a block at a time."""
        n_rows = first_row
        blocks = checked_rows(self.source, first_row, check)
        for X, Y, weights, n_rows in _ahead(self.source, blocks):
            reducer.take(X, Y, weights)
            tell(n_rows)
            if self._checkpoint is not None and self._checkpoint.due():
                self._checkpoint.write(self._n_passes, reducer, n_rows, done=False)
        return reducer, n_rows


def as_passes(source: Source, callback: Callback | None = None) -> Passes:
    """Return passes as they are, and a source with a way to read it.

    Parameters
    ----------
    source : Source or Passes
    callback : callable, default=None
        As for `Passes`; counts for a source only.

    Returns
    -------
    passes : Passes
    """
    return source if isinstance(source, Passes) else Passes(source, callback=callback)


def checked_rows(
    source: Source, first_row: int = 0, check: bool = True
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None, int]]:
    """Yield blocks of samples of positive weight, and the number of rows read with each.

    Parameters
    ----------
    source : Source
    first_row : int, default=0
        To begin with.
    check : bool, default=True
        Whether to check the values. In messages rows are numbered as in what the user gave.

    Yields
    ------
    X, Y, weights : ndarray
    n_rows : int
        Rows read so far, those before `first_row` included.

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    row = first_row
    for X, Y, weights in source.blocks(first_row):
        number = source.first_row + row
        row += len(X)
        if weights is not None and check:
            weights = check_weights(weights, len(X), number)
        if weights is None or weights.all():
            if check:
                X, Y = check_pair(X, Y, first_row=number)
            yield X, Y, weights, row
            continue
        used = weights > 0
        if check:
            absent = ~used[:, None]
            check_pair(np.where(absent, 0, X), np.where(absent, 0, Y), first_row=number)
        yield X[used], Y[used], weights[used], row


def _ahead(source: Source, blocks: Iterator[Any]) -> Iterator[Any]:
    """Take each block from another thread while the one before is worked on.

    Reading a file, faulting in a memory map and checking values then overlap with the kernels. Only
    one block is read ahead. Arrays in memory are there already.
    """
    if source.in_memory:
        yield from blocks
        return
    with ThreadPoolExecutor(1, thread_name_prefix="fastsym-reader") as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block
