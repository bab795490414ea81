"""The one file format of the package: an .npz of plain arrays with a kind, a version, checksums.

No pickle is written or read. A file is written whole under a temporary name in the same folder
and then renamed, so that a reader never sees half of it. It ends with the SHA-256 digest of all
bytes before (as the comment of the .zip archive), which is compared before anything is parsed.
"""

import hashlib
import math
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import DTypeLike, NDArray

_HEADER = ("format_kind", "format_version", "checksum")
_SEAL = b"fastsym sha256 "
_DIGEST = 64  # hexadecimal digits
_UNSEALED = {"network": 2, "moments": 2}  # the last versions without a digest of the whole file


def _checksum(kind: str, version: int, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(f"fastsym/{kind}/{version}".encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a binary file that takes its name only when it is complete and on disk.

    Parameters
    ----------
    path : path

    Yields
    ------
    file : binary file
        Under a temporary name in the same folder; removed if the block raises.
    """
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(
        prefix=path.name + ".", suffix=".part", dir=path.parent
    )
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp gives 0600; a file that is written for others has the usual permissions.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_arrays(
    path: str | os.PathLike[str], kind: str, version: int, arrays: Mapping[str, NDArray[Any]]
) -> Path:
    """Write named arrays to an .npz file.

    Parameters
    ----------
    path : path
        Used as it is; no extension is added.
    kind : str
        What the arrays are, such as "network"; `read_arrays` asks for it.
    version : int
        Of the format of this kind.
    arrays : mapping of str to ndarray

    Returns
    -------
    path : pathlib.Path

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    header = (np.array(kind), np.array(version), np.array(_checksum(kind, version, arrays)))
    everything = dict(zip(_HEADER, header, strict=True))
    everything |= {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # Not np.savez: before NumPy 2.1 it cannot be told to refuse pickles.
    with replacing(path) as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = _SEAL + b"0" * _DIGEST
            for name, array in everything.items():
                # Without a time stamp: the same content gives the same file.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                    npy_format.write_array(entry, array, allow_pickle=False)
        size = file.tell() - _DIGEST
        digest = _digest(file, size)
        file.seek(size)
        file.write(digest)
    return Path(path)


def _digest(file: IO[bytes], size: int) -> bytes:
    """Hash the first bytes of a file."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0:
        part = file.read(min(size, 1 << 20))
        if not part:
            break
        digest.update(part)
        size -= len(part)
    return digest.hexdigest().encode()


def _check_seal(file: IO[bytes]) -> bool:
    """Whether the file ends with a digest of what is before; raises ValueError if a wrong one."""
    size = file.seek(0, os.SEEK_END) - _DIGEST
    if size < len(_SEAL):
        return False
    file.seek(size - len(_SEAL))
    if file.read(len(_SEAL)) != _SEAL:
        return False
    if file.read() != _digest(file, size):
        raise ValueError("its digest does not match its content, it is damaged")
    return True


def write_npy(
    path: str | os.PathLike[str],
    shape: tuple[int, int],
    dtype: DTypeLike,
    blocks: Iterable[NDArray[Any]],
) -> Path:
    """Write a matrix that comes in blocks of rows to an .npy file.

    Parameters
    ----------
    path : path
    shape : tuple of int
        Rows and columns.
    dtype : dtype
    blocks : iterable of ndarray

    Returns
    -------
    path : pathlib.Path

    Raises
    ------
    ValueError
        If the blocks do not have `shape` altogether.
    OSError
        If the folder cannot be written.
    """
    written = 0
    with replacing(path) as file:
        header = {
            "descr": npy_format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        npy_format.write_array_header_1_0(file, header)
        for block in blocks:
            written += len(block)
            file.write(np.ascontiguousarray(block, dtype).data)
        if written != shape[0]:
            raise ValueError(f"{os.fspath(path)} was to have {shape[0]} rows, {written} came.")
    return Path(path)


def _read_array(file: IO[bytes], stored_size: int) -> NDArray[Any]:
    """Read one .npy stream, refusing a header that declares more than is stored."""
    start = file.tell()
    major = npy_format.read_magic(file)
    if major == (1, 0):
        shape, fortran, dtype = npy_format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = npy_format.read_array_header_2_0(file)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or (fortran and len(shape) > 1) or file.tell() - start + size != stored_size:
        raise ValueError("an array header does not match what is stored")
    data = file.read(size)
    if len(data) != size:
        raise ValueError("an array is cut short")
    return np.frombuffer(data, dtype).reshape(shape)


def _read_archive(stream: IO[bytes]) -> dict[str, Any]:
    arrays = {}
    size = stream.seek(0, os.SEEK_END)
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("an entry is compressed")
            if entry.file_size > size:
                raise ValueError("an entry is larger than the file")
            with archive.open(entry) as file:
                name = entry.filename.removesuffix(".npy")
                arrays[name] = _read_array(file, entry.file_size)
    return arrays


def read_arrays(
    path: str | os.PathLike[str], kinds: Mapping[str, int]
) -> tuple[str, dict[str, Any]]:
    """Read a file that `write_arrays` wrote, verified against its checksum.

    Parameters
    ----------
    path : path
    kinds : mapping of str to int
        The kinds accepted, each with the newest format version this program reads.

    Returns
    -------
    kind : str
    arrays : dict of str to ndarray
        Read-only arrays.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not of one of these kinds, is newer, or is damaged.
    """
    expected = " or ".join(kinds)
    with open(path, "rb") as stream:
        try:
            sealed = _check_seal(stream)
            arrays = _read_archive(stream)
            kind, version, checksum = (arrays.pop(name).item() for name in _HEADER)
        except Exception as error:
            # zipfile and the .npy header parser raise many types on damaged input; whichever it
            # was, the file is not one of ours as written.
            problem = str(error) or type(error).__name__
        else:
            problem = ""
    if problem:
        raise ValueError(f"{os.fspath(path)} is not a readable fastsym {expected} file: {problem}")
    if kind not in kinds:
        raise ValueError(f"{os.fspath(path)} holds fastsym {kind!r} data, expected {expected}.")
    if not isinstance(version, int) or version > kinds[kind]:
        raise ValueError(
            f"{os.fspath(path)} has format version {version}, this fastsym reads {kind} files up "
            f"to version {kinds[kind]}; update fastsym."
        )
    if not sealed and version > _UNSEALED.get(kind, 0):
        raise ValueError(f"{os.fspath(path)} is damaged: the digest at its end is missing.")
    if checksum != _checksum(kind, version, arrays):
        raise ValueError(f"{os.fspath(path)} is damaged: its checksum does not match its content.")
    return kind, arrays
