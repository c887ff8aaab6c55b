"""Damped Newton for scores from pair counts, in the gauge where scores sum to zero.

The problem is concave, so Newton with a line search reaches the maximum from anywhere; four
things make it right on chain-like data, where first-order methods stop whole nats away:

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
from jaxtyping import Array, Bool, Float64, Int

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
    """Counts and prior, padded: absent items have no pairs, absent pairs have no wins."""

    item_a: Int[Array, " pairs"]
    item_b: Int[Array, " pairs"]
    wins_a: Float64[Array, " pairs"]
    wins_b: Float64[Array, " pairs"]
    present: Bool[Array, " items"]
    ridge: Float64[Array, ""]

    def margins(self, scores: Float64[Array, " items"]) -> Float64[Array, " pairs"]:
        """Return s_a - s_b for every pair."""
        return scores[self.item_a] - scores[self.item_b]

    def centred(self, scores: Float64[Array, " items"]) -> Float64[Array, " items"]:
        """Return scores moved to sum to zero over the items present, and 0 elsewhere."""
        mean = jnp.sum(jnp.where(self.present, scores, 0.0)) / jnp.sum(self.present, dtype=float)
        return jnp.where(self.present, scores - mean, 0.0)


class NewtonResult(NamedTuple):
    """Where Newton stopped."""

    scores: Float64[Array, " items"]
    log_likelihood: Float64[Array, ""]
    gradient_norm: Float64[Array, ""]
    step_size: Float64[Array, ""]
    steps: Int[Array, ""]
    outcome: Int[Array, ""]


class _State(NamedTuple):
    scores: Float64[Array, " items"]
    damping: Float64[Array, ""]
    step_size: Float64[Array, ""]
    steps: Int[Array, ""]
    outcome: Int[Array, ""]


def factor_precision(
    item_a: Int[Array, " pairs"],
    item_b: Int[Array, " pairs"],
    weight: Float64[Array, " pairs"],
    present: Bool[Array, " items"],
    ridge: Float64[Array, ""],
) -> Float64[Array, "items items"]:
    """Return the lower Cholesky factor of the Laplacian of `weight`, plus ridge, made definite.

    Two terms are added that a right-hand side summing to zero cannot feel: a multiple of the
    all-ones matrix, no larger than the weakest item's weight so that it costs that item no digits,
    and a 1 on the diagonal of every absent item.
    """
    laplacian = weighted_laplacian(item_a, item_b, weight, present.shape[0])
    diagonal = jnp.diagonal(laplacian) + ridge
    weakest = jnp.min(jnp.where(present & (diagonal > 0), diagonal, jnp.inf))
    shift = jnp.where(jnp.isfinite(weakest), weakest, 1.0)
    here = present.astype(weight.dtype)
    ones = jnp.outer(here, here) * (shift / jnp.sum(here))
    return jnp.linalg.cholesky(laplacian + ones + jnp.diag(jnp.where(present, ridge, 1.0)))


def solve_factored(
    factor: Float64[Array, "items items"], right: Float64[Array, "items ..."]
) -> Float64[Array, "items ..."]:
    """Return the solution of factor factor^T x = right."""
    return jax.scipy.linalg.cho_solve((factor, True), right)


def _gradient(
    problem: PairwiseProblem, pull: Float64[Array, " pairs"], scores: Float64[Array, " items"]
) -> Float64[Array, " items"]:
    net = onto_items(problem.item_a, problem.item_b, pull, scores.shape[0])
    return net - problem.ridge * scores


def _evaluate(
    problem: PairwiseProblem, link: Link, scores: Float64[Array, " items"]
) -> tuple[Float64[Array, ""], Float64[Array, " pairs"], Float64[Array, " pairs"]]:
    """Return the penalised log-likelihood, and per pair its gradient and curvature."""
    terms = pair_terms(link, problem.margins(scores), problem.wins_a, problem.wins_b)
    prior = problem.ridge / 2 * jnp.sum(scores**2)
    return jnp.sum(terms.log_likelihood) - prior, terms.gradient, terms.curvature


def _smoothed(
    problem: PairwiseProblem, link: Link
) -> tuple[Float64[Array, " pairs"], Float64[Array, " pairs"]]:
    """Return the margin of each pair were half a win added to both sides, and its information."""
    real = problem.wins_a + problem.wins_b > 0
    total = problem.wins_a + problem.wins_b + 1.0
    margin = link.margin((problem.wins_a + 0.5) / total, (problem.wins_b + 0.5) / total)
    return margin, jnp.where(real, total * information_per_comparison(link, margin), 0.0)


def _step_length(
    problem: PairwiseProblem,
    link: Link,
    scores: Float64[Array, " items"],
    direction: Float64[Array, " items"],
    here: Float64[Array, ""],
    slope: Float64[Array, ""],
) -> Float64[Array, ""]:
    """Return the first of 1, 1/2, 1/4, ... that climbs enough, or 0 when none does.

    A length is good when the objective rose by the usual fraction of the promise, or when the
    slope there has not turned downhill by more than a tenth of the slope here: by concavity that
    is a climb too, and it can still be told when the objective is all rounding.
    """
    change = problem.margins(direction)

    def good(length: Float64[Array, ""]) -> Bool[Array, ""]:
        trial = scores + length * direction
        value, pull, _ = _evaluate(problem, link, trial)
        later = jnp.sum(pull * change) - problem.ridge * jnp.sum(trial * direction)
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
    gradient: Float64[Array, " items"],
    curvature: Float64[Array, " pairs"],
) -> Float64[Array, " items"]:
    """Return the way to the least-squares fit in the first step, and Newton's step afterwards."""
    first = state.steps == 0
    margin, weight = _smoothed(problem, link)
    target = onto_items(problem.item_a, problem.item_b, weight * margin, gradient.shape[0])
    ceiling = (problem.wins_a + problem.wins_b) * information_per_comparison(
        link, jnp.zeros_like(margin)
    )
    factor = factor_precision(
        problem.item_a,
        problem.item_b,
        jnp.where(first, weight, curvature + state.damping * ceiling),
        problem.present,
        problem.ridge,
    )
    return problem.centred(solve_factored(factor, jnp.where(first, target, gradient)))


