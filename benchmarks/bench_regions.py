"""Areas of sensitive regions: accuracy, speed and honesty of the error, against SciPy and NumPy.

    python benchmarks/bench_regions.py [--full] [--out benchmarks/results]

One run, one machine, both sides in turns; ratios are medians over rounds with their spread, and
compilation is timed apart. The same script runs on a GPU unchanged. `--full` counts 1e10 lattice
points where the default counts 1e9.

FLOP of one lattice point, logistic link, one partial: 2 integer additions, 2 conversions with a
multiplication and an addition each, 2 subtractions for the complements, and 7 for
q (1 - q) > M (p q + (1 - p)(1 - q))^2 with its comparison: 15 operations.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import scipy
from scipy.integrate import dblquad

import jaxpref as jp
from jaxpref.integrate.quadrature import _area_function, double_exponential_rule
from jaxpref.report.files import write_text

LINKS = {
    link.name: link
    for link in (
        jp.links.logistic,
        jp.links.probit,
        jp.links.cauchit,
        jp.links.laplace,
        jp.links.student_t(3),
    )
}
WRT = ("ik", "kj", "union", "intersection", "l1", "l2")
FLOP_PER_POINT = 15


def seconds(function: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratios(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> dict:
    """Return the median and spread of peer time over ours, in turns."""
    pairs = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    values = [b / a for a, b in pairs]
    return {
        "ratio_median": statistics.median(values),
        "ratio_min": min(values),
        "ratio_max": max(values),
        "rounds": rounds,
    }


# Accuracy of the quadrature -----------------------------------------------------------------


def exact_area(name: str, m: float) -> float:
    """Return A(M) with 30 digits: closed forms, or the defining integral by mpmath's tanh-sinh."""
    with mp.workdps(40):
        m = mp.mpf(m)
        if name == "logistic":
            root = mp.sqrt(m)
            return float(mp.atanh(1 / root) / root - mp.atanh(1 / m))
        if name == "laplace":
            return float(1 / (3 * m * m))
        density, tail, radius = _pieces(name, m)
        # The substitution x = x_M + s^2 removes the square root at the lower end.
        start = {"probit": lambda: mp.sqrt(2 * mp.log(m))}.get(
            name, lambda: mp.sqrt(_power(name, m) - 1)
        )()
        scale = 1 if name in ("probit", "cauchit") else mp.sqrt(3)

        def integrand(s):
            x = scale * start + s * s
            r = radius(x)
            return 2 * s * density(x) * (tail(x - r) - tail(x + r))

        return float(2 * mp.quad(integrand, [0, 1, 4, 16, 1000, mp.inf]))


def _power(name: str, m):
    return m if name == "cauchit" else mp.sqrt(m)


def _pieces(name: str, m):
    """Return the density, the upper tail and r(x), written independently of the package."""
    if name == "probit":
        return (
            mp.npdf,
            lambda x: mp.erfc(x / mp.sqrt(2)) / 2,
            (lambda x: mp.sqrt(abs(x * x - 2 * mp.log(m)))),
        )
    if name == "cauchit":
        return (
            lambda x: 1 / (mp.pi * (1 + x * x)),
            lambda x: mp.atan2(1, x) / mp.pi,
            lambda x: mp.sqrt(abs((1 + x * x) / m - 1)),
        )

    def tail(x):  # Student's t with three degrees of freedom
        t = x / mp.sqrt(3)
        return (mp.atan2(1, t) - t / (1 + t * t)) / mp.pi

    return (
        lambda x: 2 / (mp.pi * mp.sqrt(3) * (1 + x * x / 3) ** 2),
        tail,
        lambda x: mp.sqrt(3 * abs((1 + x * x / 3) / mp.sqrt(m) - 1)),
    )


def quadrature_accuracy() -> list[dict]:
    """Return the largest relative error for each link over M from 1.01 to 1e4."""
    levels = np.geomspace(1.01, 1e4, 9)
    rows = []
    for name, link in LINKS.items():
        got = jp.region_area(levels, link=link, method="quadrature")
        exact = np.array([exact_area(name, m) for m in levels])
        error = np.abs(np.asarray(got.area) - exact)
        rows.append(
            {
                "link": name,
                "largest_relative_error": float((error / exact).max()),
                "largest_error_over_reported": float((error / np.asarray(got.error)).max()),
                "status": got.status,
            }
        )
    return rows


