"""Figures, tables and points of the experiments, as files."""

import csv
import io
import json
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastsym import __version__
from fastsym.archive import replacing
from fastsym.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, new_axes
from fastsym.studies.experiments import EXPERIMENTS, RECIPES, recovered_from, run
from fastsym.studies.tensor import n_tensor_trials, tensor_connection

NAMES = (*EXPERIMENTS, "tensor-connection")
"""Experiments by name."""


class _Style(NamedTuple):
    label: str
    color: str
    marker: str


_STYLES = {
    "pair": _Style("paper's text: one random pair", ORANGE, "v"),
    "als": _Style("paper's practice: CP-ALS, then W by gradient", PURPLE, "D"),
    "spectral": _Style("fastsym, moments alone", SKY, "^"),
    "refined": _Style("fastsym, refined", BLUE, "o"),
    "truth": _Style("optimum from the truth", RED, "+"),
    "adam": _Style("PyTorch Adam", GREEN, "s"),
    "lbfgs": _Style("PyTorch L-BFGS", GREY, "x"),
}
_ERRORS = {
    "hidden_error": "squared error of W",
    "output_weight_error": "squared error of A",
    "output_error": "mean squared output error",
}
_FLOOR = 1e-32  # zero, on a logarithmic axis

Table = list[dict[str, Any]]


def n_steps(name: str, quick: bool) -> int:
    """Count the steps of an experiment that `reproduce` tells of.

    Parameters
    ----------
    name : str
    quick : bool

    Returns
    -------
    n_steps : int
    """
    if name == "tensor-connection":
        return n_tensor_trials(quick)
    return len(EXPERIMENTS[name](quick))


def reproduce(
    name: str, out: Path, quick: bool = False, callback: Callable[[int], object] | None = None
) -> list[Path]:
    """Run an experiment and write its figure (PNG), its points (CSV) and both with settings (JSON).

    Parameters
    ----------
    name : str
        One of `NAMES`.
    out : path
        Folder, created if it is missing.
    quick : bool, default=False
        Fewer points and trials.
    callback : callable, default=None
        Called with the number of steps done, see `n_steps`.

    Returns
    -------
    paths : list of Path
        PNG, CSV, JSON.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is no such experiment.
    """
    if name not in NAMES:
        raise ValueError(f"experiment must be one of {', '.join(NAMES)}, got {name!r}.")
    new_axes()  # says that matplotlib is missing before the work
    out.mkdir(parents=True, exist_ok=True)
    if name == "tensor-connection":
        rows = tensor_connection(quick, callback)
        axes = _tensor_figure(rows)
    else:
        rows = run(EXPERIMENTS[name](quick), callback)
        axes = {"beyond": _beyond_figure}.get(name, lambda r: _lines_figure(name, r))(rows)
    paths = [out / f"{name}.{ending}" for ending in ("png", "csv", "json")]
    with replacing(paths[0]) as file:
        np.ravel(axes)[0].figure.savefig(file, format="png", dpi=130)
    _write_csv(paths[1], rows)
    _write_json(paths[2], name, quick, rows)
    return paths


