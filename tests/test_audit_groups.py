"""Groups left out, leverage, pairs seen and unseen, and the searches for large fits."""

from __future__ import annotations

import numpy as np
import pytest

from jaxpref import links
from jaxpref.audit import audit, auditing, network_sensitivity
from jaxpref.audit.groups import LeaveOut
from jaxpref.audit.large import fragile_pairs
from jaxpref.audit.network import _factored_response
from jaxpref.audit.pairs import scan_pairs
from jaxpref.audit.solve import one_response
from jaxpref.data import Comparisons, load_bundled
from jaxpref.fit import fit_pairwise
from jaxpref.fit._host import float64
from tests.test_audit_flips import votes
from tests.test_audit_network import random_fit


def test_each_rater_left_out_is_a_fit_without_them():
    data = votes(5, 6, 4, ties=True, raters=5)
    fit = fit_pairwise(data, ties="half")
    groups = LeaveOut(fit, 2).raters(data, 99)
    assert (groups.num, groups.num_refitted, len(groups.rows)) == (5, 5, 5)
    for row in groups.rows:
        keep = data.rater != data.raters.index(row.name[0])
        wins = (data.wins_a[keep], data.wins_b[keep], data.ties[keep])
        less = Comparisons(data.items, data.item_a[keep], data.item_b[keep], *wins)
        again = fit_pairwise(less, ties="half")
        assert row.item_a is not None and row.item_b is not None
        assert row.after == pytest.approx(again.probability(row.item_a, row.item_b), abs=1e-9)
        assert row.before == pytest.approx(fit.probability(row.item_a, row.item_b), abs=1e-12)
        assert row.winner == again.rank()[0]
        assert set(row.top_k_left) == set(fit.rank()[:2]) - set(again.rank()[:2])


def test_each_item_left_out_is_a_fit_without_it():
    data = votes(6, 6, 5)
    fit = fit_pairwise(data)
    for row in LeaveOut(fit, 2).items(99).rows:
        again = fit_pairwise(data.drop(row.name[0]))
        assert row.item_a is not None and row.item_b is not None
        assert row.name[0] not in (row.item_a, row.item_b)
        assert row.after == pytest.approx(again.probability(row.item_a, row.item_b), abs=1e-9)
        assert row.winner == again.rank()[0]


@pytest.mark.parametrize("link", ["logistic", "probit"])
def test_one_step_without_an_edge_is_close_to_the_refit(link):
    fit = random_fit(4, 12, 8, link=getattr(links, link))
    leave = LeaveOut(fit, 3)
    step = leave.edge_steps()
    for edge in (0, 5, 20):
        kept = np.ones(len(fit.pairs.item_a))
        kept[edge] = 0.0
        less = leave.counts._replace(
            wins_a=leave.counts.wins_a * kept, wins_b=leave.counts.wins_b * kept
        )
        exact = leave.engine.refit(less, fit.scores)
        assert exact is not None
        # A Newton step: its error is of the square of the move.
        moved = np.abs(exact - fit.scores).max()
        assert np.abs(fit.scores + step[:, edge] - exact).max() <= 3 * moved**2 + 1e-12


def test_leverage_adds_up_to_the_free_scores_and_finds_bridges():
    fit = random_fit(8, 15, 5)
    levers = [edge.leverage for edge in LeaveOut(fit, 3).leverage(999)]
    assert sum(levers) == pytest.approx(14, rel=1e-10)
    assert levers == sorted(levers, reverse=True) and 0 < min(levers)
    chain = LeaveOut(fit_pairwise(load_bundled("example1")), 1)
    assert [edge.leverage for edge in chain.leverage(9)] == pytest.approx([1.0, 1.0])
    assert all(row.status == "no_fit" for row in chain.edges(9).rows)


