"""The equations of the method: what moments say about W and A, as linear algebra.

The references are to Ge, Kuditipudi, Li, Wang, "Learning Two-layer Neural Networks with Symmetric
Inputs", ICLR 2019, arXiv:1810.06793; docs/method.md has the mathematics in this package's notation.

A symmetric k x k matrix U is packed into k (k + 1) / 2 numbers, U_aa and sqrt(2) U_ab for a < b in
lexicographic order, so that packing keeps inner products.
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg

from fastsym import algebra
from fastsym.activation import Activation
from fastsym.algebra import (
    Matrix,
    congruence,
    from_pairs,
    packing_weights,
    pair_indices,
    pair_positions,
    triple_positions,
    unit_rows,
)
from fastsym.exceptions import RankError
from fastsym.network import TwoLayerNetwork
from fastsym.sums.values import Moments


class Whitening(NamedTuple):
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


def input_whitening(moments: Moments) -> Matrix:
    """`fastsym.algebra.whitening` of C = E[x x^T], as exact as the moments are.

    Parameters
    ----------
    moments : Moments

    Returns
    -------
    whiten : ndarray of shape (n_features, rank)
    """
    return algebra.whitening(moments.input_moment, 100 * moments.precision)


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
        With the pseudo-inverse (in units of the features' root mean squares) where C is singular.

    References
    ----------
    Section 2 (Algorithm 1) of the paper.
    """
    cross = moments.reduced_cross_moment if reduce_variance else moments.cross_moment
    whiten = input_whitening(moments)
    gain = Activation(moments.negative_slope).odd_gain
    return 1 / gain * whiten @ (whiten.T @ cross)


def whiten(moments: Moments, *, reduce_variance: bool = True) -> Whitening:
    """Coordinates in which the problem is white, from all samples.

    Parameters
    ----------
    moments : Moments
    reduce_variance : bool, default=True
        As for `linear_part`.

    Returns
    -------
    whitening : Whitening

    Raises
    ------
    RankError
        If the linear part of y in the frame is singular, so that n_hidden directions cannot be
        told apart. It is a ValueError.
    """
    frame = moments.frame
    B = linear_part(moments, reduce_variance=reduce_variance)
    moment = frame.input_map.T @ moments.input_moment @ frame.input_map
    whiten_x = algebra.whitening(moment)
    k = frame.n_hidden
    # Regression of y' on x', both in the frame; for n_features > n_hidden not the same as
    # restricting B to the frame.
    cross = moments.reduced_cross_moment if reduce_variance else moments.cross_moment
    cross_frame = frame.input_map.T @ cross @ frame.output_map
    if whiten_x.shape[1] == k:
        gain = Activation(moments.negative_slope).odd_gain
        B_frame = 1 / gain * whiten_x @ (whiten_x.T @ cross_frame)
        # y'' = G y' with G B_frame^T x' = x'' = whiten_x^T x'
        if np.linalg.cond(B_frame, 1) < 1 / np.finfo(float).eps:
            output_whitening = linalg.solve(B_frame, whiten_x)
            return Whitening(
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


def distinguishing_matrix(moments: Moments, whitening: Whitening) -> Matrix:
    """Distinguishing matrix T in whitened coordinates, with the noise direction projected out.

    T maps a packed symmetric U to E[<U, sym((y'' - a x'') (x'' - y'')^T)> (pairs of x'')], a the
    negative slope, the direction of E[pairs of x''] removed from the latter. It vanishes at
    U = z z^T when z^T y'' is one neuron, because (h(t) - a t) (t - h(t)) = 0; noise adds a multiple
    of the removed direction only. Pairs are times the frame's even weight, of which the same holds.

    Parameters
    ----------
    moments : Moments
    whitening : Whitening
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
        pairs, triples = pair_positions(k), triple_positions(k)
        T = -moments.yyxx
        for i in range(k):
            # E[y'_i g'_j x'_a x'_b] for all j and pairs (a, b)
            mixed = whitening.frame_linear_part.T @ moments.yxxx[i][triples]
            mixed[np.arange(k) != i] /= 2  # symmetrised: half to (i, j), half to (j, i)
            T[pairs[i]] += (1 + moments.negative_slope) * mixed
        if moments.negative_slope:
            T -= moments.negative_slope * congruence(moments.xxxx, whitening.frame_linear_part)
        T = congruence(T, whitening.output_whitening)
        T = congruence(T.T, whitening.input_whitening).T
    a, b = pair_indices(k)
    weight = packing_weights(k)
    T = T * np.outer(weight, weight)
    noise = (a == b) / np.sqrt(k)
    if moments.frame.even_radius:
        direction = congruence(moments.pair_cross[:1].T, whitening.input_whitening)[:, 0] * weight
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
    pairs = left[:, : -n_hidden - 1 : -1].T / packing_weights(n_hidden)
    return from_pairs(pairs, n_hidden), singular_values


def read_out(moments: Moments, whitening: Whitening, detectors: Matrix) -> TwoLayerNetwork:
    """Weights from detectors: w_i = B z_i, and A from the regression of A W x on W x.

    Parameters
    ----------
    moments : Moments
    whitening : Whitening
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
    Z = whitening.output_map @ detectors
    # z^T y is one neuron times a scale, so its mean has the sign of the scale.
    Z = Z * np.where(moments.output_mean @ Z < 0, -1, 1)
    W = unit_rows((whitening.linear_part @ Z).T)
    C = moments.input_moment
    # B^T x = A W x for all x, weighted as the samples weight x. Units may differ much in size where
    # features do.
    gram = W @ C @ W.T
    size = np.sqrt(np.maximum(np.diag(gram), 0))
    size = np.where(size > 0, size, 1)
    right = W @ C @ whitening.linear_part
    A = (linalg.lstsq(gram / size / size[:, None], right / size[:, None])[0] / size[:, None]).T
    return TwoLayerNetwork(W, A, negative_slope=moments.negative_slope)
