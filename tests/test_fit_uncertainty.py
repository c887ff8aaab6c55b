"""Information, sandwiches, intervals and quasi-variances against textbook formulas."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.optimize import minimize

from jaxpref import links
from jaxpref._checks import InputError
from jaxpref.data import Comparisons, Rankings
from jaxpref.fit import (
    fit_pairwise,
    fit_rankings,
    margin_interval,
    observed_information,
    probability_interval,
    quasi_variances,
    rank_intervals,
    sandwich_covariance,
    score_intervals,
)
from jaxpref.fit._host import generator
from tests import tolerances as tol

pytestmark = pytest.mark.slow


def votes_by_rater(seed: int, size: int, raters: int, each: int) -> Comparisons:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=size)
    first = rng.integers(0, size, raters * each)
    second = (first + rng.integers(1, size, first.size)) % size
    won = rng.random(first.size) < 1 / (1 + np.exp(truth[second] - truth[first]))
    names = tuple(f"item{k}" for k in range(size))
    people = tuple(f"rater{k:03}" for k in range(raters))
    columns = first, second, won.astype(float), (~won).astype(float), np.zeros(first.size)
    return Comparisons(names, *columns, np.repeat(np.arange(raters), each), people)


def repeated(votes: Comparisons, times: int) -> Comparisons:
    """Return votes that every rater gave several times."""
    assert votes.rater is not None
    columns = votes.item_a, votes.item_b, votes.wins_a, votes.wins_b, votes.ties, votes.rater
    a, b, wins_a, wins_b, ties, rater = (np.repeat(column, times) for column in columns)
    return Comparisons(votes.items, a, b, wins_a, wins_b, ties, rater, votes.raters)


def test_observed_information_of_another_link_is_minus_its_hessian():
    votes = votes_by_rater(1, 5, 10, 40)
    fit = fit_pairwise(votes, link=links.probit)
    pairs = fit.pairs

    def value(scores):
        m = scores[pairs.item_a] - scores[pairs.item_b]
        up, down = links.probit.log_probability(m), links.probit.log_probability(-m)
        return pairs.wins_a @ up + pairs.wins_b @ down

    hessian = jax.hessian(value)(jax.numpy.asarray(fit.scores))
    np.testing.assert_allclose(observed_information(fit), -hessian, atol=1e-9)
    assert np.abs(observed_information(fit) - fit.fisher_information).max() > 1e-3


def test_sandwich_of_comparisons_is_the_textbook_formula():
    """Row by row, with the design matrix written out and one item held at zero."""
    votes = votes_by_rater(2, 5, 12, 30)
    fit = fit_pairwise(votes)
    assert votes.rater is not None
    rows = np.repeat(np.arange(votes.item_a.size), 1)
    design = np.zeros((rows.size, 5))
    design[rows, votes.item_a] += 1
    design[rows, votes.item_b] -= 1
    chance = 1 / (1 + np.exp(-design @ fit.scores))
    for cluster, group in (("rater", votes.rater), ("none", rows)):
        residual = (votes.wins_a - chance)[:, None] * design[:, 1:]
        sums = np.zeros((group.max() + 1, 4))
        np.add.at(sums, group, residual)
        bread = np.linalg.inv(design[:, 1:].T @ (design[:, 1:] * (chance * (1 - chance))[:, None]))
        count = len(sums)
        expected = bread @ (sums.T @ sums * count / (count - 1)) @ bread
        found = sandwich_covariance(fit, votes, cluster=cluster)
        contrast = np.eye(5)[1:] - np.eye(5)[0]  # margins against the item held at zero
        np.testing.assert_allclose(contrast @ found @ contrast.T, expected, atol=tol.EXACT)


def test_sandwich_of_rankings_of_two_is_that_of_comparisons():
    votes = votes_by_rater(3, 4, 15, 20)
    assert votes.rater is not None
    ahead = np.where(votes.wins_a > 0, votes.item_a, votes.item_b)
    behind = np.where(votes.wins_a > 0, votes.item_b, votes.item_a)
    people = [votes.raters[r] for r in votes.rater]
    rankings = Rankings.from_lists(
        np.stack([ahead, behind], axis=1), items=votes.items, rater=people
    )
    for cluster in ("rater", "none"):
        one = sandwich_covariance(fit_rankings(rankings), cluster=cluster)
        two = sandwich_covariance(fit_pairwise(votes), votes, cluster=cluster)
        np.testing.assert_allclose(one, two, atol=1e-9)


def test_copies_of_one_vote_widen_the_clustered_sandwich_only():
    votes = votes_by_rater(4, 4, 300, 1)
    copies = repeated(votes, 9)
    fit = fit_pairwise(copies)
    clustered = np.sqrt(np.diag(sandwich_covariance(fit, copies)))
    assert 2.5 < np.mean(clustered / fit.standard_errors()) < 3.5


def test_intervals_are_walds_and_probabilities_are_mapped():
    fit = fit_pairwise(Comparisons.from_counts([[0, 30], [10, 0]], items=("x", "y")))
    error = np.sqrt(1 / (40 * 0.75 * 0.25))
    margin = margin_interval(fit, "x", "y")
    assert margin.standard_error == pytest.approx(error, rel=1e-9)
    assert margin.high == pytest.approx(np.log(3) + 1.959963984540054 * error, rel=1e-9)
    chance = probability_interval(fit, "x", "y", level=0.9)
    narrow = margin_interval(fit, "x", "y", level=0.9)
    assert chance.low == pytest.approx(1 / (1 + np.exp(-narrow.low)), rel=1e-9)
    assert 0 < chance.low < chance.estimate < chance.high < 1
    score = score_intervals(fit)["x"]
    assert score.high - score.low == pytest.approx((margin.high - margin.low) / 2, rel=1e-9)
    assert list(score_intervals(fit)) == ["x", "y"]


def test_rank_intervals_come_from_the_normal_approximation():
    votes = votes_by_rater(5, 6, 10, 30)
    fit = fit_pairwise(votes)
    found = rank_intervals(fit, key=jax.random.key(3), draws=20_000)
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal(fit.scores, fit.covariance(), 20_000)
    ranks = 1 + np.argsort(np.argsort(-draws, axis=1), axis=1)
    for k, name in enumerate(fit.items):
        error = ranks[:, k].std() / np.sqrt(2 * 20_000)
        off = abs(found[name].standard_error - ranks[:, k].std())
        assert off < 2 * tol.MONTE_CARLO * error + 1e-12
        assert 1 <= found[name].low <= found[name].estimate <= found[name].high <= 6
    again = rank_intervals(fit, key=jax.random.key(3), draws=20_000)
    assert again == found


def test_generator_takes_old_and_new_keys():
    new, old = generator(jax.random.key(7)), generator(jax.random.PRNGKey(7))
    assert new.integers(0, 2**60) == old.integers(0, 2**60)


# Quasi-variances


def test_quasi_variances_of_three_items_are_exact():
    fit = fit_pairwise(Comparisons.from_counts([[0, 5, 9], [3, 0, 30], [2, 8, 0]]))
    quasi, covariance = quasi_variances(fit), fit.covariance()
    for a, b in ((0, 1), (0, 2), (1, 2)):
        variance = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        assert quasi[a] + quasi[b] == pytest.approx(variance, rel=1e-9)


def test_quasi_variances_minimise_the_log_ratios():
    fit = fit_pairwise(votes_by_rater(6, 7, 10, 20), ridge=0.1)
    covariance = fit.covariance()
    a, b = np.triu_indices(7, 1)
    diagonal = np.diag(covariance)
    variance = diagonal[a] + diagonal[b] - 2 * covariance[a, b]

    def loss(q):
        return np.sum(np.log(np.maximum(q[a] + q[b], 1e-300) / variance) ** 2)

    quasi = quasi_variances(fit)
    found = minimize(loss, diagonal, method="Nelder-Mead",
                     options={"maxiter": 40_000, "xatol": 1e-10, "fatol": 1e-14})  # fmt: skip
    assert loss(quasi) <= found.fun + 1e-10
    np.testing.assert_allclose(quasi, found.x, rtol=1e-3)


# Bad input


def test_what_is_missing_is_said():
    votes = votes_by_rater(1, 4, 5, 30)
    fit = fit_pairwise(votes)
    with pytest.raises(InputError, match="expected the Comparisons"):
        sandwich_covariance(fit)
    lone = Comparisons(
        votes.items, votes.item_a, votes.item_b, votes.wins_a, votes.wins_b, votes.ties
    )
    with pytest.raises(InputError, match="raters"):
        sandwich_covariance(fit, lone)
    with pytest.raises(InputError, match="level"):
        score_intervals(fit, level=1.5)
    with pytest.raises(InputError, match="shape"):
        score_intervals(fit, covariance=np.eye(3))
    with pytest.raises(InputError, match="three items"):
        quasi_variances(fit_pairwise(Comparisons.from_counts([[0, 1], [1, 0]])))
