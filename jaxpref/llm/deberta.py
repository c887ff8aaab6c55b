"""DeBERTa-v2 and -v3 with a head for rewards: disentangled attention in Flax NNX.

A token attends by content to content, by content to relative position and the other way round:

    A_qk = (Q_q . K_k + Q_q . K^r_{d(q,k)} + K_k . Q^r_{d(q,k)}) / sqrt(3 H)

where d is the distance q - k in buckets, linear up to half of them and logarithmic beyond, and the
relative embeddings share the content's projections. The head is a dense layer on the first token,
gelu, and one number. Only what the v3 checkpoints use is computed; anything else is refused.

References
----------
He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", ICLR 2021; He et al.,
"DeBERTaV3", ICLR 2023. Layer for layer the arithmetic is that of the released weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from .._checks import InputError, check_count, check_positive
from ._dtypes import at_least_float32
from ._names import Place
from ._tensors import Some, Tensors
from .attention import masked_softmax
from .checkpoints import read_parameters

# What transformers takes for a key that a config.json leaves out.
_DEFAULTS = {
    "vocab_size": 128100,
    "hidden_size": 1536,
    "num_hidden_layers": 24,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "position_buckets": -1,
    "layer_norm_eps": 1e-7,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}
_COUNTS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
# (key, what transformers takes where it is left out, what is computed here)
_NEEDED = (
    ("relative_attention", False, True),
    ("position_biased_input", True, False),
    ("share_att_key", False, True),
    ("norm_rel_ebd", "none", "layer_norm"),
    ("type_vocab_size", 0, 0),
    ("conv_kernel_size", 0, 0),
    ("hidden_act", "gelu", "gelu"),
    ("pooler_hidden_act", "gelu", "gelu"),
)


@dataclass(frozen=True)
class DebertaConfig:
    """The shape of a DeBERTa; the field names are those of ``config.json``.

    Parameters
    ----------
    vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size : int
        Sizes.
    max_position_embeddings : int
        Longest sequence of the pre-training, in tokens.
    max_relative_positions : int
        Distance at which the logarithmic buckets end.
    position_buckets : int
        Buckets on either side; 0 for one a distance.
    layer_norm_eps, initializer_range : float
        Added to every variance; standard deviation of random weights.
    pad_token_id : int
        Of no part in the computation.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    max_relative_positions: int
    position_buckets: int
    layer_norm_eps: float = 1e-7
    initializer_range: float = 0.02
    pad_token_id: int = 0
    architecture: str = "deberta-v2"
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        for name in (*_COUNTS, "max_relative_positions"):
            check_count(name, getattr(self, name))
        check_positive("layer_norm_eps", self.layer_norm_eps)
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"num_attention_heads: expected a divisor of hidden_size ({self.hidden_size}); "
                f"got {self.num_attention_heads}"
            )

    @property
    def span(self) -> int:
        """How many relative positions there are on either side."""
        return self.position_buckets or self.max_relative_positions


def deberta_config(keys: Mapping[str, Any], *, source: str = "config") -> DebertaConfig:
    """Return the shape from the keys of a ``config.json``.

    Parameters
    ----------
    keys : mapping
        As transformers 4.x and 5.x write them.
    source : str
        What to call it in messages.

    Raises
    ------
    InputError
        For an option that is not computed here, by name.

    Examples
    --------
    >>> deberta_config({"relative_attention": False})
    Traceback (most recent call last):
    ...
    jaxpref._checks.InputError: config: relative_attention: expected True; got False
    """
    for name, default, needed in _NEEDED:
        given = keys.get(name, default)
        if given != needed:
            raise InputError(f"{source}: {name}: expected {needed}; got {given!r}")
    kinds = keys.get("pos_att_type") or []
    kinds = kinds.split("|") if isinstance(kinds, str) else list(kinds)
    if {kind.strip().lower() for kind in kinds} != {"c2p", "p2c"}:
        raise InputError(f"{source}: pos_att_type: expected c2p and p2c; got {kinds}")
    values = {**_DEFAULTS, **{name: keys[name] for name in _DEFAULTS if keys.get(name) is not None}}
    for name in ("embedding_size", "pooler_hidden_size"):
        if keys.get(name, values["hidden_size"]) != values["hidden_size"]:
            raise InputError(
                f"{source}: {name}: expected hidden_size, {values['hidden_size']}; got {keys[name]}"
            )
    if values["max_relative_positions"] < 1:
        values["max_relative_positions"] = values["max_position_embeddings"]
    values["position_buckets"] = max(values["position_buckets"], 0)
    try:
        return DebertaConfig(**values)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def relative_buckets(length: int, *, buckets: int, furthest: int) -> Int[np.ndarray, "T T"]:
    """Return the bucket of the distance q - k of every pair of positions.

    sign(d) (ceil(log(|d| / h) / log((furthest - 1) / h) (h - 1)) + h) beyond h = buckets / 2, and d
    itself up to there; in float32, as the released weights were trained.

    >>> relative_buckets(9, buckets=4, furthest=16)[8].tolist()
    [3, 3, 3, 3, 3, 3, 2, 1, 0]
    """
    place = np.arange(length)
    apart = place[:, None] - place
    if not buckets:
        return apart
    half = buckets // 2
    far = np.where(np.abs(apart) < half, half - 1, np.abs(apart)).astype(np.float32)
    scale = np.log(np.float32((furthest - 1) / half))
    with np.errstate(divide="ignore"):
        beyond = np.ceil(np.log(far / np.float32(half)) / scale * np.float32(half - 1)) + half
    return np.where(far <= half, apart, beyond * np.sign(apart)).astype(int)


