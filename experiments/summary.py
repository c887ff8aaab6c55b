"""The table of every claim: paper, ours, verdict and why, out of results/*/result.json.

Item: experiments/README.md.
Claim: the table says what the results say, and the results are what the experiments give.
Command: python experiments/summary.py            writes the table
         python experiments/summary.py --check    recomputes everything and compares; 3 if not
Minutes: 2 with --check. Device: CPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import _common
import jax

from jaxpref.report.files import write_text

README = _common.HERE / "README.md"
ITEMS = {
    "fig1": "fig1_bradley_terry_regions",
    "fig2": "fig2_plackett_luce_regions",
    "claims": "claims",
    "gradients": "verify_gradients",
}
TRAINED = {
    "fig3": "fig3_strong_preferences",
    "figC4": "figC4_second_architecture",
    "figC5": "figC5_balanced_preferences",
    "ext1": "ext1_training_sensitivity",
    "ext2": "ext2_rankings_soften",
    "ext5": "ext5_training_choices",
    "ext6": "ext6_two_probes",
}
AUDITED = ("ext4_audit_real", "ext4_audit_collect")
"""Our own questions of the audit, which have findings and no verdicts."""
FITTED = ("ext0_leaderboards", "ext0_rankings")
"""Worked examples of fitting real data sets, likewise."""
MEASURED = (
    "tabC2_dominance",
    "tabC2_crossfit",
    "tabC3_fragile_quadruples",
    "tabC3_rewrites",
    "ext3_mitigation",
)
"""Items on data sets that are never committed; `--check` leaves them as they are recorded."""
FIGURES = (
    "dominance.png",
    "curve.png",
    "regions.png",
    "over_data.png",
    "over_learned.png",
    "derivatives.png",
    "jump.png",
    "choices.png",
    "probes.png",
    "flips.png",
)
HEAD = """# Experiments

One item of the paper, one script, one folder of results; figures are drawn from `result.json`
alone. `jaxpref reproduce` runs the mathematical items, and those that train language models where
they are named (`jaxpref reproduce fig3`). The table is written by `python experiments/summary.py`;
`--check` recomputes it, but for what is trained. The rows of `claims` are computed by
`claims_pairwise`, `claims_rankings` and `claims_rewards`; modules that begin with `_` are shared.

