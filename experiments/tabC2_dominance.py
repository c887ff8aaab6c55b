"""Table C2 on reward models whose scores are public: how many preferences are strong.

Item: Table C2, section C.5.1.
Claim: strong preferences are not uncommon in reward models, and follow from the scores' variance.
Command: JAXPREF_DATA=folder python experiments/tabC2_dominance.py [--smoke] [--out FOLDER]
    [--model DIR [what ``jaxpref rewards score`` takes besides: --as-chat, --dtype bfloat16, ...]]
Minutes: 0.1; as long as it takes to score 17,104 dialogues with --model. Device: CPU.

Data, never committed: ko_rm_judge_scores (two Korean reward models on answers of up to 14 models),
where no answer is chosen or rejected: each pair counts half from either side, and the columns stand
beside the paper's two without being comparable bin by bin. Of its 10,481 scores 10,381 count: 100
prompts of pku-saferlhf-ko have one response, and nothing to compare it with. The paper's are
p(chosen over rejected) on the 8,552 test pairs of hh-rlhf; so are those of the model that
tabC2_crossfit trained, whose scores are committed. The paper's two reward models are not at hand:
with --model DIR, their folders (--reward-token 0 --as-chat for Llama-3.1-Nemotron-70B-Reward-HF)
are scored on hh-rlhf, and give the table itself; a run that was stopped goes on from the scores in
its folder.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _common
import numpy as np
import tabC2_crossfit
from _hh_rewards import data_folder

from jaxpref.cli.app import run
from jaxpref.report.figures import save_figure
from jaxpref.rewards import PUBLISHED, Scores, read_scores, reward_dominance, triple_shares

NAME = "tabC2_dominance"
SETS = (
    ("alpaca-eval-ko", "helpful"),
    ("gpt4evol", "helpful"),
    ("ko-ethical-questions", "helpful"),
    ("ko-ethical-questions", "safety"),
    ("pku-saferlhf-ko", "safety"),
)
TRAINED = "hh-rlhf, trained here"
COLOURS = ("#0072B2", "#7fb8d8", "#e6e6e6", "#eda660", "#bf5d2c")


@dataclass(frozen=True)
class Config:
    """Which data sets, and the thresholds M of the triples."""

    sets: tuple[tuple[str, str], ...] = SETS
    thresholds: tuple[float, ...] = (1.01, 2.0, 3.0, 5.0, 10.0)


SMOKE = Config(sets=SETS[3:4], thresholds=(2.0,))


def read_set(dataset: str, kind: str) -> Scores:
    """Return the scores that the helpful or the safety model gave in a data set."""
    version = {"helpful": "helpful-1.3b-v0.2", "safety": "safety-1.3b-v0.2"}[kind]
    return read_scores(
        data_folder() / "ko_rm_judge_scores" / "scores.csv.gz",
        prompt="prompt_id",
        where={"dataset": dataset, "reward_model": f"heegyu/ko-reward-model-{version}"},
    )


def read_trained(folder: Path | None = None) -> np.ndarray:
    """Return the cross-fitted model's scores of chosen, rejected and foreign, (pairs, 3)."""
    return tabC2_crossfit.read_triples(folder or _common.RESULTS / tabC2_crossfit.NAME)


def of_triples(scores: np.ndarray, thresholds: tuple[float, ...]) -> dict[str, Any]:
    """Return Table C2 of chosen and rejected, and the regions' shares of triples with a third."""
    pairs = Scores.from_pairs(scores[:, 0], scores[:, 1])
    found = reward_dominance(pairs, thresholds=thresholds).to_dict()
    prompts = np.repeat(np.arange(len(scores)), 3).tolist()
    names = ["chosen", "rejected", "foreign"] * len(scores)
    whole = Scores.from_arrays(prompts, names, scores.reshape(-1))
    found["triples"] = triple_shares(whole, thresholds=thresholds).to_dict()
    return {"scores": pairs.to_dict(), **found}


