"""Refinement in one pass, for streams that cannot be read again."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym.activation import Activation
from fastsym.algebra import row_lengths
from fastsym.engine.gather import accumulate, pilot_frame, sample_rows
from fastsym.exceptions import ConvergenceWarning, RankError, warn
from fastsym.refine.coordinates import Point, moved
from fastsym.refine.drift import change_of, row_residuals
from fastsym.refine.minimisation import Evaluation, Fit, gradient_norm, gradients, lowest_loss
from fastsym.refine.normal import Normal, ScaledNormal
from fastsym.refine.problem import Problem
from fastsym.refine.refinement import refine
from fastsym.refine.reservoir import Reservoir
from fastsym.refine.result import Refinement, result_of
from fastsym.refine.search import SearchResult, no_worse_than_nothing, search
from fastsym.refine.starts import (
    Start,
    generator_of,
    moment_start,
    moment_starts,
    solve_or_warn,
    spectral_start,
)
from fastsym.sources import Block, PairedRows
from fastsym.spectral import SpectralSolution, solve
from fastsym.sums.moments import MomentAccumulator
from fastsym.sums.residuals import ResidualAccumulator
from fastsym.sums.staging import SUPERBLOCK_ROWS
from fastsym.sums.threads import one_blas_thread
from fastsym.sums.values import Residuals

_PRESENT = "estimate"  # name of a start
_ROUNDING = 1e-20  # loss / sum |y|^2 up to which residuals are rounding
_CHANCE, _DEVIATIONS = 2.0, 6.0
_LOSS_ERRORS = 4.0  # standard errors that the losses of the sums and of the sample may be apart

Estimate = tuple[SpectralSolution | None, Refinement]


class StreamRefiner:
    """Refine a stream that is read once.

    The first samples (`sample_rows`, at most 256 MB) are kept, and refined when there are enough of
    them. From then on the gradient of the loss at the present weights is summed over all samples,
    and those in memory are a `Reservoir`, a uniform sample of all. One Gauss-Newton step from the
    sums, with the normal matrix of the reservoir, gives the estimate; the step is taken, and sums
    begin anew, whenever the number of samples has doubled. What came before counts as the quadratic
    of its normal matrix about its optimum, so that the estimate has the error of the least-squares
    optimum of all samples to first order (Le Cam's one-step estimator).

    The reservoir judges. An estimate whose loss on it is above the optimum that a search finds
    there by more than chance gives way to that optimum, and the sums begin anew at it, as for
    features that were zero at first; certificate, lack of fit and starts are those of a search on
    the reservoir. A network that changes during the stream is warned of
    (`fastsym.refine.drift.change_of`).

    Parameters
    ----------
    moments : MomentAccumulator
        Empty; takes in the samples that this does, and gives the start.
    fit_intercept : bool, default=False
    n_jobs : int, default=None
        Threads at most.
    random_state : None, int, RandomState or Generator
        Of further starts.

    Notes
    -----
    Sums are looked at after a multiple of 8192 rows, wherever chunks end: the same stream gives the
    same bits, however it is cut. If nothing is certified, the search is repeated with the moments
    of all samples at each doubling.

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
        self._how = _Settings(moments, fit_intercept, n_jobs, random_state)
        self._stage: _Stage = _FirstSamples(self._how)
        self._n_taken = 0

    @property
    def n_kept(self) -> int:
        """Number of samples that are held in memory."""
        return self._stage.n_kept

    @one_blas_thread()
    def take(
        self, X: NDArray[Any], Y: NDArray[Any], weights: NDArray[np.float64] | None = None
    ) -> "StreamRefiner":
        """Take in samples that were checked; `moments` takes them in too.

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
        first = 0
        while first < len(X):
            last = first + SUPERBLOCK_ROWS - self._n_taken % SUPERBLOCK_ROWS
            rows = X[first:last], Y[first:last], None if weights is None else weights[first:last]
            self._how.moments.take(*rows)
            self._stage.take(rows)
            self._n_taken += len(rows[0])
            first = last
            if self._n_taken % SUPERBLOCK_ROWS == 0:
                self._stage = self._stage.look()
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

        Warns
        -----
        ConvergenceWarning
            If the network changes during the stream, if n_hidden="auto" would count other units in
            a sample of all rows than in the first ones, or as `fastsym.refine.refine` does.
        """
        return self._stage.result()


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

    def problem(self, sample: PairedRows, n_hidden: int) -> Problem:
        return Problem(
            sample.X[:],
            sample.Y[:],
            sample.weights,
            n_hidden,
            Activation(self.moments.negative_slope),
            self.fit_intercept,
            self.n_jobs,
        )


class _FirstSamples:
    """The first stage: rows are kept until they are enough to search for the optimum."""

    def __init__(self, how: _Settings) -> None:
        self._how = how
        self._parts: list[Block] = []
        self.n_kept = 0

    def take(self, rows: Block) -> None:
        """Keep rows."""
        X, Y, weights = rows
        # Copies: the caller may reuse its arrays.
        ones = np.ones(len(X)) if weights is None else np.array(weights)
        self._parts.append((np.array(X, np.float64), np.array(Y, np.float64), ones))
        self.n_kept += len(X)

    def _joined(self) -> PairedRows:
        X, Y, weights = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        return PairedRows(X, Y, None if (weights == 1).all() else weights, checked=True)

    def look(self) -> "_Stage":
        """Give the next stage if there are enough rows."""
        moments = self._how.moments
        d, m = moments.n_features, moments.n_outputs
        assert d is not None and m is not None
        if not moments.has_frame:  # the pilot of so many columns is longer
            return self
        k = moments.frame.n_hidden
        return (
            self
            if self.n_kept < sample_rows(None, d, k, m)
            else _Summing(self._how, self._joined(), k)
        )

    def result(self) -> Estimate:
        """Return the estimate from all samples so far."""
        how, moments = self._how, self._how.moments.moments()
        solution = solve_or_warn(lambda: moments, how.random_state)
        sample = self._joined()
        refinement = refine(
            sample,
            how.start(solution, sample, moments.frame.n_hidden),
            sample=sample,
            fit_intercept=how.fit_intercept,
            n_jobs=how.n_jobs,
            random_state=how.random_state,
        )
        return solution, refinement


class _Expansion:
    """The loss about a point: the samples before it was taken, and sums over those since then."""

    def __init__(self, problem: Problem, fit: Fit, n_samples: int, n_jobs: int | None) -> None:
        # As weights: coordinates are those of the reservoir, and change with it.
        self.weights, self.outputs = problem.coordinates.weights(fit.point), fit.point.outputs
        self.before = replace(fit.residuals, n_samples=n_samples)
        d, m = problem.sample.n_features, problem.n_outputs
        activation = problem.activation
        self.new = ResidualAccumulator(d, m, self.weights, self.outputs, activation, n_jobs)

    def point(self, problem: Problem) -> Point:
        """Give the point in coordinates of a problem."""
        return problem.coordinates.point(self.weights, self.outputs)

    def step(self, problem: Problem, normal: Normal | None) -> Fit:
        """Take a Gauss-Newton step from the sums with a problem's normal matrix; they can go on.

        `residuals` are those of all samples, and `converged` says whether there is a step, small
        enough for what is summed to hold after it.
        """
        coordinates, before, new = problem.coordinates, self.before, self.new.peek()
        length = row_lengths(self.weights @ coordinates.from_inputs.T)
        length[coordinates.n_free :] = 1
        new = replace(
            new,
            hidden_gradient=new.hidden_gradient * length[:, None],
            output_gradient=new.output_gradient / length,
        )
        gradient = gradients(new, coordinates)
        whole = replace(
            new,
            n_samples=before.n_samples + new.n_samples,
            weight=before.weight + new.weight,
            residual_moment=before.residual_moment + new.residual_moment,
        )
        point, loss = self.point(problem), whole.loss
        here = Fit(point, whole, None, False, False, [])
        if normal is None:
            return here
        try:
            step = ScaledNormal(normal, whole.weight / problem.sample.weight).solve(*gradient, 0.0)
            point = moved(point, step, coordinates.n_free)
        except np.linalg.LinAlgError:
            return here
        if not all(np.isfinite(part).all() for part in (*point, step.predicted)):
            return here
        decrement = step.predicted / loss if loss else 0.0
        last = Evaluation(
            loss=max(loss - step.predicted, 0.0) / whole.weight,
            gradient_norm=gradient_norm(*gradient, whole.weight),
            decrement=decrement,
            damping=0,
            accepted=True,
        )
        small = decrement <= _chance(problem) or _rounding(problem, whole)
        return Fit(
            point, whole.with_loss(max(loss - step.predicted, 0.0)), normal, small, False, [last]
        )


def _chance(problem: Problem) -> float:
    """Relative decrease of the loss on the reservoir that chance gives an estimate, at most.

    From the optimum of other samples to that of the reservoir: p / (n m) on average, and more where
    the noise is not equal.
    """
    return problem.unit * (_CHANCE + _DEVIATIONS * np.sqrt(2 / problem.n_parameters))


def _rounding(problem: Problem, residuals: Residuals) -> bool:
    """Whether only rounding is left of residuals."""
    mean = problem.total / problem.sample.weight
    return bool(residuals.loss <= _ROUNDING * mean * residuals.weight)


class _Summing:
    """The second stage: rows are summed at a point that moves whenever their number doubles."""

    def __init__(self, how: _Settings, first: PairedRows, n_hidden: int) -> None:
        self._how, self._n_hidden = how, n_hidden
        self._solution, self._n_evaluations = how.solve(), 0
        self._reservoir = Reservoir((first.X[:], first.Y[:], first.weights))
        problem = how.problem(first, n_hidden)
        start = how.start(self._solution, first, n_hidden)
        self._found = self._search(problem, first, start)
        self._begin_at(problem, lowest_loss(self._found.fits))

    @property
    def n_kept(self) -> int:
        """Number of samples that are held."""
        return self._reservoir.n_rows + self._expansion.new.n_staged

    def take(self, rows: Block) -> None:
        """Sum rows."""
        self._reservoir.take(*rows)
        self._expansion.new.take(*rows)

    def look(self) -> "_Stage":
        """Move to the estimate if the samples have doubled."""
        if self._expansion.new.weight < self._expansion.before.weight:
            return self
        sample = self._reservoir.sample(in_order=False)
        problem = self._how.problem(sample, self._n_hidden)
        try:
            normal = problem.normal(self._expansion.point(problem))
        except np.linalg.LinAlgError:
            normal = None
        fit = self._expansion.step(problem, normal)
        if self._found.certificate == "none" or not _near_optimum(problem, fit):
            self._found, fit = self._judged(problem, sample)
        self._begin_at(problem, fit)
        return self

    def _begin_at(self, problem: Problem, fit: Fit) -> None:
        n_samples, n_jobs = self._reservoir.n_taken, self._how.n_jobs
        self._expansion = _Expansion(problem, fit, n_samples, n_jobs)

    def _judged(self, problem: Problem, sample: PairedRows) -> tuple[SearchResult, Fit]:
        """Search on the reservoir, and pick its optimum or the step of the sums."""
        # The present point is trusted as the moments that it came from.
        trusted = (
            self._solution is not None
            and spectral_start(self._solution, self._how.fit_intercept).trusted
        )
        start = Start(_PRESENT, self._expansion.point(problem), trusted)
        found = self._search(problem, sample, start)
        # Of the fit that began there: others may have their units in another order.
        step = self._expansion.step(problem, found.fits[0].normal)
        return found, _chosen(problem, step, lowest_loss(found.fits))

    def _search(self, problem: Problem, sample: PairedRows, start: Start) -> SearchResult:
        """Search on samples in memory."""
        found = search(problem, self._starts(problem, sample, start))
        self._n_evaluations += sum(len(one.history) for one in found.fits)
        return no_worse_than_nothing(problem, found)

    def _starts(self, problem: Problem, sample: PairedRows, start: Start) -> Iterator[Start]:
        """Yield a start, those of the moments so far, and moment starts; worked out when asked."""
        how, k = self._how, self._n_hidden
        yield start
        if start.name == _PRESENT:
            self._solution = how.solve() or self._solution
            if self._solution is not None:
                yield spectral_start(self._solution, how.fit_intercept)
            # The frame of the first rows may be poor for those that came since then.
            slope, n_jobs = how.moments.negative_slope, how.n_jobs
            try:
                moments = accumulate(sample, k, negative_slope=slope, n_jobs=n_jobs).result()
                yield spectral_start(
                    solve(moments, random_state=how.random_state, warn=False), how.fit_intercept
                )
            except RankError:
                pass
        yield from moment_starts(problem, generator_of(how.random_state))

    def result(self) -> Estimate:
        """Return the estimate from all samples so far."""
        sample = self._reservoir.sample()
        problem = self._how.problem(sample, self._n_hidden)
        n_evaluations, solution = self._n_evaluations, self._solution
        found, fit = self._judged(problem, sample)
        if found.certificate == "exact" and not _rounding(problem, fit.residuals):
            # The reservoir is without noise, the rest is not.
            found = found._replace(certificate="none")
        residuals = replace(fit.residuals, n_samples=self._reservoir.n_taken)
        refinement = result_of(
            problem,
            fit._replace(residuals=residuals),
            found,
            self._n_evaluations,
            n_passes=1,
            normal_weight=problem.sample.weight,
        )
        self._warn_of(problem, sample, found)
        # To ask changes nothing.
        estimate = self._solution, refinement
        self._n_evaluations, self._solution = n_evaluations, solution
        return estimate

    def _warn_of(self, problem: Problem, sample: PairedRows, found: SearchResult) -> None:
        change = change_of(problem, lowest_loss(found.fits))
        if change is not None:
            row = int(self._reservoir.numbers[change.row])
            warn(
                f"the network changes during the stream: at the fit, the rows before number {row} "
                f"have loss {change.losses[0]:.4g}, those after it {change.losses[1]:.4g}, and "
                f"fits of their own promise a relative decrease of {change.promised:.2g}, "
                f"{change.ratio:.3g} times what chance gives; fit these parts one by one (rows "
                "sorted by the outputs, or of a model that is not theirs, look alike)",
                ConvergenceWarning,
            )
        if self._how.moments.n_hidden == "auto":
            frame = pilot_frame(sample, negative_slope=problem.activation.negative_slope)
            if frame.n_hidden != self._n_hidden:
                warn(
                    f'n_hidden="auto" counted {self._n_hidden} hidden units in the first '
                    f"{self._how.moments.frame.n_pilot} rows, and counts {frame.n_hidden} in a "
                    f"sample of all rows; give n_hidden={frame.n_hidden}",
                    ConvergenceWarning,
                )


def _near_optimum(problem: Problem, fit: Fit) -> bool:
    """Whether what the linearised problem promises on the reservoir is chance, after a step."""
    if not fit.converged or fit.normal is None:
        return False
    there = problem.residuals(fit.point)
    if not np.isfinite(there.loss):
        return False
    step = fit.normal.solve(*gradients(there, problem.coordinates), 0.0)
    small = step.predicted <= _chance(problem) * there.loss
    return bool(small) or _rounding(problem, there)


def _chosen(problem: Problem, step: Fit, best: Fit) -> Fit:
    """Take the step where it is as good as the optimum of the reservoir, but for chance."""
    if not step.converged:
        return best
    there = problem.residuals(step.point)
    near = there.loss <= (1 + _chance(problem)) * best.residuals.loss
    if not (near or _rounding(problem, there)):
        return best
    return _with_credible_loss(problem, step._replace(converged=best.converged), there)


def _with_credible_loss(problem: Problem, step: Fit, there: Residuals) -> Fit:
    """Give the loss of the reservoir where that of the sums is not within its error.

    Samples before a point count with their loss there, less what the steps since then promised.
    """
    weight = problem.sample.weight
    squares = (row_residuals(problem, step.point) ** 2).sum(axis=1)
    error = np.sqrt(squares.var() * len(squares)) / weight
    mean, summed = squares.sum() / weight, step.residuals.loss / step.residuals.weight
    if abs(mean - summed) <= _LOSS_ERRORS * error or _rounding(problem, step.residuals):
        return step
    moment = there.residual_moment * (step.residuals.weight / weight)
    return step._replace(residuals=replace(step.residuals, residual_moment=moment))


_Stage = _FirstSamples | _Summing
