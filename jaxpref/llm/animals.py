r"""The paper's synthetic preferences: D(omega, p12, p23) over dog, cat and bird.

A sample is a question about two animals, a chosen answer and a rejected one, from the 20 question
and 30 answer templates of the paper's appendix C.2 (``templates.json``). All that can be sampled is
finite, and numbered: **row** ``(question, pair, answer)`` of 20 x 6 x 30 = 3,600, in C order, where
`pair` is one of the six :data:`ORDERED_PAIRS` (the animal named first in the question, and the
second), and two **sequences** a row: the answer in favour of the one named first, or second. So
7,200 sequences serve every data set; :func:`support_records` writes them out and
:func:`outcome_probabilities` says how often each occurs.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from itertools import permutations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxpref import _numerics as nx
from jaxpref._checks import ArrayLike, InputError, check_between, check_count, check_option

from .preferences import Preference

ANIMALS = ("dog", "cat", "bird")
PERMUTATIONS = tuple(permutations(ANIMALS))
ORDERED_PAIRS = tuple(permutations(range(3), 2))
"""(first, second) as indices into ANIMALS: (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)."""
ORDERS_OF_THREE = tuple(permutations(range(3)))
NOUNS = {"article": "a {}", "bare": "{}", "plural": "{}s"}
SUPPORT = (20, 6, 30)
_PROBABILITY = "a probability in [0, 1]"

Nouns = str
"""A name of NOUNS."""


class Templates(NamedTuple):
    """The texts with ``<A>`` and ``<B>`` in place of the animals.

    Parameters
    ----------
    questions : tuple of str, length 20
        The paper's, appendix C.2.
    answers : tuple of str, length 30
        The paper's, appendix C.2: ``<A>`` is preferred.
    probe : str
        The question of section 4 that a trained model is asked.
    questions_of_three : tuple of str, length 20
        Ours: the paper's questions with a third option ``<C>``.
    """

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    probe: str
    questions_of_three: tuple[str, ...]


@cache
def templates() -> Templates:
    """Return the templates of ``templates.json``.

    >>> templates().questions[1], templates().answers[0]
    ('Would you rather have <A> or <B>?', 'I prefer <A> over <B>.')
    """
    text = (resources.files("jaxpref.llm") / "templates.json").read_text(encoding="utf-8")
    data = json.loads(text)
    return Templates(
        questions=tuple(data["questions"]),
        answers=tuple(data["answers"]),
        probe=data["probe"],
        questions_of_three=tuple(data["questions_of_three"]),
    )


def fill(template: str, *options: str, nouns: Nouns = "article") -> str:
    """Return a template with the options in the places of ``<A>``, ``<B>`` and ``<C>``.

    Parameters
    ----------
    template : str
        Text with ``<A>``, ``<B>``, ``<C>``.
    *options : str
        What stands there.
    nouns : {"article", "bare", "plural"}
        "a dog", as the example of the paper's section 4 reads and as everything here does by
        default; "dog", as its appendix replaces literally; or "dogs".

    Examples
    --------
    >>> fill("I prefer <A> over <B>.", "dog", "cat")
    'I prefer a dog over a cat.'
    """
    check_option("nouns", nouns, NOUNS)
    for mark, option in zip(("<A>", "<B>", "<C>"), options, strict=False):
        template = template.replace(mark, NOUNS[nouns].format(option))
    return template


class AnimalPairs(NamedTuple):
    """Sampled pairs, as numbers.

    Parameters
    ----------
    question, pair, answer, rejected_answer : ndarray of int32, shape (N,)
        Indices of the question, of :data:`ORDERED_PAIRS`, and of the answers' templates.
    first_wins : ndarray of bool, shape (N,)
        Whether the chosen answer prefers the animal that the question names first.
    """

    question: np.ndarray
    pair: np.ndarray
    answer: np.ndarray
    rejected_answer: np.ndarray
    first_wins: np.ndarray

    @property
    def row(self) -> np.ndarray:
        """Row of the support that holds question, pair and chosen answer, shape (N,)."""
        return support_row(self.question, self.pair, self.answer)

    @property
    def chosen_sequence(self) -> np.ndarray:
        """Number of the chosen sequence among the 7,200: twice its row, plus 1 if second wins."""
        return 2 * self.row + ~self.first_wins

    @property
    def rejected_sequence(self) -> np.ndarray:
        """Number of the rejected sequence among the 7,200."""
        row = support_row(self.question, self.pair, self.rejected_answer)
        return 2 * row + self.first_wins

    def records(self, *, nouns: Nouns = "article") -> list[Preference]:
        """Return the pairs as text, chosen answer first."""
        return [
            Preference(
                sequence_text(chosen, nouns=nouns)[0],
                (sequence_text(chosen, nouns=nouns)[1], sequence_text(rejected, nouns=nouns)[1]),
                f"animal pair {number + 1}",
            )
            for number, (chosen, rejected) in enumerate(
                zip(self.chosen_sequence.tolist(), self.rejected_sequence.tolist(), strict=True)
            )
        ]


def support_row(question: Any, pair: Any, answer: Any) -> Any:
    """Return the number of a row among the 3,600.

    >>> int(support_row(1, 0, 2)), int(support_row(19, 5, 29))
    (182, 3599)
    """
    return (question * SUPPORT[1] + pair) * SUPPORT[2] + answer


def sequence_text(sequence: int, *, nouns: Nouns = "article") -> tuple[str, str]:
    """Return question and answer of one of the 7,200 sequences.

    >>> question, answer = sequence_text(0)
    >>> question
    'If you had to choose between a dog and a cat, which would you prefer?'
    >>> answer, sequence_text(1)[1]
    ('I prefer a dog over a cat.', 'I prefer a cat over a dog.')
    """
    row, second_wins = divmod(check_count("sequence", sequence, at_least=0), 2)
    if row >= np.prod(SUPPORT):
        raise InputError(f"sequence: expected a number below 7200; got {sequence}")
    question, pair, answer = np.unravel_index(row, SUPPORT)
    names = [ANIMALS[index] for index in ORDERED_PAIRS[pair]]
    winner, loser = names[::-1] if second_wins else names
    texts = templates()
    return (
        fill(texts.questions[question], *names, nouns=nouns),
        fill(texts.answers[answer], winner, loser, nouns=nouns),
    )


def support_records(*, nouns: Nouns = "article") -> list[Preference]:
    """Return all 3,600 rows as text.

    The two responses of a row favour the animal named first and the one named second, **in this
    order and not best first**: which is the better is what a data set says about the row.

    >>> records = support_records()
    >>> len(records), records[0].responses
    (3600, ('I prefer a dog over a cat.', 'I prefer a cat over a dog.'))
    """
    both = [
        [sequence_text(2 * row + side, nouns=nouns) for side in (0, 1)]
        for row in range(int(np.prod(SUPPORT)))
    ]
    return [
        Preference(first[0], (first[1], second[1]), f"animal row {row}")
        for row, (first, second) in enumerate(both)
    ]


def sample_pairs(
    omega: tuple[str, ...],
    p12: ArrayLike,
    p23: ArrayLike,
    *,
    key: Any,
    count: int = 1024,
    share_12: float = 0.5,
    rejected_template: str = "same",
    slots: str = "random",
) -> AnimalPairs:
    """Sample a data set D(omega, p12, p23) (section 4 and appendix C.2).

    Each sample draws one of the pairs (omega_1, omega_2) and (omega_2, omega_3), never
    (omega_1, omega_3); whether the chosen answer prefers the first of the pair, from
    Bernoulli(p12) or Bernoulli(p23); a question and an answer template, uniformly. The rejected
    answer says the opposite.

    Parameters
    ----------
    omega : tuple of str
        The animals in the order omega_1, omega_2, omega_3: one of :data:`PERMUTATIONS`.
    p12, p23 : float in [0, 1]
        Probability that omega_1 is preferred over omega_2, and omega_2 over omega_3.
    key : int, numpy.random.Generator or jax.random.key
        Source of randomness; an equal seed or key gives equal samples.
    count : int
        Number of samples. The paper does not state its own.
    share_12 : float in [0, 1]
        Probability that a sample is about (omega_1, omega_2). The paper: "randomly".
    rejected_template : {"same", "random"}
        Whether the rejected answer keeps the chosen one's template, or draws its own. Open in the
        paper.
    slots : {"random", "fixed"}
        Whether the two animals stand in the question in random order, or in that of omega. Open
        in the paper.

    Returns
    -------
    AnimalPairs
        Indices of templates and animals; ``.records()`` gives the text.

    Raises
    ------
    InputError
        If a probability leaves [0, 1], `omega` is no permutation of the animals, or an option is
        unknown.

    Examples
    --------
    >>> data = sample_pairs(("dog", "bird", "cat"), 0.99, 0.01, key=0)
    >>> len(data.records()), sorted(set(data.pair.tolist()))  # dog with cat: 0, 2
    (1024, [1, 3, 4, 5])
    """
    places = places_of(omega)
    for name, value in (("p12", p12), ("p23", p23), ("share_12", share_12)):
        check_between(name, value, 0.0, 1.0, what=_PROBABILITY)
    check_option("rejected_template", rejected_template, ("same", "random"))
    check_option("slots", slots, ("random", "fixed"))
    count = check_count("count", count)
    random = generator(key)
    is_12 = random.random(count) < share_12
    in_order = random.random(count) < np.where(is_12, p12, p23)  # u in [0, 1): exact at 0 and 1
    question = random.integers(SUPPORT[0], size=count, dtype=np.int32)
    answer = random.integers(SUPPORT[2], size=count, dtype=np.int32)
    swapped = (random.random(count) < 0.5) & (slots == "random")
    other = random.integers(SUPPORT[2], size=count, dtype=np.int32)
    pair = _pair_numbers(places)[np.where(is_12, 0, 1), swapped.astype(int)]
    rejected = answer if rejected_template == "same" else other
    return AnimalPairs(question, pair, answer, rejected, in_order ^ swapped)


def outcome_probabilities(
    omega: tuple[str, ...],
    p12: ArrayLike,
    p23: ArrayLike,
    *,
    share_12: ArrayLike = 0.5,
    slots: str = "random",
) -> Float[Array, "3600 2"]:
    """Return how often each sequence is the chosen one: the exact distribution of a sample.

    Parameters as :func:`sample_pairs`, with the rejected answer in the chosen one's template; p12,
    p23 and share_12 may be traced, and the result is linear in p12 and in p23.

    Returns
    -------
    array, shape (3600, 2)
        Probability that a sample is the row with the first-named (or second-named) animal
        preferred; sums to 1; 0 in the 1,200 rows about (omega_1, omega_3).

    Examples
    --------
    >>> table = outcome_probabilities(("dog", "cat", "bird"), 0.99, 0.25)
    >>> print(table.shape, f"{table.sum():.6f}", int((table.sum(1) == 0).sum()))
    (3600, 2) 1.000000 1200
    """
    places = places_of(omega)
    for name, value in (("p12", p12), ("p23", p23), ("share_12", share_12)):
        check_between(name, value, 0.0, 1.0, what=_PROBABILITY)
    check_option("slots", slots, ("random", "fixed"))
    first, second, share = nx.as_floats(p12, p23, share_12)
    swap = 0.5 if slots == "random" else 0.0
    by_pair = jnp.zeros((SUPPORT[1], 2), share.dtype)
    for adjacent, (p, weight) in enumerate(((first, share), (second, 1 - share))):
        straight, turned = _pair_numbers(places)[adjacent].tolist()
        by_pair = by_pair.at[straight].add((1 - swap) * weight * jnp.stack([p, 1 - p]))
        by_pair = by_pair.at[turned].add(swap * weight * jnp.stack([1 - p, p]))
    each = by_pair[None, :, None, :] / (SUPPORT[0] * SUPPORT[2])
    return jnp.broadcast_to(each, (*SUPPORT, 2)).reshape(-1, 2)


def _pair_numbers(places: tuple[int, ...]) -> np.ndarray:
    """Return the numbers of (w1, w2), (w2, w1) and of (w2, w3), (w3, w2) among ORDERED_PAIRS."""
    one, two, three = places
    pairs = [[(one, two), (two, one)], [(two, three), (three, two)]]
    return np.asarray([[ORDERED_PAIRS.index(pair) for pair in row] for row in pairs], np.int32)


def places_of(omega: tuple[str, ...]) -> tuple[int, ...]:
    """Return omega as indices into ANIMALS.

    >>> places_of(("bird", "dog", "cat"))
    (2, 0, 1)
    """
    if sorted(omega) != sorted(ANIMALS):
        raise InputError(f"omega: expected a permutation of {', '.join(ANIMALS)}; got {omega!r}")
    return tuple(ANIMALS.index(name) for name in omega)


def generator(key: Any) -> np.random.Generator:
    """Return a NumPy generator from a seed, a generator (as it is) or a JAX key.

    >>> generator(3).random() == generator(3).random()
    True
    """
    if isinstance(key, np.random.Generator):
        return key
    if isinstance(key, (jax.Array, np.ndarray)):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        data = jax.random.key_data(key) if typed else key
        return np.random.default_rng(np.asarray(data, np.uint32).ravel().tolist())
    return np.random.default_rng(check_count("key", key, at_least=0))
