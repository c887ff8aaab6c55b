"""The top of the page: the findings in words, the figures behind them, and the leaderboard."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...fit import LeaderboardRow
from .. import words
from ..numbers import amount
from . import values
from .drawings import line
from .elements import Markup, item, join, sentence, tag
from .frame import Context, Section, paragraph
from .grids import Cell, Heading, grid, name_cell, number_cell

NORMAL_95 = 1.959963984540054
MOST_ROWS = 500
BAR, HALF = 160.0, 7.0
_WINS = {
    "comparison": "Out of all its comparisons; a tie may count as half a win",
    "ranking": "Items ranked below it, out of all those ranked with it",
}


def summary(context: Context) -> Section:
    """Return what was found, most important first."""
    report = context.report
    vote = context.votes[0] if context.votes else None
    said = " ".join(filter(None, (words.headline(report, vote), words.advice(report))))
    lines = list(context.found("summary") or [report.regime.sentence])
    if (report.regime.largest_sensitivity or 0.0) <= 1 and context.found("flips"):
        # No single pair carries a prediction: how few comparisons flip it says more.
        said, lines = " ".join(lines[:2]), [*lines[2:4], said, *lines[4:]]
    content = join(
        _tiles(context),
        paragraph(sentence(said), class_="lead"),
        tag("ul", [tag("li", sentence(line)) for line in lines], class_="findings"),
    )
    return Section("summary", "Summary", "In short", content)


def _tiles(context: Context) -> Markup:
    """Return the figures that say most."""
    report = context.report
    tiles = [winner_tile(context), flip_tile(context)]
    largest = report.regime.largest_sensitivity
    if largest is not None:
        says = "points the most fragile unseen prediction moves, per point on one compared pair"
        tiles.append(tile(values.plain(largest), says))
    cut = context.found("cut")
    if cut is not None:
        tiles.append(
            tile(values.count(cut.comparisons), "comparisons whose loss leaves no finite fit")
        )
    regime = report.regime
    pairs = regime.num_edges + regime.num_unseen
    tiles.append(
        tile(
            values.share(regime.num_edges / pairs) if pairs else "–",
            f"of {pairs:,} pairs were compared, in {amount(regime.num_comparisons, 'comparison')}",
        )
    )
    return tag("ul", [tile for tile in tiles if tile], class_="tiles")


def winner_tile(context: Context) -> Markup:
    """Return who leads."""
    return tile(item(context.fit.rank()[0]), f"leads {context.fit.num_items:,} items")


def flip_tile(context: Context) -> Markup | None:
    """Return the fewest comparisons that unseat the winner, by whichever budget."""
    flips = [
        flip
        for flip in context.found("flips") or ()
        if flip.question == "winner" and flip.comparisons is not None
    ]
    if not flips:
        return None
    best = min(flips, key=lambda flip: flip.comparisons)
    done = {"drop": "dropped", "add": "added", "change": "changed"}[best.budget]
    noun = context.noun if best.comparisons == 1 else f"{context.noun}s"
    return tile(
        values.count(best.comparisons), f"{noun} {done} would unseat it (confirmed by refit)"
    )


def tile(value: str | Markup, says: str) -> Markup:
    """Return a figure with what it says."""
    return tag("li", tag("strong", value), tag("span", says))


# The leaderboard ----------------------------------------------------------------------------


def leaderboard(context: Context) -> Section:
    """Return the leaderboard with intervals."""
    rows = context.fit.to_rows()
    shown = rows[:MOST_ROWS]
    unit = "nats" if context.fit.link.name == "logistic" else "units of the link"
    headings = [
        Heading("Item", number=False),
        Heading("Rank", hint="1 is the best"),
        Heading("Score", hint=f"In {unit}; scores sum to 0"),
        Heading("95% interval", number=False, hint="Score ± 1.96 standard errors; the line is 0"),
        Heading("Beats the next", hint="Predicted chance against the item one rank below"),
        Heading("Wins", hint=_WINS[context.noun]),
        Heading("Share won", hint="Wins over what they are out of"),
    ]
    chances = _against_next(context, shown)
    scale = _scale(shown)
    cells = [_cells(row, chance, scale) for row, chance in zip(shown, chances, strict=True)]
    left = len(rows) - len(shown)
    note = (
        "Scores are relative: what counts is their difference. Intervals are of each score against "
        "the mean of all, so two that overlap can still differ clearly."
    )
    if left:
        note += f" {left:,} more items are not shown."
    table = grid("Leaderboard", headings, cells, note=note, sorted_by=(1, "ascending"), shown=20)
    return Section("leaderboard", "Leaderboard", "Leaderboard", table)


def _cells(row: LeaderboardRow, chance: float, scale: tuple[float, float]) -> list[Cell]:
    low, high = (row.score + side * NORMAL_95 * row.standard_error for side in (-1, 1))
    won = row.wins / row.comparisons if row.comparisons else math.nan
    return [
        name_cell(row.item),
        number_cell(str(row.rank), row.rank),
        number_cell(values.signed(row.score), row.score),
        Cell(_whisker(low, row.score, high, scale), row.standard_error),
        number_cell(values.chance(chance), chance),
        number_cell(values.observed(row.wins, row.comparisons), row.wins),
        number_cell(values.share(won), won),
    ]


def _against_next(context: Context, rows: Sequence[LeaderboardRow]) -> list[float]:
    """Return the predicted chance of each row's item against the next one's."""
    after = context.fit.rank()[1 : len(rows) + 1]
    found = [
        context.fit.probability(row.item, other) for row, other in zip(rows, after, strict=False)
    ]
    return [*found, *[math.nan] * (len(rows) - len(found))]


def _scale(rows: Sequence[LeaderboardRow]) -> tuple[float, float]:
    lows = [row.score - NORMAL_95 * row.standard_error for row in rows]
    highs = [row.score + NORMAL_95 * row.standard_error for row in rows]
    low, high = min(0.0, *lows), max(0.0, *highs)
    return low, max(high - low, 1e-12)


def _whisker(low: float, middle: float, high: float, scale: tuple[float, float]) -> Markup:
    """Return an interval as a small drawing, its numbers for those who ask."""
    x0, x1, x2, zero = (
        (v - scale[0]) / scale[1] * (BAR - 10) + 5 for v in (low, middle, high, 0.0)
    )
    ends = f"{values.signed(low)} to {values.signed(high)}"
    return tag(
        "svg",
        line(zero, 0, zero, 2 * HALF, "zero"),
        line(x0, HALF, x2, HALF, "whisker"),
        line(x0, HALF - 3, x0, HALF + 3, "whisker"),
        line(x2, HALF - 3, x2, HALF + 3, "whisker"),
        tag("circle", cx=f"{x1:.1f}", cy=HALF, r=3.5, class_="dot"),
        viewBox=f"0 0 {BAR:g} {2 * HALF:g}",
        class_="interval",
        role="img",
        aria_label=ends,
        data_tip=ends,
    )
