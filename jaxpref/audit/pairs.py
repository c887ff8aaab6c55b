"""Every pair of items, compared or not: its prediction, and how far that can be moved.

One observed fraction moving by a small amount moves a prediction by its derivative. Where all
fractions may move together within a budget, the worst case to first order is the budget times the
dual norm of the row of derivatives: the largest entry for an L1 budget, the L2 norm for an L2
budget, and the sum of sizes where each fraction may move by as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int

from ..fit._host import item_bucket, pad, pair_bucket
from ..fit.likelihood import predict
from ..fit.result import FitResult
from .network import EdgeSystem, edge_norms, edge_rows, edge_system
from .records import FragilePair, PairTable

Progress = Callable[[int, int], None]

ROW_BUDGET = 2**24
"""Numbers held at once in each block of score derivatives: 128 MiB."""

NORMAL_95 = 1.959963984540054
"""Standard errors to either side of a 95% interval."""


def scan_pairs(fit: FitResult, chunk: int, progress: Progress | None) -> PairTable:
    """Return all pairs with their norms, in blocks of `chunk` pairs. Needs 64 bits."""
    item_a, item_b = (k.astype(np.int32) for k in np.triu_indices(fit.num_items, 1))
    total = len(item_a)
    largest, l2, l1 = np.zeros((3, total))
    edge = np.zeros(total, np.int32)
    done = 0
    for where, rows in _blocks(fit, item_a, item_b, chunk):
        largest[where], edge[where], l2[where], l1[where] = rows.norms(item_a[where], item_b[where])
        done += len(where)
        if progress is not None:
            progress(done, total)
    return pair_table(fit, item_a, item_b, largest, edge, l2, l1)


def pair_table(
    fit: FitResult,
    item_a: np.ndarray,
    item_b: np.ndarray,
    largest: np.ndarray,
    edge: np.ndarray,
    l2: np.ndarray,
    l1: np.ndarray,
    *,
    variance: np.ndarray | None = None,
) -> PairTable:
    """Return the table of some pairs, given the norms of the margins' derivatives.

    `variance` is that of the margins, worked out where it is left out.
    """
    margin = fit.scores[item_a] - fit.scores[item_b]
    if variance is None:
        matrix = fit.covariance()
        own = np.diagonal(matrix)
        variance = own[item_a] + own[item_b] - 2 * matrix[item_a, item_b]
    error = np.sqrt(np.maximum(variance, 0.0))
    prediction = predict(fit.link, margin)
    low = predict(fit.link, margin - NORMAL_95 * error).probability
    high = predict(fit.link, margin + NORMAL_95 * error).probability
    return PairTable(
        item_a=item_a,
        item_b=item_b,
        comparisons=played(fit, item_a, item_b),
        probability=prediction.probability,
        low=low,
        high=high,
        margin=margin,
        standard_error=error,
        derivative=largest * prediction.density,
        edge=edge,
        worst_l2=l2 * prediction.density,
        worst_linf=l1 * prediction.density,
    )


def played(
    fit: FitResult, item_a: Int[np.ndarray, " pairs"], item_b: Int[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " pairs"]:
    """Return how often each two items were compared."""
    pairs, size = fit.pairs, np.int64(fit.num_items)
    known = pairs.item_a * size + pairs.item_b  # sorted
    wanted = np.minimum(item_a, item_b) * size + np.maximum(item_a, item_b)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, (pairs.wins_a + pairs.wins_b)[place], 0.0)


def name_pairs(fit: FitResult, table: PairTable, top: int) -> tuple[FragilePair, ...]:
    """Return the `top` most sensitive pairs by name, most sensitive first."""
    order = np.argsort(-table.sensitivity, kind="stable")[:top]
    total = fit.pairs.wins_a + fit.pairs.wins_b
    rows = []
    for n in order:
        edge = int(table.edge[n])
        rows.append(
            FragilePair(
                item_a=fit.items[table.item_a[n]],
                item_b=fit.items[table.item_b[n]],
                comparisons=float(table.comparisons[n]),
                probability=float(table.probability[n]),
                low=float(table.low[n]),
                high=float(table.high[n]),
                sensitivity=float(table.sensitivity[n]),
                derivative=float(table.derivative[n]),
                edge_a=fit.items[fit.pairs.item_a[edge]],
                edge_b=fit.items[fit.pairs.item_b[edge]],
                edge_comparisons=float(total[edge]),
                worst_l2=float(table.worst_l2[n]),
                worst_linf=float(table.worst_linf[n]),
            )
        )
    return tuple(rows)


class _Rows(NamedTuple):
    """Score derivatives by every edge, for the items of two blocks that start at given items."""

    rows_a: Float64[Array, "block edges"]
    rows_b: Float64[Array, "block edges"]
    start_a: int
    start_b: int
    chunk: int

    def norms(self, item_a: np.ndarray, item_b: np.ndarray) -> list[np.ndarray]:
        """Return the norms of the differences of two rows, pair by pair, as EdgeNorms has them."""
        local_a = jnp.asarray(pad(item_a - np.int32(self.start_a), self.chunk))
        local_b = jnp.asarray(pad(item_b - np.int32(self.start_b), self.chunk))
        found = edge_norms(self.rows_a, self.rows_b, local_a, local_b)
        return [np.asarray(column)[: len(item_a)] for column in found]


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
