"""Passes over a source: rows from it into accumulators.

The only place where a source and an accumulator meet; reading overlaps computing here.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

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
    staged_rows,
)
from fastsym.sources import PairedRows

SPREAD_PILOT = 4
"""A source that can be read again gives a pilot so many times larger than a stream's."""

Block = tuple[NDArray[Any], NDArray[Any]]


def pilot_frame(source: PairedRows, n_hidden: Any = "auto") -> Frame:
    """Estimate a frame from rows spread over a source.

    Parameters
    ----------
    source : PairedRows
    n_hidden : int or "auto", default="auto"

    Returns
    -------
    frame : Frame

    Raises
    ------
    ValueError
        As by `fastsym.frame.estimate_frame`; rows are numbered within the source.
    """
    X, Y = source.spread(SPREAD_PILOT * staged_rows(source.X.shape[1], source.Y.shape[1]))
    try:
        return estimate_frame(X, Y, n_hidden)
    except ValueError:
        # Rows of the pilot are not numbered as in the source: if one was bad, find the first.
        for _ in _checked(source):
            pass
        raise


def accumulate(
    source: PairedRows,
    n_hidden: Any = "auto",
    *,
    frame: Frame | None = None,
    compute_dtype: str = "float64",
    n_jobs: int | None = None,
    callback: Callable[[int], object] | None = None,
) -> MomentAccumulator:
    """Accumulate the moments of a source that can be read by rows.

    The pilot is spread evenly over the source, so that rows sorted by something make no difference
    to it, and then all rows are read once, in order.

    Parameters
    ----------
    source : PairedRows
    n_hidden, frame, compute_dtype, n_jobs
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
        frame=pilot_frame(source, n_hidden) if frame is None else frame,
        compute_dtype=compute_dtype,
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
    return _read(source, accumulator, None).moments()


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
    quartic = _read(
        source, PartialAccumulator(DIRECT, frame, compute_dtype, n_jobs), None
    ).moments()
    if quartic.n_samples != linear.n_samples:
        raise ValueError(
            f"the source had {linear.n_samples} samples in the first pass and "
            f"{quartic.n_samples} in the second; it must not change."
        )
    return replace(linear, direct=quartic.direct)


def _read(
    source: PairedRows, accumulator: MomentAccumulator, callback: Callable[[int], object] | None
) -> MomentAccumulator:
    """Read all rows of a source into an accumulator."""
    for X, Y in _ahead(_checked(source)):
        accumulator.take(X, Y)
        if callback is not None:
            callback(accumulator.n_samples)
    return accumulator


def _checked(source: PairedRows) -> Iterator[Block]:
    """Yield the blocks of a source, checked, their rows numbered as in the source."""
    first_row = 0
    for X, Y in source.blocks():
        yield check_pair(X, Y, first_row=first_row)
        first_row += len(X)


def _ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """Take each block from another thread while the one before is worked on.

    Reading a file, faulting in a memory map and checking values then overlap with the kernels. Only
    one block is read ahead.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="fastsym-reader") as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block
