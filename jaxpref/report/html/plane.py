"""The plane of the paper's Fig. 1, with the triples of a data set on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...audit import AuditReport
from ...fit import FitResult
from ...fit._host import float64, pad, pair_bucket
from ...links import Link
from ...sensitivity import log_sensitivity
from ..numbers import amount
from . import values
from .drawings import Mark, asked, drawing, figure, text
from .elements import Markup, sentence, tag, visible

SIZE, LEFT, TOP, FOOT = 400.0, 52.0, 10.0, 48.0
LIMIT = float(np.log(0.9995 / 0.0005))
TICKS = {0.001: "0.1%", 0.01: "1%", 0.1: "10%", 0.5: "50%", 0.9: "90%", 0.99: "99%", 0.999: "99.9%"}
ROWS = 241
ASKED = 150
"""Triples, the most sensitive ones, that tell who they are; the others are dots."""


class Place(NamedTuple):
    """A triple on the plane: log-odds of the input that moves and of the one held fixed."""

    x: float
    y: float
    tip: str


def plane_figure(fit: FitResult, report: AuditReport) -> Markup | None:
    """Return the plane with the most sensitive triple of each unseen pair; None without any."""
    places, others = find_places(fit, report)
    if not places:
        return None
    levels = report.triples.thresholds
    radius = 5 if len(places) <= 40 else 3.5
    u, down = np.linspace(-LIMIT, LIMIT, ROWS), np.linspace(0, LIMIT, 2001)
    with float64():
        field = _field(fit.link, jnp.asarray(u), jnp.asarray(down))
    log, falling = (np.asarray(part) for part in field)
    regions = [_region(u, log, levels, place) for place in range(len(levels))]
    labels = [_label(down, falling, level) for level in levels]
    drawn = drawing(
        LEFT + SIZE + 14,
        TOP + SIZE + FOOT,
        tag("rect", x=LEFT, y=TOP, width=SIZE, height=SIZE, class_="plane-ground"),
        regions,
        _axes(),
        labels,
        _dots(others),
        tag("g", [_point(place, radius) for place in reversed(places)], class_="points"),
        label="Plane of two observed preferences with the triples of the data",
        class_="plane",
    )
    marks = _marks(levels, len(others), any(map(_beyond, places)))
    return figure(drawn, caption=_caption(report, len(others)), marks=marks)


def find_places(fit: FitResult, report: AuditReport) -> tuple[list[Place], np.ndarray]:
    """Return the most sensitive triples, most sensitive first, and the places of the others."""
    unseen = report.unseen
    has = np.flatnonzero(unseen.middle >= 0)
    i, j, k = unseen.item_a[has], unseen.item_b[has], unseen.middle[has]
    first, second = fit.scores[i] - fit.scores[k], fit.scores[k] - fit.scores[j]
    swap = np.abs(second) > np.abs(first)  # the flatter side moves the prediction more
    x, y, logs = read(fit.link, np.where(swap, second, first), np.where(swap, first, second))
    ends = np.where(swap, [k, j, i, k], [i, k, k, j]).T
    order = np.argsort(-logs, kind="stable")
    places = []
    for n in order[:ASKED]:
        a, b = fit.items[i[n]], fit.items[j[n]]
        p = values.chance(float(unseen.probability[has[n]]))
        said = f"{visible(a)} over {visible(b)}: {p}, never compared.\n"
        names = [visible(fit.items[end]) for end in ends[n]]
        at = float(x[n]), float(y[n])
        places.append(Place(*at, said + _tip(names, *at, float(logs[n]))))
    rest = order[ASKED:]
    return places, np.stack([x[rest], y[rest]], 1)


def read(
    link: Link, moving: np.ndarray, fixed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the log-odds of the probabilities of two margins, and the log-sensitivity."""
    size = pair_bucket(len(moving))
    with float64():
        found = _read(link, jnp.asarray(pad(moving, size)), jnp.asarray(pad(fixed, size)))
    x, y, log = (np.asarray(column)[: len(moving)] for column in found)
    return x, y, log


@eqx.filter_jit
def _read(link: Link, moving: Array, fixed: Array) -> tuple[Array, Array, Array]:
    odds = [link.log_probability(m) - link.log_probability(-m) for m in (moving, fixed)]
    return odds[0], odds[1], log_sensitivity(moving, fixed, link=link)[0]


