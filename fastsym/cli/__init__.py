"""The command line. Everything but typer is imported when a command runs."""

import sys
import warnings

import typer

from fastsym.cli import fitting, info, shards, studies
from fastsym.cli.output import fail

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Recover the weights of a two-layer ReLU network, y = A relu(W x) + noise, from samples "
    "whose inputs are symmetric.",
)

# In the order of --help.
app.command()(studies.demo)
app.command()(fitting.fit)
app.command()(fitting.predict)
app.command()(info.info)
app.command()(shards.frame)
app.command()(shards.moments)
app.command()(shards.merge)
app.command()(shards.solve)
app.command()(fitting.report)
app.command()(studies.reproduce)


def main() -> None:
    """Run the command line: exit code 0, or 2 with one line on standard error for bad input."""
    warnings.showwarning = lambda message, *_, **__: print(
        f"fastsym: warning: {message}", file=sys.stderr
    )
    try:
        app()
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        fail(error)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else error)
