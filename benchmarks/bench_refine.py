"""The kernels of the refinement over the machine's peak, and whole refined fits."""

import numpy as np

from fastsym import TwoLayerRegressor, make_two_layer

from .common import Compiled, Threads, first_of, fma_probe, shortest

Sample = first_of("fastsym.refine.sample", "fastsym.residuals").Sample


def residual_flops(n, k):
    """Units, prediction, its two products back, both gradients, half of the residual moment."""
    return 2.0 * n * (2 * k * (1 + k) + 3 * k * k + k * (k + 1) / 2)


def mask_flops(n, k):
    """Pairs of masks times pairs of (1, x)."""
    return 2.0 * n * (k * (k + 1) / 2) * ((1 + k) * (2 + k) / 2)


class RefinementKernels(Compiled):
    """Time over that of the operations at the machine's peak, one thread: 1 is the best."""

    params = ([10, 32], ["residuals", "mask_moments"])
    param_names = ("k", "kernel")

    def setup(self, k, kernel):
        rng = np.random.default_rng(0)
        self.n = 4096
        self.sample = Sample(*rng.standard_normal((2, self.n, k)), n_jobs=1)
        self.hidden = rng.standard_normal((k, 1 + k))
        self.outputs = rng.standard_normal((k, k))

    def run(self, kernel):
        if kernel == "residuals":
            self.sample.residuals(self.hidden, self.outputs, 0.0)
        else:
            self.sample.mask_moments(self.hidden, 0.0)

    def track_time_over_peak(self, k, kernel):
        with Threads(1):
            probe, operations = fma_probe("float64", 1)
            flops = (residual_flops if kernel == "residuals" else mask_flops)(self.n, k)
            own, best = shortest([lambda: self.run(kernel), probe], 20)
        return own / (best * flops / operations)

    track_time_over_peak.unit = "ratio"


class Refined(Compiled):
    """Refined fits: time, passes over all samples, and squared error."""

    params = ([10_000, 100_000],)
    param_names = ("n_samples",)

    def setup(self, n_samples):
        self.X, self.Y, self.network = make_two_layer(
            n_samples, 10, 10, 10, noise=0.1, random_state=0
        )

    def time_fit(self, n_samples):
        TwoLayerRegressor(10).fit(self.X, self.Y)

    def track_passes(self, n_samples):
        return TwoLayerRegressor(10).fit(self.X, self.Y).n_passes_

    def track_loss_over_noise(self, n_samples):
        return TwoLayerRegressor(10).fit(self.X, self.Y).loss_ / 0.1
