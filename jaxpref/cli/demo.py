"""``jaxpref demo``: the main finding on small published tables, told in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from . import _terminal
from ._options import JsonOption, use_float64

if TYPE_CHECKING:
    from ..audit import AuditReport, AuditRow
    from ..data import Comparisons
    from ..fit import FitResult
    from ..report.figures import Change
    from ..report.one_vote import OneVote

FOLDER = Path("jaxpref-demo")
LABELS = {
    "example1": "Example 1 of the paper",
    "journals": "Statistics journals, every pair",
    "journals_path": "Statistics journals, neighbours only",
    "baseball": "Baseball 1987, every pair",
    "baseball_path": "Baseball 1987, neighbours only",
}


class Case(NamedTuple):
    """One bundled table: its data, its fit, its audit."""

    comparisons: Comparisons
    fit: FitResult
    report: AuditReport


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = FOLDER,
    json: JsonOption = False,
) -> None:
    """See what this is about: five small published tables, audited, with a story and figures."""
    from ..report import check_folder, write_json, write_text
    from ..report.one_vote import turn_votes

    use_float64()
    folder = check_folder("--out", out)
    cases = audit_bundled()
    votes = {name: turn_votes(case.fit, case.report.top) for name, case in cases.items()}
    changes = {name: compare_with_full(cases, name) for name in ("journals", "baseball")}
    content = _content(cases, votes, changes)
    figures = _draw(folder, cases, changes)
    paragraphs = _story(cases, votes, changes)
    files = [
        write_text(folder / "demo.md", _markdown(paragraphs, cases, votes, figures)),
        write_json(folder / "demo.json", content),
        _page(folder, cases["journals_path"], votes["journals_path"]),
        *figures,
    ]
    if json:
        _terminal.show_json(content | {"files": [str(path) for path in files]})
        return
    _print(paragraphs, cases, votes, files)


def audit_bundled() -> dict[str, Case]:
    """Fit and audit every bundled table."""
    from ..audit import audit
    from ..data import load_bundled
    from ..fit import fit_pairwise

    cases = {}
    with _terminal.progress("Auditing") as move:
        for done, name in enumerate(LABELS):
            comparisons = load_bundled(name)
            fit = fit_pairwise(comparisons)
            cases[name] = Case(comparisons, fit, audit(fit, top=99))
            if move is not None:
                move(done + 1, len(LABELS))
    return cases


def compare_with_full(cases: dict[str, Case], name: str) -> list[Change]:
    """Return the largest sensitivity of each left-out pair's prediction, in both tables."""
    import numpy as np

    from ..audit import network_sensitivity
    from ..report.figures import Change

    changes = []
    for row in cases[f"{name}_path"].report.top:
        full = network_sensitivity(cases[name].fit, row.item_a, row.item_b)
        before = float(np.max(np.abs(full.derivative)))
        changes.append(Change(f"{row.item_a} over {row.item_b}", before, row.sensitivity))
    return changes


# The story ----------------------------------------------------------------------------------


def _story(
    cases: dict[str, Case], votes: dict[str, list[OneVote]], changes: dict[str, list[Change]]
) -> list[str]:
    """Return the paragraphs, the finding first."""
    return [
        _finding(votes["example1"][0]),
        _about_example(cases["example1"].report.top[0], votes["example1"][0]),
        _about_journals(cases, changes["journals"][0]),
        _about_baseball(cases, changes["baseball"]),
        "So it takes two things: strong preferences that pull in opposite directions, and no "
        "comparison that ties the pair down. jaxpref finds such pairs in your own votes, names "
        "the observations they hang on, and says which pair to compare next: "
        "jaxpref audit YOUR_FILE.csv",
    ]


def _finding(vote: OneVote) -> str:
    from ..report.numbers import percent

    return (
        f"One vote in {vote.comparisons:.0f} changes its mind, and a preference that nobody was "
        f"asked about goes from {percent(vote.before)} to {percent(vote.after)}."
    )


def _about_example(row: AuditRow, vote: OneVote) -> str:
    from ..report.numbers import percent, significant

    triple = row.triple
    assert triple is not None  # i and j were both compared with k
    return (
        f"Example 1 of the paper. {percent(triple.probability_ik)} prefer i to k, "
        f"{percent(triple.probability_kj)} prefer k to j, and i was never compared with j. A "
        f"Bradley-Terry model fills the gap: {percent(vote.before)} would prefer i to j. Turn one "
        f"of i's {vote.wins:.0f} votes over k around, and it says {percent(vote.after)}. Near this "
        f"point the answer moves {significant(row.sensitivity)} times as fast as the share it is "
        "computed from."
    )


