"""Parts of bench_regions: quadrature against 30-digit areas, and against scipy's dblquad."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
from scipy.integrate import dblquad
from scipy.special import stdtrit

import jaxpref as jp
from jaxpref.integrate.quadrature import _area_function, double_exponential_rule
from jaxpref.links import Link

LINKS = {
    link.name: link
    for link in (
        jp.links.logistic,
        jp.links.probit,
        jp.links.cauchit,
        jp.links.laplace,
        jp.links.student_t(3),
        jp.links.student_t(10),
    )
}
WRT = ("ik", "kj", "union", "intersection", "l1", "l2")
LEVELS = np.geomspace(1.01, 1e4, 9)
# What dblquad is asked for: its default, and a loose tolerance that stops it early.
TOLERANCES = {"default (1.5e-8)": 1.49e-8, "loose (1e-3)": 1e-3}


def seconds(function: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def summary(values: list[float]) -> dict[str, float]:
    """Return the median and the range of some ratios."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


# Accuracy -------------------------------------------------------------------------------------


def exact_area(name: str, m: float) -> float:
    """Return A(M), M > 1, with 30 digits: a closed form, or mpmath's tanh-sinh of the definition.

    A(M) = 2 int g'(x) [T(x - r) - T(x + r)] dx from x_M, T the upper tail and g'(r) = M g'(x);
    x = x_M + s^2 removes the square root at the lower end. Nothing here is the package's.
    """
    with mp.workdps(40):
        m = mp.mpf(m)
        if name == "logistic":
            root = mp.sqrt(m)
            return float(mp.atanh(1 / root) / root - mp.atanh(1 / m))
        if name == "laplace":
            return float(1 / (3 * m * m))
        density, tail, radius, start = _pieces(name, m)

        def integrand(s):
            x = start + s * s
            r = radius(x)
            return 2 * s * density(x) * (tail(x - r) - tail(x + r))

        whole: Any = mp.quad(integrand, [0, 1, 4, 16, 1000, mp.inf])
        return float(2 * whole)


def _pieces(name: str, m):
    """Return the density, the upper tail, r(x) and x_M."""
    if name == "probit":
        start = mp.sqrt(2 * mp.log(m))
        return mp.npdf, _normal_tail, lambda x: mp.sqrt(abs(x * x - start * start)), start
    nu = mp.mpf(1) if name == "cauchit" else mp.mpf(name[len("student_t(") : -1])
    power = m ** (2 / (nu + 1))
    peak = mp.gamma((nu + 1) / 2) / (mp.sqrt(nu * mp.pi) * mp.gamma(nu / 2))

    def tail(x):
        half = mp.betainc(nu / 2, mp.mpf(1) / 2, 0, nu / (nu + x * x), regularized=True) / 2
        return half if x > 0 else 1 - half

    return (
        lambda x: peak * (1 + x * x / nu) ** (-(nu + 1) / 2),
        _TAILS.get(name, tail),
        lambda x: mp.sqrt(nu * abs((1 + x * x / nu) / power - 1)),
        mp.sqrt(nu * (power - 1)),
    )


def _normal_tail(x):
    return mp.erfc(x / mp.sqrt(2)) / 2


def _student_3_tail(x):
    t = x / mp.sqrt(3)
    return (mp.atan2(1, t) - t / (1 + t * t)) / mp.pi


_TAILS = {"cauchit": lambda x: mp.atan2(1, x) / mp.pi, "student_t(3)": _student_3_tail}


def finer_area(link: Link, levels: jax.Array, wrt: str) -> jax.Array:
    """Return areas by the package's rule with three times the nodes, at other places."""
    area, rule = _area_function(link, wrt), double_exponential_rule(0.017, levels.dtype)
    return jax.jit(lambda levels: jax.lax.map(lambda m: area(m, rule)[0], levels))(levels)


def accuracy() -> list[dict]:
    """Return the largest relative errors of each link over M from 1.01 to 1e4."""
    rows = []
    for name, link in LINKS.items():
        got = jp.region_area(LEVELS, link=link, method="quadrature")
        exact = np.array([exact_area(name, m) for m in LEVELS])
        error = np.abs(np.asarray(got.area) - exact)
        finer, statuses = 0.0, {got.status}
        for wrt in WRT[2:]:
            other = jp.region_area(LEVELS, link=link, wrt=wrt, method="quadrature")
            fine = finer_area(link, jnp.asarray(LEVELS), wrt)
            finer = max(finer, float(jnp.max(jnp.abs(other.area / fine - 1))))
            statuses.add(other.status)
        rows.append(
            {
                "link": name,
                "largest_relative_error": float((error / exact).max()),
                "largest_error_over_reported": float((error / np.asarray(got.error)).max()),
                "largest_relative_change_with_3x_nodes_other_wrt": finer,
                "status": ", ".join(sorted(statuses)),
            }
        )
    return rows


