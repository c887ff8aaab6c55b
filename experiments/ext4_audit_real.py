"""The audit of real leaderboards: what is fragile, how little flips it, and whether it mattered.

Item: our own question; the audit on data people publish.
Claim: where GPT-4 as a judge orders two models differently from the crowd, the crowd's own order
    hung on fewer comparisons; and a leader of thousands of votes can hang on a few of them.
Command: JAXPREF_DATA=folder python experiments/ext4_audit_real.py [--smoke]
Minutes: 3. Device: CPU.

Data, never committed: llmfao (crowd votes and GPT-4's votes on answers of the same 59 language
models), soccer_international (results since 1872), nfl_538 (games since 1920). Ties count as half
wins; home advantage is left out, which the audit does not take.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _common import RESULTS, environment
from ext0_leaderboards import read_sport

import jaxpref as jp
from jaxpref.audit.conclusions import Conclusions
from jaxpref.audit.records import plain
from jaxpref.data import Comparisons, read_comparisons, strong_components
from jaxpref.report.files import check_folder, write_json, write_text

NAME = "ext4_audit_real"
SOCCER = {"team_a": "home_team", "team_b": "away_team", "neutral": "neutral"}
SOCCER |= {"score_a": "home_score", "score_b": "away_score"}
FOOTBALL = {"team_a": "team1", "team_b": "team2", "neutral": "neutral"}
FOOTBALL |= {"score_a": "score1", "score_b": "score2"}


@dataclass(frozen=True)
class Config:
    """What to audit; `rows` keeps the first rows of each sport, `pairs` so many pairs of models."""

    k: int = 5
    rows: int | None = None
    pairs: int | None = None
    links: bool = True


SMOKE = Config(rows=3000, pairs=40, links=False)


def read_all(folder: Path, config: Config) -> dict[str, Comparisons]:
    """Return the data sets, each the largest group that one scale holds together."""
    found = {
        "crowd": read_comparisons(folder / "llmfao" / "crowd-comparisons.csv.gz"),
        "gpt4": read_comparisons(folder / "llmfao" / "gpt4-crowd-comparisons.csv.gz"),
        "soccer": read_sport(
            folder / "soccer_international" / "results.csv.gz", SOCCER, config.rows
        ).comparisons,
        "nfl": read_sport(
            folder / "nfl_538" / "nfl_games.csv.gz", FOOTBALL, config.rows
        ).comparisons,
    }
    for name, data in found.items():
        found[name] = data.select(strong_components(data).members(data.items)[0])
    return found


def describe(data: Comparisons, config: Config) -> dict[str, Any]:
    """Return what is kept of an audit."""
    fit = jp.fit_pairwise(data, ties="half")
    report = jp.audit(fit, comparisons=data, top=5, k=config.k, links=config.links)
    kept = report.to_dict()
    for flip in kept["flips"]:
        flip["moves"] = [
            {key: value for key, value in move.items() if key != "raters"}
            for move in flip["moves"][:10]
        ]
    kept["leaderboard"] = kept["leaderboard"][:10]
    for row in (kept["links"] or {"rows": []})["rows"]:
        row["reversals"] = row["reversals"][:5]
    names = ("summary", "regime", "cut", "flips", "groups", "dominance", "multiplicity", "links")
    more = ("leaderboard", "fragile", "collect")
    size = {"items": data.num_items, "comparisons": data.num_comparisons, "ties": data.num_ties}
    return size | {name: kept[name] for name in (*names, *more)}


def disagreements(crowd: Comparisons, judge: Comparisons, config: Config) -> dict[str, Any]:
    """Return how far pairs that a second judge orders otherwise were fragile in the first one's."""
    names = [name for name in crowd.items if name in set(judge.items)]
    crowd, judge = crowd.select(names), judge.select(names)
    fit, other = jp.fit_pairwise(crowd, ties="half"), jp.fit_pairwise(judge, ties="half")
    conclusions, matrix = Conclusions(fit, crowd), fit.covariance()
    a, b = np.triu_indices(len(names), 1)
    chosen = np.arange(len(a))
    if config.pairs is not None:
        chosen = np.random.default_rng(0).choice(len(a), config.pairs, replace=False)
    rows = []
    for i, j in zip(a[chosen].tolist(), b[chosen].tolist(), strict=True):
        if fit.scores[i] < fit.scores[j]:
            i, j = j, i
        flip = conclusions.pair(names[i], names[j], "drop")
        error = np.sqrt(matrix[i, i] + matrix[j, j] - 2 * matrix[i, j])
        rows.append(
            {
                "ahead": names[i],
                "behind": names[j],
                "crowd": fit.probability(names[i], names[j]),
                "gpt4": other.probability(names[i], names[j]),
                "errors_apart": float((fit.scores[i] - fit.scores[j]) / error),
                "drops": flip.comparisons,
            }
        )
    differ = np.array([row["gpt4"] < 0.5 for row in rows])
    drops = np.array([np.inf if row["drops"] is None else row["drops"] for row in rows])
    apart = np.array([row["errors_apart"] for row in rows])
    bands = []
    for low, high in ((1, 1), (2, 5), (6, 20), (21, 60), (61, np.inf)):
        inside = (drops >= low) & (drops <= high)
        bands.append(
            {
                "drops": f"{low}" if low == high else f"{low} to {high:g}",
                "pairs": int(inside.sum()),
                "differ": int(differ[inside].sum()),
                "share": float(differ[inside].mean()) if inside.any() else None,
            }
        )
    certain = differ & (apart > 1.96)
    boldest = sorted((rows[n] for n in np.flatnonzero(differ)), key=lambda row: -row["drops"])
    return {
        "items": len(names),
        "pairs": len(rows),
        "differ": int(differ.sum()),
        "share": float(differ.mean()),
        "differ_beyond_two_errors": int(certain.sum()),
        "median_drops_where_they_agree": float(np.median(drops[~differ])),
        "median_drops_where_they_differ": float(np.median(drops[differ])),
        "area_under_curve": area_under_curve(-drops, differ),
        "kendall_tau": 1 - 2 * float(differ.mean()),
        "winners": [fit.rank()[0], other.rank()[0]],
        "top_k": [list(fit.rank()[: config.k]), list(other.rank()[: config.k])],
        "bands": bands,
        "boldest": boldest[:15],
        "points": [[row["crowd"], row["gpt4"], row["drops"]] for row in rows],
    }


