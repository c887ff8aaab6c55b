r"""Ways to hold a likelihood: by rankings, by choice sets, by pairs, and with ties.

Each is a record with `evaluate`, which returns gradient, diagonal and a cache, and `product`, which
multiplies minus the Hessian with a vector: all that Newton's method asks for.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float64

from ..links import Link
from .likelihood import PairTerms, pair_terms
from .rankings_likelihood import Block, Evaluation, evaluate, hessian_product, log_likelihood
from .rankings_strengths import StrengthProblem

_NEVER = -1e30
"""Log of a sum over no sets at all: finite, so that derivatives of its exponential are 0."""


class ListProblem(eqx.Module):
    """Rankings one by one; a product costs one pass over the entries."""

    blocks: tuple[Block, ...]

    def evaluate(self, parameters: Float64[Array, " parameters"]) -> Evaluation:
        """Return gradient, diagonal and the stages' probabilities."""
        return evaluate(self.blocks, parameters)

    def product(
        self, cache: Any, vector: Float64[Array, " parameters"]
    ) -> Float64[Array, " parameters"]:
        """Return minus the Hessian times a vector."""
        return hessian_product(self.blocks, cache, vector)

    def log_likelihood(self, parameters: Float64[Array, " parameters"]) -> Float64[Array, ""]:
        """Return the log-likelihood, in nats."""
        return log_likelihood(self.blocks, parameters)


class SetProblem(eqx.Module):
    """Distinct choice sets of few items, and how often each item was chosen from each.

    However many rankings there are, N items have at most 2^N sets.
    """

    member: Bool[Array, "sets items"]
    chosen: Float64[Array, "sets items"]

    def _shares(self, scores: Float64[Array, " items"]) -> tuple[Array, Array, Array]:
        """Return p, 1 - p and log p of every item in every set."""
        inside = jnp.where(self.member, scores, -jnp.inf)
        top = jnp.max(inside, axis=1, keepdims=True)
        gap = inside - jnp.where(jnp.isfinite(top), top, 0.0)
        strength = jnp.exp(gap)
        apart = 1.0 - jnp.eye(scores.shape[0], dtype=scores.dtype)
        rest = strength @ apart
        total = jnp.maximum(jnp.sum(strength, axis=1, keepdims=True), 1.0)
        log_share = jnp.where(self.member, gap, 0.0) - jnp.log(total)
        return strength / total, rest / total, log_share

    def evaluate(self, parameters: Float64[Array, " parameters"]) -> Evaluation:
        """Return gradient, diagonal, and the Laplacian's weights: sum of n p_i p_j over sets."""
        share, rest, _ = self._shares(parameters)
        number = jnp.sum(self.chosen, axis=1, keepdims=True)
        apart = 1.0 - jnp.eye(share.shape[1], dtype=share.dtype)
        gradient = jnp.sum(self.chosen * rest - (self.chosen @ apart) * share, axis=0)
        weights = (number * share).T @ share
        weights = weights - jnp.diag(jnp.diagonal(weights))
        return Evaluation(gradient, jnp.sum(weights, axis=1), weights)

    def product(
        self, cache: Any, vector: Float64[Array, " parameters"]
    ) -> Float64[Array, " parameters"]:
        """Return minus the Hessian times a vector."""
        return jnp.sum(cache * (vector[:, None] - vector[None, :]), axis=1)

    def log_likelihood(self, parameters: Float64[Array, " parameters"]) -> Float64[Array, ""]:
        """Return the log-likelihood, in nats."""
        return jnp.sum(self.chosen * self._shares(parameters)[2])


class PairProblem(eqx.Module):
    """Comparisons of few items, as a matrix of wins of the row over the column, of any link."""

    wins: Float64[Array, "items items"]
    link: Link

    def _terms(self, scores: Float64[Array, " items"]) -> PairTerms:
        margin = scores[:, None] - scores[None, :]
        return pair_terms(self.link, margin, self.wins, self.wins.T)

    def evaluate(self, parameters: Float64[Array, " parameters"]) -> Evaluation:
        """Return gradient, diagonal, and the Laplacian's weights."""
        _, pull, curvature = self._terms(parameters)
        weights = curvature - jnp.diag(jnp.diagonal(curvature))
        return Evaluation(jnp.sum(pull, axis=1), jnp.sum(weights, axis=1), weights)

    def product(
        self, cache: Any, vector: Float64[Array, " parameters"]
    ) -> Float64[Array, " parameters"]:
        """Return minus the Hessian times a vector."""
        return jnp.sum(cache * (vector[:, None] - vector[None, :]), axis=1)

    def log_likelihood(self, parameters: Float64[Array, " parameters"]) -> Float64[Array, ""]:
        """Return the log-likelihood, in nats: every pair stands in the matrix twice."""
        return jnp.sum(self._terms(parameters).log_likelihood) / 2


