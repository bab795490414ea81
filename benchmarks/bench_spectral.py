"""The spectral layer, from moments to weights."""

from fastsym import MomentAccumulator, make_two_layer, spectral

from .common import Compiled


class Solve(Compiled):
    params = (4, 10, 32)
    param_names = ("k",)

    def setup(self, k):
        X, Y, _ = make_two_layer(20_000, k, k, k, noise=0.1, random_state=0)
        self.moments = MomentAccumulator(k).update(X, Y).moments()

    def time_solve(self, k):
        spectral.solve(self.moments)
