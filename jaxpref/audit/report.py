"""What an audit returns: the regime in words, the most fragile predictions, and all the rest."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from ..fit.result import FitResult
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
    """Which predictions of a fit are fragile, and on what they rest.

    Attributes
    ----------
    items : tuple of str
        Names, in the order of the indices in `unseen`.
    regime : Regime
        How sparse, dominant and fragile the data are; ``regime.sentence`` says it in words.
    top : tuple of AuditRow
        The most sensitive unseen pairs, most sensitive first.
    triples : TripleCounts
        How many triples lie in each M-sensitive region.
    unseen : UnseenPairs
        Every unseen pair, as arrays.
    """

    items: tuple[str, ...] = eqx.field(static=True)
    regime: Regime
    top: tuple[AuditRow, ...]
    triples: TripleCounts
    unseen: UnseenPairs

    def to_dict(self, *, pairs: bool = False) -> dict[str, Any]:
        """Return the report ready for JSON: numbers that are not finite become None.

        Parameters
        ----------
        pairs : bool
            Whether to include every unseen pair as well (columns of equal length).
        """
        content: dict[str, Any] = {
            "regime": self.regime._asdict(),
            "triples": self.triples.to_dict(),
            "top": [row.to_dict() for row in self.top],
        }
        if pairs:
            names = np.asarray(self.items, dtype=object)
            columns = {name: column.tolist() for name, column in self.unseen._asdict().items()}
            columns["item_a"] = names[self.unseen.item_a].tolist()
            columns["item_b"] = names[self.unseen.item_b].tolist()
            columns["middle"] = [self.items[k] if k >= 0 else None for k in self.unseen.middle]
            columns["sensitivity"] = self.unseen.sensitivity.tolist()
            content["unseen"] = columns
        return _finite(content)


def _finite(value: Any) -> Any:
    """Return nested dictionaries and lists with NaN and infinities replaced by None."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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
