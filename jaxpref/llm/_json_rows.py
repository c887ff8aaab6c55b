"""JSON records in files: lines or a list, gzipped or not, each with the place it stands at."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxpref._checks import DataError, InputError

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
_GZIP = b"\x1f\x8b"


def preference_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the file, or the JSON files of the directory in the order of their names."""
    place = Path(path)
    if not place.exists():
        raise InputError(f"{place}: no such file or directory")
    if not place.is_dir():
        return [place]
    files = sorted(file for file in place.iterdir() if file.name.lower().endswith(SUFFIXES))
    if not files:
        raise InputError(f"{place}: expected files ending in {', '.join(SUFFIXES)}; found none")
    return files


def json_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of each record; places read ``"pairs.jsonl: line 3"``."""
    try:
        if file.name.lower().removesuffix(".gz").endswith(".json"):
            yield from _listed(file)
        else:
            yield from _lines(file)
    except PermissionError:
        raise InputError(f"{file}: no permission to read this file") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: expected text in UTF-8; it is something else") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: damaged or cut short: {error}") from None


def _open(file: Path) -> Any:
    with file.open("rb") as raw:
        gzipped = raw.read(2) == _GZIP
    return (gzip.open if gzipped else open)(file, "rt", encoding="utf-8-sig")


def _lines(file: Path) -> Iterator[tuple[str, Any]]:
    with _open(file) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{file}: line {number}"
                yield place, _parse(line, place)


def _listed(file: Path) -> Iterator[tuple[str, Any]]:
    with _open(file) as text:
        values = _parse(text.read(), str(file))
    if not isinstance(values, list):
        raise DataError(f"{file}: expected a JSON list of records (lines of JSON end in .jsonl)")
    for number, value in enumerate(values, start=1):
        yield f"{file}: item {number}", value


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise DataError(
            f"{place}: not JSON: {problem.msg} at character {problem.pos + 1}"
        ) from None
