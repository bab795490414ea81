"""Every kind of source gives the same rows, the same spread sample and the same fit."""

import itertools
import os
import pickle
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from fastsym import TwoLayerRegressor, accumulate, make_two_layer, parameter_error, sources
from fastsym.rows import NpyRows, ShardedRows, expand, open_rows
from fastsym.sources import from_arrays, from_blocks, open_source

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
polars = pytest.importorskip("polars")
pandas = pytest.importorskip("pandas")

N, D, M = 30_000, 5, 4


@pytest.fixture(scope="module")
def data():
    X, Y, _ = make_two_layer(N, D, 3, M, noise=0.1, random_state=0)
    return X.astype(np.float32), Y.astype(np.float32)


def table(X, Y, **extra):
    columns = {f"x{i}": X[:, i] for i in range(X.shape[1])}
    columns |= {f"y{i}": Y[:, i] for i in range(Y.shape[1])}
    return pyarrow.table(columns | extra)


def write_hdf5(path, X, Y, **how):
    with h5py.File(path, "w") as file:
        file.create_dataset("run/X", data=X, **how)
        file.create_dataset("run/Y", data=Y, **how)


def write_zarr(path, X, Y, chunk):
    group = zarr.open_group(path, mode="w")
    for name, array in (("X", X), ("Y", Y)):
        stored = group.create_array(name, shape=array.shape, chunks=(chunk, 2), dtype=array.dtype)
        stored[:] = array


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    """All kinds of files with the same samples: {kind: arguments of open_source}."""
    X, Y = data
    folder = tmp_path_factory.mktemp("kinds")
    np.save(folder / "X.npy", X)
    np.save(folder / "Y.npy", Y)
    np.save(folder / "XF.npy", np.asfortranarray(X))
    np.savez(folder / "s.npz", X=X, Y=Y)
    np.savez_compressed(folder / "c.npz", X=X, Y=Y)
    write_hdf5(folder / "plain.h5", X, Y)
    write_hdf5(folder / "chunks.hdf5", X, Y, chunks=(700, 2), compression="gzip")
    write_zarr(folder / "a.zarr", X, Y, 7001)
    for name, array in (("X", X), ("Y", Y)):
        zarr.create_array(folder / f"{name}.zarr", data=array, chunks=(4000, 3))
    parquet.write_table(table(X, Y), folder / "a.parquet", row_group_size=4999)
    parquet.write_table(table(X, Y), folder / "one.parquet")
    for i, part in enumerate(np.array_split(np.arange(N), 11)):
        for kind in ("xs", "ys", "npz", "pq"):
            (folder / kind).mkdir(exist_ok=True)
        np.save(folder / "xs" / f"part{i}.npy", X[part])
        np.save(folder / "ys" / f"part{i}.npy", Y[part])
        np.savez(folder / "npz" / f"{i}.npz", X=X[part], Y=Y[part])
        parquet.write_table(table(X[part], Y[part]), folder / "pq" / f"{i}.parquet")
    hdf5_names = {"x": "run/X", "y": "run/Y"}
    return {
        "npy": ((folder / "X.npy", folder / "Y.npy"), {}),
        "npy, Fortran order": ((folder / "XF.npy", folder / "Y.npy"), {}),
        "npz": ((folder / "s.npz",), {}),
        "compressed npz": ((folder / "c.npz",), {}),
        "hdf5": ((folder / "plain.h5",), hdf5_names),
        "hdf5 in chunks": ((folder / "chunks.hdf5",), hdf5_names),
        "zarr": ((folder / "a.zarr",), {}),
        "zarr arrays": ((folder / "X.zarr", folder / "Y.zarr"), {}),
        "parquet": ((folder / "a.parquet",), {}),
        "parquet, one group": ((folder / "one.parquet",), {"x": ["x?"], "y": ["y0", "y[123]"]}),
        "folders": ((folder / "xs", folder / "ys"), {}),
        "pattern": ((str(folder / "xs" / "*.npy"), str(folder / "ys" / "*.npy")), {}),
        "folder of npz": ((folder / "npz",), {}),
        "folder of parquet": ((folder / "pq",), {}),
        "list": (([folder / "npz" / f"{i}.npz" for i in range(11)],), {}),
    }


