"""Lack of fit: whether the residual of a network still depends on x, tested with a known level.

At the least-squares optimum the residual is orthogonal to the tangent space of the model. What is
tested is whether it is orthogonal to further features too: linear ones, bends |v.x|, and bends off
the origin, |v.x + b| and 1. The null distribution of all statistics together comes from random
signs of the residuals (a wild bootstrap; Liu (1988), doi:10.1214/aos/1176351062), so that noise
that differs from row to row, or from output to output, is allowed for.
"""

from typing import NamedTuple

import numpy as np

from fastsym.algebra import Matrix, unit_rows, whitening
from fastsym.refine.coordinates import Point
from fastsym.refine.normal import DenseNormal, Normal
from fastsym.refine.problem import Problem
from fastsym.refine.sample import Sample

SIGNIFICANT = 2e-3
"""p-value of the lack of fit below which a fit warns."""

KINDS = ("linear", "bends", "shifted", "constant")
"""Kinds of features: v.x; |v.x| and |x|; |v.x + b|; 1 beyond what is homogeneous in x."""

_ROWS = 5500  # used at most, or so many for each feature
_ROWS_TURNED = 2048  # used for how features change with the weights
_ROWS_PER_FEATURE = 16
_BLOCKS = 128  # of consecutive rows, which share a sign: rows near each other may be dependent
_FEWEST_ROWS = 16  # so many signs at least
_DRAWS = 127
_LINEAR = 16  # directions in which a linear part is looked for
_DEPENDENT = 1e-5  # share of a feature beyond those before it that is rounding
_POWER = 3.2  # standard deviations: 2.3 for the level among several statistics, 0.84 for the power
_RANKED = 0.03  # p-values above this are ranks among the draws
_MOST_LEVERAGE = 0.9
_JOINED = 8  # blocks, where rows depend on each other
_DEPENDENCE = 1.5  # times what chance gives, from which they do
_FEWEST_BLOCKS = 5.0  # that hold the loss: signs of fewer have no null distribution
_LEAST_EXPONENT = -50.0  # a tail of 1
_TINY = float(np.finfo(np.float32).tiny)
_DAMPING = 1e-6  # directions that are determined worse have no digits in single precision
_CLEAR = 4.0  # standard deviations of a kind of feature that a cause is read from
_MOSTLY = 3.0  # times as much explained
_GUMBEL = np.sqrt(6) / np.pi


class LackOfFit(NamedTuple):
    """Result of `lack_of_fit`.

    Parameters
    ----------
    p_value : float
        Chance of a residual that depends on x as much as this one where the model is right and the
        optimum found; 1 if it cannot be tested (no residual, fewer observations than weights or
        than 16 rows, or a few rows that hold the loss).
    misfit : float
        The largest of the statistics, in standard deviations of its null distribution.
    cause : str
        Kind of feature that explains the residual best: "linear"; "constant", an even part that
        does not grow as |x|, as of a constant or of biases; "bends", as of further units; "" where
        nothing is tested. A refinement says "linear" too where a linear predictor alone is far
        better than the network.
    explained : float
        Share of the loss that these explain beyond chance; that a linear predictor alone saves, in
        the last case.
    detectable : float
        Excess loss, relative to the loss, that would be noticed at the level of 5 % with a power of
        80 % if it lay in the features; infinite where nothing is tested.
    """

    p_value: float
    misfit: float
    cause: str
    explained: float
    detectable: float

    @property
    def significant(self) -> bool:
        """Whether the model does not describe the samples."""
        return self.p_value < SIGNIFICANT


UNTESTED = LackOfFit(1.0, 0.0, "", 0.0, float("inf"))
"""Where there is nothing to test."""

WRONG = LackOfFit(0.0, float("inf"), "", float("inf"), 0.0)
"""Of a residual that is not finite."""


class _Rows(NamedTuple):
    """What the scores of rows are made of, times the roots of their weights.

    In float32, which is enough for statistics whose null distribution is drawn.
    """

    root: Matrix  # (n, 1), roots of the weights
    x: Matrix  # (n, q), white
    units: Matrix  # (n, rank), orthonormal: h is units @ to_hidden
    masks: Matrix  # (n, k), slopes of the activations
    residual: Matrix  # (n, m), in units of its largest value
    outputs: Matrix  # (m, k), A in units of its largest value
    to_hidden: Matrix  # (rank, n_units), in double precision


class _Features(NamedTuple):
    """Features, and what the units explain of them; the last column is the constant."""

    values: Matrix  # (n, n_features)
    linear: slice
    bends: slice  # |x| and |v.x|
    shifted: slice
    by_units: Matrix  # (rank, n_features): regression of the values on the units
    gram: Matrix  # (n_features, n_features), of what the units leave


