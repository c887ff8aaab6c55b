"""``jaxpref sweep --data``: many trainings on a user's preferences, compared on held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from . import _terminal
from ._adapters import Adapters
from ._grids import MEMBERS, Grid, Running, flagged, numbers, raise_if_diverged, varying
from ._preferences import PreferenceFiles, encode, read_files
from ._runs import DATA, Passes, PolicyLoss, Run, as_flag, option, say_left_out

if TYPE_CHECKING:
    from ..llm.preference_sweep import PreferenceMember, PreferenceSweepOptions
    from ..report import Table

LISTS = ("beta", "learning_rate", "label_smoothing", "target_margin", "sft_weight")


@dataclass(frozen=True)
class Preferences(PreferenceFiles):
    """A user's own preferences: which are held out, and what is trained on the rest."""

    held_out: Annotated[
        float, option(DATA, "Share of the records that no policy trains on, whole prompts at once.")
    ] = 0.1
    split_seed: Annotated[int, option(DATA, "Seed of the choice of them.")] = 0
    loss: PolicyLoss = "dpo"
    label_smoothing: Annotated[
        str,
        option(
            MEMBERS,
            "With --data: share of labels taken to be flipped (dpo, robust_dpo), a list.",
            metavar="X",
        ),
    ] = "0"
    target_margin: Annotated[
        str,
        option(MEMBERS, "With --data: margin aimed at (simpo), in nats, a list.", metavar="X"),
    ] = "1"
    sft_weight: Annotated[
        str,
        option(MEMBERS, "With --data: weight of the likelihood (rpo), a list.", metavar="X"),
    ] = "1"


class Asked(NamedTuple):
    """All that was asked for on the command line."""

    model: Path
    out: Path
    preferences: Preferences
    grid: Grid
    run: Run
    passes: Passes
    adapters: Adapters
    running: Running


def sweep_data(asked: Asked, given: Sequence[str], *, json: bool) -> None:
    """Train and compare; `given` are the names of the options on the command line."""
    members, options = _members(asked, given), _options(asked)
    from ..llm.config import decoder_config
    from ..llm.held_out import split_rows_by_prompt
    from ..llm.preference_sweep import sweep_preferences
    from ..llm.tokenizers import load_tokenizer

    files, running = asked.preferences, asked.running
    shape = decoder_config(asked.model)  # before the data are read
    read = read_files(files)
    with _terminal.working(f"Tokenising {read.name}"):
        tokenizer = load_tokenizer(asked.model, config=shape)
        encoded = encode(read, files, tokenizer, shape.max_position_embeddings)
    with flagged("out", *_names(asked)), _terminal.progress("Training") as move:
        split = split_rows_by_prompt(encoded.rows, options.held_out, options.split_seed)
        records = sweep_preferences(
            asked.model,
            encoded,
            members,
            out=asked.out,
            options=options,
            identity={"max_length": files.max_length, "too_long": files.too_long},
            noted={"files": read.name},
            processes=running.processes,
            resume=running.resume,
            progress=move,
        )
    best = ranked(records)[0]
    summary = {
        "data": read.name,
        "rows": len(split.trained),
        "held_out": len(split.held_out),
        "left_out": read.left_out(encoded),
        "truncated": encoded.truncated,
        "best": None if best["diverged"] else best["name"],
        "members": records,
    }
    if json:
        _terminal.show_json({"command": "sweep", "out": asked.out, **summary})
    else:
        _print(summary, options.training.loss, asked.out)
    raise_if_diverged(records)


def _names(asked: Asked) -> list[str]:
    """Return the names of all options that a message may begin with."""
    groups = (asked.preferences, asked.grid, asked.run, asked.passes, asked.running)
    return [entry.name for group in groups for entry in fields(group)]


