"""Whether the network that made the samples changes from the first of them to the last."""

from typing import NamedTuple

import numpy as np

from fastsym.algebra import Matrix
from fastsym.refine.coordinates import Point, Step
from fastsym.refine.minimisation import Fit
from fastsym.refine.normal import Normal
from fastsym.refine.problem import Problem

_SEGMENTS = 16
_SPLITS = (4, 8, 12)  # segments before a change that is looked for
_LIMIT, _DEVIATIONS = 1.5, 6.0


class Change(NamedTuple):
    """A change of the network within the samples of a problem.

    Parameters
    ----------
    row : int
        Of the problem's sample: the change is about there, to a quarter of the rows.
    promised : float
        Relative decrease of the loss by a fit to the rows before and one to those after it, as far
        as the linearised problem tells.
    ratio : float
        The same over what chance gives.
    losses : (float, float)
        Mean loss at the common fit of the rows before it, and of those after it.
    """

    row: int
    promised: float
    ratio: float
    losses: tuple[float, float]


def row_residuals(problem: Problem, point: Point) -> Matrix:
    """Return sqrt(weight) times the residual of each sample.

    Parameters
    ----------
    problem : Problem
    point : Point

    Returns
    -------
    residuals : ndarray of shape (n_samples, n_outputs)
    """
    t = problem.sample.inputs @ problem.coordinates.weights(point).T
    return (
        problem.sample.targets
        - problem.activation.of_units(t, problem.coordinates.n_free) @ point.outputs.T
    )


def change_of(problem: Problem, fit: Fit) -> Change | None:
    """Look for a change of the network in samples that are in the order of their time.

    Where nothing changes, the gradients of the loss at the optimum of all samples have no part of
    segments of the samples that is not chance, whatever the inputs and the noise of each segment.
    The sum over the first share p of the segments has then a quadratic form, in the inverse normal
    matrix, of about (1 - p)^2 V1 + p^2 V2, with V1 and V2 those of the two parts by chance, taken
    from the differences of neighbouring segments (von Neumann's ratio, for the sums of a CUSUM
    test).

    Parameters
    ----------
    problem : Problem
    fit : Fit
        Its optimum.

    Returns
    -------
    change : Change or None
        The clearest of three places; None if chance explains all of them, or there is no normal
        matrix.

    References
    ----------
    Nyblom (1989), doi:10.1080/01621459.1989.10478759; von Neumann (1941),
    doi:10.1214/aoms/1177731677.
    """
    n, loss = problem.sample.n_samples, fit.residuals.loss
    if fit.normal is None or n < _SEGMENTS * problem.n_parameters / problem.n_outputs or not loss:
        return None
    hidden, outputs, losses = _segment_gradients(problem, fit.point)
    hidden, outputs = hidden - hidden.mean(axis=0), outputs - outputs.mean(axis=0)
    try:
        by_chance = _forms(fit.normal, np.diff(hidden, axis=0), np.diff(outputs, axis=0)) / 2
        sums = [np.cumsum(each, axis=0)[np.array(_SPLITS) - 1] for each in (hidden, outputs)]
        forms = _forms(fit.normal, *sums)
    except np.linalg.LinAlgError:
        return None
    limit = _LIMIT + _DEVIATIONS * np.sqrt(2 / problem.n_parameters)
    found = None
    for split, form in zip(_SPLITS, forms, strict=True):
        share = split / _SEGMENTS
        before, after = by_chance[: split - 1].mean(), by_chance[split:].mean()
        chance = _SEGMENTS * share * (1 - share) * ((1 - share) * before + share * after)
        ratio = form / chance if chance > 0 else 0.0
        if ratio > max(limit, found.ratio if found else 0.0):
            parts = losses[:split].sum(axis=0), losses[split:].sum(axis=0)
            promised = min(form / (share * (1 - share)) / loss, 1.0)
            means = float(parts[0][0] / parts[0][1]), float(parts[1][0] / parts[1][1])
            found = Change(split * n // _SEGMENTS, float(promised), float(ratio), means)
    return found


def _segment_gradients(problem: Problem, point: Point) -> tuple[Matrix, Matrix, Matrix]:
    """Gradients of segments in white coordinates, and their (loss, weight)."""
    sample, coordinates, k = problem.sample, problem.coordinates, problem.coordinates.n_free
    weights = coordinates.weights(point)
    hidden, outputs, losses = [], [], []
    for b in range(_SEGMENTS):
        part = slice(b * sample.n_samples // _SEGMENTS, (b + 1) * sample.n_samples // _SEGMENTS)
        inputs = sample.inputs[part]
        t = inputs @ weights.T
        units = problem.activation.of_units(t, k)
        residual = sample.targets[part] - units @ point.outputs.T
        back = problem.activation.derivative(t[:, :k]) * (residual @ point.outputs[:, :k])
        hidden.append(back.T @ inputs @ coordinates.to_inputs)
        outputs.append(residual.T @ units)
        losses.append(((residual**2).sum(), (inputs[:, 0] ** 2).sum()))
    return np.array(hidden), np.array(outputs), np.array(losses)


def _forms(normal: Normal, hidden: Matrix, outputs: Matrix) -> Matrix:
    """g^T N^-1 g of each gradient."""
    steps: list[Step] = [normal.solve(*one, 0.0) for one in zip(hidden, outputs, strict=True)]
    return np.array([step.predicted for step in steps])
