"""What the moments say about the assumptions of the method."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastsym.algebra import Matrix, absolute_cosines
from fastsym.network import TwoLayerNetwork
from fastsym.sums.values import Moments

GAP_WARNING = 1.5
"""A gap below this warns; without any separation it is close to 1."""

RESIDUAL_WARNING = 0.3
"""A residual above this warns; its square is about ten times the squared error of a neuron."""

ASYMMETRY_WARNING = 1e-4
"""A p-value of the symmetry test below this warns."""

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

    mean_scores: Matrix
    third_scores: Matrix
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
        standard normal for symmetric inputs. With weights, x_i is times its weight; of the means,
        as if weights had nothing to do with x.

    Notes
    -----
    For symmetric inputs the signs are independent of the sizes, so a score exceeds s with
    probability at most 2 exp(-s^2 / 2) whatever the distribution and the number of samples
    (Hoeffding's inequality given the sizes, doi:10.1080/01621459.1963.10500830); the p-value is
    this bound over all 2 n_features scores. The test sees the marginals only: inputs that are
    symmetric feature by feature but not together pass it.
    """
    n = moments.n_samples if moments.n_effective is None else moments.n_effective
    squares = np.diag(moments.input_moment)
    means, thirds = np.zeros((2, len(squares)))
    # A feature that is always zero is symmetric.
    np.divide(np.sqrt(n) * moments.input_mean, np.sqrt(squares), out=means, where=squares > 0)
    np.divide(moments.third[0], np.sqrt(moments.third[1]), out=thirds, where=moments.third[1] > 0)
    largest = max(np.abs(means).max(), np.abs(thirds).max())
    p_value = min(1.0, 4 * len(means) * float(np.exp(-(largest**2) / 2)))
    return SymmetryTest(means, thirds, p_value)


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """How well the moments determine the network.

    Parameters
    ----------
    method : str
        The joint diagonalization used.
    n_samples : int
    n_pilot : int
        Samples of the pilot, from which the correlations are.
    n_hidden : int
    singular_values : ndarray of shape (n_pairs,)
        Of the distinguishing matrix, descending. The last n_hidden belong to the pure neurons and
        are zero in the population.
    gap : float
        singular_values[-n_hidden - 1] / singular_values[-n_hidden]: the larger, the better;
        infinite when there is nothing to separate (n_hidden = 1) or the last ones are exactly zero.
    residual : float
        Off-diagonal share that the joint diagonalization leaves, a root mean square relative to
        the diagonal; 0 when the matrices share their diagonalizer.
    condition_z, condition_w, condition_a : float
        Condition numbers of the detectors Z (whitened coordinates, unit columns), of W (unit rows)
        and of A (for unit rows of W).
    correlations : ndarray of shape (min(n_features, n_outputs),) at most
        Canonical correlations of x and y in the pilot.
    noise_floor : float
        Value that a canonical correlation reaches by chance in the pilot.
    symmetry : SymmetryTest
    """

    method: str
    n_samples: int
    n_pilot: int
    n_hidden: int
    singular_values: Matrix
    gap: float
    residual: float
    condition_z: float
    condition_w: float
    condition_a: float
    correlations: Matrix
    noise_floor: float
    symmetry: SymmetryTest

    @property
    def shown(self) -> bool:
        """Whether the pilot shows n_hidden canonical correlations above the noise floor."""
        return bool(self.correlations[self.n_hidden - 1] >= self.noise_floor)

    @property
    def clear(self) -> bool:
        """Whether gap, residual and correlations tell the units apart."""
        return self.shown and self.gap >= GAP_WARNING and self.residual <= RESIDUAL_WARNING

    @property
    def doubt(self) -> str:
        """What speaks against the weights, with its figure; empty if nothing does."""
        k = self.n_hidden
        if not self.shown:
            return (
                f"no gap in the cross-covariance: canonical correlation {k} of x and y is "
                f"{self.correlations[k - 1]:.2g}, below the noise floor of {self.noise_floor:.2g} "
                f"at {self.n_pilot} pilot samples, so the samples do not show n_hidden={k} units"
            )
        if self.gap < GAP_WARNING:
            return (
                "no spectral gap: the smallest singular value outside the null space is only "
                f"{self.gap:.2f} times the largest one inside, so the {k} neurons are not well "
                "separated; more samples, or better conditioned weights, are needed"
            )
        if self.residual > RESIDUAL_WARNING:
            return (
                f"the joint diagonalization leaves a residual of {self.residual:.2f} (at most "
                f"{RESIDUAL_WARNING} is usual), so the {k} neurons are blurred: the samples are "
                "too few or too noisy for these weights, or the network is nearly not identifiable"
            )
        return ""


class NearUnits(NamedTuple):
    """Two hidden units that are hard to tell apart; angles between the lines, in degrees."""

    first: int
    second: int
    hidden_angle: float
    output_angle: float


def near_units(network: TwoLayerNetwork, limit: float = NEAR) -> list[NearUnits]:
    """List the pairs of hidden units whose rows of W, or columns of A, are nearly parallel.

    Rows are (b, w) if there are biases: units with parallel w bend in different places then.

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
    hidden, output = (
        np.degrees(np.arccos(absolute_cosines(rows)))
        for rows in (
            network.hidden_rows if network.hidden_intercept.any() else network.hidden_weights,
            network.output_weights.T,
        )
    )
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


def advised_samples(diagnostics: Diagnostics, network: TwoLayerNetwork) -> tuple[int, int]:
    """Advise on the number of samples.

    Parameters
    ----------
    diagnostics : Diagnostics
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
        `benchmarks.tables.refinement exact`); with noise it is the least to begin with, and
        standard errors say the rest.
    """
    n, gap = diagnostics.n_samples, diagnostics.gap
    for_moments = n if gap >= CLEAR_GAP else int(np.ceil(n * (CLEAR_GAP / max(gap, 1e-3)) ** 2))
    n_weights = network.n_hidden * (network.n_features + network.n_outputs - 1)
    for_refinement = -(-_OBSERVATIONS * n_weights // network.n_outputs)
    return for_moments, max(network.n_features + 1, for_refinement)


@dataclass(frozen=True, eq=False)
class MomentReport:
    """What the moments say about a network and its assumptions; `print` it.

    Parameters
    ----------
    network : TwoLayerNetwork
    diagnostics : Diagnostics
    """

    network: TwoLayerNetwork
    diagnostics: Diagnostics

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
        biased = d.symmetry.p_value < ASYMMETRY_WARNING
        lines = [
            f"{d.n_samples:,} samples, {network.n_features} features, {network.n_hidden} hidden "
            f"units, {network.n_outputs} outputs",
            "",
            "Inputs",
            f"  symmetry: {d.symmetry}"
            + ("; weights from moments alone are biased" if biased else ""),
            "",
            "Hidden units",
            f"  canonical correlation {d.n_hidden} is {d.correlations[d.n_hidden - 1]:.3g}, chance "
            f"reaches {d.noise_floor:.3g}" + ("" if d.shown else ": not shown by the samples"),
        ]
        if np.isfinite(self.robustness):
            lines += [
                f"  smallest singular value of the distinguishing matrix {self.robustness:.3g}, "
                f"its sampling error {self.sampling_error:.3g}: gap {d.gap:.3g}",
                f"  residual of the joint diagonalization {d.residual:.2g} (up to "
                f"{RESIDUAL_WARNING:g} is usual)",
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


Report = MomentReport
"""The name under which `fastsym.diagnostics` has it for users."""
