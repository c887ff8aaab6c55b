"""Areas of sensitive regions: accuracy, speed and honesty of the error, against SciPy and NumPy.

    python benchmarks/bench_regions.py [--full] [--only PART ...] [--out benchmarks/results]

Both sides of every ratio run in turns in one process; ratios are medians with their range, and a
first call, with what it compiles, is timed apart. The same script runs on a GPU unchanged.
`--full` counts 1e10 lattice points where the default counts 1e9. Parts can be run one at a time:
those not named keep what the results folder has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import _regions_counting as counting
import _regions_quadrature as quadrature
import jax
import numpy as np
import scipy

from jaxpref.report.files import write_text


def parts(largest: int) -> dict[str, Callable[[], object]]:
    """Return what is measured, by name; memory first, as its peak is the process's."""
    return {
        "memory": lambda: counting.memory(largest),
        "throughput": lambda: counting.throughput(5),
        "lattice_speed": lambda: counting.speed(7),
        "lattice_error": lambda: counting.errors(48),
        "quadrature_speed": lambda: quadrature.speed(5),
        "quadrature_accuracy": quadrature.accuracy,
        "honesty": lambda: counting.honesty(210),
    }


def environment() -> dict[str, object]:
    """Return the machine and the versions a part ran with."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


# The page -------------------------------------------------------------------------------------


def markdown(result: dict) -> str:
    """Return the parts there are as tables."""
    sections = {
        "quadrature_accuracy": _accuracy,
        "quadrature_speed": _quadrature_speed,
        "lattice_speed": _lattice_speed,
        "lattice_error": _lattice_error,
        "memory": _memory,
        "throughput": _throughput,
        "honesty": _honesty,
    }
    lines = ["# Areas of sensitive regions", "", "`python benchmarks/bench_regions.py --full`"]
    for name, section in sections.items():
        if name in result:
            lines += ["", *section(result[name])]
    versions = ", ".join(f"{key} {value}" for key, value in result["environment"].items())
    return "\n".join([*lines, "", f"Measured with {versions}.", ""])


def _range(ratio: dict, digits: str = ".0f") -> str:
    return f"{ratio['median']:{digits}} ({ratio['min']:{digits}} to {ratio['max']:{digits}})"


def _accuracy(rows: list[dict]) -> Iterator[str]:
    yield "## Quadrature: accuracy, M from 1.01 to 1e4"
    yield ""
    yield (
        "| link | largest relative error | over the reported error | "
        "other `wrt`: change with 3 times the nodes | status |"
    )
    yield "|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row['link']} | {row['largest_relative_error']:.1e} | "
            f"{row['largest_error_over_reported']:.2f} | "
            f"{row['largest_relative_change_with_3x_nodes_other_wrt']:.1e} | {row['status']} |"
        )


def _quadrature_speed(rows: list[dict]) -> Iterator[str]:
    yield "## Quadrature: speed, M = 2"
    yield ""
    yield "Against `scipy.integrate.dblquad` of the indicator in plain Python, per tolerance asked"
    yield "for. Ratios: median and range of the rounds."
    yield ""
    yield (
        "| link | dblquad asked for | times faster | our error | dblquad's | our time (first call) "
        "| dblquad's | status |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row['link']} | {row['dblquad_asked_for']} | {_range(row['ratio'])} | "
            f"{row['ours_relative_error']:.1e} | {row['dblquad_relative_error']:.1e} | "
            f"{row['ours_ms']:.2g} ms ({row['ours_first_ms']:.0f} ms) | {row['dblquad_ms']:.0f} ms "
            f"| {row['ours_status']} / {row['dblquad_status']} |"
        )


def _lattice_speed(row: dict) -> Iterator[str]:
    rates = row["points_per_second"]
    yield "## Lattice: logistic link, M = 2, float32"
    yield ""
    yield (
        f"* Points per second over vectorised NumPy Monte Carlo, {row['points']} points, "
        f"{row['rounds']} rounds: {_range(row['ratio_one_thread'], '.1f')}; over the same NumPy "
        f"in a thread for each core: {_range(row['ratio_every_core'], '.1f')}."
    )
    yield (
        f"* {rates['lattice']:.2e} points a second against {rates['numpy']:.2e} and "
        f"{rates['numpy_every_core']:.2e}; first call {row['first_call_s']:.2f} s."
    )


def _lattice_error(row: dict) -> Iterator[str]:
    yield (
        f"* Root mean square error at {row['points']} points, {row['keys']} keys: "
        f"{row['rms_error_lattice']:.1e} against NumPy's {row['rms_error_numpy']:.1e}, "
        f"{row['ratio']:.0f} times smaller; reported: {row['reported_error_lattice']:.1e} "
        f"({row['status']})."
    )


def _memory(rows: list[dict]) -> Iterator[str]:
    yield "| points | peak memory | error | reported | time | points a second |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        peak = ", ".join(f"{value:.0f} MiB ({name})" for name, value in row["peak_mib"].items())
        yield (
            f"| {row['points']:.0e} | {peak} | {row['error']:.1e} | {row['reported_error']:.1e} | "
            f"{row['seconds']:.2f} s | {row['points_per_second']:.2e} |"
        )


def _throughput(row: dict) -> Iterator[str]:
    yield (
        f"* {row['flop_per_point']} floating-point operations a point (and "
        f"{row['other_operations_per_point']} on integers and masks): "
        f"{_range(row['share_of_peak'], '.0%')} of the arithmetic peak measured beside it, "
        f"{_range(row['peak_gflops'])} GFLOP/s, the better of fused multiply-adds in registers and "
        "a float32 matrix product."
    )


def _honesty(rows: dict) -> Iterator[str]:
    yield "## Honest errors: random link, M from 0.3 to 1000, `wrt`"
    yield ""
    yield "| method | cases | true error within 3 reported ones | largest ratio |"
    yield "|---|---|---|---|"
    for method, row in rows.items():
        yield (
            f"| {method} | {row['cases']} | {row['within_3_errors']:.1%} | {row['largest']:.2f} |"
        )


def main() -> None:
    """Run the parts asked for, print the tables, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = list(parts(0))
    parser.add_argument("--full", action="store_true", help="1e10 lattice points")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PART")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    path = options.out / "bench_regions.json"
    known = set(options.only) != set(names) and path.exists()
    result = json.loads(path.read_text(encoding="utf-8")) if known else {}
    for name, part in parts(10**10 if options.full else 10**9).items():
        if name in options.only:
            result[name] = part()
    result["environment"] = environment()
    print(markdown(result))
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result, indent=1) + "\n")
    write_text(options.out / "bench_regions.md", markdown(result))


if __name__ == "__main__":
    main()
