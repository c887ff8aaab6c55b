"""Sweeps over the paper's animal data: one policy per data set, order, seed, beta and rate.

A member is one training of the paper's section 4: DPO from a reference model on a sample of
D(omega, p12, p23), then the probe. All members of a sweep share one table of the 3,600 rows that
can be sampled and one set of reference log-probabilities, and run in one compiled program
(:mod:`jaxpref.llm.population`). What each member learned is a line in a file as soon as its block
is done, so that a sweep goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import (
    InputError,
    check_between,
    check_count,
    check_option,
    check_positive,
    show,
)
from .animals import (
    ANIMALS,
    NOUNS,
    ORDERED_PAIRS,
    Nouns,
    places_of,
    sample_pairs,
    support_records,
)
from .batches import SCHEDULES, learning_rates, plan_batches
from .decoder import LanguageModel
from .lora import LoraOptions
from .losses import LossSettings
from .population import Members, Trained
from .preferences import as_message
from .probe import ExactProbe, ProbeRows, exact_probe_of_rows, probe_rows
from .reference import reference_logps
from .rows import Rows, completion_width, encode_rows, row_widths
from .sweep_driver import (
    WIDTHS,
    Progress,
    Start,
    check_names,
    check_running,
    drive,
    last_steps,
    load_start,
    members_a_block,
    model_digest,
    train_blocks,
)
from .tokenizers import load_tokenizer
from .trainer import trim_rows
from .training import Batches, Recipe

CHOSEN = ((0, 1), (1, 2), (0, 2))
"""Places in omega of p12, p23 and p13."""


class Member(NamedTuple):
    """One training of a sweep.

    Attributes
    ----------
    omega : tuple of str
        The animals in the order omega_1, omega_2, omega_3.
    p12, p23 : float in [0, 1]
        Probabilities in the data that omega_1 beats omega_2, and omega_2 beats omega_3.
    seed : int
        Of the sample and its order. Members that share it and omega share their random numbers,
        so that neighbouring p23 differ by the samples that the change of p23 turns.
    beta : float
        DPO's temperature; the paper's by default.
    learning_rate : float
        Its peak.
    """

    omega: tuple[str, ...]
    p12: float
    p23: float
    seed: int = 0
    beta: float = 0.1
    learning_rate: float = 1e-4

    @property
    def name(self) -> str:
        """The member in one line, as results are found by: numbers with all their digits."""
        return (
            f"{'-'.join(self.omega)} p12={show(self.p12)} p23={show(self.p23)} seed={self.seed} "
            f"beta={show(self.beta)} rate={show(self.learning_rate)}"
        )


def sweep_grid(
    *,
    omegas: Iterable[Sequence[str]],
    p12: Iterable[float | int],
    p23: Iterable[float | int],
    seeds: Iterable[int] = (0,),
    betas: Iterable[float | int] = (0.1,),
    learning_rates: Iterable[float | int] = (1e-4,),
) -> list[Member]:
    """Return every combination as a member, p23 varying fastest.

    Raises
    ------
    InputError
        If a probability leaves [0, 1], a beta or rate is not positive, omega is no permutation of
        the animals, or a combination occurs twice.

    Examples
    --------
    >>> grid = sweep_grid(omegas=[("dog", "cat", "bird")], p12=[0.99], p23=[0, 0.5, 1])
    >>> len(grid), grid[1].name
    (3, 'dog-cat-bird p12=0.99 p23=0.5 seed=0 beta=0.1 rate=0.0001')
    """
    members = [
        Member(tuple(omega), float(first), float(second), seed, float(beta), float(rate))
        for beta, rate, omega, seed, first, second in product(
            betas, learning_rates, omegas, seeds, p12, p23
        )
    ]
    for member in members:
        places_of(member.omega)
        for name in ("p12", "p23"):
            check_between(name, getattr(member, name), 0.0, 1.0, what="a probability in [0, 1]")
        check_count("seed", member.seed, at_least=0)
        check_positive("beta", member.beta)
        check_positive("learning_rate", member.learning_rate)
    check_names(members)
    return members


@dataclass(frozen=True)
class SweepOptions:
    """What all members share.

    Attributes
    ----------
    pairs : int
        Sampled pairs a member, seen once each (one epoch). The paper does not state its number.
    batch_size : int
        Pairs a step.
    schedule : {"linear", "cosine", "constant"}
        How the learning rate falls.
    clip_norm : float, optional
        Largest norm of a gradient.
    nouns : {"bare", "article", "plural"}
        How the animals are written, as the reference model was fine-tuned.
    chat : bool
        Whether questions are a user's messages in the tokenizer's chat template, as chat models
        expect them; :func:`speaks_chat` says whether there is one.
    compute_dtype : str, optional
        Type of the forward and backward passes, as "bfloat16"; weights stay float32.
    mode : {"map", "vmap", "chunks", "measured"}, optional
        How members run; see :func:`jaxpref.llm.population.train_population`. "measured" tries a few
        steps of each and takes the fastest.
    block : int, optional
        Members between two writes of results, and at once where members run at once: 4 on a
        processor and 63, a sixth of the paper's sweep, elsewhere when left out.
    """

    pairs: int = 1024
    batch_size: int = 16
    schedule: str = "linear"
    clip_norm: float | None = 1.0
    nouns: Nouns = "article"
    chat: bool = False
    compute_dtype: str | None = None
    mode: str | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        for name in ("pairs", "batch_size"):
            check_count(name, getattr(self, name))
        check_running(self.mode, self.block)
        check_option("nouns", self.nouns, NOUNS)
        check_option("schedule", self.schedule, SCHEDULES)
        if self.clip_norm is not None:
            check_positive("clip_norm", self.clip_norm)

    @property
    def members_a_block(self) -> int:
        """Members between two writes of results."""
        return members_a_block(self.block)

    @property
    def steps(self) -> int:
        """Updates a member."""
        return -(-self.pairs // self.batch_size)


def speaks_chat(directory: Path | str) -> bool:
    """Return whether a checkpoint's tokenizer has a chat template."""
    return bool(getattr(load_tokenizer(directory), "chat_template", None))


