"""Training runs on the host: steps in calls of a few, metrics, checkpoints, and how a run goes on.

The steps are those of :mod:`jaxpref.llm.training`. A call takes a number of steps that is not part
of the compiled program, so where the calls begin and end, and where a run was stopped and went on,
changes no bit of the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._checks import (
    ConvergenceError,
    InputError,
    check_count,
)
from .attention import best_attention
from .batches import Plan, check_warmup, learning_rates, plan_batches
from .decoder import LanguageModel
from .distributed import is_first, wait
from .lora import (
    adapted_graphdef,
    adapted_model,
    adapters_off,
    base_dtype,
    initial_adapters,
    merged_model,
)
from .losses import LOSSES, LossSettings
from .mesh import (
    check_mesh,
    copied,
    param_shardings,
    row_devices,
    split_params,
    spread,
    spread_params,
    using,
)
from .metrics import MetricsLog, read_metrics
from .reference import digest, reference_logps
from .resume import differences, latest_checkpoint, load_checkpoint, save_checkpoint
from .reward_losses import REWARD_LOSSES
from .rows import Rows, completion_width, row_lengths, split_by_width
from .train_options import TrainOptions
from .training import (
    NO_REFERENCE,
    Batches,
    Recipe,
    TrainState,
    dpo_step,
    init_state,
    sft_step,
)

Progress = Callable[[int, int], None]
STEPS_PER_CALL = 8
WIDTHS, STEPS_PER_WIDTH = 4, 50


class DivergedError(ConvergenceError):
    """The loss or its gradient is not finite; the message names the step and what is left."""


class TrainResult(NamedTuple):
    """A finished run."""

    model: LanguageModel
    """The policy; a trained adapter is merged into it."""
    metrics: list[dict[str, Any]]
    """One record a step: step, epoch, learning_rate and the step's metrics."""
    steps: int
    tokens: int
    """Tokens in the rows that this call trained on, padding left out."""
    seconds: float
    adapters: Any = None
    """As :mod:`jaxpref.llm.lora` has them, where they were what was trained."""


class _Part(NamedTuple):
    """Rows of one width, on the device, with what their steps need."""

    rows: Rows
    reference: jax.Array
    recipe: Recipe
    lengths: np.ndarray


