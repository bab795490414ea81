"""Matrices that are read by ranges of rows: arrays, and files of every kind that users have.

Each class has a `shape`, a `dtype` and slices with step 1, reads no more than it is asked for
(formats in chunks: a chunk), and can be pickled, so that another process opens the file itself.
Libraries of a format are imported when a file of that format is opened.
"""

import fnmatch
import glob
import importlib
import math
import os
import re
import struct
import threading
import zipfile
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

_READ_BYTES = 1 << 20  # chunks smaller than this are read several at a time
_BATCH_ROWS = 32768  # rows of a Parquet file decoded at once
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a .zip entry: lengths of its name and extra field

PathLike = str | os.PathLike[str]


class Rows(Protocol):
    """A matrix that is read by ranges of rows; NumPy arrays are one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a value."""
        ...

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return the rows of a slice with step 1."""
        ...


def _check_matrix(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the shape as (rows, columns); one dimension is one column."""
    if dtype.kind not in "fiub" or len(shape) not in (1, 2):
        raise ValueError(
            f"{what} must hold a one- or two-dimensional array of real numbers, got shape {shape} "
            f"and dtype {dtype}."
        )
    return (shape[0], shape[1]) if len(shape) == 2 else (shape[0], 1)


def _library(name: str, extra: str, path: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{path} needs {name.split(".")[0]}: pip install "fastsym[{extra}]" ({error}).'
        ) from None


