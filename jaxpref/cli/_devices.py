"""Where a run takes place, and what it takes there: meshes, several processes, ``--plan``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from ..llm.plan import Plan, Workload
    from ..llm.plan_fit import Change
    from ..llm.trainer import TrainOptions
    from ..report import Table

DEVICES = "Devices"


def _option(help: str, **rest: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=DEVICES, show_default=False, **rest)


@dataclass(frozen=True)
class Devices:
    """Options of where a run takes place."""

    mesh: Annotated[
        str | None,
        _option(
            "Split the run over devices: rows over data and fsdp, weights over fsdp.",
            metavar="data=2,fsdp=4",
        ),
    ] = None
    distributed: Annotated[
        str | None,
        _option(
            "Be one of several processes that make the same call: where process 0 listens, this "
            "one's number from 0, and how many; or auto, under Slurm and Open MPI.",
            metavar="auto|HOST:PORT,INDEX,COUNT",
            envvar="JAXPREF_DISTRIBUTED",
        ),
    ] = None
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Print the memory and operations of the run and do nothing; needs no weights, and "
            "--data only for its lengths. Exit code 2 where it does not fit.",
            rich_help_panel=DEVICES,
        ),
    ] = False
    memory: Annotated[
        str | None,
        _option(
            "With --plan: memory of each device of an accelerator that is not at hand.",
            metavar="139GiB",
        ),
    ] = None

    def join(self) -> None:
        """Join the other processes, if there are any: before anything is computed."""
        from .._checks import InputError

        if self.memory is not None and not self.plan:
            raise InputError("--memory: expected together with --plan")
        if self.distributed is not None:
            from ..llm.distributed import join

            with _flags():
                join(self.distributed)

    def sizes(self) -> dict[str, int]:
        """Return the mesh's axes that were asked for."""
        from .._checks import InputError
        from ..llm.mesh import parse_mesh

        with _flags():
            sizes = {} if self.mesh is None else parse_mesh(self.mesh)
            if sizes.get("population", 1) > 1:
                raise InputError("mesh: expected data and fsdp; one run has no population")
        return sizes

    def build(self) -> Mesh | None:
        """Return the mesh: what was asked for, or all devices of several processes."""
        import jax

        from ..llm.mesh import make_mesh

        sizes = self.sizes()
        if not sizes and jax.process_count() > 1:
            sizes = {"data": jax.device_count()}
        with _flags():
            return make_mesh(**sizes) if sizes else None


@contextmanager
def _flags() -> Iterator[None]:
    """Write the names of these options at the head of a message as the flags they are."""
    from .._checks import InputError

    try:
        yield
    except InputError as error:
        if str(error).split(":")[0] in ("mesh", "distributed", "memory"):
            raise InputError(f"--{error}") from None
        raise


def plan(
    model: Path, options: TrainOptions, workload: Workload, devices: Devices, *, json: bool
) -> None:
    """Print a run's budget; raise InputError, naming what would fit, where it does not."""
    from .._checks import InputError
    from ..llm.config import decoder_config
    from ..llm.plan import plan_training
    from ..llm.plan_fit import device_memory, parse_memory, smallest_change

    config, sizes = decoder_config(model), devices.sizes()
    platform = None if devices.memory is None else "gpu"
    with _flags():
        memory = device_memory() if devices.memory is None else parse_memory(devices.memory)
    found = plan_training(config, options, workload, mesh=sizes, platform=platform)
    fits = memory is None or found.total <= memory
    change = None
    if not fits and memory is not None:
        with _terminal.working("Looking for what fits"):
            change = smallest_change(
                config, options, workload, memory, mesh=sizes, platform=platform
            )
    if json:
        _terminal.show_json({"command": "dpo", **_summary(found, workload, memory, fits, change)})
    else:
        _terminal.show(_table(found, model, workload, sizes))
        _terminal.say(_operations(found))
        if memory is not None and fits:
            _terminal.say(f"Fits: {_size(found.total)} of {_size(memory)} a device.")
    if not fits:
        assert memory is not None
        raise InputError(
            f"--plan: takes {_size(found.total)} a device, which has {_size(memory)}; "
            + (
                "nothing that was tried makes it fit: a shorter --max-length, or more devices?"
                if change is None
                else f"with {_words(change)} it would take {_size(change.total)}"
            )
        )


def _size(size: int) -> str:
    """Write bytes in the unit that leaves one to three digits before the point.

    >>> _size(139 << 30), _size(3 << 19)
    ('139.0 GiB', '1.5 MiB')
    """
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size = size / 1024  # type: ignore[assignment]
    return f"{size:,.1f} GiB"


def _words(change: Change) -> str:
    """Return a change as flags."""
    found = []
    for name, value in change.options.items():
        if name == "fsdp":
            found.append(f"--mesh fsdp={value}")
        else:
            found.append(f"--{name.replace('_', '-')} {value}")
    return " ".join(found)


def _table(found: Plan, model: Path, workload: Workload, sizes: dict[str, int]) -> Table:
    from ..report.tables import Column, Table

    rows = tuple((item.name, _size(item.bytes), item.note) for item in found.items)
    rows += (("total", _size(found.total), "at the peak"),)
    mesh = ", ".join(f"{name}={size}" for name, size in sizes.items()) or "one device"
    note = (
        f"On each device ({mesh}); rows of {workload.width:,} tokens, logits at "
        f"{workload.completion or workload.width:,} of them; attention by {found.recipe.attention}."
    )
    columns = (Column("memory"), Column("size", "right"), Column("what"))
    return Table(f"Plan of {model}", columns, rows, note)


def _operations(found: Plan) -> str:
    each = found.tokens
    text = (
        f"A step of {each:,} tokens: {found.model_flops / 1e12:,.3g} TFLOP (6 N a token, N = "
        f"{found.parameters:,}), "
    )
    if found.hardware_flops > found.model_flops:
        text += f"{found.hardware_flops / 1e12:,.3g} with layers computed again (8 N), "
    return text + f"and {found.attention_flops / 1e12:,.3g} of attention besides."


def _summary(
    found: Plan, workload: Workload, memory: int | None, fits: bool, change: Change | None
) -> dict[str, Any]:
    return {
        "plan": [item._asdict() for item in found.items],
        "total_bytes": found.total,
        "memory_bytes": memory,
        "fits": fits,
        "change": None if change is None else {**change.options, "total_bytes": change.total},
        "parameters": found.parameters,
        "tokens_per_step": found.tokens,
        "row_width": workload.width,
        "model_flops": found.model_flops,
        "hardware_flops": found.hardware_flops,
        "attention_flops": found.attention_flops,
    }
