"""Samples of unknown origin: how many units, and which form, or what predicts best."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastsym.refine.beside_linear import search_beside_linear
from fastsym.refine.certificates import NOTICEABLE, Verdict
from fastsym.refine.decoding import Found
from fastsym.refine.forms import Form, GivenSearch, search_forms
from fastsym.refine.lack_of_fit import UNTESTED, lack_of_fit
from fastsym.refine.minimisation import Fit
from fastsym.refine.prediction import Predicted, held_small, predictive
from fastsym.refine.problem import Problem
from fastsym.refine.search import Say, SearchResult, silent
from fastsym.refine.trials import Count


class Unknown(NamedTuple):
    """What was found, and how well it predicts.

    Parameters
    ----------
    found : Found
    predicted : Predicted
    path : tuple of Count
        Numbers of hidden units tried beside a linear part.
    """

    found: Found
    predicted: Predicted
    path: tuple[Count, ...]


def search_unknown(
    problem_of: Callable[[bool], Problem],
    form: Form,
    given_search: GivenSearch,
    *,
    decay: bool = True,
    random_state: Any = None,
    say: Say = silent,
) -> Unknown:
    """Find the number of units, and the optimum; or the network that predicts best.

    Units join beside a free linear part while they explain more than noise, or with weight decay
    while other samples are predicted better. Where the first describe the samples, the optimum is
    searched for in the smallest form, as for a number of units that is given.

    Parameters
    ----------
    problem_of, form, given_search, random_state, say
        As for `fastsym.refine.forms.search_forms`; n_hidden is any.
    decay : bool, default=True
        Whether weights may be held small.

    Returns
    -------
    unknown : Unknown
    """
    problem = problem_of(form.intercept is not False).with_linear()
    fixed = form.linear is False  # a linear part is not wanted: units stand for it
    # Decay is for networks with a linear part.
    predicted = predictive(problem, random_state, say, decay=decay and not fixed)
    path = _path(problem, predicted)
    k = max(predicted.n_hidden, int(fixed))
    if predicted.decay is not None:
        return Unknown(_decayed(predicted, _why(predicted)), predicted, path)
    if k == 0:
        fit = predicted.problem.fit(predicted.point)
        lack = lack_of_fit(predicted.problem, fit.point)
        verdict = Verdict("exact" if fit.exact else "linear", lack)
        found = Found(predicted.problem, SearchResult([fit], verdict, [fit]))
        return Unknown(found, predicted, path)
    problem, start = predicted.problem, predicted.point
    beside = None
    if not fixed:
        beside = Found(problem, _confirmed(problem, problem.fit(start), random_state, say))
        if not beside.result.certified:
            return Unknown(beside, predicted, path)
    found = search_forms(
        lambda intercept: problem_of(intercept).resized(k),
        [],
        form,
        given_search,
        beside=beside,
        random_state=random_state,
        say=say,
    )
    return Unknown(found, predicted, path)


def _confirmed(problem: Problem, fit: Fit, random_state: Any, say: Say) -> SearchResult:
    """Look whether the units found describe the samples, and another search finds them too."""
    lack = UNTESTED if fit.exact else lack_of_fit(problem, fit.point, fit.normal)
    if lack.p_value <= NOTICEABLE:
        reason = (
            f"the residual depends on x (p = {lack.p_value:.2g}): the "
            f"{problem.coordinates.n_free} units are those that predict, and no network of so "
            "many made the samples"
        )
        return SearchResult([fit], Verdict("none", lack, reason), [fit])
    return search_beside_linear(problem, random_state, say, given=[fit], max_runs=2)


def held_small_as_asked(
    problem_of: Callable[[bool], Problem],
    form: Form,
    alpha: float,
    *,
    most: int | None = None,
    random_state: Any = None,
) -> Unknown:
    """Fit with a weight decay that is given.

    Parameters
    ----------
    problem_of, form, random_state
        As for `search_unknown`. A linear part is always there, with a ridge of its own.
    alpha : float
        In the user's unit of Y.
    most : int, default=None
        Units at most.

    Returns
    -------
    unknown : Unknown
    """
    problem = problem_of(form.intercept is not False).with_linear()
    predicted = held_small(problem, alpha / output_unit(problem), most, random_state)
    reason = f"its weights are held small, with alpha={alpha:.4g} as given"
    return Unknown(_decayed(predicted, reason), predicted, ())


def output_unit(problem: Problem) -> float:
    """Size, in the user's unit of Y, of what is 1 in the problem's.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    size : float
    """
    return 1.0 if problem.units is None else float(np.ldexp(1.0, int(problem.units.outputs.max())))


def _path(problem: Problem, predicted: Predicted) -> tuple[Count, ...]:
    if predicted.grown is None:
        return ()
    losses = predicted.grown.path
    unit = problem.user_loss(predicted.grown.fit.residuals) / problem.sample.weight
    loss = predicted.grown.fit.residuals.loss
    scale = unit / loss if loss > 0 else 1 / problem.sample.weight
    return tuple(Count(k, loss * scale, float("nan")) for k, loss in losses)


def _decayed(predicted: Predicted, reason: str) -> Found:
    """Take a network with weight decay as it is: it is no optimum of the loss."""
    problem, point = predicted.problem, predicted.point
    residuals = problem.residuals(point)
    lack = lack_of_fit(problem, point)
    fit = Fit(point, residuals, None, True, False, [])
    return Found(problem, SearchResult([fit], Verdict("none", lack, reason), [fit]))


def _why(predicted: Predicted) -> str:
    if not predicted.n_hidden:
        return (
            "no hidden unit predicts other samples better than a ridge regression "
            f"(R2 {predicted.held_out:.4g})"
        )
    return (
        f"its weights are held small, with alpha {predicted.share:.3g} sigma sqrt(n), as other "
        f"samples are predicted best so (R2 {predicted.held_out:.4g})"
    )
