r"""Rankings of the three animals, for K = 3: an extension of the paper's data by us.

The question names all three animals (``questions_of_three`` of ``templates.json``), and there is a
response for each, in one answer template with the other two in the place of ``<B>``. A ranking is
drawn from the Plackett-Luce model whose scores have the margins logit p12 and logit p23, so that
its pairwise probabilities are those of D(omega, p12, p23) and p13 is their Bradley-Terry
composition.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxpref import _numerics as nx
from jaxpref._checks import ArrayLike, InputError, check_between, check_count

from .animals import ANIMALS, ORDERS_OF_THREE, SUPPORT, Nouns, fill, generator, places_of, templates
from .preferences import Preference


class AnimalRankings(NamedTuple):
    """Sampled rankings, as numbers.

    Parameters
    ----------
    question, slots, answer : ndarray of int32, shape (N,)
        Indices of the question, of the order of the animals in it (``ORDERS_OF_THREE``, over
        ANIMALS), and of the answers' template.
    ranking : ndarray of int32, shape (N, 3)
        Indices of the animals, best first.
    """

    question: np.ndarray
    slots: np.ndarray
    answer: np.ndarray
    ranking: np.ndarray

    @property
    def row(self) -> np.ndarray:
        """Row of the support, of 20 x 6 x 30 = 3,600, shape (N,)."""
        return (self.question * 6 + self.slots) * SUPPORT[2] + self.answer

    def records(self, *, nouns: Nouns = "article") -> list[Preference]:
        """Return the rankings as text, three responses each, best first."""
        found = []
        for number, (row, ranking) in enumerate(zip(self.row, self.ranking, strict=True)):
            question, responses = ranking_text(int(row), nouns=nouns)
            ordered = tuple(responses[animal] for animal in ranking.tolist())
            found.append(Preference(question, ordered, f"animal ranking {number + 1}"))
        return found


def ranking_text(row: int, *, nouns: Nouns = "article") -> tuple[str, tuple[str, str, str]]:
    """Return the question of a row, and the responses for dog, cat and bird, in this order.

    >>> ranking_text(0)[0]
    'If you had to choose between a dog, a cat and a bird, which would you prefer?'
    >>> ranking_text(0)[1][1]
    'I prefer a cat over a dog and a bird.'
    """
    question, slots, answer = np.unravel_index(row, SUPPORT)
    order, texts = ORDERS_OF_THREE[slots], templates()
    names = [ANIMALS[animal] for animal in order]
    template = texts.answers[answer].replace("<B>", "<B> and <C>")
    responses = [
        fill(template, name, *(other for other in names if other != name), nouns=nouns)
        for name in ANIMALS
    ]
    asked = fill(texts.questions_of_three[question], *names, nouns=nouns)
    return asked, (responses[0], responses[1], responses[2])


def ranking_support_records(*, nouns: Nouns = "article") -> list[Preference]:
    """Return all 3,600 rows, the responses of each for dog, cat and bird (**not** best first).

    >>> ranking_support_records()[0].responses[0]
    'I prefer a dog over a cat and a bird.'
    """
    rows = range(int(np.prod(SUPPORT)))
    return [
        Preference(*ranking_text(row, nouns=nouns), f"animal ranking row {row}") for row in rows
    ]


def ranking_probabilities(p12: ArrayLike, p23: ArrayLike) -> Float[Array, "6"]:
    """Return P(ranking) for each of ``ORDERS_OF_THREE``, over the places of omega, best first.

    ``P(i, j, k) = w_i / (w_1 + w_2 + w_3) p_jk`` with the strengths w_1 : w_2 : w_3 =
    p12 p23 : (1 - p12) p23 : (1 - p12)(1 - p23) (Plackett-Luce, the paper's Eq. 6).

    Parameters
    ----------
    p12, p23 : array_like, shape (), in [0, 1]
        Pairwise probabilities. Not both sure and opposed (1 and 0, or 0 and 1): p13, and with it
        the ranking, is then left open.

    Returns
    -------
    array, shape (6,)
        Probabilities summing to 1. NaN under tracing where they are left open.

    Examples
    --------
    >>> print(ranking_probabilities(0.5, 0.5).round(4))
    [0.1667 0.1667 0.1667 0.1667 0.1667 0.1667]
    """
    for name, value in (("p12", p12), ("p23", p23)):
        check_between(name, value, 0.0, 1.0, what="a probability in [0, 1]")
    first, second = nx.as_floats(p12, p23)
    weights = _strengths(first, second)
    third = weights[0] / (weights[0] + weights[2])  # p13
    pairwise = {(0, 1): first, (1, 2): second, (0, 2): third}
    pairwise |= {(j, i): 1 - p for (i, j), p in pairwise.items()}
    total = jnp.sum(weights)
    return jnp.stack([weights[i] / total * pairwise[j, k] for i, j, k in ORDERS_OF_THREE])


def _strengths(p12: Array, p23: Array) -> Float[Array, "3"]:
    """Return Plackett-Luce strengths up to a factor."""
    return jnp.stack([p12 * p23, (1 - p12) * p23, (1 - p12) * (1 - p23)])


def sample_animal_rankings(
    omega: tuple[str, ...], p12: ArrayLike, p23: ArrayLike, *, key: Any, count: int = 1024
) -> AnimalRankings:
    """Sample rankings of the three animals, questions and answers uniformly.

    Parameters
    ----------
    omega : tuple of str
        The animals in the order omega_1, omega_2, omega_3.
    p12, p23 : float in [0, 1]
        As in :func:`ranking_probabilities`.
    key : int, numpy.random.Generator or jax.random.key
        Source of randomness.
    count : int
        Number of rankings. Each says as much as three pairs, one of them (1, 3).

    Raises
    ------
    InputError
        If a probability leaves [0, 1], p13 is left open, or `omega` is no permutation.

    Examples
    --------
    >>> sample_animal_rankings(("cat", "dog", "bird"), 1.0, 1.0, key=0, count=1).ranking
    array([[1, 0, 2]], dtype=int32)
    """
    places = np.asarray(places_of(omega), np.int32)
    count = check_count("count", count)
    chances = np.asarray(ranking_probabilities(p12, p23), np.float64)
    if np.isnan(chances).any():
        raise InputError(f"p12, p23: expected no sure opposites; p13 is left open at {p12}, {p23}")
    random = generator(key)
    which = random.choice(6, size=count, p=chances / chances.sum())
    return AnimalRankings(
        random.integers(SUPPORT[0], size=count, dtype=np.int32),
        random.integers(len(ORDERS_OF_THREE), size=count, dtype=np.int32),
        random.integers(SUPPORT[2], size=count, dtype=np.int32),
        places[np.asarray(ORDERS_OF_THREE, np.int32)[which]],
    )
