"""Steps of supervised fine-tuning and of preference optimisation, as pure functions.

Everything a step needs is a tree of arrays: the state, the rows, the reference log-probabilities,
which rows the step sees and with which learning rate, and the numbers of the loss. So a population
of runs is a leading axis on whichever of them differ, under ``jax.vmap`` or ``jax.lax.map``, a run
is ``jax.lax.scan``, and the derivative of a trained policy with respect to its data is
``jax.jvp``. What fixes the program, and not its numbers, is a frozen :class:`Recipe`.

Both log-probabilities falling while their margin grows is what preference optimisation does, not a
fault: the loss sees only the difference. The metrics therefore hold both, not only the margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .._checks import InputError, check_count, check_option
from .adam8bit import scale_by_adam_8bit
from .attention import ATTENTIONS
from .decoder import REMATS
from .logps import completion_logps
from .lora import join
from .losses import LOSSES, WHOLE_BATCH, LossSettings, implicit_rewards, preference_loss
from .mesh import split_params, split_rows
from .precision import apply_stochastically
from .reward_losses import REWARD_LOSSES
from .reward_models import row_scores
from .rows import PADDING, Rows, completion_lengths

Params = Any
"""A tree of arrays."""

NO_REFERENCE = ("simpo", *REWARD_LOSSES)
ANY_NUMBER = ("plackett_luce_dpo", "sft", "plackett_luce")  # of completions; the others compare two
OPTIMIZERS = ("adamw", "adamw8bit")


class TrainState(NamedTuple):
    """What training changes.

    Attributes
    ----------
    params : tree of arrays
        The policy's parameters, in float32 or wider; with stochastic rounding in bfloat16.
    optimizer : tree of arrays
        First and second moments, in the parameters' shapes, and a count of updates.
    step : int32 scalar
        Updates done so far; also where the data are read on.
    key : uint32 array, or None
        Data of the key of the stochastic rounding, where there is any.
    """

    params: Params
    optimizer: optax.OptState
    step: jax.Array
    key: jax.Array | None = None


class Batches(NamedTuple):
    """What each step sees; in a single step's batch the leading axis is left out.

    Attributes
    ----------
    rows : int32, shape (steps, batch)
        Row numbers.
    weights : float, shape (steps, batch)
        Weights of the rows in the mean of the loss; 0 leaves a row out. Not all 0 in a step.
    reversed : float, shape (steps, batch), or None
        Probability that the preference of the row is the other way round: the loss is the
        expectation over both readings. None means never, at half the cost of 0.
    learning_rate : float, shape (steps,)
    """

    rows: jax.Array
    weights: jax.Array
    reversed: jax.Array | None
    learning_rate: jax.Array


class Metrics(NamedTuple):
    """Means over the rows of a step, by their weights, before its update; float32 scalars.

    ``rejected_*`` are means over all completions but the best where there are more than two, and
    ``accuracy`` is the share of rows whose best completion has the highest implicit reward.
    """

    loss: jax.Array
    chosen_logps: jax.Array
    rejected_logps: jax.Array
    chosen_rewards: jax.Array
    rejected_rewards: jax.Array
    reward_margin: jax.Array
    accuracy: jax.Array
    grad_norm: jax.Array


@dataclass(frozen=True)
class Recipe:
    """What fixes the compiled program of a training.

    Attributes
    ----------
    loss : str
        A name in :data:`jaxpref.llm.losses.LOSSES`.
    completions : int
        Completions a row, at least 2.
    micro_batch : int, optional
        Rows whose gradient is taken at once; the step adds them up. It changes memory and speed,
        and the result only by rounding. None takes the whole batch.
    clip_norm : float, optional
        Largest norm of the gradient; longer ones are shortened.
    weight_decay, b1, b2, eps : float
        Of AdamW.
    eps_root : float
        Added under the root of the second moment. It must be above 0 (1e-10) to differentiate
        through training: at 0 the root's slope is infinite where a gradient is zero.
    compute_dtype : str, optional
        Type the parameters are cast to for the forward and backward pass ("bfloat16"); the state
        keeps them in float32, since updates of usual size vanish in bfloat16.
    optimizer : {"adamw", "adamw8bit"}
        The second keeps its moments in a byte each (:mod:`jaxpref.llm.adam8bit`); training with it
        cannot be differentiated through.
    stochastic : bool
        Keep the parameters in bfloat16, and round their updates at random
        (:mod:`jaxpref.llm.precision`).
    logit_width : int, optional
        Most completion tokens of a row, where logits are taken; all tokens when left out.
    logit_chunk : int, optional
        As `chunk` of :func:`jaxpref.llm.logps.completion_logps`.
    sliding_window : int, optional
        The model's attention window.
    attention, remat : str
        As in :func:`jaxpref.llm.hidden_states`: how attention is computed, and what the backward
        pass computes again instead of keeping.
    widths : tuple of (int, int)
        Tokens and completion tokens to which a part of a step may be cut, narrowest first, the
        last holding every row (:func:`jaxpref.llm.rows.row_widths`): the rows of a step are sorted
        by length, and each part takes the least width that holds it. Not cut when empty. For runs
        one after the other: under vmap every width would be computed for every part.
    """

    loss: str = "dpo"
    completions: int = 2
    micro_batch: int | None = None
    clip_norm: float | None = None
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0
    compute_dtype: str | None = None
    logit_width: int | None = None
    logit_chunk: int | None = None
    sliding_window: int | None = None
    attention: str = "direct"
    remat: str = "none"
    optimizer: str = "adamw"
    stochastic: bool = False
    widths: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        check_option("loss", self.loss, LOSSES)
        check_option("attention", self.attention, ATTENTIONS)
        check_option("remat", self.remat, REMATS)
        check_option("optimizer", self.optimizer, OPTIMIZERS)
        check_count("completions", self.completions, at_least=1)
        if self.loss not in ANY_NUMBER and self.completions > 2:
            raise InputError(
                f"loss: {self.loss!r} compares two completions, the rows hold {self.completions}; "
                "expected 'plackett_luce_dpo'"
            )
        if self.micro_batch is not None:
            check_count("micro_batch", self.micro_batch)
            if self.loss in WHOLE_BATCH:
                raise InputError(
                    f"micro_batch: {self.loss!r} needs the whole batch at once; leave it out"
                )


def adam(recipe: Recipe) -> optax.GradientTransformation:
    """Return AdamW's direction, which a step multiplies by its learning rate."""
    scale = scale_by_adam_8bit if recipe.optimizer == "adamw8bit" else optax.scale_by_adam
    parts = [scale(recipe.b1, recipe.b2, recipe.eps, recipe.eps_root)]
    if recipe.weight_decay:
        parts.append(optax.add_decayed_weights(recipe.weight_decay))
    return optax.chain(*parts)


