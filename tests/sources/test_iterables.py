"""Blocks of an iterable as a source."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from fastsym import TwoLayerRegressor, accumulate, parameter_error
from fastsym.sources import from_blocks, iterables, open_source

from .kinds import D, N


def test_blocks_that_can_be_read_again_give_the_optimum(data):
    X, Y = data
    expected = TwoLayerRegressor(3).fit(X, Y)
    blocks = [(X[i : i + 611], Y[i : i + 611]) for i in range(0, N, 611)]
    model = TwoLayerRegressor(3).fit(from_blocks(blocks))
    assert model.refinement_.n_samples == N
    # Other rows in the sample: within the tolerance of the passes, far below the standard errors.
    chance = (expected.hidden_stderr_**2).sum() + (expected.output_stderr_**2).sum()
    assert max(parameter_error(expected.network_, model.network_)) < 0.01 * chance
    assert model.loss_ == pytest.approx(expected.loss_, rel=1e-5)


def test_a_generator_is_fitted_in_one_pass(data):
    X, Y = data
    expected = TwoLayerRegressor(3).fit(X, Y)
    events = []
    blocks = ((X[i : i + 611], Y[i : i + 611]) for i in range(0, N, 611))
    model = TwoLayerRegressor(3).fit(from_blocks(blocks), callback=events.append)
    assert model.n_passes_ == 1
    assert model.n_features_in_ == D
    assert [event.n_rows for event in events][-1] == N
    assert events[-1].n_samples is None
    chance = (expected.hidden_stderr_**2).sum() + (expected.output_stderr_**2).sum()
    assert max(parameter_error(expected.network_, model.network_)) < 0.01 * chance
    with pytest.raises(ValueError, match="no samples"):
        model.fit(from_blocks(iter([])))


def test_a_stream_that_fails_leaves_nothing_behind(data):
    X, Y = data

    def blocks():
        yield X[:9000], Y[:9000]
        raise OSError("connection lost")

    model = TwoLayerRegressor(3)
    with pytest.raises(OSError, match="connection lost"):
        model.fit(from_blocks(blocks()))
    with pytest.raises(NotFittedError):
        _ = model.hidden_weights_
    model.partial_fit(X[:500], Y[:500])
    assert model.diagnostics_.n_samples == 500


def test_a_dataloader_works_as_it_is(data):
    torch = pytest.importorskip("torch")
    X, Y = (torch.from_numpy(part) for part in data)
    dataset = torch.utils.data.TensorDataset(X, Y)
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(dataset, batch_size=1000, shuffle=True)
    model = TwoLayerRegressor(3).fit(from_blocks(loader))
    expected = TwoLayerRegressor(3).fit(*data)
    # Other rows in the sample: within the tolerance of the passes, far below the standard errors.
    chance = (expected.hidden_stderr_**2).sum() + (expected.output_stderr_**2).sum()
    assert max(parameter_error(expected.network_, model.network_)) < 0.01 * chance


@settings(max_examples=40)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=30), st.integers(1, 400))
def test_spread_of_blocks_is_even_and_does_not_depend_on_their_sizes(sizes, count):
    total = sum(sizes)
    if total == 0:
        with pytest.raises(ValueError, match="no samples"):
            _ = from_blocks([(np.empty((0, 1)), np.empty((0, 1)))]).n_samples
        return
    rows = np.arange(float(total))[:, None]

    def cut(sizes):
        ends = np.cumsum(sizes)
        return from_blocks(
            [(rows[e - s : e], rows[e - s : e]) for e, s in zip(ends, sizes, strict=True)]
        )

    source = cut(sizes)
    assert source.n_samples == total
    X, Y, weights = source.spread(count)
    assert weights is None
    np.testing.assert_array_equal(X, Y)
    assert len(X) == min(count, total)
    assert (np.diff(X[:, 0]) > 0).all()
    np.testing.assert_array_equal(X, cut([total]).spread(count)[0])


def test_spread_of_many_blocks_thins_evenly(monkeypatch):
    monkeypatch.setattr(iterables, "_SURVEY_BYTES", 64_000)  # 4000 rows of two columns
    rows = np.arange(100_000.0)[:, None]
    source = from_blocks([(rows[i : i + 300], rows[i : i + 300]) for i in range(0, 100_000, 300)])
    for count in (1000, 20_000):  # the second is more than the first pass keeps
        X = source.spread(count)[0][:, 0]
        assert count <= len(X) <= 2 * count + 32
        assert (np.diff(X) > 0).all()
        assert np.diff(X).max() <= 64 * 100_000 / count
        assert X[0] < 100_000 / 50
        assert X[-1] > 98_000


def test_bad_blocks():
    good = np.zeros((3, 2)), np.zeros((3, 1))
    for blocks, message in (
        ([good[0]], "must yield"),
        ([(good[0],)], "must yield"),
        ([good, (np.zeros((3, 4)), good[1])], r"row 3 has 4 features .* before 2 and 1"),
        ([good, (np.zeros((2, 2)), good[1])], "same number of rows.*in the block at row 3"),
        ([(*good, [1, 1, 1]), (*good, [1, 2, -1])], r"sample_weight must be .* in row 5"),
    ):
        with pytest.raises(ValueError, match=message):
            _ = from_blocks(blocks).n_samples
    with pytest.raises(TypeError, match="must be iterable"):
        from_blocks(3)
    one_shot = from_blocks(iter([good]))
    with pytest.raises(TypeError, match="read only once"):
        accumulate(one_shot, 1)
    for name in ("client", "checkpoint"):
        with pytest.raises(TypeError, match=f"{name} needs samples that can be read more than"):
            TwoLayerRegressor(1).fit(from_blocks(iter([good])), **{name: "x"})
    with pytest.raises(ValueError, match="must be None where X is a source"):
        TwoLayerRegressor(1).fit(from_blocks([good]), [1])


def test_blocks_that_only_seem_to_be_readable_again(data):
    X, Y = data

    class Once:
        def __init__(self):
            self.blocks = iter([(X, Y)])

        def __iter__(self):
            return self.blocks

    with pytest.raises(ValueError, match=r"\(Once\) were empty when they were read again"):
        TwoLayerRegressor(3, refine=False).fit(from_blocks(Once()))
    mixed = [(X[:9], Y[:9]), (X[9:20], Y[9:20], np.ones(11))]
    for blocks in (mixed, mixed[::-1]):
        with pytest.raises(ValueError, match="weights, unlike those before"):
            TwoLayerRegressor(3).fit(from_blocks(blocks))
    with pytest.raises(ValueError, match="must yield"):
        TwoLayerRegressor(3).fit(from_blocks([{"X": X, "Y": Y}]))
    with pytest.raises(ValueError, match="at least one file"):
        open_source([])


class Growing:
    """Ten rows a block, other numbers of blocks in the first pass and in later ones."""

    def __init__(self, first, later):
        self.counts = itertools.chain([first], itertools.repeat(later))

    def __iter__(self):
        return itertools.repeat((np.ones((10, 2)), np.ones((10, 1))), next(self.counts))


def test_a_later_pass_ends_though_the_blocks_do_not():
    source = from_blocks(Growing(5, 11))  # twice the rows and one block
    assert source.n_samples == 50
    assert sum(len(X) for X, _, _ in source.blocks()) == 110
    for later in (12, 10**9):
        source = from_blocks(Growing(5, later))
        assert source.n_samples == 50
        read = 0
        with pytest.raises(ValueError, match=r"\(Growing\) gave 50 rows in the .* than 110 in"):
            for X, _, _ in source.blocks():
                read += len(X)
        assert read == 110


class Endless:
    """Blocks of so many rows that never end, anew each time."""

    def __init__(self, n_rows):
        self.block = np.ones((n_rows, 2)), np.ones((n_rows, 1))

    def __iter__(self):
        return itertools.repeat(self.block)


def test_max_rows_ends_blocks_that_do_not():
    for blocks in (Endless(300), iter(Endless(300))):
        with pytest.raises(ValueError, match=r"more than max_rows=5000 rows; give a larger"):
            TwoLayerRegressor(1).fit(from_blocks(blocks, max_rows=5000))
    blocks = list(itertools.islice(Endless(300), 4))
    assert from_blocks(blocks, max_rows=1200).n_samples == 1200
    with pytest.raises(ValueError, match="max_rows=1199"):
        _ = from_blocks(blocks, max_rows=1199).n_samples
    for bad in (0, 2.5, "many"):
        with pytest.raises(ValueError, match="max_rows must be None or an integer of at least 1"):
            from_blocks(blocks, max_rows=bad)


def test_blocks_without_rows_for_ever_are_an_error():
    for blocks in (Endless(0), iter(Endless(0))):
        with pytest.raises(ValueError, match=r"gave 10000 blocks without rows .* at row 0; leave"):
            TwoLayerRegressor(1).fit(from_blocks(blocks))
    few = iterables.MAX_EMPTY_BLOCKS - 1
    empty, full = Endless(0).block, Endless(3).block
    gaps = [*[empty] * few, full, *[empty] * few, full]
    assert from_blocks(gaps).n_samples == 6
    with pytest.raises(ValueError, match="at row 6; leave out empty blocks"):
        _ = from_blocks([*gaps, *[empty] * (few + 1)]).n_samples