class TiedProblem(eqx.Module):
    r"""Rankings with ties, as in the Davidson-Luce model.

    The parameters are the scores followed by log delta_k for each order k of `orders`, the sizes of
    groups of ties that occur. A group C is chosen from a set A with probability proportional to
    delta_|C| (prod of exp(s_i), i in C)^(1/|C|), over all groups of those sizes, and delta_1 = 1.

    `opens` marks the places where a group starts that was ranked; `totals` are the sufficient
    statistics: per item the weight of the groups it was chosen in, divided by their sizes, and per
    order the weight of the groups of that size.
    """

    blocks: tuple[Block, ...]
    opens: tuple[Bool[Array, "chunks places rankings"], ...]
    totals: Float64[Array, " parameters"]
    orders: tuple[int, ...] = eqx.field(static=True)

    def log_likelihood(self, parameters: Float64[Array, " parameters"]) -> Float64[Array, ""]:
        """Return the log-likelihood, in nats."""
        cut = parameters.shape[0] - len(self.orders)
        scores, log_delta = parameters[:cut], parameters[cut:]
        value = jnp.sum(self.totals * parameters)
        for block, opens in zip(self.blocks, self.opens, strict=True):

            def add(total: Array, chunk: tuple[Block, Array]) -> tuple[Array, None]:
                own = scores[chunk[0].item]
                ties = jnp.broadcast_to(log_delta[:, None], (len(self.orders), own.shape[1]))
                return total - log_normalisers(*chunk, own, ties, self.orders), None

            value, _ = lax.scan(add, value, (block, opens))
        return value

    def evaluate(self, parameters: Float64[Array, " parameters"]) -> Evaluation:
        """Return gradient, a rough diagonal, and the parameters."""
        gradient = jax.grad(self.log_likelihood)(parameters)
        return Evaluation(gradient, self.totals, parameters)

    def product(
        self, cache: Any, vector: Float64[Array, " parameters"]
    ) -> Float64[Array, " parameters"]:
        """Return minus the Hessian times a vector."""
        return -jax.jvp(jax.grad(self.log_likelihood), (cache,), (vector,))[1]


def _log_add(one: Array, other: Array) -> Array:
    """Return log(exp(one) + exp(other)), right in its second derivatives too.

    Inside a scan, those of ``jnp.logaddexp`` are lost where the two are equal.
    """
    top = lax.stop_gradient(jnp.maximum(one, other))
    return top + jnp.log(jnp.exp(one - top) + jnp.exp(other - top))


def log_normalisers(
    chunk: Block,
    opens: Bool[Array, "places rankings"],
    scores: Float64[Array, "places rankings"],
    log_delta: Float64[Array, "orders rankings"],
    orders: tuple[int, ...],
) -> Float64[Array, ""]:
    """Return the weighted sum over stages of the log of all groups' strengths.

    Scores stand entry by entry and tie parameters ranking by ranking, so that derivatives by them
    are those of each ranking.

    For order k it needs the elementary symmetric polynomial of degree k of exp(s_i / k) over the
    items left: built up an item at a time from the last place, in logarithms.
    """
    degrees = (1, *orders)
    root = 1.0 / jnp.asarray(degrees, scores.dtype)[:, None, None]
    place = jnp.arange(chunk.item.shape[0], dtype=jnp.int32)[:, None]
    logs = [jnp.zeros((), scores.dtype), *log_delta]

    def add(sums: Array, entry: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        score, here, counted = entry
        longer = _log_add(sums[:, 1:], sums[:, :-1] + root * score)
        grown = jnp.concatenate([sums[:, :1], longer], axis=1)
        sums = jnp.where(here, grown, sums)
        groups = jnp.stack([sums[k, d] + logs[k] for k, d in enumerate(degrees)])
        return sums, jnp.where(counted, jax.nn.logsumexp(groups, axis=0), 0.0)

    width = chunk.weight.shape[0]
    start = jnp.full((len(degrees), max(degrees) + 1, width), _NEVER, scores.dtype)
    entries = scores, place < chunk.length, opens
    _, values = lax.scan(add, start.at[:, 0].set(0.0), entries, reverse=True)
    return jnp.sum(values * chunk.weight)


Problem = ListProblem | StrengthProblem | SetProblem | PairProblem | TiedProblem
