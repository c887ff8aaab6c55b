"""Records that no training sees: which they are, and what a policy makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import InputError
from .losses import LossSettings, preference_loss
from .rows import PROMPT, Rows, row_lengths, row_widths
from .training import NO_REFERENCE, Recipe, policy_logps


class Split(NamedTuple):
    """Row numbers of the records that are trained on, and of those held out, both rising."""

    trained: np.ndarray
    held_out: np.ndarray


def split_rows_by_prompt(rows: Rows, share: float, seed: int) -> Split:
    """Hold out about a share of shared rows, all of a prompt or none.

    Prompts are drawn at random, and taken while their rows fit the share; the prompt with the
    fewest rows where none fits.

    Raises
    ------
    InputError
        If all rows have the same prompt.

    Examples
    --------
    >>> from jaxpref.llm.rows import Tokens, pack_rows
    >>> records = [Tokens((1, prompt), ((2,), (3,))) for prompt in (5, 6, 5, 7)]
    >>> split = split_rows_by_prompt(pack_rows(records, max_length=8).rows, 0.5, seed=2)
    >>> split.trained.tolist(), split.held_out.tolist()
    ([0, 2], [1, 3])
    """
    prompts = np.where(np.asarray(rows.segments) == PROMPT, np.asarray(rows.tokens), -1)
    numbers: dict[bytes, int] = {}
    group = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in prompts])
    if len(numbers) < 2:
        raise InputError(
            "held_out: expected records of at least two prompts, to hold one of them out; got "
            f"{len(group)} of one"
        )
    sizes = np.bincount(group)
    room, apart = max(1, round(share * len(group))), []
    for number in np.random.default_rng(seed).permutation(len(sizes)):
        if sizes[number] <= room:
            apart.append(number)
            room -= sizes[number]
    held = np.isin(group, apart or [np.argmin(sizes)])
    return Split(np.flatnonzero(~held), np.flatnonzero(held))


@dataclass(frozen=True)
class HeldOutLogps:
    """The log-probabilities of rows as an evaluation: equal objects are one program.

    Called with a policy's parameters and rows of several widths; returns them row after row,
    shape (rows, completions).
    """

    graphdef: Any
    recipe: Recipe
    answers: tuple[int, ...]
    """Most completion tokens of a row, for each width."""

    def __call__(self, params: Any, parts: tuple[Rows, ...]) -> jax.Array:
        """Return the log-probabilities."""
        found = []
        for rows, answers in zip(parts, self.answers, strict=True):
            recipe = replace(self.recipe, logit_width=answers, widths=())

            def logps(piece: Rows, recipe: Recipe = recipe) -> jax.Array:
                return policy_logps(self.graphdef, params, piece, recipe)

            found.append(jax.lax.map(logps, rows).reshape(-1, recipe.completions))
        return jnp.concatenate(found)


def rows_in_parts(
    rows: Rows, held_out: np.ndarray, size: int, *, most: int = 4
) -> tuple[tuple[Rows, ...], tuple[int, ...], np.ndarray]:
    """Return held-out rows by width, for :class:`HeldOutLogps`, and where each stands.

    Parameters
    ----------
    rows : Rows
        The whole table.
    held_out : array of int
        Row numbers.
    size : int
        Rows at once.
    most : int
        Widths at most: each is compiled.

    Returns
    -------
    parts : tuple of Rows
        A table a width, leaves of shape (calls, size, width); filled up with its first row.
    answers : tuple of int
        Most completion tokens of a row in each.
    order : array of int
        Which held-out row stands where, in the order of the parts; -1 where one is filled up.
    """
    own = Rows(*(np.asarray(array)[held_out] for array in rows))
    lengths, parts, order, answers = row_lengths(own), [], [], []
    before = 0
    for width, longest in row_widths(own, most):
        index = np.flatnonzero((lengths > before) & (lengths <= width))
        before = width
        places = np.full(-(-len(index) // size) * size, -1)
        places[: len(index)] = index
        filled = np.where(places < 0, index[0], places).reshape(-1, size)
        cut = min(width, own.width)
        parts.append(Rows(*(jnp.asarray(array[filled, :cut]) for array in own)))
        order.append(places)
        answers.append(longest)
    return tuple(parts), tuple(answers), np.concatenate(order)


def held_out_metrics(
    loss: str,
    logps: np.ndarray,
    reference_logps: np.ndarray,
    lengths: np.ndarray,
    settings: LossSettings,
) -> dict[str, float]:
    """Return what a policy makes of held-out records.

    Parameters
    ----------
    loss : str
        A name in :data:`jaxpref.llm.losses.LOSSES`, of a policy.
    logps, reference_logps : float64 array, shape (records, completions)
        Log-probabilities (nats) under policy and reference, best first.
    lengths : array, shape (records, completions)
        Tokens of each completion.
    settings : LossSettings
        Scalars.

    Returns
    -------
    dict
        ``loss``, and ``loss_error``, its standard error over the records (NaN for one record);
        ``accuracy``, the share of records whose best completion has the highest reward;
        ``reward_margin`` (nats), the best's reward less the mean of the others'; ``chosen_change``
        and ``rejected_change`` (nats), the policy's log-probability less the reference's, of the
        best and in the mean of the others. Rewards are those that the loss compares. All are NaN
        where a log-probability is not finite.

    Examples
    --------
    >>> logps, before = np.array([[-3.0, -7.0]]), np.array([[-4.0, -4.0]])
    >>> found = held_out_metrics("dpo", logps, before, np.ones((1, 2)), LossSettings(beta=0.5))
    >>> found["accuracy"], found["reward_margin"], found["chosen_change"]
    (1.0, 2.0, 1.0)
    """
    each = np.asarray(preference_loss(loss, logps, reference_logps, lengths, settings))
    change = logps - reference_logps
    rewards = settings.beta * (logps / lengths if loss in NO_REFERENCE else change)
    best, rest = rewards[:, 0], rewards[:, 1:]
    right = np.where(np.isfinite(rewards).all(axis=1), np.all(best[:, None] > rest, axis=1), np.nan)
    error = np.std(each, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
    return {
        "loss": float(np.mean(each)),
        "loss_error": float(error),
        "accuracy": float(np.mean(right)),
        "reward_margin": float(np.mean(best - np.mean(rest, axis=1))),
        "chosen_change": float(np.mean(change[:, 0])),
        "rejected_change": float(np.mean(change[:, 1:])),
    }