def init_state(params: Params, recipe: Recipe, *, seed: int = 0) -> TrainState:
    """Return the state before the first step.

    Parameters narrower than float32 are widened: at a learning rate of 5e-6 most bfloat16
    weights would not move at all. With stochastic rounding all become bfloat16, and `seed` is that
    of the rounding; the moments are of float32 either way.
    """
    params = jax.tree.map(_at_least_float32, params)
    optimizer, step = adam(recipe).init(params), jnp.zeros((), jnp.int32)
    if not recipe.stochastic:
        return TrainState(params, optimizer, step)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    return TrainState(params, optimizer, step, jax.random.key_data(jax.random.key(seed)))


def _at_least_float32(leaf: jax.Array) -> jax.Array:
    # A copy: the state's buffers are donated.
    return jnp.array(leaf, jnp.float32 if _is_narrow(leaf) else leaf.dtype, copy=True)


def _is_narrow(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4


def _compute(params: Params, recipe: Recipe) -> Params:
    if recipe.compute_dtype is None:
        return params
    dtype = jnp.dtype(recipe.compute_dtype)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def select(table: Any, rows: jax.Array) -> Any:
    """Return the given rows of every array of a table."""
    return jax.tree.map(lambda array: array[rows], table)


def policy_logps(
    graphdef: Any, params: Params, rows: Rows, recipe: Recipe, frozen: Params = None
) -> jax.Array:
    """Return the completions' log-probabilities as a recipe's steps compute them, (R, K).

    Of a reward model, where the loss is one of reward modelling: their scores. With `frozen`, that
    is the base model, and `params` are the adapters on it.
    """
    params = _compute(params, recipe)
    if frozen is not None:
        params = join(_compute(frozen, recipe), params)
    if recipe.loss in REWARD_LOSSES:
        return row_scores(
            graphdef,
            params,
            rows,
            completions=recipe.completions,
            sliding_window=recipe.sliding_window,
            attention=recipe.attention,
            remat=recipe.remat,
        )
    return completion_logps(
        graphdef,
        params,
        rows,
        completions=recipe.completions,
        width=recipe.logit_width,
        chunk=recipe.logit_chunk,
        sliding_window=recipe.sliding_window,
        attention=recipe.attention,
        remat=recipe.remat,
    )


def _summed_gradient(
    objective: Callable[..., Any], params: Params, batch: Any, rows: Rows, recipe: Recipe
) -> Any:
    """Return ``((value, sums), gradient)`` of an objective that is a sum over the batch's rows.

    It is called with the parameters, the part of the batch, its rows and the recipe for them.
    """

    def gradient(params: Params, part: Any, width: tuple[int, int] | None = None) -> Any:
        piece, own = select(rows, part.rows), recipe
        if width is not None:
            piece = Rows(*(field[:, : width[0]] for field in piece))
            own = replace(recipe, logit_width=width[1])
        slope = jax.value_and_grad(partial(objective, recipe=own), has_aux=True)
        value, slope = slope(params, *split_rows((part, piece)))
        return value, split_params(slope)

    def fitted(params: Params, part: Any) -> Any:
        longest = jnp.max(jnp.sum(select(rows.segments, part.rows) > PADDING, axis=1))
        steps = jnp.asarray([width for width, _ in recipe.widths[:-1]], longest.dtype)
        branches = [partial(gradient, width=width) for width in recipe.widths]
        return jax.lax.switch(jnp.sum(longest > steps), branches, params, part)

    size = jax.tree.leaves(batch)[0].shape[0]
    one = fitted if recipe.widths else gradient
    if recipe.micro_batch is None or recipe.micro_batch >= size:
        return one(params, batch)
    if recipe.widths:
        batch = select(batch, _by_length(rows, batch.rows))
    return _scanned(one, params, batch, recipe.micro_batch)


def _by_length(rows: Rows, index: jax.Array) -> jax.Array:
    """Return the order in which a batch's rows grow longer, so that few share a wide part."""
    return jnp.argsort(jnp.sum(rows.segments[index] > PADDING, axis=1), stable=True)


def _scanned(gradient: Callable[..., Any], params: Params, batch: Any, micro_batch: int) -> Any:
    """Return the sum of a gradient over a batch's parts, taken one after the other."""
    size = jax.tree.leaves(batch)[0].shape[0]
    if size % micro_batch:
        raise InputError(
            f"micro_batch: expected a divisor of the batch's {size} rows; got {micro_batch}"
        )
    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, micro_batch, *leaf.shape[1:]), batch)
    first = jax.eval_shape(gradient, params, jax.tree.map(lambda leaf: leaf[0], parts))
    zero = jax.tree.map(  # in bfloat16 a sum of many parts would lose the small ones
        lambda leaf: jnp.zeros(leaf.shape, jnp.float32 if _is_narrow(leaf) else leaf.dtype), first
    )

    def add(total: Any, part: Any) -> tuple[Any, None]:
        new = gradient(params, part)
        return jax.tree.map(lambda one, other: one + other.astype(one.dtype), total, new), None

    return jax.lax.scan(add, zero, parts)[0]


