"""Log-probabilities of the reference, computed once and kept under a hash of what they follow from.

They come from the code, the dtype, the padding and the micro-batches that training uses, so that a
policy equal to its reference starts at a margin of exactly 0.
"""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from .._checks import InputError
from .distributed import agreed
from .mesh import copied, host_parts, split_rows, spread, using
from .rows import Rows
from .training import Recipe, policy_logps


def digest(*trees: Any) -> str:
    """Return a SHA-256, in hexadecimal, of what trees hold.

    Of arrays: their place in the tree, dtype, shape and bytes, wherever they lie. Of other leaves:
    their place and their repr, which has to be the same in another process.

    Examples
    --------
    >>> digest({"a": np.ones(2)}) == digest({"a": np.ones(2)}) != digest({"b": np.ones(2)})
    True
    """
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        total.update(jax.tree_util.keystr(path).encode())
        if isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
            total.update(f"{leaf.dtype}{leaf.shape}".encode())
            for part in host_parts(leaf):
                total.update(part.tobytes())
        else:
            total.update(repr(leaf).encode())
    return total.hexdigest()


def reference_logps(
    graphdef: Any,
    params: Any,
    rows: Rows,
    *,
    recipe: Recipe,
    config: Any = None,
    batch_size: int = 16,
    cache: Path | str | None = None,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Return log P(completion | prompt) of every row's completions under the reference.

    Parameters
    ----------
    graphdef, params : nnx.GraphDef, pytree
        The reference model.
    rows : Rows, shape (R, T)
    recipe : Recipe
        That of the training; its micro-batch, or else `batch_size`, is how many rows go at once.
    config : DecoderConfig, optional
        The model's, for the hash: equal weights with another rotary base score otherwise.
    batch_size : int
        Rows a step of the training.
    cache : path, optional
        Folder in which the result is kept as ``<hash>.npy``, and looked for. The hash is over
        parameters, rows, `config`, what of `recipe` the scores follow from, and the version and
        backend of JAX.
    mesh : Mesh, optional
        That of the training, over which the parameters lie and the rows are split.

    Returns
    -------
    ndarray of float32, shape (R, recipe.completions)
        Nats, <= 0; 0 for a completion that a row does not have.

    Raises
    ------
    InputError
        Naming the first row whose log-probability is not finite, or a cache that cannot be used.
    """
    size = min(recipe.micro_batch or batch_size, batch_size)
    path = None
    if cache is not None:
        names = ("completions", "compute_dtype", "sliding_window", "attention", "logit_chunk")
        forward = tuple(getattr(recipe, name) for name in names) + (size, config)
        path = Path(cache) / f"{digest(params, tuple(rows), forward, _platform())}.npy"
        if agreed(path.exists()):
            return _read(path, (len(rows.tokens), recipe.completions))
    found = np.asarray(_in_parts(graphdef, params, rows, size, recipe, mesh), np.float32)
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        raise InputError(
            f"reference: row {bad[0][0] + 1}, completion {bad[0][1] + 1}: expected a finite "
            f"log-probability; got {found[tuple(bad[0])]}"
        )
    if path is not None:
        _write(path, found)
    return found


def _platform() -> str:
    return f"{jax.__version__} {jax.default_backend()}"


def _in_parts(
    graphdef: Any, params: Any, rows: Rows, size: int, recipe: Recipe, mesh: Mesh | None
) -> np.ndarray:
    """Return log-probabilities of `size` rows at a time; the last part is filled with row 0."""
    number = len(rows.tokens)
    index = np.zeros(-(-number // size) * size, np.int32)
    index[:number] = np.arange(number)
    table = Rows(*(spread(field, mesh) for field in rows))
    with using(mesh):
        parts = _mapped(
            graphdef, params, table, spread(index.reshape(-1, size), mesh), recipe=recipe
        )
    return np.asarray(parts).reshape(-1, recipe.completions)[:number]


@partial(jax.jit, static_argnames=("graphdef", "recipe"))
def _mapped(graphdef: Any, params: Any, rows: Rows, index: jax.Array, *, recipe: Recipe) -> Any:
    def part(picked: jax.Array) -> jax.Array:
        return policy_logps(graphdef, params, split_rows(rows.take(picked)), recipe)

    return copied(jax.lax.map(part, index))


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; delete it to compute it anew") from None
    if found.shape != shape:
        raise InputError(f"{path}: expected shape {shape}; got {found.shape}; delete it")
    return found


def _write(path: Path, array: np.ndarray) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.save(file, array)
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None
    finally:
        part.unlink(missing_ok=True)
