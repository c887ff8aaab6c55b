"""Table C3: its example from its printed numbers, and its procedure on scores that are public.

Item: Table C3, section C.5.2.
Claim: pairs of responses that beat a third nearly equally fall on either side of a fourth.
Command: JAXPREF_DATA=folder python experiments/tabC3_fragile_quadruples.py [--smoke] [--out FOLDER]
    [--model DIR [what ``jaxpref rewards rewrite`` takes besides: --pairs, --as-chat, ...]]
Minutes: 0.1; with --model, some hundred scores a pair. Device: CPU.

Data, never committed: ko_rm_judge_scores. The paper rewrites responses until they fit; here they
are those of other models to the same prompt, which nobody chose to fit. With --model DIR a reward
model's own pairs of hh-rlhf are rewritten, as the paper does by hand: words and sentences deleted,
words inserted where the gradient says, every rewrite scored.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _common
from _hh_rewards import data_folder
from claims_rewards import table_c3
from tabC2_dominance import SETS, read_set

from jaxpref.cli.app import run
from jaxpref.rewards import Scores, fragile_quadruples

NAME = "tabC3_fragile_quadruples"
QUARTERS = {"p_ik": 7.25, "p_i'k": 4.0, "p_kj": -4.25, "p_ij": 3.0, "p_i'j": -0.25}
"""Margins, multiples of 0.25 that add up as Eq. 1 asks, of Table C3's five probabilities."""


@dataclass(frozen=True)
class Config:
    """Which data sets, and how many quadruples of each to keep."""

    sets: tuple[tuple[str, str], ...] = SETS[:4]
    top: int = 5


SMOKE = Config(sets=SETS[3:4], top=1)


def compute(config: Config, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Return result.json's content."""
    values: dict[str, Any] = {"example": example(), "sets": {}}
    for number, (dataset, kind) in enumerate(config.sets):
        scores = read_set(dataset, kind)
        name = f"{dataset}, {kind}"
        values["sets"][name] = {
            "scores": scores.to_dict(),
            "sensitivity": fragile_quadruples(scores, top=config.top).to_dict(),
            "closeness": fragile_quadruples(scores, top=config.top, rank="closeness").to_dict(),
        }
        if progress is not None:
            progress(number + 1, len(config.sets))
    return _common.result(config, values, rows(values))


def example() -> dict[str, Any]:
    """Return what the search finds in scores that have Table C3's first three preferences."""
    printed = {name: float(p) for name, p in _common.paper_values()["table_c3"].items()}
    margin = {name: math.log(p / (1 - p)) for name, p in printed.items()}
    scores = [margin["p_ik"], margin["p_i'k"], 0.0, -margin["p_kj"]]
    names = ["y_i", "y_i'", "y_k", "y_j"]
    found = fragile_quadruples(Scores.from_arrays(["x"] * 4, names, scores))
    return {"margins": margin, **found.to_dict()}


def rows(values: dict[str, Any]) -> Iterator[_common.Row]:
    """Judge the printed example, and whether the procedure works on each data set."""
    yield from table_c3(0, 0)
    example = values["example"]
    names = ("response_i", "response_i_prime", "response_k", "response_j")
    placed = [[row[name] for name in names] for row in example["top"]]
    yield _common.judge(
        "Table C3, search",
        "the example is a fragile quadruple in the order given",
        paper="1",
        ours=float(example["total"]),
        error=float(placed != [["y_i", "y_i'", "y_k", "y_j"]]),
        tolerance=0,
        evidence="quadruples found in four scores made from the first three printed probabilities",
    )
    printed = _common.paper_values()["table_c3"]
    near = {name: 1 / (1 + math.exp(-margin)) for name, margin in QUARTERS.items()}
    wrong = sum(f"{near[name]:.4f}" != text for name, text in printed.items())
    yield _common.judge(
        "Table C3, scores",
        "all five printed probabilities come from scores that are multiples of 0.25",
        paper="5 numbers",
        ours=float(len(printed) - wrong),
        error=wrong,
        tolerance=0,
        evidence="margins 7.25, 4, -4.25 and their sums 3, -0.25; a step of 0.25 at 0.98 is 0.005",
    )
    for name, found in values["sets"].items():
        result = found["sensitivity"]
        largest = max((row["amplification"] for row in result["top"]), default=float("nan"))
        yield _common.judge(
            f"C.5.2, {name}",
            "fragile quadruples exist among responses that nobody composed",
            paper="composed by hand",
            ours=float(result["total"]),
            error=float(result["total"] == 0),
            tolerance=0,
            evidence=f"in {result['prompts_with']} of {result['prompts']} prompts; p_ij moves up "
            f"to {largest:.3g} times as far as p_ik among those listed"
            if result["total"]
            else f"none in {result['prompts']} prompts",
        )


def plot(folder: Path) -> list[Path]:
    """Draw nothing: the item is a table."""
    return []


def main(arguments: list[str] | None = None) -> int:
    """Search public scores, or with --model rewrite a reward model's pairs."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model")
    options, rest = parser.parse_known_args(arguments)
    if options.model is None:
        return _common.run_script(NAME, sys.modules[__name__], rest)
    given = ["--model", options.model, "--data", str(data_folder() / "hh_rlhf")]
    return run(["rewards", "rewrite", *given, *rest])


if __name__ == "__main__":
    sys.exit(main())
