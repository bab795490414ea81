"""Refinement in one pass, for streams that cannot be read again."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.engine.gather import sample_rows
from fastsym.refine.coordinates import Point, moved
from fastsym.refine.minimisation import Evaluation, Fit, gradient_norm, gradients
from fastsym.refine.normal import DenseNormal, Normal, ScaledNormal
from fastsym.refine.outcome import check_sizes, result_of
from fastsym.refine.problem import Problem
from fastsym.refine.refinement import refine
from fastsym.refine.result import Refinement
from fastsym.refine.search import SearchResult, no_worse_than_nothing, search
from fastsym.refine.starts import (
    Start,
    followed_by_others,
    moment_start,
    solve_or_warn,
    spectral_start,
)
from fastsym.sources import Block, PairedRows
from fastsym.spectral import SpectralSolution
from fastsym.sums.masks import MaskAccumulator
from fastsym.sums.moments import MomentAccumulator
from fastsym.sums.residuals import ResidualAccumulator
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
    between then count for the moments only. Sums do not depend on how rows arrive, but where they
    are looked at does, at the ends of chunks after each 8192 rows: other chunks may give another
    point, within the error of a step.

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
        return self._stage.n_kept

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

    @property
    def n_kept(self) -> int:
        """Number of samples that are held."""
        return self.rows.count

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
        expansion = _expansion(problem, how.start(solution, sample, n_hidden), how)
        return _Summing(how, solution, expansion)

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


class _Before(NamedTuple):
    """Samples from before a point was taken: the quadratic of their normal matrix about it."""

    weight: float
    n_samples: int
    residual_moment: Matrix
    masks: Matrix | None  # None where the normal matrix is not formed


class _Step(NamedTuple):
    """A Gauss-Newton step of all samples; normal is None if there is none, and no step."""

    normal: Normal | None
    point: Point
    decrement: float  # relative decrease of the loss that was promised
    residuals: Residuals  # at the point before it, its loss less what was promised
    masks: Matrix | None

    def before(self) -> _Before:
        """Where the sums begin anew."""
        residuals = self.residuals
        return _Before(residuals.weight, residuals.n_samples, residuals.residual_moment, self.masks)


class _Expansion:
    """The loss about a point: what a search found, and sums over the samples since then."""

    def __init__(
        self,
        problem: Problem,
        found: SearchResult,
        point: Point,
        before: _Before,
        n_jobs: int | None,
    ) -> None:
        self.problem, self.found, self.point, self.before = problem, found, point, before
        sample, activation = problem.sample, problem.activation
        shape, weights = (sample.n_features, sample.n_outputs), problem.coordinates.weights(point)
        self._n_jobs = n_jobs
        self.residuals = ResidualAccumulator(
            *shape, weights, point.outputs, activation, n_jobs, problem.units
        )
        self._masks: MaskAccumulator | None = None
        if before.masks is not None:
            self._masks = MaskAccumulator(*shape, weights, activation, n_jobs, problem.units)

    @property
    def fit(self) -> Fit:
        """The lowest of what was found."""
        return self.found.lowest

    def take(self, rows: Block) -> None:
        """Add samples."""
        self.residuals.take(*rows)
        if self._masks is not None:
            self._masks.take(*rows)

    def step(self) -> _Step:
        """Take a Gauss-Newton step from the sums; these can go on."""
        problem, before, new = self.problem, self.before, self.residuals.peek()
        whole = Residuals(
            n_samples=before.n_samples + new.n_samples,
            weight=before.weight + new.weight,
            hidden_gradient=new.hidden_gradient,
            output_gradient=new.output_gradient,
            residual_moment=before.residual_moment + new.residual_moment,
        )
        check_sizes(whole, problem.units)
        masks = None
        if self._masks is not None:
            masks = before.masks + self._masks.peek()
        loss = whole.loss
        try:
            normal = self._normal(masks, whole.weight)
            step = normal.solve(*gradients(new, problem.coordinates), 0.0)
            point = moved(self.point, step, problem.coordinates.n_free)
            if not all(np.isfinite(part).all() for part in (*point, step.predicted)):
                raise np.linalg.LinAlgError("the step is not finite")
        except np.linalg.LinAlgError:
            return _Step(None, self.point, np.nan, whole, masks)
        residuals = whole.with_loss(max(loss - step.predicted, 0.0))
        decrement = step.predicted / loss if loss else 0.0
        return _Step(normal, point, decrement, residuals, masks)

    def _normal(self, masks: Matrix | None, weight: float) -> Normal:
        problem = self.problem
        if masks is not None:
            return DenseNormal(masks, self.point, problem.coordinates)
        return ScaledNormal(problem.normal(self.point), weight / problem.sample.weight)

    def stepped(self) -> "_Expansion":
        """Take the step, and begin sums of the gradient anew; go on here if there is no step."""
        step = self.step()
        if step.normal is None:
            return self
        return _Expansion(self.problem, self.found, step.point, step.before(), self._n_jobs)


def _expansion(problem: Problem, start: Start, how: _Settings) -> _Expansion:
    """Search from a start on the samples in memory, and expand about what is found."""
    found = search(problem, followed_by_others(problem, start, how.random_state))
    found = no_worse_than_nothing(problem, found)
    fit = found.lowest
    masks = None
    if isinstance(fit.normal, DenseNormal):
        weights = problem.coordinates.weights(fit.point)
        masks = problem.sample.mask_moments(weights, problem.activation.negative_slope)
    residuals = fit.residuals
    before = _Before(residuals.weight, residuals.n_samples, residuals.residual_moment, masks)
    return _Expansion(problem, found, fit.point, before, how.n_jobs)


class _Summing:
    """The second stage: rows are summed at a point that moves whenever their number doubles."""

    def __init__(
        self, how: _Settings, solution: SpectralSolution | None, expansion: _Expansion
    ) -> None:
        self._how, self._solution, self._expansion = how, solution, expansion
        self._unjudged = 0

    @property
    def n_kept(self) -> int:
        """Number of samples that are held and not summed yet."""
        return self._expansion.residuals.n_staged

    def take(self, rows: Block) -> "_Stage":
        """Sum rows."""
        self._expansion.take(rows)
        self._unjudged += len(rows[0])
        if self._unjudged >= SUPERBLOCK_ROWS:
            self._unjudged = 0
            if self._expansion.residuals.weight >= self._expansion.before.weight:
                self._expansion = self._moved_on()
        return self

    def _moved_on(self) -> _Expansion:
        """Take the step; where nothing was certified, search from all moments before."""
        before = self._expansion
        if before.found.certificate == "none" and self._solution is not None:
            self._solution = self._how.solve() or self._solution
            start = spectral_start(self._solution, self._how.fit_intercept)
            after = _expansion(before.problem, start, self._how)
            certified = after.found.certificate != "none"
            if certified or after.fit.residuals.loss < before.fit.residuals.loss:
                return after
            # The lack of fit that is told is that of the latest search.
            before.found = before.found._replace(verdict=after.found.verdict)
        return before.stepped()

    def result(self) -> Estimate:
        """Return the estimate from all samples so far."""
        expansion, step = self._expansion, self._expansion.step()
        problem, fit, residuals = expansion.problem, expansion.fit, step.residuals
        gradient = gradients(residuals, problem.coordinates)
        last = Evaluation(
            loss=residuals.loss / residuals.weight,
            gradient_norm=gradient_norm(*gradient, residuals.weight),
            decrement=step.decrement,
            damping=0,
            accepted=True,
        )
        converged = fit.converged and step.normal is not None
        refinement = result_of(
            problem,
            Fit(step.point, residuals, step.normal, converged, fit.exact, [last]),
            expansion.found,
            n_evaluations=sum(len(one.history) for one in expansion.found.fits),
            n_passes=1,
            normal_weight=problem.sample.weight if step.masks is None else residuals.weight,
        )
        return self._solution, refinement


_Stage = _FirstSamples | _Summing
