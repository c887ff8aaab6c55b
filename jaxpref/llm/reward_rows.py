r"""What a reward model reads: prompts with their responses, as files hold them and as tokens.

Files are those of :mod:`jaxpref.llm.preferences`, and rows of one prompt and one response. Unlike
training, scoring keeps records that say nothing, such as two equal responses: they have scores too.

A prompt and its response are tokenised as one text, the way transformers would. Sequences that are
longer than the context lose tokens from the left: all responses of a record the same number, so
that each is judged behind the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._checks import DataError, InputError, check_count
from ._json_rows import json_rows, preference_files
from .deberta import DebertaConfig
from .preferences import ASSISTANT, HUMAN, Prompt, _get, _kind, _messages, _text
from .rows import Tokens
from .tokenizers import adds_bos

_NAMES = ("response_id", "model", "id")
_PROMPTS = ("prompt_id", "question_id")
_RESPONSES = ("response", "completion", "answer", "output")


class Candidates(NamedTuple):
    """The responses to one prompt that stand in one row of a file.

    Parameters
    ----------
    prompt_id : str
        The file's own name for the prompt, or where its first row stands.
    names : tuple of str
        ``chosen`` and ``rejected``; 1, 2, ... for a ranking; the file's own name, or the row.
    texts : tuple of (prompt, str)
        Prompt (text or messages) and response of each.
    source : str
        Where the row stands, for messages.
    """

    prompt_id: str
    names: tuple[str, ...]
    texts: tuple[tuple[Prompt, str], ...]
    source: str

    @property
    def paired(self) -> bool:
        """Whether the row says which of two responses was chosen."""
        return self.names == ("chosen", "rejected")


def read_candidates(path: str | Path) -> list[Candidates]:
    """Read the responses to be scored from a file, or from all files of a folder.

    Parameters
    ----------
    path : path
        JSONL or JSON, also .gz: ``prompt`` with ``chosen`` and ``rejected``, or ``responses``, or
        one ``response`` a row; whole dialogues in ``chosen`` and ``rejected``; LLMBar's rows.

    Returns
    -------
    list of Candidates
        In the order of the rows.

    Raises
    ------
    InputError, DataError
        As :func:`jaxpref.llm.preferences.read_preferences`, with the row; an empty response too.

    Examples
    --------
    >>> import json, tempfile
    >>> file = Path(tempfile.mkdtemp()) / "rows.jsonl"
    >>> _ = file.write_text(json.dumps({"prompt": "2 + 2?", "response": "4", "model": "a"}))
    >>> read_candidates(file)[0].names
    ('a',)
    """
    found, known = [], {}
    files = preference_files(path)
    for file in files:
        for source, row in json_rows(file):
            if not isinstance(row, dict):
                raise DataError(f"{source}: expected a JSON object; got {_kind(row)}")
            line = source.rpartition(": ")[2]
            place = line if len(files) == 1 else f"{file.name}: {line}"
            found.append(_candidates(row, source, place, known))
    if not found:
        raise DataError(f"{path}: expected at least one record; there is none")
    return found


def _candidates(row: dict[str, Any], source: str, place: str, known: dict[str, str]) -> Candidates:
    """Return one row's responses; `known` holds the name of each prompt seen."""
    names, texts = _responses(row, source, place)
    for name, (_, text) in zip(names, texts, strict=True):
        if not text.strip() and "prompt" in row:  # in a dialogue, as in hh-rlhf, it is a text too
            raise DataError(f"{source}: {name}: expected a response; it is empty")
    given = next((row[key] for key in _PROMPTS if row.get(key) is not None), None)
    if given is None:
        given = known.setdefault(str(texts[0][0]), place) if len(names) == 1 else place
    return Candidates(str(given), names, texts, source)


