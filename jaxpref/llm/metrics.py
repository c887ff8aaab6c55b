"""Metrics as one JSON object a line: appended as they come, cut back when a run goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .._checks import InputError, reason_of


class MetricsLog:
    """A JSONL file that grows by a line a step, each written through to the file at once.

    Parameters
    ----------
    path : path
    after_step : int
        Lines of later steps are dropped before the first is written, as is a last line that was
        cut off: what a run that died had written past its last checkpoint. 0 starts anew.

    Raises
    ------
    InputError
        Where the file cannot be written, or what it holds is no log of metrics.
    """

    def __init__(self, path: Path, *, after_step: int = 0) -> None:
        self.path = path
        keep = read_metrics(path, up_to_step=after_step) if path.exists() else []
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_text("".join(map(_line, keep)), encoding="utf-8")
            os.replace(part, path)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {reason_of(error)}") from None

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records and flush them.

        Raises
        ------
        InputError
            Where the file cannot be written, as on a full disk.
        """
        try:
            self._file.writelines(map(_line, records))
            self._file.flush()
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {reason_of(error)}") from None


def read_metrics(path: Path, *, up_to_step: int | None = None) -> list[dict[str, Any]]:
    """Return the records of a log, up to a step; a last line that was cut off is left out.

    Raises
    ------
    InputError
        Naming the line that is no record with a step.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            step = int(record["step"])
        except (ValueError, TypeError, KeyError):
            if number == len(lines):  # no newline behind it: the writer died in it
                continue
            raise InputError(f"{path}: line {number} is no record of metrics") from None
        if up_to_step is None or step <= up_to_step:
            records.append(record)
    return records


def _line(record: Mapping[str, Any]) -> str:
    plain = {name: _plain(value) for name, value in record.items()}
    return json.dumps(plain, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Return a number for JSON, which has no word for those that are not finite."""
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None
