"""Comparisons: who was preferred to whom, how often, reduced to cells.

A *cell* holds every comparison between the same two items, presented in the same order (and judged
by the same rater, where raters are known). The cells are all that a pairwise model needs, and
their number follows the items compared, not the rows of the file they came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxpref.data import _arrays


class PairCounts(NamedTuple):
    """Counts per unordered pair of items, one row each, sorted by ``(item_a, item_b)``.

    Parameters
    ----------
    item_a, item_b : ndarray of int32, shape (P,)
        Indices of the two items, ``item_a < item_b``.
    wins_a, wins_b, ties : ndarray of float64, shape (P,)
        Weight of the comparisons that `item_a` won, that `item_b` won, and that neither did. Their
        sum is above 0.
    """

    item_a: np.ndarray
    item_b: np.ndarray
    wins_a: np.ndarray
    wins_b: np.ndarray
    ties: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Comparisons:
    """Pairwise comparisons among named items, one row per cell.

    Parameters
    ----------
    items : tuple of str, length N
        The items' names, each once.
    item_a, item_b : ndarray of int32, shape (C,)
        Indices into `items`: the item shown first (home, left) and the one shown second. The order
        of presentation is kept, so ``(a, b)`` and ``(b, a)`` are different cells. Rows that name
        the same cell add up.
    wins_a, wins_b, ties : ndarray of float64, shape (C,)
        Weight of the comparisons won by `item_a`, won by `item_b`, and tied: finite, at least 0.
    rater : ndarray of int32, shape (C,), or None
        Indices into `raters`, or None where raters are not known.
    raters : tuple of str
        The raters' names, empty where they are not known.
    covariates : mapping of str to ndarray of float64, shape (C,)
        Numbers that go with each cell, such as a difference in length of the two answers; a cell
        holds comparisons with the same ones. :func:`jaxpref.fit.fit_pairwise` uses those it is
        told to.

    Raises
    ------
    InputError
        If lengths differ, an index is out of range, an item is compared with itself, a weight is
        negative or not finite, or a name is repeated or empty.

    Notes
    -----
    Arrays are copied and made read-only. Usually built by :func:`jaxpref.data.read_comparisons`,
    :meth:`from_frame`, :meth:`from_counts` or :meth:`from_arrays`.

    Examples
    --------
    >>> from jaxpref.data import Comparisons
    >>> votes = Comparisons.from_arrays(["tea", "tea", "milk"], ["milk", "water", "tea"])
    >>> votes
    Comparisons(3 items, 3 comparisons in 2 pairs)
    >>> votes.items
    ('milk', 'tea', 'water')
    >>> votes.counts_matrix()
    array([[0., 1., 0.],
           [1., 0., 1.],
           [0., 0., 0.]])
    """

    items: tuple[str, ...]
    item_a: np.ndarray
    item_b: np.ndarray
    wins_a: np.ndarray
    wins_b: np.ndarray
    ties: np.ndarray
    rater: np.ndarray | None = None
    raters: tuple[str, ...] = field(default=())
    covariates: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "items", _arrays.check_names("items", self.items))
        put(self, "raters", _arrays.check_names("raters", self.raters))
        length = np.size(self.item_a)
        for name in ("item_a", "item_b"):
            put(self, name, _arrays.index(name, getattr(self, name), len(self.items), length))
        for name in ("wins_a", "wins_b", "ties"):
            put(self, name, _arrays.weights(name, getattr(self, name), length))
        put(self, "rater", _arrays.raters(self.rater, self.raters, length))
        put(self, "covariates", _arrays.covariates(self.covariates, length))
        _arrays.refuse_self_comparison(self.item_a, self.item_b, self.items)

    @classmethod
    def from_counts(cls, matrix: Any, items: Iterable[str] | None = None) -> Comparisons:
        """Build comparisons from a square matrix of wins.

        Parameters
        ----------
        matrix : array_like of float, shape (N, N)
            Entry ``[i, j]`` is the weight of the comparisons that item i won over item j: finite,
            at least 0. The diagonal must be 0 or NaN.
        items : iterable of str, length N, optional
            Names, in the order of the rows; ``"0", "1", ...`` when left out.

        Returns
        -------
        Comparisons
            One cell for each pair ``i < j`` with a comparison: a matrix does not tell who was
            shown first.

        Raises
        ------
        InputError
            If the matrix is not square, the diagonal is not empty or an entry is not a weight.

        Examples
        --------
        >>> Comparisons.from_counts([[0, 99], [1, 0]], items=["i", "k"])
        Comparisons(2 items, 100 comparisons in 1 pair)
        """
        wins, names = _arrays.square_counts(matrix, items)
        a, b, wins_a, wins_b = _arrays.pairs_of_matrix(wins, wins)
        return cls(names, a, b, wins_a, wins_b, np.zeros(a.size))

    @classmethod
    def from_arrays(
        cls,
        winner: Any,
        loser: Any,
        *,
        items: Iterable[str] | None = None,
        weight: Any = None,
    ) -> Comparisons:
        """Build comparisons from two columns, winner first.

        Parameters
        ----------
        winner, loser : array_like of int or str, shape (R,)
            One comparison a row: indices from 0, or names.
        items : iterable of str, length N, optional
            All the names. When left out, indices stand for items ``"0"`` to ``str(largest)``, and
            names are sorted.
        weight : array_like of float, shape (R,), optional
            Weight of each comparison, finite and at least 0; 1 when left out.

        Returns
        -------
        Comparisons
            One cell for each pair ``i < j``: the two columns do not tell who was shown first.

        Raises
        ------
        DataError
            If a row holds a negative or unknown index, a missing or unknown name, an item against
            itself or a bad weight; the message names the row, counted from 1.

        Examples
        --------
        >>> Comparisons.from_arrays([0, 0, 2], [1, 2, 1], weight=[1, 2, 0.5]).pairs().wins_a
        array([1., 2., 0.])
        """
        names = None if items is None else _arrays.check_names("items", items)
        if _arrays.holds_integers(winner, loser):
            names, a, b, wins_a, wins_b = _arrays.count_indices(winner, loser, names, weight)
            return cls(names, a, b, wins_a, wins_b, np.zeros(a.size))
        from jaxpref.data._rows import reduce_names

        return reduce_names(winner, loser, names, weight)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        item_a: str | None = None,
        item_b: str | None = None,
        winner: str | None = None,
        score_a: str | None = None,
        score_b: str | None = None,
        weight: str | Literal[False] | None = None,
        rater: str | Literal[False] | None = None,
        labels_a: Any = None,
        labels_b: Any = None,
        labels_tie: Any = None,
        covariates: Sequence[str | tuple[str, str]] = (),
    ) -> Comparisons:
        """Build comparisons from a pandas, polars or pyarrow table, one comparison a row.

        Parameters
        ----------
        frame : DataFrame, LazyFrame or Table
            Anything that narwhals reads.
        item_a, item_b, winner, score_a, score_b, weight, rater : str, optional
            Columns, as in :func:`jaxpref.data.read_comparisons`.
        labels_a, labels_b, labels_tie : label or sequence of labels, optional
            What the winner column says, as in :func:`jaxpref.data.read_comparisons`.
        covariates : sequence of str or (str, str), optional
            Columns of numbers to keep, as in :func:`jaxpref.data.read_comparisons`.

        Returns
        -------
        Comparisons
            Items sorted by name.

        Raises
        ------
        InputError
            If `frame` is not a table or its columns cannot be told apart.
        DataError
            If a row cannot be used; the message names the first one, counted from 1.

        Examples
        --------
        >>> import polars as pl
        >>> frame = pl.DataFrame({"left": ["x"], "right": ["y"], "winner": ["tie"]})
        >>> Comparisons.from_frame(frame)
        Comparisons(2 items, 1 comparison (1 tie) in 1 pair)
        """
        from jaxpref.data._columns import ColumnOptions
        from jaxpref.data._frames import read_frame

        options = ColumnOptions(
            item_a, item_b, winner, score_a, score_b, weight, rater, labels_a, labels_b, labels_tie,
            covariates,
        )  # fmt: skip
        return read_frame(frame, options)

    @property
    def num_items(self) -> int:
        """Number of items, N."""
        return len(self.items)

    @property
    def num_comparisons(self) -> float:
        """Total weight of the comparisons: their number, where every weight is 1."""
        return float(self.wins_a.sum() + self.wins_b.sum() + self.ties.sum())

    @property
    def num_ties(self) -> float:
        """Total weight of the ties."""
        return float(self.ties.sum())

    def index(self, name: str) -> int:
        """Return the position of an item, or raise InputError with the closest names."""
        return _arrays.position(name, self.items)

    def pairs(self) -> PairCounts:
        """Sum the cells over order of presentation and rater.

        Returns
        -------
        PairCounts
            One row per unordered pair with any weight, sorted.

        Examples
        --------
        >>> first, second = np.array([0, 1]), np.array([1, 0])
        >>> wins_first, wins_second, ties = np.array([[3, 1], [0, 5], [2, 0]])
        >>> pairs = Comparisons(("x", "y"), first, second, wins_first, wins_second, ties).pairs()
        >>> pairs.wins_a, pairs.wins_b, pairs.ties
        (array([8.]), array([1.]), array([2.]))
        """
        swap = self.item_a > self.item_b
        low = np.where(swap, self.item_b, self.item_a)
        high = np.where(swap, self.item_a, self.item_b)
        wins_low = np.where(swap, self.wins_b, self.wins_a)
        wins_high = np.where(swap, self.wins_a, self.wins_b)
        keys, sums = _arrays.sum_by_key(
            low.astype(np.int64) * self.num_items + high,
            self.num_items**2,
            np.stack([wins_low, wins_high, self.ties]),
        )
        keep = sums.sum(axis=0) > 0
        a, b = np.divmod(keys[keep], max(self.num_items, 1))
        return PairCounts(a.astype(np.int32), b.astype(np.int32), *sums[:, keep])

    def counts_matrix(self) -> np.ndarray:
        """Return the wins as a dense matrix, row over column, ties left out; shape (N, N)."""
        wins = np.zeros((self.num_items, self.num_items))
        np.add.at(wins, (self.item_a, self.item_b), self.wins_a)
        np.add.at(wins, (self.item_b, self.item_a), self.wins_b)
        return wins

    def with_ties_as_half_wins(self) -> Comparisons:
        """Return the comparisons with each tie turned into half a win for either item.

        Examples
        --------
        >>> one, two = np.array([0]), np.array([1])
        >>> votes = Comparisons(("x", "y"), one, two, 3.0 * two, 0.0 * two, 1.0 * two)
        >>> votes.with_ties_as_half_wins().counts_matrix()
        array([[0. , 3.5],
               [0.5, 0. ]])
        """
        half = self.ties / 2
        return Comparisons(
            self.items,
            self.item_a,
            self.item_b,
            self.wins_a + half,
            self.wins_b + half,
            np.zeros_like(half),
            self.rater,
            self.raters,
            self.covariates,
        )

    def without_ties(self) -> Comparisons:
        """Return the comparisons that somebody won.

        Examples
        --------
        >>> one, two = np.array([0]), np.array([1])
        >>> votes = Comparisons(("x", "y"), one, two, 3.0 * two, 0.0 * two, 1.0 * two)
        >>> votes.without_ties().num_comparisons
        3.0
        """
        won = self.wins_a, self.wins_b, np.zeros_like(self.ties)
        columns = self.item_a, self.item_b, *won, self.rater, self.raters, self.covariates
        return Comparisons(self.items, *columns)

    def select(self, names: str | Iterable[str]) -> Comparisons:
        """Keep only the comparisons among some items.

        Parameters
        ----------
        names : str or iterable of str
            Items to keep; the result has them in this order.

        Returns
        -------
        Comparisons
            Raters without a comparison left are left out.

        Raises
        ------
        InputError
            If a name is unknown or given twice.

        Examples
        --------
        >>> Comparisons.from_arrays(["x", "y"], ["y", "z"]).select(["y", "x"]).items
        ('y', 'x')
        """
        wanted, position = _arrays.chosen(names, self.items)
        a, b = position[self.item_a], position[self.item_b]
        keep = (a >= 0) & (b >= 0)
        rater, raters = _arrays.used_raters(self.rater, self.raters, keep)
        return Comparisons(
            wanted,
            a[keep],
            b[keep],
            self.wins_a[keep],
            self.wins_b[keep],
            self.ties[keep],
            rater,
            raters,
            {name: column[keep] for name, column in self.covariates.items()},
        )

    def drop(self, names: str | Iterable[str]) -> Comparisons:
        """Leave out some items and every comparison that involves them.

        Parameters
        ----------
        names : str or iterable of str
            Items to leave out.

        Returns
        -------
        Comparisons
            The other items, in the same order.

        Raises
        ------
        InputError
            If a name is unknown or given twice.

        Examples
        --------
        >>> Comparisons.from_arrays(["x", "y"], ["y", "z"]).drop("z")
        Comparisons(2 items, 1 comparison in 1 pair)
        """
        return self.select(_arrays.others(names, self.items))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Comparisons):
            return NotImplemented
        if (self.items, self.raters) != (other.items, other.raters):
            return False
        if list(self.covariates) != list(other.covariates):
            return False
        return all(
            np.array_equal(mine, yours)
            for mine, yours in zip(self._columns(), other._columns(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def _columns(self) -> tuple[np.ndarray, ...]:
        """Return the arrays, one row per cell; no rater counts as an empty array."""
        rater = np.empty(0, np.int32) if self.rater is None else self.rater
        counts = self.item_a, self.item_b, self.wins_a, self.wins_b, self.ties
        return (*counts, rater, *self.covariates.values())

    def __repr__(self) -> str:
        ties = f" ({_arrays.amount(self.num_ties, 'tie')})" if self.num_ties else ""
        raters = f", {_arrays.amount(len(self.raters), 'rater')}" if self.raters else ""
        return (
            f"Comparisons({_arrays.amount(self.num_items, 'item')}, "
            f"{_arrays.amount(self.num_comparisons, 'comparison')}{ties} in "
            f"{_arrays.amount(self.pairs().item_a.size, 'pair')}{raters})"
        )
