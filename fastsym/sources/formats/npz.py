"""NumPy's .npz files: .npy arrays in a zip archive."""

import math
import os
import struct
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastsym.sources.formats.cursor import READ_BYTES, Cursor
from fastsym.sources.formats.npy import NpyRows, read_header
from fastsym.sources.formats.rows import Format, Rows, check_matrix

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a .zip entry: lengths of its name and extra field


class _NpzRows(NpyRows):
    """An uncompressed array of an .npz file; its checksum is compared when all rows were read.

    Rows are counted into it as long as they are read in order from the first on.
    """

    def __init__(self, path: str, start: int, end: int, crc: int) -> None:
        super().__init__(path, start, end)
        with open(path, "rb") as file:
            file.seek(start)
            self._header_crc = zlib.crc32(file.read(self._offset - start))
        self._stored_crc = crc
        self._crc, self._row = self._header_crc, 0

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return the rows of a slice with step 1 as a new array."""
        block = super().__getitem__(rows)
        first = rows.indices(self.shape[0])[0]
        if first == 0:
            self._crc, self._row = self._header_crc, 0
        if first != self._row or self._fortran:
            self._row = -1
            return block
        self._crc = zlib.crc32(block.data, self._crc)
        self._row += len(block)
        if self._row == self.shape[0] and self._crc != self._stored_crc:
            raise ValueError(f"{self.path} is damaged: its checksum does not match its content.")
        return block


class _CompressedNpyRows(Cursor):
    """A compressed array of an .npz file, decompressed as it is read."""

    def __init__(self, path: str, entry: str, size: int) -> None:
        super().__init__()
        self.path, self._entry = path, entry
        with zipfile.ZipFile(path) as archive, archive.open(entry) as file:
            shape, fortran, self.dtype = read_header(file, f"{path}, {entry}")
            self._offset = file.tell()
        self.shape = check_matrix(f"{path}, {entry}", shape, self.dtype)
        if fortran and self.shape[1] > 1:
            raise ValueError(
                f"{path}, {entry} is compressed in Fortran order, so that no row can be read "
                "without all; save it with numpy.savez, or in C order."
            )
        if self._offset + math.prod(self.shape) * self.dtype.itemsize != size:
            raise ValueError(f"{path}, {entry}: its header does not match what is stored.")
        self._file: IO[bytes] | None = None

    def _handles(self) -> tuple[str, ...]:
        return ("_file",)

    def _begin(self, row: int) -> int:
        self._file = zipfile.ZipFile(self.path).open(self._entry)
        self._file.read(self._offset)
        return 0

    def _next(self) -> NDArray[Any]:
        assert self._file is not None
        row_bytes = max(self.shape[1] * self.dtype.itemsize, 1)
        data = self._file.read(max(READ_BYTES // row_bytes, 1) * row_bytes)
        return np.frombuffer(data, self.dtype).reshape(-1, self.shape[1])


def _open(path: str, name: str) -> Rows:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {e.filename.removesuffix(".npy"): e for e in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is not a readable .npz file: {error}") from None
    if name not in entries:
        raise ValueError(f"{path} has no array {name!r}; its arrays are {', '.join(entries)}.")
    entry = entries[name]
    if entry.compress_type != zipfile.ZIP_STORED:
        try:
            return _CompressedNpyRows(path, entry.filename, entry.file_size)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
            raise ValueError(f"{path} is not a readable .npz file: {error}") from None
    header = b""
    if 0 <= entry.header_offset < os.path.getsize(path):
        with open(path, "rb") as file:
            file.seek(entry.header_offset)
            header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise ValueError(f"{path} is not a readable .npz file: no entry where {name!r} should be.")
    start = entry.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(header))
    end = start + entry.file_size
    if end > os.path.getsize(path):
        raise ValueError(f"{path} is cut short.")
    return _NpzRows(path, start, end, entry.CRC)


NPZ = Format("npz", _open)
