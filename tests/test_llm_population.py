"""Populations: each member is its solo run, whatever its company, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

from tolerances import F32

from jaxpref._checks import InputError
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import initial_model
from jaxpref.llm.losses import LossSettings
from jaxpref.llm.population import (
    MODES,
    Members,
    Trained,
    default_mode,
    measure_modes,
    train_member,
    train_population,
)
from jaxpref.llm.reference import reference_logps
from jaxpref.llm.rows import Tokens, completion_width, pack_rows, row_widths
from jaxpref.llm.training import Batches, Recipe, dpo_gradient

MODEL = initial_model(
    decoder_config(
        {
            "model_type": "llama",
            "vocab_size": 24,
            "hidden_size": 8,
            "intermediate_size": 12,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "tie_word_embeddings": True,
            "initializer_range": 0.3,
        }
    ),
    jax.random.key(0),
)
COUNT, STEPS, BATCH = 5, 3, 4


def random_rows():
    random = np.random.default_rng(0)

    def text(low, high):
        return tuple(random.integers(3, 24, random.integers(low, high)).tolist())

    records = [Tokens((1, *text(2, 5)), ((*text(1, 4), 2), (*text(1, 4), 2))) for _ in range(8)]
    return pack_rows(records, max_length=32, width=16).rows


ROWS = random_rows()
RECIPE = Recipe(micro_batch=2, clip_norm=1.0, logit_width=completion_width(ROWS))


def random_members(count=COUNT):
    """Members that differ in rows, labels, rates and beta."""
    random = np.random.default_rng(1)
    shape = (count, STEPS, BATCH)
    arrays = (
        random.integers(0, 8, shape).astype(np.int32),
        np.ones(shape, np.float32),
        random.integers(0, 2, shape).astype(np.float32),
        random.uniform(1e-3, 1e-2, shape[:2]).astype(np.float32),
    )
    batches = Batches(*map(jnp.asarray, arrays))
    ones = np.ones(count, np.float32)
    betas = np.linspace(0.1, 1, count, dtype=np.float32)
    return Members(batches, LossSettings(betas, 0 * ones, ones, ones))


MEMBERS = random_members()


def keep(params, data):
    """Keep the trained parameters themselves, and what was handed through."""
    return {"params": params, "data": data}


@pytest.fixture(scope="module")
def start():
    """What all members share, by the names of the arguments."""
    logps = reference_logps(MODEL.graphdef, MODEL.params, ROWS, recipe=RECIPE, batch_size=BATCH)
    shared = {"graphdef": MODEL.graphdef, "params": MODEL.params}
    return {**shared, "rows": ROWS, "reference_logps": logps}


@pytest.fixture(scope="module")
def alone(start):
    """Every member, trained by itself."""
    run = jax.jit(partial(train_member, MODEL.graphdef, recipe=RECIPE, evaluation=keep))
    table, logps = jax.tree.map(jnp.asarray, ROWS), jnp.asarray(start["reference_logps"])
    found = [
        run(MODEL.params, table, logps, member(number), jnp.float32(7)) for number in range(COUNT)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


def member(number):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[number]), MEMBERS)


def train(start, mode, members=MEMBERS, **options):
    given = {"recipe": RECIPE, "evaluation": keep, "data": jnp.float32(7), "mode": mode}
    blocks = list(train_population(**start, members=members, **given, **options))
    order = [number for which, _ in blocks for number in which]
    parts = [trained for _, trained in blocks]
    return order, jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def test_in_turn_each_member_is_its_solo_run_bit_for_bit(start, alone):
    # Blocks of 2 for 5 members: the last is filled up, and what fills it is dropped.
    order, found = train(start, "map", block=2)
    assert order == list(range(COUNT))
    jax.tree.map(np.testing.assert_array_equal, found, alone)
    moved = jax.tree.map(
        lambda new, old: np.abs(new - np.asarray(old)).max(axis=tuple(range(1, new.ndim))),
        found.evaluation["params"],
        MODEL.params,
    )
    assert all((leaf > 0).all() for leaf in jax.tree.leaves(moved))


@pytest.mark.parametrize("mode", ["vmap", pytest.param("chunks", marks=pytest.mark.slow)])
def test_together_each_member_is_its_solo_run_within_rounding(start, alone, mode):
    _, found = train(start, mode, chunk=2)
    # Adam divides by the size of a gradient: where one is about 0, rounding decides its sign, and
    # a weight may differ by a few steps of 1e-2. The first step's metrics may not differ, but for
    # the accuracy, which is of margins that are 0 there, or what rounding makes of it.
    assert np.abs(found.metrics.reward_margin[:, 0]).max() < F32
    first = [
        jax.tree.map(lambda leaf: leaf[:, 0], kept.metrics._replace(accuracy=kept.metrics.loss))
        for kept in (found, alone)
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=F32 * 10, atol=F32), *first)
    np.testing.assert_allclose(found.metrics.loss, alone.metrics.loss, rtol=1e-4)
    assert found.evaluation["data"].tolist() == [7.0] * COUNT


@pytest.mark.parametrize("parts", [2, None])
def test_rows_cut_to_their_lengths_give_the_same_gradient(parts):
    """Sorted by length and cut to two widths, whatever order they come in."""
    records = [Tokens((1, *range(3, 4 + n)), ((5, 2), (6, 7, 2)[n % 2 :])) for n in range(16)]
    rows = pack_rows(records, max_length=32, width=24).rows
    widths = row_widths(rows, 2)
    assert [width for width, _ in widths] == [16, 24] and widths[-1][1] == completion_width(rows)
    table, logps = jax.tree.map(jnp.asarray, rows), -jnp.ones((16, 2), jnp.float32)
    one = jax.tree.map(lambda leaf: leaf[0], member(0).batches)

    def gradient(recipe, order):
        batch = one._replace(rows=order)
        given = (MODEL.graphdef, MODEL.params, table, logps, batch, member(0).settings)
        return dpo_gradient(*given, recipe)

    recipe = replace(RECIPE, micro_batch=parts, logit_width=widths[-1][1])
    whole, cut = (
        jax.jit(partial(gradient, replace(recipe, widths=asked))) for asked in ((), widths)
    )
    for order in ([15, 0, 3, 13], [0, 14, 5, 3], [2, 2, 6, 1], [15, 14, 15, 13]):
        order = jnp.asarray(order, jnp.int32)
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=F32 * 10, atol=F32), cut(order), whole(order)
        )


def test_members_differ_by_what_is_theirs(alone):
    losses = alone.metrics.loss
    assert np.unique(losses[:, 1:]).size == losses[:, 1:].size
    np.testing.assert_allclose(losses[:, 0], np.log(2), rtol=F32)


def test_the_way_of_running_follows_the_device():
    assert default_mode() == ("map" if jax.default_backend() == "cpu" else "vmap")


def test_leaves_of_different_lengths_are_refused_before_anything_runs(start):
    short = MEMBERS._replace(settings=jax.tree.map(lambda leaf: leaf[:3], MEMBERS.settings))
    with pytest.raises(InputError, match=r"same number of members.*got 3, 5"):
        train_population(**start, members=short, recipe=RECIPE, evaluation=keep)
    scalar = MEMBERS._replace(settings=MEMBERS.settings._replace(beta=np.float32(0.1)))
    with pytest.raises(InputError, match="got 5, none"):
        train_population(**start, members=scalar, recipe=RECIPE, evaluation=keep)
    with pytest.raises(InputError, match="at least one"):
        train_population(**start, members=random_members(0), recipe=RECIPE, evaluation=keep)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "pmap"}, "mode: expected"), ({"block": 0}, "block:"), ({"chunk": 0}, "chunk:")],
)
def test_options_are_checked_before_anything_runs(start, options, message):
    with pytest.raises(InputError, match=message):
        train_population(**start, members=MEMBERS, recipe=RECIPE, evaluation=keep, **options)


@pytest.mark.slow
def test_ways_of_running_are_timed_fastest_first(start):
    found = measure_modes(
        **start, members=MEMBERS, recipe=RECIPE, steps=2, block=2, modes=MODES[:1]
    )
    assert [row.mode for row in found] == ["map"]
    assert found[0].seconds_per_step > 0 and found[0].compile_seconds > found[0].seconds_per_step


def test_what_is_kept_has_the_members_in_front(start, alone):
    assert isinstance(alone, Trained)
    assert alone.metrics.loss.shape == (COUNT, STEPS)
