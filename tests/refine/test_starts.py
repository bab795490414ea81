"""Starts are values that come one by one, from generators of any kind."""

import warnings

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fastsym import TwoLayerNetwork, TwoLayerRegressor, make_two_layer
from fastsym.activation import Activation
from fastsym.refine import Start, refine
from fastsym.refine.problem import Problem
from fastsym.refine.search import search
from fastsym.refine.starts import kicked, moment_starts, repaired, spectral_start
from fastsym.sources import from_arrays


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
    with pytest.raises(TypeError, match="start must be a TwoLayerNetwork, a Start or an iterable"):
        refine(source, 3)


def test_the_next_start_has_its_turn_where_nothing_is_certified(samples):
    X, Y, network = samples
    bad = TwoLayerNetwork(np.eye(3, 5), np.ones((4, 3)))
    result = refine(
        from_arrays(X, Y), [Start("bad", bad), Start("truth", network, True)], max_starts=1
    )
    assert result.certificate == "spectral"
    best = refine(from_arrays(X, Y), network, trusted=True)
    np.testing.assert_allclose(result.loss, best.loss, rtol=1e-6)


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
    assert not spectral_start(solution, fit_intercept=True).trusted


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
