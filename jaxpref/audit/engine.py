r"""Refits of a fit whose counts have changed a little: warm Newton steps on the host, dense.

An audit refits thousands of times, each time a few comparisons away from a fit it already has.
:func:`jaxpref.fit.fit_pairwise` starts from nothing and checks everything; here a refit starts from
the scores at hand, takes a few steps and ends on the same condition, that a further step moves no
score by more than the tolerance. Steps go on with the inverse information of the fit before as long
as each is a small fraction of the last; then it is factored anew. Where all that does not arrive,
fit_pairwise is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from .._checks import ConvergenceError, InputError
from ..data.comparisons import Comparisons
from ..fit.pairwise import fit_pairwise
from ..fit.rankings_result import gauge_inverse
from ..links import Link
from .terms import (
    MOST_ITEMS,
    Counts,
    ListedTerms,
    MatrixTerms,
    Slopes,
    Terms,
    all_reached,
    connected,
    slopes_between,
    wins_matrix,
)

TOLERANCE = 1e-10
_STEPS, _HALVINGS, _FAR = 60, 30, 1e4
_GOOD = 0.03
"""Steps that shrink at least so fast go on with the factor they have."""
_LEAST_TERM = 1e-300
Solver = Callable[[Float64[np.ndarray, " items"]], Float64[np.ndarray, " items"]]


class Point(NamedTuple):
    """Scores at a maximum with the inverse of the information there, in the gauge of sum zero."""

    scores: Float64[np.ndarray, " items"]
    inverse: Float64[np.ndarray, "items items"]


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
        self._base: tuple[Counts, np.ndarray] | None = None
        self._last: tuple[Counts, np.ndarray] | None = None
        self._rooms: np.ndarray | None = None
        self._spare = np.empty((0, 0))
        self._matrix = link.name == "logistic" and num_items <= MOST_ITEMS

    def slopes(
        self,
        scores: Float64[np.ndarray, " items"],
        item_a: Int64[np.ndarray, " pairs"],
        item_b: Int64[np.ndarray, " pairs"],
    ) -> Slopes:
        """Return what one comparison of either outcome adds to gradient and curvature."""
        return slopes_between(self.link, scores, item_a, item_b)

    def information(
        self, counts: Counts, scores: Float64[np.ndarray, " items"]
    ) -> tuple[Float64[np.ndarray, " items"], Float64[np.ndarray, "items items"]]:
        """Return the penalised gradient and the observed information, without the prior."""
        for terms in self._terms(counts):
            gradient = terms.gradient(scores)
            if gradient is not None:
                return gradient, terms.information()
        raise AssertionError("listed terms have a gradient everywhere")

    def refit(
        self,
        counts: Counts,
        start: Float64[np.ndarray, " items"],
        inverse: Float64[np.ndarray, "items items"] | None = None,
    ) -> Float64[np.ndarray, " items"] | None:
        """Return the scores at the maximum, or None where no finite one is found.

        None is found where none exists (Ford 1957), and where neither the steps from `start` nor
        those of fit_pairwise arrive: scores hundreds of nats apart. `inverse` is that of the
        information near by, if there is one, in the gauge of sum zero.
        """
        self.refits += 1
        if self.ridge == 0 and not self._exists(counts):
            return None
        found = self.climb(counts, start, inverse=inverse)
        return self._from_nothing(counts) if found is None else found

    def _exists(self, counts: Counts) -> bool:
        if self.num_items <= MOST_ITEMS:
            beats = self._wins(counts) > 0
            sides = all_reached(beats), all_reached(beats.T)
            if False in sides or None not in sides:
                return False not in sides
        return connected(counts, self.num_items)

    def point(self, counts: Counts, scores: Float64[np.ndarray, " items"]) -> Point:
        """Return scores with the inverse information there."""
        from scipy.linalg.lapack import dpotri  # pyright: ignore[reportAttributeAccessIssue]

        _, information = self.information(counts, scores)
        factor = _factor(information.copy(), self.ridge)
        half, status = (None, 1) if factor is None else dpotri(factor, lower=1, overwrite_c=1)
        if half is None or status != 0:
            return Point(scores, gauge_inverse(information, self.ridge))
        inverse = half + half.T
        diagonal = inverse.ravel()[:: len(inverse) + 1]
        diagonal /= 2
        means = np.add.reduce(inverse) / len(inverse)
        inverse -= means
        inverse -= (means - np.add.reduce(means) / len(means))[:, None]
        return Point(scores, inverse)

    def climb(
        self,
        counts: Counts,
        scores: Float64[np.ndarray, " items"],
        tilt: Float64[np.ndarray, " items"] | None = None,
        inverse: Float64[np.ndarray, "items items"] | None = None,
    ) -> Float64[np.ndarray, " items"] | None:
        """Return the maximum of the penalised log-likelihood (plus tilt^T s), None if not reached.

        By damped Newton steps from `scores`; a step is kept if the slope along it has not turned
        downhill by more than a third, which for a concave function is a climb.
        """
        for terms in self._terms(counts):
            found = ascend(terms, self.ridge, scores, tilt, inverse)
            if found is not None:
                return found
        return None

    def _terms(self, counts: Counts) -> list[Terms]:
        """Return the counts as they are fastest summed over, and as what sums over any scores."""
        size = self.num_items
        listed = ListedTerms(self.link, counts, size, self.ridge)
        if not self._matrix:
            return [listed]
        if self._rooms is None:
            self._rooms = np.empty((3, size, size))
        return [MatrixTerms(self._wins(counts), self.ridge, self._rooms), listed]

    def _wins(self, counts: Counts) -> Float64[np.ndarray, "items items"]:
        """Return the wins as a matrix, not to be written to, until those of other counts."""
        if self._last is None or self._last[0] is not counts:
            self._last = counts, self._changed(counts)
        return self._last[1]

    def _changed(self, counts: Counts) -> np.ndarray:
        """Return the wins, those of earlier counts where they are of the same pairs."""
        if self._base is None or self._base[0].item_a is not counts.item_a:
            wins = wins_matrix(counts, self.num_items)
            pairs = counts.item_a * self.num_items + counts.item_b
            if self._base is None and np.all(pairs[1:] > pairs[:-1]):  # each once
                self._base, self._spare = (counts, wins), np.empty_like(wins)
            return wins
        base, wins = self._base
        np.copyto(self._spare, wins)
        for up, before, one, other in (
            (counts.wins_a, base.wins_a, counts.item_a, counts.item_b),
            (counts.wins_b, base.wins_b, counts.item_b, counts.item_a),
        ):
            here = np.flatnonzero(up != before)
            self._spare[one[here], other[here]] = up[here]
        return self._spare

    def _from_nothing(self, counts: Counts) -> np.ndarray | None:
        names = tuple(map(str, range(self.num_items)))
        data = Comparisons(names, *counts, np.zeros(len(counts.item_a)))
        try:
            return fit_pairwise(data, link=self.link, ridge=self.ridge).scores
        except (ConvergenceError, InputError):
            return None


def ascend(
    terms: Terms,
    ridge: float,
    scores: Float64[np.ndarray, " items"],
    tilt: Float64[np.ndarray, " items"] | None = None,
    inverse: Float64[np.ndarray, "items items"] | None = None,
) -> Float64[np.ndarray, " items"] | None:
    """Return where a penalised log-likelihood (plus tilt^T s) is largest, None if not reached."""
    extra = 0.0 if tilt is None else tilt
    solve: Solver | None = None if inverse is None else inverse.__matmul__
    gradient, last, current = terms.gradient(scores), np.inf, False
    for _ in range(_STEPS):
        if gradient is None:
            return None
        if solve is None:
            solve, current = _solver(terms.information(), ridge), True
            if solve is None:
                return None
        pull = gradient + extra
        direction = solve(pull)
        size = float(np.abs(direction).max())
        shrink = 1.0 if current or np.isinf(last) else min(10 * size / last, 1.0)
        arrived = size * shrink <= TOLERANCE * max(1.0, float(np.abs(scores).max()))
        if not current and (arrived if np.isinf(last) else not size <= _GOOD * last):
            solve = None  # an old factor is trusted for as long as its steps shrink
            continue
        if not np.isfinite(size) or size > _FAR:
            return None
        if arrived:
            return scores + direction
        scores, gradient = _advance(terms, scores, pull, direction, extra)
        last, current = size, False
    return None


def _advance(
    terms: Terms,
    scores: np.ndarray,
    pull: np.ndarray,
    direction: np.ndarray,
    extra: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the scores a step further, shortened while it goes too far, and the gradient there."""
    slope, size, length = float(pull @ direction), float(np.abs(direction).max()), 1.0
    trial, gradient = scores, None
    for _ in range(_HALVINGS):
        trial = scores + length * direction
        trial -= np.add.reduce(trial) / len(trial)
        gradient = terms.gradient(trial)
        if gradient is None:
            break
        later = float((gradient + extra) @ direction)
        if size * length < 1e-6 or later >= -0.3 * slope:
            break
        length /= 2
    return trial, gradient


def _solver(information: np.ndarray, ridge: float) -> Solver | None:
    """Return what takes a gradient to the Newton step of sum zero, None where rounding hides it."""
    from scipy.linalg.lapack import dpotrs  # pyright: ignore[reportAttributeAccessIssue]

    factor = _factor(information, ridge)
    if factor is None:
        return None

    def solve(gradient: np.ndarray) -> np.ndarray:
        step = dpotrs(factor, gradient, lower=1)[0]
        return step - np.add.reduce(step) / len(step)

    return solve


def _factor(information: np.ndarray, ridge: float) -> np.ndarray | None:
    """Return the Cholesky factor of information and prior, in place of it; None if there is none.

    A multiple of the all-ones matrix fills the direction that the gauge leaves out.
    """
    from scipy.linalg.lapack import dpotrf  # pyright: ignore[reportAttributeAccessIssue]

    size = len(information)
    diagonal = information.ravel()[:: size + 1]
    weakest = float(diagonal.min()) + ridge
    if not weakest > _LEAST_TERM:
        return None
    information += weakest / size
    diagonal += ridge
    factor, status = dpotrf(information.T, lower=1, overwrite_a=1, clean=1)
    return factor if status == 0 else None