def _write_csv(path: Path, rows: Table) -> None:
    with replacing(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        text.flush()
        text.detach()


def _write_json(path: Path, name: str, quick: bool, rows: Table) -> None:
    # JSON has no NaN.
    clean = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in rows
    ]
    content = {
        "experiment": name,
        "quick": quick,
        "fastsym": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "recovered": {
            series: {
                recipe: recovered_from([r for r in rows if r["series"] == series], recipe)
                for recipe in RECIPES
            }
            for series in sorted({row["series"] for row in rows if "=" in str(row["series"])})
        }
        if name == "sample-efficiency"
        else None,
        "points": clean,
    }
    with replacing(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def _draw(
    ax: Any, rows: Table, error: str, value: Callable[[float, dict[str, Any]], float]
) -> None:
    """Draw the median over the trials, and their range as a band, for each recipe."""
    for recipe, (label, color, marker) in _STYLES.items():
        mine = [row for row in rows if row["recipe"] == recipe]
        if not mine:
            continue
        xs = sorted({row["x"] for row in mine})
        low, middle, high = [], [], []
        for x in xs:
            values = [value(row[error], row) for row in mine if row["x"] == x]
            values = [max(v, _FLOOR) for v in values if np.isfinite(v)] or [np.nan]
            low.append(np.min(values))
            middle.append(np.median(values))
            high.append(np.max(values))
        above = {"truth": 3}.get(recipe, 2)
        ax.plot(
            xs, middle, marker=marker, color=color, ms=5, lw=1.3, label=label, zorder=above,
            ls="--" if recipe == "truth" else "-", mfc="none" if recipe == "refined" else color,
        )  # fmt: skip
        ax.fill_between(xs, low, high, color=color, alpha=0.12, lw=0)


def _lines_figure(name: str, rows: Table) -> Any:
    """Draw a row of panels for each series, a column for each error."""
    series = list(dict.fromkeys(row["series"] for row in rows))
    axes = np.reshape(new_axes(len(series), 3, (4.6, 3.3)), (len(series), 3))
    for line, key in zip(axes, series, strict=True):
        mine = [row for row in rows if row["series"] == key]
        by_dimension = key == "dimension"
        for ax, (error, label) in zip(line, _ERRORS.items(), strict=True):

            def value(v: float, row: dict[str, Any], root: bool = by_dimension) -> float:
                return float(np.sqrt(v)) / row["n_features"] if root else v

            # Refined errors are rounding: beside them the others' slopes could not be seen.
            left_out = ("refined", "truth") if by_dimension else ()
            _draw(ax, [row for row in mine if row["recipe"] not in left_out], error, value)
            ax.set_yscale("log")
            if by_dimension:
                ax.set(xlabel="d = k = m, 10 000 samples", ylabel=f"√({label}) / d")
            else:
                ax.set_xscale("log")
                ax.set(xlabel=_X_LABELS[name].format(series=key), ylabel=label)
            ax.set_title(_TITLES[name].format(series=key) if not by_dimension else "against d")
            ax.grid(alpha=0.25, lw=0.5)
        if name == "sample-efficiency" and not by_dimension:
            _mark_recovered(line, mine)
    _legend(axes)
    return axes


_X_LABELS = {
    "sample-efficiency": "samples",
    "noise": "standard deviation of the noise",
    "conditioning": "condition number of {series}",
}
_TITLES = {
    "sample-efficiency": "{series}, noiseless",
    "noise": "{series}, d = 10, 10 000 samples",
    "conditioning": "condition of {series}, mixture, 20 000 samples",
}


def _mark_recovered(line: Any, rows: Table) -> None:
    """Mark where each recipe begins to recover the network in all trials."""
    for recipe, (_, color, _) in _STYLES.items():
        n = recovered_from(rows, recipe)
        if n is None or recipe == "truth" or n == min(row["x"] for row in rows):
            continue  # at the smallest number that was tried nothing begins
        for ax in line:
            ax.axvline(n, color=color, ls=":", lw=1.2)
        line[0].annotate(
            f"{n:,.0f}", (n, 0.5), xycoords=("data", "axes fraction"), rotation=90, color=color,
            fontsize=8, ha="left", va="center", xytext=(2, 0), textcoords="offset points",
        )  # fmt: skip


def _beyond_figure(rows: Table) -> Any:
    """Draw the problems side by side."""
    axes = new_axes(3, 1, (10.0, 3.0))
    names = dict.fromkeys((row["x"], row["series"]) for row in rows)
    recipes = [recipe for recipe in _STYLES if any(row["recipe"] == recipe for row in rows)]
    for ax, (error, y_label) in zip(axes, _ERRORS.items(), strict=True):
        for i, recipe in enumerate(recipes):
            label, color, marker = _STYLES[recipe]
            mine = [row for row in rows if row["recipe"] == recipe]
            shift = (i - (len(recipes) - 1) / 2) * 0.11
            ax.plot(
                [row["x"] + shift for row in mine], [max(row[error], _FLOOR) for row in mine],
                marker, color=color, ms=5, ls="none", label=label,
                mfc="none" if recipe == "refined" else color,
            )  # fmt: skip
        ax.set_yscale("log")
        ax.set_xticks(
            [x for x, _ in names],
            [name.replace(", m", ",\nm").replace("_mixture", "\nmixture") for _, name in names],
            fontsize=8,
        )
        ax.set_ylabel(y_label)
        ax.grid(alpha=0.25, lw=0.5)
    axes[0].set_title("noise 0.1, 10 000 samples, d = k = m = 10 where not said")
    _legend(axes)
    return axes


def _tensor_figure(rows: Table) -> Any:
    """Draw learned over trivial error against r / d^(3/2)."""
    axes = new_axes(1, 2, (5.2, 3.8))
    for d, color, marker in zip(
        sorted({row["d"] for row in rows}), (SKY, BLUE), "^o", strict=False
    ):
        mine = [row for row in rows if row["d"] == d]
        counts = sorted({row["r"] for row in mine})
        for ax, key in zip(axes, ("ratio", "weight_error"), strict=True):
            values = [[row[key] for row in mine if row["r"] == r] for r in counts]
            xs = np.array(counts) / d**1.5
            ax.plot(
                xs, [np.median(v) for v in values], marker=marker, color=color, label=f"d = {d}"
            )
            low, high = [min(v) for v in values], [max(v) for v in values]
            ax.fill_between(xs, low, high, color=color, alpha=0.15, lw=0)
            ax.axvline(d**-0.5, color=color, ls=":", lw=1.2)
            ax.axvline(d**0.5, color=color, ls=":", lw=1.2)
    for ax in axes:
        ax.axvline(1, color=GREY, ls="--", lw=1)
        ax.set(xscale="log", yscale="log", xlabel="units r / d^(3/2) (dotted: r = d and r = d^2)")
        ax.grid(alpha=0.25, lw=0.5)
    axes[0].axhline(1, color=RED, lw=1, label="trivial predictor, E[y]")
    axes[0].set(ylabel="squared error over the trivial predictor's", title="Prediction")
    axes[1].set(ylabel="squared distance to the nearest unit", title="Weights")
    axes[0].legend(fontsize="small")
    return axes


def _legend(axes: Any) -> None:
    figure = np.ravel(axes)[0].figure
    handles, labels = np.ravel(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4),
                  fontsize=9, frameon=False)  # fmt: skip
