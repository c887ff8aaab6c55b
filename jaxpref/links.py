r"""Links: the function g that turns a margin of scores into a preference probability.

A link is a continuous distribution function of the margin m = s_i - s_j (in nats for the logistic
link, in units of the link's own scale otherwise). The paper asks of it (Assumptions 2-5) that it
increases strictly, runs from 0 to 1, satisfies g(m) + g(-m) = 1 and is continuously
differentiable; its results also need g'(m) -> 0, which the paper derives (Lemma 2) but which in
fact has to be assumed. :func:`check_link` tests all five.

Everything here is computed from the tail of the smaller probability: g(-700) is right to twelve
digits where it is representable, and `log_probability` carries on where it is not.

References
----------
Xu and Kankanhalli, "Strong Preferences Affect the Robustness of Preference Models and Value
Alignment", ICLR 2025: section 2.2.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from . import _numerics as nx
from ._checks import InputError, check_positive

MarginFunction = Callable[[Float[Array, ""]], Float[Array, ""]]


class Link(eqx.Module):
    """A link g, its tails, its inverse and the logarithm of its density g'.

    Every method maps over arrays of any shape, keeps float32 and float64 apart, and works under
    ``jit``, ``vmap`` and ``grad``. Probabilities of large positive margins round to 1; ask for
    the probability of the opposite margin to see what is left.
    """

    name: eqx.AbstractVar[str]
    symmetric: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def log_density(self, margin: ArrayLike) -> Float[Array, "..."]:
        """Return log g'(margin), the log density of the link, -inf where it underflows to 0."""

    @abc.abstractmethod
    def probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        """Return g(margin), the probability that the first item wins, in [0, 1]."""

    @abc.abstractmethod
    def log_probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        """Return log g(margin) <= 0, finite long after g(margin) has underflowed."""

    @abc.abstractmethod
    def margin(
        self, probability: ArrayLike, complement: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        """Return g^-1(probability), the margin; -inf at 0 and inf at 1.

        Parameters
        ----------
        probability : array_like
            p in [0, 1].
        complement : array_like, optional
            1 - p, where it is known more accurately than p can say: a float32 p cannot hold
            1 - 1e-9, but the pair (1, 1e-9) can.
        """

    def log_density_ratio(self, margin: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
        """Return log g'(margin + shift) - log g'(margin).

        This is the log-sensitivity of Eq. 2; links with a closed form override it so that a
        small `shift` at a large `margin` is not rounded away.
        """
        x, y = nx.as_floats(margin, shift)
        return self.log_density(x + y) - self.log_density(x)

    def density(self, margin: ArrayLike) -> Float[Array, "..."]:
        """Return g'(margin)."""
        return jnp.exp(self.log_density(margin))

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = float) -> Float[Array, "..."]:
        """Return margins drawn from g, so that g(margin) is uniform on (0, 1)."""
        uniform = jax.random.uniform(key, shape, dtype, minval=jnp.finfo(dtype).tiny)
        return self.margin(uniform)

    def __repr__(self) -> str:
        return f"<link {self.name}>"


def _tail_and_excess(
    probability: ArrayLike, complement: ArrayLike | None
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """Return the smaller of p and 1 - p, how far it lies below 1/2, and the sign of the margin."""
    if complement is None:
        p = nx.as_float(probability)
        q = 1 - p
    else:
        p, q = nx.as_floats(probability, complement)
    sign = jnp.where(p < q, -jnp.ones_like(p), jnp.ones_like(p))
    return jnp.minimum(p, q), jnp.abs(p - q) / 2, sign


class _Logistic(Link):
    name: str = eqx.field(default="logistic", static=True)
    symmetric: bool = eqx.field(default=True, static=True)

    def log_density(self, margin: ArrayLike) -> Float[Array, "..."]:
        size = jnp.abs(nx.as_float(margin))
        return -size - 2 * jnp.log1p(jnp.exp(-size))

    def probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        return jax.nn.sigmoid(nx.as_float(margin))

    def log_probability(self, margin: ArrayLike) -> Float[Array, "..."]:
        return jax.nn.log_sigmoid(nx.as_float(margin))

    def margin(
        self, probability: ArrayLike, complement: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        tail, excess, sign = _tail_and_excess(probability, complement)
        return sign * jnp.log1p(2 * excess / tail)

    def log_density_ratio(self, margin: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
        x, y = nx.as_floats(margin, shift)
        bend = jnp.log1p(jnp.exp(-jnp.abs(x))) - jnp.log1p(jnp.exp(-jnp.abs(x + y)))
        return nx.abs_drop(x, y) + 2 * bend

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = float) -> Float[Array, "..."]:
        return jax.random.logistic(key, shape, dtype)


class _Probit(Link):
    name: str = eqx.field(default="probit", static=True)
    symmetric: bool = eqx.field(default=True, static=True)

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
        tail, excess, sign = _tail_and_excess(probability, complement)
        return sign * _probit_upper_margin(tail, excess)

    def log_density_ratio(self, margin: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
        x, y = nx.as_floats(margin, shift)
        return -0.5 * y * (2 * x + y)

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


class _Cauchit(Link):
    name: str = eqx.field(default="cauchit", static=True)
    symmetric: bool = eqx.field(default=True, static=True)

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
        tail, excess, sign = _tail_and_excess(probability, complement)
        central = excess < 0.25
        inner = jnp.tan(jnp.pi * jnp.where(central, excess, 0.0))
        outer = 1 / jnp.tan(jnp.pi * jnp.where(central, 0.25, tail))
        return sign * jnp.where(central, inner, outer)

    def log_density_ratio(self, margin: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
        x, y = nx.as_floats(margin, shift)
        return _log_quadratic_ratio(x, y)

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = float) -> Float[Array, "..."]:
        return jax.random.cauchy(key, shape, dtype)


def _log_quadratic_ratio(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log((1 + x^2) / (1 + (x + y)^2)), by log1p of the difference where they are close."""
    z = x + y
    floor = 1 + jnp.square(jnp.clip(z, -1e15, 1e15))
    change = -y * (x + z)
    close = jnp.abs(change) < 0.5 * floor
    near = jnp.log1p(jnp.where(close, change, 0.0) / floor)
    return jnp.where(close, near, nx.log1p_square(x) - nx.log1p_square(z))


class _Laplace(Link):
    name: str = eqx.field(default="laplace", static=True)
    symmetric: bool = eqx.field(default=True, static=True)

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
        tail, excess, sign = _tail_and_excess(probability, complement)
        central = excess < 0.25
        inner = -jnp.log1p(-2 * jnp.where(central, excess, 0.0))
        outer = -jnp.log(2 * jnp.where(central, 0.5, tail))
        return sign * jnp.where(central, inner, outer)

    def log_density_ratio(self, margin: ArrayLike, shift: ArrayLike) -> Float[Array, "..."]:
        x, y = nx.as_floats(margin, shift)
        return nx.abs_drop(x, y)

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = float) -> Float[Array, "..."]:
        return jax.random.laplace(key, shape, dtype)


logistic = _Logistic()
probit = _Probit()
cauchit = _Cauchit()
laplace = _Laplace()
