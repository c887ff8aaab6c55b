"""Expected information of the comparisons about the scores, other coefficients profiled out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from .likelihood import predict
from .linear import ItemGraph
from .outcomes import Cells, cell_terms, outcome_probabilities

if TYPE_CHECKING:
    from .design import Design
    from .result import FitResult


def expected_information(fit: FitResult) -> Float64[np.ndarray, "items items"]:
    """Return the Fisher information of the comparisons about the scores, nats^-2.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
    >>> expected_information(fit).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    if fit.design is not None:
        return _profiled(fit, fit.design)
    pairs = fit.pairs
    p, q, density = predict(fit.link, fit.scores[pairs.item_a] - fit.scores[pairs.item_b])
    # g' / (g (1 - g)) is of order one where g' and g underflow together.
    tail, rest = np.minimum(p, q), np.maximum(p, q)
    ratio = np.divide(density, tail, out=np.zeros_like(tail), where=tail > 0)
    weight = (pairs.wins_a + pairs.wins_b) * density * ratio / rest
    return ItemGraph(pairs.item_a, pairs.item_b, fit.num_items).laplacian(weight)


def _profiled(fit: FitResult, design: Design) -> Float64[np.ndarray, "items items"]:
    """Return the scores' information less what the other coefficients may explain."""
    on_margin = [e.estimate for e in fit.effects if e.kind != "tie"][: design.columns.shape[1]]
    tie = sum((e.estimate for e in fit.effects if e.kind == "tie"), 0.0)
    margin = fit.scores[design.item_a] - fit.scores[design.item_b]
    if not design.own_scores:
        margin = np.zeros_like(margin)
    margin = margin + design.columns @ np.asarray(on_margin)
    chances = outcome_probabilities(fit.link, design.ties, margin, tie)
    expected = Cells(*(design.cells.total * chance for chance in chances))
    terms = cell_terms(fit.link, design.ties, margin, tie, expected)
    graph = ItemGraph(design.item_a, design.item_b, design.num_items)
    flows, corner = terms.curvature[:, None] * design.columns, design.columns
    inner = corner.T @ flows
    if design.ties is not None:
        across = design.columns.T @ terms.cross
        inner = np.block(
            [[inner, across[:, None]], [across[None], np.full((1, 1), terms.tie_curvature.sum())]]
        )
        flows = np.concatenate([flows, terms.cross[:, None]], axis=1)
    information = graph.laplacian(terms.curvature)
    if not flows.shape[1]:
        return information
    border = np.stack([graph.onto_items(flow) for flow in flows.T], axis=1)
    return information - border @ np.linalg.pinv(inner) @ border.T
