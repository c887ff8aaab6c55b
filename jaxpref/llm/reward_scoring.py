"""Scores of many sequences: batches of one width each, and a file that a stopped run goes on with.

Sequences are sorted by length and padded to a few widths, so that few programs are compiled and
little padding is computed. Each score is kept under a hash of the model (its weights, and what it
does with them) and the tokens; a sequence that was scored before, in this run or an earlier one, is
not computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import DataError, InputError, check_count
from .attention import best_attention
from .deberta import DebertaConfig
from .reference import digest
from .reward_models import RewardModel, last_token, sequence_scores
from .reward_rows import Candidates
from .rows import Tokens, round_up_width

Progress = Callable[[int, int], None]
LINES = (".jsonl", ".ndjson")
BATCH_TOKENS = 4096
"""Tokens of a batch, padding included: a few rows, whose activations stay in a cache."""


class ScoringResult(NamedTuple):
    """The scores of records, in their order.

    Parameters
    ----------
    scores : list of tuple of float
        Of each record's responses (nats).
    keys : list of tuple of str
        The hash under which each is kept.
    computed, reused : int
        Distinct sequences that were computed, and those known already.
    """

    scores: list[tuple[float, ...]]
    keys: list[tuple[str, ...]]
    computed: int
    reused: int


def score_sequences(
    model: RewardModel,
    sequences: Sequence[Sequence[int]],
    *,
    batch_tokens: int = BATCH_TOKENS,
    bucket: bool = True,
    attention: str | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the score of each sequence of token ids.

    Parameters
    ----------
    model : RewardModel
    sequences : sequence of sequence of int
        Each with at least one id, and none longer than the model's context.
    batch_tokens : int
        Most tokens of a batch, its padding included, but for a single longer sequence.
    bucket : bool
        Sort by length and pad to a few widths; else pad every batch to the longest of all.
    attention : {"direct", "blocked", "xla", "cudnn"}, optional
        As in :func:`jaxpref.llm.hidden_states`; by default "cudnn" where it can, else "blocked".
    progress : callable, optional
        Called with the sequences done and in all.

    Returns
    -------
    ndarray, shape (N,)
        float64 copies of the scores; not checked.

    Raises
    ------
    InputError
        For an empty sequence, one beyond the context, or ids without a row in the embedding.
    """
    scores = np.zeros(len(sequences))
    done = 0
    for index, values in _batches(model, sequences, batch_tokens, bucket, attention):
        scores[index] = values
        done += len(index)
        if progress is not None:
            progress(done, len(sequences))
    return scores


@partial(jax.jit, static_argnames=("config", "graphdef", "attention"))
def _compiled(
    params: Any,
    tokens: jax.Array,
    lengths: jax.Array,
    *,
    config: Any,
    graphdef: Any,
    attention: str,
) -> jax.Array:
    return sequence_scores(config, graphdef, params, tokens, lengths, attention=attention)


