"""The experiments: points, recipes, files, figures."""

import csv
import json
import math

import numpy as np
import pytest

from fastsym import make_two_layer, spectral
from fastsym.datasets import DISTRIBUTIONS
from fastsym.studies import figures, recipes, tensor
from fastsym.studies.experiments import (
    EXPERIMENTS,
    RECIPES,
    Trial,
    n_tensor_trials,
    recovered_from,
    run,
    run_trial,
    square,
)

matplotlib = pytest.importorskip("matplotlib")


def test_points_are_those_of_the_paper():
    points = EXPERIMENTS["sample-efficiency"](False)
    assert {p.n_samples for p in points if p.series == "d=10"} >= {40, 120, 10_000, 100_000}
    assert {p.n_features for p in points if p.series == "dimension"} >= {10, 32}
    assert all(p.n_features == p.n_hidden == p.n_outputs and p.noise == 0 for p in points)
    assert {p.trial for p in points} == set(range(5))
    points = EXPERIMENTS["noise"](False)
    assert {p.distribution for p in points} == {"gaussian", "gaussian_mixture"}
    assert {p.n_samples for p in points} == {10_000}
    points = EXPERIMENTS["conditioning"](False)
    for series, field, other in (
        ("W", "hidden_condition", "output_condition"),
        ("A", "output_condition", "hidden_condition"),
    ):
        mine = [p for p in points if p.series == series]
        assert {getattr(p, field) for p in mine} >= {1, 100}
        assert {getattr(p, other) for p in mine} == {1}
        assert {p.distribution for p in mine} == {"gaussian_mixture"}
    points = EXPERIMENTS["beyond"](True)
    assert {p.distribution for p in points} == set(DISTRIBUTIONS)
    assert any(p.n_features > p.n_hidden for p in points)
    assert any(p.n_outputs > p.n_hidden for p in points)
    for make in EXPERIMENTS.values():
        assert len(make(True)) < len(make(False))


def test_recipes_come_in_the_order_of_the_paper():
    rows = {row["recipe"]: row for row in run_trial(square(6, 5000, series="a", x=1.0))}
    assert list(rows) == list(RECIPES)
    for name in ("hidden_error", "output_weight_error", "output_error"):
        assert rows["refined"][name] < 1e-20
        assert rows["truth"][name] < 1e-20
        assert 1e-9 < rows["spectral"][name] < 1e-2
        assert rows["spectral"][name] < rows["pair"][name]
    assert all(row["failure"] == "" and row["seconds"] > 0 for row in rows.values())
    # The same point gives the same rows.
    again = {row["recipe"]: row for row in run_trial(square(6, 5000, series="a", x=1.0))}
    assert all(again[name]["hidden_error"] == rows[name]["hidden_error"] for name in rows)


def test_too_few_samples_are_a_failure_not_an_error():
    rows = run([square(6, 5, series="a", x=5, recipes=("spectral", "pair"))])
    assert all("too few samples" in row["failure"] for row in rows)
    assert all(math.isnan(row["hidden_error"]) for row in rows)


def test_w_is_fitted_by_gradient_and_a_left_alone():
    X, Y, _ = make_two_layer(3000, 5, 4, 4, noise=0.1, random_state=0)
    from fastsym import accumulate
    from fastsym.sources import from_arrays

    start = spectral.solve(accumulate(from_arrays(X, Y), 4).moments()).network
    fitted = recipes._gradient_fit(X, Y, start)
    np.testing.assert_array_equal(fitted.output_weights, start.output_weights)

    def loss(network):
        return ((network.predict(X) - Y) ** 2).mean()

    assert loss(fitted) < loss(start)
    # A stationary point: the numerical gradient by W vanishes.
    for index in ((0, 0), (2, 3), (3, 1)):
        sides = []
        for step in (-1e-4, 1e-4):
            W = fitted.hidden_weights.copy()
            W[index] += step
            sides.append(loss(type(fitted)(W, fitted.output_weights)))
        assert abs(sides[1] - sides[0]) / 2e-4 < 1e-3


