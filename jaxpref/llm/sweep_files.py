"""The folder of a sweep: what was asked, and a line for every member that is done."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from .._checks import InputError, reason_of

CACHE = "reference"
"""Log-probabilities of the reference: written once the input is known to be good."""


def check_sweep(out: Path, asked: dict[str, Any], resume: bool) -> None:
    """Check that a folder can take this sweep, or holds it already; write nothing.

    Raises
    ------
    InputError
        If it holds anything else, or may not be written to.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is a file; expected a folder, or none yet")
    if out.is_dir() and any(path.name != CACHE for path in out.iterdir()):
        if not resume:
            raise InputError(
                f"out: {out} is not empty; expected a new folder, or resume to go on with its sweep"
            )
        _check_same(out / "sweep.json", asked)
    parent = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise InputError(f"out: cannot make or write to {out}: {parent} does not allow it")


def open_sweep(out: Path, asked: dict[str, Any]) -> None:
    """Make the folder and say in it what was asked, unless it says so already.

    Raises
    ------
    InputError
        If it may not be written to.
    """
    stated = out / "sweep.json"
    if stated.is_file():
        return
    part = stated.with_name(".sweep.json.part")
    try:
        out.mkdir(parents=True, exist_ok=True)
        part.write_text(_line(asked), encoding="utf-8")
        os.replace(part, stated)
    except OSError as error:
        raise InputError(f"out: cannot write {stated}: {reason_of(error)}") from None


def _check_same(stated: Path, asked: dict[str, Any]) -> None:
    try:
        before = json.loads(stated.read_text(encoding="utf-8"))
        kept = {name: before.get(name) for name in asked}
    except (OSError, ValueError, AttributeError):
        raise InputError(f"out: {stated.parent} holds no sweep (no readable sweep.json)") from None
    differing = []
    for name, value in asked.items():
        if isinstance(value, dict) and isinstance(kept[name], dict):
            keys = dict.fromkeys([*kept[name], *value])
            differing += [
                f"{key} (was {kept[name].get(key)}, now {value.get(key)})"
                for key in keys
                if kept[name].get(key) != value.get(key)
            ]
        elif kept[name] != value:
            differing.append(name)
    if differing:
        raise InputError(f"out: {stated.parent} holds a sweep of another {', '.join(differing)}")


def read_members(out: Path | str) -> dict[str, dict[str, Any]]:
    """Return the records in a sweep's folder by member name; a line cut off at the end is left out.

    Raises
    ------
    InputError
        Naming the file and line that is no record.
    """
    found = {}
    for path in sorted(Path(out).glob("members*.jsonl")):
        # What has no newline behind it is no line yet, or its writer died in it.
        *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                found[record["name"]] = record
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path}: line {number} is no record of a member") from None
    return found


def append_members(path: Path, records: list[dict[str, Any]]) -> None:
    """Append records as lines, and see them onto the disk; a last line that was cut off goes.

    Raises
    ------
    InputError
        Where the file cannot be written, as on a full disk.
    """
    try:
        whole = path.read_bytes() if path.exists() else b""
        kept = whole[: whole.rfind(b"\n") + 1]
        if kept != whole:
            part = path.with_name(f".{path.name}.part")
            part.write_bytes(kept)
            os.replace(part, path)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, records))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason_of(error)}") from None


def _line(content: dict[str, Any]) -> str:
    """Return JSON in one line; numbers that are not finite, for which it has no word, are null."""
    return json.dumps(_plain(content), allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
