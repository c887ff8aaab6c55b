r"""The log-likelihood of pair counts, pair by pair, and the matrices made of it.

With w_ab wins of a over b, n_ab = w_ab + w_ba, f_ab = w_ab / n_ab and margin m = s_a - s_b,

.. math:: \ell(s) = \sum_{(a,b)} w_{ab} \log g(m) + w_{ba} \log g(-m) .

Every function takes the two counts apart rather than their sum and a fraction: at a million wins
to one the derivative is the difference of two numbers near 1, and stays exact to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from ..links import Link
from ._host import float64, pad, pair_bucket


class PairTerms(NamedTuple):
    """What each pair adds to the log-likelihood, in nats, and its derivatives by the margin."""

    log_likelihood: Float[Array, "..."]
    gradient: Float[Array, "..."]
    curvature: Float[Array, "..."]


def pair_terms(
    link: Link,
    margin: Float[Array, "..."],
    wins_a: Float[Array, "..."],
    wins_b: Float[Array, "..."],
) -> PairTerms:
    r"""Return log-likelihood, its derivative and minus its second derivative, per pair.

    For the logistic link these are w_a log g(m) + w_b log g(-m), w_a g(-m) - w_b g(m) and
    n g(m) g(-m); for any other link the derivatives of ``link.log_probability`` by autodiff.

    >>> import jax.numpy as jnp
    >>> from jaxpref.links import logistic
    >>> from jaxpref.fit._host import float64
    >>> with float64():
    ...     terms = pair_terms(logistic, jnp.zeros(1), jnp.full(1, 3.0), jnp.ones(1))
    >>> float(terms.gradient[0]), float(terms.curvature[0])
    (1.0, 1.0)
    """
    if link.name == "logistic":
        return _logistic_terms(margin, wins_a, wins_b)
    value_a, slope_a, bend_a = _two_derivatives(link.log_probability, margin)
    value_b, slope_b, bend_b = _two_derivatives(link.log_probability, -margin)
    return PairTerms(
        _weigh(wins_a, value_a) + _weigh(wins_b, value_b),
        _weigh(wins_a, slope_a) - _weigh(wins_b, slope_b),
        -(_weigh(wins_a, bend_a) + _weigh(wins_b, bend_b)),
    )


def _logistic_terms(
    margin: Float[Array, "..."], wins_a: Float[Array, "..."], wins_b: Float[Array, "..."]
) -> PairTerms:
    chance_a, chance_b = jax.nn.sigmoid(margin), jax.nn.sigmoid(-margin)
    value = wins_a * jax.nn.log_sigmoid(margin) + wins_b * jax.nn.log_sigmoid(-margin)
    return PairTerms(
        value, wins_a * chance_b - wins_b * chance_a, (wins_a + wins_b) * chance_a * chance_b
    )


def _weigh(wins: Float[Array, "..."], value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return wins * value, and 0 where there are no wins even if the value is infinite."""
    return jnp.where(wins > 0, wins * jnp.where(wins > 0, value, 0.0), 0.0)


