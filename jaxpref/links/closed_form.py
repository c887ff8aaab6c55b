"""The links whose tails and inverses are elementary or nearly so."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _numerics as nx
from .._checks import ArrayLike
from .base import Link, tail_and_excess


class Logistic(Link):
    """Bradley-Terry: g(m) = 1 / (1 + exp(-m)), margins in nats."""

    @property
    def name(self) -> str:
        return "logistic"

    def log_density(self, margin: ArrayLike) -> Float[Array, "..."]:
        size = jnp.abs(nx.as_float(margin))
        return -size - 2 * nx.log1p_unit(jnp.exp(-size))

    def probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        return _sigmoid(nx.as_float(margin))

    def log_probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        return jax.nn.log_sigmoid(nx.as_float(margin))

    def margin(
        self, probability: ArrayLike, complement: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        tail, excess, sign = tail_and_excess(probability, complement)
        central = excess < 0.25
        inner = jnp.log1p(2 * excess / jnp.where(central, tail, 0.5))
        outer = jnp.where(central, 0.25, tail)
        return sign * jnp.where(central, inner, jnp.log1p(-outer) - jnp.log(outer))

    def log_density_ratio(self, margin: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
        x, y = nx.as_floats(margin, shift)
        bend = nx.log1p_unit(jnp.exp(-jnp.abs(x))) - nx.log1p_unit(jnp.exp(-jnp.abs(x + y)))
        # Two equal terms can be compiled apart and differ in the last digit; strict comparisons
        # with M = 1 want their difference to be 0, with its slope.
        level = jnp.abs(x) == jnp.abs(x + y)
        bend = bend - jax.lax.stop_gradient(jnp.where(level, bend, jnp.zeros_like(bend)))
        return nx.abs_drop(x, y) + 2 * bend

    def level_radius(self, margin: ArrayLike, log_threshold: ArrayLike) -> Float[Array, "..."]:
        # cosh(r/2) = cosh(x/2) / sqrt(M)
        x, level = nx.as_floats(margin, log_threshold)
        height = nx.log_cosh(x / 2) - level / 2
        inside = height > 0
        safe = jnp.where(inside, height, 1.0)
        return jnp.where(inside, 2 * nx.arccosh_exp(safe), jnp.where(height < 0, jnp.nan, 0.0))

    def sensitive_ends(
        self, shift: Float[Array, "..."], log_threshold: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        # Eq. 5 as a margin, h = shift/2, l = log(M)/2: -log((e^(h+l) - 1)/(1 - e^(l-h))).
        h, level = shift / 2, log_threshold / 2
        exists = h > jnp.abs(level)
        h = jnp.where(exists, h, jnp.abs(level) + 1)
        near = -(h + level + nx.log1mexp(h + level) - nx.log1mexp(h - level))
        near = jnp.where(exists, near, jnp.nan)
        return near, jnp.where(exists, -jnp.inf, jnp.nan)

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = float) -> Float[Array, "..."]:
        return jax.random.logistic(key, shape, dtype)


@jax.custom_jvp
def _sigmoid(x: ArrayLike) -> Float[Array, "..."]:
    """Return the logistic function, with a derivative that does not round to 0 near 1."""
    return jax.nn.sigmoid(jnp.asarray(x))


@_sigmoid.defjvp
def _sigmoid_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (change,) = map(jnp.asarray, primals), tangents
    return _sigmoid(x), _sigmoid(x) * _sigmoid(-x) * change


class Probit(Link):
    """Thurstone-Mosteller: g is the standard normal distribution function."""

    @property
    def name(self) -> str:
        return "probit"

    def log_density(self, margin: ArrayLike) -> Float[Array, "..."]:
        x = nx.as_float(margin)
        return -0.5 * x * x - nx.HALF_LOG_2PI

    def probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        x = nx.as_float(margin)
        size = jnp.abs(x)
        tail = nx.gauss(size) * nx.mills_ratio(size) * (nx.SQRT_2_OVER_PI / 2)
        return jnp.where(x < 0, tail, 1 - tail)

    def log_probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        x = nx.as_float(margin)
        low = jnp.where(x < 0, -x, 0.0)
        high = jnp.where(x < 0, 0.0, x)
        log_tail = -0.5 * low * low + jnp.log(nx.mills_ratio(low)) - nx.HALF_LOG_2PI
        upper = nx.gauss(high) * nx.mills_ratio(high) * (nx.SQRT_2_OVER_PI / 2)
        return jnp.where(x < 0, log_tail, jnp.log1p(-upper))

    def margin(
        self, probability: ArrayLike, complement: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        tail, excess, sign = tail_and_excess(probability, complement)
        return sign * _probit_upper_margin(tail, excess)

    def log_density_ratio(self, margin: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
        x, y = nx.as_floats(margin, shift)
        return -0.5 * y * (2 * x + y)

    def level_radius(self, margin: ArrayLike, log_threshold: ArrayLike) -> Float[Array, "..."]:
        # r^2 = x^2 - 2 log M
        x, level = nx.as_floats(margin, log_threshold)
        return nx.sqrt_or_nan(x * x - 2 * level)

    def sensitive_ends(
        self, shift: Float[Array, "..."], log_threshold: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        # -shift (2x + shift)/2 = log M: always one boundary, unless shift = 0.
        exists = shift > 0
        safe = jnp.where(exists, shift, 1.0)
        near = jnp.where(exists, -log_threshold / safe - safe / 2, jnp.nan)
        return near, jnp.where(exists, -jnp.inf, jnp.nan)

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = float) -> Float[Array, "..."]:
        return jax.random.normal(key, shape, dtype)


@jax.custom_jvp
def _probit_upper_margin(
    tail: Float[Array, "..."], excess: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return m >= 0 with Phi(-m) = tail, Phi(m) - 1/2 = excess: a library guess, then Newton."""
    guess = -jax.scipy.special.ndtri(jnp.clip(tail, jnp.finfo(tail.dtype).tiny, 0.5))
    central = excess < 0.2
    m = jnp.abs(guess)
    for _ in range(2):
        density = nx.gauss(m) * (nx.SQRT_2_OVER_PI / 2)
        inner = (jax.lax.erf(m * (0.5**0.5)) / 2 - excess) / jnp.where(central, density, 1.0)
        ratio = nx.mills_ratio(m)
        log_tail = -0.5 * m * m - nx.HALF_LOG_2PI + jnp.log(ratio)
        outer = (jnp.log(jnp.where(central, 0.5, tail)) - log_tail) * ratio
        m = m - jnp.where(central, inner, outer)
    return jnp.where(tail > 0, m, jnp.inf)


