"""Points a second of a region's area on a GPU, logistic link: the lattice, PyTorch and CuPy.

    python benchmarks/gpu_regions.py             # about 2 minutes; writes results/gpu_regions.*
    python benchmarks/gpu_regions.py --smoke     # seconds, anywhere; writes nothing

The lattice of ``region_area(method="lattice")`` at M = 2, in float32, against plain Monte Carlo
of the same test, as one writes it in PyTorch and in CuPy: random numbers, the comparison, a count.
Each side draws in chunks that fit the memory many times. Times are of whole calls that return the
area to the host; sides take turns, ratios are within a round, compiling is apart. The share of the
peak counts the lattice's floating-point operations against the machine's own multiply-adds.

To be reached on an H200: 1e11 points a second, five times PyTorch's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from _gpu import environment, heading, on_gpu, peak_memory, spread, timed, write

THRESHOLD = 2.0


def torch_side(points: int, chunk: int) -> Callable[[], float] | None:
    """Return PyTorch's Monte Carlo, where it is installed."""
    try:
        import torch
    except ImportError:
        return None
    device = "cuda" if torch.cuda.is_available() and on_gpu() else "cpu"

    def run() -> float:
        hits = torch.zeros((), dtype=torch.int64, device=device)
        for _ in range(points // chunk):
            p, q = torch.rand((2, chunk), device=device)
            denominator = p * q + (1 - p) * (1 - q)
            hits += torch.count_nonzero(q * (1 - q) > THRESHOLD * denominator * denominator)
        return float(hits) / (points // chunk * chunk)

    return run


def cupy_side(points: int, chunk: int) -> Callable[[], float] | None:
    """Return CuPy's Monte Carlo, the test fused into one kernel, where it is installed."""
    try:
        import cupy
    except ImportError:
        return None
    if not on_gpu():
        return None

    @cupy.fuse()
    def inside(p: Any, q: Any) -> Any:
        denominator = p * q + (1 - p) * (1 - q)
        return q * (1 - q) > np.float32(THRESHOLD) * denominator * denominator

    generator = cupy.random.default_rng(0)

    def run() -> float:
        hits = cupy.zeros((), cupy.int64)
        for _ in range(points // chunk):
            p, q = generator.random((2, chunk), dtype=cupy.float32)
            hits += cupy.count_nonzero(inside(p, q))
        return float(hits) / (points // chunk * chunk)

    return run


def lattice_side(points: int) -> Callable[[], float]:
    """Return the package's own."""
    import jax

    import jaxpref as jp

    def run() -> float:
        key, level = jax.random.key(0), np.float32(THRESHOLD)
        return float(jp.region_area(level, method="lattice", samples=points, key=key).area)

    return run


def measure(points: int, peer_points: int, chunk: int, rounds: int) -> dict[str, Any]:
    """Return each side's points a second and error, and the ratios."""
    from _regions_counting import FLOP_PER_POINT, peak_kernels

    import jaxpref as jp

    exact = float(jp.region_area(THRESHOLD).area)
    runs: dict[str, tuple[Callable[[], float], int]] = {"lattice": (lattice_side(points), points)}
    for name, side in (("torch", torch_side), ("cupy", cupy_side)):
        run = side(peer_points, chunk)
        if run is not None:
            runs[name] = (run, peer_points)
    first, errors = {}, {}
    for name, (run, _) in runs.items():
        values: list[float] = []
        first[name] = timed(lambda run=run, values=values: values.append(run()))
        errors[name] = abs(values[0] - exact)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (run, _) in runs.items():
            times[name].append(timed(run))
    speed = {name: np.array([n]) / np.array(times[name]) for name, (_, n) in runs.items()}
    peak = max(kernel() for kernel in peak_kernels())
    own = float(np.median(speed["lattice"]))
    return {
        "environment": environment(),
        "points": {name: n for name, (_, n) in runs.items()},
        "first_call_s": first,
        "times": {name: spread(found) for name, found in times.items()},
        "points_per_second": {name: float(np.median(found)) for name, found in speed.items()},
        "ratios": {
            name: np.quantile(speed["lattice"] / speed[name], [0.25, 0.5, 0.75]).tolist()
            for name in runs
            if name != "lattice"
        },
        "errors": errors,
        "flop_per_point": FLOP_PER_POINT,
        "peak_flops": peak,
        "share_of_peak": own * FLOP_PER_POINT / peak,
        "peak_memory_bytes": peak_memory(),
    }


def report(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = heading(found)
    lines.append("| side | points a second | spread of a call | points | error | first call |")
    lines.append("|" + "---|" * 6)
    for name, each in found["times"].items():
        low, high = each["quartiles_s"]
        lines.append(
            f"| {name} | {found['points_per_second'][name]:.3g} | {low:.3g}-{high:.3g} s "
            f"| {found['points'][name]:.2g} | {found['errors'][name]:.1e} "
            f"| {found['first_call_s'][name]:.2f} s |"
        )
    lines.append("")
    for name, (low, middle, high) in found["ratios"].items():
        lines.append(f"Against {name}: {middle:.2f} times ({low:.2f}-{high:.2f}).")
    memory = found["peak_memory_bytes"]
    lines += [
        f"Share of the peak: {found['share_of_peak']:.1%} of {found['peak_flops'] / 1e12:.3g} "
        f"TFLOP/s of float32, measured; {found['flop_per_point']} operations a point, those on "
        "integers not counted.",
        f"Peak memory: {'not kept' if memory is None else f'{memory / 2**20:.0f} MiB'}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the results of a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.smoke:
        found = measure(1 << 20, 1 << 20, 1 << 18, 2)
    else:
        found = measure(1 << 37, 1 << 32, 1 << 27, arguments.rounds)
    write("gpu_regions", found, report(found), smoke=arguments.smoke)


if __name__ == "__main__":
    main()
