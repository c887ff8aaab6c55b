"""Table C3's procedure with a model: responses reworded until a preference between them flips.

Item: Table C3, section C.5.2.
Claim: a few words more or less in two responses turn the preference between them, where each of
    them is strongly preferred, or not, to a third.
Command: JAXPREF_DATA=folder python experiments/tabC3_rewrites.py [--smoke] [--out FOLDER]
Minutes: 20 on one core. Device: CPU.

Data, never committed: hh_rlhf and stories260K. Rewards of billions of weights are as sure as the
paper asks (p_ik of 0.99); 260,000 weights after one epoch are not (tabC2_crossfit). So the model
here is trained on the pairs that are short enough to be read whole until it is sure of them, right
or wrong, and asked about pairs that it was trained on and pairs that it was not. The rewrites are
found by deleting words and sentences and by inserting words where the gradient says; the model
scores each. Recorded are numbers, no texts. For a reward model of one's own:
tabC3_fragile_quadruples --model DIR.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _common
import numpy as np
from _hh_rewards import CACHE, Training, assign_folds, data_folder, training_name

from jaxpref.llm import load_model, load_tokenizer
from jaxpref.llm.reward_models import (
    RewardModel,
    load_reward_model,
    reward_model,
    save_reward_model,
)
from jaxpref.llm.reward_rows import Candidates, encode_candidates, read_candidates
from jaxpref.llm.reward_training import pack_records, train_reward_model
from jaxpref.llm.rewrites import find_flips
from jaxpref.report.figures import save_figure
from jaxpref.report.files import write_json
from jaxpref.rewards import QuadrupleRule

NAME = "tabC3_rewrites"
Progress = Callable[[int, int], None]
ENDS = ("loss", "accuracy")
COLOURS = {"trained on": "#0072B2", "held out": "#D55E00"}
CHANCES = ("p_ik", "p_i_prime_k", "p_kj", "p_ij", "p_i_prime_j")


@dataclass(frozen=True)
class Config:
    """How the model is trained, and how many pairs of each kind are reworded."""

    training: Training = Training(max_length=160, epochs=30, warmup=50)
    pairs: int = 100
    most_edits: int = 12
    insertions: int = 32
    rule: QuadrupleRule = QuadrupleRule()


SMOKE = Config(
    training=Training(max_length=96, epochs=1, folds=2, rows=1000, warmup=0),
    pairs=2,
    most_edits=4,
    insertions=8,
    rule=QuadrupleRule(strong=0.501, near=0.5, tolerance=0.002, weak=0.5),
)


def compute(config: Config, progress: Progress | None = None) -> dict[str, Any]:
    """Return result.json's content."""
    inside, outside = read_whole(config.training)
    model, about = sure_model(inside, config.training)
    tokenizer = load_tokenizer(data_folder() / "stories260K")
    values: dict[str, Any] = {"training": about, "pairs": {}}
    sets = {"trained on": inside, "held out": outside}
    for number, (name, candidates) in enumerate(sets.items()):
        found = find_flips(
            model,
            tokenizer,
            candidates[: config.pairs],
            rule=config.rule,
            most_edits=config.most_edits,
            insertions=config.insertions,
            progress=_common.part(progress, number, len(sets)),
        )
        flips = [flip.to_dict() for flip in found.flips]
        for flip in flips:
            flip["source"] = flip["source"].removeprefix(f"{data_folder() / 'hh_rlhf'}{os.sep}")
        values["pairs"][name] = {**found._asdict(), "flips": flips}
    return _common.result(config, values, rows(values, config.rule))


def read_whole(training: Training) -> tuple[list[Candidates], list[Candidates]]:
    """Return the pairs that fit the length whole, to train on and held out, in the files' order."""
    folder = data_folder()
    candidates = read_candidates(folder / "hh_rlhf")[: training.rows]
    tokenizer = load_tokenizer(folder / "stories260K")
    encoded = encode_candidates(candidates, tokenizer, max_length=training.max_length + 1)
    fold = assign_folds(candidates, training.folds, training.seed)
    whole = [
        len(record.prompt) + max(map(len, record.completions)) <= training.max_length
        and len(set(record.completions)) == len(record.completions)
        for record in encoded.records
    ]
    chosen = [(c, f) for c, f, fits in zip(candidates, fold, whole, strict=True) if fits]
    return [c for c, f in chosen if f], [c for c, f in chosen if not f]


