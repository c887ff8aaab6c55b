"""Figure C5: policies trained on a p12 of 0.5, not dominant, as the data's p23 goes from 0 to 1.

Item: Fig. C5, appendix C.4.
Claim: with p12 = 0.5 the learned p13 changes in proportion to p23; the jump is gone.
Command: python experiments/figC5_balanced_preferences.py [--full] [--processes 2] [--model DIR]
    [--as-is] [--learning-rate RATE] [--smoke] [--out FOLDER]
Minutes: 5 for one permutation and one seed once the reference is fine-tuned (7, cached); 40 for
    all (--full) on two cores. What is trained is kept, and a run that was stopped goes on from it.
    Device: CPU or GPU.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _animal_figures as figures
from _animal_policies import Config as _Config
from _animal_policies import FineTuning
from _common import Progress

NAME = "figC5_balanced_preferences"


@dataclass(frozen=True)
class Config(_Config):
    """As Fig. 3, with p12 at one half."""

    p12: float = 0.5


SMOKE = replace(Config(), p23=(0.0, 1.0), pairs=32, fine_tuning=FineTuning(steps=2, warmup=1))
plot, full = figures.plot, figures.full


def compute(
    config: Config,
    progress: Progress | None = None,
    *,
    smoke: bool | None = None,
    model: Path | None = None,
    as_is: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Return what goes into result.json; parameters as the command's."""
    return figures.compute(
        config,
        figures.judge_proportional,
        "Fig. C5",
        smoke=config == SMOKE if smoke is None else smoke,
        model=model,
        as_is=as_is,
        processes=processes,
        progress=progress,
    )


if __name__ == "__main__":
    sys.exit(figures.run(NAME, sys.modules[__name__]))
