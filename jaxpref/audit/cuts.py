"""The fewest comparisons whose loss leaves no finite fit: the weakest cut of the graph of wins."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..fit.result import FitResult
from .records import Cut

_MOST_FLOWS = 150
_SCALE = 2
"""Half wins are made whole numbers for the flows."""


def weakest_cut(fit: FitResult) -> Cut | None:
    """Return the cheapest way to leave a group of items without a win, or without a loss.

    A finite fit exists while every item reaches every other along wins (Ford 1957), so this is
    the smallest directed cut. Exact up to 150 items, by maximum flows to and from the first item;
    above, of single items only. None with a prior, under which the fit always exists.

    >>> from jaxpref.data import load_bundled
    >>> from jaxpref.fit import fit_pairwise
    >>> weakest_cut(fit_pairwise(load_bundled("example1")))
    Cut(comparisons=1.0, items=('i',), verb='lost to')
    """
    if fit.ridge > 0:
        return None
    wins = np.zeros((fit.num_items,) * 2)
    wins[fit.pairs.item_a, fit.pairs.item_b] = fit.pairs.wins_a
    wins[fit.pairs.item_b, fit.pairs.item_a] = fit.pairs.wins_b
    won, lost = wins.sum(axis=1), wins.sum(axis=0)
    best_won, best_lost = int(np.argmin(won)), int(np.argmin(lost))
    cut = Cut(float(won[best_won]), (fit.items[best_won],), "beat")
    if lost[best_lost] <= won[best_won]:
        cut = Cut(float(lost[best_lost]), (fit.items[best_lost],), "lost to")
    if fit.num_items <= _MOST_FLOWS and np.all(np.mod(_SCALE * wins, 1) == 0):
        cut = _by_flows(fit, wins, cut)
    return cut


def _by_flows(fit: FitResult, wins: np.ndarray, cut: Cut) -> Cut:
    """Return a cheaper cut, of several items, if there is one."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    capacity: Any = csr_array((_SCALE * wins).astype(np.int32))
    for other in range(1, fit.num_items):
        for source, sink in ((0, other), (other, 0)):
            flow = maximum_flow(capacity, source, sink)
            if flow.flow_value / _SCALE < cut.comparisons:
                side = _reached(capacity - flow.flow, source)
                few, verb = (side, "beat") if 2 * side.sum() <= len(side) else (~side, "lost to")
                names = tuple(fit.items[item] for item in np.flatnonzero(few))
                cut = Cut(flow.flow_value / _SCALE, names, verb)
    return cut


def _reached(residual: Any, source: int) -> np.ndarray:
    """Return which items the source still reaches; those wins to the rest are the cut."""
    from scipy.sparse.csgraph import breadth_first_order

    left = residual.tocsr()
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    side = np.zeros(left.shape[0], bool)
    side[breadth_first_order(left, source, return_predecessors=False)] = True
    return side
