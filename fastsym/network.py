"""The network itself, as a value."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastsym._files import read_arrays, write_arrays
from fastsym._validation import as_rows, check_finite

FILE_KIND = "network"
FILE_VERSION = 1
_PREDICT_ROWS = 65536


@dataclass(frozen=True, eq=False)
class TwoLayerNetwork:
    """A two-layer ReLU network without biases, y = A relu(W x).

    Parameters
    ----------
    hidden_weights : array_like of shape (n_hidden, n_features)
        W. Stored as a read-only float64 copy.
    output_weights : array_like of shape (n_outputs, n_hidden)
        A. Stored as a read-only float64 copy.

    Raises
    ------
    ValueError
        If either is not a finite real matrix, or if the numbers of hidden units differ.

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

    hidden_weights: NDArray[np.float64]
    output_weights: NDArray[np.float64]

    def __init__(self, hidden_weights: ArrayLike, output_weights: ArrayLike) -> None:
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

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
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
            If X is not a finite numeric array with n_features columns.
        """
        rows = as_rows("X", X)
        if rows.shape[1] != self.n_features:
            raise ValueError(
                f"X has {rows.shape[1]} features, but the network expects {self.n_features}."
            )
        check_finite("X", rows)
        Y = np.empty((len(rows), self.n_outputs))
        for first in range(0, len(rows), _PREDICT_ROWS):  # bounds the hidden layer's memory
            block = np.asarray(rows[first : first + _PREDICT_ROWS], np.float64)
            hidden = np.maximum(block @ self.hidden_weights.T, 0)
            np.matmul(hidden, self.output_weights.T, out=Y[first : first + _PREDICT_ROWS])
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
        return cls(arrays["hidden_weights"], arrays["output_weights"])
