"""Checkpoints of a fit: what its passes have summed so far, so that a killed fit can go on.

Everything in a fit but its passes over the data is quick, and the same each time. A checkpoint
therefore holds the sums of the passes that are done and of the one that is under way, with the
number of rows it has read; the next run does the rest again and takes these from the file. Sums do
not depend on where a pass was cut, so it ends with the same bits as a run that was not killed.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from fastsym.archive import read_arrays, write_arrays
from fastsym.sources import Source
from fastsym.sums.reducer import Arrays, Reducer

FILE_KIND = "checkpoint"
FILE_VERSION = 2

_SAMPLED_ROWS = 1024  # that stand for the data


def data_digest(source: Source) -> str:
    """Hash the size of a source and about a thousand rows spread over it.

    Parameters
    ----------
    source : Source

    Returns
    -------
    digest : str
        A change of other rows is not seen.
    """
    digest = hashlib.sha256(f"{source.n_samples} {source.n_features} {source.n_outputs}".encode())
    for part in source.spread(_SAMPLED_ROWS):
        if part is not None:
            digest.update(np.ascontiguousarray(part, np.float64).tobytes())
    return digest.hexdigest()


class Checkpoint:
    """The file of one fit.

    Parameters
    ----------
    path : path
        Written whole and renamed. If it exists, the fit goes on from it.
    source : Source
    settings : mapping of str to str
        Of the fit: a file with other settings is refused.
    every : float, default=60.0
        Seconds between writes within a pass; the end of a pass is always written.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If the file is damaged, of another kind or newer, or of other data or settings.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        source: Source,
        settings: Mapping[str, str],
        every: float = 60.0,
    ) -> None:
        self.path, self.every = Path(path), check_every(every)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(2, "No such folder for the checkpoint", str(self.path.parent))
        self._settings = dict(settings)
        self._data = data_digest(source)
        self._passes: list[Arrays] = []
        self._remove_leftovers()
        if self.path.exists():
            self._load()
        self._written = time.monotonic()

    def begin(self, number: int, reducer: Reducer) -> tuple[int, bool]:
        """Bring the reducer of a pass to where the file has it.

        Parameters
        ----------
        number : int
            Of the pass, from 1.
        reducer : Reducer
            Empty; restored if the file knows this pass.

        Returns
        -------
        n_rows : int
            Rows of the source that are in it.
        done : bool
            Whether that is all.
        """
        if number > len(self._passes):
            return 0, False
        state = dict(self._passes[number - 1])
        n_rows, done = state.pop("n_rows").item(), bool(state.pop("done"))
        try:
            reducer.restore(state)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.path} cannot be taken up: pass {number} does not come out as it was "
                f"({error}) The fit was begun with other versions of fastsym or NumPy or on "
                "another kind of processor; go on there, or delete the file to start anew."
            ) from None
        return n_rows, done

    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written >= self.every

    def write(self, number: int, reducer: Reducer, n_rows: int, done: bool) -> None:
        """Write what is there now: the passes before, and this one."""
        state = {name: np.array(value) for name, value in reducer.to_arrays().items()}
        state |= {"n_rows": np.array(n_rows), "done": np.array(done)}
        self._passes[number - 1 :] = [state]
        arrays = {"settings": np.array(json.dumps(self._settings)), "data": np.array(self._data)}
        for i, one in enumerate(self._passes):
            arrays |= {f"pass{i}_{name}": value for name, value in one.items()}
        write_arrays(self.path, FILE_KIND, FILE_VERSION, arrays)
        self._written = time.monotonic()

    def _load(self) -> None:
        try:
            _, arrays = read_arrays(self.path, {FILE_KIND: FILE_VERSION})
        except ValueError as error:
            raise ValueError(f"{error} Delete the file to start anew.") from None
        try:
            settings, data = json.loads(arrays.pop("settings").item()), arrays.pop("data").item()
            passes: dict[int, Arrays] = {}
            for name, value in arrays.items():
                number, _, field = name.removeprefix("pass").partition("_")
                passes.setdefault(int(number), {})[field] = value
            found = [passes[i] for i in range(len(passes))]
            if not all(one[name].ndim == 0 for one in found for name in ("n_rows", "done")):
                raise ValueError("n_rows and done must be numbers.")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.path} does not hold passes ({error}). Delete the file to start anew."
            ) from None
        names = settings.keys() | self._settings.keys()
        # refine comes first: it says what else counts.
        for name in sorted(names, key=lambda one: (one != "refine", one)):
            if (then := settings.get(name)) != (now := self._settings.get(name)):
                raise ValueError(
                    f"{self.path} is the checkpoint of another fit, with {name}={then} where "
                    f"this one has {now}; give the same settings, or delete the file to start "
                    "anew."
                )
        if data != self._data:
            raise ValueError(
                f"{self.path} is the checkpoint of a fit to other data; give the same, or delete "
                "the file to start anew."
            )
        self._passes = found

    def _remove_leftovers(self) -> None:
        """Remove what a run that was killed while writing has left."""
        # As `archive.replacing` names them.
        ours = re.compile(re.escape(self.path.name) + r"\.[a-z0-9_]{8}\.part")
        for path in self.path.parent.iterdir():
            if ours.fullmatch(path.name):
                path.unlink(missing_ok=True)


def check_every(every: Any) -> float:
    """Return the seconds between writes as a float.

    Parameters
    ----------
    every : float

    Returns
    -------
    every : float

    Raises
    ------
    ValueError
        If it is not a number of at least 0.
    """
    if not (isinstance(every, Real) and float(every) >= 0):
        raise ValueError(f"every must be a number of seconds, at least 0, got {every!r}.")
    return float(every)
