"""Fits from files of every format: the same weights, rows a second, peak memory. Prints a table.

pip install ".[io]" && python -m benchmarks.tables.files [ROWS]

d = k = m = 10, float32, noise 0.1. Each fit runs in a process of its own; its time is that from the
opened file to the weights, without imports and with compiled kernels, and its peak memory that of
the whole process.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fastsym.archive import write_npy
from fastsym.datasets import make_network, sample_blocks
from fastsym.sources import open_source

FORMATS = {
    "npy": ["X.npy", "Y.npy"],
    "npz": ["all.npz"],
    "hdf5": ["all.h5"],
    "zarr": ["all.zarr"],
    "parquet": ["all.parquet"],
}
CHUNK = 100_000

FIT = """
import json, sys, time
import fastsym
from fastsym.sums.moments import load_kernels
paths, refine, out = json.loads(sys.argv[1]), sys.argv[2] == "True", sys.argv[3]
load_kernels()
X, Y, network = fastsym.make_two_layer(40_000, 10, 10, 10, noise=0.1, random_state=0)
fastsym.TwoLayerRegressor(10, refine=refine).fit(X, Y)
del X, Y
source = fastsym.sources.open_source(*paths)
passes = []
start = time.perf_counter()
model = fastsym.TwoLayerRegressor(10, refine=refine).fit(
    source, callback=lambda event: passes.append((event.n_pass, event.rows_per_second)))
seconds = time.perf_counter() - start
model.network_.save(out)
# Not ru_maxrss, which begins at the size of the parent.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({
    "seconds": seconds,
    "rates": list(dict(passes).values()),
    "peak": int(peak.split()[1]) / 1024,
}))
"""


def write(folder, n_samples):
    """Write the same samples in all formats."""
    import h5py
    import pyarrow
    import pyarrow.parquet
    import zarr

    network = make_network(10, 10, 10, random_state=0)
    for part, name in enumerate(("X.npy", "Y.npy")):
        blocks = sample_blocks(network, n_samples, noise=0.1, random_state=0)
        write_npy(folder / name, (n_samples, 10), "float32", (block[part] for block in blocks))
    names = [f"{letter}{i}" for letter in "xy" for i in range(10)]
    schema = pyarrow.schema([(name, pyarrow.float32()) for name in names])
    source = open_source(folder / "X.npy", folder / "Y.npy", block_rows=CHUNK)
    group = zarr.open_group(folder / "all.zarr", mode="w")
    stores = [
        group.create_array(name, shape=(n_samples, 10), chunks=(CHUNK, 10), dtype="float32")
        for name in "XY"
    ]
    with (
        h5py.File(folder / "all.h5", "w") as file,
        pyarrow.parquet.ParquetWriter(folder / "all.parquet", schema) as writer,
    ):
        stores += [file.create_dataset(name, (n_samples, 10), "float32") for name in "XY"]
        row = 0
        for X, Y, _ in source.blocks():
            for store, block in zip(stores, (X, Y, X, Y), strict=True):
                store[row : row + len(X)] = block
            columns = np.concatenate([X, Y], axis=1).T
            writer.write_table(pyarrow.table(list(columns), schema=schema))
            row += len(X)
    np.savez(folder / "all.npz", **{n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in "XY"})


def fit(folder, paths, refine):
    """Fit in a process of its own; returns its figures and the network's file."""
    out = folder / "model.npz"
    done = subprocess.run(
        [sys.executable, "-c", FIT, json.dumps([str(folder / p) for p in paths]), str(refine), out],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    from fastsym import TwoLayerNetwork

    return json.loads(done.stdout), TwoLayerNetwork.load(out)


if __name__ == "__main__":
    n_samples = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, n_samples)
        for refine in (False, True):
            reference = None
            print(f"{n_samples:,} rows, float32, {'refined' if refine else 'moments alone'}")
            print("| format | s | rows/s in all | rows/s of each pass | peak MB | weights differ |")
            print("|---|---|---|---|---|---|")
            for kind, paths in FORMATS.items():
                figures, network = fit(folder, paths, refine)
                reference = reference or network
                difference = max(
                    np.abs(network.hidden_weights - reference.hidden_weights).max(),
                    np.abs(network.output_weights - reference.output_weights).max(),
                )
                rates = ", ".join(f"{rate / 1e6:.1f} M" for rate in figures["rates"])
                print(
                    f"| {kind} | {figures['seconds']:.2f} | "
                    f"{n_samples / figures['seconds'] / 1e6:.1f} M | {rates} | "
                    f"{figures['peak']:.0f} | {difference:.1g} |",
                    flush=True,
                )
