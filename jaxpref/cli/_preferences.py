"""Preference files on the command line: how they are read, and how they become rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from ._runs import DATA, as_flag, option

if TYPE_CHECKING:
    from ..llm.rows import EncodedRows


@dataclass(frozen=True)
class PreferenceFiles:
    """Where a user's preferences are, and which of them are used."""

    data: Annotated[
        Path | None,
        option(
            DATA,
            "File or folder of JSONL or JSON (also .gz): prompt, chosen, rejected as TRL has them, "
            "hh-rlhf's dialogues, or LLMBar's.",
            show_default=False,
            metavar="PATH",
        ),
    ] = None
    max_length: Annotated[
        int | None,
        option(DATA, "Longest prompt with its answer, in tokens.", show_default="the context"),
    ] = None
    too_long: Annotated[
        str, option(DATA, "What becomes of longer ones.", metavar="drop|truncate|error")
    ] = "drop"
    unusable: Annotated[
        str | None,
        option(
            DATA,
            "What becomes of records with an empty answer or two equal ones.",
            metavar="drop|error",
            show_default="drop for hh-rlhf, else error",
        ),
    ] = None


class ReadPreferences(NamedTuple):
    """Records, and how many were left out for which reason."""

    name: str
    records: list[Any]
    dropped: dict[str, int]

    def left_out(self, encoded: EncodedRows) -> dict[str, int]:
        """Return how many were left out in all, those that gave no row too."""
        found = {**self.dropped}
        for reason, count in encoded.refusals().items():
            found[reason] = found.get(reason, 0) + count
        return found


def read_files(files: PreferenceFiles) -> ReadPreferences:
    """Return the preference records of a file or folder as text."""
    from ..llm.preferences import read_preferences

    assert files.data is not None
    found = read_preferences(files.data, unusable=files.unusable)
    return ReadPreferences(str(files.data), list(found.records), found.drops())


def encode(
    read: ReadPreferences, files: PreferenceFiles, tokenizer: Any, context: int
) -> EncodedRows:
    """Return the records as rows of tokens; messages name the flag."""
    from .._checks import InputError
    from ..llm.rows import encode_rows

    if files.max_length is not None and files.max_length > context:
        raise InputError(
            f"--max-length: expected at most the model's context, {context}; got {files.max_length}"
        )
    try:
        return encode_rows(
            read.records,
            tokenizer,
            max_length=context if files.max_length is None else files.max_length,
            too_long=files.too_long,
        )
    except InputError as error:
        message = as_flag(str(error), ("max_length", "too_long"))
        raise type(error)(message) from None
