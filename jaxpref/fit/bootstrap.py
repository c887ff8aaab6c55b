"""The bootstrap: fits to data drawn again, and intervals from their percentiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from .._checks import InputError, check_between, check_count, check_option
from ..data.comparisons import Comparisons
from ..data.rankings import Rankings
from ..links import Link, logistic
from ._host import float64, generator, item_bucket
from .bootstrap_draws import draw_rankings, draw_wins
from .bootstrap_effects import Batch, design_fits
from .inexact import refit_matrix
from .intervals import PAIR_TIES, Interval, intervals_of_ranks, tie_of
from .joint import Fit, JointCovariance
from .likelihood import predict
from .newton import CONVERGED
from .rankings import split
from .rankings_newton import Setting, maximise_rankings
from .rankings_problems import PairProblem
from .rankings_result import RankingFit
from .rankings_setup import prepare
from .result import ORDERS, SIDES, FitResult, Order

METHODS = ("nonparametric", "parametric", "rater", "weights", "rater_weights")
MOST_ITEMS = 1024
_BATCH_ENTRIES = 60_000
_QUICK_TOLERANCE = 1e-9
TOLERANCE = 2e-5
"""Nats. The last Newton step is still taken, so what is left is of the order of its square."""


class BootstrapResult(eqx.Module):
    """Scores fitted to resampled data.

    Attributes
    ----------
    fit : FitResult or RankingFit
        The fit to the data themselves.
    method : str
        How the data were drawn again.
    scores : (finished, items)
        Centred scores of the resamples that have a fit, in nats, in the order of ``fit.items``.
    effects : (finished, effects)
        Their coefficients, in the order of ``fit.effects``.
    resamples : int
        How many were drawn.
    separable : int
        How many of those have no maximum likelihood fit: some items lost, or won, everything they
        still took part in. Intervals leave them out, and so are too narrow when they are many.
    unfinished : int
        How many searches did not converge; left out too.
    """

    fit: Fit
    method: str = eqx.field(static=True)
    scores: Float64[np.ndarray, "finished items"]
    effects: Float64[np.ndarray, "finished effects"]
    resamples: int
    separable: int
    unfinished: int

    def covariance(self) -> Float64[np.ndarray, "items items"]:
        """Return the covariance of the scores over resamples, nats^2; it needs two that finished.

        Raises
        ------
        InputError
            With fewer than two resamples that have a fit.
        """
        self._require(2)
        return np.atleast_2d(np.cov(self.scores, rowvar=False))

    def joint_covariance(self) -> JointCovariance:
        """Return the covariances of scores and coefficients over resamples, nats^2."""
        self._require(2)
        size = self.scores.shape[1]
        whole = np.cov(np.concatenate([self.scores, self.effects], axis=1), rowvar=False)
        return JointCovariance(whole[:size, :size], whole[:size, size:], whole[size:, size:])

    def standard_errors(self) -> Float64[np.ndarray, " items"]:
        """Return the standard deviation of each score over resamples, nats."""
        self._require(2)
        return self.scores.std(axis=0, ddof=1)

    def score_intervals(self, *, level: float = 0.95) -> dict[str, Interval]:
        """Return percentile intervals of the centred scores, best first."""
        errors = self.standard_errors()
        low, high = self._percentiles(self.scores, level)
        return {
            name: Interval(
                float(self.fit.scores[k]), float(low[k]), float(high[k]), float(errors[k])
            )
            for name in self.fit.rank()
            for k in (self.fit.index(name),)
        }

    def margin_interval(self, item_a: str, item_b: str, *, level: float = 0.95) -> Interval:
        """Return the percentile interval of s_a - s_b."""
        self._require(2)
        draws = self.scores[:, self.fit.index(item_a)] - self.scores[:, self.fit.index(item_b)]
        low, high = self._percentiles(draws, level)
        margin = self.fit.margin(item_a, item_b)
        return Interval(margin, float(low), float(high), float(draws.std(ddof=1)))

    def probability_interval(
        self, item_a: str, item_b: str, *, level: float = 0.95, order: Order = "neutral"
    ) -> Interval:
        """Return the percentile interval of the probability that `item_a` wins.

        Where ties are modelled, a tie is not a win. The standard error is that of what
        :func:`jaxpref.fit.probability_interval` is symmetric in: the margin, or the log odds.
        """
        self._require(2)
        model, tie = tie_of(self.fit)
        side = SIDES[check_option("order", order, ORDERS)]
        names = [effect.name for effect in self.fit.effects]
        ties = next((self.effects[:, k] for k, n in enumerate(names) if n in PAIR_TIES), 0.0)
        orders = [k for k, e in enumerate(self.fit.effects) if e.kind == "order"]
        shift = sum(self.fit.effects[k].estimate for k in orders) * side
        margin = self.fit.margin(item_a, item_b) + shift
        draws = self.scores[:, self.fit.index(item_a)] - self.scores[:, self.fit.index(item_b)]
        draws = draws + side * self.effects[:, orders].sum(axis=1)
        at = _certainty(self.fit, model, np.array([margin]), tie)
        draws = _certainty(self.fit, model, draws, ties)
        low, high = self._percentiles(draws, level)
        link = self.fit.link if model is None else logistic
        ends = predict(link, np.array([at[0], low, high])).probability
        estimate, lower, upper = (float(end) for end in ends)
        return Interval(estimate, lower, upper, float(draws.std(ddof=1)))

    def effect_intervals(self, *, level: float = 0.95) -> dict[str, Interval]:
        """Return percentile intervals of the coefficients besides the scores."""
        if not self.fit.effects:
            return {}
        low, high = self._percentiles(self.effects, level)
        errors = self.effects.std(axis=0, ddof=1)
        return {
            effect.name: Interval(effect.estimate, float(low[k]), float(high[k]), float(errors[k]))
            for k, effect in enumerate(self.fit.effects)
        }

    def rank_intervals(self, *, level: float = 0.95) -> dict[str, Interval]:
        """Return percentile intervals of the ranks, 1 the best, best first."""
        self._require(2)
        check_between("level", level, 0.0, 1.0, what="a level between 0 and 1", open_low=True)
        return intervals_of_ranks(self.fit, self.scores, level)

    def _require(self, count: int) -> None:
        if len(self.scores) < count:
            raise InputError(
                f"bootstrap: expected at least {count} resamples that have a fit; of "
                f"{self.resamples}, {self.separable} are separable (an item won, or lost, all that "
                f"was drawn of it) and {self.unfinished} did not converge. Drawing weights leaves "
                'no comparison out: method="weights" (--intervals weights); or add a prior, '
                "ridge=0.1 (--ridge 0.1)"
            )

    def _percentiles(self, draws: np.ndarray, level: float) -> tuple[Any, Any]:
        check_between("level", level, 0.0, 1.0, what="a level between 0 and 1", open_low=True)
        self._require(2)
        tail = 100 * (1 - level) / 2
        low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
        return low, high


def bootstrap(
    fit: Fit,
    data: Comparisons | Rankings | None = None,
    *,
    key: jax.Array | np.random.Generator,
    resamples: int = 100,
    method: str = "nonparametric",
    ridge: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BootstrapResult:
    """Fit again and again to data drawn from the data, or from the fit.

    Parameters
    ----------
    fit : FitResult or RankingFit
        The fit. Searches start from its scores.
    data : Comparisons or Rankings, optional
        What was fitted. Needed only for raters of comparisons; and with ties that count as
        half wins, which are then drawn as ties rather than as two half wins. Covariates are found
        as in :func:`jaxpref.fit.sandwich_covariance`.
    key : PRNG key or numpy Generator
        For the draws: the same key gives the same resamples.
    resamples : int
        How many data sets to draw.
    method : {"nonparametric", "parametric", "rater"}
        "nonparametric" draws as many comparisons (rankings) as there are, with replacement: a
        multinomial on the counts. "parametric" draws outcomes from the fit, pair by pair (ranking
        by ranking). "rater" draws raters with replacement, each with all they said. "weights" and
        "rater_weights" give every comparison, or rater, an exponential weight instead [1]_: nothing
        is left out, so that every resample has a fit if the data have. For sparse data, in which
        some items owe their finite score to a single win.
    ridge : float, optional
        Prior of the fits to resamples; that of `fit` when left out. Above 0 every resample has a
        fit, and none is separable.
    progress : callable, optional
        Called with how many are done, and how many there are.

    Returns
    -------
    BootstrapResult
        With percentile intervals of scores, margins, probabilities and ranks, and the number of
        resamples that have no fit.

    Raises
    ------
    InputError
        For raters that are not known, other items than were fitted, weights that are no numbers of
        rankings with method="parametric", or tie parameters with it.

    Notes
    -----
    Weights count as frequencies: the number drawn is their sum, rounded. Draws are made on the
    host; fits of scores alone, of up to 1,024 items, run in batches of one compiled program; those
    with ties modelled, an order effect or covariates one after the other.

    References
    ----------
    .. [1] L. Xu, C. Gotwalt, Y. Hong, C. King and W. Meeker, "Applications of the
       fractional-random-weight bootstrap", The American Statistician 74(4), 2020; D. Rubin, "The
       Bayesian bootstrap", Annals of Statistics 9(1), 1981.

    B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1), 1979.

    Examples
    --------
    >>> import jax
    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 300], [100, 0]], items=("a", "b")))
    >>> again = bootstrap(fit, key=jax.random.key(0), resamples=200)
    >>> low, high = again.margin_interval("a", "b")[1:3]  # log 3 -+ 1.96 * 0.115
    >>> 0.75 < low < 0.95, 1.25 < high < 1.45
    (True, True)
    """
    check_option("method", method, METHODS)
    count = check_count("resamples", resamples)
    strength = _strength(fit, ridge)
    random = generator(key)
    if isinstance(fit, FitResult) and not fit.plain:
        fits = design_fits(fit, data, random, count, method, strength, TOLERANCE)
    elif isinstance(fit, RankingFit):
        fits = _ranking_fits(fit, data, random, count, method, strength)
    else:
        fits = _pair_fits(fit, data, random, count, method, strength)
    found: list[Batch] = []
    done = 0
    for batch in fits:
        found.append(batch)
        done += len(batch.scores) + batch.separable + batch.unfinished
        if progress is not None:
            progress(done, count)
    scores = np.concatenate([batch.scores for batch in found])
    effects = np.concatenate([batch.effects for batch in found])
    centred = scores - scores.mean(axis=1, keepdims=True)
    lost = sum(batch.separable for batch in found), sum(batch.unfinished for batch in found)
    return BootstrapResult(fit, method, centred, effects, count, *lost)


def _strength(fit: Fit, ridge: float | None) -> float:
    """Return the strength of the prior of the fits to resamples."""
    if ridge is None:
        return fit.ridge
    check_between("ridge", ridge, 0.0, np.finfo(float).max, what="a finite number of at least 0")
    if np.isinf(fit.ridge):
        raise InputError(
            "ridge: expected none for a fit without deviations from its item covariates; got "
            f"{ridge:g}"
        )
    return ridge


def _certainty(fit: Fit, model: str | None, margin: np.ndarray, tie: Any) -> np.ndarray:
    """Return the margins, or with a tie model the log odds of a win."""
    if model is None:
        return margin
    if model == "davidson":
        return -np.logaddexp(-margin, tie - margin / 2)
    chances = predict(fit.link, margin - tie)
    return np.log(chances.probability) - np.log(chances.opposite)


def _pair_fits(
    fit: FitResult, data: Any, random: np.random.Generator, count: int, method: str, ridge: float
) -> Iterator[Batch]:
    """Yield scores of a batch of resamples, and how many had no fit or did not converge."""
    size = fit.num_items
    if size > MOST_ITEMS:
        raise InputError(f"fit: expected at most {MOST_ITEMS:,} items to bootstrap; got {size:,}")
    most = max(1, min(count, _BATCH_ENTRIES // item_bucket(size) ** 2))
    draws = draw_wins(fit, data, random, count, method)
    spine = spanning_wins(fit)
    for first in range(0, count, most):
        this = min(most, count - first)
        kept = [
            drawn
            for drawn in (next(draws) for _ in range(this))
            if ridge > 0 or (drawn[spine] > 0).all() or connected(drawn)
        ]
        scores = _refit(kept, fit, ridge, most)
        yield Batch(scores, np.zeros((len(scores), 0)), this - len(kept), len(kept) - len(scores))


def _refit(
    drawn: list[np.ndarray], fit: FitResult, ridge: float, most: int
) -> Float64[np.ndarray, "finished items"]:
    """Return the scores of those resamples whose search converged.

    Plain Bradley-Terry resamples are fitted one by one without compiling anything; what that will
    not take goes through a compiled batch of `most`.
    """
    size = fit.num_items
    found: list[np.ndarray | None] = [None] * len(drawn)
    if fit.link.name == "logistic" and ridge == 0:
        limits = {"tolerance": _QUICK_TOLERANCE, "max_steps": 25}
        found = [refit_matrix(wins, fit.scores, **limits) for wins in drawn]
    left = [k for k, scores in enumerate(found) if scores is None]
    if left:
        padded = item_bucket(size)
        wins = np.zeros((most, padded, padded))
        wins[:, :size, :size] = drawn[left[0]]  # repeats, to keep the batch's shape
        wins[: len(left), :size, :size] = [drawn[k] for k in left]
        scores, outcome = _fit_batch(wins, fit, ridge)
        for k, row, ended in zip(left, scores, outcome, strict=False):
            found[k] = row[:size] if ended == CONVERGED else None
    return np.array([scores for scores in found if scores is not None]).reshape(-1, size)


def connected(wins: np.ndarray) -> bool:
    """Whether every item can be reached from every other along wins."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    graph: Any = csr_array(wins > 0)
    return connected_components(graph, connection="strong", return_labels=False) == 1


