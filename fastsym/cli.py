"""The command line. Everything but typer is imported when a command runs."""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from fastsym.frame import Frame
    from fastsym.moments import MomentAccumulator
    from fastsym.network import TwoLayerNetwork
    from fastsym.sources import PairedRows
    from fastsym.spectral import Diagnostics

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Recover the weights of a two-layer ReLU network, y = A relu(W x) + noise, from samples "
    "whose inputs are symmetric.",
)

HiddenOption = Annotated[
    str, typer.Option("--hidden", help='Number of hidden units, or "auto".', metavar="K")
]
DtypeOption = Annotated[str, typer.Option("--compute-dtype", help="float64 or float32.")]
JobsOption = Annotated[int | None, typer.Option("--jobs", help="Threads at most; all by default.")]
MethodOption = Annotated[
    str, typer.Option(help="Joint diagonalization: uwedge, pair or als (see fastsym.spectral).")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Random state.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
InputArgument = Annotated[
    str,
    typer.Argument(
        help="File, folder or pattern of the inputs, or of inputs and outputs: .npy, .npz, .h5, "
        ".zarr, .parquet.",
        metavar="X",
    ),
]
OutputArgument = Annotated[
    str | None,
    typer.Argument(help="The same of the outputs, if they are in files of their own.", metavar="Y"),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--x", help='Array of X in the file; columns, "a,b*", for Parquet.', metavar="NAME"
    ),
]
OutputNameOption = Annotated[str | None, typer.Option("--y", help="The same of Y.", metavar="NAME")]
WeightOption = Annotated[
    str | None,
    typer.Option("--weight", help="Array or column of sample weights; a file for .npy."),
]
BlockOption = Annotated[
    int | None, typer.Option("--block-rows", help="Rows read at once; about 8 MiB by default.")
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(help="File to save the state in, and to go on from if it exists."),
]
EveryOption = Annotated[
    str, typer.Option(help="Time between checkpoints: 30s, 5m, 1h.", metavar="TIME")
]
FrameOption = Annotated[
    Path | None, typer.Option(help="Frame file, or the moments file of another shard.")
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for samples and model.")] = Path("fastsym-demo"),
    samples: Annotated[int, typer.Option(help="Number of queries.", min=1000)] = 200_000,
    as_json: JsonOption = False,
) -> None:
    """Recover a digit classifier from queries: train, ask, stream, compare."""
    from fastsym.demo import run

    run(out, samples, as_json=as_json)


