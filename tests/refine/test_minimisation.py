"""How a minimisation ends."""

import re
import warnings

import numpy as np
import pytest

from fastsym import TwoLayerRegressor
from tests.test_arbitrary_data import COLUMNS, TARGETS

PROMISED = re.compile(r"promises a relative decrease of ([\d.e+-]+)")


def drawn(seed):
    """X, Y, n_hidden and fit_intercept at random, of columns of any kind."""
    rng = np.random.default_rng(seed)
    d = rng.integers(1, 5)
    n = int(rng.integers(d + 1, 200))
    X = np.stack([COLUMNS[kind](rng, n) for kind in rng.choice(sorted(COLUMNS), d)], axis=1)
    kinds = rng.choice(sorted(TARGETS), rng.integers(1, 4))
    Y = np.stack([TARGETS[kind](rng, X) for kind in kinds], axis=1)
    bias = bool(rng.integers(2))
    return X, Y, int(rng.integers(1, min(d, Y.shape[1]) + 1)), bias


@pytest.mark.parametrize("seed", [5, 11, 190])
def test_next_to_nothing_promised_is_not_worth_a_warning(seed):
    """A step that is damped until it promises nothing is no reason to doubt an optimum."""
    X, Y, k, bias = drawn(seed)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        TwoLayerRegressor(k, fit_intercept=bias).fit(X, Y)
    for one in given:
        if found := PROMISED.search(str(one.message)):
            assert float(found[1]) > 1e-6, one.message