def area_under_curve(value: np.ndarray, positive: np.ndarray) -> float:
    """Return how often a positive has the larger value, ties counting as half.

    >>> area_under_curve(np.array([3.0, 1.0, 2.0]), np.array([True, False, False]))
    1.0
    """
    one, none = value[positive], value[~positive]
    larger = (one[:, None] > none).mean()
    return float(larger + (one[:, None] == none).mean() / 2)


def compute(folder: Path, config: Config) -> dict[str, Any]:
    """Return the values of the report."""
    data = read_all(folder, config)
    values: dict[str, Any] = {name: describe(each, config) for name, each in data.items()}
    values["crowd_against_gpt4"] = disagreements(data["crowd"], data["gpt4"], config)
    return {"config": asdict(config), "values": plain(values), "environment": environment()}


def table(content: dict[str, Any]) -> str:
    """Return what would flip each leaderboard, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("data", "conclusion", "ahead", "behind", "budget", "comparisons", "status"))
    for name in ("crowd", "gpt4", "soccer", "nfl"):
        for flip in content["values"][name]["flips"]:
            what = flip["question"] if flip["k"] is None else f"top {flip['k']}"
            row = (flip["ahead"], flip["behind"], flip["budget"], flip["comparisons"])
            writer.writerow((name, what, *row, flip["status"]))
    return text.getvalue()


def plot(content: dict[str, Any], folder: Path) -> None:
    """Draw the two judges against each other, and what would flip each leaderboard."""
    from matplotlib.figure import Figure

    values = content["values"]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    points = np.array(
        [[x, y, np.nan if d is None else d] for x, y, d in values["crowd_against_gpt4"]["points"]]
    )
    shade = np.log10(points[:, 2])
    drawn = left.scatter(points[:, 0], points[:, 1], c=shade, s=9, cmap="viridis")
    left.axhline(0.5, color="0.4", linewidth=0.8)
    left.set_xlabel("crowd: chance of the model ahead")
    left.set_ylabel("GPT-4 as the judge: the same")
    bar = figure.colorbar(drawn, ax=left, label="votes to drop until the crowd's order turns")
    ticks = [n for n in range(4) if 10**n <= np.nanmax(points[:, 2])]
    bar.set_ticks(ticks, labels=[f"{10**n}" for n in ticks])
    names, shift = ("crowd", "gpt4", "soccer", "nfl"), {"drop": -0.27, "add": 0.0, "change": 0.27}
    for budget, color in zip(shift, ("#0072B2", "#E69F00", "#009E73"), strict=True):
        for place, name in enumerate(names):
            found = [f for f in values[name]["flips"] if f["budget"] == budget]
            for marker, question in (("o", "winner"), ("^", "top_k")):
                for flip in (f for f in found if f["question"] == question and f["comparisons"]):
                    label = f"{budget}" if (place, question) == (0, "winner") else None
                    at = place + shift[budget]
                    right.scatter(at, flip["comparisons"], c=color, marker=marker, label=label)
    right.set_yscale("log")
    right.set_xticks(range(4), labels=[f"{n}\n{values[n]['comparisons']:,.0f}" for n in names])
    right.set_ylabel("comparisons until it flips")
    right.set_title("best item (dots), top 5 (triangles)", fontsize=10)
    right.legend(frameon=False)
    figure.savefig(folder / f"{NAME}.png", dpi=130)


def main() -> None:
    """Compute, write the values, the table and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = os.environ.get("JAXPREF_DATA")
    if not data:
        parser.error("set JAXPREF_DATA to the folder of the data sets")
    jax.config.update("jax_enable_x64", True)
    content = compute(Path(data), SMOKE if options.smoke else Config())
    folder = options.out or (None if options.smoke else RESULTS / NAME)
    for name in ("crowd", "gpt4", "soccer", "nfl"):
        print(f"{name}: " + " ".join(content["values"][name]["summary"]), end="\n\n")
    both = content["values"]["crowd_against_gpt4"]
    print({key: both[key] for key in both if key not in ("points", "boldest")})
    if folder is not None:
        write_json(check_folder("--out", folder) / "result.json", content)
        write_text(folder / "flips.csv", table(content))
        plot(content, folder)


if __name__ == "__main__":
    main()
