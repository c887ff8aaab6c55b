"""Lemmas 1 and 5 and Eqs. 1, 3, 6-8, 10 against their printed forms."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import references
from problems import EACH_LINK, LINKS
from tolerances import EXACT, F32, ULP

import jaxpref as jp
from jaxpref._checks import InputError

SCORES = [
    [0.0, 0.0],
    [1.0, -2.0, 0.5],
    [3.0, 2.0, 1.0, 0.0, -5.0],
    [200.0, 0.0, -200.0],
    [-200.0, 0.0, 200.0, 400.0],
]


@pytest.mark.parametrize("name", EACH_LINK)
def test_lemma_1_for_every_link(name):
    link = LINKS[name]
    s_i, s_j, s_k = jnp.asarray([[0.3, 2.0, -4.0], [1.0, -2.0, 3.0], [0.0, 0.5, -1.0]])
    direct = jp.win_probability(s_i, s_j, link=link)
    through = jp.implied_probability(
        jp.win_probability(s_i, s_k, link=link), jp.win_probability(s_k, s_j, link=link), link=link
    )
    np.testing.assert_allclose(through, direct, rtol=1e-11)


def test_equation_3_as_printed():
    p = [0.5, 0.99, 1e-9, 0.9999]
    q = [0.5, 0.02, 0.3, 0.02]
    with mp.workdps(40):
        exact = [float(references.implied_probability(a, b)) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(jp.implied_probability(p, q), exact, rtol=EXACT)


def test_complements_carry_what_probabilities_lose():
    p = jnp.float32(1.0 - 1e-9)  # rounds to 1
    with pytest.raises(InputError, match="strictly between 0 and 1; got 1"):
        jp.implied_probability(p, 0.1)
    almost = jnp.float32(1 - 6e-8)
    got = jp.implied_probability(
        almost, jnp.float32(1e-9), complement_ik=jnp.float32(1e-9), complement_kj=almost
    )
    assert abs(float(got) - 0.5) < F32


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equation_6_as_printed(scores, dtype):
    got = float(jp.plackett_luce_log_probability(jnp.asarray(scores, dtype)))
    with mp.workdps(600):
        exact = float(mp.log(references.plackett_luce_probability(scores)))
    tolerance = ULP if dtype == "float64" else F32
    assert abs(got - exact) < tolerance * max(abs(exact), 1e-300 if dtype == "float64" else 1e-30)


def test_rankings_of_all_items_are_a_distribution():
    scores = jnp.asarray([0.3, -1.0, 2.0, 0.0])
    total = sum(
        float(jnp.exp(jp.plackett_luce_log_probability(scores[jnp.asarray(order)])))
        for order in itertools.permutations(range(4))
    )
    assert abs(total - 1) < EXACT


@pytest.mark.parametrize("scores", SCORES)
def test_lemma_5(scores):
    s = jnp.asarray(scores)
    ratios = s[None, :] - s[:, None]
    got = jp.plackett_luce_log_probability_from_ratios(ratios)
    np.testing.assert_allclose(got, jp.plackett_luce_log_probability(s), rtol=EXACT)


def test_two_items_are_bradley_terry():
    margins = jnp.asarray([-700.0, -1.0, 0.0, 30.0])
    scores = jnp.stack([margins, jnp.zeros_like(margins)], axis=-1)
    want = jp.links.logistic.log_probability(margins)
    np.testing.assert_allclose(jp.plackett_luce_log_probability(scores), want, rtol=EXACT)


@pytest.mark.parametrize(("u", "v"), [(0, 1), (0, 3), (1, 2), (2, 3)])
def test_alpha_and_beta_rebuild_the_probability(u, v):
    s = jnp.asarray([1.0, 0.2, -0.7, 0.4])
    log_alpha, log_beta = jp.plackett_luce_log_alpha_beta(s, u, v)
    ratio = jnp.exp(s[v] - s[u])  # b / a, Eq. 8
    rebuilt = jnp.exp(log_beta) / (jnp.exp(log_alpha) + ratio)
    want = jnp.exp(jp.plackett_luce_log_probability(s))
    assert abs(float(rebuilt / want) - 1) < EXACT
    assert log_alpha >= 0 and log_beta <= 0


def test_gradients_are_finite_at_gaps_of_hundreds():
    for dtype in ("float64", "float32"):
        for scores in SCORES:
            slope = jax.jit(jax.grad(jp.plackett_luce_log_probability))(jnp.asarray(scores, dtype))
            assert jnp.isfinite(slope).all()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], "K >= 2"),
        ([], "K >= 2"),
        ([1.0, float("nan")], r"scores\[1\].*got nan"),
        ("ab", "real"),
    ],
)
def test_bad_scores(scores, message):
    with pytest.raises(InputError, match=message):
        jp.plackett_luce_log_probability(scores)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 1.5, float("nan"), "half", None, [0.5, 2.0]])
def test_bad_probabilities(p):
    with pytest.raises(InputError, match="p_ik.*strictly between 0 and 1"):
        jp.implied_probability(p, 0.5)