def _read_header(file: IO[bytes], what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an .npy stream: shape, whether in Fortran order, dtype."""
    try:
        version = npy_format.read_magic(file)
        if version == (1, 0):
            return npy_format.read_array_header_1_0(file)
        return npy_format.read_array_header_2_0(file)
    except Exception as error:
        # The header is parsed as a Python literal: damage raises what it likes.
        problem = str(error) or type(error).__name__
    raise ValueError(f"{what} is not a readable .npy file: {problem}")


class NpyRows:
    """A two-dimensional .npy file read by ranges of rows.

    Rows are read into fresh memory, not mapped, so that the pages of a file larger than memory
    are not counted as the process's own.

    Parameters
    ----------
    path : path
        A one-dimensional array counts as one column.
    start : int, default=0
        Byte of the file at which the array begins, for one inside an .npz file.
    end : int, default=None
        Byte at which it ends; None: the end of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an .npy file of real numbers with one or two dimensions, or is shorter or
        longer than its header says.
    """

    def __init__(self, path: PathLike, start: int = 0, end: int | None = None) -> None:
        self.path = os.fspath(path)
        with open(self.path, "rb") as file:
            file.seek(start)
            shape, fortran, self.dtype = _read_header(file, self.path)
            self._offset = file.tell()
        self.shape = _check_matrix(self.path, shape, self.dtype)
        self._fortran = fortran and len(shape) == 2
        expected = math.prod(self.shape) * self.dtype.itemsize
        stored = (os.path.getsize(self.path) if end is None else end) - self._offset
        if stored != expected:
            what = "is cut short" if stored < expected else "is longer than it should be"
            raise ValueError(
                f"{self.path} {what}: its header says {expected} bytes of data, {stored} are there."
            )

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return the rows of a slice with step 1 as a new array."""
        first, last, _ = rows.indices(self.shape[0])
        count, columns = max(last - first, 0), self.shape[1]
        if self._fortran:
            mapped = np.memmap(
                self.path, self.dtype, "r", offset=self._offset, shape=self.shape, order="F"
            )
            return np.array(mapped[first : first + count])
        with open(self.path, "rb") as file:
            file.seek(self._offset + first * columns * self.dtype.itemsize)
            # fromfile reads into the array itself, without a second buffer.
            block = np.fromfile(file, self.dtype, count * columns)
        if len(block) != count * columns:
            raise ValueError(f"{self.path} was cut short while it was read.")
        return block.reshape(count, columns)


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


class _Cursor:
    """Rows that are decoded in order, a piece at a time; reading backwards begins anew.

    A subclass decodes in `_begin(row)`, which returns the first row of the piece that the next
    `_next()` gives, at or before `row`. The last piece is kept.
    """

    path: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def __init__(self) -> None:
        self._open, self._first, self._piece = False, 0, np.empty((0, 0))
        self._lock = threading.Lock()

    def _begin(self, row: int) -> int:
        raise NotImplementedError

    def _next(self) -> NDArray[Any]:
        raise NotImplementedError

    def _skips(self, at: int, row: int) -> bool:
        """Whether to begin anew at `row` rather than decode from `at` on."""
        return False

    def release(self) -> None:
        """Forget the piece and close the file; it is opened anew when rows are asked for."""
        with self._lock:
            self.__dict__.update(dict.fromkeys(self._handles()))
            self._open, self._first, self._piece = False, 0, np.empty((0, 0))

    def __getstate__(self) -> dict[str, Any]:
        closed = {"_open": False, "_piece": np.empty((0, 0)), "_first": 0}
        return self.__dict__ | closed | dict.fromkeys(self._handles()) | {"_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _handles(self) -> tuple[str, ...]:
        """Names of attributes that belong to this process."""
        return ()

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return the rows of a slice with step 1 as a new array."""
        first, last, _ = rows.indices(self.shape[0])
        result = np.empty((max(last - first, 0), self.shape[1]), self.dtype)
        done = 0
        with self._lock:
            while done < len(result):
                row = first + done
                self._seek(row)
                piece = self._piece[row - self._first :][: len(result) - done]
                result[done : done + len(piece)] = piece
                done += len(piece)
        return result

    def _seek(self, row: int) -> None:
        """Make the kept piece the one with this row."""
        end = self._first + len(self._piece)
        if self._open and self._first <= row < end:
            return
        try:
            if not self._open or row < self._first or self._skips(end, row):
                end, self._open = self._begin(row), True
                self._piece = np.empty((0, 0))
            while True:
                self._first, self._piece = end, self._next()
                end += len(self._piece)
                if row < end:
                    return
                if not len(self._piece):
                    raise ValueError("it ends there")
        except Exception as error:
            # Each library has its own errors for a damaged file.
            self._open = False
            raise ValueError(f"{self.path}: row {row} cannot be read: {error}") from None


class _CompressedNpyRows(_Cursor):
    """A compressed array of an .npz file, decompressed as it is read."""

    def __init__(self, path: str, entry: str, size: int) -> None:
        super().__init__()
        self.path, self._entry = path, entry
        with zipfile.ZipFile(path) as archive, archive.open(entry) as file:
            shape, fortran, self.dtype = _read_header(file, f"{path}, {entry}")
            self._offset = file.tell()
        self.shape = _check_matrix(f"{path}, {entry}", shape, self.dtype)
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
        data = self._file.read(max(_READ_BYTES // row_bytes, 1) * row_bytes)
        return np.frombuffer(data, self.dtype).reshape(-1, self.shape[1])


class ParquetRows(_Cursor):
    """Columns of a Parquet file as a matrix, decoded some ten thousand rows at a time.

    Parameters
    ----------
    path : path
    columns : str or sequence of str
        Names, or patterns such as "x*"; a pattern stands for its columns in the file's order.
        float32 columns alone give float32, everything else float64; null is NaN.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If pyarrow is not installed.
    ValueError
        If the file is not readable, has not the columns, or they are not numbers.
    """

    def __init__(self, path: PathLike, columns: str | Sequence[str]) -> None:
        super().__init__()
        self.path = os.fspath(path)
        self._file: Any = None
        self._batches: Any = None
        file = self._parquet()
        schema = file.schema_arrow
        self.columns = _chosen_columns(
            self.path, schema.names, [columns] if isinstance(columns, str) else columns
        )
        types = [_column_dtype(self.path, schema, name) for name in self.columns]
        single = all(one == np.float32 for one in types)
        self.dtype = np.dtype(np.float32 if single else np.float64)
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(groups)]).astype(int)
        self.shape = (file.metadata.num_rows, len(self.columns))

    def _handles(self) -> tuple[str, ...]:
        return "_file", "_batches"

    def _parquet(self) -> Any:
        if self._file is None:
            parquet = _library("pyarrow.parquet", "parquet", self.path)
            if not os.path.exists(self.path):
                raise FileNotFoundError(2, "No such file or directory", self.path)
            try:
                # No pre-buffering: it holds a whole row group, which may be the whole file.
                self._file = parquet.ParquetFile(
                    self.path,
                    buffer_size=_READ_BYTES,
                    pre_buffer=False,
                    page_checksum_verification=True,
                )
            except Exception as error:
                raise ValueError(f"{self.path} is not a readable Parquet file: {error}") from None
        return self._file

    def _skips(self, at: int, row: int) -> bool:
        group = np.searchsorted(self._starts, row, side="right") - 1
        return bool(self._starts[group] > at)

    def _begin(self, row: int) -> int:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        self._batches = self._parquet().iter_batches(
            batch_size=_BATCH_ROWS,
            row_groups=range(group, len(self._starts) - 1),
            columns=self.columns,
        )
        return int(self._starts[group])

    def _next(self) -> NDArray[Any]:
        batch = next(self._batches)
        rows = np.empty((batch.num_rows, len(self.columns)), self.dtype)
        for j, name in enumerate(self.columns):
            rows[:, j] = batch.column(name).to_numpy(zero_copy_only=False)
        return rows


def _column_dtype(path: str, schema: Any, name: str) -> np.dtype[Any]:
    if schema.names.count(name) > 1:
        raise ValueError(f"{path} has several columns {name!r}; they cannot be told apart.")
    kind = schema.field(name).type
    try:
        dtype = np.dtype(kind.to_pandas_dtype())
    except (TypeError, NotImplementedError):  # of dictionaries, structures, zones
        dtype = np.dtype(object)
    if dtype.kind not in "fiub":
        raise ValueError(f"{path}: column {name!r} must hold numbers, got {kind}.")
    return dtype


def _chosen_columns(path: str, names: list[str], wanted: Sequence[str]) -> list[str]:
    chosen: list[str] = []
    for pattern in wanted:
        found = [pattern] if pattern in names else fnmatch.filter(names, pattern)
        if not found:
            raise ValueError(
                f"{path} has no column {pattern!r}; its columns are {', '.join(names)}."
            )
        chosen += [name for name in found if name not in chosen]
    return chosen


class _ChunkedRows(_Cursor):
    """An array of a library that stores chunks of rows; each is read once in a pass."""

    _chunk_rows: int

    def __init__(self, path: PathLike, name: str | None) -> None:
        super().__init__()
        self.path, self.name = os.fspath(path), name
        self._array: Any = None
        array = self._opened()
        what = self.path if name is None else f"{self.path}, {name}"
        self.dtype = np.dtype(array.dtype)
        self.shape = _check_matrix(what, tuple(array.shape), self.dtype)
        chunk = self._chunk(array)
        row_bytes = max(self.shape[1] * self.dtype.itemsize, 1)
        self._chunk_rows = chunk * max(1, _READ_BYTES // (chunk * row_bytes)) if chunk else 0

    def _handles(self) -> tuple[str, ...]:
        return ("_array",)

    def _opened(self) -> Any:
        if self._array is None:
            self._array = self._open_array()
        return self._array

    def _open_array(self) -> Any:
        raise NotImplementedError

    def _chunk(self, array: Any) -> int:
        """Rows of a chunk, 0 if the array is stored in one piece."""
        raise NotImplementedError

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return the rows of a slice with step 1 as a new array."""
        if self._chunk_rows:
            return super().__getitem__(rows)
        first, last, _ = rows.indices(self.shape[0])
        with self._lock:
            return self._read(first, max(first, last))

    def _read(self, first: int, last: int) -> NDArray[Any]:
        try:
            block = np.asarray(self._opened()[first:last])
        except Exception as error:
            raise ValueError(
                f"{self.path}: rows {first} to {last} cannot be read: {error}"
            ) from None
        return block.reshape(last - first, self.shape[1])

    def _skips(self, at: int, row: int) -> bool:
        return row - at >= self._chunk_rows

    def _begin(self, row: int) -> int:
        self._row = row - row % self._chunk_rows
        return self._row

    def _next(self) -> NDArray[Any]:
        last = min(self._row + self._chunk_rows, self.shape[0])
        block, self._row = self._read(self._row, last), last
        return block


class Hdf5Rows(_ChunkedRows):
    """A dataset of an HDF5 file.

    Parameters
    ----------
    path : path
    name : str
        Of the dataset, with its groups: "run1/X".

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If h5py is not installed.
    ValueError
        If the file is not readable, has no such dataset, or it is no matrix of real numbers.
    """

    def _open_array(self) -> Any:
        h5py = _library("h5py", "hdf5", self.path)
        if not os.path.exists(self.path):
            raise FileNotFoundError(2, "No such file or directory", self.path)
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise ValueError(f"{self.path} is not a readable HDF5 file: {error}") from None
        names: list[str] = []
        try:
            array = file.get(self.name)  # follows links, which visititems does not
            file.visititems(
                lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
            )
        except Exception as error:
            raise ValueError(f"{self.path} is not a readable HDF5 file: {error}") from None
        if not isinstance(array, h5py.Dataset) or array.shape is None:
            raise ValueError(
                f"{self.path} has no dataset {self.name!r}; its datasets are {', '.join(names)}."
            )
        return array

    def _chunk(self, array: Any) -> int:
        return array.chunks[0] if array.chunks else 0


class ZarrRows(_ChunkedRows):
    """An array of a Zarr store.

    Parameters
    ----------
    path : path
        Of the store, a folder.
    name : str or None
        Of the array in it; None: the store is one array.

    Raises
    ------
    FileNotFoundError
        If there is no such store.
    ImportError
        If zarr is not installed.
    ValueError
        If the store is not readable, has no such array, it is no matrix of real numbers, or some of
        its chunks are missing (Zarr would read them as fill values).
    """

    def _open_array(self) -> Any:
        zarr = _library("zarr", "zarr", self.path)
        if not os.path.exists(self.path):
            raise FileNotFoundError(2, "No such file or directory", self.path)
        try:
            opened = zarr.open(self.path, mode="r")
            names = sorted(opened.array_keys()) if hasattr(opened, "array_keys") else None
            array = opened if names is None else opened.get(self.name)
        except Exception as error:
            raise ValueError(f"{self.path} is not a readable Zarr store: {error}") from None
        if names is None and self.name is not None:
            raise ValueError(
                f"{self.path} is one array, not a group with an array {self.name!r}; give the "
                "stores of X and of Y."
            )
        if array is None or not hasattr(array, "chunks"):
            raise ValueError(
                f"{self.path} has no array {self.name!r}; its arrays are {', '.join(names or ())}."
            )
        sizes = getattr(array, "shards", None) or array.chunks
        stored = math.prod(-(-n // size) for n, size in zip(array.shape, sizes, strict=True))
        missing = stored - _zarr_objects(array)
        if missing:
            raise ValueError(
                f"{self.path}: {missing} of {stored} chunks of {self.name!r} are missing, "
                "and would be read as fill values; if these are meant, write the array with "
                "write_empty_chunks."
            )
        return array

    def _chunk(self, array: Any) -> int:
        return (getattr(array, "shards", None) or array.chunks)[0]


def _zarr_objects(array: Any) -> int:
    """Count the stored chunks of a Zarr array, or its shards where it has them."""
    shards = getattr(array, "shards", None) or array.chunks
    in_each = math.prod(s // c for s, c in zip(shards, array.chunks, strict=True))
    # Zarr counts all chunks of a shard that is there, also those beyond the end of the array.
    return int(array.nchunks_initialized) // in_each


class ShardedRows:
    """Matrices one below the other.

    Parameters
    ----------
    parts : sequence of Rows
        All of the same number of columns.
    names : sequence of str
        For messages.

    Raises
    ------
    ValueError
        If there is none, or the numbers of columns differ.
    """

    def __init__(self, parts: Sequence[Rows], names: Sequence[str]) -> None:
        columns = parts[0].shape[1]
        for part, name in zip(parts, names, strict=True):
            if part.shape[1] != columns:
                raise ValueError(
                    f"{name} has {part.shape[1]} columns, but {names[0]} has {columns}."
                )
            _release(part)
        self.parts = list(parts)
        self._current: Rows | None = None
        self._starts = np.concatenate([[0], np.cumsum([p.shape[0] for p in parts])]).tolist()
        self.shape = (self._starts[-1], columns)
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return the rows of a slice with step 1."""
        first, last, _ = rows.indices(self.shape[0])
        pieces = [
            self._entered(part)[max(first - start, 0) : last - start]
            for part, (start, end) in zip(self.parts, pairwise(self._starts), strict=True)
            if first < end and last > start
        ]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty((0, self.shape[1]), self.dtype)

    def _entered(self, part: Rows) -> Rows:
        """Close the part that was read before: open files and pieces must not add up."""
        if self._current is not part:
            _release(self._current)
            self._current = part
        return part


def _release(rows: Any) -> None:
    if hasattr(rows, "release"):
        rows.release()


class RowRange:
    """Some rows of a matrix.

    Parameters
    ----------
    rows : Rows
    first, last : int
        Rows first to last - 1.
    """

    def __init__(self, rows: Rows, first: int, last: int) -> None:
        self._rows, self._first = rows, first
        self.shape, self.dtype = (last - first, *rows.shape[1:]), rows.dtype

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return the rows of a slice with step 1."""
        first, last, _ = rows.indices(self.shape[0])
        return self._rows[self._first + first : self._first + max(first, last)]


def _open_npz(path: str, name: str) -> Rows:
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


_ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")

FORMATS = {
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".zarr": "zarr",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""Formats by the ending of a file's name."""


def format_of(path: PathLike) -> str:
    """Tell the format of a file by its name, or of a Zarr store by what is in it.

    Parameters
    ----------
    path : path

    Returns
    -------
    format : {"npy", "npz", "hdf5", "zarr", "parquet"}

    Raises
    ------
    ValueError
        If it is none of these.
    """
    path = Path(path)
    if any((path / name).exists() for name in _ZARR_FILES):
        return "zarr"
    if path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"{path}: its format is not known by its ending; one of {', '.join(FORMATS)} is."
        )
    return FORMATS[path.suffix.lower()]


def open_rows(path: PathLike, name: str | Sequence[str] | None = None) -> Rows:
    """Open one file as a matrix.

    Parameters
    ----------
    path : path
        .npy, .npz, .h5 or .hdf5, .zarr, .parquet.
    name : str or sequence of str, default=None
        Array in an .npz or HDF5 file or in a Zarr store; columns of a Parquet file, by names or
        patterns. Not for .npy.

    Returns
    -------
    rows : Rows

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the library of the format is not installed; the message names the extra.
    ValueError
        If the format is not known, or the file is not readable or has no such matrix.
    """
    kind, path = format_of(path), os.fspath(path)
    if kind == "npy":
        return NpyRows(path)
    if name is None and kind != "zarr":
        raise ValueError(f"{path}: say which array or columns of it to read.")
    if kind == "parquet":
        return ParquetRows(path, name or "*")
    if name is not None and not isinstance(name, str):
        if len(name) != 1:
            raise ValueError(f"{path}: expected the name of one array, got {list(name)}.")
        name = name[0]
    if kind == "npz":
        return _open_npz(path, str(name))
    return Hdf5Rows(path, str(name)) if kind == "hdf5" else ZarrRows(path, name)


def expand(path: PathLike | Sequence[PathLike]) -> list[str]:
    """List the files that a path stands for, shards in the order of their numbers.

    Parameters
    ----------
    path : path or sequence of paths
        A file, a Zarr store, a folder of files of one format, or a glob pattern.

    Returns
    -------
    paths : list of str
        "part2" comes before "part10".

    Raises
    ------
    FileNotFoundError
        If a pattern or a folder gives no file.
    ValueError
        If a folder holds files of several formats.
    """
    if not isinstance(path, str | os.PathLike):
        if not path:
            raise ValueError("path must be at least one file, got an empty list.")
        return [one for each in path for one in expand(each)]
    text = os.fspath(path)
    if os.path.isdir(text) and not _is_zarr(text):
        found = [
            entry.path
            for entry in os.scandir(text)
            if not entry.name.startswith((".", "_")) and Path(entry.name).suffix.lower() in FORMATS
        ]
        if len(formats := {format_of(each) for each in found}) > 1:
            raise ValueError(
                f"{text} holds files of several formats ({', '.join(sorted(formats))}); give a "
                f"pattern such as {os.path.join(text, '*.npy')}."
            )
    elif not os.path.exists(text) and glob.has_magic(text):
        found = glob.glob(text)
    else:
        return [text]
    if not found:
        raise FileNotFoundError(2, "No file of a known format", text)
    return sorted(found, key=_by_number)


def _is_zarr(path: str) -> bool:
    return path.rstrip("/").endswith(".zarr") or any(
        Path(path, name).exists() for name in _ZARR_FILES
    )


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """Sort key: digits by their value, everything else as text."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts]
