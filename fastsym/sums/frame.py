"""The frame: the k-dimensional coordinates in which quartic moments are accumulated.

A frame is estimated once, from a pilot of some thousand samples, and then frozen. Estimation
uses second moments only.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fastsym._validation import (
    check_enough,
    check_fits,
    check_n_hidden,
    check_pair,
    check_weights,
    effective_number,
)
from fastsym.activation import Activation
from fastsym.algebra import Matrix, pair_indices, whitening
from fastsym.archive import read_arrays, write_arrays
from fastsym.exceptions import RankError
from fastsym.sums.support import warn_of_rank
from fastsym.sums.threads import one_blas_thread
from fastsym.sums.units import Units, units_of

FILE_KIND = "frame"
FILE_VERSION = 2

HEAVY_TAILS = 1.1
"""E|x'|^4 of white x' over that of a Gaussian, above which the instruments get an even weight."""

_RADIUS = 2.0  # even weight: radius of half weight, squared, in units of E|x'|^2
_SIGN_DRAWS = 20
_SIGN_MARGIN = 1.25
_SIGN_ROWS = 4096  # used at most, or so many for each column
_SIGN_SAMPLES = 16
_EVEN_SAMPLES_PER_TERM = 3
_EVEN_ROWS = 4096
_EVEN_SAMPLES = 8  # for each term; more would cost time and change the variance little


@dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates x' = x input_map, y' = y output_map for the quartic moments, both of length k.

    Two frames are equal when all their numbers are.

    Parameters
    ----------
    input_map : ndarray of shape (n_features, n_hidden)
        Whitens x and keeps the directions that the rows of W span.
    output_map : ndarray of shape (n_outputs, n_hidden)
        Maps y so that the odd part of y' is x' / 2 on the pilot.
    even_map : ndarray of shape (1 + n_pairs, n_outputs)
        Regression of y on (1, pairs of x'): the even part of y that quadratic functions explain.
        Subtracting it does not change E[x y^T], for symmetric x, and removes most of its
        sampling error (a control variate). Pairs are times the even weight.
    input_scale : ndarray of shape (n_features,)
        Root mean square of each input, the unit of the third moments of the symmetry test.
    correlations : ndarray of shape (n_correlations,)
        Singular values of the whitened cross-covariance of x and y (canonical correlations).
    noise_floor : float
        Value that a correlation reaches by chance.
    n_pilot : int
        Samples the frame was estimated from.
    even_radius : float
        r of the even weight phi = r / (r + |x'|^2) that multiplies the pairs of x' in all moments,
        for inputs with heavy tails: any even function of x may weight the detector equations. 0:
        phi = 1.
    exponents : ndarray of shape (1 + n_features + n_outputs,), default=None
        Of `units`; x and y above are in them. None: zeros, for data of usual sizes.

    References
    ----------
    Ge, Kuditipudi, Li, Wang, ICLR 2019, section 2: the rows of A W, hence those of W, are found
    from E[x y^T] and E[x x^T].
    """

    input_map: Matrix
    output_map: Matrix
    even_map: Matrix
    input_scale: Matrix
    correlations: Matrix
    noise_floor: float
    n_pilot: int
    even_radius: float = 0.0
    exponents: Any = None

    def __post_init__(self) -> None:
        if self.exponents is None:
            width = 1 + self.n_features + self.n_outputs
            object.__setattr__(self, "exponents", np.zeros(width, np.int64))

    @property
    def units(self) -> Units | None:
        """Units of x, y and the weights in this frame; None where these are as they are."""
        return Units.of_exponents(self.exponents, self.n_features)

    @property
    def n_features(self) -> int:
        """Number of inputs d."""
        return self.input_map.shape[0]

    @property
    def n_hidden(self) -> int:
        """Number of hidden units k."""
        return self.input_map.shape[1]

    @property
    def n_outputs(self) -> int:
        """Number of outputs m."""
        return self.output_map.shape[0]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the content as named arrays."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Frame":
        """Rebuild a frame from `to_arrays`.

        Raises
        ------
        ValueError
            If an array is missing, or its shape or type does not go with the others.
        """
        # Files of version 1 have no even weight.
        arrays = {"even_radius": np.array(0.0), "exponents": None, **arrays}
        missing = [field.name for field in fields(cls) if field.name not in arrays]
        if missing:
            raise ValueError(f"a frame needs {', '.join(missing)} too.")
        d, k = np.shape(arrays["input_map"]) if np.ndim(arrays["input_map"]) == 2 else (0, 0)
        m = len(arrays["output_map"]) if np.ndim(arrays["output_map"]) else 0
        if arrays["exponents"] is None:  # nor had they units
            arrays["exponents"] = np.zeros(1 + d + m, np.int64)
        shapes = {
            "input_map": (d, k),
            "output_map": (m, k),
            "even_map": (1 + k * (k + 1) // 2, m),
            "input_scale": (d,),
            "correlations": np.shape(arrays["correlations"])[:1],
            "exponents": (1 + d + m,),
        }
        for name in (field.name for field in fields(cls)):
            shape, array = shapes.get(name, ()), np.asarray(arrays[name])
            if array.shape != shape or array.dtype.kind not in "fi" or not np.isfinite(array).all():
                raise ValueError(
                    f"{name} of a frame must be finite numbers of shape {shape}, got shape "
                    f"{array.shape} and dtype {array.dtype}."
                )
        values = {field.name: arrays[field.name] for field in fields(cls)}
        values["even_radius"] = float(values["even_radius"])
        values["noise_floor"] = float(values["noise_floor"])
        values["n_pilot"] = int(values["n_pilot"])
        return cls(**values)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the frame to an .npz file, to be shared by the accumulators of many machines.

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
        return write_arrays(path, FILE_KIND, FILE_VERSION, self.to_arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Frame":
        """Read a frame that `save` wrote.

        Parameters
        ----------
        path : path

        Returns
        -------
        frame : Frame

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, of another kind or of a newer version.
        """
        _, arrays = read_arrays(path, {FILE_KIND: FILE_VERSION})
        try:
            return cls.from_arrays(arrays)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)} does not hold a frame: {error}") from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        mine, theirs = self.to_arrays(), other.to_arrays()
        return all(np.array_equal(mine[name], theirs[name]) for name in mine)

    def __hash__(self) -> int:
        return hash(hashlib.sha256(self.input_map.tobytes()).digest())


