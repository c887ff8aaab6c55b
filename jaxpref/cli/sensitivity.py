"""``jaxpref sensitivity``: how fast one preference moves when another does, at a point."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal
from ._options import JsonOption, LinkOption, use_float64

if TYPE_CHECKING:
    from ..links import Link
    from ..report import Table

LADDER = (1.01, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""The M of the paper's Fig. 1 and Example 1, and a few beyond."""

PAIR, RANKING = "Three options: p_ij from p_ik and p_kj", "A ranking (Plackett-Luce)"


def _pair(help: str, metavar: str = "P") -> Any:
    return typer.Option(help=help, rich_help_panel=PAIR, show_default=False, metavar=metavar)


def _ranking(help: str, metavar: str) -> Any:
    return typer.Option(help=help, rich_help_panel=RANKING, show_default=False, metavar=metavar)


def sensitivity(
    p_ik: Annotated[float | None, _pair("Probability that i is preferred to k.")] = None,
    p_kj: Annotated[float | None, _pair("Probability that k is preferred to j.")] = None,
    complement_ik: Annotated[float | None, _pair("1 - p_ik, for p_ik next to 1.")] = None,
    complement_kj: Annotated[float | None, _pair("1 - p_kj, for p_kj next to 1.")] = None,
    margin_ik: Annotated[float | None, _pair("s_i - s_k in place of p_ik.", "NATS")] = None,
    margin_kj: Annotated[float | None, _pair("s_k - s_j in place of p_kj.", "NATS")] = None,
    threshold: Annotated[
        float | None, _pair("Also print where the M-sensitive region begins at this p_kj.", "M")
    ] = None,
    link: LinkOption = "logistic",
    scores: Annotated[
        str | None, _ranking("Scores in rank order, best first: 2,1,0.", "S1,S2,...")
    ] = None,
    u: Annotated[int | None, _ranking("Place of the first item of the pair, from 0.", "U")] = None,
    v: Annotated[int | None, _ranking("Place of the second, after the first.", "V")] = None,
    json: JsonOption = False,
) -> None:
    """Print how fast one preference moves when another does, at a point or for a ranking.

    For three options: --p-ik 0.99 --p-kj 0.02, or margins. For a ranking: --scores 2,1,0 --u 0
    --v 1.
    """
    use_float64()
    pair = {
        "p_ik": p_ik,
        "p_kj": p_kj,
        "complement_ik": complement_ik,
        "complement_kj": complement_kj,
        "margin_ik": margin_ik,
        "margin_kj": margin_kj,
        "threshold": threshold,
    }
    _check_one_view(pair, {"scores": scores, "u": u, "v": v}, link)
    if scores is not None:
        content = ranking_sensitivity(scores, u, v)
    else:
        content = pair_sensitivity(pair, link)
    if json:
        _terminal.show_json({"command": "sensitivity", **content})
        return
    _print(content)


def _check_one_view(pair: dict[str, Any], ranking: dict[str, Any], link: str) -> None:
    """Refuse options of both views together, or none."""
    from .._checks import InputError

    given = [_flag(name) for name, value in pair.items() if value is not None]
    given += ["--link"] if link != "logistic" else []
    wanted = [_flag(name) for name, value in ranking.items() if value is not None]
    if given and wanted:
        raise InputError(
            f"{wanted[0]} is for a ranking and {given[0]} for three options: expected one of them"
        )
    if wanted and "--scores" not in wanted:
        raise InputError(f"{wanted[0]}: expected --scores with it")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _margin(pair: dict[str, Any], side: str, link: Link) -> float:
    """Return the margin of one input, from whichever way it was given."""
    from .._checks import InputError, check_between, check_probability

    names = [f"{kind}_{side}" for kind in ("p", "complement", "margin")]
    given = [name for name in names if pair[name] is not None]
    if len(given) != 1:
        listed = ", ".join(_flag(name) for name in names)
        got = " and ".join(_flag(name) for name in given) or "none"
        raise InputError(f"expected one of {listed}; got {got}")
    name, value = given[0], pair[given[0]]
    if name.startswith("margin"):
        largest = 1e300
        check_between(_flag(name), value, -largest, largest, what="a finite margin")
        return float(value)
    check_probability(_flag(name), value)
    return float(link.margin(value)) * (-1 if name.startswith("complement") else 1)


