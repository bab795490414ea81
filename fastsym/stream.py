"""Refinement in one pass, for streams that cannot be read again."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym import spectral
from fastsym.exceptions import RankError, SpectralGapWarning
from fastsym.gauss_newton import (
    DenseNormal,
    Evaluation,
    Fit,
    Normal,
    Point,
    ScaledNormal,
    moved,
)
from fastsym.moments import MomentAccumulator
from fastsym.problem import Problem, lowest_loss, search
from fastsym.refine import Refinement, moment_start, refine, result_of, sample_rows
from fastsym.residuals import Residuals, Sample
from fastsym.sources import PairedRows
from fastsym.staging import SUPERBLOCK_ROWS, one_blas_thread

Matrix = NDArray[np.float64]
Rows = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]

_MAX_STARTS = 20


class _Rows:
    """A bounded list of rows (X, Y, weights)."""

    def __init__(self) -> None:
        self._parts: list[Rows] = []
        self.count = 0

    def add(self, X: NDArray[Any], Y: NDArray[Any], weights: NDArray[np.float64] | None) -> None:
        # Copies: the caller may reuse its arrays.
        ones = np.ones(len(X)) if weights is None else np.array(weights)
        self._parts.append((np.array(X), np.array(Y), ones))
        self.count += len(X)

    def joined(self) -> PairedRows:
        X, Y, weights = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        return PairedRows(X, Y, None if (weights == 1).all() else weights)


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
        self._moments = moments
        self._fit_intercept, self._n_jobs = fit_intercept, n_jobs
        self._random_state = random_state
        self._first = _Rows()
        self._waiting = _Rows()
        self._problem: Problem | None = None

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
            if self._problem is None:
                self._first.add(*rows)
                self._begin_if_full()
            else:
                self._waiting.add(*rows)
                if self._waiting.count >= SUPERBLOCK_ROWS:
                    self._sum(self._waiting.joined())
                    self._waiting = _Rows()
                    if self._new_weight >= self._old_weight:
                        self._relinearise()
        return self

    @one_blas_thread()
    def result(self) -> tuple[spectral.SpectralSolution | None, Refinement]:
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
        if self._problem is None:
            moments = self._moments.moments()
            solution = self._solve()
            sample = self._first.joined()
            k = moments.frame.n_hidden
            start = self._start(solution, sample, k)
            return solution, refine(
                sample,
                start,
                sample=sample,
                trusted=solution is not None
                and solution.diagnostics.clear
                and not self._fit_intercept,
                fit_intercept=self._fit_intercept,
                n_jobs=self._n_jobs,
                random_state=self._random_state,
            )
        kept = self._sums_copy()
        if self._waiting.count:
            self._sum(self._waiting.joined())
        refinement = self._estimate()
        self._restore(kept)
        return self._solution, refinement

    def _solve(self) -> spectral.SpectralSolution | None:
        try:
            return spectral.solve(
                self._moments.moments(), random_state=self._random_state, warn=False
            )
        except RankError as error:
            warnings.warn(f"{error}", SpectralGapWarning, stacklevel=6)
            return None

    def _start(self, solution: spectral.SpectralSolution | None, sample: PairedRows, k: int) -> Any:
        if solution is not None:
            return solution.network
        return moment_start(sample, k, negative_slope=self._moments.negative_slope)

    def _begin_if_full(self) -> None:
        d, m = self._moments.n_features, self._moments.n_outputs
        if self._first.count < SUPERBLOCK_ROWS or self._moments.n_samples < SUPERBLOCK_ROWS:
            return
        assert d is not None and m is not None
        try:
            k = self._moments.frame.n_hidden
        except RuntimeError:  # the pilot of so many columns is longer
            return
        if self._first.count >= sample_rows(None, d, k, m):
            self._begin(k)

    def _begin(self, k: int) -> None:
        """Refine the first samples, and start the sums with them."""
        sample = self._first.joined()
        self._problem = Problem(
            sample.X[:],
            sample.Y[:],
            sample.weights,
            k,
            self._moments.negative_slope,
            self._fit_intercept,
            self._n_jobs,
        )
        self._solution = self._solve()
        self._search(sample, k)
        self._first = _Rows()

    def _search(self, sample: PairedRows | None, k: int) -> None:
        problem = self._problem
        assert problem is not None
        if self._solution is None:
            assert sample is not None
            start = problem.point(self._start(None, sample, k))
        else:
            start = problem.point(self._solution.network)
        clear = self._solution is not None and self._solution.diagnostics.clear
        clear = clear and not self._fit_intercept
        self._fits, self._certificate, self._misfit = search(
            problem, start, clear, _MAX_STARTS, self._random_state
        )
        fit = lowest_loss(self._fits)
        self._fit, self._point = fit, fit.point
        self._old_weight = fit.residuals.weight
        self._n_samples = fit.residuals.n_samples
        self._residual_moment = fit.residuals.residual_moment
        self._dense = isinstance(fit.normal, DenseNormal)
        if self._dense:
            weights = problem.coordinates.weights(fit.point)
            self._masks = problem.sample.mask_moments(weights, problem.slope)
        self._clear_gradient()

    def _clear_gradient(self) -> None:
        assert self._problem is not None
        coordinates = self._problem.coordinates
        self._new_weight = 0.0
        self._hidden_gradient = np.zeros((coordinates.n_free, coordinates.to_inputs.shape[1]))
        self._output_gradient = np.zeros_like(self._point.outputs)

    def _sum(self, rows: PairedRows) -> None:
        """Add samples to the gradient and to the normal matrix at the present point."""
        problem = self._problem
        assert problem is not None
        coordinates = problem.coordinates
        sample = Sample(rows.X[:], rows.Y[:], rows.weights, self._n_jobs)
        weights = coordinates.weights(self._point)
        residuals = sample.residuals(weights, self._point.outputs, problem.slope)
        gradient = residuals.hidden_gradient[: coordinates.n_free] @ coordinates.to_inputs
        self._hidden_gradient = self._hidden_gradient + gradient
        self._output_gradient = self._output_gradient + residuals.output_gradient
        self._residual_moment = self._residual_moment + residuals.residual_moment
        self._new_weight += residuals.weight
        self._n_samples += residuals.n_samples
        if self._dense:
            self._masks = self._masks + sample.mask_moments(weights, problem.slope)

    def _sums_copy(self) -> tuple[Any, ...]:
        # Sums are replaced, not changed in place, so references are enough.
        return (
            self._hidden_gradient,
            self._output_gradient,
            self._residual_moment,
            self._new_weight,
            self._n_samples,
            self._masks if self._dense else None,
        )

    def _restore(self, kept: tuple[Any, ...]) -> None:
        (
            self._hidden_gradient,
            self._output_gradient,
            self._residual_moment,
            self._new_weight,
            self._n_samples,
            masks,
        ) = kept
        if self._dense:
            self._masks = masks

    def _normal(self) -> Normal:
        problem = self._problem
        assert problem is not None
        if self._dense:
            return DenseNormal(self._masks, self._point, problem.coordinates)
        scale = (self._old_weight + self._new_weight) / problem.sample.weight
        return ScaledNormal(problem.normal(self._point), scale)

    def _step(self) -> tuple[Normal, Point, float]:
        """Gauss-Newton step of all sums: normal matrix, point and decrease of the loss."""
        problem = self._problem
        assert problem is not None
        normal = self._normal()
        step = normal.solve(self._hidden_gradient, self._output_gradient, 0.0)
        return normal, moved(self._point, step, problem.coordinates.n_free), step.predicted

    def _estimate(self) -> Refinement:
        problem = self._problem
        assert problem is not None
        normal, point, predicted = self._step()
        weight = self._old_weight + self._new_weight
        loss = float(np.trace(self._residual_moment))
        residuals = Residuals(
            n_samples=self._n_samples,
            weight=weight,
            hidden_gradient=self._hidden_gradient,
            output_gradient=self._output_gradient,
            residual_moment=self._residual_moment,
        ).with_loss(max(loss - predicted, 0.0))
        norm = 2 * np.hypot(
            np.linalg.norm(self._hidden_gradient), np.linalg.norm(self._output_gradient)
        )
        last = Evaluation(
            residuals.loss / weight,
            float(norm / weight),
            predicted / loss if loss else 0.0,
            0,
            True,
        )
        fit = Fit(point, residuals, normal, self._fit.converged, self._fit.exact, [last])
        n_evaluations = sum(len(one.history) for one in self._fits)
        normal_weight = weight if self._dense else problem.sample.weight
        return result_of(
            problem,
            fit,
            self._fits,
            self._certificate,
            self._misfit,
            n_evaluations,
            n_passes=1,
            normal_weight=normal_weight,
        )

    def _relinearise(self) -> None:
        if self._certificate == "none" and self._solution is not None:
            before = self._fit.residuals.loss
            kept = self._sums_copy(), self._point, self._old_weight, self._fits, self._fit
            self._solution = self._solve() or self._solution
            self._search(None, self._solution.network.n_hidden)
            if self._certificate != "none" or self._fit.residuals.loss < before:
                return
            sums, self._point, self._old_weight, self._fits, self._fit = kept
            self._restore(sums)
        _, point, predicted = self._step()
        loss = float(np.trace(self._residual_moment))
        if loss > 0:
            self._residual_moment = self._residual_moment * max(loss - predicted, 0.0) / loss
        self._point = point
        self._old_weight += self._new_weight
        self._clear_gradient()
