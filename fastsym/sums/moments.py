"""Moments of the samples, accumulated in one pass with memory that does not grow."""

import copy
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastsym._validation import (
    check_fits,
    check_n_hidden,
    check_negative_slope,
    check_pair,
    check_weights,
    weighted_rows,
)
from fastsym.archive import read_arrays, write_arrays
from fastsym.sums.frame import Frame, frame_of
from fastsym.sums.layout import DIRECT, LEAKY, LINEAR, ONE_PASS, MomentSums
from fastsym.sums.reducer import Arrays, Reducer
from fastsym.sums.staging import SUPERBLOCK_ROWS, Stager, staged_rows
from fastsym.sums.threads import check_n_jobs
from fastsym.sums.units import check_moments
from fastsym.sums.values import Moments

FILE_KIND = "moments"
FILE_VERSION = 4


def load_kernels(compute_dtype: str = "float64") -> None:
    """Load the compiled kernels, or compile them, before they are needed.

    Parameters
    ----------
    compute_dtype : {"float64", "float32"}, default="float64"
    """
    X = np.random.default_rng(0).standard_normal((8, 1))
    MomentAccumulator(1, compute_dtype=compute_dtype).update(X, np.maximum(X, 0)).moments()


class MomentAccumulator(Reducer):
    """One pass over samples: second moments in full, quartic moments in a frame of n_hidden axes.

    The first rows of the stream are the pilot from which the frame is estimated (none if `frame` is
    given); they are accumulated too. Memory depends on the shapes only. Rows may arrive in chunks
    of any sizes: the same stream gives the same bits, however it is cut and for any number of
    threads.

    Parameters
    ----------
    n_hidden : int or "auto", default="auto"
        Number of hidden units k. "auto" counts the canonical correlations of x and y above their
        noise floor in the pilot. Must be left at "auto" or agree when `frame` is given.
    frame : Frame, default=None
        Coordinates to accumulate in, those of another accumulator that this one shall be merged
        with. None: estimated from the pilot.
    compute_dtype : {"float64", "float32"}, default="float64"
        Arithmetic within a block of at most 256 samples; sums over blocks are always float64. Rows
        are converted to it when they are staged.
    negative_slope : float, default=0.0
        Slope of the activation for negative arguments, from 0 to below 1. If it is not 0, fourth
        moments of x' are accumulated too.
    n_jobs : int, default=None
        Threads at most; None or -1: all that Numba has.

    Raises
    ------
    ValueError
        If a parameter is not one of these.

    References
    ----------
    Ge, Kuditipudi, Li, Wang, ICLR 2019, section 3 for the moments; reduction to k axes and the
    control variate are this package's (see docs/method.md).

    Examples
    --------
    >>> import fastsym
    >>> X, Y, network = fastsym.make_two_layer(20_000, 4, 3, 3, random_state=0)
    >>> moments = fastsym.MomentAccumulator(n_hidden=3)
    >>> for first in range(0, 20_000, 5_000):
    ...     _ = moments.update(X[first : first + 5_000], Y[first : first + 5_000])
    >>> moments.n_samples
    20000
    >>> estimate = fastsym.spectral.solve(moments.moments()).network
    >>> fastsym.parameter_error(network, estimate).hidden_error < 1e-3
    True
    """

    _strangers = "another frame"
    _sums: MomentSums | None
    _wanted = ONE_PASS

    def __init__(
        self,
        n_hidden: Any = "auto",
        *,
        frame: Frame | None = None,
        compute_dtype: str = "float64",
        negative_slope: float = 0.0,
        n_jobs: int | None = None,
    ) -> None:
        wanted = check_n_hidden(n_hidden)
        if frame is not None and wanted not in (None, frame.n_hidden):
            raise ValueError(f"n_hidden={n_hidden} differs from the frame's, {frame.n_hidden}.")
        if compute_dtype not in ("float64", "float32"):
            raise ValueError(
                f'compute_dtype must be "float64" or "float32", got {compute_dtype!r}.'
            )
        check_n_jobs(n_jobs)
        super().__init__(n_jobs)
        self.negative_slope = check_negative_slope(negative_slope)
        if self.negative_slope:
            self._wanted = LINEAR | LEAKY
        self.n_hidden = n_hidden
        self.compute_dtype = compute_dtype
        if frame is not None:
            self._set_shape(frame.n_features, frame.n_outputs)
            self._set_frame(frame)

    @property
    def n_features(self) -> int | None:
        """Number of inputs d, None before the first row."""
        return self._stager.n_features if self._stager else None

    @property
    def n_outputs(self) -> int | None:
        """Number of outputs m, None before the first row."""
        return self._stager.n_outputs if self._stager else None

    @property
    def has_frame(self) -> bool:
        """Whether the frame is frozen: it was given, or the pilot is full."""
        return self._sums is not None

    @property
    def frame(self) -> Frame:
        """The frozen frame.

        Raises
        ------
        RuntimeError
            If the pilot is not full yet.
        """
        if self._sums is None:
            needed = len(self._stager.rows) if self._stager else SUPERBLOCK_ROWS
            raise RuntimeError(
                f"the frame is not fixed yet: the pilot holds {self.n_samples} of {needed} rows; "
                "update with more rows, or give frame= to share the frame of another accumulator."
            )
        return self._sums.frame

    def update(self, X: Any, Y: Any, sample_weight: Any = None) -> Self:
        """Take in samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Real numbers of any dtype and memory layout; any number of rows, also 1.
        Y : array_like of shape (n_samples, n_outputs)
            One-dimensional: a single output.
        sample_weight : array_like of shape (n_samples,), default=None
            At least 0, in any unit; 0: as absent; 2: counts twice. None: all 1.

        Returns
        -------
        self : MomentAccumulator

        Raises
        ------
        ValueError
            If X or Y is not finite (names the first bad row), does not match the rows before,
            has too few or too many columns for n_hidden, or is too large for the moments to be
            represented, or if the pilot that it fills gives no frame. Nothing of the call is
            taken in, but in the last two cases, which leave the accumulator unusable.
        """
        X, Y = check_pair(X, Y, self.n_features, self.n_outputs)
        if sample_weight is None:
            return self.take(X, Y)
        weights = check_weights(sample_weight, len(X))
        return self.take(*weighted_rows(X, Y, weights)) if weights.any() else self

    def take(
        self, X: NDArray[Any], Y: NDArray[Any], weights: NDArray[np.float64] | None = None
    ) -> Self:
        """`update` with arrays that were checked and weights that are positive, for a reader."""
        if self._stager is None:
            check_fits(check_n_hidden(self.n_hidden), X.shape[1], Y.shape[1])
            self._set_shape(X.shape[1], Y.shape[1])
        assert self._stager is not None
        self._stager.check_representable(X, Y)
        return super().take(X, Y, weights)

    def merge(self, other: Self) -> Self:
        """Take in what another accumulator has seen.

        An accumulator whose pilot is not full still holds its rows, so it can be merged with any
        other; two that have frozen their frames must have the same one.

        Parameters
        ----------
        other : MomentAccumulator
            Unchanged.

        Returns
        -------
        self : MomentAccumulator

        Raises
        ------
        ValueError
            If the frames, the shapes or the compute_dtypes differ.
        TypeError
            If `other` is not a MomentAccumulator.
        """
        self._check_mergeable(other)
        if other._stager is None:
            return self
        if self._stager is None:
            self._set_shape(other._stager.n_features, other._stager.n_outputs)
        assert self._stager is not None
        if other.has_frame and not self.has_frame:
            # The rows of this pilot are summed in the frame of the other.
            self._set_frame(other.frame)
            own, self._stager.count = self._stager.staged.copy(), 0
            for _ in self._stager.refill(own):
                self._sum_staged()
        elif self.has_frame and not other.has_frame:
            (other := copy.copy(other))._set_frame(self.frame)
        return self._absorb(other)

    def moments(self) -> Moments:
        """Return the moments of all rows so far; the accumulator can go on.

        Returns
        -------
        moments : Moments

        Raises
        ------
        ValueError
            If there are no rows or too few for a frame, or the moments overflow.
        """
        return self.peek()

    def result(self) -> Moments:
        """`moments` without the copy that lets a stream go on to the same bits.

        Returns
        -------
        moments : Moments

        Raises
        ------
        ValueError
            As by `moments`.
        """
        if self.n_samples == 0:
            raise ValueError("no samples: update the accumulator with at least some rows.")
        self._flush()
        assert self._sums is not None
        totals, n, none = self._sums.totals(), self._weight_summed, np.empty((0, 0))
        d, units = self.frame.n_features, self.frame.units
        check_moments(np.diag(totals.get("second", none)), n, self._n_summed, units, d)
        mean = {name: total / n for name, total in totals.items()}
        direct = self._wanted == DIRECT
        return Moments(
            n_samples=self._n_summed,
            n_effective=self.n_effective,
            frame=self.frame,
            second=mean.get("second", none),
            pair_cross=mean.get("cross", none),
            third=totals.get("third", np.empty((2, 0))),
            yyxx=none if direct else mean.get("yyxx", none),
            yxxx=mean.get("mixed", none),
            direct=mean["yyxx"] if direct else None,
            precision=float(np.finfo(self.compute_dtype).eps),
            negative_slope=self.negative_slope,
            xxxx=mean.get("xxxx", none),
        )

    @property
    def weight(self) -> float:
        """Sum of the weights of the rows taken in so far."""
        return math.ldexp(super().weight, 2 * int(self.frame.exponents[0]) if self.has_frame else 0)

    def finish(self) -> Moments:
        """As `result`, under its name before."""
        return self.result()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the whole state, staged rows included, to an .npz file.

        A loaded accumulator goes on to the same bits as this one.

        Parameters
        ----------
        path : path
            Used as it is; no extension is added.

        Returns
        -------
        path : pathlib.Path

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        return write_arrays(path, FILE_KIND, FILE_VERSION, self.to_arrays())

    def to_arrays(self) -> Arrays:
        """Return the whole state, staged rows included, as named arrays."""
        return super().to_arrays() | {
            "n_hidden": np.array(str(self.n_hidden)),
            "shape": np.array((self.n_features or 0, self.n_outputs or 0)),
        }

    def _identity(self) -> Arrays:
        frame = self.frame.to_arrays() if self.has_frame else {}
        return {
            "compute_dtype": np.array(self.compute_dtype),
            "negative_slope": np.array(self.negative_slope),
        } | {f"frame_{name}": value for name, value in frame.items()}

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, n_jobs: int | None = None) -> Self:
        """Read an accumulator that `save` wrote.

        Parameters
        ----------
        path : path
        n_jobs : int, default=None
            As for the constructor.

        Returns
        -------
        accumulator : MomentAccumulator

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, of another kind or of a newer version.
        """
        _, arrays = read_arrays(path, {FILE_KIND: FILE_VERSION})
        try:
            n_hidden = arrays["n_hidden"].item()
            frame = {name[6:]: arrays[name] for name in arrays if name.startswith("frame_")}
            loaded = cls(
                n_hidden if n_hidden == "auto" else int(n_hidden),
                frame=Frame.from_arrays(frame) if frame else None,
                compute_dtype=arrays["compute_dtype"].item(),
                # Version 1 had neither weights nor a slope.
                negative_slope=float(arrays.get("negative_slope", 0.0)),
                n_jobs=n_jobs,
            )
            return loaded.restore(arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} does not hold moments: {error}") from None

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Take over a state that `to_arrays` gave, in the frame that this accumulator has.

        Parameters
        ----------
        arrays : mapping of str to ndarray

        Returns
        -------
        self : MomentAccumulator

        Raises
        ------
        ValueError
            If the state belongs to another frame, or to other sizes.
        """
        # Version 1 had no weights, no slope and no even weight.
        before = {
            "weight_summed": arrays["n_summed"],
            "weighted": np.array(False),
            "negative_slope": np.array(0.0),
            "frame_even_radius": np.array(0.0),
        }
        d, m = arrays["shape"].tolist()
        before["frame_exponents"] = np.zeros(1 + d + m, int)  # nor units
        if d and self._stager is None:
            self._set_shape(d, m)
        staged = arrays["staged"] if self.has_frame else arrays["staged"].astype(np.float64)
        return super().restore(before | dict(arrays) | {"staged": staged})

    def _check_mergeable(self, other: "MomentAccumulator") -> None:
        if not isinstance(other, MomentAccumulator):
            raise TypeError(f"other must be a MomentAccumulator, got {type(other).__name__}.")
        if self.has_frame and other.has_frame and self.frame != other.frame:
            raise ValueError(
                "cannot merge moments of different frames: accumulate every shard in the frame of "
                "the first one (frame=first.frame, or --frame on the command line)."
            )
        shapes = [(a.n_features, a.n_outputs) if a._stager else None for a in (self, other)]
        both = (self, other)
        asked = [a.frame.n_hidden if a.has_frame else check_n_hidden(a.n_hidden) for a in both]
        for what, mine, theirs in (
            ("compute_dtype", self.compute_dtype, other.compute_dtype),
            ("negative_slope", self.negative_slope, other.negative_slope),
            ("(n_features, n_outputs)", *shapes),
            ("n_hidden", *asked),
            ("sums of", sorted(self._wanted), sorted(other._wanted)),
        ):
            if mine is not None and theirs is not None and mine != theirs:
                raise ValueError(f"cannot merge moments with {what} {mine} and {theirs}.")

    def _set_shape(self, n_features: int, n_outputs: int) -> None:
        # A pilot is kept in float64: its units are not known before it is full.
        self._stager = Stager(n_features, n_outputs, staged_rows(n_features, n_outputs))

    def _set_frame(self, frame: Frame) -> None:
        assert self._stager is not None
        self._stager.convert(self.compute_dtype, frame.units)
        self._sums = MomentSums(frame, self._wanted, self.compute_dtype, len(self._stager.rows))

    def _add(self, stager: Stager) -> None:
        """Add the staged rows to the sums; the first ones make the frame."""
        if self._sums is None:
            X, Y, weights = stager.samples()
            k = check_n_hidden(self.n_hidden)
            self._set_frame(frame_of(X, Y, k, weights, self.negative_slope))
        assert self._sums is not None
        self._sums.add(stager.rows, stager.count, stager.weighted, self.n_jobs)
        if not self._sums.finite:
            raise ValueError(
                f"the moments overflow: the largest values among rows {self._n_summed} to "
                f"{self._n_summed + stager.count - 1} are {stager.largest_values()}, too far from "
                f"the pilot's for {self.compute_dtype}; rescale or remove these rows."
            )


class PartialAccumulator(MomentAccumulator):
    """Accumulator of some of the sums only, as for `MomentSums`, for sources read twice."""

    def __init__(
        self, wanted: frozenset[str], frame: Frame, compute_dtype: str, n_jobs: int | None
    ) -> None:
        self._wanted = wanted
        super().__init__(frame=frame, compute_dtype=compute_dtype, n_jobs=n_jobs)
