"""The information of rankings about the scores, as a weighted Laplacian, on the host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from ..data.rankings import Rankings
from .rankings_blocks import entries_in_chunks, in_chunks, plan


def rankings_information(
    rankings: Rankings, scores: Float64[np.ndarray, " items"]
) -> Float64[np.ndarray, "items items"]:
    r"""Return the sum over choices of w (diag(p) - p p^T), in nats^-2.

    Every pair of a choice set adds w p_i p_j to the weight between the two items, so the matrix is
    a Laplacian whose weights are sums of positive terms: exact to rounding at any gap. It is the
    observed information, and the expected one given the choice sets that were reached.

    Notes
    -----
    One pass for each pair of places: the sum over rankings of half their squared length.

    >>> from jaxpref.data import Rankings
    >>> rankings_information(Rankings.from_lists([["x", "y"]]), np.zeros(2))
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    item, _, start, listed = rankings.entries()
    size = rankings.num_items
    links = np.zeros(size * size)
    for layout in plan(np.diff(start)):
        flat = entries_in_chunks(item.astype(np.int64), start, layout)
        table = flat.transpose(1, 0, 2).reshape(layout.places, -1)
        length = in_chunks(np.diff(start)[layout.owner], layout).ravel()
        stages = in_chunks(listed[layout.owner], layout).ravel()
        weight = in_chunks(rankings.weight[layout.owner], layout).ravel()
        _add_pairs(links, table, length, stages, weight, scores)
    matrix = links.reshape(size, size)
    matrix += matrix.T
    np.fill_diagonal(matrix, 0.0)
    return np.diag(matrix.sum(axis=1)) - matrix


def _add_pairs(
    links: np.ndarray,
    table: np.ndarray,
    length: np.ndarray,
    stages: np.ndarray,
    weight: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Add w p_i p_j of every pair of every choice set of a block."""
    size = scores.size
    chosen, others = host_choices(table, length, scores)
    square = np.zeros(weight.size)
    for i in range(table.shape[0] - 1):
        square = square + np.where(i < stages, weight, 0.0)
        both = square * chosen[i] * others[i]
        for j in range(i + 1, table.shape[0]):
            value = np.where(j < length, both * chosen[j], 0.0)
            links += np.bincount(table[i] * size + table[j], value, links.size)
            both = both * others[j]
        square = square * others[i] ** 2


def host_choices(
    table: np.ndarray, length: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return p and 1 - p of each stage in NumPy, shape (K, R); 0 and 1 where there is no entry."""
    chosen, others = np.zeros(table.shape), np.ones(table.shape)
    top, mass = np.full(table.shape[1], -np.inf), np.zeros(table.shape[1])
    for place in range(table.shape[0] - 1, -1, -1):
        here = place < length
        gap = np.where(here, scores[table[place]] - top, 0.0)
        small = np.exp(-np.abs(gap))
        own, rest = np.where(gap > 0, 1.0, small), np.where(gap > 0, mass * small, mass)
        total = np.where(here, own + rest, 1.0)
        chosen[place] = np.where(here, own / total, 0.0)
        others[place] = np.where(here, rest / total, 1.0)
        top = np.where(here, np.maximum(top, scores[table[place]]), top)
        mass = np.where(here, own + rest, mass)
    return chosen, others
