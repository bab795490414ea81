"""The method, once, from samples that can be read again; `fastsym.one_pass` is for streams.

`fit` reads top to bottom as the method: a sample spread over the source is held in memory; its
moments give a start by linear algebra; Levenberg-Marquardt on the sample, and then a few passes
over all samples, bring it to the least-squares optimum.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fastsym import spectral
from fastsym._validation import (
    check_alpha,
    check_choice,
    check_n_hidden,
    check_negative_slope,
)
from fastsym.engine import (
    Checkpoint,
    Passes,
    accumulate,
    accumulate_direct,
    accumulate_linear,
    pilot_frame,
    spread_sample,
)
from fastsym.engine.gather import pilot_rows
from fastsym.engine.progress import Callback
from fastsym.exceptions import SpectralGapWarning, warn
from fastsym.network import TwoLayerNetwork
from fastsym.refine import Refinement, Start, moment_start, refine
from fastsym.refine.counting import Count, counted_network, describes, solved_for
from fastsym.refine.forms import PLAIN, Choice, Form
from fastsym.refine.standard_errors import check_kind
from fastsym.refine.starts import solve_or_warn, spectral_start
from fastsym.sources import PairedRows, Source
from fastsym.sums.frame import Frame
from fastsym.sums.threads import one_blas_thread
from fastsym.sums.values import Moments

# From this many hidden units on, two passes with k^4 / 4 operations a sample are quicker than one
# with 5 k^4 / 12; below, reading and staging twice costs more than it saves.
_TWO_PASSES = 20


@dataclass(frozen=True)
class Specification:
    """What is fitted and how; the parameters of `fastsym.TwoLayerRegressor`, which has their texts.

    Raises
    ------
    ValueError
        If the slope is not from 0 to below 1, stderr is no kind of standard errors, fit_intercept
        or linear is no choice, or they are asked of moments alone.
    """

    n_hidden: Any = "auto"
    refine: bool = True
    fit_intercept: Choice = "auto"
    linear: Choice = "auto"
    alpha: Any = "auto"
    negative_slope: float = 0.0
    compute_dtype: str = "float64"
    n_jobs: int | None = None
    random_state: Any = None
    verbose: int = 0
    stderr: str = "robust"

    def __post_init__(self) -> None:
        check_negative_slope(self.negative_slope)
        check_kind(self.stderr)
        for name in ("fit_intercept", "linear"):
            object.__setattr__(self, name, check_choice(name, getattr(self, name)))
        check_alpha(self.alpha)
        if self.decayed and (self.linear is False or not self.refine):
            raise ValueError(
                "alpha above 0 needs refine=True and a linear part, of which linear=False has none."
            )
        for name in ("fit_intercept", "linear"):
            if getattr(self, name) is True and not self.refine:
                raise ValueError(
                    f"{name}=True needs refine=True: the method of moments knows nothing of it."
                )

    @property
    def decayed(self) -> bool:
        """Whether weights are to be held small."""
        return self.alpha != "auto" and self.alpha > 0

    @property
    def form(self) -> Form:
        """Parts of the model beside the units."""
        return Form(self.fit_intercept, self.linear)


class Fitted(NamedTuple):
    """What a fit found: the spectral solution, None if the moments show fewer than n_hidden units.

    refinement is None for moments alone. n_hidden_path holds the numbers of hidden units tried; it
    is empty unless n_hidden="auto" and the samples can be read again.
    """

    solution: spectral.SpectralSolution | None
    refinement: Refinement | None
    n_hidden_path: tuple[Count, ...] = ()

    @property
    def network(self) -> TwoLayerNetwork:
        """The network of the refinement, or of the moments alone."""
        found = self.solution if self.refinement is None else self.refinement
        assert found is not None
        return found.network


@one_blas_thread()
def fit(source: Passes, specification: Specification) -> Fitted:
    """Fit a network to samples that can be read again.

    Parameters
    ----------
    source : Passes
    specification : Specification

    Returns
    -------
    fitted : Fitted

    Raises
    ------
    ValueError
        As by `fastsym.TwoLayerRegressor.fit`.
    """
    how = specification
    if not how.refine:
        return fit_moments(moments_of(source, how), how)
    k = check_n_hidden(how.n_hidden)
    if k is None:
        return _fit_counted(source, how)
    sample = spread_sample(source, k)
    if how.decayed or not how.form.moments_know(k, source.n_features, source.n_outputs):
        return _refined(source, sample, None, None, how)
    start, solution = _spectral_start(sample, how, None)
    return _refined(source, sample, start, solution, how)


def _fit_counted(source: Passes, specification: Specification) -> Fitted:
    """Fit a number of units that the samples show.

    The moments' guess comes first; where its network does not describe the samples, units are
    counted beside a free linear part.
    """
    frame: Frame | None = pilot_frame(source, negative_slope=specification.negative_slope)
    assert frame is not None
    k = frame.n_hidden
    how = replace(specification, n_hidden=k)
    sample = spread_sample(source, k)
    whole = sample.n_samples >= source.n_samples
    if not how.decayed and how.form.moments_know(k, source.n_features, source.n_outputs):
        if not sample.n_samples == source.n_samples <= pilot_rows(source):
            frame = None  # the pilot is not the sample, which has a frame of its own
        start, solution = _spectral_start(sample, how, frame)
        same: dict[str, Any] = {"n_jobs": how.n_jobs, "whole": whole}
        if how.form == PLAIN or describes(sample, start, **same):
            network, path = counted_network(sample, start, **same)
            how, start = replace(how, n_hidden=network.n_hidden), start._replace(network=network)
            if network.n_hidden != k:
                solution = solved_for(lambda: moments_of(sample, how), how.random_state)
                trusted = solution is not None and spectral_start(solution).trusted
                start = Start("counted", network, trusted)
            return _refined(source, sample, start, solution, how)._replace(n_hidden_path=path)
    fitted = _refined(source, sample, None, None, replace(how, n_hidden="auto"))
    assert fitted.refinement is not None
    return fitted._replace(n_hidden_path=fitted.refinement.n_hidden_path)


def _spectral_start(
    sample: PairedRows, specification: Specification, frame: Frame | None
) -> tuple[Start, spectral.SpectralSolution | None]:
    """Start from the moments of a sample, or from its linear part where they do not do."""
    how = specification
    solution = solve_or_warn(lambda: moments_of(sample, how, frame), how.random_state)
    if solution is not None:
        return spectral_start(_said(solution, how)), solution
    slope, seed = how.negative_slope, how.random_state
    network = moment_start(sample, how.n_hidden, negative_slope=slope, random_state=seed)
    return Start("linear part", network), None


def fit_moments(moments: Moments, specification: Specification) -> Fitted:
    """Fit a network to moments alone.

    Parameters
    ----------
    moments : Moments
    specification : Specification
        Of which only random_state and verbose count.

    Returns
    -------
    fitted : Fitted
        Without a refinement.
    """
    solution = spectral.solve(moments, random_state=specification.random_state)
    return Fitted(_said(solution, specification), None)


def refine_again(source: Passes, before: Fitted, specification: Specification) -> Fitted:
    """Bring a fit to the least-squares optimum of samples that can be read again.

    Parameters
    ----------
    source : Passes
    before : Fitted
        Where to start.
    specification : Specification

    Returns
    -------
    fitted : Fitted
    """
    if not before.network.n_hidden:  # a regression, which is no start
        return fit(source, replace(specification, n_hidden="auto"))
    solution = before.solution
    start = Start("fit before", before.network)
    if solution is not None:
        start = spectral_start(solution)
        start = start._replace(name="fit before", network=before.network)
    how = replace(specification, n_hidden=before.network.n_hidden)
    sample = spread_sample(source, before.network.n_hidden)
    return _refined(source, sample, start, solution, how)


def _refined(
    source: Passes,
    sample: PairedRows,
    start: Start | None,
    solution: spectral.SpectralSolution | None,
    specification: Specification,
) -> Fitted:
    """Refine from a start, and, if nothing certifies it, from the moments of all samples.

    Without a start the units are searched for beside a free linear part.
    """
    how = specification
    settings: dict[str, Any] = {
        "sample": sample,
        "fit_intercept": how.fit_intercept,
        "linear": how.linear,
        "alpha": how.alpha,
        "n_jobs": how.n_jobs,
        "random_state": how.random_state,
        "verbose": how.verbose,
    }
    if start is None:
        slope = how.negative_slope
        return Fitted(None, refine(source, how.n_hidden, negative_slope=slope, **settings))
    starts = _Starts(source, sample, start, solution, how)
    refinement = refine(source, starts, **settings)
    refinement = replace(refinement, n_passes=refinement.n_passes + starts.n_passes)
    return doubted(Fitted(starts.solution, refinement))


class _Starts:
    """The start of a fit, then, if it is asked for, that of all samples; counts its passes."""

    def __init__(
        self,
        source: Passes,
        sample: PairedRows,
        start: Start,
        solution: spectral.SpectralSolution | None,
        specification: Specification,
    ) -> None:
        self._source, self._sample, self._start = source, sample, start
        self._how, self.solution, self.n_passes = specification, solution, 0

    def __iter__(self) -> Iterator[Start]:
        yield self._start
        network, (d, m) = self._start.network, (self._source.n_features, self._source.n_outputs)
        k = network.n_hidden if isinstance(network, TwoLayerNetwork) else 0
        whole = self._sample.n_samples >= self._source.n_samples
        if whole or not self._how.form.moments_know(k, d, m):
            return
        # What a sample does not show all samples may.
        self.n_passes += 1
        how = self._how
        found = solve_or_warn(lambda: moments_of(self._source, how), how.random_state)
        self.solution = found or self.solution
        if self.solution is not None:
            network = self.solution.network
            yield self._start._replace(name="spectral, of all samples", network=network)


def moments_of(
    source: Source,
    specification: Specification,
    frame: Frame | None = None,
) -> Moments:
    """Moments of all rows of a source, in one pass or two.

    Parameters
    ----------
    source : Source
    specification : Specification
    frame : Frame, default=None
        None: estimated from rows spread over the source.

    Returns
    -------
    moments : Moments
    """
    slope = specification.negative_slope
    if frame is None:
        frame = pilot_frame(source, specification.n_hidden, negative_slope=slope)
    how: dict[str, Any] = {
        "compute_dtype": specification.compute_dtype,
        "n_jobs": specification.n_jobs,
    }
    if frame.n_hidden < _TWO_PASSES or slope or frame.even_radius:
        return accumulate(source, frame=frame, negative_slope=slope, **how).result()
    linear = accumulate_linear(source, frame, **how)
    white = spectral.whiten(linear)
    return accumulate_direct(source, linear, white.input_map, white.output_map, **how)


def settings_of(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return what of an estimator's parameters the result depends on, for checkpoints.

    Parameters
    ----------
    parameters : mapping of str to object

    Returns
    -------
    settings : dict of str to str
        Those that older checkpoints do not know are left out where they are as they were then.
    """
    settings = {
        n: str(v) for n, v in parameters.items() if n not in ("n_jobs", "verbose", "stderr")
    }
    if not parameters["refine"]:  # moments know nothing of these
        settings |= {name: "False" for name in ("fit_intercept", "linear") if name in settings}
    if settings.get("linear") == "False":
        del settings["linear"]
    if settings.get("alpha") in ("auto", "0.0", "0") and parameters["n_hidden"] != "auto":
        del settings["alpha"]
    return settings


