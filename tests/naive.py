"""The oracle: slow, obvious NumPy on full tensors, written from the mathematics."""

from itertools import combinations_with_replacement

import numpy as np


def tuples(k, order):
    """Index tuples a <= b <= ... in lexicographic order."""
    return list(combinations_with_replacement(range(k), order))


def pairs(x):
    return np.stack([x[:, a] * x[:, b] for a, b in tuples(x.shape[1], 2)], axis=1)


def moments(X, Y, frame, weights=None):
    """Expectations as fastsym.sums.values.Moments defines them, from full tensors."""
    w = np.ones(len(X)) if weights is None else weights
    n = w.sum()
    x, y = X @ frame.input_map, Y @ frame.output_map
    one_x = np.concatenate([np.ones((len(X), 1)), X], axis=1)
    v = np.concatenate([one_x, Y], axis=1)
    radius = frame.even_radius
    even = w * radius / (radius + (x**2).sum(axis=1)) if radius else w
    quartic = np.einsum("n,ni,nj,na,nb->ijab", even, y, y, x, x, optimize=True) / n
    inputs = np.einsum("n,ni,nj,na,nb->ijab", even, x, x, x, x, optimize=True) / n
    mixed = np.einsum("n,ni,na,nb,nc->iabc", even, y, x, x, x, optimize=True) / n
    k = x.shape[1]
    cube = w[:, None] * (X / frame.input_scale) ** 3

    def packed(tensor):
        return np.array([[tensor[i, j, a, b] for a, b in tuples(k, 2)] for i, j in tuples(k, 2)])

    return {
        "second": np.einsum("n,ni,nj->ij", w, v, v) / n,
        "pair_cross": np.einsum("n,ni,nj->ij", even, one_x, pairs(x)) / n,
        "third": np.stack([cube.sum(axis=0), (cube**2).sum(axis=0)]),
        "yyxx": packed(quartic),
        "xxxx": packed(inputs),
        "yxxx": np.array([[mixed[i, a, b, c] for a, b, c in tuples(k, 3)] for i in range(k)]),
    }


def distinguishing_matrix(x, y):
    """T from whitened samples x, y, noise direction projected out, packed with sqrt(2)."""
    k = x.shape[1]
    U = np.einsum("ni,nj->nij", y, x - y)
    U = (U + U.transpose(0, 2, 1)) / 2
    full = np.einsum("nij,na,nb->ijab", U, x, x) / len(x)
    full -= np.einsum("ijcc,ab->ijab", full, np.eye(k)) / k
    weight = {True: 1.0, False: np.sqrt(2)}
    return np.array(
        [
            [full[i, j, a, b] * weight[i == j] * weight[a == b] for a, b in tuples(k, 2)]
            for i, j in tuples(k, 2)
        ]
    )


def activations(X, hidden, slope, weights=None, n_free=None):
    """Inputs u = (1, x), slopes s and units h = s (W u), rows times sqrt(weight).

    Units behind the first n_free have the slope 1.
    """
    root = np.sqrt(np.ones(len(X)) if weights is None else weights)[:, None]
    u = np.concatenate([np.ones((len(X), 1)), X], axis=1) * root
    t = u @ hidden.T
    s = np.where(t > 0, 1.0, slope)
    if n_free is not None:
        s[:, n_free:] = 1
    return u, s, s * t, root


def residuals(X, Y, hidden, outputs, slope, weights=None, n_free=None):
    """Sums as fastsym.sums.values.Residuals defines them."""
    u, s, h, root = activations(X, hidden, slope, weights, n_free)
    r = Y * root - h @ outputs.T
    k = len(hidden) if n_free is None else n_free
    return {
        "hidden_gradient": np.einsum("no,oi,ni,na->ia", r, outputs, s, u)[:k],
        "output_gradient": np.einsum("no,ni->oi", r, h),
        "residual_moment": np.einsum("no,np->op", r, r),
    }


def mask_moments(X, hidden, slope, weights=None):
    """Sum of s_i s_j u_a u_b over pairs (i, j) and (a, b)."""
    u, s, _, _ = activations(X, hidden, slope, weights)
    return pairs(s).T @ pairs(u)


def jacobian(X, hidden, outputs, slope, n_free=None):
    """Derivatives of the outputs by (hidden, outputs), shape (n m, k (1 + d) + m k)."""
    u, s, h, _ = activations(X, hidden, slope, n_free=n_free)
    m = len(outputs)
    by_hidden = np.einsum("oi,ni,na->noia", outputs, s, u)
    by_outputs = np.einsum("op,ni->nopi", np.eye(m), h)
    n = len(X)
    return np.concatenate([by_hidden.reshape(n * m, -1), by_outputs.reshape(n * m, -1)], axis=1)


def antithetic(X):
    """Samples that are symmetric to the last bit: each x with its -x."""
    return np.concatenate([X, -X])
