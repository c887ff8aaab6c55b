"""``jaxpref audit``: which predictions are fragile, and on what they rest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from . import _terminal
from ._modelling import RankingReading
from ._options import (
    FileArgument,
    Fitted,
    Fitting,
    JsonOption,
    Reading,
    fit_file,
    grouped,
    use_float64,
)

if TYPE_CHECKING:
    from ..audit import AuditReport, RankingAudit
    from ..data import Rankings
    from ..fit import RankingFit
    from ..report.one_vote import OneVote

_SHOWN = 5
"""Rows of the further tables on the terminal; all of them are in the JSON."""

THRESHOLDS = (1.01, 2.0, 3.0, 5.0, 10.0)


class Targets(NamedTuple):
    """The files an audit is asked to write."""

    json: Path | None
    markdown: Path | None
    plot: Path | None
    page: Path | None = None

    def written(self) -> list[Path]:
        """Return those that are asked for."""
        return [path for path in self if path is not None]


@grouped
def audit(
    file: FileArgument,
    reading: Reading,
    ranked: RankingReading,
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
    page: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write the whole audit as one page to read in a browser, print or send on: "
            "a name ending in .html.",
            show_default=False,
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            help="Write Markdown alone: a name ending in .md.", show_default=False, metavar="PATH"
        ),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Put every unseen pair into the JSON.")
    ] = False,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            help="Watch the set of the K best. 5, or half the items, if left out.",
            show_default=False,
            metavar="K",
            min=1,
        ),
    ] = None,
    flips: Annotated[
        bool | None,
        typer.Option(
            "--flips/--no-flips",
            help="Search for the fewest comparisons that overturn the winner, the top K and "
            "neighbours, confirmed by refits; up to 400 items if left out.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="What a flip may do: drop, add or change. Repeatable; all if left out.",
            show_default=False,
            metavar="drop|add|change",
        ),
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two items to flip as well.", show_default=False, metavar="ITEM ITEM"),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(help="Most comparisons a flip may take.", show_default=False),
    ] = None,
    groups: Annotated[
        bool | None,
        typer.Option(
            "--groups/--no-groups",
            help="Leave out each item, observed pair and rater in turn.",
            show_default=False,
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out this rater; repeatable. All, one at a time, if left out.",
            metavar="RATER",
            show_default=False,
        ),
    ] = None,
    collect: Annotated[
        bool | None,
        typer.Option(
            "--collect/--no-collect", help="Say what to compare next.", show_default=False
        ),
    ] = None,
    loss: Annotated[
        float, typer.Option(help="Nats of log-likelihood that near-best models may give up.")
    ] = 1.0,
    links: Annotated[
        bool, typer.Option("--links", help="Fit probit, cauchit and Laplace as well.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the simulated cycles.", min=0)] = 0,
    json: JsonOption = False,
) -> None:
    """Find what hangs by a thread, how little would flip it, and what to compare next."""
    targets = _targets(out, plot, page, markdown)
    options = {
        "top": top,
        "thresholds": _levels(threshold),
        "k": k,
        "flips": flips,
        "limit": _limit(limit),
        "groups": groups,
        "raters": without or None,
        "collect": collect,
        "loss": _loss(loss),
        "links": links,
        "seed": seed,
    }
    if budget:
        options["budgets"] = _budgets(budget)
    if pair is not None:
        options["flip_pairs"] = [pair]
    ranked.check(reading)
    if ranked.rankings:
        _audit_rankings(file, reading, ranked, fitting, options, targets, json)
        return
    fitted = fit_file(file, reading, fitting)
    report = run_audit(fitted, options)
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


def _audit_rankings(
    file: Path,
    reading: Reading,
    ranked: RankingReading,
    fitting: Fitting,
    options: dict[str, Any],
    targets: Targets,
    json: bool,
) -> None:
    """Fit a file of rankings and audit it: on the terminal, or as JSON."""
    from .._checks import InputError
    from ..audit import audit as audit_fit
    from ..fit import fit_rankings
    from ._audit_tables import ranking_tables

    if targets.plot is not None:
        raise InputError("--rankings: expected no --plot, which is for comparisons; see --report")
    use_float64()
    fitting.check()
    chosen = fitting.choose(ranked.read(file, reading))
    if chosen.tie_sizes().size:
        raise InputError(
            f"{file}: expected rankings without ties, which is what is audited; break them, or "
            "leave those rankings out"
        )
    with _terminal.working(f"Fitting {chosen.num_items:,} items"):
        fit = fit_rankings(chosen, ridge=fitting.ridge, max_steps=fitting.max_steps)
    wanted = {
        name: options[name]
        for name in ("top", "k", "flips", "groups", "limit", "flip_pairs", "loss")
        if name in options
    }
    with _terminal.progress("Auditing") as move:
        report = audit_fit(fit, progress=move, **wanted)
    content = {"command": "audit", "fit": fit.to_dict(), "audit": report.to_dict()}
    _write_rankings(targets, file, chosen, fit, report, content)
    if json:
        _terminal.show_json(content)
        return
    for sentence in report.summary:
        _terminal.say(f"* {sentence}")
    _terminal.show(*ranking_tables(report, _SHOWN))
    for path in targets.written():
        _terminal.say(f"Written: {path}")


def _write_rankings(
    targets: Targets,
    file: Path,
    data: Rankings,
    fit: RankingFit,
    report: RankingAudit,
    content: dict[str, Any],
) -> None:
    from ..report import write_json, write_text
    from ..report.tables import escape_markdown
    from ._audit_tables import ranking_tables

    title = f"Audit of {file.name}"
    if targets.page is not None:
        from ..report.html import write_html

        facts = _facts(f"{file.name}: {len(data.weight):,} rankings of {data.num_items:,} items")
        write_html(targets.page, fit, report, title=title, facts=facts)
    if targets.json is not None:
        write_json(targets.json, content)
    if targets.markdown is not None:
        found = [f"* {escape_markdown(sentence)}" for sentence in report.summary]
        tables = [table.to_markdown() for table in ranking_tables(report, len(report.pairs))]
        parts = [f"# {escape_markdown(title)}", "\n".join(found), *tables]
        write_text(targets.markdown, "\n\n".join(parts) + "\n")


def _limit(limit: float | None) -> float | None:
    from ..audit.auditing import check_limit

    return check_limit(limit)


def _loss(loss: float) -> float:
    from ..audit.auditing import check_loss

    return check_loss(loss)


def _budgets(budgets: list[str]) -> list[str]:
    from .._checks import check_option
    from ..audit.conclusions import BUDGETS

    return [check_option("--budget", name, BUDGETS) for name in dict.fromkeys(budgets)]


def run_audit(fitted: Fitted, options: dict[str, Any]) -> AuditReport:
    """Audit a fit, with a bar."""
    from ..audit import audit as audit_fit

    with _terminal.progress("Auditing") as move:
        return audit_fit(fitted.fit, comparisons=fitted.comparisons, progress=move, **options)


def run_votes(fitted: Fitted, report: AuditReport) -> list[OneVote]:
    """Refit with one vote turned for each described prediction, with a bar."""
    from ..report.one_vote import turn_votes

    with _terminal.progress("Turning one vote") as move:
        return turn_votes(fitted.fit, report.top, move)


def _targets(
    out: Path | None, plot: Path | None, page: Path | None, markdown: Path | None
) -> Targets:
    """Return the files to write, or raise while nothing has been done yet."""
    from .._checks import InputError
    from ..report import check_folder, check_target
    from ..report.figures import check_figure

    if out is not None and markdown is not None:
        raise InputError("--out, --markdown: expected one of the two; got both")
    if plot is not None:
        check_target("--plot", check_figure("--plot", plot))
    if page is not None:
        check_target("--report", _ending("--report", page, ".html", ".htm"))
    if markdown is not None:
        check_target("--markdown", _ending("--markdown", markdown, ".md"))
    if out is None:
        return Targets(None, markdown, plot, page)
    if out.suffix.lower() in (".json", ".md") and not out.is_dir():
        stem = out
    else:
        stem = check_folder("--out", out) / "audit.json"
    markdown = check_target("--out", stem.with_suffix(".md"))
    return Targets(check_target("--out", stem.with_suffix(".json")), markdown, plot, page)


def _ending(option: str, path: Path, *endings: str) -> Path:
    """Return a path whose ending is one of those that make sense."""
    from .._checks import InputError

    if path.suffix.lower() not in endings:
        raise InputError(
            f"{option}: expected a name ending in {' or '.join(endings)}; got {path.name!r}"
        )
    return path


def _write(
    targets: Targets,
    fitted: Fitted,
    report: AuditReport,
    votes: list[OneVote],
    content: dict[str, Any],
) -> None:
    from ..report import write_json, write_text

    title = f"Audit of {fitted.file.name}"
    if targets.plot is not None:
        from ..report.figures import audit_figure, save_figure

        save_figure(audit_figure(fitted.fit, report, title=title), targets.plot)
    if targets.page is not None:
        from ..report.html import write_html

        facts = page_facts(fitted)
        write_html(targets.page, fitted.fit, report, title=title, votes=votes, facts=facts)
    if targets.json is not None:
        write_json(targets.json, content)
    if targets.markdown is not None:
        beside = targets.plot is not None and targets.plot.parent == targets.markdown.parent
        figure = targets.plot.name if targets.plot is not None and beside else None
        write_text(targets.markdown, _markdown(report, votes, title, figure))


def _markdown(report: AuditReport, votes: list[OneVote], title: str, figure: str | None) -> str:
    """Return the whole audit as Markdown."""
    from ..report.markdown import audit_markdown
    from ..report.tables import escape_markdown
    from ._audit_tables import finding_tables

    text = audit_markdown(report, title=title, votes=votes, figure=figure)
    found = [f"* {escape_markdown(sentence)}" for sentence in report.summary]
    more = [table.to_markdown() for table in finding_tables(report, len(report.fragile))]
    return "\n\n".join([text.rstrip(), "\n".join(found), *more]) + "\n"


def _without_folder(word: str) -> str:
    """Return a word of the command line, of a path only its last part: the page is sent around."""
    option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    named = "/" in value or "\\" in value
    return option + equals + (Path(value).name if named and Path(value).parent.is_dir() else value)


def page_facts(fitted: Fitted) -> dict[str, str]:
    """Return what the page says of the data, the options given, and the day."""
    return _facts(fitted.describe())


def _facts(data: str) -> dict[str, str]:
    from datetime import date

    facts = {"Data": data}
    if sys.argv[1:2] == ["audit"]:
        facts["Command"] = " ".join(["jaxpref", *map(_without_folder, sys.argv[1:])])
    return facts | {"Date": f"{date.today():%d %B %Y}"}


def _print(fitted: Fitted, report: AuditReport, votes: list[OneVote]) -> None:
    from ..report import words
    from ..report.markdown import audit_tables
    from ._audit_tables import finding_tables

    _terminal.say(words.headline(report, votes[0] if votes else None), style="bold")
    advice = words.advice(report)
    if advice:
        _terminal.say(advice)
    _terminal.say("")
    _terminal.say(fitted.describe())
    for sentence in report.summary or (report.regime.sentence,):
        _terminal.say(f"* {sentence}")
    _terminal.show(*audit_tables(report, votes), *finding_tables(report, _SHOWN))
