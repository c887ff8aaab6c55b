"""An audit as a Markdown document."""

from __future__ import annotations

from collections.abc import Sequence

from ..audit import AuditReport
from . import tables, words
from .one_vote import OneVote
from .tables import escape_markdown


def audit_markdown(
    report: AuditReport,
    *,
    title: str,
    votes: Sequence[OneVote] = (),
    figure: str | None = None,
) -> str:
    """Return an audit as Markdown: the finding, the regime, the tables.

    Parameters
    ----------
    report : AuditReport
        What :func:`jaxpref.audit.audit` returns.
    title : str
        Heading of the document.
    votes : sequence of OneVote
        One for each described prediction, or none.
    figure : str, optional
        File name of a figure to show, relative to the document.

    Returns
    -------
    str
        Ends in a newline.
    """
    finding = " ".join(
        filter(None, (words.headline(report, votes[0] if votes else None), words.advice(report)))
    )
    parts = [f"# {escape_markdown(title)}", f"**{escape_markdown(finding)}**"]
    parts.append(escape_markdown(report.regime.sentence))
    if figure:
        parts.append(f"![Fragile predictions]({figure.replace(' ', '%20')})")
    parts += [table.to_markdown() for table in audit_tables(report, votes)]
    return "\n\n".join(parts) + "\n"


def audit_tables(report: AuditReport, votes: Sequence[OneVote] = ()) -> list[tables.Table]:
    """Return the tables of an audit that have rows."""
    built = (
        tables.fragile_predictions(report, votes),
        tables.triple_view(report),
        tables.triple_counts(report),
    )
    return [table for table in built if table.rows]
