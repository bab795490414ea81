"""Refinement in one pass, for streams that cannot be read again."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym.activation import Activation
from fastsym.engine.gather import accumulate, pilot_frame, sample_rows
from fastsym.exceptions import ConvergenceWarning, RankError, warn
from fastsym.refine.drift import change_of
from fastsym.refine.expansion import Expansion, chosen, is_near_optimum, is_rounding
from fastsym.refine.minimisation import Fit
from fastsym.refine.outcome import result_of
from fastsym.refine.problem import Problem
from fastsym.refine.refinement import refine
from fastsym.refine.reservoir import Reservoir
from fastsym.refine.result import Refinement
from fastsym.refine.search import MAX_STARTS, SearchResult, no_worse_than_nothing, search
from fastsym.refine.starts import (
    Start,
    moment_start,
    other_starts,
    solve_or_warn,
    spectral_start,
)
from fastsym.sources import Block, PairedRows
from fastsym.spectral import SpectralSolution, solve
from fastsym.sums.moments import MomentAccumulator
from fastsym.sums.staging import SUPERBLOCK_ROWS
from fastsym.sums.threads import one_blas_thread
from fastsym.sums.units import Units

_PRESENT = "estimate"  # name of a start
_FEW = 4  # starts of a search, where one of many came to nothing
_NEW = 2.0  # weight of new samples, over that of those before, from which a step is taken

Estimate = tuple[SpectralSolution | None, Refinement]


class StreamRefiner:
    """Refine a stream that is read once.

    The first samples (`sample_rows`, at most 256 MB) are kept, and refined when there are enough of
    them. From then on the gradient of the loss at the present weights is summed over all samples,
    and those in memory are a `Reservoir`, a uniform sample of all. One Gauss-Newton step from the
    sums, with the normal matrix of the reservoir, gives the estimate; the step is taken, and sums
    begin anew, whenever the number of samples has tripled. What came before counts as the quadratic
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
    of all samples whenever their number has tripled.

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

    def problem(
        self, sample: PairedRows, n_hidden: int, units: Units | str | None = "of X and Y"
    ) -> Problem:
        return Problem(
            sample.X[:],
            sample.Y[:],
            sample.weights,
            n_hidden,
            Activation(self.moments.negative_slope),
            self.fit_intercept,
            self.n_jobs,
            units=units,
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


class _Summing:
    """The second stage: rows are summed at a point that moves whenever their number has tripled."""

    def __init__(self, how: _Settings, first: PairedRows, n_hidden: int) -> None:
        self._how, self._n_hidden = how, n_hidden
        self._solution = how.solve()
        self._certified, self._n_evaluations = False, 0
        self._reservoir = Reservoir((first.X[:], first.Y[:], first.weights))
        problem = how.problem(first, n_hidden)
        self._units = problem.units  # in which all sums are
        start = how.start(self._solution, first, n_hidden)
        if start.trusted:  # what it leads to is judged when it is looked at
            fit = problem.fit(start.point(problem))
            self._certified, self._n_evaluations = fit.converged, len(fit.history)
        else:
            found = self._search(problem, first, start)
            self._certified, fit = found.certificate != "none", found.lowest
        self._begin_at(problem, fit)

    @property
    def n_kept(self) -> int:
        """Number of samples that are held."""
        return self._reservoir.n_rows + self._expansion.new.n_staged

    def take(self, rows: Block) -> None:
        """Sum rows."""
        self._reservoir.take(*rows)
        self._expansion.new.take(*rows)

    def look(self) -> "_Stage":
        """Move to the estimate if the samples are three times as many."""
        if self._expansion.new.weight < _NEW * self._expansion.before.weight:
            return self
        sample = self._reservoir.sample(in_order=False)
        problem = self._how.problem(sample, self._n_hidden, self._units)
        try:
            normal = problem.normal(self._expansion.point(problem))
        except np.linalg.LinAlgError:
            normal = None
        fit = self._expansion.step(problem, normal)
        if not (self._certified and is_near_optimum(problem, fit)):
            found, fit = self._judged(problem, sample)
            self._certified = found.certificate != "none"
        self._begin_at(problem, fit)
        return self

    def _begin_at(self, problem: Problem, fit: Fit) -> None:
        self._expansion = Expansion(problem, fit, self._how.n_jobs)

    def _judged(
        self, problem: Problem, sample: PairedRows, max_starts: int = MAX_STARTS
    ) -> tuple[SearchResult, Fit]:
        """Search on the reservoir, and pick its optimum or the step of the sums."""
        # The present point is trusted as the moments that it came from.
        trusted = (
            self._solution is not None
            and spectral_start(self._solution, self._how.fit_intercept).trusted
        )
        start = Start(_PRESENT, self._expansion.point(problem), trusted)
        found = self._search(problem, sample, start, max_starts)
        # Of the fit that began there: others may have their units in another order.
        step = self._expansion.step(problem, found.fits[0].normal)
        return found, chosen(problem, step, found.lowest)

    def _search(
        self, problem: Problem, sample: PairedRows, start: Start, max_starts: int = MAX_STARTS
    ) -> SearchResult:
        """Search on samples in memory."""
        found = search(problem, self._starts(problem, sample, start), max_starts)
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
        yield from other_starts(problem, how.random_state)

    def result(self) -> Estimate:
        """Return the estimate from all samples so far."""
        sample = self._reservoir.sample()
        problem = self._how.problem(sample, self._n_hidden, self._units)
        n_evaluations, solution = self._n_evaluations, self._solution
        max_starts = MAX_STARTS if self._certified else _FEW
        found, fit = self._judged(problem, sample, max_starts)
        if found.certificate == "exact" and not is_rounding(problem, fit.residuals):
            found = found.doubted("the rows that are held are without noise, the others are not")
            loss = problem.user_loss(fit.residuals) / fit.residuals.weight
            warn(
                f"the {sample.n_samples} rows that are held of the stream are fitted exactly, but "
                f"all {self._reservoir.n_taken} rows only to a loss of {loss:.4g}: some rows are "
                "not of the network that made the others",
                ConvergenceWarning,
            )
        refinement = result_of(
            problem,
            fit,
            found,
            self._n_evaluations,
            n_passes=1,
            normal_weight=problem.sample.weight,
        )
        self._warn_of(problem, sample, found)
        # Its errors are those of the samples that it rests on, which may be fewer.
        estimate = self._solution, replace(refinement, n_samples=self._reservoir.n_taken)
        # To ask changes nothing.
        self._n_evaluations, self._solution = n_evaluations, solution
        return estimate

    def _warn_of(self, problem: Problem, sample: PairedRows, found: SearchResult) -> None:
        change = change_of(problem, found.lowest)
        if change is not None:
            row = int(self._reservoir.numbers[change.row])
            lowest = found.lowest.residuals
            unit = problem.user_loss(lowest) / lowest.loss if lowest.loss > 0 else 1.0
            warn(
                f"the network changes during the stream: at the fit, the rows before number {row} "
                f"have loss {unit * change.losses[0]:.4g}, those after it "
                f"{unit * change.losses[1]:.4g}, and "
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


_Stage = _FirstSamples | _Summing
