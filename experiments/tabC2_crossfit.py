"""A reward model trained here: stories260K on hh-rlhf's test pairs, cross-fitted.

Item: the model that Tables C2 and C3 and our own question on mitigation are asked of.
Claim: a Bradley-Terry reward model of 260,000 weights tells chosen from rejected better than chance
    on pairs it was not trained on.
Command: JAXPREF_DATA=folder python experiments/tabC2_crossfit.py [--smoke] [--out FOLDER]
Minutes: 35 on one core. Device: CPU.

Data, never committed: hh_rlhf (the 8,552 test pairs of Anthropic's hh-rlhf; no train split is at
hand) and stories260K. Five folds that share no first question; each is scored by the model trained
on the other four, all weights, one epoch. Committed: the scores, without a word of the texts.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _common
import jax
import numpy as np
from _hh_rewards import Pairs, Training, cross_fit, read_pairs

from jaxpref.rewards import Scores, reward_calibration

NAME = "tabC2_crossfit"
SCORES = "scores.csv.gz"
NAMES = ("chosen_score", "rejected_score", "foreign_score")


@dataclass(frozen=True)
class Config:
    """How the model is trained."""

    training: Training = Training()


SMOKE = Config(training=Training(max_length=16, folds=2, rows=60, warmup=0))


def compute(config: Config, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Return result.json's content; the scores stand in it until they are written apart."""
    pairs = read_pairs(config.training)
    scores, about = cross_fit(pairs, config.training, progress=progress)
    values = describe(pairs, scores, about)
    content = _common.result(config, values, rows(values))
    content["scores"] = {
        "subset": pairs.subset,
        "fold": pairs.fold.tolist(),
        **{name: scores[:, n].tolist() for n, name in enumerate(NAMES)},
    }
    return content


def describe(pairs: Pairs, scores: np.ndarray, about: list[dict[str, Any]]) -> dict[str, Any]:
    """Return accuracy and calibration, of all pairs and of each subset."""
    groups = {"all": np.ones(len(scores), bool)}
    groups |= {
        name: np.array([own == name for own in pairs.subset]) for name in sorted(set(pairs.subset))
    }
    found = {}
    for name, inside in groups.items():
        calibration = reward_calibration(Scores.from_pairs(scores[inside, 0], scores[inside, 1]))
        found[name] = {
            **calibration.to_dict(),
            "longer_is_chosen": float(pairs.longer[inside].mean()),
            "over_foreign": float(np.mean(scores[inside, 0] > scores[inside, 2])),
        }
        if name != "all":
            del found[name]["bins"]
    return {
        "pairs": len(scores),
        "trained_on": len(pairs.packed.kept),
        "left_out_of_training": pairs.packed.refusals(),
        "truncated": pairs.truncated,
        "folds": about,
        "calibration": found,
    }


def rows(values: dict[str, Any]) -> Iterator[_common.Row]:
    """Judge whether the model has learnt anything, and whether its preferences can be believed."""
    found = values["calibration"]["all"]
    z = (found["accuracy"] - 0.5) / found["accuracy_error"]
    yield _common.judge(
        "Reward model, accuracy",
        "chosen scores above rejected on held-out pairs more often than not",
        paper="no number",
        ours=found["accuracy"],
        error=max(0.0, 3 - z),
        tolerance=0,
        evidence=f"{found['pairs']:,} pairs, standard error {found['accuracy_error']:.4f}; the "
        f"longer one is chosen in {found['longer_is_chosen']:.4f}; log-loss "
        f"{found['log_loss']:.4f} (0.6931 without a preference); at least 3 standard errors",
    )
    yield _common.judge(
        "Reward model, calibration",
        "its preferences are as sure as they are right, within 0.05",
        paper="no number",
        ours=found["calibration_error"],
        error=found["calibration_error"],
        tolerance=0.05,
        evidence=f"mean distance of confidence and accuracy in bins of 0.05; best slope of the "
        f"margins {found['slope']:.3f}",
    )


def save_scores(content: dict[str, Any], folder: Path) -> Path:
    """Write the scores as CSV beside result.json, and take them out of it."""
    table = content.pop("scores")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow([f"{cell:.5g}" if isinstance(cell, float) else cell for cell in row])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SCORES
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    part.rename(path)
    return path


def read_triples(folder: Path) -> np.ndarray:
    """Return the recorded scores, shape (pairs, 3): chosen, rejected, foreign."""
    with gzip.open(folder / SCORES, "rt", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in NAMES] for row in table])


def plot(folder: Path) -> list[Path]:
    """Draw nothing: the item is a file of scores."""
    return []


def main(arguments: list[str] | None = None) -> int:
    """Train, score, write, print; 3 if a verdict is not the recorded one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="the small form, for tests")
    parser.add_argument("--out", type=Path, help="folder for the results")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    recorded = _common.load(_common.RESULTS / NAME)
    content = compute(SMOKE if options.smoke else Config(), _tell)
    folder = options.out or (None if options.smoke else _common.RESULTS / NAME)
    if folder is not None:
        save_scores(content, folder)
        _common.save(content, folder)
    _common.show(content["comparison"])
    failures = [] if options.smoke else _common.missed(content, recorded)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 3 if failures else 0


def _tell(done: int, total: int) -> None:
    print(f"{done} of {total} folds", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
