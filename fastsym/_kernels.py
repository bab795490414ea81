"""Numba kernels: the only compiled code of the package.

All kernels are in this one file because ``cache=True`` does not notice an edit of a helper in
another file. Arrays come in one layout only (C order, staged by ``moments``), so each kernel has
two specialisations, float64 and float32.

All heavy work has one shape, out[a, j] += sum_n left[n, a] right[n, j] with features packed on the
fly, and goes through `add_product`: a register-tiled micro-kernel that emits vector IR for the host
(`MACHINE`) and adds whole tiles of 8 x 8 elements to float64 sums.

Symbols: ``S`` staged rows, ``k`` hidden units, ``d`` features, ``m`` outputs,
``P = k (k + 1) / 2`` pairs. Pairs (a, b), a <= b, are in lexicographic order, so those with both
>= a are the suffix that starts at ``pair_offset(a, k)``: the triples (a, b, c), a <= b <= c, that
start with a are x_a times that suffix. A hat, as in ``P^``, is a size rounded up to a multiple
of 8.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import get_thread_id, njit, prange, types
from numba.core import cgutils, config
from numba.extending import intrinsic

TILE = 8
"""Rows and columns of the sums are padded to multiples of this, on every machine."""

# Packed features at a time: with 256 rows they stay in a cache of 1 MB.
_RIGHT_COLUMNS = 384
_LEFT_COLUMNS = 64


_STRIP_ROWS = 128  # rows projected by a task
_PACK_ROWS = 64  # rows whose packed features stay in the first cache while they are written


class Machine(NamedTuple):
    """Vector unit the kernels are made for.

    `rows` x `vectors` accumulators of `vector_bytes` each stay in registers.
    """

    name: str
    vector_bytes: int
    rows: int
    vectors: int


MACHINES = {
    "avx512": Machine("avx512", 64, 8, 3),
    "avx2": Machine("avx2", 32, 4, 3),
    "neon": Machine("neon", 16, 8, 3),
    "portable": Machine("portable", 16, 4, 3),
}


def choose_machine(triple: str, features: dict[str, bool]) -> Machine:
    """Pick the tile shape for a target triple and its CPU features."""
    if features.get("avx512f"):
        return MACHINES["avx512"]
    if features.get("avx2") and features.get("fma"):
        return MACHINES["avx2"]
    if triple.startswith(("aarch64", "arm64")):
        return MACHINES["neon"]
    return MACHINES["portable"]


def _target_features() -> dict[str, bool]:
    """CPU features that Numba compiles for: the host's, or those of its environment variables."""
    if config.CPU_FEATURES is None:  # type: ignore[attr-defined]
        return dict(binding.get_host_cpu_features())
    flags = str(config.CPU_FEATURES).split(",")  # type: ignore[attr-defined]
    return {flag[1:]: flag[0] == "+" for flag in flags if flag}


MACHINE = choose_machine(binding.get_process_triple(), _target_features())

# 'contract' lets a multiply and an add fuse; no flag that assumes NaN or infinity away, and none
# that reorders sums.
_OPTIONS: Any = {"nogil": True, "cache": True, "fastmath": {"contract"}}


# Vector IR


