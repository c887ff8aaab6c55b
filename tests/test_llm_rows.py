"""Rows: what attends to what, and log-probabilities equal to those of separate sequences."""

from __future__ import annotations

import json
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import EXACT

from jaxpref import DataError, InputError
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import hidden_states, initial_model, vocabulary_logits
from jaxpref.llm.logps import completion_logps
from jaxpref.llm.rows import (
    Rows,
    Tokens,
    completion_lengths,
    completion_width,
    pack_rows,
    round_up_width,
    row_mask,
    split_by_width,
)

SHAPE = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
LLAMA = {"model_type": "llama", **SHAPE}
MISTRAL = {"model_type": "mistral", **SHAPE, "sliding_window": 3}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 19,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.3,
}
# Token 0 is a real token here (and the padding), and 2, the end of a text, stands in a prompt too.
RECORDS = [
    Tokens((1, 5, 0), ((7, 2), (8, 9, 0, 2))),
    Tokens((1, 4, 2, 6, 6, 3), ((0, 0, 2), (11, 2))),
    Tokens((1,), ((18, 17, 16, 15, 2), (2,))),
]


def model_of(config, dtype="float64"):
    return _model(json.dumps(config), dtype)


@cache
def _model(config, dtype):
    return initial_model(decoder_config(json.loads(config)), jax.random.key(3), dtype=dtype)


def separate_logps(model, records):
    """Return the log-probabilities of completions by the plain causal pass, each row a sequence."""
    texts = [(len(r.prompt), r.prompt + ids) for r in records for ids in r.completions]
    tokens = np.zeros((len(texts), 12), np.int32)
    own = np.zeros(tokens.shape, bool)
    for row, (start, ids) in enumerate(texts):
        tokens[row, : len(ids)] = ids
        own[row, start : len(ids)] = True

    @jax.jit
    def every(tokens):
        hidden = hidden_states(model.graphdef, model.params, tokens)
        logps = jax.nn.log_softmax(vocabulary_logits(model.graphdef, model.params, hidden))
        return jnp.take_along_axis(logps[:, :-1], tokens[:, 1:, None], axis=2)[..., 0]

    return np.sum(every(tokens), axis=1, where=own[:, 1:]).reshape(len(records), -1)


def compiled(model, **options):
    """Return completion_logps of (params, rows), compiled."""
    return jax.jit(partial(completion_logps, model.graphdef, **options))


@pytest.mark.parametrize("config", [LLAMA, MISTRAL, GPT2], ids=["llama", "mistral", "gpt2"])
def test_shared_rows_give_the_log_probabilities_of_separate_sequences(config):
    model = model_of(config)
    packed = pack_rows(RECORDS, max_length=16)
    found = compiled(model)(model.params, packed.rows)
    np.testing.assert_allclose(found, separate_logps(model, RECORDS), rtol=EXACT)


def test_plain_rows_and_three_completions_agree_with_shared_ones():
    model = model_of(LLAMA)
    records = [r._replace(completions=(*r.completions, (3, 3, 2))) for r in RECORDS]
    shared = pack_rows(records, max_length=16)
    plain = pack_rows(records, max_length=16, shared_prompt=False)
    assert plain.rows.tokens.shape[0] == 9 and shared.rows.tokens.shape[0] == 3
    np.testing.assert_allclose(
        compiled(model, completions=1)(model.params, plain.rows).reshape(3, 3),
        compiled(model, completions=3)(model.params, shared.rows),
        rtol=EXACT,
    )


def test_width_chunks_and_more_padding_change_nothing():
    model = model_of(LLAMA)
    rows = pack_rows(RECORDS, max_length=16).rows
    wider = pack_rows(RECORDS, max_length=16, width=40).rows
    plain = compiled(model)(model.params, rows)
    width = completion_width(rows)
    assert width == 6
    for options in ({"width": width}, {"width": width, "chunk": 4}):
        changed = compiled(model, **options)(model.params, rows)
        np.testing.assert_allclose(changed, plain, rtol=EXACT)
    np.testing.assert_allclose(compiled(model)(model.params, wider), plain, rtol=EXACT)
    assert np.isnan(compiled(model, width=5)(model.params, rows)).tolist() == [
        [True] * 2,
        [False] * 2,
    ] + [[True] * 2]


