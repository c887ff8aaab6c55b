"""Peak memory and time of reading comparisons, as the number of rows grows tenfold.

    python benchmarks/bench_readers.py [--rows 2000000 20000000] [--smoke]
    python benchmarks/bench_readers.py --only parquet-string --rows 100000000 --keep

Rows are written a million at a time to a temporary folder (the same million again and again), then
each file is read by ``read_comparisons`` in a process of its own, which reports its peak resident
memory. Reading is streaming when that does not grow with the rows. Results go to
benchmarks/results/bench_readers.json and .md; with ``--keep`` they are added to those there.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ITEMS, CHUNK = 300, 1_000_000
KINDS = (
    ("parquet", "int"),
    ("parquet", "string"),
    ("parquet", "categorical"),
    ("csv", "int"),
    ("csv", "string"),
    ("csv.gz", "string"),
    ("jsonl", "string"),
)
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
    frame = rows(label, min(CHUNK, count), seed=0)
    if format == "parquet":
        import pyarrow.parquet as parquet

        with parquet.ParquetWriter(path, frame.to_arrow().schema) as writer:
            for start in range(0, count, CHUNK):
                writer.write_table(frame.head(count - start).to_arrow())
        return path
    opened = gzip.open(path, "wb", compresslevel=1) if format.endswith("gz") else path.open("wb")
    with opened as file:
        for start in range(0, count, CHUNK):
            part, text = frame.head(count - start), io.BytesIO()
            if format == "jsonl":
                part.write_ndjson(text)
            else:
                part.write_csv(text, include_header=start == 0)
            file.write(text.getbuffer())
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
    found = json.loads(done.stdout)
    return {
        "format": format,
        "labels": label,
        "rows": count,
        "file_mib": size >> 20,
        **found,
        "rows_per_second": round(count / found["seconds"], -3),
    }


def markdown(results: list[dict]) -> str:
    """Return the results as a table."""
    lines = [
        "# Reading comparisons",
        "",
        f"Written by `python benchmarks/bench_readers.py`: {ITEMS} items, three outcomes. Memory: "
        "the largest resident size of a process that reads one file, before and by the end. The "
        "machine was shared with other work: memory counts, times less.",
        "",
        "| format | labels | rows | file, MiB | seconds | million rows a second | MiB before | "
        "MiB at most |",
        "|" + "---|" * 8,
    ]
    for row in results:
        rate = row["rows_per_second"] / 1e6
        lines.append(
            f"| {row['format']} | {row['labels']} | {row['rows']:,} | {row['file_mib']:,} | "
            f"{row['seconds']:.1f} | {rate:.2g} | {row['idle_mib']} | {row['peak_mib']} |"
        )
    return "\n".join(lines) + "\n"


def keep(results: list[dict], *, add: bool) -> None:
    """Write the results, in place of those of the same work if they are added to the others."""
    target = HERE / "results" / "bench_readers.json"
    target.parent.mkdir(exist_ok=True)
    if add and target.exists():
        work = {(row["format"], row["labels"], row["rows"]) for row in results}
        old = json.loads(target.read_text())
        results = [r for r in old if (r["format"], r["labels"], r["rows"]) not in work] + results
    target.write_text(json.dumps(results, indent=1) + "\n")
    target.with_suffix(".md").write_text(markdown(results))


def main() -> None:
    """Print a table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000, 20_000_000])
    parser.add_argument("--smoke", action="store_true", help="a hundredth of the rows, not kept")
    parser.add_argument("--only", nargs="+", help="format-labels, such as csv-string")
    parser.add_argument("--keep", action="store_true", help="add to the results that are there")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.read)
        return
    results = []
    for format, label in KINDS:
        if options.only and f"{format}-{label}" not in options.only:
            continue
        for count in options.rows:
            with tempfile.TemporaryDirectory() as folder:
                count = count // 100 if options.smoke else count
                results.append(measure(format, label, count, Path(folder)))
            print(results[-1], flush=True)
    print(markdown(results))
    if not options.smoke:
        keep(results, add=options.keep)


if __name__ == "__main__":
    main()
