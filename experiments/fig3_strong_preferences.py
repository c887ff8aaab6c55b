"""Figure 3: policies trained on a dominant p12 = 0.99, as the data's p23 goes from 0 to 1.

Item: Fig. 3, section 4, appendix C.1 and C.2.
Claim: the learned p13, which no sample is about, jumps from near 0 to near 1 on a minor change of
    p23; models with equal p13 differ in p23, and the reverse.
Command: python experiments/fig3_strong_preferences.py [--full] [--processes 2] [--model DIR]
    [--as-is] [--learning-rate RATE] [--smoke] [--out FOLDER]
Minutes: 4 for one permutation and one seed once the reference is fine-tuned (7, cached); 26 for
    all (--full) on two cores. What is trained is kept, and a run that was stopped goes on from it.
    Device: CPU or GPU.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import _animal_figures as figures
from _animal_policies import Config, FineTuning

NAME = "fig3_strong_preferences"
SMOKE = replace(Config(), p23=(0.0, 1.0), pairs=32, fine_tuning=FineTuning(steps=2, warmup=1))
compute = partial(figures.compute, item="Fig. 3", judge=figures.judge_jump)
plot, full = figures.plot, figures.full

if __name__ == "__main__":
    sys.exit(figures.run(NAME, sys.modules[__name__]))
