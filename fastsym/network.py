"""The network itself, as a value."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastsym._validation import as_rows, check_finite, check_negative_slope
from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.archive import read_arrays, write_arrays

FILE_KIND = "network"
FILE_VERSION = 4
_PREDICT_ROWS = 65536


class AbsoluteForm(NamedTuple):
    """A network as y = c' + L' x + A' |W x + b|, where signs of units do not matter.

    Parameters
    ----------
    hidden_weights : ndarray of shape (n_hidden, n_features)
        W.
    hidden_intercept : ndarray of shape (n_hidden,)
        b. Any (w_i, b_i) may be replaced by -(w_i, b_i).
    output_weights : ndarray of shape (n_outputs, n_hidden)
        A' = (1 - a) / 2 A, a the slope.
    linear_weights : ndarray of shape (n_outputs, n_features)
        L' = L + (1 + a) / 2 A W.
    output_intercept : ndarray of shape (n_outputs,)
        c' = c + (1 + a) / 2 A b.
    """

    hidden_weights: Matrix
    hidden_intercept: Matrix
    output_weights: Matrix
    linear_weights: Matrix
    output_intercept: Matrix


@dataclass(frozen=True, eq=False)
class TwoLayerNetwork:
    """A two-layer ReLU network, y = A relu(W x), or y = c + L x + A h(W x + b) in full.

    Parameters
    ----------
    hidden_weights : array_like of shape (n_hidden, n_features)
        W. Stored as a read-only float64 copy. There may be no hidden unit.
    output_weights : array_like of shape (n_outputs, n_hidden)
        A. Stored as a read-only float64 copy.
    hidden_intercept : array_like of shape (n_hidden,), default=None
        b; None: zeros.
    output_intercept : array_like of shape (n_outputs,), default=None
        c; None: zeros.
    linear_weights : array_like of shape (n_outputs, n_features), default=None
        L; None: zeros.
    negative_slope : float, default=0.0
        Slope a of the activation for negative arguments, h(t) = max(t, 0) + a min(t, 0), with
        0 <= a < 1.

    Raises
    ------
    ValueError
        If an array is not finite and real, if the shapes do not match, or if the slope is not
        from 0 to below 1.

    Notes
    -----
    The hidden units may be permuted, and row i of W (with its bias) multiplied by s > 0 while
    column i of A is divided by s, without changing the function. `fastsym.metrics.parameter_error`
    compares two networks up to both. Since h(-t) = h(t) - (1 + a) t, a unit's sign may change too
    if L and c do with it: see `flipped` and `absolute_form`.

    References
    ----------
    Ge, Kuditipudi, Li, Wang, "Learning Two-layer Neural Networks with Symmetric Inputs", ICLR
    2019, arXiv:1810.06793, equation (1).

    Examples
    --------
    >>> import fastsym
    >>> network = fastsym.TwoLayerNetwork([[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0]])
    >>> network.predict([[3.0, -1.0], [1.0, 1.0]])
    array([[3.],
           [3.]])
    """

    hidden_weights: Matrix
    output_weights: Matrix
    hidden_intercept: Matrix
    output_intercept: Matrix
    linear_weights: Matrix
    negative_slope: float

    def __init__(
        self,
        hidden_weights: ArrayLike,
        output_weights: ArrayLike,
        *,
        hidden_intercept: ArrayLike | None = None,
        output_intercept: ArrayLike | None = None,
        linear_weights: ArrayLike | None = None,
        negative_slope: float = 0.0,
    ) -> None:
        matrices = []
        for name, given in (
            ("hidden_weights", hidden_weights),
            ("output_weights", output_weights),
        ):
            matrices.append(self._keep(name, _matrix(name, given)))
        if matrices[0].shape[0] != matrices[1].shape[1]:
            raise ValueError(
                "hidden_weights must have one row for each column of output_weights, got shapes "
                f"{matrices[0].shape} and {matrices[1].shape}."
            )
        for name, intercept, size in (
            ("hidden_intercept", hidden_intercept, matrices[0].shape[0]),
            ("output_intercept", output_intercept, matrices[1].shape[0]),
        ):
            vector = np.zeros(size) if intercept is None else np.array(intercept, np.float64)
            if vector.shape != (size,) or not np.isfinite(vector).all():
                raise ValueError(
                    f"{name} must hold {size} finite numbers, got shape {vector.shape}: {vector}."
                )
            self._keep(name, vector)
        shape = (matrices[1].shape[0], matrices[0].shape[1])
        linear = np.zeros(shape) if linear_weights is None else _matrix(
            "linear_weights", linear_weights
        )  # fmt: skip
        if linear.shape != shape:
            raise ValueError(
                "linear_weights must have one row for each output and one column for each feature, "
                f"shape {shape}, got {linear.shape}."
            )
        self._keep("linear_weights", linear)
        object.__setattr__(self, "negative_slope", check_negative_slope(negative_slope))

    def _keep(self, name: str, array: Matrix) -> Matrix:
        array.setflags(write=False)
        object.__setattr__(self, name, array)
        return array

    @property
    def n_features(self) -> int:
        """Number of inputs d."""
        return self.hidden_weights.shape[1]

    @property
    def n_hidden(self) -> int:
        """Number of hidden units k."""
        return self.hidden_weights.shape[0]

    @property
    def n_outputs(self) -> int:
        """Number of outputs m."""
        return self.output_weights.shape[0]

    @property
    def activation(self) -> Activation:
        """Activation h of the hidden units."""
        return Activation(self.negative_slope)

    @property
    def has_intercepts(self) -> bool:
        """Whether a bias or the constant is not zero."""
        return bool(self.hidden_intercept.any() or self.output_intercept.any())

    @property
    def has_linear_part(self) -> bool:
        """Whether L is not zero."""
        return bool(self.linear_weights.any())

    @property
    def hidden_rows(self) -> Matrix:
        """Rows (b_i, w_i), weights of u = (1, x); shape (n_hidden, 1 + n_features)."""
        return np.column_stack([self.hidden_intercept, self.hidden_weights])

    @property
    def affine_part(self) -> Matrix:
        """(c, L), weights of u = (1, x); shape (n_outputs, 1 + n_features)."""
        return np.column_stack([self.output_intercept, self.linear_weights])

    def augmented(self) -> tuple[Matrix, Matrix]:
        """Write intercepts and linear part into the weights, for inputs u = (1, x).

        Returns
        -------
        hidden : ndarray of shape (n_units, 1 + n_features)
            Rows (bias, w) of the n_hidden units; behind them rows of the identity, which are linear
            units: the constant, and the features if L is not zero.
        outputs : ndarray of shape (n_outputs, n_units)
            A, the output intercept, and L if it is not zero.
        """
        n_fixed = 1 + self.n_features if self.has_linear_part else 1
        hidden = np.concatenate([self.hidden_rows, np.eye(n_fixed, 1 + self.n_features)])
        return hidden, np.column_stack([self.output_weights, self.affine_part[:, :n_fixed]])

    def absolute_form(self) -> AbsoluteForm:
        """Write the activation as a linear part and an absolute value.

        Since h(t) = (1 + a) / 2 t + (1 - a) / 2 |t|, networks whose units differ in signs, and in
        L and c accordingly, have one form up to signs of (w_i, b_i).

        Returns
        -------
        form : AbsoluteForm
        """
        gain = self.activation.odd_gain
        return AbsoluteForm(
            self.hidden_weights,
            self.hidden_intercept,
            (1 - gain) * self.output_weights,
            self.linear_weights + gain * self.output_weights @ self.hidden_weights,
            self.output_intercept + gain * self.output_weights @ self.hidden_intercept,
        )

    def flipped(self, signs: ArrayLike) -> "TwoLayerNetwork":
        """Change signs of units, and the linear part and the constant so that y stays.

        Parameters
        ----------
        signs : array_like of shape (n_hidden,)
            1, or -1 for a unit whose (w_i, b_i) changes its sign.

        Returns
        -------
        network : TwoLayerNetwork
            With the same values.

        Raises
        ------
        ValueError
            If `signs` is not as many numbers 1 and -1 as there are units.
        """
        s = np.asarray(signs, np.float64)
        if s.shape != (self.n_hidden,) or not (np.abs(s) == 1).all():
            raise ValueError(f"signs must hold {self.n_hidden} numbers 1 or -1, got {signs!r}.")
        taken = self.activation.odd_gain * (1 - s) * self.output_weights
        return TwoLayerNetwork(
            s[:, None] * self.hidden_weights,
            self.output_weights,
            hidden_intercept=s * self.hidden_intercept,
            output_intercept=self.output_intercept + taken @ self.hidden_intercept,
            linear_weights=self.linear_weights + taken @ self.hidden_weights,
            negative_slope=self.negative_slope,
        )

    def predict(self, X: ArrayLike) -> Matrix:
        """Evaluate the network.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        Y : ndarray of shape (n_samples, n_outputs), float64

        Raises
        ------
        ValueError
            If X is not a finite numeric array with n_features columns, or predictions overflow.
        """
        rows = as_rows("X", X)
        if rows.shape[1] != self.n_features:
            raise ValueError(
                f"X has {rows.shape[1]} features, but the network expects {self.n_features}."
            )
        check_finite("X", rows)
        Y = np.empty((len(rows), self.n_outputs))
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, len(rows), _PREDICT_ROWS):  # bounds the hidden layer's memory
                block = np.asarray(rows[first : first + _PREDICT_ROWS], np.float64)
                hidden = self.activation(block @ self.hidden_weights.T + self.hidden_intercept)
                np.matmul(hidden, self.output_weights.T, out=Y[first : first + _PREDICT_ROWS])
                if self.has_linear_part:
                    Y[first : first + _PREDICT_ROWS] += block @ self.linear_weights.T
            Y += self.output_intercept
            finite = np.isfinite(Y.sum())
        if not finite and (bad := ~np.isfinite(Y).all(axis=1)).any():
            row = int(bad.argmax())
            raise ValueError(
                f"predictions overflow, first in row {row} of X, whose largest value is "
                f"{np.abs(rows[row]).max():.3g}; weights go up to "
                f"{np.abs(self.hidden_weights).max(initial=0.0):.3g} (hidden), "
                f"{np.abs(self.output_weights).max(initial=0.0):.3g} (output) and "
                f"{np.abs(self.linear_weights).max():.3g} (linear)."
            )
        return Y

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the network to an .npz file of plain arrays with a format version and a checksum.

        Parameters
        ----------
        path : path
            Used as it is; no extension is added.

        Returns
        -------
        path : pathlib.Path

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        arrays: dict[str, Any] = {
            "hidden_weights": self.hidden_weights,
            "output_weights": self.output_weights,
            "hidden_intercept": self.hidden_intercept,
            "output_intercept": self.output_intercept,
            "linear_weights": self.linear_weights,
            "negative_slope": np.array(self.negative_slope),
        }
        return write_arrays(path, FILE_KIND, FILE_VERSION, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TwoLayerNetwork":
        """Read a network that `save` wrote.

        Parameters
        ----------
        path : path

        Returns
        -------
        network : TwoLayerNetwork

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, of another kind or of a newer version.
        """
        _, arrays = read_arrays(path, {FILE_KIND: FILE_VERSION})
        try:
            return cls(
                arrays["hidden_weights"],
                arrays["output_weights"],
                # Version 1 had neither intercepts nor a slope, none before 4 a linear part.
                hidden_intercept=arrays.get("hidden_intercept"),
                output_intercept=arrays.get("output_intercept"),
                linear_weights=arrays.get("linear_weights"),
                negative_slope=arrays["negative_slope"].item()
                if "negative_slope" in arrays
                else 0.0,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} does not hold a network: {error}") from None


def _matrix(name: str, given: ArrayLike) -> Matrix:
    """Return a float64 copy of finite weights; without hidden units A has no column."""
    array = np.asarray(given)
    if name == "output_weights" and array.ndim == 2 and array.shape[1] == 0:
        return np.empty(array.shape)
    matrix = as_rows(name, given).astype(np.float64)
    check_finite(name, matrix)
    return matrix
