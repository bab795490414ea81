"""Rows a second from a pair of float32 .npy files to weights: prints a line.

python -m benchmarks.files [ROWS]
"""

import sys
import tempfile
import time
from pathlib import Path

from fastsym import accumulate, spectral
from fastsym._files import write_npy
from fastsym.datasets import make_network, sample_blocks
from fastsym.moments import load_kernels
from fastsym.sources import open_source

if __name__ == "__main__":
    n_samples = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    network = make_network(10, 10, 10, random_state=0)
    load_kernels("float32")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("X.npy", "Y.npy")]
        for part, path in enumerate(paths):
            blocks = sample_blocks(network, n_samples, noise=0.1, random_state=0)
            write_npy(path, (n_samples, 10), "float32", (block[part] for block in blocks))
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            moments = accumulate(open_source(*paths), 10, compute_dtype="float32")
            spectral.solve(moments.moments())
            best = min(best, time.perf_counter() - start)
    print(f"{n_samples:,} rows from float32 files: {n_samples / best:,.0f} rows/s (best of 5)")
