"""From moments to a network: plain linear algebra on small matrices, no data.

`solve` reads top to bottom as the method: linear part, distinguishing matrix, null space, joint
diagonalization, read-out. The references are to Ge, Kuditipudi, Li, Wang, "Learning Two-layer
Neural Networks with Symmetric Inputs", ICLR 2019, arXiv:1810.06793; docs/method.md has the
mathematics in this package's notation.

A symmetric k x k matrix U is packed into k (k + 1) / 2 numbers, U_aa and sqrt(2) U_ab for a < b in
lexicographic order, so that packing keeps inner products.
"""

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fastsym.diagnostics import SymmetryTest, symmetry_test
from fastsym.diagonalization import JointDiagonalization, cp_als, random_pair, uwedge
from fastsym.exceptions import AsymmetricInputWarning, RankError, SpectralGapWarning
from fastsym.frame import pair_indices, whiten_inputs, whitening
from fastsym.moments import Moments
from fastsym.network import TwoLayerNetwork
from fastsym.staging import one_blas_thread

Matrix = NDArray[np.float64]

METHODS = ("uwedge", "pair", "als")

GAP_WARNING = 1.5
"""A gap below this warns; without any separation it is close to 1."""

RESIDUAL_WARNING = 0.3
"""A residual above this warns; its square is about ten times the squared error of a neuron."""

ASYMMETRY_WARNING = 1e-4
"""A p-value of the symmetry test below this warns."""

_CHUNK_COLUMNS = 256


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """How well the moments determine the network.

    Parameters
    ----------
    method : str
        The joint diagonalization used.
    n_samples : int
    n_pilot : int
        Samples of the pilot, from which the correlations are.
    n_hidden : int
    singular_values : ndarray of shape (n_pairs,)
        Of the distinguishing matrix, descending. The last n_hidden belong to the pure neurons and
        are zero in the population.
    gap : float
        singular_values[-n_hidden - 1] / singular_values[-n_hidden]: the larger, the better;
        infinite when there is nothing to separate (n_hidden = 1) or the last ones are exactly zero.
    residual : float
        Off-diagonal share that the joint diagonalization leaves, a root mean square relative to
        the diagonal; 0 when the matrices share their diagonalizer.
    condition_z, condition_w, condition_a : float
        Condition numbers of the detectors Z (whitened coordinates, unit columns), of W (unit rows)
        and of A (for unit rows of W).
    correlations : ndarray of shape (min(n_features, n_outputs),) at most
        Canonical correlations of x and y in the pilot.
    noise_floor : float
        Value that a canonical correlation reaches by chance in the pilot.
    symmetry : SymmetryTest
    """

    method: str
    n_samples: int
    n_pilot: int
    n_hidden: int
    singular_values: Matrix
    gap: float
    residual: float
    condition_z: float
    condition_w: float
    condition_a: float
    correlations: Matrix
    noise_floor: float
    symmetry: SymmetryTest

    @property
    def shown(self) -> bool:
        """Whether the pilot shows n_hidden canonical correlations above the noise floor."""
        return bool(self.correlations[self.n_hidden - 1] >= self.noise_floor)

    @property
    def clear(self) -> bool:
        """Whether gap, residual and correlations tell the units apart."""
        return self.shown and self.gap >= GAP_WARNING and self.residual <= RESIDUAL_WARNING

    @property
    def doubt(self) -> str:
        """What speaks against the weights, with its figure; empty if nothing does."""
        k = self.n_hidden
        if not self.shown:
            return (
                f"no gap in the cross-covariance: canonical correlation {k} of x and y is "
                f"{self.correlations[k - 1]:.2g}, below the noise floor of {self.noise_floor:.2g} "
                f"at {self.n_pilot} pilot samples, so the samples do not show n_hidden={k} units"
            )
        if self.gap < GAP_WARNING:
            return (
                "no spectral gap: the smallest singular value outside the null space is only "
                f"{self.gap:.2f} times the largest one inside, so the {k} neurons are not well "
                "separated; more samples, or better conditioned weights, are needed"
            )
        if self.residual > RESIDUAL_WARNING:
            return (
                f"the joint diagonalization leaves a residual of {self.residual:.2f} (at most "
                f"{RESIDUAL_WARNING} is usual), so the {k} neurons are blurred: the samples are "
                "too few or too noisy for these weights, or the network is nearly not identifiable"
            )
        return ""


