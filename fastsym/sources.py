"""Where samples come from: pairs (X, Y), with weights or without, read in blocks of rows.

A source gives its samples in order and in blocks, as often as it is asked, and a sample of them
spread evenly over all. `from_arrays` makes one of arrays and frames, `open_source` of files and
`from_blocks` of anything that yields blocks.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastsym._validation import as_rows, check_weights
from fastsym.rows import PathLike, RowRange, Rows, ShardedRows, expand, format_of, open_rows

BLOCK_BYTES = 8 << 20
"""Size of a block that is read at once, X and Y together, at most."""

_BLOCK_SHARE = 256  # of the memory that this process may use
_SPREAD_RUN = 16  # neighbouring rows read together when a sample is spread over a file
_SPREAD_RUNS = 2048  # places of the file that a sample is read from, at most
_SURVEY_BYTES = 64 << 20


Block = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]
"""Rows (X, Y, weights); weights is None where all are 1."""


class Source(Protocol):
    """What a pass needs of samples; the classes of this module have it."""

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
    length = min(max(_SPREAD_RUN, -(-n_rows // _SPREAD_RUNS)), n_samples)
    starts = np.linspace(0, n_samples - length, max(1, n_rows // length)).astype(int)
    return starts.tolist(), length


class PairedRows:
    """Samples (X, Y) that can be read by rows, more than once.

    Parameters
    ----------
    X : array of shape (n_samples, n_features) or Rows
    Y : array of shape (n_samples, n_outputs) or Rows
    weights : array of shape (n_samples,) or Rows with one column, default=None
        Of the samples, at least 0; None: all 1.
    block_rows : int, default=None
        Rows read at once. None: about 8 MiB of X and Y, less where memory is short.
    first_row : int, default=0
        Number of the first row, for messages.

    Raises
    ------
    ValueError
        If the numbers of rows differ.
    """

    def __init__(
        self,
        X: Rows,
        Y: Rows,
        weights: Rows | None = None,
        *,
        block_rows: int | None = None,
        first_row: int = 0,
    ) -> None:
        if X.shape[0] != Y.shape[0]:
            raise ValueError(
                "X and Y must have the same number of rows, got inconsistent numbers of samples: "
                f"{X.shape[0]} and {Y.shape[0]}."
            )
        if weights is not None and (
            weights.shape[0] != X.shape[0] or weights.shape[1:] not in ((), (1,))
        ):
            raise ValueError(
                f"the weights must have shape ({X.shape[0]},), one number a sample, got shape "
                f"{weights.shape}."
            )
        self.X, self.Y = X, Y
        self.weights: Any = weights
        self.block_rows, self.first_row = check_block_rows(block_rows), first_row

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.X.shape[0]

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return self.X.shape[1]

    @property
    def n_outputs(self) -> int:
        """Columns of Y."""
        return self.Y.shape[1]

    @property
    def in_memory(self) -> bool:
        """Whether X and Y are arrays in memory; a memory map is not."""
        return all(type(rows) is np.ndarray for rows in (self.X, self.Y))

    def blocks(self, first_row: int = 0) -> Iterator[Block]:
        """Yield the samples from a row on in order as (X, Y, weights), `block_rows` at a time."""
        n_rows = self.block_rows
        if n_rows is None:
            n_rows = rows_of_block(
                sum(rows.shape[1] * rows.dtype.itemsize for rows in (self.X, self.Y))
            )
        for first in range(first_row, self.n_samples, n_rows):
            yield self._rows(first, min(first + n_rows, self.n_samples))

    def _rows(self, first: int, last: int) -> Block:
        weights = None
        if self.weights is not None:
            weights = np.asarray(self.weights[first:last], np.float64).reshape(-1)
        return self.X[first:last], self.Y[first:last], weights

    def spread(self, n_rows: int) -> Block:
        """Return about `n_rows` samples in short runs evenly spaced over all rows.

        All samples are returned when there are no more than `n_rows`.
        """
        if n_rows >= self.n_samples:
            return self._rows(0, self.n_samples)
        starts, run = spread_runs(self.n_samples, n_rows)
        return _joined([self._rows(at, at + run) for at in starts])

    def split(self, n_parts: int) -> list["PairedRows"]:
        """Divide into at most `n_parts` sources of consecutive rows, about equally many each."""
        n_parts = min(n_parts, self.n_samples)
        bounds = np.linspace(0, self.n_samples, n_parts + 1).astype(int).tolist()
        return [self._part(a, b) for a, b in itertools.pairwise(bounds)]

    def _part(self, first: int, last: int) -> "PairedRows":
        def part(rows: Rows) -> Rows:
            if isinstance(rows, np.ndarray):
                return rows[first:last]
            return RowRange(rows, first, last)

        return PairedRows(
            part(self.X),
            part(self.Y),
            None if self.weights is None else part(self.weights),
            block_rows=self.block_rows,
            first_row=self.first_row + first,
        )


def _joined(parts: Sequence[Block]) -> Block:
    X, Y, weights = zip(*parts, strict=True)
    return (
        np.concatenate(X),
        np.concatenate(Y),
        None if weights[0] is None else np.concatenate(weights),
    )


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
    if block_rows is None:
        return None
    if isinstance(block_rows, Integral) and int(block_rows) >= 1:
        return int(block_rows)
    raise ValueError(f"block_rows must be None or an integer of at least 1, got {block_rows!r}.")


class BlockSource:
    """Samples that an iterable yields in blocks.

    Parameters
    ----------
    blocks : iterable
        Of (X, Y) or (X, Y, weights), array_like each. An iterator or a generator can be read once;
        anything else (a list, a PyTorch DataLoader, an object that opens its files anew in
        __iter__) is asked for a new iterator in each pass.

    Notes
    -----
    The number of samples is not known beforehand: the first pass counts them, and keeps up to
    64 MiB spread evenly over all for the start of a fit. An iterable that gives other samples each
    time (a loader that drops its last batch and shuffles) is fitted to what each pass saw.
    """

    in_memory = False
    first_row = 0

    def __init__(self, blocks: Iterable[Any]) -> None:
        self._blocks = blocks
        self._survey: tuple[int, Block] | None = None
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
        row = 0
        for block in self._blocks:
            X, Y, weights = self._checked(block, row)
            row += len(X)
            skip = max(len(X) - (row - first_row), 0)
            if skip < len(X):
                yield X[skip:], Y[skip:], None if weights is None else weights[skip:]
        if row == 0 and self._survey is not None:
            raise ValueError(
                f"these blocks ({type(self._blocks).__name__}) were empty when they were read "
                "again; give an object whose __iter__ begins anew each time, or an iterator, which "
                "is fitted in one pass."
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
            chosen = index // _SPREAD_RUN % distance == 0
            X, Y, weights = block
            weights = None if weights is None else weights[chosen]
            return index[chosen], (X[chosen], Y[chosen], weights)

        for block in self.blocks():
            X, Y, _ = block
            limit = max(_SURVEY_BYTES // (8 * (X.shape[1] + Y.shape[1])), 2 * _SPREAD_RUN)
            limit = limit if n_rows is None else 2 * n_rows + 2 * _SPREAD_RUN
            kept.append(thinned(np.arange(count, count + len(X)), block))
            n_kept += len(kept[-1][0])
            count += len(X)
            while n_kept > limit:
                distance *= 2
                kept = [one for one in (thinned(*each) for each in kept) if len(one[0])]
                n_kept = sum(len(index) for index, _ in kept)
        if count == 0:
            raise ValueError("no samples: the blocks are empty.")
        return count, _joined([block for _, block in kept])


def from_blocks(blocks: Iterable[Any]) -> BlockSource:
    """Make a source of anything that yields blocks of samples.

    Parameters
    ----------
    blocks : iterable
        Of (X, Y) or (X, Y, weights): arrays, lists, CPU tensors; any number of rows a block. A
        PyTorch DataLoader works as it is.

    Returns
    -------
    source : BlockSource

    Raises
    ------
    TypeError
        If it cannot be iterated.
    """
    if not isinstance(blocks, Iterable):
        raise TypeError(f"blocks must be iterable, got {type(blocks).__name__}.")
    return BlockSource(blocks)


def open_source(
    path: PathLike | Sequence[PathLike],
    y_path: PathLike | Sequence[PathLike] | None = None,
    *,
    x: str | Sequence[str] | None = None,
    y: str | Sequence[str] | None = None,
    weight: str | None = None,
    block_rows: int | None = None,
) -> PairedRows:
    """Open files of samples as a source, without reading them.

    Parameters
    ----------
    path : path or sequence of paths
        A file of X and Y (.npz, HDF5, Zarr, Parquet), or of X alone where y_path is given. Several
        files one after the other: a list, in its order, or a folder or glob pattern, whose files
        are put in the order of the numbers in their names.
    y_path : path or sequence of paths, default=None
        Of Y: as many files as of X, each with as many rows as the one of X it belongs to.
    x, y : str or sequence of str, default=None
        Names of the arrays ("group/X" in HDF5); for Parquet names or patterns of columns. None:
        "X" and "Y"; for Parquet the columns whose names begin with x or X, and with y or Y.
    weight : str, default=None
        Array or column of the sample weights in the files of X, or an .npy file. None: all 1.
    block_rows : int, default=None
        Rows read at once. None: about 8 MiB of X and Y, less where memory is short.

    Returns
    -------
    source : PairedRows

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ImportError
        If the library of the format is not installed; the message names the extra.
    ValueError
        If a file is not readable or has no such array, or numbers of rows or columns differ.

    Examples
    --------
    >>> import numpy, tempfile, fastsym
    >>> X, Y, network = fastsym.make_two_layer(20_000, 4, 3, 3, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     numpy.savez(f"{folder}/samples.npz", X=X, Y=Y)
    ...     source = fastsym.sources.open_source(f"{folder}/samples.npz")
    ...     model = fastsym.TwoLayerRegressor(n_hidden=3).fit(source)
    >>> fastsym.parameter_error(network, model.network_).hidden_error < 1e-20
    True
    """
    x_files = expand(path)
    y_files = x_files if y_path is None else expand(y_path)
    if len(x_files) != len(y_files):
        raise ValueError(
            f"path stands for {len(x_files)} files and y_path for {len(y_files)}; each file of X "
            "needs one of Y."
        )
    x_parts = _open_all(x_files, x, "X", alone=y_path is not None)
    y_parts = _open_all(y_files, y, "Y", alone=y_path is not None)
    for one, other, x_file, y_file in zip(x_parts, y_parts, x_files, y_files, strict=True):
        if one.shape[0] != other.shape[0]:
            raise ValueError(
                "X and Y must have the same number of rows, got inconsistent numbers of samples: "
                f"{one.shape[0]} in {x_file} and {other.shape[0]} in {y_file}."
            )
    weights: Rows | None = None
    if weight is not None:
        if format_of(x_files[0]) == "npy":
            weight_files = expand(weight)
            weights = _stacked([open_rows(file) for file in weight_files], weight_files)
        else:
            weights = _stacked([open_rows(file, weight) for file in x_files], x_files)
    return PairedRows(
        _stacked(x_parts, x_files), _stacked(y_parts, y_files), weights, block_rows=block_rows
    )


def open_matrix(
    path: PathLike | Sequence[PathLike], name: str | Sequence[str] | None = None
) -> PairedRows:
    """Open files of inputs alone, for prediction.

    Parameters
    ----------
    path : path or sequence of paths
        As for `open_source`.
    name : str or sequence of str, default=None
        Array or columns in it; None: "X", for Parquet the columns that begin with x or X.

    Returns
    -------
    source : PairedRows
        Whose Y has no columns.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As by `open_source`.
    """
    files = expand(path)
    X = _stacked(_open_all(files, name, "X", alone=True), files)
    return PairedRows(X, RowRange(np.empty((X.shape[0], 0)), 0, X.shape[0]))


def _open_all(
    paths: list[str], name: str | Sequence[str] | None, default: str, alone: bool
) -> list[Rows]:
    """Open files alike: columns of Parquet files by the names that the first one gives."""
    first = _open(paths[0], name, default, alone)
    name = getattr(first, "columns", name)
    return [first] + [_open(path, name, default, alone) for path in paths[1:]]


def _open(path: str, name: str | Sequence[str] | None, default: str, alone: bool) -> Rows:
    kind = format_of(path)
    if kind == "npy" and not alone:
        raise ValueError(f"{path} is one array: give the file of Y too.")
    if name is None:
        name = f"[{default}{default.lower()}]*" if kind == "parquet" else default
        # A store that is one array has no name to give.
        if kind == "zarr" and alone and not os.path.exists(os.path.join(path, default)):
            name = None
    return open_rows(path, name)


def _stacked(parts: list[Rows], names: list[str]) -> Rows:
    return parts[0] if len(parts) == 1 else ShardedRows(parts, names)


def from_arrays(X: Any, Y: Any, sample_weight: Any = None) -> PairedRows:
    """Make a source of arrays, without copying them unless a weight is 0.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features)
        Also a pandas or polars frame, or a NumPy memory map.
    Y : array_like of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight : array_like of shape (n_samples,), default=None
        At least 0; a sample of weight 0 is as absent.

    Returns
    -------
    source : PairedRows

    Raises
    ------
    ValueError
        If either is not a real numeric array, the numbers of rows differ, or the weights are not
        one finite number of at least 0 a sample, or all 0.
    """
    X, Y = as_rows("X", X), as_rows("Y", Y)
    if sample_weight is None:
        return PairedRows(X, Y)
    return PairedRows(*weighted_rows(X, Y, check_weights(sample_weight, len(X))))


def weighted_rows(
    X: NDArray[Any], Y: NDArray[Any], weights: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Leave out the samples of weight 0.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    weights : ndarray of shape (n_samples,)
        At least 0.

    Returns
    -------
    X, Y, weights : ndarray
        The samples of positive weight.

    Raises
    ------
    ValueError
        If all weights are 0.
    """
    used = weights > 0
    if used.all():
        return X, Y, weights
    if not used.any():
        raise ValueError(
            "sample_weight is zero for every sample; at least one weight must not be zero."
        )
    if len(X) != len(Y):
        return X, Y, weights  # the caller says what is wrong
    return X[used], Y[used], weights[used]
