"""Where the counts of a large problem lie in memory, and the two sums each layout can form.

With strengths e_i = exp(s_i), the expected wins of item i are e_i sum_j n_ij / (e_i + e_j): one
division a pair and no exponential. Three layouts:

* :class:`Square`, a symmetric matrix, for few items;
* :class:`Triangle`, the upper half of an (items, items) matrix, where many of the pairs were
  compared: sums run along rows and columns;
* :class:`Segments`, the sorted list of pairs, cut so that a piece stays in the processor's cache:
  sums over the first item run along segments, those over the second through ``bincount``.

Padded neighbour lists, which hold each pair twice, take half the time for a product (1.6 ns an
entry against 6 ns a pair, in NumPy as in compiled JAX), but sorting them costs as much as thirty
products, twice what a fit needs. So this is NumPy, and compiles nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

_PIECE = 2**16
_SINGLE = 400_000
"""A product with so many entries of a matrix at most is done by one thread, in OpenBLAS and MKL."""
_DENSE_SHARE = 0.3
_DENSE_LIMIT = 3000
_SQUARE_LIMIT = 160


class Expected(NamedTuple):
    """Expected wins of every item, and the diagonal of the information, sum_j n_ij p_ij p_ji."""

    wins: Float64[np.ndarray, " items"]
    diagonal: Float64[np.ndarray, " items"]


def _expected(
    strength: Float64[np.ndarray, " items"],
    shares: Float64[np.ndarray, " items"],
    squares: Float64[np.ndarray, " items"],
) -> Expected:
    """Return what is made of sum_j n_ij / (e_i + e_j) and sum_j n_ij / (e_i + e_j)^2."""
    wins = strength * shares
    return Expected(wins, wins - strength * strength * squares)


class Square:
    """Counts as a symmetric matrix: for few items, where a call costs more than its arithmetic."""

    def __init__(
        self,
        item_a: np.ndarray,
        item_b: np.ndarray,
        total: Float64[np.ndarray, " pairs"],
        num_items: int,
    ) -> None:
        self._keys = item_a * np.int64(num_items) + item_b
        counts = np.zeros((num_items, num_items))
        counts.ravel()[self._keys] = total
        self._counts = counts + counts.T
        self._links = self._counts
        self._strength = self._ones = np.ones(num_items)

    def totals(self) -> Float64[np.ndarray, " items"]:
        """Return the comparisons of every item."""
        return self._counts @ self._ones

    def wins(
        self, wins_a: Float64[np.ndarray, " pairs"], wins_b: Float64[np.ndarray, " pairs"]
    ) -> Float64[np.ndarray, " items"]:
        """Return the wins of every item."""
        won, lost = np.zeros((2, *self._counts.shape))
        won.ravel()[self._keys], lost.ravel()[self._keys] = wins_a, wins_b
        return won @ self._ones + self._ones @ lost

    def expect(self, strength: Float64[np.ndarray, " items"]) -> Expected:
        """Return expected wins at the strengths, and keep the information there."""
        self._strength = strength
        either = np.add(strength[:, None], strength)
        share = np.divide(self._counts, either)
        self._links = np.divide(share, either, out=either)
        return Expected(strength * (share @ self._ones), self.product(self._ones))

    def expect_wins(self, strength: Float64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
        """Return expected wins alone; the information stays as it was."""
        either = np.add(strength[:, None], strength)
        return strength * (np.divide(self._counts, either, out=either) @ self._ones)

    def product(self, vector: Float64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
        """Return sum_j n_ij p_ij p_ji vector_j for every i."""
        return self._strength * (self._links @ (self._strength * vector))


class _Strip(NamedTuple):
    """Some rows of a matrix, from the diagonal on, and what stands there."""

    rows: slice
    later: slice
    either: Float64[np.ndarray, "rows later"]
    share: Float64[np.ndarray, "rows later"]


class Triangle:
    """Counts above the diagonal of a matrix, item_a < item_b, sorted by item_a.

    Sums over a few rows at a time stay in the processor's cache, and too small for BLAS to think
    of threads, which cost more than they save here, and a hundred times more where other work
    shares the processor.
    """

    def __init__(
        self,
        item_a: np.ndarray,
        item_b: np.ndarray,
        total: Float64[np.ndarray, " pairs"],
        num_items: int,
    ) -> None:
        self._item_b = item_b
        self._firsts, self._starts = _segments(item_a, num_items)
        self._counts = np.zeros((num_items, num_items))
        self._counts.ravel()[item_a * np.int64(num_items) + item_b] = total
        self._links = self._counts
        self._rows = max(8, min(_PIECE // (2 * num_items), -(-num_items // 3)))
        self._scratch = np.empty((2, self._rows * num_items))
        self._strength = self._ones = np.ones(num_items)

    def totals(self) -> Float64[np.ndarray, " items"]:
        """Return the comparisons of every item."""
        return _symmetric_product(self._counts, self._ones)

    def wins(
        self, wins_a: Float64[np.ndarray, " pairs"], wins_b: Float64[np.ndarray, " pairs"]
    ) -> Float64[np.ndarray, " items"]:
        """Return the wins of every item."""
        sums = np.bincount(self._item_b, wins_b, len(self._ones))
        sums[self._firsts] += np.add.reduceat(wins_a, self._starts)
        return sums

    def expect(self, strength: Float64[np.ndarray, " items"]) -> Expected:
        """Return expected wins at the strengths, and keep the information there."""
        size = len(strength)
        self._strength = strength
        if self._links is self._counts:
            self._links = np.zeros((size, size))
        shares, squares = np.zeros(size), np.zeros(size)
        for rows, later, either, share in self._strips(strength):
            _add_both(shares, share, self._ones, rows, later)
            links = np.divide(share, either, out=self._links[rows, later])
            _add_both(squares, links, strength, rows, later)
        return Expected(strength * shares, strength * squares)

    def expect_wins(self, strength: Float64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
        """Return expected wins alone; the information stays as it was."""
        shares = np.zeros(len(strength))
        for rows, later, _, share in self._strips(strength):
            _add_both(shares, share, self._ones, rows, later)
        return strength * shares

    def _strips(self, strength: Float64[np.ndarray, " items"]) -> Iterator[_Strip]:
        """Yield e_i + e_j and n_ij / (e_i + e_j) for a few rows at a time."""
        size = len(strength)
        for start in range(0, size, self._rows):
            rows, later = slice(start, start + self._rows), slice(start, None)
            shape = min(self._rows, size - start), size - start
            either, share = (room[: shape[0] * shape[1]].reshape(shape) for room in self._scratch)
            np.add(strength[rows, None], strength[later], out=either)
            np.divide(self._counts[rows, later], either, out=share)
            yield _Strip(rows, later, either, share)

    def product(self, vector: Float64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
        """Return sum_j n_ij p_ij p_ji vector_j for every i."""
        return self._strength * _symmetric_product(self._links, self._strength * vector)


def _symmetric_product(
    upper: Float64[np.ndarray, "items items"], vector: Float64[np.ndarray, " items"]
) -> Float64[np.ndarray, " items"]:
    """Return the product with a symmetric matrix of which the half above the diagonal is given.

    A few rows at a time, from the cache the second time; BLAS's own ``symv`` starts threads.
    """
    size = len(vector)
    height, product = max(_SINGLE // (3 * size), 1), np.zeros(size)
    for start in range(0, size, height):
        rows, later = slice(start, start + height), slice(start, None)
        _add_both(product, upper[rows, later], vector, rows, later)
    return product


def _add_both(
    sums: Float64[np.ndarray, " items"],
    strip: Float64[np.ndarray, "rows later"],
    vector: Float64[np.ndarray, " items"],
    rows: slice,
    later: slice,
) -> None:
    """Add a strip's products with a vector to the sums of its rows, and to those of its columns."""
    sums[rows] += strip @ vector[later]
    sums[later] += vector[rows] @ strip


