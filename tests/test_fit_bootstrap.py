"""Bootstraps: their spread against the information, their counts, their keys."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.special import polygamma

from jaxpref._checks import InputError
from jaxpref.data import Comparisons, Rankings
from jaxpref.fit import bootstrap, fit_pairwise, fit_rankings
from jaxpref.fit.bootstrap_draws import multinomials
from tests import tolerances as tol
from tests.test_fit_rankings import draw_rankings
from tests.test_fit_uncertainty import repeated, votes_by_rater

pytestmark = pytest.mark.slow

KEY = jax.random.key(11)


def agree(spread: np.ndarray, expected: np.ndarray, resamples: int) -> None:
    """Assert equal standard deviations within Monte Carlo error, of ratios averaged over items."""
    error = 1 / np.sqrt(2 * resamples)
    bias = 0.03  # of order one over the comparisons of an item: the MLE's own higher-order terms
    assert np.abs(spread / expected - 1).max() < tol.MONTE_CARLO * error + bias


@pytest.mark.parametrize("method", ["nonparametric", "parametric"])
def test_spread_of_comparisons_is_the_information(method):
    fit = fit_pairwise(votes_by_rater(1, 6, 100, 60))
    found = bootstrap(fit, key=KEY, resamples=400, method=method)
    assert found.separable == found.unfinished == 0 and len(found.scores) == 400
    agree(found.standard_errors(), fit.standard_errors(), 400)
    np.testing.assert_allclose(found.scores.sum(axis=1), 0, atol=tol.EXACT)


@pytest.mark.parametrize("method", ["nonparametric", "parametric"])
def test_spread_of_rankings_is_the_information(method):
    table, _ = draw_rankings(2, 600, 5, 4)
    fit = fit_rankings(Rankings.from_lists(table))
    found = bootstrap(fit, key=KEY, resamples=100, method=method)
    agree(found.standard_errors(), fit.standard_errors(), 100)


def test_raters_that_repeat_themselves_widen_their_bootstrap():
    votes = votes_by_rater(3, 4, 200, 1)
    copies = repeated(votes, 9)
    fit = fit_pairwise(copies)
    clustered = bootstrap(fit, copies, key=KEY, resamples=300, method="rater")
    assert 2.4 < np.mean(clustered.standard_errors() / fit.standard_errors()) < 3.7


def test_every_resample_is_refitted_to_the_maximum():
    """Each resample's gradient vanishes: the batch solver against its own definition."""
    fit = fit_pairwise(votes_by_rater(4, 8, 50, 20))
    from jaxpref.fit._host import generator
    from jaxpref.fit.bootstrap_draws import draw_wins

    found = bootstrap(fit, key=KEY, resamples=5)
    for scores, wins in zip(
        found.scores, draw_wins(fit, None, generator(KEY), 5, "nonparametric"), strict=True
    ):
        chance = 1 / (1 + np.exp(scores[None, :] - scores[:, None]))
        surplus = (wins - (wins + wins.T) * chance).sum(axis=1)
        assert np.abs(surplus).max() < tol.SOLVER
        assert wins.sum() == 1000


def test_separable_resamples_are_counted_and_a_ridge_fits_them():
    """One loss among ten: lost by about a third of the resamples."""
    fit = fit_pairwise(Comparisons.from_counts([[0, 9], [1, 0]], items=("x", "y")))
    calls = []
    found = bootstrap(fit, key=KEY, resamples=500, progress=lambda *at: calls.append(at))
    share = 0.9**10
    error = np.sqrt(share * (1 - share) / 500)
    assert abs(found.separable / 500 - share) < tol.MONTE_CARLO * error
    assert len(found.scores) + found.separable == 500 and calls[-1] == (500, 500)
    ridged = bootstrap(fit, key=KEY, resamples=500, ridge=0.1)
    assert ridged.separable == 0 and len(ridged.scores) == 500


