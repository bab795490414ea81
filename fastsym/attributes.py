"""What a fit found, as attributes under scikit-learn's names."""

from fastsym import spectral
from fastsym.algebra import Matrix
from fastsym.fitting import Fitted
from fastsym.network import TwoLayerNetwork
from fastsym.refine import Refinement
from fastsym.refine.counting import Count


class FittedAttributes:
    """Attributes that end in an underscore, all of them views of what `_found` returns."""

    fit_intercept: bool
    stderr: str

    def _found(self) -> Fitted:
        raise NotImplementedError

    @property
    def network_(self) -> TwoLayerNetwork:
        """The fitted network."""
        return self._found().network

    @property
    def diagnostics_(self) -> spectral.Diagnostics:
        """How well the moments determine the network."""
        solution = self._found().solution
        if solution is None:
            raise AttributeError("no diagnostics: the moments showed fewer than n_hidden units.")
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
        return self._standard_errors()[0][:, int(self.fit_intercept) :]

    @property
    def output_stderr_(self) -> Matrix:
        """Standard errors of A, shape (n_outputs, n_hidden)."""
        return self._standard_errors()[1][:, : self.network_.n_hidden]

    @property
    def hidden_intercept_stderr_(self) -> Matrix:
        """Standard errors of b, shape (n_hidden,); only with fit_intercept."""
        if not self.fit_intercept:
            raise AttributeError("there is no intercept: fit_intercept is False.")
        return self._standard_errors()[0][:, 0]

    @property
    def output_intercept_stderr_(self) -> Matrix:
        """Standard errors of c, shape (n_outputs,); only with fit_intercept."""
        if not self.fit_intercept:
            raise AttributeError("there is no intercept: fit_intercept is False.")
        return self._standard_errors()[1][:, -1]

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
