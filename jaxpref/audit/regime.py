"""The regime of a data set: how sparse and how dominant it is, in numbers and in a sentence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..fit.likelihood import predict
from ..fit.result import FitResult
from .unseen import UnseenPairs
from .wording import share

DOMINANCE_EPSILON = 0.1
"""A probability is dominant below this or from 1 minus this on: the outer bins of Table C2."""

DENSE_DEGREE = 6.0
"""From this mean degree on a graph is called dense: on random graphs with scores of standard
deviation 1.5 fewer than a tenth of the unseen pairs then exceed a sensitivity of 1."""


class Regime(NamedTuple):
    """How sparse, dominant and fragile a fitted data set is.

    `kind` is "complete" (every pair was compared), "tree" (no cycle: one edge fewer than items,
    per island), "sparse" (mean degree below 6) or "dense". `share_above_one` is the share of
    unseen pairs whose sensitivity to one observed fraction exceeds 1 (None without unseen pairs,
    and where there are too many to look at each; `largest_sensitivity` is then of the most fragile
    pairs, unseen ones if there are any among them),
    `share_dominant` the share of observed pairs whose fitted probability is below
    `dominance_epsilon` or at least 1 - `dominance_epsilon`.
    """

    kind: str
    num_items: int
    num_islands: int
    num_edges: int
    num_comparisons: float
    mean_degree: float
    num_unseen: int
    share_above_one: float | None
    largest_sensitivity: float | None
    share_dominant: float
    dominance_epsilon: float
    sentence: str


def dominant_edges(fit: FitResult) -> tuple[np.ndarray, np.ndarray]:
    """Return the fitted probabilities of the observed pairs, and which are dominant."""
    fitted = predict(fit.link, fit.scores[fit.pairs.item_a] - fit.scores[fit.pairs.item_b])
    low, high = fitted.probability < DOMINANCE_EPSILON, fitted.opposite <= DOMINANCE_EPSILON
    return fitted.probability, low | high


def describe_regime(
    fit: FitResult, unseen: UnseenPairs, dominant: np.ndarray, *, scanned: bool = True
) -> Regime:
    """Return the regime of a fit whose unseen pairs have been scanned, all or the worst of them."""
    edges = len(fit.pairs.item_a)
    num_unseen = fit.num_items * (fit.num_items - 1) // 2 - edges
    islands = fit.islands.count
    degree = 2 * edges / fit.num_items
    above = unseen.sensitivity > 1
    regime = Regime(
        kind=_kind(edges, fit.num_items, islands, num_unseen),
        num_items=fit.num_items,
        num_islands=islands,
        num_edges=edges,
        num_comparisons=float(np.sum(fit.pairs.wins_a + fit.pairs.wins_b)),
        mean_degree=degree,
        num_unseen=num_unseen,
        share_above_one=float(np.mean(above)) if scanned and num_unseen else None,
        largest_sensitivity=float(np.max(unseen.sensitivity)) if len(above) else None,
        share_dominant=float(np.mean(dominant)),
        dominance_epsilon=DOMINANCE_EPSILON,
        sentence="",
    )
    return regime._replace(sentence=_sentence(regime))


def _kind(edges: int, items: int, islands: int, num_unseen: int) -> str:
    if num_unseen == 0:
        return "complete"
    if edges == items - islands:
        return "tree"
    return "dense" if 2 * edges / items >= DENSE_DEGREE else "sparse"


_MEANING = {
    "complete": "Complete: every pair was compared, so nothing is predicted unseen.",
    "tree": "Tree-like: every unseen prediction rests on one chain of comparisons, and Eq. 4 "
    "holds along it exactly.",
    "sparse": "Sparse: few chains lead from one item to another.",
    "dense": "Dense: many chains lead from one item to another, so no single observed fraction "
    "carries a prediction alone; several moving together still can.",
}


def _sentence(regime: Regime) -> str:
    """Return the regime in words."""
    total = regime.num_edges + regime.num_unseen
    parts = [
        _MEANING[regime.kind],
        f"{regime.num_items} items, {regime.num_edges:,} of {total:,} pairs compared (mean degree "
        f"{regime.mean_degree:.1f}), {share(regime.share_dominant)} of them dominant (fitted "
        f"probability below {regime.dominance_epsilon:g} or at least "
        f"{1 - regime.dominance_epsilon:g}).",
    ]
    if regime.num_islands > 1:
        parts.append(
            f"The comparisons fall into {regime.num_islands} islands; across islands the "
            "predictions are the prior's."
        )
    if regime.share_above_one is not None:
        parts.append(
            f"Of the {regime.num_unseen:,} unseen predictions, {share(regime.share_above_one)} "
            "would move by more than an observed fraction they rest on does (sensitivity above 1); "
            f"the largest sensitivity is {regime.largest_sensitivity:.3g}."
        )
    return " ".join(parts)