@eqx.filter_jit
def _field(link: Link, odds: Array, diagonal: Array) -> tuple[Array, Array]:
    """Return the log-sensitivity over the plane, a row for each p held fixed, and down a diagonal.

    The coordinates are log-odds of probabilities between 0.0005 and 0.9995, which lose nothing.
    """
    margin = link.margin(1 / (1 + jnp.exp(-odds)))
    log, _ = log_sensitivity(margin[None, :], margin[:, None], link=link)
    falling = link.margin(1 / (1 + jnp.exp(-diagonal)))
    return log, log_sensitivity(falling, -falling, link=link)[0]


def _tip(names: list[str], x: float, y: float, log: float) -> str:
    """Return what a triple says when asked, after the prediction."""
    chances = [values.chance(float(1 / (1 + np.exp(-u)))) for u in (x, y)]
    times = values.plain(float(np.exp(min(log, 700.0))))
    return (
        f"{names[0]} over {names[1]}: {chances[0]} (moves)\n"
        f"{names[2]} over {names[3]}: {chances[1]} (held fixed)\n"
        f"The prediction moves {times} times as fast as the first."
    )


# Drawing ------------------------------------------------------------------------------------


def _x(u: float) -> float:
    return LEFT + SIZE * (float(np.clip(u, -LIMIT, LIMIT)) + LIMIT) / (2 * LIMIT)


def _y(u: float) -> float:
    return TOP + SIZE * (LIMIT - float(np.clip(u, -LIMIT, LIMIT))) / (2 * LIMIT)


def _region(u: np.ndarray, log: np.ndarray, levels: Sequence[float], place: int) -> Markup:
    """Return the region where the sensitivity exceeds a level, row by row."""
    shade = 6 - (len(levels) - 1 - place) if len(levels) <= 6 else 1 + 6 * place // len(levels)
    outline = region_path(u, log - np.log(levels[place]))
    return tag("path", d=outline, class_=f"region shade-{shade}")


def region_path(u: np.ndarray, above: np.ndarray) -> str:
    """Return the outline of where `above` is positive, as polygons over runs of rows."""
    path: list[str] = []
    open_runs: list[list[tuple[float, float, float]]] = []
    for row in range(len(u)):
        spans = _spans(u, above[row])
        if len(spans) != len(open_runs):
            path += map(_polygon, open_runs)
            open_runs = [[] for _ in spans]
        for run, (start, end) in zip(open_runs, spans, strict=True):
            run.append((start, end, float(u[row])))
    return "".join([*path, *map(_polygon, open_runs)])


def _spans(u: np.ndarray, values: np.ndarray) -> list[tuple[float, float]]:
    """Return the stretches where values are above 0, their ends interpolated."""
    inside = np.concatenate([[False], values > 0, [False]])
    change = np.flatnonzero(inside[1:] != inside[:-1]).tolist()
    return [
        (_crossing(u, values, start - 1), _crossing(u, values, end - 1))
        for start, end in zip(change[::2], change[1::2], strict=True)
    ]


def _crossing(u: np.ndarray, values: np.ndarray, before: int) -> float:
    if before < 0 or before + 1 >= len(u):
        return float(u[min(max(before, 0), len(u) - 1)])
    low, high = values[before], values[before + 1]
    return float(u[before] + (u[before + 1] - u[before]) * low / (low - high))


def _polygon(run: list[tuple[float, float, float]]) -> str:
    if len(run) < 2:
        return ""
    left = [f"{_x(start):.1f} {_y(u):.1f}" for start, _, u in run]
    right = [f"{_x(end):.1f} {_y(u):.1f}" for _, end, u in reversed(run)]
    return "M" + "L".join(left + right) + "Z"


def _label(u: np.ndarray, log: np.ndarray, level: float) -> Markup | None:
    """Return the level, written where its line crosses the falling diagonal, in both corners."""
    past = np.flatnonzero(log > np.log(level))
    if not past.size or not 0.4 < u[past[0]] < LIMIT - 0.5:
        return None
    at = float(u[past[0]])
    return tag(
        "g",
        [text(_x(s * at), _y(-s * at) + 4, f"{level:g}", class_="level") for s in (1, -1)],
        aria_hidden="true",
    )


