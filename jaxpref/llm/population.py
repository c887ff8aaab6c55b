"""Many trainings in one compiled program: a population that differs in data, seed, beta and rate.

All members start from the same parameters, or train adapters of their own on them
(:mod:`jaxpref.llm.lora`), and read the same table of rows, with the same reference
log-probabilities; what differs between them is a leading axis on :class:`Batches` (which rows, how
their labels read, the learning rates) and on :class:`LossSettings` (beta and its kin). The base
model is loaded once and the program compiled once, whatever the number of members.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from .._checks import InputError, check_count, check_option
from .lora import join
from .losses import LossSettings
from .mesh import copied, spread, spread_params, using
from .rows import Rows
from .training import Batches, Metrics, Recipe, dpo_run, init_state

MODES = ("map", "vmap", "chunks")
Evaluation = Callable[[Any, Any], Any]
"""From a member's parameters and some data to a tree of arrays; hashable, as a function is."""


class Members(NamedTuple):
    """What the members differ in, each leaf with the members on axis 0.

    Attributes
    ----------
    batches : Batches
        Leaves of shape (members, steps, ...); `reversed` may be None for all.
    settings : LossSettings
        Leaves of shape (members,).
    adapters : tree of arrays, optional
        Where each member's adapters start, leaves of shape (members, ...): then they are what
        trains, and the parameters that all share stay as they are, in memory once.
    """

    batches: Batches
    settings: LossSettings
    adapters: Any = None


class Trained(NamedTuple):
    """What is kept of trained members, each leaf with the members on axis 0.

    Attributes
    ----------
    evaluation : tree of arrays
        What the evaluation returned for the trained parameters.
    metrics : Metrics
        Of every step, shape (members, steps).
    """

    evaluation: Any
    metrics: Metrics


def default_mode() -> str:
    """Return how members run unless it is said or measured: in turn on a processor, else at once.

    On a processor the caches hold one small model's activations and not sixteen's, so one after
    the other is fastest there; an accelerator is idle with one small model.
    """
    return "map" if jax.default_backend() == "cpu" else "vmap"


def train_member(
    graphdef: Any,
    params: Any,
    rows: Rows,
    reference_logps: jax.Array,
    member: Members,
    data: Any,
    *,
    recipe: Recipe,
    evaluation: Evaluation,
) -> Trained:
    """Return what is kept of one member: a pure function, with the axis of members left out."""
    start, frozen = params, None
    if member.adapters is not None:
        start, frozen = member.adapters, params
    state = init_state(start, recipe)
    given = (rows, reference_logps, member.batches, member.settings)
    state, metrics = dpo_run(graphdef, state, *given, recipe=recipe, frozen=frozen)
    trained = state.params if frozen is None else join(frozen, state.params)
    return Trained(evaluation(trained, data), metrics)


def train_population(
    graphdef: Any,
    params: Any,
    rows: Rows,
    reference_logps: Any,
    members: Members,
    *,
    recipe: Recipe,
    evaluation: Evaluation,
    data: Any = None,
    mode: str | None = None,
    block: int = 16,
    chunk: int = 4,
    mesh: Mesh | None = None,
) -> Iterator[tuple[range, Trained]]:
    """Train all members, and yield what is kept of each block of them as it is done.

    The arguments are checked at once, not when the first block is asked for.

    Parameters
    ----------
    graphdef, params : nnx.GraphDef, tree of arrays
        The model that every member starts from; where members train adapters, the base and the
        graphdef of the adapted model.
    rows : Rows
        The table that all members' batches number.
    reference_logps : float32, shape (R, completions)
        From :func:`jaxpref.llm.reference.reference_logps`, by the same recipe.
    members : Members
        Leaves with M members on axis 0.
    recipe : Recipe
        The compiled program's.
    evaluation : callable
        ``evaluation(params, data)``: what to keep of a trained policy. It is part of the program;
        the same function object must come again for the program to be used again.
    data : tree of arrays, optional
        What the evaluation reads, the same for all members.
    mode : {"map", "vmap", "chunks"}, optional
        One member after the other; all of a block at once; or `chunk` of them at once.
        :func:`default_mode` when left out.
    block : int
        Members a call of the program; results come, and can be stored, once a block.
    chunk : int
        Members at once in mode "chunks".
    mesh : Mesh, optional
        Devices over whose axis ``population`` the members of a block are split; a block then
        holds a multiple of its size, and each device runs its share by `mode`. Parameters may
        lie split over ``fsdp``, as may each member's rows over ``data``.

    Yields
    ------
    range, Trained
        Which members, and what is kept of them, as NumPy arrays.

    Raises
    ------
    InputError
        If the leaves differ in their number of members, or `mode` is unknown.

    Notes
    -----
    A member's result does not depend on its company: in mode "map" it is that of the member alone
    bit for bit, in the others within rounding: there a policy equal to its reference starts at a
    margin of 1e-7 or so instead of 0, since the reference's log-probabilities were not computed
    side by side.
    """
    mode = check_option("mode", default_mode() if mode is None else mode, MODES)
    count = _members(members)
    block, chunk = min(check_count("block", block), count), check_count("chunk", chunk)
    if mesh is not None:
        ways = mesh.shape["population"]
        block = -(-block // ways) * ways
    train = partial(
        _block,
        graphdef,
        spread_params(params, mesh),
        spread(rows, mesh),
        spread(reference_logps, mesh),
        recipe=recipe,
        evaluation=evaluation,
        mode=mode,
        chunk=chunk,
        mesh=mesh,
    )
    data = spread(data, mesh)

    def run(part: Members) -> Trained:
        with using(mesh):
            return train(part, data)

    return _blocks(run, members, count, block, mesh)


def _blocks(
    train: Callable[[Members], Trained],
    members: Members,
    count: int,
    block: int,
    mesh: Mesh | None,
) -> Iterator[tuple[range, Trained]]:
    for start in range(0, count, block):
        # The last block is filled up with its last member: one shape, one program.
        index = np.minimum(np.arange(start, start + block), count - 1)
        part = jax.tree.map(lambda leaf, at=index: np.asarray(leaf)[at], members)
        found = train(spread(part, mesh))
        new = range(start, min(start + block, count))
        yield new, jax.tree.map(lambda leaf, new=new: np.asarray(leaf)[: len(new)], found)


def _members(members: Members) -> int:
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(members)}
    if len(sizes) != 1 or () in sizes or (0,) in sizes:
        shown = ", ".join(sorted(str(size[0]) if size else "none" for size in sizes))
        raise InputError(
            f"members: expected the same number of members, at least one, on axis 0 of every leaf; "
            f"got {shown}"
        )
    return sizes.pop()[0]


