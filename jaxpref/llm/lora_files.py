"""Adapters on disk, in PEFT's layout: ``adapter_model.safetensors`` and ``adapter_config.json``.

PEFT loads the folder on top of the base with ``PeftModel.from_pretrained(model, folder)``; what
PEFT wrote for a Llama or Mistral, without its further inventions, is read here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .._checks import InputError, closest_names
from ._folders import is_folder, replace_folder
from ._names import places
from .config import DecoderConfig
from .lora import TARGETS, Adapters, LoraOptions, adapter_shapes

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_UNREAD = {
    "use_rslora": False,
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "fan_in_fan_out": False,
}
"""What a PEFT config may only say if it says nothing."""


def save_adapters(
    adapters: Adapters,
    options: LoraOptions,
    config: DecoderConfig,
    directory: Path | str,
    *,
    base: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write adapters so that PEFT, and :func:`load_adapters`, read them.

    Parameters
    ----------
    adapters : dict
        As :mod:`jaxpref.llm.lora` has them.
    options : LoraOptions
    config : DecoderConfig
        Of the base.
    directory : path
        Written beside it and renamed when complete, as by :func:`jaxpref.llm.save_model`.
    base : str, optional
        Name or folder of the base model, for the record.
    overwrite : bool
        Replace the folder.

    Returns
    -------
    Path
        `directory`.

    Raises
    ------
    InputError
        If the folder is not empty, or cannot be written; or the base is a GPT-2, whose fused
        projections PEFT adapts as one (its merged model can be saved).
    """
    directory = Path(directory)
    check_peft(config)
    there = is_folder(directory)
    if directory.exists() and (not there or any(directory.iterdir())):
        if not (overwrite and there):
            raise InputError(f"{directory}: expected an empty folder, or none yet; it has files")
    names = _modules(config, options)
    tensors = {
        name: np.ascontiguousarray(np.asarray(array, np.float32).T)
        for target, module in names.items()
        for name, array in _tensors(adapters[TARGETS[target]][target], module)
    }
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{directory.name}.", dir=directory.parent, ignore_cleanup_errors=True
        ) as parent:
            made = Path(parent) / directory.name
            made.mkdir()
            save_file(tensors, made / WEIGHTS, metadata={"format": "pt"})
            text = json.dumps(_peft_config(options, names, base), indent=2) + "\n"
            (made / CONFIG).write_text(text, encoding="utf-8")
            replace_folder(made, directory)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{directory}: cannot be written: {error}") from None
    return directory


def check_peft(config: DecoderConfig) -> None:
    """Raise InputError where PEFT's layout cannot hold a model's adapters."""
    if config.rope is None:
        raise InputError(
            "adapters: PEFT adapts the fused projections of a gpt2 as one, so these have no place "
            "in its layout; expected a llama or mistral (a merged model can be saved of either)"
        )


def load_adapters(directory: Path | str, config: DecoderConfig) -> tuple[LoraOptions, Adapters]:
    """Read adapters from a folder that :func:`save_adapters` or PEFT wrote.

    Parameters
    ----------
    directory : path
    config : DecoderConfig
        Of the base they belong to.

    Returns
    -------
    LoraOptions, dict

    Raises
    ------
    InputError
        If a file is missing or unreadable, the config asks for more than plain LoRA, or the
        tensors are not those of the base.
    """
    directory = Path(directory)
    check_peft(config)
    is_folder(directory)  # put back, where a killed process left it aside
    try:
        stated = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(directory / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{directory}: expected {CONFIG} and {WEIGHTS} as PEFT writes them; got {error}"
        ) from None
    options = _options(stated, config, directory / CONFIG)
    shapes = adapter_shapes(config, options)
    found: Adapters = {}
    for target, module in _modules(config, options).items():
        layers, inside, outside = shapes[target]
        pair = {
            "lora_a": (layers, options.rank, inside),
            "lora_b": (layers, outside, options.rank),
        }
        found.setdefault(TARGETS[target], {})[target] = {
            side: _stack(tensors, module, side, shape, directory) for side, shape in pair.items()
        }
    if tensors:
        raise InputError(
            f"{directory / WEIGHTS}: unexpected tensor {sorted(tensors)[0]} ({len(tensors)} in all)"
        )
    return options, found


def _modules(config: DecoderConfig, options: LoraOptions) -> dict[str, str]:
    """Return the module of each target in the model's file, ``{}`` for the layer."""
    there = places(config)
    return {
        name: there["layers", TARGETS[name], name, "kernel"].name.removesuffix(".weight")
        for name in adapter_shapes(config, options)
    }


def _name(module: str, side: str, layer: int) -> str:
    return f"{_PREFIX}{module.format(layer)}.lora_{side[-1].upper()}.weight"


def _tensors(pair: Mapping[str, jax.Array], module: str) -> Iterator[tuple[str, jax.Array]]:
    for side, stack in pair.items():
        yield from ((_name(module, side, layer), stack[layer]) for layer in range(len(stack)))


def _stack(
    tensors: dict[str, np.ndarray],
    module: str,
    side: str,
    shape: tuple[int, ...],
    directory: Path,
) -> jax.Array:
    """Take a target's tensors out of those read."""
    parts = []
    for layer in range(shape[0]):
        name = _name(module, side, layer)
        if name not in tensors:
            raise InputError(
                f"{directory / WEIGHTS}: missing tensor {name}{closest_names(name, tensors)}"
            )
        part = tensors.pop(name)
        if part.shape != shape[1:]:
            raise InputError(
                f"{directory / WEIGHTS}: tensor {name}: expected shape {shape[1:]}; "
                f"got {part.shape}"
            )
        parts.append(part.T)
    return jnp.asarray(np.stack(parts), jnp.float32)


def _peft_config(
    options: LoraOptions, names: Mapping[str, str], base: str | None
) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": options.rank,
        "lora_alpha": options.rank if options.alpha is None else options.alpha,
        "lora_dropout": 0.0,
        "target_modules": [module.rsplit(".", 1)[1] for module in names.values()],
        "init_lora_weights": True,
        **_UNREAD,
    }


def _options(stated: Any, config: DecoderConfig, path: Path) -> LoraOptions:
    """Return the options that a PEFT config states."""
    if not isinstance(stated, dict) or stated.get("peft_type") != "LORA":
        raise InputError(f"{path}: expected peft_type LORA")
    for name, nothing in _UNREAD.items():
        if stated.get(name) and stated[name] != nothing:
            raise InputError(f"{path}: {name}: expected {nothing}; got {stated[name]}")
    every = _modules(config, LoraOptions(rank=1))
    ours = {module.rsplit(".", 1)[1]: name for name, module in every.items()}
    targets = stated.get("target_modules")
    if targets == "all-linear":
        targets = list(ours)
    unknown = [name for name in targets or [] if name not in ours]
    if not isinstance(targets, list) or not targets or unknown:
        raise InputError(
            f"{path}: target_modules: expected some of {', '.join(ours)}; got {targets}"
        )
    chosen = tuple(name for module, name in ours.items() if module in targets)
    try:
        rank, alpha = int(stated["r"]), float(stated["lora_alpha"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: expected numbers r and lora_alpha") from None
    try:
        return LoraOptions(rank, None if alpha == rank else alpha, chosen)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
