"""``jaxpref region``: how large the part of the square is where a preference is M-sensitive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal
from ._options import JsonOption, LinkOption, use_float64

if TYPE_CHECKING:
    from ..links import Link
    from ..report import Table

THRESHOLDS = (1.01, 2.0, 3.0, 5.0, 10.0)
RANDOM_METHODS = ("lattice", "monte_carlo")
METHODS = ("auto", "closed_form", "quadrature", *RANDOM_METHODS)


def region(
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="M. Repeatable. 1.01, 2, 3, 5, 10 if left out.", metavar="M", show_default=False
        ),
    ] = None,
    link: LinkOption = "logistic",
    wrt: Annotated[
        str,
        typer.Option(
            help="The sensitivity that must exceed M: to p_ik, to p_kj, either, both, or a norm "
            "of the gradient.",
            metavar="ik|kj|union|intersection|l1|l2",
        ),
    ] = "ik",
    method: Annotated[
        str, typer.Option(help="How the area is found.", metavar="|".join(METHODS))
    ] = "auto",
    samples: Annotated[
        int | None,
        typer.Option(help="Points for lattice and monte_carlo.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed for lattice and monte_carlo; 0 if left out.", show_default=False),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Plackett-Luce (Eq. 10): at least 1; with --beta.",
            rich_help_panel="A ranking (Plackett-Luce)",
            show_default=False,
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="Plackett-Luce (Eq. 10): in (0, 1]; with --alpha.",
            rich_help_panel="A ranking (Plackett-Luce)",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the area of M-sensitive regions: the chance that evenly spread inputs are fragile."""
    use_float64()
    levels = tuple(threshold or THRESHOLDS)
    pairwise = {"--link": link, "--wrt": wrt, "--method": method}
    pairwise |= {"--samples": samples, "--seed": seed}
    if alpha is not None or beta is not None:
        content = ranking_areas(levels, alpha, beta, pairwise)
    else:
        content = pair_areas(levels, link, wrt, method, samples, seed)
    if json:
        _terminal.show_json({"command": "region", **content})
    else:
        _print(content)
    if any(area.get("status") == "error_large" for area in content["areas"]):
        from .._checks import ConvergenceError

        raise ConvergenceError("an area's error exceeds 1e-6 of it; try --method lattice")


def pair_areas(
    levels: tuple[float, ...],
    link_name: str,
    wrt: str,
    method: str,
    samples: int | None,
    seed: int | None,
) -> dict[str, Any]:
    """Return the area of each region of the unit square, with its error."""
    from .._checks import check_option, check_positive
    from ..links import by_name
    from ..regions import PAIR_REGIONS

    link = by_name(link_name)
    check_option("--wrt", wrt, PAIR_REGIONS)
    check_option("--method", method, METHODS)
    _check_sampling(method, samples, seed)
    for level in levels:
        check_positive("--threshold", level, "a threshold M, a finite number above 0")
    areas = [
        _area(level, number, link, wrt, method, samples, seed)
        for number, level in enumerate(levels)
    ]
    return {"model": "pairwise", "link": link.name, "wrt": wrt, "areas": areas}


def _check_sampling(method: str, samples: int | None, seed: int | None) -> None:
    """Refuse --samples and --seed where nothing is sampled."""
    from .._checks import InputError, check_count

    if samples is not None:  # the lattice has 32 shifts and needs two points for each
        check_count("--samples", samples, at_least=64 if method == "lattice" else 1)
    given = "--samples" if samples is not None else "--seed" if seed is not None else None
    if given and method not in RANDOM_METHODS:
        raise InputError(
            f"{given}: expected --method lattice or monte_carlo with it; got {method!r}"
        )


def _area(
    level: float,
    number: int,
    link: Link,
    wrt: str,
    method: str,
    samples: int | None,
    seed: int | None,
) -> dict[str, Any]:
    """Return one area with what is known of it in closed form for the logistic link."""
    import jax
    import jax.numpy as jnp

    from ..integrate import region_area
    from ..regions import bradley_terry_area

    threshold = jnp.asarray(level, jnp.float64)
    sampling: dict[str, Any] = {}
    if method in RANDOM_METHODS:
        sampling = {"key": jax.random.fold_in(jax.random.key(seed or 0), number)}
        sampling |= {"samples": samples} if samples is not None else {}
    with _terminal.progress(f"Area for M = {level:g}") as move:
        found = region_area(threshold, link=link, wrt=wrt, method=method, progress=move, **sampling)
    known = link.name == "logistic" and wrt in ("ik", "kj")
    return {
        "threshold": level,
        "area": float(found.area),
        "error": float(found.error),
        "method": found.method,
        "status": found.status,
        "proposition_1": float(bradley_terry_area(threshold)) if known else None,
    }


