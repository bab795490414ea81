"""The scikit-learn estimator."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, validate_data

from fastsym import spectral
from fastsym._validation import as_rows
from fastsym.engine import accumulate, accumulate_direct, accumulate_linear, pilot_frame
from fastsym.moments import MomentAccumulator, Moments
from fastsym.network import TwoLayerNetwork
from fastsym.sources import from_arrays

# From this many hidden units on, two passes with k^4 / 4 operations a sample are quicker than one
# with 5 k^4 / 12; below, reading and staging twice costs more than it saves.
_TWO_PASSES = 20


class TwoLayerRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Two-layer ReLU network y = A relu(W x), fitted by the method of moments.

    The inputs must be symmetric: x and -x equally likely. There are no biases, and at most
    min(n_features, n_outputs) hidden units. One pass over the samples (two in `fit` from 20
    hidden units on, which is quicker then) accumulates moments, from which the weights follow by
    linear algebra; there is no gradient descent and no random start.

    Parameters
    ----------
    n_hidden : int or "auto", default="auto"
        Number of hidden units k. "auto" counts the canonical correlations of X and Y above their
        noise floor.
    refine : bool, default=False
        Refinement to maximum likelihood. Not in this version: True raises NotImplementedError.
    compute_dtype : {"float64", "float32"}, default="float64"
        Arithmetic within a block of samples; sums over blocks are always float64.
    n_jobs : int, default=None
        Threads of the accumulation at most; None or -1: all that Numba has. The result does not
        depend on it.
    random_state : None, int, RandomState or Generator, default=None
        Start of the joint diagonalization. None is a fixed start.
    verbose : int, default=0
        1 prints the number of samples and the diagnostics of a fit.

    Attributes
    ----------
    hidden_weights_ : ndarray of shape (n_hidden, n_features)
        W, rows of unit length.
    output_weights_ : ndarray of shape (n_outputs, n_hidden)
        A.
    network_ : TwoLayerNetwork
        Both as a value that can be saved.
    diagnostics_ : fastsym.spectral.Diagnostics
        Singular values, gap, residual, condition numbers, symmetry test.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X had string column names.

    Notes
    -----
    With one hidden unit and one output this is Algorithm 1 of the paper, its expectation taken with
    a control variate.

    References
    ----------
    Ge, Kuditipudi, Li, Wang, "Learning Two-layer Neural Networks with Symmetric Inputs", ICLR
    2019, arXiv:1810.06793.

    Examples
    --------
    >>> import fastsym
    >>> X, Y, network = fastsym.make_two_layer(20_000, 6, 4, 5, noise=0.1, random_state=0)
    >>> model = fastsym.TwoLayerRegressor(n_hidden=4).fit(X, Y)
    >>> fastsym.parameter_error(network, model.network_).hidden_error < 0.01
    True
    """

    def __init__(
        self,
        n_hidden: Any = "auto",
        *,
        refine: bool = False,
        compute_dtype: str = "float64",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.n_hidden = n_hidden
        self.refine = refine
        self.compute_dtype = compute_dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, Y: ArrayLike) -> "TwoLayerRegressor":
        """Fit the network to samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Symmetric inputs: x and -x equally likely.
        Y : array_like of shape (n_samples,) or (n_samples, n_outputs)
            One-dimensional: `predict` gives a one-dimensional array too.

        Returns
        -------
        self : TwoLayerRegressor

        Raises
        ------
        ValueError
            If X or Y is not finite or not numeric, the rows do not match, there are no more
            samples than features, or n_hidden exceeds min(n_features, n_outputs).
        NotImplementedError
            If refine is True.

        Warns
        -----
        AsymmetricInputWarning, SpectralGapWarning, RankDeficientWarning
            See `fastsym.spectral.solve`.
        """
        self._forget()
        X, Y = self._check_samples(X, Y, reset=True)
        source = from_arrays(X, Y)
        frame = pilot_frame(source, self.n_hidden)
        how: dict[str, Any] = {"compute_dtype": self.compute_dtype, "n_jobs": self.n_jobs}
        if frame.n_hidden < _TWO_PASSES:
            moments = accumulate(source, frame=frame, **how).moments()
        else:
            linear = accumulate_linear(source, frame, **how)
            white = spectral.whiten(linear)
            moments = accumulate_direct(source, linear, white.input_map, white.output_map, **how)
        return self._set_solution(moments)

    def partial_fit(self, X: ArrayLike, Y: ArrayLike) -> "TwoLayerRegressor":
        """Take in more samples; the weights are solved for when they are next asked for.

        The first samples (8192, or all if there are fewer) determine the frame, see
        `MomentAccumulator`. After `fit` or `fit_moments` a new stream begins.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Any number of rows, also 1.
        Y : array_like of shape (n_samples,) or (n_samples, n_outputs)

        Returns
        -------
        self : TwoLayerRegressor

        Raises
        ------
        ValueError
            If X or Y is not finite or not numeric, or does not match the samples before.
        NotImplementedError
            If refine is True.
        """
        first = not hasattr(self, "_stream")
        if first:
            self._forget()
        X, Y = self._check_samples(X, Y, reset=first)
        if first:
            self._stream = MomentAccumulator(
                self.n_hidden, compute_dtype=self.compute_dtype, n_jobs=self.n_jobs
            )
        self._stream.update(X, Y)
        self._solution: spectral.SpectralSolution | None = None
        return self

    def fit_moments(self, moments: MomentAccumulator) -> "TwoLayerRegressor":
        """Fit the network to moments that were accumulated elsewhere.

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
        NotImplementedError
            If refine is True.
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
        return self._solved().network

    @property
    def diagnostics_(self) -> spectral.Diagnostics:
        """How well the moments determine the network."""
        return self._solved().diagnostics

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
        if self.refine:
            raise NotImplementedError(
                "refine=True is not in this version of fastsym; use refine=False, which gives the "
                "spectral estimate."
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
        for name in ("_stream", "_solution"):
            self.__dict__.pop(name, None)

    def _set_solution(self, moments: Moments) -> "TwoLayerRegressor":
        solution = spectral.solve(moments, random_state=self.random_state)
        self._solution = solution
        self._flat_output = getattr(self, "_flat_output", False)
        if self.verbose:
            d = solution.diagnostics
            print(
                f"fastsym: {d.n_samples} samples, n_hidden={solution.network.n_hidden}, "
                f"gap {d.gap:.3g}, residual {d.residual:.2g}, condition of W {d.condition_w:.3g}, "
                f"of A {d.condition_a:.3g}"
            )
        return self

    def _solved(self) -> spectral.SpectralSolution:
        if not hasattr(self, "_solution"):
            raise NotFittedError(
                f"This {type(self).__name__} is not fitted yet: call fit, partial_fit or "
                "fit_moments first."
            )
        if self._solution is None:
            self._set_solution(self._stream.moments())
        assert self._solution is not None
        return self._solution
