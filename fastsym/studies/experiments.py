"""The experiments of the paper, trial by trial, and what lies beyond them.

A trial is a random network, samples of it and the recipes that are to recover it; its result is a
row for each recipe with the errors of W, of A and of the outputs. `EXPERIMENTS` says which trials
an experiment has; `run` goes through them.

Errors of W and A are `fastsym.parameter_error`: summed squared distances of matched, normalised
weights. The output error is the mean over 10 000 fresh inputs and all outputs of the squared
difference to the noiseless outputs of the true network.
"""

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fastsym.algebra import Matrix
from fastsym.datasets import DISTRIBUTIONS, make_network, sample_blocks
from fastsym.metrics import parameter_error
from fastsym.studies.recipes import PEERS, RECIPES, recover
from fastsym.studies.tensor import n_tensor_trials as n_tensor_trials
from fastsym.studies.tensor import tensor_connection as tensor_connection

RECOVERED = 0.01
"""A recipe has recovered a network when its errors of W and A are at most this."""

TRIALS = 5
_TEST_ROWS = 10_000


@dataclass(frozen=True)
class Trial:
    """One network and its samples, and the recipes that are to recover it.

    Parameters
    ----------
    series : str
        Which line or panel of a figure it belongs to.
    x : float
        Its place on the horizontal axis.
    n_samples, n_features, n_hidden, n_outputs : int
    distribution : str
    noise : float
    hidden_condition, output_condition : float
    trial : int
        Seed of the network and the samples.
    recipes : tuple of str
    """

    series: str
    x: float
    n_samples: int
    n_features: int
    n_hidden: int
    n_outputs: int
    distribution: str = "gaussian"
    noise: float = 0.0
    hidden_condition: float = 1.0
    output_condition: float = 1.0
    trial: int = 0
    recipes: tuple[str, ...] = tuple(RECIPES)


def square(k: int, n: int, **how: Any) -> Trial:
    """Trial with d = k = m.

    Parameters
    ----------
    k, n : int
        Hidden units and samples.
    how : object
        Other fields of `Trial`.

    Returns
    -------
    trial : Trial
    """
    return Trial(n_samples=n, n_features=k, n_hidden=k, n_outputs=k, **how)


def repeated(points: Iterable[Trial], quick: bool) -> Iterator[Trial]:
    """Repeat each point for five seeds, or two.

    Parameters
    ----------
    points : iterable of Trial
    quick : bool

    Yields
    ------
    trial : Trial
    """
    for point in points:
        for trial in range(2 if quick else TRIALS):
            yield replace(point, trial=trial)


def sample_efficiency(quick: bool) -> list[Trial]:
    """Error against the number of samples at d = 10 and 32, and against d at 10 000 samples.

    Parameters
    ----------
    quick : bool
        Fewer points and trials.

    Returns
    -------
    trials : list of Trial
        Series "d=10", "d=32" and "dimension".

    References
    ----------
    Section 6 of the paper, sample efficiency.
    """
    small = [40, 60, 80, 120, 200, 400, 1000, 3000, 10_000, 30_000, 100_000]
    large = [140, 200, 400, 600, 1000, 3000, 10_000, 30_000, 100_000]
    sizes = [10, 14, 18, 22, 27, 32]
    if quick:
        small, large, sizes = [60, 120, 1000, 10_000], [600, 10_000], [10, 16, 24]
    points = [square(10, n, series="d=10", x=n) for n in small]
    points += [square(32, n, series="d=32", x=n) for n in large]
    points += [square(d, 10_000, series="dimension", x=d) for d in sizes]
    return list(repeated(points, quick))


def noise(quick: bool) -> list[Trial]:
    """Error against the standard deviation of the label noise, 10 000 samples.

    Parameters
    ----------
    quick : bool
        Fewer points and trials.

    Returns
    -------
    trials : list of Trial
        Series "gaussian" and "gaussian_mixture".

    References
    ----------
    Section 6 of the paper, robustness to noise.
    """
    levels = [0.01, 0.3, 1.0] if quick else [0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]
    points = [
        square(10, 10_000, series=name, x=level, distribution=name, noise=level)
        for name in ("gaussian", "gaussian_mixture")
        for level in levels
    ]
    return list(repeated(points, quick))


def conditioning(quick: bool) -> list[Trial]:
    """Error against the condition number of W and of A, mixture of Gaussians, 20 000 samples.

    Parameters
    ----------
    quick : bool
        Fewer points and trials.

    Returns
    -------
    trials : list of Trial
        Series "W" and "A".

    References
    ----------
    Section 6 of the paper, robustness to the condition number.
    """
    conditions = [1, 10, 100] if quick else [1, 2, 5, 10, 20, 50, 100]
    points = [
        square(
            10, 20_000, series=series, x=value, distribution="gaussian_mixture",
            hidden_condition=value if series == "W" else 1.0,
            output_condition=value if series == "A" else 1.0,
        )
        for series in ("W", "A")
        for value in conditions
    ]  # fmt: skip
    return list(repeated(points, quick))


