r"""Areas of pairwise regions by quadrature, for any symmetric link with one peak.

One partial. For a margin x of the preference that moves, the region is the set of sums z with
g'(z) > M g'(x): an interval \|z\| < r(x). Its area is a one-dimensional integral,

    A(M) = 2 int g'(x) [g(r - x) - g(-r - x)] dx,    g'(r) = M g'(x),

which is smooth when written over r for M > 1 and over x for M <= 1.

Both partials. By symmetry the smaller margin decides; union follows by inclusion and exclusion.

Norms. In the coordinates z = x + y and t = (x - y)/2 the norm of (1/g'(x), 1/g'(y)) grows with
\|t\|, so for every z the region is \|t\| > t*(z): a half line again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..links import Link
from ..links._search import decay_length, log_density_slope, with_implicit_derivative
from ..regions import combined_log_sensitivity

Scalar = Float[Array, ""]
Three = Float[Array, "3"]  # one value for each of a rule's three spacings

_TOP = 7.2  # exp(pi/2 sinh 7.2) = 1e456: clipped to the float type's range below


class Rule(eqx.Module):
    """An exp-sinh rule on (0, inf) and a tanh-sinh rule on (0, 1), each at three spacings.

    The coarser rules use every second and every fourth node, so an integrand is evaluated once
    and summed with three rows of weights.
    """

    nodes: Float[Array, " n"]
    weights: Float[Array, "3 n"]
    unit_nodes: Float[Array, " k"]
    unit_weights: Float[Array, "3 k"]

    def half_line(self, function: Callable[[Any], Any], start: Scalar, length: Scalar) -> Three:
        """Return int_start^inf f, for an f that falls over `length`."""
        return length * _weighted(self.weights, function(start + length * self.nodes))

    def interval(self, function: Callable[[Any], Any], start: Scalar, length: Scalar) -> Three:
        """Return the integral of f from start to start + length."""
        return length * _weighted(self.unit_weights, function(start + length * self.unit_nodes))


def _weighted(weights: Float[Array, "3 n"], values: Float[Array, "..."]) -> Three:
    """Sum values with each row of weights; values of an inner rule keep to their own row."""
    return weights @ values if values.ndim == 1 else jnp.einsum("kn,nk->k", weights, values)


def double_exponential_rule(spacing: float, dtype: Any) -> Rule:
    """Return both rules with this spacing, limited to nodes that `dtype` can square."""
    limit = np.log(float(jnp.finfo(dtype).max)) / 2.5
    # Not np.arange(-4.5, _TOP, spacing): it rounds the step itself, which all nodes then share.
    u = -4.5 + spacing * np.arange(int(np.ceil((_TOP + 4.5) / spacing)))
    log_nodes = np.pi / 2 * np.sinh(u)
    u, nodes = u[log_nodes < limit], np.exp(log_nodes[log_nodes < limit])
    weights = np.pi / 2 * np.cosh(u) * nodes * spacing
    half = int(3.2 / spacing)
    v = spacing * np.arange(-half, half + 1)
    unit = 1 / (1 + np.exp(-np.pi * np.sinh(v)))
    unit_weights = np.pi * np.cosh(v) * unit * (1 - unit) * spacing
    rows = (nodes, _thinned(weights), unit, _thinned(unit_weights))
    return Rule(*(jnp.asarray(a, dtype) for a in rows))


def _thinned(weights: np.ndarray) -> np.ndarray:
    """Return the weights of the rule itself and of those with every 2nd and 4th node."""
    index = np.arange(weights.size)
    return np.stack([np.where(index % step == 0, step * weights, 0.0) for step in (1, 2, 4)])


def quadrature_area(
    link: Link, thresholds: Float[Array, " m"], wrt: str
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """Return the areas and their errors for a vector of thresholds M > 0.

    Parameters
    ----------
    link : Link
        Symmetric, with a density that falls on either side of 0.
    thresholds : array, shape (m,)
        M > 0.
    wrt : str
        "ik", "kj", "union", "intersection", "l1" or "l2".

    Returns
    -------
    area, error : array, shape (m,)
        The error is extrapolated from rules with a half and a quarter of the nodes.

    Notes
    -----
    About 200 evaluations of g a threshold for one partial; 200^2 of g' for the norms.
    Differentiable with respect to the thresholds and the link's parameters.
    """
    return _areas(link, thresholds, wrt)


@eqx.filter_jit
def _areas(
    link: Link, thresholds: Float[Array, " m"], wrt: str
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    dtype = thresholds.dtype
    area = _area_function(link, wrt)
    rule = double_exponential_rule(0.05, dtype)
    fine, middle, coarse = jax.lax.map(lambda m: area(m, rule), thresholds).T
    return fine, _extrapolated_error(fine, middle, coarse)


def _extrapolated_error(
    fine: Float[Array, " m"], middle: Float[Array, " m"], coarse: Float[Array, " m"]
) -> Float[Array, " m"]:
    """Return the error of the finest of three rules, if it goes on falling at the rate seen.

    Rules that converge exponentially do better than that; at a kink this is what remains.
    """
    last, previous = jnp.abs(fine - middle), jnp.abs(middle - coarse)
    rate = jnp.clip(last / jnp.where(previous > 0, previous, 1.0), 0.0, 0.5)
    rounding = 256 * float(jnp.finfo(fine.dtype).eps) * jnp.abs(fine)
    return jax.lax.stop_gradient(last * rate / (1 - rate) + rounding)


def _area_function(link: Link, wrt: str) -> Callable[[Scalar, Rule], Three]:
    if wrt in ("ik", "kj"):
        return lambda m, rule: _one_partial(link, m, rule)
    if wrt == "intersection":
        return lambda m, rule: _both_partials(link, m, rule)
    if wrt == "union":
        return lambda m, rule: 2 * _one_partial(link, m, rule) - _both_partials(link, m, rule)
    return lambda m, rule: _norm(link, m, rule, wrt)


def _strip(link: Link, x: Float[Array, " n"], r: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return g(r - x) - g(-r - x), the width of the region at margin x."""
    return link.probability(r - x) - link.probability(-r - x)


