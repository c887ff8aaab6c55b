"""Every pair that was never compared: its prediction, and what that prediction rests on."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int32

from ..fit._host import item_bucket, pad, pair_bucket
from ..fit.result import FitResult
from .records import PairTable
from .triples import TripleCounts, log_densities, most_sensitive_triples


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
    matrix[fit.pairs.item_b, fit.pairs.item_a] = True
    return matrix


def scan_unseen(
    fit: FitResult, table: PairTable, thresholds: tuple[float, ...], chunk: int
) -> tuple[UnseenPairs, TripleCounts]:
    """Return the unseen pairs of a table with their triples. Needs 64 bits."""
    keep = np.flatnonzero(~table.seen)
    item_a, item_b = table.item_a[keep], table.item_b[keep]
    middle, num_triples = np.full(len(keep), -1, np.int32), np.zeros(len(keep), np.int32)
    inside = np.zeros(len(thresholds), np.int64)
    triples = _TripleScan(fit, np.union1d(item_a, item_b), thresholds)
    for start in range(0, len(keep), chunk):
        where = slice(start, start + chunk)
        middle[where], num_triples[where], added = triples.scan(item_a[where], item_b[where])
        inside += added
    pairs = UnseenPairs(
        item_a,
        item_b,
        table.probability[keep],
        table.derivative[keep],
        table.edge[keep],
        middle,
        num_triples,
    )
    counts = tuple(int(count) for count in inside)
    return pairs, TripleCounts(thresholds, counts, int(num_triples.sum(dtype=np.int64)))


class _TripleScan:
    """The triple view, with what all pairs share worked out once: rows of the items in them."""

    def __init__(
        self,
        fit: FitResult,
        rows: Int32[np.ndarray, " rows"],
        thresholds: tuple[float, ...],
    ) -> None:
        size, height = item_bucket(fit.num_items), item_bucket(max(len(rows), 1))
        self._place = np.zeros(fit.num_items, np.int32)
        self._place[rows] = np.arange(len(rows), dtype=np.int32)
        scores = jnp.asarray(pad(fit.scores, size))
        here = jnp.asarray(pad(fit.scores[rows], height))
        self._log_density = log_densities(fit.link, here, scores)
        spare = (0, height - len(rows)), (0, size - fit.num_items)
        self._adjacent = jnp.asarray(np.pad(adjacency(fit)[rows], spare))
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
            jnp.asarray(pad(self._place[item_a], length)),
            jnp.asarray(pad(self._place[item_b], length)),
            jnp.asarray(pad(item_b, length)),
        )
        counts = np.asarray(inside)[:count].sum(axis=0, dtype=np.int64)
        return np.asarray(middle)[:count], np.asarray(total)[:count], counts
