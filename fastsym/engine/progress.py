"""What a pass tells while it runs, and the bar that shows it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Where a pass over the samples stands; the argument of every `callback`.

    Parameters
    ----------
    what : str
        "moments", "linear moments" and "quartic moments" (of two passes), "residuals",
        "one pass" (of a stream), "predicting".
    n_pass : int
        Number of the pass in this fit, from 1.
    n_rows : int
        Rows read so far, those of a checkpoint included.
    n_samples : int or None
        Rows in all; None if that is not known before the end.
    rows_per_second : float
        Mean rate of this pass, without the rows of a checkpoint; 0 before the first block.
    """

    what: str
    n_pass: int
    n_rows: int
    n_samples: int | None
    rows_per_second: float


Callback = Callable[[Event], Any]


@contextmanager
def progress_bar(unit: str = "samples") -> Iterator[Callback | None]:
    """Show a bar for each pass on standard error, with samples a second and time left.

    Parameters
    ----------
    unit : str
        What is counted.

    Yields
    ------
    callback : callable or None
        Takes an `Event`; None if standard error is not a terminal, where nothing is shown.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(f"{{task.fields[rows]}} {unit}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        tasks: dict[int, Any] = {}

        def show(event: Event) -> None:
            if event.n_pass not in tasks:
                text = f"{event.what}, pass {event.n_pass}"
                tasks[event.n_pass] = progress.add_task(
                    text, total=event.n_samples, rate="", rows=""
                )
            rows = f"{event.n_rows:,}"
            rows += f" of {event.n_samples:,}" if event.n_samples is not None else ""
            rate = (
                f"{event.rows_per_second:,.3g} {unit}/s"
                if event.rows_per_second < 100
                else (f"{event.rows_per_second:,.0f} {unit}/s")
            )
            rate = rate if event.rows_per_second else ""
            progress.update(tasks[event.n_pass], completed=event.n_rows, rows=rows, rate=rate)

        yield show