def pair_sensitivity(pair: dict[str, Any], link_name: str) -> dict[str, Any]:
    """Return the sensitivities of p_ij at a point, and where the point lies."""
    from .._checks import check_positive
    from ..links import by_name
    from ..sensitivity import log_sensitivity

    link = by_name(link_name)
    x, y = _margin(pair, "ik", link), _margin(pair, "kj", link)
    if pair["threshold"] is not None:
        check_positive("--threshold", pair["threshold"], "a threshold M, a finite number above 0")
    logs = [float(log) for log in log_sensitivity(x, y, link=link)]
    content: dict[str, Any] = {
        "link": link.name,
        "p_ik": _probability(link, x),
        "p_kj": _probability(link, y),
        "p_ij": _probability(link, x + y),
        "dp_ij_dp_ik": _derivative(logs[0]),
        "dp_ij_dp_kj": _derivative(logs[1]),
    }
    if pair["threshold"] is not None:
        content["boundary"] = _boundary(pair["threshold"], y, link)
    return content


def _probability(link: Link, margin: float) -> dict[str, float]:
    """Return a probability in every form: near 0 and 1 only some of them keep their digits."""
    return {
        "margin": margin,
        "probability": float(link.probability(margin)),
        "complement": float(link.probability(-margin)),
        "log_probability": float(link.log_probability(margin)),
    }


def _derivative(log: float) -> dict[str, float | None]:
    """Return a derivative, its logarithm, and the largest M it exceeds."""
    inside = [m for m in LADDER if log > math.log(m)]
    value = math.exp(log) if log < 709 else math.inf
    return {"value": value, "log": log, "largest_M": inside[-1] if inside else None}


def _boundary(threshold: float, y: float, link: Link) -> dict[str, Any]:
    """Return gamma_0, where the sensitivity to p_ik equals M at this p_kj (Eq. 5), and the side."""
    from ..regions import region_boundaries, region_contains

    near, far = (float(end) for end in region_boundaries(y, threshold, link=link))
    if math.isnan(near):
        everywhere = bool(region_contains(-y / 2, y, threshold, link=link))
        return {"threshold": threshold, "sensitive": "everywhere" if everywhere else "nowhere"}
    side = "above" if y < 0 else "below"
    boundary = {"threshold": threshold, "sensitive": side, "gamma_0": _probability(link, near)}
    if math.isfinite(far):  # links with power tails: the region ends again
        boundary["far_end"] = _probability(link, far)
        boundary["sensitive"] = "between" if threshold >= 1 else "outside"
    return boundary


def ranking_sensitivity(text: str, u: int | None, v: int | None) -> dict[str, Any]:
    """Return the sensitivities of a ranking's probability to the pair at two of its places."""
    import jax.numpy as jnp

    from .._checks import InputError
    from ..models import plackett_luce_log_alpha_beta, plackett_luce_log_probability
    from ..sensitivity import plackett_luce_log_sensitivity

    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--scores: expected numbers with commas, as 2,1,0; got {text!r}"
        ) from None
    if not all(map(math.isfinite, values)):
        raise InputError(f"--scores: expected finite numbers; got {text!r}")
    places = (0 if u is None else u, 1 if v is None else v)
    s = jnp.asarray(values, jnp.float64)
    log_uv, log_vu = plackett_luce_log_sensitivity(s, *places)
    log_alpha, log_beta = plackett_luce_log_alpha_beta(s, *places)
    log_p = float(plackett_luce_log_probability(s))
    return {
        "scores": values,
        "u": places[0],
        "v": places[1],
        "p_omega": {"probability": math.exp(log_p), "log_probability": log_p},
        "dp_dp_uv": _derivative(float(log_uv)),
        "dp_dp_vu": _derivative(float(log_vu)),
        "alpha": {"value": _exp(float(log_alpha)), "log": float(log_alpha)},
        "beta": {"value": _exp(float(log_beta)), "log": float(log_beta)},
    }


