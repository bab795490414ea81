"""Why the lowest of several optima is held for the global one, or why not."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastsym.metrics import parameter_error
from fastsym.refine.checks import flaws
from fastsym.refine.lack_of_fit import UNTESTED, LackOfFit, lack_of_fit
from fastsym.refine.minimisation import Fit, lowest_loss
from fastsym.refine.normal import DenseNormal
from fastsym.refine.problem import Problem

SEVERAL = 4
"""Starts that are tried at least, where the first is in doubt."""

AMPLE = 0.1
"""Weights for each observation up to which samples are ample."""

NOTICEABLE = 0.05
"""p-value of the lack of fit below which an optimum is in doubt, though the fit need not be."""

_RESOLUTION = 0.1  # of the loss that the weights explain by chance: optima as close count as one
_RELATIVE = 1e-3  # the same, relative to the loss
_DETERMINED = 1e-12  # condition of the normal matrix: below it is singular but for rounding
_FIRMLY = 1e-3  # the same: equations that determine a network beyond doubt
_TRUSTED = 1e-6  # the same, where the moments found it too
_NOTHING = 1e-24  # share of the sum of squares that rounding alone leaves of a unit
_SAME = 1e-6  # squared error of two networks that are one
_POWER = 1.0  # resolutions of excess loss that the lack of fit must notice to certify by itself
_SHARE, _MANY = 0.4, 10  # of the starts must agree in doubt, and so many are tried
_AGREEING = ((1e-3, 2), (AMPLE, 3))  # starts that must agree, by weights for each observation
_CONCENTRATED = 0.05  # of the rows that hold a loss: few of them say nothing of the others


class Verdict(NamedTuple):
    """Why the lowest of some optima is believed.

    Parameters
    ----------
    certificate : str
        As in `Refinement`.
    lack_of_fit : LackOfFit
        Of the lowest.
    reason : str
        Why nothing is certified; empty if something is.
    final : bool
        Whether further starts will not change it.
    """

    certificate: str
    lack_of_fit: LackOfFit
    reason: str = ""
    final: bool = True


def resolution(problem: Problem) -> float:
    """Excess loss, relative to the loss, up to which two optima count as one.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    resolution : float
        A tenth of what the weights explain by chance, but a thousandth at least.
    """
    return max(_RELATIVE, _RESOLUTION * problem.unit)


def agreeing(problem: Problem, fits: Sequence[Fit], lowest: Fit) -> int:
    """Count the fits that ended at the loss of the lowest.

    Parameters
    ----------
    problem : Problem
    fits : sequence of Fit
    lowest : Fit

    Returns
    -------
    n_agreeing : int
    """
    loss = lowest.residuals.loss
    bound = loss * (1 + resolution(problem))
    return sum(bool(one.residuals.loss <= bound) for one in fits)


def judge_exact(problem: Problem, fits: Sequence[Fit], trusted: bool) -> Verdict:
    """Judge optima of which only rounding is left.

    An exact fit is the network that made the samples only where the equations determine it: more
    observations than weights, a tangent space of full dimension, and, unless both are ample, a
    second start that ends at the same network.

    Parameters
    ----------
    problem : Problem
    fits : sequence of Fit
        The lowest is exact.
    trusted : bool
        Whether it came from a trusted start.

    Returns
    -------
    verdict : Verdict
    """
    best = lowest_loss(fits)
    condition = 0.0
    if problem.unit < 1:
        condition = _condition(problem, best)
    if not condition > _DETERMINED:
        return Verdict(
            "none",
            UNTESTED,
            "the network fits the samples exactly, but they do not determine it: "
            f"{problem.n_parameters} weights, {problem.sample.n_samples} samples of "
            f"{problem.n_outputs} outputs, condition of the normal matrix {condition:.1g}",
        )
    k = problem.coordinates.n_free
    squares = (best.point.outputs[:, :k] ** 2).sum(axis=0) * problem.sample.weight
    if (squares <= _NOTHING * problem.total).any():
        dead = np.flatnonzero(squares <= _NOTHING * problem.total).tolist()
        return Verdict(
            "none",
            UNTESTED,
            f"the network fits the samples exactly without the hidden units {dead}: their weights "
            "are any",
        )
    others = [one for one in fits if one.exact and one is not best]
    enough = 1 if problem.unit <= AMPLE else 2
    network = problem.network(best.point)
    for other in others:
        apart = parameter_error(network, problem.network(other.point))
        # Beside a free linear part signs are no part of the network.
        error = sum(apart._replace(wrong_signs=0) if problem.linear else apart)
        if not error < _SAME:
            return Verdict(
                "none",
                UNTESTED,
                "several networks fit the samples exactly (squared difference of their weights "
                f"{error:.2g}): the samples are too few to tell them apart",
            )
    firm = condition > (_TRUSTED if trusted else _FIRMLY)
    if len(others) >= enough or (problem.unit <= AMPLE and firm):
        return Verdict("exact", UNTESTED)
    return Verdict(
        "none",
        UNTESTED,
        f"the network fits the samples exactly, but {len(others)} other starts found it, of "
        f"{enough} that are needed for {1 / problem.unit:.1f} observations a weight and a normal "
        f"matrix of condition {condition:.1g}",
        final=False,
    )


def _condition(problem: Problem, fit: Fit) -> float:
    """Condition of the normal matrix; where none is formed, one that is neither poor nor firm."""
    try:
        normal = problem.normal(fit.point)
    except np.linalg.LinAlgError:
        return 0.0
    return normal.condition if isinstance(normal, DenseNormal) else _TRUSTED


def judge_trusted(problem: Problem, fit: Fit) -> Verdict:
    """Judge the optimum that a trusted start led to, the lowest so far.

    Parameters
    ----------
    problem : Problem
    fit : Fit

    Returns
    -------
    verdict : Verdict
        Not final unless it is certified.
    """
    doubt = Verdict("none", UNTESTED, final=False)
    if not fit.converged or problem.unit > AMPLE or flaws(problem, fit.point):
        return doubt
    lack = lack_of_fit(problem, fit.point, fit.normal)
    return Verdict("spectral", lack) if lack.p_value > NOTICEABLE else doubt


def judge(
    problem: Problem, fits: Sequence[Fit], lowest: Fit, lack: LackOfFit, n_starts: int
) -> Verdict:
    """Judge the lowest of the optima of several starts.

    Parameters
    ----------
    problem : Problem
    fits : sequence of Fit
        Of starts that are independent of each other.
    lowest : Fit
        The lowest of them, or one next to it.
    lack : LackOfFit
        There.
    n_starts : int
        Starts that there will be at most.

    Returns
    -------
    verdict : Verdict
    """
    agree = agreeing(problem, fits, lowest)
    if problem.unit >= 1 or (
        problem.unit > AMPLE and not _condition(problem, lowest) > _DETERMINED
    ):
        reason = (
            f"the samples do not determine the weights: {problem.n_parameters} of these, "
            f"{problem.sample.n_effective:.6g} samples of {problem.n_outputs} outputs"
        )
        return Verdict("none", lack, reason, final=False)
    needed = next((number for unit, number in _AGREEING if problem.unit <= unit), 0)
    # Where samples are few, the model is wrong, or a few rows decide, there are many valleys.
    if not needed or lack.p_value <= NOTICEABLE or _is_concentrated(problem, lowest):
        needed = max(SEVERAL, int(np.ceil(_SHARE * max(len(fits), min(_MANY, n_starts)))))
        enough = len(fits) >= min(_MANY, n_starts)
    else:
        enough = True
    # Of large biases the starts know nothing, and all may end in one wrong valley.
    hopeless = problem.fit_intercept and lack.significant
    if enough and agree >= needed and not hopeless:
        return Verdict("agreement", lack)
    noticed = lack.p_value > NOTICEABLE and lack.detectable <= _POWER * resolution(problem)
    if len(fits) >= min(SEVERAL, n_starts) and noticed and problem.unit <= AMPLE:
        return Verdict("no lack of fit", lack)
    reason = (
        f"of {len(fits)} starts {agree} ended at the lowest loss, {needed} are needed for "
        f"{1 / problem.unit:.1f} observations a weight and "
        + (
            "a lack of fit that cannot be tested"
            if lack == UNTESTED
            else f"a lack of fit with p = {lack.p_value:.2g}"
        )
        + (", with which no number is enough where there are intercepts" if hopeless else "")
    )
    return Verdict("none", lack, reason, final=False)


def _is_concentrated(problem: Problem, fit: Fit) -> bool:
    """Whether few rows hold the loss: their effective number is (sum r^2)^2 / sum r^4."""
    inputs, targets = problem.sample.inputs, problem.sample.targets
    t = inputs @ problem.coordinates.weights(fit.point).T
    h = problem.activation.of_units(t, problem.coordinates.n_free)
    squares = ((targets - h @ fit.point.outputs.T) ** 2).sum(axis=1)
    largest = squares.max()
    if not 0 < largest < np.inf:
        return True
    squares /= largest
    return bool(squares.sum() ** 2 < _CONCENTRATED * len(squares) * (squares @ squares))
