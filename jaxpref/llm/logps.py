"""Log-probabilities of completions under a model: what every preference loss is made of.

Only the positions that predict a completion's token are projected to the vocabulary. Logits, their
log-sum and the sums over tokens are float32 where the model computes in less (float64 stays).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxpref._checks import check_count

from .decoder import hidden_states, vocabulary_logits
from .rows import FIRST_COMPLETION, PROMPT, Rows, row_mask


def completion_logps(
    graphdef: nnx.GraphDef,
    params: Any,
    rows: Rows,
    *,
    completions: int = 2,
    width: int | None = None,
    chunk: int | None = None,
    sliding_window: int | None = None,
    attention: str = "direct",
    remat: str = "none",
) -> Float[Array, "R completions"]:
    """Return log P(completion | prompt) of every completion of every row.

    The sum over a completion's tokens, its end-of-sequence token included, of the log-probability
    of each given those before it; the first is predicted from the prompt's last position.

    Parameters
    ----------
    graphdef, params : nnx.GraphDef, pytree
        The model, as :class:`jaxpref.llm.LanguageModel` holds it.
    rows : Rows, shape (R, T)
        Shared rows (K completions each) or plain ones (one each).
    completions : int
        K, at least 1; completions beyond it are ignored.
    width : int, optional
        Most completion tokens of a row (:func:`jaxpref.llm.rows.completion_width`): the static
        size of the logits. T when left out, which is always enough and wastes the prompts' part.
    chunk : int, optional
        Positions projected to the vocabulary at once; the logits of a chunk are computed again in
        the backward pass instead of kept. All at once, and kept, when left out.
    sliding_window : int, optional
        Attention window in tokens; that of the model's config when left out.
    attention, remat : str
        As in :func:`jaxpref.llm.hidden_states`.

    Returns
    -------
    array, shape (R, completions)
        Nats, <= 0, in float32 (float64 where the model computes in it); 0 for a completion that a
        row does not have.

    Raises
    ------
    InputError
        If `width` or `chunk` is below 1, or `attention` or `remat` unknown.

    Notes
    -----
    A row with more than `width` completion tokens gives NaN: its sums would lack tokens. Works
    under jit, grad, jvp and vmap over `params`. The reference of DPO is to be scored with the same
    `width`, `chunk`, dtype and rows at a time as the policy: other orders of summation differ in
    the last digits, and a margin that should be 0 would not be.

    Examples
    --------
    A model without weights, to which each of 5 tokens is equally probable:

    >>> import numpy as np
    >>> from jaxpref.llm import decoder_config
    >>> from jaxpref.llm.decoder import abstract_model
    >>> from jaxpref.llm.rows import Tokens, pack_rows
    >>> graphdef, shapes = abstract_model(decoder_config({"model_type": "llama", "vocab_size": 5,
    ...     "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
    ...     "num_attention_heads": 1}), "float32")
    >>> blind = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    >>> rows = pack_rows([Tokens((1,), ((3, 2), (4, 3, 2)))], max_length=8, width=8).rows
    >>> run = jax.jit(completion_logps, static_argnums=0)
    >>> print((np.asarray(run(graphdef, blind, rows)) / np.log(5)).round(4))
    [[-2. -3.]]
    """
    logps, segment, whole = token_logps(
        graphdef,
        params,
        rows,
        width=width,
        chunk=chunk,
        sliding_window=sliding_window,
        attention=attention,
        remat=remat,
    )
    which = jnp.arange(FIRST_COMPLETION, FIRST_COMPLETION + completions, dtype=segment.dtype)
    own = segment[:, :, None] == which
    sums = jnp.sum(jnp.where(own, logps[:, :, None], 0.0), axis=1)
    return jnp.where(whole[:, None], sums, jnp.nan)


def token_logps(
    graphdef: nnx.GraphDef,
    params: Any,
    rows: Rows,
    *,
    width: int | None = None,
    chunk: int | None = None,
    sliding_window: int | None = None,
    attention: str = "direct",
    remat: str = "none",
) -> tuple[Float[Array, "R W"], Int[Array, "R W"], Bool[Array, " R"]]:
    """Return the log-probability of each completion token, its segment, and whether all fit.

    Parameters, errors and notes as :func:`completion_logps`.

    Returns
    -------
    array, shape (R, W)
        Nats, <= 0, of the first W = min(width, T) completion tokens, in the order of the row. What
        stands where a row has fewer means nothing.
    array of int32, shape (R, W)
        Segment of each: 2 and up, best first, as in :class:`jaxpref.llm.rows.Rows`; 0 where a row
        has no more.
    array of bool, shape (R,)
        Whether all completion tokens of the row are among them.
    """
    tokens, positions, segments = (jnp.asarray(field) for field in rows)
    width = rows.width if width is None else min(check_count("width", width), rows.width)
    place, segment = _completion_places(segments, width)
    source = _predictors(segments, place)
    if sliding_window is None:
        sliding_window = nnx.merge(graphdef, params).config.sliding_window
    mask = row_mask(segments, positions, sliding_window)
    hidden = hidden_states(
        graphdef,
        params,
        tokens,
        positions=positions,
        mask=mask,
        attention=attention,
        remat=remat,
    )
    target = jnp.take_along_axis(tokens, place, axis=1)
    logps = _project(graphdef, params, _select(hidden, source), target, chunk)
    whole = jnp.sum(segments >= FIRST_COMPLETION, axis=1) <= width
    return logps, segment, whole


def _completion_places(
    segments: Int[Array, "R T"], width: int
) -> tuple[Int[Array, "R W"], Int[Array, "R W"]]:
    """Return the index of each row's completion tokens, in order, and their segments (0: none)."""
    length = segments.shape[1]
    index = jnp.arange(length, dtype=jnp.int32)
    order = jnp.sort(jnp.where(segments >= FIRST_COMPLETION, index, length), axis=1)[:, :width]
    used = order < length
    place = jnp.where(used, order, 0)
    return place, jnp.where(used, jnp.take_along_axis(segments, place, axis=1), 0)


