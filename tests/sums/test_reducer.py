"""What every sum over samples has: merging, copies, a state taken up whole or not at all."""

import copy
import pickle

import numpy as np
import pytest

from fastsym import MomentAccumulator, make_two_layer
from fastsym.activation import Activation
from fastsym.studies.hermite import HermiteAccumulator
from fastsym.sums.layout import ResidualSums
from fastsym.sums.residuals import ResidualAccumulator
from fastsym.sums.staging import SUPERBLOCK_ROWS

N = 20_000
X, Y, network = make_two_layer(N, 4, 3, 3, noise=0.1, random_state=0)
WEIGHTS = np.random.default_rng(0).choice([0.5, 1.0, 2.0], N)
HIDDEN, OUTPUTS = network.augmented()

KINDS = {
    "moments": lambda: MomentAccumulator(3),
    "residuals": lambda: ResidualAccumulator(4, 3, HIDDEN, OUTPUTS, Activation()),
    "hermite": lambda: HermiteAccumulator(np.eye(4)[:2]),
}


def rows(kind, part):
    """Samples of a part; Hermite moments take one output and no weights."""
    if kind == "hermite":
        return X[part], Y[part, :1]
    return X[part], Y[part], WEIGHTS[part]


def flat(result):
    """All numbers of a result."""
    values = vars(result).values() if hasattr(result, "__dict__") else result
    if isinstance(result, np.ndarray):
        return result.ravel()
    numbers = [np.ravel(v) for v in values if isinstance(v, int | float | np.ndarray)]
    return np.concatenate(numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_copies_and_states_do_not_change_a_bit(kind):
    whole = KINDS[kind]().take(*rows(kind, slice(None))).result()
    stream = KINDS[kind]()
    first = 0
    for last in (1, 8191, 8200, 17_000, N):
        stream.take(*rows(kind, slice(first, last)))
        first = last
        if last > 1:  # one row gives no frame
            stream.peek()
        stream = pickle.loads(pickle.dumps(copy.copy(stream)))
    np.testing.assert_array_equal(flat(stream.result()), flat(whole))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "moments"])
def test_a_state_that_does_not_fit_leaves_everything_as_it_was(kind):
    reducer = KINDS[kind]().take(*rows(kind, slice(0, 9000)))
    state = {name: value.copy() for name, value in reducer.to_arrays().items()}
    before = flat(reducer.peek())
    for name in state:
        if name.startswith("sum_") or name == "staged":
            with pytest.raises(ValueError, match="must have shape"):
                reducer.restore(state | {name: np.zeros((2, 2), np.float32)})
            np.testing.assert_array_equal(flat(reducer.peek()), before)
    again = KINDS[kind]().restore(state)
    assert (again.n_samples, again.weight) == (9000, reducer.weight)
    np.testing.assert_array_equal(flat(again.result()), flat(reducer.result()))


@pytest.mark.parametrize("kind", KINDS)
def test_merged_sums_are_those_of_all_samples(kind):
    whole = KINDS[kind]().take(*rows(kind, slice(None)))
    one = KINDS[kind]().take(*rows(kind, slice(0, 9000)))
    two = copy.copy(one) if kind == "moments" else KINDS[kind]()
    if kind == "moments":  # moments are merged in one frame
        two = MomentAccumulator(frame=one.frame)
        whole = MomentAccumulator(frame=one.frame).take(*rows(kind, slice(None)))
    two.take(*rows(kind, slice(9000, N)))
    merged = one + two
    assert merged.n_samples == N
    assert one.n_samples == 9000
    expected = flat(whole.result())
    np.testing.assert_allclose(
        flat(merged.result()), expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max()
    )


def test_sums_at_other_weights_are_not_merged():
    one = ResidualAccumulator(4, 3, HIDDEN, OUTPUTS, Activation())
    for other in (
        ResidualAccumulator(4, 3, HIDDEN, 2 * OUTPUTS, Activation()),
        ResidualAccumulator(4, 3, HIDDEN, OUTPUTS, Activation(0.5)),
    ):
        with pytest.raises(ValueError, match="these sums belong to other weights"):
            one.merge(other)


def test_rows_are_not_lost_when_their_sum_fails_once(monkeypatch):
    reducer, original = KINDS["residuals"](), ResidualSums.add

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(ResidualSums, "add", fail)
    with pytest.raises(MemoryError):
        reducer.take(X[:SUPERBLOCK_ROWS], Y[:SUPERBLOCK_ROWS])
    assert reducer.n_samples == SUPERBLOCK_ROWS
    monkeypatch.setattr(ResidualSums, "add", original)
    reducer.take(X[SUPERBLOCK_ROWS:], Y[SUPERBLOCK_ROWS:])
    whole = KINDS["residuals"]().take(X, Y).result()
    np.testing.assert_array_equal(flat(reducer.result()), flat(whole))
