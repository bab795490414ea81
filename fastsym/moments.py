"""Moments of the samples, accumulated in one pass with memory that does not grow.

`MomentAccumulator` stages rows into superblocks of fixed size and hands these to the kernels, so
that neither the sizes of the chunks in which rows arrive nor the number of threads changes a bit
of the result. `Moments` is what it holds at the end: expectations, ready for the spectral layer.
"""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym._files import read_arrays, write_arrays
from fastsym._validation import (
    check_fits,
    check_n_hidden,
    check_negative_slope,
    check_pair,
    check_weights,
)
from fastsym.frame import Frame, estimate_frame
from fastsym.sources import weighted_rows
from fastsym.staging import (
    SUPERBLOCK_ROWS,
    aligned_zeros,
    check_n_jobs,
    kernel_threads,
    lanes_of,
    padded,
    padded_matrix,
    stage,
    staged_rows,
)

FILE_KIND = "moments"
FILE_VERSION = 3

_MAX_BLOCK_ROWS = 256  # the length of a sum in float32, and what a cache holds of packed features


def load_kernels(compute_dtype: str = "float64") -> None:
    """Load the compiled kernels, or compile them, before they are needed.

    Parameters
    ----------
    compute_dtype : {"float64", "float32"}, default="float64"
    """
    generator = np.random.default_rng(0)
    X = generator.standard_normal((8, 1))
    MomentAccumulator(1, compute_dtype=compute_dtype).update(X, np.maximum(X, 0)).moments()


LINEAR = frozenset({"second", "cross", "third"})
QUARTIC = frozenset({"yyxx", "mixed"})
LEAKY = frozenset({"yyxx", "mixed", "xxxx"})
DIRECT = frozenset({"yyxx"})


