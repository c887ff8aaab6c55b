r"""How well a fit knows its scores: information, robust covariances, intervals.

Everything here takes a fit of comparisons (`FitResult`) or of rankings (`RankingFit`). A covariance
V of the scores is in the gauge where they sum to zero; what it says about a margin,
V_aa + V_bb - 2 V_ab, does not depend on the gauge.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float64

from .._checks import InputError, check_between, check_count, check_option
from ..data.comparisons import Comparisons
from ..data.rankings import Rankings
from ._host import float64, pad, pair_bucket
from .base import gauge_inverse
from .likelihood import pair_terms, predict
from .rankings_blocks import entries_in_chunks, in_chunks, plan
from .rankings_information import host_choices
from .rankings_result import RankingFit
from .result import FitResult

Fit = FitResult | RankingFit
CLUSTERS = ("rater", "none")


class Interval(NamedTuple):
    """An estimate with the ends of its interval, low <= high.

    `standard_error` is on the scale on which the interval is symmetric: nats for scores and
    margins, and for probabilities the margin's.
    """

    estimate: float
    low: float
    high: float
    standard_error: float


def observed_information(fit: Fit) -> Float64[np.ndarray, "items items"]:
    r"""Return minus the Hessian of the log-likelihood at the scores, without the prior, nats^-2.

    For the logistic link and for rankings it is the expected information (given the choice sets
    that were reached); for other links the two differ.

    Parameters
    ----------
    fit : FitResult or RankingFit
        A fit whose ties, if any, count as half wins or have parameters.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
    >>> observed_information(fit).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    if isinstance(fit, RankingFit):
        return fit.fisher_information
    require_plain(fit)
    pairs, size = fit.pairs, fit.num_items
    _, curvature = _pair_derivatives(fit, pairs.item_a, pairs.item_b, pairs.wins_a, pairs.wins_b)
    links = np.zeros((size, size))
    np.add.at(links, (pairs.item_a, pairs.item_b), curvature)
    links += links.T
    return np.diag(links.sum(axis=1)) - links


def expected_information(fit: Fit) -> Float64[np.ndarray, "items items"]:
    """Return the Fisher information about the scores, without the prior, nats^-2.

    Of comparisons, expected over their outcomes; of rankings, over each choice given the choice
    sets that were reached. The same as ``fit.fisher_information``.
    """
    return fit.fisher_information


def require_plain(fit: Fit) -> None:
    """Raise for a fit of comparisons with more parameters than scores."""
    if isinstance(fit, FitResult) and not fit.plain:
        raise InputError(
            'fit: expected a fit of scores alone (ties="refuse" or "half", no order effect, no '
            f"covariates); got one with {len(fit.effects)} more parameters"
        )


