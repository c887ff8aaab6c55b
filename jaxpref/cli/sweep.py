"""``jaxpref sweep``: many trainings on preferences, or on the paper's animals, compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal
from ._adapters import Adapters
from ._grids import Grid, Running, flagged, numbers, raise_if_diverged, varying
from ._options import JsonOption, grouped
from ._preference_sweep import Asked, Preferences, sweep_data
from ._runs import Passes, Run, as_flag, check_packages, option

if TYPE_CHECKING:
    from ..llm.sweep import Member, SweepOptions
    from ..report import Table

ANIMALS = "The paper's animals, without --data"


@dataclass(frozen=True)
class Animals:
    """What is trained on the paper's animals, named as in :class:`jaxpref.llm.SweepOptions`."""

    p12: Annotated[
        str,
        option(
            ANIMALS,
            "Probability in the data that the first animal beats the second: a list, or a range "
            "with its end and step, as 0:1:.05.",
            metavar="P",
        ),
    ] = ".99"
    p23: Annotated[
        str,
        option(ANIMALS, "The same for the second against the third.", metavar="P"),
    ] = "0:1:.05"
    permutations: Annotated[
        str,
        option(
            ANIMALS,
            "Orders of the animals: all, or some, as dog,cat,bird;bird,dog,cat.",
            metavar="all|A,B,C;...",
        ),
    ] = "dog,cat,bird"
    pairs: Annotated[int, option(ANIMALS, "Pairs of animals a training samples.")] = 1024
    nouns: Annotated[
        str,
        option(
            ANIMALS,
            "How the animals are written: a dog, dog, dogs.",
            metavar="article|bare|plural",
        ),
    ] = "article"
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Ask in the tokenizer's chat template.",
            rich_help_panel=ANIMALS,
            show_default="if it has one",
        ),
    ] = None
    compute_dtype: Annotated[
        str | None,
        option(
            ANIMALS,
            "Type of the passes; weights stay float32.",
            show_default=False,
            metavar="float32|bfloat16",
        ),
    ] = None


BOTH = ("schedule", "clip_norm", "batch_size")
"""Options of a run that are for both kinds of data."""


