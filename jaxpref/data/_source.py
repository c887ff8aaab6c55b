"""A table still to be read: what it is called, its rows in portions, and the words for a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

Progress = Callable[[int, int], None]
# Rows in memory at a time, where rows can be counted before they are read.
PORTION = 1_000_000


@dataclass(frozen=True)
class Source:
    """A table still to be read.

    Parameters
    ----------
    label : str
        What messages call it, nothing where the caller knows.
    frame : polars.LazyFrame
        The rows.
    locate : callable
        Turns the index of a row, from 0, into words such as "row 3 (line 4 of the file)".
    blank_lines : bool
        Whether the rows may hold blank lines of a text file, which say nothing.
    portions : callable, optional
        Yields the columns asked for (all for None) a portion of rows at a time, so that memory does
        not follow the rows. When left out, the rows are taken at once: they lie in memory already.
    """

    label: str
    frame: pl.LazyFrame
    locate: Callable[[int], str]
    blank_lines: bool = False
    portions: Callable[[list[str] | None], Iterator[pl.LazyFrame]] | None = None

    def parts(self, needed: list[str] | None) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield columns in portions of rows, each with the number of rows before it.

        There is at least one portion, which is empty where the table is.
        """
        row = 0
        for frame in self._portions(needed):
            part = frame.collect()
            yield row, part
            row += part.height

    def _portions(self, needed: list[str] | None) -> Iterator[pl.LazyFrame]:
        if self.portions is not None:
            return self.portions(needed)
        return iter([self.frame if needed is None else self.frame.select(needed)])

    def raw(self, row: int, needed: list[str]) -> dict[str, Any]:
        """Return what a row says in some columns."""
        for before, part in self.parts(needed):
            if row < before + part.height:
                return part.row(row - before, named=True)
        raise IndexError(row)

    def place(self, row: int) -> str:
        """Name a row, with the table it stands in."""
        return f"{self.label}, {self.locate(row)}" if self.label else self.locate(row)


def name_row(row: int) -> str:
    """Name a row of a table in memory, counted from 1."""
    return f"row {row + 1:,}"


def slices(
    frame: pl.LazyFrame, progress: Progress | None
) -> Callable[[list[str] | None], Iterator[pl.LazyFrame]]:
    """Return the portions of a table of which any slice can be had cheaply."""

    def portions(needed: list[str] | None) -> Iterator[pl.LazyFrame]:
        chosen = frame if needed is None else frame.select(needed)
        rows = chosen.select(pl.len()).collect().item()
        for row in range(0, max(rows, 1), PORTION):
            yield chosen.slice(row, PORTION)
            if progress is not None:
                progress(min(row + PORTION, rows), rows)

    return portions