class SpectralSolution(NamedTuple):
    """A network and how well the moments determine it."""

    network: TwoLayerNetwork
    diagnostics: Diagnostics


class WhitenedProblem(NamedTuple):
    """Coordinates of the samples in which x and A W x are the same white vector.

    x'' = x' input_whitening and y'' = y output_map (both n_hidden long, x' in the frame) satisfy
    E[x'' x''^T] = I and odd part of y'' = x'' / 2.
    """

    linear_part: Matrix  # B, (d, m), with g = B^T x = A W x
    input_whitening: Matrix  # (k, k)
    output_whitening: Matrix  # (k, k), y'' = y' output_whitening
    input_map: Matrix  # (d, k), x'' = x input_map
    output_map: Matrix  # (m, k), y'' = y output_map
    frame_linear_part: Matrix  # (k, k), g' = frame_linear_part^T x'


def linear_part(moments: Moments, *, reduce_variance: bool = True) -> Matrix:
    """B = 2 / (1 + a) C^-1 E[x y^T], which is (A W)^T for symmetric x; a is the negative slope.

    Parameters
    ----------
    moments : Moments
    reduce_variance : bool, default=True
        Take E[x y^T] with the control variate of the frame; False: as the samples have it, which
        is Algorithm 1 of the paper to the letter.

    Returns
    -------
    B : ndarray of shape (n_features, n_outputs)

    Warns
    -----
    RankDeficientWarning
        If C is singular; the pseudo-inverse (in units of the features' root mean squares) is used.

    References
    ----------
    Section 2 (Algorithm 1) of the paper.
    """
    cross = moments.reduced_cross_moment if reduce_variance else moments.cross_moment
    whiten = whiten_inputs(moments.input_moment, 100 * moments.precision)
    return 2 / (1 + moments.negative_slope) * whiten @ (whiten.T @ cross)


def whiten(moments: Moments, *, reduce_variance: bool = True) -> WhitenedProblem:
    """Coordinates in which the problem is white, from all samples.

    Parameters
    ----------
    moments : Moments
    reduce_variance : bool, default=True
        As for `linear_part`.

    Returns
    -------
    problem : WhitenedProblem

    Raises
    ------
    RankError
        If the linear part of y in the frame is singular, so that n_hidden directions cannot be
        told apart. It is a ValueError.
    """
    frame = moments.frame
    B = linear_part(moments, reduce_variance=reduce_variance)
    moment = frame.input_map.T @ moments.input_moment @ frame.input_map
    whiten_x = whitening(moment)
    k = frame.n_hidden
    # Regression of y' on x', both in the frame; for n_features > n_hidden not the same as
    # restricting B to the frame.
    cross = moments.reduced_cross_moment if reduce_variance else moments.cross_moment
    cross_frame = frame.input_map.T @ cross @ frame.output_map
    if whiten_x.shape[1] == k:
        B_frame = 2 / (1 + moments.negative_slope) * whiten_x @ (whiten_x.T @ cross_frame)
        # y'' = G y' with G B_frame^T x' = x'' = whiten_x^T x'
        if np.linalg.cond(B_frame, 1) < 1 / np.finfo(float).eps:
            output_whitening = linalg.solve(B_frame, whiten_x)
            return WhitenedProblem(
                linear_part=B,
                input_whitening=whiten_x,
                output_whitening=output_whitening,
                input_map=frame.input_map @ whiten_x,
                output_map=frame.output_map @ output_whitening,
                frame_linear_part=B_frame,
            )
    raise RankError(
        f"the samples do not determine n_hidden={k} directions: the cross-covariance of x and y "
        "has lower rank (canonical correlations "
        f"{np.array2string(frame.correlations, precision=2)}); use a smaller n_hidden or "
        "more samples."
    )


def _pair_positions(k: int) -> NDArray[np.intp]:
    """Positions (k, k) of the pair {a, b} among the pairs."""
    a, b = pair_indices(k)
    positions = np.empty((k, k), np.intp)
    positions[a, b] = positions[b, a] = np.arange(len(a))
    return positions


def _triple_positions(k: int) -> NDArray[np.intp]:
    """Positions (k, P) of the triple {l, a, b} among the triples, for l and a pair (a, b)."""
    a, b = pair_indices(k)
    sorted_triples = np.sort(
        np.stack(np.broadcast_arrays(np.arange(k)[:, None], a[None], b[None])), axis=0
    )
    first, second, third = sorted_triples
    pairs_from = np.arange(k, 0, -1) * np.arange(k + 1, 1, -1) // 2  # pairs with both >= a
    start = np.concatenate([[0], np.cumsum(pairs_from)])[:-1]
    offset = np.arange(k) * k - np.arange(k) * (np.arange(k) - 1) // 2  # of the pair (a, a)
    return start[first] + offset[second] + (third - second) - offset[first]


