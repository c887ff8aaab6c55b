r"""The likelihood of rankings, and the models that fit them almost as well.

A ranking is a sequence of choices, each with probability e_c / sum of e over what was left:

.. math:: l(s) = \sum_r w_r \sum_m \Big( s_{r_m} - \log \sum_{n \ge m} e^{s_{r_n}} \Big) .
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from ..data.rankings import Rankings
from ..fit import RankingFit
from ..fit.rankings_information import rankings_information
from .engine import ascend
from .multiplicity import Profile


class Table(NamedTuple):
    """Rankings as a rectangle: entry (r, m) is ranking r's item in place m, 0 beyond its end."""

    item: Int64[np.ndarray, "rankings places"]
    length: Int64[np.ndarray, " rankings"]
    stages: Int64[np.ndarray, " rankings"]


def as_table(rankings: Rankings) -> Table:
    """Return rankings without ties as a rectangle.

    >>> as_table(Rankings.from_lists([["x", "y"], ["y", "x"]])).item.tolist()
    [[0, 1], [1, 0]]
    """
    item, _, start, listed = rankings.entries()
    length = np.diff(start)
    place = np.arange(len(item)) - np.repeat(start[:-1], length)
    owner = np.repeat(np.arange(len(length)), length)
    wide = np.zeros((len(length), int(length.max(initial=1))), np.int64)
    wide[owner, place] = item
    return Table(wide, length.astype(np.int64), listed.astype(np.int64))


def ranking_gradients(
    table: Table, scores: Float64[np.ndarray, " items"]
) -> Float64[np.ndarray, "rankings places"]:
    """Return the derivative of each ranking's log-likelihood by the scores of its items.

    The item chosen at a stage gains 1 minus its probability there, those it was chosen over lose
    theirs.

    >>> table = Table(np.array([[0, 1]]), np.array([2]), np.array([2]))
    >>> ranking_gradients(table, np.zeros(2)).tolist()
    [[0.5, -0.5]]
    """
    places = np.arange(table.item.shape[1])
    listed = places < table.length[:, None]
    value = np.where(listed, scores[table.item], -np.inf)
    gradient = np.zeros(table.item.shape)
    for stage in range(table.item.shape[1]):
        active = (stage < table.stages) & (stage < table.length)
        rest = np.where(active[:, None] & (places >= stage), value, -np.inf)
        top = np.max(rest, axis=1, keepdims=True)
        share = np.exp(rest - np.where(np.isfinite(top), top, 0.0))
        total = share.sum(axis=1, keepdims=True)
        gradient -= np.divide(share, total, out=np.zeros_like(share), where=total > 0)
        gradient[:, stage] += active
    return gradient


def ranking_values(
    table: Table, scores: Float64[np.ndarray, " items"]
) -> Float64[np.ndarray, " rankings"]:
    """Return the log-likelihood of each ranking, in nats.

    >>> table = Table(np.array([[0, 1]]), np.array([2]), np.array([2]))
    >>> ranking_values(table, np.array([np.log(3), 0.0])).round(6).tolist()  # log(3/4)
    [-0.287682]
    """
    places = np.arange(table.item.shape[1])
    value = np.where(places < table.length[:, None], scores[table.item], -np.inf)
    found = np.zeros(len(value))
    for stage in range(table.item.shape[1]):
        active = (stage < table.stages) & (stage < table.length)
        rest = value[active, stage:]
        top = rest.max(axis=1)
        found[active] += rest[:, 0] - top - np.log(np.exp(rest - top[:, None]).sum(axis=1))
    return found


class RankingTerms:
    """The penalised log-likelihood of rankings, as :func:`jaxpref.audit.engine.ascend` climbs it.

    Parameters
    ----------
    rankings : Rankings
        Without ties.
    ridge : float
        The prior's strength.
    """

    def __init__(self, rankings: Rankings, ridge: float) -> None:
        self._rankings, self._ridge, self._table = rankings, ridge, as_table(rankings)
        self._scores = np.zeros(rankings.num_items)

    def value(self, scores: Float64[np.ndarray, " items"]) -> float:
        """Return the penalised log-likelihood, in nats."""
        each = ranking_values(self._table, scores)
        return float(self._rankings.weight @ each) - self._ridge * float(scores @ scores) / 2

    def gradient(self, scores: Float64[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
        """Return the penalised gradient."""
        self._scores = scores
        each = ranking_gradients(self._table, scores) * self._rankings.weight[:, None]
        total = np.bincount(self._table.item.ravel(), each.ravel(), len(scores))
        return total - self._ridge * scores

    def information(self) -> Float64[np.ndarray, "items items"]:
        """Return the information where the gradient was asked for, without the prior."""
        return rankings_information(self._rankings, self._scores)


class RankingProfile(Profile):
    """The models within a loss of the best one of rankings.

    Parameters
    ----------
    fit : RankingFit
        A converged fit without tie parameters.
    inverse : (items, items)
        Inverse of its information, in the gauge of sum zero.
    loss : float > 0
        Nats of (penalised) log-likelihood that may be given up.
    """

    def __init__(
        self, fit: RankingFit, inverse: Float64[np.ndarray, "items items"], loss: float
    ) -> None:
        self._terms, self._ridge = RankingTerms(fit.rankings, fit.ridge), fit.ridge
        self._inverse, self._scores, self.loss = inverse, fit.scores, loss
        self._best = self.value(fit.scores)

    def value(self, scores: Float64[np.ndarray, " items"]) -> float:
        """Return the penalised log-likelihood, in nats."""
        return self._terms.value(scores)

    def climb(
        self, scores: Float64[np.ndarray, " items"], tilt: Float64[np.ndarray, " items"]
    ) -> Float64[np.ndarray, " items"] | None:
        """Return where the log-likelihood plus tilt^T s is largest, None if it is not reached."""
        return ascend(self._terms, self._ridge, scores, tilt, self._inverse)
