"""Numba kernels: the only compiled code of the package.

All kernels are in this one file because ``cache=True`` does not notice an edit of a helper in
another file. Arrays come in one layout only (C order, staged by ``moments``), so each kernel has
two specialisations, float64 and float32.

All heavy work has one shape, out[a, j] += sum_n left[n, a] right[n, j] with features packed on the
fly, and goes through `add_product`: a register-tiled micro-kernel that emits vector IR for the host
(`MACHINE`) and adds whole tiles of 8 x 8 elements to float64 sums.

Symbols: ``S`` staged rows, ``k`` hidden units, ``d`` features, ``m`` outputs,
``P = k (k + 1) / 2`` pairs, ``L`` lanes. Pairs (a, b), a <= b, are in lexicographic order, so
those with both >= a are a suffix: the triples (a, b, c), a <= b <= c, that start with a are x_a
times that suffix. A hat, as in ``P^``, is a size rounded up to a multiple of 8.

Arrays come in NamedTuples, one for each owner. The caller owns them all; matrices of sums are
flattened, and padding in them is by-catch.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import njit, prange, types
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

_INDEX, _LANE, _BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)


def _element(scalar):
    return ir.FloatType() if scalar.bitwidth == 32 else ir.DoubleType()


def _at(builder, pointer, n, kind):
    """Pointer to the `kind` that is n elements further."""
    return builder.bitcast(builder.gep(pointer, [ir.Constant(_INDEX, n)]), kind.as_pointer())


def _spread(builder, value, lanes):
    """Vector of equal elements."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    value = builder.insert_element(undefined, value, ir.Constant(_LANE, 0))
    splat = ir.Constant(ir.VectorType(_LANE, lanes), None)
    return builder.shuffle_vector(value, undefined, splat)


@intrinsic
def _address(typingctx, array, offset):
    """Pointer to element `offset` of a C-ordered array, counted flat."""

    def codegen(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.gep(view.data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


@intrinsic
def _shifted(typingctx, pointer, n):
    """Pointer n elements further."""

    def codegen(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), codegen


@intrinsic
def _vector_lanes(typingctx, pointer):
    """Elements of the pointer's dtype in a vector of the machine."""
    lanes = MACHINE.vector_bytes * 8 // pointer.dtype.bitwidth

    def codegen(context, builder, signature, arguments):
        return context.get_constant(types.intp, lanes)

    return types.intp(pointer), codegen


def _fetch_tile(builder, out, out_row, rows, columns):
    """Prefetch the sums, which are needed after all steps, one access a line."""
    fetch = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _LANE, _LANE, _LANE]),
        "llvm.prefetch.p0i8",
    )
    how = [ir.Constant(_LANE, n) for n in (1, 3, 1)]
    for _ in range(rows):
        for column in range(0, columns, 8):
            builder.call(fetch, [_at(builder, out, column, _BYTE), *how])
        out = builder.gep(out, [out_row])


