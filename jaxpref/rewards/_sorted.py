"""Scores sorted within each prompt, and binary searches in all prompts at once.

Every comparison is of a difference s_a - s_b with a bound, as a loop over pairs would make it.
Rounded differences are monotone in either score, so a search finds exactly the pairs that the loop
would. All positions are into the flat sorted array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int64

from ..fit._host import float64, pad, pair_bucket
from ..links import Link
from .scores import Scores

_AT_ONCE = 1 << 18


class Sorted(NamedTuple):
    """Entries by prompt and, within each, by rising score.

    `order` are the entries' places in `Scores`; `first` and `last` bound an entry's prompt;
    `below` and `above` bound the run of entries with exactly its score.
    """

    score: Float64[np.ndarray, " entries"]
    order: Int64[np.ndarray, " entries"]
    owner: Int64[np.ndarray, " entries"]
    first: Int64[np.ndarray, " entries"]
    last: Int64[np.ndarray, " entries"]
    below: Int64[np.ndarray, " entries"]
    above: Int64[np.ndarray, " entries"]


def sort_scores(scores: Scores) -> Sorted:
    """Return the entries sorted within each prompt; entries of equal score keep their order."""
    sizes = scores.sizes
    owner = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((scores.score, owner))
    score = scores.score[order]
    heads = np.ones(len(score), bool)
    heads[1:] = (score[1:] != score[:-1]) | (owner[1:] != owner[:-1])
    run = np.cumsum(heads) - 1
    starts = np.append(np.flatnonzero(heads), len(score))
    return Sorted(
        score,
        order,
        owner,
        np.repeat(scores.start[:-1], sizes),
        np.repeat(scores.start[1:], sizes),
        starts[run],
        starts[run + 1],
    )


def first_true(
    low: Int64[np.ndarray, " rows"],
    high: Int64[np.ndarray, " rows"],
    test: Callable[[Int64[np.ndarray, " rows"]], Bool[np.ndarray, " rows"]],
) -> Int64[np.ndarray, " rows"]:
    """Return, row by row, the first position in [low, high) at which a test holds, or high.

    Once it holds it must hold for all later positions.

    >>> first_true(np.array([0, 0]), np.array([9, 3]), lambda x: x * x > 20).tolist()
    [5, 3]
    """
    low, high = low.copy(), high.copy()
    while (low < high).any():
        middle = (low + high) // 2
        # Rows that are done ask a position again that they have; the answer changes nothing.
        holds = test(np.minimum(middle, np.maximum(high - 1, 0)))
        going = low < high
        high = np.where(going & holds, middle, high)
        low = np.where(going & ~holds, middle + 1, low)
    return low


def at_distance(
    found: Sorted, bound: float, *, strict: bool = False
) -> Int64[np.ndarray, " entries"]:
    """Return for each entry k the first position whose score is at least `bound` above s_k."""
    score = found.score

    def far(place: Int64[np.ndarray, " entries"]) -> Bool[np.ndarray, " entries"]:
        gap = score[place] - score
        return gap > bound if strict else gap >= bound

    return first_true(found.first, found.last, far)


def whole_sum(counts: Int64[np.ndarray, " rows"]) -> int:
    """Return the sum of counts as a Python integer, however large.

    >>> whole_sum(np.array([2**62, 2**62, 2**62, 5]))
    13835058055282163717
    """
    return (int(np.sum(counts >> 32)) << 32) + int(np.sum(counts & 0xFFFFFFFF))


def log_densities(link: Link, margin: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Return log g'(m) on the host, in 64 bits.

    >>> from jaxpref.links import logistic
    >>> log_densities(logistic, np.array([0.0])).round(6).tolist()
    [-1.386294]
    """
    if link.name == "logistic":
        size = np.abs(margin)
        return -size - 2 * np.log1p(np.exp(-size))
    flat, parts = margin.reshape(-1), []
    with float64():
        for begin in range(0, len(flat), _AT_ONCE):
            part = flat[begin : begin + _AT_ONCE]
            padded = jnp.asarray(pad(part, pair_bucket(len(part))))
            parts.append(np.asarray(link.log_density(padded))[: len(part)])
    joined = np.concatenate(parts) if parts else np.zeros(0)
    return joined.reshape(margin.shape)


def margins_of(link: Link, probability: tuple[float, ...]) -> tuple[float, ...]:
    """Return g^-1(p) of a few probabilities, in 64 bits."""
    with float64():
        found = link.margin(jnp.asarray(probability, jnp.float64))
    return tuple(np.asarray(found).tolist())