@partial(jax.jit, static_argnames=("graphdef", "recipe", "evaluation", "mode", "chunk", "mesh"))
def _block(
    graphdef: Any,
    params: Any,
    rows: Rows,
    reference_logps: jax.Array,
    members: Members,
    data: Any,
    *,
    recipe: Recipe,
    evaluation: Evaluation,
    mode: str,
    chunk: int,
    mesh: Mesh | None,
) -> Trained:
    if mode != "map":  # members at once would compute every width
        recipe = replace(recipe, widths=())

    def run(params: Any, rows: Rows, reference: jax.Array, data: Any, members: Members) -> Trained:
        def one(member: Members) -> Trained:
            return train_member(
                graphdef,
                params,
                rows,
                reference,
                member,
                data,
                recipe=recipe,
                evaluation=evaluation,
            )

        if mode == "vmap":
            return jax.vmap(one)(members)
        return jax.lax.map(one, members, batch_size=chunk if mode == "chunks" else None)

    arguments = (params, rows, reference_logps, data, members)
    return run(*arguments) if mesh is None else copied(_shared(run, mesh)(*arguments))


def _shared(run: Callable[..., Trained], mesh: Mesh) -> Callable[..., Trained]:
    """Return `run` with its last argument, and its result, split over the axis of members."""
    split, whole = PartitionSpec("population"), PartitionSpec()
    return jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(whole, whole, whole, whole, split),
        out_specs=split,
        axis_names={"population"},
        check_vma=False,  # members are apart: no axis to follow
    )


class ModeTime(NamedTuple):
    """How long one way of running took."""

    mode: str
    seconds_per_step: float
    compile_seconds: float


def measure_modes(
    graphdef: Any,
    params: Any,
    rows: Rows,
    reference_logps: Any,
    members: Members,
    *,
    recipe: Recipe,
    steps: int = 4,
    block: int = 16,
    chunk: int = 4,
    modes: tuple[str, ...] = MODES,
) -> list[ModeTime]:
    """Time a few steps of the first block each way, on this machine; the fastest comes first.

    Parameters as :func:`train_population`; `steps` of each member's first steps are run, after a
    first run that compiles. Nothing is kept.
    """
    first = min(check_count("block", block), _members(members))
    batches = jax.tree.map(lambda leaf: np.asarray(leaf)[:first, :steps], members.batches)
    settings = jax.tree.map(lambda leaf: np.asarray(leaf)[:first], members.settings)
    adapters = jax.tree.map(lambda leaf: np.asarray(leaf)[:first], members.adapters)
    done = min(steps, batches.rows.shape[1])
    found = []
    for mode in modes:
        run = partial(
            train_population,
            graphdef,
            params,
            rows,
            reference_logps,
            Members(batches, settings, adapters),
            recipe=recipe,
            evaluation=_nothing,
            mode=mode,
            block=first,
            chunk=chunk,
        )
        seconds = []
        for _ in range(2):
            begin = time.perf_counter()
            list(run())
            seconds.append(time.perf_counter() - begin)
        found.append(ModeTime(mode, seconds[1] / (first * done), seconds[0] - seconds[1]))
    return sorted(found, key=lambda row: row.seconds_per_step)


def _nothing(params: Any, data: Any) -> Any:
    return jnp.sum(jax.tree.leaves(params)[0])
