"""What a fragile prediction becomes when one vote on the pair it rests on turns: by refitting.

A sensitivity is for small changes. On a pair with three votes one of them is no small change, so
what is shown to people is the whole of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .._checks import ConvergenceError, DisconnectedComparisonsError
from ..audit import AuditRow
from ..data import Comparisons
from ..fit import FitResult, fit_pairwise

Progress = Callable[[int, int], None]

LARGEST = 1500
"""Items up to which each refit takes a second or so; beyond, none is made."""


class OneVote(NamedTuple):
    """A prediction before and after one vote turned from `winner` to the other item of the pair.

    `wins` are the winner's before, out of `comparisons`. `after` is NaN where no finite fit is
    left: the vote was the only one that tied an item to the rest in that direction.
    """

    item_a: str
    item_b: str
    before: float
    after: float
    winner: str
    loser: str
    wins: float
    comparisons: float


def turn_one_vote(fit: FitResult, row: AuditRow) -> OneVote:
    """Refit after one vote on the observed pair of a row turned to the side that has fewer.

    Examples
    --------
    >>> from jaxpref.audit import audit
    >>> from jaxpref.data import load_bundled
    >>> fit = fit_pairwise(load_bundled("example1"))
    >>> vote = turn_one_vote(fit, audit(fit).top[0])
    >>> vote.winner, vote.wins, round(vote.before, 3), round(vote.after, 3)
    ('i', 99.0, 0.669, 0.5)
    """
    return turn_votes(fit, [row])[0]


def turn_votes(
    fit: FitResult, rows: Sequence[AuditRow], progress: Progress | None = None
) -> list[OneVote]:
    """Return :func:`turn_one_vote` of every row, or nothing where the fit is large.

    One refit for each observed pair, however many rows rest on it.
    """
    if fit.num_items > LARGEST:
        return []
    refitted: dict[tuple[str, str], FitResult | None] = {}
    votes = []
    for done, row in enumerate(rows):
        pair = row.edge.item_a, row.edge.item_b
        place, ahead = _find(fit, *pair)
        if pair not in refitted:
            refitted[pair] = _refit(fit, place, ahead)
        votes.append(_record(fit, row, refitted[pair], place, ahead))
        if progress is not None:
            progress(done + 1, len(rows))
    return votes


def _find(fit: FitResult, item_a: str, item_b: str) -> tuple[int, int]:
    """Return the place of a pair in the fit, and which side won more: 0 or 1."""
    pairs = fit.pairs
    here = (pairs.item_a == fit.index(item_a)) & (pairs.item_b == fit.index(item_b))
    place = int(np.flatnonzero(here)[0])
    return place, 0 if pairs.wins_a[place] >= pairs.wins_b[place] else 1


def _refit(fit: FitResult, place: int, ahead: int) -> FitResult | None:
    """Return the fit with one vote turned, or None where there is none."""
    pairs = fit.pairs
    wins = np.stack([pairs.wins_a, pairs.wins_b])
    step = min(1.0, wins[ahead, place])
    wins[ahead, place] -= step
    wins[1 - ahead, place] += step
    ties = np.zeros(wins.shape[1])
    moved = Comparisons(fit.items, pairs.item_a, pairs.item_b, wins[0], wins[1], ties)
    try:
        return fit_pairwise(moved, link=fit.link, ridge=fit.ridge)
    except (DisconnectedComparisonsError, ConvergenceError):
        return None


def _record(
    fit: FitResult, row: AuditRow, again: FitResult | None, place: int, ahead: int
) -> OneVote:
    names = (row.edge.item_a, row.edge.item_b)
    wins = float(fit.pairs.wins_a[place]), float(fit.pairs.wins_b[place])
    return OneVote(
        item_a=row.item_a,
        item_b=row.item_b,
        before=row.probability,
        after=math.nan if again is None else again.probability(row.item_a, row.item_b),
        winner=names[ahead],
        loser=names[1 - ahead],
        wins=wins[ahead],
        comparisons=sum(wins),
    )