def _predictors(segments: Int[Array, "R T"], place: Int[Array, "R W"]) -> Int[Array, "R W"]:
    """Return where each token is predicted from: the one before it, or the prompt's last."""
    last = jnp.sum(segments == PROMPT, axis=1, keepdims=True, dtype=jnp.int32) - 1
    before = jnp.maximum(place - 1, 0)
    here = jnp.take_along_axis(segments, place, axis=1)
    same = jnp.take_along_axis(segments, before, axis=1) == here
    return jnp.where(same, before, last)


def _select(hidden: Float[Array, "R T D"], index: Int[Array, "R W"]) -> Float[Array, "R W D"]:
    """Return hidden[r, index[r, w]], as a product with one-hot rows.

    Its transpose is a product too, where that of a gather is a scatter, slow on a CPU.
    """
    chosen = jax.nn.one_hot(index, hidden.shape[1], dtype=hidden.dtype)
    return jnp.einsum("rwt,rtd->rwd", chosen, hidden, precision=lax.Precision.HIGHEST)


def _project(
    graphdef: nnx.GraphDef,
    params: Any,
    hidden: Float[Array, "R W D"],
    target: Int[Array, "R W"],
    chunk: int | None,
) -> Float[Array, "R W"]:
    """Return the log-probability of each target given its hidden state."""

    def whole(hidden: Array, target: Array) -> Array:
        return _log_probability(vocabulary_logits(graphdef, params, hidden), target)

    width = hidden.shape[1]
    if chunk is None or check_count("chunk", chunk) >= width:
        return whole(hidden, target)
    count = -(-width // chunk)
    spare = count * chunk - width
    parts = (
        jnp.pad(hidden, ((0, 0), (0, spare), (0, 0))).reshape(-1, count, chunk, hidden.shape[2]),
        jnp.pad(target, ((0, 0), (0, spare))).reshape(-1, count, chunk),
    )
    body = jax.checkpoint(lambda part: whole(*part))  # the logits of a chunk are not kept
    logps = lax.map(body, tuple(jnp.moveaxis(part, 1, 0) for part in parts))
    return jnp.moveaxis(logps, 0, 1).reshape(hidden.shape[0], -1)[:, :width]


def _log_probability(
    logits: Float[Array, "... V"], target: Int[Array, "..."]
) -> Float[Array, "..."]:
    """Return log softmax(logits)[target]."""
    vocabulary = lax.broadcasted_iota(target.dtype, logits.shape, logits.ndim - 1)
    chosen = jnp.sum(jnp.where(vocabulary == target[..., None], logits, 0.0), axis=-1)
    return chosen - jax.nn.logsumexp(logits, axis=-1)
