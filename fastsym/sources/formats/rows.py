"""Matrices that are read by ranges of rows, and what a format gives to be one of them.

Each class has a `shape`, a `dtype` and slices with step 1, reads no more than it is asked for
(formats in chunks: a chunk), and can be pickled, so that another process opens the file itself.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

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


class Format(NamedTuple):
    """A format of files.

    Parameters
    ----------
    name : str
        For messages.
    open : callable
        Of the path and the name of an array in the file; returns Rows. A format of columns gets one
        name or several, or patterns.
    one_array : bool, default=False
        Whether a file is one array, which has no name.
    may_be_one_array : bool, default=False
        Whether a file may be one array, whose name is None then.
    columns : bool, default=False
        Whether a file holds columns, of which a matrix is made by their names or patterns.
    markers : tuple of str, default=()
        Of a format whose files are folders: files by which such a folder is known.
    """

    name: str
    open: Callable[[str, Any], Rows]
    one_array: bool = False
    may_be_one_array: bool = False
    columns: bool = False
    markers: tuple[str, ...] = ()


def check_matrix(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the shape as (rows, columns); one dimension is one column.

    Parameters
    ----------
    what : str
        Name of the array, for messages.
    shape : tuple of int
    dtype : dtype

    Returns
    -------
    shape : (int, int)

    Raises
    ------
    ValueError
        If it has not one or two dimensions, or does not hold real numbers.
    """
    if dtype.kind not in "fiub" or len(shape) not in (1, 2):
        raise ValueError(
            f"{what} must hold a one- or two-dimensional array of real numbers, got shape {shape} "
            f"and dtype {dtype}."
        )
    return (shape[0], shape[1]) if len(shape) == 2 else (shape[0], 1)


def library(name: str, extra: str, path: str) -> Any:
    """Import the library of a format.

    Parameters
    ----------
    name : str
        Of the module.
    extra : str
        Of fastsym that installs it.
    path : str
        Of the file, for the message.

    Returns
    -------
    module : module

    Raises
    ------
    ImportError
        If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{path} needs {name.split(".")[0]}: pip install "fastsym[{extra}]" ({error}).'
        ) from None


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
