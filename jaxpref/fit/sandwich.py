"""Covariances that hold where votes of one rater belong together, or where the model is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64

from .._checks import InputError, check_option
from ..data.comparisons import Comparisons
from ..data.rankings import Rankings
from .information import design_of, terms_of, tie_parameter
from .joint import Fit, JointCovariance, bread, ranking_bread, split
from .outcomes import Cells, cell_terms
from .rankings_gradients import ranking_gradients
from .rankings_result import RankingFit
from .result import FitResult
from .rows import Rows, rows_of

CLUSTERS = ("rater", "none")


def sandwich_covariance(
    fit: Fit, data: Comparisons | Rankings | None = None, *, cluster: str = "rater"
) -> Float64[np.ndarray, "items items"]:
    r"""Return the covariance of the scores that holds when votes of one rater belong together.

    .. math:: V = H^+ \Big( \frac{C}{C-1} \sum_c g_c g_c^T \Big) H^+ ,

    where H is the observed information (plus the prior's), g_c the gradient of cluster c's
    log-likelihood at the fit and C the number of clusters [1]_.

    Parameters
    ----------
    fit : FitResult or RankingFit
        The fit.
    data : Comparisons or Rankings
        What was fitted, with its raters. Rankings may be left out: their fit remembers them.
        Covariates are found by name in ``data.covariates``, or row by row where the data are the
        very ones that were fitted.
    cluster : {"rater", "none"}
        "rater" sums gradients over each rater; "none" takes each comparison (each ranking) as a
        cluster of its own, which guards against a wrong model but not against dependence. A
        ranking of weight w is then w rankings.

    Returns
    -------
    (items, items) array
        nats^2, in the gauge where scores sum to zero.

    Raises
    ------
    InputError
        If there are no raters, fewer than two of them, or the data are not those that were fitted.

    Notes
    -----
    With few raters the estimate itself is noisy: with fewer than about 30, distrust it. Where ties
    count as half wins, a comparison that ties is one cluster. :func:`joint_sandwich` also has the
    covariances of the other coefficients.

    References
    ----------
    .. [1] K.-Y. Liang and S. Zeger, "Longitudinal data analysis using generalized linear models",
       Biometrika 73(1), 1986: the clustered sandwich.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> votes = Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b"))
    >>> sandwich_covariance(fit_pairwise(votes), votes, cluster="none").round(12).tolist()
    [[0.333333333333, -0.333333333333], [-0.333333333333, 0.333333333333]]
    """
    return joint_sandwich(fit, data, cluster=cluster).scores


def joint_sandwich(
    fit: Fit, data: Comparisons | Rankings | None = None, *, cluster: str = "rater"
) -> JointCovariance:
    """Return the sandwich of scores and other coefficients together: ties, order, covariates.

    Parameters
    ----------
    fit, data, cluster
        As in :func:`sandwich_covariance`.

    Returns
    -------
    JointCovariance
        Of the scores, and of the coefficients in ``fit.effects``, in nats^2.

    Raises
    ------
    InputError
        As :func:`sandwich_covariance` does, and where a covariate of the fit is not in the data.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> one, two = np.array([0]), np.array([1])
    >>> votes = Comparisons(("a", "b"), one, two, 2.0 + one, 1.0 + one, 1.0 + one)
    >>> fit = fit_pairwise(votes, ties="davidson")
    >>> joint_sandwich(fit, votes, cluster="none").effects.round(9).tolist()
    [[1.833333333]]
    """
    check_option("cluster", cluster, CLUSTERS)
    if isinstance(fit, RankingFit):
        outside = ranking_bread(fit)
        middle = _ranking_scatter(fit, fit.rankings if data is None else data, cluster)
    else:
        design = design_of(fit)
        outside = bread(design, terms_of(fit, design, expected=False))
        middle = _comparison_scatter(fit, rows_of(fit, data), cluster)
    return split(fit, outside @ middle @ outside)


def _comparison_scatter(
    fit: FitResult, rows: Rows, cluster: str
) -> Float64[np.ndarray, "parameters parameters"]:
    """Return the sum of outer products of the clusters' gradients, with its correction."""
    from scipy.sparse import csr_array  # slow to import

    if cluster == "rater":
        rater, count = _raters(rows.rater, rows.raters)
        gradients = _gradients(fit, rows, rows.cells)
        groups: Any = csr_array(
            (np.ones(rater.size), (rater, np.arange(rater.size))), shape=(count, rater.size)
        )
        sums = (groups @ gradients).toarray()
        return sums.T @ sums * (count / (count - 1))
    one, none = np.ones(rows.item_a.size), np.zeros(rows.item_a.size)
    tied = Cells(one / 2, one / 2, none) if rows.halved else Cells(none, none, one)
    middle: Any = 0.0
    total = 0.0
    for number, outcome in zip(
        rows.counts, (Cells(one, none, none), Cells(none, one, none), tied), strict=True
    ):
        if not number.any():
            continue
        each = _gradients(fit, rows, outcome)
        weighted: Any = each.T @ (each * number[:, None])
        middle, total = middle + weighted.toarray(), total + float(number.sum())
    return middle * (total / (total - 1))


def _gradients(fit: FitResult, rows: Rows, cells: Cells) -> Any:
    """Return each row's gradient by all parameters, as a sparse matrix."""
    design = design_of(fit)
    terms = cell_terms(fit.link, design.ties, rows.margin, tie_parameter(fit), cells)
    count, size = rows.item_a.size, fit.num_items if design.own_scores else 0
    width, row = rows.columns.shape[1], np.arange(rows.item_a.size)
    total = size + design.num_effects + (design.ties is not None)
    value, where, column = [], [], []
    if size:
        value += [terms.gradient, -terms.gradient]
        where, column = [row, row], [rows.item_a, rows.item_b]
    for k in range(width):
        value.append(terms.gradient * rows.columns[:, k])
        where.append(row)
        column.append(np.full(count, size + k))
    if design.ties is not None:
        value.append(terms.by_tie)
        where.append(row)
        column.append(np.full(count, total - 1))
    ends = np.concatenate(where), np.concatenate(column)
    from scipy.sparse import csr_array  # slow to import

    return csr_array((np.concatenate(value), ends), shape=(count, total))


def _ranking_scatter(
    fit: RankingFit, data: Any, cluster: str
) -> Float64[np.ndarray, "parameters parameters"]:
    if not isinstance(data, Rankings):
        raise InputError("data: expected the Rankings that were fitted, or nothing")
    if data is not fit.rankings and data != fit.rankings:
        same = (data.items, data.num_rankings) == (fit.items, fit.rankings.num_rankings)
        if not same or not np.array_equal(data.item, fit.rankings.item):
            raise InputError("data: expected the Rankings that were fitted; got others")
    count = data.num_rankings
    group, scale = np.arange(count), np.sqrt(data.weight)
    if cluster == "rater":
        group, count = _raters(data.rater, data.raters)
        scale = data.weight
    total = count if cluster == "rater" else float(data.weight.sum())
    owner, parameter, gradient = ranking_gradients(fit, data)
    entries = gradient * scale[owner], (group[owner], parameter)
    from scipy.sparse import csr_array  # slow to import

    sums = csr_array(entries, shape=(count, fit.num_items + len(fit.tie_orders)))
    middle: Any = sums.T @ sums
    return middle.toarray() * (total / (total - 1))


def _raters(rater: np.ndarray | None, raters: tuple[str, ...]) -> tuple[np.ndarray, int]:
    if rater is None:
        raise InputError('data: expected raters to cluster by; got none (cluster="none" does so)')
    if len(raters) < 2:
        raise InputError(f"data: expected at least two raters; got {len(raters)}")
    return rater, len(raters)
