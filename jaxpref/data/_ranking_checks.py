"""Checks of the columns of rankings; messages number the ranking, from 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxpref._checks import DataError, InputError
from jaxpref.data import _arrays


def boundaries(start: Any, length: int) -> np.ndarray:
    """Return the boundaries of the rankings as a read-only int64 copy."""
    array = _arrays.column("start", start)
    if array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"start: expected whole numbers from 0 to {length}; got {start!r}")
    if array[0] != 0 or array[-1] != length or (np.diff(array) < 0).any():
        raise InputError(f"start: expected boundaries rising from 0 to {length}; got {start!r}")
    return _arrays.read_only(array.astype(np.int64))


def in_order(
    item: np.ndarray, rank: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the entries of each ranking by rank, with ranks 1, 2, ... without gaps."""
    if rank.size == 0:
        return item.copy(), np.zeros(0, np.int32)
    bad = np.flatnonzero(~np.isfinite(rank))
    if bad.size:
        raise InputError(f"rank[{bad[0]}]: expected a finite number; got {rank[bad[0]]}")
    inner = np.ones(rank.size, bool)
    inner[start[:-1][start[:-1] < rank.size]] = False
    step = np.diff(rank, prepend=rank[0])
    if ((step == 1) | ~inner).all() and (rank[~inner] == 1).all():
        return item.copy(), rank.astype(np.int32)
    if (step[inner] < 0).any():
        owner = np.repeat(np.arange(start.size - 1), np.diff(start))
        order = np.lexsort((rank, owner))
        return in_order(item[order], rank[order], start)
    rises = np.cumsum((step != 0) | ~inner)
    lengths = np.diff(start)
    before = np.repeat(rises[start[:-1][lengths > 0]] - 1, lengths[lengths > 0])
    return item.copy(), (rises - before).astype(np.int32)


def weights(weight: Any, count: int) -> np.ndarray:
    """Return the weights of the rankings, read-only."""
    if weight is None:
        return _arrays.read_only(np.ones(count))
    array = _arrays.column("weight", weight, count)
    if not (np.issubdtype(array.dtype, np.number) and np.isrealobj(array)):
        raise InputError(f"weight: expected real weights; got {array.dtype}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        raise DataError(
            f"ranking {bad[0] + 1:,}{_also(bad.size)}: weight: expected a finite weight of at "
            f"least 0; got {array[bad[0]]}"
        )
    return _arrays.read_only(array.astype(np.float64))


def _also(count: int) -> str:
    if count <= 1:
        return ""
    return f" and {count - 1:,} more {'rankings' if count > 2 else 'ranking'} like it"


def refuse_lone(item: np.ndarray, start: np.ndarray, items: tuple[str, ...], least: int) -> None:
    """Raise for the first ranking that compares nothing."""
    lengths = np.diff(start)
    short = np.flatnonzero(lengths < least)
    if short.size:
        place = f"ranking {short[0] + 1:,}{_also(short.size)}"
        got = f"only {items[item[start[short[0]]]]!r}" if lengths[short[0]] else "none"
        raise DataError(f"{place}: expected at least {_arrays.amount(least, 'item')}; got {got}")


def refuse_repeated(item: np.ndarray, start: np.ndarray, items: tuple[str, ...]) -> None:
    """Raise for the first ranking that lists an item twice."""
    lengths = np.diff(start)
    if lengths.size and (lengths == lengths[0]).all():
        twice = _row_repeats(item.reshape(-1, lengths[0]))
    else:
        owner = np.repeat(np.arange(lengths.size), lengths)
        key = np.sort(owner * len(items) + item)
        twice = np.zeros(lengths.size, bool)
        twice[key[1:][key[1:] == key[:-1]] // max(len(items), 1)] = True
    bad = np.flatnonzero(twice)
    if bad.size:
        listed, times = np.unique(item[start[bad[0]] : start[bad[0] + 1]], return_counts=True)
        name = items[listed[times > 1][0]]
        place = f"ranking {bad[0] + 1:,}{_also(bad.size)}"
        raise DataError(f"{place}: expected each item once; {name!r} is listed twice")


def _row_repeats(table: np.ndarray) -> np.ndarray:
    """Whether each row holds a value twice: by comparing columns where they are few."""
    count, width = table.shape
    if width > 16:
        table = np.sort(table, axis=1)
        return (table[:, 1:] == table[:, :-1]).any(axis=1)
    columns = np.ascontiguousarray(table.T)
    twice = np.zeros(count, bool)
    for place in range(1, width):
        twice |= (columns[place:] == columns[:-place]).any(axis=0)
    return twice


def code_raters(
    rater: Iterable[str] | None, count: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return raters as indices into their sorted names."""
    if rater is None:
        return None, ()
    listed = list(rater)
    if len(listed) != count:
        raise InputError(f"rater: expected {count} names, one for each ranking; got {len(listed)}")
    for position, name in enumerate(listed):
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"ranking {position + 1:,}: rater: expected a name; got {name!r}")
    names, codes = np.unique(np.asarray(listed, dtype=object), return_inverse=True)
    return codes.astype(np.int32), tuple(names.tolist())