def _congruence(packed: Matrix, transform: Matrix) -> Matrix:
    """Apply U -> transform^T U transform to each column, U the unweighted pairs of a column."""
    k = len(transform)
    a, b = pair_indices(k)
    positions = _pair_positions(k)
    result = np.empty_like(packed)
    # Unpacking all columns at once would take a k x k x P array.
    for first in range(0, packed.shape[1], _CHUNK_COLUMNS):
        columns = slice(first, first + _CHUNK_COLUMNS)
        full = packed[positions, columns]
        full = np.matmul(transform.T, np.tensordot(transform.T, full, 1))
        result[:, columns] = full[a, b]
    return result


def distinguishing_matrix(moments: Moments, problem: WhitenedProblem) -> Matrix:
    """Distinguishing matrix T in whitened coordinates, with the noise direction projected out.

    T maps a packed symmetric U to E[<U, sym((y'' - a x'') (x'' - y'')^T)> (pairs of x'')], a the
    negative slope, the direction of E[pairs of x''] removed from the latter. It vanishes at
    U = z z^T when z^T y'' is one neuron, because (h(t) - a t) (t - h(t)) = 0; noise adds a multiple
    of the removed direction only. Pairs are times the frame's even weight, of which the same holds.

    Parameters
    ----------
    moments : Moments
    problem : WhitenedProblem
        As `whiten` returns it.

    Returns
    -------
    T : ndarray of shape (n_pairs, n_pairs)
        Rows for U, columns for the pairs of x'', both packed with sqrt(2).

    References
    ----------
    Sections 3 and 4 of the paper (pure neuron detector; augmented distinguishing matrix).
    """
    k = moments.frame.n_hidden
    if moments.direct is not None:
        T = moments.direct
    else:
        pairs, triples = _pair_positions(k), _triple_positions(k)
        T = -moments.yyxx
        for i in range(k):
            # E[y'_i g'_j x'_a x'_b] for all j and pairs (a, b)
            mixed = problem.frame_linear_part.T @ moments.yxxx[i][triples]
            mixed[np.arange(k) != i] /= 2  # symmetrised: half to (i, j), half to (j, i)
            T[pairs[i]] += (1 + moments.negative_slope) * mixed
        if moments.negative_slope:
            T -= moments.negative_slope * _congruence(moments.xxxx, problem.frame_linear_part)
        T = _congruence(T, problem.output_whitening)
        T = _congruence(T.T, problem.input_whitening).T
    a, b = pair_indices(k)
    weight = np.where(a == b, 1, np.sqrt(2))
    T = T * np.outer(weight, weight)
    noise = (a == b) / np.sqrt(k)
    if moments.frame.even_radius:
        direction = _congruence(moments.pair_cross[:1].T, problem.input_whitening)[:, 0] * weight
        noise = direction / np.linalg.norm(direction)
    return T - np.outer(T @ noise, noise)


def null_space(T: Matrix, n_hidden: int) -> tuple[Matrix, Matrix]:
    """Left null space of the distinguishing matrix, as symmetric matrices.

    Parameters
    ----------
    T : ndarray of shape (n_pairs, n_pairs)
    n_hidden : int

    Returns
    -------
    matrices : ndarray of shape (n_hidden, n_hidden, n_hidden)
        Orthonormal symmetric matrices matrices[l] = Z D_l Z^T, from the smallest singular value up.
    singular_values : ndarray of shape (n_pairs,)
        All of them, descending.

    References
    ----------
    Section 3 of the paper.
    """
    left, singular_values, _ = linalg.svd(T, check_finite=False)
    a, b = pair_indices(n_hidden)
    vectors = left[:, : -n_hidden - 1 : -1].T / np.where(a == b, 1, np.sqrt(2))
    matrices = np.empty((n_hidden, n_hidden, n_hidden))
    matrices[:, a, b] = matrices[:, b, a] = vectors
    return matrices, singular_values


