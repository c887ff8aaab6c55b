"""Attention of grouped heads under a mask, in a form that is fast both ways on a processor.

One formula for every device and type, differentiable forwards and backwards; cuDNN's fused kernel
by name, where a GPU has it.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import check_option
from ._dtypes import at_least_float32

ATTENTIONS = ("direct", "blocked", "xla", "cudnn")
BLOCK = 64
"""Queries of a block: the scores of a row's heads stay in a core's cache."""


def attend(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    mask: Bool[Array, "#B T S"],
    *,
    implementation: str = "direct",
) -> Float[Array, "B T N H"]:
    """Return softmax(q k^T / sqrt(H)) v, head by head, over the keys that the mask allows.

    Parameters
    ----------
    queries : array, shape (B, T, N, H)
        N query heads.
    keys, values : array, shape (B, S, K, H)
        K heads, a divisor of N: each serves N / K query heads.
    mask : bool array, shape (B or 1, T, S)
        True where a query may attend to a key.
    implementation : {"direct", "blocked", "xla", "cudnn"}
        "direct" and "blocked" are computed here; the others are those of
        ``jax.nn.dot_product_attention``. "blocked" takes row after row and a few queries at a time,
        and of the keys only those up to them: for masks that show no later one, as those of
        decoders and of shared rows. Forwards it was 8 times as fast on one core at a length of 512.
        "cudnn" needs a GPU and bfloat16 or float16, and has no forward-mode derivative.

    Returns
    -------
    array, shape (B, T, N, H)
        Of the queries' type; scores and softmax are at least float32. A query that may attend to
        nothing gets the mean of all values: finite, and so are its derivatives.

    Examples
    --------
    >>> ones = jnp.ones((1, 2, 1, 4), "float32")
    >>> attend(ones, ones, ones, jnp.tri(2, dtype=bool)[None])[0, :, 0, 0].tolist()
    [1.0, 1.0]
    """
    check_option("implementation", implementation, ATTENTIONS)
    if implementation == "direct":
        return _direct(queries, keys, values, mask)
    if implementation == "blocked":
        return _blocked(queries, keys, values, mask)
    kernel = "cudnn" if implementation == "cudnn" else "xla"
    return jax.nn.dot_product_attention(
        queries, keys, values, mask=mask[:, None], implementation=kernel
    )


def best_attention(dtype: Any, head_dim: int, platform: str | None = None) -> str:
    """Return the fastest implementation of training on a platform, this machine's by default.

    "cudnn" where it can: its kernel takes 16-bit types and heads of a multiple of 8, up to 128.

    >>> best_attention("float32", 64)
    'direct'
    """
    narrow = jnp.dtype(dtype).itemsize == 2
    fits = head_dim % 8 == 0 and head_dim <= 128
    on_gpu = (platform or jax.default_backend()) == "gpu"
    return "cudnn" if on_gpu and narrow and fits else "direct"


def _direct(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    mask: Bool[Array, "#B T S"],
) -> Float[Array, "B T N H"]:
    batch, length, heads, width = queries.shape
    groups = keys.shape[2]
    exact = at_least_float32(queries.dtype)
    grouped = queries.reshape(batch, length, groups, heads // groups, width)
    grouped = grouped * jnp.asarray(1 / math.sqrt(width), queries.dtype)
    scores = jnp.einsum("btkgh,bskh->bkgts", grouped, keys, preferred_element_type=exact)
    weights = masked_softmax(scores, mask[:, None, None]).astype(values.dtype)
    mixed = jnp.einsum("bkgts,bskh->btkgh", weights, values)
    return mixed.reshape(batch, length, heads, width)


def _blocked(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    mask: Bool[Array, "#B T T"],
) -> Float[Array, "B T N H"]:
    batch, length, heads, width = queries.shape
    groups = keys.shape[2]
    queries = queries * jnp.asarray(1 / math.sqrt(width), queries.dtype)
    grouped = queries.reshape(batch, length, groups, heads // groups, width)
    # Heads first and each head's rows together: products of plain matrices.
    grouped, turned = grouped.transpose(0, 2, 3, 1, 4), keys.transpose(0, 2, 3, 1)
    stacked = values.transpose(0, 2, 1, 3)
    masks = jnp.broadcast_to(mask, (batch, length, length))

    def row(parts: tuple[Array, Array, Array, Array]) -> Array:
        blocks = (
            _one_block(parts, start, min(start + BLOCK, length))
            for start in range(0, length, BLOCK)
        )
        return jnp.concatenate(list(blocks), axis=2)

    mixed = jax.lax.map(row, (grouped, turned, stacked, masks))
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, width)


def _one_block(parts: tuple[Array, Array, Array, Array], start: int, end: int) -> Array:
    """Return what the queries of one row from `start` to `end` gather from the keys up to it."""
    queries, keys, values, mask = parts
    exact = at_least_float32(queries.dtype)
    groups, share, _, width = queries.shape
    flat = queries[:, :, start:end].reshape(groups, -1, width)
    scores = jnp.matmul(flat, keys[:, :, :end], preferred_element_type=exact)
    scores = scores.reshape(groups, share, end - start, end)
    weights = masked_softmax(scores, mask[None, None, start:end, :end]).astype(values.dtype)
    mixed = jnp.matmul(weights.reshape(groups, -1, end), values[:, :end])
    return mixed.reshape(groups, share, end - start, width)


@jax.custom_jvp
def masked_softmax(
    scores: Float[Array, "*batch T S"], mask: Bool[Array, "*#batch T S"]
) -> Float[Array, "*batch T S"]:
    """Return the softmax over the last axis of the scores that the mask allows.

    Where it allows none, the finite stand-in for minus infinity is the same everywhere and the
    result is uniform. The derivative, p (ds - sum p ds), is written out because it needs the
    result alone: neither the scores nor the exponentials are kept for the backward pass.

    Examples
    --------
    >>> masked_softmax(jnp.zeros((1, 2)), jnp.array([[True, False]])).tolist()
    [[1.0, 0.0]]
    >>> masked_softmax(jnp.zeros((1, 2)), jnp.array([[False, False]])).tolist()
    [[0.5, 0.5]]
    """
    shut = jnp.asarray(0.7 * jnp.finfo(scores.dtype).min, scores.dtype)
    scores = jnp.where(mask, scores, shut)
    powers = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    return powers / jnp.sum(powers, axis=-1, keepdims=True)


@masked_softmax.defjvp
def _masked_softmax_jvp(primals, tangents):
    scores, mask = primals
    weights = masked_softmax(scores, mask)
    # A masked score does not count, also in a row where nothing does.
    change = jnp.where(mask, tangents[0], jnp.zeros_like(scores))
    mean = jnp.sum(weights * change, axis=-1, keepdims=True)
    return weights, weights * (change - mean)
