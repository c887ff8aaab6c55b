"""One prediction's derivatives by every observed fraction, in a single solve: for large fits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from ..fit.result import FitResult
from .engine import Engine, counts_of

_RELATIVE, _PATIENCE = 1e-11, 250
_CONTRAST, _PIECE = 1e6, 2**15
_WIDEST = 300.0
"""Nats between scores whose strengths can be multiplied without under- or overflow."""


class Responses(NamedTuple):
    """A fit's observed pairs, as the upper half of a sparse matrix in rows of item_a."""

    item_a: Int64[np.ndarray, " edges"]
    item_b: Int64[np.ndarray, " edges"]
    weight: Float64[np.ndarray, " edges"]
    respond: Float64[np.ndarray, " edges"]


def responses(fit: FitResult) -> Responses:
    """Return curvature and response to its fraction of each observed pair."""
    counts = counts_of(fit)
    a, b = counts.item_a, counts.item_b
    if fit.link.name == "logistic" and np.ptp(fit.scores) < _WIDEST:
        total = counts.wins_a + counts.wins_b
        return Responses(a, b, _logistic_weights(a, b, total, np.exp(fit.scores)), total)
    slopes = Engine(fit.link, fit.ridge, fit.num_items).slopes(fit.scores[a] - fit.scores[b])
    weight = counts.wins_a * slopes.bend_a + counts.wins_b * slopes.bend_b
    # d/df of n (f psi_a + (1 - f) psi_b); psi_a - psi_b is 1 for the logistic link
    respond = (counts.wins_a + counts.wins_b) * (slopes.win_a - slopes.win_b)
    return Responses(a, b, weight, respond)


def _logistic_weights(
    a: np.ndarray, b: np.ndarray, total: np.ndarray, strength: np.ndarray
) -> Float64[np.ndarray, " edges"]:
    """Return n p q = n e_a e_b / (e_a + e_b)^2: no exponential a pair, and pieces fit the cache."""
    weight = np.empty_like(total)
    for start in range(0, len(total), _PIECE):
        here = slice(start, start + _PIECE)
        mine, other = strength.take(a[here]), strength.take(b[here])
        both = mine + other
        mine *= other
        both *= both
        mine /= both
        np.multiply(mine, total[here], out=weight[here])
    return weight


def _drops(
    edges: Responses, potential: Float64[np.ndarray, " items"]
) -> Float64[np.ndarray, " edges"]:
    """Return the difference of potentials across each observed pair, times its response."""
    found = np.empty_like(edges.respond)
    for start in range(0, len(found), _PIECE):
        here = slice(start, start + _PIECE)
        drop = potential.take(edges.item_a[here])
        drop -= potential.take(edges.item_b[here])
        np.multiply(drop, edges.respond[here], out=found[here])
    return found


def one_response(fit: FitResult, first: int, second: int) -> Float64[np.ndarray, " edges"] | None:
    """Return d(s_first - s_second)/df of every observed pair, None where the solve is slow.

    One system (L + ridge) x = e_first - e_second by conjugate gradients, scaled by the diagonal;
    some ten products on well connected graphs, each of a few milliseconds for a million pairs.
    """
    edges, size = responses(fit), fit.num_items
    product, diagonal = _products(edges, size, fit.ridge)
    if not edges.weight.min() * _CONTRAST > edges.weight.max():
        return None  # the drop along an edge that conducts so well is lost in its potentials
    residual = np.zeros(size)
    residual[[first, second]] = 1.0, -1.0
    solution, scaled = np.zeros(size), residual / diagonal
    direction, weight = scaled, float(residual @ scaled)
    goal = _RELATIVE**2 * weight
    for _ in range(_PATIENCE):
        image = product(direction)
        bend = float(direction @ image)
        if not bend > 0:
            return None
        solution += weight / bend * direction
        residual = residual - weight / bend * image
        scaled = residual / diagonal
        before, weight = weight, float(residual @ scaled)
        if weight <= goal:
            return _drops(edges, solution)
        direction = scaled + (weight / before) * direction
    return None


def _products(edges: Responses, size: int, ridge: float) -> tuple[Any, np.ndarray]:
    """Return multiplication by L + ridge, and its diagonal. Pairs are sorted, so nothing is."""
    from scipy.sparse import csr_array

    starts = np.searchsorted(edges.item_a, np.arange(size + 1)).astype(np.int32)
    upper: Any = csr_array((edges.weight, edges.item_b.astype(np.int32), starts), (size, size))
    lower = upper.T
    ones = np.ones(size)
    diagonal = upper @ ones + lower @ ones + ridge

    def product(vector: np.ndarray) -> np.ndarray:
        return diagonal * vector - upper @ vector - lower @ vector

    return product, diagonal
