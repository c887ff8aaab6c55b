"""Meshes of devices: where parameters, rows and members of a population lie.

A mesh has three axes. The rows of a step are split over ``data`` and ``fsdp`` together; parameters
and what the optimizer keeps of them are split over ``fsdp`` along the model's width and copied
over ``data``; members of a population are split over ``population``. JAX's partitioner adds the
communication: nothing but these three rules is said. They are said where arrays are made
(:func:`spread`, :func:`param_shardings`), and inside programs (:func:`split_rows`,
:func:`split_params`) by the mesh that :func:`using` sets; where none is set they do nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from .._checks import InputError, check_count, check_option
from .config import DecoderConfig

AXES = ("data", "fsdp", "population")
ROW_AXES = ("data", "fsdp")
# The axis, from the end, along which a parameter has the model's width.
_WIDTH = {
    ("query", "kernel"): 2,
    ("key", "kernel"): 2,
    ("value", "kernel"): 2,
    ("output", "kernel"): 1,
    ("gate", "kernel"): 2,
    ("up", "kernel"): 2,
    ("down", "kernel"): 1,
    ("embedding",): 1,
    ("position_embedding",): 1,
    ("head",): 1,
}
_SMALL = 1 << 16
"""Entries below which an array of another kind is copied instead of split."""
_AT_ONCE = 1 << 28
"""Bytes of an array up to which it comes to the host in one piece."""


def parse_mesh(text: str) -> dict[str, int]:
    """Return the sizes of a mesh's axes, as the command line has them.

    Raises
    ------
    InputError
        If an axis is unknown, named twice, or its size is no whole number above 0.

    Examples
    --------
    >>> parse_mesh("data=2,fsdp=4")
    {'data': 2, 'fsdp': 4}
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, equals, size = (piece.strip() for piece in part.partition("="))
        if not equals or not size.isdecimal() or int(size) < 1:
            raise InputError(f"mesh: expected AXIS=SIZE,... as data=2,fsdp=4; got {part.strip()!r}")
        check_option("mesh", name, AXES)
        if name in sizes:
            raise InputError(f"mesh: expected each axis once; got {name} twice")
        sizes[name] = int(size)
    return sizes


def make_mesh(*, data: int = 1, fsdp: int = 1, population: int = 1) -> Mesh:
    """Return a mesh of this many devices an axis, of all processes' devices.

    Parameters
    ----------
    data, fsdp, population : int
        Sizes of the axes. Fewer devices than there are may be used, by a single process.

    Raises
    ------
    InputError
        If there are too few devices, or some process would have none to work on.

    Examples
    --------
    >>> dict(make_mesh().shape)
    {'data': 1, 'fsdp': 1, 'population': 1}
    """
    sizes = [
        check_count(name, size) for name, size in zip(AXES, (data, fsdp, population), strict=True)
    ]
    needed, there = math.prod(sizes), jax.device_count()
    shape = ", ".join(f"{name}={size}" for name, size in zip(AXES, sizes, strict=True))
    if needed > there:
        raise InputError(f"mesh: {shape} takes {needed} devices; this run has {there}")
    if needed < there and jax.process_count() > 1:
        raise InputError(
            f"mesh: {shape} takes {needed} devices; expected all {there} of the "
            f"{jax.process_count()} processes"
        )
    devices = jax.devices()[:needed]
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def check_mesh(mesh: Mesh, config: DecoderConfig, rows: int) -> None:
    """Require a mesh that divides a model and the rows taken at once.

    Raises
    ------
    InputError
        Saying what is not divided, and by what it could be.
    """
    shape = mesh.shape
    width, ways = config.hidden_size, row_devices(mesh)
    if width % shape["fsdp"]:
        raise InputError(
            f"mesh: fsdp={shape['fsdp']} does not divide the model's width, {width}; expected one "
            f"of {_divisors(width, shape['fsdp'])}"
        )
    if rows % ways:
        raise InputError(
            f"mesh: data={shape['data']}, fsdp={shape['fsdp']} does not divide the {rows} rows "
            f"that are taken at once; expected a batch_size and micro_batch that are multiples of "
            f"{ways}, or a mesh of {_divisors(rows, ways)} devices"
        )


def row_devices(mesh: Mesh) -> int:
    """Return how many devices share a batch's rows."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _divisors(number: int, most: int) -> str:
    found = [str(size) for size in range(1, most + 1) if number % size == 0]
    return " or ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def using(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """Return a context in which programs are split over a mesh; of no effect for None."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def _present() -> dict[str, int]:
    """Return the axes of the mesh in use that a program may be split over, and their sizes."""
    mesh = jax.sharding.get_abstract_mesh()
    auto = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return {name: size for name, size in mesh.shape.items() if auto[name] == AxisType.Auto}


def split_rows(tree: Any) -> Any:
    """Say, inside a program, that arrays are split along axis 0, their rows.

    Arrays whose rows the mesh in use does not divide are left to the partitioner.
    """
    axes = {name: size for name, size in _present().items() if name in ROW_AXES}
    ways = math.prod(axes.values())
    if ways == 1:
        return tree

    def split(leaf: jax.Array) -> jax.Array:
        if leaf.ndim == 0 or leaf.shape[0] % ways:
            return leaf
        return jax.lax.with_sharding_constraint(leaf, PartitionSpec(tuple(axes)))

    return jax.tree.map(split, tree)


