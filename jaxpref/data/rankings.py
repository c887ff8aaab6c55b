"""Rankings: several items at a time, best first, with ties, partial lists and top-k lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxpref._checks import DataError, InputError, check_option, closest_names
from jaxpref.data import _arrays
from jaxpref.data._listed import flatten_lists
from jaxpref.data.comparisons import Comparisons

UNLISTED = ("ignored", "last")


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


@dataclass(frozen=True, eq=False, repr=False)
class Rankings:
    """Rankings of named items, each best first.

    Parameters
    ----------
    items : tuple of str, length N
        The items' names, each once.
    item : ndarray of int32, shape (E,)
        Indices into `items`, one ranking after the other.
    rank : ndarray of int, shape (E,)
        Ranks within the ranking, smaller is better, equal for tied items. Only their order counts:
        they are kept as 1, 2, ... without gaps, and entries are sorted by them.
    start : ndarray of int64, shape (R + 1,)
        Ranking r holds the entries from ``start[r]`` to ``start[r + 1]``.
    weight : ndarray of float64, shape (R,), optional
        How often each ranking was given: finite, at least 0; 1 when left out.
    unlisted : {"ignored", "last"}
        What a ranking says about the items that it does not list: nothing (a partial ranking, the
        default), or that all of them come after those listed, in an order not known (top-k).
    rater : ndarray of int32, shape (R,), or None
        Indices into `raters`, or None where raters are not known.
    raters : tuple of str
        The raters' names, empty where they are not known.

    Raises
    ------
    InputError
        If lengths differ, an index is out of range, or a name is repeated or empty.
    DataError
        If a ranking lists an item twice, or leaves nothing to rank (one item alone), or a weight is
        negative or not finite; the message numbers the ranking, from 1.

    Notes
    -----
    Arrays are copied and made read-only. Usually built by :func:`jaxpref.data.read_rankings`,
    :meth:`from_lists` or :meth:`from_frame`.

    Examples
    --------
    >>> from jaxpref.data import Rankings
    >>> votes = Rankings.from_lists([["tea", "milk", "water"], ["milk", ["tea", "water"]]])
    >>> votes
    Rankings(3 items, 2 rankings of 3 items, 1 with ties)
    >>> votes.lists()[1]
    ['milk', ['tea', 'water']]
    """

    items: tuple[str, ...]
    item: np.ndarray
    rank: np.ndarray
    start: np.ndarray
    weight: Any = None  # None stands for ones; an array once built
    unlisted: str = "ignored"
    rater: np.ndarray | None = None
    raters: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "items", _arrays.check_names("items", self.items))
        put(self, "raters", _arrays.check_names("raters", self.raters))
        put(self, "unlisted", check_option("unlisted", self.unlisted, UNLISTED))
        length = np.size(self.item)
        put(self, "item", _arrays.index("item", self.item, len(self.items), length))
        put(self, "start", _check_start(self.start, length))
        item, rank = _in_order(self.item, _arrays.column("rank", self.rank, length), self.start)
        put(self, "item", _arrays.read_only(item))
        put(self, "rank", _arrays.read_only(rank))
        put(self, "weight", _check_weight(self.weight, self.start.size - 1))
        if self.rater is not None:
            rater = _arrays.index("rater", self.rater, len(self.raters), self.start.size - 1)
            put(self, "rater", rater)
        elif self.raters:
            raise InputError("raters: expected no names where rater is None; got names")
        _refuse_lone(self)
        _refuse_repeated(self)

    @classmethod
    def from_lists(
        cls,
        lists: Any,
        *,
        items: Iterable[str] | None = None,
        weight: Any = None,
        rater: Iterable[str] | None = None,
        unlisted: Literal["ignored", "last"] = "ignored",
    ) -> Rankings:
        """Build rankings from lists, best first.

        Parameters
        ----------
        lists : sequence of sequences, or array_like of int, shape (R, K)
            One ranking each: names, or indices from 0. A list inside a ranking is a group of tied
            items.
        items : iterable of str, length N, optional
            All the names. When left out, indices stand for items ``"0"`` to ``str(largest)``, and
            names are sorted.
        weight : array_like of float, shape (R,), optional
            How often each ranking was given; 1 when left out.
        rater : iterable of str, length R, optional
            Who gave each ranking.
        unlisted : {"ignored", "last"}
            What a ranking says about items it does not list.

        Raises
        ------
        InputError
            If `lists` is no sequence of rankings, or lengths differ.
        DataError
            For the first ranking that cannot be used, counted from 1: a missing, repeated or
            unknown item, one item alone, a bad weight.

        Examples
        --------
        >>> Rankings.from_lists([[2, 0, 1], [0, 2]], items=["x", "y", "z"]).lists()
        [['z', 'x', 'y'], ['x', 'z']]
        """
        names = None if items is None else _arrays.check_names("items", items)
        names, item, rank, start = flatten_lists(lists, names)
        codes, raters = _code_raters(rater, start.size - 1)
        return cls(names, item, rank, start, weight, unlisted, codes, raters)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        ranking: str | None = None,
        rank: str | None = None,
        score: str | None = None,
        item: str | None = None,
        weight: str | Literal[False] | None = None,
        rater: str | Literal[False] | None = None,
        unlisted: Literal["ignored", "last"] = "ignored",
    ) -> Rankings:
        """Build rankings from a long table, one row for each item of each ranking.

        Parameters
        ----------
        frame : DataFrame, LazyFrame or Table
            Anything that narwhals reads, or a Hugging Face dataset.
        ranking, rank, score, item, weight, rater : str, optional
            Columns, as in :func:`jaxpref.data.read_rankings`.
        unlisted : {"ignored", "last"}
            What a ranking says about items it does not list.

        Raises
        ------
        InputError
            If `frame` is not a table or its columns cannot be told apart.
        DataError
            If a row cannot be used; the message names the first one, counted from 1.

        Examples
        --------
        >>> import polars as pl
        >>> frame = pl.DataFrame({"ranking": [1, 1, 1], "rank": [2, 1, 2], "item": ["x", "y", "z"]})
        >>> Rankings.from_frame(frame).lists()
        [['y', ['x', 'z']]]
        """
        from jaxpref.data._frames import frame_rows
        from jaxpref.data._long import LongOptions, reduce_long

        options = LongOptions(ranking, rank, item, weight, rater, unlisted, score)
        return reduce_long(frame_rows(frame), options)

    @property
    def num_items(self) -> int:
        """Number of items, N."""
        return len(self.items)

    @property
    def num_rankings(self) -> int:
        """Number of rankings, R, whatever their weight."""
        return self.start.size - 1

    @property
    def lengths(self) -> np.ndarray:
        """How many items each ranking lists, shape (R,)."""
        return np.diff(self.start)

    def tie_sizes(self) -> np.ndarray:
        """Return the sizes of the groups of tied items that occur, sorted; empty without ties.

        Groups of rankings without weight do not count.

        >>> Rankings.from_lists([["x", ["y", "z"]], [["x", "y", "z"]]]).tie_sizes()
        array([2, 3])
        """
        if not (rank_count(self) < self.lengths).any():
            return np.zeros(0, np.int64)
        first = group_starts(self.rank, self.start)
        sizes = np.diff(first, append=self.rank.size)
        counted = np.repeat(self.weight > 0, self.lengths)[first]
        return np.unique(sizes[counted & (sizes > 1)])

    def index(self, name: str) -> int:
        """Return the position of an item, or raise InputError with the closest names."""
        try:
            return self.items.index(name)
        except ValueError:
            hint = closest_names(str(name), self.items)
            raise InputError(f"no item is called {name!r}{hint}") from None

    def lists(self) -> list[list[Any]]:
        """Return the rankings as lists of names, best first; tied items are a list in the list."""
        result = []
        for begin, end in zip(self.start[:-1], self.start[1:], strict=True):
            groups: list[list[str]] = []
            for item, rank in zip(self.item[begin:end], self.rank[begin:end], strict=True):
                if rank > len(groups):
                    groups.append([])
                groups[-1].append(self.items[item])
            result.append([group[0] if len(group) == 1 else group for group in groups])
        return result

    def entries(self) -> Entries:
        """Return every item that each ranking says something about, best first.

        With ``unlisted="last"`` the items that a ranking leaves out follow it, at one rank. Memory
        is then the number of rankings times the number of items.
        """
        if self.unlisted == "ignored":
            return Entries(self.item, self.rank, self.start, self.lengths)
        size, count = self.num_items, self.num_rankings
        owner = np.repeat(np.arange(count), self.lengths)
        rank = np.full((count, size), np.iinfo(np.int32).max, np.int32)
        rank[owner, self.item] = self.rank
        item = np.argsort(rank, axis=1, kind="stable").astype(np.int32)
        ranked = np.minimum(np.take_along_axis(rank, item, axis=1), rank_count(self)[:, None] + 1)
        start = np.arange(count + 1, dtype=np.int64) * size
        return Entries(item.ravel(), ranked.astype(np.int32).ravel(), start, self.lengths)

    def adjacent(self) -> Comparisons:
        """Return who stands directly above whom: enough to tell which items can be compared.

        Every item of one group of ties beats every item of the next, and neighbours within a group
        tie. Weights are those of the rankings.

        Examples
        --------
        >>> Rankings.from_lists([["x", "y", "z"]]).adjacent().counts_matrix()
        array([[0., 1., 0.],
               [0., 0., 1.],
               [0., 0., 0.]])
        """
        entries = self.entries()
        above, below = _steps(entries)
        owner = np.repeat(np.arange(self.num_rankings), np.diff(entries.start))
        tied = np.flatnonzero((np.diff(entries.rank) == 0) & (np.diff(owner) == 0))
        # Unlisted items share a rank, but nobody said that they tie.
        place = tied + 1 - entries.start[owner[tied]]
        tied = tied[place < entries.listed[owner[tied]]]
        return self._pairs(entries.item, owner, above, below, tied, tied + 1)

    def comparisons(self) -> Comparisons:
        """Return every pair of every ranking as a comparison ("rank breaking").

        Pairs of one ranking are not independent, so standard errors made of them are too small;
        their fit estimates the same scores as the rankings' own, less precisely.

        Examples
        --------
        >>> Rankings.from_lists([["x", "y", "z"]]).comparisons().counts_matrix()
        array([[0., 1., 1.],
               [0., 0., 1.],
               [0., 0., 0.]])
        """
        entries = self.entries()
        lengths = np.diff(entries.start)
        above: list[np.ndarray] = []
        below: list[np.ndarray] = []
        for length in np.unique(lengths):
            first = entries.start[:-1][lengths == length]
            i, j = np.triu_indices(length, 1)
            above.append((first[:, None] + i).ravel())
            below.append((first[:, None] + j).ravel())
        a, b = np.concatenate(above), np.concatenate(below)
        owner = np.repeat(np.arange(self.num_rankings), lengths)
        tie = entries.rank[a] == entries.rank[b]
        said = ~tie | (b - entries.start[owner[a]] < entries.listed[owner[a]])
        won, tied = ~tie, tie & said
        return self._pairs(entries.item, owner, a[won], b[won], a[tied], b[tied])

    def _pairs(
        self,
        item: np.ndarray,
        owner: np.ndarray,
        above: np.ndarray,
        below: np.ndarray,
        tied_a: np.ndarray,
        tied_b: np.ndarray,
    ) -> Comparisons:
        """Return comparisons from the positions of entries, winners and losers and ties."""
        a = np.concatenate([item[above], item[tied_a]]).astype(np.int64)
        b = np.concatenate([item[below], item[tied_b]]).astype(np.int64)
        kind = np.repeat([0, 1], [above.size, tied_a.size])
        kind = np.where(kind == 1, 2, (a > b).astype(np.int64))
        value = self.weight[owner[np.concatenate([above, tied_a])]]
        size = self.num_items
        key = (np.minimum(a, b) * size + np.maximum(a, b)) * 3 + kind
        keys, sums = _arrays.sum_by_key(key, 3 * size * size, value[None])
        pairs, row = np.unique(keys // 3, return_inverse=True)
        table = np.zeros((3, pairs.size))
        table[keys % 3, row] = sums[0]
        low, high = np.divmod(pairs, max(size, 1))
        return Comparisons(self.items, low, high, table[0], table[1], table[2])

    def thinned(self, count: int) -> Rankings:
        """Return about `count` of the rankings, evenly spread, or all where there are no more.

        >>> Rankings.from_lists([["x", "y"], ["y", "x"]] * 50).thinned(10).num_rankings
        10
        """
        stride = max(self.num_rankings // max(count, 1), 1)
        if stride == 1:
            return self
        kept = np.arange(0, self.num_rankings, stride)[:count]
        lengths = self.lengths[kept]
        start = np.concatenate([[0], np.cumsum(lengths)])
        entry = np.arange(start[-1]) + np.repeat(self.start[kept] - start[:-1], lengths)
        rater, raters = _arrays.used_raters(self.rater, self.raters, kept)
        columns = self.item[entry], self.rank[entry], start
        return Rankings(self.items, *columns, self.weight[kept], self.unlisted, rater, raters)

    def select(self, names: str | Iterable[str]) -> Rankings:
        """Keep only some items in every ranking; rankings of fewer than two are left out.

        Parameters
        ----------
        names : str or iterable of str
            Items to keep; the result has them in this order.

        Raises
        ------
        InputError
            If a name is unknown or given twice.

        Examples
        --------
        >>> Rankings.from_lists([["x", "y", "z"], ["z", "y"]]).select(["x", "z"]).lists()
        [['x', 'z']]
        """
        wanted = _arrays.check_names("names", [names] if isinstance(names, str) else names)
        position = np.full(self.num_items, -1, np.int32)
        position[[self.index(name) for name in wanted]] = np.arange(len(wanted))
        owner = np.repeat(np.arange(self.num_rankings), self.lengths)
        kept = position[self.item] >= 0
        left = np.bincount(owner[kept], minlength=self.num_rankings)
        least = 2 if self.unlisted == "ignored" or len(wanted) < 2 else 1
        rankings = left >= least
        kept &= rankings[owner]
        rater, raters = _arrays.used_raters(self.rater, self.raters, rankings)
        start = np.concatenate([[0], np.cumsum(left[rankings])]).astype(np.int64)
        weight = self.weight[rankings]
        columns = position[self.item[kept]], self.rank[kept], start
        return Rankings(wanted, *columns, weight, self.unlisted, rater, raters)

    def drop(self, names: str | Iterable[str]) -> Rankings:
        """Leave some items out of every ranking; rankings of fewer than two are left out.

        Raises
        ------
        InputError
            If a name is unknown or given twice.

        Examples
        --------
        >>> Rankings.from_lists([["x", "y", "z"], ["z", "y"]]).drop("y").lists()
        [['x', 'z']]
        """
        unwanted = _arrays.check_names("names", [names] if isinstance(names, str) else names)
        gone = {self.index(name) for name in unwanted}
        return self.select([name for k, name in enumerate(self.items) if k not in gone])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rankings):
            return NotImplemented
        same = (self.items, self.raters, self.unlisted) == (
            other.items, other.raters, other.unlisted
        )  # fmt: skip
        return same and all(
            np.array_equal(mine, yours)
            for mine, yours in zip(self._columns(), other._columns(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def _columns(self) -> tuple[np.ndarray, ...]:
        rater = np.empty(0, np.int32) if self.rater is None else self.rater
        return (self.item, self.rank, self.start, self.weight, rater)

    def __repr__(self) -> str:
        lengths = self.lengths
        span = ""
        if lengths.size:
            low, high = int(lengths.min()), int(lengths.max())
            span = (
                f" of {_arrays.amount(high, 'item') if low == high else f'{low} to {high} items'}"
            )
        tied = int(np.sum(rank_count(self) < lengths))
        ties = f", {tied:,} with ties" if tied else ""
        last = ", those not listed last" if self.unlisted == "last" else ""
        raters = f", {_arrays.amount(len(self.raters), 'rater')}" if self.raters else ""
        return (
            f"Rankings({_arrays.amount(self.num_items, 'item')}, "
            f"{_arrays.amount(self.num_rankings, 'ranking')}{span}{ties}{last}{raters})"
        )


def rank_count(rankings: Rankings) -> np.ndarray:
    """Return how many different ranks each ranking has, shape (R,)."""
    return rankings.rank[rankings.start[1:] - 1]


def group_starts(rank: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the positions of the first entry of each group of tied entries, ungrouped included."""
    first = np.diff(rank, prepend=0) != 0
    first[start[:-1]] = True
    return np.flatnonzero(first)


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