def _multiply_steps(builder, vector, starts, left_step, right, right_step, n_steps, vectors):
    """Emit the loop of a micro-kernel; `starts` are pointers to the rows of left.

    Returns the products, one list of vectors a row, and leaves the builder behind the loop.
    """
    element, lanes = vector.element, vector.count
    size = 4 if isinstance(element, ir.FloatType) else 8
    # fmuladd, not fma: a machine without the instruction gets a multiply and an add.
    fma = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(vector, [vector] * 3),
        f"llvm.fmuladd.v{lanes}f{8 * size}",
    )
    entry = builder.block
    loop = builder.append_basic_block("steps")
    done = builder.append_basic_block("store")
    builder.branch(loop)
    builder.position_at_end(loop)

    def carried(kind, start):
        value = builder.phi(kind)
        value.add_incoming(start, entry)
        return value

    step = carried(_INDEX, ir.Constant(_INDEX, 0))
    offset = carried(_INDEX, ir.Constant(_INDEX, 0))
    right_now = carried(element.as_pointer(), right)
    zero = ir.Constant(vector, None)
    totals = [[carried(vector, zero) for _ in range(vectors)] for _ in starts]
    columns = [
        builder.load(_at(builder, right_now, v * lanes, vector), align=size) for v in range(vectors)
    ]
    results = []
    for start, row in zip(starts, totals, strict=True):
        value = _spread(builder, builder.load(builder.gep(start, [offset])), lanes)
        results.append(
            [builder.call(fma, [value, *pair]) for pair in zip(columns, row, strict=True)]
        )
    for row, sums in zip(totals, results, strict=True):
        for total, result in zip(row, sums, strict=True):
            total.add_incoming(result, loop)
    next_step = builder.add(step, ir.Constant(_INDEX, 1))
    step.add_incoming(next_step, loop)
    offset.add_incoming(builder.add(offset, left_step), loop)
    right_now.add_incoming(builder.gep(right_now, [right_step]), loop)
    builder.cbranch(builder.icmp_signed("<", next_step, n_steps), loop, done)
    builder.position_at_end(done)
    return results


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
            vector = ir.VectorType(_element(scalar), lanes)
            stored = ir.VectorType(ir.DoubleType(), lanes) if add else vector
            # Pointers to the rows of left; for neighbouring columns one pointer serves all.
            starts = [left]
            for _ in range(rows - 1):
                starts.append(builder.gep(starts[-1], [left_row]))
            if add:
                _fetch_tile(builder, out, out_row, rows, vectors * lanes)
            results = _multiply_steps(
                builder, vector, starts, left_step, right, right_step, n_steps, vectors
            )
            for row in results:
                for v, value in enumerate(row):
                    place = _at(builder, out, v * lanes, stored)
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
def _store_scaled(typingctx, out, factor, source):
    """out[0 : 8] = factor[0] source[0 : 8], unaligned; all three are pointers."""
    size = source.dtype.bitwidth // 8

    def codegen(context, builder, signature, arguments):
        out, factor, source = arguments
        vector = ir.VectorType(_element(signature.args[2].dtype), TILE)
        value = builder.load(_at(builder, source, 0, vector), align=size)
        value = builder.fmul(value, _spread(builder, builder.load(factor), TILE))
        builder.store(value, _at(builder, out, 0, vector), align=size)
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
        element = _element(signature.args[3].dtype)
        vector = ir.VectorType(element, TILE)
        half = ir.Constant(element, 0.5)
        y_first = builder.fmul(builder.load(y_a), half)
        difference = builder.fsub(builder.fmul(builder.load(x_a), half), y_first)
        y_second = builder.load(_at(builder, y_b, 0, vector), align=size)
        x_second = builder.load(_at(builder, x_b, 0, vector), align=size)
        value = builder.fadd(
            builder.fmul(_spread(builder, y_first, TILE), builder.fsub(x_second, y_second)),
            builder.fmul(_spread(builder, difference, TILE), y_second),
        )
        builder.store(value, _at(builder, out, 0, vector), align=size)
        return context.get_dummy_value()

    return types.void(out, y_a, y_b, x_a, x_b), codegen


# What the kernels take


class Staged(NamedTuple):
    """Samples, staged as rows v = sqrt(weight) (1, x, y, 0 ...); the first n_rows are summed."""

    rows: Any  # (S, (1 + d + m)^), C order, S a multiple of 8
    n_rows: int
    d: int
    m: int


class Axes(NamedTuple):
    """Frame of the moments: x = X input_map, y = Y output_map, phi = radius / (radius + |x|^2).

    The maps are in the dtype of the rows. radius = 0 means phi = 1; weighted says whether any
    weight is not 1.
    """

    k: int
    input_map: Any  # (d, k^), zeros past k
    output_map: Any  # (m, k^), zeros past k
    weighted: bool
    radius: float
    inverse_scale: Any  # (d,), of X in the third moments
    starts: Any  # (n_tiles,), of `mixed_tiles`
    offsets: Any  # (n_tiles + 1,), of `mixed_tiles`


