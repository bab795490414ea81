"""A fit that is stopped anywhere and taken up again ends with the bits of one that is not."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fastsym import MomentAccumulator, TwoLayerRegressor, make_two_layer
from fastsym.activation import Activation
from fastsym.archive import read_arrays, write_arrays
from fastsym.engine import Passes, accumulate, pilot_frame
from fastsym.engine.checkpoint import FILE_KIND, FILE_VERSION, Checkpoint
from fastsym.sources import PairedRows, from_blocks
from fastsym.sums.residuals import ResidualAccumulator

N = 40_000


class Stop(Exception):
    pass


class StopAt:
    """A callback that stops the fit at an event."""

    def __init__(self, number):
        self.left = number

    def __call__(self, event):
        self.left -= 1
        if self.left == 0:
            raise Stop


def problem(k=3, d=5, m=4, block_rows=4001, **how):
    X, Y, _ = make_two_layer(N, d, k, m, noise=0.1, random_state=0, **how)
    return PairedRows(X, Y, block_rows=block_rows)


def heavy(n):
    """Weights that make the sums differ from those without."""
    return np.random.default_rng(5).integers(1, 4, n).astype(float)


CASES = {
    "refined": ({"n_hidden": 3}, problem()),
    "auto": ({"n_hidden": "auto"}, problem()),
    "moments": ({"n_hidden": 3, "refine": False}, problem()),
    "float32": ({"n_hidden": 3, "refine": False, "compute_dtype": "float32"}, problem()),
    "two passes": ({"n_hidden": 20, "refine": False}, problem(20, 20, 20, 6001)),
    "leaky": ({"n_hidden": 3, "refine": False, "negative_slope": 0.2}, problem()),
    "intercept": ({"n_hidden": 3, "fit_intercept": True}, problem()),
    "weights": (
        {"n_hidden": 3},
        PairedRows(problem().X, problem().Y, heavy(N), block_rows=4001),
    ),
    "heavy tails": ({"n_hidden": 3, "refine": False}, problem(distribution="student_t")),
}


def bits(model):
    return [
        part.tobytes()
        for part in (model.hidden_weights_, model.output_weights_, model.hidden_intercept_)
    ]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_stopped_anywhere_and_taken_up_gives_the_same_bits(case, tmp_path):
    parameters, source = CASES[case]
    events = []
    whole = TwoLayerRegressor(**parameters).fit(source, callback=events.append)
    path = tmp_path / "state.npz"
    for first in (1, len(events) // 3, len(events) - 1):
        stops = 0
        left = first
        while True:
            try:
                model = TwoLayerRegressor(**parameters, n_jobs=1 + stops % 2).fit(
                    source, checkpoint=path, checkpoint_every=0, callback=StopAt(left)
                )
                break
            except Stop:
                stops += 1
                left = 7  # events of blocks already summed do not come again
                assert stops < len(events)
        assert stops >= 1
        assert bits(model) == bits(whole)
        path.unlink()


def test_only_what_is_left_is_read(tmp_path):
    source = problem()
    path = tmp_path / "state.npz"
    with pytest.raises(Stop):
        TwoLayerRegressor(3).fit(source, checkpoint=path, checkpoint_every=0, callback=StopAt(8))
    events = []
    TwoLayerRegressor(3).fit(source, checkpoint=path, checkpoint_every=0, callback=events.append)
    assert events[0].n_rows == 8 * 4001
    rates = [event.rows_per_second for event in events]
    assert all(rate > 0 for rate in rates)
    # A finished fit reads nothing but the sample.
    events.clear()
    before = path.read_bytes()
    TwoLayerRegressor(3).fit(source, checkpoint=path, callback=events.append)
    assert all(event.n_rows == N for event in events)
    assert path.read_bytes() == before


def test_moments_alone_can_be_taken_up(tmp_path):
    source = problem()
    frame = pilot_frame(source, 3)
    whole = accumulate(source, frame=frame)
    path = tmp_path / "state.npz"
    with pytest.raises(Stop):
        saved = Checkpoint(path, source, {}, 0)
        accumulate(Passes(source, callback=StopAt(5), checkpoint=saved), frame=frame)
    again = accumulate(Passes(source, checkpoint=Checkpoint(path, source, {})), frame=frame)
    for name, value in whole.to_arrays().items():
        np.testing.assert_array_equal(again.to_arrays()[name], value)


def begun(tmp_path, source, **parameters):
    path = tmp_path / "state.npz"
    with pytest.raises(Stop):
        TwoLayerRegressor(3, **parameters).fit(
            source, checkpoint=path, checkpoint_every=0, callback=StopAt(4)
        )
    return path


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    source = problem()
    path = begun(tmp_path, source)
    before = path.read_bytes()
    for parameters, message in (
        ({"n_hidden": 2}, "with n_hidden=3 where this one has 2"),
        ({"n_hidden": 3, "refine": False}, "with refine=True where this one has False"),
        ({"n_hidden": 3, "random_state": 1}, "with random_state=None where this one has 1"),
        ({"n_hidden": 3, "negative_slope": 0.1}, r"with negative_slope=0\.0 where this"),
    ):
        with pytest.raises(ValueError, match=rf"state\.npz is the checkpoint of .*{message}"):
            TwoLayerRegressor(**parameters).fit(source, checkpoint=path)
    X, Y = source.X, source.Y
    for other in (
        PairedRows(X[1:], Y[1:]),
        PairedRows(X + 1e-9, Y),
        PairedRows(X, Y, heavy(N)),
        PairedRows(X[::-1], Y[::-1]),
    ):
        with pytest.raises(ValueError, match="of a fit to other data"):
            TwoLayerRegressor(3).fit(other, checkpoint=path)
    for random_state in (np.random.default_rng(0), np.random.RandomState(0)):
        with pytest.raises(ValueError, match="checkpoint needs a random_state of None or an int"):
            TwoLayerRegressor(3, random_state=random_state).fit(source, checkpoint=path)
    assert path.read_bytes() == before
    # Threads, chunks and what is printed make no difference.
    other = PairedRows(X, Y, block_rows=999)
    assert TwoLayerRegressor(3, n_jobs=1, verbose=0).fit(other, checkpoint=path).converged_


def test_a_pass_that_comes_out_differently_is_refused(tmp_path):
    source = problem()
    path = begun(tmp_path, source)
    _, arrays = read_arrays(path, {FILE_KIND: FILE_VERSION})
    arrays["pass0_hidden"] = arrays["pass0_hidden"] * (1 + 1e-15) + 1e-16
    write_arrays(path, FILE_KIND, FILE_VERSION, arrays)
    with pytest.raises(ValueError, match="pass 1 does not come out as it was"):
        TwoLayerRegressor(3).fit(source, checkpoint=path)


def test_damaged_foreign_and_newer_files_are_refused(tmp_path, rng):
    source = problem()
    path = begun(tmp_path, source)
    content = path.read_bytes()
    _, arrays = read_arrays(path, {FILE_KIND: FILE_VERSION})

    def refused(message):
        with pytest.raises(ValueError, match=message):
            TwoLayerRegressor(3).fit(source, checkpoint=path)

    for position in rng.choice(len(content), 30, replace=False):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        refused(r"(damaged|not a readable).* Delete the file to start anew")
        path.write_bytes(content[:position])
        refused(r"(damaged|not a readable).* Delete the file to start anew")
    MomentAccumulator(3).update(source.X[:100], source.Y[:100]).save(path)
    refused("holds fastsym 'moments' data, expected checkpoint.* Delete")
    write_arrays(path, FILE_KIND, FILE_VERSION + 1, arrays)
    refused("update fastsym")
    for name in ("settings", "pass0_n_rows"):
        write_arrays(path, FILE_KIND, FILE_VERSION, {n: a for n, a in arrays.items() if n != name})
        refused("Delete the file to start anew")
    with pytest.raises(FileNotFoundError):
        TwoLayerRegressor(3).fit(source, checkpoint=tmp_path / "nowhere" / "state.npz")
    with pytest.raises(ValueError, match="every must be a number of seconds"):
        TwoLayerRegressor(3).fit(source, checkpoint=tmp_path / "s", checkpoint_every="soon")


def test_checkpoints_come_at_their_time(tmp_path, monkeypatch):
    source = problem()
    written = []
    monkeypatch.setattr(
        "fastsym.engine.checkpoint.write_arrays", lambda *arguments: written.append(arguments)
    )
    TwoLayerRegressor(3).fit(source, checkpoint=tmp_path / "s.npz", checkpoint_every=np.int64(3600))
    model = TwoLayerRegressor(3).fit(source)
    assert len(written) == model.n_passes_


def test_blocks_of_an_iterable_can_be_taken_up(tmp_path):
    source = problem()
    blocks = [block[:2] for block in source.blocks()]
    path = begun(tmp_path, from_blocks(blocks))
    whole = TwoLayerRegressor(3).fit(from_blocks(blocks))
    model = TwoLayerRegressor(3).fit(from_blocks(blocks), checkpoint=path)
    assert bits(model) == bits(whole)


# The state of accumulators


def test_residual_sums_are_added_saved_and_restored(rng):
    X, Y, network = make_two_layer(20_000, 5, 3, 4, noise=0.1, random_state=0)
    hidden = np.concatenate([np.zeros((3, 1)), network.hidden_weights], axis=1)

    def empty():
        return ResidualAccumulator(5, 4, hidden, network.output_weights, Activation())

    whole = empty().take(X, Y).result()
    first, second = empty().take(X[:9001], Y[:9001]), empty().take(X[9001:], Y[9001:])
    restored = empty().restore({n: np.array(a) for n, a in first.to_arrays().items()})
    straight = restored.take(X[9001:], Y[9001:]).result()
    for name in ("hidden_gradient", "output_gradient", "residual_moment"):
        np.testing.assert_array_equal(getattr(straight, name), getattr(whole, name))
        added = (first + second).result()
        scale = np.abs(getattr(whole, name)).max()
        np.testing.assert_allclose(getattr(added, name), getattr(whole, name), atol=1e-11 * scale)
    assert added.n_samples == whole.n_samples
    assert added.weight == whole.weight
    assert first.n_samples == 9001  # unchanged
    with pytest.raises(ValueError, match="other weights"):
        ResidualAccumulator(5, 4, hidden + 1, network.output_weights, Activation()).restore(
            first.to_arrays()
        )


# SIGKILL


@pytest.mark.parametrize("kills", [1, pytest.param(25, marks=pytest.mark.slow)])
def test_killed_runs_of_the_command_line_end_with_the_same_file(kills, tmp_path, rng, run):
    X, Y, _ = make_two_layer(150_000, 10, 8, 10, noise=0.1, random_state=0)
    np.savez(tmp_path / "all.npz", X=X, Y=Y)
    model, state = tmp_path / "model.npz", tmp_path / "state.npz"
    fit = ("fit", str(tmp_path / "all.npz"), "--hidden", "8", "--out")
    assert run(*fit, model)[0] == 0
    whole = model.read_bytes()
    fit += (str(model), "--checkpoint", str(state), "--every", "0s", "--block-rows", "5000")

    def stamp():
        return state.stat().st_mtime_ns if state.exists() else None

    killed = ended = 0
    while killed < kills:
        before = stamp()
        process = subprocess.Popen(
            [sys.executable, "-m", "fastsym", *fit], stdout=subprocess.DEVNULL
        )
        # From its first checkpoint on.
        while process.poll() is None and stamp() == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:  # it had ended; the next one begins anew
            assert process.returncode == 0
            assert model.read_bytes() == whole
            state.unlink()
            ended += 1
            assert ended <= kills + 3
    model.unlink(missing_ok=True)
    (tmp_path / "state.npz.movie.part").touch()  # not ours
    assert run(*fit)[0] == 0
    assert model.read_bytes() == whole
    assert [path.name for path in tmp_path.glob("*.part")] == ["state.npz.movie.part"]
