"""What a user waits for before the first result."""

import os
import subprocess
import sys
import tempfile
import time

from .common import Compiled, kernels

FIRST_FIT = """
import time
import numpy as np
import scipy.linalg, scipy.optimize
import numba
import fastsym.estimator
X = np.random.default_rng(0).standard_normal((20000, 4))
start = time.perf_counter()
fastsym.TwoLayerRegressor(3).fit(X, np.maximum(X, 0))
print(time.perf_counter() - start)
"""


def first_fit(cache):
    """Seconds of the first fit in a fresh process beyond imports."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_FIT],
        env=os.environ | {"NUMBA_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def import_seconds(code):
    """Shortest of five imports in fresh processes."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        best = min(best, time.perf_counter() - start)
    return best


class Import(Compiled):
    def timeraw_help(self):
        return """
        import contextlib
        import io
        from fastsym.cli import app
        with contextlib.redirect_stdout(io.StringIO()):
            app(["--help"], standalone_mode=False)
        """

    def track_import_beyond_numba(self):
        """Seconds that fastsym and its kernels add to the import of numba and numpy."""
        alone = import_seconds("import numpy, numba")
        return max(import_seconds(f"import numpy, numba, {kernels.__name__}") - alone, 0)

    def track_first_fit_cold(self):
        with tempfile.TemporaryDirectory() as cache:
            return first_fit(cache)

    def track_first_fit_warm(self):
        with tempfile.TemporaryDirectory() as cache:
            first_fit(cache)
            return min(first_fit(cache) for _ in range(3))

    track_import_beyond_numba.unit = "seconds"
    track_first_fit_cold.unit = "seconds"
    track_first_fit_warm.unit = "seconds"