def _noise_floor(x: Matrix, residual: Matrix, whiten_y: Matrix, n_effective: float) -> float:
    """Largest canonical correlation when x has nothing to do with y.

    Rows are times the square root of their weights, which are 1 in the mean.

    Flipping the sign of each x at random leaves symmetric inputs as they are in distribution and
    breaks their tie to y, whatever the tails and the variances that change from sample to sample.
    """
    n, rank = x.shape
    step = max(1, n // max(_SIGN_ROWS, _SIGN_SAMPLES * (rank + whiten_y.shape[1])))
    x, y = x[::step], residual[::step] @ whiten_y
    used = len(x)
    generator = np.random.default_rng(0)  # part of the method: the same data give the same frame
    largest = 0.0
    for _ in range(_SIGN_DRAWS):
        signs = np.where(generator.random((used, 1)) < 0.5, -1.0, 1.0)
        largest = max(largest, float(np.linalg.norm(x.T @ (y * signs) / used, 2)))
    # What chance reaches falls with the root of the number of samples.
    largest *= np.sqrt(used / n)
    # Fitting `rank` regressors has shrunk the residual.
    return _SIGN_MARGIN * largest / np.sqrt(max(1 - rank / n_effective, 1 / n_effective))


def _even_regression(x: Matrix, Y: Matrix, root: Matrix) -> Matrix:
    """Regress Y (n, m) on (1, pairs of x), or on 1 alone when n is small for that.

    root (n, 1) are square roots of the samples' weights.
    """
    n, k = x.shape
    a, b = pair_indices(k)
    n_terms = 1 + len(a)
    if effective_number(n, root[:, 0] ** 2) < _EVEN_SAMPLES_PER_TERM * n_terms:
        coefficients = np.zeros((n_terms, Y.shape[1]))
        coefficients[0] = (Y * root**2).sum(axis=0) / (root**2).sum()
        return coefficients
    step = max(1, n // max(_EVEN_SAMPLES * n_terms, _EVEN_ROWS))
    x, Y, root = x[::step], Y[::step], root[::step]
    gram = np.zeros((n_terms, n_terms))
    moments = np.zeros((n_terms, Y.shape[1]))
    for first in range(0, len(x), _EVEN_ROWS):
        rows = x[first : first + _EVEN_ROWS]
        terms = np.empty((len(rows), n_terms))
        terms[:, 0] = 1
        np.multiply(rows[:, a], rows[:, b], out=terms[:, 1:])
        weight = root[first : first + _EVEN_ROWS]
        terms *= weight
        gram += terms.T @ terms
        moments += terms.T @ (Y[first : first + _EVEN_ROWS] * weight)
    # Pairs can be dependent (x_a^2 is constant for inputs of +-1). Any coefficients are valid here,
    # so a ridge far below the sampling error is enough.
    gram[np.diag_indices(n_terms)] += 1e-8 * np.trace(gram) / n_terms
    return linalg.solve(gram, moments, assume_a="pos")


def _even_radius(x: Matrix, weight: Matrix) -> float:
    """Radius of the even weight for white x: 0 unless the tails are heavier than a Gaussian's.

    The figure is Mardia's kurtosis over its Gaussian value, E|x|^4 / (k (k + 2)).
    """
    k = x.shape[1]
    square = (x**2).sum(axis=1)
    kurtosis = float(square**2 @ weight / weight.sum()) / (k * (k + 2))
    n = effective_number(len(x), weight)
    chance = 4 * np.sqrt(8 / (k * (k + 2) * n))  # four standard deviations for a Gaussian
    return _RADIUS * k if k > 1 and kurtosis > HEAVY_TAILS + chance else 0.0


def _check_moment(name: str, rows: Matrix, moment: Matrix, what: str) -> None:
    """Raise ValueError if second moments are not finite, or zero because the rows are `what`."""
    if not np.isfinite(moment).all():
        raise ValueError(
            f"the second moments of {name} overflow: its largest value is "
            f"{np.abs(rows).max():.3g}; rescale {name}."
        )
    if not moment.any():
        raise ValueError(f"{name} is {what} in every sample, which determines no weights.")


def estimate_frame(
    X: Any,
    Y: Any,
    n_hidden: Any = "auto",
    *,
    sample_weight: Any = None,
    negative_slope: float = 0.0,
) -> Frame:
    """Estimate a frame from pilot samples.

    Parameters
    ----------
    X : array_like of shape (n_pilot, n_features)
    Y : array_like of shape (n_pilot, n_outputs)
        A one-dimensional Y is one output.
    n_hidden : int or "auto"
        Number of hidden units. "auto" counts the canonical correlations of x and y above the
        noise floor.
    sample_weight : array_like of shape (n_pilot,), default=None
        Positive; None: all 1. Their unit does not matter, and (sum w)^2 / sum w^2 samples count.
    negative_slope : float, default=0.0
        Slope of the activation for negative arguments.

    Returns
    -------
    frame : Frame

    Raises
    ------
    ValueError
        If the samples are not finite or too few (more than n_features are needed), if all of
        X or of Y is constant, or if n_hidden exceeds min(n_features, n_outputs).
    RankError
        If n_hidden exceeds the rank of the samples. It is a ValueError.

    Warns
    -----
    RankDeficientWarning
        If the second moments of X are singular.

    References
    ----------
    Ge, Kuditipudi, Li, Wang, ICLR 2019, section 2, for the span of the weights; canonical
    correlations as in Hotelling (1936), doi:10.1093/biomet/28.3-4.321.
    """
    wanted = check_n_hidden(n_hidden)
    X, Y = check_pair(X, Y)
    check_fits(wanted, X.shape[1], Y.shape[1])
    weights = None if sample_weight is None else check_weights(sample_weight, len(X))
    frame = frame_of(X, Y, wanted, weights, negative_slope)
    X, _, weights = (X, Y, weights) if frame.units is None else frame.units.rows(X, Y, weights)
    moment = X.T @ (X if weights is None else weights[:, None] * X) / len(X)
    warn_of_rank(moment, whitening(moment))
    return frame


@one_blas_thread()
def frame_of(
    X: NDArray[Any],
    Y: NDArray[Any],
    n_hidden: int | None,
    weights: Matrix | None = None,
    negative_slope: float = 0.0,
) -> Frame:
    """Estimate a frame as `estimate_frame` does, from arguments that have been checked.

    Parameters
    ----------
    X : ndarray of shape (n_pilot, n_features)
    Y : ndarray of shape (n_pilot, n_outputs)
    n_hidden : int or None
        None: as many as there are canonical correlations above the noise floor.
    weights : ndarray of shape (n_pilot,), default=None
        None: all 1.
    negative_slope : float, default=0.0

    Returns
    -------
    frame : Frame

    Raises
    ------
    ValueError
        If the samples are too few, overflow, or if all of X or of Y is constant.
    RankError
        If n_hidden exceeds the rank of the samples. It is a ValueError.
    """
    n, d = X.shape
    check_enough(n, d)
    weight = np.ones(n) if weights is None else weights
    # One layout, so that the same rows give the same bits.
    X, Y = np.array(X, np.float64, order="C"), np.array(Y, np.float64, order="C")
    units = units_of(X, Y, weights)
    if units is not None:
        X, Y, given = units.rows(X, Y, weights)
        weight = weight if given is None else given
    # In units of their mean: the frame does not depend on the unit of the weights.
    weight = weight if weights is None else weight * (n / weight.sum())
    total = weight.sum()
    with np.errstate(over="ignore", invalid="ignore"):
        mean = weight @ Y / total
        root = np.sqrt(weight)[:, None]
        weighted, centred = X * root, (Y - mean) * root
        moment = weighted.T @ weighted / total
        output_moment = centred.T @ centred / total
        cross = weighted.T @ centred / total
    _check_moment("X", X, moment, "zero")
    _check_moment("Y", Y, output_moment, "constant")
    whiten_x = whitening(moment)
    whiten_y = whitening(output_moment)

    left, correlations, right = np.linalg.svd(whiten_x.T @ cross @ whiten_y, full_matrices=False)
    residual = centred - weighted @ (whiten_x @ (whiten_x.T @ cross))
    floor = _noise_floor(weighted @ whiten_x, residual, whiten_y, effective_number(n, weights))
    k = max(1, int((correlations > floor).sum())) if n_hidden is None else n_hidden
    if k > len(correlations):
        raise RankError(
            f"n_hidden={k} exceeds the rank of the samples: X has rank {whiten_x.shape[1]} "
            f"and Y has rank {whiten_y.shape[1]}; use n_hidden of at most {len(correlations)}, or "
            "more varied samples."
        )
    # A correlation of exactly zero leaves y' without scale; eps keeps it finite, and the noise
    # floor tells the user.
    gain = Activation(negative_slope).odd_gain
    strength = 1 / gain * np.maximum(correlations[:k], np.finfo(float).eps)
    input_map = whiten_x @ left[:, :k]
    x = X @ input_map
    radius = _even_radius(x, weight)
    if radius:
        x *= np.sqrt(radius / (radius + (x**2).sum(axis=1, keepdims=True)))
    return Frame(
        input_map=input_map,
        output_map=whiten_y @ right[:k].T / strength,
        even_map=_even_regression(x, residual / root + mean, root),
        input_scale=np.where(np.diag(moment) > 0, np.sqrt(np.diag(moment)), 1.0),
        correlations=correlations,
        noise_floor=floor,
        n_pilot=n,
        even_radius=radius,
        exponents=None if units is None else units.exponents,
    )
