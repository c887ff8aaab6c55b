r"""Comparisons that could be dropped, added or changed, and what one of them does to a margin.

A kind of move adds (da, db) to the wins of a cell: (-1, 0) drops a win of a, (-1, 1) turns it into
a win of b, (-1/2, -1/2) drops a tie that counts as half a win for both. What one move does to the
margin t = u^T s is, to first order and with its own leverage taken off (one Newton step, exact for
a quadratic likelihood),

.. math:: \Delta t = \frac{(d_a \psi_a + d_b \psi_b)\, u^\top V d}{1 + (d_a c_a + d_b c_b)\,
          d^\top V d} , \qquad d = e_a - e_b ,

with psi the slopes of log g(m) and log g(-m), c their curvatures and V the inverse information.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from .engine import Engine, Point
from .terms import Counts

LEAST_SHARE = 0.05
"""What is left of an edge's weight at least, in the first-order gain of a move on a bridge."""


class Kind(NamedTuple):
    """A kind of move: what it does, to which outcome, and what it adds to the two sums of wins."""

    action: str
    outcome: str
    new_outcome: str | None
    wins_a: float
    wins_b: float


DROPS = (Kind("drop", "a", None, -1.0, 0.0), Kind("drop", "b", None, 0.0, -1.0))
DROP_TIES = (Kind("drop", "tie", None, -0.5, -0.5),)
CHANGES = (Kind("change", "a", "b", -1.0, 1.0), Kind("change", "b", "a", 1.0, -1.0))
CHANGE_TIES = (Kind("change", "tie", "a", 0.5, -0.5), Kind("change", "tie", "b", -0.5, 0.5))
ADDS = (Kind("add", "a", None, 1.0, 0.0), Kind("add", "b", None, 0.0, 1.0))


class Outcomes(NamedTuple):
    """Comparisons by outcome, one entry per pair of the counts."""

    a: Float64[np.ndarray, " pairs"]
    b: Float64[np.ndarray, " pairs"]
    tie: Float64[np.ndarray, " pairs"]


class Menu(NamedTuple):
    """All moves of one budget: kinds by rows, cells (pairs of items) by columns."""

    kinds: tuple[Kind, ...]
    item_a: Int64[np.ndarray, " cells"]
    item_b: Int64[np.ndarray, " cells"]
    available: Float64[np.ndarray, "kinds cells"]

    def gains(
        self,
        forces: Float64[np.ndarray, "kinds cells"],
        inverse: Float64[np.ndarray, "items items"],
        ahead: int,
        behind: int,
    ) -> Float64[np.ndarray, "kinds cells"]:
        """Return how much one move of each kind lowers s_ahead - s_behind, given its force."""
        pull = inverse[behind] - inverse[ahead]
        return forces * (pull[self.item_a] - pull[self.item_b])

    def forces(self, engine: Engine, point: Point) -> Float64[np.ndarray, "kinds cells"]:
        """Return what one move of each kind adds to gradients, its own leverage taken off."""
        scores, inverse = point
        slopes = engine.slopes(scores, self.item_a, self.item_b)
        own = np.diagonal(inverse)
        resistance = own[self.item_a] + own[self.item_b]
        resistance -= 2 * inverse.ravel()[self.item_a * len(inverse) + self.item_b]
        rows = []
        for kind in self.kinds:
            force = _weighted(kind, slopes.win_a, slopes.win_b)
            left = _weighted(kind, slopes.bend_a, slopes.bend_b) * resistance
            left += 1
            rows.append(force / np.maximum(left, LEAST_SHARE, out=left))
        return np.stack(rows)

    def apply(self, counts: Counts, taken: Float64[np.ndarray, "kinds cells"]) -> Counts:
        """Return the counts after moves; cells are the counts' own pairs, or are appended."""
        here = np.unique(np.flatnonzero(taken) % taken.shape[1])
        gained = np.array([[kind.wins_a, kind.wins_b] for kind in self.kinds]).T @ taken[:, here]
        if self.kinds[0].action == "add":
            more = Counts(self.item_a[here], self.item_b[here], *gained)
            return Counts(*(np.concatenate(both) for both in zip(counts, more, strict=True)))
        wins_a, wins_b = counts.wins_a.copy(), counts.wins_b.copy()
        wins_a[here] = np.maximum(wins_a[here] + gained[0], 0.0)
        wins_b[here] = np.maximum(wins_b[here] + gained[1], 0.0)
        return counts._replace(wins_a=wins_a, wins_b=wins_b)


