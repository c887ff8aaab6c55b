"""What a fit to rankings returns: the same questions as a fit to comparisons answers."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from ..data.rankings import Rankings, group_starts
from ..links import Link, logistic
from ._host import float64
from .base import BaseFit, gauge_inverse
from .design import Effect
from .rankings_information import rankings_information
from .rankings_newton import dense_hessian
from .rankings_problems import Problem
from .rankings_setup import prepare
from .rankings_storage import read_rankings_record, write_rankings_record


@dataclass(frozen=True, eq=False, repr=False)
class RankingFit(BaseFit):
    """Plackett-Luce scores fitted to rankings.

    Attributes, besides those of :class:`jaxpref.fit.base.BaseFit`:

    Attributes
    ----------
    tie_orders : tuple of int
        Sizes of the groups of ties that have a parameter, from 2.
    log_tie_parameters : (orders,)
        log delta of each of those sizes, in nats: at 0 a tie of k items is as likely as the first
        place of one item as strong as their geometric mean.
    rankings : Rankings
        What was fitted.
    """

    tie_orders: tuple[int, ...]
    log_tie_parameters: Float64[np.ndarray, " orders"]
    rankings: Rankings

    @property
    def link(self) -> Link:
        """The link of two items ranked alone: logistic (Plackett-Luce has no other)."""
        return logistic

    def probability(self, item_a: str, item_b: str) -> float:
        """Return the probability that `item_a` is ranked above `item_b`, the two alone.

        With tie parameters the rest up to 1 is shared by the opposite and
        :meth:`tie_probability`.

        Raises
        ------
        InputError
            For a name that was not fitted; the message has the closest ones.

        >>> from jaxpref.data import Rankings
        >>> from jaxpref.fit import fit_rankings
        >>> fit = fit_rankings(Rankings.from_lists([["x", "y"]] * 3 + [["y", "x"]]))
        >>> round(fit.probability("x", "y"), 12)
        0.75
        """
        margin = self.margin(item_a, item_b)
        return 1.0 / (1.0 + math.exp(min(-margin, 700.0)) + self._tie_weight(margin))

    def tie_probability(self, item_a: str, item_b: str) -> float:
        """Return the probability that the two, ranked alone, tie; 0 without a parameter for it.

        >>> from jaxpref.data import Rankings
        >>> from jaxpref.fit import fit_rankings
        >>> votes = Rankings.from_lists([["x", "y"], ["y", "x"], [["x", "y"]]])
        >>> round(fit_rankings(votes, ties="davidson_luce").tie_probability("x", "y"), 12)
        0.333333333333
        """
        margin = self.margin(item_a, item_b)
        return self._tie_weight(margin) * self.probability(item_a, item_b)

    def _tie_weight(self, margin: float) -> float:
        """Return how much likelier a tie is than the first item standing first."""
        if 2 not in self.tie_orders:
            return 0.0
        log_delta = float(self.log_tie_parameters[self.tie_orders.index(2)])
        return math.exp(min(log_delta - margin / 2, 700.0))

    @property
    def fisher_information(self) -> Float64[np.ndarray, "items items"]:
        """Information of the rankings about the scores, without the prior, nats^-2.

        Given the choice sets that were reached, where observed and expected information agree.
        Tie parameters, where there are any, count as unknown too (their Schur complement is
        taken). Its rows sum to zero. Computed when asked for.
        """
        if not self.tie_orders:
            return rankings_information(self.rankings, self.scores)
        full = self.full_information()
        size = self.num_items
        cross = full[:size, size:]
        return full[:size, :size] - cross @ np.linalg.solve(full[size:, size:], cross.T)

    @property
    def effects(self) -> tuple[Effect, ...]:
        """The log tie parameters, "tie of 2" first; computed when asked for.

        >>> from jaxpref.data import Rankings
        >>> from jaxpref.fit import fit_rankings
        >>> votes = Rankings.from_lists([["x", "y"], ["y", "x"], [["x", "y"]]])
        >>> fit = fit_rankings(votes, ties="davidson_luce")
        >>> [(effect.name, round(effect.standard_error, 6)) for effect in fit.effects]
        [('tie of 2', 1.224745)]
        """
        errors = self.tie_standard_errors()
        parameters = zip(self.tie_orders, self.log_tie_parameters, errors, strict=True)
        return tuple(
            Effect(f"tie of {order}", "tie", float(value), float(error))
            for order, value, error in parameters
        )

    def full_information(self) -> np.ndarray:
        """Return the information about scores and log tie parameters together."""
        if not self.tie_orders:
            return rankings_information(self.rankings, self.scores)
        with float64():
            ready = prepare(self.rankings, self.rankings.weight, tied=True)
            padded = np.zeros(ready.start.size)
            padded[: self.num_items] = self.scores
            padded[padded.size - len(self.tie_orders) :] = self.log_tie_parameters
            matrix = np.asarray(_tied_information(ready.problem, jnp.asarray(padded)))
        keep = np.r_[0 : self.num_items, padded.size - len(self.tie_orders) : padded.size]
        return matrix[np.ix_(keep, keep)]

    def covariance(self) -> Float64[np.ndarray, "items items"]:
        """Return the covariance of the scores in the gauge where they sum to zero, nats^2.

        The pseudo-inverse of the information; with a ridge, of the information plus the prior's,
        restricted to score differences. Rows sum to zero. Variances of margins are gauge-free:
        V_aa + V_bb - 2 V_ab.

        >>> from jaxpref.data import Rankings
        >>> from jaxpref.fit import fit_rankings
        >>> fit = fit_rankings(Rankings.from_lists([["x", "y"], ["y", "x"]] * 2))
        >>> fit.covariance().round(12).tolist()
        [[0.25, -0.25], [-0.25, 0.25]]
        """
        return gauge_inverse(self.fisher_information, self.ridge)

    def tie_standard_errors(self) -> Float64[np.ndarray, " orders"]:
        """Return the standard errors of the log tie parameters, nats; empty without any."""
        if not self.tie_orders:
            return np.zeros(0)
        full, size = self.full_information(), self.num_items
        inverse = gauge_inverse(full[:size, :size], self.ridge)
        cross = full[:size, size:]
        schur = full[size:, size:] - cross.T @ inverse @ cross
        return np.sqrt(np.diagonal(np.linalg.inv(schur)))

    def _tally(self) -> tuple[np.ndarray, np.ndarray]:
        return _pairs_won(self.rankings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit, with its rankings, to two files: JSON for reading, npz for the arrays.

        Parameters
        ----------
        path : str or path
            Where to; ``.json`` and ``.npz`` take the place of its suffix.

        Raises
        ------
        InputError
            If there is no such folder.
        """
        write_rankings_record(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RankingFit:
        """Read what :meth:`save` wrote, every number as it was.

        Raises
        ------
        InputError
            If there is no such file.
        DataError
            If the files are damaged, were not saved together, or are of an unknown version.
        """
        return cls(**read_rankings_record(path))

    def _model_facts(self) -> dict[str, Any]:
        return {
            "name": "plackett_luce",
            "link": self.link.name,
            "ridge": self.ridge,
            "ties": self.ties,
            "unlisted": self.rankings.unlisted,
            "tie_parameters": {
                str(order): math.exp(float(value))
                for order, value in zip(self.tie_orders, self.log_tie_parameters, strict=True)
            },
        }

    def _data_facts(self) -> dict[str, Any]:
        return {"num_rankings": self.rankings.num_rankings}


@eqx.filter_jit
def _tied_information(problem: Problem, parameters: jax.Array) -> jax.Array:
    return dense_hessian(problem, problem.evaluate(parameters))


def _pairs_won(rankings: Rankings) -> tuple[np.ndarray, np.ndarray]:
    """Return per item the weight of pairs won, ties as half, and of all pairs it stood in."""
    item, rank, start, listed = rankings.entries()
    lengths = np.diff(start)
    first = group_starts(rank, start)
    size = np.diff(first, append=item.size)
    place = np.repeat(first, size) - np.repeat(start[:-1], lengths)
    tied = np.repeat(size, size) - 1
    unlisted = np.arange(item.size) - np.repeat(start[:-1], lengths) >= np.repeat(listed, lengths)
    tied = np.where(unlisted, 0, tied)
    below = np.where(unlisted, 0, np.repeat(lengths, lengths) - place - tied - 1)
    each = np.repeat(rankings.weight, lengths)
    wins = np.bincount(item, each * (below + tied / 2), rankings.num_items)
    return wins, np.bincount(item, each * (below + tied + place), rankings.num_items)
