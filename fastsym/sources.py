"""Where samples come from: pairs (X, Y) that can be read in blocks of rows, and read again."""

import os
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastsym._validation import as_rows, check_weights

BLOCK_BYTES = 8 << 20
"""Size of a block that is read at once, X and Y together."""

_SPREAD_RUN = 16  # neighbouring rows read together when a sample is spread over a file


Block = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]
"""Rows (X, Y, weights); weights is None where all are 1."""


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


class NpyRows:
    """A two-dimensional .npy file read by ranges of rows.

    Rows are read into fresh memory, not mapped, so that the pages of a file larger than memory
    are not counted as the process's own.

    Parameters
    ----------
    path : path
        A one-dimensional array counts as one column.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an .npy file of real numbers with one or two dimensions, or is shorter than
        its header says.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            with open(self.path, "rb") as file:
                version = npy_format.read_magic(file)
                read_header = (
                    npy_format.read_array_header_1_0
                    if version == (1, 0)
                    else npy_format.read_array_header_2_0
                )
                shape, fortran, self.dtype = read_header(file)
                self._offset = file.tell()
        except ValueError as error:
            raise ValueError(f"{self.path} is not a readable .npy file: {error}") from None
        if self.dtype.kind not in "fiub" or len(shape) not in (1, 2):
            raise ValueError(
                f"{self.path} must hold a one- or two-dimensional array of real numbers, got "
                f"shape {shape} and dtype {self.dtype}."
            )
        self.shape = shape if len(shape) == 2 else (shape[0], 1)
        self._fortran = fortran and len(shape) == 2
        expected = self.shape[0] * self.shape[1] * self.dtype.itemsize
        stored = os.path.getsize(self.path) - self._offset
        if stored < expected:
            raise ValueError(
                f"{self.path} is cut short: its header says {expected} bytes of data, "
                f"{stored} are there."
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
        return block.reshape(count, columns)


class PairedRows:
    """Samples (X, Y) that can be read by rows, more than once.

    Parameters
    ----------
    X : array of shape (n_samples, n_features) or NpyRows
    Y : array of shape (n_samples, n_outputs) or NpyRows
    weights : ndarray of shape (n_samples,), default=None
        Of the samples, positive; None: all 1.

    Raises
    ------
    ValueError
        If the numbers of rows differ.
    """

    def __init__(self, X: Rows, Y: Rows, weights: NDArray[np.float64] | None = None) -> None:
        if X.shape[0] != Y.shape[0]:
            raise ValueError(
                "X and Y must have the same number of rows, got inconsistent numbers of samples: "
                f"{X.shape[0]} and {Y.shape[0]}."
            )
        self.X, self.Y, self.weights = X, Y, weights

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.X.shape[0]

    def blocks(self, n_rows: int | None = None) -> Iterator[Block]:
        """Yield all samples in order as (X, Y, weights), `n_rows` at a time (None: about 8 MiB)."""
        if n_rows is None:
            row_bytes = sum(rows.shape[1] * rows.dtype.itemsize for rows in (self.X, self.Y))
            n_rows = max(1, BLOCK_BYTES // row_bytes)
        for first in range(0, self.n_samples, n_rows):
            last = min(first + n_rows, self.n_samples)
            yield self._rows(first, last)

    def _rows(self, first: int, last: int) -> Block:
        weights = None if self.weights is None else self.weights[first:last]
        return self.X[first:last], self.Y[first:last], weights

    def spread(self, n_rows: int) -> Block:
        """Return about `n_rows` samples in short runs evenly spaced over all rows.

        All samples are returned when there are no more than `n_rows`.
        """
        if n_rows >= self.n_samples:
            return self._rows(0, self.n_samples)
        n_runs = max(1, n_rows // _SPREAD_RUN)
        starts = np.linspace(0, self.n_samples - _SPREAD_RUN, n_runs).astype(int).tolist()
        X, Y, weights = zip(*(self._rows(at, at + _SPREAD_RUN) for at in starts), strict=True)
        return (
            np.concatenate(X),
            np.concatenate(Y),
            None if self.weights is None else np.concatenate(weights),
        )


def open_npy_pair(x_path: str | os.PathLike[str], y_path: str | os.PathLike[str]) -> PairedRows:
    """Open a pair of .npy files as a source.

    Parameters
    ----------
    x_path, y_path : path
        Arrays of shapes (n_samples, n_features) and (n_samples, n_outputs).

    Returns
    -------
    source : PairedRows

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is not a readable .npy matrix, or the numbers of rows differ.
    """
    return PairedRows(NpyRows(x_path), NpyRows(y_path))


def from_arrays(X: Any, Y: Any, sample_weight: Any = None) -> PairedRows:
    """Make a source of arrays, without copying them unless a weight is 0.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features)
    Y : array_like of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight : array_like of shape (n_samples,), default=None
        At least 0; a sample of weight 0 is as absent.

    Returns
    -------
    source : PairedRows

    Raises
    ------
    ValueError
        If either is not a real numeric array, the numbers of rows differ, or the weights are not
        one finite number of at least 0 a sample, or all 0.
    """
    X, Y = as_rows("X", X), as_rows("Y", Y)
    if sample_weight is None:
        return PairedRows(X, Y)
    return PairedRows(*weighted_rows(X, Y, check_weights(sample_weight, len(X))))


def weighted_rows(
    X: NDArray[Any], Y: NDArray[Any], weights: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Leave out the samples of weight 0.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    weights : ndarray of shape (n_samples,)
        At least 0.

    Returns
    -------
    X, Y, weights : ndarray
        The samples of positive weight.

    Raises
    ------
    ValueError
        If all weights are 0.
    """
    used = weights > 0
    if used.all():
        return X, Y, weights
    if not used.any():
        raise ValueError(
            "sample_weight is zero for every sample; at least one weight must not be zero."
        )
    if len(X) != len(Y):
        return X, Y, weights  # the caller says what is wrong
    return X[used], Y[used], weights[used]
