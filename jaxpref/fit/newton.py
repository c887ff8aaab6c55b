"""Damped Newton as one JAX function: scores from pair counts, under jit, vmap and on any device.

The algorithm of :mod:`jaxpref.fit.careful`, for scores and coefficients of covariates, in the gauge
where scores sum to zero; float32 or float64, as the counts are. The problem is concave, so Newton
with a line search reaches the maximum from anywhere; four things make it right on chain-like data,
where first-order methods stop whole nats away:

* it starts from the weighted least-squares fit to the smoothed log-odds of the pairs, which on a
  tree is the answer but for the smoothing;
* the line search looks at the slope along the step and not only at the log-likelihood, whose
  rounding hides the last half of the digits of a weakly tied item;
* where edges are so saturated that their curvature is lost to rounding, a share of the largest
  curvature those edges could have is added until the information can be factored again;
* it stops when the next step would move no score by more than `tolerance`, which bounds the error
  of every item, while a bound on the gradient would let weakly tied items drift.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..links import Link
from .likelihood import (
    information_per_comparison,
    onto_items,
    pair_terms,
    weighted_laplacian,
)

RUNNING, CONVERGED, STALLED = 0, 1, 2
_HALVINGS = 60
_SUFFICIENT = 1e-4
_LEAST_DAMPING, _DAMPING_FACTOR = 1e-8, 100.0


class PairwiseProblem(NamedTuple):
    """Counts and prior, padded: absent items have no pairs, absent pairs have no wins.

    The unknowns are the scores, followed by a coefficient for each of the covariates, which add to
    the margins. The prior is on the scores.
    """

    item_a: Int[Array, " pairs"]
    item_b: Int[Array, " pairs"]
    wins_a: Float[Array, " pairs"]
    wins_b: Float[Array, " pairs"]
    present: Bool[Array, " items"]
    ridge: Float[Array, ""]
    covariates: Float[Array, "pairs effects"] | None = None

    @property
    def num_items(self) -> int:
        """Number of places for items."""
        return self.present.shape[0]

    @property
    def columns(self) -> Float[Array, "pairs effects"]:
        """The covariates, none being no columns."""
        if self.covariates is None:
            return jnp.zeros((self.wins_a.shape[0], 0), self.wins_a.dtype)
        return self.covariates

    def margins(self, unknowns: Float[Array, " unknowns"]) -> Float[Array, " pairs"]:
        """Return s_a - s_b, plus what the covariates add, for every pair."""
        drop = unknowns[self.item_a] - unknowns[self.item_b]
        if self.covariates is None:
            return drop
        return drop + self.covariates @ unknowns[self.num_items :]

    def centred(self, unknowns: Float[Array, " unknowns"]) -> Float[Array, " unknowns"]:
        """Return scores moved to sum to zero over the items present, and 0 elsewhere."""
        scores = unknowns[: self.num_items]
        here = self.present.astype(scores.dtype)
        mean = jnp.sum(jnp.where(self.present, scores, 0.0)) / jnp.sum(here)
        moved = jnp.where(self.present, scores - mean, 0.0)
        return jnp.concatenate([moved, unknowns[self.num_items :]])

    def pull(self, by_margin: Float[Array, " pairs"]) -> Float[Array, " unknowns"]:
        """Return the derivative by the unknowns of what has this derivative by the margins."""
        scores = onto_items(self.item_a, self.item_b, by_margin, self.num_items)
        return jnp.concatenate([scores, self.columns.T @ by_margin])

    def penalised(self, unknowns: Float[Array, " unknowns"]) -> Float[Array, " unknowns"]:
        """Return the derivative of the prior's penalty, ridge s_i, and 0 for coefficients."""
        scores = self.ridge * unknowns[: self.num_items]
        return jnp.concatenate([scores, jnp.zeros_like(unknowns[self.num_items :])])


class NewtonResult(NamedTuple):
    """Where Newton stopped; `scores` goes on with the coefficients of the covariates, if any."""

    scores: Float[Array, " unknowns"]
    log_likelihood: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    step_size: Float[Array, ""]
    steps: Int[Array, ""]
    outcome: Int[Array, ""]


class _State(NamedTuple):
    scores: Float[Array, " unknowns"]
    damping: Float[Array, ""]
    step_size: Float[Array, ""]
    steps: Int[Array, ""]
    outcome: Int[Array, ""]