def spanning_wins(fit: FitResult) -> tuple[np.ndarray, np.ndarray]:
    """Return winners and losers of frequent wins that suffice to connect all items.

    A tree of wins down from the first item to every other, and one back up, grown by the largest
    count each time: a resample that holds them all needs no search.
    """
    pairs, size = fit.pairs, fit.num_items
    wins = np.zeros((size, size))
    wins[pairs.item_a, pairs.item_b], wins[pairs.item_b, pairs.item_a] = pairs.wins_a, pairs.wins_b
    winners, losers = [], []
    for direction in (wins, wins.T):
        best, parent = direction[0].copy(), np.zeros(size, np.int64)
        reached = np.zeros(size, bool)
        reached[0] = True
        for _ in range(size - 1):
            k = int(np.argmax(np.where(reached, -1.0, best)))
            ends = (parent[k], k) if direction is wins else (k, parent[k])
            winners.append(ends[0])
            losers.append(ends[1])
            reached[k] = True
            better = direction[k] > best
            best, parent = np.where(better, direction[k], best), np.where(better, k, parent)
    return np.array(winners), np.array(losers)


def _fit_batch(wins: np.ndarray, fit: FitResult, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit a batch of win matrices from the scores of the fit."""
    start = np.zeros(wins.shape[1])
    start[: fit.num_items] = fit.scores
    with float64():
        item = jnp.asarray(np.arange(start.size) < fit.num_items)
        limits = jnp.asarray(TOLERANCE, jnp.float64), jnp.asarray(100, jnp.int32)
        setting = Setting(item, item, jnp.asarray(ridge, jnp.float64), *limits)
        scores, outcome = _fit_matrices(jnp.asarray(wins), fit.link, jnp.asarray(start), setting)
        return np.asarray(scores), np.asarray(outcome)


@eqx.filter_jit
def _fit_matrices(
    wins: Float64[Array, "batch items items"],
    link: Link,
    start: Float64[Array, " items"],
    setting: Setting,
) -> tuple[Array, Array]:
    def one(matrix: Float64[Array, "items items"]) -> tuple[Array, Array]:
        problem = PairProblem(matrix, link)
        found = maximise_rankings(problem, start, setting, dense=True, verify=False)
        return found.parameters, found.outcome

    return jax.vmap(one)(wins)


def _ranking_fits(
    fit: RankingFit, data: Any, random: np.random.Generator, count: int, method: str, ridge: float
) -> Iterator[Batch]:
    """Yield the scores of one resample at a time."""
    rankings = fit.rankings if data is None else data
    if not isinstance(rankings, Rankings) or tuple(rankings.items) != fit.items:
        raise InputError("data: expected the Rankings that were fitted, or nothing")
    nothing = np.zeros((0, fit.num_items)), np.zeros((0, len(fit.tie_orders)))
    for drawn in draw_rankings(fit, rankings, random, count, method):
        if ridge == 0 and not _ranked_throughout(drawn, fit):
            yield Batch(*nothing, 1, 0)
            continue
        with float64():
            ready = prepare(drawn, drawn.weight, tied=bool(fit.tie_orders))
            start = np.zeros(ready.start.size)
            start[: fit.num_items] = fit.scores
            found = ready.maximise(start, ready.setting(ridge, TOLERANCE, 100))
            scores, ties = split(ready, np.asarray(found.parameters))
        if int(found.outcome) == CONVERGED:
            yield Batch(scores[None], ties[None], 0, 0)
        else:
            yield Batch(*nothing, 0, 1)


def _ranked_throughout(rankings: Rankings, fit: RankingFit) -> bool:
    """Whether a resample has a fit: strongly connected, with all sizes of ties it needs."""
    if tuple(int(k) for k in rankings.tie_sizes()) != fit.tie_orders:
        return False
    near = rankings.adjacent().with_ties_as_half_wins()
    return connected(near.counts_matrix())
