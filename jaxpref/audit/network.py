r"""Sensitivity of a fitted prediction to every observed win fraction, on any comparison graph.

A fit solves grad l(s; f) = 0 for given observed fractions f. Differentiating that equation,

.. math:: \frac{dp_{ij}}{df_{ab}} = g'(m_{ij})\, n_{ab} \, r(m_{ab}) \,
          (e_i - e_j)^\top L^+ (e_a - e_b),

with L the information the counts hold at the fit, plus the ridge, and r = g'/(g (1 - g)). For the
logistic link r = 1, g' = p (1 - p) and L = sum n_ab p_ab (1 - p_ab) (e_a - e_b)(e_a - e_b)^T. On a
tree this is Eq. 4: (e_i - e_j)^T L^+ (e_a - e_b) is the share of a unit current sent from i to j
that crosses the edge, over the edge's conductance, and on a tree that share is one or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int, Int32

from .._checks import InputError
from ..fit._host import float64, item_bucket, pad, pair_bucket
from ..fit.likelihood import fraction_response, onto_items, pair_terms, predict
from ..fit.newton import factor_precision, solve_factored
from ..fit.result import FitResult
from ..links import Link
from .solve import one_response

_REFINEMENTS = 2
_ITERATIVE = 600
"""From so many items on conjugate gradients are tried before a factorisation."""
_TIE = 1e-12
"""Two edges whose sensitivities differ by less than this, relatively, share first place: rounding
must not choose between them, or the edge named would change with the machine."""


class EdgeSystem(NamedTuple):
    """A fit prepared for solving: padded edges, their conductances and the factor of L."""

    item_a: Int[Array, " edges"]
    item_b: Int[Array, " edges"]
    conductance: Float64[Array, " edges"]
    response: Float64[Array, " edges"]
    factor: Float64[Array, "items items"]
    present: Bool[Array, " items"]
    ridge: Float64[Array, ""]


@dataclass(frozen=True, eq=False)
class NetworkSensitivity:
    """Derivatives of one prediction with respect to the win fraction of every observed edge.

    Attributes
    ----------
    item_i, item_j : str
        The prediction is that item_i beats item_j.
    probability : float
        The fitted p_ij, in [0, 1].
    items : tuple of str
        Names, in the order of the fit.
    item_a, item_b : (edges,)
        The observed pairs, as indices into `items`.
    derivative : (edges,)
        dp_ij / df_ab, where f_ab is the observed fraction of wins of item_a over item_b.
    """

    item_i: str
    item_j: str
    probability: float
    items: tuple[str, ...]
    item_a: Int32[np.ndarray, " edges"]
    item_b: Int32[np.ndarray, " edges"]
    derivative: Float64[np.ndarray, " edges"]

    def to_rows(self, *, top: int | None = None) -> list[dict[str, Any]]:
        """Return edges with their derivatives, largest absolute derivative first."""
        order = np.argsort(-np.abs(self.derivative), kind="stable")[:top]
        return [
            {
                "item_a": self.items[self.item_a[k]],
                "item_b": self.items[self.item_b[k]],
                "derivative": float(self.derivative[k]),
            }
            for k in order
        ]


def require_converged(fit: FitResult) -> None:
    """Refuse anything but a converged fit: the formulas hold at the maximum only.

    Raises
    ------
    InputError
        With the status and the gradient norm of the fit.
    """
    if not isinstance(fit, FitResult):
        raise InputError(f"fit: expected a FitResult of fit_pairwise; got {type(fit).__name__}")
    if fit.status != "converged":
        raise InputError(
            f"fit: expected a converged fit; got one with status {fit.status!r} (largest gradient "
            f"{fit.gradient_norm:.3g} comparisons). Sensitivities hold at the maximum only: refit "
            "with more max_steps, or with ridge=..."
        )
    if not fit.plain:
        raise InputError(
            "fit: expected scores alone, fitted with ties='half' or without ties; got a fit with "
            "tie parameters, an order effect or covariates, which the audit's formulas leave out"
        )


def network_sensitivity(fit: FitResult, item_i: str, item_j: str) -> NetworkSensitivity:
    r"""Return the derivatives of one prediction by every observed win fraction, dp_ij / df_ab.

    .. math:: \frac{dp_{ij}}{df_{ab}} = p_{ij}(1-p_{ij})\, n_{ab}\,
              (e_i - e_j)^\top L^+ (e_a - e_b)

    for the logistic link (other links: see the module). Comparisons are held in number: only
    their outcome moves.

    Parameters
    ----------
    fit : FitResult
        A converged fit.
    item_i, item_j : str
        Two different items; their own comparisons, if any, are among the edges.

    Returns
    -------
    NetworkSensitivity
        One derivative for each observed pair, in the order of ``fit.pairs``.

    Raises
    ------
    InputError
        For a fit that has not converged, an unknown name (with the closest), or i = j.

    Notes
    -----
    One factorisation and one solve. Exact to rounding on trees; elsewhere relative errors are
    about 1e-12, the currents being refined twice. From 600 items on one solve by conjugate
    gradients, to about 1e-11, where they converge (about a quarter of a refit's time for a million
    pairs, a sixth from the second prediction of a fit on, whose weights are kept).

    Examples
    --------
    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> example = Comparisons.from_counts(  # the paper's Example 1: p_ik = .99, p_kj = .02
    ...     [[0, 99, 0], [1, 0, 2], [0, 98, 0]], items=("i", "k", "j"))
    >>> derivative = network_sensitivity(fit_pairwise(example), "i", "j").derivative
    >>> [round(float(d), 5) for d in derivative]
    [22.37034, 11.29931]
    """
    require_converged(fit)
    first, second = fit.index(item_i), fit.index(item_j)
    if first == second:
        raise InputError(f"item_j: expected an item other than item_i; got {item_j!r} for both")
    prediction = predict(fit.link, fit.scores[[first]] - fit.scores[[second]])
    density, derivative = float(prediction.density[0]), None
    if fit.num_items >= _ITERATIVE:
        derivative = one_response(fit, first, second, scale=density)
    if derivative is None:
        derivative = density * _factored_response(fit, first, second)
    return NetworkSensitivity(
        item_i=item_i,
        item_j=item_j,
        probability=float(prediction.probability[0]),
        items=fit.items,
        item_a=fit.pairs.item_a,
        item_b=fit.pairs.item_b,
        derivative=derivative,
    )


def _factored_response(fit: FitResult, first: int, second: int) -> Float64[np.ndarray, " edges"]:
    """Return d(s_first - s_second)/df of every observed pair, through a factor of L."""
    edges = len(fit.pairs.item_a)
    with float64():
        system = edge_system(fit)
        unit = np.zeros((1, len(system.present)))
        unit[0, [first, second]] = 1.0, -1.0
        return np.asarray(edge_responses(system, jnp.asarray(unit)))[0, :edges]


def edge_system(fit: FitResult) -> EdgeSystem:
    """Return the fit's edges, padded to sizes that repeat, with L factored. Needs 64 bits."""
    pairs = fit.pairs
    size, items = pair_bucket(len(pairs.item_a)), item_bucket(fit.num_items)
    return _factor_edges(
        fit.link,
        jnp.asarray(pad(fit.scores, items)),
        jnp.asarray(pad(pairs.item_a, size)),
        jnp.asarray(pad(pairs.item_b, size)),
        jnp.asarray(pad(pairs.wins_a, size)),
        jnp.asarray(pad(pairs.wins_b, size)),
        jnp.asarray(np.arange(items) < fit.num_items),
        jnp.asarray(fit.ridge, jnp.float64),
    )


