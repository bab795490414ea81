"""The scikit-learn estimator."""

import os
import time
import warnings
from contextlib import nullcontext
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, validate_data

from fastsym import spectral
from fastsym._validation import (
    as_rows,
    check_n_hidden,
    check_negative_slope,
    check_pair,
    check_weights,
)
from fastsym.checkpoint import Checkpoint
from fastsym.engine import Passes, accumulate, accumulate_direct, accumulate_linear, pilot_frame
from fastsym.exceptions import RankError, SpectralGapWarning
from fastsym.moments import MomentAccumulator, Moments
from fastsym.network import TwoLayerNetwork
from fastsym.progress import Callback, Event, progress_bar
from fastsym.refine import Refinement, check_rereadable, moment_start, refine, spread_sample
from fastsym.sources import PairedRows, Source, from_arrays, is_source, weighted_rows
from fastsym.staging import one_blas_thread
from fastsym.stream import StreamRefiner

# From this many hidden units on, two passes with k^4 / 4 operations a sample are quicker than one
# with 5 k^4 / 12; below, reading and staging twice costs more than it saves.
_TWO_PASSES = 20


class TwoLayerRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Two-layer ReLU network y = A relu(W x), fitted by moments and refined to maximum likelihood.

    The inputs must be symmetric: x and -x equally likely. At most min(n_features, n_outputs) hidden
    units. Moments of a sample spread over the data give the weights by linear algebra; these are
    the start of a Levenberg-Marquardt refinement to the least-squares optimum, which takes two to
    four passes over all samples.

    Parameters
    ----------
    n_hidden : int or "auto", default="auto"
        Number of hidden units k. "auto" counts the canonical correlations of X and Y above their
        noise floor.
    refine : bool, default=True
        Refine to the least-squares optimum: maximum likelihood for Gaussian noise of equal
        variance. False: the spectral estimate, from the moments of all samples.
    fit_intercept : bool, default=False
        Fit hidden biases b and an output intercept c too, y = c + A h(W x + b). The spectral start
        knows nothing of them: they begin at zero and come from the refinement alone. Small ones are
        found; of large ones nothing is promised but that the fit is a local optimum, `converged_`
        being True only if its residual shows no lack of fit. Needs refine=True.
    negative_slope : float, default=0.0
        Slope a of the activation for negative arguments, 0 <= a < 1 (leaky ReLU).
    compute_dtype : {"float64", "float32"}, default="float64"
        Arithmetic of the moments within a block of samples; sums over blocks, and the refinement,
        are always float64.
    n_jobs : int, default=None
        Threads of the accumulation at most; None or -1: all that Numba has. The result does not
        depend on it.
    random_state : None, int, RandomState or Generator, default=None
        Start of the joint diagonalization, and further starts of the refinement. None is fixed.
    verbose : int, default=0
        1 prints the diagnostics of a fit, and loss, gradient norm and pass count of the refinement.

    Attributes
    ----------
    hidden_weights_ : ndarray of shape (n_hidden, n_features)
        W. Rows of unit length; with fit_intercept, rows (b, w) of unit length.
    output_weights_ : ndarray of shape (n_outputs, n_hidden)
        A.
    hidden_intercept_ : ndarray of shape (n_hidden,)
        b; zeros without fit_intercept.
    output_intercept_ : ndarray of shape (n_outputs,)
        c; zeros without fit_intercept.
    network_ : TwoLayerNetwork
        All of these as a value that can be saved.
    diagnostics_ : fastsym.spectral.Diagnostics
        Singular values, gap, residual, condition numbers, symmetry test of the spectral start.
    refinement_ : fastsym.refine.Refinement
        How the refinement went. Only with refine=True, as are the following.
    loss_ : float
        Mean over the samples of the squared norm of the residual.
    n_passes_ : int
        Passes over all samples, 0 if all were held in memory. The sample that is read for the start
        is not counted; it is at most half of the data.
    converged_ : bool
        Whether the optimum was reached and is certified, see `fastsym.refine.Refinement`.
    noise_covariance_ : ndarray of shape (n_outputs, n_outputs)
        Covariance of the residual, corrected for the number of weights.
    hidden_stderr_ : ndarray of shape (n_hidden, n_features)
        Standard errors of hidden_weights_, whose gauge is rows of unit length.
    output_stderr_ : ndarray of shape (n_outputs, n_hidden)
        Standard errors of output_weights_ in the same gauge.
    hidden_intercept_stderr_ : ndarray of shape (n_hidden,)
        With fit_intercept.
    output_intercept_stderr_ : ndarray of shape (n_outputs,)
        With fit_intercept.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    Notes
    -----
    With one hidden unit and one output the start is Algorithm 1 of the paper, its expectation taken
    with a control variate.

    The method `refine_on` is not called refine because scikit-learn keeps the constructor's
    parameters under their names.

    References
    ----------
    Ge, Kuditipudi, Li, Wang, "Learning Two-layer Neural Networks with Symmetric Inputs", ICLR
    2019, arXiv:1810.06793.

    Examples
    --------
    >>> import fastsym
    >>> X, Y, network = fastsym.make_two_layer(20_000, 6, 4, 5, noise=0.1, random_state=0)
    >>> model = fastsym.TwoLayerRegressor(n_hidden=4).fit(X, Y)
    >>> fastsym.parameter_error(network, model.network_).hidden_error < 0.001
    True
    >>> model.converged_
    True
    """

    def __init__(
        self,
        n_hidden: Any = "auto",
        *,
        refine: bool = True,
        fit_intercept: bool = False,
        negative_slope: float = 0.0,
        compute_dtype: str = "float64",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_hidden = n_hidden
        self.refine = refine
        self.fit_intercept = fit_intercept
        self.negative_slope = negative_slope
        self.compute_dtype = compute_dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        client: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 60.0,
        callback: Callback | None = None,
    ) -> "TwoLayerRegressor":
        """Fit the network to samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features), Dask array or Source
            Symmetric inputs: x and -x equally likely. A source of `fastsym.sources` holds X, y and
            the weights: files, which are read by blocks, or anything that yields blocks. One that
            can be read only once is fitted in one pass, as by `partial_fit`.
        y : array_like of shape (n_samples,) or (n_samples, n_outputs), or Dask array
            One-dimensional: `predict` gives a one-dimensional array too. None where X is a source.
        sample_weight : array_like of shape (n_samples,), or Dask array, default=None
            At least 0; a sample of weight 0 is as absent, one of weight 2 counts twice. None: all
            1.
        client : dask.distributed.Client, default=None
            Passes over all samples run on its workers, see `fastsym.distributed`. None: here.
        checkpoint : path, default=None
            File in which the passes over all samples save their sums. If it is there, the fit goes
            on from it, to the same bits as one that was not interrupted. Needs a random_state of
            None or an int, and samples that can be read again.
        checkpoint_every : float, default=60.0
            Seconds between writes of the checkpoint within a pass.
        callback : callable, default=None
            Called with a `fastsym.progress.Event` after each block of a pass over all samples.

        Returns
        -------
        self : TwoLayerRegressor

        Raises
        ------
        ImportError
            If client or Dask arrays are given and Dask is not installed.
        TypeError
            If the samples can be read only once and client or checkpoint is given.
        ValueError
            If X or y is not finite or not numeric, the rows do not match, there are no more
            samples than features, n_hidden exceeds min(n_features, n_outputs), or the checkpoint is
            damaged or of another fit. Rows are numbered within the source.

        Warns
        -----
        AsymmetricInputWarning, SpectralGapWarning, RankDeficientWarning
            See `fastsym.spectral.solve`; with refine=True a poor gap only if the refinement is in
            doubt too.
        ConvergenceWarning, IdentifiabilityWarning
            See `fastsym.refine.refine`.
        """
        self._forget()
        source = self._source(X, y, sample_weight)
        with progress_bar() if self.verbose and callback is None else nullcontext(callback) as tell:
            if getattr(source, "read_once", False):
                return self._fit_stream(source, client, checkpoint, tell)
            return self._fit_source(
                self._passes(source, client, checkpoint, checkpoint_every, tell)
            )

    @one_blas_thread()
    def _fit_source(self, source: Passes) -> "TwoLayerRegressor":
        if not self.refine:
            self._set_solution(self._moments(source))
        else:
            k = check_n_hidden(self.n_hidden)
            if k is None:
                k = pilot_frame(source, negative_slope=self.negative_slope).n_hidden
            sample = spread_sample(source, k)
            self._solution: spectral.SpectralSolution | None = self._solve(sample, k)
            self._say(self._solution)
            self._refine_on(source, sample, k)
        self.n_features_in_ = self.network_.n_features
        return self

    def _fit_stream(
        self, source: Source, client: Any, checkpoint: Any, callback: Callback | None
    ) -> "TwoLayerRegressor":
        """Fit blocks that come only once, in one pass."""
        for name, value in (("client", client), ("checkpoint", checkpoint)):
            if value is not None:
                raise TypeError(
                    f"{name} needs samples that can be read more than once, got blocks of an "
                    "iterator; give something that can be iterated again, or files "
                    "(fastsym.sources.open_source)."
                )
        start, n_rows = time.perf_counter(), 0
        try:
            for X, Y, weights in source.blocks():
                self._take(X, Y, weights, n_rows)
                n_rows += len(X)
                if callback is not None:
                    rate = n_rows / (time.perf_counter() - start)
                    callback(Event("one pass", 1, n_rows, None, rate))
            if n_rows == 0:
                raise ValueError("no samples: the blocks are empty.")
            self._solved()
        except BaseException:
            self._forget()  # or partial_fit would go on with what came before the error
            raise
        self.n_features_in_ = self.network_.n_features
        # What comes next by partial_fit is a new stream.
        self.__dict__.pop("_stream", None)
        return self

    def _source(self, X: Any, y: Any, sample_weight: Any) -> Source:
        """Make a source of what `fit` was given."""
        self._check_parameters()
        if is_source(X):
            if y is not None or sample_weight is not None:
                raise ValueError(
                    "y and sample_weight must be None where X is a source: it has them."
                )
            self._flat_output = False
            self.__dict__.pop("feature_names_in_", None)  # of an earlier fit to a frame
            return X
        if type(X).__module__.partition(".")[0] in ("dask", "dask_expr"):
            from fastsym.distributed import from_dask

            self._flat_output = getattr(y, "ndim", 0) == 1
            self.__dict__.pop("feature_names_in_", None)
            return from_dask(X, y, sample_weight)
        X, Y = self._check_samples(X, y, reset=True)
        return from_arrays(X, Y, sample_weight)

    def _passes(
        self, source: Source, client: Any, path: Any, every: float, callback: Callback | None
    ) -> Passes:
        """Say how a source is read."""
        checkpoint = None
        if path is not None:
            if not (self.random_state is None or isinstance(self.random_state, Integral)):
                raise ValueError(
                    "checkpoint needs a random_state of None or an int, which is the same when "
                    f"the fit goes on, got {self.random_state!r}."
                )
            settings = {
                name: str(value)
                for name, value in self.get_params().items()
                if name not in ("n_jobs", "verbose")  # the result does not depend on them
            }
            # The order of the sums, and a cluster's checkpoints are between passes only.
            settings["client"] = "none" if client is None else "a cluster"
            checkpoint = Checkpoint(path, source, settings, every)
        if client is None:
            return Passes(source, callback=callback, checkpoint=checkpoint)
        from fastsym.distributed import ClusterPasses

        return ClusterPasses(source, client, callback=callback, checkpoint=checkpoint)

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> "TwoLayerRegressor":
        """Take in more samples; the weights are worked out when they are next asked for.

        The first samples (8192, or all if there are fewer) determine the frame, see
        `MomentAccumulator`. With refine=True the stream is refined in one pass, see
        `fastsym.stream.StreamRefiner`; if the samples can be read again, `refine_on` gives the
        optimum itself. After `fit` or `fit_moments` a new stream begins.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Any number of rows, also 1.
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array_like of shape (n_samples,), default=None
            As for `fit`.

        Returns
        -------
        self : TwoLayerRegressor

        Raises
        ------
        ValueError
            If X or y is not finite or not numeric, or does not match the samples before.
        """
        first = not hasattr(self, "_stream")
        if first:
            self._forget()
        X, Y = self._check_samples(X, y, reset=first)
        weights = None if sample_weight is None else check_weights(sample_weight, len(X))
        self._take(X, Y, weights)
        return self

    def _take(
        self,
        X: NDArray[Any],
        Y: NDArray[Any],
        weights: NDArray[np.float64] | None,
        first_row: int = 0,
    ) -> None:
        """Take samples into the stream, which begins with the first."""
        if not hasattr(self, "_stream"):
            self._stream = MomentAccumulator(
                self.n_hidden,
                compute_dtype=self.compute_dtype,
                negative_slope=self.negative_slope,
                n_jobs=self.n_jobs,
            )
            if self.refine:
                self._refiner = StreamRefiner(
                    self._stream,
                    fit_intercept=self.fit_intercept,
                    n_jobs=self.n_jobs,
                    random_state=self.random_state,
                )
        X, Y = check_pair(X, Y, self._stream.n_features, self._stream.n_outputs, first_row)
        if weights is not None:
            if not weights.any():
                return
            X, Y, weights = weighted_rows(X, Y, weights)
        self._stream.take(X, Y, weights)
        if self.refine:
            self._refiner.take(X, Y, weights)
        self._solution = None
        self.__dict__.pop("_refinement", None)

    def refine_on(
        self,
        source: Source,
        *,
        client: Any = None,
        callback: Callback | None = None,
    ) -> "TwoLayerRegressor":
        """Refine the fitted network to the least-squares optimum of samples that can be read again.

        For streams: `partial_fit` everything once, or as much as gives a start, then this.

        Parameters
        ----------
        source : Source
            Of `fastsym.sources`, for arrays `fastsym.sources.from_arrays`.
        client, callback
            As for `fit`.

        Returns
        -------
        self : TwoLayerRegressor

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If there is no fit to start from.
        TypeError
            If the source cannot be read twice.
        ValueError
            If the samples are not finite or do not match the network.

        Warns
        -----
        ConvergenceWarning, IdentifiabilityWarning
            See `fastsym.refine.refine`.
        """
        start = self.network_
        check_rereadable(source)
        with progress_bar() if self.verbose and callback is None else nullcontext(callback) as tell:
            passes = self._passes(source, client, None, 0.0, tell)
            self._refine_on(passes, spread_sample(source, start.n_hidden), start.n_hidden)
        return self

    def _refine_on(
        self,
        source: Passes,
        sample: PairedRows,
        k: int,
    ) -> None:
        refinement = self.__dict__.get("_refinement")
        if refinement is not None:
            start = refinement.network
        elif self._solution is not None:
            start = self._solution.network
        else:
            start = moment_start(
                sample, k, negative_slope=self.negative_slope, random_state=self.random_state
            )
        clear = self._solution is not None and self._solution.diagnostics.clear
        passes = 0

        def from_all_samples() -> TwoLayerNetwork | None:
            # What a sample does not show all samples may.
            nonlocal passes
            passes += 1
            self._solution = self._solve(source, k) or self._solution
            return self._solution.network if self._solution is not None else None

        refinement = refine(
            source,
            start,
            sample=sample,
            # The spectral start knows nothing of intercepts.
            trusted=clear and not self.fit_intercept,
            second_start=from_all_samples if sample.n_samples < source.n_samples else None,
            fit_intercept=self.fit_intercept,
            n_jobs=self.n_jobs,
            random_state=self.random_state,
            verbose=self.verbose,
        )
        self._refinement = replace(refinement, n_passes=refinement.n_passes + passes)
        self._warn_of_doubt()

    def _warn_of_doubt(self) -> None:
        """Say what the spectral start lacks, where the refinement does not make up for it."""
        if self._solution is None:
            return
        diagnostics = self._solution.diagnostics
        if diagnostics.doubt and not (self._refinement.converged and diagnostics.shown):
            warnings.warn(diagnostics.doubt, SpectralGapWarning, stacklevel=6)

    def _moments(
        self,
        source: Source,
        n_hidden: int | None = None,
    ) -> Moments:
        """Moments of all rows of a source, in one pass or two."""
        wanted = self.n_hidden if n_hidden is None else n_hidden
        frame = pilot_frame(source, wanted, negative_slope=self.negative_slope)
        how: dict[str, Any] = {"compute_dtype": self.compute_dtype, "n_jobs": self.n_jobs}
        if frame.n_hidden < _TWO_PASSES or self.negative_slope or frame.even_radius:
            how["negative_slope"] = self.negative_slope
            return accumulate(source, frame=frame, **how).finish()
        linear = accumulate_linear(source, frame, **how)
        white = spectral.whiten(linear)
        return accumulate_direct(source, linear, white.input_map, white.output_map, **how)

    def _solve(self, source: Source, k: int) -> spectral.SpectralSolution | None:
        """Solve for a start; None if the samples show fewer directions than n_hidden."""
        try:
            moments = self._moments(source, k)
            return spectral.solve(moments, random_state=self.random_state, warn=False)
        except RankError as error:
            warnings.warn(
                f"{error} The refinement starts from weights that agree with the linear part of Y "
                "instead.",
                SpectralGapWarning,
                stacklevel=6,
            )
            return None

    def fit_moments(self, moments: MomentAccumulator) -> "TwoLayerRegressor":
        """Fit the network to moments that were accumulated elsewhere.

        Moments do not refine: whatever the parameter refine, this is the spectral estimate, and
        `refine_on` brings it to the optimum if there are samples.

        Parameters
        ----------
        moments : MomentAccumulator
            Not changed. Its n_hidden and compute_dtype count, not the estimator's.

        Returns
        -------
        self : TwoLayerRegressor

        Raises
        ------
        ValueError
            If there are too few samples.
        TypeError
            If `moments` is not a MomentAccumulator.
        """
        self._check_parameters()
        if not isinstance(moments, MomentAccumulator):
            raise TypeError(f"moments must be a MomentAccumulator, got {type(moments).__name__}.")
        self._forget()
        self._set_solution(moments.moments())
        self.n_features_in_ = self.network_.n_features
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Evaluate the fitted network.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        Y : ndarray of shape (n_samples, n_outputs), or (n_samples,) if Y was one-dimensional
            float64.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If X is not finite or has another number of features.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        Y = self.network_.predict(X)
        return Y[:, 0] if self._flat_output else Y

    @property
    def network_(self) -> TwoLayerNetwork:
        """The fitted network."""
        solution = self._solved()
        refinement = self.__dict__.get("_refinement")
        return solution.network if refinement is None else refinement.network

    @property
    def diagnostics_(self) -> spectral.Diagnostics:
        """How well the moments determine the network."""
        if self._solved() is None:
            raise AttributeError("no diagnostics: the moments showed fewer than n_hidden units.")
        return self._solved().diagnostics

    @property
    def refinement_(self) -> Refinement:
        """How the refinement went."""
        self._solved()
        if "_refinement" not in self.__dict__:
            raise AttributeError(
                "this fit is not refined: use refine=True, or refine_on a source of samples."
            )
        return self._refinement

    @property
    def loss_(self) -> float:
        """Mean over the samples of the squared norm of the residual."""
        return self.refinement_.loss

    @property
    def n_passes_(self) -> int:
        """Passes over all samples."""
        return self.refinement_.n_passes

    @property
    def converged_(self) -> bool:
        """Whether the optimum was reached and is certified."""
        return self.refinement_.converged

    @property
    def noise_covariance_(self) -> NDArray[np.float64]:
        """Covariance of the residual, shape (n_outputs, n_outputs)."""
        return self.refinement_.noise_covariance

    def _standard_errors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.refinement_.standard_errors()

    @property
    def hidden_stderr_(self) -> NDArray[np.float64]:
        """Standard errors of W, shape (n_hidden, n_features)."""
        return self._standard_errors()[0][:, int(self.fit_intercept) :]

    @property
    def output_stderr_(self) -> NDArray[np.float64]:
        """Standard errors of A, shape (n_outputs, n_hidden)."""
        return self._standard_errors()[1][:, : self.network_.n_hidden]

    @property
    def hidden_intercept_stderr_(self) -> NDArray[np.float64]:
        """Standard errors of b, shape (n_hidden,); only with fit_intercept."""
        if not self.fit_intercept:
            raise AttributeError("there is no intercept: fit_intercept is False.")
        return self._standard_errors()[0][:, 0]

    @property
    def output_intercept_stderr_(self) -> NDArray[np.float64]:
        """Standard errors of c, shape (n_outputs,); only with fit_intercept."""
        if not self.fit_intercept:
            raise AttributeError("there is no intercept: fit_intercept is False.")
        return self._standard_errors()[1][:, -1]

    @property
    def hidden_intercept_(self) -> NDArray[np.float64]:
        """Hidden biases b, shape (n_hidden,)."""
        return self.network_.hidden_intercept

    @property
    def output_intercept_(self) -> NDArray[np.float64]:
        """Output intercept c, shape (n_outputs,)."""
        return self.network_.output_intercept

    @property
    def hidden_weights_(self) -> NDArray[np.float64]:
        """W, shape (n_hidden, n_features)."""
        return self.network_.hidden_weights

    @property
    def output_weights_(self) -> NDArray[np.float64]:
        """A, shape (n_outputs, n_hidden)."""
        return self.network_.output_weights

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_solution")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        # Without biases, and with symmetric inputs assumed, scikit-learn's linear test problem with
        # one output and an offset is outside of the model.
        tags.regressor_tags.poor_score = True
        return tags

    def _check_parameters(self) -> None:
        check_negative_slope(self.negative_slope)
        if self.fit_intercept and not self.refine:
            raise ValueError(
                "fit_intercept=True needs refine=True: the method of moments has no intercepts."
            )

    def _check_samples(self, X: Any, Y: Any, *, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        self._check_parameters()
        # Values are checked block by block where they are accumulated, which names the row.
        X = validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite=False
        )
        if Y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        Y = np.asarray(Y)
        if reset:
            self._flat_output = Y.ndim == 1
        return X, as_rows("Y", Y)

    def _forget(self) -> None:
        for name in ("_stream", "_solution", "_refinement", "_refiner"):
            self.__dict__.pop(name, None)

    def _set_solution(self, moments: Moments) -> "TwoLayerRegressor":
        solution = spectral.solve(moments, random_state=self.random_state)
        self._solution = solution
        self._flat_output = getattr(self, "_flat_output", False)
        self._say(solution)
        return self

    def _say(self, solution: spectral.SpectralSolution | None) -> None:
        if self.verbose and solution is not None:
            d = solution.diagnostics
            print(
                f"fastsym: {d.n_samples} samples, n_hidden={solution.network.n_hidden}, "
                f"gap {d.gap:.3g}, residual {d.residual:.2g}, condition of W {d.condition_w:.3g}, "
                f"of A {d.condition_a:.3g}"
            )

    def _solved(self) -> Any:
        if not hasattr(self, "_solution"):
            raise NotFittedError(
                f"This {type(self).__name__} is not fitted yet: call fit, partial_fit or "
                "fit_moments first."
            )
        if self._solution is None and "_refinement" not in self.__dict__:
            if self.refine:
                self._solution, self._refinement = self._refiner.result()
                self._warn_of_doubt()
            else:
                self._set_solution(self._stream.moments())
        return self._solution
