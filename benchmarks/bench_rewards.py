"""The search for fragile quadruples: how long it takes, and that it finds what a loop finds.

Two sizes: the real scores of up to 10 models on 797 prompts (ko_rm_judge_scores, in the folder that
JAXPREF_DATA names), and 10,000 prompts of 64 responses with normal scores. The other side counts by
the definition, with arrays of all (i, i', k, j) of a prompt, n^4 of them; for 64 responses on a
stated number of prompts, times their number. Both sides run in one process, in turns. Nothing is
compiled but the link's margins of five probabilities, in the first call, which is kept apart.

Scoring with a reward model, against transformers in PyTorch, is in _rewards_scoring.py.

Usage: ``python benchmarks/bench_rewards.py`` (about 2 minutes); ``--smoke`` for small sizes;
``--only searches`` or ``--only scoring`` for one of the two, the other as it was recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _rewards_scoring import measure_scoring, scoring_lines

from jaxpref.links import logistic
from jaxpref.report.files import write_text
from jaxpref.rewards import QuadrupleRule, Scores, fragile_quadruples, read_scores

HERE = Path(__file__).parent
RULE = QuadrupleRule()


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call takes, and what it returns."""
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def spread(values: list[float]) -> dict[str, float]:
    """Return median and range."""
    return {
        "median": float(np.median(values)),
        "low": float(np.min(values)),
        "high": float(np.max(values)),
    }


def normal_scores(prompts: int, size: int, sd: float = 2.0, seed: int = 0) -> Scores:
    """Return normal scores of so many responses to each prompt."""
    values = np.random.default_rng(seed).normal(0, sd, prompts * size)
    response = np.tile(np.arange(size, dtype=np.int32), prompts)
    start = np.arange(0, prompts * size + 1, size, dtype=np.int64)
    names = tuple(f"response {n}" for n in range(size))
    return Scores(tuple(f"prompt {n}" for n in range(prompts)), names, response, values, start)


def by_definition(scores: Scores, prompts: range) -> list[int]:
    """Return the quadruples of some prompts, from all (i, i', k, j) of each."""
    ends = (RULE.strong, RULE.near - RULE.tolerance, RULE.near + RULE.tolerance, RULE.weak)
    strong, low, high, weak = (float(logistic.margin(p)) for p in ends)
    counts = []
    for n in prompts:
        s = scores.score[scores.start[n] : scores.start[n + 1]]
        gap = s[:, None] - s[None, :]
        i = gap[:, None, :, None] >= strong
        prime = ((gap >= low) & (gap <= high))[None, :, :, None]
        j = (gap <= weak)[None, None, :, :]
        between = (gap > 0)[:, None, None, :] & (gap < 0)[None, :, None, :]
        counts.append(int(np.count_nonzero(i & prime & j & between)))
    return counts


def measure(name: str, scores: Scores, timed: int, rounds: int, target: float) -> dict[str, Any]:
    """Return the times of both sides on one problem, and whether the counts agree."""
    first, found = seconds(lambda: fragile_quadruples(scores, top=10))
    prompts = range(min(timed, scores.num_prompts))
    scale = scores.num_prompts / len(prompts)
    ours, theirs, ratios, expected = [], [], [], []
    for _ in range(rounds):
        mine, found = seconds(lambda: fragile_quadruples(scores, top=10))
        other, expected = seconds(lambda: by_definition(scores, prompts))
        ours.append(mine)
        theirs.append(other * scale)
        ratios.append(theirs[-1] / mine)
    return {
        "problem": name,
        "prompts": scores.num_prompts,
        "responses": scores.num_entries,
        "quadruples": found.total,
        "prompts_with": found.prompts_with,
        "ours_s": spread(ours),
        "ours_first_call_s": first,
        "target_s": target,
        "definition_s": spread(theirs),
        "definition_prompts_timed": len(prompts),
        "ratio": spread(ratios),
        "prompts_that_differ": int(np.sum(np.array(found.by_prompt[: len(prompts)]) != expected)),
        "rounds": rounds,
    }


