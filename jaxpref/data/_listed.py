"""Rankings as lists, best first, flattened into columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxpref._checks import DataError, InputError, show
from jaxpref.data._arrays import LARGEST_INDEX, unknown_name

Flat = tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]


def flatten_lists(lists: Any, items: tuple[str, ...] | None) -> Flat:
    """Return names, item indices, ranks and boundaries of rankings given as lists.

    Raises
    ------
    InputError
        If `lists` is no sequence of rankings.
    DataError
        For the first ranking with a missing or unknown item, counted from 1.
    """
    if isinstance(lists, (str, bytes, dict)) or not isinstance(lists, Iterable):
        raise InputError(f"lists: expected a sequence of rankings; got {show(lists)}")
    table = _as_table(lists)
    if table is not None:
        return _flatten_table(table, items)
    values, rank, start = _flatten(lists)
    if values and all(isinstance(v, (int, np.integer)) for v in values):
        item = np.array(values, np.int64)
        return _index_names(item, rank, start, items)
    return _code_names(values, rank, start, items)


def _as_table(lists: Any) -> np.ndarray | None:
    """Return rankings of indices, all of one length, as a matrix; None where they are not."""
    if not isinstance(lists, np.ndarray):
        first = lists[0] if isinstance(lists, Sequence) and lists else None
        if not isinstance(first, Sequence) or not first or not isinstance(first[0], int):
            return None
        try:
            lists = np.asarray(lists)
        except (ValueError, OverflowError):  # of different lengths, ties among them, huge ids
            return None
    return lists if lists.ndim == 2 and lists.dtype.kind in "iu" else None


def _flatten_table(table: np.ndarray, items: tuple[str, ...] | None) -> Flat:
    count, length = table.shape
    rank = np.tile(np.arange(1, length + 1, dtype=np.int32), count)
    start = np.arange(count + 1, dtype=np.int64) * length
    return _index_names(table.ravel(), rank, start, items)


def _flatten(lists: Iterable[Any]) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Return the entries of ragged rankings, their ranks, and the boundaries."""
    values: list[Any] = []
    rank: list[int] = []
    start = [0]
    for number, ranking in enumerate(lists, start=1):
        for place, entry in enumerate(_members(ranking, number, "a list of items"), start=1):
            group = [entry]
            if isinstance(entry, (list, tuple, set, frozenset, np.ndarray)):
                group = _members(entry, number, "a group of tied items")
            values.extend(group)
            rank.extend([place] * len(group))
        start.append(len(values))
    return values, np.array(rank, np.int32), np.array(start, np.int64)


def _members(values: Any, number: int, what: str) -> list[Any]:
    """Return a ranking, or a group of it, as a list; sets in a fixed order."""
    if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
        raise DataError(f"ranking {number:,}: expected {what}; got {values!r}")
    if isinstance(values, (set, frozenset)):
        return sorted(values, key=str)
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _index_names(
    item: np.ndarray, rank: np.ndarray, start: np.ndarray, items: tuple[str, ...] | None
) -> Flat:
    """Check indices, and name them by their number where no names are given."""
    if item.size == 0:
        raise DataError("lists: expected at least one ranking; got none")
    most = LARGEST_INDEX if items is None else len(items) - 1
    bad = np.flatnonzero((item < 0) | (item > most))
    if bad.size:
        number = int(np.searchsorted(start, bad[0], side="right"))
        raise DataError(
            f"ranking {number:,}: expected an index from 0 to {most:,}; got {item[bad[0]]}"
        )
    names = tuple(map(str, range(1 + int(item.max())))) if items is None else items
    return names, item, rank, start


def _code_names(
    values: list[Any], rank: np.ndarray, start: np.ndarray, items: tuple[str, ...] | None
) -> Flat:
    """Turn names into indices; names not given are sorted."""
    if not values:
        raise DataError("lists: expected at least one ranking; got none")
    for position, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            number = int(np.searchsorted(start, position, side="right"))
            got = "a blank" if isinstance(value, str) else repr(value)
            raise DataError(f"ranking {number:,}: expected the name of an item; got {got}")
    names = tuple(sorted(set(values))) if items is None else items
    index = {name: k for k, name in enumerate(names)}
    try:
        item = np.fromiter((index[value] for value in values), np.int64, len(values))
    except KeyError:
        position, value = next((p, v) for p, v in enumerate(values) if v not in index)
        number = int(np.searchsorted(start, position, side="right"))
        raise DataError(f"ranking {number:,}: {unknown_name(value, names)}") from None
    return names, item, rank, start
