"""What the benchmarks share: compiled kernels before a measurement, and probes to compare with.

A time is a figure of the machine and of its neighbours. Every tracked figure is a ratio of the
shortest of several runs to the shortest run of a probe, taken alternately in one process. Editing a
probe changes every ratio while asv keeps the old history: raise `version` of the benchmarks then.
"""

import importlib
import time

import numpy as np
from llvmlite import ir
from numba import get_num_threads, njit, prange, set_num_threads, types
from numba.core import cgutils
from numba.extending import intrinsic


def first_of(*names):
    """Import the first of these modules that there is: new commits first, then older ones."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # What a module needs and does not find is another matter.
            if not f"{name}.".startswith(f"{error.name}."):
                raise
    raise ModuleNotFoundError(f"there is none of {', '.join(names)}.")


kernels = first_of("fastsym.sums.kernels", "fastsym._kernels")
moments = first_of("fastsym.sums.moments", "fastsym.moments")
staging = first_of("fastsym.sums.staging", "fastsym.staging")
try:
    layout = first_of("fastsym.sums.layout")
except ModuleNotFoundError:
    layout = None
MACHINE = kernels.MACHINE
MomentAccumulator, load_kernels = moments.MomentAccumulator, moments.load_kernels
SUPERBLOCK_ROWS = staging.SUPERBLOCK_ROWS
estimate_frame = first_of("fastsym.sums.frame", "fastsym.frame").estimate_frame

_CHAINS = 24  # independent fused multiply-adds: more than latency times units on any machine
_STEPS = 1 << 20


@intrinsic
def _fma_chains(typingctx, seed, n_steps):
    """Multiply-add 24 (portable: 12) vectors of a register each, n_steps times; returns a sum."""
    chains = _CHAINS if MACHINE.vectors * MACHINE.rows >= _CHAINS else 12
    size = seed.bitwidth // 8
    lanes = MACHINE.vector_bytes // size

    def codegen(context, builder, signature, arguments):
        seed, n_steps = arguments
        index = ir.IntType(64)
        element = ir.FloatType() if size == 4 else ir.DoubleType()
        vector = ir.VectorType(element, lanes)
        fma = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [vector] * 3),
            f"llvm.fmuladd.v{lanes}f{8 * size}",
        )
        undefined = ir.Constant(vector, ir.Undefined)
        start = builder.insert_element(undefined, seed, ir.Constant(ir.IntType(32), 0))
        splat = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
        start = builder.shuffle_vector(start, undefined, splat)
        entry, loop, done = (
            builder.block,
            builder.append_basic_block("loop"),
            builder.append_basic_block("done"),
        )
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(index)
        step.add_incoming(ir.Constant(index, 0), entry)
        totals = [builder.phi(vector) for _ in range(chains)]
        results = [builder.call(fma, [total, start, start]) for total in totals]
        for total, result in zip(totals, results, strict=True):
            total.add_incoming(start, entry)
            total.add_incoming(result, loop)
        following = builder.add(step, ir.Constant(index, 1))
        step.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, n_steps), loop, done)
        builder.position_at_end(done)
        total = results[0]
        for result in results[1:]:
            total = builder.fadd(total, result)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return seed(seed, types.intp), codegen


@njit(parallel=True, cache=True)
def _burn(seed, n_threads, out):
    for thread in prange(n_threads):
        out[thread] = _fma_chains(seed, _STEPS)


def fma_probe(dtype, n_threads):
    """Return a function that runs fused multiply-adds at full rate, and its operations (2 each)."""
    chains = _CHAINS if MACHINE.vectors * MACHINE.rows >= _CHAINS else 12
    out = np.empty(n_threads, dtype)
    seed = np.dtype(dtype).type(0.5)
    lanes = MACHINE.vector_bytes // np.dtype(dtype).itemsize
    return (lambda: _burn(seed, n_threads, out)), 2.0 * chains * lanes * _STEPS * n_threads


def stream_probe(n_bytes=64 << 20):
    """Return a function that reads memory past the caches, and the bytes it reads."""
    data = np.ones(n_bytes // 8)
    return data.sum, n_bytes


def seconds(function):
    """Time one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def shortest(functions, repeats, inner=1):
    """Shortest times of several functions that take turns `repeats` times."""
    best = [np.inf] * len(functions)
    for function in functions:
        function()
    for _ in range(repeats):
        for i, function in enumerate(functions):
            for _ in range(inner):
                best[i] = min(best[i], seconds(function))
    return best