A verdict follows from numbers: the error of what the paper prints, against a tolerance taken from
the printed digits or stated in the script; where the printed form misses and a corrected one is
named, from that one's. Theorems are tested by seeded search for counter-examples.
"""


def recorded() -> dict[str, dict[str, Any]]:
    """Return the committed results of the mathematical items, by folder."""
    found = {name: _common.load(_common.RESULTS / name) for name in ITEMS.values()}
    return {name: content for name, content in found.items() if content is not None}


def trained() -> dict[str, dict[str, Any]]:
    """Return the committed results of the items that train or read data; not all need be there."""
    names = (*TRAINED.values(), *MEASURED)
    found = {name: _common.load(_common.RESULTS / name) for name in names}
    return {name: content for name, content in found.items() if content is not None}


def text(results: dict[str, dict[str, Any]]) -> str:
    """Return the page: claims one by one, then a line for each item of many like rows."""
    parts = [HEAD]
    for name in ("claims", *(name for name in ITEMS.values() if name != "claims")):
        if name in results:
            parts.append(_section(name, results[name]["comparison"]))
    for name in TRAINED.values():
        if name in results:
            about = _trainings(results[name])
            parts.append(_section(name, results[name]["comparison"], about))
    for name in MEASURED:
        if name in results:
            parts.append(_section(name, results[name]["comparison"]))
    describe = (_audited, _collected, _leaderboards, _rankings)
    for name, findings in zip((*AUDITED, *FITTED), describe, strict=True):
        path = _common.RESULTS / name / "result.json"
        if path.exists():
            values = json.loads(path.read_text(encoding="utf-8"))["values"]
            parts.append(_findings(name, findings(values)))
    return "\n".join(parts)


def _findings(name: str, found: list[str]) -> str:
    """Return the section of an item without verdicts."""
    lines = [f"## {name}", "", *(f"* {_escape(line)}" for line in found), ""]
    if (_common.RESULTS / name / f"{name}.png").exists():
        lines += [f"![{name}](results/{name}/{name}.png)", ""]
    return "\n".join(lines)


def _audited(values: dict[str, Any]) -> list[str]:
    """Return what the audit of real leaderboards found."""
    lines = []
    for name in ("crowd", "gpt4", "soccer", "nfl"):
        found = values[name]
        size = f"{found['items']} items, {found['comparisons']:,.0f} comparisons"
        lines.append(f"{name} ({size}). {' '.join(found['summary'][:2])}")
    both = values["crowd_against_gpt4"]
    lines.append(
        f"Crowd against GPT-4: {both['differ']} of {both['pairs']:,} pairs in another order "
        f"({both['differ_beyond_two_errors']} by more than two standard errors). Where they differ "
        f"the crowd's order hung on {both['median_drops_where_they_differ']:g} comparisons in the "
        f"median, where they agree on {both['median_drops_where_they_agree']:g}; that number tells "
        f"the two apart with an area under the curve of {both['area_under_curve']:.2f}."
    )
    return lines


def _collected(values: dict[str, Any]) -> list[str]:
    """Return what collecting by the audit was worth."""
    lines = []
    for objective, found in values.items():
        start, last = found["uniform"][0], found["comparisons"][-1]
        lines.append(
            f"{objective}: from {start:.3g}, {last} comparisons bring it to "
            f"{found['audit'][-1]:.3g} by the audit, to {found['uniform'][-1]:.3g} at random "
            f"(better in {found['audit_better_in']} of {found['of']} runs; difference "
            f"{found['difference'][-1]:.2g}, standard error {found['standard_error'][-1]:.2g})."
        )
    return lines


def _leaderboards(values: dict[str, Any]) -> list[str]:
    """Return what models of ties and of the home advantage make of three leaderboards."""
    lines = []
    for name, found in values.items():
        agree = found["rank_agreement"]
        home = found["half"]["effects"].get("home")
        advantage = home and home["estimate"] / home["standard_error"]
        lines.append(
            f"{name}: {found['items']} items, {found['comparisons']:,.0f} comparisons, "
            f"{found['ties']:,.0f} of them ties. Ranks of Davidson's and of Rao and Kupper's model "
            f"correlate with those of half wins by {agree['davidson']:.4f} and "
            f"{agree['rao_kupper']:.4f}."
            + (f" The home side gains {home['estimate']:.2f} nats, {advantage:.0f} standard errors."
               if home else "")
        )  # fmt: skip
    return lines


def _rankings(values: dict[str, Any]) -> list[str]:
    """Return what rankings, and clusters of votes, do to standard errors."""
    lines = []
    for name, found in values.items():
        if "rankings" in found:
            lines.append(
                f"{name}: {found['rankings']} rankings of {found['items']} items by a reward "
                "model. Standard errors of their pairs taken as independent are "
                f"{found['pairs_over_rankings_standard_error']:.2f} times those of the rankings, "
                f"the bootstrap's {found['bootstrap_over_information']:.2f} times."
            )
        else:
            lines.append(
                f"{name}: {found['comparisons']:,.0f} votes of {found['workers']} workers. "
                "Standard errors clustered by worker are "
                f"{found['clustered_over_information']:.2f} times the information's, by a "
                f"bootstrap of workers {found['rater_bootstrap_over_information']:.2f} times."
            )
    return lines


def _trainings(content: dict[str, Any]) -> str:
    """Return, in a sentence, how much was trained."""
    config = content["config"]
    if "omegas" not in config:
        return f"Data p23: {', '.join(f'{p:g}' for p in config['p23'])}; one order, one seed."
    orders, seeds = len(config["omegas"]), len(config["seeds"])
    return (
        f"{len(config['p23'])} data sets a curve, of {config['pairs']} pairs each; "
        f"{orders} of 6 orders of the animals, {seeds} of 3 seeds."
    )


def _section(name: str, rows: list[_common.Row], about: str = "") -> str:
    kinds = (_common.HOLDS, _common.CORRECTED, _common.DIFFERS)
    counts = [(kind, sum(row["verdict"] == kind for row in rows)) for kind in kinds]
    tally = ", ".join(f"{count} {kind}" for kind, count in counts if count)
    lines = [f"## {name}", "", f"{len(rows)} rows: {tally}. {about}".rstrip(), ""]
    for figure in FIGURES:
        if (_common.RESULTS / name / figure).exists():
            words = figure.removesuffix(".png").replace("_", " ").capitalize()
            lines += [f"![{words}](results/{name}/{figure})", ""]
    lines += ["| item | claim | paper | ours | verdict | why |", "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *map(_line, rows), ""])


def _line(row: _common.Row) -> str:
    ours = f"{row['ours']:.6g}" if isinstance(row["ours"], (int, float)) else str(row["ours"])
    cells = (row["item"], row["claim"], row["paper"], ours, row["verdict"], row["why"])
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(cell: str) -> str:
    """Return text that Markdown shows as it is."""
    for character in "\\|*_<>":
        cell = cell.replace(character, "\\" + character)
    return cell


def check(smoke: bool) -> list[str]:
    """Return every way in which fresh results, or the page, differ from the record."""
    known = recorded()
    problems = [f"{name}: no result.json" for name in ITEMS.values() if name not in known]
    if README.read_text(encoding="utf-8") != text(known | trained()):
        problems.append("README.md does not say what the results say")
    for name, content in known.items():
        module = importlib.import_module(name)
        fresh = module.compute(module.SMOKE if smoke else module.Config())
        problems += compare(fresh, content, partial=smoke)
    return problems


def compare(fresh: dict[str, Any], record: dict[str, Any], *, partial: bool = False) -> list[str]:
    """Return what differs: verdicts always, values too unless the fresh run is a smoke run."""
    rows = {row["item"]: row for row in record["comparison"]}
    problems = _common.missed(fresh, record, partial=partial)
    for row in fresh["comparison"]:
        old = rows.get(row["item"])
        if old is not None and not partial and not _close(row, old):
            problems.append(f"{row['item']}: {row['ours']} (recorded: {old['ours']})")
    return problems


def _close(row: _common.Row, old: _common.Row) -> bool:
    """Tell whether two values agree to a relative 1e-6, or within their tolerance."""
    if isinstance(row["ours"], str) or isinstance(old["ours"], str):
        return row["ours"] == old["ours"]
    gap = abs(row["ours"] - old["ours"])
    return gap <= max(row["tolerance"], 1e-6 * abs(old["ours"]))


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="recompute, compare, write nothing")
    parser.add_argument("--smoke", action="store_true", help="check in the small form")
    parser.add_argument("--out", type=Path, default=README, help="where the page goes")
    options = parser.parse_args(arguments)
    if not options.check:
        write_text(options.out, text(recorded() | trained()))
        return 0
    jax.config.update("jax_enable_x64", True)
    problems = check(options.smoke)
    for problem in problems:
        print(f"differs: {problem}", file=sys.stderr)
    return 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
