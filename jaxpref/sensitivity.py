r"""How much one preference probability moves when another does.

The sensitivity of p_ij to p_ik at fixed p_kj is g'(z) / g'(x) with x = m_ik, y = m_kj and
z = x + y. Its logarithm is the primary quantity: it neither overflows nor cancels, and comparing
it with log M is the definition of M-sensitivity (Definition 3).

References
----------
Xu and Kankanhalli, "Strong Preferences Affect the Robustness of Preference Models and Value
Alignment", ICLR 2025: Definition 3, Eqs. 2, 4, 8, 9.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _numerics as nx
from ._checks import LARGEST, ArrayLike, InputError, check_between, check_not_nan
from .links import Link, logistic
from .models import check_pair, check_scores, stage_log_probabilities


def log_sensitivity(
    margin_ik: ArrayLike, margin_kj: ArrayLike, *, link: Link = logistic
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Return log |dp_ij/dp_ik| and log |dp_ij/dp_kj| (Eq. 2; Eq. 4 for the logistic link).

    Parameters
    ----------
    margin_ik, margin_kj : array_like
        Margins x = g^-1(p_ik) and y = g^-1(p_kj) (nats for the logistic link), of shapes that
        broadcast.
    link : Link
        The link g.

    Returns
    -------
    ik, kj : array
        log g'(z) - log g'(x) and log g'(z) - log g'(y), z = x + y. For the logistic link at most
        the absolute value of the margin held fixed; unbounded for the probit link. NaN where the
        margins are infinite and opposite.

    Raises
    ------
    InputError
        If a margin is NaN.

    Notes
    -----
    Accurate to about one rounding error of the result, or of 1 where the result is smaller: the
    sum x + y is not formed where it would be rounded. Both derivatives are positive whatever the
    margins, so the absolute values only mirror the paper's notation.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Eqs. 2 and 4.

    Examples
    --------
    Example 1 of the paper, a point of the 20-sensitive region:

    >>> from jaxpref.links import logistic
    >>> x, y = logistic.margin([0.99, 0.02])
    >>> print(round(float(jnp.exp(log_sensitivity(x, y)[0])), 3))
    22.37

    A point a probability cannot express, 1 - p_ik = exp(-300):

    >>> print(round(float(log_sensitivity(300.0, -300.0)[0]), 3))
    298.614
    """
    check_not_nan("margin_ik", margin_ik)
    check_not_nan("margin_kj", margin_kj)
    x, y = nx.as_floats(margin_ik, margin_kj)
    return link.log_density_ratio(x, y), link.log_density_ratio(y, x)


