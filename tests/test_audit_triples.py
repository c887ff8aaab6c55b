"""The paper's triple view: against a triple loop over Eq. 4."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxpref.audit import audit
from jaxpref.audit.triples import TripleCounts
from jaxpref.data import Comparisons
from jaxpref.data.bundled import load_bundled
from jaxpref.fit import FitResult, fit_pairwise
from tests import tolerances as tol

THRESHOLDS = (1.01, 2, 3, 5, 10)


def sparse_fit(seed: int, size: int) -> FitResult:
    """Return a fit to a random sparse graph with strong preferences."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((size, size))
    for k in range(1, size):
        for other in {int(rng.integers(k)), int(rng.integers(k))}:
            counts[k, other], counts[other, k] = 10 ** rng.uniform(0, 2.5, 2)
    return fit_pairwise(Comparisons.from_counts(counts))


def eq_4(p_ik: float, p_kj: float) -> float:
    return p_kj * (1 - p_kj) / (p_ik + p_kj - 2 * p_ik * p_kj - 1) ** 2


def loop_over_triples(fit: FitResult):
    """Return, for each unseen pair, its intermediates with both partials, by plain loops."""
    near = [set() for _ in fit.items]
    for a, b in zip(fit.pairs.item_a.tolist(), fit.pairs.item_b.tolist(), strict=True):
        near[a].add(b)
        near[b].add(a)
    found = {}
    for i in range(fit.num_items):
        for j in range(i + 1, fit.num_items):
            if j not in near[i]:
                chance = 1 / (1 + np.exp(-(fit.scores[:, None] - fit.scores[None, :])))
                found[i, j] = {
                    k: (eq_4(chance[i, k], chance[k, j]), eq_4(chance[k, j], chance[i, k]))
                    for k in sorted(near[i] & near[j])
                }
    return found


@pytest.mark.parametrize("seed", range(3))
def test_triples_are_those_of_plain_loops(seed):
    fit = sparse_fit(seed, 18)
    report = audit(fit, top=10_000, thresholds=THRESHOLDS)
    expected = loop_over_triples(fit)
    larger = [max(both) for triples in expected.values() for both in triples.values()]
    assert report.triples.total == len(larger) > 20
    assert report.triples.inside == tuple(sum(v > m for v in larger) for m in THRESHOLDS)
    assert report.triples.inside[0] > report.triples.inside[-1]
    for row in report.top:
        triples = expected[fit.index(row.item_a), fit.index(row.item_b)]
        if not triples:
            assert row.triple is None
            continue
        assert row.triple is not None
        best = max(max(both) for both in triples.values())
        ik, kj = triples[fit.index(row.triple.item_k)]
        # Eq. 4 as printed cancels near dominance: a few thousand rounding errors here.
        assert np.exp(row.triple.log_sensitivity_ik) == pytest.approx(ik, rel=1e-10)
        assert np.exp(row.triple.log_sensitivity_kj) == pytest.approx(kj, rel=1e-10)
        assert max(ik, kj) == pytest.approx(best, rel=1e-10)
        assert row.triple.wrt == ("ik" if ik >= kj else "kj")
        below = [m for m in THRESHOLDS if best > m]
        assert row.triple.region == (max(below) if below else None)


def test_triple_margins_add_up_to_the_prediction():
    fit = sparse_fit(4, 18)
    checked = 0
    for row in audit(fit, top=10_000).top:
        if row.triple is not None:
            margin = row.triple.margin_ik + row.triple.margin_kj
            assert margin == pytest.approx(fit.margin(row.item_a, row.item_b), abs=tol.EXACT)
            assert row.triple.probability_ik == fit.probability(row.item_a, row.triple.item_k)
            checked += 1
    assert checked > 20


def test_threshold_is_strict_and_sorted():
    """Both margins 0: every partial is exactly 1, which no region M >= 1 contains."""
    fit = fit_pairwise(Comparisons.from_counts([[0, 5, 0], [5, 0, 5], [0, 5, 0]]))
    report = audit(fit, thresholds=(1.0, 0.5))
    assert report.triples == TripleCounts((0.5, 1.0), (1, 0), 1)
    assert report.top[0].triple is not None and report.top[0].triple.region == 0.5


def test_pair_two_steps_from_everyone_has_no_triple():
    fit = fit_pairwise(load_bundled("baseball_path"))
    rows = {frozenset((r.item_a, r.item_b)): r for r in audit(fit, top=100).top}
    assert any(row.triple is None for row in rows.values())
    assert sum(row.triple is not None for row in rows.values()) == fit.num_items - 2


def test_counts_go_through_json_with_shares():
    written = json.loads(json.dumps(TripleCounts((1.0, 2.0), (3, 1), 4).to_dict()))
    assert [region["share"] for region in written["regions"]] == [0.75, 0.25]
    assert TripleCounts((1.0,), (0,), 0).to_dict()["regions"][0]["share"] is None
