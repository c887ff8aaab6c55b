r"""What a comparison may end in, and how likely each end is: win, loss and, if modelled, tie.

With margin m and tie parameter t, for a symmetric link g:

.. math::
    \text{Rao-Kupper:}\quad & P(\text{win}) = g(m - t), \quad P(\text{loss}) = g(-m - t), \quad
                              P(\text{tie}) = g(m + t) - g(m - t), \quad t > 0 \\
    \text{Davidson:}\quad & P(\text{win}) : P(\text{loss}) : P(\text{tie})
                            = e^{m/2} : e^{-m/2} : e^{t}

Davidson's is defined for the logistic link only. Both log-likelihoods are concave in margins and
tie parameter together (Rao-Kupper: for links with log-concave density).

References
----------
.. [1] P. V. Rao and L. L. Kupper, "Ties in paired-comparison experiments", Journal of the American
   Statistical Association 62, 1967: the threshold model, t = log theta.
.. [2] R. R. Davidson, "On extending the Bradley-Terry model to accommodate ties in paired
   comparison experiments", Journal of the American Statistical Association 65, 1970: t = log nu.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from .. import _numerics as nx
from ..links import Link
from ._host import float64, pad, pair_bucket
from .likelihood import information_per_comparison, pair_terms

TIE_MODELS = ("rao_kupper", "davidson")


class Cells(NamedTuple):
    """Weight of wins, losses and ties of the first item, cell by cell."""

    wins_a: Float64[np.ndarray, " cells"]
    wins_b: Float64[np.ndarray, " cells"]
    ties: Float64[np.ndarray, " cells"]

    @property
    def total(self) -> Float64[np.ndarray, " cells"]:
        """Weight of all comparisons of the cell."""
        return self.wins_a + self.wins_b + self.ties


class CellTerms(NamedTuple):
    """Log-likelihood of each cell in nats, its derivatives, and minus its second derivatives.

    `gradient` and `curvature` are by the margin, `by_tie` and `tie_curvature` by the tie
    parameter, `cross` by both; the last three are 0 without a tie model.
    """

    log_likelihood: Float64[np.ndarray, " cells"]
    gradient: Float64[np.ndarray, " cells"]
    curvature: Float64[np.ndarray, " cells"]
    by_tie: Float64[np.ndarray, " cells"]
    cross: Float64[np.ndarray, " cells"]
    tie_curvature: Float64[np.ndarray, " cells"]


class Outcomes(NamedTuple):
    """Probability that the first item wins, that it loses, and of a tie."""

    win: Float64[np.ndarray, " margins"]
    loss: Float64[np.ndarray, " margins"]
    tie: Float64[np.ndarray, " margins"]


def cell_terms(
    link: Link, ties: str | None, margin: Float64[np.ndarray, " cells"], tie: float, cells: Cells
) -> CellTerms:
    """Return the log-likelihood of cells and its derivatives, on the host in 64 bits.

    Parameters
    ----------
    link : Link
        Symmetric.
    ties : {"rao_kupper", "davidson"} or None
        The model of ties; None for two outcomes.
    margin : (cells,)
        Margins m.
    tie : float
        The tie parameter t; ignored without a model.
    cells : Cells
        What was observed. NaN is returned where the tie parameter is outside its domain.

    >>> import numpy as np
    >>> from jaxpref.links import logistic
    >>> cells = Cells(np.array([3.0]), np.array([1.0]), np.zeros(1))
    >>> cell_terms(logistic, None, np.zeros(1), 0.0, cells).gradient
    array([1.])
    """
    if ties == "rao_kupper" and not tie > 0:
        return CellTerms(*(np.full_like(margin, np.nan) for _ in range(6)))
    if link.name == "logistic":
        if ties is None:
            return _plain(margin, cells)
        return (_rao_kupper if ties == "rao_kupper" else _davidson)(margin, tie, cells)
    size = pair_bucket(len(margin))
    with float64():
        columns = [jnp.asarray(pad(column, size)) for column in (margin, *cells)]
        terms = _link_terms(link, ties is not None, jnp.asarray(tie, jnp.float64), *columns)
    return CellTerms(*(np.asarray(term)[: len(margin)] for term in terms))


def sigmoid(margin: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return 1 / (1 + exp(-margin)) without overflow; relative accuracy holds in both tails.

    >>> import numpy as np
    >>> sigmoid(np.array([0.0, -800.0]))
    array([0.5, 0. ])
    """
    tail = np.exp(-np.abs(margin))
    return np.where(margin < 0, tail, 1.0) / (1.0 + tail)


