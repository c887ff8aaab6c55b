"""Places for the items of a comparison graph, by stress majorisation: no randomness.

The distance between two compared items grows with the number of items that only one of them was
compared with, so that items with the same opponents stand together; other distances are those of
the shortest path. Places are then moved until distances on paper fit these, near ones first [1]_.

References
----------
.. [1] E. R. Gansner, Y. Koren, S. North, Graph drawing by stress majorization, 2004: the update.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

Real = float | int

_ROUNDS = 120
_SPREADS = 60


def place_items(
    adjacent: Bool[np.ndarray, "items items"],
    weight: Float[np.ndarray, " items"],
    *,
    width: Real,
    height: Real,
    apart: Real,
) -> Float[np.ndarray, "items 2"]:
    """Return a place for each item within a box.

    Parameters
    ----------
    adjacent : (items, items)
        Which items were compared with which; symmetric.
    weight : (items,)
        What should grow from right to left, as scores with the best items at the left.
    width, height : float > 0
        Of the box.
    apart : float > 0
        Distance that items keep where there is room.

    Examples
    --------
    >>> chain = np.eye(3, k=1, dtype=bool) | np.eye(3, k=-1, dtype=bool)
    >>> place_items(chain, np.array([2.0, 1.0, 0.0]), width=2.0, height=1.0, apart=0.1).round(2)
    array([[0. , 0.5],
           [1. , 0.5],
           [2. , 0.5]])
    """
    if len(adjacent) == 1:
        return np.array([[width / 2, height / 2]])
    places = _majorise(_distances(adjacent))
    return _spread(_fit_box(_turn(places, weight), width, height), width, height, apart)


def _distances(adjacent: np.ndarray) -> np.ndarray:
    """Return the distances that the drawing should have."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import shortest_path

    links = adjacent.astype(np.float64)
    degree = links.sum(axis=1)
    only_one = degree[:, None] + degree[None, :] - 2 * links @ links
    lengths = np.sqrt(np.maximum(only_one, 1.0)) * links
    distances = np.asarray(shortest_path(csr_array(lengths), directed=False))
    finite = np.isfinite(distances)
    distances[~finite] = 1.3 * distances[finite].max(initial=1.0)  # islands stand apart
    return distances


def _majorise(distances: np.ndarray) -> np.ndarray:
    """Return places whose distances fit, starting from classical scaling."""
    size = len(distances)
    safe = distances + np.eye(size)
    weight = (1 - np.eye(size)) / safe**2
    laplacian = np.diag(weight.sum(axis=1)) - weight
    inverse = np.linalg.inv(laplacian + 1 / size) - 1 / size
    places = _classical(distances)
    for _ in range(_ROUNDS):
        gaps = np.linalg.norm(places[:, None] - places[None, :], axis=2)
        ratio = np.divide(weight * distances, gaps, out=np.zeros_like(gaps), where=gaps > 1e-12)
        places = inverse @ (np.diag(ratio.sum(axis=1)) - ratio) @ places
    return places


def _classical(distances: np.ndarray) -> np.ndarray:
    """Return the two leading coordinates of classical scaling, nudged off each other."""
    size = len(distances)
    squares = distances**2
    centred = squares - squares.mean(axis=0) - squares.mean(axis=1)[:, None] + squares.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    lead = vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 0))
    turn = 2.399963 * np.arange(size)  # the golden angle: no two nudges alike
    flat = np.ptp(lead[:, 1]) <= 1e-6 * np.ptp(lead[:, 0])
    return lead if flat else lead + 1e-3 * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _turn(places: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the places turned so that they are widest from left to right, the best at the left."""
    centred = places - places.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    turned = centred @ axes.T
    sign = np.where(turned.T @ (weight - weight.mean()) > 0, -1.0, 1.0)
    return turned * sign


def _fit_box(places: np.ndarray, width: Real, height: Real) -> np.ndarray:
    """Return the places stretched into the box, by at most twice as much one way as the other."""
    span = np.ptp(places, axis=0)
    scale = np.divide([width, height], span, out=np.full(2, np.inf), where=span > 1e-9)
    scale = np.minimum(scale, 2 * scale.min())
    scale = np.where(np.isfinite(scale), scale, 0.0)
    middle = (places.max(axis=0) + places.min(axis=0)) / 2
    return (places - middle) * scale + np.array([width, height]) / 2


def _spread(places: np.ndarray, width: Real, height: Real, apart: Real) -> np.ndarray:
    """Return the places with those that are too near pushed apart, within the box."""
    for _ in range(_SPREADS):
        gap = places[:, None] - places[None, :]
        length = np.linalg.norm(gap, axis=2) + np.eye(len(places)) * 1e9
        short = np.maximum(apart - length, 0)
        if not short.any():
            break
        push = gap / np.maximum(length, 1e-9)[:, :, None] * short[:, :, None] / 2
        places = np.clip(places + 0.5 * push.sum(axis=1), 0, [width, height])
    return places
