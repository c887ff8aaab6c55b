"""Every pair that was never compared: its prediction, and what that prediction rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int32

from ..fit._host import item_bucket, pad, pair_bucket
from ..fit.likelihood import predict
from ..fit.result import FitResult
from .network import EdgeSystem, edge_rows, edge_system, largest_edges
from .triples import TripleCounts, log_densities, most_sensitive_triples

Progress = Callable[[int, int], None]

ROW_BUDGET = 2**24
"""Numbers held at once in each block of score derivatives: 128 MiB."""


class UnseenPairs(NamedTuple):
    """One entry for each pair never compared, sorted by (item_a, item_b), item_a < item_b.

    Attributes
    ----------
    item_a, item_b : (pairs,)
        Indices into the items of the fit.
    probability : (pairs,)
        Prediction that item_a beats item_b, in [0, 1].
    derivative : (pairs,)
        Derivative of the prediction by the observed win fraction it depends on most, with its
        sign; the sensitivity is its absolute value.
    edge : (pairs,)
        That observed pair, as an index into ``fit.pairs``; the first of equals.
    middle : (pairs,)
        Item of the most sensitive triple (compared with both), or -1 where there is none.
    num_triples : (pairs,)
        Number of items compared with both.
    """

    item_a: Int32[np.ndarray, " pairs"]
    item_b: Int32[np.ndarray, " pairs"]
    probability: Float64[np.ndarray, " pairs"]
    derivative: Float64[np.ndarray, " pairs"]
    edge: Int32[np.ndarray, " pairs"]
    middle: Int32[np.ndarray, " pairs"]
    num_triples: Int32[np.ndarray, " pairs"]

    @property
    def sensitivity(self) -> Float64[np.ndarray, " pairs"]:
        """Largest absolute derivative by one observed win fraction, >= 0."""
        return np.abs(self.derivative)


def adjacency(fit: FitResult) -> Bool[np.ndarray, "items items"]:
    """Return which items were compared with which."""
    matrix = np.zeros((fit.num_items, fit.num_items), bool)
    matrix[fit.pairs.item_a, fit.pairs.item_b] = True
    return matrix | matrix.T


def scan_unseen(
    fit: FitResult, thresholds: tuple[float, ...], chunk: int, progress: Progress | None
) -> tuple[UnseenPairs, TripleCounts]:
    """Return all unseen pairs with their triples, in blocks of `chunk` pairs. Needs 64 bits."""
    adjacent = adjacency(fit)
    item_a, item_b = (k.astype(np.int32) for k in np.nonzero(np.triu(~adjacent, 1)))
    total = len(item_a)
    derivative, edge = np.zeros(total), np.zeros(total, np.int32)
    middle, num_triples = np.full(total, -1, np.int32), np.zeros(total, np.int32)
    inside = np.zeros(len(thresholds), np.int64)
    triples = _TripleScan(fit, adjacent, thresholds)
    done = 0
    for where, rows in _blocks(fit, item_a, item_b, chunk):
        here = item_a[where], item_b[where]
        derivative[where], edge[where] = rows.largest(*here)
        middle[where], num_triples[where], added = triples.scan(*here)
        inside += added
        done += len(where)
        if progress is not None:
            progress(done, total)
    prediction = predict(fit.link, fit.scores[item_a] - fit.scores[item_b])
    derivative *= prediction.density
    pairs = UnseenPairs(
        item_a, item_b, prediction.probability, derivative, edge, middle, num_triples
    )
    counts = tuple(int(count) for count in inside)
    return pairs, TripleCounts(thresholds, counts, int(num_triples.sum(dtype=np.int64)))


class _Rows(NamedTuple):
    """Score derivatives by every edge, for the items of two blocks that start at given items."""

    rows_a: Float64[Array, "block edges"]
    rows_b: Float64[Array, "block edges"]
    start_a: int
    start_b: int
    chunk: int

    def largest(self, item_a: np.ndarray, item_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest difference of two rows and the edge where it is, pair by pair."""
        local_a = jnp.asarray(pad(item_a - np.int32(self.start_a), self.chunk))
        local_b = jnp.asarray(pad(item_b - np.int32(self.start_b), self.chunk))
        value, edge = largest_edges(self.rows_a, self.rows_b, local_a, local_b)
        return np.asarray(value)[: len(item_a)], np.asarray(edge)[: len(item_a)]


def _blocks(
    fit: FitResult, item_a: np.ndarray, item_b: np.ndarray, chunk: int
) -> Iterator[tuple[np.ndarray, _Rows]]:
    """Yield positions of at most `chunk` pairs with the rows of the items they are made of.

    Items go in blocks whose rows fit ROW_BUDGET, so memory is flat in the number of items, of
    edges and of pairs alike; where all rows fit, there is one block and each row is made once.
    """
    if not len(item_a):
        return
    system = edge_system(fit)
    block = int(np.clip(ROW_BUDGET // len(system.response), 1, item_bucket(fit.num_items)))
    length = min(chunk, pair_bucket(len(item_a)))
    block_a, block_b = item_a // block, item_b // block
    order = np.lexsort((block_b, block_a))
    keys = block_a[order] * np.int64(fit.num_items) + block_b[order]
    for group in np.split(order, np.flatnonzero(np.diff(keys)) + 1):
        start_a, start_b = int(block_a[group[0]]) * block, int(block_b[group[0]]) * block
        rows_a = _block_rows(system, start_a, block)
        rows_b = rows_a if start_a == start_b else _block_rows(system, start_b, block)
        rows = _Rows(rows_a, rows_b, start_a, start_b, length)
        for first in range(0, len(group), length):
            yield group[first : first + length], rows


def _block_rows(system: EdgeSystem, start: int, block: int) -> Float64[Array, "block edges"]:
    return edge_rows(system, jnp.asarray(np.arange(start, start + block, dtype=np.int32)))


class _TripleScan:
    """The triple view, with what all pairs share worked out once."""

    def __init__(
        self,
        fit: FitResult,
        adjacent: Bool[np.ndarray, "items items"],
        thresholds: tuple[float, ...],
    ) -> None:
        size = item_bucket(fit.num_items)
        spare = size - fit.num_items
        self._log_density = log_densities(fit.link, jnp.asarray(pad(fit.scores, size)))
        self._adjacent = jnp.asarray(np.pad(adjacent, (0, spare)))
        self._log_thresholds = jnp.asarray(np.log(np.asarray(thresholds, np.float64)))

    def scan(
        self, item_a: np.ndarray, item_b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the best intermediate, the number of them, and the counts per threshold."""
        length, count = pair_bucket(len(item_a)), len(item_a)
        middle, total, inside = most_sensitive_triples(
            self._log_density,
            self._adjacent,
            self._log_thresholds,
            jnp.asarray(pad(item_a, length)),
            jnp.asarray(pad(item_b, length)),
        )
        counts = np.asarray(inside)[:count].sum(axis=0, dtype=np.int64)
        return np.asarray(middle)[:count], np.asarray(total)[:count], counts