def _check_start(start: Any, length: int) -> np.ndarray:
    """Return the boundaries of the rankings as a read-only int64 copy."""
    array = _arrays.column("start", start)
    if array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"start: expected whole numbers from 0 to {length}; got {start!r}")
    if array[0] != 0 or array[-1] != length or (np.diff(array) < 0).any():
        raise InputError(f"start: expected boundaries rising from 0 to {length}; got {start!r}")
    return _arrays.read_only(array.astype(np.int64))


def _in_order(
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
        return _in_order(item[order], rank[order], start)
    rises = np.cumsum((step != 0) | ~inner)
    lengths = np.diff(start)
    before = np.repeat(rises[start[:-1][lengths > 0]] - 1, lengths[lengths > 0])
    return item.copy(), (rises - before).astype(np.int32)


def _check_weight(weight: Any, count: int) -> np.ndarray:
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


def _refuse_lone(rankings: Rankings) -> None:
    """Raise for the first ranking that compares nothing."""
    least = 1 if rankings.unlisted == "last" and rankings.num_items > 1 else 2
    short = np.flatnonzero(rankings.lengths < least)
    if short.size:
        place = f"ranking {short[0] + 1:,}{_also(short.size)}"
        begin = rankings.start[short[0]]
        found = rankings.lengths[short[0]]
        got = f"only {rankings.items[rankings.item[begin]]!r}" if found else "none"
        raise DataError(f"{place}: expected at least {_arrays.amount(least, 'item')}; got {got}")


def _refuse_repeated(rankings: Rankings) -> None:
    """Raise for the first ranking that lists an item twice."""
    lengths = rankings.lengths
    if lengths.size and (lengths == lengths[0]).all():
        twice = _row_repeats(rankings.item.reshape(-1, lengths[0]))
    else:
        owner = np.repeat(np.arange(lengths.size), lengths)
        key = np.sort(owner * rankings.num_items + rankings.item)
        twice = np.zeros(lengths.size, bool)
        twice[key[1:][key[1:] == key[:-1]] // max(rankings.num_items, 1)] = True
    bad = np.flatnonzero(twice)
    if bad.size:
        begin, end = rankings.start[bad[0]], rankings.start[bad[0] + 1]
        listed, times = np.unique(rankings.item[begin:end], return_counts=True)
        name = rankings.items[listed[times > 1][0]]
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


def _code_raters(
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
