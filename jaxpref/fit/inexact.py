"""Newton-CG for the plain Bradley-Terry model: fast where counts are many and well spread.

Steps are solved for by conjugate gradients, scaled by the diagonal of the information, no more
accurately than the distance still to go deserves. A step is kept if the slope along it has not
turned downhill: the log-likelihood being concave, that is a climb, and the slope comes with the
next step's gradient at no cost. Once steps are short the information is not formed again, which
halves the cost of looking. It gives up, and :mod:`jaxpref.fit.careful` takes over, where the
graph is chain-like (slow conjugate gradients), scores spread too far for strengths to be summed,
or rounding in the sums could reach the tolerance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from .layout import Layout, choose_layout

_WIDEST = 60.0
_MOST_STEPS = 25
_MOST_PRODUCTS = 120
_LOOSEST, _TIGHTEST = 0.1, 1e-7
_PIECE = 2**13
_NEAR = 1e-4
"""After a step below this the information is as good as it was, to a share of the step's size."""
_ROUNDING = 4 * np.finfo(np.float64).eps


class FastFit(NamedTuple):
    """Scores that sum to zero; `step_size` is that of one more step, which was not taken."""

    scores: Float64[np.ndarray, " items"]
    log_likelihood: float
    gradient_norm: float
    step_size: float
    steps: int


class _Point(NamedTuple):
    scores: Float64[np.ndarray, " items"]
    gradient: Float64[np.ndarray, " items"]
    diagonal: Float64[np.ndarray, " items"]
    expected: Float64[np.ndarray, " items"]


class _Found(NamedTuple):
    point: _Point
    size: float
    steps: int


def fit_fast(
    item_a: np.ndarray,
    item_b: np.ndarray,
    wins_a: Float64[np.ndarray, " pairs"],
    wins_b: Float64[np.ndarray, " pairs"],
    num_items: int,
    *,
    ridge: float,
    tolerance: float,
    max_steps: int,
) -> FastFit | None:
    """Return the maximum of the penalised Bradley-Terry likelihood, or None to have it done slowly.

    Parameters
    ----------
    item_a, item_b : (pairs,)
        Indices of the items of each pair, item_a < item_b, sorted, each pair once, every item in
        some pair.
    wins_a, wins_b : (pairs,)
        Wins of either.
    num_items : int
        Number of items.
    ridge, tolerance, max_steps
        As in :func:`jaxpref.fit.fit_pairwise`.

    Returns
    -------
    FastFit or None
        Converged: a further step would move no score by more than the tolerance.

    >>> import numpy as np
    >>> a, b = np.array([0, 0, 1]), np.array([1, 2, 2])
    >>> won, lost = np.array([2.0, 4.0, 2.0]), np.ones(3)
    >>> found = fit_fast(a, b, won, lost, 3, ridge=0.0, tolerance=1e-10, max_steps=50)
    >>> np.round(np.diff(found.scores), 6)  # log 2 apart
    array([-0.693147, -0.693147])
    """
    total = wins_a + wins_b
    layout = choose_layout(item_a, item_b, total, num_items)
    wins = layout.wins(wins_a, wins_b)
    start = _first_guess(wins, layout.totals(), ridge)
    found = _search(layout, wins, start, ridge, tolerance, max_steps)
    if found is None:
        return None
    value = _log_likelihood(item_a, item_b, total, wins, found.point.scores)
    gradient = float(np.abs(found.point.gradient).max())
    return FastFit(found.point.scores, value, gradient, found.size, found.steps)


def refit_matrix(
    wins: Float64[np.ndarray, "items items"],
    start: Float64[np.ndarray, " items"],
    *,
    tolerance: float,
    max_steps: int,
) -> Float64[np.ndarray, " items"] | None:
    """Return the scores that fit a matrix of wins, row over column, from scores that are close.

    None where :func:`fit_fast` would return None. Every item can be reached from every other along
    wins, or there is no maximum to find.

    >>> import numpy as np
    >>> wins = np.array([[0.0, 3.0], [1.0, 0.0]])
    >>> refit_matrix(wins, np.zeros(2), tolerance=1e-10, max_steps=50)  # log 3 apart
    array([ 0.54930614, -0.54930614])
    """
    size = len(start)
    total = np.triu(wins + wins.T, 1)
    item_a, item_b = np.nonzero(total)
    layout = choose_layout(item_a, item_b, total[item_a, item_b], size)
    found = _search(layout, wins.sum(axis=1), _centred(start), 0.0, tolerance, max_steps)
    return None if found is None else found.point.scores


def _search(
    layout: Layout,
    wins: Float64[np.ndarray, " items"],
    start: Float64[np.ndarray, " items"],
    ridge: float,
    tolerance: float,
    max_steps: int,
) -> _Found | None:
    """Return where no further step is worth taking, None where that is not found."""
    point = _look(layout, wins, start, ridge)
    size = 1.0
    for step in range(min(max_steps, _MOST_STEPS)):
        if not point.diagonal.min() > 0:
            return None
        direction = _solve(layout, point, _accuracy(size, tolerance))
        if direction is None:
            return None
        size = float(np.abs(direction).max())
        limit = tolerance * max(1.0, float(np.abs(point.scores).max()))
        if size <= limit:
            return None if _rounding(wins, point) > limit else _Found(point, size, step)
        point = _advance(layout, wins, point, direction, ridge)
        if point is None:
            return None
    return None


