"""A fit on two Dask workers beside one process: prints times and differences.

pip install ".[dask]" && python -m benchmarks.tables.cluster [ROWS]

Two processes of one thread each, against one process of one thread and of two. The last fit has a
worker killed by SIGKILL in the middle of its first pass.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster

from fastsym import TwoLayerRegressor
from fastsym.archive import write_npy
from fastsym.datasets import make_network, sample_blocks
from fastsym.sources import open_source
from fastsym.sums.moments import load_kernels


def timed(source, **how):
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        model = TwoLayerRegressor(10, refine=how.pop("refine", True)).fit(source, **how)
        best = min(best, time.perf_counter() - start)
        how["refine"] = model.refine
    return model, best


def difference(model, reference):
    return max(
        np.abs(mine - theirs).max() / np.abs(theirs).max()
        for mine, theirs in (
            (model.hidden_weights_, reference.hidden_weights_),
            (model.output_weights_, reference.output_weights_),
        )
    )


def main(folder, n_samples):
    network = make_network(10, 10, 10, random_state=0)
    for part, path in enumerate(("X.npy", "Y.npy")):
        blocks = sample_blocks(network, n_samples, noise=0.1, random_state=0)
        write_npy(folder / path, (n_samples, 10), "float32", (block[part] for block in blocks))
    source = open_source(folder / "X.npy", folder / "Y.npy")
    load_kernels()
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        for refine in (True, False):
            what = "refined" if refine else "moments alone"
            here, seconds = timed(source, refine=refine)
            there, cluster_seconds = timed(source, refine=refine, client=client)
            print(
                f"{n_samples:,} rows, {what}: one process with two threads {seconds:.2f} s, two "
                f"workers {cluster_seconds:.2f} s ({cluster_seconds / seconds:.2f} times); "
                f"weights differ by {difference(there, here):.1g} of the largest",
                flush=True,
            )
            pid = next(iter(client.run(os.getpid).values()))
            killer = threading.Timer(0.3 * cluster_seconds, os.kill, (pid, signal.SIGKILL))
            killer.start()
            start = time.perf_counter()
            model = TwoLayerRegressor(10, refine=refine).fit(source, client=client)
            seconds = time.perf_counter() - start
            killer.join()
            pids = client.run(os.getpid).values()
            print(
                f"  with a worker killed after {0.3 * cluster_seconds:.2f} s: {seconds:.2f} s, "
                f"differs by {difference(model, here):.1g} from one process and by "
                f"{difference(model, there):.1g} from two workers"
                f"{'' if pid not in pids else ' (it was not killed)'}",
                flush=True,
            )
            client.wait_for_workers(2)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name), int(sys.argv[1]) if len(sys.argv) > 1 else 20_000_000)
