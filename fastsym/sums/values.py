"""What sums over samples amount to: expectations of moments, and residuals of a network."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.sums.frame import Frame


@dataclass(frozen=True, eq=False)
class Moments:
    """Expectations over the samples, each a sum divided by their total weight.

    With k = n_hidden, P = k (k + 1) / 2, Q = k (k + 1) (k + 2) / 6, x' = x input_map and
    y' = y output_map in the frame; pairs and triples are products of coordinates in lexicographic
    order, without weights for repeated indices. Products with pairs or triples of x' are times the
    frame's even weight phi(x'), which is 1 unless the inputs have heavy tails.

    Parameters
    ----------
    n_samples : int
        Number of samples with a positive weight.
    frame : Frame
    second : ndarray of shape (1 + d + m, 1 + d + m)
        E[v v^T], v = (1, x, y), not centred.
    pair_cross : ndarray of shape (1 + d, P)
        E[(1, x) (pairs of x')^T]. Its rows for x are zero in the population.
    third : ndarray of shape (2, d)
        *Sums* of w t^3 and of (w t^3)^2, t = x_i / input_scale_i and w the sample's weight, for
        the symmetry test.
    yyxx : ndarray of shape (P, P)
        E[(pairs of y') (pairs of x')^T].
    yxxx : ndarray of shape (k, Q)
        E[y' (triples of x')^T].
    direct : ndarray of shape (P, P) or None
        E[sym(y'' (x'' - y'')^T) (pairs of x'')^T] in whitened coordinates, in place of yyxx and
        yxxx, which are then empty: see `accumulate_direct`.
    precision : float
        Machine epsilon of the arithmetic within a block.
    negative_slope : float
        Slope of the activation for negative arguments that the moments are meant for.
    xxxx : ndarray of shape (P, P)
        E[(pairs of x') (pairs of x')^T]; empty unless negative_slope is positive.
    n_effective : float or None
        Effective number of samples, (sum w)^2 / sum w^2; None: n_samples.
    """

    n_samples: int
    frame: Frame
    second: NDArray[np.float64]
    pair_cross: NDArray[np.float64]
    third: NDArray[np.float64]
    yyxx: NDArray[np.float64]
    yxxx: NDArray[np.float64]
    direct: NDArray[np.float64] | None = None
    precision: float = float(np.finfo(np.float64).eps)
    negative_slope: float = 0.0
    xxxx: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    n_effective: float | None = None

    @property
    def activation(self) -> Activation:
        """The activation that the moments are meant for."""
        return Activation(self.negative_slope)

    @property
    def _columns(self) -> tuple[slice, slice]:
        d = self.frame.n_features
        return slice(1, 1 + d), slice(1 + d, None)

    @property
    def input_mean(self) -> NDArray[np.float64]:
        """E[x], shape (d,)."""
        return self.second[0, self._columns[0]]

    @property
    def output_mean(self) -> NDArray[np.float64]:
        """E[y], shape (m,)."""
        return self.second[0, self._columns[1]]

    @property
    def input_moment(self) -> NDArray[np.float64]:
        """C = E[x x^T], shape (d, d), not centred."""
        return self.second[self._columns[0], self._columns[0]]

    @property
    def output_moment(self) -> NDArray[np.float64]:
        """E[y y^T], shape (m, m), not centred."""
        return self.second[self._columns[1], self._columns[1]]

    @property
    def cross_moment(self) -> NDArray[np.float64]:
        """E[x y^T], shape (d, m), as the samples have it."""
        return self.second[self._columns[0], self._columns[1]]

    @property
    def reduced_cross_moment(self) -> NDArray[np.float64]:
        """E[x (y - e)^T], e = (1, pairs of x') even_map; shape (d, m).

        E[x e^T] = 0 in the population, so this is E[x y^T] with less sampling error.
        """
        constant, even = self.frame.even_map[0], self.frame.even_map[1:]
        return self.cross_moment - np.outer(self.input_mean, constant) - self.pair_cross[1:] @ even


@dataclass(frozen=True, eq=False)
class Residuals:
    """Sums over samples at one network, r = y - A h, h of linear units included.

    Parameters
    ----------
    n_samples : int
    weight : float
        Sum of the sample weights; n_samples without weights.
    hidden_gradient : ndarray of shape (n_free, 1 + n_features)
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
