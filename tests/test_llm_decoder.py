"""The decoder: parity with transformers, laws of attention, derivatives, refusals."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

from golden.make_golden import CASES, tokens, torch_logits, torch_model, write_checkpoint

from jaxpref import InputError
from jaxpref.llm import (
    DecoderConfig,
    RopeConfig,
    decoder,
    decoder_config,
    hidden_states,
    initial_model,
    load_model,
    save_model,
    vocabulary_logits,
)
from jaxpref.llm.attention import attend, masked_softmax
from jaxpref.llm.config import config_json
from jaxpref.llm.decoder import causal_mask
from jaxpref.llm.rotary import inverse_frequencies, rotary_tables, rotate

PARITY = 2e-5  # float32 logits of standard deviation 1, two orders of summation
F32 = 5e-6
BFLOAT16 = 0.08  # eight bits, two layers: ten roundings of 2^-8 on logits up to about 3

SMALL = DecoderConfig(
    architecture="mistral",
    vocab_size=13,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=2,
    max_position_embeddings=100_003,
    initializer_range=0.4,
)
ROWS = jnp.asarray([[3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8]], jnp.int32)


@partial(jax.jit, static_argnames=("graphdef", "attention", "remat"))
def hidden_of(graphdef, params, rows, **options):
    return hidden_states(graphdef, params, rows, **options)


@partial(jax.jit, static_argnames=("graphdef",))
def logits_of(graphdef, params, rows, **options):
    hidden = hidden_states(graphdef, params, rows, **options)
    return vocabulary_logits(graphdef, params, hidden)


def logits(model, rows, **options):
    return logits_of(model.graphdef, model.params, jnp.asarray(rows), **options)


@pytest.fixture(scope="module")
def small():
    return initial_model(SMALL, jax.random.key(0))


@pytest.fixture(scope="module")
def small64():
    return initial_model(SMALL, jax.random.key(0), dtype="float64")


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_kept_from_transformers(case, tmp_path):
    expected = write_checkpoint(case, tmp_path)
    model = load_model(tmp_path)
    ours = logits(model, tokens(model.config.vocab_size))
    assert ours.dtype == jnp.float32
    assert np.abs(np.asarray(ours) - expected).max() < PARITY
    assert expected.std() > 0.5


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers_live(case, tmp_path):
    pytest.importorskip("torch", reason="torch is a reference for tests only")
    theirs = torch_model(CASES[case], seed=100)
    theirs.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    rows = tokens(model.config.vocab_size)[:, ::-1].copy()
    ours = np.asarray(logits(model, rows))
    assert np.abs(ours - torch_logits(theirs, rows)).max() < PARITY


def test_parity_would_notice_another_rotary_base(tmp_path):
    expected = write_checkpoint("llama_theta", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("523.0", "10000.0"))
    wrong = logits(load_model(tmp_path), tokens(41))
    assert np.abs(np.asarray(wrong) - expected).max() > 1000 * PARITY


def test_no_token_depends_on_a_later_one(small):
    # The embedding of id 9, the last token of the first row, reaches the last position only.
    direction = jax.tree.map(jnp.zeros_like, small.params)
    direction["embedding"] = direction["embedding"].replace(
        direction["embedding"][...].at[9].set(1.0)
    )
    run = jax.jit(lambda p, d: jax.jvp(lambda q: hidden_under(small, q), (p,), (d,))[1])
    reach = np.abs(run(small.params, direction))[0].sum(axis=-1)
    assert (reach[:-1] == 0).all() and reach[-1] > 0


def hidden_under(model, params):
    return hidden_states(model.graphdef, params, ROWS)


def test_the_sliding_window_hides_what_is_further_back():
    config = DecoderConfig(**{**vars(SMALL), "sliding_window": 2, "num_hidden_layers": 1})
    model = initial_model(config, jax.random.key(1))
    changed = ROWS.at[0, 0].set(11)
    ours, theirs = logits(model, ROWS[:1]), logits(model, changed[:1])
    assert np.array_equal(ours[:, 2:], theirs[:, 2:])
    assert not np.array_equal(ours[:, 1], theirs[:, 1])
    given = logits(model, ROWS, mask=causal_mask(6, 2))
    assert np.array_equal(given, logits(model, ROWS))


def test_two_texts_share_a_prompt_in_one_row(small):
    prompt, first, second = [3, 1, 4], [1, 5], [9, 2, 6]
    row = jnp.asarray([[*prompt, *first, *second, 0]], jnp.int32)
    positions = jnp.asarray([[0, 1, 2, 3, 4, 3, 4, 5, 0]], jnp.int32)
    segment = np.array([1, 1, 1, 2, 2, 3, 3, 3, 0])
    same = (segment[:, None] == segment) | (segment == 1)
    mask = jnp.asarray((same & (segment > 0)[:, None] & np.tri(9, dtype=bool))[None])
    shared = logits(small, row, positions=positions, mask=mask)
    apart = [logits(small, jnp.asarray([[*prompt, *text]], jnp.int32)) for text in (first, second)]
    assert np.abs(shared[0, 3:5] - apart[0][0, 3:]).max() < F32
    assert np.abs(shared[0, 5:8] - apart[1][0, 3:]).max() < F32
    assert np.isfinite(shared).all()


def test_a_row_that_sees_nothing_stays_finite_with_its_derivative(small):
    mask = jnp.zeros((1, 6, 6), bool)

    def total(params):
        hidden = hidden_states(small.graphdef, params, ROWS, mask=mask)
        return jnp.sum(hidden**2)

    value, slope = jax.jit(jax.value_and_grad(total))(small.params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_many_models_at_once_equal_each_alone(small):
    other = initial_model(SMALL, jax.random.key(5))
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), small.params, other.params)
    run = jax.jit(jax.vmap(lambda p: hidden_states(small.graphdef, p, ROWS)))
    for model, ours in zip((small, other), run(both), strict=True):
        alone = hidden_of(model.graphdef, model.params, ROWS)
        assert np.abs(ours - alone).max() < F32


def loss(model, params, **options):
    hidden = hidden_states(model.graphdef, params, ROWS, **options)
    logps = jax.nn.log_softmax(vocabulary_logits(model.graphdef, params, hidden))
    return jnp.mean(logps[:, :-1] * jax.nn.one_hot(ROWS[:, 1:], 13, dtype=logps.dtype))


def test_forward_backward_and_finite_differences_agree(small64):
    params, step = small64.params, 1e-6
    keys = iter(jax.random.split(jax.random.key(2), 99))
    direction = jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape, p.dtype), params)
    run = jax.jit(lambda p: loss(small64, p))
    forward = jax.jit(lambda p, d: jax.jvp(run, (p,), (d,))[1])(params, direction)
    slopes = jax.jit(jax.grad(run))(params)
    backward = jax.tree.reduce(jnp.add, jax.tree.map(jnp.vdot, slopes, direction))
    ahead = run(jax.tree.map(lambda p, d: p + step * d, params, direction))
    behind = run(jax.tree.map(lambda p, d: p - step * d, params, direction))
    assert math.isclose(forward, backward, rel_tol=1e-10)
    assert math.isclose(forward, (ahead - behind) / (2 * step), rel_tol=1e-4)


def test_forward_over_reverse_works(small64):
    slope = jax.grad(lambda p: loss(small64, p))
    ones = jax.tree.map(jnp.ones_like, small64.params)
    second = jax.jit(lambda p, d: jax.jvp(slope, (p,), (d,))[1])(small64.params, ones)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(second))
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(second))


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputing_layers_changes_no_derivative(small, remat):
    plain = jax.jit(jax.grad(lambda p: loss(small, p)))(small.params)
    again = jax.jit(jax.grad(lambda p: loss(small, p, remat=remat)))(small.params)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        assert np.abs(a - b).max() < F32


def test_an_unknown_way_of_recomputing_is_refused(small):
    with pytest.raises(InputError, match="remat: expected one of 'none', 'dots', 'full'"):
        loss(small, small.params, remat="some")


def test_direct_attention_equals_jax_nn(small):
    ours = hidden_of(small.graphdef, small.params, ROWS)
    theirs = hidden_of(small.graphdef, small.params, ROWS, attention="xla")
    assert np.abs(ours - theirs).max() < F32
    with pytest.raises(
        InputError, match="expected one of 'direct', 'blocked', 'xla', 'cudnn'; got 'flash'"
    ):
        hidden_states(small.graphdef, small.params, ROWS, attention="flash")


def test_blocks_of_queries_change_nothing_and_need_no_later_key(small, monkeypatch):
    monkeypatch.setattr("jaxpref.llm.attention.BLOCK", 4)
    keys = jax.random.split(jax.random.key(11), 4)
    queries, rest = (
        jax.random.normal(key, (2, 10, heads, 6), jnp.float64)
        for key, heads in zip(keys, (4, 2), strict=False)
    )
    mask = causal_mask(10, 5)

    def total(queries, implementation):
        mixed = attend(queries, rest, rest + 1, mask, implementation=implementation)
        return jnp.sum(mixed**2), mixed

    found = [
        jax.value_and_grad(total, has_aux=True)(queries, name) for name in ("direct", "blocked")
    ]
    for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
        assert np.abs(ours - theirs).max() < 1e-11
    whole = hidden_of(small.graphdef, small.params, ROWS, attention="blocked")
    assert np.abs(whole - hidden_of(small.graphdef, small.params, ROWS)).max() < F32


def test_bfloat16_is_near_float32_and_its_logits_are_float32(small):
    rough = small._replace(params=jax.tree.map(lambda p: p.astype(jnp.bfloat16), small.params))
    ours = logits(rough, ROWS)
    assert ours.dtype == jnp.float32
    difference = np.abs(ours - logits(small, ROWS)).max()
    assert 0 < difference < BFLOAT16


def test_no_array_is_as_wide_as_the_longest_context(small):
    jaxpr = str(jax.make_jaxpr(lambda p: hidden_states(small.graphdef, p, ROWS))(small.params))
    assert "100003" not in jaxpr


def test_masked_softmax_has_the_derivative_of_the_plain_formula():
    scores = jax.random.normal(jax.random.key(3), (3, 4, 4), jnp.float64)
    mask = jnp.tri(4, dtype=bool)[None]
    weight = jax.random.normal(jax.random.key(4), scores.shape, jnp.float64)

    def plain(scores):
        return jax.nn.softmax(jnp.where(mask, scores, -1e300), axis=-1)

    ours = jax.grad(lambda s: jnp.sum(weight * masked_softmax(s, mask)))(scores)
    theirs = jax.grad(lambda s: jnp.sum(weight * plain(s)))(scores)
    assert np.abs(ours - theirs).max() < 1e-12


def test_many_layers_are_scanned_and_few_unrolled_alike(small, monkeypatch):
    unrolled = jax.jit(lambda p: hidden_states(small.graphdef, p, ROWS))(small.params)
    monkeypatch.setattr(decoder, "_UNROLLED_LAYERS", 1)
    scanned = jax.jit(lambda p: hidden_states(small.graphdef, p, ROWS))(small.params)
    assert np.abs(unrolled - scanned).max() < F32


def test_grouped_heads_equal_repeated_ones():
    queries = jax.random.normal(jax.random.key(7), (1, 5, 4, 6), jnp.float64)
    keys = jax.random.normal(jax.random.key(8), (1, 5, 2, 6), jnp.float64)
    mask = causal_mask(5)
    grouped = attend(queries, keys, keys + 1, mask)
    repeated = jnp.repeat(keys, 2, axis=2)
    assert np.abs(grouped - attend(queries, repeated, repeated + 1, mask)).max() < 1e-12


def test_llama3_frequencies_follow_the_released_rule():
    rope = RopeConfig("llama3", 500000.0, 8.0, 1.0, 4.0, 8192)
    for i, ours in enumerate(inverse_frequencies(rope, 128)):
        plain = 500000.0 ** (-2 * i / 128)
        length = 2 * math.pi / plain
        if length < 8192 / 4:
            expected = plain
        elif length > 8192:
            expected = plain / 8
        else:
            blend = (8192 / length - 1) / 3
            expected = (1 - blend) * plain / 8 + blend * plain
        assert math.isclose(ours, expected, rel_tol=1e-12)


def test_rotation_keeps_products_of_equal_distance():
    heads = jax.random.normal(jax.random.key(9), (2, 1, 8), jnp.float64)
    rope = RopeConfig(theta=50.0)

    def product(first, second):
        tables = rotary_tables(rope, 8, jnp.asarray([first, second]), dtype="float64")
        turned = rotate(heads, *tables)
        return jnp.vdot(turned[0], turned[1])

    assert math.isclose(product(3, 5), product(11, 13), rel_tol=1e-12)
    assert not math.isclose(product(3, 5), product(3, 6), rel_tol=1e-3)


def test_keys_of_transformers_4_and_5_say_the_same():
    base = {"model_type": "llama", "rms_norm_eps": 1e-5}
    scaling = {"rope_type": "linear", "factor": 2.0}
    five = decoder_config({**base, "rope_parameters": {**scaling, "rope_theta": 5e5}})
    four = decoder_config({**base, "rope_theta": 5e5, "rope_scaling": scaling})
    old = decoder_config(
        {**base, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    )
    assert five == four == old
    assert five.rope == RopeConfig("linear", 5e5, 2.0)


@pytest.mark.parametrize("kind", ["llama", "mistral", "nemotron", "gpt2"])
def test_keys_left_out_have_transformers_defaults(kind):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoConfig.for_model(kind)
    assert decoder_config({"model_type": kind}) == decoder_config(theirs.to_dict())


@pytest.mark.parametrize("case", CASES)
def test_transformers_reads_the_config_we_write(case, tmp_path):
    transformers = pytest.importorskip("transformers")
    write_checkpoint(case, tmp_path)
    model = load_model(tmp_path)
    save_model(model, tmp_path / "again")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "again")
    assert decoder_config(theirs.to_dict()) == model.config == decoder_config(tmp_path)
    assert decoder_config(config_json(model.config)) == model.config


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"model_type": "mixtral"},
            "model_type: expected one of 'llama', 'mistral', 'nemotron', 'gpt2'; got ",
        ),
        ({"model_type": None}, "model_type: expected one of"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "rope_type: .*'llama3'; got 'yarn'"),
        ({"rope_scaling": {"type": "dynamic"}}, "got 'dynamic'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "expected 'low_freq_factor'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"hidden_act": "xielu"}, "hidden_act: expected one of .*; got 'xielu'"),
        ({"num_key_value_heads": 3}, "a divisor of num_attention_heads"),
        ({"hidden_size": "wide"}, "expected a config of transformers"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected a whole number of at least 1"),
        ({"model_type": "gpt2", "add_cross_attention": True}, "add_cross_attention: expected"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(changed, message):
    with pytest.raises(InputError, match=message):
        decoder_config({"model_type": "llama", "num_attention_heads": 8, **changed})


def test_an_unknown_type_of_numbers_is_refused():
    with pytest.raises(InputError, match="dtype: expected one of .*; got 'int8'"):
        initial_model(SMALL, jax.random.key(0), dtype="int8")