def train_preferences(
    model: LanguageModel,
    rows: Rows,
    *,
    completions: int = 2,
    options: TrainOptions | None = None,
    reference: LanguageModel | None = None,
    plan: Plan | None = None,
    out: Path | None = None,
    save_every: int | None = None,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a policy on preferences, from `model`, which is also its reference.

    Parameters
    ----------
    model : LanguageModel
        Where the policy starts.
    rows : Rows
        Shared rows, `completions` each.
    completions : int
    options : TrainOptions, optional
    reference : LanguageModel, optional
        The reference, where it is not `model`.
    plan : Plan, optional
        Order of the data over the rows as they are given (`part` 0 throughout), instead of
        shuffled epochs; they are then not sorted by width.
    out : path, optional
        Folder for ``metrics.jsonl``, ``checkpoints/`` and the cache of the reference.
    save_every : int, optional
        Steps between checkpoints, at least 1; only the last when left out.
    resume : bool
        Go on from the last checkpoint in `out`.
    identity : mapping, optional
        More settings to hold a resumed run to.
    mesh : Mesh, optional
        From :func:`jaxpref.llm.mesh.make_mesh`: the devices that share the run. It changes the
        result only by rounding, and a run may go on on another. Every process of several makes
        the same call; the first writes.
    progress : callable, optional
        Called with steps done and in all.

    Returns
    -------
    TrainResult

    Raises
    ------
    DivergedError
        Where the loss or its gradient is not finite, naming the step. The last checkpoint stays.
    CheckpointError, InputError
        Where a file cannot be written or read, or a resumed run has other settings.
    """
    options = options or TrainOptions()
    model = model._replace(params=spread_params(model.params, mesh))
    source = scored = model
    if reference is not None:
        source = scored = reference._replace(params=spread_params(reference.params, mesh))
    elif options.lora is not None:  # the policy's own program, with adapters that add nothing
        scored = adapted_model(model, options.lora, adapters_off(model.config, options.lora))
    parts, plan = _prepare(model, rows, completions, options, plan, mesh)
    if options.loss not in NO_REFERENCE:
        cache = None if out is None else out / "reference"
        parts = [_with_reference(part, scored, options, cache, mesh) for part in parts]
    run = _Run("dpo", model, parts, plan, options, out, save_every, mesh, progress)
    return run.go(resume, {**(identity or {}), "reference": digest(source.params, source.config)})


def supervised_fine_tune(
    model: LanguageModel,
    rows: Rows,
    *,
    completions: int = 2,
    options: TrainOptions | None = None,
    plan: Plan | None = None,
    out: Path | None = None,
    save_every: int | None = None,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Fine-tune a model on all completions of the rows, each token at equal weight.

    For templates with both winners in a row, 600 steps of 48 rows with
    ``TrainOptions(learning_rate=4e-3, schedule="cosine", warmup=60, steps=600, batch_size=48)``
    bring a model of 260,000 weights to answer in format and without preference. Parameters and
    errors as :func:`train_preferences`.
    """
    options = replace(options or TrainOptions(), loss="sft")
    model = model._replace(params=spread_params(model.params, mesh))
    parts, plan = _prepare(model, rows, completions, options, plan, mesh)
    run = _Run("sft", model, parts, plan, options, out, save_every, mesh, progress)
    return run.go(resume, identity or {})


def fitting_recipe(
    model: LanguageModel, completions: int, options: TrainOptions, mesh: Mesh | None = None
) -> Recipe:
    """Return what fixes a run's program on these devices; parameters as :func:`train_preferences`.

    Raises
    ------
    InputError
        If the loss cannot take so many completions or is that of a reward model, cuDNN is asked for
        where it cannot be used, or the mesh does not divide the model or the rows that are taken at
        once.
    """
    if options.loss in REWARD_LOSSES and "backbone" not in model.params:
        policies = ", ".join(repr(name) for name in LOSSES if name not in REWARD_LOSSES)
        raise InputError(
            f"loss: {options.loss!r} is that of a reward model; expected one of {policies}"
        )
    devices = 1 if mesh is None else row_devices(mesh)
    recipe = options.recipe(completions, model.config.sliding_window, devices=devices)
    if mesh is not None:
        check_mesh(mesh, model.config, recipe.micro_batch or options.batch_size)
    head_dim = model.config.head_dim
    best = best_attention(options.compute_dtype or "float32", head_dim)
    if options.attention == "cudnn" and best != "cudnn":
        raise InputError(
            "attention: 'cudnn' needs a GPU, passes in bfloat16 and heads of a multiple of 8 up to "
            f"128; got {jax.default_backend()}, {options.precision} and {head_dim}"
        )
    return replace(recipe, attention=options.attention or best)


def _prepare(
    model: LanguageModel,
    rows: Rows,
    completions: int,
    options: TrainOptions,
    plan: Plan | None,
    mesh: Mesh | None,
) -> tuple[list[_Part], Plan]:
    """Return the rows by width on the device, and the order of the data."""
    recipe = fitting_recipe(model, completions, options, mesh)
    pieces = [rows] if plan is not None else _few_widths(rows, _steps(options, rows))
    none = spread(np.zeros((1, completions), np.float32), mesh)
    parts = []
    for piece in pieces:
        lengths, width = row_lengths(piece), completion_width(piece)
        table = Rows(*(spread(field, mesh) for field in piece))
        parts.append(_Part(table, none, replace(recipe, logit_width=width), lengths))
    if plan is None:
        epochs = 1 if options.steps is None and options.epochs is None else options.epochs
        plan = plan_batches(
            jax.random.key(options.seed),
            [len(part.lengths) for part in parts],
            batch_size=options.batch_size * options.accumulate,
            steps=options.steps,
            epochs=epochs,
        )
    check_warmup(options.warmup, len(plan.rows))  # before anything is written
    return parts, plan


def planned_steps(rows: Rows, options: TrainOptions) -> int:
    """Return the steps of a run over all of the rows, without a plan of one's own.

    Raises
    ------
    InputError
        If its warm-up is as long.

    Examples
    --------
    >>> rows = Rows(*(np.ones((5, 8), np.int32) for _ in range(3)))
    >>> planned_steps(rows, TrainOptions(batch_size=2, epochs=3))
    9
    """
    steps = options.steps
    if steps is None:
        size = options.batch_size * options.accumulate
        parts = _few_widths(rows, _steps(options, rows))
        steps = sum(-(-len(part.tokens) // size) for part in parts) * (options.epochs or 1)
    check_warmup(options.warmup, steps)
    return steps


def _steps(options: TrainOptions, rows: Rows) -> int:
    """Return about how many steps a run takes (batches that are not full may add a few)."""
    per_epoch = -(-len(rows.tokens) // (options.batch_size * options.accumulate))
    return options.steps or per_epoch * (options.epochs or 1)


def _few_widths(rows: Rows, steps: int) -> list[Rows]:
    """Split rows by width into a few parts, for each is a program to compile.

    One part a :data:`STEPS_PER_WIDTH` steps, :data:`WIDTHS` at most; of the widths that the rows
    call for, those are dropped that cost the least padding.
    """
    found = split_by_width(rows)
    most = min(WIDTHS, max(1, steps // STEPS_PER_WIDTH))
    widths = [(piece.width, len(index)) for index, piece in found]
    while len(widths) > most:
        padding = [
            (wider - width) * count
            for (width, count), (wider, _) in zip(widths, widths[1:], strict=False)
        ]
        at = int(np.argmin(padding))
        (_, few), (width, more) = widths[at : at + 2]
        widths[at : at + 2] = [(width, few + more)]
    kept = np.array([width for width, _ in widths])
    needed = np.zeros(len(rows.tokens), int)
    for index, piece in found:
        needed[index] = kept[np.searchsorted(kept, piece.width)]
    parts = (Rows(*(np.asarray(field)[needed == width] for field in rows)) for width in kept)
    return [trim_rows(part) for part in parts]


def trim_rows(rows: Rows) -> Rows:
    """Return rows as wide as the longest needs: a multiple of 8, but none of 128.

    At 128 a step on a processor took 1.16 times as long as at 136: powers of two fall on the same
    places of its cache.

    >>> rows = Rows(*(np.ones((2, 64), np.int32) for _ in range(3)))
    >>> trim_rows(rows._replace(segments=np.tile(np.arange(64) < 37, (2, 1)).astype(int))).width
    40
    """
    longest = int(np.max(row_lengths(rows)))
    width = -(-longest // 8) * 8
    width += 8 * (width % 128 == 0)
    cut = (np.asarray(field)[:, :longest] for field in rows)
    return Rows(*(np.pad(field, ((0, 0), (0, width - longest))) for field in cut))


def _with_reference(
    part: _Part, model: LanguageModel, options: TrainOptions, cache: Path | None, mesh: Mesh | None
) -> _Part:
    found = reference_logps(
        model.graphdef,
        model.params,
        part.rows,
        recipe=part.recipe,
        config=model.config,
        batch_size=options.batch_size * options.accumulate,
        cache=cache,
        mesh=mesh,
    )
    return part._replace(reference=spread(found, mesh))


@partial(jax.jit, static_argnames=("kind", "graphdef", "recipe"), donate_argnames=("state",))
def _advance(
    state: TrainState,
    part: tuple[Rows, jax.Array],
    batches: Batches,
    settings: LossSettings,
    count: jax.Array,
    *,
    kind: Literal["dpo", "sft"],
    graphdef: Any,
    recipe: Recipe,
    frozen: Any = None,
) -> tuple[TrainState, Any]:
    """Take `count` steps; of the metrics' buffer only the first `count` entries mean anything."""
    rows, reference = part

    def step(state: TrainState, batch: Batches) -> tuple[TrainState, Any]:
        if kind == "sft":
            return sft_step(graphdef, state, rows, batch, recipe=recipe, frozen=frozen)
        given = (rows, reference, batch, settings)
        return dpo_step(graphdef, state, *given, recipe=recipe, frozen=frozen)

    def one(at: jax.Array, carry: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
        state, buffer = carry
        state, metrics = step(state, jax.tree.map(lambda leaf: leaf[at], batches))
        state, metrics = split_params(state), copied(metrics)
        return state, jax.tree.map(lambda all, new: all.at[at].set(new), buffer, metrics)

    size = batches.rows.shape[0]
    _, shapes = jax.eval_shape(step, state, jax.tree.map(lambda leaf: leaf[0], batches))
    buffer = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), shapes)
    return jax.lax.fori_loop(0, count, one, (state, buffer))


def _one_device(params: Any) -> Any:
    return jax.sharding.SingleDeviceSharding(next(iter(jax.tree.leaves(params)[0].devices())))


class _Run:
    """One run: its data, where it writes, and the loop."""

    def __init__(
        self,
        kind: Literal["dpo", "sft"],
        model: LanguageModel,
        parts: Sequence[_Part],
        plan: Plan,
        options: TrainOptions,
        out: Path | None,
        save_every: int | None,
        mesh: Mesh | None,
        progress: Progress | None,
    ) -> None:
        self.kind, self.model, self.parts = kind, model, parts
        self.plan, self.options, self.out, self.progress = plan, options, out, progress
        self.mesh = mesh
        self.steps = len(plan.rows)
        self.save_every = (
            self.steps if save_every is None else check_count("save_every", save_every)
        )
        self.rates = np.asarray(
            learning_rates(
                options.learning_rate,
                self.steps,
                schedule=options.schedule,
                warmup=options.warmup,
            )
        )
        self.settings = spread(options.settings(), mesh)
        self.graphdef, self.first, self.frozen = model.graphdef, model.params, None
        if options.lora is not None:
            key = jax.random.key(options.seed)
            adapters = initial_adapters(model.config, options.lora, key)
            self.graphdef = adapted_graphdef(model.config, options.lora, dtype=base_dtype(model))
            self.first, self.frozen = spread_params(adapters, mesh), model.params

    def go(self, resume: bool, identity: Mapping[str, Any]) -> TrainResult:
        """Train to the end and return what came of it."""
        record = {"settings": {**asdict(self.options), **self._identity(), **identity}}
        state, first = self._start(record, resume)
        started, records = time.perf_counter(), []
        with self._log(first) as log:
            for after, new in self._calls(state, first):
                state = after
                if log is not None:
                    log.write(new)
                self._check(new)
                records += new
                done = new[-1]["step"]
                if done % self.save_every == 0 or done == self.steps:
                    self._save(done, state, record)
                if self.progress is not None:
                    self.progress(done, self.steps)
        seconds = time.perf_counter() - started
        wait("training done")
        before = [] if self.out is None else read_metrics(self._metrics, up_to_step=first)
        done = (before + records, self.steps, self._tokens(first), seconds)
        if self.options.lora is None:
            return TrainResult(self.model._replace(params=state.params), *done)
        merged = merged_model(self.model, self.options.lora, state.params)
        return TrainResult(merged, *done, state.params)

    def _identity(self) -> dict[str, Any]:
        """Return what a resumed run must share with this one, besides the options."""
        rows = [(part.rows, part.recipe.completions) for part in self.parts]
        return {
            "kind": self.kind,
            "model": digest(self.model.params, self.model.config),
            "data": digest(rows),
            "order": digest(self.plan._asdict()),
        }

    @property
    def _metrics(self) -> Path:
        assert self.out is not None
        return self.out / "metrics.jsonl"

    def _start(self, record: Mapping[str, Any], resume: bool) -> tuple[TrainState, int]:
        """Return the state to start from and the steps done."""
        last = None
        if self.out is not None and resume:
            last = latest_checkpoint(self.out / "checkpoints")
        if last is None:
            return self._initial(), 0
        changed = differences(last.record.get("settings", {}), record["settings"])
        if changed:
            raise InputError(
                f"resume: {last.path} was written with other settings: {'; '.join(changed)}"
            )
        return load_checkpoint(last, self._initial_shapes()), last.step

    def _initial(self) -> TrainState:
        """Return the state before the first step, where it belongs on the mesh."""
        recipe = self.parts[0].recipe
        if self.mesh is None:
            return init_state(self.first, recipe, seed=self.options.seed)
        with using(self.mesh):
            seed = self.options.seed
            make = jax.jit(lambda params: split_params(init_state(params, recipe, seed=seed)))
            return make(self.first)

    def _initial_shapes(self) -> Any:
        """Return its shapes and places, with nothing allocated."""
        recipe, params = self.parts[0].recipe, self.first
        shapes = jax.eval_shape(lambda params: init_state(params, recipe), params)
        if self.mesh is None:
            places = jax.tree.map(lambda _: _one_device(params), shapes)
        else:
            places = param_shardings(shapes, self.mesh)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            places,
        )

    @contextmanager
    def _log(self, first: int) -> Iterator[MetricsLog | None]:
        """Open the log of metrics, where there is a folder for it."""
        if self.out is None or not is_first():
            yield None
            return
        with MetricsLog(self._metrics, after_step=first) as log:
            yield log

    def _calls(
        self, state: TrainState, first: int
    ) -> Iterator[tuple[TrainState, list[dict[str, Any]]]]:
        """Take a few steps at a time; yield the state and a record a step."""
        done = first
        while done < self.steps:
            count = self._length_of_call(done)
            part = self.parts[self.plan.part[done]]
            batches, number = spread((self._batches(done), np.int32(count)), self.mesh)
            with using(self.mesh):
                state, buffer = _advance(
                    state,
                    (part.rows, part.reference),
                    batches,
                    self.settings,
                    number,
                    kind=self.kind,
                    graphdef=self.graphdef,
                    recipe=part.recipe,
                    frozen=self.frozen,
                )
            columns = {name: np.asarray(column) for name, column in buffer._asdict().items()}
            yield state, [self._record(done, at, columns) for at in range(count)]
            done += count

    def _length_of_call(self, done: int) -> int:
        """Return the steps until the next checkpoint, rows of another width, or enough."""
        end = min(
            self.steps, done + STEPS_PER_CALL, (done // self.save_every + 1) * self.save_every
        )
        others = np.flatnonzero(self.plan.part[done:end] != self.plan.part[done])
        return int(others[0]) if len(others) else end - done

    def _batches(self, done: int) -> Batches:
        """Return the batches of a call, filled up to its full length with the last."""
        at = np.minimum(np.arange(done, done + STEPS_PER_CALL), self.steps - 1)
        arrays = (self.plan.rows[at], self.plan.weights[at], None, self.rates[at])
        return Batches(*arrays)  # pyright: ignore[reportArgumentType]

    def _record(self, done: int, at: int, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        step = done + at
        record = {
            "step": step + 1,
            "epoch": int(self.plan.epoch[step]) + 1,
            "learning_rate": float(self.rates[step]),
        }
        return record | {name: float(column[at]) for name, column in columns.items()}

    def _check(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Raise at the first step whose loss or gradient is not finite."""
        for record in records:
            for name in ("loss", "grad_norm"):
                if not np.isfinite(record[name]):
                    self._diverged(f"step {record['step']}: {name} is {record[name]:g}")

    def _save(self, step: int, state: TrainState, record: Mapping[str, Any]) -> None:
        if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state.params)):
            self._diverged(f"step {step}: its update left parameters that are not finite")
        if self.out is not None:
            save_checkpoint(self.out / "checkpoints", step, state, record)

    def _diverged(self, what: str) -> None:
        last = None if self.out is None else latest_checkpoint(self.out / "checkpoints")
        left = "" if last is None else f"; the last good checkpoint is {last.path}"
        raise DivergedError(f"training stopped at {what}{left}; a lower learning rate may help")

    def _tokens(self, first: int) -> int:
        """Return the tokens that steps from `first` on saw."""
        seen = 0
        for step in range(first, self.steps):
            lengths = self.parts[self.plan.part[step]].lengths[self.plan.rows[step]]
            seen += int(np.sum(lengths * (self.plan.weights[step] > 0)))
        return seen
