"""What a fit gathers from a source: pilot, sample, moments, residuals."""

from dataclasses import replace
from typing import Any

from fastsym._validation import (
    check_fits,
    check_n_hidden,
    check_pair,
    check_weights,
    weighted_rows,
)
from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.engine.passes import as_passes, checked_rows
from fastsym.engine.progress import Callback
from fastsym.sources import Block, PairedRows, Source, is_source
from fastsym.sums.frame import Frame, frame_of
from fastsym.sums.layout import DIRECT, LINEAR
from fastsym.sums.moments import MomentAccumulator, PartialAccumulator
from fastsym.sums.residuals import ResidualAccumulator
from fastsym.sums.staging import staged_rows
from fastsym.sums.units import Units
from fastsym.sums.values import Moments, Residuals

SPREAD_PILOT = 4
"""A source that can be read again gives a pilot so many times larger than a stream's."""

SAMPLE_ROWS = 16384
"""Samples held in memory at least, if there are so many."""

SAMPLE_BYTES = 256 << 20

_ROWS_PER_SQUARE = 16
_SAMPLE_SHARE = 100


def pilot_rows(source: Source) -> int:
    """Count the rows that a pilot is to have.

    Parameters
    ----------
    source : Source

    Returns
    -------
    n_rows : int
    """
    return SPREAD_PILOT * staged_rows(source.n_features, source.n_outputs)


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
        As by `fastsym.sums.frame.estimate_frame`; rows are numbered within the source.
    """
    k = check_n_hidden(n_hidden)
    check_fits(k, source.n_features, source.n_outputs)
    X, Y, weights = sample_of(source, pilot_rows(source))
    return frame_of(X, Y, k, weights, negative_slope)


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
    if getattr(source, "checked", False):
        return X, Y, weights
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
    for _ in checked_rows(source):
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
        Called with a `fastsym.engine.Event` after each block.

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
    return as_passes(source).read("linear moments", accumulator).result()


def accumulate_direct(
    source: Source,
    linear: Moments,
    input_map: Matrix,
    output_map: Matrix,
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
    quartic = as_passes(source).read("quartic moments", accumulator).result()
    if quartic.n_samples != linear.n_samples:
        raise ValueError(
            f"the source had {linear.n_samples} samples in the first pass and "
            f"{quartic.n_samples} in the second; it must not change."
        )
    return replace(linear, direct=quartic.direct)


def accumulate_residuals(
    source: Source,
    hidden: Matrix,
    outputs: Matrix,
    activation: Activation,
    *,
    n_free: int | None = None,
    n_jobs: int | None = None,
    check: bool = True,
    callback: Callback | None = None,
    units: Units | None = None,
) -> Residuals:
    """Sum of squared residuals of a network over a source, and its gradient.

    Parameters
    ----------
    source : Source
    hidden : ndarray of shape (n_units, 1 + n_features)
        Rows (bias, w).
    outputs : ndarray of shape (n_outputs, n_units)
    activation : Activation
    n_free : int, default=None
        Units with the activation; those behind them are linear. None: all.
    n_jobs : int, default=None
        Threads at most.
    check : bool, default=True
        Whether to check the values; not needed for a source that was checked before.
    callback : callable, default=None
        Called with a `fastsym.engine.Event` after each block.
    units : Units, default=None
        In which hidden and outputs are. None: the samples' own.

    Returns
    -------
    residuals : Residuals

    Raises
    ------
    ValueError
        If a value is not finite; rows are numbered within the source.
    """
    d, m = source.n_features, source.n_outputs
    accumulator = ResidualAccumulator(d, m, hidden, outputs, activation, n_jobs, units, n_free)
    return as_passes(source, callback).read("residuals", accumulator, check=check).result()


def sample_rows(n_samples: int | None, n_features: int, n_hidden: int, n_outputs: int) -> int:
    """Count the samples to hold in memory, all if they are at most twice as many.

    At least 16 384 and 16 n_hidden^2 and a hundredth of all, at most 256 MB. The final error does
    not depend on it but through the number of passes: see docs/method.md.

    Parameters
    ----------
    n_samples : int or None
        None: of a stream, whose length is not known.
    n_features, n_hidden, n_outputs : int

    Returns
    -------
    n_rows : int
    """
    columns = n_features + n_outputs
    wanted = max(
        SAMPLE_ROWS,
        _ROWS_PER_SQUARE * n_hidden**2,
        8 * columns,
        (n_samples or 0) // _SAMPLE_SHARE,
    )
    wanted = min(wanted, max(SAMPLE_BYTES // (8 * (1 + columns)), 8 * columns))
    return wanted if n_samples is None or n_samples > 2 * wanted else n_samples


def check_rereadable(source: Any) -> None:
    """Raise TypeError, naming the one-pass mode, if a source cannot be read more than once.

    Parameters
    ----------
    source : object

    Raises
    ------
    TypeError
        If it is not a `fastsym.sources.Source`, or one of a generator.
    """
    if not is_source(source) or getattr(source, "read_once", False):
        raise TypeError(
            f"source must be readable more than once (see fastsym.sources), got "
            f"{type(source).__name__}; for a stream that can be read only once use the one-pass "
            "mode, TwoLayerRegressor(refine=True).partial_fit."
        )


def spread_sample(source: Source, n_hidden: int) -> PairedRows:
    """Read the samples that refinement holds in memory, spread evenly over the source.

    Parameters
    ----------
    source : Source
    n_hidden : int

    Returns
    -------
    sample : PairedRows
        `sample_rows` of them.

    Raises
    ------
    TypeError
        If the source cannot be read twice.
    ValueError
        If one of these samples is not finite; rows are numbered within the source.
    """
    check_rereadable(source)
    rows = sample_rows(source.n_samples, source.n_features, n_hidden, source.n_outputs)
    return PairedRows(*sample_of(source, rows), checked=True)
