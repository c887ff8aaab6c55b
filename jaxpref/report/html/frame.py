"""What every section of the page is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..one_vote import OneVote
from .elements import Content, Markup, tag


class Context(NamedTuple):
    """A fit, its audit, and what is known about where they come from.

    A FitResult with its AuditReport, or a RankingFit with its RankingAudit.
    """

    fit: Any
    report: Any
    title: str
    votes: Sequence[OneVote]
    facts: Mapping[str, str]

    @property
    def noun(self) -> str:
        """What was counted: a "comparison" or a "ranking"."""
        return "ranking" if hasattr(self.fit, "rankings") else "comparison"

    def found(self, name: str) -> Any:
        """Return a part of the audit, or None where it was not asked for or does not apply."""
        value = getattr(self.report, name, None)
        return None if isinstance(value, tuple) and not value else value


class Section(NamedTuple):
    """A part of the page: its anchor, its name in the contents, its heading and what it says."""

    anchor: str
    short: str
    heading: str
    content: Markup

    def to_html(self) -> Markup:
        """Return the section."""
        heading = tag("h2", self.heading, id=f"{self.anchor}-heading")
        return tag(
            "section",
            heading,
            self.content,
            id=self.anchor,
            aria_labelledby=f"{self.anchor}-heading",
        )


def paragraph(content: Content, class_: str | None = None) -> Markup:
    """Return a paragraph."""
    return tag("p", content, class_=class_)
