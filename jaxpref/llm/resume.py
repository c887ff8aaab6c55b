"""Checkpoints from which a run goes on bit for bit, whatever stopped it.

A checkpoint is a folder ``step-<number>``: the state as orbax-checkpoint writes it, and
``run.json`` with the step and the settings. Both are written into a folder of another name, flushed
to the disk, and only then renamed; a folder called ``step-…`` is therefore whole, after ``kill -9``
and after a power cut. (orbax renames too, but does not flush.) The last but one is removed only
when the last is in its place.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax

from .._checks import InputError
from .distributed import is_first, wait

_NAME = re.compile(r"step-(\d{8,})")
_PART = ".part-"
KEEP = 2
FORMAT = 1
"""Of the folder and its record; a checkpoint that says another is refused."""


class CheckpointError(InputError):
    """A checkpoint cannot be written or read; the message names it and what is left."""


class Checkpoint(NamedTuple):
    """A checkpoint on disk."""

    step: int
    path: Path
    record: dict[str, Any]


def save_checkpoint(folder: Path, step: int, state: Any, record: Mapping[str, Any]) -> Path:
    """Write a checkpoint and return its folder; older ones but the last :data:`KEEP` are removed.

    Parameters
    ----------
    folder : path
        The folder of checkpoints, made if it is not there.
    step : int
        Steps done.
    state : tree of arrays
        Spread over devices or not; every process of several makes this call.
    record : mapping
        What else a run needs to go on, for JSON.

    Returns
    -------
    Path
        The folder ``step-<number>`` of this checkpoint.

    Raises
    ------
    CheckpointError
        Where it cannot be written, as on a full disk; earlier checkpoints are as they were.
    """
    folder = folder.resolve()
    final, part = folder / f"step-{step:08d}", folder / f"{_PART}{step:08d}"
    record = {"format": FORMAT, "step": step, **record}
    try:
        if is_first():
            folder.mkdir(parents=True, exist_ok=True)
            _remove_parts(folder)
            part.mkdir()
        wait("checkpoint: folder made")
        _write_state(part / "state", state)
        if is_first():
            (part / "run.json").write_text(json.dumps(record), encoding="utf-8")
        _flush_tree(part)
        wait("checkpoint: written")
        if is_first():
            if final.exists():
                shutil.rmtree(final)
            os.rename(part, final)
            _flush(folder)
    except Exception as error:  # orbax and its writers raise much besides OSError
        shutil.rmtree(part, ignore_errors=True)
        last = latest_checkpoint(folder)
        left = f"the last whole one is {last.path}" if last else "there is no earlier one"
        message = f"cannot write the checkpoint {final}: {_reason(error)}; {left}"
        raise CheckpointError(message) from error
    if is_first():
        for old in _checkpoints(folder)[:-KEEP]:
            os.rename(old, folder / f"{_PART}{old.name}")  # no half of it passes for a whole
        _remove_parts(folder)
    wait("checkpoint: in place")
    return final


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint with the most steps, or None where there is none.

    Raises
    ------
    CheckpointError
        Where its record cannot be read, or is of another version's format.
    """
    found = _checkpoints(folder)
    if not found:
        return None
    path = found[-1]
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
        found = Checkpoint(int(record["step"]), path, record)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unreadable(path, error) from None
    if record.get("format", FORMAT) != FORMAT:
        raise CheckpointError(
            f"{path}: expected a checkpoint of format {FORMAT}; got {record['format']!r}, written "
            "by another version of jaxpref, which can go on with it"
        )
    return found


def load_checkpoint(checkpoint: Checkpoint, like: Any) -> Any:
    """Return the state of a checkpoint, in the structure, shapes and dtypes of `like`.

    Parameters
    ----------
    checkpoint : Checkpoint
        Written on any mesh of devices, or on none.
    like : tree of arrays or of jax.ShapeDtypeStruct
        Their shardings say where the state goes; each device reads its own part.

    Returns
    -------
    tree of arrays
        Bit for bit what was saved.

    Raises
    ------
    CheckpointError
        Where it cannot be read or its arrays are of other shapes.
    """
    import orbax.checkpoint as ocp

    leaves, structure = jax.tree.flatten(like)
    target = [
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for leaf in leaves
    ]
    try:
        with _quiet(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            arguments = ocp.args.StandardRestore(target)
            found = checkpointer.restore(checkpoint.path / "state", args=arguments)
    except Exception as error:
        raise _unreadable(checkpoint.path, error) from error
    for one, other in zip(found, target, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            problem = f"expected {other.dtype}{other.shape}; got {one.dtype}{one.shape}"
            raise _unreadable(checkpoint.path, ValueError(problem))
    return jax.tree.unflatten(structure, found)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two sets of settings, in words; nothing where none does.

    They are compared as JSON keeps them, so that a tuple equals the list it is read back as. A name
    that only one of them has counts as null in the other.

    Examples
    --------
    >>> differences({"beta": 0.1, "seed": 0}, {"beta": 0.2, "seed": 0})
    ['beta was 0.1, now 0.2']
    """
    before, now = (json.loads(json.dumps(settings)) for settings in (before, now))
    names = list(dict.fromkeys([*before, *now]))
    return [
        f"{name} was {_show(before.get(name))}, now {_show(now.get(name))}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:12] + "…" if re.fullmatch(r"[0-9a-f]{64}", text) else text


def _checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints, fewest steps first."""
    if not folder.is_dir():
        return []
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir()]
    return [path for _, path in sorted((int(m[1]), path) for m, path in found if m)]


def _remove_parts(folder: Path) -> None:
    """Remove what a run that died left half written."""
    for path in folder.glob(f"{_PART}*"):
        shutil.rmtree(path, ignore_errors=True)


def _write_state(path: Path, state: Any) -> None:
    import orbax.checkpoint as ocp

    with _quiet(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(path, args=ocp.args.StandardSave(jax.tree.leaves(state)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep orbax and its threads from printing an error that is raised here anyway."""
    logger = logging.getLogger("absl")
    before = logger.level, threading.excepthook
    logger.setLevel(logging.CRITICAL)
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        logger.setLevel(before[0])
        threading.excepthook = before[1]


def _flush_tree(folder: Path) -> None:
    for place, _, files in os.walk(folder):
        for name in files:
            _flush(Path(place) / name)
        _flush(Path(place))


def _flush(path: Path) -> None:
    """Ask the system to put a file or folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot read the checkpoint {path}: {_reason(error)}; "
        "delete it to go on from the one before"
    )


def _reason(error: Exception) -> str:
    """Return the gist of an error: the system's words, or the first line, not too long."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = (str(error).strip() or type(error).__name__).split("\n")[0]
    if "No space left" in str(error):
        return "no space left on device"
    return text[:200]