def _next_damping(damping: Float64[Array, ""], failed: Bool[Array, ""]) -> Float64[Array, ""]:
    """Return more damping after a step that could not be taken, less or none after one that was."""
    more = jnp.maximum(damping * _DAMPING_FACTOR, _LEAST_DAMPING)
    less = jnp.where(damping > _LEAST_DAMPING, damping / _DAMPING_FACTOR, 0.0)
    return jnp.where(failed, more, less)


def _newton_step(
    problem: PairwiseProblem, link: Link, tolerance: Float64[Array, ""], state: _State
) -> _State:
    """Take one step, or raise the damping where none can be taken."""
    scores = state.scores
    value, pull, curvature = _evaluate(problem, link, scores)
    gradient = _gradient(problem, pull, scores)
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
    tolerance: Float64[Array, ""],
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
    Each step costs one Cholesky factorisation of an (items, items) matrix.
    """
    zero = jnp.zeros((), jnp.int32)
    origin = jnp.zeros(problem.present.shape, jnp.float64)
    unknown, none = jnp.asarray(jnp.inf, jnp.float64), jnp.zeros((), jnp.float64)
    first = _State(origin, none, unknown, zero, zero)
    last = lax.while_loop(
        lambda state: (state.outcome == RUNNING) & (state.steps < max_steps),
        lambda state: _newton_step(problem, link, tolerance, state),
        first,
    )
    value, pull, _ = _evaluate(problem, link, last.scores)
    return NewtonResult(
        scores=last.scores,
        log_likelihood=value + problem.ridge / 2 * jnp.sum(last.scores**2),
        gradient_norm=jnp.max(jnp.abs(_gradient(problem, pull, last.scores))),
        step_size=last.step_size,
        steps=last.steps,
        outcome=last.outcome,
    )
