"""Samples in Dask arrays; the only file that imports Dask, when that is asked for."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastsym.sources.source import Block, spread_runs


def dask_module(name: str) -> Any:
    """Import a module of Dask.

    Parameters
    ----------
    name : str
        "dask", "dask.array" or "distributed".

    Returns
    -------
    module : module

    Raises
    ------
    ImportError
        If Dask is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'Dask arrays and client= need Dask: pip install "fastsym[dask]" ({error}).'
        ) from None


def is_dask(value: Any) -> bool:
    """Whether a value is of Dask, told without importing it.

    Parameters
    ----------
    value : object

    Returns
    -------
    answer : bool
    """
    return type(value).__module__.partition(".")[0] in ("dask", "dask_expr")


class DaskSource:
    """Samples in Dask arrays.

    A block is the rows of a chunk, computed when its turn comes and not before: by the cluster's
    scheduler where there is one, else by Dask's default. Nothing else is computed, and no more than
    two chunks are held here at once.

    Parameters
    ----------
    X : dask.array.Array of shape (n_samples, n_features)
    Y : dask.array.Array of shape (n_samples, n_outputs)
        Row chunks as those of X.
    weights : dask.array.Array of shape (n_samples,), default=None
        Chunks as those of X.
    first_row : int, default=0
        Number of the first row, for messages.
    """

    in_memory = False

    def __init__(self, X: Any, Y: Any, weights: Any = None, first_row: int = 0) -> None:
        self.X, self.Y, self.weights, self.first_row = X, Y, weights, first_row
        self._client: Any = None

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return int(self.X.shape[1])

    @property
    def n_outputs(self) -> int:
        """Columns of Y."""
        return int(self.Y.shape[1])

    def _compute(self, *arrays: Any) -> Any:
        if self._client is not None:
            return self._client.gather(self._client.compute(list(arrays)))
        return dask_module("dask").compute(*arrays)

    def _rows(self, rows: Any) -> Block:
        wanted = [self.X[rows], self.Y[rows]]
        if self.weights is not None:
            wanted.append(self.weights[rows])
        X, Y, *weights = self._compute(*wanted)
        return X, Y, np.asarray(weights[0], np.float64) if weights else None

    def blocks(self, first_row: int = 0) -> Iterator[Block]:
        """Yield the samples from a row on, a chunk at a time."""
        end = 0
        for size in self.X.chunks[0]:
            start, end = end, end + size
            if end > first_row:
                yield self._rows(slice(max(start, first_row), end))

    def spread(self, n_rows: int) -> Block:
        """Return about `n_rows` samples evenly spread over all; Dask takes them from each chunk."""
        if n_rows >= self.n_samples:
            return self._rows(slice(None))
        starts, length = spread_runs(self.n_samples, n_rows)
        return self._rows(np.add.outer(starts, np.arange(length)).ravel())

    def split(self, n_parts: int) -> list["DaskSource"]:
        """Divide between chunks into at most `n_parts` sources, about equally many rows each."""
        ends = np.cumsum(self.X.chunks[0])
        wanted = np.linspace(0, self.n_samples, n_parts + 1)[1:]
        cuts = sorted({int(ends[np.abs(ends - each).argmin()]) for each in wanted})
        return [
            DaskSource(
                self.X[a:b],
                self.Y[a:b],
                None if self.weights is None else self.weights[a:b],
                self.first_row + a,
            )
            for a, b in zip([0, *cuts], cuts, strict=False)
        ]

    def bind(self, client: Any) -> None:
        """Compute by a client from now on."""
        self._client = client

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """Connect to a Dask scheduler.

    Parameters
    ----------
    address : str
        "tcp://host:8786".

    Yields
    ------
    client : dask.distributed.Client

    Raises
    ------
    ImportError
        If Dask is not installed.
    OSError
        If the scheduler does not answer.
    """
    with dask_module("distributed").Client(address) as client:
        yield client


def from_dask(X: Any, Y: Any, sample_weight: Any = None) -> DaskSource:
    """Make a source of Dask arrays, without computing them.

    Parameters
    ----------
    X : dask.array.Array of shape (n_samples, n_features)
    Y : dask.array.Array of shape (n_samples,) or (n_samples, n_outputs)
        Row chunks as those of X; an array in memory is cut alike.
    sample_weight : dask.array.Array of shape (n_samples,), default=None
        Chunks as those of X; an array in memory is cut alike. None: all 1.

    Returns
    -------
    source : DaskSource

    Raises
    ------
    ImportError
        If Dask is not installed.
    ValueError
        If the sizes of chunks are not known, shapes do not match, or row chunks differ.
    """
    array = dask_module("dask.array")
    if not isinstance(X, array.Array):
        raise ValueError(
            f"X must be a Dask array, got {type(X).__module__}.{type(X).__name__}; of a Dask frame "
            "give .to_dask_array(lengths=True)."
        )
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(f"X must have shape (n_samples, n_features), got shape {X.shape}.")
    if Y is None:
        raise ValueError("y is None: the outputs are needed, as a Dask array chunked like X.")
    if np.isnan(X.shape[0]):
        raise ValueError("the chunks of X have unknown sizes; call X.compute_chunk_sizes() first.")

    def aligned(name: str, given: Any) -> Any:
        if not isinstance(given, array.Array):
            given = np.asarray(given)
            if given.shape[:1] == X.shape[:1]:
                given = array.from_array(given, chunks=(X.chunks[0], *given.shape[1:]))
        if given.shape[:1] != X.shape[:1]:
            raise ValueError(
                "X and Y must have the same number of rows, got inconsistent numbers of samples: "
                f"{X.shape[0]} and {given.shape[0] if given.ndim else 'a number'} in {name}."
            )
        if given.chunks[0] != X.chunks[0]:
            raise ValueError(
                f"{name} must have the row chunks of X, got {_text(given.chunks[0])} and "
                f"{_text(X.chunks[0])}; rechunk one of them."
            )
        return given

    Y = aligned("Y", Y)
    if Y.ndim == 1:
        Y = Y[:, None]
    if Y.ndim != 2 or Y.shape[1] == 0:
        raise ValueError(f"Y must have shape (n_samples, n_outputs), got shape {Y.shape}.")
    for name, one in (("X", X), ("Y", Y)):
        if one.dtype.kind not in "fiub":
            raise ValueError(f"{name} must hold real numbers, got dtype {one.dtype}.")
    if sample_weight is not None:
        sample_weight = aligned("sample_weight", sample_weight)
        if sample_weight.ndim != 1:
            raise ValueError(
                f"sample_weight must have one dimension, got shape {sample_weight.shape}."
            )
    return DaskSource(X, Y, sample_weight)


def _text(chunks: Sequence[int]) -> str:
    return str(chunks) if len(chunks) < 6 else f"({chunks[0]}, ... {len(chunks)} chunks)"
