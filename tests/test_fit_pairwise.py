"""Pairwise fits: exact answers, published tables, laws, and the hard places."""

from __future__ import annotations

import json
from typing import Any

import jax
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from scipy.optimize import minimize

from jaxpref import links
from jaxpref._checks import (
    ConvergenceError,
    DataError,
    DisconnectedComparisonsError,
    InputError,
    TiesError,
)
from jaxpref.data import Comparisons
from jaxpref.data.bundled import load_bundled
from jaxpref.fit import FitResult, fit_pairwise
from tests import tolerances as tol

CHAIN = 1e-8
"""The promise made for chain-like data, in centred scores (nats)."""


def counts_of(pairs: list[tuple[int, int]], wins_a, wins_b, size: int) -> Comparisons:
    """Return comparisons from a list of pairs with their wins."""
    names = tuple(f"item{k}" for k in range(size))
    a, b = np.array(pairs).T
    return cells(names, a, b, wins_a, wins_b, np.zeros(len(pairs)))


def cells(items: tuple[str, ...], item_a, item_b, wins_a, wins_b, ties) -> Comparisons:
    a, b = (np.asarray(column, np.int32) for column in (item_a, item_b))
    won, lost, tied = (np.asarray(column, np.float64) for column in (wins_a, wins_b, ties))
    return Comparisons(items, a, b, won, lost, tied)


def random_counts(seed: int, size: int, *, degree: float, games: int = 30) -> Comparisons:
    """Return strongly connected counts: every observed pair is won at least once by either."""
    rng = np.random.default_rng(seed)
    pairs = {(k, k + 1) for k in range(size - 1)}
    for a, b in zip(*np.triu_indices(size, 1), strict=True):
        if rng.random() < degree / size:
            pairs.add((int(a), int(b)))
    listed = sorted(pairs)
    wins = rng.integers(1, games, (2, len(listed)))
    return counts_of(listed, wins[0], wins[1], size)


def centred(scores) -> np.ndarray:
    scores = np.asarray(scores, float)
    return scores - scores.mean()


# Exact references


@pytest.mark.parametrize("size", [2, 3, 201, 300])
@pytest.mark.parametrize("most", [3, 1_000_000, 1_000_000_000])
def test_path_has_the_log_odds_of_its_edges_as_margins(size, most):
    rng = np.random.default_rng(size)
    wins = rng.choice([1.0, 2.0, float(most)], (2, size - 1))
    fit = fit_pairwise(counts_of([(k, k + 1) for k in range(size - 1)], wins[0], wins[1], size))
    expected = centred(np.concatenate([[0.0], -np.cumsum(np.log(wins[0] / wins[1]))]))
    assert fit.status == "converged"
    np.testing.assert_allclose(fit.scores, expected, rtol=0, atol=CHAIN)


def test_path_won_in_one_direction_spans_thousands_of_nats():
    size = 250
    wins = np.full(size - 1, 1e6)
    fit = fit_pairwise(counts_of([(k, k + 1) for k in range(size - 1)], wins, wins / 1e6, size))
    expected = centred(-np.arange(size) * np.log(1e6))
    np.testing.assert_allclose(fit.scores, expected, rtol=0, atol=CHAIN)


def mpmath_banded_fit(pairs, wins_a, wins_b, size: int, start) -> list[Any]:
    """Return the fit by 50-digit Newton with item 0 held at 0: slow, obvious."""
    with mpmath.workdps(50):
        step, score = (
            [mpmath.mpf(1)],
            [mpmath.mpf(float(s)) - mpmath.mpf(float(start[0])) for s in start],
        )
        for _ in range(6):
            gradient = mpmath.matrix(size - 1, 1)
            hessian = mpmath.matrix(size - 1, size - 1)
            for (a, b), wa, wb in zip(pairs, wins_a, wins_b, strict=True):
                chance = 1 / (1 + mpmath.exp(score[b] - score[a]))
                pull = mpmath.mpf(wa) * (1 - chance) - mpmath.mpf(wb) * chance
                weight = (mpmath.mpf(wa) + mpmath.mpf(wb)) * chance * (1 - chance)
                for k, sign in ((a - 1, 1), (b - 1, -1)):
                    if k >= 0:
                        gradient[k] += sign * pull
                        hessian[k, k] += weight
                if a > 0 and b > 0:
                    hessian[a - 1, b - 1] -= weight
                    hessian[b - 1, a - 1] -= weight
            step = mpmath.lu_solve(hessian, gradient)
            score = [score[0]] + [s + d for s, d in zip(score[1:], step, strict=True)]
        assert max(abs(d) for d in step) < mpmath.mpf(10) ** -30
        mean = mpmath.fsum(score) / size
        return [s - mean for s in score]


