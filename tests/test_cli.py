import json
import os
import pty
import subprocess
import sys

import numpy as np
import pytest

import fastsym
from fastsym import MomentAccumulator, TwoLayerNetwork, make_two_layer, parameter_error
from fastsym.cli import options
from fastsym.sums.frame import Frame


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    X, Y, network = make_two_layer(40_000, 6, 3, 4, noise=0.1, random_state=0)
    np.save(folder / "X.npy", X)
    np.save(folder / "Y.npy", Y)
    for i, part in enumerate(np.array_split(np.arange(40_000), 3)):
        np.save(folder / f"X{i}.npy", X[part])
        np.save(folder / f"Y{i}.npy", Y[part])
    return folder, network


def test_fit_predict_and_info(files, run, tmp_path):
    folder, network = files
    model = tmp_path / "model.npz"
    code, out, _ = run("fit", folder / "X.npy", folder / "Y.npy", "--out", model, "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["n_samples"], report["n_hidden"]) == (40_000, 3)
    assert report["converged"] is True
    assert report["certificate"] == "spectral"
    assert 1 <= report["n_passes"] <= 4
    fitted = TwoLayerNetwork.load(model)
    assert max(parameter_error(network, fitted)) < 0.01

    code, out, _ = run("predict", model, folder / "X.npy", "--out", tmp_path / "P.npy")
    assert code == 0
    assert "40000" in out
    X = np.load(folder / "X.npy")
    np.testing.assert_allclose(np.load(tmp_path / "P.npy"), fitted.predict(X), atol=1e-14)

    code, out, _ = run("info", model, "--json")
    assert json.loads(out) == {
        "file": str(model), "kind": "network", "n_features": 6, "n_hidden": 3, "n_outputs": 4,
        "negative_slope": 0.0, "intercepts": False, "linear_part": False,
    }  # fmt: skip


def test_fit_options(files, run, tmp_path):
    folder, network = files
    args = ("fit", folder / "X.npy", folder / "Y.npy", "--hidden", 3, "-o", tmp_path / "m.npz")
    code, out, _ = run(*args, "--no-refine", "--json")
    assert code == 0
    assert "loss" not in json.loads(out)
    spectral = TwoLayerNetwork.load(tmp_path / "m.npz")
    code, out, _ = run(*args, "--intercept", "--negative-slope", 0.1, "--json")
    assert code == 0
    leaky = TwoLayerNetwork.load(tmp_path / "m.npz")
    assert leaky.negative_slope == 0.1
    assert leaky.output_intercept.any()
    run(*args)
    refined = TwoLayerNetwork.load(tmp_path / "m.npz")
    errors = [sum(parameter_error(network, n)) for n in (refined, spectral)]
    assert errors[0] < errors[1]


def test_linear_part_and_intercepts_are_asked_for_or_found(files, run, tmp_path):
    folder, network = files
    X = np.load(folder / "X.npy")[:4000]
    L = np.array([[1.0, 0, 0, 0, 0, 2], [0] * 6, [0] * 6, [0, 0, -1, 0, 0, 0]])
    Y = network.predict(X) + X @ L.T + 0.1 * np.random.default_rng(0).standard_normal((4000, 4))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "Y.npy", Y)
    model = tmp_path / "m.npz"
    args = ("fit", tmp_path / "X.npy", tmp_path / "Y.npy", "--hidden", 3, "-o", model, "--json")
    for more, intercepts, linear in (
        (("--no-intercept", "--no-linear"), False, False),
        (("--no-intercept", "--linear"), False, True),
        (("--intercept", "--linear"), True, True),
        ((), False, True),
    ):
        code, out, _ = run(*args, *more)
        assert code == 0
        report = json.loads(out)
        assert (report["intercepts"], report["linear_part"]) == (intercepts, linear)
        if linear:
            found = TwoLayerNetwork.load(model)
            error = parameter_error(TwoLayerNetwork(
                network.hidden_weights, network.output_weights, linear_weights=L
            ), found)._replace(wrong_signs=0)  # fmt: skip
            assert max(error) < 0.05
    code, _, err = run(*args, "--alpha", -1)
    assert code != 0
    assert "alpha must be" in err
    assert run(*args, "--alpha", 1)[0] == 0
    held = TwoLayerNetwork.load(model)
    assert 0 < np.linalg.norm(held.output_weights) < np.linalg.norm(found.output_weights)
    found.save(model)
    assert run("info", model)[1].split()[-4:] == ["linear_part", "True", "negative_slope", "0"]
    assert run("predict", model, tmp_path / "X.npy", "-o", tmp_path / "P.npy")[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "P.npy"), found.predict(X), atol=1e-12)