def beyond(quick: bool) -> list[Trial]:
    """All seven distributions, d > k and m > k, with PyTorch's optimizers where it is installed.

    Parameters
    ----------
    quick : bool
        Fewer trials, without PyTorch.

    Returns
    -------
    trials : list of Trial
        A series for each problem.
    """
    points = [
        square(10, 10_000, series=name, x=i, distribution=name, noise=0.1)
        for i, name in enumerate(DISTRIBUTIONS)
    ]
    shapes = {"d=30, k=10, m=10": (30, 10, 10), "d=10, k=10, m=30": (10, 10, 30),
              "d=30, k=10, m=30": (30, 10, 30)}  # fmt: skip
    points += [
        Trial(name, 7 + i, 10_000, *sizes, noise=0.1)
        for i, (name, sizes) in enumerate(shapes.items())
    ]
    peers = tuple(PEERS) if importlib.util.find_spec("torch") and not quick else ()
    # PyTorch takes seconds a fit: two trials show where it ends.
    return [
        replace(trial, recipes=trial.recipes + peers) if trial.trial < 2 else trial
        for trial in repeated(points, quick)
    ]


EXPERIMENTS: dict[str, Callable[[bool], list[Trial]]] = {
    "sample-efficiency": sample_efficiency,
    "noise": noise,
    "conditioning": conditioning,
    "beyond": beyond,
}
"""Experiments by name; each is a function of `quick` that lists the trials."""


def run(
    trials: Iterable[Trial], callback: Callable[[int], object] | None = None
) -> list[dict[str, Any]]:
    """Run trials one after the other.

    Parameters
    ----------
    trials : iterable of Trial
    callback : callable, default=None
        Called with the number of trials done.

    Returns
    -------
    rows : list of dict
        One for each trial and recipe: the fields of the trial, "recipe", "hidden_error",
        "output_weight_error", "output_error", "seconds", and "failure", the error where a recipe
        could not be applied (too few samples), whose errors are then NaN.
    """
    rows = []
    for done, trial in enumerate(trials, 1):
        rows += run_trial(trial)
        if callback is not None:
            callback(done)
    return rows


def run_trial(trial: Trial) -> list[dict[str, Any]]:
    """Recover the network of a trial by each of its recipes.

    Parameters
    ----------
    trial : Trial

    Returns
    -------
    rows : list of dict
        As `run` returns them.
    """
    rng = np.random.default_rng([trial.trial, trial.n_features, trial.n_hidden, trial.n_outputs])
    truth = make_network(
        trial.n_features,
        trial.n_hidden,
        trial.n_outputs,
        hidden_condition=trial.hidden_condition,
        output_condition=trial.output_condition,
        random_state=rng,
    )

    def samples(n: int, level: float) -> tuple[Matrix, Matrix]:
        return next(
            sample_blocks(
                truth,
                n,
                block_rows=n,
                distribution=trial.distribution,
                noise=level,
                random_state=rng,
            )
        )

    X, Y = samples(trial.n_samples, trial.noise)
    X_test, Y_test = samples(_TEST_ROWS, 0.0)
    fields = asdict(trial)
    fields.pop("recipes")
    rows = []
    for recipe in trial.recipes:
        row: dict[str, Any] = fields | {"recipe": recipe, "failure": ""}
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # hard trials are the purpose of some
                network = recover(recipe, X, Y, trial.n_hidden, truth, trial.trial)
        except (ValueError, np.linalg.LinAlgError) as error:
            row |= {"failure": str(error), "seconds": time.perf_counter() - start}
            row |= dict.fromkeys(("hidden_error", "output_weight_error", "output_error"), np.nan)
        else:
            row["seconds"] = time.perf_counter() - start
            apart = parameter_error(truth, network, up_to_sign=False)
            row["hidden_error"], row["output_weight_error"] = apart[:2]
            row["output_error"] = float(((network.predict(X_test) - Y_test) ** 2).mean())
        rows.append(row)
    return rows


def recovered_from(rows: list[dict[str, Any]], recipe: str) -> float | None:
    """Smallest number of samples from which a recipe recovers the network in all trials.

    Parameters
    ----------
    rows : list of dict
        Of one series over the number of samples, as `run` returns them.
    recipe : str

    Returns
    -------
    n_samples : float or None
        Both errors are at most `RECOVERED` in all trials there and at all larger numbers; None if
        not even at the largest.
    """
    mine = [row for row in rows if row["recipe"] == recipe]
    found = None
    for x in sorted({row["x"] for row in mine}, reverse=True):
        at = [row for row in mine if row["x"] == x]
        # NaN fails the comparison.
        if not all(
            row["hidden_error"] <= RECOVERED and row["output_weight_error"] <= RECOVERED
            for row in at
        ):
            break
        found = x
    return found
