"""Information of the data about the scores, other coefficients profiled out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from jaxtyping import Float64

from .design import Design, plain_design
from .likelihood import predict
from .linear import ItemGraph
from .outcomes import Cells, CellTerms, cell_terms, outcome_probabilities

if TYPE_CHECKING:
    from .rankings_result import RankingFit
    from .result import FitResult


class Blocks(NamedTuple):
    """Minus the Hessian of a log-likelihood: scores, other coefficients, and between them.

    The others are the columns of the design, then the tie parameter where there is a model.
    """

    scores: Float64[np.ndarray, "items items"]
    border: Float64[np.ndarray, "items others"]
    inner: Float64[np.ndarray, "others others"]


def expected_information(fit: FitResult | RankingFit) -> Float64[np.ndarray, "items items"]:
    """Return the Fisher information about the scores, without the prior, nats^-2.

    Of comparisons, expected over their outcomes; of rankings, over each choice given the choice
    sets that were reached. The same as ``fit.fisher_information``.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
    >>> expected_information(fit).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    return fit.fisher_information


def observed_information(fit: FitResult | RankingFit) -> Float64[np.ndarray, "items items"]:
    r"""Return minus the Hessian of the log-likelihood at the scores, without the prior, nats^-2.

    Other coefficients, where there are any, are profiled out. For the logistic link, with or
    without Davidson's ties, and for rankings it is the expected information (given the choice sets
    that were reached); for other links and for Rao and Kupper's ties the two differ.

    Parameters
    ----------
    fit : FitResult or RankingFit
        Any fit.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
    >>> observed_information(fit).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    if not hasattr(fit, "design"):
        return fit.fisher_information
    fit = cast("FitResult", fit)
    design = design_of(fit)
    return _profiled(blocks(design, terms_of(fit, design, expected=False)))


def pairwise_information(fit: FitResult) -> Float64[np.ndarray, "items items"]:
    """Return the expected information of comparisons."""
    if fit.design is not None:
        return _profiled(blocks(fit.design, terms_of(fit, fit.design, expected=True)))
    pairs = fit.pairs
    p, q, density = predict(fit.link, fit.scores[pairs.item_a] - fit.scores[pairs.item_b])
    # g' / (g (1 - g)) is of order one where g' and g underflow together.
    tail, rest = np.minimum(p, q), np.maximum(p, q)
    ratio = np.divide(density, tail, out=np.zeros_like(tail), where=tail > 0)
    weight = (pairs.wins_a + pairs.wins_b) * density * ratio / rest
    return ItemGraph(pairs.item_a, pairs.item_b, fit.num_items).laplacian(weight)


def design_of(fit: FitResult) -> Design:
    """Return the design of a fit, also where only scores were fitted."""
    if fit.design is not None:
        return fit.design
    return plain_design(fit.pairs, fit.num_items, fit.link, fit.ridge)


def margins_of(
    fit: FitResult,
    design: Design,
    item_a: np.ndarray,
    item_b: np.ndarray,
    columns: Float64[np.ndarray, "rows columns"],
) -> Float64[np.ndarray, " rows"]:
    """Return the fitted margins of rows with these items and columns."""
    on_margin = [e.estimate for e in fit.effects if e.kind != "tie"][: columns.shape[1]]
    margin = columns @ np.asarray(on_margin, float)
    if design.own_scores:
        margin = margin + fit.scores[item_a] - fit.scores[item_b]
    return margin


def tie_parameter(fit: FitResult) -> float:
    """Return the fitted tie parameter, 0 without a model."""
    return sum((e.estimate for e in fit.effects if e.kind == "tie"), 0.0)


def terms_of(fit: FitResult, design: Design, *, expected: bool) -> CellTerms:
    """Return log-likelihood and derivatives of the cells, at the outcomes observed or expected."""
    margin = margins_of(fit, design, design.item_a, design.item_b, design.columns)
    tie, cells = tie_parameter(fit), design.cells
    if expected:
        chances = outcome_probabilities(fit.link, design.ties, margin, tie)
        cells = Cells(*(cells.total * chance for chance in chances))
    return cell_terms(fit.link, design.ties, margin, tie, cells)


def blocks(design: Design, terms: CellTerms) -> Blocks:
    """Return minus the Hessian of the log-likelihood, in blocks."""
    graph = ItemGraph(design.item_a, design.item_b, design.num_items)
    flows = terms.curvature[:, None] * design.columns
    inner = design.columns.T @ flows
    if design.ties is not None:
        across = design.columns.T @ terms.cross
        inner = np.block(
            [[inner, across[:, None]], [across[None], np.full((1, 1), terms.tie_curvature.sum())]]
        )
        flows = np.concatenate([flows, terms.cross[:, None]], axis=1)
    border = [graph.onto_items(flow) for flow in flows.T]
    none = np.zeros((design.num_items, 0))
    return Blocks(
        graph.laplacian(terms.curvature), np.stack(border, axis=1) if border else none, inner
    )


def _profiled(found: Blocks) -> Float64[np.ndarray, "items items"]:
    """Return the scores' information less what the other coefficients may explain."""
    if not found.border.shape[1]:
        return found.scores
    return found.scores - found.border @ np.linalg.pinv(found.inner) @ found.border.T
