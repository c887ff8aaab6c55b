"""Solving with the information of a comparison graph: (L + ridge) x = b, b summing to zero.

L is the Laplacian of non-negative weights on the pairs. Two ways, chosen by the graph's shape:

* elimination in blocks, for small and for long thin graphs: breadth-first layers only touch their
  neighbours, so L is block tridiagonal, and a path of 100,000 items costs 2,000 small blocks. These
  are the graphs on which conjugate gradients need as many steps as there are items;
* conjugate gradients scaled by the diagonal, for the others. Where they are slow after all,
  elimination takes over.

Blocks stay small where they can: a threaded LAPACK call for a few hundred rows takes a hundred
times longer when other work shares the processor.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

_LEAST_BLOCK = 32
_LARGEST_BLOCK = 96
_MOST_DIRECT = 12_000
_PATIENCE = 400
_RELATIVE = 1e-12


class ItemGraph:
    """The pairs of a problem, prepared for many solves with different weights.

    Parameters
    ----------
    item_a, item_b : (pairs,)
        Indices of the items; a pair may come up more than once.
    num_items : int
        Number of items.
    """

    def __init__(self, item_a: np.ndarray, item_b: np.ndarray, num_items: int) -> None:
        self.item_a = item_a.astype(np.int64)
        self.item_b = item_b.astype(np.int64)
        self.num_items = num_items
        self._blocks = _layers(self.item_a, self.item_b, num_items)
        self._thin = max(map(len, self._blocks)) <= _LARGEST_BLOCK

    def onto_items(self, flow: Float64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " items"]:
        """Return, for each item, the flow over its pairs: added as first item, taken as second."""
        size = self.num_items
        return np.bincount(self.item_a, flow, size) - np.bincount(self.item_b, flow, size)

    def solver(self, weight: Float64[np.ndarray, " pairs"], ridge: float) -> Solver:
        """Return a solver for one set of weights, >= 0.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the matrix is not positive definite to working precision, apart from the all-ones
            direction.
        """
        return (_Blocks if self._thin else _Iterative)(self, weight, ridge)

    def eliminate(self, weight: Float64[np.ndarray, " pairs"], ridge: float) -> Solver:
        """Return a solver by elimination, whatever the shape, up to 12,000 items."""
        if self.num_items > _MOST_DIRECT and not self._thin:
            raise np.linalg.LinAlgError("too many items to eliminate")
        return _Blocks(self, weight, ridge)

    @property
    def blocks(self) -> list[Int64[np.ndarray, " block"]]:
        """Items in blocks, such that a pair's items are in the same block or in two in a row."""
        return self._blocks

    def laplacian(
        self, weight: Float64[np.ndarray, " pairs"]
    ) -> Float64[np.ndarray, "items items"]:
        """Return L as a dense matrix."""
        size = self.num_items
        key = self.item_a * size + self.item_b
        links = np.bincount(key, weight, size * size).reshape(size, size)
        links = links + links.T
        return np.diag(links.sum(axis=1)) - links

    def diagonal(self, weight: Float64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " items"]:
        """Return the diagonal of L."""
        size = self.num_items
        return np.bincount(self.item_a, weight, size) + np.bincount(self.item_b, weight, size)


