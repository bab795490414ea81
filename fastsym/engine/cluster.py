"""Passes over a source on the workers of a Dask cluster.

A source is divided once into as many parts of consecutive rows as there are workers. In a pass each
worker reads its part block by block into one reducer, with its own number of threads, and the
reducers are added up by a tree whose order is that of the parts. The client sees the total
only. A part that is lost with its worker is read again by another, to the same bits.
"""

import copy
from typing import Any

from fastsym.engine.checkpoint import Checkpoint
from fastsym.engine.passes import Passes, R
from fastsym.engine.progress import Callback
from fastsym.sources import Source
from fastsym.sources.dask import DaskSource, dask_module


class ClusterPasses(Passes):
    """Passes that run on the workers of a Dask cluster.

    Parameters
    ----------
    source : PairedRows or DaskSource
        Files must be where the workers see them under the same path. Arrays in memory are sent to
        the workers in each pass.
    client : dask.distributed.Client
        Its workers at this moment fix the number of parts; later ones may take over parts.
    callback : callable, default=None
        Called with a `fastsym.engine.Event` after each part.
    checkpoint : Checkpoint, default=None
        Saved at the end of each pass, not within; it must be of a cluster's passes.

    Raises
    ------
    TypeError
        If the source cannot be divided (blocks of an iterable).
    ValueError
        If the client has no workers.
    """

    def __init__(
        self,
        source: Source,
        client: Any,
        *,
        callback: Callback | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        super().__init__(source, callback=callback, checkpoint=checkpoint)
        if not hasattr(source, "split"):
            raise TypeError(
                f"client= needs samples that can be divided among workers (files, arrays, Dask "
                f"arrays), got {type(source).__name__}."
            )
        n_workers = len(client.nthreads())
        if n_workers == 0:
            raise ValueError("client has no workers; start some, or client.wait_for_workers(1).")
        if isinstance(source, DaskSource):
            # A copy: the source may be used again without this client.
            self.source = source = copy.copy(source)
            source.bind(client)
        self._client = client
        self._parts = source.split(n_workers)

    def _fold(self, reducer: R, first_row: int, check: bool, tell: Any) -> tuple[R, int]:
        """Fold each part on a worker, and merge by twos in the order of the parts."""
        client = self._client
        workers = sorted(client.nthreads())
        folds: list[Any] = [
            client.submit(
                _fold_part,
                part,
                reducer,
                check,
                # A part a worker; another takes over if that one is lost.
                workers=[workers[i % len(workers)]] if workers else None,
                allow_other_workers=True,
                pure=False,
            )
            for i, part in enumerate(self._parts)
        ]
        level: list[Any] = folds
        while len(level) > 1:
            level = [
                client.submit(_merge, *level[i : i + 2], pure=False) if i + 1 < len(level)
                else level[i]
                for i in range(0, len(level), 2)
            ]  # fmt: skip
        try:
            rows = {fold.key: part.n_samples for fold, part in zip(folds, self._parts, strict=True)}
            n_rows = 0
            for fold in dask_module("distributed").as_completed(folds):
                if fold.status == "error":
                    fold.result()
                n_rows += rows.pop(fold.key, 0)
                tell(n_rows)
            total = level[0].result()
        except dask_module("distributed").KilledWorker as error:
            raise RuntimeError(
                f"a worker was lost again and again while it read its part ({error}); it may be "
                "short of memory."
            ) from None
        finally:
            client.cancel([*folds, *level])
        total.n_jobs = reducer.n_jobs
        return total, self.n_samples


def _fold_part(part: Any, reducer: Any, check: bool) -> Any:
    """Read a part on a worker, with the worker's number of threads."""
    distributed = dask_module("distributed")
    reducer = copy.copy(reducer)  # in-process workers share what they are given
    reducer.n_jobs = distributed.get_worker().state.nthreads
    if not isinstance(part, DaskSource):
        return Passes(part).read("", reducer, check=check)
    # Chunks are tasks of their own; this one leaves its place to them while it waits.
    with distributed.worker_client() as client:
        part.bind(client)
        return Passes(part).read("", reducer, check=check)


def _merge(one: Any, other: Any) -> Any:
    # A new object: Dask may need the two again if a worker is lost.
    return one + other
