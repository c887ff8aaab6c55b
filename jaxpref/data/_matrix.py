"""A square table of counts: wins of the row over the column."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxpref._checks import DataError
from jaxpref.data.comparisons import Comparisons

# What published tables print where an item meets itself.
EMPTY = frozenset({"", "-", "–", "—", "nan", "x"})


def looks_like_matrix(records: Iterator[tuple[int, list[str]]]) -> bool:
    """Whether the first row below the header is named as one of the columns is.

    Cheap, and right for every square table: a row of comparisons starts with one of its own
    values, not with the name of a column.
    """
    rows = (record for _, record in records if record)
    header, first = next(rows, []), next(rows, [])
    names = {name.strip() for name in header[1:]}
    return len(first) > 1 and len(first) == len(header) and first[0].strip() in names


def read_matrix(records: Iterator[tuple[int, list[str]]], source: str) -> Comparisons:
    """Read a table whose header row and first column hold the same names."""
    rows = ((line, [cell.strip() for cell in record]) for line, record in records if any(record))
    columns = next(rows, (1, []))[1][1:]
    if not columns:
        raise DataError(f"{source}: expected a header of names, after an empty first cell")
    names: list[str] = []
    counts: list[list[float]] = []
    for line, (name, *cells) in rows:
        if len(cells) != len(columns):
            raise DataError(
                f"{source}, line {line}: expected {len(columns)} counts, one for each name in "
                f"the header; got {len(cells)}"
            )
        names.append(name)
        counts.append([_count(cell, name, other, line, source)
                       for cell, other in zip(cells, columns, strict=True)])  # fmt: skip
    _refuse_names(names, columns, source)
    order = [columns.index(name) for name in names]
    return Comparisons.from_counts(np.array(counts)[:, order], items=names)


def _count(cell: str, row: str, column: str, line: int, source: str) -> float:
    """Return one entry of the table; blank only where an item meets itself."""
    if row == column and cell.lower() in EMPTY:
        return 0.0
    place = f"{source}, line {line}: wins of {row!r} over {column!r}"
    try:
        count = float(cell)
    except ValueError:
        got = repr(cell) if cell else "a blank (write 0 for none)"
        raise DataError(f"{place}: expected a number; got {got}") from None
    if not (np.isfinite(count) and count >= 0):
        raise DataError(f"{place}: expected a finite number of at least 0; got {cell!r}")
    if row == column and count:
        raise DataError(f"{source}, line {line}: {row!r} is compared with itself")
    return count


def _refuse_names(rows: list[str], columns: list[str], source: str) -> None:
    """Raise unless the rows and the columns hold the same names, each once."""
    for names, where in ((columns, "header"), (rows, "first column")):
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise DataError(f"{source}: the {where} holds {repeated!r} more than once")
        if "" in names:
            raise DataError(f"{source}: the {where} holds a blank in place of a name")
    lone = sorted(set(rows) ^ set(columns))
    if lone:
        where = "header" if lone[0] in columns else "first column"
        raise DataError(
            f"{source}: expected the same names in the header and the first column; "
            f"{lone[0]!r} is only in the {where}"
        )
