"""How far an estimated network is from the true one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from fastsym._validation import as_rows, check_finite
from fastsym.algebra import Matrix, row_lengths, unit_rows
from fastsym.network import TwoLayerNetwork


class ParameterError(NamedTuple):
    """Summed squared distances of matched, normalised weights, and of the linear parts.

    Parameters
    ----------
    hidden_error : float
        Of rows of W, up to sign.
    output_error : float
        Of columns of A.
    wrong_signs : int
        Hidden units of the opposite sign.
    linear_error : float
        Of c + L x, when these signs are changed back.
    """

    hidden_error: float
    output_error: float
    wrong_signs: int = 0
    linear_error: float = 0.0


class Matching(NamedTuple):
    """Hidden units of two networks in pairs.

    Parameters
    ----------
    order : ndarray of shape (n_hidden,)
        Unit order[i] of the estimate is paired with unit i of the truth.
    signs : ndarray of shape (n_hidden,)
        -1 where (w, b) of the estimate's unit order[i] is closer to -(w, b) of the truth's unit i
        than to (w, b), else 1.
    error : ParameterError
        As `parameter_error` returns it.
    """

    order: NDArray[np.intp]
    signs: Matrix
    error: ParameterError


def match_neurons(
    truth: TwoLayerNetwork, estimate: TwoLayerNetwork, *, up_to_sign: bool = True
) -> Matching:
    """Pair the hidden units of two networks of the same shape.

    Rows of W and columns of A are scaled to unit length (a zero vector stays zero), and the pairing
    minimises the sum of the squared distances of both. If one of the networks has biases, rows are
    (b, w), in the units of x: b counts as much as w where features are of size 1.

    Parameters
    ----------
    truth, estimate : TwoLayerNetwork
        Networks of the same shape.
    up_to_sign : bool, default=True
        Whether a row may be paired with the opposite of another.

    Returns
    -------
    matching : Matching

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    shapes = [(n.n_features, n.n_hidden, n.n_outputs) for n in (truth, estimate)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "truth and estimate must have the same (n_features, n_hidden, n_outputs), got "
            f"{shapes[0]} and {shapes[1]}."
        )
    rows = [network.hidden_weights for network in (truth, estimate)]
    if truth.hidden_intercept.any() or estimate.hidden_intercept.any():
        rows = [network.hidden_rows for network in (truth, estimate)]
    hidden = same = _squared_distances(*rows)
    if up_to_sign:
        hidden = np.minimum(same, _squared_distances(rows[0], -rows[1]))
    output = _squared_distances(truth.output_weights.T, estimate.output_weights.T)
    first, order = linear_sum_assignment(hidden + output)
    signs = np.where(hidden[first, order] < same[first, order], -1.0, 1.0)
    error = ParameterError(
        float(hidden[first, order].sum()),
        float(output[first, order].sum()),
        int((signs < 0).sum()),
        _linear_error(truth, estimate, order, signs),
    )
    return Matching(order, signs, error)


def parameter_error(
    truth: TwoLayerNetwork, estimate: TwoLayerNetwork, *, up_to_sign: bool = True
) -> ParameterError:
    """Squared error of the weights, up to the order and the scale of the hidden units.

    Since h(-t) = h(t) - (1 + a) t, a the slope, a unit with the wrong sign is the right unit beside
    a wrong linear part: signs and linear part are told apart from the rest. The sizes of the units,
    |a_i| |w_i|, are not compared.

    Parameters
    ----------
    truth, estimate : TwoLayerNetwork
        Networks of the same shape.
    up_to_sign : bool, default=True
        False: a wrong sign is an error of W as any other, as in the paper.

    Returns
    -------
    hidden_error, output_error : float
        The rows of W, or (b, W) if one of the networks has biases, and the columns of A are scaled
        to unit length and paired by the optimal assignment on the sum of both squared distances,
        rows up to sign; each error is the sum of squared distances over the n_hidden pairs, 0 when
        equal and at most 4 n_hidden.
    wrong_signs : int
        Pairs with rows of opposite signs.
    linear_error : float
        |E|^2 over the sum of |(c, L)|^2 and the g^2 |a_i|^2 |(b_i, w_i)|^2 of the true network,
        g = (1 + a) / 2. E is the difference of (c, L), where a unit with a wrong sign is written as
        that of the right sign, a_i h(-t) = a_i h(t) - 2 g a_i t. 0 for networks without constant
        and linear part whose signs agree.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Ge, Kuditipudi, Li, Wang, ICLR 2019, section 6.
    """
    return match_neurons(truth, estimate, up_to_sign=up_to_sign).error


