"""Scores and other coefficients together: sandwich, intervals and bootstrap by brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpref._checks import InputError
from jaxpref.data import Comparisons, Rankings
from jaxpref.fit import (
    JointCovariance,
    bootstrap,
    effect_intervals,
    fit_pairwise,
    fit_rankings,
    joint_covariance,
    joint_sandwich,
    observed_information,
    probability_interval,
    sandwich_covariance,
)
from jaxpref.links import logistic, probit
from tests import tolerances as tol


def votes(seed: int = 0, rows: int = 240) -> Any:
    """Return single votes of 12 raters on 4 items, a third of them ties, with a covariate."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 4, rows)
    b = (a + rng.integers(1, 4, rows)) % 4
    said = rng.choice(3, rows, p=[0.4, 0.25, 0.35])
    people = tuple(f"r{k}" for k in range(12))
    length = rng.normal(size=rows)
    first, second, tied = ((said == k).astype(float) for k in range(3))
    raters = np.arange(rows) % 12
    covariates = {"length": length}
    return Comparisons(tuple("wxyz"), a, b, first, second, tied, raters, people, covariates)


ONE = {"order_effect": True, "comparison_covariates": ("length",)}
MODELS: dict[str, dict[str, Any]] = {
    "davidson": {"ties": "davidson", **ONE},
    "rao_kupper": {"ties": "rao_kupper", **ONE},
    "rao_kupper, probit": {"ties": "rao_kupper", "link": probit},
    "half": {"ties": "half", **ONE},
    "half, ridge": {"ties": "half", "ridge": 0.7, **ONE},
    "drop": {"ties": "drop", "order_effect": True},
}


NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if "probit" in name else []) for name in MODELS
]


def row_likelihood(fit, data: Comparisons):
    """Return the log-likelihood of each row as a function of three margins and the rest."""
    link, names = fit.link, [effect.name for effect in fit.effects]
    a, b = jnp.asarray(data.item_a), jnp.asarray(data.item_b)

    def value(parameters):
        scores = jnp.concatenate([jnp.zeros(1), parameters[:3]])
        rest = dict(zip(names, parameters[3:], strict=True))
        m = scores[a] - scores[b] + rest.get("order", 0.0)
        m = m + rest.get("length", 0.0) * jnp.asarray(data.covariates["length"])
        t = rest.get("tie", 0.0)
        if fit.ties == "davidson":
            odds = jnp.stack([m / 2, -m / 2, t + 0 * m])
            logs = odds - jax.nn.logsumexp(odds, axis=0)
        elif fit.ties == "rao_kupper":
            win, loss = link.probability(m - t), link.probability(-m - t)
            logs = jnp.log(jnp.stack([win, loss, 1 - win - loss]))
        else:
            win, loss = link.log_probability(m), link.log_probability(-m)
            tie = (win + loss) / 2 if fit.ties == "half" else 0 * m
            logs = jnp.stack([win, loss, tie])
        return jnp.sum(jnp.stack([data.wins_a, data.wins_b, data.ties]) * logs, axis=0)

    at = np.concatenate([fit.scores[1:] - fit.scores[0], [e.estimate for e in fit.effects]])
    return value, jnp.asarray(at)


@pytest.mark.parametrize("name", NAMES)
def test_sandwich_is_the_textbook_formula_by_autodiff(name):
    data = votes()
    fit = fit_pairwise(data, **MODELS[name])
    value, at = row_likelihood(fit, data)
    slopes = np.asarray(jax.jit(jax.jacobian(value))(at))
    contrast = np.eye(4)[1:] - np.eye(4)[0]
    prior = np.zeros((at.size, at.size))
    prior[:3, :3] = fit.ridge * np.linalg.inv(contrast @ contrast.T)  # of centred scores
    hessian = -np.asarray(jax.jit(jax.hessian(lambda x: value(x).sum()))(at)) + prior
    won = data.wins_a + data.wins_b + (data.ties if fit.ties != "drop" else 0) > 0
    for cluster, group, count in (("rater", data.rater, 12), ("none", np.arange(240), won.sum())):
        sums = np.zeros((240, at.size))
        np.add.at(sums, group, slopes)
        middle = sums.T @ sums * count / (count - 1)
        expected = np.linalg.inv(hessian) @ middle @ np.linalg.inv(hessian)
        joint = joint_sandwich(fit, data, cluster=cluster)
        near: Any = {"atol": 1e-9, "rtol": 1e-7}
        np.testing.assert_allclose(contrast @ joint.scores @ contrast.T, expected[:3, :3], **near)
        np.testing.assert_allclose(contrast @ joint.cross, expected[:3, 3:], **near)
        np.testing.assert_allclose(joint.effects, expected[3:, 3:], **near)
        np.testing.assert_allclose(joint.scores.sum(axis=0), 0, atol=tol.EXACT)
    scores = sandwich_covariance(fit, data)
    np.testing.assert_array_equal(scores, joint_sandwich(fit, data).scores)


