"""What both kinds of ``jaxpref sweep`` share: lists of numbers, and where members run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ._runs import as_flag, option

MEMBERS, RUNNING = "Members", "Running"
MOST = 10_000
"""Values of one range, at most."""


@dataclass(frozen=True)
class Grid:
    """Which trainings: every combination, with those of the kind of data."""

    seeds: Annotated[
        int, option(MEMBERS, "Trainings of each, with another order of the data or other samples.")
    ] = 1
    beta: Annotated[
        str,
        typer.Option(
            "--beta",
            "--betas",
            help="Strength of the pull towards the reference; a list, or a range with its end and "
            "step, as .05:.2:.05.",
            rich_help_panel=MEMBERS,
            metavar="X",
        ),
    ] = "0.1"
    learning_rate: Annotated[
        str,
        typer.Option(
            "--learning-rate",
            "--learning-rates",
            help="Peak of the learning rate; large models want 5e-6.",
            rich_help_panel=MEMBERS,
            metavar="X",
        ),
    ] = "1e-4"


@dataclass(frozen=True)
class Running:
    """How members share the machine; named as in :class:`jaxpref.llm.SweepOptions`."""

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
    processes: Annotated[int, option(RUNNING, "Processes of one core each; for CPUs.")] = 1
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on in --out: what is in it is kept.", rich_help_panel=RUNNING
        ),
    ] = False


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


def varying(members: Sequence[dict[str, Any]], otherwise: str) -> list[str]:
    """Return the names of what differs between members, or one of them if nothing does.

    >>> varying([{"beta": 0.1, "seed": 0}, {"beta": 0.1, "seed": 1}], "beta")
    ['seed']
    """
    names = [name for name in members[0] if len({str(member[name]) for member in members}) > 1]
    return names or [otherwise]


@contextmanager
def flagged(*names: str) -> Iterator[None]:
    """Let messages of a sweep name the flag that they are about."""
    from .._checks import InputError

    try:
        yield
    except InputError as error:
        flag = as_flag(str(error), names)
        message = flag.replace("or resume to go on", "or --resume to go on")
        raise type(error)(message) from None


def raise_if_diverged(records: Sequence[dict[str, Any]]) -> None:
    """Raise where something in a record is not finite."""
    lost = [record["name"] for record in records if record["diverged"]]
    if lost:
        from .._checks import ConvergenceError

        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ConvergenceError(
            f"sweep: not finite: {lost[0]}{more}; a lower learning rate may help"
        )
