"""Bad input is refused, and what X and Y are stored as makes no difference."""

import numpy as np
import pytest

from fastsym import MomentAccumulator, make_two_layer
from fastsym.sums.frame import estimate_frame
from fastsym.sums.staging import SUPERBLOCK_ROWS

from ..bits import assert_same_bits


def test_no_samples_and_too_few():
    with pytest.raises(ValueError, match="no samples"):
        MomentAccumulator(1).moments()
    X, Y, _ = make_two_layer(5, 5, 2, 2, random_state=0)
    with pytest.raises(ValueError, match="n_samples=5 with n_features=5"):
        MomentAccumulator(2).update(X, Y).moments()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_hidden": 0}, "n_hidden must be"),
        ({"n_hidden": 2.5}, "n_hidden must be"),
        ({"n_hidden": "many"}, "n_hidden must be"),
        ({"n_hidden": True}, "n_hidden must be"),
        ({"compute_dtype": "float16"}, "compute_dtype must be"),
        ({"n_jobs": 0}, "n_jobs must be"),
        ({"n_jobs": 1.5}, "n_jobs must be"),
    ],
)
def test_bad_parameters(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MomentAccumulator(**kwargs)


@pytest.mark.parametrize("name", ["X", "Y"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_names_argument_and_row_and_takes_nothing_in(name, value):
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    accumulator = MomentAccumulator(2).update(X, Y)
    bad = {"X": X.copy(), "Y": Y.copy()}
    bad[name][17, 1] = value
    bad[name][40, 0] = value
    what = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(ValueError, match=rf"{name} contains {what} \(first in row 17\)"):
        accumulator.update(bad["X"], bad["Y"])
    assert accumulator.n_samples == 100


def test_shapes_that_do_not_fit():
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    accumulator = MomentAccumulator(2).update(X, Y)
    with pytest.raises(ValueError, match=r"X must have shape .* got an array of shape \(300,\)"):
        accumulator.update(X.ravel(), Y)
    with pytest.raises(ValueError, match=r"Y must have shape .* \(100, 2, 1\)"):
        accumulator.update(X, Y[:, :, None])
    with pytest.raises(ValueError, match=r"same number of rows.* 100 and 99"):
        accumulator.update(X, Y[:99])
    with pytest.raises(ValueError, match="X has 2 features, expected 3"):
        accumulator.update(X[:, :2], Y)
    with pytest.raises(ValueError, match="Y has 1 outputs, expected 2"):
        accumulator.update(X, Y[:, :1])
    with pytest.raises(ValueError, match="at least one column"):
        MomentAccumulator(1).update(X[:, :0], Y)
    assert accumulator.n_samples == 100


def test_n_hidden_larger_than_the_data_can_show():
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    with pytest.raises(ValueError, match=r"at most min\(n_features, n_outputs\).* = 2.* got 3"):
        MomentAccumulator(3).update(X, Y)
    rank_one = Y[:, :1] @ np.ones((1, 2))
    with pytest.raises(ValueError, match=r"n_hidden=2 exceeds the rank.* Y has rank 1"):
        MomentAccumulator(2).update(X, rank_one).moments()


def test_complex_text_and_sparse_are_refused():
    from scipy.sparse import csr_array

    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    for bad, message in [
        (X + 0j, "Complex data not supported"),
        (X.astype(str).astype(object) + "x", "X must be numeric"),
        (csr_array(X), "X must be a dense array"),
    ]:
        with pytest.raises(ValueError, match=message):
            MomentAccumulator(2).update(bad, Y)


LAYOUTS = {
    "fortran": np.asfortranarray,
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "big-endian": lambda a: a.astype(">f8"),
    "list": lambda a: a.tolist(),
    "object": lambda a: a.astype(object),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_do_not_change_a_bit(layout):
    X, Y, _ = make_two_layer(500, 3, 2, 2, random_state=0)
    expected = MomentAccumulator(2).update(X, Y)
    change = LAYOUTS[layout]
    assert_same_bits(MomentAccumulator(2).update(change(X), change(Y)), expected)


def test_read_only_input():
    X, Y, _ = make_two_layer(500, 3, 2, 2, random_state=0)
    expected = MomentAccumulator(2).update(X, Y)
    X.setflags(write=False)
    Y.setflags(write=False)
    assert_same_bits(MomentAccumulator(2).update(X, Y), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, bool, np.float16, np.float32])
def test_other_dtypes_count_as_their_values(dtype, rng):
    X = rng.integers(0, 2, (500, 3)) if dtype is bool else rng.integers(0, 4, (500, 3))
    Y = X @ rng.integers(0, 3, (3, 2))
    X, Y = X.astype(dtype), Y.astype(dtype)
    expected = MomentAccumulator(2).update(X.astype(float), Y.astype(float))
    assert_same_bits(MomentAccumulator(2).update(X, Y), expected)


def test_one_dimensional_y_is_one_column():
    X, Y, _ = make_two_layer(500, 3, 1, 1, random_state=0)
    assert_same_bits(MomentAccumulator(1).update(X, Y[:, 0]), MomentAccumulator(1).update(X, Y))


def test_overflow_in_the_pilot_and_after_it():
    X, Y, _ = make_two_layer(SUPERBLOCK_ROWS + 10, 3, 2, 2, random_state=0)
    huge = X.copy()
    huge[5] = 1e200
    with pytest.raises(ValueError, match=r"X holds 1e\+200 in column 0.* overflow.*rescale X"):
        MomentAccumulator(2).update(huge, Y)
    late = X.copy()
    late[-1] = 1e120
    with pytest.raises(ValueError, match=r"moments overflow.*rows 8192 to 8201 are 1e\+120 in X"):
        MomentAccumulator(2).update(late, Y).moments()


def test_values_float32_cannot_hold():
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    X[3, 0] = 1e39
    accumulator = MomentAccumulator(2, compute_dtype="float32")
    with pytest.raises(ValueError, match=r"row 3 holds 1e\+39 in X.* float32 cannot represent"):
        accumulator.update(X, Y).moments()  # a pilot has no units before
    late = MomentAccumulator(2, frame=estimate_frame(X[4:], Y[4:]), compute_dtype="float32")
    with pytest.raises(ValueError, match=r"X holds 1e\+39, which float32 cannot represent"):
        late.update(X, Y)
    assert late.n_samples == 0


def test_n_hidden_must_be_the_frames():
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    with pytest.raises(ValueError, match="n_hidden=1 differs from the frame's, 2"):
        MomentAccumulator(1, frame=estimate_frame(X, Y, 2))
