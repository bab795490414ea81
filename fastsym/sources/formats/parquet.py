"""Parquet files, by pyarrow."""

import fnmatch
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym.sources.formats.cursor import READ_BYTES, Cursor
from fastsym.sources.formats.rows import Format, PathLike, Rows, library

_BATCH_ROWS = 32768  # rows decoded at once


class ParquetRows(Cursor):
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
            parquet = library("pyarrow.parquet", "parquet", self.path)
            if not os.path.exists(self.path):
                raise FileNotFoundError(2, "No such file or directory", self.path)
            try:
                # No pre-buffering: it holds a whole row group, which may be the whole file.
                self._file = parquet.ParquetFile(
                    self.path,
                    buffer_size=READ_BYTES,
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


def _open(path: str, name: str | Sequence[str]) -> Rows:
    return ParquetRows(path, name or "*")


PARQUET = Format("parquet", _open, columns=True)
