import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsym import datasets, make_two_layer
from fastsym.datasets import DISTRIBUTIONS, make_network, sample_blocks, stream_two_layer


@pytest.mark.parametrize("shape", [(5, 5, 5), (9, 4, 6), (3, 1, 1)])
def test_singular_values_are_powers(shape):
    d, k, m = shape
    network = make_network(d, k, m, hidden_condition=30, output_condition=7, random_state=0)
    for matrix, condition in ((network.hidden_weights, 30), (network.output_weights, 7)):
        expected = condition ** -(np.arange(k) / max(k - 1, 1))
        np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False), expected)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_distributions_are_symmetric_with_the_stated_second_moments(distribution):
    X, _, _ = make_two_layer(200_000, 3, 2, 2, distribution=distribution, random_state=0)
    C = X.T @ X / len(X)
    expected = np.eye(3) + (np.ones((3, 3)) if distribution == "gaussian_mixture" else 0)
    np.testing.assert_allclose(C, expected, atol=0.03)
    deviation = X.std(axis=0) / np.sqrt(len(X))
    assert (np.abs(X.mean(axis=0)) < 4 * deviation).all()
    cubes = X**3
    assert (np.abs(cubes.mean(axis=0)) < 5 * cubes.std(axis=0) / np.sqrt(len(X))).all()


def test_distributions_have_their_shape():
    def draw(name):
        return make_two_layer(100_000, 3, 2, 2, distribution=name, random_state=0)[0]

    assert set(np.unique(draw("rademacher"))) == {-1, 1}
    assert np.abs(draw("uniform")).max() <= np.sqrt(3)
    np.testing.assert_allclose(np.linalg.norm(draw("sphere"), axis=1), np.sqrt(3))
    kurtosis = {name: (draw(name) ** 4).mean() for name in ("gaussian", "laplace", "student_t")}
    np.testing.assert_allclose(kurtosis["gaussian"], 3, rtol=0.03)
    np.testing.assert_allclose(kurtosis["laplace"], 6, rtol=0.06)
    assert kurtosis["student_t"] > 6


def test_noise_has_the_stated_deviation():
    X, Y, network = make_two_layer(100_000, 3, 2, 4, noise=0.3, random_state=0)
    residual = Y - network.predict(X)
    np.testing.assert_allclose(residual.T @ residual / len(X), 0.09 * np.eye(4), atol=2e-3)
    X, Y, network = make_two_layer(100, 3, 2, 4, random_state=0)
    np.testing.assert_array_equal(Y, network.predict(X))


@given(st.integers(1, 60), st.sampled_from(sorted(DISTRIBUTIONS)))
def test_blocks_are_the_same_samples(block_rows, distribution):
    settings = {"distribution": distribution, "noise": 0.1, "random_state": 5}
    X, Y, network = make_two_layer(101, 4, 3, 3, **settings)
    streamed, blocks = stream_two_layer(101, 4, 3, 3, block_rows=block_rows, **settings)
    blocks = list(blocks)
    assert all(len(x) == len(y) <= block_rows for x, y in blocks)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in blocks]), X)
    # Products of matrices of different sizes differ in the last bit.
    np.testing.assert_allclose(np.concatenate([y for _, y in blocks]), Y, atol=1e-14)
    np.testing.assert_array_equal(streamed.hidden_weights, network.hidden_weights)


def test_random_state_forms():
    kinds = [0, np.random.SeedSequence(0), np.random.default_rng(0), np.random.RandomState(0)]
    for kind in kinds:
        assert make_two_layer(10, 3, 2, 2, random_state=kind)[0].shape == (10, 3)
    one, two = (make_two_layer(10, 3, 2, 2, random_state=7)[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(make_two_layer(10, 3, 2, 2)[0], make_two_layer(10, 3, 2, 2)[0])


def test_callable_distribution():
    X, _, _ = make_two_layer(
        50, 3, 2, 2, distribution=lambda rng, n, d: rng.integers(-1, 2, (n, d)), random_state=0
    )
    assert set(np.unique(X)) == {-1, 0, 1}
    assert X.dtype == np.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_hidden": 4}, "n_hidden must be from 1 to .* = 3, got 4"),
        ({"n_hidden": 0}, "n_hidden must be"),
        ({"n_samples": -1}, "n_samples must be at least 0"),
        ({"noise": -0.1}, "noise must be at least 0"),
        ({"noise": np.nan}, "noise must be at least 0"),
        ({"hidden_condition": 0.5}, "hidden_condition must be at least 1"),
        ({"output_condition": np.inf}, "output_condition must be at least 1"),
        ({"distribution": "cauchy"}, "distribution must be one of gaussian, .*got 'cauchy'"),
        (
            {"distribution": lambda rng, n, d: np.zeros(n)},
            r"must return an array of shape \(10, 3\)",
        ),
    ],
)
def test_bad_parameters(change, message):
    arguments = {"n_samples": 10, "n_features": 3, "n_hidden": 2, "n_outputs": 3} | change
    with pytest.raises(ValueError, match=message):
        make_two_layer(**arguments)


def test_no_samples():
    X, Y, _ = make_two_layer(0, 3, 2, 2, random_state=0)
    assert X.shape == (0, 3)
    assert Y.shape == (0, 2)
    assert list(sample_blocks(datasets.make_network(3, 2, 2), 0)) == []
