"""Leaderboards of three public data sets, with ties and home advantage modelled.

Item: our own question; the worked examples of fitting.
Claim: ties by Davidson's and by Rao and Kupper's model give nearly the same ranking as half wins,
    but only they predict ties; the home advantage is many standard errors from 0 in both sports.
Command: JAXPREF_DATA=folder python experiments/ext0_leaderboards.py [--smoke]
Minutes: 1. Device: CPU.

Data, never committed: llmfao (crowd votes on answers of language models), soccer_international
(results since 1872), nfl_538 (games since 1920). Matches on neutral ground have no home side: the
advantage is a comparison covariate, 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from jaxpref.data import Comparisons, read_comparisons, strong_components
from jaxpref.fit import FitResult, fit_pairwise

RESULTS = Path(__file__).resolve().parent / "results" / "ext0_leaderboards"


@dataclass(frozen=True)
class Config:
    """What to fit; `rows` keeps the first rows of each sport, None all."""

    ties: tuple[str, ...] = ("half", "davidson", "rao_kupper")
    rows: int | None = None


SMOKE = Config(ties=("half", "davidson"), rows=5000)


class Matches(NamedTuple):
    """Results of a sport by cell, with whether the first side was at home."""

    comparisons: Comparisons
    home: np.ndarray


def read_sport(path: Path, names: dict[str, str], rows: int | None) -> Matches:
    """Return the matches of a file, the largest strongly connected group of teams.

    `names` maps team_a, team_b, score_a, score_b and neutral to the file's columns.
    """
    frame = pl.read_csv(path, infer_schema_length=None, null_values=["NA", ""]).head(rows or 10**9)
    frame = frame.select(**{ours: pl.col(theirs) for ours, theirs in names.items()})
    frame = frame.drop_nulls(["score_a", "score_b"])
    neutral = pl.col("neutral").cast(pl.Utf8).str.to_lowercase().is_in(["true", "1"])
    ahead = pl.col("score_a") - pl.col("score_b")
    cells = (
        frame.with_columns(home=(~neutral).cast(pl.Float64), ahead=ahead.sign())
        .group_by("team_a", "team_b", "home")
        .agg(*(pl.col("ahead").eq(s).sum().alias(n) for n, s in (("w", 1), ("l", -1), ("t", 0))))
        .sort("team_a", "team_b", "home")
    )
    items = tuple(sorted(set(cells["team_a"]) | set(cells["team_b"])))
    place = {name: k for k, name in enumerate(items)}
    a, b = (np.array([place[t] for t in cells[c]], np.int32) for c in ("team_a", "team_b"))
    whole = Comparisons(items, a, b, *(cells[c].to_numpy().astype(float) for c in ("w", "l", "t")))
    kept = strong_components(whole).labels == 0
    inside = kept[a] & kept[b]
    chosen = whole.select([name for name, keep in zip(items, kept, strict=True) if keep])
    return Matches(chosen, cells["home"].to_numpy()[inside])


def summarise(fit: FitResult) -> dict[str, Any]:
    """Return what the report keeps of a fit."""
    return {
        "status": fit.status,
        "steps": fit.steps,
        "gradient_norm": fit.gradient_norm,
        "log_likelihood": fit.log_likelihood,
        "effects": {
            effect.name: {"estimate": effect.estimate, "standard_error": effect.standard_error}
            for effect in fit.effects
        },
        "top": list(fit.rank()[:10]),
    }


def compute(folder: Path, config: Config) -> tuple[dict[str, Any], dict[str, FitResult]]:
    """Return the values of the report, and the fits by name."""
    soccer = {"team_a": "home_team", "team_b": "away_team", "neutral": "neutral"}
    soccer |= {"score_a": "home_score", "score_b": "away_score"}
    football = {"team_a": "team1", "team_b": "team2", "neutral": "neutral"}
    football |= {"score_a": "score1", "score_b": "score2"}
    votes = read_comparisons(folder / "llmfao" / "crowd-comparisons.csv.gz")
    data = {
        "llmfao": Matches(votes, np.zeros(0)),
        "soccer": read_sport(
            folder / "soccer_international" / "results.csv.gz", soccer, config.rows
        ),
        "nfl": read_sport(folder / "nfl_538" / "nfl_games.csv.gz", football, config.rows),
    }
    values: dict[str, Any] = {}
    fits: dict[str, FitResult] = {}
    for name, (comparisons, home) in data.items():
        columns = {"home": home} if len(home) else None
        values[name] = {
            "items": comparisons.num_items,
            "comparisons": comparisons.num_comparisons,
            "ties": comparisons.num_ties,
        }
        for ties in config.ties:
            fit = fit_pairwise(comparisons, ties=ties, comparison_covariates=columns)
            fits[f"{name}_{ties}"] = fit
            values[name][ties] = summarise(fit)
        values[name]["rank_agreement"] = {
            ties: _agreement(fits[f"{name}_half"], fits[f"{name}_{ties}"]) for ties in config.ties
        }
    return values, fits


def _agreement(one: FitResult, other: FitResult) -> float:
    """Return Spearman's correlation of two rankings of the same items."""
    ranks = [np.argsort(np.argsort(fit.scores)) for fit in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def main() -> None:
    """Fit, and write result.json and one CSV for each leaderboard."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a few thousand rows, write nothing")
    smoke = parser.parse_args().smoke
    folder = os.environ.get("JAXPREF_DATA")
    if not folder:
        parser.error("the environment variable JAXPREF_DATA must name the folder of the data sets")
    config = SMOKE if smoke else Config()
    values, fits = compute(Path(folder), config)
    print(json.dumps(values, indent=1, ensure_ascii=False))
    if smoke:
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    environment = {"python": platform.python_version()}
    environment |= {name: version(name) for name in ("jaxpref", "numpy", "jax", "polars")}
    result = {"config": asdict(config), "values": values, "environment": environment}
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "result.json").write_text(text, encoding="utf-8")
    for name, fit in fits.items():
        numbers = pl.col(pl.Float64).round(6)
        fit.to_frame().with_columns(numbers).write_csv(RESULTS / f"{name}.csv")


if __name__ == "__main__":
    main()
