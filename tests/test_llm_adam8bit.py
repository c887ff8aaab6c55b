"""AdamW in bytes: laws of the codes, against optax's Adam, and what a linear code would do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

import optax
from tolerances import F32

from jaxpref._checks import InputError
from jaxpref.llm import adam8bit, precision
from jaxpref.llm.adam8bit import (
    Adam8bitState,
    adamw_8bit,
    bytes_per_parameter,
    quantised_by_default,
    scale_by_adam_8bit,
    share_quantised,
)
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import abstract_model
from jaxpref.llm.resume import Checkpoint, load_checkpoint, save_checkpoint

KEY = jax.random.key(0)


def everything(path, leaf):
    return True


def normal(shape, seed=1, scale=1.0):
    return scale * jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def state_after(optimizer, gradients, steps=3) -> Any:
    state, update, updates = optimizer.init(gradients), jax.jit(optimizer.update), None
    for _ in range(steps):
        updates, state = update(gradients, state)
    return updates, state


# -- laws of the codes ----------------------------------------------------------------------------

SHAPES = [(256,), (3, 512), (2, 5, 300), (7, 11), (1,), (), (2, 3, 64)]


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_is_kept_in_its_own_shape_and_comes_back_within_half_a_code(shape):
    x = normal(shape)
    blocks = adam8bit._encode_first(x, jnp.full(shape, 9.0, jnp.float32), 256)
    assert blocks.codes.shape == shape and blocks.codes.dtype == jnp.int8
    root = np.asarray(adam8bit._decode(blocks, 256))
    assert root.shape == shape
    expected = np.asarray(jnp.sign(x) * jnp.sqrt(jnp.abs(x)))
    assert np.abs(root - expected).max() <= (0.5 + 1e-4) * np.abs(expected).max() / 127
    assert np.abs(root).max() == pytest.approx(np.abs(expected).max(), rel=F32)


def test_blocks_lie_along_the_last_axis_so_that_a_shard_of_codes_has_its_scales():
    x = normal((4, 512))
    whole = adam8bit._encode_first(x, x, 256)
    assert whole.scales.shape == (4, 2)
    part = adam8bit._encode_first(x[1:2, 256:], x[1:2, 256:], 256)
    np.testing.assert_array_equal(part.codes, whole.codes[1:2, 256:])
    np.testing.assert_array_equal(part.scales, whole.scales[1:2, 1:])


def test_a_second_moment_is_rounded_without_bias_and_never_to_nothing():
    x = jnp.concatenate([jnp.ones(1), jnp.linspace(1e-7, 0.5, 255)]).astype(jnp.float32)
    draws = [adam8bit._encode_second(x, 256, key, floor=True) for key in jax.random.split(KEY, 400)]
    back = np.stack([np.asarray(adam8bit._decode(draw, 256)) for draw in draws])
    assert (back > 0).all()
    clear = np.asarray(x) > 1 / 255  # below, what is positive is held at the lowest code
    deviation = (back.mean(0) - np.asarray(x))[clear] * 255
    # The error of one draw is at most half a code in standard deviation: 5 standard errors.
    assert np.abs(deviation).max() < 5 * 0.5 / np.sqrt(400)
    assert np.abs(deviation.mean()) < 5 * 0.5 / np.sqrt(400 * clear.sum())


def test_a_block_of_zeros_stays_zero_and_a_nan_stays_within_its_block():
    gradient = {"a": jnp.zeros((2, 256), jnp.float32)}
    updates, state = state_after(scale_by_adam_8bit(mask=everything), gradient)
    assert not np.any(updates["a"])
    for leaf in jax.tree.leaves((state.mu, state.nu)):
        assert not np.any(leaf)
    gradient = {"a": normal((2, 512)).at[0, 3].set(jnp.nan)}
    updates, _ = state_after(scale_by_adam_8bit(mask=everything), gradient)
    bad = np.isnan(np.asarray(updates["a"]))
    assert bad[0, :256].all() and not bad[0, 256:].any() and not bad[1].any()


def test_a_first_moment_without_gradient_goes_to_nothing():
    """To the nearest, a code of 9 that decays by a tenth is 9 again."""
    optimizer = scale_by_adam_8bit(mask=everything)
    rest = normal((256,)).at[:8].set(0.0)
    state: Any = optimizer.init({"a": rest})
    update = jax.jit(optimizer.update)
    updates, state = update({"a": rest.at[:8].set(1.0)}, state)
    for _ in range(100):
        updates, state = update({"a": rest}, state)
    assert not np.any(state.mu["a"].codes[:8])
    assert not np.any(updates["a"][:8])


# -- what is quantised, and its bytes -------------------------------------------------------------


def test_an_8b_model_keeps_its_matrices_at_2_03_bytes_a_parameter():
    config = decoder_config(
        {
            "model_type": "llama",
            "vocab_size": 128_256,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "tie_word_embeddings": False,
        }
    )
    _, abstract = abstract_model(config, "bfloat16")
    state = jax.eval_shape(scale_by_adam_8bit().init, abstract)
    sized = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), state)
    assert bytes_per_parameter(sized) == 2 + 8 / 256
    exact = [leaf.shape for leaf in jax.tree.leaves(state.mu) if leaf.dtype == jnp.float32]
    assert (128_256, 4096) in exact
    assert share_quantised(sized) == pytest.approx(0.9346, abs=1e-4)
    codes = [leaf.shape for leaf in jax.tree.leaves(state.mu) if leaf.dtype == jnp.int8]
    assert (32, 4096, 14_336) in codes and (128_256, 4096) in codes  # the head is no embedding


def test_small_tensors_and_embeddings_stay_as_they_are_unless_asked():
    params = {"embedding": jnp.zeros((64, 256)), "layers": {"a": jnp.zeros((8, 4000))}}
    chosen: Any = scale_by_adam_8bit().init(params)
    asked: Any = scale_by_adam_8bit(mask=everything).init(params)
    assert share_quantised(chosen) == 0 and share_quantised(asked) == 1
    assert quantised_by_default("['layers']['a']", params["layers"]["a"], min_size=4000)


@pytest.mark.parametrize("options", [{"block": 0}, {"code": "cubic"}])
def test_an_unknown_option_is_refused(options):
    with pytest.raises(InputError, match="expected"):
        scale_by_adam_8bit(**options)


# -- against optax --------------------------------------------------------------------------------


def test_unquantised_leaves_are_optax_adam():
    gradient = {"a": normal((5, 3))}
    ours, _ = state_after(scale_by_adam_8bit(), gradient)
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer count
        theirs, _ = state_after(optax.scale_by_adam(), gradient)
    for one, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=F32)


def test_the_first_update_is_exact_and_decay_and_rate_are_adamws():
    params, gradient = {"a": normal((16, 256))}, {"a": normal((16, 256), 2)}
    options: dict[str, Any] = {"b1": 0.8, "b2": 0.99, "eps": 1e-6, "weight_decay": 0.1}
    ours, theirs = adamw_8bit(1e-2, mask=everything, **options), optax.adamw(1e-2, **options)
    one, _ = ours.update(gradient, ours.init(params), params)
    with jax.numpy_dtype_promotion("standard"):
        other, _ = theirs.update(gradient, theirs.init(params), params)
    for left, right in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(left, right, rtol=F32, atol=1e-8)


# -- 500 steps ------------------------------------------------------------------------------------

UNITS = jnp.logspace(0, -2, 256).astype(jnp.float32)
"""The toy predicts 256 numbers in units from 1 to a hundredth: one block's gradients span 1e4."""
SEEDS, STEPS = 4, 500


