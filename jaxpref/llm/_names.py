"""Where each parameter of the decoder lies in a checkpoint, and in which layout.

Two layouts are read: that of PyTorch's transformers models, kept in safetensors, and that of
their Flax twins up to transformers 4.57, kept in msgpack.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .config import DecoderConfig

Path = tuple[str, ...]


class Place(NamedTuple):
    """One tensor of a checkpoint (``{}`` stands for the layer) and how it is laid out.

    `transposed`: the file has (out, in) where the decoder has (in, out). `part`: the decoder's
    parameter is this third of the file's last axis, once transposed.
    """

    name: str
    transposed: bool = False
    part: int | None = None

    def file_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in the file of a parameter of one layer.

        >>> Place("c_attn.weight", part=0).file_shape((4, 4))
        (4, 12)
        """
        whole = shape if self.part is None else (*shape[:-1], 3 * shape[-1])
        return whole[::-1] if self.transposed else whole

    def from_file(self, tensor: np.ndarray) -> np.ndarray:
        """Return the parameter, as a view of the file's tensor."""
        tensor = tensor.T if self.transposed else tensor
        if self.part is None:
            return tensor
        width = tensor.shape[-1] // 3
        return tensor[..., self.part * width : (self.part + 1) * width]


_LLAMA_BLOCK = {
    ("attention", "query"): "self_attn.q_proj",
    ("attention", "key"): "self_attn.k_proj",
    ("attention", "value"): "self_attn.v_proj",
    ("attention", "output"): "self_attn.o_proj",
    ("feed_forward", "gate"): "mlp.gate_proj",
    ("feed_forward", "up"): "mlp.up_proj",
    ("feed_forward", "down"): "mlp.down_proj",
}
_LLAMA_NORMS = {
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
}
_GPT2_BLOCK = {
    ("attention", "output"): "attn.c_proj",
    ("feed_forward", "up"): "mlp.c_fc",
    ("feed_forward", "down"): "mlp.c_proj",
}
_GPT2_FUSED = {"query": 0, "key": 1, "value": 2}
_GPT2_NORMS = {"attention_norm": "ln_1", "feed_forward_norm": "ln_2"}


def places(config: DecoderConfig, *, flax: bool = False) -> dict[Path, Place]:
    """Return the place of each parameter of the decoder, by its path.

    Parameters
    ----------
    config : DecoderConfig
        The decoder's shape.
    flax : bool
        The layout of ``flax_model.msgpack`` (joined by dots) instead of that of safetensors.

    Returns
    -------
    dict
        Stacked parameters have ``{}`` in their name.

    Examples
    --------
    >>> from jaxpref.llm import decoder_config
    >>> there = places(decoder_config({"model_type": "llama"}))
    >>> there["layers", "attention", "query", "kernel"].name
    'model.layers.{}.self_attn.q_proj.weight'
    """
    found = dict(_gpt2(flax) if config.rope is None else _llama(config, flax))
    if not config.tie_word_embeddings:
        found["head",] = Place("lm_head.kernel", True) if flax else Place("lm_head.weight")
    return found


def _llama(config: DecoderConfig, flax: bool) -> Iterator[tuple[Path, Place]]:
    yield ("embedding",), Place(f"model.embed_tokens.{'embedding' if flax else 'weight'}")
    nemotron = config.architecture == "nemotron"
    yield ("norm", "scale"), Place("model.norm.weight")
    if nemotron:
        yield ("norm", "bias"), Place("model.norm.bias")
    for ours, theirs in _LLAMA_NORMS.items():
        yield ("layers", ours, "scale"), Place(f"model.layers.{{}}.{theirs}.weight")
        if nemotron:
            yield ("layers", ours, "bias"), Place(f"model.layers.{{}}.{theirs}.bias")
    for (part, ours), theirs in _LLAMA_BLOCK.items():
        if nemotron and ours == "gate":
            continue
        name = f"model.layers.{{}}.{theirs}"
        kernel = Place(f"{name}.kernel") if flax else Place(f"{name}.weight", True)
        yield ("layers", part, ours, "kernel"), kernel
        if config.attention_bias if part == "attention" else config.mlp_bias:
            yield ("layers", part, ours, "bias"), Place(f"{name}.bias")


def _gpt2(flax: bool) -> Iterator[tuple[Path, Place]]:
    table, scale = ("embedding", "scale") if flax else ("weight", "weight")
    yield ("embedding",), Place(f"transformer.wte.{table}")
    yield ("position_embedding",), Place(f"transformer.wpe.{table}")
    for path, name in _gpt2_norms():
        yield (*path, "scale"), Place(f"{name}.{scale}")
        yield (*path, "bias"), Place(f"{name}.bias")
    # Both files call it Conv1D; the Flax one keeps (out, in), the PyTorch one (in, out).
    kernel = "kernel" if flax else "weight"
    for ours, part in _GPT2_FUSED.items():
        name = "transformer.h.{}.attn.c_attn"
        yield ("layers", "attention", ours, "kernel"), Place(f"{name}.{kernel}", flax, part)
        yield ("layers", "attention", ours, "bias"), Place(f"{name}.bias", part=part)
    for (part, ours), theirs in _GPT2_BLOCK.items():
        name = f"transformer.h.{{}}.{theirs}"
        yield ("layers", part, ours, "kernel"), Place(f"{name}.{kernel}", flax)
        yield ("layers", part, ours, "bias"), Place(f"{name}.bias")


def _gpt2_norms() -> Iterator[tuple[Path, str]]:
    yield ("norm",), "transformer.ln_f"
    for ours, theirs in _GPT2_NORMS.items():
        yield ("layers", ours), f"transformer.h.{{}}.{theirs}"


# Buffers that older files carry and no model needs: causal masks and rotary frequencies.
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


def is_buffer(name: str) -> bool:
    """Whether a tensor of a checkpoint is a constant instead of a parameter.

    >>> is_buffer("h.0.attn.bias"), is_buffer("h.0.attn.c_attn.bias")
    (True, False)
    """
    return name.endswith(_BUFFERS)
