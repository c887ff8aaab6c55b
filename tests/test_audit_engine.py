"""Refits near a fit, and the one solve of large fits: against fits from nothing and the factor."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from jaxpref import links
from jaxpref.audit import solve
from jaxpref.audit.engine import Engine
from jaxpref.audit.moves import fewest, fill
from jaxpref.audit.terms import (
    Counts,
    ListedTerms,
    MatrixTerms,
    all_reached,
    connected,
    counts_of,
    slopes_at,
    slopes_between,
    wins_matrix,
)
from jaxpref.data import Comparisons
from jaxpref.fit import fit_pairwise
from jaxpref.links import logistic
from tests.test_audit_flips import votes
from tests.test_audit_network import random_fit


def random_counts(seed: int, size: int, wins: float = 3.0) -> Counts:
    rng = np.random.default_rng(seed)
    a, b = np.triu_indices(size, 1)
    up, down = rng.poisson(wins, (2, len(a))).astype(float)
    return Counts(a, b, up, down)


def test_matrix_and_list_give_the_same_gradient_and_information():
    counts, rng = random_counts(0, 9), np.random.default_rng(1)
    for spread in (0.1, 3.0, 60.0):
        scores = rng.normal(0, spread, 9)
        matrix = MatrixTerms(wins_matrix(counts, 9), 0.3, np.empty((3, 9, 9)))
        listed = ListedTerms(logistic, counts, 9, 0.3)
        expected = listed.gradient(scores)
        size = max(1.0, np.abs(expected).max())
        found = matrix.gradient(scores)
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=1e-13 * size)
        np.testing.assert_allclose(matrix.information(), listed.information(), atol=1e-13 * size)


def test_scores_too_far_apart_for_strengths_are_left_to_the_list():
    matrix = MatrixTerms(wins_matrix(random_counts(0, 4), 4), 0.0, np.empty((3, 4, 4)))
    assert matrix.gradient(np.array([-200.0, 0.0, 0.0, 200.0])) is None


def test_slopes_by_strengths_are_those_of_margins():
    scores, rng = np.array([-30.0, -1.0, 0.0, 2.0, 29.0]), np.random.default_rng(2)
    a, b = rng.integers(0, 5, (2, 30))
    found = slopes_between(logistic, scores, a, b)
    for mine, other in zip(found, slopes_at(logistic, scores[a] - scores[b]), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-13)


@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("link", ["logistic", "probit"])
def test_a_refit_is_the_fit_whatever_inverse_it_starts_with(link, ridge):
    data = votes(3, 7, 6)
    options = {"link": getattr(links, link), "ridge": ridge}
    fit = fit_pairwise(data, **options)
    counts, engine = counts_of(fit), Engine(fit.link, ridge, 7)
    near = engine.point(counts, fit.scores).inverse
    np.testing.assert_allclose(near.sum(axis=0), 0, atol=1e-14)
    changed = counts._replace(wins_a=counts.wins_a + np.arange(21) % 5)
    names = tuple(f"item{k}" for k in range(7))
    again = fit_pairwise(Comparisons(names, *changed, np.zeros(21)), **options)
    for inverse in (None, near, 30 * near, near / 30):
        found = engine.refit(changed, fit.scores, inverse)
        assert found is not None
        np.testing.assert_allclose(found, again.scores, atol=1e-10)
    kept = engine.refit(counts, fit.scores, near)  # the engine's own room was written to
    assert kept is not None
    np.testing.assert_allclose(kept, fit.scores, atol=1e-10)


def test_reachability_by_waves_agrees_with_components():
    for seed in range(60):
        counts = random_counts(seed, 6, wins=0.4)
        beats = wins_matrix(counts, 6) > 0
        sides = all_reached(beats), all_reached(beats.T)
        assert None not in sides
        assert all(sides) == connected(counts, 6)
    chain = np.eye(40, k=1, dtype=bool)  # longer than it looks: said not to know
    assert all_reached(chain) is None and all_reached(np.ones((3, 3), bool)) is True


def test_the_order_of_equal_gains_is_that_of_the_menu():
    gains = np.array([[1.0, 2.0, 1.0, 2.0], [0.0, 1.0, 2.0, -1.0]])
    order, count = fewest(gains, np.full((2, 4), 2.0), 13.5)
    assert order.tolist() == [1, 3, 6, 0, 2, 5] and count == 8
    taken = fill(order, np.full((2, 4), 2.0), 7.0)
    assert taken is not None and taken.tolist() == [[1, 2, 0, 2], [0, 0, 2, 0]]
    assert fill(order, np.full((2, 4), 2.0), 13.0) is None


def test_two_threads_and_a_second_call_say_what_one_thread_and_the_first_said(monkeypatch):
    fit = random_fit(21, 90, 20)
    monkeypatch.setattr(solve, "_cores", lambda: 1)
    first = solve.one_response(fit, 2, 70, scale=0.5)
    second = solve.one_response(fit, 2, 70)
    assert first is not None and second is not None
    np.testing.assert_array_equal(2 * first, second)
    solve._SYSTEMS.clear()
    monkeypatch.setattr(solve, "_cores", lambda: 2)
    monkeypatch.setattr(solve, "_WORTH_SHARING", 1)
    monkeypatch.setattr(solve, "_PIECE", 64)
    shared = solve.one_response(fit, 2, 70)
    np.testing.assert_array_equal(shared, second)


def test_what_is_kept_of_a_fit_goes_with_it():
    fit = random_fit(22, 30, 6)
    solve.one_response(fit, 0, 1)
    assert fit in solve._SYSTEMS
    before = len(solve._SYSTEMS)
    del fit
    gc.collect()
    assert len(solve._SYSTEMS) == before - 1
