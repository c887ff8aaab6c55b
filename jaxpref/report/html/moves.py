"""How little would flip it, what to collect, and what other models say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...audit.wording import nats
from . import values
from .elements import Content, Markup, item, join, tag
from .frame import Context, Section, paragraph
from .grids import Cell, Heading, grid, name_cell, number_cell, pair_cell

if TYPE_CHECKING:
    from ...audit.records import Collecting, Flip, LinkRow, Range

BUDGETS = ("drop", "add", "change")
_HINTS = {
    "drop": "Fewest {}s to leave out",
    "add": "Fewest {}s to add",
    "change": "Fewest {}s whose outcome to change",
}
_DONE = {"drop": "loss", "add": "arrival", "change": "change of outcome"}
MOVES_SHOWN = 6
NO_GAIN = "about 0"


def flips(context: Context) -> Section | None:
    """Return how few comparisons overturn each conclusion, with the certificates."""
    found = context.found("flips")
    if not found:
        return None
    budgets = [name for name in BUDGETS if any(flip.budget == name for flip in found)]
    grouped: dict[tuple[str, str, int | None], dict[str, Flip]] = {}
    for flip in found:
        key = (flip.question, flip.ahead if flip.question == "pair" else "", flip.k)
        if flip.question == "pair":
            key = (flip.question, f"{flip.ahead}\0{flip.behind}", flip.k)
        grouped.setdefault(key, {})[flip.budget] = flip
    noun = context.noun
    headings = [
        Heading("Conclusion", number=False),
        *(Heading(name.capitalize(), hint=_HINTS[name].format(noun)) for name in budgets),
        Heading("Lead", hint="Margin of the one ahead now"),
    ]
    cells = [_flip_cells(by_budget, budgets) for by_budget in grouped.values()]
    said = (
        f"The fewest {noun}s found whose {_loss(budgets)} overturns a conclusion. Every "
        "number is confirmed by fitting again: with these moves the order is reversed, and with "
        f"one {noun} fewer it is not. Open a number to see which {noun}s they are."
    )
    table = grid(f"{noun.capitalize()}s that overturn a conclusion", headings, cells, shown=16)
    content = join(paragraph(said), table)
    return Section("flips", "Flips", f"How few {noun}s would flip it", content)


def _loss(budgets: Sequence[str]) -> str:
    """Return what is done to comparisons, in words."""
    done = [_DONE[name] for name in budgets]
    return " or ".join(filter(None, (", ".join(done[:-1]), done[-1])))


def _flip_cells(by_budget: dict[str, Flip], budgets: Sequence[str]) -> list[Cell]:
    some = next(iter(by_budget.values()))
    return [_conclusion(some), *(_flip_cell(by_budget.get(name)) for name in budgets),
            number_cell(values.plain(some.margin_before), some.margin_before)]  # fmt: skip


def _conclusion(flip: Flip) -> Cell:
    ahead = tag("b", item(flip.ahead))
    if flip.question == "winner":
        return Cell(join(ahead, " is the best"), f"0 {flip.ahead}")
    if flip.question == "top_k":
        return Cell(f"The set of the {flip.k} best", f"1 {flip.k:06d}")
    return Cell(join(ahead, " above ", item(flip.behind)), f"2 {flip.ahead}")


def _flip_cell(flip: Flip | None) -> Cell:
    if flip is None:
        return number_cell("–", None)
    if flip.comparisons is None:
        reason = {"no_fit": "no fit left first", "not_found": "not found"}.get(flip.status, "–")
        return number_cell(reason, None)
    number = tag("summary", values.count(flip.comparisons), " ", _share(flip.share))
    content = tag("details", number, _certificate(flip))
    return Cell(content, flip.comparisons)


def _share(share: float | None) -> Markup | None:
    if share is None:
        return None
    return tag("small", f"({100 * share:.2g}%)")


def _certificate(flip: Flip) -> Markup:
    """Return the moves of a flip, and what they lead to."""
    shown = [tag("li", _move(move)) for move in flip.moves[:MOVES_SHOWN]]
    more = len(flip.moves) - MOVES_SHOWN
    if more > 0:
        rest = sum(move.count for move in flip.moves[MOVES_SHOWN:])
        shown.append(tag("li", f"and {values.count(rest)} more, of {more:,} kinds"))
    end = None
    if flip.margin_after is not None:
        end = join(
            item(flip.behind),
            " passes ",
            item(flip.ahead),
            " by ",
            values.plain(-flip.margin_after),
            ".",
        )
    return tag("div", tag("ul", shown), tag("p", end), class_="certificate")


def _move(move: Any) -> Content:
    """Return a move of a certificate, of comparisons or of a ranking, in words."""
    verb = {"drop": "drop", "add": "add", "change": "change"}[move.action]
    of = "" if move.available is None else f" of {values.count(move.available)}"
    if hasattr(move, "ranking"):
        return join(f"{verb} {values.count(move.count)}{of}: ", tag("bdi", move.text))
    a, b = tag("bdi", move.item_a), tag("bdi", move.item_b)
    what = {"a": join(a, " over ", b), "b": join(b, " over ", a), "tie": join(a, " tied with ", b)}
    to = None
    if move.new_outcome is not None:
        to = join(" to ", what[move.new_outcome])
    raters = [
        join(", " if n else " by ", tag("bdi", name)) for n, (name, _) in enumerate(move.raters[:3])
    ]
    return join(f"{verb} {values.count(move.count)}{of}: ", what[move.outcome], to, raters)


# What to collect ----------------------------------------------------------------------------

_OBJECTIVES = {
    "interval": ("To narrow the widest interval", "Width of the widest 95% interval"),
    "sensitivity": ("To calm the most fragile prediction", "Largest sensitivity"),
    "flip": ("To settle the order", "Expected neighbours in the wrong order"),
}


def collecting(context: Context) -> Section | None:
    """Return which pairs to compare next."""
    found = [entry for entry in context.found("collect") or () if entry.rows]
    if not found:
        return None
    order = ("flip", "sensitivity", "interval")
    parts = [_collect(entry) for entry in sorted(found, key=lambda e: order.index(e.objective))]
    said = "Pairs ranked by what one more comparison of them is expected to be worth."
    return Section("collect", "Collect next", "What to collect next", join(paragraph(said), parts))


def _collect(entry: Collecting) -> Markup:
    title, objective = _OBJECTIVES[entry.objective]
    headings = [
        Heading("Compare", number=False),
        Heading("Compared so far"),
        Heading("Chance", hint="Predicted probability that the first beats the second"),
        Heading("Expected gain", hint=f"Expected fall of: {objective.lower()}, by one comparison"),
        Heading("Times random", hint="Gain over that of a pair drawn at random"),
    ]
    cells = []
    for row in entry.rows:
        none = entry.uniform_gain <= 0 or _gain(row.gain, entry.before) == NO_GAIN
        ratio = None if none else row.gain / entry.uniform_gain
        cells.append(
            [
                pair_cell(row.item_a, row.item_b, joint="with"),
                number_cell(values.count(row.comparisons), row.comparisons),
                number_cell(values.chance(row.probability), row.probability),
                number_cell(_gain(row.gain, entry.before), row.gain),
                number_cell("–" if ratio is None else f"{ratio:,.1f}×", ratio),
            ]
        )
    note = f"{objective} now: {values.plain(entry.before)}"
    if entry.worst:
        note += f" ({' over '.join(entry.worst)})"
    return grid(title, headings, cells, note=note + ".", sorted_by=(3, "descending"), shown=6)


def _gain(gain: float, before: float) -> str:
    """Return a gain, or that there is none to speak of."""
    return NO_GAIN if abs(gain) < 1e-9 * abs(before) else values.plain(gain)


# Other models -------------------------------------------------------------------------------


def multiplicity(context: Context) -> Section | None:
    """Return how far models that fit almost as well disagree."""
    found = context.found("multiplicity")
    if found is None or not found.rows:
        return None
    said = (
        f"Models within {nats(found.loss)} of the best log-likelihood fit almost as well. Among "
        f"them {values.share(found.share_reversible)} of all pairs can be ordered either way, and "
        f"a prediction can range over up to {100 * found.largest_width:.0f} points."
    )
    headings = [
        Heading("Pair", number=False),
        Heading("Chance", hint="At the best fit"),
        Heading("Range", hint="Over all models within the loss, confirmed by refitting"),
        Heading("By curvature", hint="The same range from the curvature at the best fit alone"),
        Heading("Either order", number=False, hint="Whether both orders are within reach"),
    ]
    table = grid("Ranges of predictions", headings, [_range_cells(row) for row in found.rows])
    heading = "How far nearly as good models disagree"
    return Section("multiplicity", "Near-best", heading, join(paragraph(said), table))


def _range_cells(row: Range) -> list[Cell]:
    quadratic = row.quadratic_high - row.quadratic_low
    return [
        pair_cell(row.item_a, row.item_b),
        number_cell(values.chance(row.probability), row.probability),
        number_cell(values.interval(row.low, row.high), row.high - row.low),
        number_cell(values.interval(row.quadratic_low, row.quadratic_high), quadratic),
        Cell("yes" if row.reversible else "no", "yes" if row.reversible else "no"),
    ]


def links(context: Context) -> Section | None:
    """Return which conclusions survive another link."""
    found = context.found("links")
    if found is None or not found.rows:
        return None
    said = (
        f"The same data under other links than {found.base}: "
        f"{values.share(found.share_surviving)} of all pairs are ordered alike under every link "
        "that could be fitted."
    )
    headings = [
        Heading("Link", number=False),
        Heading("Log-likelihood", hint="In nats; higher fits better"),
        Heading("Best item", number=False),
        Heading(f"Same top {found.k}", number=False),
        Heading("Kendall's tau", hint="1: the same order; -1: reversed"),
        Heading("Pairs reversed"),
        Heading("Largest change", hint="Of a prediction, in points"),
        Heading("Status", number=False),
    ]
    table = grid("Other links", headings, [_link_cells(row) for row in found.rows])
    return Section(
        "links", "Other links", "Does it survive another link", join(paragraph(said), table)
    )


def _link_cells(row: LinkRow) -> list[Cell]:
    same = {None: "–", True: "yes", False: "no"}[row.same_top_k]
    change = row.largest_change
    reversed_ = None if row.num_reversed is None else float(row.num_reversed)
    return [
        Cell(row.link, row.link),
        number_cell(_decimals(row.log_likelihood, 1), row.log_likelihood),
        Cell("–", "") if row.winner is None else name_cell(row.winner),
        Cell(same, same),
        number_cell(_decimals(row.kendall_tau, 3), row.kendall_tau),
        number_cell(values.count(reversed_), reversed_),
        number_cell(_decimals(None if change is None else 100 * change, 1), change),
        Cell(row.status, row.status),
    ]


def _decimals(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}".replace("-", values.MINUS)
