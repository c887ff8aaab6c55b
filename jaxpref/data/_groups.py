"""Groups of rows that agree in both items, the outcome, the rater and the covariates.

Rows come in portions. Where names and labels are few, each combination has a place in a table, and
a portion is counted by one ``bincount``; where there are more combinations than is worth a table,
portions are grouped by hashing. Either way memory follows the groups, not the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from jaxpref._checks import DataError
from jaxpref.data._columns import Columns
from jaxpref.data._source import Source

# Names of the columns of the grouped table; "row" counts from 0.
A, B, SAID, RATER, WEIGHT, ROW = "a", "b", "said", "rater", "weight", "row"
KEYS = [A, B, SAID, RATER]
# Covariates are numbered: their names may be those of the columns above.
COVARIATE = "covariate "
TEXT = (pl.String, pl.Categorical, pl.Enum)
# Places of the table at most: two numbers of 8 bytes each.
PLACES = 1 << 22
# Categories whose numbers are taken as they are, whether or not each of them occurs.
_FEW_WORDS = 512


def group_rows(source: Source, columns: Columns, *, first_rows: bool) -> pl.DataFrame:
    """Return one row for each group: its keys, weight, number of rows and, if asked, first row.

    Columns "bad_rows" and "bad_row" count the rows whose weight is none, and hold the first.
    """
    schema = source.frame.collect_schema()
    plan = _plan(columns, schema)
    table = _Table(plan, first_rows) if plan.countable else None
    pieces: list[pl.DataFrame] = []
    for row, part in source.parts(columns.needed()):
        if table is not None:
            if table.add(part, row):
                continue
            pieces.append(table.groups().with_columns(pl.col(pl.Enum).cast(pl.String)))
            table = None
        pieces.append(_group_part(part.lazy(), plan, row))
        if len(pieces) > 1 and sum(piece.height for piece in pieces[1:]) > pieces[0].height:
            pieces = [_merge(pieces)]
    return table.groups() if table is not None else _merge(pieces)


class _Plan(NamedTuple):
    """What of each row is looked at, as expressions."""

    keys: list[pl.Expr]
    weight: pl.Expr | None
    countable: bool

    @property
    def names(self) -> list[str]:
        return [key.meta.output_name() for key in self.keys]


def _plan(columns: Columns, schema: Mapping[str, Any]) -> _Plan:
    """Return the keys of a group; a table will do where all of them are names or labels."""
    roles = [(columns.item_a, A), (columns.item_b, B), (columns.winner, SAID),
             (columns.rater, RATER)]  # fmt: skip
    named = [(name, role) for name, role in roles if name is not None]
    keys = [_key(name, schema).alias(role) for name, role in named]
    if columns.winner is None:
        keys.append(_score_outcome(columns, schema).alias(SAID))
    keys += [
        _covariate(names, schema).alias(f"{COVARIATE}{k}")
        for k, names in enumerate(columns.covariates.values())
    ]
    weight = None if columns.weight is None else _number(columns.weight, schema)
    text = all(schema[name] in TEXT or schema[name].is_integer() for name, _ in named)
    return _Plan(keys, weight, text and columns.winner is not None and not columns.covariates)


class _Table:
    """Counts of every combination of the names seen so far, grown as more are seen."""

    def __init__(self, plan: _Plan, first_rows: bool) -> None:
        self._plan = plan
        self._words: list[dict[Any, int]] = [{} for _ in plan.keys]
        self._types: list[Any] = [pl.String for _ in plan.keys]
        self._shape = (1,) * len(plan.keys)
        self._rows = np.zeros(1, np.int64)
        self._first = np.zeros(1, np.int64) if first_rows else None
        self._weight = None if plan.weight is None else np.zeros(1)
        self._bad: tuple[int, int] | None = None

    def add(self, part: pl.DataFrame, row: int) -> bool:
        """Count a portion, `row` the number of rows before it; False where there is no room.

        It is counted by the numbers that its own values have there; only the sums are moved to
        where these values stand in the table.
        """
        weight = [] if self._plan.weight is None else [self._plan.weight.alias(WEIGHT)]
        part = part.lazy().select(*self._plan.keys, *weight).collect()
        columns = [self._numbered(k, part[name]) for k, name in enumerate(self._plan.names)]
        codes = [self._code(k, column.values) for k, column in enumerate(columns)]
        sizes = [len(code) for code in codes]
        if np.prod(sizes, dtype=np.float64) > PLACES or not self._grow():
            return False
        place, places = np.zeros(part.height, np.int32), int(np.prod(sizes))
        where = np.zeros(1, np.int64)
        for size, total, column, code in zip(sizes, self._shape, columns, codes, strict=True):
            place *= size
            np.add(place, column.number, out=place, casting="same_kind")
            where = (where[:, None] * total + code).ravel()
        count = np.bincount(place, minlength=places)
        if self._first is not None:
            self._note_first(place, where, count, row)
        self._rows[where] += count
        if self._weight is not None:
            value = part[WEIGHT].to_numpy()
            self._note_bad(value, row)
            self._weight[where] += np.bincount(place, value, places)
        return True

    def _numbered(self, k: int, column: pl.Series) -> _Numbered:
        """Return the numbers of a column's values, and these values."""
        text = column.dtype in TEXT
        self._types[k] = pl.String if text else column.dtype
        if text and isinstance(column.dtype, pl.Enum):
            words: list[Any] = column.dtype.categories.to_list()
            if len(words) <= _FEW_WORDS:
                number = column.to_physical()
                if column.null_count():
                    number = number.cast(pl.Int32).fill_null(len(words))
                    words.append(None)
                return _Numbered(number.to_numpy(), words)
        return _distinct(column)

    def _code(self, k: int, values: list[Any]) -> np.ndarray:
        """Return the place of each value among those seen so far; new ones are added."""
        known = self._words[k]
        return np.array([known.setdefault(value, len(known)) for value in values], np.int64)

    def _grow(self) -> bool:
        """Make room for every combination of what was seen; False where that is too much."""
        needed = tuple(1 << (max(len(words), 1) - 1).bit_length() for words in self._words)
        shape = tuple(max(old, new) for old, new in zip(self._shape, needed, strict=True))
        if shape == self._shape:
            return True
        if np.prod(shape, dtype=np.float64) > PLACES:
            return False
        corner = tuple(slice(0, size) for size in self._shape)
        for name in ("_rows", "_first", "_weight"):
            old = getattr(self, name)
            if old is not None:
                new = np.zeros(shape, old.dtype)
                new[corner] = old.reshape(self._shape)
                setattr(self, name, new.ravel())
        self._shape = shape
        return True

    def _note_first(
        self, place: np.ndarray, where: np.ndarray, count: np.ndarray, row: int
    ) -> None:
        """Keep the first row of every combination that was not seen before."""
        assert self._first is not None
        new = (self._rows[where] == 0) & (count > 0)
        if new.any():
            first = np.empty(count.size, np.int64)
            first[place[::-1]] = np.arange(place.size - 1, -1, -1)  # the first is written last
            self._first[where[new]] = first[new] + row

    def _note_bad(self, weight: np.ndarray, row: int) -> None:
        bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
        if bad.size:
            first, count = self._bad or (int(bad[0]) + row, 0)
            self._bad = first, count + bad.size

    def groups(self) -> pl.DataFrame:
        """Return the combinations that occur."""
        used = np.flatnonzero(self._rows)
        columns: dict[str, pl.Series] = {}
        where = used.astype(np.uint32)
        for name, words, size, kind in list(
            zip(self._plan.names, self._words, self._shape, self._types, strict=True)
        )[::-1]:
            named = [word for word in words if word is not None]
            kind = pl.Enum(named) if kind == pl.String else kind
            # Sizes are powers of two, so that the code of a word is some bits of its place.
            columns[name] = pl.Series(list(words), dtype=kind).gather(where & np.uint32(size - 1))
            where = where >> np.uint32(size.bit_length() - 1)
        rows = self._rows[used]
        weight = rows.astype(np.float64) if self._weight is None else self._weight[used]
        bad_rows, bad_row = np.zeros(used.size, np.int64), pl.Series([None] * 1, dtype=pl.Int64)
        bad_row = bad_row.new_from_index(0, used.size)
        if self._bad is not None:  # any group will do: it is the row that is named
            bad_rows[0] = self._bad[1]
            bad_row[0] = self._bad[0]
        first = np.zeros(used.size, np.int64) if self._first is None else self._first[used]
        return pl.DataFrame({**columns, WEIGHT: weight, "rows": rows, ROW: first,
                             "bad_rows": bad_rows, "bad_row": bad_row})  # fmt: skip


