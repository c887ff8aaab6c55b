"""Fitting against choix, evalica and arena-rank: same machine, same process, error beside time.

    python benchmarks/bench_fit.py            # about ten minutes; writes results/bench_fit.*
    python benchmarks/bench_fit.py --quick    # smaller data, fewer rounds, writes nothing
    python benchmarks/bench_fit.py --threads one    # that half alone; the other stays as it was

Runs itself twice, with one BLAS thread and with the default number, because both are set before
NumPy is loaded. Peers are no dependencies of the package: choix, evalica, pandas and arena-rank
(which pins an older JAX: install it without its dependencies) are needed here alone. Times are
medians over rounds in which both sides take turns; ratios are taken within rounds, and printed with
their quartiles. Errors are of centred scores against a fit in 80-bit arithmetic.

A section module is ``_fit_*.py`` with a function ``sections(quick)`` that returns rows, and perhaps
``accuracy()``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MODULES = ("_fit_pairwise", "_fit_rankings")
PEERS = ("choix", "evalica", "arena-rank", "pandas", "pyarrow")
PACKAGES = ("jaxpref", "numpy", "scipy", "jax", "polars", *PEERS)


def measure(quick: bool, only: str | None) -> dict[str, Any]:
    """Return every row of every section module that is there."""
    rows: list[dict[str, Any]] = []
    tables: dict[str, Any] = {}
    for name in MODULES:
        if (only and only not in name) or not (HERE / f"{name}.py").exists():
            continue
        module = importlib.import_module(name)
        rows += [row.to_dict() for row in module.sections(quick)]
        if hasattr(module, "accuracy") and os.environ.get(THREADS[0]) == "1":
            tables[name] = module.accuracy()
    return {"rows": rows, "accuracy": tables}


def run_again(threads: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run this script in a fresh process with the given number of BLAS threads."""
    environment = dict(os.environ)
    for name in THREADS:
        environment.pop(name, None)
        if threads == "one":
            environment[name] = "1"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "part.json"
        command = [sys.executable, __file__, "--part", str(target)]
        command += ["--quick"] if arguments.quick else []
        command += ["--only", arguments.only] if arguments.only else []
        subprocess.run(command, env=environment, check=True)
        return json.loads(target.read_text())


def environment() -> dict[str, Any]:
    """Return versions and the kind of machine."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    return {**machine, "cores": os.cpu_count(), "versions": versions}


def markdown(result: dict[str, Any]) -> str:
    """Return the whole report."""
    from _harness import number, table

    lines = ["# Fitting, side by side", ""]
    versions = result["environment"]["versions"]
    lines += [
        "Written by `python benchmarks/bench_fit.py`. Ratio: the peer's time over ours, median and "
        "quartiles over rounds; error: largest, of centred scores, against 80-bit arithmetic "
        "(rankings, bootstrap: against a tolerance of 1e-12); "
        "first call: ours / the peer's, with imports and whatever is compiled. The machine was "
        "shared with other work: ratios count, times do not.",
        "",
        ", ".join(f"{name} {version}" for name, version in versions.items() if version) + ".",
    ]
    lines += ["", result["note"]] if "note" in result else []
    for threads, part in result["threads"].items():
        lines += ["", f"## BLAS threads: {threads}", "", table(part["rows"])]
    rows = next(iter(result["threads"].values()))["accuracy"].get("_fit_pairwise", [])
    if rows:
        peers = [key for key in rows[0] if isinstance(rows[0][key], dict)]
        lines += ["", "## Largest error on paths and bands, nats", ""]
        lines += [f"| graph | spread of scores | {' | '.join(peers)} |"]
        lines += ["|" + "---|" * (len(peers) + 2)]
        for row in rows:
            errors = [row.get(peer, {}).get("error", float("nan")) for peer in peers]
            cells = [e if isinstance(e, str) else number(e) for e in errors]
            lines.append(f"| {row['graph']} | {row['spread']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="smaller data, write nothing")
    parser.add_argument("--only", help="run only the modules with this in their name")
    parser.add_argument("--threads", choices=("one", "default"), help="run one half only")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE))
    if arguments.part:
        Path(arguments.part).write_text(json.dumps(measure(arguments.quick, arguments.only)))
        return
    folder = HERE / "results"
    target = folder / "bench_fit.json"
    halves = [arguments.threads] if arguments.threads else ["one", "default"]
    threads = {name: run_again(name, arguments) for name in halves}
    if arguments.threads and target.exists():
        kept = json.loads(target.read_text())["threads"]
        threads = {name: threads.get(name, kept[name]) for name in ("one", "default")}
    result = {"environment": environment(), "threads": threads}
    print(markdown(result))
    if not arguments.quick:
        folder.mkdir(exist_ok=True)
        target.write_text(json.dumps(result, indent=1) + "\n")
        (folder / "bench_fit.md").write_text(markdown(result))


if __name__ == "__main__":
    main()