def quadrature_speed(rounds: int) -> list[dict]:
    """Return the speed over scipy's dblquad of the same indicator, and what that reaches."""
    rows = []
    for name in ("logistic", "probit", "cauchit"):
        link, m = LINKS[name], 2.0
        inside = jax.jit(lambda p, q, link=link, m=m: _indicator(link, p, q, m))
        area = jax.jit(lambda m, link=link: jp.region_area(m, link=link, method="quadrature").area)
        float(inside(0.5, 0.5)), float(area(m))
        found: list[float] = []

        def peer(inside=inside, found=found) -> None:
            value = dblquad(lambda p, q: float(inside(p, q)), 0, 1, 0, 1, epsabs=1e-3, epsrel=1e-3)
            found.append(value[0])

        row = ratios(lambda area=area, m=m: area(m).block_until_ready(), peer, rounds)
        exact = exact_area(name, m)
        row |= {"link": name, "threshold": m, "dblquad_relative_error": abs(found[-1] / exact - 1)}
        row["quadrature_relative_error"] = abs(float(area(m)) / exact - 1)
        rows.append(row)
    return rows


def _indicator(link, p, q, m):
    ik, _ = jp.log_sensitivity(link.margin(p), link.margin(q), link=link)
    return (ik > jnp.log(m)).astype(jnp.float64)


# The lattice ----------------------------------------------------------------------------------


