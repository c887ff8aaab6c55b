"""The shape of a decoder, read from a Hugging Face ``config.json`` of transformers 4.x or 5.x.

Nothing is guessed: an architecture, a rotary kind or an activation that the decoder does not
compute is refused by name, because a wrong one gives fluent, wrong logits instead of an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._checks import InputError, check_between, check_count, check_option, check_positive
from ._folders import is_folder

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "nemotron": "NemotronForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
ROPE_TYPES = ("default", "linear", "llama3")
ACTIVATIONS = ("silu", "gelu", "gelu_new", "relu", "relu2")
_SAME_ACTIVATION = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new"}

# What transformers takes for a key that a config.json leaves out.
_LLAMA_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MISTRAL_DEFAULTS = _LLAMA_DEFAULTS | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096 * 32,
    "sliding_window": 4096,
}
_NEMOTRON_DEFAULTS = {
    "vocab_size": 256000,
    "hidden_size": 6144,
    "intermediate_size": 24576,
    "num_hidden_layers": 32,
    "num_attention_heads": 48,
    "max_position_embeddings": 4096,
    "hidden_act": "relu2",
    "norm_eps": 1e-5,
    "initializer_range": 0.0134,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "partial_rotary_factor": 0.5,
}
_GPT2_DEFAULTS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embeddings: the base and how its frequencies are stretched.

    Parameters
    ----------
    kind : {"default", "linear", "llama3"}
        "linear" divides every frequency by `factor`; "llama3" only the slow ones.
    theta : float
        Base of the frequencies theta^(-2 i / head_dim).
    factor : float
        Stretch; 1 for the default kind.
    low_freq_factor, high_freq_factor : float
        Bounds of the blend of "llama3", in turns per original context.
    original_max_position_embeddings : int
        Context of the pre-training, for "llama3".
    share : float
        Share of each head that is rotated, from its beginning: 0.5 for Nemotron, else 1.
    """

    kind: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    share: float = 1.0


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder; the field names are those of ``config.json`` for Llama.

    Parameters
    ----------
    architecture : {"llama", "mistral", "nemotron", "gpt2"}
        Llama and Mistral normalise by root mean square, rotate positions and gate their
        feed-forward; GPT-2 has layer norms, learned positions and a plain feed-forward; Nemotron
        layer norms whose scale is stored less 1, rotates a part of each head, and has a plain
        feed-forward of squared rectifiers.
    vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads : int
        Sizes.
    num_key_value_heads, head_dim : int
        Key and value heads (fewer than query heads: grouped-query attention), and their width.
    max_position_embeddings : int
        Longest row, in tokens.
    hidden_act : {"silu", "gelu", "gelu_new", "relu", "relu2"}
        Activation of the feed-forward.
    norm_eps : float
        Added to the variance in every norm.
    tie_word_embeddings : bool
        Whether the vocabulary logits use the embedding matrix.
    rope : RopeConfig or None
        Rotary positions; None for GPT-2.
    sliding_window : int or None
        A token attends to itself and the `sliding_window` - 1 tokens before it.
    attention_bias, mlp_bias : bool
        Whether those projections have biases.
    initializer_range : float
        Standard deviation of random weights.
    bos_token_id : int or None
        Begin of sequence.
    eos_token_ids : tuple of int
        Each ends a text.

    Examples
    --------
    >>> config = decoder_config({"model_type": "llama", "hidden_size": 64, "vocab_size": 512,
    ...     "num_attention_heads": 8, "num_key_value_heads": 4, "rope_theta": 5e5})
    >>> config.head_dim, config.rope.theta
    (8, 500000.0)
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    hidden_act: str = "silu"
    norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    rope: RopeConfig | None = RopeConfig()
    sliding_window: int | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_option("architecture", self.architecture, tuple(ARCHITECTURES))
        check_option("hidden_act", self.hidden_act, ACTIVATIONS)
        for name in _COUNTS:
            check_count(name, getattr(self, name))
        check_positive("norm_eps", self.norm_eps)
        if self.sliding_window is not None:
            check_count("sliding_window", self.sliding_window)
        if self.num_attention_heads % self.num_key_value_heads:
            raise InputError(
                "num_key_value_heads: expected a divisor of num_attention_heads "
                f"({self.num_attention_heads}); got {self.num_key_value_heads}"
            )
        if self.rope is not None:
            _check_rope(self.rope, self.head_dim)


_COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)