def _two_derivatives(
    function: Callable[[Float[Array, "..."]], Float[Array, "..."]], at: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """Return an elementwise function with its first two derivatives."""
    one = jnp.ones_like(at)

    def slope(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        value, derivative = jax.jvp(function, (x,), (one,))
        return derivative, value

    derivative, second, value = jax.jvp(slope, (at,), (one,), has_aux=True)
    return value, derivative, second


class Predictions(NamedTuple):
    """Probability of the first item, of the second, and the link's density, margin by margin."""

    probability: Float64[np.ndarray, " pairs"]
    opposite: Float64[np.ndarray, " pairs"]
    density: Float64[np.ndarray, " pairs"]


def predict(link: Link, margin: Float64[np.ndarray, " pairs"]) -> Predictions:
    """Return g(m), g(-m) and g'(m) on the host, in 64 bits; g(-m) keeps what 1 - g(m) loses.

    >>> import numpy as np
    >>> from jaxpref.links import logistic
    >>> predict(logistic, np.array([0.0]))
    Predictions(probability=array([0.5]), opposite=array([0.5]), density=array([0.25]))
    """
    if link.name == "logistic":
        tail = np.exp(-np.abs(margin))
        far, near = tail / (1 + tail), 1 / (1 + tail)
        up, down = np.where(margin < 0, far, near), np.where(margin < 0, near, far)
        return Predictions(up, down, far * near)
    with float64():
        columns = _predict(link, jnp.asarray(pad(margin, pair_bucket(len(margin)))))
    return Predictions(*(np.asarray(column)[: len(margin)] for column in columns))


@eqx.filter_jit
def _predict(
    link: Link, margin: Float[Array, " pairs"]
) -> tuple[Float[Array, " pairs"], Float[Array, " pairs"], Float[Array, " pairs"]]:
    return link.probability(margin), link.probability(-margin), link.density(margin)


def fraction_response(link: Link, margin: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return how fast a pair's gradient grows with its win fraction, per comparison.

    It is g'(m) / (g(m) g(-m)), which is 1 for the logistic link: dl/dm = n_ab (f_ab - p_ab).

    >>> import jax.numpy as jnp
    >>> from jaxpref.links import logistic
    >>> from jaxpref.fit._host import float64
    >>> with float64():
    ...     print(fraction_response(logistic, jnp.asarray([-500.0, 3.0])))
    [1. 1.]
    """
    if link.name == "logistic":
        return jnp.ones_like(margin)
    logs = link.log_probability(margin) + link.log_probability(-margin)
    return jnp.exp(link.log_density(margin) - logs)


def information_per_comparison(link: Link, margin: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return the expected (Fisher) information of one comparison about its margin, nats^-2.

    It is g'(m)^2 / (g(m) g(-m)); p (1 - p) for the logistic link.

    >>> import jax.numpy as jnp
    >>> from jaxpref.links import logistic
    >>> from jaxpref.fit._host import float64
    >>> with float64():
    ...     print(round(float(information_per_comparison(logistic, jnp.asarray(0.0))), 12))
    0.25
    """
    logs = link.log_probability(margin) + link.log_probability(-margin)
    return jnp.exp(2 * link.log_density(margin) - logs)


def weighted_laplacian(
    item_a: Int[Array, " pairs"],
    item_b: Int[Array, " pairs"],
    weight: Float[Array, " pairs"],
    num_items: int,
) -> Float[Array, "items items"]:
    r"""Return sum over pairs of weight (e_a - e_b)(e_a - e_b)^T.

    >>> import jax.numpy as jnp
    >>> from jaxpref.fit._host import float64
    >>> with float64():
    ...     print(weighted_laplacian(jnp.array([0]), jnp.array([1]), jnp.array([2.0]), 2))
    [[ 2. -2.]
     [-2.  2.]]
    """
    upper = jnp.zeros((num_items, num_items), weight.dtype).at[item_a, item_b].add(weight)
    links = upper + upper.T
    return jnp.diag(jnp.sum(links, axis=1)) - links


def onto_items(
    item_a: Int[Array, " pairs"],
    item_b: Int[Array, " pairs"],
    flow: Float[Array, "... pairs"],
    num_items: int,
) -> Float[Array, "... items"]:
    """Return, for each item, the flow over its pairs: added as first item, taken as second.

    >>> import jax.numpy as jnp
    >>> from jaxpref.fit._host import float64
    >>> with float64():
    ...     print(onto_items(jnp.array([0, 1]), jnp.array([1, 2]), jnp.array([1.0, 5.0]), 3))
    [ 1.  4. -5.]
    """
    sums = jnp.zeros((*flow.shape[:-1], num_items), flow.dtype)
    both = jnp.concatenate([item_a, item_b])
    return sums.at[..., both].add(jnp.concatenate([flow, -flow], axis=-1))
