"""Flips: against every way there is on small data, and each certificate fitted again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxpref import links
from jaxpref._checks import DisconnectedComparisonsError, InputError
from jaxpref.audit import audit
from jaxpref.audit.conclusions import BUDGETS, Conclusions
from jaxpref.audit.cuts import weakest_cut
from jaxpref.audit.records import Flip, Move
from jaxpref.data import Comparisons, load_bundled
from jaxpref.fit import FitResult, fit_pairwise


def votes(seed: int, size: int, most: int, *, ties: bool = False, raters: int = 0) -> Comparisons:
    """Return random comparisons of all pairs, every pair won at least once by either."""
    rng = np.random.default_rng(seed)
    a, b = np.triu_indices(size, 1)
    copies = max(raters, 1)
    a, b = np.tile(a, copies), np.tile(b, copies)
    tied = rng.integers(0, 3, len(a)) if ties else 0 * a
    rater = np.repeat(np.arange(copies), len(a) // copies) if raters else None
    return Comparisons(
        tuple(f"item{k}" for k in range(size)),
        a,
        b,
        rng.integers(1, most + 1, len(a)),
        rng.integers(1, most + 1, len(a)),
        tied,
        rater,
        tuple(f"rater{k}" for k in range(raters)),
    )


def after(data: Comparisons, flip: Flip) -> Comparisons:
    """Return the comparisons after the moves of a certificate, by the names in it."""
    wins, tied = data.counts_matrix(), np.zeros((data.num_items,) * 2)
    np.add.at(tied, (data.item_a, data.item_b), data.ties)
    for move in flip.moves:
        assert isinstance(move, Move)
        a, b = data.index(move.item_a), data.index(move.item_b)
        places = {"a": (a, b), "b": (b, a)}
        sign = 1.0 if move.action == "add" else -1.0
        if move.outcome == "tie":
            tied[min(a, b), max(a, b)] += sign * move.count
        else:
            wins[places[move.outcome]] += sign * move.count
        if move.new_outcome is not None:
            wins[places[move.new_outcome]] += move.count
    assert wins.min() >= 0 and tied.min() >= 0
    halves = wins + (tied + tied.T) / 2
    return Comparisons.from_counts(halves, data.items)


def total(flip: Flip) -> float:
    return sum(move.count for move in flip.moves)


def fewest_drops(fit: FitResult, ahead: int, behind: int, most: int) -> int | None:
    """Return the fewest wins to drop, by trying every way, fits from nothing."""
    a, b = fit.pairs.item_a, fit.pairs.item_b
    wins = np.stack([fit.pairs.wins_a, fit.pairs.wins_b]).astype(int)
    for count in range(1, most + 1):
        for cells in itertools.combinations_with_replacement(range(wins.size), count):
            left = wins.ravel() - np.bincount(cells, minlength=wins.size)
            if left.min() < 0:
                continue
            up, down = left.reshape(wins.shape).astype(float)
            data = Comparisons(fit.items, a, b, up, down, 0 * up)
            try:
                scores = fit_pairwise(data).scores
            except DisconnectedComparisonsError:
                continue
            if scores[ahead] - scores[behind] < -1e-9:
                return count
    return None


@pytest.mark.parametrize("seed", range(6))
def test_no_way_of_dropping_fewer_exists(seed):
    data = votes(seed, 3, 4)
    fit = fit_pairwise(data)
    order = np.argsort(-fit.scores)
    conclusions = Conclusions(fit, None)
    ahead, behind = int(order[0]), int(order[1])
    found = conclusions.pair(fit.items[ahead], fit.items[behind], "drop")
    best = fewest_drops(fit, ahead, behind, 4)
    if best is None:
        assert found.comparisons is None or found.comparisons > 4
    else:
        assert found.comparisons == best


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(
    ("link", "ridge", "ties"),
    [("logistic", 0.0, False), ("logistic", 0.3, True), ("probit", 0.0, False)],
)
def test_every_certificate_does_what_it_says(budget, link, ridge, ties):
    data = votes(4, 9, 9, ties=ties)
    options = {"link": getattr(links, link), "ridge": ridge}
    fit = fit_pairwise(data, ties="half", **options)
    conclusions = Conclusions(fit, data)
    ranked = fit.rank()
    asked = [(ranked[0], ranked[1]), (ranked[1], ranked[4]), (ranked[2], ranked[8])]
    for names in asked:
        flip = conclusions.pair(*names, budget)
        assert (flip.ahead, flip.behind, flip.status) == (*names, "confirmed")
        assert flip.comparisons == total(flip) and flip.margin_after is not None
        again = fit_pairwise(after(data, flip), **options)
        margin = again.margin(*names)
        assert margin < 0
        assert margin == pytest.approx(flip.margin_after, abs=1e-8)


def test_ties_are_dropped_as_ties():
    three = Comparisons(
        ("a", "b", "c"),
        np.array([0, 0, 1]),
        np.array([1, 2, 2]),
        np.array([1.0, 4.0, 1.0]),
        np.array([1.0, 4.0, 1.0]),
        np.array([0.0, 0.0, 9.0]),
    )
    fit = fit_pairwise(three, ties="half")
    first, second = fit.rank()[:2]
    for flip in (Conclusions(fit, three).pair(first, second, budget) for budget in BUDGETS):
        assert flip.comparisons is not None
        for move in flip.moves:
            if isinstance(move, Move) and move.outcome == "tie":
                assert move.available == 9


def test_a_draw_is_no_reversal():
    fit = fit_pairwise(Comparisons.from_counts([[0, 3], [2, 0]], items=("a", "b")))
    conclusions = Conclusions(fit, None)
    assert conclusions.pair("a", "b", "drop").comparisons == 2
    assert conclusions.pair("a", "b", "add").comparisons == 2
    assert conclusions.pair("b", "a", "change").comparisons == 1


def test_running_out_of_fits_is_said():
    fit = fit_pairwise(Comparisons.from_counts([[0, 5], [1, 0]], items=("a", "b")))
    found = Conclusions(fit, None).pair("a", "b", "drop")
    assert (found.status, found.comparisons, found.moves) == ("no_fit", None, ())
    prior = fit_pairwise(Comparisons.from_counts([[0, 5], [1, 0]], items=("a", "b")), ridge=0.1)
    assert Conclusions(prior, None).pair("a", "b", "drop").comparisons == 5


def test_a_limit_is_kept():
    fit = fit_pairwise(Comparisons.from_counts([[0, 9], [2, 0]], items=("a", "b")))
    for budget in BUDGETS:
        flip = Conclusions(fit, None).pair("a", "b", budget, 2.0)
        assert (flip.comparisons, flip.status) == (None, "not_found")


def test_winner_and_top_k_are_the_cheapest_of_their_pairs():
    fit = fit_pairwise(votes(7, 7, 12))
    conclusions, ranked = Conclusions(fit, None), fit.rank()
    for budget in BUDGETS:
        rivals = [conclusions.pair(ranked[0], name, budget).comparisons for name in ranked[1:]]
        assert conclusions.winner(budget).comparisons == min(filter(None, rivals))
        both = itertools.product(ranked[:3], ranked[3:])
        swaps = [conclusions.pair(a, b, budget).comparisons for a, b in both]
        top = conclusions.top_k(3, budget)
        assert top.comparisons == min(filter(None, swaps))
        assert top.ahead in ranked[:3] and top.behind in ranked[3:]


def test_certificates_name_raters_who_gave_such_votes():
    data = votes(3, 5, 3, raters=4)
    fit = fit_pairwise(data)
    flip = Conclusions(fit, data).pair(fit.rank()[0], fit.rank()[2], "drop")
    assert flip.moves
    for move in flip.moves:
        given = dict(move.raters)
        assert set(given) <= set(data.raters) and sum(given.values()) == move.available


def test_dropping_on_a_chain_is_counting():
    """On a chain each margin is its own log-odds, so the fewest follow by hand."""
    flips = audit(fit_pairwise(load_bundled("example1"))).flips
    drop = next(f for f in flips if (f.question, f.budget) == ("winner", "drop"))
    # log(99/1) + log(2/98) > 0; log(97/1) + log(1/98) < 0 is three away, and no two are enough.
    assert drop.comparisons == 3 and drop.margin_after == pytest.approx(np.log(97 / 98))


@pytest.mark.parametrize("seed", range(5))
def test_the_weakest_cut_is_the_weakest(seed):
    rng = np.random.default_rng(seed)
    wins = rng.integers(0, 6, (5, 5)).astype(float)
    np.fill_diagonal(wins, 0)
    for k in range(5):  # a cycle keeps the fit in existence
        wins[k, (k + 1) % 5] += 1
    cut = weakest_cut(fit_pairwise(Comparisons.from_counts(wins)))
    sides = [np.array(s, bool) for s in itertools.product([0, 1], repeat=5) if 0 < sum(s) < 5]
    assert cut is not None and cut.comparisons == min(wins[s][:, ~s].sum() for s in sides)
    inside = np.isin(list(map(str, range(5))), cut.items)
    lost = wins[inside][:, ~inside] if cut.verb == "beat" else wins[~inside][:, inside]
    assert lost.sum() == cut.comparisons


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"k": 8}, "k: expected at most the number of items, 7; got 8"),
        ({"k": 0}, "k: expected"),
        ({"limit": 0}, "limit: expected a finite number of comparisons above 0"),
        ({"loss": -1.0}, "loss: expected"),
        ({"budgets": ("dorp",)}, "did you mean 'drop'"),
        ({"flip_pairs": [("Bostton", "Detroit")]}, "closest: 'Boston'"),
        ({"flip_pairs": [("Boston", "Boston")]}, r"flip_pairs\[0\]: expected two different"),
        ({"collect": ("flipp",)}, "did you mean 'flip'"),
        ({"raters": ("x",)}, "raters: expected comparisons with raters"),
        ({"comparisons": load_bundled("example1")}, "comparisons: expected those that were fitted"),
    ],
    ids=str,
)
def test_bad_options_are_refused(option, message):
    with pytest.raises(InputError, match=message):
        audit(fit_pairwise(load_bundled("baseball")), **option)


def test_more_parameters_than_scores_are_refused():
    data = votes(1, 4, 5, ties=True)
    with pytest.raises(InputError, match="expected scores alone"):
        audit(fit_pairwise(data, ties="rao_kupper"))
    assert audit(fit_pairwise(data, ties="half")).flips


def test_unknown_rater_comes_with_the_closest():
    data = votes(3, 4, 3, raters=3)
    fit = fit_pairwise(data)
    with pytest.raises(InputError, match="closest: 'rater2'"):
        audit(fit, comparisons=data, raters=["ratr2"], flips=False)
    kinds = {group.kind: group for group in audit(fit, comparisons=data, raters=["rater2"]).groups}
    assert kinds["rater"].num == 1
