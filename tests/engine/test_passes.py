"""Passes of a source through an accumulator."""

import threading

import numpy as np
import pytest

from fastsym import MomentAccumulator, accumulate, make_two_layer
from fastsym.sources import PairedRows, from_arrays
from fastsym.sums.frame import estimate_frame
from fastsym.sums.staging import SUPERBLOCK_ROWS

from ..bits import assert_same_bits


def test_a_source_gives_the_same_for_any_blocks_and_reports_progress():
    X, Y, _ = make_two_layer(50_000, 4, 3, 4, noise=0.1, random_state=0)
    source = from_arrays(X, Y)
    seen = []
    a = accumulate(source, 3, callback=lambda event: seen.append(event.n_rows))
    assert seen == sorted(seen)
    assert seen[-1] == 50_000
    assert a.frame.n_pilot == 4 * SUPERBLOCK_ROWS
    b = MomentAccumulator(3, frame=a.frame)
    source.block_rows = 777
    for block in source.blocks():
        b.update(*block)
    assert_same_bits(a, b)


def test_reading_runs_in_another_thread_and_one_block_ahead():
    class Watched:
        """Rows that record who read them, and how many blocks were read before each update."""

        def __init__(self, rows):
            self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype
            self.threads, self.reads = set(), 0

        def __getitem__(self, rows):
            self.threads.add(threading.current_thread().name.split("_")[0])
            self.reads += 1
            return self.rows[rows]

    X, Y, _ = make_two_layer(400_000, 6, 3, 4, random_state=0)
    watched = Watched(X)
    source = PairedRows(watched, Y)
    frame = estimate_frame(X[:9000], Y[:9000], 3)
    ahead, blocks = [], []

    def look(event):
        blocks.append(event.n_rows)
        ahead.append(watched.reads - len(blocks))

    result = accumulate(source, frame=frame, callback=look)
    assert watched.threads == {"fastsym-reader"}
    assert len(blocks) == watched.reads > 2
    assert max(ahead) <= 1
    assert_same_bits(result, MomentAccumulator(frame=frame).update(X, Y))


@pytest.mark.parametrize("row", [3, 49_999])
def test_bad_rows_of_a_source_are_numbered_within_it(row):
    X, Y, _ = make_two_layer(50_000, 3, 2, 2, random_state=0)
    Y[row] = np.nan
    with pytest.raises(ValueError, match=rf"Y contains NaN \(first in row {row}\)"):
        accumulate(from_arrays(X, Y), 2)
