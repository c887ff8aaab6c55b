"""Figures 3, C4 and C5 in one form: compute, judge, draw.

Each is a sweep over p23 for permutations of three animals. The paper's two observations become
numbers: how little p23 changes while p13 goes from below 0.2 to above 0.8, against the p23 of the
data and against the p23 that the policy learned; and how far models differ in one learned
probability that agree in the other.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _animal_policies as policies
import _common
import numpy as np
from _animal_policies import Config, named

from jaxpref.cli import _terminal
from jaxpref.llm.animals import PERMUTATIONS
from jaxpref.report.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOW, HIGH = 0.2, 0.8
LEARNED_CHANGE = 0.05
DATA_CHANGE = 0.1
ALIKE, APART = 0.02, 0.5
IN_FORMAT = 0.5
# Wong (2011): told apart by the colour-blind, and each with a marker of its own.
COLOURS = {"p13": "#0072B2", "p23": "#D55E00", "p12": "#009E73"}
MARKERS = {"p13": "s", "p23": "^", "p12": "^"}


def full(config: Config) -> Config:
    """Return all of a figure: six permutations, three seeds."""
    return replace(config, omegas=PERMUTATIONS, seeds=(0, 1, 2))


def values_of(config: Config, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a figure shows, and what stands beside the learned probabilities."""
    curves = policies.curves(records)
    for curve in curves:
        curve["p13_composed"] = policies.composition(curve).tolist()
        curve["p13_tabular"] = policies.tabular(curve, config.beta)
        p23, p13 = policies.means(curve, "p23"), policies.means(curve, "p13")
        curve["data_change"] = policies.crossing(curve["p23_data"], p13, LOW, HIGH)
        curve["learned_change"] = policies.crossing(p23, p13, LOW, HIGH)
        curve["rise"] = policies.alike_but_apart(p23, p13, LEARNED_CHANGE)
        curve["seeds_crossing"] = [
            policies.crossing(*seed, LOW, HIGH) < LEARNED_CHANGE
            for seed in zip(curve["p23"], curve["p13"], strict=True)
        ]
        curve["same_p13_apart"] = policies.alike_but_apart(p13, p23, ALIKE)
        curve["same_p23_apart"] = policies.alike_but_apart(p23, p13, ALIKE)
        curve["slope_13_on_23"] = _slope(curve)
        curve["least_format_mass"] = float(np.min(policies.means(curve, "format_mass")))
    return {"curves": curves, "trainings": len(records)}


def _slope(curve: dict[str, Any]) -> dict[str, float]:
    """Return a line through p13 over the learned p23: slope, and the share it explains."""
    x, y = np.ravel(curve["p23"]), np.ravel(curve["p13"])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"slope": 0.0, "explained": 0.0}
    return {
        "slope": float(np.polyfit(x, y, 1)[0]),
        "explained": float(np.corrcoef(x, y)[0, 1] ** 2),
    }


def shown(change: float) -> float | str:
    """Return a change of p23, or that p13 never makes the way."""
    return change if np.isfinite(change) else "never from below 0.2 to above 0.8"