def sensitivity(
    margin_ik: ArrayLike, margin_kj: ArrayLike, *, link: Link = logistic
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return dp_ij/dp_ik and dp_ij/dp_kj, the exponentials of :func:`log_sensitivity`.

    Parameters, errors and source are those of :func:`log_sensitivity`.

    Returns
    -------
    ik, kj : array
        Positive; inf where the value is beyond the float type's range (the logarithm is not).

    Examples
    --------
    Sensitivity needs *opposite* strong preferences; two that agree damp each other:

    >>> from jaxpref.links import logistic
    >>> print(round(float(sensitivity(*logistic.margin([0.99, 0.98]))[0]), 4))
    0.0208
    """
    ik, kj = log_sensitivity(margin_ik, margin_kj, link=link)
    return jnp.exp(ik), jnp.exp(kj)


def plackett_luce_log_sensitivity(
    scores: ArrayLike, u: int, v: int, *, prefix_scores: ArrayLike | None = None
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Return log |dp_omega/dp_{omega_uv}| and log |dp_omega/dp_{omega_vu}| (Eq. 9).

    omega_uv is a ranking of the same length that ends in the items at places u and v of omega;
    all other pairs' ratios are held fixed.

    Parameters
    ----------
    scores : array_like, shape (..., K)
        Scores (nats) of omega in rank order, best first.
    u, v : int
        0-based places with u < v < K.
    prefix_scores : array_like, shape (..., K - 2) or (K - 2,), optional
        Scores of the items that precede u and v in omega_uv, in their order there; by default
        the rest of omega in omega's order.

    Returns
    -------
    uv, vu : array, shape (...)
        log p_omega - log p_{omega_uv} + log P(v is chosen at stage u), and the same with
        p_{omega_vu}. The first derivative is positive, the second negative.

    Raises
    ------
    InputError
        For fewer than two scores, NaN, places out of order or range, or a prefix of another
        length.

    Notes
    -----
    Every term is a logarithm of a probability, so gaps of hundreds of nats are exact. In a
    score-consistent model alpha, beta, p_{omega_uv} and p_{omega_vu} cannot all vary freely;
    the derivative is the paper's, with the other pairs' ratios held fixed.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Lemma 5, Eqs. 9-10.

    Examples
    --------
    >>> uv, vu = plackett_luce_log_sensitivity([200.0, 0.0, -200.0], 0, 1)
    >>> print(uv, vu)
    200.0 400.0
    """
    s = check_scores(scores)
    u, v = check_pair(s, u, v)
    prefix = _prefix(s, u, v, prefix_scores)
    s_u, s_v = s[..., u : u + 1], s[..., v : v + 1]
    stages = stage_log_probabilities(s)
    log_omega = jnp.sum(stages, axis=-1)
    log_uv = jnp.sum(stage_log_probabilities(jnp.concatenate([prefix, s_u, s_v], -1)), axis=-1)
    log_vu = log_uv + (s_v - s_u)[..., 0]
    log_v_at_u = stages[..., u] + (s_v - s_u)[..., 0]
    return log_omega - log_uv + log_v_at_u, log_omega - log_vu + log_v_at_u


def _prefix(
    s: Float[Array, "... K"], u: int, v: int, given: ArrayLike | None
) -> Float[Array, "... rest"]:
    """Return the scores that precede u and v in omega_uv, of the shape of s but for the last."""
    rest = [t for t in range(s.shape[-1]) if t not in (u, v)]
    shape = (*s.shape[:-1], len(rest))
    if given is None:
        return s[..., jnp.asarray(rest, int)]
    check_not_nan("prefix_scores", given)
    prefix = nx.as_float(given)
    if prefix.shape not in (shape, shape[-1:]):
        listed = f"{shape}" if len(shape) == 1 else f"{shape} or {shape[-1:]}"
        raise InputError(
            f"prefix_scores: expected shape {listed}, the items other than u and v; "
            f"got shape {prefix.shape}"
        )
    return jnp.broadcast_to(prefix.astype(s.dtype), shape)


def plackett_luce_log_sensitivity_in_plane(
    log_p_uv: ArrayLike, log_p_vu: ArrayLike, alpha: ArrayLike, beta: ArrayLike
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Return the log-sensitivities of Eq. 9 with alpha and beta held fixed (Fig. 2's plane).

    Parameters
    ----------
    log_p_uv, log_p_vu : array_like
        log p_{omega_uv} and log p_{omega_vu}, in (-inf, 0).
    alpha : array_like
        At least 1 (Eq. 10).
    beta : array_like
        In (0, 1] (Eq. 10).

    Returns
    -------
    uv, vu : array
        log beta + log b - 2 log(alpha a + b) and log beta + log a - 2 log(alpha a + b), with
        a = p_{omega_uv}, b = p_{omega_vu}.

    Raises
    ------
    InputError
        If alpha < 1, beta is outside (0, 1], or a logarithm is above 0 or NaN.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Eq. 9, Fig. 2.

    Examples
    --------
    >>> uv, _ = plackett_luce_log_sensitivity_in_plane(jnp.log(0.01), jnp.log(0.02), 1.0, 1.0)
    >>> print(round(float(jnp.exp(uv)), 2))
    22.22
    """
    check_alpha_beta(alpha, beta)
    for name, value in (("log_p_uv", log_p_uv), ("log_p_vu", log_p_vu)):
        check_between(name, value, -math.inf, 0.0, what="a logarithm of a probability, at most 0")
    log_a, log_b, alpha, beta = nx.as_floats(log_p_uv, log_p_vu, alpha, beta)
    denominator = 2 * jnp.logaddexp(jnp.log(alpha) + log_a, log_b)
    log_beta = jnp.log(beta)
    return log_beta + log_b - denominator, log_beta + log_a - denominator


def check_alpha_beta(alpha: ArrayLike, beta: ArrayLike) -> None:
    """Require alpha >= 1 and 0 < beta <= 1, the ranges of Eq. 10 with its end points."""
    check_between("alpha", alpha, 1.0, LARGEST, what="a finite number of at least 1 (Eq. 10)")
    check_between("beta", beta, 0.0, 1.0, open_low=True, what="a number in (0, 1] (Eq. 10)")
