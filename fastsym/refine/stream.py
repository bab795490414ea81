"""Refinement in one pass, for streams that cannot be read again."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym.activation import Activation
from fastsym.engine.gather import accumulate, pilot_frame, sample_rows
from fastsym.exceptions import ConvergenceWarning, RankError, warn
from fastsym.refine.counting import describes
from fastsym.refine.drift import change_of
from fastsym.refine.expansion import Expansion, chosen, is_near_optimum, is_rounding
from fastsym.refine.forms import PLAIN, Form, Found, search_forms
from fastsym.refine.minimisation import Fit
from fastsym.refine.outcome import result_of
from fastsym.refine.prediction import predictive
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
    n_hidden : int, default=None
        Number of hidden units. None: that of the moments' frame.
    form : Form
        Parts of the model beside the units. "auto": as the rows that are held ask for.
    decay : bool, default=True
        Whether weights may be held small as long as all rows are held, as by
        `fastsym.refine.refine` of "auto".
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
        n_hidden: int | None = None,
        form: Form = PLAIN,
        decay: bool = True,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self._how = _Settings(moments, n_hidden, form, decay, n_jobs, random_state)
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
    n_hidden: int | None
    form: Form
    decay: bool
    n_jobs: int | None
    random_state: Any

    @property
    def units(self) -> int:
        """Number of hidden units, once the frame is fixed."""
        return self.n_hidden or self.moments.frame.n_hidden

    def moments_know(self, n_hidden: int) -> bool:
        """Whether the moments give a start."""
        d, m = self.moments.n_features, self.moments.n_outputs
        assert d is not None and m is not None
        return self.form.moments_know(n_hidden, d, m)

    def doubts(self, starts: list[Start], sample: PairedRows) -> bool:
        """Whether the moments' first guess does not say how many units there are."""
        given = self.n_hidden is not None or self.form == PLAIN
        return not given and not (starts and describes(sample, starts[0], n_jobs=self.n_jobs))

    def counted(self, sample: PairedRows) -> int:
        """Count the units: those of the moments' frame, if their network describes the samples."""
        if self.n_hidden is None and self.doubts(
            self.starts(self.solve(), sample, self.units), sample
        ):
            problem = self.problems(sample)(self.form.intercept is not False).with_linear()
            # What is summed is the loss alone.
            return max(predictive(problem, self.random_state, decay=False).n_hidden, 1)
        return self.units

    def solve(self) -> SpectralSolution | None:
        if not self.moments_know(self.units):
            return None
        return solve_or_warn(self.moments.moments, self.random_state)

    def starts(
        self, solution: SpectralSolution | None, sample: PairedRows, n_hidden: int
    ) -> list[Start]:
        if solution is not None:
            return [spectral_start(solution)]
        if not self.moments_know(n_hidden):
            return []
        slope = self.moments.negative_slope
        return [Start("linear part", moment_start(sample, n_hidden, negative_slope=slope))]

    def problems(
        self, sample: PairedRows, units: Units | str | None = "of X and Y"
    ) -> Callable[[bool], Problem]:
        X, Y, weights = sample.X[:], sample.Y[:], sample.weights
        activation, k = Activation(self.moments.negative_slope), self.units
        # Staged once, for all that ask.
        return cache(
            lambda intercept: Problem(
                X, Y, weights, k, activation, intercept, self.n_jobs, units=units
            )
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
        if self.n_kept < sample_rows(None, d, self._how.units, m):
            return self
        sample = self._joined()
        how = self._how._replace(n_hidden=self._how.counted(sample))
        return _Summing(how, sample)

    def result(self) -> Estimate:
        """Return the estimate from all samples so far."""
        how = self._how
        moments, solution, sample = how.moments.moments(), None, self._joined()
        k = how.n_hidden or moments.frame.n_hidden
        starts: list[Start] = []
        if how.moments_know(k):
            solution = solve_or_warn(lambda: moments, how.random_state)
            starts = how.starts(solution, sample, k)
        refinement = refine(
            sample,
            "auto" if how.doubts(starts, sample) else starts or k,
            sample=sample,
            fit_intercept=how.form.intercept,
            linear=how.form.linear,
            alpha="auto" if how.decay else 0,
            negative_slope=how.moments.negative_slope,
            n_jobs=how.n_jobs,
            random_state=how.random_state,
        )
        return solution, refinement


class _Summing:
    """The second stage: rows are summed at a point that moves whenever their number has tripled."""

    def __init__(self, how: _Settings, first: PairedRows) -> None:
        self._how, self._solution = how, how.solve()
        self._n_evaluations = 0
        self._reservoir = Reservoir((first.X[:], first.Y[:], first.weights))
        self._units: Units | str | None = "of X and Y"
        starts = how.starts(self._solution, first, how.units)
        found = self._search(how.problems(first), first, starts)
        self._units = found.problem.units  # in which all sums are
        self._certified = found.result.certified
        self._begin_at(found.problem, found.result.lowest)

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
        problem_of = self._how.problems(sample, self._units)
        problem = self._present(problem_of)
        try:
            normal = problem.normal(self._expansion.point(problem))
        except np.linalg.LinAlgError:
            normal = None
        fit = self._expansion.step(problem, normal)
        if not (self._certified and is_near_optimum(problem, fit)):
            found, fit = self._judged(problem_of, sample)
            self._certified, problem = found.result.certified, found.problem
        self._begin_at(problem, fit)
        return self

    def _present(self, problem_of: Callable[[bool], Problem]) -> Problem:
        """Return the problem of the form that sums are in."""
        problem = problem_of(self._form.intercept is True)
        return problem.with_linear() if self._form.linear is True else problem

    def _begin_at(self, problem: Problem, fit: Fit) -> None:
        self._form = Form(problem.fit_intercept, problem.linear)
        self._expansion = Expansion(problem, fit, self._how.n_jobs)

    def _judged(
        self,
        problem_of: Callable[[bool], Problem],
        sample: PairedRows,
        max_starts: int = MAX_STARTS,
    ) -> tuple[Found, Fit]:
        """Search on the reservoir, and pick its optimum or the step of the sums."""
        problem = self._present(problem_of)
        # The present point is trusted as the moments that it came from.
        trusted = self._solution is not None and spectral_start(self._solution).trusted
        point = self._expansion.point(problem)
        # A point belongs to one form.
        here = point if self._form == self._how.form else problem.network(point)
        start = Start(_PRESENT, here, trusted)
        found = self._search(problem_of, sample, [start], max_starts)
        if Form(found.problem.fit_intercept, found.problem.linear) != self._form:
            return found, found.result.lowest
        # Of the fit that began there: others may have their units in another order.
        step = self._expansion.step(problem, found.result.fits[0].normal)
        return found, chosen(problem, step, found.result.lowest)

    def _search(
        self,
        problem_of: Callable[[bool], Problem],
        sample: PairedRows,
        starts: list[Start],
        max_starts: int = MAX_STARTS,
    ) -> Found:
        """Search on samples in memory."""
        how = self._how

        def search_from(problem: Problem, given: Iterable[Start], most: int) -> SearchResult:
            each = self._starts(problem, sample, next(iter(given)))
            return search(problem, each, min(most, max_starts))

        form, seed = how.form, how.random_state
        problem, found = search_forms(problem_of, starts, form, search_from, random_state=seed)
        self._n_evaluations += sum(len(one.history) for one in found.fits)
        return Found(problem, no_worse_than_nothing(problem, found))

    def _starts(self, problem: Problem, sample: PairedRows, start: Start) -> Iterator[Start]:
        """Yield a start, those of the moments so far, and moment starts; worked out when asked."""
        how, k = self._how, self._how.units
        yield start
        if start.name == _PRESENT:
            self._solution = how.solve() or self._solution
            if self._solution is not None:
                yield spectral_start(self._solution)
            # The frame of the first rows may be poor for those that came since then.
            slope, n_jobs = how.moments.negative_slope, how.n_jobs
            try:
                moments = accumulate(sample, k, negative_slope=slope, n_jobs=n_jobs).result()
                yield spectral_start(solve(moments, random_state=how.random_state, warn=False))
            except RankError:
                pass
        yield from other_starts(problem, how.random_state)

    def result(self) -> Estimate:
        """Return the estimate from all samples so far."""
        sample = self._reservoir.sample()
        problem_of = self._how.problems(sample, self._units)
        problem = self._present(problem_of)
        n_evaluations, solution = self._n_evaluations, self._solution
        max_starts = MAX_STARTS if self._certified else _FEW
        (problem, found), fit = self._judged(problem_of, sample, max_starts)
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
        moments = self._how.moments
        if moments.n_hidden == "auto" and self._how.units == moments.frame.n_hidden:
            frame = pilot_frame(sample, negative_slope=problem.activation.negative_slope)
            if frame.n_hidden != self._how.units:
                warn(
                    f'n_hidden="auto" counted {self._how.units} hidden units in the first '
                    f"{self._how.moments.frame.n_pilot} rows, and counts {frame.n_hidden} in a "
                    f"sample of all rows; give n_hidden={frame.n_hidden}",
                    ConvergenceWarning,
                )


_Stage = _FirstSamples | _Summing
