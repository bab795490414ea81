"""Where samples come from: pairs (X, Y), with weights or without, read in blocks of rows.

A source gives its samples in order and in blocks, as often as it is asked, and a sample of them
spread evenly over all. `from_arrays` makes one of arrays and frames, `open_source` of files,
`from_blocks` of anything that yields blocks and `fastsym.sources.dask.from_dask` of Dask arrays.
"""

from fastsym._validation import weighted_rows
from fastsym.sources.arrays import PairedRows, from_arrays
from fastsym.sources.files import expand, open_matrix, open_source
from fastsym.sources.formats import format_of, open_rows
from fastsym.sources.formats.rows import PathLike, RowRange, Rows, ShardedRows
from fastsym.sources.iterables import MAX_EMPTY_BLOCKS, BlockSource, from_blocks
from fastsym.sources.source import (
    BLOCK_BYTES,
    Block,
    Source,
    check_block_rows,
    is_source,
    memory_limit,
    rows_of_block,
    spread_runs,
)

__all__ = [
    "BLOCK_BYTES",
    "MAX_EMPTY_BLOCKS",
    "Block",
    "BlockSource",
    "PairedRows",
    "PathLike",
    "RowRange",
    "Rows",
    "ShardedRows",
    "Source",
    "check_block_rows",
    "expand",
    "format_of",
    "from_arrays",
    "from_blocks",
    "is_source",
    "memory_limit",
    "open_matrix",
    "open_rows",
    "open_source",
    "rows_of_block",
    "spread_runs",
    "weighted_rows",
]
