r"""Large fits: the most fragile of millions of pairs, by bounds.

At 5,000 items and a million observed pairs there are 12 million predictions of a million
derivatives each. With R_ie = n_e (V_ia - V_ib) the response of score i to edge e = (a, b), rows are
largest at the item's own edges, A_i, and small elsewhere, at most B_i, so that the largest entry of
R_i - R_j lies between max(A_i - B_j, A_j - B_i) and max(A_i + B_j, A_j + B_i) (A_i + A_j where i
and j were compared): a few thousand pairs remain, and each is decided by its own items' edges.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from ..fit.base import keep_standard_errors
from ..fit.likelihood import predict
from ..fit.result import FitResult
from .pairs import Progress, pair_table
from .records import PairTable
from .solve import Responses, responses

PAIRS_SCANNED = 4e10
"""(pair, edge) combinations up to which every pair is looked at: a minute or two."""

_BATCH, _BLOCK = 512, 256


def fragile_pairs(fit: FitResult, count: int, *, progress: Progress | None = None) -> PairTable:
    """Return the `count` pairs most sensitive to one observed fraction, most sensitive first.

    Parameters
    ----------
    fit : FitResult
        A converged fit of scores alone.
    count : int, >= 1
        How many pairs.
    progress : callable, optional
        Called with (blocks of pairs looked at, all of them), then with (pairs described, count).

    Returns
    -------
    PairTable
        Exact, as :func:`jaxpref.audit.pairs.scan_pairs` would have it, whatever the size.

    Notes
    -----
    One inverse of the information (items^3 operations) and passes over it: three (items, items)
    arrays, whatever the number of edges, pairs or `count`.
    """
    edges, size = responses(fit), fit.num_items
    inverse = _inverse(edges, size, fit.ridge)
    if fit.link.name == "logistic":  # whose observed information is the expected one
        keep_standard_errors(fit, inverse)
    count = min(count, size * (size - 1) // 2)
    search = _Search(fit, edges, inverse)
    first, second = search.candidates(count, progress)
    first, second = search.best(first, second, count)
    largest, l2, l1 = np.zeros((3, len(first)))
    edge = np.zeros(len(first), np.int32)
    for n, (i, j) in enumerate(zip(first, second, strict=True)):
        row = search.row(int(i), int(j))
        size_of = np.abs(row)
        edge[n] = int(np.argmax(size_of >= size_of.max() * (1 - 1e-12)))
        largest[n], l2[n], l1[n] = row[edge[n]], np.sqrt(row @ row), size_of.sum()
        if progress is not None and (n + 1) % 50 == 0:
            progress(n + 1, len(first))
    own = np.diagonal(inverse)
    variance = own[first] + own[second] - 2 * inverse[first, second]
    return pair_table(
        fit, first.astype(np.int32), second.astype(np.int32), largest, edge, l2, l1,
        variance=variance,
    )  # fmt: skip


def _inverse(edges: Responses, size: int, ridge: float) -> Float64[np.ndarray, "items items"]:
    """Return an inverse of L + ridge on vectors that sum to zero, in place of L."""
    from scipy.linalg import lapack

    potrf, potri = lapack.get_lapack_funcs(("potrf", "potri"), dtype=np.float64)
    matrix = np.zeros((size, size), order="F")
    matrix[edges.item_b, edges.item_a] = -edges.weight
    total = np.bincount(edges.item_a, edges.weight, size)
    total += np.bincount(edges.item_b, edges.weight, size) + ridge
    matrix[np.diag_indices(size)] = total
    matrix += total.min() / size  # a vector of ones, which differences do not feel
    factor, status = potrf(matrix, lower=1, overwrite_a=1, clean=0)
    if status == 0:
        factor, status = potri(factor, lower=1, overwrite_c=1)
    if status != 0:
        raise np.linalg.LinAlgError("the information is singular to working precision")
    for start in range(0, size, _BLOCK):  # the upper half from the lower one
        stop = min(start + _BLOCK, size)
        factor[start:stop, stop:] = factor[stop:, start:stop].T
        corner = factor[start:stop, start:stop]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
    return np.ascontiguousarray(factor.T)


class _Search:
    """Bounds on the pairs' sensitivities, and their exact values."""

    def __init__(self, fit: FitResult, edges: Responses, inverse: np.ndarray) -> None:
        self._fit, self._inverse = fit, inverse
        self._respond = edges.respond()
        self._respond_most = float(self._respond.max())
        self._item_a, self._item_b = (k.astype(np.int64) for k in (edges.item_a, edges.item_b))
        size = fit.num_items
        both = np.concatenate([self._item_a, self._item_b])
        order = np.argsort(both, kind="stable")
        self._neighbour = np.concatenate([self._item_b, self._item_a])[order]
        self._weight = np.concatenate([self._respond, self._respond])[order]
        self._starts = np.searchsorted(both[order], np.arange(size + 1))
        self._own, self._other = self._row_bounds()

    def _row_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest response of each score to its own edges, and a bound to others."""
        size = self._fit.num_items
        own, other = np.zeros((2, size))
        for i in range(size):
            row, here = self._inverse[i], slice(self._starts[i], self._starts[i + 1])
            drop = row[i] - row[self._neighbour[here]]
            own[i] = np.max(self._weight[here] * np.abs(drop), initial=0.0)
            other[i] = self._respond_most * _range_without(row, (i,))
        return own, other

    def candidates(
        self, count: int, progress: Progress | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs among which the `count` best are, the highest upper bound first."""
        size = self._fit.num_items
        floor, blocks = np.full(count, -np.inf), range(0, size, _BLOCK)
        tell = progress or (lambda done, total: None)
        for done, start in enumerate(blocks):
            low, _ = self._bounds(start)
            floor = np.sort(np.concatenate([floor, low.ravel()]))[-count:]
            tell(done + 1, 2 * len(blocks))
        firsts, seconds, bounds = [], [], []
        for done, start in enumerate(blocks):
            _, high = self._bounds(start)
            tell(len(blocks) + done + 1, 2 * len(blocks))
            i, j = np.nonzero(high >= floor[0])
            firsts.append(i + start)
            seconds.append(j)
            bounds.append(high[i, j])
        self._bound = np.concatenate(bounds)
        order = np.argsort(-self._bound, kind="stable")
        self._bound = self._bound[order]
        return np.concatenate(firsts)[order], np.concatenate(seconds)[order]

    def _bounds(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bounds for a block of rows; -inf below the diagonal."""
        stop = min(start + _BLOCK, self._fit.num_items)
        rows = np.arange(start, stop)[:, None]
        columns = np.arange(self._fit.num_items)
        margin = self._fit.scores[rows] - self._fit.scores
        density = predict(self._fit.link, margin.ravel()).density.reshape(margin.shape)
        own, other = self._own, self._other
        low = np.maximum(own[rows] - other, own - other[rows])
        high = np.maximum(own[rows] + other, own + other[rows])
        here = slice(self._starts[start], self._starts[stop])
        owner = np.repeat(np.arange(stop - start), np.diff(self._starts[start : stop + 1]))
        neighbour = self._neighbour[here]
        high[owner, neighbour] = own[start + owner] + own[neighbour]
        above = columns > rows
        return np.where(above, low * density, -np.inf), np.where(above, high * density, -np.inf)

    def best(
        self, first: np.ndarray, second: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the `count` best of the candidates, exactly, most sensitive first."""
        margin = self._fit.scores[first] - self._fit.scores[second]
        density = predict(self._fit.link, margin).density
        value = np.full(len(first), -np.inf)
        for start in range(0, len(first), _BATCH):
            stop = min(start + _BATCH, len(first))
            for n in range(start, stop):
                value[n] = density[n] * self._largest(int(first[n]), int(second[n]))
            if stop >= count and stop < len(first):
                reached = np.partition(value[:stop], stop - count)[stop - count]
                if self._bound[stop] < reached:
                    break
        order = np.argsort(-value, kind="stable")[:count]
        return first[order], second[order]

    def _largest(self, i: int, j: int) -> float:
        """Return the largest entry of R_i - R_j in size."""
        drop = self._inverse[i] - self._inverse[j]
        found = 0.0
        for item in (i, j):
            here = slice(self._starts[item], self._starts[item + 1])
            through = np.abs(drop[item] - drop[self._neighbour[here]])
            found = max(found, float(np.max(self._weight[here] * through, initial=0.0)))
        if found >= self._respond_most * _range_without(drop, (i, j)):
            return found
        return float(np.abs(self.row(i, j)).max())

    def row(self, i: int, j: int) -> Float64[np.ndarray, " edges"]:
        """Return R_i - R_j."""
        drop = self._inverse[i] - self._inverse[j]
        difference = drop.take(self._item_a)
        difference -= drop.take(self._item_b)
        difference *= self._respond
        return difference


def _range_without(row: np.ndarray, items: tuple[int, ...]) -> float:
    """Return the range of a row's entries, some items left out."""
    rest = row.copy()
    rest[list(items)] = row[0 if 0 not in items else _first_outside(items)]
    return float(rest.max() - rest.min())


def _first_outside(items: tuple[int, ...]) -> int:
    return next(n for n in range(len(items) + 1) if n not in items)
