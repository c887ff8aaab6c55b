"""Keeping a fit on disk: a JSON file to read, an npz file of arrays, and the tie between them."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._checks import DataError, InputError, show
from ..data.graph import Components

VERSION = 1


class _Files(NamedTuple):
    text: Path
    arrays: Path


def _files(path: str | os.PathLike[str]) -> _Files:
    base = Path(path)
    if base.suffix not in ("", ".json", ".npz"):
        raise InputError(
            f"path: expected a name ending in .json, or in nothing; got {show(str(path))}"
        )
    return _Files(base.with_suffix(".json"), base.with_suffix(".npz"))


def check_files(path: str | os.PathLike[str]) -> None:
    """Raise unless a fit can be saved under this name.

    Raises
    ------
    InputError
        For another suffix than ``.json``, or a folder that does not exist.
    """
    if not _files(path).text.parent.is_dir():
        raise InputError(f"path: expected a name in a folder that exists; got {show(str(path))}")


def write_files(
    path: str | os.PathLike[str],
    kind: str,
    record: dict[str, Any],
    arrays: dict[str, np.ndarray],
) -> None:
    """Write a record and its arrays; both files appear whole or not at all, the JSON file last.

    Parameters
    ----------
    path : str or path
        ``.json`` and ``.npz`` take the place of its suffix.
    kind : str
        What it is a record of, to be told by :func:`read_files`.
    record : dict
        Ready for JSON.
    arrays : dict of str to ndarray
        Every number that is to come back exactly.

    Raises
    ------
    InputError
        As :func:`check_files` does.
    """
    check_files(path)
    files = _files(path)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    head = {
        "format": kind,
        "version": VERSION,
        "arrays": {"file": files.arrays.name, "sha256": hashlib.sha256(content).hexdigest()},
    }
    text = json.dumps({**head, **record}, ensure_ascii=False, indent=1).encode()
    _replace(files.arrays, content)
    _replace(files.text, text)


def read_files(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the record and the arrays that :func:`write_files` wrote.

    Raises
    ------
    InputError
        If a file is missing.
    DataError
        If the files are damaged, were not saved together, are of another kind or of an unknown
        version.
    """
    files = _files(path)
    record = _read_text(files.text, kind)
    content = _read(files.arrays)
    if hashlib.sha256(content).hexdigest() != record["arrays"]["sha256"]:
        raise DataError(
            f"{files.arrays.name}: expected the arrays saved with {files.text.name}; got others: "
            "the two files belong together, save the fit again"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return record, {name: stored[name] for name in stored.files}


def _replace(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that no reader sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"path: cannot read {show(str(path))}: {error.strerror}") from None


def _read_text(path: Path, kind: str) -> dict[str, Any]:
    content = _read(path)
    try:
        record = json.loads(content)
    except ValueError:
        raise DataError(f"{path.name}: expected JSON; the file is damaged") from None
    if not isinstance(record, dict) or record.get("format") != kind:
        raise DataError(f"{path.name}: expected a saved {kind}; got another kind of file")
    if record.get("version") != VERSION:
        raise DataError(
            f"{path.name}: expected version {VERSION} of the format; got "
            f"{show(record.get('version'))}: read it with the release that wrote it, or fit again"
        )
    return record


def component_ends(components: Components) -> dict[str, Any]:
    """Return what JSON keeps of components; their labels are an array."""
    return {
        "count": components.count,
        "sources": list(components.sources),
        "sinks": list(components.sinks),
    }


def read_components(ends: dict[str, Any], labels: np.ndarray) -> Components:
    """Return components from what was kept of them."""
    return Components(labels, ends["count"], tuple(ends["sources"]), tuple(ends["sinks"]))
