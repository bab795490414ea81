"""The kernels by themselves, and for processors other than this one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from fastsym import _kernels

TARGETS = {
    "avx512": {},
    "avx2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+sse4.2"},
    "portable": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
}

# Prints the kernels' name and the largest error, relative to the largest element, over shapes that
# have every remainder of rows and columns, against full tensors in float64.
PROGRAM = """
import json
import numpy as np
from fastsym import MomentAccumulator, make_two_layer
from fastsym._kernels import MACHINE
from fastsym.residuals import Sample
from tests import naive

errors = {}
for dtype in ("float64", "float32"):
    worst = 0.0
    for d, k, m in [(1, 1, 1), (3, 2, 2), (4, 3, 9), (7, 5, 5), (9, 8, 8), (17, 10, 12)]:
        X, Y, _ = make_two_layer(333, d, k, m, noise=0.1, random_state=0)
        how = {"compute_dtype": dtype, "negative_slope": 0.25}
        moments = MomentAccumulator(k, **how).update(X, Y).moments()
        for name, value in naive.moments(X, Y, moments.frame).items():
            error = np.abs(getattr(moments, name) - value).max() / np.abs(value).max()
            worst = max(worst, float(error))
    if dtype == "float64":
        for n, d, k, m in [(333, 1, 1, 1), (200, 7, 5, 5), (129, 17, 10, 12)]:
            rng = np.random.default_rng(0)
            X, Y = rng.standard_normal((n, d)), rng.standard_normal((n, m))
            hidden, outputs = rng.standard_normal((k, 1 + d)), rng.standard_normal((m, k))
            sample = Sample(X, Y)
            sums = sample.residuals(hidden, outputs, 0.1)
            pairs = [(sample.mask_moments(hidden, 0.1), naive.mask_moments(X, hidden, 0.1))]
            for name, value in naive.residuals(X, Y, hidden, outputs, 0.1).items():
                pairs.append((getattr(sums, name), value))
            for got, value in pairs:
                worst = max(worst, float(np.abs(got - value).max() / np.abs(value).max()))
    errors[dtype] = worst
print(json.dumps({"name": MACHINE.name, **errors}))
"""


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_for_other_processors(target, tmp_path):
    environment = os.environ | TARGETS[target] | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment, cwd=os.path.dirname(os.path.dirname(__file__)),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    if target == "avx512" and result["name"] != target:
        pytest.skip(f"this processor has no AVX-512; its own kernels are {result['name']}")
    assert result["name"] == target
    assert result["float64"] < 1e-13
    assert result["float32"] < 1e-5


@pytest.mark.parametrize(
    ("triple", "features", "name"),
    [
        ("x86_64-unknown-linux-gnu", {"avx512f": True, "avx2": True, "fma": True}, "avx512"),
        ("x86_64-unknown-linux-gnu", {"avx512f": False, "avx2": True, "fma": True}, "avx2"),
        ("x86_64-unknown-linux-gnu", {"avx2": True, "fma": False}, "portable"),
        ("x86_64-unknown-linux-gnu", {}, "portable"),
        ("aarch64-unknown-linux-gnu", {"neon": True}, "neon"),
        ("arm64-apple-darwin23.0.0", {}, "neon"),
        ("powerpc64le-unknown-linux-gnu", {}, "portable"),
    ],
)
def test_tile_shape_follows_the_processor(triple, features, name):
    assert _kernels.choose_machine(triple, features).name == name


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_columns", range(8, 105, 8))
def test_add_product_for_every_number_of_columns(dtype, n_columns, rng):
    """Out of the way positions and strides; nothing beside the tile is touched."""
    left = rng.integers(-4, 5, 40 * 11).astype(dtype)
    right = rng.integers(-4, 5, 40 * (n_columns + 3)).astype(dtype)
    out = rng.integers(-4, 5, 9 * (n_columns + 5)).astype(np.float64)
    n_steps, stride = 37, n_columns + 5
    expected = out.copy()
    rows = left[: 37 * 11 + 8][2:]
    L = np.stack([rows[n * 11 : n * 11 + 8] for n in range(n_steps)]).astype(float)
    R = np.stack([right[1 + n * (n_columns + 3) :][:n_columns] for n in range(n_steps)]).astype(
        float
    )
    for r in range(8):
        expected[3 + r * stride : 3 + r * stride + n_columns] += (L.T @ R)[r]
    _kernels.add_product(
        left, 2, 11, right, 1, n_columns + 3, n_steps, out, 3, stride, n_columns
    )  # fmt: skip
    np.testing.assert_array_equal(out, expected)  # small integers: exact in both dtypes


@pytest.mark.filterwarnings("ignore::fastsym.exceptions.SpectralGapWarning")
def test_two_specialisations_at_most():
    from fastsym import TwoLayerRegressor, make_two_layer

    for dtype in ("float64", "float32"):
        for k in (2, 20):  # one pass and two
            X, Y, _ = make_two_layer(500, k, k, k, random_state=0)
            for n_jobs in (1, 2):
                model = TwoLayerRegressor(k, compute_dtype=dtype, n_jobs=n_jobs)
                model.fit(np.asfortranarray(X.astype(dtype)), Y)
    for kernel in (_kernels.accumulate, _kernels.accumulate_serial):
        assert len(kernel.signatures) == 2


@pytest.mark.parametrize("k", [1, 2, 3, 7, 8, 9, 16, 21])
def test_mixed_tiles_hold_every_triple(k):
    starts, offsets = _kernels.mixed_tiles(k)
    pairs = k * (k + 1) // 2
    padded = -(-pairs // 8) * 8
    assert len(starts) == len(offsets) - 1 == -(-k * k // 8)
    for p in range(k * k):
        assert starts[p // 8] % 8 == 0
        assert starts[p // 8] <= _kernels.pair_offset(p // k, k)
    np.testing.assert_array_equal(np.diff(offsets), 8 * (padded - starts))
    # No more than the pairs x pairs of the other sums, padding aside.
    assert offsets[-1] <= padded * padded + 8 * padded