def _responses(
    row: dict[str, Any], source: str, place: str
) -> tuple[tuple[str, ...], tuple[tuple[Prompt, str], ...]]:
    if "output_1" in row and "output_2" in row:
        label = _get(row, "label", source)
        if isinstance(label, bool) or label not in (1, 2):
            raise DataError(f"{source}: label: expected 1 or 2; got {label!r}")
        order = ("output_1", "output_2") if label == 1 else ("output_2", "output_1")
        prompt = _text(row, "input", source)
        return _PAIR, tuple((prompt, _text(row, key, source)) for key in order)
    if "chosen" in row or "rejected" in row:
        return _PAIR, tuple(_one(row, key, source) for key in _PAIR)
    if "responses" in row:
        values = row["responses"]
        if not isinstance(values, list) or not values:
            raise DataError(f"{source}: responses: expected a list of responses; got {values!r}")
        each = [{**row, f"responses[{n}]": value} for n, value in enumerate(values)]
        texts = (_one(one, f"responses[{n}]", source) for n, one in enumerate(each))
        return tuple(str(n + 1) for n in range(len(values))), tuple(texts)
    key = next((key for key in _RESPONSES if key in row), "response")
    name = next((row[key] for key in _NAMES if row.get(key) is not None), None)
    return (str(place if name is None else name),), (_one(row, key, source),)


_PAIR = ("chosen", "rejected")


def _one(row: dict[str, Any], key: str, source: str) -> tuple[Prompt, str]:
    """Return prompt and response of one key."""
    value = _get(row, key, source)
    if "prompt" not in row and isinstance(value, str):
        before, mark, answer = value.rpartition(ASSISTANT)
        if not mark:
            raise DataError(
                f"{source}: {key}: expected a prompt beside it, or a dialogue with {ASSISTANT!r}"
            )
        return before + mark, answer
    if isinstance(value, list):
        messages = _messages(value, key, source)
        before = _messages(row["prompt"], "prompt", source) if "prompt" in row else ()
        whole = (*before, *messages)
        if len(whole) < 2 or whole[-1]["role"] != "assistant":
            raise DataError(f"{source}: {key}: expected a conversation ending with the assistant")
        return whole[:-1], whole[-1]["content"]
    text = _text(row, key, source)
    prompt = _get(row, "prompt", source)
    if isinstance(prompt, str):
        return prompt, text
    return _messages(prompt, "prompt", source), text


def as_conversation(prompt: Prompt) -> tuple[dict[str, str], ...]:
    r"""Return a prompt as messages: dialogues at their marks, other text as the user's.

    >>> as_conversation("\n\nHuman: Tea?\n\nAssistant: Yes.\n\nHuman: Now?\n\nAssistant:")[1:]
    ({'role': 'assistant', 'content': 'Yes.'}, {'role': 'user', 'content': 'Now?'})
    """
    if not isinstance(prompt, str):
        return prompt
    if HUMAN not in prompt:
        return ({"role": "user", "content": prompt},)
    messages = []
    for turn in prompt.split(HUMAN)[1:]:
        for place, text in enumerate(turn.split(ASSISTANT)):
            if text.strip():
                role = "assistant" if place else "user"
                messages.append({"role": role, "content": text.strip()})
    return tuple(messages)


# Tokens ---------------------------------------------------------------------------------------


class EncodedCandidates(NamedTuple):
    """Records as tokens: what their sequences share first, and the rest of each.

    Parameters
    ----------
    records : list of Tokens
        Prompt and completions of each record, in order; joined, the sequences to be scored.
    truncated : int
        Records that lost tokens from the left.
    """

    records: list[Tokens]
    truncated: int


