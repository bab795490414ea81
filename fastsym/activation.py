"""The activation of the hidden units, as a value: its function, its slope, its odd gain."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Activation(NamedTuple):
    """Leaky ReLU, h(t) = t for t > 0 and negative_slope t elsewhere; ReLU for a slope of 0.

    Parameters
    ----------
    negative_slope : float, default=0.0
        From 0 to below 1.
    """

    negative_slope: float = 0.0

    def __call__(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluate h."""
        # As 0 <= a < 1, max(t, a t) is t for t > 0 and a t elsewhere.
        return np.maximum(t, self.negative_slope * t)

    def of_units(self, t: NDArray[np.float64], n_free: int) -> NDArray[np.float64]:
        """Evaluate h in the first n_free columns of t; fixed units behind them are linear."""
        if n_free == t.shape[1]:
            return self(t)
        return np.concatenate([self(t[:, :n_free]), t[:, n_free:]], axis=1)

    def derivative(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluate the slope of h, that of the negative side at 0."""
        return np.where(t > 0, 1.0, self.negative_slope)

    @property
    def odd_gain(self) -> float:
        """Slope of the odd part of h: h(t) - h(-t) = 2 odd_gain t."""
        return (1 + self.negative_slope) / 2
