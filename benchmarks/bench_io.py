"""From files to moments."""

import importlib.util
import tempfile
from pathlib import Path

import numpy as np

from fastsym import accumulate
from fastsym.sources import open_source

from .common import Compiled, samples, shortest, stream_probe

NEEDED = {"hdf5": "h5py", "zarr": "zarr", "parquet": "pyarrow"}


def write(kind, folder, X, Y):
    """Write samples in a format; returns the arguments of open_source."""
    if kind == "npy":
        np.save(folder / "X.npy", X)
        np.save(folder / "Y.npy", Y)
        return folder / "X.npy", folder / "Y.npy"
    path = folder / f"all.{'h5' if kind == 'hdf5' else kind}"
    if kind == "npz":
        np.savez(path, X=X, Y=Y)
    elif kind == "hdf5":
        import h5py

        with h5py.File(path, "w") as file:
            file["X"], file["Y"] = X, Y
    elif kind == "zarr":
        import zarr

        group = zarr.open_group(path, mode="w")
        for name, array in (("X", X), ("Y", Y)):
            group.create_array(name, data=array, chunks=(50_000, array.shape[1]))
    else:
        import pyarrow
        import pyarrow.parquet

        columns = {f"x{i}": column for i, column in enumerate(X.T)}
        columns |= {f"y{i}": column for i, column in enumerate(Y.T)}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return (path,)


class Files(Compiled):
    params = (("npy", "npz", "hdf5", "zarr", "parquet"), ("float64", "float32"))
    param_names = ("format", "dtype")
    rows = 200_000

    def setup(self, kind, dtype):
        if kind in NEEDED and importlib.util.find_spec(NEEDED[kind]) is None:
            raise NotImplementedError(f"{NEEDED[kind]} is not installed")
        self.folder = tempfile.TemporaryDirectory()
        X, Y = samples(10, dtype, self.rows)
        self.size = X.nbytes + Y.nbytes
        self.paths = write(kind, Path(self.folder.name), X, Y)

    def teardown(self, kind, dtype):
        if hasattr(self, "folder"):  # not where a library is missing and setup skipped
            self.folder.cleanup()

    def accumulate(self, dtype):
        accumulate(open_source(*self.paths), 10, compute_dtype=dtype)

    def time_file(self, kind, dtype):
        self.accumulate(dtype)

    def track_time_over_stream(self, kind, dtype):
        """Time over that of reading as many bytes from memory."""
        read, n_bytes = stream_probe()
        time, at_rate = shortest([lambda: self.accumulate(dtype), read], 5)
        return (time / self.size) / (at_rate / n_bytes)

    track_time_over_stream.unit = "ratio"
