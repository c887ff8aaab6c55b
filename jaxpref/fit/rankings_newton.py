"""Newton's method for rankings: by factorisation where that is cheap, else by conjugate gradients.

The log-likelihood is concave in all parameters, so a stationary point is the maximum. Only slopes
are looked at along a step: the log-likelihood of a million rankings has lost the digits that the
last steps are about.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float64, Int

from .newton import CONVERGED, RUNNING, STALLED
from .rankings_likelihood import Evaluation
from .rankings_problems import PairProblem, Problem, SetProblem

_LEAST_LENGTH = 1e-12
_LEAST_DAMPING, _DAMPING_FACTOR, _MOST_DAMPING = 1e-8, 100.0, 1e8
_MOST_PRODUCTS = 400
_BATCH = 32


class Setting(NamedTuple):
    """What is fixed during a search.

    `item` marks the parameters that are scores of items (the rest are tie parameters or padding),
    `present` all that are to be fitted; `ridge` acts on scores only.
    """

    item: Bool[Array, " parameters"]
    present: Bool[Array, " parameters"]
    ridge: Float64[Array, ""]
    tolerance: Float64[Array, ""]
    max_steps: Int[Array, ""]

    def centred(self, vector: Float64[Array, " parameters"]) -> Float64[Array, " parameters"]:
        """Return a vector whose item part sums to zero, 0 where nothing is fitted."""
        mean = jnp.sum(jnp.where(self.item, vector, 0.0)) / jnp.sum(self.item, dtype=vector.dtype)
        return jnp.where(self.item, vector - mean, jnp.where(self.present, vector, 0.0))

    def penalty(self) -> Float64[Array, " parameters"]:
        """Return the ridge of each parameter."""
        return jnp.where(self.item, self.ridge, 0.0)


class RankingNewtonResult(NamedTuple):
    """Where the search stopped; `products` counts products with the Hessian."""

    parameters: Float64[Array, " parameters"]
    log_likelihood: Float64[Array, ""]
    gradient_norm: Float64[Array, ""]
    step_size: Float64[Array, ""]
    steps: Int[Array, ""]
    products: Int[Array, ""]
    outcome: Int[Array, ""]


class _State(NamedTuple):
    """Between two evaluations: where the last good one was, and the step being tried from there."""

    parameters: Float64[Array, " parameters"]
    step: Float64[Array, " parameters"]
    slope: Float64[Array, ""]
    length: Float64[Array, ""]
    gradient_norm: Float64[Array, ""]
    damping: Float64[Array, ""]
    step_size: Float64[Array, ""]
    steps: Int[Array, ""]
    products: Int[Array, ""]
    last: Bool[Array, ""]
    outcome: Int[Array, ""]


def dense_hessian(problem: Problem, found: Evaluation) -> Float64[Array, "parameters parameters"]:
    """Return minus the Hessian as a matrix, by products with unit vectors.

    A problem whose cache is the weights of a Laplacian has it at once.
    """
    if isinstance(problem, (SetProblem, PairProblem)):
        return jnp.diag(jnp.sum(found.cache, axis=1)) - found.cache
    size = found.gradient.shape[0]
    unit = jnp.eye(size, dtype=found.gradient.dtype)
    matrix = lax.map(
        lambda vector: problem.product(found.cache, vector), unit, batch_size=min(_BATCH, size)
    )
    return (matrix + matrix.T) / 2


def _lifted(diagonal: Float64[Array, " parameters"]) -> Float64[Array, " parameters"]:
    """Return a diagonal with a floor: a saturated item has next to no curvature."""
    return jnp.maximum(diagonal, 1e-12 * jnp.max(diagonal))


def _by_factor(
    problem: Problem,
    setting: Setting,
    found: Evaluation,
    state: _State,
    right: Float64[Array, " parameters"],
) -> tuple[Float64[Array, " parameters"], Int[Array, ""]]:
    """Solve for the step with one Cholesky factorisation."""
    matrix = dense_hessian(problem, found)
    diagonal = jnp.diagonal(matrix)
    extra = jnp.where(setting.present, setting.penalty() + state.damping * _lifted(diagonal), 1.0)
    weakest = jnp.min(jnp.where(setting.item & (diagonal > 0), diagonal, jnp.inf)) + setting.ridge
    shift = jnp.where(jnp.isfinite(weakest), weakest, 1.0)
    here = setting.item.astype(matrix.dtype)
    ones = jnp.outer(here, here) * (shift / jnp.sum(here))
    factor = jnp.linalg.cholesky(matrix + ones + jnp.diag(extra))
    step = jax.scipy.linalg.cho_solve((factor, True), right)
    return step, jnp.asarray(right.shape[0], jnp.int32)


def _by_conjugate_gradients(
    problem: Problem,
    setting: Setting,
    found: Evaluation,
    state: _State,
    right: Float64[Array, " parameters"],
) -> tuple[Float64[Array, " parameters"], Int[Array, ""]]:
    """Solve for the step as far as the last one's size makes it worth while."""
    diagonal = _lifted(found.diagonal)
    extra = setting.penalty() + state.damping * diagonal
    scale = jnp.where(setting.present, diagonal + extra, 1.0)

    def condition(rest: Float64[Array, " parameters"]) -> Float64[Array, " parameters"]:
        return setting.centred(rest / scale)

    def product(vector: Float64[Array, " parameters"]) -> Float64[Array, " parameters"]:
        return setting.centred(problem.product(found.cache, vector) + extra * vector)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        answer, rest, way, size, count = carry
        image = product(way)
        length = size / jnp.sum(way * image)
        answer, rest = answer + length * way, rest - length * image
        conditioned = condition(rest)
        later = jnp.sum(rest * conditioned)
        return answer, rest, conditioned + (later / size) * way, later, count + 1

    way = condition(right)
    size = jnp.sum(right * way)
    forcing = jnp.clip(state.step_size, 1e-5, 0.1)
    limit = size * forcing**2
    carry = jnp.zeros_like(right), right, way, size, jnp.zeros((), jnp.int32)
    answer, _, _, _, count = lax.while_loop(
        lambda c: (c[3] > limit) & (c[4] < _MOST_PRODUCTS) & jnp.isfinite(c[3]), step, carry
    )
    return answer, count