@pytest.mark.parametrize("option", ["--intercept", "--linear"])
def test_moments_know_nothing_of_biases_and_linear_parts(files, run, option):
    code, _, errors = run("fit", files[0] / "X.npy", files[0] / "Y.npy", "--no-refine", option)
    assert code == 2
    assert errors == f"fastsym: error: {option} needs --refine: moments know nothing of it.\n"


def test_one_neuron_reports_valid_json(files, run, tmp_path):
    for letter in "XY":
        np.save(tmp_path / f"{letter}.npy", np.load(files[0] / f"{letter}.npy")[:2000])
    names = (tmp_path / "X.npy", tmp_path / "Y.npy")
    code, out, _ = run("fit", *names, "--hidden", 1, "-o", tmp_path / "m", "--json")
    assert code == 0
    assert json.loads(out, parse_constant=pytest.fail)["gap"] is None


def test_shards_merge_to_the_whole(files, run, tmp_path):
    folder, network = files
    parts = [tmp_path / f"{i}.npz" for i in range(3)]
    for i, part in enumerate(parts):
        frame = ("--frame", parts[0]) if i else ("--hidden", 3)
        code, _, _ = run("moments", folder / f"X{i}.npy", folder / f"Y{i}.npy", "-o", part, *frame)
        assert code == 0
    code, out, _ = run("merge", *parts, "-o", tmp_path / "all.npz")
    assert code == 0
    assert "40000" in out
    code, out, _ = run("info", tmp_path / "all.npz")
    assert "moments" in out
    assert "frozen" in out
    code, _, _ = run("solve", tmp_path / "all.npz", "-o", tmp_path / "model.npz")
    assert code == 0
    fitted = TwoLayerNetwork.load(tmp_path / "model.npz")
    assert max(parameter_error(network, fitted)) < 0.01


def test_shards_share_a_frame_file(files, run, tmp_path):
    folder, network = files
    frame = tmp_path / "frame.npz"
    code, out, _ = run("frame", folder / "X*.npy", folder / "Y*.npy", "-o", frame, "--json")
    assert code == 0
    assert json.loads(out)["n_hidden"] == 3
    code, out, _ = run("info", frame, "--json")
    assert json.loads(out)["kind"] == "frame"
    parts = [tmp_path / f"{i}.npz" for i in range(3)]
    for i, part in enumerate(parts):
        shard = folder / f"X{i}.npy", folder / f"Y{i}.npy"
        assert run("moments", *shard, "-o", part, "--frame", frame)[0] == 0
    assert run("merge", *parts, "-o", tmp_path / "all.npz")[0] == 0
    assert run("solve", tmp_path / "all.npz", "-o", tmp_path / "model.npz")[0] == 0
    whole = tmp_path / "whole.npz"
    order = [str(folder / f"{letter}{i}.npy") for letter in "XY" for i in range(3)]
    source = fastsym.sources.open_source(order[:3], order[3:])
    fastsym.accumulate(source, frame=Frame.load(frame)).save(whole)
    run("solve", whole, "-o", tmp_path / "one.npz")
    models = [TwoLayerNetwork.load(tmp_path / name) for name in ("model.npz", "one.npz")]
    assert max(parameter_error(*models)) < 1e-24
    assert max(parameter_error(network, models[0])) < 0.01


