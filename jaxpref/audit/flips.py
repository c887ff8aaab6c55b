"""The fewest comparisons that reverse two items: searched by influence, confirmed by refits.

First-order influence says which comparisons hold a margin up, but not by how much once many of them
have gone: it is evaluated again at each refit, until the set found at the refit where the two items
meet is the set that brought them there. The number reported is that of the last refit which did
reverse them, after one comparison fewer, in the order of influence there, did not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from .engine import Engine, Point
from .moves import Menu, Outcomes, fewest, fill, menu
from .terms import Counts, strong_labels

REVERSED = -1e-9
"""A margin below this is reversed: refits are exact to about 1e-10, and a draw is no reversal."""

_ROUNDS, _SEPARATIONS = 6, 60
Taken = Float64[np.ndarray, "kinds cells"]


class Found(NamedTuple):
    """What a search found: the moves, the margin they leave, and what first order said."""

    status: str
    taken: Taken | None
    count: float  # pyright: ignore[reportIncompatibleMethodOverride]
    margin: float | None
    first_order: float | None


class Search:
    """Searches for the moves that reverse pairs of items of one fit.

    Parameters
    ----------
    engine : Engine
        Refits under the link and prior of the fit.
    counts : Counts
        What was fitted.
    outcomes : Outcomes
        The same by outcome, ties apart.
    point : Point
        The fit.
    """

    def __init__(self, engine: Engine, counts: Counts, outcomes: Outcomes, point: Point) -> None:
        self.engine, self.counts, self.point = engine, counts, point
        self._outcomes = outcomes
        self._menus: dict[str, Menu] = {}
        self._forces: dict[str, Taken] = {}

    def menu(self, budget: str) -> Menu:
        """Return the moves of a budget."""
        if budget not in self._menus:
            size = self.engine.num_items
            self._menus[budget] = menu(budget, self.counts, self._outcomes, size)
        return self._menus[budget]

    def gains(self, budget: str, ahead: int, behind: int) -> Taken:
        """Return how much one move of each kind lowers s_ahead - s_behind at the fit."""
        choices = self.menu(budget)
        if budget not in self._forces:
            self._forces[budget] = choices.forces(self.engine, self.point)
        return choices.gains(self._forces[budget], self.point.inverse, ahead, behind)

    def margin(self, ahead: int, behind: int) -> float:
        """Return s_ahead - s_behind in the fit."""
        return float(self.point.scores[ahead] - self.point.scores[behind])

    def first_order(self, budget: str, ahead: int, behind: int) -> float:
        """Return how many moves the influences at the fit ask for; infinite where none suffice."""
        gains, need = self.gains(budget, ahead, behind), self.margin(ahead, behind)
        if budget == "add":
            return _additions(gains, need)
        return fewest(gains, self.menu(budget).available, need)[1]

    def find(self, budget: str, ahead: int, behind: int, limit: float = np.inf) -> Found:
        """Return the fewest moves found, at most `limit`, that put `behind` above `ahead`."""
        worker = _Adding if budget == "add" else _Taking
        return worker(self, budget, ahead, behind, limit).run()


class _Worker:
    """One search: a menu, a direction, and the best set so far."""

    def __init__(self, search: Search, budget: str, ahead: int, behind: int, limit: float) -> None:
        self.search, self.engine = search, search.engine
        self.menu, self.budget = search.menu(budget), budget
        self.ahead, self.behind, self.limit = ahead, behind, limit
        self.best: Found | None = None
        self.estimate: float | None = None
        self.scores, self.inverse = search.point
        self.counts = search.counts

    def gap(self, scores: np.ndarray) -> float:
        return float(scores[self.ahead] - scores[self.behind])

    def attempt(self, taken: Taken) -> float | None:
        """Return the margin after a refit with these moves, None without a fit; keep the best."""
        self.counts = self.menu.apply(self.search.counts, taken)
        found = self.engine.refit(self.counts, self.scores, self.inverse)
        if found is None:
            return None
        self.scores = found
        margin, count = self.gap(found), float(taken.sum())
        if margin < REVERSED and (self.best is None or count < self.best.count):
            self.best = Found("confirmed", taken, count, margin, None)
        return margin

    @property
    def sure(self) -> bool:
        """Whether no fewer comparisons could do: one does."""
        return self.best is not None and self.best.count <= 1

    def gains_now(self) -> Taken:
        """Return what one move is worth where those tried last were made."""
        point = self.engine.point(self.counts, self.scores)
        self.inverse = point.inverse
        forces = self.menu.forces(self.engine, point)
        return self.menu.gains(forces, self.inverse, self.ahead, self.behind)

    def gains_before(self) -> Taken:
        """Return what one move is worth at the fit."""
        return self.search.gains(self.budget, self.ahead, self.behind)

    def result(self, status: str) -> Found:
        """Return the best set, or why there is none."""
        found = self.best or Found(status, None, np.inf, None, None)
        return found._replace(first_order=self.estimate)


class _Taking(_Worker):
    """Dropping or changing comparisons: there are only so many of each."""

    def run(self) -> Found:
        self.available, self.separated = self.menu.available.copy(), False
        need = self.gap(self.search.point.scores)
        order, count = fewest(self.gains_before(), self.available, need)
        self.estimate = count if np.isfinite(count) else None
        seen: set[bytes] = set()
        for _ in range(_ROUNDS):
            taken, margin = self._take(order, count)
            if taken is None or margin is None or self.sure:
                break
            seen.add(_name(taken))
            gains = self.gains_now()
            order, count = fewest(gains, self.available, margin + float(np.sum(gains * taken)))
            again = fill(order, self.available, count) if np.isfinite(count) else None
            if again is not None and _name(again) in seen:
                break
        if not self.sure:
            self._settle(order, count)
        return self.result("no_fit" if self.separated else "not_found")

    def _take(self, order: np.ndarray, count: float) -> tuple[Taken | None, float | None]:
        """Return the first `count` moves (all there are, if fewer) and the margin they leave.

        Where they leave no fit, the separating move that gains least is held back and another one
        takes its place.
        """
        for _ in range(_SEPARATIONS):
            most = float(self.available.ravel()[order].sum())
            taken = fill(order, self.available, min(count, most, self.limit))
            if taken is None or not taken.any():
                return None, None
            margin = self.attempt(taken)
            if margin is not None:
                return taken, margin
            self.separated = True
            if not self._hold_back(order, taken):
                return None, None
        return None, None

    def _hold_back(self, order: np.ndarray, taken: Taken) -> bool:
        """Keep one comparison of a kind whose loss separates the items; say if there was one."""
        counts = self.menu.apply(self.search.counts, taken)
        labels = strong_labels(counts, self.engine.num_items)
        crossing = labels[self.menu.item_a] != labels[self.menu.item_b]
        for move in order[::-1]:
            kind, cell = np.unravel_index(move, taken.shape)
            if taken[kind, cell] > 0 and crossing[cell]:
                self.available[kind, cell] = taken[kind, cell] - 1
                return True
        return False

    def _settle(self, order: np.ndarray, count: float) -> None:
        """Find where, in the order of influence at the last refit, the reversal sets in."""
        most = float(min(self.available.ravel()[order].sum(), self.limit))
        start = self.best.count if self.best is not None else min(count, most)
        if not start >= 1:
            return
        low, high, step = 0.0, np.inf, 1.0
        place = start - 1 if self.best is not None else start
        while 1 <= place <= most and low < place < high:
            _, margin = self._take(order, place)
            if margin is not None and margin < REVERSED:
                high = place
            else:
                low = place
            if np.isfinite(high) and low > 0:
                place = np.floor((low + high) / 2)
            else:
                place, step = (place - step if np.isfinite(high) else place + step), 2 * step
                if self.best is not None and place >= self.best.count:
                    break
                place = min(max(place, 1.0), most)


class _Adding(_Worker):
    """Adding comparisons: as many as wanted of each kind, each worth less than the one before."""

    def run(self) -> Found:
        taken = np.zeros(self.menu.available.shape)
        gains = self.gains_before()
        margin: float | None = self.gap(self.search.point.scores)
        estimate = _additions(gains, margin)
        self.estimate = estimate if np.isfinite(estimate) else None
        while margin is not None and margin >= REVERSED:
            best = np.unravel_index(int(np.argmax(gains)), gains.shape)
            if not gains[best] > 0 or taken.sum() >= self.limit:
                break
            step = max(np.floor(0.5 * margin / gains[best]), 1.0)
            taken = taken.copy()
            taken[best] += min(step, self.limit - taken.sum())
            margin = self.attempt(taken)
            gains = self.gains_now()
        if self.best is None:
            return self.result("not_found")
        self._one_kind(np.unravel_index(int(np.argmax(gains)), gains.shape))
        self._trim()
        return self.result("not_found")

    def _one_kind(self, move: tuple[np.intp, ...]) -> None:
        """Try the move that is worth most where the items meet, and no other."""
        assert self.best is not None
        low, high = 0.0, self.best.count
        while high - low > 1:
            place = np.floor((low + high) / 2)
            taken = np.zeros(self.menu.available.shape)
            taken[move] = place
            margin = self.attempt(taken)
            low, high = (low, place) if margin is not None and margin < REVERSED else (place, high)

    def _trim(self) -> None:
        """Take away what is not needed, one comparison at a time."""
        while self.best is not None and self.best.taken is not None and self.best.count > 1:
            before = self.best.count
            for kind, cell in np.argwhere(self.best.taken > 0):
                fewer = self.best.taken.copy()
                fewer[kind, cell] -= 1
                self.attempt(fewer)
            if self.best.count == before:
                return


def _additions(gains: Taken, need: float) -> float:
    """Return how many of the addition that is worth most first order asks for."""
    best = float(gains.max())
    return float(np.floor(need / best) + 1) if best > 0 else np.inf


def _name(taken: Taken) -> bytes:
    """Return what tells one set of moves from another."""
    places = np.flatnonzero(taken)
    return places.tobytes() + taken.ravel()[places].tobytes()
