"""What a fit returns: scores with their uncertainty, and how the search ended."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from .._checks import DisconnectedComparisonsError, InputError, check_option, closest_names
from ..data.comparisons import PairCounts
from ..data.graph import Components
from ..links import Link
from .design import Design, Effect
from .information import expected_information
from .outcomes import TIE_MODELS, outcome_probabilities
from .storage import read_record, write_record

Status = Literal["converged", "max_steps", "stalled"]
Order = Literal["neutral", "first", "second"]
ORDERS = ("neutral", "first", "second")


class OutcomeProbabilities(NamedTuple):
    """Probabilities that the first named item wins, that it loses, and of a tie; sum 1."""

    win: float
    loss: float
    tie: float


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


@dataclass(frozen=True, eq=False, repr=False)
class FitResult:
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
    effects : tuple of Effect
        Coefficients fitted besides the scores: order effect, covariates, tie parameter (last).
    effect_covariance : (effects, effects) or None
        Their covariance, from the observed information with the scores profiled out.
    design : Design or None
        The cells and columns fitted, None for a plain fit of scores to `pairs`.
    unlinked : tuple of str
        Items of the data that are not in this fit, their component being fitted on its own.
    """

    items: tuple[str, ...]
    scores: Float64[np.ndarray, " items"]
    link: Link
    ridge: float
    ties: str
    status: Status
    gradient_norm: float
    step_size: float
    steps: int
    log_likelihood: float
    pairs: PairCounts
    components: Components
    islands: Components
    effects: tuple[Effect, ...] = ()
    effect_covariance: Float64[np.ndarray, "effects effects"] | None = None
    design: Design | None = None
    unlinked: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether only scores were fitted: two outcomes, no order effect, no covariates."""
        return self.design is None

    @property
    def num_items(self) -> int:
        """Number of items."""
        return len(self.items)

    def index(self, item: str) -> int:
        """Return the position of an item, or raise with the closest names."""
        try:
            return self.items.index(item)
        except ValueError:
            if item in self.unlinked:
                raise DisconnectedComparisonsError(
                    f"item: {item!r} is in another component of the comparisons: without a prior "
                    "(ridge=0.1, or --ridge 0.1) nothing puts it on the scale of this fit"
                ) from None
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

    def probability(self, item_a: str, item_b: str, *, order: Order = "neutral") -> float:
        """Return the fitted probability that `item_a` beats `item_b`.

        Where ties are modelled, a tie is not a win: see :meth:`outcomes`. `order` says which of
        the two is shown first, which matters to a fit with an order effect; covariates of the
        comparison are taken to be 0.

        Raises
        ------
        InputError
            For a name that was not fitted; the message has the closest ones.
        DisconnectedComparisonsError
            For an item of another component, in a fit by components.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 3], [1, 0]], items=("a", "b")))
        >>> round(fit.probability("a", "b"), 12)
        0.75
        """
        return self.outcomes(item_a, item_b, order=order).win

    def outcomes(
        self, item_a: str, item_b: str, *, order: Order = "neutral"
    ) -> OutcomeProbabilities:
        """Return the fitted probabilities that `item_a` wins, that `item_b` does, and of a tie.

        >>> import numpy as np
        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> one, two = np.array([0]), np.array([1])
        >>> votes = Comparisons(("a", "b"), one, two, 2.0 + one, 1.0 + one, 1.0 + one)
        >>> fit = fit_pairwise(votes, ties="davidson")
        >>> [round(chance, 9) for chance in fit.outcomes("a", "b")]
        [0.5, 0.25, 0.25]
        """
        side = {"neutral": 0.0, "first": 1.0, "second": -1.0}[check_option("order", order, ORDERS)]
        margin = np.array([self.margin(item_a, item_b) + side * self._sum_of("order")])
        model = self.ties if self.ties in TIE_MODELS else None
        found = outcome_probabilities(self.link, model, margin, self._sum_of("tie"))
        return OutcomeProbabilities(*(float(chance[0]) for chance in found))

    def _sum_of(self, kind: str) -> float:
        return sum((effect.estimate for effect in self.effects if effect.kind == kind), 0.0)

    def effect(self, name: str) -> Effect:
        """Return a coefficient by name: "order", "tie" or a covariate's name.

        Raises
        ------
        InputError
            For a coefficient that was not fitted.
        """
        for effect in self.effects:
            if effect.name == name:
                return effect
        known = [effect.name for effect in self.effects]
        hint = closest_names(name, known)
        raise InputError(f"name: expected one of {known}; got {name!r}{hint}")

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
        to zero. Where other coefficients were fitted, what is left for the scores once these are
        profiled out. Computed when asked for.
        """
        return expected_information(self)

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
        if self.design is not None and not self.design.own_scores:
            return self._explained_covariance()
        information = self.fisher_information
        size = self.num_items
        prior = self.ridge * self._unexplained()
        # A multiple of the all-ones matrix fills the direction the gauge leaves out; the centring
        # takes it out again.
        shift = np.min(np.diagonal(information)) + self.ridge
        inverse = np.linalg.inv(information + prior + shift / size)
        centred = inverse - inverse.mean(axis=0, keepdims=True)
        centred = centred - centred.mean(axis=1, keepdims=True)
        return (centred + centred.T) / 2

    def _unexplained(self) -> Float64[np.ndarray, "items items"]:
        """Return the projection away from the item covariates, whose coefficients have no prior."""
        identity = np.eye(self.num_items)
        if self.design is None or not self.design.item_columns.shape[1]:
            return identity
        basis, _ = np.linalg.qr(self.design.item_columns)
        return identity - basis @ basis.T

    def _explained_covariance(self) -> Float64[np.ndarray, "items items"]:
        """Return the covariance of scores that are sums of item covariates."""
        if self.design is None or self.effect_covariance is None:
            raise InputError("design: expected a fit explained by item covariates; got none")
        kinds = [kind for _, kind in self.design.names]
        keep = [k for k, kind in enumerate(kinds) if kind == "item_covariate"]
        x = self.design.item_features
        return x @ self.effect_covariance[np.ix_(keep, keep)] @ x.T

    def standard_errors(self) -> Float64[np.ndarray, " items"]:
        """Return the standard errors of the scores, in the gauge where they sum to zero, nats.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
        >>> fit.standard_errors().tolist()
        [0.5, 0.5]
        """
        return np.sqrt(np.maximum(np.diagonal(self.covariance()), 0.0))

    def __repr__(self) -> str:
        return f"FitResult({self.num_items:,} items, {self.status} after {self.steps} steps)"

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
        total = pairs.wins_a + pairs.wins_b + pairs.ties
        played = np.bincount(pairs.item_a, total, size) + np.bincount(pairs.item_b, total, size)
        errors = self.standard_errors()
        columns: Sequence[np.ndarray] = (self.scores, errors, wins, played)
        return [
            LeaderboardRow(place + 1, self.items[k], *(float(column[k]) for column in columns))
            for place, k in enumerate(self._order())
        ]

    def to_frame(self, *, backend: Literal["polars", "pandas", "dict"] = "polars") -> Any:
        """Return the leaderboard, best first, as a table with the columns of LeaderboardRow.

        Parameters
        ----------
        backend : {"polars", "pandas", "dict"}
            What to return: a DataFrame of either library, imported now, or a dict of lists.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
        >>> fit.to_frame(backend="dict")["item"]
        ['a', 'b']
        """
        check_option("backend", backend, ("polars", "pandas", "dict"))
        rows = self.to_rows()
        table = {name: [getattr(row, name) for row in rows] for name in LeaderboardRow._fields}
        return table if backend == "dict" else importlib.import_module(backend).DataFrame(table)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to two files: JSON for reading, npz for the arrays, both replaced whole.

        Parameters
        ----------
        path : str or path
            Where to; ``.json`` and ``.npz`` take the place of its suffix.

        Raises
        ------
        InputError
            If there is no such folder.
        """
        write_record(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, link: Link | None = None) -> FitResult:
        """Read what :meth:`save` wrote, every number as it was.

        Parameters
        ----------
        path : str or path
            As given to :meth:`save`.
        link : Link, optional
            The link, where it is a user's own: only its name is in the file.

        Raises
        ------
        InputError
            If there is no such file, or a link of the user's own is not given.
        DataError
            If the files are damaged, were not saved together, or are of an unknown version.
        """
        return cls(**read_record(path, link))

    def _num_comparisons(self) -> float:
        return float(np.sum(self.pairs.wins_a + self.pairs.wins_b + self.pairs.ties))

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
            "num_comparisons": self._num_comparisons(),
            "effects": [effect._asdict() for effect in self.effects],
            "num_components": self.components.count,
            "num_islands": self.islands.count,
            "leaderboard": [row._asdict() for row in self.to_rows()],
        }
