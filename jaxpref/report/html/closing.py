"""How dominant the data are, what the words mean, and how everything was computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from ..numbers import amount
from . import values
from .drawings import Mark, asked, drawing, figure, line, text
from .elements import Markup, join, sentence, tag, visible
from .frame import Context, Section, paragraph
from .grids import Cell, Heading, grid, number_cell

if TYPE_CHECKING:
    from ...audit.records import Bin, CircularTriple, Cycles, Dominance

WIDTH, HEIGHT, LEFT, FOOT, TOP = 560.0, 260.0, 44.0, 44.0, 12.0
SERIES = (("observed", "observed shares"), ("fitted", "fitted, compared pairs"),
          ("all_pairs", "fitted, all pairs"))  # fmt: skip


def dominance(context: Context) -> Section | None:
    """Return how dominant the preferences are, and how transitive."""
    found = context.found("dominance")
    if found is None:
        return None
    parts = [paragraph(sentence(found.sentence)), histogram(found), _tests(found)]
    if found.cycles is not None:
        parts.append(_cycles(found.cycles))
    return Section("dominance", "Dominance", "How dominant the data are", join(parts))


def histogram(found: Dominance) -> Markup:
    """Return the shares of pairs in each bin of Table C2, for observed and fitted preferences."""
    totals = {name: sum(getattr(b, name) for b in found.bins) or 1.0 for name, _ in SERIES}
    tallest = max(getattr(b, name) / totals[name] for b in found.bins for name, _ in SERIES)
    drawn = drawing(
        WIDTH,
        HEIGHT,
        _ruler(tallest),
        tag(
            "g",
            [_bars(b, n, found.bins, totals, tallest) for n, b in enumerate(found.bins)],
            class_="points",
        ),  # fmt: skip
        label="Histogram of preference probabilities",
        class_="histogram",
    )
    marks = [
        Mark(tag("rect", x=4, y=1, width=20, height=12, class_=f"bar {name}"), text_)
        for name, text_ in SERIES
    ]
    caption = (
        "Share of pairs by the probability that one item beats the other, in the bins of the "
        "paper's Table C2, which are of unequal width. Each pair counts half from either side. The "
        "outer bins hold the dominant preferences, which make others fragile."
    )
    return figure(drawn, caption=caption, marks=marks)


def _ruler(tallest: float) -> Markup:
    step = next((s for s in (0.02, 0.05, 0.1, 0.2) if tallest / s <= 5), 0.25)
    lines = []
    for value in np.arange(0, tallest + 1e-9, step):
        y = _height(float(value), tallest)
        lines.append(line(LEFT, y, WIDTH, y, "rule"))
        lines.append(text(LEFT - 6, y + 4, f"{100 * value:.0f}%", class_="tick end"))
    return tag("g", lines, aria_hidden="true")


def _height(value: float, tallest: float) -> float:
    return TOP + (HEIGHT - TOP - FOOT) * (1 - value / (tallest or 1.0))


def _bars(
    entry: Bin, place: int, bins: Sequence[Bin], totals: dict[str, float], tallest: float
) -> Markup:
    room = (WIDTH - LEFT) / len(bins)
    start, wide = LEFT + place * room, room * 0.84 / len(SERIES)
    bars = []
    for n, (name, label) in enumerate(SERIES):
        value = getattr(entry, name)
        top = _height(value / totals[name], tallest)
        tip = (
            f"{entry.label}, {label}: {values.count(value)} ({values.share(value / totals[name])})"
        )
        bars.append(
            asked(
                "rect",
                tip,
                x=f"{start + room * 0.08 + n * wide:.1f}",
                y=f"{top:.1f}",
                width=f"{wide - 1:.1f}",
                height=f"{max(HEIGHT - FOOT - top, 0):.1f}",
                class_=f"bar {name}",
            )  # fmt: skip
        )
    middle = start + room / 2
    return tag("g", bars, text(middle, HEIGHT - FOOT + 17, entry.label, class_="tick middle"))


def _tests(found: Dominance) -> Markup:
    modes = "two modes" if found.bimodal else "one mode"
    facts = [
        ("Variance of the fitted scores", f"{values.plain(found.variance)} nats²"),
        (
            "The same, sampling noise taken off",
            f"{values.plain(found.corrected_variance)} (standard error "
            f"{values.plain(found.variance_error)}): above 1 the distribution of preferences has "
            f"two modes; here {modes}",
        ),
        (
            "Fit against free probabilities",
            f"deviance {values.plain(found.deviance, 4)} on {found.degrees_of_freedom:,} degrees "
            f"of freedom, p {values.p_value(found.deviance_p_value)}",
        ),
    ]
    return definitions(facts)


def _cycles(found: Cycles) -> Markup:
    said = (
        f"Of {amount(found.complete_triples, 'triple')} of items all compared with each other, "
        f"{found.circular:,} are circular (a over b over c over a); the fitted model expects "
        f"{values.plain(found.expected)} ± {values.plain(found.standard_deviation)} (p "
        f"{values.p_value(found.p_value)}), coin flips {values.plain(found.expected_at_random)}. "
        f"{found.significant:,} are real beyond chance after correction for their number."
    )
    if not found.triples:
        return paragraph(said)
    headings = [
        Heading("Circle", number=False),
        Heading("Shares won"),
        Heading("Comparisons"),
        Heading("p", hint="That the circle is real, one test"),
        Heading("p, corrected", hint="For the number of triples (Holm)"),
        Heading("p, model", hint="That the three shares are those of some scores"),
    ]
    cells = [_cycle_cells(row) for row in found.triples]
    return join(paragraph(said), grid("Circular triples", headings, cells, shown=6))


def _cycle_cells(row: CircularTriple) -> list[Cell]:
    names = [tag("bdi", visible(name)) for name in (row.item_a, row.item_b, row.item_c, row.item_a)]
    circle = join([join(" > " if n else None, name) for n, name in enumerate(names)])
    shares = ", ".join(values.share(f) for f in row.fractions)
    counts = ", ".join(values.count(n) for n in row.comparisons)
    return [
        Cell(circle, row.item_a),
        number_cell(shares, min(row.fractions)),
        number_cell(counts, sum(row.comparisons)),
        number_cell(values.p_value(row.p_value), row.p_value),
        number_cell(values.p_value(row.adjusted), row.adjusted),
        number_cell(values.p_value(row.p_value_model), row.p_value_model),
    ]


# Words and method ---------------------------------------------------------------------------

GLOSSARY = (
    ("Comparison", "Two items were put side by side and one was preferred; a tie may count as half "
     "a win for both."),
    ("Score, margin", "The model gives every item a score; the difference of two scores, their "
     "margin, decides the predicted chance. With the logistic link, 1 is a chance of 73%."),
    ("Seen, unseen", "A pair is unseen if nobody compared the two: its chance is worked out from "
     "other pairs alone."),
    ("Sensitivity", "How many points a prediction moves when one observed share moves by one point "
     "(a derivative: exact for small moves only). Above 1 it moves faster than its own evidence."),
    ("M-sensitive", "Of sensitivity above M."),
    ("Triple", "An unseen pair i, j with an item k that was compared with both."),
    ("Dominant", "Of a preference below 10% or at least 90%."),
    ("Leverage", "How much of a compared pair's fitted margin its own comparisons decide. 1: a "
     "bridge, nothing else ties its two sides together."),
    ("Flip", "A conclusion overturned: two items change order. Confirmed: the model was fitted "
     "again and says so."),
    ("95% interval", "From the curvature of the likelihood; it allows for chance in the votes, not "
     "for a wrong model."),
    ("Nat", "Unit of scores and log-likelihoods, natural logarithm. 1 nat is 174 Elo points."),
)  # fmt: skip


def glossary(context: Context) -> Section:
    """Return what the words mean."""
    del context
    return Section("glossary", "Words", "What the words mean", definitions(GLOSSARY))


def method(context: Context) -> Section:
    """Return how it was computed: data, model, versions."""
    from ... import __version__

    fit, regime = context.fit, context.report.regime
    prior = f", Gaussian prior of strength {fit.ridge:g}" if fit.ridge else ", no prior"
    facts = [
        *context.facts.items(),
        (
            "Counts",
            f"{amount(fit.num_items, 'item')}, {amount(regime.num_comparisons, 'comparison')}, "
            f"{amount(regime.num_edges, 'compared pair')}, "
            f"{amount(regime.num_unseen, 'unseen pair')}",
        ),
        ("Model", f"one score an item, {fit.link.name} link{prior}; ties: {fit.ties}"),
        (
            "Fit",
            f"maximum {'posterior' if fit.ridge else 'likelihood'}, Newton, {fit.status} after "
            f"{amount(fit.steps, 'step')}; largest gradient {fit.gradient_norm:.1g}; "
            f"log-likelihood {fit.log_likelihood:,.2f} nats",
        ),
        (
            "Regions counted",
            "M = " + ", ".join(f"{m:g}" for m in context.report.triples.thresholds),
        ),
        ("Versions", f"jaxpref {__version__}, JAX {jax.__version__}, NumPy {np.__version__}"),
    ]
    source = (
        "Sensitivities are derivatives of the fitted model (on a tree of comparisons, Eq. 4 of Z. "
        "Xu and M. Kankanhalli, Strong Preferences Affect the Robustness of Preference Models and "
        "Value Alignment, ICLR 2025); the plane is that paper's Figure 1. This page is one file: "
        "it loads nothing and sends nothing."
    )
    return Section(
        "method", "Method", "How it was computed", join(definitions(facts), paragraph(source))
    )


def definitions(facts: Sequence[tuple[str, str]]) -> Markup:
    """Return a list of words and what they mean."""
    return tag("dl", [(tag("dt", name), tag("dd", said)) for name, said in facts])
