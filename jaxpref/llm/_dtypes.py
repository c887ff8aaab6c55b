"""Types of parameters, and the type in which sums over them are taken."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .._checks import InputError, check_option

DTYPES = ("float32", "bfloat16", "float16", "float64")


def at_least_float32(dtype: Any) -> Any:
    """Return float64 for float64 and float32 for every other type.

    >>> at_least_float32("bfloat16")
    dtype('float32')
    """
    wide = jnp.dtype(dtype) == jnp.dtype("float64")
    return jnp.dtype("float64" if wide else "float32")


def check_dtype(dtype: str) -> str:
    """Return `dtype` if parameters can have it, else raise InputError.

    >>> check_dtype("bfloat16")
    'bfloat16'
    """
    check_option("dtype", dtype, DTYPES)
    if dtype == "float64" and jnp.zeros(0, float).dtype != jnp.dtype("float64"):
        raise InputError("dtype: float64 needs JAX's jax_enable_x64; got float32 arrays")
    return dtype