class Setting(NamedTuple):
    """What every member starts from, on the device."""

    model: LanguageModel
    rows: Rows
    reference_logps: np.ndarray
    recipe: Recipe
    probe: ProbeRows
    lora: LoraOptions | None = None
    """Where members train adapters: the model's parameters are the base's, its graphdef is that of
    the adapted model."""


def prepare(
    directory: Path,
    options: SweepOptions,
    *,
    cache: Path | None = None,
    lora: LoraOptions | None = None,
) -> Setting:
    """Load the reference model, write the rows in its tokens, and score them under it.

    Parameters
    ----------
    directory : path
        A checkpoint with its tokenizer.
    options : SweepOptions
    cache : path, optional
        Folder for the reference log-probabilities.
    lora : LoraOptions, optional
        Members train adapters on the model.
    """
    kept = options.compute_dtype if lora is not None else None  # a base that no step changes
    model, scored = load_start(directory, lora, dtype=kept or "float32")
    tokenizer = load_tokenizer(directory, config=model.config)
    context = model.config.max_position_embeddings
    records = support_records(nouns=options.nouns)
    if options.chat:
        records = [record._replace(prompt=as_message(str(record.prompt))) for record in records]
    encoded = encode_rows(records, tokenizer, max_length=context, too_long="error")
    rows = trim_rows(encoded.rows)
    # One micro-batch of two rows stays in a processor's caches; elsewhere the whole batch goes.
    small = 2 if jax.default_backend() == "cpu" and options.batch_size % 2 == 0 else None
    recipe = Recipe(
        micro_batch=small,
        clip_norm=options.clip_norm,
        compute_dtype=options.compute_dtype,
        logit_width=completion_width(rows),
        sliding_window=model.config.sliding_window,
        widths=row_widths(rows, WIDTHS) if small else (),
    )
    reference = reference_logps(
        scored.graphdef,
        scored.params,
        rows,
        recipe=recipe,
        batch_size=options.batch_size,
        cache=cache,
    )
    probe = probe_rows(tokenizer, nouns=options.nouns, chat=options.chat)
    probe = probe._replace(rows=trim_rows(probe.rows))
    return Setting(model, rows, reference, recipe, probe, lora)


def member_batches(members: Sequence[Member], options: SweepOptions) -> Members:
    """Return which rows each member sees, in what order and with which labels and rates."""
    return Members(
        jax.tree.map(lambda *leaves: np.stack(leaves), *(_one(m, options) for m in members)),
        LossSettings(
            np.asarray([member.beta for member in members], np.float32),
            *(np.full(len(members), value, np.float32) for value in (0.0, 1.0, 1.0)),
        ),
    )


def _one(member: Member, options: SweepOptions) -> Batches:
    key = jax.random.fold_in(jax.random.key(member.seed), places_of(member.omega)[0])
    key = jax.random.fold_in(key, places_of(member.omega)[1])
    sample, order = jax.random.split(key)
    data = sample_pairs(member.omega, member.p12, member.p23, key=sample, count=options.pairs)
    plan = plan_batches(order, [options.pairs], batch_size=options.batch_size, epochs=1)
    rates = learning_rates(member.learning_rate, options.steps, schedule=options.schedule)
    turned = np.asarray(~data.first_wins[plan.rows], np.float32)
    arrays = (np.asarray(data.row[plan.rows], np.int32), plan.weights, turned, np.asarray(rates))
    return Batches(*arrays)  # pyright: ignore[reportArgumentType]  # on the host, until a block


@dataclass(frozen=True)
class ProbeEvaluation:
    """The exact probe as an evaluation: equal objects are one program.

    Called with a policy's parameters and the probe's rows, on the device; returns ``log_mass``.
    """

    graphdef: Any
    answers_per_row: int
    width: int

    def __call__(self, params: Any, rows: Rows) -> jax.Array:
        """Return the log-masses, shape (6, 2)."""
        probe = ProbeRows(rows, self.answers_per_row, self.width)
        return exact_probe_of_rows(self.graphdef, params, probe, batch=4).log_mass