def factor_precision(
    item_a: Int[Array, " pairs"],
    item_b: Int[Array, " pairs"],
    weight: Float[Array, " pairs"],
    present: Bool[Array, " items"],
    ridge: Float[Array, ""],
) -> Float[Array, "items items"]:
    """Return the lower Cholesky factor of the Laplacian of `weight`, plus ridge, made definite.

    Two terms are added that a right-hand side summing to zero cannot feel: a multiple of the
    all-ones matrix, no larger than the weakest item's weight so that it costs that item no digits,
    and a 1 on the diagonal of every absent item.
    """
    laplacian = weighted_laplacian(item_a, item_b, weight, present.shape[0])
    return jnp.linalg.cholesky(_definite(laplacian, present, ridge))


def _definite(
    laplacian: Float[Array, "items items"], present: Bool[Array, " items"], ridge: Float[Array, ""]
) -> Float[Array, "items items"]:
    diagonal = jnp.diagonal(laplacian) + ridge
    weakest = jnp.min(jnp.where(present & (diagonal > 0), diagonal, jnp.inf))
    shift = jnp.where(jnp.isfinite(weakest), weakest, 1.0)
    here = present.astype(laplacian.dtype)
    ones = jnp.outer(here, here) * (shift / jnp.sum(here))
    return laplacian + ones + jnp.diag(jnp.where(present, ridge, 1.0))


def precision(
    problem: PairwiseProblem, weight: Float[Array, " pairs"]
) -> Float[Array, "unknowns unknowns"]:
    """Return the matrix of Newton's equations, made definite as :func:`factor_precision` does."""
    size, columns = problem.num_items, problem.columns
    laplacian = weighted_laplacian(problem.item_a, problem.item_b, weight, size)
    scores = _definite(laplacian, problem.present, problem.ridge)
    if problem.covariates is None:
        return scores
    weighted = weight[:, None] * columns
    border = onto_items(problem.item_a, problem.item_b, weighted.T, size)
    return jnp.block([[scores, border.T], [border, columns.T @ weighted]])


def solve_factored(
    factor: Float[Array, "items items"], right: Float[Array, "items ..."]
) -> Float[Array, "items ..."]:
    """Return the solution of factor factor^T x = right."""
    return jax.scipy.linalg.cho_solve((factor, True), right)


def _evaluate(
    problem: PairwiseProblem, link: Link, scores: Float[Array, " unknowns"]
) -> tuple[Float[Array, ""], Float[Array, " pairs"], Float[Array, " pairs"]]:
    """Return the penalised log-likelihood, and per pair its gradient and curvature."""
    terms = pair_terms(link, problem.margins(scores), problem.wins_a, problem.wins_b)
    prior = jnp.sum(problem.penalised(scores) * scores) / 2
    return jnp.sum(terms.log_likelihood) - prior, terms.gradient, terms.curvature


def _smoothed(
    problem: PairwiseProblem, link: Link
) -> tuple[Float[Array, " pairs"], Float[Array, " pairs"]]:
    """Return the margin of each pair were half a win added to both sides, and its information."""
    real = problem.wins_a + problem.wins_b > 0
    total = problem.wins_a + problem.wins_b + 1.0
    margin = link.margin((problem.wins_a + 0.5) / total, (problem.wins_b + 0.5) / total)
    return margin, jnp.where(real, total * information_per_comparison(link, margin), 0.0)


def _step_length(
    problem: PairwiseProblem,
    link: Link,
    scores: Float[Array, " unknowns"],
    direction: Float[Array, " unknowns"],
    here: Float[Array, ""],
    slope: Float[Array, ""],
) -> Float[Array, ""]:
    """Return the first of 1, 1/2, 1/4, ... that climbs enough, or 0 when none does.

    A length is good when the objective rose by the usual fraction of the promise, or when the
    slope there has not turned downhill by more than a tenth of the slope here: by concavity that
    is a climb too, and it can still be told when the objective is all rounding.
    """
    change = problem.margins(direction)

    def good(length: Float[Array, ""]) -> Bool[Array, ""]:
        trial = scores + length * direction
        value, pull, _ = _evaluate(problem, link, trial)
        later = jnp.sum(pull * change) - jnp.sum(problem.penalised(trial) * direction)
        return (value >= here + _SUFFICIENT * length * slope) | (later >= -0.1 * slope)

    least = 2.0**-_HALVINGS
    climbs = slope > 0
    length = lax.while_loop(
        lambda length: climbs & (length > least) & ~good(length),
        lambda length: length / 2,
        jnp.ones_like(slope),
    )
    return jnp.where(climbs & (length > least), length, 0.0)


