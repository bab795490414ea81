import os
import zipfile

import numpy as np
import pytest

from fastsym import MomentAccumulator, TwoLayerNetwork, make_two_layer
from fastsym._files import read_arrays, write_arrays, write_npy
from fastsym.datasets import make_network
from fastsym.rows import NpyRows
from fastsym.sources import open_source


@pytest.fixture
def network_file(tmp_path):
    return make_network(4, 3, 3, random_state=0).save(tmp_path / "model.npz")


def test_every_flipped_bit_is_noticed(network_file, rng):
    content = network_file.read_bytes()
    for position in rng.choice(len(content) * 8, 400, replace=False):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << (position % 8)
        network_file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.npz .*(damaged|not a readable)"):
            TwoLayerNetwork.load(network_file)


def test_every_truncation_is_noticed(network_file):
    content = network_file.read_bytes()
    for length in range(len(content)):
        network_file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"model\.npz .*(damaged|not a readable)"):
            TwoLayerNetwork.load(network_file)


def rewrite(path, **changes):
    """Write the arrays of a file again with some changed, the checksum left as it was."""
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | changes))


def test_swapped_values_are_noticed(network_file):
    rewrite(network_file, hidden_weights=np.ones((3, 4)))
    with pytest.raises(ValueError, match="damaged: the digest at its end is missing"):
        TwoLayerNetwork.load(network_file)


def test_newer_version_other_kind_and_foreign_files(network_file, tmp_path):
    newer = write_arrays(tmp_path / "newer.npz", "network", 4, {})
    with pytest.raises(ValueError, match=r"format version 4, .* up to version 3; update fastsym"):
        TwoLayerNetwork.load(newer)
    with pytest.raises(ValueError, match="holds fastsym 'network' data, expected moments"):
        MomentAccumulator.load(network_file)
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, a=np.zeros(3))
    with pytest.raises(ValueError, match="not a readable fastsym network file"):
        TwoLayerNetwork.load(foreign)
    with pytest.raises(FileNotFoundError):
        TwoLayerNetwork.load(tmp_path / "missing.npz")


def test_pickles_are_not_read(tmp_path):
    path = tmp_path / "pickle.npz"
    np.savez(path, format_kind=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="not a readable fastsym"):
        read_arrays(path, {"network": 1})


def test_a_huge_declared_shape_allocates_nothing(tmp_path):
    path = tmp_path / "huge.npz"
    header = np.lib.format
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as file:
        header.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        )
    with pytest.raises(ValueError, match="header does not match what is stored"):
        read_arrays(path, {"network": 1})


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "y.npy"
    write_npy(path, (2, 3), "float64", [np.ones((2, 3))])

    def blocks():
        yield np.zeros((1, 3))
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_npy(path, (2, 3), "float64", blocks())
    with pytest.raises(ValueError, match="2 rows, 1 came"):
        write_npy(path, (2, 3), "float64", [np.zeros((1, 3))])
    np.testing.assert_array_equal(np.load(path), np.ones((2, 3)))
    assert os.listdir(tmp_path) == ["y.npy"]


def test_files_have_the_usual_permissions(network_file):
    mask = os.umask(0)
    os.umask(mask)
    assert network_file.stat().st_mode & 0o777 == 0o666 & ~mask


# .npy sources


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
