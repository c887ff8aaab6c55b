"""Our own: how the jump of Figure 3 depends on what the paper leaves open about the training.

Item: ext. 5, beside Fig. 3.
Claim: none of the paper's, which does not state the number of samples, and whose learning rate is
    for models ten thousand times larger. Each choice is varied alone: does the learned p13 still
    climb while the learned p23 hardly moves, and how much of the policies' answers stays in format?
    The rate of Fig. 3 here was chosen by this table: of the rates whose p13 goes the whole way from
    below 0.2 it keeps most answers in format.
Command: python experiments/ext5_training_choices.py [--smoke] [--out FOLDER]
Minutes: 12 once the reference is fine-tuned (7, cached). Device: CPU or GPU.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _animal_policies as policies
import _common
from _animal_policies import FineTuning
from _common import Progress

from jaxpref.report.figures import save_figure

NAME = "ext5_training_choices"
LEARNED_CHANGE = 0.1
RISE = 0.5
CHOICES: tuple[dict[str, float], ...] = (
    {},
    {"learning_rate": 5e-5},
    {"learning_rate": 1e-4},
    {"learning_rate": 2e-4},
    {"pairs": 512},
    {"pairs": 2048},
    {"beta": 0.05},
    {"beta": 0.3},
)


@dataclass(frozen=True)
class Config(policies.Config):
    """Fig. 3's training for a coarser grid, and what is varied in it, one at a time."""

    p23: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9)
    choices: tuple[dict[str, float], ...] = CHOICES


SMOKE = replace(
    Config(),
    p23=(0.0, 1.0),
    pairs=32,
    fine_tuning=FineTuning(steps=2, warmup=1),
    choices=({}, {"beta": 0.3}),
)


def described(config: Config, choice: dict[str, float]) -> dict[str, str]:
    """Return a choice in words.

    >>> described(Config(), {"beta": 0.3})
    {'choice': 'beta 0.3'}
    """
    words = {"learning_rate": "rate {:g}", "pairs": "{:g} pairs", "beta": "beta {:g}"}
    named = choice or {name: getattr(config, name) for name in words}
    text = ", ".join(words[name].format(value) for name, value in named.items())
    return {"choice": text if choice else f"as Fig. 3: {text}"}


def compute(
    config: Config,
    progress: Progress | None = None,
    *,
    model: Path | None = None,
    as_is: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Return what goes into result.json; a smoke run trains too little to judge."""
    found, count = [], len(config.choices)
    for number, choice in enumerate(config.choices):
        _, records = policies.trained(
            replace(config, **choice),  # pyright: ignore[reportArgumentType]
            model=model,
            as_is=as_is,
            processes=processes,
            progress=policies.part(progress, number, count),
        )
        (curve,) = policies.curves(records)
        found.append(described(config, choice) | learned(curve))
    rows = [] if config == SMOKE else [judged(each) for each in found]
    return _common.result(config, {"choices": found}, rows)


def learned(curve: dict[str, Any]) -> dict[str, Any]:
    """Return what one choice gives over the data's p23."""
    p23, p13 = policies.means(curve, "p23"), policies.means(curve, "p13")
    return {
        "p23_data": curve["p23_data"],
        "p23": p23.tolist(),
        "p13": p13.tolist(),
        "format_mass": policies.means(curve, "format_mass").tolist(),
        "rise": policies.alike_but_apart(p23, p13, LEARNED_CHANGE),
    }


def judged(found: dict[str, Any]) -> _common.Row:
    """Return whether p13 climbs while the learned p23 hardly moves."""
    p13, mass = found["p13"], found["format_mass"]
    return _common.judge(
        f"ext. 5, {found['choice']}",
        "the learned p13 climbs while the learned p23 hardly changes",
        paper=f"(ours) by {RISE:g} or more within {LEARNED_CHANGE:g}",
        ours=found["rise"],
        error=RISE - found["rise"],
        tolerance=0.0,
        evidence=f"p13 from {min(p13):.2f} to {max(p13):.2f}; format mass from {min(mass):.2f} to "
        f"{max(mass):.2f}",
    )


def plot(folder: Path) -> list[Path]:
    """Draw p13 over the data's p23 and the format mass, a panel a choice."""
    from matplotlib.figure import Figure

    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    choices = content["values"]["choices"]
    rows = -(-len(choices) // 4)
    figure = Figure(figsize=(11, 2.6 * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, 4, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(choices) :]:
        ax.set_visible(False)
    for ax, found in zip(axes.flat, choices, strict=False):
        x = found["p23_data"]
        ax.plot(x, found["p13"], color="#0072B2", marker="s", ms=4, label="p13 (not in the data)")
        ax.plot(x, found["p23"], color="#D55E00", marker="^", ms=4, label="p23")
        ax.plot(x, found["format_mass"], color="0.55", ls=":", label="format mass")
        ax.set_title(found["choice"].removeprefix("as Fig. 3: "), fontsize=8)
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    figure.supxlabel("p23 in the data", fontsize=10)
    figure.supylabel("learned", fontsize=10)
    return [save_figure(figure, folder / "choices.png")]


def full(config: Config) -> Config:
    """Return the full form: that of the command, there being no larger one."""
    return config


if __name__ == "__main__":
    sys.exit(_common.run_script(NAME, sys.modules[__name__]))
