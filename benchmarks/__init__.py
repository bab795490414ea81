"""asv benchmarks of fastsym. Set here, before numba is imported, what a measurement depends on."""

import os
import tempfile

# Two commits are installed at the same path, and numba's cache does not see every edit: one cache
# for each commit.
if "ASV_COMMIT" in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = os.path.join(
        tempfile.gettempdir(), "fastsym-asv-cache", os.environ["ASV_COMMIT"]
    )
