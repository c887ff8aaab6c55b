r"""Which pair to compare next: what one more comparison is expected to be worth.

One comparison of (a, b), d = e_a - e_b, adds its information w to the fit, so that the inverse V of
the information becomes

.. math:: V' = V - \frac{w \, V d \, d^\top V}{1 + w \, d^\top V d} ,

whoever wins; scores stay where they are on average, and an outcome y moves them by
V d (y - p) g'/(g (1 - g)) / (1 + w d^T V d). Every objective follows from that for every candidate
without a refit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from .._checks import check_count, check_option
from ..fit.likelihood import predict
from ..fit.result import FitResult
from .network import require_converged
from .pairs import NORMAL_95, played
from .records import Collect, Collecting

OBJECTIVES = ("interval", "sensitivity", "flip")
MOST_ITEMS = 400
_FINALISTS, _BLOCK = 40, 2**21


class _Setting(NamedTuple):
    """What the objectives share: predictions and inverse information for all pairs of items."""

    fit: FitResult
    inverse: Float64[np.ndarray, "items items"]
    item_a: Int64[np.ndarray, " pairs"]
    item_b: Int64[np.ndarray, " pairs"]
    margin: Float64[np.ndarray, " pairs"]
    probability: Float64[np.ndarray, " pairs"]
    density: Float64[np.ndarray, " pairs"]
    weight: Float64[np.ndarray, " pairs"]
    resistance: Float64[np.ndarray, " pairs"]

    def shrinkage(self) -> Float64[np.ndarray, " pairs"]:
        """Return w / (1 + w d^T V d) of every candidate."""
        return self.weight / (1 + self.weight * self.resistance)

    def potentials(self, item_a: int, item_b: int) -> Float64[np.ndarray, " pairs"]:
        """Return (e_a - e_b)^T V d for the candidates' d."""
        row = self.inverse[item_a] - self.inverse[item_b]
        return row[self.item_a] - row[self.item_b]


def what_to_collect(
    fit: FitResult, *, objective: str = "interval", top: int = 20, neighbours: int | None = None
) -> Collecting:
    r"""Return the pairs of which one more comparison is expected to be worth most.

    Parameters
    ----------
    fit : FitResult
        A converged fit of scores alone.
    objective : {"interval", "sensitivity", "flip"}
        What is to become smaller: the width of the widest 95% interval of a prediction; the
        largest derivative of a prediction by one observed fraction; the expected number of
        neighbours on the leaderboard in the wrong order.
    top : int, >= 0
        How many pairs to return.
    neighbours : int, optional
        For "flip": count only the first so many neighbours.

    Returns
    -------
    Collecting
        Best pairs first, with the mean gain over all pairs for comparison.

    Raises
    ------
    InputError
        For a fit that has not converged or an unknown objective.

    Notes
    -----
    Gains of "interval" and "sensitivity" are of the maximum over all pairs: candidates are ranked
    by what they do to the pair that is worst now, and the best 40 once more by the new maximum.
    The expectation is of the normal approximation: exact updates of V for the logistic link at the
    fitted scores.

    Examples
    --------
    >>> from jaxpref.data import load_bundled
    >>> from jaxpref.fit import fit_pairwise
    >>> best = what_to_collect(fit_pairwise(load_bundled("example1"))).rows[0]
    >>> best.item_a, best.item_b
    ('i', 'j')
    """
    require_converged(fit)
    check_option("objective", objective, OBJECTIVES)
    check_count("top", top, at_least=0)
    setting = _prepare(fit)
    if objective == "flip":
        before, gains, worst = _flip(setting, neighbours)
    elif objective == "interval":
        before, gains, worst = _interval(setting)
    else:
        before, gains, worst = _sensitivity(setting)
    names, counted = fit.items, played(fit, setting.item_a, setting.item_b)
    order = np.argsort(-gains.round(15), kind="stable")[:top]
    rows = tuple(
        Collect(
            item_a=names[setting.item_a[n]],
            item_b=names[setting.item_b[n]],
            comparisons=float(counted[n]),
            probability=float(setting.probability[n]),
            gain=float(gains[n]),
        )
        for n in order
    )
    return Collecting(objective, before, float(np.mean(gains)), worst, rows)