def sure_model(
    candidates: list[Candidates], training: Training
) -> tuple[RewardModel, dict[str, Any]]:
    """Return a reward model trained on the pairs again and again, kept below :data:`CACHE`."""
    folder = CACHE / f"{training_name(training)}-whole"
    if not (folder / "about.json").exists():
        source = data_folder() / "stories260K"
        tokenizer = load_tokenizer(source)
        encoded = encode_candidates(candidates, tokenizer, max_length=training.max_length + 1)
        rows = pack_records(encoded.records).rows
        start = reward_model(load_model(source))
        result = train_reward_model(start, rows, options=training.options())
        tenth = max(1, len(result.metrics) // 10)
        last = result.metrics[-tenth:]
        ends = {f"last_{key}": float(np.mean([r[key] for r in last])) for key in ENDS}
        save_reward_model(result.model, folder, tokenizer_from=source, overwrite=True)
        about = {"pairs": len(candidates), "steps": result.steps, **ends}
        write_json(folder / "about.json", about)
    return load_reward_model(folder), json.loads((folder / "about.json").read_text())


def rows(values: dict[str, Any], rule: QuadrupleRule) -> Iterator[_common.Row]:
    """Judge whether the procedure finds flips, on each kind of pairs."""
    for name, found in values["pairs"].items():
        flips = found["flips"]
        yield _common.judge(
            f"C.5.2, reworded, pairs {name}",
            "small rewrites of a good and of a bad response turn the preference between them",
            paper="one, by hand",
            ours=float(len(flips)),
            error=float(not flips),
            tolerance=0,
            evidence=f"of {found['tried']} pairs {found['strong']} have p_ik >= {rule.strong} "
            f"and {found['near']} a y_i' near {rule.near}{_middle(flips)}",
        )


def _middle(flips: list[dict[str, Any]]) -> str:
    """Return a typical flip in words."""
    if not flips:
        return ""
    chance = {name: np.median([flip[name] for flip in flips]) for name in CHANCES}
    edits = [np.median([flip[which]["edits"] for flip in flips]) for which in ("i_prime", "j")]
    return (
        f"; in the median {edits[0]:.0f} words of y_i and {edits[1]:.0f} of y_k changed, p_ij "
        f"{chance['p_ij']:.2f} and p_i'j {chance['p_i_prime_j']:.2f}"
    )


def plot(folder: Path) -> list[Path]:
    """Draw each flip, and how many words it took, from result.json alone."""
    from matplotlib.figure import Figure

    values = json.loads((folder / "result.json").read_text(encoding="utf-8"))["values"]
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    start, sizes = 0, {}
    for name, found in values["pairs"].items():
        flips = sorted(found["flips"], key=lambda flip: flip["p_i_prime_j"] - flip["p_ij"])
        at = range(start, start + len(flips))
        before, after = ([flip[key] for flip in flips] for key in ("p_ij", "p_i_prime_j"))
        left.vlines(at, after, before, color=COLOURS[name], linewidth=0.8, alpha=0.6)
        left.plot(at, before, "o", color=COLOURS[name], markersize=3)
        left.plot(at, after, "o", color=COLOURS[name], markersize=3, markerfacecolor="white")
        start += len(flips) + 4
        sizes[name] = [flip["i_prime"]["edits"] + flip["j"]["edits"] for flip in flips]
    left.axhline(0.5, color="0.5", linewidth=0.8)
    left.set(ylim=(0, 1), xticks=[], xlabel="flips", ylabel="preference over $y_j$")
    left.set_title("$y_i$ (filled) beats $y_j$, $y_i'$ (open) loses to it", fontsize="medium")
    most = max((words for own in sizes.values() for words in own), default=1)
    right.hist(
        list(sizes.values()), bins=[n + 0.5 for n in range(1, most + 1)], stacked=True,
        color=[COLOURS[name] for name in sizes],
        label=[f"pairs {name}" for name in sizes], rwidth=0.9,
    )  # fmt: skip
    right.set(xlabel="words deleted or inserted, in both responses", ylabel="flips")
    right.set_title("What it takes", fontsize="medium")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(frameon=False, fontsize="small")
    return [save_figure(figure, folder / "flips.png")]


if __name__ == "__main__":
    sys.exit(_common.run_script(NAME, sys.modules[__name__]))
