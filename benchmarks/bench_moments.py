"""Accumulation of moments."""

import resource

from fastsym import MomentAccumulator, make_two_layer
from fastsym.frame import estimate_frame

from .common import Compiled, ratio_to_product


def pair_flops(n, k):
    """Multiply-adds of the quartic moments, times 2: pairs x pairs and k x triples a sample."""
    pairs, triples = k * (k + 1) // 2, k * (k + 1) * (k + 2) // 6
    return 2 * n * (pairs**2 + k * triples)


class Update(Compiled):
    params = ((4, 10, 32), ("float64", "float32"))
    param_names = ("k", "dtype")
    rows = 16384

    def setup(self, k, dtype):
        self.X, self.Y, _ = make_two_layer(self.rows, k, k, k, noise=0.1, random_state=0)
        self.X, self.Y = self.X.astype(dtype), self.Y.astype(dtype)
        frame = estimate_frame(self.X, self.Y, k)
        self.accumulator = MomentAccumulator(frame=frame, compute_dtype=dtype)

    def time_update(self, k, dtype):
        self.accumulator.update(self.X, self.Y)

    def track_ratio_to_product(self, k, dtype):
        return ratio_to_product(
            lambda: self.accumulator.update(self.X, self.Y), pair_flops(self.rows, k)
        )


class Memory(Compiled):
    def track_peak_growth(self):
        """Growth of the peak resident memory over 20 more superblocks, in MB."""
        X, Y, _ = make_two_layer(8192, 10, 10, 10, noise=0.1, random_state=0)
        accumulator = MomentAccumulator(10)
        for _ in range(2):
            accumulator.update(X, Y)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(20):
            accumulator.update(X, Y)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    track_peak_growth.unit = "MB"
