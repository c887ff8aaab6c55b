"""NumPy work behind `Comparisons`: checks of its arrays, and sums over pairs of items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxpref._checks import DataError, InputError, closest_names, show

# Items named by index alone are listed one by one, so a stray 10-digit id must not become an index.
LARGEST_INDEX = 10_000_000


def check_names(argument: str, names: Any) -> tuple[str, ...]:
    """Return names as a tuple, each a non-empty string that occurs once."""
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise InputError(f"{argument}: expected a sequence of names; got {show(names)}")
    listed = tuple(names)
    for position, name in enumerate(listed):
        if not isinstance(name, str) or not name:
            raise InputError(f"{argument}[{position}]: expected a non-empty name; got {name!r}")
    if len(set(listed)) < len(listed):
        repeated = next(name for name, times in Counter(listed).items() if times > 1)
        raise InputError(f"{argument}: expected each name once; got {repeated!r} more than once")
    return tuple(str(name) for name in listed)


def read_only(array: np.ndarray) -> np.ndarray:
    """Forbid writing to an array, and return it."""
    array.flags.writeable = False
    return array


def column(argument: str, values: Any, length: int | None = None) -> np.ndarray:
    """Return `values` as a one-dimensional array of the given length."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"{argument}: expected one dimension; got shape {array.shape}")
    if length is not None and array.size != length:
        raise InputError(f"{argument}: expected {length} values; got {array.size}")
    return array


def index(argument: str, values: Any, size: int, length: int) -> np.ndarray:
    """Return a read-only int32 copy of indices, each in [0, size)."""
    array = column(argument, values, length)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{argument}: expected whole-number indices; got {array.dtype}")
    bad = np.flatnonzero((array < 0) | (array >= size))
    if bad.size:
        place = f"{argument}[{bad[0]}]"
        raise InputError(f"{place}: expected an index from 0 to {size - 1}; got {array[bad[0]]}")
    return read_only(array.astype(np.int32))


