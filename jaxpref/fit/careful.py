"""Damped Newton on the host, for every pairwise model; small or chain-like data need no other.

The problem is concave, so Newton with a line search reaches the maximum from anywhere. Four things
make it right on chain-like data, where first-order methods stop whole nats away:

* it starts from the weighted least-squares fit to the smoothed log-odds of the cells, which on a
  tree is the answer but for the smoothing;
* the line search looks at the slope along the step and not only at the log-likelihood, whose
  rounding hides the last half of the digits of a weakly tied item;
* where edges are so saturated that their curvature is lost to rounding, a share of the largest
  curvature those edges could have is added until the information can be factored again;
* it stops when the next step would move no score by more than `tolerance`, which bounds the error
  of every item, while a bound on the gradient would let weakly tied items drift.

:mod:`jaxpref.fit.newton` is the same algorithm as one compiled JAX function.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from .design import Design
from .linear import ItemGraph, Solver
from .outcomes import CellTerms, cell_terms, smoothed_margins

_HALVINGS = 60
_SUFFICIENT = 1e-4
_LEAST_DAMPING, _DAMPING_FACTOR = 1e-8, 100.0
_COLLINEAR = 1e-11


class Point(NamedTuple):
    """Scores, coefficients (columns first, then item columns) and the tie parameter."""

    scores: Float64[np.ndarray, " items"]
    effects: Float64[np.ndarray, " effects"]
    tie: float

    def moved(self, direction: Point, length: float) -> Point:
        """Return the point `length` times the direction further."""
        return Point(
            self.scores + length * direction.scores,
            self.effects + length * direction.effects,
            self.tie + length * direction.tie,
        )

    def dot(self, other: Point) -> float:
        """Return the inner product with another point."""
        inner = self.scores @ other.scores + self.effects @ other.effects
        return float(inner + self.tie * other.tie)

    def size(self) -> float:
        """Return the largest entry."""
        sizes = [np.abs(part).max(initial=0.0) for part in (self.scores, self.effects)]
        return float(max(*sizes, abs(self.tie)))


class Found(NamedTuple):
    """Where Newton stopped; `effect_covariance` is that of the coefficients, then the tie."""

    scores: Float64[np.ndarray, " items"]
    effects: Float64[np.ndarray, " effects"]
    tie: float
    effect_covariance: Float64[np.ndarray, "border border"]
    log_likelihood: float
    gradient_norm: float
    step_size: float
    steps: int
    status: str


class _Here(NamedTuple):
    """The objective at a point, its gradient, and the terms of the cells."""

    value: float
    gradient: Point
    terms: CellTerms


class Model:
    """A design with its graph: the objective, its derivatives, and Newton's equations."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.graph = ItemGraph(design.item_a, design.item_b, design.num_items)
        self._width = design.columns.shape[1]
        self.ridge = design.ridge if design.own_scores else 0.0

    def margins(self, point: Point) -> Float64[np.ndarray, " cells"]:
        """Return the margin of every cell."""
        design = self.design
        drop = point.scores[design.item_a] - point.scores[design.item_b]
        return drop + design.columns @ point.effects[: self._width]

    def deviations(self, point: Point) -> Float64[np.ndarray, " items"]:
        """Return the scores less what item covariates explain: what the prior acts on."""
        return point.scores - self.design.item_columns @ point.effects[self._width :]

    def terms(self, point: Point) -> CellTerms:
        """Return the log-likelihood of the cells and its derivatives."""
        design = self.design
        return cell_terms(design.link, design.ties, self.margins(point), point.tie, design.cells)

    def look(self, point: Point) -> _Here:
        """Return the penalised log-likelihood and its gradient."""
        terms, deviation = self.terms(point), self.deviations(point)
        value = float(np.sum(terms.log_likelihood)) - self.ridge / 2 * float(deviation @ deviation)
        gradient = self._gradient(terms.gradient, float(np.sum(terms.by_tie)))
        pull = self.ridge * deviation
        effects = gradient.effects + np.concatenate(
            [np.zeros(self._width), self.design.item_columns.T @ pull]
        )
        return _Here(value, Point(gradient.scores - pull, effects, gradient.tie), terms)

    def _gradient(self, by_margin: Float64[np.ndarray, " cells"], by_tie: float) -> Point:
        design = self.design
        scores = (
            self.graph.onto_items(by_margin) if design.own_scores else np.zeros(design.num_items)
        )
        rest = np.zeros(design.item_columns.shape[1])
        return Point(scores, np.concatenate([design.columns.T @ by_margin, rest]), by_tie)

    def centred(self, point: Point) -> Point:
        """Return the point in the gauge where scores sum to zero."""
        return point._replace(scores=point.scores - point.scores.mean())

    def least_squares_start(self) -> tuple[Point, _System]:
        """Return the right side and the equations of the fit to smoothed margins."""
        design = self.design
        half = design.cells.ties / 2
        margin, weight, _ = smoothed_margins(
            design.link, design.cells.wins_a + half, design.cells.wins_b + half
        )
        target = self._gradient(weight * margin, 0.0)
        nothing = np.zeros_like(weight)
        return target, _System(self, weight, nothing, nothing + 1.0)

    def ceiling(self) -> Float64[np.ndarray, " cells"]:
        """Return the most curvature each cell can have."""
        none = np.zeros(1)
        return self.design.cells.total * smoothed_margins(self.design.link, none, none)[2]