def _update(
    state: TrainState, gradient: Params, learning_rate: jax.Array, recipe: Recipe
) -> tuple[TrainState, jax.Array]:
    """Return the state after an AdamW update, and the gradient's norm before clipping."""
    norm = optax.tree.norm(_widened(gradient))
    if recipe.clip_norm is not None:
        gradient = _clipped(gradient, norm, recipe.clip_norm)
    if recipe.optimizer == "adamw":  # the other one widens part by part
        gradient = _widened(gradient)
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer count
        direction, optimizer = adam(recipe).update(gradient, state.optimizer, state.params)
    if state.key is not None:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        params = apply_stochastically(state.params, direction, learning_rate, key)
        return TrainState(params, optimizer, state.step + 1, state.key), norm
    params = jax.tree.map(
        lambda leaf, way: leaf - learning_rate.astype(leaf.dtype) * way, state.params, direction
    )
    return TrainState(params, optimizer, state.step + 1), norm


def _widened(tree: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if _is_narrow(leaf) else leaf, tree)


def _clipped(gradient: Params, norm: jax.Array, most: float) -> Params:
    """Return a gradient shortened to a norm of `most`, if it is longer."""

    def clip(leaf: jax.Array) -> jax.Array:
        return jnp.where(norm < most, leaf, leaf / norm.astype(leaf.dtype) * most)

    return jax.tree.map(clip, gradient)


