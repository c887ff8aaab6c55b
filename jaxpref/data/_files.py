"""Files of comparisons: which format, whether they are what they say, and where a row stands."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from jaxpref._checks import DataError, InputError, check_option
from jaxpref.data._columns import ColumnOptions, resolve_columns
from jaxpref.data._matrix import looks_like_matrix, read_matrix
from jaxpref.data._rows import reduce_rows
from jaxpref.data._source import Progress, Source, name_row, slices
from jaxpref.data._text import TextFile
from jaxpref.data.comparisons import Comparisons

FORMATS = ("csv", "tsv", "jsonl", "parquet", "counts")
SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
SEPARATORS = {"csv": ",", "counts": ",", "tsv": "\t"}
GZIP = b"\x1f\x8b"
# The first bytes of files that get the wrong name most often.
MAGIC = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PAR1", "a Parquet file"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ", "compressed by xz"),
    (GZIP, "compressed by gzip"),
    (b"ARROW1", "an Arrow file"),
    (codecs.BOM_UTF16_LE, "text in UTF-16"),
    (codecs.BOM_UTF16_BE, "text in UTF-16"),
)
PEEK = 1 << 16
JSON_SCHEMA_LINES = 10_000


def read_file(
    path: str | os.PathLike[str],
    options: ColumnOptions,
    format: str | None,
    progress: Progress | None = None,
) -> Comparisons:
    """Read a file of comparisons, or of counts; polars's own errors never get out."""
    file = existing(path)
    kind = format_of(file, format)
    try:
        if kind == "parquet":
            return _read_parquet(file, options, progress)
        text = TextFile(file, is_gzipped(file, named=format is None), SEPARATORS.get(kind, ""))
        refuse_other_kinds(text, kind)
        if kind == "jsonl":
            return _read_jsonl(text, options, progress)
        if kind == "counts" or (not options.name_columns() and looks_like_matrix(text.records())):
            return read_matrix(text.records(), str(file))
        return _read_separated(text, options, progress)
    except PermissionError:
        raise InputError(f"{file}: no permission to read this file") from None
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise DataError(f"{file}: damaged or cut short: {first_line(error)}") from None
    except (pl.exceptions.PolarsError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as {kind}: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """Return the first line of a library's message."""
    lines = str(error).splitlines()
    return lines[0].strip() if lines else type(error).__name__


def existing(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that exists and is not empty."""
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{file}: expected a file; it is a directory")
    if not file.exists():
        raise InputError(f"{file}: no such file")
    if file.is_file() and file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    return file


def format_of(file: Path, format: str | None) -> str:
    """Return the format that the caller or the file's name says."""
    if format is not None:
        return check_option("format", format, FORMATS)
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    kind = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if kind is None or (kind == "parquet" and file.suffix.lower() == ".gz"):
        known = ", ".join(SUFFIXES)
        raise InputError(
            f"{file}: cannot tell its format; expected a name ending in {known} "
            f"(text also with .gz), or format= one of {', '.join(FORMATS)}"
        )
    return kind


def is_gzipped(file: Path, *, named: bool) -> bool:
    """Whether a file is gzipped; its name must agree where it is what says the format."""
    with file.open("rb") as raw:
        gzipped = raw.read(2) == GZIP
    says_so = file.suffix.lower() == ".gz"
    if says_so and not gzipped:
        raise DataError(f"{file}: named .gz but it is not compressed by gzip")
    if gzipped and named and not says_so:
        raise DataError(f"{file}: it is compressed by gzip; expected a name ending in .gz")
    return gzipped


def refuse_other_kinds(text: TextFile, kind: str) -> None:
    """Look at the start of a file, and raise unless it is text of the right kind."""
    with gzip.open(text.path) if text.gzipped else text.path.open("rb") as raw:
        start = raw.read(PEEK)
    for magic, what in MAGIC:
        if start.startswith(magic):
            raise DataError(f"{text.path}: expected {kind} text in UTF-8; it is {what}")
    try:
        sample = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
    except UnicodeDecodeError as error:
        line = start[: error.start].count(b"\n") + 1
        byte = start[error.start]
        raise DataError(
            f"{text.path}: expected {kind} text in UTF-8; line {line} holds the byte {byte:#04x}"
        ) from None
    if "\0" in sample:
        raise DataError(f"{text.path}: expected {kind} text in UTF-8; it is binary")
    if not sample.strip():
        raise DataError(f"{text.path}: the file is empty")
    head = sample.lstrip()[:14].lower()
    if head.startswith(("<!doctype", "<html", "<?xml")):
        raise DataError(f"{text.path}: expected {kind} text; it is a web page or XML")
    if kind != "jsonl" and head.startswith(("{", "[")):
        raise DataError(f"{text.path}: expected {kind} text; it looks like JSON (format='jsonl')")


def _read_separated(
    text: TextFile, options: ColumnOptions, progress: Progress | None
) -> Comparisons:
    """Read CSV or TSV, every column as text."""
    source = separated_source(text, progress)
    present = source.frame.collect_schema().names()
    columns = resolve_columns(present, options, str(text.path))
    _refuse_repeated(text, columns.needed())
    try:
        return reduce_rows(source, columns)
    except pl.exceptions.ComputeError as error:
        raise _separated_error(text, len(present), error) from None


def separated_source(text: TextFile, progress: Progress | None = None) -> Source:
    """Return the rows of CSV or TSV, every column as text."""

    def scan(content: Path | io.BytesIO) -> pl.LazyFrame:
        return pl.scan_csv(
            content, separator=text.separator, infer_schema=False, glob=False, raise_if_empty=False
        )

    def portions(needed: list[str] | None) -> Iterator[pl.LazyFrame]:
        for table in text.tables(progress):
            frame = scan(io.BytesIO(table))
            yield frame if needed is None else frame.select(needed)

    place = _locator(_record_lines(text))
    return Source(str(text.path), scan(text.path), place, blank_lines=True, portions=portions)


def _refuse_repeated(text: TextFile, needed: list[str]) -> None:
    """Raise if a column that is read has a namesake, which polars would rename."""
    header = next((record for _, record in text.records() if record), [])
    for name in needed:
        if header.count(name) > 1:
            raise InputError(f"{text.path}: the header names column {name!r} more than once")


def _separated_error(text: TextFile, width: int, error: Exception) -> DataError:
    """Find the line that polars stumbled on: too many fields, or bytes that are not UTF-8."""
    for line, record in text.records():
        if any("\ufffd" in value for value in record):
            return DataError(f"{text.path}: line {line} is not text in UTF-8")
        if len(record) > width:
            return DataError(
                f"{text.path}: line {line} has {len(record)} fields; the header has {width}"
            )
    reason = first_line(error)
    return DataError(f"{text.path}: cannot be read: {reason}; perhaps a quote is left open")


def _read_parquet(file: Path, options: ColumnOptions, progress: Progress | None) -> Comparisons:
    """Read Parquet, its columns of any type."""
    frame = scan_parquet(file)
    columns = resolve_columns(frame.collect_schema().names(), options, str(file))
    source = Source(str(file), frame, name_row, portions=slices(frame, progress))
    return reduce_rows(source, columns)


def scan_parquet(file: Path) -> pl.LazyFrame:
    """Return the rows of a Parquet file, its columns of any type."""
    with file.open("rb") as raw:
        if raw.read(4) != b"PAR1":
            raise DataError(f"{file}: expected a Parquet file; it is something else")
    try:
        frame = pl.scan_parquet(file, glob=False)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file}: a damaged Parquet file: {first_line(error)}") from None
    return frame


def _read_jsonl(text: TextFile, options: ColumnOptions, progress: Progress | None) -> Comparisons:
    """Read JSON lines, the columns needed as text."""
    try:
        found = _json_columns(text)
        columns = resolve_columns(found.names(), options, str(text.path))
        for name in columns.needed():
            if found[name].is_nested():
                raise DataError(
                    f"{text.path}: {name}: expected names, labels or numbers; got lists"
                )
        schema = dict.fromkeys(columns.needed(), pl.String)

        def portions(needed: list[str] | None) -> Iterator[pl.LazyFrame]:
            for lines in text.chunks(quotes=False, progress=progress):
                frame = pl.scan_ndjson(io.BytesIO(lines), schema=schema)
                yield frame if needed is None else frame.select(needed)

        nothing = pl.LazyFrame(schema=schema)
        source = Source(str(text.path), nothing, _locator(_json_lines(text)), portions=portions)
        return reduce_rows(source, columns)
    except pl.exceptions.PolarsError as error:
        raise _json_error(text, error) from None


def _json_columns(text: TextFile) -> Any:
    """Return the columns that the first lines name, or the first megabytes if they are long."""
    first = next(text.chunks(quotes=False), b"")
    return pl.scan_ndjson(io.BytesIO(first), infer_schema_length=JSON_SCHEMA_LINES).collect_schema()


def _json_error(text: TextFile, error: Exception) -> DataError:
    """Find the first line that is not a JSON object."""
    with text.open() as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as problem:
                what = f"{problem.msg} at character {problem.pos + 1}"
                return DataError(f"{text.path}: line {number} is not JSON: {what}")
            if not isinstance(value, dict):
                kind = type(value).__name__
                return DataError(f"{text.path}: line {number}: expected a JSON object; got {kind}")
    return DataError(f"{text.path}: cannot be read as jsonl: {first_line(error)}")


def _record_lines(text: TextFile) -> Callable[[], Iterator[tuple[int, bool]]]:
    """Return the line of each record below the header, and whether it is blank."""

    def lines() -> Iterator[tuple[int, bool]]:
        records = text.records()
        next((record for _, record in records if record), None)
        for line, record in records:
            yield line, not record

    return lines


def _json_lines(text: TextFile) -> Callable[[], Iterator[tuple[int, bool]]]:
    """Return the number of each line that polars reads: those that are not blank."""

    def lines() -> Iterator[tuple[int, bool]]:
        with text.open() as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, False

    return lines


def _locator(lines: Callable[[], Iterator[tuple[int, bool]]]) -> Callable[[int], str]:
    """Return the words for a row: its number without the blank lines, and its line in the file."""

    def locate(row: int) -> str:
        number = 0
        for position, (line, blank) in enumerate(lines()):
            number += not blank
            if position == row:
                return f"{name_row(number - 1)} (line {line:,} of the file)"
        return name_row(row)

    return locate
