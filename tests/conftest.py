"""Settings that have to be made before numba or scipy are imported."""

import os

# More threads than this machine may have, so that thread tests always compare several with one.
os.environ.setdefault("NUMBA_NUM_THREADS", "4")
# scikit-learn skips its array API check without it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import pytest
from hypothesis import settings

settings.register_profile("fastsym", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("fastsym")


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(20190506)
