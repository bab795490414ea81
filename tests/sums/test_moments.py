"""Moment sums against full tensors, and the laws of chunks, merges, threads and weights."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import MomentAccumulator, make_two_layer
from fastsym.sums.frame import Frame, estimate_frame
from fastsym.sums.layout import MomentSums
from fastsym.sums.moments import load_kernels
from fastsym.sums.staging import SUPERBLOCK_ROWS, staged_rows

from .. import naive
from ..bits import FIELDS, assert_same_bits

SHAPES = [(1, 1, 1), (3, 1, 2), (2, 2, 2), (5, 3, 4), (4, 4, 7), (9, 5, 6)]


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
    def lanes(k):
        pairs = k * (k + 1) // 2
        maps, even = np.zeros((k, k)), np.zeros((1 + pairs, k))
        return MomentSums(Frame(maps, maps, even, np.ones(k), np.ones(k), 0.0, 10)).n_lanes

    assert lanes(10) == 64
    assert 1 < lanes(24) < 64
    assert lanes(64) == 1


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

    def written(accumulator):
        """The arrays that an accumulator changes."""
        sums = accumulator._sums
        return [accumulator._stager.rows, *sums.arrays.values(), *sums.work]

    for mine in written(term):
        for theirs in written(total):
            assert not np.shares_memory(mine, theirs)


def test_n_jobs_leaves_numbas_setting_alone():
    import numba

    before = numba.get_num_threads()
    X, Y, _ = make_two_layer(100, 2, 2, 2, random_state=0)
    MomentAccumulator(2, n_jobs=1).update(X, Y).moments()
    assert numba.get_num_threads() == before


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
    n_effective = weights.sum() ** 2 / (weights**2).sum()
    np.testing.assert_allclose([merged.n_effective, got.n_effective], n_effective, rtol=1e-12)
    np.testing.assert_allclose(expected.n_effective, times.sum(), rtol=1e-12)


def test_weighted_and_leaky_accumulators_are_saved_whole(tmp_path):
    X, Y, _ = make_two_layer(20_000, 3, 2, 2, noise=0.1, random_state=4)
    weights = np.random.default_rng(0).random(20_000) + 0.1
    half = MomentAccumulator(2, negative_slope=0.3).update(X[:9000], Y[:9000], weights[:9000])
    loaded = MomentAccumulator.load(half.save(tmp_path / "m.npz"))
    for accumulator in (half, loaded):
        accumulator.update(X[9000:], Y[9000:], weights[9000:])
    assert_same_bits(half, loaded)
    np.testing.assert_array_equal(half.moments().xxxx, loaded.moments().xxxx)
    assert half.moments().n_effective == loaded.moments().n_effective
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
