"""Small rewrites: what they are, what the gradient is, and that flips are what they claim."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")
pytest.importorskip("transformers", reason="the extra llm is not installed")

from test_cli_dpo import SHAPE, write_tokenizer

from jaxpref._checks import InputError
from jaxpref.llm import decoder_config, initial_model, load_tokenizer, rewrites
from jaxpref.llm.reward_models import reward_model
from jaxpref.llm.reward_rows import Candidates, encode_candidates
from jaxpref.llm.reward_scoring import score_sequences
from jaxpref.llm.rewrites import (
    embedding_gradient,
    find_flips,
    small_edits,
    word_distance,
)
from jaxpref.rewards import QuadrupleRule

WORDS = "do you like a dog or bird i".split()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Return a tokenizer of nine words."""
    folder = tmp_path_factory.mktemp("words")
    write_tokenizer(folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def model(tokenizer):
    """Return a reward model whose margins are some nats."""
    shape = {**SHAPE, "vocab_size": len(tokenizer), "initializer_range": 0.5}
    plain = initial_model(decoder_config(shape), jax.random.key(0))
    return reward_model(plain, 4 * np.random.default_rng(0).normal(size=16))


def score(model, tokenizer, prompt, text):
    record = Candidates("", ("1",), ((prompt, text),), "")
    (tokens,) = encode_candidates([record], tokenizer, max_length=64).records
    return score_sequences(model, [(*tokens.prompt, *tokens.completions[0])])[0]


def test_edits_are_deletions_of_words_and_sentences():
    assert small_edits(" One. Two three.") == [" Two three.", " One. three.", " One. Two", " One."]
    assert small_edits("one") == []
    # Layout is no word: what is left of it stays.
    assert small_edits("A:\n\n1. b c") == [
        "1. b c",
        "A:\n\nb c",
        "A:\n\n1. c",
        "A:\n\n1. b",
        "b c",
        "A:\n\n1.",
    ]
    assert word_distance("a b c", "a x c d") == 3 and word_distance("", "a b") == 2


def test_distances_are_those_of_the_table_of_all_prefixes():
    def by_table(left, right):
        table = np.add.outer(np.arange(len(left) + 1), np.arange(len(right) + 1))
        for n, m in np.ndindex(len(left), len(right)):
            same = table[n, m] if left[n] == right[m] else table[n, m] + 2
            table[n + 1, m + 1] = min(same, table[n, m + 1] + 1, table[n + 1, m] + 1)
        return table[-1, -1]

    random = np.random.default_rng(0)
    for _ in range(200):
        left, right = (random.choice(list("abc"), random.integers(0, 9)) for _ in range(2))
        assert word_distance(" ".join(left), " ".join(right)) == by_table(left, right)
    long = [str(n) for n in range(20_000)]  # by the table 4e8 steps
    assert word_distance(" ".join(long), " ".join([*long[:70], "more", *long[80:]])) == 11


def test_dialogues_are_put_to_the_model_as_its_chat_template_says(model, tokenizer, monkeypatch):
    dialogue = "\n\nHuman: do you like\n\nAssistant:"
    pair = Candidates("", ("chosen", "rejected"), ((dialogue, "a dog"), (dialogue, "or")), "1")
    template = "{% for m in messages %}{{ m['content'] }} bird {% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    asked = []

    def spy(_, sequences):
        asked.extend(tokenizer.decode(ids, skip_special_tokens=True) for ids in sequences)
        return np.zeros(len(sequences))

    monkeypatch.setattr(rewrites, "score_sequences", spy)
    assert find_flips(model, tokenizer, [pair], as_chat=True).strong == 0
    assert asked == ["do you like bird a dog bird", "do you like bird or bird"]


@pytest.mark.slow
def test_the_gradient_is_the_slope_of_the_score(model):
    ids = [1, 4, 7, 3, 5]
    slope = embedding_gradient(model, ids)
    assert slope.shape == (5, 16)
    # Token 7 stands once: its row of the embedding is its place's.
    step, direction = 1e-2, np.random.default_rng(0).normal(size=16).astype(np.float32)

    def at(size):
        backbone = type(model.params["backbone"])(dict(model.params["backbone"]))
        table = backbone["embedding"][...]
        backbone["embedding"] = backbone["embedding"].replace(table.at[7].add(size * direction))
        return score_sequences(model._replace(params={**model.params, "backbone": backbone}), [ids])

    measured = float(at(step)[0] - at(-step)[0]) / (2 * step)
    assert math.isclose(float(slope[2] @ direction), measured, rel_tol=0.02)


def test_flips_are_found_and_hold_when_scored_again(model, tokenizer):
    random = np.random.default_rng(5)
    pairs = []
    for number in range(24):
        texts = [" ".join(random.choice(WORDS, size=5)) for _ in range(2)]
        pairs.append(
            Candidates(str(number), ("chosen", "rejected"),
                       tuple(("do you like ", text) for text in texts), f"line {number}")
        )  # fmt: skip
    rule = QuadrupleRule(strong=0.95, near=0.9, tolerance=0.05, weak=0.2)
    found = find_flips(model, tokenizer, pairs, rule=rule, most_edits=6, insertions=8)
    assert found.tried == 24 and found.strong >= found.near >= len(found.flips) > 0
    for flip in found.flips:
        assert flip.p_ik >= 0.95 and 0.85 < flip.p_i_prime_k < 0.95 and flip.p_kj <= 0.2
        assert flip.p_i_prime_j < 0.5 < flip.p_ij
        for made, start in ((flip.i_prime, flip.i), (flip.j, flip.k)):
            assert 0 < made.edits == word_distance(start.text, made.text) <= 6
            assert abs(score(model, tokenizer, "do you like ", made.text) - made.score) < 1e-4
        assert "text" not in flip.to_dict()["j"]


def test_what_is_no_pair_is_refused(model, tokenizer):
    record = Candidates("", ("1",), (("do", "you"),), "line 9")
    with pytest.raises(InputError, match="line 9: expected a pair; got 1 responses"):
        find_flips(model, tokenizer, [record])