@intrinsic
def _address(typingctx, array, offset):
    """Pointer to element `offset` of a C-ordered array, counted flat."""

    def codegen(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.gep(view.data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


def _tile_intrinsic(rows, vectors, shrink, add):
    """Make the micro-kernel out[r, c] (+)= sum_n left[n, r] right[n, c] of one register tile.

    The tile has `rows` x `vectors` vectors, each 1 / shrink of the machine's. Arguments: left, its
    distance between rows r, its distance between steps n; right, its distance between steps; the
    number of steps (at least 1); out and its distance between rows. With `add`, out is float64 and
    added to; without, out has the dtype of left and is overwritten. The caller owns all memory.
    """

    @intrinsic
    def tile(typingctx, left, left_row, left_step, right, right_step, n_steps, out, out_row):
        scalar = left.dtype
        size = scalar.bitwidth // 8
        lanes = MACHINE.vector_bytes // size // shrink

        def codegen(context, builder, signature, arguments):
            left, left_row, left_step, right, right_step, n_steps, out, out_row = arguments
            index, lane, byte = ir.IntType(64), ir.IntType(32), ir.IntType(8)
            element = ir.FloatType() if size == 4 else ir.DoubleType()
            vector = ir.VectorType(element, lanes)
            stored = ir.VectorType(ir.DoubleType(), lanes) if add else vector
            undefined = ir.Constant(vector, ir.Undefined)
            splat = ir.Constant(ir.VectorType(lane, lanes), None)
            # fmuladd, not fma: a machine without the instruction gets a multiply and an add.
            fma = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector, [vector] * 3),
                f"llvm.fmuladd.v{lanes}f{8 * size}",
            )

            def at(pointer, elements, kind):
                moved = builder.gep(pointer, [ir.Constant(index, elements)])
                return builder.bitcast(moved, kind.as_pointer())

            entry = builder.block
            loop = builder.append_basic_block("steps")
            done = builder.append_basic_block("store")
            # Pointers to the rows of left; for neighbouring columns one pointer serves all.
            starts = [left]
            for _ in range(rows - 1):
                starts.append(builder.gep(starts[-1], [left_row]))
            if add:
                # The sums are needed after all steps; fetch them meanwhile, one access a line.
                fetch = cgutils.get_or_insert_function(
                    builder.module,
                    ir.FunctionType(ir.VoidType(), [byte.as_pointer(), lane, lane, lane]),
                    "llvm.prefetch.p0i8",
                )
                place = out
                for _ in range(rows):
                    for column in range(0, vectors * lanes, 8):
                        pointer = at(place, column, byte)
                        builder.call(fetch, [pointer, *(ir.Constant(lane, n) for n in (1, 3, 1))])
                    place = builder.gep(place, [out_row])
            builder.branch(loop)

            builder.position_at_end(loop)

            def carried(kind, start):
                value = builder.phi(kind)
                value.add_incoming(start, entry)
                return value

            step = carried(index, ir.Constant(index, 0))
            offset = carried(index, ir.Constant(index, 0))
            right_now = carried(element.as_pointer(), right)
            zero = ir.Constant(vector, None)
            totals = [[carried(vector, zero) for _ in range(vectors)] for _ in range(rows)]
            columns = [
                builder.load(at(right_now, v * lanes, vector), align=size) for v in range(vectors)
            ]
            results = []
            for r in range(rows):
                value = builder.load(builder.gep(starts[r], [offset]))
                value = builder.insert_element(undefined, value, ir.Constant(lane, 0))
                value = builder.shuffle_vector(value, undefined, splat)
                results.append(
                    [builder.call(fma, [value, columns[v], totals[r][v]]) for v in range(vectors)]
                )
            for r in range(rows):
                for v in range(vectors):
                    totals[r][v].add_incoming(results[r][v], loop)
            next_step = builder.add(step, ir.Constant(index, 1))
            step.add_incoming(next_step, loop)
            offset.add_incoming(builder.add(offset, left_step), loop)
            right_now.add_incoming(builder.gep(right_now, [right_step]), loop)
            builder.cbranch(builder.icmp_signed("<", next_step, n_steps), loop, done)

            builder.position_at_end(done)
            for r in range(rows):
                for v in range(vectors):
                    place = at(out, v * lanes, stored)
                    value = results[r][v]
                    if add:
                        if size == 4:
                            value = builder.fpext(value, stored)
                        value = builder.fadd(builder.load(place, align=8), value)
                    builder.store(value, place, align=8 if add else size)
                out = builder.gep(out, [out_row])
            return context.get_dummy_value()

        steps = types.intp
        return types.void(left, steps, steps, right, steps, steps, out, steps), codegen

    return tile


_add_3 = _tile_intrinsic(MACHINE.rows, 3, 1, True)
_add_2 = _tile_intrinsic(MACHINE.rows, 2, 1, True)
_add_1 = _tile_intrinsic(MACHINE.rows, 1, 1, True)
_add_half = _tile_intrinsic(MACHINE.rows, 1, 2, True)
_set_3 = _tile_intrinsic(MACHINE.rows, 3, 1, False)
_set_1 = _tile_intrinsic(MACHINE.rows, 1, 1, False)
_set_half = _tile_intrinsic(MACHINE.rows, 1, 2, False)


@intrinsic
def _vector_lanes(typingctx, pointer):
    """Elements of the pointer's dtype in a vector of the machine."""
    lanes = MACHINE.vector_bytes * 8 // pointer.dtype.bitwidth

    def codegen(context, builder, signature, arguments):
        return context.get_constant(types.intp, lanes)

    return types.intp(pointer), codegen