KINDS = [
    "npy", "npy, Fortran order", "npz", "compressed npz", "hdf5", "hdf5 in chunks", "zarr",
    "zarr arrays", "parquet", "parquet, one group", "folders", "pattern", "folder of npz",
    "folder of parquet", "list",
]  # fmt: skip


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


# Blocks of an iterable


def test_blocks_that_can_be_read_again_give_the_optimum(data):
    X, Y = data
    expected = TwoLayerRegressor(3).fit(X, Y)
    blocks = [(X[i : i + 611], Y[i : i + 611]) for i in range(0, N, 611)]
    model = TwoLayerRegressor(3).fit(from_blocks(blocks))
    assert model.refinement_.n_samples == N
    # Other rows in the sample: within the tolerance of the passes, far below the standard errors.
    chance = (expected.hidden_stderr_**2).sum() + (expected.output_stderr_**2).sum()
    assert max(parameter_error(expected.network_, model.network_)) < 0.01 * chance
    assert model.loss_ == pytest.approx(expected.loss_, rel=1e-5)


def test_a_generator_is_fitted_in_one_pass(data):
    X, Y = data
    expected = TwoLayerRegressor(3).fit(X, Y)
    events = []
    blocks = ((X[i : i + 611], Y[i : i + 611]) for i in range(0, N, 611))
    model = TwoLayerRegressor(3).fit(from_blocks(blocks), callback=events.append)
    assert model.n_passes_ == 1
    assert model.n_features_in_ == D
    assert [event.n_rows for event in events][-1] == N
    assert events[-1].n_samples is None
    chance = (expected.hidden_stderr_**2).sum() + (expected.output_stderr_**2).sum()
    assert max(parameter_error(expected.network_, model.network_)) < 0.01 * chance
    with pytest.raises(ValueError, match="no samples"):
        model.fit(from_blocks(iter([])))


def test_a_stream_that_fails_leaves_nothing_behind(data):
    X, Y = data

    def blocks():
        yield X[:9000], Y[:9000]
        raise OSError("connection lost")

    model = TwoLayerRegressor(3)
    with pytest.raises(OSError, match="connection lost"):
        model.fit(from_blocks(blocks()))
    with pytest.raises(NotFittedError):
        _ = model.hidden_weights_
    model.partial_fit(X[:500], Y[:500])
    assert model.diagnostics_.n_samples == 500


def test_names_of_an_earlier_frame_are_forgotten(data):
    X, Y = data
    model = TwoLayerRegressor(3).fit(pandas.DataFrame(X, columns=list("abcde")), Y)
    model.fit(from_arrays(X, Y))
    assert not hasattr(model, "feature_names_in_")
    assert model.predict(X[:2]).shape == (2, M)


def test_a_dataloader_works_as_it_is(data):
    torch = pytest.importorskip("torch")
    X, Y = (torch.from_numpy(part) for part in data)
    dataset = torch.utils.data.TensorDataset(X, Y)
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(dataset, batch_size=1000, shuffle=True)
    model = TwoLayerRegressor(3).fit(from_blocks(loader))
    expected = TwoLayerRegressor(3).fit(*data)
    # Other rows in the sample: within the tolerance of the passes, far below the standard errors.
    chance = (expected.hidden_stderr_**2).sum() + (expected.output_stderr_**2).sum()
    assert max(parameter_error(expected.network_, model.network_)) < 0.01 * chance


@settings(max_examples=40)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=30), st.integers(1, 400))
def test_spread_of_blocks_is_even_and_does_not_depend_on_their_sizes(sizes, count):
    total = sum(sizes)
    if total == 0:
        with pytest.raises(ValueError, match="no samples"):
            _ = from_blocks([(np.empty((0, 1)), np.empty((0, 1)))]).n_samples
        return
    rows = np.arange(float(total))[:, None]

    def cut(sizes):
        ends = np.cumsum(sizes)
        return from_blocks(
            [(rows[e - s : e], rows[e - s : e]) for e, s in zip(ends, sizes, strict=True)]
        )

    source = cut(sizes)
    assert source.n_samples == total
    X, Y, weights = source.spread(count)
    assert weights is None
    np.testing.assert_array_equal(X, Y)
    assert len(X) == min(count, total)
    assert (np.diff(X[:, 0]) > 0).all()
    np.testing.assert_array_equal(X, cut([total]).spread(count)[0])