def judge_jump(item: str, curve: dict[str, Any]) -> list[_common.Row]:
    """Return the two observations under Fig. 3 for one permutation.

    Where p13 starts is the order's own: the height row asks for the same climb from anywhere.
    """
    name, p13 = named(curve), policies.means(curve, "p13")
    mass = (
        f"p13 between {np.min(p13):.2f} and {np.max(p13):.2f}; format mass at least "
        f"{curve['least_format_mass']:.2f}"
    )
    return [
        _common.judge(
            f"{item}, {name}: against the data",
            "p13 goes from below 0.2 to above 0.8 on a minor change of the data's p23",
            paper=f"change of at most {DATA_CHANGE:g}",
            ours=shown(curve["data_change"]),
            error=curve["data_change"],
            tolerance=DATA_CHANGE + 1e-9,
            evidence=f"least change of the data's p23 that does it; {mass}",
        ),
        _common.judge(
            f"{item}, {name}: against the learned p23",
            "p13 goes from below 0.2 to above 0.8 while the learned p23 hardly changes",
            paper=f"change below {LEARNED_CHANGE:g}",
            ours=shown(curve["learned_change"]),
            error=curve["learned_change"],
            tolerance=LEARNED_CHANGE,
            evidence="least change of the learned p23 that does it; in "
            f"{sum(curve['seeds_crossing'])} of {len(curve['seeds_crossing'])} seeds alone; {mass}",
        ),
        _common.judge(
            f"{item}, {name}: height",
            "p13 climbs as far, from wherever it starts, while the learned p23 hardly changes",
            paper=f"by {HIGH - LOW:g} or more",
            ours=curve["rise"],
            error=HIGH - LOW - curve["rise"],
            tolerance=0.0,
            evidence=f"largest gap of p13 between models whose p23 is within {LEARNED_CHANGE:g}; "
            "where it starts differs from order to order",
        ),
        _common.judge(
            f"{item}, {name}: same p13",
            "models with equal learned p13 differ substantially in p23",
            paper=f"by {APART:g} or more",
            ours=curve["same_p13_apart"],
            error=APART - curve["same_p13_apart"],
            tolerance=0.0,
            evidence=f"largest gap of learned p23 at p13 equal within {ALIKE:g}",
        ),
        _common.judge(
            f"{item}, {name}: same p23",
            "models with equal learned p23 differ substantially in p13",
            paper=f"by {APART:g} or more",
            ours=curve["same_p23_apart"],
            error=APART - curve["same_p23_apart"],
            tolerance=0.0,
            evidence=f"largest gap of learned p13 at p23 equal within {ALIKE:g}",
        ),
    ]


def judge_proportional(item: str, curve: dict[str, Any]) -> list[_common.Row]:
    """Return the observation under Fig. C5 for one permutation: a line, and no jump."""
    name, line = named(curve), curve["slope_13_on_23"]
    return [
        _common.judge(
            f"{item}, {name}: proportional",
            "with p12 = 0.5, p13 changes in proportion to p23",
            paper="a line",
            ours=line["explained"],
            error=1 - line["explained"],
            tolerance=0.1,
            evidence=f"share of the variance of p13 on a line over the learned p23, of slope "
            f"{line['slope']:.2f}",
        ),
        _common.judge(
            f"{item}, {name}: no jump",
            "with p12 = 0.5 the sensitivity is less prominent",
            paper=f"learned p23 changes by more than {LEARNED_CHANGE:g}",
            ours=shown(curve["learned_change"]),
            error=LEARNED_CHANGE - min(curve["learned_change"], 1.0),
            tolerance=0.0,
            evidence="least change of the learned p23 while p13 goes from below 0.2 to above 0.8",
        ),
    ]


Judge = Callable[[str, dict[str, Any]], list[_common.Row]]


