"""Links whose tails are integrals: Student's t, and a user's own.

A tail is computed as the density at its edge times an integral of the density ratio over the half
line (exp-sinh quadrature), so it keeps its relative accuracy wherever it is representable, and it
differentiates with respect to the link's own parameters. Inverses are solved for in log space.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _numerics as nx
from .._checks import ArrayLike, InputError, check_positive, is_concrete
from ._search import decay_length
from .base import Link, tail_and_excess
from .closed_form import log_quadratic_ratio, quadratic_ends, quadratic_radius

MarginFunction = Callable[[Float[Array, "..."]], Float[Array, "..."]]


class TailLink(Link):
    """A link known by the logarithms of its two tails; the rest follows by root finding."""

    @abc.abstractmethod
    def log_tail(self, size: Float[Array, ""], *, upper: bool) -> Float[Array, ""]:
        """Return log(1 - g(size)) if `upper`, else log g(-size), for a scalar size >= 0."""

    def first_guess(self, log_tail: Float[Array, ""], *, upper: bool) -> Float[Array, ""]:
        """Return w >= 0 near the solution of log_tail(sinh(w)) = log_tail: by bisection."""
        top = math.asinh(float(jnp.finfo(log_tail.dtype).max) ** 0.5)

        def halve(_: Any, bracket: tuple[Any, Any]) -> tuple[Any, Any]:
            low, high = bracket
            middle = (low + high) / 2
            above = self.log_tail(jnp.sinh(middle), upper=upper) > log_tail
            return jnp.where(above, middle, low), jnp.where(above, high, middle)

        start = (jnp.zeros_like(log_tail), jnp.full_like(log_tail, top))
        low, high = jax.lax.fori_loop(0, 40, halve, start)
        return (low + high) / 2

    def probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        """Return g(margin)."""
        return _probability(self, nx.as_float(margin))

    def log_probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        """Return log g(margin)."""
        return _log_probability(self, nx.as_float(margin))

    def margin(
        self, probability: ArrayLike, complement: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        """Return g^-1(probability), by bisection or a known guess and Newton steps in log space."""
        if not self.symmetric:
            p = nx.as_float(probability)
            return _margin_of_either_tail(self, p, 1 - p if complement is None else complement)
        return _margin_of_smaller_tail(self, *tail_and_excess(probability, complement))


@eqx.filter_jit
def _probability(link: TailLink, margin: Float[Array, "..."]) -> Float[Array, "..."]:
    def one(m: Float[Array, ""]) -> Float[Array, ""]:
        size = jnp.abs(m)
        low = jnp.exp(link.log_tail(size, upper=False))
        high = low if link.symmetric else jnp.exp(link.log_tail(size, upper=True))
        # Strictly: at 0 the slope of abs is 1, which is right for the upper branch alone.
        return jnp.where(m < 0, low, 1 - high)

    return elementwise(one, margin)


@eqx.filter_jit
def _log_probability(link: TailLink, margin: Float[Array, "..."]) -> Float[Array, "..."]:
    def one(m: Float[Array, ""]) -> Float[Array, ""]:
        below = link.log_tail(jnp.where(m < 0, -m, 0.0), upper=False)
        above = link.log_tail(jnp.where(m < 0, 0.0, m), upper=not link.symmetric)
        return jnp.where(m < 0, below, jnp.log1p(-jnp.exp(above)))

    return elementwise(one, margin)


@eqx.filter_jit
def _margin_of_smaller_tail(
    link: TailLink,
    tail: Float[Array, "..."],
    excess: Float[Array, "..."],
    sign: Float[Array, "..."],
) -> Float[Array, "..."]:
    return sign * elementwise(lambda q, d: _symmetric_margin(link, q, d), tail, excess)


@eqx.filter_jit
def _margin_of_either_tail(link: TailLink, p: ArrayLike, q: ArrayLike) -> Float[Array, "..."]:
    return elementwise(lambda a, b: _asymmetric_margin(link, a, b), *nx.as_floats(p, q))


def elementwise(function: Callable[..., Any], *arrays: Float[Array, "..."]) -> Any:
    """Map a function of scalars over arrays of one shape."""
    shape = jnp.broadcast_shapes(*[a.shape for a in arrays])
    flat = [jnp.broadcast_to(a, shape).reshape(-1) for a in arrays]
    return jax.vmap(function)(*flat).reshape(shape)


def _newton_in_log_space(link: TailLink, log_tail: Any, w: Any, *, upper: bool) -> Any:
    """Return m = sinh(w) after Newton steps on log_tail(sinh(w)), nearly linear in w."""
    sign = 1.0 if upper else -1.0

    def step(_: Any, w: Any) -> Any:
        m = jnp.sinh(w)
        now = link.log_tail(m, upper=upper)
        hazard = jnp.exp(link.log_density(sign * m) - now)
        change = (now - log_tail) / (hazard * jnp.cosh(w))
        return jnp.maximum(w + jnp.where(jnp.isfinite(change), change, 0.0), 0.0)

    return jnp.sinh(jax.lax.fori_loop(0, 12, step, w))


@eqx.filter_custom_jvp
def _symmetric_margin(link: TailLink, tail: Any, excess: Any) -> Any:
    """Return m >= 0 with 1 - g(m) = tail = 1/2 - excess, for a symmetric link."""
    log_tail = jnp.log(jnp.where(tail > 0, tail, 0.5))
    guess = link.first_guess(log_tail, upper=False)
    m = _newton_in_log_space(link, log_tail, guess, upper=False)
    central = excess < 0.2

    def settle(_: Any, m: Any) -> Any:
        inner = nx.integrate_interval(link.density, m)
        return m + (excess - inner) / link.density(m)

    near = jax.lax.fori_loop(0, 2, settle, jnp.where(central, m, 0.0))
    return jnp.where(tail > 0, jnp.where(central, near, m), jnp.inf)


@_symmetric_margin.def_jvp
def _symmetric_margin_jvp(primals: Any, tangents: Any) -> Any:
    link, tail, excess = primals
    d_link, _, d_excess = tangents
    m = _symmetric_margin(link, tail, excess)

    def excess_at(link: TailLink) -> Any:
        return 0.5 - jnp.exp(link.log_tail(m, upper=False))

    moved = jnp.zeros_like(m) if d_excess is None else d_excess
    return m, (moved - _drift(excess_at, link, d_link)) / link.density(m)


def _drift(function: Callable[[TailLink], Any], link: TailLink, change: Any) -> Any:
    """Return how a function of a link moves with the link's own parameters, 0 if none does."""
    if all(leaf is None for leaf in jax.tree.leaves(change)):
        return 0.0
    return eqx.filter_jvp(function, (link,), (change,))[1]


