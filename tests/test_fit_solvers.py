"""The ways of solving: each against the others, on the data that it is for."""

from __future__ import annotations

import numpy as np
import pytest

from jaxpref.data import Comparisons
from jaxpref.data.graph import strong_components
from jaxpref.fit import existence, fit_pairwise, layout
from jaxpref.fit.careful import fit_carefully
from jaxpref.fit.design import build_design
from jaxpref.fit.inexact import fit_fast, refit_matrix
from jaxpref.fit.layout import Segments, Square, Triangle
from jaxpref.fit.linear import ItemGraph
from jaxpref.links import logistic
from tests import tolerances as tol

pytestmark = pytest.mark.slow


def random_data(seed: int, size: int, pairs: int, *, sd: float = 1.0) -> Comparisons:
    """Return connected counts of about `pairs` pairs, each won at least once by either."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, sd, size)
    a, b = rng.integers(0, size, pairs), rng.integers(0, size, pairs)
    a, b = np.concatenate([a, np.arange(size - 1)]), np.concatenate([b, np.arange(1, size)])
    keys = np.unique(np.minimum(a, b)[a != b] * size + np.maximum(a, b)[a != b])
    a, b = np.divmod(keys, size)
    games = rng.integers(2, 40, len(a))
    won = np.clip(rng.binomial(games, 1 / (1 + np.exp(scores[b] - scores[a]))), 1, games - 1)
    names = tuple(f"item{k}" for k in range(size))
    w, x, t = (column.astype(float) for column in (won, games - won, 0 * won))
    return Comparisons(names, a, b, w, x, t)


def surplus(data: Comparisons, scores: np.ndarray, ridge: float = 0.0) -> float:
    """Return the largest gap between an item's wins and what it was expected to win."""
    pairs = data.pairs()
    margin = scores[pairs.item_a] - scores[pairs.item_b]
    pull = pairs.wins_a / (1 + np.exp(margin)) - pairs.wins_b / (1 + np.exp(-margin))
    size = data.num_items
    net = np.bincount(pairs.item_a, pull, size) - np.bincount(pairs.item_b, pull, size)
    return float(np.abs(net - ridge * scores).max())


def fast(data: Comparisons, ridge: float = 0.0):
    pairs = data.pairs()
    a, b = pairs.item_a.astype(np.int64), pairs.item_b.astype(np.int64)
    limits = {"ridge": ridge, "tolerance": 1e-10, "max_steps": 100}
    return fit_fast(a, b, pairs.wins_a, pairs.wins_b, data.num_items, **limits)


def careful(data: Comparisons, ridge: float = 0.0):
    nothing = {"order_effect": False, "item_covariates": None, "comparison_covariates": None}
    design = build_design(data, link=logistic, ties=None, ridge=ridge, **nothing)
    return fit_carefully(design, tolerance=1e-10, max_steps=100)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
@pytest.mark.parametrize(
    ("size", "pairs"), [(30, 100), (100, 5000), (300, 60_000), (400, 3000), (1500, 20_000)]
)
def test_fast_and_careful_agree_to_the_promise(size, pairs, ridge):
    data = random_data(size, size, pairs)
    one, other = fast(data, ridge), careful(data, ridge)
    assert one is not None
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-9)
    assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-11)
    assert surplus(data, one.scores, ridge) < 1e-6
    assert other.status == "converged"


@pytest.mark.parametrize(("size", "pairs"), [(30, 100), (100, 5000), (400, 60_000)])
def test_a_refit_from_close_by_agrees(size, pairs):
    data = random_data(size, size, pairs)
    one = fast(data)
    assert one is not None
    start = one.scores + np.random.default_rng(0).normal(0, 0.1, size) + 3.0
    again = refit_matrix(data.counts_matrix(), start, tolerance=1e-10, max_steps=25)
    assert again is not None
    np.testing.assert_allclose(again, one.scores, rtol=0, atol=1e-9)


def test_a_refit_that_will_not_do_is_left_to_others():
    path = np.zeros((200, 200))
    k = np.arange(199)
    path[k, k + 1], path[k + 1, k] = 1e6, 1.0
    assert refit_matrix(path, np.zeros(200), tolerance=1e-10, max_steps=25) is None


