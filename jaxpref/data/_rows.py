"""From rows to cells: a group-by in portions, then checks on the few groups that are left.

Rows that agree in both items, the outcome and the rater become one group that remembers its first
row. A problem such as a missing name or an unknown label is common to the whole group, so it is
looked for there, and still reported with its row. Memory follows the number of groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from jaxpref._checks import DataError, InputError
from jaxpref.data._arrays import also, unknown_name
from jaxpref.data._columns import Columns, describe_labels
from jaxpref.data.comparisons import Comparisons

# Names of the columns of the grouped table; "row" counts from 0.
A, B, SAID, RATER, WEIGHT, ROW = "a", "b", "said", "rater", "weight", "row"
KEYS = [A, B, SAID, RATER]
# Covariates are numbered: their names may be those of the columns above.
COVARIATE = "covariate "
# Rows in memory at a time.
PORTION = 2_000_000


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
    portions : {"whole", "slices", "batches"}
        How to read so that memory does not follow the rows: at once for what lies in memory
        already, slice by slice where any slice can be had cheaply, or in batches as they come.
    """

    label: str
    frame: pl.LazyFrame
    locate: Callable[[int], str]
    blank_lines: bool = False
    portions: Literal["whole", "slices", "batches"] = "whole"

    def parts(self, needed: list[str]) -> Iterator[tuple[int, pl.LazyFrame]]:
        """Yield the columns needed in portions of rows, each with the number of rows before it."""
        frame = self.frame.select(needed)
        batches = getattr(frame, "collect_batches", None)  # polars before 1.34 has none
        if self.portions == "batches" and batches is not None:
            row = 0
            for batch in batches(chunk_size=PORTION, maintain_order=True):
                yield row, batch.lazy()
                row += batch.height
            if row == 0:
                yield 0, frame
        elif self.portions == "slices":
            rows = frame.select(pl.len()).collect().item()
            for row in range(0, max(rows, 1), PORTION):
                yield row, frame.slice(row, PORTION)
        else:
            yield 0, frame

    def place(self, row: int) -> str:
        """Name a row, with the table it stands in."""
        return f"{self.label}, {self.locate(row)}" if self.label else self.locate(row)


def reduce_rows(
    source: Source, columns: Columns, items: tuple[str, ...] | None = None
) -> Comparisons:
    """Reduce the rows of a table to cells, or raise DataError for the first row in the way."""
    groups = _skip_blank_lines(source, columns, _group(source, columns))
    if groups.height == 0:
        raise DataError(f"{source.label}: expected at least one comparison; it has no rows of data")
    groups = _read_outcomes(_as_text(groups), columns)
    _refuse_first_problem(source, columns, groups, items)
    names = items if items is not None else _sorted_names(groups[A], groups[B])
    return _cells(groups, names, columns)


