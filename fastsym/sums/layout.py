"""How sums are stored and handed to the kernels: the only room that knows of tiles and lanes.

Another backend would replace this room and the kernels. A lane is a private copy of the sums: block
i of the rows always goes to lane i mod n_lanes, and lanes are added up one by one in order at the
end, so that each element is summed in one order, whatever the number of threads. The number of
lanes depends on the shapes only. Importing this module does not load the kernels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastsym.activation import Activation
from fastsym.algebra import Matrix, from_upper
from fastsym.sums.frame import Frame
from fastsym.sums.threads import run_kernel

LINEAR = frozenset({"second", "cross", "third"})
QUARTIC = frozenset({"yyxx", "mixed"})
LEAKY = frozenset({"yyxx", "mixed", "xxxx"})
DIRECT = frozenset({"yyxx"})
ONE_PASS = LINEAR | QUARTIC
"""Names of the moment sums: those of one pass, and of two; see `MomentSums`."""

TILE = 8
"""Rows and columns of the sums are padded to multiples of this, on every machine."""

MAX_LANES = 64
LANE_BYTES = 8 << 20
_PAGE = 4096
_BLOCK_ROWS = 256  # the length of a sum in float32, and what a cache holds of packed features


def aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Zeros that begin at a page: NumPy's own begin anywhere, and vectors then straddle lines."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _PAGE, np.uint8)
    start = -memory.ctypes.data % _PAGE
    return memory[start : start + size].view(dtype).reshape(shape)


def padded(n: int) -> int:
    """Round up to whole tiles of the kernels."""
    return -(-n // TILE) * TILE


def padded_matrix(matrix: Matrix, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Copy a matrix into zeros with its columns rounded up to whole tiles."""
    result = np.zeros((len(matrix), padded(matrix.shape[1])), dtype)
    result[:, : matrix.shape[1]] = matrix
    return result


def _at_least_a_tile(matrix: Matrix) -> NDArray[Any]:
    """`padded_matrix` with a tile of zeros where there are no columns."""
    return padded_matrix(matrix if matrix.shape[1] else np.zeros((len(matrix), 1)))


def lanes_of(size: int) -> int:
    """Private copies of sums of `size` numbers: a power of two, bounded by memory."""
    lanes = MAX_LANES
    while lanes > 1 and lanes * 8 * size > LANE_BYTES:
        lanes //= 2
    return lanes


