"""Units of rows: powers of two by column, for data of which squares would overflow or vanish.

Everything that is summed is at most of fourth degree in a row. For columns whose root mean square
lies within [2^-40, 2^40] nothing is done. Others are staged in units of their own: a power of two
scales a floating-point number exactly, so that data times any factor give the same fit.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym.algebra import Matrix, row_lengths

_USUAL = 40  # sizes within 2^-40 and 2^40 are left alone; float32 has room for their products
_USUAL_WEIGHT = 20
_FAR = 200  # a value 2^200 times the median is beyond what sums with both in them can hold
_APART = 100  # columns of Y so far apart have no digits in common in a sum of squares
_SQUARE = 510  # 2^510 squared is finite, and so is the sum of some of them
_LOST = 2.0**-50

LARGEST_MEAN_SQUARE = 2.0**360
"""Mean square, in units, of rows too far from those that the units were taken from."""

LARGEST_MEAN_WEIGHT = 2.0**60
"""Mean weight, in units, of rows too far from those that the units were taken from."""


class Units(NamedTuple):
    """Exponents of two: a staged row is sqrt(weight) 2^-root (1, x 2^-inputs, y 2^-outputs).

    Parameters
    ----------
    root : int
    inputs : ndarray of shape (n_features,)
    outputs : ndarray of shape (n_outputs,)
    """

    root: int
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]

    @property
    def exponents(self) -> NDArray[np.int64]:
        """All of them in the order of a staged row, without the factor of its root."""
        return np.concatenate([[self.root], self.inputs, self.outputs]).astype(np.int64)

    @classmethod
    def of_exponents(cls, exponents: NDArray[Any], n_features: int) -> "Units | None":
        """Return the units that `exponents` belong to, None if these are all zero."""
        if not exponents.any():
            return None
        whole = exponents.astype(np.int64)
        return cls(int(whole[0]), whole[1 : 1 + n_features], whole[1 + n_features :])

    def rows(
        self, X: NDArray[Any], Y: NDArray[Any], weights: NDArray[Any] | None
    ) -> tuple[Matrix, Matrix, Matrix | None]:
        """Return rows in these units; values too large for them become infinite."""
        if self.root:
            ones = np.ones(len(X)) if weights is None else weights
            weights = np.ldexp(ones, -2 * self.root)
        with np.errstate(over="ignore"):
            X = np.ldexp(np.asarray(X, np.float64), -self.inputs)
            return X, np.ldexp(np.asarray(Y, np.float64), -self.outputs), weights

    def staged(self, rows: NDArray[Any]) -> Matrix:
        """Bring rows sqrt(weight) (1, x, y) into these units."""
        exponents = self.exponents
        exponents[1:] += self.root
        with np.errstate(over="ignore"):
            return np.ldexp(rows, -exponents)

    def from_user(self, hidden: Matrix, outputs: Matrix) -> tuple[Matrix, Matrix]:
        """Bring weights into these units.

        Parameters
        ----------
        hidden : ndarray of shape (n_units, 1 + n_features)
            Rows (bias, w).
        outputs : ndarray of shape (n_outputs, n_units)

        Returns
        -------
        hidden, outputs : ndarray
            Of the same function; the largest weight of each unit is near 1.
        """
        return _shifted(hidden, outputs, self._of_inputs, -self.outputs)

    def to_user(self, hidden: Matrix, outputs: Matrix) -> tuple[Matrix, Matrix]:
        """Bring weights into the user's units.

        Parameters
        ----------
        hidden : ndarray of shape (n_units, 1 + n_features)
            Rows (bias, w).
        outputs : ndarray of shape (n_outputs, n_units)

        Returns
        -------
        hidden, outputs : ndarray
            Of the same function, rows (bias, w) of unit length.

        Raises
        ------
        ValueError
            If an output weight cannot be represented.
        """
        hidden, outputs = _shifted(hidden, outputs, -self._of_inputs, np.zeros_like(self.outputs))
        lengths = row_lengths(hidden)
        return hidden / lengths[:, None], self.output_to_user(outputs * lengths)

    def affine_from_user(self, affine: Matrix) -> Matrix:
        """Bring a linear part into these units; the inverse of `affine_to_user`.

        Parameters
        ----------
        affine : ndarray of shape (n_outputs, 1 + n_features)

        Returns
        -------
        affine : ndarray of shape (n_outputs, 1 + n_features)
        """
        return np.ldexp(affine, self._of_inputs - self.outputs[:, None])

    def affine_to_user(self, affine: Matrix) -> Matrix:
        """Bring a linear part, y = affine (1, x), into the user's units.

        Parameters
        ----------
        affine : ndarray of shape (n_outputs, 1 + n_features)

        Returns
        -------
        affine : ndarray of shape (n_outputs, 1 + n_features)

        Raises
        ------
        ValueError
            If a weight cannot be represented.
        """
        with np.errstate(over="ignore"):
            affine = np.ldexp(affine, self.outputs[:, None] - self._of_inputs)
        return self._checked(affine)

    @property
    def _of_inputs(self) -> NDArray[np.int64]:
        return np.concatenate([[0], self.inputs])

    def map_to_user(self, to_inputs: Matrix) -> tuple[Matrix, int]:
        """Bring a map to weights of u = (1, x) into the user's units.

        Parameters
        ----------
        to_inputs : ndarray of shape (1 + n_features, n_coordinates)

        Returns
        -------
        to_inputs : ndarray of shape (1 + n_features, n_coordinates)
            Times 2^-shift, which leaves its largest element near 1.
        shift : int
        """
        exponents = np.frexp(to_inputs)[1] - self._of_inputs[:, None]
        shift = int(exponents[to_inputs != 0].max())
        return np.ldexp(to_inputs, -self._of_inputs[:, None] - shift), shift

    def output_to_user(self, values: Matrix) -> Matrix:
        """Multiply rows of values by the units of the outputs.

        Parameters
        ----------
        values : ndarray of shape (n_outputs, ...)

        Returns
        -------
        values : ndarray of shape (n_outputs, ...)

        Raises
        ------
        ValueError
            If a product cannot be represented.
        """
        exponents = self.outputs.reshape(-1, *[1] * (values.ndim - 1))
        with np.errstate(over="ignore"):
            values = np.ldexp(values, exponents)
        return self._checked(values)

    def _checked(self, values: Matrix) -> Matrix:
        if not np.isfinite(values).all():
            raise ValueError(
                "the output weights overflow: X is too small for a Y so large (sizes about "
                f"1e{_decimal(self.inputs.min())} and 1e{_decimal(self.outputs.max())}); rescale X "
                "or Y."
            )
        return values

    def covariance(self, matrix: Matrix, sign: int = 1) -> Matrix:
        """Bring a covariance of outputs into the user's units, for sign -1 from them into these."""
        with np.errstate(over="ignore"):
            return np.ldexp(matrix, sign * (self.outputs[:, None] + self.outputs))

    def loss(self, residual_moment: Matrix) -> float:
        """Trace of a residual moment in the user's units."""
        return float(np.trace(self.covariance(residual_moment)))


