"""Our own: the paper's probe, which samples answers, beside the exact one, which sums them.

Item: ext. 6, beside section 4.
Claim: none of the paper's, which draws 200 answers to each question. Summing the probabilities of
    all answers in the format gives the same without noise, as long as the answers stay in it: each
    probability is compared in standard errors of the sample, on trained policies.
Command: python experiments/ext6_two_probes.py [--smoke] [--out FOLDER]
Minutes: 2 once the reference is fine-tuned (7, cached). Device: CPU or GPU.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _animal_policies as policies
import _common
import jax
import numpy as np
from _animal_policies import FineTuning
from _common import Progress

from jaxpref.llm.animals import ANIMALS
from jaxpref.llm.population import train_population
from jaxpref.llm.probe import ExactProbe, SampledProbe, exact_probe, sampled_probe
from jaxpref.llm.sweep import Setting, member_batches, prepare
from jaxpref.llm.tokenizers import load_tokenizer
from jaxpref.report.figures import INK, save_figure

NAME = "ext6_two_probes"
# Of some 15 comparisons the largest is above 3 in one run of 25, if only noise tells them apart.
LARGEST = 3.0


@dataclass(frozen=True)
class Config(policies.Config):
    """Fig. 3's training on a few data sets, and the sampling."""

    p23: tuple[float, ...] = (0.1, 0.3, 0.5, 0.6, 0.7)
    samples: int = 200
    key: int = 0


SMOKE = replace(
    Config(), p23=(0.5,), pairs=32, samples=8, fine_tuning=FineTuning(steps=2, warmup=1)
)


def _parameters(params: Any, data: Any) -> Any:
    """Keep a trained policy whole."""
    del data
    return params


def compute(
    config: Config,
    progress: Progress | None = None,
    *,
    model: Path | None = None,
    as_is: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Return what goes into result.json; a smoke run trains and draws too little to judge."""
    del processes
    folder = policies.reference_folder(config, model=model, as_is=as_is, progress=progress)
    options, members = config.options(), config.members()
    setting = prepare(folder, options)
    blocks = train_population(
        setting.model.graphdef,
        setting.model.params,
        setting.rows,
        setting.reference_logps,
        member_batches(members, options),
        recipe=setting.recipe,
        evaluation=_parameters,
        block=1,
    )
    found: list[dict[str, Any]] = []
    for (_, trained), member in zip(blocks, members, strict=True):
        params = jax.tree.map(lambda leaf: leaf[0], trained.evaluation)
        found += asked(config, setting, folder, params, member.p23)
        if progress is not None:
            progress(len(found), 3 * len(members))
    rows = [] if config == SMOKE else [judged(found)]
    return _common.result(config, {"comparisons": found}, rows)


def asked(
    config: Config, setting: Setting, folder: Path, params: Any, p23: float
) -> list[dict[str, Any]]:
    """Return, for each pair of animals, what both probes find of one policy."""
    policy = setting.model._replace(params=params)
    tokenizer = load_tokenizer(folder, config=policy.config)
    nouns = config.fine_tuning.nouns
    exact = exact_probe(policy, tokenizer, nouns=nouns, batch=4)
    key = jax.random.fold_in(jax.random.key(config.key), round(1000 * p23))
    sampled = sampled_probe(policy, tokenizer, key=key, samples=config.samples, nouns=nouns)
    return [
        {"p23_data": p23, "pair": [a, b], **compared(exact, sampled, a, b)}
        for number, a in enumerate(ANIMALS)
        for b in ANIMALS[number + 1 :]
    ]


def compared(exact: ExactProbe, sampled: SampledProbe, a: str, b: str) -> dict[str, Any]:
    """Return both probabilities, and how many standard errors apart they are."""
    p, share = float(exact.probability(a, b)), sampled.probability(a, b)
    return {
        "exact": p,
        "sampled": share,
        "standard_error": sampled.standard_error(a, b),
        "standard_errors_apart": abs(share - p) / sampled.standard_error(a, b),
        "format_mass": float(np.mean(exact.format_mass)),
        "in_format": float(np.mean(sampled.in_format) / sampled.counts[0].sum()),
        "unparsable": float(np.mean(sampled.unparsable)),
    }


def judged(found: list[dict[str, Any]]) -> _common.Row:
    """Return whether sampling tells more than its own noise."""
    largest = max(line["standard_errors_apart"] for line in found)
    apart = max(abs(line["exact"] - line["sampled"]) for line in found)
    mass = min(line["format_mass"] for line in found)
    lost = max(line["unparsable"] for line in found)
    return _common.judge(
        "ext. 6, probes",
        "the sampled probe finds what the exact one does",
        paper=f"(ours) within {LARGEST:g} standard errors",
        ours=largest,
        error=largest,
        tolerance=LARGEST,
        evidence=f"{len(found)} pairs of {len(found) // 3} policies, at most {apart:.3f} apart; "
        f"format mass at least {mass:.2f}; at most {100 * lost:.0f}% of the answers unparsable",
    )


def plot(folder: Path) -> list[Path]:
    """Draw the sampled over the exact probability."""
    from matplotlib.figure import Figure

    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    lines = content["values"]["comparisons"]
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", lw=1)
    axes.errorbar(
        [line["exact"] for line in lines],
        [line["sampled"] for line in lines],
        yerr=[line["standard_error"] for line in lines],
        fmt="o",
        color=INK,
        ms=4,
        lw=1,
    )
    axes.set(xlabel="exact probability", ylabel="share of the sampled answers")
    axes.spines[["top", "right"]].set_visible(False)
    return [save_figure(figure, folder / "probes.png")]


def full(config: Config) -> Config:
    """Return the full form: that of the command, there being no larger one."""
    return config


if __name__ == "__main__":
    sys.exit(_common.run_script(NAME, sys.modules[__name__]))
