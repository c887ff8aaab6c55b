"""Parts of bench_regions: the lattice against NumPy, its memory and throughput, honest errors."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from _regions_quadrature import LINKS, WRT, finer_area, seconds, summary

import jaxpref as jp

# One lattice point, logistic link, one partial, as floating-point operations: a subtraction for
# each of p, q and their complements, three for p q + (1 - p)(1 - q), its square, q (1 - q), times
# M, the comparison, and the addition to the count.
FLOP_PER_POINT = 2 * 2 + 3 + 1 + 1 + 1 + 1 + 1
# Beside them, not floating-point: per coordinate an addition modulo 2^32, a shift and a
# disjunction to make a mantissa; an addition, a comparison and a conjunction for the lattice's
# end, and the choice of 1 or 0.
OTHER_PER_POINT = 2 * 3 + 4
THRESHOLD = np.float32(2.0)


# Against NumPy --------------------------------------------------------------------------------


def numpy_monte_carlo(points: int, m: float, rng: np.random.Generator) -> float:
    """Return the area by NumPy's generator, in chunks that fit a cache, without a division."""
    hits, chunk = 0, 1 << 16
    for _ in range(points // chunk):
        p, q = rng.random((2, chunk), np.float32)
        denominator = p * q + (1 - p) * (1 - q)
        hits += np.count_nonzero(q * (1 - q) > m * denominator * denominator)
    return hits / points


def numpy_on_every_core(points: int, m: float, rngs: list[np.random.Generator]) -> float:
    """Return the same from one thread a core, each with its own generator."""
    share = points // len(rngs)
    with ThreadPoolExecutor(len(rngs)) as pool:
        return float(np.mean(list(pool.map(lambda r: numpy_monte_carlo(share, m, r), rngs))))


def lattice(points: int, key: int = 0) -> jp.AreaEstimate:
    """Return the area at M = 2 by the package's lattice, in float32."""
    return jp.region_area(THRESHOLD, method="lattice", samples=points, key=jax.random.key(key))


def speed(rounds: int) -> dict:
    """Return points per second over NumPy's on one thread and on all, in turns."""
    points, m = 1 << 28, float(THRESHOLD)
    rngs = np.random.default_rng(0).spawn(os.cpu_count() or 1)
    jax.clear_caches()
    first = seconds(lambda: lattice(points))
    sides: tuple[Callable[[], object], ...] = (
        lambda: lattice(points),
        lambda: numpy_monte_carlo(points, m, rngs[0]),
        lambda: numpy_on_every_core(points, m, rngs),
    )
    times = np.array([[seconds(side) for side in sides] for _ in range(rounds)])
    return {
        "points": points,
        "rounds": rounds,
        "ratio_one_thread": summary((times[:, 1] / times[:, 0]).tolist()),
        "ratio_every_core": summary((times[:, 2] / times[:, 0]).tolist()),
        "points_per_second": dict(
            zip(
                ("lattice", "numpy", "numpy_every_core"),
                (points / np.median(times, axis=0)).tolist(),
                strict=True,
            )
        ),
        "first_call_s": first,
    }


def errors(keys: int) -> dict:
    """Return the root mean square errors of both at 2^24 points, over several keys."""
    points, exact = 1 << 24, float(jp.region_area(float(THRESHOLD)).area)
    rngs = np.random.default_rng(1).spawn(keys)
    estimates = [lattice(points, key) for key in range(keys)]
    ours = np.array([float(found.area) - exact for found in estimates])
    peer = np.array([numpy_monte_carlo(points, float(THRESHOLD), r) - exact for r in rngs])
    rms = [float(np.sqrt(np.mean(np.square(v)))) for v in (ours, peer)]
    return {
        "points": points,
        "keys": keys,
        "rms_error_lattice": rms[0],
        "rms_error_numpy": rms[1],
        "ratio": rms[1] / rms[0],
        "reported_error_lattice": float(np.median([found.error for found in estimates])),
        "status": estimates[0].status,
    }


# Memory and throughput ------------------------------------------------------------------------


def peak_memory_mib() -> dict[str, float]:
    """Return the peak of this process, and of the device where it keeps count."""
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peak["device"] = stats["peak_bytes_in_use"] / 2**20
    return peak


def memory(largest: int) -> list[dict]:
    """Return the peak memory after lattices of growing size: run it first in a process."""
    exact, rows = float(jp.region_area(float(THRESHOLD)).area), []
    jp.region_area(THRESHOLD, method="lattice", samples=10**7)
    for points in [n for n in (10**8, 10**9, 10**10) if n <= largest]:
        found: list[jp.AreaEstimate] = []
        lattice(points)
        elapsed = seconds(lambda n=points, found=found: found.append(lattice(n)))
        rows.append(
            {
                "points": points,
                "peak_mib": peak_memory_mib(),
                "error": abs(float(found[0].area) - exact),
                "reported_error": float(found[0].error),
                "seconds": elapsed,
                "points_per_second": points / elapsed,
            }
        )
    return rows


def throughput(rounds: int) -> dict:
    """Return floating-point operations a second over the machine's own peak, in turns."""
    points = 10**9
    lattice(points)
    kernels = peak_kernels()
    pairs = []
    for _ in range(rounds):
        ours = points * FLOP_PER_POINT / seconds(lambda: lattice(points))
        pairs.append((ours, max(kernel() for kernel in kernels)))
    return {
        "flop_per_point": FLOP_PER_POINT,
        "other_operations_per_point": OTHER_PER_POINT,
        "share_of_peak": summary([a / b for a, b in pairs]),
        "peak_gflops": summary([b / 1e9 for _, b in pairs]),
        "rounds": rounds,
    }


def peak_kernels() -> list[Callable[[], float]]:
    """Return what measures FLOP/s: multiply-adds in registers, and a float32 matrix product."""
    large = jax.default_backend() != "cpu"
    x = jnp.ones(1 << (25 if large else 20), jnp.float32)
    a = jnp.ones((8192 if large else 2048,) * 2, jnp.float32)
    chains, steps = 8, 128

    @jax.jit
    def multiply_add(x: jax.Array) -> jax.Array:
        values = [x + c for c in range(chains)]
        for _ in range(steps):
            values = [v * 1.0001 + 0.5 for v in values]
        return sum(values[1:], values[0])

    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))

    def best(function: Callable, argument: jax.Array, flop: float) -> float:
        times = [seconds(lambda: function(argument).block_until_ready()) for _ in range(6)]
        return flop / min(times[1:])

    return [
        lambda: best(multiply_add, x, 2.0 * chains * steps * x.size),
        lambda: best(product, a, 2.0 * a.shape[0] ** 3),
    ]


