"""The terminal: what is printed where, in which width, and how progress shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from ..report import Table

PROSE_WIDTH = 100
"""Sentences are wrapped at this width however wide the window is."""

Progress = Callable[[int, int], None]


class ReaderGone(Exception):  # noqa: N818 - not an error: whoever read the output has enough
    """The reader of standard output closed it, as ``| head`` does."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        _leave_quietly()


def _leave_quietly() -> None:
    """Send what is still buffered nowhere, so that Python does not complain on its way out."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # a standard output without a file behind it
        pass
    raise ReaderGone


def keep_going_on_odd_characters() -> None:
    """Let terminals that lack a character show its escape instead of stopping the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _console() -> Console:
    return _Console(highlight=False, markup=False, emoji=False)


def write(text: str) -> None:
    """Write text to standard output as it is."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_quietly()


def show_json(content: dict[str, Any]) -> None:
    """Print one JSON object on standard output."""
    from ..report.files import to_json

    write(to_json(content) + "\n")


def say(text: str, style: str = "") -> None:
    """Print a paragraph, as it is, and wrapped at the width of the window or of prose."""
    console = _console()
    console.print(Text(text, style=style), width=min(console.width, PROSE_WIDTH))


def show(*tables: Table) -> None:
    """Print tables, each with its title above and its note below."""
    console = _console()
    for table in tables:
        say("")
        if table.title:
            say(table.title, style="bold")
        console.print(table.to_rich())
        if table.note:
            say(table.note, style="dim")
    say("")


def complain(message: str) -> None:
    """Print the one message of an error on standard error."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(Text.assemble(("jaxpref: ", "bold red"), message))


@contextmanager
def progress(description: str, *, percent: bool = False) -> Iterator[Progress | None]:
    """Show a bar on standard error where that is a terminal; yield what moves it, or None.

    With `percent`, for steps that mean nothing to a reader, the share done replaces their count.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    done = TaskProgressColumn() if percent else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), done)
    with Bars(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bars:
        task = bars.add_task(description, total=100 if percent else None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def working(description: str) -> Iterator[None]:
    """Show that work of unknown length goes on, on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(Text(description)):
        yield
