r"""Areas by counting points: a randomly shifted lattice, and plain Monte Carlo.

Both count how many points of the unit square of (p_ik, p_kj) lie in the region, for a whole
vector of thresholds in one pass, in chunks: memory does not grow with the number of points. The
lattice's points are k (1/n, a) mod 1 for a golden-ratio a, moved by a random shift; several
independent shifts give the standard error. Its error falls about as n^(-3/4) where Monte Carlo's
falls as n^(-1/2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from ..links import Link
from ..links.closed_form import Logistic
from ..regions import combined_log_sensitivity

Progress = Callable[[int, int], None]

_BATCH = 1 << 14  # points evaluated at once, fewer for a small job: they stay in the cache
_BATCHES_CPU = 1 << 8  # batches in one compiled call: 4.2 million points, one after the other
_BATCHES_GPU = 1 << 14  # 268 million points, all in one reduction
_GOLDEN = 0.6180339887498949


class Counted(NamedTuple):
    """How a count of points came out: the mean over shifts (or samples) and its standard error."""

    area: np.ndarray
    error: np.ndarray
    points: int


def lattice_area(
    link: Link,
    thresholds: Float[Array, " m"],
    wrt: str,
    *,
    points: int,
    shifts: int,
    key: Array,
    progress: Progress | None = None,
) -> Counted:
    """Return areas by `shifts` random shifts of one rank-1 lattice, `points` points in all.

    Parameters
    ----------
    link : Link
        Any link, symmetric or not.
    thresholds : array, shape (m,)
        M > 0.
    wrt : str
        "ik", "kj", "union", "intersection", "l1" or "l2".
    points, shifts : int
        Points in all, over at least two shifts.
    key : jax.random.key
        Source of the shifts.
    progress : callable, optional
        Called with (points done, points in all).

    Returns
    -------
    Counted
        The standard error is that of the mean over shifts, with shifts - 1 degrees of freedom.
    """
    size = -(-points // shifts)
    offsets = np.asarray(jax.random.bits(key, (shifts, 2), "uint32"))
    batches = _BATCHES_CPU if jax.default_backend() == "cpu" else _BATCHES_GPU
    batch = batch_size(size)
    whole = batch * batches
    lanes = _Lattice.lanes_of(size, batch)
    tasks = [(shift, start) for shift in range(shifts) for start in range(0, size, whole)]

    def count(task: tuple[int, int]) -> tuple[int, int, np.ndarray]:
        shift, start = task
        lattice = _Lattice.at(start, size, offsets[shift], lanes, batches)
        live = min(whole, size - start)
        hits = _count_block(link, thresholds, wrt, lattice, jnp.int32(live))
        return shift, live, np.asarray(hits, np.float64)

    totals, done = np.zeros((shifts, thresholds.shape[0])), 0
    for shift, live, hits in _in_parallel(count, tasks):
        totals[shift] += hits
        done += live
        if progress is not None:
            progress(done, shifts * size)
    means = totals / size
    spread = means.std(axis=0, ddof=1) / np.sqrt(shifts)
    # A count that no shift resolves is still uncertain by about one point.
    return Counted(means.mean(axis=0), np.maximum(spread, 0.5 / (size * shifts)), size * shifts)


def batch_size(points: int) -> int:
    """Return the points to evaluate at once: a power of two, no more than the job needs."""
    return min(_BATCH, 1 << max(0, points - 1).bit_length())


def _in_parallel(function: Callable[[Any], Any], tasks: list[Any]) -> Iterator[Any]:
    """Yield the results in order: on a CPU from one thread a core, a few tasks ahead."""
    workers = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
    if workers == 1 or len(tasks) == 1:
        yield from map(function, tasks)
        return
    yield function(tasks[0])  # compiles once, before the threads start
    with ThreadPoolExecutor(workers) as pool:
        for first in range(1, len(tasks), 4 * workers):
            yield from pool.map(function, tasks[first : first + 4 * workers])


class _Lattice(NamedTuple):
    """A block of a lattice in 32-bit fractions, one row a coordinate.

    A point is the sum, modulo 1, of its batch's first point and its lane's offset: one addition a
    coordinate, and no drift, since both are rounded from 64-bit fractions.
    """

    batches: UInt[Array, "2 batches"]
    lanes: UInt[Array, "2 lanes"]

    @staticmethod
    def lanes_of(size: int, batch: int) -> UInt[Array, "2 lanes"]:
        with np.errstate(over="ignore"):  # modulo 2^64 is what is wanted
            return _leading_word(np.arange(batch, dtype=np.uint64) * _steps(size))

    @staticmethod
    def at(
        start: int, size: int, offset: np.ndarray, lanes: UInt[Array, "2 lanes"], batches: int
    ) -> _Lattice:
        order = np.arange(batches, dtype=np.uint64) * np.uint64(lanes.shape[1])
        with np.errstate(over="ignore"):
            first = (offset.astype(np.uint64) << np.uint64(32))[:, None]
            firsts = first + (np.uint64(start) + order) * _steps(size)
        return _Lattice(_leading_word(firsts), lanes)


def _steps(size: int) -> np.ndarray:
    """Return 1/n and the golden ratio as 64-bit fractions, a row a coordinate."""
    return np.array([2**64 // size, int(_GOLDEN * 2**64)], np.uint64)[:, None]


def _leading_word(fractions: np.ndarray) -> Array:
    return jnp.asarray((fractions >> np.uint64(32)).astype(np.uint32))


def _unit_pair(
    word: UInt[Array, " n"], dtype: Any
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Return p and 1 - p for a 32-bit fraction: both exact, neither 0 nor 1.

    In float32 the fraction's 23 leading bits become the mantissa of a number from 1 to 2.
    """
    if dtype == jnp.float32:
        mantissa = (word >> np.uint32(9)) | np.uint32(0x3F800000)
        p = jax.lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1 - 2.0**-24)
    else:
        p = (word.astype(dtype) + 0.5) * 2.0**-32
    return p, 1 - p