class _Scores(NamedTuple):
    """Sums over rows; the first axis is of blocks of rows, or of draws of signs."""

    features: Matrix  # (..., n_features, m): sum of feature times residual
    hidden: Matrix  # (..., k, q): sum of s_i (A_i r) x
    units: Matrix  # (..., m, rank): sum of r units^T

    def signed(self, signs: Matrix) -> "_Scores":
        """Add up all blocks, each times its sign: signs is (n_draws, n_blocks)."""
        return _Scores(
            *(
                (signs @ one.reshape(len(one), one[0].size)).reshape(len(signs), *one.shape[1:])
                for one in self
            )
        )


def lack_of_fit(problem: Problem, point: Point, normal: Normal | None = None) -> LackOfFit:
    """Test whether the residual at a point depends on x.

    Features are made orthogonal to the hidden units, and their products with the residual to the
    hidden weights' part of the tangent space, by a Gauss-Newton step (not where no normal matrix is
    formed; the test then rejects less often than its level).

    Parameters
    ----------
    problem : Problem
    point : Point
        The optimum.
    normal : Normal, default=None
        The normal matrix near it. None: taken there.

    Returns
    -------
    result : LackOfFit
    """
    sample, k = problem.sample, problem.coordinates.n_free
    if not problem.unit < 1:
        return UNTESTED
    inputs, targets, repeats = _looked_at(sample, max(_ROWS, _ROWS_PER_FEATURE * (5 * k + 1)))
    t = inputs @ problem.coordinates.weights(point).T
    h = problem.activation.of_units(t, k)
    residual = targets - h @ point.outputs.T
    loss = float((residual**2).sum())
    if not np.isfinite(loss):
        return WRONG
    if not (loss > 0 and h.any()) or len(residual) < _FEWEST_ROWS:
        return UNTESTED
    # In units in which single precision neither overflows nor loses anything.
    weight = np.sqrt((inputs[:, 0] ** 2).mean())
    size = np.abs(point.outputs).max() or 1.0
    gram = h.T @ h / weight**2
    white = whitening(gram)
    arrays = (
        inputs[:, :1] / weight,
        inputs @ (problem.coordinates.to_inputs / weight),
        h @ white / weight,
        problem.activation.derivative(t[:, :k]),
        residual / np.abs(residual).max(),
        point.outputs[:, :k] / size,
    )
    single = [one.astype(np.float32) for one in arrays]
    staged = _Rows(*single, to_hidden=white.T @ gram)  # type: ignore
    features = _features(problem, staged)
    # Fitting has shrunk the residuals that the signs are given to, most where the leverage is high.
    kept = 1 - _leverage(problem, staged)
    shrunk = staged._replace(residual=staged.residual / np.sqrt(kept)[:, None])
    here, blocks = _sums(len(residual), features, staged), _blocks(repeats, features, shrunk)
    if blocks is None:
        return UNTESTED
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_DRAWS, len(blocks.hidden)))
    pairs = zip(here, blocks.signed(signs), strict=True)
    both = _Scores(*map(np.concatenate, pairs))
    share = sample.weight / len(residual)
    try:
        if normal is None and problem.is_dense:
            normal = problem.normal(point)
        scores = _projected(both, features, staged, normal, size, share)
    except np.linalg.LinAlgError:  # the weights are not determined, and have no tangent space
        scores = _projected(both, features, staged, None, size, share)
    return _judged(_statistics(scores, features), float((staged.residual.astype(float) ** 2).sum()))


