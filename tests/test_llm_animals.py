"""The animal data: the paper's templates, the sampler against its exact distribution, the ends."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import jax
import numpy as np
import pytest
from tolerances import MONTE_CARLO, ULP

from jaxpref import InputError
from jaxpref.llm.animal_rankings import (
    ranking_probabilities,
    ranking_support_records,
    ranking_text,
    sample_animal_rankings,
)
from jaxpref.llm.animals import (
    ANIMALS,
    ORDERED_PAIRS,
    PERMUTATIONS,
    fill,
    generator,
    outcome_probabilities,
    sample_pairs,
    sequence_text,
    support_records,
    templates,
)

OMEGA = ("dog", "bird", "cat")


def test_the_templates_are_the_papers_in_number_and_kind():
    texts = templates()
    assert (len(texts.questions), len(texts.answers)) == (20, 30)
    assert len(set(texts.questions)) == 20 and len(set(texts.answers)) == 30
    for question in texts.questions:
        assert question.count("<A>") == question.count("<B>") == 1
        assert question.endswith("?") and "??" not in question
    for place, answer in enumerate(texts.answers, start=1):
        assert answer.endswith(".") and answer.count("<A>") >= 1
        assert ("<B>" in answer) == (place != 4)  # "I just prefer <A>."
        assert "  " not in answer and " ." not in answer
    for two, three in zip(texts.questions, texts.questions_of_three, strict=True):
        assert (
            three.count("<A>") == three.count("<B>") == three.count("<C>") == 1 != two.count("<C>")
        )


def test_the_support_has_7200_different_sequences():
    records = support_records()
    assert len(records) == 3600
    texts = {(record.prompt, response) for record in records for response in record.responses}
    assert len(texts) == 7200
    for row in (0, 777, 3599):
        assert records[row].responses == (sequence_text(2 * row)[1], sequence_text(2 * row + 1)[1])
        assert records[row].prompt == sequence_text(2 * row)[0]


def test_the_nouns_are_as_asked():
    template = "Between <A> and <B>, <A> comes out on top for me."
    bare = "Between dog and cat, dog comes out on top for me."
    assert fill(template, "dog", "cat", nouns="bare") == bare
    assert fill(template, "dog", "cat") == fill(template, "dog", "cat", nouns="article")
    assert fill(template, "dog", "cat", nouns="plural").startswith("Between dogs and cats, dogs")
    assert fill(template, "dog", "cat", nouns="article").startswith("Between a dog and a cat,")
    with pytest.raises(InputError, match="nouns"):
        fill(template, "dog", "cat", nouns="the")


def test_equal_keys_give_equal_samples_of_every_kind():
    def rows(key):
        return sample_pairs(OMEGA, 0.7, 0.2, key=key, count=50).chosen_sequence.tolist()

    assert rows(5) == rows(5) == rows(np.random.default_rng(5)) != rows(6)
    key = jax.random.key(5)
    assert rows(key) == rows(jax.random.key(5)) == rows(jax.random.key_data(key)) != rows(5)
    assert generator(key).random() == generator(key).random()


@pytest.mark.parametrize("slots", ["random", "fixed"])
def test_samples_follow_the_exact_distribution(slots):
    count = 20_000
    data = sample_pairs(OMEGA, 0.8, 0.3, key=1, count=count, share_12=0.4, slots=slots)
    exact = np.asarray(outcome_probabilities(OMEGA, 0.8, 0.3, share_12=0.4, slots=slots))
    assert (data.answer == data.rejected_answer).all()
    drawn = np.bincount(data.chosen_sequence, minlength=7200).reshape(20, 6, 30, 2)
    exact = exact.reshape(20, 6, 30, 2)
    assert not drawn[exact == 0].any()
    for axes in [
        (0, 2),
        (1, 2, 3),
        (0, 1, 3),
        (0, 1, 2),
    ]:  # pair and winner, question, answer, slot
        p, n = exact.sum(axes), drawn.sum(axes)
        error = np.sqrt(count * p * (1 - p))
        assert (np.abs(n - count * p) <= MONTE_CARLO * error).all()


@pytest.mark.parametrize("omega", PERMUTATIONS)
def test_the_distribution_says_p12_and_p23_and_nothing_of_p13(omega):
    table = np.asarray(outcome_probabilities(omega, 0.99, 0.25)).reshape(20, 6, 30, 2)
    np.testing.assert_allclose(table.sum(), 1, rtol=ULP)
    by_pair = table.sum((0, 2))
    for (a, b), p in {(0, 1): 0.99, (1, 2): 0.25, (0, 2): None}.items():
        first, second = (ANIMALS.index(omega[k]) for k in (a, b))
        straight, turned = (
            ORDERED_PAIRS.index((first, second)),
            ORDERED_PAIRS.index((second, first)),
        )
        wins = by_pair[straight, 0] + by_pair[turned, 1]
        losses = by_pair[straight, 1] + by_pair[turned, 0]
        if p is None:
            assert wins == losses == 0
        else:
            np.testing.assert_allclose([wins, losses], [p / 2, (1 - p) / 2], rtol=ULP)


@pytest.mark.parametrize(("p12", "p23"), [(0.0, 1.0), (1.0, 0.0), (1, 1)])
def test_sure_preferences_are_sure(p12, p23):
    data = sample_pairs(OMEGA, p12, p23, key=0, count=400)
    ranks = {("dog", "bird"): p12, ("bird", "cat"): p23}
    for record, pair in zip(data.records(), data.pair, strict=True):
        names = [ANIMALS[k] for k in ORDERED_PAIRS[pair]]
        (first, second), p = next(
            (order, p) for order, p in ranks.items() if set(order) == set(names)
        )
        winner, loser = (first, second) if p else (second, first)
        known = [fill(answer, winner, loser) for answer in templates().answers]
        assert record.chosen in known and record.rejected not in known


def test_a_random_template_for_the_rejected_answer_is_drawn_for_itself():
    data = sample_pairs(OMEGA, 0.5, 0.5, key=0, count=600, rejected_template="random")
    same = (data.answer == data.rejected_answer).mean()
    assert 0 < same < 0.1  # about 1 in 30
    record = data.records()[0]
    assert record.prompt == sequence_text(int(data.rejected_sequence[0]))[0]
    assert record.rejected == sequence_text(int(data.rejected_sequence[0]))[1]


def test_the_distribution_is_linear_and_differentiable_in_p23():
    def table(p23):
        return outcome_probabilities(OMEGA, 0.99, p23)

    _, slope = jax.jvp(table, (0.3,), (1.0,))
    ends = table(1.0) - table(0.0)
    np.testing.assert_allclose(slope, ends, rtol=1e-12, atol=1e-18)
    assert np.abs(slope).sum() > 0.9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"p12": 1.2}, "p12: expected a probability in"),
        ({"p23": -0.1}, "p23: expected a probability in"),
        ({"p23": float("nan")}, "p23: expected a probability in"),
        ({"omega": ("dog", "cat", "cow")}, "omega: expected a permutation of dog, cat, bird"),
        ({"omega": ("dog", "cat")}, "omega"),
        ({"count": 0}, "count"),
        ({"slots": "sorted"}, "slots"),
        ({"rejected_template": "other"}, "rejected_template"),
    ],
)
def test_what_cannot_be_sampled_is_named(change, says):
    options = {"omega": OMEGA, "p12": 0.5, "p23": 0.5, "key": 0} | change
    with pytest.raises(InputError, match=says):
        sample_pairs(options.pop("omega"), options.pop("p12"), options.pop("p23"), **options)


# Rankings of three.


@pytest.mark.parametrize(("p12", "p23"), [(0.99, 0.3), (0.5, 0.5), (0.99, 0.0), (0.2, 1.0)])
def test_ranking_probabilities_have_the_pairs_probabilities(p12, p23):
    chances = np.asarray(ranking_probabilities(p12, p23))
    np.testing.assert_allclose(chances.sum(), 1, rtol=ULP)
    orders = list(permutations(range(3)))

    def above(i, j):
        return sum(
            p for p, order in zip(chances, orders, strict=True) if order.index(i) < order.index(j)
        )

    np.testing.assert_allclose(above(0, 1), p12, rtol=1e-12)
    np.testing.assert_allclose(above(1, 2), p23, rtol=1e-12, atol=1e-15)
    if 0 < p23 < 1:
        margin = np.log(p12 / (1 - p12)) + np.log(p23 / (1 - p23))
        np.testing.assert_allclose(above(0, 2), 1 / (1 + np.exp(-margin)), rtol=1e-12)


def test_rankings_are_sampled_from_these_and_write_three_answers():
    data = sample_animal_rankings(OMEGA, 0.8, 0.4, key=2, count=20_000)
    places = {name: k for k, name in enumerate(OMEGA)}
    drawn = Counter(
        tuple(places[ANIMALS[animal]] for animal in ranking) for ranking in data.ranking.tolist()
    )
    for order, p in zip(permutations(range(3)), ranking_probabilities(0.8, 0.4), strict=True):
        p = float(p)
        assert abs(drawn[order] - 20_000 * p) <= MONTE_CARLO * np.sqrt(20_000 * p * (1 - p))
    record, best = data.records()[0], ANIMALS[data.ranking[0, 0]]
    answer = templates().answers[data.answer[0]]
    assert record.chosen.startswith(fill(answer.split("<B>")[0], best))
    assert len(set(record.responses)) == 3
    assert record.prompt == ranking_text(int(data.row[0]))[0]


def test_the_rankings_support_has_10800_different_sequences():
    records = ranking_support_records()
    assert len({(r.prompt, text) for r in records for text in r.responses}) == 10_800


def test_rankings_left_open_are_refused():
    with pytest.raises(InputError, match="p13 is left open"):
        sample_animal_rankings(OMEGA, 1.0, 0.0, key=0)
    with pytest.raises(InputError, match="p12"):
        sample_animal_rankings(OMEGA, 1.1, 0.0, key=0)
