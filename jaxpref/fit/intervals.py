"""Intervals: of scores, margins, probabilities, ranks, and the coefficients besides scores."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float64

from .._checks import InputError, check_between, check_count, check_option
from ..links import logistic
from ._host import generator
from .joint import Fit, joint_of, score_covariance
from .likelihood import predict
from .outcomes import TIE_MODELS, Cells, cell_terms, outcome_probabilities
from .rankings_result import RankingFit
from .result import ORDERS, SIDES, Order


class Interval(NamedTuple):
    """An estimate with the ends of its interval, low <= high.

    `standard_error` is on the scale on which the interval is symmetric: nats for scores and
    margins, and for probabilities the margin's.
    """

    estimate: float
    low: float
    high: float
    standard_error: float


def _width(level: float) -> float:
    """Return how many standard errors the interval reaches to either side."""
    check_between("level", level, 0.0, 1.0, what="a level between 0 and 1", open_low=True)
    if level == 1.0:
        raise InputError("level: expected a level below 1; got 1")
    return NormalDist().inv_cdf((1 + level) / 2)


PAIR_TIES = ("tie", "tie of 2")
"""Names of the coefficient that says how likely two items tie."""


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
    covariance : array_like, shape (items, items), or JointCovariance, optional
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
    errors = np.sqrt(np.maximum(np.diagonal(score_covariance(fit, covariance)), 0.0))
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
    covariance : array_like, shape (items, items), or JointCovariance, optional
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
    matrix = score_covariance(fit, covariance)
    a, b = fit.index(item_a), fit.index(item_b)
    error = float(np.sqrt(max(matrix[a, a] + matrix[b, b] - 2 * matrix[a, b], 0.0)))
    margin, reach = fit.margin(item_a, item_b), _width(level) * error
    return Interval(margin, margin - reach, margin + reach, error)


def probability_interval(
    fit: Fit,
    item_a: str,
    item_b: str,
    *,
    level: float = 0.95,
    covariance: Any = None,
    order: Order = "neutral",
) -> Interval:
    r"""Return the interval of the probability that `item_a` wins, inside (0, 1).

    Without a tie model it is the margin's interval (with the order effect, where `order` asks for
    it), mapped by the link. With one, a tie is not a win, and the interval is symmetric in the log
    odds of a win, whose standard error comes from those of margin and tie parameter (the delta
    method). Parameters as in :func:`margin_interval`, besides:

    Parameters
    ----------
    fit, item_a, item_b, level
        As in :func:`margin_interval`.
    covariance : array_like or JointCovariance, optional
        In place of the fit's own; where a tie parameter or the order effect takes part, a
        JointCovariance, which knows how they vary with the scores.
    order : {"neutral", "first", "second"}
        Whether `item_a` is shown first, for a fit with an order effect.

    Raises
    ------
    InputError
        For an unknown name, a bad level or option, or a covariance of another shape or kind.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
    >>> round(probability_interval(fit, "a", "b").low, 6)
    0.123471
    """
    side = SIDES[check_option("order", order, ORDERS)]
    model, tie = tie_of(fit)
    shift = sum((e.estimate for e in fit.effects if e.kind == "order"), 0.0) * side
    margin = fit.margin(item_a, item_b) + shift
    slope = _slope(fit, model, margin, tie)
    towards = np.array([
        slope.margin * side if kind == "order" else slope.tie * (name in PAIR_TIES)
        for name, kind, *_ in fit.effects
    ])  # fmt: skip
    a, b = fit.index(item_a), fit.index(item_b)
    if towards.any():
        joint = joint_of(fit, covariance)
        matrix, extra = joint.scores, float(towards @ joint.effects @ towards)
        extra += 2 * slope.margin * float((joint.cross[a] - joint.cross[b]) @ towards)
    else:
        matrix, extra = score_covariance(fit, covariance), 0.0
    apart = matrix[a, a] + matrix[b, b] - 2 * matrix[a, b]
    error = float(np.sqrt(max(slope.margin**2 * float(apart) + extra, 0.0)))
    reach = _width(level) * error
    ends = np.array([slope.at - reach, slope.at, slope.at + reach])
    low, middle, high = predict(logistic if model else fit.link, ends).probability
    return Interval(float(middle), float(low), float(high), error)


class _Slope(NamedTuple):
    """What an interval is symmetric in, and its derivatives by margin and tie parameter."""

    at: float
    margin: float
    tie: float


def _slope(fit: Fit, model: str | None, margin: float, tie: float) -> _Slope:
    """Return the margin itself, or with a tie model the log odds of a win."""
    if model is None:
        return _Slope(margin, 1.0, 0.0)
    at, one = np.array([margin]), np.ones(1)
    terms = cell_terms(fit.link, model, at, tie, Cells(one, 0 * one, 0 * one))
    chances = outcome_probabilities(fit.link, model, at, tie)
    rest = float(chances.loss[0] + chances.tie[0])
    odds = float(terms.log_likelihood[0]) - math.log(rest)
    return _Slope(odds, float(terms.gradient[0]) / rest, float(terms.by_tie[0]) / rest)


def tie_of(fit: Fit) -> tuple[str | None, float]:
    """Return the model of ties between two items, and its parameter; None and 0 without one."""
    if isinstance(fit, RankingFit):
        if 2 not in fit.tie_orders:
            return None, 0.0
        return "davidson", float(fit.log_tie_parameters[fit.tie_orders.index(2)])
    if fit.ties not in TIE_MODELS:
        return None, 0.0
    return fit.ties, fit.effect("tie").estimate


def effect_intervals(
    fit: Fit, *, level: float = 0.95, covariance: Any = None
) -> dict[str, Interval]:
    """Return Wald intervals of the coefficients besides the scores: ties, order, covariates.

    Parameters
    ----------
    fit : FitResult or RankingFit
        The fit.
    level : float, in (0, 1)
        How often such intervals hold the true coefficient.
    covariance : JointCovariance, optional
        In place of the coefficients' own standard errors: a sandwich's, a bootstrap's.

    Raises
    ------
    InputError
        If the level is not between 0 and 1, or the covariance knows nothing of the coefficients.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> one, two = np.array([0]), np.array([1])
    >>> votes = Comparisons(("a", "b"), one, two, 2.0 + one, 1.0 + one, 1.0 + one)
    >>> found = effect_intervals(fit_pairwise(votes, ties="davidson"))["tie"]
    >>> round(found.estimate, 4), round(found.standard_error, 4)  # log(1/sqrt(2))
    (-0.3466, 1.1726)
    """
    width = _width(level)
    errors = [effect.standard_error for effect in fit.effects]
    if covariance is not None and errors:
        errors = np.sqrt(np.maximum(np.diagonal(joint_of(fit, covariance).effects), 0.0))
    return {
        name: Interval(at, at - width * float(error), at + width * float(error), float(error))
        for (name, _, at, _), error in zip(fit.effects, errors, strict=True)
    }


def rank_intervals(
    fit: Fit,
    *,
    key: jax.Array | np.random.Generator,
    level: float = 0.95,
    draws: int = 10_000,
    covariance: Any = None,
) -> dict[str, Interval]:
    """Return intervals of the ranks, 1 the best, from draws of the scores' normal approximation.

    Parameters
    ----------
    fit : FitResult or RankingFit
        The fit.
    key : PRNG key or numpy Generator
        For the draws.
    level : float, in (0, 1)
        Share of the draws inside each interval, at least.
    draws : int
        How many draws; the ends have Monte Carlo noise of about one rank where ranks are close.
    covariance : array_like, shape (items, items), or JointCovariance, optional
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
    root = _root(score_covariance(fit, covariance))
    noise = generator(key).standard_normal((count, len(root)))
    return intervals_of_ranks(fit, fit.scores + noise @ root.T, level)


def _root(covariance: Float64[np.ndarray, "items items"]) -> Float64[np.ndarray, "items items"]:
    """Return R with R R^T the covariance, but for a shift of all scores alike."""
    try:
        return np.linalg.cholesky(covariance + np.mean(np.diagonal(covariance)))
    except np.linalg.LinAlgError:  # a sandwich of fewer clusters than items
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(np.maximum(values, 0.0))


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
