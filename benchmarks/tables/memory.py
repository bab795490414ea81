"""Peak resident memory of ``fastsym fit`` by number of rows: prints a table.

python -m benchmarks.tables.memory [ROWS ...]
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fastsym.archive import write_npy
from fastsym.datasets import make_network, sample_blocks
from fastsym.sums.moments import load_kernels


def peak(n_samples, folder):
    """Peak resident memory in MB of one fit in a process of its own."""
    network = make_network(10, 10, 10, random_state=0)
    for part, name in enumerate(("X.npy", "Y.npy")):
        blocks = sample_blocks(network, n_samples, noise=0.1, random_state=0)
        write_npy(folder / name, (n_samples, 10), "float64", (b[part] for b in blocks))
    command = [sys.executable, "-m", "fastsym", "fit", "X.npy", "Y.npy", "--hidden", "10"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    load_kernels()
    for rows in [int(a) for a in sys.argv[1:]] or [100_000, 100_000, 4_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{rows:>10} rows: peak {peak(rows, Path(folder)):.0f} MB")
