"""What a fit found, as attributes under scikit-learn's names."""

from fastsym import spectral
from fastsym.algebra import Matrix
from fastsym.fitting import Fitted
from fastsym.network import TwoLayerNetwork
from fastsym.refine import Refinement
from fastsym.refine.counting import Count


class FittedAttributes:
    """Attributes that end in an underscore, all of them views of what `_found` returns."""

    stderr: str

    def _found(self) -> Fitted:
        raise NotImplementedError

    @property
    def network_(self) -> TwoLayerNetwork:
        """The fitted network."""
        return self._found().network

    @property
    def n_hidden_(self) -> int:
        """Number of hidden units of the fitted network."""
        return self.network_.n_hidden

    @property
    def diagnostics_(self) -> spectral.Diagnostics:
        """How well the moments determine the network."""
        solution = self._found().solution
        if solution is None:
            raise AttributeError(
                "no diagnostics: the moments showed fewer than n_hidden units, or know nothing of "
                "networks of this form."
            )
        return solution.diagnostics

    @property
    def refinement_(self) -> Refinement:
        """How the refinement went."""
        refinement = self._found().refinement
        if refinement is None:
            raise AttributeError(
                "this fit is not refined: use refine=True, or refine_on a source of samples."
            )
        return refinement

    @property
    def n_hidden_path_(self) -> tuple[Count, ...]:
        """Numbers of hidden units tried, with loss and criterion."""
        return self._found().n_hidden_path

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
    def noise_covariance_(self) -> Matrix:
        """Covariance of the residual, shape (n_outputs, n_outputs)."""
        return self.refinement_.noise_covariance

    def _standard_errors(self) -> tuple[Matrix, Matrix]:
        return self.refinement_.standard_errors(self.stderr)

    @property
    def hidden_stderr_(self) -> Matrix:
        """Standard errors of W, shape (n_hidden, n_features)."""
        return self._standard_errors()[0][:, int(self.refinement_.fit_intercept) :]

    @property
    def output_stderr_(self) -> Matrix:
        """Standard errors of A, shape (n_outputs, n_hidden)."""
        return self._standard_errors()[1][:, : self.network_.n_hidden]

    @property
    def hidden_intercept_stderr_(self) -> Matrix:
        """Standard errors of b, shape (n_hidden,); only where there are intercepts."""
        self._check_intercept()
        return self._standard_errors()[0][:, 0]

    @property
    def output_intercept_stderr_(self) -> Matrix:
        """Standard errors of c, shape (n_outputs,); only where there are intercepts."""
        self._check_intercept()
        return self._standard_errors()[1][:, self.network_.n_hidden]

    def _check_intercept(self) -> None:
        if not self.refinement_.fit_intercept:
            raise AttributeError("no intercept was fitted: use fit_intercept=True.")

    @property
    def linear_stderr_(self) -> Matrix:
        """Standard errors of L, shape (n_outputs, n_features); only where it was fitted."""
        if not self.refinement_.linear:
            raise AttributeError("no linear part was fitted: use linear=True.")
        return self._standard_errors()[1][:, -self.network_.n_features :]

    @property
    def linear_weights_(self) -> Matrix:
        """L, shape (n_outputs, n_features)."""
        return self.network_.linear_weights

    @property
    def hidden_intercept_(self) -> Matrix:
        """Hidden biases b, shape (n_hidden,)."""
        return self.network_.hidden_intercept

    @property
    def output_intercept_(self) -> Matrix:
        """Output intercept c, shape (n_outputs,)."""
        return self.network_.output_intercept

    @property
    def hidden_weights_(self) -> Matrix:
        """W, shape (n_hidden, n_features)."""
        return self.network_.hidden_weights

    @property
    def output_weights_(self) -> Matrix:
        """A, shape (n_outputs, n_hidden)."""
        return self.network_.output_weights
