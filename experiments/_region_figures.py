"""What Figs. 1 and 2 share: a row for each area, and two panels of regions under one legend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _common
import numpy as np

from jaxpref.report.figures import INK, SHADES, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def crowded(points: int) -> np.ndarray:
    """Return points of [0, 1] that gather at both ends, where boundaries are steep."""
    return np.sin(np.linspace(0, np.pi / 2, points)) ** 2


def area_rows(
    number: int, wrt: str, area: Mapping[str, float], allowed: Mapping[str, tuple[float, str]]
) -> list[_common.Row]:
    """Return one row a method: its area against the proposition of the figure's number.

    Parameters
    ----------
    number : int
        Of the figure, and of the proposition that gives its areas.
    wrt : str
        The panel.
    area : mapping
        "M", "proposition_1" (or 2) as printed, and an area for each method of `allowed`.
    allowed : mapping of str to (float, str)
        The tolerance of each method, and its reason.
    """
    printed = area[f"proposition_{number}"]
    return [
        _common.judge(
            f"Fig. {number}, p_{wrt}, M = {area['M']:g}, {method.replace('_', ' ')}",
            f"the area is Proposition {number}'s",
            paper=f"{printed:.6g}",
            ours=area[method],
            error=abs(area[method] - printed),
            tolerance=tolerance,
            evidence=reason,
        )
        for method, (tolerance, reason) in allowed.items()
    ]


def draw(
    folder: Path,
    panels: Iterable[str],
    draw_panel: Callable[[Axes, dict[str, Any], str], None],
    *,
    title: Callable[[dict[str, Any]], str],
    share_axis: bool = False,
) -> list[Path]:
    """Draw both panels from a folder's result.json alone, and return the file.

    Parameters
    ----------
    folder : path
        It holds result.json and gets regions.png.
    panels : iterable of str
        Two names.
    draw_panel : callable
        Called with the axes, the values of the result and the panel's name.
    title : callable
        Called with the configuration of the result.
    share_axis : bool
        Whether the vertical axis of the left panel serves both.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    # Panels without an axis between them stand so close that their corner labels touch.
    layout = ConstrainedLayoutEngine(wspace=0.06 if share_axis else 0.02)
    figure = Figure(figsize=(9.6, 5.7), layout=layout)
    drawn = figure.subplots(1, 2, sharey=share_axis)
    for axes, wrt in zip(drawn, panels, strict=True):
        draw_panel(axes, content["values"], wrt)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    handles, labels = drawn[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title(content["config"]), fontweight="bold")
    return [save_figure(figure, folder / "regions.png")]


def shades(count: int) -> tuple[str, ...]:
    """Return a colour for each of `count` regions, the largest first."""
    return SHADES[-count:]


def fill(axes: Axes, x: Any, y: Any, shade: str, label: str | None = None) -> None:
    """Fill one region."""
    axes.fill(x, y, facecolor=shade, edgecolor=INK, linewidth=0.6, label=label)
