"""Formats of files: one file each, and the table from the ending of a name to its format.

A new format is one more file, with its `Format`, and its line in `FORMATS`. Libraries of a format
are imported when a file of that format is opened.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from fastsym.sources.formats.hdf5 import HDF5
from fastsym.sources.formats.npy import NPY
from fastsym.sources.formats.npz import NPZ
from fastsym.sources.formats.parquet import PARQUET
from fastsym.sources.formats.rows import Format, PathLike, Rows
from fastsym.sources.formats.zarr import ZARR

__all__ = ["FORMATS", "Format", "PathLike", "Rows", "format_of", "is_store", "open_rows"]

FORMATS = {
    ".npy": NPY,
    ".npz": NPZ,
    ".h5": HDF5,
    ".hdf5": HDF5,
    ".hdf": HDF5,
    ".zarr": ZARR,
    ".parquet": PARQUET,
    ".pq": PARQUET,
}
"""Formats by the ending of a file's name."""


def format_of(path: PathLike) -> Format:
    """Tell the format of a file by its name, or of a store, a folder, by what is in it.

    Parameters
    ----------
    path : path

    Returns
    -------
    format : Format

    Raises
    ------
    ValueError
        If it is none of `FORMATS`.
    """
    path = Path(path)
    for known in FORMATS.values():
        if any((path / name).exists() for name in known.markers):
            return known
    if path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"{path}: its format is not known by its ending; one of {', '.join(FORMATS)} is."
        )
    return FORMATS[path.suffix.lower()]


def is_store(path: PathLike) -> bool:
    """Whether a folder is one file of a format, rather than a folder of files.

    Parameters
    ----------
    path : path

    Returns
    -------
    answer : bool
    """
    return any(
        os.fspath(path).rstrip("/").endswith(ending)
        or any(Path(path, name).exists() for name in known.markers)
        for ending, known in FORMATS.items()
        if known.markers
    )


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
    if kind.one_array:
        return kind.open(path, None)
    if name is None and not kind.may_be_one_array:
        raise ValueError(f"{path}: say which array or columns of it to read.")
    if name is not None and not isinstance(name, str) and not kind.columns:
        if len(name) != 1:
            raise ValueError(f"{path}: expected the name of one array, got {list(name)}.")
        name = name[0]
    return kind.open(path, name)
