"""What a language model prefers: by sampling its answers, and by summing their probabilities.

The paper asks "Do you prefer X or Y?" 200 times and counts (section 4). :func:`sampled_probe` does
that; :func:`exact_probe` adds up the probability of all 60 answers in the paper's format, 30 for
either animal, and needs no random numbers. Both ask both ways round, "X or Y" and "Y or X". Beside
every probability stands the *format mass*, the probability of answering in the format at all: where
it is low, neither number says much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxpref import _numerics as nx
from jaxpref._checks import ArrayLike, InputError, check_count

from .animals import ANIMALS, ORDERED_PAIRS, Nouns, fill, templates
from .answers import preferred
from .logps import completion_logps
from .preferences import as_message
from .rows import Rows, Tokens, completion_width, pack_rows

PAIRS = ((0, 1), (0, 2), (1, 2))
"""The unordered pairs of ANIMALS."""


class ExactProbe(NamedTuple):
    """Exact preferences of one model, or of many along leading axes.

    Parameters
    ----------
    log_mass : array, shape (..., 6, 2)
        Log-probability (nats, <= 0) of an answer in the format that prefers the animal named
        first, or second, to each question of ``ORDERED_PAIRS``. Where there are several question
        templates, the logarithm of the mean probability.
    """

    log_mass: Any

    @property
    def format_mass(self) -> Float[Array, "... 6"]:
        """Probability in [0, 1] of an answer in the format, by question of ``ORDERED_PAIRS``."""
        return jnp.sum(jnp.exp(self.log_mass), axis=-1)

    def margin(self, winner: str, loser: str) -> Float[Array, "..."]:
        """Return the log-odds that `winner` is preferred, the masses of both directions added.

        Parameters
        ----------
        winner, loser : str
            Two of ANIMALS.

        Returns
        -------
        array, shape (...)
            Nats.

        Raises
        ------
        InputError
            If they are not two of ANIMALS.
        """
        straight, turned = _directions(winner, loser)
        mass = jnp.asarray(self.log_mass)
        wins = jnp.logaddexp(mass[..., straight, 0], mass[..., turned, 1])
        losses = jnp.logaddexp(mass[..., straight, 1], mass[..., turned, 0])
        return wins - losses

    def probability(self, winner: str, loser: str) -> Float[Array, "..."]:
        """Return the probability that `winner` is preferred, among answers in the format.

        In [0, 1], shape (...); parameters and errors as :meth:`margin`, which keeps its digits near
        0 and 1.
        """
        return jax.nn.sigmoid(self.margin(winner, loser))

    def by_direction(self, winner: str, loser: str) -> Float[Array, "... 2"]:
        """Return the probability of `winner` where it is named first, and where second.

        In [0, 1], shape (..., 2); parameters and errors as :meth:`margin`. The two differ where the
        model minds the order of the options.
        """
        straight, turned = _directions(winner, loser)
        mass = jnp.asarray(self.log_mass)
        first = mass[..., straight, 0] - mass[..., straight, 1]
        second = mass[..., turned, 1] - mass[..., turned, 0]
        return jax.nn.sigmoid(jnp.stack([first, second], axis=-1))


class SampledProbe(NamedTuple):
    """Counted answers of one model.

    Parameters
    ----------
    counts : ndarray of int64, shape (6, 3)
        For each question of ``ORDERED_PAIRS``: answers for the animal named first, for the second,
        and unparsable ones.
    in_format : ndarray of int64, shape (6,)
        Answers that are, letter for letter, one of the 60 in the format.
    """

    counts: np.ndarray
    in_format: np.ndarray

    def wins(self, winner: str, loser: str) -> tuple[int, int]:
        """Return how many answers prefer `winner`, and how many `loser`, in both directions."""
        straight, turned = _directions(winner, loser)
        won = self.counts[straight, 0] + self.counts[turned, 1]
        lost = self.counts[straight, 1] + self.counts[turned, 0]
        return int(won), int(lost)

    def probability(self, winner: str, loser: str) -> float:
        """Return the share of `winner` among the parsed answers, NaN where there are none.

        Answers to both directions are added; the unparsable ones are left out, and not halved.
        """
        won, lost = self.wins(winner, loser)
        return won / (won + lost) if won + lost else float("nan")

    def standard_error(self, winner: str, loser: str) -> float:
        """Return the standard error of the share, NaN where nothing was parsed.

        ``sqrt(s (1 - s) / n)`` with n = won + lost and s = (won + 1) / (n + 2), so that it is not 0
        where all answers agree.
        """
        won, lost = self.wins(winner, loser)
        share, total = (won + 1) / (won + lost + 2), won + lost
        return float(np.sqrt(share * (1 - share) / total)) if total else float("nan")

    @property
    def unparsable(self) -> np.ndarray:
        """Share of the answers that could not be parsed, for each question, shape (6,)."""
        return self.counts[:, 2] / self.counts.sum(axis=1)


class ProbeRows(NamedTuple):
    """The rows of the exact probe, the same for every model with this tokenizer.

    Parameters
    ----------
    rows : Rows
        `answers_per_row` completions each; all answers of a question in consecutive rows.
    answers_per_row : int
        Completions of a row.
    width : int
        Most completion tokens of a row.
    """

    rows: Rows
    answers_per_row: int
    width: int


def _directions(winner: str, loser: str) -> tuple[int, int]:
    """Return the numbers of the questions (winner, loser) and (loser, winner)."""
    for name in (winner, loser):
        if name not in ANIMALS:
            raise InputError(f"winner, loser: expected two of {', '.join(ANIMALS)}; got {name!r}")
    if winner == loser:
        raise InputError(f"winner, loser: expected two animals; got {winner!r} twice")
    pair = (ANIMALS.index(winner), ANIMALS.index(loser))
    return ORDERED_PAIRS.index(pair), ORDERED_PAIRS.index(pair[::-1])


def probe_questions(*, question: str | None = None, nouns: Nouns = "article") -> list[str]:
    """Return the six questions of a template (by default the probe's), as in ``ORDERED_PAIRS``.

    >>> probe_questions()[0]
    'Do you prefer a dog or a cat?'
    """
    question = templates().probe if question is None else question
    return [fill(question, *_names(pair), nouns=nouns) for pair in ORDERED_PAIRS]


def probe_answers(pair: int, *, nouns: Nouns = "article") -> list[str]:
    """Return the 60 answers to a question: for each template, the first wins, the second wins.

    >>> probe_answers(0)[:2]
    ['I prefer a dog over a cat.', 'I prefer a cat over a dog.']
    """
    first, second = _names(ORDERED_PAIRS[pair])
    return [
        fill(answer, *names, nouns=nouns)
        for answer in templates().answers
        for names in ((first, second), (second, first))
    ]


def _names(pair: tuple[int, int]) -> tuple[str, str]:
    return ANIMALS[pair[0]], ANIMALS[pair[1]]


def probe_rows(
    tokenizer: Any,
    *,
    questions: Sequence[str] | None = None,
    nouns: Nouns = "article",
    answers_per_row: int = 6,
    chat: bool = False,
) -> ProbeRows:
    """Write the questions with all their answers as rows, for :func:`exact_probe_of_rows`.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        The model's.
    questions : sequence of str, optional
        Templates with ``<A>`` and ``<B>``; the paper's probe alone when left out.
    nouns : {"article", "bare", "plural"}
        As the model was trained.
    answers_per_row : int
        A divisor of 60: how many answers share one writing of their question.
    chat : bool
        Whether the question is asked as a user's message, in the tokenizer's chat template.

    Returns
    -------
    ProbeRows

    Raises
    ------
    InputError
        If `answers_per_row` does not divide 60, or there is no question.
    """
    from .tokenizers import encode_completion, encode_prompt

    count = check_count("answers_per_row", answers_per_row)
    if 60 % count:
        raise InputError(f"answers_per_row: expected a divisor of 60; got {answers_per_row}")
    asked = (templates().probe,) if questions is None else tuple(questions)
    if not asked:
        raise InputError("questions: expected at least one; got none")
    records = []
    for template in asked:
        for pair, question in enumerate(probe_questions(question=template, nouns=nouns)):
            asked_so = as_message(question) if chat else question
            prompt = tuple(encode_prompt(tokenizer, asked_so))
            answers = [
                tuple(encode_completion(tokenizer, text))
                for text in probe_answers(pair, nouns=nouns)
            ]
            for start in range(0, 60, count):
                records.append(Tokens(prompt, tuple(answers[start : start + count]), question))
    longest = max(len(r.prompt) + max(map(len, r.completions)) for r in records)
    rows = pack_rows(records, max_length=longest, too_long="error").rows
    return ProbeRows(rows, count, completion_width(rows))


def exact_probe_of_rows(
    graphdef: Any, params: Any, probe: ProbeRows, *, batch: int | None = None
) -> ExactProbe:
    """Return the exact preferences of a model: a pure function of its parameters.

    Works under jit, grad, jvp, map and vmap over `params`.

    Parameters
    ----------
    graphdef, params : nnx.GraphDef, pytree
        The model.
    probe : ProbeRows
        From :func:`probe_rows`; its two integers must be static under jit.
    batch : int, optional
        Rows at once, to bound memory; all when left out.

    Returns
    -------
    ExactProbe
        `log_mass` of shape (6, 2).

    Raises
    ------
    InputError
        If `batch` is below 1.
    """

    def logps(rows: Rows) -> Array:
        found = completion_logps(
            graphdef, params, rows, completions=probe.answers_per_row, width=probe.width
        )
        return found

    rows = Rows(*map(jnp.asarray, probe.rows))
    if batch is None:
        found = logps(rows)
    else:
        one = Rows(*(field[:, None] for field in rows))
        found = lax.map(logps, one, batch_size=check_count("batch", batch))
    return exact_probe_of_logps(found.reshape(-1, len(ORDERED_PAIRS), 60))


def exact_probe_of_logps(logps: ArrayLike) -> ExactProbe:
    """Sum the answers' probabilities.

    Parameters
    ----------
    logps : array_like, shape (Q, 6, 60)
        Log-probabilities (nats) of the answers of :func:`probe_answers` to Q question templates.

    Returns
    -------
    ExactProbe
        Log-masses of shape (6, 2), of the mean probability over the templates.

    Raises
    ------
    InputError
        For another shape.

    Examples
    --------
    >>> logps = jnp.log(jnp.tile(jnp.array([0.02, 0.01]), (1, 6, 30)))
    >>> found = exact_probe_of_logps(logps)
    >>> print(f"{found.probability('dog', 'bird'):.3f}", f"{found.format_mass[0]:.3f}")
    0.500 0.900
    >>> print(found.by_direction("dog", "bird").round(4))
    [0.6667 0.3333]
    """
    array = nx.as_float(logps)
    if array.ndim != 3 or array.shape[1:] != (6, 60):
        raise InputError(f"logps: expected shape (Q, 6, 60); got {array.shape}")
    split = array.reshape(*array.shape[:2], 30, 2)
    return ExactProbe(jax.nn.logsumexp(split, axis=(0, 2)) - math.log(array.shape[0]))


def exact_probe(
    model: Any,
    tokenizer: Any,
    *,
    questions: Sequence[str] | None = None,
    nouns: Nouns = "article",
    answers_per_row: int = 6,
    chat: bool = False,
    batch: int | None = None,
) -> ExactProbe:
    """Return the exact preferences of a model among dog, cat and bird.

    ``P(X over Y) = mass(answers for X) / (mass(answers for X) + mass(answers for Y))``, each mass
    the summed probability of the format's answers, end-of-sequence included, to "Do you prefer X or
    Y?" and "Do you prefer Y or X?".

    Parameters
    ----------
    model : LanguageModel
        A model.
    tokenizer : transformers tokenizer
        Its tokenizer.
    questions, nouns, answers_per_row, chat
        As :func:`probe_rows`.
    batch : int, optional
        Rows at once, to bound memory.

    Returns
    -------
    ExactProbe
        Probabilities by name, format mass beside them.

    Raises
    ------
    InputError
        If a question with an answer is longer than the model's context; what :func:`probe_rows`
        refuses.

    Notes
    -----
    An answer is one sequence of tokens, as the tokenizer writes it; other spellings of the same
    text by tokens are not counted. So the format mass is a lower bound, a close one for a model
    trained on that spelling.
    """
    rows = probe_rows(
        tokenizer, questions=questions, nouns=nouns, answers_per_row=answers_per_row, chat=chat
    )
    longest, context = int(np.max(rows.rows.positions)) + 1, model.config.max_position_embeddings
    if longest > context:
        raise InputError(
            f"model: expected a context of at least {longest} tokens, the longest question with "
            f"its answer; got {context}"
        )

    def masses(params: Any) -> Array:
        return exact_probe_of_rows(model.graphdef, params, rows, batch=batch).log_mass

    return ExactProbe(jax.jit(masses)(model.params))


def sampled_probe(
    model: Any,
    tokenizer: Any,
    *,
    key: Any,
    samples: int = 200,
    question: str | None = None,
    nouns: Nouns = "article",
    chat: bool = False,
    temperature: float = 1.0,
    max_new_tokens: int = 64,
    batch: int = 200,
) -> SampledProbe:
    """Ask a model each of the six questions many times, and count its answers (section 4).

    The paper asks one way round, with the animal that comes first in omega named first; for its
    numbers read the `counts` of that question alone.

    Parameters
    ----------
    model : LanguageModel
        A model.
    tokenizer : transformers tokenizer
        Its tokenizer.
    key : jax.random.key
        Source of randomness.
    samples : int
        Answers to each of the six questions; the paper takes 200.
    question : str, optional
        Template with ``<A>`` and ``<B>``; by default the paper's "Do you prefer <A> or <B>?".
    nouns : {"article", "bare", "plural"}
        As the model was trained.
    chat : bool
        As :func:`probe_rows`.
    temperature : float
        Of the sampling, at least 0; 1 samples from the model itself, 0 takes the likeliest token.
    max_new_tokens : int
        Longest answer; a longer one is parsed as far as it goes.
    batch : int
        Answers sampled at once.

    Returns
    -------
    SampledProbe
        Counts by question; probabilities and standard errors by name.

    Raises
    ------
    InputError
        If a count is below 1, or for what :func:`jaxpref.llm.generate` refuses, such as a question
        and answer beyond the context.
    """
    from .generate import generate
    from .tokenizers import decode, encode_prompt

    ends = sorted({tokenizer.eos_token_id, *model.config.eos_token_ids} - {None})
    samples, batch = check_count("samples", samples), check_count("batch", batch)
    asked = probe_questions(question=question, nouns=nouns)
    prompts = [list(encode_prompt(tokenizer, as_message(text) if chat else text)) for text in asked]
    jobs = np.repeat(np.arange(len(asked)), samples)
    keys = jax.random.split(key, -(-jobs.size // batch))
    texts: list[str] = []
    for start, key_of_batch in zip(range(0, jobs.size, batch), keys, strict=True):
        tokens = generate(
            model,
            [prompts[job] for job in jobs[start : start + batch]],
            key=key_of_batch,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            eos_id=ends,
        )
        texts += [decode(tokenizer, ids) for ids in tokens]
    return count_answers([texts[k * samples : (k + 1) * samples] for k in range(6)], nouns=nouns)


def count_answers(answers: Sequence[Sequence[str]], *, nouns: Nouns = "article") -> SampledProbe:
    """Count answers to the six questions of ``ORDERED_PAIRS``.

    Parameters
    ----------
    answers : sequence of 6 sequences of str
        Texts of the answers to each question.
    nouns : {"article", "bare", "plural"}
        The format's nouns.

    Returns
    -------
    SampledProbe

    Raises
    ------
    InputError
        If they are not the answers to six questions.

    Examples
    --------
    >>> said = ["I prefer a dog over a cat.", "Dogs!", "Meow."]
    >>> counted = count_answers([said, *[["cat"]] * 5])
    >>> counted.counts[0], int(counted.in_format[0])
    (array([2, 0, 1]), 1)
    """
    if len(answers) != len(ORDERED_PAIRS):
        raise InputError(f"answers: expected those to 6 questions; got {len(answers)}")
    counts, in_format = np.zeros((6, 3), np.int64), np.zeros(6, np.int64)
    for pair, texts in enumerate(answers):
        first, second = _names(ORDERED_PAIRS[pair])
        column = {first: 0, second: 1, None: 2}
        known = set(probe_answers(pair, nouns=nouns))
        for text in texts:
            counts[pair, column[preferred(text, first, second)]] += 1
            in_format[pair] += text.strip() in known
    return SampledProbe(counts, in_format)
