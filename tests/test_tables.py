"""The tables of networks of any kind run at a tiny size, and judge as they say."""

import numpy as np
import pytest

import fastsym
from benchmarks.tables import (
    any_network,
    biases,
    competitors,
    multitask,
    real_data,
    skip,
    wide_speed,
)
from benchmarks.tables.any_network import Cell, descended, draw, is_found, loss_of
from benchmarks.tables.fits import has_torch

TINY = "--sizes 3,2,2 --kinds 0,0 0.5,0.3 --problems 1 --rows 300"
CALLS = {
    "any_network": (any_network, f"{TINY} --inputs gaussian clusters", 5),
    "biases": (biases, "--problems 1 --rows 200", 5),
    "competitors": (competitors, f"{TINY} --inputs gaussian --seconds 0.05", 4),
    "multitask": (multitask, "--problems 1 --rows 200", 1),
    "real_data": (real_data, "iris --models TwoLayerRegressor ridge --repeats 1", 3),
    "skip": (skip, "--cells 3,2,2,0,0 3,2,2,0.5,0.3 --problems 1 --rows 300", 2),
    "wide_speed": (wide_speed, "3,2,2,300 --problems 1", 1),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore")
def test_a_table_runs(name, capsys):
    module, arguments, least_lines = CALLS[name]
    module.main(arguments.split())
    assert len(capsys.readouterr().out.splitlines()) >= least_lines


def test_fits_that_were_done_are_not_done_again(tmp_path, capsys, monkeypatch):
    path = tmp_path / "results.jsonl"
    arguments = ["iris", "--models", "ridge", "--repeats", "1", "--results", str(path)]
    real_data.main(arguments)
    first = capsys.readouterr().out
    monkeypatch.setattr(real_data, "held_out", None)
    real_data.main(arguments)
    assert capsys.readouterr().out == first


@pytest.fixture(params=[(0.0, 0.0), (0.5, 0.3)], ids=["exact", "noisy"])
def problem(request):
    return draw(Cell(6, 4, 2, *request.param), seed=1, number=0, n=2000)


def changed(network, sign=1.0, turn=0.0):
    W, b = network.hidden_weights.copy(), network.hidden_intercept.copy()
    W[0], b[0] = sign * W[0], sign * b[0]
    W[1] += turn
    return fastsym.TwoLayerNetwork(
        W[::-1], network.output_weights[:, ::-1], hidden_intercept=b[::-1]
    )


def test_the_truth_is_found_and_another_network_is_not(problem):
    assert is_found(problem, descended(problem, changed(problem.truth, turn=1e-3)))
    assert not is_found(problem, loss_of(problem, changed(problem.truth, turn=0.2)))
    assert not is_found(problem, loss_of(problem, changed(problem.truth, sign=-1.0)))


def test_a_wrong_sign_is_seen_in_any_order(problem):
    assert any_network.signs_are_right(problem.truth, changed(problem.truth))
    assert not any_network.signs_are_right(problem.truth, changed(problem.truth, sign=-1.0))


def test_problems_are_as_described():
    cell = Cell(5, 7, 3, 1.0, 0.0, "clusters")
    one, other = draw(cell, 1, 0), draw(cell, 1, 0)
    np.testing.assert_array_equal(one.Y, other.Y)
    assert not np.array_equal(one.Y, draw(cell, 1, 1).Y)
    np.testing.assert_allclose(np.linalg.norm(one.truth.hidden_weights, axis=1), 1)
    np.testing.assert_allclose((one.X**2).mean(), 1)
    np.testing.assert_allclose(one.Y.std(axis=0).mean(), 1)


def test_units_that_recur_are_kept_up_to_sign(problem):
    truth = problem.truth
    other = fastsym.TwoLayerNetwork(
        np.vstack([-2 * truth.hidden_weights, np.ones((1, 6))]),
        np.hstack([truth.output_weights, np.ones((2, 1))]),
        hidden_intercept=np.append(-2 * truth.hidden_intercept, 3.0),
    )
    units = competitors.recurring([truth, other])
    expected = np.column_stack([truth.hidden_intercept, truth.hidden_weights])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert len(units) == 4
    np.testing.assert_allclose(np.abs(units @ expected.T).max(axis=0), 1)


@pytest.mark.skipif(not has_torch(), reason="PyTorch is not installed")
def test_students_have_the_loss_of_their_networks(problem):
    student = competitors.Student(problem.X, problem.Y, 3, True, np.random.default_rng(0), True)
    expected = loss_of(problem, student.network()) / 2
    np.testing.assert_allclose(student.loss().item(), expected)


def test_a_picture_of_starts_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    counts = {Cell(3, 2, 2, 0.0, 0.0): dict.fromkeys(skip.STARTS, 1)}
    skip.picture(counts, 2, tmp_path / "starts.png")
    assert (tmp_path / "starts.png").read_bytes().startswith(b"\x89PNG")
