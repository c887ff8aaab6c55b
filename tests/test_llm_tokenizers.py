"""Tokenizers: one beginning, one end, prompt and completion apart; and what is refused."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("transformers", reason="the extra llm is not installed")

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from jaxpref import InputError
from jaxpref.llm import (
    decode,
    decoder_config,
    encode_completion,
    encode_prompt,
    load_tokenizer,
)
from jaxpref.llm.tokenizers import adds_bos, check_vocabulary

WORDS = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", " ", "do", "you", "like", "cats", "dogs", "?"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('roles are user and assistant') }}{% endif %}"
    "[INST]{{ m.content }}[/INST]{% endfor %}"
)
CHAT = [{"role": "user", "content": "do you like cats?"}]


def write_tokenizer(folder, *, bos=True, **settings):
    """Write a tokenizer of a dozen words, Llama's way (a BOS in front) or not."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s|\w+|\?"), "isolated")
    made.add_special_tokens(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    if bos:
        made.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    made.save(str(folder / "tokenizer.json"))
    keys = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    keys |= {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(keys))
    return load_tokenizer(folder)


@pytest.fixture
def llama(tmp_path):
    return write_tokenizer(tmp_path, chat_template=TEMPLATE)


def test_plain_and_templated_text_get_exactly_one_beginning(llama):
    plain = encode_prompt(llama, "do you like cats?")
    assert plain == [1, 6, 5, 7, 5, 8, 5, 9, 11]
    assert encode_prompt(llama, "<s>do you like cats?") == plain
    assert encode_prompt(llama, "<s><s>do you like cats?") == plain
    assert encode_prompt(llama, CHAT) == [1, 3, *plain[1:], 4]


def test_a_tokenizer_that_writes_no_beginning_gets_one_only_when_asked(tmp_path):
    tokenizer = write_tokenizer(tmp_path, bos=False)
    assert not adds_bos(tokenizer)
    assert encode_prompt(tokenizer, "cats?") == [9, 11]
    assert encode_prompt(tokenizer, "cats?", add_bos=True) == [1, 9, 11]
    assert encode_prompt(tokenizer, "<s>cats?", add_bos=True) == [1, 9, 11]
    assert encode_prompt(tokenizer, "<s>cats?") == [1, 9, 11]


def test_a_beginning_can_be_left_out(llama):
    assert encode_prompt(llama, "cats?", add_bos=False) == [9, 11]


def test_a_completion_has_one_end_and_no_beginning(llama):
    assert encode_completion(llama, "dogs") == [10, 2]
    assert encode_completion(llama, "<s>dogs</s>") == [10, 2]
    assert encode_completion(llama, [{"role": "assistant", "content": "dogs"}]) == [10, 2]
    assert encode_completion(llama, "") == []


def test_prompt_and_completion_join_by_their_ids(llama):
    joined = encode_prompt(llama, "do you like cats?") + encode_completion(llama, " dogs")
    assert joined == [1, 6, 5, 7, 5, 8, 5, 9, 11, 5, 10, 2]
    assert decode(llama, encode_completion(llama, " dogs")) == "dogs"


def test_the_same_token_may_begin_and_end(tmp_path):
    tokenizer = write_tokenizer(tmp_path, bos=False, bos_token="</s>")
    assert encode_prompt(tokenizer, "cats?", add_bos=True) == [2, 9, 11]
    assert encode_completion(tokenizer, "cats?") == [9, 11, 2]


def test_a_conversation_needs_a_template_that_takes_it(llama, tmp_path):
    with pytest.raises(InputError, match="roles are user and assistant"):
        encode_prompt(llama, [{"role": "robot", "content": "do"}])
    (tmp_path / "bare").mkdir()
    bare = write_tokenizer(tmp_path / "bare")
    with pytest.raises(InputError, match="no chat template"):
        encode_prompt(bare, CHAT)
    with pytest.raises(InputError, match="one message with content; got 2 messages"):
        encode_completion(llama, CHAT * 2)


def test_tokens_that_are_not_there_are_missed(tmp_path):
    tokenizer = write_tokenizer(tmp_path, bos=False, bos_token=None, eos_token=None)
    with pytest.raises(InputError, match="expected an end-of-sequence token"):
        encode_completion(tokenizer, "cats")
    with pytest.raises(InputError, match="add_bos: the tokenizer has no"):
        encode_prompt(tokenizer, "cats", add_bos=True)


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path):
    write_tokenizer(tmp_path)
    small = decoder_config({"model_type": "llama", "vocab_size": 11})
    with pytest.raises(InputError, match=rf"{tmp_path}: expected ids below 11, .* '\?' the id 11"):
        load_tokenizer(tmp_path, config=small)
    padded = decoder_config({"model_type": "llama", "vocab_size": 64})
    assert load_tokenizer(tmp_path, config=padded).eos_token_id == 2


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a folder with a tokenizer"):
        load_tokenizer(tmp_path / "none")
    with pytest.raises(InputError, match=r"expected a tokenizer of transformers; there is none of"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="expected a tokenizer of transformers"):
        load_tokenizer(tmp_path)


@pytest.mark.shared_data
def test_stories260k_encodes_with_one_beginning(shared_data):
    folder = shared_data / "stories260K"
    tokenizer = load_tokenizer(folder, config=decoder_config(folder))
    ids = encode_prompt(tokenizer, "Once upon a time")
    assert ids.count(1) == 1 and ids[0] == 1
    assert encode_prompt(tokenizer, "<s>Once upon a time").count(1) == 1
    completion = encode_completion(tokenizer, "I prefer cats.")
    assert 1 not in completion and completion[-1] == 2 and completion.count(2) == 1
    assert decode(tokenizer, completion) == "I prefer cats."


@pytest.mark.shared_data
def test_a_published_chat_template_starts_each_conversation_once(shared_data):
    tokenizer = load_tokenizer(shared_data / "tokenizers" / "minimind")
    begin = tokenizer.bos_token_id
    ids = encode_prompt(tokenizer, [{"role": "user", "content": "Do you prefer a cat?"}])
    assert ids[0] == begin and ids[1] != begin
    assert ids == encode_prompt(tokenizer, tokenizer.decode(ids))
    assert encode_completion(tokenizer, "A cat.")[-1] == tokenizer.eos_token_id
    with pytest.raises(InputError, match="expected ids below 512"):
        check_vocabulary(tokenizer, decoder_config(shared_data / "stories260K"))


@pytest.mark.shared_data
def test_gpt2_begins_and_ends_with_one_token(shared_data, tmp_path):
    from transformers import GPT2Tokenizer

    folder = shared_data / "tokenizers" / "gpt2"
    (tmp_path / "vocab.json").write_bytes((folder / "encoder.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((folder / "vocab.bpe").read_bytes())
    GPT2Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "whole")
    tokenizer = load_tokenizer(tmp_path / "whole", config=decoder_config({"model_type": "gpt2"}))
    assert encode_prompt(tokenizer, "Hello world") == [15496, 995]
    assert encode_prompt(tokenizer, "Hello world", add_bos=True) == [50256, 15496, 995]
    assert encode_completion(tokenizer, " world") == [995, 50256]