def _batches(
    model: RewardModel,
    sequences: Sequence[Sequence[int]],
    batch_tokens: int,
    bucket: bool,
    attention: str | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the indices and the scores of one batch after the other, the shortest first."""
    check_count("batch_tokens", batch_tokens)
    attention = attention or _fastest(model)
    lengths = np.array([len(ids) for ids in sequences], int)
    _check_sequences(model, sequences, lengths)
    longest = int(lengths.max(initial=0))
    widths = np.array([round_up_width(int(n)) if bucket else longest for n in lengths], int)
    limit = max(getattr(model.config, "max_position_embeddings", longest), longest)
    widths = np.minimum(widths, limit)
    order = np.argsort(lengths, kind="stable") if bucket else np.arange(len(lengths))
    for width in np.unique(widths):
        which = order[widths[order] == width]
        most = _power_of_two(batch_tokens // int(width))
        for begin in range(0, len(which), most):
            index = which[begin : begin + most]
            rows = min(most, 2 * _power_of_two(len(index) - 1)) if len(index) > 1 else 1
            yield index, _one_batch(model, sequences, index, rows, int(width), attention)


def _fastest(model: RewardModel) -> str:
    """Return how attention is computed: a fused kernel, or few queries at a time."""
    if isinstance(model.config, DebertaConfig):
        return "direct"
    kind = jax.tree.leaves(model.params)[0].dtype
    best = best_attention(kind, model.config.head_dim)
    return "blocked" if best == "direct" else best


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is at most `number`, and at least 1."""
    return 1 << max(number.bit_length() - 1, 0)


def _one_batch(
    model: RewardModel,
    sequences: Sequence[Sequence[int]],
    index: np.ndarray,
    rows: int,
    width: int,
    attention: str,
) -> np.ndarray:
    """Return the scores of a batch; its spare rows hold one token."""
    tokens, lengths = np.zeros((rows, width), np.int32), np.ones(rows, np.int32)
    for row, at in enumerate(index):
        ids = sequences[at]
        tokens[row, : len(ids)] = ids
        lengths[row] = last_token(ids, model.pad_token_id) if _reads_last(model) else len(ids)
    found = _compiled(
        model.params,
        jnp.asarray(tokens),
        jnp.asarray(lengths),
        config=model.config,
        graphdef=model.graphdef,
        attention=attention,
    )
    return np.asarray(found, np.float64)[: len(index)]


def _reads_last(model: RewardModel) -> bool:
    return not isinstance(model.config, DebertaConfig)


def _check_sequences(
    model: RewardModel, sequences: Sequence[Sequence[int]], lengths: np.ndarray
) -> None:
    if not len(lengths):
        raise InputError("sequences: expected at least one; got none")
    if lengths.min() < 1:
        row = int(np.argmin(lengths))
        raise InputError(f"sequences[{row}]: expected at least one token; got none")
    context = model.config.max_position_embeddings
    if _reads_last(model) and lengths.max() > context:
        row = int(np.argmax(lengths))
        raise InputError(
            f"sequences[{row}]: expected at most the model's context, {context} tokens; "
            f"got {lengths[row]}"
        )
    for row, ids in enumerate(sequences):
        if max(ids) >= model.config.vocab_size or min(ids) < 0:
            raise InputError(
                f"sequences[{row}]: expected ids in [0, {model.config.vocab_size}), the rows of "
                f"the model's embedding; got {max(ids)}"
            )


# Records --------------------------------------------------------------------------------------


def score_records(
    model: RewardModel,
    records: Sequence[Tokens],
    *,
    store: ScoreStore | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> ScoringResult:
    """Score the responses of records, each distinct sequence once.

    Parameters
    ----------
    model : RewardModel
    records : sequence of Tokens
        From :func:`jaxpref.llm.reward_rows.encode_candidates`.
    store : ScoreStore, optional
        Where scores are kept as they come, and looked up.
    batch_tokens : int
    progress : callable, optional
        Called with the sequences done and in all.

    Returns
    -------
    ScoringResult

    Raises
    ------
    DataError
        For a score that is not a finite number, with the record's place.
    """
    name = digest(model.params, model.config, model.pad_token_id)
    known: dict[str, float] = {} if store is None else store.known
    places: dict[str, tuple[int, ...]] = {}
    sources: dict[str, str] = {}
    keys = []
    for number, record in enumerate(records):
        own = []
        for rest in record.completions:
            ids = (*record.prompt, *rest)
            key = _key(name, ids)
            places[key] = ids
            sources.setdefault(key, record.source or f"record {number + 1}")
            own.append(key)
        keys.append(tuple(own))
    wanted = [key for key in places if key not in known]
    done, total = len(places) - len(wanted), len(places)
    found = dict(known)
    if wanted:
        sequences = [places[key] for key in wanted]
        for index, values in _batches(model, sequences, batch_tokens, True, None):
            new = {wanted[at]: float(value) for at, value in zip(index, values, strict=True)}
            _check_finite(new, sources)
            if store is not None:
                store.add(new)
            found |= new
            done += len(index)
            if progress is not None:
                progress(done, total)
    scores = [tuple(found[key] for key in own) for own in keys]
    return ScoringResult(scores, keys, len(wanted), total - len(wanted))


def _key(model: str, ids: tuple[int, ...]) -> str:
    content = model.encode() + np.asarray(ids, np.int64).tobytes()
    return hashlib.sha256(content).hexdigest()[:24]


def _check_finite(scores: Mapping[str, float], sources: Mapping[str, str]) -> None:
    for key, value in scores.items():
        if not math.isfinite(value):
            raise DataError(
                f"{sources[key]}: expected a finite score; the model gives {value:g} (a wider "
                "type, as float32, may help)"
            )


class ScoreStore:
    """Scores on disk under their keys, a line each: what a stopped run has done.

    Parameters
    ----------
    path : path
        Made when the first score comes; a last line that was cut off is dropped.
    known : mapping, optional
        Further scores, as those of a finished file.
    """

    def __init__(self, path: Path, known: Mapping[str, float] | None = None):
        self.path = path
        self.known = {**(known or {}), **_read_store(path)}

    def add(self, scores: Mapping[str, float]) -> None:
        """Append scores, written through to the file.

        Raises
        ------
        InputError
            Where the file cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps([key, value])}\n" for key, value in scores.items())
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from None
        self.known |= scores

    def finish(self) -> None:
        """Remove the file: what it held stands in the finished one."""
        self.path.unlink(missing_ok=True)


def _read_store(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    found: dict[str, float] = {}
    whole = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            key, value = json.loads(line)
            found[str(key)] = float(value)
            whole.append(line + "\n")
        except (ValueError, TypeError):
            continue  # the line that the writer died in, or the end
    path.write_text("".join(whole), encoding="utf-8")
    return found


# Files of scores ------------------------------------------------------------------------------


def known_scores(path: Path) -> dict[str, float]:
    """Return the scores of a file that :func:`write_scores` wrote, by key; none where it is not.

    Raises
    ------
    InputError
        If the name is not one of JSON lines, which ``rewards dominance`` goes by, or the file holds
        something else: it is not to be overwritten.
    """
    if path.suffix.lower() not in LINES:
        raise InputError(
            f"--out: expected a name ending in {' or '.join(LINES)}, for JSON lines; "
            f"got {path.name!r}"
        )
    if not path.exists():
        return {}
    found: dict[str, float] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "keys" in row:
                found |= dict(
                    zip(row["keys"], (row["chosen_score"], row["rejected_score"]), strict=True)
                )
            else:
                found[row["key"]] = row["score"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"--out: {path} exists and holds no scores of this command; expected another name"
        ) from None
    return found


def write_scores(path: Path, candidates: Sequence[Candidates], result: ScoringResult) -> bool:
    """Write the scores as JSON lines that ``jaxpref rewards dominance`` reads.

    Parameters
    ----------
    path : path
        Written under another name and renamed.
    candidates : sequence of Candidates
    result : ScoringResult

    Returns
    -------
    bool
        Whether rows are pairs of chosen and rejected (they are if all records are), or one
        response each.
    """
    paired = all(record.paired for record in candidates)
    lines = []
    for record, scores, keys in zip(candidates, result.scores, result.keys, strict=True):
        if paired:
            row = dict(zip(("chosen_score", "rejected_score"), scores, strict=True))
            lines.append({"prompt_id": record.prompt_id, **row, "keys": list(keys)})
            continue
        for name, score, key in zip(record.names, scores, keys, strict=True):
            row = {"prompt_id": record.prompt_id, "response_id": name, "score": score, "key": key}
            lines.append(row)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    return paired
