"""Influences of samples on the weights at an optimum, and the sum of their squares.

The influence of a sample is H^-1 times its score, H the second derivative of half the loss by W and
A jointly. With r the residual, s_i the slope and u the inputs,

    H_(W_i, W_j)  = A_i.A_j sum s_i s_j u u^T - [i = j] (1 - a) sum delta(w_i.u) (A_i.r) u u^T
    H_(A_oi, W_j) = A_oj sum h_i s_j u^T      - [i = j] sum s_i r_o u^T

where the first terms are the Gauss-Newton matrix. The second ones vanish in the mean where the
model is right, and count where it is not: without them the interval of a wrong model is as much as
a half too short. Their estimates (the delta by a kernel) are shrunk towards zero by the share that
chance explains, as of James and Stein (1961).

Residuals are those without the sample itself, (I - leverage)^-1 r, to first order, so that few
samples do not make the errors too small: MacKinnon and White (1985),
doi:10.1016/0304-4076(85)90158-7 (HC3).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import linalg

from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.refine.coordinates import Coordinates, Point, UnitGauge
from fastsym.refine.normal import DenseNormal
from fastsym.refine.sample import Sample

_BLOCK = 1 << 16  # numbers of an array over a block of rows
_MOST_LEVERAGE = 0.9
_TINY = float(np.finfo(float).tiny)


class _Rows(NamedTuple):
    """A block of samples, all of it times the square root of their weights but for `slopes`."""

    inputs: Matrix  # (1, x)
    white: Matrix  # u in white coordinates
    arguments: Matrix  # of the units that may turn
    slopes: Matrix
    hidden: Matrix
    residual: Matrix


class Influences:
    """Influences of samples on the weights at an optimum.

    Parameters
    ----------
    sample : Sample
    point : Point
        The optimum.
    coordinates : Coordinates
    activation : Activation
    share : float
        These samples over those that the optimum is of, at most 1; leverages are less by it.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the normal matrix cannot be inverted.
    """

    def __init__(
        self,
        sample: Sample,
        point: Point,
        coordinates: Coordinates,
        activation: Activation,
        share: float,
    ) -> None:
        self._sample, self._coordinates, self._activation = sample, coordinates, activation
        self._share = share
        self._weights = coordinates.weights(point)
        slope, free = activation.negative_slope, self._weights[: coordinates.n_free]
        moments, gram = sample.mask_moments(free, slope), sample.inputs.T @ sample.inputs
        normal = self._normal = DenseNormal(moments, point, coordinates, gram, slope)
        k, q, K = normal.k, normal.q, len(point.hidden)
        self._gram_inverse = linalg.cho_solve((normal.gram_factor, False), np.eye(K))
        # V_i^T E^-1, (k, q, K)
        self._response = normal.coupling.transpose(0, 2, 1) @ self._gram_inverse
        kinks, self._cross = self._beyond_gauss_newton()
        try:
            self._inverse = normal.inverse(self._curvature(kinks))
        except np.linalg.LinAlgError:  # the estimate makes it a saddle
            self._cross = np.zeros_like(self._cross)
            self._inverse = normal.inverse()
        self._inverse = self._inverse.reshape(k, q, k * q)

    def squared(self, gauge: UnitGauge) -> tuple[Matrix, Matrix]:
        """Sum of the squares over the samples, in the gauge of unit rows (bias, w).

        Parameters
        ----------
        gauge : UnitGauge
            At the optimum.

        Returns
        -------
        hidden : ndarray of shape (n_hidden, 1 + n_features)
            Over the squares of `gauge.size`.
        outputs : ndarray of shape (n_outputs, n_free + n_affine)
            Of (A, c, L), over the squares of `gauge.output_size`.
        """
        A, k = self._normal.outputs, self._normal.k
        hidden = np.zeros(gauge.turn.shape[:2])
        outputs = np.zeros((len(A), len(gauge.output_size)))
        for rows in self._blocks():
            step, moved = self._of(rows)
            hidden += ((step @ gauge.turn.transpose(0, 2, 1)) ** 2).sum(axis=1)
            stretch = np.einsum("inq,iq->ni", step, gauge.stretch)
            turned = moved[:, :, :k] * gauge.length + A[:, :k] * stretch[:, None, :]
            outputs[:, :k] += (turned**2).sum(axis=0)
            outputs[:, k:] += ((moved[:, :, k:] @ gauge.affine) ** 2).sum(axis=0)
        return hidden, outputs

    def _blocks(self) -> Iterator[_Rows]:
        normal, sample = self._normal, self._sample
        size = max(1, _BLOCK // max(normal.k * normal.q, normal.outputs.size, 1))
        for first in range(0, sample.n_samples, size):
            inputs = sample.inputs[first : first + size]
            t = inputs @ self._weights.T
            hidden, t = self._activation.of_units(t, normal.k), t[:, : normal.k]
            yield _Rows(
                inputs=inputs,
                white=inputs @ self._coordinates.to_inputs,
                arguments=t,
                slopes=self._activation.derivative(t),
                hidden=hidden,
                residual=sample.targets[first : first + size] - hidden @ normal.outputs.T,
            )

    def _beyond_gauss_newton(self) -> tuple[Matrix, Matrix]:
        """Estimate (1 - a) sum delta(w_i.u) (A_i.r) u u^T, (k, q, q); sum s_i r_o u, (k, m, q)."""
        normal = self._normal
        k, q, A = normal.k, normal.q, normal.outputs[:, : normal.k]
        kinks, cross = np.zeros((k, q, q)), np.zeros((k, len(A), q))
        kinks_chance, cross_chance = np.zeros((2, k))  # squares that are there by chance
        width = self._sample.n_effective**-0.2  # arguments are white
        jump = 1 - self._activation.negative_slope
        for rows in self._blocks():
            root = rows.inputs[:, :1]
            # The kernel of Epanechnikov.
            near = np.maximum(1 - (rows.arguments / root / width) ** 2, 0) * (0.75 / width)
            bend = jump * near * (rows.residual @ A) / root
            size = (rows.white**2).sum(axis=1)
            kinks_chance += size**2 @ bend**2
            cross_chance += (size * (rows.residual**2).sum(axis=1)) @ rows.slopes**2
            for i in range(k):
                used = bend[:, i] != 0
                white = rows.white[used]
                kinks[i] += (white * bend[used, i : i + 1]).T @ white
                cross[i] += (rows.residual * rows.slopes[:, i : i + 1]).T @ rows.white
        return _shrunk(kinks, kinks_chance), _shrunk(cross, cross_chance)

    def _curvature(self, kinks: Matrix) -> Matrix:
        """Add up what H has beyond the Gauss-Newton matrix, A eliminated, (k q, k q).

        With X_oi = A_oi V_i - e_i c_oi^T in place of A_oi V_i, c the cross terms, the Schur
        complement has sum_o X_oi^T E^-1 X_oj for what is (A_i.A_j) V_i^T E^-1 V_j without them.
        """
        k, q, A = self._normal.k, self._normal.q, self._normal.outputs
        cross, E = self._cross, self._gram_inverse
        mixed = np.einsum("oi,joa->ija", A[:, :k], cross)
        curvature = np.zeros((k, q, k, q))
        for i in range(k):
            first = self._response[i][:, :k, None] * mixed[i]
            curvature[i] += first
            curvature[:, :, i] += first.transpose(1, 2, 0)
            curvature[i] -= np.einsum("oa,j,job->ajb", cross[i], E[i, :k], cross, optimize=True)
            curvature[i, :, i] -= kinks[i]
        return curvature.reshape(k * q, k * q)

    def _of(self, rows: _Rows) -> tuple[Matrix, Matrix]:
        """Influences of rows on the hidden weights, (k, n, q), and on A, (n, m, K)."""
        k, q, A = self._normal.k, self._normal.q, self._normal.outputs[:, : self._normal.k]
        solved = rows.hidden @ self._gram_inverse
        # Derivatives by the hidden weights, those by A projected out: s_i u - V_i^T E^-1 h
        slopes = rows.slopes[:, :, None] * rows.white[:, None, :]
        response = self._response.reshape(k * q, rows.hidden.shape[1])
        slopes -= (rows.hidden @ response.T).reshape(slopes.shape)
        residual = self._without_itself(rows, solved, slopes)
        scores = slopes * (residual @ A)[:, :, None]
        scores += solved[:, :k, None] * np.tensordot(residual, self._cross, (1, 1))
        step = scores.reshape(len(scores), k * q) @ self._inverse.reshape(k * q, k * q)
        step = step.reshape(scores.shape).transpose(1, 0, 2)
        moved = residual[:, :, None] * solved[:, None, :]
        # E^-1 (A_oi V_i - e_i c_oi^T) dw_i
        moved -= np.tensordot(A, step @ self._response, (1, 0)).transpose(1, 0, 2)
        crossed = step @ self._cross.transpose(0, 2, 1)
        moved += np.tensordot(crossed, self._gram_inverse[:k], (0, 0))
        return step, moved

    def _without_itself(self, rows: _Rows, solved: Matrix, slopes: Matrix) -> Matrix:
        """Residuals of fits without the sample, (I - e I - A N A^T)^-1 r.

        e = h^T E^-1 h is the leverage by A, N_ij = slopes_i^T H^-1_ij slopes_j that by W.
        """
        k, q, A = self._normal.k, self._normal.q, self._normal.outputs[:, : self._normal.k]
        by_hidden = np.empty((len(solved), k, k))
        for i in range(k):
            turned = (slopes[:, i] @ self._inverse[i]).reshape(-1, k, q)
            by_hidden[:, i] = np.einsum("njq,njq->nj", turned, slopes)
        by_outputs = (rows.hidden * solved).sum(axis=1)
        moment = A.T @ A @ by_hidden
        most = by_outputs + np.trace(moment, axis1=1, axis2=2)
        share = np.minimum(self._share, _MOST_LEVERAGE / np.maximum(most, _TINY))
        left, share = 1 - share * by_outputs, share[:, None]
        # With the k x k matrix (left I - A^T A N) by the identity of Woodbury.
        matrix = left[:, None, None] * np.eye(k) - share[:, :, None] * moment
        inner = np.linalg.solve(matrix, (rows.residual @ A)[:, :, None])
        back = (by_hidden @ inner)[:, :, 0] @ A.T
        return (rows.residual + share * back) / left[:, None]


def _shrunk(terms: Matrix, chance: Matrix) -> Matrix:
    """Multiply each of the terms by the share of its square that chance does not explain."""
    squares = (terms**2).sum(axis=(1, 2))
    return terms * np.maximum(1 - chance / np.maximum(squares, _TINY), 0)[:, None, None]
