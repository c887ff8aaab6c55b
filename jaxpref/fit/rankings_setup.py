"""From `Rankings` to what the solver takes: choice of problem, padding, start."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..data.rankings import Entries, Rankings, group_starts
from ._host import item_bucket
from .newton import CONVERGED
from .rankings_blocks import entries_in_chunks, make_block, plan, round_up
from .rankings_newton import RankingNewtonResult, Setting, maximise_rankings
from .rankings_problems import ListProblem, Problem, SetProblem, TiedProblem
from .rankings_strengths import WIDEST, StrengthProblem

FEW_ITEMS = 12
"""Up to here the distinct choice sets, at most 2^N, are counted instead of the rankings."""
ROUGH = 10_000_000
"""A start is made from this many rankings over the number of items."""
SMALL, SMALL_ITEMS = 20_000, 500
"""Up to so many entries and items the start is a fit to log-odds, right for chain-like data."""
DENSE_WORK, DENSE_ITEMS = 3e7, 2048
"""Factor the Hessian while building it costs at most this many entries, for this many items."""


class Prepared(NamedTuple):
    """A problem with the numbers that go with it."""

    problem: Problem
    start: np.ndarray
    num_items: int
    orders: tuple[int, ...]
    dense: bool

    def setting(self, ridge: float, tolerance: float, max_steps: int) -> Setting:
        """Return prior, tolerance and limits as arrays; call it in 64-bit mode."""
        size, padded = self.start.size, self.start.size - len(self.orders)
        item = np.arange(size) < self.num_items
        return Setting(
            jnp.asarray(item),
            jnp.asarray(item | (np.arange(size) >= padded)),
            jnp.asarray(ridge, jnp.float64),
            jnp.asarray(tolerance, jnp.float64),
            jnp.asarray(max_steps, jnp.int32),
        )

    def maximise(
        self, start: np.ndarray, setting: Setting, *, verify: bool = True
    ) -> RankingNewtonResult:
        """Return where the search from `start` ends; call it in 64-bit mode.

        Rankings one by one are first fitted by strengths, which is believed where the scores turn
        out to lie close together.
        """
        if isinstance(self.problem, ListProblem):
            near = StrengthProblem(self.problem.blocks)
            found = maximise_rankings(
                near, jnp.asarray(start), setting, dense=self.dense, verify=verify
            )
            scores = np.asarray(found.parameters)[: self.num_items]
            if int(found.outcome) == CONVERGED and np.ptp(scores) <= WIDEST:
                return found
        return maximise_rankings(
            self.problem, jnp.asarray(start), setting, dense=self.dense, verify=verify
        )


def prepare(rankings: Rankings, weight: np.ndarray, *, tied: bool) -> Prepared:
    """Return the problem that fits the data: by sets for few items, else by lists.

    Parameters
    ----------
    rankings : Rankings
        With ties only if `tied`.
    weight : (R,)
        Weight of each ranking.
    tied : bool
        Whether to estimate tie parameters for the sizes of groups that occur.
    """
    entries = rankings.entries()
    size = rankings.num_items
    orders = tuple(int(k) for k in rankings.tie_sizes()) if tied else ()
    items = item_bucket(size)
    work = items * entries.item.size * (1 if not orders else len(orders) * max(orders))
    dense = work <= DENSE_WORK and items <= DENSE_ITEMS
    if orders:
        problem: Problem = _tied(rankings, entries, weight, orders, items)
        start = np.zeros(items + len(orders))
        return Prepared(problem, start, size, orders, dense or items <= 256)
    start = np.zeros(items)
    if entries.item.size <= SMALL and size <= SMALL_ITEMS:
        start[:size] = _least_squares_scores(rankings)
    else:
        start[:size] = _rough_scores(rankings.thinned(ROUGH // max(size, 1) + 1000))
    if size <= FEW_ITEMS:
        return Prepared(_by_sets(entries, size, items, weight), start, size, (), True)
    return Prepared(_by_lists(entries, weight), start, size, (), dense)


def _by_lists(entries: Entries, weight: np.ndarray) -> ListProblem:
    item, _, start, listed = entries
    layouts = plan(np.diff(start))
    return ListProblem(tuple(make_block(item, start, listed, weight, k) for k in layouts))


def _by_sets(entries: Entries, size: int, items: int, weight: np.ndarray) -> SetProblem:
    """Count each distinct choice set, and what was chosen from it."""
    chosen = np.zeros((1 << size, size))
    lengths = np.diff(entries.start)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        index = (entries.start[rows][:, None] + np.arange(length)).ravel()
        item = entries.item[index].reshape(-1, length).astype(np.int64)
        left = np.cumsum((1 << item)[:, ::-1], axis=1)[:, ::-1]
        counted = np.arange(length) < np.minimum(entries.listed[rows], length - 1)[:, None]
        each = np.where(counted, weight[rows][:, None], 0.0)
        key = (left * size + item).ravel()
        chosen += np.bincount(key, each.ravel(), chosen.size).reshape(chosen.shape)
    used = np.flatnonzero(chosen.any(axis=1))
    rows = round_up(max(used.size, 64))
    table, member = np.zeros((rows, items)), np.zeros((rows, items), bool)
    table[: used.size, :size] = chosen[used]
    member[: used.size, :size] = (used[:, None] >> np.arange(size)) & 1
    return SetProblem(jnp.asarray(member), jnp.asarray(table))


def _tied(
    rankings: Rankings,
    entries: Entries,
    weight: np.ndarray,
    orders: tuple[int, ...],
    items: int,
) -> TiedProblem:
    """Lay out rankings with the starts of their groups, and sum the sufficient statistics."""
    item, rank, start, listed = entries
    first = group_starts(rank, start)
    owner = np.repeat(np.arange(rankings.num_rankings), np.diff(start))
    counted = first[first - start[owner[first]] < listed[owner[first]]]
    opens = np.zeros(item.size, bool)
    opens[counted] = True
    size = np.repeat(np.diff(first, append=item.size), np.diff(first, append=item.size))
    share = np.where(np.arange(item.size) - start[owner] < listed[owner], weight[owner] / size, 0.0)
    totals = np.zeros(items + len(orders))
    totals[: rankings.num_items] = np.bincount(item, share, rankings.num_items)
    for place, order in enumerate(orders):
        here = counted[size[counted] == order]
        totals[items + place] = weight[owner[here]].sum()
    layouts = plan(np.diff(start))
    blocks = tuple(make_block(item, start, listed, weight, layout) for layout in layouts)
    marks = (jnp.asarray(entries_in_chunks(opens, start, layout)) for layout in layouts)
    return TiedProblem(blocks, tuple(marks), jnp.asarray(totals), orders)


def _rough_scores(rankings: Rankings) -> np.ndarray:
    """Return the log-odds with which each item stands above another of its rankings.

    Only a start: exact for two items, and stretched as if opponents were drawn at random.
    """
    item, _, start, _ = rankings.entries()
    lengths = np.diff(start)
    place = np.arange(item.size) - np.repeat(start[:-1], lengths)
    weight = np.repeat(rankings.weight, lengths)
    below = np.bincount(item, weight * (np.repeat(lengths, lengths) - 1 - place))
    above = np.bincount(item, weight * place)
    odds = np.zeros(rankings.num_items)
    odds[: below.size] = np.log(below + 0.5) - np.log(above + 0.5)
    spread = min(float(np.var(odds)), 2.0)
    return np.clip(odds / np.sqrt(1 - 0.36 * spread), -8.0, 8.0)


def _least_squares_scores(rankings: Rankings) -> np.ndarray:
    """Return the weighted least-squares fit to the smoothed log-odds of all pairs.

    On a tree of pairs it is the answer but for the smoothing, half a win for either side.
    """
    pairs, size = rankings.comparisons().with_ties_as_half_wins().pairs(), rankings.num_items
    total = pairs.wins_a + pairs.wins_b + 1.0
    odds = np.log(pairs.wins_a + 0.5) - np.log(pairs.wins_b + 0.5)
    weight = (pairs.wins_a + 0.5) * (pairs.wins_b + 0.5) / total
    links = np.zeros((size, size))
    links[pairs.item_a, pairs.item_b] = weight
    links += links.T
    target = np.bincount(pairs.item_a, weight * odds, size)
    target -= np.bincount(pairs.item_b, weight * odds, size)
    degree = links.sum(axis=1)
    shift = max(float(degree[degree > 0].min(initial=np.inf)), 1e-300)
    matrix = np.diag(degree + (degree == 0)) - links + shift / size
    return np.linalg.lstsq(matrix, target, rcond=1e-14)[0]