def test_banded_graph_with_lopsided_counts_agrees_with_fifty_digits():
    size, rng = 24, np.random.default_rng(7)
    pairs = [(a, b) for a in range(size) for b in (a + 1, a + 2) if b < size]
    wins = rng.choice([1.0, 3.0, 1e4, 1e6], (2, len(pairs)))
    fit = fit_pairwise(counts_of(pairs, wins[0], wins[1], size))
    expected = mpmath_banded_fit(pairs, wins[0], wins[1], size, fit.scores)
    error = max(abs(mpmath.mpf(float(s)) - e) for s, e in zip(fit.scores, expected, strict=True))
    assert error < CHAIN


def test_wide_banded_graph_balances_observed_and_expected_wins():
    """At the maximum every item's expected wins are its wins: checked without the solver."""
    size, rng = 220, np.random.default_rng(3)
    pairs = [(a, b) for a in range(size) for b in range(a + 1, min(a + 4, size))]
    truth = np.cumsum(rng.normal(0, 1.5, size))
    total = rng.integers(20, 2000, len(pairs)).astype(float)
    a, b = np.array(pairs).T
    wins_a = np.clip(np.round(total / (1 + np.exp(truth[b] - truth[a]))), 1, total - 1)
    fit = fit_pairwise(counts_of(pairs, wins_a, total - wins_a, size))
    expected = total / (1 + np.exp(fit.scores[b] - fit.scores[a]))
    surplus = np.bincount(a, wins_a - expected, size) - np.bincount(b, wins_a - expected, size)
    assert np.abs(surplus).max() < CHAIN
    assert fit.gradient_norm < CHAIN


# Independent implementations and published numbers


def test_baseball_scores_are_the_published_ones():
    fit = fit_pairwise(load_bundled("baseball"))
    relative = [fit.margin(name, "Baltimore") for name in fit.rank()]
    np.testing.assert_allclose(relative[:-1], [1.581, 1.436, 1.294, 1.248, 1.108, 0.684], atol=6e-4)
    assert relative[-1] == 0


def test_journal_scores_are_the_published_ones():
    fit = fit_pairwise(load_bundled("journals"))
    relative = sorted(float(s - fit.scores[fit.index("Biometrika")]) for s in fit.scores)
    np.testing.assert_allclose(relative, [-2.9491, -0.4796, 0.0, 0.2690], atol=6e-5)


LOG_PROBABILITY = {
    "logistic": special.log_expit,
    "probit": special.log_ndtr,
    "laplace": stats.laplace.logcdf,
}


@pytest.mark.parametrize("name", LOG_PROBABILITY)
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_scores_maximise_the_penalised_likelihood_of_scipy(name, ridge):
    data, log_probability = random_counts(5, 6, degree=3), LOG_PROBABILITY[name]
    pairs = data.pairs()

    def loss(scores):
        m = scores[pairs.item_a] - scores[pairs.item_b]
        value = pairs.wins_a @ log_probability(m) + pairs.wins_b @ log_probability(-m)
        # The last term fixes the gauge and vanishes at the answer.
        return -value + ridge / 2 * scores @ scores + scores.sum() ** 2

    fit = fit_pairwise(data, link=getattr(links, name), ridge=ridge)
    found = minimize(loss, np.zeros(6), method="BFGS", jac="3-point", options={"gtol": 1e-7})
    np.testing.assert_allclose(fit.scores, found.x, rtol=0, atol=tol.SOLVER)
    assert loss(fit.scores) <= found.fun + 1e-10


