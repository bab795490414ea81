"""From moments to a network and its diagnostics.

`solve` reads top to bottom as the method: linear part, distinguishing matrix, null space, joint
diagonalization, read-out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastsym import exceptions
from fastsym.algebra import Matrix
from fastsym.exceptions import AsymmetricInputWarning, RankError, SpectralGapWarning
from fastsym.network import TwoLayerNetwork
from fastsym.spectral.diagnostics import (
    ASYMMETRY_WARNING,
    Diagnostics,
    SymmetryTest,
    symmetry_test,
)
from fastsym.spectral.diagonalization import Diagonalizer, JointDiagonalization, diagonalizer_of
from fastsym.spectral.equations import (
    Whitening,
    distinguishing_matrix,
    input_whitening,
    null_space,
    read_out,
    whiten,
)
from fastsym.sums.support import warn_of_rank
from fastsym.sums.threads import one_blas_thread
from fastsym.sums.units import Units
from fastsym.sums.values import Moments


class SpectralSolution(NamedTuple):
    """A network and how well the moments determine it."""

    network: TwoLayerNetwork
    diagnostics: Diagnostics


@one_blas_thread()
def solve(
    moments: Moments,
    *,
    method: str | Callable[[Matrix, Any], JointDiagonalization] = "uwedge",
    random_state: Any = None,
    warn: bool = True,
) -> SpectralSolution:
    """Recover a network from moments.

    Parameters
    ----------
    moments : Moments
        As `MomentAccumulator.moments` returns them.
    method : {"uwedge", "pair", "als"} or callable, default="uwedge"
        Joint diagonalization: U-WEDGE; one random pair (the recipe of the paper's text); CP-ALS
        with restarts (the recipe of its experiments). The last two also take E[x y^T] as the
        samples have it, without the control variate, as the paper does. A callable gets matrices
        of shape (n_hidden, n_hidden, n_hidden) and the random_state, and returns a
        JointDiagonalization; all else is as for U-WEDGE. It is not called for n_hidden = 1.
    random_state : None, int, RandomState or Generator
        For the start of U-WEDGE, which affects rounding at most in well-posed problems, the
        random pair, and the restarts of CP-ALS. None: drawn anew each time, but 0 for U-WEDGE
        and for a callable.
    warn : bool, default=True
        False: none; what they would say is in `diagnostics.doubt` and `diagnostics.symmetry`, and a
        refinement gives a RankDeficientWarning itself.

    Returns
    -------
    solution : SpectralSolution
        `network` with rows of W of unit length, and `diagnostics`.

    Raises
    ------
    ValueError
        If the method is unknown, or a callable does not return n_hidden detectors.
    RankError
        If the moments do not determine n_hidden directions.

    Warns
    -----
    AsymmetricInputWarning
        If the symmetry test rejects with p below 1e-4.
    SpectralGapWarning
        If n_hidden exceeds the number of canonical correlations above the noise floor, or the
        gap is below 1.5 or the residual above 0.3.
    RankDeficientWarning
        If the second moments of x are singular.

    References
    ----------
    Sections 3 to 5 of the paper.
    """
    name, diagonalizer = diagonalizer_of(method)
    if moments.direct is not None and not diagonalizer.reduce_variance:
        raise ValueError(
            f'moments of the direct form hold for method="uwedge" only, got {method!r}; '
            "use moments of one pass."
        )
    if random_state is None:
        random_state = diagonalizer.seed
    if warn:
        warn_of_rank(moments.input_moment, input_whitening(moments))
    symmetry = symmetry_test(moments)
    if warn:
        warn_of_asymmetry(symmetry)
    whitening = whiten(moments, reduce_variance=diagonalizer.reduce_variance)
    k = moments.frame.n_hidden
    if k == 1:
        # Algorithm 1: one neuron is its own detector.
        singular_values, gap = np.zeros(1), np.inf
        found = JointDiagonalization(np.ones((1, 1)), 0.0)
    else:
        matrices, singular_values = _pure_neurons(moments, whitening)
        smallest_other, largest_null = singular_values[-k - 1], singular_values[-k]
        gap = smallest_other / largest_null if largest_null > 0 else np.inf
        found = _diagonalize(matrices, name, diagonalizer, random_state)
    network = read_out(moments, whitening, found.detectors)
    diagnostics = Diagnostics(
        method=name,
        n_samples=moments.n_samples,
        n_pilot=moments.frame.n_pilot,
        n_hidden=k,
        singular_values=singular_values,
        gap=float(gap),
        residual=found.residual,
        condition_z=float(np.linalg.cond(found.detectors)),
        condition_w=float(np.linalg.cond(network.hidden_weights)),
        condition_a=float(np.linalg.cond(network.output_weights)),
        correlations=moments.frame.correlations,
        noise_floor=moments.frame.noise_floor,
        symmetry=symmetry,
    )
    if warn:
        _warn_of_doubt(diagnostics)
    if (units := moments.frame.units) is not None:
        network = _in_user_units(network, units)
    return SpectralSolution(network, diagnostics)


def _in_user_units(network: TwoLayerNetwork, units: Units) -> TwoLayerNetwork:
    """Bring a network from the units of the moments into the user's."""
    hidden = np.concatenate([np.zeros((network.n_hidden, 1)), network.hidden_weights], axis=1)
    hidden, outputs = units.to_user(hidden, network.output_weights)
    return TwoLayerNetwork(hidden[:, 1:], outputs, negative_slope=network.negative_slope)


def _pure_neurons(moments: Moments, whitening: Whitening) -> tuple[Matrix, Matrix]:
    """Null space of the distinguishing matrix, and its singular values, as `null_space` does."""
    T = distinguishing_matrix(moments, whitening)
    if not np.isfinite(T).all():
        raise RankError(
            "the quartic moments of the samples overflow in the coordinates in which x and y "
            "are white: the cross-covariance is too weak for n_hidden directions."
        )
    return null_space(T, moments.frame.n_hidden)


def _diagonalize(
    matrices: Matrix, name: str, diagonalizer: Diagonalizer, random_state: Any
) -> JointDiagonalization:
    """Call a diagonalizer, which may be the user's."""
    found = diagonalizer.function(matrices, random_state)
    k = matrices.shape[1]
    if not isinstance(found, JointDiagonalization) or np.shape(found.detectors) != (k, k):
        raise ValueError(
            f"method {name} must return a JointDiagonalization with detectors of shape "
            f"{(k, k)}, got {found!r}."
        )
    return found


def warn_of_asymmetry(symmetry: SymmetryTest) -> None:
    """Say that inputs are not symmetric, if the test rejects that.

    Parameters
    ----------
    symmetry : SymmetryTest

    Warns
    -----
    AsymmetricInputWarning
        If so.
    """
    if symmetry.p_value < ASYMMETRY_WARNING:
        exceptions.warn(
            f"the inputs are not symmetric: {symmetry}; weights recovered from them are biased",
            AsymmetricInputWarning,
        )


def _warn_of_doubt(diagnostics: Diagnostics) -> None:
    if diagnostics.doubt:
        exceptions.warn(diagnostics.doubt, SpectralGapWarning)
