"""Where minimisations begin: starts are values, and a kind of start is a generator of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastsym import spectral
from fastsym._validation import as_generator, check_pair
from fastsym.activation import Activation
from fastsym.algebra import Matrix
from fastsym.exceptions import RankError, SpectralGapWarning, warn
from fastsym.network import TwoLayerNetwork
from fastsym.refine.checks import angle_errors, flaws
from fastsym.refine.coordinates import Point, normalised
from fastsym.refine.minimisation import Fit, lowest_loss
from fastsym.refine.normal import DenseNormal
from fastsym.refine.problem import Problem
from fastsym.sources import PairedRows
from fastsym.spectral import SpectralSolution
from fastsym.sums.values import Moments

_DRAWS = 10_000
_LEAST = 2  # units, of those that do least
_KICKS = (1.0, 2.0, 4.0, 0.5, 1.0, 2.0, 4.0)  # standard errors


class Start(NamedTuple):
    """Weights to begin with.

    Parameters
    ----------
    name : str
        For messages.
    network : TwoLayerNetwork or Point
        A point in white coordinates where going through a network would round.
    trusted : bool, default=False
        Whether the optimum that it leads to is believed if it is the lowest so far and shows no
        lack of fit, as for a start with a clear spectral gap.
    """

    name: str
    network: TwoLayerNetwork | Point
    trusted: bool = False

    def point(self, problem: Problem) -> Point:
        """White coordinates of the start.

        Raises
        ------
        ValueError
            If it is a network of another shape or negative slope.
        """
        if isinstance(self.network, TwoLayerNetwork):
            if self.network.activation != problem.activation:
                raise ValueError(
                    f"start {self.name!r} has negative_slope={self.network.negative_slope}, the "
                    f"first one {problem.activation.negative_slope}; they must be the same."
                )
            return problem.point(self.network)
        return self.network


def as_starts(
    start: TwoLayerNetwork | Start | Iterable[Start], trusted: bool = False
) -> Iterator[Start]:
    """Return starts one by one.

    Parameters
    ----------
    start : TwoLayerNetwork, Start or iterable of Start
    trusted : bool, default=False
        Of a network.

    Returns
    -------
    starts : iterator of Start

    Raises
    ------
    TypeError
        If it is none of these.
    """
    if isinstance(start, TwoLayerNetwork):
        start = Start("given", start, trusted)
    if isinstance(start, Start):
        return iter([start])
    if not isinstance(start, Iterable):
        raise TypeError(_not_starts(start))
    return _each_start(start, trusted)


def _each_start(starts: Iterable[Any], trusted: bool) -> Iterator[Start]:
    for one in starts:
        if isinstance(one, TwoLayerNetwork):
            yield Start("given", one, trusted)
        elif isinstance(one, Start):
            yield one
        else:
            raise TypeError(_not_starts(one))


def _not_starts(value: Any) -> str:
    return (
        "start must be a TwoLayerNetwork, a Start or an iterable of these, got "
        f"{type(value).__name__}."
    )


def generator_of(random_state: Any) -> np.random.Generator:
    """Return the generator of further starts.

    Parameters
    ----------
    random_state : None, int, RandomState or Generator
        None: fixed.

    Returns
    -------
    rng : Generator
    """
    return as_generator(0 if random_state is None else random_state)


def spectral_start(solution: SpectralSolution) -> Start:
    """Start from what the moments gave.

    Parameters
    ----------
    solution : SpectralSolution

    Returns
    -------
    start : Start
        Trusted if the moments tell the units apart clearly. They know nothing of intercepts:
        where these are fitted, a trusted start only comes first.
    """
    return Start("spectral", solution.network, solution.diagnostics.clear)


def solve_or_warn(
    moments: Callable[[], Moments], random_state: Any = None
) -> SpectralSolution | None:
    """Solve moments for a start, where another start will do if they cannot be solved.

    Parameters
    ----------
    moments : callable
        Gives the moments, or raises RankError itself.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    solution : SpectralSolution or None
        None if the moments show fewer directions than n_hidden.

    Warns
    -----
    SpectralGapWarning
        If so.
    """
    try:
        return spectral.solve(moments(), random_state=random_state, warn=False)
    except RankError as error:
        warn(
            f"{error} The refinement starts from weights that agree with the linear part of Y "
            "instead.",
            SpectralGapWarning,
        )
        return None


def moment_starts(problem: Problem, rng: np.random.Generator) -> Iterator[Start]:
    """Yield starts A0 = U S^1/2 Q, W0 = Q^T S^1/2 V^T for random orthogonal Q.

    U S V^T is the best approximation of A W of rank n_hidden.

    Parameters
    ----------
    problem : Problem
    rng : Generator

    Yields
    ------
    start : Start
        More of them than any search takes.
    """
    k = problem.coordinates.n_free
    U, S, V = np.linalg.svd(problem.linear_part, full_matrices=False)
    rank = min(k, len(S))
    for _ in range(_DRAWS):
        Q = np.linalg.qr(rng.standard_normal((k, k)))[0] * rng.choice([-1.0, 1.0], k)
        Q = Q[:rank]
        hidden = (Q.T * np.sqrt(S[:rank])) @ V[:rank]
        outputs = (U[:, :rank] * np.sqrt(S[:rank])) @ Q
        if problem.fit_intercept:
            hidden = _with_biases(hidden, rng)
        yield Start("linear part", problem.completed(normalised(hidden, outputs, k)))


def random_starts(problem: Problem, rng: np.random.Generator) -> Iterator[Start]:
    """Yield starts in random directions, outputs by regression.

    They are independent of the linear part, which says little where it is nearly of lower rank than
    n_hidden, or where samples are few.

    Parameters
    ----------
    problem : Problem
    rng : Generator

    Yields
    ------
    start : Start
        More of them than any search takes.
    """
    k, q = problem.coordinates.n_free, problem.coordinates.to_inputs.shape[1]
    for _ in range(_DRAWS):
        hidden = rng.standard_normal((k, q))
        if problem.fit_intercept:
            hidden[:, 0] *= 0.5 * np.sqrt(q)
        yield Start("random", problem.regressed(hidden))


def _with_biases(hidden: Matrix, rng: np.random.Generator) -> Matrix:
    """Add biases, of which moments say nothing: they are drawn, of the size of the arguments."""
    size = np.linalg.norm(hidden, axis=1, keepdims=True)
    return np.concatenate([0.5 * size * rng.standard_normal((len(hidden), 1)), hidden], axis=1)


def followed_by_others(problem: Problem, start: Start, random_state: Any = None) -> Iterator[Start]:
    """Yield a start, then others.

    Parameters
    ----------
    problem : Problem
    start : Start
    random_state : None, int, RandomState or Generator
        Of the others. None: fixed.

    Yields
    ------
    start : Start
    """
    yield start
    yield from other_starts(problem, random_state)


def other_starts(problem: Problem, random_state: Any = None) -> Iterator[Start]:
    """Yield moment starts and random starts in turn, two of the former first.

    Parameters
    ----------
    problem : Problem
    random_state : None, int, RandomState or Generator
        None: fixed.

    Yields
    ------
    start : Start
        More of them than any search takes.
    """
    rng = generator_of(random_state)
    moments, others = moment_starts(problem, rng), random_starts(problem, rng)
    yield next(moments)
    if problem.coordinates.n_free == 1:  # there is one moment start but for its sign
        yield from others
        return
    for pair in zip(moments, others, strict=False):
        yield from pair


def repaired(problem: Problem, point: Point) -> Iterator[Start]:
    """Yield one start with doubled units merged, and free ones set where the residual bends most.

    The even part of a missing unit is a |w.x|, so that sum r_o x x^T has a w w^T in it: the free
    unit gets the leading eigenvector of the output direction that shows most of it.

    Parameters
    ----------
    problem : Problem
    point : Point

    Yields
    ------
    start : Start
        Nothing if the point has no flaw.
    """
    found = flaws(problem, point)
    if not found:
        return
    outputs = point.outputs.copy()
    for i, j in found:
        if i != j and point.hidden[i] @ point.hidden[j] > 0:
            outputs[:, i] += outputs[:, j]
    free = sorted({j for _, j in found})
    yield Start("repaired", _with_bends(problem, Point(point.hidden, outputs), free))


def replaced(problem: Problem, point: Point) -> Iterator[Start]:
    """Yield starts with one of the units that do least set where the residual bends most.

    They leave optima in which two units share the work of one, and a small one is missing.

    Parameters
    ----------
    problem : Problem
    point : Point

    Yields
    ------
    start : Start
    """
    sizes = np.linalg.norm(point.outputs[:, : problem.coordinates.n_free], axis=0)
    for j in np.argsort(sizes)[:_LEAST]:
        yield Start("replaced", _with_bends(problem, point, [int(j)]))


def _with_bends(problem: Problem, point: Point, free: list[int]) -> Point:
    """Set free units where the residual bends most, one after the other."""
    sample, activation = problem.sample, problem.activation
    bias = int(problem.fit_intercept)
    hidden, outputs = point.hidden.copy(), point.outputs.copy()
    outputs[:, free] = 0
    x = sample.inputs @ problem.coordinates.to_inputs[:, bias:]
    for j in free:
        residual = sample.targets - problem.units_at(hidden) @ outputs.T
        q = x.shape[1]
        bends = np.stack([(x * one[:, None]).T @ x for one in residual.T])
        bends -= np.trace(bends, axis1=1, axis2=2)[:, None, None] * np.eye(q) / q
        direction = np.linalg.svd(bends.reshape(len(bends), -1), full_matrices=False)[0][:, 0]
        values, vectors = np.linalg.eigh(np.tensordot(direction, bends, 1))
        hidden[j] = 0
        hidden[j, bias:] = vectors[:, np.abs(values).argmax()]
        active = activation(x @ hidden[j, bias:])
        if (square := active @ active) > 0:
            outputs[:, j] = active @ residual / square
    return Point(hidden, outputs)


def kicked(problem: Problem, fits: Sequence[Fit], rng: np.random.Generator) -> Iterator[Start]:
    """Yield starts near an optimum, drawn with a multiple of its standard errors.

    Directions that the samples hardly determine, as of nearly parallel units, are moved along
    furthest.

    Parameters
    ----------
    problem : Problem
    fits : sequence of Fit
        The optimum; what is added to it while starts are drawn counts for those that follow: each
        is near the lowest by then.
    rng : Generator

    Yields
    ------
    start : Start
    """
    k = problem.coordinates.n_free
    for kick in _KICKS:
        fit = lowest_loss(fits)
        hidden = fit.point.hidden[:k] + kick * _error(problem, fit, rng)
        yield Start("kicked", problem.regressed(hidden))


def _error(problem: Problem, fit: Fit, rng: np.random.Generator) -> Matrix:
    """Draw an error of the hidden weights at an optimum, (k, n_coordinates)."""
    k, q = problem.coordinates.n_free, fit.point.hidden.shape[1]
    if isinstance(fit.normal, DenseNormal):
        variance = fit.residuals.loss * problem.unit / problem.n_parameters
        try:
            step = np.sqrt(variance) * fit.normal.draw(rng)
        except np.linalg.LinAlgError:
            step = np.full((k, q), np.inf)
        if np.isfinite(step).all():
            return step
    errors = angle_errors(problem, fit.point, fit.residuals)[0] / np.sqrt(q)
    return np.minimum(errors, 1.0)[:, None] * rng.standard_normal((k, q))


def silenced(fit: Fit) -> Iterator[Start]:
    """Yield one start with the units of a fit and outputs of zero: no worse than nothing.

    Parameters
    ----------
    fit : Fit

    Yields
    ------
    start : Start
    """
    yield Start("silenced", fit.point._replace(outputs=np.zeros_like(fit.point.outputs)))


def moment_start(
    sample: PairedRows, n_hidden: int, *, negative_slope: float = 0.0, random_state: Any = None
) -> TwoLayerNetwork:
    """Draw a network that agrees with the linear part of y, for samples without a spectral start.

    Parameters
    ----------
    sample : PairedRows
    n_hidden : int
    negative_slope : float, default=0.0
    random_state : None, int, RandomState or Generator
        None: fixed.

    Returns
    -------
    network : TwoLayerNetwork
        A = U S^1/2 Q, W = Q^T S^1/2 V^T, with the best approximation A W = U S V^T of rank
        n_hidden in white coordinates and Q random orthogonal.

    Raises
    ------
    ValueError
        If the samples are not finite.
    """
    X, Y = check_pair(sample.X[:], sample.Y[:], values=not sample.checked)
    problem = Problem(X, Y, sample.weights, n_hidden, Activation(negative_slope))
    start = next(moment_starts(problem, generator_of(random_state)))
    return problem.network(start.point(problem))
