"""What every kind of sweep shares: one compiled program, processes, files, and how it goes on.

A kind of sweep (:class:`Task`) says what was asked, reads its input, and turns a block of trained
members into records. :func:`drive` does the rest; nothing is written before a task has read its
input and scored it under the reference, and so before it is known to be good.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import ConvergenceError, InputError, check_count, check_option
from .checkpoints import load_model
from .decoder import LanguageModel
from .lora import LoraOptions, adapted_model, adapters_off, initial_adapters
from .population import MODES, Evaluation, Members, Trained, measure_modes, train_population
from .reference import digest
from .rows import Rows
from .sweep_files import CACHE, append_members, check_sweep, open_sweep, read_members
from .training import Metrics, Recipe

Progress = Callable[[int, int], None]
Report = Callable[[list[dict[str, Any]]], None]
MEASURED = "measured"
WIDTHS = 4
"""Widths to which a part of a step is cut on a processor: each is compiled."""


@runtime_checkable
class Named(Protocol):
    """A member of any sweep: its name, by which results are found, and the seed of its training."""

    @property
    def name(self) -> str:
        """The member in one line."""
        ...

    @property
    def seed(self) -> int:
        """Of the adapters' start, and of what else the kind of sweep says."""
        ...


@runtime_checkable
class Task(Protocol):
    """A kind of sweep; what it holds is sent to other processes."""

    def asked(self) -> dict[str, Any]:
        """Return what a resumed sweep must ask for again."""
        ...

    def prepare(self, cache: Path) -> Any:
        """Return what every member starts from, or raise where the input will not do."""
        ...

    def run(self, setting: Any, members: Sequence[Any], report: Report) -> None:
        """Train members in this process, and report their records block by block."""
        ...


class Start(NamedTuple):
    """What every member of any sweep starts from, on the device."""

    model: LanguageModel
    """Where members train adapters: the parameters are the base's, the graphdef is that of the
    adapted model."""
    rows: Rows
    reference_logps: np.ndarray
    recipe: Recipe
    lora: LoraOptions | None = None


def check_names(members: Sequence[Named]) -> None:
    """Raise where there are no members, or two of one name: results are found by it."""
    names = [member.name for member in members]
    if not names:
        raise InputError("members: expected at least one; got none")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"members: {twice} occurs twice")


def check_running(mode: str | None, block: int | None) -> None:
    """Raise where there is no such way of running members."""
    if block is not None:
        check_count("block", block)
    if mode is not None:
        check_option("mode", mode, (*MODES, MEASURED))


def members_a_block(block: int | None) -> int:
    """Return the members between two writes of results, by default."""
    return block or (4 if jax.default_backend() == "cpu" else 63)


def model_digest(directory: Path | str) -> str:
    """Return a hash of a checkpoint's weights and shape; the weights are let go again."""
    model = load_model(directory)
    return digest(model.params, model.config)


def load_start(
    directory: Path, lora: LoraOptions | None, *, dtype: str = "float32"
) -> tuple[LanguageModel, LanguageModel]:
    """Return the model that members start from, and the one that is scored as their reference.

    They are the same but with adapters: then the members' graphdef is that of the adapted model,
    and the reference is the policies' own program, with adapters that add nothing.
    """
    model = load_model(directory, dtype=dtype)
    if lora is None:
        return model, model
    scored = adapted_model(model, lora, adapters_off(model.config, lora))
    return model._replace(graphdef=scored.graphdef), scored


def train_blocks(
    start: Start,
    members: Members,
    *,
    seeds: Sequence[int],
    evaluation: Evaluation,
    data: Any,
    mode: str | None,
    block: int | None,
) -> Iterator[tuple[range, Trained]]:
    """Train members, adapters by their seeds, and yield what is kept of each block.

    Parameters as :func:`jaxpref.llm.population.train_population`; `mode` may be "measured".
    """
    adapters = None
    if start.lora is not None:
        config, lora = start.model.config, start.lora
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        adapters = jax.vmap(lambda key: initial_adapters(config, lora, key))(keys)
    given = (
        start.model.graphdef,
        start.model.params,
        start.rows,
        start.reference_logps,
        members._replace(adapters=adapters),
    )
    block = members_a_block(block)
    if mode == MEASURED:
        mode = measure_modes(*given, recipe=start.recipe, steps=2, block=block)[0].mode
    return train_population(
        *given, recipe=start.recipe, evaluation=evaluation, data=data, mode=mode, block=block
    )


