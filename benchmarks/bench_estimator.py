"""The estimator end to end, and how good its answer is."""

import numpy as np

from fastsym import TwoLayerRegressor, make_two_layer, parameter_error

from .common import Compiled


class Fit(Compiled):
    params = ((10, 32), (20_000,))
    param_names = ("k", "n_samples")

    def setup(self, k, n_samples):
        self.X, self.Y, _ = make_two_layer(n_samples, k, k, k, noise=0.1, random_state=0)

    def time_fit(self, k, n_samples):
        TwoLayerRegressor(k).fit(self.X, self.Y)


class Quality(Compiled):
    """Recovery error at fixed seeds: speed that was bought with accuracy shows here."""

    params = (("gaussian", "gaussian_mixture", "laplace"), ("float64", "float32"))
    param_names = ("distribution", "dtype")

    def track_hidden_error(self, distribution, dtype):
        errors = []
        for seed in range(3):
            X, Y, network = make_two_layer(
                20_000, 10, 10, 10, distribution=distribution, noise=0.1, random_state=seed
            )
            model = TwoLayerRegressor(10, compute_dtype=dtype).fit(X, Y)
            errors.append(parameter_error(network, model.network_).hidden_error)
        return float(np.median(errors))
