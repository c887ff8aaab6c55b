"""Sweeps over a user's own preferences: one policy per beta, learning rate, seed and loss number.

All members train on the same records and are compared on the same others, held out from all of
them; records that share a prompt are held out together. The reference is scored once, and the
members run in one compiled program (:mod:`jaxpref.llm.population`). Each is the run that
:func:`jaxpref.llm.train_preferences` makes of the records that are not held out, with the same
options, up to rounding; only where that run would sort its rows into parts of several widths, from
100 steps on, does it see them in another order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from .._checks import InputError, check_between, check_count, show
from .batches import learning_rates, plan_batches
from .held_out import HeldOutLogps, Split, held_out_metrics, rows_in_parts, split_rows_by_prompt
from .losses import LossSettings
from .population import Members, Trained
from .reference import digest, reference_logps
from .rows import (
    EncodedRows,
    Rows,
    completion_lengths,
    completion_width,
    row_widths,
)
from .sweep_driver import (
    WIDTHS,
    Progress,
    Report,
    Start,
    check_names,
    check_running,
    drive,
    last_steps,
    load_start,
    model_digest,
    train_blocks,
)
from .train_options import TrainOptions
from .trainer import fitting_recipe, trim_rows
from .training import Batches

STEPS_PER_WIDTH, ROWS_PER_WIDTH = 8, 16
"""Of a member, and of those held out: fewer do not pay for compiling another width."""
READ_BY = {
    "label_smoothing": ("dpo", "robust_dpo"),
    "target_margin": ("simpo",),
    "sft_weight": ("rpo",),
}
"""Losses that read a number; all but "sft" read beta."""


class PreferenceMember(NamedTuple):
    """One training of a sweep over preferences; as :class:`jaxpref.llm.TrainOptions` has them.

    Attributes
    ----------
    beta : float
    learning_rate : float
        Its peak.
    seed : int
        Of the order of the data, and of the adapters' start.
    label_smoothing, target_margin, sft_weight : float
        Of the losses that read them.
    """

    beta: float = 0.1
    learning_rate: float = 1e-4
    seed: int = 0
    label_smoothing: float = 0.0
    target_margin: float = 1.0
    sft_weight: float = 1.0

    @property
    def name(self) -> str:
        """The member in one line, as results are found by: numbers with all their digits."""
        return (
            f"beta={show(self.beta)} rate={show(self.learning_rate)} "
            f"smoothing={show(self.label_smoothing)} target={show(self.target_margin)} "
            f"sft={show(self.sft_weight)} seed={self.seed}"
        )

    def options(self, shared: TrainOptions) -> TrainOptions:
        """Return the options of the same training alone."""
        return replace(shared, **self._asdict())


def preference_grid(
    *,
    betas: Iterable[float | int] = (0.1,),
    learning_rates: Iterable[float | int] = (1e-4,),
    seeds: Iterable[int] = (0,),
    label_smoothings: Iterable[float | int] = (0.0,),
    target_margins: Iterable[float | int] = (1.0,),
    sft_weights: Iterable[float | int] = (1.0,),
) -> list[PreferenceMember]:
    """Return every combination as a member, the seed varying fastest.

    Raises
    ------
    InputError
        If a number is one that :class:`jaxpref.llm.TrainOptions` refuses, or a combination occurs
        twice.

    Examples
    --------
    >>> grid = preference_grid(betas=[0.05, 0.1], learning_rates=[1e-5], seeds=[0, 1])
    >>> len(grid), grid[1].name
    (4, 'beta=0.05 rate=1e-05 smoothing=0 target=1 sft=1 seed=1')
    """
    numbers = (betas, learning_rates, label_smoothings, target_margins, sft_weights)
    members = [
        PreferenceMember(
            float(beta), float(rate), seed, float(smoothing), float(margin), float(weight)
        )
        for beta, rate, smoothing, margin, weight, seed in product(*numbers, seeds)
    ]
    for member in members:
        member.options(TrainOptions())  # raises where a number will not do
    check_names(members)
    return members


@dataclass(frozen=True)
class PreferenceSweepOptions:
    """What all members share.

    Attributes
    ----------
    training : TrainOptions
        How each trains; what a :class:`PreferenceMember` holds is the members' own. Stochastic
        rounding is not for sweeps: all members would round alike.
    held_out : float, above 0 and at most 0.9
        Share of the records that no member trains on; at least one record.
    split_seed : int
        Of their choice.
    mode, block
        As in :class:`jaxpref.llm.SweepOptions`.
    """

    training: TrainOptions = field(default_factory=TrainOptions)
    held_out: float = 0.1
    split_seed: int = 0
    mode: str | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        what = "a share above 0 and at most 0.9"
        check_between("held_out", self.held_out, 0.0, 0.9, what=what, open_low=True)
        check_count("split_seed", self.split_seed, at_least=0)
        check_running(self.mode, self.block)
        if self.training.precision == "bfloat16-stochastic":
            raise InputError(
                "precision: expected 'float32' or 'bfloat16' in a sweep; got 'bfloat16-stochastic'"
            )


class PreferenceSetting(NamedTuple):
    """What every member starts from, on the device, and what it is asked afterwards."""

    start: Start
    split: Split
    evaluation: HeldOutLogps
    parts: tuple[Rows, ...]
    """The rows held out, by width: leaves of shape (parts, rows, width)."""
    order: np.ndarray
    """Of the held-out rows, in the order of the parts; -1 where a part was filled up."""


@dataclass(frozen=True, eq=False)
class _Preferences:
    """The task of a sweep over preferences."""

    directory: Path
    encoded: EncodedRows
    options: PreferenceSweepOptions
    identity: Mapping[str, Any]

    def split(self) -> Split:
        return split_rows_by_prompt(
            self.encoded.rows, self.options.held_out, self.options.split_seed
        )

    def asked(self) -> dict[str, Any]:
        own = PreferenceMember._fields
        training = {k: v for k, v in asdict(self.options.training).items() if k not in own}
        split = self.split()
        content = digest(tuple(self.encoded.rows), split.held_out.astype(np.int64))
        return {
            "model": model_digest(self.directory),
            "options": {
                **json.loads(json.dumps(training)),
                "held_out": self.options.held_out,
                "split_seed": self.options.split_seed,
                **self.identity,
            },
            "data": content,
        }

    def prepare(self, cache: Path) -> PreferenceSetting:
        training, completions = self.options.training, self.encoded.completions
        narrow = training.lora is not None and training.compute_dtype is not None
        model, scored = load_start(
            self.directory, training.lora, dtype="bfloat16" if narrow else "float32"
        )
        context, rows = model.config.max_position_embeddings, trim_rows(self.encoded.rows)
        longest = int(np.max(rows.positions)) + 1
        if longest > context:
            raise InputError(
                f"max_length: expected at most the model's context, {context}; got "
                f"rows of {longest} tokens"
            )
        split = self.split()
        self._check_schedule(len(split.trained))
        recipe = replace(
            fitting_recipe(model, completions, training), logit_width=completion_width(rows)
        )
        if jax.default_backend() == "cpu" and recipe.micro_batch:
            most = steps_of(training, len(split.trained)) // STEPS_PER_WIDTH
            recipe = replace(recipe, widths=row_widths(rows, min(max(most, 1), WIDTHS)))
        batch = training.batch_size * training.accumulate
        reference = reference_logps(
            scored.graphdef,
            scored.params,
            rows,
            recipe=recipe,
            config=model.config,
            batch_size=batch,
            cache=cache,
        )
        size = min(recipe.micro_batch or training.batch_size, len(split.held_out))
        most = min(max(len(split.held_out) // ROWS_PER_WIDTH, 1), WIDTHS)
        parts, answers, order = rows_in_parts(rows, split.held_out, size, most=most)
        return PreferenceSetting(
            Start(model, rows, reference, recipe, training.lora),
            split,
            HeldOutLogps(model.graphdef, recipe, answers),
            parts,
            order,
        )

    def _check_schedule(self, rows: int) -> None:
        """Raise where the warm-up is as long as the run."""
        training = self.options.training
        learning_rates(
            1.0, steps_of(training, rows), schedule=training.schedule, warmup=training.warmup
        )

    def run(
        self, setting: PreferenceSetting, members: Sequence[PreferenceMember], report: Report
    ) -> None:
        blocks = train_blocks(
            setting.start,
            preference_batches(members, setting.split.trained, self.options.training),
            seeds=[member.seed for member in members],
            evaluation=setting.evaluation,
            data=setting.parts,
            mode=self.options.mode,
            block=self.options.block,
        )
        for which, trained in blocks:
            report([_record(setting, members[i], trained, i - which.start) for i in which])


def steps_of(training: TrainOptions, rows: int) -> int:
    """Return the steps of a run over so many rows.

    >>> steps_of(TrainOptions(batch_size=4), 10), steps_of(TrainOptions(steps=7), 10)
    (3, 7)
    """
    per_epoch = -(-rows // (training.batch_size * training.accumulate))
    return training.steps or per_epoch * (training.epochs or 1)


def preference_batches(
    members: Sequence[PreferenceMember], trained: np.ndarray, training: TrainOptions
) -> Members:
    """Return which of the trained rows each member sees, in what order and with which rates."""
    batches, steps = [], steps_of(training, len(trained))
    for member in members:
        plan = plan_batches(
            jax.random.key(member.seed),
            [len(trained)],
            batch_size=training.batch_size * training.accumulate,
            steps=steps,
        )
        rates = learning_rates(
            member.learning_rate, steps, schedule=training.schedule, warmup=training.warmup
        )
        rows = trained[plan.rows].astype(np.int32)
        batches.append((rows, plan.weights, np.asarray(rates)))
    rows, weights, rates = (np.stack(leaves) for leaves in zip(*batches, strict=True))
    numbers = ("beta", *READ_BY)
    settings = (np.asarray([getattr(m, name) for m in members], np.float32) for name in numbers)
    given = Batches(rows, weights, None, rates)  # pyright: ignore[reportArgumentType]
    return Members(given, LossSettings(*settings))


def _record(
    setting: PreferenceSetting, member: PreferenceMember, trained: Trained, at: int
) -> dict[str, Any]:
    found = np.asarray(trained.evaluation[at], np.float64)
    logps = np.empty((len(setting.split.held_out), found.shape[1]))
    logps[setting.order[setting.order >= 0]] = found[setting.order >= 0]
    metrics = last_steps(trained.metrics, at)
    return {
        "member": member._asdict(),
        "name": member.name,
        "held_out": _on_held_out(setting, member, logps),
        "last_steps": metrics,
        "diverged": not (np.isfinite(logps).all() and np.isfinite(metrics["grad_norm"])),
    }


def _on_held_out(
    setting: PreferenceSetting, member: PreferenceMember, logps: np.ndarray
) -> dict[str, float]:
    start, rows = setting.start, setting.split.held_out
    lengths = np.asarray(completion_lengths(start.rows.take(rows), logps.shape[1]))
    reference = np.asarray(start.reference_logps, np.float64)[rows]
    numbers = LossSettings(*(getattr(member, name) for name in ("beta", *READ_BY)))
    return held_out_metrics(start.recipe.loss, logps, reference, lengths, numbers)


def sweep_preferences(
    directory: Path | str,
    encoded: EncodedRows,
    members: Sequence[PreferenceMember],
    *,
    out: Path | str,
    options: PreferenceSweepOptions | None = None,
    identity: Mapping[str, Any] | None = None,
    noted: Mapping[str, Any] | None = None,
    processes: int = 1,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Train every member on the same records, and return what each makes of those held out.

    Parameters
    ----------
    directory : path
        The reference model, which every member starts from: a checkpoint.
    encoded : EncodedRows
        The records in its tokens: :func:`jaxpref.llm.rows.encode_rows`, prompts shared.
    members : sequence of PreferenceMember
        From :func:`preference_grid`.
    out : path
        Folder for ``sweep.json`` (what was asked) and ``members*.jsonl`` (a line a member).
    options : PreferenceSweepOptions, optional
    identity, noted : mapping, optional
        What else ``sweep.json`` says; a resumed sweep is held to `identity`.
    processes, resume, progress
        As :func:`jaxpref.llm.sweep`.

    Returns
    -------
    list of dict
        A record per member, in the members' order: ``member``, ``name``, ``held_out``
        (:func:`jaxpref.llm.held_out.held_out_metrics`), ``last_steps`` (means of the training
        metrics over the last tenth of the steps) and ``diverged``, whether anything in them is not
        finite: such numbers are None.

    Raises
    ------
    InputError
        If `out` holds something and `resume` is off, or holds another sweep; if members differ in
        a number that the loss does not read; if the model cannot take the rows, or the loss so
        many completions; or if all records have one prompt. Nothing is written then.
    ConvergenceError
        If one of several processes stopped; what is done is kept.
    """
    options = PreferenceSweepOptions() if options is None else options
    if not encoded.shared_prompt:
        raise InputError("encoded: expected rows that share their prompt; got one a completion")
    check_read(members, options.training.loss)
    task = _Preferences(Path(directory), encoded, options, dict(identity or {}))
    split = task.split()
    told = {"rows": len(split.trained), "held_out_records": encoded.kept[split.held_out].tolist()}
    return drive(
        task,
        members,
        Path(out),
        processes=processes,
        resume=resume,
        noted={**told, **(noted or {})},
        progress=progress,
    )


def check_read(members: Sequence[PreferenceMember], loss: str) -> None:
    """Raise where members differ in a number that the loss does not read: they would be equal."""
    for name, losses in {**READ_BY, "beta": ()}.items():
        reads = loss != "sft" if name == "beta" else loss in losses
        if not reads and len({getattr(member, name) for member in members}) > 1:
            raise InputError(f"{name}: {loss!r} does not read it; expected one value for all")
