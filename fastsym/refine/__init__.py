"""Refinement to maximum likelihood: from starts to the least-squares optimum of all samples.

`refine` does it for samples that can be read again, `fastsym.refine.stream` in one pass. A start is
a value, a `Start`, and each kind of start a generator of them (`fastsym.refine.starts`).
"""

from fastsym.engine.gather import (
    SAMPLE_BYTES,
    SAMPLE_ROWS,
    check_rereadable,
    sample_rows,
    spread_sample,
)
from fastsym.refine.counting import count_units
from fastsym.refine.refinement import PASS_TOLERANCE, refine
from fastsym.refine.result import Refinement
from fastsym.refine.starts import Start, moment_start
from fastsym.refine.trials import Count

__all__ = [
    "PASS_TOLERANCE",
    "SAMPLE_BYTES",
    "SAMPLE_ROWS",
    "Count",
    "Refinement",
    "Start",
    "check_rereadable",
    "count_units",
    "moment_start",
    "refine",
    "sample_rows",
    "spread_sample",
]
