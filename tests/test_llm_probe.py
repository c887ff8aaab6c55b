"""Probes: every template is parsed, and the exact probe adds up what separate sequences say."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import EXACT, FINITE_DIFF

from jaxpref import InputError
from jaxpref.llm import probe as probes
from jaxpref.llm.animals import ANIMALS, NOUNS, ORDERED_PAIRS, fill, templates
from jaxpref.llm.answers import preferred
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import hidden_states, initial_model, vocabulary_logits
from jaxpref.llm.preferences import Preference
from jaxpref.llm.rows import encode_rows


@pytest.mark.parametrize("nouns", NOUNS)
@pytest.mark.parametrize("place", range(30))
def test_every_answer_is_parsed_for_every_ordered_pair_and_direction(nouns, place):
    answer = templates().answers[place]
    for winner, loser in ORDERED_PAIRS:
        names = ANIMALS[winner], ANIMALS[loser]
        text = fill(answer, *names, nouns=nouns)
        for spelled in (text, text.upper(), f" {text[0].upper()}{text[1:]}\n"):
            assert preferred(spelled, *names) == names[0], spelled
            assert preferred(spelled, *names[::-1]) == names[0], spelled


CLEAR = [
    ("dog", "dog"),
    ("A cat.", "cat"),
    ("Dogs!", "dog"),
    ("I prefer dog to cat", "dog"),
    ("Rather than a cat, I would choose a dog.", "dog"),
    ("Compared to dogs, cats are better.", "cat"),
    ("Between dog and cat, cat comes out on top for me.", "cat"),
    ("When weighing cat against dog, I find dog more appealing.", "dog"),
    ("I\u2019d go with the cat over the dog. I like cats.", "cat"),
    ("Good question. I prefer dogs.", "dog"),
]
UNCLEAR = [
    "",
    "Hmm.",
    "I have a dog.",
    "dog or cat",
    "Do you prefer dog or cat?",
    "I like both dogs and cats.",
    "I prefer dog over cat. I prefer cat over dog.",
    "I prefer dog over dog.",
    "I prefer bird over dog.",
    "I prefer bird.",
    "I don't prefer dogs.",
    "Neither dog nor cat.",
    "dogs are less fun than cats",
    "I'd take anything over cat.",
    "I prefer hotdogs.",
    "I prefer dogs, but cats are better.",
]


@pytest.mark.parametrize(("text", "winner"), CLEAR)
def test_clear_answers_are_read(text, winner):
    assert preferred(text, "dog", "cat") == preferred(text, "cat", "dog") == winner


@pytest.mark.parametrize("text", UNCLEAR)
def test_unclear_answers_are_not_guessed(text):
    assert preferred(text, "dog", "cat") is None


def test_the_two_options_must_differ():
    with pytest.raises(InputError, match="second"):
        preferred("dog", "dog", "dog")


class WordTokenizer:
    """Words and marks as tokens: just what the functions under test use of a tokenizer."""

    bos_token_id, eos_token_id = 1, 2
    chat_template = None

    def __init__(self):
        texts = [*templates().answers, *templates().questions, templates().probe, *ANIMALS, "a"]
        words = sorted({word for text in texts for word in self.split(text)} - {"A", "B"})
        self.words = ["<pad>", "<s>", "</s>", *words]
        self.ids = {word: number for number, word in enumerate(self.words)}

    def split(self, text):
        return re.findall(r"[\w']+|[^\w\s<>]", text)

    def encode(self, text, add_special_tokens=True):
        ids = [self.ids[word] for word in self.split(text) if word in self.ids]
        return [1, *ids] if add_special_tokens else ids

    def decode(self, ids, skip_special_tokens=True):
        text = " ".join(self.words[number] for number in ids if number > 2)
        return re.sub(r" (?=[.,?!:])", "", text)


TOKENIZER = WordTokenizer()


@pytest.fixture(scope="module")
def model():
    config = decoder_config(
        {
            "model_type": "llama",
            "vocab_size": len(TOKENIZER.words),
            "hidden_size": 8,
            "intermediate_size": 12,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 96,
            "initializer_range": 0.5,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
    )
    return initial_model(config, jax.random.key(0), dtype="float64")


@pytest.fixture(scope="module")
def probed(model):
    return probes.exact_probe(model, TOKENIZER)


def log_probabilities(model, prompt, completions):
    """Return those of completions by the plain causal pass, one sequence a row."""
    tokens = np.zeros((len(completions), 48), np.int32)
    own = np.zeros(tokens.shape, bool)
    for row, ids in enumerate(completions):
        tokens[row, : len(prompt) + len(ids)] = prompt + ids
        own[row, len(prompt) : len(prompt) + len(ids)] = True

    @jax.jit
    def every(tokens):
        hidden = hidden_states(model.graphdef, model.params, tokens)
        logps = jax.nn.log_softmax(vocabulary_logits(model.graphdef, model.params, hidden))
        return jnp.take_along_axis(logps[:, :-1], tokens[:, 1:, None], axis=2)[..., 0]

    return np.sum(every(tokens), axis=1, where=own[:, 1:])


def test_the_exact_probe_sums_separate_sequences(model, probed):
    found = probed
    assert found.log_mass.shape == (6, 2)
    pair, question = ORDERED_PAIRS.index((2, 0)), "Do you prefer a bird or a dog?"
    prompt = [1, *TOKENIZER.encode(question, add_special_tokens=False)]
    mass = np.zeros(2)
    for side, (winner, loser) in enumerate([("bird", "dog"), ("dog", "bird")]):
        texts = [fill(answer, winner, loser) for answer in templates().answers]
        ids = [[*TOKENIZER.encode(text, add_special_tokens=False), 2] for text in texts]
        mass[side] = np.exp(log_probabilities(model, prompt, ids)).sum()
    np.testing.assert_allclose(np.exp(found.log_mass[pair]), mass, rtol=1e-10)
    np.testing.assert_allclose(found.format_mass[pair], mass.sum(), rtol=1e-10)


def test_options_of_the_exact_probe_change_its_cost_not_its_numbers(model, probed):
    twice = [templates().probe] * 2
    many = probes.exact_probe(model, TOKENIZER, questions=twice, answers_per_row=10)
    for found in (many, probes.exact_probe(model, TOKENIZER, batch=7)):
        np.testing.assert_allclose(found.log_mass, probed.log_mass, rtol=EXACT)


def test_probabilities_compose_both_directions():
    logps = np.log(np.random.default_rng(0).uniform(0.001, 0.01, (1, 6, 60)))
    found = probes.exact_probe_of_logps(logps)
    mass = np.exp(logps).reshape(6, 30, 2).sum(1)
    straight, turned = ORDERED_PAIRS.index((0, 2)), ORDERED_PAIRS.index((2, 0))
    wins, losses = mass[straight, 0] + mass[turned, 1], mass[straight, 1] + mass[turned, 0]
    np.testing.assert_allclose(found.probability("dog", "bird"), wins / (wins + losses), rtol=EXACT)
    np.testing.assert_allclose(found.margin("dog", "bird"), -found.margin("bird", "dog"), rtol=1e-9)
    np.testing.assert_allclose(
        found.by_direction("dog", "bird"),
        [mass[straight, 0] / mass[straight].sum(), mass[turned, 1] / mass[turned].sum()],
        rtol=EXACT,
    )
    np.testing.assert_allclose(found.format_mass, mass.sum(1), rtol=EXACT)
    far = probes.exact_probe_of_logps(logps - 5000.0)  # no underflow of the ratio
    np.testing.assert_allclose(
        far.probability("dog", "bird"), found.probability("dog", "bird"), rtol=1e-9
    )


def test_the_exact_probe_is_differentiable_forwards(model):
    rows = probes.probe_rows(TOKENIZER, answers_per_row=30)
    along = jax.tree.map(jnp.cos, model.params)

    @jax.jit
    def margin(step):
        params = jax.tree.map(lambda leaf, change: leaf + step * change, model.params, along)
        found = probes.exact_probe_of_rows(model.graphdef, params, rows)
        return found.margin("dog", "cat")

    _, slope = jax.jvp(margin, (0.0,), (1.0,))
    h = 1e-5
    np.testing.assert_allclose(slope, (margin(h) - margin(-h)) / (2 * h), rtol=FINITE_DIFF)


def test_answers_are_counted_by_question(monkeypatch, model):
    asked = []

    def scripted(model, prompts, *, key, max_new_tokens, temperature, eos_id):
        asked.extend(TOKENIZER.decode(prompt) for prompt in prompts)
        assert eos_id == [2] and temperature == 1.0
        texts = ["I just prefer a dog.", "dog", "bird.", "I prefer a cat over a dog."]
        return [TOKENIZER.encode(texts[len(asked) % 4], add_special_tokens=False) for _ in prompts]

    monkeypatch.setattr(import_module("jaxpref.llm.generate"), "generate", scripted)
    found = probes.sampled_probe(model, TOKENIZER, key=jax.random.key(0), samples=8, batch=1)
    assert asked == [text for text in probes.probe_questions() for _ in range(8)]
    # Two of four answers say dog alone, one bird alone, one cat over dog.
    by_pair = {pair: row.tolist() for pair, row in zip(ORDERED_PAIRS, found.counts, strict=True)}
    assert by_pair[0, 1] == [4, 2, 2] and by_pair[1, 0] == [2, 4, 2]
    assert by_pair[0, 2] == [4, 2, 2] and by_pair[1, 2] == [0, 2, 6]
    assert found.in_format.tolist() == [4, 2, 4, 0, 2, 0]
    assert found.wins("dog", "cat") == (8, 4) and found.wins("cat", "dog") == (4, 8)
    assert found.probability("dog", "cat") == 8 / 12
    np.testing.assert_allclose(found.unparsable, [0.25, 0.25, 0.25, 0.75, 0.25, 0.75])


def test_a_model_is_really_sampled(model):
    ask = partial(probes.sampled_probe, model, TOKENIZER, samples=5, max_new_tokens=6)
    first, again = ask(key=jax.random.key(1)), ask(key=jax.random.key(1))
    assert first.counts.sum(axis=1).tolist() == [5] * 6
    np.testing.assert_array_equal(first.counts, again.counts)
    assert first.counts[:, 2].sum() > 15  # random weights rarely say anything


def test_standard_errors_are_never_nothing():
    sure = probes.count_answers([["dog"] * 200] + [["cat"] * 200] * 5)
    assert sure.probability("dog", "cat") == 0.5
    agreed = probes.count_answers([["dog"] * 100] * 6)
    assert agreed.probability("dog", "cat") == 1.0
    assert 0 < agreed.standard_error("dog", "cat") < 0.01
    silent = probes.count_answers([["hm"]] * 6)
    assert np.isnan(silent.probability("dog", "cat"))
    assert np.isnan(silent.standard_error("dog", "cat"))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: probes.probe_rows(TOKENIZER, answers_per_row=7), "a divisor of 60"),
        (lambda: probes.probe_rows(TOKENIZER, questions=[]), "at least one"),
        (lambda: probes.exact_probe_of_logps(np.zeros((6, 60))), r"shape \(Q, 6, 60\)"),
        (lambda: probes.count_answers([["dog"]]), "6 questions"),
        (lambda: probes.exact_probe_of_logps(np.zeros((1, 6, 60))).margin("dog", "cow"), "'cow'"),
        (lambda: probes.exact_probe_of_logps(np.zeros((1, 6, 60))).margin("dog", "dog"), "twice"),
    ],
)
def test_wrong_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_answers_beyond_the_context_are_refused(model):
    short = model._replace(config=replace(model.config, max_position_embeddings=12))
    with pytest.raises(InputError, match=r"context of at least \d+ tokens.*; got 12"):
        probes.exact_probe(short, TOKENIZER)


def test_records_are_encoded_with_one_start_and_an_end_to_each_answer():
    records = [
        Preference("Do you prefer dog or cat?", ("I just prefer dog.", "I just prefer cat."), "a"),
        Preference("Do you prefer dog or cat?", ("I just prefer dog.", ""), "b"),
    ]
    encoded = encode_rows(records, TOKENIZER, max_length=32)
    tokens, segments = encoded.rows.tokens[0], encoded.rows.segments[0]
    assert (tokens == 1).sum() == 1 and tokens[0] == 1
    assert all(tokens[segments == segment][-1] == 2 for segment in (2, 3))
    assert (tokens[segments > 0] == 2).sum() == 2
    assert encoded.refused == ((1, "b", "an empty completion"),)


@pytest.mark.shared_data
def test_the_real_tokenizer_keeps_the_7200_sequences_apart(shared_data):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(shared_data / "stories260K"))
    rows = probes.probe_rows(tokenizer, nouns="article").rows
    assert (rows.tokens[:, 0] == tokenizer.bos_token_id).all()
    assert (rows.tokens == tokenizer.bos_token_id).sum() == rows.tokens.shape[0]
    for row in range(rows.tokens.shape[0]):
        answers = [
            tuple(rows.tokens[row][rows.segments[row] == segment]) for segment in range(2, 8)
        ]
        assert len(set(answers)) == 6 and all(ids[-1] == tokenizer.eos_token_id for ids in answers)
