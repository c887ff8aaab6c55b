r"""The audit of a fit of rankings: what each ranking holds up, and which of them would flip it.

The data of a Plackett-Luce fit are its rankings with their weights. With g_r the gradient of
ranking r's log-likelihood at the fit and V the inverse of the observed information,

.. math:: \frac{ds}{dw_r} = V g_r , \qquad
          \frac{dp_{ij}}{dw_r} = p_{ij} (1 - p_{ij}) \, (e_i - e_j)^\top V g_r .

Flips drop rankings, by influence evaluated again at each refit, and every refit is one of
:func:`jaxpref.fit.fit_rankings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float64

from .._checks import (
    ConvergenceError,
    DisconnectedComparisonsError,
    InputError,
    check_count,
    check_positive,
)
from ..data.rankings import Rankings
from ..fit import LeaderboardRow, RankingFit, fit_rankings
from ..fit.likelihood import predict
from ..links import logistic
from .flips import REVERSED, Found
from .groups import largest_change, settled_order
from .moves import fewest, fill
from .multiplicity import ranges
from .pairs import NORMAL_95, Progress
from .ranked_terms import RankingProfile, as_table, ranking_gradients
from .records import (
    Flip,
    Group,
    Groups,
    Multiplicity,
    RankedPair,
    RankingInfluence,
    RankingMove,
    no_fit_without,
    plain,
)
from .summary import about_groups, about_multiplicity, describe_flip

NEIGHBOURS, _ROUNDS, _RIVALS, _SHOWN = 5, 5, 3, 8
_BLOCK = 2**22


class RankingAudit(eqx.Module):
    """Which predictions of a fit of rankings are fragile, and what would overturn them.

    Attributes
    ----------
    items : tuple of str
        Names, in the order of the fit.
    leaderboard : tuple of LeaderboardRow
        Scores with standard errors, best first.
    pairs : tuple of RankedPair
        The predictions most sensitive to the weight of one ranking, most sensitive first.
    influences : tuple of RankingInfluence
        The rankings that move a prediction most, with a refit without each.
    groups : tuple of Groups
        Raters left out one at a time, where they are known.
    flips : tuple of Flip
        The fewest rankings found whose loss overturns the winner, the top k, and neighbours.
    multiplicity : Multiplicity or None
        What near-best models predict.
    summary : tuple of str
        The findings in sentences.
    """

    items: tuple[str, ...] = eqx.field(static=True)
    leaderboard: tuple[LeaderboardRow, ...]
    pairs: tuple[RankedPair, ...]
    influences: tuple[RankingInfluence, ...]
    groups: tuple[Groups, ...]
    flips: tuple[Flip, ...]
    multiplicity: Multiplicity | None
    summary: tuple[str, ...] = eqx.field(static=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit ready for JSON."""
        names = ("summary", "leaderboard", "pairs", "influences", "groups", "flips")
        names += ("multiplicity",)
        return {name: plain(getattr(self, name)) for name in names}


def audit_rankings(
    fit: RankingFit,
    *,
    top: int,
    k: int | None,
    flips: bool,
    groups: bool,
    loss: float | None,
    limit: float | int | None,
    flip_pairs: Sequence[tuple[str, str]],
    progress: Progress | None,
) -> RankingAudit:
    """Return the audit of a fit of rankings; see :func:`jaxpref.audit.audit`.

    `loss` is None where near-best models are not asked for.
    """
    _require_plain(fit)
    count = check_count("top", top, at_least=0)
    best = _check_k(k, fit.num_items)
    if limit is not None:
        check_positive("limit", limit, "a finite number of rankings above 0")
    work = Influences(fit)
    found = _flips(work, best, limit, flip_pairs, progress) if flips else ()
    raters = _raters(work, best, count, progress) if groups else ()
    near = None if loss is None else _multiplicity(work, loss, flip_pairs, progress)
    summary = [describe_flip(flip) for flip in found if flip.question != "pair"]
    summary += [about_groups(each) for each in raters]
    if near is not None:
        summary.append(about_multiplicity(near))
    return RankingAudit(
        items=fit.items,
        leaderboard=tuple(fit.to_rows()),
        pairs=work.fragile(count),
        influences=work.strongest(min(count, _SHOWN)),
        groups=raters,
        flips=found,
        multiplicity=near,
        summary=tuple(summary),
    )


def _require_plain(fit: RankingFit) -> None:
    if fit.status != "converged":
        raise InputError(
            f"fit: expected a converged fit; got one with status {fit.status!r} (largest gradient "
            f"{fit.gradient_norm:.3g} rankings). Sensitivities hold at the maximum only: refit "
            "with more max_steps, or with ridge=..."
        )
    if fit.tie_orders:
        raise InputError(
            "fit: expected rankings fitted without tie parameters; got a fit with some, which the "
            "audit's formulas leave out. Break the ties, or audit the comparisons the rankings "
            "imply (rankings.comparisons())"
        )


