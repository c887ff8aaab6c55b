r"""Losses of preference optimisation: pure functions of log-probabilities.

Each takes the log-probabilities (nats, summed over a completion's tokens) of the completions of a
prompt, **best first along the last axis**: shape (..., 2) for pairs, (..., K) for rankings. Each
returns one loss per prompt, shape (...); the mean over a batch is the caller's. `beta` and the
other strengths may be arrays that broadcast against the batch, so that every member of a population
carries its own; they may be traced, so their domains are stated and not checked here (the options
of training check them). Nothing is clipped, and no logarithm is taken of a probability: these are
log-sigmoids and log-sum-exps, so that values and gradients, in reverse and forward mode, are finite
wherever the margin is. IPO's square overflows in float32 beyond a difference of 1e19.

The reward margin m below is r(best) - r(worst) for the implicit reward
r = beta log(policy/reference), in nats.
Training lowers the log-probability of chosen and rejected alike more often than not (likelihood
displacement): a falling `chosen_logp` is no sign of a fault, a falling reward margin is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxpref import _numerics as nx
from jaxpref._checks import ArrayLike, InputError, check_option
from jaxpref.models import stage_log_probabilities

from .reward_losses import bradley_terry_loss, plackett_luce_loss


def implicit_rewards(
    policy_logps: ArrayLike, reference_logps: ArrayLike, *, beta: ArrayLike = 0.1
) -> Float[Array, "... K"]:
    """Return r = beta (log policy - log reference), up to a term of the prompt alone.

    Parameters
    ----------
    policy_logps, reference_logps : array_like, shape (..., K)
        Log-probabilities of the completions (nats), best first.
    beta : array_like, broadcasting against shape (...)
        Strength of the pull towards the reference, above 0.

    Returns
    -------
    array, shape (..., K)
        Rewards in nats: 0 where the policy is the reference.

    Raises
    ------
    InputError
        Unless both have one shape (..., K).

    References
    ----------
    Rafailov et al., "Direct Preference Optimization" (2023), Eq. 5, without its beta log Z(prompt).

    Examples
    --------
    >>> print(implicit_rewards([-3.0, -7.0], [-4.0, -4.0], beta=0.5))
    [ 0.5 -1.5]
    """
    policy, reference = _same_shape(policy_logps, reference_logps)
    return _strength(beta, policy)[..., None] * (policy - reference)


def dpo_loss(
    policy_logps: ArrayLike,
    reference_logps: ArrayLike,
    *,
    beta: ArrayLike = 0.1,
    label_smoothing: ArrayLike = 0.0,
) -> Float[Array, "..."]:
    r"""Return the DPO loss, plain or conservative.

    ``-(1 - eps) log sigma(m) - eps log sigma(-m)`` with m the reward margin; eps = 0 is DPO.

    Parameters
    ----------
    policy_logps, reference_logps : array_like, shape (..., 2)
        Log-probabilities (nats) of chosen and rejected.
    beta : array_like
        Strength of the pull towards the reference, above 0.
    label_smoothing : array_like, in [0, 0.5)
        eps, the share of labels taken to be flipped ("conservative" DPO).

    Returns
    -------
    array, shape (...)
        Loss in nats, > 0: log 2 at m = 0. With eps = 0 it falls to 0 as m grows, and is about -m
        where m is far below 0; with eps above 0 it is least at m = log((1 - eps) / eps).

    Raises
    ------
    InputError
        Unless both have one shape (..., 2).

    References
    ----------
    Rafailov et al., "Direct Preference Optimization" (2023), Eq. 7; Mitchell, "A note on DPO with
    noisy preferences & relationship to IPO" (2023), for the smoothed form.

    Examples
    --------
    >>> print(f"{dpo_loss([-3.0, -7.0], [-3.0, -7.0]):.6f}")  # policy = reference: log 2
    0.693147
    """
    margin = _reward_margin(policy_logps, reference_logps, beta)
    eps = _strength(label_smoothing, margin)
    right, wrong = jax.nn.log_sigmoid(margin), jax.nn.log_sigmoid(-margin)
    return -(1 - eps) * right - eps * wrong  # DPO Eq. 7 at eps = 0; Mitchell (2023) else


def robust_dpo_loss(
    policy_logps: ArrayLike,
    reference_logps: ArrayLike,
    *,
    beta: ArrayLike = 0.1,
    flip_rate: ArrayLike = 0.1,
) -> Float[Array, "..."]:
    r"""Return the robust DPO loss, unbiased for DPO's under labels flipped at a known rate.

    ``(-(1 - eps) log sigma(m) + eps log sigma(-m)) / (1 - 2 eps)``

    Parameters
    ----------
    policy_logps, reference_logps : array_like, shape (..., 2)
        Log-probabilities (nats) of chosen and rejected.
    beta : array_like
        Strength of the pull towards the reference, above 0.
    flip_rate : array_like, in [0, 0.5)
        eps, the rate at which labels are flipped; 0 gives DPO.

    Returns
    -------
    array, shape (...)
        Loss in nats, log 2 at m = 0. Not bounded below for a single pair: its mean over the
        flips, which is DPO's loss of the true label, is.

    Raises
    ------
    InputError
        Unless both have one shape (..., 2).

    References
    ----------
    Ray Chowdhury, Kini and Natarajan, "Provably Robust DPO: Aligning Language Models with Noisy
    Feedback" (ICML 2024): the unbiased loss.

    Examples
    --------
    >>> print(f"{robust_dpo_loss([-3.0, -7.0], [-3.0, -7.0]):.6f}")
    0.693147
    """
    margin = _reward_margin(policy_logps, reference_logps, beta)
    eps = _strength(flip_rate, margin)
    right, wrong = jax.nn.log_sigmoid(margin), jax.nn.log_sigmoid(-margin)
    return (-(1 - eps) * right + eps * wrong) / (1 - 2 * eps)  # Ray Chowdhury et al. (2024)


def ipo_loss(
    policy_logps: ArrayLike,
    reference_logps: ArrayLike,
    *,
    beta: ArrayLike = 0.1,
    lengths: ArrayLike | None = None,
) -> Float[Array, "..."]:
    r"""Return the IPO loss, ``(h - 1 / (2 beta))^2``, h the log-ratio of chosen less rejected.

    Parameters
    ----------
    policy_logps, reference_logps : array_like, shape (..., 2)
        Log-probabilities (nats) of chosen and rejected.
    beta : array_like
        The paper's tau, above 0: the difference h aimed at is 1 / (2 beta).
    lengths : array_like, shape (..., 2), optional
        Tokens of each completion: when given, log-ratios are divided by them, as later practice
        (TRL) does; the paper's sums when left out.

    Returns
    -------
    array, shape (...)
        Loss >= 0 in nats^2 (of nats per token with `lengths`); 1 / (4 beta^2) where the policy is
        the reference.

    Raises
    ------
    InputError
        Unless all that are given have one shape (..., 2).

    References
    ----------
    Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences"
    (AISTATS 2024), Eq. 17.

    Examples
    --------
    >>> print(f"{ipo_loss([-3.0, -7.0], [-3.0, -7.0], beta=0.5):.3f}")
    1.000
    """
    policy, reference = _same_shape(policy_logps, reference_logps)
    ratios = _pairs(policy) - reference
    if lengths is not None:
        ratios = ratios / _lengths(lengths, ratios)
    gap = ratios[..., 0] - ratios[..., 1]
    return jnp.square(gap - 1 / (2 * _strength(beta, gap)))  # IPO Eq. 17


def simpo_loss(
    policy_logps: ArrayLike,
    lengths: ArrayLike,
    *,
    beta: ArrayLike = 2.0,
    target_margin: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Return the SimPO loss, which needs no reference.

    ``-log sigma(beta (logp_chosen / |chosen| - logp_rejected / |rejected|) - target_margin)``

    Parameters
    ----------
    policy_logps : array_like, shape (..., 2)
        Log-probabilities (nats) of chosen and rejected.
    lengths : array_like, shape (..., 2)
        Tokens of each completion, at least 1.
    beta : array_like
        Scale of the reward, above 0.
    target_margin : array_like
        gamma (nats), the margin aimed at; at least 0.

    Returns
    -------
    array, shape (...)
        Loss in nats, > 0.

    Raises
    ------
    InputError
        Unless all have one shape (..., 2).

    References
    ----------
    Meng, Xia and Chen, "SimPO: Simple Preference Optimization with a Reference-Free Reward"
    (NeurIPS 2024), Eq. 6.

    Examples
    --------
    >>> print(f"{simpo_loss([-3.0, -7.0], [3, 7], target_margin=0.0):.6f}")  # equal per token
    0.693147
    """
    policy = _pairs(nx.as_float(policy_logps))
    rates = policy / _lengths(lengths, policy)
    gap = rates[..., 0] - rates[..., 1]
    margin = _strength(beta, gap) * gap - _strength(target_margin, gap)
    return -jax.nn.log_sigmoid(margin)  # SimPO Eq. 6


