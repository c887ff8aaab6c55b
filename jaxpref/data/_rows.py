"""From rows to cells: a group-by in portions, then checks on the few groups that are left.

Rows that agree in both items, the outcome and the rater become one group that remembers its first
row. A problem such as a missing name or an unknown label is common to the whole group, so it is
looked for there, and still reported with its row. Memory follows the number of groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import polars as pl

from jaxpref._checks import DataError, InputError
from jaxpref.data._arrays import also, sum_by_key, unknown_name
from jaxpref.data._columns import Columns, describe_labels
from jaxpref.data._groups import COVARIATE, KEYS, RATER, ROW, SAID, WEIGHT, A, B, group_rows
from jaxpref.data._source import Source, name_row
from jaxpref.data.comparisons import Comparisons


def reduce_rows(
    source: Source, columns: Columns, items: tuple[str, ...] | None = None
) -> Comparisons:
    """Reduce the rows of a table to cells, or raise DataError for the first row in the way."""
    groups, words = _read_groups(source, columns, first_rows=False)
    known = _codes_of(items, words)
    if _found_problems(columns, groups, known, items):  # read again: which row is it?
        groups, words = _read_groups(source, columns, first_rows=True)
        _refuse_first_problem(source, columns, groups, _codes_of(items, words), items)
    names = items if items is not None else _sorted_names(words, groups[A], groups[B])
    return _cells(groups, words, names, columns)


def _read_groups(
    source: Source, columns: Columns, *, first_rows: bool
) -> tuple[pl.DataFrame, list[str]]:
    """Return the groups of a table with their outcomes, names and labels as numbers of words."""
    groups = group_rows(source, columns, first_rows=first_rows)
    groups = _skip_blank_lines(source, columns, groups)
    if groups.height == 0:
        raise DataError(f"{source.label}: expected at least one comparison; it has no rows of data")
    groups, words = _as_codes(groups, columns)
    return _read_outcomes(groups, words, columns), words


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


def _skip_blank_lines(source: Source, columns: Columns, groups: pl.DataFrame) -> pl.DataFrame:
    """Leave out the group of blank lines, once sure that it holds nothing else."""
    blank = pl.all_horizontal(pl.col([k for k in KEYS if k in groups.columns]).is_null())
    rows = groups.filter(blank)
    if not source.blank_lines or rows.height == 0:
        return groups
    nobody = pl.col(columns.item_a).is_null() & pl.col(columns.item_b).is_null()
    empty = pl.all_horizontal(pl.all().is_null())
    nameless: list[int] = []
    for row, part in source.parts(None):
        chosen = part.select(nobody & ~empty).to_series().arg_true()
        nameless += (chosen.to_numpy() + row).tolist()
    if not nameless:
        return groups.filter(~blank)
    place = f"{source.place(nameless[0])}{also(len(nameless))}"
    raise DataError(f"{place}: expected two items; both are missing")


def _as_codes(groups: pl.DataFrame, columns: Columns) -> tuple[pl.DataFrame, list[str]]:
    """Put numbers in place of names and labels, null where there is none, and return the words.

    Each word is looked at once, however many groups it is in. Spaces around it do not count.
    """
    index: dict[str, int] = {}

    def code(text: pl.Series) -> list[int | None]:
        words = _as_text(text).to_list()
        return [None if word is None else index.setdefault(word, len(index)) for word in words]

    for name in (key for key in KEYS if key in groups.columns):
        if name == SAID and columns.winner is None:
            continue
        column = groups[name]
        if isinstance(column.dtype, pl.Enum):
            codes = pl.Series(name, code(column.dtype.categories), dtype=pl.Int32)
            groups = groups.with_columns(codes.gather(column.to_physical()))
            continue
        distinct = column.drop_nulls().unique()
        groups = groups.with_columns(
            column.replace_strict(distinct, code(distinct), default=None, return_dtype=pl.Int32)
        )
    return groups, list(index)


def _as_text(values: pl.Series) -> pl.Series:
    """Return names and labels as text, blanks and NaN as nulls; whole floats lose ``.0``."""
    if values.dtype.is_float():
        values = values.fill_nan(None)
        if ((values == values.floor()) & (values.abs() < 2**53)).all():
            values = values.cast(pl.Int64)
    text = values.cast(pl.String).str.strip_chars()
    return text.to_frame("text").select(
        pl.when(pl.col("text").is_in(["", "nan", "NaN"])).then(None).otherwise("text").alias("text")
    )["text"]


def _codes_of(names: tuple[str, ...] | None, words: list[str]) -> list[int] | None:
    """Return the numbers of the words that are among the names, if there are names."""
    if names is None:
        return None
    known = set(names)
    return [code for code, word in enumerate(words) if word in known]


def _read_outcomes(groups: pl.DataFrame, words: list[str], columns: Columns) -> pl.DataFrame:
    """Add the outcome of each group: 1, -1, 0 or null, and whether its label has two readings."""
    if columns.winner is None:
        return groups.with_columns(
            pl.col(SAID).cast(pl.Int8).alias("outcome"), pl.lit(False).alias("two_readings")
        )
    a, b, said = (groups[name].fill_null(-1).to_numpy() for name in (A, B, SAID))
    lower: dict[str, int] = {}
    fold = np.array([lower.setdefault(word.lower(), len(lower)) for word in words] + [-1])
    none = 9  # no outcome; also what a missing label, number -1, stands for
    meaning = [columns.labels.get(word.lower(), none) for word in words]
    label = np.array([*meaning, none], np.int8)[said]
    name = np.full(said.size, none, np.int8)
    if columns.accept_names:
        like_a, like_b = fold[said] == fold[a], fold[said] == fold[b]
        cases = [(said == a, 1), (said == b, -1), (like_a & ~like_b, 1), (like_b & ~like_a, -1)]
        for case, outcome in cases[::-1]:
            name[case & (said >= 0)] = outcome
    outcome = np.where(label == none, name, label)
    two = (label != none) & (name != none) & (label != name)
    return groups.with_columns(
        pl.Series("outcome", outcome).replace(none, None), pl.Series("two_readings", two)
    )


def _problems(
    columns: Columns, known: list[int] | None, items: tuple[str, ...] | None
) -> list[tuple[pl.Expr, Callable[[dict[str, Any]], str]]]:
    """Return each thing that can be wrong with a group, and the words for it."""
    a, b = columns.item_a, columns.item_b
    checks: list[tuple[pl.Expr, Callable[[dict[str, Any]], str]]] = [
        (pl.col(A).is_null(), lambda raw: f"{a}: expected the name of an item; it is missing"),
        (pl.col(B).is_null(), lambda raw: f"{b}: expected the name of an item; it is missing"),
        (pl.col(A) == pl.col(B), lambda raw: f"{_said(raw[a])} is compared with itself"),
    ]
    if items is not None and known is not None:
        for side, name in ((A, a), (B, b)):
            unknown = ~pl.col(side).is_in(known)
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


def _found_problems(
    columns: Columns,
    groups: pl.DataFrame,
    known: list[int] | None,
    items: tuple[str, ...] | None,
) -> list[tuple[int, int, Callable[[dict[str, Any]], str]]]:
    """Return the first row, the number of rows and the words for each problem that there is."""
    found: list[tuple[int, int, Callable[[dict[str, Any]], str]]] = []
    for condition, words in _problems(columns, known, items):
        bad = groups.filter(condition.fill_null(False))
        if bad.height:
            found.append((int(bad[ROW].to_numpy().min()), int(bad["rows"].sum()), words))
    heavy = groups.filter(pl.col("bad_rows") > 0)
    if heavy.height:
        first = int(heavy["bad_row"].to_numpy().min())
        found.append((first, int(heavy["bad_rows"].sum()), lambda raw: _bad_weight(raw, columns)))
    return found


def _refuse_first_problem(
    source: Source,
    columns: Columns,
    groups: pl.DataFrame,
    known: list[int] | None,
    items: tuple[str, ...] | None,
) -> None:
    """Raise DataError for the first row that cannot be used, and count those like it."""
    found = _found_problems(columns, groups, known, items)
    row, count, words = min(found, key=lambda problem: problem[0])
    raw = source.raw(row, columns.needed())
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


def _sorted_names(words: list[str], *columns: pl.Series) -> tuple[str, ...]:
    """Return the distinct names, sorted; whole numbers by size where all are whole numbers."""
    used = np.flatnonzero(sum(np.bincount(c.to_numpy(), minlength=len(words)) for c in columns))
    names = [words[code] for code in used.tolist()]
    if all(name.isascii() and name.lstrip("-").isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _positions(column: pl.Series, words: list[str], names: tuple[str, ...]) -> np.ndarray:
    """Return where a column's words stand among `names`."""
    index = {name: place for place, name in enumerate(names)}
    place = np.array([index.get(word, -1) for word in words], np.int64)
    return place.take(column.to_numpy())


