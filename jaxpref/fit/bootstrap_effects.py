"""Resamples of fits with more than scores: ties modelled, order effects, covariates.

One after the other, by Newton's method on the host from the fit to the data themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from .._checks import InputError
from ..data.comparisons import PairCounts
from .bootstrap_draws import BY_RATER, draw_cells, rater_times
from .careful import Point, fit_carefully
from .design import Design
from .existence import ties_explained_by_growth
from .information import design_of, tie_parameter
from .outcomes import Cells, outcome_probabilities
from .result import FitResult
from .rows import Rows, as_fitted, own_rows, rows_of


class Batch(NamedTuple):
    """Scores and coefficients of resamples with a fit; how many had none, or did not converge."""

    scores: Float64[np.ndarray, "finished items"]
    effects: Float64[np.ndarray, "finished effects"]
    separable: int
    unfinished: int


def design_fits(
    fit: FitResult,
    data: Any,
    random: np.random.Generator,
    count: int,
    method: str,
    ridge: float,
    tolerance: float,
) -> Iterator[Batch]:
    """Yield one resample at a time.

    Raises
    ------
    InputError
        If data are needed and not given, or not those that were fitted.
    """
    halved_ties = fit.ties == "half" and data is not None
    rows = rows_of(fit, data) if method in BY_RATER or halved_ties else own_rows(fit)
    if method in BY_RATER and rows.rater is None:
        raise InputError(f'data: method="{method}" needs the Comparisons with their raters')
    design, owner = _merged(design_of(fit), rows)
    start = _start(fit, design)
    nothing = np.zeros((0, fit.num_items)), np.zeros((0, len(fit.effects)))
    for drawn in _draws(fit, rows, random, count, method):
        cells = Cells(*(np.bincount(owner, column, len(design.item_a)) for column in drawn))
        again = _with_cells(design, as_fitted(cells, halved=rows.halved), ridge)
        if design.own_scores and ridge == 0 and not _has_maximum(again):
            yield Batch(*nothing, 1, 0)
            continue
        found = fit_carefully(again, tolerance=tolerance, max_steps=100, start=start)
        if found.status != "converged":
            yield Batch(*nothing, 0, 1)
            continue
        effects = found.effects if design.ties is None else np.append(found.effects, found.tie)
        scores = found.scores
        if not design.own_scores:
            explained = [k for k, (_, kind) in enumerate(design.names) if kind == "item_covariate"]
            scores = design.item_features @ effects[explained]
        yield Batch(scores[None], effects[None], 0, 0)


def _merged(design: Design, rows: Rows) -> tuple[Design, np.ndarray]:
    """Return the design with one cell for all rows that look alike, and each row's cell."""
    key = np.column_stack([rows.item_a, rows.item_b, rows.columns])
    cells, owner = np.unique(key, axis=0, return_inverse=True)
    a, b = cells[:, 0].astype(np.int64), cells[:, 1].astype(np.int64)
    merged = design._replace(item_a=a, item_b=b, columns=np.ascontiguousarray(cells[:, 2:]))
    return merged, owner.ravel()


def _start(fit: FitResult, design: Design) -> Point:
    effects = np.array([e.estimate for e in fit.effects if e.kind != "tie"], np.float64)
    scores = fit.scores if design.own_scores else np.zeros(fit.num_items)
    return Point(scores, effects, tie_parameter(fit))


def _draws(
    fit: FitResult, rows: Rows, random: np.random.Generator, count: int, method: str
) -> Iterator[Cells]:
    """Yield wins, losses and ties of every row."""
    if method == "parametric":
        yield from _parametric(fit, rows, random, count)
        return
    if method in BY_RATER:
        assert rows.rater is not None
        for times in rater_times(len(rows.raters), random, count, method):
            yield Cells(*(times[rows.rater] * column for column in rows.counts))
        return
    for drawn in draw_cells(np.concatenate(rows.counts), random, count, method):
        yield Cells(*np.split(drawn, 3))


def _parametric(
    fit: FitResult, rows: Rows, random: np.random.Generator, count: int
) -> Iterator[Cells]:
    """Yield outcomes drawn from the fit, row by row."""
    model = design_of(fit).ties
    chances = np.stack(
        outcome_probabilities(fit.link, model, rows.margin, tie_parameter(fit)), axis=1
    )
    chances = np.maximum(chances, 0.0) / np.maximum(chances, 0.0).sum(axis=1, keepdims=True)
    number = np.rint(rows.counts.total).astype(np.int64)
    for _ in range(count):
        yield Cells(*random.multinomial(number, chances).T.astype(np.float64))


def _with_cells(design: Design, cells: Cells, ridge: float) -> Design:
    """Return the design with other outcomes, without the cells that were not drawn."""
    keep = cells.total > 0
    return design._replace(
        item_a=design.item_a[keep],
        item_b=design.item_b[keep],
        cells=Cells(*(column[keep] for column in cells)),
        columns=design.columns[keep],
        ridge=ridge if design.own_scores else design.ridge,
    )


def _has_maximum(design: Design) -> bool:
    """Whether scores and tie parameter have a finite maximum, apart from other coefficients."""
    a, b, cells = design.item_a, design.item_b, design.cells
    up, down = cells.wins_a + cells.ties > 0, cells.wins_b + cells.ties > 0
    ends = np.concatenate([a[up], b[down]]), np.concatenate([b[up], a[down]])
    from scipy.sparse import csr_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    graph: Any = csr_array((np.ones(ends[0].size), ends), shape=(design.num_items,) * 2)
    if connected_components(graph, connection="strong", return_labels=False) != 1:
        return False
    if design.ties is None:
        return True
    if not cells.ties.any() or not (cells.wins_a.any() or cells.wins_b.any()):
        return False
    if ((cells.wins_a > 0) & (cells.wins_b > 0)).any():
        return True
    return not ties_explained_by_growth(PairCounts(a, b, *cells), design.num_items)