@app.command()
def fit(
    x: InputArgument,
    y: OutputArgument = None,
    hidden: HiddenOption = "auto",
    out: Annotated[Path, typer.Option("--out", "-o", help="Model file.")] = Path("model.npz"),
    x_name: NameOption = None,
    y_name: OutputNameOption = None,
    weight: WeightOption = None,
    refine: Annotated[
        bool, typer.Option(help="Refine to the least-squares optimum, or stop at the moments.")
    ] = True,
    negative_slope: Annotated[
        float, typer.Option(help="Slope of the activation for negative arguments.")
    ] = 0.0,
    intercept: Annotated[
        bool, typer.Option("--intercept", help="Fit hidden biases and an output intercept too.")
    ] = False,
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
    _check_folder(out)
    if intercept and not refine:
        raise ValueError("--intercept needs --refine: moments know nothing of intercepts.")
    if method != "uwedge" and (refine or checkpoint is not None or dask is not None):
        raise ValueError(f"--method {method} needs --no-refine, without --checkpoint or --dask.")
    seconds = _seconds(every)
    source = _open(x, y, x_name, y_name, weight, block_rows)
    if method != "uwedge":
        accumulated = _accumulate(source, hidden, None, compute_dtype, jobs, negative_slope)
        _solve_and_save(accumulated, method, seed, out, as_json)
        return
    from fastsym.estimator import TwoLayerRegressor
    from fastsym.progress import progress_bar

    model = TwoLayerRegressor(
        _hidden(hidden),
        refine=refine,
        fit_intercept=intercept,
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
            checkpoint_every=seconds,
            callback=callback,
        )
    model.network_.save(out)
    report = {"model": str(out), **describe(model.network_, getattr(model, "diagnostics_", None))}
    if refine:
        refined = model.refinement_
        report |= {
            "n_samples": refined.n_samples,
            "loss": refined.loss,
            "n_passes": refined.n_passes,
            "converged": refined.converged,
            "certificate": refined.certificate,
        }
    _report(report, as_json)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    x: InputArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help=".npy file to write.")] = Path("Y.npy"),
    x_name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a fitted network on a file."""
    from fastsym._files import write_npy
    from fastsym._validation import check_finite
    from fastsym.network import TwoLayerNetwork
    from fastsym.progress import Callback, Event, progress_bar
    from fastsym.sources import open_matrix

    network, source = TwoLayerNetwork.load(model), open_matrix(x, _names(x_name))
    n, start = source.n_samples, time.perf_counter()
    if source.n_features != network.n_features:
        raise ValueError(
            f"{x} has {source.n_features} columns, but {model} expects {network.n_features} "
            "features."
        )

    def blocks(tell: Callback | None) -> Iterator[Any]:
        done = 0
        for block, _, _ in source.blocks():
            check_finite("X", block, done)
            yield network.predict(block)
            done += len(block)
            if tell is not None:
                tell(Event("predicting", 1, done, n, done / (time.perf_counter() - start)))

    with progress_bar() as tell:
        write_npy(out, (n, network.n_outputs), "float64", blocks(tell))
    _report({"predictions": str(out), "n_samples": n, "n_outputs": network.n_outputs}, as_json)


@app.command()
def info(
    file: Annotated[Path | None, typer.Argument(help="Model, moments or frame file.")] = None,
    machine: Annotated[
        bool, typer.Option("--machine", help="Say what the kernels are made for here.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a model, moments or frame file holds, or what the kernels are made for."""
    if machine:
        _report(_machine(), as_json)
        return
    if file is None:
        raise ValueError("info needs a file, or --machine.")
    from fastsym import frame, moments, network
    from fastsym._files import read_arrays

    kinds = {module.FILE_KIND: module.FILE_VERSION for module in (network, moments, frame)}
    kind, _ = read_arrays(file, kinds)
    if kind == network.FILE_KIND:
        net = network.TwoLayerNetwork.load(file)
        content: dict[str, Any] = {
            "n_features": net.n_features,
            "n_hidden": net.n_hidden,
            "n_outputs": net.n_outputs,
            "negative_slope": net.negative_slope,
            "intercepts": bool(net.hidden_intercept.any() or net.output_intercept.any()),
        }
    elif kind == frame.FILE_KIND:
        axes = frame.Frame.load(file)
        content = {
            "n_features": axes.n_features,
            "n_hidden": axes.n_hidden,
            "n_outputs": axes.n_outputs,
            "n_pilot": axes.n_pilot,
        }
    else:
        accumulated = moments.MomentAccumulator.load(file)
        frozen = accumulated._frame is not None
        content = {
            "n_samples": accumulated.n_samples,
            "n_features": accumulated.n_features,
            "n_hidden": accumulated.frame.n_hidden if frozen else accumulated.n_hidden,
            "n_outputs": accumulated.n_outputs,
            "compute_dtype": accumulated.compute_dtype,
            "frame": "frozen" if frozen else "not fixed yet (the pilot is not full)",
        }
    _report({"file": str(file), "kind": kind, **content}, as_json)