def test_spread_of_many_blocks_thins_evenly(monkeypatch):
    monkeypatch.setattr(sources, "_SURVEY_BYTES", 64_000)  # 4000 rows of two columns
    rows = np.arange(100_000.0)[:, None]
    source = from_blocks([(rows[i : i + 300], rows[i : i + 300]) for i in range(0, 100_000, 300)])
    for count in (1000, 20_000):  # the second is more than the first pass keeps
        X = source.spread(count)[0][:, 0]
        assert count <= len(X) <= 2 * count + 32
        assert (np.diff(X) > 0).all()
        assert np.diff(X).max() <= 64 * 100_000 / count
        assert X[0] < 100_000 / 50
        assert X[-1] > 98_000


def test_bad_blocks():
    good = np.zeros((3, 2)), np.zeros((3, 1))
    for blocks, message in (
        ([good[0]], "must yield"),
        ([(good[0],)], "must yield"),
        ([good, (np.zeros((3, 4)), good[1])], r"row 3 has 4 features .* before 2 and 1"),
        ([good, (np.zeros((2, 2)), good[1])], "same number of rows.*in the block at row 3"),
        ([(*good, [1, 1, 1]), (*good, [1, 2, -1])], r"sample_weight must be .* in row 5"),
    ):
        with pytest.raises(ValueError, match=message):
            _ = from_blocks(blocks).n_samples
    with pytest.raises(TypeError, match="must be iterable"):
        from_blocks(3)
    one_shot = from_blocks(iter([good]))
    with pytest.raises(TypeError, match="read only once"):
        accumulate(one_shot, 1)
    for name in ("client", "checkpoint"):
        with pytest.raises(TypeError, match=f"{name} needs samples that can be read more than"):
            TwoLayerRegressor(1).fit(from_blocks(iter([good])), **{name: "x"})
    with pytest.raises(ValueError, match="must be None where X is a source"):
        TwoLayerRegressor(1).fit(from_blocks([good]), [1])


# Paths and formats


def test_shards_are_in_the_order_of_their_numbers(tmp_path):
    for i in (1, 2, 10):
        np.save(tmp_path / f"part{i}.npy", np.zeros((2, 2)))
    names = [os.path.basename(path) for path in expand(tmp_path)]
    assert names == ["part1.npy", "part2.npy", "part10.npy"]
    assert expand(str(tmp_path / "part*.npy")) == expand(tmp_path)
    np.savez(tmp_path / "a.npz", X=1)
    with pytest.raises(ValueError, match="several formats"):
        expand(tmp_path)
    with pytest.raises(FileNotFoundError):
        expand(str(tmp_path / "*.h5"))


