"""Radii and boundaries of links without a closed form: a grid search, then bisection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

if TYPE_CHECKING:
    from .base import Link
else:
    Link = Any


@eqx.filter_custom_jvp
def radius_by_bisection(link: Link, target: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return r >= 0 with log g'(r) = target, by bisection in asinh(r); NaN above the peak."""
    top = jnp.full_like(target, jnp.arcsinh(jnp.finfo(target.dtype).max ** 0.5))

    def halve(_: Any, bracket: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = bracket
        middle = (low + high) / 2
        above = link.log_density(jnp.sinh(middle)) > target
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(target), top))
    peak = link.log_density(jnp.zeros_like(target))
    return jnp.where(target <= peak, jnp.sinh((low + high) / 2), jnp.nan)


@radius_by_bisection.def_jvp
def _radius_by_bisection_jvp(primals: Any, tangents: Any) -> Any:
    link, target = primals
    d_link, d_target = tangents
    r = radius_by_bisection(link, target)
    moved = jnp.zeros_like(r) if d_target is None else d_target
    if any(leaf is not None for leaf in jax.tree.leaves(d_link)):
        _, drift = eqx.filter_jvp(lambda link: link.log_density(r), (link,), (d_link,))
        moved = moved - drift
    return r, moved / log_density_slope(link, r)


def log_density_slope(link: Link, margin: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return d log g' / dm, elementwise."""
    _, slope = jax.jvp(link.log_density, (margin,), (jnp.ones_like(margin),))
    return slope


def ends_by_search(
    link: Link, shift: Float[Array, "..."], level: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Search the log-density ratio along distances from -shift/2 for its crossings of `level`.

    The ratio is an odd function of the distance to -shift/2, so a level below 0 is crossed at
    the mirror image of the margins where its negative is.
    """
    # asinh-spaced distances: steps of 1% of the distance from 1 on, of 0.01 before.
    grid = jnp.sinh(jnp.arange(1e-3, 25.0, 0.01, dtype=shift.dtype))
    column = (..., *(None,) * shift.ndim)

    def ratio(distance: Float[Array, "..."]) -> Float[Array, "..."]:
        return link.log_density_ratio(-shift / 2 - distance, shift) - jnp.abs(level)

    places = jnp.broadcast_to(grid[column], (grid.size, *shift.shape))
    above = jax.lax.map(ratio, places) > 0
    first = jnp.argmax(above, axis=0)
    later = jnp.arange(grid.size)[column] > first
    again = jnp.argmax(~above & later, axis=0)
    found = jnp.any(above, axis=0)

    def refine(low: Float[Array, "..."], high: Float[Array, "..."], rising: bool) -> Any:
        def halve(_: Any, bracket: tuple[Any, Any]) -> tuple[Any, Any]:
            low, high = bracket
            middle = (low + high) / 2
            past = (ratio(middle) > 0) == rising
            return jnp.where(past, low, middle), jnp.where(past, middle, high)

        low, high = jax.lax.fori_loop(0, 60, halve, (low, high))
        return (low + high) / 2

    near = refine(jnp.where(first > 0, grid[first - 1], 0.0), grid[first], True)
    far = refine(grid[again - 1], grid[again], False)
    near, far = (with_implicit_derivative(ratio, distance) for distance in (near, far))
    side = jnp.where(level < 0, -1.0, 1.0).astype(shift.dtype)
    near, far = (-shift / 2 - side * jnp.where(found, d, jnp.nan) for d in (near, far))
    far = jnp.where(found & (again == 0), -jnp.inf, far)
    return near, far


def with_implicit_derivative(
    function: Callable[[Float[Array, "..."]], Float[Array, "..."]], root: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return a root of a function, with the derivative of the implicit function theorem.

    A search hands on no derivative of its own. What the function closes over moves the root by
    minus the function's change over its slope; the value stays as it was found.
    """
    root = jax.lax.stop_gradient(root)
    value, slope = jax.jvp(function, (root,), (jnp.ones_like(root),))
    # Where a search came to nothing, at an infinite value or on a level stretch, nothing moves.
    value = jnp.where(jnp.isfinite(value), value, 0.0)
    slope = jax.lax.stop_gradient(jnp.where(jnp.abs(slope) > 0, slope, jnp.inf))
    return root + (jax.lax.stop_gradient(value) - value) / slope


def decay_length(log_density: Any, margin: Float[Array, ""]) -> Float[Array, ""]:
    """Return the length over which a density falls: from its slope, its curvature, and its place.

    The last term serves densities that are flat to second order, such as exp(-m^4) at 0.
    """
    slope = jax.grad(log_density)
    first, second = slope(margin), jax.grad(slope)(margin)
    squared = jnp.where(jnp.isfinite(first), first * first, 0.0)
    squared += jnp.where(jnp.isfinite(second), jnp.abs(second), 0.0)
    return 1 / jnp.sqrt(squared + jnp.square(0.5 / (1 + jnp.abs(margin))))
