import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import MomentAccumulator, accumulate, make_two_layer
from fastsym.frame import estimate_frame
from fastsym.moments import SUPERBLOCK_ROWS, _lanes, load_kernels, staged_rows
from fastsym.sources import PairedRows, from_arrays

from . import naive

FIELDS = ("second", "pair_cross", "third", "yyxx", "yxxx")
SHAPES = [(1, 1, 1), (3, 1, 2), (2, 2, 2), (5, 3, 4), (4, 4, 7), (9, 5, 6)]


def assert_same_bits(a, b):
    a, b = a.moments(), b.moments()
    assert a.n_samples == b.n_samples
    assert a.frame == b.frame
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def assert_close(a, b, rtol):
    for name in FIELDS:
        left, right = getattr(a, name), getattr(b, name)
        np.testing.assert_allclose(
            left, right, rtol=rtol, atol=rtol * np.abs(right).max(), err_msg=name
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 3e-5)])
@pytest.mark.parametrize("n", [50, 128, 1000])
def test_kernels_agree_with_full_tensors(shape, dtype, rtol, n):
    d, k, m = shape
    X, Y, _ = make_two_layer(n, d, k, m, noise=0.2, random_state=n + d)
    # A slope for xxxx; weights and heavy tails for the factors of a sample.
    result = MomentAccumulator(k, compute_dtype=dtype, negative_slope=0.25).update(X, Y).moments()
    check_moments(result, naive.moments(X, Y, result.frame), rtol)
    weights = np.random.default_rng(n).choice([0.25, 1, 1.5, 3], n)
    heavy = MomentAccumulator(
        frame=replace(result.frame, even_radius=1.5), compute_dtype=dtype, negative_slope=0.25
    ).update(X, Y, weights)
    check_moments(heavy.moments(), naive.moments(X, Y, heavy.frame, weights), rtol)


def check_moments(result, expected, rtol):
    for name, value in expected.items():
        got = getattr(result, name)
        assert got.shape == value.shape
        np.testing.assert_allclose(got, value, rtol=rtol, atol=rtol * np.abs(value).max())


@pytest.mark.parametrize("k", [10, 24])
def test_large_sums_agree_with_products_of_features(k):
    # Past one superblock, and (k = 24) with fewer lanes than tasks.
    n = SUPERBLOCK_ROWS + 1000
    X, Y, _ = make_two_layer(n, k, k, k, noise=0.1, random_state=3)
    result = MomentAccumulator(k).update(X, Y).moments()
    x, y = X @ result.frame.input_map, Y @ result.frame.output_map
    np.testing.assert_allclose(result.yyxx, naive.pairs(y).T @ naive.pairs(x) / n, atol=1e-11)
    triples = np.stack([x[:, a] * x[:, b] * x[:, c] for a, b, c in naive.tuples(k, 3)], axis=1)
    np.testing.assert_allclose(result.yxxx, y.T @ triples / n, atol=1e-11)


def test_lanes_are_bounded_by_memory():
    assert _lanes(10, 10, 10) == 64
    assert 1 < _lanes(24, 24, 24) < 64
    assert _lanes(64, 64, 64) == 1