def test_clear_errors(tmp_path, data):
    X, Y = (part[:100] for part in data)
    write_hdf5(tmp_path / "a.h5", X, Y)
    np.savez(tmp_path / "a.npz", X=X, Y=Y[:90], names=np.array(["a"]))
    parquet.write_table(table(X, Y, label=["a"] * 100), tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "a.csv").write_text("1,2")
    for path in ("b.h5", "b.npz", "b.parquet", "b.npy", "b.zarr"):
        with pytest.raises(FileNotFoundError):
            open_source(tmp_path / path, tmp_path / path)
    for arguments, names, message in (
        (("a.h5",), {}, r"no dataset 'X'; its datasets are run/X, run/Y"),
        (("a.npz",), {"x": "Z"}, "no array 'Z'; its arrays are X, Y, names"),
        (("a.npz",), {}, "same number of rows.* 100 in .* and 90 in"),
        (("a.npz",), {"y": "names"}, "array of real numbers"),
        (("a.parquet",), {"x": "z*"}, r"no column 'z\*'; its columns are x0, x1"),
        (("a.parquet",), {"y": "label"}, "column 'label' must hold numbers, got string"),
        (("a.npy",), {}, "is one array: give the file of Y too"),
        (("a.csv",), {}, "format is not known by its ending"),
        (("a.parquet",), {"block_rows": 0}, "block_rows must be None or an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(*(tmp_path / each for each in arguments), **names)
    with pytest.raises(ValueError, match="say which array"):
        open_rows(tmp_path / "a.h5")
    with pytest.raises(ValueError, match="stands for 1 files and y_path for 2"):
        open_source(tmp_path / "a.npy", [tmp_path / "a.npy"] * 2)


def test_damaged_files_are_named(tmp_path, data):
    X, Y = data
    write_hdf5(tmp_path / "a.h5", X, Y, chunks=(1000, 4), compression="gzip")
    write_zarr(tmp_path / "a.zarr", X, Y, 5000)
    np.savez_compressed(tmp_path / "a.npz", X=X, Y=Y)
    parquet.write_table(table(X, Y), tmp_path / "a.parquet", write_page_checksum=True)
    for name in ("a.h5", "a.npz", "a.parquet"):
        content = bytearray((tmp_path / name).read_bytes())
        (tmp_path / f"cut-{name}").write_bytes(content[: len(content) // 2])
        names = {"x": "run/X", "y": "run/Y"} if name == "a.h5" else {}
        with pytest.raises(ValueError, match=f"cut-{name} is not a readable"):
            open_source(tmp_path / f"cut-{name}", **names)
        middle = len(content) // 2
        content[middle : middle + 400] = os.urandom(400)
        (tmp_path / f"bad-{name}").write_bytes(content)
        source = open_source(tmp_path / f"bad-{name}", **names)
        with pytest.raises(ValueError, match=rf"bad-{name}: row.* cannot be read"):
            for _ in source.blocks():
                pass
    chunk = next(path for path in (tmp_path / "a.zarr" / "X" / "c").rglob("*") if path.is_file())
    chunk.unlink()
    with pytest.raises(ValueError, match=r"1 of 18 chunks of 'X' are missing"):
        open_source(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("path", "library", "extra"),
    [("a.h5", "h5py", "hdf5"), ("a.zarr", "zarr", "zarr"), ("a.parquet", "pyarrow.parquet",
                                                            "parquet")],
)  # fmt: skip
def test_a_missing_library_names_its_extra(path, library, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / path).touch()
    with pytest.raises(ImportError, match=re.escape(f'pip install "fastsym[{extra}]"')):
        open_source(tmp_path / path)


def test_a_chunk_is_decoded_once_a_pass(written, monkeypatch):
    from fastsym.rows import _ChunkedRows

    reads = []
    original = _ChunkedRows._read
    monkeypatch.setattr(
        _ChunkedRows, "_read", lambda self, *rows: reads.append(rows) or original(self, *rows)
    )
    paths, names = written["zarr"]
    for _ in open_source(*paths, **names, block_rows=100).blocks():
        pass
    rows = sum(last - first for first, last in reads)
    assert rows == 2 * N


def test_columns_of_shards_are_matched_by_name(tmp_path, data):
    X, Y = data
    parquet.write_table(table(X[:100], Y[:100]), tmp_path / "0.parquet")
    mixed = table(X[100:200], Y[100:200])
    parquet.write_table(mixed.select(mixed.column_names[::-1]), tmp_path / "1.parquet")
    blocks = list(open_source(tmp_path).blocks())
    np.testing.assert_array_equal(np.concatenate([block[0] for block in blocks]), X[:200])
    parquet.write_table(table(X[200:300, 1:], Y[200:300]), tmp_path / "2.parquet")
    with pytest.raises(ValueError, match="no column 'x4'"):
        open_source(tmp_path)


def test_odd_columns_are_refused(tmp_path):
    values = pyarrow.array(["a", "b"])
    for column in (
        values.dictionary_encode(),
        pyarrow.array([{"a": 1}, {"a": 2}]),
        pyarrow.array([[1.0], [2.0]]),
        pyarrow.array([1, 2], pyarrow.timestamp("s", tz="UTC")),
    ):
        parquet.write_table(pyarrow.table({"x0": column, "y0": [1.0, 2]}), tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=r"a\.parquet: column 'x0' must hold numbers"):
            open_source(tmp_path / "a.parquet")
    twice = pyarrow.Table.from_arrays([pyarrow.array([1.0])] * 3, names=["x0", "x0", "y0"])
    parquet.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="several columns 'x0'"):
        open_source(tmp_path / "a.parquet")


def test_shards_are_closed_one_after_the_other(written, data):
    paths, _ = written["folder of parquet"]
    source = open_source(*paths)
    files = len(os.listdir("/proc/self/fd"))
    for X, _, _ in source.blocks():
        assert len(X)
    assert len(os.listdir("/proc/self/fd")) <= files + 2
    held = [part for part in source.X.parts if len(part._piece)]
    assert len(held) <= 1
    np.testing.assert_array_equal(next(source.blocks())[0], data[0])


def test_zarr_stores_of_other_makers(tmp_path, data):
    X, Y = (part[:7] for part in data)
    zarr.create_array(tmp_path / "sharded.zarr", data=X, chunks=(3, 5), shards=(6, 5))
    zarr.create_array(tmp_path / "v2", data=Y, chunks=(3, 4), zarr_format=2)
    source = open_source(tmp_path / "sharded.zarr", tmp_path / "v2")
    for mine, theirs in zip(next(source.blocks())[:2], (X, Y), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    chunk = next(p for p in (tmp_path / "sharded.zarr" / "c").rglob("*") if p.is_file())
    chunk.unlink()
    with pytest.raises(ValueError, match="1 of 2 chunks"):
        open_source(tmp_path / "sharded.zarr", tmp_path / "v2")
    for arguments in ((tmp_path / "v2",), (tmp_path / "v2", tmp_path / "v2")):
        with pytest.raises(ValueError, match="is one array, not a group"):
            open_source(*arguments, x="X", y="Y")


def test_links_and_empty_datasets_of_hdf5(tmp_path, data):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data/X"], file["data/Y"] = (part[:9] for part in data)
        file["soft"] = h5py.SoftLink("/data/X")
        file["empty"] = h5py.Empty("f8")
        file["number"] = 3.0
    source = open_source(tmp_path / "a.h5", x="soft", y="/data/Y")
    np.testing.assert_array_equal(next(source.blocks())[0], data[0][:9])
    for name in ("empty", "data", "number"):
        with pytest.raises(ValueError, match=r"no dataset|real numbers"):
            open_source(tmp_path / "a.h5", x=name, y="data/Y")


def test_blocks_that_only_seem_to_be_readable_again(data):
    X, Y = data

    class Once:
        def __init__(self):
            self.blocks = iter([(X, Y)])

        def __iter__(self):
            return self.blocks

    with pytest.raises(ValueError, match=r"\(Once\) were empty when they were read again"):
        TwoLayerRegressor(3, refine=False).fit(from_blocks(Once()))
    mixed = [(X[:9], Y[:9]), (X[9:20], Y[9:20], np.ones(11))]
    for blocks in (mixed, mixed[::-1]):
        with pytest.raises(ValueError, match="weights, unlike those before"):
            TwoLayerRegressor(3).fit(from_blocks(blocks))
    with pytest.raises(ValueError, match="must yield"):
        TwoLayerRegressor(3).fit(from_blocks([{"X": X, "Y": Y}]))
    with pytest.raises(ValueError, match="at least one file"):
        open_source([])


def test_parts_of_a_memory_map_are_sent_alone(tmp_path, data):
    np.save(tmp_path / "X.npy", data[0])
    source = from_arrays(np.load(tmp_path / "X.npy", mmap_mode="r"), data[1])
    sizes = [len(pickle.dumps(part)) for part in source.split(4)]
    assert max(sizes) < 1.1 * (data[0].nbytes + data[1].nbytes) / 4


def test_block_rows_follow_memory(monkeypatch):
    monkeypatch.setattr(sources, "memory_limit", lambda: 64 << 20)
    assert sources.rows_of_block(160) == (64 << 20) // 256 // 160
    monkeypatch.setattr(sources, "memory_limit", lambda: None)
    assert sources.rows_of_block(160) == sources.BLOCK_BYTES // 160
    monkeypatch.undo()
    assert sources.memory_limit() > 1 << 28
    assert sources.rows_of_block(10**12) == 1
    assert sources.check_block_rows(np.int64(5)) == 5


def test_npy_inside_a_file_ends_where_its_entry_ends(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros((10, 2)), Y=np.ones((10, 2)))
    rows = open_rows(tmp_path / "a.npz", "X")
    assert isinstance(rows, NpyRows)
    assert not rows[0:10].any()


def test_a_damaged_uncompressed_npz_is_noticed_at_its_end(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros((1000, 2)), Y=np.ones((1000, 2)))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[5000] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    source = open_source(tmp_path / "a.npz", block_rows=300)
    assert source.spread(100)[0].shape == (96, 2)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"a\.npz is damaged: its checksum"):
            list(source.blocks())
