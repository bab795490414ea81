"""The same samples in all kinds of files."""

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

N, D, M = 30_000, 5, 4


def table(X, Y, **extra):
    columns = {f"x{i}": X[:, i] for i in range(X.shape[1])}
    columns |= {f"y{i}": Y[:, i] for i in range(Y.shape[1])}
    return pyarrow.table(columns | extra)


def write_hdf5(path, X, Y, **how):
    with h5py.File(path, "w") as file:
        file.create_dataset("run/X", data=X, **how)
        file.create_dataset("run/Y", data=Y, **how)


def write_zarr(path, X, Y, chunk):
    group = zarr.open_group(path, mode="w")
    for name, array in (("X", X), ("Y", Y)):
        stored = group.create_array(name, shape=array.shape, chunks=(chunk, 2), dtype=array.dtype)
        stored[:] = array


def write_all(folder, X, Y):
    """All kinds of files with the same samples: {kind: arguments of open_source}."""
    np.save(folder / "X.npy", X)
    np.save(folder / "Y.npy", Y)
    np.save(folder / "XF.npy", np.asfortranarray(X))
    np.savez(folder / "s.npz", X=X, Y=Y)
    np.savez_compressed(folder / "c.npz", X=X, Y=Y)
    write_hdf5(folder / "plain.h5", X, Y)
    write_hdf5(folder / "chunks.hdf5", X, Y, chunks=(700, 2), compression="gzip")
    write_zarr(folder / "a.zarr", X, Y, 7001)
    for name, array in (("X", X), ("Y", Y)):
        zarr.create_array(folder / f"{name}.zarr", data=array, chunks=(4000, 3))
    parquet.write_table(table(X, Y), folder / "a.parquet", row_group_size=4999)
    parquet.write_table(table(X, Y), folder / "one.parquet")
    for i, part in enumerate(np.array_split(np.arange(N), 11)):
        for kind in ("xs", "ys", "npz", "pq"):
            (folder / kind).mkdir(exist_ok=True)
        np.save(folder / "xs" / f"part{i}.npy", X[part])
        np.save(folder / "ys" / f"part{i}.npy", Y[part])
        np.savez(folder / "npz" / f"{i}.npz", X=X[part], Y=Y[part])
        parquet.write_table(table(X[part], Y[part]), folder / "pq" / f"{i}.parquet")
    hdf5_names = {"x": "run/X", "y": "run/Y"}
    return {
        "npy": ((folder / "X.npy", folder / "Y.npy"), {}),
        "npy, Fortran order": ((folder / "XF.npy", folder / "Y.npy"), {}),
        "npz": ((folder / "s.npz",), {}),
        "compressed npz": ((folder / "c.npz",), {}),
        "hdf5": ((folder / "plain.h5",), hdf5_names),
        "hdf5 in chunks": ((folder / "chunks.hdf5",), hdf5_names),
        "zarr": ((folder / "a.zarr",), {}),
        "zarr arrays": ((folder / "X.zarr", folder / "Y.zarr"), {}),
        "parquet": ((folder / "a.parquet",), {}),
        "parquet, one group": ((folder / "one.parquet",), {"x": ["x?"], "y": ["y0", "y[123]"]}),
        "folders": ((folder / "xs", folder / "ys"), {}),
        "pattern": ((str(folder / "xs" / "*.npy"), str(folder / "ys" / "*.npy")), {}),
        "folder of npz": ((folder / "npz",), {}),
        "folder of parquet": ((folder / "pq",), {}),
        "list": (([folder / "npz" / f"{i}.npz" for i in range(11)],), {}),
    }


KINDS = [
    "npy", "npy, Fortran order", "npz", "compressed npz", "hdf5", "hdf5 in chunks", "zarr",
    "zarr arrays", "parquet", "parquet, one group", "folders", "pattern", "folder of npz",
    "folder of parquet", "list",
]  # fmt: skip
