r"""Preference probabilities: pairs under any link, rankings under Plackett-Luce.

A margin is the difference of two scores, m_ij = s_i - s_j. Margins are the native coordinate of
the whole package: a probability within 1e-16 of 1 is 1, a margin of 700 is still a number.

References
----------
Xu and Kankanhalli, "Strong Preferences Affect the Robustness of Preference Models and Value
Alignment", ICLR 2025: Lemma 1 and Eq. 1; Lemma 5 and Eqs. 6-8, 10.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from . import _numerics as nx
from ._checks import ArrayLike, InputError, check_count, check_not_nan, check_probability
from .links import Link, logistic


def win_probability(
    score_i: ArrayLike, score_j: ArrayLike, *, link: Link = logistic
) -> Float[Array, "..."]:
    """Return the probability that item i is preferred to item j: g(s_i - s_j).

    Parameters
    ----------
    score_i, score_j : array_like
        Scores (nats, for the logistic link), of shapes that broadcast.
    link : Link
        The link g.

    Returns
    -------
    array
        In [0, 1]; 1 is reached by rounding only.

    Examples
    --------
    >>> round(float(win_probability(1.0, 0.0)), 6)
    0.731059
    """
    s_i, s_j = nx.as_floats(score_i, score_j)
    return link.probability(s_i - s_j)


def implied_probability(
    p_ik: ArrayLike,
    p_kj: ArrayLike,
    *,
    complement_ik: ArrayLike | None = None,
    complement_kj: ArrayLike | None = None,
    link: Link = logistic,
) -> Float[Array, "..."]:
    """Return the preference of i over j that two others imply: g(g^-1(p_ik) + g^-1(p_kj)) (Eq. 1).

    Parameters
    ----------
    p_ik, p_kj : array_like
        Probabilities strictly between 0 and 1, of shapes that broadcast.
    complement_ik, complement_kj : array_like, optional
        1 - p_ik and 1 - p_kj where they are known better than p can say.
    link : Link
        The link g.

    Returns
    -------
    array
        p_ij in [0, 1].

    Raises
    ------
    InputError
        If a probability (or complement) does not lie strictly between 0 and 1.

    Notes
    -----
    A probability near 1 has lost its complement's digits before it arrives here: in float32
    nothing lies between 1 - 6e-8 and 1. Work with margins (``link.probability(x + y)``) or pass
    the complements where that matters.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Lemma 1; Eq. 3 is the logistic case.

    Examples
    --------
    Example 1 of the paper: a deviation of one percent in one preference moves another from an
    even match to near certainty.

    >>> [round(float(implied_probability(p, 0.02)), 4) for p in (0.9801, 0.99, 0.9999)]
    [0.5013, 0.6689, 0.9951]
    """
    check_probability("p_ik", p_ik)
    check_probability("p_kj", p_kj)
    for name, value in (("complement_ik", complement_ik), ("complement_kj", complement_kj)):
        if value is not None:
            check_probability(name, value)
    x, y = nx.as_floats(link.margin(p_ik, complement_ik), link.margin(p_kj, complement_kj))
    return link.probability(x + y)


def plackett_luce_log_probability(scores: ArrayLike) -> Float[Array, "..."]:
    r"""Return the log probability of a ranking: sum_u -log(1 + sum_{v>u} exp(s_v - s_u)) (Eq. 6).

    Parameters
    ----------
    scores : array_like, shape (..., K)
        Scores (nats) in rank order, best first, K >= 2.

    Returns
    -------
    array, shape (...)
        log p_omega <= 0: about -0 for a ranking in the order of well separated scores, and
        minus the sum of the gaps for one against it. Gaps of hundreds of nats are exact.

    Raises
    ------
    InputError
        If there are fewer than two scores, or one is NaN.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Eq. 6; Plackett (1975), Luce (1959).

    Examples
    --------
    >>> import math
    >>> round(math.exp(plackett_luce_log_probability([0.0, 0.0, 0.0])), 6)  # 1/6
    0.166667
    >>> float(plackett_luce_log_probability([0.0, 200.0]))
    -200.0
    """
    s = check_scores(scores)
    return jnp.sum(stage_log_probabilities(s), axis=-1)


def check_scores(scores: ArrayLike) -> Float[Array, "... K"]:
    """Return scores as a float array of shape (..., K) with K >= 2, none NaN."""
    check_not_nan("scores", scores)
    s = nx.as_float(scores)
    if s.ndim < 1 or s.shape[-1] < 2:
        raise InputError(f"scores: expected shape (..., K) with K >= 2; got shape {s.shape}")
    return s


def stage_log_probabilities(scores: Float[Array, "... K"]) -> Float[Array, "... K-1"]:
    """Return log P(the u-th item is chosen among itself and the later ones), u = 0 .. K-2."""
    rest = lax.cumlogsumexp(scores, axis=scores.ndim - 1, reverse=True)[..., 1:]
    return jax.nn.log_sigmoid(scores[..., :-1] - rest)


def check_pair(scores: Float[Array, "... K"], u: int, v: int) -> tuple[int, int]:
    """Return (u, v) if they are 0-based places with u < v < K."""
    u, v = check_count("u", u, at_least=0), check_count("v", v, at_least=0)
    size = scores.shape[-1]
    if not u < v < size:
        raise InputError(f"u, v: expected 0 <= u < v < K = {size}; got u = {u}, v = {v}")
    return u, v


def plackett_luce_log_probability_from_ratios(log_ratios: ArrayLike) -> Float[Array, "..."]:
    r"""Return log p_omega from the ratios of other rankings' probabilities (Lemma 5, Eq. 7).

    Parameters
    ----------
    log_ratios : array_like, shape (..., K, K)
        Entry [u, v], u < v, holds log(p_{omega_vu} / p_{omega_uv}): how much likelier the
        ranking that ends in v, u is than the one that ends in u, v after the same prefix. Under a
        score model it is s_v - s_u (Eq. 8). The rest of the matrix is not read.

    Returns
    -------
    array, shape (...)
        log p_omega.

    Raises
    ------
    InputError
        If the matrix is not square, smaller than 2 x 2, or holds NaN where it is read.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Lemma 5.

    Examples
    --------
    >>> import numpy as np
    >>> s = np.array([2.0, 1.0, 0.5])
    >>> same = plackett_luce_log_probability(s)
    >>> bool(abs(plackett_luce_log_probability_from_ratios(s[None, :] - s[:, None]) - same) < 1e-6)
    True
    """
    r = nx.as_float(log_ratios)
    if r.ndim < 2 or r.shape[-1] != r.shape[-2] or r.shape[-1] < 2:
        raise InputError(f"log_ratios: expected shape (..., K, K) with K >= 2; got shape {r.shape}")
    later = np.triu(np.ones(r.shape[-2:], bool), k=1)
    check_not_nan("log_ratios", jnp.where(later, r, 0.0))
    rest = jax.nn.logsumexp(jnp.where(later, r, -jnp.inf)[..., :-1, :], axis=-1)
    return jnp.sum(jax.nn.log_sigmoid(-rest), axis=-1)


def plackett_luce_log_alpha_beta(
    scores: ArrayLike, u: int, v: int
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Return log alpha and log beta, what the rest of a ranking contributes (Eq. 10).

    With a = p_{omega_uv} and b = p_{omega_vu}, p_omega = beta a / (alpha a + b).

    Parameters
    ----------
    scores : array_like, shape (..., K)
        Scores (nats) in rank order, best first.
    u, v : int
        0-based places with u < v < K.

    Returns
    -------
    log_alpha : array, shape (...)
        In [0, inf): alpha = 1 + sum_{t > u, t != v} exp(s_t - s_u). It is 0 when no third item
        is left at stage u; the paper's open interval (1, inf) leaves that case out.
    log_beta : array, shape (...)
        In (-inf, 0]: beta is the product of the other stages' probabilities, 1 when K = 2.

    Raises
    ------
    InputError
        For fewer than two scores, NaN, or places out of order or range.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Eq. 10.

    Examples
    --------
    >>> log_alpha, log_beta = plackett_luce_log_alpha_beta([0.0, 0.0, 0.0], 0, 1)
    >>> print(jnp.exp(log_alpha), jnp.exp(log_beta))
    2.0 0.5
    """
    s = check_scores(scores)
    u, v = check_pair(s, u, v)
    others = [t for t in range(u + 1, s.shape[-1]) if t != v]
    stages = stage_log_probabilities(s)
    log_beta = jnp.sum(jnp.delete(stages, u, axis=-1), axis=-1)
    if not others:
        return jnp.zeros_like(log_beta), log_beta
    gaps = jax.nn.logsumexp(s[..., jnp.asarray(others)], axis=-1) - s[..., u]
    return jax.nn.softplus(gaps), log_beta
