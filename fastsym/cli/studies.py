"""Commands that make their own samples: demo, reproduce."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastsym.cli.options import JsonOption
from fastsym.cli.output import tell

if TYPE_CHECKING:
    from fastsym.engine.progress import Callback


def demo(
    out: Annotated[Path, typer.Option(help="Folder for samples and model.")] = Path("fastsym-demo"),
    samples: Annotated[int, typer.Option(help="Number of queries.", min=1000)] = 200_000,
    as_json: JsonOption = False,
) -> None:
    """Recover a digit classifier from queries: train, ask, stream, compare."""
    from fastsym.studies.demo import run

    run(out, samples, as_json=as_json)


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
    from fastsym.engine.progress import progress_bar
    from fastsym.studies import figures

    chosen = figures.NAMES if experiment == "all" else (experiment,)
    if not set(chosen) <= set(figures.NAMES):
        raise ValueError(
            f"experiment must be one of {', '.join(figures.NAMES)} or all, got {experiment!r}."
        )
    written = {}
    with progress_bar("trials") as callback:
        for number, name in enumerate(chosen, 1):
            start = time.perf_counter()
            step = _steps(callback, name, number, figures.n_steps(name, quick))
            paths = figures.reproduce(name, out, quick, step)
            written[name] = f"{paths[0]} ({time.perf_counter() - start:.0f} s)"
    tell(written, as_json)


def _steps(
    callback: "Callback | None", name: str, number: int, total: int
) -> Callable[[int], None]:
    """Return what makes events of the steps done of an experiment."""
    from fastsym.engine.progress import Event

    start = time.perf_counter()

    def step(done: int) -> None:
        if callback is not None:
            callback(Event(name, number, done, total, done / (time.perf_counter() - start)))

    return step
