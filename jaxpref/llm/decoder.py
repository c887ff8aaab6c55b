"""A decoder-only transformer in Flax NNX: Llama, Mistral, Nemotron and GPT-2 in one module.

The layers are one block whose parameters are stacked on a leading axis and scanned. A model is
used split, as a static ``graphdef`` and a pytree of arrays, so that jit, grad, jvp, vmap over many
models, scan and donation apply as they do to any function of arrays. It computes in the type of
its parameters; norms, rotary angles, softmax and logits are at least float32. No dropout.

References
----------
Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023; Jiang et al.,
"Mistral 7B", 2023; Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
Layer for layer the arithmetic is that of the released weights, which the tests compare against.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._checks import check_option
from ._dtypes import at_least_float32, check_dtype
from .attention import attend
from .config import DecoderConfig
from .mesh import split_lookup, split_rows
from .rotary import rotary_tables, rotate

_ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
}
# Up to here the loop over the layers is unrolled: kept values need no copy into stacks, which
# made a training step of 16 rows 1.7 times as fast on one core (5 layers), for a longer compile.
_UNROLLED_LAYERS = 8
REMATS = ("none", "dots", "full")
"""What the backward pass computes again: nothing, all but products with weights, whole layers."""


class LanguageModel(NamedTuple):
    """A decoder taken apart: what is static, and the arrays.

    Parameters
    ----------
    config : DecoderConfig
        The decoder's shape.
    graphdef : nnx.GraphDef
        Static and hashable: an argument of jit by name, or closed over.
    params : nnx.State
        Arrays; those under ``layers`` have the layers on axis 0.

    Examples
    --------
    >>> from jaxpref.llm import decoder_config
    >>> config = decoder_config({"model_type": "llama", "vocab_size": 11, "hidden_size": 8,
    ...     "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2})
    >>> model = initial_model(config, jax.random.key(0))
    >>> tokens = jnp.zeros((1, 3), "int32")
    >>> hidden = hidden_states(model.graphdef, model.params, tokens)
    >>> vocabulary_logits(model.graphdef, model.params, hidden).shape
    (1, 3, 11)
    """

    config: DecoderConfig
    graphdef: nnx.GraphDef
    params: Any


class Norm(nnx.Module):
    """Root-mean-square norm (Llama, Mistral), or layer norm with bias (GPT-2, Nemotron).

    Nemotron's scale is stored less 1, so that decay of the weights pulls it to 1.
    """

    def __init__(self, config: DecoderConfig, dtype: Any):
        self.eps = config.norm_eps
        self.centred = config.architecture in ("gpt2", "nemotron")
        self.offset = 1.0 if config.architecture == "nemotron" else 0.0
        self.scale = nnx.Param(jnp.full(config.hidden_size, 1.0 - self.offset, dtype))
        if self.centred:
            self.bias = nnx.Param(jnp.zeros(config.hidden_size, dtype))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Return `x` with unit (mean) square in its last axis, scaled."""
        exact = x.astype(at_least_float32(x.dtype))
        if self.centred:
            exact = exact - jnp.mean(exact, axis=-1, keepdims=True)
        square = jnp.mean(exact * exact, axis=-1, keepdims=True)
        exact = exact * lax.rsqrt(square + jnp.asarray(self.eps, exact.dtype))
        scale = self.scale[...].astype(exact.dtype)
        exact = exact * (scale + jnp.asarray(self.offset, scale.dtype) if self.offset else scale)
        if self.centred:
            exact = exact + self.bias[...].astype(exact.dtype)
        return exact.astype(x.dtype)


class KeyValues(NamedTuple):
    """Keys and values of all layers, each (L, B, S, K, H), and the slot of the next token."""

    keys: Array
    values: Array
    slot: Array


class Attention(nnx.Module):
    """Projections to grouped heads, rotation, attention and the projection back."""

    def __init__(self, config: DecoderConfig, linear: Any):
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        width, head_dim = config.hidden_size, config.head_dim
        self.head_dim = head_dim
        linear = partial(linear, use_bias=config.attention_bias)
        self.query = linear(width, heads * head_dim)
        self.key = linear(width, groups * head_dim)
        self.value = linear(width, groups * head_dim)
        self.output = linear(heads * head_dim, width)

    def __call__(self, x: Array, context: Context, cached: Cached | None = None):
        """Return what each token of `x` (B, T, D) gathers, and the cache with it written."""
        queries, keys, values = (
            part(x).reshape(*x.shape[:-1], -1, self.head_dim)
            for part in (self.query, self.key, self.value)
        )
        if context.tables is not None:
            queries, keys = (rotate(part, *context.tables) for part in (queries, keys))
        if cached is not None:
            cached = cached.write(keys, values)
            keys, values = cached.read()
        mixed = attend(queries, keys, values, context.mask, implementation=context.attention)
        return self.output(mixed.reshape(*x.shape[:-1], -1)), cached


class Cached(NamedTuple):
    """One layer's view of the cache."""

    store: KeyValues
    layer: Array

    def write(self, keys: Array, values: Array) -> Cached:
        """Return the cache with these keys and values from its slot on."""
        zero = jnp.zeros_like(self.layer)
        start = (self.layer, zero, self.store.slot, zero, zero)
        return self._replace(
            store=self.store._replace(
                keys=lax.dynamic_update_slice(self.store.keys, keys[None], start),
                values=lax.dynamic_update_slice(self.store.values, values[None], start),
            )
        )

    def read(self) -> tuple[Array, Array]:
        """Return the layer's keys and values, (B, S, K, H) each."""
        whole = (self.store.keys, self.store.values)
        keys, values = (lax.dynamic_index_in_dim(one, self.layer, keepdims=False) for one in whole)
        return keys, values


class Context(NamedTuple):
    """What all layers share: the mask (B or 1, T, S), the rotary tables, how to attend."""

    mask: Array
    tables: tuple[Array, Array] | None
    attention: str


class FeedForward(nnx.Module):
    """Gated (Llama, Mistral) or plain (GPT-2, Nemotron) feed-forward."""

    def __init__(self, config: DecoderConfig, linear: Any):
        linear = partial(linear, use_bias=config.mlp_bias)
        self.activation = config.hidden_act
        self.gated = config.architecture not in ("gpt2", "nemotron")
        if self.gated:
            self.gate = linear(config.hidden_size, config.intermediate_size)
        self.up = linear(config.hidden_size, config.intermediate_size)
        self.down = linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Return the feed-forward of each token."""
        activation = _ACTIVATIONS[self.activation]
        if self.gated:
            return self.down(activation(self.gate(x)) * self.up(x))
        return self.down(activation(self.up(x)))


class Block(nnx.Module):
    """One layer: attention and feed-forward, each behind a norm and added to its input."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, dtype: Any):
        init = nnx.initializers.normal(config.initializer_range)
        linear = partial(nnx.Linear, rngs=rngs, param_dtype=dtype, kernel_init=init)
        self.attention_norm = Norm(config, dtype)
        self.attention = Attention(config, linear)
        self.feed_forward_norm = Norm(config, dtype)
        self.feed_forward = FeedForward(config, linear)

    def __call__(self, x: Array, context: Context, cached: Cached | None = None):
        """Return the layer's output for `x` (B, T, D), and the cache with its tokens written."""
        mixed, cached = self.attention(self.attention_norm(x), context, cached)
        x = x + mixed
        return x + self.feed_forward(self.feed_forward_norm(x)), cached


class Decoder(nnx.Module):
    """Embedding, stacked layers, final norm and vocabulary logits.

    Parameters
    ----------
    config : DecoderConfig
        The decoder's shape.
    rngs : nnx.Rngs
        Source of the random weights.
    dtype : str
        Type of the parameters, and so of the computation.
    """

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, *, dtype: str = "float32"):
        check_dtype(dtype)
        kind = jnp.dtype(dtype)
        self.config = config
        init = nnx.initializers.normal(config.initializer_range)

        def table(rows: int) -> nnx.Param:
            return nnx.Param(init(rngs.params(), (rows, config.hidden_size), kind))

        @nnx.split_rngs(splits=config.num_hidden_layers)
        @nnx.vmap
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs, kind)

        self.embedding = table(config.vocab_size)
        if config.rope is None:
            self.position_embedding = table(config.max_position_embeddings)
        self.layers = stack(rngs)
        self.norm = Norm(config, kind)
        if not config.tie_word_embeddings:
            self.head = table(config.vocab_size)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "#B T"],
        mask: Bool[Array, "#B T S"],
        *,
        attention: str = "direct",
        remat: str = "none",
        cache: KeyValues | None = None,
    ) -> tuple[Float[Array, "B T D"], KeyValues | None]:
        """Return the normed hidden states, and the cache with these tokens written to it."""
        x = split_lookup(_rows(self.embedding, tokens))
        if self.config.rope is None:
            x = x + _rows(self.position_embedding, positions)
            tables = None
        else:
            tables = rotary_tables(
                self.config.rope, self.config.head_dim, positions, dtype=str(x.dtype)
            )
        x, cache = self._scan(x, Context(mask, tables, attention), cache, remat)
        return self.norm(x), cache

    def _scan(self, x: Array, context: Context, cache: KeyValues | None, remat: str):
        """Run the layers one after the other over their stacked parameters."""
        graphdef, stacked = nnx.split(self.layers)

        def layer(carry, inputs):
            (x, cache), (params, index) = carry, inputs
            x = split_rows(x)
            view = None if cache is None else Cached(cache, index)
            x, view = nnx.merge(graphdef, params)(x, context, view)
            return (x, None if view is None else view.store), None

        layer = _rematerialised(layer, remat)
        count = self.config.num_hidden_layers
        index = jnp.arange(count, dtype=jnp.int32)
        # What is unrolled the compiler sees whole, and keeps what was to be computed again.
        unroll = count if count <= _UNROLLED_LAYERS and remat == "none" else 1
        return lax.scan(layer, (x, cache), (stacked, index), unroll=unroll)[0]

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Return the vocabulary logits of hidden states, at least in float32."""
        table = self.embedding if self.config.tie_word_embeddings else self.head
        exact = at_least_float32(hidden.dtype)
        return jnp.einsum("...d,vd->...v", hidden, table[...], preferred_element_type=exact)


def _rematerialised(layer: Any, remat: str) -> Any:
    """Return a layer whose backward pass computes again what `remat` says."""
    check_option("remat", remat, REMATS)
    if remat == "none":
        return layer
    kept = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if remat == "dots" else None
    return jax.checkpoint(layer, policy=kept)


def _rows(table: nnx.Param, index: Int[Array, "..."]) -> Float[Array, "... D"]:
    """Return rows of a table; ids are the caller's to check, under jit none is refused."""
    return jnp.take(table[...], index, axis=0, mode="clip")


