"""``jaxpref sweep``: many trainings on the paper's animals, and what each policy learned."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal
from ._adapters import Adapters
from ._options import JsonOption, grouped
from ._runs import as_flag, check_packages, option

if TYPE_CHECKING:
    from ..llm.sweep import Member, SweepOptions
    from ..report import Table

MEMBERS, TRAINING, RUNNING = "Members", "Training", "Running"
MOST = 10_000
"""Values of one range, at most."""


@dataclass(frozen=True)
class Grid:
    """Which trainings: every combination."""

    p12: Annotated[
        str,
        option(
            MEMBERS,
            "Probability in the data that the first animal beats the second: a list, or a range "
            "with its end and step, as 0:1:.05.",
            metavar="P",
        ),
    ] = ".99"
    p23: Annotated[
        str,
        option(MEMBERS, "The same for the second against the third.", metavar="P"),
    ] = "0:1:.05"
    permutations: Annotated[
        str,
        option(
            MEMBERS,
            "Orders of the animals: all, or some, as dog,cat,bird;bird,dog,cat.",
            metavar="all|A,B,C;...",
        ),
    ] = "dog,cat,bird"
    seeds: Annotated[int, option(MEMBERS, "Trainings of each, with other samples.")] = 1
    beta: Annotated[
        str, option(MEMBERS, "Strength of the pull towards the reference.", metavar="X")
    ] = "0.1"
    learning_rate: Annotated[
        str,
        option(MEMBERS, "Peak of the learning rate; large models want 5e-6.", metavar="X"),
    ] = "1e-4"


@dataclass(frozen=True)
class Shared:
    """What all trainings share, named as in :class:`jaxpref.llm.sweep.SweepOptions`."""

    pairs: Annotated[int, option(TRAINING, "Pairs of animals a training samples.")] = 1024
    batch_size: Annotated[int, option(TRAINING, "Pairs a step.")] = 16
    schedule: Annotated[
        str,
        option(TRAINING, "How the learning rate falls.", metavar="linear|cosine|constant"),
    ] = "linear"
    clip_norm: Annotated[float, option(TRAINING, "Largest norm of a gradient.")] = 1.0
    nouns: Annotated[
        str,
        option(
            TRAINING,
            "How the animals are written: a dog, dog, dogs.",
            metavar="article|bare|plural",
        ),
    ] = "article"
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Ask in the tokenizer's chat template.",
            rich_help_panel=TRAINING,
            show_default="if it has one",
        ),
    ] = None
    compute_dtype: Annotated[
        str | None,
        option(
            TRAINING,
            "Type of the passes; weights stay float32.",
            show_default=False,
            metavar="float32|bfloat16",
        ),
    ] = None
    mode: Annotated[
        str | None,
        option(
            RUNNING,
            "Trainings one after the other, all of a block at once, or a few at once.",
            metavar="map|vmap|chunks|measured",
            show_default="map on a CPU, else vmap",
        ),
    ] = None
    block: Annotated[
        int | None,
        option(
            RUNNING,
            "Trainings between two writes of results, and at most at once.",
            show_default="4 on a CPU, else 63",
        ),
    ] = None


@grouped
def sweep(
    model: Annotated[
        Path,
        typer.Option(
            help="Folder of the model that every training starts from and is compared with.",
            metavar="DIR",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.", metavar="DIR")],
    grid: Grid,
    shared: Shared,
    adapters: Adapters,
    processes: Annotated[
        int,
        typer.Option(help="Processes of one core each; for CPUs.", rich_help_panel=RUNNING),
    ] = 1,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on in --out: what is in it is kept.", rich_help_panel=RUNNING
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train a policy on each of many data sets D(order, p12, p23), and ask what it learned.

    Every training is DPO on samples about the first and second, and the second and third animal;
    p13 is in no sample. Leaves in --out a line a training (members.jsonl).
    """
    members = members_of(grid)
    check_packages("sweep")
    options = _shared(shared, model)
    lora = adapters.options(model)
    from .._checks import InputError
    from ..llm import sweep as run

    try:
        with _terminal.progress("Training") as move:
            records = run(
                model,
                members,
                out=out,
                options=options,
                lora=lora,
                processes=processes,
                resume=resume,
                progress=move,
            )
    except InputError as error:
        flag = as_flag(str(error), ("out", "processes", "chat"))
        message = flag.replace("or resume to go on", "or --resume to go on")
        raise type(error)(message) from None
    if json:
        _terminal.show_json({"command": "sweep", "out": out, "members": records})
    else:
        _terminal.show(table(records))
        _terminal.say(f"Written: {out}/members*.jsonl.")
    _raise_if_diverged(records)


