"""The audit of rankings: derivatives against refits, and every flip fitted again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import jaxpref as jp
from jaxpref._checks import InputError
from jaxpref.audit.ranked import Influences
from jaxpref.audit.ranked_terms import RankingProfile, RankingTerms
from jaxpref.data import Rankings
from jaxpref.fit import fit_rankings


def drawn(seed: int, count: int = 60, *, unlisted: Any = "ignored") -> Rankings:
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 0.7, 6)
    lists = []
    for _ in range(count):
        who = rng.choice(6, rng.integers(2, 6), replace=False)
        noisy = truth[who] + rng.gumbel(size=len(who))
        lists.append([f"item{k}" for k in who[np.argsort(-noisy)]])
    rater = [f"rater{k % 4}" for k in range(count)]
    return Rankings.from_lists(lists, rater=rater, unlisted=unlisted)


@pytest.mark.parametrize("unlisted", ["ignored", "last"])
def test_responses_are_derivatives_by_the_weights(unlisted):
    data = drawn(0, unlisted=unlisted)
    fit = fit_rankings(data)
    response = Influences(fit).responses()
    np.testing.assert_allclose(response.sum(axis=1), 0, atol=1e-12)
    for ranking in (0, 17, 41):
        ends = []
        for step in (1e-4, -1e-4):
            weight = data.weight.copy()
            weight[ranking] += step
            ends.append(fit_rankings(replace(data, weight=weight), tolerance=1e-12).scores)
        np.testing.assert_allclose(response[ranking], (ends[0] - ends[1]) / 2e-4, atol=1e-7)


def test_fragile_pairs_name_the_ranking_they_rest_on():
    fit = fit_rankings(drawn(1))
    report = jp.audit(fit, top=4, flips=False, groups=False)
    response = Influences(fit).responses()
    worst = 0.0
    for i in range(6):
        for j in range(i):
            p = fit.probability(fit.items[i], fit.items[j])
            worst = max(worst, p * (1 - p) * np.abs(response[:, i] - response[:, j]).max())
    first = report.pairs[0]
    assert abs(first.derivative) == pytest.approx(worst, rel=1e-10)
    assert first.low < first.probability < first.high
    assert len(report.pairs) == 4 and len(report.leaderboard) == 6


def test_flips_and_raters_are_refits():
    data = drawn(2)
    fit = fit_rankings(data)
    report = jp.audit(fit, k=2)
    confirmed = [flip for flip in report.flips if flip.status == "confirmed"]
    assert {flip.question for flip in confirmed} == {"winner", "top_k", "pair"}
    for flip in confirmed:
        weight = data.weight.copy()
        for move in flip.moves:
            weight[move.ranking] -= move.count
        again = fit_rankings(replace(data, weight=weight))
        assert again.margin(flip.ahead, flip.behind) == pytest.approx(flip.margin_after, abs=1e-8)
        assert flip.margin_after is not None and flip.margin_after < 0
        assert flip.comparisons == sum(move.count for move in flip.moves)
    (raters,) = report.groups
    for row in raters.rows:
        mine = data.rater == data.raters.index(row.name[0])
        again = fit_rankings(replace(data, weight=np.where(mine, 0.0, data.weight)))
        assert row.item_a is not None and row.item_b is not None
        assert row.after == pytest.approx(again.probability(row.item_a, row.item_b), abs=1e-8)
    assert json.dumps(report.to_dict(), allow_nan=False)
    for found in report.influences:
        weight = data.weight.copy()
        weight[found.ranking] = 0
        again = fit_rankings(replace(data, weight=weight))
        assert found.after == pytest.approx(again.probability(found.item_a, found.item_b), abs=1e-8)


def test_two_items_flip_as_comparisons_do():
    fit = fit_rankings(Rankings.from_lists([["x", "y"]] * 5 + [["y", "x"]] * 2))
    flips = jp.audit(fit).flips
    assert [flip.comparisons for flip in flips] == [4, 4]


def test_what_cannot_be_audited_is_refused():
    tied = Rankings.from_lists([["x", "y"], ["y", "x"], [["x", "y"]]])
    with pytest.raises(InputError, match="without tie parameters"):
        jp.audit(fit_rankings(tied, ties="davidson_luce"))
    fit = fit_rankings(drawn(3))
    with pytest.raises(InputError, match="k: expected at most the number of items, 6; got 7"):
        jp.audit(fit, k=7)
    with pytest.raises(InputError, match="limit: expected"):
        jp.audit(fit, limit=-1)
    with pytest.raises(InputError, match="closest: 'item"):
        jp.audit(fit, flip_pairs=[("itm1", "item2")])
    unfinished = fit_rankings(drawn(3), max_steps=1, throw=False)
    with pytest.raises(InputError, match="expected a converged fit"):
        jp.audit(unfinished)


def test_near_best_models_of_pairs_are_those_of_comparisons():
    rng = np.random.default_rng(5)
    lists = []
    for _ in range(40):
        a, b = rng.choice(4, 2, replace=False)
        lists.append([f"item{a}", f"item{b}"] if rng.random() < 0.6 else [f"item{b}", f"item{a}"])
    rankings = Rankings.from_lists(lists)
    fit = fit_rankings(rankings)
    options: dict[str, Any] = {"flips": False, "groups": False, "loss": 1.5}
    found = jp.audit(fit, **options).multiplicity
    same = jp.audit(jp.fit_pairwise(rankings.comparisons()), collect=False, **options).multiplicity
    assert found is not None and found.loss == same.loss == 1.5
    assert found.share_reversible == same.share_reversible
    assert found.largest_width == pytest.approx(same.largest_width, abs=1e-9)
    for mine, other in zip(found.rows, same.rows, strict=True):
        assert mine[:2] == other[:2]
        np.testing.assert_allclose(mine[2:], other[2:], atol=1e-7)


def test_the_ends_of_a_range_cost_the_loss_and_no_model_within_it_goes_further():
    data = drawn(6)
    fit = fit_rankings(data, ridge=0.1)
    terms = RankingTerms(data, 0.1)
    np.testing.assert_allclose(terms.gradient(fit.scores), 0, atol=1e-8)
    unpenalised = terms.value(fit.scores) + 0.05 * fit.scores @ fit.scores
    assert unpenalised == pytest.approx(fit.log_likelihood, abs=1e-9)
    profile = RankingProfile(fit, fit.covariance(), 2.0)
    unit = np.zeros(6)
    unit[[0, 3]] = 1.0, -1.0
    end = profile.extreme(unit, 1.0)
    rng = np.random.default_rng(0)
    best = terms.value(fit.scores)
    reached = []
    for _ in range(200):  # along random directions, as far as the loss allows
        way = np.linalg.cholesky(fit.covariance() + 1 / 6) @ rng.normal(size=6)
        way -= way.mean()
        far = 1.0
        while best - terms.value(fit.scores + far * way) > 2.0:
            far *= 0.9
        reached.append(float(unit @ (fit.scores + far * way)))
    assert float(unit @ fit.scores) < max(reached) < end + 1e-9


def test_a_rater_who_moves_nothing_names_two_items():
    lists = [["x", "y"], ["y", "x"], ["x", "z"], ["z", "x"], ["y", "z"], ["z", "y"]]
    data = Rankings.from_lists(lists * 2, rater=["one"] * 6 + ["two"] * 6)
    report = jp.audit(fit_rankings(data), flips=False)
    for row in report.groups[0].rows:
        assert row.item_a != row.item_b
        assert row.before == pytest.approx(0.5) and row.after == pytest.approx(0.5)
    for row in report.influences:
        assert row.item_a != row.item_b
