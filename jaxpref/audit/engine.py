r"""Refits of a fit whose counts have changed a little: warm Newton steps on the host, dense.

An audit refits thousands of times, each time a few comparisons away from a fit it already has.
:func:`jaxpref.fit.fit_pairwise` starts from nothing and checks everything; here a refit starts from
the scores at hand, takes three or four Newton steps and ends on the same condition, that a further
step moves no score by more than the tolerance. Where that is not reached, fit_pairwise is asked.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Int64

from .._checks import ConvergenceError, InputError
from ..data.comparisons import Comparisons
from ..fit._host import float64, pad, pair_bucket
from ..fit.likelihood import pair_terms
from ..fit.pairwise import fit_pairwise
from ..fit.rankings_result import gauge_inverse
from ..fit.result import FitResult
from ..links import Link

TOLERANCE = 1e-10
_STEPS, _HALVINGS, _FAR = 40, 30, 1e4
_LEAST_TERM = 1e-300


class Counts(NamedTuple):
    """Wins per pair of items, half wins included; a pair may come up more than once."""

    item_a: Int64[np.ndarray, " pairs"]
    item_b: Int64[np.ndarray, " pairs"]
    wins_a: Float64[np.ndarray, " pairs"]
    wins_b: Float64[np.ndarray, " pairs"]


class Slopes(NamedTuple):
    """Derivatives by the margin of what one comparison adds: won by a, won by b.

    `bend` is minus the second derivative of either.
    """

    win_a: Float64[np.ndarray, " pairs"]
    win_b: Float64[np.ndarray, " pairs"]
    bend_a: Float64[np.ndarray, " pairs"]
    bend_b: Float64[np.ndarray, " pairs"]


class Point(NamedTuple):
    """Scores at a maximum with the inverse of the information there, in the gauge of sum zero."""

    scores: Float64[np.ndarray, " items"]
    inverse: Float64[np.ndarray, "items items"]


def counts_of(fit: FitResult) -> Counts:
    """Return the counts that were fitted."""
    pairs = fit.pairs
    return Counts(
        pairs.item_a.astype(np.int64), pairs.item_b.astype(np.int64), pairs.wins_a, pairs.wins_b
    )


class Engine:
    """Refits under one link and prior.

    Parameters
    ----------
    link : Link
        The link of the fit.
    ridge : float
        Its prior's strength.
    num_items : int
        Number of items; counts hold indices below it.
    """

    def __init__(self, link: Link, ridge: float, num_items: int) -> None:
        self.link, self.ridge, self.num_items = link, float(ridge), num_items
        self.refits = 0

    def slopes(self, margin: Float64[np.ndarray, " pairs"]) -> Slopes:
        """Return what one comparison of either outcome adds to gradient and curvature."""
        if self.link.name == "logistic":
            tail = np.exp(-np.abs(margin))
            far, near = tail / (1 + tail), 1 / (1 + tail)
            p = np.where(margin < 0, far, near)
            q = np.where(margin < 0, near, far)
            return Slopes(q, -p, p * q, p * q)
        size = pair_bucket(len(margin))
        one, none = np.ones(size), np.zeros(size)
        with float64():
            padded = jnp.asarray(pad(margin, size))
            up = _terms(self.link, padded, jnp.asarray(one), jnp.asarray(none))
            down = _terms(self.link, padded, jnp.asarray(none), jnp.asarray(one))
        cut = slice(0, len(margin))
        return Slopes(
            np.asarray(up.gradient)[cut],
            np.asarray(down.gradient)[cut],
            np.asarray(up.curvature)[cut],
            np.asarray(down.curvature)[cut],
        )

    def information(
        self, counts: Counts, scores: Float64[np.ndarray, " items"]
    ) -> tuple[Float64[np.ndarray, " items"], Float64[np.ndarray, "items items"]]:
        """Return the penalised gradient and the observed information, without the prior."""
        a, b, size = counts.item_a, counts.item_b, self.num_items
        slopes = self.slopes(scores[a] - scores[b])
        pull = counts.wins_a * slopes.win_a + counts.wins_b * slopes.win_b
        weight = counts.wins_a * slopes.bend_a + counts.wins_b * slopes.bend_b
        gradient = np.bincount(a, pull, size) - np.bincount(b, pull, size) - self.ridge * scores
        return gradient, laplacian(a, b, weight, size)

    def refit(
        self, counts: Counts, start: Float64[np.ndarray, " items"]
    ) -> Float64[np.ndarray, " items"] | None:
        """Return the scores at the maximum, or None where no finite one is found.

        None is found where none exists (Ford 1957), and where neither the steps from `start` nor
        those of fit_pairwise arrive: scores hundreds of nats apart.
        """
        self.refits += 1
        if self.ridge == 0 and not connected(counts, self.num_items):
            return None
        found = self.climb(counts, start)
        return self._from_nothing(counts) if found is None else found

    def point(self, counts: Counts, scores: Float64[np.ndarray, " items"]) -> Point:
        """Return scores with the inverse information there."""
        _, information = self.information(counts, scores)
        return Point(scores, gauge_inverse(information, self.ridge))

    def climb(
        self,
        counts: Counts,
        scores: Float64[np.ndarray, " items"],
        tilt: Float64[np.ndarray, " items"] | None = None,
    ) -> Float64[np.ndarray, " items"] | None:
        """Return the maximum of the penalised log-likelihood (plus tilt^T s), None if not reached.

        By damped Newton steps from `scores`; a step is kept if the slope along it has not turned
        downhill by more than a third, which for a concave function is a climb.
        """
        extra = 0.0 if tilt is None else tilt
        gradient, information = self.information(counts, scores)
        for _ in range(_STEPS):
            gradient = gradient + extra
            direction = _solve(information, self.ridge, gradient)
            if direction is None:
                return None
            size = float(np.abs(direction).max())
            if not np.isfinite(size) or size > _FAR:
                return None
            if size <= TOLERANCE * max(1.0, float(np.abs(scores).max())):
                return scores + direction
            slope, length, trial = float(gradient @ direction), 1.0, scores
            for _ in range(_HALVINGS):
                trial = scores + length * direction
                gradient, information = self.information(counts, trial)
                later = float((gradient + extra) @ direction)
                if size * length < 1e-6 or later >= -0.3 * slope:
                    break
                length /= 2
            scores = trial - trial.mean()
        return None

    def _from_nothing(self, counts: Counts) -> np.ndarray | None:
        names = tuple(map(str, range(self.num_items)))
        data = Comparisons(names, *counts, np.zeros(len(counts.item_a)))
        try:
            return fit_pairwise(data, link=self.link, ridge=self.ridge).scores
        except (ConvergenceError, InputError):
            return None


def laplacian(
    item_a: np.ndarray, item_b: np.ndarray, weight: Float64[np.ndarray, " pairs"], size: int
) -> Float64[np.ndarray, "items items"]:
    """Return sum over pairs of weight (e_a - e_b)(e_a - e_b)^T.

    >>> laplacian(np.array([0]), np.array([1]), np.array([2.0]), 2).tolist()
    [[2.0, -2.0], [-2.0, 2.0]]
    """
    # Of no pairs at all, bincount returns whole numbers.
    links = np.bincount(item_a * size + item_b, weight, size * size).astype(np.float64)
    links = links.reshape(size, size) + links.reshape(size, size).T
    matrix = -links
    matrix[np.diag_indices(size)] = links.sum(axis=1)
    return matrix


def connected(counts: Counts, num_items: int) -> bool:
    """Whether every item can be reached from every other along wins (Ford 1957).

    >>> pair = np.array([0]), np.array([1])
    >>> connected(Counts(*pair, np.array([2.0]), np.array([1.0])), 2)
    True
    >>> connected(Counts(*pair, np.array([2.0]), np.array([0.0])), 2)
    False
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    up, down = counts.wins_a > 0, counts.wins_b > 0
    start = np.concatenate([counts.item_a[up], counts.item_b[down]])
    end = np.concatenate([counts.item_b[up], counts.item_a[down]])
    graph: Any = coo_array((np.ones(start.size), (start, end)), shape=(num_items, num_items))
    count, _ = connected_components(graph.tocsr(), directed=True, connection="strong")
    return int(count) <= 1


def _solve(information: np.ndarray, ridge: float, gradient: np.ndarray) -> np.ndarray | None:
    """Return the Newton step in the gauge of sum zero, None where rounding hides it."""
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    matrix = information
    diagonal = np.diag_indices(len(gradient))
    weakest = float(matrix[diagonal].min()) + ridge
    if not weakest > _LEAST_TERM:
        return None
    matrix += weakest / len(gradient)
    matrix[diagonal] += ridge
    try:
        step = cho_solve(cho_factor(matrix, lower=True, overwrite_a=True), gradient)
    except (LinAlgError, ValueError):
        return None
    return step - step.mean()


_terms = eqx.filter_jit(pair_terms)
