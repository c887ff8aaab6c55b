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
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _numerics as nx
from .._checks import ArrayLike
from ._search import ends_by_search, radius_by_bisection


class Link(eqx.Module):
    """A link g, its tails, its inverse and the logarithm of its density g'.

    Every method maps over arrays of any shape, keeps float32 and float64 apart, and works under
    ``jit``, ``vmap`` and ``grad``. Probabilities of large positive margins round to 1; ask for
    the probability of the opposite margin to see what is left.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What messages and tables call the link."""

    @property
    def symmetric(self) -> bool:
        """Whether g(m) + g(-m) = 1 (Assumption 4)."""
        return True

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

    def level_radius(self, margin: ArrayLike, log_threshold: ArrayLike) -> Float[Array, "..."]:
        """Return r >= 0 with log g'(r) - log g'(margin) = log_threshold, NaN where there is none.

        For a symmetric link whose density falls on either side of 0. Differentiable; found by
        bisection unless a link knows better.
        """
        x, level = nx.as_floats(margin, log_threshold)
        target = self.log_density(x) + level
        return radius_by_bisection(self, target)

    def sensitive_ends(
        self, shift: Float[Array, "..."], log_threshold: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Return the margins x where log g'(x + shift) - log g'(x) = log_threshold, shift >= 0.

        The near end comes first, the one closest to -shift/2; the far one is -inf where the
        region runs on. Both are NaN where there is no such margin. The base method searches a
        grid of distances from -shift/2 and bisects; links with a closed form override it.
        """
        return ends_by_search(self, shift, log_threshold)

    def density(self, margin: ArrayLike) -> Float[Array, "..."]:
        """Return g'(margin)."""
        return jnp.exp(self.log_density(margin))

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any = float) -> Float[Array, "..."]:
        """Return margins drawn from g, so that g(margin) is uniform on (0, 1)."""
        uniform = jax.random.uniform(key, shape, dtype, minval=jnp.finfo(dtype).tiny)
        return self.margin(uniform)

    def __repr__(self) -> str:
        return f"<link {self.name}>"


def tail_and_excess(
    probability: ArrayLike, complement: ArrayLike | None
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """Return the smaller of p and 1 - p, how far it lies below 1/2, and the sign of the margin."""
    if complement is None:
        # 1 - p is exact above 1/2 and not needed below it; p - 1/2 is exact where it is small.
        p = nx.as_float(probability)
        q, excess = 1 - p, jnp.abs(p - 0.5)
    else:
        p, q = nx.as_floats(probability, complement)
        excess = jnp.abs(p - q) / 2
    sign = jnp.where(p < q, -jnp.ones_like(p), jnp.ones_like(p))
    return jnp.where(p < q, p, q), excess, sign
