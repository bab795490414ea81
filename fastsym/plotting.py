"""Pictures of a fit. Each function draws into `ax`, or into new axes, and returns them.

matplotlib is imported when something is drawn (extra `plot`).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastsym._validation import as_rows, check_weights
from fastsym.algebra import unit_rows
from fastsym.metrics import match_neurons
from fastsym.network import TwoLayerNetwork
from fastsym.refine import Refinement
from fastsym.spectral import Diagnostics, SymmetryTest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which differ in brightness too.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666",
)  # fmt: skip

_POINTS = 2000  # of a scatter plot of samples, about
_RASTER = 5000  # points from which on a scatter plot is a bitmap


def new_axes(rows: int = 1, columns: int = 1, size: tuple[float, float] = (5.0, 3.6)) -> Any:
    """Make a figure without pyplot's global state.

    Parameters
    ----------
    rows, columns : int
        Of axes.
    size : tuple of float
        Width and height of each, in inches.

    Returns
    -------
    axes : Axes or ndarray of Axes
        An array if there are more than one.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message names the extra.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f'figures need matplotlib: pip install "fastsym[plot]" ({error}).'
        ) from None
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    return figure.subplots(rows, columns)


def singular_values(diagnostics: Diagnostics, ax: "Axes | None" = None) -> "Axes":
    """Singular values of the distinguishing matrix, the gap before the last n_hidden marked.

    The last one of all, zero by the projection, is below the edge of the picture.

    Parameters
    ----------
    diagnostics : fastsym.spectral.Diagnostics
    ax : matplotlib.axes.Axes, default=None
        None: new axes.

    Returns
    -------
    ax : matplotlib.axes.Axes
    """
    ax = new_axes() if ax is None else ax
    values, k = diagnostics.singular_values, diagnostics.n_hidden
    shown = np.maximum(values, 1e-300)
    index = np.arange(1, len(values) + 1)
    others = len(values) - k
    if others:
        ax.plot(index[:others], shown[:others], "o", color=BLUE, ms=4, label="others")
    ax.plot(index[others:], shown[others:], "s", color=RED, ms=4, label=f"pure neurons (last {k})")
    if (shown > 1e-300).any():
        ax.set_yscale("log")
    if k > 1 and shown[-2] > 1e-300:
        # The direction of the noise is projected out: the last one is zero but for rounding.
        ax.set_ylim(bottom=shown[-2] / 10)
    if others:
        edges = shown[others - 1], shown[others]
        ax.axhspan(*edges, color=ORANGE, alpha=0.25, lw=0, label=f"gap {diagnostics.gap:.3g}")
    ax.locator_params(axis="x", integer=True)
    ax.set(xlabel="number", ylabel="singular value", title="Distinguishing matrix")
    ax.legend(fontsize="small")
    return ax


