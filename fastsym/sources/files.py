"""Samples in files: one, or shards one after the other."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastsym.sources.arrays import PairedRows
from fastsym.sources.formats import FORMATS, format_of, is_store, open_rows
from fastsym.sources.formats.rows import PathLike, RowRange, Rows, ShardedRows


def open_source(
    path: PathLike | Sequence[PathLike],
    y_path: PathLike | Sequence[PathLike] | None = None,
    *,
    x: str | Sequence[str] | None = None,
    y: str | Sequence[str] | None = None,
    weight: str | None = None,
    block_rows: int | None = None,
) -> PairedRows:
    """Open files of samples as a source, without reading them.

    Parameters
    ----------
    path : path or sequence of paths
        A file of X and Y (.npz, HDF5, Zarr, Parquet), or of X alone where y_path is given. Several
        files one after the other: a list, in its order, or a folder or glob pattern, whose files
        are put in the order of the numbers in their names.
    y_path : path or sequence of paths, default=None
        Of Y: as many files as of X, each with as many rows as the one of X it belongs to.
    x, y : str or sequence of str, default=None
        Names of the arrays ("group/X" in HDF5); for Parquet names or patterns of columns. None:
        "X" and "Y"; for Parquet the columns whose names begin with x or X, and with y or Y.
    weight : str, default=None
        Array or column of the sample weights in the files of X, or an .npy file. None: all 1.
    block_rows : int, default=None
        Rows read at once. None: about 8 MiB of X and Y, less where memory is short.

    Returns
    -------
    source : PairedRows

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ImportError
        If the library of the format is not installed; the message names the extra.
    ValueError
        If a file is not readable or has no such array, or numbers of rows or columns differ.

    Examples
    --------
    >>> import numpy, tempfile, fastsym
    >>> X, Y, network = fastsym.make_two_layer(20_000, 4, 3, 3, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     numpy.savez(f"{folder}/samples.npz", X=X, Y=Y)
    ...     source = fastsym.sources.open_source(f"{folder}/samples.npz")
    ...     model = fastsym.TwoLayerRegressor(n_hidden=3).fit(source)
    >>> fastsym.parameter_error(network, model.network_).hidden_error < 1e-20
    True
    """
    x_files = expand(path)
    y_files = x_files if y_path is None else expand(y_path)
    if len(x_files) != len(y_files):
        raise ValueError(
            f"path stands for {len(x_files)} files and y_path for {len(y_files)}; each file of X "
            "needs one of Y."
        )
    x_parts = _open_all(x_files, x, "X", alone=y_path is not None)
    y_parts = _open_all(y_files, y, "Y", alone=y_path is not None)
    for one, other, x_file, y_file in zip(x_parts, y_parts, x_files, y_files, strict=True):
        if one.shape[0] != other.shape[0]:
            raise ValueError(
                "X and Y must have the same number of rows, got inconsistent numbers of samples: "
                f"{one.shape[0]} in {x_file} and {other.shape[0]} in {y_file}."
            )
    weights: Rows | None = None
    if weight is not None:
        if format_of(x_files[0]).one_array:
            weight_files = expand(weight)
            weights = _stacked([open_rows(file) for file in weight_files], weight_files)
        else:
            weights = _stacked([open_rows(file, weight) for file in x_files], x_files)
    return PairedRows(
        _stacked(x_parts, x_files), _stacked(y_parts, y_files), weights, block_rows=block_rows
    )


def open_matrix(
    path: PathLike | Sequence[PathLike], name: str | Sequence[str] | None = None
) -> PairedRows:
    """Open files of inputs alone, for prediction.

    Parameters
    ----------
    path : path or sequence of paths
        As for `open_source`.
    name : str or sequence of str, default=None
        Array or columns in it; None: "X", for Parquet the columns that begin with x or X.

    Returns
    -------
    source : PairedRows
        Whose Y has no columns.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As by `open_source`.
    """
    files = expand(path)
    X = _stacked(_open_all(files, name, "X", alone=True), files)
    return PairedRows(X, RowRange(np.empty((X.shape[0], 0)), 0, X.shape[0]))


def _open_all(
    paths: list[str], name: str | Sequence[str] | None, default: str, alone: bool
) -> list[Rows]:
    """Open files alike: columns of Parquet files by the names that the first one gives."""
    first = _open(paths[0], name, default, alone)
    name = getattr(first, "columns", name)
    return [first] + [_open(path, name, default, alone) for path in paths[1:]]


def _open(path: str, name: str | Sequence[str] | None, default: str, alone: bool) -> Rows:
    kind = format_of(path)
    if kind.one_array and not alone:
        raise ValueError(f"{path} is one array: give the file of Y too.")
    if name is None:
        name = f"[{default}{default.lower()}]*" if kind.columns else default
        # A store that is one array has no name to give.
        if kind.may_be_one_array and alone and not os.path.exists(os.path.join(path, default)):
            name = None
    return open_rows(path, name)


def _stacked(parts: list[Rows], names: list[str]) -> Rows:
    return parts[0] if len(parts) == 1 else ShardedRows(parts, names)


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
    if os.path.isdir(text) and not is_store(text):
        found = [
            entry.path
            for entry in os.scandir(text)
            if not entry.name.startswith((".", "_")) and Path(entry.name).suffix.lower() in FORMATS
        ]
        if len(formats := {format_of(each).name for each in found}) > 1:
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


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """Sort key: digits by their value, everything else as text."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts]