def passes_of(
    source: Source,
    settings: Mapping[str, str],
    *,
    client: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: float = 60.0,
    callback: Callback | None = None,
) -> Passes:
    """Say how a source is read: here or on a cluster, with a checkpoint or without.

    Parameters
    ----------
    source : Source
    settings : mapping of str to str
        Of the fit: a checkpoint with others is refused.
    client : dask.distributed.Client, default=None
        None: read here.
    checkpoint : path, default=None
    every : float, default=60.0
        Seconds between writes of the checkpoint within a pass.
    callback : callable, default=None
        Called with a `fastsym.engine.Event` after each block.

    Returns
    -------
    passes : Passes

    Raises
    ------
    TypeError, ValueError
        As by `Checkpoint` and `fastsym.engine.cluster.ClusterPasses`.
    """
    saved = None
    if checkpoint is not None:
        # The order of the sums, and a cluster's checkpoints are between passes only.
        where = {"client": "none" if client is None else "a cluster"}
        saved = Checkpoint(checkpoint, source, dict(settings) | where, every)
    if client is None:
        return Passes(source, callback=callback, checkpoint=saved)
    from fastsym.engine.cluster import ClusterPasses

    return ClusterPasses(source, client, callback=callback, checkpoint=saved)


def _said(
    solution: spectral.SpectralSolution, specification: Specification
) -> spectral.SpectralSolution:
    """Print the diagnostics of a solution, if that is wanted."""
    if specification.verbose:
        d = solution.diagnostics
        print(
            f"fastsym: {d.n_samples} samples, n_hidden={solution.network.n_hidden}, "
            f"gap {d.gap:.3g}, residual {d.residual:.2g}, condition of W {d.condition_w:.3g}, "
            f"of A {d.condition_a:.3g}"
        )
    return solution


def doubted(fitted: Fitted) -> Fitted:
    """Say what the spectral start lacks, where the refinement does not make up for it.

    Parameters
    ----------
    fitted : Fitted

    Returns
    -------
    fitted : Fitted
        The same.

    Warns
    -----
    AsymmetricInputWarning, SpectralGapWarning
        If so.
    """
    solution, refinement = fitted.solution, fitted.refinement
    if solution is not None and refinement is not None:
        diagnostics = solution.diagnostics
        if not refinement.converged:
            spectral.warn_of_asymmetry(diagnostics.symmetry)
        if diagnostics.doubt and not (refinement.converged and diagnostics.shown):
            warn(diagnostics.doubt, SpectralGapWarning)
    return fitted