def _members(asked: Asked, given: Sequence[str]) -> list[PreferenceMember]:
    """Return the trainings asked for; messages name the flag."""
    from .._checks import InputError, check_count
    from ..llm.preference_sweep import READ_BY, check_read, preference_grid

    loss = asked.preferences.loss
    for name, losses in READ_BY.items():
        if name in given and loss not in losses:
            flag = as_flag(name, [name])
            raise InputError(f"{flag}: expected with --loss {' or '.join(losses)}; got {loss}")
    values = {**vars(asked.grid), **vars(asked.preferences)}
    lists = {name: numbers(values[name], as_flag(name, [name])) for name in LISTS}
    seeds = check_count("--seeds", asked.grid.seeds)
    with flagged(*LISTS):
        members = preference_grid(
            seeds=range(seeds), **{f"{name}s": values for name, values in lists.items()}
        )
        check_read(members, loss)
    return members


def _options(asked: Asked) -> PreferenceSweepOptions:
    """Return what all trainings share, checked, messages naming the flag."""
    from ..llm.preference_sweep import PreferenceSweepOptions
    from ..llm.train_options import TrainOptions

    lora, preferences, running = (
        asked.adapters.options(asked.model),
        asked.preferences,
        asked.running,
    )
    with flagged(*_names(asked)):
        training = TrainOptions(
            loss=preferences.loss, lora=lora, **vars(asked.run), **vars(asked.passes)
        )
        training.recipe(2)  # raises where rows and memory do not go together
        return PreferenceSweepOptions(
            training=training,
            held_out=preferences.held_out,
            split_seed=preferences.split_seed,
            mode=running.mode,
            block=running.block,
        )


def ranked(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records by their held-out loss, the least first, those that diverged last."""

    def key(record: dict[str, Any]) -> tuple[bool, float]:
        loss = record["held_out"]["loss"]
        return loss is None, 0.0 if loss is None else loss

    return sorted(records, key=key)


def table(records: Sequence[dict[str, Any]], loss: str) -> Table:
    """Return what each policy makes of the held-out records, the best first."""
    from ..report.tables import Column, Table

    found = ranked(records)
    asked = [record["member"] for record in found]
    differ = varying(asked, "beta")
    columns = (
        *(Column(NAMES[name], "right") for name in differ),
        *(Column(header, "right") for header in MEASURED.values()),
    )
    rows = tuple(
        (
            *(f"{record['member'][name]:g}" for name in differ),
            *(_number(record["held_out"][name]) for name in MEASURED),
        )
        for record in found
    )
    return Table("Policies, on the records held out", columns, rows, _note(asked[0], differ, loss))


def _note(member: dict[str, Any], differ: Sequence[str], loss: str) -> str:
    """Return what all members share, and how to read the table."""
    from ..llm.preference_sweep import READ_BY

    read = [name for name in NAMES if name not in READ_BY or loss in READ_BY[name]]
    same = ", ".join(f"{NAMES[n]} {member[n]:g}" for n in read if n not in differ)
    note = (
        f"All: {loss}{', ' if same else ''}{same}. Sorted by the loss; +-: its standard error over "
        "the records, which are the same for all. Margin: of the rewards, in nats; chosen, "
        "rejected: change of their log-probabilities against the reference, in nats."
    )
    other = set(differ) & {*READ_BY, *(("beta",) if loss in SCALED else ())}
    if other:
        note += f" The loss changes with {', '.join(NAMES[n] for n in NAMES if n in other)}: "
        note += "compare policies that differ in it by their accuracy."
    return note


SCALED = ("ipo", "ipo_per_token", "simpo", "kto_pair")
"""Losses whose scale, or what they ask for, changes with beta."""
NAMES = {
    "beta": "beta",
    "learning_rate": "rate",
    "label_smoothing": "smooth",
    "target_margin": "target",
    "sft_weight": "sft",
    "seed": "seed",
}
MEASURED = {
    "loss": "loss",
    "loss_error": "+-",
    "accuracy": "accuracy",
    "reward_margin": "margin",
    "chosen_change": "chosen",
    "rejected_change": "rejected",
}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _print(summary: dict[str, Any], loss: str, out: Path) -> None:
    from ..report.numbers import amount

    text = (
        f"{summary['data']}: {amount(summary['rows'], 'record')} to train on, "
        f"{summary['held_out']:,} held out." + say_left_out(summary)
    )
    if summary["truncated"]:
        text += f" Cut at the end: {amount(summary['truncated'], 'record')}."
    _terminal.say(text)
    _terminal.show(table(summary["members"], loss))
    _terminal.say(f"Written: {out}/members*.jsonl.")
