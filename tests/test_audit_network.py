"""Sensitivity on comparison graphs: Eq. 4 on trees, refits elsewhere, and the hard places."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpref import links
from jaxpref._checks import InputError
from jaxpref.audit import AuditReport, audit, network_sensitivity
from jaxpref.audit import pairs as pair_scan
from jaxpref.data import Comparisons
from jaxpref.data.bundled import load_bundled
from jaxpref.fit import FitResult, fit_pairwise
from jaxpref.sensitivity import log_sensitivity
from tests import tolerances as tol

Pair = tuple[int, int]


def comparisons_of(pairs: list[Pair], wins_a, wins_b, size: int) -> Comparisons:
    """Return comparisons from a list of pairs with their wins."""
    a, b = np.array(pairs, np.int32).T
    won, lost = (np.asarray(wins, np.float64) for wins in (wins_a, wins_b))
    names = tuple(f"item{k}" for k in range(size))
    return Comparisons(names, a, b, won, lost, np.zeros(len(pairs)))


def path(size: int) -> list[Pair]:
    return [(k, k + 1) for k in range(size - 1)]


def star(size: int) -> list[Pair]:
    return [(0, k) for k in range(1, size)]


def random_tree(size: int) -> list[Pair]:
    rng = np.random.default_rng(size)
    return [(int(rng.integers(k)), k) for k in range(1, size)]


def random_graph(seed: int, size: int, degree: float) -> list[Pair]:
    """Return a random tree with edges added at random up to the mean degree."""
    rng = np.random.default_rng(seed)
    pairs = {(int(rng.integers(k)), k) for k in range(1, size)}
    spare = [(int(a), int(b)) for a, b in zip(*np.triu_indices(size, 1), strict=True)]
    spare = [pair for pair in spare if pair not in pairs]
    extra = min(max(round(degree * size / 2) - len(pairs), 0), len(spare))
    return sorted(pairs | {spare[k] for k in rng.choice(len(spare), extra, replace=False)})


def random_fit(seed: int, size: int, degree: float, **options) -> FitResult:
    rng = np.random.default_rng(seed)
    pairs = random_graph(seed, size, degree)
    wins = rng.integers(1, 40, (2, len(pairs)))
    return fit_pairwise(comparisons_of(pairs, wins[0], wins[1], size), **options)


def tree_route(pairs: list[Pair], start: int, end: int) -> list[Pair]:
    """Return the edges on the way from start to end in a tree, by depth-first search."""
    stack: list[tuple[int, list[Pair]]] = [(start, [])]
    seen = {start}
    while stack:
        here, route = stack.pop()
        if here == end:
            return route
        for pair in pairs:
            if here in pair:
                there = pair[0] + pair[1] - here
                if there not in seen:
                    seen.add(there)
                    stack.append((there, [*route, pair]))
    raise AssertionError("the pairs are no tree")


# On trees: Eq. 4 composed along the route


TREES = {"path": path, "star": star, "random tree": random_tree}


@pytest.mark.parametrize("shape", TREES)
@pytest.mark.parametrize("most", [100, 1_000_000])
def test_tree_sensitivities_are_eq_4_along_the_route(shape, most):
    size, rng = 14, np.random.default_rng(most)
    pairs = TREES[shape](size)
    wins = rng.choice([1.0, 2.0, most / 2, most], (2, len(pairs)))
    data = comparisons_of(pairs, wins[0], wins[1], size)
    fit = fit_pairwise(data)
    fraction = {pair: wins[:, k] / wins[:, k].sum() for k, pair in enumerate(pairs)}
    for start, end in [(0, size - 1), (1, size - 2), (3, 9), (size - 1, 4)]:
        route = tree_route(pairs, start, end)
        result = network_sensitivity(fit, f"item{start}", f"item{end}")
        here, total, signs = start, 0.0, {}
        for pair in route:
            win, loss = fraction[pair]
            forward = pair[0] == here
            here = pair[0] + pair[1] - here
            total += np.log(win / loss) * (1 if forward else -1)
            signs[pair] = 1.0 if forward else -1.0
        tail = np.exp(-abs(total))
        density = tail / (1 + tail) ** 2
        expected = [
            signs[p] * density / np.prod(fraction[p]) if p in signs else 0.0
            for p in zip(result.item_a.tolist(), result.item_b.tolist(), strict=True)
        ]
        # Off the route the truth is 0, and what is left is rounding of the largest.
        atol = 1e-14 * np.abs(expected).max()
        np.testing.assert_allclose(result.derivative, expected, rtol=tol.EXACT, atol=atol)


def test_example_1_is_the_number_of_the_paper():
    fit = fit_pairwise(comparisons_of([(0, 1), (1, 2)], [99, 2], [1, 98], 3))
    log_ik, log_kj = log_sensitivity(np.log(99.0), np.log(2 / 98))
    result = network_sensitivity(fit, "item0", "item2")
    np.testing.assert_allclose(result.derivative, np.exp([log_ik, log_kj]), rtol=tol.EXACT)
    assert result.derivative[0] == pytest.approx(22.37034, abs=5e-6)


def test_bundled_example_1_is_fragile_and_says_where():
    row = audit(fit_pairwise(load_bundled("example1"))).top[0]
    assert row.sensitivity == pytest.approx(22.37034, abs=5e-6)
    assert {row.edge.item_a, row.edge.item_b} >= {"i"} and row.edge.dominant
    assert row.triple is not None and row.triple.region == 10


def test_sensitivity_to_the_pair_itself_in_a_two_item_fit_is_one():
    fit = fit_pairwise(comparisons_of([(0, 1)], [30], [7], 2))
    derivative = network_sensitivity(fit, "item0", "item1").derivative
    np.testing.assert_allclose(derivative, [1.0], rtol=tol.ULP)


# On any graph: differences of refits, and a dense textbook formula


def refit_difference(fit: FitResult, edge: int, start: int, end: int, step: float) -> float:
    """Return dp/df of one edge by central differences of two refits, Richardson-extrapolated."""
    pairs = fit.pairs

    def moved(by: float) -> float:
        wins_a, wins_b = pairs.wins_a.copy(), pairs.wins_b.copy()
        wins_a[edge] += by * (pairs.wins_a[edge] + pairs.wins_b[edge])
        wins_b[edge] -= by * (pairs.wins_a[edge] + pairs.wins_b[edge])
        listed = list(zip(pairs.item_a.tolist(), pairs.item_b.tolist(), strict=True))
        data = comparisons_of(listed, wins_a, wins_b, fit.num_items)
        again = fit_pairwise(data, link=fit.link, ridge=fit.ridge, tolerance=1e-13)
        return again.probability(f"item{start}", f"item{end}")

    wide = (moved(2 * step) - moved(-2 * step)) / (4 * step)
    near = (moved(step) - moved(-step)) / (2 * step)
    return (4 * near - wide) / 3


@pytest.mark.parametrize(
    ("link", "ridge"),
    [("logistic", 0.0), ("logistic", 0.5), ("probit", 0.0)],
    ids=["maximum likelihood", "ridge", "probit"],
)
def test_dense_graph_agrees_with_refits(link, ridge):
    fit = random_fit(3, 9, 5, link=getattr(links, link), ridge=ridge)
    derivative = network_sensitivity(fit, "item1", "item7").derivative
    for edge in (0, 7, int(np.abs(derivative).argmax())):
        # Steps of 2e-4: truncation about 1e-13, rounding 1e-15 / 2e-4 = 5e-12, both absolute.
        expected = refit_difference(fit, edge, 1, 7, 2e-4)
        assert derivative[edge] == pytest.approx(expected, rel=1e-8, abs=2e-10)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), degree=st.floats(2, 8), ridge=st.sampled_from([0.0, 0.2]))
def test_audit_agrees_with_the_dense_pseudo_inverse(seed, degree, ridge):
    fit = random_fit(seed, 12, degree, ridge=ridge)
    a, b = fit.pairs.item_a, fit.pairs.item_b
    total = fit.pairs.wins_a + fit.pairs.wins_b
    inverse = np.linalg.pinv(fit.fisher_information + ridge * np.eye(12), rcond=1e-13)
    rows = (inverse[:, a] - inverse[:, b]) * total
    pairs = audit(fit).unseen
    chance = 1 / (1 + np.exp(fit.scores[pairs.item_b] - fit.scores[pairs.item_a]))
    jacobian = (chance * (1 - chance))[:, None] * (rows[pairs.item_a] - rows[pairs.item_b])
    largest = np.abs(jacobian).max(axis=1)
    # numpy's pseudo-inverse is the weaker side: its error grows with the condition number.
    np.testing.assert_allclose(pairs.sensitivity, largest, rtol=1e-9)
    np.testing.assert_allclose(
        pairs.derivative, jacobian[np.arange(len(largest)), pairs.edge], rtol=1e-9
    )
    np.testing.assert_allclose(pairs.probability, chance, rtol=tol.EXACT)


def test_audit_and_network_sensitivity_agree():
    fit = random_fit(21, 20, 3)
    report = audit(fit, top=5)
    for row in report.top:
        alone = network_sensitivity(fit, row.item_a, row.item_b)
        assert np.abs(alone.derivative).max() == pytest.approx(row.sensitivity, rel=tol.EXACT)
        best = alone.to_rows(top=1)[0]
        assert (best["item_a"], best["item_b"]) == (row.edge.item_a, row.edge.item_b)
        assert best["derivative"] == pytest.approx(row.derivative, rel=tol.EXACT)


# Laws


def test_relabelling_items_permutes_the_audit():
    size, pairs = 12, random_graph(5, 12, 3)
    wins = np.random.default_rng(5).integers(1, 40, (2, len(pairs)))
    data = comparisons_of(pairs, wins[0], wins[1], size)
    order = np.random.default_rng(6).permutation(size)

    def by_name(report: AuditReport) -> dict[frozenset[str], float]:
        u = report.unseen
        names = zip(u.item_a, u.item_b, u.sensitivity, strict=True)
        return {frozenset((report.items[a], report.items[b])): s for a, b, s in names}

    one = by_name(audit(fit_pairwise(data)))
    other = by_name(audit(fit_pairwise(data.select([data.items[k] for k in order]))))
    assert one.keys() == other.keys()
    for pair, value in one.items():
        assert other[pair] == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e6])
def test_scaling_every_count_leaves_every_sensitivity(factor):
    fit = random_fit(9, 15, 4)
    counts = np.zeros((15, 15))
    counts[fit.pairs.item_a, fit.pairs.item_b] = fit.pairs.wins_a * factor
    counts[fit.pairs.item_b, fit.pairs.item_a] = fit.pairs.wins_b * factor
    scaled = fit_pairwise(Comparisons.from_counts(counts, fit.items))
    one, other = audit(fit).unseen, audit(scaled).unseen
    np.testing.assert_allclose(one.sensitivity, other.sensitivity, rtol=1e-9)
    np.testing.assert_array_equal(one.edge, other.edge)


def test_small_ridge_tends_to_maximum_likelihood():
    exact = audit(random_fit(9, 15, 4)).unseen.sensitivity
    off = [
        np.abs(audit(random_fit(9, 15, 4, ridge=r)).unseen.sensitivity - exact).max()
        for r in (1e-3, 1e-5)
    ]
    assert off[0] / off[1] == pytest.approx(100, rel=0.05)


def test_turning_a_pair_round_turns_the_sign_round():
    fit = random_fit(2, 10, 3)
    forward = network_sensitivity(fit, "item2", "item8").derivative
    backward = network_sensitivity(fit, "item8", "item2").derivative
    np.testing.assert_allclose(forward, -backward, rtol=1e-9, atol=1e-13)


@pytest.mark.slow
def test_fragility_fades_as_the_graph_fills():
    """The table of "Any comparison graph": score deviation 1.5, share of unseen pairs above 1."""
    shares = []
    for degree in (2, 3, 6, 12):
        rng = np.random.default_rng(0)
        size = 40
        pairs = random_graph(1, size, degree)
        a, b = np.array(pairs).T
        truth = rng.normal(0, 1.5, size)
        chance = 1 / (1 + np.exp(truth[b] - truth[a]))
        fit = fit_pairwise(comparisons_of(pairs, 100 * chance, 100 * (1 - chance), size))
        np.testing.assert_allclose(fit.scores, truth - truth.mean(), atol=1e-9)
        share = audit(fit).regime.share_above_one
        assert share is not None
        shares.append(share)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.6 and 0.2 < shares[1] < 0.6 and shares[2] < 0.15 and shares[3] < 0.01


# Streaming


def test_blocks_and_chunks_do_not_change_the_answer(monkeypatch):
    fit = random_fit(13, 40, 4)
    whole = audit(fit).unseen
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(pair_scan, "ROW_BUDGET", 128 * 7)
    pieces = audit(
        fit,
        chunk=50,
        flips=False,
        groups=False,
        multiplicity=False,
        progress=lambda done, total: calls.append((done, total)),
    ).unseen
    for name, one, other in zip(whole._fields, whole, pieces, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, err_msg=name)
    total = 40 * 39 // 2
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert calls[-1] == (total, total) and len(calls) > total / 50


def test_audit_is_the_same_twice_and_in_32_bit_jax():
    fit = random_fit(13, 20, 3)
    one = audit(fit)
    with jax.enable_x64(False):
        other = audit(fit)
    for left, right in zip(one.unseen, other.unseen, strict=True):
        np.testing.assert_array_equal(left, right)
    assert one.to_dict() == other.to_dict()


# Hard places and bad input


def test_complete_design_has_nothing_unseen_and_says_so():
    report = audit(fit_pairwise(load_bundled("baseball")))
    assert len(report.unseen.item_a) == 0 and report.top == ()
    assert report.regime.kind == "complete"
    assert report.regime.share_above_one is None
    assert "every pair was compared" in report.regime.sentence
    assert report.triples.total == 0


def test_margins_of_hundreds_of_nats_stay_finite():
    size = 120
    wins = np.full(size - 1, 1e6)
    fit = fit_pairwise(comparisons_of(path(size), wins, wins / 1e6, size))
    report = audit(fit, top=3, flips=False, groups=False, multiplicity=False)
    assert np.isfinite(report.unseen.sensitivity).all()
    # Two edges on, p_ij is within 1e-12 of 1: nothing moves it.
    assert report.regime.largest_sensitivity == pytest.approx(1e-6, rel=1e-5)


def test_undecided_chain_of_strong_preferences_is_fragile_a_quarter_over_the_variance():
    """Up by 1e6 to one, then down again: p = 1/2, so dp/df = (1/4) / (p_ab (1 - p_ab))."""
    fit = fit_pairwise(comparisons_of(path(3), [1e6, 1], [1, 1e6], 3))
    row = audit(fit).top[0]
    chance = 1e6 / (1e6 + 1)
    assert row.probability == pytest.approx(0.5, abs=1e-9)
    assert row.sensitivity == pytest.approx(0.25 / (chance * (1 - chance)), rel=1e-9)


def test_islands_under_a_prior_are_said_to_be_the_priors():
    data = comparisons_of([(0, 1), (2, 3)], [3, 1], [1, 2], 4)
    report = audit(fit_pairwise(data, ridge=0.1))
    assert report.regime.num_islands == 2
    assert "2 islands" in report.regime.sentence
    assert all(row.triple is None for row in report.top)
    assert np.isfinite(report.unseen.sensitivity).all()


@pytest.mark.parametrize("function", [audit, lambda fit: network_sensitivity(fit, "Boston", "x")])
def test_unfinished_fit_is_refused(function):
    fit = fit_pairwise(load_bundled("baseball"), max_steps=1, throw=False)
    with pytest.raises(InputError, match="expected a converged fit.*'max_steps'"):
        function(fit)


def test_unknown_and_equal_names_are_refused():
    fit = fit_pairwise(load_bundled("baseball"))
    with pytest.raises(InputError, match="closest: 'Boston'"):
        network_sensitivity(fit, "Bostton", "Detroit")
    with pytest.raises(InputError, match="other than item_i"):
        network_sensitivity(fit, "Boston", "Boston")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"top": -1}, "top: expected"),
        ({"chunk": 0}, "chunk: expected"),
        ({"thresholds": (2.0, 0.0)}, r"thresholds\[1\]: expected a finite threshold"),
        ({"thresholds": (float("inf"),)}, "thresholds"),
        ({"thresholds": ()}, "thresholds"),
    ],
    ids=str,
)
def test_bad_options_are_refused(option, message):
    with pytest.raises(InputError, match=message):
        audit(fit_pairwise(load_bundled("baseball")), **option)


def test_report_goes_through_strict_json():
    report = audit(random_fit(13, 20, 3), top=4)
    text = json.dumps(report.to_dict(pairs=True), allow_nan=False)
    written = json.loads(text)
    assert len(written["top"]) == 4
    assert len(written["unseen"]["sensitivity"]) == written["regime"]["num_unseen"]
    assert written["top"][0]["sensitivity"] == max(written["unseen"]["sensitivity"])