# Speed ----------------------------------------------------------------------------------------


def indicator(name: str, m: float) -> Callable[[float, float], float]:
    """Return 1 where dp_ij/dp_ik > M, in plain Python and as cheap as it can be made there."""
    level, normal = math.log(m), NormalDist().inv_cdf

    def logistic(p: float, q: float) -> float:
        denominator = p * q + (1 - p) * (1 - q)
        return 1.0 if q * (1 - q) > m * denominator * denominator else 0.0

    def probit(p: float, q: float) -> float:
        x = normal(p)
        z = x + normal(q)
        return 1.0 if x * x - z * z > 2 * level else 0.0

    def laplace(p: float, q: float) -> float:
        x = math.log(2 * p) if p < 0.5 else -math.log(2 * (1 - p))
        y = math.log(2 * q) if q < 0.5 else -math.log(2 * (1 - q))
        return 1.0 if abs(x) - abs(x + y) > level else 0.0

    def cauchit(p: float, q: float) -> float:
        x = math.tan(math.pi * (p - 0.5))
        z = x + math.tan(math.pi * (q - 0.5))
        return 1.0 if 1 + x * x > m * (1 + z * z) else 0.0

    def student(nu: float, p: float, q: float) -> float:
        x = float(stdtrit(nu, p))
        z = x + float(stdtrit(nu, q))
        return (
            1.0
            if (1 + x * x / nu) ** ((nu + 1) / 2) > m * (1 + z * z / nu) ** ((nu + 1) / 2)
            else 0.0
        )

    named = {"logistic": logistic, "probit": probit, "laplace": laplace, "cauchit": cauchit}
    if name in named:
        return named[name]
    return partial(student, float(name[len("student_t(") : -1]))


def speed(rounds: int, m: float = 2.0) -> list[dict]:
    """Return, for each link, how many times faster than dblquad one threshold's quadrature is.

    In turns; a round's time of ours is the mean of five calls of the public function.
    """
    rows = []
    for name in ("logistic", "probit", "cauchit", "laplace", "student_t(3)"):
        first = seconds(lambda name=name: jp.region_area(m, link=LINKS[name], method="quadrature"))
        for asked, tolerance in TOLERANCES.items():
            if name.startswith("student") and tolerance < 1e-4:
                continue  # minutes a call
            rows.append(_race(name, m, asked, tolerance, rounds) | {"ours_first_ms": 1e3 * first})
    return rows


def _race(name: str, m: float, asked: str, tolerance: float, rounds: int) -> dict:
    found, exact = {}, exact_area(name, m)

    def ours() -> None:
        found["ours"] = jp.region_area(m, link=LINKS[name], method="quadrature")
        found["ours"].area.block_until_ready()

    def peer() -> None:
        found["peer"] = _dblquad(indicator(name, m), tolerance)

    times = [(sum(seconds(ours) for _ in range(5)) / 5, seconds(peer)) for _ in range(rounds)]
    return {
        "link": name,
        "threshold": m,
        "dblquad_asked_for": asked,
        "ratio": summary([b / a for a, b in times]),
        "rounds": rounds,
        "ours_ms": 1e3 * statistics.median(a for a, _ in times),
        "dblquad_ms": 1e3 * statistics.median(b for _, b in times),
        "ours_relative_error": abs(float(found["ours"].area) / exact - 1),
        "dblquad_relative_error": abs(found["peer"][0] / exact - 1),
        "ours_status": found["ours"].status,
        "dblquad_status": found["peer"][1],
    }


def _dblquad(inside: Callable[[float, float], float], tolerance: float) -> tuple[float, str]:
    """Return dblquad's value, and whether it warned that it missed its tolerance."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = dblquad(inside, 0, 1, 0, 1, epsabs=tolerance, epsrel=tolerance)[0]
    return value, f"{len(caught)} warnings" if caught else "no warning"
