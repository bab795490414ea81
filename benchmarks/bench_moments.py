"""Accumulation of moments, staging and checks included."""

import numpy as np

from fastsym import MomentAccumulator

from .common import Compiled, Threads, estimate_frame, fma_probe, shortest, useful_flops

SHAPES = {"4,4,4": (4, 4, 4), "10,10,10": (10, 10, 10), "300,10,30": (300, 10, 30)}


def samples(d, m, n_rows, dtype):
    X = np.random.default_rng(0).standard_normal((n_rows, d)).astype(dtype)
    Y = np.maximum(X[:, np.arange(m) % d], 0) + X[:, -np.arange(m) % d] ** 2 / 10
    return X, Y


class Update(Compiled):
    params = (tuple(SHAPES), ("float64", "float32"))
    param_names = ("d,k,m", "dtype")
    rows = 16384

    def setup(self, shape, dtype):
        self.shape = SHAPES[shape]
        d, k, m = self.shape
        self.X, self.Y = samples(d, m, self.rows, dtype)
        frame = estimate_frame(self.X, self.Y, k)
        self.accumulator = MomentAccumulator(frame=frame, compute_dtype=dtype, n_jobs=1)

    def time_update(self, shape, dtype):
        self.accumulator.update(self.X, self.Y)

    def track_time_over_peak(self, shape, dtype):
        """Time over that of the useful operations at the FMA peak, one thread."""
        peak, operations = fma_probe(dtype, 1)
        with Threads(1):
            time, at_peak = shortest([lambda: self.accumulator.update(self.X, self.Y), peak], 10)
        return (time / useful_flops(self.rows, *self.shape)) / (at_peak / operations)

    def track_small_chunks(self, shape, dtype):
        """Time of chunks of 64 rows over that of one chunk."""

        def chunks():
            for first in range(0, self.rows, 64):
                self.accumulator.update(self.X[first : first + 64], self.Y[first : first + 64])

        with Threads(1):
            time, whole = shortest([chunks, lambda: self.accumulator.update(self.X, self.Y)], 5)
        return time / whole

    track_time_over_peak.unit = "ratio"
    track_small_chunks.unit = "ratio"


def _status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024


class Memory(Compiled):
    params = (10, 32)
    param_names = ("k",)

    def track_over_baseline(self, k):
        """Peak of resident memory over what was there before, in MB (Linux)."""
        X, Y = samples(k, k, 8192, "float64")
        frame = estimate_frame(X, Y, k)
        MomentAccumulator(frame=frame).update(X, Y)
        before = _status("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        accumulator = MomentAccumulator(frame=frame)
        for _ in range(10):
            accumulator.update(X, Y)
        accumulator.moments()
        return max(_status("VmHWM") - before, 0)

    track_over_baseline.unit = "MB"
