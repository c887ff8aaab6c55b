"""Pairs of the items of rankings: neighbours, or all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxpref.data import _arrays

# Items a < b, and wins of a, wins of b and ties.
Cells = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Entries(NamedTuple):
    """The entries of all rankings end to end, best first, unlisted items included where they count.

    Parameters
    ----------
    item : ndarray of int32, shape (E,)
        Indices of the items.
    rank : ndarray of int32, shape (E,)
        Rank within the ranking, from 1, equal for tied items; unlisted items share the rank after
        the last.
    start : ndarray of int64, shape (R + 1,)
        Ranking r holds the entries from ``start[r]`` to ``start[r + 1]``.
    listed : ndarray of int64, shape (R,)
        How many entries of each ranking were listed; the rest only lost.
    """

    item: np.ndarray
    rank: np.ndarray
    start: np.ndarray
    listed: np.ndarray


def group_starts(rank: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the positions of the first entry of each group of tied entries, ungrouped included."""
    first = np.diff(rank, prepend=0) != 0
    first[start[:-1]] = True
    return np.flatnonzero(first)


def neighbours(entries: Entries, weight: np.ndarray, num_items: int) -> Cells:
    """Return who stands directly above whom: each of a group of ties above each of the next."""
    above, below = _steps(entries)
    owner = np.repeat(np.arange(weight.size), np.diff(entries.start))
    tied = np.flatnonzero((np.diff(entries.rank) == 0) & (np.diff(owner) == 0))
    # Unlisted items share a rank, but nobody said that they tie.
    place = tied + 1 - entries.start[owner[tied]]
    tied = tied[place < entries.listed[owner[tied]]]
    return _cells(entries.item, weight[owner], above, below, tied, tied + 1, num_items)


def every_pair(entries: Entries, weight: np.ndarray, num_items: int) -> Cells:
    """Return all pairs of every ranking."""
    lengths = np.diff(entries.start)
    above: list[np.ndarray] = []
    below: list[np.ndarray] = []
    for length in np.unique(lengths):
        first = entries.start[:-1][lengths == length]
        i, j = np.triu_indices(length, 1)
        above.append((first[:, None] + i).ravel())
        below.append((first[:, None] + j).ravel())
    a, b = np.concatenate(above), np.concatenate(below)
    owner = np.repeat(np.arange(weight.size), lengths)
    tie = entries.rank[a] == entries.rank[b]
    said = ~tie | (b - entries.start[owner[a]] < entries.listed[owner[a]])
    won, tied = ~tie, tie & said
    return _cells(entries.item, weight[owner], a[won], b[won], a[tied], b[tied], num_items)


def _cells(
    item: np.ndarray,
    weight: np.ndarray,
    above: np.ndarray,
    below: np.ndarray,
    tied_a: np.ndarray,
    tied_b: np.ndarray,
    num_items: int,
) -> Cells:
    """Add up the weights of pairs given by the positions of their entries."""
    a = np.concatenate([item[above], item[tied_a]]).astype(np.int64)
    b = np.concatenate([item[below], item[tied_b]]).astype(np.int64)
    kind = np.repeat([0, 1], [above.size, tied_a.size])
    kind = np.where(kind == 1, 2, (a > b).astype(np.int64))
    value = weight[np.concatenate([above, tied_a])]
    key = (np.minimum(a, b) * num_items + np.maximum(a, b)) * 3 + kind
    keys, sums = _arrays.sum_by_key(key, 3 * num_items * num_items, value[None])
    pairs, row = np.unique(keys // 3, return_inverse=True)
    table = np.zeros((3, pairs.size))
    table[keys % 3, row] = sums[0]
    low, high = np.divmod(pairs, max(num_items, 1))
    return low, high, table[0], table[1], table[2]


def _steps(entries: Entries) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of each pair of entries, one in a group and one in the next."""
    first = group_starts(entries.rank, entries.start)
    if first.size == entries.rank.size:
        below = np.flatnonzero(entries.rank > 1)
        return below - 1, below
    size = np.diff(first, append=entries.rank.size)
    follows = np.flatnonzero(entries.rank[first] > 1)  # groups with one above them
    before = follows - 1
    product = size[before] * size[follows]
    within = np.arange(product.sum()) - np.repeat(np.cumsum(product) - product, product)
    width = np.repeat(size[follows], product)
    above = np.repeat(first[before], product) + within // width
    below = np.repeat(first[follows], product) + within % width
    return above, below
