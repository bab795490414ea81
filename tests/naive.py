"""The oracle: slow, obvious NumPy on full tensors, written from the mathematics."""

from itertools import combinations_with_replacement

import numpy as np


def tuples(k, order):
    """Index tuples a <= b <= ... in lexicographic order."""
    return list(combinations_with_replacement(range(k), order))


def pairs(x):
    return np.stack([x[:, a] * x[:, b] for a, b in tuples(x.shape[1], 2)], axis=1)


def moments(X, Y, frame):
    """Expectations as fastsym.moments.Moments defines them, from full tensors."""
    n = len(X)
    x, y = X @ frame.input_map, Y @ frame.output_map
    one_x = np.concatenate([np.ones((n, 1)), X], axis=1)
    v = np.concatenate([one_x, Y], axis=1)
    quartic = np.einsum("ni,nj,na,nb->ijab", y, y, x, x) / n
    mixed = np.einsum("ni,na,nb,nc->iabc", y, x, x, x) / n
    k = x.shape[1]
    t = X / frame.input_scale
    return {
        "second": np.einsum("ni,nj->ij", v, v) / n,
        "pair_cross": np.einsum("ni,nj->ij", one_x, pairs(x)) / n,
        "third": np.stack([(t**3).sum(axis=0), (t**6).sum(axis=0)]),
        "yyxx": np.array([[quartic[i, j, a, b] for a, b in tuples(k, 2)] for i, j in tuples(k, 2)]),
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


def antithetic(X):
    """Samples that are symmetric to the last bit: each x with its -x."""
    return np.concatenate([X, -X])
