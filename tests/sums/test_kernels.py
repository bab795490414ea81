"""The kernels by themselves, and for processors other than this one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

from fastsym.sums import kernels

from .agreement import largest_errors

OTHERS = {
    "avx2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+sse4.2"},
    "portable": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
}


def check(errors):
    assert errors["float64"] < 1e-13
    assert errors["float32"] < 1e-5


def test_kernels_for_this_processor():
    check(largest_errors())


@pytest.mark.slow
@pytest.mark.parametrize("target", OTHERS)
def test_kernels_for_other_processors(target):
    done = subprocess.run(
        [sys.executable, "-m", "tests.sums.agreement"],
        env=os.environ | OTHERS[target], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["name"] == target
    check(result)


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
    assert kernels.choose_machine(triple, features).name == name


@njit
def _product(left, right, out, n_steps, n_columns):
    kernels.add_product(
        kernels.view_of(left, 2, 11), kernels.view_of(right, 1, n_columns + 3), n_steps,
        kernels.view_of(out, 3, n_columns + 5), n_columns,
    )  # fmt: skip


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
    _product(left, right, out, n_steps, n_columns)
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
    for kernel in (kernels.accumulate, kernels.accumulate_serial):
        assert len(kernel.signatures) == 2


@pytest.mark.parametrize("k", [1, 2, 3, 7, 8, 9, 16, 21])
def test_mixed_tiles_hold_every_triple(k):
    starts, offsets = kernels.mixed_tiles(k)
    pairs = k * (k + 1) // 2
    padded = -(-pairs // 8) * 8
    assert len(starts) == len(offsets) - 1 == -(-k * k // 8)
    for p in range(k * k):
        assert starts[p // 8] % 8 == 0
        a = p // k
        assert starts[p // 8] <= a * k - a * (a - 1) // 2  # the pair (a, a)
    np.testing.assert_array_equal(np.diff(offsets), 8 * (padded - starts))
    # No more than the pairs x pairs of the other sums, padding aside.
    assert offsets[-1] <= padded * padded + 8 * padded