def weights(argument: str, values: Any, length: int) -> np.ndarray:
    """Return a read-only float64 copy of weights, each finite and at least 0."""
    array = column(argument, values, length)
    if not (np.issubdtype(array.dtype, np.number) and np.isrealobj(array)):
        raise InputError(f"{argument}: expected real weights; got {array.dtype}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        place = f"{argument}[{bad[0]}]"
        raise InputError(f"{place}: expected a finite weight of at least 0; got {array[bad[0]]}")
    return read_only(array.astype(np.float64))


def covariates(values: Any, length: int) -> dict[str, np.ndarray]:
    """Return covariates as read-only float64 copies, finite and named."""
    if not isinstance(values, Mapping):
        raise InputError(f"covariates: expected a mapping of names to arrays; got {values!r}")
    found = {}
    for name, given in values.items():
        place = f"covariates[{name!r}]"
        if not isinstance(name, str) or not name:
            raise InputError(f"{place}: expected a name as text; got {name!r}")
        array = column(place, given, length)
        if array.dtype.kind not in "biuf":
            raise InputError(f"{place}: expected numbers; got {array.dtype}")
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            raise InputError(f"{place}[{bad[0]}]: expected a finite number; got {array[bad[0]]}")
        found[name] = read_only(array.astype(np.float64))
    return found


def raters(rater: Any, names: tuple[str, ...], length: int) -> np.ndarray | None:
    """Return indices of raters as a read-only copy, None where raters are not known."""
    if rater is not None:
        return index("rater", rater, len(names), length)
    if names:
        raise InputError("raters: expected no names where rater is None; got names")
    return None


def position(name: str, items: tuple[str, ...]) -> int:
    """Return the position of an item, or raise InputError with the closest names."""
    try:
        return items.index(name)
    except ValueError:
        hint = closest_names(str(name), items)
        raise InputError(f"no item is called {name!r}{hint}") from None


def chosen(names: Any, items: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return names to keep, checked, and for each item its position among them, -1 for others."""
    wanted = check_names("names", [names] if isinstance(names, str) else names)
    places = np.full(len(items), -1, np.int32)
    places[[position(name, items) for name in wanted]] = np.arange(len(wanted))
    return wanted, places


def others(names: Any, items: tuple[str, ...]) -> list[str]:
    """Return the items that are not among some names, in the same order."""
    unwanted = check_names("names", [names] if isinstance(names, str) else names)
    gone = {position(name, items) for name in unwanted}
    return [name for k, name in enumerate(items) if k not in gone]


def refuse_self_comparison(item_a: np.ndarray, item_b: np.ndarray, items: tuple[str, ...]) -> None:
    """Raise for the first row that compares an item with itself."""
    same = np.flatnonzero(item_a == item_b)
    if same.size:
        name = items[item_a[same[0]]]
        raise InputError(f"item_b[{same[0]}]: expected another item than item_a; both are {name!r}")


def square_counts(matrix: Any, items: Iterable[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a checked copy of a matrix of wins, its diagonal zero, and the items' names."""
    try:
        wins = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        raise InputError("matrix: expected numbers in rows of equal length") from None
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1]:
        raise InputError(f"matrix: expected a square matrix; got shape {wins.shape}")
    size = wins.shape[0]
    names = check_names("items", map(str, range(size)) if items is None else items)
    if len(names) != size:
        raise InputError(f"items: expected {size} names, one for each row; got {len(names)}")
    diagonal = np.flatnonzero(~((np.diagonal(wins) == 0) | np.isnan(np.diagonal(wins))))
    if diagonal.size:
        name = names[diagonal[0]]
        raise DataError(f"matrix: expected an empty diagonal; {name!r} is compared with itself")
    np.fill_diagonal(wins, 0.0)
    if wins.size and not (wins.min() >= 0 and wins.max() < np.inf):  # a NaN is neither
        i, j = np.argwhere(~(np.isfinite(wins) & (wins >= 0)))[0]
        raise DataError(
            f"matrix: wins of {names[i]!r} over {names[j]!r} (row {i + 1}, column {j + 1}): "
            f"expected a finite number of at least 0; got {wins[i, j]:g}"
        )
    return wins, names


def pairs_of_matrix(
    rows: np.ndarray, wins: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs ``a < b`` with an entry in `rows`, and the wins of a and of b."""
    a, b = np.nonzero(np.triu(rows + rows.T != 0, 1))
    flat = wins.ravel()
    won, lost = (flat.take(i * len(wins) + j).astype(np.float64) for i, j in ((a, b), (b, a)))
    return a, b, won, lost


def holds_integers(winner: Any, loser: Any) -> bool:
    """Whether both columns hold whole numbers, that is, indices rather than names."""
    for argument, values in (("winner", winner), ("loser", loser)):
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise InputError(f"{argument}: expected a column of names or indices; got {values!r}")
        # The first value of a list tells, without converting a million names.
        sample = np.asarray(values[:1] if isinstance(values, (list, tuple)) else values)
        if sample.size and sample.dtype.kind not in "iu":
            return False
    return True


def count_indices(
    winner: Any, loser: Any, items: tuple[str, ...] | None, weight: Any
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Count wins by index: names, the pairs a < b, and the wins of either."""
    won = column("winner", winner)
    lost = column("loser", loser, won.size)
    if won.size == 0:
        raise DataError("winner: expected at least one comparison; got none")
    largest = max(_largest_index(n, v, items) for n, v in (("winner", won), ("loser", lost)))
    _refuse_row("loser", won == lost, lost, "another item than the winner's")
    if weight is not None:
        weight = _row_weights(weight, won.size)
    if items is None:
        items = tuple(map(str, range(1 + largest)))
    won, lost = won.astype(np.int64, copy=False), lost.astype(np.int64, copy=False)
    return items, *_wins_by_pair(won, lost, len(items), weight)


def _row_weights(weight: Any, length: int) -> np.ndarray:
    """Return the weights of the rows, each finite and at least 0."""
    array = column("weight", weight, length)
    if not (np.issubdtype(array.dtype, np.number) and np.isrealobj(array)):
        raise InputError(f"weight: expected real weights; got {array.dtype}")
    bad = ~(np.isfinite(array) & (array >= 0))
    _refuse_row("weight", bad, array, "a finite weight of at least 0")
    return array


def _wins_by_pair(
    won: np.ndarray, lost: np.ndarray, size: int, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs ``a < b`` that occur, and the wins of a and of b.

    In one matrix where the rows would fill one, otherwise in one sort.
    """
    if size * size <= _bins_for(won.size):
        return _wins_in_matrix(won * size + lost, size, weight)
    pair = np.minimum(won, lost) * size + np.maximum(won, lost)
    values = None if weight is None else weight[None]
    keys, sums = sum_by_key(2 * pair + (won > lost), 2 * size * size, values)
    pairs, row = np.unique(keys >> 1, return_inverse=True)
    wins = np.zeros((2, pairs.size))
    wins[keys & 1, row] = sums[0]
    return pairs // size, pairs % size, wins[0], wins[1]


def _wins_in_matrix(
    place: np.ndarray, size: int, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs that occur and their wins, from the place of each row in a matrix."""
    rows = wins = np.bincount(place, minlength=size * size).reshape(size, size)
    if weight is not None:
        wins = np.bincount(place, weight, size * size).reshape(size, size)
    return pairs_of_matrix(rows, wins)


def _bins_for(rows: int) -> int:
    """Return how many bins are worth having for so many rows, rather than sorting them."""
    return max(2 * rows, 4096)


def _largest_index(argument: str, values: np.ndarray, items: tuple[str, ...] | None) -> int:
    """Return the largest index; raise for the first that is negative, or too large."""
    if not np.issubdtype(values.dtype, np.integer):
        raise InputError(f"{argument}: expected indices or names; got {values.dtype}")
    low, high = int(values.min()), int(values.max())
    if low < 0:
        _refuse_row(argument, values < 0, values, "an index of at least 0")
    if items is None and high > LARGEST_INDEX:
        expected = f"an index of at most {LARGEST_INDEX:,} (ids that are no indices: as text)"
        _refuse_row(argument, values > LARGEST_INDEX, values, expected)
    if items is not None and high >= len(items):
        expected = f"an index from 0 to {len(items) - 1}"
        _refuse_row(argument, values >= len(items), values, expected)
    return high


def _refuse_row(argument: str, bad: np.ndarray, values: np.ndarray, expected: str) -> None:
    """Raise for the first row where `bad` holds, counted from 1."""
    rows = np.flatnonzero(bad)
    if rows.size:
        place = f"row {rows[0] + 1:,}{also(rows.size)}"
        raise DataError(f"{place}: {argument}: expected {expected}; got {values[rows[0]]}")


def also(count: int) -> str:
    """Say how many further rows share the first one's problem."""
    if count <= 1:
        return ""
    return f" and {count - 1:,} more {'rows' if count > 2 else 'row'} like it"


def sum_by_key(
    keys: np.ndarray, bins: int, values: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum `values`, shape (V, R), over equal keys in [0, bins); count the rows where it is None.

    Returns the P keys that occur, sorted, and the sums, shape (V, P). Bins where they are few for
    the rows, sorting otherwise, so that memory follows the rows.
    """
    if values is not None and (keys[1:] > keys[:-1]).all():
        return keys, values.astype(np.float64)
    if bins <= _bins_for(keys.size):
        used = np.flatnonzero(np.bincount(keys))
        weights_of = [None] if values is None else list(values)
        sums = np.stack([np.bincount(keys, weight)[used] for weight in weights_of])
        return used, sums.astype(np.float64)
    order = None if values is None else np.argsort(keys)
    ordered = np.sort(keys) if order is None else keys[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    if values is None or order is None:
        return ordered[starts], np.diff(starts, append=keys.size)[None].astype(np.float64)
    if starts.size == 0:
        return ordered, np.zeros((len(values), 0))
    return ordered[starts], np.add.reduceat(values[:, order], starts, axis=1).astype(np.float64)


def used_raters(
    rater: np.ndarray | None, raters: tuple[str, ...], keep: np.ndarray
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the raters of the kept cells, numbered anew, and the names still in use."""
    if rater is None:
        return None, ()
    used, renumbered = np.unique(rater[keep], return_inverse=True)
    return renumbered.astype(np.int32), tuple(raters[k] for k in used)


def amount(number: float | int, noun: str) -> str:
    """Write a number with its noun: ``"1 tie"``, ``"8,931 comparisons"``, ``"2.5 ties"``."""
    text = f"{int(number):,}" if float(number).is_integer() else f"{number:,.6g}"
    return f"{text} {noun}{'' if number == 1 else 's'}"


def unknown_name(name: str, items: tuple[str, ...]) -> str:
    """Say that a name is not among the items, with the closest ones."""
    return f"unknown item {name!r}{closest_names(name, items)}"
