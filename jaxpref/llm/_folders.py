"""Folders that are replaced as a whole, and what a process killed in between leaves.

Two folders cannot change places at once, so the old one steps aside for the moment between two
renames, as ``.NAME.before`` beside NAME. Whoever finds only that puts it back.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def is_folder(path: Path) -> bool:
    """Return whether there is a folder, put back first where a killed process left it aside.

    >>> is_folder(Path("no/such/folder"))
    False
    """
    aside = _aside(path)
    if not path.exists() and aside.is_dir():
        with suppress(OSError):  # another process was faster
            os.rename(aside, path)
    return path.is_dir()


def replace_folder(made: Path, path: Path) -> None:
    """Rename a finished folder to `path`, in place of what is there.

    Parameters
    ----------
    made : Path
        On the same file system.
    path : Path
        A folder, or nothing yet.

    Raises
    ------
    OSError
        If a rename fails; what was at `path` is there again.

    Notes
    -----
    A process killed between the renames leaves the old folder as ``.NAME.before``, which
    :func:`is_folder` puts back, and `made` where it was.
    """
    aside = _aside(path)
    if is_folder(path):
        shutil.rmtree(aside, ignore_errors=True)  # of a process killed before it had removed it
        os.rename(path, aside)
    try:
        os.rename(made, path)
    finally:
        is_folder(path)  # the old one again, where the new one did not arrive
    shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.parent / f".{path.name}.before"
