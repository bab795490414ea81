"""Signs of the units of a network that was fitted with a free linear part.

With h(t) = (1 + a) / 2 t + (1 - a) / 2 |t|, a the slope, h(-t) = h(t) - (1 + a) t: in
y = c + L x + A h(W x + b) with L and c free, (w_i, b_i) and -(w_i, b_i) fit the same. A network
without L has the signs sigma_i with which the whole linear part is that of its units,

    L + g sum_i a_i w_i^T = g sum_i sigma_i a_i w_i^T,    g = (1 + a) / 2.

From estimates the two sides differ; the patterns that come closest are an integer least-squares
problem. Up to `_ENUMERATED` units all patterns are compared (Horowitz and Sahni, J. ACM 21 (1974):
those of two halves, and their sums). Beyond, the best of a beam search, which need not be the best
of all: the M-algorithm on the triangle of a QR decomposition, with the ridge and the order of
Wuebben et al., "MMSE extension of V-BLAST based on sorted QR decomposition", VTC 2003. It found the
planted signs, or nearer ones, of up to 2.5 units for each of the n_outputs n_features equations
(k = 50, d = 20, m = 1), and two of three times at 3; rounding the solution of the relaxed problem
in the box, and flips of one or two signs from there, added nothing. With noise other patterns come
as near as the true one, the more of them the more units there are for an equation.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym.activation import Activation
from fastsym.algebra import Matrix

_ENUMERATED = 22
_WIDTH = 2048
# In mean squared lengths of columns: the first for many units, the second for units of unlike size.
_RIDGES = (1e-2, 1e-5)
_NUMBERS = 1_000_000  # in one array


class SignPatterns(NamedTuple):
    """Sign patterns, that of the smallest distance first.

    Parameters
    ----------
    signs : ndarray of shape (n_patterns, n_hidden)
        1, or -1 for a unit to be flipped.
    distances : ndarray of shape (n_patterns,)
        Squared distances that belong to them.
    """

    signs: Matrix
    distances: Matrix


def decode_signs(
    outputs: Matrix,
    hidden: Matrix,
    linear: Matrix,
    negative_slope: float = 0.0,
    *,
    precision: Matrix | None = None,
    top: int = 8,
) -> SignPatterns:
    """Find the signs of units with which their linear parts come closest to the whole one.

    Parameters
    ----------
    outputs : ndarray of shape (n_outputs, n_hidden)
        A.
    hidden : ndarray of shape (n_hidden, n_features)
        W, without biases: their linear part is in the constant, which is free. In white
        coordinates of x the distances are mean squared differences of predictions.
    linear : ndarray of shape (n_outputs, n_features)
        L, of the fit with a free linear part, in the same coordinates.
    negative_slope : float, default=0.0
        Slope a of the activation for negative arguments.
    precision : ndarray of shape (n_outputs, n_outputs), default=None
        P of the squared distance tr(D^T P D), D the difference of the linear parts: the inverse
        noise covariance, say. Symmetric, positive semi-definite; None: the identity.
    top : int, default=8
        How many patterns, at least 1.

    Returns
    -------
    patterns : SignPatterns
        At most `top`, fewer if there are fewer or a beam is narrower. A unit without a linear part,
        whose sign does not matter, has the sign 1. All patterns are compared up to 22 units;
        beyond, those that a beam of 2048 ends with. Near ties of distances say that the signs
        cannot be known.

    Raises
    ------
    ValueError
        If shapes do not match, a value is not finite, or top is less than 1.

    References
    ----------
    Horowitz, Sahni, J. ACM 21, 277 (1974); Wuebben et al., IEEE VTC (2003).
    """
    _check(outputs, hidden, linear, precision, top)
    k = len(hidden)
    if precision is not None:
        values, vectors = np.linalg.eigh(precision)
        root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        outputs, linear = root @ outputs, root @ linear
    triangle, exponent = _triangle(outputs, hidden, linear, Activation(negative_slope).odd_gain)
    told = np.flatnonzero(outputs.any(axis=0) & hidden.any(axis=1))
    small = triangle[:, [*told, k]]
    if len(told) <= _ENUMERATED:
        found = _all_patterns(small[:, :-1], small[:, -1], top)
    else:
        beams = [_beam(small[:, :-1], small[:, -1], ridge) for ridge in _RIDGES]
        found = np.unique(np.concatenate(beams), axis=0)
    distances = _distances(small, found)
    order = np.argsort(distances, kind="stable")[:top]
    signs = np.ones((len(order), k))
    signs[:, told] = found[order]
    with np.errstate(over="ignore"):
        return SignPatterns(signs, np.ldexp(distances[order], 2 * exponent))


def _check(
    outputs: Matrix, hidden: Matrix, linear: Matrix, precision: Matrix | None, top: int
) -> None:
    k, d = hidden.shape
    m = len(linear)
    if outputs.shape != (m, k) or linear.shape != (m, d):
        raise ValueError(
            "outputs, hidden and linear must have shapes (m, k), (k, d) and (m, d), got "
            f"{outputs.shape}, {hidden.shape} and {linear.shape}."
        )
    if precision is not None and precision.shape != (m, m):
        raise ValueError(f"precision must have shape {(m, m)}, got {precision.shape}.")
    for name, array in (("outputs", outputs), ("hidden", hidden), ("linear", linear),
                        ("precision", precision)):  # fmt: skip
        if array is not None and not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity.")
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}.")


def _triangle(outputs: Matrix, hidden: Matrix, linear: Matrix, gain: float) -> tuple[Matrix, int]:
    """Return a small [G, y] with the distances |y - G s|^2 of the large one, over 4^exponent.

    A column of G is g vec(a_i w_i^T). Its QR decomposition is taken block by block, since
    n_outputs n_features rows may be many.
    """
    k, d = hidden.shape
    lengths = [np.frexp(np.abs(a).max(initial=0.0))[1] for a in (outputs, hidden, linear)]
    exponent = int(max(lengths[0] + lengths[1], lengths[2]))
    # Powers of two, so that squares neither overflow nor vanish.
    outputs = np.ldexp(outputs, lengths[1] - exponent)
    hidden, linear = np.ldexp(hidden, -lengths[1]), np.ldexp(linear, -exponent)
    triangle = np.empty((0, k + 1))
    step = max(1, _NUMBERS // (d * (k + 1)))
    for first in range(0, len(outputs), step):
        some = slice(first, first + step)
        units = gain * np.concatenate([row * hidden.T for row in outputs[some]])
        whole = linear[some].ravel() + units.sum(axis=1)
        rows = np.concatenate([triangle, np.column_stack([units, whole])])
        triangle = rows if len(rows) <= k + 1 else np.linalg.qr(rows).R
    return triangle, exponent


def _distances(triangle: Matrix, signs: Matrix) -> Matrix:
    """Return |y - G s|^2 from differences, which keeps the digits of small ones."""
    return ((triangle[:, -1] - signs @ triangle[:, :-1].T) ** 2).sum(axis=1)


def _every(n: int) -> Matrix:
    """All sign patterns of n units."""
    return np.where((np.arange(2**n)[:, None] >> np.arange(n)) & 1, 1.0, -1.0)


def _all_patterns(G: Matrix, y: Matrix, top: int) -> Matrix:
    """Compare all patterns: those of two halves and their sums, block by block."""
    k = G.shape[1]
    half = k // 2
    left, right = _every(half), _every(k - half)
    rest, reached = y - left @ G[:, :half].T, right @ G[:, half:].T
    size, more = (reached**2).sum(axis=1), 2 * top
    signs = np.empty((0, k))
    step = max(1, _NUMBERS // len(right))
    for first in range(0, len(left), step):
        some = slice(first, first + step)
        # Rounding of the squares may cover small distances: twice as many are kept.
        squares = (rest[some] ** 2).sum(axis=1)[:, None] + size - 2 * rest[some] @ reached.T
        best = np.argpartition(squares.ravel(), min(more, squares.size) - 1)[:more]
        i, j = np.unravel_index(best, squares.shape)
        signs = np.concatenate([signs, np.column_stack([left[some][i], right[j]])])
    return signs


def _beam(G: Matrix, y: Matrix, ridge: float) -> Matrix:
    """Decide one sign after the other, and keep the patterns that the undecided ones could mend.

    The undecided signs count as normal variables: |y - G s|^2 + r |s|^2, minimised over them, where
    the second term is the same for all patterns. The unit that is known best comes first.
    """
    k = G.shape[1]
    ridge *= float((G**2).sum()) / k or 1.0
    order = _best_known_last(G, ridge)
    extended = np.concatenate([G[:, order], np.sqrt(ridge) * np.eye(k)])
    Q, R = np.linalg.qr(extended)
    rest = (Q[: len(G)].T @ y)[None]
    signs, costs = np.empty((1, k)), np.zeros(1)
    for j in reversed(range(k)):
        signs, rest = np.repeat(signs, 2, axis=0), np.repeat(rest, 2, axis=0)
        signs[::2, j], signs[1::2, j] = 1, -1
        rest -= signs[:, j, None] * R[:, j]
        costs = np.repeat(costs, 2) + rest[:, j] ** 2
        if len(costs) > _WIDTH:
            best = np.argpartition(costs, _WIDTH - 1)[:_WIDTH]
            signs, rest, costs = signs[best], rest[best], costs[best]
    return signs[:, np.argsort(order)]


def _best_known_last(G: Matrix, ridge: float) -> NDArray[np.intp]:
    """Order the units so that the last has the least error when the others are not decided."""
    k = G.shape[1]
    error = np.linalg.inv(G.T @ G + ridge * np.eye(k))
    order, left = np.empty(k, np.intp), np.ones(k, bool)
    for j in reversed(range(k)):
        best = int(np.where(left, np.diag(error), np.inf).argmin())
        order[j], left[best] = best, False
        # What is known of the others when this one is decided.
        error = error - np.outer(error[best], error[best]) / error[best, best]
    return order