def _membership(link: Link, wrt: str, thresholds: Float[Array, " m"]) -> Callable[..., Any]:
    """Return the test of points, given as pairs (p, 1 - p) and (q, 1 - q), for all thresholds."""
    if type(link) is Logistic:
        return lambda p, q: _logistic_membership(p, q, wrt, thresholds[:, None])
    levels = jnp.log(thresholds)[:, None]

    def inside(p: Any, q: Any) -> Bool[Array, "m n"]:
        x, y = link.margin(*p), link.margin(*q)
        return _margins_inside(link, x, y, wrt, levels)

    return inside


def _margins_inside(
    link: Link, x: Float[Array, " n"], y: Float[Array, " n"], wrt: str, levels: Float[Array, "m 1"]
) -> Bool[Array, "m n"]:
    ik, kj = link.log_density_ratio(x, y), link.log_density_ratio(y, x)
    return combined_log_sensitivity(ik, kj, wrt) > levels


def _logistic_membership(
    p: Any, q: Any, wrt: str, level: Float[Array, "m 1"]
) -> Bool[Array, "m n"]:
    """Compare Eq. 4 with M without a division: q (1 - q) > M (p q + (1 - p)(1 - q))^2.

    Seven operations a point and threshold, no transcendental function. The denominator is a sum
    of products of positive numbers: the form Eq. 4 prints, p + q - 2 p q - 1, cancels.
    """
    denominator = p[0] * q[0] + p[1] * q[1]
    squared = denominator * denominator
    kj, ik = p[0] * p[1], q[0] * q[1]
    if wrt == "l2":
        return ik * ik + kj * kj > jnp.square(level * squared)
    numerator = {
        "ik": lambda: ik,
        "kj": lambda: kj,
        "union": lambda: jnp.maximum(ik, kj),
        "intersection": lambda: jnp.minimum(ik, kj),
        "l1": lambda: ik + kj,
    }[wrt]()
    return numerator > level * squared


