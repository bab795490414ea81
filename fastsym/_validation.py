"""Checks of user input, so that a bad value stops at the door with a message that names it."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_rows(name: str, array: Any) -> NDArray[Any]:
    """Return `array` as a real numeric array of shape (n_samples, n_columns), without copying.

    A one-dimensional array of outputs (`name` begins with Y) becomes a single column. Integers and
    booleans are accepted and converted when they are staged; values are not checked here.

    Raises
    ------
    ValueError
        If the array is sparse, complex, not numeric, not two-dimensional, or has no column.
    """
    if hasattr(array, "toarray") and hasattr(array, "nnz"):
        raise ValueError(f"{name} must be a dense array, got sparse {type(array).__name__}; "
                         f"pass {name}.toarray().")  # fmt: skip
    rows = np.asarray(array)
    if rows.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} must be real, got {rows.dtype}.")
    if rows.dtype.kind not in "fiub":
        try:
            rows = rows.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be numeric, got dtype {rows.dtype}: {error}") from None
    if rows.ndim == 1 and name.startswith("Y"):
        rows = rows[:, None]
    if rows.ndim != 2:
        raise ValueError(
            f"{name} must have shape (n_samples, n_columns), got an array of shape {rows.shape}; "
            f"use {name}.reshape(-1, 1) for one column or {name}.reshape(1, -1) for one sample."
        )
    if rows.shape[1] == 0:
        raise ValueError(f"{name} must have at least one column, got shape {rows.shape}.")
    return rows


def check_finite(name: str, rows: NDArray[Any], first_row: int = 0) -> None:
    """Raise ValueError naming the first row of `rows` with a NaN or an infinity.

    `first_row` is the number of the array's first row in what the user passed.
    """
    # One sum is finite unless a value is not, or the sum overflows: only then look closely.
    with np.errstate(over="ignore", invalid="ignore"):
        if rows.dtype.kind != "f" or np.isfinite(rows.sum()):
            return
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        value = "NaN" if np.isnan(rows[row]).any() else "infinity"
        raise ValueError(
            f"{name} contains {value} (first in row {first_row + row}); every value must be finite "
            "(no NaN, no inf): remove or repair these rows."
        )


def check_pair(
    X: Any,
    Y: Any,
    n_features: int | None = None,
    n_outputs: int | None = None,
    first_row: int = 0,
    *,
    values: bool = True,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return X (n, d) and Y (n, m) as matching arrays of finite numbers, without copying.

    `first_row` is the number of their first row in what the user passed. `values` is False where
    they are known to be finite; shapes are checked all the same.

    Raises
    ------
    ValueError
        If either is not a finite numeric array, if the numbers of rows differ, or if the number
        of columns is not n_features or n_outputs where these are given.
    """
    X, Y = as_rows("X", X), as_rows("Y", Y)
    if len(X) != len(Y):
        raise ValueError(
            f"X and Y must have the same number of rows, got inconsistent numbers of samples: "
            f"{len(X)} and {len(Y)}."
        )
    for name, rows, expected, what in (("X", X, n_features, "features"),
                                       ("Y", Y, n_outputs, "outputs")):  # fmt: skip
        if expected is not None and rows.shape[1] != expected:
            raise ValueError(
                f"{name} has {rows.shape[1]} {what}, expected {expected} as in the rows before."
            )
        if values:
            check_finite(name, rows, first_row)
    return X, Y


def check_enough(n_samples: int, n_features: int) -> None:
    """Raise ValueError if there are no more samples, of positive weight, than features."""
    if n_samples <= n_features:
        raise ValueError(
            f"too few samples: n_samples={n_samples} with n_features={n_features}; more samples "
            "than features are needed to estimate the second moments (and many more for accurate "
            "weights)."
        )


