"""How far an estimated network is from the true one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from fastsym._validation import as_rows, check_finite
from fastsym.algebra import Matrix, unit_rows
from fastsym.network import TwoLayerNetwork


class ParameterError(NamedTuple):
    """Summed squared distances of matched, normalised weights."""

    hidden_error: float
    output_error: float


def match_neurons(
    truth: TwoLayerNetwork, estimate: TwoLayerNetwork
) -> tuple[NDArray[np.intp], ParameterError]:
    """Pair the hidden units of two networks of the same shape.

    Rows of W and columns of A are scaled to unit length (a zero vector stays zero), and the pairing
    minimises the sum of the squared distances of both.

    Parameters
    ----------
    truth, estimate : TwoLayerNetwork
        Networks of the same shape.

    Returns
    -------
    order : ndarray of shape (n_hidden,)
        Unit order[i] of `estimate` is paired with unit i of `truth`.
    error : ParameterError
        As `parameter_error` returns it.

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

    def squared_distances(a: Matrix, b: Matrix) -> Matrix:
        # The plain difference: 2 - 2 cos would lose half of the digits of a small distance.
        a, b = unit_rows(a), unit_rows(b)
        return np.array([((row - b) ** 2).sum(axis=1) for row in a])

    hidden = squared_distances(truth.hidden_weights, estimate.hidden_weights)
    output = squared_distances(truth.output_weights.T, estimate.output_weights.T)
    rows, order = linear_sum_assignment(hidden + output)
    error = ParameterError(float(hidden[rows, order].sum()), float(output[rows, order].sum()))
    return order, error


def parameter_error(truth: TwoLayerNetwork, estimate: TwoLayerNetwork) -> ParameterError:
    """Squared error of the weights, up to the order and the scale of the hidden units.

    Parameters
    ----------
    truth, estimate : TwoLayerNetwork
        Networks of the same shape.

    Returns
    -------
    hidden_error, output_error : float
        The rows of W and the columns of A are scaled to unit length and paired by the optimal
        assignment on the sum of both squared distances; each error is the sum of squared distances
        over the n_hidden pairs, 0 when equal and at most 4 n_hidden.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Ge, Kuditipudi, Li, Wang, ICLR 2019, section 6.
    """
    return match_neurons(truth, estimate)[1]


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
