r"""Preference data for language models: a prompt and its responses, best first.

Files hold one record a line (JSONL) or a JSON list of records, plain or gzipped, in one of three
layouts, told apart by their keys:

``trl``
    ``prompt``, ``chosen``, ``rejected`` as strings, or as conversations (lists of messages with
    ``role`` and ``content``), the layout of the TRL library; ``responses``, best first, in place of
    the last two for rankings. Conversations may leave ``prompt`` out where ``chosen`` and
    ``rejected`` begin with the same messages.
``hh``
    ``chosen`` and ``rejected`` as whole dialogues, as in Anthropic's hh-rlhf: the prompt is all up
    to the last ``"\n\nAssistant:"``.
``llmbar``
    ``input``, ``output_1``, ``output_2`` and ``label`` (1 or 2), as in LLMBar.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxpref._checks import DataError, check_option

from ._json_rows import json_rows, preference_files

FORMATS = ("trl", "hh", "llmbar")
UNUSABLE = ("drop", "error")
ASSISTANT, HUMAN = "\n\nAssistant:", "\n\nHuman:"

Prompt = str | tuple[dict[str, str], ...]


class Preference(NamedTuple):
    """A prompt and what was answered, best first.

    Parameters
    ----------
    prompt : str or tuple of {"role": str, "content": str}
        Text, or the messages so far of a conversation.
    responses : tuple of str, length K >= 2
        The answers, best first; in a conversation, the content of the assistant's next message.
    source : str
        Where the record came from, for messages: ``"pairs.jsonl: line 3"``.

    Examples
    --------
    >>> record = Preference("Tea or milk?", ("Tea.", "Milk."))
    >>> record.chosen, record.rejected
    ('Tea.', 'Milk.')
    """

    prompt: Prompt
    responses: tuple[str, ...]
    source: str = ""

    @property
    def chosen(self) -> str:
        """The best response."""
        return self.responses[0]

    @property
    def rejected(self) -> str:
        """The worst response."""
        return self.responses[-1]


def as_message(text: str) -> Prompt:
    """Return text as a conversation of one message, the user's.

    >>> as_message("Tea or milk?")
    ({'role': 'user', 'content': 'Tea or milk?'},)
    """
    return ({"role": "user", "content": text},)


class DroppedRecord(NamedTuple):
    """A record that was left out: where it stands, and why."""

    source: str
    reason: str


class PreferenceSet(NamedTuple):
    """The records of a source, and those left out.

    Parameters
    ----------
    records : tuple of Preference
        In the order of the files (by name) and their lines.
    dropped : tuple of DroppedRecord
        Records that say nothing, each with its place and reason.
    """

    records: tuple[Preference, ...]
    dropped: tuple[DroppedRecord, ...] = ()

    def drops(self) -> dict[str, int]:
        """Return how many records were left out for each reason."""
        return dict(Counter(record.reason for record in self.dropped))


def read_preferences(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    unusable: str | None = None,
) -> PreferenceSet:
    r"""Read preference records from a file, or from all files of a directory.

    Parameters
    ----------
    path : path
        A file whose name ends in .jsonl or .json, also with .gz; or a directory of such files, read
        in the order of their names.
    format : {"trl", "hh", "llmbar"}, optional
        The layout of the records; told from the keys of each file's first record when left out.
    unusable : {"drop", "error"}, optional
        What becomes of a well-formed record that says nothing: an empty response, equal responses,
        an hh pair whose dialogues differ before the last answer or end with the human. Left out
        and counted, or refused by an error. By default "drop" for hh and "error" for the others:
        hh-rlhf's own files hold such records (36 equal pairs among 8,552), a user's should not.

    Returns
    -------
    PreferenceSet
        The records, and the ones dropped.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be read.
    DataError
        For the first record that lacks a key, is of another type, or (with "error") says nothing:
        file, line and key. If no record is left. For a file that is damaged, or not UTF-8.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "pairs.jsonl"
    >>> _ = file.write_text(json.dumps({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}))
    >>> read_preferences(file).records[0].responses
    ('4', '5')
    """
    _check_options(format, unusable)
    records, dropped = [], []
    for file in preference_files(path):
        for record in _read_file(file, format, unusable):
            (dropped if isinstance(record, DroppedRecord) else records).append(record)
    if not records:
        reasons = "; ".join(
            f"{count} x {reason}"
            for reason, count in PreferenceSet((), tuple(dropped)).drops().items()
        )
        raise DataError(f"{path}: no record can be used ({reasons or 'there are none'})")
    return PreferenceSet(tuple(records), tuple(dropped))


def preferences_from_rows(
    rows: Iterable[dict[str, Any]],
    *,
    format: str | None = None,
    unusable: str | None = None,
    name: str = "rows",
) -> PreferenceSet:
    """Build records from dictionaries in memory, such as the rows of a data set object.

    Parameters and errors as :func:`read_preferences`, but that there may be no record left; `name`
    stands in for the file's in messages, and rows count from 1.

    Examples
    --------
    >>> pairs = [{"prompt": "Hi", "chosen": "Hello!", "rejected": "Hello!"}] * 2 + [
    ...     {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go."}]
    >>> found = preferences_from_rows(pairs, unusable="drop")
    >>> len(found.records), found.drops()
    (1, {'equal responses': 2})
    """
    _check_options(format, unusable)
    numbered = ((f"{name}: row {number}", row) for number, row in enumerate(rows, start=1))
    found = list(_parse(numbered, format, unusable))
    return PreferenceSet(
        tuple(record for record in found if isinstance(record, Preference)),
        tuple(record for record in found if isinstance(record, DroppedRecord)),
    )


def _check_options(format: str | None, unusable: str | None) -> None:
    if format is not None:
        check_option("format", format, FORMATS)
    if unusable is not None:
        check_option("unusable", unusable, UNUSABLE)


def _read_file(
    file: Path, format: str | None, unusable: str | None
) -> Iterator[Preference | DroppedRecord]:
    yield from _parse(json_rows(file), format, unusable)


def _parse(
    rows: Iterable[tuple[str, Any]], format: str | None, unusable: str | None
) -> Iterator[Preference | DroppedRecord]:
    """Turn (place, JSON value) into records and drops."""
    for source, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{source}: expected a JSON object; got {_kind(row)}")
        format = _layout(row, source) if format is None else format
        prompt, responses = "", ()
        try:
            prompt, responses = _READERS[format](row, source)
            reason = _says_nothing(responses)
        except _UnusableError as problem:
            reason = str(problem)
        if not reason:
            yield Preference(prompt, responses, source)
        elif (unusable or ("drop" if format == "hh" else "error")) == "drop":
            yield DroppedRecord(source, reason)
        else:
            raise DataError(f"{source}: {reason}")


class _UnusableError(Exception):
    """A well-formed record that says nothing."""


def _says_nothing(responses: Sequence[str]) -> str:
    """Return why responses cannot be learnt from, "" where they can."""
    if not all(response.strip() for response in responses):
        return "an empty response"
    if len(set(responses)) < len(responses):
        return "equal responses"
    return ""


def _layout(row: dict[str, Any], source: str) -> str:
    """Tell the layout of a file from the keys of its first record."""
    if "output_1" in row and "output_2" in row:
        return "llmbar"
    chosen = row.get("chosen")
    if "prompt" not in row and isinstance(chosen, str) and ASSISTANT in chosen:
        return "hh"
    if "prompt" in row or "responses" in row or isinstance(chosen, list):
        return "trl"
    raise DataError(
        f"{source}: cannot tell the layout; expected the keys prompt, chosen and rejected (or "
        f"prompt and responses), whole dialogues in chosen and rejected, or input, output_1, "
        f"output_2 and label; got {', '.join(map(repr, row)) or 'no keys'}"
    )


def _get(row: dict[str, Any], key: str, source: str) -> Any:
    if key not in row:
        found = ", ".join(map(repr, row)) or "none"
        raise DataError(f"{source}: expected the key {key!r}; got {found}")
    return row[key]


def _text(row: dict[str, Any], key: str, source: str) -> str:
    value = _get(row, key, source)
    if not isinstance(value, str):
        raise DataError(f"{source}: {key}: expected a string; got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


def _read_trl(row: dict[str, Any], source: str) -> tuple[Prompt, tuple[str, ...]]:
    """Read prompt and responses, as strings or as conversations."""
    answers = _answers(row, source)
    if "prompt" not in row and all(isinstance(value, list) for _, value in answers):
        return _shared_beginning(answers, source)
    prompt = _get(row, "prompt", source)
    if isinstance(prompt, str):
        return prompt, tuple(_text({key: value}, key, source) for key, value in answers)
    messages = _messages(prompt, "prompt", source)
    if not messages:
        raise DataError(f"{source}: prompt: expected at least one message; got none")
    return messages, tuple(_one_message(value, key, source) for key, value in answers)


def _answers(row: dict[str, Any], source: str) -> list[tuple[str, Any]]:
    """Return (key, value) of each answer, best first."""
    if "responses" not in row:
        return [(key, _get(row, key, source)) for key in ("chosen", "rejected")]
    values = row["responses"]
    if not isinstance(values, list) or len(values) < 2:
        got = f"{len(values)} of them" if isinstance(values, list) else _kind(values)
        raise DataError(f"{source}: responses: expected a list of two or more; got {got}")
    return [(f"responses[{place}]", value) for place, value in enumerate(values)]


def _messages(value: Any, key: str, source: str) -> tuple[dict[str, str], ...]:
    """Return messages with their role and content, checked."""
    if not isinstance(value, list):
        raise DataError(
            f"{source}: {key}: expected a string or a list of messages; got {_kind(value)}"
        )
    for place, message in enumerate(value):
        parts = message if isinstance(message, dict) else {}
        if not all(isinstance(parts.get(name), str) for name in ("role", "content")):
            raise DataError(
                f"{source}: {key}[{place}]: expected a message with the strings role and content; "
                f"got {_kind(message)}"
            )
    return tuple({name: message[name] for name in ("role", "content")} for message in value)


def _one_message(value: Any, key: str, source: str) -> str:
    """Return the content of an answer's only message, which is the assistant's."""
    if isinstance(value, str):
        raise DataError(f"{source}: {key}: expected messages, as in the prompt; got a string")
    messages = _messages(value, key, source)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in messages) or "none"
        raise DataError(f"{source}: {key}: expected one message, the assistant's; got {roles}")
    return messages[0]["content"]


def _shared_beginning(
    answers: list[tuple[str, Any]], source: str
) -> tuple[Prompt, tuple[str, ...]]:
    """Split whole conversations into what they share and the last message of each."""
    whole = [_messages(value, key, source) for key, value in answers]
    prompts = {tuple((m["role"], m["content"]) for m in messages[:-1]) for messages in whole}
    if len(prompts) != 1 or not whole[0][:-1]:
        raise _UnusableError("conversations that differ before the last message")
    contents = [
        _one_message([dict(m) for m in messages[-1:]], key, source)
        for (key, _), messages in zip(answers, whole, strict=True)
    ]
    return whole[0][:-1], tuple(contents)


def _read_hh(row: dict[str, Any], source: str) -> tuple[Prompt, tuple[str, ...]]:
    """Split two dialogues at the last answer of the assistant."""
    parts = []
    for key in ("chosen", "rejected"):
        dialogue = _text(row, key, source)
        before, mark, answer = dialogue.rpartition(ASSISTANT)
        if not mark:
            raise DataError(f"{source}: {key}: expected a dialogue with {ASSISTANT!r}; found none")
        if HUMAN in answer:
            raise _UnusableError("a dialogue that ends with the human")
        parts.append((before + mark, answer))
    if parts[0][0] != parts[1][0]:
        raise _UnusableError("dialogues that differ before the last answer")
    return parts[0][0], (parts[0][1], parts[1][1])


def _read_llmbar(row: dict[str, Any], source: str) -> tuple[Prompt, tuple[str, ...]]:
    """Order two outputs by the label."""
    outputs = (_text(row, "output_1", source), _text(row, "output_2", source))
    label = _get(row, "label", source)
    if isinstance(label, bool) or label not in (1, 2):
        raise DataError(f"{source}: label: expected 1 or 2; got {label!r}")
    return _text(row, "input", source), outputs if label == 1 else outputs[::-1]


_READERS = {"trl": _read_trl, "hh": _read_hh, "llmbar": _read_llmbar}
