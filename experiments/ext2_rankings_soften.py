"""Our own: policies trained on rankings of three instead of pairs, and whether the jump softens.

Item: ext. 2, section 3.2's advice tested on policies.
Claim: longer tuples improve robustness. One policy a p23 by DPO on pairs as in Fig. 3, and one by
    its Plackett-Luce form on rankings of the three animals, at an equal number of answers seen.
    Rankings also say who wins between the first and the third, as the pairs of Fig. 3 do not; a
    third policy sees that in pairs, so that what K = 3 does stands apart from what the data say.
Command: python experiments/ext2_rankings_soften.py [--smoke] [--out FOLDER]
Minutes: 6, the reference's fine-tuning (13, cached) not counted. Device: CPU or GPU.

The reference is that of Fig. 3, fine-tuned further on questions of two and of three animals.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
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

from jaxpref.llm.animal_rankings import (
    ranking_probabilities,
    ranking_support_records,
    sample_animal_rankings,
)
from jaxpref.llm.animals import (
    ORDERED_PAIRS,
    ORDERS_OF_THREE,
    PERMUTATIONS,
    SUPPORT,
    places_of,
    support_records,
    support_row,
)
from jaxpref.llm.batches import Plan, learning_rates
from jaxpref.llm.checkpoints import load_model, save_model
from jaxpref.llm.decoder import LanguageModel
from jaxpref.llm.losses import LossSettings
from jaxpref.llm.population import Members, train_population
from jaxpref.llm.reference import digest, reference_logps
from jaxpref.llm.rows import Rows, completion_width, encode_rows
from jaxpref.llm.sweep import (
    Member,
    ProbeEvaluation,
    Setting,
    SweepOptions,
    learned,
    member_batches,
    prepare,
    sweep_grid,
)
from jaxpref.llm.tokenizers import load_tokenizer
from jaxpref.llm.trainer import TrainOptions, supervised_fine_tune, trim_rows
from jaxpref.llm.training import Batches, Recipe
from jaxpref.report.figures import save_figure
from jaxpref.report.files import write_json

NAME = "ext2_rankings_soften"
LOW, HIGH = 0.2, 0.8
ARMS = {
    "pairs": "pairs, (1, 3) unseen",
    "all_pairs": "pairs, (1, 3) seen",
    "rankings": "rankings of three",
}
COLOURS = {"pairs": "#0072B2", "all_pairs": "#009E73", "rankings": "#D55E00"}
MARKERS = {"pairs": "s", "all_pairs": "o", "rankings": "^"}


@dataclass(frozen=True)
class Config:
    """The data, the trainings, and how the reference is made."""

    p12: float = 0.99
    p23: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0)
    omega: tuple[str, ...] = PERMUTATIONS[0]
    answers: int = 2016  # 63 steps of 16 pairs, or 42 of 16 rankings
    batch_size: int = 16
    beta: float = 0.1
    learning_rate: float = 1e-4
    seed: int = 0
    fine_tuning: FineTuning = FineTuning()
    more_steps: int = 300
    more_rate: float = 1e-3


SMOKE = replace(
    Config(),
    p23=(0.0, 1.0),
    answers=48,
    batch_size=8,
    fine_tuning=FineTuning(steps=2, warmup=1),
    more_steps=2,
)


# --- the reference ------------------------------------------------------------------------------


def knows_both(config: Config, start: Path, *, progress: Progress | None = None) -> Path:
    """Return the reference's folder: fine-tuned on questions of two and of three animals."""
    model = load_model(start)
    settings = (config.more_steps, config.more_rate, config.fine_tuning.nouns, config.seed)
    name = digest(model.params, model.config, settings, "two and three")[:20]
    folder = policies.CACHE / "fine-tuned" / name
    if (folder / "balance.json").exists():
        return folder
    tokenizer = load_tokenizer(start, config=model.config)
    rows = _both_kinds(tokenizer, config.fine_tuning.nouns, model.config.max_position_embeddings)
    plan = _both_plan(config)
    options = TrainOptions(
        learning_rate=config.more_rate,
        schedule="cosine",
        warmup=config.more_steps // 10,
        steps=config.more_steps,
        batch_size=plan.rows.shape[1],
    )
    found = supervised_fine_tune(
        model, rows, completions=1, options=options, plan=plan, progress=progress
    )
    save_model(found.model, folder, tokenizer_from=start, overwrite=True)
    balance = policies.balance(found.model, tokenizer, config.fine_tuning.nouns)
    write_json(folder / "balance.json", balance)
    return folder