def small_cases(count: int) -> dict[str, Any]:
    """Return how many of many small prompts, half of them with tied scores, differ."""
    rng = np.random.default_rng(1)
    differ, quadruples = 0, 0
    for size in range(4, 13):
        values = rng.normal(0, 3, (count, size))
        values[::2] = np.round(values[::2] * 4) / 4
        flat = normal_scores(count, size)
        scores = Scores(flat.prompts, flat.responses, flat.response, values.reshape(-1), flat.start)
        expected = by_definition(scores, range(count))
        found = fragile_quadruples(scores, top=0)
        differ += int(np.sum(np.array(found.by_prompt) != expected))
        quadruples += found.total
    return {"prompts": 9 * count, "quadruples": quadruples, "prompts_that_differ": differ}


def compute(smoke: bool, only: str | None) -> dict[str, Any]:
    """Run everything, or one part of it."""
    result: dict[str, Any] = {}
    if only != "scoring":
        result |= compute_searches(smoke)
    if only != "searches":
        result["scoring"] = measure_scoring(16 if smoke else 128, 2 if smoke else 5)
    return result


def compute_searches(smoke: bool) -> dict[str, Any]:
    """Run the searches."""
    rows = []
    folder = os.environ.get("JAXPREF_DATA")
    if folder:
        path = Path(folder) / "ko_rm_judge_scores" / "scores.csv.gz"
        reading, real = seconds(
            lambda: read_scores(path, prompt="prompt_id", where={"dataset": "alpaca-eval-ko"})
        )
        rows.append(measure("real, 797 x up to 10", real, 797, 2 if smoke else 7, 2.0))
        rows[-1]["reading_s"] = reading
    prompts = 100 if smoke else 10_000
    large = normal_scores(prompts, 64)
    rows.append(measure(f"normal, {prompts:,} x 64", large, 20, 2 if smoke else 5, 60.0))
    return {
        "searches": rows,
        "small_cases": small_cases(20 if smoke else 300),
        "environment": {
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("jaxpref", "jax", "numpy")},
        },
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the result as a table."""
    lines = ["# Fragile quadruples: how long the search takes", ""]
    head = "scores | quadruples | search | at most | first call | by the definition | ratio"
    head += " | prompts checked | that differ"
    lines += [f"| {head} |", "|" + "---|" * 9]
    for row in result["searches"]:
        cells = [
            row["problem"],
            f"{row['quadruples']:,} in {row['prompts_with']:,} prompts",
            _seconds(row["ours_s"]),
            f"{row['target_s']:g} s",
            f"{row['ours_first_call_s']:.3g} s",
            _seconds(row["definition_s"]),
            f"{row['ratio']['median']:.0f} ({row['ratio']['low']:.0f}-{row['ratio']['high']:.0f})",
            f"{row['definition_prompts_timed']:,}",
            str(row["prompts_that_differ"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    small = result["small_cases"]
    lines += [
        "",
        "Medians and ranges of whole calls, ten quadruples listed; by the definition: arrays of "
        "all (i, i', k, j) of a prompt, timed on the prompts checked and scaled to all. One "
        "thread on either side; the first call compiles the link's margins.",
        "",
        f"Small cases: {small['prompts']:,} prompts of 4 to 12 responses, half with tied scores, "
        f"{small['quadruples']:,} quadruples; {small['prompts_that_differ']} prompts differ from "
        "the definition.",
    ]
    if "scoring" in result:
        lines += scoring_lines(result["scoring"])
    return "\n".join(lines) + "\n"


def _seconds(times: dict[str, float]) -> str:
    return f"{times['median']:.3g} s ({times['low']:.3g}-{times['high']:.3g})"


def main() -> int:
    """Run, print, write; 3 if a count differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small sizes, write nothing")
    parser.add_argument("--only", choices=("searches", "scoring"), help="one part")
    options = parser.parse_args()
    smoke = options.smoke
    jax.config.update("jax_enable_x64", True)
    path = HERE / "results" / "bench_rewards.json"
    recorded = json.loads(path.read_text(encoding="utf-8")) if options.only and not smoke else {}
    result = {**recorded, **compute(smoke, options.only)}
    if "searches" not in result:  # a smoke run of the other part
        print("\n".join(scoring_lines(result["scoring"])))
        return 0
    print(markdown(result))
    if not smoke:
        write_text(path, json.dumps(result, indent=1) + "\n")
        write_text(HERE / "results" / "bench_rewards.md", markdown(result))
    checked = [*result["searches"], result["small_cases"]]
    return 3 if any(row["prompts_that_differ"] for row in checked) else 0


if __name__ == "__main__":
    raise SystemExit(main())