def ranking_areas(
    levels: tuple[float, ...],
    alpha: float | None,
    beta: float | None,
    pairwise: dict[str, Any],
) -> dict[str, Any]:
    """Return the Plackett-Luce areas of Proposition 2, clipped to the triangle."""
    from .._checks import InputError
    from ..regions import plackett_luce_region_area
    from ..sensitivity import check_alpha_beta

    if alpha is None or beta is None:
        raise InputError("--alpha, --beta: expected both or neither")
    defaults = {"--link": "logistic", "--wrt": "ik", "--method": "auto"}
    other = next((name for name, value in pairwise.items() if value != defaults.get(name)), None)
    if other:
        raise InputError(f"{other}: expected without --alpha and --beta, which have closed forms")
    check_alpha_beta(alpha, beta)
    areas = [
        {
            "threshold": level,
            "uv": float(plackett_luce_region_area(alpha, beta, level, wrt="uv")),
            "vu": float(plackett_luce_region_area(alpha, beta, level, wrt="vu")),
            "unclipped_uv": _proposition_2(alpha, beta / level),
            "unclipped_vu": _proposition_2(alpha, beta / level / alpha),
        }
        for level in levels
    ]
    return {"model": "plackett_luce", "alpha": alpha, "beta": beta, "areas": areas}


def _proposition_2(alpha: float, root: float) -> float:
    """Return root^2/(6 alpha), with products: a power of floats raises where it overflows."""
    return root * root / (6 * alpha)


# Printing -----------------------------------------------------------------------------------


def _print(content: dict[str, Any]) -> None:
    table = _pair_table(content) if content["model"] == "pairwise" else _ranking_table(content)
    _terminal.show(table)


def _pair_table(content: dict[str, Any]) -> Table:
    from ..report import Column, Table

    known = content["areas"][0]["proposition_1"] is not None
    columns = [
        Column("M", "right"),
        Column("area", "right"),
        Column("error", "right"),
        Column("method"),
        Column("status"),
    ]
    columns += [Column("Proposition 1", "right")] if known else []
    rows = tuple(
        (
            f"{area['threshold']:g}",
            f"{area['area']:.10g}",
            f"{area['error']:.1e}",
            area["method"],
            area["status"],
            *((f"{area['proposition_1']:.10g}",) if known else ()),
        )
        for area in content["areas"]
    )
    title = f"M-sensitive share of the square (p_ik, p_kj): {content['link']}, {content['wrt']}"
    return Table(title, tuple(columns), rows, NOTES[content["wrt"]])


NOTES = {
    "ik": "Where p_ij moves more than M times as fast as p_ik.",
    "kj": "Where p_ij moves more than M times as fast as p_kj.",
    "union": "Where p_ij moves more than M times as fast as p_ik or p_kj.",
    "intersection": "Where p_ij moves more than M times as fast as p_ik and as p_kj.",
    "l1": "Where the two sensitivities together exceed M.",
    "l2": "Where the gradient of p_ij is longer than M.",
}


def _ranking_table(content: dict[str, Any]) -> Table:
    from ..report import Column, Table

    columns = (
        Column("M", "right"),
        Column("to p_uv", "right"),
        Column("Proposition 2", "right"),
        Column("to p_vu", "right"),
        Column("Proposition 2", "right"),
    )
    names = ("uv", "unclipped_uv", "vu", "unclipped_vu")
    rows = tuple(
        (f"{area['threshold']:g}", *(f"{area[name]:.10g}" for name in names))
        for area in content["areas"]
    )
    title = f"Plackett-Luce M-sensitive area: alpha {content['alpha']:g}, beta {content['beta']:g}"
    note = (
        "Of the triangle p_uv + p_vu < 1, whose area is 1/2. Proposition 2's region can reach "
        "out of it for small M; the first column of each two leaves that part out."
    )
    return Table(title, columns, rows, note)
