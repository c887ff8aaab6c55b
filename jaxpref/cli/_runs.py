"""What the commands that train share: options, folders, and what a run's metrics say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from ..llm.rows import Rows
    from ..llm.trainer import TrainOptions
    from ..report import Table

DATA, LOSS, OPTIMISER, ROWS = "Data", "Loss", "Optimiser", "Rows and memory"
PACKAGES = ("flax", "optax", "orbax.checkpoint", "safetensors", "transformers")
Options = TypeVar("Options")


def option(panel: str, help: str, **rest: Any) -> Any:
    """Return an option that stands under a heading of the help."""
    return typer.Option(help=help, rich_help_panel=panel, **rest)


PolicyLoss = Annotated[
    str,
    option(
        LOSS,
        "dpo, robust_dpo, ipo, ipo_per_token, simpo, rpo, kto_pair, plackett_luce_dpo; or sft, "
        "on the best answer alone.",
        metavar="NAME",
    ),
]


@dataclass(frozen=True)
class Run:
    """How long a run is, in what steps, and how AdamW takes them; of every command that trains."""

    schedule: Annotated[
        str, option(OPTIMISER, "How the rate falls.", metavar="linear|cosine|constant")
    ] = "linear"
    warmup: Annotated[
        int, option(OPTIMISER, "Steps over which it rises, fewer than the run has.")
    ] = 0
    clip_norm: Annotated[float, option(OPTIMISER, "Largest norm of a gradient.")] = 1.0
    weight_decay: Annotated[float, option(OPTIMISER, "Of AdamW.")] = 0.0
    precision: Annotated[
        str,
        option(
            OPTIMISER,
            "All in float32; passes in bfloat16, weights in float32; or both in bfloat16, with "
            "updates rounded at random.",
            metavar="float32|bfloat16|bfloat16-stochastic",
        ),
    ] = "float32"
    steps: Annotated[int | None, option(OPTIMISER, "Steps in all.", show_default="one epoch")] = (
        None
    )
    epochs: Annotated[
        int | None, option(OPTIMISER, "Or passes over the data.", show_default=False)
    ] = None
    batch_size: Annotated[int, option(ROWS, "Prompts at a time.")] = 16
    micro_batch: Annotated[
        int | None,
        option(
            ROWS, "Prompts whose gradient is taken at once.", show_default="2 on a CPU, else all"
        ),
    ] = None


@dataclass(frozen=True)
class Passes:
    """How a step passes through a language model, and what it keeps."""

    optimizer: Annotated[
        str,
        option(OPTIMISER, "AdamW's moments in 4 bytes each, or in one.", metavar="adamw|adamw8bit"),
    ] = "adamw"
    accumulate: Annotated[int, option(ROWS, "Such batches in one step.")] = 1
    remat: Annotated[
        str,
        option(
            ROWS,
            "What the backward pass computes again instead of keeping.",
            metavar="none|dots|full",
        ),
    ] = "none"
    attention: Annotated[
        str | None,
        option(
            ROWS,
            "How attention is computed.",
            show_default="cudnn where it can, else direct",
            metavar="direct|blocked|xla|cudnn",
        ),
    ] = None
    logit_chunk: Annotated[
        int | None,
        option(
            ROWS,
            "Positions of a row projected to the vocabulary at once.",
            show_default="all",
        ),
    ] = None


def checked(kind: Callable[..., Options], *groups: Any) -> Options:
    """Return groups of options as the library's record of them; messages name the flag."""
    from .._checks import InputError

    values = {entry.name: getattr(group, entry.name) for group in groups for entry in fields(group)}
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(as_flag(str(error), values)) from None


def as_flag(message: str, names: Iterable[str]) -> str:
    """Write the name of an option at the head of a message as the flag it is.

    >>> as_flag("batch_size: expected a whole number", ["batch_size"])
    '--batch-size: expected a whole number'
    """
    head = re.match(r"[a-z0-9_]+(, [a-z0-9_]+)*", message)
    if head is None or not set(head[0].split(", ")) <= set(names):
        return message
    flags = ", ".join("--" + name.replace("_", "-") for name in head[0].split(", "))
    return flags + message[head.end() :]


def check_packages(command: str) -> None:
    """Refuse a command whose packages are not installed, and say how they are."""
    from importlib.util import find_spec

    from .._checks import InputError

    for package in PACKAGES:
        if find_spec(package.split(".")[0]) is None or find_spec(package) is None:
            raise InputError(f"{command}: needs {package}: pip install 'jaxpref[llm]'")


def check_out(out: Path, resume: bool) -> None:
    """Refuse a folder that holds something, unless a run in it goes on."""
    from .._checks import InputError

    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is a file; expected a folder, or none yet")
    used = out.is_dir() and any(out.iterdir())
    if used and not resume:
        raise InputError(
            f"--out: {out} is not empty; expected a new folder, or --resume to go on with its run"
        )
    if resume and not (out / "metrics.jsonl").is_file():
        raise InputError(f"--resume: {out} holds no run to go on with (no metrics.jsonl)")


def steps_of(rows: Rows, options: TrainOptions) -> int:
    """Return the steps of a run, or refuse a warm-up as long; before there is a folder for it."""
    from .._checks import InputError
    from ..llm.trainer import planned_steps

    try:
        return planned_steps(rows, options)
    except InputError as error:
        raise InputError(as_flag(str(error), ("warmup",))) from None


def ends_of(metrics: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    """Return the means of a run's metrics over its first and its last tenth.

    >>> ends_of([{"loss": 0.7}, {"loss": 0.6}], ["loss"])
    {'averaged_over_steps': 1, 'metrics': {'first': {'loss': 0.7}, 'last': {'loss': 0.6}}}
    """
    tenth, names = max(1, len(metrics) // 10), tuple(names)
    ends = {"first": metrics[:tenth], "last": metrics[-tenth:]}
    means = {
        end: {name: sum(record[name] for record in records) / tenth for name in names}
        for end, records in ends.items()
    }
    return {"averaged_over_steps": tenth, "metrics": means}


def ends_table(summary: Mapping[str, Any], names: Mapping[str, str], more: str = "") -> Table:
    """Return both ends of a run as a table; `names` has the words for each metric."""
    from ..report import Column, Table

    first, last = summary["metrics"]["first"], summary["metrics"]["last"]
    rows = tuple(
        (words, f"{first[name]:.4g}", f"{last[name]:.4g}") for name, words in names.items()
    )
    columns = (Column("metric"), Column("first", "right"), Column("last", "right"))
    note = f"Means over the first and the last {summary['averaged_over_steps']} steps{more}."
    return Table("Training", columns, rows, note)


def say_left_out(summary: Mapping[str, Any]) -> str:
    """Return a sentence on the records that were not used, or nothing.

    >>> say_left_out({"left_out": {"equal completions": 36}})
    ' Left out: 36 x equal completions.'
    """
    if not summary["left_out"]:
        return ""
    listed = ", ".join(f"{count:,} x {why}" for why, count in summary["left_out"].items())
    return f" Left out: {listed}."
