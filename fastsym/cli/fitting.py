"""Commands on files of samples and models: fit, predict, report."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from fastsym.cli.options import (
    BlockOption,
    CheckpointOption,
    DtypeOption,
    EveryOption,
    HiddenOption,
    InputArgument,
    JobsOption,
    JsonOption,
    MethodOption,
    ModelArgument,
    ModelOption,
    NameOption,
    OutputArgument,
    OutputNameOption,
    SeedOption,
    SlopeOption,
    WeightOption,
    hidden_units,
    names,
    open_files,
    seconds,
)
from fastsym.cli.output import check_folder, describe, tell
from fastsym.cli.shards import accumulate_files, solve_and_save


def fit(
    x: InputArgument,
    y: OutputArgument = None,
    hidden: HiddenOption = "auto",
    out: ModelOption = Path("model.npz"),
    x_name: NameOption = None,
    y_name: OutputNameOption = None,
    weight: WeightOption = None,
    refine: Annotated[
        bool, typer.Option(help="Refine to the least-squares optimum, or stop at the moments.")
    ] = True,
    negative_slope: SlopeOption = 0.0,
    intercept: Annotated[
        bool | None,
        typer.Option(
            "--intercept/--no-intercept",
            help="Hidden biases and a constant, or none; by default if the samples ask for them.",
        ),
    ] = None,
    linear: Annotated[
        bool | None,
        typer.Option(
            "--linear/--no-linear",
            help="A linear part beside the hidden units, or none; by default where no signs of the "
            "units stand for it.",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Weight decay, 0 for none; by default none unless --hidden is auto and rows that "
            "are left out are predicted better with it."
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    every: EveryOption = "60s",
    dask: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler whose workers read the files."),
    ] = None,
    method: MethodOption = "uwedge",
    compute_dtype: DtypeOption = "float64",
    block_rows: BlockOption = None,
    jobs: JobsOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a network to files of samples, with bounded memory.

    Refined, the files are read two to four times; with --no-refine once, and --method counts.
    """
    check_folder(out)
    for name, asked in (("--intercept", intercept), ("--linear", linear), ("--alpha", alpha)):
        if asked and not refine:
            raise ValueError(f"{name} needs --refine: moments know nothing of it.")
    if method != "uwedge" and (refine or checkpoint is not None or dask is not None):
        raise ValueError(f"--method {method} needs --no-refine, without --checkpoint or --dask.")
    interval = seconds(every)
    source = open_files(x, y, x_name, y_name, weight, block_rows)
    if method != "uwedge":
        accumulated = accumulate_files(source, hidden, None, compute_dtype, jobs, negative_slope)
        solve_and_save(accumulated, method, seed, out, as_json)
        return
    from fastsym.engine.progress import progress_bar
    from fastsym.estimator import TwoLayerRegressor

    model = TwoLayerRegressor(
        hidden_units(hidden),
        refine=refine,
        fit_intercept="auto" if intercept is None else intercept,
        linear="auto" if linear is None else linear,
        alpha="auto" if alpha is None else alpha,
        negative_slope=negative_slope,
        compute_dtype=compute_dtype,
        n_jobs=jobs,
        random_state=seed,
    )
    with progress_bar() as callback, _client(dask) as client:
        model.fit(
            source,
            client=client,
            checkpoint=checkpoint,
            checkpoint_every=interval,
            callback=callback,
        )
    model.network_.save(out)
    values = {"model": str(out), **describe(model.network_, getattr(model, "diagnostics_", None))}
    if refine:
        refined = model.refinement_
        values |= {
            "n_samples": refined.n_samples,
            "loss": refined.loss,
            "n_passes": refined.n_passes,
            "converged": refined.converged,
            "certificate": refined.certificate,
            "lack_of_fit_p_value": refined.lack_of_fit.p_value,
            "r2": refined.r2,
            "r2_linear": refined.r2_linear,
        }
    tell(values, as_json)


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """Connect to a Dask scheduler."""
    if address is None:
        yield None
        return
    from fastsym.sources.dask import connect

    with connect(address) as client:
        yield client


def predict(
    model: ModelArgument,
    x: InputArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help=".npy file to write.")] = Path("Y.npy"),
    x_name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a fitted network on a file."""
    from fastsym._validation import check_finite
    from fastsym.archive import write_npy
    from fastsym.engine.progress import Callback, Event, progress_bar
    from fastsym.network import TwoLayerNetwork
    from fastsym.sources import open_matrix

    network, source = TwoLayerNetwork.load(model), open_matrix(x, names(x_name))
    n, start = source.n_samples, time.perf_counter()
    if source.n_features != network.n_features:
        raise ValueError(
            f"{x} has {source.n_features} columns, but {model} expects {network.n_features} "
            "features."
        )

    def blocks(callback: Callback | None) -> Iterator[Any]:
        done = 0
        for block, _, _ in source.blocks():
            check_finite("X", block, done)
            yield network.predict(block)
            done += len(block)
            if callback is not None:
                callback(Event("predicting", 1, done, n, done / (time.perf_counter() - start)))

    with progress_bar() as callback:
        write_npy(out, (n, network.n_outputs), "float64", blocks(callback))
    tell({"predictions": str(out), "n_samples": n, "n_outputs": network.n_outputs}, as_json)


def report(
    model: ModelArgument,
    x: InputArgument,
    y: OutputArgument = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file.")] = Path("report.html"),
    truth: Annotated[Path | None, typer.Option(help="Model file of the true network.")] = None,
    x_name: NameOption = None,
    y_name: OutputNameOption = None,
    weight: WeightOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained page on a model and samples: figures, diagnostics, warnings."""
    check_folder(out)
    from fastsym.engine.progress import progress_bar
    from fastsym.network import TwoLayerNetwork
    from fastsym.report import write_report

    for given in (model, truth, Path(x), y if y is None else Path(y)):
        if given is not None and out.resolve() == given.resolve():
            raise ValueError(
                f"--out {out} would replace what it is a report on; give another name."
            )
    network = TwoLayerNetwork.load(model)
    source = open_files(x, y, x_name, y_name, weight)
    with progress_bar() as callback:
        write_report(
            network,
            source,
            out,
            truth=None if truth is None else TwoLayerNetwork.load(truth),
            title=f"{model.name}: {source.n_samples:,} samples",
            callback=callback,
        )
    tell({"report": str(out), "n_samples": source.n_samples}, as_json)
