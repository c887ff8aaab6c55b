"""Files of scores: which column says what, and whether each row can be used."""

from __future__ import annotations

import csv
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from .._checks import DataError, InputError, closest_names
from ..data import _files
from ..data._long import name_codes, number_column, raise_first, text_column
from ..data._source import Source, name_row
from .scores import Scores, describe_scores

PROMPTS = ("prompt_id", "prompt", "question_id", "question", "ranking_id", "ranking")
RESPONSES = ("response_id", "response", "completion", "answer", "model", "item")
SCORES = ("score", "reward")
PAIRS = (
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
    ("reward_chosen", "reward_rejected"),
    ("chosen_reward", "rejected_reward"),
)
OWNER, RESPONSE, SCORE, CHOSEN, REJECTED, ROW = (
    "owner", "response", "score", "chosen", "rejected", "row",
)  # fmt: skip
_JOIN = "\x1f"
_Problem = tuple[pl.Expr, Callable[[dict[str, Any]], str]]


@dataclass(frozen=True)
class ScoreOptions:
    """What the caller said about the columns; None where nothing."""

    prompt: tuple[str, ...] = ()
    response: str | None = None
    score: str | None = None
    chosen_score: str | None = None
    rejected_score: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    lone: str = "refuse"


def read_file(path: str | os.PathLike[str], options: ScoreOptions, format: str | None) -> Scores:
    """Read a file of scores; the libraries' own errors never get out."""
    file = _files.existing(path)
    kind = _files.format_of(file, format)
    if kind == "counts":
        raise InputError("format: expected 'jsonl', 'csv', 'tsv' or 'parquet' for scores")
    try:
        if kind == "parquet":
            return reduce_scores(Source(str(file), _files.scan_parquet(file), name_row), options)
        gzipped = _files.is_gzipped(file, named=format is None)
        text = _files.TextFile(file, gzipped, _files.SEPARATORS.get(kind, ""))
        _files.refuse_other_kinds(text, kind)
        if kind == "jsonl":
            return reduce_scores(_json_source(text), options)
        source = _files.separated_source(text)
        return reduce_scores(source, options)
    except PermissionError:
        raise InputError(f"{file}: no permission to read this file") from None
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise DataError(f"{file}: damaged or cut short: {_files.first_line(error)}") from None
    except (pl.exceptions.PolarsError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as {kind}: {_files.first_line(error)}") from None


def from_columns(columns: Mapping[str, Any], lone: str) -> Scores:
    """Return scores from columns in memory, under the names that the reader knows."""
    arrays = {name: _column(name, values) for name, values in columns.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{length:,} in {name}" for name, length in lengths.items())
        raise InputError(f"expected columns of equal lengths; got {shown}")
    frame = pl.DataFrame(arrays)
    return reduce_scores(Source("", frame.lazy(), name_row), ScoreOptions(lone=lone))


def _column(name: str, values: Any) -> pl.Series:
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"{name}: expected a column; got an array of shape {array.shape}")
    if name.endswith("score"):
        return pl.Series(name, array)
    return pl.Series(name, [None if value is None else str(value) for value in array.tolist()])


def _json_source(text: _files.TextFile) -> Source:
    """Return JSON lines as columns of text; NaN and Infinity, which JSON lacks, are read too."""
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    with text.open() as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_object(line, f"{text.path}: line {number}"))
                lines.append(number)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [_word(row.get(name)) for row in rows] for name in names}
    frame = pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))

    def locate(row: int) -> str:
        return f"{name_row(row)} (line {lines[row]:,} of the file)"

    return Source(str(text.path), frame.lazy(), locate)


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as problem:
        what = f"{problem.msg} at character {problem.pos + 1}"
        raise DataError(f"{place} is not JSON: {what}") from None
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected a JSON object; got {type(value).__name__}")
    return value


