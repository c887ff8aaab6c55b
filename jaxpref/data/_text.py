"""Text files a few megabytes at a time, cut between records."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxpref.data._source import Progress

# Bytes in memory at a time, and how many a single record may have before the search for its end is
# given up: a quote was left open.
CHUNK = 1 << 24
LONGEST = 1 << 28


@dataclass(frozen=True)
class TextFile:
    """A text file, gzipped or not, with the separator of its fields."""

    path: Path
    gzipped: bool
    separator: str = ","

    def open(self) -> io.TextIOWrapper:
        """Open for reading as text."""
        raw = gzip.open(self.path) if self.gzipped else self.path.open("rb")
        return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="", errors="replace")

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each record of a separated file with the line it starts on, from 1."""
        with self.open() as lines:
            reader = csv.reader(lines, delimiter=self.separator)
            line = 1
            for record in reader:
                yield line, record
                line = reader.line_num + 1

    def chunks(self, *, quotes: bool, progress: Progress | None = None) -> Iterator[bytes]:
        """Yield the bytes in whole lines; where quotes count, a quoted line break is no end."""
        with self.path.open("rb") as raw:
            size = self.path.stat().st_size
            with gzip.GzipFile(fileobj=raw) if self.gzipped else raw as file:
                for chunk in _whole_lines(file, quotes):
                    yield chunk
                    if progress is not None:
                        progress(min(raw.tell(), size), size)

    def header(self) -> bytes:
        """Return the bytes up to the end of the first record that is not blank."""
        found = b""
        with gzip.open(self.path) if self.gzipped else self.path.open("rb") as file:
            for line in file:
                found += line
                if found.count(b'"') % 2 == 0 and found.removeprefix(b"\xef\xbb\xbf").strip():
                    break
        return found

    def tables(self, progress: Progress | None = None) -> Iterator[bytes]:
        """Yield separated text in portions, each below a copy of the header; at least one."""
        header = self.header()
        skip = len(header)
        for chunk in self.chunks(quotes=True, progress=progress):
            yield header + chunk[skip:]
            skip = max(skip - len(chunk), 0)


def _whole_lines(file: Any, quotes: bool) -> Iterator[bytes]:
    """Yield the bytes of a file in pieces that end where a line does."""
    rest = b""
    while block := file.read(CHUNK):
        rest += block
        cut = len(rest) if len(rest) > LONGEST else _last_end(rest, quotes)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _last_end(text: bytes, quotes: bool) -> int:
    """Return where the last whole line ends, 0 where none does.

    A quote inside a quoted field is written twice, so a line break outside quotes has an even
    number of quotes before it.
    """
    cut = text.rfind(b"\n") + 1
    odd = quotes and text.count(b'"', 0, cut) % 2 == 1
    while odd and cut:
        before = text.rfind(b"\n", 0, cut - 1) + 1
        odd ^= text.count(b'"', before, cut) % 2 == 1
        cut = before
    return cut
