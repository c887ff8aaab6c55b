"""The leaderboard as a picture: scores with their intervals, best on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import figures
from .leaderboard import Standing
from .tables import ELO_MEAN, ELO_PER_NAT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 60
"""More items than this and only the best are drawn, which the figure says."""
ONE_COLUMN = 32
"""Up to here the names stand in one column."""
ROW_INCHES = 0.215


def leaderboard_figure(
    rows: Sequence[Standing],
    *,
    title: str,
    unit: str = "nats",
    level: float = 0.95,
    how: str = "",
    show_elo: bool = False,
    most: int = MOST,
) -> Figure:
    """Return scores with their intervals, one item a row, best on top.

    Parameters
    ----------
    rows : sequence of Standing
        The leaderboard, best first.
    title : str
        What was ranked.
    unit : str
        Of the scores.
    level : float
        Of the intervals.
    how : str
        How the intervals were made.
    show_elo : bool
        Add the Elo scale on top.
    most : int
        How many items are drawn at most, in two columns beyond 32.
    """
    shown = list(rows[:most])
    columns = 1 if len(shown) <= ONE_COLUMN else 2
    height = -(-len(shown) // columns)
    figure = figures._new_figure((7.2 if columns == 1 else 11.5, 1.5 + ROW_INCHES * height))
    drawn = figure.subplots(1, columns, sharex=True, squeeze=False)[0]
    for k, axes in enumerate(drawn):
        part = shown[k * height : (k + 1) * height]
        _draw(axes, part, height)
        axes.set_xlabel(f"score ({unit}; all scores sum to zero)", fontsize=8.5)
        if show_elo:
            _add_elo(axes)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    figure.supxlabel(_caption(len(shown), len(rows), level, how), x=0.01, ha="left", fontsize=8,
                     color=figures.INK)  # fmt: skip
    return figure


def _caption(shown: int, total: int, level: float, how: str) -> str:
    part = f"The best {shown} of {total:,} items. " if shown < total else ""
    return f"{part}Bars: {100 * level:.6g}% intervals{f', {how}' if how else ''}."


def _draw(axes: Axes, rows: Sequence[Standing], height: int) -> None:
    """Draw one column of rows."""
    place = np.arange(len(rows))
    score = np.array([row.score for row in rows])
    low, high = np.array([row.low for row in rows]), np.array([row.high for row in rows])
    axes.hlines(place, low, high, color=figures.BLUE, linewidth=2.2, alpha=0.45, zorder=2)
    axes.scatter(score, place, s=20, color=figures.BLUE, zorder=3, linewidths=0)
    axes.set_ylim(height - 0.4, -0.6)
    axes.grid(axis="x", color=figures.GREY, alpha=0.25, linewidth=0.6)
    axes.grid(axis="y", color=figures.GREY, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)
    figures._name_rows(axes, [f"{figures._short(row.item, 30)}  {row.rank}" for row in rows])
    axes.tick_params(axis="x", labelsize=8)
    axes.axvline(0, color=figures.INK, linewidth=0.6, alpha=0.5, zorder=1)


def _to_elo(nats: Any) -> Any:
    return ELO_MEAN + ELO_PER_NAT * nats


def _from_elo(elo: Any) -> Any:
    return (elo - ELO_MEAN) / ELO_PER_NAT


def _add_elo(axes: Axes) -> None:
    scale = axes.secondary_xaxis(
        "top",
        functions=(_to_elo, _from_elo),
    )
    scale.set_xlabel("Elo", fontsize=8.5)
    scale.tick_params(labelsize=8)
    scale.spines["top"].set_visible(False)
