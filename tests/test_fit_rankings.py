"""Plackett-Luce fits: laws, exact answers, an independent implementation, hard places."""

from __future__ import annotations

import itertools
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from jaxpref._checks import (
    ConvergenceError,
    DataError,
    DisconnectedComparisonsError,
    InputError,
    TiesError,
)
from jaxpref.data import Rankings
from jaxpref.fit import fit_pairwise, fit_rankings
from jaxpref.models import plackett_luce_log_probability
from tests import tolerances as tol

pytestmark = pytest.mark.slow


def draw_rankings(seed: int, count: int, size: int, places: int, *, spread: float = 1.0):
    """Return rankings drawn from the model, partial where places < size, and the true scores."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, spread, size)
    item = np.stack([rng.permutation(size)[:places] for _ in range(count)])
    luck = truth[item] + rng.gumbel(size=item.shape)
    return np.take_along_axis(item, np.argsort(-luck, axis=1), axis=1), truth - truth.mean()


def centred(scores) -> np.ndarray:
    return np.asarray(scores) - np.mean(scores)


# Laws


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), many=st.booleans())
def test_relabelling_items_permutes_the_scores(seed, many):
    size = 20 if many else 6
    table, _ = draw_rankings(seed, 300, size, 5)
    order = np.random.default_rng(seed).permutation(size)
    names = [f"item {k:02}" for k in range(size)]
    one = fit_rankings(Rankings.from_lists(table, items=names), ridge=1e-3)
    two = fit_rankings(Rankings.from_lists(order[table], items=names), ridge=1e-3)
    np.testing.assert_allclose(two.scores[order], one.scores, atol=1e-9)


@pytest.mark.parametrize("size", [3, 15])
def test_rankings_of_two_are_comparisons(size):
    table, _ = draw_rankings(4, 400, size, 2)
    rankings = Rankings.from_lists(table)
    pairs, fit = fit_pairwise(rankings.comparisons()), fit_rankings(rankings)
    np.testing.assert_allclose(fit.scores, pairs.scores, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fit.covariance(), pairs.covariance(), atol=1e-9)
    assert fit.log_likelihood == pytest.approx(pairs.log_likelihood, rel=tol.EXACT)
    assert [r.wins for r in fit.to_rows()] == [r.wins for r in pairs.to_rows()]


@pytest.mark.parametrize("size", [6, 20])
def test_a_weight_is_a_number_of_repeats(size):
    table, _ = draw_rankings(3, 120, size, 5)
    repeats = np.random.default_rng(3).integers(0, 4, len(table))
    one = fit_rankings(Rankings.from_lists(table, weight=repeats), ridge=0.01)
    two = fit_rankings(
        Rankings.from_lists(np.repeat(table, repeats, axis=0), items=one.items), ridge=0.01
    )
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-9)
    np.testing.assert_allclose(one.covariance(), two.covariance(), atol=1e-9)


def test_sets_and_lists_hold_the_same_likelihood():
    """Thirteen items are too many to count choice sets: leave one out of the data."""
    table, _ = draw_rankings(8, 200, 12, 7)
    by_sets = fit_rankings(Rankings.from_lists(table), ridge=0.2)
    names = [f"{k}" for k in range(13)]
    by_lists = fit_rankings(Rankings.from_lists(table, items=names), ridge=0.2)
    np.testing.assert_allclose(by_sets.scores, centred(by_lists.scores[:12]), atol=1e-9)


def test_rankings_of_many_lengths_are_a_sum_over_lengths():
    table, _ = draw_rankings(5, 60, 30, 30)
    lengths = np.random.default_rng(5).integers(2, 31, 60)
    lists = [row[:k].tolist() for row, k in zip(table, lengths, strict=True)]
    fit = fit_rankings(Rankings.from_lists(lists), ridge=0.1)
    value = sum(float(plackett_luce_log_probability(fit.scores[np.array(one)])) for one in lists)
    assert fit.log_likelihood == pytest.approx(value, rel=tol.EXACT)


def test_a_top_list_says_that_the_rest_come_after():
    """Two items listed of five: the same as the sum over all orders of the other three."""
    table, _ = draw_rankings(6, 80, 5, 5)
    tops = Rankings.from_lists(table[:, :2], items=tuple("abcde"), unlisted="last")
    fit = fit_rankings(tops, ridge=0.01)

    def loss(s):
        value = 0.0
        for first, second, *_ in table:
            value += s[first] - np.logaddexp.reduce(s)
            value += s[second] - np.logaddexp.reduce(np.delete(s, first))
        return -value + 0.005 * s @ s

    found = minimize(loss, np.zeros(5), method="BFGS", jac="3-point", options={"gtol": 1e-7})
    np.testing.assert_allclose(fit.scores, found.x, atol=tol.SOLVER)
    ignored = Rankings.from_lists(table[:, :2], items=tuple("abcde"))
    assert abs(fit_rankings(ignored, ridge=0.01).scores - fit.scores).max() > 0.1


# Exact answers


def test_two_items_have_the_log_odds_of_their_counts():
    lists = [["x", "y"]] * 3 + [["y", "x"]]
    fit = fit_rankings(Rankings.from_lists(lists))
    assert fit.margin("x", "y") == pytest.approx(np.log(3), abs=1e-10)
    assert fit.standard_errors()[0] == pytest.approx(np.sqrt(1 / (4 * 4 * 0.75 * 0.25)), rel=1e-9)
    assert fit.log_likelihood == pytest.approx(3 * np.log(0.75) + np.log(0.25), abs=tol.EXACT)


def test_every_order_once_makes_all_items_equal():
    orders = list(itertools.permutations(range(4)))
    fit = fit_rankings(Rankings.from_lists(np.array(orders)))
    np.testing.assert_allclose(fit.scores, 0, atol=1e-10)
    assert fit.log_likelihood == pytest.approx(-24 * np.log(24), rel=tol.EXACT)


@pytest.mark.parametrize("most", [3, 1_000_000])
def test_a_path_of_pairs_has_the_log_odds_of_its_edges(most):
    size = 60
    rng = np.random.default_rng(size)
    wins = rng.choice([1.0, 2.0, float(most)], (2, size - 1))
    ahead = np.stack([np.arange(size - 1), np.arange(1, size)], axis=1)
    table = np.concatenate([ahead, ahead[:, ::-1]])
    fit = fit_rankings(Rankings.from_lists(table, weight=wins.ravel()))
    expected = centred(np.concatenate([[0.0], -np.cumsum(np.log(wins[0] / wins[1]))]))
    np.testing.assert_allclose(fit.scores, expected, rtol=0, atol=1e-8)


# Independent implementation


@pytest.mark.parametrize(("size", "places"), [(6, 4), (6, 6), (16, 4)])
@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_scores_maximise_the_likelihood_of_scipy(size, places, ridge):
    table, _ = draw_rankings(11, 250, size, places)

    def loss(s):
        x = s[table]
        rest = np.logaddexp.accumulate(x[:, ::-1], axis=1)[:, ::-1]
        return -(x - rest).sum() + ridge / 2 * s @ s + s.sum() ** 2

    fit = fit_rankings(Rankings.from_lists(table), ridge=ridge)
    found = minimize(loss, np.zeros(size), method="BFGS", jac="3-point", options={"gtol": 1e-6})
    np.testing.assert_allclose(fit.scores, found.x, rtol=0, atol=tol.SOLVER)
    assert loss(fit.scores) <= found.fun + 1e-9


@pytest.mark.parametrize("size", [7, 14])
def test_information_is_minus_the_hessian(size):
    table, _ = draw_rankings(2, 40, size, 6)
    fit = fit_rankings(Rankings.from_lists(table), ridge=0.3)

    def value(s):
        return jax.numpy.sum(plackett_luce_log_probability(s[table]))

    hessian = jax.hessian(value)(jax.numpy.asarray(fit.scores))
    np.testing.assert_allclose(fit.fisher_information, -hessian, atol=1e-10)


@pytest.mark.parametrize("spread", [1.0, 7.0])
def test_strengths_give_the_derivatives_that_scores_give(spread):
    """Weighted top-k lists of different lengths; products keep 7 digits, all else 12 and more."""
    from jaxpref.fit._host import float64
    from jaxpref.fit.rankings_problems import ListProblem
    from jaxpref.fit.rankings_setup import prepare
    from jaxpref.fit.rankings_strengths import StrengthProblem

    table, truth = draw_rankings(11, 70, 20, 20, spread=spread)
    rng = np.random.default_rng(11)
    lists = [row[:k].tolist() for row, k in zip(table, rng.integers(1, 21, 70), strict=True)]
    rankings = Rankings.from_lists(lists, weight=rng.random(70), unlisted="last")
    with float64():
        ready = prepare(rankings, rankings.weight, tied=False)
        far = ready.problem
        assert isinstance(far, ListProblem)
        near = StrengthProblem(far.blocks)
        scores = np.zeros(ready.start.size)
        scores[:20] = truth
        vector = np.where(np.arange(scores.size) < 20, rng.normal(size=scores.size), 0.0)
        one, two = near.evaluate(jax.numpy.asarray(scores)), far.evaluate(jax.numpy.asarray(scores))
        products = [
            np.asarray(problem.product(found.cache, jax.numpy.asarray(vector)))
            for problem, found in ((near, one), (far, two))
        ]
        values = [float(p.log_likelihood(jax.numpy.asarray(scores))) for p in (near, far)]
    np.testing.assert_allclose(one.gradient, two.gradient, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(one.diagonal, two.diagonal, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(*products, rtol=0, atol=1e-6 * np.abs(products[1]).max())
    assert values[0] == pytest.approx(values[1], rel=tol.EXACT)


def test_scores_far_apart_are_not_left_to_strengths(monkeypatch):
    """A path of items, each 100:1 over the next: 18 of them span 78 nats."""
    from jaxpref.fit import rankings_setup

    asked = []
    search = rankings_setup.maximise_rankings

    def counting(problem, *rest, **options):
        asked.append(type(problem).__name__)
        return search(problem, *rest, **options)

    monkeypatch.setattr(rankings_setup, "maximise_rankings", counting)
    lists = [pair for k in range(17) for pair in ([k, k + 1], [k + 1, k])]
    fit = fit_rankings(Rankings.from_lists(lists, weight=[100.0, 1.0] * 17))
    np.testing.assert_allclose(np.diff(fit.scores), -np.log(100), atol=1e-9)
    assert asked == ["StrengthProblem", "ListProblem"]


def test_conjugate_gradients_find_what_factoring_finds(monkeypatch):
    from jaxpref.fit import rankings_setup

    table, _ = draw_rankings(9, 3000, 60, 8)
    rankings = Rankings.from_lists(table)
    factored = fit_rankings(rankings)
    monkeypatch.setattr(rankings_setup, "DENSE_WORK", 0)
    iterated = fit_rankings(rankings)
    np.testing.assert_allclose(iterated.scores, factored.scores, rtol=0, atol=1e-9)


# Ties


TIED = [
    ["a", ["b", "c"], "d"],
    ["b", "a", ["c", "d"]],
    [["a", "d"], "b", "c"],
    ["c", "a", "d", "b"],
    ["d", "c", "b", "a"],
    [["a", "b", "c"], "d"],
    ["d", ["a", "c"]],
]


def tied_log_likelihood(rankings: Rankings, scores, log_delta: dict[int, float]) -> float:
    """Sum over all groups that could have been chosen: slow, obvious."""
    value, index = 0.0, {name: k for k, name in enumerate(rankings.items)}
    for one in rankings.lists():
        groups = [[index[n] for n in (g if isinstance(g, list) else [g])] for g in one]
        for place, group in enumerate(groups):
            left = sum(groups[place:], [])
            terms = [
                delta + np.mean(scores[list(subset)])
                for size, delta in log_delta.items()
                for subset in itertools.combinations(left, size)
            ]
            value += log_delta[len(group)] + np.mean(scores[group]) - np.logaddexp.reduce(terms)
    return value


def test_ties_follow_the_davidson_luce_model():
    rankings = Rankings.from_lists(TIED)
    fit = fit_rankings(rankings, ties="davidson_luce")
    assert fit.tie_orders == (2, 3) and fit.status == "converged"

    def loss(x):
        delta = {1: 0.0, 2: x[4], 3: x[5]}
        return -tied_log_likelihood(rankings, x[:4], delta) + x[:4].sum() ** 2

    found = minimize(loss, np.zeros(6), method="BFGS", jac="3-point", options={"gtol": 1e-7})
    np.testing.assert_allclose(
        np.concatenate([fit.scores, fit.log_tie_parameters]), found.x, atol=tol.SOLVER
    )
    assert fit.log_likelihood == pytest.approx(-found.fun, abs=1e-9)
    # Standard errors: the inverse of the Hessian by differences.
    point = found.x
    steps = np.eye(6) * 1e-4
    hessian = np.array(
        [[(loss(point + a + b) - loss(point + a - b) - loss(point - a + b) + loss(point - a - b))
          / 4e-8 for a in steps] for b in steps]
    )  # fmt: skip
    errors = np.sqrt(np.diag(np.linalg.inv(hessian)))
    np.testing.assert_allclose(fit.tie_standard_errors(), errors[4:], rtol=1e-3)
    margin = fit.covariance()
    expected = np.linalg.inv(hessian)
    contrast = np.array([1.0, -1.0, 0, 0])
    assert contrast @ margin @ contrast == pytest.approx(
        contrast @ expected[:4, :4] @ contrast, rel=1e-3
    )


def test_two_items_with_ties_have_davidsons_closed_form():
    """w, l and t of them: margin log(w/l), delta t / sqrt(w l)."""
    lists = [["x", "y"]] * 8 + [["y", "x"]] * 2 + [[["x", "y"]]] * 6
    fit = fit_rankings(Rankings.from_lists(lists), ties="davidson_luce")
    assert fit.margin("x", "y") == pytest.approx(np.log(4), abs=1e-9)
    assert fit.log_tie_parameters[0] == pytest.approx(np.log(6 / 4), abs=1e-9)
    assert fit.probability("x", "y") == pytest.approx(0.5, abs=1e-9)
    assert fit.tie_probability("x", "y") == pytest.approx(6 / 16, abs=1e-9)
    assert fit.tie_probability("y", "x") == pytest.approx(6 / 16, abs=1e-9)


def test_ties_are_refused_with_their_number_and_the_way_out():
    with pytest.raises(TiesError, match=r"5 of the rankings hold ties.*davidson_luce"):
        fit_rankings(Rankings.from_lists(TIED))


def test_a_tie_parameter_without_end_is_refused():
    lists = [[["x", "y"], ["z", "w"]], [["z", "w"], ["x", "y"]]]
    with pytest.raises(DataError, match="tie parameter would be infinite"):
        fit_rankings(Rankings.from_lists(lists), ties="davidson_luce", ridge=1.0)


# Hard places


def test_gaps_of_two_hundred_nats():
    """A chain of pairs won e^40 to 1, five deep, ranked all at once as well."""
    ahead = np.stack([np.arange(5), np.arange(1, 6)], axis=1)
    table = np.concatenate([ahead, ahead[:, ::-1]]).tolist()
    weight = [1.0] * 5 + [float(np.exp(-40.0))] * 5
    table.append(list(range(6)))
    fit = fit_rankings(Rankings.from_lists(table, weight=[*weight, 1.0]))
    assert np.ptp(fit.scores) > 200
    gaps = -np.diff(fit.scores)
    # Each item beats the next once alone and once in the long ranking.
    np.testing.assert_allclose(gaps, 40 + np.log(2), atol=1e-6)


def test_one_ranking_has_no_fit_and_a_ridge_gives_one():
    rankings = Rankings.from_lists([["x", "y", "z"]])
    with pytest.raises(DisconnectedComparisonsError, match=r"'x'.*rankings.drop"):
        fit_rankings(rankings)
    fit = fit_rankings(rankings, ridge=0.1)
    assert fit.rank() == ("x", "y", "z") and fit.components.count == 3


def test_islands_and_winless_items_are_named():
    islands = [["a", "b"], ["b", "a"], ["c", "d"], ["d", "c"]]
    with pytest.raises(DisconnectedComparisonsError, match="2 islands"):
        fit_rankings(Rankings.from_lists(islands))
    assert fit_rankings(Rankings.from_lists(islands), ridge=0.1).islands.count == 2
    last = [["a", "b", "loser"], ["b", "a", "loser"]]
    with pytest.raises(DisconnectedComparisonsError, match="Never beat another item: 'loser'"):
        fit_rankings(Rankings.from_lists(last))


def test_rankings_without_weight_do_not_connect():
    rankings = Rankings.from_lists([["x", "y"], ["y", "x"]], weight=[1.0, 0.0])
    with pytest.raises(DisconnectedComparisonsError):
        fit_rankings(rankings)
    with pytest.raises(DataError, match="weight above 0"):
        fit_rankings(Rankings.from_lists([["x", "y"]], weight=[0.0]))


def test_running_out_of_steps_is_said():
    table, _ = draw_rankings(1, 200, 15, 5)
    with pytest.raises(ConvergenceError, match="ran out of steps after"):
        fit_rankings(Rankings.from_lists(table), max_steps=1)
    fit = fit_rankings(Rankings.from_lists(table), max_steps=1, throw=False)
    assert fit.status == "max_steps"


def test_what_is_no_ranking_is_refused():
    with pytest.raises(InputError, match="ridge"):
        fit_rankings(Rankings.from_lists(TIED), ridge=-1.0)


def test_scores_are_the_same_in_every_jax_setting():
    table, _ = draw_rankings(1, 200, 15, 5)
    with jax.enable_x64(False):
        low = fit_rankings(Rankings.from_lists(table))
        assert jax.numpy.ones(1).dtype == np.float32
    high = fit_rankings(Rankings.from_lists(table))
    assert low.scores.dtype == np.float64 and abs(low.scores.sum()) < tol.ULP
    np.testing.assert_array_equal(low.scores, high.scores)


def test_second_data_set_of_about_the_same_size_compiles_nothing():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **kwargs: compiled.append(event)
    )
    tables = [draw_rankings(k, 300 + k, 50 + k, 5)[0] for k in (1, 2)]
    fit_rankings(Rankings.from_lists(tables[0]), ridge=0.1)
    first = sum("backend_compile" in event for event in compiled)
    fit_rankings(Rankings.from_lists(tables[1]), ridge=0.1)
    assert sum("backend_compile" in event for event in compiled) == first > 0


# What the result says


def test_the_result_answers_by_name_and_goes_through_json():
    fit = fit_rankings(Rankings.from_lists(TIED), ties="davidson_luce")
    written = json.loads(json.dumps(fit.to_dict()))
    assert written["status"] == "converged" and set(written["model"]["tie_parameters"]) == {
        "2",
        "3",
    }
    with pytest.raises(InputError, match="expected one of the 4 fitted items"):
        fit.probability("a", "e")
    assert fit.probability("a", "b") + fit.probability("b", "a") + fit.tie_probability(
        "a", "b"
    ) == pytest.approx(1, abs=tol.ULP)