@intrinsic
def _store_scaled(typingctx, out, factor, source):
    """out[0 : 8] = factor[0] source[0 : 8], unaligned; all three are pointers."""
    size = source.dtype.bitwidth // 8

    def codegen(context, builder, signature, arguments):
        out, factor, source = arguments
        element = ir.FloatType() if size == 4 else ir.DoubleType()
        vector = ir.VectorType(element, TILE)
        value = builder.load(builder.bitcast(source, vector.as_pointer()), align=size)
        undefined = ir.Constant(vector, ir.Undefined)
        factor = builder.load(factor)
        scale = builder.insert_element(undefined, factor, ir.Constant(ir.IntType(32), 0))
        splat = ir.Constant(ir.VectorType(ir.IntType(32), TILE), None)
        value = builder.fmul(value, builder.shuffle_vector(scale, undefined, splat))
        builder.store(value, builder.bitcast(out, vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(out, factor, source), codegen


@intrinsic
def _store_direct(typingctx, out, y_a, y_b, x_a, x_b):
    """out[0 : 8] = (y_a[0] (x_b - y_b) + (x_a[0] - y_a[0]) y_b) / 2, unaligned; all pointers.

    x_b and y_b are vectors of 8.
    """
    size = x_a.dtype.bitwidth // 8

    def codegen(context, builder, signature, arguments):
        out, y_a, y_b, x_a, x_b = arguments
        element = ir.FloatType() if size == 4 else ir.DoubleType()
        vector = ir.VectorType(element, TILE)
        undefined = ir.Constant(vector, ir.Undefined)
        splat = ir.Constant(ir.VectorType(ir.IntType(32), TILE), None)

        def spread(value):
            value = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(value, undefined, splat)

        def load(pointer):
            return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=size)

        half = ir.Constant(element, 0.5)
        y_first = builder.fmul(builder.load(y_a), half)
        difference = builder.fsub(builder.fmul(builder.load(x_a), half), y_first)
        y_second = load(y_b)
        value = builder.fadd(
            builder.fmul(spread(y_first), builder.fsub(load(x_b), y_second)),
            builder.fmul(spread(difference), y_second),
        )
        builder.store(value, builder.bitcast(out, vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(out, y_a, y_b, x_a, x_b), codegen


# Products


@njit(**_OPTIONS)
def round_up(n):
    """Round n up to a multiple of TILE."""
    return (n + TILE - 1) // TILE * TILE


@njit(**_OPTIONS)
def add_product(
    left, left_first, left_stride, right, right_first, right_stride, n_steps,
    out, out_first, out_stride, n_columns,
):  # fmt: skip
    """out[r, c] += sum_n left[n, r] right[n, c] for TILE rows r and n_columns columns c.

    left, right and out are C-ordered arrays of which element (n, r) is at flat position
    first + n stride + r; out is float64. n_columns is a multiple of TILE, n_steps at least 1. The
    sum over n is taken in the dtype of left and right and added to out once. The caller owns all.
    """
    lanes = _vector_lanes(_address(left, 0))
    for r in range(0, TILE, MACHINE.rows):
        a = _address(left, left_first + r)
        o = out_first + r * out_stride
        c = 0
        while c + 3 * lanes <= n_columns:
            b = _address(right, right_first + c)
            _add_3(a, 1, left_stride, b, right_stride, n_steps, _address(out, o + c), out_stride)
            c += 3 * lanes
        if c + 2 * lanes <= n_columns:
            b = _address(right, right_first + c)
            _add_2(a, 1, left_stride, b, right_stride, n_steps, _address(out, o + c), out_stride)
            c += 2 * lanes
        if c + lanes <= n_columns:
            b = _address(right, right_first + c)
            _add_1(a, 1, left_stride, b, right_stride, n_steps, _address(out, o + c), out_stride)
            c += lanes
        if c < n_columns:  # 8 columns of float32 where a vector has 16
            b = _address(right, right_first + c)
            _add_half(a, 1, left_stride, b, right_stride, n_steps, _address(out, o + c), out_stride)


@njit(**_OPTIONS)
def _project(rows, column, n_inputs, weights, first, n_rows, out, out_first):
    """out[out_first + n] = rows[first + n, column : column + n_inputs] weights for n < n_rows.

    rows is (S, .), weights (n_inputs, k^) with zeros past k, out (., > k^) owned by the caller;
    n_rows is a multiple of TILE.
    """
    lanes = _vector_lanes(_address(rows, 0))
    width, stride = rows.shape[1], out.shape[1]
    n_columns = weights.shape[1]
    for n in range(0, n_rows, MACHINE.rows):
        a = _address(rows, (first + n) * width + column)
        c = 0
        while c + 3 * lanes <= n_columns:
            o = _address(out, (out_first + n) * stride + c)
            _set_3(a, width, 1, _address(weights, c), n_columns, n_inputs, o, stride)
            c += 3 * lanes
        while c + lanes <= n_columns:
            o = _address(out, (out_first + n) * stride + c)
            _set_1(a, width, 1, _address(weights, c), n_columns, n_inputs, o, stride)
            c += lanes
        if c < n_columns:
            o = _address(out, (out_first + n) * stride + c)
            _set_half(a, width, 1, _address(weights, c), n_columns, n_inputs, o, stride)


# Packing of features into panels


@njit(**_OPTIONS)
def pair_offset(a, k):
    """Position of the pair (a, a) among the pairs."""
    return a * k - a * (a - 1) // 2


@njit(**_OPTIONS)
def _pack_run(factor, f_first, source, s_first, width, length, panel, p_first, stride, n_rows):
    """panel[n, 0 : length] = factor[n] source[n, 0 : length] for n_rows rows n.

    Rows are `width` apart in factor and source and `stride` in panel; f_first, s_first and p_first
    are flat positions in the first row. Vectors of 8 may run over the end by up to 7 elements.
    """
    for j in range(0, length, TILE):
        f, s, p = f_first, s_first + j, p_first + j
        for _ in range(n_rows):
            _store_scaled(_address(panel, p), _address(factor, f), _address(source, s))
            f += width
            s += width
            p += stride


@njit(**_OPTIONS)
def _pack_pairs(x, width, first_row, n_rows, k, begin, end, panel, stride):
    """panel[n, p - begin] = x[n, a] x[n, b] for pairs p = (a, b), begin <= p < end.

    x is flat with rows of width >= k + 8, zero past k; panel is flat with rows of `stride`, 8
    longer than end - begin, owned by the caller. Runs of one a are stored in ascending order, so
    that what one writes over its end is overwritten by the next, and past the last pair it is zero.
    """
    for strip in range(0, n_rows, _PACK_ROWS):
        count = min(_PACK_ROWS, n_rows - strip)
        row = (first_row + strip) * width
        offset = 0
        for a in range(k):
            start, stop = max(begin - offset, 0), min(end - offset, k - a)
            if start < stop:
                _pack_run(
                    x, row + a, x, row + a + start, width, stop - start,
                    panel, strip * stride + offset + start - begin, stride, count,
                )  # fmt: skip
            offset += k - a


@njit(**_OPTIONS)
def _pack_direct(x, y, width, first_row, n_rows, k, begin, end, panel, stride):
    """panel[n, p - begin] = sym(y (x - y)^T)[a, b] for pairs p = (a, b); as `_pack_pairs`."""
    for strip in range(0, n_rows, _PACK_ROWS):
        count = min(_PACK_ROWS, n_rows - strip)
        row = (first_row + strip) * width
        offset = 0
        for a in range(k):
            start, stop = max(begin - offset, 0), min(end - offset, k - a)
            for j in range(start, stop, TILE):
                one, run = row + a, row + a + j
                p = strip * stride + offset + j - begin
                for _ in range(count):
                    _store_direct(
                        _address(panel, p), _address(y, one), _address(y, run),
                        _address(x, one), _address(x, run),
                    )  # fmt: skip
                    one += width
                    run += width
                    p += stride
            offset += k - a


@njit(**_OPTIONS)
def _pack_mixed(x, y, width, first_row, n_rows, k, begin, end, panel, stride):
    """panel[n, p - begin] = x[n, a] y[n, i] for p = a k + i, begin <= p < end; as `_pack_pairs`."""
    for strip in range(0, n_rows, _PACK_ROWS):
        count = min(_PACK_ROWS, n_rows - strip)
        row = (first_row + strip) * width
        for a in range(begin // k, (end - 1) // k + 1):
            offset = a * k
            start, stop = max(begin - offset, 0), min(end - offset, k)
            _pack_run(
                x, row + a, y, row + start, width, stop - start,
                panel, strip * stride + offset + start - begin, stride, count,
            )  # fmt: skip


def mixed_tiles(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Layout of the sums of y' (triples of x'): rows p = a k + i in tiles of 8 rows.

    A tile holds the columns (pairs (b, c) of x') from that of its first a on, rounded down to a
    multiple of 8; columns with b < a are by-catch.

    Returns
    -------
    starts : ndarray of int, shape (n_tiles,)
        First column of each tile.
    offsets : ndarray of int, shape (n_tiles + 1,)
        Position of each tile, rows of P^ - start elements, in a flat array; the last is its size.
    """
    first = np.arange(0, k * k, TILE) // k
    starts = (first * k - first * (first - 1) // 2) // TILE * TILE
    padded_pairs = -(-(k * (k + 1) // 2) // TILE) * TILE
    return starts, np.concatenate([[0], np.cumsum(TILE * (padded_pairs - starts))])


def mixed_positions(k: int) -> np.ndarray:
    """Return where the sum of y'_i (triple of x') is in the layout of `mixed_tiles`.

    Returns
    -------
    positions : ndarray of int, shape (k, Q)
        Triples in lexicographic order.
    """
    starts, offsets = mixed_tiles(k)
    pairs = k * (k + 1) // 2
    columns = -(-pairs // TILE) * TILE
    parts = []
    for a in range(k):
        tile, row = np.divmod(a * k + np.arange(k), TILE)
        first = offsets[tile] + row * (columns - starts[tile]) - starts[tile]
        parts.append(first[:, None] + np.arange(a * k - a * (a - 1) // 2, pairs))
    return np.concatenate(parts, axis=1)


@njit(**_OPTIONS)
def _panel_stride(columns, itemsize):
    """Row length of a panel: an odd number of 64-byte lines.

    A column of tiles then does not fall into a few cache sets, and there is room for a vector that
    runs over the end.
    """
    return columns + 64 // itemsize


def panel_size(block_rows: int) -> int:
    """Elements of a panel for blocks of block_rows samples."""
    return int(block_rows * _panel_stride(_RIGHT_COLUMNS, 4) + TILE)


# Moments


@njit(**_OPTIONS)
def _accumulate_block(
    rows, width, first, count, d, k, inverse_scale, x, y, x_even, x_width, starts, offsets,
    part, n_parts, left, right, second, cross, third, yyxx, mixed, xxxx,
):  # fmt: skip
    """Add a block of `count` rows from `first` on to one part of a lane's sums.

    Arrays as in `accumulate`; rows is flat, with `width` elements a sample, the sums are those of
    one lane, left and right are panels of this thread. The chunks of rows of each sum are dealt out
    to the parts in turn, so two tasks never write the same element.
    """
    n_pairs = k * (k + 1) // 2
    columns = round_up(n_pairs)
    left_stride = _panel_stride(_LEFT_COLUMNS, left.itemsize)
    right_stride = _panel_stride(_RIGHT_COLUMNS, right.itemsize)
    quartic, direct = len(yyxx) > 0, len(yyxx) > 0 and len(mixed) == 0

    # Everything that is multiplied with the pairs of x'.
    for begin in range(0, columns, _RIGHT_COLUMNS):
        end = min(begin + _RIGHT_COLUMNS, columns)
        _pack_pairs(x_even, x_width, first, count, k, begin, min(end, n_pairs), right, right_stride)
        chunk = 0
        for low in range(0, columns if len(xxxx) > 0 else 0, _LEFT_COLUMNS):
            if chunk % n_parts == part:
                high = min(low + _LEFT_COLUMNS, columns)
                last = min(high, n_pairs)
                _pack_pairs(x, x_width, first, count, k, low, last, left, left_stride)
                for r in range(low, high, TILE):
                    add_product(
                        left, r - low, left_stride, right, 0, right_stride, count,
                        xxxx, r * columns + begin, columns, end - begin,
                    )  # fmt: skip
            chunk += 1
        for low in range(0, columns if quartic else 0, _LEFT_COLUMNS):
            if chunk % n_parts == part:
                high = min(low + _LEFT_COLUMNS, columns)
                last = min(high, n_pairs)
                if direct:
                    _pack_direct(x, y, x_width, first, count, k, low, last, left, left_stride)
                else:
                    _pack_pairs(y, x_width, first, count, k, low, last, left, left_stride)
                for r in range(low, high, TILE):
                    add_product(
                        left, r - low, left_stride, right, 0, right_stride, count,
                        yyxx, r * columns + begin, columns, end - begin,
                    )  # fmt: skip
            chunk += 1
        for low in range(0, round_up(k * k) if len(mixed) > 0 else 0, _LEFT_COLUMNS):
            if chunk % n_parts == part and starts[low // TILE] < end:
                high = min(low + _LEFT_COLUMNS, round_up(k * k))
                _pack_mixed(
                    x, y, x_width, first, count, k, low, min(high, k * k), left, left_stride
                )
                for r in range(low, high, TILE):
                    tile = r // TILE
                    c = max(begin, starts[tile])
                    if c < end:
                        stride = columns - starts[tile]
                        add_product(
                            left, r - low, left_stride, right, c - begin, right_stride,
                            count, mixed, offsets[tile] + c - starts[tile], stride, end - c,
                        )  # fmt: skip
            chunk += 1
        for r in range(0, round_up(1 + d) if len(cross) > 0 else 0, TILE):
            if chunk % n_parts == part:
                add_product(
                    rows, first * width + r, width, right, 0, right_stride, count,
                    cross, r * columns + begin, columns, end - begin,
                )  # fmt: skip
            chunk += 1

    # Second moments: the upper triangle, in whole tiles.
    for r in range(0, width if len(second) > 0 else 0, TILE):
        if r // TILE % n_parts == part:
            add_product(
                rows, first * width + r, width, rows, first * width + r, width, count,
                second, r * width + r, width, width - r,
            )  # fmt: skip

    if part == 0 and third.shape[1] > 0:
        cubes = np.zeros((2, d))
        for n in range(first, first + count):
            sample = rows[n * width + 1 : n * width + 1 + d]
            root = 1 / rows[n * width]  # staged rows are times sqrt(weight)
            for i in range(d):
                t = sample[i] * inverse_scale[i]
                cube = t * t * t * root
                cubes[0, i] += cube
                cubes[1, i] += cube * cube
        for i in range(d):
            third[0, i] += cubes[0, i]
            third[1, i] += cubes[1, i]


@njit(**_OPTIONS)
def _project_rows(
    rows, first, n_rows, d, m, k, input_map, output_map, weighted, radius, x, y, x_even
):  # fmt: skip
    """Project n_rows samples from `first` on, rounded up to whole tiles; arrays as in `accumulate`.

    Rows past the last sample hold older samples or zeros; their projections are not used.
    """
    _project(rows, 1, d, input_map, first, round_up(n_rows), x, first)
    _project(rows, 1 + d, m, output_map, first, round_up(n_rows), y, first)
    if weighted:
        # Staged rows are times sqrt(weight); so that a product of two pairs is times weight too,
        # the factor here must be its fourth root.
        for n in range(first, first + n_rows):
            factor = 1 / np.sqrt(rows[n, 0])
            for a in range(k):
                x[n, a] *= factor
                y[n, a] *= factor
    if radius > 0:
        for n in range(first, first + n_rows):
            square = 0.0
            for a in range(k):
                square += x[n, a] * x[n, a]
            square /= rows[n, 0]
            factor = np.sqrt(radius / (radius + square))
            for a in range(k):
                x_even[n, a] = x[n, a] * factor


@njit(**_OPTIONS)
def _run_task(
    rows, n_rows, block_rows, d, m, k, input_map, output_map, weighted, radius, inverse_scale,
    x, y, x_even, starts, offsets, n_lanes, n_parts, task, panels,
    second, cross, third, yyxx, mixed, xxxx,
):  # fmt: skip
    """Run task lane * n_parts + part on the panels (2, size) of this thread."""
    lane, part = task // n_parts, task % n_parts
    for block in range(lane, (n_rows + block_rows - 1) // block_rows, n_lanes):
        first = block * block_rows
        count = min(block_rows, n_rows - first)
        if n_parts == 1:
            _project_rows(
                rows, first, count, d, m, k, input_map, output_map, weighted, radius, x, y, x_even
            )
        _accumulate_block(
            rows.reshape(-1), rows.shape[1], first, count, d, k, inverse_scale,
            x.reshape(-1), y.reshape(-1), x_even.reshape(-1), x.shape[1], starts, offsets,
            part, n_parts, panels[0], panels[1],
            second[lane], cross[lane], third[lane], yyxx[lane], mixed[lane], xxxx[lane],
        )  # fmt: skip


@njit(parallel=True, **_OPTIONS)
def accumulate(
    rows, n_rows, block_rows, d, m, k, input_map, output_map, weighted, radius, inverse_scale,
    starts, offsets, n_lanes, n_parts, x, y, x_even, panels,
    second, cross, third, yyxx, mixed, xxxx,
):  # fmt: skip
    """Add n_rows staged samples to the moment sums.

    With x = X input_map, y = Y output_map, "pairs" the products of coordinates, and a sample's
    weight and phi = radius / (radius + |x|^2), 1 for radius = 0::

        second  (L, w w)         += weight v v^T, v = (1, X, Y, 0 ...); on and above the diagonal
        cross   (L, (1 + d)^ P^) += weight phi (1, X) (pairs of x)^T
        third   (L, 2, d)        += (weight t^3, (weight t^3)^2), t = X_i / scale_i
        yyxx    (L, P^ P^)       += weight phi (pairs of y) (pairs of x)^T
        mixed   (L, size)        += weight phi (x_a y_i) (pairs of x)^T, tiles of `mixed_tiles`
        xxxx    (L, P^ P^)       += weight phi (pairs of x) (pairs of x)^T

    rows is (S, w), w = (1 + d + m)^, C order, holding sqrt(weight) v; S is a multiple of 8.
    weighted says whether any weight is not 1. The maps are (d, k^) and (m, k^) in the dtype of
    rows with zeros past k; x and y are (S, k^ + 8) work space, zero past k, and x_even is like
    them, or x itself for radius = 0; panels (n_threads, 2, size) is work space of `panel_size`.
    Sums are float64, matrices flattened; padding in them is by-catch. A sum of size 0 is not
    wanted and not computed; yyxx without mixed is the direct form, sym(y (x - y)^T) in place of
    the pairs of y. The caller owns all of them.

    Block i of block_rows samples always goes to lane i mod n_lanes, and n_parts tasks share the
    rows of a lane's sums: each element is summed in one order, whatever the number of threads and
    of parts.
    """
    # Parts of a lane share its projected samples; a lane in one part projects its own.
    for strip in prange((n_rows + _STRIP_ROWS - 1) // _STRIP_ROWS if n_parts > 1 else 0):
        first = strip * _STRIP_ROWS
        count = min(_STRIP_ROWS, n_rows - first)
        _project_rows(
            rows, first, count, d, m, k, input_map, output_map, weighted, radius, x, y, x_even
        )
    for task in prange(n_lanes * n_parts):
        _run_task(
            rows, n_rows, block_rows, d, m, k, input_map, output_map, weighted, radius,
            inverse_scale, x, y, x_even, starts, offsets, n_lanes, n_parts, task,
            panels[get_thread_id()], second, cross, third, yyxx, mixed, xxxx,
        )  # fmt: skip


@njit(**_OPTIONS)
def accumulate_serial(
    rows, n_rows, block_rows, d, m, k, input_map, output_map, weighted, radius, inverse_scale,
    starts, offsets, n_lanes, n_parts, x, y, x_even, panels,
    second, cross, third, yyxx, mixed, xxxx,
):  # fmt: skip
    """`accumulate` in the calling thread alone, to the same bits, for callers with own threads."""
    if n_parts > 1:
        _project_rows(
            rows, 0, n_rows, d, m, k, input_map, output_map, weighted, radius, x, y, x_even
        )
    for task in range(n_lanes * n_parts):
        _run_task(
            rows, n_rows, block_rows, d, m, k, input_map, output_map, weighted, radius,
            inverse_scale, x, y, x_even, starts, offsets, n_lanes, n_parts, task,
            panels[0], second, cross, third, yyxx, mixed, xxxx,
        )  # fmt: skip


# Residuals of a network, and what Gauss-Newton needs


@njit(**_OPTIONS)
def _residual_block(
    rows, first, count, d, m, hidden, outputs, outputs_back, slope, work,
    hidden_gradient, output_gradient, residual_moment,
):  # fmt: skip
    """Add `count` <= RESIDUAL_ROWS samples from `first` on to the sums of a lane.

    Arrays as in `residuals`; the sums are those of one lane and `work` is of this thread.
    """
    width, k = rows.shape[1], hidden.shape[1]
    d_padded, m_padded = round_up(1 + d), outputs.shape[1]
    padded = round_up(count)
    h, s, e, g = work[0], work[1], work[2], work[3]
    stride = work.shape[2]
    _project(rows, 0, 1 + d, hidden, first, padded, h, 0)
    for n in range(count):
        for j in range(k):
            t = h[n, j]
            mask = 1.0 if t > 0 else slope
            s[n, j] = mask
            h[n, j] = mask * t
    _project(h, 0, k, outputs, 0, padded, e, 0)
    for n in range(count):
        for o in range(m):
            e[n, o] = rows[first + n, 1 + d + o] - e[n, o]
    _project(e, 0, m, outputs_back, 0, padded, g, 0)
    for n in range(count):
        for j in range(k):
            g[n, j] *= s[n, j]
    flat, flat_h, flat_e, flat_g = rows.reshape(-1), h.reshape(-1), e.reshape(-1), g.reshape(-1)
    for j in range(0, k, TILE):
        add_product(
            flat_g, j, stride, flat, first * width, width, count,
            hidden_gradient, j * d_padded, d_padded, d_padded,
        )  # fmt: skip
        add_product(
            flat_h, j, stride, flat_e, 0, stride, count,
            output_gradient, j * m_padded, m_padded, m_padded,
        )  # fmt: skip
    for o in range(0, m_padded, TILE):
        add_product(
            flat_e, o, stride, flat_e, o, stride, count,
            residual_moment, o * m_padded + o, m_padded, m_padded - o,
        )  # fmt: skip


RESIDUAL_ROWS = 128
"""Samples of a block of `residuals`: four buffers of that many rows stay in the second cache."""


@njit(parallel=True, **_OPTIONS)
def residuals(
    rows, n_rows, d, m, hidden, outputs, outputs_back, slope, n_lanes, work,
    hidden_gradient, output_gradient, residual_moment,
):  # fmt: skip
    """Add n_rows staged samples to the sums of squares and the gradient of a network.

    With u = (1, x), t = u hidden, s = 1 where t > 0 and slope elsewhere, h = s t and residual
    r = y - h outputs::

        hidden_gradient (L, k^ (1 + d)^) += (s * (r outputs^T))^T u
        output_gradient (L, k^ m^)       += h^T r
        residual_moment (L, m^ m^)       += r r^T, on and above the diagonal

    rows is (S, w), w = (1 + d + m)^, C order, holding (1, x, y, 0 ...), S a multiple of 8; hidden
    is (1 + d, k^), outputs (k^, m^) and outputs_back, its transpose, (m, k^), all with zeros past
    k and m. work (n_threads, 4, RESIDUAL_ROWS, >= max(k^, m^)) is work space. Sums are float64,
    matrices flattened; padding in them is by-catch. The caller owns all of them.

    Block i of RESIDUAL_ROWS samples goes to lane i mod n_lanes: each element is summed in one
    order, whatever the number of threads.
    """
    for lane in prange(n_lanes):
        for block in range(lane, (n_rows + RESIDUAL_ROWS - 1) // RESIDUAL_ROWS, n_lanes):
            first = block * RESIDUAL_ROWS
            _residual_block(
                rows, first, min(RESIDUAL_ROWS, n_rows - first), d, m, hidden, outputs,
                outputs_back, slope, work[get_thread_id()],
                hidden_gradient[lane], output_gradient[lane], residual_moment[lane],
            )  # fmt: skip


@njit(**_OPTIONS)
def residuals_serial(
    rows, n_rows, d, m, hidden, outputs, outputs_back, slope, n_lanes, work,
    hidden_gradient, output_gradient, residual_moment,
):  # fmt: skip
    """`residuals` in the calling thread alone, to the same bits."""
    for lane in range(n_lanes):
        for block in range(lane, (n_rows + RESIDUAL_ROWS - 1) // RESIDUAL_ROWS, n_lanes):
            first = block * RESIDUAL_ROWS
            _residual_block(
                rows, first, min(RESIDUAL_ROWS, n_rows - first), d, m, hidden, outputs,
                outputs_back, slope, work[0],
                hidden_gradient[lane], output_gradient[lane], residual_moment[lane],
            )  # fmt: skip


@njit(**_OPTIONS)
def _mask_rows(rows, first, n_rows, d, k, hidden, slope, masks, inputs):
    """Fill masks and inputs for n_rows samples from `first` on; arrays as in `mask_moments`."""
    _project(rows, 0, 1 + d, hidden, first, round_up(n_rows), masks, first)
    for n in range(first, first + n_rows):
        for j in range(k):
            masks[n, j] = 1.0 if masks[n, j] > 0 else slope
        for i in range(1 + d):
            inputs[n, i] = rows[n, i]


@njit(**_OPTIONS)
def _mask_task(
    n_rows, block_rows, d, k, n_lanes, n_parts, task, masks, inputs, panels, moments
):  # fmt: skip
    """Run task lane * n_parts + part of `mask_moments` on the panels (2, size) of this thread."""
    lane, part = task // n_parts, task % n_parts
    mask_pairs, input_pairs = k * (k + 1) // 2, (1 + d) * (2 + d) // 2
    n_left, n_right = round_up(mask_pairs), round_up(input_pairs)
    left, right, sums = panels[0], panels[1], moments[lane]
    left_stride = _panel_stride(_LEFT_COLUMNS, left.itemsize)
    right_stride = _panel_stride(_RIGHT_COLUMNS, right.itemsize)
    s, u = masks.reshape(-1), inputs.reshape(-1)
    for block in range(lane, (n_rows + block_rows - 1) // block_rows, n_lanes):
        first = block * block_rows
        count = min(block_rows, n_rows - first)
        chunk = 0
        for begin in range(0, n_right, _RIGHT_COLUMNS):
            end = min(begin + _RIGHT_COLUMNS, n_right)
            packed = False
            for low in range(0, n_left, _LEFT_COLUMNS):
                if chunk % n_parts == part:
                    high = min(low + _LEFT_COLUMNS, n_left)
                    if not packed:
                        _pack_pairs(
                            u, inputs.shape[1], first, count, 1 + d, begin, min(end, input_pairs),
                            right, right_stride,
                        )  # fmt: skip
                        packed = True
                    _pack_pairs(
                        s, masks.shape[1], first, count, k, low, min(high, mask_pairs),
                        left, left_stride,
                    )  # fmt: skip
                    for r in range(low, high, TILE):
                        add_product(
                            left, r - low, left_stride, right, 0, right_stride, count,
                            sums, r * n_right + begin, n_right, end - begin,
                        )  # fmt: skip
                chunk += 1


@njit(parallel=True, **_OPTIONS)
def mask_moments(
    rows, n_rows, block_rows, d, k, hidden, slope, n_lanes, n_parts, masks, inputs, panels, moments,
):  # fmt: skip
    """Add (pairs of s) (pairs of u)^T of n_rows staged samples to the sums `moments`.

    With u = (1, x) and s the masks of `residuals`; E[s_i s_j u u^T] is all that the Gauss-Newton
    normal matrix is made of. rows and hidden as in `residuals`; masks (S, k^ + 8) and inputs
    (S, (1 + d)^ + 8) are work space, zero at first; panels as in `accumulate`. moments is
    (L, P_k^ P_(1+d)^), float64, flattened; padding is by-catch. The caller owns all of them.
    """
    for strip in prange((n_rows + _STRIP_ROWS - 1) // _STRIP_ROWS):
        first = strip * _STRIP_ROWS
        count = min(_STRIP_ROWS, n_rows - first)
        _mask_rows(rows, first, count, d, k, hidden, slope, masks, inputs)
    for task in prange(n_lanes * n_parts):
        _mask_task(
            n_rows, block_rows, d, k, n_lanes, n_parts, task, masks, inputs,
            panels[get_thread_id()], moments,
        )  # fmt: skip


@njit(**_OPTIONS)
def mask_moments_serial(
    rows, n_rows, block_rows, d, k, hidden, slope, n_lanes, n_parts, masks, inputs, panels, moments,
):  # fmt: skip
    """`mask_moments` in the calling thread alone, to the same bits."""
    _mask_rows(rows, 0, n_rows, d, k, hidden, slope, masks, inputs)
    for task in range(n_lanes * n_parts):
        _mask_task(
            n_rows, block_rows, d, k, n_lanes, n_parts, task, masks, inputs, panels[0], moments
        )