def _log_likelihood(
    item_a: np.ndarray,
    item_b: np.ndarray,
    total: Float64[np.ndarray, " pairs"],
    wins: Float64[np.ndarray, " items"],
    scores: Float64[np.ndarray, " items"],
) -> float:
    """Return sum_i wins_i s_i - sum_ab n_ab log(e_a + e_b), one logarithm a pair."""
    strength = np.exp(scores)
    value = float(wins @ scores)
    for start in range(0, len(total), _PIECE):  # pieces stay in the processor's cache
        here = slice(start, start + _PIECE)
        either = strength.take(item_a[here])
        either += strength.take(item_b[here])
        value -= float(total[here] @ np.log(either, out=either))
    return value


def _first_guess(
    wins: Float64[np.ndarray, " items"], played: Float64[np.ndarray, " items"], ridge: float
) -> Float64[np.ndarray, " items"]:
    """Return the scores at which items met opponents at large, half a win added either way.

    Against opponents of variance v an item of score s wins with probability close to
    g(s / sqrt(1 + pi v / 8)); v follows from the spread of the log-odds.
    """
    odds = np.log((wins + 0.5) / (played - wins + 0.5))
    odds = _centred(odds)
    spread = min(float(odds @ odds) / len(odds) * np.pi / 8, 0.8)
    guess = odds / np.sqrt(1 - spread)
    if ridge:
        guess *= 1 / (1 + 4 * ridge / np.maximum(played, 1e-300))
    return _centred(guess)


def _centred(values: Float64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
    return values - np.add.reduce(values) / len(values)


def _accuracy(size: float, tolerance: float) -> float:
    """Return how far to reduce the residual, after a step of the given size.

    The next step is expected to be the square of the last one, and the one after that its fourth
    power: nothing is gained by an error below either that or the tolerance.
    """
    expected = size * size
    return min(_LOOSEST, max(_TIGHTEST, expected, 0.1 * tolerance / max(expected, tolerance)))


def _look(
    layout: Layout,
    wins: Float64[np.ndarray, " items"],
    scores: Float64[np.ndarray, " items"],
    ridge: float,
    near: _Point | None = None,
) -> _Point:
    """Return the gradient, the information's diagonal and the expected wins at the scores.

    The information is that of a point `near` by, where there is one.
    """
    if near is None:
        wanted, diagonal = layout.expect(np.exp(scores))
        diagonal = diagonal + ridge if ridge else diagonal
    else:
        wanted, diagonal = layout.expect_wins(np.exp(scores)), near.diagonal
    gradient = wins - wanted
    return _Point(scores, gradient - ridge * scores if ridge else gradient, diagonal, wanted)


def _rounding(wins: Float64[np.ndarray, " items"], point: _Point) -> float:
    """Return what rounding in an item's own sum may do to its score."""
    return _ROUNDING * float(((wins + point.expected) / point.diagonal).max())


def _advance(
    layout: Layout,
    wins: Float64[np.ndarray, " items"],
    point: _Point,
    direction: Float64[np.ndarray, " items"],
    ridge: float,
) -> _Point | None:
    """Return the point a step further, shortened until the slope does not turn downhill."""
    slope = float(point.gradient @ direction)
    size = float(np.abs(direction).max())
    length = 1.0
    while length > 1e-3:
        trial = point.scores + length * direction
        trial = _centred(trial)
        if trial.max() - trial.min() > _WIDEST:
            return None
        found = _look(layout, wins, trial, ridge, point if size < _NEAR else None)
        later = float(found.gradient @ direction)
        small = size < 1e-6  # slopes are all rounding
        if small or later >= -0.3 * slope:
            return found
        length *= slope / (slope - later)
    return None


def _solve(layout: Layout, point: _Point, accuracy: float) -> Float64[np.ndarray, " items"] | None:
    """Return the Newton step by preconditioned conjugate gradients, None if they are slow."""
    inverse = 1 / point.diagonal
    residual = _centred(point.gradient)
    solution = np.zeros_like(residual)
    scaled = inverse * residual
    direction, weight = scaled, float(residual @ scaled)
    goal = accuracy**2 * weight
    if weight == 0:
        return solution
    for _ in range(_MOST_PRODUCTS):
        image = point.diagonal * direction - layout.product(direction)
        bend = float(direction @ image)
        if not bend > 0:
            return None
        length = weight / bend
        solution += length * direction
        residual = residual - length * image
        scaled = inverse * residual
        before, weight = weight, float(residual @ scaled)
        if weight <= goal:
            return _centred(solution)
        direction = scaled + (weight / before) * direction
    return None
