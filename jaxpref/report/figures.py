"""Figures of an audit: the plane of Fig. 1 with a data set's own triples, and fragility by pair.

Matplotlib is imported inside the functions, and never its pyplot: no window, no global state.
Colours are Okabe and Ito's, and a scale that also falls in lightness.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._checks import InputError
from ..audit import AuditReport
from ..fit import FitResult
from ..links import Link, logistic
from ..sensitivity import log_sensitivity
from . import numbers
from .files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THRESHOLDS = (1.01, 2.0, 3.0, 5.0, 10.0)
SHADES = ("#fdf4e6", "#fbe2bd", "#f6c88a", "#eda660", "#dc8142", "#bf5d2c")
BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#9a9a9a", "#222222"
MARKERS = (("o", BLUE), ("s", GREEN), ("D", "#CC79A7"), ("^", "#56B4E9"))
TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
TICK_LABELS = ("0.1%", "1%", "10%", "50%", "90%", "99%", "99.9%")
FORMATS = (".png", ".pdf", ".svg")


class Points(NamedTuple):
    """Margins of triples, the more sensitive input first, with a label for all or for each."""

    margin_moving: np.ndarray
    margin_fixed: np.ndarray
    label: str
    names: tuple[str, ...] = ()


class Change(NamedTuple):
    """The largest sensitivity of a prediction with all pairs observed, and with some left out."""

    prediction: str
    before: float
    after: float


def check_figure(option: str, path: Path) -> Path:
    """Return a path whose ending names a format that can be drawn, with matplotlib at hand.

    Raises
    ------
    InputError
        For another ending, or where matplotlib is not installed.

    Examples
    --------
    >>> check_figure("--plot", Path("audit.txt"))
    Traceback (most recent call last):
        ...
    jaxpref._checks.InputError: --plot: expected a name ending in .png, .pdf, .svg; got 'audit.txt'
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"{option}: expected a name ending in {', '.join(FORMATS)}; got {path.name!r}"
        )
    if not can_draw():
        raise InputError(
            f"{option}: figures need matplotlib, which is not installed: "
            "pip install 'jaxpref[report]'"
        )
    return path


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure, whole or not at all, and return its path."""

    def draw(part: Path) -> None:
        with warnings.catch_warnings():
            # A name in a script that the font lacks is drawn as boxes; the tables have it.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(part, format=path.suffix.lower().lstrip("."), dpi=200)

    return write_whole(path, draw)


def triple_points(fit: FitResult, report: AuditReport, label: str) -> Points:
    """Return the most sensitive triple of each unseen pair that has one."""
    unseen = report.unseen
    has = unseen.middle >= 0
    i, j, k = unseen.item_a[has], unseen.item_b[has], unseen.middle[has]
    x, y = fit.scores[i] - fit.scores[k], fit.scores[k] - fit.scores[j]
    # The input whose density is smaller is the one that moves p_ij more; links are symmetric.
    swap = np.abs(y) > np.abs(x)
    names = tuple(f"{fit.items[a]} over {fit.items[b]}" for a, b in zip(i, j, strict=True))
    return Points(np.where(swap, y, x), np.where(swap, x, y), label, names)


# The plane ----------------------------------------------------------------------------------


def plane_figure(
    groups: Sequence[Points],
    *,
    link: Link = logistic,
    thresholds: Sequence[float | int] = THRESHOLDS,
    title: str = "Strong preferences that pull apart make a third one fragile",
) -> Figure:
    """Return the plane of the paper's Fig. 1, its axes stretched towards 0 and 1, with triples.

    Parameters
    ----------
    groups : sequence of Points
        Drawn with a marker each; points outside 0.1% to 99.9% stand on the edge.
    link : Link
        Whose sensitivity the contours show.
    thresholds : sequence of float
        The M of the contours, ascending.
    title : str
        What the figure shows.
    """
    figure = _new_figure((6.6, 6.6))
    axes = figure.add_subplot()
    draw_plane(axes, groups, link=link, thresholds=thresholds)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=12)
    return figure


def draw_plane(
    axes: Axes, groups: Sequence[Points], *, link: Link, thresholds: Sequence[float | int]
) -> None:
    """Draw the contours of the sensitivity and the triples."""
    limit = _stretch(np.array(0.9995))
    u = np.linspace(-limit, limit, 401)
    p = 1 / (1 + np.exp(-u))
    margin = np.asarray(link.margin(jnp.asarray(p)))
    log_ik, _ = log_sensitivity(margin[None, :], margin[:, None], link=link)
    levels = [math.log(m) for m in sorted(thresholds)]
    values = np.asarray(log_ik, np.float64)
    span = [
        min(float(values.min()), levels[0] - 1),
        *levels,
        max(float(values.max()), levels[-1] + 1),
    ]
    shades = _shades(len(levels) + 1)
    axes.contourf(u, u, values, levels=span, colors=shades)
    lines = axes.contour(u, u, values, levels=levels, colors=INK, linewidths=0.5, alpha=0.6)
    axes.clabel(lines, fmt=lambda level: f"M = {math.exp(level):.3g}", fontsize=8, colors=INK)
    _probability_axes(axes, limit)
    for group, (marker, colour) in zip(groups, MARKERS, strict=False):
        _draw_points(axes, group, link, limit, marker, colour)
    if any(group.label for group in groups):
        axes.legend(loc="upper right", fontsize=8.5, framealpha=0.95, edgecolor="none")


def _draw_points(
    axes: Axes, group: Points, link: Link, limit: float, marker: str, colour: str
) -> None:
    """Draw one group of triples, the names of a few beside them."""
    x, y = (
        np.clip(_stretch_margin(margin, link), -limit, limit)
        for margin in (group.margin_moving, group.margin_fixed)
    )
    many = len(x) > 200
    axes.scatter(
        x,
        y,
        s=7 if many else 46,
        marker=marker,
        color=colour,
        alpha=0.35 if many else 1.0,
        edgecolors="none" if many else "white",
        linewidths=0 if many else 0.9,
        label=group.label or None,
        zorder=3,
        clip_on=False,
    )
    for left, low, name in zip(x, y, group.names if len(x) <= 3 else (), strict=False):
        axes.annotate(
            name,
            (left, low),
            xytext=(-8 if left > 0 else 8, 9),
            textcoords="offset points",
            ha="right" if left > 0 else "left",
            fontsize=8.5,
            color=INK,
            parse_math=False,
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8},
            zorder=4,
        )


def _probability_axes(axes: Axes, limit: float) -> None:
    places = _stretch(np.array(TICKS))
    for axis, setter in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        axis.set_ticks(places, TICK_LABELS)
        setter(-limit, limit)
    axes.set_aspect("equal")
    axes.set_xlabel("the observed preference that moves, p_ik", parse_math=False)
    axes.set_ylabel("the one held fixed, p_kj", parse_math=False)
    axes.tick_params(length=3, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _stretch(p: np.ndarray) -> Any:
    """Return the log-odds of probabilities, the coordinate of the axes whatever the link."""
    return np.log(p) - np.log1p(-p)


def _stretch_margin(margin: np.ndarray, link: Link) -> np.ndarray:
    """Return the log-odds of the probabilities that margins stand for, without overflow."""
    values = jnp.asarray(margin)
    return np.asarray(link.log_probability(values) - link.log_probability(-values))


def _shades(count: int) -> list[str]:
    """Return `count` colours from light to dark."""
    if count == len(SHADES):
        return list(SHADES)
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    scale = LinearSegmentedColormap.from_list("jaxpref", SHADES)
    return [to_hex(scale(k / max(count - 1, 1))) for k in range(count)]


# Fragility by pair --------------------------------------------------------------------------


def before_after_figure(panels: Sequence[tuple[str, Sequence[Change]]], *, title: str) -> Figure:
    """Return the sensitivity of each prediction with all pairs observed and with some left out.

    Parameters
    ----------
    panels : sequence of (str, sequence of Change)
        A heading and its predictions, one panel each.
    title : str
        What the figure shows.
    """
    rows = [len(changes) + 1 for _, changes in panels]
    figure = _new_figure((7.6, 1.4 + 0.24 * sum(rows) + 0.3 * len(panels)))
    drawn = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (heading, changes) in zip(drawn, panels, strict=True):
        _draw_changes(axes, changes)
        axes.set_title(heading, loc="left", fontsize=9.5, color=INK)
    drawn[-1].set_xlabel(
        "points the prediction moves per point on the observed pair it rests on most"
    )
    handles, labels = drawn[0].get_legend_handles_labels()
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    drawn[-1].legend(handles, labels, loc="center right", fontsize=8.5, frameon=False)
    return figure


def _draw_changes(axes: Axes, changes: Sequence[Change]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    ordered = sorted(changes, key=lambda change: change.after)
    rows = np.arange(len(ordered))
    before = np.array([change.before for change in ordered])
    after = np.array([change.after for change in ordered])
    axes.hlines(rows, before, after, color=GREY, linewidth=1.5, zorder=1)
    axes.scatter(before, rows, s=38, color=BLUE, zorder=2, label="every pair observed")
    axes.scatter(
        after, rows, s=42, marker="D", color=ORANGE, zorder=2, label="a chain of pairs left"
    )
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xscale("log")
    axes.set_ylim(-0.8, len(ordered) - 0.2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    _name_rows(axes, [change.prediction for change in ordered])


def audit_figure(fit: FitResult, report: AuditReport, *, title: str) -> Figure:
    """Return one picture of an audit: the plane with its triples, and the most fragile pairs.

    Parameters
    ----------
    fit : FitResult
        The fit that was audited.
    report : AuditReport
        Its audit.
    title : str
        What the figure shows, over several lines if long.
    """
    figure = _new_figure((12.5, 6.2))
    left, right = figure.subplots(1, 2, width_ratios=(1.12, 1))
    points = triple_points(fit, report, "")
    draw_plane(
        left, [points._replace(names=())], link=fit.link, thresholds=report.triples.thresholds
    )
    left.set_title("Each unseen pair through its most sensitive triple", loc="left", fontsize=10)
    _draw_bars(right, report)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    return figure


def _draw_bars(axes: Axes, report: AuditReport) -> None:
    """Draw the sensitivities of the described predictions, the largest on top."""
    axes.set_title("Most fragile predictions, and what each rests on", loc="left", fontsize=10)
    rows = report.top[:12][::-1]
    if not rows:
        axes.text(0.5, 0.5, "no unseen pairs", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    sensitivity = [row.sensitivity for row in rows]
    colours = [ORANGE if value > 1 else BLUE for value in sensitivity]
    axes.barh(range(len(rows)), sensitivity, color=colours, height=0.62)
    axes.set_ylim(min(len(rows) - 10.6, -0.6), len(rows) - 0.4)  # few bars stay as thin as many
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    for place, row in enumerate(rows):
        edge = f"{_short(row.edge.item_a)} vs {_short(row.edge.item_b)}"
        label = f" {numbers.significant(row.sensitivity)}  {edge}"
        axes.text(row.sensitivity, place, label, va="center", fontsize=8, parse_math=False)
    axes.set_xlim(0, max(1.05, max(sensitivity)) * 1.75)
    axes.set_xlabel("points the prediction moves per point on that pair")
    _name_rows(axes, [f"{_short(row.item_a)} over {_short(row.item_b)}" for row in rows])


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(length=0, labelsize=8.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _short(name: str, most: int = 22) -> str:
    """Return a name cut to a length that fits beside a bar."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _new_figure(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")
