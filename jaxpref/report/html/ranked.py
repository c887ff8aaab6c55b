"""The page of an audit of rankings: what all audits share, and what each ranking holds up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import numpy as np

from ..numbers import amount
from . import closing, fragile, moves, opening, values
from .elements import Markup, join, sentence, tag
from .frame import Context, Section, paragraph
from .grids import Cell, Heading, grid, name_cell, number_cell, pair_cell

if TYPE_CHECKING:
    from ...audit.records import RankedPair, RankingInfluence


def summary(context: Context) -> Section:
    """Return what was found, most important first."""
    tiles = [opening.winner_tile(context), opening.flip_tile(context)]
    pairs, rankings = context.found("pairs"), context.fit.rankings
    if pairs:
        most = 100 * abs(pairs[0].derivative)
        says = "points the most fragile prediction moves with the weight of one ranking"
        tiles.append(opening.tile(values.plain(most), says))
    tiles.append(
        opening.tile(values.count(float(rankings.weight.sum())), "rankings, by their weights")
    )
    lines = context.found("summary") or ("Nothing was asked for but the fit.",)
    content = join(
        tag("ul", [each for each in tiles if each], class_="tiles"),
        paragraph(sentence(lines[0]), class_="lead"),
        tag("ul", [tag("li", sentence(line)) for line in lines[1:]], class_="findings")
        if lines[1:]
        else None,
    )
    return Section("summary", "Summary", "In short", content)


def predictions(context: Context) -> Section | None:
    """Return the most fragile predictions, and the rankings that move most."""
    pairs, influences = context.found("pairs"), context.found("influences")
    if not pairs and not influences:
        return None
    said = (
        "A prediction hangs by a thread where the weight of one ranking moves it by much. Each row "
        "names the ranking that it rests on most; below, the rankings themselves, each left out "
        "and the model fitted again."
    )
    parts = [paragraph(said)]
    if pairs:
        parts.append(_pairs(pairs))
    if influences:
        parts.append(_influences(influences))
    return Section("fragile", "Fragile", "What hangs by a thread", join(parts))


def _pairs(rows: tuple[RankedPair, ...]) -> Markup:
    headings = [
        Heading("Pair", number=False),
        fragile.CHANCE,
        Heading("95% interval", hint="Of the prediction"),
        Heading("Moves by", hint="Points, per unit of weight of the ranking it rests on"),
        Heading("Rests on", number=False, hint="The ranking that moves the prediction most"),
        Heading("Worst, L2", hint="All weights moving together, the root of their squares 1"),
        Heading("Worst, each", hint="All weights moving together, each by up to 1"),
    ]
    cells = [
        [
            pair_cell(row.item_a, row.item_b),
            number_cell(values.chance(row.probability), row.probability),
            number_cell(values.interval(row.low, row.high), row.high - row.low),
            number_cell(values.signed(100 * row.derivative), abs(row.derivative)),
            Cell(tag("bdi", row.text), row.text),
            number_cell(values.plain(100 * row.worst_l2), row.worst_l2),
            number_cell(values.plain(100 * row.worst_linf), row.worst_linf),
        ]
        for row in rows
    ]
    note = "To first order, in points of the prediction."
    return grid("Most fragile predictions", headings, cells, note=note, sorted_by=(3, "descending"))


def _influences(rows: tuple[RankingInfluence, ...]) -> Markup:
    headings = [
        Heading("Ranking", number=False, hint="Best first"),
        Heading("Weight", hint="How often it counts"),
        Heading("Moves most", number=False, hint="The prediction that losing it moves most"),
        Heading("Before"),
        Heading("Without it", hint="Fitted again without the ranking"),
    ]
    rated = any(row.rater is not None for row in rows)
    if rated:
        headings.insert(1, Heading("By", number=False, hint="Who gave it"))
    cells = []
    for row in rows:
        after = "no fit" if row.after is None else values.chance(row.after)
        cells.append(
            [
                Cell(tag("bdi", row.text), row.text),
                *([name_cell(row.rater or "–")] if rated else []),
                number_cell(values.count(row.weight), row.weight),
                pair_cell(row.item_a, row.item_b),
                number_cell(values.chance(row.probability), row.probability),
                number_cell(after, row.after),
            ]
        )
    return grid("The rankings that move most", headings, cells)


_RANKING = ("Ranking", "Items in order, best first: a first choice among all of them, a second "
            "among the rest, and so on (Plackett-Luce).")  # fmt: skip
_WORDS = ("Score, margin", "Flip", "95% interval", "Nat")


def glossary(context: Context) -> Section:
    """Return what the words mean."""
    del context
    kept = [entry for entry in closing.GLOSSARY if entry[0] in _WORDS]
    return Section(
        "glossary", "Words", "What the words mean", closing.definitions([_RANKING, *kept])
    )


def method(context: Context) -> Section:
    """Return how it was computed: data, model, versions."""
    from ... import __version__

    fit = context.fit
    prior = f", Gaussian prior of strength {fit.ridge:g}" if fit.ridge else ", no prior"
    facts = [
        *context.facts.items(),
        (
            "Counts",
            f"{amount(fit.num_items, 'item')}, "
            f"{amount(float(fit.rankings.weight.sum()), 'ranking')} in "
            f"{amount(len(fit.rankings.weight), 'row')}",
        ),
        ("Model", f"one score an item, Plackett-Luce{prior}"),
        (
            "Fit",
            f"maximum {'posterior' if fit.ridge else 'likelihood'}, Newton, {fit.status} after "
            f"{amount(fit.steps, 'step')}; largest gradient {fit.gradient_norm:.1g}; "
            f"log-likelihood {fit.log_likelihood:,.2f} nats",
        ),
        ("Versions", f"jaxpref {__version__}, JAX {jax.__version__}, NumPy {np.__version__}"),
    ]
    source = (
        "Derivatives are those of the fitted model by the weight of each ranking; flips, ranges "
        "and what is left out are refits. This page is one file: it loads nothing and sends "
        "nothing."
    )
    content = join(closing.definitions(facts), paragraph(source))
    return Section("method", "Method", "How it was computed", content)


SECTIONS: tuple[Callable[[Context], Section | None], ...] = (
    summary,
    moves.flips,
    opening.leaderboard,
    predictions,
    fragile.groups,
    moves.multiplicity,
    glossary,
    method,
)
