"""Losses of reward modelling: Bradley-Terry on pairs, Plackett-Luce on rankings.

Each takes the scores of a row's completions, best first. What keeps margins from growing without
end, and with them the sensitivity of unseen preferences, is an option: smoothed labels, a margin
beyond which nothing is gained, a temperature.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _numerics as nx
from .._checks import ArrayLike, InputError
from ..models import stage_log_probabilities

REWARD_LOSSES = ("bradley_terry", "plackett_luce")


def bradley_terry_loss(
    scores: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    label_smoothing: ArrayLike = 0.0,
    margin_cap: ArrayLike = jnp.inf,
) -> Float[Array, "..."]:
    r"""Return the negative log-likelihood of each pair under Bradley-Terry.

    ``-(1 - eps) log sigma(m) - eps log sigma(-m)``, m = min((s_chosen - s_rejected) / T, cap)

    Parameters
    ----------
    scores : array_like, shape (..., 2)
        Scores (nats) of chosen and rejected.
    temperature : array_like
        T, above 0: scores are worth 1/T of their size while training.
    label_smoothing : array_like
        eps in [0, 1/2): the share of labels taken to be the other way round.
    margin_cap : array_like
        Above 0: a pair whose margin exceeds it is no longer pulled apart.

    Returns
    -------
    array, shape (...)
        At least 0; log 2 where the scores are equal.

    Raises
    ------
    InputError
        For scores that are not of pairs.

    Notes
    -----
    The gradient is finite at any margin; beyond the cap it is 0.

    Examples
    --------
    >>> print(bradley_terry_loss([[1.0, 1.0], [3.0, 0.0]]).round(4))
    [0.6931 0.0486]
    >>> print(bradley_terry_loss([[9.0, 0.0]], margin_cap=1.0).round(4))
    [0.3133]
    """
    (values,) = nx.as_floats(scores)
    if values.ndim < 1 or values.shape[-1] != 2:
        raise InputError(
            f"scores: expected shape (..., 2), chosen and rejected; got {values.shape}"
        )
    margin = _over(values[..., 0] - values[..., 1], temperature)
    margin = jnp.minimum(margin, jnp.asarray(margin_cap, margin.dtype))
    share = jnp.asarray(label_smoothing, margin.dtype)
    return -(1 - share) * jax.nn.log_sigmoid(margin) - share * jax.nn.log_sigmoid(-margin)


def plackett_luce_loss(scores: ArrayLike, *, temperature: ArrayLike = 1.0) -> Float[Array, "..."]:
    r"""Return the negative log-likelihood of each ranking under Plackett-Luce.

    ``-sum_k log(exp s_k / sum_{j >= k} exp s_j)``, scores over T, best first (the paper's Eq. 6).

    Parameters
    ----------
    scores : array_like, shape (..., K)
        Scores (nats) of K >= 2 completions, best first.
    temperature : array_like
        T, above 0.

    Returns
    -------
    array, shape (...)
        :func:`bradley_terry_loss` at K = 2; log K! where the scores are equal.

    Raises
    ------
    InputError
        For fewer than two completions.

    Examples
    --------
    >>> print(plackett_luce_loss([[0.0, 0.0, 0.0], [4.0, 2.0, 0.0]]).round(4))
    [1.7918 0.2699]
    """
    (values,) = nx.as_floats(scores)
    if values.ndim < 1 or values.shape[-1] < 2:
        raise InputError(f"scores: expected K >= 2 completions; got shape {values.shape}")
    return -jnp.sum(stage_log_probabilities(_over(values, temperature)), axis=-1)


def _over(values: Float[Array, "..."], temperature: ArrayLike) -> Float[Array, "..."]:
    return values / jnp.asarray(temperature, values.dtype)