def last_steps(metrics: Metrics, at: int) -> dict[str, float]:
    """Return the means of a member's metrics over the last tenth of its steps."""
    tail = slice(-max(1, metrics.loss.shape[1] // 10), None)
    return {name: float(np.mean(values[at][tail])) for name, values in metrics._asdict().items()}


def drive(
    task: Task,
    members: Sequence[Named],
    out: Path,
    *,
    processes: int = 1,
    resume: bool = False,
    noted: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Run a sweep in a folder, or what is left of it, and return all records in members' order.

    Parameters
    ----------
    task : Task
    members : sequence of named members
    out : path
    processes : int
        Processes of one core each.
    resume : bool
        Go on in a folder that holds results of the same sweep.
    noted : dict, optional
        What else ``sweep.json`` says, and a resumed sweep is not held to.
    progress : callable, optional
        Called with (members done, members).

    Raises
    ------
    InputError
        As :func:`jaxpref.llm.sweep_files.check_sweep`, or as the task does.
    ConvergenceError
        If one of several processes stopped; what is done is kept.
    """
    processes, asked = check_count("processes", processes), task.asked()
    check_sweep(out, asked, resume)
    done = read_members(out)
    todo = [member for member in members if member.name not in done]
    if progress is not None:
        progress(len(members) - len(todo), len(members))
    if todo:
        setting = task.prepare(out / CACHE)
        open_sweep(out, {**asked, **(noted or {})})
        if min(processes, len(todo)) == 1:
            _here(task, setting, todo, out, len(members), progress)
        else:
            del setting  # every process makes its own, with the reference from the cache
            _apart(task, todo, out, min(processes, len(todo)), len(members), progress)
        done = read_members(out)
    return [done[member.name] for member in members]


def _here(
    task: Task,
    setting: Any,
    todo: Sequence[Named],
    out: Path,
    total: int,
    progress: Progress | None,
) -> None:
    """Run the members in this process."""
    done = total - len(todo)

    def report(records: list[dict[str, Any]]) -> None:
        nonlocal done
        append_members(out / "members.jsonl", records)
        done += len(records)
        if progress is not None:
            progress(done, total)

    task.run(setting, todo, report)


def _apart(
    task: Task,
    todo: Sequence[Named],
    out: Path,
    processes: int,
    total: int,
    progress: Progress | None,
) -> None:
    """Run the members in several processes, each of which takes every n-th."""
    context = multiprocessing.get_context("spawn")
    wide = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    workers = [
        context.Process(target=_worker, args=(task, todo[k::processes], out, k, wide), daemon=True)
        for k in range(processes)
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.5)
        if progress is not None:
            progress(total - len(todo) + _count(out, todo), total)
    failed = [str(k + 1) for k, worker in enumerate(workers) if worker.exitcode]
    if failed:
        raise ConvergenceError(
            f"process {' and '.join(failed)} of {processes} stopped before its members were done; "
            f"what is done is in {out}, and resuming goes on from there"
        )


def _count(out: Path, members: Sequence[Named]) -> int:
    done = read_members(out)
    return sum(member.name in done for member in members)


def _worker(task: Task, members: Sequence[Named], out: Path, number: int, wide: bool) -> None:
    """Run a share of the members on one core of those this process may use."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    path = out / f"members-{number + 1}.jsonl"
    with jax.enable_x64(wide):  # as in the process that started this one
        setting = task.prepare(out / CACHE)
        task.run(setting, members, lambda records: append_members(path, records))