@app.command()
def frame(
    x: InputArgument,
    y: OutputArgument = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Frame file.")] = Path("frame.npz"),
    hidden: HiddenOption = "auto",
    x_name: NameOption = None,
    y_name: OutputNameOption = None,
    weight: WeightOption = None,
    negative_slope: Annotated[
        float, typer.Option(help="Slope of the activation for negative arguments.")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Estimate the frame that the moments of all shards share, from rows spread over files."""
    _check_folder(out)
    from fastsym.engine import pilot_frame

    source = _open(x, y, x_name, y_name, weight)
    axes = pilot_frame(source, _hidden(hidden), negative_slope=negative_slope)
    axes.save(out)
    _report({"frame": str(out), "n_pilot": axes.n_pilot, "n_hidden": axes.n_hidden}, as_json)


@app.command()
def moments(
    x: InputArgument,
    y: OutputArgument = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Moments file.")] = Path("moments.npz"),
    hidden: HiddenOption = "auto",
    frame: FrameOption = None,
    x_name: NameOption = None,
    y_name: OutputNameOption = None,
    weight: WeightOption = None,
    negative_slope: Annotated[
        float, typer.Option(help="Slope of the activation for negative arguments.")
    ] = 0.0,
    checkpoint: CheckpointOption = None,
    every: EveryOption = "60s",
    compute_dtype: DtypeOption = "float64",
    block_rows: BlockOption = None,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accumulate the moments of one shard, to be merged and solved later.

    Shards that are to be merged need one frame: `fastsym frame` makes it, from the first shard for
    instance; give its file as --frame for all of them.
    """
    _check_folder(out)
    source = _open(x, y, x_name, y_name, weight, block_rows)
    accumulated = _accumulate(
        source, hidden, frame, compute_dtype, jobs, negative_slope, checkpoint, _seconds(every)
    )
    accumulated.save(out)
    _report(
        {
            "moments": str(out),
            "n_samples": accumulated.n_samples,
            "n_hidden": accumulated.frame.n_hidden,
        },
        as_json,
    )


@app.command()
def merge(
    files: Annotated[list[Path], typer.Argument(help="Moments files in one frame.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Moments file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Merge the moments of shards."""
    from fastsym.moments import MomentAccumulator

    merged = MomentAccumulator.load(files[0])
    for file in files[1:]:
        try:
            merged.merge(MomentAccumulator.load(file))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    merged.save(out)
    _report({"moments": str(out), "n_samples": merged.n_samples, "n_files": len(files)}, as_json)


@app.command()
def solve(
    file: Annotated[Path, typer.Argument(help="Moments file.", metavar="MOMENTS")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model file.")] = Path("model.npz"),
    method: MethodOption = "uwedge",
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Solve moments for the weights."""
    from fastsym.moments import MomentAccumulator

    _solve_and_save(MomentAccumulator.load(file), method, seed, out, as_json)


def _open(
    x: str,
    y: str | None,
    x_name: str | None,
    y_name: str | None,
    weight: str | None,
    block_rows: int | None = None,
) -> "PairedRows":
    from fastsym.sources import open_source

    names = {"x": _names(x_name), "y": _names(y_name)}
    return open_source(x, y, weight=weight, block_rows=block_rows, **names)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else text.split(",")


@app.command()
def report(
    model: Annotated[Path, typer.Argument(help="Model file.")],
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
    _check_folder(out)
    from fastsym.network import TwoLayerNetwork
    from fastsym.progress import progress_bar
    from fastsym.report import write_report

    for given in (model, truth, Path(x), y if y is None else Path(y)):
        if given is not None and out.resolve() == given.resolve():
            raise ValueError(
                f"--out {out} would replace what it is a report on; give another name."
            )
    network = TwoLayerNetwork.load(model)
    source = _open(x, y, x_name, y_name, weight)
    with progress_bar() as callback:
        write_report(
            network,
            source,
            out,
            truth=None if truth is None else TwoLayerNetwork.load(truth),
            title=f"{model.name}: {source.n_samples:,} samples",
            callback=callback,
        )
    _report({"report": str(out), "n_samples": source.n_samples}, as_json)


@app.command()
def reproduce(
    experiment: Annotated[
        str,
        typer.Argument(
            help="sample-efficiency, noise, conditioning, beyond, tensor-connection or all."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder.")] = Path("figures"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer points and trials.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the experiments of the paper: a figure, a CSV and a JSON file of every point each."""
    from fastsym.progress import Event, progress_bar
    from fastsym.reproduce import NAMES, n_steps
    from fastsym.reproduce import reproduce as run

    chosen = NAMES if experiment == "all" else (experiment,)
    if not set(chosen) <= set(NAMES):
        raise ValueError(
            f"experiment must be one of {', '.join(NAMES)} or all, got {experiment!r}."
        )
    written: dict[str, Any] = {}
    with progress_bar("trials") as show:
        for number, name in enumerate(chosen, 1):
            start, total = time.perf_counter(), n_steps(name, quick)

            def tell(done: int, what: str = name, n: int = number, total: int = total,
                     start: float = start) -> None:  # fmt: skip
                if show is not None:
                    show(Event(what, n, done, total, done / (time.perf_counter() - start)))

            paths = run(name, out, quick, tell)
            written[name] = f"{paths[0]} ({time.perf_counter() - start:.0f} s)"
    _report(written, as_json)


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """Connect to a Dask scheduler."""
    if address is None:
        yield None
        return
    from fastsym.distributed import connect

    with connect(address) as client:
        yield client


def _accumulate(
    source: "PairedRows",
    hidden: str,
    frame: Path | None,
    compute_dtype: str,
    jobs: int | None,
    negative_slope: float,
    checkpoint: Path | None = None,
    every: float = 60.0,
) -> "MomentAccumulator":
    from fastsym.checkpoint import Checkpoint
    from fastsym.engine import Passes, accumulate, pilot_frame
    from fastsym.progress import progress_bar

    shared = (
        pilot_frame(source, _hidden(hidden), negative_slope=negative_slope)
        if frame is None
        else _load_frame(frame)
    )
    settings = {
        "command": "moments",
        "compute_dtype": compute_dtype,
        "negative_slope": str(negative_slope),
        "n_hidden": str(shared.n_hidden),
    }
    saved = None if checkpoint is None else Checkpoint(checkpoint, source, settings, every)
    with progress_bar() as callback:
        return accumulate(
            Passes(source, callback=callback, checkpoint=saved),
            _hidden(hidden),
            frame=shared,
            compute_dtype=compute_dtype,
            negative_slope=negative_slope,
            n_jobs=jobs,
        )


def _load_frame(path: Path) -> "Frame":
    """Read a frame file, or the frame of a moments file."""
    from fastsym import frame, moments
    from fastsym._files import read_arrays

    kinds = {module.FILE_KIND: module.FILE_VERSION for module in (frame, moments)}
    if read_arrays(path, kinds)[0] == frame.FILE_KIND:
        return frame.Frame.load(path)
    return moments.MomentAccumulator.load(path).frame


def _seconds(text: str) -> float:
    """Read a time such as 30s, 5m, 1h or 2.5."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        value = float(text if unit is None else text[:-1])
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"--every must be a time such as 30s, 5m or 1h, got {text!r}.")
    return value * (unit or 1)


def _hidden(hidden: str) -> int | str:
    return int(hidden) if hidden.lstrip("-").isdigit() else hidden


def _solve_and_save(
    accumulated: "MomentAccumulator", method: str, seed: int | None, out: Path, as_json: bool
) -> None:
    from fastsym import spectral

    solution = spectral.solve(accumulated.moments(), method=method, random_state=seed)
    solution.network.save(out)
    _report({"model": str(out), **describe(*solution)}, as_json)


def _machine() -> dict[str, Any]:
    import numba
    from llvmlite import binding

    from fastsym._kernels import MACHINE

    return {
        "kernels": MACHINE.name,
        "vector_bytes": MACHINE.vector_bytes,
        "tile_rows": MACHINE.rows,
        "tile_vectors": MACHINE.vectors,
        "processor": numba.config.CPU_NAME or binding.get_host_cpu_name(),  # type: ignore[attr-defined]
        "threads": numba.get_num_threads(),
    }


def describe(network: "TwoLayerNetwork", diagnostics: "Diagnostics | None") -> dict[str, Any]:
    """Sizes of a network and diagnostics of its moments, if there are any, as plain values."""
    sizes = {
        "n_features": network.n_features,
        "n_hidden": network.n_hidden,
        "n_outputs": network.n_outputs,
    }
    if diagnostics is None:
        return sizes
    return {
        "n_samples": diagnostics.n_samples,
        **sizes,
        "gap": diagnostics.gap,
        "residual": diagnostics.residual,
        "condition_z": diagnostics.condition_z,
        "condition_w": diagnostics.condition_w,
        "condition_a": diagnostics.condition_a,
        "symmetry_p_value": diagnostics.symmetry.p_value,
    }


def _report(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        # JSON has no infinity; the gap of a single neuron is one.
        finite = {k: None if v == float("inf") else v for k, v in values.items()}
        print(json.dumps(finite))
        return
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")


def _check_folder(out: Path) -> None:
    """Raise before the work begins if its result could not be written."""
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}.")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; give the name of a file.")


def _fail(message: object) -> NoReturn:
    print("fastsym: error: " + " ".join(str(message).split()), file=sys.stderr)
    raise SystemExit(2)


def main() -> None:
    """Run the command line: exit code 0, or 2 with one line on standard error for bad input."""
    warnings.showwarning = lambda message, *_, **__: print(
        f"fastsym: warning: {message}", file=sys.stderr
    )
    try:
        app()
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        _fail(error)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error)
