"""NumPy's .npy files."""

import math
import os
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastsym.sources.formats.rows import Format, PathLike, Rows, check_matrix


def read_header(file: IO[bytes], what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an .npy stream.

    Parameters
    ----------
    file : binary file
    what : str
        Name of the stream, for messages.

    Returns
    -------
    shape : tuple of int
    fortran : bool
        Whether the array is in Fortran order.
    dtype : dtype

    Raises
    ------
    ValueError
        If it is not readable.
    """
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
            shape, fortran, self.dtype = read_header(file, self.path)
            self._offset = file.tell()
        self.shape = check_matrix(self.path, shape, self.dtype)
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


def _open(path: str, name: Any) -> Rows:
    return NpyRows(path)


NPY = Format("npy", _open, one_array=True)