def compute(
    config: Config,
    progress: _common.Progress | None = None,
    *,
    item: str,
    judge: Judge,
    model: Path | None = None,
    as_is: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Return what goes into result.json: train, or read what was trained, and judge.

    Parameters
    ----------
    config : Config
        Fewer than three values of p23, as in a smoke run, draw no curve: nothing is judged.
    progress : callable, optional
        Called with (parts done, parts).
    item, judge
        The figure's name in the paper, and the verdicts on one permutation's curve.
    model, as_is, processes
        As the command's.
    """
    folder, records = policies.trained(
        config, model=model, as_is=as_is, processes=processes, progress=progress
    )
    values: dict[str, Any] = {**values_of(config, records), "reference": _balance(folder)}
    judged = len(config.p23) > 2
    rows = [row for curve in values["curves"] for row in judge(item, curve)] if judged else []
    return _common.result(config, values, rows)


def _balance(folder: Path) -> dict[str, Any]:
    path = folder / "balance.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


# --- figures ------------------------------------------------------------------------------------


def plot(folder: Path) -> list[Path]:
    """Draw the learned probabilities over the data's p23, and p13 over the learned p23."""
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    curves = content["values"]["curves"]
    data = _panels(curves, _over_data, "p23 in the data", "learned probability")
    learned = _panels(curves, _over_learned, "learned p23", "learned p13")
    return [
        save_figure(data, folder / "over_data.png"),
        save_figure(learned, folder / "over_learned.png"),
    ]


def _panels(curves: list[dict[str, Any]], draw: Any, x: str, y: str) -> Figure:
    from matplotlib.figure import Figure

    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    size = (3.0 * columns + 1.4, 2.9 * rows + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(curves) :]:
        ax.set_visible(False)
    for ax, curve in zip(axes.flat, curves, strict=False):
        draw(ax, curve)
        ax.set_title(", ".join(_numbered(curve["omega"])), fontsize=9)
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    count = min(4, 2 * columns)
    figure.legend(
        handles, labels, loc="outside upper center", ncols=count, frameon=False, fontsize=8
    )
    figure.supxlabel(x, fontsize=10)
    figure.supylabel(y, fontsize=10)
    return figure


def _numbered(omega: Sequence[str]) -> list[str]:
    return [f"{number} {animal}" for number, animal in enumerate(omega, 1)]


def _over_data(ax: Axes, curve: dict[str, Any]) -> None:
    x = np.asarray(curve["p23_data"])
    labels = {"p13": "p13 (not in the data)", "p23": "p23", "p12": "p12"}
    for name in ("p12", "p23", "p13"):
        each = np.asarray(curve[name])
        mean, spread = each.mean(axis=0), each.std(axis=0)
        ax.fill_between(x, mean - spread, mean + spread, color=COLOURS[name], alpha=0.2, lw=0)
        ax.plot(x, mean, color=COLOURS[name], marker=MARKERS[name], ms=3, lw=1, label=labels[name])
    mass = np.asarray(curve["format_mass"]).mean(axis=0)
    ax.plot(x, mass, color="0.55", lw=0.8, ls=":", label="format mass")


def _over_learned(ax: Axes, curve: dict[str, Any]) -> None:
    x, y = np.asarray(curve["p23"]), np.asarray(curve["p13"])
    for seed in range(len(x)):
        ax.plot(
            x[seed],
            y[seed],
            color=COLOURS["p13"],
            marker="s",
            ms=3,
            lw=0.6,
            alpha=0.7,
            label="learned" if seed == 0 else None,
        )
    p12 = float(np.mean(curve["p12"]))
    grid = np.linspace(0.0005, 0.9995, 400)
    composed = 1 / (1 + (1 - p12) / p12 * (1 - grid) / grid)
    ax.plot(grid, composed, color="0.4", lw=1, ls="--", label="composed of p12 and p23 (Eq. 1)")


# --- as a program -------------------------------------------------------------------------------


def run(name: str, module: Any, arguments: list[str] | None = None) -> int:
    """Run a figure as a program; 3 if a verdict is not the recorded one."""
    parser = argparse.ArgumentParser(description=module.__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="the small form, for tests")
    parser.add_argument("--full", action="store_true", help="six permutations, three seeds")
    parser.add_argument("--model", type=Path, help="a checkpoint; stories260K when left out")
    parser.add_argument("--as-is", action="store_true", help="no fine-tuning on the templates")
    parser.add_argument("--learning-rate", type=float, help="its peak")
    parser.add_argument("--processes", type=int, default=1, help="one core each")
    parser.add_argument("--out", type=Path, help="folder for the results")
    options = parser.parse_args(arguments)
    own = options.model is None and options.learning_rate is None and not options.as_is
    if not own and options.out is None:
        parser.error("--out: expected a folder: the record is of the script's own model")
    config = module.SMOKE if options.smoke else module.Config()
    config = full(config) if options.full else config
    if options.learning_rate is not None:
        config = replace(config, learning_rate=options.learning_rate)
    with _terminal.progress("Training", percent=True) as move:
        content = module.compute(
            config,
            move,
            model=options.model,
            as_is=options.as_is,
            processes=options.processes,
        )
    recorded = _common.load(_common.RESULTS / name)
    folder = options.out or (None if options.smoke else _common.RESULTS / name)
    if folder is not None:
        _common.save(content, folder)
        plot(folder)
    _common.show(content["comparison"])
    failed = _common.missed_alike(config, content, recorded, own=own)
    for failure in failed:
        print(f"failed: {failure}", file=sys.stderr)
    return 3 if failed else 0
