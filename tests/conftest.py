"""Settings that have to be made before numba or scipy are imported, and the command line."""

import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# More threads than this machine may have, so that thread tests always compare several with one.
os.environ.setdefault("NUMBA_NUM_THREADS", "4")
# Threads without work sleep: spinning, they take the cores from those that have some, of the other
# processes and of BLAS, whose matrices are small here (.ci/run gives BLAS two threads as well).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# scikit-learn skips its array API check without it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Processes that tests start, Dask workers among them, import the package from where the tests do,
# in whatever folder they run. Kernels are cached by their path: a copy of the package elsewhere
# would be compiled anew.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
)
# One cache for all of them, kept for the next run. An entry belongs to one processor and one state
# of the file of the kernels, which import no others (test_architecture.py): it cannot be stale.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / "numba"))

settings.register_profile("fastsym", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("fastsym")

SLOW_SECONDS = 600


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


def pytest_runtest_logstart(nodeid):
    # The stack that a time limit prints is titled by it.
    threading.main_thread().name = nodeid


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(20190506)


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line in this process; returns (exit code, standard output, error lines)."""
    from fastsym import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fastsym", *map(str, arguments)])
        monkeypatch.setattr("warnings.showwarning", lambda *_: None)
        code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call
