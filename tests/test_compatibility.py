"""Files that commit 65da407 wrote, before the package had folders, are read as they were meant.

`tests/data/65da407` holds samples of small integers, so that sums of their products are exact on
every processor, and what that commit made of them.
"""

from pathlib import Path

import numpy as np
import pytest

import fastsym
from fastsym import MomentAccumulator, TwoLayerNetwork
from fastsym.activation import Activation
from fastsym.archive import read_arrays
from fastsym.engine import Checkpoint, Passes
from fastsym.sources import PairedRows
from fastsym.sums.frame import Frame
from fastsym.sums.residuals import ResidualAccumulator

FOLDER = Path(__file__).parent / "data" / "65da407"


@pytest.fixture(scope="module")
def samples():
    with np.load(FOLDER / "samples.npz") as arrays:
        return arrays["X"], arrays["Y"]


def test_network():
    network = TwoLayerNetwork.load(FOLDER / "network.npz")
    np.testing.assert_array_equal(network.hidden_weights, [[1, 2], [0, -1]])
    np.testing.assert_array_equal(network.output_weights, [[1, 0.5]])
    np.testing.assert_array_equal(network.hidden_intercept, [0.25, 0])
    np.testing.assert_array_equal(network.output_intercept, [3])
    np.testing.assert_array_equal(network.linear_weights, [[0, 0]])
    assert network.negative_slope == 0.125


def test_frame_is_that_of_the_moments():
    assert Frame.load(FOLDER / "frame.npz") == MomentAccumulator.load(FOLDER / "moments.npz").frame


def test_moments(samples):
    X, Y = samples
    loaded = MomentAccumulator.load(FOLDER / "moments.npz")
    assert loaded.n_samples == 9000
    moments = loaded.moments()
    with np.load(FOLDER / "expected.npz") as expected:
        for name in expected.files:
            np.testing.assert_allclose(getattr(moments, name), expected[name], rtol=1e-13)
    # It goes on as an accumulator that has seen the same rows here.
    whole = MomentAccumulator(frame=loaded.frame).update(X[:20_000], Y[:20_000]).moments()
    loaded.update(X[9000:20_000], Y[9000:20_000])
    np.testing.assert_allclose(loaded.moments().yyxx, whole.yyxx, rtol=1e-12)
    np.testing.assert_array_equal(loaded.moments().second, whole.second)


def test_moments_whose_pilot_is_not_full():
    loaded = MomentAccumulator.load(FOLDER / "moments-pilot.npz")
    assert not loaded.has_frame
    assert (loaded.compute_dtype, loaded.negative_slope) == ("float32", 0.25)
    assert loaded.n_samples < 3000  # samples of weight 0 were left out
    assert fastsym.spectral.solve(loaded.moments()).network.n_hidden == 2


def checkpoint(name, samples, settings, tmp_path):
    path = tmp_path / name
    path.write_bytes((FOLDER / name).read_bytes())
    return Checkpoint(path, PairedRows(*samples), settings)


def settings_of(name):
    import json

    _, arrays = read_arrays(FOLDER / name, {"checkpoint": 1})
    return json.loads(arrays["settings"].item()), arrays


def test_checkpoint_of_moments(samples, tmp_path):
    X, Y = samples
    settings, arrays = settings_of("checkpoint-moments.npz")
    saved = checkpoint("checkpoint-moments.npz", samples, settings, tmp_path)
    frame = Frame.from_arrays(
        {
            name.removeprefix("pass0_frame_"): value
            for name, value in arrays.items()
            if name.startswith("pass0_frame_")
        }
    )
    reducer = MomentAccumulator(frame=frame)
    n_rows, done = saved.begin(1, reducer)
    assert (n_rows, done, reducer.n_samples) == (18_000, False, 18_000)
    whole = MomentAccumulator(frame=frame).update(X, Y).moments()
    again = Passes(
        PairedRows(X, Y, block_rows=9000),
        checkpoint=checkpoint("checkpoint-moments.npz", samples, settings, tmp_path),
    ).read("moments", MomentAccumulator(frame=frame))
    np.testing.assert_array_equal(again.result().second, whole.second)
    np.testing.assert_allclose(again.result().yyxx, whole.yyxx, rtol=1e-12)


def test_checkpoint_of_a_refined_fit(samples, tmp_path):
    X, Y = samples
    settings, arrays = settings_of("checkpoint-refined.npz")
    saved = checkpoint("checkpoint-refined.npz", samples, settings, tmp_path)
    for number, expected in ((1, (33_000, True)), (2, (9000, False))):
        hidden, outputs = (arrays[f"pass{number - 1}_{name}"] for name in ("hidden", "outputs"))
        reducer = ResidualAccumulator(3, 3, hidden, outputs, Activation())
        assert saved.begin(number, reducer) == expected
        n_rows = expected[0]
        assert reducer.n_samples == n_rows
        fresh = ResidualAccumulator(3, 3, hidden, outputs, Activation())
        fresh.take(X[:n_rows], Y[:n_rows])
        one, other = reducer.result(), fresh.result()
        assert (one.n_samples, one.weight) == (n_rows, n_rows)
        scale = np.abs(other.residual_moment).max()
        for name in ("hidden_gradient", "output_gradient", "residual_moment"):
            np.testing.assert_allclose(
                getattr(one, name), getattr(other, name), atol=1e-12 * n_rows * scale
            )


def test_settings_of_the_estimator_are_still_those(samples, tmp_path):
    """A fit with the same parameters takes the file up, or says that sums came out otherwise."""
    path = tmp_path / "state.npz"
    path.write_bytes((FOLDER / "checkpoint-moments.npz").read_bytes())
    model = fastsym.TwoLayerRegressor(2, refine=False)
    try:
        model.fit(PairedRows(*samples, block_rows=9000), checkpoint=path)
    except ValueError as error:  # the frame has other bits on another processor
        assert "does not come out as it was" in str(error)
    else:
        assert model.diagnostics_.n_samples == 33_000
