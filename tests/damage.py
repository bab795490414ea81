"""Damaged files: each gives one clear error, at once and without much memory."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy_format

from fastsym.archive import _DIGEST, _digest, write_arrays

MORE_MEMORY = 1 << 20  # than loading the good file takes
N_FILES = [80, pytest.param(340, marks=pytest.mark.slow)]


def flip(content, rng):
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
    return bytes(damaged)


def truncate(content, rng):
    return content[: rng.integers(len(content))]


def overwrite(content, rng):
    damaged, at = bytearray(content), rng.integers(len(content))
    part = bytes(
        rng.integers(256, size=min(rng.integers(1, 200), len(content) - at), dtype=np.uint8)
    )
    damaged[at : at + len(part)] = part
    return bytes(damaged)


def cut_out(content, rng):
    at = rng.integers(len(content))
    return content[:at] + content[at + rng.integers(1, 200) :]


def reseal(content):
    """Give damaged bytes the digest that belongs to them, so that they are parsed."""
    size = len(content) - _DIGEST
    if size < 0:
        return content
    return content[:size] + _digest(io.BytesIO(content), size)


def arrays_of(content):
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file)


def swap(content, rng, tmp_path):
    """Exchange two arrays of different shapes; all checksums are right."""
    arrays = arrays_of(content)
    kind = arrays.pop("format_kind", np.array("")).item()
    version = arrays.pop("format_version", np.array(0)).item()
    arrays.pop("checksum", None)
    names = sorted(arrays)
    while True:
        one, other = rng.choice(names, 2, replace=False)
        if arrays[one].shape != arrays[other].shape:
            break
    arrays[one], arrays[other] = arrays[other], arrays[one]
    return write_arrays(tmp_path / "swapped", kind, version, arrays).read_bytes()


def declare_huge(content, rng, tmp_path):
    """Write an array whose header declares up to 10^18 numbers; all checksums are right."""
    arrays = arrays_of(content)
    name = rng.choice([n for n in sorted(arrays) if arrays[n].ndim])
    path = tmp_path / "huge"
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"fastsym sha256 " + b"0" * _DIGEST
        for each, array in arrays.items():
            with archive.open(f"{each}.npy", "w") as entry:
                shape = array.shape
                if each == name:
                    shape = (int(10 ** rng.integers(6, 19)), *shape[1:])
                npy_format.write_array_header_1_0(
                    entry,
                    {"descr": array.dtype.str, "fortran_order": False, "shape": shape},
                )
                entry.write(array.tobytes())
    return reseal(path.read_bytes())


def measured(load, path):
    """Load, and return the arrays and the largest amount of memory that was held."""
    tracemalloc.start()
    try:
        return load(path), tracemalloc.get_traced_memory()[1]
    except ValueError as error:
        error.peak = tracemalloc.get_traced_memory()[1]
        raise
    finally:
        tracemalloc.stop()


DAMAGES = (flip, truncate, overwrite, cut_out)


def check_damaged_files(path, load, n_files, tmp_path, foreign=False):
    """Damage a file in n_files ways; a foreign one is not sealed by the package."""
    content = path.read_bytes()
    expected, usual = measured(load, path)
    rng = np.random.default_rng(0)
    target = tmp_path / "damaged.npz"
    refused = same = 0
    for i in range(n_files):
        what = i % 8
        if what < 6:
            damaged = content
            while damaged == content:
                damaged = DAMAGES[what % 4](content, rng)
                damaged = reseal(damaged) if what >= 4 else damaged
        elif what == 6 and not foreign:
            damaged = swap(content, rng, tmp_path)
        else:
            damaged = declare_huge(content, rng, tmp_path)
        target.write_bytes(damaged)
        try:
            loaded, peak = measured(load, target)
        except ValueError as error:
            assert "damaged.npz" in str(error) or "compressed" in str(error)
            refused += 1
            assert error.peak < usual + MORE_MEMORY
        else:
            # Only bytes that say nothing, where nobody has sealed them: in .npz files of others
            # and where the digest was made anew.
            assert foreign or what in (4, 5), what
            for mine, theirs in zip(loaded, expected, strict=True):
                np.testing.assert_array_equal(mine, theirs)
            same += 1
            assert peak < usual + MORE_MEMORY
    assert refused + same == n_files
    assert refused > 0.8 * n_files