def _gradient(
    setting: Setting, found: Evaluation, parameters: Float64[Array, " parameters"]
) -> Float64[Array, " parameters"]:
    return jnp.where(setting.present, found.gradient - setting.penalty() * parameters, 0.0)


def _advance(
    problem: Problem, setting: Setting, state: _State, dense: bool, verify: bool
) -> _State:
    """Evaluate the end of the step; take it and solve for the next, or shorten it.

    A step is taken while the slope at its end still climbs, which by concavity is an ascent; or,
    if it moves nothing by more than a nat, where it points back by less than a tenth of the slope
    at its start. Otherwise its length is cut by the secant rule.
    """
    trial = setting.centred(state.parameters + state.length * state.step)
    found = problem.evaluate(trial)
    gradient = _gradient(setting, found, trial)
    later = jnp.sum(gradient * state.step)
    near = state.length * jnp.max(jnp.abs(state.step)) <= 1.0
    good = (
        (later >= jnp.where(near, -0.1 * state.slope, 0.0))
        | state.last
        | (state.length <= _LEAST_LENGTH)
    )
    good &= jnp.all(jnp.isfinite(gradient)) | (state.length == 0)

    def shorten() -> _State:
        cut = jnp.where(jnp.isfinite(later), state.slope / (state.slope - later), 0.1)
        return state._replace(length=state.length * jnp.clip(cut, 0.1, 0.5))

    def take() -> _State:
        taken = state._replace(parameters=trial, gradient_norm=jnp.max(jnp.abs(gradient)))
        return lax.cond(
            state.last,
            lambda: taken._replace(outcome=jnp.full_like(state.outcome, CONVERGED)),
            lambda: _solve_next(problem, setting, found, taken, gradient, dense, verify),
        )

    return lax.cond(good, take, shorten)