def _about_journals(cases: dict[str, Case], change: Change) -> str:
    from ..report.numbers import amount, percent, significant
    from ..report.tables import wins_of

    row = cases["journals_path"].report.top[0]
    full = cases["journals"].fit.probability(row.item_a, row.item_b)
    edge = row.edge
    return (
        "It happens in real data. Four statistics journals cite each other; being cited is a win. "
        f"Keep only neighbours in the table, and {row.item_a} over {row.item_b} must be predicted: "
        f"{percent(row.probability)} ({percent(full)} with every pair kept). It rests on "
        f"{edge.item_a} against {edge.item_b}, {amount(wins_of(row))} of "
        f"{amount(edge.comparisons)}: one point there moves it {significant(change.after)} points, "
        f"against {significant(change.before)} for the strongest lever when every pair is kept."
    )


def _about_baseball(cases: dict[str, Case], changes: list[Change]) -> str:
    from ..report.numbers import significant

    after = max(change.after for change in changes)
    before = max(change.before for change in changes)
    return (
        "It is not about missing pairs alone. Seven baseball teams of 1987, closely matched: with "
        f"only neighbours kept, {len(changes)} pairs have to be predicted, and no prediction moves "
        f"more than {significant(after)} points per point ({significant(before)} with every pair "
        "kept)."
    )


# The files ----------------------------------------------------------------------------------


def _content(
    cases: dict[str, Case], votes: dict[str, list[OneVote]], changes: dict[str, list[Change]]
) -> dict[str, Any]:
    from ..data import bundled_citation

    return {
        "command": "demo",
        "finding": _finding(votes["example1"][0]),
        "before_after": {
            name: [change._asdict() for change in found] for name, found in changes.items()
        },
        "data_sets": {
            name: {
                "label": LABELS[name],
                "citation": bundled_citation(name),
                "fit": case.fit.to_dict(),
                "audit": case.report.to_dict(),
                "one_vote_turned": [vote._asdict() for vote in votes[name]],
            }
            for name, case in cases.items()
        },
    }


def _page(folder: Path, case: Case, votes: list[OneVote]) -> Path:
    """Write the audit of the journals as one page."""
    from ..data import bundled_citation
    from ..report.html import write_html

    facts = {"Data": bundled_citation("journals_path")}
    title = f"Audit: {LABELS['journals_path']}"
    path = folder / "journals.html"
    return write_html(path, case.fit, case.report, title=title, votes=votes, facts=facts)


def _draw(folder: Path, cases: dict[str, Case], changes: dict[str, list[Change]]) -> list[Path]:
    """Draw both figures, or none where matplotlib is not installed."""
    from ..report import figures

    if not figures.can_draw():
        return []
    shown = ("example1", "journals_path", "baseball_path")
    groups = [
        figures.triple_points(cases[name].fit, cases[name].report, LABELS[name]) for name in shown
    ]
    panels = [
        ("Statistics journals: strong preferences", changes["journals"]),
        ("Baseball 1987: even teams", changes["baseball"]),
    ]
    drawn = (
        ("plane.png", figures.plane_figure(groups)),
        (
            "before-after.png",
            figures.before_after_figure(
                panels, title="Leave pairs out, and strong preferences turn fragile"
            ),
        ),
    )
    return [figures.save_figure(figure, folder / name) for name, figure in drawn]


def _markdown(
    paragraphs: list[str],
    cases: dict[str, Case],
    votes: dict[str, list[OneVote]],
    figures: list[Path],
) -> str:
    from ..data import bundled_citation
    from ..report.markdown import audit_tables
    from ..report.tables import escape_markdown

    finding, *rest = (escape_markdown(paragraph) for paragraph in paragraphs)
    captions = (
        "Darker: a third preference moves faster than the one on the horizontal axis. Dots: pairs "
        "that were never compared, through the item where they are most fragile.",
        "Each line is a pair: its fragility with every pair observed, and with a chain left.",
    )
    pictures = [
        f"![{caption}]({figure.name})\n\n*{caption}*"
        for figure, caption in zip(figures, captions, strict=False)
    ]
    parts = [f"# {finding}", *rest, *pictures]
    for name, case in cases.items():
        parts += [f"## {LABELS[name]}", escape_markdown(bundled_citation(name))]
        parts.append(escape_markdown(case.report.regime.sentence))
        parts += [table.to_markdown() for table in audit_tables(case.report, votes[name])]
    return "\n\n".join(parts) + "\n"


def _print(
    paragraphs: list[str],
    cases: dict[str, Case],
    votes: dict[str, list[OneVote]],
    files: list[Path],
) -> None:
    from ..report import tables

    finding, *rest = paragraphs
    _terminal.say(finding, style="bold")
    for paragraph in rest[:-1]:
        _terminal.say("")
        _terminal.say(paragraph)
    name = "journals_path"
    table = tables.fragile_predictions(cases[name].report, votes[name])
    _terminal.show(table._replace(title=LABELS[name]))
    _terminal.say(rest[-1])
    _terminal.say("")
    if len(files) < 5:
        _terminal.say("No figures: pip install 'jaxpref[report]' for them.")
    _terminal.say(f"Results in {files[0].parent.resolve()}:")
    for path in files:
        _terminal.say(f"  {path.name}")