def _decimal(exponent: int) -> int:
    return round(float(exponent) * float(np.log10(2)))


def _shifted(
    hidden: Matrix, outputs: Matrix, by_column: NDArray[np.int64], by_output: NDArray[np.int64]
) -> tuple[Matrix, Matrix]:
    """Scale columns of hidden weights and rows of outputs; the scale of a unit goes to its output.

    Weights of one unit may be too far apart to be squared before its scale is taken out.
    """
    exponents = np.where(hidden != 0, np.frexp(hidden)[1] + by_column, np.iinfo(np.int32).min)
    largest = exponents.max(axis=1)
    largest = np.where(hidden.any(axis=1), largest, 0)
    with np.errstate(over="ignore"):
        return (
            np.ldexp(hidden, by_column - largest[:, None]),
            np.ldexp(outputs, largest + by_output[:, None]),
        )


def units_of(X: NDArray[Any], Y: NDArray[Any], weights: NDArray[Any] | None = None) -> Units | None:
    """Choose units for rows and those that will follow them.

    Columns of Y have one unit in common, so that the sum of squared residuals stays what it is, but
    for columns so much smaller than the largest that their squares would be lost in its rounding.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    weights : ndarray of shape (n_samples,), default=None
        Positive; None: all 1.

    Returns
    -------
    units : Units or None
        None where rows are of a usual size and stay as they are.

    Raises
    ------
    ValueError
        If one value, or one weight, is so far from the others that no sum holds digits of both, or
        squares of Y cannot be represented.
    """
    inputs, outputs, root = _exponents("X", X), _exponents("Y", Y), _root(weights)
    if outputs.any():
        top = outputs.max()
        outputs = np.where(top - outputs <= _APART, top, outputs)
    if not (inputs.any() or outputs.any() or root):
        return None
    return Units(root, inputs, outputs)


