r"""Sensitive regions of rankings: their areas, how these fall with K, what scores can reach.

The region lives in the triangle p_uv + p_vu < 1; Proposition 2 measures it at given alpha and
beta, which in a score model belong to the ranking (Eq. 10) and are not free.

References
----------
Xu and Kankanhalli (ICLR 2025), Eqs. 9-12, Proposition 2, section 3.2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _numerics as nx
from .._checks import (
    LARGEST,
    ArrayLike,
    check_between,
    check_option,
    check_positive,
    check_probability,
)
from ..models import check_pair, check_scores, plackett_luce_log_alpha_beta
from ..sensitivity import check_alpha_beta

RANKING_REGIONS = ("uv", "vu")


def plackett_luce_region_area(
    alpha: ArrayLike, beta: ArrayLike, threshold: ArrayLike, *, wrt: str = "uv"
) -> Float[Array, "..."]:
    r"""Return the area of the Plackett-Luce M-sensitive region, clipped to the triangle.

    Proposition 2: beta^2/(6 alpha M^2) for "uv", beta^2/(6 alpha^3 M^2) for "vu", as long as the
    region of Eq. 11 or 12 fits into p_uv + p_vu < 1; the part outside is cut off.

    Parameters
    ----------
    alpha : array_like
        At least 1 (Eq. 10).
    beta : array_like
        In (0, 1] (Eq. 10).
    threshold : array_like
        M > 0.
    wrt : {"uv", "vu"}
        Sensitivity to p_{omega_uv} (Eq. 11) or to p_{omega_vu} (Eq. 12).

    Returns
    -------
    array
        In (0, 1/2). Clipping sets in below M = beta for "uv"; for "vu" below beta/alpha^2 where
        alpha <= 2 and below beta/(4(alpha - 1)) above.

    Raises
    ------
    InputError
        For alpha < 1, beta outside (0, 1], a threshold that is not above 0, or an unknown `wrt`.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Eqs. 9-12, Proposition 2.

    Examples
    --------
    >>> print(round(float(plackett_luce_region_area(1.01, 0.99, 2.0)) * 24 * 1.01 / 0.99**2, 6))
    1.0
    """
    check_option("wrt", wrt, RANKING_REGIONS)
    check_alpha_beta(alpha, beta)
    check_positive("threshold", threshold, "a threshold M that is a finite number above 0")
    alpha, beta, level = nx.as_floats(alpha, beta, threshold)
    return _area_uv(alpha, beta / level) if wrt == "uv" else _area_vu(alpha, beta / level)


def _area_uv(alpha: Float[Array, "..."], c: Float[Array, "..."]) -> Float[Array, "..."]:
    """Area of 0 < b < c, 0 < a < (sqrt(c b) - b)/alpha within a + b < 1; c = beta/M."""
    root = jnp.sqrt(c)
    # The curve meets a + b = 1 at b = meet^2; beyond, the region ends at a = 1 - b.
    meet = 2 / (root / alpha + jnp.sqrt(c / alpha / alpha + 4 * (1 - 1 / alpha)))
    end = jnp.where(c > 1, meet, root)
    curved = (2 * root * end**3 / 3 - end**4 / 2) / alpha
    straight = jnp.where(c > 1, jnp.square(1 - end * end) / 2, 0.0)
    return curved + straight


def _area_vu(alpha: Float[Array, "..."], c: Float[Array, "..."]) -> Float[Array, "..."]:
    """Area of 0 < a < c/alpha^2, 0 < b < sqrt(c a) - alpha a within a + b < 1; c = beta/M."""
    root = jnp.sqrt(c)
    last = root / alpha
    spread = c - 4 * (alpha - 1)
    cuts = spread > 0
    half = jnp.sqrt(jnp.where(cuts, spread, 1.0))
    enter = jnp.where(cuts, 2 / (root + half), jnp.inf)
    slack = 2 * (alpha - 1)
    leave = jnp.where(cuts & (slack > 0), (root + half) / jnp.where(slack > 0, slack, 1.0), jnp.inf)
    # With alpha > 2 both crossings can lie beyond the region's end, or both before it.
    t1 = jnp.minimum(enter, last)
    t2 = jnp.minimum(jnp.maximum(leave, t1), last)

    def below_curve(t: Float[Array, "..."]) -> Float[Array, "..."]:
        return 2 * root * t**3 / 3 - alpha * t**4 / 2

    stop = jnp.minimum(t2, jnp.maximum(t1, 1.0))
    straight = (jnp.square(1 - t1 * t1) - jnp.square(1 - stop * stop)) / 2
    straight = jnp.where(t2 > t1, straight, 0.0)
    return below_curve(t1) + straight + below_curve(last) - below_curve(t2)


def plackett_luce_reachable_pair(
    alpha: ArrayLike, beta: ArrayLike
) -> tuple[Float[Array, "..."], tuple[Float[Array, "..."], Float[Array, "..."]]]:
    r"""Return which (p_uv, p_vu) a score model with K = 3 can reach at given alpha and beta.

    Prop. 2 measures regions in the triangle of all (p_uv, p_vu) at fixed alpha and beta. A model
    with scores cannot roam it. With K = 3, u = 1 and v = 2, alpha fixes s_3 - s_1 and beta fixes
    s_3 - s_2, hence the ratio p_vu / p_uv = exp(s_2 - s_1) = beta (alpha - 1) / (1 - beta): of the
    triangle only a ray is left. With N = 3 items in all, the prefix is the third item and even
    the sum p_uv + p_vu is fixed, the probability that it comes first: a single point.

    Parameters
    ----------
    alpha : array_like
        Above 1.
    beta : array_like
        In (0, 1).

    Returns
    -------
    ratio : array
        p_vu / p_uv on the ray; more items (N > 3) reach every sum p_uv + p_vu in (0, 1) on it.
    point : tuple of arrays
        (p_uv, p_vu) for N = 3.

    Raises
    ------
    InputError
        For alpha not above 1 or beta outside (0, 1).

    Examples
    --------
    The point behind Figure 2's plane:

    >>> ratio, (p_uv, p_vu) = plackett_luce_reachable_pair(1.01, 0.99)
    >>> print([round(float(v), 4) for v in (ratio, p_uv, p_vu)])
    [0.99, 0.0025, 0.0025]
    """
    what = "a finite number above 1 (Eq. 10)"
    check_between("alpha", alpha, 1.0, LARGEST, what=what, open_low=True)
    check_probability("beta", beta)
    alpha, beta = nx.as_floats(alpha, beta)
    third_over_first = alpha - 1
    ratio = beta * third_over_first / (1 - beta)
    others = third_over_first / (1 + ratio + third_over_first)
    return ratio, (others / (1 + ratio), others * ratio / (1 + ratio))


class LengthTrend(NamedTuple):
    """How alpha, beta and the area of a ranking's sensitive region change with its length K.

    Attributes
    ----------
    length : int array, shape (n,)
        K, from v + 1 to the number of scores.
    log_alpha, log_beta : array, shape (..., n)
        Eq. 10 for the first K places: alpha never falls and beta falls with every place.
    log_area : array, shape (..., n)
        Logarithm of the area, of the triangle p_uv + p_vu < 1, whose own area is 1/2.
    """

    length: np.ndarray
    log_alpha: Float[Array, "... n"]
    log_beta: Float[Array, "... n"]
    log_area: Float[Array, "... n"]


def plackett_luce_area_by_length(
    scores: ArrayLike, u: int, v: int, threshold: ArrayLike, *, wrt: str = "uv"
) -> LengthTrend:
    r"""Return the M-sensitive area of a ranking's first K places, for every K (section 3.2).

    With each place more, alpha gains a term and beta a factor below 1, so that
    log A = 2 log beta - log(6 alpha M^2) falls: a longer tuple is more robust. By how much is
    the scores' affair. Where the place added is close to the others, most of the area goes;
    where it is far below them, as with preferences that are strong already, next to nothing does.

    Parameters
    ----------
    scores : array_like, shape (..., K)
        Scores (nats) in rank order, best first.
    u, v : int
        0-based places with u < v < K.
    threshold : array_like, shape (...)
        M > 0; one for all, or one for each ranking.
    wrt : {"uv", "vu"}
        Sensitivity to p_{omega_uv} (Eq. 11) or to p_{omega_vu} (Eq. 12).

    Returns
    -------
    LengthTrend

    Raises
    ------
    InputError
        For scores that are no ranking of two or more, places out of order or range, a threshold
        that is not a finite number above 0, or an unknown `wrt`.

    Notes
    -----
    Logarithms throughout: gaps of hundreds of nats are fine. The area is clipped to the triangle
    as :func:`plackett_luce_region_area` does it, which concerns M < 1 only. At K = 2 it is
    1/(6 M^2), already below Proposition 1's, which is measured in other coordinates: Theorem 2
    compares the two, and its gap is not an effect of K.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), section 3.2, Eq. 10, Proposition 2.

    Examples
    --------
    The share of the area left, from K = 2 to 5, for equal items and for items 5 nats apart:

    >>> for scores in ([0.0] * 5, [20.0, 15.0, 10.0, 5.0, 0.0]):
    ...     trend = plackett_luce_area_by_length(scores, 0, 1, 2.0)
    ...     print([round(float(x), 3) for x in jnp.exp(trend.log_area - trend.log_area[0])])
    [1.0, 0.125, 0.009, 0.0]
    [1.0, 0.987, 0.973, 0.96]
    """
    check_option("wrt", wrt, RANKING_REGIONS)
    check_positive("threshold", threshold, "a threshold M that is a finite number above 0")
    s, level = nx.as_floats(check_scores(scores), threshold)
    u, v = check_pair(s, u, v)
    length = np.arange(v + 1, s.shape[-1] + 1)
    pairs = [plackett_luce_log_alpha_beta(s[..., :k], u, v) for k in length]
    log_alpha, log_beta = (jnp.stack(part, axis=-1) for part in zip(*pairs, strict=True))
    log_c = log_beta - jnp.log(level)[..., None]
    return LengthTrend(length, log_alpha, log_beta, _log_area(log_alpha, log_c, wrt))


def _log_area(
    log_alpha: Float[Array, "..."], log_c: Float[Array, "..."], wrt: str
) -> Float[Array, "..."]:
    """Return the logarithm of the clipped area; Proposition 2's wherever the region fits."""
    rest = jnp.log(jnp.maximum(jnp.expm1(log_alpha), 1e-30))
    bound = {
        "uv": jnp.zeros_like(log_alpha),
        "vu": jnp.where(log_alpha <= math.log(2), 2 * log_alpha, math.log(4) + rest),
    }[wrt]
    fits = log_c <= bound
    whole = 2 * log_c - math.log(6) - (1 if wrt == "uv" else 3) * log_alpha
    alpha, c = (jnp.exp(jnp.where(fits, 0.0, x)) for x in (log_alpha, log_c))
    clipped = _area_uv(alpha, c) if wrt == "uv" else _area_vu(alpha, c)
    return jnp.where(fits, whole, jnp.log(clipped))