def split_lookup(x: jax.Array) -> jax.Array:
    """Say, inside a program, that rows looked up in a table are split as the table, then by rows.

    Between the two lies an exchange within ``fsdp``; left to itself the partitioner makes every
    device hold all rows for the table's gradient.
    """
    axes = _present()
    data, fsdp = axes.get("data", 1), axes.get("fsdp", 1)
    if fsdp == 1 or x.shape[0] % (data * fsdp) or x.shape[-1] % fsdp:
        return split_rows(x)
    by_width = PartitionSpec("data", *(None,) * (x.ndim - 2), "fsdp")
    return split_rows(jax.lax.with_sharding_constraint(x, by_width))


def split_params(tree: Any) -> Any:
    """Say, inside a program, that parameters, and what has their names, are split over fsdp."""
    axes = _present()
    if math.prod(axes.values()) == 1:
        return tree
    fsdp = axes.get("fsdp", 1)

    def split(keys: Any, leaf: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(leaf, param_spec(keys, leaf.shape, fsdp))

    return jax.tree_util.tree_map_with_path(split, tree)


def copied(tree: Any) -> Any:
    """Say, inside a program, that arrays are whole on every device of the mesh in use."""
    if math.prod(_present().values()) == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec())


def param_spec(keys: Any, shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Return how an array that belongs to a parameter is split.

    Parameters
    ----------
    keys : path of a tree
        As ``jax.tree_util`` gives it; names of the decoder's parameters are recognised in it,
        wherever they stand: a moment of a parameter is split as the parameter.
    shape : tuple of int
    fsdp : int
        Size of the axis.

    Returns
    -------
    PartitionSpec
        Matrices are split along the model's width, norms and biases copied. Arrays of other
        names and shapes are split along their first axis if they are large and it divides.
    """
    names = tuple(name for key in keys if isinstance(name := _name(key), str))
    if fsdp == 1 or not shape:
        return PartitionSpec()
    for known, behind in _WIDTH.items():
        if _contains(names, known) and len(shape) >= max(2, len(known) + 1):
            if shape[-behind] % fsdp == 0:
                return PartitionSpec(*(None,) * (len(shape) - behind), "fsdp")
    if math.prod(shape) >= _SMALL and shape[0] % fsdp == 0:
        return PartitionSpec("fsdp")
    return PartitionSpec()


def _name(key: Any) -> Any:
    return getattr(key, "key", getattr(key, "name", None))


def _contains(names: tuple[str, ...], known: tuple[str, ...]) -> bool:
    return any(names[at : at + len(known)] == known for at in range(len(names)))


def param_shardings(tree: Any, mesh: Mesh) -> Any:
    """Return where each array of a tree of parameters (or a training state) belongs.

    Parameters
    ----------
    tree : tree of arrays or of ``jax.ShapeDtypeStruct``
    mesh : Mesh

    Returns
    -------
    tree of NamedSharding
    """
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: NamedSharding(mesh, param_spec(keys, leaf.shape, mesh.shape["fsdp"])),
        tree,
    )


def spread_params(tree: Any, mesh: Mesh | None) -> Any:
    """Return parameters where they belong on a mesh; as they are without one."""
    if mesh is None:
        return tree
    return jax.tree.map(_put, tree, param_shardings(tree, mesh))


def spread(tree: Any, mesh: Mesh | None) -> Any:
    """Return arrays copied to every device of a mesh; on the default device without one."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)
    return jax.tree.map(partial(_put, sharding=NamedSharding(mesh, PartitionSpec())), tree)


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
        return jax.device_put(leaf, sharding)
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def host_parts(array: Any) -> Iterator[np.ndarray]:
    """Yield an array on the host, entry by entry of axis 0 where it is large, else whole.

    Every process of a run has to ask, since each may hold a part; the bytes, one part after the
    other, do not depend on how the array is split.
    """
    whole = not isinstance(array, jax.Array) or array.is_fully_replicated
    if whole or array.ndim < 2 or array.nbytes <= _AT_ONCE:
        yield np.ascontiguousarray(host_whole(array))
    else:
        for at in range(len(array)):
            yield host_entry(array, at)


def host_whole(array: Any) -> np.ndarray:
    """Return an array on the host of every process."""
    if not isinstance(array, jax.Array) or array.is_fully_replicated:
        return np.asarray(array)
    sharding: Any = array.sharding
    return np.asarray(_gathering(sharding.mesh, False)(array))


def host_entry(array: Any, at: int) -> np.ndarray:
    """Return ``array[at]`` on the host of every process."""
    if not isinstance(array, jax.Array) or array.is_fully_replicated:
        return np.asarray(array[at])
    sharding: Any = array.sharding
    return np.asarray(_gathering(sharding.mesh, True)(array, at))


@lru_cache(maxsize=8)
def _gathering(mesh: Mesh, entry: bool) -> Any:
    copied = NamedSharding(mesh, PartitionSpec())
    if entry:
        return jax.jit(lambda array, at: array[at], out_shardings=copied)
    return jax.jit(lambda array: array, out_shardings=copied)
