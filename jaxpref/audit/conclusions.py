"""Which conclusions a few comparisons would overturn: an order, the best item, the k best.

The best item changes exactly when some other item passes it, and the set of the k best exactly when
some item outside passes one inside: either is a search over pairs, of which the most promising by
first-order influence are searched in earnest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.comparisons import Comparisons
from ..fit.result import FitResult
from .engine import Engine
from .flips import Found, Search
from .moves import Menu, Outcomes
from .pairs import Progress
from .records import Flip, Move
from .terms import counts_of

BUDGETS = ("drop", "add", "change")
_CANDIDATES, _SEARCHED, _HOPELESS = 40, 8, 2.5
_RATERS_SHOWN = 20


class Raters:
    """Who gave which comparisons, pair by pair; nothing where raters are not known."""

    def __init__(self, fit: FitResult, comparisons: Comparisons | None) -> None:
        self._cells: dict[tuple[int, int], list[int]] = {}
        self._data = comparisons
        if comparisons is None or comparisons.rater is None:
            self._data = None
            return
        pairs = zip(comparisons.item_a.tolist(), comparisons.item_b.tolist(), strict=True)
        for cell, (a, b) in enumerate(pairs):
            self._cells.setdefault((min(a, b), max(a, b)), []).append(cell)

    def who(self, item_a: int, item_b: int, outcome: str) -> tuple[tuple[str, float], ...]:
        """Return raters with how many such comparisons they gave, most first."""
        data = self._data
        if data is None or data.rater is None:
            return ()
        given: dict[str, float] = {}
        for cell in self._cells.get((min(item_a, item_b), max(item_a, item_b)), []):
            straight = int(data.item_a[cell]) == item_a
            columns = {"a": data.wins_a, "b": data.wins_b, "tie": data.ties}
            if not straight:
                columns = {"a": data.wins_b, "b": data.wins_a, "tie": data.ties}
            count = float(columns[outcome][cell])
            if count > 0:
                name = data.raters[data.rater[cell]]
                given[name] = given.get(name, 0.0) + count
        ordered = sorted(given.items(), key=lambda entry: (-entry[1], entry[0]))
        return tuple(ordered[:_RATERS_SHOWN])


def outcomes_of(fit: FitResult, comparisons: Comparisons | None) -> Outcomes:
    """Return the fitted counts by outcome, with ties apart where the comparisons tell of them."""
    pairs = fit.pairs
    if comparisons is None:
        return Outcomes(pairs.wins_a, pairs.wins_b, np.zeros(len(pairs.item_a)))
    own = comparisons.pairs()
    return Outcomes(own.wins_a, own.wins_b, own.ties)


class Conclusions:
    """Searches for what overturns conclusions of one fit.

    Parameters
    ----------
    fit : FitResult
        A converged fit of scores alone.
    comparisons : Comparisons or None
        What was fitted: for raters, and for ties that count as half wins.
    """

    def __init__(self, fit: FitResult, comparisons: Comparisons | None) -> None:
        self.fit = fit
        counts = counts_of(fit)
        self._engine = Engine(fit.link, fit.ridge, fit.num_items)
        point = self._engine.point(counts, fit.scores)
        outcomes = outcomes_of(fit, comparisons)
        self._search = Search(self._engine, counts, outcomes, point)
        self._total = float(np.sum(counts.wins_a + counts.wins_b))
        self._raters = Raters(fit, comparisons)
        self._order = np.argsort(-fit.scores, kind="stable")

    def pair(self, item_a: str, item_b: str, budget: str, limit: float | None = None) -> Flip:
        """Return the fewest comparisons found that reverse the order of two items."""
        first, second = self.fit.index(item_a), self.fit.index(item_b)
        if self.fit.scores[first] < self.fit.scores[second]:
            first, second = second, first
        return self._best("pair", None, [(first, second)], budget, limit)

    def winner(self, budget: str, limit: float | None = None) -> Flip:
        """Return the fewest comparisons found that put another item first."""
        best = int(self._order[0])
        rivals = [(best, int(k)) for k in self._order[1:]]
        return self._best("winner", None, rivals, budget, limit)

    def top_k(self, k: int, budget: str, limit: float | None = None) -> Flip:
        """Return the fewest comparisons found that change the set of the k best."""
        inside, outside = self._order[:k], self._order[k:]
        pairs = [(int(a), int(b)) for a in inside for b in outside]
        return self._best("top_k", k, pairs, budget, limit)

    def _best(
        self,
        question: str,
        k: int | None,
        pairs: Sequence[tuple[int, int]],
        budget: str,
        limit: float | None,
    ) -> Flip:
        """Return the best of the searches over pairs, the most promising first."""
        limit = self._total if limit is None else limit
        before = self._engine.refits
        pairs = self._closest(pairs)
        estimates = np.zeros(1)
        if len(pairs) > 1:
            estimates = np.array([self._search.first_order(budget, *pair) for pair in pairs])
        chosen, found = pairs[int(np.argmin(estimates))], None
        for place in np.argsort(estimates, kind="stable")[:_SEARCHED]:
            if found is not None and estimates[place] > _HOPELESS * found.count:
                break
            most = limit if found is None else min(limit, found.count - 1)
            if most < 1:
                break
            again = self._search.find(budget, *pairs[place], limit=most)
            if found is None or again.count < found.count:
                found, chosen = again, pairs[place]
        assert found is not None
        return self._describe(question, k, chosen, budget, found, self._engine.refits - before)

    def _closest(self, pairs: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        """Return the pairs whose margins are smallest in standard errors."""
        if len(pairs) <= _CANDIDATES:
            return pairs
        ahead, behind = np.array(pairs).T
        scores, inverse = self._search.point
        own = np.diagonal(inverse)
        variance = own[ahead] + own[behind] - 2 * inverse[ahead, behind]
        closeness = (scores[ahead] - scores[behind]) / np.sqrt(variance)
        return [pairs[n] for n in np.argsort(closeness, kind="stable")[:_CANDIDATES]]

    def _describe(
        self,
        question: str,
        k: int | None,
        pair: tuple[int, int],
        budget: str,
        found: Found,
        refits: int,
    ) -> Flip:
        ahead, behind = pair
        done = found.taken is not None
        moves: tuple[Move, ...] = ()
        if found.taken is not None:
            moves = self._moves(self._search.menu(budget), found.taken)
        return Flip(
            question=question,
            budget=budget,
            k=k,
            ahead=self.fit.items[ahead],
            behind=self.fit.items[behind],
            comparisons=found.count if done else None,
            share=found.count / self._total if done else None,
            status=found.status,
            margin_before=self._search.margin(ahead, behind),
            margin_after=found.margin,
            first_order=found.first_order,
            refits=refits,
            moves=moves,
        )

    def _moves(self, menu: Menu, taken: Any) -> tuple[Move, ...]:
        """Return the certificate, the largest counts first."""
        moves = []
        for row, cell in np.argwhere(taken > 0):
            kind = menu.kinds[row]
            a, b = int(menu.item_a[cell]), int(menu.item_b[cell])
            room = float(menu.available[row, cell])
            adding = kind.action == "add"
            moves.append(
                Move(
                    action=kind.action,
                    item_a=self.fit.items[a],
                    item_b=self.fit.items[b],
                    outcome=kind.outcome,
                    new_outcome=kind.new_outcome,
                    count=float(taken[row, cell]),
                    available=None if adding else room,
                    raters=() if adding else self._raters.who(a, b, kind.outcome),
                )
            )
        return tuple(sorted(moves, key=lambda move: -move.count))


def find_flips(
    conclusions: Conclusions,
    *,
    budgets: Sequence[str],
    k: int,
    adjacent: int,
    pairs: Sequence[tuple[str, str]],
    limit: float | None = None,
    progress: Progress | None = None,
) -> tuple[Flip, ...]:
    """Return the flips of the winner, the top k, given pairs and the first neighbours."""
    ranked = conclusions.fit.rank()
    neighbours = list(zip(ranked[:adjacent], ranked[1 : adjacent + 1], strict=False))
    questions: list[tuple[str, Any]] = [("winner", None)]
    if 1 < k < len(ranked):
        questions.append(("top_k", k))
    questions += [("pair", pair) for pair in [*pairs, *neighbours]]
    found, total = [], len(questions) * len(budgets)
    for question, what in questions:
        for budget in budgets:
            if question == "winner":
                found.append(conclusions.winner(budget, limit))
            elif question == "top_k":
                found.append(conclusions.top_k(what, budget, limit))
            else:
                found.append(conclusions.pair(what[0], what[1], budget, limit))
            if progress is not None:
                progress(len(found), total)
    return tuple(found)
