"""Fit Plackett-Luce scores to rankings by maximum likelihood, or with a Gaussian prior."""

from __future__ import annotations

import numpy as np

from .._checks import (
    DataError,
    DisconnectedComparisonsError,
    InputError,
    TiesError,
    check_option,
)
from ..data.graph import Components, describe_separation, strong_components, weak_components
from ..data.rankings import Rankings, group_starts, rank_count
from ._host import float64
from ._limits import check_limits, check_ridge, check_two_items, require_converged
from .base import Status
from .newton import CONVERGED, STALLED
from .rankings_result import RankingFit
from .rankings_setup import Prepared, prepare

RANKING_TIES = ("refuse", "davidson_luce")


def fit_rankings(
    rankings: Rankings,
    *,
    ties: str = "refuse",
    ridge: float = 0.0,
    tolerance: float = 1e-10,
    max_steps: int = 200,
    throw: bool = True,
) -> RankingFit:
    r"""Return the Plackett-Luce scores under which the rankings are most likely.

    .. math:: \max_s \sum_r w_r \sum_t \Big( s_{rt} - \log \sum_{i \ge t} e^{s_{ri}} \Big)
              - \frac{\rho}{2} \sum_i s_i^2 , \qquad \sum_i s_i = 0

    (Eq. 6), where t runs over the places of ranking r, best first. Computed in float64 whatever
    JAX's default is, by Newton's method.

    Parameters
    ----------
    rankings : Rankings
        At least two items; full, partial, or top-k lists.
    ties : {"refuse", "davidson_luce"}
        "refuse" raises if a ranking holds ties. "davidson_luce" estimates how likely they are: a
        group C is chosen from the items left with probability proportional to delta_|C| times the
        geometric mean of its strengths, with a parameter delta_k for every size k that occurs and
        delta_1 = 1 [1]_. For two items it is the Davidson model.
    ridge : float, >= 0
        The strength rho of a Gaussian prior of variance 1/rho on every score (not on tie
        parameters). Above 0 the scores are always finite.
    tolerance : float, > 0
        Stop when a Newton step moves no parameter by more than this (relative to the largest where
        that exceeds 1).
    max_steps : int, >= 1
        Newton steps to take at most.
    throw : bool
        Raise if the search does not converge; otherwise return what there is, with its `status`.

    Returns
    -------
    RankingFit
        Scores that sum to zero, with status, uncertainty and predictions by name.

    Raises
    ------
    TiesError
        There are ties and `ties` is "refuse".
    DisconnectedComparisonsError
        Without a ridge, when the graph "stood below" is not strongly connected: the maximum does
        not exist (Ford 1957, Hunter 2004). The message names the components and the remedies.
    DataError
        Fewer than two items, no ranking with weight, or sizes of ties whose parameter would be
        infinite.
    ConvergenceError
        The search ended early and `throw` is true.

    Notes
    -----
    Up to 12 items the distinct choice sets are counted first, and the number of rankings hardly
    matters. Beyond, each step passes over all entries a few times; the Hessian is factored where
    it is cheap to build, otherwise solved with by conjugate gradients. ``unlisted="last"`` costs
    the number of rankings times that of all items. With ties, strong connection is necessary but
    not quite sufficient for a maximum: a search that runs off to infinity ends in ConvergenceError.

    Thurstone-type rankings (normal utilities) are out of scope: their probabilities are integrals
    over as many dimensions as the ranking has items. ``rankings.comparisons()`` with
    ``fit_pairwise(..., link=probit)`` is the pairwise approximation.

    References
    ----------
    .. [1] H. Turner, J. van Etten, D. Firth and I. Kosmidis, "Modelling rankings in R: the
       PlackettLuce package", Computational Statistics 35, 2020: the model with ties.

    D. Hunter, "MM algorithms for generalized Bradley-Terry models", Annals of Statistics 32(1),
    2004: when the maximum exists.

    Examples
    --------
    >>> from jaxpref.data import Rankings
    >>> votes = [["tea", "milk", "water"], ["milk", "tea", "water"], ["water", "tea"]]
    >>> fit = fit_rankings(Rankings.from_lists(votes))
    >>> fit.rank(), fit.status
    (('milk', 'tea', 'water'), 'converged')
    """
    _check_options(rankings, ties, ridge, tolerance, max_steps)
    tied = _settle_ties(rankings, ties)
    components, islands = _connection(rankings, ridge)
    if tied:
        _refuse_endless_ties(rankings)
    with float64():
        ready = prepare(rankings, rankings.weight, tied=tied)
        found = ready.maximise(ready.start, ready.setting(ridge, tolerance, max_steps))
    status = STATUS.get(int(found.outcome), "max_steps")
    scores, log_delta = split(ready, np.asarray(found.parameters))
    fit = RankingFit(
        items=tuple(rankings.items),
        scores=scores,
        ridge=float(ridge),
        ties=ties,
        tie_orders=ready.orders,
        log_tie_parameters=log_delta,
        status=status,
        gradient_norm=float(found.gradient_norm),
        step_size=float(found.step_size),
        steps=int(found.steps),
        log_likelihood=float(found.log_likelihood),
        rankings=rankings,
        components=components,
        islands=islands,
    )
    if throw:
        require_converged(
            fit,
            "fit_rankings",
            tolerance,
            moved="a parameter",
            gradient=f"{fit.gradient_norm:.3g}",
            perhaps=f" The scores span {float(np.ptp(fit.scores)):.3g} nats.",
        )
    return fit


