"""A page about a fitted network and its samples, in one file that opens without a network."""

import base64
import html
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym import __version__, plotting, spectral
from fastsym._files import replacing
from fastsym.diagnostics import Report
from fastsym.engine import Passes, accumulate, accumulate_residuals
from fastsym.metrics import match_neurons, parameter_error
from fastsym.network import TwoLayerNetwork
from fastsym.progress import Callback
from fastsym.refine import Refinement, refine, spread_sample
from fastsym.sources import Source

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 1rem; color: #1a1a1a; background: #fff;
       font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 1.5rem 0 .5rem; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); }
figure { margin: 0; } img { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #ddd;
         vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; overflow-wrap: normal; }
pre { background: #f4f4f4; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere;
      font-size: .85rem; }
.warning { border-left: 4px solid #D55E00; padding: .3rem .8rem; margin: .5rem 0;
           background: #fdf1ea; overflow-wrap: anywhere; }
footer { color: #666; font-size: .85rem; margin-top: 2rem; }
@media (max-width: 480px) { .figures { grid-template-columns: 1fr; } body { font-size: 15px; } }
"""


def write_report(
    network: TwoLayerNetwork,
    source: Source,
    out: str | os.PathLike[str],
    *,
    truth: TwoLayerNetwork | None = None,
    title: str = "fastsym report",
    callback: Callback | None = None,
) -> Path:
    """Write a page on how well a network fits samples, and how well they determine it.

    The samples are read three times or more: for moments, for the residual of the network, and for
    a refinement that starts from it, which tells whether it is the least-squares optimum.

    Parameters
    ----------
    network : TwoLayerNetwork
    source : Source
    out : path
        HTML file.
    truth : TwoLayerNetwork, default=None
        The true network, if it is known; None: weights are compared with the refined ones.
    title : str
    callback : callable, default=None
        Called with a `fastsym.progress.Event` after each block of a pass.

    Returns
    -------
    path : pathlib.Path

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If the samples can be read only once.
    ValueError
        If the samples or the truth do not match the network, or the samples are too few or not
        finite.
    """
    plotting.new_axes()  # says that matplotlib is missing before the work
    sizes = source.n_features, source.n_outputs
    if sizes != (network.n_features, network.n_outputs):
        raise ValueError(
            f"the samples have {sizes[0]} features and {sizes[1]} outputs, the network has "
            f"{network.n_features} and {network.n_outputs}."
        )
    if truth is not None:
        match_neurons(truth, network)  # says that the shapes differ before the work
    passes = Passes(source, callback=callback)
    intercept = bool(network.hidden_intercept.any() or network.output_intercept.any())
    with warnings.catch_warnings(record=True) as from_moments:
        warnings.simplefilter("always")
        moments = accumulate(
            passes, network.n_hidden, negative_slope=network.negative_slope
        ).moments()
        diagnostics = spectral.solve(moments).diagnostics
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = _loss(passes, network)
        sample = spread_sample(passes, network.n_hidden)
        refinement = refine(
            passes, network, sample=sample, trusted=True, fit_intercept=intercept, max_starts=1
        )
    # What a refinement may have made up for.
    about_moments = [f"Of an estimate from moments alone: {each.message}" for each in from_moments]
    messages = list(dict.fromkeys([str(each.message) for each in caught] + about_moments))
    centred = np.diag(moments.output_moment) - moments.output_mean**2
    X, Y = sample.X[:], sample.Y[:]
    summary = {
        "Samples": f"{source.n_samples:,}",
        "Features, hidden units, outputs": f"{network.n_features}, {network.n_hidden}, "
        f"{network.n_outputs}",
        "Mean squared norm of the residual": f"{loss:.6g}",
        "R²": f"{1 - loss / centred.sum():.6g}" if centred.sum() > 0 else "-",
        "A refinement from here": _gain(loss, refinement),
        "Lack of fit": f"{refinement.misfit:.1f} standard deviations (chance: up to 4)",
        "Gap of the singular values": f"{diagnostics.gap:.4g}",
        "Symmetry of the inputs": f"p ≤ {diagnostics.symmetry.p_value:.2g}",
    }
    if truth is not None:
        error = parameter_error(truth, network)
        summary["Squared error of W, A"] = f"{error.hidden_error:.3g}, {error.output_error:.3g}"
    compared, what = (truth, "true") if truth is not None else (refinement.network, "refined")
    figures: dict[str, Callable[[], Any]] = {
        "Observed and predicted outputs": lambda: plotting.outputs(
            Y, network.predict(X), sample_weight=sample.weights
        ),
        "Singular values with the gap": lambda: plotting.singular_values(diagnostics),
        f"Weights against the {what} ones": lambda: plotting.weights(compared, network),
        "Loss by pass of a refinement": lambda: plotting.loss_by_pass(refinement),
        "Symmetry of the inputs": lambda: plotting.symmetry(diagnostics.symmetry),
    }
    if network.n_hidden == 1:
        figures.pop("Singular values with the gap")  # one unit has no distinguishing matrix
    noise = np.sqrt(np.maximum(np.diag(refinement.noise_covariance), 0))
    page = _page(
        title,
        summary,
        messages,
        str(Report(network, diagnostics)),
        {text: _picture(draw()) for text, draw in figures.items()},
        _diagnostics_table(diagnostics),
        noise,
    )
    with replacing(out) as file:
        file.write(page.encode())
    return Path(out)


def _gain(loss: float, refinement: Refinement) -> str:
    """Say how far the network is from the least-squares optimum."""
    if refinement.certificate == "exact" and loss <= 1e3 * refinement.loss:
        return "leaves nothing but rounding, as the model does"
    if refinement.loss >= loss:
        return "finds nothing better"
    return f"lowers it by {1 - refinement.loss / loss:.2g} of it, to {refinement.loss:.6g}"


def _loss(source: Passes, network: TwoLayerNetwork) -> float:
    """Mean squared norm of the residual; an output intercept is a unit that is always 1."""
    k, d = network.n_hidden, network.n_features
    hidden = np.zeros((k + 1, 1 + d))
    hidden[:k, 0], hidden[:k, 1:] = network.hidden_intercept, network.hidden_weights
    hidden[k, 0] = 1
    outputs = np.concatenate([network.output_weights, network.output_intercept[:, None]], axis=1)
    residuals = accumulate_residuals(source, hidden, outputs, network.negative_slope)
    return residuals.loss / residuals.weight


def _picture(ax: Any) -> str:
    """Draw the figure of `ax` as a data URI."""
    buffer = io.BytesIO()
    ax.figure.savefig(buffer, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _diagnostics_table(diagnostics: spectral.Diagnostics) -> dict[str, str]:
    """Every figure of the diagnostics, as text."""
    values = {}
    for name in diagnostics.__dataclass_fields__:
        value = getattr(diagnostics, name)
        if isinstance(value, np.ndarray):
            # Around what matters: the gap before the last n_hidden, or the correlation n_hidden.
            k = diagnostics.n_hidden
            middle = len(value) - k if name == "singular_values" else k
            first = max(0, min(middle - 12, len(value) - 24))
            shown = ", ".join(f"{v:.3g}" for v in value[first : first + 24])
            whole = len(value) <= 24
            values[name] = (
                shown if whole else f"numbers {first + 1} to {first + 24} of {len(value)}: {shown}"
            )
        else:
            values[name] = f"{value:.6g}" if isinstance(value, float) else str(value)
    return values


def _table(rows: dict[str, str]) -> str:
    cells = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return f"<div class=wide><table>{cells}</table></div>"


def _page(
    title: str,
    summary: dict[str, str],
    messages: list[str],
    text: str,
    figures: dict[str, str],
    diagnostics: dict[str, str],
    noise: NDArray[np.float64],
) -> str:
    warned = "".join(f"<p class=warning>{html.escape(each)}</p>" for each in messages)
    pictures = "".join(
        f'<figure><img alt="{html.escape(name)}" src="{uri}"></figure>'
        for name, uri in figures.items()
    )
    by_output = {f"output {i}": f"{value:.4g}" for i, value in enumerate(noise[:50])}
    if len(noise) > 50:
        by_output["and"] = f"{len(noise) - 50} more"
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{warned}{_table(summary)}"
        f"<h2>Figures</h2><div class=figures>{pictures}</div>"
        f"<h2>What the moments say</h2><pre>{html.escape(text)}</pre>"
        f"<h2>Diagnostics</h2>{_table(diagnostics)}"
        f"<h2>Standard deviation of the residual</h2>{_table(by_output)}"
        f"<footer>fastsym {__version__}</footer></body></html>"
    )
