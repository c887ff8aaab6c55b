"""The whole page: sections in order, one file, no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from ...audit import AuditReport, RankingAudit
from ...fit import FitResult, RankingFit
from ..files import check_target, write_text
from ..one_vote import OneVote
from . import closing, fragile, moves, opening, ranked
from .elements import Markup, tag, visible
from .frame import Context, Section

SECTIONS: tuple[Callable[[Context], Section | None], ...] = (
    opening.summary,
    moves.flips,
    opening.leaderboard,
    fragile.predictions,
    fragile.plane,
    fragile.network,
    moves.collecting,
    fragile.groups,
    closing.dominance,
    moves.multiplicity,
    moves.links,
    closing.glossary,
    closing.method,
)


def audit_page(
    fit: FitResult | RankingFit,
    report: AuditReport | RankingAudit,
    *,
    title: str,
    votes: Sequence[OneVote] = (),
    facts: Mapping[str, str] | None = None,
) -> str:
    """Return an audit as one HTML page that needs nothing else.

    Parameters
    ----------
    fit : FitResult or RankingFit
        The fit that was audited.
    report : AuditReport or RankingAudit
        Its audit; parts that it does not have are left out of the page.
    title : str
        Heading of the page, such as the name of the data.
    votes : sequence of OneVote
        One for each row of ``report.top``, or none.
    facts : mapping of str to str, optional
        What is known of the data and the options, shown under "How it was computed".

    Returns
    -------
    str
        UTF-8 text. Scripts other than the page's own, and every request, are forbidden in it.

    Examples
    --------
    >>> from jaxpref.audit import audit
    >>> from jaxpref.data import load_bundled
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(load_bundled("example1"))
    >>> page = audit_page(fit, audit(fit), title="Example 1")
    >>> page[:15], "://" in page
    ('<!doctype html>', False)
    """
    context = Context(fit, report, visible(title), tuple(votes), dict(facts or {}))
    builders = ranked.SECTIONS if isinstance(report, RankingAudit) else SECTIONS
    sections = [section for build in builders if (section := build(context)) is not None]
    style, script = _asset("style.css"), _asset("script.js")
    body = tag(
        "body",
        tag("a", "Skip to the findings", href="#summary", class_="skip"),
        tag("header", tag("p", "jaxpref audit", class_="brand"), tag("h1", context.title)),
        tag("nav", tag("ul", [_entry(s) for s in sections]), aria_label="Contents"),
        tag("main", [section.to_html() for section in sections], id="main"),
        tag("div", id="tip", role="tooltip", hidden=True),
        tag("div", id="said", class_="unseen", aria_live="polite"),
        tag("script", Markup(script)),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{context.title} – jaxpref audit"),
        tag("style", Markup(style)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def write_html(
    path: str | Path,
    fit: FitResult | RankingFit,
    report: AuditReport | RankingAudit,
    *,
    title: str,
    votes: Sequence[OneVote] = (),
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write :func:`audit_page` to a file, whole or not at all, and return its path.

    Raises
    ------
    InputError
        If the file cannot be written; a file of that name is then left as it was.
    """
    target = check_target("path", Path(path))
    return write_text(target, audit_page(fit, report, title=title, votes=votes, facts=facts))


def _entry(section: Section) -> Markup:
    return tag("li", tag("a", section.short, href=f"#{section.anchor}"))


def _asset(name: str) -> str:
    return files(__name__.rpartition(".")[0]).joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Return what the page may load: its own script, by its digest, and inline styles."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