def _parts(n_lanes: int, n_threads: int) -> int:
    """Tasks that share a lane: they pack the same features, so no more than keep threads busy."""
    if n_lanes >= 2 * n_threads or n_threads == 1:
        return 1
    return -(-2 * n_threads // n_lanes)


class Lanes:
    """Named sums in float64, some private copies of each, that can be merged, saved and taken up.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Of one copy.
    most : int, default=MAX_LANES
        Copies at most.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], most: int = MAX_LANES) -> None:
        self.n_lanes = min(lanes_of(sum(math.prod(shape) for shape in shapes.values())), most)
        self.arrays = {n: aligned_zeros((self.n_lanes, *shape)) for n, shape in shapes.items()}
        self.used = 0  # the first ones; the others are zero
        self.work: tuple[NDArray[Any], ...] = ()  # of the kernels, kept from call to call

    def _use(self, n_blocks: int) -> None:
        self.used = max(self.used, min(self.n_lanes, n_blocks))

    def _work_space(
        self, shapes: Sequence[tuple[int, ...]], dtype: DTypeLike = np.float64
    ) -> tuple[NDArray[Any], ...]:
        """Buffers of the kernels, zero at first, kept from call to call."""
        if tuple(array.shape for array in self.work) != tuple(shapes):
            self.work = tuple(aligned_zeros(shape, dtype) for shape in shapes)
        return self.work

    @property
    def finite(self) -> bool:
        """Whether nothing has overflowed."""
        used = slice(0, self.used)
        return all(bool(np.isfinite(lanes[used]).all()) for lanes in self.arrays.values())

    def totals(self) -> dict[str, NDArray[np.float64]]:
        """Add up the lanes in use, one by one in order."""
        used = slice(0, self.used)
        return {name: np.add.reduce(lanes[used], axis=0) for name, lanes in self.arrays.items()}

    def merge(self, other: "Lanes") -> None:
        """Add the sums of another object of the same shapes, lane by lane."""
        for name, lanes in other.arrays.items():
            self.arrays[name] += lanes
        self.used = max(self.used, other.used)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the lanes of all sums that are wanted, by "sum_" and their name."""
        return {f"sum_{name}": lanes for name, lanes in self.arrays.items() if lanes.size}

    def check(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raise KeyError or ValueError if these are not what `to_arrays` of such sums gave."""
        for name, lanes in self.to_arrays().items():
            theirs = arrays[name]
            if (theirs.shape, theirs.dtype) != (lanes.shape, lanes.dtype):
                raise ValueError(
                    f"{name} must have shape {lanes.shape} and dtype {lanes.dtype}, got "
                    f"{theirs.shape} and {theirs.dtype}."
                )

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over arrays that were checked."""
        for name, lanes in self.to_arrays().items():
            lanes[...] = arrays[name]
        self.used = self.n_lanes

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"work": ()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild with sums that are aligned, and this object's own."""
        self.__dict__.update(state)
        self.arrays = {}
        for name, lanes in state["arrays"].items():
            self.arrays[name] = aligned_zeros(lanes.shape)
            self.arrays[name][...] = lanes

    def copy(self) -> Self:
        """Return a copy with sums of its own."""
        result = object.__new__(type(self))
        result.__setstate__(self.__getstate__())
        return result


class MomentSums(Lanes):
    """Sums of the moments of staged rows in a frame.

    Parameters
    ----------
    frame : Frame
    wanted : frozenset of str, default=ONE_PASS
        Of "second", "cross", "third", "yyxx", "mixed" and "xxxx". "yyxx" without "mixed" is the
        direct form of a second pass, sym(y (x - y)^T) in place of the pairs of y.
    dtype : dtype, default="float64"
        Of the staged rows and of the arithmetic within a block.
    n_rows : int, default=8192
        Rows of the buffer that they are staged in.
    """

    def __init__(
        self,
        frame: Frame,
        wanted: frozenset[str] = ONE_PASS,
        dtype: DTypeLike = "float64",
        n_rows: int = 8192,
    ) -> None:
        from fastsym.sums import kernels  # loads compiled code: only when it is needed

        self.frame, self.wanted, self.dtype = frame, wanted, np.dtype(dtype)
        d, m, k = frame.n_features, frame.n_outputs, frame.n_hidden
        self.width = padded(1 + d + m)
        pairs = padded(k * (k + 1) // 2)
        self._axes: Any = kernels.Axes(
            k,
            padded_matrix(frame.input_map, self.dtype),
            padded_matrix(frame.output_map, self.dtype),
            False,
            frame.even_radius,
            1 / frame.input_scale,
            *kernels.mixed_tiles(k),
        )
        shapes: dict[str, tuple[int, ...]] = {
            "second": (self.width * self.width,),
            "cross": (padded(1 + d) * pairs,),
            "third": (2, d),
            "yyxx": (pairs * pairs,),
            "mixed": (int(self._axes.offsets[-1]),),
            "xxxx": (pairs * pairs,),
        }
        super().__init__(
            {name: shape if name in wanted else (*shape[:-1], 0) for name, shape in shapes.items()}
        )
        self._block_rows = min(n_rows // self.n_lanes, _BLOCK_ROWS)

    def add(
        self, rows: NDArray[Any], n_rows: int, weighted: bool = False, n_jobs: int | None = None
    ) -> None:
        """Add the first n_rows of staged rows.

        Parameters
        ----------
        rows : ndarray of shape (at least n_rows, width)
            A multiple of 8 of them, aligned and in C order.
        n_rows : int
        weighted : bool, default=False
            Whether any weight is not 1.
        n_jobs : int, default=None
            Threads at most.
        """
        from fastsym.sums import kernels

        self._use(-(-n_rows // self._block_rows))
        d, m = self.frame.n_features, self.frame.n_outputs

        def arguments(threads: int) -> tuple[Any, ...]:
            projected = (len(rows), padded(self.frame.n_hidden) + 8)
            shapes = [projected, projected, (threads, 2, kernels.panel_size(self._block_rows))]
            if self.frame.even_radius:
                shapes.append(projected)
            x, y, panels, *even = self._work_space(shapes, self.dtype)
            return (
                kernels.Staged(rows, n_rows, d, m),
                self._axes._replace(weighted=weighted),
                kernels.Schedule(
                    self._block_rows, self.n_lanes, _parts(self.n_lanes, threads), threads
                ),
                kernels.MomentWork(x, y, even[0] if even else x, panels),
                kernels.MomentSums(**self.arrays),
            )

        run_kernel(kernels.accumulate, kernels.accumulate_serial, n_jobs, arguments)

    def totals(self) -> dict[str, NDArray[np.float64]]:
        """Return the sums that are wanted, without padding.

        Returns
        -------
        totals : dict of str to ndarray
            "second" (1 + d + m, 1 + d + m), "cross" (1 + d, P), "third" (2, d), "yyxx" (P, P),
            "mixed" (k, Q), "xxxx" (P, P) with P pairs and Q triples; sums of size 0 are left out.
        """
        from fastsym.sums import kernels

        d, m, k = self.frame.n_features, self.frame.n_outputs, self.frame.n_hidden
        pairs = k * (k + 1) // 2
        sizes = {
            "second": (1 + d + m, 1 + d + m),
            "cross": (1 + d, pairs),
            "yyxx": (pairs, pairs),
            "xxxx": (pairs, pairs),
        }
        totals = {name: total for name, total in super().totals().items() if name in self.wanted}
        for name in sizes.keys() & self.wanted:
            totals[name] = _cut(totals[name], *sizes[name])
        if "second" in totals:
            totals["second"] = from_upper(totals["second"])
        if "mixed" in totals:
            totals["mixed"] = totals["mixed"][kernels.mixed_positions(k)]
        return totals


def _cut(total: Matrix, rows: int, columns: int) -> Matrix:
    """Return a sum that is stored in whole tiles without its padding."""
    return total.reshape(padded(rows), padded(columns))[:rows, :columns]


class ResidualSums(Lanes):
    """Sums of squares and gradient of a network over staged rows.

    Parameters
    ----------
    n_features, n_outputs : int
    hidden : ndarray of shape (n_units, 1 + n_features)
        Rows (bias, w).
    outputs : ndarray of shape (n_outputs, n_units)
    activation : Activation
    n_free : int, default=None
        Units with the activation; those behind them are linear. None: all.
    n_rows : int, default=8192
        Rows that are added at once, at most.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden: Matrix,
        outputs: Matrix,
        activation: Activation,
        n_free: int | None = None,
        n_rows: int = 8192,
    ) -> None:
        from fastsym.sums import kernels

        k = len(hidden) if n_free is None else n_free
        self._sizes = d, m, k = n_features, n_outputs, k
        # The kernel takes the linear units together.
        self._fixed = hidden[k:]
        linear = padded_matrix((outputs[:, k:] @ self._fixed).T)
        if k == len(hidden):
            linear = linear[:0]
        forward = np.zeros((max(padded(k), TILE), padded(m)))
        forward[:k, :m] = outputs[:, :k].T
        self._layers: Any = kernels.Layers(
            _at_least_a_tile(hidden[:k].T),
            forward,
            _at_least_a_tile(outputs[:, :k]),
            linear,
            activation.negative_slope,
        )
        shapes = {
            "hidden_gradient": (len(forward) * padded(1 + d),),
            "output_gradient": (len(forward) * padded(m),),
            "linear_gradient": (padded(1 + d) * padded(m) if len(linear) else 0,),
            "residual_moment": (padded(m) * padded(m),),
        }
        # No more lanes than blocks are ever filled by a call.
        super().__init__(shapes, -(-n_rows // kernels.RESIDUAL_ROWS))

    def add(self, rows: NDArray[Any], n_rows: int, n_jobs: int | None = None) -> None:
        """Add the first n_rows of staged rows; arguments as for `MomentSums.add`."""
        from fastsym.sums import kernels

        d, m, k = self._sizes
        self._use(-(-n_rows // kernels.RESIDUAL_ROWS))

        def arguments(threads: int) -> tuple[Any, ...]:
            width = max(padded(k), padded(m), TILE) + 8
            buffer = (threads, 4, kernels.RESIDUAL_ROWS, width)
            return (
                kernels.Staged(rows, n_rows, d, m),
                self._layers,
                kernels.Schedule(kernels.RESIDUAL_ROWS, self.n_lanes, 1, threads),
                *self._work_space([buffer]),
                kernels.ResidualSums(**self.arrays),
            )

        operations = n_rows * (k * (1 + d + m) + len(self._layers.linear) * m)
        run_kernel(kernels.residuals, kernels.residuals_serial, n_jobs, arguments, operations)

    def totals(self) -> dict[str, NDArray[np.float64]]:
        """Return the sums without padding.

        Returns
        -------
        totals : dict of str to ndarray
            "hidden_gradient" (n_free, 1 + d), "output_gradient" (m, n_units), "residual_moment"
            (m, m).
        """
        d, m, k = self._sizes
        totals = super().totals()
        units = max(padded(k), TILE), padded(1 + d), padded(m)
        hidden = totals["hidden_gradient"].reshape(units[0], units[1])[:k, : 1 + d].copy()
        output = totals["output_gradient"].reshape(units[0], units[2])[:k, :m].T.copy()
        if len(self._fixed):
            linear = _cut(totals["linear_gradient"], 1 + d, m).T
            output = np.concatenate([output, linear @ self._fixed.T], axis=1)
        return {
            "hidden_gradient": hidden,
            "output_gradient": output,
            "residual_moment": from_upper(_cut(totals["residual_moment"], m, m)),
        }


class MaskSums(Lanes):
    """Sums of s_i s_j u u^T over staged rows, s the slopes of a network's units.

    Parameters
    ----------
    n_features, n_outputs : int
    hidden : ndarray of shape (n_units, 1 + n_features)
        Rows (bias, w).
    activation : Activation
    n_rows : int, default=8192
        Rows that are added at once, at most.
    work : tuple of ndarray, default=()
        `work` of other sums of the same sizes that are not added to any more.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden: Matrix,
        activation: Activation,
        n_rows: int = 8192,
        work: tuple[NDArray[Any], ...] = (),
    ) -> None:
        self._sizes = n_features, n_outputs, len(hidden)
        self._hidden, self._slope = padded_matrix(hidden.T), activation.negative_slope
        size = math.prod(padded(n) for n in self._shape)
        super().__init__({"moments": (size,)}, -(-n_rows // _BLOCK_ROWS))
        self.work = work

    @property
    def _shape(self) -> tuple[int, int]:
        d, _, k = self._sizes
        return k * (k + 1) // 2, (1 + d) * (2 + d) // 2

    def add(self, rows: NDArray[Any], n_rows: int, n_jobs: int | None = None) -> None:
        """Add the first n_rows of staged rows; arguments as for `MomentSums.add`."""
        from fastsym.sums import kernels

        d, m, k = self._sizes
        self._use(-(-n_rows // _BLOCK_ROWS))

        def arguments(threads: int) -> tuple[Any, ...]:
            work = self._work_space(
                [
                    (len(rows), padded(k) + 8),
                    (len(rows), padded(1 + d) + 8),
                    (threads, 2, kernels.panel_size(_BLOCK_ROWS)),
                ]
            )
            return (
                kernels.Staged(rows, n_rows, d, m),
                k,
                self._hidden,
                self._slope,
                kernels.Schedule(_BLOCK_ROWS, self.n_lanes, _parts(self.n_lanes, threads), threads),
                kernels.MaskWork(*work),
                self.arrays["moments"],
            )

        operations = n_rows * math.prod(self._shape)
        run_kernel(kernels.mask_moments, kernels.mask_moments_serial, n_jobs, arguments, operations)

    def totals(self) -> dict[str, NDArray[np.float64]]:
        """Return the sums without padding: "moments" (n_units pairs, 1 + d pairs)."""
        return {"moments": _cut(super().totals()["moments"], *self._shape)}
