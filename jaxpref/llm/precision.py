"""In which precision a model trains, and how bfloat16 weights can move at all.

bfloat16 has eight bits: of weights of standard deviation 0.02, an update of 5e-6 rounded to the
nearest moves 7.8%, those within 0.002 of 0. Either the weights are kept in float32 and only the
passes are bfloat16, or an update is rounded up or down at random, so that it arrives on average.

References
----------
Gupta, Agrawal, Gopalakrishnan, Narayanan, "Deep Learning with Limited Numerical Precision", ICML
2015: stochastic rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._checks import InputError, check_option

PRECISIONS = ("float32", "bfloat16", "bfloat16-stochastic")
LAYERED_FROM = 1 << 24
"""Elements of a stacked leaf from which on it is updated layer by layer, in place."""


class Precision(NamedTuple):
    """What a name of a precision stands for.

    Attributes
    ----------
    compute_dtype : str or None
        Type of the forward and backward passes, where it is not that of the weights.
    stochastic : bool
        Whether the weights themselves are bfloat16, and updates rounded at random.
    """

    compute_dtype: str | None
    stochastic: bool


def precision_of(name: str) -> Precision:
    """Return what a name in :data:`PRECISIONS` stands for.

    Raises
    ------
    InputError
        If it is none of them.

    Examples
    --------
    >>> precision_of("bfloat16")
    Precision(compute_dtype='bfloat16', stochastic=False)
    """
    check_option("precision", name, PRECISIONS)
    return Precision(None if name == "float32" else "bfloat16", name == "bfloat16-stochastic")


def stochastic_round(x: Array, key: PRNGKeyArray) -> Array:
    """Return `x` in bfloat16, rounded to one of its two neighbours so that the mean is `x`.

    Parameters
    ----------
    x : float32 array
    key : PRNG key

    Returns
    -------
    bfloat16 array
        What bfloat16 holds exactly is returned as it is; NaN and infinity stay what they are.

    Raises
    ------
    InputError
        If `x` is not float32.

    Examples
    --------
    >>> x = jnp.full(10_000, 1 + 1 / 1024, "float32")  # an eighth of the way to the next, 1 + 2^-7
    >>> print(stochastic_round(x, jax.random.key(0)).astype("float32").mean().round(3))
    1.001
    """
    if x.dtype != jnp.float32:
        raise InputError(f"x: expected float32; got {x.dtype}")
    noise = jax.random.bits(key, x.shape, "uint16").astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
    rounded = jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)
    return jnp.where(jnp.isfinite(x), rounded, x.astype(jnp.bfloat16))


def apply_stochastically(
    params: PyTree, direction: PyTree, learning_rate: Array, key: PRNGKeyArray
) -> PyTree:
    """Return ``params - learning_rate * direction``, rounded at random to bfloat16.

    The difference is taken in float32, of stacked leaves of many millions a layer at a time.

    Parameters
    ----------
    params : tree of bfloat16 arrays
    direction : tree of arrays
        In the same structure and shapes.
    learning_rate : scalar
    key : PRNG key

    Examples
    --------
    >>> params = {"w": jnp.ones(1000, "bfloat16")}
    >>> moved = apply_stochastically(params, params, jnp.float32(1e-3), jax.random.key(0))
    >>> print(f"{moved['w'].astype('float32').mean():.3f}")
    0.999
    """
    leaves, structure = jax.tree.flatten(params)
    ways = structure.flatten_up_to(direction)
    keys = jax.random.split(key, len(leaves))
    rate = learning_rate.astype(jnp.float32)

    def move(whole: tuple[Array, Array], key: PRNGKeyArray) -> tuple[Array, Array]:
        leaf, way = whole
        exact = leaf.astype(jnp.float32) - rate * way.astype(jnp.float32)
        return stochastic_round(exact, key), way

    moved = [
        by_layers(move, whole, one)[0] if _stacked(whole[0]) else move(whole, one)[0]
        for whole, one in zip(zip(leaves, ways, strict=True), keys, strict=True)
    ]
    return structure.unflatten(moved)


def _stacked(leaf: Array) -> bool:
    return leaf.ndim >= 3 and leaf.size > LAYERED_FROM


def by_layers(update: Callable[[Any, PRNGKeyArray], Any], whole: Any, key: PRNGKeyArray) -> Any:
    """Update stacked arrays one layer after the other, in the buffers that hold them.

    Parameters
    ----------
    update : callable
        ``update(part, key)`` returns the new part, of the same structure, shapes and types.
    whole : tree of arrays
        The layers on axis 0.
    key : PRNG key
        Each layer gets its own.

    Examples
    --------
    >>> print(by_layers(lambda part, key: part + 1, jnp.zeros((2, 3)), jax.random.key(0)))
    [[1. 1. 1.]
     [1. 1. 1.]]
    """

    def layer(at: Array, whole: Any) -> Any:
        part = jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, at, keepdims=False), whole
        )
        return jax.tree.map(
            lambda leaf, value: jax.lax.dynamic_update_index_in_dim(leaf, value, at, 0),
            whole,
            update(part, jax.random.fold_in(key, at)),
        )

    return jax.lax.fori_loop(0, len(jax.tree.leaves(whole)[0]), layer, whole)