def test_peers():
    pytest.importorskip("torch")
    point = square(3, 1000, series="a", x=1, noise=0.1, recipes=("adam", "lbfgs", "truth"))
    rows = {row["recipe"]: row for row in run_trial(point)}
    assert rows["lbfgs"]["output_error"] < 0.1
    assert rows["adam"]["output_error"] < 0.1


def row(x, error, recipe="refined", series="d=10"):
    return {
        "series": series, "x": x, "n_features": 10, "trial": 0, "recipe": recipe,
        "hidden_error": error, "output_weight_error": error, "output_error": error,
    }  # fmt: skip


def test_recovered_from():
    rows = [row(10, 1), row(20, 1e-3), row(30, 1), row(40, 1e-3), row(40, 1e-9), row(50, 0)]
    assert recovered_from(rows, "refined") == 40
    assert recovered_from([*rows, row(50, math.nan)], "refined") is None
    assert recovered_from([*rows, row(40, math.nan)], "refined") == 50
    assert recovered_from(rows, "pair") is None


def tiny(quick):
    return [
        Trial(series, x, 300, 3, 2, 3, trial=trial, recipes=("pair", "refined", "truth"))
        for series in ("d=10", "dimension")
        for x in (100.0, 300.0)
        for trial in range(2)
    ]


@pytest.mark.parametrize("name", ["sample-efficiency", "noise", "conditioning", "beyond"])
def test_files_of_an_experiment(name, tmp_path, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, name, tiny)
    done = []
    png, table, points = figures.reproduce(name, tmp_path / "new", True, done.append)
    assert done == list(range(1, 9))
    assert png.read_bytes().startswith(b"\x89PNG")
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    content = json.loads(points.read_text(), parse_constant=pytest.fail)
    assert len(rows) == len(content["points"]) == 24
    for mine, theirs in zip(rows, content["points"], strict=True):
        assert float(mine["hidden_error"]) == theirs["hidden_error"]
        assert mine["recipe"] == theirs["recipe"]
    assert content["experiment"] == name
    assert content["quick"] is True


def test_figure_shows_median_and_range():
    rows = [row(x, x * s, series="noise") for x in (1.0, 10.0) for s in (1, 2, 9)]
    axes = figures._lines_figure("noise", rows)
    ax = np.ravel(axes)[0]
    (line,) = ax.get_lines()
    assert list(line.get_xdata()) == [1.0, 10.0]
    assert list(line.get_ydata()) == [2.0, 20.0]
    assert ax.get_yscale() == ax.get_xscale() == "log"
    (band,) = ax.collections
    assert band.get_paths()[0].get_extents().ymax == 90


def test_tensor_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor, "_SHARES", (0.5, 20.0))
    done = []
    _, _, points = figures.reproduce("tensor-connection", tmp_path, True, done.append)
    rows = json.loads(points.read_text())["points"]
    few = [row["ratio"] for row in rows if row["r"] == 6]
    many = [row["ratio"] for row in rows if row["r"] == 240]
    # Far below d units the learned predictor is better than the trivial one, far above it is not.
    assert max(few) < 0.1
    assert min(many) > 0.8
    assert len(done) == 4 == n_tensor_trials(True)


def test_command_line(tmp_path, monkeypatch, run):
    monkeypatch.setitem(EXPERIMENTS, "noise", lambda quick: tiny(quick)[:2])
    code, out, _ = run("reproduce", "noise", "--out", tmp_path, "--json")
    assert code == 0
    assert "noise.png" in json.loads(out)["noise"]
    code, _, err = run("reproduce", "nothing")
    assert code == 2
    assert "must be one of sample-efficiency, noise" in err
    with pytest.raises(ValueError, match="experiment must be one of"):
        figures.reproduce("nothing", tmp_path)
