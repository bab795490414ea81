"""What a pass over samples sums: a monoid of staged blocks with a state and a result."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fastsym.sums.layout import Lanes
from fastsym.sums.staging import Stager

Arrays = dict[str, NDArray[Any]]


class Reducer(ABC):
    """Sums over samples, in memory that does not grow with their number.

    Rows are staged until a superblock is full, which is then added to the sums: the sizes of the
    chunks in which rows arrive do not change a bit. A subclass says how a staged block is added
    (`_add`), what its sums belong to (`_identity`) and what they are good for (`result`).

    Parameters
    ----------
    n_jobs : int, default=None
        Threads at most; None or -1: all that Numba has.
    stager : Stager, default=None
        None: made by the subclass when the shapes are known, before the first row.
    sums : Lanes, default=None
        None: made by the subclass before the first block is added.
    """

    _strangers: ClassVar[str]  # what sums of another identity belong to

    def __init__(
        self, n_jobs: int | None, stager: Stager | None = None, sums: Lanes | None = None
    ) -> None:
        self.n_jobs = n_jobs
        self._stager, self._sums = stager, sums
        self._n_summed, self._weight_summed, self._square_summed = 0, 0.0, 0.0

    @abstractmethod
    def _add(self, stager: Stager) -> None:
        """Add the staged rows to the sums."""

    @abstractmethod
    def _identity(self) -> Arrays:
        """Return what the sums belong to; others with another identity are refused."""

    @abstractmethod
    def result(self) -> Any:
        """Return what the samples so far amount to. Staged rows are summed."""

    @property
    def n_samples(self) -> int:
        """Rows taken in so far, staged ones included."""
        return self._n_summed + self.n_staged

    @property
    def n_staged(self) -> int:
        """Rows that are held and not summed yet."""
        return 0 if self._stager is None else self._stager.count

    @property
    def weight(self) -> float:
        """Sum of the weights of the rows taken in so far."""
        return self._weight_summed + (0.0 if self._stager is None else self._stager.weight)

    @property
    def n_effective(self) -> float:
        """Effective number of the rows taken in so far, (sum w)^2 / sum w^2."""
        total, squares = self._weight_summed, self._square_summed  # in the units of the sums
        if self._stager is not None:
            total += self._stager.weight
            squares += self._stager.weight_square
        return total**2 / squares if 0 < squares < np.inf else float(self.n_samples)

    def take(
        self, X: NDArray[Any], Y: NDArray[Any], weights: NDArray[np.float64] | None = None
    ) -> Self:
        """Take in samples that were checked.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
        Y : ndarray of shape (n_samples, n_outputs)
        weights : ndarray of shape (n_samples,), default=None
            Positive; None: all 1.

        Returns
        -------
        self : Reducer
        """
        assert self._stager is not None
        for _ in self._stager.fill(X, Y, weights):
            self._sum_staged()
        return self

    def _sum_staged(self) -> None:
        stager = self._stager
        assert stager is not None
        self._add(stager)
        self._n_summed += stager.count
        self._weight_summed += stager.weight
        self._square_summed += stager.weight_square

    def peek(self) -> Any:
        """Return `result` of a copy: staged rows stay so, and the next give the same bits."""
        return (copy.copy(self) if self.n_staged else self).result()

    def _flush(self) -> None:
        """Sum what is staged, at the end of the samples."""
        if self._stager is not None and self._stager.count:
            self._sum_staged()
            self._stager.count = 0

    def merge(self, other: Self) -> Self:
        """Take in what another object of the same identity has seen; it stays as it is.

        Parameters
        ----------
        other : Reducer

        Returns
        -------
        self : Reducer

        Raises
        ------
        ValueError
            If its sums belong to something else.
        """
        self._check_identity(other._identity())
        return self._absorb(other)

    def _absorb(self, other: Self) -> Self:
        """`merge` without the check."""
        assert self._stager is not None and other._stager is not None
        staged = other._stager.staged.copy()  # other may be self
        self._stager.weighted |= other._stager.weighted
        n_summed, weight_summed = other._n_summed, other._weight_summed
        square_summed = other._square_summed
        if self._sums is not None and other._sums is not None:
            self._sums.merge(other._sums)
        self._n_summed += n_summed
        self._weight_summed += weight_summed
        self._square_summed += square_summed
        for _ in self._stager.refill(staged):
            self._sum_staged()
        return self

    def __add__(self, other: Self) -> Self:
        if not isinstance(other, type(self)):
            return NotImplemented
        return copy.copy(self).merge(other)

    def to_arrays(self) -> Arrays:
        """Return the whole state, staged rows included, and what it belongs to, as named arrays."""
        stager = self._stager
        state: Arrays = {
            "n_summed": np.array(self._n_summed),
            "weight_summed": np.array(self._weight_summed),
            "weighted": np.array(stager is not None and stager.weighted),
            "staged": np.empty((0, 1)) if stager is None else stager.staged,
        }
        if state["weighted"]:
            state["square_summed"] = np.array(self._square_summed)
        sums = {} if self._sums is None else self._sums.to_arrays()
        return self._identity() | state | sums

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Take over a state that `to_arrays` gave, of an object of the same identity.

        Parameters
        ----------
        arrays : mapping of str to ndarray

        Returns
        -------
        self : Reducer

        Raises
        ------
        KeyError
            If an array is missing.
        ValueError
            If the state belongs to something else, or to other sizes.
        """
        self._check_identity(arrays)
        weighted = bool(arrays["weighted"].item())
        n_summed = int(arrays["n_summed"].item())
        weight_summed = float(arrays["weight_summed"].item())
        # It is not there without weights, and was not there before: equal ones.
        equal = weight_summed**2 / max(n_summed, 1)
        square_summed = float(
            arrays["square_summed"].item() if "square_summed" in arrays else equal
        )
        # All is checked before anything is taken over.
        if self._stager is not None:
            self._stager.check(arrays["staged"])
        if self._sums is not None:
            self._sums.check(arrays)
            self._sums.restore(arrays)
        if self._stager is not None:
            self._stager.restore(arrays["staged"], weighted)
        self._n_summed, self._weight_summed = n_summed, weight_summed
        self._square_summed = square_summed
        return self

    def _check_identity(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, mine in self._identity().items():
            if not np.array_equal(arrays[name], mine):
                raise ValueError(f"these sums belong to {self._strangers}: {name} differs.")

    def __copy__(self) -> Self:
        result = object.__new__(type(self))
        result.__dict__.update(self.__dict__)
        result._stager = copy.copy(self._stager)
        result._sums = None if self._sums is None else self._sums.copy()
        return result