def quartic_flops(n, k):
    """Useful operations on the quartic moments, 2 for a multiply-add: pairs^2 + k triples each."""
    pairs, triples = k * (k + 1) // 2, k * (k + 1) * (k + 2) // 6
    return 2.0 * n * (pairs**2 + k * triples)


def useful_flops(n, d, k, m):
    """Operations on all sums of products: the quartic, E[(1, x) pairs], half of E[v v^T].

    Padding, packing, projection and third moments do not count.
    """
    width = 1 + d + m
    pairs = k * (k + 1) // 2
    return quartic_flops(n, k) + 2.0 * n * ((1 + d) * pairs + width * (width + 1) / 2)


class Threads:
    """Context of a number of Numba threads."""

    def __init__(self, n_threads):
        self.n_threads = n_threads

    def __enter__(self):
        self.before = get_num_threads()
        set_num_threads(min(self.n_threads, self.before))

    def __exit__(self, *_):
        set_num_threads(self.before)


def samples(k, dtype, n_rows=SUPERBLOCK_ROWS):
    """Rows like those of a network: what they are does not change the speed."""
    X, noise = np.random.default_rng(0).standard_normal((2, n_rows, k)).astype(dtype)
    return X, np.maximum(X, 0) + noise / 10


def run_kernels(k, dtype, n_rows=SUPERBLOCK_ROWS, n_jobs=None):
    """Return a call of the kernels on staged rows: projection, packing and products."""
    X, Y = samples(k, dtype, n_rows)
    frame = estimate_frame(X, Y, k)
    if layout is None:
        return _run_kernels_of_accumulator(frame, X, Y, dtype, n_jobs)
    sums = layout.MomentSums(frame, wanted=layout.ONE_PASS, dtype=dtype, n_rows=SUPERBLOCK_ROWS)
    rows = layout.aligned_zeros((SUPERBLOCK_ROWS, sums.width), dtype)
    staging.stage(rows, X, Y)
    return lambda: sums.add(rows, n_rows, weighted=False, n_jobs=n_jobs)


def _run_kernels_of_accumulator(frame, X, Y, dtype, n_jobs):
    """`run_kernels` for commits before `MomentSums`, where only the accumulator could call them."""
    accumulator = MomentAccumulator(frame=frame, compute_dtype=dtype, n_jobs=n_jobs).update(X, Y)

    def run():
        accumulator._n_staged = len(X)
        accumulator._run_kernels()
        accumulator._n_staged = 0

    return run


def numpy_way(k, dtype, n_rows=2048):
    """Return the same quartic moments by NumPy: packed features, matrix product, default BLAS."""
    X, Y = samples(k, dtype, n_rows)
    a, b = np.triu_indices(k)
    pairs = k * (k + 1) // 2
    starts = np.arange(k) * k - np.arange(k) * (np.arange(k) - 1) // 2
    yyxx = np.zeros((pairs, pairs))
    yxxx = [np.zeros((k, pairs - start)) for start in starts]

    def accumulate():
        features = X[:, a] * X[:, b]
        yyxx[...] += (Y[:, a] * Y[:, b]).T @ features
        for axis, start in enumerate(starts):
            yxxx[axis][...] += (Y * X[:, axis : axis + 1]).T @ features[:, start:]

    return accumulate, n_rows


class Compiled:
    """Base class: the kernels are compiled once for a commit, outside of what is measured."""

    timeout = 300
    version = "1"

    def setup_cache(self):
        for dtype in ("float64", "float32"):
            load_kernels(dtype)
            fma_probe(dtype, 1)[0]()