def test_probit_path_has_the_normal_quantiles_of_its_fractions_as_margins():
    fit = fit_pairwise(counts_of([(0, 1), (1, 2)], [30, 1], [10, 99], 3), link=links.probit)
    expected = [mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(f) - 1) for f in (0.75, 0.01)]
    margins = [fit.margin("item0", "item1"), fit.margin("item1", "item2")]
    np.testing.assert_allclose(margins, [float(e) for e in expected], rtol=1e-10)


# Laws


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 8))
def test_relabelling_items_permutes_the_scores(seed, size):
    data = random_counts(seed, size, degree=3)
    order = np.random.default_rng(seed).permutation(size)
    shuffled = fit_pairwise(data.select([data.items[k] for k in order]))
    np.testing.assert_allclose(shuffled.scores, fit_pairwise(data).scores[order], atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(1e-3, 1e6))
def test_scaling_every_count_leaves_scores_and_divides_the_covariance(seed, factor):
    data = random_counts(seed, 6, degree=3)
    scaled = Comparisons.from_counts(data.counts_matrix() * factor, data.items)
    one, other = fit_pairwise(data), fit_pairwise(scaled)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-9)
    np.testing.assert_allclose(one.covariance(), factor * other.covariance(), atol=1e-8)


def test_swapping_winners_and_losers_negates_the_scores():
    data = random_counts(2, 7, degree=4)
    reverse = Comparisons.from_counts(data.counts_matrix().T, data.items)
    np.testing.assert_allclose(fit_pairwise(data).scores, -fit_pairwise(reverse).scores, atol=1e-10)


def test_small_ridge_tends_to_maximum_likelihood_in_proportion():
    data = random_counts(4, 9, degree=4)
    exact = fit_pairwise(data).scores
    off = [np.abs(fit_pairwise(data, ridge=r).scores - exact).max() for r in (1e-3, 1e-4, 1e-6)]
    assert off[0] / off[1] == pytest.approx(10, rel=0.01)
    assert 0 < off[2] < 1e-5


def test_large_ridge_pulls_every_score_to_zero():
    assert np.abs(fit_pairwise(random_counts(4, 9, degree=4), ridge=1e9).scores).max() < 1e-6


def test_scores_sum_to_zero_and_are_float64_in_every_jax_setting():
    data = random_counts(1, 12, degree=3)
    with jax.enable_x64(False):
        low = fit_pairwise(data)
        assert low.covariance().dtype == np.float64
    high = fit_pairwise(data)
    assert low.scores.dtype == np.float64
    np.testing.assert_array_equal(low.scores, high.scores)
    assert abs(low.scores.sum()) < tol.ULP


def test_caller_keeps_32_bit_jax():
    with jax.enable_x64(False):
        fit_pairwise(random_counts(1, 12, degree=3))
        assert jax.numpy.ones(1).dtype == np.float32


def compilations(events: list[str]) -> int:
    return sum("backend_compile" in event for event in events)


@pytest.fixture
def compiled():
    """Return the list that every compilation's events are added to."""
    events: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **kwargs: events.append(event)
    )
    return events


def test_second_data_set_of_about_the_same_size_compiles_nothing(compiled):
    fit_pairwise(random_counts(1, 49, degree=2), link=links.laplace)
    first = compilations(compiled)
    fit_pairwise(random_counts(2, 53, degree=2), link=links.laplace)
    assert compilations(compiled) == first > 0


@pytest.mark.parametrize("ties", ["half", "davidson", "rao_kupper"])
def test_logistic_fits_and_their_leaderboards_compile_nothing(compiled, ties):
    data = random_counts(3, 40, degree=4)
    data = cells(data.items, data.item_a, data.item_b, data.wins_a, data.wins_b, data.wins_a)
    fit = fit_pairwise(data, ties=ties)
    assert len(fit.to_rows()) == 40 and 0 < fit.probability("item0", "item1") < 1
    assert compilations(compiled) == 0


