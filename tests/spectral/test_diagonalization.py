"""Null space and joint diagonalization."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyriemann.geometry.ajd import uwedge as reference_uwedge

from fastsym import spectral
from fastsym.datasets import make_network


def joint_problem(k, rng, condition=3.0):
    Z = make_network(k, k, k, hidden_condition=condition, random_state=rng).hidden_weights
    D = rng.standard_normal((k, k))
    return Z / np.linalg.norm(Z, axis=0), np.einsum("ai,li,bi->lab", Z, D, Z)


def match_columns(Z, estimate):
    """Largest sine between paired columns, signs aside."""
    cosine = np.abs(
        (Z / np.linalg.norm(Z, axis=0)).T @ (estimate / np.linalg.norm(estimate, axis=0))
    )
    order = cosine.argmax(axis=1)
    assert sorted(order) == list(range(Z.shape[1]))
    return np.sqrt(np.maximum(0, 1 - cosine.max(axis=1) ** 2)).max()


@pytest.mark.parametrize("k", [2, 5, 12, 30])
@pytest.mark.parametrize("condition", [1.0, 20.0])
def test_uwedge_recovers_an_exact_diagonalizer(k, condition, rng):
    Z, matrices = joint_problem(k, rng, condition)
    estimate, residual = spectral.uwedge(matrices, 0)
    assert match_columns(Z, estimate) < 1e-7
    assert residual < 1e-7


def test_uwedge_agrees_with_pyriemann_on_noisy_matrices(rng):
    Z, matrices = joint_problem(6, rng)
    noise = 1e-3 * rng.standard_normal(matrices.shape)
    noisy = matrices + noise + noise.transpose(0, 2, 1)
    V, _ = reference_uwedge(noisy, init=np.linalg.inv(Z), eps=1e-14, n_iter_max=1000)
    ours, _ = spectral.uwedge(noisy, 0)
    # Its rows are scaled by its own first matrix, ours by the diagonals of all: the stationary
    # points differ by the noise squared.
    theirs = np.linalg.inv(V)
    assert match_columns(theirs, ours) < 0.1 * match_columns(Z, ours)


def test_cp_als_and_pair_recover_an_exact_diagonalizer(rng):
    Z, matrices = joint_problem(5, rng)
    assert match_columns(Z, spectral.random_pair(matrices, 0).detectors) < 1e-6
    assert match_columns(Z, spectral.cp_als(matrices, 0).detectors) < 1e-2


@given(st.integers(0, 10**6))
def test_uwedge_follows_a_change_of_basis(seed):
    rng = np.random.default_rng(seed)
    _, matrices = joint_problem(4, rng)
    change = np.linalg.qr(rng.standard_normal((4, 4)))[0] * rng.uniform(0.5, 2, 4)
    Z = spectral.uwedge(matrices, 0).detectors
    moved = spectral.uwedge(change @ matrices @ change.T, 0).detectors
    assert match_columns(change @ Z, moved) < 1e-6


def test_null_space_gives_orthonormal_symmetric_matrices(rng):
    T = rng.standard_normal((10, 10))
    matrices, singular_values = spectral.null_space(T, 4)
    np.testing.assert_allclose(singular_values, np.linalg.svd(T, compute_uv=False))
    np.testing.assert_allclose(np.einsum("lab,kab->lk", matrices, matrices), np.eye(4), atol=1e-12)
    np.testing.assert_array_equal(matrices, matrices.transpose(0, 2, 1))