@pytest.mark.slow
def test_gradients_are_those_of_separate_sequences_and_of_forward_mode():
    model = model_of(LLAMA)
    rows = pack_rows(RECORDS, max_length=16).rows
    plain = pack_rows(RECORDS, max_length=16, shared_prompt=False).rows
    weights = jnp.array([[1.0, -2.0], [0.5, 1.5], [-1.0, 3.0]])

    def shared(params, chunk=None):
        return jnp.vdot(completion_logps(model.graphdef, params, rows, chunk=chunk), weights)

    def separate(params):
        found = completion_logps(model.graphdef, params, plain, completions=1)
        return jnp.vdot(found.reshape(3, 2), weights)

    slopes = jax.jit(jax.grad(shared))(model.params)
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(slopes))
    close = partial(np.testing.assert_allclose, rtol=EXACT, atol=EXACT * scale)
    jax.tree.map(close, slopes, jax.jit(jax.grad(separate))(model.params))
    jax.tree.map(close, slopes, jax.jit(jax.grad(partial(shared, chunk=4)))(model.params))
    along = jax.tree.map(jnp.cos, model.params)
    _, tangent = jax.jit(lambda p, t: jax.jvp(shared, (p,), (t,)))(model.params, along)
    dot = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slopes, along)))
    np.testing.assert_allclose(tangent, dot, rtol=EXACT)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sums_are_float32_whatever_the_model_computes_in(dtype):
    model = model_of(LLAMA, dtype)
    found = compiled(model)(model.params, pack_rows(RECORDS, max_length=16).rows)
    assert found.dtype == jnp.float32
    assert (np.asarray(found) < 0).all()


def test_a_population_is_mapped_over_its_parameters():
    models = [initial_model(decoder_config(LLAMA), jax.random.key(k)) for k in (0, 1)]
    rows = pack_rows(RECORDS, max_length=16).rows
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[m.params for m in models])
    logps = compiled(models[0])
    together = jax.vmap(logps, in_axes=(0, None))(stacked, rows)
    for member, model in enumerate(models):
        np.testing.assert_allclose(together[member], logps(model.params, rows), rtol=2e-5)


def slow_mask(segments, positions, window):
    """Say token by token who sees whom, from the words of the docstring."""
    size = len(segments)
    seen = np.zeros((size, size), bool)
    for query in range(size):
        for key in range(size):
            related = segments[query] == segments[key]
            related |= segments[key] == 1 and segments[query] >= 2
            back = positions[query] - positions[key]
            seen[query, key] = related and 0 <= back < (window or 99)
    return seen


IDS = st.lists(st.integers(0, 18), min_size=1, max_size=5).map(tuple)


@settings(max_examples=30, deadline=None)
@given(
    prompt=IDS,
    completions=st.lists(IDS, min_size=2, max_size=3, unique=True),
    window=st.sampled_from([None, 1, 3]),
    shared=st.booleans(),
)
def test_rows_hold_every_sequence_and_the_mask_separates_them(prompt, completions, window, shared):
    record = Tokens(prompt, tuple(completions))
    rows = pack_rows([record], max_length=10, width=20, shared_prompt=shared).rows
    mask = np.asarray(row_mask(rows.segments, rows.positions, window))
    found = []
    for tokens, positions, segments, seen in zip(*rows, mask, strict=True):
        np.testing.assert_array_equal(seen, slow_mask(segments, positions, window))
        assert seen.any(axis=1).all()  # no query without a key
        assert not seen[segments > 0][:, segments == 0].any()  # padding is never seen
        for segment in range(2, segments.max() + 1):
            own = (segments == 1) | (segments == segment)
            np.testing.assert_array_equal(positions[own], np.arange(own.sum()))
            found.append(tuple(tokens[own].tolist()))
    assert found == [prompt + ids for ids in completions]


def test_lengths_do_not_look_at_the_ids():
    records = [Tokens((0, 0), ((0, 0, 0), (0,)))]  # all padding, if one went by the ids
    rows = pack_rows(records, max_length=8).rows
    np.testing.assert_array_equal(completion_lengths(rows, 2), [[3, 1]])
    assert (rows.segments > 0).sum() == 6


