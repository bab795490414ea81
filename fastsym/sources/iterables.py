"""Samples that come in blocks from anything that can be iterated."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym._validation import as_rows, check_weights
from fastsym.sources.source import SPREAD_RUN, Block, check_n_rows, joined

MAX_EMPTY_BLOCKS = 10_000
"""So many blocks without rows, one after the other, are taken for a source that never ends."""

_SURVEY_BYTES = 64 << 20


class BlockSource:
    """Samples that an iterable yields in blocks.

    Parameters
    ----------
    blocks : iterable
        Of (X, Y) or (X, Y, weights), array_like each. An iterator or a generator can be read once;
        anything else (a list, a PyTorch DataLoader, an object that opens its files anew in
        __iter__) is asked for a new iterator in each pass.
    max_rows : int, default=None
        Reading stops with a ValueError when a pass gives more rows. None: no limit, and blocks that
        never end are read until the process is interrupted.

    Notes
    -----
    The number of samples is not known beforehand: the first pass counts them, and keeps up to
    64 MiB spread evenly over all for the start of a fit. An iterable that gives other samples each
    time (a loader that drops its last batch and shuffles) is fitted to what each pass saw; a pass
    that gives more than twice the rows of the first and one block is an error, and so are
    `MAX_EMPTY_BLOCKS` blocks without rows one after the other.
    """

    in_memory = False
    first_row = 0

    def __init__(self, blocks: Iterable[Any], max_rows: int | None = None) -> None:
        self._blocks = blocks
        self.max_rows = check_n_rows("max_rows", max_rows)
        self._survey: tuple[int, Block] | None = None
        self._largest_block = 0
        self._shape: tuple[int, int] | None = None
        self._weighted: bool | None = None

    @property
    def read_once(self) -> bool:
        """Whether the samples can be read only once."""
        return isinstance(self._blocks, Iterator)

    @property
    def n_samples(self) -> int:
        """Number of rows, counted when it is first asked for."""
        return self._surveyed()[0]

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return self._surveyed()[1][0].shape[1]

    @property
    def n_outputs(self) -> int:
        """Columns of Y."""
        return self._surveyed()[1][1].shape[1]

    def blocks(self, first_row: int = 0) -> Iterator[Block]:
        """Yield the samples from a row on in order; those before it are read and left out."""
        row, n_empty = 0, 0
        for block in self._blocks:
            X, Y, weights = self._checked(block, row)
            row += len(X)
            n_empty = 0 if len(X) else n_empty + 1
            if self._survey is None:
                self._largest_block = max(self._largest_block, len(X))
            self._check_bounds(row, n_empty)
            skip = max(len(X) - (row - first_row), 0)
            if skip < len(X):
                yield X[skip:], Y[skip:], None if weights is None else weights[skip:]
        if row == 0 and self._survey is not None:
            raise ValueError(
                f"these blocks ({type(self._blocks).__name__}) were empty when they were read "
                "again; give an object whose __iter__ begins anew each time, or an iterator, which "
                "is fitted in one pass."
            )

    def _check_bounds(self, n_rows: int, n_empty: int) -> None:
        """Raise ValueError if a pass gave more rows, or more empty blocks, than it should."""
        if n_empty >= MAX_EMPTY_BLOCKS:
            raise ValueError(
                f"these blocks ({type(self._blocks).__name__}) gave {n_empty} blocks without rows "
                f"one after the other at row {n_rows}; leave out empty blocks, and let the "
                "iteration end after the last sample."
            )
        if self.max_rows is not None and n_rows > self.max_rows:
            raise ValueError(
                f"blocks gave more than max_rows={self.max_rows} rows; give a larger max_rows, or "
                "blocks that end before."
            )
        if self._survey is None:
            return
        first, most = self._survey[0], 2 * self._survey[0] + self._largest_block
        # A loader that shuffles and drops its last batch may give other numbers, but not these.
        if n_rows > most:
            raise ValueError(
                f"these blocks ({type(self._blocks).__name__}) gave {first} rows in the first pass "
                f"and more than {most} in this one; give an object whose __iter__ yields the same "
                "samples each time, or an iterator, which is fitted in one pass."
            )

    def _checked(self, block: Any, row: int) -> Block:
        if not isinstance(block, tuple | list) or len(block) not in (2, 3):
            raise ValueError(
                f"blocks must yield (X, Y) or (X, Y, weights), got {type(block).__name__} at row "
                f"{row}."
            )
        X, Y = as_rows("X", block[0]), as_rows("Y", block[1])
        if len(X) != len(Y):
            raise ValueError(
                "X and Y must have the same number of rows, got inconsistent numbers of samples: "
                f"{len(X)} and {len(Y)} in the block at row {row}."
            )
        shape = X.shape[1], Y.shape[1]
        self._shape = self._shape or shape
        if self._weighted not in (None, len(block) == 3):
            raise ValueError(
                f"the block at row {row} has {'' if len(block) == 3 else 'no '}weights, unlike "
                "those before."
            )
        self._weighted = len(block) == 3
        if shape != self._shape:
            raise ValueError(
                f"the block at row {row} has {shape[0]} features and {shape[1]} outputs, those "
                f"before {self._shape[0]} and {self._shape[1]}."
            )
        weights = None if len(block) == 2 else check_weights(block[2], len(X), row)
        return X, Y, weights

    def spread(self, n_rows: int) -> Block:
        """Return about `n_rows` samples spread evenly over all, or all if there are no more."""
        n_samples, kept = self._surveyed()
        if len(kept[0]) < min(n_rows, n_samples):
            # More than the first pass has kept.
            kept = self._pick(n_rows)[1]
        if n_rows >= len(kept[0]):
            return kept
        chosen = np.linspace(0, len(kept[0]) - 1, n_rows).astype(int)
        X, Y, weights = kept
        return X[chosen], Y[chosen], None if weights is None else weights[chosen]

    def _surveyed(self) -> tuple[int, Block]:
        if self._survey is None:
            if self.read_once:
                raise TypeError(
                    "these blocks can be read only once: use TwoLayerRegressor.fit or partial_fit, "
                    "which refine in one pass, or give something that can be iterated again."
                )
            self._survey = self._pick(None)
        return self._survey

    def _pick(self, n_rows: int | None) -> tuple[int, Block]:
        """Read all once; keep runs of rows at even distances, n_rows to 2 n_rows or 64 MiB.

        The distance doubles, and every other run is dropped, whenever the limit is passed.
        """
        kept: list[tuple[NDArray[np.intp], Block]] = []
        distance, count, n_kept = 1, 0, 0

        def thinned(index: NDArray[np.intp], block: Block) -> tuple[NDArray[np.intp], Block]:
            # Runs begin at multiples of their length, whatever the sizes of the blocks.
            chosen = index // SPREAD_RUN % distance == 0
            X, Y, weights = block
            weights = None if weights is None else weights[chosen]
            return index[chosen], (X[chosen], Y[chosen], weights)

        for block in self.blocks():
            X, Y, _ = block
            limit = max(_SURVEY_BYTES // (8 * (X.shape[1] + Y.shape[1])), 2 * SPREAD_RUN)
            limit = limit if n_rows is None else 2 * n_rows + 2 * SPREAD_RUN
            kept.append(thinned(np.arange(count, count + len(X)), block))
            n_kept += len(kept[-1][0])
            count += len(X)
            while n_kept > limit:
                distance *= 2
                kept = [one for one in (thinned(*each) for each in kept) if len(one[0])]
                n_kept = sum(len(index) for index, _ in kept)
        if count == 0:
            raise ValueError("no samples: the blocks are empty.")
        return count, joined([block for _, block in kept])


def from_blocks(blocks: Iterable[Any], max_rows: int | None = None) -> BlockSource:
    """Make a source of anything that yields blocks of samples.

    Parameters
    ----------
    blocks : iterable
        Of (X, Y) or (X, Y, weights): arrays, lists, CPU tensors; any number of rows a block. A
        PyTorch DataLoader works as it is.
    max_rows : int, default=None
        Reading stops with a ValueError when a pass gives more rows. None: no limit, and blocks that
        never end are read until the process is interrupted.

    Returns
    -------
    source : BlockSource

    Raises
    ------
    TypeError
        If it cannot be iterated.
    ValueError
        If max_rows is not None or an integer of at least 1.
    """
    if not isinstance(blocks, Iterable):
        raise TypeError(f"blocks must be iterable, got {type(blocks).__name__}.")
    return BlockSource(blocks, max_rows)
