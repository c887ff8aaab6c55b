"""Files of rankings: JSON lists, or long tables."""

from __future__ import annotations

import csv
import json
import os
import zlib
from typing import Any

import polars as pl

from jaxpref._checks import DataError, InputError
from jaxpref.data import _files
from jaxpref.data._long import LongOptions, reduce_long
from jaxpref.data._source import Source, name_row
from jaxpref.data.rankings import Rankings

LIST_FIELDS = ("ranking", "weight", "rater")


def read_ranking_file(
    path: str | os.PathLike[str], options: LongOptions, format: str | None
) -> Rankings:
    """Read a file of rankings; the libraries' own errors never get out."""
    file = _files.existing(path)
    kind = _files.format_of(file, format)
    if kind == "counts":
        raise InputError("format: expected 'jsonl', 'csv', 'tsv' or 'parquet' for rankings")
    try:
        if kind == "parquet":
            return reduce_long(Source(str(file), _files.scan_parquet(file), name_row), options)
        gzipped = _files.is_gzipped(file, named=format is None)
        text = _files.TextFile(file, gzipped, _files.SEPARATORS.get(kind, ""))
        if kind == "jsonl":
            _files.refuse_other_kinds(text, kind)
            return _read_lists(text, options)
        _files.refuse_other_kinds(text, kind)
        return reduce_long(_files.separated_source(text), options)
    except PermissionError:
        raise InputError(f"{file}: no permission to read this file") from None
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise DataError(f"{file}: damaged or cut short: {_files.first_line(error)}") from None
    except (pl.exceptions.PolarsError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as {kind}: {_files.first_line(error)}") from None


def _read_lists(text: _files.TextFile, options: LongOptions) -> Rankings:
    """Read one ranking from each line that is not blank."""
    lists: list[list[Any]] = []
    extras: dict[str, list[Any]] = {"weight": [], "rater": []}
    lines: list[int] = []
    with text.open() as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{text.path}, line {number:,}"
            ranking, extra = _parse(line, place)
            lists.append(ranking)
            lines.append(number)
            for name, column in extras.items():
                wanted = getattr(options, name) is not False
                column.append(extra.get(name) if wanted else None)
    weight = _extra(extras["weight"], 1.0)
    rater = _extra(extras["rater"], None)
    try:
        return Rankings.from_lists(
            lists,
            weight=weight,
            rater=rater,
            unlisted=options.unlisted,  # type: ignore[arg-type]
        )
    except DataError as error:
        raise DataError(f"{text.path}: {_with_line(str(error), lines)}") from None


def _parse(line: str, place: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the list of a line, names as text, and what else it says."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as problem:
        what = f"{problem.msg} at character {problem.pos + 1}"
        raise DataError(f"{place} is not JSON: {what}") from None
    extra: dict[str, Any] = {}
    if isinstance(value, dict):
        if "ranking" not in value:
            raise DataError(f"{place}: expected a list, or an object with a 'ranking'")
        extra = {name: value[name] for name in LIST_FIELDS[1:] if value.get(name) is not None}
        value = value["ranking"]
    if not isinstance(value, list):
        raise DataError(f"{place}: expected a list of items, best first; got {value!r}")
    if "weight" in extra and (isinstance(extra["weight"], bool) or
                              not isinstance(extra["weight"], (int, float))):  # fmt: skip
        raise DataError(f"{place}: weight: expected a number; got {extra['weight']!r}")
    if "rater" in extra:
        extra["rater"] = str(extra["rater"])
    return [_name(entry, place) for entry in value], extra


def _name(entry: Any, place: str) -> Any:
    """Return an entry with names as text; whole numbers are names too."""
    if isinstance(entry, list):
        return [_name(member, place) for member in entry]
    if isinstance(entry, int) and not isinstance(entry, bool):
        return str(entry)
    if not isinstance(entry, str) or not entry.strip():
        got = "a blank" if isinstance(entry, str) else json.dumps(entry)
        raise DataError(f"{place}: expected the name of an item; got {got}")
    return entry.strip()


def _extra(values: list[Any], default: Any) -> list[Any] | None:
    """Return a column that some line has, its gaps filled; None where no line has it."""
    if all(value is None for value in values):
        return None
    return [default if value is None else value for value in values]


def _with_line(message: str, lines: list[int]) -> str:
    """Add the line in the file to a message that starts with the number of a ranking."""
    words = message.split()
    if len(words) > 1 and words[0] == "ranking":
        number = words[1].rstrip(":").replace(",", "")
        if number.isdecimal():
            line = lines[int(number) - 1]
            head = f"ranking {words[1].rstrip(':')}"
            return message.replace(head, f"{head} (line {line:,} of the file)", 1)
    return message
