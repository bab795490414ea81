"""The one file format of the package: what is damaged, foreign or newer is refused."""

import os
import zipfile

import numpy as np
import pytest

from fastsym import MomentAccumulator, TwoLayerNetwork, TwoLayerRegressor, make_two_layer
from fastsym.archive import _checksum, read_arrays, write_arrays, write_npy
from fastsym.datasets import make_network
from fastsym.sources import from_arrays
from fastsym.sums.frame import Frame

from .damage import N_FILES, check_damaged_files


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
    newer = write_arrays(tmp_path / "newer.npz", "network", 5, {})
    with pytest.raises(ValueError, match=r"format version 5, .* up to version 4; update fastsym"):
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


# Files damaged in all ways


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One good file of each kind, and its loader, which returns the arrays it read."""
    folder = tmp_path_factory.mktemp("good")
    X, Y, _ = make_two_layer(40_000, 4, 3, 3, noise=0.1, random_state=0)
    source = from_arrays(X, Y)
    for name, refine in (("checkpoint", True), ("moments checkpoint", False)):
        TwoLayerRegressor(3, refine=refine).fit(source, checkpoint=folder / name)
    make_network(4, 3, 3, random_state=0).save(folder / "network")
    moments = MomentAccumulator(3).update(X[:9000], Y[:9000])
    moments.save(folder / "moments")
    moments.frame.save(folder / "frame")

    def network(path):
        loaded = TwoLayerNetwork.load(path)
        return [loaded.hidden_weights, loaded.output_weights, loaded.output_intercept]

    def checkpoint(path, refine=True):
        model = TwoLayerRegressor(3, refine=refine).fit(source, checkpoint=path)
        return [model.hidden_weights_, model.output_weights_]

    def moments_checkpoint(path):
        return checkpoint(path, refine=False)

    return {
        "network": (folder / "network", network),
        "moments": (
            folder / "moments",
            lambda path: list(MomentAccumulator.load(path).to_arrays().values()),
        ),
        "frame": (folder / "frame", lambda path: list(Frame.load(path).to_arrays().values())),
        "checkpoint": (folder / "checkpoint", checkpoint),
        "moments checkpoint": (folder / "moments checkpoint", moments_checkpoint),
    }


@pytest.mark.parametrize("n_files", N_FILES)
@pytest.mark.parametrize(
    "kind", ["network", "moments", "frame", "checkpoint", "moments checkpoint"]
)
def test_damaged_files(kind, n_files, good, tmp_path):
    check_damaged_files(*good[kind], n_files, tmp_path)


def test_checksums_name_the_arrays():
    # The digest depends on the name, shape and type of each array, not on its bytes alone.
    a = np.zeros(4)
    digests = {
        _checksum("x", 1, arrays)
        for arrays in ({"a": a}, {"b": a}, {"a": a.reshape(2, 2)}, {"a": a.astype(np.int64)})
    }
    assert len(digests) == 4
