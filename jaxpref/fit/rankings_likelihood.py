r"""The Plackett-Luce log-likelihood of rankings and its derivatives, ranking by ranking.

A ranking is a sequence of choices: its first item out of all, its second out of the rest, and so
on. With p_t the probability of the choice made at stage t, out of the items from place t on,

.. math:: \ell(s) = \sum_r w_r \sum_t \log p_{rt} ,
          \qquad p_t = \frac{e^{s_t}}{\sum_{i \ge t} e^{s_i}}

(Eq. 6 written with strengths). The probability that stage t would have chosen place i > t instead
is p_i (1-p_{i-1}) ... (1-p_t), so all derivatives come out of two running sums along the ranking
whose terms are probabilities: nothing overflows, and 1 - p is never formed by subtraction, at any
gap between the scores.

Rankings lie in chunks of shape (places, rankings) that fit a processor's cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float64, Int32

CHUNK = 2048


class Block(NamedTuple):
    """Rankings of about the same length, padded, in chunks: item (C, K, B), the rest (C, B).

    `length` counts the entries of a ranking, `stages` the choices that were made: fewer than the
    entries where the last ones are unlisted. Absent rankings have length and weight 0.
    """

    item: Int32[Array, "chunks places rankings"]
    length: Int32[Array, "chunks rankings"]
    stages: Int32[Array, "chunks rankings"]
    weight: Float64[Array, "chunks rankings"]


class Stages(NamedTuple):
    """What a chunk's scores imply, stage by stage, shape (K, B).

    `chosen` is p and `others` 1 - p. `curvature` is c_t in the sum of squares that minus the
    Hessian is: sum over stages of c_t (v_t - the mean of v over the later items)^2, where the mean
    is by the probabilities of choosing among those.
    """

    chosen: Float64[Array, "... places rankings"]
    others: Float64[Array, "... places rankings"]
    curvature: Float64[Array, "... places rankings"]


class Evaluation(NamedTuple):
    """Gradient of the log-likelihood, the diagonal of minus its Hessian, and what products need."""

    gradient: Float64[Array, " parameters"]
    diagonal: Float64[Array, " parameters"]
    cache: Any


def stage_weights(chunk: Block) -> Float64[Array, "places rankings"]:
    """Return the weight of each stage: the ranking's where a choice was made, 0 elsewhere."""
    place = jnp.arange(chunk.item.shape[0], dtype=jnp.int32)[:, None]
    return jnp.where(place < chunk.stages, chunk.weight, 0.0)


def present(chunk: Block) -> Array:
    """Return which places hold an item, shape (K, B)."""
    place = jnp.arange(chunk.item.shape[0], dtype=jnp.int32)[:, None]
    return place < chunk.length


def choices(
    chunk: Block, scores: Float64[Array, " items"]
) -> tuple[Float64[Array, "places rankings"], Float64[Array, "places rankings"]]:
    """Return p and 1 - p of each stage, by sums scaled by the largest score so far.

    From the last place to the first, with one exponential of minus an absolute gap each.
    """

    def add(carry, entry):
        carry, own, rest = _join(carry, *entry)
        scale = 1.0 / carry[1]
        return carry, (own * scale, rest * scale)

    return lax.scan(add, _nobody(chunk), (scores[chunk.item], present(chunk)), reverse=True)[1]


def log_choices(
    chunk: Block, scores: Float64[Array, " items"]
) -> Float64[Array, "places rankings"]:
    """Return log p of each stage."""

    def add(carry, entry):
        score, here = entry
        later, _, _ = _join(carry, score, here)
        gap = jnp.where(here, score - carry[0], 0.0)
        return later, jnp.where(here, jnp.minimum(gap, 0.0) - jnp.log(later[1]), 0.0)

    return lax.scan(add, _nobody(chunk), (scores[chunk.item], present(chunk)), reverse=True)[1]


def _nobody(chunk: Block) -> tuple[Array, Array]:
    """Return the sum over no items: the largest score, and the sum of strengths relative to it.

    The sum is so small rather than 0 that places without an item come out as p = 0, 1 - p = 1.
    """
    size = chunk.weight.shape
    return jnp.full(size, -jnp.inf, jnp.float64), jnp.full(size, 1e-300, jnp.float64)