def cut(X, Y, sizes, **kwargs):
    accumulator = MomentAccumulator(**kwargs)
    first = 0
    for size in sizes:
        accumulator.update(X[first : first + size], Y[first : first + size])
        first += size
    return accumulator.update(X[first:], Y[first:])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunk_sizes_do_not_change_a_bit(chunk, dtype):
    X, Y, _ = make_two_layer(SUPERBLOCK_ROWS * 2 + 777, 4, 3, 5, noise=0.1, random_state=1)
    whole = MomentAccumulator(3, compute_dtype=dtype).update(X, Y)
    pieces = cut(X, Y, [chunk] * (len(X) // chunk), n_hidden=3, compute_dtype=dtype)
    assert_same_bits(whole, pieces)


@given(st.lists(st.integers(0, 9000), max_size=8), st.integers(1, 4))
def test_any_chunking_and_any_threads_give_the_same_bits(sizes, n_jobs):
    X, Y, _ = make_two_layer(SUPERBLOCK_ROWS * 2 + 100, 3, 2, 2, noise=0.1, random_state=2)
    whole = MomentAccumulator(2, n_jobs=1).update(X, Y)
    assert_same_bits(whole, cut(X, Y, sizes, n_hidden=2, n_jobs=n_jobs))


@pytest.mark.parametrize("k", [10, 40])
def test_threads_do_not_change_a_bit(k):
    X, Y, _ = make_two_layer(SUPERBLOCK_ROWS + 100, k, k, k, noise=0.1, random_state=2)
    one = MomentAccumulator(k, n_jobs=1).update(X, Y)
    assert_same_bits(one, MomentAccumulator(k, n_jobs=2).update(X, Y))
    assert_same_bits(one, MomentAccumulator(k, n_jobs=4).update(X, Y))
    assert_same_bits(one, MomentAccumulator(k).update(X, Y))


def test_moments_can_be_taken_on_the_way():
    X, Y, _ = make_two_layer(20_000, 4, 3, 4, random_state=5)
    looked, not_looked = MomentAccumulator(3), MomentAccumulator(3)
    for first in range(0, 20_000, 3000):
        looked.update(X[first : first + 3000], Y[first : first + 3000])
        not_looked.update(X[first : first + 3000], Y[first : first + 3000])
        looked.moments()
    assert_same_bits(looked, not_looked)


@given(
    st.lists(st.integers(0, 12_000), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_merging_in_one_frame_equals_one_stream(sizes, warm):
    """Shards of any size, empty ones and ones whose pilot is not full included."""
    n = sum(sizes) + SUPERBLOCK_ROWS
    X, Y, _ = make_two_layer(n, 3, 2, 2, noise=0.1, random_state=4)
    first = MomentAccumulator(2).update(X[:SUPERBLOCK_ROWS], Y[:SUPERBLOCK_ROWS])
    merged, row = first, SUPERBLOCK_ROWS
    for size, with_frame in zip(sizes, warm, strict=False):
        with_frame = with_frame or size >= SUPERBLOCK_ROWS
        shard = MomentAccumulator(2, frame=first.frame if with_frame else None)
        shard.update(X[row : row + size], Y[row : row + size])
        merged = merged + shard
        row += size
    assert first.n_samples == SUPERBLOCK_ROWS
    assert merged.n_samples == n
    one = MomentAccumulator(2).update(X, Y)
    assert_close(merged.moments(), one.moments(), 1e-12)


def test_merge_is_commutative_and_has_an_identity():
    X, Y, _ = make_two_layer(30_000, 3, 2, 4, noise=0.1, random_state=4)
    a = MomentAccumulator(2).update(X[:10_000], Y[:10_000])
    b = MomentAccumulator(2, frame=a.frame).update(X[10_000:], Y[10_000:])
    assert_close((a + b).moments(), (b + a).moments(), 1e-13)
    assert_same_bits(a + MomentAccumulator(2), a)
    assert_same_bits(MomentAccumulator("auto") + a, a)
    doubled = (a + a).moments()
    assert doubled.n_samples == 20_000
    np.testing.assert_allclose(doubled.yyxx, a.moments().yyxx, rtol=1e-13)


def test_merging_two_short_pilots_is_one_stream():
    X, Y, _ = make_two_layer(500, 3, 2, 4, random_state=4)
    a = MomentAccumulator(2).update(X[:200], Y[:200])
    b = MomentAccumulator(2).update(X[200:], Y[200:])
    assert_same_bits(a + b, MomentAccumulator(2).update(X, Y))


def test_a_late_frame_takes_the_rows_that_were_waiting():
    X, Y, _ = make_two_layer(SUPERBLOCK_ROWS + 300, 3, 2, 4, random_state=4)
    early = MomentAccumulator(2).update(X[:300], Y[:300])
    full = MomentAccumulator(2).update(X[300:], Y[300:])
    merged = early.merge(full)
    assert merged is early
    assert merged.n_samples == len(X)
    assert merged.frame == full.frame
    expected = naive.moments(X, Y, full.frame)
    np.testing.assert_allclose(merged.moments().yyxx, expected["yyxx"], atol=1e-12)


def test_merge_refuses_what_does_not_match():
    X, Y, _ = make_two_layer(2 * SUPERBLOCK_ROWS, 4, 3, 4, random_state=6)
    half = SUPERBLOCK_ROWS
    a = MomentAccumulator(3).update(X[:half], Y[:half])
    with pytest.raises(ValueError, match=r"different frames.*--frame"):
        a.merge(MomentAccumulator(3).update(X[half:], Y[half:]))
    with pytest.raises(ValueError, match=r"n_hidden 3 and 2"):
        a.merge(MomentAccumulator(2).update(X[:50], Y[:50]))
    with pytest.raises(ValueError, match="compute_dtype float64 and float32"):
        a.merge(MomentAccumulator(3, compute_dtype="float32"))
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(3, 4\)"):
        a.merge(MomentAccumulator(3).update(X[:50, :3], Y[:50]))
    with pytest.raises(TypeError, match="MomentAccumulator, got int"):
        a.merge(1)
    with pytest.raises(TypeError):
        a + 1
    assert a.n_samples == half


@pytest.mark.parametrize("n", [0, 100, SUPERBLOCK_ROWS, SUPERBLOCK_ROWS + 100])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_saved_accumulator_goes_on_to_the_same_bits(tmp_path, n, dtype):
    X, Y, _ = make_two_layer(SUPERBLOCK_ROWS * 2 + 77, 4, 3, 4, random_state=6)
    straight = MomentAccumulator(3, compute_dtype=dtype).update(X, Y)
    stopped = MomentAccumulator(3, compute_dtype=dtype)
    if n:
        stopped.update(X[:n], Y[:n])
    path = stopped.save(tmp_path / "moments.npz")
    resumed = MomentAccumulator.load(path)
    assert (resumed.n_samples, resumed.n_hidden, resumed.compute_dtype) == (n, 3, dtype)
    assert_same_bits(resumed.update(X[n:], Y[n:]), straight)


def test_state_does_not_grow_with_samples(tmp_path):
    X, Y, _ = make_two_layer(SUPERBLOCK_ROWS, 4, 3, 4, random_state=6)
    accumulator = MomentAccumulator(3).update(X, Y)
    size = accumulator.save(tmp_path / "a.npz").stat().st_size
    for _ in range(5):
        accumulator.update(X, Y)
    assert accumulator.save(tmp_path / "b.npz").stat().st_size == size


def test_frame_is_asked_before_the_pilot_is_full():
    accumulator = MomentAccumulator(2)
    with pytest.raises(RuntimeError, match=r"not fixed yet: the pilot holds 0 of 8192"):
        _ = accumulator.frame
    X, Y, _ = make_two_layer(SUPERBLOCK_ROWS, 3, 2, 2, random_state=0)
    accumulator.update(X[:-1], Y[:-1])
    with pytest.raises(RuntimeError, match=r"8191 of 8192"):
        _ = accumulator.frame
    assert accumulator.update(X[-1:], Y[-1:]).frame.n_hidden == 2


def test_wide_samples_have_a_larger_pilot():
    assert staged_rows(300, 30) == SUPERBLOCK_ROWS
    assert staged_rows(2000, 2000) == 2 * SUPERBLOCK_ROWS


def test_several_python_threads_may_update_at_once():
    X, Y, _ = make_two_layer(3 * SUPERBLOCK_ROWS, 5, 4, 5, random_state=0)
    frame = estimate_frame(X, Y, 4)
    load_kernels()
    results = [MomentAccumulator(4, frame=frame) for _ in range(4)]
    threads = [threading.Thread(target=r.update, args=(X, Y)) for r in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = MomentAccumulator(4, frame=frame).update(X, Y)
    for result in results:
        assert_same_bits(result, expected)


def test_a_sum_shares_no_memory_with_its_terms():
    """The serial kernels take no lock: shared work space would mix up two accumulators."""
    X, Y, _ = make_two_layer(2 * SUPERBLOCK_ROWS, 5, 4, 5, random_state=0)
    term = MomentAccumulator(4, n_jobs=1).update(X, Y)
    total = (term + MomentAccumulator(4)).update(X, Y)
    for name, mine in vars(term).items():
        theirs = vars(total)[name]
        if name == "_sums":
            mine, theirs = tuple(mine.values()), tuple(theirs.values())
        if name in ("_rows", "_sums", "_work"):
            for a in mine if isinstance(mine, tuple) else (mine,):
                for b in theirs if isinstance(theirs, tuple) else (theirs,):
                    assert not np.shares_memory(a, b), name


def test_n_jobs_leaves_numbas_setting_alone():
    import numba

    before = numba.get_num_threads()
    X, Y, _ = make_two_layer(100, 2, 2, 2, random_state=0)
    MomentAccumulator(2, n_jobs=1).update(X, Y).moments()
    assert numba.get_num_threads() == before


def test_a_source_gives_the_same_for_any_blocks_and_reports_progress():
    X, Y, _ = make_two_layer(50_000, 4, 3, 4, noise=0.1, random_state=0)
    source = from_arrays(X, Y)
    seen = []
    a = accumulate(source, 3, callback=lambda event: seen.append(event.n_rows))
    assert seen == sorted(seen)
    assert seen[-1] == 50_000
    assert a.frame.n_pilot == 4 * SUPERBLOCK_ROWS
    b = MomentAccumulator(3, frame=a.frame)
    source.block_rows = 777
    for block in source.blocks():
        b.update(*block)
    assert_same_bits(a, b)


def test_reading_runs_in_another_thread_and_one_block_ahead():
    class Watched:
        """Rows that record who read them, and how many blocks were read before each update."""

        def __init__(self, rows):
            self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype
            self.threads, self.reads = set(), 0

        def __getitem__(self, rows):
            self.threads.add(threading.current_thread().name.split("_")[0])
            self.reads += 1
            return self.rows[rows]

    X, Y, _ = make_two_layer(400_000, 6, 3, 4, random_state=0)
    watched = Watched(X)
    source = PairedRows(watched, Y)
    frame = estimate_frame(X[:9000], Y[:9000], 3)
    ahead, blocks = [], []

    def look(event):
        blocks.append(event.n_rows)
        ahead.append(watched.reads - len(blocks))

    result = accumulate(source, frame=frame, callback=look)
    assert watched.threads == {"fastsym-reader"}
    assert len(blocks) == watched.reads > 2
    assert max(ahead) <= 1
    assert_same_bits(result, MomentAccumulator(frame=frame).update(X, Y))


# Bad input


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


@pytest.mark.parametrize("row", [3, 49_999])
def test_bad_rows_of_a_source_are_numbered_within_it(row):
    X, Y, _ = make_two_layer(50_000, 3, 2, 2, random_state=0)
    Y[row] = np.nan
    with pytest.raises(ValueError, match=rf"Y contains NaN \(first in row {row}\)"):
        accumulate(from_arrays(X, Y), 2)


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
    with pytest.raises(ValueError, match=r"second moments of X overflow.*1e\+200; rescale X"):
        MomentAccumulator(2).update(huge, Y)
    late = X.copy()
    late[-1] = 1e120
    with pytest.raises(ValueError, match=r"moments overflow.*rows 8192 to 8201 are 1e\+120 in X"):
        MomentAccumulator(2).update(late, Y).moments()


def test_values_float32_cannot_hold():
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    X[3] = 1e39
    accumulator = MomentAccumulator(2, compute_dtype="float32")
    with pytest.raises(ValueError, match=r"X holds 1e\+39, which float32 cannot represent"):
        accumulator.update(X, Y)
    assert accumulator.n_samples == 0


def test_n_hidden_must_be_the_frames():
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    with pytest.raises(ValueError, match="n_hidden=1 differs from the frame's, 2"):
        MomentAccumulator(1, frame=estimate_frame(X, Y, 2))


@given(st.integers(0, 9000), st.integers(0, 2**31))
def test_weights_are_repeats_in_any_chunks_and_merged(cut, seed):
    rng = np.random.default_rng(seed)
    X, Y, _ = make_two_layer(9000, 3, 2, 2, noise=0.1, distribution="student_t", random_state=4)
    weights = rng.integers(0, 3, 9000).astype(float)
    frame = estimate_frame(X[:4000], Y[:4000], 2)
    assert frame.even_radius > 0
    how = {"frame": frame, "negative_slope": 0.2}
    whole = MomentAccumulator(**how).update(X, Y, weights)
    parts = MomentAccumulator(**how)
    parts.update(X[:cut], Y[:cut], weights[:cut]).update(X[cut:], Y[cut:], weights[cut:])
    assert_same_bits(whole, parts)
    times = weights.astype(int)
    repeated = MomentAccumulator(**how).update(np.repeat(X, times, 0), np.repeat(Y, times, 0))
    expected, got = repeated.moments(), whole.moments()
    for name in ("second", "pair_cross", "yyxx", "yxxx", "xxxx"):
        value = getattr(expected, name)
        np.testing.assert_allclose(
            getattr(got, name), value, rtol=1e-10, atol=1e-10 * np.abs(value).max(), err_msg=name
        )
    one = MomentAccumulator(**how).update(X[:cut], Y[:cut], weights[:cut])
    two = MomentAccumulator(**how).update(X[cut:], Y[cut:], weights[cut:])
    merged = (one + two).moments()
    np.testing.assert_allclose(merged.yyxx, got.yyxx, rtol=1e-10, atol=1e-12)
    assert merged.n_samples == got.n_samples == (weights > 0).sum()


def test_weighted_and_leaky_accumulators_are_saved_whole(tmp_path):
    X, Y, _ = make_two_layer(20_000, 3, 2, 2, noise=0.1, random_state=4)
    weights = np.random.default_rng(0).random(20_000) + 0.1
    half = MomentAccumulator(2, negative_slope=0.3).update(X[:9000], Y[:9000], weights[:9000])
    loaded = MomentAccumulator.load(half.save(tmp_path / "m.npz"))
    for accumulator in (half, loaded):
        accumulator.update(X[9000:], Y[9000:], weights[9000:])
    assert_same_bits(half, loaded)
    np.testing.assert_array_equal(half.moments().xxxx, loaded.moments().xxxx)
    with pytest.raises(ValueError, match="negative_slope"):
        half.merge(MomentAccumulator(2).update(X[:100], Y[:100]))


def test_pilots_with_weights_are_those_of_repeats():
    X, Y, _ = make_two_layer(3000, 4, 2, 3, noise=0.1, distribution="laplace", random_state=4)
    weights = np.random.default_rng(0).integers(1, 4, 3000)
    a = estimate_frame(X, Y, 2, sample_weight=weights)
    b = estimate_frame(np.repeat(X, weights, axis=0), np.repeat(Y, weights, axis=0), 2)
    np.testing.assert_allclose(a.correlations, b.correlations, rtol=1e-10)
    np.testing.assert_allclose(np.abs(a.input_map), np.abs(b.input_map), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(a.input_scale, b.input_scale, rtol=1e-10)
    assert a.even_radius == b.even_radius > 0
