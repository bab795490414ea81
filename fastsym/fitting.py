"""The method, once: from samples that can be read again (`fit`), or from a stream (`Stream`).

`fit` reads top to bottom as the method: a sample spread over the source is held in memory; its
moments give a start by linear algebra; Levenberg-Marquardt on the sample, and then a few passes
over all samples, bring it to the least-squares optimum.
"""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym import spectral
from fastsym._validation import check_n_hidden, check_negative_slope, check_pair, weighted_rows
from fastsym.engine import (
    Checkpoint,
    Passes,
    accumulate,
    accumulate_direct,
    accumulate_linear,
    pilot_frame,
    spread_sample,
)
from fastsym.engine.gather import pilot_rows
from fastsym.engine.progress import Callback, Event
from fastsym.exceptions import SpectralGapWarning, warn
from fastsym.network import TwoLayerNetwork
from fastsym.refine import Refinement, Start, moment_start, refine
from fastsym.refine.counting import Count, counted_network, solved_for
from fastsym.refine.standard_errors import check_kind
from fastsym.refine.starts import solve_or_warn, spectral_start
from fastsym.refine.stream import StreamRefiner
from fastsym.sources import PairedRows, Source
from fastsym.sums.frame import Frame
from fastsym.sums.moments import MomentAccumulator
from fastsym.sums.threads import one_blas_thread
from fastsym.sums.values import Moments

# From this many hidden units on, two passes with k^4 / 4 operations a sample are quicker than one
# with 5 k^4 / 12; below, reading and staging twice costs more than it saves.
_TWO_PASSES = 20


@dataclass(frozen=True)
class Specification:
    """What is fitted and how; the parameters of `fastsym.TwoLayerRegressor`, which has their texts.

    Raises
    ------
    ValueError
        If the slope is not from 0 to below 1, stderr is no kind of standard errors, or intercepts
        are asked of moments alone.
    """

    n_hidden: Any = "auto"
    refine: bool = True
    fit_intercept: bool = False
    negative_slope: float = 0.0
    compute_dtype: str = "float64"
    n_jobs: int | None = None
    random_state: Any = None
    verbose: int = 0
    stderr: str = "robust"

    def __post_init__(self) -> None:
        check_negative_slope(self.negative_slope)
        check_kind(self.stderr)
        if self.fit_intercept and not self.refine:
            raise ValueError(
                "fit_intercept=True needs refine=True: the method of moments has no intercepts."
            )


class Fitted(NamedTuple):
    """What a fit found: the spectral solution, None if the moments show fewer than n_hidden units.

    refinement is None for moments alone. n_hidden_path holds the numbers of hidden units tried; it
    is empty unless n_hidden="auto" and the samples can be read again.
    """

    solution: spectral.SpectralSolution | None
    refinement: Refinement | None
    n_hidden_path: tuple[Count, ...] = ()

    @property
    def network(self) -> TwoLayerNetwork:
        """The network of the refinement, or of the moments alone."""
        found = self.solution if self.refinement is None else self.refinement
        assert found is not None
        return found.network


@one_blas_thread()
def fit(source: Passes, specification: Specification) -> Fitted:
    """Fit a network to samples that can be read again.

    Parameters
    ----------
    source : Passes
    specification : Specification

    Returns
    -------
    fitted : Fitted

    Raises
    ------
    ValueError
        As by `fastsym.TwoLayerRegressor.fit`.
    """
    how = specification
    if not how.refine:
        return fit_moments(moments_of(source, how), how)
    k, frame = check_n_hidden(how.n_hidden), None
    guessed = k is None
    if k is None:
        frame = pilot_frame(source, negative_slope=how.negative_slope)
        k = frame.n_hidden
        how = replace(how, n_hidden=k)
    sample = spread_sample(source, k)
    if not sample.n_samples == source.n_samples <= pilot_rows(source):
        frame = None  # the pilot is not the sample, which has a frame of its own
    solution = solve_or_warn(lambda: moments_of(sample, how, frame), how.random_state)
    if solution is None:
        slope, seed = how.negative_slope, how.random_state
        network = moment_start(sample, k, negative_slope=slope, random_state=seed)
        start = Start("linear part", network)
    else:
        start = spectral_start(_said(solution, how), how.fit_intercept)
    path: tuple[Count, ...] = ()
    if guessed:
        intercept, whole = how.fit_intercept, sample.n_samples >= source.n_samples
        same: dict[str, Any] = {"fit_intercept": intercept, "n_jobs": how.n_jobs, "whole": whole}
        network, path = counted_network(sample, start, **same)
        how, start = replace(how, n_hidden=network.n_hidden), start._replace(network=network)
        if network.n_hidden != k:
            solution = solved_for(lambda: moments_of(sample, how), how.random_state)
            trusted = solution is not None and spectral_start(solution, intercept).trusted
            start = Start("counted", network, trusted)
    return _refined(source, sample, start, solution, how)._replace(n_hidden_path=path)