@eqx.filter_jit
def _factor_edges(
    link: Link,
    scores: Float64[Array, " items"],
    item_a: Int[Array, " edges"],
    item_b: Int[Array, " edges"],
    wins_a: Float64[Array, " edges"],
    wins_b: Float64[Array, " edges"],
    present: Bool[Array, " items"],
    ridge: Float64[Array, ""],
) -> EdgeSystem:
    margin = scores[item_a] - scores[item_b]
    conductance = pair_terms(link, margin, wins_a, wins_b).curvature
    return EdgeSystem(
        item_a=item_a,
        item_b=item_b,
        conductance=conductance,
        response=(wins_a + wins_b) * fraction_response(link, margin),
        factor=factor_precision(item_a, item_b, conductance, present, ridge),
        present=present,
        ridge=ridge,
    )


@jax.jit
def edge_responses(
    system: EdgeSystem, wanted: Float64[Array, "sources items"]
) -> Float64[Array, "sources edges"]:
    r"""Return n_ab r_ab u^T L^+ (e_a - e_b) for each u in `wanted`, which must sum to zero.

    It is how the combination u^T s of scores moves with each observed fraction. Potentials come
    from the factor, and what their currents leave unbalanced at the items is solved for again: an
    edge a million times more conducting than its neighbours would otherwise lose six digits, its
    drop being the difference of two close potentials. Where rounding leaves the unbalanced currents
    themselves unbalanced, the source takes the difference: spread over all items it would run
    through edges that carry nothing.
    """
    size = system.present.shape[0]
    source = jax.nn.one_hot(jnp.argmax(jnp.abs(wanted), axis=1), size, dtype=wanted.dtype)

    def refine(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        potential, drop = state
        current = onto_items(system.item_a, system.item_b, system.conductance * drop, size)
        missing = wanted - current - system.ridge * potential
        missing = missing - source * jnp.sum(missing, axis=1, keepdims=True)
        change = solve_factored(system.factor, missing.T).T
        return potential + change, drop + change[:, system.item_a] - change[:, system.item_b]

    nothing = jnp.zeros((wanted.shape[0], system.item_a.shape[0]), wanted.dtype)
    _, drop = jax.lax.fori_loop(0, 1 + _REFINEMENTS, refine, (jnp.zeros_like(wanted), nothing))
    return system.response * drop


@jax.jit
def edge_rows(
    system: EdgeSystem, sources: Int[Array, " sources"]
) -> Float64[Array, "sources edges"]:
    """Return how the score of each source moves with each observed fraction, ds_i / df_ab."""
    here = system.present.astype(system.conductance.dtype)
    unit = jax.nn.one_hot(sources, len(here), dtype=here.dtype) - here / jnp.sum(here)
    return edge_responses(system, jnp.where(system.present, unit, 0.0))


class EdgeNorms(NamedTuple):
    """Of each pair of rows: the entry of largest size, its edge, and the sizes of the whole row."""

    largest: Float64[Array, " pairs"]
    edge: Int[Array, " pairs"]
    l2: Float64[Array, " pairs"]
    l1: Float64[Array, " pairs"]


@jax.jit
def edge_norms(
    rows_i: Float64[Array, "block_i edges"],
    rows_j: Float64[Array, "block_j edges"],
    pair_i: Int[Array, " pairs"],
    pair_j: Int[Array, " pairs"],
) -> EdgeNorms:
    """Return, for each pair of rows, the norms of row_i - row_j and where its largest entry is.

    Pairs are taken one at a time, so that memory does not grow with their number.
    """
    places = jnp.arange(rows_i.shape[1], dtype=jnp.int32)

    def norms(pair: tuple[Array, Array]) -> EdgeNorms:
        difference = rows_i[pair[0]] - rows_j[pair[1]]
        size = jnp.abs(difference)
        first = size >= jnp.max(size) * (1 - _TIE)
        edge = jnp.min(jnp.where(first, places, jnp.iinfo(jnp.int32).max))
        l2 = jnp.sqrt(jnp.sum(difference * difference))
        return EdgeNorms(difference[edge], edge, l2, jnp.sum(size))

    return jax.lax.map(norms, (pair_i, pair_j))
