"""Tie models, order effect, covariates and priors: exact answers, scipy, laws, bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_expit, log_ndtr

from jaxpref import links
from jaxpref._checks import (
    ConvergenceError,
    DataError,
    DisconnectedComparisonsError,
    InputError,
)
from jaxpref.data import Comparisons, load_bundled
from jaxpref.fit import FitResult, fit_pairwise
from jaxpref.fit.components import fit_components
from jaxpref.fit.existence import ties_explained_by_growth
from jaxpref.fit.outcomes import Cells, cell_terms, outcome_probabilities
from tests import tolerances as tol

pytestmark = pytest.mark.slow

TIES = ("half", "davidson", "rao_kupper")
LOG_PROBABILITY = {"logistic": log_expit, "probit": log_ndtr}
BFGS = 5e-6
"""BFGS with difference gradients ends a few 1e-7 from the maximum."""


def cells(names: Any, a: Any, b: Any, won: Any, lost: Any, tied: Any) -> Comparisons:
    w, x, t = (np.asarray(column, np.float64) for column in (won, lost, tied))
    return Comparisons(tuple(names), np.asarray(a, np.int32), np.asarray(b, np.int32), w, x, t)


class Table:
    """Random cells with ties, covariates of cells and of items."""

    def __init__(self, seed: int = 0, size: int = 7, rows: int = 40) -> None:
        rng = np.random.default_rng(seed)
        self.size = size
        self.a = rng.integers(0, size, rows)
        self.b = (self.a + rng.integers(1, size, rows)) % size
        self.won, self.lost, self.tied = rng.integers(0, 6, (3, rows)).astype(float)
        self.z = rng.normal(size=(rows, 2))
        x = rng.normal(size=(size, 2))
        self.x = x - x.mean(axis=0)

    @property
    def comparisons(self) -> Comparisons:
        names = [f"item{k}" for k in range(self.size)]
        return cells(names, self.a, self.b, self.won, self.lost, self.tied)


def loss(theta, t: Table, *, ties, order, style, features, ridge, link="logistic") -> float:
    """Return minus the penalised log-likelihood, written out; the last term fixes the gauge."""
    log_g, s, k = LOG_PROBABILITY[link], theta[: t.size], t.size
    m, deviation = s[t.a] - s[t.b], s
    if order:
        m, k = m + theta[k], k + 1
    if style:
        m, k = m + t.z @ theta[k : k + 2], k + 2
    if features:
        deviation, k = s - t.x @ theta[k : k + 2], k + 2
    if ties == "half":
        value = (t.won + t.tied / 2) @ log_g(m) + (t.lost + t.tied / 2) @ log_g(-m)
    elif ties == "davidson":
        norm = np.logaddexp(np.logaddexp(m / 2, -m / 2), theta[k])
        value = t.won @ (m / 2 - norm) + t.lost @ (-m / 2 - norm) + t.tied @ (theta[k] - norm)
    else:
        gap = abs(theta[k])
        between = np.log(np.exp(log_g(m + gap)) - np.exp(log_g(m - gap)))
        value = t.won @ log_g(m - gap) + t.lost @ log_g(-m - gap) + t.tied @ between
    return float(-value + ridge / 2 * deviation @ deviation + s.sum() ** 2)


MODELS = [
    {"ties": ties, "order": order, "style": style, "features": features, "ridge": ridge}
    for ties in TIES
    for order, style, features, ridge in (
        (False, False, False, 0.0),
        (True, False, False, 0.5),
        (False, True, False, 0.0),
        (True, True, True, 0.7),
    )
] + [
    {"ties": "rao_kupper", "order": True, "style": True, "features": False, "ridge": 0.0}
    | {"link": "probit"},
    {"ties": "half", "order": True, "style": False, "features": False, "ridge": 0.0}
    | {"link": "probit"},
]


def fit_model(table: Table, model: dict[str, Any]) -> FitResult:
    style = {"z0": table.z[:, 0], "z1": table.z[:, 1]}
    features = {"x0": table.x[:, 0], "x1": table.x[:, 1]}
    return fit_pairwise(
        table.comparisons,
        link=getattr(links, model.get("link", "logistic")),
        ties=model["ties"],
        ridge=model["ridge"],
        order_effect=model["order"],
        comparison_covariates=style if model["style"] else None,
        item_covariates=features if model["features"] else None,
    )


def unknowns(fit: FitResult) -> np.ndarray:
    return np.concatenate([fit.scores, [effect.estimate for effect in fit.effects]])


# Exact references


def test_two_items_with_ties_have_the_observed_shares_as_probabilities():
    data = cells("xy", [0], [1], [5], [2], [3])
    for ties in ("davidson", "rao_kupper"):
        fit = fit_pairwise(data, ties=ties)
        np.testing.assert_allclose(fit.outcomes("x", "y"), [0.5, 0.2, 0.3], atol=tol.EXACT)
        np.testing.assert_allclose(fit.outcomes("y", "x"), [0.2, 0.5, 0.3], atol=tol.EXACT)
    davidson = fit_pairwise(data, ties="davidson")
    # nu = tie / sqrt(win loss)
    assert davidson.effect("tie").estimate == pytest.approx(math.log(0.3 / math.sqrt(0.1)))


def test_probit_ties_of_two_items_are_the_normal_quantiles():
    from scipy.stats import norm

    fit = fit_pairwise(cells("xy", [0], [1], [5], [2], [3]), ties="rao_kupper", link=links.probit)
    upper, lower = norm.ppf(0.5), norm.ppf(0.2)  # m - t and -m - t
    assert fit.effect("tie").estimate == pytest.approx(-(upper + lower) / 2, abs=1e-10)
    assert fit.margin("x", "y") == pytest.approx((upper - lower) / 2, abs=1e-10)


def test_order_effect_of_two_items_is_half_the_sum_of_their_home_log_odds():
    data = cells("xy", [0, 1], [1, 0], [30, 12], [10, 6], [0, 0])
    fit = fit_pairwise(data, order_effect=True)
    at_home, away = math.log(3), -math.log(2)
    assert fit.effect("order").estimate == pytest.approx((at_home - away) / 2, abs=1e-10)
    assert fit.probability("x", "y", order="first") == pytest.approx(0.75, abs=1e-10)
    assert fit.probability("y", "x", order="first") == pytest.approx(2 / 3, abs=1e-10)
    assert fit.probability("x", "y", order="second") == pytest.approx(1 / 3, abs=1e-10)
    # Two independent log-odds, each with variance 1/won + 1/lost.
    expected = math.sqrt(1 / 30 + 1 / 10 + 1 / 12 + 1 / 6) / 2
    assert fit.effect("order").standard_error == pytest.approx(expected, rel=1e-9)


# Independent implementation


@pytest.mark.parametrize("model", MODELS, ids=lambda m: "-".join(map(str, m.values())))
def test_every_model_maximises_the_likelihood_written_out(model):
    table = Table()
    fit = fit_model(table, model)
    mine = unknowns(fit)
    found = minimize(
        lambda theta: loss(theta, table, **model),
        mine + 0.05,
        method="BFGS",
        options={"gtol": 1e-8},
    )
    np.testing.assert_allclose(mine, found.x, rtol=0, atol=BFGS)
    assert loss(mine, table, **model) <= found.fun + 1e-9
    assert fit.status == "converged" and fit.gradient_norm < 1e-8


@pytest.mark.parametrize("model", MODELS[1::4] + MODELS[3::4], ids=lambda m: m["ties"])
def test_standard_errors_of_coefficients_are_those_of_the_numerical_hessian(model):
    table = Table(seed=1)
    fit = fit_model(table, model)
    at, step = unknowns(fit), 1e-4
    size = len(at)
    moves = np.eye(size) * step
    f = lambda theta: loss(theta, table, **model)  # noqa: E731
    hessian = np.array(
        [
            [f(at + i + j) - f(at + i - j) - f(at - i + j) + f(at - i - j) for j in moves]
            for i in moves
        ]
    ) / (4 * step**2)
    expected = np.sqrt(np.diag(np.linalg.inv(hessian)))[table.size :]
    errors = [effect.standard_error for effect in fit.effects]
    np.testing.assert_allclose(errors, expected, rtol=1e-4)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
@pytest.mark.parametrize("link", ["logistic", "probit", "laplace"])
def test_terms_of_a_cell_are_derivatives_of_its_log_likelihood(ties, link):
    if ties == "davidson" and link != "logistic":
        pytest.skip("Davidson's model is logistic")
    rng = np.random.default_rng(0)
    margin, cell, tie, h = rng.normal(0, 2, 6), Cells(*rng.uniform(0, 5, (3, 6))), 0.7, 1e-5
    family = getattr(links, link)

    def at(up: float, right: float):
        return cell_terms(family, ties, margin + up, tie + right, cell)

    def slope(name: str, up: float, right: float) -> np.ndarray:
        return (getattr(at(up, right), name) - getattr(at(-up, -right), name)) / (2 * h)

    terms, chances = at(0, 0), outcome_probabilities(family, ties, margin, tie)
    np.testing.assert_allclose(sum(chances), 1.0, atol=tol.ULP)
    np.testing.assert_allclose(
        terms.log_likelihood, sum(n * np.log(p) for n, p in zip(cell, chances, strict=True))
    )
    for name, expected in (
        ("gradient", slope("log_likelihood", h, 0)),
        ("by_tie", slope("log_likelihood", 0, h)),
        ("curvature", -slope("gradient", h, 0)),
        ("cross", -slope("gradient", 0, h)),
        ("tie_curvature", -slope("by_tie", 0, h)),
    ):
        np.testing.assert_allclose(getattr(terms, name), expected, rtol=tol.FINITE_DIFF, atol=1e-7)


# Laws


@pytest.mark.parametrize("model", MODELS[:12:2], ids=lambda m: "-".join(map(str, m.values())))
def test_relabelling_items_permutes_the_scores(model):
    table, order = Table(seed=2), np.random.default_rng(1).permutation(7)
    one = fit_model(table, model)
    place = np.argsort(order)
    table.a, table.b, table.x = place[table.a], place[table.b], table.x[order]
    other = fit_model(table, model)
    np.testing.assert_allclose(other.scores, one.scores[order], atol=1e-9)
    np.testing.assert_allclose(
        [e.estimate for e in other.effects], [e.estimate for e in one.effects], atol=1e-9
    )


@pytest.mark.parametrize("ties", TIES)
def test_swapping_the_sides_negates_the_order_effect_alone(ties):
    t = Table(seed=3)
    one = fit_pairwise(t.comparisons, ties=ties, order_effect=True)
    t.a, t.b, t.won, t.lost = t.b, t.a, t.lost, t.won
    other = fit_pairwise(t.comparisons, ties=ties, order_effect=True)
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-9)
    assert other.effect("order").estimate == pytest.approx(-one.effect("order").estimate, abs=1e-9)


def test_covariance_of_a_plain_model_is_that_of_the_model_without_extras():
    """An order effect orthogonal to the scores leaves their covariance alone."""
    a, b = np.triu_indices(5, 1)
    both = cells("vwxyz", [*a, *b], [*b, *a], np.full(20, 3.0), np.full(20, 3.0), np.zeros(20))
    plain, with_order = fit_pairwise(both), fit_pairwise(both, order_effect=True)
    np.testing.assert_allclose(with_order.covariance(), plain.covariance(), atol=1e-12)


def test_weights_are_counts():
    t = Table(seed=4)
    twice = cells(t.comparisons.items, t.a, t.b, 2 * t.won, 2 * t.lost, 2 * t.tied)
    one, other = (fit_pairwise(c, ties="davidson") for c in (t.comparisons, twice))
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-9)
    errors = [fit.effect("tie").standard_error for fit in (one, other)]
    assert errors[0] == pytest.approx(math.sqrt(2) * errors[1], rel=1e-9)


def test_stronger_priors_lead_from_free_scores_to_scores_explained_by_covariates():
    t = Table(seed=5)
    features = {"x0": t.x[:, 0], "x1": t.x[:, 1]}
    limit = fit_pairwise(t.comparisons, ties="half", ridge=math.inf, item_covariates=features)
    near = fit_pairwise(t.comparisons, ties="half", ridge=1e8, item_covariates=features)
    np.testing.assert_allclose(near.scores, limit.scores, atol=1e-5)
    slopes = [effect.estimate for effect in limit.effects]
    np.testing.assert_allclose(limit.scores, t.x @ slopes, atol=1e-12)
    np.testing.assert_allclose(near.covariance(), limit.covariance(), atol=1e-6)


# Components


def islands() -> Comparisons:
    names = ["a", "b", "c", "p", "q", "loner"]
    won, lost = [2, 3, 1, 1, 5], [1, 2, 1, 4, 0]
    return cells(names, [0, 1, 0, 3, 5], [1, 2, 2, 4, 0], won, lost, np.zeros(5))


def test_components_are_fitted_on_their_own_and_refuse_to_predict_across():
    first, second = fit_components(islands())
    assert (first.items, second.items) == (("a", "b", "c"), ("p", "q"))
    assert first.unlinked == ("p", "q", "loner")
    assert second.probability("p", "q") == pytest.approx(0.2, abs=1e-10)
    with pytest.raises(DisconnectedComparisonsError, match="'p' is in another component.*ridge"):
        first.probability("a", "p")
    with pytest.raises(InputError, match="expected one of the 3 fitted items"):
        first.probability("a", "nobody")


def test_components_need_two_items_tied_together():
    with pytest.raises(DataError, match="two items that each beat the other"):
        fit_components(cells("xy", [0], [1], [3], [0], [0]))


# Hard places and bad input


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (cells("xy", [0], [1], [3], [1], [0]), "at least one tie"),
        (cells("xy", [0], [1], [0], [0], [4]), "that are not ties"),
        (cells("xyz", [0, 0, 1], [1, 2, 2], [3, 0, 0], [0] * 3, [0, 2, 2]), "no ordering explains"),
    ],
    ids=["no ties", "only ties", "growing"],
)
def test_ties_that_do_not_determine_their_parameter_are_refused(ties, data, message):
    with pytest.raises(DataError, match=message):
        fit_pairwise(data, ties=ties)


@pytest.mark.parametrize("seed", range(30))
def test_tie_fits_exist_exactly_when_the_cycle_test_says_so(seed):
    rng = np.random.default_rng(seed)
    size = 5
    a, b = np.triu_indices(size, 1)
    keep = rng.random(len(a)) < 0.7
    kinds = rng.integers(0, 3, len(a))
    data = cells("abcde", a[keep], b[keep], *(kinds[keep] == k for k in range(3)))
    if data.num_ties in (0, data.num_comparisons):
        return
    try:
        fit = fit_pairwise(data, ties="davidson", throw=False, max_steps=60)
    except (DataError, DisconnectedComparisonsError):
        fit = None
    growing = ties_explained_by_growth(data.pairs(), size)
    if fit is not None:
        assert not growing and fit.status == "converged"
        assert np.abs(unknowns(fit)).max() < 20


def test_a_prior_settles_ties_that_would_grow():
    data = cells("xyz", [0, 0, 1], [1, 2, 2], [3, 0, 0], [0] * 3, [0, 2, 2])
    fit = fit_pairwise(data, ties="davidson", ridge=0.1)
    assert fit.status == "converged" and fit.rank()[0] == "x"


def test_home_team_that_always_wins_is_said_not_to_have_converged():
    a, b = [0, 1, 1, 2, 0, 2], [1, 0, 2, 1, 2, 0]
    data = cells("xyz", a, b, np.ones(6), np.zeros(6), np.zeros(6))
    with pytest.raises(ConvergenceError, match="order effect or covariate.*grows for ever"):
        fit_pairwise(data, order_effect=True, max_steps=30)
    assert fit_pairwise(data, order_effect=True, max_steps=30, throw=False).status != "converged"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ties": "davidson", "link": links.probit},
            "Davidson's model is defined for the logistic",
        ),
        ({"item_covariates": {"x": np.arange(7)}}, "above 0 with item_covariates"),
        ({"item_covariates": {"x": np.ones(7)}, "ridge": 1.0}, "values that differ"),
        ({"comparison_covariates": {"z": np.ones(3)}}, r"\['z'\]: expected 21 numbers"),
        ({"comparison_covariates": {"z": ["a"] * 21}}, "expected 21 numbers"),
        ({"comparison_covariates": {"z": [np.nan] * 21}}, r"\['z'\]\[0\]: expected a finite"),
        ({"comparison_covariates": {"": np.ones(21)}}, "expected a name as text"),
        ({"ridge": math.inf}, "ridge: expected a finite number"),
    ],
    ids=str,
)
def test_bad_options_of_models_are_refused(options, message):
    data = load_bundled("baseball")
    with pytest.raises(InputError, match=message):
        fit_pairwise(data, **options)


def test_a_covariate_that_repeats_the_scores_is_named():
    data = Table(seed=6).comparisons
    x = np.arange(7.0) ** 2
    repeated = {"style": x[data.item_a] - x[data.item_b]}
    with pytest.raises(DataError, match="style: expected a coefficient"):
        fit_pairwise(data, ties="half", comparison_covariates=repeated)


def test_unknown_coefficient_is_refused():
    fit = fit_pairwise(Table().comparisons, ties="davidson")
    with pytest.raises(InputError, match="expected one of \\['tie'\\]"):
        fit.effect("order")