def _join(carry, score, here):
    """Add an item to those after it: the new sum, and what it and the others are of it."""
    top, mass = carry
    gap = jnp.where(here, score - top, -jnp.inf)
    small = jnp.exp(-jnp.abs(gap))
    ahead = gap > 0
    own, rest = jnp.where(ahead, 1.0, small), jnp.where(ahead, mass * small, mass)
    return (jnp.where(ahead, score, top), own + rest), own, rest


def evaluate(blocks: tuple[Block, ...], scores: Float64[Array, " items"]) -> Evaluation:
    """Return the gradient with what products with the Hessian need."""
    gradient, diagonal = jnp.zeros_like(scores), jnp.zeros_like(scores)
    stages = []
    for block in blocks:
        (gradient, diagonal), found = lax.scan(
            lambda sums, chunk: _evaluate_chunk(chunk, scores, sums), (gradient, diagonal), block
        )
        stages.append(found)
    return Evaluation(gradient, diagonal, tuple(stages))


def _evaluate_chunk(
    chunk: Block, scores: Float64[Array, " items"], sums: tuple[Array, Array]
) -> tuple[tuple[Array, Array], Stages]:
    chosen, others = choices(chunk, scores)

    def along(carry, entry):
        flow, square = carry
        p, q, weight = entry
        reach = weight + flow
        curvature = p * q * reach
        carry = q * reach, q * q * square + curvature
        return carry, (weight * q - p * flow, curvature + p * p * square, curvature)

    none = jnp.zeros(chunk.weight.shape, scores.dtype)
    entries = chosen, others, stage_weights(chunk)
    _, (*terms, curvature) = lax.scan(along, (none, none), entries)
    gradient, diagonal = (
        _onto_items(chunk.item, values, total) for values, total in zip(terms, sums, strict=True)
    )
    return (gradient, diagonal), Stages(chosen, others, curvature)


def _onto_items(
    item: Int32[Array, "places rankings"],
    values: Float64[Array, "places rankings"],
    total: Float64[Array, " items"],
) -> Float64[Array, " items"]:
    """Add values to the totals of their items, a place at a time."""
    return lax.scan(lambda sums, one: (sums.at[one[0]].add(one[1]), None), total, (item, values))[0]


def hessian_product(
    blocks: tuple[Block, ...], stages: tuple[Stages, ...], vector: Float64[Array, " items"]
) -> Float64[Array, " items"]:
    r"""Return minus the Hessian times a vector: sum over stages of (diag(p) - p p^T) v."""
    product = jnp.zeros_like(vector)
    for block, found in zip(blocks, stages, strict=True):
        product, _ = lax.scan(
            lambda total, both: (_product_chunk(both[0], both[1], vector, total), None),
            product,
            (block, found),
        )
    return product


def _product_chunk(
    chunk: Block, stages: Stages, vector: Float64[Array, " items"], total: Float64[Array, " items"]
) -> Float64[Array, " items"]:
    def differ(mean, entry):
        p, item = entry
        difference = vector[item] - mean
        return mean + p * difference, difference

    def along(carry, entry):
        flow, total = carry
        p, q, pull, item = entry
        total = total.at[item].add(pull - p * flow)
        return (q * flow + pull, total), None

    none = jnp.zeros(chunk.weight.shape, vector.dtype)
    front = stages.chosen, chunk.item
    _, difference = lax.scan(differ, none, front, reverse=True)
    entries = stages.chosen, stages.others, stages.curvature * difference, chunk.item
    (_, total), _ = lax.scan(along, (none, total), entries)
    return total


def log_likelihood(
    blocks: tuple[Block, ...], scores: Float64[Array, " items"]
) -> Float64[Array, ""]:
    """Return the log-likelihood, in nats."""

    def add(total, chunk):
        terms = stage_weights(chunk) * log_choices(chunk, scores)
        return total + jnp.sum(terms), None

    total = jnp.zeros((), scores.dtype)
    for block in blocks:
        total, _ = lax.scan(add, total, block)
    return total


def gradient_per_ranking(
    block: Block, scores: Float64[Array, " items"]
) -> Float64[Array, "chunks places rankings"]:
    """Return what each entry of each ranking adds to the gradient of its item."""

    def one(chunk: Block) -> Float64[Array, "places rankings"]:
        chosen, others = choices(chunk, scores)

        def along(flow, entry):
            p, q, weight = entry
            return q * (weight + flow), weight * q - p * flow

        none = jnp.zeros(chunk.weight.shape, scores.dtype)
        return lax.scan(along, none, (chosen, others, stage_weights(chunk)))[1]

    return lax.map(one, block)