class _Piece(NamedTuple):
    item_a: Int64[np.ndarray, " pairs"]
    item_b: Int64[np.ndarray, " pairs"]
    counts: Float64[np.ndarray, " pairs"]
    links: Float64[np.ndarray, " pairs"]
    firsts: Int64[np.ndarray, " segments"]
    starts: Int64[np.ndarray, " segments"]


class Segments:
    """Counts of the pairs that were compared, sorted by item_a."""

    def __init__(
        self,
        item_a: np.ndarray,
        item_b: np.ndarray,
        total: Float64[np.ndarray, " pairs"],
        num_items: int,
    ) -> None:
        a, b = item_a.astype(np.int64), item_b.astype(np.int64)
        self._pieces = [_piece(a, b, total, k) for k in range(0, len(a), _PIECE)]
        self._strength = np.ones(num_items)

    def totals(self) -> Float64[np.ndarray, " items"]:
        """Return the comparisons of every item."""
        sums = np.zeros(len(self._strength))
        for piece in self._pieces:
            _add(sums, piece, piece.counts, piece.counts)
        return sums

    def wins(
        self, wins_a: Float64[np.ndarray, " pairs"], wins_b: Float64[np.ndarray, " pairs"]
    ) -> Float64[np.ndarray, " items"]:
        """Return the wins of every item."""
        sums, begin = np.zeros(len(self._strength)), 0
        for piece in self._pieces:
            here = slice(begin, begin + len(piece.counts))
            _add(sums, piece, wins_a[here], wins_b[here])
            begin = here.stop
        return sums

    def expect(self, strength: Float64[np.ndarray, " items"]) -> Expected:
        """Return expected wins at the strengths, and keep the information there."""
        self._strength = strength
        shares, squares = np.zeros(len(strength)), np.zeros(len(strength))
        for piece in self._pieces:
            either = strength.take(piece.item_a)
            either += strength.take(piece.item_b)
            share = piece.counts / either
            _add(shares, piece, share, share)
            np.divide(share, either, out=piece.links)
            _add(squares, piece, piece.links, piece.links)
        return _expected(strength, shares, squares)

    def expect_wins(self, strength: Float64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
        """Return expected wins alone; the information stays as it was."""
        shares = np.zeros(len(strength))
        for piece in self._pieces:
            share = strength.take(piece.item_a)
            share += strength.take(piece.item_b)
            np.divide(piece.counts, share, out=share)
            _add(shares, piece, share, share)
        return strength * shares

    def product(self, vector: Float64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
        """Return sum_j n_ij p_ij p_ji vector_j for every i."""
        weighted = self._strength * vector
        result = np.zeros(len(vector))
        for piece in self._pieces:
            to_a, to_b = weighted.take(piece.item_b), weighted.take(piece.item_a)
            to_a *= piece.links
            to_b *= piece.links
            _add(result, piece, to_a, to_b)
        return self._strength * result


def _piece(
    item_a: Int64[np.ndarray, " pairs"],
    item_b: Int64[np.ndarray, " pairs"],
    total: Float64[np.ndarray, " pairs"],
    start: int,
) -> _Piece:
    here = slice(start, start + _PIECE)
    a, counts = item_a[here], total[here]
    firsts, starts = _segments(a, int(a[-1]) + 1)
    return _Piece(a, item_b[here], counts, np.empty_like(counts), firsts, starts)


def _segments(
    item_a: Int64[np.ndarray, " pairs"], num_items: int
) -> tuple[Int64[np.ndarray, " segments"], Int64[np.ndarray, " segments"]]:
    """Return which items are first in some pair, and where their pairs start, sorted."""
    starts = np.searchsorted(item_a, np.arange(num_items + 1))
    firsts = np.flatnonzero(starts[1:] > starts[:-1])
    return firsts, starts[firsts]


def _add(
    sums: Float64[np.ndarray, " items"],
    piece: _Piece,
    to_a: Float64[np.ndarray, " pairs"],
    to_b: Float64[np.ndarray, " pairs"],
) -> None:
    """Add one number a pair to its first item, and one to its second."""
    sums[piece.firsts] += np.add.reduceat(to_a, piece.starts)
    sums += np.bincount(piece.item_b, to_b, len(sums))


Layout = Square | Triangle | Segments


def choose_layout(
    item_a: np.ndarray,
    item_b: np.ndarray,
    total: Float64[np.ndarray, " pairs"],
    num_items: int,
) -> Layout:
    """Return the layout that is faster to sum over: a matrix where a third of it is in use.

    >>> import numpy as np
    >>> layout = choose_layout(np.array([0]), np.array([1]), np.array([4.0]), 2)
    >>> layout.expect(np.array([3.0, 1.0])).wins
    array([3., 1.])
    """
    share = 2 * len(item_a) / num_items**2
    if num_items > _DENSE_LIMIT or (share < _DENSE_SHARE and num_items > 64):
        return Segments(item_a, item_b, total, num_items)
    dense = Square if num_items <= _SQUARE_LIMIT else Triangle
    return dense(item_a, item_b, total, num_items)