def fit_moments(moments: Moments, specification: Specification) -> Fitted:
    """Fit a network to moments alone.

    Parameters
    ----------
    moments : Moments
    specification : Specification
        Of which only random_state and verbose count.

    Returns
    -------
    fitted : Fitted
        Without a refinement.
    """
    solution = spectral.solve(moments, random_state=specification.random_state)
    return Fitted(_said(solution, specification), None)


def refine_again(source: Passes, before: Fitted, specification: Specification) -> Fitted:
    """Bring a fit to the least-squares optimum of samples that can be read again.

    Parameters
    ----------
    source : Passes
    before : Fitted
        Where to start.
    specification : Specification

    Returns
    -------
    fitted : Fitted
    """
    solution = before.solution
    start = Start("fit before", before.network)
    if solution is not None:
        start = spectral_start(solution, specification.fit_intercept)
        start = start._replace(name="fit before", network=before.network)
    how = replace(specification, n_hidden=before.network.n_hidden)
    sample = spread_sample(source, before.network.n_hidden)
    return _refined(source, sample, start, solution, how)


def _refined(
    source: Passes,
    sample: PairedRows,
    start: Start,
    solution: spectral.SpectralSolution | None,
    specification: Specification,
) -> Fitted:
    """Refine from a start, and, if nothing certifies it, from the moments of all samples."""
    how = specification
    starts = _Starts(source, sample, start, solution, how)
    refinement = refine(
        source,
        starts,
        sample=sample,
        fit_intercept=how.fit_intercept,
        n_jobs=how.n_jobs,
        random_state=how.random_state,
        verbose=how.verbose,
    )
    refinement = replace(refinement, n_passes=refinement.n_passes + starts.n_passes)
    return _doubted(Fitted(starts.solution, refinement))


class _Starts:
    """The start of a fit, then, if it is asked for, that of all samples; counts its passes."""

    def __init__(
        self,
        source: Passes,
        sample: PairedRows,
        start: Start,
        solution: spectral.SpectralSolution | None,
        specification: Specification,
    ) -> None:
        self._source, self._sample, self._start = source, sample, start
        self._how, self.solution, self.n_passes = specification, solution, 0

    def __iter__(self) -> Iterator[Start]:
        yield self._start
        if self._sample.n_samples >= self._source.n_samples:
            return
        # What a sample does not show all samples may.
        self.n_passes += 1
        how = self._how
        found = solve_or_warn(lambda: moments_of(self._source, how), how.random_state)
        self.solution = found or self.solution
        if self.solution is not None:
            network = self.solution.network
            yield self._start._replace(name="spectral, of all samples", network=network)


def moments_of(
    source: Source,
    specification: Specification,
    frame: Frame | None = None,
) -> Moments:
    """Moments of all rows of a source, in one pass or two.

    Parameters
    ----------
    source : Source
    specification : Specification
    frame : Frame, default=None
        None: estimated from rows spread over the source.

    Returns
    -------
    moments : Moments
    """
    slope = specification.negative_slope
    if frame is None:
        frame = pilot_frame(source, specification.n_hidden, negative_slope=slope)
    how: dict[str, Any] = {
        "compute_dtype": specification.compute_dtype,
        "n_jobs": specification.n_jobs,
    }
    if frame.n_hidden < _TWO_PASSES or slope or frame.even_radius:
        return accumulate(source, frame=frame, negative_slope=slope, **how).result()
    linear = accumulate_linear(source, frame, **how)
    white = spectral.whiten(linear)
    return accumulate_direct(source, linear, white.input_map, white.output_map, **how)


