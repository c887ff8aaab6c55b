"""What to collect, near-best models, other links, dominance and cycles."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import binomtest

from jaxpref import links
from jaxpref.audit import audit
from jaxpref.audit.across import across_links
from jaxpref.audit.collect import what_to_collect
from jaxpref.audit.dominance import bin_counts, count_cycles, describe_dominance
from jaxpref.audit.engine import Engine
from jaxpref.audit.multiplicity import Profile, multiplicity
from jaxpref.audit.terms import counts_of
from jaxpref.data import Comparisons, load_bundled
from jaxpref.fit import FitResult, fit_pairwise
from tests.test_audit_flips import votes
from tests.test_audit_network import random_fit


def grown(fit: FitResult, item_a: str, item_b: str) -> np.ndarray:
    """Return the covariance with one more comparison of a pair, scores where they are."""
    information = np.linalg.pinv(fit.covariance())
    d = np.zeros(fit.num_items)
    d[[fit.index(item_a), fit.index(item_b)]] = 1.0, -1.0
    p = fit.probability(item_a, item_b)
    return np.linalg.pinv(information + p * (1 - p) * np.outer(d, d))


def widest(fit: FitResult, matrix: np.ndarray) -> float:
    own = np.diagonal(matrix)
    error = np.sqrt(np.maximum(own[:, None] + own - 2 * matrix, 0.0))
    margin = fit.scores[:, None] - fit.scores
    high, low = (1 / (1 + np.exp(-margin - sign * 1.959963984540054 * error)) for sign in (1, -1))
    return float((high - low).max())


def test_interval_gains_are_those_of_one_more_comparison():
    fit = random_fit(3, 10, 4)
    found = what_to_collect(fit, objective="interval", top=5)
    assert found.before == pytest.approx(widest(fit, fit.covariance()), rel=1e-9)
    for row in found.rows:
        left = found.before - widest(fit, grown(fit, row.item_a, row.item_b))
        assert row.gain == pytest.approx(left, abs=1e-8)
    every = [
        found.before - widest(fit, grown(fit, a, b))
        for a, b in itertools.combinations(fit.items, 2)
    ]
    assert found.rows[0].gain == pytest.approx(max(every), abs=1e-8)


def test_sensitivity_gains_are_those_of_one_more_comparison():
    fit = random_fit(5, 9, 3)
    found = what_to_collect(fit, objective="sensitivity", top=1)
    quiet: dict[str, Any] = dict.fromkeys(("flips", "groups", "collect", "multiplicity"), False)
    assert found.before == pytest.approx(audit(fit, top=1, **quiet).fragile[0].sensitivity)
    best = found.rows[0]
    # One more comparison that leaves the scores where they are: won by p of a comparison.
    p = fit.probability(best.item_a, best.item_b)
    counts = np.zeros((9, 9))
    counts[fit.pairs.item_a, fit.pairs.item_b] = fit.pairs.wins_a
    counts[fit.pairs.item_b, fit.pairs.item_a] = fit.pairs.wins_b
    a, b = fit.index(best.item_a), fit.index(best.item_b)
    counts[a, b] += p
    counts[b, a] += 1 - p
    after = audit(fit_pairwise(Comparisons.from_counts(counts, fit.items)), top=1, **quiet)
    assert best.gain == pytest.approx(found.before - after.fragile[0].sensitivity, abs=1e-7)


def test_flip_risk_is_that_of_neighbours_in_the_wrong_order():
    fit = random_fit(6, 8, 4)
    found = what_to_collect(fit, objective="flip", top=100)
    ranked, risk = fit.rank(), 0.0
    matrix = fit.covariance()
    for a, b in itertools.pairwise(ranked):
        i, j = fit.index(a), fit.index(b)
        variance = matrix[i, i] + matrix[j, j] - 2 * matrix[i, j]
        risk += ndtr(-abs(fit.margin(a, b)) / np.sqrt(variance))
    assert found.before == pytest.approx(risk, rel=1e-9)
    gains = [row.gain for row in found.rows]
    assert gains == sorted(gains, reverse=True) and gains[0] > 2 * found.uniform_gain > 0


def collected(truth: np.ndarray, start: Comparisons, rule: str, seed: int, count: int) -> float:
    """Return the widest interval after `count` more comparisons chosen by a rule."""
    rng = np.random.default_rng(seed)
    wins, names = start.counts_matrix(), start.items
    for _ in range(count):
        fit = fit_pairwise(Comparisons.from_counts(wins, names))
        if rule == "audit":
            best = what_to_collect(fit, top=1).rows[0]
            a, b = fit.index(best.item_a), fit.index(best.item_b)
        else:
            a, b = rng.choice(len(names), 2, replace=False)
        won = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a]))
        wins[(a, b) if won else (b, a)] += 1
    fit = fit_pairwise(Comparisons.from_counts(wins, names))
    return widest(fit, fit.covariance())


def test_collecting_as_told_beats_uniform_choice():
    rng = np.random.default_rng(0)
    gaps = []
    for seed in range(4):
        truth = rng.normal(0, 1, 6)
        start = votes(seed, 6, 2)
        told, uniform = (collected(truth, start, rule, seed, 25) for rule in ("audit", "uniform"))
        gaps.append(uniform - told)
    assert min(gaps) > 0


# Near-best models


def test_range_of_two_items_is_the_binomial_profile():
    fit = fit_pairwise(Comparisons.from_counts([[0, 7], [3, 0]], items=("a", "b")))
    found = multiplicity(fit, [(0, 1)], loss=0.8).rows[0]

    def lost(p: float) -> float:
        best = 7 * np.log(0.7) + 3 * np.log(0.3)
        return best - 7 * np.log(p) - 3 * np.log(1 - p) - 0.8

    assert found.low == pytest.approx(brentq(lost, 1e-6, 0.7), abs=1e-8)
    assert found.high == pytest.approx(brentq(lost, 0.7, 1 - 1e-6), abs=1e-8)
    assert found.reversible == (found.low < 0.5 < found.high)


@pytest.mark.parametrize(("link", "ridge"), [("logistic", 0.0), ("probit", 0.0), ("logistic", 0.5)])
def test_ends_of_a_range_are_at_the_loss_and_nothing_is_beyond(link, ridge):
    fit = random_fit(7, 7, 4, link=getattr(links, link), ridge=ridge)
    engine, counts = Engine(fit.link, ridge, 7), counts_of(fit)
    profile = Profile(engine, counts, fit.scores, 1.5)
    row = multiplicity(fit, [(1, 4)], loss=1.5).rows[0]
    margin = float(np.asarray(fit.link.margin(row.high)))
    tight = Profile(engine, counts, fit.scores, 1.4999)
    unit = np.zeros(7)
    unit[[1, 4]] = 1.0, -1.0
    inner = tight.extreme(unit, 1.0)
    assert inner < margin and margin - inner < 1e-3
    best = profile.value(fit.scores)
    rng = np.random.default_rng(0)
    for _ in range(200):
        other = fit.scores + rng.normal(0, 0.1, 7)
        if best - profile.value(other) <= 1.5:
            assert other[1] - other[4] <= margin + 1e-9


def test_small_losses_tend_to_the_quadratic_range():
    fit = random_fit(9, 8, 5)
    row = multiplicity(fit, [(0, 3)], loss=1e-4).rows[0]
    assert row.low == pytest.approx(row.quadratic_low, abs=1e-5)
    assert row.high == pytest.approx(row.quadratic_high, abs=1e-5)


# Links


def test_on_a_chain_every_link_fits_exactly_and_keeps_neighbours():
    fit = fit_pairwise(load_bundled("journals_path"))
    found = across_links(fit, k=1)
    for row in found.rows:
        assert row.status in ("converged", "local")
        assert row.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-6)


def test_the_cauchit_fit_is_a_maximum():
    fit = random_fit(3, 8, 6)
    row = next(row for row in across_links(fit, k=3).rows if row.link == "cauchit")
    assert row.status == "local" and row.kendall_tau is not None and row.kendall_tau > 0.5
    assert row.num_reversed == round((1 - row.kendall_tau) / 2 * 28)


# Dominance and cycles


def test_bins_are_table_c2s_with_probabilities_on_their_borders():
    p = np.array([0.04, 0.05, 0.10, 0.5, 0.90, 0.99])
    counts = bin_counts(p, 1 - p)
    # From the first item: 1, 1, 2, 1, 1; from the second, of 1 - p: .96 .95 .9 .5 .01, and 1 - .9,
    # which in binary is below .1.
    assert (2 * counts).tolist() == [2, 2, 3, 4, 1]
    assert bin_counts(np.array([1.0]), np.array([1e-20])).tolist() == [0.5, 0, 0, 0, 0.5]


def test_variance_and_its_modes():
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 2.0, 40)
    chance = 1 / (1 + np.exp(truth[None] - truth[:, None]))
    np.fill_diagonal(chance, 0)
    found = describe_dominance(
        fit_pairwise(Comparisons.from_counts(200 * chance)), top=5, simulations=20, seed=0
    )
    assert found.variance == pytest.approx(np.var(truth, ddof=1), rel=1e-6)
    assert found.bimodal and found.corrected_variance < found.variance
    assert found.deviance == pytest.approx(0, abs=1e-6) and found.deviance_p_value > 0.99


def test_circular_triples_are_counted_and_tested():
    data = votes(2, 8, 5)
    fit = fit_pairwise(data)
    wins = data.counts_matrix()
    expected = {}
    for a, b, c in itertools.permutations(range(8), 3):
        if a == min(a, b, c) and wins[a, b] > wins[b, a]:
            if wins[b, c] > wins[c, b] and wins[c, a] > wins[a, c]:
                tests = [
                    binomtest(int(wins[x, y]), int(wins[x, y] + wins[y, x]), alternative="greater")
                    for x, y in ((a, b), (b, c), (c, a))
                ]
                expected[frozenset((a, b, c))] = max(test.pvalue for test in tests)
    found = count_cycles(fit, top=999, simulations=50, seed=0)
    assert found is not None
    assert (found.circular, found.complete_triples) == (len(expected), 56)
    for row in found.triples:
        key = frozenset(fit.index(x) for x in (row.item_a, row.item_b, row.item_c))
        assert row.p_value == pytest.approx(expected[key], rel=1e-9)
        assert row.p_value <= row.adjusted <= 1 and 0 <= row.p_value_model <= 1


def test_a_planted_cycle_is_found_significant():
    wins = np.full((4, 4), 50.0)
    np.fill_diagonal(wins, 0)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        wins[a, b], wins[b, a] = 90, 10
    found = count_cycles(fit_pairwise(Comparisons.from_counts(wins)), top=1, simulations=99, seed=0)
    assert found is not None and found.significant == 1
    assert found.triples[0].adjusted < 1e-8 and found.triples[0].p_value_model < 1e-8