def sft_loss(policy_logps: ArrayLike, lengths: ArrayLike) -> Float[Array, "..."]:
    """Return the mean negative log-probability per token of each completion.

    Parameters
    ----------
    policy_logps : array_like, shape (...)
        Log-probabilities (nats) of completions.
    lengths : array_like, shape (...)
        Tokens of each completion, at least 1.

    Returns
    -------
    array, shape (...)
        Nats per token, >= 0. Its mean weighs completions equally; a mean over tokens is
        ``-sum(policy_logps) / sum(lengths)``.

    Raises
    ------
    InputError
        Unless both have one shape.

    Examples
    --------
    >>> print(sft_loss([-3.0, -8.0], [3, 4]))
    [1. 2.]
    """
    policy = nx.as_float(policy_logps)
    return -policy / _lengths(lengths, policy)


def rpo_loss(
    policy_logps: ArrayLike,
    reference_logps: ArrayLike,
    lengths: ArrayLike,
    *,
    beta: ArrayLike = 0.1,
    sft_weight: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""Return DPO plus the negative log-likelihood of the chosen completion, per token.

    ``-log sigma(m) - sft_weight logp_chosen / |chosen|``

    Parameters
    ----------
    policy_logps, reference_logps : array_like, shape (..., 2)
        Log-probabilities (nats) of chosen and rejected.
    lengths : array_like, shape (..., 2)
        Tokens of each completion, at least 1.
    beta : array_like
        Strength of the pull towards the reference, above 0.
    sft_weight : array_like
        alpha, weight of the likelihood, at least 0; 0 gives DPO.

    Returns
    -------
    array, shape (...)
        Loss in nats, > 0: a sum of nats and `sft_weight` times nats per token.

    Raises
    ------
    InputError
        Unless all have one shape (..., 2).

    Notes
    -----
    As in the paper's third version, the likelihood is per token of the completion, and alpha weighs
    it. (In the first, alpha weighs the DPO loss, and the prompt's tokens count too.) TRL
    (``loss_type=["sigmoid", "sft"]``) divides by the chosen tokens of the whole batch.

    References
    ----------
    Pang et al., "Iterative Reasoning Preference Optimization" (NeurIPS 2024; arXiv:2404.19733v3),
    Eq. 1.

    Examples
    --------
    >>> print(f"{rpo_loss([-3.0, -7.0], [-3.0, -7.0], [3, 7]):.6f}")
    1.693147
    """
    policy = _pairs(nx.as_float(policy_logps))
    preference = dpo_loss(policy, reference_logps, beta=beta)
    likelihood = sft_loss(policy, lengths)[..., 0]
    return preference + _strength(sft_weight, preference) * likelihood  # RPO Eq. 1


def kto_pair_loss(
    policy_logps: ArrayLike,
    reference_logps: ArrayLike,
    *,
    beta: ArrayLike = 0.1,
    weights: ArrayLike | None = None,
) -> Float[Array, " N"]:
    r"""Return the KTO loss of pairs, each half judged against the batch's other half.

    ``(1 - sigma(beta (h_c - z_r)) + 1 - sigma(beta (z_c - h_r))) / 2`` with h the log-ratios and
    ``z = max(0, mean h)`` over the batch, held fixed under differentiation.

    Parameters
    ----------
    policy_logps, reference_logps : array_like, shape (N, 2)
        Log-probabilities (nats) of chosen and rejected, one batch.
    beta : array_like, shape () or (N,)
        Strength of the pull towards the reference, above 0.
    weights : array_like, shape (N,), optional
        Weights of the pairs in the mean, at least 0 and not all 0: what only fills a batch has 0.

    Returns
    -------
    array, shape (N,)
        Loss in (0, 1): 1/2 where the policy is the reference.

    Notes
    -----
    The losses of a batch depend on each other through z, so a batch cut into micro-batches gives
    another value. KTO itself draws z from unrelated prompts; with pairs, the other halves of the
    batch stand in for them.

    References
    ----------
    Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization" (2024): the
    loss with both weights 1.

    Examples
    --------
    >>> print(kto_pair_loss([[-3.0, -7.0]], [[-3.0, -7.0]]))
    [0.5]
    """
    policy, reference = _same_shape(policy_logps, reference_logps)
    if policy.ndim != 2:
        raise InputError(f"policy_logps: expected shape (N, 2), a batch; got {policy.shape}")
    ratios = _pairs(policy) - reference
    shares = jnp.ones_like(ratios[:, 0]) if weights is None else jnp.asarray(weights, ratios.dtype)
    mean = jnp.sum(shares[:, None] * ratios, axis=0) / jnp.sum(shares)
    level = lax.stop_gradient(jnp.maximum(mean, 0.0))
    scale = _strength(beta, ratios[:, 0])
    chosen = jax.nn.sigmoid(-scale * (ratios[:, 0] - level[1]))  # 1 - sigma(x) = sigma(-x)
    rejected = jax.nn.sigmoid(-scale * (level[0] - ratios[:, 1]))
    return (chosen + rejected) / 2  # KTO, lambda = 1


def plackett_luce_dpo_loss(
    policy_logps: ArrayLike, reference_logps: ArrayLike, *, beta: ArrayLike = 0.1
) -> Float[Array, "..."]:
    r"""Return the DPO loss of a ranking under Plackett-Luce: DPO itself at K = 2.

    ``-sum_k log(exp r_k / sum_{j >= k} exp r_j)``, r the implicit rewards, best first.

    Parameters
    ----------
    policy_logps, reference_logps : array_like, shape (..., K)
        Log-probabilities (nats) of K >= 2 completions, best first.
    beta : array_like
        Strength of the pull towards the reference, above 0.

    Returns
    -------
    array, shape (...)
        Loss in nats, > 0: log K! where the policy is the reference.

    Raises
    ------
    InputError
        Unless both have one shape (..., K) with K >= 2.

    References
    ----------
    Rafailov et al. (2023), Eq. 20 (appendix A.3).

    Examples
    --------
    >>> print(f"{plackett_luce_dpo_loss([-3.0, -7.0, -5.0], [-3.0, -7.0, -5.0]):.6f}")  # log 6
    1.791759
    """
    rewards = implicit_rewards(policy_logps, reference_logps, beta=beta)
    if rewards.shape[-1] < 2:
        raise InputError(f"policy_logps: expected K >= 2 completions; got shape {rewards.shape}")
    return -jnp.sum(stage_log_probabilities(rewards), axis=-1)  # DPO Eq. 20


class LossSettings(NamedTuple):
    """The strengths of all losses, as one tree of scalars (or of one array per population member).

    Parameters
    ----------
    beta : array_like
        Pull towards the reference (IPO: tau; SimPO: scale of the reward; reward models: 1 over the
        temperature); above 0.
    label_smoothing : array_like
        Share of flipped labels, in [0, 0.5), for "dpo", "robust_dpo" and "bradley_terry".
    target_margin : array_like
        At least 0, in nats: the margin "simpo" aims at; the one beyond which "bradley_terry" gains
        nothing.
    sft_weight : array_like
        Weight of the likelihood in "rpo", at least 0.
    """

    beta: Any = 0.1
    label_smoothing: Any = 0.0
    target_margin: Any = 1.0
    sft_weight: Any = 1.0


_Loss = Callable[[Array, Array, Array, LossSettings], Array]

LOSSES: dict[str, _Loss] = {
    "bradley_terry": lambda scores, reference, lengths, s: bradley_terry_loss(
        scores,
        temperature=1 / s.beta,
        label_smoothing=s.label_smoothing,
        margin_cap=s.target_margin,
    ),
    "plackett_luce": lambda scores, reference, lengths, s: plackett_luce_loss(
        scores, temperature=1 / s.beta
    ),
    "dpo": lambda policy, reference, lengths, s: dpo_loss(
        policy, reference, beta=s.beta, label_smoothing=s.label_smoothing
    ),
    "robust_dpo": lambda policy, reference, lengths, s: robust_dpo_loss(
        policy, reference, beta=s.beta, flip_rate=s.label_smoothing
    ),
    "ipo": lambda policy, reference, lengths, s: ipo_loss(policy, reference, beta=s.beta),
    "ipo_per_token": lambda policy, reference, lengths, s: ipo_loss(
        policy, reference, beta=s.beta, lengths=lengths
    ),
    "simpo": lambda policy, reference, lengths, s: simpo_loss(
        policy, lengths, beta=s.beta, target_margin=s.target_margin
    ),
    "rpo": lambda policy, reference, lengths, s: rpo_loss(
        policy, reference, lengths, beta=s.beta, sft_weight=s.sft_weight
    ),
    "kto_pair": lambda policy, reference, lengths, s: kto_pair_loss(policy, reference, beta=s.beta),
    "plackett_luce_dpo": lambda policy, reference, lengths, s: plackett_luce_dpo_loss(
        policy, reference, beta=s.beta
    ),
    "sft": lambda policy, reference, lengths, s: sft_loss(policy[..., 0], lengths[..., 0]),
}
"""The losses by name. "sft" is that of the best completion; "dpo" with label smoothing is
conservative DPO; "kto_pair" alone couples the rows of a batch. "bradley_terry" and "plackett_luce"
take the scores of a reward model in place of log-probabilities."""


WHOLE_BATCH = ("kto_pair",)
"""Losses whose rows lose together, not one by one."""


def preference_loss(
    name: str,
    policy_logps: ArrayLike,
    reference_logps: ArrayLike,
    lengths: ArrayLike,
    settings: LossSettings,
    weights: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """Return the loss called `name` of each row: one signature for all of them.

    Parameters
    ----------
    name : str
        One of :data:`LOSSES`.
    policy_logps, reference_logps : array_like, shape (..., K)
        Log-probabilities (nats) of the completions, best first.
    lengths : array_like, shape (..., K)
        Tokens of each completion, at least 1.
    settings : LossSettings
        The strengths; each loss reads its own.
    weights : array_like, shape (N,), optional
        Of the rows of a batch, for the losses of :data:`WHOLE_BATCH`; the others take none.

    Returns
    -------
    array, shape (...)
        One loss per row.

    Raises
    ------
    InputError
        For an unknown name, or shapes that do not fit: two completions for every loss but
        "plackett_luce_dpo", "plackett_luce" and "sft", and a batch (N, 2) for "kto_pair".

    Examples
    --------
    >>> args = [-3.0, -7.0], [-3.0, -7.0], [3, 7], LossSettings(beta=0.5)
    >>> print(f"{preference_loss('dpo', *args):.6f} {preference_loss('ipo', *args):.6f}")
    0.693147 1.000000
    """
    check_option("name", name, LOSSES)
    policy, reference = _same_shape(policy_logps, reference_logps)
    if name in WHOLE_BATCH:
        return kto_pair_loss(policy, reference, beta=settings.beta, weights=weights)
    return LOSSES[name](policy, reference, jnp.asarray(lengths), settings)


def _reward_margin(
    policy_logps: ArrayLike, reference_logps: ArrayLike, beta: ArrayLike
) -> Float[Array, "..."]:
    """Return beta ((log-ratio of chosen) - (log-ratio of rejected))."""
    policy, reference = _same_shape(policy_logps, reference_logps)
    ratios = _pairs(policy) - reference
    gap = ratios[..., 0] - ratios[..., 1]
    return _strength(beta, gap) * gap


def _same_shape(policy: ArrayLike, reference: ArrayLike) -> tuple[Array, Array]:
    left, right = nx.as_floats(policy, reference)
    if left.ndim < 1 or left.shape != right.shape:
        raise InputError(
            f"reference_logps: expected the shape (..., K) of policy_logps, {left.shape}; "
            f"got {right.shape}"
        )
    return left, right


def _pairs(logps: Float[Array, "... K"]) -> Float[Array, "... K"]:
    if logps.ndim < 1 or logps.shape[-1] != 2:
        raise InputError(
            f"policy_logps: expected shape (..., 2), chosen and rejected; got {logps.shape}"
        )
    return logps


def _lengths(lengths: ArrayLike, like: Float[Array, "..."]) -> Float[Array, "..."]:
    array = jnp.asarray(lengths)
    if array.shape != like.shape:
        raise InputError(f"lengths: expected shape {like.shape}; got {array.shape}")
    return array.astype(like.dtype)


def _strength(value: ArrayLike, like: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return a strength in the dtype of the log-probabilities."""
    return jnp.asarray(value, like.dtype)
