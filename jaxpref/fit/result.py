"""What a fit to pairwise comparisons returns."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from .._checks import DisconnectedComparisonsError, InputError, check_option, closest_names
from ..data.comparisons import PairCounts
from ..links import Link
from .base import BaseFit, gauge_inverse
from .design import Design, Effect
from .information import pairwise_information
from .outcomes import TIE_MODELS, outcome_probabilities
from .storage import read_record, write_record

Order = Literal["neutral", "first", "second"]
SIDES = {"neutral": 0.0, "first": 1.0, "second": -1.0}
ORDERS = tuple(SIDES)


class OutcomeProbabilities(NamedTuple):
    """Probabilities that the first named item wins, that it loses, and of a tie; sum 1."""

    win: float
    loss: float
    tie: float


@dataclass(frozen=True, eq=False, repr=False)
class FitResult(BaseFit):
    """Scores fitted to pairwise comparisons.

    Attributes, besides those of :class:`jaxpref.fit.base.BaseFit`:

    Attributes
    ----------
    link : Link
        The link of the model.
    pairs : PairCounts
        The counts fitted, one row per observed pair, after ties were dealt with.
    effects : tuple of Effect
        Coefficients fitted besides the scores: order effect, covariates, tie parameter (last).
    effect_covariance : (effects, effects) or None
        Their covariance, from the observed information with the scores profiled out.
    design : Design or None
        The cells and columns fitted, None for a plain fit of scores to `pairs`.
    unlinked : tuple of str
        Items of the data that are not in this fit, their component being fitted on its own.
    """

    link: Link
    pairs: PairCounts
    effects: tuple[Effect, ...] = ()
    effect_covariance: Float64[np.ndarray, "effects effects"] | None = None
    design: Design | None = None
    unlinked: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether only scores were fitted: two outcomes, no order effect, no covariates."""
        return self.design is None

    def _absence(self, item: str) -> InputError:
        if item not in self.unlinked:
            return super()._absence(item)
        return DisconnectedComparisonsError(
            f"item: {item!r} is in another component of the comparisons: without a prior "
            "(ridge=0.1, or --ridge 0.1) nothing puts it on the scale of this fit"
        )

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
        side = SIDES[check_option("order", order, ORDERS)]
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

    @property
    def fisher_information(self) -> Float64[np.ndarray, "items items"]:
        """Expected information of the comparisons about the scores, without the prior.

        The sum over pairs of n_ab g'(m)^2 / (g(m) g(-m)) (e_a - e_b)(e_a - e_b)^T; its rows sum
        to zero. Where other coefficients were fitted, what is left for the scores once these are
        profiled out. Computed when asked for.
        """
        return pairwise_information(self)

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
        return gauge_inverse(self.fisher_information, self.ridge * self._unexplained())

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

    def _tally(self) -> tuple[np.ndarray, np.ndarray]:
        pairs, size = self.pairs, self.num_items
        wins = np.bincount(pairs.item_a, pairs.wins_a, size)
        wins += np.bincount(pairs.item_b, pairs.wins_b, size)
        total = pairs.wins_a + pairs.wins_b + pairs.ties
        return wins, np.bincount(pairs.item_a, total, size) + np.bincount(pairs.item_b, total, size)

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

    def _model_facts(self) -> dict[str, Any]:
        return {"link": self.link.name, "ridge": self.ridge, "ties": self.ties}

    def _data_facts(self) -> dict[str, Any]:
        return {
            "num_pairs": len(self.pairs.item_a),
            "num_comparisons": self._num_comparisons(),
            "effects": [effect._asdict() for effect in self.effects],
        }
