"""Low-rank adapters on a frozen decoder: many of them on one base, in one program.

An adapted projection is x W + (alpha / rank) (x A) B, with W frozen and B zero at first. Adapters
are a plain tree of arrays beside the base's, layers on axis 0 as the decoder has them, so that a
population is one more axis on them alone: under ``jax.vmap`` the base is in memory once, and its
product with all members' tokens is one product.

qwix, which adapts modules while it watches them called, does not fit: inside a scan over layers
the module it watches is made anew from one layer's arrays, and what is attached to it is lost.

References
----------
Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. Starting values and
the saved layout are those of PEFT 0.17.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from .._checks import InputError, check_count, check_option, check_positive
from .config import DecoderConfig
from .decoder import Decoder, LanguageModel, abstract_model

TARGETS = {
    "query": "attention",
    "key": "attention",
    "value": "attention",
    "output": "attention",
    "gate": "feed_forward",
    "up": "feed_forward",
    "down": "feed_forward",
}
"""Projections that can be adapted, and the part of a layer that each belongs to."""

Adapters = dict[str, dict[str, dict[str, Array]]]
"""By part and target: ``lora_a`` (L, in, rank) and ``lora_b`` (L, rank, out)."""


@dataclass(frozen=True)
class LoraOptions:
    """Which projections are adapted, and how.

    Attributes
    ----------
    rank : int
        Columns of A; at most the smaller side of any adapted projection.
    alpha : float, optional
        The adapters count alpha / rank; the rank, and so once, when left out.
    targets : tuple of str, optional
        Names in :data:`TARGETS`; all that the model has when left out.

    Examples
    --------
    >>> LoraOptions(rank=8, alpha=16).scale
    2.0
    """

    rank: int = 8
    alpha: float | int | None = None
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_count("rank", self.rank)
        if self.alpha is not None:
            check_positive("alpha", self.alpha)
        if self.targets is not None:
            if not self.targets:
                raise InputError("targets: expected at least one projection; got none")
            for name in self.targets:
                check_option("targets", name, tuple(TARGETS))
            if len(set(self.targets)) < len(self.targets):
                raise InputError(f"targets: expected each once; got {', '.join(self.targets)}")

    @property
    def scale(self) -> float:
        """What the product of A and B counts."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class AdaptedLinear(nnx.Linear):
    """A linear layer with adapters beside its kernel, all stacked over the layers."""

    def __init__(self, linear: nnx.Linear, layers: int, options: LoraOptions):
        for name, value in vars(linear).items():
            if not name.startswith("_pytree"):
                setattr(self, name, value)
        self.scale = options.scale
        inside, outside = linear.in_features, linear.out_features
        self.lora_a = nnx.Param(jnp.zeros((layers, inside, options.rank), jnp.float32))
        self.lora_b = nnx.Param(jnp.zeros((layers, options.rank, outside), jnp.float32))

    def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
        """Return the layer's product, and what the adapters add; in the inputs' type."""
        low = inputs @ self.lora_a[...].astype(inputs.dtype)
        added = (low @ self.lora_b[...].astype(inputs.dtype)) * jnp.asarray(
            self.scale, inputs.dtype
        )
        return super().__call__(inputs, out_sharding) + added


def adapter_shapes(config: DecoderConfig, options: LoraOptions) -> dict[str, tuple[int, int, int]]:
    """Return (layers, in, out) of every projection that is adapted, by its name.

    Raises
    ------
    InputError
        If the model has no such projection, or one with a side shorter than the rank.

    Examples
    --------
    >>> from jaxpref.llm import decoder_config
    >>> adapter_shapes(decoder_config({"model_type": "llama"}), LoraOptions(targets=("up",)))
    {'up': (32, 4096, 11008)}
    """
    there = _kernels(config)
    found = {}
    for name in options.targets or tuple(there):
        if name not in there:
            raise InputError(
                f"targets: expected projections of a {config.architecture}, "
                f"{', '.join(there)}; got {name}"
            )
        found[name] = there[name]
        least = min(there[name][1:])
        if options.rank > least:
            raise InputError(
                f"rank: expected at most {least}, the smaller side of {name}; got {options.rank}"
            )
    return found


@lru_cache(maxsize=8)
def _kernels(config: DecoderConfig) -> dict[str, tuple[int, int, int]]:
    _, abstract = abstract_model(config, "float32")
    layers = abstract["layers"]
    return {
        name: layers[part][name]["kernel"].shape
        for name, part in TARGETS.items()
        if name in layers[part]
    }


