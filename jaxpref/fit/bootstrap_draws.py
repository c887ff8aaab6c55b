"""Data drawn again: counts by a multinomial, outcomes from a fit, whole raters, or weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._checks import InputError
from ..data.comparisons import Comparisons
from ..data.rankings import Rankings
from .likelihood import predict
from .rankings_result import RankingFit
from .result import FitResult

BY_RATER = ("rater", "rater_weights")
_DRAWS_PER_CELL = 30
"""Rows are drawn one by one up to this many for each cell; beyond, binomials cell by cell."""


def draw_wins(
    fit: FitResult, data: Any, random: np.random.Generator, count: int, method: str
) -> Iterator[np.ndarray]:
    """Yield matrices of wins, row over column, ties as half wins."""
    size = fit.num_items
    if data is not None and (not isinstance(data, Comparisons) or data.items != fit.items):
        raise InputError("data: expected the Comparisons that were fitted, or nothing")
    if method == "parametric":
        yield from _parametric(fit, random, count)
        return
    if method in BY_RATER:
        if data is None or data.rater is None:
            raise InputError(f'data: method="{method}" needs the Comparisons with their raters')
        yield from _by_rater(data, random, count, method)
        return
    source = fit.pairs if data is None else data
    ties = np.zeros_like(source.wins_a) if data is None else data.ties
    cells = np.concatenate([source.wins_a, source.wins_b, ties])
    ahead = np.concatenate([source.item_a, source.item_b, source.item_a]).astype(np.int64)
    behind = np.concatenate([source.item_b, source.item_a, source.item_b]).astype(np.int64)
    tied = np.arange(cells.size) >= 2 * source.wins_a.size
    used = cells > 0
    place, mirror = (ahead * size + behind)[used], (behind * size + ahead)[used & tied]
    share = np.where(tied, 0.5, 1.0)[used]
    for drawn in draw_cells(cells[used], random, count, method):
        wins = np.bincount(place, drawn * share, size * size)
        if mirror.size:
            wins += np.bincount(mirror, drawn[tied[used]] * 0.5, size * size)
        yield wins.reshape(size, size)


def draw_cells(
    cells: np.ndarray, random: np.random.Generator, count: int, method: str
) -> Iterator[np.ndarray]:
    """Yield new counts of cells: rows drawn with replacement, or weights drawn for all rows.

    The weight of a row is exponential, so that of a cell of n rows is gamma distributed of shape n;
    they are scaled to the number of rows. No cell that held something is left without.
    """
    if method != "weights":
        yield from multinomials(cells, random, count)
        return
    total = float(cells.sum())
    for _ in range(count):
        drawn = random.standard_gamma(cells)
        yield drawn * (total / drawn.sum())


def multinomials(
    cells: np.ndarray, random: np.random.Generator, count: int
) -> Iterator[np.ndarray]:
    """Yield counts of as many draws as the cells hold, each cell as likely as its weight."""
    total = round(float(cells.sum()))
    whole = bool((cells == np.floor(cells)).all())
    if whole and total <= _DRAWS_PER_CELL * cells.size:
        row = np.repeat(np.arange(cells.size), cells.astype(np.int64)).astype(np.int32)
        for _ in range(count):
            chosen = row.take(_rows_with_replacement(total, random))
            yield np.bincount(chosen, minlength=cells.size).astype(np.float64)
        return
    share = cells / cells.sum()
    for _ in range(count):
        yield random.multinomial(total, share).astype(np.float64)


def _rows_with_replacement(total: int, random: np.random.Generator) -> np.ndarray:
    """Return `total` rows from 0 to total - 1, each as likely to within 2^-32 of its share.

    The high half of 32 random bits times the number of rows: twice as fast as ``integers``.
    """
    bits = random.bit_generator.random_raw((total + 1) // 2).view(np.uint32)[:total]
    place = bits.astype(np.uint64)
    place *= np.uint64(total)
    place >>= np.uint64(32)
    return place.view(np.int64)


def _parametric(fit: FitResult, random: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """Yield outcomes drawn from the fitted probability of each pair."""
    a, b = fit.pairs.item_a, fit.pairs.item_b
    number = np.rint(fit.pairs.wins_a + fit.pairs.wins_b).astype(np.int64)
    chance = predict(fit.link, fit.scores[a] - fit.scores[b]).probability
    for _ in range(count):
        wins = np.zeros((fit.num_items, fit.num_items))
        won = random.binomial(number, chance)
        wins[a, b], wins[b, a] = won, number - won
        yield wins


def _by_rater(
    data: Comparisons, random: np.random.Generator, count: int, method: str
) -> Iterator[np.ndarray]:
    """Yield the votes of as many raters as there are, drawn with replacement or weighted."""
    halves = data.with_ties_as_half_wins()
    size = data.num_items
    ahead = halves.item_a.astype(np.int64) * size + halves.item_b
    behind = halves.item_b.astype(np.int64) * size + halves.item_a
    for times in rater_times(len(data.raters), random, count, method):
        weight = times[data.rater]
        wins = np.bincount(ahead, weight * halves.wins_a, size * size)
        wins += np.bincount(behind, weight * halves.wins_b, size * size)
        yield wins.reshape(size, size)


def rater_times(
    raters: int, random: np.random.Generator, count: int, method: str
) -> Iterator[np.ndarray]:
    """Yield how often each rater was drawn, or an exponential weight for each."""
    for _ in range(count):
        if method == "rater_weights":
            weight = random.standard_exponential(raters)
            yield weight * (raters / weight.sum())
        else:
            chosen = random.integers(0, raters, raters)
            yield np.bincount(chosen, minlength=raters).astype(np.float64)


def draw_rankings(
    fit: RankingFit,
    rankings: Rankings,
    random: np.random.Generator,
    count: int,
    method: str,
) -> Iterator[Rankings]:
    """Yield rankings with new weights, or with new orders of the items each one lists."""
    if method == "parametric":
        yield from _simulated(fit, rankings, random, count)
        return
    if method in BY_RATER:
        if rankings.rater is None:
            raise InputError(f'data: method="{method}" needs rankings with their raters')
        for times in rater_times(len(rankings.raters), random, count, method):
            yield _reweighted(rankings, rankings.weight * times[rankings.rater])
        return
    for drawn in draw_cells(rankings.weight, random, count, method):
        yield _reweighted(rankings, drawn)


def _reweighted(rankings: Rankings, weight: np.ndarray) -> Rankings:
    columns = rankings.items, rankings.item, rankings.rank, rankings.start
    return Rankings(*columns, weight, rankings.unlisted)


def _simulated(
    fit: RankingFit, rankings: Rankings, random: np.random.Generator, count: int
) -> Iterator[Rankings]:
    """Yield rankings of the same items, in an order drawn from the fit (the Gumbel trick)."""
    if fit.tie_orders:
        raise InputError('fit: method="parametric" expects a fit without tie parameters')
    weight = rankings.weight
    if not (weight == np.floor(weight)).all():
        raise InputError('data: method="parametric" expects whole numbers of each ranking')
    entries = rankings.entries()
    times = weight.astype(np.int64)
    lengths = np.repeat(np.diff(entries.start), times)
    owner = np.repeat(np.arange(times.size), times)
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    inner = np.arange(start[-1]) - np.repeat(start[:-1], lengths)
    item = entries.item[np.repeat(entries.start[owner], lengths) + inner]
    listed = inner < np.repeat(entries.listed[owner], lengths)
    kept = np.bincount(np.repeat(np.arange(owner.size), lengths)[listed], minlength=owner.size)
    begin = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    group = np.repeat(np.arange(owner.size), lengths)
    for _ in range(count):
        luck = fit.scores[item] + random.gumbel(size=item.size)
        order = np.lexsort((-luck, group))
        columns = rankings.items, item[order][listed], inner[listed] + 1, begin
        yield Rankings(*columns, None, rankings.unlisted)