class LayerNorm(nnx.Module):
    """Layer norm with scale and bias, at least in float32."""

    def __init__(self, width: int, eps: float, dtype: Any):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(width, dtype))
        self.bias = nnx.Param(jnp.zeros(width, dtype))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Return `x` with mean 0 and variance 1 in its last axis, scaled and shifted."""
        exact = x.astype(at_least_float32(x.dtype))
        exact = exact - jnp.mean(exact, axis=-1, keepdims=True)
        square = jnp.mean(exact * exact, axis=-1, keepdims=True)
        exact = exact * lax.rsqrt(square + jnp.asarray(self.eps, exact.dtype))
        exact = exact * self.scale[...].astype(exact.dtype) + self.bias[...].astype(exact.dtype)
        return exact.astype(x.dtype)


class Layer(nnx.Module):
    """Disentangled attention and feed-forward, each added to its input and normed."""

    def __init__(self, config: DebertaConfig, rngs: nnx.Rngs, dtype: Any):
        width, wide, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        init = nnx.initializers.normal(config.initializer_range)

        def linear(rows: int, columns: int) -> nnx.Linear:
            return nnx.Linear(rows, columns, rngs=rngs, param_dtype=dtype, kernel_init=init)

        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (linear(width, width) for _ in range(3))
        self.output, self.up, self.down = (
            linear(width, width), linear(width, wide), linear(wide, width),
        )  # fmt: skip
        self.attention_norm = LayerNorm(width, eps, dtype)
        self.feed_forward_norm = LayerNorm(width, eps, dtype)

    def __call__(self, x: Array, relative: Array, buckets: Array, mask: Array) -> Array:
        """Return the layer's output for `x` (B, T, D)."""
        x = self.attention_norm(x + self.output(self.attend(x, relative, buckets, mask)))
        inner = jax.nn.gelu(self.up(x), approximate=False)
        return self.feed_forward_norm(x + self.down(inner))

    def attend(self, x: Array, relative: Array, buckets: Array, mask: Array) -> Array:
        """Return what each token gathers; `relative` (P, D), `buckets` (T, T) rows of it."""

        def split(values: Array) -> Array:
            return values.reshape(*values.shape[:-1], self.heads, -1)

        queries, keys, values = (split(part(x)) for part in (self.query, self.key, self.value))
        exact = at_least_float32(x.dtype)
        scale = jnp.asarray(1 / math.sqrt(3 * queries.shape[-1]), exact)
        scores = jnp.einsum("btnh,bsnh->bnts", queries, keys, preferred_element_type=exact)
        there = split(self.key(relative))
        at = jnp.einsum("btnh,pnh->bntp", queries, there, preferred_element_type=exact)
        scores = scores + jnp.take_along_axis(at, buckets[None, None], axis=-1)
        there = split(self.query(relative))
        at = jnp.einsum("bsnh,pnh->bnsp", keys, there, preferred_element_type=exact)
        back = jnp.take_along_axis(at, buckets.T[None, None], axis=-1)
        scores = (scores + jnp.swapaxes(back, -1, -2)) * scale
        seen = jnp.broadcast_to(mask[:, None, None, :], (len(mask), 1, *scores.shape[2:]))
        weights = masked_softmax(scores, seen).astype(values.dtype)
        mixed = jnp.einsum("bnts,bsnh->btnh", weights, values)
        return mixed.reshape(x.shape)


