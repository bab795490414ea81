"""What the moments say about the assumptions of the method."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsym.moments import Moments
from fastsym.network import TwoLayerNetwork

if TYPE_CHECKING:
    from fastsym.spectral import Diagnostics

CLEAR_GAP = 3.0
"""Gap of the singular values that the advice on the number of samples aims at."""

NEAR = 15.0
"""Degrees below which two units count as nearly parallel."""

_UNRESOLVED = 1.5  # gap below which both of its sides are sampling error

_OBSERVATIONS = 10  # outputs for each weight


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
    means, thirds = np.zeros((2, len(squares)))
    # A feature that is always zero is symmetric.
    np.divide(np.sqrt(n) * moments.input_mean, np.sqrt(squares), out=means, where=squares > 0)
    np.divide(moments.third[0], np.sqrt(moments.third[1]), out=thirds, where=moments.third[1] > 0)
    largest = max(np.abs(means).max(), np.abs(thirds).max())
    p_value = min(1.0, 4 * len(means) * float(np.exp(-(largest**2) / 2)))
    return SymmetryTest(means, thirds, p_value)


class NearUnits(NamedTuple):
    """Two hidden units that are hard to tell apart; angles between the lines, in degrees."""

    first: int
    second: int
    hidden_angle: float
    output_angle: float


def near_units(network: TwoLayerNetwork, limit: float = NEAR) -> list[NearUnits]:
    """List the pairs of hidden units whose rows of W, or columns of A, are nearly parallel.

    Parameters
    ----------
    network : TwoLayerNetwork
    limit : float, default=15.0
        Degrees.

    Returns
    -------
    pairs : list of NearUnits
        Opposite counts as parallel. The closest rows of W come first.
    """

    def angles(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        units = rows / np.where(length > 0, length, 1)
        return np.degrees(np.arccos(np.minimum(np.abs(units @ units.T), 1.0)))

    hidden, output = angles(network.hidden_weights), angles(network.output_weights.T)
    # With one output all columns of A are parallel, which says nothing.
    close = hidden < limit
    if network.n_outputs > 1:
        close |= output < limit
    first, second = np.nonzero(np.triu(close, 1))
    pairs = [
        NearUnits(int(i), int(j), float(hidden[i, j]), float(output[i, j]))
        for i, j in zip(first, second, strict=True)
    ]
    return sorted(pairs, key=lambda pair: pair.hidden_angle)


def advised_samples(diagnostics: "Diagnostics", network: TwoLayerNetwork) -> tuple[int, int]:
    """Advise on the number of samples.

    Parameters
    ----------
    diagnostics : fastsym.spectral.Diagnostics
    network : TwoLayerNetwork
        Of these shapes.

    Returns
    -------
    for_moments : int
        Of the moments: the sampling error of the singular values falls with the root of the number
        of samples, so that the gap, now `diagnostics.gap`, becomes 3. No more than there are if it
        is that already. A lower bound where the gap is below 1.5: then both of its sides are
        sampling error, and how far apart they are in the population is not known.
    for_refinement : int
        Ten outputs for each weight, and more samples than features. Noiseless networks were
        recovered from 3 to 9 outputs for each weight on (docs/experiments.md,
        `benchmarks.refinement exact`); with noise it is the least to begin with, and standard
        errors say the rest.
    """
    n, gap = diagnostics.n_samples, diagnostics.gap
    for_moments = n if gap >= CLEAR_GAP else int(np.ceil(n * (CLEAR_GAP / max(gap, 1e-3)) ** 2))
    n_weights = network.n_hidden * (network.n_features + network.n_outputs - 1)
    for_refinement = -(-_OBSERVATIONS * n_weights // network.n_outputs)
    return for_moments, max(network.n_features + 1, for_refinement)


@dataclass(frozen=True, eq=False)
class Report:
    """What the moments say about a network and its assumptions; `print` it.

    Parameters
    ----------
    network : TwoLayerNetwork
    diagnostics : fastsym.spectral.Diagnostics
    """

    network: TwoLayerNetwork
    diagnostics: "Diagnostics"

    @property
    def robustness(self) -> float:
        """Smallest singular value of the augmented distinguishing matrix outside of its null space.

        The larger, the less samples are needed: the condition of the paper's robustness theorem,
        here for whitened x and y. Infinite for a single unit, which needs none.

        References
        ----------
        Ge, Kuditipudi, Li, Wang, ICLR 2019, section 4 (augmented distinguishing matrix).
        """
        k, values = self.diagnostics.n_hidden, self.diagnostics.singular_values
        return float(values[-k - 1]) if len(values) > k else float("inf")

    @property
    def sampling_error(self) -> float:
        """Largest singular value inside the null space, which is zero in the population."""
        return float(self.diagnostics.singular_values[-self.diagnostics.n_hidden])

    def __str__(self) -> str:
        d, network = self.diagnostics, self.network
        for_moments, for_refinement = advised_samples(d, network)
        near = near_units(network)
        lines = [
            f"{d.n_samples:,} samples, {network.n_features} features, {network.n_hidden} hidden "
            f"units, {network.n_outputs} outputs",
            "",
            "Inputs",
            f"  symmetry: {d.symmetry}"
            + ("; weights from moments alone are biased" if d.symmetry.p_value < 1e-4 else ""),
            "",
            "Hidden units",
            f"  canonical correlation {d.n_hidden} is {d.correlations[d.n_hidden - 1]:.3g}, chance "
            f"reaches {d.noise_floor:.3g}" + ("" if d.shown else ": not shown by the samples"),
        ]
        if np.isfinite(self.robustness):
            lines += [
                f"  smallest singular value of the distinguishing matrix {self.robustness:.3g}, "
                f"its sampling error {self.sampling_error:.3g}: gap {d.gap:.3g}",
                f"  residual of the joint diagonalization {d.residual:.2g} (up to 0.3 is usual)",
            ]
        lines += [
            f"  condition of W {d.condition_w:.3g}, of A {d.condition_a:.3g}",
            "",
            "Number of samples",
            "  moments alone: enough" if for_moments <= d.n_samples
            else f"  moments alone: {'more than' if d.gap < _UNRESOLVED else 'about'} "
            f"{for_moments:,} for a gap of {CLEAR_GAP:g}",
            "  refinement: enough" if for_refinement <= d.n_samples
            else f"  refinement: at least {for_refinement:,}",
            "",
            "Identifiability",
        ]  # fmt: skip
        lines += [
            f"  units {pair.first} and {pair.second}: rows of W {pair.hidden_angle:.1f} degrees "
            f"apart, columns of A {pair.output_angle:.1f}"
            for pair in near[:10]
        ] or [f"  no two units within {NEAR:g} degrees"]
        if len(near) > 10:
            lines.append(f"  and {len(near) - 10} more pairs")
        if d.doubt:
            lines += ["", f"Doubt: {d.doubt}"]
        return "\n".join(lines)