@eqx.filter_custom_jvp
def _asymmetric_margin(link: TailLink, p: Any, q: Any) -> Any:
    """Return m with g(m) = p and 1 - g(m) = q, from whichever tail is the smaller."""
    below = p < jnp.exp(link.log_tail(jnp.zeros_like(p), upper=False))

    def from_side(tail: Any, upper: bool) -> Any:
        log_tail = jnp.log(jnp.where(tail > 0, tail, 0.5))
        guess = link.first_guess(log_tail, upper=upper)
        m = _newton_in_log_space(link, log_tail, guess, upper=upper)
        return jnp.where(tail > 0, m, jnp.inf)

    return jnp.where(below, -from_side(p, False), from_side(q, True))


@_asymmetric_margin.def_jvp
def _asymmetric_margin_jvp(primals: Any, tangents: Any) -> Any:
    m = _asymmetric_margin(*primals)
    link, (d_link, d_p, _) = primals[0], tangents
    moved = jnp.zeros_like(m) if d_p is None else d_p
    return m, (moved - _drift(lambda link: link.probability(m), link, d_link)) / link.density(m)


class StudentT(TailLink):
    """Student's t with nu degrees of freedom: cauchit at nu = 1, probit as nu grows."""

    nu: Float[Array, ""]

    @property
    def name(self) -> str:
        """Return the name, with the degrees of freedom where they are known."""
        if not is_concrete(self.nu):
            return "student_t"
        return f"student_t({float(self.nu):g})"

    def _nu(self, like: Float[Array, "..."]) -> Float[Array, ""]:
        return jnp.asarray(self.nu).astype(like.dtype)

    def log_density(self, margin: ArrayLike) -> Float[Array, "..."]:
        """Return the log density of Student's t."""
        x = nx.as_float(margin)
        nu = self._nu(x)
        log_norm = nx.log_gamma_half_step(nu / 2) - 0.5 * jnp.log(nu * jnp.pi)
        return log_norm - (nu + 1) / 2 * nx.log1p_square(x / jnp.sqrt(nu))

    def log_density_ratio(self, margin: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
        """Return log g'(margin + shift) - log g'(margin)."""
        x, y = nx.as_floats(margin, shift)
        nu = self._nu(x)
        root = jnp.sqrt(nu)
        return (nu + 1) / 2 * log_quadratic_ratio(x / root, y / root)

    def level_radius(self, margin: ArrayLike, log_threshold: ArrayLike) -> Float[Array, "..."]:
        """Return r with (1 + r^2/nu) = (1 + x^2/nu) M^(-2/(nu+1))."""
        x, level = nx.as_floats(margin, log_threshold)
        nu = self._nu(x)
        root = jnp.sqrt(nu)
        return root * quadratic_radius(x / root, 2 * level / (nu + 1))

    def sensitive_ends(
        self, shift: Float[Array, "..."], log_threshold: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Return the two roots of a quadratic in x / sqrt(nu) with threshold M^(2/(nu+1))."""
        nu = self._nu(shift)
        root = jnp.sqrt(nu)
        near, far = quadratic_ends(shift / root, 2 * log_threshold / (nu + 1))
        return root * near, root * far

    def log_tail(self, size: Float[Array, ""], *, upper: bool) -> Float[Array, ""]:
        """Return the log tail by exp-sinh quadrature of the density ratio."""
        nu = self._nu(size)
        spread = nu + size * size
        slope, bend = (nu + 1) * size / spread, (nu + 1) / spread
        scale = jax.lax.stop_gradient(1 / jnp.sqrt(slope * slope + bend))
        ratio = nx.integrate_half_line(lambda s: self.log_density_ratio(size, s), scale)
        return self.log_density(size) + jnp.log(ratio)

    def first_guess(self, log_tail: Float[Array, ""], *, upper: bool) -> Float[Array, ""]:
        """Return Wallace's normal approximation of the quantile, as w = asinh(m)."""
        nu = self._nu(log_tail)
        probability = jnp.clip(jnp.exp(log_tail), jnp.finfo(log_tail.dtype).tiny, 0.5)
        normal = -jax.scipy.special.ndtri(probability) * (8 * nu + 3) / (8 * nu + 1)
        limit = jnp.log(jnp.finfo(log_tail.dtype).max) - 2
        squared = nu * jnp.expm1(jnp.minimum(normal * normal / nu, limit - jnp.log1p(nu)))
        return jax.lax.stop_gradient(jnp.arcsinh(jnp.sqrt(squared)))

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = float) -> Float[Array, "..."]:
        """Return margins drawn from Student's t."""
        return jax.random.t(key, jnp.asarray(self.nu).astype(dtype), shape, dtype)


class DensityLink(TailLink):
    """A user's link, given by its log density alone."""

    log_density_function: MarginFunction
    label: str = eqx.field(static=True)
    mirrored: bool = eqx.field(static=True)

    @property
    def name(self) -> str:
        """Return the name the user gave."""
        return self.label

    @property
    def symmetric(self) -> bool:
        """Return whether the user's g is symmetric (Assumption 4)."""
        return self.mirrored

    def log_density(self, margin: ArrayLike) -> Float[Array, "..."]:
        """Return the user's log density."""
        return self.log_density_function(nx.as_float(margin))

    def log_tail(self, size: Float[Array, ""], *, upper: bool) -> Float[Array, ""]:
        """Return the log tail by exp-sinh quadrature of the density ratio."""
        sign = 1.0 if upper else -1.0
        edge = self.log_density(sign * size)
        alive = edge > -jnp.inf  # where the density underflowed, so has its tail
        start = jnp.where(alive, size, jnp.zeros_like(size))
        level = jnp.where(alive, edge, jnp.zeros_like(edge))
        scale = jax.lax.stop_gradient(decay_length(self.log_density, sign * start))
        integral = nx.integrate_half_line(
            lambda s: self.log_density(sign * (start + s)) - level, scale
        )
        return jnp.where(alive, level + jnp.log(integral), -jnp.inf)


class ProbabilityLink(TailLink):
    """A user's link, given by g; its density is the derivative of g by automatic differentiation.

    Both tails come from g itself: for a symmetric link always from its lower one, so the user's g
    should be accurate for negative margins.
    """

    probability_function: MarginFunction
    label: str = eqx.field(static=True)
    mirrored: bool = eqx.field(static=True)

    @property
    def name(self) -> str:
        """Return the name the user gave."""
        return self.label

    @property
    def symmetric(self) -> bool:
        """Return whether the user's g is symmetric (Assumption 4)."""
        return self.mirrored

    def log_density(self, margin: ArrayLike) -> Float[Array, "..."]:
        """Return log g', evaluated on the lower side when the link is symmetric."""
        x = nx.as_float(margin)
        place = -jnp.abs(x) if self.symmetric else x
        slope = elementwise(jax.grad(self.probability_function), place)
        return jnp.log(slope)

    def log_tail(self, size: Float[Array, ""], *, upper: bool) -> Float[Array, ""]:
        """Return log g(-size), or log(1 - g(size)) for the upper tail."""
        if upper:
            return jnp.log1p(-self.probability_function(size))
        return jnp.log(self.probability_function(-size))


def student_t(nu: ArrayLike) -> StudentT:
    """Return the Student-t link with `nu` > 0 degrees of freedom.

    Parameters
    ----------
    nu : scalar
        Degrees of freedom; the link differentiates with respect to it.

    Returns
    -------
    StudentT
        Tails right to 1e-12 relative for 0.3 <= nu <= 1e6 (below that the tails decay too
        slowly for the quadrature's range).

    Raises
    ------
    InputError
        If nu is not one finite number above 0.

    Examples
    --------
    >>> link = student_t(3)
    >>> round(float(link.probability(2.0)), 6)
    0.930337
    >>> link
    <link student_t(3)>
    """
    check_positive("nu", nu, "a finite number of degrees of freedom above 0")
    degrees = nx.as_float(nu)
    if degrees.ndim:
        raise InputError(f"nu: expected one number; got an array of shape {degrees.shape}")
    return StudentT(degrees)
