"""A tiny model that reads the paper's animal data: its tokenizer knows every word of them."""

from __future__ import annotations

import json
from pathlib import Path

import jax

from jaxpref.llm.animals import support_records
from jaxpref.llm.checkpoints import save_model
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import initial_model

SHAPE = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 96,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
TEMPLATE = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"


def write_tokenizer(folder: Path, *, chat: bool = False) -> int:
    """Write a tokenizer of whole words, made here; return its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    split = pre_tokenizers.Whitespace()
    texts = {text for r in support_records(nouns="article") for text in (r.prompt, *r.responses)}
    texts |= {"Do you prefer"}
    words = {word for text in texts for word, _ in split.pre_tokenize_str(str(text))}
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    } | ({"chat_template": TEMPLATE} if chat else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary)


def write_model(folder: Path, *, chat: bool = False, seed: int = 0) -> Path:
    """Write a random checkpoint with that tokenizer; return its folder."""
    words = folder.with_name(f"{folder.name}-words")
    size = write_tokenizer(words, chat=chat)
    config = decoder_config({**SHAPE, "vocab_size": size})
    return save_model(initial_model(config, jax.random.key(seed)), folder, tokenizer_from=words)
