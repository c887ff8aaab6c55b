"""Collecting what the audit says to collect, against collecting at random.

Item: our own question; the audit's fourth one.
Claim: for each of its three objectives, comparisons of the pairs the audit ranks first lower the
    objective further than as many comparisons of pairs drawn uniformly.
Command: python experiments/ext4_audit_collect.py [--smoke]
Minutes: 2. Device: CPU.

Items with normal scores, a start of four comparisons for each of 1.5 pairs an item, then one
comparison at a time: the audit's first pair after a refit, or a uniform one; outcomes are drawn
from the true scores. A weak prior lets every fit exist. Both rules meet the same truth and start.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _common import RESULTS, environment

from jaxpref.audit.collect import OBJECTIVES, what_to_collect
from jaxpref.data import Comparisons
from jaxpref.fit import FitResult, fit_pairwise
from jaxpref.report.files import check_folder, write_json

NAME = "ext4_audit_collect"


@dataclass(frozen=True)
class Config:
    """Size of the simulation."""

    items: int = 12
    deviation: float = 1.0
    comparisons: int = 120
    every: int = 20
    seeds: int = 16
    ridge: float = 0.1


SMOKE = Config(items=6, comparisons=10, every=5, seeds=2)


def begin(config: Config, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return true scores and the counts to start from."""
    rng = np.random.default_rng(seed)
    truth, size = rng.normal(0, config.deviation, config.items), config.items
    wins = np.zeros((size, size))
    pairs = [(k, k + 1) for k in range(size - 1)]
    pairs += [tuple(rng.choice(size, 2, replace=False)) for _ in range(size // 2)]
    for a, b in pairs:
        won = rng.binomial(4, 1 / (1 + np.exp(truth[b] - truth[a])))
        wins[a, b] += won
        wins[b, a] += 4 - won
    return truth, wins


def fit(wins: np.ndarray, config: Config) -> FitResult:
    """Return the fit of some counts."""
    return fit_pairwise(Comparisons.from_counts(wins), ridge=config.ridge)


def wrong_pairs(found: FitResult, truth: np.ndarray) -> float:
    """Return the share of pairs in the wrong order."""
    a, b = np.triu_indices(len(truth), 1)
    agree = np.sign(found.scores[a] - found.scores[b]) == np.sign(truth[a] - truth[b])
    return float(1 - agree.mean())


def run(config: Config, rule: str, objective: str, seed: int) -> list[list[float]]:
    """Return objective and share of wrong pairs along the way, under a rule."""
    truth, wins = begin(config, seed)
    rng = np.random.default_rng([seed, OBJECTIVES.index(objective), rule == "audit"])
    path = []
    for step in range(config.comparisons + 1):
        found = fit(wins, config)
        best = what_to_collect(found, objective=objective, top=1)
        if step % config.every == 0:
            path.append([best.before, wrong_pairs(found, truth)])
        a, b = rng.choice(config.items, 2, replace=False)
        if rule == "audit":
            a, b = found.index(best.rows[0].item_a), found.index(best.rows[0].item_b)
        won = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a]))
        wins[(a, b) if won else (b, a)] += 1
    return path


def compute(config: Config) -> dict[str, Any]:
    """Return means over seeds and the paired difference, with its standard error."""
    values: dict[str, Any] = {}
    for objective in OBJECTIVES:
        paths = {
            rule: np.array([run(config, rule, objective, seed) for seed in range(config.seeds)])
            for rule in ("uniform", "audit")
        }
        gap = paths["uniform"] - paths["audit"]
        error = gap.std(axis=0, ddof=1) / np.sqrt(config.seeds)
        last = gap[:, -1, 0]
        values[objective] = {
            "comparisons": list(range(0, config.comparisons + 1, config.every)),
            "uniform": paths["uniform"].mean(axis=0)[:, 0].tolist(),
            "audit": paths["audit"].mean(axis=0)[:, 0].tolist(),
            "difference": gap.mean(axis=0)[:, 0].tolist(),
            "standard_error": error[:, 0].tolist(),
            "audit_better_in": int((last > 0).sum()),
            "of": config.seeds,
            "wrong_pairs_uniform": float(paths["uniform"].mean(axis=0)[-1, 1]),
            "wrong_pairs_audit": float(paths["audit"].mean(axis=0)[-1, 1]),
            "beats_uniform": bool(last.mean() > 3 * error[-1, 0]),
        }
    return {"config": asdict(config), "values": values, "environment": environment()}


def plot(content: dict[str, Any], folder: Path) -> None:
    """Draw each objective along the way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    titles = {
        "interval": "widest 95% interval",
        "sensitivity": "largest sensitivity",
        "flip": "expected wrong neighbours",
    }
    for axes, objective in zip(figure.subplots(1, 3), OBJECTIVES, strict=True):
        row = content["values"][objective]
        axes.plot(row["comparisons"], row["uniform"], "o--", color="#E69F00", label="uniform")
        axes.plot(row["comparisons"], row["audit"], "o-", color="#0072B2", label="as told")
        axes.set_title(titles[objective], fontsize=10)
        axes.set_xlabel("comparisons collected")
        axes.legend(frameon=False)
    figure.savefig(folder / f"{NAME}.png", dpi=130)


def main() -> None:
    """Compute, write the values and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    content = compute(SMOKE if options.smoke else Config())
    for objective, row in content["values"].items():
        print(objective, {key: row[key] for key in row if key != "comparisons"})
    folder = options.out or (None if options.smoke else RESULTS / NAME)
    if folder is not None:
        write_json(check_folder("--out", folder) / "result.json", content)
        plot(content, folder)


if __name__ == "__main__":
    main()
