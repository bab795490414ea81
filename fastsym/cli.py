"""The command line. Everything but typer is imported when a command runs."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from fastsym.moments import MomentAccumulator
    from fastsym.network import TwoLayerNetwork
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
InputArgument = Annotated[Path, typer.Argument(help="Inputs, .npy of shape (n, d).", metavar="X")]
OutputArgument = Annotated[Path, typer.Argument(help="Outputs, .npy of shape (n, m).", metavar="Y")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for samples and model.")] = Path("fastsym-demo"),
    samples: Annotated[int, typer.Option(help="Number of queries.", min=1000)] = 200_000,
    as_json: JsonOption = False,
) -> None:
    """Recover a digit classifier from queries: train, ask, stream, compare."""
    from fastsym.demo import run

    run(out, samples, progress=progress_bar, as_json=as_json)


@app.command()
def fit(
    x: InputArgument,
    y: OutputArgument,
    hidden: HiddenOption = "auto",
    out: Annotated[Path, typer.Option("--out", "-o", help="Model file.")] = Path("model.npz"),
    refine: Annotated[
        bool, typer.Option(help="Refine to the least-squares optimum, or stop at the moments.")
    ] = True,
    negative_slope: Annotated[
        float, typer.Option(help="Slope of the activation for negative arguments.")
    ] = 0.0,
    intercept: Annotated[
        bool, typer.Option("--intercept", help="Fit hidden biases and an output intercept too.")
    ] = False,
    method: MethodOption = "uwedge",
    compute_dtype: DtypeOption = "float64",
    jobs: JobsOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a network to a pair of .npy files, with bounded memory.

    Refined, the files are read two to four times; with --no-refine once, and --method counts.
    """
    _check_folder(out)
    if not refine:
        if intercept:
            raise ValueError("--intercept needs --refine: moments know nothing of intercepts.")
        accumulated = _accumulate(x, y, hidden, None, compute_dtype, jobs, negative_slope)
        _solve_and_save(accumulated, method, seed, out, as_json)
        return
    if method != "uwedge":
        raise ValueError(f"--method {method} needs --no-refine.")
    from fastsym.estimator import TwoLayerRegressor
    from fastsym.sources import open_npy_pair

    model = TwoLayerRegressor(
        _hidden(hidden),
        fit_intercept=intercept,
        negative_slope=negative_slope,
        compute_dtype=compute_dtype,
        n_jobs=jobs,
        random_state=seed,
    )
    source = open_npy_pair(x, y)
    with progress_bar("fitting", source.n_samples) as advance:
        model.fit_source(source, advance)
    model.network_.save(out)
    refined = model.refinement_
    _report(
        {
            "model": str(out),
            **describe(model.network_, getattr(model, "diagnostics_", None)),
            "n_samples": refined.n_samples,
            "loss": refined.loss,
            "n_passes": refined.n_passes,
            "converged": refined.converged,
            "certificate": refined.certificate,
        },
        as_json,
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    x: InputArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help=".npy file to write.")] = Path("Y.npy"),
    as_json: JsonOption = False,
) -> None:
    """Evaluate a fitted network on an .npy file."""
    from fastsym._files import write_npy
    from fastsym._validation import check_finite
    from fastsym.network import TwoLayerNetwork
    from fastsym.sources import NpyRows, PairedRows

    network, rows = TwoLayerNetwork.load(model), NpyRows(x)
    n = rows.shape[0]
    if rows.shape[1] != network.n_features:
        raise ValueError(
            f"{x} has {rows.shape[1]} columns, but {model} expects {network.n_features} features."
        )

    def blocks(advance: Callable[[int], None]) -> Iterator[Any]:
        done = 0
        for block, _, _ in PairedRows(rows, rows).blocks():
            check_finite("X", block, done)
            yield network.predict(block)
            done += len(block)
            advance(done)

    with progress_bar("predicting", n) as advance:
        write_npy(out, (n, network.n_outputs), "float64", blocks(advance))
    _report({"predictions": str(out), "n_samples": n, "n_outputs": network.n_outputs}, as_json)


@app.command()
def info(
    file: Annotated[Path | None, typer.Argument(help="Model or moments file.")] = None,
    machine: Annotated[
        bool, typer.Option("--machine", help="Say what the kernels are made for here.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a model or moments file holds, or what the kernels are made for."""
    if machine:
        _report(_machine(), as_json)
        return
    if file is None:
        raise ValueError("info needs a file, or --machine.")
    from fastsym import moments, network
    from fastsym._files import read_arrays

    kinds = {
        network.FILE_KIND: network.FILE_VERSION,
        moments.FILE_KIND: moments.FILE_VERSION,
    }
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
def moments(
    x: InputArgument,
    y: OutputArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Moments file.")],
    hidden: HiddenOption = "auto",
    frame: Annotated[
        Path | None, typer.Option(help="Moments file of another shard, whose frame is used.")
    ] = None,
    compute_dtype: DtypeOption = "float64",
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accumulate the moments of one shard, to be merged and solved later.

    Shards that are to be merged need one frame: make the first shard's moments, then give its file
    as --frame for all others.
    """
    _check_folder(out)
    accumulated = _accumulate(x, y, hidden, frame, compute_dtype, jobs)
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


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and time left on a terminal; yields a function of the rows done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done: None
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} samples"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        task = progress.add_task(what, total=total, rate="")

        def advance(done: int) -> None:
            speed = progress.tasks[task].speed
            rate = f"{speed:,.0f} samples/s" if speed else ""
            progress.update(task, completed=done, rate=rate)

        yield advance


def _accumulate(
    x: Path,
    y: Path,
    hidden: str,
    frame: Path | None,
    compute_dtype: str,
    jobs: int | None,
    negative_slope: float = 0.0,
) -> "MomentAccumulator":
    from fastsym.engine import accumulate
    from fastsym.moments import MomentAccumulator
    from fastsym.sources import open_npy_pair

    source = open_npy_pair(x, y)
    shared = None if frame is None else MomentAccumulator.load(frame).frame
    with progress_bar("accumulating", source.n_samples) as advance:
        return accumulate(
            source,
            _hidden(hidden),
            frame=shared,
            compute_dtype=compute_dtype,
            negative_slope=negative_slope,
            n_jobs=jobs,
            callback=advance,
        )


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
    except (ValueError, RuntimeError) as error:
        _fail(error)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error)