def _sum_shapes(d: int, m: int, k: int, wanted: frozenset[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the sums of one lane, as `_kernels.accumulate` takes them; others have no size."""
    from fastsym import _kernels

    pairs, width = padded(k * (k + 1) // 2), padded(1 + d + m)
    shapes = {
        "second": (width * width,),
        "cross": (padded(1 + d) * pairs,),
        "third": (2, d),
        "yyxx": (pairs * pairs,),
        "mixed": (int(_kernels.mixed_tiles(k)[1][-1]),),
        "xxxx": (pairs * pairs,),
    }
    return {n: shape if n in wanted else (*shape[:-1], 0) for n, shape in shapes.items()}


def _lanes(d: int, m: int, k: int, wanted: frozenset[str] = LINEAR | QUARTIC) -> int:
    """Private copies of the sums: a power of two, bounded by memory and not by the machine."""
    return lanes_of(sum(int(np.prod(shape)) for shape in _sum_shapes(d, m, k, wanted).values()))


@dataclass(frozen=True, eq=False)
class Moments:
    """Expectations over the samples, each a sum divided by their total weight.

    With k = n_hidden, P = k (k + 1) / 2, Q = k (k + 1) (k + 2) / 6, x' = x input_map and
    y' = y output_map in the frame; pairs and triples are products of coordinates in lexicographic
    order, without weights for repeated indices. Products with pairs or triples of x' are times the
    frame's even weight phi(x'), which is 1 unless the inputs have heavy tails.

    Parameters
    ----------
    n_samples : int
        Number of samples with a positive weight.
    frame : Frame
    second : ndarray of shape (1 + d + m, 1 + d + m)
        E[v v^T], v = (1, x, y), not centred.
    pair_cross : ndarray of shape (1 + d, P)
        E[(1, x) (pairs of x')^T]. Its rows for x are zero in the population.
    third : ndarray of shape (2, d)
        *Sums* of w t^3 and of (w t^3)^2, t = x_i / input_scale_i and w the sample's weight, for
        the symmetry test.
    yyxx : ndarray of shape (P, P)
        E[(pairs of y') (pairs of x')^T].
    yxxx : ndarray of shape (k, Q)
        E[y' (triples of x')^T].
    direct : ndarray of shape (P, P) or None
        E[sym(y'' (x'' - y'')^T) (pairs of x'')^T] in whitened coordinates, in place of yyxx and
        yxxx, which are then empty: see `accumulate_direct`.
    precision : float
        Machine epsilon of the arithmetic within a block.
    negative_slope : float
        Slope of the activation for negative arguments that the moments are meant for.
    xxxx : ndarray of shape (P, P)
        E[(pairs of x') (pairs of x')^T]; empty unless negative_slope is positive.
    """

    n_samples: int
    frame: Frame
    second: NDArray[np.float64]
    pair_cross: NDArray[np.float64]
    third: NDArray[np.float64]
    yyxx: NDArray[np.float64]
    yxxx: NDArray[np.float64]
    direct: NDArray[np.float64] | None = None
    precision: float = float(np.finfo(np.float64).eps)
    negative_slope: float = 0.0
    xxxx: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def _columns(self) -> tuple[slice, slice]:
        d = self.frame.n_features
        return slice(1, 1 + d), slice(1 + d, None)

    @property
    def input_mean(self) -> NDArray[np.float64]:
        """E[x], shape (d,)."""
        return self.second[0, self._columns[0]]

    @property
    def output_mean(self) -> NDArray[np.float64]:
        """E[y], shape (m,)."""
        return self.second[0, self._columns[1]]

    @property
    def input_moment(self) -> NDArray[np.float64]:
        """C = E[x x^T], shape (d, d), not centred."""
        return self.second[self._columns[0], self._columns[0]]

    @property
    def output_moment(self) -> NDArray[np.float64]:
        """E[y y^T], shape (m, m), not centred."""
        return self.second[self._columns[1], self._columns[1]]

    @property
    def cross_moment(self) -> NDArray[np.float64]:
        """E[x y^T], shape (d, m), as the samples have it."""
        return self.second[self._columns[0], self._columns[1]]

    @property
    def reduced_cross_moment(self) -> NDArray[np.float64]:
        """E[x (y - e)^T], e = (1, pairs of x') even_map; shape (d, m).

        E[x e^T] = 0 in the population, so this is E[x y^T] with less sampling error.
        """
        constant, even = self.frame.even_map[0], self.frame.even_map[1:]
        return self.cross_moment - np.outer(self.input_mean, constant) - self.pair_cross[1:] @ even


class MomentAccumulator:
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

    _wanted = LINEAR | QUARTIC

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
        self.negative_slope = check_negative_slope(negative_slope)
        if self.negative_slope:
            self._wanted = LINEAR | LEAKY
        self.n_hidden = n_hidden
        self.compute_dtype = compute_dtype
        self.n_jobs = n_jobs
        self._dtype = np.dtype(compute_dtype)
        self._frame: Frame | None = None
        self._shape: tuple[int, int] | None = None  # (n_features, n_outputs)
        self._rows = np.empty((0, 0), self._dtype)  # staged (1, X, Y, 0 ...)
        self._n_staged = 0
        self._n_summed = 0
        self._weight_summed = 0.0
        self._weighted = False
        self._lanes_used = 0  # the first ones; the others are zero
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._work: tuple[NDArray[Any], ...] = ()
        if frame is not None:
            self._set_shape(frame.n_features, frame.n_outputs)
            self._set_frame(frame)

    @property
    def n_samples(self) -> int:
        """Rows taken in so far, staged ones included."""
        return self._n_summed + self._n_staged

    @property
    def n_features(self) -> int | None:
        """Number of inputs d, None before the first row."""
        return self._shape[0] if self._shape else None

    @property
    def n_outputs(self) -> int | None:
        """Number of outputs m, None before the first row."""
        return self._shape[1] if self._shape else None

    @property
    def frame(self) -> Frame:
        """The frozen frame.

        Raises
        ------
        RuntimeError
            If the pilot is not full yet.
        """
        if self._frame is None:
            needed = staged_rows(*self._shape) if self._shape else SUPERBLOCK_ROWS
            raise RuntimeError(
                f"the frame is not fixed yet: the pilot holds {self.n_samples} of {needed} rows; "
                "update with more rows, or give frame= to share the frame of another accumulator."
            )
        return self._frame

    def update(self, X: Any, Y: Any, sample_weight: Any = None) -> "MomentAccumulator":
        """Take in samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Real numbers of any dtype and memory layout; any number of rows, also 1.
        Y : array_like of shape (n_samples, n_outputs)
            One-dimensional: a single output.
        sample_weight : array_like of shape (n_samples,), default=None
            At least 0; None: all 1. A sample of weight 0 is as absent, one of weight 2 counts
            twice.

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
    ) -> "MomentAccumulator":
        """`update` with arrays that were checked and weights that are positive, for a reader."""
        for name, rows in (("X", X), ("Y", Y)):
            if self._dtype == np.float32 and rows.dtype != np.float32 and len(rows):
                largest = float(np.abs(rows).max())
                if largest > float(np.finfo(np.float32).max):
                    raise ValueError(
                        f"{name} holds {largest:.3g}, which float32 cannot represent; rescale "
                        f'{name} or use compute_dtype="float64".'
                    )
        if self._shape is None:
            check_fits(check_n_hidden(self.n_hidden), X.shape[1], Y.shape[1])
            self._set_shape(X.shape[1], Y.shape[1])
        self._weighted |= weights is not None
        taken = 0
        while taken < len(X):
            count = stage(self._rows[self._n_staged :], X, Y, weights, taken)
            taken += count
            self._advance(count)
        return self

    def _take_staged(self, rows: NDArray[Any]) -> None:
        """Take in rows that another accumulator has staged."""
        taken = 0
        while taken < len(rows):
            count = min(len(self._rows) - self._n_staged, len(rows) - taken)
            self._rows[self._n_staged : self._n_staged + count] = rows[taken : taken + count]
            taken += count
            self._advance(count)

    def _advance(self, count: int) -> None:
        self._n_staged += count
        if self._n_staged == len(self._rows):
            self._sum_staged()

    def merge(self, other: "MomentAccumulator") -> "MomentAccumulator":
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
        if other._shape is None:
            return self
        staged = other._rows[: other._n_staged].copy()  # other may be self
        other_sums, other_summed = other._sums, other._n_summed
        other_weight, other_lanes = other._weight_summed, other._lanes_used
        self._weighted |= other._weighted
        if other._frame is not None and self._frame is None:
            own = self._rows[: self._n_staged]
            self._n_staged = 0
            self._set_shape(*other._shape)
            self._set_frame(other._frame)
            self._take_staged(own)
        for name, total in other_sums.items():
            self._sums[name] += total
        self._lanes_used = max(self._lanes_used, other_lanes)
        self._n_summed += other_summed
        self._weight_summed += other_weight
        self._take_staged(staged)
        return self

    def __add__(self, other: "MomentAccumulator") -> "MomentAccumulator":
        if not isinstance(other, MomentAccumulator):
            return NotImplemented
        return copy.copy(self).merge(other)

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
        whole = copy.copy(self) if self._n_staged else self
        return whole.finish()

    def finish(self) -> Moments:
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
        if self._n_staged:
            self._sum_staged()
        return self._expectations()

    def _expectations(self) -> Moments:
        """Add up the lanes in use, one by one in order, and drop the kernels' padding."""
        from fastsym import _kernels

        frame, n = self.frame, self._weight_summed
        d, m, k = frame.n_features, frame.n_outputs, frame.n_hidden
        pairs = k * (k + 1) // 2
        used = slice(0, self._lanes_used)
        total = {name: np.add.reduce(lanes[used], axis=0) for name, lanes in self._sums.items()}

        def matrix(name: str, rows: int, columns: int) -> NDArray[np.float64]:
            return total[name].reshape(padded(rows), padded(columns))[:rows, :columns]

        def symmetric(name: str, rows: int) -> NDArray[np.float64]:
            upper = np.triu(matrix(name, rows, rows))
            return upper + np.triu(upper, 1).T

        wanted = self._wanted
        one_pass, none = wanted >= QUARTIC, np.empty((0, 0))
        leaky = "xxxx" in wanted
        yyxx = matrix("yyxx", pairs, pairs) / n if "yyxx" in wanted else none
        return Moments(
            n_samples=self._n_summed,
            frame=frame,
            second=symmetric("second", 1 + d + m) / n if "second" in wanted else none,
            pair_cross=matrix("cross", 1 + d, pairs) / n if "cross" in wanted else none,
            third=total["third"],
            yyxx=yyxx if one_pass else none,
            yxxx=total["mixed"][_kernels.mixed_positions(k)] / n if one_pass else none,
            direct=yyxx if wanted == DIRECT else None,
            precision=float(np.finfo(self._dtype).eps),
            negative_slope=self.negative_slope,
            xxxx=matrix("xxxx", pairs, pairs) / n if leaky else none,
        )

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

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the whole state, staged rows included, as named arrays."""
        arrays: dict[str, NDArray[Any]] = {
            "n_hidden": np.array(str(self.n_hidden)),
            "compute_dtype": np.array(self.compute_dtype),
            "shape": np.array(self._shape or (0, 0)),
            "n_summed": np.array(self._n_summed),
            "weight_summed": np.array(self._weight_summed),
            "weighted": np.array(self._weighted),
            "negative_slope": np.array(self.negative_slope),
            "staged": self._rows[: self._n_staged, : 1 + sum(self._shape or (0, 0))],
        }
        if self._frame is not None:
            frame = self._frame.to_arrays()
            arrays |= {f"frame_{name}": value for name, value in frame.items()}
            arrays |= {f"sum_{name}": value for name, value in self._sums.items() if value.size}
        return arrays

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, n_jobs: int | None = None
    ) -> "MomentAccumulator":
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
            frame = {
                name.removeprefix("frame_"): array
                for name, array in arrays.items()
                if name.startswith("frame_")
            }
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

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> "MomentAccumulator":
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
        d, m = arrays["shape"].tolist()
        if self._frame is not None:
            mine = self._frame.to_arrays()
            if not all(
                np.array_equal(value, arrays.get(f"frame_{name}", 0.0))
                for name, value in mine.items()
            ):
                raise ValueError("these moments belong to another frame.")
        if d and self._shape is None:
            self._set_shape(d, m)
        expected = {
            f"sum_{name}": (total.shape, total.dtype)
            for name, total in self._sums.items()
            if total.size
        }
        if d:
            rows, width = len(arrays["staged"]), 1 + d + m
            if rows >= len(self._rows):
                raise ValueError(f"{rows} staged rows are more than {len(self._rows) - 1}.")
            expected["staged"] = (rows, width), self._dtype
        for name, (shape, dtype) in expected.items():
            array = arrays[name]
            if (array.shape, array.dtype) != (shape, dtype):
                raise ValueError(
                    f"{name} must have shape {shape} and dtype {dtype}, got {array.shape} and "
                    f"{array.dtype}."
                )
        for name, total in self._sums.items():
            if total.size:
                total[...] = arrays[f"sum_{name}"]
        if d:
            self._n_staged = len(arrays["staged"])
            self._rows[: self._n_staged, : 1 + d + m] = arrays["staged"]
        if self._frame is not None:
            self._lanes_used = len(self._sums["second"])
        self._n_summed = int(arrays["n_summed"].item())
        self._weight_summed = float(arrays.get("weight_summed", arrays["n_summed"]))
        self._weighted = bool(arrays.get("weighted", False))
        return self

    def __getstate__(self) -> dict[str, Any]:
        # Staged rows without the room for more, and no work space.
        return self.__dict__ | {"_work": (), "_rows": self._rows[: self._n_staged]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild with buffers that are aligned, and this object's own."""
        self.__dict__.update(state)
        if self._shape is not None:
            self._set_shape(*self._shape)
            self._rows[: self._n_staged] = state["_rows"]
        self._sums = {name: aligned_zeros(total.shape) for name, total in state["_sums"].items()}
        for name, total in state["_sums"].items():
            self._sums[name][...] = total

    def _check_mergeable(self, other: "MomentAccumulator") -> None:
        if not isinstance(other, MomentAccumulator):
            raise TypeError(f"other must be a MomentAccumulator, got {type(other).__name__}.")
        if self._frame and other._frame and self._frame != other._frame:
            raise ValueError(
                "cannot merge moments of different frames: accumulate every shard in the frame of "
                "the first one (frame=first.frame, or --frame on the command line)."
            )
        asked = [
            a._frame.n_hidden if a._frame else check_n_hidden(a.n_hidden) for a in (self, other)
        ]
        for what, mine, theirs in (
            ("compute_dtype", self.compute_dtype, other.compute_dtype),
            ("negative_slope", self.negative_slope, other.negative_slope),
            ("(n_features, n_outputs)", self._shape, other._shape),
            ("n_hidden", *asked),
            ("sums of", sorted(self._wanted), sorted(other._wanted)),
        ):
            if mine is not None and theirs is not None and mine != theirs:
                raise ValueError(f"cannot merge moments with {what} {mine} and {theirs}.")

    def _set_shape(self, n_features: int, n_outputs: int) -> None:
        self._shape = (n_features, n_outputs)
        width = padded(1 + n_features + n_outputs)
        self._rows = aligned_zeros((staged_rows(n_features, n_outputs), width), self._dtype)
        self._rows[:, 0] = 1

    def _set_frame(self, frame: Frame) -> None:
        d, m, k = frame.n_features, frame.n_outputs, frame.n_hidden
        lanes = _lanes(d, m, k, self._wanted)
        self._frame = frame
        shapes = _sum_shapes(d, m, k, self._wanted)
        self._sums = {name: aligned_zeros((lanes, *shape)) for name, shape in shapes.items()}

    def _staged(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the staged rows, (X, Y), both times sqrt(weight)."""
        d, m = self._shape or (0, 0)
        rows = self._rows[: self._n_staged]
        return rows[:, 1 : 1 + d], rows[:, 1 + d : 1 + d + m]

    def _sum_staged(self) -> None:
        """Add the staged rows to the sums; the first ones make the frame."""
        n = self._n_staged
        if self._frame is None:
            self._set_frame(self._pilot_frame())
        self._run_kernels()
        used = slice(0, self._lanes_used)
        if not all(np.isfinite(total[used]).all() for total in self._sums.values()):
            largest = [float(np.abs(part).max()) for part in self._staged()]
            raise ValueError(
                f"the moments overflow: the largest values among rows {self._n_summed} to "
                f"{self._n_summed + n - 1} are {largest[0]:.3g} in X and {largest[1]:.3g} in Y, "
                f"too far from the pilot's for {self.compute_dtype}; rescale or remove these rows."
            )
        first = self._rows[:n, 0].astype(np.float64)
        self._weight_summed += float(first @ first) if self._weighted else n
        self._n_staged = 0
        self._n_summed += n

    def _pilot_frame(self) -> Frame:
        X, Y = self._staged()
        weights = None
        if self._weighted:
            root = self._rows[: self._n_staged, :1].astype(np.float64)
            X, Y, weights = X / root, Y / root, root[:, 0] ** 2
        return estimate_frame(
            X, Y, self.n_hidden, sample_weight=weights, negative_slope=self.negative_slope
        )

    def _run_kernels(self) -> None:
        from fastsym import _kernels  # imports and loads compiled code: only when it is needed

        frame, rows, n = self.frame, self._rows, self._n_staged
        d, m, k = frame.n_features, frame.n_outputs, frame.n_hidden
        lanes = len(self._sums["second"])
        block_rows = min(len(rows) // lanes, _MAX_BLOCK_ROWS)
        self._lanes_used = max(self._lanes_used, min(lanes, -(-n // block_rows)))

        def run(kernel: Callable[..., None], threads: int) -> None:
            kernel(
                rows,
                n,
                block_rows,
                d,
                m,
                k,
                padded_matrix(frame.input_map, dtype=self._dtype),
                padded_matrix(frame.output_map, dtype=self._dtype),
                self._weighted,
                frame.even_radius,
                1 / frame.input_scale,
                *_kernels.mixed_tiles(k),
                lanes,
                # Parts of a lane pack the same features again: no more than keep threads busy.
                1 if lanes >= 2 * threads or threads == 1 else -(-2 * threads // lanes),
                *self._work_space(threads, block_rows),
                *self._sums.values(),
            )

        if self.n_jobs == 1:
            run(_kernels.accumulate_serial, 1)
        else:
            with kernel_threads(self.n_jobs) as threads:
                run(_kernels.accumulate, threads)

    def _work_space(self, threads: int, block_rows: int) -> tuple[NDArray[Any], ...]:
        """Projected samples x', y', weighted x' and packed features, kept from call to call."""
        from fastsym import _kernels

        projected = (len(self._rows), padded(self.frame.n_hidden) + 8)
        shapes = (projected, projected, (threads, 2, _kernels.panel_size(block_rows)))
        if tuple(array.shape for array in self._work[:2] + self._work[3:]) != shapes:
            x, y, panels = (aligned_zeros(shape, self._dtype) for shape in shapes)
            even = aligned_zeros(projected, self._dtype) if self.frame.even_radius else x
            self._work = (x, y, even, panels)
        return self._work


class PartialAccumulator(MomentAccumulator):
    """Accumulator of some of the sums only, for sources that are read twice."""

    def __init__(
        self,
        wanted: frozenset[str],
        frame: Frame,
        compute_dtype: str,
        n_jobs: int | None,
    ) -> None:
        self._wanted = wanted
        super().__init__(frame=frame, compute_dtype=compute_dtype, n_jobs=n_jobs)
