"""Figure C5: policies trained on a p12 of 0.5, not dominant, as the data's p23 goes from 0 to 1.

Item: Fig. C5, appendix C.4.
Claim: with p12 = 0.5 the learned p13 changes in proportion to p23; the jump is gone.
Command: python experiments/figC5_balanced_preferences.py [--full] [--processes 2] [--model DIR]
    [--as-is] [--learning-rate RATE] [--smoke] [--out FOLDER]
Minutes: 4 for one permutation and one seed once the reference is fine-tuned (7, cached); 26 for
    all (--full) on two cores. What is trained is kept, and a run that was stopped goes on from it.
    Device: CPU or GPU.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial

import _animal_figures as figures
from _animal_policies import Config as _Config
from _animal_policies import FineTuning

NAME = "figC5_balanced_preferences"


@dataclass(frozen=True)
class Config(_Config):
    """As Fig. 3, with p12 at one half."""

    p12: float = 0.5


SMOKE = replace(Config(), p23=(0.0, 1.0), pairs=32, fine_tuning=FineTuning(steps=2, warmup=1))
compute = partial(figures.compute, item="Fig. C5", judge=figures.judge_proportional)
plot, full = figures.plot, figures.full

if __name__ == "__main__":
    sys.exit(figures.run(NAME, sys.modules[__name__]))