def _pair_derivatives(
    fit: FitResult, item_a: np.ndarray, item_b: np.ndarray, wins_a: np.ndarray, wins_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient by the margin, and minus the second derivative, of each row of counts."""
    margin = fit.scores[item_a] - fit.scores[item_b]
    size = pair_bucket(margin.size)
    with float64():
        counts = (np.asarray(c, float) for c in (margin, wins_a, wins_b))
        terms = pair_terms(fit.link, *(jax.numpy.asarray(pad(c, size)) for c in counts))
        return (
            np.asarray(terms.gradient)[: margin.size],
            np.asarray(terms.curvature)[: margin.size],
        )


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
        If there are no raters, fewer than two of them, or other items than were fitted.

    Notes
    -----
    With few raters the estimate itself is noisy: with fewer than about 30, distrust it. Ties of
    comparisons count as half wins; a comparison that ties is then one cluster.

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
    check_option("cluster", cluster, CLUSTERS)
    if isinstance(fit, RankingFit):
        middle = _ranking_scatter(fit, fit.rankings if data is None else data, cluster)
    else:
        middle = _comparison_scatter(fit, data, cluster)
    bread = gauge_inverse(observed_information(fit), fit.ridge)
    return bread @ middle @ bread


def _comparison_scatter(fit: FitResult, data: Any, cluster: str) -> np.ndarray:
    """Return the sum of outer products of the clusters' gradients, with its correction."""
    if not isinstance(data, Comparisons):
        raise InputError("data: expected the Comparisons that were fitted, with their raters")
    require_plain(fit)
    _same_items(fit, data.items)
    halves = data.with_ties_as_half_wins()
    if cluster == "rater":
        rater, count = _raters(data)
        pull, _ = _pair_derivatives(fit, data.item_a, data.item_b, halves.wins_a, halves.wins_b)
        sums = np.zeros((count, fit.num_items))
        np.add.at(sums, (rater, data.item_a), pull)
        np.add.at(sums, (rater, data.item_b), -pull)
        return sums.T @ sums * (count / (count - 1))
    one, none = np.ones(data.item_a.size), np.zeros(data.item_a.size)
    square = np.zeros(data.item_a.size)
    for number, wins in ((data.wins_a, (one, none)), (data.wins_b, (none, one)),
                         (data.ties, (one / 2, one / 2))):  # fmt: skip
        square += number * _pair_derivatives(fit, data.item_a, data.item_b, *wins)[0] ** 2
    links = np.zeros((fit.num_items, fit.num_items))
    np.add.at(links, (data.item_a, data.item_b), square)
    links += links.T
    total = data.num_comparisons
    return (np.diag(links.sum(axis=1)) - links) * (total / (total - 1))


def _ranking_scatter(fit: RankingFit, data: Any, cluster: str) -> np.ndarray:
    if not isinstance(data, Rankings):
        raise InputError("data: expected the Rankings that were fitted, or nothing")
    if fit.tie_orders:
        raise InputError("fit: expected rankings without tie parameters; got a fit with some")
    _same_items(fit, data.items)
    count = data.num_rankings
    group, scale = np.arange(count), np.sqrt(data.weight)
    if cluster == "rater":
        group, count = _raters(data)
        scale = data.weight
    total = count if cluster == "rater" else float(data.weight.sum())
    sums = np.zeros((count, fit.num_items))
    for owner, item, gradient in _ranking_gradients(fit, data):
        np.add.at(sums, (group[owner], item), gradient * scale[owner])
    return sums.T @ sums * (total / (total - 1))


def _ranking_gradients(
    fit: RankingFit, data: Rankings
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return, place by place, the ranking, the item, and its gradient at weight 1."""
    item, _, start, listed = data.entries()
    found = []
    for layout in plan(np.diff(start)):
        flat = entries_in_chunks(item, start, layout)
        table = flat.transpose(1, 0, 2).reshape(layout.places, -1)
        length = in_chunks(np.diff(start)[layout.owner], layout).ravel()
        stages = in_chunks(listed[layout.owner], layout).ravel()
        chosen, others = host_choices(table, length, fit.scores)
        flow = np.zeros(length.size)
        for place in range(layout.places):
            weight = (place < stages).astype(float)
            gradient = weight * others[place] - chosen[place] * flow
            flow = others[place] * (weight + flow)
            here = np.flatnonzero(place < length)
            found.append((layout.owner[here], table[place][here], gradient[here]))
    return found


def _raters(data: Comparisons | Rankings) -> tuple[np.ndarray, int]:
    if data.rater is None:
        raise InputError('data: expected raters to cluster by; got none (cluster="none" does so)')
    if len(data.raters) < 2:
        raise InputError(f"data: expected at least two raters; got {len(data.raters)}")
    return data.rater, len(data.raters)


def _same_items(fit: Fit, items: tuple[str, ...]) -> None:
    if tuple(items) != fit.items:
        raise InputError("data: expected the items that were fitted, in their order")


def _width(level: float) -> float:
    """Return how many standard errors the interval reaches to either side."""
    from jax.scipy.special import ndtri

    check_between("level", level, 0.0, 1.0, what="a level between 0 and 1", open_low=True)
    if level == 1.0:
        raise InputError("level: expected a level below 1; got 1")
    with float64():
        return float(ndtri(jax.numpy.asarray((1 + level) / 2)))


def _covariance(fit: Fit, covariance: Any) -> np.ndarray:
    if covariance is None:
        return fit.covariance()
    matrix, size = np.asarray(covariance, float), fit.num_items
    if matrix.shape != (size, size):
        raise InputError(f"covariance: expected shape {(size, size)}; got {matrix.shape}")
    return matrix


def score_intervals(
    fit: Fit, *, level: float = 0.95, covariance: Any = None
) -> dict[str, Interval]:
    """Return Wald intervals of the scores, in the gauge where they sum to zero, best first.

    Parameters
    ----------
    fit : FitResult or RankingFit
        The fit.
    level : float, in (0, 1)
        How often such intervals hold the true score.
    covariance : array_like, shape (items, items), optional
        In place of ``fit.covariance()``: a sandwich's, a bootstrap's.

    Raises
    ------
    InputError
        If the level is not between 0 and 1, or the covariance has another shape.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
    >>> round(score_intervals(fit)["a"].high, 6)
    0.979982
    """
    errors = np.sqrt(np.maximum(np.diagonal(_covariance(fit, covariance)), 0.0))
    width = _width(level)
    found = {}
    for name in fit.rank():
        k = fit.index(name)
        score, error = float(fit.scores[k]), float(errors[k])
        found[name] = Interval(score, score - width * error, score + width * error, error)
    return found


def margin_interval(
    fit: Fit, item_a: str, item_b: str, *, level: float = 0.95, covariance: Any = None
) -> Interval:
    """Return the Wald interval of s_a - s_b, which does not depend on the gauge.

    Parameters
    ----------
    fit : FitResult or RankingFit
        The fit.
    item_a, item_b : str
        Names of the two items.
    level : float, in (0, 1)
        How often such intervals hold the true margin.
    covariance : array_like, shape (items, items), optional
        In place of ``fit.covariance()``.

    Raises
    ------
    InputError
        For an unknown name, a bad level or a covariance of another shape.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
    >>> round(margin_interval(fit, "a", "b").standard_error, 12)
    1.0
    """
    matrix = _covariance(fit, covariance)
    a, b = fit.index(item_a), fit.index(item_b)
    error = float(np.sqrt(max(matrix[a, a] + matrix[b, b] - 2 * matrix[a, b], 0.0)))
    margin, reach = fit.margin(item_a, item_b), _width(level) * error
    return Interval(margin, margin - reach, margin + reach, error)


def probability_interval(
    fit: Fit, item_a: str, item_b: str, *, level: float = 0.95, covariance: Any = None
) -> Interval:
    """Return the interval of g(s_a - s_b): the margin's, mapped by the link, so inside (0, 1).

    Without the probability of a tie: of the comparisons that one of the two wins, for a link that
    takes half wins. Parameters as in :func:`margin_interval`.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
    >>> round(probability_interval(fit, "a", "b").low, 6)
    0.123471
    """
    margin = margin_interval(fit, item_a, item_b, level=level, covariance=covariance)
    low, middle, high = predict(fit.link, np.array([margin.low, margin.estimate, margin.high]))[0]
    return Interval(float(middle), float(low), float(high), margin.standard_error)


def rank_intervals(
    fit: Fit,
    *,
    key: jax.Array,
    level: float = 0.95,
    draws: int = 10_000,
    covariance: Any = None,
) -> dict[str, Interval]:
    """Return intervals of the ranks, 1 the best, from draws of the scores' normal approximation.

    Parameters
    ----------
    fit : FitResult or RankingFit
        The fit.
    key : PRNG key
        For the draws.
    level : float, in (0, 1)
        Share of the draws inside each interval, at least.
    draws : int
        How many draws; the ends have Monte Carlo noise of about one rank where ranks are close.
    covariance : array_like, shape (items, items), optional
        In place of ``fit.covariance()``.

    Returns
    -------
    dict from str to Interval
        Best first. `standard_error` is the standard deviation of the draws' ranks. An interval
        holds for one item at a time, not for all together.

    >>> import jax
    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 90], [10, 0]], items=("a", "b")))
    >>> rank_intervals(fit, key=jax.random.key(0))["a"][:3]
    (1.0, 1.0, 1.0)
    """
    _width(level)
    count = check_count("draws", draws)
    values, vectors = np.linalg.eigh(_covariance(fit, covariance))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    noise = generator(key).standard_normal((count, values.size))
    return intervals_of_ranks(fit, fit.scores + noise @ root.T, level)


def generator(key: jax.Array) -> np.random.Generator:
    """Return a NumPy generator seeded by a JAX key: what is drawn on the host comes from it."""
    data = jax.random.key_data(key) if jax.numpy.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.random.default_rng(np.asarray(data, np.uint32).ravel().tolist())


def ranks_of(scores: Float64[np.ndarray, "draws items"]) -> np.ndarray:
    """Return the rank of every item in every draw, 1 the best."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty(order.shape, np.int64)
    np.put_along_axis(ranks, order, np.arange(1, scores.shape[1] + 1)[None], axis=1)
    return ranks


