"""Sortable tables: cells with the value to sort by, columns with what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .elements import Content, Markup, item, join, tag, visible

SHOWN = 12
"""Rows shown before the rest is asked for, where a table is long."""

FILTERED = 25
"""Rows from which a table has a field to find an item in."""


class Heading(NamedTuple):
    """A column: its header, whether it holds numbers, and what it means (shown on hover)."""

    text: str
    number: bool = True
    hint: str = ""


class Cell(NamedTuple):
    """What a cell shows, and what it is sorted by: a number, or text."""

    content: Content
    key: float | int | str


def name_cell(name: str) -> Cell:
    """Return a cell with an item's name."""
    return Cell(item(name), visible(name))


def pair_cell(item_a: str, item_b: str, joint: str = "over") -> Cell:
    """Return a cell with two names."""
    content = join(item(item_a), f" {joint} ", item(item_b))
    return Cell(content, f"{visible(item_a)} {visible(item_b)}")


def number_cell(text: str, value: float | int | None) -> Cell:
    """Return a cell with a number as it is shown, sorted by its value."""
    return Cell(text, -math.inf if value is None or math.isnan(value) else float(value))


def grid(
    caption: str,
    headings: Sequence[Heading],
    rows: Sequence[Sequence[Cell]],
    *,
    note: str = "",
    sorted_by: tuple[int, str] | None = None,
    shown: int = SHOWN,
) -> Markup:
    """Return a table that can be sorted by any column, its first rows shown at first.

    Parameters
    ----------
    caption : str
        What it holds; also its name for those who do not see it.
    headings : sequence of Heading
        The columns. The first cell of each row is the row's header.
    rows : sequence of sequence of Cell
        One cell a column.
    note : str
        Shown below.
    sorted_by : (int, "ascending" or "descending"), optional
        The column that the rows are sorted by already.
    shown : int
        Rows shown until all are asked for.
    """
    body = tag("tbody", [_row(cells, headings) for cells in rows])
    table = tag(
        "table",
        tag("thead", tag("tr", [_heading(h, n, sorted_by) for n, h in enumerate(headings)])),
        body,
        data_shown=shown if len(rows) > shown + 3 else None,
        data_find=len(rows) >= FILTERED,
        aria_label=caption,
    )
    scroll = tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)
    below = tag("p", note, class_="note") if note else None
    return tag("div", tag("h3", caption), scroll, below, class_="grid")


def _heading(heading: Heading, place: int, sorted_by: tuple[int, str] | None) -> Markup:
    order = sorted_by[1] if sorted_by is not None and sorted_by[0] == place else "none"
    button = tag("button", heading.text, type="button", data_tip=heading.hint or None)
    kind = "number" if heading.number else None
    return tag("th", button, scope="col", class_=kind, aria_sort=order)


def _row(cells: Sequence[Cell], headings: Sequence[Heading]) -> Markup:
    return tag(
        "tr",
        [
            tag(
                "th" if place == 0 else "td",
                cell.content,
                scope="row" if place == 0 else None,
                class_="number" if heading.number else None,
                data_key=_key(cell),
            )
            for place, (cell, heading) in enumerate(zip(cells, headings, strict=True))
        ],
    )


def _key(cell: Cell) -> str | None:
    """Return what a cell is sorted by, where its text does not say it."""
    if isinstance(cell.key, str):
        return None if isinstance(cell.content, str) else cell.key.casefold()
    return "" if math.isinf(cell.key) else f"{cell.key:.12g}"