def _weighted(kind: Kind, of_a: np.ndarray, of_b: np.ndarray) -> np.ndarray:
    """Return the sum of two columns, each times what a kind of move adds to its wins."""
    if kind.wins_b == 0:
        return kind.wins_a * of_a
    if kind.wins_a == 0:
        return kind.wins_b * of_b
    return kind.wins_a * of_a + kind.wins_b * of_b


def menu(budget: str, counts: Counts, outcomes: Outcomes, num_items: int) -> Menu:
    """Return the moves that a budget ("drop", "add" or "change") allows.

    Whole comparisons only: of a cell that holds 2.5 wins two can be dropped.
    """
    if budget == "add":
        a, b = np.triu_indices(num_items, 1)
        return Menu(ADDS, a, b, np.full((2, len(a)), np.inf))
    tied = bool(outcomes.tie.any())
    if budget == "drop":
        kinds = DROPS + (DROP_TIES if tied else ())
    else:
        kinds = CHANGES + (CHANGE_TIES if tied else ())
    rows = [np.floor(getattr(outcomes, kind.outcome) + 1e-9) for kind in kinds]
    return Menu(kinds, counts.item_a, counts.item_b, np.stack(rows))


def fill(
    order: Int64[np.ndarray, " moves"], available: Float64[np.ndarray, "kinds cells"], count: float
) -> Float64[np.ndarray, "kinds cells"] | None:
    """Return the first `count` moves in an order of the flattened menu, None if there are fewer.

    >>> fill(np.array([1, 0]), np.array([[5.0, 2.0]]), 3.0)
    array([[1., 2.]])
    """
    near = order[: int(min(count, len(order)))]  # enough where there is one of each
    room = available.ravel()[near]
    after = np.cumsum(room)
    if not len(near) or after[-1] < count:
        near = order
        room = available.ravel()[near]
        after = np.cumsum(room)
    last = int(np.searchsorted(after, count))
    if last >= len(order):
        return None
    taken = np.zeros(available.size)
    taken[order[:last]] = room[:last]
    taken[order[last]] = count - (after[last] - room[last])
    return taken.reshape(available.shape)


def _descending(values: Float64[np.ndarray, " moves"]) -> Int64[np.ndarray, " moves"]:
    """Return the order of falling values, equals in the order they come: stable, but faster.

    >>> _descending(np.array([1.0, 3.0, 1.0])).tolist()
    [1, 0, 2]
    """
    order = np.argsort(-values)
    ordered = values[order]
    if np.any(ordered[1:] == ordered[:-1]):  # which of equals comes first must not be chance
        return np.argsort(-values, kind="stable")
    return order


def fewest(
    gains: Float64[np.ndarray, "kinds cells"],
    available: Float64[np.ndarray, "kinds cells"],
    need: float,
) -> tuple[Int64[np.ndarray, " moves"], float]:
    """Return moves in the order of their gains, and how many of them gain more than `need`.

    The number is infinite where all together do not.

    >>> order, count = fewest(np.array([[1.0, 3.0]]), np.array([[5.0, 2.0]]), 7.5)
    >>> order.tolist(), count
    ([1, 0], 4.0)
    """
    flat, room = gains.ravel(), available.ravel()
    useful = np.flatnonzero((flat > 0) & (room > 0))
    order = useful[_descending(flat[useful])]
    gained = np.cumsum(flat[order] * room[order])
    place = int(np.searchsorted(gained, need, side="right"))
    if place >= len(order):
        return order, np.inf
    before = gained[place - 1] if place else 0.0
    whole = float(room[order[:place]].sum())
    some = np.floor((need - before) / flat[order[place]]) + 1
    return order, whole + float(max(min(some, room[order[place]]), 1.0))
