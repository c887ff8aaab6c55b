r"""How far models that fit almost as well disagree: predictive multiplicity.

Over all scores whose (penalised) log-likelihood is within a loss epsilon of the best, a margin
ranges between the two solutions of a constrained problem. With a multiplier t it is the maximum of
l(s) + t u^T s, a fit of its own whose gradient is tilted by t u; t is found by bisection on the
loss. By the curvature at the best fit alone the range is m -+ sqrt(2 epsilon u^T V u).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from ..fit.likelihood import predict
from ..fit.rankings_result import RankingFit
from ..fit.result import FitResult
from .engine import Engine
from .pairs import Progress
from .records import Multiplicity, Range
from .terms import Counts, counts_of

_HALVINGS, _TOLERANCE = 40, 1e-9
MOST_ITEMS = 1500


def multiplicity(
    fit: FitResult,
    pairs: Sequence[tuple[int, int]],
    *,
    loss: float,
    progress: Progress | None = None,
) -> Multiplicity:
    """Return the ranges of some predictions over all models within a loss, in nats, of the best."""
    counts, engine = counts_of(fit), Engine(fit.link, fit.ridge, fit.num_items)
    inverse = engine.point(counts, fit.scores).inverse
    profile = Profile(engine, counts, fit.scores, loss)
    return ranges(fit, inverse, profile, pairs, progress)


def ranges(
    fit: FitResult | RankingFit,
    inverse: Float64[np.ndarray, "items items"],
    profile: Profile,
    pairs: Sequence[tuple[int, int]],
    progress: Progress | None = None,
) -> Multiplicity:
    """Return how far near-best models of a fit disagree, given the inverse of its information."""
    a, b = np.triu_indices(fit.num_items, 1)
    own = np.diagonal(inverse)
    margin = fit.scores[a] - fit.scores[b]
    loss = profile.loss
    reach = np.sqrt(np.maximum(2 * loss * (own[a] + own[b] - 2 * inverse[a, b]), 0.0))
    high = predict(fit.link, margin + reach).probability
    width = high - predict(fit.link, margin - reach).probability
    rows = []
    for done, pair in enumerate(pairs):
        rows.append(_range(fit, inverse, profile, pair))
        if progress is not None:
            progress(done + 1, len(pairs))
    return Multiplicity(
        loss=loss,
        share_reversible=float(np.mean(reach > np.abs(margin))),
        largest_width=float(np.max(width)),
        rows=tuple(rows),
    )


def _range(
    fit: FitResult | RankingFit,
    inverse: Float64[np.ndarray, "items items"],
    profile: Profile,
    pair: tuple[int, int],
) -> Range:
    first, second = pair
    margin = float(fit.scores[first] - fit.scores[second])
    unit = np.zeros(fit.num_items)
    unit[[first, second]] = 1.0, -1.0
    reach = float(np.sqrt(2 * profile.loss * (unit @ inverse @ unit)))
    ends = [
        margin - reach,
        margin + reach,
        -profile.extreme(-unit, reach),
        profile.extreme(unit, reach),
    ]
    chance = predict(fit.link, np.array([margin, *ends])).probability
    return Range(
        item_a=fit.items[first],
        item_b=fit.items[second],
        probability=float(chance[0]),
        low=float(chance[3]),
        high=float(chance[4]),
        quadratic_low=float(chance[1]),
        quadratic_high=float(chance[2]),
        reversible=ends[2] < 0 < ends[3],
    )


class Profile:
    """The models within a loss of the best one.

    Parameters
    ----------
    engine : Engine
        Link and prior.
    counts : Counts
        What was fitted.
    scores : (items,)
        The best scores.
    loss : float > 0
        Nats of (penalised) log-likelihood that may be given up.
    """

    def __init__(
        self, engine: Engine, counts: Counts, scores: Float64[np.ndarray, " items"], loss: float
    ) -> None:
        self._engine, self._counts, self._scores, self.loss = engine, counts, scores, loss
        self._best = self.value(scores)

    def value(self, scores: Float64[np.ndarray, " items"]) -> float:
        """Return the penalised log-likelihood, in nats."""
        counts, link = self._counts, self._engine.link
        chance = predict(link, scores[counts.item_a] - scores[counts.item_b])
        total = -self._engine.ridge * float(scores @ scores) / 2
        for wins, p in ((counts.wins_a, chance.probability), (counts.wins_b, chance.opposite)):
            played = wins > 0
            total += float(np.sum(wins[played] * np.log(np.maximum(p[played], 1e-320))))
        return total

    def climb(
        self, scores: Float64[np.ndarray, " items"], tilt: Float64[np.ndarray, " items"]
    ) -> Float64[np.ndarray, " items"] | None:
        """Return where the log-likelihood plus tilt^T s is largest, None if it is not reached."""
        return self._engine.climb(self._counts, scores, tilt)

    def extreme(self, unit: Float64[np.ndarray, " items"], reach: float) -> float:
        """Return the largest u^T s within the loss.

        `reach` is how far the quadratic approximation says it is from the fit.
        """
        low, high = 0.0, np.inf
        tilt = 2 * self.loss / reach  # the multiplier, were the likelihood quadratic
        scores = self._scores
        for _ in range(_HALVINGS):
            found = self.climb(scores, tilt * unit)
            spent = np.inf if found is None else self._best - self.value(found)
            if found is not None and spent <= self.loss:
                low, scores = tilt, found
            else:
                high = tilt
            if abs(spent - self.loss) <= max(_TOLERANCE * self.loss, 1e-13 * abs(self._best)):
                scores = scores if found is None else found
                break
            if np.isinf(high):
                tilt = low * max(min(np.sqrt(self.loss / max(spent, 1e-300)), 4.0), 1.01)
            else:
                guess = tilt * np.sqrt(self.loss / spent) if 0 < spent < np.inf else 0.0
                tilt = guess if low < guess < high else (low + high) / 2
        return float(unit @ scores)