def _squared_distances(a: Matrix, b: Matrix) -> Matrix:
    # The plain difference: 2 - 2 cos would lose half of the digits of a small distance.
    a, b = unit_rows(a), unit_rows(b)
    return np.array([((row - b) ** 2).sum(axis=1) for row in a]).reshape(len(a), len(b))


def _linear_error(
    truth: TwoLayerNetwork, estimate: TwoLayerNetwork, order: NDArray[np.intp], signs: Matrix
) -> float:
    """Relative squared error of c + L x, units of the estimate with the signs of the truth's."""
    affine = [network.affine_part for network in (truth, estimate)]
    if (signs > 0).all() and not affine[0].any() and not affine[1].any():
        return 0.0
    a, w = truth.output_weights.T, truth.hidden_rows
    # A power of two, so that squares of large and of small weights are as exact as others.
    unit = int(max(_exponent(a) + _exponent(w), _exponent(affine[0])))
    flipped = order[signs < 0]
    with np.errstate(over="ignore", invalid="ignore"):
        units = _product(np.diag(row_lengths(a) * a.any(axis=1)), row_lengths(w)[:, None], unit)
        parts = [np.ldexp(part, -unit) for part in affine]
        taken = _product(estimate.output_weights[:, flipped], estimate.hidden_rows[flipped], unit)
        scale = (parts[0] ** 2).sum() + ((truth.activation.odd_gain * units) ** 2).sum()
        error = ((parts[1] + 2 * estimate.activation.odd_gain * taken - parts[0]) ** 2).sum()
    if not np.isfinite(error):
        return np.inf
    return float(error / scale) if scale > 0 else (0.0 if error == 0 else np.inf)


def _exponent(array: Matrix) -> int:
    return int(np.frexp(np.abs(array).max(initial=0.0))[1])


def _product(left: Matrix, right: Matrix, unit: int) -> Matrix:
    """Return left @ right / 2^unit, each of any size."""
    sizes = _exponent(left), _exponent(right)
    product = np.ldexp(left, -sizes[0]) @ np.ldexp(right, -sizes[1])
    return np.ldexp(product, sum(sizes) - unit)


def output_error(Y_true: ArrayLike, Y_pred: ArrayLike) -> float:
    """Relative squared error of outputs, sum |Y_pred - Y_true|^2 / sum |Y_true|^2.

    Parameters
    ----------
    Y_true, Y_pred : array_like of shape (n_samples, n_outputs)

    Returns
    -------
    error : float
        0 when equal, 1 for a prediction of zeros; infinite when Y_true is all zero and Y_pred is
        not.

    Raises
    ------
    ValueError
        If the shapes differ or a value is not finite.
    """
    truth, prediction = as_rows("Y_true", Y_true), as_rows("Y_pred", Y_pred)
    truth, prediction = truth.astype(np.float64), prediction.astype(np.float64)
    check_finite("Y_true", truth)
    check_finite("Y_pred", prediction)
    if truth.shape != prediction.shape:
        raise ValueError(
            f"Y_true and Y_pred must have the same shape, got {truth.shape} and {prediction.shape}."
        )
    # A power of two, so that squares of large and of small values are as exact as others.
    exponent = int(np.frexp(np.abs(truth).max(initial=0.0))[1])
    truth, prediction = np.ldexp(truth, -exponent), np.ldexp(prediction, -exponent)
    difference, scale = ((prediction - truth) ** 2).sum(), (truth**2).sum()
    return float(difference / scale) if scale > 0 else (0.0 if difference == 0 else np.inf)
