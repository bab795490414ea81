"""Standard errors of the weights, for rows of W of unit length.

Robust ones are the sandwich of Huber (1967) and White (1980), doi:10.2307/1912934: they hold for
noise whose covariance depends on x, for importance weights, and, of the least-squares optimum of
the population, where the model is wrong. Classical ones are those of the Gauss-Newton (Fisher
information) matrix with one covariance of the noise.
"""

from typing import Any, Literal, get_args

import numpy as np
from scipy import linalg

from fastsym.algebra import Matrix
from fastsym.refine.coordinates import Point, UnitGauge
from fastsym.refine.influence import Influences
from fastsym.refine.normal import DENSE_PARAMETERS, DenseNormal, Normal
from fastsym.refine.problem import Problem
from fastsym.refine.sample import Sample

Kind = Literal["robust", "classical"]
Errors = tuple[Matrix, Matrix]

KEPT_ROWS = 65_536
"""Samples kept for robust errors at most: their own error is then far below a percent."""

_LEAST_ROWS = 8192
_PRODUCTS = 2e11  # rows times the square of the hidden weights, for which fewer rows are kept


def check_kind(kind: Any) -> Kind:
    """Return the kind of standard errors.

    Parameters
    ----------
    kind : {"robust", "classical"}

    Returns
    -------
    kind : str

    Raises
    ------
    ValueError
        If it is neither.
    """
    if kind not in get_args(Kind):
        raise ValueError(f'stderr must be "robust" or "classical", got {kind!r}.')
    return kind


class StandardErrors:
    """Standard errors of the weights at an optimum, worked out when they are first asked for.

    A copy, or a pickle, has the errors in place of the samples and the normal matrix.

    Parameters
    ----------
    problem : Problem
        Its samples are kept, at most 65 536 of them.
    point : Point
        The optimum.
    normal : DenseNormal or None
        There or close by; None if there is none.
    noise : ndarray of shape (n_outputs, n_outputs)
        Covariance of the residual, corrected for the number of weights, in the problem's units.
    n_samples : int
        That the optimum is of.
    normal_weight : float
        Weight of the samples that the normal matrix was summed over.
    decayed : bool, default=False
        Whether the weights are held small, and no optimum of the loss.
    """

    def __init__(
        self,
        problem: Problem,
        point: Point,
        normal: Normal | None,
        noise: Matrix,
        n_samples: int,
        normal_weight: float,
        decayed: bool = False,
    ) -> None:
        self._found: dict[str, Errors | str] = {}
        self._point, self._coordinates = point, problem.coordinates
        self._activation, self._noise = problem.activation, noise
        user, self._units, self._shift = problem.coordinates, problem.units, 0
        if self._units is not None:
            to_user, self._shift = self._units.map_to_user(user.to_inputs)
            user = user._replace(to_inputs=to_user)
        self._gauge = UnitGauge(point, user)
        self._normal = normal if isinstance(normal, DenseNormal) else None
        size = problem.coordinates.n_free * problem.coordinates.to_inputs.shape[1]
        self._sample: Sample | None = None
        if self._normal is None:
            reason = (
                "standard errors need the normal matrix, which is formed for at most "
                f"{DENSE_PARAMETERS} hidden weights, and finite; this network has {size}."
            )
            if decayed:
                reason = (
                    "there are no standard errors of weights that are held small (weight decay or "
                    "ridge): they are not those of a least-squares optimum; use alpha=0."
                )
            self._found = dict.fromkeys(get_args(Kind), reason)
        else:
            rows = min(KEPT_ROWS, max(_LEAST_ROWS, int(_PRODUCTS / max(size, 1) ** 2)))
            self._sample = problem.sample.spread(rows)
        self._n_samples = n_samples
        effective = problem.sample.n_effective * n_samples / problem.sample.n_samples
        self._scale = effective / normal_weight

    def of(self, kind: str = "robust") -> Errors:
        """Return the standard errors of unit rows of (bias, w), and of A in that gauge.

        Parameters
        ----------
        kind : {"robust", "classical"}, default="robust"

        Returns
        -------
        hidden_stderr : ndarray of shape (n_hidden, n_features), or (n_hidden, 1 + n_features)
            With intercepts, the first column belongs to the biases.
        output_stderr : ndarray of shape (n_outputs, n_hidden + n_affine)
            Of A, then of the output intercept and of the linear part, if there are.

        Raises
        ------
        ValueError
            If there are none.
        """
        kind = check_kind(kind)
        if kind not in self._found:
            try:
                self._found[kind] = self._robust() if kind == "robust" else self._classical()
            except np.linalg.LinAlgError as error:
                self._found[kind] = (
                    f"there are no standard errors: the normal matrix cannot be inverted ({error}),"
                    " the samples do not determine the weights; use a smaller n_hidden."
                )
        found = self._found[kind]
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def _classical(self) -> Errors:
        assert self._normal is not None
        return self._in_units_of_the_user(
            _classical(self._normal, self._gauge, self._noise, self._scale)
        )

    def _robust(self) -> Errors:
        assert self._sample is not None
        share = self._sample.n_samples / self._n_samples
        hidden, outputs = Influences(
            self._sample, self._point, self._coordinates, self._activation, share
        ).squared(self._gauge)
        # Of all samples, whose influence is less by their number: share^2 times 1 / share of them.
        return self._in_units_of_the_user((np.sqrt(share * hidden), np.sqrt(share * outputs)))

    def _in_units_of_the_user(self, errors: Errors) -> Errors:
        hidden, outputs = errors
        hidden = (self._gauge.size * hidden)[:, self._gauge.first :]
        outputs = outputs * self._gauge.output_size
        if self._units is not None:
            outputs = self._units.output_to_user(np.ldexp(outputs, self._shift))
        return hidden, outputs

    def __getstate__(self) -> dict[str, Any]:
        for kind in get_args(Kind):
            try:
                self.of(kind)
            except ValueError:  # kept, to be raised when it is asked for
                continue
        return {"_found": self._found}


