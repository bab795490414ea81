"""The kernels beside the machine's peak, and beside NumPy's matrix product for the same sums."""

from .common import (
    Compiled,
    Threads,
    fma_probe,
    numpy_way,
    run_kernels,
    shortest,
    useful_flops,
)


class Kernels(Compiled):
    """One thread, so that the figures hold on a shared machine."""

    params = ((8, 10, 16, 32, 64), ("float64", "float32"))
    param_names = ("k", "dtype")
    repeats = 25
    rows = 8192

    def setup(self, k, dtype):
        self.kernels = run_kernels(k, dtype, self.rows, n_jobs=1)

    def track_time_over_peak(self, k, dtype):
        """Time of the kernels over that of their useful operations at the FMA peak."""
        peak, operations = fma_probe(dtype, 1)
        with Threads(1):
            time, at_peak = shortest([self.kernels, peak], self.repeats if k < 32 else 5)
        return (time / useful_flops(self.rows, k, k, k)) / (at_peak / operations)

    def track_time_over_numpy(self, k, dtype):
        """Time a row of the kernels over NumPy's for the quartic sums alone, both on one thread."""
        from threadpoolctl import threadpool_limits

        by_numpy, numpy_rows = numpy_way(k, dtype)
        with threadpool_limits(1):
            time, numpy_time = shortest([self.kernels, by_numpy], 8 if k < 32 else 2)
        return (time / self.rows) / (numpy_time / numpy_rows)

    track_time_over_peak.unit = "ratio"
    track_time_over_numpy.unit = "ratio"