def dpo_gradient(
    graphdef: Any,
    params: Params,
    rows: Rows,
    reference_logps: jax.Array,
    batch: Batches,
    settings: LossSettings,
    recipe: Recipe,
    frozen: Params = None,
) -> tuple[Metrics, Params]:
    """Return the metrics of a batch and the gradient of its loss; parameters as :func:`dpo_step`.

    The norm of the gradient is the caller's to fill in: here it is 0.
    """

    def objective(
        params: Params, part: Batches, piece: Rows, recipe: Recipe
    ) -> tuple[jax.Array, Metrics]:
        policy = policy_logps(graphdef, params, piece, recipe, frozen)
        lengths = completion_lengths(piece, recipe.completions)
        each = _either_way(policy, reference_logps[part.rows], lengths, part, settings, recipe)
        sums = Metrics(*(jnp.sum(part.weights * value) for value in each))
        return sums.loss, jax.lax.stop_gradient(sums)

    batch = batch._replace(weights=batch.weights / jnp.sum(batch.weights))
    varying = batch._replace(learning_rate=None)  # pyright: ignore[reportArgumentType]
    (_, metrics), gradient = _summed_gradient(objective, params, varying, rows, recipe)
    return metrics, gradient


def _either_way(
    policy: jax.Array,
    reference: jax.Array,
    lengths: jax.Array,
    batch: Batches,
    settings: LossSettings,
    recipe: Recipe,
) -> Metrics:
    """Return the loss and the metrics of each row, in expectation over how its labels read."""
    as_given = _row_metrics(policy, reference, lengths, batch.weights, settings, recipe)
    if batch.reversed is None:
        return as_given
    if recipe.loss in WHOLE_BATCH:
        raise InputError(f"reversed: {recipe.loss!r} needs its rows best first; leave it out")
    share = batch.reversed
    turned = (policy[:, ::-1], reference[:, ::-1], lengths[:, ::-1])
    other = _row_metrics(*turned, batch.weights, settings, recipe)
    return jax.tree.map(lambda one, two: (1 - share) * one + share * two, as_given, other)


def _row_metrics(
    policy: jax.Array,
    reference: jax.Array,
    lengths: jax.Array,
    weights: jax.Array,
    settings: LossSettings,
    recipe: Recipe,
) -> Metrics:
    loss = preference_loss(recipe.loss, policy, reference, lengths, settings, weights)
    reward = _rewards(policy, reference, lengths, settings, recipe)
    best, rest = reward[:, 0], reward[:, 1:]
    return Metrics(
        loss=loss,
        chosen_logps=policy[:, 0],
        rejected_logps=jnp.mean(policy[:, 1:], axis=1),
        chosen_rewards=best,
        rejected_rewards=jnp.mean(rest, axis=1),
        reward_margin=best - jnp.mean(rest, axis=1),
        accuracy=jnp.all(best[:, None] > rest, axis=1).astype(loss.dtype),
        grad_norm=jnp.zeros_like(loss),
    )


def _rewards(
    policy: jax.Array,
    reference: jax.Array,
    lengths: jax.Array,
    settings: LossSettings,
    recipe: Recipe,
) -> jax.Array:
    """Return the rewards a loss compares: SimPO's are mean log-probabilities, times beta."""
    if recipe.loss in REWARD_LOSSES:
        return policy
    if recipe.loss not in NO_REFERENCE:
        return implicit_rewards(policy, reference, beta=settings.beta)
    return implicit_rewards(policy / lengths.astype(policy.dtype), policy * 0, beta=settings.beta)