def abstract_model(config: DecoderConfig, dtype: str) -> tuple[nnx.GraphDef, Any]:
    """Return a decoder's graphdef and the shapes of its parameters, without computing any.

    Parameters
    ----------
    config : DecoderConfig
        The decoder's shape.
    dtype : str
        Type of the parameters.

    Returns
    -------
    graphdef : nnx.GraphDef
        As in ``LanguageModel``.
    params : nnx.State
        Of ``jax.ShapeDtypeStruct``.
    """
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0), dtype=dtype)))


def initial_model(config: DecoderConfig, key: Array, *, dtype: str = "float32") -> LanguageModel:
    """Return a decoder with random weights: normal, of the config's standard deviation.

    Parameters
    ----------
    config : DecoderConfig
        The decoder's shape.
    key : PRNG key
        Source of the weights.
    dtype : {"float32", "bfloat16", "float16", "float64"}
        Type of the parameters and of the computation.

    Returns
    -------
    LanguageModel
        Norm scales are 1, biases 0.

    Raises
    ------
    InputError
        If `dtype` is none of those.
    """
    check_dtype(dtype)
    graphdef, _ = abstract_model(config, dtype)
    make = jax.jit(lambda key: nnx.state(Decoder(config, nnx.Rngs(key), dtype=dtype)))
    return LanguageModel(config, graphdef, make(key))


