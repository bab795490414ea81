"""Moments of the masks of a network's units: all that its Gauss-Newton normal matrix is made of."""

import numpy as np

from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.sums.layout import MaskSums
from fastsym.sums.reducer import Arrays, Reducer
from fastsym.sums.staging import Stager
from fastsym.sums.units import Units


class MaskAccumulator(Reducer):
    """One pass over samples: sums of s_i s_j u u^T, u = (1, x), at weights that are kept fixed.

    Parameters
    ----------
    n_features, n_outputs : int
    hidden : ndarray of shape (n_units, 1 + n_features)
        Rows (bias, w).
    activation : Activation
        s_i is its derivative at unit i's argument.
    n_jobs : int, default=None
        Threads at most.
    units : Units, default=None
        In which the weights of the network are. None: the samples' own.
    """

    _strangers = "other weights"
    _sums: MaskSums

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden: Matrix,
        activation: Activation,
        n_jobs: int | None = None,
        units: Units | None = None,
    ) -> None:
        sums = MaskSums(n_features, n_outputs, hidden, activation)
        super().__init__(n_jobs, Stager(n_features, n_outputs, units=units), sums)
        self._hidden, self._activation = hidden, activation

    def _add(self, stager: Stager) -> None:
        self._sums.add(stager.rows, stager.count, self.n_jobs)

    def _identity(self) -> Arrays:
        return {"hidden": self._hidden, "slope": np.array(self._activation.negative_slope)}

    def result(self) -> Matrix:
        """Return the sums of all samples so far.

        Returns
        -------
        moments : ndarray of shape (n_units (n_units + 1) / 2, (1 + d) (2 + d) / 2)
            Pairs in lexicographic order.
        """
        self._flush()
        return self._sums.totals()["moments"]