def dpo_step(
    graphdef: Any,
    state: TrainState,
    rows: Rows,
    reference_logps: jax.Array,
    batch: Batches,
    settings: LossSettings,
    *,
    recipe: Recipe,
    frozen: Params = None,
) -> tuple[TrainState, Metrics]:
    """Return the state after one step of preference optimisation, and what it saw.

    Parameters
    ----------
    graphdef : nnx.GraphDef
        The model's structure (static).
    state : TrainState
    rows : Rows
        All rows, shared prompts, `recipe.completions` completions each; the batch picks from them.
    reference_logps : float32, shape (R, completions)
        Log-probabilities of every row under the reference, by the same code:
        :func:`jaxpref.llm.reference.reference_logps`.
    batch : Batches
        One step of them: shapes (batch,), and a scalar learning rate.
    settings : LossSettings
    recipe : Recipe
        Static.
    frozen : tree of arrays, optional
        The base model, where the state's parameters are adapters on it
        (:mod:`jaxpref.llm.lora`); `graphdef` is then that of the adapted model.

    Returns
    -------
    TrainState, Metrics
        The metrics are of the parameters before the update.
    """
    metrics, gradient = dpo_gradient(
        graphdef, state.params, rows, reference_logps, batch, settings, recipe, frozen
    )
    state, norm = _update(state, gradient, batch.learning_rate, recipe)
    return state, metrics._replace(grad_norm=norm)


class FineTuningMetrics(NamedTuple):
    """Of a step of supervised fine-tuning, before its update; float32 scalars."""

    loss: jax.Array
    """Mean negative log-probability of a completion token, by the rows' weights (nats)."""
    logps: jax.Array
    """Mean log-probability of a completion (nats)."""
    grad_norm: jax.Array


def sft_step(
    graphdef: Any,
    state: TrainState,
    rows: Rows,
    batch: Batches,
    *,
    recipe: Recipe,
    frozen: Params = None,
) -> tuple[TrainState, FineTuningMetrics]:
    """Return the state after one step of supervised fine-tuning on all completions of the rows.

    The loss is the mean over completion tokens, each completion of a row at equal weight a token.
    Parameters as :func:`dpo_step`; `recipe.loss` and `batch.reversed` play no part.
    """
    lengths = completion_lengths(select(rows, batch.rows), recipe.completions)
    tokens = jnp.sum(batch.weights[:, None] * lengths.astype(batch.weights.dtype))
    weight = jnp.sum(batch.weights) * recipe.completions

    def objective(
        params: Params, part: Batches, piece: Rows, recipe: Recipe
    ) -> tuple[jax.Array, jax.Array]:
        logps = policy_logps(graphdef, params, piece, recipe, frozen)
        total = jnp.sum(part.weights[:, None] * logps)
        return -total / tokens, jax.lax.stop_gradient(total)

    varying = Batches(batch.rows, batch.weights, None, None)  # pyright: ignore[reportArgumentType]
    (loss, total), gradient = _summed_gradient(objective, state.params, varying, rows, recipe)
    state, norm = _update(state, gradient, batch.learning_rate, recipe)
    return state, FineTuningMetrics(loss, total / weight, norm)


def dpo_run(
    graphdef: Any,
    state: TrainState,
    rows: Rows,
    reference_logps: jax.Array,
    batches: Batches,
    settings: LossSettings,
    *,
    recipe: Recipe,
    frozen: Params = None,
) -> tuple[TrainState, Metrics]:
    """Return the state after all steps of `batches`, and each step's metrics, shape (steps,).

    A scan of :func:`dpo_step`: to be mapped over members, or differentiated.
    """

    def step(state: TrainState, batch: Batches) -> tuple[TrainState, Metrics]:
        given = (rows, reference_logps, batch, settings)
        return dpo_step(graphdef, state, *given, recipe=recipe, frozen=frozen)

    return jax.lax.scan(step, state, batches)


def sft_run(
    graphdef: Any,
    state: TrainState,
    rows: Rows,
    batches: Batches,
    *,
    recipe: Recipe,
    frozen: Params = None,
) -> tuple[TrainState, FineTuningMetrics]:
    """Return the state after all steps of `batches`, and each step's metrics, shape (steps,)."""

    def step(state: TrainState, batch: Batches) -> tuple[TrainState, FineTuningMetrics]:
        return sft_step(graphdef, state, rows, batch, recipe=recipe, frozen=frozen)

    return jax.lax.scan(step, state, batches)