def causal_mask(length: int, sliding_window: int | None = None) -> Bool[Array, "1 T T"]:
    """Return who attends to whom in a row: tokens to themselves and to those before.

    Parameters
    ----------
    length : int
        T.
    sliding_window : int, optional
        How far back, the token itself counted.

    Returns
    -------
    bool array, shape (1, T, T)

    Examples
    --------
    >>> causal_mask(3, 2)[0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    back = jnp.arange(length)[:, None] - jnp.arange(length)
    seen = back >= 0
    return (seen if sliding_window is None else seen & (back < sliding_window))[None]


def hidden_states(
    graphdef: nnx.GraphDef,
    params: Any,
    tokens: Int[Array, "B T"],
    *,
    positions: Int[Array, "#B T"] | None = None,
    mask: Bool[Array, "#B T T"] | None = None,
    attention: str = "direct",
    remat: str = "none",
) -> Float[Array, "B T D"]:
    """Return the hidden states of rows of tokens, behind the final norm.

    Parameters
    ----------
    graphdef, params : nnx.GraphDef, pytree
        The model, as ``LanguageModel`` holds it.
    tokens : int32 array, shape (B, T)
        Token ids, in [0, vocab_size).
    positions : int32 array, shape (B, T), optional
        Place of each token in its text, in [0, max_position_embeddings); 0, 1, ... by default.
    mask : bool array, shape (B, T, T), optional
        True where a token (row) may attend to another; by default itself and those before it,
        as far as the model's sliding window reaches.
    attention : {"direct", "xla", "cudnn"}
        How attention is computed; see ``attend``.
    remat : {"none", "dots", "full"}
        What the backward pass computes again instead of keeping: nothing; all of a layer but its
        products with weights; or all of it, from its input.

    Returns
    -------
    array, shape (B, T, D)
        Of the parameters' type.

    Notes
    -----
    Differentiable forwards and backwards (but for "cudnn"), and may be mapped over `params` with
    a further leading axis. On a GPU, float32 products follow ``jax_default_matmul_precision``.
    """
    model = nnx.merge(graphdef, params)
    length = tokens.shape[-1]
    if positions is None:
        positions = jnp.arange(length, dtype=jnp.int32)[None]
    if mask is None:
        mask = causal_mask(length, model.config.sliding_window)
    return model(tokens, positions, mask, attention=attention, remat=remat)[0]


def vocabulary_logits(
    graphdef: nnx.GraphDef, params: Any, hidden: Float[Array, "... D"]
) -> Float[Array, "... V"]:
    """Return the logits over the vocabulary of hidden states.

    Parameters
    ----------
    graphdef, params : nnx.GraphDef, pytree
        The model, as ``LanguageModel`` holds it.
    hidden : array, shape (..., D)
        From ``hidden_states``; a part of it, where a part is enough.

    Returns
    -------
    array, shape (..., V)
        float32, or float64 from float64 parameters.
    """
    return nnx.merge(graphdef, params).logits(hidden)
