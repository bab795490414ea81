"""Zarr stores, by zarr."""

import math
import os
from typing import Any

from fastsym.sources.formats.cursor import ChunkedRows
from fastsym.sources.formats.rows import Format, library


class ZarrRows(ChunkedRows):
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
        zarr = library("zarr", "zarr", self.path)
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


ZARR = Format("zarr", ZarrRows, may_be_one_array=True, markers=("zarr.json", ".zgroup", ".zarray"))