def _both_kinds(tokenizer: Any, nouns: str, context: int) -> Rows:
    """Return 7,200 answers about two animals, then 10,800 about three, one a row."""
    kinds = [
        encode_rows(records, tokenizer, max_length=context, shared_prompt=False, too_long="error")
        for records in (support_records(nouns=nouns), ranking_support_records(nouns=nouns))
    ]
    width = max(kind.rows.width for kind in kinds)
    padded = [
        [np.pad(field, ((0, 0), (0, width - kind.rows.width))) for field in kind.rows]
        for kind in kinds
    ]
    return trim_rows(Rows(*map(np.concatenate, zip(*padded, strict=True))))


def _both_plan(config: Config) -> Plan:
    """Return 48 answers about two animals and 54 about three a step, evenly over all of them."""
    settings = replace(config.fine_tuning, steps=config.more_steps)
    two = policies.stratified_plan(replace(settings, rows=24)).rows
    three = policies.stratified_plan(replace(settings, rows=18)).rows
    answers_of_two = (2 * two[..., None] + np.arange(2)).reshape(len(two), -1)
    answers_of_three = (3 * three[..., None] + np.arange(3)).reshape(len(three), -1)
    rows = np.concatenate(
        [answers_of_two, 2 * int(np.prod(SUPPORT)) + answers_of_three], axis=1
    ).astype(np.int32)
    none = np.zeros(len(rows), np.int32)
    return Plan(none, rows, np.ones(rows.shape, np.float32), none)


# --- the three ways of training -----------------------------------------------------------------


def grid(config: Config) -> list[Member]:
    """Return the members: a data set a p23."""
    return sweep_grid(
        omegas=[config.omega],
        p12=[config.p12],
        p23=config.p23,
        seeds=[config.seed],
        betas=[config.beta],
        learning_rates=[config.learning_rate],
    )


def pairs_of_all(config: Config, members: list[Member]) -> Members:
    """Return batches as Fig. 3's, but of all three pairs of the animals, each a third of them."""
    steps = config.answers // 2 // config.batch_size
    shape = (steps, config.batch_size)
    places = places_of(config.omega)
    each = []
    for member in members:
        # The same draws for every p23, as in the sweep: neighbours differ by what p23 turns.
        random = np.random.default_rng([config.seed, *places])
        chance = np.asarray(ranking_probabilities(member.p12, member.p23), np.float64)
        adjacent = np.asarray([(0, 1), (1, 2), (0, 2)])[random.integers(3, size=shape)]
        wins = np.asarray([_wins(chance, i, j) for i, j in ((0, 1), (1, 2), (0, 2))])
        which = adjacent[..., 0] + (adjacent[..., 1] - adjacent[..., 0] == 2) * 2
        in_order = random.random(shape) < wins[which]
        swapped = random.random(shape) < 0.5
        named = np.asarray(places)[np.where(swapped[..., None], adjacent[..., ::-1], adjacent)]
        pair = np.asarray([[_number(i, j) for j in range(3)] for i in range(3)])
        question, answer = (random.integers(size, size=shape) for size in (SUPPORT[0], SUPPORT[2]))
        rows = support_row(question, pair[named[..., 0], named[..., 1]], answer)
        turned = (in_order == swapped).astype(np.float32)
        each.append(_batches(config, rows.astype(np.int32), turned))
    return _stacked(config, each)