class Deberta(nnx.Module):
    """Embedding, stacked layers, and the head on the first token."""

    def __init__(self, config: DebertaConfig, rngs: nnx.Rngs, *, dtype: str = "float32"):
        kind, width, eps = jnp.dtype(dtype), config.hidden_size, config.layer_norm_eps
        self.config = config
        init = nnx.initializers.normal(config.initializer_range)

        def table(rows: int) -> nnx.Param:
            return nnx.Param(init(rngs.params(), (rows, width), kind))

        @nnx.split_rngs(splits=config.num_hidden_layers)
        @nnx.vmap
        def stack(rngs: nnx.Rngs) -> Layer:
            return Layer(config, rngs, kind)

        self.embedding, self.relative = table(config.vocab_size), table(2 * config.span)
        self.embedding_norm = LayerNorm(width, eps, kind)
        self.relative_norm = LayerNorm(width, eps, kind)
        self.layers = stack(rngs)
        self.pooler = nnx.Linear(width, width, rngs=rngs, param_dtype=kind)
        self.classifier = nnx.Linear(width, 1, rngs=rngs, param_dtype=kind)

    def __call__(self, tokens: Int[Array, "B T"], lengths: Int[Array, " B"]) -> Float[Array, " B"]:
        """Return the score of each sequence, padded behind its length."""
        config, length = self.config, tokens.shape[1]
        mask = jnp.arange(length, dtype=lengths.dtype) < lengths[:, None]
        x = self.embedding_norm(jnp.take(self.embedding[...], tokens, axis=0, mode="clip"))
        x = x * mask[:, :, None].astype(x.dtype)
        relative = self.relative_norm(self.relative[...])
        buckets = relative_buckets(
            length, buckets=config.position_buckets, furthest=config.max_relative_positions
        )
        index = jnp.asarray(np.clip(buckets + config.span, 0, 2 * config.span - 1), jnp.int32)
        graphdef, stacked = nnx.split(self.layers)

        def layer(x: Array, params: Any) -> tuple[Array, None]:
            return nnx.merge(graphdef, params)(x, relative, index, mask), None

        x, _ = lax.scan(layer, x, stacked)
        pooled = jax.nn.gelu(self.pooler(x[:, 0]), approximate=False)
        exact = at_least_float32(pooled.dtype)
        kernel, bias = self.classifier.kernel[...], self.classifier.bias
        score = jnp.einsum("bd,dk->bk", pooled, kernel, preferred_element_type=exact)
        return score[:, 0] + (0 if bias is None else bias[...][0].astype(exact))


def deberta_scores(
    graphdef: nnx.GraphDef, params: Any, tokens: Int[Array, "B T"], lengths: Int[Array, " B"]
) -> Float[Array, " B"]:
    """Return the score of each sequence.

    Parameters
    ----------
    graphdef, params : nnx.GraphDef, pytree
        From :func:`load_deberta`.
    tokens, lengths
        Sequences ``[CLS] prompt [SEP] response [SEP]``, padded behind, and their lengths.

    Returns
    -------
    array, shape (B,)
        At least float32.
    """
    return nnx.merge(graphdef, params)(tokens, lengths)


def abstract_deberta(config: DebertaConfig, dtype: str) -> tuple[nnx.GraphDef, Any]:
    """Return the graphdef and the shapes of the parameters, without computing any."""
    return nnx.split(nnx.eval_shape(lambda: Deberta(config, nnx.Rngs(0), dtype=dtype)))


def load_deberta(
    tensors: Tensors, config: DebertaConfig, directory: Path, dtype: str
) -> tuple[nnx.GraphDef, Any]:
    """Return graphdef and parameters of a checkpoint; errors as ``load_model``."""
    graphdef, abstract = abstract_deberta(config, dtype)
    used = Some(tensors, lambda name: not name.startswith(_UNUSED))
    there = dict(deberta_places())
    return graphdef, read_parameters(used, there, abstract, config, directory, dtype)


_BLOCK = {
    "query": "attention.self.query_proj",
    "key": "attention.self.key_proj",
    "value": "attention.self.value_proj",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}
_REST = {
    "embedding_norm": "deberta.embeddings.LayerNorm",
    "relative_norm": "deberta.encoder.LayerNorm",
    "pooler": "pooler.dense",
    "classifier": "classifier",
}


def deberta_places() -> Iterator[tuple[tuple[str, ...], Place]]:
    """Yield the place of each parameter in a checkpoint."""
    yield ("embedding",), Place("deberta.embeddings.word_embeddings.weight")
    yield ("relative",), Place("deberta.encoder.rel_embeddings.weight")
    rest = [((ours,), theirs) for ours, theirs in _REST.items()]
    block = [
        (("layers", ours), f"deberta.encoder.layer.{{}}.{theirs}")
        for ours, theirs in _BLOCK.items()
    ]
    for path, name in (*rest, *block):
        norm = path[-1].endswith("norm")
        yield (*path, "scale" if norm else "kernel"), Place(f"{name}.weight", not norm)
        yield (*path, "bias"), Place(f"{name}.bias")


# What pre-training leaves in some files and no reward needs.
_UNUSED = ("lm_predictions.", "mask_predictions.", "deberta.embeddings.position_")
