"""Files that are either there whole or not there: written under another name, then renamed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError, reason_of


def to_json(content: Any, *, indent: int | None = 2) -> str:
    """Return nested dictionaries and sequences as JSON; numbers that are not finite become null.

    Parameters
    ----------
    content : dict, list, number, str, bool or None, nested
        NumPy and JAX numbers and arrays are taken as numbers and lists.
    indent : int, optional
        Spaces a level; None for one line.

    Returns
    -------
    str
        UTF-8 text is kept as it is, not escaped.

    Examples
    --------
    >>> to_json({"area": float("nan"), "M": np.float64(2)}, indent=None)
    '{"area": null, "M": 2.0}'
    """
    return json.dumps(_plain(content), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Return `value` made of dict, list, str, int, float, bool and None only."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, float) or isinstance(value, np.generic):
        return _plain(np.asarray(value).tolist())
    return value if math.isfinite(value) else None


def check_target(option: str, path: Path) -> Path:
    """Return a path that a file can be written to, or raise before any work is done.

    Raises
    ------
    InputError
        If the path is a folder, or its folder does not exist or may not be written to.

    Examples
    --------
    >>> check_target("--out", Path("no-such-folder/fit.json"))
    Traceback (most recent call last):
        ...
    jaxpref._checks.InputError: --out: cannot write no-such-folder/fit.json: no such folder
    """
    problem = None
    if path.is_dir():
        problem = "it is a folder"
    elif not path.parent.exists():
        problem = "no such folder"
    elif not path.parent.is_dir():
        problem = f"{path.parent} is not a folder"
    elif not os.access(path.parent, os.W_OK):
        problem = f"no permission to write to {path.parent}"
    if problem:
        raise InputError(f"{option}: cannot write {path}: {problem}")
    return path


def check_folder(option: str, path: Path) -> Path:
    """Return a folder to write to, made if it is not there.

    Raises
    ------
    InputError
        If it cannot be made, is a file, or may not be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if path.is_file() else reason_of(error)
        raise InputError(f"{option}: cannot make the folder {path}: {reason}") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"{option}: no permission to write to {path}")
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text file in UTF-8, whole or not at all, and return its path.

    Raises
    ------
    InputError
        If it cannot be written; a file of that name is then left as it was.
    """
    return write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> Path:
    """Write :func:`to_json` to a file, whole or not at all, and return its path."""
    return write_text(path, to_json(content) + "\n")


def write_whole(path: Path, write: Callable[[Path], Any]) -> Path:
    """Let `write` fill a file beside `path`, then rename it; leave nothing behind on failure.

    Raises
    ------
    InputError
        If the file cannot be written or renamed.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason_of(error)}") from None
    finally:
        part.unlink(missing_ok=True)
    return path
