"""The same samples in memory and in all kinds of files, for all tests of sources."""

import numpy as np
import pytest

from fastsym import make_two_layer


@pytest.fixture(scope="session")
def data():
    from .kinds import D, M, N

    X, Y, _ = make_two_layer(N, D, 3, M, noise=0.1, random_state=0)
    return X.astype(np.float32), Y.astype(np.float32)


@pytest.fixture(scope="session")
def written(data, tmp_path_factory):
    """All kinds of files with the same samples: {kind: arguments of open_source}."""
    from .kinds import write_all

    return write_all(tmp_path_factory.mktemp("kinds"), *data)
