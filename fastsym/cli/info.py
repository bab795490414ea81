"""The command info: what a file holds, and what the kernels are made for."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fastsym.cli.options import JsonOption
from fastsym.cli.output import describe, tell


def info(
    file: Annotated[Path | None, typer.Argument(help="Model, moments or frame file.")] = None,
    machine: Annotated[
        bool, typer.Option("--machine", help="Say what the kernels are made for here.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a model, moments or frame file holds, or what the kernels are made for."""
    if machine:
        tell(_machine(), as_json)
        return
    if file is None:
        raise ValueError("info needs a file, or --machine.")
    tell({"file": str(file), **_content(file)}, as_json)


def _content(file: Path) -> dict[str, Any]:
    from fastsym import network
    from fastsym.archive import read_arrays
    from fastsym.sums import frame, moments

    kinds = {module.FILE_KIND: module.FILE_VERSION for module in (network, moments, frame)}
    kind, _ = read_arrays(file, kinds)
    if kind == network.FILE_KIND:
        net = network.TwoLayerNetwork.load(file)
        return {
            "kind": kind,
            **describe(net, None),
            "negative_slope": net.negative_slope,
        }
    if kind == frame.FILE_KIND:
        axes = frame.Frame.load(file)
        return {
            "kind": kind,
            "n_features": axes.n_features,
            "n_hidden": axes.n_hidden,
            "n_outputs": axes.n_outputs,
            "n_pilot": axes.n_pilot,
        }
    accumulated = moments.MomentAccumulator.load(file)
    frozen = accumulated.has_frame
    return {
        "kind": kind,
        "n_samples": accumulated.n_samples,
        "n_features": accumulated.n_features,
        "n_hidden": accumulated.frame.n_hidden if frozen else accumulated.n_hidden,
        "n_outputs": accumulated.n_outputs,
        "compute_dtype": accumulated.compute_dtype,
        "frame": "frozen" if frozen else "not fixed yet (the pilot is not full)",
    }


def _machine() -> dict[str, Any]:
    import numba
    from llvmlite import binding

    from fastsym.sums.kernels import MACHINE

    return {
        "kernels": MACHINE.name,
        "vector_bytes": MACHINE.vector_bytes,
        "tile_rows": MACHINE.rows,
        "tile_vectors": MACHINE.vectors,
        "processor": numba.config.CPU_NAME or binding.get_host_cpu_name(),  # type: ignore[attr-defined]
        "threads": numba.get_num_threads(),
    }
