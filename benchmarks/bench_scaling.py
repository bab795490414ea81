"""Two threads beside one. Only on a quiet machine: ASV_SLOW=1."""

import copy
import os

from .common import Compiled, shortest, warm_accumulator
from .throughput import run_kernels


class Threads(Compiled):
    params = (10, 16, 32)
    param_names = ("k",)

    def setup(self, k):
        if os.environ.get("ASV_SLOW") != "1":
            raise NotImplementedError("set ASV_SLOW=1 on a quiet machine")
        self.all, _, _ = warm_accumulator(k, "float64")
        self.one = copy.copy(self.all)
        self.all.n_jobs, self.one.n_jobs = 2, 1

    def track_two_threads_over_one(self, k):
        """Time on two threads over the time on one: 0.5 is perfect."""
        two, one = shortest([run_kernels(self.all), run_kernels(self.one)], 20)
        return two / one

    track_two_threads_over_one.unit = "ratio"
