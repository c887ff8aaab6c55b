"""Our own: the derivative of what a policy learns with respect to its data, through training.

Item: ext. 1, beside Eq. 4 and section 3.1.
Claim: none of the paper's. Is a trained policy more or less sensitive than the preference model
    that its data follow? The derivative of the learned p13 and p23 with respect to the data's p23,
    by forward-mode differentiation through every step of DPO (labels in exact expectation instead
    of samples), against finite differences of retrained runs, beside Eq. 4's sensitivity.
Command: python experiments/ext1_training_sensitivity.py [--smoke] [--out FOLDER]
Minutes: 4 once the reference is fine-tuned (10, cached). Device: CPU or GPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _animal_policies as policies
import _common
import jax
import jax.numpy as jnp
import numpy as np
from _animal_policies import FineTuning
from _common import Progress

from jaxpref import sensitivity
from jaxpref.links import logistic
from jaxpref.llm.animals import ANIMALS, ORDERED_PAIRS, PERMUTATIONS, SUPPORT, places_of
from jaxpref.llm.population import Members, train_member
from jaxpref.llm.probe import exact_probe_of_rows
from jaxpref.llm.rows import Rows
from jaxpref.llm.sweep import Setting, SweepOptions, member_batches, prepare, sweep_grid
from jaxpref.report.figures import INK, save_figure

NAME = "ext1_training_sensitivity"
PAIRS = {"12": (0, 1), "23": (1, 2), "13": (0, 2)}
# A central difference over 0.02 in float32: rounding of the retrained runs and the curvature of
# p23 together are to stay below 2% of the derivative; where p23 turns steeply they need not.
AGREES = 0.02
ALIKE = 0.1


@dataclass(frozen=True)
class Config:
    """The data, the training, and the step of the finite differences."""

    p12: float = 0.99
    p23: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.6)
    omega: tuple[str, ...] = PERMUTATIONS[0]
    steps: int = 32
    batch_size: int = 16
    beta: float = 0.1
    learning_rate: float = 1e-4
    step: float = 0.01
    seed: int = 0
    fine_tuning: FineTuning = FineTuning()


SMOKE = replace(
    Config(), p23=(0.3,), steps=2, batch_size=4, fine_tuning=FineTuning(steps=2, warmup=1)
)


def label_lines(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Return constant and slope in p23 of the probability that the second named animal wins.

    For each of ORDERED_PAIRS; the pair (omega_1, omega_3) is in no data, and 0.
    """
    one, two, three = places_of(config.omega)
    constant, slope = np.zeros(6, np.float32), np.zeros(6, np.float32)
    constant[ORDERED_PAIRS.index((one, two))] = 1 - config.p12
    constant[ORDERED_PAIRS.index((two, one))] = config.p12
    constant[ORDERED_PAIRS.index((two, three))] = 1
    slope[ORDERED_PAIRS.index((two, three))] = -1
    slope[ORDERED_PAIRS.index((three, two))] = 1
    return constant, slope


def training(config: Config, setting: Setting) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """Return the function from the data's p23 to what the trained policy prefers.

    Which rows the steps see is drawn once; how their labels read is p23's alone, in expectation.
    """
    options = SweepOptions(pairs=config.steps * config.batch_size, batch_size=config.batch_size)
    (member,) = sweep_grid(
        omegas=[config.omega],
        p12=[config.p12],
        p23=[0.5],
        seeds=[config.seed],
        betas=[config.beta],
        learning_rates=[config.learning_rate],
    )
    drawn = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), member_batches([member], options))
    pair = np.unravel_index(np.asarray(drawn.batches.rows), SUPPORT)[1]
    constant, slope = (jnp.asarray(line[pair]) for line in label_lines(config))
    # Above 0 to differentiate Adam: its root has no slope at a gradient of 0.
    recipe = replace(setting.recipe, eps_root=1e-10)
    graphdef, probe = setting.model.graphdef, setting.probe
    asked = Rows(*map(jnp.asarray, probe.rows))

    def prefer(params: Any, data: Any) -> dict[str, jax.Array]:
        found = exact_probe_of_rows(graphdef, params, probe._replace(rows=asked), batch=4)
        names = {name: (config.omega[i], config.omega[j]) for name, (i, j) in PAIRS.items()}
        return {
            "margin": jnp.stack([found.margin(*pair) for pair in names.values()]),
            "p": jnp.stack([found.probability(*pair) for pair in names.values()]),
            "format_mass": jnp.mean(found.format_mass),
        }

    def train(p23: jax.Array) -> dict[str, jax.Array]:
        batches = drawn.batches._replace(reversed=constant + slope * p23)
        return train_member(
            graphdef,
            setting.model.params,
            Rows(*map(jnp.asarray, setting.rows)),
            jnp.asarray(setting.reference_logps),
            Members(batches, drawn.settings),
            None,
            recipe=recipe,
            evaluation=prefer,
        ).evaluation

    return train