def test_one_file_of_everything(files, run, tmp_path):
    folder, _ = files
    X, Y = (np.load(folder / name) for name in ("X.npy", "Y.npy"))
    np.savez(tmp_path / "all.npz", inputs=X, Y=Y, w=np.full(len(X), 2.0))
    names = ("--x", "inputs", "--weight", "w", "--block-rows", 1234)
    model = tmp_path / "m.npz"
    code, _, _ = run("fit", tmp_path / "all.npz", *names, "--hidden", 3, "-o", model)
    assert code == 0
    run("fit", folder / "X.npy", folder / "Y.npy", "--hidden", 3, "-o", tmp_path / "two.npz")
    fitted, two = (TwoLayerNetwork.load(path) for path in (model, tmp_path / "two.npz"))
    assert max(parameter_error(fitted, two)) < 1e-20
    code, _, _ = run(
        "predict", model, tmp_path / "all.npz", "--x", "inputs", "-o", tmp_path / "P.npy"
    )
    assert code == 0
    np.testing.assert_allclose(np.load(tmp_path / "P.npy"), fitted.predict(X), atol=1e-14)


def test_checkpoints(files, run, tmp_path):
    folder, _ = files
    x, y, state = folder / "X.npy", folder / "Y.npy", tmp_path / "state.npz"
    for command, more in (("fit", ()), ("fit", ("--no-refine",)), ("moments", ())):
        out = tmp_path / f"{command}.npz"
        args = (command, x, y, "--hidden", 3, "-o", out, *more)
        assert run(*args)[0] == 0
        whole = out.read_bytes()
        saved = ("--checkpoint", state, "--every", "0s")
        assert run(*args, *saved)[0] == 0
        for _ in range(2):  # the second time from the file
            assert run(*args, *saved)[0] == 0
            assert out.read_bytes() == whole
        code, _, err = run(command, x, y, "--hidden", 2, "-o", out, *more, "--checkpoint", state)
        assert code == 2
        assert "state.npz is the checkpoint of another fit, with n_hidden=3" in err
        state.unlink()


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("2.5", 2.5)]
)
def test_times(text, seconds):
    assert options.seconds(text) == seconds


def test_dask_scheduler_by_address(files, run, tmp_path):
    distributed = pytest.importorskip("distributed")
    folder, network = files
    args = ("fit", folder / "X.npy", folder / "Y.npy", "--hidden", 3, "-o", tmp_path / "m.npz")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        code, _, err = run(*args, "--dask", cluster.scheduler_address)
    assert code == 0, err
    assert max(parameter_error(network, TwoLayerNetwork.load(tmp_path / "m.npz"))) < 0.01


def test_methods_and_seed(files, run, tmp_path):
    folder, network = files
    run("moments", folder / "X.npy", folder / "Y.npy", "-o", tmp_path / "m.npz", "--hidden", 3)
    for method in ("uwedge", "pair", "als"):
        out = tmp_path / f"{method}.npz"
        code, _, _ = run("solve", tmp_path / "m.npz", "-o", out, "--method", method, "--seed", 1)
        assert code == 0
        assert max(parameter_error(network, TwoLayerNetwork.load(out))) < 0.2


def test_compute_dtype_and_jobs(files, run, tmp_path):
    folder, _ = files
    args = (
        "moments",
        folder / "X.npy",
        folder / "Y.npy",
        "--compute-dtype",
        "float32",
        "--jobs",
        1,
    )
    code, _, _ = run(*args, "-o", tmp_path / "m.npz")
    assert code == 0
    assert MomentAccumulator.load(tmp_path / "m.npz").compute_dtype == "float32"


def test_machine(run):
    code, out, _ = run("info", "--machine", "--json")
    assert code == 0
    machine = json.loads(out)
    assert machine["kernels"] in ("avx512", "avx2", "neon", "portable")
    assert machine["threads"] >= 1


