"""The data of a fit row by row, as the sandwich and the bootstrap need them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from .._checks import InputError
from ..data.comparisons import Comparisons
from .design import Design
from .information import design_of, margins_of
from .outcomes import TIE_MODELS, Cells
from .result import FitResult


class Rows(NamedTuple):
    """Cells of the data with the columns of the fit's design.

    `counts` are wins of the first item, of the second, and ties, as they were given; `cells` the
    same as they were fitted, ties as half wins where `halved`.
    """

    item_a: Int64[np.ndarray, " rows"]
    item_b: Int64[np.ndarray, " rows"]
    columns: Float64[np.ndarray, "rows columns"]
    margin: Float64[np.ndarray, " rows"]
    counts: Cells
    rater: Int64[np.ndarray, " rows"] | None
    raters: tuple[str, ...]
    halved: bool

    @property
    def cells(self) -> Cells:
        """The outcomes as they were fitted."""
        return as_fitted(self.counts, halved=self.halved)


def as_fitted(counts: Cells, *, halved: bool) -> Cells:
    """Return outcomes with ties as half wins where the fit takes them so."""
    if not halved:
        return counts
    half = counts.ties / 2
    return Cells(counts.wins_a + half, counts.wins_b + half, np.zeros_like(half))


def rows_of(fit: FitResult, data: Any) -> Rows:
    """Return the rows of what was fitted.

    Raises
    ------
    InputError
        If the data are not the Comparisons that were fitted, or lack a covariate of the fit.
    """
    if not isinstance(data, Comparisons):
        raise InputError("data: expected the Comparisons that were fitted, with their raters")
    if data.items != fit.items:
        raise InputError("data: expected the items that were fitted, in their order")
    if fit.ties == "drop":
        data = data.without_ties()
    design, halved = design_of(fit), fit.ties not in TIE_MODELS
    _refuse_other_counts(fit, data, halved)
    keep = data.wins_a + data.wins_b + data.ties > 0
    a, b = data.item_a[keep].astype(np.int64), data.item_b[keep].astype(np.int64)
    counts = Cells(data.wins_a[keep], data.wins_b[keep], data.ties[keep])
    columns = _columns(design, data, keep, as_fitted(counts, halved=halved))
    margin = margins_of(fit, design, a, b, columns)
    rater = None if data.rater is None else data.rater[keep].astype(np.int64)
    return Rows(a, b, columns, margin, counts, rater, data.raters, halved)


def own_rows(fit: FitResult) -> Rows:
    """Return the cells of the fit itself, as they were fitted, without raters."""
    design = design_of(fit)
    a, b, columns = design.item_a, design.item_b, design.columns
    margin = margins_of(fit, design, a, b, columns)
    return Rows(a, b, columns, margin, design.cells, None, (), False)


def _refuse_other_counts(fit: FitResult, data: Comparisons, halved: bool) -> None:
    """Raise for data that do not add up to the counts of the fit."""
    found = (data.with_ties_as_half_wins() if halved else data).pairs()
    for mine, theirs in zip(fit.pairs, found, strict=True):
        if mine.shape != theirs.shape or not np.allclose(mine, theirs, rtol=1e-9, atol=1e-9):
            raise InputError("data: expected the Comparisons that were fitted; got other counts")


def _columns(
    design: Design, data: Comparisons, keep: np.ndarray, cells: Cells
) -> Float64[np.ndarray, "rows columns"]:
    """Return the columns of the design for the rows of the data."""
    a, b = data.item_a[keep], data.item_b[keep]
    aligned = (
        np.array_equal(a, design.item_a)
        and np.array_equal(b, design.item_b)
        and np.array_equal(np.stack(cells), np.stack(design.cells))
    )
    if aligned:
        return design.columns
    found = []
    features = iter(design.item_features.T)
    for name, kind in design.names[: design.columns.shape[1]]:
        if kind == "order":
            found.append(np.ones(a.size))
        elif kind == "item_covariate":
            feature = next(features)
            found.append(feature[a] - feature[b])
        elif name in data.covariates:
            found.append(data.covariates[name][keep])
        else:
            raise InputError(
                f"data: expected the covariate {name!r} in data.covariates, or the very rows that "
                "were fitted; got neither"
            )
    return np.stack(found, axis=1) if found else np.zeros((a.size, 0))