class Layers(NamedTuple):
    """Network h outputs + u linear, u = (1, x), t = u hidden, h = s t; s is 1 or the slope."""

    hidden: Any  # (1 + d, k^), zeros past k
    outputs: Any  # (k^, m^), zeros past k and m
    outputs_back: Any  # (m, k^), its transpose, zeros past k
    linear: Any  # (1 + d, m^), zeros past m; (0, m^) if there is none
    slope: float


class Schedule(NamedTuple):
    """Who sums what: each element in one order, whatever the number of parts and of workers.

    Block i of block_rows samples goes to lane i mod n_lanes, whose sums are shared by n_parts
    tasks. Workers, one for each thread, take an equal share of the tasks.
    """

    block_rows: int
    n_lanes: int
    n_parts: int
    n_workers: int


class MomentWork(NamedTuple):
    """Work space of `accumulate`, in the dtype of the rows; zero at first."""

    x: Any  # (S, k^ + 8), projected samples
    y: Any  # (S, k^ + 8)
    x_even: Any  # (S, k^ + 8), sqrt(phi) x; for radius = 0 it is x itself
    panels: Any  # (n_workers, 2, `panel_size`), packed features


class MomentSums(NamedTuple):
    """Sums of all lanes, or of one, float64; one of size 0 is not wanted and not computed."""

    second: Any  # (L, w w), w = (1 + d + m)^, on and above the diagonal
    cross: Any  # (L, (1 + d)^ P^)
    third: Any  # (L, 2, d)
    yyxx: Any  # (L, P^ P^)
    mixed: Any  # (L, offsets[-1]), tiles of `mixed_tiles`
    xxxx: Any  # (L, P^ P^)


class ResidualSums(NamedTuple):
    """Sums of all lanes, or of one, float64."""

    hidden_gradient: Any  # (L, k^ (1 + d)^)
    output_gradient: Any  # (L, k^ m^)
    linear_gradient: Any  # (L, (1 + d)^ m^); size 0 if there is no linear part
    residual_moment: Any  # (L, m^ m^), on and above the diagonal


class MaskWork(NamedTuple):
    """Work space of `mask_moments`, float64; zero at first."""

    masks: Any  # (S, k^ + 8), s
    inputs: Any  # (S, (1 + d)^ + 8), u
    panels: Any  # (n_workers, 2, `panel_size`), packed features


def _both(body):
    """Compile a body twice: with threads, and for the calling thread alone, to the same bits."""
    # Numba's cache tells functions apart by name, line and bytecode, not by options: the twin has
    # a name of its own.
    twin = type(body)(body.__code__, body.__globals__, body.__name__ + "_serial")
    twin.__qualname__, twin.__module__ = body.__qualname__ + "_serial", body.__module__
    twin.__doc__ = body.__doc__
    return njit(parallel=True, **_OPTIONS)(body), njit(**_OPTIONS)(twin)


