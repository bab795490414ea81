"""Every kind of source gives the same rows, the same spread sample and the same fit."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import TwoLayerRegressor, sources
from fastsym.sources import PairedRows, from_arrays, from_blocks, open_source
from fastsym.sources.formats.rows import ShardedRows

from .kinds import KINDS, D, M, N, parquet, pyarrow, table

polars = pytest.importorskip("polars")
pandas = pytest.importorskip("pandas")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_rows(kind, written, data):
    paths, names = written[kind]
    for block_rows, first in ((None, 0), (999, 0), (12_345, 7_000), (1, N - 3)):
        source = open_source(*paths, **names, block_rows=block_rows)
        assert (source.n_samples, source.n_features, source.n_outputs) == (N, D, M)
        blocks = list(source.blocks(first))
        for part in (0, 1):
            read = np.concatenate([block[part] for block in blocks])
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, data[part][first:])
    reference = from_arrays(*data)
    for count in (100, 5000, N):
        for mine, theirs in zip(source.spread(count)[:2], reference.spread(count)[:2], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    # Backwards, and once more from another process.
    again = pickle.loads(pickle.dumps(source))
    for first, last in ((20_000, 20_010), (3, 9), (29_990, 40_000), (5, 5)):
        np.testing.assert_array_equal(again.X[first:last], data[0][first:last])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_bits_of_a_fit(kind, written, data):
    paths, names = written[kind]
    expected = TwoLayerRegressor(3).fit(from_arrays(*data)).network_
    network = TwoLayerRegressor(3).fit(open_source(*paths, **names)).network_
    np.testing.assert_array_equal(network.hidden_weights, expected.hidden_weights)
    np.testing.assert_array_equal(network.output_weights, expected.output_weights)


def test_parts_of_a_source_are_its_rows(written, data):
    for kind in ("npy", "parquet", "folders"):
        paths, names = written[kind]
        parts = open_source(*paths, **names).split(7)
        assert len(parts) == 7
        assert [part.first_row for part in parts] == list(
            itertools.accumulate([0] + [part.n_samples for part in parts[:-1]])
        )
        X = np.concatenate([block[0] for part in parts for block in part.blocks()])
        np.testing.assert_array_equal(X, data[0])
    assert [part.n_samples for part in from_arrays(data[0][:3], data[1][:3]).split(7)] == [1, 1, 1]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 120), st.integers(0, 50)
)
def test_shards_are_one_matrix(sizes, first, count):
    rows = np.arange(2 * sum(sizes)).reshape(-1, 2)
    parts = np.split(rows, np.cumsum(sizes)[:-1])
    sharded = ShardedRows(parts, [str(i) for i in range(len(parts))])
    np.testing.assert_array_equal(sharded[first : first + count], rows[first : first + count])


# Frames


def test_frames(data):
    X, Y = data
    expected = TwoLayerRegressor(3).fit(X.astype(float), Y.astype(float)).hidden_weights_
    names = [f"f{i}" for i in range(D)]
    for frame in (pandas.DataFrame, polars.DataFrame):
        model = TwoLayerRegressor(3).fit(
            frame(X.astype(float), names), frame(Y.astype(float), [f"y{i}" for i in range(M)])
        ) if frame is polars.DataFrame else TwoLayerRegressor(3).fit(
            frame(X.astype(float), columns=names), frame(Y.astype(float))
        )  # fmt: skip
        np.testing.assert_array_equal(model.hidden_weights_, expected)
        assert model.feature_names_in_.tolist() == names


def test_a_missing_value_in_a_table_is_named_by_its_row(data, tmp_path):
    X, Y = (part[:100].copy() for part in data)
    columns = [pyarrow.array(X[:, i]) for i in range(D)]
    columns[2] = pyarrow.array([None if i == 57 else float(v) for i, v in enumerate(X[:, 2])])
    whole = pyarrow.table(
        columns + [Y[:, i] for i in range(M)],
        names=[f"x{i}" for i in range(D)] + [f"y{i}" for i in range(M)],
    )
    parquet.write_table(whole, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"X contains NaN \(first in row 57\)"):
        TwoLayerRegressor(3).fit(open_source(tmp_path / "a.parquet"))


# Weights


def test_weights_in_files_are_as_weights_in_memory(data, tmp_path, rng):
    X, Y = data
    weights = rng.integers(0, 4, N).astype(np.float32)
    X = X.copy()
    X[weights == 0] = np.nan  # absent samples may hold anything
    np.savez(tmp_path / "a.npz", X=X, Y=Y, w=weights)
    parquet.write_table(table(X, Y, weight=weights), tmp_path / "a.parquet")
    for name, array in (("X", X), ("Y", Y), ("w", weights)):
        np.save(tmp_path / f"{name}.npy", array)
    used = weights > 0
    expected = TwoLayerRegressor(3).fit(X[used], Y[used], weights[used].astype(float))
    for source in (
        open_source(tmp_path / "a.npz", weight="w"),
        open_source(tmp_path / "a.parquet", weight="weight"),
        open_source(tmp_path / "X.npy", tmp_path / "Y.npy", weight=str(tmp_path / "w.npy")),
        from_blocks([(X[i : i + 700], Y[i : i + 700], weights[i : i + 700])
                     for i in range(0, N, 700)]),
    ):  # fmt: skip
        model = TwoLayerRegressor(3).fit(source)
        np.testing.assert_allclose(model.hidden_weights_, expected.hidden_weights_, atol=1e-9)
        assert model.loss_ == pytest.approx(expected.loss_, rel=1e-9)
    bad = weights.copy()
    bad[123] = -1
    np.save(tmp_path / "w.npy", bad)
    source = open_source(tmp_path / "X.npy", tmp_path / "Y.npy", weight=str(tmp_path / "w.npy"))
    with pytest.raises(ValueError, match=r"sample_weight must be .* got -1\.0 in row 123"):
        TwoLayerRegressor(3).fit(source)
    bad[123], X[200] = 1, np.inf
    bad[200] = 1
    np.save(tmp_path / "w.npy", bad)
    np.save(tmp_path / "X.npy", X)
    source = open_source(tmp_path / "X.npy", tmp_path / "Y.npy", weight=str(tmp_path / "w.npy"))
    # Rows are numbered as in the file, absent ones counted.
    with pytest.raises(ValueError, match=r"X contains (NaN|infinity) \(first in row (200|123)\)"):
        TwoLayerRegressor(3).fit(source)


def test_names_of_an_earlier_frame_are_forgotten(data):
    X, Y = data
    model = TwoLayerRegressor(3).fit(pandas.DataFrame(X, columns=list("abcde")), Y)
    model.fit(from_arrays(X, Y))
    assert not hasattr(model, "feature_names_in_")
    assert model.predict(X[:2]).shape == (2, M)


def test_parts_of_a_memory_map_are_sent_alone(tmp_path, data):
    np.save(tmp_path / "X.npy", data[0])
    source = from_arrays(np.load(tmp_path / "X.npy", mmap_mode="r"), data[1])
    sizes = [len(pickle.dumps(part)) for part in source.split(4)]
    assert max(sizes) < 1.1 * (data[0].nbytes + data[1].nbytes) / 4


def test_block_rows_follow_memory(monkeypatch):
    monkeypatch.setattr(sources.source, "memory_limit", lambda: 64 << 20)
    assert sources.rows_of_block(160) == (64 << 20) // 256 // 160
    monkeypatch.setattr(sources.source, "memory_limit", lambda: None)
    assert sources.rows_of_block(160) == sources.BLOCK_BYTES // 160
    monkeypatch.undo()
    assert sources.memory_limit() > 1 << 28
    assert sources.rows_of_block(10**12) == 1
    assert sources.check_block_rows(np.int64(5)) == 5


def test_parts_of_checked_rows_are_checked(data):
    assert not from_arrays(*data).checked
    for checked in (False, True):
        source = PairedRows(*data, checked=checked)
        assert [part.checked for part in source.split(3)] == [checked] * 3
