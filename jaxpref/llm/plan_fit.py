"""Whether a planned training fits, and what the compiler says it takes once it is compiled."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._checks import InputError
from .config import DecoderConfig
from .decoder import REMATS
from .losses import LossSettings
from .plan import Workload, abstract_state, plan_training
from .precision import PRECISIONS
from .rows import Rows
from .trainer import STEPS_PER_CALL, TrainOptions, _advance
from .training import Batches, Recipe

LOGIT_CHUNK = 128
_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12} | {
    f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)
}


class Change(NamedTuple):
    """Options that fit, by name (``fsdp`` is an axis of the mesh), and what it then takes."""

    options: dict[str, Any]
    total: int


def device_memory() -> int | None:
    """Return the bytes of the first device, or of the machine where that is a processor."""
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def parse_memory(text: str) -> int:
    """Return a size in bytes.

    Examples
    --------
    >>> parse_memory("139GiB"), parse_memory("80 GB")
    (149250113536, 80000000000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgtKMGT]?[iI]?[bB]?)\s*", text)
    unit = found[2].upper() if found else ""
    unit = unit if unit in _UNITS or unit.endswith("B") else unit + "B"
    if found is None or unit not in _UNITS or float(found[1]) <= 0:
        raise InputError(f"memory: expected a size as 139GiB or 80GB; got {text!r}")
    return int(float(found[1]) * _UNITS[unit])


def smallest_change(
    config: DecoderConfig,
    options: TrainOptions,
    workload: Workload,
    memory: int,
    *,
    mesh: dict[str, int] | None = None,
    platform: str | None = None,
) -> Change | None:
    """Return the fewest changes of options that fit in `memory`, None where none of these do.

    One change before two, up to four: chunks of logits, recomputing and fewer rows at once, which
    keep the result, before narrower types; more devices only where none of that is enough.
    """
    single = list(_changes(options, mesh or {}, platform or jax.default_backend()))
    fsdp = (mesh or {}).get("fsdp", 1)
    for devices in (fsdp, *(n for n in (2, 4, 8) if n > fsdp)):
        if config.hidden_size % devices or (options.batch_size % devices and devices > 1):
            continue
        more = {} if devices == fsdp else {"fsdp": devices}

        def total(change: dict[str, Any], more: dict[str, int] = more) -> int:
            wider = {**(mesh or {}), **more}
            changed = replace(options, **change)
            return plan_training(config, changed, workload, mesh=wider, platform=platform).total

        if min(map(total, _all_of(single))) > memory:
            continue
        for count in range(1 - bool(more), 5):
            for picked in combinations(single, count):
                change = {name: value for one in picked for name, value in one.items()}
                if len(change) == count and total(change) <= memory:  # not twice one option
                    return Change({**change, **more}, total(change))
    return None


def _all_of(single: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every change at once, the last of each option; and that without the optimizer's."""
    every = {name: value for one in single for name, value in one.items()}
    return [every, {name: value for name, value in every.items() if name != "optimizer"}]


def _changes(
    options: TrainOptions, mesh: dict[str, int], platform: str
) -> Iterator[dict[str, Any]]:
    if options.logit_chunk is None:
        yield {"logit_chunk": LOGIT_CHUNK}
    yield from ({"remat": remat} for remat in REMATS[REMATS.index(options.remat) + 1 :])
    ways = mesh.get("data", 1) * mesh.get("fsdp", 1)
    size = options.micro_batch or options.batch_size
    if options.loss != "kto_pair":
        for least in sorted({size // 2, ways}, reverse=True):
            if ways <= least < size and least % ways == 0 and size % least == 0:
                yield {"micro_batch": least}
    if platform != "cpu":
        names = PRECISIONS[PRECISIONS.index(options.precision) + 1 :]
        yield from ({"precision": name} for name in names)
    if options.optimizer == "adamw":
        yield {"optimizer": "adamw8bit"}


def compiled_bytes(
    config: DecoderConfig, options: TrainOptions, workload: Workload, recipe: Recipe
) -> int:
    """Return what the compiler says a step takes on this machine; it compiles, and runs nothing.

    Arguments, results that are not arguments again, and what it holds in between, of the program
    that :func:`jaxpref.llm.trainer.train_preferences` runs.

    Parameters
    ----------
    config, options, workload
        As in :func:`jaxpref.llm.plan.plan_training`.
    recipe : Recipe
        The training's own, as ``options.recipe`` returns it.
    """
    graphdef, state, frozen = abstract_state(config, options, recipe)
    batch = options.batch_size * options.accumulate
    count = workload.rows or batch

    def array(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    rows = Rows(*(array(count, workload.width, dtype=jnp.int32),) * 3)
    reference = array(count, workload.completions)
    batches = Batches(
        array(STEPS_PER_CALL, batch, dtype=jnp.int32),
        array(STEPS_PER_CALL, batch),
        None,
        array(STEPS_PER_CALL),
    )
    lowered = _advance.lower(
        state,
        (rows, reference),
        batches,
        LossSettings(*(array(),) * 4),
        array(dtype=jnp.int32),
        kind="dpo",
        graphdef=graphdef,
        recipe=recipe,
        frozen=frozen,
    )
    found = lowered.compile().memory_analysis()
    assert found is not None  # every backend that is planned for has one
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + results + found.temp_size_in_bytes
