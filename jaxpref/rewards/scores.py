"""Scores of responses, several to a prompt, as a reward model gives them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64

from .._checks import check_option

COARSE = 0.01
"""Nats: a common step of scores at least so large is told to the user."""

_FEWEST = 10
_SHORT = {"bfloat16": 8, "float16": 11}
"""Significant bits of the types that models compute in."""
_LONGEST = 60
LONE = ("refuse", "drop")


@dataclass(frozen=True)
class Scores:
    """Scores of responses, grouped by prompt.

    Parameters
    ----------
    prompts : tuple of str
        Names of the prompts, in the order of their first rows.
    responses : tuple of str
        Distinct names of responses, sorted.
    response : (entries,) int32
        Which response an entry is.
    score : (entries,) float64
        Its score in nats (units of the link), finite.
    start : (prompts + 1,) int64
        Entries ``start[p]`` to ``start[p + 1]`` belong to prompt p; at least two.
    paired : bool
        Whether each prompt holds one chosen and one rejected response, in that order.
    notes : tuple of str
        What the user should know of the scores: quantised, equal, left out.

    Examples
    --------
    >>> Scores.from_arrays(["x", "x", "y", "y"], ["a", "b", "a", "b"], [1.0, 2.5, 0.0, 0.3])
    Scores(2 prompts, 4 responses)
    """

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    response: Int32[np.ndarray, " entries"]
    score: Float64[np.ndarray, " entries"]
    start: Int64[np.ndarray, " bounds"]
    paired: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def from_arrays(
        cls,
        prompt: Sequence[Any],
        response: Sequence[Any],
        score: Any,
        *,
        lone: str = "refuse",
    ) -> Scores:
        """Return scores from three columns of equal length, checked as :func:`read_scores` does.

        Raises
        ------
        InputError
            For columns of different lengths.
        DataError
            For the first row that cannot be used.
        """
        from ._reading import from_columns

        columns = {"prompt": prompt, "response": response, "score": score}
        return from_columns(columns, check_option("lone", lone, LONE))

    @classmethod
    def from_pairs(cls, chosen: Any, rejected: Any) -> Scores:
        """Return scores of chosen and rejected responses, a prompt for each pair.

        Raises
        ------
        InputError
            For columns of different lengths.
        DataError
            For a score that is not finite, with its row.

        Examples
        --------
        >>> Scores.from_pairs([1.0, 0.5], [0.0, 2.0])
        Scores(2 pairs, chosen and rejected)
        """
        from ._reading import from_columns

        return from_columns({"chosen_score": chosen, "rejected_score": rejected}, "refuse")

    @property
    def num_prompts(self) -> int:
        """How many prompts there are."""
        return len(self.prompts)

    @property
    def num_entries(self) -> int:
        """How many scores there are."""
        return len(self.score)

    @property
    def sizes(self) -> Int64[np.ndarray, " prompts"]:
        """How many responses each prompt has."""
        return np.diff(self.start)

    @property
    def num_pairs(self) -> int:
        """How many unordered pairs of responses to the same prompt there are."""
        sizes = self.sizes
        return int(np.sum(sizes * (sizes - 1) // 2))

    def to_dict(self) -> dict[str, Any]:
        """Return how much there is, for JSON."""
        sizes = self.sizes
        return {
            "form": "pairs" if self.paired else "responses",
            "prompts": self.num_prompts,
            "scores": self.num_entries,
            "pairs": self.num_pairs,
            "fewest_responses": int(sizes.min()),
            "most_responses": int(sizes.max()),
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        if self.paired:
            return f"Scores({self.num_prompts:,} pairs, chosen and rejected)"
        noun = "prompt" if self.num_prompts == 1 else "prompts"
        return f"Scores({self.num_prompts:,} {noun}, {self.num_entries:,} responses)"


def read_scores(
    path: str | os.PathLike[str],
    *,
    prompt: str | Sequence[str] | None = None,
    response: str | None = None,
    score: str | None = None,
    chosen_score: str | None = None,
    rejected_score: str | None = None,
    where: Mapping[str, str] | None = None,
    lone: str = "refuse",
    format: str | None = None,
) -> Scores:
    r"""Read a file of scores: a row for each response, or for each chosen and rejected pair.

    Parameters
    ----------
    path : path
        CSV, TSV, JSONL (each also .gz) or Parquet.
    prompt : str or sequence of str, optional
        Column, or columns, that tell prompts apart. ``prompt_id``, ``prompt`` and the like are
        recognised. In a file of pairs it only names them.
    response, score : str, optional
        Columns of the response's name and its score; ``response_id``, ``response``, ``model``,
        ``item`` and ``score``, ``reward`` are recognised.
    chosen_score, rejected_score : str, optional
        Columns of a file of pairs, in place of `response` and `score`.
    where : mapping, optional
        Only rows whose column says so: ``{"dataset": "alpaca-eval-ko"}``.
    lone : {"refuse", "drop"}
        What happens to prompts with one response, which compare nothing.
    format : str, optional
        ``"csv"``, ``"tsv"``, ``"jsonl"`` or ``"parquet"`` for a file whose name does not say.

    Returns
    -------
    Scores

    Raises
    ------
    InputError
        For no such file or column, or columns that cannot be told apart.
    DataError
        For a damaged file, or the first row that cannot be used: a missing name, a score that is
        no finite number, a response given twice to a prompt, a prompt with one response.

    Notes
    -----
    Scores that differ by multiples of 0.01 nats or more (:func:`common_step`) or were rounded to
    bfloat16 or float16 (:func:`short_float`), and responses to the same prompt with exactly equal
    scores, are told in `Scores.notes`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("prompt,response,score\nx,a,1.5\nx,b,0.25\n")
    ...     file.flush()
    ...     read_scores(file.name)
    Scores(1 prompt, 2 responses)
    """
    from ._reading import ScoreOptions, read_file

    check_option("lone", lone, LONE)
    names = (prompt,) if isinstance(prompt, str) else tuple(prompt or ())
    options = ScoreOptions(
        names, response, score, chosen_score, rejected_score, dict(where or {}), lone
    )
    return read_file(path, options, format)


def common_step(scores: Float64[np.ndarray, " entries"]) -> float | None:
    """Return the step of which all differences of scores are multiples, if it is at least 0.01.

    Euclid's algorithm on the distinct differences, to a relative 2e-7 (scores that were stored in
    32 bits). None for fewer than ten scores, or a step that cannot be told from rounding.

    >>> common_step(np.array([0.25, 0.5, -3.0, 1.0, 4.75, 2.0, 7.25, 1.25, 0.0, -1.0]))
    0.25
    >>> print(common_step(np.random.default_rng(0).normal(size=100)))
    None
    """
    if len(scores) < _FEWEST:
        return None
    slack = max(2e-7 * float(np.abs(scores).max()), 1e-9)
    if slack > COARSE / 20:
        return None
    gaps = np.unique(np.diff(np.unique(scores)))
    gaps = gaps[gaps > slack]
    while len(gaps):
        step = float(gaps[0])
        if step < COARSE:
            return None
        rest = np.remainder(gaps, step)
        rest = np.minimum(rest, step - rest)
        rest = rest[rest > slack]
        if not len(rest):
            return float(f"{step:.6g}")
        gaps = np.unique(np.append(rest, step))
    return None


def short_float(scores: Float64[np.ndarray, " entries"]) -> tuple[str, float] | None:
    """Return the type that all scores were rounded to, and how far apart it is at the largest.

    bfloat16 or float16, if that is at least 0.01: near 0 their numbers lie close, so that such
    scores need not have a :func:`common_step`. None for fewer than ten distinct scores.

    >>> short_float(np.array([-31.75, -30.5, -9.4375, -4.03125, 0.0, 0.0859375, 2, 3, 4, 5.5]))
    ('bfloat16', 0.125)
    >>> print(short_float(np.random.default_rng(0).normal(0, 10, size=100)))
    None
    """
    if len(np.unique(scores)) < _FEWEST:
        return None
    part, power = np.frexp(scores)
    for name, bits in _SHORT.items():
        digits = np.ldexp(part, bits)
        if (digits == np.round(digits)).all():
            apart = float(np.ldexp(1.0, int(power[np.abs(scores).argmax()]) - bits))
            return (name, apart) if apart >= COARSE else None
    return None


def describe_scores(
    score: Float64[np.ndarray, " entries"],
    owner: Int64[np.ndarray, " entries"],
    prompts: Sequence[str],
    *,
    paired: bool,
    dropped: int,
) -> tuple[str, ...]:
    """Return what the user should know of the scores, a sentence each."""
    notes = []
    if dropped:
        noun = "prompt" if dropped == 1 else "prompts"
        notes.append(f"Left out: {dropped:,} {noun} with one response, which compare nothing.")
    notes += _coarseness(score)
    order = np.lexsort((score, owner))
    owner, score = owner[order], score[order]
    same = (owner[1:] == owner[:-1]) & (score[1:] == score[:-1])  # a difference can overflow
    if same.any():
        count = int(np.sum(np.append(same, False) | np.insert(same, 0, False)))
        equal = int(same.sum())
        what = (
            f"{equal:,} {'pair has' if equal == 1 else 'pairs have'} equal scores: are chosen and "
            "rejected the same there?"
            if paired
            else f"{count:,} responses have exactly the score of another one to their prompt: "
            "duplicates?"
        )
        name = " ".join(prompts[int(owner[same.argmax()])].split())
        name = name if len(name) <= _LONGEST else name[: _LONGEST - 3] + "..."
        notes.append(f"{what} The first: {'pair' if paired else 'prompt'} {name!r}.")
    return tuple(notes)


def _coarseness(score: Float64[np.ndarray, " entries"]) -> list[str]:
    """Return a sentence on scores that are coarsely quantised, or none."""
    step, short = common_step(score), short_float(score)
    if step is not None:
        how = f"they differ by multiples of {step:g} nats"
    elif short is not None:
        kind, step = short
        how = f"they are {kind} numbers, {step:g} nats apart at the largest"
    else:
        return []
    return [
        f"The scores are coarsely quantised: {how}, which moves a probability of 0.98 by "
        f"{0.98 * 0.02 * step:.2g}; equal and repeated probabilities are an effect of that step."
    ]
