"""Continuing prompts: a cache of keys and values, one token a turn, until all texts have ended.

Prompts of unequal length stand flush right, so that every row writes to the same slot of the
cache; what is padding follows from the lengths, never from a token's id. Rows, lengths and new
tokens are rounded up to a few shapes, each compiled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._checks import InputError, check_between, check_count
from .decoder import KeyValues, LanguageModel
from .rows import round_up_width


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    key: Array,
    max_new_tokens: int,
    temperature: float = 1.0,
    eos_id: int | Sequence[int] | None = None,
) -> list[list[int]]:
    """Continue prompts, sampling from the model's probabilities or taking the likeliest token.

    Parameters
    ----------
    model : LanguageModel
        The model.
    prompts : sequence of sequences of int
        Token ids of each prompt, the beginning-of-sequence token included; none empty.
    key : PRNG key
        Source of the samples. Row r, token t draws from a key of its own, so a row's text does
        not depend on the rows and the padding beside it but for rounding.
    max_new_tokens : int
        Longest continuation; with its prompt at most the model's max_position_embeddings.
    temperature : float
        Logits are divided by it; 0 takes the likeliest token and ignores `key`.
    eos_id : int or sequence of int, optional
        Ids that end a text; by default the config's.

    Returns
    -------
    list of list of int
        The new ids of each row; the last is an end-of-text id unless the row was cut off.

    Raises
    ------
    InputError
        If a prompt is empty, has an id outside the vocabulary, or leaves no room.

    Examples
    --------
    >>> from jaxpref.llm import decoder_config, initial_model
    >>> config = decoder_config({"model_type": "gpt2", "vocab_size": 11, "n_embd": 8,
    ...     "n_layer": 1, "n_head": 2, "n_positions": 32})
    >>> model = initial_model(config, jax.random.key(0))
    >>> texts = generate(model, [[1, 2], [3]], key=jax.random.key(1), max_new_tokens=4)
    >>> [len(text) for text in texts]
    [4, 4]
    """
    new = check_count("max_new_tokens", max_new_tokens)
    most = float(jnp.finfo(jnp.float32).max)
    check_between("temperature", temperature, 0.0, most, what="a finite number of at least 0")
    rows = [np.asarray(prompt, np.int32) for prompt in prompts]
    _check_prompts(rows, new, model)
    if not rows:
        return []
    written, counts = generate_tokens(
        model.graphdef,
        model.params,
        _flush_right(rows),
        key,
        new_slots=round_up_width(new),
        limit=jnp.asarray(new, jnp.int32),
        temperature=jnp.asarray(temperature, jnp.float32),
        eos=jnp.asarray(_ids(eos_id, model), jnp.int32),
    )
    written, counts = np.asarray(written), np.asarray(counts)
    return [written[row, : counts[row]].tolist() for row in range(len(rows))]


class Prompts(NamedTuple):
    """Prompts flush right: tokens (B, P), their lengths (B,); a row of length 0 is padding."""

    tokens: Any
    lengths: Any


def _check_prompts(rows: list[np.ndarray], new: int, model: LanguageModel) -> None:
    room = model.config.max_position_embeddings
    for place, row in enumerate(rows):
        if row.ndim != 1 or not row.size:
            raise InputError(f"prompts[{place}]: expected at least one token id; got none")
        if row.min() < 0 or row.max() >= model.config.vocab_size:
            raise InputError(
                f"prompts[{place}]: expected ids in [0, {model.config.vocab_size}); "
                f"got {row.min()} to {row.max()}"
            )
        if row.size + new > room:
            raise InputError(
                f"prompts[{place}]: expected at most {room} tokens with the {new} new ones, "
                f"the model's context; got {row.size} + {new}"
            )


def _ids(eos_id: int | Sequence[int] | None, model: LanguageModel) -> list[int]:
    if eos_id is None:
        return list(model.config.eos_token_ids)
    return [eos_id] if isinstance(eos_id, (int, np.integer)) else list(eos_id)


def _flush_right(rows: list[np.ndarray]) -> Prompts:
    """Lay prompts out flush right, in a number of rows and a width that few calls differ in."""
    count = len(rows)
    count = round_up_width(count) if count > 16 else 1 << (count - 1).bit_length()
    tokens = np.zeros((count, round_up_width(max(row.size for row in rows))), np.int32)
    lengths = np.zeros(count, np.int32)
    for place, row in enumerate(rows):
        tokens[place, tokens.shape[1] - row.size :] = row
        lengths[place] = row.size
    return Prompts(tokens, lengths)


class _State(NamedTuple):
    step: Int[Array, ""]
    cache: KeyValues
    hidden: Float[Array, "B D"]
    written: Int[Array, "B new"]
    counts: Int[Array, " B"]
    done: Bool[Array, " B"]


@partial(jax.jit, static_argnames=("graphdef", "new_slots"))
def generate_tokens(
    graphdef: nnx.GraphDef,
    params: Any,
    prompts: Prompts,
    key: Array,
    *,
    new_slots: int,
    limit: Int[Array, ""],
    temperature: Float[Array, ""],
    eos: Int[Array, " E"],
) -> tuple[Int[Array, "B new"], Int[Array, " B"]]:
    """Continue prompts inside jit; may be mapped over `params`, `prompts` and `key`.

    Parameters
    ----------
    graphdef, params : nnx.GraphDef, pytree
        The model, as ``LanguageModel`` holds it.
    prompts : Prompts
        int32 tokens (B, P), flush right, and lengths (B,).
    key : PRNG key
        Source of the samples.
    new_slots : int
        Room for new tokens, static.
    limit : int32
        New tokens wanted, at most `new_slots`.
    temperature : float32
        0 takes the likeliest token.
    eos : int32 array, shape (E,)
        Ids that end a text.

    Returns
    -------
    tokens : int32 array, shape (B, new_slots)
        New ids from the left, 0 behind a row's last.
    counts : int32 array, shape (B,)
        New ids of each row, an end-of-text id included; 0 for a row of padding.
    """
    model = nnx.merge(graphdef, params)
    tokens, lengths = (jnp.asarray(part) for part in prompts)
    rows, width = tokens.shape
    slots = jnp.arange(width + new_slots, dtype=jnp.int32)
    padding = width - lengths

    def run(cache: KeyValues, tokens: Array) -> tuple[Array, KeyValues]:
        own = cache.slot + jnp.arange(tokens.shape[1], dtype=jnp.int32)
        back = own[:, None] - slots
        mask = (back >= 0) & (slots >= padding[:, None])[:, None]
        if model.config.sliding_window is not None:
            mask = mask & (back < model.config.sliding_window)
        positions = jnp.maximum(own - padding[:, None], 0)
        hidden, cache = model(tokens, positions, mask, cache=cache)
        return hidden[:, -1], cache._replace(slot=cache.slot + tokens.shape[1])

    def turn(state: _State) -> _State:
        chosen = _choose(model.logits(state.hidden), key, state.step, temperature)
        chosen = jnp.where(state.done, jnp.zeros_like(chosen), chosen)
        hidden, cache = run(state.cache, chosen[:, None])
        return _State(
            step=state.step + 1,
            cache=cache,
            hidden=hidden,
            written=lax.dynamic_update_slice(
                state.written, chosen[:, None], (jnp.zeros_like(state.step), state.step)
            ),
            counts=state.counts + (~state.done).astype(jnp.int32),
            done=state.done | jnp.any(chosen[:, None] == eos, axis=1),
        )

    hidden, cache = run(_empty_cache(model, rows, slots.size), tokens)
    start = _State(
        step=jnp.zeros((), jnp.int32),
        cache=cache,
        hidden=hidden,
        written=jnp.zeros((rows, new_slots), jnp.int32),
        counts=jnp.zeros(rows, jnp.int32),
        done=lengths == 0,
    )
    last = lax.while_loop(lambda s: (s.step < limit) & ~jnp.all(s.done), turn, start)
    return last.written, last.counts


def _empty_cache(model: Any, rows: int, slots: int) -> KeyValues:
    config = model.config
    shape = (config.num_hidden_layers, rows, slots, config.num_key_value_heads, config.head_dim)
    empty = jnp.zeros(shape, model.embedding.dtype)
    return KeyValues(empty, empty, jnp.zeros((), jnp.int32))


def _choose(
    logits: Float[Array, "B V"], key: Array, step: Int[Array, ""], temperature: Float[Array, ""]
) -> Int[Array, " B"]:
    """Return the likeliest id of each row at temperature 0, else a sample with a key of its own."""
    rows = jnp.arange(logits.shape[0], dtype=jnp.int32)
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, row), step))(rows)
    greedy = temperature == 0
    divisor = jnp.where(greedy, 1.0, temperature).astype(logits.dtype)
    sampled = jax.vmap(jax.random.categorical)(keys, logits / divisor)
    return jnp.where(greedy, jnp.argmax(logits, axis=-1), sampled).astype(jnp.int32)