def intervals_of_ranks(
    fit: Fit, scores: Float64[np.ndarray, "draws items"], level: float
) -> dict[str, Interval]:
    """Return the rank of each item with the range of its ranks among draws of scores."""
    ranks = ranks_of(scores)
    tail = 100 * (1 - level) / 2
    low = np.percentile(ranks, tail, axis=0, method="lower")
    high = np.percentile(ranks, 100 - tail, axis=0, method="higher")
    spread = ranks.std(axis=0)
    return {
        name: Interval(float(place), float(low[k]), float(high[k]), float(spread[k]))
        for place, name in enumerate(fit.rank(), start=1)
        for k in (fit.index(name),)
    }


def quasi_variances(fit: Fit, *, covariance: Any = None) -> Float64[np.ndarray, " items"]:
    r"""Return q such that q_a + q_b comes close to the variance of every margin s_a - s_b.

    With them anyone can compare any two items from one column of numbers [1]_. They minimise the
    sum over pairs of (log(q_a + q_b) - log V_ab)^2, V_ab the variance of the margin.

    Parameters
    ----------
    fit : FitResult or RankingFit
        Of at least three items.
    covariance : array_like, shape (items, items), optional
        In place of ``fit.covariance()``.

    Returns
    -------
    (items,) array
        nats^2, in the order of ``fit.items``. An item's may be negative when its margins are known
        better than half the others'; every sum of two is positive.

    Raises
    ------
    InputError
        With fewer than three items, or a covariance in which some margin has variance 0.

    References
    ----------
    .. [1] D. Firth and R. de Menezes, "Quasi-variances", Biometrika 91(1), 2004.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2, 2], [2, 0, 2], [2, 2, 0]]))
    >>> quasi_variances(fit).round(9).tolist()  # each margin has variance 2/3
    [0.333333333, 0.333333333, 0.333333333]
    """
    matrix = _covariance(fit, covariance)
    size = matrix.shape[0]
    if size < 3:
        raise InputError(f"fit: expected at least three items; got {size}")
    diagonal = np.diagonal(matrix)
    margins = diagonal[:, None] + diagonal[None, :] - 2 * matrix
    apart = ~np.eye(size, dtype=bool)
    if not (margins[apart] > 0).all():
        raise InputError("covariance: expected every margin to have a variance above 0")
    return _fit_quasi(np.where(apart, margins, 1.0), apart)


def _fit_quasi(margins: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Minimise the squared log ratios by damped Gauss-Newton."""
    size = margins.shape[0]
    total = np.where(apart, margins, 0.0).sum(axis=1)
    quasi = np.maximum(total / (size - 2) - total.sum() / (2 * (size - 1) * (size - 2)), 0.0)
    quasi += 1e-3 * margins[apart].mean()

    def residual(q: np.ndarray) -> np.ndarray:
        sums = np.where(apart, q[:, None] + q[None, :], 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(apart, np.log(sums / margins), 0.0)

    current = residual(quasi)
    for _ in range(200):
        weight = np.where(apart, 1 / (quasi[:, None] + quasi[None, :]), 0.0)
        normal = weight**2 + np.diag((weight**2).sum(axis=1))
        step = -np.linalg.solve(normal, (weight * current).sum(axis=1))
        length = 1.0
        while length > 1e-12:
            trial = residual(quasi + length * step)
            if np.isfinite(trial).all() and (trial**2).sum() <= (current**2).sum():
                break
            length /= 2
        else:
            break
        quasi, current = quasi + length * step, trial
        if np.abs(step).max() <= 1e-13 * np.abs(quasi).max():
            break
    return quasi