def toy(seed, optimizer):
    """Return the final loss of a network of two layers, with the start and data of a seed."""
    teacher = normal((16, 256), 99, 0.25)
    key = jax.random.key(seed)
    one, two = jax.random.split(key)
    params = {"one": normal_of(one, (16, 16)) / 4, "two": normal_of(two, (16, 256)) / 4}

    def loss(params, x):
        found = jnp.tanh(x @ params["one"]) @ params["two"]
        return jnp.mean(((found - jnp.sin(x @ teacher)) * UNITS) ** 2)

    def step(carry, key):
        params, state = carry
        gradient = jax.grad(loss)(params, normal_of(key, (8, 16)))
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (params, optimizer.init(params))
    keys = jax.random.split(jax.random.fold_in(key, 1), STEPS)
    (params, _), _ = jax.lax.scan(step, start, keys)
    return loss(params, normal((512, 16), 1234))


def normal_of(key, shape):
    return jax.random.normal(key, shape, jnp.float32)


@pytest.mark.slow
def test_in_500_steps_it_ends_within_the_spread_of_seeds_and_a_linear_code_does_not():
    rate = optax.linear_schedule(3e-3, 0.0, STEPS)

    def final(direction):
        optimizer = optax.chain(direction, optax.scale_by_learning_rate(rate))
        run = jax.jit(jax.vmap(lambda seed: toy(seed, optimizer)))
        return np.asarray(run(jnp.arange(SEEDS)))

    with jax.numpy_dtype_promotion("standard"):
        exact = final(optax.scale_by_adam())
        eight, linear = (final(scale_by_adam_8bit(code=code)) for code in ("root", "linear"))
    spread = exact.std(ddof=1)
    print(
        f"float32 {exact.mean():.3g} ({spread:.2g}), 8 bit {eight.mean():.3g}, {linear.mean():.3g}"
    )
    assert abs(eight.mean() - exact.mean()) < spread
    assert np.abs(eight - exact).max() < spread  # seed by seed
    assert not (linear.mean() - exact.mean() < 5 * spread)  # far outside, or not even finite


