"""Moments to a network: exact on populations, equivariant, and accurate on samples."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import MomentAccumulator, make_two_layer, parameter_error, spectral
from fastsym.datasets import DISTRIBUTIONS, make_network
from fastsym.engine import accumulate, accumulate_direct, accumulate_linear
from fastsym.exceptions import (
    AsymmetricInputWarning,
    RankDeficientWarning,
    SpectralGapWarning,
)
from fastsym.metrics import output_error
from fastsym.sources import from_arrays
from fastsym.sums.frame import estimate_frame

from .. import naive


def moments_of(X, Y, k, **kwargs):
    return MomentAccumulator(k, **kwargs).update(X, Y).moments()


def recover(X, Y, k, method="uwedge", random_state=0):
    return spectral.solve(moments_of(X, Y, k), method=method, random_state=random_state)


# Exactly symmetric samples are a population: every moment is exact, and so must the answer be.


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (5, 1, 1), (5, 1, 4), (2, 2, 2), (6, 3, 5), (8, 8, 8)]
)
def test_exact_moments_give_the_exact_network(shape, rng):
    d, k, m = shape
    network = make_network(d, k, m, hidden_condition=3, output_condition=2, random_state=rng)
    X = naive.antithetic(rng.standard_normal((2000, d)) @ rng.standard_normal((d, d)))
    network_, diagnostics = recover(X, network.predict(X), k)
    assert max(parameter_error(network, network_)) < 1e-18
    assert output_error(network.predict(X), network_.predict(X)) < 1e-18
    assert diagnostics.residual < 1e-8
    np.testing.assert_allclose(np.linalg.norm(network_.hidden_weights, axis=1), 1)


@pytest.mark.parametrize("shape", [(2, 2, 2), (6, 3, 5), (8, 8, 8)])
@pytest.mark.parametrize("method", ["als", "pair"])
def test_exact_moments_with_the_recipes_of_the_paper(shape, method, rng):
    # Orthonormal weights: alternating least squares crawls when the z_i are close to each other.
    network = make_network(*shape, random_state=rng)
    X = naive.antithetic(rng.standard_normal((2000, shape[0])))
    estimate, _ = recover(X, network.predict(X), shape[1], method)
    assert max(parameter_error(network, estimate)) < (1e-8 if method == "als" else 1e-14)


def test_all_sign_vectors_are_an_exact_population(rng):
    X = np.array(np.meshgrid(*[[-1.0, 1.0]] * 7)).reshape(7, -1).T
    network = make_network(7, 4, 5, hidden_condition=2, random_state=rng)
    estimate, _ = recover(X, network.predict(X), 4)
    assert max(parameter_error(network, estimate)) < 1e-18


def test_noise_does_not_bias_the_null_space(rng):
    # The same noise at x and -x and of either sign: an exact population with noise.
    network = make_network(4, 4, 5, random_state=rng)
    X = naive.antithetic(rng.standard_normal((1000, 4)))
    Y = network.predict(X)
    basis = rng.standard_normal((5, 3))  # noise of rank 3, covariance far from white
    X_all = np.concatenate([X] * 6)
    Y_all = np.concatenate([Y + sign * basis[:, i] for i in range(3) for sign in (-1, 1)])
    estimate, diagnostics = recover(X_all, Y_all, 4)
    assert max(parameter_error(network, estimate)) < 1e-18
    assert diagnostics.singular_values[-4] < 1e-12


@pytest.mark.parametrize("shape", [(3, 3, 3), (4, 2, 5)])
def test_distinguishing_matrix_agrees_with_full_tensors(shape):
    d, k, m = shape
    X, Y, _ = make_two_layer(700, d, k, m, noise=0.3, random_state=1)
    # A frame from other samples: then the whitening of all samples is not trivial.
    pilot = MomentAccumulator(k).update(X[:300], Y[:300]).moments().frame
    moments = MomentAccumulator(frame=pilot).update(X, Y).moments()
    problem = spectral.whiten(moments)
    x = X @ pilot.input_map @ problem.input_whitening
    y = Y @ problem.output_map
    np.testing.assert_allclose(x.T @ x / len(x), np.eye(k), atol=1e-12)
    expected = naive.distinguishing_matrix(x, y)
    np.testing.assert_allclose(
        spectral.distinguishing_matrix(moments, problem), expected, atol=1e-12
    )


@pytest.mark.parametrize(
    ("k", "dtype"), [(2, "float64"), (9, "float64"), (9, "float32"), (26, "float64")]
)
def test_two_passes_give_the_matrix_of_one(k, dtype):
    X, Y, _ = make_two_layer(9000, k + 3, k, k + 1, noise=0.1, random_state=0)
    source = from_arrays(X, Y)
    frame = estimate_frame(X[:4000], Y[:4000], k)
    one = accumulate(source, frame=frame, compute_dtype=dtype).moments()
    linear = accumulate_linear(source, frame, compute_dtype=dtype)
    problem = spectral.whiten(linear)
    two = accumulate_direct(
        source, linear, problem.input_map, problem.output_map, compute_dtype=dtype
    )
    np.testing.assert_allclose(
        spectral.distinguishing_matrix(two, problem),
        spectral.distinguishing_matrix(one, spectral.whiten(one)),
        atol=1e-12 if dtype == "float64" else 3e-5,
    )
    # U-WEDGE stops when its criterion changes by 1e-12, so the weights agree to about 1e-6.
    error = parameter_error(spectral.solve(one).network, spectral.solve(two).network)
    assert max(error) < (1e-11 if dtype == "float64" else 1e-5)
    with pytest.raises(ValueError, match="direct form hold for method"):
        spectral.solve(two, method="pair")
    own = spectral.solve(two, method=lambda matrices, seed: spectral.uwedge(matrices, seed))
    np.testing.assert_array_equal(
        own.network.hidden_weights, spectral.solve(two).network.hidden_weights
    )
    with pytest.raises(ValueError, match="9000 samples in the first pass and 8000 in the second"):
        shorter = from_arrays(X[:8000], Y[:8000])
        accumulate_direct(shorter, linear, problem.input_map, problem.output_map)


def test_linear_part_is_least_squares():
    X, Y, network = make_two_layer(5000, 5, 3, 4, noise=0.1, random_state=1)
    moments = moments_of(X, Y, 3)
    plain = spectral.linear_part(moments, reduce_variance=False)
    np.testing.assert_allclose(plain, 2 * np.linalg.lstsq(X, Y, rcond=None)[0], atol=1e-12)
    truth = (network.output_weights @ network.hidden_weights).T
    errors = [np.linalg.norm(B - truth) for B in (plain, spectral.linear_part(moments))]
    assert errors[1] < 0.6 * errors[0]


def test_one_neuron_is_algorithm_1(rng):
    X, y, network = make_two_layer(3000, 6, 1, 1, noise=0.1, random_state=2)
    literal = np.linalg.solve(X.T @ X, 2 * X.T @ y[:, 0])
    estimate, diagnostics = recover(X, y, 1, "pair")
    np.testing.assert_allclose(estimate.output_weights[0, 0] * estimate.hidden_weights[0], literal)
    assert diagnostics.gap == np.inf
    # By default the same expectation is taken with a control variate: equal on a population.
    X = naive.antithetic(X)
    y = network.predict(X)
    literal = np.linalg.solve(X.T @ X, 2 * X.T @ y[:, 0])
    estimate, _ = recover(X, y, 1)
    np.testing.assert_allclose(estimate.output_weights[0, 0] * estimate.hidden_weights[0], literal)


# Laws of the whole recovery on finite samples


@given(st.integers(0, 10**6))
def test_equivariance(seed):
    """Rotated, scaled inputs and mixed outputs give the network of those coordinates."""
    rng = np.random.default_rng(seed)
    X, Y, _ = make_two_layer(3000, 4, 3, 4, noise=0.05, random_state=seed)
    change_x = rng.standard_normal((4, 4)) + 3 * np.eye(4)
    change_y = rng.standard_normal((4, 4)) + 3 * np.eye(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, _ = recover(X, Y, 3)
        two, _ = recover(X @ change_x, Y @ change_y, 3)
    Q = rng.standard_normal((50, 4))
    np.testing.assert_allclose(two.predict(Q @ change_x), one.predict(Q) @ change_y, atol=1e-5)


@given(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30))
def test_units_do_not_matter(unit_x, unit_y):
    X, Y, _ = make_two_layer(2000, 4, 3, 4, noise=0.05, random_state=0)
    one, _ = recover(X, Y, 3)
    two, _ = recover(X * unit_x, Y * unit_y, 3)
    assert max(parameter_error(one, two)) < 1e-16


def test_permuted_columns_permute_the_weights(rng):
    X, Y, _ = make_two_layer(5000, 5, 3, 4, noise=0.05, random_state=0)
    one, _ = recover(X, Y, 3)
    px, py = rng.permutation(5), rng.permutation(4)
    two, _ = recover(X[:, px], Y[:, py], 3)
    Q = rng.standard_normal((50, 5))
    np.testing.assert_allclose(two.predict(Q[:, px]), one.predict(Q)[:, py], atol=1e-9)


# Accuracy on samples: the bounds of the project, at its sizes where these are quick


@pytest.mark.filterwarnings("ignore::fastsym.exceptions.SpectralGapWarning")
def test_paper_section_6():
    # One random pair is heavy-tailed: averages of ten trials range from 0.15 to 0.35.
    errors = {"uwedge": [], "pair": []}
    for seed in range(10, 20):
        X, Y, network = make_two_layer(10_000, 10, 10, 10, random_state=seed)
        moments = moments_of(X, Y, 10)
        for method, list_ in errors.items():
            estimate = spectral.solve(moments, method=method, random_state=seed).network
            list_.append(parameter_error(network, estimate, up_to_sign=False)[:2])
    hidden, output = np.mean(errors["uwedge"], axis=0)
    assert hidden < 0.005
    assert output < 0.01
    assert np.all(np.mean(errors["pair"], axis=0) > 0.05)
    assert np.all(np.mean(errors["pair"], axis=0) < 0.3)


def test_no_doubled_neurons_at_32():
    X, Y, network = make_two_layer(10_000, 32, 32, 32, noise=0.3, random_state=0)
    estimate, _ = recover(X, Y, 32)
    assert parameter_error(network, estimate).hidden_error < 0.01 * 32


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_distributions(distribution, seed):
    X, Y, network = make_two_layer(
        100_000, 8, 8, 8, distribution=distribution, noise=0.1, random_state=seed
    )
    estimate, _ = recover(X, Y, 8)
    assert parameter_error(network, estimate).hidden_error < 0.05


def test_a_nearly_unidentifiable_network_warns():
    # The 128 sign vectors of this network nearly admit a ninth pure neuron: the smallest singular
    # value that is not zero in the population is 0.002, the others are 0.05 and more.
    X, Y, _ = make_two_layer(100_000, 8, 8, 8, distribution="rademacher", noise=0.1, random_state=0)
    with pytest.warns(SpectralGapWarning, match=r"residual of 0\.\d\d .* blurred"):
        _, diagnostics = recover(X, Y, 8)
    assert diagnostics.singular_values[-9] < 0.003


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_more_features_and_outputs_than_neurons(dtype):
    X, Y, network = make_two_layer(60_000, 100, 8, 20, noise=0.1, random_state=0)
    moments = moments_of(X, Y, 8, compute_dtype=dtype)
    estimate, _ = spectral.solve(moments)
    hidden, output, wrong_signs, _ = parameter_error(network, estimate)
    assert wrong_signs == 0
    assert hidden < 0.02
    assert output < 0.002


def test_auto_finds_the_number_of_neurons():
    found = 0
    rng = np.random.default_rng(0)
    for seed in range(20):
        k = int(rng.integers(2, 13))
        d, m = rng.integers(k, 31, 2)
        X, Y, _ = make_two_layer(20_000, d, k, m, noise=0.1, random_state=seed)
        found += MomentAccumulator("auto").update(X, Y).frame.n_hidden == k
    assert found >= 19


@pytest.mark.parametrize("distribution", ["student_t", "gaussian_mixture"])
def test_auto_with_heavy_tails_and_much_noise(distribution):
    X, Y, _ = make_two_layer(
        20_000, 15, 4, 12, distribution=distribution, noise=1.0, random_state=0
    )
    assert MomentAccumulator("auto").update(X, Y).frame.n_hidden == 4


def test_random_state_of_uwedge_changes_rounding_only():
    X, Y, _ = make_two_layer(10_000, 6, 6, 6, noise=0.1, random_state=0)
    moments = moments_of(X, Y, 6)
    one = spectral.solve(moments).network
    np.testing.assert_array_equal(
        one.hidden_weights, spectral.solve(moments).network.hidden_weights
    )
    for seed in range(5):
        other = spectral.solve(moments, random_state=seed).network
        assert max(parameter_error(one, other)) < 1e-10


# Warnings and errors


def test_symmetric_inputs_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for distribution in DISTRIBUTIONS:
            X, Y, _ = make_two_layer(20_000, 5, 3, 4, distribution=distribution, random_state=3)
            recover(X, Y, 3)


def test_asymmetric_inputs_warn_with_the_figure(rng):
    network = make_network(4, 3, 4, random_state=0)
    shifted = rng.standard_normal((5000, 4)) + np.array([0, 0, 0.3, 0])
    with pytest.warns(
        AsymmetricInputWarning, match=r"mean of feature 2 is \d+\.\d standard errors"
    ):
        recover(shifted, network.predict(shifted), 3)
    skewed = rng.standard_exponential((5000, 4)) - 1
    with pytest.warns(AsymmetricInputWarning, match="third moment of feature"):
        recover(skewed, network.predict(skewed), 3)


def test_no_gap_warns_with_the_figure(rng):
    X, Y = rng.standard_normal((2, 3000, 4))
    with pytest.warns(
        SpectralGapWarning, match=r"canonical correlation 3 of x and y is 0\.0\d+"
    ) as caught:
        recover(X, Y, 3)
    assert caught[0].filename == __file__
    # Linear in x: every direction is as good a neuron as any other.
    with pytest.warns(SpectralGapWarning, match=r"only 1\.\d\d times"):
        recover(X, np.abs(X) @ rng.standard_normal((4, 4)) * 3 + X, 4)


def test_rank_deficient_inputs_warn_and_give_the_least_norm_weights(rng):
    network = make_network(4, 3, 4, random_state=0)
    X = rng.standard_normal((5000, 4))
    Y = network.predict(X)
    wide = np.concatenate([X, X[:, :1], np.zeros((5000, 1))], axis=1)
    with pytest.warns(RankDeficientWarning, match="rank 4 of 6"):
        estimate, _ = recover(wide, Y, 3)
    plain, _ = recover(X, Y, 3)
    np.testing.assert_allclose(estimate.predict(wide), plain.predict(X), atol=1e-9)
    np.testing.assert_allclose(estimate.hidden_weights[:, 5], 0, atol=1e-12)
    np.testing.assert_allclose(estimate.hidden_weights[:, 0], estimate.hidden_weights[:, 4])


def test_constant_inputs_or_outputs():
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    with pytest.raises(ValueError, match="X is zero in every sample"):
        recover(np.zeros_like(X), Y, 1)
    with pytest.raises(ValueError, match="Y is constant in every sample"):
        recover(X, np.ones_like(Y), 1)


def test_unknown_method():
    X, Y, _ = make_two_layer(100, 3, 2, 2, random_state=0)
    with pytest.raises(ValueError, match="uwedge, pair, als, got 'jade'"):
        recover(X, Y, 2, "jade")
    with pytest.raises(ValueError, match=r"uwedge, pair, als, got \['als'\]"):
        recover(X, Y, 2, ["als"])


def test_the_table_of_methods():
    assert list(spectral.METHODS) == ["uwedge", "pair", "als"]
    functions = [method.function for method in spectral.METHODS.values()]
    assert functions == [spectral.uwedge, spectral.random_pair, spectral.cp_als]
    # The recipes of the paper have no control variate, and are drawn anew each time.
    assert [method.reduce_variance for method in spectral.METHODS.values()] == [True, False, False]
    assert [method.seed for method in spectral.METHODS.values()] == [0, None, None]


def test_a_callable_as_method():
    X, Y, _ = make_two_layer(3000, 5, 3, 4, noise=0.1, random_state=0)
    moments = moments_of(X, Y, 3)
    called = []

    def mine(matrices, random_state):
        called.append((matrices.shape, random_state))
        return spectral.uwedge(matrices, random_state)

    # With the control variate and seed 0, as U-WEDGE has them.
    (network, diagnostics), (expected, _) = (
        spectral.solve(moments, method=method) for method in (mine, "uwedge")
    )
    np.testing.assert_array_equal(network.hidden_weights, expected.hidden_weights)
    np.testing.assert_array_equal(network.output_weights, expected.output_weights)
    assert diagnostics.method == "mine"
    spectral.solve(moments, method=mine, random_state=7)
    assert called == [((3, 3, 3), 0), ((3, 3, 3), 7)]

    class Jade:
        def __call__(self, matrices, random_state):
            return spectral.random_pair(matrices, random_state)

    assert spectral.solve(moments, method=Jade()).diagnostics.method == "Jade"
    for result in (np.eye(3), spectral.JointDiagonalization(np.eye(2), 0.0)):
        with pytest.raises(ValueError, match=r"method wrong must return a JointDiag.*\(3, 3\)"):

            def wrong(matrices, random_state, result=result):
                return result

            spectral.solve(moments, method=wrong)


def test_symmetry_scores_are_standard_normal_with_weights():
    rng = np.random.default_rng(8)
    X, weights = rng.standard_normal((4000, 60)), 1e3 * rng.exponential(size=4000) ** 2
    moments = MomentAccumulator(1).update(X, np.abs(X[:, :1]) + X[:, :1], weights).moments()
    scores = spectral.symmetry_test(moments)
    # The standard error of a standard deviation of 60 scores is 0.09.
    assert 0.73 < scores.mean_scores.std() < 1.27
    assert 0.73 < scores.third_scores.std() < 1.27