@pytest.mark.parametrize("name", NAMES)
def test_joint_covariance_has_the_fits_own_scores(name):
    fit = fit_pairwise(votes(), **MODELS[name])
    joint = joint_covariance(fit)
    np.testing.assert_allclose(joint.scores, fit.covariance(), atol=1e-10)
    if fit.ties != "rao_kupper":  # observed and expected information agree
        np.testing.assert_allclose(joint.effects, np.asarray(fit.effect_covariance), rtol=1e-8)
        np.testing.assert_allclose(observed_information(fit), fit.fisher_information, atol=1e-8)


def test_scores_explained_by_item_covariates_have_a_sandwich():
    data = votes()
    sizes = np.array([1.0, 2.0, 4.0, 3.0])
    fit = fit_pairwise(data, ties="half", ridge=np.inf, item_covariates={"size": sizes})
    joint = joint_sandwich(fit, data)
    centred = sizes - sizes.mean()
    np.testing.assert_allclose(joint.scores, np.outer(centred, centred) * joint.effects[0, 0])
    loose = fit_pairwise(data, ties="half", ridge=1e7, item_covariates={"size": sizes})
    near = joint_sandwich(loose, data)
    np.testing.assert_allclose(near.effects, joint.effects, rtol=1e-4)
    np.testing.assert_allclose(near.scores, joint.scores, atol=1e-5)


def test_win_probability_with_ties_by_the_delta_method():
    data = votes()
    fit = fit_pairwise(data, ties="davidson", order_effect=True)
    joint = joint_covariance(fit)

    def log_odds(parts):
        m, t = parts[0] + parts[2], parts[1]
        return -jnp.logaddexp(-m, t - m / 2)

    order, tie = fit.effect("order").estimate, fit.effect("tie").estimate
    at = jnp.array([fit.margin("w", "z"), tie, order])
    slope = np.asarray(jax.grad(log_odds)(at))
    pick = np.zeros((3, 6))
    pick[0, [0, 3]] = 1, -1
    pick[1, 5] = pick[2, 4] = 1
    whole = np.block([[joint.scores, joint.cross], [joint.cross.T, joint.effects]])
    error = np.sqrt(slope @ pick @ whole @ pick.T @ slope)
    found = probability_interval(fit, "w", "z", order="first")
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    assert found.estimate == pytest.approx(fit.probability("w", "z", order="first"), rel=1e-12)
    middle = float(log_odds(at))
    assert found.low == pytest.approx(1 / (1 + np.exp(-middle + 1.959963984540054 * error)))
    with pytest.raises(InputError, match="JointCovariance"):
        probability_interval(fit, "w", "z", covariance=fit.covariance())


@pytest.mark.slow
def test_rankings_of_two_with_ties_are_davidsons():
    rng = np.random.default_rng(3)
    lists = []
    for _ in range(150):
        x, y = rng.choice(4, 2, replace=False)
        lists.append([[int(x), int(y)]] if rng.random() < 0.3 else [int(x), int(y)])
    raters = [f"r{k % 10}" for k in range(150)]
    rankings = Rankings.from_lists(lists, items=list("wxyz"), rater=raters)
    tied = np.array([len(entry) == 1 for entry in lists], float)
    ends = np.array([entry[0] if len(entry) == 1 else entry for entry in lists])
    people = tuple(sorted(set(raters)))
    who = np.array([people.index(name) for name in raters])
    counts = 1 - tied, 0 * tied, tied
    pairs = Comparisons(tuple("wxyz"), ends[:, 0], ends[:, 1], *counts, who, people)
    one, two = fit_rankings(rankings, ties="davidson_luce"), fit_pairwise(pairs, ties="davidson")
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-9)
    assert one.effects[0].standard_error == pytest.approx(two.effects[0].standard_error, rel=1e-7)
    near: Any = {"rtol": 1e-6, "atol": 1e-9}
    for cluster in ("rater", "none"):
        mine = joint_sandwich(one, cluster=cluster)
        theirs = joint_sandwich(two, pairs, cluster=cluster)
        for left, right in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(left, right, **near)
    np.testing.assert_allclose(
        probability_interval(one, "w", "x"), probability_interval(two, "w", "x"), rtol=1e-6
    )