def measure(config: Config, setting: Setting, progress: Progress | None) -> list[dict[str, Any]]:
    """Return, for each p23, what is learned, its derivative, and the finite differences."""
    train = training(config, setting)
    run = jax.jit(train)
    both = jax.jit(lambda p: jax.jvp(train, (p,), (jnp.ones_like(p),)))
    found = []
    for done, p23 in enumerate(config.p23):
        learned, slope = jax.tree.map(np.asarray, both(jnp.float32(p23)))
        # The step as float32 has it, on either side.
        high, low = np.float32(p23 + config.step), np.float32(p23 - config.step)
        above, below = run(high)["p"], run(low)["p"]
        difference = (np.asarray(above) - np.asarray(below)) / float(high - low)
        found.append(row(config, p23, learned, slope, difference))
        if progress is not None:
            progress(done + 1, len(config.p23))
    return found


def row(
    config: Config, p23: float, learned: Any, slope: Any, difference: np.ndarray
) -> dict[str, Any]:
    """Return one p23's line of the result."""
    names = list(PAIRS)
    margin = dict(zip(names, learned["margin"].tolist(), strict=True))
    data = [float(logistic.margin(p)) for p in (config.p12, p23)]
    _, of_data = sensitivity(*data)
    _, of_policy = sensitivity(margin["12"], margin["23"])
    derivative = dict(zip(names, slope["p"].tolist(), strict=True))
    return {
        "p23_data": p23,
        "p": dict(zip(names, learned["p"].tolist(), strict=True)),
        "margin": margin,
        "format_mass": float(learned["format_mass"]),
        "derivative": derivative,
        "finite_difference": dict(zip(names, difference.tolist(), strict=True)),
        "policy_13_on_23": derivative["13"] / derivative["23"],
        "eq4_at_learned_margins": float(of_policy),
        "eq4_at_the_data": float(of_data),
    }


def judge(config: Config, lines: list[dict[str, Any]]) -> list[_common.Row]:
    """Return the verdicts: derivatives are right; policy and preference model compared."""
    rows = []
    for line in lines:
        name = f"ext. 1, p23 = {line['p23_data']:g}"
        exact, check = line["derivative"], line["finite_difference"]
        worst = max(abs(exact[pair] - check[pair]) / abs(check[pair]) for pair in ("13", "23"))
        rows.append(
            _common.judge(
                f"{name}: derivative",
                "forward-mode differentiation through training finds what retraining finds",
                paper="finite differences",
                ours=worst,
                error=worst,
                tolerance=AGREES,
                evidence=f"dp13 {exact['13']:.4f} against {check['13']:.4f}, dp23 "
                f"{exact['23']:.4f} against {check['23']:.4f}; {config.steps} steps",
            )
        )
        for against, whose, ours in (
            ("eq4_at_the_data", "the preference model of its data", exact["13"]),
            ("eq4_at_learned_margins", "Bradley-Terry at its own margins", line["policy_13_on_23"]),
        ):
            ratio = ours / line[against]
            rows.append(
                _common.judge(
                    f"{name}: policy and {whose}",
                    f"the policy's p13 is as sensitive as that of {whose}",
                    paper=f"Eq. 4: {line[against]:.3g}",
                    ours=ours,
                    error=abs(ratio - 1),
                    tolerance=ALIKE,
                    evidence=f"{ratio:.2f} times as sensitive; format mass "
                    f"{line['format_mass']:.2f}",
                )
            )
    return rows


def compute(
    config: Config,
    progress: Progress | None = None,
    *,
    model: Path | None = None,
    as_is: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Return what goes into result.json; a smoke run trains too little to judge."""
    part = _common.part
    shared = policies.Config(fine_tuning=config.fine_tuning)
    folder = policies.reference_folder(
        shared, model=model, as_is=as_is, progress=part(progress, 0, 2)
    )
    options = SweepOptions(batch_size=config.batch_size, nouns=config.fine_tuning.nouns)
    setting = prepare(folder, options)
    lines = measure(config, setting, part(progress, 1, 2))
    rows = [] if config == SMOKE else judge(config, lines)
    return _common.result(config, {"lines": lines, "animals": list(ANIMALS)}, rows)


def plot(folder: Path) -> list[Path]:
    """Draw the figure from result.json alone."""
    from matplotlib.figure import Figure

    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    lines = content["values"]["lines"]
    x = [line["p23_data"] for line in lines]
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for pair, colour, marker in (("13", "#0072B2", "s"), ("23", "#D55E00", "^")):
        style = {"color": colour, "marker": marker, "ms": 4, "lw": 1}
        left.plot(x, [line["derivative"][pair] for line in lines], label=f"p{pair}", **style)
        check = [line["finite_difference"][pair] for line in lines]
        left.plot(x, check, color=INK, marker="x", ms=5, lw=0)
    left.plot([], [], color=INK, marker="x", lw=0, label="retrained")
    left.set(xlabel="p23 in the data", ylabel="derivative by the data's p23", ylim=(0, None))
    for name, label, style in (
        ("policy_13_on_23", "policy: dp13 / dp23", "-s"),
        ("eq4_at_learned_margins", "Eq. 4 at its margins", "--"),
        ("eq4_at_the_data", "Eq. 4 at the data's", ":"),
    ):
        right.plot(x, [line[name] for line in lines], style, color=INK, ms=4, lw=1, label=label)
    right.set(xlabel="p23 in the data", ylabel="sensitivity of p13 to p23", yscale="log")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return [save_figure(figure, folder / "derivatives.png")]


def full(config: Config) -> Config:
    """Return the full form: that of the command, there being no larger one."""
    return config


if __name__ == "__main__":
    sys.exit(_common.run_script(NAME, sys.modules[__name__]))