# Honest errors --------------------------------------------------------------------------------


def honesty(cases: int) -> dict:
    """Return the share of random (link, M, wrt) whose true error is within 3 reported ones.

    Truth is a rule with three times the nodes: for closed forms another method altogether, and
    for lattices and Monte Carlo too. Student's t inverts its distribution function by a search,
    so there fewer points are counted.
    """
    rng = np.random.default_rng(0)
    links = {name: link for name, link in LINKS.items() if name != "student_t(10)"}
    per_pair = -(-cases // (len(links) * len(WRT)))
    within: dict[str, list[float]] = {
        "auto": [],
        "quadrature": [],
        "lattice": [],
        "monte_carlo": [],
    }
    for name, link in links.items():
        samples = 1 << (13 if name.startswith("student") else 19)
        for wrt in WRT:
            levels = jnp.asarray(10 ** rng.uniform(-0.5, 3, per_pair))
            true = finer_area(link, levels, wrt)
            for method, found in within.items():
                options = {"link": link, "wrt": wrt, "method": method, "samples": samples}
                key = jax.random.key(int(rng.integers(1 << 30)))
                got = jp.region_area(levels, key=key, **options)
                found += (jnp.abs(got.area - true) / got.error).tolist()
    return {
        method: {
            "cases": len(ratios),
            "within_3_errors": float(np.mean(np.asarray(ratios) <= 3)),
            "largest": max(ratios),
        }
        for method, ratios in within.items()
    }
