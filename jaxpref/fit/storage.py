"""What is kept of a fit to comparisons, and how it comes back."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import InputError
from ..data.comparisons import PairCounts
from ..links import Link, by_name
from .design import Design, Effect
from .files import component_ends, read_components, read_files, write_files
from .outcomes import Cells

if TYPE_CHECKING:
    from .result import FitResult

FORMAT = "jaxpref pairwise fit"
_NUMBERS = ("ridge", "gradient_norm", "step_size", "log_likelihood")
_PLAIN = ("ties", "status", "steps")


def write_record(path: str | os.PathLike[str], fit: FitResult) -> None:
    """Write a fit; both files appear whole or not at all.

    Raises
    ------
    InputError
        If the folder does not exist.
    """
    record = {
        "link": fit.link.name,
        "gauge": "scores sum to zero",
        **{name: getattr(fit, name) for name in _PLAIN},
        "items": list(fit.items),
        "unlinked": list(fit.unlinked),
        "effects": [[effect.name, effect.kind] for effect in fit.effects],
        "components": component_ends(fit.components),
        "islands": component_ends(fit.islands),
        "design": None if fit.design is None else _design_facts(fit.design),
    }
    write_files(path, FORMAT, record, _arrays(fit))


def _design_facts(design: Design) -> dict[str, Any]:
    return {"names": [list(name) for name in design.names], "own_scores": design.own_scores}


def _arrays(fit: FitResult) -> dict[str, np.ndarray]:
    """Return every number of the fit that is not a count of something."""
    arrays = {
        "scores": fit.scores,
        "numbers": np.array([getattr(fit, name) for name in _NUMBERS], np.float64),
        "components": fit.components.labels,
        "islands": fit.islands.labels,
        "effects": np.array([e[2:] for e in fit.effects], np.float64).reshape(-1, 2),
        **{f"pairs.{name}": column for name, column in fit.pairs._asdict().items()},
    }
    if fit.effect_covariance is not None:
        arrays["effect_covariance"] = fit.effect_covariance
    if fit.design is not None:
        for name in ("item_a", "item_b", "columns", "item_columns", "item_features"):
            arrays[f"design.{name}"] = getattr(fit.design, name)
        for name, column in fit.design.cells._asdict().items():
            arrays[f"design.cells.{name}"] = column
    return arrays


def read_record(path: str | os.PathLike[str], link: Link | None) -> dict[str, Any]:
    """Return the fields of a fit that :func:`write_record` wrote.

    Raises
    ------
    InputError
        If a file is missing, or the link is a user's own and was not given.
    DataError
        If the files are damaged, were not saved together, or are of an unknown version.
    """
    record, arrays = read_files(path, FORMAT)
    return _fields(record, arrays, _link(record["link"], link))


def _link(name: str, given: Link | None) -> Link:
    if given is not None:
        if given.name != name:
            raise InputError(
                f"link: expected {name!r}, the link of the saved fit; got {given.name!r}"
            )
        return given
    try:
        return by_name(name)
    except InputError:
        raise InputError(
            f"link: the saved fit has a link of its own, {name!r}: hand it in as link=..."
        ) from None


def _fields(record: dict[str, Any], arrays: dict[str, np.ndarray], link: Link) -> dict[str, Any]:
    numbers = dict(zip(_NUMBERS, (float(x) for x in arrays["numbers"]), strict=True))
    pairs = PairCounts(*(arrays[f"pairs.{name}"] for name in PairCounts._fields))
    effects = tuple(
        Effect(name, kind, *(float(x) for x in row))
        for (name, kind), row in zip(record["effects"], arrays["effects"], strict=True)
    )
    return {
        **numbers,
        **{name: record[name] for name in _PLAIN},
        "items": tuple(record["items"]),
        "unlinked": tuple(record["unlinked"]),
        "scores": arrays["scores"],
        "link": link,
        "pairs": pairs,
        "components": read_components(record["components"], arrays["components"]),
        "islands": read_components(record["islands"], arrays["islands"]),
        "effects": effects,
        "effect_covariance": arrays.get("effect_covariance"),
        "design": _design(record, arrays, link, numbers["ridge"]),
    }


def _design(
    record: dict[str, Any], arrays: dict[str, np.ndarray], link: Link, ridge: float
) -> Design | None:
    facts = record["design"]
    if facts is None:
        return None
    read: Callable[[str], np.ndarray] = lambda name: arrays[f"design.{name}"]  # noqa: E731
    return Design(
        item_a=read("item_a"),
        item_b=read("item_b"),
        cells=Cells(*(read(f"cells.{name}") for name in Cells._fields)),
        columns=read("columns"),
        item_columns=read("item_columns"),
        item_features=read("item_features"),
        names=tuple((name, kind) for name, kind in facts["names"]),
        num_items=len(record["items"]),
        link=link,
        ties=record["ties"] if any(kind == "tie" for _, kind in record["effects"]) else None,
        ridge=ridge,
        own_scores=facts["own_scores"],
    )
