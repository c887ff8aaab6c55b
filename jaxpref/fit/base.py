"""What fits of comparisons and of rankings have in common: items with scores, and a leaderboard."""

from __future__ import annotations

import abc
import importlib
import os
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float64

from .._checks import InputError, check_option, closest_names
from ..data.graph import Components

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


@dataclass(frozen=True, eq=False, repr=False)
class BaseFit(abc.ABC):
    """Scores of named items, how the search for them ended, and what they say.

    Gauge: only differences of scores are determined by the data, so scores sum to zero. All arrays
    are NumPy float64, whatever JAX's own default is.

    Attributes
    ----------
    items : tuple of str
        Names, in the order of every array here.
    scores : (items,)
        Scores in nats for the logistic link, in units of the link's scale otherwise; sum zero.
    ridge : float
        Strength of the Gaussian prior, penalty ridge/2 times the sum of squared scores.
    ties : str
        What was done with ties.
    status : {"converged", "max_steps", "stalled"}
        How the search ended. Anything but "converged" means that the scores are not the fit.
    gradient_norm : float
        Largest entry of the penalised gradient at the scores, in comparisons or rankings
        (observed wins or choices of an item minus expected ones).
    step_size : float
        Largest change of a parameter in the last Newton step.
    steps : int
        Newton steps taken.
    log_likelihood : float
        Of the data at the scores, in nats, without the prior.
    components, islands : Components
        Strong and weak components of the graph "was beaten by" ("stood below"); more than one only
        with a ridge. Across islands only the ridge speaks.
    """

    items: tuple[str, ...]
    scores: Float64[np.ndarray, " items"]
    ridge: float
    ties: str
    status: Status
    gradient_norm: float
    step_size: float
    steps: int
    log_likelihood: float
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
            raise self._absence(item) from None

    def _absence(self, item: str) -> InputError:
        """Return the error for an item that was not fitted."""
        hint = closest_names(str(item), self.items)
        return InputError(
            f"item: expected one of the {self.num_items} fitted items; got {item!r}{hint}"
        )

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

    @abc.abstractmethod
    def covariance(self) -> Float64[np.ndarray, "items items"]:
        """Return the covariance of the scores in the gauge where they sum to zero, nats^2."""

    def standard_errors(self) -> Float64[np.ndarray, " items"]:
        """Return the standard errors of the scores, in the gauge where they sum to zero, nats.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
        >>> fit.standard_errors().tolist()
        [0.5, 0.5]
        """
        found = _ERRORS.get(self)
        if found is None:
            found = _ERRORS[self] = np.sqrt(np.maximum(np.diagonal(self.covariance()), 0.0))
        return found.copy()

    @abc.abstractmethod
    def _tally(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each item's wins, and the comparisons they are out of."""

    def to_rows(self) -> list[LeaderboardRow]:
        """Return the leaderboard, best first; of rankings, wins count the items ranked below.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
        >>> fit.to_rows()[0]
        LeaderboardRow(rank=1, item='a', score=0.0, standard_error=0.5, wins=2.0, comparisons=4.0)
        """
        columns = (self.scores, self.standard_errors(), *self._tally())
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

    @abc.abstractmethod
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to two files."""

    @abc.abstractmethod
    def _model_facts(self) -> dict[str, Any]:
        """Return what the model was, for JSON."""

    @abc.abstractmethod
    def _data_facts(self) -> dict[str, Any]:
        """Return how much was fitted, and what besides scores, for JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fit as plain numbers, strings and lists, ready for JSON.

        >>> from jaxpref.data import Comparisons
        >>> from jaxpref.fit import fit_pairwise
        >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2], [2, 0]], items=("a", "b")))
        >>> fit.to_dict()["status"]
        'converged'
        """
        return {
            "model": self._model_facts(),
            "gauge": "scores sum to zero",
            "status": self.status,
            "gradient_norm": self.gradient_norm,
            "step_size": self.step_size,
            "steps": self.steps,
            "log_likelihood": self.log_likelihood,
            "num_items": self.num_items,
            **self._data_facts(),
            "num_components": self.components.count,
            "num_islands": self.islands.count,
            "leaderboard": [row._asdict() for row in self.to_rows()],
        }

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({self.num_items:,} items, {self.status} after {self.steps} steps)"


_ERRORS: WeakKeyDictionary[BaseFit, Float64[np.ndarray, " items"]] = WeakKeyDictionary()


def keep_standard_errors(
    fit: BaseFit, inverse: Float64[np.ndarray, "items items"]
) -> Float64[np.ndarray, " items"]:
    """Take the standard errors from an inverse that was worked out for something else.

    `inverse` is one of the expected information, plus the prior, on vectors that sum to zero, in
    any gauge.
    """
    means = inverse.mean(axis=1)
    variance = np.diagonal(inverse) - 2 * means + means.mean()
    _ERRORS[fit] = np.sqrt(np.maximum(variance, 0.0))
    return _ERRORS[fit].copy()


def gauge_inverse(
    information: Float64[np.ndarray, "items items"], ridge: float | Float64[np.ndarray, "..."]
) -> Float64[np.ndarray, "items items"]:
    """Return the inverse of information plus the prior's on vectors that sum to zero.

    A multiple of the all-ones matrix fills the direction that the gauge leaves out, and centring
    takes it out again.

    Parameters
    ----------
    information : (items, items)
        Symmetric, its rows summing to zero.
    ridge : float or (items, items)
        Strength of the prior, or its whole matrix.

    >>> gauge_inverse(np.array([[1.0, -1.0], [-1.0, 1.0]]), 0.0).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    size = information.shape[0]
    prior = ridge * np.eye(size) if np.ndim(ridge) == 0 else np.asarray(ridge)
    shift = float(np.min(np.diagonal(information)) + np.max(np.diagonal(prior)))
    inverse = np.linalg.inv(information + prior + shift / size)
    return centred(inverse)


def centred(matrix: Float64[np.ndarray, "items items"]) -> Float64[np.ndarray, "items items"]:
    """Return a covariance in the gauge where scores sum to zero, symmetric to the last bit."""
    matrix = matrix - matrix.mean(axis=0, keepdims=True)
    matrix = matrix - matrix.mean(axis=1, keepdims=True)
    return (matrix + matrix.T) / 2