def bad_inputs(folder, tmp):
    X = np.load(folder / "X.npy")
    X[123, 0] = np.nan
    np.save(tmp / "nan.npy", X)
    np.save(tmp / "few.npy", X[:100, :3])
    (tmp / "text.npz").write_text("not ours")
    x, y, out = folder / "X.npy", folder / "Y.npy", tmp / "m.npz"
    MomentAccumulator(3).update(*make_two_layer(9000, 6, 3, 4)[:2]).save(tmp / "other.npz")
    MomentAccumulator(3).update(*make_two_layer(9000, 6, 3, 4)[:2]).save(tmp / "another.npz")
    MomentAccumulator(3).update(*make_two_layer(90, 6, 3, 4)[:2]).save(tmp / "pilot.npz")
    return {
        "missing.npy: No such file": ("fit", tmp / "missing.npy", y, "-o", out),
        "X contains NaN (first in row 123)": ("fit", tmp / "nan.npy", y, "-o", out),
        "same number of rows": ("fit", tmp / "few.npy", y, "-o", out),
        "n_hidden must be at most": ("fit", x, y, "--hidden", 9, "--no-refine", "-o", out),
        "n_hidden must be \"auto\"": ("fit", x, y, "--hidden", "ten", "-o", out),
        "n_hidden must be \"auto\" or an integer of at least 1, got -2": (
            "fit", x, y, "--hidden", "-2", "-o", out,
        ),
        "method must be one of": ("fit", x, y, "--no-refine", "--method", "jade", "-o", out),
        "compute_dtype must be": ("fit", x, y, "--compute-dtype", "int", "-o", out),
        "--every must be a time such as 30s": ("fit", x, y, "-o", out, "--every", "soon"),
        "No such folder for the checkpoint": (
            "fit", x, y, "-o", out, "--checkpoint", tmp / "nowhere" / "s.npz",
        ),
        "give the file of Y too": ("fit", x, "-o", out),
        "format is not known by its ending": ("fit", tmp / "x.csv", y, "-o", out),
        "there is no folder": ("fit", x, y, "-o", tmp / "nowhere" / "m.npz"),
        "not a readable fastsym moments file": ("solve", tmp / "text.npz"),
        "readable fastsym network or moments or frame file": ("info", tmp / "text.npz"),
        "info needs a file, or --machine": ("info",),
        "is not a readable .npz file": ("fit", tmp / "text.npz", y, "-o", out),
        "another.npz: cannot merge moments of different frames": (
            "merge", tmp / "other.npz", tmp / "another.npz", "-o", out,
        ),
        "the frame is not fixed yet": ("moments", x, y, "--frame", tmp / "pilot.npz", "-o", out),
    }  # fmt: skip


def test_bad_input_is_one_line_and_exit_code_2(files, run, tmp_path):
    for message, arguments in bad_inputs(files[0], tmp_path).items():
        code, out, err = run(*arguments)
        assert code == 2, (message, out, err)
        assert message in err, err
        assert err.startswith("fastsym: error: ")
        assert err.count("\n") == 1
        assert out == ""
        assert not (tmp_path / "m.npz").exists()


def test_columns_that_do_not_fit_the_model(files, run, tmp_path):
    folder, _ = files
    model = tmp_path / "model.npz"
    TwoLayerNetwork(np.ones((2, 5)), np.ones((1, 2))).save(model)
    code, _, err = run("predict", model, folder / "X.npy", "-o", tmp_path / "P.npy")
    assert code == 2
    assert "has 6 columns" in err
    assert "expects 5 features" in err


def python(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, **kwargs
    )


def test_usage_errors_and_module_entry():
    assert python("-m", "fastsym", "fit").returncode == 2
    assert python("-m", "fastsym", "--help").returncode == 0


def test_warnings_are_one_line_on_standard_error(tmp_path, run):
    X = np.random.default_rng(0).standard_normal((9000, 3)) + 1
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "Y.npy", np.maximum(X, 0))
    files = tmp_path / "X.npy", tmp_path / "Y.npy"
    code, _, err = run("fit", *files, "--hidden", 3, "--no-refine", "-o", tmp_path / "m.npz")
    assert code == 0
    assert err.startswith("fastsym: warning: the inputs are not symmetric: the mean of")
    assert all(line.startswith("fastsym: warning: ") for line in err.splitlines())


def test_progress_bar_on_a_terminal_only(files, run, tmp_path, monkeypatch):
    folder, _ = files
    command = ("fit", folder / "X.npy", folder / "Y.npy", "-o", tmp_path / "m.npz")
    assert run(*command)[2] == ""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        run(*command)
        monkeypatch.undo()
        shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "40,000 of 40,000 samples" in shown