def learned(member: Member, log_mass: np.ndarray) -> dict[str, Any]:
    """Return what a probe found, in a member's own order of the animals.

    Parameters
    ----------
    member : Member
        Its `omega` is what counts.
    log_mass : array, shape (6, 2)
        As :class:`jaxpref.llm.probe.ExactProbe` holds it.

    Returns
    -------
    dict
        ``logit12, logit23, logit13`` (nats), each with ``p..``, ``p.._by_direction`` and
        ``format_mass..`` (the mean of the two directions).
    """
    probe, found = ExactProbe(jnp.asarray(log_mass)), {}
    mass = np.asarray(probe.format_mass)
    for first, second in CHOSEN:
        pair, name = (member.omega[first], member.omega[second]), f"{first + 1}{second + 1}"
        found[f"logit{name}"] = float(probe.margin(*pair))
        found[f"p{name}"] = float(probe.probability(*pair))
        found[f"p{name}_by_direction"] = np.asarray(probe.by_direction(*pair)).tolist()
        found[f"format_mass{name}"] = float(np.mean(mass[_questions(*pair)]))
    return found


def _questions(winner: str, loser: str) -> list[int]:
    """Return the numbers of the two questions about a pair."""
    pair = (ANIMALS.index(winner), ANIMALS.index(loser))
    return [ORDERED_PAIRS.index(pair), ORDERED_PAIRS.index(pair[::-1])]


def run_members(
    setting: Setting,
    members: Sequence[Member],
    options: SweepOptions,
    *,
    report: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Train members in this process, and report their records block by block."""
    probe = setting.probe
    blocks = train_blocks(
        Start(setting.model, setting.rows, setting.reference_logps, setting.recipe, setting.lora),
        member_batches(members, options),
        seeds=[member.seed for member in members],
        evaluation=ProbeEvaluation(setting.model.graphdef, probe.answers_per_row, probe.width),
        data=Rows(*map(jnp.asarray, probe.rows)),
        mode=options.mode,
        block=options.block,
    )
    for which, trained in blocks:
        report([_record(members[i], trained, i - which.start) for i in which])


def _record(member: Member, trained: Trained, at: int) -> dict[str, Any]:
    log_mass, metrics = trained.evaluation[at], last_steps(trained.metrics, at)
    return {
        "member": {**member._asdict(), "omega": list(member.omega)},
        "name": member.name,
        "learned": learned(member, log_mass),
        "log_mass": log_mass.tolist(),
        "last_steps": metrics,
        "diverged": not (np.isfinite(log_mass).all() and np.isfinite(metrics["grad_norm"])),
    }


def sweep(
    directory: Path | str,
    members: Sequence[Member],
    *,
    out: Path | str,
    options: SweepOptions | None = None,
    lora: LoraOptions | None = None,
    processes: int = 1,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Train every member from a checkpoint and return what each learned.

    Parameters
    ----------
    directory : path
        The reference model: a checkpoint with its tokenizer.
    members : sequence of Member
        From :func:`sweep_grid`.
    out : path
        Folder for ``sweep.json`` (what was asked) and ``members*.jsonl`` (a line a member).
    options : SweepOptions, optional
    lora : LoraOptions, optional
        Train adapters on the model, which all members share, instead of the model.
    processes : int
        On a processor two processes of one core each beat one process of two: every process
        takes every n-th member. They share nothing but the folder.
    resume : bool
        Go on in a folder that holds results of the same sweep; members in it are not run again.
    progress : callable, optional
        Called with (members done, members).

    Returns
    -------
    list of dict
        A record per member, in the members' order: ``member``, ``name``, ``learned``,
        ``log_mass`` (of the probe), ``last_steps`` (means of the training metrics over the last
        tenth of the steps) and ``diverged``, whether anything in them is not finite: such numbers
        are None.

    Raises
    ------
    InputError
        If `out` holds something and `resume` is off, or holds a sweep of another model or with
        other options; or if the model's tokenizer cannot write the rows.
    ConvergenceError
        If one of several processes stopped; what is done is kept.
    """
    options = SweepOptions() if options is None else options
    out, directory = Path(out), Path(directory)
    processes = check_count("processes", processes)
    if options.chat and not speaks_chat(directory):
        raise InputError(f"chat: expected a chat template; the tokenizer of {directory} has none")
    task = _Animals(directory, options, lora)
    return drive(task, members, out, processes=processes, resume=resume, progress=progress)


@dataclass(frozen=True)
class _Animals:
    """The task of a sweep over animals."""

    directory: Path
    options: SweepOptions
    lora: LoraOptions | None

    def asked(self) -> dict[str, Any]:
        shared = {k: v for k, v in asdict(self.options).items() if k not in ("mode", "block")}
        adapters = None if self.lora is None else json.loads(json.dumps(asdict(self.lora)))
        return {"model": model_digest(self.directory), "options": shared, "lora": adapters}

    def prepare(self, cache: Path) -> Setting:
        return prepare(self.directory, self.options, cache=cache, lora=self.lora)

    def run(
        self,
        setting: Setting,
        members: Sequence[Member],
        report: Callable[[list[dict[str, Any]]], None],
    ) -> None:
        run_members(setting, members, self.options, report=report)
