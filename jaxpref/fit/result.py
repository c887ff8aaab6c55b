"""What a fit returns: scores with their uncertainty, and how the search ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float64

from .._checks import InputError, closest_names
from ..data.comparisons import PairCounts
from ..data.graph import Components
from ..links import Link
from .likelihood import predict

Status = Literal["converged", "max_steps", "stalled"]


class LeaderboardRow(NamedTuple):
    """One line of a leaderboard, best first.

    `rank` counts from 1; `score` and `standard_error` are in nats, in the gauge where scores sum
    to zero; `wins` (half wins included, where ties count as such) are out of `comparisons`.
    """

    rank: int
    item: str
    score: float
    standard_error: float
    wins: float
    comparisons: float


class FitResult(eqx.Module):
    """Scores fitted to pairwise comparisons.

    Gauge: only differences of scores are determined by comparisons, so scores sum to zero. All
    arrays are NumPy float64, whatever JAX's own default is.

    Attributes
    ----------
    items : tuple of str
        Names, in the order of every array here.
    scores : (items,)
        Scores in nats for the logistic link, in units of the link's scale otherwise; sum zero.
    link : Link
        The link of the model.
    ridge : float
        Strength of the Gaussian prior, penalty ridge/2 times the sum of squared scores.
    ties : str
        What was done with ties.
    status : {"converged", "max_steps", "stalled"}
        How the search ended. Anything but "converged" means that the scores are not the fit.
    gradient_norm : float
        Largest entry of the penalised gradient at the scores, in comparisons (observed wins of an
        item minus expected wins).
    step_size : float
        Largest change of a score in the last Newton step.
    steps : int
        Newton steps taken.
    log_likelihood : float
        Of the comparisons at the scores, in nats, without the prior.
    pairs : PairCounts
        The counts fitted, one row per observed pair, after ties were dealt with.
    components : Components
        Strong components of the graph "was beaten by"; more than one only with a ridge.
    islands : Components
        Weak components of that graph. Across islands only the ridge speaks.
    """

    items: tuple[str, ...] = eqx.field(static=True)
    scores: Float64[np.ndarray, " items"]
    link: Link
    ridge: float
    ties: str = eqx.field(static=True)
    status: Status = eqx.field(static=True)
    gradient_norm: float
    step_size: float
    steps: int
    log_likelihood: float
    pairs: PairCounts
    components: Components
    islands: Components

    @property
    def num_items(self) -> int:
        """Number of items."""
        return len(self.items)

    def index(self, item: str) -> int:
        """Return the position of an item, or raise with the closest names."""
        try:
            return self.items.index(item)
        except ValueError:
            hint = closest_names(str(item), self.items)
            raise InputError(
                f"item: expected one of the {self.num_items} fitted items; got {item!r}{hint}"
            ) from None

    def margin(self, item_a: str, item_b: str) -> float:
        """Return s_a - s_b, in the units of the scores.

        Raises
        ------
        InputError
            For a name that was not fitted; the message has the closest ones.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 3], [1, 0]], items=("a", "b")))
        >>> round(fit.margin("a", "b"), 6)  # log(3/1)
        1.098612
        """
        return float(self.scores[self.index(item_a)] - self.scores[self.index(item_b)])

    def probability(self, item_a: str, item_b: str) -> float:
        """Return the fitted probability that `item_a` beats `item_b`.

        Raises
        ------
        InputError
            For a name that was not fitted; the message has the closest ones.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 3], [1, 0]], items=("a", "b")))
        >>> round(fit.probability("a", "b"), 12)
        0.75
        """
        margin = np.array([self.margin(item_a, item_b)])
        return float(predict(self.link, margin).probability[0])

    def rank(self) -> tuple[str, ...]:
        """Return the names, highest score first; equal scores in the order of `items`.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit_pairwise(Comparisons.from_counts([[0, 1], [3, 0]], items=("a", "b"))).rank()
        ('b', 'a')
        """
        return tuple(self.items[k] for k in self._order())

    def _order(self) -> np.ndarray:
        return np.argsort(-self.scores, kind="stable")

    @property
    def fisher_information(self) -> Float64[np.ndarray, "items items"]:
        """Expected information of the comparisons about the scores, without the prior.

        The sum over pairs of n_ab g'(m)^2 / (g(m) g(-m)) (e_a - e_b)(e_a - e_b)^T; its rows sum
        to zero. Computed when asked for.
        """
        pairs = self.pairs
        margin = self.scores[pairs.item_a] - self.scores[pairs.item_b]
        p, q, density = predict(self.link, margin)
        # g' / (g (1 - g)) is of order one where g' and g underflow together.
        tail, rest = np.minimum(p, q), np.maximum(p, q)
        ratio = np.divide(density, tail, out=np.zeros_like(tail), where=tail > 0)
        weight = (pairs.wins_a + pairs.wins_b) * density * ratio / rest
        links = np.zeros((self.num_items, self.num_items))
        links[pairs.item_a, pairs.item_b] = weight
        links += links.T
        return np.diag(links.sum(axis=1)) - links

    def covariance(self) -> Float64[np.ndarray, "items items"]:
        """Return the covariance of the scores in the gauge where they sum to zero, nats^2.

        The pseudo-inverse of the Fisher information; with a ridge, of the information plus the
        prior's, restricted to score differences (the normal approximation to the posterior).
        Rows sum to zero. Variances of margins are gauge-free: V_aa + V_bb - 2 V_ab.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
        >>> fit.covariance().tolist()
        [[0.25, -0.25], [-0.25, 0.25]]
        """
        information = self.fisher_information
        size = self.num_items
        prior = self.ridge * np.eye(size)
        # A multiple of the all-ones matrix fills the direction the gauge leaves out; the centring
        # takes it out again.
        shift = np.min(np.diagonal(information)) + self.ridge
        inverse = np.linalg.inv(information + prior + shift / size)
        centred = inverse - inverse.mean(axis=0, keepdims=True)
        centred = centred - centred.mean(axis=1, keepdims=True)
        return (centred + centred.T) / 2

    def standard_errors(self) -> Float64[np.ndarray, " items"]:
        """Return the standard errors of the scores, in the gauge where they sum to zero, nats.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
        >>> fit.standard_errors().tolist()
        [0.5, 0.5]
        """
        return np.sqrt(np.maximum(np.diagonal(self.covariance()), 0.0))

    def to_rows(self) -> list[LeaderboardRow]:
        """Return the leaderboard, best first.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
        >>> fit.to_rows()[0]
        LeaderboardRow(rank=1, item='a', score=0.0, standard_error=0.5, wins=2.0, comparisons=4.0)
        """
        pairs, size = self.pairs, self.num_items
        wins = np.bincount(pairs.item_a, pairs.wins_a, size)
        wins += np.bincount(pairs.item_b, pairs.wins_b, size)
        total = pairs.wins_a + pairs.wins_b
        played = np.bincount(pairs.item_a, total, size) + np.bincount(pairs.item_b, total, size)
        errors = self.standard_errors()
        columns: Sequence[np.ndarray] = (self.scores, errors, wins, played)
        return [
            LeaderboardRow(place + 1, self.items[k], *(float(column[k]) for column in columns))
            for place, k in enumerate(self._order())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the fit as plain numbers, strings and lists, ready for JSON.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
        >>> fit.to_dict()["status"]
        'converged'
        """
        return {
            "model": {"link": self.link.name, "ridge": self.ridge, "ties": self.ties},
            "gauge": "scores sum to zero",
            "status": self.status,
            "gradient_norm": self.gradient_norm,
            "step_size": self.step_size,
            "steps": self.steps,
            "log_likelihood": self.log_likelihood,
            "num_items": self.num_items,
            "num_pairs": len(self.pairs.item_a),
            "num_comparisons": float(np.sum(self.pairs.wins_a + self.pairs.wins_b)),
            "num_components": self.components.count,
            "num_islands": self.islands.count,
            "leaderboard": [row._asdict() for row in self.to_rows()],
        }
