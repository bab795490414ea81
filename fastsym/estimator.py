"""The scikit-learn estimator: parameters, their checks, and what a fit found as attributes."""

import os
from contextlib import nullcontext
from dataclasses import fields
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, validate_data

from fastsym import fitting
from fastsym._validation import as_rows, check_weights
from fastsym.attributes import FittedAttributes
from fastsym.engine import Passes, check_rereadable
from fastsym.engine.progress import Callback, progress_bar
from fastsym.fitting import Fitted, Specification
from fastsym.one_pass import Stream, fit_once
from fastsym.sources import Source, from_arrays, is_source
from fastsym.sources.dask import from_dask, is_dask
from fastsym.sums.moments import MomentAccumulator


class TwoLayerRegressor(FittedAttributes, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Two-layer ReLU network y = c + L x + A relu(W x + b), fitted to its least-squares optimum.

    Where x and -x are equally likely, there are no biases, and no more hidden units than features
    or outputs, moments of a sample give the weights by linear algebra. Other networks are searched
    for on the sample beside a free linear part L x, with which the signs of the units do not
    matter. Levenberg-Marquardt and two to four passes bring either to the optimum of all samples.

    Parameters
    ----------
    n_hidden : int or "auto", default="auto"
        Number of hidden units k. "auto" counts the canonical correlations of X and Y above their
        noise floor; with refine=True, and samples that can be read again, units are then added and
        removed while the loss falls by more than chance explains. Where a network of such units
        without biases does not describe the samples, they are counted beside a linear part; where
        the samples do not determine their weights, these may be held small, as parts of the samples
        that were left out say (`refinement_.alpha`): such a network is for predictions.
    refine : bool, default=True
        Refine to the least-squares optimum: maximum likelihood for Gaussian noise of equal
        variance. False: the spectral estimate, from the moments of all samples.
    fit_intercept : bool or "auto", default="auto"
        Hidden biases b and an output intercept c. "auto": where a fit without them does not
        describe the samples and they explain more than chance. True needs refine=True.
    linear : bool or "auto", default="auto"
        A linear part L x beside the units. "auto": where the samples show one that no signs of the
        units stand for. True needs refine=True. With fit_intercept=False and linear=False the model
        is that of the paper, y = A relu(W x).
    alpha : float or "auto", default="auto"
        Weight decay: alpha (|W|^2 + |A|^2) beside the sum of squared residuals, features in
        standard deviations; L has a ridge of its own. 0: none. "auto": none, unless n_hidden is
        "auto" and held-out samples are predicted better with it. Above 0 nothing is certified.
    negative_slope : float, default=0.0
        Slope a of the activation for negative arguments, 0 <= a < 1 (leaky ReLU).
    compute_dtype : {"float64", "float32"}, default="float64"
        Arithmetic of the moments within a block of samples; all else is always float64.
    n_jobs : int, default=None
        Threads at most; None or -1: all that Numba has. The result does not depend on it.
    random_state : None, int, RandomState or Generator, default=None
        Start of the joint diagonalization, and further starts of the refinement. None is fixed.
    verbose : int, default=0
        1 prints the diagnostics of a fit, and loss, gradient norm and pass count of the refinement.
    stderr : {"robust", "classical"}, default="robust"
        Kind of the standard errors, which may be changed after the fit. "robust" ones (sandwich)
        hold for noise that depends on x and for weighted samples, "classical" ones for noise of
        one covariance. See `fastsym.refine.Refinement.standard_errors`.

    Attributes
    ----------
    hidden_weights_ : ndarray of shape (n_hidden, n_features)
        W. Rows of unit length; with fit_intercept, rows (b, w) of unit length.
    output_weights_ : ndarray of shape (n_outputs, n_hidden)
        A.
    hidden_intercept_, output_intercept_, linear_weights_ : ndarray
        b of shape (n_hidden,), c (n_outputs,), L (n_outputs, n_features); zeros if not fitted.
    network_ : TwoLayerNetwork
        All of these as a value that can be saved.
    diagnostics_ : fastsym.spectral.Diagnostics
        Singular values, gap, residual, condition numbers, symmetry test of the spectral start.
    n_hidden_path_ : tuple of fastsym.refine.Count
        Numbers of hidden units tried with n_hidden="auto"; empty for moments alone and streams.
    refinement_ : fastsym.refine.Refinement
        How the refinement went. Only with refine=True, as are the following.
    loss_ : float
        Mean over the samples of the squared norm of the residual.
    n_passes_ : int
        Passes over all samples, without what is read for the start; 0 if all were in memory.
    converged_ : bool
        Whether the optimum was reached and is certified. Whether the network describes the samples
        `refinement_.lack_of_fit` says: see docs/trust.md.
    noise_covariance_ : ndarray of shape (n_outputs, n_outputs)
        Covariance of the residual, corrected for the number of weights.
    hidden_stderr_, output_stderr_ : ndarray
        Standard errors of W and A, whose gauge is rows of unit length; see stderr.
    hidden_intercept_stderr_, output_intercept_stderr_, linear_stderr_ : ndarray
        Of b, c and L, where `refinement_` says that they were fitted.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    Notes
    -----
    With one hidden unit and one output the start is Algorithm 1 of the paper, with a control
    variate. `refine_on` is not called refine because that is the name of a parameter.

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

    _fitted: Fitted | None = None
    _stream: Stream | None = None
    _flat_output = False

    def __init__(
        self,
        n_hidden: Any = "auto",
        *,
        refine: bool = True,
        fit_intercept: bool | str = "auto",
        linear: bool | str = "auto",
        alpha: Any = "auto",
        negative_slope: float = 0.0,
        compute_dtype: str = "float64",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        stderr: str = "robust",
    ) -> None:
        self.n_hidden = n_hidden
        self.refine = refine
        self.fit_intercept = fit_intercept
        self.linear = linear
        self.alpha = alpha
        self.negative_slope = negative_slope
        self.compute_dtype = compute_dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.stderr = stderr

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
            A source of `fastsym.sources` holds X, y and
            the weights: files, which are read by blocks, or anything that yields blocks. One that
            can be read only once is fitted in one pass, as by `partial_fit`.
        y : array_like of shape (n_samples,) or (n_samples, n_outputs), or Dask array
            One-dimensional: `predict` gives a one-dimensional array too. None where X is a source.
        sample_weight : array_like of shape (n_samples,), or Dask array, default=None
            Importance of each sample, at least 0, in any unit: multiplying all by a constant
            changes nothing. One of weight 0 is as absent, one of weight 2 counts twice in the loss,
            so that W and A are those of two equal rows; but it is one sample with one noise.
            What is said of chance (standard errors, tolerances, n_hidden="auto") therefore counts
            (sum w)^2 / sum w^2 samples. Weights of 1 / variance of the noise fit too. None: all 1.
        client : dask.distributed.Client, default=None
            Passes over all samples run on its workers, see `fastsym.engine.cluster`. None: here.
        checkpoint : path, default=None
            File in which the passes over all samples save their sums. If it is there, the fit goes
            on from it, to the same bits as one that was not interrupted. Needs a random_state of
            None or an int, and samples that can be read again.
        checkpoint_every : float, default=60.0
            Seconds between writes of the checkpoint within a pass.
        callback : callable, default=None
            Called with a `fastsym.engine.Event` after each block of a pass over all samples.

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
            samples than features, or the checkpoint is damaged or of another fit. With
            refine=False also if n_hidden exceeds min(n_features, n_outputs). Rows are numbered
            within the source.

        Warns
        -----
        AsymmetricInputWarning, SpectralGapWarning, RankDeficientWarning
            See `fastsym.spectral.solve`; with refine=True a poor gap only if the refinement is in
            doubt too.
        ConvergenceWarning, IdentifiabilityWarning, LackOfFitWarning
            See `fastsym.refine.refine`; the first two for streams and n_hidden="auto" too.
        """
        self._forget()
        how, source = self._specification(), self._source(X, y, sample_weight)
        with self._told(callback) as tell:
            if getattr(source, "read_once", False):
                self._refuse_for_once(client=client, checkpoint=checkpoint)
                self._fitted = fit_once(source, how, tell)
            else:
                passes = self._passes(source, client, checkpoint, checkpoint_every, tell)
                self._fitted = fitting.fit(passes, how)
        self.n_features_in_ = self.network_.n_features
        return self

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> "TwoLayerRegressor":
        """Take in more samples; the weights are worked out when they are next asked for.

        The first samples (8192, or all if there are fewer) determine the frame, see
        `MomentAccumulator`. With refine=True the stream is refined in one pass, see
        `fastsym.refine.stream.StreamRefiner`; if the samples can be read again, `refine_on` gives
        the optimum itself. After `fit` or `fit_moments` a new stream begins.

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
        how, first = self._specification(), self._stream is None
        if first:
            self._forget()
        X, Y = self._check_samples(X, y, reset=first)
        weights = None if sample_weight is None else check_weights(sample_weight, len(X))
        stream = self._stream or Stream(how)
        stream.take(X, Y, weights)
        self._stream, self._fitted = stream, None
        return self

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
            If the samples are not finite, no more than the features, or do not match the network.

        Warns
        -----
        ConvergenceWarning, IdentifiabilityWarning, LackOfFitWarning
            See `fastsym.refine.refine`.
        """
        before = self._found()
        check_rereadable(source)
        with self._told(callback) as tell:
            passes = self._passes(source, client, None, 0.0, tell)
            self._fitted = fitting.refine_again(passes, before, self._specification())
        return self

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
        how = self._specification()
        if not isinstance(moments, MomentAccumulator):
            raise TypeError(f"moments must be a MomentAccumulator, got {type(moments).__name__}.")
        self._forget()
        self._fitted = fitting.fit_moments(moments.moments(), how)
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

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted is not None or self._stream is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _found(self) -> Fitted:
        """Return what the fit found; a stream is solved when it is first asked."""
        if self._fitted is None:
            if self._stream is None:
                raise NotFittedError(
                    f"This {type(self).__name__} is not fitted yet: call fit, partial_fit or "
                    "fit_moments first."
                )
            self._fitted = self._stream.result()
        return self._fitted

    def _forget(self) -> None:
        self._fitted = self._stream = None

    def _specification(self) -> Specification:
        return Specification(**{one.name: getattr(self, one.name) for one in fields(Specification)})

    def _told(self, callback: Callback | None) -> Any:
        """Show a bar where the user wants to see something and has no callback."""
        return progress_bar() if self.verbose and callback is None else nullcontext(callback)

    def _source(self, X: Any, y: Any, sample_weight: Any) -> Source:
        """Make a source of what `fit` was given."""
        if is_source(X):
            if y is not None or sample_weight is not None:
                raise ValueError(
                    "y and sample_weight must be None where X is a source: it has them."
                )
            self._flat_output = False
            self.__dict__.pop("feature_names_in_", None)  # of an earlier fit to a frame
            return X
        if is_dask(X):
            self._flat_output = getattr(y, "ndim", 0) == 1
            self.__dict__.pop("feature_names_in_", None)
            return from_dask(X, y, sample_weight)
        X, Y = self._check_samples(X, y, reset=True)
        return from_arrays(X, Y, sample_weight)

    def _check_samples(self, X: Any, Y: Any, *, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
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

    def _refuse_for_once(self, **given: Any) -> None:
        for name, value in given.items():
            if value is not None:
                raise TypeError(
                    f"{name} needs samples that can be read more than once, got blocks of an "
                    "iterator; give something that can be iterated again, or files "
                    "(fastsym.sources.open_source)."
                )

    def _passes(
        self, source: Source, client: Any, path: Any, every: float, callback: Callback | None
    ) -> Passes:
        """Say how a source is read; the settings are those that the result depends on."""
        if path is not None and not (
            self.random_state is None or isinstance(self.random_state, Integral)
        ):
            raise ValueError(
                "checkpoint needs a random_state of None or an int, which is the same when "
                f"the fit goes on, got {self.random_state!r}."
            )
        settings = fitting.settings_of(self.get_params())
        return fitting.passes_of(
            source, settings, client=client, checkpoint=path, every=every, callback=callback
        )