@pytest.mark.parametrize("layout", [Square, Triangle, Segments])
def test_layouts_hold_the_same_sums(layout):
    data = random_data(1, 50, 600)
    pairs = data.pairs()
    total = pairs.wins_a + pairs.wins_b
    counts = np.zeros((50, 50))
    counts[pairs.item_a, pairs.item_b] = total
    counts += counts.T
    strength = np.exp(np.random.default_rng(0).normal(0, 3, 50))
    chance = strength[:, None] / (strength[:, None] + strength)
    links = counts * chance * chance.T
    held = layout(pairs.item_a.astype(np.int64), pairs.item_b.astype(np.int64), total, 50)
    np.testing.assert_allclose(held.totals(), counts.sum(axis=1))
    won = np.bincount(pairs.item_a, pairs.wins_a, 50) + np.bincount(pairs.item_b, pairs.wins_b, 50)
    np.testing.assert_allclose(held.wins(pairs.wins_a, pairs.wins_b), won, rtol=tol.EXACT)
    found, vector = held.expect(strength), np.arange(50.0)
    np.testing.assert_allclose(found.wins, (counts * chance).sum(axis=1), rtol=tol.EXACT)
    np.testing.assert_allclose(found.diagonal, links.sum(axis=1), rtol=1e-9)
    np.testing.assert_allclose(held.product(vector), links @ vector, rtol=tol.EXACT)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("shape", ["path", "band", "random", "star", "islands"])
def test_solvers_agree_with_the_pseudo_inverse(shape, ridge):
    rng, size = np.random.default_rng(0), 150
    k = np.arange(size - 1)
    a, b = {
        "path": (k, k + 1),
        "band": (np.concatenate([k, k[:-1]]), np.concatenate([k + 1, k[:-1] + 2])),
        "random": (
            np.concatenate([k, rng.integers(0, 75, 900)]),
            np.concatenate([k + 1, rng.integers(75, 150, 900)]),
        ),
        "star": (0 * k, k + 1),
        "islands": (np.delete(k, 70), np.delete(k, 70) + 1),
    }[shape]
    if shape == "islands" and ridge == 0:
        return
    weight = rng.uniform(0.1, 3.0, len(a))
    graph = ItemGraph(a, b, size)
    right = rng.normal(size=(size, 2))
    right -= right.mean(axis=0)
    dense = graph.laplacian(weight) + ridge * np.eye(size)
    expected = np.linalg.pinv(dense, hermitian=True) @ right
    expected -= expected.mean(axis=0)
    for solver in (graph.solver(weight, ridge), graph.eliminate(weight, ridge)):
        np.testing.assert_allclose(solver.solve(right), expected, rtol=1e-8, atol=1e-9)


def test_long_path_is_exact_and_quick():
    size, rng = 5000, np.random.default_rng(2)
    won, lost = rng.integers(1, 30, (2, size - 1)).astype(float)
    k = np.arange(size - 1)
    names = tuple(map(str, range(size)))
    fit = fit_pairwise(Comparisons(names, k, k + 1, won, lost, 0 * won))
    expected = -np.concatenate([[0.0], np.cumsum(np.log(won / lost))])
    np.testing.assert_allclose(fit.scores, expected - expected.mean(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.float16])
def test_counts_of_other_types_are_fitted_in_float64(dtype):
    won = np.array([[0, 3, 5], [2, 0, 4], [1, 6, 0]])
    one, other = (fit_pairwise(Comparisons.from_counts(w)) for w in (won.astype(dtype), won))
    np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.slow
def test_a_million_comparisons_of_5000_items():
    rng, size = np.random.default_rng(5), 5000
    scores = rng.normal(0, 1, size)
    a = rng.integers(0, size, 1_000_000)
    b = (a + rng.integers(1, size, len(a))) % size
    first = rng.random(len(a)) < 1 / (1 + np.exp(scores[b] - scores[a]))
    data = Comparisons.from_arrays(np.where(first, a, b), np.where(first, b, a))
    fit = fit_pairwise(data)
    assert surplus(data, fit.scores) < 1e-7


@pytest.mark.parametrize("few", [0, 160])
def test_connection_is_told_however_it_is_looked_for(monkeypatch, few):
    """Random sparse graphs, about as many with a fit as without, some with ties."""
    monkeypatch.setattr(existence, "_FEW", few)
    rng = np.random.default_rng(2)
    told = []
    for _ in range(100):
        size = int(rng.integers(2, 30))
        won = rng.integers(0, size, int(rng.integers(1, 5 * size)))
        lost = (won + rng.integers(1, size, won.size)) % size
        votes = Comparisons.from_arrays(won, lost, items=[str(k) for k in range(size)])
        ties = rng.integers(0, 2, len(votes.item_a)) * float(rng.integers(0, 2))
        cells = votes.item_a, votes.item_b, votes.wins_a, votes.wins_b, ties
        votes = Comparisons(votes.items, *cells)
        found = existence.connection(votes, votes.pairs()).strong.count
        assert found == strong_components(votes).count
        told.append(found == 1)
    assert 20 < sum(told) < 80


def test_no_product_is_large_enough_for_threads():
    """BLAS may start threads for matrices beyond 400,000 entries; a strip is of fewer."""
    rng = np.random.default_rng(4)
    upper, vector = np.triu(rng.random((700, 700)), 1), rng.normal(size=700)
    expected = upper @ vector + vector @ upper
    np.testing.assert_allclose(layout._symmetric_product(upper, vector), expected, rtol=1e-11)
    for size in (200, 1000, 3000):
        assert max(layout._SINGLE // (3 * size), 1) * size < 460_800
