"""``jaxpref audit``: which predictions are fragile, and on what they rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from . import _terminal
from ._options import FileArgument, Fitted, Fitting, JsonOption, Reading, fit_file, grouped

if TYPE_CHECKING:
    from ..audit import AuditReport
    from ..report.one_vote import OneVote

THRESHOLDS = (1.01, 2.0, 3.0, 5.0, 10.0)


class Targets(NamedTuple):
    """The files an audit is asked to write."""

    json: Path | None
    markdown: Path | None
    plot: Path | None

    def written(self) -> list[Path]:
        """Return those that are asked for."""
        return [path for path in self if path is not None]


@grouped
def audit(
    file: FileArgument,
    reading: Reading,
    fitting: Fitting,
    top: Annotated[int, typer.Option(help="Fragile predictions to describe.", min=0)] = 10,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="M of a region to count triples in. Repeatable. 1.01, 2, 3, 5, 10 if left out.",
            show_default=False,
            metavar="M",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write JSON and Markdown: a folder (audit.json, audit.md), or a name ending in "
            ".json or .md.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Write a figure: .png, .pdf or .svg.", show_default=False),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Put every unseen pair into the JSON.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Find the predictions that hang by a thread, and the observed pairs they hang on."""
    targets = _targets(out, plot)
    levels = _levels(threshold)
    fitted = fit_file(file, reading, fitting)
    report = run_audit(fitted, top, levels)
    votes = run_votes(fitted, report)
    content = {
        "command": "audit",
        "data": fitted.to_dict(),
        "fit": fitted.fit.to_dict(),
        "audit": report.to_dict(pairs=pairs),
        "one_vote_turned": [vote._asdict() for vote in votes],
    }
    _write(targets, fitted, report, votes, content)
    if json:
        _terminal.show_json(content)
        return
    _print(fitted, report, votes)
    for path in targets.written():
        _terminal.say(f"Written: {path}")


def _levels(threshold: list[float] | None) -> tuple[float, ...]:
    from ..audit.triples import check_thresholds

    return check_thresholds(threshold or THRESHOLDS)


def run_audit(fitted: Fitted, top: int, thresholds: tuple[float, ...]) -> AuditReport:
    """Audit a fit, with a bar."""
    from ..audit import audit as audit_fit

    with _terminal.progress("Auditing unseen pairs") as move:
        return audit_fit(fitted.fit, top=top, thresholds=thresholds, progress=move)


def run_votes(fitted: Fitted, report: AuditReport) -> list[OneVote]:
    """Refit with one vote turned for each described prediction, with a bar."""
    from ..report.one_vote import turn_votes

    with _terminal.progress("Turning one vote") as move:
        return turn_votes(fitted.fit, report.top, move)


def _targets(out: Path | None, plot: Path | None) -> Targets:
    """Return the files to write, or raise while nothing has been done yet."""
    from ..report import check_folder, check_target
    from ..report.figures import check_figure

    if plot is not None:
        check_target("--plot", check_figure("--plot", plot))
    if out is None:
        return Targets(None, None, plot)
    if out.suffix.lower() in (".json", ".md") and not out.is_dir():
        stem = out
    else:
        stem = check_folder("--out", out) / "audit.json"
    markdown = check_target("--out", stem.with_suffix(".md"))
    return Targets(check_target("--out", stem.with_suffix(".json")), markdown, plot)


def _write(
    targets: Targets,
    fitted: Fitted,
    report: AuditReport,
    votes: list[OneVote],
    content: dict[str, Any],
) -> None:
    from ..report import write_json, write_text
    from ..report.markdown import audit_markdown

    title = f"Audit of {fitted.file.name}"
    if targets.plot is not None:
        from ..report.figures import audit_figure, save_figure

        save_figure(audit_figure(fitted.fit, report, title=title), targets.plot)
    if targets.json is not None and targets.markdown is not None:
        beside = targets.plot is not None and targets.plot.parent == targets.markdown.parent
        figure = targets.plot.name if targets.plot is not None and beside else None
        write_json(targets.json, content)
        write_text(
            targets.markdown, audit_markdown(report, title=title, votes=votes, figure=figure)
        )


def _print(fitted: Fitted, report: AuditReport, votes: list[OneVote]) -> None:
    from ..report import words
    from ..report.markdown import audit_tables

    _terminal.say(words.headline(report, votes[0] if votes else None), style="bold")
    advice = words.advice(report)
    if advice:
        _terminal.say(advice)
    _terminal.say("")
    _terminal.say(fitted.describe())
    _terminal.say(report.regime.sentence)
    _terminal.show(*audit_tables(report, votes))
