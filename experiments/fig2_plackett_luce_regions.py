"""Figure 2: where a ranking's probability moves more than M times as fast as one of two others.

Item: Fig. 2, Eqs. 11 and 12, Proposition 2.
Claim: with alpha = 1.01 and beta = 0.99 the regions lie at the origin of (p_uv, p_vu), and their
    areas are beta^2/(6 alpha M^2) and beta^2/(6 alpha^3 M^2).
Command: python experiments/fig2_plackett_luce_regions.py [--smoke] [--out FOLDER]
Minutes: 0.5. Device: CPU.

The paper does not print the thresholds of Fig. 2; those of Fig. 1 are used.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _common
import _region_figures
import jax
import jax.numpy as jnp
import numpy as np

from jaxpref import plackett_luce_monte_carlo_area, plackett_luce_region_area
from jaxpref.report.figures import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "fig2_plackett_luce_regions"
PANELS = ("uv", "vu")


@dataclass(frozen=True)
class Config:
    """The model of the figure, thresholds, points of a boundary, random points, seed."""

    alpha: float = 1.01
    beta: float = 0.99
    thresholds: tuple[float, ...] = (1.01, 2.0, 3.0, 5.0, 10.0)
    boundary_points: int = 161
    samples: int = 1 << 22
    seed: int = 0


SMOKE = Config(thresholds=(1.01, 10.0), boundary_points=21, samples=1 << 16)


def boundary(config: Config, threshold: float, wrt: str) -> dict[str, list[float]]:
    """Return the curve of Eq. 11 ("uv") or 12 ("vu") as points (p_uv, p_vu), out of 0 and back.

    Solved for the other variable, neither form cancels: 0 < b < beta/M and
    a < (sqrt(beta b/M) - b)/alpha; 0 < a < beta/(alpha^2 M) and b < sqrt(beta a/M) - alpha a.
    """
    share = _region_figures.crowded(config.boundary_points)
    top = config.beta / threshold
    if wrt == "uv":
        b = share * top
        a = (np.sqrt(top * b) - b) / config.alpha
    else:
        a = share * top / config.alpha**2
        b = np.sqrt(top * a) - config.alpha * a
    return {"p_uv": np.maximum(a, 0).tolist(), "p_vu": np.maximum(b, 0).tolist()}


def proposition_2(config: Config, threshold: float, wrt: str) -> float:
    """Return the area as printed."""
    power = 1 if wrt == "uv" else 3
    return config.beta**2 / (6 * config.alpha**power * threshold**2)


def areas(config: Config, wrt: str) -> list[dict[str, float]]:
    """Return the area for each M as printed, from the package's formula, and by counting."""
    levels = jnp.asarray(config.thresholds)
    exact = plackett_luce_region_area(config.alpha, config.beta, levels, wrt=wrt)
    counted = plackett_luce_monte_carlo_area(
        config.alpha,
        config.beta,
        levels,
        wrt=wrt,
        samples=config.samples,
        key=jax.random.key(config.seed),
    )
    return [
        {
            "M": level,
            "proposition_2": proposition_2(config, level, wrt),
            "closed_form": float(exact[k]),
            "monte_carlo": float(counted.area[k]),
            "monte_carlo_error": float(counted.error[k]),
        }
        for k, level in enumerate(config.thresholds)
    ]


def compute(config: Config, progress: _common.Progress | None = None) -> dict[str, Any]:
    """Return boundaries and areas of both panels, compared with Proposition 2."""
    values: dict[str, Any] = {}
    rows: list[_common.Row] = []
    for done, wrt in enumerate(PANELS):
        curves = [{"M": m, **boundary(config, m, wrt)} for m in config.thresholds]
        values[wrt] = {"areas": areas(config, wrt), "boundaries": curves}
        rows += [row for area in values[wrt]["areas"] for row in _rows(wrt, area)]
        if progress is not None:
            progress(done + 1, len(PANELS))
    return _common.result(config, values, rows)


def _rows(wrt: str, area: dict[str, float]) -> list[_common.Row]:
    """Return one row a method: its area against Proposition 2."""
    printed = area["proposition_2"]
    allowed = {
        "closed_form": (1e-12 * printed, "nothing cancels"),
        "monte_carlo": (5 * area["monte_carlo_error"], "5 standard errors of the count"),
    }
    return _region_figures.area_rows(2, wrt, area, allowed)


# Drawing ------------------------------------------------------------------------------------


def plot(folder: Path) -> list[Path]:
    """Draw the figure from result.json alone."""
    return _region_figures.draw(folder, PANELS, draw_panel, title=_title)


def _title(config: dict[str, Any]) -> str:
    alpha, beta = config["alpha"], config["beta"]
    return rf"A ranking is fragile where both others are rare ($\alpha = {alpha}, \beta = {beta}$)"


def draw_panel(axes: Axes, values: dict[str, Any], wrt: str) -> None:
    """Fill the region of each M, the larger ones first, and mark the edge of the triangle."""
    curves = values[wrt]["boundaries"]
    for shade, curve in zip(_region_figures.shades(len(curves)), curves, strict=True):
        _region_figures.fill(axes, curve["p_uv"], curve["p_vu"], shade, f"M = {curve['M']:g}")
    axes.plot([0, 1], [1, 0], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    middle = {"ha": "center", "va": "bottom", "rotation": -45, "fontsize": 9, "color": INK}
    axes.text(0.58, 0.43, r"$p_{\omega_{uv}} + p_{\omega_{vu}} = 1$", **middle)
    axes.set_xlabel(r"$p_{\omega_{uv}}$")
    axes.set_ylabel(r"$p_{\omega_{vu}}$")
    name = rf"$|\partial p_\omega / \partial p_{{\omega_{{{wrt}}}}}| > M$"
    axes.set_title(name, fontsize=12, pad=8)


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment as a program."""
    return _common.run_script(NAME, sys.modules[__name__], arguments)


if __name__ == "__main__":
    sys.exit(main())