@eqx.filter_jit
def _count_block(
    link: Link,
    thresholds: Float[Array, " m"],
    wrt: str,
    lattice: _Lattice,
    count: Int[Array, ""],
) -> Int[Array, " m"]:
    """Count the hits among the first `count` points of a block.

    Batch by batch where the block is small enough to stay in a cache, all at once (one fused
    reduction, nothing stored) where it is meant for a GPU.
    """
    inside = _membership(link, wrt, thresholds)
    lanes = lattice.lanes.shape[1]
    order = jnp.arange(lanes, dtype=jnp.int32)

    def batch(b: Any) -> Int[Array, " m"]:
        # One row at a time and a sum of floats (exact: a batch is far below 2^24) are what
        # XLA vectorises: ten times the points of adding both rows at once.
        words = [lattice.batches[axis, b] + lattice.lanes[axis] for axis in (0, 1)]
        hits = inside(*[_unit_pair(word, thresholds.dtype) for word in words])
        live = order < count - b * lanes
        ones = jnp.where(hits & live, jnp.float32(1), jnp.float32(0))
        return jnp.sum(ones, axis=-1).astype(jnp.int32)

    size = lattice.batches.shape[1]
    if size > _BATCHES_CPU:
        return jnp.sum(jax.vmap(batch)(jnp.arange(size, dtype=jnp.int32)), axis=0, dtype=jnp.int32)
    zero = jnp.zeros(thresholds.shape, jnp.int32)
    used = (count + lanes - 1) // lanes
    return jax.lax.fori_loop(0, used, lambda b, counts: counts + batch(b), zero)


def monte_carlo_area(
    link: Link,
    thresholds: Float[Array, " m"],
    wrt: str,
    *,
    points: int,
    key: Array,
    progress: Progress | None = None,
) -> Counted:
    """Return areas by independent points: margins drawn from the link itself.

    Parameters
    ----------
    link, thresholds, wrt, progress
        As for :func:`lattice_area`.
    points : int
        Number of independent points.
    key : jax.random.key
        Source of the points.

    Returns
    -------
    Counted
        The standard error is sqrt(A (1 - A) / n) with A shrunk by one point away from 0 and 1.
    """

    def block(key: Array, count: Int[Array, ""]) -> Int[Array, " m"]:
        return _count_draws(link, thresholds, wrt, key, count, batch_size(points))

    return count_random(block, thresholds.shape[0], points, key, progress)


def count_random(
    block: Callable[[Array, Int[Array, ""]], Int[Array, " m"]],
    size: int,
    points: int,
    key: Array,
    progress: Progress | None,
) -> Counted:
    """Add up the hits of blocks of random points; one standard error of the share."""
    total = np.zeros(size)
    whole = batch_size(points) * _BATCHES_CPU
    for index, start in enumerate(range(0, points, whole)):
        count = min(whole, points - start)
        total += np.asarray(block(jax.random.fold_in(key, index), jnp.int32(count)), np.float64)
        if progress is not None:
            progress(start + count, points)
    share, padded = total / points, (total + 1) / (points + 2)
    return Counted(share, np.sqrt(padded * (1 - padded) / points), points)


@eqx.filter_jit
def _count_draws(
    link: Link,
    thresholds: Float[Array, " m"],
    wrt: str,
    key: Array,
    count: Int[Array, ""],
    batch: int,
) -> Int[Array, " m"]:
    levels = jnp.log(thresholds)[:, None]

    def inside(key: Array) -> Bool[Array, "m n"]:
        first, second = jax.random.split(key)
        x = link.sample(first, (batch,), thresholds.dtype)
        y = link.sample(second, (batch,), thresholds.dtype)
        return _margins_inside(link, x, y, wrt, levels)

    return count_batches(inside, thresholds.shape, key, count, batch)


def count_batches(
    inside: Callable[[Array], Bool[Array, "m n"]],
    shape: tuple[int, ...],
    key: Array,
    count: Int[Array, ""],
    batch: int,
) -> Int[Array, " m"]:
    """Count the hits among `count` random points, a batch with its own key at a time."""
    order = jnp.arange(batch, dtype=jnp.int32)

    def add(b: Any, counts: Int[Array, " m"]) -> Int[Array, " m"]:
        live = order < count - b * batch
        return counts + jnp.sum(inside(jax.random.fold_in(key, b)) & live, -1, dtype=jnp.int32)

    batches = (count + batch - 1) // batch
    return jax.lax.fori_loop(0, batches, add, jnp.zeros(shape, jnp.int32))