def encode_candidates(
    candidates: Iterable[Candidates],
    tokenizer: Any,
    *,
    max_length: int,
    config: Any = None,
    as_chat: bool = False,
) -> EncodedCandidates:
    """Tokenise records, cut from the left to `max_length` tokens a sequence.

    Parameters
    ----------
    candidates : iterable of Candidates
    tokenizer : transformers tokenizer
    max_length : int
        Longest sequence.
    config : DecoderConfig or DebertaConfig, optional
        The model's; DeBERTa reads ``[CLS] prompt [SEP] response [SEP]``.
    as_chat : bool
        Render text prompts with the tokenizer's chat template too; conversations always are.

    Returns
    -------
    EncodedCandidates

    Raises
    ------
    InputError
        For a conversation without chat template, with the row.
    """
    max_length = check_count("max_length", max_length, at_least=4)
    candidates = list(candidates)
    if isinstance(config, DebertaConfig):
        found = _encode_pairs(candidates, tokenizer, max_length)
    else:
        found = _encode_texts(candidates, tokenizer, max_length, as_chat)
    return EncodedCandidates([record for record, _ in found], sum(cut for _, cut in found))


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of many texts at once, which the fast tokenizers do in parallel."""
    if not texts:
        return []
    return list(tokenizer(list(texts), add_special_tokens=False)["input_ids"])


def _encode_texts(
    candidates: list[Candidates], tokenizer: Any, max_length: int, as_chat: bool
) -> list[tuple[Tokens, bool]]:
    """Return records whose sequences are texts, and whether each was cut."""
    texts = [_as_text(record, tokenizer, as_chat) for record in candidates]
    encoded = iter(_ids(tokenizer, [text for group in texts for text in group]))
    bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
    found = []
    for record, group in zip(candidates, texts, strict=True):
        sequences = [_after(next(encoded), bos) for _ in group]
        if not all(sequences):
            raise DataError(f"{record.source}: expected at least one token; a text has none")
        found.append(_cut(sequences, bos, max_length, record.source))
    return found


def _as_text(record: Candidates, tokenizer: Any, as_chat: bool) -> list[str]:
    try:
        return [
            prompt + response
            if isinstance(prompt, str) and not as_chat
            else _render(tokenizer, as_conversation(prompt), response)
            for prompt, response in record.texts
        ]
    except InputError as error:
        raise type(error)(f"{record.source}: {error}") from None


def _after(ids: list[int], bos: list[int]) -> list[int]:
    """Return the ids behind a beginning-of-sequence token that a template wrote."""
    start = 0
    while bos and ids[start : start + 1] == bos:
        start += 1
    return ids[start:]


def _cut(
    sequences: list[list[int]], bos: list[int], max_length: int, source: str
) -> tuple[Tokens, bool]:
    """Return what sequences share and the rest of each, cut from the left."""
    room = max_length - len(bos)
    shared = shared_length(sequences)
    over = max(map(len, sequences)) - room
    if over > shared:  # a response alone is longer than the context
        prompt, rests = [], [ids[shared:][-room:] for ids in sequences]
    else:
        prompt = sequences[0][max(over, 0) : shared]
        rests = [ids[shared:] for ids in sequences]
    return Tokens((*bos, *prompt), tuple(map(tuple, rests)), source), over > 0


def shared_length(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all sequences begin with, each keeping at least one of its own.

    >>> shared_length([[1, 2, 3], [1, 2, 4]]), shared_length([[1, 2], [1, 2, 3]])
    (2, 1)
    """
    most = min(map(len, sequences)) - 1
    first = sequences[0]
    for place in range(most):
        if any(ids[place] != first[place] for ids in sequences):
            return place
    return most


def _render(tokenizer: Any, messages: Sequence[dict[str, str]], response: str) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "prompt: expected text; got a conversation, and the tokenizer has no chat template"
        )
    whole = [*map(dict, messages), {"role": "assistant", "content": response}]
    try:
        return tokenizer.apply_chat_template(whole, tokenize=False, add_generation_prompt=False)
    except Exception as error:  # templates raise errors of their own
        raise InputError(f"prompt: the chat template refuses the conversation: {error}") from None


def _encode_pairs(
    candidates: list[Candidates], tokenizer: Any, max_length: int
) -> list[tuple[Tokens, bool]]:
    """Return records whose sequences are [CLS] prompt [SEP] response [SEP]."""
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    if start is None or end is None:
        raise InputError("tokenizer: expected the tokens [CLS] and [SEP]; it has none")
    both = [text for record in candidates for pair in record.texts for text in _plain(pair)]
    encoded = iter(_ids(tokenizer, both))
    found = []
    for record in candidates:
        sequences, cut = [], False
        for _ in record.texts:
            before, after = next(encoded), next(encoded)
            room = max(max_length - 3 - len(after), 0)
            cut = cut or len(before) > room
            before = before[max(len(before) - room, 0) :]
            sequences.append((start, *before, end, *after[-(max_length - 3) :], end))
        shared = shared_length(sequences)
        rests = tuple(ids[shared:] for ids in sequences)
        found.append((Tokens(sequences[0][:shared], rests, record.source), cut))
    return found


def _plain(pair: tuple[Prompt, str]) -> tuple[str, str]:
    """Return prompt and response as text."""
    prompt, response = pair
    if isinstance(prompt, str):
        return prompt, response
    return "\n".join(message["content"] for message in prompt), response
