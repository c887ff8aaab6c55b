"""Parameters read straight to the devices of a mesh, each device's part by itself.

Of a tensor in safetensors only the part that a device holds is read, layer by layer; the host
never holds more than one such part of one stacked parameter.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ._names import Place
from ._tensors import Safetensors, Tensors
from .mesh import param_shardings

Index = tuple[slice, ...]


def fill_mesh(
    tensors: Tensors,
    there: dict[tuple[str, ...], Place],
    abstract: Any,
    dtype: str,
    mesh: Mesh,
) -> Any:
    """Read every parameter onto a mesh; as ``checkpoints._fill``, which reads whole ones."""

    def read(keys: Any, leaf: Any, sharding: NamedSharding) -> jax.Array:
        path = tuple(key.key for key in keys if isinstance(key, jax.tree_util.DictKey))
        stacked = path[0] == "layers"
        return _read_shards(tensors, there[path], leaf.shape, dtype, sharding, stacked)

    return jax.tree_util.tree_map_with_path(read, abstract, param_shardings(abstract, mesh))


def _read_shards(
    tensors: Tensors,
    place: Place,
    shape: tuple[int, ...],
    dtype: str,
    sharding: NamedSharding,
    stacked: bool,
) -> jax.Array:
    """Read each part once, for all devices of this process that hold a copy of it."""
    holders: dict[tuple[tuple[int, int], ...], list[Any]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        assert index is not None  # of a device that holds nothing
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        holders.setdefault(bounds, []).append(device)
    arrays = []
    for bounds, devices in holders.items():
        index = tuple(slice(*ends) for ends in bounds)
        part = read_parameter(tensors, place, index, shape, dtype, stacked)
        arrays += [jax.device_put(part, device) for device in devices]
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def read_parameter(
    tensors: Tensors,
    place: Place,
    index: Index,
    shape: tuple[int, ...],
    dtype: str,
    stacked: bool,
) -> np.ndarray:
    """Return a part of a parameter, reading no more of the file.

    Parameters
    ----------
    tensors : Tensors
    place : Place
        Where the parameter lies; of every layer, if it is stacked.
    index : tuple of slice
        The part, with whole bounds.
    shape : tuple of int
        The whole parameter's.
    dtype : str
        Of the result.
    stacked : bool
        Whether axis 0 is the layers.
    """
    if not stacked:
        return _part(tensors, place.name, place, index, shape).astype(jnp.dtype(dtype))
    sizes = [part.stop - part.start for part in index]
    stack = np.empty(sizes, jnp.dtype(dtype))
    for at, layer in enumerate(range(index[0].start, index[0].stop)):
        stack[at] = _part(tensors, place.name.format(layer), place, index[1:], shape[1:])
    return stack


def _part(
    tensors: Tensors, name: str, place: Place, index: Index, shape: tuple[int, ...]
) -> np.ndarray:
    """Return a part of one tensor in the decoder's layout."""
    if place.part is not None:  # a third of a fused tensor, along the last axis
        offset, last = place.part * shape[-1], index[-1]
        index = (*index[:-1], slice(last.start + offset, last.stop + offset))
    found = read_slice(tensors, name, index[::-1] if place.transposed else index)
    return found.T if place.transposed else found


def read_slice(tensors: Tensors, name: str, index: Index) -> np.ndarray:
    """Return a part of a tensor, in the file's layout."""
    if isinstance(tensors, Safetensors):
        return tensors.read_slice(name, index)
    return tensors.read(name)[index]