def _word(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return repr(value) if isinstance(value, (int, float)) else json.dumps(value)


# From rows to scores --------------------------------------------------------------------------


def reduce_scores(source: Source, options: ScoreOptions) -> Scores:
    """Build scores from rows, or raise DataError for the first row that cannot be used."""
    schema = source.frame.collect_schema()
    columns = _Columns.resolve(schema.names(), options, source.label)
    used = list(dict.fromkeys((*columns.prompt, *columns.others.values())))
    names = [
        pl.concat_str([text_column(name, schema) for name in columns.prompt], separator=_JOIN)
        .alias(OWNER)
    ] if columns.prompt else []  # fmt: skip
    if RESPONSE in columns.others:
        names.append(text_column(columns.others[RESPONSE], schema).alias(RESPONSE))
    numbers = [
        number_column(columns.others[role], schema).alias(role)
        for role in (SCORE, CHOSEN, REJECTED)
        if role in columns.others
    ]
    frame = source.frame.with_row_index(ROW)
    frame = frame.filter(~pl.all_horizontal(pl.col(used).is_null()))
    for column, value in options.where.items():
        frame = frame.filter(text_column(column, schema) == value.strip())
    rows = frame.select(ROW, *names, *numbers).collect()
    if rows.height == 0:
        raise DataError(_nothing(source, schema, options))
    return _paired(source, columns, rows) if columns.paired else _long(
        source, columns, rows, options.lone
    )  # fmt: skip


def _nothing(source: Source, schema: Any, options: ScoreOptions) -> str:
    """Say that no row is left, and what the column asked for does hold."""
    if not options.where:
        return f"{source.label}: expected at least one score; it has no rows of data"
    for column, value in options.where.items():
        words = source.frame.select(text_column(column, schema).alias("w")).unique().collect()["w"]
        known = sorted(word for word in words.to_list() if word is not None)
        if value.strip() not in known:
            shown = ", ".join(map(repr, known[:10])) + (", ..." if len(known) > 10 else "")
            return f"{source.label}: no row whose {column!r} is {value!r}; it holds {shown}"
    return f"{source.label}: no row agrees with every where"


@dataclass(frozen=True)
class _Columns:
    """Which columns say what: those of the prompt, and the others by role."""

    prompt: tuple[str, ...]
    others: dict[str, str]

    @property
    def paired(self) -> bool:
        return CHOSEN in self.others

    @classmethod
    def resolve(cls, present: Sequence[str], options: ScoreOptions, label: str) -> _Columns:
        """Decide which column says what: the caller's options first, then by name."""
        label = label or "scores"
        for name in options.where:
            _named("where", name, present, label)
        lower = {name.strip().lower(): name for name in present}
        prompt = tuple(_named("prompt", name, present, label) for name in options.prompt)
        if not prompt:
            prompt = tuple(_first(PROMPTS, lower))
        paired = _pair_columns(present, lower, options, label)
        if paired:
            return cls(prompt, dict(zip((CHOSEN, REJECTED), paired, strict=True)))
        found: dict[str, str] = {}
        if not prompt:
            raise _unknown("prompt", present, label)
        for role, given, known in (
            (RESPONSE, options.response, RESPONSES),
            (SCORE, options.score, SCORES),
        ):
            names = [_named(role, given, present, label)] if given else _first(known, lower)
            names = [name for name in names if given or name not in prompt]
            if not names:
                raise _unknown(role, present, label)
            found[role] = names[0]
        return cls(prompt, found)


def _pair_columns(
    present: Sequence[str], lower: Mapping[str, str], options: ScoreOptions, label: str
) -> tuple[str, str] | None:
    """Return the two columns of a file of pairs, or None for one response a row."""
    chosen, rejected = options.chosen_score, options.rejected_score
    if (chosen is None) != (rejected is None):
        raise InputError("chosen_score, rejected_score: expected both columns or neither")
    if chosen is not None and rejected is not None:
        if options.score is not None or options.response is not None:
            raise InputError("chosen_score: expected without response and score; got both forms")
        return (
            _named("chosen_score", chosen, present, label),
            _named("rejected_score", rejected, present, label),
        )
    if options.score is not None or options.response is not None or _first(SCORES, lower):
        return None
    for one, other in PAIRS:
        if one in lower and other in lower:
            return lower[one], lower[other]
    return None


def _first(known: Sequence[str], lower: Mapping[str, str]) -> list[str]:
    return [lower[name] for name in known if name in lower][:1]


def _named(option: str, name: str, present: Sequence[str], label: str) -> str:
    if name in present:
        return name
    raise InputError(f"{label}: no column {name!r} for {option}={closest_names(name, present)}")


def _unknown(role: str, present: Sequence[str], label: str) -> InputError:
    shown = ", ".join(map(repr, present[:30])) or "none"
    return InputError(
        f"{label}: cannot tell which column holds the {role}; its columns are {shown}; name it "
        f"with {role}= (on the command line --{role}), or chosen_score= and rejected_score="
    )


def _long(source: Source, columns: _Columns, rows: pl.DataFrame, lone: str) -> Scores:
    """Return the scores of checked rows, one a response."""
    name = {RESPONSE: columns.others[RESPONSE], SCORE: columns.others[SCORE]}
    whole = ", ".join(columns.prompt)

    def prompt(raw: Mapping[str, Any]) -> str:
        return " | ".join(str(raw[column]) for column in columns.prompt)

    problems: list[_Problem] = [
        (pl.col(OWNER).is_null(),
         lambda raw: f"{whole}: expected the name of a prompt; it is missing"),
        (pl.col(RESPONSE).is_null(),
         lambda raw: f"{name[RESPONSE]}: expected the name of a response; it is missing"),
        _finite(SCORE, name[SCORE]),
        (pl.struct(OWNER, RESPONSE).is_first_distinct().not_()
         & pl.col(OWNER).is_not_null() & pl.col(RESPONSE).is_not_null(),
         lambda raw: f"response {_short(raw[name[RESPONSE]])} is given twice for prompt "
                     f"{_short(prompt(raw))}; if these are two prompts, name every column that "
                     "tells prompts apart (prompt=, --prompt), or choose rows (where=, --where)"),
    ]  # fmt: skip
    alone = pl.len().over(OWNER) < 2
    if lone == "refuse":
        problems.append((alone, lambda raw: (
            f"prompt {_short(prompt(raw))} has one response, which compares nothing; "
            "leave such prompts out with lone='drop' (--drop-lone)")))  # fmt: skip
    raise_first(Source(source.label, source.frame, source.locate), rows, problems)
    kept = rows.filter(~alone)
    dropped = rows.height - kept.height
    if kept.height == 0:
        raise DataError(f"{source.label}: every prompt has one response; nothing to compare")
    kept = kept.with_columns(pl.col(ROW).min().over(OWNER).alias("first")).sort("first", ROW)
    starts = np.flatnonzero(np.diff(kept["first"].to_numpy().astype(np.int64), prepend=-1))
    prompts = tuple(key.replace(_JOIN, " | ") for key in kept[OWNER][starts.tolist()].to_list())
    responses, response = name_codes(kept[RESPONSE])
    start = np.append(starts, kept.height).astype(np.int64)
    score = kept[SCORE].to_numpy().astype(np.float64)
    owner = np.repeat(np.arange(len(prompts)), np.diff(start))
    notes = describe_scores(score, owner, prompts, paired=False, dropped=dropped)
    return Scores(prompts, responses, response, score, start, False, notes)


def _paired(source: Source, columns: _Columns, rows: pl.DataFrame) -> Scores:
    """Return the scores of checked rows, one a chosen and a rejected response."""
    problems = [_finite(role, columns.others[role]) for role in (CHOSEN, REJECTED)]
    raise_first(Source(source.label, source.frame, source.locate), rows, problems)
    count = rows.height
    score = np.stack([rows[role].to_numpy() for role in (CHOSEN, REJECTED)], axis=1).reshape(-1)
    score = score.astype(np.float64)
    words = rows[OWNER].to_list() if OWNER in rows.columns else [None] * count
    prompts = tuple(
        str(n + 1) if word is None else word.replace(_JOIN, " | ") for n, word in enumerate(words)
    )
    owner = np.repeat(np.arange(count), 2)
    notes = describe_scores(score, owner, prompts, paired=True, dropped=0)
    response = np.tile(np.array([0, 1], np.int32), count)
    start = np.arange(0, 2 * count + 1, 2, dtype=np.int64)
    return Scores(prompts, ("chosen", "rejected"), response, score, start, True, notes)


def _finite(role: str, column: str) -> _Problem:
    return (
        pl.col(role).is_null(),
        lambda raw: f"{column}: expected a score, a finite number; got {raw[column]!r}",
    )


def _short(value: Any, most: int = 60) -> str:
    text = str(value)
    return repr(text if len(text) <= most else text[: most - 3] + "...")
