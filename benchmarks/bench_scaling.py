"""Two threads beside one. Only on a quiet machine: ASV_SLOW=1."""

import os

from .common import Compiled, run_kernels, shortest


class Threads(Compiled):
    params = (10, 16, 32)
    param_names = ("k",)

    def setup(self, k):
        if os.environ.get("ASV_SLOW") != "1":
            raise NotImplementedError("set ASV_SLOW=1 on a quiet machine")
        self.two, self.one = (run_kernels(k, "float64", n_jobs=n_jobs) for n_jobs in (2, 1))

    def track_two_threads_over_one(self, k):
        """Time on two threads over the time on one: 0.5 is perfect."""
        two, one = shortest([self.two, self.one], 20)
        return two / one

    track_two_threads_over_one.unit = "ratio"
