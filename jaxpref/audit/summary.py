"""The findings of an audit in sentences, most important first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .records import Flip, Groups, Multiplicity
from .wording import count, nats, share

if TYPE_CHECKING:
    from .report import AuditReport

_DONE = {
    "drop": "leaving out",
    "add": "adding",
    "change": "changing the outcome of",
}


_MANY = 0.25
"""Mean leverage from which data are called sparse, and share from which they are dominant."""


def summarise(report: AuditReport) -> tuple[str, ...]:
    """Return what an audit found, in sentences that need no background."""
    sentences = [
        *_about_flips(report.flips),
        *_about_cut(report),
        *(about_groups(groups) for groups in report.groups if groups.kind != "edge"),
        report.regime.sentence,
        *_about_leverage(report),
    ]
    if report.dominance is not None:
        sentences.append(report.dominance.sentence)
    if report.multiplicity is not None:
        sentences.append(about_multiplicity(report.multiplicity))
    if report.links is not None:
        sentences.append(
            f"{report.links.share_surviving:.1%} of all pairs are ordered alike under every link "
            "fitted."
        )
    return tuple(sentences + _about_collecting(report))


def describe_flip(flip: Flip) -> str:
    """Return what a flip comes to in a sentence."""
    what = {
        "winner": f"{flip.behind!r} overtakes {flip.ahead!r} as the best item",
        "top_k": f"{flip.behind!r} displaces {flip.ahead!r} from the top {flip.k}",
        "pair": f"{flip.behind!r} overtakes {flip.ahead!r}",
    }[flip.question]
    noun = "ranking" if flip.moves and hasattr(flip.moves[0], "ranking") else "comparison"
    if flip.comparisons is None or flip.share is None:
        reason = {
            "no_fit": "before that no finite fit is left",
            "not_found": "no way was found within the limit",
        }[flip.status]
        return f"By {_DONE[flip.budget]} {noun}s it does not happen that {what}: {reason}."
    done, part = _DONE[flip.budget], 100 * flip.share
    return f"After {done} {count(flip.comparisons, noun)} ({part:.2g}%), {what}."


def _about_flips(flips: Sequence[Flip]) -> list[str]:
    """Return a sentence for the winner and the top k: the cheapest budget that was found."""
    sentences = []
    for question in ("winner", "top_k"):
        found = [flip for flip in flips if flip.question == question]
        if found:
            best = min(found, key=lambda flip: flip.comparisons or float("inf"))
            sentences.append(describe_flip(best))
    loose = {
        (flip.ahead, flip.behind)
        for flip in flips
        if flip.question == "pair" and flip.comparisons == 1
    }
    if loose:
        pairs = "One of them hangs" if len(loose) == 1 else f"{len(loose)} of them hang"
        asked = len({(flip.ahead, flip.behind) for flip in flips if flip.question == "pair"})
        sentences.append(
            f"{count(asked, 'order')} of two items put to the test: {pairs} on one comparison."
        )
    return sentences


def _about_cut(report: AuditReport) -> list[str]:
    cut = report.cut
    if cut is None:
        return []
    names = ", ".join(repr(name) for name in cut.items[:3])
    more = f" and {len(cut.items) - 3} more" if len(cut.items) > 3 else ""
    return [
        f"Without {count(cut.comparisons)} there is no finite fit: {names}{more} would never have "
        f"{cut.verb} any other item."
    ]


def _about_leverage(report: AuditReport) -> list[str]:
    """Return how much of its own fitted margin an observed pair decides."""
    if not report.leverage:
        return []
    regime, most = report.regime, report.leverage[0]
    mean = (regime.num_items - regime.num_islands) / regime.num_edges
    dominant = regime.share_dominant > _MANY
    if mean > _MANY:
        kind = "sparse and dominant" if dominant else "sparse"
    else:
        kind = "redundant, if dominant" if dominant else "redundant"
    return [
        f"The data are {kind}: an observed pair decides {share(mean)} of its own fitted margin on "
        f"average, and at most {share(most.leverage)} ({most.item_a!r} with {most.item_b!r})."
    ]


def about_groups(groups: Groups) -> str:
    """Return how many groups change the winner or the top k when left out."""
    size = f"{count(groups.num, groups.kind)} left out one at a time"
    verb = f"{groups.changing_winner} change the best item and {groups.changing_top_k} the top"
    return f"Of {size}, {verb} {groups.k}."


def about_multiplicity(near: Multiplicity) -> str:
    """Return how far near-best models disagree."""
    return (
        f"Models within {nats(near.loss)} of the best log-likelihood can reverse "
        f"{share(near.share_reversible)} of all pairs and move a prediction over a range of up to "
        f"{100 * near.largest_width:.0f} points."
    )


def _about_collecting(report: AuditReport) -> list[str]:
    for found in report.collect:
        if found.objective == "flip" and found.rows:
            best = found.rows[0]
            return [
                f"To settle the order, compare {best.item_a!r} with {best.item_b!r} next: expected "
                f"to be worth {_times(best.gain, found.uniform_gain)} a comparison drawn at random."
            ]
    return []


def _times(gain: float, uniform: float) -> str:
    return f"{gain / uniform:.0f} times" if uniform > 0 else "more than"
