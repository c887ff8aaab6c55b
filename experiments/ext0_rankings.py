"""Rankings out of reward scores, and what clustering does to the intervals of crowd votes.

Item: our own question; the worked examples of fit_rankings, sandwich and bootstrap.
Claim: answers of many models to one prompt, ordered by a reward model, are rankings, and
    Plackett-Luce puts the models on one scale; pairs out of those rankings, taken as independent,
    claim standard errors that are too small. Crowd votes of one worker belong together: standard
    errors clustered by worker differ from the information's.
Command: JAXPREF_DATA=folder python experiments/ext0_rankings.py [--smoke]
Minutes: 2. Device: CPU.

Data, never committed: ko_rm_judge_scores (scores of 12 models' answers to Korean prompts, no human
label: the "rater" is the reward model), llmfao (crowd votes with ties, by worker).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from jaxpref.data import Rankings, read_comparisons
from jaxpref.fit import (
    RankingFit,
    bootstrap,
    fit_pairwise,
    fit_rankings,
    quasi_variances,
    rank_intervals,
    sandwich_covariance,
    score_intervals,
)

RESULTS = Path(__file__).resolve().parent / "results" / "ext0_rankings"


@dataclass(frozen=True)
class Config:
    """Which sets of prompts, how many resamples, and the seed of the draws."""

    datasets: tuple[str, ...] = ("alpaca-eval-ko", "gpt4evol", "ko-ethical-questions")
    resamples: int = 200
    seed: int = 0


SMOKE = Config(datasets=("gpt4evol",), resamples=20)


def read_scores(path: Path, dataset: str) -> Rankings:
    """Return a ranking of models for each prompt, the highest score first, equal scores tied."""
    scores = pl.read_csv(path).filter(pl.col("dataset") == dataset).drop_nulls("score")
    scores = scores.group_by("prompt_id", "reward_model", "model").agg(pl.col("score").mean())
    ballot = pl.concat_str("prompt_id", "reward_model", separator=" / ")
    several = pl.len().over("prompt_id", "reward_model") > 1
    table = scores.filter(several).select(
        ranking=ballot, rank=-pl.col("score"), item=pl.col("model").str.split("/").list.last()
    )
    return Rankings.from_frame(table.sort("ranking", "rank", "item"))


def leaderboard(fit: Any, columns: dict[str, Any]) -> pl.DataFrame:
    """Return scores with the given columns, in the order of the fit's items, best first."""
    table = pl.DataFrame({"item": list(fit.items), "score": fit.scores, **columns})
    return table.sort("score", descending=True).with_columns(pl.col(pl.Float64).round(6))


def reward_rankings(path: Path, dataset: str, config: Config) -> tuple[dict, pl.DataFrame]:
    """Fit the rankings of one set of prompts, with and without tie parameters."""
    rankings = read_scores(path, dataset)
    tied = rankings.tie_sizes().size > 0
    fit: RankingFit = fit_rankings(rankings, ties="davidson_luce")
    pairs = fit_pairwise(rankings.comparisons(), ties="half")
    again = bootstrap(fit, key=jax.random.key(config.seed), resamples=config.resamples)
    errors, spread = fit.standard_errors(), again.standard_errors()
    ranks = rank_intervals(fit, key=jax.random.key(config.seed + 1))
    values = {
        "items": rankings.num_items,
        "rankings": rankings.num_rankings,
        "ties": [int(k) for k in rankings.tie_sizes()],
        "tie_parameters": np.exp(fit.log_tie_parameters).tolist() if tied else [],
        "status": fit.status,
        "gradient_norm": fit.gradient_norm,
        "log_likelihood": fit.log_likelihood,
        "bootstrap_over_information": float(np.mean(spread / errors)),
        "pairs_over_rankings_standard_error": float(np.mean(pairs.standard_errors() / errors)),
        "separable_resamples": again.separable,
        "top": list(fit.rank()[:5]),
    }
    table = leaderboard(fit, {
        "standard_error": errors,
        "bootstrap_standard_error": spread,
        "quasi_standard_error": np.sqrt(np.maximum(quasi_variances(fit), 0)),
        "rank_low": [ranks[name].low for name in fit.items],
        "rank_high": [ranks[name].high for name in fit.items],
    })  # fmt: skip
    return values, table


def crowd_votes(path: Path, config: Config) -> tuple[dict, pl.DataFrame]:
    """Fit crowd votes, and compare three standard errors of every score."""
    votes = read_comparisons(path)
    fit = fit_pairwise(votes, ties="half")
    clustered = np.sqrt(np.diag(sandwich_covariance(fit, votes)))
    key = jax.random.key(config.seed)
    again = bootstrap(fit, votes, key=key, resamples=config.resamples, method="rater")
    intervals = score_intervals(fit, covariance=sandwich_covariance(fit, votes))
    errors = fit.standard_errors()
    values = {
        "items": votes.num_items,
        "comparisons": votes.num_comparisons,
        "ties": votes.num_ties,
        "workers": len(votes.raters),
        "status": fit.status,
        "clustered_over_information": float(np.mean(clustered / errors)),
        "rater_bootstrap_over_information": float(np.mean(again.standard_errors() / errors)),
        "separable_resamples": again.separable,
        "top": list(fit.rank()[:5]),
    }
    table = leaderboard(fit, {
        "standard_error": errors,
        "clustered_standard_error": clustered,
        "rater_bootstrap_standard_error": again.standard_errors(),
        "low": [intervals[name].low for name in fit.items],
        "high": [intervals[name].high for name in fit.items],
    })  # fmt: skip
    return values, table


def compute(folder: Path, config: Config) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
    """Return the values of the report, and the leaderboards by name."""
    values: dict[str, Any] = {}
    tables: dict[str, pl.DataFrame] = {}
    scores = folder / "ko_rm_judge_scores" / "scores.csv.gz"
    for dataset in config.datasets:
        values[dataset], tables[dataset] = reward_rankings(scores, dataset, config)
    votes = folder / "llmfao" / "crowd-comparisons.csv.gz"
    values["llmfao"], tables["llmfao"] = crowd_votes(votes, config)
    return values, tables


def main() -> None:
    """Fit, and write result.json and one CSV for each leaderboard."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one set, 20 resamples, no files")
    smoke = parser.parse_args().smoke
    folder = os.environ.get("JAXPREF_DATA")
    if not folder:
        parser.error("the environment variable JAXPREF_DATA must name the folder of the data sets")
    config = SMOKE if smoke else Config()
    values, tables = compute(Path(folder), config)
    print(json.dumps(values, indent=1, ensure_ascii=False))
    if smoke:
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    environment = {"python": platform.python_version()}
    environment |= {name: version(name) for name in ("jaxpref", "numpy", "jax", "polars")}
    result = {"config": asdict(config), "values": values, "environment": environment}
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "result.json").write_text(text, encoding="utf-8")
    for name, table in tables.items():
        table.write_csv(RESULTS / f"{name}.csv")


if __name__ == "__main__":
    main()
