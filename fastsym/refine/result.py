"""What a refinement found."""

from dataclasses import dataclass, field

from fastsym.algebra import Matrix
from fastsym.network import TwoLayerNetwork
from fastsym.refine.lack_of_fit import LackOfFit
from fastsym.refine.minimisation import Evaluation
from fastsym.refine.standard_errors import StandardErrors
from fastsym.refine.trials import Count


@dataclass(frozen=True, eq=False)
class Refinement:
    """A refined network and how sure it is.

    Parameters
    ----------
    network : TwoLayerNetwork
        Rows of W (with their biases) of unit length.
    loss : float
        Mean over all samples of the squared norm of the residual. After a last step that was not
        evaluated, that of the last pass less what the linearised problem promised.
    n_samples : int
    n_passes : int
        Passes over all samples; 0 if they were all in memory.
    n_evaluations : int
        Evaluations on the samples in memory, of all starts; not of those about an optimum.
    converged : bool
        Whether the optimum was reached within the tolerance and is certified to be the global one.
        It says nothing of whether the model describes the samples, which `lack_of_fit` does.
    certificate : str
        Why it is held for the global optimum: "exact" (only rounding is left, and the equations
        determine the network), "spectral" (a clear spectral start, ample samples and no lack of
        fit), "agreement" (two independent starts ended at the lowest loss, and starts about it no
        lower; three where samples are few, half of them where there is a lack of fit; beside a
        linear part, two runs, and one unit more gains no more than of noise), "no lack of fit"
        (lowest of at least four starts, where the test would notice the excess loss of another),
        "linear" (units were counted, and there are none: a linear regression), or "none" (see
        `fastsym.refine.certificates` and `fastsym.refine.beside_linear`).
    reason : str
        Why nothing is certified; empty if something is.
    lack_of_fit : LackOfFit
        Whether the residual depends on x: p-value, size in standard deviations, likely cause, and
        what the test would notice (`fastsym.refine.lack_of_fit`).
    r2 : float
        1 - loss / loss of the best constant, on the samples in memory.
    r2_linear : float
        1 - loss / loss of the best linear predictor with a constant, on the samples in memory; -inf
        where that is exact, as is r2 where all outputs are constant.
    start_losses : list of float
        Loss of each start on the samples in memory, in order.
    noise_covariance : ndarray of shape (n_outputs, n_outputs)
        Of the residual, weighted as the samples are, corrected for the number of fitted weights.
    decrement : float
        Relative decrease of the loss that the linearised problem still promises.
    history : list of Evaluation
        Of the passes over all samples, or on the samples in memory if these are all.
    fit_intercept : bool
        Whether b and c were fitted.
    linear : bool
        Whether L was.
    alpha : float
        Weight decay, of |W|^2 + |A|^2 beside the sum of squared residuals; 0 for a least-squares
        optimum. See `fastsym.refine.decay`.
    held_out_r2 : float
        R2 of parts of the samples, each predicted from the others, where the number of units was
        not given and they decided; else NaN.
    n_hidden_path : tuple of Count
        Numbers of units tried beside a free linear part, where it was not given.
    """

    network: TwoLayerNetwork
    loss: float
    n_samples: int
    n_passes: int
    n_evaluations: int
    converged: bool
    certificate: str
    reason: str
    lack_of_fit: LackOfFit
    r2: float
    r2_linear: float
    start_losses: list[float]
    noise_covariance: Matrix
    decrement: float
    history: list[Evaluation]
    fit_intercept: bool
    linear: bool
    alpha: float
    held_out_r2: float
    n_hidden_path: tuple[Count, ...]
    _errors: StandardErrors = field(repr=False)

    @property
    def misfit(self) -> float:
        """Lack of fit in standard deviations of its null distribution."""
        return self.lack_of_fit.misfit

    def standard_errors(self, kind: str = "robust") -> tuple[Matrix, Matrix]:
        """Return the standard errors of the weights.

        Gauge: rows of W, with their biases if there are any, of unit length. They are worked out
        when they are first asked for, the robust ones from the samples in memory (at most 65 536),
        for the number of all samples.

        Parameters
        ----------
        kind : {"robust", "classical"}, default="robust"
            "robust": the sandwich estimator, which holds for noise that depends on x and for
            sample weights of any origin. "classical": for noise of one covariance,
            `noise_covariance`, whatever x, and weights that have nothing to do with it.

        Returns
        -------
        hidden_stderr : ndarray of shape (n_hidden, n_features), or (n_hidden, 1 + n_features)
            With intercepts, the first column belongs to the biases.
        output_stderr : ndarray of shape (n_outputs, n_hidden + n_affine)
            Of A; then, with intercepts, a column for c; then, with a linear part, n_features for L.

        Raises
        ------
        ValueError
            If kind is neither, if there are more than 4096 hidden weights, for which no normal
            matrix is formed, or the samples do not determine the weights.

        References
        ----------
        White (1980), doi:10.2307/1912934.
        """
        return self._errors.of(kind)