def _log_sigmoid(margin: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    return np.minimum(margin, 0.0) - np.log1p(np.exp(-np.abs(margin)))


def _plain(margin: Float64[np.ndarray, " cells"], cells: Cells) -> CellTerms:
    up, down = sigmoid(margin), sigmoid(-margin)
    nothing = np.zeros_like(margin)
    return CellTerms(
        cells.wins_a * _log_sigmoid(margin) + cells.wins_b * _log_sigmoid(-margin),
        cells.wins_a * down - cells.wins_b * up,
        (cells.wins_a + cells.wins_b) * up * down,
        nothing,
        nothing,
        nothing,
    )


def _rao_kupper(margin: Float64[np.ndarray, " cells"], tie: float, cells: Cells) -> CellTerms:
    """Use P(tie) = expm1(2 t) g(m - t) g(-m - t), which holds for the logistic link."""
    ahead, behind = margin - tie, -margin - tie
    won, lost = cells.wins_a + cells.ties, cells.wins_b + cells.ties
    pull_up, pull_down = won * sigmoid(-ahead), lost * sigmoid(-behind)
    bend_up, bend_down = pull_up * sigmoid(ahead), pull_down * sigmoid(behind)
    grow = np.expm1(-2 * tie)  # = -(e^{2t} - 1) / e^{2t}
    value = won * _log_sigmoid(ahead) + lost * _log_sigmoid(behind)
    return CellTerms(
        value + cells.ties * (2 * tie + np.log(-grow)),
        pull_up - pull_down,
        bend_up + bend_down,
        -2 * cells.ties / grow - pull_up - pull_down,
        bend_down - bend_up,
        bend_up + bend_down + cells.ties * 4 * np.exp(-2 * tie) / grow**2,
    )


def _davidson(margin: Float64[np.ndarray, " cells"], tie: float, cells: Cells) -> CellTerms:
    win, loss, draw = _davidson_outcomes(margin, tie)
    logs = _davidson_logs(margin, tie)
    values = np.sum(np.stack(cells) * np.stack(logs), axis=0)
    total = cells.total
    # The difference of wins and their expectation, without subtracting large numbers.
    pull = (cells.wins_a * (2 * loss + draw) - cells.wins_b * (2 * win + draw)) / 2
    even = win - loss
    spread = (4 * win * loss + draw * (win + loss)) / 4
    return CellTerms(
        values,
        pull - cells.ties * even / 2,
        total * spread,
        cells.ties * (win + loss) - (cells.wins_a + cells.wins_b) * draw,
        -total * even * draw / 2,
        total * draw * (win + loss),
    )


def _davidson_logs(margin: Float64[np.ndarray, " n"], tie: float) -> Outcomes:
    parts = np.stack([margin / 2, -margin / 2, np.full_like(margin, tie)])
    top = parts.max(axis=0)
    logs = parts - top - np.log(np.exp(parts - top).sum(axis=0))
    return Outcomes(*logs)


def _davidson_outcomes(margin: Float64[np.ndarray, " n"], tie: float) -> Outcomes:
    return Outcomes(*(np.exp(log) for log in _davidson_logs(margin, tie)))


def outcome_probabilities(
    link: Link, ties: str | None, margin: Float64[np.ndarray, " margins"], tie: float
) -> Outcomes:
    """Return the probabilities of win, loss and tie at the margins, each in [0, 1].

    >>> import numpy as np
    >>> from jaxpref.links import logistic
    >>> outcomes = outcome_probabilities(logistic, "davidson", np.zeros(1), np.log(2.0))
    >>> [round(float(p[0]), 12) for p in outcomes]
    [0.25, 0.25, 0.5]
    """
    if ties == "davidson":
        return _davidson_outcomes(margin, tie)
    gap = tie if ties == "rao_kupper" else 0.0
    if link.name == "logistic":
        win, loss = sigmoid(margin - gap), sigmoid(-margin - gap)
        tied = np.expm1(2 * gap) * win * loss if gap < 300 else 1.0 - win - loss
        return Outcomes(win, loss, tied)
    with float64():
        size = pair_bucket(len(margin))
        found = _link_outcomes(link, jnp.asarray(pad(margin, size)), jnp.asarray(gap, jnp.float64))
    win, loss, tied = (np.asarray(column)[: len(margin)] for column in found)
    return Outcomes(win, loss, tied if gap else np.zeros_like(win))


@eqx.filter_jit
def _link_outcomes(
    link: Link, margin: Float64[Array, " margins"], gap: Float64[Array, ""]
) -> tuple[Float64[Array, " margins"], ...]:
    tied = jnp.exp(_log_between(link, margin, jnp.maximum(gap, jnp.finfo(gap.dtype).tiny)))
    return link.probability(margin - gap), link.probability(-margin - gap), tied


def _log_between(
    link: Link, margin: Float[Array, "..."], gap: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return log(g(m + t) - g(m - t)), taken on the side where both are small."""
    low = jnp.where(margin < 0, margin, -margin)
    upper, lower = link.log_probability(low + gap), link.log_probability(low - gap)
    return upper + nx.log1mexp(jnp.maximum(upper - lower, jnp.finfo(upper.dtype).tiny))


@eqx.filter_jit
def _link_terms(
    link: Link,
    has_ties: bool,
    tie: Float64[Array, ""],
    margin: Float64[Array, " cells"],
    wins_a: Float64[Array, " cells"],
    wins_b: Float64[Array, " cells"],
    ties: Float64[Array, " cells"],
) -> tuple[Float64[Array, " cells"], ...]:
    """Return the terms for any link, by autodiff."""
    if not has_ties:
        plain = pair_terms(link, margin, wins_a, wins_b)
        nothing = jnp.zeros_like(margin)
        return (*plain, nothing, nothing, nothing)

    def value(place: Float64[Array, " 2"], won: Any, lost: Any, tied: Any) -> Float64[Array, ""]:
        return (
            _weigh(won, link.log_probability(place[0] - place[1]))
            + _weigh(lost, link.log_probability(-place[0] - place[1]))
            + _weigh(tied, _log_between(link, place[0], place[1]))
        )

    places = jnp.stack([margin, jnp.broadcast_to(tie, margin.shape)], axis=1)
    counts = wins_a, wins_b, ties
    values, gradient = jax.vmap(jax.value_and_grad(value))(places, *counts)
    bend = -jax.vmap(jax.hessian(value))(places, *counts)
    return values, gradient[:, 0], bend[:, 0, 0], gradient[:, 1], bend[:, 0, 1], bend[:, 1, 1]


def _weigh(count: Float64[Array, ""], value: Float64[Array, ""]) -> Float64[Array, ""]:
    """Return count * value, and 0 without a count even where the value is infinite."""
    return jnp.where(count > 0, count * jnp.where(count > 0, value, 0.0), 0.0)


def smoothed_margins(
    link: Link, wins_a: Float64[np.ndarray, " cells"], wins_b: Float64[np.ndarray, " cells"]
) -> tuple[Float64[np.ndarray, " cells"], Float64[np.ndarray, " cells"], float]:
    """Return each cell's margin with half a win added to both sides, and its information.

    The third number is the information of one comparison at margin 0.

    >>> import numpy as np
    >>> from jaxpref.links import logistic
    >>> smoothed_margins(logistic, np.array([1.0]), np.array([1.0]))
    (array([0.]), array([0.75]), 0.25)
    """
    up, down = wins_a + 0.5, wins_b + 0.5
    if link.name == "logistic":
        return np.log(up / down), up * down / (up + down), 0.25
    size = pair_bucket(len(up))
    with float64():
        padded = (jnp.asarray(np.concatenate([c, np.ones(size - len(c))])) for c in (up, down))
        margin, weight, ceiling = _smooth(link, *padded)
    return np.asarray(margin)[: len(up)], np.asarray(weight)[: len(up)], float(ceiling)


@eqx.filter_jit
def _smooth(
    link: Link, up: Float64[Array, " cells"], down: Float64[Array, " cells"]
) -> tuple[Float64[Array, " cells"], Float64[Array, " cells"], Float64[Array, ""]]:
    total = up + down
    margin = link.margin(up / total, down / total)
    ceiling = information_per_comparison(link, jnp.zeros((), total.dtype))
    return margin, total * information_per_comparison(link, margin), ceiling