class _System:
    """Newton's equations: the scores' block, bordered by the other coefficients."""

    def __init__(
        self,
        model: Model,
        curvature: Float64[np.ndarray, " cells"],
        cross: Float64[np.ndarray, " cells"],
        tie_curvature: Float64[np.ndarray, " cells"],
    ) -> None:
        design = model.design
        self._has_tie = design.ties is not None
        self._own_scores = design.own_scores
        self._solver: Solver | None = None
        if design.own_scores:
            self._solver = model.graph.solver(curvature, model.ridge)
        tie_column = [cross[:, None]] if self._has_tie else []
        flows = np.concatenate([curvature[:, None] * design.columns, *tie_column], axis=1)
        corner = self._corner(model, flows, float(np.sum(tie_curvature)))
        self._border = self._scores_by_border(model, flows)
        self._through = self._back(self._border)
        self._corner_matrix = corner
        self.complement = corner - self._border.T @ self._through

    def _corner(
        self, model: Model, flows: Float64[np.ndarray, "cells flows"], tie: float
    ) -> Float64[np.ndarray, "border border"]:
        """Return the block of the coefficients: columns, item columns, tie."""
        design = model.design
        width, count = design.columns.shape[1], design.num_effects
        size = count + self._has_tie
        corner = np.zeros((size, size))
        corner[:width, :width] = design.columns.T @ flows[:, :width]
        items = design.item_columns
        corner[width:count, width:count] = model.ridge * (items.T @ items)
        if self._has_tie:
            corner[:width, -1] = corner[-1, :width] = design.columns.T @ flows[:, -1]
            corner[-1, -1] = tie
        return corner

    def _scores_by_border(
        self, model: Model, flows: Float64[np.ndarray, "cells flows"]
    ) -> Float64[np.ndarray, "items border"]:
        design = model.design
        width = design.columns.shape[1]
        columns = [model.graph.onto_items(flow) for flow in flows[:, :width].T]
        columns += list(-model.ridge * design.item_columns.T)
        columns += [model.graph.onto_items(flow) for flow in flows[:, width:].T]
        return np.stack(columns, axis=1) if columns else np.zeros((design.num_items, 0))

    def _back(self, right: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
        if self._solver is None or not right.size:
            return np.zeros_like(right)
        return self._solver.solve(right)

    def solve(self, right: Point) -> Point:
        """Return the step. Raises numpy.linalg.LinAlgError where there is none."""
        scores = self._back(right.scores)
        size = len(self.complement)
        if not size:
            return Point(scores, right.effects, 0.0)
        border = np.concatenate([right.effects, [right.tie] if self._has_tie else []])
        found = np.linalg.solve(self.complement, border - self._border.T @ scores)
        tie = float(found[-1]) if self._has_tie else 0.0
        effects = found[:-1] if self._has_tie else found
        return Point(scores - self._through @ found, effects, tie)

    def lost(self) -> int | None:
        """Return a coefficient the data cannot tell from the scores and the others, if any."""
        whole = np.diagonal(self._corner_matrix)
        if not len(whole):
            return None
        scale = np.sqrt(np.where(whole > 0, whole, 1.0))
        values, vectors = np.linalg.eigh(self.complement / np.outer(scale, scale))
        return int(np.argmax(np.abs(vectors[:, 0]))) if values[0] < _COLLINEAR else None

    def covariance(self) -> Float64[np.ndarray, "border border"]:
        """Return the covariance of the coefficients and the tie parameter, NaN if singular."""
        try:
            return np.linalg.inv(self.complement)
        except np.linalg.LinAlgError:
            return np.full_like(self.complement, np.nan)


def start_point(model: Model) -> Point:
    """Return zero scores and coefficients, and the tie parameter the share of ties suggests."""
    design = model.design
    cells = design.cells
    tie = 0.0
    if design.ties is not None:
        share = float(np.clip(cells.ties.sum() / max(cells.total.sum(), 1e-300), 1e-6, 1 - 1e-6))
        if design.ties == "davidson":
            tie = float(np.log(2 * share / (1 - share)))
        else:
            up, down = np.array([(1 + share) / 2]), np.array([(1 - share) / 2])
            large = 1e9
            tie = float(smoothed_margins(design.link, large * up, large * down)[0][0])
    return Point(np.zeros(design.num_items), np.zeros(design.num_effects), tie)


def lost_coefficient(design: Design) -> str | None:
    """Return the name of a coefficient the data cannot tell from scores and others, if any."""
    if not design.num_effects:
        return None
    try:
        _, system = Model(design).least_squares_start()
    except np.linalg.LinAlgError:
        return None
    place = system.lost()
    return None if place is None or place >= len(design.names) else design.names[place][0]


def fit_carefully(
    design: Design, *, tolerance: float, max_steps: int, start: Point | None = None
) -> Found:
    """Return the maximum of the penalised likelihood, with how the search ended.

    Parameters
    ----------
    design : Design
        Counts and model.
    tolerance, max_steps
        As in :func:`jaxpref.fit.fit_pairwise`.
    start : Point, optional
        A point near the maximum; the least-squares fit to smoothed log-odds when left out.
    """
    model = Model(design)
    point, damping, size, step, status = start or start_point(model), 0.0, np.inf, 0, "max_steps"
    lead = 1 if start is None else 0
    ceiling = model.ceiling()
    while step < max_steps:
        here = model.look(point)
        direction = _direction(model, here, first=step < lead, extra=damping * ceiling)
        size = np.inf if direction is None else direction.size()
        step += 1
        limit = tolerance * max(1.0, point.size())
        if direction is not None and size <= limit and step > lead and damping == 0:
            point, status = model.centred(point.moved(direction, 1.0)), "converged"
            break
        length = 0.0 if direction is None else _step_length(model, point, here, direction)
        if damping > 1:
            status = "stalled"
            break
        if direction is not None and length > 0:
            point = model.centred(point.moved(direction, length))
        if step > lead:
            damping = _next_damping(damping, length == 0)
    return _found(model, point, size, step, status)


def _direction(
    model: Model, here: _Here, *, first: bool, extra: Float64[np.ndarray, " cells"]
) -> Point | None:
    """Return the way to the least-squares fit at first, then Newton's step; None if singular."""
    try:
        if first:
            right, system = model.least_squares_start()
        else:
            terms = here.terms
            right = here.gradient
            system = _System(model, terms.curvature + extra, terms.cross, terms.tie_curvature)
        direction = system.solve(right)
    except np.linalg.LinAlgError:
        return None
    return direction if np.isfinite(direction.size()) else None


def _step_length(model: Model, point: Point, here: _Here, direction: Point) -> float:
    """Return the first of 1, 1/2, 1/4, ... that climbs enough, or 0 when none does.

    A length is good when the objective rose by the usual fraction of the promise, or when the
    slope there has not turned downhill by more than a tenth of the slope here: by concavity that
    is a climb too, and it can still be told when the objective is all rounding.
    """
    slope = here.gradient.dot(direction)
    if not slope > 0:
        return 0.0
    length = 1.0
    for _ in range(_HALVINGS):
        trial = model.look(point.moved(direction, length))
        enough = trial.value >= here.value + _SUFFICIENT * length * slope
        if enough or trial.gradient.dot(direction) >= -0.1 * slope:
            return length
        length /= 2
    return 0.0


def _next_damping(damping: float, failed: bool) -> float:
    """Return more damping after a step that could not be taken, less or none after one that was."""
    if failed:
        return max(damping * _DAMPING_FACTOR, _LEAST_DAMPING)
    return damping / _DAMPING_FACTOR if damping > _LEAST_DAMPING else 0.0


def _found(model: Model, point: Point, size: float, steps: int, status: str) -> Found:
    here = model.look(point)
    covariance = np.full((model.design.num_effects + (model.design.ties is not None),) * 2, np.nan)
    if len(covariance):
        covariance = _effect_covariance(model, here, covariance)
    deviation = model.deviations(point)
    return Found(
        point.scores,
        point.effects,
        point.tie,
        covariance,
        here.value + model.ridge / 2 * float(deviation @ deviation),
        here.gradient.size(),
        float(size),
        steps,
        status,
    )


def _effect_covariance(
    model: Model, here: _Here, unknown: Float64[np.ndarray, "border border"]
) -> Float64[np.ndarray, "border border"]:
    try:
        system = _System(model, here.terms.curvature, here.terms.cross, here.terms.tie_curvature)
    except np.linalg.LinAlgError:
        return unknown
    return system.covariance()