def _wins(chance: np.ndarray, i: int, j: int) -> float:
    """Return the probability of the i-th of omega over the j-th, from those of the rankings."""
    return sum(
        p
        for p, order in zip(chance, ORDERS_OF_THREE, strict=True)
        if order.index(i) < order.index(j)
    )


def _number(i: int, j: int) -> int:
    return ORDERED_PAIRS.index((i, j)) if i != j else -1


def _batches(config: Config, rows: np.ndarray, turned: np.ndarray | None) -> Batches:
    rates = np.asarray(learning_rates(config.learning_rate, len(rows)))
    arrays = (rows, np.ones(rows.shape, np.float32), turned, rates)
    return Batches(*arrays)  # pyright: ignore[reportArgumentType]  # on the host, until a block


def _stacked(config: Config, each: list[Batches]) -> Members:
    ones = np.ones(len(each), np.float32)
    settings = LossSettings(config.beta * ones, 0 * ones, ones, ones)
    return Members(jax.tree.map(lambda *leaves: np.stack(leaves), *each), settings)


def rankings(
    config: Config, members: list[Member], tokenizer: Any, context: int
) -> tuple[Rows, Members]:
    """Return the table of all rankings that are drawn, best first, and which each step sees."""
    steps = config.answers // 3 // config.batch_size
    numbers: dict[Any, int] = {}
    each = []
    for member in members:
        drawn = sample_animal_rankings(
            member.omega,
            member.p12,
            member.p23,
            key=config.seed,
            count=steps * config.batch_size,
        ).records(nouns=config.fine_tuning.nouns)
        rows = [numbers.setdefault(r._replace(source=""), len(numbers)) for r in drawn]
        each.append(_batches(config, np.asarray(rows, np.int32).reshape(steps, -1), None))
    encoded = encode_rows(list(numbers), tokenizer, max_length=context, too_long="error")
    return trim_rows(encoded.rows), _stacked(config, each)


def train(
    setting: Setting, rows: Rows, reference: np.ndarray, recipe: Recipe, members: Members
) -> Iterator[np.ndarray]:
    """Yield the log-masses of each trained policy."""
    probe = setting.probe
    blocks = train_population(
        setting.model.graphdef,
        setting.model.params,
        rows,
        reference,
        members,
        recipe=recipe,
        evaluation=ProbeEvaluation(setting.model.graphdef, probe.answers_per_row, probe.width),
        data=Rows(*map(jnp.asarray, probe.rows)),
        block=2,
    )
    for _, trained in blocks:
        yield from trained.evaluation


def arms(config: Config, folder: Path, progress: Progress | None) -> dict[str, Any]:
    """Return, for each way of training, what its policies learned over p23."""
    pairs = config.answers // 2
    options = SweepOptions(
        pairs=pairs, batch_size=config.batch_size, nouns=config.fine_tuning.nouns
    )
    setting, members = prepare(folder, options), grid(config)
    tokenizer, model = load_tokenizer(folder), setting.model
    ranked, ranked_members = rankings(
        config, members, tokenizer, model.config.max_position_embeddings
    )
    ranked_recipe = replace(
        setting.recipe,
        loss="plackett_luce_dpo",
        completions=3,
        logit_width=completion_width(ranked),
    )
    ranked_reference = _reference(model, ranked, ranked_recipe, config.batch_size)
    of_pairs = (setting.rows, setting.reference_logps, setting.recipe)
    jobs = {
        "pairs": (*of_pairs, member_batches(members, options)),
        "all_pairs": (*of_pairs, pairs_of_all(config, members)),
        "rankings": (ranked, ranked_reference, ranked_recipe, ranked_members),
    }
    found, done = {}, 0
    for arm, job in jobs.items():
        curve: list[dict[str, Any]] = []
        for member, mass in zip(members, train(setting, *job), strict=True):
            curve.append(learned(member, mass))
            done += 1
            if progress is not None:
                progress(done, len(jobs) * len(members))
        found[arm] = summary(config, curve)
    return found