# Uncertainty


def test_two_items_have_the_binomial_standard_error():
    fit = fit_pairwise(Comparisons.from_counts([[0, 30], [10, 0]], items=("x", "y")))
    covariance = fit.covariance()
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert variance == pytest.approx(1 / (40 * 0.75 * 0.25), rel=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_covariance_is_the_pseudo_inverse_of_the_information(ridge):
    fit = fit_pairwise(random_counts(8, 11, degree=4), ridge=ridge)
    centre = np.eye(11) - 1 / 11
    expected = np.linalg.pinv(centre @ (fit.fisher_information + ridge * np.eye(11)) @ centre)
    np.testing.assert_allclose(fit.covariance(), expected, atol=1e-12)
    np.testing.assert_allclose(fit.standard_errors() ** 2, np.diag(expected), atol=1e-12)


def test_fisher_information_is_minus_the_hessian_for_the_logistic_link():
    fit = fit_pairwise(random_counts(8, 5, degree=4))
    pairs = fit.pairs

    def value(scores):
        m = scores[pairs.item_a] - scores[pairs.item_b]
        up, down = links.logistic.log_probability(m), links.logistic.log_probability(-m)
        return pairs.wins_a @ up + pairs.wins_b @ down

    hessian = jax.hessian(value)(jax.numpy.asarray(fit.scores))
    np.testing.assert_allclose(fit.fisher_information, -hessian, atol=tol.EXACT * 100)


# What the result says


def test_predictions_by_name_and_the_leaderboard():
    fit = fit_pairwise(Comparisons.from_counts([[0, 1], [3, 0]], items=("x", "y")))
    assert fit.probability("y", "x") == pytest.approx(0.75, abs=tol.EXACT)
    assert fit.margin("x", "y") == pytest.approx(-np.log(3), abs=tol.EXACT)
    assert fit.rank() == ("y", "x")
    best = fit.to_rows()[0]
    assert (best.rank, best.item, best.wins, best.comparisons) == (1, "y", 3.0, 4.0)
    assert fit.log_likelihood == pytest.approx(3 * np.log(0.75) + np.log(0.25), abs=tol.EXACT)


def test_unknown_name_is_answered_with_the_closest():
    fit = fit_pairwise(load_bundled("baseball"))
    with pytest.raises(InputError, match="'Bostn'.*'Boston'"):
        fit.probability("Bostn", "Detroit")


def test_result_goes_through_json():
    written = json.loads(json.dumps(fit_pairwise(load_bundled("baseball")).to_dict()))
    assert written["status"] == "converged"
    assert [row["item"] for row in written["leaderboard"]][0] == "Milwaukee"


# Hard places and bad input


def tied() -> Comparisons:
    return cells(("x", "y"), [0], [1], [3.0], [1.0], [2.0])


def test_ties_are_refused_with_their_number_and_the_way_out():
    with pytest.raises(
        TiesError, match=r"2 of the comparisons are ties.*ties=\"half\".*--ties half"
    ):
        fit_pairwise(tied())


def test_ties_count_as_half_wins_on_request():
    fit = fit_pairwise(tied(), ties="half")
    assert fit.probability("x", "y") == pytest.approx(4 / 6, abs=tol.EXACT)
    assert fit.pairs.wins_a[0] == 4


def test_undefeated_item_is_named_and_a_ridge_settles_it():
    data = Comparisons.from_counts(
        [[0, 2, 2], [0, 0, 1], [0, 1, 0]], items=("champion", "second", "third")
    )
    with pytest.raises(DisconnectedComparisonsError, match="champion"):
        fit_pairwise(data)
    fit = fit_pairwise(data, ridge=0.1)
    assert fit.rank()[0] == "champion"
    assert (fit.components.count, fit.islands.count) == (2, 1)


def test_two_islands_are_refused_and_the_prior_ranks_across_them():
    counts = np.zeros((4, 4))
    counts[0, 1] = counts[1, 0] = counts[2, 3] = 1
    counts[3, 2] = 3
    data = Comparisons.from_counts(counts, items=("a", "b", "c", "d"))
    with pytest.raises(DisconnectedComparisonsError):
        fit_pairwise(data)
    fit = fit_pairwise(data, ridge=0.01)
    assert fit.islands.count == 2
    # Each island is centred by the prior on its own.
    assert fit.scores[2] + fit.scores[3] == pytest.approx(0, abs=tol.EXACT)


@pytest.mark.parametrize(
    "data",
    [
        cells(("only",), [], [], [], [], []),
        cells(("x", "y"), [], [], [], [], []),
        cells(("x", "y"), [0], [1], [0.0], [0.0], [0.0]),
    ],
    ids=["one item", "no rows", "all zero"],
)
@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_nothing_to_fit_is_an_error(data, ridge):
    with pytest.raises(DataError, match="expected at least"):
        fit_pairwise(data, ridge=ridge)


def test_item_without_comparisons_is_named():
    data = cells(("x", "y", "loner"), [0], [1], [1.0], [1.0], [0.0])
    with pytest.raises(DisconnectedComparisonsError, match="loner"):
        fit_pairwise(data)
    assert fit_pairwise(data, ridge=1.0).scores[2] == pytest.approx(0, abs=tol.EXACT)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"ties": "hlaf"}, "did you mean 'half'"),
        ({"ridge": -1.0}, "ridge: expected a finite number of at least 0"),
        ({"ridge": np.inf}, "ridge: expected a finite number"),
        ({"ridge": np.nan}, "ridge: expected a finite number"),
        ({"tolerance": 0.0}, "tolerance: expected"),
        ({"max_steps": 0}, "max_steps: expected"),
        ({"link": links.cauchit}, "concave log-probability.*cauchit"),
    ],
    ids=str,
)
def test_bad_options_are_refused(option, message):
    with pytest.raises(InputError, match=message):
        fit_pairwise(load_bundled("baseball"), **option)