def _connection(rankings: Rankings, ridge: float) -> tuple[Components, Components]:
    """Return strong and weak components, or raise where the maximum does not exist.

    Part of the rankings is looked at first: what it connects, all of them connect.
    """
    some = rankings.thinned(20 * rankings.num_items)
    if some is not rankings and (some.weight > 0).all():
        components = strong_components(some.adjacent())
        if components.count == 1:
            return components, Components(components.labels, 1)
    neighbours = rankings.adjacent()
    components = strong_components(neighbours)
    if components.count > 1 and ridge == 0:
        problem = describe_separation(neighbours)
        if problem is not None:
            raise DisconnectedComparisonsError(problem.replace("comparisons.", "rankings."))
    return components, weak_components(neighbours)


STATUS: dict[int, Status] = {CONVERGED: "converged", STALLED: "stalled"}


def split(ready: Prepared, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centred scores and log tie parameters out of the padded parameters."""
    scores = parameters[: ready.num_items]
    return scores - scores.mean(), parameters[parameters.size - len(ready.orders) :].copy()


def _check_options(
    rankings: Rankings, ties: str, ridge: float, tolerance: float, max_steps: int
) -> None:
    if not isinstance(rankings, Rankings):
        raise InputError(
            f"rankings: expected Rankings (Rankings.from_lists, read_rankings); got "
            f"{type(rankings).__name__}"
        )
    check_option("ties", ties, RANKING_TIES)
    check_ridge(ridge)
    check_limits(tolerance, max_steps)
    check_two_items("rankings", rankings.num_items)
    if not (rankings.weight > 0).any():
        raise DataError("rankings: expected at least one ranking of weight above 0; got none")


def _settle_ties(rankings: Rankings, ties: str) -> bool:
    """Whether tie parameters are to be estimated; raise for ties that nobody gave a meaning."""
    if rankings.tie_sizes().size == 0:
        return False
    if ties == "refuse":
        many = int(np.sum((rank_count(rankings) < rankings.lengths) & (rankings.weight > 0)))
        raise TiesError(
            f"rankings: {many:,} of the rankings hold ties, and what a tie means is yours to say: "
            'pass ties="davidson_luce" (--ties davidson-luce) to estimate how likely ties are, or '
            "break them"
        )
    return True


def _refuse_endless_ties(rankings: Rankings) -> None:
    """Raise unless each size of group was passed over for another that could have been chosen.

    The tie parameters are finite when every size can be reached from every other along "was chosen
    where the other could have been"; scores aside, this is strong connection of a small graph.
    """
    orders = [1, *(int(k) for k in rankings.tie_sizes())]
    entries = rankings.entries()
    first = group_starts(entries.rank, entries.start)
    owner = np.searchsorted(entries.start, first, side="right") - 1
    counted = (first - entries.start[owner] < entries.listed[owner]) & (rankings.weight[owner] > 0)
    left = (entries.start[owner + 1] - first)[counted]
    size = np.diff(first, append=entries.item.size)[counted]
    reach = np.eye(len(orders), dtype=bool)
    for k, chosen in enumerate(orders):
        most = left[size == chosen].max(initial=0)
        reach[k] |= np.array(orders) <= most
    for _ in orders:
        reach = reach @ reach
    if not reach.all():
        shown = ", ".join(map(str, orders[1:]))
        raise DataError(
            f"rankings: a tie parameter would be infinite: with ties of {shown} items, some size "
            "of group was chosen every time it could be. Break those ties, or add rankings "
            "without them"
        )
