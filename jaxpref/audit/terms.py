r"""What counts of wins say of scores: gradient, information, and whether there is a maximum at all.

Of the logistic link, with strengths e_i = exp(s_i) and W_ij the wins of i over j,

.. math:: \frac{\partial l}{\partial s_i} = \sum_j D_{ij} e_j - e_i \sum_j D_{ji} , \qquad
          D_{ij} = \frac{W_{ij}}{e_i + e_j} ,

so a whole evaluation is a few passes over a matrix, which for the hundreds of items that audits
refit stays in the processor's cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int64

from ..fit._host import float64, pad, pair_bucket
from ..fit.likelihood import pair_terms
from ..fit.result import FitResult
from ..links import Link

MOST_ITEMS = 2000
"""Items up to which wins are held as a matrix: four of 32 MB each at this size."""
_WIDEST = 300.0
"""Nats between scores whose strengths can be multiplied without under- or overflow."""
_WAVES = 8


class Counts(NamedTuple):
    """Wins per pair of items, half wins included; a pair may come up more than once."""

    item_a: Int64[np.ndarray, " pairs"]
    item_b: Int64[np.ndarray, " pairs"]
    wins_a: Float64[np.ndarray, " pairs"]
    wins_b: Float64[np.ndarray, " pairs"]


class Slopes(NamedTuple):
    """Derivatives by the margin of what one comparison adds: won by a, won by b.

    `bend` is minus the second derivative of either.
    """

    win_a: Float64[np.ndarray, " pairs"]
    win_b: Float64[np.ndarray, " pairs"]
    bend_a: Float64[np.ndarray, " pairs"]
    bend_b: Float64[np.ndarray, " pairs"]


def counts_of(fit: FitResult) -> Counts:
    """Return the counts that were fitted."""
    pairs = fit.pairs
    return Counts(
        pairs.item_a.astype(np.int64), pairs.item_b.astype(np.int64), pairs.wins_a, pairs.wins_b
    )


def slopes_between(
    link: Link,
    scores: Float64[np.ndarray, " items"],
    item_a: Int64[np.ndarray, " pairs"],
    item_b: Int64[np.ndarray, " pairs"],
) -> Slopes:
    """Return the slopes of comparisons of some pairs: one exponential an item, where these do."""
    if link.name != "logistic" or not scores.max() - scores.min() < _WIDEST:
        return slopes_at(link, scores[item_a] - scores[item_b])
    strength = np.exp(scores)
    mine, other = strength[item_a], strength[item_b]
    both = mine + other
    mine /= both
    other /= both
    bend = mine * other
    return Slopes(other, np.negative(mine, out=mine), bend, bend)


def slopes_at(link: Link, margin: Float64[np.ndarray, " pairs"]) -> Slopes:
    """Return what one comparison of either outcome adds to gradient and curvature."""
    if link.name == "logistic":
        tail = np.exp(-np.abs(margin))
        near = 1 / (1 + tail)
        far, bend = tail * near, tail * near * near
        behind = margin < 0
        return Slopes(np.where(behind, near, far), -np.where(behind, far, near), bend, bend)
    size = pair_bucket(len(margin))
    one, none = np.ones(size), np.zeros(size)
    with float64():
        padded = jnp.asarray(pad(margin, size))
        up = _pair_terms(link, padded, jnp.asarray(one), jnp.asarray(none))
        down = _pair_terms(link, padded, jnp.asarray(none), jnp.asarray(one))
    cut = slice(0, len(margin))
    return Slopes(
        np.asarray(up.gradient)[cut],
        np.asarray(down.gradient)[cut],
        np.asarray(up.curvature)[cut],
        np.asarray(down.curvature)[cut],
    )


class MatrixTerms:
    """A logistic likelihood of wins held as a matrix, row over column, with a prior.

    Parameters
    ----------
    wins : (items, items)
        Wins of the row over the column.
    ridge : float
        The prior's strength.
    rooms : (3, items, items)
        Room to work in, which the next likelihood may have: new memory takes longer to come by
        than a matrix of a hundred items takes to fill.
    """

    def __init__(
        self,
        wins: Float64[np.ndarray, "items items"],
        ridge: float,
        rooms: Float64[np.ndarray, "3 items items"],
    ) -> None:
        self._wins, self._ridge, self._ones = wins, ridge, np.ones(len(wins))
        self._inverse, self._won, self._links = rooms

    def gradient(
        self, scores: Float64[np.ndarray, " items"]
    ) -> Float64[np.ndarray, " items"] | None:
        """Return the penalised gradient, None where strengths would overflow."""
        if not scores.max() - scores.min() < _WIDEST:
            return None
        self._strength = strength = np.exp(scores)
        np.add(strength[:, None], strength, out=self._inverse)
        np.divide(1.0, self._inverse, out=self._inverse)
        np.multiply(self._wins, self._inverse, out=self._won)
        found = self._won @ strength - strength * (self._ones @ self._won)
        return found - self._ridge * scores if self._ridge else found

    def information(self) -> Float64[np.ndarray, "items items"]:
        """Return the observed information where the gradient was asked for, without the prior.

        It is in a room that the next call takes.
        """
        links = np.add(self._won, self._won.T, out=self._links)
        links *= self._inverse
        links *= self._strength[:, None]
        links *= -self._strength
        diagonal = links.ravel()[:: len(links) + 1]
        diagonal[:] = 0.0
        diagonal[:] = -(links @ self._ones)
        return links


class ListedTerms:
    """A likelihood under any link, of wins listed by pairs, with a prior."""

    def __init__(self, link: Link, counts: Counts, num_items: int, ridge: float) -> None:
        self._link, self._counts, self._size, self._ridge = link, counts, num_items, ridge

    def gradient(self, scores: Float64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
        """Return the penalised gradient."""
        item_a, item_b, up, down = self._counts
        slopes = slopes_at(self._link, scores[item_a] - scores[item_b])
        pull = up * slopes.win_a + down * slopes.win_b
        self._weight = up * slopes.bend_a + down * slopes.bend_b
        gained = np.bincount(item_a, pull, self._size)
        return gained - np.bincount(item_b, pull, self._size) - self._ridge * scores

    def information(self) -> Float64[np.ndarray, "items items"]:
        """Return the observed information where the gradient was asked for, without the prior."""
        return laplacian(self._counts.item_a, self._counts.item_b, self._weight, self._size)


@runtime_checkable
class Terms(Protocol):
    """A penalised log-likelihood of scores."""

    def gradient(
        self, scores: Float64[np.ndarray, " items"]
    ) -> Float64[np.ndarray, " items"] | None:
        """Return the penalised gradient, None where it cannot be had."""
        ...

    def information(self) -> Float64[np.ndarray, "items items"]:
        """Return the observed information where the gradient was asked for, to be written to."""
        ...


def wins_matrix(counts: Counts, size: int) -> Float64[np.ndarray, "items items"]:
    """Return the wins of rows over columns.

    >>> pair = np.array([0]), np.array([1])
    >>> wins_matrix(Counts(*pair, np.array([2.0]), np.array([1.0])), 2).tolist()
    [[0.0, 2.0], [1.0, 0.0]]
    """
    item_a, item_b, up, down = counts
    # Of no pairs at all, bincount returns whole numbers.
    wins = np.bincount(item_a * size + item_b, up, size * size).astype(np.float64, copy=False)
    wins += np.bincount(item_b * size + item_a, down, size * size)
    return wins.reshape(size, size)


def laplacian(
    item_a: np.ndarray, item_b: np.ndarray, weight: Float64[np.ndarray, " pairs"], size: int
) -> Float64[np.ndarray, "items items"]:
    """Return sum over pairs of weight (e_a - e_b)(e_a - e_b)^T.

    >>> laplacian(np.array([0]), np.array([1]), np.array([2.0]), 2).tolist()
    [[2.0, -2.0], [-2.0, 2.0]]
    """
    # Of no pairs at all, bincount returns whole numbers.
    links = np.bincount(item_a * size + item_b, weight, size * size).astype(np.float64)
    links = links.reshape(size, size) + links.reshape(size, size).T
    matrix = -links
    matrix[np.diag_indices(size)] = links.sum(axis=1)
    return matrix


def connected(counts: Counts, num_items: int) -> bool:
    """Whether every item can be reached from every other along wins (Ford 1957).

    >>> pair = np.array([0]), np.array([1])
    >>> connected(Counts(*pair, np.array([2.0]), np.array([1.0])), 2)
    True
    >>> connected(Counts(*pair, np.array([2.0]), np.array([0.0])), 2)
    False
    """
    return int(strong_labels(counts, num_items).max(initial=0)) == 0


def strong_labels(counts: Counts, num_items: int) -> Int64[np.ndarray, " items"]:
    """Return the strong component of each item in the graph of wins, numbered from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    up, down = counts.wins_a > 0, counts.wins_b > 0
    start = np.concatenate([counts.item_a[up], counts.item_b[down]])
    end = np.concatenate([counts.item_b[up], counts.item_a[down]])
    graph: Any = coo_array((np.ones(start.size), (start, end)), shape=(num_items, num_items))
    labels = connected_components(graph.tocsr(), directed=True, connection="strong")[1]
    return labels.astype(np.int64)


def all_reached(beats: Bool[np.ndarray, "items items"]) -> bool | None:
    """Whether item 0 reaches every other, along rows; None where that takes many steps to see.

    >>> all_reached(np.array([[False, True], [False, False]]))
    True
    """
    seen = beats[0].copy()
    wave = seen.copy()
    seen[0], wave[0] = True, False
    for _ in range(_WAVES):
        if seen.all():
            return True
        if not wave.any():
            return False
        wave = beats[wave].any(axis=0) & ~seen
        seen |= wave
    return None


_pair_terms = eqx.filter_jit(pair_terms)