def _reference(model: LanguageModel, rows: Rows, recipe: Recipe, batch: int) -> np.ndarray:
    return reference_logps(model.graphdef, model.params, rows, recipe=recipe, batch_size=batch)


def summary(config: Config, curve: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a curve as columns, and how it jumps."""
    columns = {name: [entry[name] for entry in curve] for name in ("p12", "p23", "p13")}
    mass = [min(entry[f"format_mass{pair}"] for pair in ("12", "23", "13")) for entry in curve]
    p13 = np.asarray(columns["p13"])
    return {
        "p23_data": list(config.p23),
        **columns,
        "format_mass": mass,
        "data_change": policies.crossing(config.p23, p13, LOW, HIGH),
        "learned_change": policies.crossing(columns["p23"], p13, LOW, HIGH),
        "largest_step": float(np.max(np.abs(np.diff(p13)))),
    }


def judge(found: dict[str, Any]) -> list[_common.Row]:
    """Return whether rankings are the softer, by each measure and against both kinds of pairs."""
    rows, ranked = [], found["rankings"]
    measures = (
        ("largest_step", "the largest step of p13 between neighbours", 1),
        ("data_change", "the data's p23 has to change over", -1),
        ("learned_change", "the learned p23 has to change over", -1),
    )
    for arm in ("pairs", "all_pairs"):
        for measure, words, sign in measures:
            ours, theirs = ranked[measure], found[arm][measure]
            softer = {1: "is smaller", -1: "more for p13 to go from below 0.2 to above 0.8"}[sign]
            rows.append(
                _common.judge(
                    f"ext. 2, {measure}: rankings against {ARMS[arm]}",
                    f"longer tuples soften the jump: {words} {softer}",
                    paper=f"(ours, of pairs) {_shown(theirs)}",
                    ours=_shown(ours),
                    # Both infinite: neither makes the way, and nothing is softened.
                    error=0.0 if ours == theirs else sign * (ours - theirs),
                    tolerance=-1e-9,
                    evidence=f"least format mass {min(ranked['format_mass']):.2f} of the rankings' "
                    f"policies, {min(found[arm]['format_mass']):.2f} of the others",
                )
            )
    return rows


def _shown(change: float) -> str:
    return f"{change:.3f}" if np.isfinite(change) else "never"


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
    start = policies.reference_folder(
        policies.Config(fine_tuning=config.fine_tuning),
        model=model,
        as_is=as_is,
        progress=part(progress, 0, 3),
    )
    folder = knows_both(config, start, progress=part(progress, 1, 3))
    found = arms(config, folder, part(progress, 2, 3))
    reference = json.loads((folder / "balance.json").read_text(encoding="utf-8"))
    values = {"arms": found, "reference": reference}
    return _common.result(config, values, [] if config == SMOKE else judge(found))


def plot(folder: Path) -> list[Path]:
    """Draw p13 over the data's and over the learned p23, from result.json alone."""
    from matplotlib.figure import Figure

    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, x in zip(panels, ("p23_data", "p23"), strict=True):
        for arm, curve in content["values"]["arms"].items():
            order = np.argsort(curve[x])
            axes.plot(
                np.asarray(curve[x])[order],
                np.asarray(curve["p13"])[order],
                color=COLOURS[arm],
                marker=MARKERS[arm],
                ms=4,
                lw=1,
                label=ARMS[arm],
            )
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set(xlabel="p23 in the data", ylabel="learned p13")
    panels[1].set(xlabel="learned p23")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return [save_figure(figure, folder / "jump.png")]


def full(config: Config) -> Config:
    """Return the full form: the grid of Fig. 3."""
    return replace(config, p23=policies.GRID)


if __name__ == "__main__":
    sys.exit(_common.run_script(NAME, sys.modules[__name__]))