# -- jit, scan, donation, vmap, layers ------------------------------------------------------------


def test_many_at_once_are_each_alone():
    optimizer = scale_by_adam_8bit(mask=everything)
    gradients = {"a": normal((3, 4, 256))}
    together, states = jax.jit(jax.vmap(lambda g: state_after(optimizer, g)))(gradients)
    for member in range(3):
        alone, state = jax.jit(lambda g: state_after(optimizer, g))({"a": gradients["a"][member]})
        np.testing.assert_array_equal(together["a"][member], alone["a"])
        for one, other in zip(jax.tree.leaves(states), jax.tree.leaves(state), strict=True):
            np.testing.assert_array_equal(one[member], other)


def test_layer_by_layer_is_in_place_and_only_a_layer_is_whole_in_float32(monkeypatch):
    gradient = {"layers": normal((8, 64, 512)).astype(jnp.bfloat16)}
    optimizer = scale_by_adam_8bit(mask=everything)
    state = optimizer.init(gradient)

    def compiled():
        step = jax.jit(lambda g, s: optimizer.update(g, s), donate_argnums=(0, 1))
        return step.lower(gradient, state).compile()

    whole = compiled()
    expected, _ = whole(jax.tree.map(jnp.copy, gradient), jax.tree.map(jnp.copy, state))
    monkeypatch.setattr(precision, "LAYERED_FROM", 1)
    sliced = compiled()
    updates, after = sliced(jax.tree.map(jnp.copy, gradient), jax.tree.map(jnp.copy, state))
    np.testing.assert_array_equal(updates["layers"], expected["layers"])
    assert isinstance(after, Adam8bitState) and int(after.count) == 1
    one_layer = 64 * 512 * 4
    memory, before = sliced.memory_analysis(), whole.memory_analysis()
    assert memory is not None and before is not None
    assert memory.temp_size_in_bytes < 8 * one_layer
    assert before.temp_size_in_bytes > 8 * 2 * one_layer
    assert memory.alias_size_in_bytes > 3 * 8 * 64 * 512  # the codes and the gradient's own bytes


@pytest.mark.slow
def test_a_checkpoint_brings_back_every_bit_and_goes_on_alike(tmp_path):
    optimizer = scale_by_adam_8bit(mask=everything)
    gradients = {"a": normal((4, 300)), "b": normal((7,))}
    _, state = state_after(optimizer, gradients)
    path = save_checkpoint(tmp_path, 3, state, {})
    again = load_checkpoint(Checkpoint(3, path, {}), optimizer.init(gradients))
    for pair in (
        (state, again),
        tuple(optimizer.update(gradients, one) for one in (state, again)),
    ):
        for one, other in zip(*map(jax.tree.leaves, pair), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
