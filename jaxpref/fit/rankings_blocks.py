"""Rankings laid out for the solver: padded blocks that fit a cache, of sizes that repeat."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from .rankings_likelihood import CHUNK, Block


class Layout(NamedTuple):
    """Where a block's rankings come from: their numbers, and its padded sizes."""

    owner: np.ndarray
    places: int
    chunks: int
    width: int


def plan(lengths: np.ndarray) -> list[Layout]:
    """Group rankings into blocks, longest first.

    A block holds lengths within a factor of two, so that padding at most doubles the work, and its
    sizes are rounded up so that a second data set reuses the compiled program.
    """
    order = np.argsort(-lengths, kind="stable")
    layouts = []
    while order.size:
        places = round_up(max(int(lengths[order[0]]), 2))
        split = int(np.searchsorted(-lengths[order], -(places // 2), side="left"))
        taken, order = order[:split], order[split:]
        width = min(CHUNK, max(64, round_up(taken.size)))
        chunks = round_up(-(-taken.size // width), fine=True)
        layouts.append(Layout(taken, places, chunks, width))
    return layouts


def make_block(
    item: np.ndarray, start: np.ndarray, listed: np.ndarray, weight: np.ndarray, layout: Layout
) -> Block:
    """Return the rankings of a layout as a padded block; call it in 64-bit mode."""
    lengths = np.diff(start)[layout.owner].astype(np.int32)
    return Block(
        jnp.asarray(entries_in_chunks(item, start, layout)),
        jnp.asarray(in_chunks(lengths, layout)),
        jnp.asarray(in_chunks(listed[layout.owner].astype(np.int32), layout)),
        jnp.asarray(in_chunks(weight[layout.owner].astype(np.float64), layout)),
    )


def entries_in_chunks(values: np.ndarray, start: np.ndarray, layout: Layout) -> np.ndarray:
    """Lay out one value per entry as (chunks, places, rankings), 0 where there is no entry."""
    owner, places, chunks, width = layout
    lengths = np.diff(start)[owner]
    table = np.zeros((chunks * width, places), values.dtype)
    if owner.size == start.size - 1 and (lengths == lengths[0]).all():
        table[: owner.size, : lengths[0]] = values.reshape(-1, lengths[0])
    else:
        inside = np.arange(places) < lengths[:, None]
        table[: owner.size][inside] = values[(start[owner][:, None] + np.arange(places))[inside]]
    return np.ascontiguousarray(table.reshape(chunks, width, places).transpose(0, 2, 1))


def in_chunks(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Lay out one value per ranking as (chunks, rankings), 0 where there is no ranking."""
    padded = np.zeros(layout.chunks * layout.width, values.dtype)
    padded[: values.size] = values
    return padded.reshape(layout.chunks, layout.width)


def round_up(size: int, *, fine: bool = False) -> int:
    """Return a size rounded up to 4 to 7 (8 to 15 with `fine`) times a power of two.

    >>> [round_up(n) for n in (2, 7, 9, 10, 33)], round_up(98, fine=True)
    ([2, 7, 10, 10, 40], 104)
    """
    steps = 16 if fine else 8
    if size < steps:
        return max(size, 1)
    unit = 2 ** ((size - 1).bit_length() - (4 if fine else 3))
    return -(-size // unit) * unit
