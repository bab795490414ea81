"""What of a network its function determines.

In the form y = c' + L' x + sum_i a'_i |w_i x + b_i| (`TwoLayerNetwork.absolute_form`) the functions
1, x_j and |w_i x + b_i| are linearly independent where the hyperplanes w_i x + b_i = 0 differ: each
bends along its own. So values of y on both sides of every hyperplane determine c', L' and, up to
the order, the pairs of a hyperplane and what bends there: (b_i, w_i) up to its sign and, together
with a_i, its size. Nothing else: signs of units, sizes of w_i and a_i by themselves, and how
several units share one hyperplane are choices. Without a linear part, L = 0, the signs are
determined too unless sums of the linear parts a_i w_i^T agree for several choices of them
(`fastsym.refine.signs`).
"""

import numpy as np
from numpy.typing import NDArray

from fastsym.algebra import Matrix, row_lengths
from fastsym.network import TwoLayerNetwork


def merge_units(network: TwoLayerNetwork, *, tolerance: float = 1e-10) -> TwoLayerNetwork:
    """Write a network with as few units as its function has hyperplanes.

    Units with one hyperplane, rows (b, w) parallel up to sign, become one, for which a difference
    of signs goes into the linear part; units that are constant go into the constant, those that do
    nothing are left out. Two networks are one function if their merged ones agree up to
    `fastsym.metrics.parameter_error`'s signs and sizes.

    Parameters
    ----------
    network : TwoLayerNetwork
    tolerance : float, default=1e-10
        Distance of rows of unit length up to which they are parallel, and size of a unit, relative
        to the largest, up to which it does nothing. In the units of x: where features are of very
        different sizes or far from zero, it is best to scale them.

    Returns
    -------
    network : TwoLayerNetwork
        The same function up to `tolerance`; rows (b, w) of unit length, in the order of the first
        unit of each hyperplane. It may have a linear part where the given one has none.

    Raises
    ------
    ValueError
        If the weights overflow.

    Examples
    --------
    >>> import fastsym
    >>> from fastsym.identifiability import merge_units
    >>> line = merge_units(fastsym.TwoLayerNetwork([[2.0], [-2.0]], [[1.0, -1.0]]))
    >>> line.n_hidden, line.linear_weights  # relu(2 x) - relu(-2 x) = 2 x
    (0, array([[2.]]))
    """
    rows = network.hidden_rows
    lengths = row_lengths(rows)
    rows, outputs = rows / lengths[:, None], network.output_weights * lengths
    affine = network.affine_part
    constant = np.linalg.norm(rows[:, 1:], axis=1) <= tolerance
    affine[:, 0] += outputs[:, constant] @ network.activation(rows[constant, 0])
    least = tolerance * np.abs(outputs).max(initial=0)
    rows, outputs = rows[~constant], outputs[:, ~constant]
    firsts, signs = _hyperplanes(rows, tolerance)
    # h(-t) = h(t) - (1 + a) t
    opposite = signs < 0
    taken = outputs[:, opposite] @ rows[firsts[opposite]]
    affine -= 2 * network.activation.odd_gain * taken
    sums = np.zeros_like(outputs)
    np.add.at(sums.T, firsts, outputs.T)
    kept = np.abs(sums).max(axis=0, initial=0) > least  # zero but for the first of a hyperplane
    return TwoLayerNetwork(
        rows[kept, 1:],
        sums[:, kept],
        hidden_intercept=rows[kept, 0],
        output_intercept=affine[:, 0],
        linear_weights=affine[:, 1:],
        negative_slope=network.negative_slope,
    )


def _hyperplanes(rows: Matrix, tolerance: float) -> tuple[NDArray[np.intp], Matrix]:
    """Return the first unit of each unit's hyperplane, and the sign of its row against that one."""
    firsts, signs = np.arange(len(rows)), np.ones(len(rows))
    for i, row in enumerate(rows):
        if firsts[i] != i:
            continue
        own = firsts == np.arange(len(rows))
        own[: i + 1] = False
        # The plain distance: a cosine would lose half of the digits.
        for sign in (1.0, -1.0):
            near = own & (np.linalg.norm(rows - sign * row, axis=1) <= tolerance)
            firsts[near], signs[near] = i, sign
    return firsts, signs
