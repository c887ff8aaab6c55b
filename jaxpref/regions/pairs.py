r"""Where a pairwise sensitivity exceeds M: membership, boundaries, and how high it can get.

The M-sensitive region (Definition 4) lives in the unit square of (p_ik, p_kj). Membership compares
logarithms, strictly, in margin space.

References
----------
Xu and Kankanhalli, "Strong Preferences Affect the Robustness of Preference Models and Value
Alignment", ICLR 2025: Definitions 3 and 4, Eq. 5, Theorem 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _numerics as nx
from .._checks import ArrayLike, InputError, check_not_nan, check_option, check_positive
from ..links import Link, logistic
from ..sensitivity import log_sensitivity

PAIR_REGIONS = ("ik", "kj", "union", "intersection", "l1", "l2")


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
        For a threshold that is not a finite number above 0, a NaN margin, or an asymmetric link.

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
    check_not_nan("margin_kj", margin_kj)
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
