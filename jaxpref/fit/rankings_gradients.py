"""The gradient of every ranking's own log-likelihood, by scores and tie parameters."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from ..data.rankings import Rankings, group_starts
from ._host import float64
from .rankings_blocks import entries_in_chunks, in_chunks, plan
from .rankings_information import host_choices
from .rankings_likelihood import Block
from .rankings_problems import TiedProblem, log_normalisers
from .rankings_result import RankingFit
from .rankings_setup import prepare


class Gradients(NamedTuple):
    """Entries of the gradients at weight 1, to be added up: ranking, parameter, value."""

    owner: np.ndarray
    parameter: np.ndarray
    value: Float64[np.ndarray, " entries"]


def ranking_gradients(fit: RankingFit, data: Rankings) -> Gradients:
    """Return the gradients; parameters are the items, then the tie parameters.

    >>> fit_items = Rankings.from_lists([["x", "y"], ["y", "x"]])
    >>> from jaxpref.fit import fit_rankings
    >>> ranking_gradients(fit_rankings(fit_items), fit_items).value.tolist()
    [0.5, 0.5, -0.5, -0.5]
    """
    parts = _with_ties(fit, data) if fit.tie_orders else _by_hand(fit, data)
    return Gradients(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _by_hand(fit: RankingFit, data: Rankings) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return, place by place, the ranking, the item, and its gradient at weight 1."""
    item, _, start, listed = data.entries()
    found = []
    for layout in plan(np.diff(start)):
        flat = entries_in_chunks(item, start, layout)
        table = flat.transpose(1, 0, 2).reshape(layout.places, -1)
        length = in_chunks(np.diff(start)[layout.owner], layout).ravel()
        stages = in_chunks(listed[layout.owner], layout).ravel()
        chosen, others = host_choices(table, length, fit.scores)
        flow = np.zeros(length.size)
        for place in range(layout.places):
            weight = (place < stages).astype(float)
            gradient = weight * others[place] - chosen[place] * flow
            flow = others[place] * (weight + flow)
            here = np.flatnonzero(place < length)
            found.append((layout.owner[here], table[place][here], gradient[here]))
    return found


def _with_ties(fit: RankingFit, data: Rankings) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the expected part by autodiff, entry by entry, and the observed part by counting."""
    item, _, start, _ = data.entries()
    found = []
    with float64():
        problem = prepare(data, np.ones(data.num_rankings), tied=True).problem
        assert isinstance(problem, TiedProblem)
        scores, log_delta = jnp.asarray(fit.scores), jnp.asarray(fit.log_tie_parameters)
        slopes = [
            tuple(np.asarray(part) for part in _entry_slopes(block, opens, scores, log_delta,
                                                             problem.orders))
            for block, opens in zip(problem.blocks, problem.opens, strict=True)
        ]  # fmt: skip
    for layout, (by_entry, by_tie) in zip(plan(np.diff(start)), slopes, strict=True):
        flat = entries_in_chunks(item, start, layout)
        table = flat.transpose(1, 0, 2).reshape(layout.places, -1)
        length = in_chunks(np.diff(start)[layout.owner], layout).ravel()
        by_entry = by_entry.transpose(1, 0, 2).reshape(layout.places, -1)
        by_tie = by_tie.transpose(1, 0, 2).reshape(by_tie.shape[1], -1)
        for place in range(layout.places):
            here = np.flatnonzero(place < length)
            found.append((layout.owner[here], table[place][here], -by_entry[place][here]))
        some = np.arange(layout.owner.size)
        for order, slope in enumerate(by_tie):
            parameter = np.full(some.size, fit.num_items + order)
            found.append((layout.owner, parameter, -slope[some]))
    return found + _observed(fit, data)


@eqx.filter_jit
def _entry_slopes(
    block: Block, opens: Array, scores: Array, log_delta: Array, orders: tuple[int, ...]
) -> tuple[Array, Array]:
    """Return the derivatives of the normalisers by every entry's own score and tie parameter."""

    def chunk(part: tuple[Block, Array]) -> tuple[Array, Array]:
        rankings, starts = part
        own = scores[rankings.item]
        ties = jnp.broadcast_to(log_delta[:, None], (len(orders), own.shape[1]))
        both = jax.grad(log_normalisers, argnums=(2, 3))
        return both(rankings._replace(weight=jnp.ones_like(rankings.weight)), starts, own, ties,
                    orders)  # fmt: skip

    return jax.lax.map(chunk, (block, opens))


def _observed(fit: RankingFit, data: Rankings) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return what was chosen: a share of a group for each of its items, one for its size."""
    item, rank, start, listed = data.entries()
    owner = np.repeat(np.arange(data.num_rankings), np.diff(start))
    first = group_starts(rank, start)
    size = np.diff(first, append=item.size)
    counted = np.arange(item.size) - start[owner] < listed[owner]
    share = 1.0 / np.repeat(size, size)
    found = [(owner[counted], item[counted], share[counted])]
    for place, order in enumerate(fit.tie_orders):
        here = first[counted[first] & (size == order)]
        found.append((owner[here], np.full(here.size, fit.num_items + place), np.ones(here.size)))
    return found