class Solver(abc.ABC):
    """Solves (L + ridge) x = b for right-hand sides whose columns sum to zero."""

    def solve(self, right: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
        """Return x, each column summing to zero.

        Raises
        ------
        numpy.linalg.LinAlgError
            If conjugate gradients do not get there.
        """
        found = self._solve(right)
        return found - found.mean(axis=0)

    @abc.abstractmethod
    def _solve(self, right: Any) -> Any:
        """Return a solution, up to a constant in each column."""


class _Blocks(Solver):
    """Block elimination along the layers; without a prior the last one is grounded."""

    def __init__(self, graph: ItemGraph, weight: np.ndarray, ridge: float) -> None:
        self._blocks = graph.blocks
        own, towards = _block_matrices(graph, graph.blocks, weight)
        for matrix in own:
            matrix[np.diag_indices(len(matrix))] += ridge
        if ridge == 0:
            # Tied to the ground by its own weight: nothing flows there, the sources summing to 0.
            own[-1][0, 0] *= 2
        self._own, self._carry = own, []
        for k, link in enumerate(towards):
            np.linalg.cholesky(own[k])  # raises where the information is lost to rounding
            self._carry.append(np.linalg.solve(own[k], link))
            own[k + 1] -= link.T @ self._carry[-1]
        np.linalg.cholesky(own[-1])

    def _solve(self, right: Any) -> Any:
        parts = [right[block] for block in self._blocks]
        for k, carry in enumerate(self._carry):
            parts[k + 1] = parts[k + 1] - carry.T @ parts[k]
        found = [np.linalg.solve(self._own[-1], parts[-1])]
        for k in range(len(self._carry) - 1, -1, -1):
            found.append(np.linalg.solve(self._own[k], parts[k]) - self._carry[k] @ found[-1])
        result = np.empty_like(right)
        result[np.concatenate(self._blocks)] = np.concatenate(found[::-1])
        return result


def _block_matrices(
    graph: ItemGraph, blocks: list[np.ndarray], weight: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the diagonal blocks of L, and the blocks above the diagonal."""
    label, place = np.empty(graph.num_items, np.int64), np.empty(graph.num_items, np.int64)
    for k, block in enumerate(blocks):
        label[block], place[block] = k, np.arange(len(block))
    swap = label[graph.item_a] > label[graph.item_b]
    a = np.where(swap, graph.item_b, graph.item_a)
    b = np.where(swap, graph.item_a, graph.item_b)
    order = np.argsort(label[a], kind="stable")
    a, b, sorted_weight = a[order], b[order], weight[order]
    ends = np.searchsorted(label[a], np.arange(len(blocks) + 1))
    diagonal = graph.diagonal(weight)
    own, towards = [], []
    for k, block in enumerate(blocks):
        here = slice(ends[k], ends[k + 1])
        inside = label[b[here]] == k
        matrix = np.zeros((len(block), len(block)))
        first, second = place[a[here]], place[b[here]]
        np.subtract.at(matrix, (first[inside], second[inside]), sorted_weight[here][inside])
        matrix += matrix.T
        matrix[np.diag_indices(len(block))] = diagonal[block]
        own.append(matrix)
        if k + 1 < len(blocks):
            link = np.zeros((len(block), len(blocks[k + 1])))
            np.subtract.at(link, (first[~inside], second[~inside]), sorted_weight[here][~inside])
            towards.append(link)
    return own, towards


class _Products(NamedTuple):
    graph: ItemGraph
    weight: Float64[np.ndarray, " pairs"]
    diagonal: Float64[np.ndarray, " items"]
    ridge: float

    def product(self, vector: Float64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
        drop = vector[self.graph.item_a] - vector[self.graph.item_b]
        return self.graph.onto_items(self.weight * drop) + self.ridge * vector


class _Iterative(Solver):
    def __init__(self, graph: ItemGraph, weight: np.ndarray, ridge: float) -> None:
        diagonal = graph.diagonal(weight) + ridge
        if not np.all(diagonal > 0):
            raise np.linalg.LinAlgError("an item without information")
        self._products = _Products(graph, weight, diagonal, ridge)
        self._eliminated: Solver | None = None

    def _solve(self, right: Any) -> Any:
        if self._eliminated is None:
            columns = [self._iterate(column) for column in right.reshape(len(right), -1).T]
            if all(column is not None for column in columns):
                return np.stack(columns, axis=1).reshape(right.shape)
            products = self._products
            self._eliminated = products.graph.eliminate(products.weight, products.ridge)
        return self._eliminated.solve(right)

    def _iterate(self, right: Float64[np.ndarray, " items"]) -> Any:
        """Return the solution by conjugate gradients, None if it takes too long."""
        products, size = self._products, len(right)
        residual, solution = right - right.mean(), np.zeros(size)
        scaled = residual / products.diagonal
        direction, weight = scaled, float(residual @ scaled)
        goal = _RELATIVE**2 * weight
        for _ in range(_PATIENCE if size <= _MOST_DIRECT else 10 * size):
            if weight <= goal:
                return solution
            image = products.product(direction)
            bend = float(direction @ image)
            if not bend > 0:
                return None
            solution += weight / bend * direction
            residual = residual - weight / bend * image
            scaled = residual / products.diagonal
            before, weight = weight, float(residual @ scaled)
            direction = scaled + (weight / before) * direction
        return None


def _layers(
    item_a: Int64[np.ndarray, " pairs"], item_b: Int64[np.ndarray, " pairs"], num_items: int
) -> list[Int64[np.ndarray, " block"]]:
    """Return breadth-first layers from an item far out, small ones put together.

    Islands follow one another. Each pair joins items of the same block, or of two in a row.
    """
    depth = _depths(item_a, item_b, num_items, 0)
    depth = _depths(item_a, item_b, num_items, int(np.argmax(depth)))
    order = np.argsort(depth, kind="stable")
    sizes = np.bincount(depth)
    ends, blocks, start = np.cumsum(sizes), [], 0
    for end in ends:
        if end - start >= _LEAST_BLOCK or end == num_items:
            blocks.append(order[start:end])
            start = end
    return blocks


def _depths(
    item_a: Int64[np.ndarray, " pairs"],
    item_b: Int64[np.ndarray, " pairs"],
    num_items: int,
    start: int,
) -> Int64[np.ndarray, " items"]:
    """Return each item's distance from `start`; further islands start where the last one ends."""
    mine, theirs = np.concatenate([item_a, item_b]), np.concatenate([item_b, item_a])
    order = np.argsort(mine, kind="stable")
    theirs = theirs[order]
    ends = np.searchsorted(mine[order], np.arange(num_items + 1))
    depth = np.full(num_items, -1, np.int64)
    frontier, level, unseen = np.array([start]), 0, 0
    while True:
        depth[frontier] = level
        reached = np.concatenate([theirs[ends[k] : ends[k + 1]] for k in frontier])
        frontier = np.unique(reached[depth[reached] < 0])
        level += 1
        if not len(frontier):
            while unseen < num_items and depth[unseen] >= 0:
                unseen += 1
            if unseen == num_items:
                return depth
            frontier = np.array([unseen])
