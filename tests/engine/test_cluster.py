"""Passes on a Dask cluster of separate processes give what passes here give."""

import os
import signal
import sys
import threading
import time
import warnings
from typing import ClassVar

import numpy as np
import pytest

from fastsym import TwoLayerRegressor, make_two_layer
from fastsym.engine import accumulate
from fastsym.sources import PairedRows, from_arrays, from_blocks, open_source
from fastsym.sums.moments import MomentAccumulator

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
array = pytest.importorskip("dask.array")

from fastsym.engine.cluster import ClusterPasses  # noqa: E402
from fastsym.sources.dask import DaskSource, from_dask  # noqa: E402

from .slow_rows import SlowRows  # noqa: E402

N = 60_000
pytestmark = pytest.mark.filterwarnings("ignore:Sending large graph:UserWarning")


@pytest.fixture(scope="module")
def data():
    X, Y, _ = make_two_layer(N, 6, 4, 5, noise=0.1, random_state=0)
    return X, Y


@pytest.fixture(scope="module")
def files(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, part in zip("XY", data, strict=True):
        np.save(folder / f"{name}.npy", part)
    return folder / "X.npy", folder / "Y.npy"


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def dask_arrays(data, chunk=7001):
    X, Y = data
    return (
        array.from_array(X, chunks=(chunk, 4)),  # two chunks of columns
        array.from_array(Y, chunks=(chunk, -1)),
    )


def assert_close(model, expected):
    # The order of the units is rounding's where their weights are alike.
    cosines = model.hidden_weights_ @ expected.hidden_weights_.T
    order = cosines.argmax(axis=0)
    assert sorted(order) == list(range(len(order)))
    for mine, theirs in (
        (model.hidden_weights_[order], expected.hidden_weights_),
        (model.output_weights_[:, order], expected.output_weights_),
    ):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.parametrize("kind", ["files", "memory", "dask", "persisted", "few chunks"])
@pytest.mark.parametrize("refine", [True, False])
def test_a_cluster_gives_the_serial_result(kind, refine, client, files, data):
    expected = TwoLayerRegressor(4, refine=refine).fit(*data)
    model = TwoLayerRegressor(4, refine=refine)
    if kind == "files":
        model.fit(open_source(*files), client=client)
    elif kind == "memory":
        model.fit(*data, client=client)
    else:
        X, Y = dask_arrays(data, 50_000 if kind == "few chunks" else 7001)
        if kind == "persisted":
            X, Y = X.persist(), Y.persist()
        model.fit(X, Y, client=client)
    assert_close(model, expected)
    if refine:
        assert model.n_passes_ == expected.n_passes_
        assert model.loss_ == pytest.approx(expected.loss_, rel=1e-12)


def test_weights_auto_and_two_passes(client, rng):
    X, Y, _ = make_two_layer(40_000, 20, 20, 20, random_state=0)
    weights = rng.integers(1, 4, 40_000).astype(float)
    for parameters in ({"n_hidden": "auto"}, {"n_hidden": 20, "refine": False}):
        expected = TwoLayerRegressor(**parameters).fit(X, Y, weights)
        model = TwoLayerRegressor(**parameters).fit(
            array.from_array(X, chunks=(9000, -1)), array.from_array(Y, chunks=(9000, -1)), weights,
            client=client,
        )  # fmt: skip
        assert_close(model, expected)


def test_the_same_parts_give_the_same_bits(client, files):
    source = open_source(*files)
    one, two = (TwoLayerRegressor(4).fit(source, client=client).hidden_weights_ for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_without_a_client_chunks_are_computed_one_by_one(data):
    X, Y = dask_arrays(data)
    expected = TwoLayerRegressor(4).fit(*data)
    model = TwoLayerRegressor(4).fit(X, Y)
    np.testing.assert_array_equal(model.hidden_weights_, expected.hidden_weights_)
    flat = TwoLayerRegressor(1, refine=False).fit(X, Y[:, 0])
    assert flat.predict(data[0][:3]).shape == (3,)


class Counted:
    """A matrix as a Dask array, each chunk of which is noted when it is computed."""

    made: ClassVar[list[int]] = []

    @classmethod
    def chunk(cls, rows, index):
        cls.made.append(index)
        return rows

    @classmethod
    def array(cls, rows, chunk):
        parts = [
            array.from_delayed(
                dask.delayed(cls.chunk)(rows[i : i + chunk], i // chunk),
                (len(rows[i : i + chunk]), rows.shape[1]),
                dtype=rows.dtype,
            )
            for i in range(0, len(rows), chunk)
        ]
        return array.concatenate(parts)


@pytest.mark.parametrize("cluster", [False, True])
def test_chunks_are_not_computed_ahead(cluster, data, monkeypatch):
    X, Y = data
    frame = accumulate(from_arrays(X, Y), 4).frame
    source = from_dask(Counted.array(X, 1000), array.from_array(Y, chunks=(1000, -1)))
    ahead, taken = [], []
    original = MomentAccumulator.take

    def take(self, X, Y, weights=None):
        time.sleep(0.002)  # a slow reducer, which readers would overtake
        taken.append(len(X))
        ahead.append(len(Counted.made) - len(taken))
        return original(self, X, Y, weights)

    monkeypatch.setattr(MomentAccumulator, "take", take)
    Counted.made = []
    if cluster:
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=2, processes=False, dashboard_address=":0"
            ) as local,
            distributed.Client(local) as client,
        ):
            result = accumulate(ClusterPasses(source, client), frame=frame)
    else:
        with dask.config.set(scheduler="threads"):
            result = accumulate(source, frame=frame)
    assert sorted(Counted.made) == list(range(60))  # each chunk once
    assert len(taken) == 60
    assert max(ahead) <= (2 if cluster else 1)  # one a fold
    assert result.n_samples == N


def test_a_worker_killed_in_the_middle_changes_nothing(client, data, tmp_path):
    X, Y = data
    whole = TwoLayerRegressor(4).fit(PairedRows(X, Y, block_rows=1500), client=client)
    pid = next(iter(client.run(os.getpid).values()))
    reads_of_the_dead = []

    def kill():
        # In the first pass, when this worker has read a third of its part.
        while len(list(tmp_path.glob(f"{pid}-*"))) < 7:
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        reads_of_the_dead.append(len(list(tmp_path.glob(f"{pid}-*"))))

    killer = threading.Thread(target=kill)
    killer.start()
    source = PairedRows(SlowRows(X, tmp_path), Y, block_rows=1500)
    model = TwoLayerRegressor(4).fit(source, client=client)
    killer.join()
    client.wait_for_workers(2)  # for the tests after this one
    assert 7 <= reads_of_the_dead[0] < 20  # of 20: it died on the way
    np.testing.assert_array_equal(model.hidden_weights_, whole.hidden_weights_)
    np.testing.assert_array_equal(model.output_weights_, whole.output_weights_)


def test_workers_use_their_own_number_of_threads(data, monkeypatch):
    seen = []
    original = MomentAccumulator.take

    def take(self, *block):
        seen.append(self.n_jobs)
        return original(self, *block)

    monkeypatch.setattr(MomentAccumulator, "take", take)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        result = accumulate(ClusterPasses(from_arrays(*data), client), 4, n_jobs=1)
    assert set(seen) == {3}
    assert result.n_jobs == 1


def test_progress_checkpoint_and_errors(client, files, data, tmp_path):
    events = []
    path = tmp_path / "state.npz"
    model = TwoLayerRegressor(4).fit(
        open_source(*files), client=client, checkpoint=path, callback=events.append
    )
    assert {event.n_rows for event in events} == {N // 2, N}
    again = TwoLayerRegressor(4).fit(open_source(*files), client=client, checkpoint=path)
    np.testing.assert_array_equal(again.hidden_weights_, model.hidden_weights_)
    with pytest.raises(ValueError, match="with client=a cluster where this one has none"):
        TwoLayerRegressor(4).fit(open_source(*files), checkpoint=path)
    X = data[0].copy()
    X[50_123, 2] = np.nan
    with pytest.raises(ValueError, match=r"X contains NaN \(first in row 50123\)"):
        TwoLayerRegressor(4, refine=False).fit(X, data[1], client=client)
    with pytest.raises(TypeError, match=r"can be divided among workers .* got BlockSource"):
        TwoLayerRegressor(4).fit(from_blocks([data]), client=client)
    refined = TwoLayerRegressor(4, refine=False).fit(*data)
    refined.refine_on(open_source(*files), client=client)
    assert refined.loss_ == pytest.approx(model.loss_, rel=1e-6)


def test_a_dask_source_outlives_its_client(data):
    source = from_dask(*dask_arrays(data))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        one = TwoLayerRegressor(4).fit(source, client=client)
    with dask.config.set(scheduler="threads"):
        assert_close(TwoLayerRegressor(4).fit(source), one)


def test_what_workers_are_given_is_not_changed(data):
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        empty = MomentAccumulator(frame=accumulate(from_arrays(*data), 4).frame)
        total = ClusterPasses(from_arrays(*data), client).read("moments", empty)
        assert (empty.n_samples, total.n_samples) == (0, N)


def test_bad_dask_arrays(data):
    X, Y = dask_arrays(data)
    for x, y, message in (
        (X, Y[:100], "same number of rows"),
        (X, Y.rechunk((5000, -1)), "must have the row chunks of X"),
        (X[:, 0], Y, "must have shape"),
        (X[X[:, 0] > 0], Y, "unknown sizes; call X.compute_chunk_sizes"),
        (X, None, "y is None"),
        (X.astype(complex), Y, "must hold real numbers"),
        (X, Y.astype(str), "must hold real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            TwoLayerRegressor(4).fit(x, y)
    with pytest.raises(ValueError, match="sample_weight must have one dimension"):
        TwoLayerRegressor(4).fit(X, Y, Y)
    bad = data[0].copy()
    bad[40_000, 0] = np.inf
    with pytest.raises(ValueError, match=r"X contains infinity \(first in row 40000\)"):
        TwoLayerRegressor(4, refine=False).fit(array.from_array(bad, chunks=(7001, -1)), Y)


def test_parts_are_consecutive_chunks(data):
    source = DaskSource(*dask_arrays(data))
    for n_parts in (1, 2, 3, 9, 50):
        parts = source.split(n_parts)
        assert len(parts) <= n_parts
        assert sum(part.n_samples for part in parts) == N
        assert parts[-1].first_row + parts[-1].n_samples == N
        assert all(set(part.X.chunks[0]) <= {7001, N % 7001} for part in parts)


def test_a_missing_dask_names_its_extra(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    from fastsym.sources import dask as module

    with pytest.raises(ImportError, match=r'pip install "fastsym\[dask\]"'), module.connect("x"):
        pass


def test_no_workers_is_an_error(data):
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
        pytest.raises(ValueError, match="client has no workers"),
    ):
        TwoLayerRegressor(4).fit(*data, client=client)