def _axes() -> Markup:
    ticks = []
    for p, name in TICKS.items():
        u = float(np.log(p / (1 - p)))
        ticks.append(text(_x(u), TOP + SIZE + 17, name, class_="tick middle"))
        ticks.append(text(LEFT - 6, _y(u) + 4, name, class_="tick end"))
        ticks.append(
            tag("path", d=f"M{_x(u):.1f} {TOP + SIZE}v5M{LEFT} {_y(u):.1f}h-5", class_="axis")
        )
    centre = LEFT + SIZE / 2
    ticks.append(
        text(centre, TOP + SIZE + 40, "observed preference that moves", class_="axis-name")
    )
    ticks.append(
        text(
            0,
            0,
            "observed preference held fixed",
            class_="axis-name",
            transform=f"translate(12 {TOP + SIZE / 2}) rotate(-90)",
        )  # fmt: skip
    )
    return tag("g", ticks, aria_hidden="true")


def _dots(others: np.ndarray) -> Markup | None:
    """Return the other triples as dots, those at one place drawn once."""
    if not len(others):
        return None
    spots = {(round(_x(x)), round(_y(y))) for x, y in others}
    return tag("path", d="".join(f"M{x} {y}h0" for x, y in sorted(spots)), class_="dots")


def _beyond(place: Place) -> bool:
    """Whether a triple is further out than the axes reach."""
    return max(abs(place.x), abs(place.y)) > LIMIT


def _point(place: Place, radius: float | int) -> Markup:
    """Return a triple as a point, or beyond the axes as a triangle on the edge, pointing out."""
    if _beyond(place):
        shape = _triangle(_x(place.x), _y(place.y), _outwards(place), 1.6 * radius)
        return asked("path", place.tip, d=shape, class_="point beyond")
    return asked("circle", place.tip, cx=f"{_x(place.x):.1f}", cy=f"{_y(place.y):.1f}", r=radius,
                 class_="point")  # fmt: skip


def _outwards(place: Place) -> float:
    """Return the direction of a triple beyond the axes, in radians, on paper (y down)."""
    right, down = (float(np.sign(u)) if abs(u) > LIMIT else 0.0 for u in (place.x, -place.y))
    return float(np.arctan2(down, right))


def _triangle(x: float, y: float, direction: float, size: float) -> str:
    """Return a triangle whose tip is at a place and which points in a direction."""
    corners = [(x, y)]
    for turn in (2.6, -2.6):
        angle = direction + turn
        corners.append((x + 2 * size * np.cos(angle), y + 2 * size * np.sin(angle)))
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in corners) + "Z"


def _marks(levels: Sequence[float], others: int, beyond: bool) -> list[Mark]:
    marks = [
        Mark(
            tag("circle", cx=14, cy=7, r=5, class_="point"),
            f"the {ASKED} most sensitive triples" if others else "a triple of these data",
        )
    ]
    if others:
        marks.append(Mark(tag("path", d="M14 7h0", class_="dots"), f"{others:,} other triples"))
    if beyond:
        shape = _triangle(22.0, 7.0, 0.0, 6.0)
        marks.append(Mark(tag("path", d=shape, class_="point beyond"), "a triple beyond the axes"))
    ground = tag("rect", x=4, y=1, width=20, height=12, class_="region shade-5")
    names = ", ".join(f"{level:g}" for level in levels)
    marks.append(Mark(ground, f"sensitivity above M = {names}: the darker, the more"))
    return marks


def _caption(report: AuditReport, others: int) -> Markup:
    counts = report.triples
    inside = " ".join(
        f"{amount(number, 'triple')} of {counts.total:,} above M = {level:g} "
        f"({values.share(number / counts.total)})."
        for level, number in zip(counts.thresholds, counts.inside, strict=True)
        if level in (counts.thresholds[0], counts.thresholds[-1])
    )
    return sentence(
        "Each point is a pair that was never compared, predicted through an item that was compared "
        "with both (the one through which it is most sensitive). In the two dark corners, where "
        "strong preferences pull in opposite directions, the prediction moves more than M times as "
        f"fast as the preference on the horizontal axis. {inside} Axes are stretched towards 0 and "
        "1; triples beyond them stand on the edge, pointing out. Other chains of comparisons, "
        "which the plane does not see, may hold a prediction in place: the table above counts them "
        "all."
    )