def _classical(normal: DenseNormal, gauge: UnitGauge, noise: Matrix, scale: float) -> Errors:
    """Errors for noise of one covariance; scale: weight of all samples over that of the normal."""
    k, q, A, K = normal.k, normal.q, normal.outputs, normal.outputs.shape[1]
    covariance = normal.covariance(noise) / scale
    blocks = covariance.reshape(k, q, k, q)
    hidden = np.zeros(gauge.turn.shape[:2])
    for i, turn in enumerate(gauge.turn):
        hidden[i] = np.einsum("xa,ab,xb->x", turn, blocks[i, :, i], turn)
    gram_inverse = linalg.cho_solve((normal.gram_factor, False), np.eye(K)) / scale
    # dA_o = E^-1 (scores of A_o - sum_i A_oi V_i dw_i); A in the unit gauge is A_i |w_i|
    response = linalg.cho_solve(
        (normal.gram_factor, False), normal.coupling.transpose(1, 0, 2).reshape(K, k * q)
    )
    # To (A, c, L) in the gauge of unit rows.
    to_user = linalg.block_diag(np.diag(gauge.length), gauge.affine.T)
    response = to_user @ response
    by_noise = np.einsum("ja,ab,jb->j", to_user, gram_inverse, to_user, optimize=True)
    output = np.empty((len(A), len(to_user)))
    for o in range(len(A)):
        change = -response * np.repeat(A[o, :k], q)
        for i in range(k):
            change[i, i * q : (i + 1) * q] += A[o, i] * gauge.stretch[i]
        output[o] = np.einsum("ja,ab,jb->j", change, covariance, change, optimize=True)
        output[o] += noise[o, o] * by_noise
    return np.sqrt(np.maximum(hidden, 0)), np.sqrt(np.maximum(output, 0))
