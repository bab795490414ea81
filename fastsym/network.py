"""The network itself, as a value."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastsym._validation import as_rows, check_finite, check_negative_slope
from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.archive import read_arrays, write_arrays

FILE_KIND = "network"
FILE_VERSION = 3
_PREDICT_ROWS = 65536


@dataclass(frozen=True, eq=False)
class TwoLayerNetwork:
    """A two-layer ReLU network, y = A relu(W x), or y = c + A h(W x + b) in full.

    Parameters
    ----------
    hidden_weights : array_like of shape (n_hidden, n_features)
        W. Stored as a read-only float64 copy.
    output_weights : array_like of shape (n_outputs, n_hidden)
        A. Stored as a read-only float64 copy.
    hidden_intercept : array_like of shape (n_hidden,), default=None
        b; None: zeros.
    output_intercept : array_like of shape (n_outputs,), default=None
        c; None: zeros.
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
    The hidden units may be permuted, and row i of W multiplied by c > 0 while column i of A is
    divided by c, without changing the function. `fastsym.metrics.parameter_error` compares two
    networks up to both.

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
    negative_slope: float

    def __init__(
        self,
        hidden_weights: ArrayLike,
        output_weights: ArrayLike,
        *,
        hidden_intercept: ArrayLike | None = None,
        output_intercept: ArrayLike | None = None,
        negative_slope: float = 0.0,
    ) -> None:
        matrices = []
        for name, given in (
            ("hidden_weights", hidden_weights),
            ("output_weights", output_weights),
        ):
            matrix = as_rows(name, given).astype(np.float64)
            check_finite(name, matrix)
            matrix.setflags(write=False)
            object.__setattr__(self, name, matrix)
            matrices.append(matrix)
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
            vector.setflags(write=False)
            object.__setattr__(self, name, vector)
        object.__setattr__(self, "negative_slope", check_negative_slope(negative_slope))

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

    def augmented(self) -> tuple[Matrix, Matrix]:
        """Write the intercepts into the weights, for inputs u = (1, x).

        Returns
        -------
        hidden : ndarray of shape (n_hidden + 1, 1 + n_features)
            Rows (bias, w); the last one is (1, 0 ...), a unit that is always 1.
        outputs : ndarray of shape (n_outputs, n_hidden + 1)
            The last column is the output intercept.
        """
        hidden = np.zeros((self.n_hidden + 1, 1 + self.n_features))
        hidden[:-1, 0], hidden[:-1, 1:] = self.hidden_intercept, self.hidden_weights
        hidden[-1, 0] = 1
        return hidden, np.column_stack([self.output_weights, self.output_intercept])

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
            Y += self.output_intercept
            finite = np.isfinite(Y.sum())
        if not finite and (bad := ~np.isfinite(Y).all(axis=1)).any():
            row = int(bad.argmax())
            raise ValueError(
                f"predictions overflow, first in row {row} of X, whose largest value is "
                f"{np.abs(rows[row]).max():.3g}; weights go up to "
                f"{np.abs(self.hidden_weights).max():.3g} (hidden) and "
                f"{np.abs(self.output_weights).max():.3g} (output)."
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
                # Version 1 had neither intercepts nor a slope.
                hidden_intercept=arrays.get("hidden_intercept"),
                output_intercept=arrays.get("output_intercept"),
                negative_slope=arrays["negative_slope"].item()
                if "negative_slope" in arrays
                else 0.0,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} does not hold a network: {error}") from None
