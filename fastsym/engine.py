"""Passes over a source: rows from it into accumulators.

The only place where a source and an accumulator meet; reading overlaps computing here.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastsym._validation import check_pair
from fastsym.frame import Frame, estimate_frame
from fastsym.moments import (
    DIRECT,
    LINEAR,
    MomentAccumulator,
    Moments,
    PartialAccumulator,
)
from fastsym.residuals import ResidualAccumulator, Residuals
from fastsym.sources import Block, PairedRows
from fastsym.staging import staged_rows

SPREAD_PILOT = 4
"""A source that can be read again gives a pilot so many times larger than a stream's."""

Reducer = TypeVar("Reducer", MomentAccumulator, ResidualAccumulator)


def pilot_frame(
    source: PairedRows, n_hidden: Any = "auto", *, negative_slope: float = 0.0
) -> Frame:
    """Estimate a frame from rows spread over a source.

    Parameters
    ----------
    source : PairedRows
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
    rows = SPREAD_PILOT * staged_rows(source.X.shape[1], source.Y.shape[1])
    X, Y, weights = source.spread(rows)
    try:
        return estimate_frame(X, Y, n_hidden, sample_weight=weights, negative_slope=negative_slope)
    except ValueError:
        # Rows of the pilot are not numbered as in the source: if one was bad, find the first.
        check_source(source)
        raise


def check_source(source: PairedRows) -> None:
    """Read a source and raise at its first bad row.

    Parameters
    ----------
    source : PairedRows

    Raises
    ------
    ValueError
        If a value is not finite or not numeric; rows are numbered within the source.
    """
    for _ in _checked(source):
        pass


def accumulate(
    source: PairedRows,
    n_hidden: Any = "auto",
    *,
    frame: Frame | None = None,
    compute_dtype: str = "float64",
    negative_slope: float = 0.0,
    n_jobs: int | None = None,
    callback: Callable[[int], object] | None = None,
) -> MomentAccumulator:
    """Accumulate the moments of a source that can be read by rows.

    The pilot is spread evenly over the source, so that rows sorted by something make no difference
    to it, and then all rows are read once, in order.

    Parameters
    ----------
    source : PairedRows
    n_hidden, frame, compute_dtype, negative_slope, n_jobs
        As for `MomentAccumulator`.
    callback : callable, default=None
        Called with the number of rows read so far, after each block.

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
    return _read(source, accumulator, callback)


def accumulate_linear(
    source: PairedRows, frame: Frame, *, compute_dtype: str = "float64", n_jobs: int | None = None
) -> Moments:
    """First of two passes: second moments and what reduces the variance of E[x y^T].

    Parameters
    ----------
    source : PairedRows
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
    return _read(source, accumulator, None).finish()


def accumulate_direct(
    source: PairedRows,
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
    source : PairedRows
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
    quartic = _read(source, PartialAccumulator(DIRECT, frame, compute_dtype, n_jobs), None).finish()
    if quartic.n_samples != linear.n_samples:
        raise ValueError(
            f"the source had {linear.n_samples} samples in the first pass and "
            f"{quartic.n_samples} in the second; it must not change."
        )
    return replace(linear, direct=quartic.direct)


def accumulate_residuals(
    source: PairedRows,
    hidden: NDArray[np.float64],
    outputs: NDArray[np.float64],
    slope: float,
    *,
    n_jobs: int | None = None,
    check: bool = True,
    callback: Callable[[int], object] | None = None,
) -> Residuals:
    """Sum of squared residuals of a network over a source, and its gradient.

    Parameters
    ----------
    source : PairedRows
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
        Called with the number of rows read so far, after each block.

    Returns
    -------
    residuals : Residuals

    Raises
    ------
    ValueError
        If a value is not finite; rows are numbered within the source.
    """
    d, m = source.X.shape[1], source.Y.shape[1]
    accumulator = ResidualAccumulator(d, m, hidden, outputs, slope, n_jobs)
    return _read(source, accumulator, callback, check=check).total()


def _read(
    source: PairedRows,
    accumulator: Reducer,
    callback: Callable[[int], object] | None,
    *,
    check: bool = True,
) -> Reducer:
    """Read all rows of a source into an accumulator."""
    for X, Y, weights in _ahead(source, _checked(source) if check else source.blocks()):
        accumulator.take(X, Y, weights)
        if callback is not None:
            callback(accumulator.n_samples)
    return accumulator


def _checked(source: PairedRows) -> Iterator[Block]:
    """Yield the blocks of a source, checked, their rows numbered as in the source."""
    first_row = 0
    for X, Y, weights in source.blocks():
        yield *check_pair(X, Y, first_row=first_row), weights
        first_row += len(X)


def _ahead(source: PairedRows, blocks: Iterator[Block]) -> Iterator[Block]:
    """Take each block from another thread while the one before is worked on.

    Reading a file, faulting in a memory map and checking values then overlap with the kernels. Only
    one block is read ahead. Arrays in memory are there already.
    """
    if all(type(rows) is np.ndarray for rows in (source.X, source.Y)):
        yield from blocks
        return
    with ThreadPoolExecutor(1, thread_name_prefix="fastsym-reader") as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block