class _Numbered(NamedTuple):
    """A small number for each row of a column, and the values that the numbers stand for."""

    number: np.ndarray
    values: list[Any]


def _distinct(column: pl.Series) -> _Numbered:
    """Return a number for each value of a column, and the values that occur.

    Categories have numbers already, and whole numbers that lie close are their own; others are
    numbered by sorting.
    """
    values = column.to_physical().cast(pl.Int64)
    low, high = values.min(), values.max()
    low, high = (0, 0) if low is None or high is None else (int(low), int(high))  # type: ignore
    if column.null_count():
        low -= 1
        values = values.fill_null(low)
    number = values.to_numpy()
    if high - low > max(4 * column.len(), 1 << 16):
        number = np.unique(number, return_inverse=True)[1]
    elif low:
        number = number - low
    row = np.full(int(number.max(initial=-1)) + 1, -1, np.int64)
    row[number] = np.arange(number.size)
    here = np.flatnonzero(row >= 0)
    if here.size < row.size:
        closer = np.cumsum(row >= 0) - 1
        number = closer.take(number)
    return _Numbered(number, column.gather(row[here]).to_list())


def _group_part(frame: pl.LazyFrame, plan: _Plan, row: int) -> pl.DataFrame:
    """Group a portion of the rows by hashing, `row` the number of those before it."""
    weight = pl.lit(1.0) if plan.weight is None else plan.weight
    bad = ~(weight.is_finite() & (weight >= 0)).fill_null(False)
    number = (pl.col(ROW).cast(pl.Int64) + row).alias(ROW)
    chosen = frame.with_row_index(ROW).select(
        *plan.keys, number, weight.alias(WEIGHT), bad.alias("bad_rows"),
        pl.when(bad).then(number).alias("bad_row"),
    )  # fmt: skip
    weight_sum = pl.len().cast(pl.Float64) if plan.weight is None else pl.col(WEIGHT).sum()
    grouped = chosen.group_by(plan.names).agg(
        weight_sum.alias(WEIGHT),
        pl.len().cast(pl.Int64).alias("rows"),
        pl.col(ROW).min(),
        pl.col("bad_rows").sum().cast(pl.Int64),
        pl.col("bad_row").min(),
    )
    kinds = grouped.collect_schema()
    text = [pl.col(name).cast(pl.String) for name in plan.names if kinds[name] in TEXT]
    return grouped.with_columns(text).collect(engine="streaming")


def _merge(pieces: list[pl.DataFrame]) -> pl.DataFrame:
    """Add up groups of the same keys from different portions."""
    if len(pieces) == 1:
        return pieces[0]
    groups = pl.concat([piece.select(pieces[0].columns) for piece in pieces])
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
