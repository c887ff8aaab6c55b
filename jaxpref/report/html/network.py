"""The graph of comparisons: items, compared pairs, and those that fragile predictions rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ...audit import AuditReport
from ...audit.unseen import adjacency
from ...fit import FitResult
from ..numbers import amount
from . import values
from .drawings import Mark, asked, drawing, figure, line, text
from .elements import Markup, sentence, short, tag, visible
from .layout import place_items

WIDTH, HEIGHT, MARGIN = 760.0, 500.0, 34.0
LARGEST = 400
"""Items up to which the whole graph is drawn; beyond, the items of the fragile pairs and theirs."""

NAMED, PREDICTIONS, LEVERS = 30, 12, 16
BOW = 0.3
"""How far the lines of pairs that were never compared bow, as a share of their length."""


class Tie(NamedTuple):
    """Two items, by index, with what is said of them."""

    a: int
    b: int
    tip: str


class Net(NamedTuple):
    """What is drawn: the items, their places, and the pairs by role."""

    items: np.ndarray
    places: np.ndarray
    plain: np.ndarray
    levers: list[Tie]
    fragile: list[Tie]
    height: float


def network_figure(fit: FitResult, report: AuditReport) -> Markup:
    """Return the comparison graph with its fragile pairs."""
    net = build(fit, report)
    drawn = drawing(
        WIDTH,
        net.height,
        _plain_edges(net),
        tag("g", [_tie(net, tie, "lever", 0.0) for tie in net.levers], class_="points"),
        tag("g", [_tie(net, tie, "fragile", BOW) for tie in net.fragile], class_="points"),
        tag("g", _nodes(fit, net), class_="points"),
        tag("g", _labels(fit, net), aria_hidden="true"),
        label="Graph of which items were compared with which",
        class_="network",
    )
    return figure(drawn, caption=_caption(fit, net), marks=_marks(net))


def build(fit: FitResult, report: AuditReport) -> Net:
    """Choose what to draw, and where."""
    levers, fragile = _levers(fit, report), _fragile(fit, report)
    adjacent = adjacency(fit)
    chosen = _chosen(fit, adjacent, levers + fragile)
    number = {int(k): n for n, k in enumerate(chosen)}
    inner = adjacent[np.ix_(chosen, chosen)]
    apart = min(30.0, 0.8 * float(np.sqrt(WIDTH * HEIGHT / len(chosen))))
    places = place_items(
        inner,
        fit.scores[chosen],
        width=WIDTH - 2 * MARGIN - 40,
        height=HEIGHT - 2 * MARGIN,
        apart=apart,
    )
    a, b = np.nonzero(np.triu(inner))
    known = [
        [tie for tie in ties if tie.a in number and tie.b in number] for ties in (levers, fragile)
    ]
    levers, fragile = (
        [tie._replace(a=number[tie.a], b=number[tie.b]) for tie in ties] for ties in known
    )
    top, height = _room(places, fragile)
    return Net(chosen, places + [MARGIN, top], np.stack([a, b], 1), levers, fragile, height)


def _room(places: np.ndarray, fragile: Sequence[Tie]) -> tuple[float, float]:
    """Return how far down the places go, and the height that they and the arcs take."""
    arcs = [_middle(places[tie.a], places[tie.b], BOW / 2)[1] for tie in fragile]
    low = min([*places[:, 1], *arcs]) - MARGIN
    high = max([*places[:, 1], *arcs]) + MARGIN
    return -low, high - low


def _middle(start: np.ndarray, end: np.ndarray, bow: float) -> np.ndarray:
    """Return the point beside the middle of a line, `bow` of its length away."""
    across = end - start
    return (start + end) / 2 + bow * np.array([across[1], -across[0]])


def _levers(fit: FitResult, report: AuditReport) -> list[Tie]:
    """Return the observed pairs that predictions rest on: of the tables, then bridges."""
    ties: dict[tuple[int, int], Tie] = {}
    for row in report.top[:PREDICTIONS]:
        edge = row.edge
        wins = values.observed(edge.win_fraction * edge.comparisons, edge.comparisons)
        tip = f"{visible(edge.item_a)} over {visible(edge.item_b)}: {wins}"
        lead = f"\nMoves {visible(row.item_a)} over {visible(row.item_b)} most"
        _add(ties, fit, edge.item_a, edge.item_b, f"{tip}{lead}")
    for lever in getattr(report, "leverage", ())[:LEVERS]:
        if lever.leverage < 0.5:
            continue
        wins = values.observed(lever.win_fraction * lever.comparisons, lever.comparisons)
        tip = f"{visible(lever.item_a)} over {visible(lever.item_b)}: {wins}"
        _add(ties, fit, lever.item_a, lever.item_b, f"{tip}\nLeverage {lever.leverage:.2f}")
    return list(ties.values())


def _add(
    ties: dict[tuple[int, int], Tie], fit: FitResult, item_a: str, item_b: str, tip: str
) -> None:
    a, b = sorted((fit.index(item_a), fit.index(item_b)))
    ties.setdefault((a, b), Tie(a, b, tip))


def _fragile(fit: FitResult, report: AuditReport) -> list[Tie]:
    ties: dict[tuple[int, int], Tie] = {}
    for row in report.top[:PREDICTIONS]:
        tip = (
            f"{visible(row.item_a)} over {visible(row.item_b)}: {values.chance(row.probability)}, "
            f"never compared\nSensitivity {values.plain(row.sensitivity)} to "
            f"{visible(row.edge.item_a)} over {visible(row.edge.item_b)}"
        )
        _add(ties, fit, row.item_a, row.item_b, tip)
    return list(ties.values())


def _chosen(fit: FitResult, adjacent: np.ndarray, ties: Sequence[Tie]) -> np.ndarray:
    """Return the items to draw: all, or those of the ties with those between them."""
    if fit.num_items <= LARGEST:
        return np.arange(fit.num_items)
    core = np.array(sorted({k for tie in ties for k in (tie.a, tie.b)}), int)
    touched = adjacent[core].sum(axis=0)
    order = np.argsort(-touched, kind="stable")
    more = [k for k in order if touched[k] and k not in core][: max(LARGEST // 2 - len(core), 0)]
    return np.sort(np.concatenate([core, np.array(more, int)]))


# Drawing ------------------------------------------------------------------------------------


def _plain_edges(net: Net) -> Markup:
    p = net.places
    path = "".join(
        f"M{p[a, 0]:.0f} {p[a, 1]:.0f}L{p[b, 0]:.0f} {p[b, 1]:.0f}" for a, b in net.plain
    )
    strength = float(np.clip(9 / np.sqrt(max(len(net.plain), 1)), 0.14, 0.8))
    return tag("path", d=path, class_="edges", style=f"opacity:{strength:.2f}")


def _tie(net: Net, tie: Tie, class_: str, bow: float) -> Markup:
    """Return a line between two items, straight or bowed, with a wide grip to point at."""
    (x1, y1), (x2, y2) = net.places[tie.a], net.places[tie.b]
    x, y = _middle(net.places[tie.a], net.places[tie.b], bow)
    path = f"M{x1:.1f} {y1:.1f}Q{x:.1f} {y:.1f} {x2:.1f} {y2:.1f}"
    lines = [tag("path", d=path, class_=name) for name in ("grip", class_)]
    return asked("g", tie.tip, lines, class_="tie")


def _nodes(fit: FitResult, net: Net) -> Iterable[Markup]:
    rank = {name: place + 1 for place, name in enumerate(fit.rank())}
    count = np.bincount(net.plain.ravel(), minlength=len(net.items))
    radius = 4.5 if len(net.items) > 120 else 6.0
    for n, k in enumerate(net.items):
        name = fit.items[k]
        tip = (
            f"{visible(name)}\nrank {rank[name]} of {fit.num_items}, score "
            f"{values.signed(float(fit.scores[k]))}\ncompared with {amount(int(count[n]), 'item')}"
        )
        tenth = min(int(10 * (rank[name] - 1) / fit.num_items), 9)
        yield asked(
            "circle",
            tip,
            cx=f"{net.places[n, 0]:.1f}",
            cy=f"{net.places[n, 1]:.1f}",
            r=radius,
            class_=f"node tenth-{tenth}",
        )


def _labels(fit: FitResult, net: Net) -> list[Markup]:
    """Return the names that fit: all of a few items, else those of the fragile pairs first."""
    ties = [*net.fragile, *net.levers]
    wanted = list(dict.fromkeys(k for tie in ties for k in (tie.a, tie.b)))
    best = np.argsort(-fit.scores[net.items], kind="stable")
    wanted += [int(k) for k in best if k not in set(wanted)]
    few = len(net.items) <= 60
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in net.places] if few else []
    lines = _samples(net)
    labels: list[Markup] = []
    for n in wanted[: NAMED if len(net.items) > NAMED else None]:
        name = short(fit.items[net.items[n]], 20)
        found = _free_spot(net, n, 6.6 * len(name) + 4, taken, lines)
        if found is not None:
            taken.append(found)
            labels.append(text(found[0], found[3] - 3, name, class_="name"))
    return labels


def _samples(net: Net) -> np.ndarray:
    """Return points along the lines that names should not stand on."""
    pairs = [(tie.a, tie.b, 0.0) for tie in net.levers]
    pairs += [(tie.a, tie.b, BOW) for tie in net.fragile]
    if len(net.plain) <= 200:
        pairs += [(a, b, 0.0) for a, b in net.plain]
    t = np.linspace(0, 1, 41)[:, None]
    curves = [
        (1 - t) ** 2 * net.places[a]
        + 2 * t * (1 - t) * _middle(net.places[a], net.places[b], bow)
        + t**2 * net.places[b]
        for a, b, bow in pairs
    ]
    return np.concatenate(curves) if curves else np.zeros((0, 2))


Box = tuple[float, float, float, float]


def _free_spot(
    net: Net, place: int, wide: float, taken: Sequence[Box], lines: np.ndarray
) -> Box | None:
    """Return the box beside an item that covers no other name and the fewest lines, if any."""
    x, y = net.places[place]
    spots = ((x + 8, y + 4), (x - 8 - wide, y + 4), (x - wide / 2, y - 10), (x - wide / 2, y + 19))
    spots += ((x + 5, y - 9), (x - 5 - wide, y - 9), (x + 5, y + 17), (x - 5 - wide, y + 17))
    boxes = [(left, base - 11, left + wide, base + 3) for left, base in spots]
    free = [
        box
        for box in boxes
        if box[0] >= 0 and box[2] <= WIDTH and box[1] >= 0 and box[3] <= net.height
        if not any(_overlap(box, other) for other in taken)
    ]
    return min(free, key=lambda box: _covered(box, lines), default=None)


def _covered(box: Box, points: np.ndarray) -> int:
    x, y = points.T
    return int(np.sum((x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])))


def _overlap(one: Box, two: Box) -> bool:
    across = one[0] < two[2] and two[0] < one[2]
    return bool(across and one[1] < two[3] and two[1] < one[3])


def _marks(net: Net) -> list[Mark]:
    marks = [
        Mark(
            [
                tag("circle", cx=7, cy=7, r=5, class_="node tenth-0"),
                tag("circle", cx=21, cy=7, r=5, class_="node tenth-9"),
            ],  # fmt: skip
            "an item: darkest the best, lightest the last",
        ),
        Mark(line(1, 7, 27, 7, "edges"), "compared"),
    ]
    if net.levers:
        marks.append(
            Mark(line(1, 7, 27, 7, "lever"), "compared, and fragile predictions rest on it")
        )
    if net.fragile:
        arc = tag("path", d="M1 12Q14 -2 27 12", class_="fragile")
        marks.append(Mark(arc, "never compared: a fragile prediction"))
    return marks


def _caption(fit: FitResult, net: Net) -> Markup:
    left = fit.num_items - len(net.items)
    some = (
        f" Drawn are the items of the fragile pairs and those compared with most of them; "
        f"{left:,} others are left out."
        if left
        else ""
    )
    return sentence(
        "Items that were compared with the same others stand together; where an item hangs on one "
        "or two lines, so does every prediction about it. Position says nothing about strength, "
        f"except that better items tend to stand to the left.{some}"
    )