def compute(config: Config, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Return result.json's content."""
    values: dict[str, Any] = {"published": {k: list(v) for k, v in PUBLISHED.items()}, "sets": {}}
    for number, (dataset, kind) in enumerate(config.sets):
        scores = read_set(dataset, kind)
        found = reward_dominance(scores, thresholds=config.thresholds).to_dict()
        values["sets"][f"{dataset}, {kind}"] = {"scores": scores.to_dict(), **found}
        if progress is not None:
            progress(number + 1, len(config.sets))
    values["sets"][TRAINED] = of_triples(read_trained(), config.thresholds)
    for found in values["sets"].values():
        del found["published"]
    return _common.result(config, values, rows(values["sets"]))


def rows(sets: dict[str, Any]) -> Iterator[_common.Row]:
    """Judge the claims on each data set."""
    for name, found in sets.items():
        shares = [row["share"] for row in found["bins"]]
        strong = 1 - shares[2]
        yield _common.judge(
            f"C.5.1, {name}",
            "strong preferences (outside [0.10, 0.90)) are not uncommon",
            paper="57.5% and 17.7%",
            ours=strong,
            error=max(0.0, 0.1 - strong),
            tolerance=0,
            evidence=f"share of {found['pairs']:,} pairs, read as at least one in ten; "
            f"{shares[0] + shares[4]:.2%} are below 0.05 or reach 0.99; variance "
            f"{found['variance']:.3f} (standard error {found['variance_error']:.3f}); "
            f"{_in_regions(found)}",
        )
    unordered = [found for found in sets.values() if not found["directed"]]
    if len(unordered) < 3:  # a smoke run: nothing to put in order
        return
    order = sorted(unordered, key=lambda found: found["variance"])
    strong = [1 - found["bins"][2]["share"] for found in order]
    falls = int(np.sum(np.diff(strong) < 0))
    errors = [math.sqrt(s * (1 - s) / f["pairs"]) for f, s in zip(order, strong, strict=True)]
    yield _common.judge(
        "C.5.1, variance",
        "the larger the variance, the more preferences are strong",
        paper="0 exceptions",
        ours=float(falls),
        error=falls,
        tolerance=0,
        evidence="neighbours out of order, of the data sets by variance: "
        + ", ".join(
            f"{f['variance']:.2f} {s:.1%} (at least +-{e:.1%})"
            for f, s, e in zip(order, strong, errors, strict=True)
        ),
    )


def _in_regions(found: dict[str, Any]) -> str:
    """Return the share of triples in each M-sensitive region, in words."""
    if not found["triples"]["total"]:
        return "no triples"
    regions = found["triples"]["regions"]
    shares = ", ".join(f"{row['share']:.1%} M = {row['threshold']:g}" for row in regions)
    return f"of {found['triples']['total']:,} triples exceed: {shares}"


def plot(folder: Path) -> list[Path]:
    """Draw the bins of every data set beside the paper's, from result.json alone."""
    from matplotlib.figure import Figure

    values = json.loads((folder / "result.json").read_text(encoding="utf-8"))["values"]
    columns = {name: [c / sum(v) for c in v] for name, v in values["published"].items()}
    for name, found in values["sets"].items():
        columns[name] = [row["share"] for row in found["bins"]]
    labels = [row["label"] for row in next(iter(values["sets"].values()))["bins"]]
    figure = Figure(figsize=(8, 0.5 * len(columns) + 1.6), layout="constrained")
    axes = figure.subplots()
    place, left = np.arange(len(columns))[::-1], np.zeros(len(columns))
    for n, label in enumerate(labels):
        width = np.array([column[n] for column in columns.values()])
        axes.barh(place, width, left=left, color=COLOURS[n], label=label)
        left = left + width
    axes.set_yticks(place, list(columns))
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of pairs; the upper two as printed; p(chosen over rejected) on hh-rlhf")
    figure.legend(ncols=5, loc="outside upper center", frameon=False, fontsize="small")
    return [save_figure(figure, folder / "dominance.png")]


def main(arguments: list[str] | None = None) -> int:
    """Compute the table, or with --model that of a reward model on hh-rlhf's pairs."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", type=Path)
    options, rest = parser.parse_known_args(arguments)
    if options.model is None:
        return _common.run_script(NAME, sys.modules[__name__], rest)
    parser.add_argument("--out", type=Path, default=Path("reproduced") / NAME)
    options, rest = parser.parse_known_args(arguments)
    data, scores = data_folder() / "hh_rlhf", options.out / "scores.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    given = ["--model", str(options.model), "--data", str(data), "--out", str(scores)]
    failed = run(["rewards", "score", *given, *rest])
    return failed or run(["rewards", "dominance", str(scores)])


if __name__ == "__main__":
    sys.exit(main())
