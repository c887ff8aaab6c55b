"""What is fragile: the predictions, the plane, the graph, what leaves when a group is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...audit import AuditRow
from ..one_vote import OneVote
from ..tables import wins_of
from . import values
from .elements import Markup, item, join, tag
from .frame import Context, Section, paragraph
from .grids import Cell, Heading, grid, name_cell, number_cell, pair_cell
from .network import network_figure
from .plane import plane_figure

if TYPE_CHECKING:
    from ...audit.records import EdgeLeverage, FragilePair, Group, Groups

SENSITIVITY = Heading(
    "Sensitivity",
    hint="Points the prediction moves per point on the compared pair it rests on, for small moves",
)
CHANCE = Heading("Chance", hint="Predicted probability that the first beats the second")
RESTS = Heading("Rests on", number=False, hint="The compared pair that moves the prediction most")


def predictions(context: Context) -> Section | None:
    """Return the most fragile predictions, never compared and compared."""
    unseen, every = context.report.top, context.found("fragile") or ()
    if not unseen and not every:
        return None
    said = (
        "A prediction hangs by a thread where a small change of one observed share moves it by "
        "much: sensitivity above 1. Each row names the compared pair that it rests on most."
    )
    parts = [paragraph(said)]
    if unseen:
        parts.append(_unseen(unseen, context.votes))
    if any(pair.comparisons > 0 for pair in every):
        parts.append(_every(every))
    return Section("fragile", "Fragile", "What hangs by a thread", join(parts))


def _unseen(rows: Sequence[AuditRow], votes: Sequence[OneVote]) -> Markup:
    headings = [
        Heading("Never compared", number=False),
        CHANCE,
        SENSITIVITY,
        RESTS,
        Heading("Wins there", hint="Of the first of the pair it rests on"),
    ]
    if votes:
        hint = "The prediction, fitted again, after one vote there went to the other side"
        headings.append(Heading("1 vote turned", hint=hint))
    cells = [[*_unseen_cells(row), *_turned(votes, n)] for n, row in enumerate(rows)]
    note = "Sensitivity above 1: the prediction moves faster than the share it is computed from."
    if any(math.isnan(vote.after) for vote in votes):
        note += " No fit: an item would then only win, or only lose."
    caption = "Most fragile predictions of pairs that were never compared"
    return grid(caption, headings, cells, note=note, sorted_by=(2, "descending"))


def _unseen_cells(row: AuditRow) -> list[Cell]:
    edge = row.edge
    return [
        pair_cell(row.item_a, row.item_b),
        number_cell(values.chance(row.probability), row.probability),
        number_cell(values.plain(row.sensitivity), row.sensitivity),
        pair_cell(edge.item_a, edge.item_b),
        number_cell(values.observed(wins_of(row), edge.comparisons), edge.win_fraction),
    ]


def _turned(votes: Sequence[OneVote], place: int) -> list[Cell]:
    if not votes:
        return []
    after = votes[place].after
    return [number_cell("no fit" if math.isnan(after) else values.chance(after), after)]


def _every(rows: Sequence[FragilePair]) -> Markup:
    headings = [
        Heading("Pair", number=False),
        Heading("Compared", hint="How often the two were compared"),
        CHANCE,
        Heading("95% interval", hint="Of the prediction"),
        SENSITIVITY,
        RESTS,
        Heading("Worst, L2", hint="All shares moving together, the root of their summed squares 1"),
        Heading("Worst, each", hint="All shares moving together, each by up to 1"),
    ]
    cells = [
        [
            pair_cell(row.item_a, row.item_b),
            number_cell(values.count(row.comparisons), row.comparisons),
            number_cell(values.chance(row.probability), row.probability),
            number_cell(values.interval(row.low, row.high), row.high - row.low),
            number_cell(values.plain(row.sensitivity), row.sensitivity),
            pair_cell(row.edge_a, row.edge_b),
            number_cell(values.plain(row.worst_l2), row.worst_l2),
            number_cell(values.plain(row.worst_linf), row.worst_linf),
        ]
        for row in rows
    ]
    note = "Worst: points the prediction moves to first order per point of budget."
    return grid(
        "Most fragile of all pairs, compared or not", headings, cells,
        note=note, sorted_by=(4, "descending"),
    )  # fmt: skip


def plane(context: Context) -> Section | None:
    """Return the plane of Fig. 1 with the triples of the data."""
    drawn = plane_figure(context.fit, context.report)
    if drawn is None:
        return None
    return Section("plane", "Plane", "Where strong preferences pull apart", drawn)


def network(context: Context) -> Section:
    """Return the comparison graph, what would take it apart, and the pairs that carry most."""
    parts = [network_figure(context.fit, context.report)]
    cut, levers = context.found("cut"), context.found("leverage")
    if cut is not None:
        names = join(
            [join(", " if n else None, tag("b", item(k))) for n, k in enumerate(cut.items[:5])]
        )
        more = f" and {len(cut.items) - 5} more" if len(cut.items) > 5 else ""
        parts.append(
            paragraph(
                join(
                    f"The thinnest place: without {values.count(cut.comparisons)} comparisons, ",
                    names,
                    f"{more} would never have {cut.verb} any other item: no finite fit is left.",
                )
            )
        )
    if levers:
        parts.append(_levers(levers))
    return Section("graph", "Graph", "Who was compared with whom", join(parts))


def _levers(rows: Sequence[EdgeLeverage]) -> Markup:
    headings = [
        Heading("Compared pair", number=False),
        Heading(
            "Leverage",
            hint="Share of its own fitted margin that its comparisons decide; 1 is a bridge",
        ),
        Heading("Wins", hint="Of the first"),
        Heading("Fitted", hint="Fitted probability that the first wins"),
        Heading(
            "Residual", hint="Studentised: how far the wins are from the fit, in standard errors"
        ),
    ]
    cells = [
        [
            pair_cell(row.item_a, row.item_b),
            number_cell(f"{row.leverage:.2f}", row.leverage),
            number_cell(
                values.observed(row.win_fraction * row.comparisons, row.comparisons),
                row.win_fraction,
            ),
            number_cell(values.chance(row.fitted_probability), row.fitted_probability),
            number_cell(_residual(row.studentised), row.studentised),
        ]
        for row in rows
    ]
    return grid(
        "Compared pairs that carry most", headings, cells, sorted_by=(1, "descending"), shown=8
    )


def _residual(value: float) -> str:
    return "–" if not math.isfinite(value) else values.signed(value, 1)


# Groups left out ----------------------------------------------------------------------------

_KINDS = {"rater": "rater", "item": "item", "edge": "compared pair"}


def groups(context: Context) -> Section | None:
    """Return what changes when a rater, an item or a pair is left out."""
    found = context.found("groups")
    if not found:
        return None
    order = ("rater", "item", "edge")
    parts = [
        _group_table(kind, context.noun)
        for kind in sorted(found, key=lambda g: order.index(g.kind))
        if kind.rows
    ]
    return (
        Section("groups", "Left out", "What if one were left out", join(parts)) if parts else None
    )


def _group_table(found: Groups, counted: str) -> Markup:
    noun = _KINDS[found.kind]
    said = (
        f"Each {noun} left out in turn ({found.num:,} of them, {found.num_refitted:,} by "
        f"refitting): {found.changing_winner:,} would change the best item, "
        f"{found.changing_top_k:,} the set of the {found.k} best."
    )
    headings = [
        Heading(f"Left out: {noun}", number=False),
        Heading(f"{counted.capitalize()}s", hint="How many go with it"),
        Heading(
            "Moves most", number=False, hint="The prediction that moves most, of those that remain"
        ),
        Heading("Before"),
        Heading("After", hint="Fitted again without the group, unless it says one step"),
        Heading("Best item", number=False, hint="Without the group, where it changes"),
        Heading(f"Top {found.k}", number=False, hint="Who enters and who leaves"),
        Heading("Largest rank change", hint="Places that some remaining item moves"),
    ]
    # Those after which there is still something to say come first.
    cells = [_group_cells(row) for row in sorted(found.rows, key=lambda r: r.status == "no_fit")]
    return join(paragraph(said), grid(f"Left out: each {noun}", headings, cells, shown=8))


def _group_cells(row: Group) -> list[Cell]:
    name = name_cell(row.name[0]) if len(row.name) == 1 else pair_cell(*row.name[:2], joint="with")
    count = number_cell(values.count(row.comparisons), row.comparisons)
    if row.item_a is None or row.item_b is None:
        empty = [Cell("–", "")]
        return [name, count, Cell("no finite fit is left", ""), *empty * 5]
    after = values.chance(row.after) + (" (one step)" if row.status == "one_step" else "")
    still = row.item_a == row.item_b or row.before == row.after
    entered = join([join("+ ", item(k), " ") for k in row.top_k_entered])
    left = join([join(f"{values.MINUS} ", item(k), " ") for k in row.top_k_left])
    change = row.largest_rank_change
    return [
        name,
        count,
        Cell("nothing moves", "") if still else pair_cell(row.item_a, row.item_b),
        number_cell("–" if still else values.chance(row.before), row.before),
        number_cell("–" if still else after, row.after),
        Cell("–", "") if row.winner is None else name_cell(row.winner),
        Cell(join(entered, left) or "same", "".join(row.top_k_entered)),
        number_cell("–" if change is None else str(change), change),
    ]