def _one_partial(link: Link, level: Scalar, rule: Rule) -> Three:
    return 2 * _over_levels(link, level, rule, partial(_strip, link))


def _over_levels(
    link: Link, level: Scalar, rule: Rule, width: Callable[..., Float[Array, " n"]]
) -> Three:
    """Return int g'(x) width(x, r(x)) dx over x > 0 where r(x) exists: over r if M > 1, else x."""
    s = rule.nodes
    log_level = jnp.log(level)
    above = level > 1
    # M > 1: r = s and x = x(r); dx = (slope at r / slope at x) dr.
    x_of_r = link.level_radius(s, -jnp.where(above, log_level, 0.0))
    r_of_x = link.level_radius(s, jnp.where(above, 0.0, log_level))
    x = jnp.where(above, x_of_r, s)
    r = jnp.where(above | (level == 1), s, r_of_x)  # at M = 1, r is x to the last digit
    stretch = log_density_slope(link, s) / log_density_slope(link, x_of_r)
    jacobian = jnp.where(above, stretch, jnp.ones_like(s))
    return rule.weights @ (link.density(x) * width(x, r) * jacobian)


def _both_partials(link: Link, level: Scalar, rule: Rule) -> Three:
    """Return 4 int g'(x) [g(-x) - g(-r - x) + max(0, g(r - x) - g(x))] dx."""

    def opposite(x: Float[Array, " n"], r: Float[Array, " n"]) -> Float[Array, " n"]:
        return link.probability(-x) - link.probability(-r - x)

    same = jnp.where(level < 1, _same_side(link, jnp.minimum(level, 1.0)), 0.0)
    return 4 * (_over_levels(link, level, rule, opposite) + same)


_GAUSS = np.polynomial.legendre.leggauss(60)


