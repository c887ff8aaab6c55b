"""Which rows each step sees, and with which learning rate: arrays made before training starts.

The order follows from a key alone, so a run that goes on at step n needs nothing but n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import ArrayLike, InputError, check_count, check_option

SCHEDULES = ("linear", "cosine", "constant")


class Plan(NamedTuple):
    """The order of the data, on the host.

    Attributes
    ----------
    part : int32, shape (steps,)
        Which part of the rows (one width each) the step's rows are from.
    rows : int32, shape (steps, batch)
        Row numbers within that part.
    weights : float32, shape (steps, batch)
        1, or 0 where the last batch of an epoch had no more rows to fill it.
    epoch : int32, shape (steps,)
    """

    part: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    epoch: np.ndarray


def plan_batches(
    key: jax.Array,
    sizes: Sequence[int],
    *,
    batch_size: int,
    steps: int | None = None,
    epochs: int | None = None,
) -> Plan:
    """Return the order of the data: every row once an epoch, each epoch shuffled anew.

    Parameters
    ----------
    key : PRNG key
        Of the order.
    sizes : sequence of int
        Rows in each part; a batch is from one part.
    batch_size : int
        Rows a step.
    steps, epochs : int
        How far: one of the two.

    Raises
    ------
    InputError
        Where there are no rows, or not exactly one of `steps` and `epochs` is given.

    Examples
    --------
    >>> plan = plan_batches(jax.random.key(0), [5], batch_size=2, epochs=1)
    >>> plan.weights.tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]
    >>> sorted(plan.rows[plan.weights > 0].tolist())
    [0, 1, 2, 3, 4]
    """
    check_count("batch_size", batch_size)
    if (steps is None) == (epochs is None):
        raise InputError(f"steps, epochs: expected one of the two; got {steps} and {epochs}")
    sizes = [check_count("sizes", size, at_least=0) for size in sizes]
    if sum(sizes) == 0:
        raise InputError("sizes: expected at least one row; got none")
    per_epoch = sum(-(-size // batch_size) for size in sizes)
    total = check_count("steps", per_epoch * epochs if steps is None else steps)  # type: ignore[operator]
    found = [_epoch(key, number, sizes, batch_size) for number in range(-(-total // per_epoch))]
    return Plan(*(np.concatenate(entries)[:total] for entries in zip(*found, strict=True)))


def _epoch(key: jax.Array, number: int, sizes: Sequence[int], batch_size: int) -> Plan:
    """Return the batches of one epoch, those of all parts shuffled together."""
    key = jax.random.fold_in(key, number)
    parts = []
    for part, size in enumerate(sizes):
        count = -(-size // batch_size)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, part), size))
        rows = np.zeros(count * batch_size, np.int32)
        rows[:size] = order
        weights = (np.arange(count * batch_size) < size).astype(np.float32)
        shape = (count, batch_size)
        parts.append((np.full(count, part, np.int32), rows.reshape(shape), weights.reshape(shape)))
    part, rows, weights = (np.concatenate(entries) for entries in zip(*parts, strict=True))
    if len(sizes) > 1:
        shuffle = np.asarray(jax.random.permutation(jax.random.fold_in(key, len(sizes)), len(part)))
        part, rows, weights = part[shuffle], rows[shuffle], weights[shuffle]
    return Plan(part, rows, weights, np.full(len(part), number, np.int32))


def learning_rates(
    peak: ArrayLike, steps: int, *, schedule: str = "linear", warmup: int = 0
) -> jax.Array:
    """Return the learning rate of every step, float32, shape (steps,).

    It rises to `peak` over `warmup` steps, the first of them above 0, and then falls towards 0,
    which it would reach one step after the last, along a line or a half cosine, or stays.

    Parameters
    ----------
    peak : float
        May be traced: one per member of a population.
    steps, warmup : int
        `warmup` is 0 or less than `steps`.
    schedule : {"linear", "cosine", "constant"}

    Raises
    ------
    InputError
        For an unknown schedule, or a warm-up as long as the run.

    Examples
    --------
    >>> print(learning_rates(1.0, 6, warmup=2))
    [0.5  1.   1.   0.75 0.5  0.25]
    """
    check_count("steps", steps)
    check_count("warmup", warmup, at_least=0)
    check_option("schedule", schedule, SCHEDULES)
    check_warmup(warmup, steps)
    at = np.arange(steps)
    rise = (at + 1) / max(warmup, 1)
    gone = np.maximum(at - warmup, 0) / (steps - warmup)
    fall = {
        "linear": 1 - gone,
        "cosine": (1 + np.cos(np.pi * gone)) / 2,
        "constant": np.ones(steps),
    }[schedule]
    shape = np.where(at < warmup, rise, fall).astype(np.float32)
    return jnp.asarray(peak, jnp.float32) * shape


def check_warmup(warmup: int, steps: int) -> None:
    """Raise InputError where a rate that rises over `warmup` steps would not come to its peak.

    >>> check_warmup(3, 3)
    Traceback (most recent call last):
        ...
    jaxpref._checks.InputError: warmup: expected fewer than the 3 steps; got 3
    """
    if warmup and warmup >= steps:
        raise InputError(f"warmup: expected fewer than the {steps} steps; got {warmup}")