def _check_k(k: int | None, num_items: int) -> int:
    if k is None:
        return min(5, max(num_items // 2, 1))
    count = check_count("k", k)
    if count > num_items:
        raise InputError(f"k: expected at most the number of items, {num_items}; got {count}")
    return count


class Influences:
    """What each ranking does to the scores of a fit, and refits without some.

    Parameters
    ----------
    fit : RankingFit
        A converged fit without tie parameters.
    """

    def __init__(self, fit: RankingFit) -> None:
        self.fit, self.rankings = fit, fit.rankings
        self.table, self.inverse = as_table(fit.rankings), fit.covariance()
        self._gradient = ranking_gradients(self.table, fit.scores)
        self.refits = 0

    def refit(self, weight: Float64[np.ndarray, " rankings"]) -> RankingFit | None:
        """Return the fit with other weights, None where there is no finite one."""
        self.refits += 1
        moved: Rankings = replace(self.rankings, weight=weight)
        try:
            return fit_rankings(moved, ridge=self.fit.ridge)
        except (DisconnectedComparisonsError, ConvergenceError):
            return None

    def gains(self, fit: RankingFit, ahead: int, behind: int) -> Float64[np.ndarray, "1 rankings"]:
        """Return how much one unit of weight of each ranking holds up s_ahead - s_behind."""
        inverse, gradient = self.inverse, self._gradient
        if fit is not self.fit:
            inverse = fit.covariance()
            gradient = ranking_gradients(self.table, fit.scores)
        pull = inverse[ahead] - inverse[behind]
        return np.sum(gradient * pull[self.table.item], axis=1)[None]

    def responses(self) -> Float64[np.ndarray, "rankings items"]:
        """Return ds/dw_r of every ranking."""
        gradient = self._gradient
        dense = np.zeros((len(gradient), self.fit.num_items))
        rows = np.repeat(np.arange(len(gradient)), gradient.shape[1])
        np.add.at(dense, (rows, self.table.item.ravel()), gradient.ravel())
        return dense @ self.inverse

    def fragile(self, top: int) -> tuple[RankedPair, ...]:
        """Return the pairs whose prediction moves most with the weight of one ranking."""
        response = np.ascontiguousarray(self.responses().T)
        a, b = np.triu_indices(self.fit.num_items, 1)
        margin = self.fit.scores[a] - self.fit.scores[b]
        density = predict(logistic, margin).density
        largest, l2, l1 = np.zeros((3, len(a)))
        ranking = np.zeros(len(a), np.int64)
        block = max(_BLOCK // response.shape[1], 1)
        for start in range(0, len(a), block):
            here = slice(start, start + block)
            row = (response[a[here]] - response[b[here]]) * density[here, None]
            ranking[here] = np.argmax(np.abs(row), axis=1)
            largest[here] = row[np.arange(len(row)), ranking[here]]
            l2[here], l1[here] = np.sqrt((row**2).sum(axis=1)), np.abs(row).sum(axis=1)
        matrix, own = self.inverse, np.diagonal(self.inverse)
        reach = NORMAL_95 * np.sqrt(np.maximum(own[a] + own[b] - 2 * matrix[a, b], 0.0))
        chances = [
            predict(logistic, at).probability for at in (margin, margin - reach, margin + reach)
        ]
        return tuple(
            RankedPair(
                self.fit.items[a[n]],
                self.fit.items[b[n]],
                *(float(column[n]) for column in chances),
                derivative=float(largest[n]),
                ranking=int(ranking[n]),
                text=self.text(int(ranking[n])),
                worst_l2=float(l2[n]),
                worst_linf=float(l1[n]),
            )
            for n in np.argsort(-np.abs(largest), kind="stable")[:top]
        )

    def strongest(self, top: int) -> tuple[RankingInfluence, ...]:
        """Return the rankings that move a prediction most, each with a refit without it."""
        response = self.responses()
        weight = self.rankings.weight
        spread = (response.max(axis=1) - response.min(axis=1)) * weight
        return tuple(
            self._influence(int(r), response[r]) for r in np.argsort(-spread, kind="stable")[:top]
        )

    def _influence(self, ranking: int, response: np.ndarray) -> RankingInfluence:
        margin = self.fit.scores[:, None] - self.fit.scores
        chance = predict(logistic, margin.ravel())
        move = chance.density.reshape(margin.shape) * (response[:, None] - response)
        a, b = largest_change(np.zeros_like(move), move)
        a, b = (a, b) if move[a, b] >= 0 else (b, a)
        without = self.rankings.weight.copy()
        without[ranking] = 0.0
        again = self.refit(without)
        names = self.fit.items
        return RankingInfluence(
            ranking=ranking,
            text=self.text(ranking),
            weight=float(self.rankings.weight[ranking]),
            rater=self._rater(ranking),
            item_a=names[a],
            item_b=names[b],
            probability=self.fit.probability(names[a], names[b]),
            derivative=float(move[a, b]),
            after=None if again is None else again.probability(names[a], names[b]),
        )

    def text(self, ranking: int) -> str:
        """Return a ranking as people write it, its first places."""
        length = int(self.table.stages[ranking])
        shown = [self.fit.items[item] for item in self.table.item[ranking, : min(length, _SHOWN)]]
        return " > ".join(shown) + (" > ..." if length > _SHOWN else "")

    def _rater(self, ranking: int) -> str | None:
        if self.rankings.rater is None:
            return None
        return self.rankings.raters[self.rankings.rater[ranking]]

    def flip(self, ahead: int, behind: int, limit: float | int) -> Found:
        """Return the fewest rankings found whose loss puts `behind` above `ahead`.

        The order of influence is taken again at each refit; in the last order the number is
        lowered, and raised, until one ranking fewer no longer does it.
        """
        available = np.floor(self.rankings.weight + 1e-9)[None]
        gains = self.gains(self.fit, ahead, behind)
        need = float(self.fit.scores[ahead] - self.fit.scores[behind])
        order, count = fewest(gains, available, need)
        first_order = float(count) if np.isfinite(count) else None
        best, status, seen, ceiling = None, "not_found", set(), float(limit)
        for _ in range(2 * _ROUNDS):
            wanted = min(count, ceiling)
            taken, again = self._drop(order, available, wanted)
            if taken is None or taken.tobytes() in seen:
                break
            if again is None:  # too many: what is known there is known halfway
                status, ceiling, count = "no_fit", wanted - 1, np.floor(wanted / 2)
                continue
            seen.add(taken.tobytes())
            best, margin = _better(best, taken, again, ahead, behind)
            gains = self.gains(again, ahead, behind)
            order, count = fewest(gains, available, margin + float(np.sum(gains * taken)))
        while best is not None and best.count > 1:
            fewer = best.count - 1
            taken, again = self._drop(order, available, fewer)
            if taken is not None and again is not None:
                best, _ = _better(best, taken, again, ahead, behind)
            if best is None or best.count > fewer:
                break
        found = best or Found(status, None, np.inf, None, None)
        return found._replace(first_order=first_order)

    def _drop(
        self, order: np.ndarray, available: np.ndarray, count: float
    ) -> tuple[np.ndarray | None, RankingFit | None]:
        most = float(available.ravel()[order].sum())
        taken = fill(order, available, min(count, most)) if min(count, most) >= 1 else None
        if taken is None:
            return None, None
        return taken, self.refit(np.maximum(self.rankings.weight - taken[0], 0.0))

    def moves(self, taken: np.ndarray) -> tuple[RankingMove, ...]:
        """Return the rankings that were dropped."""
        found = []
        for ranking in np.flatnonzero(taken[0]):
            number, rater = int(ranking), self._rater(int(ranking))
            given = float(self.rankings.weight[number])
            who = () if rater is None else ((rater, given),)
            found.append(
                RankingMove("drop", number, self.text(number), float(taken[0, number]), given, who)
            )
        return tuple(found)


def _better(
    best: Found | None, taken: np.ndarray, again: RankingFit, ahead: int, behind: int
) -> tuple[Found | None, float]:
    """Return the better of two sets that flip, and the margin the new one leaves."""
    margin, count = float(again.scores[ahead] - again.scores[behind]), float(taken.sum())
    if margin < REVERSED and (best is None or count < best.count):
        best = Found("confirmed", taken, count, margin, None)
    return best, margin


def _multiplicity(
    work: Influences,
    loss: float,
    pairs: Sequence[tuple[str, str]],
    progress: Progress | None,
) -> Multiplicity:
    """Return how far near-best models disagree on the first neighbours and given pairs."""
    fit = work.fit
    order = [int(item) for item in np.argsort(-fit.scores, kind="stable")]
    asked = [(fit.index(a), fit.index(b)) for a, b in pairs]
    asked += zip(order[:NEIGHBOURS], order[1 : NEIGHBOURS + 1], strict=False)
    profile = RankingProfile(fit, work.inverse, loss)
    return ranges(fit, work.inverse, profile, asked, progress)


def _flips(
    work: Influences,
    k: int,
    limit: float | int | None,
    pairs: Sequence[tuple[str, str]],
    progress: Progress | None,
) -> tuple[Flip, ...]:
    """Return what overturns the winner, the top k, the first neighbours and given pairs."""
    fit = work.fit
    order = [int(item) for item in np.argsort(-fit.scores, kind="stable")]
    questions: list[tuple[str, int | None, list[tuple[int, int]]]] = [
        ("winner", None, [(order[0], rival) for rival in order[1:]])
    ]
    if 1 < k < len(order):
        questions.append(("top_k", k, [(a, b) for a in order[:k] for b in order[k:]]))
    for a, b in pairs:
        first, second = fit.index(a), fit.index(b)
        ahead = (first, second) if fit.scores[first] >= fit.scores[second] else (second, first)
        questions.append(("pair", None, [ahead]))
    neighbours = zip(order[:NEIGHBOURS], order[1 : NEIGHBOURS + 1], strict=False)
    questions += [("pair", None, [pair]) for pair in neighbours]
    found = []
    for question in questions:
        found.append(_flip(work, *question, limit))
        if progress is not None:
            progress(len(found), len(questions))
    return tuple(found)


def _flip(
    work: Influences, question: str, k: int | None, pairs: list[tuple[int, int]], limit: Any
) -> Flip:
    fit, before, total = work.fit, work.refits, float(work.rankings.weight.sum())
    available = np.floor(work.rankings.weight + 1e-9)[None]
    margins = [float(fit.scores[a] - fit.scores[b]) for a, b in pairs]
    nearest = [pairs[n] for n in np.argsort(margins, kind="stable")[: 4 * _RIVALS]]
    estimates = []
    for a, b in nearest:
        need = float(fit.scores[a] - fit.scores[b])
        estimates.append(fewest(work.gains(fit, a, b), available, need)[1])
    best, chosen = Found("not_found", None, np.inf, None, None), nearest[int(np.argmin(estimates))]
    for n in np.argsort(estimates, kind="stable")[:_RIVALS]:
        again = work.flip(
            nearest[n][0], nearest[n][1], min(total if limit is None else limit, best.count - 1)
        )
        if again.count < best.count or best.taken is None:
            best, chosen = again, nearest[n]
    done = best.taken is not None
    return Flip(
        question=question,
        budget="drop",
        k=k,
        ahead=fit.items[chosen[0]],
        behind=fit.items[chosen[1]],
        comparisons=best.count if done else None,
        share=best.count / total if done else None,
        status=best.status,
        margin_before=float(fit.scores[chosen[0]] - fit.scores[chosen[1]]),
        margin_after=best.margin,
        first_order=best.first_order,
        refits=work.refits - before,
        moves=() if best.taken is None else work.moves(best.taken),
    )


def _raters(work: Influences, k: int, top: int, progress: Progress | None) -> tuple[Groups, ...]:
    """Return raters left out one at a time."""
    data, fit = work.rankings, work.fit
    if data.rater is None or len(data.raters) < 2:
        return ()
    rows = []
    for number, name in enumerate(data.raters):
        mine = data.rater == number
        again = work.refit(np.where(mine, 0.0, data.weight))
        rows.append(_group(fit, again, name, float(data.weight[mine].sum()), k))
        if progress is not None:
            progress(number + 1, len(data.raters))
    best = fit.rank()[0]
    changers = [row for row in rows if row.winner not in (None, best) or row.top_k_left]
    moved = [abs((row.after or 0.0) - (row.before or 0.0)) for row in rows]
    order = np.argsort(-np.array(moved), kind="stable")[:top]
    return (
        Groups(
            kind="rater",
            k=k,
            num=len(rows),
            num_refitted=len(rows),
            changing_winner=sum(row.winner not in (None, best) for row in rows),
            changing_top_k=sum(bool(row.top_k_left) for row in rows),
            rows=tuple(rows[n] for n in order),
            changers=tuple(row.name for row in changers),
        ),
    )


def _group(fit: RankingFit, again: RankingFit | None, name: str, weight: float, k: int) -> Group:
    if again is None:
        return no_fit_without("rater", (name,), weight)
    old, new = (each.scores[:, None] - each.scores for each in (fit, again))
    before, after = (
        predict(logistic, at.ravel()).probability.reshape(at.shape) for at in (old, new)
    )
    a, b = largest_change(before, after)
    a, b = (a, b) if after[a, b] >= before[a, b] else (b, a)
    ranked = [fit.items[item] for item in settled_order(again.scores, fit.scores)]
    was, now = set(fit.rank()[:k]), set(ranked[:k])
    places = {item: place for place, item in enumerate(ranked)}
    jumps = [abs(places[item] - place) for place, item in enumerate(fit.rank())]
    return Group(
        kind="rater",
        name=(name,),
        comparisons=weight,
        status="refitted",
        item_a=fit.items[a],
        item_b=fit.items[b],
        before=float(before[a, b]),
        after=float(after[a, b]),
        predicted_after=None,
        winner=ranked[0],
        top_k_entered=tuple(sorted(now - was)),
        top_k_left=tuple(sorted(was - now)),
        largest_rank_change=max(jumps),
    )
