"""Fit scores to pairwise comparisons by maximum likelihood, or with a Gaussian prior."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from .._checks import (
    ConvergenceError,
    DataError,
    DisconnectedComparisonsError,
    InputError,
    TiesError,
    check_between,
    check_count,
    check_option,
    check_positive,
)
from ..data.comparisons import Comparisons, PairCounts
from ..data.graph import describe_separation, strong_components, weak_components
from ..links import Link, logistic
from ._host import float64, item_bucket, pad, pair_bucket
from .likelihood import pair_terms
from .newton import CONVERGED, STALLED, NewtonResult, PairwiseProblem, maximise_likelihood
from .result import FitResult, Status

TIES = ("refuse", "half")


def fit_pairwise(
    comparisons: Comparisons,
    *,
    link: Link = logistic,
    ties: str = "refuse",
    ridge: float = 0.0,
    tolerance: float = 1e-10,
    max_steps: int = 200,
    throw: bool = True,
) -> FitResult:
    r"""Return the scores under which the comparisons are most likely.

    .. math:: \max_s \sum_{(a,b)} w_{ab} \log g(s_a - s_b) + w_{ba} \log g(s_b - s_a)
              - \frac{\rho}{2} \sum_i s_i^2 , \qquad \sum_i s_i = 0

    With the logistic link this is the Bradley-Terry model (section 2.3). Computed in float64
    whatever JAX's default is, by damped Newton (see :mod:`jaxpref.fit.newton`).

    Parameters
    ----------
    comparisons : Comparisons
        At least two items; every item compared at least once, unless there is a ridge.
    link : Link
        Symmetric, with a concave log-probability: logistic, probit or laplace, or a user's own.
    ties : {"refuse", "half"}
        "refuse" raises if there are any; "half" counts a tie as half a win for both.
    ridge : float, >= 0
        The strength rho of a Gaussian prior of variance 1/rho on every score. Above 0 the fit
        always exists, also across islands and for items that never lost.
    tolerance : float, > 0
        Stop when a Newton step moves no score by more than this (relative to the largest score
        where that exceeds 1).
    max_steps : int, >= 1
        Newton steps to take at most.
    throw : bool
        Raise if the search does not converge; otherwise return what there is, with its `status`.

    Returns
    -------
    FitResult
        Scores that sum to zero, with status, uncertainty and predictions by name.

    Raises
    ------
    TiesError
        There are ties and `ties` is "refuse".
    DisconnectedComparisonsError
        Without a ridge, when the "was beaten by" graph is not strongly connected: the maximum
        does not exist (Ford 1957). The message names the components and the remedies.
    DataError
        Fewer than two items, or no comparisons at all.
    ConvergenceError
        The search ended early and `throw` is true.

    Notes
    -----
    Errors of centred scores are about 1e-10 even on chains of hundreds of items with counts of a
    million to one. One dense (items, items) factorisation a step; arrays are padded to a few
    sizes, so that a second data set of about the same size does not compile again.

    References
    ----------
    L. R. Ford, "Solution of a ranking problem from binary comparisons", American Mathematical
    Monthly 64(8), 1957: when the maximum exists.

    Examples
    --------
    >>> from jaxpref.data import Comparisons
    >>> counts = [[0, 3, 2], [1, 0, 3], [1, 1, 0]]  # wins of the row over the column
    >>> fit = fit_pairwise(Comparisons.from_counts(counts, items=("x", "y", "z")))
    >>> fit.rank(), fit.status
    (('x', 'y', 'z'), 'converged')
    """
    _check_options(link, ties, ridge, tolerance, max_steps)
    comparisons = _settle_ties(comparisons, ties)
    pairs = _observed(comparisons)
    if ridge == 0:
        problem = describe_separation(comparisons)
        if problem is not None:
            raise DisconnectedComparisonsError(problem)
    found = _solve(pairs, comparisons.num_items, link, ridge, tolerance, max_steps)
    fit = _as_result(comparisons, pairs, found, link=link, ties=ties, ridge=ridge)
    if throw and fit.status != "converged":
        raise ConvergenceError(_not_converged(fit, tolerance))
    return fit


def _check_options(link: Link, ties: str, ridge: float, tolerance: float, max_steps: int) -> None:
    if not isinstance(link, Link):
        raise InputError(f"link: expected a jaxpref Link; got {link!r}")
    check_option("ties", ties, TIES)
    check_between("ridge", ridge, 0.0, np.finfo(float).max, what="a finite number of at least 0")
    check_positive("tolerance", tolerance)
    check_count("max_steps", max_steps)
    if link.name != "logistic":
        _check_concave(link)


def _check_concave(link: Link) -> None:
    """Refuse a link for which the maximum need not be unique, or that prefers a side."""
    if not link.symmetric:
        raise InputError(
            f"link: expected a symmetric link; got {link.name}, for which "
            "who is named first would change the fit"
        )
    with float64():
        margin = jnp.linspace(-30.0, 30.0, 601)
        one, zero = jnp.ones_like(margin), jnp.zeros_like(margin)
        curvature = np.asarray(pair_terms(link, margin, one, zero).curvature)
    if not np.all(curvature >= -1e-9):
        raise InputError(
            f"link: expected a link with a concave log-probability, such as logistic, probit or "
            f"laplace; got {link.name}, whose likelihood can have several maxima"
        )


def _settle_ties(comparisons: Comparisons, ties: str) -> Comparisons:
    """Return the comparisons without ties, as the caller wants them dealt with."""
    if comparisons.num_ties == 0:
        return comparisons
    if ties == "half":
        return comparisons.with_ties_as_half_wins()
    raise TiesError(
        f"comparisons: {comparisons.num_ties:g} of the comparisons are ties, and what a tie means "
        'is yours to say: pass ties="half" (--ties half) to count each as half a win for both '
        "items, or drop them"
    )


def _observed(comparisons: Comparisons) -> PairCounts:
    """Return the counts of the pairs that were compared, after checking that there are some."""
    if comparisons.num_items < 2:
        raise DataError(f"comparisons: expected at least two items; got {comparisons.num_items}")
    pairs = comparisons.pairs()
    keep = pairs.wins_a + pairs.wins_b > 0
    if not keep.any():
        raise DataError("comparisons: expected at least one comparison; every count is zero")
    return PairCounts(*(np.asarray(column)[keep] for column in pairs))


def _solve(
    pairs: PairCounts, num_items: int, link: Link, ridge: float, tolerance: float, max_steps: int
) -> NewtonResult:
    """Pad the problem to sizes that repeat and run the compiled solver in 64 bits."""
    size, items = pair_bucket(len(pairs.item_a)), item_bucket(num_items)
    with float64():
        problem = PairwiseProblem(
            item_a=jnp.asarray(pad(pairs.item_a.astype(np.int32), size)),
            item_b=jnp.asarray(pad(pairs.item_b.astype(np.int32), size)),
            wins_a=jnp.asarray(pad(pairs.wins_a.astype(np.float64), size)),
            wins_b=jnp.asarray(pad(pairs.wins_b.astype(np.float64), size)),
            present=jnp.asarray(np.arange(items) < num_items),
            ridge=jnp.asarray(ridge, jnp.float64),
        )
        limits = jnp.asarray(tolerance, jnp.float64), jnp.asarray(max_steps, jnp.int32)
        return maximise_likelihood(problem, link, *limits)


def _as_result(
    comparisons: Comparisons,
    pairs: PairCounts,
    found: NewtonResult,
    *,
    link: Link,
    ties: str,
    ridge: float,
) -> FitResult:
    outcomes: dict[int, Status] = {CONVERGED: "converged", STALLED: "stalled"}
    scores = np.asarray(found.scores)[: comparisons.num_items]
    return FitResult(
        items=tuple(comparisons.items),
        scores=scores - scores.mean(),
        link=link,
        ridge=float(ridge),
        ties=ties,
        status=outcomes.get(int(found.outcome), "max_steps"),
        gradient_norm=float(found.gradient_norm),
        step_size=float(found.step_size),
        steps=int(found.steps),
        log_likelihood=float(found.log_likelihood),
        pairs=pairs,
        components=strong_components(comparisons),
        islands=weak_components(comparisons),
    )


def _not_converged(fit: FitResult, tolerance: float) -> str:
    reason = (
        "ran out of steps" if fit.status == "max_steps" else "found no direction that still climbs"
    )
    return (
        f"fit_pairwise {reason} after {fit.steps}: the last step moved a score by "
        f"{fit.step_size:.3g} (tolerance {tolerance:g}) and the largest gradient is "
        f"{fit.gradient_norm:.3g} comparisons. Raise max_steps, or add a prior with ridge=...; "
        "throw=False returns the unfinished fit"
    )
