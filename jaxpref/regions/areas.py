r"""Areas of pairwise regions known in closed form, for the logistic and the Laplace link.

Areas are measured in the unit square of (p_ik, p_kj).

References
----------
Xu and Kankanhalli (ICLR 2025), Proposition 1. For M <= 1, for both inputs together and for the
Laplace link the closed forms are this project's own.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _numerics as nx
from .._checks import ArrayLike
from ..links import Link
from ..links.closed_form import Laplace, Logistic


def closed_form_area(
    threshold: Float[Array, "..."], *, link: Link, wrt: str
) -> Float[Array, "..."] | None:
    """Return the exact area of a pairwise region, or None where no closed form is known.

    Parameters
    ----------
    threshold : array
        M > 0.
    link : Link
        Logistic and Laplace have closed forms; the others do not.
    wrt : str
        Logistic: "ik", "kj" for every M, "union", "intersection" for M >= 1 (NaN below).
        Laplace: the four of them for every M.

    Returns
    -------
    array or None

    Notes
    -----
    Logistic, "ik": Proposition 1 rewritten so that it does not cancel; relative error below 1e-14
    in float64 and 2e-6 in float32 for M up to 1e8, where the printed form has lost every
    digit (it loses about 3 M^2 rounding errors). For M < 1 it is artanh(sqrt M)/sqrt M - artanh M.
    Laplace, "ik": 1/(3 M^2) for M >= 1 and 1 - 2M/3 below.

    Examples
    --------
    >>> from jaxpref.links import laplace
    >>> float(closed_form_area(jnp.asarray(2.0), link=laplace, wrt="ik"))  # 1/12
    0.0833...
    """
    if type(link) is Logistic:
        return _logistic_area(threshold, wrt)
    if type(link) is Laplace:
        return _laplace_area(threshold, wrt)
    return None


def _logistic_area(level: Float[Array, "..."], wrt: str) -> Float[Array, "..."] | None:
    if wrt in ("ik", "kj"):
        return bradley_terry_area(level)
    if wrt == "intersection":
        return _both_partials_area(level)
    if wrt == "union":
        return 2 * bradley_terry_area(level) - _both_partials_area(level)
    return None


@jax.custom_jvp
def bradley_terry_area(level: ArrayLike) -> Float[Array, "..."]:
    """Return Proposition 1's area for every M > 0, without cancellation.

    >>> print(float(bradley_terry_area(jnp.asarray(1.0))) * 2)  # log 2
    0.693147...
    """
    level = nx.as_float(level)
    far = level > 2.5
    near = jnp.where(far, 1.0, level)
    root = jnp.sqrt(near)
    gap = jnp.where(near == 1, 1.0, jnp.abs(near - 1))
    # Below 1/2 the gap itself would be rounded, and the root in the denominator blows that up.
    log_gap = jnp.where(near < 0.5, jnp.log1p(-jnp.where(near < 0.5, near, 0.0)), jnp.log(gap))
    slope = (near - 1) / (root * (1 + root))
    head = slope * log_gap / 2 + jnp.log1p(root) / root - jnp.log1p(near) / 2
    return jnp.where(far, _area_series(1 / jnp.where(far, level, 4.0)), head)


def _area_series(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return sum_{k>=2} u^k (1 - u^(k-1)) / (2k - 1), for u <= 0.4: 42 terms reach 1e-17."""
    total = jnp.zeros_like(u)
    for k in range(43, 1, -1):
        total = total * u + (-jnp.expm1((k - 1) * jnp.log(u))) / (2 * k - 1)
    return total * u * u


@bradley_terry_area.defjvp
def _bradley_terry_area_jvp(primals: Any, tangents: Any) -> Any:
    (level,), (change,) = map(jnp.asarray, primals), tangents
    return bradley_terry_area(level), _bradley_terry_area_slope(level) * change


def _bradley_terry_area_slope(level: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return dA/dM = 1/(2M(M+1)) - artanh(1/sqrt M)/(2 M^1.5) (artanh sqrt M below 1).

    Both terms grow as 1/M while their difference tends to -2/3: below 0.4 a series takes over.
    """
    far, close = level > 2.5, level < 0.4
    near = jnp.where(far | close, 1.0, level)
    root = jnp.sqrt(near)
    # artanh of the smaller of root and 1/root, with |M - 1| kept whole near M = 1.
    artanh = jnp.log1p(root) - jnp.log(jnp.abs(near - 1)) / 2
    head = (1 / (near + 1) - artanh / root) / (2 * near)
    u = 1 / jnp.where(far, level, 4.0)
    total = jnp.zeros_like(u)
    for k in range(43, 0, -1):
        total = (total + 1 / (2 * k + 1)) * u
    slope = jnp.where(far, -(u * u) / 2 * (total + u / (1 + u)), head)
    return jnp.where(close, _slope_series(jnp.where(close, level, 0.1)), slope)


def _slope_series(level: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return sum_{k>=1} k M^(k-1) / (2k + 1) - 1/(1 - M^2), for M <= 0.4: 43 terms reach 1e-16."""
    total = jnp.zeros_like(level)
    for k in range(43, 0, -1):
        total = total * level + k / (2 * k + 1)
    return total - 1 / (1 - level * level)


def _both_partials_area(level: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the area where both partials exceed M >= 1 under the logistic link, else NaN.

    sum_{k>=2} u^k / (2k(2k-1)), u = 1/M: ((1+w) log(1+w) + (1-w) log(1-w) - u)/2 with w = sqrt u.
    """
    u = 1 / jnp.where(level >= 1, level, 1.0)
    large = u > 0.4
    w = jnp.sqrt(jnp.where(large, u, 0.5))
    lower = jnp.where(w == 1, 0.5, 1 - w)
    tail = jnp.where(w == 1, 0.0, lower * jnp.log(lower))
    head = ((1 + w) * jnp.log1p(w) + tail - w * w) / 2
    small = jnp.where(large, 0.1, u)
    total = jnp.zeros_like(small)
    for k in range(43, 1, -1):
        total = total * small + 1 / (2 * k * (2 * k - 1))
    area = jnp.where(large, head, total * small * small)
    return jnp.where(level >= 1, area, jnp.nan)


def _laplace_area(level: Float[Array, "..."], wrt: str) -> Float[Array, "..."] | None:
    above = level >= 1
    m = jnp.where(above, level, 1.0)
    low = jnp.where(above, 1.0, level)
    one = jnp.where(above, 1 / (3 * m * m), 1 - 2 * low / 3)
    both = jnp.where(above, 1 / (6 * m * m), 0.5 - low / 3 + jnp.square(1 - low) / 2)
    table = {"ik": one, "kj": one, "intersection": both, "union": 2 * one - both}
    return table.get(wrt)
