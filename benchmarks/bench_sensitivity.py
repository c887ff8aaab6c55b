"""Log-sensitivities per second against vectorised NumPy, and their accuracy near dominance.

    python benchmarks/bench_sensitivity.py [--points 1e8] [--rounds 5] [--out benchmarks/results]

Both sides evaluate the same closed form, |x| - |z| + 2 [log1p(e^-|x|) - log1p(e^-|z|)] and its
twin for y, on the same margins, in chunks that fit a cache, in one process, in turns. Only the
ratio is a result: its median over the rounds, with the spread. Compilation is timed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np

import jaxpref as jp
from jaxpref.report.files import write_text

CHUNK = 1 << 20


def numpy_closed_form(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both log-sensitivities, each exponential and logarithm taken once."""
    z = x + y
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    bend_z = 2 * np.log1p(np.exp(-az)) + az
    return (
        ax + 2 * np.log1p(np.exp(-ax)) - bend_z,
        ay + 2 * np.log1p(np.exp(-ay)) - bend_z,
    )


def time_sides(points: int, rounds: int, dtype: str) -> dict:
    """Time both sides in turns over `points` margins; report the ratios of each round."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 5, (2, CHUNK)).astype(dtype)
    chunks = points // CHUNK
    compiled = jax.jit(lambda x, y: jp.log_sensitivity(x, y))
    dx, dy = jnp.asarray(x), jnp.asarray(y)
    start = time.perf_counter()
    jax.block_until_ready(compiled(dx, dy))
    compile_seconds = time.perf_counter() - start

    def jax_side() -> None:
        # One thread a core, each waiting for its own chunk: XLA runs them side by side.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda _: jax.block_until_ready(compiled(dx, dy)), range(chunks)))

    def numpy_side() -> None:
        for _ in range(chunks):
            numpy_closed_form(x, y)

    seconds = {"jaxpref": [], "numpy": []}
    for _ in range(rounds):
        for name, side in (("jaxpref", jax_side), ("numpy", numpy_side)):
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    ratios = [b / a for a, b in zip(seconds["jaxpref"], seconds["numpy"], strict=True)]
    got = np.stack(compiled(dx, dy)).astype(np.float64)
    want = np.stack(numpy_closed_form(x.astype(np.float64), y.astype(np.float64)))
    return {
        "dtype": dtype,
        "points": chunks * CHUNK,
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rounds": rounds,
        "largest_difference": float(np.abs(got - want).max()),
        "compile_over_run": compile_seconds * chunks / statistics.median(seconds["jaxpref"]),
    }


def numpy_side_on_threads(points: int, dtype: str) -> float:
    """Return how much faster NumPy itself is on one thread a core: for the record."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 5, (2, CHUNK)).astype(dtype)
    chunks = points // CHUNK
    start = time.perf_counter()
    for _ in range(chunks):
        numpy_closed_form(x, y)
    alone = time.perf_counter() - start
    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda _: numpy_closed_form(x, y), range(chunks)))
    return alone / (time.perf_counter() - start)


def accuracy_rows() -> list[dict]:
    """Return errors near dominance, 1 - p_ik from 1e-2 to 1e-300 and p_kj at, below and above it.

    The exact value is taken at the very margins each float type holds, with 400 digits.
    """
    rows = []
    for exponent in (2, 4, 7, 9, 12, 16, 30, 100, 300):
        margin = exponent * np.log(10.0)
        for offset in (-3.0, 0.0, 1e-6, 3.0):
            row: dict = {"one_minus_p_ik": f"1e-{exponent}", "offset": offset}
            for dtype in ("float64", "float32"):
                x, y = np.asarray([margin, -margin + offset], dtype)
                got = float(jp.log_sensitivity(x, y)[0])
                with mp.workdps(400):
                    a, b = mp.mpf(float(x)), mp.mpf(float(y))
                    exact = abs(a) - abs(a + b)
                    exact += 2 * (mp.log1p(mp.exp(-abs(a))) - mp.log1p(mp.exp(-abs(a + b))))
                    row["log_sensitivity"] = float(exact)
                    row[f"error_{dtype}"] = float(abs(mp.mpf(got) - exact) / max(1, abs(exact)))
            row["error_from_probabilities_float64"] = _error_from_probabilities(margin, offset)
            rows.append(row)
    return rows


def _error_from_probabilities(margin: float, offset: float) -> float | None:
    """Return what Eq. 4 as printed gives from float64 probabilities; None where it has no value."""
    p = 1 / (1 + np.exp(-margin))
    q = 1 / (1 + np.exp(margin - offset))
    with np.errstate(divide="ignore", invalid="ignore"):
        printed = q * (1 - q) / (p + q - 2 * p * q - 1) ** 2
    if not np.isfinite(printed) or printed <= 0:
        return None
    with mp.workdps(400):
        a, b = mp.mpf(margin), mp.mpf(-margin + offset)
        exact = abs(a) - abs(a + b)
        exact += 2 * (mp.log1p(mp.exp(-abs(a))) - mp.log1p(mp.exp(-abs(a + b))))
        return float(abs(mp.log(printed) - exact) / max(1, abs(exact)))


def environment() -> dict:
    """Return what the numbers depend on."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "device": jax.devices()[0].device_kind,
    }


def markdown(result: dict) -> str:
    """Return the result as tables."""
    lines = ["# Log-sensitivities: speed and accuracy", ""]
    lines += ["Speed over vectorised NumPy, same closed form, in one run:", ""]
    lines += ["| type | points | ratio (median) | spread | largest difference |"]
    lines += ["|---|---|---|---|---|"]
    for row in result["speed"]:
        lines.append(
            f"| {row['dtype']} | {row['points']:.3g} | {row['ratio_median']:.2f} | "
            f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f} | {row['largest_difference']:.1e} |"
        )
    lines += ["", "NumPy spread over one thread a core gains a factor of "]
    lines[-1] += ", ".join(f"{v:.2f} ({k})" for k, v in result["numpy_threads"].items()) + "."
    lines += [
        "",
        "Error of log dp_ij/dp_ik (absolute below 1, relative above), y = offset - x:",
        "",
    ]
    lines += [
        "| 1 - p_ik | offset | log-sensitivity | float64 | float32 | Eq. 4 from p (float64) |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for row in result["accuracy"]:
        printed = row["error_from_probabilities_float64"]
        lines.append(
            f"| {row['one_minus_p_ik']} | {row['offset']:g} | {row['log_sensitivity']:.6g} | "
            f"{row['error_float64']:.1e} | {row['error_float32']:.1e} | "
            f"{'no value' if printed is None else f'{printed:.1e}'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run both parts, print the tables, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=float, default=1e8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    points = int(options.points)
    result = {
        "speed": [time_sides(points, options.rounds, d) for d in ("float32", "float64")],
        "numpy_threads": {d: numpy_side_on_threads(points // 4, d) for d in ("float32", "float64")},
        "accuracy": accuracy_rows(),
        "environment": environment(),
    }
    print(markdown(result))
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "bench_sensitivity.json", json.dumps(result, indent=1) + "\n")
    write_text(options.out / "bench_sensitivity.md", markdown(result))


if __name__ == "__main__":
    main()
