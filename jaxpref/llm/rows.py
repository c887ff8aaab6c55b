"""Tokenised rows: a prompt and its completions as arrays of one shape.

A shared row holds ``prompt | best | next best | ...`` once: every completion attends to the prompt
and to itself, and its positions start again where the prompt ends, so that its log-probabilities
are those of the sequence ``prompt | completion`` alone. A plain row holds one completion. What is
prompt, completion or padding is written into `segments` from the lengths, never read from the ids:
the padding token is often the one that ends a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxpref._checks import DataError, InputError, check_count, check_option

PADDING, PROMPT, FIRST_COMPLETION = 0, 1, 2
TOO_LONG = ("drop", "error", "truncate")
_SMALLEST_WIDTH = 16


class Rows(NamedTuple):
    """Rows of tokens of one width T, as NumPy arrays on the host or JAX arrays under jit.

    Parameters
    ----------
    tokens : int32, shape (R, T)
        Token ids; 0 in the padding.
    positions : int32, shape (R, T)
        Place of each token in its own sequence ``prompt | completion``; 0 in the padding.
    segments : int32, shape (R, T)
        0 is padding, 1 the prompt, 2 and up its completions, best first.
    """

    tokens: Any
    positions: Any
    segments: Any

    @property
    def width(self) -> int:
        """Tokens per row, padding included."""
        return self.tokens.shape[-1]

    def take(self, index: Any) -> Rows:
        """Return the rows at `index`."""
        return Rows(*(field[index] for field in self))


class RefusedRow(NamedTuple):
    """A record that gives no row: its index among the records, where it came from, and why."""

    row: int
    source: str
    reason: str


class EncodedRows(NamedTuple):
    """The rows of a set of records, and what became of the rest.

    Parameters
    ----------
    rows : Rows
        Shared: one row a record. Plain: K rows a record, best first, record after record.
    kept : ndarray of int64, shape (N,)
        Index of each kept record among those given.
    refused : tuple of RefusedRow
        The records left out, each with its reason.
    completions : int
        K, the completions of a record.
    shared_prompt : bool
        Whether the completions of a record lie in one row.
    truncated : int
        Records one of whose completions was cut at the end.
    """

    rows: Rows
    kept: np.ndarray
    refused: tuple[RefusedRow, ...]
    completions: int
    shared_prompt: bool
    truncated: int

    def refusals(self) -> dict[str, int]:
        """Return how many records were left out for each reason."""
        return dict(Counter(refusal.reason for refusal in self.refused))


class Tokens(NamedTuple):
    """One record as token ids: its prompt, and its completions best first.

    >>> Tokens((1, 5), ((7, 2), (8, 2)), "pairs.jsonl: row 3").source
    'pairs.jsonl: row 3'
    """

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    source: str = ""


def encode_rows(
    records: Iterable[Any],
    tokenizer: Any,
    *,
    max_length: int,
    shared_prompt: bool = True,
    too_long: str = "drop",
    width: int | None = None,
) -> EncodedRows:
    """Tokenise preference records into rows of one width.

    Prompt and completion are tokenised apart and their ids joined; the prompt carries the one
    beginning-of-sequence token, each completion the one that ends it.

    Parameters
    ----------
    records : iterable of Preference
        Records with `prompt`, `responses` (best first) and `source`.
    tokenizer : transformers tokenizer
        As :func:`jaxpref.llm.load_tokenizer` returns it.
    max_length : int
        Longest sequence ``prompt | completion`` in tokens: the context of the model, or less.
    shared_prompt : bool
        One row per record with the prompt written once, or one row per completion.
    too_long : {"drop", "error", "truncate"}
        What becomes of a record with a longer sequence: left out and counted, refused by an
        error, or its completions cut at the end. A prompt is never cut: one that fills
        `max_length` leaves its record out under "truncate" too.
    width : int, optional
        Tokens per row; by default the least of the widths 16, 24, 32, 48, 64, 96, ... that holds
        every row, so that a second data set of about the same lengths compiles nothing new.

    Returns
    -------
    EncodedRows
        NumPy rows, which records they are of, and the records refused.

    Raises
    ------
    DataError
        If no record is left, records differ in their number of responses, or, with "error", for
        the first record that is too long. For the first conversation that the tokenizer has no
        chat template for, or that its template refuses. The message names the record's `source`.
    InputError
        If an option cannot be used.

    Notes
    -----
    A record whose responses become the same ids, or no ids, is refused with its reason whatever
    `too_long` says: it has nothing to learn from.
    """
    from .tokenizers import encode_completion, encode_prompt

    prompt_ids: dict[Any, tuple[int, ...]] = {}
    response_ids: dict[str, tuple[int, ...]] = {}
    encoded = []
    for row, record in enumerate(records):
        key = (type(record.prompt), str(record.prompt))
        if key not in prompt_ids:
            try:
                prompt_ids[key] = tuple(encode_prompt(tokenizer, record.prompt))
            except InputError as error:
                raise DataError(f"{_place(row, record.source)}: {error}") from None
        for text in record.responses:
            if text not in response_ids:
                response_ids[text] = tuple(encode_completion(tokenizer, text))
        answers = tuple(response_ids[text] for text in record.responses)
        encoded.append(Tokens(prompt_ids[key], answers, record.source))
    return pack_rows(
        encoded,
        max_length=max_length,
        shared_prompt=shared_prompt,
        too_long=too_long,
        width=width,
    )


def pack_rows(
    records: Sequence[Tokens],
    *,
    max_length: int,
    shared_prompt: bool = True,
    too_long: str = "drop",
    width: int | None = None,
) -> EncodedRows:
    """Pack token ids into rows of one width; parameters and errors as :func:`encode_rows`.

    Examples
    --------
    >>> packed = pack_rows([Tokens((1, 5), ((7, 2), (8, 9, 2)))], max_length=16, width=8)
    >>> packed.rows.tokens[0]
    array([1, 5, 7, 2, 8, 9, 2, 0], dtype=int32)
    >>> packed.rows.positions[0]
    array([0, 1, 2, 3, 2, 3, 4, 0], dtype=int32)
    >>> packed.rows.segments[0]
    array([1, 1, 2, 2, 3, 3, 3, 0], dtype=int32)
    """
    max_length = check_count("max_length", max_length, at_least=2)
    check_option("too_long", too_long, TOO_LONG)
    kept, refused, fitted, truncated = [], [], [], 0
    for row, record in enumerate(records):
        cut, reason = _fit(record, max_length, truncate=too_long == "truncate")
        if reason and too_long == "error":
            raise DataError(f"{_place(row, record.source)}: {reason}")
        if reason:
            refused.append(RefusedRow(row, record.source, reason))
            continue
        kept.append(row)
        fitted.append(cut)
        truncated += cut != record
    completions = _one_count(records, kept, refused)
    rows = _lay_out(fitted, shared_prompt, width)
    return EncodedRows(
        rows, np.asarray(kept, np.int64), tuple(refused), completions, shared_prompt, truncated
    )


def _place(row: int, source: str) -> str:
    return source or f"record {row + 1}"


def _fit(record: Tokens, max_length: int, *, truncate: bool) -> tuple[Tokens, str]:
    """Return the record cut to `max_length`, and why it cannot be used ("" if it can)."""
    room = max_length - len(record.prompt)
    completions = record.completions
    if not record.prompt:
        return record, "the prompt has no tokens: nothing to predict the first token from"
    if len(completions) == 0 or not all(completions):
        return record, "an empty completion"
    if room < 1:
        return record, f"the prompt fills the context of {max_length} tokens"
    if max(map(len, completions)) > room:
        if not truncate:
            return record, f"longer than {max_length} tokens"
        completions = tuple(ids[:room] for ids in completions)
    if len(set(completions)) < len(completions):
        same = len(set(record.completions)) < len(record.completions)
        return record, "equal completions" if same else "equal completions once truncated"
    return record._replace(completions=completions), ""


def _one_count(records: Sequence[Tokens], kept: list[int], refused: list[RefusedRow]) -> int:
    """Return the number of completions that all kept records have."""
    if not kept:
        reasons = Counter(refusal.reason for refusal in refused)
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
        raise DataError(f"records: none can be used ({listed or 'none were given'})")
    first = len(records[kept[0]].completions)
    for row in kept:
        if len(records[row].completions) != first:
            raise DataError(
                f"{_place(row, records[row].source)}: expected {first} responses, as in "
                f"{_place(kept[0], records[kept[0]].source)}; got {len(records[row].completions)}"
            )
    return first


def _lay_out(records: list[Tokens], shared_prompt: bool, width: int | None) -> Rows:
    """Write the records into arrays, shared or one completion a row."""
    lines = [
        (record.prompt, group)
        for record in records
        for group in (
            [record.completions] if shared_prompt else [(ids,) for ids in record.completions]
        )
    ]
    longest = max(len(prompt) + sum(map(len, group)) for prompt, group in lines)
    width = round_up_width(longest) if width is None else check_count("width", width)
    if width < longest:
        raise InputError(f"width: expected at least {longest}, the longest row; got {width}")
    rows = Rows(*(np.zeros((len(lines), width), np.int32) for _ in Rows._fields))
    for line, (prompt, group) in enumerate(lines):
        _write(rows.take(line), prompt, group)
    return rows


def _write(row: Rows, prompt: tuple[int, ...], completions: tuple[tuple[int, ...], ...]) -> None:
    """Write one row into its arrays."""
    place = start = len(prompt)
    row.tokens[:start] = prompt
    row.positions[:start] = np.arange(start)
    row.segments[:start] = PROMPT
    for segment, ids in enumerate(completions, start=FIRST_COMPLETION):
        end = place + len(ids)
        row.tokens[place:end] = ids
        row.positions[place:end] = np.arange(start, start + len(ids))
        row.segments[place:end] = segment
        place = end


def round_up_width(length: int) -> int:
    """Return the least width >= `length` among 16, 24, 32, 48, 64, 96, 128, ...

    Each is at most one and a half times the one before: few shapes to compile, and at most a third
    of a row of padding.

    >>> [round_up_width(length) for length in (3, 17, 100, 128, 129)]
    [16, 24, 128, 128, 192]
    """
    width = _SMALLEST_WIDTH
    while width < length:
        width = width * 3 // 2 if width & (width - 1) == 0 else width // 3 * 4
    return width


def row_lengths(rows: Rows) -> np.ndarray:
    """Return the tokens of each row that are not padding, shape (R,)."""
    return np.sum(np.asarray(rows.segments) != PADDING, axis=-1)


def completion_width(rows: Rows) -> int:
    """Return the most completion tokens that a row holds (a static size for the logits).

    >>> completion_width(pack_rows([Tokens((1,), ((7, 2), (8, 9, 2)))], max_length=9).rows)
    5
    """
    return int(np.max(np.sum(np.asarray(rows.segments) >= FIRST_COMPLETION, axis=-1)))


def completion_lengths(rows: Rows, completions: int) -> Int[Array, "R completions"]:
    """Return the tokens of each completion, shape (R, completions); works under jit.

    >>> completion_lengths(pack_rows([Tokens((1,), ((7, 2), (8, 9, 2)))], max_length=9).rows, 2)
    Array([[2, 3]], dtype=int32)
    """
    which = jnp.arange(FIRST_COMPLETION, FIRST_COMPLETION + completions, dtype=jnp.int32)
    own = jnp.asarray(rows.segments)[:, :, None] == which
    return jnp.sum(own, axis=1, dtype=jnp.int32)


def split_by_width(rows: Rows) -> list[tuple[np.ndarray, Rows]]:
    """Split rows by the width each needs, and trim them: [(row indices, rows of one width), ...].

    Widths are those of :func:`round_up_width`, none wider than the rows are now, narrowest first;
    each row keeps its index, so results go back to their places.

    >>> records = [Tokens((1,), ((2,), (3,))), Tokens((1,) * 30, ((2,), (3,)))]
    >>> [(index.tolist(), part.width) for index, part in
    ...  split_by_width(pack_rows(records, max_length=40).rows)]
    [([0], 16), ([1], 32)]
    """
    needed = np.asarray([round_up_width(int(length)) for length in row_lengths(rows)])
    needed = np.minimum(needed, rows.width)
    parts = []
    for width in np.unique(needed):
        index = np.flatnonzero(needed == width)
        parts.append((index, Rows(*(np.asarray(field)[index, :width] for field in rows))))
    return parts


def row_widths(rows: Rows, most: int) -> tuple[tuple[int, int], ...]:
    """Return the widths, at most so many, to which rows can be cut with the least padding left.

    Each row goes with the least width that holds it. Widths are multiples of 8, but none of 128
    (see :func:`jaxpref.llm.trainer.trim_rows`).

    Parameters
    ----------
    rows : Rows, shape (R, T)
    most : int
        Widths, at least 1.

    Returns
    -------
    tuple of (int, int)
        Width, and most completion tokens of the rows that fit it; the last holds every row.

    Examples
    --------
    >>> records = [Tokens((1,) * n, ((2,), (3, 3))) for n in (3, 4, 5, 20, 60)]
    >>> row_widths(pack_rows(records, max_length=70).rows, 2)
    ((8, 3), (64, 3))
    """
    check_count("most", most)
    lengths = row_lengths(rows)
    answers = np.sum(np.asarray(rows.segments) >= FIRST_COMPLETION, axis=-1)
    rounded = -(-lengths // 8) * 8
    rounded += 8 * (rounded % 128 == 0)
    widths, counts = np.unique(rounded, return_counts=True)
    below = np.concatenate(([0], np.cumsum(counts)))
    # best[k][i]: the fewest tokens of the i narrowest kinds of rows at k widths, and the choice
    best = {0: (0, ())}
    for _ in range(most):
        best = {
            i: min(
                (tokens + int(widths[i - 1] * (below[i] - below[j])), (*chosen, i - 1))
                for j, (tokens, chosen) in best.items()
                if j < i
            )
            for i in range(1, len(widths) + 1)
        } | {0: (0, ())}
    chosen = widths[list(best[len(widths)][1])]
    return tuple((int(w), int(np.max(answers[rounded <= w]))) for w in chosen)


def row_mask(
    segments: Int[Array, "R T"] | Int[np.ndarray, "R T"],
    positions: Int[Array, "R T"] | Int[np.ndarray, "R T"],
    sliding_window: int | None = None,
) -> Bool[Array, "R T T"]:
    """Return which token may attend to which: mask[r, query, key].

    A token attends, causally by position, to the prompt and to its own segment, and with a
    sliding window to the last `sliding_window` positions only (itself included). Padding attends
    to padding, so that no query is without a key, and nothing else sees it.

    Parameters
    ----------
    segments, positions : int32, shape (R, T)
        As in :class:`Rows`.
    sliding_window : int, optional
        How many positions back a token sees, itself included; all when left out.

    Examples
    --------
    >>> rows = pack_rows([Tokens((1,), ((7, 2), (8,)))], max_length=9, width=4).rows
    >>> row_mask(rows.segments, rows.positions)[0].astype(int)
    Array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 0],
           [1, 0, 0, 1]], dtype=int...)
    """
    segments, positions = jnp.asarray(segments), jnp.asarray(positions)
    query, key = segments[:, :, None], segments[:, None, :]
    own = query == key
    prompt = (key == PROMPT) & (query >= FIRST_COMPLETION)
    back = positions[:, :, None] - positions[:, None, :]
    seen = (own | prompt) & (back >= 0)
    return seen if sliding_window is None else seen & (back < sliding_window)
