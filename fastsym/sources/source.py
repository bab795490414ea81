"""What a source is: samples in order and in blocks, and a sample spread evenly over all."""

import os
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 8 << 20
"""Size of a block that is read at once, X and Y together, at most."""

SPREAD_RUN = 16
"""Neighbouring rows read together when a sample is spread over a file."""

_BLOCK_SHARE = 256  # of the memory that this process may use
_SPREAD_RUNS = 2048  # places of the file that a sample is read from, at most

Block = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]
"""Rows (X, Y, weights); weights is None where all are 1."""


class Source(Protocol):
    """What a pass needs of samples; the classes of this package have it."""

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        ...

    @property
    def n_features(self) -> int:
        """Columns of X."""
        ...

    @property
    def n_outputs(self) -> int:
        """Columns of Y."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether the samples are there already, so that nothing is gained by reading ahead."""
        ...

    @property
    def first_row(self) -> int:
        """Number of the first row, for messages, in what the user gave."""
        ...

    def blocks(self, first_row: int = 0) -> Iterator[Block]:
        """Yield the samples from a row on, in order."""
        ...

    def spread(self, n_rows: int) -> Block:
        """Return about so many samples evenly spread over all, or all if there are no more."""
        ...


def is_source(value: Any) -> bool:
    """Whether a value has what `Source` has.

    Parameters
    ----------
    value : object

    Returns
    -------
    answer : bool
    """
    # By the class: asking a BlockSource for n_samples would read it.
    return all(hasattr(type(value), name) for name in ("n_samples", "blocks", "spread"))


def memory_limit() -> int | None:
    """Bytes that this process may use, None if that is not known.

    Returns
    -------
    n_bytes : int or None
        Physical memory, or the limit of the control group (container) if that is less.
    """
    try:
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            text = file.read().strip()
        return min(limit, int(text)) if text.isdigit() else limit
    except OSError:
        return limit


def rows_of_block(row_bytes: int) -> int:
    """Rows to read at once: 8 MiB of them, or a 256th of the memory if that is less.

    Parameters
    ----------
    row_bytes : int
        Of X and Y together.

    Returns
    -------
    n_rows : int
    """
    limit = memory_limit()
    size = BLOCK_BYTES if limit is None else min(BLOCK_BYTES, limit // _BLOCK_SHARE)
    return max(1, size // max(row_bytes, 1))


def spread_runs(n_samples: int, n_rows: int) -> tuple[list[int], int]:
    """Choose short runs of neighbouring rows, evenly spaced over all, of about n_rows together.

    Parameters
    ----------
    n_samples : int
    n_rows : int
        Fewer than n_samples.

    Returns
    -------
    starts : list of int
        First row of each run.
    length : int
        Of a run.
    """
    length = min(max(SPREAD_RUN, -(-n_rows // _SPREAD_RUNS)), n_samples)
    starts = np.linspace(0, n_samples - length, max(1, n_rows // length)).astype(int)
    return starts.tolist(), length


def joined(parts: Sequence[Block]) -> Block:
    """Put blocks one below the other.

    Parameters
    ----------
    parts : sequence of Block
        At least one; all with weights or all without.

    Returns
    -------
    block : Block
    """
    X, Y, weights = zip(*parts, strict=True)
    return (
        np.concatenate(X),
        np.concatenate(Y),
        None if weights[0] is None else np.concatenate(weights),
    )


def check_n_rows(name: str, n_rows: Any) -> int | None:
    """Return a number of rows, None or an int of at least 1.

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    n_rows : int or None

    Returns
    -------
    n_rows : int or None

    Raises
    ------
    ValueError
        If it is something else.
    """
    if n_rows is None:
        return None
    if isinstance(n_rows, Integral) and int(n_rows) >= 1:
        return int(n_rows)
    raise ValueError(f"{name} must be None or an integer of at least 1, got {n_rows!r}.")


def check_block_rows(block_rows: Any) -> int | None:
    """Return block_rows, None or an int of at least 1.

    Parameters
    ----------
    block_rows : int or None

    Returns
    -------
    block_rows : int or None

    Raises
    ------
    ValueError
        If it is something else.
    """
    return check_n_rows("block_rows", block_rows)
