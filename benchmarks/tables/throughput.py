"""Throughput of the accumulation beside the machine's peak and NumPy: prints the project's table.

python -m benchmarks.tables.throughput [K ...]
"""

import os
import sys
import time

from benchmarks.common import (
    SUPERBLOCK_ROWS,
    Threads,
    estimate_frame,
    fma_probe,
    numpy_way,
    quartic_flops,
    run_kernels,
    samples,
    shortest,
    useful_flops,
)
from fastsym import MomentAccumulator
from fastsym.sums.kernels import MACHINE


def rates(k, dtype, repeats):
    """Rows a second: kernels with all and with 1 thread, `update` with all, NumPy; both peaks."""
    n_threads = os.cpu_count() or 1
    X, Y = samples(k, dtype)
    frame = estimate_frame(X, Y, k)
    accumulator = MomentAccumulator(frame=frame, compute_dtype=dtype)
    by_numpy, numpy_rows = numpy_way(k, dtype)
    peak_all, operations_all = fma_probe(dtype, n_threads)
    peak_one, operations_one = fma_probe(dtype, 1)
    rows = SUPERBLOCK_ROWS
    with Threads(n_threads):
        times = shortest(
            [
                run_kernels(k, dtype),
                run_kernels(k, dtype, n_jobs=1),
                lambda: accumulator.update(X, Y),
                peak_all,
                peak_one,
            ],
            repeats,
            # In a row, as over a stream: a thread that slept while one worked alone is often woken
            # on the core of the other, and stays there for longer than a superblock takes.
            inner=6,
        )
    # By itself: OpenBLAS's threads spin on for some 20 ms after a call and take a core away.
    times[3:3] = shortest([by_numpy], repeats)
    time.sleep(0.1)
    work = [rows, rows, rows, numpy_rows, operations_all, operations_one]
    return [amount / time for amount, time in zip(work, times, strict=True)]


if __name__ == "__main__":
    print(f"machine {MACHINE.name}, {os.cpu_count()} threads")
    print(
        "           kernels: useful operations over FMA peak       speed-up  update        "
        "over NumPy\n"
        "dtype     k  all threads  quartic alone  1 thread         of threads  rows/s        "
        "quartic alone"
    )
    for dtype in ("float64", "float32"):
        for k in [int(a) for a in sys.argv[1:]] or (8, 10, 12, 16, 24, 32, 48, 64):
            repeats = 20 if k <= 16 else 8 if k <= 32 else 3
            all_, one, update, by_numpy, peak_all, peak_one = rates(k, dtype, repeats)
            flops = useful_flops(1, k, k, k)
            print(
                f"{dtype} {k:4} {all_ * flops / peak_all:12.2f} "
                f"{all_ * quartic_flops(1, k) / peak_all:14.2f} {one * flops / peak_one:9.2f} "
                f"{all_ / one:19.2f} {update:12,.0f} {update / by_numpy:11.1f}",
                flush=True,
            )