def test_information_of_tied_rankings_at_equal_scores():
    """One win each and one tie: every outcome has chance 1/3, the score its variance by hand."""
    fit = fit_rankings(Rankings.from_lists([["x", "y"], ["y", "x"], [["x", "y"]]]),
                       ties="davidson_luce")  # fmt: skip
    expected = [[0.5, -0.5, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 2 / 3]]
    np.testing.assert_allclose(fit.full_information(), expected, atol=tol.EXACT)


@pytest.mark.parametrize("method", ["nonparametric", "parametric", "rater"])
def test_bootstrap_of_every_coefficient_spreads_like_its_sandwich(method):
    data = votes(rows=960)
    fit = fit_pairwise(data, **MODELS["davidson"])
    found = bootstrap(fit, data, key=jax.random.key(1), resamples=200, method=method)
    assert found.separable == found.unfinished == 0
    cluster = "rater" if method == "rater" else "none"
    joint = joint_sandwich(fit, data, cluster=cluster)
    spread = np.sqrt(np.diag(found.joint_covariance().effects))
    expected = np.sqrt(np.diag(joint.effects))
    bias = 0.15 if method == "rater" else 0.06  # twelve raters are few
    assert np.abs(spread / expected - 1).max() < tol.MONTE_CARLO / np.sqrt(400) + bias
    chance = found.probability_interval("w", "x")
    assert chance.low < fit.probability("w", "x") < chance.high
    assert list(found.effect_intervals()) == ["order", "length", "tie"]


def test_a_resample_is_the_fit_to_what_was_drawn():
    """A bootstrap of weights so large that nothing varies returns the fit itself."""
    data = votes()
    many = replace(data, wins_a=1e9 * data.wins_a, wins_b=1e9 * data.wins_b, ties=1e9 * data.ties)
    fit = fit_pairwise(many, **MODELS["rao_kupper"])
    found = bootstrap(fit, many, key=jax.random.key(0), resamples=2)
    np.testing.assert_allclose(found.scores, np.tile(fit.scores, (2, 1)), atol=1e-3)
    np.testing.assert_allclose(
        found.effects, np.tile([e.estimate for e in fit.effects], (2, 1)), atol=1e-3
    )


def test_data_that_were_not_fitted_are_refused():
    data = votes()
    fit = fit_pairwise(data, **MODELS["davidson"])
    with pytest.raises(InputError, match="other counts"):
        joint_sandwich(fit, votes(seed=1))
    columns = data.item_a, data.item_b, data.wins_a, data.wins_b, data.ties, data.rater
    bare = Comparisons(data.items, *columns, data.raters)
    same = joint_sandwich(fit, bare)  # the very rows that were fitted
    np.testing.assert_array_equal(same.effects, joint_sandwich(fit, data).effects)
    turned = Comparisons(data.items, *(column[::-1] for column in columns), raters=data.raters)
    with pytest.raises(InputError, match="covariate 'length'"):
        joint_sandwich(fit, turned)
    with pytest.raises(InputError, match="3 coefficients; got 1"):
        wrong = JointCovariance(fit.covariance(), np.zeros((4, 1)), np.ones((1, 1)))
        effect_intervals(fit, covariance=wrong)
    with pytest.raises(InputError, match="comparison_covariates"):
        fit_pairwise(data, ties="half", comparison_covariates=("lenght",))
    explained = fit_pairwise(
        data, ties="half", ridge=np.inf, item_covariates={"n": np.arange(4.0)}, link=logistic
    )
    with pytest.raises(InputError, match="ridge"):
        bootstrap(explained, data, key=jax.random.key(0), ridge=1.0)