def _prepare(fit: FitResult) -> _Setting:
    inverse = fit.covariance()
    a, b = np.triu_indices(fit.num_items, 1)
    margin = fit.scores[a] - fit.scores[b]
    chance = predict(fit.link, margin)
    own = np.diagonal(inverse)
    # g'^2 / (g (1 - g)), the expected information of one comparison, with g' and g both small
    tail = np.minimum(chance.probability, chance.opposite)
    rest = np.maximum(chance.probability, chance.opposite)
    ratio = np.divide(chance.density, tail, out=np.zeros_like(tail), where=tail > 0)
    return _Setting(
        fit=fit,
        inverse=inverse,
        item_a=a,
        item_b=b,
        margin=margin,
        probability=chance.probability,
        density=chance.density,
        weight=chance.density * ratio / rest,
        resistance=own[a] + own[b] - 2 * inverse[a, b],
    )


def _widths(
    setting: _Setting, variance: Float64[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " pairs"]:
    """Return the widths of the 95% intervals of all predictions."""
    reach = NORMAL_95 * np.sqrt(np.maximum(variance, 0.0))
    link = setting.fit.link
    high = predict(link, setting.margin + reach).probability
    return high - predict(link, setting.margin - reach).probability


def _interval(setting: _Setting) -> tuple[float, np.ndarray, tuple[str, ...]]:
    """Return the widest interval, what each candidate takes off it, and whose it is."""
    widths = _widths(setting, setting.resistance)
    worst, before = int(np.argmax(widths)), float(widths.max())
    shrinkage = setting.shrinkage()
    across = setting.potentials(int(setting.item_a[worst]), int(setting.item_b[worst]))
    lower = setting.resistance[worst] - shrinkage * across**2
    margin = np.full(len(lower), setting.margin[worst])
    gains = before - _widths(setting._replace(margin=margin), lower)
    gains = np.maximum(gains, 0.0)
    second = np.argsort(-gains, kind="stable")[:_FINALISTS]
    ceiling = np.zeros(len(second))
    for n, candidate in enumerate(second):
        a, b = int(setting.item_a[candidate]), int(setting.item_b[candidate])
        each = setting.potentials(a, b)
        after = _widths(setting, setting.resistance - shrinkage[candidate] * each**2)
        ceiling[n] = before - after.max()
    return before, _blend(gains, second, ceiling), _named(setting, worst)


def _blend(gains: np.ndarray, second: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Put the finalists in the order of what they do to the maximum; others follow them.

    Where another pair is almost as bad, the maximum falls little whatever is compared: gains equal
    to it are told apart by what they do to the worst pair, on a scale too small to reorder others.
    """
    found = np.minimum(gains, exact.min(initial=np.inf))
    found[second] = exact + 1e-9 * gains[second]
    return found


def _sensitivity(setting: _Setting) -> tuple[float, np.ndarray, tuple[str, ...]]:
    """Return the largest derivative, what each candidate takes off it, and of which pair it is."""
    pairs = setting.fit.pairs
    edge_a, edge_b = pairs.item_a, pairs.item_b
    total = pairs.wins_a + pairs.wins_b
    respond = _response(setting, edge_a, edge_b) * total
    rows = (setting.inverse[:, edge_a] - setting.inverse[:, edge_b]) * respond
    size = np.zeros(len(setting.item_a))
    block = max(_BLOCK // len(edge_a), 1)
    for start in range(0, len(size), block):
        here = slice(start, start + block)
        size[here] = np.abs(rows[setting.item_a[here]] - rows[setting.item_b[here]]).max(axis=1)
    size *= setting.density
    worst, before = int(np.argmax(size)), float(size.max())
    shrinkage = setting.shrinkage()
    i, j = int(setting.item_a[worst]), int(setting.item_b[worst])
    across = setting.potentials(i, j)
    edge = int(np.argmax(np.abs(rows[i] - rows[j])))
    scale = setting.density[worst] * respond[edge]
    through = setting.potentials(int(edge_a[edge]), int(edge_b[edge]))
    resist = setting.inverse[i] - setting.inverse[j]
    now = resist[edge_a[edge]] - resist[edge_b[edge]]
    gains = before - np.abs(scale * (now - shrinkage * across * through))
    # Of the finalists the whole row, and the rows of the next most sensitive pairs.
    rivals = np.argsort(-size, kind="stable")[:_FINALISTS]
    second = np.argsort(-gains, kind="stable")[:_FINALISTS]
    exact = np.zeros(len(second))
    for n, candidate in enumerate(second):
        a, b = int(setting.item_a[candidate]), int(setting.item_b[candidate])
        flow = setting.inverse[a] - setting.inverse[b]
        towards = flow[setting.item_a[rivals]] - flow[setting.item_b[rivals]]
        edges = (flow[edge_a] - flow[edge_b]) * respond
        # The candidate's own edge carries one comparison more.
        own = (edge_a == min(a, b)) & (edge_b == max(a, b))
        grown = np.where(own, (total + 1) / total, 1.0)
        less = shrinkage[candidate] * towards[:, None] * edges
        left = rows[setting.item_a[rivals]] - rows[setting.item_b[rivals]] - less
        after = np.abs(left * grown).max(axis=1) * setting.density[rivals]
        exact[n] = before - after.max()
    return before, _blend(gains, second, exact), _named(setting, worst)


def _response(setting: _Setting, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return g' / (g (1 - g)) of the observed pairs; 1 for the logistic link."""
    chance = predict(setting.fit.link, setting.fit.scores[a] - setting.fit.scores[b])
    tail = np.minimum(chance.probability, chance.opposite)
    return chance.density / tail / np.maximum(chance.probability, chance.opposite)


def _flip(setting: _Setting, neighbours: int | None) -> tuple[float, np.ndarray, tuple[str, ...]]:
    """Return the expected number of wrong neighbours, and what each candidate takes off it."""
    order = np.argsort(-setting.fit.scores, kind="stable")
    ahead, behind = order[:-1][:neighbours], order[1:][:neighbours]
    own = np.diagonal(setting.inverse)
    gap = setting.fit.scores[ahead] - setting.fit.scores[behind]
    variance = own[ahead] + own[behind] - 2 * setting.inverse[ahead, behind]
    before = float(np.sum(_risk(gap, variance)))
    shrinkage = setting.shrinkage()
    response = np.sqrt(setting.weight * setting.probability * (1 - setting.probability))
    gains = np.zeros(len(setting.item_a))
    for n in range(len(gap)):
        across = setting.potentials(int(ahead[n]), int(behind[n]))
        left = variance[n] - shrinkage * across**2
        # An outcome moves the margin by V d times its score, (y - p) g' / (g (1 - g)).
        pq = setting.probability * (1 - setting.probability)
        per = np.divide(response, pq, out=np.zeros_like(pq), where=pq > 0)
        step = across * per / (1 + setting.weight * setting.resistance)
        win = _risk(gap[n] + step * (1 - setting.probability), left)
        lose = _risk(gap[n] - step * setting.probability, left)
        after = setting.probability * win + (1 - setting.probability) * lose
        gains += _risk(gap[n : n + 1], variance[n : n + 1]) - after
    return before, gains, ()


def _risk(gap: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the probability that the order shown by the estimate is wrong."""
    from scipy.special import ndtr

    return ndtr(-np.abs(gap) / np.sqrt(np.maximum(variance, 1e-300)))


def _named(setting: _Setting, pair: int) -> tuple[str, ...]:
    items = setting.fit.items
    return items[setting.item_a[pair]], items[setting.item_b[pair]]