def reduce_names(
    winner: Any, loser: Any, items: tuple[str, ...] | None, weight: Any
) -> Comparisons:
    """Reduce two columns of names, winner first, to cells."""
    data = {"winner": _names("winner", winner), "loser": _names("loser", loser)}
    if weight is not None:
        data["weight"] = pl.Series("weight", np.asarray(weight))
    lengths = {name: series.len() for name, series in data.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{length:,} in {name}" for name, length in lengths.items())
        raise InputError(f"winner, loser, weight: expected equal lengths; got {shown}")
    columns = Columns(
        "winner", "loser", "winner", None, None, "weight" if weight is not None else None,
        None, {}, True,
    )  # fmt: skip
    source = Source("", pl.DataFrame(data).lazy(), name_row)
    return reduce_rows(source, columns, items)


def name_row(row: int) -> str:
    """Name a row of a table in memory, counted from 1."""
    return f"row {row + 1:,}"


def _names(argument: str, values: Any) -> pl.Series:
    """Return a column of names, missing ones null; anything but text is refused."""
    listed = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(listed, (str, bytes)) or not isinstance(listed, Iterable):
        raise InputError(f"{argument}: expected a column of names or indices; got {values!r}")
    listed = list(listed)
    try:
        return pl.Series(argument, listed, pl.String, strict=True)
    except (TypeError, pl.exceptions.PolarsError):
        pass
    for row, value in enumerate(listed):
        if not isinstance(value, str) and value is not None and value == value:
            raise DataError(
                f"row {row + 1:,}: {argument}: expected a name; got {value!r}"
            ) from None
    return pl.Series(argument, [v if isinstance(v, str) else None for v in listed], pl.String)


def _group(source: Source, columns: Columns) -> pl.DataFrame:
    """Group the rows, portion by portion, in one pass."""
    schema = source.frame.collect_schema()
    grouped: pl.DataFrame | None = None
    for row, part in source.parts(columns.needed()):
        more = _group_part(part, columns, schema, row)
        if grouped is not None:
            more = _merge_groups(pl.concat([grouped, more.select(grouped.columns)]))
        grouped = more
    assert grouped is not None  # there is at least one portion, be it empty
    return grouped


def _group_part(
    frame: pl.LazyFrame, columns: Columns, schema: Mapping[str, Any], row: int
) -> pl.DataFrame:
    """Group a portion of the rows, `row` the number of those before it."""
    keys = [_key(columns.item_a, schema).alias(A), _key(columns.item_b, schema).alias(B)]
    if columns.winner is not None:
        keys.append(_key(columns.winner, schema).alias(SAID))
    else:
        keys.append(_score_outcome(columns, schema).alias(SAID))
    if columns.rater is not None:
        keys.append(_key(columns.rater, schema).alias(RATER))
    keys += [
        _covariate(names, schema).alias(f"{COVARIATE}{k}")
        for k, names in enumerate(columns.covariates.values())
    ]
    weight = pl.lit(1.0) if columns.weight is None else _number(columns.weight, schema)
    bad = ~(weight.is_finite() & (weight >= 0)).fill_null(False)
    number = (pl.col(ROW).cast(pl.Int64) + row).alias(ROW)
    chosen = frame.with_row_index(ROW).select(
        *keys, number, weight.alias(WEIGHT), bad.alias("bad_rows"),
        pl.when(bad).then(number).alias("bad_row"),
    )  # fmt: skip
    weight_sum = pl.len().cast(pl.Float64) if columns.weight is None else pl.col(WEIGHT).sum()
    names = [key.meta.output_name() for key in keys]
    grouped = chosen.group_by(names).agg(
        weight_sum.alias(WEIGHT),
        pl.len().cast(pl.Int64).alias("rows"),
        pl.col(ROW).min(),
        pl.col("bad_rows").sum().cast(pl.Int64),
        pl.col("bad_row").min(),
    )
    text = [pl.col(name).cast(pl.String) for name in names if _is_text(grouped, name)]
    return grouped.with_columns(text).collect(engine="streaming")


def _is_text(frame: pl.LazyFrame, name: str) -> bool:
    return frame.collect_schema()[name] in (pl.Categorical, pl.Enum)


def _merge_groups(groups: pl.DataFrame) -> pl.DataFrame:
    """Add up groups of the same keys from different portions."""
    keys = [name for name in groups.columns if name in KEYS or name.startswith(COVARIATE)]
    return groups.group_by(keys).agg(
        pl.col(WEIGHT, "rows", "bad_rows").sum(), pl.col(ROW, "bad_row").min()
    )


def _key(name: str, schema: Mapping[str, Any]) -> pl.Expr:
    """Return a column to group by; text as categories, which group faster."""
    if schema[name].is_nested():
        raise DataError(f"column {name!r}: expected names or labels; it holds {schema[name]}")
    column = pl.col(name)
    return column.cast(pl.Categorical) if schema[name] == pl.String else column


def _number(name: str, schema: Mapping[str, Any]) -> pl.Expr:
    """Return a column as numbers, null where it does not hold one."""
    column = pl.col(name)
    if schema[name].is_nested() or schema[name].is_temporal():
        raise DataError(f"column {name!r}: expected numbers; it holds {schema[name]}")
    if schema[name] in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if schema[name] in (pl.Categorical, pl.Enum, pl.String):
        column = column.str.strip_chars()
    return column.cast(pl.Float64, strict=False)


def _covariate(names: tuple[str, ...], schema: Mapping[str, Any]) -> pl.Expr:
    """Return a covariate, or the difference of two columns; true is 1; null where no number."""
    parts = []
    for name in names:
        part = _number(name, schema)
        if schema[name] in (pl.Categorical, pl.Enum, pl.String):
            said = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase()
            part = pl.coalesce(
                part, pl.when(said == "true").then(1.0).when(said == "false").then(0.0)
            )
        parts.append(part)
    value = parts[0] if len(parts) == 1 else parts[0] - parts[1]
    return pl.when(value.is_finite()).then(value + 0.0).otherwise(None)


def _score_outcome(columns: Columns, schema: Mapping[str, Any]) -> pl.Expr:
    """Return 1, -1 or 0 by the higher score, null where either is unknown."""
    assert columns.score_a is not None and columns.score_b is not None
    first, second = _number(columns.score_a, schema), _number(columns.score_b, schema)
    known = first.is_finite() & second.is_finite()
    higher = (first > second).cast(pl.Int8) - (first < second).cast(pl.Int8)
    return pl.when(known).then(higher).otherwise(None)


def _skip_blank_lines(source: Source, columns: Columns, groups: pl.DataFrame) -> pl.DataFrame:
    """Leave out the group of blank lines, once sure that it holds nothing else."""
    blank = pl.all_horizontal(pl.col([k for k in KEYS if k in groups.columns]).is_null())
    rows = groups.filter(blank)
    if not source.blank_lines or rows.height == 0:
        return groups
    empty = pl.all_horizontal(pl.all().is_null())
    lines = source.frame.select(empty.sum()).collect(engine="streaming").item()
    if lines == rows["rows"].sum():
        return groups.filter(~blank)
    needed = pl.all_horizontal(pl.col(columns.needed()).is_null())
    half_empty = source.frame.with_row_index("row of the file").filter(needed & ~pl.all_horizontal(
        pl.exclude("row of the file").is_null()
    ))  # fmt: skip
    first = half_empty.select(pl.first()).head(1).collect().item()
    others = also(rows["rows"].sum() - lines)
    raise DataError(f"{source.place(first)}{others}: expected two items; both are missing")


def _as_text(groups: pl.DataFrame) -> pl.DataFrame:
    """Turn names and labels into text, blanks and NaN into nulls; whole floats lose ``.0``."""
    for name in (key for key in KEYS if key in groups.columns):
        series = groups[name]
        if series.dtype.is_float():
            series = series.fill_nan(None)
            if ((series == series.floor()) & (series.abs() < 2**53)).all():
                series = series.cast(pl.Int64)
        text = pl.col(name).str.strip_chars()
        groups = groups.with_columns(series.cast(pl.String)).with_columns(
            pl.when(text.is_in(["", "nan", "NaN"])).then(None).otherwise(text).alias(name)
        )
    return groups


def _read_outcomes(groups: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """Add the outcome of each group: 1, -1, 0 or null, and whether its label has two readings."""
    if columns.winner is None:
        return groups.with_columns(
            pl.col(SAID).cast(pl.Int8).alias("outcome"), pl.lit(False).alias("two_readings")
        )
    said, a, b = pl.col(SAID), pl.col(A), pl.col(B)
    meaning = pl.DataFrame(
        {"low": list(columns.labels), "label": list(columns.labels.values())},
        {"low": pl.String, "label": pl.Int8},
    )
    groups = groups.with_columns(said.str.to_lowercase().alias("low"))
    groups = groups.join(meaning, on="low", how="left", maintain_order="left")
    like_a, like_b = a.str.to_lowercase() == pl.col("low"), b.str.to_lowercase() == pl.col("low")
    name = (
        pl.when(not columns.accept_names).then(None)
        .when(said == a).then(1).when(said == b).then(-1)
        .when(like_a & ~like_b).then(1).when(like_b & ~like_a).then(-1)
        .cast(pl.Int8)
    )  # fmt: skip
    label = pl.col("label")
    return groups.with_columns(
        pl.coalesce(label, name).alias("outcome"),
        (label != name).fill_null(False).alias("two_readings"),
    )


def _problems(
    columns: Columns, items: tuple[str, ...] | None
) -> list[tuple[pl.Expr, Callable[[dict[str, Any]], str]]]:
    """Return each thing that can be wrong with a group, and the words for it."""
    a, b = columns.item_a, columns.item_b
    checks: list[tuple[pl.Expr, Callable[[dict[str, Any]], str]]] = [
        (pl.col(A).is_null(), lambda raw: f"{a}: expected the name of an item; it is missing"),
        (pl.col(B).is_null(), lambda raw: f"{b}: expected the name of an item; it is missing"),
        (pl.col(A) == pl.col(B), lambda raw: f"{_said(raw[a])} is compared with itself"),
    ]
    if items is not None:
        for side, name in ((A, a), (B, b)):
            unknown = ~pl.col(side).is_in(list(items))
            checks.append((unknown, lambda raw, name=name: unknown_name(str(raw[name]), items)))
    if columns.winner is None:
        checks.append((pl.col("outcome").is_null(), lambda raw: _bad_score(raw, columns)))
    else:
        checks.append((pl.col("two_readings"), lambda raw: _bad_label(raw, columns, "ambiguous")))
        checks.append(
            (pl.col("outcome").is_null(), lambda raw: _bad_label(raw, columns, "unknown"))
        )
    if columns.rater is not None:
        missing = f"{columns.rater}: expected the name of a rater; it is missing"
        hint = " (rater=False leaves raters out)"
        checks.append((pl.col(RATER).is_null(), lambda raw: missing + hint))
    for k, names in enumerate(columns.covariates.values()):
        unknown = pl.col(f"{COVARIATE}{k}").is_null()
        checks.append((unknown, lambda raw, names=names: _bad_covariate(raw, names)))
    return checks


def _refuse_first_problem(
    source: Source, columns: Columns, groups: pl.DataFrame, items: tuple[str, ...] | None
) -> None:
    """Raise DataError for the first row that cannot be used, and count those like it."""
    found: list[tuple[int, int, Callable[[dict[str, Any]], str]]] = []
    for condition, words in _problems(columns, items):
        bad = groups.filter(condition.fill_null(False))
        if bad.height:
            found.append((int(bad[ROW].to_numpy().min()), int(bad["rows"].sum()), words))
    heavy = groups.filter(pl.col("bad_rows") > 0)
    if heavy.height:
        first = int(heavy["bad_row"].to_numpy().min())
        found.append((first, int(heavy["bad_rows"].sum()), lambda raw: _bad_weight(raw, columns)))
    if not found:
        return
    row, count, words = min(found, key=lambda problem: problem[0])
    raw = source.frame.select(columns.needed()).slice(row, 1).collect().row(0, named=True)
    raise DataError(f"{source.place(row)}{also(count)}: {words(raw)}")


def _said(value: Any) -> str:
    """Print what a row says, blank or not."""
    if value is None:
        return "a blank"
    return repr(value)


def _bad_label(raw: dict[str, Any], columns: Columns, kind: str) -> str:
    """Describe a winner label with no reading, or with two."""
    said = _said(raw[columns.winner or ""])
    if kind == "ambiguous":
        said += f" between {_said(raw[columns.item_a])} and {_said(raw[columns.item_b])}"
    return (
        f"{columns.winner}: expected a known label; {kind}: {said}. "
        f"Accepted: {describe_labels(columns)}. Name others with labels_a=, labels_b=, labels_tie= "
        "(--labels-a, --labels-b, --labels-tie)"
    )


def _bad_score(raw: dict[str, Any], columns: Columns) -> str:
    """Describe a score that is missing or no number."""
    for name in (columns.score_a, columns.score_b):
        value = raw[name or ""]
        try:
            usable = value is not None and bool(np.isfinite(float(value)))
        except (TypeError, ValueError):
            usable = False
        if not usable:
            return f"{name}: expected a score, a finite number; got {_said(value)}"
    return "expected two scores"


def _bad_covariate(raw: dict[str, Any], names: tuple[str, ...]) -> str:
    """Describe a covariate that is missing or no number."""
    said = " and ".join(_said(raw[name]) for name in names)
    return f"{', '.join(names)}: expected a finite number for a covariate; got {said}"


def _bad_weight(raw: dict[str, Any], columns: Columns) -> str:
    """Describe a weight that is missing, negative or not finite."""
    said = _said(raw[columns.weight or ""])
    return f"{columns.weight}: expected a finite weight of at least 0; got {said}"


def _sorted_names(*columns: pl.Series) -> tuple[str, ...]:
    """Return the distinct names, sorted; whole numbers by size where all are whole numbers."""
    names = pl.concat([series.rename("name") for series in columns]).unique().to_list()
    if all(name.isascii() and name.lstrip("-").isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _codes(name: str, names: tuple[str, ...]) -> pl.Expr:
    """Return the positions of a column's values among `names`."""
    return pl.col(name).cast(pl.Enum(names)).to_physical().cast(pl.Int32)


def _cells(groups: pl.DataFrame, items: tuple[str, ...], columns: Columns) -> Comparisons:
    """Sum the groups of equal items and rater, the outcomes side by side."""
    raters = _sorted_names(groups[RATER]) if columns.rater is not None else ()
    outcome, weight = pl.col("outcome"), pl.col(WEIGHT)
    keys = [f"{COVARIATE}{k}" for k in range(len(columns.covariates))]
    table = groups.select(
        *keys,
        _codes(A, items).alias(A),
        _codes(B, items).alias(B),
        (_codes(RATER, raters) if raters else pl.lit(0, pl.Int32)).alias(RATER),
        *(pl.when(outcome == sign).then(weight).otherwise(0.0).alias(name)
          for name, sign in (("wins_a", 1), ("wins_b", -1), ("ties", 0))),
    )  # fmt: skip
    if not columns.ordered:
        table = _forget_order(table, keys)
    cells = table.group_by(A, B, RATER, *keys).agg(pl.col("wins_a", "wins_b", "ties").sum())
    cells = cells.sort(A, B, RATER, *keys)
    column = {name: cells[name].to_numpy() for name in cells.columns}
    rater = column[RATER] if raters else None
    return Comparisons(
        items,
        column[A],
        column[B],
        column["wins_a"],
        column["wins_b"],
        column["ties"],
        rater,
        raters,
        {name: column[key] for name, key in zip(columns.covariates, keys, strict=True)},
    )


def _forget_order(table: pl.DataFrame, covariates: list[str]) -> pl.DataFrame:
    """Put the items of each row in the order of `items`: the winner was not shown first."""
    swap = pl.col(A) > pl.col(B)
    return table.with_columns(
        pl.when(swap).then(B).otherwise(A).alias(A),
        pl.when(swap).then(A).otherwise(B).alias(B),
        pl.when(swap).then(pl.col("wins_b")).otherwise("wins_a").alias("wins_a"),
        pl.when(swap).then(pl.col("wins_a")).otherwise("wins_b").alias("wins_b"),
        *(
            pl.when(swap).then(0.0 - pl.col(name)).otherwise(name).alias(name)
            for name in covariates
        ),
    )
