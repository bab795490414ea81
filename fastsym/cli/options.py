"""Options that several commands have, and how their text is read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastsym.sources import PairedRows

HiddenOption = Annotated[
    str, typer.Option("--hidden", help='Number of hidden units, or "auto".', metavar="K")
]
SlopeOption = Annotated[
    float,
    typer.Option("--negative-slope", help="Slope of the activation for negative arguments."),
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
ModelOption = Annotated[Path, typer.Option("--out", "-o", help="Model file.")]
ModelArgument = Annotated[Path, typer.Argument(help="Model file.")]


def open_files(
    x: str,
    y: str | None,
    x_name: str | None,
    y_name: str | None,
    weight: str | None,
    block_rows: int | None = None,
) -> "PairedRows":
    """Open the samples that the arguments X and Y and the options on them speak of.

    Parameters
    ----------
    x : str
    y, x_name, y_name, weight : str or None
    block_rows : int, default=None

    Returns
    -------
    source : PairedRows
    """
    from fastsym.sources import open_source

    return open_source(x, y, x=names(x_name), y=names(y_name), weight=weight, block_rows=block_rows)


def names(text: str | None) -> list[str] | None:
    """Read names that are separated by commas.

    Parameters
    ----------
    text : str or None

    Returns
    -------
    names : list of str, or None
    """
    return None if text is None else text.split(",")


def hidden_units(text: str) -> int | str:
    """Read a number of hidden units; anything else is left to who checks it.

    Parameters
    ----------
    text : str

    Returns
    -------
    n_hidden : int or str
    """
    return int(text) if text.lstrip("-").isdigit() else text


def seconds(text: str) -> float:
    """Read a time such as 30s, 5m, 1h or 2.5.

    Parameters
    ----------
    text : str

    Returns
    -------
    seconds : float

    Raises
    ------
    ValueError
        If it is no such time.
    """
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        value = float(text if unit is None else text[:-1])
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"--every must be a time such as 30s, 5m or 1h, got {text!r}.")
    return value * (unit or 1)
