"""Kill a checkpointed fit again and again, and compare the end with a run that was not killed.

python -m benchmarks.tables.kills [KILLS] [ROWS]

Each round: `fastsym fit --checkpoint` is killed by SIGKILL at a random moment after its first block
and started again; the model file must be that of the uninterrupted run, byte by byte. Odd rounds
write a checkpoint after each block, so that many kills fall into a write.
"""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fastsym import TwoLayerNetwork
from fastsym.archive import write_npy
from fastsym.datasets import make_network, sample_blocks
from fastsym.sums.moments import load_kernels


def start(folder, out, *more):
    command = [sys.executable, "-m", "fastsym", "fit", "X.npy", "Y.npy", "--hidden", "10"]
    return subprocess.Popen([*command, "-o", out, *more], cwd=folder, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    n_samples = int(sys.argv[2]) if len(sys.argv) > 2 else 3_000_000
    rng = np.random.default_rng(0)
    load_kernels()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = make_network(10, 10, 10, random_state=0)
        for part, path in enumerate(("X.npy", "Y.npy")):
            blocks = sample_blocks(network, n_samples, noise=0.1, random_state=0)
            write_npy(folder / path, (n_samples, 10), "float32", (b[part] for b in blocks))
        assert start(folder, "whole.npz").wait() == 0
        whole = (folder / "whole.npz").read_bytes()
        state = folder / "state.npz"
        done = writing = same = early = restarts = 0
        while done < kills:
            every = "0s" if done % 2 else "0.05s"
            options = ("--checkpoint", "state.npz", "--every", every, "--block-rows", "30000")
            run = start(folder, "model.npz", *options)
            while not state.exists() and run.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 1.2))
            run.send_signal(signal.SIGKILL)
            if run.wait() != -signal.SIGKILL:
                early += 1  # it had ended
            else:
                done += 1
                # What a kill within a write leaves.
                writing += bool(list(folder.glob("state.npz.*.part")))
                # Every third run is killed once more on its way.
                if done % 3 == 0:
                    run = start(folder, "model.npz", *options)
                    time.sleep(rng.uniform(1.0, 2.0))
                    run.send_signal(signal.SIGKILL)
                    run.wait()
                    restarts += 1
                assert start(folder, "model.npz", *options).wait() == 0
                same += (folder / "model.npz").read_bytes() == whole
                TwoLayerNetwork.load(folder / "model.npz")
            for path in ("state.npz", "model.npz"):
                (folder / path).unlink(missing_ok=True)
        print(
            f"{done} kills ({writing} of them left a half-written file, {restarts} runs killed "
            f"once more), {done} resumes: {same} times the bytes of the uninterrupted run "
            f"({n_samples:,} rows; {early} runs ended before their kill and do not count)"
        )