def _cells(
    groups: pl.DataFrame, words: list[str], items: tuple[str, ...], columns: Columns
) -> Comparisons:
    """Sum the groups of equal items, rater and covariates, the outcomes side by side."""
    raters = _sorted_names(words, groups[RATER]) if columns.rater is not None else ()
    a, b = (_positions(groups[side], words, items) for side in (A, B))
    rater = _positions(groups[RATER], words, raters) if raters else np.zeros_like(a)
    outcome, weight = groups["outcome"].to_numpy(), groups[WEIGHT].to_numpy()
    wins = np.stack([np.where(outcome == sign, weight, 0.0) for sign in (1, -1, 0)])
    kept = [groups[f"{COVARIATE}{k}"].to_numpy() for k in range(len(columns.covariates))]
    if not columns.ordered:  # the winner was not shown first: forget who was
        swap = a > b
        a, b = np.where(swap, b, a), np.where(swap, a, b)
        wins[:2] = np.where(swap, wins[1::-1], wins[:2])
        kept = [np.where(swap, 0.0 - column, column) for column in kept]
    which, values = _combinations(kept, a.size)
    sizes = len(items), len(items), max(len(raters), 1), values.shape[1]
    key = ((a * sizes[1] + b) * sizes[2] + rater) * sizes[3] + which
    keys, sums = sum_by_key(key, math.prod(sizes), wins)
    keys, which = _split(keys, sizes[3])
    keys, rater = _split(keys, sizes[2])
    a, b = _split(keys, sizes[1])
    found = dict(zip(columns.covariates, values[:, which], strict=True))
    wins_a, wins_b, ties = sums
    by = rater if raters else None
    return Comparisons(items, a, b, wins_a, wins_b, ties, by, raters, found)


def _split(keys: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return quotient and remainder; division takes its time, so not by 1."""
    return np.divmod(keys, size) if size > 1 else (keys, np.zeros_like(keys))


def _combinations(columns: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each row of some columns, and what these numbers stand for, sorted."""
    which, values = np.zeros(length, np.int64), np.zeros((0, 1))
    for column in columns:
        distinct, place = np.unique(column, return_inverse=True)
        used, which = np.unique(which * distinct.size + place, return_inverse=True)
        before, last = np.divmod(used, distinct.size)
        values = np.vstack([values[:, before], distinct[last]])
    return which, values
