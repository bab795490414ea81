"""Rows that are decoded in order, as compressed files and files in chunks are."""

import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym.sources.formats.rows import PathLike, check_matrix

READ_BYTES = 1 << 20
"""Chunks smaller than this are read several at a time."""


class Cursor:
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


class ChunkedRows(Cursor):
    """An array of a library that stores chunks of rows; each is read once in a pass."""

    _chunk_rows: int

    def __init__(self, path: PathLike, name: str | None) -> None:
        super().__init__()
        self.path, self.name = os.fspath(path), name
        self._array: Any = None
        array = self._opened()
        what = self.path if name is None else f"{self.path}, {name}"
        self.dtype = np.dtype(array.dtype)
        self.shape = check_matrix(what, tuple(array.shape), self.dtype)
        chunk = self._chunk(array)
        row_bytes = max(self.shape[1] * self.dtype.itemsize, 1)
        self._chunk_rows = chunk * max(1, READ_BYTES // (chunk * row_bytes)) if chunk else 0

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
