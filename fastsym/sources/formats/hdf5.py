"""HDF5 files, by h5py."""

import os
from typing import Any

from fastsym.sources.formats.cursor import ChunkedRows
from fastsym.sources.formats.rows import Format, library


class Hdf5Rows(ChunkedRows):
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
        h5py = library("h5py", "hdf5", self.path)
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


HDF5 = Format("hdf5", Hdf5Rows)
