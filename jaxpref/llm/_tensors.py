"""Tensors of a checkpoint folder by name: safetensors in one file or several, or Flax msgpack.

safetensors are memory-mapped: a tensor is read when it is asked for and forgotten afterwards.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .._checks import InputError, closest_names
from ._folders import is_folder

SAFETENSORS = "model.safetensors"
MSGPACK = "flax_model.msgpack"
_INDEXED = (SAFETENSORS, MSGPACK)


@runtime_checkable
class Tensors(Protocol):
    """Named tensors of one folder; `flax` says in which of the two layouts."""

    flax: bool
    files: dict[str, Path]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        ...

    def read(self, name: str) -> np.ndarray:
        """Return a tensor."""
        ...

    def forget(self, name: str) -> None:
        """Let go of a tensor that will not be read again."""
        ...


class Safetensors:
    """Tensors of ``*.safetensors`` files, memory-mapped."""

    flax = False

    def __init__(self, files: list[Path]):
        self._open = {path: _open_safetensors(path) for path in files}
        self.files = {name: path for path, file in self._open.items() for name in file.keys()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return tuple(self._open[self.files[name]].get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """Return a tensor."""
        return self._open[self.files[name]].get_tensor(name)

    def read_slice(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Return a part of a tensor; no more of the file is read."""
        return self._open[self.files[name]].get_slice(name)[index]

    def forget(self, name: str) -> None:
        """Do nothing: nothing is kept."""


def _open_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "np")
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: expected a whole safetensors file; got {error}") from None


class Msgpack:
    """Tensors of ``flax_model*.msgpack`` files, in memory until forgotten; names joined by dots."""

    flax = True

    def __init__(self, files: list[Path]):
        self._tensors: dict[str, np.ndarray] = {}
        self.files: dict[str, Path] = {}
        for path in files:
            for name, tensor in _flatten(_read_msgpack(path)):
                self._tensors[name], self.files[name] = tensor, path

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return np.shape(self._tensors[name])

    def read(self, name: str) -> np.ndarray:
        """Return a tensor."""
        return self._tensors[name]

    def forget(self, name: str) -> None:
        """Let go of a tensor that will not be read again."""
        del self._tensors[name]


def _read_msgpack(path: Path) -> dict[str, Any]:
    from flax import serialization

    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            tree = serialization.msgpack_restore(view)  # pyright: ignore[reportArgumentType]
    except Exception as error:  # msgpack's own errors share no base class
        raise InputError(f"{path}: expected a whole Flax msgpack file; got {error!r}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected a tree of parameters; got {type(tree).__name__}")
    return tree


def _flatten(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


class Some:
    """The tensors of another source whose names a condition holds for."""

    def __init__(self, tensors: Tensors, condition: Callable[[str], bool]):
        self._tensors, self.flax = tensors, tensors.flax
        self.files = {name: path for name, path in tensors.files.items() if condition(name)}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._tensors.shape(name)

    def read(self, name: str) -> np.ndarray:
        """Return a tensor."""
        return self._tensors.read(name)

    def forget(self, name: str) -> None:
        """Let go of a tensor that will not be read again."""
        self._tensors.forget(name)


def open_tensors(directory: Path) -> Tensors:
    """Open the weights of a checkpoint folder.

    Parameters
    ----------
    directory : Path
        Folder with ``model.safetensors`` or ``flax_model.msgpack``, or with several files and
        their ``*.index.json``; safetensors first.

    Returns
    -------
    Tensors

    Raises
    ------
    InputError
        If there are none, or a file is missing or cut short.
    """
    if not is_folder(directory):
        raise InputError(f"{directory}: expected a folder with a model; there is none")
    for name in _INDEXED:
        kind = Safetensors if name == SAFETENSORS else Msgpack
        if (directory / name).is_file():
            return kind([directory / name])
        index = directory / f"{name}.index.json"
        if index.is_file():
            shards = _shards(index)
            tensors = kind(sorted(set(shards.values())))
            _check_index(index, shards, tensors)
            return tensors
    raise InputError(f"{directory}: expected {SAFETENSORS} or {MSGPACK}; {_instead(directory)}")


def _instead(directory: Path) -> str:
    others = [path.name for pattern in ("*.bin", "*.pt") for path in directory.glob(pattern)]
    if others:
        return f"got {sorted(others)[0]}, which has to be converted to safetensors first"
    return "there is neither"


def _shards(index: Path) -> dict[str, Path]:
    """Return the file of each tensor that an index lists."""
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {name.replace("/", "."): index.parent / file for name, file in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: expected an index with a weight_map; got {error!r}") from None
    for name, path in shards.items():
        if not path.is_file():
            raise InputError(f"{path}: missing, and {index.name} says it holds {name}")
    if not shards:
        raise InputError(f"{index}: expected a weight_map of tensors; it is empty")
    return shards


def _check_index(index: Path, shards: dict[str, Path], tensors: Tensors) -> None:
    for name, path in shards.items():
        if tensors.files.get(name) != path:
            raise InputError(
                f"{path}: expected the tensor {name}, which {index.name} says it holds"
                f"{closest_names(name, tensors.files)}"
            )