def _exp(log: float) -> float:
    return math.exp(log) if log < 709 else math.inf


# Printing -----------------------------------------------------------------------------------


def _print(content: dict[str, Any]) -> None:
    _terminal.say(_sentence(content), style="bold")
    _terminal.show(_values(content), _sensitivities(content))
    if "boundary" in content:
        _terminal.say(_describe_boundary(content["boundary"]))


def _sentence(content: dict[str, Any]) -> str:
    from ..report.numbers import significant

    if "scores" in content:
        uv, vu = (_show_derivative(content[name]) for name in ("dp_dp_uv", "dp_dp_vu"))
        return (
            f"The ranking's probability moves {uv} times as fast as p_uv, and {vu} times as p_vu."
        )
    ik, kj = (_show_derivative(content[name]) for name in ("dp_ij_dp_ik", "dp_ij_dp_kj"))
    implied = significant(content["p_ij"]["probability"])
    return f"p_ij = {implied}; it moves {ik} times as fast as p_ik, and {kj} times as fast as p_kj."


def _show_derivative(derivative: dict[str, Any]) -> str:
    from ..report.numbers import significant

    value, log = derivative["value"], derivative["log"]
    return significant(value, 4) if 0 < value < math.inf else f"exp({log:.6g})"


def _values(content: dict[str, Any]) -> Table:
    """Return the probabilities of a point, or what a ranking consists of."""
    from ..report import Column, Table

    if "scores" in content:
        rows = [
            ("p_omega", _show(content["p_omega"]), f"{content['p_omega']['log_probability']:.6g}"),
            ("alpha", _show_derivative(content["alpha"]), f"{content['alpha']['log']:.6g}"),
            ("beta", _show_derivative(content["beta"]), f"{content['beta']['log']:.6g}"),
        ]
        columns = (Column(""), Column("value", "right"), Column("log", "right"))
        return Table("", columns, tuple(rows))
    rows = [
        (name, _show(content[name]), f"{content[name]['margin']:.6g}")
        for name in ("p_ik", "p_kj", "p_ij")
    ]
    unit = "margin (nats)" if content["link"] == "logistic" else "margin"
    columns = (Column(content["link"]), Column("probability", "right"), Column(unit, "right"))
    return Table("", columns, tuple(rows))


def _show(place: dict[str, float]) -> str:
    from ..report.numbers import probability

    return probability(place["probability"], place.get("complement"), place["log_probability"])


def _sensitivities(content: dict[str, Any]) -> Table:
    from ..report import Column, Table

    names = {"dp_ij_dp_ik": "dp_ij/dp_ik", "dp_ij_dp_kj": "dp_ij/dp_kj"}
    if "scores" in content:
        names = {"dp_dp_uv": "|dp_omega/dp_uv|", "dp_dp_vu": "|dp_omega/dp_vu|"}
    rows = tuple(
        (
            label,
            _show_derivative(content[name]),
            f"{content[name]['log']:.6g}",
            "-" if content[name]["largest_M"] is None else f"{content[name]['largest_M']:g}",
        )
        for name, label in names.items()
    )
    columns = (
        Column("sensitivity"),
        Column("value", "right"),
        Column("log", "right"),
        Column("M", "right"),
    )
    ladder = ", ".join(f"{m:g}" for m in LADDER)
    return Table("", columns, rows, f"M: the largest of {ladder} whose region holds this point.")


def _describe_boundary(boundary: dict[str, Any]) -> str:
    level, side = f"{boundary['threshold']:g}", boundary["sensitive"]
    if side in ("nowhere", "everywhere"):
        who = "No p_ik makes" if side == "nowhere" else "Every p_ik makes"
        return f"{who} p_ij {level}-sensitive to it at this p_kj."
    near = _show(boundary["gamma_0"])
    if "far_end" in boundary:
        far = _show(boundary["far_end"])
        return f"At this p_kj the {level}-sensitive p_ik lie {side} {near} and {far}."
    return (
        f"At this p_kj the {level}-sensitive p_ik lie {side} gamma_0 = {near} (margin "
        f"{boundary['gamma_0']['margin']:.6g})."
    )
