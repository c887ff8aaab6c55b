r"""Where a sensitivity exceeds M: membership, boundary, and the areas known in closed form.

The M-sensitive region (Definition 4) lives in the unit square of (p_ik, p_kj) for pairs, and in
the triangle p_uv + p_vu < 1 for rankings. Membership compares logarithms, strictly, in margin
space; areas are measured in probability space.

References
----------
Xu and Kankanhalli, "Strong Preferences Affect the Robustness of Preference Models and Value
Alignment", ICLR 2025: Definitions 3 and 4, Eq. 5, Eqs. 11-12, Propositions 1 and 2. For M <= 1,
for both inputs together and for the Laplace link the closed forms are this project's own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from . import _numerics as nx
from ._checks import (
    ArrayLike,
    InputError,
    check_between,
    check_not_nan,
    check_option,
    check_positive,
    check_probability,
)
from .links import Link, logistic
from .sensitivity import check_alpha_beta, log_sensitivity

PAIR_REGIONS = ("ik", "kj", "union", "intersection", "l1", "l2")
RANKING_REGIONS = ("uv", "vu")


def combined_log_sensitivity(
    log_ik: Float[Array, "..."], log_kj: Float[Array, "..."], wrt: str
) -> Float[Array, "..."]:
    """Return the logarithm that a region compares with log M: of one partial, or of a norm.

    >>> import math
    >>> print(math.exp(combined_log_sensitivity(jnp.log(3.0), jnp.log(4.0), "l2")))
    5.0...
    """
    if wrt == "ik":
        return log_ik
    if wrt == "kj":
        return log_kj
    if wrt == "union":
        return jnp.maximum(log_ik, log_kj)
    if wrt == "intersection":
        return jnp.minimum(log_ik, log_kj)
    if wrt == "l1":
        return jnp.logaddexp(log_ik, log_kj)
    return jnp.logaddexp(2 * log_ik, 2 * log_kj) / 2


def region_contains(
    margin_ik: ArrayLike,
    margin_kj: ArrayLike,
    threshold: ArrayLike,
    *,
    link: Link = logistic,
    wrt: str = "ik",
) -> Bool[Array, "..."]:
    """Tell whether p_ij is M-sensitive at a point (Definition 4).

    Parameters
    ----------
    margin_ik, margin_kj : array_like
        Margins x and y, of shapes that broadcast with `threshold`.
    threshold : array_like
        M > 0; the comparison is strict.
    link : Link
        The link g.
    wrt : {"ik", "kj", "union", "intersection", "l1", "l2"}
        Which sensitivity must exceed M: that to p_ik, to p_kj, either, both, or the L1 or L2
        norm of the gradient.

    Returns
    -------
    bool array

    Raises
    ------
    InputError
        For a threshold that is not a finite number above 0, a NaN margin, or an unknown `wrt`.

    Examples
    --------
    >>> x, y = logistic.margin([0.99, 0.02])
    >>> print(region_contains(x, y, 20.0), region_contains(x, y, 23.0))
    True False
    """
    check_option("wrt", wrt, PAIR_REGIONS)
    check_positive("threshold", threshold, "a threshold M that is a finite number above 0")
    log_ik, log_kj = log_sensitivity(margin_ik, margin_kj, link=link)
    level, log_ik, log_kj = nx.as_floats(threshold, log_ik, log_kj)
    return combined_log_sensitivity(log_ik, log_kj, wrt) > jnp.log(level)


def region_boundary(
    margin_kj: ArrayLike, threshold: ArrayLike, *, link: Link = logistic
) -> Float[Array, "..."]:
    r"""Return the margin of gamma_0: where the sensitivity to p_ik equals M at fixed p_kj (Eq. 5).

    Parameters
    ----------
    margin_kj : array_like
        The margin y of p_kj.
    threshold : array_like
        M > 0.
    link : Link
        The link g, symmetric with a density that falls on either side of 0.

    Returns
    -------
    array
        The margin x of gamma_0. The region lies beyond it, away from -y/2: above it for y < 0,
        below it for y > 0 (Eq. 5's two cases). NaN where no boundary exists: for the logistic
        link unless \|y\| > \|log M\|. For links with power tails (cauchit, Student-t) the region
        ends again further out; :func:`region_boundaries` returns both ends.

    Raises
    ------
    InputError
        For a threshold that is not a finite number above 0.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Eq. 5, there as a probability gamma_0 whose printed form is
    0/0 at p_kj = 1/2.

    Examples
    --------
    >>> y = logistic.margin(0.02)
    >>> print(round(float(logistic.probability(region_boundary(y, 20.0))), 4))
    0.9882
    """
    return region_boundaries(margin_kj, threshold, link=link)[0]


def region_boundaries(
    margin_kj: ArrayLike, threshold: ArrayLike, *, link: Link = logistic
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return both ends of the region in margin_ik at fixed margin_kj: the near and the far one.

    Parameters, errors and source are those of :func:`region_boundary`.

    Returns
    -------
    near, far : array
        `far` is -inf (y > 0) or inf (y < 0) where the region has no far end, as for links with
        exponential or lighter tails; both are NaN where there is no boundary. For M < 1 and power
        tails the roles swap: the points *between* the ends are the ones that are not sensitive.

    Examples
    --------
    >>> from jaxpref.links import cauchit
    >>> near, far = region_boundaries(3.0, 4.0, link=cauchit)
    >>> print(round(float(near), 3), round(float(far), 3))
    -2.268 -5.732
    """
    check_positive("threshold", threshold, "a threshold M that is a finite number above 0")
    y, level = nx.as_floats(margin_kj, threshold)
    y, level = jnp.broadcast_arrays(y, level)
    if not link.symmetric:
        raise InputError(f"link: expected a symmetric link; got {link!r}")
    size, sign = jnp.abs(y), jnp.where(y < 0, -1.0, 1.0).astype(y.dtype)
    near, far = link.sensitive_ends(size, jnp.log(level))
    return sign * near, sign * far


# How high a sensitivity can get --------------------------------------------------------------


class Witness(NamedTuple):
    """A margin beyond which Theorem 1 holds, and the margin of p_kj that shows it.

    Attributes
    ----------
    margin_0 : array
        The margin of p_0: beyond it, for every p_ik, some p_kj is M-sensitive.
    margin_ik, margin_kj : array
        A margin beyond margin_0 and the one that goes with it: x and delta - x.
    log_sensitivity : array
        log dp_ij/dp_ik there: above log M.
    """

    margin_0: Float[Array, "..."]
    margin_ik: Float[Array, "..."]
    margin_kj: Float[Array, "..."]
    log_sensitivity: Float[Array, "..."]


def theorem_1_witness(
    threshold: ArrayLike, *, link: Link = logistic, beyond: ArrayLike = 1.0
) -> Witness:
    """Return p_0 and, for a p_ik beyond it, the p_kj at which p_ij is M-sensitive (Theorem 1).

    The proof's choice with delta = 0: p_kj = 1 - p_ik makes p_ij = 1/2, where the density is at
    its peak, and dp_ij/dp_ik = g'(0)/g'(x) exceeds M as soon as g'(x) < g'(0)/M.

    Parameters
    ----------
    threshold : array_like
        M > 0.
    link : Link
        Symmetric, with a density that falls on either side of 0 and vanishes at infinity.
    beyond : array_like
        How far beyond p_0 to go, in margins, above 0.

    Returns
    -------
    Witness
        All margins; ``link.probability`` turns them into p_0, p_ik and p_kj.

    Raises
    ------
    InputError
        For a threshold or `beyond` that is not a finite number above 0, or an asymmetric link.

    Notes
    -----
    As printed, Theorem 1 names one p_kj for all p_ik > p_0. That is true of the logistic, probit
    and Laplace links at a suitable p_kj; for cauchit and Student-t it is not: at fixed p_kj the
    sensitivity returns to 1 as p_ik goes to 1. The p_kj of the proof depends on p_ik, as here.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Theorem 1 and its proof.

    Examples
    --------
    >>> from jaxpref.links import cauchit
    >>> witness = theorem_1_witness(20.0, link=cauchit)
    >>> bool(region_contains(witness.margin_ik, witness.margin_kj, 20.0, link=cauchit))
    True
    """
    check_positive("threshold", threshold, "a threshold M that is a finite number above 0")
    check_positive("beyond", beyond, "a distance that is a finite number above 0")
    if not link.symmetric:
        raise InputError(f"link: expected a symmetric link; got {link!r}")
    level, distance = nx.as_floats(threshold, beyond)
    margin_0 = link.level_radius(jnp.zeros_like(level), -jnp.log(jnp.maximum(level, 1.0)))
    x = margin_0 + distance
    return Witness(margin_0, x, -x, link.log_density_ratio(x, -x))


def peak_log_sensitivity(
    margin_ik: ArrayLike, *, link: Link = logistic
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return the largest log dp_ij/dp_ik over all p_kj at a given p_ik, and where it is reached.

    log g'(0) - log g'(x), at p_kj = 1 - p_ik: the odds of the third preference are then even.

    Parameters
    ----------
    margin_ik : array_like
        The margin x of p_ik.
    link : Link
        Symmetric, with its density's peak at 0.

    Returns
    -------
    log_sensitivity, margin_kj : array
        At least 0; -x. For the logistic link the peak is 1/(4 p_ik (1 - p_ik)).

    Raises
    ------
    InputError
        If a margin is NaN.

    Examples
    --------
    >>> peak, _ = peak_log_sensitivity(logistic.margin(0.99))
    >>> print(round(float(jnp.exp(peak)) * 4 * 0.99 * 0.01, 6))
    1.0
    """
    check_not_nan("margin_ik", margin_ik)
    x = nx.as_float(margin_ik)
    return link.log_density_ratio(x, -x), -x


# Areas in closed form -----------------------------------------------------------------------


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
    in float64 and 2e-6 in float32 for M from 1e-3 to 1e8, where the printed form has lost every
    digit (it loses about 3 M^2 rounding errors). For M < 1 it is artanh(sqrt M)/sqrt M - artanh M.
    Laplace, "ik": 1/(3 M^2) for M >= 1 and 1 - 2M/3 below.

    Examples
    --------
    >>> from jaxpref.links import laplace
    >>> float(closed_form_area(jnp.asarray(2.0), link=laplace, wrt="ik"))  # 1/12
    0.0833...
    """
    if link.name == "logistic":
        return _logistic_area(threshold, wrt)
    if link.name == "laplace":
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
    slope = (near - 1) / (root * (1 + root))
    head = slope * jnp.log(gap) / 2 + jnp.log1p(root) / root - jnp.log1p(near) / 2
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
    """Return dA/dM = 1/(2M(M+1)) - artanh(1/sqrt M)/(2 M^1.5) (artanh sqrt M below 1)."""
    far = level > 2.5
    near = jnp.where(far, 1.0, level)
    root = jnp.sqrt(near)
    # artanh of the smaller of root and 1/root, with |M - 1| kept whole near M = 1.
    artanh = jnp.log1p(root) - jnp.log(jnp.abs(near - 1)) / 2
    head = (1 / (near + 1) - artanh / root) / (2 * near)
    u = 1 / jnp.where(far, level, 4.0)
    total = jnp.zeros_like(u)
    for k in range(43, 0, -1):
        total = (total + 1 / (2 * k + 1)) * u
    return jnp.where(far, -(u * u) / 2 * (total + u / (1 + u)), head)


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


# Plackett-Luce ------------------------------------------------------------------------------


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
    meet = 2 * alpha / (root + jnp.sqrt(c + 4 * alpha * (alpha - 1)))
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
    check_between("alpha", alpha, 1.0, what="a number above 1 (Eq. 10)", open_low=True)
    check_probability("beta", beta)
    alpha, beta = nx.as_floats(alpha, beta)
    third_over_first = alpha - 1
    ratio = beta * third_over_first / (1 - beta)
    others = third_over_first / (1 + ratio + third_over_first)
    return ratio, (others / (1 + ratio), others * ratio / (1 + ratio))
