"""Precisions: what rounding does to small updates, and that weights move all the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

from jaxpref._checks import InputError
from jaxpref.llm import precision
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import initial_model
from jaxpref.llm.precision import apply_stochastically, precision_of, stochastic_round
from jaxpref.llm.rows import Tokens, pack_rows
from jaxpref.llm.trainer import TrainOptions, train_preferences

RATE = 5e-6
"""The paper's learning rate, and so about the size of an Adam step."""

# -- rounding -------------------------------------------------------------------------------------


def test_rounding_is_to_a_neighbour_and_unbiased():
    x = jnp.array([1.003, -0.0271, 3e-5, -7e20, 1e-39, 0.0], jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: stochastic_round(x, key)))(keys), np.float32)
    exact = np.asarray(x, np.float64)
    low, high = draws.min(axis=0).astype(np.float64), draws.max(axis=0).astype(np.float64)
    assert (low <= exact).all() and (exact <= high).all()
    bits = np.asarray(x).view(np.uint32) & 0xFFFF0000
    apart = (bits + np.uint32(0x10000)).view(np.float32).astype(np.float64) - bits.view(np.float32)
    assert (high - low <= np.abs(apart)).all()
    error = np.abs(draws.astype(np.float64).mean(axis=0) - exact)
    assert (error <= 5 * 0.5 * np.abs(apart) / np.sqrt(4000)).all()  # 5 standard errors


def test_what_bfloat16_holds_and_what_is_not_finite_stays():
    odd = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800000, 0x7F800000], np.uint32).view(np.float32)
    x = jnp.concatenate([jnp.array([1.0, -0.5, 0.0, 2.0**-130], jnp.float32), jnp.asarray(odd)])
    for key in jax.random.split(jax.random.key(1), 5):
        found = np.asarray(stochastic_round(x, key), np.float32)
        np.testing.assert_array_equal(found[:4], np.asarray(x[:4]))
        assert np.isnan(found[4:6]).all()
        assert found[6] == -np.inf and found[7] == np.inf


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="x: expected float32; got bfloat16"):
        stochastic_round(jnp.zeros(1, jnp.bfloat16), jax.random.key(0))
    with pytest.raises(InputError, match="precision: expected one of 'float32'"):
        precision_of("float8")
    with pytest.raises(InputError, match="precision: expected one of"):
        TrainOptions(precision="float16")
    with pytest.raises(InputError, match="optimizer: expected one of"):
        TrainOptions(optimizer="sgd")


# -- do weights move? -----------------------------------------------------------------------------


def test_rounded_to_the_nearest_7_8_percent_move_and_at_random_all_do_on_average():
    """Trap 5: N(0, 0.02) weights in bfloat16, one step of Adam's size at a rate of 5e-6."""
    weights = 0.02 * jax.random.normal(jax.random.key(0), (200_000,), jnp.float32)
    weights = weights.astype(jnp.bfloat16)
    moved = (weights.astype(jnp.float32) - jnp.float32(RATE)).astype(jnp.bfloat16) != weights
    share = float(jnp.mean(moved))
    print(f"{share:.4f} move")
    assert share == pytest.approx(0.078, abs=0.003)
    step = {"w": jnp.ones_like(weights)}
    after = apply_stochastically({"w": weights}, step, jnp.float32(RATE), jax.random.key(1))["w"]
    difference = np.asarray(after, np.float64) - np.asarray(weights, np.float64)
    error = difference.std() / np.sqrt(difference.size)
    assert difference.mean() == pytest.approx(-RATE, abs=5 * error)
    assert 5 * error < RATE / 2  # and so the mean is not 0


def test_layer_by_layer_rounds_as_well(monkeypatch):
    monkeypatch.setattr(precision, "LAYERED_FROM", 1)
    leaf = jnp.ones((3, 64, 64), jnp.bfloat16)
    moved = apply_stochastically(leaf, leaf, jnp.float32(1e-3), jax.random.key(0))
    each = np.asarray(moved, np.float64).mean(axis=(1, 2))
    np.testing.assert_allclose(each, 0.999, atol=5 * 2**-9 / 64)
    assert len(np.unique(each)) == 3  # no layer has another's dice


# -- runs -----------------------------------------------------------------------------------------

MODEL = initial_model(
    decoder_config(
        {
            "model_type": "llama",
            "vocab_size": 40,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
    ),
    jax.random.key(0),
)
ROWS = pack_rows(
    [Tokens((1, 5, 6 + row), ((10 + row, 2), (20 + row, 21, 2))) for row in range(4)],
    max_length=16,
).rows


def options(**changes):
    given = {"learning_rate": RATE, "schedule": "constant", "steps": 8, "batch_size": 4, "seed": 3}
    return TrainOptions(**given | changes)


def flat(params):
    return np.concatenate(
        [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(params)]
    )


START = MODEL._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), MODEL.params))


@pytest.fixture(scope="module")
def exact():
    return train_preferences(START, ROWS, options=options(precision="bfloat16"))


def test_bfloat16_passes_keep_float32_weights_that_all_move(exact):
    assert {leaf.dtype for leaf in jax.tree.leaves(exact.model.params)} == {jnp.dtype("float32")}
    assert exact.metrics[0]["reward_margin"] == 0 and exact.metrics[-1]["reward_margin"] > 0
    one, other = (model.params["layers"]["feed_forward"]["up"] for model in (exact.model, START))
    assert np.mean(flat(one) != flat(other)) > 0.99


@pytest.mark.slow
def test_stochastic_rounding_moves_weights_as_float32_does_and_resumes_bit_for_bit(exact, tmp_path):
    """At the paper's rate, with AdamW in bytes: rounding key and codes come from the checkpoint."""
    chosen = options(precision="bfloat16-stochastic", optimizer="adamw8bit")
    whole = train_preferences(START, ROWS, options=chosen)
    assert whole.metrics[0]["reward_margin"] == 0
    assert {leaf.dtype for leaf in jax.tree.leaves(whole.model.params)} == {jnp.dtype("bfloat16")}
    moved = flat(whole.model.params) - flat(START.params)
    meant = flat(exact.model.params) - flat(START.params)
    error = np.std(moved * np.sign(meant)) / np.sqrt(moved.size)
    along = np.mean(moved * np.sign(meant))
    print(f"along {along:.3g} of {np.abs(meant).mean():.3g}, standard error {error:.2g}")
    assert along == pytest.approx(np.abs(meant).mean(), abs=5 * error)
    assert along > 5 * error

    class StopError(Exception):
        pass

    def stop(done, total):
        if done >= 4:
            raise StopError

    with pytest.raises(StopError):
        train_preferences(START, ROWS, options=chosen, out=tmp_path, save_every=4, progress=stop)
    again = train_preferences(START, ROWS, options=chosen, out=tmp_path, resume=True)
    for one, other in zip(
        jax.tree.leaves(again.model.params), jax.tree.leaves(whole.model.params), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
