"""The method for samples that come once: a stream."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym._validation import check_n_hidden, check_pair, weighted_rows
from fastsym.engine.progress import Callback, Event
from fastsym.fitting import Fitted, Specification, doubted, fit_moments
from fastsym.refine.stream import StreamRefiner
from fastsym.sources import Source
from fastsym.sums.moments import MomentAccumulator


class Stream:
    """The method for samples that come once.

    Parameters
    ----------
    specification : Specification

    Raises
    ------
    ValueError
        If weights are to be held small, which needs samples that can be read again.
    """

    def __init__(self, specification: Specification) -> None:
        how = self._how = specification
        if how.decayed:
            raise ValueError(
                f"alpha={how.alpha!r} needs samples that can be read more than once: use fit, or "
                "refine_on after the stream; or alpha=0."
            )
        check_n_hidden(how.n_hidden)
        self._moments = self._moments_of(how.n_hidden)
        self._refiner: StreamRefiner | None = None

    def _moments_of(self, n_hidden: Any) -> MomentAccumulator:
        how = self._how
        return MomentAccumulator(
            n_hidden,
            compute_dtype=how.compute_dtype,
            negative_slope=how.negative_slope,
            n_jobs=how.n_jobs,
        )

    def _begin(self, n_features: int, n_outputs: int) -> None:
        """Refine, once the sizes are known."""
        how, k = self._how, check_n_hidden(self._how.n_hidden)
        if k is not None and not how.form.moments_know(k, n_features, n_outputs):
            self._moments = self._moments_of(1)  # for the sums of first and second order
        self._refiner = StreamRefiner(
            self._moments,
            n_hidden=k,
            form=how.form,
            decay=how.alpha == "auto",
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
        if self._how.refine and self._refiner is None:
            self._begin(X.shape[1], Y.shape[1])
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
            return doubted(Fitted(*self._refiner.result()))
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
