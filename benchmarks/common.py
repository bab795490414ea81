"""What the benchmarks share: compiled kernels before a measurement, and a probe to compare with."""

import time

import numpy as np

from fastsym.moments import load_kernels

PROBE_SIZE = 384


class Compiled:
    """Base class: the kernels are compiled once for a commit, outside of what is measured."""

    timeout = 300

    def setup_cache(self):
        for dtype in ("float64", "float32"):
            load_kernels(dtype)


def best_seconds(function, repeats):
    """Shortest of several runs: the one least disturbed by neighbours."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def ratio_to_product(function, flops, repeats=5):
    """Time of `function` over that of NumPy's float64 matrix product for as many operations.

    Both run alternately in this process, so that the ratio holds on another or a busy machine.
    Changing the probe changes every ratio: raise the `version` of the benchmarks then.
    """
    left, right = np.random.default_rng(0).standard_normal((2, PROBE_SIZE, PROBE_SIZE))
    function()
    left @ right
    seconds = probe = np.inf
    for _ in range(repeats):
        seconds = min(seconds, best_seconds(function, 1))
        probe = min(probe, best_seconds(lambda: left @ right, 3))
    return seconds / (flops * probe / (2 * PROBE_SIZE**3))
