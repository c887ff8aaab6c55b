r"""One entry point for the area of a pairwise sensitive region, whatever the link.

:func:`region_area` picks the best method: a closed form where there is one, quadrature for every
symmetric link with one peak, a lattice for the rest.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _numerics as nx
from .._checks import (
    ArrayLike,
    InputError,
    check_count,
    check_option,
    check_positive,
    is_concrete,
)
from ..links import Link, logistic
from ..links.closed_form import Cauchit, Laplace, Logistic, Probit
from ..links.quadrature import StudentT
from ..regions import PAIR_REGIONS, closed_form_area
from ..sensitivity import check_alpha_beta, plackett_luce_log_sensitivity_in_plane
from .estimate import AreaEstimate
from .quadrature import quadrature_area
from .sampling import (
    Counted,
    Progress,
    batch_size,
    count_batches,
    count_random,
    lattice_area,
    monte_carlo_area,
)

METHODS = ("auto", "closed_form", "quadrature", "lattice", "monte_carlo")


def region_area(
    threshold: ArrayLike,
    *,
    link: Link = logistic,
    wrt: str = "ik",
    method: str = "auto",
    samples: int | None = None,
    shifts: int = 32,
    key: Array | None = None,
    progress: Progress | None = None,
) -> AreaEstimate:
    r"""Return the area of the M-sensitive region in the unit square of (p_ik, p_kj).

    Parameters
    ----------
    threshold : array_like, any shape
        M > 0; one pass gives the whole curve A(M).
    link : Link
        Any link.
    wrt : {"ik", "kj", "union", "intersection", "l1", "l2"}
        Which sensitivity must exceed M: that to p_ik, to p_kj, either, both, or the L1 or L2
        norm of the gradient.
    method : {"auto", "closed_form", "quadrature", "lattice", "monte_carlo"}
        "auto" takes the first of closed_form, quadrature and lattice that applies.
    samples : int, optional
        Points for the two random methods; by default 2^22.
    shifts : int
        Independent random shifts of the lattice, at least 2; they share the points.
    key : jax.random.key, optional
        Source of randomness; by default ``jax.random.key(0)``.
    progress : callable, optional
        Called with (points done, points in all) by the random methods.

    Returns
    -------
    AreaEstimate
        ``area`` in [0, 1] and ``error`` of the shape of `threshold`, the ``method`` used and a
        ``status``. Under ``jit`` and ``grad`` the deterministic methods work, with respect to
        `threshold` and the link's parameters.

    Raises
    ------
    InputError
        For a threshold that is not a finite number above 0, an unknown option, samples below 1,
        a method that does not apply to this link.

    Notes
    -----
    Quadrature needs a symmetric link whose density falls on either side of 0, and is within
    1e-12 of itself at twice the nodes for the shipped links; in float32 within 5e-6. The lattice
    is for anything else, and for a second opinion.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Definition 4 and Proposition 1.

    Examples
    --------
    >>> from jaxpref.links import cauchit
    >>> estimate = region_area(2.0)
    >>> print(estimate.method, round(float(estimate.area), 5))
    closed_form 0.07392
    >>> estimate = region_area([1.5, 2.0], link=cauchit)
    >>> print(estimate.method, [round(float(a), 5) for a in estimate.area])
    quadrature [0.12435, 0.07115]
    """
    _check(threshold, wrt, method, samples, shifts)
    levels = nx.as_float(threshold)
    chosen = _choose(link, wrt, method, levels)
    flat = levels.reshape(-1)
    if chosen == "closed_form":
        area, error = _closed_form(flat, link, wrt)
    elif chosen == "quadrature":
        area, error = quadrature_area(link, flat, wrt)
    else:
        if not is_concrete(levels):
            raise InputError(f"method: {chosen!r} counts points and cannot run under jit or grad")
        key = jax.random.key(0) if key is None else key
        points = 1 << 22 if samples is None else int(samples)
        counted = _count(chosen, link, flat, wrt, points, shifts, key, progress)
        area, error = (jnp.asarray(a, flat.dtype) for a in counted[:2])
    status = _status(chosen, area, error)
    return AreaEstimate(area.reshape(levels.shape), error.reshape(levels.shape), chosen, status)


def _check(threshold: ArrayLike, wrt: str, method: str, samples: int | None, shifts: int) -> None:
    check_positive("threshold", threshold, "a threshold M that is a finite number above 0")
    check_option("wrt", wrt, PAIR_REGIONS)
    check_option("method", method, METHODS)
    check_count("shifts", shifts, at_least=2)
    if samples is not None:
        least = 2 * shifts if method == "lattice" else 1
        check_count("samples", samples, at_least=least)


def _choose(link: Link, wrt: str, method: str, levels: Float[Array, "..."]) -> str:
    """Return the method to use, or say why the one asked for does not apply."""
    if method in ("lattice", "monte_carlo"):
        return method
    if method in ("auto", "closed_form"):
        if _has_closed_form(link, wrt, levels):
            return "closed_form"
        if method == "closed_form":
            raise InputError(
                f"method: no closed form is known for link {link.name!r}, wrt {wrt!r} at these "
                "thresholds; use 'quadrature', or 'auto'"
            )
    if has_one_peak(link):
        return "quadrature"
    if method == "quadrature":
        raise InputError(
            f"method: quadrature needs a symmetric link whose density falls on either side of 0; "
            f"{link.name!r} does not; use 'lattice', or 'auto'"
        )
    return "lattice"


def _has_closed_form(link: Link, wrt: str, levels: Float[Array, "..."]) -> bool:
    if wrt in ("l1", "l2") or type(link) not in (Logistic, Laplace):
        return False
    if type(link) is Laplace or wrt in ("ik", "kj"):
        return True
    return is_concrete(levels) and bool(jnp.all(levels >= 1))


def has_one_peak(link: Link) -> bool:
    """Tell whether a link is symmetric and its density does not rise away from 0.

    Shipped links are known; a user's own is tried on 400 margins from 1e-3 to 1e6.

    >>> has_one_peak(logistic)
    True
    """
    if not link.symmetric:
        return False
    if type(link) in (Logistic, Probit, Cauchit, Laplace, StudentT):
        return True
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        margins = jnp.asarray(10.0 ** np.linspace(-3, 6, 400), jnp.float64)
        values = np.asarray(link.log_density(margins))
    steps = np.diff(values)
    return bool(np.all(~(steps > 1e-12 * np.abs(values[1:]))))


def _closed_form(
    levels: Float[Array, " m"], link: Link, wrt: str
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    area = closed_form_area(levels, link=link, wrt=wrt)
    assert area is not None
    return area, 16 * float(jnp.finfo(levels.dtype).eps) * jnp.abs(area)


def _count(
    method: str,
    link: Link,
    levels: Float[Array, " m"],
    wrt: str,
    points: int,
    shifts: int,
    key: Array,
    progress: Progress | None,
) -> Counted:
    if method == "lattice":
        return lattice_area(
            link, levels, wrt, points=points, shifts=shifts, key=key, progress=progress
        )
    return monte_carlo_area(link, levels, wrt, points=points, key=key, progress=progress)


def _status(method: str, area: Float[Array, " m"], error: Float[Array, " m"]) -> str:
    if method in ("lattice", "monte_carlo"):
        return "sampled"
    if not (is_concrete(area) and is_concrete(error)):
        return "unknown"
    tolerance = 1e-6 if area.dtype == jnp.float64 else 1e-3
    return "converged" if bool(jnp.all(error <= tolerance * area)) else "error_large"


def plackett_luce_monte_carlo_area(
    alpha: float,
    beta: float,
    threshold: ArrayLike,
    *,
    wrt: str = "uv",
    samples: int = 1 << 22,
    key: Array | None = None,
    progress: Progress | None = None,
) -> AreaEstimate:
    """Return Proposition 2's areas by counting random points of the triangle p_uv + p_vu < 1.

    Parameters
    ----------
    alpha, beta : float
        At least 1; in (0, 1] (Eq. 10).
    threshold : array_like, shape (m,) or ()
        M > 0.
    wrt : {"uv", "vu"}
        Which partial of Eq. 9.
    samples, key, progress
        As for :func:`region_area`.

    Returns
    -------
    AreaEstimate
        One standard error; the closed form is :func:`jaxpref.plackett_luce_region_area`.

    Raises
    ------
    InputError
        As the closed form does, and for samples below 1.

    Examples
    --------
    >>> from jaxpref.regions import plackett_luce_region_area
    >>> estimate = plackett_luce_monte_carlo_area(1.5, 0.9, 1.0, samples=10_000)
    >>> exact = plackett_luce_region_area(1.5, 0.9, 1.0)
    >>> bool(abs(estimate.area - exact) < 5 * estimate.error)
    True
    """
    check_option("wrt", wrt, ("uv", "vu"))
    check_alpha_beta(alpha, beta)
    check_positive("threshold", threshold, "a threshold M that is a finite number above 0")
    check_count("samples", samples)
    levels = nx.as_float(threshold)
    flat = jnp.log(levels.reshape(-1))
    coordinates = jnp.asarray([alpha, beta], flat.dtype)
    side, batch = int(wrt == "vu"), batch_size(samples)
    counted = count_random(
        lambda key, count: _triangle_block(coordinates, flat, key, count, side, batch),
        flat.shape[0],
        samples,
        jax.random.key(0) if key is None else key,
        progress,
    )
    area, error = (jnp.asarray(a / 2, flat.dtype).reshape(levels.shape) for a in counted[:2])
    return AreaEstimate(area, error, "monte_carlo", "sampled")


@partial(jax.jit, static_argnames=("side", "batch"))
def _triangle_block(
    coordinates: Float[Array, "2"],
    levels: Float[Array, " m"],
    key: Array,
    count: Array,
    side: int,
    batch: int,
) -> Array:
    def inside(key: Array) -> Array:
        tiny = float(jnp.finfo(levels.dtype).tiny)
        a, b = jax.random.uniform(key, (2, batch), levels.dtype, minval=tiny)
        # Fold the square onto the triangle: each of its points stands for two of the square's.
        folded = a + b > 1
        a, b = jnp.where(folded, 1 - a, a), jnp.where(folded, 1 - b, b)
        both = plackett_luce_log_sensitivity_in_plane(jnp.log(a), jnp.log(b), *coordinates)
        return both[side] > levels[:, None]

    return count_batches(inside, levels.shape, key, count, batch)
