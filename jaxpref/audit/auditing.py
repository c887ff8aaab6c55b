"""Audit a fit: which predictions hang by a thread, and on which observed pairs."""

from __future__ import annotations

from collections.abc import Sequence

from .._checks import check_count
from ..fit._host import float64
from ..fit.result import FitResult
from .network import require_converged
from .pairs import Progress, scan_pairs
from .regime import describe_regime, dominant_edges
from .report import AuditReport, describe_rows
from .triples import check_thresholds
from .unseen import scan_unseen


def audit(
    fit: FitResult,
    *,
    top: int = 20,
    thresholds: Sequence[float | int] = (1.01, 2, 3, 5, 10),
    chunk: int = 2**13,
    progress: Progress | None = None,
) -> AuditReport:
    r"""Return how far every unseen prediction of a fit moves when one observed fraction does.

    For each pair never compared: the prediction p_ij, the largest absolute derivative by the
    observed win fraction of any one pair,

    .. math:: \max_{(a,b)} \Big| \frac{dp_{ij}}{df_{ab}} \Big| , \qquad
              \frac{dp_{ij}}{df_{ab}} = p_{ij}(1-p_{ij})\, n_{ab}\,
              (e_i - e_j)^\top L^+ (e_a - e_b) ,

    with the pair (a, b) behind it; and the most sensitive triple through an item compared with
    both, with its M-sensitive region (Eqs. 4 and 5).

    Parameters
    ----------
    fit : FitResult
        A converged fit.
    top : int, >= 0
        How many of the most sensitive pairs to describe by name.
    thresholds : sequence of float, > 0
        The M of the regions to count triples in; the default is the paper's Fig. 1.
    chunk : int, >= 1
        Unseen pairs between two calls of `progress`.
    progress : callable, optional
        Called with (pairs done, pairs in all) after each chunk.

    Returns
    -------
    AuditReport
        In a complete design there are no unseen pairs: the arrays are empty and the regime says
        so.

    Raises
    ------
    InputError
        For a fit that has not converged, or an option out of range.

    Notes
    -----
    One factorisation, then every pair takes a difference of two rows of length `edges`; the
    (pairs, edges) Jacobian never exists. Memory: two blocks of rows of 128 MiB at most, two
    (items, items) matrices and the arrays of the result. The derivative is the effect of a small
    change of one fraction; several changing together, or by much, are another matter.

    Examples
    --------
    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> example = Comparisons.from_counts(  # the paper's Example 1: p_ik = .99, p_kj = .02
    ...     [[0, 99, 0], [1, 0, 2], [0, 98, 0]], items=("i", "k", "j"))
    >>> row = audit(fit_pairwise(example)).top[0]
    >>> row.item_a, row.item_b, row.edge.item_a, row.edge.item_b, round(row.sensitivity, 5)
    ('i', 'j', 'i', 'k', 22.37034)
    >>> row.triple.region
    10.0
    """
    require_converged(fit)
    check_count("top", top, at_least=0)
    check_count("chunk", chunk)
    levels = check_thresholds(thresholds)
    with float64():
        unseen, triples = scan_unseen(
            fit, scan_pairs(fit, int(chunk), progress), levels, int(chunk)
        )
        fitted, dominant = dominant_edges(fit)
        rows = describe_rows(fit, unseen, fitted, dominant, int(top), levels)
    return AuditReport(
        items=fit.items,
        regime=describe_regime(fit, unseen, dominant),
        top=rows,
        triples=triples,
        unseen=unseen,
    )
