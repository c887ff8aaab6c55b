"""Slow, obvious versions of what the package computes, in 60-digit arithmetic.

Nothing here imports jaxpref.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath as mp

DIGITS = 60


class LinkReference(NamedTuple):
    """g and log g' of a link, as functions of an mpmath number."""

    probability: Callable[[Any], Any]
    log_density: Callable[[Any], Any]


def _student_t(degrees: float) -> LinkReference:
    nu = mp.mpf(degrees)
    half = mp.mpf(1) / 2
    log_norm = mp.loggamma((nu + 1) / 2) - mp.loggamma(nu / 2) - mp.log(nu * mp.pi) / 2

    def probability(x: Any) -> Any:
        if x == 0:
            return half
        tail = mp.betainc(nu / 2, half, 0, nu / (nu + x * x), regularized=True) / 2
        return tail if x < 0 else 1 - tail

    return LinkReference(probability, lambda x: log_norm - (nu + 1) / 2 * mp.log1p(x * x / nu))


def link_reference(name: str) -> LinkReference:
    """Return the reference of a shipped link by the name it prints."""
    if name.startswith("student_t("):
        return _student_t(float(name[len("student_t(") : -1]))
    table = {
        "logistic": LinkReference(
            lambda x: 1 / (1 + mp.exp(-x)), lambda x: -x - 2 * mp.log1p(mp.exp(-x))
        ),
        "probit": LinkReference(
            lambda x: mp.erfc(-x / mp.sqrt(2)) / 2, lambda x: -x * x / 2 - mp.log(2 * mp.pi) / 2
        ),
        "cauchit": LinkReference(
            lambda x: mp.atan2(1, -x) / mp.pi, lambda x: -mp.log(mp.pi) - mp.log1p(x * x)
        ),
        "laplace": LinkReference(
            lambda x: mp.exp(x) / 2 if x < 0 else 1 - mp.exp(-x) / 2, lambda x: -abs(x) - mp.log(2)
        ),
    }
    return table[name]


def log_sensitivity(name: str, x: Any, y: Any) -> tuple[Any, Any]:
    """Return log dp_ij/dp_ik and log dp_ij/dp_kj, Eq. 2 as printed."""
    log_density = link_reference(name).log_density
    x, y = mp.mpf(x), mp.mpf(y)
    return log_density(x + y) - log_density(x), log_density(x + y) - log_density(y)


def implied_probability(p_ik: Any, p_kj: Any) -> Any:
    """Return Eq. 3 as printed."""
    p, q = mp.mpf(p_ik), mp.mpf(p_kj)
    return 1 / (1 + (1 - p) * (1 - q) / p / q)


def bradley_terry_sensitivity(p_ik: Any, p_kj: Any) -> Any:
    """Return Eq. 4 as printed."""
    p, q = mp.mpf(p_ik), mp.mpf(p_kj)
    return q * (1 - q) / (p + q - 2 * p * q - 1) ** 2


def gamma_0(p_kj: Any, threshold: Any) -> Any:
    """Return gamma_0 of Eq. 5 as printed."""
    q, m = mp.mpf(p_kj), mp.mpf(threshold)
    return 1 - (mp.sqrt((1 / q - 1) / m) - 1) / (1 / q - 2)


def bradley_terry_area(threshold: Any) -> Any:
    """Return Proposition 1 as printed for M > 1, and its continuation below 1."""
    m = mp.mpf(threshold)
    root = mp.sqrt(m)
    if m == 1:
        return mp.log(2) / 2
    if m > 1:
        return mp.log((m - 1) / (m + 1)) / 2 + mp.log((root + 1) / (root - 1)) / (2 * root)
    return mp.atanh(root) / root - mp.atanh(m)


def plackett_luce_probability(scores: list[Any]) -> Any:
    """Return Eq. 6 as printed."""
    total = mp.mpf(1)
    for u in range(len(scores) - 1):
        total /= 1 + mp.fsum(mp.exp(-(mp.mpf(scores[u]) - mp.mpf(s))) for s in scores[u + 1 :])
    return total


def plackett_luce_sensitivity(
    scores: list[float], u: int, v: int, prefix: list[float]
) -> tuple[Any, Any]:
    """Return Eq. 9 with alpha and beta of Eq. 10, every term as printed (u, v 0-based)."""

    def pair(first: int, second: int) -> Any:
        return plackett_luce_probability([*prefix, scores[first], scores[second]])

    def ratio(first: int, second: int) -> Any:
        # p_{omega_{first second}} / p_{omega_{second first}} = exp(s_first - s_second), Eq. 8
        return mp.exp(mp.mpf(scores[first]) - mp.mpf(scores[second]))

    size = len(scores)
    alpha = 1 + mp.fsum(ratio(t, u) for t in range(u + 1, size) if t != v)
    beta = mp.mpf(1)
    for stage in range(size - 1):
        if stage != u:
            beta /= 1 + mp.fsum(ratio(m, stage) for m in range(stage + 1, size))
    a, b = pair(u, v), pair(v, u)
    return b / (alpha * a + b) ** 2 * beta, -a / (alpha * a + b) ** 2 * beta