def _solve_next(
    problem: Problem,
    setting: Setting,
    found: Evaluation,
    state: _State,
    gradient: Float64[Array, " parameters"],
    dense: bool,
    verify: bool,
) -> _State:
    """Solve for the next step; where none can be taken, raise the damping and stay."""
    solve = _by_factor if dense else _by_conjugate_gradients
    right = setting.centred(gradient)
    step, products = solve(problem, setting, found, state, right)
    step = setting.centred(step)
    size = jnp.max(jnp.abs(step))
    slope = jnp.sum(right * step)
    scale = jnp.maximum(1.0, jnp.max(jnp.abs(state.parameters)))
    small = size <= setting.tolerance * scale
    usable = jnp.isfinite(size) & ((slope > 0) | small)
    stuck = usable & ~small & (state.length <= _LEAST_LENGTH) & (state.length > 0)
    usable &= ~stuck
    more = jnp.maximum(state.damping * _DAMPING_FACTOR, _LEAST_DAMPING)
    less = jnp.where(state.damping > _LEAST_DAMPING, state.damping / _DAMPING_FACTOR, 0.0)
    stalled = ~usable & (state.damping >= _MOST_DAMPING)
    last = usable & small & (state.damping == 0)
    outcome = jnp.where(stalled, STALLED, RUNNING)
    if not verify:
        state = state._replace(parameters=state.parameters + jnp.where(last, step, 0.0))
        outcome = jnp.where(last, CONVERGED, outcome)
    return state._replace(
        step=jnp.where(usable, step, 0.0),
        slope=jnp.where(usable, slope, 0.0),
        length=jnp.where(usable, 1.0, 0.0),
        damping=jnp.where(usable, less, more),
        step_size=size,
        steps=state.steps + 1,
        products=state.products + products,
        last=last,
        outcome=outcome.astype(state.outcome.dtype),
    )


@eqx.filter_jit
def maximise_rankings(
    problem: Problem,
    start: Float64[Array, " parameters"],
    setting: Setting,
    *,
    dense: bool,
    verify: bool = True,
) -> RankingNewtonResult:
    """Return the parameters of highest penalised log-likelihood, with how the search ended.

    Parameters
    ----------
    problem : Problem
        The rankings; arrays are traced, so other data of the same shape do not recompile.
    start : (parameters,)
        Where to start, nats.
    setting : Setting
        Prior, tolerance (nats, relative to the largest score where that exceeds 1), limits.
    dense : bool
        Factor the Hessian, at the cost of one product per parameter; otherwise conjugate gradients
        with the diagonal as preconditioner.
    verify : bool
        Evaluate once more after the last step, so that `gradient_norm` is that of the scores
        returned rather than of those before the step.
    """
    none, no_steps = jnp.zeros((), start.dtype), jnp.zeros((), jnp.int32)
    unknown = jnp.asarray(jnp.inf, start.dtype)
    first = _State(
        setting.centred(start),
        jnp.zeros_like(start),
        none,
        none,
        unknown,
        none,
        unknown,
        no_steps,
        no_steps,
        jnp.asarray(False),
        no_steps,
    )
    end = lax.while_loop(
        lambda state: (state.outcome == RUNNING) & (state.steps <= setting.max_steps),
        lambda state: _advance(problem, setting, state, dense, verify),
        first,
    )
    return RankingNewtonResult(
        parameters=end.parameters,
        log_likelihood=problem.log_likelihood(end.parameters),
        gradient_norm=end.gradient_norm,
        step_size=end.step_size,
        steps=end.steps,
        products=end.products,
        outcome=end.outcome,
    )