def check_moments(
    squares: Matrix, weight: float, n_samples: int, units: Units | None, n_features: int
) -> None:
    """Raise ValueError if some rows were so large that sums hold nothing of the others.

    Parameters
    ----------
    squares : ndarray of shape (1 + n_features + n_outputs,) or (0,)
        Sums of the squares of (1, x, y) in their units.
    weight : float
        Sum of the weights in their unit.
    n_samples : int
    units : Units or None
    n_features : int

    Raises
    ------
    ValueError
        If so.
    """
    check_weight(weight, n_samples, units)
    far = np.flatnonzero(squares > LARGEST_MEAN_SQUARE * weight)
    if len(far):
        j = int(far[0])
        name, column = ("X", j - 1) if j <= n_features else ("Y", j - 1 - n_features)
        size = np.ldexp(np.sqrt(squares[j]), 0 if units is None else units.exponents[j])
        raise ValueError(
            f"{name} holds about {size:.3g} in column {column}, too far from the pilot's values: "
            "the sums of squares lose all others; remove or repair such rows."
        )


def check_weight(weight: float, n_samples: int, units: Units | None) -> None:
    """Raise ValueError if some weights are so large that sums hold nothing of other rows.

    Parameters
    ----------
    weight : float
        Sum of the weights in their unit.
    n_samples : int
    units : Units or None

    Raises
    ------
    ValueError
        If so.
    """
    if weight > LARGEST_MEAN_WEIGHT * n_samples:
        total = float(np.ldexp(weight, 0 if units is None else 2 * units.root))
        raise ValueError(
            "some of sample_weight are too large beside those that the fit began with: "
            f"{n_samples} weights add up to {total:.3g}; remove or repair the largest."
        )


def _exponents(name: str, rows: NDArray[Any]) -> NDArray[np.int64]:
    """Exponents of the sizes of columns, zero where all of them are usual."""
    none = np.zeros(rows.shape[1], np.int64)
    if not len(rows):
        return none
    dtype = None if rows.dtype == np.float64 else np.float64
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->j", rows, rows, dtype=dtype) / len(rows)
        usual = (squares >= 4.0**-_USUAL) & (squares <= 4.0**_USUAL)
    if usual.all() or not rows[:, ~usual].any():
        return none
    sizes = np.abs(np.asarray(rows, np.float64))
    largest = sizes.max(axis=0)
    columns = np.flatnonzero(largest > 0)
    medians = np.zeros(rows.shape[1])
    for j in columns:
        ordered = np.sort(sizes[sizes[:, j] > 0, j])
        medians[j] = ordered[len(ordered) // 2]
    exponents = np.frexp(medians)[1].astype(np.int64)
    heights = np.frexp(largest)[1].astype(np.int64)
    far = columns[heights[columns] - exponents[columns] > _FAR]
    if len(far):
        first = int(far[0])
        value = rows[sizes[:, first].argmax(), first]
        raise ValueError(
            f"{name} holds {value:.3g} in column {first}, where half of the values are below "
            f"{medians[first]:.3g}: the sums of squares overflow or lose all others; remove or "
            f"repair such rows, or rescale {name}."
        )
    if name == "Y" and heights.max() > _SQUARE:
        raise ValueError(
            f"Y holds values of {largest.max():.3g}, whose squares overflow; rescale Y."
        )
    if np.abs(exponents[columns]).max() <= _USUAL:
        return none
    # A column that is zero so far is taken to be like the others.
    exponents[largest == 0] = np.sort(exponents[columns])[len(columns) // 2]
    return exponents


def _root(weights: NDArray[Any] | None) -> int:
    """Exponent of the square root of weights, zero where these are usual."""
    if weights is None or not len(weights):
        return 0
    largest = float(weights.max())
    shares = np.ldexp(weights, -np.frexp(largest)[1])
    if len(weights) > 1 and shares.sum() - shares.max() < _LOST * shares.max():
        raise ValueError(
            f"sample_weight holds {largest:.3g}, beside which all other {len(weights) - 1} "
            "weights are lost in rounding; remove or repair that weight."
        )
    exponent = int(np.frexp(largest)[1])
    return exponent // 2 if abs(exponent) > _USUAL_WEIGHT else 0