def test_search_cut_short_raises_once_or_returns_what_there_is():
    data = load_bundled("baseball")
    with pytest.raises(ConvergenceError, match="out of steps after 2.*max_steps"):
        fit_pairwise(data, max_steps=2)
    fit = fit_pairwise(data, max_steps=2, throw=False)
    assert isinstance(fit, FitResult)
    assert (fit.status, fit.steps) == ("max_steps", 2)


def test_counts_beyond_double_precision_never_pass_for_converged_when_wrong():
    """Edges 1e18 apart in weight: right to the promise, or said to be unfinished."""
    size, rng = 60, np.random.default_rng(11)
    wins = rng.choice([1.0, 1e9, 1e18], (2, size - 1))
    data = counts_of([(k, k + 1) for k in range(size - 1)], wins[0], wins[1], size)
    fit = fit_pairwise(data, throw=False)
    expected = centred(np.concatenate([[0.0], -np.cumsum(np.log(wins[0] / wins[1]))]))
    error = np.abs(fit.scores - expected).max()
    assert error < 1e-6 if fit.status == "converged" else np.isfinite(fit.scores).all()


@pytest.mark.parametrize("seed", range(6))
def test_random_hard_counts_converge_in_few_steps(seed):
    """Counts over six decades on sparse random graphs, where plain Newton overshoots."""
    rng = np.random.default_rng(seed)
    data = random_counts(seed, 40, degree=3)
    pairs = data.pairs()
    wins = 10.0 ** rng.uniform(0, 6, (2, len(pairs.item_a)))
    listed = list(zip(pairs.item_a.tolist(), pairs.item_b.tolist(), strict=True))
    fit = fit_pairwise(counts_of(listed, wins[0], wins[1], 40))
    assert fit.steps < 40
    expected = wins.sum(0) / (1 + np.exp(-(fit.scores[pairs.item_a] - fit.scores[pairs.item_b])))
    surplus = wins[0] - expected
    net = np.bincount(pairs.item_a, surplus, 40) - np.bincount(pairs.item_b, surplus, 40)
    # Counts of a million, each balanced to its rounding.
    assert np.abs(net).max() < 1e-7
