"""What a result means, in a sentence or two that need no background."""

from __future__ import annotations

import math

from ..audit import AuditReport, AuditRow
from . import numbers
from .one_vote import OneVote
from .tables import wins_of


def headline(report: AuditReport, vote: OneVote | None = None) -> str:
    """Return the finding of an audit: its most fragile prediction, and what it hangs on.

    Parameters
    ----------
    report : AuditReport
        What :func:`jaxpref.audit.audit` returns.
    vote : OneVote, optional
        What becomes of the most fragile prediction when one vote turns.

    Examples
    --------
    >>> from jaxpref.audit import audit
    >>> from jaxpref.data import load_bundled
    >>> from jaxpref.fit import fit_pairwise
    >>> print(headline(audit(fit_pairwise(load_bundled("example1")))))
    Most fragile: 'i' over 'j', predicted at 67% and never compared. One point on the share of
    'i' against 'k' (99 of 100) moves it by 22.4 points.
    """
    if not report.top:
        return describe_empty(report)
    row = report.top[0]
    slow = "No unseen prediction moves faster than the share it rests on most. The closest"
    opening = "Most fragile" if row.sensitivity > 1 else slow
    return (
        f"{opening}: {row.item_a!r} over {row.item_b!r}, predicted at "
        f"{numbers.percent(row.probability)} and never compared. {describe_lever(row)}"
        f"{describe_vote(vote)}"
    )


def describe_vote(vote: OneVote | None) -> str:
    """Return what becomes of a prediction when one vote turns, if that is known."""
    if vote is None:
        return ""
    if math.isnan(vote.after):
        return " One vote there turned, and an item only wins or only loses: no fit is left."
    if numbers.percent(vote.after) == numbers.percent(vote.before):
        return " One vote there turned does not show in it."
    return f" One vote there turned makes it {numbers.percent(vote.after)}."


def describe_lever(row: AuditRow) -> str:
    """Return what one point on the observed pair does to the prediction."""
    edge = row.edge
    return (
        f"One point on the share of {edge.item_a!r} against {edge.item_b!r} "
        f"({numbers.amount(wins_of(row))} of {numbers.amount(edge.comparisons)}) moves it by "
        f"{numbers.significant(row.sensitivity)} points."
    )


def describe_empty(report: AuditReport) -> str:
    """Return what to say where no prediction is listed."""
    if report.regime.num_unseen == 0:
        return "Every pair was compared: no prediction is left to hang on other pairs alone."
    return (
        f"{numbers.amount(report.regime.num_unseen, 'unseen pair')}, the largest sensitivity "
        f"{report.regime.largest_sensitivity or 0:.3g}; none is listed (--top 0)."
    )


def advice(report: AuditReport) -> str:
    """Return what would make the most fragile prediction less so, or nothing when none is."""
    if not report.top or report.top[0].sensitivity <= 1:
        return ""
    row = report.top[0]
    return f"To settle it, compare {row.item_a!r} with {row.item_b!r} directly."
