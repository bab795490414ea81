"""From .npy files to moments."""

import tempfile
from pathlib import Path

import numpy as np

from fastsym import accumulate
from fastsym.sources import open_source

from .common import Compiled, samples, shortest, stream_probe


class Files(Compiled):
    params = ("float64", "float32")
    param_names = ("dtype",)
    rows = 200_000

    def setup(self, dtype):
        self.folder = tempfile.TemporaryDirectory()
        self.paths = [Path(self.folder.name, name) for name in ("X.npy", "Y.npy")]
        for path, array in zip(self.paths, samples(10, dtype, self.rows), strict=True):
            np.save(path, array)

    def teardown(self, dtype):
        self.folder.cleanup()

    def accumulate(self, dtype):
        accumulate(open_source(*self.paths), 10, compute_dtype=dtype)

    def time_npy_pair(self, dtype):
        self.accumulate(dtype)

    def track_time_over_stream(self, dtype):
        """Time over that of reading as many bytes from memory."""
        read, n_bytes = stream_probe()
        time, at_rate = shortest([lambda: self.accumulate(dtype), read], 5)
        size = sum(path.stat().st_size for path in self.paths)
        return (time / size) / (at_rate / n_bytes)

    track_time_over_stream.unit = "ratio"