def _looked_at(sample: Sample, n_rows: int) -> tuple[Matrix, Matrix, int]:
    """Spread rows over the sample, equal ones side by side, and count how many are equal."""
    step = -(-sample.n_samples // n_rows)
    inputs, targets = sample.inputs[::step], sample.targets[::step]
    if len(np.unique(targets[:, 0])) == len(targets):
        return inputs, targets, 1
    rows = np.concatenate([inputs, targets], axis=1)
    _, first, which, counts = np.unique(
        rows, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first[which.ravel()], kind="stable")
    return inputs[order], targets[order], int(counts.max())


def _blocks(repeats: int, features: _Features, rows: _Rows) -> _Scores | None:
    """Sum scores over the blocks that share a sign; None if a few of them hold the loss.

    Equal rows are in one block, so far as they are as many each. Where rows near each other depend
    on each other, as of a time series, the sums of several blocks are larger than chance lets them
    be, and blocks are taken so long.
    """
    size = -(-len(rows.x) // _BLOCKS)
    size = -(-size // repeats) * repeats
    squares = (_in_blocks(rows.residual, size).astype(float) ** 2).sum(axis=(1, 2))
    if squares.sum() ** 2 < _FEWEST_BLOCKS * (squares @ squares):
        return None
    # Off their mean, which is what a lack of fit gives, and no part of chance.
    grow = np.sqrt(len(squares) / (len(squares) - 1))
    blocks = _Scores(*((one - one.mean(axis=0)) * grow for one in _sums(size, features, rows)))
    if len(squares) < 2 * _JOINED:
        return blocks
    longer = _Scores(*(_in_blocks(one, _JOINED).sum(axis=1) for one in blocks))
    chance = (blocks.features**2).sum()
    return longer if (longer.features**2).sum() > _DEPENDENCE * chance else blocks


def _features(problem: Problem, rows: _Rows) -> _Features:
    """Work out features of all kinds."""
    k, bias = problem.coordinates.n_free, int(problem.fit_intercept)
    x = rows.x[:, bias:]
    n, q = x.shape
    few = max(1, n // _ROWS_PER_FEATURE)
    n_linear, n_bends = min(q, _LINEAR, few), 2 * min(k, few)
    rng = np.random.default_rng(1)
    # The span of A W, from second moments alone, is right also where the fit is not.
    span = np.linalg.svd(problem.linear_part, full_matrices=False)[2][:k]
    # The signs of singular vectors are the library's: other outputs must not change the features.
    span = span * np.sign(span[np.arange(len(span)), np.abs(span).argmax(axis=1)])[:, None]
    inside = rng.standard_normal((n_bends // 2, len(span))) @ span
    anywhere = rng.standard_normal((n_bends // 2, q))
    axes = np.eye(q) if q == n_linear else rng.standard_normal((q, n_linear))
    shifts = rng.uniform(0.3, 1.5, n_bends // 2) * rng.choice([-1.0, 1.0], n_bends // 2)
    along = x @ unit_rows(np.concatenate([inside, anywhere])).T.astype(np.float32)
    shifted = along[:, ::2] + rows.root * shifts.astype(np.float32)
    radius = np.sqrt((x**2).sum(axis=1, keepdims=True))
    parts = [x @ axes.astype(np.float32), radius, np.abs(along), np.abs(shifted), rows.root]
    values = np.concatenate(parts, axis=1)
    explained = (rows.units.T @ values).astype(float)
    gram = (values.T @ values).astype(float)
    size = np.diag(gram).copy()
    gram -= explained.T @ explained
    left = np.diag(gram) > _DEPENDENT * size  # but for rounding
    gram *= left & left[:, None]
    linear, bends = slice(n_linear), slice(n_linear, n_linear + 1 + n_bends)
    shifted = slice(bends.stop, -1)
    return _Features(values, linear, bends, shifted, explained, gram)


def _leverage(problem: Problem, rows: _Rows) -> Matrix:
    """Share of each row's squared residual that fitting has taken, on average over its outputs."""
    n_rows, q = rows.x.shape
    share = n_rows / problem.sample.n_samples
    outputs = share * (rows.units**2).sum(axis=1)
    driven = (rows.x**2).sum(axis=1) * (rows.masks**2).sum(axis=1)
    hidden = (
        share
        * rows.masks.shape[1]
        * (q - 1)
        / problem.n_outputs
        * driven
        / max(driven.sum(), _TINY)
    )
    return np.minimum(outputs + hidden, _MOST_LEVERAGE)


def _sums(size: int, features: _Features, rows: _Rows) -> _Scores:
    """Sum scores over blocks of `size` consecutive rows."""

    def products(left: Matrix, right: Matrix) -> Matrix:
        left, right = _in_blocks(left, size), _in_blocks(right, size)
        return (left.transpose(0, 2, 1) @ right).astype(float)

    driven = rows.masks * (rows.residual @ rows.outputs)
    return _Scores(
        products(features.values, rows.residual),
        products(driven, rows.x),
        products(rows.residual, rows.units),
    )


def _in_blocks(rows: Matrix, size: int) -> Matrix:
    """Reshape to (n_blocks, size, ...), the last block filled up with zeros."""
    if len(rows) % size:
        rows = np.concatenate([rows, np.zeros((-len(rows) % size, *rows.shape[1:]), rows.dtype)])
    return rows.reshape(len(rows) // size, size, *rows.shape[1:])


def _projected(
    scores: _Scores,
    features: _Features,
    rows: _Rows,
    normal: Normal | None,
    size: float,
    share: float,
) -> Matrix:
    """Products of features and residuals, off the tangent space: (n_draws, n_features, m).

    size is the unit of the rows' outputs, share the weight of the samples of the normal matrix over
    that of these rows.
    """
    by_units = features.by_units
    products = scores.features - np.swapaxes(scores.units @ by_units, 1, 2)
    if not isinstance(normal, DenseNormal):
        return products
    outputs = share * (scores.units @ rows.to_hidden)
    steps = normal.hidden_steps(size * share * scores.hidden, outputs, _DAMPING)
    # The same for all draws, so that some of the rows will do.
    step = max(1, len(rows.x) // _ROWS_TURNED)
    masks, x, units = rows.masks[::step], rows.x[::step], rows.units[::step]
    n, k, q = len(x), normal.k, normal.q
    derivatives = (masks[:, :, None] * x[:, None, :]).reshape(n, k * q)
    turned = (derivatives.T @ features.values[::step]) - (derivatives.T @ units) @ by_units
    turned = turned.reshape(k, q, len(features.gram)) * (len(rows.x) / n)
    moved = np.einsum("bia,iaf->bfi", steps, turned, optimize=True)
    return products - moved @ (size * rows.outputs.astype(float)).T


def _statistics(scores: Matrix, features: _Features) -> Matrix:
    """Sum squares by kind, and pick the largest of a single bend: (n_draws, n_kinds + 1)."""
    gram = features.gram
    kinds, statistics = (features.linear, features.bends, features.shifted), []
    for kind in kinds:
        white = whitening(gram[kind, kind], _DEPENDENT)
        products = np.swapaxes(scores[:, kind], 1, 2) @ white
        statistics.append((products**2).sum(axis=(1, 2)))
    # What is homogeneous in x, as units without biases are, has nothing to do with what is left of
    # the constant beyond |x|: the one is a function of the angles, the other of the radius.
    bends = features.bends
    white = whitening(gram[bends, bends], _DEPENDENT)
    homogeneous = white @ (white.T @ gram[bends, -1])
    left = gram[-1, -1] - gram[bends, -1] @ homogeneous
    constant = scores[:, -1] - np.einsum("f,bfo->bo", homogeneous, scores[:, bends])
    known = left > _DEPENDENT * max(gram[-1, -1], _DEPENDENT)
    statistics.append((constant**2).sum(axis=1) / (left if known else np.inf))
    sizes = np.diag(gram)
    single = (scores**2).sum(axis=2) / np.where(sizes > 0, sizes, np.inf)
    statistics.append(single[:, bends.start : -1].max(axis=1))
    return np.stack(statistics, axis=1)


def _judged(statistics: Matrix, loss: float) -> LackOfFit:
    """Compare the statistics (first row) with their draws, and the largest with that of draws."""
    # Cube roots of weighted sums of squares are about normal (Wilson and Hilferty (1931),
    # doi:10.1073/pnas.17.12.684).
    roots = np.cbrt(statistics)
    if not np.isfinite(roots).all():
        return WRONG
    mean, spread = roots[1:].mean(axis=0), roots[1:].std(axis=0, ddof=1)
    scores = (roots - mean) / np.where(spread > _DEPENDENT * mean, spread, np.inf)
    largest, others = float(scores[0].max()), scores[1:].max(axis=1)
    rank = float((1 + (others >= largest).sum()) / (1 + len(others)))
    if not others.std() > _DEPENDENT:  # there is nothing that signs change
        return UNTESTED
    scale = _GUMBEL * others.std(ddof=1)
    exponent = max((largest - others.mean()) / scale + np.euler_gamma, _LEAST_EXPONENT)
    tail = float(-np.expm1(-np.exp(-exponent)))
    # What each kind explains beyond chance.
    explained = dict(zip(KINDS, (statistics[0] - statistics[1:].mean(axis=0)) / loss, strict=False))
    scored = dict(zip(KINDS, scores[0].tolist(), strict=False))
    return LackOfFit(
        p_value=rank if rank > _RANKED else min(tail, _RANKED),
        misfit=largest,
        cause=_cause(explained, scored),
        explained=float(max(explained.values())),
        detectable=_POWER * float(statistics[1:, KINDS.index("bends")].std(ddof=1)) / loss,
    )


def _cause(explained: dict[str, float], scores: dict[str, float]) -> str:
    """Pick the kind of feature that the residual is likely to come from."""
    even = max(explained["bends"], explained["shifted"])
    if scores["linear"] > _CLEAR and explained["linear"] > _MOSTLY * even:
        return "linear"
    if scores["constant"] > _CLEAR or explained["shifted"] > _MOSTLY * explained["bends"]:
        return "constant"
    return "bends"
