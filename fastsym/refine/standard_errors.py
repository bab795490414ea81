"""Standard errors by the delta method, from white coordinates to weights of unit length."""

import numpy as np
from scipy import linalg

from fastsym.algebra import Matrix, row_lengths
from fastsym.refine.coordinates import Coordinates
from fastsym.refine.normal import DenseNormal


def standard_errors(
    normal: DenseNormal, coordinates: Coordinates, noise: Matrix, scale: float
) -> tuple[Matrix, Matrix]:
    """Return the standard errors of unit rows of (bias, w), and of A in that gauge.

    Parameters
    ----------
    normal : DenseNormal
    coordinates : Coordinates
    noise : ndarray of shape (n_outputs, n_outputs)
        Covariance of the noise.
    scale : float
        Weight of all samples over that of those of the normal matrix.

    Returns
    -------
    hidden_stderr : ndarray of shape (n_hidden, n_features), or (n_hidden, 1 + n_features)
        With intercepts, the first column belongs to the biases.
    output_stderr : ndarray of shape (n_outputs, n_hidden), or (n_outputs, n_hidden + 1)
        With intercepts, the last column belongs to the output intercept.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the normal matrix cannot be inverted.
    """
    k, q = normal.k, normal.q
    T, A = coordinates.to_inputs, normal.outputs
    K = A.shape[1]
    covariance = normal.covariance(noise) / scale
    weights = normal.point.hidden[:k] @ T.T
    length = row_lengths(weights)
    units = weights / length[:, None]
    blocks = covariance.reshape(k, q, k, q)
    hidden, sizes = np.empty((k, len(T))), np.empty((k, len(T)))
    for i in range(k):
        turn = (np.eye(len(T)) - np.outer(units[i], units[i])) @ T / length[i]
        # Weights of features in units far apart are, too: their squares may vanish.
        sizes[i] = np.abs(turn).max(axis=1)
        turn /= np.where(sizes[i] > 0, sizes[i], 1)[:, None]
        hidden[i] = np.einsum("xa,ab,xb->x", turn, blocks[i, :, i, :], turn)
    gram_inverse = linalg.cho_solve((normal.gram_factor, False), np.eye(K)) / scale
    # dA_o = E^-1 (scores of A_o - sum_i A_oi V_i dw_i); A in the unit gauge is A_i |w_i|
    response = linalg.cho_solve(
        (normal.gram_factor, False), normal.coupling.transpose(1, 0, 2).reshape(K, k * q)
    )
    full_length = np.ones(K)
    full_length[:k] = length
    output = np.empty((len(A), K))
    for o in range(len(A)):
        change = -response * np.repeat(A[o, :k], q) * full_length[:, None]
        for i in range(k):
            change[i, i * q : (i + 1) * q] += A[o, i] * (units[i] @ T)
        output[o] = np.einsum("ja,ab,jb->j", change, covariance, change, optimize=True)
        output[o] += noise[o, o] * np.diag(gram_inverse) * full_length**2
    bias = 0 if np.any(T[0]) else 1
    hidden = sizes * np.sqrt(np.maximum(hidden, 0))
    return hidden[:, bias:], np.sqrt(np.maximum(output, 0))
