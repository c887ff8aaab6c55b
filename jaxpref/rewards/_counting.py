"""How many fragile quadruples a prompt holds, in n log n for n responses.

In a prompt's scores sorted upwards, each k leaves: a window of i', a first j, a first i. For each j
the number of i' below it and of i above it is a difference of positions, and their product, summed
over j, comes from running sums of positions and of their products.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from ._sorted import Sorted, at_distance

Places = Int64[np.ndarray, "..."]


class Bounds(NamedTuple):
    """What margins a quadruple must have: s_i - s_k, both ends of s_i' - s_k, s_j - s_k."""

    i: float
    prime_low: float
    prime_high: float
    j: float


class Windows(NamedTuple):
    """For each entry as k: i' in [prime, prime_end), j from `j` on, i from `i` on."""

    prime: Places
    prime_end: Places
    j: Places
    i: Places


def windows(found: Sorted, bounds: Bounds) -> Windows:
    """Return for each entry as k where i', j and i can stand."""
    return Windows(
        at_distance(found, bounds.prime_low),
        at_distance(found, bounds.prime_high, strict=True),
        at_distance(found, bounds.j),
        at_distance(found, bounds.i),
    )


def count_by_k(found: Sorted, where: Windows) -> Places:
    """Return the number of quadruples of each entry as k."""
    some = np.flatnonzero((where.prime < where.prime_end) & (where.i < found.last))
    counts = np.zeros(len(found.score), np.int64)
    if len(some):
        counts[some] = _sum_over_j(found, Windows(*(part[some] for part in where)), some)
    return counts


def _sum_over_j(found: Sorted, where: Windows, k: Places) -> Places:
    """Return the sum over j of (number of i' below j) times (number of i above j)."""
    sums = _RunningSums(found)
    first, last = found.first[k], found.last[k]
    size, a, b, e = last - first, where.prime - first, where.prime_end - first, where.i - first
    # From `begin` on some i' lies below j; from `all_primes` on every i' of the window does;
    # from `fewer` on responses above j, not the bound of i, limit i.
    begin = np.maximum(where.j, found.above[where.prime])
    all_primes = np.clip(found.above[where.prime_end - 1], begin, last)
    fewer = np.clip(found.below[np.maximum(where.i - 1, first)], begin, last)
    fewer = np.where(where.i == first, begin, fewer)
    begin = np.minimum(begin, last)
    total = np.zeros(len(k), np.int64)
    for low, high, growing in ((begin, all_primes, True), (all_primes, last, False)):
        turn = np.clip(fewer, low, high)
        for x, y, falling in ((low, turn, False), (turn, high, True)):
            total += sums.products(x, y, growing, falling, a, b, e, size)
    return total


class _RunningSums:
    """Sums over a range of j of positions within the prompt, and of their products.

    They may overflow 64 bits over many prompts; differences within one prompt do not.
    """

    def __init__(self, found: Sorted) -> None:
        below, above = found.below - found.first, found.above - found.first
        self._below, self._above = _cumulative(below), _cumulative(above)
        self._both = _cumulative(below * above)

    def products(
        self, x: Places, y: Places, growing: bool, falling: bool,
        a: Places, b: Places, e: Places, size: Places,
    ) -> Places:  # fmt: skip
        """Return the sum over j in [x, y) of the number of i' times the number of i.

        The number of i' is below(j) - a where `growing`, else b - a; that of i is size - above(j)
        where `falling`, else size - e.
        """
        number = y - x
        if not growing:
            i = (
                size * number - (self._above[y] - self._above[x])
                if falling
                else (size - e) * number
            )
            return (b - a) * i
        below = self._below[y] - self._below[x]
        if not falling:
            return (size - e) * (below - a * number)
        above, both = self._above[y] - self._above[x], self._both[y] - self._both[x]
        return size * below - both - a * (size * number - above)


def _cumulative(values: Places) -> Int64[np.ndarray, " ends"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
