"""The benchmarks of a GPU, as far as they go without one: they run, and leave no results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def smoke(script, *arguments):
    """Run a script's trial on a processor; return its report and its remarks."""
    before = {path: path.stat().st_mtime_ns for path in (BENCHMARKS / "results").iterdir()}
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(BENCHMARKS.parent),
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--smoke", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing written: results are those of a GPU" in done.stdout
    names = [path.name for path in before if path.name.startswith("gpu_")]
    after = {path: path.stat().st_mtime_ns for path in before if path.name in names}
    assert after == {path: before[path] for path in after}
    return done.stdout, done.stderr


def test_areas():
    report, _ = smoke("gpu_regions.py")
    assert "| lattice |" in report
    assert "Commit " in report
    assert "Share of the peak" in report


@pytest.mark.slow
def test_training():
    report, remarks = smoke("gpu_dpo.py")
    parts = dict(line.split(" ", 1) for line in remarks.splitlines() if line.startswith("full {"))
    full = json.loads(parts["full"])
    assert full["losses"][0] == pytest.approx(0.693, abs=2e-2)  # the policy is its reference
    assert full["tokens_per_second"] > 0
    assert "6 N x tokens" in report
    for part in ("full", "adapters", "population"):
        assert f"## {part}" in report
    assert "times sequential" in report
    assert "failed" not in report
