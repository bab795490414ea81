"""What the commands say: results, what they hold, errors."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from fastsym.network import TwoLayerNetwork
    from fastsym.spectral import Diagnostics


def tell(values: dict[str, Any], as_json: bool) -> None:
    """Print values by name, one a line or as one JSON object.

    Parameters
    ----------
    values : dict
    as_json : bool
    """
    if as_json:
        # JSON has no infinity; the gap of a single neuron is one.
        finite = {k: None if v == float("inf") else v for k, v in values.items()}
        print(json.dumps(finite))
        return
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")


def describe(network: "TwoLayerNetwork", diagnostics: "Diagnostics | None") -> dict[str, Any]:
    """Sizes of a network and diagnostics of its moments, if there are any, as plain values.

    Parameters
    ----------
    network : TwoLayerNetwork
    diagnostics : Diagnostics or None

    Returns
    -------
    values : dict
    """
    sizes = {
        "n_features": network.n_features,
        "n_hidden": network.n_hidden,
        "n_outputs": network.n_outputs,
        "intercepts": network.has_intercepts,
        "linear_part": network.has_linear_part,
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


def check_folder(out: Path) -> None:
    """Raise before the work begins if its result could not be written.

    Parameters
    ----------
    out : path

    Raises
    ------
    ValueError
        If its folder does not exist, or it is one itself.
    """
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}.")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; give the name of a file.")


def fail(message: object) -> NoReturn:
    """Print one line on standard error and leave with exit code 2.

    Parameters
    ----------
    message : object

    Raises
    ------
    SystemExit
        Always.
    """
    print("fastsym: error: " + " ".join(str(message).split()), file=sys.stderr)
    raise SystemExit(2)