class Stream:
    """The method for samples that come once.

    Parameters
    ----------
    specification : Specification
    """

    def __init__(self, specification: Specification) -> None:
        how = self._how = specification
        self._moments = MomentAccumulator(
            how.n_hidden,
            compute_dtype=how.compute_dtype,
            negative_slope=how.negative_slope,
            n_jobs=how.n_jobs,
        )
        self._refiner: StreamRefiner | None = None
        if how.refine:
            self._refiner = StreamRefiner(
                self._moments,
                fit_intercept=how.fit_intercept,
                n_jobs=how.n_jobs,
                random_state=how.random_state,
            )

    def take(
        self,
        X: NDArray[Any],
        Y: NDArray[Any],
        weights: NDArray[np.float64] | None = None,
        first_row: int = 0,
    ) -> "Stream":
        """Take in samples.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        Y : ndarray of shape (n_samples, n_outputs)
        weights : ndarray of shape (n_samples,), default=None
            At least 0; None: all 1.
        first_row : int, default=0
            Number of the first row, for messages.

        Returns
        -------
        self : Stream

        Raises
        ------
        ValueError
            If values are not finite or do not match those before.
        """
        before = self._moments
        X, Y = check_pair(X, Y, before.n_features, before.n_outputs, first_row)
        if weights is not None:
            if not weights.any():
                return self
            X, Y, weights = weighted_rows(X, Y, weights)
        taker = self._moments if self._refiner is None else self._refiner
        taker.take(X, Y, weights)
        return self

    def result(self) -> Fitted:
        """Return the fit to all samples so far; the stream can go on.

        Returns
        -------
        fitted : Fitted

        Raises
        ------
        ValueError
            If there are too few samples.
        """
        if self._refiner is not None:
            return _doubted(Fitted(*self._refiner.result()))
        return fit_moments(self._moments.moments(), self._how)


def fit_once(
    source: Source, specification: Specification, callback: Callback | None = None
) -> Fitted:
    """Fit a network to blocks that come only once, in one pass.

    Parameters
    ----------
    source : Source
    specification : Specification
    callback : callable, default=None
        Called with a `fastsym.engine.Event` after each block.

    Returns
    -------
    fitted : Fitted

    Raises
    ------
    ValueError
        As by `Stream.take`, or if the blocks are empty.
    """
    stream, start, n_rows = Stream(specification), time.perf_counter(), 0
    for X, Y, weights in source.blocks():
        stream.take(X, Y, weights, n_rows)
        n_rows += len(X)
        if callback is not None:
            rate = n_rows / (time.perf_counter() - start)
            callback(Event("one pass", 1, n_rows, None, rate))
    if n_rows == 0:
        raise ValueError("no samples: the blocks are empty.")
    return stream.result()


def passes_of(
    source: Source,
    settings: Mapping[str, str],
    *,
    client: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: float = 60.0,
    callback: Callback | None = None,
) -> Passes:
    """Say how a source is read: here or on a cluster, with a checkpoint or without.

    Parameters
    ----------
    source : Source
    settings : mapping of str to str
        Of the fit: a checkpoint with others is refused.
    client : dask.distributed.Client, default=None
        None: read here.
    checkpoint : path, default=None
    every : float, default=60.0
        Seconds between writes of the checkpoint within a pass.
    callback : callable, default=None
        Called with a `fastsym.engine.Event` after each block.

    Returns
    -------
    passes : Passes

    Raises
    ------
    TypeError, ValueError
        As by `Checkpoint` and `fastsym.engine.cluster.ClusterPasses`.
    """
    saved = None
    if checkpoint is not None:
        # The order of the sums, and a cluster's checkpoints are between passes only.
        where = {"client": "none" if client is None else "a cluster"}
        saved = Checkpoint(checkpoint, source, dict(settings) | where, every)
    if client is None:
        return Passes(source, callback=callback, checkpoint=saved)
    from fastsym.engine.cluster import ClusterPasses

    return ClusterPasses(source, client, callback=callback, checkpoint=saved)


def _said(
    solution: spectral.SpectralSolution, specification: Specification
) -> spectral.SpectralSolution:
    """Print the diagnostics of a solution, if that is wanted."""
    if specification.verbose:
        d = solution.diagnostics
        print(
            f"fastsym: {d.n_samples} samples, n_hidden={solution.network.n_hidden}, "
            f"gap {d.gap:.3g}, residual {d.residual:.2g}, condition of W {d.condition_w:.3g}, "
            f"of A {d.condition_a:.3g}"
        )
    return solution


def _doubted(fitted: Fitted) -> Fitted:
    """Say what the spectral start lacks, where the refinement does not make up for it."""
    solution, refinement = fitted.solution, fitted.refinement
    if solution is not None and refinement is not None:
        diagnostics = solution.diagnostics
        if diagnostics.doubt and not (refinement.converged and diagnostics.shown):
            warn(diagnostics.doubt, SpectralGapWarning)
    return fitted
