"""One prediction's derivatives by every observed fraction, in a single solve: for large fits.

The work is shared by two threads where two cores are to be had: NumPy and SciPy let go of the
interpreter for as long as a pass over the pairs takes, and either half of a pass is the same sum
whichever thread forms it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float64, Int32, Int64

from ..fit.result import FitResult
from .terms import counts_of, slopes_at

_RELATIVE, _PATIENCE = 1e-11, 250
_CONTRAST, _PIECE = 1e6, 2**13
_WIDEST = 300.0
"""Nats between scores whose strengths can be multiplied without under- or overflow."""
_WORTH_SHARING = 2**16
"""Pairs from which a pass is shared: handing over takes as long as some thousands of pairs."""


class Responses(NamedTuple):
    """A fit's observed pairs, as the upper half of a sparse matrix in rows of item_a.

    Row i is ``starts[i]:starts[i + 1]``. How a pair responds to its fraction is n times
    `steepness`, which is None for the logistic link: 1 for every pair.
    """

    item_a: Int32[np.ndarray, " edges"]
    item_b: Int32[np.ndarray, " edges"]
    starts: Int64[np.ndarray, " rows"]
    weight: Float64[np.ndarray, " edges"]
    wins_a: Float64[np.ndarray, " edges"]
    wins_b: Float64[np.ndarray, " edges"]
    steepness: Float64[np.ndarray, " edges"] | None

    def respond(self, here: slice = slice(None)) -> Float64[np.ndarray, " edges"]:
        """Return the responses of some pairs: not kept, being quicker to add up than to fetch."""
        total = self.wins_a[here] + self.wins_b[here]
        return total if self.steepness is None else total * self.steepness[here]


class _Halves:
    """Runs the two halves of a piece of work, at the same time where there are two cores."""

    def __init__(self, pairs: int) -> None:
        shared = pairs >= _WORTH_SHARING and _cores() > 1
        self._pool = ThreadPoolExecutor(1) if shared else None

    def __enter__(self) -> _Halves:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, one: Callable[[], Any], other: Callable[[], Any]) -> tuple[Any, Any]:
        """Return what two functions return."""
        if self._pool is None:
            return one(), other()
        later = self._pool.submit(one)
        found = other()
        return later.result(), found

    def over(self, starts: np.ndarray, work: Callable[[int, int], None]) -> None:
        """Call `work` with ranges of rows that hold some thousands of pairs each."""
        cuts = np.searchsorted(starts, np.arange(0, starts[-1], _PIECE))
        cuts = np.unique(np.append(cuts, len(starts) - 1)).tolist()
        ranges = list(zip(cuts[:-1], cuts[1:], strict=True))

        def all_of(part: list[tuple[int, int]]) -> None:
            for first, last in part:
                work(first, last)

        middle = len(ranges) // 2
        self.run(lambda: all_of(ranges[:middle]), lambda: all_of(ranges[middle:]))


def _cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def responses(fit: FitResult, halves: _Halves | None = None) -> Responses:
    """Return curvature and response to its fraction of each observed pair."""
    pairs = fit.pairs
    rows = np.arange(fit.num_items + 1, dtype=pairs.item_a.dtype)  # another would be converted to
    starts, weight = np.searchsorted(pairs.item_a, rows), np.empty(len(pairs.item_a))
    ends = pairs.item_a, pairs.item_b
    found = Responses(*ends, starts, weight, pairs.wins_a, pairs.wins_b, None)
    if fit.link.name == "logistic" and np.ptp(fit.scores) < _WIDEST:
        with _Halves(len(weight)) if halves is None else nullcontext(halves) as both:
            _fill_logistic(fit, found, both)
        return found
    counts = counts_of(fit)
    margin = fit.scores[counts.item_a] - fit.scores[counts.item_b]
    slopes = slopes_at(fit.link, margin)
    weight[:] = counts.wins_a * slopes.bend_a + counts.wins_b * slopes.bend_b
    # d/df of n (f psi_a + (1 - f) psi_b); psi_a - psi_b is 1 for the logistic link
    return found._replace(steepness=slopes.win_a - slopes.win_b)


def _fill_logistic(fit: FitResult, edges: Responses, halves: _Halves) -> None:
    """Fill in n p q = n e_a e_b / (e_a + e_b)^2: no exponential a pair."""
    strength, starts = np.exp(fit.scores), edges.starts

    def work(first: int, last: int) -> None:
        here = slice(starts[first], starts[last])
        mine = np.repeat(strength[first:last], np.diff(starts[first : last + 1]))
        other = strength.take(edges.item_b[here])
        both = mine + other
        mine *= other
        both *= both
        mine /= both
        np.multiply(mine, edges.respond(here), out=edges.weight[here])

    halves.over(starts, work)


def _drops(
    edges: Responses, potential: Float64[np.ndarray, " items"], halves: _Halves
) -> Float64[np.ndarray, " edges"]:
    """Return the difference of potentials across each observed pair, times its response."""
    found, starts = np.empty_like(edges.weight), edges.starts

    def work(first: int, last: int) -> None:
        here = slice(starts[first], starts[last])
        drop = np.repeat(potential[first:last], np.diff(starts[first : last + 1]))
        drop -= potential.take(edges.item_b[here])
        np.multiply(drop, edges.respond(here), out=found[here])

    halves.over(starts, work)
    return found


def one_response(
    fit: FitResult, first: int, second: int, *, scale: float = 1.0
) -> Float64[np.ndarray, " edges"] | None:
    """Return scale d(s_first - s_second)/df of every observed pair, None where the solve is slow.

    One system (L + ridge) x = e_first - e_second by conjugate gradients, scaled by the diagonal;
    some ten products on well connected graphs, each of a millisecond or two for a million pairs.
    The system is kept as long as the fit is, 8 bytes a pair, for the next prediction of it.
    """
    with _Halves(len(fit.pairs.item_a)) as halves:
        system = _SYSTEMS.get(fit)
        if system is None:
            system = _SYSTEMS[fit] = _Laplacian(responses(fit, halves), fit.ridge, halves)
        potential = system.potential(first, second, halves) if system.even else None
        return None if potential is None else _drops(system.edges, scale * potential, halves)


class _Laplacian:
    """L + ridge, to be multiplied and solved with. The pairs are sorted, so nothing has to be.

    `even` is whether conductances are of similar size: the drop along an edge that conducts a
    million times better than others would be lost in its potentials.
    """

    def __init__(self, edges: Responses, ridge: float, halves: _Halves) -> None:
        from scipy.sparse import csr_array

        size = len(edges.starts) - 1
        rows = edges.starts.astype(np.int32)
        self._upper: Any = csr_array((edges.weight, edges.item_b, rows), (size, size))
        self._lower, self.edges = self._upper.T, edges
        upper, lower = halves.run(self._row_sums, lambda: self._lower @ np.ones(size))
        self._diagonal: np.ndarray = upper + lower + ridge
        least, most = halves.run(edges.weight.min, edges.weight.max)
        self.even = bool(least * _CONTRAST > most)

    def _row_sums(self) -> np.ndarray:
        starts = self.edges.starts
        sums, rows = np.zeros(len(starts) - 1), np.flatnonzero(np.diff(starts))
        sums[rows] = np.add.reduceat(self.edges.weight, starts[rows])
        return sums

    def _products(self, vector: np.ndarray, halves: _Halves) -> tuple[np.ndarray, np.ndarray]:
        return halves.run(lambda: self._upper @ vector, lambda: self._lower @ vector)

    def product(
        self, vector: Float64[np.ndarray, " items"], halves: _Halves
    ) -> Float64[np.ndarray, " items"]:
        """Return (L + ridge) times a vector."""
        upper, lower = self._products(vector, halves)
        result = self._diagonal * vector
        result -= upper
        result -= lower
        return result

    def at_two(
        self, vector: Float64[np.ndarray, " items"], *items: int
    ) -> Float64[np.ndarray, " items"]:
        """Return (L + ridge) times a vector that is zero but at the items: their rows alone."""
        edges, result = self.edges, self._diagonal * vector
        for item in items:
            later = slice(edges.starts[item], edges.starts[item + 1])
            earlier = np.flatnonzero(edges.item_b[: edges.starts[item]] == item)
            result[edges.item_b[later]] -= edges.weight[later] * vector[item]
            result[edges.item_a[earlier]] -= edges.weight[earlier] * vector[item]
        return result

    def potential(
        self, first: int, second: int, halves: _Halves
    ) -> Float64[np.ndarray, " items"] | None:
        """Return the potentials that a unit of current from one item to another makes."""
        inverse = 1 / self._diagonal
        residual = np.zeros(len(inverse))
        residual[[first, second]] = 1.0, -1.0
        solution, scaled = np.zeros(len(inverse)), residual * inverse
        direction, weight = scaled, float(residual @ scaled)
        goal, image = _RELATIVE**2 * weight, self.at_two(direction, first, second)
        for _ in range(_PATIENCE):
            bend = float(direction @ image)
            if not bend > 0:
                return None
            solution += weight / bend * direction
            residual -= weight / bend * image
            scaled = inverse * residual
            before, weight = weight, float(residual @ scaled)
            if weight <= goal:
                return solution
            direction = scaled + (weight / before) * direction
            image = self.product(direction, halves)
        return None


_SYSTEMS: WeakKeyDictionary[FitResult, _Laplacian] = WeakKeyDictionary()
