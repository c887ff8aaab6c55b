"""What is kept of a fit to rankings, and how it comes back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.rankings import Rankings
from .files import component_ends, read_components, read_files, write_files

if TYPE_CHECKING:
    from .rankings_result import RankingFit

FORMAT = "jaxpref rankings fit"
_NUMBERS = ("ridge", "gradient_norm", "step_size", "log_likelihood")
_PLAIN = ("ties", "status", "steps")
_COLUMNS = ("item", "rank", "start", "weight")


def write_rankings_record(path: str | os.PathLike[str], fit: RankingFit) -> None:
    """Write a fit with its rankings; both files appear whole or not at all.

    Raises
    ------
    InputError
        If the folder does not exist.
    """
    rankings = fit.rankings
    record = {
        "gauge": "scores sum to zero",
        **{name: getattr(fit, name) for name in _PLAIN},
        "items": list(fit.items),
        "tie_orders": list(fit.tie_orders),
        "unlisted": rankings.unlisted,
        "raters": list(rankings.raters),
        "components": component_ends(fit.components),
        "islands": component_ends(fit.islands),
    }
    arrays = {
        "scores": fit.scores,
        "log_tie_parameters": fit.log_tie_parameters,
        "numbers": np.array([getattr(fit, name) for name in _NUMBERS], np.float64),
        "components": fit.components.labels,
        "islands": fit.islands.labels,
        **{f"rankings.{name}": getattr(rankings, name) for name in _COLUMNS},
    }
    if rankings.rater is not None:
        arrays["rankings.rater"] = rankings.rater
    write_files(path, FORMAT, record, arrays)


def read_rankings_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of a fit that :func:`write_rankings_record` wrote.

    Raises
    ------
    InputError
        If a file is missing.
    DataError
        If the files are damaged, were not saved together, or are of an unknown version.
    """
    record, arrays = read_files(path, FORMAT)
    columns: list[Any] = [arrays[f"rankings.{name}"] for name in _COLUMNS]
    rest: list[Any] = [record["unlisted"], arrays.get("rankings.rater"), tuple(record["raters"])]
    rankings = Rankings(tuple(record["items"]), *columns, *rest)
    return {
        **dict(zip(_NUMBERS, (float(x) for x in arrays["numbers"]), strict=True)),
        **{name: record[name] for name in _PLAIN},
        "items": tuple(record["items"]),
        "scores": arrays["scores"],
        "tie_orders": tuple(record["tie_orders"]),
        "log_tie_parameters": arrays["log_tie_parameters"],
        "rankings": rankings,
        "components": read_components(record["components"], arrays["components"]),
        "islands": read_components(record["islands"], arrays["islands"]),
    }
