"""What becomes of a fit without all comparisons of one rater, of one item or of one pair.

Single derivatives say little about a group: twenty comparisons that agree move a prediction
further than twenty times one of them, and far from where a first-order step would put it. So every
group reported is left out in earnest, by a refit; where there are thousands of groups (the
observed pairs), one Newton step each chooses those to refit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from ..data.comparisons import Comparisons
from ..fit.likelihood import predict
from ..fit.result import FitResult
from .engine import Engine, Point
from .moves import LEAST_SHARE
from .pairs import Progress
from .records import EdgeLeverage, Group, Groups, no_fit_without
from .terms import Counts, counts_of

DRAWN = 1e-9
"""Scores of a refit that are closer than this are equal."""


class _Left(NamedTuple):
    """A group left out: its names, the counts that remain, and the items that remain."""

    name: tuple[str, ...]
    comparisons: float
    counts: Counts
    keep: np.ndarray


class LeaveOut:
    """Leaves groups of comparisons out of one fit.

    Parameters
    ----------
    fit : FitResult
        A converged fit of scores alone.
    k : int
        The set of the k best items is watched.
    """

    def __init__(self, fit: FitResult, k: int) -> None:
        self.fit, self.k = fit, k
        self.counts = counts_of(fit)
        self.engine = Engine(fit.link, fit.ridge, fit.num_items)
        self.point = self.engine.point(self.counts, fit.scores)
        self._everyone = np.arange(fit.num_items)

    def raters(
        self,
        comparisons: Comparisons,
        top: int,
        progress: Progress | None = None,
        names: Sequence[str] | None = None,
    ) -> Groups:
        """Return the raters of the comparisons that were fitted, left out one at a time.

        All of them, or those named.
        """
        halves = comparisons.with_ties_as_half_wins()
        assert halves.rater is not None
        rows = []
        wanted = comparisons.raters if names is None else names
        for done, name in enumerate(wanted):
            number = comparisons.raters.index(name)
            here = halves.rater == number
            wins = np.zeros((self.fit.num_items,) * 2)
            np.add.at(wins, (halves.item_a[here], halves.item_b[here]), halves.wins_a[here])
            np.add.at(wins, (halves.item_b[here], halves.item_a[here]), halves.wins_b[here])
            a, b = self.counts.item_a, self.counts.item_b
            less = self.counts._replace(
                wins_a=_less(self.counts.wins_a, wins[a, b]),
                wins_b=_less(self.counts.wins_b, wins[b, a]),
            )
            rows.append(
                self._refit(_Left((name,), float(wins.sum()), less, self._everyone), "rater")
            )
            if progress is not None:
                progress(done + 1, len(wanted))
        return self._collect("rater", rows, len(rows), top)

    def items(self, top: int, progress: Progress | None = None) -> Groups:
        """Return the items, left out one at a time with all their comparisons."""
        rows = []
        for item, name in enumerate(self.fit.items):
            here = (self.counts.item_a != item) & (self.counts.item_b != item)
            keep = np.flatnonzero(self._everyone != item)
            place = np.cumsum(self._everyone != item) - 1
            counts = Counts(
                place[self.counts.item_a[here]],
                place[self.counts.item_b[here]],
                self.counts.wins_a[here],
                self.counts.wins_b[here],
            )
            gone = float(np.sum((self.counts.wins_a + self.counts.wins_b)[~here]))
            rows.append(self._refit(_Left((name,), gone, counts, keep), "item"))
            if progress is not None:
                progress(item + 1, self.fit.num_items)
        return self._collect("item", rows, len(rows), top)

    def edges(self, top: int, progress: Progress | None = None) -> Groups:
        """Return the observed pairs that move scores most in one Newton step, refitted without."""
        change = self.edge_steps()
        spread = change.max(axis=0) - change.min(axis=0)
        rows, chosen = [], np.argsort(-spread, kind="stable")[: 2 * top]
        names, counts = self.fit.items, self.counts
        for done, edge in enumerate(chosen):
            kept = np.ones(len(counts.item_a))
            kept[edge] = 0.0
            less = counts._replace(wins_a=counts.wins_a * kept, wins_b=counts.wins_b * kept)
            name = names[counts.item_a[edge]], names[counts.item_b[edge]]
            gone = float(counts.wins_a[edge] + counts.wins_b[edge])
            rows.append(self._refit(_Left(name, gone, less, self._everyone), "edge"))
            if progress is not None:
                progress(done + 1, len(chosen))
        return self._collect("edge", rows, len(counts.item_a), top)

    def edge_steps(self) -> Float64[np.ndarray, "items edges"]:
        """Return how one Newton step without an observed pair moves the scores, for every pair."""
        a, b = self.counts.item_a, self.counts.item_b
        pull, weight, _ = self._own(a, b)
        potential = self.point.inverse[:, a] - self.point.inverse[:, b]
        left = np.maximum(1 - weight * self._resistance(a, b), LEAST_SHARE)
        return -potential * (pull / left)

    def leverage(self, top: int) -> tuple[EdgeLeverage, ...]:
        """Return the observed pairs with the largest leverage."""
        counts = self.counts
        a, b = counts.item_a, counts.item_b
        pull, weight, total = self._own(a, b)
        lever = np.clip(weight * self._resistance(a, b), 0.0, 1.0)
        spread = np.sqrt(weight * np.maximum(1 - lever, 1e-12))
        residual = np.divide(pull, spread, out=np.zeros_like(pull), where=spread > 0)
        residual[lever > 1 - 1e-9] = 0.0
        fitted = predict(self.fit.link, self.fit.scores[a] - self.fit.scores[b]).probability
        return tuple(
            EdgeLeverage(
                item_a=self.fit.items[a[e]],
                item_b=self.fit.items[b[e]],
                comparisons=float(total[e]),
                win_fraction=float(counts.wins_a[e] / total[e]),
                fitted_probability=float(fitted[e]),
                leverage=float(lever[e]),
                studentised=float(residual[e]),
            )
            for e in np.argsort(-lever.round(12), kind="stable")[:top]
        )

    def _own(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return gradient, curvature and number of the comparisons of each observed pair."""
        slopes = self.engine.slopes(self.fit.scores, a, b)
        up, down = self.counts.wins_a, self.counts.wins_b
        pull = up * slopes.win_a + down * slopes.win_b
        return pull, up * slopes.bend_a + down * slopes.bend_b, up + down

    def _resistance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        own = np.diagonal(self.point.inverse)
        return own[a] + own[b] - 2 * self.point.inverse[a, b]

    def _refit(self, left: _Left, kind: str) -> Group:
        """Return what one refit without a group comes to."""
        engine = Engine(self.fit.link, self.fit.ridge, len(left.keep))
        before = self.fit.scores[left.keep]
        scores = engine.refit(left.counts, before - before.mean())
        if scores is None:
            return no_fit_without(kind, left.name, left.comparisons)
        step = self._one_step(engine, left.counts, before)
        old, new = _chances(self.fit, before), _chances(self.fit, scores)
        a, b = largest_change(old, new)
        if old[a, b] < 0.5:
            a, b = b, a
        predicted = predict(self.fit.link, np.array([step[a] - step[b]])).probability
        entered, gone = self._top_change(left.keep, before, scores)
        names = [self.fit.items[item] for item in left.keep]
        return Group(
            kind=kind,
            name=left.name,
            comparisons=left.comparisons,
            status="refitted",
            item_a=names[a],
            item_b=names[b],
            before=float(old[a, b]),
            after=float(new[a, b]),
            predicted_after=float(predicted[0]),
            winner=names[int(settled_order(scores, before)[0])],
            top_k_entered=tuple(names[item] for item in entered),
            top_k_left=tuple(names[item] for item in gone),
            largest_rank_change=int(
                np.max(np.abs(_ranks(before, before) - _ranks(scores, before)))
            ),
        )

    def _one_step(self, engine: Engine, counts: Counts, scores: np.ndarray) -> np.ndarray:
        """Return where one Newton step from the whole fit leads."""
        gradient, _ = engine.information(counts, scores)
        point: Point = engine.point(counts, scores)
        return scores + point.inverse @ gradient

    def _top_change(
        self, keep: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> tuple[list[int], list[int]]:
        """Return the items that enter and leave the k best, one left out not having left."""
        gone = set(np.argsort(-self.fit.scores, kind="stable")[: self.k]) - set(keep)
        k = self.k - len(gone)
        old = set(settled_order(before, before)[:k].tolist())
        new = set(settled_order(after, before)[:k].tolist())
        return sorted(new - old), sorted(old - new)

    def _collect(self, kind: str, rows: list[Group], num: int, top: int) -> Groups:
        best = self.fit.items[int(np.argmax(self.fit.scores))]

        def size(row: Group) -> float:
            if row.after is None or row.before is None:
                return np.inf
            return abs(row.after - row.before)

        changed = [row for row in rows if row.winner not in (None, best)]
        if kind == "item":  # the best item itself left out is no news
            changed = [row for row in changed if row.name != (best,)]
        moved = [row for row in rows if row.top_k_entered or row.top_k_left]
        named = {row.name for row in [*changed, *moved]}
        return Groups(
            kind=kind,
            k=self.k,
            num=num,
            num_refitted=len(rows),
            changing_winner=len(changed),
            changing_top_k=len(moved),
            rows=tuple(sorted(rows, key=size, reverse=True)[:top]),
            changers=tuple(row.name for row in rows if row.name in named),
        )


def largest_change(old: np.ndarray, new: np.ndarray) -> tuple[int, int]:
    """Return the pair of different items whose prediction changes most."""
    a, b = np.triu_indices(len(old), 1)
    worst = int(np.argmax(np.abs(new - old)[a, b]))
    return int(a[worst]), int(b[worst])


def _less(wins: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Return wins - gone, with what is rounding set to zero."""
    left = wins - gone
    return np.where(left > 1e-9 * np.maximum(wins, 1.0), left, 0.0)


def settled_order(
    after: Float64[np.ndarray, " items"], before: Float64[np.ndarray, " items"]
) -> Int64[np.ndarray, " items"]:
    """Return the order of a refit, best first; items that draw stand as they did before.

    A draw is no change: refits are exact to about 1e-10, and rounding must not decide.

    >>> settled_order(np.array([1.0, 1.0 + 1e-12, 0.0]), np.array([2.0, 1.0, 0.0])).tolist()
    [0, 1, 2]
    """
    order = np.argsort(-after, kind="stable")
    apart = -np.diff(after[order]) > DRAWN
    level = np.concatenate([[0], np.cumsum(apart)])
    return order[np.lexsort((-before[order], level))]


def _ranks(scores: np.ndarray, before: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(scores), np.int64)
    ranks[settled_order(scores, before)] = np.arange(len(scores))
    return ranks


def _chances(fit: FitResult, scores: np.ndarray) -> np.ndarray:
    """Return the predictions of all pairs of items as a matrix."""
    margin = scores[:, None] - scores
    return predict(fit.link, margin.ravel()).probability.reshape(margin.shape)
