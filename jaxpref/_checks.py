"""Checks of what a user hands in, and the errors they end in.

Every message names the argument (or the row), what was expected and what was given. Checks of
values run on concrete arrays only: under ``jax.jit`` and friends a value is not known, so there
the functions return NaN or a status instead, as each one documents.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.core import Tracer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
else:
    ArrayLike = Any  # what public functions take: anything, which they then check themselves


LARGEST = sys.float_info.max
"""The largest finite number, for bounds that only infinity is beyond."""


class InputError(ValueError):
    """Something the user handed in cannot be used; the message says what, and what would do."""


class DataError(InputError):
    """A data set breaks the rules of its format; the message names the row where there is one."""


class DisconnectedComparisonsError(DataError):
    """The comparisons fall into islands, or are separable: no finite maximum likelihood fit."""


class TiesError(DataError):
    """The comparisons hold ties and the caller did not say what a tie means."""


class ConvergenceError(RuntimeError):
    """An iterative solver stopped before reaching its tolerance."""


def is_concrete(value: Any) -> bool:
    """Whether the value of an array is known now, that is, outside a JAX transformation."""
    return not isinstance(value, Tracer)


def show(value: Any) -> str:
    """Print a value in a message: short, and in the user's own notation."""
    if isinstance(value, (str, bytes)):
        return repr(value)
    if isinstance(value, jax.Array) and value.ndim == 0:
        value = value.item()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value or not math.isfinite(value) else repr(value)
    return repr(value)


def check_option(name: str, value: object, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`, else raise with the closest choice."""
    if isinstance(value, str) and value in choices:
        return value
    close = get_close_matches(str(value), list(choices), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    listed = ", ".join(repr(choice) for choice in choices)
    raise InputError(f"{name}: expected one of {listed}; got {show(value)}{hint}")


def _first_offender(name: str, value: Any, bad: Any, expected: str) -> None:
    """Raise for the first element of `value` where `bad` is true; do nothing when none is."""
    bad = np.asarray(bad)
    if not bad.any():
        return
    if bad.ndim == 0:
        raise InputError(f"{name}: expected {expected}; got {show(float(value))}")
    where = tuple(int(k) for k in np.argwhere(bad)[0])
    place = "[" + ", ".join(map(str, where)) + "]"
    raise InputError(f"{name}{place}: expected {expected}; got {show(float(value[where]))}")


def _real(name: str, value: Any, expected: str) -> np.ndarray | None:
    """Return `value` as a NumPy array of reals, or None while its value is not known."""
    if not is_concrete(value):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.asarray(None, dtype=object)
    if array.dtype == object or not (
        np.issubdtype(array.dtype, np.number) or str(array.dtype) in ("bfloat16", "float16")
    ):
        raise InputError(f"{name}: expected {expected}; got {show(value)}")
    if np.iscomplexobj(array):
        raise InputError(f"{name}: expected {expected}; got complex numbers")
    return array.astype(np.float64)


def check_probability(name: str, value: Any) -> None:
    """Require every element to lie strictly between 0 and 1."""
    expected = "a probability strictly between 0 and 1"
    array = _real(name, value, expected)
    if array is not None:
        _first_offender(name, array, ~((array > 0) & (array < 1)), expected)


def check_positive(name: str, value: Any, what: str = "a finite number above 0") -> None:
    """Require every element to be finite and above zero."""
    array = _real(name, value, what)
    if array is not None:
        _first_offender(name, array, ~((array > 0) & np.isfinite(array)), what)


def check_not_nan(name: str, value: Any, what: str = "a real number, not NaN") -> None:
    """Require every element to be a number (infinities included)."""
    array = _real(name, value, what)
    if array is not None:
        _first_offender(name, array, np.isnan(array), what)


def check_between(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    what: str,
    open_low: bool = False,
) -> None:
    """Require every element to lie in [low, high], or in (low, high] with `open_low`."""
    array = _real(name, value, what)
    if array is None:
        return
    above = array > low if open_low else array >= low
    _first_offender(name, array, ~(above & (array <= high)), what)


def check_count(name: str, value: Any, *, at_least: int = 1) -> int:
    """Return `value` as an int if it is a whole number of at least `at_least`."""
    expected = f"a whole number of at least {at_least}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        if not (isinstance(value, float) and value.is_integer()):
            raise InputError(f"{name}: expected {expected}; got {show(value)}")
    if int(value) < at_least:
        raise InputError(f"{name}: expected {expected}; got {show(value)}")
    return int(value)


def reason_of(error: OSError) -> str:
    """Return why the operating system refused, in words that end a message.

    >>> reason_of(OSError(28, "No space left on device"))
    'no space left on device'
    """
    return (error.strerror or str(error)).lower()


def closest_names(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """Return ``" (closest: 'a', 'b')"`` for an unknown name, or nothing when none is close."""
    close = get_close_matches(name, list(known), n=most, cutoff=0.5)
    return f" (closest: {', '.join(map(repr, close))})" if close else ""