def loss_by_pass(refinement: Refinement, ax: "Axes | None" = None) -> "Axes":
    """Loss and promised relative decrease of each evaluation of a refinement.

    Parameters
    ----------
    refinement : fastsym.refine.Refinement
        Evaluations are passes over all samples, or over those in memory if these are all.
    ax : matplotlib.axes.Axes, default=None
        None: new axes.

    Returns
    -------
    ax : matplotlib.axes.Axes
        The promised decrease has a second axis on the right.
    """
    ax = new_axes() if ax is None else ax
    history = refinement.history
    number = np.arange(1, len(history) + 1)
    accepted = np.array([one.accepted for one in history])
    losses = np.maximum([one.loss for one in history], 1e-300)
    ax.plot(number[accepted], losses[accepted], "o-", color=BLUE, label="loss")
    if not accepted.all():
        ax.plot(number[~accepted], losses[~accepted], "x", color=GREY, label="rejected")
    if losses.max() > 10 * losses.min():
        ax.set_yscale("log")
    ax.set_xticks(number if len(number) <= 12 else number[:: len(number) // 6])
    what = "pass over all samples" if refinement.n_passes else "evaluation on the samples"
    ax.set(xlabel=what, ylabel="mean squared norm of the residual", title="Refinement")
    promised = [max(one.decrement, 1e-300) for one in history]
    right = ax.twinx()
    right.plot(number, promised, "^:", color=ORANGE, ms=4, label="promised decrease")
    right.set_yscale("log")
    right.margins(y=0.3)
    right.set_ylabel("promised relative decrease")
    lines = [*ax.get_lines(), *right.get_lines()]
    ax.legend(lines, [str(line.get_label()) for line in lines], fontsize="small")
    return ax


def weights(truth: TwoLayerNetwork, estimate: TwoLayerNetwork, ax: "Axes | None" = None) -> "Axes":
    """Recovered against true weights, hidden units matched, rows of W and columns of A unit length.

    Rows are (b, w) if a network has biases. Units with a wrong sign, which the legend counts, are
    shown with the true one, and the linear part and the constant accordingly, over the largest true
    ones.

    Parameters
    ----------
    truth, estimate : TwoLayerNetwork
        Of the same shape.
    ax : matplotlib.axes.Axes, default=None
        None: new axes.

    Returns
    -------
    ax : matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    order, signs, error = match_neurons(truth, estimate)
    ax = new_axes() if ax is None else ax
    if error.wrong_signs:
        estimate = estimate.flipped(signs[np.argsort(order)])
    rows, affine = (
        [getattr(network, part) for network in (truth, estimate)]
        for part in ("hidden_rows", "affine_part")
    )
    biased = any(one[:, 0].any() for one in rows)
    hidden = [unit_rows(one if biased else one[:, 1:]) for one in (rows[0], rows[1][order])]
    columns = [unit_rows(one) for one in (truth.output_weights.T, estimate.output_weights.T[order])]
    signs_text = f", {error.wrong_signs} wrong signs" if error.wrong_signs else ""
    series = [
        ("(b, W)" if biased else "W", hidden, BLUE, "o", error.hidden_error, signs_text),
        ("A", columns, RED, "s", error.output_error, ""),
    ]
    if any(one.any() for one in affine):
        size = np.abs(affine[0]).max()
        parts = [one / (size if size > 0 else 1.0) for one in affine]
        series.append(("(c, L)", parts, GREEN, "^", error.linear_error, ""))
    for name, (true, found), color, marker, value, more in series:
        ax.plot(
            true.ravel(), found.ravel(), marker, color=color, ms=3, alpha=0.7,
            label=f"{name}, squared error {value:.2g}{more}", rasterized=true.size > _RASTER,
        )  # fmt: skip
    _diagonal(ax)
    ax.set(xlabel="true weight", ylabel="recovered weight", title="Weights after matching")
    ax.legend(fontsize="small")
    return ax


def outputs(
    Y_true: ArrayLike,
    Y_pred: ArrayLike,
    ax: "Axes | None" = None,
    *,
    sample_weight: ArrayLike | None = None,
) -> "Axes":
    """Observed against predicted outputs, about 2000 values of evenly spaced samples.

    Parameters
    ----------
    Y_true, Y_pred : array_like of shape (n_samples, n_outputs)
    ax : matplotlib.axes.Axes, default=None
        None: new axes.
    sample_weight : array_like of shape (n_samples,), default=None
        Counts in R²; None: all 1.

    Returns
    -------
    ax : matplotlib.axes.Axes
        R² of all values together, over the outputs' own means, is in the title.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    observed, predicted = as_rows("Y_true", Y_true), as_rows("Y_pred", Y_pred)
    if observed.shape != predicted.shape:
        raise ValueError(
            f"Y_true and Y_pred must have the same shape, got {observed.shape} and "
            f"{predicted.shape}."
        )
    ax = new_axes() if ax is None else ax
    n, m = observed.shape
    # All outputs of each sample that is shown.
    shown = np.linspace(0, n - 1, min(n, max(1, _POINTS // m))).astype(int)
    ax.plot(
        predicted[shown].ravel(), observed[shown].ravel(), ".", color=BLUE, ms=3, alpha=0.5,
        rasterized=len(shown) * m > _RASTER,
    )  # fmt: skip
    _diagonal(ax)
    weight = np.ones(n) if sample_weight is None else check_weights(sample_weight, n)
    mean = weight @ observed / weight.sum()
    spread = float((weight @ (observed - mean) ** 2).sum())
    r2 = 1 - float((weight @ (observed - predicted) ** 2).sum()) / spread if spread > 0 else np.nan
    ax.set(xlabel="predicted", ylabel="observed", title=f"Outputs, R² = {r2:.6g}")
    return ax


def symmetry(test: SymmetryTest, ax: "Axes | None" = None) -> "Axes":
    """Scores of the symmetry test by feature, with the bound that chance keeps to.

    Parameters
    ----------
    test : fastsym.spectral.SymmetryTest
    ax : matplotlib.axes.Axes, default=None
        None: new axes.

    Returns
    -------
    ax : matplotlib.axes.Axes
    """
    ax = new_axes() if ax is None else ax
    index = np.arange(len(test.mean_scores))
    ax.axhline(0, color=GREY, lw=0.8)
    ax.plot(index, test.mean_scores, "o", color=BLUE, ms=4, label="mean")
    ax.plot(index, test.third_scores, "s", color=RED, ms=4, label="third moment")
    # Where the p-value over all scores is 0.01.
    bound = float(np.sqrt(2 * np.log(4 * len(index) / 0.01)))
    for sign in (-1, 1):
        ax.axhline(
            sign * bound, color=ORANGE, ls="--", lw=1, label="p = 0.01" if sign > 0 else None
        )
    ax.locator_params(axis="x", integer=True)
    ax.set(
        xlabel="feature", ylabel="standard errors from 0",
        title=f"Symmetry of the inputs, p ≤ {test.p_value:.2g}",
    )  # fmt: skip
    ax.legend(fontsize="small")
    return ax


def _diagonal(ax: "Axes") -> None:
    ax.axline((0, 0), slope=1, color=GREY, lw=0.8, zorder=0)
