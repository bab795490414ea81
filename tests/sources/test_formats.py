"""Files of samples in the formats of others: their rows, and what is said of bad ones."""

import os
import re
import sys

import numpy as np
import pytest

from fastsym import make_two_layer
from fastsym.sources import open_source
from fastsym.sources.files import expand
from fastsym.sources.formats import open_rows
from fastsym.sources.formats.cursor import ChunkedRows
from fastsym.sources.formats.npy import NpyRows

from ..damage import N_FILES, check_damaged_files
from .kinds import N, h5py, parquet, pyarrow, table, write_hdf5, write_zarr, zarr

# Paths


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
    reads = []
    original = ChunkedRows._read
    monkeypatch.setattr(
        ChunkedRows, "_read", lambda self, *rows: reads.append(rows) or original(self, *rows)
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


# .npy


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "i2"])
def test_npy_rows(tmp_path, rng, order, dtype):
    array = np.asarray(rng.integers(-9, 9, (50, 3)), dtype=dtype, order=order)
    path = tmp_path / "a.npy"
    np.save(path, array)
    rows = NpyRows(path)
    assert rows.shape == (50, 3)
    for part in (slice(0, 50), slice(7, 20), slice(40, 99), slice(5, 5)):
        np.testing.assert_array_equal(rows[part], array[part])


def test_one_dimensional_npy_is_a_column(tmp_path):
    np.save(tmp_path / "y.npy", np.arange(5.0))
    assert NpyRows(tmp_path / "y.npy").shape == (5, 1)


def test_source_reads_blocks_and_spread_rows(tmp_path):
    X, Y, _ = make_two_layer(5000, 3, 2, 2, random_state=0)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    source = open_source(tmp_path / "x.npy", tmp_path / "y.npy")
    for rows in (None, 1, 999):
        source.block_rows = rows
        np.testing.assert_array_equal(np.concatenate([b[0] for b in source.blocks()]), X)
        np.testing.assert_array_equal(np.concatenate([b[1] for b in source.blocks(77)]), Y[77:])
    x, y, _ = source.spread(640)
    assert len(x) == len(y) == 640
    position = np.searchsorted(np.sort(X[:, 0]), x[:, 0])
    row = np.argsort(X[:, 0])[position]
    np.testing.assert_array_equal(X[row], x)
    np.testing.assert_array_equal(Y[row], y)
    assert (np.diff(row) > 0).all()  # no row twice
    assert row[0] == 0
    assert row[-1] == 4999
    assert len(source.spread(9999)[0]) == 5000


def test_bad_npy_files(tmp_path):
    good, text, short = (tmp_path / name for name in ("good.npy", "text.npy", "short.npy"))
    np.save(good, np.ones((10, 2)))
    text.write_text("not an array")
    short.write_bytes(good.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"text\.npy is not a readable \.npy file"):
        NpyRows(text)
    with pytest.raises(ValueError, match=r"cut short: its header says 160 bytes of data, 152"):
        NpyRows(short)
    for bad in (np.ones((2, 2, 2)), np.ones((2, 2), complex), np.array(["a"])):
        np.save(text, bad)
        with pytest.raises(ValueError, match="one- or two-dimensional array of real numbers"):
            NpyRows(text)
    np.save(text, np.ones((9, 2)))
    with pytest.raises(ValueError, match=r"same number of rows.* 10 in .*good\.npy and 9 in"):
        open_source(good, text)


@pytest.mark.parametrize("n_files", N_FILES)
def test_damaged_npz_files(n_files, tmp_path):
    X, Y, _ = make_two_layer(200, 4, 3, 3, noise=0.1, random_state=0)
    np.savez(tmp_path / "data.npz", X=X, Y=Y)

    def load(path):
        return [open_rows(path, name)[0:200] for name in ("X", "Y")]

    check_damaged_files(tmp_path / "data.npz", load, n_files, tmp_path, foreign=True)
