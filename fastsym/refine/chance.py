"""What a hidden unit more explains by chance.

Outputs of a unit in a given direction, with curvature H and scores of covariance J, lower the sum
of squares by a mixture of squares of normal variables with the eigenvalues of
M = J^(1/2) H^-1 J^(1/2) as weights, which exceeds

    tr M + 2 |M|_F x^(1/2) + 2 |M|_2 x

with a probability of at most e^-x. The direction is free: x is log n / 2, and one for each of its
angles, about the logarithm of the number of directions that are apart.

J is summed over the rows, so that noise may differ among rows and outputs, and then over blocks of
rows, which shows how much less rows say that depend on each other.

References: Takeuchi (1976) for tr J H^-1 in place of the number of weights; Laurent and Massart
(2000), doi:10.1214/aos/1015957395, lemma 1, for the bound; Kuensch (1989),
doi:10.1214/aos/1176347265, for blocks of rows.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fastsym.activation import Activation
from fastsym.algebra import Matrix, unit_rows, whitening
from fastsym.refine.coordinates import Point
from fastsym.refine.problem import Problem

RIDGE = 1e-10
"""Share of the largest eigenvalue from which directions of x count, on one side of a unit."""

_BLOCKS = (16, 32, 64)
_FEW = 1024  # rows up to which all trials are made
_IDENTITY = Activation(1.0)
_OUTLIERS = 0.2  # of the bound without a unit, which a few rows alone do not reach


class Rows:
    """What the trials share: the samples in white coordinates, and which rows are the same.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        sample = self._sample = problem.sample
        self.activation = problem.activation
        self.targets, self.weight, self.n = sample.targets, sample.weight, sample.n_samples
        self._n_fixed = len(problem.fixed)
        self.all = sample.inputs @ problem.coordinates.to_inputs
        self.x = self.all[:, int(problem.fit_intercept) :]

    @property
    def many(self) -> bool:
        """Whether there are so many rows that a fit is not tried for little reason."""
        return self.n > _FEW

    @cached_property
    def _order(self) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
        """Rows with equal ones next to each other, and where a new one begins; None if all do."""
        if len(np.unique(self.targets[:, 0])) == self.n:
            return None
        rows = np.concatenate([self._sample.inputs, self.targets], axis=1)
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        # In the order of the rows that come first, so that blocks of them are blocks of rows.
        first = first[inverse.ravel()]
        order = np.argsort(first, kind="stable")
        return order, np.flatnonzero(np.diff(first[order], prepend=-1))

    def units(self, point: Point) -> Matrix:
        """Evaluate the units.

        Parameters
        ----------
        point : Point

        Returns
        -------
        units : ndarray of shape (n_samples, n_units)
            The constant included.
        """
        t = self.all @ point.hidden.T
        return self.activation.of_units(t, t.shape[1] - self._n_fixed)

    def residual(self, point: Point) -> Matrix:
        """Take the network of a point off the targets.

        Parameters
        ----------
        point : Point

        Returns
        -------
        residual : ndarray of shape (n_samples, n_outputs)
        """
        return self.targets - self.units(point) @ point.outputs.T

    def chance(
        self,
        residual: Matrix,
        hidden: Matrix,
        output: Matrix,
        n_parameters: int,
        activation: Activation | None = None,
    ) -> float:
        """Bound the fall of the sum of squares that a unit gives by chance.

        Parameters
        ----------
        residual : ndarray of shape (n_samples, n_outputs)
        hidden : ndarray of shape (n_coordinates,)
            Direction of the unit.
        output : ndarray of shape (n_outputs,)
            Its column of A.
        n_parameters : int
            Weights that the residual has lost degrees of freedom to.
        activation : Activation, default=None
            Of the unit; None: that of the problem.

        Returns
        -------
        bound : float
        """
        activation = activation or self.activation
        t = self.all @ hidden
        h, s = activation(t), activation.derivative(t)
        size = max(float(h @ h), np.finfo(float).tiny)
        across = linalg.null_space(hidden[None])
        turned = s[:, None] * (self.all @ across)
        turned = turned @ whitening(turned.T @ turned, RIDGE)
        along = residual @ unit_rows(output[None])[0]
        scores = np.concatenate([residual * h[:, None] / np.sqrt(size), turned * along[:, None]], 1)
        m = residual.shape[1]
        if self._order is not None:
            order, begins = self._order
            scores = np.add.reduceat(scores[order], begins, axis=0)
        scores = scores - scores.mean(axis=0)
        trace = float((scores**2).sum())
        outputs, turns = scores[:, :m].T @ scores[:, :m], float((scores[:, m:] ** 2).sum())
        values = np.linalg.eigvalsh(outputs)
        n_turns = scores.shape[1] - m
        largest = max(float(values[-1]), turns / max(n_turns, 1))
        blocks = [
            np.add.reduceat(scores, np.unique(np.arange(b) * len(scores) // b), axis=0)
            for b in _BLOCKS
        ]
        dependence = max(1.0, *(float((one**2).sum()) / max(trace, 1e-300) for one in blocks))
        x = n_turns + np.log(len(scores) / dependence) / 2
        freedom = max(1 - n_parameters * dependence / (self.n * m), 0.1)
        bound = (
            float(values.sum()) + 2 * np.sqrt(x) * float(np.linalg.norm(values)) + 2 * x * largest
        )
        return bound * dependence / freedom

    def is_linear(self, residual: Matrix, n_parameters: int) -> bool:
        """Say whether a residual is linear in x by more than chance.

        Parameters
        ----------
        residual : ndarray of shape (n_samples, n_outputs)
        n_parameters : int
            Weights fitted.

        Returns
        -------
        linear : bool
        """
        left, S, right = np.linalg.svd(
            self.x.T @ residual / np.sqrt(self.weight), full_matrices=False
        )
        direction = np.zeros(self.all.shape[1])
        direction[-len(left) :] = left[:, 0]
        variance = float(((residual @ right[0]) ** 2).sum() / self.weight)
        if S[0] ** 2 <= variance * (len(left) + residual.shape[1] - 1):  # below any bound
            return False
        # x is white.
        rest = residual - np.outer(self.all @ direction, S[0] * right[0]) / np.sqrt(self.weight)
        bounds = [
            self.chance(one, direction, right[0], n_parameters, _IDENTITY)
            for one in (residual, rest)
        ]
        return float(S[0] ** 2) > between(*bounds)


def between(without: float, with_it: float) -> float:
    """Combine the bounds from the residuals without a unit and with it.

    The residual without the unit has what the unit explains in it, that with the unit lacks what
    it took from single rows.

    Parameters
    ----------
    without, with_it : float

    Returns
    -------
    bound : float
    """
    return max(float(np.sqrt(without * with_it)), _OUTLIERS * without)
