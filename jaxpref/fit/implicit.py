r"""A fit as a differentiable function of its data.

At the maximum the penalised gradient G(s; data) vanishes, so that

.. math:: ds = H^{-1} \, \frac{\partial G}{\partial \text{data}} \, d\,\text{data} ,
          \qquad H = - \frac{\partial G}{\partial s} ,

in the gauge where scores sum to zero. That is one solve, forward or backward, however many steps
the fit took; with win fractions for data it is the Laplacian form of
:mod:`jaxpref.audit.network`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _numerics as nx
from .._checks import ArrayLike, InputError, check_between, check_count, is_concrete
from ..links import Link, logistic
from .likelihood import pair_terms
from .newton import CONVERGED, PairwiseProblem, maximise_likelihood, precision

_REFINEMENTS = 2


class ScoreFit(NamedTuple):
    """Fitted scores and coefficients.

    Attributes
    ----------
    scores : (items,)
        Scores, sum zero.
    effects : (effects,)
        Coefficients of the covariates.
    converged : ()
        Whether the fit reached its tolerance; if not, neither values nor derivatives mean much.
    """

    scores: Float[Array, " items"]
    effects: Float[Array, " effects"]
    converged: Bool[Array, ""]


def fit_scores(
    item_a: ArrayLike,
    item_b: ArrayLike,
    wins_a: ArrayLike,
    wins_b: ArrayLike,
    *,
    num_items: int,
    ridge: ArrayLike = 0.0,
    covariates: ArrayLike | None = None,
    link: Link = logistic,
    tolerance: float | None = None,
    max_steps: int = 200,
) -> ScoreFit:
    r"""Return maximum-likelihood scores as a differentiable function of counts, prior, covariates.

    .. math:: \max_{s, \beta} \sum_c w_{ab} \log g(m_c) + w_{ba} \log g(-m_c)
              - \frac{\rho}{2} \sum_i s_i^2 , \qquad m_c = s_a - s_b + z_c^\top \beta

    A pure function for ``jax.jit``, ``jax.vmap``, ``jax.jvp`` and ``jax.grad``, of any order. For
    win fractions f and numbers n of comparisons hand in n f and n (1 - f); for weights, the
    weighted counts. :func:`jaxpref.fit.fit_pairwise` checks its data and says why a fit does not
    exist; here that shows in `converged` alone.

    Parameters
    ----------
    item_a, item_b : (cells,) int
        Indices of the items of each cell.
    wins_a, wins_b : (cells,)
        Weight of the comparisons that either won, >= 0.
    num_items : int
        Number of items; fixed under jit.
    ridge : (), >= 0
        Strength rho of the Gaussian prior on every score.
    covariates : (cells, effects), optional
        What adds to the margin of `item_a`, cell by cell.
    link : Link
        Symmetric, with a concave log-probability.
    tolerance : float > 0, optional
        Stop when a step moves nothing by more than this (relative to the largest score where that
        exceeds 1); 1e-10 in float64 and 1e-5 in float32 when left out.
    max_steps : int, >= 1
        Newton steps to take at most.

    Returns
    -------
    ScoreFit
        In the float type of `wins_a`.

    Raises
    ------
    InputError
        For arrays whose shapes do not fit, and indices out of range where they are known.

    Notes
    -----
    Dense: one (items + effects)^2 factorisation a step, and one for all derivatives. Derivatives
    agree with the Laplacian form to 1e-10 in float64.

    Examples
    --------
    >>> import jax
    >>> a, b = jnp.array([0, 1]), jnp.array([1, 2])
    >>> def probability(fraction):  # of the first item over the last, given f_01; f_12 = 1/2
    ...     wins = jnp.stack([10 * fraction, jnp.asarray(5.0)])
    ...     scores = fit_scores(a, b, wins, 10 - wins, num_items=3).scores
    ...     return jax.nn.sigmoid(scores[0] - scores[2])
    >>> round(float(jax.grad(probability)(0.9)), 4)  # Eq. 4 with p_kj = 1/2
    1.0
    """
    problem = _problem(item_a, item_b, wins_a, wins_b, num_items, ridge, covariates)
    check_count("max_steps", max_steps)
    dtype = problem.wins_a.dtype
    if tolerance is None:
        tolerance = 1e-10 if dtype == jnp.float64 else 1e-5
    limits = jnp.asarray(tolerance, dtype), jnp.asarray(max_steps, jnp.int32)
    unknowns, converged = _maximum(link, problem, *limits)
    return ScoreFit(unknowns[:num_items], unknowns[num_items:], converged > 0)


def _problem(
    item_a: Any, item_b: Any, wins_a: Any, wins_b: Any, num_items: int, ridge: Any, covariates: Any
) -> PairwiseProblem:
    """Return the checked arrays."""
    size = check_count("num_items", num_items, at_least=2)
    check_between("ridge", ridge, 0.0, np.finfo(float).max, what="a finite number of at least 0")
    up, down = nx.as_floats(wins_a, wins_b)
    if up.ndim != 1:
        raise InputError(f"wins_a: expected one dimension; got shape {up.shape}")
    columns = None if covariates is None else nx.as_float(covariates).astype(up.dtype)
    places = [_indices(name, x, size) for name, x in (("item_a", item_a), ("item_b", item_b))]
    for name, array in (("item_a", places[0]), ("item_b", places[1]), ("wins_b", down)):
        if array.shape != up.shape:
            raise InputError(f"{name}: expected shape {up.shape}; got {array.shape}")
    if columns is not None and (columns.ndim != 2 or columns.shape[0] != up.shape[0]):
        expected = f"({up.shape[0]}, effects)"
        raise InputError(f"covariates: expected shape {expected}; got {columns.shape}")
    present = jnp.ones(size, bool)
    prior = nx.as_float(ridge).astype(up.dtype)
    return PairwiseProblem(places[0], places[1], up, down, present, prior, columns)


def _indices(name: str, given: Any, size: int) -> Int[Array, " cells"]:
    array = jnp.asarray(given)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise InputError(f"{name}: expected indices; got {array.dtype}")
    if is_concrete(array) and array.size:
        known = np.asarray(array)
        if known.min() < 0 or known.max() >= size:
            raise InputError(
                f"{name}: expected indices from 0 to {size - 1}; got {known.min()} to {known.max()}"
            )
    return array


@eqx.filter_custom_jvp
def _maximum(
    link: Link, problem: PairwiseProblem, tolerance: Float[Array, ""], max_steps: Int[Array, ""]
) -> tuple[Float[Array, " unknowns"], Float[Array, ""]]:
    """Return the maximum, and 1 if it was reached: a float, which may have a derivative of 0."""
    found = maximise_likelihood(problem, link, tolerance, max_steps)
    return found.scores, (found.outcome == CONVERGED).astype(found.scores.dtype)


@_maximum.def_jvp
def _maximum_jvp(primals: Any, tangents: Any) -> Any:
    link, problem, tolerance, max_steps = primals
    change = tangents[1]
    unknowns, converged = _maximum(link, problem, tolerance, max_steps)

    def gradient(*data: Any) -> Float[Array, " unknowns"]:
        wins_a, wins_b, ridge, covariates = data
        moved = problem._replace(wins_a=wins_a, wins_b=wins_b, ridge=ridge, covariates=covariates)
        terms = pair_terms(link, moved.margins(unknowns), moved.wins_a, moved.wins_b)
        return moved.pull(terms.gradient) - moved.penalised(unknowns)

    data = (problem.wins_a, problem.wins_b, problem.ridge, problem.covariates)
    moves = (change.wins_a, change.wins_b, change.ridge, change.covariates)
    pairs = zip(data, moves, strict=True)
    filled = tuple(jnp.zeros_like(x) if dx is None and x is not None else dx for x, dx in pairs)
    _, right = jax.jvp(gradient, data, filled)
    return (unknowns, converged), (_step(link, problem, unknowns, right), jnp.zeros_like(converged))


def _step(
    link: Link,
    problem: PairwiseProblem,
    unknowns: Float[Array, " unknowns"],
    right: Float[Array, " unknowns"],
) -> Float[Array, " unknowns"]:
    """Return H^-1 right in the gauge, refined against the pairs' own sums."""
    margin = problem.margins(unknowns)
    curvature = pair_terms(link, margin, problem.wins_a, problem.wins_b).curvature
    factor = jnp.linalg.cholesky(precision(problem, curvature))

    def solve(rest: Float[Array, " unknowns"]) -> Float[Array, " unknowns"]:
        return problem.centred(jax.scipy.linalg.cho_solve((factor, True), rest))

    step = solve(right)
    for _ in range(_REFINEMENTS):
        image = problem.pull(curvature * problem.margins(step)) + problem.penalised(step)
        step = step + solve(right - image)
    return step