@_probit_upper_margin.defjvp
def _probit_upper_margin_jvp(primals: Any, tangents: Any) -> Any:
    # excess = 1/2 - tail: the derivative travels with excess alone.
    m = _probit_upper_margin(*primals)
    return m, tangents[1] * jnp.exp(0.5 * m * m + nx.HALF_LOG_2PI)


class Cauchit(Link):
    """g(m) = 1/2 + arctan(m)/pi: the heaviest tail shipped; dominance is hard to reach."""

    @property
    def name(self) -> str:
        return "cauchit"

    def log_density(self, margin: ArrayLike) -> Float[Array, "..."]:
        return -nx.LOG_PI - nx.log1p_square(nx.as_float(margin))

    def probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        x = nx.as_float(margin)
        return jnp.arctan2(jnp.ones_like(x), -x) / jnp.pi

    def log_probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        x = nx.as_float(margin)
        lower = jnp.arctan2(jnp.ones_like(x), jnp.abs(x)) / jnp.pi
        return jnp.where(x < 0, jnp.log(lower), jnp.log1p(-lower))

    def margin(
        self, probability: ArrayLike, complement: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        tail, excess, sign = tail_and_excess(probability, complement)
        central = excess < 0.25
        inner = jnp.tan(jnp.pi * jnp.where(central, excess, 0.0))
        outer = 1 / jnp.tan(jnp.pi * jnp.where(central, 0.25, tail))
        return sign * jnp.where(central, inner, outer)

    def log_density_ratio(self, margin: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
        x, y = nx.as_floats(margin, shift)
        return log_quadratic_ratio(x, y)

    def level_radius(self, margin: ArrayLike, log_threshold: ArrayLike) -> Float[Array, "..."]:
        # 1 + r^2 = (1 + x^2) / M
        x, level = nx.as_floats(margin, log_threshold)
        return quadratic_radius(x, level)

    def sensitive_ends(
        self, shift: Float[Array, "..."], log_threshold: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        return quadratic_ends(shift, log_threshold)

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = float) -> Float[Array, "..."]:
        return jax.random.cauchy(key, shape, dtype)


def log_quadratic_ratio(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log((1 + x^2) / (1 + (x + y)^2)), by log1p of the difference where they are close."""
    z = x + y
    limit = float(jnp.finfo(z.dtype).max) ** 0.5 / 4
    floor = 1 + jnp.square(jnp.clip(z, -limit, limit))
    change = -y * (x + z)
    close = jnp.abs(change) < 0.5 * floor
    near = jnp.log1p(jnp.where(close, change, 0.0) / floor)
    return jnp.where(close, near, nx.log1p_square(x) - nx.log1p_square(z))


def quadratic_radius(x: Float[Array, "..."], level: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return r >= 0 with (1 + r^2) = (1 + x^2) exp(-level), NaN where there is none."""
    return nx.sqrt_or_nan(jnp.exp(-level) * x * x + jnp.expm1(-level))


def quadratic_ends(
    shift: Float[Array, "..."], level: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return the roots x of (1 + x^2) = M (1 + (x + shift)^2), nearest -shift/2 first.

    (M - 1) x^2 + 2 M shift x + M shift^2 + M - 1 = 0; at M = 1 the far root is at -inf.
    """
    excess = jnp.expm1(level)
    m = 1 + excess
    spread = m * shift * shift - jnp.square(excess)
    exists = (spread >= 0) & (shift > 0)
    positive = exists & (spread > 0)
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, spread, 1.0)), 0.0)
    b = m * shift
    near = -(m * shift * shift + excess) / jnp.where(exists, b + root, 1.0)
    far = -(b + root) / jnp.where(excess == 0, 1.0, excess)
    far = jnp.where(excess == 0, -jnp.inf, far)
    return jnp.where(exists, near, jnp.nan), jnp.where(exists, far, jnp.nan)


class Laplace(Link):
    """g(m) = exp(m)/2 below 0 and 1 - exp(-m)/2 above: a kink in the density at 0."""

    @property
    def name(self) -> str:
        return "laplace"

    def log_density(self, margin: ArrayLike) -> Float[Array, "..."]:
        return -jnp.abs(nx.as_float(margin)) - nx.LOG_2

    def probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        x = nx.as_float(margin)
        tail = jnp.exp(-jnp.abs(x)) / 2
        return jnp.where(x < 0, tail, 1 - tail)

    def log_probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        x = nx.as_float(margin)
        upper = jnp.log1p(-jnp.exp(-jnp.where(x < 0, 0.0, x)) / 2)
        return jnp.where(x < 0, x - nx.LOG_2, upper)

    def margin(
        self, probability: ArrayLike, complement: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        tail, excess, sign = tail_and_excess(probability, complement)
        central = excess < 0.25
        inner = -jnp.log1p(-2 * jnp.where(central, excess, 0.0))
        outer = -jnp.log(2 * jnp.where(central, 0.5, tail))
        return sign * jnp.where(central, inner, outer)

    def log_density_ratio(self, margin: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
        x, y = nx.as_floats(margin, shift)
        return nx.abs_drop(x, y)

    def level_radius(self, margin: ArrayLike, log_threshold: ArrayLike) -> Float[Array, "..."]:
        # r = |x| - log M
        x, level = nx.as_floats(margin, log_threshold)
        r = jnp.abs(x) - level
        return jnp.where(r >= 0, r, jnp.nan)

    def sensitive_ends(
        self, shift: Float[Array, "..."], log_threshold: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        # |x| - |x + shift| = log M, between -shift and 0: exists iff shift > |log M|.
        exists = shift > jnp.abs(log_threshold)
        near = jnp.where(exists, -(shift + log_threshold) / 2, jnp.nan)
        return near, jnp.where(exists, -jnp.inf, jnp.nan)

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = float) -> Float[Array, "..."]:
        return jax.random.laplace(key, shape, dtype)


logistic = Logistic()
probit = Probit()
cauchit = Cauchit()
laplace = Laplace()