def adapted_graphdef(
    config: DecoderConfig, options: LoraOptions, *, dtype: str = "float32"
) -> nnx.GraphDef:
    """Return the graphdef of a decoder with adapters, for the parameters that :func:`join` makes.

    Parameters
    ----------
    config : DecoderConfig
    options : LoraOptions
    dtype : str
        Type of the base's parameters.

    Raises
    ------
    InputError
        As :func:`adapter_shapes`.
    """
    targets = adapter_shapes(config, options)

    def build() -> Decoder:
        decoder = Decoder(config, nnx.Rngs(0), dtype=dtype)
        for name in targets:
            part = getattr(decoder.layers, TARGETS[name])
            adapted = AdaptedLinear(getattr(part, name), config.num_hidden_layers, options)
            setattr(part, name, adapted)
        return decoder

    return nnx.split(nnx.eval_shape(build))[0]


def initial_adapters(config: DecoderConfig, options: LoraOptions, key: PRNGKeyArray) -> Adapters:
    """Return adapters that change nothing yet: A uniform in +-1 / sqrt(in), B zero; float32.

    Parameters
    ----------
    config : DecoderConfig
    options : LoraOptions
    key : PRNG key
        A projection's A does not depend on which others are adapted.

    Raises
    ------
    InputError
        As :func:`adapter_shapes`.
    """
    found: Adapters = {}
    for name, (layers, inside, outside) in adapter_shapes(config, options).items():
        own = jax.random.fold_in(key, 1000 + list(TARGETS).index(name))
        bound = inside**-0.5
        shape = (layers, inside, options.rank)
        found.setdefault(TARGETS[name], {})[name] = {
            "lora_a": jax.random.uniform(own, shape, jnp.float32, -bound, bound),
            "lora_b": jnp.zeros((layers, options.rank, outside), jnp.float32),
        }
    return found


def adapters_off(config: DecoderConfig, options: LoraOptions) -> Adapters:
    """Return adapters of zeros, with which the adapted model is its base."""
    shapes = jax.eval_shape(lambda: initial_adapters(config, options, jax.random.key(0)))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def join(base: Any, adapters: Adapters) -> Any:
    """Return the parameters of the adapted decoder: the base's arrays and the adapters'.

    Parameters
    ----------
    base : nnx.State
        Of ``LanguageModel.params``.
    adapters : dict
        From :func:`initial_adapters`, trained or not.
    """
    return nnx.merge_state(base, nnx.State({"layers": jax.tree.map(nnx.Param, adapters)}))


def adapted_model(model: LanguageModel, options: LoraOptions, adapters: Adapters) -> LanguageModel:
    """Return the base with adapters beside it, sharing its arrays.

    Examples
    --------
    >>> from jaxpref.llm import decoder_config, initial_model
    >>> config = decoder_config({"model_type": "llama", "vocab_size": 11, "hidden_size": 8,
    ...     "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2})
    >>> model, options = initial_model(config, jax.random.key(0)), LoraOptions(rank=2)
    >>> adapters = initial_adapters(config, options, jax.random.key(1))
    >>> adapted = adapted_model(model, options, adapters)
    >>> adapted.params["layers"]["feed_forward"]["up"]["lora_a"].shape
    (2, 8, 2)
    """
    graphdef = adapted_graphdef(model.config, options, dtype=base_dtype(model))
    return LanguageModel(model.config, graphdef, join(model.params, adapters))


def merged_model(model: LanguageModel, options: LoraOptions, adapters: Adapters) -> LanguageModel:
    """Return a plain decoder that computes what the adapted one does: W + (alpha / rank) A B.

    The sum is taken in float32 and kept in the base's type; other parameters are shared.
    """
    added = {
        (TARGETS[name], name): pair for part in adapters.values() for name, pair in part.items()
    }

    def merge(path: Any, leaf: Array) -> Array:
        keys = tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))
        if len(keys) != 4 or keys[3] != "kernel" or keys[1:3] not in added:
            return leaf
        return _plus(leaf, added[keys[1:3]], options.scale)

    return model._replace(params=jax.tree_util.tree_map_with_path(merge, model.params))


@jax.jit
def _plus(kernel: Array, pair: dict[str, Array], scale: Any) -> Array:
    low, high = (pair[name].astype(jnp.float32) for name in ("lora_a", "lora_b"))
    product = jnp.einsum("lir,lro->lio", low, high, precision=jax.lax.Precision.HIGHEST)
    exact = kernel.astype(jnp.float32) + jnp.asarray(scale, jnp.float32) * product
    return exact.astype(kernel.dtype)


def base_dtype(model: LanguageModel) -> str:
    """Return the type of a model's parameters.

    Raises
    ------
    InputError
        If they are not those of a plain decoder, which is all that can be adapted.
    """
    plain = jax.tree.structure(abstract_model(model.config, "float32")[1])
    if jax.tree.structure(model.params) != plain:
        raise InputError("lora: expected a plain language model; got one with other parameters")
    return str(jax.tree.leaves(model.params)[0].dtype)