def members_of(grid: Grid) -> list[Member]:
    """Return the trainings asked for; messages name the flag.

    Raises
    ------
    InputError
    """
    from .._checks import InputError, check_count

    seeds = check_count("--seeds", grid.seeds)
    lists = {
        name: numbers(getattr(grid, name), "--" + name.replace("_", "-"))
        for name in ("p12", "p23", "beta", "learning_rate")
    }
    check_packages("sweep")
    from ..llm.sweep import sweep_grid

    try:
        return sweep_grid(
            omegas=orders(grid.permutations),
            p12=lists["p12"],
            p23=lists["p23"],
            seeds=range(seeds),
            betas=lists["beta"],
            learning_rates=lists["learning_rate"],
        )
    except InputError as error:
        message = re.sub(r"^omega:", "--permutations:", str(error))
        raise InputError(as_flag(message, lists)) from None


def numbers(text: str, flag: str) -> list[float]:
    """Return the numbers of a list and of ranges with their end, rounded to 12 digits.

    >>> numbers(".5,0:1:.25", "--p23")
    [0.5, 0.0, 0.25, 0.5, 0.75, 1.0]
    """
    from .._checks import InputError

    found: list[float] = []
    for part in text.split(","):
        try:
            ends = [float(number) for number in part.split(":")]
        except ValueError:
            ends = []
        if len(ends) == 1:
            found += ends
        elif len(ends) == 3 and ends[2] > 0 and 0 <= (ends[1] - ends[0]) / ends[2] <= MOST:
            count = int((ends[1] - ends[0]) / ends[2] + 1e-9) + 1
            found += [round(ends[0] + step * ends[2], 12) for step in range(count)]
        else:
            raise InputError(
                f"{flag}: expected numbers, or start:end:step, parted by commas; got {text!r}"
            )
    return found


def orders(text: str) -> list[tuple[str, ...]]:
    """Return the orders of the animals.

    >>> orders("dog,cat,bird; bird,cat,dog")
    [('dog', 'cat', 'bird'), ('bird', 'cat', 'dog')]
    """
    if text.strip() == "all":
        from ..llm.animals import PERMUTATIONS

        return list(PERMUTATIONS)
    return [tuple(name.strip() for name in order.split(",")) for order in text.split(";")]


def _shared(shared: Shared, model: Path) -> SweepOptions:
    """Return the options, checked, messages naming the flag; chat as the tokenizer has it."""
    from .._checks import InputError, check_option
    from ..llm.config import decoder_config
    from ..llm.sweep import SweepOptions, speaks_chat
    from ..llm.tokenizers import load_tokenizer

    values = dict(vars(shared))
    if shared.compute_dtype is not None:
        check_option("--compute-dtype", shared.compute_dtype, ("float32", "bfloat16"))
    try:
        options = SweepOptions(**{**values, "chat": False})
    except InputError as error:
        raise InputError(as_flag(str(error), values)) from None
    chat = speaks_chat(model) if shared.chat is None else shared.chat
    load_tokenizer(model, config=decoder_config(model))  # raises where the two do not fit
    return SweepOptions(**{**vars(options), "chat": chat})


def _raise_if_diverged(records: list[dict[str, Any]]) -> None:
    lost = [record["name"] for record in records if record["diverged"]]
    if lost:
        from .._checks import ConvergenceError

        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ConvergenceError(
            f"sweep: not finite: {lost[0]}{more}; a lower learning rate may help"
        )


def table(records: list[dict[str, Any]]) -> Table:
    """Return what each training learned; what all share stands below, not in columns."""
    from ..report.tables import Column, Table

    asked = [record["member"] for record in records]
    varying = [name for name in asked[0] if len({str(member[name]) for member in asked}) > 1] or [
        "p23"
    ]
    learned = ("p12", "p23", "p13")
    columns = (
        *(Column(NAMES[name], "left" if name == "omega" else "right") for name in varying),
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
                *(_value(record["member"][name]) for name in varying),
                *(_probability(found[name]) for name in learned),
                _probability(least),
            )
        )
    same = ", ".join(f"{NAMES[n]} {_value(asked[0][n])}" for n in asked[0] if n not in varying)
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