def _same_side(link: Link, level: Scalar) -> Scalar:
    """Return int_0^x* g'(x) [g(r - x) - g(x)] dx for M < 1, where r(x*) = 2 x*."""
    low, high = jnp.zeros_like(level), jnp.full_like(level, 1e6)
    log_level = jnp.log(level)

    def halve(_: Any, bracket: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        low, high = bracket
        middle = (low + high) / 2
        inside = link.level_radius(middle, log_level) > 2 * middle
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    low, high = jax.lax.fori_loop(0, 80, halve, (low, high))
    # At x* the integrand vanishes, so its own derivative does not enter.
    end = jax.lax.stop_gradient((low + high) / 2)
    nodes, weights = (jnp.asarray(a, level.dtype) for a in _GAUSS)
    x = end * (nodes + 1) / 2
    r = link.level_radius(x, jnp.broadcast_to(log_level, x.shape))
    width = link.probability(r - x) - link.probability(x)
    return end / 2 * jnp.sum(weights * link.density(x) * width)


def _norm(link: Link, level: Scalar, rule: Rule, wrt: str) -> Three:
    """Return the area where the L1 or L2 norm of the gradient exceeds M.

    4 int_0^inf dz int_{t*(z)}^inf g'(z/2 + t) g'(z/2 - t) dt: where M is small the region covers
    all t up to some z0, a kink at which the integral over z is split.
    """
    log_level = jnp.log(level)

    def excess(z: Scalar, t: Scalar) -> Scalar:
        ik = link.log_density_ratio(z / 2 + t, z / 2 - t)
        kj = link.log_density_ratio(z / 2 - t, z / 2 + t)
        return combined_log_sensitivity(ik, kj, wrt) - log_level

    def inner(z: Scalar) -> Three:
        return _outside(link, z, _differentiable_root(partial(excess, z), level.dtype), rule)

    def falls_to_zero(margin_part: float) -> Scalar:
        crossing = _first_crossing(lambda z: -excess(z, margin_part * z), level.dtype)
        return jnp.where(crossing > 1e12, 0.0, crossing)  # never, or the whole square is inside

    # Up to z0 the region covers every t; up to z1 it reaches the peak of g' at y = 0, which for
    # the Laplace link is a kink.
    z0 = jax.lax.stop_gradient(falls_to_zero(0.0))
    z1 = jnp.maximum(z0, jax.lax.stop_gradient(falls_to_zero(0.5)))
    inners = jax.vmap(inner)
    near = rule.interval(inners, jnp.zeros_like(z0), z0) + rule.interval(inners, z0, z1 - z0)
    return 4 * (near + rule.half_line(inners, z1, jnp.ones_like(z1)))


def _outside(link: Link, z: Scalar, start: Scalar, rule: Rule) -> Three:
    """Return int_start^inf g'(z/2 + t) g'(z/2 - t) dt; the integrand peaks at t = z/2.

    On either side of the peak the integral runs over the distance from it: d = z/2 - t below, in
    sinh-spaced steps since it may span many decades, and s = t - z/2 above.
    """
    before = jnp.maximum(z / 2 - start, 0.0)
    after = jnp.maximum(start - z / 2, 0.0)

    def below(w: Float[Array, "..."]) -> Float[Array, "..."]:
        d = jnp.sinh(w)
        return jnp.exp(link.log_density(d) + link.log_density(z - d)) * jnp.cosh(w)

    def log_above(s: Float[Array, "..."]) -> Float[Array, "..."]:
        return link.log_density(s) + link.log_density(z + s)

    length = jax.lax.stop_gradient(decay_length(log_above, after))
    near = rule.interval(below, jnp.zeros_like(z), jnp.arcsinh(before))
    return near + rule.half_line(lambda s: jnp.exp(log_above(s)), after, length)


def _differentiable_root(excess: Callable[[Scalar], Scalar], dtype: Any) -> Scalar:
    """Return the first crossing, with the derivative the implicit function theorem gives it."""
    root = _first_crossing(excess, dtype)
    return jnp.where(root > 0, with_implicit_derivative(excess, root), 0.0)


def _first_crossing(function: Callable[[Scalar], Scalar], dtype: Any) -> Scalar:
    """Return the t >= 0 at which an increasing function turns positive; 0 if it starts so."""
    top = jnp.arcsinh(jnp.asarray(jnp.finfo(dtype).max ** 0.4, dtype))

    def halve(_: Any, bracket: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        low, high = bracket
        middle = (low + high) / 2
        past = function(jnp.sinh(middle)) > 0
        return jnp.where(past, low, middle), jnp.where(past, middle, high)

    low, high = jax.lax.fori_loop(0, 64, halve, (jnp.zeros_like(top), top))
    started = function(jnp.zeros_like(top)) > 0
    return jnp.where(started, 0.0, jnp.sinh((low + high) / 2))