def read_out(moments: Moments, problem: WhitenedProblem, detectors: Matrix) -> TwoLayerNetwork:
    """Weights from detectors: w_i = B z_i, and A from the regression of A W x on W x.

    Parameters
    ----------
    moments : Moments
    problem : WhitenedProblem
    detectors : ndarray of shape (n_hidden, n_hidden)
        Z in whitened coordinates, one detector a column, of any sign.

    Returns
    -------
    network : TwoLayerNetwork
        With rows of W of unit length.

    References
    ----------
    Section 3 of the paper, with Algorithm 1 for each neuron.
    """
    Z = problem.output_map @ detectors
    # z^T y is one neuron times a scale, so its mean has the sign of the scale.
    Z = Z * np.where(moments.output_mean @ Z < 0, -1, 1)
    W = (problem.linear_part @ Z).T
    length = np.linalg.norm(W, axis=1, keepdims=True)
    W = W / np.where(length > 0, length, 1)
    C = moments.input_moment
    # B^T x = A W x for all x, weighted as the samples weight x.
    A = linalg.lstsq(W @ C @ W.T, W @ C @ problem.linear_part)[0].T
    return TwoLayerNetwork(W, A, negative_slope=moments.negative_slope)


@one_blas_thread()
def solve(
    moments: Moments, *, method: str = "uwedge", random_state: Any = None, warn: bool = True
) -> SpectralSolution:
    """Recover a network from moments.

    Parameters
    ----------
    moments : Moments
        As `MomentAccumulator.moments` returns them.
    method : {"uwedge", "pair", "als"}, default="uwedge"
        Joint diagonalization: U-WEDGE; one random pair (the recipe of the paper's text); CP-ALS
        with restarts (the recipe of its experiments). The last two also take E[x y^T] as the
        samples have it, without the control variate, as the paper does.
    random_state : None, int, RandomState or Generator
        For the start of U-WEDGE, which affects rounding at most in well-posed problems, the
        random pair, and the restarts of CP-ALS. None: drawn anew each time, but 0 for U-WEDGE.
    warn : bool, default=True
        False: no SpectralGapWarning; what it would say is in `diagnostics.doubt`.

    Returns
    -------
    solution : SpectralSolution
        `network` with rows of W of unit length, and `diagnostics`.

    Raises
    ------
    ValueError
        If the method is unknown.
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
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    if moments.direct is not None and method != "uwedge":
        raise ValueError(
            f'moments of the direct form hold for method="uwedge" only, got {method!r}; '
            "use moments of one pass."
        )
    if random_state is None and method == "uwedge":
        random_state = 0
    k = moments.frame.n_hidden
    symmetry = symmetry_test(moments)
    if symmetry.p_value < ASYMMETRY_WARNING:
        warnings.warn(
            f"the inputs are not symmetric: {symmetry}; weights recovered from them are biased",
            AsymmetricInputWarning,
            stacklevel=3,
        )

    problem = whiten(moments, reduce_variance=method == "uwedge")
    if k == 1:
        # Algorithm 1: one neuron is its own detector.
        singular_values, gap = np.zeros(1), np.inf
        diagonalization = JointDiagonalization(np.ones((1, 1)), 0.0)
    else:
        T = distinguishing_matrix(moments, problem)
        if not np.isfinite(T).all():
            raise RankError(
                "the quartic moments of the samples overflow in the coordinates in which x and y "
                "are white: the cross-covariance is too weak for n_hidden directions."
            )
        matrices, singular_values = null_space(T, k)
        smallest_other, largest_null = singular_values[-k - 1], singular_values[-k]
        gap = smallest_other / largest_null if largest_null > 0 else np.inf
        diagonalize = {"uwedge": uwedge, "pair": random_pair, "als": cp_als}[method]
        diagonalization = diagonalize(matrices, random_state)
    network = read_out(moments, problem, diagonalization.detectors)
    diagnostics = Diagnostics(
        method=method,
        n_samples=moments.n_samples,
        n_pilot=moments.frame.n_pilot,
        n_hidden=k,
        singular_values=singular_values,
        gap=float(gap),
        residual=diagonalization.residual,
        condition_z=float(np.linalg.cond(diagonalization.detectors)),
        condition_w=float(np.linalg.cond(network.hidden_weights)),
        condition_a=float(np.linalg.cond(network.output_weights)),
        correlations=moments.frame.correlations,
        noise_floor=moments.frame.noise_floor,
        symmetry=symmetry,
    )
    if warn and diagnostics.doubt:
        warnings.warn(diagnostics.doubt, SpectralGapWarning, stacklevel=3)
    return SpectralSolution(network, diagnostics)
