"""Refinement in one pass, for streams that cannot be read again."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.engine.gather import sample_rows
from fastsym.refine.coordinates import Point, moved
from fastsym.refine.minimisation import Evaluation, Fit, gradient_norm, gradients, lowest_loss
from fastsym.refine.normal import DenseNormal, Normal, ScaledNormal
from fastsym.refine.problem import Problem
from fastsym.refine.refinement import Refinement, refine, result_of
from fastsym.refine.sample import Sample
from fastsym.refine.search import SearchResult, search
from fastsym.refine.starts import (
    Start,
    followed_by_moment_starts,
    moment_start,
    solve_or_warn,
    spectral_start,
)
from fastsym.sources import Block, PairedRows
from fastsym.spectral import SpectralSolution
from fastsym.sums.moments import MomentAccumulator
from fastsym.sums.staging import SUPERBLOCK_ROWS
from fastsym.sums.threads import one_blas_thread
from fastsym.sums.values import Residuals

Estimate = tuple[SpectralSolution | None, Refinement]


class StreamRefiner:
    """Refine a stream that is read once.

    The first samples (`sample_rows`, at most 256 MB) are kept, and refined when there are enough of
    them. From then on a sample is only summed: the gradient of the loss at the present weights and
    the moments of the normal matrix. One Gauss-Newton step from these sums gives the estimate; the
    step is taken, and sums of the gradient begin anew, whenever the number of samples has doubled.
    What came before counts as the quadratic of its normal matrix about its optimum, so that the
    estimate has the error of the least-squares optimum of all samples to first order (Le Cam's
    one-step estimator).

    Parameters
    ----------
    moments : MomentAccumulator
        Takes in the same samples before this does; gives the start.
    fit_intercept : bool, default=False
    n_jobs : int, default=None
        Threads at most.
    random_state : None, int, RandomState or Generator
        Of further starts.

    Notes
    -----
    If no start is certified when the first samples are full, the search is repeated with the
    moments of all samples at each doubling, and the sums begin anew with what it finds; samples in
    between then count for the moments only.

    References
    ----------
    van der Vaart, "Asymptotic Statistics" (1998), section 5.7, doi:10.1017/CBO9780511802256.
    """

    def __init__(
        self,
        moments: MomentAccumulator,
        *,
        fit_intercept: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        how = _Settings(moments, fit_intercept, n_jobs, random_state)
        self._stage: _Stage = _FirstSamples(how)

    @property
    def n_kept(self) -> int:
        """Number of samples that are held in memory and not summed yet."""
        return self._stage.rows.count

    @one_blas_thread()
    def take(
        self, X: NDArray[Any], Y: NDArray[Any], weights: NDArray[np.float64] | None = None
    ) -> "StreamRefiner":
        """Take in samples that were checked, and that `moments` has taken in before.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        Y : ndarray of shape (n_samples, n_outputs)
        weights : ndarray of shape (n_samples,), default=None
            Positive.

        Returns
        -------
        self : StreamRefiner
        """
        for first in range(0, len(X), SUPERBLOCK_ROWS):
            part = slice(first, first + SUPERBLOCK_ROWS)
            rows = X[part], Y[part], None if weights is None else weights[part]
            self._stage = self._stage.take(rows)
        return self

    @one_blas_thread()
    def result(self) -> Estimate:
        """Return the estimate from all samples so far; the stream can go on.

        Returns
        -------
        solution : SpectralSolution or None
            The spectral start, None if the moments showed fewer than n_hidden directions.
        refinement : Refinement

        Raises
        ------
        ValueError
            If there are too few samples.
        """
        return self._stage.result()


class _Buffer:
    """A bounded list of rows (X, Y, weights)."""

    def __init__(self) -> None:
        self._parts: list[Block] = []
        self.count = 0

    def add(self, rows: Block) -> None:
        X, Y, weights = rows
        # Copies: the caller may reuse its arrays.
        ones = np.ones(len(X)) if weights is None else np.array(weights)
        self._parts.append((np.array(X), np.array(Y), ones))
        self.count += len(X)

    def joined(self) -> PairedRows:
        X, Y, weights = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        return PairedRows(X, Y, None if (weights == 1).all() else weights, checked=True)


class _Settings(NamedTuple):
    """What both stages of a stream need to know."""

    moments: MomentAccumulator
    fit_intercept: bool
    n_jobs: int | None
    random_state: Any

    def solve(self) -> SpectralSolution | None:
        return solve_or_warn(self.moments.moments, self.random_state)

    def start(self, solution: SpectralSolution | None, sample: PairedRows, n_hidden: int) -> Start:
        if solution is not None:
            return spectral_start(solution, self.fit_intercept)
        slope = self.moments.negative_slope
        return Start("linear part", moment_start(sample, n_hidden, negative_slope=slope))


class _FirstSamples:
    """The first stage: rows are kept until they are enough to search for the optimum."""

    def __init__(self, how: _Settings) -> None:
        self._how = how
        self.rows = _Buffer()

    def take(self, rows: Block) -> "_Stage":
        """Keep rows; the next stage if there are enough."""
        self.rows.add(rows)
        n_hidden = self._n_hidden_if_full()
        return self if n_hidden is None else self._summing(n_hidden)

    def _n_hidden_if_full(self) -> int | None:
        moments = self._how.moments
        if self.rows.count < SUPERBLOCK_ROWS or moments.n_samples < SUPERBLOCK_ROWS:
            return None
        d, m = moments.n_features, moments.n_outputs
        assert d is not None and m is not None
        try:
            k = moments.frame.n_hidden
        except RuntimeError:  # the pilot of so many columns is longer
            return None
        return k if self.rows.count >= sample_rows(None, d, k, m) else None

    def _summing(self, n_hidden: int) -> "_Summing":
        """Refine the rows, and start the sums with them."""
        how, sample = self._how, self.rows.joined()
        activation = Activation(how.moments.negative_slope)
        problem = Problem(
            sample.X[:],
            sample.Y[:],
            sample.weights,
            n_hidden,
            activation,
            how.fit_intercept,
            how.n_jobs,
        )
        solution = how.solve()
        expansion = _expansion(problem, how.start(solution, sample, n_hidden), how.random_state)
        return _Summing(how, problem, solution, expansion)

    def result(self) -> Estimate:
        how, moments = self._how, self._how.moments.moments()
        solution = solve_or_warn(lambda: moments, how.random_state)
        sample = self.rows.joined()
        refinement = refine(
            sample,
            how.start(solution, sample, moments.frame.n_hidden),
            sample=sample,
            fit_intercept=how.fit_intercept,
            n_jobs=how.n_jobs,
            random_state=how.random_state,
        )
        return solution, refinement


class _Sums(NamedTuple):
    """Sums over samples at one point.

    The gradient and `weight` begin anew with each point, the rest with the stream.
    """

    hidden_gradient: Matrix
    output_gradient: Matrix
    weight: float
    n_samples: int
    residual_moment: Matrix
    masks: Matrix | None  # None where the normal matrix is not formed

    @classmethod
    def empty(
        cls, problem: Problem, n_samples: int, residual_moment: Matrix, masks: Matrix | None
    ) -> "_Sums":
        """Begin anew: without a gradient."""
        coordinates = problem.coordinates
        n_free, n_coordinates = coordinates.n_free, coordinates.to_inputs.shape[1]
        return cls(
            np.zeros((n_free, n_coordinates)),
            np.zeros((problem.n_outputs, n_free + int(problem.fit_intercept))),
            0.0,
            n_samples,
            residual_moment,
            masks,
        )

    @property
    def loss(self) -> float:
        return float(np.trace(self.residual_moment))

    def plus(self, problem: Problem, point: Point, rows: PairedRows, n_jobs: int | None) -> "_Sums":
        """Add samples."""
        sample = Sample(rows.X[:], rows.Y[:], rows.weights, n_jobs)
        weights, slope = problem.coordinates.weights(point), problem.activation.negative_slope
        residuals = sample.residuals(weights, point.outputs, slope)
        hidden_gradient, output_gradient = gradients(residuals, problem.coordinates)
        masks = self.masks
        if masks is not None:
            masks = masks + sample.mask_moments(weights, slope)
        return _Sums(
            self.hidden_gradient + hidden_gradient,
            self.output_gradient + output_gradient,
            self.weight + residuals.weight,
            self.n_samples + residuals.n_samples,
            self.residual_moment + residuals.residual_moment,
            masks,
        )


class _Expansion(NamedTuple):
    """The loss about a point: what a search found, where sums are taken, and the sums."""

    found: SearchResult
    fit: Fit  # the lowest of what was found
    point: Point
    weight: float  # of the samples that came before the present gradient
    sums: _Sums

    def normal(self, problem: Problem) -> Normal:
        if self.sums.masks is not None:
            return DenseNormal(self.sums.masks, self.point, problem.coordinates)
        scale = (self.weight + self.sums.weight) / problem.sample.weight
        return ScaledNormal(problem.normal(self.point), scale)

    def step(self, problem: Problem) -> tuple[Normal, Point, float]:
        """Gauss-Newton step of all sums: normal matrix, point and decrease of the loss."""
        normal = self.normal(problem)
        step = normal.solve(self.sums.hidden_gradient, self.sums.output_gradient, 0.0)
        return normal, moved(self.point, step, problem.coordinates.n_free), step.predicted

    def stepped(self, problem: Problem) -> "_Expansion":
        """Take the step, and begin sums of the gradient anew."""
        _, point, predicted = self.step(problem)
        sums, loss, moment = self.sums, self.sums.loss, self.sums.residual_moment
        if loss > 0:
            moment = moment * max(loss - predicted, 0.0) / loss
        empty = _Sums.empty(problem, sums.n_samples, moment, sums.masks)
        return self._replace(point=point, weight=self.weight + sums.weight, sums=empty)


def _expansion(problem: Problem, start: Start, random_state: Any) -> _Expansion:
    """Search from a start on the samples in memory, and expand about what is found."""
    found = search(problem, followed_by_moment_starts(problem, start, random_state))
    fit = lowest_loss(found.fits)
    masks = None
    if isinstance(fit.normal, DenseNormal):
        weights = problem.coordinates.weights(fit.point)
        masks = problem.sample.mask_moments(weights, problem.activation.negative_slope)
    residuals = fit.residuals
    sums = _Sums.empty(problem, residuals.n_samples, residuals.residual_moment, masks)
    return _Expansion(found, fit, fit.point, residuals.weight, sums)


class _Summing:
    """The second stage: rows are summed at a point that moves whenever their number doubles."""

    def __init__(
        self,
        how: _Settings,
        problem: Problem,
        solution: SpectralSolution | None,
        expansion: _Expansion,
    ) -> None:
        self._how, self._problem = how, problem
        self._solution, self._expansion = solution, expansion
        self.rows = _Buffer()  # that wait to be summed

    def take(self, rows: Block) -> "_Stage":
        self.rows.add(rows)
        if self.rows.count >= SUPERBLOCK_ROWS:
            self._expansion = self._with_waiting()
            self.rows = _Buffer()
            if self._expansion.sums.weight >= self._expansion.weight:
                self._expansion = self._sought_again() or self._expansion.stepped(self._problem)
        return self

    def _with_waiting(self) -> _Expansion:
        expansion, rows = self._expansion, self.rows.joined()
        sums = expansion.sums.plus(self._problem, expansion.point, rows, self._how.n_jobs)
        return expansion._replace(sums=sums)

    def _sought_again(self) -> _Expansion | None:
        """Search from all moments where nothing was certified; None if that is no better."""
        before = self._expansion
        if before.found.certificate != "none" or self._solution is None:
            return None
        self._solution = self._how.solve() or self._solution
        start = spectral_start(self._solution, self._how.fit_intercept)
        after = _expansion(self._problem, start, self._how.random_state)
        certified = after.found.certificate != "none"
        if certified or after.fit.residuals.loss < before.fit.residuals.loss:
            return after
        return None

    def result(self) -> Estimate:
        expansion = self._with_waiting() if self.rows.count else self._expansion
        problem, sums, fit = self._problem, expansion.sums, expansion.fit
        normal, point, predicted = expansion.step(problem)
        weight, loss = expansion.weight + sums.weight, sums.loss
        residuals = Residuals(
            n_samples=sums.n_samples,
            weight=weight,
            hidden_gradient=sums.hidden_gradient,
            output_gradient=sums.output_gradient,
            residual_moment=sums.residual_moment,
        ).with_loss(max(loss - predicted, 0.0))
        last = Evaluation(
            loss=residuals.loss / weight,
            gradient_norm=gradient_norm(sums.hidden_gradient, sums.output_gradient, weight),
            decrement=predicted / loss if loss else 0.0,
            damping=0,
            accepted=True,
        )
        refinement = result_of(
            problem,
            Fit(point, residuals, normal, fit.converged, fit.exact, [last]),
            expansion.found,
            n_evaluations=sum(len(one.history) for one in expansion.found.fits),
            n_passes=1,
            normal_weight=problem.sample.weight if sums.masks is None else weight,
        )
        return self._solution, refinement


_Stage = _FirstSamples | _Summing
