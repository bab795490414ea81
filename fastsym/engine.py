"""Passes over a source: rows from it into accumulators.

The only place where a source and an accumulator meet; reading overlaps computing here.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastsym._validation import check_pair, check_weights
from fastsym.checkpoint import Checkpoint
from fastsym.frame import Frame, estimate_frame
from fastsym.moments import (
    DIRECT,
    LINEAR,
    MomentAccumulator,
    Moments,
    PartialAccumulator,
)
from fastsym.progress import Callback, Event
from fastsym.residuals import ResidualAccumulator, Residuals
from fastsym.sources import Block, Source, weighted_rows
from fastsym.staging import staged_rows

SPREAD_PILOT = 4
"""A source that can be read again gives a pilot so many times larger than a stream's."""

Reducer = TypeVar("Reducer", MomentAccumulator, ResidualAccumulator)


class Passes:
    """A source, and how it is read: what is told of each pass, and where it is taken up again.

    It is a source itself, so that what takes a source takes passes too.

    Parameters
    ----------
    source : Source
    callback : callable, default=None
        Called with a `fastsym.progress.Event` after each block.
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
    def first_row(self) -> int:
        """Number of the first row, for messages."""
        return self.source.first_row

    def blocks(self, first_row: int = 0) -> Iterator[Block]:
        """Yield the samples from a row on in order."""
        return self.source.blocks(first_row)

    def spread(self, n_rows: int) -> Block:
        """Return about so many samples evenly spread over all."""
        return self.source.spread(n_rows)

    def read(self, what: str, accumulator: Reducer, *, check: bool = True) -> Reducer:
        """Read all rows into an accumulator.

        Parameters
        ----------
        what : str
            Name of the pass.
        accumulator : MomentAccumulator or ResidualAccumulator
            Empty.
        check : bool, default=True
            Whether to check the values; not needed for samples that were checked before.

        Returns
        -------
        accumulator : MomentAccumulator or ResidualAccumulator
            With all rows; not always the same object.

        Raises
        ------
        ValueError
            If a value is not finite; rows are numbered within the source.
        """
        self._n_passes += 1
        first_row, done = 0, False
        if self._checkpoint is not None:
            first_row, done = self._checkpoint.begin(self._n_passes, accumulator)
        start = time.perf_counter()

        def tell(n_rows: int) -> None:
            if self._callback is not None:
                seconds = time.perf_counter() - start
                rate = (n_rows - first_row) / seconds if n_rows > first_row else 0.0
                self._callback(Event(what, self._n_passes, n_rows, self.n_samples, rate))

        if done:
            tell(first_row)
            return accumulator
        accumulator, n_rows = self._fold(accumulator, first_row, check, tell)
        if self._checkpoint is not None:
            self._checkpoint.write(self._n_passes, accumulator, n_rows, done=True)
        return accumulator

    def _fold(
        self, accumulator: Reducer, first_row: int, check: bool, tell: Any
    ) -> tuple[Reducer, int]:
        """Read the rows from `first_row` on here, a block at a time."""
        n_rows = first_row
        for X, Y, weights, n_rows in _ahead(self.source, _rows_of(self.source, first_row, check)):
            accumulator.take(X, Y, weights)
            tell(n_rows)
            if self._checkpoint is not None and self._checkpoint.due():
                self._checkpoint.write(self._n_passes, accumulator, n_rows, done=False)
        return accumulator, n_rows


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


def pilot_frame(source: Source, n_hidden: Any = "auto", *, negative_slope: float = 0.0) -> Frame:
    """Estimate a frame from rows spread over a source.

    Parameters
    ----------
    source : Source
    n_hidden : int or "auto", default="auto"
    negative_slope : float, default=0.0
        Slope of the activation for negative arguments.

    Returns
    -------
    frame : Frame

    Raises
    ------
    ValueError
        As by `fastsym.frame.estimate_frame`; rows are numbered within the source.
    """
    X, Y, weights = sample_of(
        source, SPREAD_PILOT * staged_rows(source.n_features, source.n_outputs)
    )
    return estimate_frame(X, Y, n_hidden, sample_weight=weights, negative_slope=negative_slope)


def sample_of(source: Source, n_rows: int) -> Block:
    """Return samples spread over a source, checked, those of weight 0 left out.

    Parameters
    ----------
    source : Source
    n_rows : int
        About so many; all if there are no more.

    Returns
    -------
    X, Y, weights : ndarray

    Raises
    ------
    ValueError
        If a value is not finite; rows are numbered within the source.
    """
    X, Y, weights = source.spread(n_rows)
    try:
        if weights is not None:
            weights = check_weights(weights, len(X))
            if not weights.any():
                raise ValueError(
                    f"sample_weight is zero for all of the {len(X)} samples spread over the data "
                    "from which a fit begins; leave out samples of weight 0."
                )
            X, Y, weights = weighted_rows(X, Y, weights)
        X, Y = check_pair(X, Y)
    except ValueError:
        # Rows of the sample are not numbered as in the source: find the first bad one there.
        check_source(source)
        raise
    return X, Y, weights


def check_source(source: Source) -> None:
    """Read a source and raise at its first bad row.

    Parameters
    ----------
    source : Source

    Raises
    ------
    ValueError
        If a value is not finite or not numeric; rows are numbered within the source.
    """
    for _ in _rows_of(source):
        pass


def accumulate(
    source: Source,
    n_hidden: Any = "auto",
    *,
    frame: Frame | None = None,
    compute_dtype: str = "float64",
    negative_slope: float = 0.0,
    n_jobs: int | None = None,
    callback: Callback | None = None,
) -> MomentAccumulator:
    """Accumulate the moments of a source that can be read by rows.

    The pilot is spread evenly over the source, so that rows sorted by something make no difference
    to it, and then all rows are read once, in order.

    Parameters
    ----------
    source : Source
    n_hidden, frame, compute_dtype, negative_slope, n_jobs
        As for `MomentAccumulator`.
    callback : callable, default=None
        Called with a `fastsym.progress.Event` after each block.

    Returns
    -------
    accumulator : MomentAccumulator

    Raises
    ------
    ValueError
        As by `MomentAccumulator.update`; rows are numbered within the source.
    """
    accumulator = MomentAccumulator(
        n_hidden,
        frame=pilot_frame(source, n_hidden, negative_slope=negative_slope)
        if frame is None
        else frame,
        compute_dtype=compute_dtype,
        negative_slope=negative_slope,
        n_jobs=n_jobs,
    )
    return as_passes(source, callback).read("moments", accumulator)


def accumulate_linear(
    source: Source, frame: Frame, *, compute_dtype: str = "float64", n_jobs: int | None = None
) -> Moments:
    """First of two passes: second moments and what reduces the variance of E[x y^T].

    Parameters
    ----------
    source : Source
    frame : Frame
    compute_dtype, n_jobs
        As for `MomentAccumulator`.

    Returns
    -------
    moments : Moments
        Without quartic moments: they have what `fastsym.spectral.whiten` needs.

    Raises
    ------
    ValueError
        As by `accumulate`.
    """
    accumulator = PartialAccumulator(LINEAR, frame, compute_dtype, n_jobs)
    return as_passes(source).read("linear moments", accumulator).finish()


def accumulate_direct(
    source: Source,
    linear: Moments,
    input_map: NDArray[np.float64],
    output_map: NDArray[np.float64],
    *,
    compute_dtype: str = "float64",
    n_jobs: int | None = None,
) -> Moments:
    """Second of two passes: quartic moments with g known.

    It takes k^4 / 4 operations a sample in place of the 5 k^4 / 12 of one pass.

    Parameters
    ----------
    source : Source
        The same samples again.
    linear : Moments
        Of the first pass.
    input_map : ndarray of shape (n_features, n_hidden)
        x'' = x input_map is white, and equal to g'' = 2 (odd part of y'').
    output_map : ndarray of shape (n_outputs, n_hidden)
        y'' = y output_map.
    compute_dtype, n_jobs
        As for `MomentAccumulator`.

    Returns
    -------
    moments : Moments
        `linear` with `direct`, for the default method of `fastsym.spectral.solve`.

    Raises
    ------
    ValueError
        If the source has changed, or as by `accumulate`.
    """
    frame = replace(linear.frame, input_map=input_map, output_map=output_map)
    accumulator = PartialAccumulator(DIRECT, frame, compute_dtype, n_jobs)
    quartic = as_passes(source).read("quartic moments", accumulator).finish()
    if quartic.n_samples != linear.n_samples:
        raise ValueError(
            f"the source had {linear.n_samples} samples in the first pass and "
            f"{quartic.n_samples} in the second; it must not change."
        )
    return replace(linear, direct=quartic.direct)


def accumulate_residuals(
    source: Source,
    hidden: NDArray[np.float64],
    outputs: NDArray[np.float64],
    slope: float,
    *,
    n_jobs: int | None = None,
    check: bool = True,
    callback: Callback | None = None,
) -> Residuals:
    """Sum of squared residuals of a network over a source, and its gradient.

    Parameters
    ----------
    source : Source
    hidden : ndarray of shape (n_units, 1 + n_features)
        Rows (bias, w).
    outputs : ndarray of shape (n_outputs, n_units)
    slope : float
        Of the activation for negative arguments.
    n_jobs : int, default=None
        Threads at most.
    check : bool, default=True
        Whether to check the values; not needed for a source that was checked before.
    callback : callable, default=None
        Called with a `fastsym.progress.Event` after each block.

    Returns
    -------
    residuals : Residuals

    Raises
    ------
    ValueError
        If a value is not finite; rows are numbered within the source.
    """
    d, m = source.n_features, source.n_outputs
    accumulator = ResidualAccumulator(d, m, hidden, outputs, slope, n_jobs)
    return as_passes(source, callback).read("residuals", accumulator, check=check).total()


def _rows_of(
    source: Source, first_row: int = 0, check: bool = True
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None, int]]:
    """Yield blocks of samples of positive weight, and the number of rows read with each.

    Checked or not, rows are numbered as in what the user gave.
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
