"""Reward models: parity with transformers, shared rows, what is written, what is refused."""

from __future__ import annotations

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

from golden.make_reward_golden import (
    CASES,
    LENGTHS,
    PAD,
    tokens,
    torch_model,
    torch_scores,
    write_checkpoint,
)

from jaxpref import InputError
from jaxpref.llm import decoder_config, initial_model, load_model, save_model
from jaxpref.llm.deberta import deberta_config, relative_buckets
from jaxpref.llm.losses import dpo_loss
from jaxpref.llm.reward_losses import bradley_terry_loss, plackett_luce_loss
from jaxpref.llm.reward_models import (
    last_token,
    load_reward_model,
    reward_model,
    row_scores,
    save_reward_model,
    sequence_scores,
)
from jaxpref.llm.rows import Tokens, pack_rows

PARITY = 2e-5  # float32 scores of size 1, two orders of summation
F32 = 5e-6
SMALL = {
    "model_type": "llama",
    "vocab_size": 13,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
}


@partial(jax.jit, static_argnames=("config", "graphdef"))
def compiled(config, graphdef, params, rows, lengths):
    return sequence_scores(config, graphdef, params, rows, lengths)


def scores(model, rows, lengths=LENGTHS):
    given = jnp.asarray(rows), jnp.asarray(lengths, jnp.int32)
    return np.asarray(compiled(model.config, model.graphdef, model.params, *given))


def load(case, folder):
    return load_reward_model(folder, reward_token=0 if CASES[case].get("causal") else None)


@pytest.fixture(scope="module")
def plain():
    """Return a small language model."""
    return initial_model(decoder_config(SMALL), jax.random.key(0))


@pytest.fixture(scope="module")
def small(plain):
    """Return a small reward model with a random head."""
    return reward_model(plain, np.random.default_rng(0).normal(size=8))


@pytest.mark.parametrize("case", CASES)
def test_scores_equal_those_kept_from_transformers(case, tmp_path):
    expected = write_checkpoint(case, tmp_path)
    model = load(case, tmp_path)
    ours = scores(model, tokens())
    assert ours.dtype == np.float32
    assert np.abs(ours - expected).max() < PARITY
    # What stands in the padding plays no part.
    rows = tokens()
    rows[1, LENGTHS[1] :] = 40
    assert np.abs(scores(model, rows) - ours).max() < F32


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mistral", "nemotron", "deberta"])
def test_scores_equal_those_of_transformers_live(case, tmp_path):
    pytest.importorskip("torch", reason="torch is a reference for tests only")
    theirs = torch_model(CASES[case], seed=100)
    theirs.save_pretrained(tmp_path)
    rows = tokens(8)
    ours = scores(load_reward_model(tmp_path), rows)
    assert np.abs(ours - torch_scores(theirs, rows)).max() < PARITY


@pytest.mark.slow
def test_parity_would_notice_other_buckets_and_another_share(tmp_path):
    for case, old, new in (
        ("deberta", '"position_buckets": 8', '"position_buckets": 8, "max_relative_positions": 30'),
        ("nemotron", '"partial_rotary_factor": 0.5', '"partial_rotary_factor": 1.0'),
    ):
        folder = tmp_path / case
        folder.mkdir()
        expected = write_checkpoint(case, folder)
        text = (folder / "config.json").read_text()
        text = text.replace('"max_relative_positions": -1,', "")
        assert old in text
        (folder / "config.json").write_text(text.replace(old, new))
        assert np.abs(scores(load_reward_model(folder), tokens()) - expected).max() > 50 * PARITY


def test_buckets_are_linear_near_logarithmic_far_and_antisymmetric():
    buckets = relative_buckets(300, buckets=32, furthest=256)
    assert np.array_equal(buckets, -buckets.T)
    assert buckets[16, :17].tolist() == list(range(16, -1, -1))
    far = buckets[:256, 0]
    assert (np.diff(far) >= 0).all() and far[255] == 31
    assert np.array_equal(relative_buckets(4, buckets=0, furthest=9)[3], [3, 2, 1, 0])


def test_completions_of_a_shared_row_score_as_alone(small):
    records = [Tokens((1, 5, 3), ((7, 2), (8, 9, 2), (4,))), Tokens((1,), ((3,), (6, 6), (2, 9)))]
    rows = pack_rows(records, max_length=16).rows
    ours = row_scores(small.graphdef, small.params, rows, completions=3)
    for row, record in enumerate(records):
        for place, completion in enumerate(record.completions):
            ids = np.zeros((1, 12), np.int32)
            sequence = (*record.prompt, *completion)
            ids[0, : len(sequence)] = sequence
            alone = scores(small, ids, [len(sequence)])
            assert abs(ours[row, place] - alone[0]) < F32


def test_bfloat16_is_near_and_its_scores_are_float32(small, tmp_path):
    save_reward_model(small, tmp_path / "model")
    rough = load_reward_model(tmp_path / "model", dtype="bfloat16")
    rows = np.arange(1, 13, dtype=np.int32)[None]
    ours, exact = scores(rough, rows, [12]), scores(small, rows, [12])
    assert ours.dtype == np.float32
    assert 0 < abs(ours - exact)[0] < 0.1


