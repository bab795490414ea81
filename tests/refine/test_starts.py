"""Starts are values that come one by one, from generators of any kind."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fastsym import TwoLayerNetwork, TwoLayerRegressor, _validation, make_two_layer
from fastsym.activation import Activation
from fastsym.refine import Start, refine, spread_sample
from fastsym.refine import search as search_module
from fastsym.refine.certificates import Verdict
from fastsym.refine.lack_of_fit import UNTESTED
from fastsym.refine.problem import Problem
from fastsym.refine.search import search
from fastsym.refine.starts import (
    kicked,
    moment_starts,
    random_starts,
    repaired,
    spectral_start,
)
from fastsym.sources import PairedRows, from_arrays


@pytest.fixture(scope="module")
def samples():
    return make_two_layer(2000, 5, 3, 4, noise=0.2, random_state=0)


def drawn(network, seed):
    rng = np.random.default_rng([seed, 77])
    shapes = network.hidden_weights.shape, network.output_weights.shape
    return TwoLayerNetwork(*(rng.standard_normal(shape) for shape in shapes))


def test_a_later_start_is_not_asked_for_when_one_is_certified(samples):
    X, Y, network = samples

    def starts():
        yield Start("truth", network, trusted=True)
        raise AssertionError("the first was certified")

    result = refine(from_arrays(X, Y), starts())
    assert result.certificate == "spectral"
    assert len(result.start_losses) == 1


def test_a_start_a_network_and_an_iterable_are_one(samples):
    X, Y, network = samples
    source = from_arrays(X, Y)
    given = [
        refine(source, start, trusted=True) if start is network else refine(source, start)
        for start in (network, Start("given", network, True), [Start("given", network, True)])
    ]
    for other in given[1:]:
        np.testing.assert_array_equal(given[0].network.hidden_weights, other.network.hidden_weights)
    with pytest.raises(
        TypeError,
        match="start must be a TwoLayerNetwork, a Start or an iterable of these, got float",
    ):
        refine(source, 3.0)


def test_the_next_start_has_its_turn_where_nothing_is_certified(samples):
    X, Y, network = samples
    bad = TwoLayerNetwork(np.eye(3, 5), np.ones((4, 3)))
    result = refine(
        from_arrays(X, Y), [Start("bad", bad), Start("truth", network, True)], max_starts=1
    )
    assert result.certificate == "spectral"
    best = refine(from_arrays(X, Y), network, trusted=True)
    np.testing.assert_allclose(result.loss, best.loss, rtol=1e-5)


def test_a_new_kind_of_start_is_one_generator(samples, capsys):
    X, Y, network = samples
    problem = Problem(X, Y, None, 3, Activation())
    lines = []
    found = search(
        problem, (Start("drawn", drawn(network, seed)) for seed in range(20)), say=lines.append
    )
    assert found.certificate in ("agreement", "no lack of fit")
    assert all("(drawn)" in line or "(repaired)" in line for line in lines)
    best = problem.fit(problem.point(network))
    assert found.fits[-1].residuals.loss <= 1.001 * best.residuals.loss


def test_every_generator_gives_starts_of_the_problem(samples):
    X, Y, network = samples
    problem = Problem(X, Y, None, 3, Activation())
    fit = problem.fit(problem.point(network))
    rng = np.random.default_rng(0)
    doubled = fit.point._replace(hidden=fit.point.hidden[[0, 0, 2]])
    kinds = [
        next(moment_starts(problem, rng)),
        next(random_starts(problem, rng)),
        next(repaired(problem, doubled)),
        *kicked(problem, [fit], rng),
    ]
    for start in kinds:
        point = start.point(problem)
        assert point.hidden.shape == fit.point.hidden.shape
        np.testing.assert_allclose(np.linalg.norm(point.hidden, axis=1), 1, rtol=1e-12)
        assert not start.trusted
    assert list(repaired(problem, fit.point)) == []


def test_what_knows_nothing_of_intercepts_is_not_trusted_with_them(samples):
    X, Y, _ = samples
    solution = TwoLayerRegressor(3, refine=False).fit(X, Y)._fitted.solution
    assert solution.diagnostics.clear
    assert spectral_start(solution).trusted
    problem = Problem(X, Y, None, 3, Activation(), fit_intercept=True)
    found = search(problem, [spectral_start(solution)], max_starts=1)
    assert found.certificate != "spectral"


def test_too_few_samples_are_an_error():
    X, Y, network = make_two_layer(5, 5, 3, 4, random_state=0)
    with pytest.raises(ValueError, match="too few samples: n_samples=5 with n_features=5"):
        refine(from_arrays(X, Y), network)


def poor():
    """Samples of which nothing certifies the optimum."""
    X, Y, _ = make_two_layer(80, 6, 6, 6, noise=3.0, random_state=0)
    return X, Y


@pytest.mark.parametrize("way", ["fit", "pipeline", "refine", "partial_fit", "moments"])
def test_warnings_name_the_line_of_the_user(way):
    X, Y = poor()
    model = TwoLayerRegressor(6, refine=way != "moments")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if way in ("fit", "moments"):
            model.fit(X, Y)
        elif way == "pipeline":
            make_pipeline(FunctionTransformer(), model).fit(X, Y)
        elif way == "refine":
            network = TwoLayerNetwork(np.eye(6), np.ones((6, 6)))
            refine(from_arrays(X, Y), network, max_starts=2)
        else:
            model.partial_fit(X, Y)
            _ = model.hidden_weights_
    assert caught
    assert {each.filename for each in caught} == {__file__}


def test_values_of_a_checked_sample_are_not_looked_at_again(monkeypatch):
    X, Y, network = make_two_layer(500, 4, 3, 3, noise=0.1, random_state=0)
    source = from_arrays(X, Y)
    sample = spread_sample(source, 3)
    assert sample.checked
    looked = []
    monkeypatch.setattr(_validation, "check_finite", lambda name, *_: looked.append(name))
    refine(source, network, sample=sample, trusted=True)
    assert looked == []
    refine(source, network, sample=PairedRows(sample.X, sample.Y), trusted=True)
    assert looked == ["X", "Y"]
    with pytest.raises(ValueError, match="X has 4 features, expected 5"):
        refine(source, TwoLayerNetwork(np.ones((3, 5)), np.ones((3, 3))), sample=sample)


def test_a_certificate_of_a_higher_optimum_does_not_count(monkeypatch):
    found = {"a": (2.0, "none"), "b": (3.0, "spectral"), "c": (1.0, "agreement"), "d": (0.0, "")}
    asked = []

    def scripted(problem, starts, *how):
        loss, certificate = found[next(starts).name]
        fit = SimpleNamespace(residuals=SimpleNamespace(loss=loss))
        lack = UNTESTED._replace(misfit=loss)
        return search_module.SearchResult([fit], Verdict(certificate, lack), [fit])

    def starts():
        for name in found:
            asked.append(name)
            yield Start(name, None)

    monkeypatch.setattr(search_module, "search", scripted)
    monkeypatch.setattr(search_module, "followed_by_others", lambda _, start, *how: iter([start]))
    problem = SimpleNamespace(unit=0.01)
    result = search_module.search_in_turn(problem, starts())
    assert asked == ["a", "b", "c"]
    assert [fit.residuals.loss for fit in result.fits] == [2.0, 3.0, 1.0]
    assert (result.certificate, result.verdict.lack_of_fit.misfit) == ("agreement", 1.0)
    del found["c"], found["d"]
    assert search_module.search_in_turn(problem, starts()).certificate == "none"


def test_inputs_of_zeros_are_an_error():
    source = from_arrays(np.zeros((50, 3)), np.ones((50, 2)))
    with pytest.raises(ValueError, match="X is zero in every sample, which determines no weights"):
        refine(source, TwoLayerNetwork(np.ones((1, 3)), np.ones((2, 1))))


def test_networks_in_an_iterable_are_starts_and_nothing_else_is(samples):
    X, Y, network = samples
    source, bad = from_arrays(X, Y), TwoLayerNetwork(np.eye(3, 5), np.ones((4, 3)))
    one, other = refine(source, [network, bad]), refine(source, network)
    np.testing.assert_array_equal(one.network.hidden_weights, other.network.hidden_weights)
    leaky = TwoLayerNetwork(np.eye(3, 5), np.ones((4, 3)), negative_slope=0.5)
    with pytest.raises(ValueError, match=r"has negative_slope=0.5, the first one 0.0"):
        refine(source, [Start("bad", bad), Start("leaky", leaky)], max_starts=1)
    with pytest.raises(TypeError, match="or an iterable of these, got int"):
        refine(source, [Start("bad", bad), 3], max_starts=1)