def effective_number(n_samples: int, weights: NDArray[np.float64] | None) -> float:
    """Return the effective number of samples, (sum w)^2 / sum w^2; n_samples without weights.

    So many samples of equal weight give a mean of the same variance: Kish, "Survey Sampling"
    (1965), section 11.7. It does not depend on the unit of the weights.
    """
    if weights is None or not len(weights):
        return float(n_samples)
    share = weights / weights.max()  # whose squares neither overflow nor vanish together
    return float(share.sum() ** 2 / (share @ share))


def check_n_hidden(n_hidden: Any) -> int | None:
    """Return n_hidden as an int, or None for "auto".

    Raises
    ------
    ValueError
        If it is neither "auto" nor a positive integer.
    """
    if isinstance(n_hidden, str) and n_hidden == "auto":
        return None
    if isinstance(n_hidden, Integral) and not isinstance(n_hidden, bool) and int(n_hidden) >= 1:
        return int(n_hidden)
    raise ValueError(f'n_hidden must be "auto" or an integer of at least 1, got {n_hidden!r}.')


def check_alpha(alpha: Any) -> Any:
    """Return alpha as a float, or "auto".

    Raises
    ------
    ValueError
        If it is neither "auto" nor a finite number of at least 0.
    """
    if isinstance(alpha, str) and alpha == "auto":
        return alpha
    if isinstance(alpha, Real) and not isinstance(alpha, bool) and 0 <= float(alpha) < np.inf:
        return float(alpha)
    raise ValueError(f'alpha must be "auto" or a number of at least 0, got {alpha!r}.')


def check_choice(name: str, value: Any) -> Any:
    """Return a parameter that is True, False or "auto".

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, str) and value == "auto":
        return value
    raise ValueError(f'{name} must be True, False or "auto", got {value!r}.')


def check_negative_slope(slope: Any) -> float:
    """Return the slope of the activation for negative arguments as a float.

    Raises
    ------
    ValueError
        If it is not a number from 0 to below 1.
    """
    if not (isinstance(slope, Real) and 0 <= float(slope) < 1):
        raise ValueError(f"negative_slope must be a number from 0 to below 1, got {slope!r}.")
    return float(slope)


def check_weights(weights: Any, n_samples: int, first_row: int = 0) -> NDArray[np.float64]:
    """Return sample weights as float64, of shape (n_samples,).

    Raises
    ------
    ValueError
        If they are not one finite number of at least 0 for each sample.
    """
    try:
        array = np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample_weight must be numeric: {error}") from None
    if array.shape != (n_samples,):
        raise ValueError(
            f"sample_weight must have shape ({n_samples},), one number a sample, got shape "
            f"{array.shape}."
        )
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"sample_weight must be finite and at least 0, got {array[row]} in row "
            f"{first_row + row}."
        )
    return array


def weighted_rows(
    X: NDArray[Any], Y: NDArray[Any], weights: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Leave out the samples of weight 0.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    Y : ndarray of shape (n_samples, n_outputs)
    weights : ndarray of shape (n_samples,)
        At least 0.

    Returns
    -------
    X, Y, weights : ndarray
        The samples of positive weight.

    Raises
    ------
    ValueError
        If all weights are 0.
    """
    used = weights > 0
    if used.all():
        return X, Y, weights
    if not used.any():
        raise ValueError(
            "sample_weight is zero for every sample; at least one weight must not be zero."
        )
    if len(X) != len(Y):
        return X, Y, weights  # the caller says what is wrong
    return X[used], Y[used], weights[used]


def check_fits(n_hidden: int | None, n_features: int, n_outputs: int) -> None:
    """Raise ValueError if n_hidden exceeds min(n_features, n_outputs)."""
    limit = min(n_features, n_outputs)
    if n_hidden is not None and n_hidden > limit:
        raise ValueError(
            f"n_hidden must be at most min(n_features, n_outputs) = min({n_features}, {n_outputs})"
            f" = {limit} for the weights to be identifiable from these moments, got {n_hidden}."
        )


def as_generator(random_state: Any) -> np.random.Generator:
    """Return a NumPy Generator from None, an int, a SeedSequence, a RandomState or a Generator."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**31, size=4))
    return np.random.default_rng(random_state)
