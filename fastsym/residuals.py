"""Residuals of a network over samples: the loss, its gradient, and the Gauss-Newton moments.

`ResidualAccumulator` is the reducer of a pass over a source; `Sample` holds rows in memory, for
which both are worked out again and again. Inputs are u = (1, x) here: weights of hidden units are
rows (bias, w), and a unit with weights (1, 0 ...) is the constant that carries the output
intercept.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym.staging import (
    SUPERBLOCK_ROWS,
    aligned_zeros,
    kernel_threads,
    lanes_of,
    padded,
    padded_matrix,
    stage,
)

Matrix = NDArray[np.float64]

_BLOCK_ROWS = 256  # as many packed pairs as the kernels' panels hold


@dataclass(frozen=True, eq=False)
class Residuals:
    """Sums over samples at one network, r = y - A h.

    Parameters
    ----------
    n_samples : int
    weight : float
        Sum of the sample weights; n_samples without weights.
    hidden_gradient : ndarray of shape (n_units, 1 + n_features)
        Sum of (s * (A^T r)) u^T, minus half of the gradient of the loss by the hidden weights.
    output_gradient : ndarray of shape (n_outputs, n_units)
        Sum of r h^T, likewise by A.
    residual_moment : ndarray of shape (n_outputs, n_outputs)
        Sum of r r^T.
    """

    n_samples: int
    weight: float
    hidden_gradient: Matrix
    output_gradient: Matrix
    residual_moment: Matrix

    @property
    def loss(self) -> float:
        """Sum of squared residuals."""
        return float(np.trace(self.residual_moment))

    def with_loss(self, loss: float) -> "Residuals":
        """Scale the residual moment to another loss, for a step that is not evaluated."""
        share = loss / self.loss if self.loss > 0 else 1.0
        return replace(self, residual_moment=self.residual_moment * share)


class _ResidualSums:
    """Lanes of sums and work space for staged rows of one width."""

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden: Matrix,
        outputs: Matrix,
        n_rows: int = SUPERBLOCK_ROWS,
    ) -> None:
        from fastsym import _kernels

        d, m, k = n_features, n_outputs, len(hidden)
        k_padded, m_padded, d_padded = padded(k), padded(m), padded(1 + d)
        self._sizes = d, m, k
        self.hidden, self.outputs = hidden, outputs
        back = padded_matrix(outputs)
        forward = np.zeros((k_padded, m_padded))
        forward[:k, :m] = outputs.T
        self._weights = padded_matrix(hidden.T), forward, back
        shapes = (k_padded * d_padded, k_padded * m_padded, m_padded * m_padded)
        # No more lanes than blocks are ever filled by a call.
        self._lanes = min(lanes_of(sum(shapes)), -(-n_rows // _kernels.RESIDUAL_ROWS))
        self.lanes = [aligned_zeros((self._lanes, size)) for size in shapes]
        self._buffer = (4, _kernels.RESIDUAL_ROWS, max(k_padded, m_padded) + 8)

    def add(self, rows: NDArray[Any], n_rows: int, slope: float, n_jobs: int | None) -> None:
        from fastsym import _kernels

        d, m, _ = self._sizes

        def run(kernel: Any, threads: int) -> None:
            work = aligned_zeros((threads, *self._buffer))
            kernel(rows, n_rows, d, m, *self._weights, slope, self._lanes, work, *self.lanes)

        if n_jobs == 1:
            run(_kernels.residuals_serial, 1)
        else:
            with kernel_threads(n_jobs) as threads:
                run(_kernels.residuals, threads)

    def total(self, n_samples: int, weight: float) -> Residuals:
        d, m, k = self._sizes
        hidden, outputs, moment = (np.add.reduce(lanes, axis=0) for lanes in self.lanes)
        upper = np.triu(moment.reshape(padded(m), padded(m))[:m, :m])
        return Residuals(
            n_samples=n_samples,
            weight=weight,
            hidden_gradient=hidden.reshape(padded(k), padded(1 + d))[:k, : 1 + d].copy(),
            output_gradient=outputs.reshape(padded(k), padded(m))[:k, :m].T.copy(),
            residual_moment=upper + np.triu(upper, 1).T,
        )


class ResidualAccumulator:
    """One pass over samples: the loss and its gradient at a network that is kept fixed.

    Parameters
    ----------
    n_features, n_outputs : int
    hidden : ndarray of shape (n_units, 1 + n_features)
        Rows (bias, w).
    outputs : ndarray of shape (n_outputs, n_units)
    slope : float
        Of the activation for negative arguments.
    n_jobs : int, default=None
        Threads at most.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden: Matrix,
        outputs: Matrix,
        slope: float,
        n_jobs: int | None = None,
    ) -> None:
        self._sums = _ResidualSums(n_features, n_outputs, hidden, outputs)
        self._rows = aligned_zeros((SUPERBLOCK_ROWS, padded(1 + n_features + n_outputs)))
        self._slope, self.n_jobs = slope, n_jobs
        self._n_staged = 0
        self.n_samples = 0
        self._weight = 0.0

    def take(
        self, X: NDArray[Any], Y: NDArray[Any], weights: NDArray[Any] | None = None
    ) -> "ResidualAccumulator":
        """Take in samples that were checked before; the size of the chunks changes no bit."""
        taken = 0
        while taken < len(X):
            count = stage(self._rows[self._n_staged :], X, Y, weights, taken)
            self._n_staged += count
            taken += count
            if self._n_staged == len(self._rows):
                self._sum_staged()
        self.n_samples += len(X)
        return self

    def total(self) -> Residuals:
        """Return the sums of all samples so far."""
        if self._n_staged:
            self._sum_staged()
        return self._sums.total(self.n_samples, self._weight)

    def __add__(self, other: "ResidualAccumulator") -> "ResidualAccumulator":
        total, rest = copy.copy(self), copy.copy(other)
        for one in (total, rest):
            if one._n_staged:
                one._sum_staged()
        for mine, theirs in zip(total._sums.lanes, rest._sums.lanes, strict=True):
            mine += theirs
        total.n_samples += rest.n_samples
        total._weight += rest._weight
        return total

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the whole state, staged rows included, and what it belongs to, as named arrays."""
        lanes = {f"lanes_{i}": lanes for i, lanes in enumerate(self._sums.lanes)}
        return lanes | {
            "hidden": self._sums.hidden,
            "outputs": self._sums.outputs,
            "slope": np.array(self._slope),
            "n_samples": np.array(self.n_samples),
            "weight": np.array(self._weight),
            "staged": self._rows[: self._n_staged],
        }

    def restore(self, arrays: dict[str, NDArray[Any]]) -> "ResidualAccumulator":
        """Take over the state that `to_arrays` gave, of the same weights.

        Parameters
        ----------
        arrays : dict of str to ndarray

        Returns
        -------
        self : ResidualAccumulator

        Raises
        ------
        ValueError
            If it belongs to other weights, or to other sizes.
        """
        mine = self.to_arrays()
        if not all(np.array_equal(arrays[n], mine[n]) for n in ("hidden", "outputs", "slope")):
            raise ValueError("these sums belong to other weights.")
        staged = arrays["staged"]
        if staged.ndim == 2 and len(staged) < len(self._rows):
            mine["staged"] = self._rows[: len(staged)]
        for name, array in mine.items():
            if (arrays[name].shape, arrays[name].dtype.kind) != (array.shape, array.dtype.kind):
                raise ValueError(
                    f"{name} must have shape {array.shape}, got {arrays[name].shape} of dtype "
                    f"{arrays[name].dtype}."
                )
        for i, lanes in enumerate(self._sums.lanes):
            lanes[...] = arrays[f"lanes_{i}"]
        self.n_samples, self._weight = arrays["n_samples"].item(), arrays["weight"].item()
        self._n_staged = len(arrays["staged"])
        self._rows[: self._n_staged] = arrays["staged"]
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Not attribute by attribute: the kernels' buffers must be aligned again.
        d, m, _ = self._sums._sizes
        how = d, m, self._sums.hidden, self._sums.outputs, self._slope, self.n_jobs
        return _restored, (how, self.to_arrays())

    def _sum_staged(self) -> None:
        first = self._rows[: self._n_staged, 0]
        self._weight += float(first @ first)
        self._sums.add(self._rows, self._n_staged, self._slope, self.n_jobs)
        self._n_staged = 0


def _restored(how: tuple[Any, ...], arrays: dict[str, NDArray[Any]]) -> ResidualAccumulator:
    return ResidualAccumulator(*how).restore(arrays)


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
    """

    def __init__(
        self,
        X: NDArray[Any],
        Y: NDArray[Any],
        weights: NDArray[Any] | None = None,
        n_jobs: int | None = None,
    ) -> None:
        (n, d), m = X.shape, Y.shape[1]
        self.n_samples, self.n_features, self.n_outputs = n, d, m
        self._n_jobs = n_jobs
        self._staged = aligned_zeros((padded(n), padded(1 + d + m)))
        stage(self._staged, X, Y, weights)
        self.weight = float(n if weights is None else weights.sum())
        self._mask_work: tuple[NDArray[Any], ...] = ()

    @property
    def inputs(self) -> Matrix:
        """sqrt(weight) (1, x), a view of shape (n_samples, 1 + n_features)."""
        return self._staged[: self.n_samples, : 1 + self.n_features]

    @property
    def targets(self) -> Matrix:
        """sqrt(weight) y, a view of shape (n_samples, n_outputs)."""
        first = 1 + self.n_features
        return self._staged[: self.n_samples, first : first + self.n_outputs]

    def residuals(self, hidden: Matrix, outputs: Matrix, slope: float) -> Residuals:
        """Return the loss and its gradient; arguments as for `ResidualAccumulator`."""
        sums = _ResidualSums(self.n_features, self.n_outputs, hidden, outputs, self.n_samples)
        sums.add(self._staged, self.n_samples, slope, self._n_jobs)
        return sums.total(self.n_samples, self.weight)

    def mask_moments(self, hidden: Matrix, slope: float) -> Matrix:
        """Sum of s_i s_j u u^T for all pairs of units, s the slopes of the activations.

        Parameters
        ----------
        hidden : ndarray of shape (n_units, 1 + n_features)
            Rows (bias, w).
        slope : float

        Returns
        -------
        moments : ndarray of shape (n_units (n_units + 1) / 2, (1 + d) (2 + d) / 2)
            Pairs in lexicographic order.
        """
        from fastsym import _kernels

        n, d, k = self.n_samples, self.n_features, len(hidden)
        rows, columns = k * (k + 1) // 2, (1 + d) * (2 + d) // 2
        lanes = min(lanes_of(padded(rows) * padded(columns)), -(-n // _BLOCK_ROWS))
        sums = aligned_zeros((lanes, padded(rows) * padded(columns)))
        weights = padded_matrix(hidden.T)

        def run(kernel: Any, threads: int) -> None:
            shapes = (
                (len(self._staged), padded(k) + 8),
                (len(self._staged), padded(1 + d) + 8),
                (threads, 2, _kernels.panel_size(_BLOCK_ROWS)),
            )
            if tuple(array.shape for array in self._mask_work) != shapes:
                self._mask_work = tuple(aligned_zeros(shape) for shape in shapes)
            parts = 1 if lanes >= 2 * threads or threads == 1 else -(-2 * threads // lanes)
            kernel(
                self._staged, n, _BLOCK_ROWS, d, k, weights, slope, lanes, parts,
                *self._mask_work, sums,
            )  # fmt: skip

        if self._n_jobs == 1:
            run(_kernels.mask_moments_serial, 1)
        else:
            with kernel_threads(self._n_jobs) as threads:
                run(_kernels.mask_moments, threads)
        total = np.add.reduce(sums, axis=0).reshape(padded(rows), padded(columns))
        return total[:rows, :columns]
