"""Rankings: several items at a time, best first, with ties, partial lists and top-k lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from jaxpref._checks import check_option
from jaxpref.data import _arrays, _ranking_checks
from jaxpref.data._listed import flatten_lists
from jaxpref.data._ranking_pairs import Entries, every_pair, group_starts, neighbours
from jaxpref.data.comparisons import Comparisons

UNLISTED = ("ignored", "last")
__all__ = ["UNLISTED", "Entries", "Rankings", "group_starts", "rank_count"]


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
        put(self, "start", _ranking_checks.boundaries(self.start, length))
        rank = _arrays.column("rank", self.rank, length)
        item, rank = _ranking_checks.in_order(self.item, rank, self.start)
        put(self, "item", _arrays.read_only(item))
        put(self, "rank", _arrays.read_only(rank))
        count = self.start.size - 1
        put(self, "weight", _ranking_checks.weights(self.weight, count))
        put(self, "rater", _arrays.raters(self.rater, self.raters, count))
        least = 1 if self.unlisted == "last" and self.num_items > 1 else 2
        _ranking_checks.refuse_lone(self.item, self.start, self.items, least)
        _ranking_checks.refuse_repeated(self.item, self.start, self.items)

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
        codes, raters = _ranking_checks.code_raters(rater, start.size - 1)
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
        return _arrays.position(name, self.items)

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
        return Comparisons(self.items, *neighbours(self.entries(), self.weight, self.num_items))

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
        return Comparisons(self.items, *every_pair(self.entries(), self.weight, self.num_items))

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
        wanted, position = _arrays.chosen(names, self.items)
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
        return self.select(_arrays.others(names, self.items))

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
