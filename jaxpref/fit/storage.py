"""Keeping a fit on disk: a JSON file to read, an npz file of arrays, and the tie between them."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._checks import DataError, InputError, show
from ..data.comparisons import PairCounts
from ..data.graph import Components
from ..links import Link, by_name
from .design import Design, Effect
from .outcomes import Cells

if TYPE_CHECKING:
    from .result import FitResult

FORMAT, VERSION = "jaxpref pairwise fit", 1
_NUMBERS = ("ridge", "gradient_norm", "step_size", "log_likelihood")
_PLAIN = ("ties", "status", "steps")


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


def write_record(path: str | os.PathLike[str], fit: FitResult) -> None:
    """Write a fit; both files appear whole or not at all, the JSON file last.

    Raises
    ------
    InputError
        If the folder does not exist.
    """
    files = _files(path)
    if not files.text.parent.is_dir():
        raise InputError(f"path: expected a name in a folder that exists; got {show(str(path))}")
    buffer = io.BytesIO()
    np.savez(buffer, **_arrays(fit))  # type: ignore[arg-type]
    content = buffer.getvalue()
    record = {
        "format": FORMAT,
        "version": VERSION,
        "arrays": {"file": files.arrays.name, "sha256": hashlib.sha256(content).hexdigest()},
        "link": fit.link.name,
        "gauge": "scores sum to zero",
        **{name: getattr(fit, name) for name in _PLAIN},
        "items": list(fit.items),
        "unlinked": list(fit.unlinked),
        "effects": [[effect.name, effect.kind] for effect in fit.effects],
        "components": _ends(fit.components),
        "islands": _ends(fit.islands),
        "design": None if fit.design is None else _design_facts(fit.design),
    }
    text = json.dumps(record, ensure_ascii=False, indent=1).encode()
    _replace(files.arrays, content)
    _replace(files.text, text)


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


def _ends(components: Components) -> dict[str, Any]:
    return {
        "count": components.count,
        "sources": list(components.sources),
        "sinks": list(components.sinks),
    }


def _design_facts(design: Design) -> dict[str, Any]:
    return {"names": [list(name) for name in design.names], "own_scores": design.own_scores}


def _arrays(fit: FitResult) -> dict[str, np.ndarray]:
    """Return every number of the fit that is not a count of something."""
    arrays = {
        "scores": fit.scores,
        "numbers": np.array([getattr(fit, name) for name in _NUMBERS], np.float64),
        "components": fit.components.labels,
        "islands": fit.islands.labels,
        "effects": np.array([e[2:] for e in fit.effects], np.float64).reshape(-1, 2),
        **{f"pairs.{name}": column for name, column in fit.pairs._asdict().items()},
    }
    if fit.effect_covariance is not None:
        arrays["effect_covariance"] = fit.effect_covariance
    if fit.design is not None:
        for name in ("item_a", "item_b", "columns", "item_columns", "item_features"):
            arrays[f"design.{name}"] = getattr(fit.design, name)
        for name, column in fit.design.cells._asdict().items():
            arrays[f"design.cells.{name}"] = column
    return arrays


def read_record(path: str | os.PathLike[str], link: Link | None) -> dict[str, Any]:
    """Return the fields of a fit that :func:`write_record` wrote.

    Raises
    ------
    InputError
        If a file is missing, or the link is a user's own and was not given.
    DataError
        If the files are damaged, were not saved together, or are of an unknown version.
    """
    files = _files(path)
    record = _read_text(files.text)
    content = _read(files.arrays)
    if hashlib.sha256(content).hexdigest() != record["arrays"]["sha256"]:
        raise DataError(
            f"{files.arrays.name}: expected the arrays saved with {files.text.name}; got others: "
            "the two files belong together, save the fit again"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return _fields(record, arrays, _link(record["link"], link))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"path: cannot read {show(str(path))}: {error.strerror}") from None


def _read_text(path: Path) -> dict[str, Any]:
    content = _read(path)
    try:
        record = json.loads(content)
    except ValueError:
        raise DataError(f"{path.name}: expected JSON; the file is damaged") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError(f"{path.name}: expected a saved {FORMAT}; got another kind of file")
    if record.get("version") != VERSION:
        raise DataError(
            f"{path.name}: expected version {VERSION} of the format; got "
            f"{show(record.get('version'))}: read it with the release that wrote it, or fit again"
        )
    return record


def _link(name: str, given: Link | None) -> Link:
    if given is not None:
        if given.name != name:
            raise InputError(
                f"link: expected {name!r}, the link of the saved fit; got {given.name!r}"
            )
        return given
    try:
        return by_name(name)
    except InputError:
        raise InputError(
            f"link: the saved fit has a link of its own, {name!r}: hand it in as link=..."
        ) from None


def _fields(record: dict[str, Any], arrays: dict[str, np.ndarray], link: Link) -> dict[str, Any]:
    numbers = dict(zip(_NUMBERS, (float(x) for x in arrays["numbers"]), strict=True))
    pairs = PairCounts(*(arrays[f"pairs.{name}"] for name in PairCounts._fields))
    effects = tuple(
        Effect(name, kind, *(float(x) for x in row))
        for (name, kind), row in zip(record["effects"], arrays["effects"], strict=True)
    )
    return {
        **numbers,
        **{name: record[name] for name in _PLAIN},
        "items": tuple(record["items"]),
        "unlinked": tuple(record["unlinked"]),
        "scores": arrays["scores"],
        "link": link,
        "pairs": pairs,
        "components": _components(record["components"], arrays["components"]),
        "islands": _components(record["islands"], arrays["islands"]),
        "effects": effects,
        "effect_covariance": arrays.get("effect_covariance"),
        "design": _design(record, arrays, link, numbers["ridge"]),
    }


def _components(ends: dict[str, Any], labels: np.ndarray) -> Components:
    return Components(labels, ends["count"], tuple(ends["sources"]), tuple(ends["sinks"]))


def _design(
    record: dict[str, Any], arrays: dict[str, np.ndarray], link: Link, ridge: float
) -> Design | None:
    facts = record["design"]
    if facts is None:
        return None
    read: Callable[[str], np.ndarray] = lambda name: arrays[f"design.{name}"]  # noqa: E731
    return Design(
        item_a=read("item_a"),
        item_b=read("item_b"),
        cells=Cells(*(read(f"cells.{name}") for name in Cells._fields)),
        columns=read("columns"),
        item_columns=read("item_columns"),
        item_features=read("item_features"),
        names=tuple((name, kind) for name, kind in facts["names"]),
        num_items=len(record["items"]),
        link=link,
        ties=record["ties"] if any(kind == "tie" for _, kind in record["effects"]) else None,
        ridge=ridge,
        own_scores=facts["own_scores"],
    )