@grouped
def sweep(
    given: tuple[str, ...],
    model: Annotated[
        Path,
        typer.Option(
            help="Folder of the model that every training starts from and is compared with.",
            metavar="DIR",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.", metavar="DIR")],
    preferences: Preferences,
    animals: Animals,
    grid: Grid,
    run: Run,
    passes: Passes,
    adapters: Adapters,
    running: Running,
    json: JsonOption = False,
) -> None:
    """Train a policy by DPO for each of many settings, in one program, and compare them.

    With --data on your own preferences, for every beta, learning rate, seed and number of the loss;
    all are compared on the same records, held out from all of them. Without it on the paper's
    animals, D(order, p12, p23): samples about the first and second, and the second and third
    animal; p13, which is in no sample, is then asked for. Leaves in --out a line a training
    (members.jsonl).
    """
    _check_kind(given, preferences.data is not None)
    check_packages("sweep")
    if preferences.data is not None:
        asked = Asked(model, out, preferences, grid, run, passes, adapters, running)
        sweep_data(asked, given, json=json)
        return
    members = members_of(grid, animals)
    options = _shared(animals, run, running, model)
    lora = adapters.options(model)
    from ..llm import sweep as run_sweep

    with flagged("out", "processes", "chat"), _terminal.progress("Training") as move:
        records = run_sweep(
            model,
            members,
            out=out,
            options=options,
            lora=lora,
            processes=running.processes,
            resume=running.resume,
            progress=move,
        )
    if json:
        _terminal.show_json({"command": "sweep", "out": out, "members": records})
    else:
        _terminal.show(table(records))
        _terminal.say(f"Written: {out}/members*.jsonl.")
    raise_if_diverged(records)


def _check_kind(given: Sequence[str], data: bool) -> None:
    """Refuse options that are only for the other kind of data, by name."""
    from .._checks import InputError

    own = {entry.name for kind in (Preferences, Run, Passes) for entry in fields(kind)} - {*BOTH}
    other = {entry.name for entry in fields(Animals)} if data else own
    wrong = ", ".join("--" + name.replace("_", "-") for name in given if name in other)
    if wrong and data:
        raise InputError(f"{wrong}: of the paper's animals; expected without --data")
    if wrong:
        raise InputError(f"{wrong}: of a user's own preferences; expected together with --data")


def members_of(grid: Grid, animals: Animals) -> list[Member]:
    """Return the trainings asked for; messages name the flag.

    Raises
    ------
    InputError
    """
    from .._checks import InputError, check_count

    seeds = check_count("--seeds", grid.seeds)
    asked = {**vars(animals), **vars(grid)}
    lists = {
        name: numbers(asked[name], "--" + name.replace("_", "-"))
        for name in ("p12", "p23", "beta", "learning_rate")
    }
    from ..llm.sweep import sweep_grid

    try:
        return sweep_grid(
            omegas=orders(animals.permutations),
            p12=lists["p12"],
            p23=lists["p23"],
            seeds=range(seeds),
            betas=lists["beta"],
            learning_rates=lists["learning_rate"],
        )
    except InputError as error:
        message = re.sub(r"^omega:", "--permutations:", str(error))
        raise InputError(as_flag(message, lists)) from None


def orders(text: str) -> list[tuple[str, ...]]:
    """Return the orders of the animals.

    >>> orders("dog,cat,bird; bird,cat,dog")
    [('dog', 'cat', 'bird'), ('bird', 'cat', 'dog')]
    """
    if text.strip() == "all":
        from ..llm.animals import PERMUTATIONS

        return list(PERMUTATIONS)
    return [tuple(name.strip() for name in order.split(",")) for order in text.split(";")]


def _shared(animals: Animals, run: Run, running: Running, model: Path) -> SweepOptions:
    """Return the options, checked, messages naming the flag; chat as the tokenizer has it."""
    from .._checks import InputError, check_option
    from ..llm.config import decoder_config
    from ..llm.sweep import SweepOptions, speaks_chat
    from ..llm.tokenizers import load_tokenizer

    asked = {**vars(animals), **vars(run), **vars(running)}
    values = {entry: asked[entry] for entry in SweepOptions.__dataclass_fields__}
    if animals.compute_dtype is not None:
        check_option("--compute-dtype", animals.compute_dtype, ("float32", "bfloat16"))
    try:
        options = SweepOptions(**{**values, "chat": False})
    except InputError as error:
        raise InputError(as_flag(str(error), values)) from None
    chat = speaks_chat(model) if animals.chat is None else animals.chat
    load_tokenizer(model, config=decoder_config(model))  # raises where the two do not fit
    return SweepOptions(**{**vars(options), "chat": chat})


def table(records: list[dict[str, Any]]) -> Table:
    """Return what each training learned; what all share stands below, not in columns."""
    from ..report.tables import Column, Table

    asked = [record["member"] for record in records]
    differ = varying(asked, "p23")
    learned = ("p12", "p23", "p13")
    columns = (
        *(Column(NAMES[name], "left" if name == "omega" else "right") for name in differ),
        *(Column(f"learned {name}", "right") for name in learned),
        Column("in format", "right"),
    )
    rows = []
    for record in records:
        found = record["learned"]
        mass = [found[f"format_mass{name[1:]}"] for name in learned]
        least = None if None in mass else min(mass)
        rows.append(
            (
                *(_value(record["member"][name]) for name in differ),
                *(_probability(found[name]) for name in learned),
                _probability(least),
            )
        )
    same = ", ".join(f"{NAMES[n]} {_value(asked[0][n])}" for n in asked[0] if n not in differ)
    note = (
        f"All: {same}. Learned: asked both ways round, answers in the format only; in format: the "
        "least probability of answering in it, over the three pairs. Where that is low, neither "
        "says much. p13 is in no sample."
    )
    return Table("Policies", columns, tuple(rows), note)


NAMES = {
    "omega": "order",
    "p12": "p12",
    "p23": "p23",
    "seed": "seed",
    "beta": "beta",
    "learning_rate": "rate",
}


def _value(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else f"{value:g}"


def _probability(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
