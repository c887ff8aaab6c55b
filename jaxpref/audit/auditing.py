"""Audit a fit: what is fragile, how little would flip it, how dominant it is, what to collect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._checks import InputError, check_count, check_option, check_positive, closest_names
from ..data.comparisons import Comparisons
from ..fit._host import float64
from ..fit.rankings_result import RankingFit
from ..fit.result import FitResult
from .across import LINKS, across_links
from .collect import MOST_ITEMS as COLLECT_ITEMS
from .collect import OBJECTIVES, what_to_collect
from .conclusions import BUDGETS, Conclusions, find_flips
from .cuts import weakest_cut
from .dominance import describe_dominance
from .groups import LeaveOut
from .large import PAIRS_SCANNED, fragile_pairs
from .multiplicity import multiplicity
from .network import require_converged
from .pairs import Progress, name_pairs, scan_pairs
from .ranked import audit_rankings
from .records import Collecting, Flip, Groups, Links, Multiplicity
from .regime import describe_regime, dominant_edges
from .report import AuditReport, describe_rows
from .summary import summarise
from .triples import check_thresholds
from .unseen import scan_unseen

NEIGHBOURS = 10
"""Neighbours on the leaderboard, from the top, whose order is put to the test."""

REFITTED_ITEMS = 400
"""Items up to which flips, groups and ranges are worked out unless asked not to: a refit is dense,
and takes a tenth of a second at this size."""

_SIMULATIONS = 400


class Options(NamedTuple):
    """The options of an audit, checked."""

    comparisons: Comparisons | None
    top: int
    thresholds: tuple[float, ...]
    k: int
    flips: bool
    budgets: tuple[str, ...]
    flip_pairs: tuple[tuple[str, str], ...]
    limit: float | None
    groups: bool
    raters: tuple[str, ...] | None
    collect: tuple[str, ...]
    multiplicity: bool
    loss: float
    links: tuple[str, ...]
    seed: int
    chunk: int
    progress: Progress | None


def audit(
    fit: FitResult | RankingFit,
    *,
    comparisons: Comparisons | None = None,
    top: int = 20,
    thresholds: Sequence[float | int] = (1.01, 2, 3, 5, 10),
    k: int | None = None,
    flips: bool | None = None,
    budgets: Sequence[str] = BUDGETS,
    flip_pairs: Sequence[tuple[str, str]] = (),
    limit: float | int | None = None,
    groups: bool | None = None,
    raters: Sequence[str] | None = None,
    collect: bool | Sequence[str] | None = None,
    multiplicity: bool | None = None,
    loss: float | int = 1.0,
    links: bool | Sequence[str] = False,
    seed: int = 0,
    chunk: int = 2**13,
    progress: Progress | None = None,
) -> Any:
    r"""Return what a fit hangs on: fragile predictions, flips, dominance, and what to collect.

    For each pair of items the prediction p_ij and the largest absolute derivative by the observed
    win fraction of any one pair,

    .. math:: \max_{(a,b)} \Big| \frac{dp_{ij}}{df_{ab}} \Big| , \qquad
              \frac{dp_{ij}}{df_{ab}} = p_{ij}(1-p_{ij})\, n_{ab}\,
              (e_i - e_j)^\top L^+ (e_a - e_b) ,

    with the pair (a, b) behind it, and its L2 and L1 norms for budgets on all fractions together;
    the most sensitive triple through an item compared with both, with its M-sensitive region
    (Eqs. 4 and 5); and, each by refitting, the fewest comparisons that overturn an order, what
    becomes of the fit without a rater, an item or an observed pair, and how far models that fit
    almost as well disagree.

    Parameters
    ----------
    fit : FitResult or RankingFit
        A converged fit of scores alone (ties="half" included). For rankings see
        :class:`RankingAudit`.
    comparisons : Comparisons, optional
        What was fitted. Needed for raters, and to drop ties that count as half wins as such.
    top : int, >= 0
        How many rows of each table to describe by name.
    thresholds : sequence of float, > 0
        The M of the regions to count triples in; the default is the paper's Fig. 1.
    k : int, 1 to items, optional
        The set of the k best is watched; 5, or half the items if these are fewer.
    flips, groups, multiplicity : bool, optional
        Whether to search for flips, to leave groups out, and to profile near-best models; by
        default up to 400 items.
    budgets : sequence of {"drop", "add", "change"}
        What flips may do with comparisons.
    flip_pairs : sequence of (str, str)
        Pairs of items to flip besides the winner, the top k and the first 10 neighbours.
    limit : float > 0, optional
        Most comparisons a flip may take; as many as there are when left out.
    raters : sequence of str, optional
        Leave out only these raters; all of them when left out.
    collect : bool or sequence of {"interval", "sensitivity", "flip"}, optional
        For which objectives to rank pairs to compare next; by default all, up to 400 items.
    loss : float > 0
        Nats of log-likelihood that near-best models may give up.
    links : bool or sequence of str
        Other links to fit the same data with; True stands for all shipped ones.
    seed : int
        Of the simulation of circular triples.
    chunk : int, >= 1
        Pairs between two calls of `progress`.
    progress : callable, optional
        Called with (done, in all) as each stage goes on; every stage counts from 0.

    Returns
    -------
    AuditReport, or RankingAudit for a fit of rankings
        In a complete design there are no unseen pairs: the arrays are empty and the regime says
        so.

    Raises
    ------
    InputError
        For a fit that has not converged or has more parameters than scores, comparisons other
        than those fitted, an unknown name (with the closest ones), or an option out of range.

    Notes
    -----
    One factorisation, then every pair takes a difference of two rows of length `edges`; the
    (pairs, edges) Jacobian never exists. Memory: two blocks of rows of 128 MiB at most, a few
    (items, items) matrices and the arrays of the result. Above 4e10 (pair, edge) combinations only
    the most fragile pairs are found, by bounds (:func:`jaxpref.audit.large.fragile_pairs`).

    A derivative is the effect of a small change of one fraction; what several changing together, or
    by much, come to is what the refits are for.

    Examples
    --------
    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> example = Comparisons.from_counts(  # the paper's Example 1: p_ik = .99, p_kj = .02
    ...     [[0, 99, 0], [1, 0, 2], [0, 98, 0]], items=("i", "k", "j"))
    >>> report = audit(fit_pairwise(example))
    >>> row = report.top[0]
    >>> row.item_a, row.item_b, row.edge.item_a, row.edge.item_b, round(row.sensitivity, 5)
    ('i', 'j', 'i', 'k', 22.37034)
    >>> row.triple.region
    10.0
    >>> [(flip.question, flip.comparisons) for flip in report.flips if flip.budget == "drop"]
    [('winner', 3.0), ('pair', 3.0), ('pair', 97.0)]
    """
    if isinstance(fit, RankingFit):
        return audit_rankings(
            fit,
            top=top,
            k=k,
            flips=flips is not False,
            groups=groups is not False,
            loss=check_loss(loss) if _wanted(multiplicity, fit) else None,
            limit=limit,
            flip_pairs=_named_pairs(fit, flip_pairs),
            progress=progress,
        )
    require_converged(fit)
    options = Options(
        comparisons=_same_data(fit, comparisons),
        top=check_count("top", top, at_least=0),
        thresholds=check_thresholds(thresholds),
        k=check_k(k, fit.num_items),
        flips=_wanted(flips, fit),
        budgets=tuple(check_option("budgets", name, BUDGETS) for name in budgets),
        flip_pairs=_named_pairs(fit, flip_pairs),
        limit=check_limit(limit),
        groups=_wanted(groups, fit),
        raters=check_raters(comparisons, raters),
        collect=_several("collect", collect, OBJECTIVES, fit.num_items <= COLLECT_ITEMS),
        multiplicity=_wanted(multiplicity, fit),
        loss=check_loss(loss),
        links=_several("links", links, LINKS, False),
        seed=check_count("seed", seed, at_least=0),
        chunk=check_count("chunk", chunk),
        progress=progress,
    )
    with float64():
        return _audit(fit, options)


def _audit(fit: FitResult, options: Options) -> AuditReport:
    """Return the audit part by part."""
    scanned = _combinations(fit) <= PAIRS_SCANNED
    if scanned:
        table = scan_pairs(fit, options.chunk, options.progress)
    else:
        table = fragile_pairs(fit, max(options.top, 1), progress=options.progress)
    unseen, triples = scan_unseen(fit, table, options.thresholds, options.chunk)
    fitted, dominant = dominant_edges(fit)
    leave = LeaveOut(fit, options.k) if options.groups else None
    report = AuditReport(
        items=fit.items,
        regime=describe_regime(fit, unseen, dominant, scanned=scanned),
        top=describe_rows(fit, unseen, fitted, dominant, options.top, options.thresholds),
        triples=triples,
        unseen=unseen,
        leaderboard=tuple(fit.to_rows()),
        pairs=table if scanned else None,
        fragile=name_pairs(fit, table, options.top),
        leverage=() if leave is None else leave.leverage(options.top),
        cut=weakest_cut(fit) if options.groups else None,
        groups=() if leave is None else _groups(leave, options),
        flips=_flips(fit, options),
        dominance=describe_dominance(
            fit, top=options.top, simulations=_SIMULATIONS, seed=options.seed
        ),
        collect=_collect(fit, options),
        multiplicity=_multiplicity(fit, options),
        links=_links(fit, options),
    )
    return report.with_summary(summarise(report))


def _combinations(fit: FitResult) -> float:
    return fit.num_items * (fit.num_items - 1) / 2 * len(fit.pairs.item_a)


def _groups(leave: LeaveOut, options: Options) -> tuple[Groups, ...]:
    found = [
        leave.items(options.top, options.progress) if leave.fit.num_items > 2 else None,
        leave.edges(options.top, options.progress),
    ]
    data = options.comparisons
    if data is not None and data.rater is not None and len(data.raters) > 1:
        found.append(leave.raters(data, options.top, options.progress, options.raters))
    return tuple(groups for groups in found if groups is not None)


def _flips(fit: FitResult, options: Options) -> tuple[Flip, ...]:
    if not options.flips or not options.budgets:
        return ()
    return find_flips(
        Conclusions(fit, options.comparisons),
        budgets=options.budgets,
        k=options.k,
        adjacent=NEIGHBOURS,
        pairs=options.flip_pairs,
        limit=options.limit,
        progress=options.progress,
    )


def _collect(fit: FitResult, options: Options) -> tuple[Collecting, ...]:
    return tuple(what_to_collect(fit, objective=o, top=options.top) for o in options.collect)


def _multiplicity(fit: FitResult, options: Options) -> Multiplicity | None:
    if not options.multiplicity:
        return None
    order = np.argsort(-fit.scores, kind="stable").tolist()[: NEIGHBOURS + 1]
    asked = [(fit.index(a), fit.index(b)) for a, b in options.flip_pairs]
    neighbours = list(zip(order[:-1], order[1:], strict=True))
    return multiplicity(fit, [*asked, *neighbours], loss=options.loss, progress=options.progress)


def _links(fit: FitResult, options: Options) -> Links | None:
    if not options.links:
        return None
    return across_links(fit, k=options.k, links=options.links, progress=options.progress)


# Checks -----------------------------------------------------------------------------------------


def check_k(k: int | None, num_items: int) -> int:
    """Return k, or raise unless it is from 1 to the number of items.

    >>> check_k(None, 60), check_k(None, 4)
    (5, 2)
    """
    if k is None:
        return min(5, max(num_items // 2, 1))
    count = check_count("k", k)
    if count > num_items:
        raise InputError(f"k: expected at most the number of items, {num_items}; got {count}")
    return count


def check_limit(limit: float | int | None) -> float | None:
    """Return the limit of a flip, or raise unless it is above 0."""
    if limit is not None:
        check_positive("limit", limit, "a finite number of comparisons above 0")
    return None if limit is None else float(limit)


def check_loss(loss: float | int) -> float:
    """Return the loss that near-best models may have, or raise unless it is above 0."""
    check_positive("loss", loss, "a finite number of nats above 0")
    return float(loss)


def check_raters(
    comparisons: Comparisons | None, raters: Sequence[str] | None
) -> tuple[str, ...] | None:
    """Return the raters to leave out, or raise for one that is not known, with the closest."""
    if raters is None:
        return None
    if comparisons is None or comparisons.rater is None:
        raise InputError("raters: expected comparisons with raters to leave out; got none")
    for name in raters:
        if name not in comparisons.raters:
            hint = closest_names(str(name), comparisons.raters)
            known = f"one of the {len(comparisons.raters)} raters"
            raise InputError(f"raters: expected {known}; got {name!r}{hint}")
    return tuple(raters)


def _wanted(asked: bool | None, fit: FitResult | RankingFit) -> bool:
    """Whether what takes many refits is to be done: by default of fits of moderate size."""
    return fit.num_items <= REFITTED_ITEMS if asked is None else bool(asked)


def _several(name: str, given: Any, known: Sequence[str], default: bool) -> tuple[str, ...]:
    """Return the names asked for: all for True, none for False, those given otherwise."""
    if given is None or isinstance(given, bool):
        wanted = default if given is None else given
        return tuple(known) if wanted else ()
    if isinstance(given, str):
        given = (given,)
    if name == "links":  # further ones than those of `known` exist
        return tuple(str(each) for each in given)
    return tuple(check_option(name, each, known) for each in given)


def _named_pairs(fit: FitResult | RankingFit, pairs: Any) -> tuple[tuple[str, str], ...]:
    for n, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or fit.index(pair[0]) == fit.index(pair[1]):
            raise InputError(f"flip_pairs[{n}]: expected two different items; got {pair!r}")
    return tuple((str(a), str(b)) for a, b in pairs)


def _same_data(fit: FitResult, comparisons: Comparisons | None) -> Comparisons | None:
    """Return the comparisons, or raise unless they are those that were fitted."""
    if comparisons is None:
        return None
    if not isinstance(comparisons, Comparisons):
        raise InputError(
            f"comparisons: expected the Comparisons fitted; got {type(comparisons).__name__}"
        )
    if fit.ties == "drop":
        comparisons = replace(comparisons, ties=np.zeros(len(comparisons.ties)))
    own = comparisons.with_ties_as_half_wins().pairs()
    pairs = fit.pairs
    same = comparisons.items == fit.items and all(
        len(mine) == len(theirs) and np.allclose(mine, theirs, rtol=1e-9, atol=1e-12)
        for mine, theirs in zip(own[:4], pairs[:4], strict=True)
    )
    if not same:
        raise InputError(
            f"comparisons: expected those that were fitted; got {comparisons!r}, whose items or "
            "counts differ from the fit's"
        )
    return comparisons
