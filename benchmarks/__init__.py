"""asv benchmarks of fastsym. Set here, before numba is imported, what a measurement depends on.

asv runs the newest benchmarks on old commits too, and imports every module of this package and of
its subpackages there. `tables/` holds scripts for the newest code only: it has no `__init__.py`, so
that asv leaves it alone.
"""

import os
import tempfile

# Two commits are installed at the same path, and numba's cache does not see every edit: one cache
# for each commit.
if "ASV_COMMIT" in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = os.path.join(
        tempfile.gettempdir(), "fastsym-asv-cache", os.environ["ASV_COMMIT"]
    )
