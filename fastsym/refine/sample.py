"""Samples in memory: residuals and moments of masks at a network, worked out again and again."""

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym._validation import effective_number
from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.sums.layout import MaskSums, ResidualSums, aligned_zeros, padded
from fastsym.sums.staging import stage
from fastsym.sums.units import Units
from fastsym.sums.values import Residuals


class Sample:
    """Samples in memory, staged once.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    weights : ndarray of shape (n_samples,), default=None
        Positive; None: all 1.
    n_jobs : int, default=None
        Threads at most.
    units : Units, default=None
        In which the samples are held. None: their own.
    """

    def __init__(
        self,
        X: NDArray[Any],
        Y: NDArray[Any],
        weights: NDArray[Any] | None = None,
        n_jobs: int | None = None,
        units: Units | None = None,
    ) -> None:
        (n, d), m = X.shape, Y.shape[1]
        self.n_samples, self.n_features, self.n_outputs = n, d, m
        self._n_jobs = n_jobs
        self._staged = aligned_zeros((padded(n), padded(1 + d + m)))
        stage(self._staged, X, Y, weights, units=units)
        self.weight = float(n if weights is None else weights.sum())
        self.n_effective = effective_number(n, weights)
        self._weighted = weights is not None
        if units is not None and weights is not None:
            self.weight = float(np.ldexp(weights, -2 * units.root).sum())
        self._mask_work: dict[int, tuple[NDArray[Any], ...]] = {}  # by the number of units

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mask_work": {}}

    @property
    def inputs(self) -> Matrix:
        """sqrt(weight) (1, x), a view of shape (n_samples, 1 + n_features)."""
        return self._staged[: self.n_samples, : 1 + self.n_features]

    @property
    def targets(self) -> Matrix:
        """sqrt(weight) y, a view of shape (n_samples, n_outputs)."""
        first = 1 + self.n_features
        return self._staged[: self.n_samples, first : first + self.n_outputs]

    def spread(self, n_rows: int) -> "Sample":
        """Return rows spread evenly over these, staged anew; all if there are no more.

        Parameters
        ----------
        n_rows : int

        Returns
        -------
        sample : Sample
        """
        if n_rows >= self.n_samples:
            same = copy(self)
            same._mask_work = {}
            return same
        return self.taken(np.linspace(0, self.n_samples - 1, n_rows).astype(np.intp))

    def taken(self, rows: NDArray[np.intp]) -> "Sample":
        """Return some of these rows, staged anew.

        Parameters
        ----------
        rows : ndarray of shape (n_rows,)
            Their numbers.

        Returns
        -------
        sample : Sample
        """
        inputs, targets = self.inputs[rows], self.targets[rows]
        root = inputs[:, :1]
        weights = root[:, 0] ** 2 if self._weighted else None
        return Sample(inputs[:, 1:] / root, targets / root, weights, self._n_jobs)

    def with_targets(self, targets: Matrix) -> "Sample":
        """Return the same samples with other targets.

        Parameters
        ----------
        targets : ndarray of shape (n_samples, n_outputs)
            sqrt(weight) y.

        Returns
        -------
        sample : Sample
        """
        other = copy(self)
        other._staged = aligned_zeros(self._staged.shape)
        other._staged[:] = self._staged
        other.targets[:] = targets
        return other

    def thinned(self, step: int) -> "Sample":
        """Return every step-th sample, to look at only: it is not aligned for the kernels.

        Parameters
        ----------
        step : int

        Returns
        -------
        sample : Sample
            A view.
        """
        other = copy(self)
        other._staged = self._staged[: self.n_samples : step]
        other.n_samples = len(other._staged)
        return other

    def residuals(
        self, hidden: Matrix, outputs: Matrix, slope: float, n_free: int | None = None
    ) -> Residuals:
        """Return the loss and its gradient at a network.

        Parameters
        ----------
        hidden : ndarray of shape (n_units, 1 + n_features)
            Rows (bias, w).
        outputs : ndarray of shape (n_outputs, n_units)
        slope : float
            Of the activation for negative arguments.
        n_free : int, default=None
            Units with the activation; those behind them are linear. None: all.

        Returns
        -------
        residuals : Residuals
        """
        shape = self.n_features, self.n_outputs
        sums = ResidualSums(*shape, hidden, outputs, Activation(slope), n_free, self.n_samples)
        sums.add(self._staged, self.n_samples, self._n_jobs)
        return Residuals(n_samples=self.n_samples, weight=self.weight, **sums.totals())

    def mask_moments(self, hidden: Matrix, slope: float) -> Matrix:
        """Sum of s_i s_j u u^T for all pairs of units, s the slopes of the activations.

        Parameters
        ----------
        hidden : ndarray of shape (n_units, 1 + n_features)
            Rows (bias, w).
        slope : float
            Of the activation for negative arguments.

        Returns
        -------
        moments : ndarray of shape (n_units (n_units + 1) / 2, (1 + d) (2 + d) / 2)
            Pairs in lexicographic order.
        """
        shape = self.n_features, self.n_outputs
        work = self._mask_work.get(len(hidden), ())
        sums = MaskSums(*shape, hidden, Activation(slope), self.n_samples, work)
        sums.add(self._staged, self.n_samples, self._n_jobs)
        self._mask_work = {len(hidden): sums.work}
        return sums.totals()["moments"]
