"""The first fragile quadruples in an order, without looking at all of them.

Fixed i (or i'), the others form a lattice: each step of j away from i, of k upwards, of i' away
from j leaves the order or makes it worse, and a step out of what is allowed never leads back. So
the best of each lattice is its corner, found for all at once, and the rest comes from a heap.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..links import Link
from ._counting import Bounds, Windows
from ._sorted import Sorted, first_true, log_densities

Key = tuple[float, float]


class Place(NamedTuple):
    """A quadruple by positions in the sorted scores."""

    i: int
    prime: int
    k: int
    j: int


class Lattice:
    """What both orders share: the scores, the windows, and the log-sensitivity."""

    def __init__(self, found: Sorted, where: Windows, link: Link) -> None:
        self.found, self.where, self.link = found, where, link
        self.usable = where.prime < where.prime_end

    def log_sensitivity(self, i: np.ndarray, k: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return log dp_ij/dp_ik at positions."""
        s = self.found.score
        return log_densities(self.link, s[i] - s[j]) - log_densities(self.link, s[i] - s[k])

    def key(self, place: Place) -> Key:
        """Return minus the log-sensitivity, and the gap between i and i'."""
        s = self.found.score
        i, k, j = (np.array([n]) for n in (place.i, place.k, place.j))
        return -float(self.log_sensitivity(i, k, j)[0]), float(s[place.i] - s[place.prime])

    def allows(self, i: int, k: int, j: int) -> bool:
        """Tell whether k goes with i and j, some i' lying below j."""
        where, found = self.where, self.found
        return bool(
            where.i[k] <= i < found.last[k]
            and where.j[k] <= j
            and found.above[where.prime[k]] <= j < found.below[i]
        )


def best_first(
    heads: list[tuple[Key, Place, tuple[int, ...]]],
    steps: Callable[[Place, tuple[int, ...]], Iterator[tuple[Key, Place, tuple[int, ...]]]],
    top: int,
) -> list[Place]:
    """Return the first places in the order of their keys, from the corners of the lattices."""
    heap = list(heads)
    heapq.heapify(heap)
    chosen: list[Place] = []
    while heap and len(chosen) < top:
        _, place, taken = heapq.heappop(heap)
        chosen.append(place)
        for entry in steps(place, taken):
            heapq.heappush(heap, entry)
    return chosen


# The most sensitive first ---------------------------------------------------------------------


def by_sensitivity(lattice: Lattice, top: int) -> list[Place]:
    """Return the quadruples of largest log dp_ij/dp_ik; the closer i and i' first of equals."""
    found, where = lattice.found, lattice.where
    after = _next_usable(lattice)
    i = np.arange(len(found.score))
    j, k = found.below - 1, after[found.first]
    known = (j >= found.first) & (k < found.last)
    i, j, k = i[known], j[known], k[known]
    reach = (where.i[k] <= i) & (where.j[k] <= j) & (found.above[where.prime[k]] <= j)
    i, j, k = i[reach], j[reach], k[reach]
    prime = np.minimum(where.prime_end[k], found.below[j]) - 1
    worth, gap = -lattice.log_sensitivity(i, k, j), found.score[i] - found.score[prime]
    first = np.lexsort((gap, worth))[:top]
    heads = [
        ((float(worth[n]), float(gap[n])), Place(*(int(x[n]) for x in (i, prime, k, j))), (0, 0))
        for n in first
    ]

    def steps(place: Place, taken: tuple[int, ...]) -> Iterator[tuple[Key, Place, tuple[int, ...]]]:
        up, down = taken
        if place.prime > where.prime[place.k]:
            further = place._replace(prime=place.prime - 1)
            yield lattice.key(further), further, (up, down + 1)
        if down == 0:
            yield from corner(place.i, int(after[place.k + 1]), place.j, up + 1)
            if up == 0:
                yield from corner(place.i, place.k, place.j - 1, 0)

    def corner(i: int, k: int, j: int, up: int) -> Iterator[tuple[Key, Place, tuple[int, ...]]]:
        if k < found.last[i] and j >= found.first[i] and lattice.allows(i, k, j):
            prime = int(min(where.prime_end[k], found.below[j])) - 1
            place = Place(i, prime, k, j)
            yield lattice.key(place), place, (up, 0)

    return best_first(heads, steps, top)


def _next_usable(lattice: Lattice) -> np.ndarray:
    """Return for each position, and one past the end, the first usable k from there on."""
    size = len(lattice.usable)
    own = np.where(lattice.usable, np.arange(size), size)
    return np.append(np.minimum.accumulate(own[::-1])[::-1], [size, size])


# The closest first ----------------------------------------------------------------------------


def by_closeness(lattice: Lattice, bounds: Bounds, top: int) -> list[Place]:
    """Return the quadruples of smallest s_i - s_i'; the more sensitive first of equals."""
    found, where = lattice.found, lattice.where
    s, size = found.score, len(found.score)
    low = first_true(found.first, found.last, lambda at: s - s[at] <= bounds.prime_high)
    high = first_true(found.first, found.last, lambda at: s - s[at] < bounds.prime_low)
    prime = np.flatnonzero(low < high)
    k = low[prime]
    j = np.maximum(where.j[k], found.above[prime])
    inside = j < found.last[prime]
    prime, k, j = prime[inside], k[inside], j[inside]
    i = np.maximum(where.i[k], found.above[j])
    inside = i < found.last[prime]
    prime, k, i = prime[inside], k[inside], i[inside]
    j = found.below[i] - 1
    gap, worth = s[i] - s[prime], -lattice.log_sensitivity(i, k, j)
    first = np.lexsort((worth, gap))[:top]
    heads = [
        ((float(gap[n]), float(worth[n])), Place(*(int(x[n]) for x in (i, prime, k, j))), (0, 0))
        for n in first
    ]

    def node(place: Place, taken: tuple[int, ...]) -> Iterator[
        tuple[Key, Place, tuple[int, ...]]
    ]:  # fmt: skip
        i, prime, k, j = place
        fits = i < found.last[prime] and k < high[prime]
        if fits and where.i[k] <= i and max(where.j[k], found.above[prime]) <= j:
            worth, gap = lattice.key(place)
            yield (gap, worth), place, taken

    def steps(place: Place, taken: tuple[int, ...]) -> Iterator[tuple[Key, Place, tuple[int, ...]]]:
        down, up = taken
        yield from node(place._replace(k=place.k + 1), (down, up + 1))
        if up == 0:
            yield from node(place._replace(j=place.j - 1), (down + 1, 0))
            if down == 0 and place.i + 1 < size:
                further = place.i + 1
                yield from node(place._replace(i=further, j=int(found.below[further]) - 1), (0, 0))

    return best_first(heads, steps, top)
