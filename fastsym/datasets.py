"""Samples of random two-layer networks with symmetric inputs, for tests, benchmarks and trials."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastsym._validation import as_generator
from fastsym.algebra import Matrix
from fastsym.network import TwoLayerNetwork

Sampler = Callable[[np.random.Generator, int, int], Matrix]


def _gaussian(rng: np.random.Generator, n: int, d: int) -> Matrix:
    return rng.standard_normal((n, d))


def _gaussian_mixture(rng: np.random.Generator, n: int, d: int) -> Matrix:
    # The sign is the first of 1 + d normals of a sample, so that one stream gives both.
    normals = rng.standard_normal((n, 1 + d))
    return normals[:, 1:] + np.where(normals[:, :1] < 0, -1.0, 1.0)


def _uniform(rng: np.random.Generator, n: int, d: int) -> Matrix:
    return rng.uniform(-np.sqrt(3), np.sqrt(3), (n, d))


def _rademacher(rng: np.random.Generator, n: int, d: int) -> Matrix:
    return np.where(rng.random((n, d)) < 0.5, -1.0, 1.0)


def _laplace(rng: np.random.Generator, n: int, d: int) -> Matrix:
    return rng.laplace(scale=np.sqrt(0.5), size=(n, d))


def _student_t(rng: np.random.Generator, n: int, d: int) -> Matrix:
    return rng.standard_t(5, (n, d)) * np.sqrt(3 / 5)


def _sphere(rng: np.random.Generator, n: int, d: int) -> Matrix:
    normals = rng.standard_normal((n, d))
    return normals * (np.sqrt(d) / np.linalg.norm(normals, axis=1, keepdims=True))


DISTRIBUTIONS: dict[str, Sampler] = {
    "gaussian": _gaussian,
    "gaussian_mixture": _gaussian_mixture,
    "uniform": _uniform,
    "rademacher": _rademacher,
    "laplace": _laplace,
    "student_t": _student_t,
    "sphere": _sphere,
}
"""Symmetric input distributions by name; see `make_two_layer`."""


def _orthonormal_columns(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
    """Uniformly distributed matrix with orthonormal columns."""
    Q, R = np.linalg.qr(rng.standard_normal((rows, columns)))
    return Q * np.sign(np.diag(R))


def make_network(
    n_features: int,
    n_hidden: int,
    n_outputs: int,
    *,
    hidden_condition: float = 1.0,
    output_condition: float = 1.0,
    random_state: Any = None,
) -> TwoLayerNetwork:
    """Draw a network with weights of given condition numbers.

    Parameters
    ----------
    n_features, n_hidden, n_outputs : int
        d, k and m, with k <= min(d, m).
    hidden_condition, output_condition : float, default=1.0
        Condition numbers of W and of A, at least 1: their singular vectors are orthonormal and
        random, their singular values lambda^-i, i = 0 ... k - 1, so that lambda^(k - 1) is the
        condition number.
    random_state : None, int, SeedSequence, RandomState or Generator

    Returns
    -------
    network : TwoLayerNetwork

    Raises
    ------
    ValueError
        If a size is not positive, k > min(d, m), or a condition number is below 1.

    References
    ----------
    Ge, Kuditipudi, Li, Wang, ICLR 2019, section 6.
    """
    if not 1 <= n_hidden <= min(n_features, n_outputs):
        raise ValueError(
            "n_hidden must be from 1 to min(n_features, n_outputs) = "
            f"{min(n_features, n_outputs)}, got {n_hidden}."
        )
    for name, value in (
        ("hidden_condition", hidden_condition),
        ("output_condition", output_condition),
    ):
        if not (value >= 1 and np.isfinite(value)):
            raise ValueError(f"{name} must be at least 1 and finite, got {value}.")
    rng = as_generator(random_state)

    def matrix(n_columns: int, condition: float) -> Matrix:
        exponents = np.arange(n_hidden) / max(n_hidden - 1, 1)
        inner = _orthonormal_columns(rng, n_hidden, n_hidden)
        return inner * condition**-exponents @ _orthonormal_columns(rng, n_columns, n_hidden).T

    W = matrix(n_features, hidden_condition)
    A = matrix(n_outputs, output_condition).T
    return TwoLayerNetwork(W, A)


def sample_blocks(
    network: TwoLayerNetwork,
    n_samples: int,
    *,
    block_rows: int = 65536,
    distribution: str | Sampler = "gaussian",
    noise: float = 0.0,
    random_state: Any = None,
) -> Iterator[tuple[Matrix, Matrix]]:
    """Yield samples of a network block by block, without holding them all.

    Parameters
    ----------
    network : TwoLayerNetwork
    n_samples : int
        Samples altogether.
    block_rows : int, default=65536
        Samples in a block; the last one may be shorter. The named distributions give the same
        samples for any value.
    distribution, noise
        As for `make_two_layer`.
    random_state : None, int, SeedSequence, RandomState or Generator

    Yields
    ------
    X : ndarray of shape (block_rows, n_features)
    Y : ndarray of shape (block_rows, n_outputs)

    Raises
    ------
    ValueError
        If a parameter is out of range, the distribution is unknown, or a callable returns an
        array of another shape.
    """
    if n_samples < 0 or block_rows < 1:
        raise ValueError(
            f"n_samples must be at least 0 and block_rows at least 1, got {n_samples} and "
            f"{block_rows}."
        )
    if not (noise >= 0 and np.isfinite(noise)):
        raise ValueError(f"noise must be at least 0 and finite, got {noise}.")
    if isinstance(distribution, str) and distribution not in DISTRIBUTIONS:
        raise ValueError(
            f"distribution must be one of {', '.join(DISTRIBUTIONS)} or a callable, got "
            f"{distribution!r}."
        )
    sampler = DISTRIBUTIONS[distribution] if isinstance(distribution, str) else distribution
    return _blocks(network, n_samples, block_rows, sampler, noise, as_generator(random_state))


def _blocks(
    network: TwoLayerNetwork,
    n_samples: int,
    block_rows: int,
    sampler: Sampler,
    noise: float,
    rng: np.random.Generator,
) -> Iterator[tuple[Matrix, Matrix]]:
    # Inputs and noise have streams of their own, so that cutting one does not shift the other.
    input_rng, noise_rng = rng.spawn(2)
    for first in range(0, n_samples, block_rows):
        n = min(block_rows, n_samples - first)
        X = np.asarray(sampler(input_rng, n, network.n_features), np.float64)
        if X.shape != (n, network.n_features):
            raise ValueError(
                f"distribution(rng, {n}, {network.n_features}) must return an array of shape "
                f"({n}, {network.n_features}), got {X.shape}."
            )
        Y = network.predict(X)
        if noise:
            Y += noise * noise_rng.standard_normal(Y.shape)
        yield X, Y


def make_two_layer(
    n_samples: int,
    n_features: int,
    n_hidden: int,
    n_outputs: int,
    *,
    distribution: str | Sampler = "gaussian",
    noise: float = 0.0,
    hidden_condition: float = 1.0,
    output_condition: float = 1.0,
    random_state: Any = None,
) -> tuple[Matrix, Matrix, TwoLayerNetwork]:
    """Draw a random two-layer network and samples of it.

    Parameters
    ----------
    n_samples, n_features, n_hidden, n_outputs : int
        With n_hidden <= min(n_features, n_outputs).
    distribution : str or callable, default="gaussian"
        Distribution of the inputs: "gaussian"; "gaussian_mixture", two components of unit
        variance at plus and minus the all-ones vector; "uniform" on a cube; "rademacher", +-1;
        "laplace"; "student_t" with 5 degrees of freedom; "sphere", uniform on the sphere of radius
        sqrt(n_features). All but the mixture have E[x x^T] = I. A callable (rng, n, d) -> X of
        shape (n, d) gives any other; the method needs it to be symmetric.
    noise : float, default=0.0
        Standard deviation of the Gaussian noise added to each output.
    hidden_condition, output_condition : float, default=1.0
        Condition numbers of W and A, see `make_network`.
    random_state : None, int, SeedSequence, RandomState or Generator

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    network : TwoLayerNetwork
        The truth.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    See Also
    --------
    stream_two_layer : The same samples block by block.

    References
    ----------
    Ge, Kuditipudi, Li, Wang, ICLR 2019, section 6.

    Examples
    --------
    >>> import fastsym
    >>> X, Y, network = fastsym.make_two_layer(1000, 5, 3, 4, noise=0.1, random_state=0)
    >>> X.shape, Y.shape, network.n_hidden
    ((1000, 5), (1000, 4), 3)
    """
    network, blocks = stream_two_layer(
        n_samples,
        n_features,
        n_hidden,
        n_outputs,
        block_rows=max(n_samples, 1),
        distribution=distribution,
        noise=noise,
        hidden_condition=hidden_condition,
        output_condition=output_condition,
        random_state=random_state,
    )
    empty = np.empty((0, n_features)), np.empty((0, n_outputs))
    X, Y = next(blocks, empty)
    return X, Y, network


def stream_two_layer(
    n_samples: int,
    n_features: int,
    n_hidden: int,
    n_outputs: int,
    *,
    block_rows: int = 65536,
    distribution: str | Sampler = "gaussian",
    noise: float = 0.0,
    hidden_condition: float = 1.0,
    output_condition: float = 1.0,
    random_state: Any = None,
) -> tuple[TwoLayerNetwork, Iterator[tuple[Matrix, Matrix]]]:
    """Draw a random two-layer network and an iterator over blocks of samples of it.

    Parameters
    ----------
    n_samples, n_features, n_hidden, n_outputs, distribution, noise, hidden_condition,
    output_condition, random_state
        As for `make_two_layer`; the same random_state gives the same network and, with a named
        distribution, the same samples.
    block_rows : int, default=65536
        Samples in a block.

    Returns
    -------
    network : TwoLayerNetwork
    blocks : iterator of (X, Y)
        As `sample_blocks` yields them.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """
    rng = as_generator(random_state)
    network = make_network(
        n_features,
        n_hidden,
        n_outputs,
        hidden_condition=hidden_condition,
        output_condition=output_condition,
        random_state=rng,
    )
    blocks = sample_blocks(
        network,
        n_samples,
        block_rows=block_rows,
        distribution=distribution,
        noise=noise,
        random_state=rng,
    )
    return network, blocks