def test_what_is_written_is_read_again_by_us_and_by_transformers(small, tmp_path):
    save_reward_model(small._replace(pad_token_id=PAD), tmp_path / "model")
    again = load_reward_model(tmp_path / "model")
    assert again.config == small.config and again.pad_token_id == PAD
    rows = np.arange(1, 13, dtype=np.int32)[None]
    assert np.array_equal(scores(again, rows, [12]), scores(small, rows, [12]))
    pytest.importorskip("torch", reason="torch is a reference for tests only")
    from transformers import AutoModelForSequenceClassification

    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert theirs.config.num_labels == 1
    assert np.abs(torch_scores(theirs, rows) - scores(small, rows, [12])).max() < PARITY


def test_a_fresh_head_prefers_nothing(plain):
    model = reward_model(plain)
    assert (scores(model, np.ones((1, 12), np.int32), [12]) == 0).all()


def test_trailing_padding_does_not_count_as_the_last_token():
    assert [last_token(ids, 2) for ids in ([5, 2, 7], [5, 2, 2], [2])] == [3, 1, 1]


def refuse(folder, message, **options):
    with pytest.raises(InputError, match=message):
        load_reward_model(folder, **options)


def test_heads_that_are_no_reward_are_refused(plain, tmp_path):
    import safetensors.numpy as st

    for case, name in (("llama", "score.weight"), ("deberta", "classifier.weight")):
        folder = tmp_path / case
        folder.mkdir()
        write_checkpoint(case, folder)
        refuse(folder, "reward_token: expected none", reward_token=0)
        weights = st.load_file(folder / "model.safetensors")
        weights[name] = np.repeat(weights[name], 3, axis=0)
        st.save_file(weights, folder / "model.safetensors")
        refuse(folder, f"{name}: expected one label, the reward; got 3$")
        keys = json.loads((folder / "config.json").read_text())
        keys["id2label"] = {"0": "bad", "1": "so so", "2": "good"}
        (folder / "config.json").write_text(json.dumps(keys))
        refuse(folder, "got 3: bad, so so, good")
    save_model(plain, tmp_path / "plain")
    refuse(tmp_path / "plain", r"expected a head for rewards \(score.weight\); there is none")
    refuse(tmp_path / "plain", r"expected an id in \[0, 13\); got 13", reward_token=13)
    with pytest.raises(InputError, match=r"score: expected shape \(8,\); got \(3,\)"):
        reward_model(load_model(tmp_path / "plain"), np.ones(3))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"share_att_key": False}, "share_att_key: expected True; got False"),
        ({"position_biased_input": True}, "position_biased_input: expected False; got True"),
        ({"pos_att_type": ["c2p"]}, r"pos_att_type: expected c2p and p2c; got \['c2p'\]"),
        ({"conv_kernel_size": 3}, "conv_kernel_size: expected 0; got 3"),
        ({"embedding_size": 12}, "embedding_size: expected hidden_size, 24; got 12"),
        ({"num_attention_heads": 5}, "num_attention_heads: expected a divisor"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected a whole number"),
    ],
)
def test_what_deberta_does_not_compute_is_refused_by_name(changed, message):
    with pytest.raises(InputError, match=message):
        deberta_config({**CASES["deberta"], **changed})


def test_the_published_deberta_is_understood():
    published = {
        "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 4096,
        "layer_norm_eps": 1e-07, "max_position_embeddings": 512, "max_relative_positions": -1,
        "model_type": "deberta-v2", "norm_rel_ebd": "layer_norm", "num_attention_heads": 16,
        "num_hidden_layers": 24, "pad_token_id": 0, "pooler_dropout": 0,
        "pooler_hidden_act": "gelu", "pooler_hidden_size": 1024, "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False, "position_buckets": 256, "relative_attention": True,
        "share_att_key": True, "type_vocab_size": 0, "vocab_size": 128100,
    }  # fmt: skip
    config = deberta_config(published)
    assert (config.span, config.max_relative_positions) == (256, 512)


def test_losses_agree_with_dpo_with_each_other_and_with_the_ranking_of_three():
    scores = np.random.default_rng(2).normal(0, 2, (5, 2))
    ours = bradley_terry_loss(scores, temperature=0.5, label_smoothing=0.1)
    theirs = dpo_loss(scores, np.zeros((5, 2)), beta=2.0, label_smoothing=0.1)
    assert np.abs(ours - theirs).max() < 1e-12
    plain = bradley_terry_loss(scores, temperature=3.0)
    assert np.abs(plackett_luce_loss(scores, temperature=3.0) - plain).max() < 1e-12
    a, b, c = np.exp([1.0, 0.5, -2.0])
    ranked = plackett_luce_loss([1.0, 0.5, -2.0])
    assert abs(ranked + np.log(a / (a + b + c) * b / (b + c))) < 1e-12


def test_a_margin_beyond_the_cap_pulls_no_more_and_a_wrong_one_always():
    slope = jax.grad(lambda s: jnp.sum(bradley_terry_loss(s, margin_cap=1.0)))
    found = np.asarray(slope(jnp.array([[3.0, 0.0], [0.5, 0.0], [-300.0, 0.0]])))
    assert (found[0] == 0).all() and (found[1:, 0] < 0).all() and np.isfinite(found).all()
    with pytest.raises(InputError, match=r"expected shape \(..., 2\)"):
        bradley_terry_loss(np.zeros(3))
    with pytest.raises(InputError, match="K >= 2"):
        plackett_luce_loss(np.zeros(1))