def test_every_pair_has_its_norms():
    fit = random_fit(11, 14, 4)
    with float64():
        table = scan_pairs(fit, 32, None)
    assert len(table.item_a) == 14 * 13 // 2 and table.seen.sum() == len(fit.pairs.item_a)
    for n in range(0, len(table.item_a), 7):
        names = fit.items[table.item_a[n]], fit.items[table.item_b[n]]
        row = network_sensitivity(fit, *names).derivative
        assert table.sensitivity[n] == pytest.approx(np.abs(row).max(), rel=1e-11)
        assert table.worst_l2[n] == pytest.approx(np.sqrt(row @ row), rel=1e-11)
        assert table.worst_linf[n] == pytest.approx(np.abs(row).sum(), rel=1e-11)
        assert table.low[n] < table.probability[n] < table.high[n]


def test_worst_cases_under_a_budget_are_attained():
    """Moving the fractions along the dual direction moves a refit by the norm, to first order."""
    fit = random_fit(12, 8, 5)
    row = network_sensitivity(fit, "item0", "item5").derivative
    step, wins = 1e-5, fit.pairs.wins_a + fit.pairs.wins_b
    base = fit.probability("item0", "item5")
    for direction, norm in ((np.sign(row), np.abs(row).sum()), (row, row @ row)):
        by = step * direction * wins
        pairs = fit.pairs
        moved = Comparisons(
            fit.items, pairs.item_a, pairs.item_b, pairs.wins_a + by, pairs.wins_b - by, 0 * by
        )
        again = fit_pairwise(moved, tolerance=1e-12).probability("item0", "item5")
        assert (again - base) / step == pytest.approx(norm, rel=1e-3)


@pytest.mark.parametrize("degree", [3, 12])
@pytest.mark.parametrize("link", ["logistic", "probit"])
def test_the_most_fragile_pairs_by_bounds_are_the_most_fragile(degree, link):
    fit = random_fit(17, 40, degree, link=getattr(links, link))
    with float64():
        table = scan_pairs(fit, 4096, None)
    best = np.sort(table.sensitivity)[::-1][:25]
    found = fragile_pairs(fit, 25)
    np.testing.assert_allclose(found.sensitivity, best, rtol=1e-10)
    for n in range(0, 25, 6):
        names = fit.items[found.item_a[n]], fit.items[found.item_b[n]]
        row = network_sensitivity(fit, *names).derivative
        assert row[found.edge[n]] == pytest.approx(found.derivative[n], rel=1e-10)


@pytest.mark.parametrize("link", ["logistic", "probit"])
def test_conjugate_gradients_agree_with_the_factor(link):
    fit = random_fit(18, 60, 8, link=getattr(links, link))
    found = one_response(fit, 3, 40)
    assert found is not None
    exact = _factored_response(fit, 3, 40)
    np.testing.assert_allclose(found, exact, atol=1e-10 * np.abs(exact).max())


def test_audit_of_a_fit_too_large_to_scan(monkeypatch):
    fit = random_fit(19, 30, 5)
    whole = audit(fit, top=6, flips=False, groups=False, collect=False, multiplicity=False)
    monkeypatch.setattr(auditing, "PAIRS_SCANNED", 10)
    part = audit(fit, top=6, flips=False, groups=False, collect=False, multiplicity=False)
    assert part.pairs is None and part.regime.share_above_one is None
    assert [(r.item_a, r.item_b) for r in part.fragile] == [
        (r.item_a, r.item_b) for r in whole.fragile
    ]
    assert part.regime.num_unseen == whole.regime.num_unseen


@pytest.mark.parametrize("names", [("x", "y", "z"), ("y", "x", "z"), ("z", "y", "x")])
def test_a_draw_without_an_item_changes_no_winner(names):
    wins = {
        ("x", "y"): 5,
        ("y", "x"): 5,
        ("x", "z"): 6,
        ("z", "x"): 2,
        ("y", "z"): 5,
        ("z", "y"): 3,
    }
    counts = [[wins.get((a, b), 0) for b in names] for a in names]
    fit = fit_pairwise(Comparisons.from_counts(counts, items=names))
    assert fit.rank()[0] == "x"
    found = LeaveOut(fit, 1).items(3)
    without = next(row for row in found.rows if row.name == ("z",))
    assert without.winner == "x" and without.top_k_entered == ()
    assert found.changing_winner == 0
