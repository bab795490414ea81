"""Residuals of a network over samples: the loss and its gradient.

Inputs are u = (1, x) here: weights of hidden units are rows (bias, w). Units behind the first
n_free are linear: one with weights (1, 0 ...) carries the output intercept.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.sums.layout import ResidualSums
from fastsym.sums.reducer import Arrays, Reducer
from fastsym.sums.staging import Stager
from fastsym.sums.units import Units
from fastsym.sums.values import Residuals


class ResidualAccumulator(Reducer):
    """One pass over samples: the loss and its gradient at a network that is kept fixed.

    Parameters
    ----------
    n_features, n_outputs : int
    hidden : ndarray of shape (n_units, 1 + n_features)
        Rows (bias, w).
    outputs : ndarray of shape (n_outputs, n_units)
    activation : Activation
    n_jobs : int, default=None
        Threads at most.
    units : Units, default=None
        In which the weights of the network are. None: the samples' own.
    n_free : int, default=None
        Units with the activation; those behind them are linear. None: all.
    """

    _strangers = "other weights"
    _sums: ResidualSums

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden: Matrix,
        outputs: Matrix,
        activation: Activation,
        n_jobs: int | None = None,
        units: Units | None = None,
        n_free: int | None = None,
    ) -> None:
        self._n_free = len(hidden) if n_free is None else n_free
        sums = ResidualSums(n_features, n_outputs, hidden, outputs, activation, self._n_free)
        super().__init__(n_jobs, Stager(n_features, n_outputs, units=units), sums)
        self._hidden, self._outputs, self._activation = hidden, outputs, activation

    def _add(self, stager: Stager) -> None:
        self._sums.add(stager.rows, stager.count, self.n_jobs)

    def _identity(self) -> Arrays:
        return {
            "hidden": self._hidden,
            "outputs": self._outputs,
            "slope": np.array(self._activation.negative_slope),
            "n_free": np.array(self._n_free),
        }

    def result(self) -> Residuals:
        """Return the sums of all samples so far."""
        self._flush()
        totals = self._sums.totals()
        return Residuals(n_samples=self._n_summed, weight=self._weight_summed, **totals)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Take over the state that `to_arrays` gave, of the same weights.

        Parameters
        ----------
        arrays : mapping of str to ndarray

        Returns
        -------
        self : ResidualAccumulator

        Raises
        ------
        ValueError
            If it belongs to other weights, or to other sizes.
        """
        if "n_free" not in arrays:  # a constant was a unit like the others
            n_free = self._n_free if self._n_free == len(self._hidden) else -1
            empty = {"sum_linear_gradient": np.empty((self._sums.n_lanes, 0))}
            arrays = dict(arrays) | {"n_free": np.array(n_free)} | empty
        if "lanes_0" in arrays:
            arrays = _of_version_1(arrays, self._hidden.shape[1] + len(self._outputs))
        return super().restore(arrays)


def _of_version_1(arrays: Mapping[str, NDArray[Any]], width: int) -> Arrays:
    """Rename what checkpoints of version 1 hold, and cut the padding of the staged rows."""
    names = ("sum_hidden_gradient", "sum_output_gradient", "sum_residual_moment")
    return dict(arrays) | {name: arrays[f"lanes_{i}"] for i, name in enumerate(names)} | {
        "staged": arrays["staged"][:, :width],
        "n_summed": arrays["n_samples"] - len(arrays["staged"]),
        "weight_summed": arrays["weight"],
        # Whether there were weights is not said there; staged rows carry them in any case.
        "weighted": np.array(True),
    }  # fmt: skip
