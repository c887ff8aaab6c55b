"""Peak memory and time of reading comparisons, as the number of rows grows tenfold.

    python benchmarks/bench_readers.py [--rows 2000000 20000000] [--smoke]

Rows are written a million at a time to a temporary folder, then each file is read by
``read_comparisons`` in a process of its own, which reports its peak resident memory. Reading is
streaming when that does not grow with the rows. Results go to benchmarks/results/readers.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ITEMS, CHUNK = 300, 1_000_000
LABELS = ("int", "string", "categorical")
HERE = Path(__file__).parent


def rows(label: str, count: int, seed: int):
    """Return a polars frame of comparisons with labels of one kind."""
    import polars as pl

    rng = np.random.default_rng(seed)
    first = rng.integers(0, ITEMS, count)
    second = (first + rng.integers(1, ITEMS, count)) % ITEMS
    winner = np.array(["a", "b", "tie"])[rng.integers(0, 3, count)]
    frame = pl.DataFrame({"item_a": first, "item_b": second, "winner": winner})
    if label == "int":
        return frame
    names = [f"model {k:03d}" for k in range(ITEMS)]
    kind = pl.String if label == "string" else pl.Enum(names)
    text = [pl.Series(n, [names[k] for k in frame[n]], kind) for n in ("item_a", "item_b")]
    return frame.with_columns(text)


def write(folder: Path, format: str, label: str, count: int) -> Path:
    """Write a file of `count` rows, a million at a time."""
    path = folder / f"{label}-{count}.{format}"
    writer = None
    with path.open("wb") as file:
        for start in range(0, count, CHUNK):
            frame = rows(label, min(CHUNK, count - start), start)
            if format == "csv":
                frame.write_csv(file, include_header=start == 0)
                continue
            table = frame.to_arrow()
            if writer is None:
                import pyarrow.parquet as parquet

                writer = parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    return path


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def read(path: str) -> None:
    """Read one file and print time and memory: runs in a process of its own."""
    from jaxpref.data import read_comparisons

    idle = peak_memory()
    start = time.perf_counter()
    votes = read_comparisons(path)
    seconds = time.perf_counter() - start
    peak = peak_memory()
    print(json.dumps({
        "seconds": round(seconds, 3),
        "comparisons": votes.num_comparisons,
        "idle_mib": idle // 1024,
        "peak_mib": peak // 1024,
    }))  # fmt: skip


def measure(format: str, label: str, count: int, folder: Path) -> dict:
    """Return time and peak memory of reading one file."""
    path = write(folder, format, label, count)
    command = [sys.executable, __file__, "--read", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    size = path.stat().st_size
    path.unlink()
    return {
        "format": format,
        "labels": label,
        "rows": count,
        "file_mib": size >> 20,
        **json.loads(done.stdout),
    }


def main() -> None:
    """Print a table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000, 20_000_000])
    parser.add_argument("--smoke", action="store_true", help="a hundredth of the rows, not kept")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.read)
        return
    results = []
    kinds = [("parquet", label) for label in LABELS] + [("csv", "int"), ("csv", "string")]
    print("format  labels            rows  file MiB  seconds  idle MiB  peak MiB")
    for format, label in kinds:
        for count in options.rows:
            with tempfile.TemporaryDirectory() as folder:
                count = count // 100 if options.smoke else count
                row = measure(format, label, count, Path(folder))
            results.append(row)
            print(
                f"{format:<8}{label:<12}{count:>10,}{row['file_mib']:>10}{row['seconds']:>9.2f}"
                f"{row['idle_mib']:>10}{row['peak_mib']:>10}",
                flush=True,
            )
    if not options.smoke:
        target = HERE / "results" / "readers.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
