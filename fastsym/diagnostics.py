"""What the moments say about the assumptions of the method."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym.moments import Moments


class SymmetryTest(NamedTuple):
    """Result of `symmetry_test`.

    mean_scores and third_scores have shape (n_features,); p_value bounds the chance of a score as
    large as the largest one if the inputs are symmetric.
    """

    mean_scores: NDArray[np.float64]
    third_scores: NDArray[np.float64]
    p_value: float

    def __str__(self) -> str:
        scores = np.abs(np.stack([self.mean_scores, self.third_scores]))
        moment, feature = np.unravel_index(scores.argmax(), scores.shape)
        return (
            f"the {('mean', 'third moment')[moment]} of feature {feature} is "
            f"{scores[moment, feature]:.1f} standard errors from 0 (p <= {self.p_value:.1g})"
        )


def symmetry_test(moments: Moments) -> SymmetryTest:
    """Test whether x and -x are equally likely, from the mean and third moment of each feature.

    Parameters
    ----------
    moments : Moments

    Returns
    -------
    test : SymmetryTest
        Scores are self-normalised sums, sum x_i / sqrt(sum x_i^2) and the same of x_i^3, about
        standard normal for symmetric inputs.

    Notes
    -----
    For symmetric inputs the signs are independent of the sizes, so a score exceeds s with
    probability at most 2 exp(-s^2 / 2) whatever the distribution and the number of samples
    (Hoeffding's inequality given the sizes, doi:10.1080/01621459.1963.10500830); the p-value is
    this bound over all 2 n_features scores. The test sees the marginals only: inputs that are
    symmetric feature by feature but not together pass it.
    """
    n = moments.n_samples
    squares = np.diag(moments.input_moment)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.sqrt(n) * moments.input_mean / np.sqrt(squares)
        thirds = moments.third[0] / np.sqrt(moments.third[1])
    # A feature that is always zero is symmetric.
    means, thirds = np.nan_to_num(means), np.nan_to_num(thirds)
    largest = max(np.abs(means).max(), np.abs(thirds).max())
    p_value = min(1.0, 4 * len(means) * float(np.exp(-(largest**2) / 2)))
    return SymmetryTest(means, thirds, p_value)
