"""Generation: the cache changes nothing, rows do not touch, samples follow the probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

from golden.make_golden import write_checkpoint

from jaxpref import InputError
from jaxpref.llm import generate, hidden_states, load_model, vocabulary_logits
from jaxpref.llm.generate import generate_tokens

PROMPTS = [[1, 5, 9, 12, 30, 7], [3], [8, 8, 2, 19, 4, 33, 2, 25, 11, 6]]
CASES = ["llama3_rope", "mistral_window", "gpt2"]


@pytest.fixture(scope="module", params=CASES)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(request.param, folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_checkpoint("llama3_rope", folder)
    return load_model(folder)


def plain_greedy(model, prompt, count):
    """Return the likeliest continuation, the whole text computed anew for every token."""

    @jax.jit
    def likeliest(row):
        hidden = hidden_states(model.graphdef, model.params, row)
        return jnp.argmax(vocabulary_logits(model.graphdef, model.params, hidden), axis=-1)

    row = np.zeros((1, 32), np.int32)
    row[0, : len(prompt)] = prompt
    for place in range(len(prompt), len(prompt) + count):
        row[0, place] = likeliest(row)[0, place - 1]
    return row[0, len(prompt) : len(prompt) + count].tolist()


def greedy(model, prompts, count, **options):
    options = {"eos_id": [], **options}
    key = jax.random.key(0)
    return generate(model, prompts, key=key, max_new_tokens=count, temperature=0.0, **options)


def test_the_cache_and_unequal_lengths_change_no_token(model):
    expected = [plain_greedy(model, prompt, 10) for prompt in PROMPTS]
    assert greedy(model, PROMPTS, 10) == expected


def test_a_text_ends_with_the_first_end(llama):
    whole = greedy(llama, PROMPTS, 10)[0]
    place = whole.index(whole[4])
    ended = greedy(llama, PROMPTS, 10, eos_id=whole[4])
    assert ended[0] == whole[: place + 1]
    assert greedy(llama, PROMPTS, 3) == [text[:3] for text in greedy(llama, PROMPTS, 10)]


def test_several_ids_may_end_a_text(llama):
    whole = greedy(llama, PROMPTS, 10)
    ended = greedy(llama, PROMPTS, 10, eos_id=[whole[0][0], whole[1][0]])
    assert ended[0] == whole[0][:1] and ended[1] == whole[1][:1]


def test_samples_follow_the_probabilities(llama):
    temperature, count = 1.5, 4096
    key = jax.random.key(3)
    prompts = [PROMPTS[0]] * count
    texts = generate(llama, prompts, key=key, max_new_tokens=1, temperature=temperature, eos_id=[])
    seen = np.bincount([text[0] for text in texts], minlength=llama.config.vocab_size) / count
    hidden = hidden_states(llama.graphdef, llama.params, jnp.asarray([PROMPTS[0]], jnp.int32))
    logits = vocabulary_logits(llama.graphdef, llama.params, hidden[0, -1])
    expected = np.asarray(jax.nn.softmax(logits / temperature))
    error = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(seen - expected) < 5 * error + 1 / count).all()
    assert (seen > 0).sum() > 5


def test_a_row_does_not_depend_on_those_beside_it(llama):
    options = {"key": jax.random.key(4), "max_new_tokens": 8, "eos_id": []}
    alone = generate(llama, PROMPTS[:1], **options)
    together = generate(llama, [PROMPTS[0], [2, 3, 4]] + PROMPTS, **options)
    assert together[0] == alone[0]
    assert together[2] != alone[0]  # the same prompt in another row draws anew
    assert generate(llama, PROMPTS[:1], **options) == alone
    other = generate(llama, PROMPTS[:1], **{**options, "key": jax.random.key(5)})
    assert other != alone


def test_calls_of_about_one_shape_compile_once(llama):
    greedy(llama, PROMPTS[:2], 5)
    before = compiled()
    greedy(llama, [[4, 5, 6], [7] * 9], 7)
    generate(llama, PROMPTS[:2], key=jax.random.key(1), max_new_tokens=6, eos_id=[])
    assert compiled() == before


def compiled() -> int:
    """Return how many shapes have been compiled."""
    return generate_tokens._cache_size()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], []], {}, r"prompts\[1\]: expected at least one token id"),
        ([[1, 41]], {}, r"prompts\[0\]: expected ids in \[0, 41\); got 1 to 41"),
        ([[1] * 60], {}, r"prompts\[0\]: expected at most 64 tokens .* got 60 \+ 5"),
        ([[1]], {"temperature": -1.0}, "temperature: expected a finite number of at least 0"),
        ([[1]], {"temperature": np.inf}, "temperature: expected a finite number"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens: expected a whole number"),
    ],
)
def test_what_cannot_be_continued_is_refused(llama, prompts, options, message):
    options = {"max_new_tokens": 5, **options}
    with pytest.raises(InputError, match=message):
        generate(llama, prompts, key=jax.random.key(0), **options)


def test_no_prompts_give_no_texts(llama):
    assert greedy(llama, [], 4) == []


@pytest.mark.shared_data
def test_stories260k_continues_as_published(shared_data):
    from jaxpref.llm import encode_prompt, load_tokenizer

    folder = shared_data / "stories260K"
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    prompt = encode_prompt(tokenizer, "Once upon a time, there was a little dog")
    (text,) = greedy(model, [prompt], 24)
    whole = tokenizer.decode(prompt + text, skip_special_tokens=True)
    assert whole.startswith(
        "Once upon a time, there was a little dog named Max. Max loved to play with his toys"
    )
