"""Rankings as a long table, one row for each item of each ranking, reduced to `Rankings`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from jaxpref._checks import DataError, InputError, closest_names
from jaxpref.data._arrays import also
from jaxpref.data._source import Source
from jaxpref.data.rankings import Rankings

RANKINGS = ("ranking", "ranking_id", "prompt_id", "ballot", "race")
RANKS = ("rank", "place", "position")
SCORES = ("score",)
ITEMS = ("item", "model", "name")
WEIGHTS, RATERS = ("weight",), ("rater", "worker")
OWNER, RANK, ITEM, WEIGHT, RATER, ROW = "owner", "rank", "item", "weight", "rater", "row"
SCORE = "score"


@dataclass(frozen=True)
class LongOptions:
    """What the caller said about the columns; None where nothing."""

    ranking: str | None = None
    rank: str | None = None
    item: str | None = None
    weight: Any = None
    rater: Any = None
    unlisted: str = "ignored"
    score: str | None = None


def reduce_long(source: Source, options: LongOptions) -> Rankings:
    """Build rankings from rows, or raise DataError for the first row that cannot be used.

    Rankings come in the order of their first rows, items sorted by name.
    """
    frame = source.frame
    schema = frame.collect_schema()
    columns = _columns(schema.names(), options, source.label)
    text = [
        text_column(columns[key], schema).alias(key)
        for key in (OWNER, ITEM, RATER)
        if key in columns
    ]
    numbers = [
        number_column(columns[key], schema).alias(key) for key in (RANK, WEIGHT) if key in columns
    ]
    if SCORE in columns:
        numbers.append((-number_column(columns[SCORE], schema)).alias(RANK))
    filled = ~pl.all_horizontal(pl.col(list(dict.fromkeys(columns.values()))).is_null())
    rows = frame.with_row_index(ROW).filter(filled).select(ROW, *text, *numbers).collect()
    if rows.height == 0:
        raise DataError(f"{source.label}: expected at least one ranking; it has no rows of data")
    _refuse_rows(source, columns, rows)
    return _build(rows, options.unlisted)


def _columns(present: list[str], options: LongOptions, label: str) -> dict[str, str]:
    """Return which column says what."""
    found: dict[str, str] = {}
    if options.rank is not None and options.score is not None:
        raise InputError("rank, score: expected one column to order by; got both")
    known = {OWNER: RANKINGS, RANK: RANKS, SCORE: SCORES, ITEM: ITEMS,
             WEIGHT: WEIGHTS, RATER: RATERS}  # fmt: skip
    given = {OWNER: options.ranking, RANK: options.rank, SCORE: options.score, ITEM: options.item,
             WEIGHT: options.weight, RATER: options.rater}  # fmt: skip
    lower = {name.strip().lower(): name for name in present}
    for role, names in known.items():
        if given[role] is False or (role == SCORE and RANK in found):
            continue
        if role == RANK and options.score is not None:
            continue
        option = "ranking" if role == OWNER else role
        wanted = given[role]
        if wanted is not None:
            if not isinstance(wanted, str) or wanted not in present:
                hint = closest_names(str(wanted), present)
                raise InputError(f"{label}: no column {wanted!r} for {option}={hint}")
            found[role] = wanted
            continue
        match = next((lower[name] for name in names if name in lower), None)
        if match is not None:
            found[role] = match
        elif role in (OWNER, SCORE, ITEM):
            option = "rank, or score," if role == SCORE else option
            raise InputError(
                f"{label}: cannot tell which column holds the {option}; its columns are "
                f"{', '.join(map(repr, present)) or 'none'}; name it with {option.split(',')[0]}="
            )
    return found


def text_column(name: str, schema: Any) -> pl.Expr:
    """Return a column as text, blanks and NaN as nulls; whole floats lose ``.0``."""
    if schema[name].is_nested():
        raise DataError(f"column {name!r}: expected names; it holds {schema[name]}")
    column = pl.col(name)
    if schema[name].is_float():
        whole = (column == column.floor()) & (column.abs() < 2**53)
        text = pl.when(whole).then(column.cast(pl.Int64, strict=False).cast(pl.String))
        column = text.otherwise(column.cast(pl.String))
    else:
        column = column.cast(pl.String).str.strip_chars()
    return pl.when(column.is_in(["", "nan", "NaN"])).then(None).otherwise(column)


def number_column(name: str, schema: Any) -> pl.Expr:
    """Return a column as finite numbers, null where it holds none."""
    if schema[name].is_nested() or schema[name].is_temporal():
        raise DataError(f"column {name!r}: expected numbers; it holds {schema[name]}")
    column = pl.col(name)
    if not schema[name].is_numeric():
        column = column.cast(pl.String).str.strip_chars()
    number = column.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number).otherwise(None)


def _refuse_rows(source: Source, columns: dict[str, str], rows: pl.DataFrame) -> None:
    """Raise for the first row that cannot be used, and count those like it."""
    name = {role: columns[role] for role in columns}
    order = "a rank" if RANK in name else "a score"
    name.setdefault(RANK, name.get(SCORE, ""))
    problems: list[tuple[pl.Expr, Callable[[dict[str, Any]], str]]] = [
        (pl.col(OWNER).is_null(),
         lambda raw: f"{name[OWNER]}: expected the name of a ranking; it is missing"),
        (pl.col(ITEM).is_null(),
         lambda raw: f"{name[ITEM]}: expected the name of an item; it is missing"),
        (pl.col(RANK).is_null(),
         lambda raw: f"{name[RANK]}: expected {order}, a finite number; got {raw[name[RANK]]!r}"),
        (pl.struct(OWNER, ITEM).is_first_distinct().not_()
         & pl.col(OWNER).is_not_null() & pl.col(ITEM).is_not_null(),
         lambda raw: f"{raw[name[ITEM]]!r} is listed twice in ranking {raw[name[OWNER]]!r}"),
        (pl.len().over(OWNER) < 2,
         lambda raw: f"ranking {raw[name[OWNER]]!r}: expected at least 2 items; got one alone"),
    ]  # fmt: skip
    if WEIGHT in name:
        bad = pl.col(WEIGHT).is_null() | (pl.col(WEIGHT) < 0)
        problems.append((bad, lambda raw: f"{name[WEIGHT]}: expected a finite weight of at least 0;"
                                          f" got {raw[name[WEIGHT]]!r}"))  # fmt: skip
        problems.append(_varies(WEIGHT, name))
    if RATER in name:
        missing = f"{name[RATER]}: expected the name of a rater; it is missing (rater=False: none)"
        problems.append((pl.col(RATER).is_null(), lambda raw: missing))
        problems.append(_varies(RATER, name))
    raise_first(source, rows, problems)


def _varies(role: str, name: dict[str, str]) -> tuple[pl.Expr, Callable[[dict[str, Any]], str]]:
    """Return the check that a column says one thing for the whole of a ranking."""
    return (
        pl.col(role).ne_missing(pl.col(role).first().over(OWNER)),
        lambda raw: (
            f"{name[role]}: expected one value for the whole of ranking "
            f"{raw[name[OWNER]]!r}; got {raw[name[role]]!r} after another"
        ),
    )


def raise_first(
    source: Source,
    rows: pl.DataFrame,
    problems: list[tuple[pl.Expr, Callable[[dict[str, Any]], str]]],
) -> None:
    flags = rows.select(
        pl.col(ROW), *(test.fill_null(False).alias(str(k)) for k, (test, _) in enumerate(problems))
    )
    found = []
    for k, (_, words) in enumerate(problems):
        bad = flags.filter(pl.col(str(k)))
        if bad.height:
            found.append((int(bad[ROW][0]), bad.height, words))
    if found:
        row, count, words = min(found, key=lambda problem: problem[0])
        raw = source.frame.slice(row, 1).collect().row(0, named=True)
        raise DataError(f"{source.place(row)}{also(count)}: {words(raw)}")


def _build(rows: pl.DataFrame, unlisted: str) -> Rankings:
    """Return the rankings of checked rows."""
    rows = rows.with_columns(pl.col(ROW).min().over(OWNER).alias("first"))
    rows = rows.sort("first", RANK, ROW)
    items, item = name_codes(rows[ITEM])
    starts = np.flatnonzero(np.diff(rows["first"].to_numpy().astype(np.int64), prepend=-1))
    heads = rows[starts.tolist()] if RATER in rows.columns or WEIGHT in rows.columns else rows
    weight = heads[WEIGHT].to_numpy() if WEIGHT in rows.columns else None
    raters, rater = name_codes(heads[RATER]) if RATER in rows.columns else ((), None)
    start = np.append(starts, rows.height).astype(np.int64)
    return Rankings(items, item, rows[RANK].to_numpy(), start, weight, unlisted, rater, raters)


def name_codes(column: pl.Series) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the sorted names of a column, whole numbers by size, and each row's position."""
    names = column.unique().to_list()
    if all(name.isascii() and name.lstrip("-").isdecimal() for name in names):
        names = sorted(names, key=lambda name: (int(name), name))
    else:
        names = sorted(names)
    return tuple(names), column.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int32)
