"""What every solver of this folder needs on the host: 64-bit numbers, and sizes that repeat."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def float64() -> AbstractContextManager[Any]:
    """Return a context in which JAX computes in 64 bits, whatever the caller's setting is.

    The setting of the caller is untouched: it is back when the context closes.

    >>> import jax.numpy as jnp
    >>> with float64():
    ...     print(jnp.ones(1).dtype)
    float64
    """
    enable: Any = getattr(jax, "enable_x64", None)
    if enable is None:  # older releases keep it among the experiments
        enable = importlib.import_module("jax.experimental").enable_x64
    return enable(True)


def item_bucket(size: int) -> int:
    """Return the number of rows that `size` items are padded to.

    Sizes are 4, 5, 6 and 7 times a power of two, at least 16: a second data set of about the same
    size reuses the compiled program, and the cubic cost of padding stays under a factor of two.

    >>> [item_bucket(n) for n in (3, 100, 1000, 1025)]
    [16, 112, 1024, 1280]
    """
    return _quarter_octave(max(size, 16))


def pair_bucket(size: int) -> int:
    """Return the number of rows that `size` pairs are padded to.

    Powers of two from 64 to 1024, where a pair costs next to nothing and a compilation a second;
    4, 5, 6 and 7 times a power of two from there on.

    >>> [pair_bucket(n) for n in (3, 100, 1000, 1025)]
    [64, 128, 1024, 1280]
    """
    if size <= 1024:
        return 2 ** (max(size, 64) - 1).bit_length()
    return _quarter_octave(size)


def _quarter_octave(size: int) -> int:
    unit = 2 ** ((size - 1).bit_length() - 3)
    return -(-size // unit) * unit


def pad(values: np.ndarray, size: int) -> np.ndarray:
    """Return a one-dimensional array lengthened to `size` with zeros, keeping its dtype."""
    return np.concatenate([values, np.zeros(size - len(values), values.dtype)])


def generator(key: jax.Array | np.random.Generator) -> np.random.Generator:
    """Return a NumPy generator seeded by a JAX key: what is drawn on the host comes from it."""
    if isinstance(key, np.random.Generator):
        return key
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.random.default_rng(np.asarray(data, np.uint32).ravel().tolist())
