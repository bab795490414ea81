"""Commands on shards: frame, moments, merge, solve."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastsym.cli.options import (
    BlockOption,
    CheckpointOption,
    DtypeOption,
    EveryOption,
    FrameOption,
    HiddenOption,
    InputArgument,
    JobsOption,
    JsonOption,
    MethodOption,
    ModelOption,
    NameOption,
    OutputArgument,
    OutputNameOption,
    SeedOption,
    SlopeOption,
    WeightOption,
    hidden_units,
    open_files,
    seconds,
)
from fastsym.cli.output import check_folder, describe, tell

if TYPE_CHECKING:
    from fastsym.sources import PairedRows
    from fastsym.sums.frame import Frame
    from fastsym.sums.moments import MomentAccumulator


def frame(
    x: InputArgument,
    y: OutputArgument = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Frame file.")] = Path("frame.npz"),
    hidden: HiddenOption = "auto",
    x_name: NameOption = None,
    y_name: OutputNameOption = None,
    weight: WeightOption = None,
    negative_slope: SlopeOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Estimate the frame that the moments of all shards share, from rows spread over files."""
    check_folder(out)
    from fastsym.engine import pilot_frame

    source = open_files(x, y, x_name, y_name, weight)
    axes = pilot_frame(source, hidden_units(hidden), negative_slope=negative_slope)
    axes.save(out)
    tell({"frame": str(out), "n_pilot": axes.n_pilot, "n_hidden": axes.n_hidden}, as_json)


def moments(
    x: InputArgument,
    y: OutputArgument = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Moments file.")] = Path("moments.npz"),
    hidden: HiddenOption = "auto",
    frame: FrameOption = None,
    x_name: NameOption = None,
    y_name: OutputNameOption = None,
    weight: WeightOption = None,
    negative_slope: SlopeOption = 0.0,
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
    check_folder(out)
    source = open_files(x, y, x_name, y_name, weight, block_rows)
    accumulated = accumulate_files(
        source, hidden, frame, compute_dtype, jobs, negative_slope, checkpoint, seconds(every)
    )
    accumulated.save(out)
    tell(
        {
            "moments": str(out),
            "n_samples": accumulated.n_samples,
            "n_hidden": accumulated.frame.n_hidden,
        },
        as_json,
    )


def merge(
    files: Annotated[list[Path], typer.Argument(help="Moments files in one frame.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Moments file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Merge the moments of shards."""
    from fastsym.sums.moments import MomentAccumulator

    merged = MomentAccumulator.load(files[0])
    for file in files[1:]:
        try:
            merged.merge(MomentAccumulator.load(file))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    merged.save(out)
    tell({"moments": str(out), "n_samples": merged.n_samples, "n_files": len(files)}, as_json)


def solve(
    file: Annotated[Path, typer.Argument(help="Moments file.", metavar="MOMENTS")],
    out: ModelOption = Path("model.npz"),
    method: MethodOption = "uwedge",
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Solve moments for the weights."""
    from fastsym.sums.moments import MomentAccumulator

    solve_and_save(MomentAccumulator.load(file), method, seed, out, as_json)


def accumulate_files(
    source: "PairedRows",
    hidden: str,
    frame: Path | None,
    compute_dtype: str,
    jobs: int | None,
    negative_slope: float,
    checkpoint: Path | None = None,
    every: float = 60.0,
) -> "MomentAccumulator":
    """Accumulate the moments of opened files, with a progress bar.

    Parameters
    ----------
    source : PairedRows
    hidden : str
    frame : path or None
        None: estimated from rows spread over the files.
    compute_dtype : str
    jobs : int or None
    negative_slope : float
    checkpoint : path, default=None
    every : float, default=60.0
        Seconds between checkpoints.

    Returns
    -------
    accumulated : MomentAccumulator
    """
    from fastsym.engine import Passes, accumulate, pilot_frame
    from fastsym.engine.checkpoint import Checkpoint
    from fastsym.engine.progress import progress_bar

    n_hidden = hidden_units(hidden)
    shared = (
        pilot_frame(source, n_hidden, negative_slope=negative_slope)
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
            n_hidden,
            frame=shared,
            compute_dtype=compute_dtype,
            negative_slope=negative_slope,
            n_jobs=jobs,
        )


def solve_and_save(
    accumulated: "MomentAccumulator", method: str, seed: int | None, out: Path, as_json: bool
) -> None:
    """Solve moments, save the network and say what it is.

    Parameters
    ----------
    accumulated : MomentAccumulator
    method : str
    seed : int or None
    out : path
    as_json : bool
    """
    from fastsym import spectral

    solution = spectral.solve(accumulated.moments(), method=method, random_state=seed)
    solution.network.save(out)
    tell({"model": str(out), **describe(*solution)}, as_json)


def _load_frame(path: Path) -> "Frame":
    """Read a frame file, or the frame of a moments file."""
    from fastsym.archive import read_arrays
    from fastsym.sums import frame, moments

    kinds = {module.FILE_KIND: module.FILE_VERSION for module in (frame, moments)}
    if read_arrays(path, kinds)[0] == frame.FILE_KIND:
        return frame.Frame.load(path)
    return moments.MomentAccumulator.load(path).frame