def test_widths_grow_by_at_most_a_half():
    widths = sorted({round_up_width(length) for length in range(1, 5000)})
    assert widths[:6] == [16, 24, 32, 48, 64, 96]
    assert all(b <= 1.5 * a for a, b in zip(widths, widths[1:], strict=False))
    assert all(round_up_width(length) >= length for length in range(1, 5000))


def test_rows_split_by_width_and_go_back_to_their_places():
    records = [Tokens((1,) * n, ((2,), (3, 4))) for n in (3, 60, 5, 20)]
    rows = pack_rows(records, max_length=70).rows
    parts = split_by_width(rows)
    assert [(index.tolist(), part.width) for index, part in parts] == [
        ([0, 2], 16),
        ([3], 24),
        ([1], 64),
    ]
    back = np.zeros_like(rows.tokens)
    for index, part in parts:
        back[index, : part.width] = part.tokens
    np.testing.assert_array_equal(back, rows.tokens)


BAD = [
    (Tokens((1, 5), ((7, 2), ())), "an empty completion"),
    (Tokens((1, 5), ((7, 2), (7, 2))), "equal completions"),
    (Tokens((1,) * 8, ((7, 2), (8, 2))), "the prompt fills the context of 8 tokens"),
    (Tokens((), ((7, 2), (8, 2))), "the prompt has no tokens"),
]


@pytest.mark.parametrize(("record", "reason"), BAD)
def test_records_that_cannot_be_used_are_counted_or_named(record, reason):
    good = RECORDS[0]
    packed = pack_rows([good, record._replace(source="x.jsonl: line 2"), good], max_length=8)
    assert packed.kept.tolist() == [0, 2]
    assert packed.refused[0][:2] == (1, "x.jsonl: line 2")
    assert packed.refused[0].reason.startswith(reason)
    assert list(packed.refusals().values()) == [1]
    with pytest.raises(DataError, match=rf"x.jsonl: line 2: {reason}"):
        pack_rows([good, record._replace(source="x.jsonl: line 2")], max_length=8, too_long="error")


def test_truncation_cuts_completions_never_prompts_and_refuses_what_it_makes_equal():
    long = Tokens((1, 5), ((7, 8, 9, 10, 2), (8, 2)))
    alike = Tokens((1, 5), ((7, 8, 9, 2), (7, 8, 9, 3, 2)))
    full = Tokens((1,) * 5, ((7, 2), (8, 2)))
    packed = pack_rows([long, alike, full], max_length=5, too_long="truncate")
    assert packed.truncated == 1 and packed.kept.tolist() == [0]
    assert [r.reason for r in packed.refused] == [
        "equal completions once truncated",
        "the prompt fills the context of 5 tokens",
    ]
    np.testing.assert_array_equal(packed.rows.tokens[0, :7], [1, 5, 7, 8, 9, 8, 2])
    dropped = pack_rows([long, RECORDS[2]], max_length=6)  # the default
    assert dropped.kept.tolist() == [1] and dropped.refusals() == {"longer than 6 tokens": 1}


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: pack_rows([], max_length=8), DataError, "none were given"),
        (lambda: pack_rows([BAD[1][0]], max_length=8), DataError, "1 x equal completions"),
        (lambda: pack_rows(RECORDS, max_length=1), InputError, "max_length"),
        (lambda: pack_rows(RECORDS, max_length=16, width=8), InputError, "width: .* least 11"),
        (lambda: pack_rows(RECORDS, max_length=16, too_long="dorp"), InputError, "'drop'"),
        (
            lambda: pack_rows([RECORDS[0], Tokens((1,), ((2,), (3,), (4,)))], max_length=16),
            DataError,
            "record 2: expected 2 responses",
        ),
    ],
)
def test_wrong_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_rows_are_plain_arrays():
    rows = pack_rows(RECORDS, max_length=16).rows
    assert isinstance(rows, Rows) and all(field.dtype == np.int32 for field in rows)
    np.testing.assert_array_equal(rows.take(np.array([2])).tokens[0], rows.tokens[2])
