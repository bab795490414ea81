"""Passes of sources through reducers: here or on a cluster, with progress and checkpoints.

`passes` reads a source into a reducer, `cluster` does so on the workers of a Dask cluster,
`checkpoint` keeps the sums of a fit in a file, and `gather` has what a fit gathers from a source:
pilot, sample, moments and residuals.
"""

from fastsym.engine.checkpoint import Checkpoint
from fastsym.engine.gather import (
    SPREAD_PILOT,
    accumulate,
    accumulate_direct,
    accumulate_linear,
    accumulate_residuals,
    check_rereadable,
    check_source,
    pilot_frame,
    sample_of,
    sample_rows,
    spread_sample,
)
from fastsym.engine.passes import Passes, as_passes
from fastsym.engine.progress import Callback, Event, progress_bar

__all__ = [
    "SPREAD_PILOT",
    "Callback",
    "Checkpoint",
    "Event",
    "Passes",
    "accumulate",
    "accumulate_direct",
    "accumulate_linear",
    "accumulate_residuals",
    "as_passes",
    "check_rereadable",
    "check_source",
    "pilot_frame",
    "progress_bar",
    "sample_of",
    "sample_rows",
    "spread_sample",
]