@njit(**_OPTIONS)
def _tasks(schedule, n_rows, worker):
    """Tasks lane * n_parts + part of a worker: neighbours, as many as other workers have."""
    n_blocks = (n_rows + schedule.block_rows - 1) // schedule.block_rows
    n_tasks = min(schedule.n_lanes, n_blocks) * schedule.n_parts
    n_workers = schedule.n_workers
    return range(worker * n_tasks // n_workers, (worker + 1) * n_tasks // n_workers)


# Products


class View(NamedTuple):
    """Matrix as the micro-kernels see it; who makes the view keeps the array."""

    at: Any  # pointer to the first element
    stride: int  # elements from row to row


@njit(**_OPTIONS)
def view_of(array, first, stride):
    """View of a C-ordered array from flat position `first` on."""
    return View(_address(array, first), stride)


@njit(**_OPTIONS)
def _rows_of(matrix, first):
    """View of a C-ordered matrix from a row on."""
    return View(_address(matrix, first * matrix.shape[1]), matrix.shape[1])


@njit(**_OPTIONS)
def _moved(view, row, column):
    """View from a row and a column on."""
    return View(_shifted(view.at, row * view.stride + column), view.stride)


@njit(**_OPTIONS)
def round_up(n):
    """Round n up to a multiple of TILE."""
    return (n + TILE - 1) // TILE * TILE


@njit(**_OPTIONS)
def add_product(left, right, n_steps, out, n_columns):
    """out[r, c] += sum_n left[n, r] right[n, c] for TILE rows r and n_columns columns c.

    left, right and out are views; out is float64. n_columns is a multiple of TILE, n_steps at least
    1. The sum over n is taken in the dtype of left and right and added to out once.
    """
    lanes = _vector_lanes(left.at)
    step, row = right.stride, out.stride
    for r in range(0, TILE, MACHINE.rows):
        a, o = _shifted(left.at, r), _shifted(out.at, r * row)
        c = 0
        while c + 3 * lanes <= n_columns:
            b = _shifted(right.at, c)
            _add_3(a, 1, left.stride, b, step, n_steps, _shifted(o, c), row)
            c += 3 * lanes
        if c + 2 * lanes <= n_columns:
            b = _shifted(right.at, c)
            _add_2(a, 1, left.stride, b, step, n_steps, _shifted(o, c), row)
            c += 2 * lanes
        if c + lanes <= n_columns:
            b = _shifted(right.at, c)
            _add_1(a, 1, left.stride, b, step, n_steps, _shifted(o, c), row)
            c += lanes
        if c < n_columns:  # 8 columns of float32 where a vector has 16
            b = _shifted(right.at, c)
            _add_half(a, 1, left.stride, b, step, n_steps, _shifted(o, c), row)


@njit(**_OPTIONS)
def _add_rows(left, right, n_steps, out, n_rows, n_columns):
    """`add_product` for n_rows rows, a multiple of TILE."""
    for r in range(0, n_rows, TILE):
        add_product(_moved(left, 0, r), right, n_steps, _moved(out, r, 0), n_columns)


@njit(**_OPTIONS)
def _project(rows, n_inputs, weights, n_rows, out):
    """out[n] = rows[n, 0 : n_inputs] weights for n < n_rows; rows and out are views.

    weights is (n_inputs, k^) with zeros past k, out longer than k^; n_rows is a multiple of TILE.
    """
    lanes = _vector_lanes(rows.at)
    step = weights.shape[1]
    for n in range(0, n_rows, MACHINE.rows):
        a, o = _moved(rows, n, 0).at, _moved(out, n, 0).at
        c = 0
        while c + 3 * lanes <= step:
            b = _address(weights, c)
            _set_3(a, rows.stride, 1, b, step, n_inputs, _shifted(o, c), out.stride)
            c += 3 * lanes
        while c + lanes <= step:
            b = _address(weights, c)
            _set_1(a, rows.stride, 1, b, step, n_inputs, _shifted(o, c), out.stride)
            c += lanes
        if c < step:
            b = _address(weights, c)
            _set_half(a, rows.stride, 1, b, step, n_inputs, _shifted(o, c), out.stride)


# Packing of features into panels


@njit(**_OPTIONS)
def _pack_run(factor, source, length, panel, n_rows):
    """panel[n, 0 : length] = factor[n, 0] source[n, 0 : length] for n_rows rows n of views.

    Vectors of 8 may run over the end by up to 7 elements.
    """
    for j in range(0, length, TILE):
        # Addresses from n: for pointers moved by a stride, LLVM unrolls the loop over j and spills,
        # which costs 5 to 10 % of a pass at k = 10.
        for n in range(n_rows):
            _store_scaled(_moved(panel, n, j).at, _moved(factor, n, 0).at, _moved(source, n, j).at)


@njit(**_OPTIONS)
def _pack_pairs(x, n_rows, k, begin, end, panel):
    """panel[n, p - begin] = x[n, a] x[n, b] for pairs p = (a, b), begin <= p < end.

    x and panel are views: rows of x of at least k + 8, zero past k; those of panel 8 longer than
    end - begin. Runs of one a are stored in ascending order, so that what one writes over its end
    is overwritten by the next, and past the last pair it is zero.
    """
    for strip in range(0, n_rows, _PACK_ROWS):
        count = min(_PACK_ROWS, n_rows - strip)
        offset = 0
        for a in range(k):
            start, stop = max(begin - offset, 0), min(end - offset, k - a)
            if start < stop:
                _pack_run(
                    _moved(x, strip, a), _moved(x, strip, a + start), stop - start,
                    _moved(panel, strip, offset + start - begin), count,
                )  # fmt: skip
            offset += k - a


@njit(**_OPTIONS)
def _pack_direct(x, y, n_rows, k, begin, end, panel):
    """panel[n, p - begin] = sym(y (x - y)^T)[a, b] for pairs p = (a, b); as `_pack_pairs`."""
    for strip in range(0, n_rows, _PACK_ROWS):
        count = min(_PACK_ROWS, n_rows - strip)
        offset = 0
        for a in range(k):
            start, stop = max(begin - offset, 0), min(end - offset, k - a)
            for j in range(start, stop, TILE):
                x_a, y_a = _moved(x, strip, a).at, _moved(y, strip, a).at
                p = _moved(panel, strip, offset + j - begin).at
                for _ in range(count):
                    _store_direct(p, y_a, _shifted(y_a, j), x_a, _shifted(x_a, j))
                    x_a, y_a = _shifted(x_a, x.stride), _shifted(y_a, y.stride)
                    p = _shifted(p, panel.stride)
            offset += k - a


@njit(**_OPTIONS)
def _pack_mixed(x, y, n_rows, k, begin, end, panel):
    """panel[n, p - begin] = x[n, a] y[n, i] for p = a k + i, begin <= p < end; as `_pack_pairs`."""
    for strip in range(0, n_rows, _PACK_ROWS):
        count = min(_PACK_ROWS, n_rows - strip)
        for a in range(begin // k, (end - 1) // k + 1):
            offset = a * k
            start, stop = max(begin - offset, 0), min(end - offset, k)
            _pack_run(
                _moved(x, strip, a), _moved(y, strip, start), stop - start,
                _moved(panel, strip, offset + start - begin), count,
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


@njit(**_OPTIONS)
def _panels_of(panels):
    """View the two panels (2, size) of a worker: features on the left and on the right."""
    left = view_of(panels[0], 0, _panel_stride(_LEFT_COLUMNS, panels.itemsize))
    right = view_of(panels[1], 0, _panel_stride(_RIGHT_COLUMNS, panels.itemsize))
    return left, right


# Moments


@njit(**_OPTIONS)
def _add_mixed(x, y, count, low, begin, axes, panels, mixed):
    """Add a chunk of rows of `mixed`, from `low` on, times the pairs from `begin` on."""
    left, right = panels
    k = axes.k
    columns = round_up(k * (k + 1) // 2)
    high, end = min(low + _LEFT_COLUMNS, round_up(k * k)), min(begin + _RIGHT_COLUMNS, columns)
    _pack_mixed(x, y, count, k, low, min(high, k * k), left)
    for r in range(low, high, TILE):
        start = axes.starts[r // TILE]
        c = max(begin, start)
        if c < end:
            out = view_of(mixed, axes.offsets[r // TILE] + c - start, columns - start)
            add_product(_moved(left, 0, r - low), _moved(right, 0, c - begin), count, out, end - c)


@njit(**_OPTIONS)
def _add_cubes(rows, first, count, inverse_scale, third):
    """Add weight t^3 and its square, t = X / scale, of `count` samples."""
    d = len(inverse_scale)
    cubes = np.zeros((2, d))
    for n in range(first, first + count):
        root = 1 / rows[n, 0]  # staged rows are times sqrt(weight)
        sample = rows[n, 1 : 1 + d]
        for i in range(d):
            t = sample[i] * inverse_scale[i]
            cube = t * t * t * root
            cubes[0, i] += cube
            cubes[1, i] += cube * cube
    for i in range(d):
        third[0, i] += cubes[0, i]
        third[1, i] += cubes[1, i]


@njit(**_OPTIONS)
def _add_block(staged, first, count, axes, work, part, n_parts, panels, sums):
    """Add a block of `count` rows from `first` on to one part of a lane's sums.

    The chunks of rows of each sum are dealt out to the parts in turn, so two tasks never write the
    same element.
    """
    k = axes.k
    n_pairs = k * (k + 1) // 2
    columns = round_up(n_pairs)
    rows, x_even = _rows_of(staged.rows, first), _rows_of(work.x_even, first)
    x, y = _rows_of(work.x, first), _rows_of(work.y, first)
    left, right = panels
    has_yyxx, has_mixed, has_xxxx = len(sums.yyxx) > 0, len(sums.mixed) > 0, len(sums.xxxx) > 0

    # Everything that is multiplied with the pairs of x'.
    for begin in range(0, columns, _RIGHT_COLUMNS):
        end = min(begin + _RIGHT_COLUMNS, columns)
        _pack_pairs(x_even, count, k, begin, min(end, n_pairs), right)
        chunk = 0
        for low in range(0, columns if has_xxxx else 0, _LEFT_COLUMNS):
            if chunk % n_parts == part:
                high = min(low + _LEFT_COLUMNS, columns)
                _pack_pairs(x, count, k, low, min(high, n_pairs), left)
                out = view_of(sums.xxxx, low * columns + begin, columns)
                _add_rows(left, right, count, out, high - low, end - begin)
            chunk += 1
        for low in range(0, columns if has_yyxx else 0, _LEFT_COLUMNS):
            if chunk % n_parts == part:
                high = min(low + _LEFT_COLUMNS, columns)
                if has_mixed:
                    _pack_pairs(y, count, k, low, min(high, n_pairs), left)
                else:
                    _pack_direct(x, y, count, k, low, min(high, n_pairs), left)
                out = view_of(sums.yyxx, low * columns + begin, columns)
                _add_rows(left, right, count, out, high - low, end - begin)
            chunk += 1
        for low in range(0, k * k if has_mixed else 0, _LEFT_COLUMNS):
            if chunk % n_parts == part and axes.starts[low // TILE] < end:
                _add_mixed(x, y, count, low, begin, axes, panels, sums.mixed)
            chunk += 1
        for r in range(0, 1 + staged.d if len(sums.cross) > 0 else 0, TILE):
            if chunk % n_parts == part:
                out = view_of(sums.cross, r * columns + begin, columns)
                add_product(_moved(rows, 0, r), right, count, out, end - begin)
            chunk += 1

    # Second moments: the upper triangle, in whole tiles.
    for r in range(0, rows.stride if len(sums.second) > 0 else 0, TILE):
        if r // TILE % n_parts == part:
            v = _moved(rows, 0, r)
            out = view_of(sums.second, r * rows.stride + r, rows.stride)
            add_product(v, v, count, out, rows.stride - r)

    if part == 0 and sums.third.shape[1] > 0:
        _add_cubes(staged.rows, first, count, axes.inverse_scale, sums.third)


@njit(**_OPTIONS)
def _project_rows(staged, first, n_rows, axes, work):
    """Project n_rows samples from `first` on, rounded up to whole tiles.

    Rows past the last sample hold older samples or zeros; their projections are not used.
    """
    rows, x, y = staged.rows, work.x, work.y
    k, radius = axes.k, axes.radius
    source, n_padded = _rows_of(rows, first), round_up(n_rows)
    inputs, outputs = _moved(source, 0, 1), _moved(source, 0, 1 + staged.d)
    _project(inputs, staged.d, axes.input_map, n_padded, _rows_of(x, first))
    _project(outputs, staged.m, axes.output_map, n_padded, _rows_of(y, first))
    if axes.weighted:
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
                work.x_even[n, a] = x[n, a] * factor


@njit(**_OPTIONS)
def _sum_task(staged, axes, schedule, work, panels, sums, task):
    """Run task lane * n_parts + part on the panels (2, size) of a worker."""
    lane, part = task // schedule.n_parts, task % schedule.n_parts
    own = MomentSums(
        sums.second[lane], sums.cross[lane], sums.third[lane], sums.yyxx[lane], sums.mixed[lane],
        sums.xxxx[lane],
    )  # fmt: skip
    views, step = _panels_of(panels), schedule.block_rows
    for first in range(lane * step, staged.n_rows, schedule.n_lanes * step):
        count = min(step, staged.n_rows - first)
        if schedule.n_parts == 1:
            _project_rows(staged, first, count, axes, work)
        _add_block(staged, first, count, axes, work, part, schedule.n_parts, views, own)


def _accumulate(staged, axes, schedule, work, sums):
    """Add staged samples to the moment sums.

    With v as in `Staged`, x, y and phi as in `Axes`, and "pairs" the products of coordinates::

        second += v v^T
        cross  += weight phi (1, X) (pairs of x)^T
        third  += (weight t^3, (weight t^3)^2), t = X_i / scale_i
        yyxx   += weight phi (pairs of y) (pairs of x)^T
        mixed  += weight phi (x_a y_i) (pairs of x)^T
        xxxx   += weight phi (pairs of x) (pairs of x)^T

    yyxx without mixed is the direct form, sym(y (x - y)^T) in place of the pairs of y.
    """
    n_rows = staged.n_rows
    # Parts of a lane share its projected samples; a lane in one part projects its own. A branch,
    # because a parallel loop without strips starts the threads all the same.
    if schedule.n_parts > 1:
        for strip in prange((n_rows + _STRIP_ROWS - 1) // _STRIP_ROWS):
            first = strip * _STRIP_ROWS
            _project_rows(staged, first, min(_STRIP_ROWS, n_rows - first), axes, work)
    for worker in prange(schedule.n_workers):
        for task in _tasks(schedule, n_rows, worker):
            _sum_task(staged, axes, schedule, work, work.panels[worker], sums, task)


accumulate, accumulate_serial = _both(_accumulate)


# Residuals of a network, and what Gauss-Newton needs

RESIDUAL_ROWS = 128
"""Samples of a block of `residuals`: four buffers of that many rows stay in the second cache."""


@njit(**_OPTIONS)
def _residual_block(staged, first, count, layers, work, sums):
    """Add `count` <= RESIDUAL_ROWS samples from `first` on to the sums of a lane."""
    rows, d, m, n_padded = staged.rows, staged.d, staged.m, round_up(count)
    k, d_padded, m_padded = layers.hidden.shape[1], round_up(1 + d), round_up(m)
    h, s, e, g = work[0], work[1], work[2], work[3]
    u, h_rows = _rows_of(rows, first), _rows_of(h, 0)
    e_rows, g_rows = _rows_of(e, 0), _rows_of(g, 0)
    _project(u, 1 + d, layers.hidden, n_padded, h_rows)
    for n in range(count):
        for j in range(k):
            t = h[n, j]
            mask = 1.0 if t > 0 else layers.slope
            s[n, j] = mask
            h[n, j] = mask * t
    _project(h_rows, k, layers.outputs, n_padded, e_rows)
    for n in range(count):
        for o in range(m):
            e[n, o] = rows[first + n, 1 + d + o] - e[n, o]
    if layers.linear.shape[0] > 0:
        _project(u, 1 + d, layers.linear, n_padded, g_rows)
        for n in range(count):
            for o in range(m):
                e[n, o] -= g[n, o]
        out = view_of(sums.linear_gradient, 0, m_padded)
        _add_rows(u, e_rows, count, out, d_padded, m_padded)
    _project(e_rows, m, layers.outputs_back, n_padded, g_rows)
    for n in range(count):
        for j in range(k):
            g[n, j] *= s[n, j]
    _add_rows(g_rows, u, count, view_of(sums.hidden_gradient, 0, d_padded), k, d_padded)
    _add_rows(h_rows, e_rows, count, view_of(sums.output_gradient, 0, m_padded), k, m_padded)
    for o in range(0, m_padded, TILE):
        r = _moved(e_rows, 0, o)
        out = view_of(sums.residual_moment, o * m_padded + o, m_padded)
        add_product(r, r, count, out, m_padded - o)


def _residuals(staged, layers, schedule, work, sums):
    """Add staged samples to the sums of squares and the gradient of a network.

    With rows u, s, h as in `Layers` and the residual r = y - h outputs - u linear::

        hidden_gradient += (s * (r outputs^T))^T u
        output_gradient += h^T r
        linear_gradient += u^T r
        residual_moment += r^T r

    block_rows is RESIDUAL_ROWS and n_parts 1. work (n_workers, 4, RESIDUAL_ROWS, >= max(k^, m^)) is
    work space, float64.
    """
    n_rows, step = staged.n_rows, schedule.block_rows
    for worker in prange(schedule.n_workers):
        for lane in _tasks(schedule, n_rows, worker):
            own = ResidualSums(
                sums.hidden_gradient[lane],
                sums.output_gradient[lane],
                sums.linear_gradient[lane],
                sums.residual_moment[lane],
            )
            for first in range(lane * step, n_rows, schedule.n_lanes * step):
                count = min(step, n_rows - first)
                _residual_block(staged, first, count, layers, work[worker], own)


residuals, residuals_serial = _both(_residuals)


@njit(**_OPTIONS)
def _mask_rows(staged, first, n_rows, k, hidden, slope, work):
    """Fill masks and inputs for n_rows samples from `first` on; arrays as in `mask_moments`."""
    rows, masks, inputs, n_inputs = staged.rows, work.masks, work.inputs, 1 + staged.d
    _project(_rows_of(rows, first), n_inputs, hidden, round_up(n_rows), _rows_of(masks, first))
    for n in range(first, first + n_rows):
        for j in range(k):
            masks[n, j] = 1.0 if masks[n, j] > 0 else slope
        for i in range(n_inputs):
            inputs[n, i] = rows[n, i]


@njit(**_OPTIONS)
def _mask_task(staged, k, schedule, work, panels, moments, task):
    """Run task lane * n_parts + part of `mask_moments` on the panels (2, size) of a worker."""
    lane, part = task // schedule.n_parts, task % schedule.n_parts
    d, step = staged.d, schedule.block_rows
    mask_pairs, input_pairs = k * (k + 1) // 2, (1 + d) * (2 + d) // 2
    n_left, n_right = round_up(mask_pairs), round_up(input_pairs)
    left, right = _panels_of(panels)
    for first in range(lane * step, staged.n_rows, schedule.n_lanes * step):
        count = min(step, staged.n_rows - first)
        s, u = _rows_of(work.masks, first), _rows_of(work.inputs, first)
        chunk = 0
        for begin in range(0, n_right, _RIGHT_COLUMNS):
            end = min(begin + _RIGHT_COLUMNS, n_right)
            packed = False
            for low in range(0, n_left, _LEFT_COLUMNS):
                if chunk % schedule.n_parts == part:
                    high = min(low + _LEFT_COLUMNS, n_left)
                    if not packed:
                        _pack_pairs(u, count, 1 + d, begin, min(end, input_pairs), right)
                        packed = True
                    _pack_pairs(s, count, k, low, min(high, mask_pairs), left)
                    out = view_of(moments[lane], low * n_right + begin, n_right)
                    _add_rows(left, right, count, out, high - low, end - begin)
                chunk += 1


def _mask_moments(staged, k, hidden, slope, schedule, work, moments):
    """Add (pairs of s) (pairs of u)^T of staged samples to the sums `moments`.

    With u, s and hidden as in `Layers`; E[s_i s_j u u^T] is all that the Gauss-Newton normal matrix
    is made of. moments is (L, P_k^ P_(1+d)^), float64.
    """
    n_rows = staged.n_rows
    for strip in prange((n_rows + _STRIP_ROWS - 1) // _STRIP_ROWS):
        first = strip * _STRIP_ROWS
        _mask_rows(staged, first, min(_STRIP_ROWS, n_rows - first), k, hidden, slope, work)
    for worker in prange(schedule.n_workers):
        for task in _tasks(schedule, n_rows, worker):
            _mask_task(staged, k, schedule, work, work.panels[worker], moments, task)


mask_moments, mask_moments_serial = _both(_mask_moments)