def _direction(
    problem: PairwiseProblem,
    link: Link,
    state: _State,
    gradient: Float[Array, " unknowns"],
    curvature: Float[Array, " pairs"],
) -> Float[Array, " unknowns"]:
    """Return the way to the least-squares fit in the first step, and Newton's step afterwards."""
    first = state.steps == 0
    margin, weight = _smoothed(problem, link)
    target = problem.pull(weight * margin)
    ceiling = (problem.wins_a + problem.wins_b) * information_per_comparison(
        link, jnp.zeros_like(margin)
    )
    curvature = jnp.where(first, weight, curvature + state.damping * ceiling)
    factor = jnp.linalg.cholesky(precision(problem, curvature))
    return problem.centred(solve_factored(factor, jnp.where(first, target, gradient)))


def _next_damping(damping: Float[Array, ""], failed: Bool[Array, ""]) -> Float[Array, ""]:
    """Return more damping after a step that could not be taken, less or none after one that was."""
    more = jnp.maximum(damping * _DAMPING_FACTOR, _LEAST_DAMPING)
    less = jnp.where(damping > _LEAST_DAMPING, damping / _DAMPING_FACTOR, 0.0)
    return jnp.where(failed, more, less)


def _newton_step(
    problem: PairwiseProblem, link: Link, tolerance: Float[Array, ""], state: _State
) -> _State:
    """Take one step, or raise the damping where none can be taken."""
    scores = state.scores
    value, pull, curvature = _evaluate(problem, link, scores)
    gradient = problem.pull(pull) - problem.penalised(scores)
    direction = _direction(problem, link, state, gradient, curvature)
    size = jnp.max(jnp.abs(direction))
    direction = jnp.where(jnp.isfinite(size), direction, 0.0)
    small = size <= tolerance * jnp.maximum(1.0, jnp.max(jnp.abs(scores)))
    done = small & (state.steps > 0) & (state.damping == 0)
    slope = jnp.where(done, 0.0, jnp.sum(gradient * direction))
    length = _step_length(problem, link, scores, direction, value, slope)
    failed = ~done & (length == 0)
    outcome = jnp.where(done, CONVERGED, jnp.where(state.damping > 1, STALLED, RUNNING))
    return _State(
        scores=problem.centred(scores + jnp.where(done, 1.0, length) * direction),
        damping=_next_damping(state.damping, failed & (state.steps > 0)),
        step_size=size,
        steps=state.steps + 1,
        outcome=outcome.astype(state.outcome.dtype),
    )


@eqx.filter_jit
def maximise_likelihood(
    problem: PairwiseProblem,
    link: Link,
    tolerance: Float[Array, ""],
    max_steps: Int[Array, ""],
) -> NewtonResult:
    """Return the scores of highest penalised log-likelihood, with how the search ended.

    Parameters
    ----------
    problem : PairwiseProblem
        Counts and prior; arrays are traced, so other data of the same shape do not recompile.
    link : Link
        A symmetric link whose log-probability is concave.
    tolerance : (), nats
        Stop when the next step moves no score by more than this (times the largest score, where
        that exceeds 1); the step is still taken.
    max_steps : ()
        Give up after this many steps.

    Returns
    -------
    NewtonResult
        `outcome` is CONVERGED, STALLED (no direction climbs, or the information is singular to
        working precision) or RUNNING (out of steps). `gradient_norm` is the largest entry of the
        penalised gradient, in comparisons.

    Notes
    -----
    Each step costs one Cholesky factorisation of an (unknowns, unknowns) matrix.
    """
    zero = jnp.zeros((), jnp.int32)
    dtype = problem.wins_a.dtype
    origin = jnp.zeros(problem.num_items + problem.columns.shape[1], dtype)
    unknown, none = jnp.asarray(jnp.inf, dtype), jnp.zeros((), dtype)
    first = _State(origin, none, unknown, zero, zero)
    last = lax.while_loop(
        lambda state: (state.outcome == RUNNING) & (state.steps < max_steps),
        lambda state: _newton_step(problem, link, tolerance, state),
        first,
    )
    value, pull, _ = _evaluate(problem, link, last.scores)
    return NewtonResult(
        scores=last.scores,
        log_likelihood=value + jnp.sum(problem.penalised(last.scores) * last.scores) / 2,
        gradient_norm=jnp.max(jnp.abs(problem.pull(pull) - problem.penalised(last.scores))),
        step_size=last.step_size,
        steps=last.steps,
        outcome=last.outcome,
    )
