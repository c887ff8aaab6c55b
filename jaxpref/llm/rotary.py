"""Rotary position embeddings: the frequencies of each kind, and the rotation.

References
----------
Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021: the rotation.
Grattafiori et al., "The Llama 3 Herd of Models", 2024: the stretched frequencies of Llama 3.1,
here as the released configurations parametrise them.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._dtypes import at_least_float32
from .config import RopeConfig


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> np.ndarray:
    """Return the angle (radians) by which each pair of a head turns per token.

    Default: theta^(-2 i / head_dim). Linear: divided by `factor`. Llama 3: divided by `factor`
    where a turn takes longer than original_context / low_freq_factor tokens, unchanged where it
    takes less than original_context / high_freq_factor, blended in between.

    Parameters
    ----------
    rope : RopeConfig
        Kind, base and stretch.
    head_dim : int
        Width of a head, even.

    Returns
    -------
    numpy.ndarray, shape (head_dim / 2,), float64
        In (0, 1], falling; for the rotated share of a head only.

    Examples
    --------
    >>> inverse_frequencies(RopeConfig(theta=100.0), 4).round(3).tolist()
    [1.0, 0.1]
    """
    head_dim = int(head_dim * rope.share)
    frequencies = rope.theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if rope.kind == "default":
        return frequencies
    if rope.kind == "linear":
        return frequencies / rope.factor
    turns = frequencies * rope.original_max_position_embeddings / (2 * math.pi)
    span = rope.high_freq_factor - rope.low_freq_factor
    kept = np.clip((turns - rope.low_freq_factor) / span, 0.0, 1.0)
    return kept * frequencies + (1 - kept) * frequencies / rope.factor


def rotary_tables(
    rope: RopeConfig, head_dim: int, positions: Int[Array, "... T"], *, dtype: str = "float32"
) -> tuple[Float[Array, "... T half"], Float[Array, "... T half"]]:
    """Return the cosines and sines of each position's angles, at least in float32.

    Parameters
    ----------
    rope : RopeConfig
        Kind, base and stretch.
    head_dim : int
        Width of a head, even.
    positions : integer array, shape (..., T)
        Place of each token, from 0.
    dtype : str
        float64 for float64, else float32: an angle of 8,000 radians has no digits in bfloat16.

    Returns
    -------
    cosines, sines : array, shape (..., T, head_dim / 2)
        In [-1, 1].

    Examples
    --------
    >>> cosines, sines = rotary_tables(RopeConfig(), 4, jnp.arange(2))
    >>> cosines.shape
    (2, 2)
    """
    exact = at_least_float32(dtype)
    frequencies = jnp.asarray(inverse_frequencies(rope, head_dim), dtype=exact)
    angles = positions[..., None].astype(exact) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    heads: Float[Array, "... T N H"],
    cosines: Float[Array, "... T half"],
    sines: Float[Array, "... T half"],
) -> Float[Array, "... T N H"]:
    """Return each head turned by its token's angles, pairing i with i + half.

    Where the tables are for a part of a head, its first 2 half entries, the rest stays.

    Parameters
    ----------
    heads : array, shape (..., T, heads, head_dim)
        Queries or keys.
    cosines, sines : array, shape (..., T, half)
        From ``rotary_tables``.

    Returns
    -------
    array, as `heads`
        Of the same length, head by head.

    Examples
    --------
    >>> tables = rotary_tables(RopeConfig(), 4, jnp.arange(1))
    >>> rotate(jnp.ones((1, 1, 4), "float32"), *tables).tolist()
    [[[1.0, 1.0, 1.0, 1.0]]]
    """
    rest = heads[..., 2 * cosines.shape[-1] :]
    turning = heads[..., : 2 * cosines.shape[-1]].astype(cosines.dtype)
    first, second = jnp.split(turning, 2, axis=-1)
    cosines, sines = cosines[..., None, :], sines[..., None, :]
    turned = (first * cosines - second * sines, second * cosines + first * sines)
    whole = jnp.concatenate(turned, axis=-1).astype(heads.dtype)
    return jnp.concatenate((whole, rest), axis=-1) if rest.shape[-1] else whole