def _check_rope(rope: RopeConfig, head_dim: int) -> None:
    check_option("rope_type", rope.kind, ROPE_TYPES)
    check_positive("rope_theta", rope.theta)
    check_positive("rope factor", rope.factor)
    check_between("partial_rotary_factor", rope.share, 0.0, 1.0, what="a share", open_low=True)
    rotated = int(head_dim * rope.share)
    if rotated % 2 or not rotated:
        raise InputError(f"head_dim: expected an even number for rotary positions; got {rotated}")
    if rope.kind == "llama3" and not rope.low_freq_factor < rope.high_freq_factor:
        raise InputError(
            "high_freq_factor: expected a number above low_freq_factor "
            f"({rope.low_freq_factor:g}); got {rope.high_freq_factor:g}"
        )


def decoder_config(source: Mapping[str, Any] | str | Path) -> DecoderConfig:
    """Return the decoder's shape from a Hugging Face config.

    Parameters
    ----------
    source : mapping, path
        The parsed ``config.json``, its path, or the folder that holds it; a transformers config
        object's ``to_dict()`` is such a mapping. Keys of 4.x (``rope_theta``, ``rope_scaling``)
        and of 5.x (``rope_parameters``) are read; a key left out has transformers' default.

    Returns
    -------
    DecoderConfig

    Raises
    ------
    InputError
        If the file is missing or no JSON object, or asks for an architecture, rotary kind or
        option that the decoder does not compute; the message names the file and the key.

    Examples
    --------
    >>> decoder_config({"model_type": "llama", "rope_scaling": {"rope_type": "yarn"}})
    Traceback (most recent call last):
    ...
    jaxpref._checks.InputError: config: rope_type: expected one of 'default', 'linear', ...
    """
    if isinstance(source, Mapping):
        return _named("config", source)
    path = Path(source)
    path = path / "config.json" if is_folder(path) else path
    return _named(str(path), _read_json(path))


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: expected a config.json; there is no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a readable JSON file; got {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object; got {type(content).__name__}")
    return content


def _named(name: str, keys: Mapping[str, Any]) -> DecoderConfig:
    """Read `keys`, with the file's name in front of every complaint."""
    try:
        kind = check_option("model_type", keys.get("model_type"), tuple(ARCHITECTURES))
        return _gpt2(keys) if kind == "gpt2" else _llama(kind, keys)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{name}: expected a config of transformers; got {error!r}") from None


def _llama(kind: str, given: Mapping[str, Any]) -> DecoderConfig:
    keys = {**_DEFAULTS[kind], **given}
    heads = keys["num_attention_heads"]
    return DecoderConfig(
        architecture=kind,
        num_key_value_heads=keys.get("num_key_value_heads") or heads,
        head_dim=keys.get("head_dim") or keys["hidden_size"] // heads,
        hidden_act=_activation(keys["hidden_act"]),
        norm_eps=float(keys[_EPS[kind]]),
        tie_word_embeddings=bool(keys.get("tie_word_embeddings", False)),
        rope=_rope(keys, partial=kind == "nemotron"),
        sliding_window=keys.get("sliding_window") if kind == "mistral" else None,
        attention_bias=bool(keys.get("attention_bias", False)) and kind != "mistral",
        mlp_bias=bool(keys.get("mlp_bias", False)) and kind != "mistral",
        initializer_range=float(keys["initializer_range"]),
        bos_token_id=keys["bos_token_id"],
        eos_token_ids=_ids(keys["eos_token_id"]),
        **{name: keys[name] for name in _SHARED_COUNTS},
    )


_DEFAULTS = {
    "llama": _LLAMA_DEFAULTS,
    "mistral": _MISTRAL_DEFAULTS,
    "nemotron": _NEMOTRON_DEFAULTS,
}
_EPS = {"llama": "rms_norm_eps", "mistral": "rms_norm_eps", "nemotron": "norm_eps"}
_SHARED_COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


def _gpt2(given: Mapping[str, Any]) -> DecoderConfig:
    keys = {**_GPT2_DEFAULTS, **given}
    for name, needed in _GPT2_NEEDS.items():
        if keys.get(name, needed) != needed:
            raise InputError(f"{name}: expected {needed}; got {keys[name]!r}")
    heads, width = keys["n_head"], keys["n_embd"]
    return DecoderConfig(
        architecture="gpt2",
        vocab_size=keys["vocab_size"],
        hidden_size=width,
        intermediate_size=keys.get("n_inner") or 4 * width,
        num_hidden_layers=keys["n_layer"],
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=keys["n_positions"],
        hidden_act=_activation(keys["activation_function"]),
        norm_eps=float(keys["layer_norm_epsilon"]),
        tie_word_embeddings=bool(keys.get("tie_word_embeddings", True)),
        rope=None,
        attention_bias=True,
        mlp_bias=True,
        initializer_range=float(keys["initializer_range"]),
        bos_token_id=keys["bos_token_id"],
        eos_token_ids=_ids(keys["eos_token_id"]),
    )


_GPT2_NEEDS = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def _activation(name: Any) -> str:
    return check_option("hidden_act", _SAME_ACTIVATION.get(name, name), ACTIVATIONS)


def _ids(value: Any) -> tuple[int, ...]:
    """Return end-of-text ids as a tuple: config files hold one, several or none."""
    if value is None:
        return ()
    return tuple(int(one) for one in (value if isinstance(value, (list, tuple)) else [value]))


def _rope(keys: Mapping[str, Any], *, partial: bool = False) -> RopeConfig:
    """Return the rotary part from `rope_parameters` (5.x) or `rope_scaling` (4.x)."""
    part = keys.get("rope_parameters") or keys.get("rope_scaling") or {}
    kind = check_option("rope_type", part.get("rope_type", part.get("type", "default")), ROPE_TYPES)
    share = part.get("partial_rotary_factor", keys.get("partial_rotary_factor", 1.0))
    share = 1.0 if share is None else float(share)
    if share != 1.0 and not partial:
        raise InputError(
            "partial_rotary_factor: expected 1; a part of a head is rotated only for Nemotron"
        )
    if share != 1.0 and kind != "default":
        raise InputError(f"rope_type: expected 'default' with partial_rotary_factor; got {kind!r}")
    theta = float(part.get("rope_theta") or keys.get("rope_theta") or 10000.0)
    if kind == "default":
        return RopeConfig(theta=theta, share=share)
    needed = ("factor",) if kind == "linear" else _LLAMA3_KEYS
    missing = [name for name in needed if part.get(name) is None]
    if missing:
        raise InputError(f"rope_scaling: expected {missing[0]!r} for rope_type {kind!r}; got none")
    extra = {name: part[name] for name in needed}
    return RopeConfig(kind=kind, theta=theta, **extra)


_LLAMA3_KEYS = (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
)


def config_json(config: DecoderConfig, *, dtype: str = "float32") -> dict[str, Any]:
    """Return the ``config.json`` of a decoder, as transformers 4.x and 5.x read it.

    Parameters
    ----------
    config : DecoderConfig
        The decoder's shape.
    dtype : str
        Type of the stored weights.

    Returns
    -------
    dict
        ``decoder_config`` of it is `config` again.

    Examples
    --------
    >>> shape = decoder_config({"model_type": "mistral"})
    >>> decoder_config(config_json(shape)) == shape
    True
    """
    keys = {
        "architectures": [ARCHITECTURES[config.architecture]],
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": _one_or_list(config.eos_token_ids),
        "torch_dtype": dtype,
    }
    return keys | (_gpt2_keys(config) if config.rope is None else _llama_keys(config, config.rope))


def _one_or_list(ids: tuple[int, ...]) -> int | list[int] | None:
    return (ids[0] if ids else None) if len(ids) < 2 else list(ids)


def _gpt2_keys(config: DecoderConfig) -> dict[str, Any]:
    return {
        "n_positions": config.max_position_embeddings,
        "n_embd": config.hidden_size,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_inner": config.intermediate_size,
        "activation_function": config.hidden_act,
        "layer_norm_epsilon": config.norm_eps,
    }


def _llama_keys(config: DecoderConfig, rope: RopeConfig) -> dict[str, Any]:
    keys = {name: getattr(config, name) for name in _SHARED_COUNTS} | {
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": config.hidden_act,
        _EPS[config.architecture]: config.norm_eps,
        "rope_theta": rope.theta,
        "rope_scaling": _rope_scaling(rope),
    }
    if config.architecture == "nemotron":
        keys["partial_rotary_factor"] = rope.share
    if config.architecture == "mistral":
        return keys | {"sliding_window": config.sliding_window}
    return keys | {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias}


def _rope_scaling(rope: RopeConfig) -> dict[str, Any] | None:
    if rope.kind == "default":
        return None
    needed = ("factor",) if rope.kind == "linear" else _LLAMA3_KEYS
    return {"rope_type": rope.kind} | {name: getattr(rope, name) for name in needed}
