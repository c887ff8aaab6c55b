"""Text to token ids: exactly one beginning of sequence, one end to each completion.

Prompt and completion are tokenised apart and their ids joined: what the model is trained to
continue is then what it is asked to continue. Lengths, not ids, say what is padding: many
tokenizers pad with their end-of-text token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._checks import InputError
from ._folders import is_folder
from .config import DecoderConfig

Message = Mapping[str, Any]
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def load_tokenizer(directory: str | Path, *, config: DecoderConfig | None = None) -> Any:
    """Read the tokenizer of a Hugging Face folder, by transformers.

    Parameters
    ----------
    directory : path
        Folder with ``tokenizer.json`` (or what else transformers reads).
    config : DecoderConfig, optional
        The model it is for: every id must have its row in the embedding.

    Returns
    -------
    transformers.PreTrainedTokenizerBase

    Raises
    ------
    InputError
        If there is no tokenizer, or its vocabulary is larger than the embedding.
    """
    from transformers import AutoTokenizer

    directory = Path(directory)
    if not is_folder(directory):
        raise InputError(f"{directory}: expected a folder with a tokenizer; there is none")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:  # transformers raises whatever its parsers raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not any((directory / name).is_file() for name in _VOCABULARIES):
            first = f"there is none of {', '.join(_VOCABULARIES)}"
        raise InputError(f"{directory}: expected a tokenizer of transformers; {first}") from None
    if config is not None:
        check_vocabulary(tokenizer, config, source=str(directory))
    return tokenizer


def check_vocabulary(tokenizer: Any, config: DecoderConfig, *, source: str = "tokenizer") -> None:
    """Require a row of the embedding for every id of the tokenizer.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        The tokenizer.
    config : DecoderConfig
        The model's shape.
    source : str
        What to call the tokenizer in the message.

    Raises
    ------
    InputError
        If an id is `config.vocab_size` or more. A larger embedding is fine: many are padded.
    """
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= config.vocab_size:
        raise InputError(
            f"{source}: expected ids below {config.vocab_size}, the rows of the model's "
            f"embedding; the tokenizer gives {token!r} the id {highest}"
        )


def encode_prompt(
    tokenizer: Any, prompt: str | Sequence[Message], *, add_bos: bool | None = None
) -> list[int]:
    """Return the ids of a prompt, with exactly one beginning-of-sequence token.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        From ``load_tokenizer``.
    prompt : str or sequence of messages
        Text, or a conversation ``[{"role": ..., "content": ...}, ...]``, which the tokenizer's
        chat template renders up to the assistant's turn.
    add_bos : bool, optional
        Whether there shall be such a token; by default as the tokenizer itself does it (Llama
        and Mistral do, GPT-2 does not). Text that begins with it already, because a template
        wrote it, gets no second one.

    Returns
    -------
    list of int

    Raises
    ------
    InputError
        If a conversation meets a tokenizer without chat template, or one that its template
        refuses, or `add_bos` one that has no such token.
    """
    text = prompt if isinstance(prompt, str) else _render(tokenizer, prompt)
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    bos = tokenizer.bos_token_id
    if add_bos and bos is None:
        raise InputError("add_bos: the tokenizer has no beginning-of-sequence token")
    if bos is None or not (adds_bos(tokenizer) if add_bos is None else add_bos):
        return ids
    while ids[:1] == [bos]:
        del ids[0]
    return [bos, *ids]


def adds_bos(tokenizer: Any) -> bool:
    """Return whether the tokenizer puts a beginning-of-sequence token before plain text.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        The tokenizer.

    Returns
    -------
    bool
    """
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer.encode("a")[:1] == [bos]


def _render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Return a conversation as text, up to where the assistant answers."""
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "prompt: expected text; got a conversation, and the tokenizer has no chat template"
        )
    try:
        return tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # templates raise errors of their own
        raise InputError(f"prompt: the chat template refuses the conversation: {error}") from None


def encode_completion(tokenizer: Any, completion: str | Sequence[Message]) -> list[int]:
    """Return the ids of a completion, its end-of-text token included.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        From ``load_tokenizer``.
    completion : str or sequence of messages
        Text, or the one message that answers; only its content is encoded, behind the prompt's
        own template.

    Returns
    -------
    list of int
        The text's ids and one end-of-text id; no beginning-of-sequence token. Empty for an empty
        text: ending at once is no answer, and the rows refuse it.

    Raises
    ------
    InputError
        If the tokenizer has no end-of-text token, or there is not one message.
    """
    if tokenizer.eos_token_id is None:
        raise InputError("tokenizer: expected an end-of-sequence token, which ends a completion")
    if not isinstance(completion, str):
        completion = _content(completion)
    ids = list(tokenizer.encode(completion, add_special_tokens=False))
    eos, bos = tokenizer.eos_token_id, tokenizer.bos_token_id
    while bos != eos and ids[:1] == [bos]:
        del ids[0]
    while ids[-1:] == [eos]:
        del ids[-1]
    return [*ids, eos] if ids else []


def _content(messages: Sequence[Message]) -> str:
    if len(messages) != 1 or not isinstance(messages[0].get("content"), str):
        raise InputError(
            f"completion: expected text, or one message with content; got {len(messages)} messages"
        )
    return messages[0]["content"]


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of generated ids, without special tokens and outer blanks.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        From ``load_tokenizer``.
    ids : sequence of int
        From ``generate``.

    Returns
    -------
    str
    """
    return tokenizer.decode(list(ids), skip_special_tokens=True).strip()
