"""What the benchmarks of a GPU share: where they ran, times and their spread, what is written."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "cupy-cuda13x", "cupy-cuda12x", "trl")
FORMULA = (
    "MFU = 6 N x tokens / seconds / peak: N all parameters, 2 N of a forward and 4 N of a backward "
    "pass a token. With all layers computed again the device does 8 N a token. Attention is in "
    "neither: 12 x layers x width x heads x head_dim a token."
)


def on_gpu() -> bool:
    """Return whether JAX has a GPU."""
    import jax

    return jax.default_backend() == "gpu"


def environment() -> dict[str, Any]:
    """Return the device, the versions and the commit."""
    import jax

    device = jax.devices()[0]
    found: dict[str, Any] = {
        "device": device.device_kind,
        "platform": device.platform,
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "commit": _first_line("git", "-C", str(HERE), "rev-parse", "HEAD"),
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _first_line(*command: str) -> str | None:
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip().split("\n")[0] or None


def peak_memory() -> int | None:
    """Return the most bytes that the device has held at a time, where it keeps count."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds of a call that waits for its own result."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def spread(times: list[float]) -> dict[str, Any]:
    """Return median, quartiles and extremes of times."""
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
    return {
        "median_s": middle,
        "quartiles_s": [low, high],
        "extremes_s": [min(times), max(times)],
        "rounds": len(times),
    }


def matmul_peak(size: int) -> float:
    """Return FLOP/s of a bfloat16 product of random square matrices, the best of ten."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0))
    one, other = (jax.random.normal(key, (size, size), jnp.bfloat16) for key in keys)
    product = jax.jit(lambda a, b: a @ b)
    times = [timed(lambda: product(one, other).block_until_ready()) for _ in range(12)]
    return 2.0 * size**3 / min(times[2:])


def rate(tokens: int, seconds: float, parameters: int, peak: float) -> dict[str, float]:
    """Return tokens a second and the share of the peak, by 6 N and by 8 N."""
    each = parameters * tokens / seconds / peak
    return {"tokens_per_second": tokens / seconds, "mfu_6n": 6 * each, "mfu_8n": 8 * each}


def write(name: str, found: dict[str, Any], text: str, *, smoke: bool) -> None:
    """Print the report; keep it under results/, unless it is a trial or no GPU made it."""
    print(text, flush=True)
    if smoke or not on_gpu():
        print("Nothing written: results are those of a GPU, at full size.", flush=True)
        return
    target = HERE / "results"
    (target / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    (target / f"{name}.md").write_text(text)


def heading(found: dict[str, Any]) -> list[str]:
    """Return the environment as the first lines of a report."""
    there = found["environment"]
    listed = ", ".join(f"{k} {v}" for k, v in there.items() if k != "commit" and v is not None)
    return [f"{listed}.", "", f"Commit {there['commit']}.", ""]
