"""Figure 1: where p_ij moves more than M times as fast as p_ik, or as p_kj, under Bradley-Terry.

Item: Fig. 1, Eq. 5, Proposition 1.
Claim: the regions are two corners of the unit square, and their area is
    ln((M-1)/(M+1))/2 + ln((sqrt M + 1)/(sqrt M - 1))/(2 sqrt M).
Command: python experiments/fig1_bradley_terry_regions.py [--smoke] [--out FOLDER]
Minutes: 0.5. Device: CPU.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _common
import _region_figures
import jax
import jax.numpy as jnp
import numpy as np

from jaxpref import region_area, region_boundary
from jaxpref.links import logistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "fig1_bradley_terry_regions"
PANELS = ("ik", "kj")


@dataclass(frozen=True)
class Config:
    """The thresholds of the figure, points of a boundary, lattice points, seed."""

    thresholds: tuple[float, ...] = (1.01, 2.0, 3.0, 5.0, 10.0)
    boundary_points: int = 161
    lattice_points: int = 1 << 20
    seed: int = 0


SMOKE = Config(thresholds=(1.01, 10.0), boundary_points=21, lattice_points=1 << 14)


def proposition_1(threshold: float) -> float:
    """Return the area as printed, for M > 1."""
    root = math.sqrt(threshold)
    head = math.log((threshold - 1) / (threshold + 1)) / 2
    return head + math.log((root + 1) / (root - 1)) / (2 * root)


def boundary(threshold: float, points: int) -> dict[str, list[float]]:
    """Return p_kj from 0 to 1/(1 + M) and gamma_0 there: Case 1 of Eq. 5; Case 2 mirrors it."""
    p_kj = _region_figures.crowded(points + 2)[1:-1] / (1 + threshold)
    gamma = logistic.probability(region_boundary(logistic.margin(p_kj), threshold))
    return {"p_kj": [0.0, *p_kj.tolist()], "gamma_0": [1.0, *np.asarray(gamma).tolist()]}


def areas(config: Config, wrt: str) -> list[dict[str, float]]:
    """Return the area for each M by the printed formula and by three methods of the package."""
    levels = jnp.asarray(config.thresholds)
    exact = region_area(levels, wrt=wrt, method="closed_form")
    quadrature = region_area(levels, wrt=wrt, method="quadrature")
    lattice = region_area(
        levels,
        wrt=wrt,
        method="lattice",
        samples=config.lattice_points,
        key=jax.random.key(config.seed),
    )
    return [
        {
            "M": level,
            "proposition_1": proposition_1(level),
            "closed_form": float(exact.area[k]),
            "quadrature": float(quadrature.area[k]),
            "quadrature_error": float(quadrature.error[k]),
            "lattice": float(lattice.area[k]),
            "lattice_error": float(lattice.error[k]),
        }
        for k, level in enumerate(config.thresholds)
    ]


def compute(config: Config, progress: _common.Progress | None = None) -> dict[str, Any]:
    """Return boundaries and areas of both panels, compared with Proposition 1."""
    values: dict[str, Any] = {
        "boundaries": [
            {"M": level, **boundary(level, config.boundary_points)} for level in config.thresholds
        ]
    }
    rows: list[_common.Row] = []
    for done, wrt in enumerate(PANELS):
        values[wrt] = areas(config, wrt)
        rows += [row for area in values[wrt] for row in _rows(wrt, area)]
        if progress is not None:
            progress(done + 1, len(PANELS))
    return _common.result(config, values, rows)


def _rows(wrt: str, area: dict[str, float]) -> list[_common.Row]:
    """Return one row a method: its area against Proposition 1."""
    printed = area["proposition_1"]
    allowed = {
        "closed_form": (1e-9 * printed, "the printed form cancels, 3 M^2 rounding errors"),
        "quadrature": (1e-9 * printed, "quadrature to a relative 1e-9"),
        "lattice": (5 * area["lattice_error"], "5 standard errors of the shifts"),
    }
    return _region_figures.area_rows(1, wrt, area, allowed)


# Drawing ------------------------------------------------------------------------------------


def plot(folder: Path) -> list[Path]:
    """Draw the figure from result.json alone."""
    title = "Strong preferences that pull apart make $p_{ij}$ fragile"
    return _region_figures.draw(
        folder, PANELS, draw_panel, title=lambda config: title, share_axis=True
    )


def draw_panel(axes: Axes, values: dict[str, Any], wrt: str) -> None:
    """Fill the two corners of each M, the larger regions first."""
    curves = values["boundaries"]
    for shade, curve in zip(_region_figures.shades(len(curves)), curves, strict=True):
        fixed, moving = np.asarray(curve["p_kj"]), np.asarray(curve["gamma_0"])
        for mirrored in (False, True):
            corner = _corner(fixed, moving, mirrored)
            x, y = corner if wrt == "ik" else corner[::-1]
            label = None if mirrored else f"M = {curve['M']:g}"
            _region_figures.fill(axes, x, y, shade, label)
    axes.set_xlabel("$p_{ik}$")
    axes.set_ylabel("$p_{kj}$")
    axes.set_title(rf"$\partial p_{{ij}} / \partial p_{{{wrt}}} > M$", fontsize=12, pad=8)
    axes.label_outer()


def _corner(fixed: np.ndarray, moving: np.ndarray, mirrored: bool) -> tuple[Any, Any]:
    """Return the outline of Case 1's region, or of Case 2's, its image under p -> 1 - p."""
    x, y = np.append(moving, 1.0), np.append(fixed, fixed[-1])
    return (1 - x, 1 - y) if mirrored else (x, y)


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment as a program."""
    return _common.run_script(NAME, sys.modules[__name__], arguments)


if __name__ == "__main__":
    sys.exit(main())
