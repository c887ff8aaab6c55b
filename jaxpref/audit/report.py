"""What an audit returns: the regime in words, the most fragile predictions, and all the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from ..fit import LeaderboardRow
from ..fit.result import FitResult
from .records import (
    Collecting,
    Cut,
    Dominance,
    EdgeLeverage,
    Flip,
    FragilePair,
    Groups,
    Links,
    Multiplicity,
    PairTable,
    plain,
)
from .regime import Regime
from .triples import Triple, TripleCounts, describe_triples
from .unseen import UnseenPairs


class Edge(NamedTuple):
    """An observed pair: the fraction of wins of item_a, the fitted one, and how many comparisons.

    `dominant` is whether the fitted probability is below 0.1 or at least 0.9.
    """

    item_a: str
    item_b: str
    win_fraction: float
    fitted_probability: float
    comparisons: float
    dominant: bool


class AuditRow(NamedTuple):
    """An unseen pair: its prediction, the observed pair it hangs on most, and its worst triple.

    `probability` is the prediction that item_a beats item_b; `derivative` its derivative by
    `edge.win_fraction`, and `sensitivity` the absolute value of that. `triple` is None where no
    item was compared with both.
    """

    item_a: str
    item_b: str
    probability: float
    sensitivity: float
    derivative: float
    edge: Edge
    triple: Triple | None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as nested dictionaries."""
        triple = None if self.triple is None else self.triple._asdict()
        return self._asdict() | {"edge": self.edge._asdict(), "triple": triple}


class AuditReport(eqx.Module):
    """Which predictions of a fit are fragile, on what they rest, and what would overturn them.

    What was not asked for, or does not apply, is None or empty.

    Attributes
    ----------
    items : tuple of str
        Names, in the order of the indices in `unseen` and `pairs`.
    regime : Regime
        How sparse, dominant and fragile the data are; ``regime.sentence`` says it in words.
    top : tuple of AuditRow
        The most sensitive unseen pairs, most sensitive first.
    triples : TripleCounts
        How many triples lie in each M-sensitive region.
    unseen : UnseenPairs
        Every unseen pair, as arrays (of a very large fit: those among the most fragile pairs).
    leaderboard : tuple of LeaderboardRow
        Scores with standard errors, best first.
    pairs : PairTable or None
        Every pair, seen and unseen, as arrays.
    fragile : tuple of FragilePair
        The most sensitive of all pairs by name.
    leverage : tuple of EdgeLeverage
        The observed pairs the fit rests on most.
    cut : Cut or None
        The fewest comparisons whose loss leaves no finite fit.
    groups : tuple of Groups
        What leaving out each item, observed pair and rater does, by refits.
    flips : tuple of Flip
        The fewest comparisons that overturn the winner, the top k, and orders of pairs.
    dominance : Dominance or None
        Table C2's bins, the logit-normal variance, cycles.
    collect : tuple of Collecting
        What to compare next, by objective.
    multiplicity : Multiplicity or None
        What near-best models predict.
    links : Links or None
        What other links make of the same data.
    summary : tuple of str
        The findings in sentences, most important first.
    """

    items: tuple[str, ...] = eqx.field(static=True)
    regime: Regime
    top: tuple[AuditRow, ...]
    triples: TripleCounts
    unseen: UnseenPairs
    leaderboard: tuple[LeaderboardRow, ...] = ()
    pairs: PairTable | None = None
    fragile: tuple[FragilePair, ...] = ()
    leverage: tuple[EdgeLeverage, ...] = ()
    cut: Cut | None = None
    groups: tuple[Groups, ...] = ()
    flips: tuple[Flip, ...] = ()
    dominance: Dominance | None = None
    collect: tuple[Collecting, ...] = ()
    multiplicity: Multiplicity | None = None
    links: Links | None = None
    summary: tuple[str, ...] = eqx.field(static=True, default=())

    def with_summary(self, summary: tuple[str, ...]) -> AuditReport:
        """Return the report with its findings in words."""
        return replace(self, summary=summary)

    def to_dict(self, *, pairs: bool = False) -> dict[str, Any]:
        """Return the report ready for JSON: numbers that are not finite become None.

        Parameters
        ----------
        pairs : bool
            Whether to include every pair, and every unseen pair, as well (columns of equal
            length).
        """
        content: dict[str, Any] = {
            "summary": list(self.summary),
            "regime": plain(self.regime),
            "triples": plain(self.triples.to_dict()),
            "top": [plain(row.to_dict()) for row in self.top],
        }
        for name in _PARTS:
            content[name] = plain(getattr(self, name))
        if pairs:
            content["unseen"] = self._named(self.unseen)
            middle = [self.items[k] if k >= 0 else None for k in self.unseen.middle]
            content["unseen"]["middle"] = middle
            content["unseen"]["sensitivity"] = plain(self.unseen.sensitivity)
            if self.pairs is not None:
                content["pairs"] = self._named(self.pairs)
                content["pairs"]["sensitivity"] = plain(self.pairs.sensitivity)
        return content

    def _named(self, columns: PairTable | UnseenPairs) -> dict[str, Any]:
        """Return columns as lists, with items by name."""
        names = np.asarray(self.items, dtype=object)
        found = plain(columns)
        found["item_a"] = names[columns.item_a].tolist()
        found["item_b"] = names[columns.item_b].tolist()
        return found


_PARTS = (
    "leaderboard",
    "fragile",
    "leverage",
    "cut",
    "groups",
    "flips",
    "dominance",
    "collect",
    "multiplicity",
    "links",
)


def describe_rows(
    fit: FitResult,
    unseen: UnseenPairs,
    fitted: np.ndarray,
    dominant: np.ndarray,
    top: int,
    thresholds: tuple[float, ...],
) -> tuple[AuditRow, ...]:
    """Return the named records of the `top` most sensitive pairs. Needs 64 bits."""
    order = np.argsort(-unseen.sensitivity, kind="stable")[:top]
    worst = UnseenPairs(*(column[order] for column in unseen))
    triples = describe_triples(fit, worst.item_a, worst.item_b, worst.middle, thresholds)
    return tuple(
        AuditRow(
            item_a=fit.items[worst.item_a[n]],
            item_b=fit.items[worst.item_b[n]],
            probability=float(worst.probability[n]),
            sensitivity=float(worst.sensitivity[n]),
            derivative=float(worst.derivative[n]),
            edge=_describe_edge(fit, int(worst.edge[n]), fitted, dominant),
            triple=triple,
        )
        for n, triple in enumerate(triples)
    )


def _describe_edge(fit: FitResult, edge: int, fitted: np.ndarray, dominant: np.ndarray) -> Edge:
    pairs = fit.pairs
    total = float(pairs.wins_a[edge] + pairs.wins_b[edge])
    return Edge(
        item_a=fit.items[pairs.item_a[edge]],
        item_b=fit.items[pairs.item_b[edge]],
        win_fraction=float(pairs.wins_a[edge]) / total,
        fitted_probability=float(fitted[edge]),
        comparisons=total,
        dominant=bool(dominant[edge]),
    )