def numpy_monte_carlo(points: int, m: float, rng: np.random.Generator) -> float:
    """Return the area by NumPy's generator, in chunks that fit a cache, without a division."""
    hits, chunk = 0, 1 << 16
    for _ in range(points // chunk):
        p, q = rng.random((2, chunk), np.float32)
        denominator = p * q + (1 - p) * (1 - q)
        hits += np.count_nonzero(q * (1 - q) > m * denominator * denominator)
    return hits / points


def lattice_speed(rounds: int) -> dict:
    """Return points per second over NumPy's, and the root mean square errors at 2^24 points."""
    points, m = 1 << 26, np.float32(2.0)
    rng = np.random.default_rng(0)
    jp.region_area(m, method="lattice", samples=points)
    row = ratios(
        lambda: jp.region_area(m, method="lattice", samples=points),
        lambda: numpy_monte_carlo(points, float(m), rng),
        rounds,
    )
    exact, few = float(jp.region_area(2.0).area), 1 << 24
    ours = [
        float(jp.region_area(m, method="lattice", samples=few, key=jax.random.key(k)).area) - exact
        for k in range(12)
    ]
    peer = [numpy_monte_carlo(few, 2.0, rng) - exact for _ in range(6)]
    rms = [float(np.sqrt(np.mean(np.square(v)))) for v in (ours, peer)]
    row |= {"points": points, "rms_error_lattice": rms[0], "rms_error_numpy": rms[1]}
    row["error_ratio"] = rms[1] / rms[0]
    return row


def lattice_memory(points: int) -> dict:
    """Return how far the peak memory rises between 1e8 points and `points`, and the throughput."""

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    jp.region_area(np.float32(2.0), method="lattice", samples=10**8)
    before = peak()
    start = time.perf_counter()
    estimate = jp.region_area(np.float32(2.0), method="lattice", samples=points)
    elapsed = time.perf_counter() - start
    return {
        "points": points,
        "peak_rise_mib": peak() - before,
        "error": abs(float(estimate.area) - float(jp.region_area(2.0).area)),
        "reported_error": float(estimate.error),
        "points_per_second": points / elapsed if jax.default_backend() != "cpu" else None,
        "share_of_arithmetic_peak": _share_of_peak(points / elapsed),
    }


def _share_of_peak(points_per_second: float) -> float:
    """Return FLOP/s over the machine's, as a fused multiply-add kernel in registers reaches it."""
    size, steps = (1 << 16, 4096) if jax.default_backend() == "cpu" else (1 << 22, 4096)

    def kernel(x):
        return jax.lax.fori_loop(0, steps, lambda _, v: v * 1.000001 + 1e-7, x)

    x = jnp.ones((os.cpu_count() or 1, size // 8), jnp.float32)
    run = jax.jit(kernel)
    run(x).block_until_ready()
    best = min(seconds(lambda: run(x).block_until_ready()) for _ in range(5))
    return points_per_second * FLOP_PER_POINT / (2 * steps * x.size / best)


# Honest errors --------------------------------------------------------------------------------


def honest_errors(cases: int) -> dict:
    """Return the share of random (link, M, wrt) whose true error is within 3 reported ones."""
    rng = np.random.default_rng(0)
    per_pair = -(-cases // (len(LINKS) * len(WRT)))
    within = {"auto": [], "lattice": []}
    for name, link in LINKS.items():
        for wrt in WRT:
            levels = jnp.asarray(10 ** rng.uniform(-0.5, 3, per_pair))
            true = _fine_area(link, levels, wrt)
            for method in within:
                if method == "lattice" and name.startswith("student"):
                    continue  # its inverse is a root search: minutes for nothing new
                got = jp.region_area(
                    levels,
                    link=link,
                    wrt=wrt,
                    method=method,
                    samples=1 << 19,
                    key=jax.random.key(int(rng.integers(1 << 30))),
                )
                within[method] += (jnp.abs(got.area - true) <= 3 * got.error).tolist()
    return {
        method: {"cases": len(values), "within_3_errors": float(np.mean(values))}
        for method, values in within.items()
    }


def _fine_area(link, levels, wrt: str):
    """Return the area by a rule with three times the nodes, at other places."""
    area, rule = _area_function(link, wrt), double_exponential_rule(0.017, levels.dtype)
    return jax.jit(lambda levels: jax.lax.map(lambda m: area(m, rule)[0], levels))(levels)


def markdown(result: dict) -> str:
    """Return the result as tables."""
    lines = ["# Areas of sensitive regions", "", "## Quadrature", ""]
    lines += ["| link | largest relative error, M 1.01 to 1e4 | over the reported error | status |"]
    lines += ["|---|---|---|---|"]
    for row in result["quadrature_accuracy"]:
        lines.append(
            f"| {row['link']} | {row['largest_relative_error']:.1e} | "
            f"{row['largest_error_over_reported']:.2f} | {row['status']} |"
        )
    lines += ["", "| link | faster than dblquad (spread) | our error | dblquad's error |"]
    lines += ["|---|---|---|---|"]
    for row in result["quadrature_speed"]:
        lines.append(
            f"| {row['link']} | {row['ratio_median']:.0f} ({row['ratio_min']:.0f} to "
            f"{row['ratio_max']:.0f}) | {row['quadrature_relative_error']:.1e} | "
            f"{row['dblquad_relative_error']:.1e} |"
        )
    lattice, memory = result["lattice_speed"], result["lattice_memory"]
    lines += ["", "## Lattice, logistic link, M = 2, float32", ""]
    lines += [
        f"* Points per second over NumPy Monte Carlo: {lattice['ratio_median']:.1f} "
        f"({lattice['ratio_min']:.1f} to {lattice['ratio_max']:.1f}).",
        f"* Error at 2^24 points: {lattice['rms_error_lattice']:.1e} against "
        f"{lattice['rms_error_numpy']:.1e}, {lattice['error_ratio']:.0f} times smaller.",
        f"* {memory['points']:.0e} points: peak memory rises by {memory['peak_rise_mib']:.1f} MiB "
        f"over 1e8 points; {FLOP_PER_POINT} operations a point, "
        f"{memory['share_of_arithmetic_peak']:.0%} of the multiply-add peak measured beside it.",
        "",
        "## Honest errors",
        "",
    ]
    for method, row in result["honest_errors"].items():
        lines.append(
            f"* {method}: true error within 3 reported ones in {row['within_3_errors']:.1%} of "
            f"{row['cases']} random (link, M, wrt)."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every part, print the tables, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    result = {
        "quadrature_accuracy": quadrature_accuracy(),
        "quadrature_speed": quadrature_speed(3),
        "lattice_speed": lattice_speed(5),
        "lattice_memory": lattice_memory(10**10 if options.full else 10**9),
        "honest_errors": honest_errors(210),
        "environment": {
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }
    print(markdown(result))
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "bench_regions.json", json.dumps(result, indent=1) + "\n")
    write_text(options.out / "bench_regions.md", markdown(result))


if __name__ == "__main__":
    main()
