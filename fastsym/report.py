"""A page about a fitted network and its samples, in one file that opens without a network."""

import base64
import html
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastsym import __version__, plotting, spectral
from fastsym.archive import replacing
from fastsym.engine import Passes, accumulate, accumulate_residuals, spread_sample
from fastsym.engine.progress import Callback
from fastsym.metrics import match_neurons, parameter_error
from fastsym.network import TwoLayerNetwork
from fastsym.refine import Refinement, refine
from fastsym.sources import PairedRows, Source
from fastsym.spectral.diagnostics import MomentReport

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

_NO_MOMENTS = (
    "The method of moments knows of networks with at most as many hidden units as features and "
    "outputs, and without a linear part: nothing of this one."
)


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

    What is made of the method of moments is left out for networks that it knows nothing of: with a
    linear part, or more hidden units than features or outputs.

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
        Called with a `fastsym.engine.Event` after each block of a pass.

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
    with warnings.catch_warnings(record=True) as from_moments:
        warnings.simplefilter("always")
        spread, diagnostics = _what_moments_say(passes, network)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = _loss(passes, network)
        sample = spread_sample(passes, network.n_hidden)
        refinement = refine(
            passes, network, sample=sample, trusted=True, fit_intercept=network.has_intercepts,
            linear=network.has_linear_part, max_starts=1,
        )  # fmt: skip
    # What a refinement may have made up for.
    about_moments = [f"Of an estimate from moments alone: {each.message}" for each in from_moments]
    messages = list(dict.fromkeys([str(each.message) for each in caught] + about_moments))
    summary = {"Samples": f"{source.n_samples:,}"}
    summary |= _summary(network, spread, loss, refinement, diagnostics)
    if truth is not None:
        summary |= _errors(truth, network)
    noise = np.sqrt(np.maximum(np.diag(refinement.noise_covariance), 0))
    page = _page(
        title,
        summary,
        messages,
        "" if diagnostics is None else str(MomentReport(network, diagnostics)),
        _figures(network, truth, sample, refinement, diagnostics),
        {} if diagnostics is None else _diagnostics_table(diagnostics),
        noise,
    )
    with replacing(out) as file:
        file.write(page.encode())
    return Path(out)


def _what_moments_say(
    source: Passes, network: TwoLayerNetwork
) -> tuple[float, spectral.Diagnostics | None]:
    """Variance of all outputs, and diagnostics where the moments know of such networks."""
    k = network.n_hidden
    if 1 <= k <= min(network.n_features, network.n_outputs) and not network.has_linear_part:
        moments = accumulate(source, k, negative_slope=network.negative_slope).moments()
        variances = np.diag(moments.output_moment) - moments.output_mean**2
        return float(variances.sum()), spectral.solve(moments).diagnostics
    # The residual of a constant of zero is y.
    constant, zero = np.eye(1, 1 + network.n_features), np.zeros((network.n_outputs, 1))
    sums = accumulate_residuals(source, constant, zero, network.activation, n_free=0)
    means = sums.output_gradient / sums.weight
    return float(sums.loss / sums.weight - (means**2).sum()), None


def _errors(truth: TwoLayerNetwork, network: TwoLayerNetwork) -> dict[str, str]:
    """Say how far a network is from the true one."""
    error = parameter_error(truth, network)
    rows = {"Squared error of W, A": f"{error.hidden_error:.3g}, {error.output_error:.3g}"}
    if truth.has_intercepts or network.has_intercepts:
        rows = {"Squared error of (b, W), A": f"{error.hidden_error:.3g}, {error.output_error:.3g}"}
    if error.wrong_signs:
        rows["Units of the opposite sign"] = str(error.wrong_signs)
    if error.wrong_signs or any(one.affine_part.any() for one in (truth, network)):
        rows["Squared error of c + L x, relative"] = f"{error.linear_error:.3g}"
    return rows


def _summary(
    network: TwoLayerNetwork,
    spread: float,
    loss: float,
    refinement: Refinement,
    diagnostics: spectral.Diagnostics | None,
) -> dict[str, str]:
    """Say in a few lines how well the network fits."""
    parts = {
        "biases and a constant": network.has_intercepts,
        "a linear part": network.has_linear_part,
    }
    beside = ", ".join(part for part, there in parts.items() if there)
    rows = {
        "Features, hidden units, outputs": f"{network.n_features}, {network.n_hidden}, "
        f"{network.n_outputs}",
        **({"Beside the units": beside} if beside else {}),
        "Mean squared norm of the residual": f"{loss:.6g}",
        "R²": f"{1 - loss / spread:.6g}" if spread > 0 else "-",
        "A refinement from here": _gain(loss, refinement),
        "Lack of fit": f"p = {refinement.lack_of_fit.p_value:.2g} ({refinement.misfit:.1f} "
        "standard deviations)",
    }
    if diagnostics is not None:
        rows["Gap of the singular values"] = f"{diagnostics.gap:.4g}"
        rows["Symmetry of the inputs"] = f"p ≤ {diagnostics.symmetry.p_value:.2g}"
    return rows


def _figures(
    network: TwoLayerNetwork,
    truth: TwoLayerNetwork | None,
    sample: PairedRows,
    refinement: Refinement,
    diagnostics: spectral.Diagnostics | None,
) -> dict[str, str]:
    """Draw the figures, each as a data URI."""
    compared, what = (truth, "true") if truth is not None else (refinement.network, "refined")
    axes = {
        "Observed and predicted outputs": plotting.outputs(
            sample.Y[:], network.predict(sample.X[:]), sample_weight=sample.weights
        )
    }
    if diagnostics is not None and network.n_hidden > 1:  # one unit has no distinguishing matrix
        axes["Singular values with the gap"] = plotting.singular_values(diagnostics)
    axes |= {
        f"Weights against the {what} ones": plotting.weights(compared, network),
        "Loss by pass of a refinement": plotting.loss_by_pass(refinement),
    }
    if diagnostics is not None:
        axes["Symmetry of the inputs"] = plotting.symmetry(diagnostics.symmetry)
    return {text: _picture(ax) for text, ax in axes.items()}


def _gain(loss: float, refinement: Refinement) -> str:
    """Say how far the network is from the least-squares optimum."""
    if refinement.certificate == "exact" and loss <= 1e3 * refinement.loss:
        return "leaves nothing but rounding, as the model does"
    if refinement.loss >= loss:
        return "finds nothing better"
    return f"lowers it by {1 - refinement.loss / loss:.2g} of it, to {refinement.loss:.6g}"


def _loss(source: Passes, network: TwoLayerNetwork) -> float:
    """Mean squared norm of the residual."""
    residuals = accumulate_residuals(
        source, *network.augmented(), network.activation, n_free=network.n_hidden
    )
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
        + (
            f"<h2>What the moments say</h2><pre>{html.escape(text)}</pre>"
            f"<h2>Diagnostics</h2>{_table(diagnostics)}"
            if diagnostics
            else f"<h2>What the moments say</h2><p>{_NO_MOMENTS}</p>"
        )
        + f"<h2>Standard deviation of the residual</h2>{_table(by_output)}"
        f"<footer>fastsym {__version__}</footer></body></html>"
    )