@pytest.mark.parametrize("ties", ["refuse", "davidson"])
def test_weights_keep_every_comparison(ties):
    """One loss among ten: rows leave it out in a third of the resamples, weights in none.

    The margin of two items is the log of the ratio of their wins, here of two gammas; a tie
    parameter of their own takes the ties.
    """
    wins = np.array([[0.0, 9.0], [1.0, 0.0]])
    votes = Comparisons.from_counts(wins, items=("x", "y"))
    if ties == "davidson":
        one = np.ones(1)
        cells = np.array([0]), np.array([1]), 9 * one, one, 4 * one
        votes = Comparisons(("x", "y"), *cells)
    fit = fit_pairwise(votes, ties=ties)
    found = bootstrap(fit, key=KEY, resamples=400, method="weights")
    assert found.separable == found.unfinished == 0 and len(found.scores) == 400
    margin = found.scores[:, 0] - found.scores[:, 1]
    variance = float(polygamma(1, 9) + polygamma(1, 1))
    error = variance * np.sqrt(4.4 / 400)  # the kurtosis of log E, E exponential, is 5.4
    assert abs(margin.var() - variance) < tol.MONTE_CARLO * error


def test_weights_of_raters_and_of_rankings():
    votes = votes_by_rater(5, 4, 20, 20)
    fit = fit_pairwise(votes)
    found = bootstrap(fit, votes, key=KEY, resamples=50, method="rater_weights")
    assert len(found.scores) == 50
    with pytest.raises(InputError, match='method="rater_weights" needs'):
        bootstrap(fit, key=KEY, resamples=2, method="rater_weights")


def test_the_same_key_draws_the_same_and_another_does_not():
    fit = fit_pairwise(votes_by_rater(5, 4, 20, 20))
    one, two, other = (
        bootstrap(fit, key=k, resamples=5).scores for k in (KEY, KEY, jax.random.key(12))
    )
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 0


def test_ties_are_drawn_as_ties():
    votes = Comparisons.from_counts([[0, 4], [4, 0]], items=("x", "y"))
    tied = Comparisons(
        votes.items, votes.item_a, votes.item_b, votes.wins_a, votes.wins_b, np.array([992.0])
    )
    fit = fit_pairwise(tied, ties="half")
    spread = bootstrap(fit, tied, key=KEY, resamples=200).margin_interval("x", "y").standard_error
    # 8 of 1000 comparisons differ from a half: the margin's variance is 4^2 * 0.008 / 4 / 1000.
    assert spread == pytest.approx(np.sqrt(16 * 0.008 / 4 / 1000), rel=0.3)


def test_intervals_are_percentiles():
    fit = fit_pairwise(votes_by_rater(6, 5, 40, 20))
    found = bootstrap(fit, key=KEY, resamples=200)
    a, b = fit.index("item0"), fit.index("item1")
    low, high = np.percentile(found.scores[:, a] - found.scores[:, b], [5, 95])
    margin = found.margin_interval("item0", "item1", level=0.9)
    assert (margin.low, margin.high) == pytest.approx((low, high), rel=tol.EXACT)
    chance = found.probability_interval("item0", "item1", level=0.9)
    assert chance.low == pytest.approx(1 / (1 + np.exp(-low)), rel=1e-9)
    ranks = found.rank_intervals()
    assert list(ranks) == list(fit.rank())
    assert all(1 <= r.low <= r.high <= 5 for r in ranks.values())
    assert set(found.score_intervals()) == set(fit.items)


@pytest.mark.parametrize("weights", [[3.0, 0.0, 97.0], [0.5, 99.5], [5000.0, 5000.0]])
def test_multinomials_have_the_right_mean_and_total(weights):
    cells = np.array(weights)
    drawn = np.array(list(multinomials(cells, np.random.default_rng(1), 300)))
    assert (drawn.sum(axis=1) == cells.sum()).all()
    variance = cells * (1 - cells / cells.sum())
    error = np.sqrt(variance / 300)
    assert (np.abs(drawn.mean(axis=0) - cells) <= tol.MONTE_CARLO * error).all()


def test_what_cannot_be_drawn_is_refused():
    fit = fit_pairwise(Comparisons.from_counts([[0, 9], [1, 0]], items=("x", "y")))
    with pytest.raises(InputError, match="raters"):
        bootstrap(fit, key=KEY, method="rater")
    with pytest.raises(InputError, match="method"):
        bootstrap(fit, key=KEY, method="bayesian")
    with pytest.raises(InputError, match="at least 2 resamples"):
        bootstrap(fit, key=KEY, resamples=1).standard_errors()
    with pytest.raises(InputError, match="tie parameters"):
        lists = [["x", "y"], ["y", "x"], [["x", "y"]]]
        tied = fit_rankings(Rankings.from_lists(lists), ties="davidson_luce")
        bootstrap(tied, key=KEY, method="parametric", resamples=2)
