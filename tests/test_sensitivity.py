"""Sensitivities: the printed equations, automatic differentiation, and the hard places."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import references
from problems import EACH_LINK, LINKS
from references import DIGITS
from tolerances import EXACT, F32

import jaxpref as jp
from jaxpref._checks import InputError

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(0, 3, 40), RNG.uniform(-700, 700, 40), [0, 0, 5.0, 700.0, 700.0]])
Y = np.concatenate([RNG.normal(0, 3, 40), RNG.uniform(-700, 700, 40), [0, 4, -5.0, -700.0, 1e-3]])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", EACH_LINK)
def test_equation_2_against_60_digits(name, dtype):
    x, y = X.astype(dtype), Y.astype(dtype)
    got = jp.log_sensitivity(jnp.asarray(x), jnp.asarray(y), link=LINKS[name])
    with mp.workdps(DIGITS):
        exact = np.array(
            [
                [float(v) for v in references.log_sensitivity(name, float(a), float(b))]
                for a, b in zip(x, y, strict=True)
            ]
        ).T
    error = np.abs(np.asarray(got, np.float64) - exact) / np.maximum(1, np.abs(exact))
    assert error.max() < (EXACT if dtype == "float64" else F32)


def test_equation_4_as_printed():
    p = np.array([0.99, 0.5, 0.2, 0.99, 1 - 1e-9])
    q = np.array([0.02, 0.5, 0.7, 0.98, 1e-9])
    x, y = jp.links.logistic.margin(p), jp.links.logistic.margin(q)
    with mp.workdps(DIGITS):
        exact = [
            float(references.bradley_terry_sensitivity(a, b)) for a, b in zip(p, q, strict=True)
        ]
    np.testing.assert_allclose(jp.sensitivity(x, y)[0], exact, rtol=1e-11)


def test_example_1():
    x, y = jp.links.logistic.margin(0.99), jp.links.logistic.margin(0.02)
    assert abs(float(jp.sensitivity(x, y)[0]) - 22.37034) < 5e-6


@pytest.mark.parametrize("name", EACH_LINK)
def test_closed_form_is_the_derivative_of_lemma_1(name):
    link = LINKS[name]
    p = jnp.asarray([0.3, 0.9, 0.02, 0.999, 0.5])
    q = jnp.asarray([0.6, 0.05, 0.9, 0.002, 0.5])

    def p_ij(a, b):
        return link.probability(link.margin(a) + link.margin(b))

    ad_ik, ad_kj = jax.jit(jax.vmap(jax.grad(p_ij, (0, 1))))(p, q)
    ik, kj = jp.sensitivity(link.margin(p), link.margin(q), link=link)
    np.testing.assert_allclose(ad_ik, ik, rtol=1e-9)
    np.testing.assert_allclose(ad_kj, kj, rtol=1e-9)


@pytest.mark.parametrize("name", EACH_LINK)
def test_symmetries(name):
    link = LINKS[name]
    x, y = jnp.asarray(X), jnp.asarray(Y)
    ik, kj = jp.log_sensitivity(x, y, link=link)
    swapped = jp.log_sensitivity(y, x, link=link)
    mirrored = jp.log_sensitivity(-x, -y, link=link)
    for got, want in zip((*swapped, *mirrored), (kj, ik, ik, kj), strict=True):
        np.testing.assert_allclose(got, want, rtol=EXACT, atol=EXACT)


def test_logistic_sensitivity_is_bounded_by_the_fixed_margin():
    ik, kj = jp.log_sensitivity(jnp.asarray(X), jnp.asarray(Y))
    assert (ik <= jnp.abs(jnp.asarray(Y)) * (1 + EXACT)).all()
    assert (kj <= jnp.abs(jnp.asarray(X)) * (1 + EXACT)).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", EACH_LINK)
def test_no_gradient_is_nan_at_the_edges(name, dtype):
    points = jnp.asarray([[0, 0], [700, -700], [-700, 700], [17, 17], [1e-30, 0], [88, -89]], dtype)

    def both(point):
        return jnp.stack(jp.log_sensitivity(point[0], point[1], link=LINKS[name]))

    assert jnp.isfinite(jax.jit(jax.vmap(jax.jacrev(both)))(points)).all()


def test_slopes_where_a_margin_or_their_sum_is_zero():
    # |x| has a kink there that the log density has not: its pieces must take the same side.
    x = jnp.asarray([2.0, -2.0, -1e-3, 0.0, 0.0, 0.0, -0.0])
    y = jnp.asarray([-2.0, 2.0, 1e-3, 1.0, -1.0, 0.0, -0.0])
    slopes = jax.vmap(jax.grad(lambda x, y: jp.log_sensitivity(x, y)[0], (0, 1)))(x, y)
    at_sum = -jnp.tanh((x + y) / 2)
    np.testing.assert_allclose(slopes, (at_sum + jnp.tanh(x / 2), at_sum), atol=EXACT)


def test_jit_vmap_and_broadcasting():
    x, y = jnp.linspace(-3.0, 3.0, 5)[:, None], jnp.linspace(-2.0, 2.0, 4)
    want = jp.log_sensitivity(x, y)[0]
    assert want.shape == (5, 4)
    np.testing.assert_allclose(jax.jit(lambda x, y: jp.log_sensitivity(x, y)[0])(x, y), want)
    rows = jax.vmap(lambda a: jp.log_sensitivity(a, y)[0])(x[:, 0])
    np.testing.assert_allclose(rows, want)


# Plackett-Luce ------------------------------------------------------------------------------

RANKINGS = [
    ([0.5, -0.5], 0, 1),
    ([1.0, 0.2, -0.7], 0, 1),
    ([1.0, 0.2, -0.7], 0, 2),
    ([1.0, 0.2, -0.7], 1, 2),
    ([0.3, 2.0, -1.0, 0.0, 0.7], 1, 3),
    ([200.0, 0.0, -200.0], 0, 1),
    ([-200.0, 0.0, 200.0, 30.0], 1, 3),
]


@pytest.mark.parametrize(("scores", "u", "v"), RANKINGS)
def test_equation_9_as_printed(scores, u, v):
    prefix = [s for t, s in enumerate(scores) if t not in (u, v)]
    with mp.workdps(800):
        exact = references.plackett_luce_sensitivity(scores, u, v, prefix)
        exact = [float(mp.log(abs(e))) for e in exact]
    for dtype, tolerance in (("float64", EXACT), ("float32", F32)):
        got = jp.plackett_luce_log_sensitivity(jnp.asarray(scores, dtype), u, v)
        error = np.abs(np.asarray(got, np.float64) - exact) / np.maximum(1, np.abs(exact))
        assert error.max() < tolerance


@pytest.mark.parametrize(("scores", "u", "v"), RANKINGS[:5])
def test_equation_9_is_the_derivative_of_lemma_5(scores, u, v):
    s = jnp.asarray(scores)
    prefix = s[jnp.asarray([t for t in range(s.size) if t not in (u, v)], int)]
    log_a = jp.plackett_luce_log_probability(jnp.concatenate([prefix, s[u : u + 1], s[v : v + 1]]))
    log_b = jp.plackett_luce_log_probability(jnp.concatenate([prefix, s[v : v + 1], s[u : u + 1]]))

    def p_omega(a, b):
        ratios = (s[None, :] - s[:, None]).at[u, v].set(jnp.log(b / a))
        return jnp.exp(jp.plackett_luce_log_probability_from_ratios(ratios))

    a, b = jnp.exp(log_a), jnp.exp(log_b)
    d_a, d_b = jax.grad(p_omega, (0, 1))(a, b)
    uv, vu = jp.plackett_luce_log_sensitivity(s, u, v)
    np.testing.assert_allclose([d_a, -d_b], jnp.exp(jnp.stack([uv, vu])), rtol=1e-10)


@pytest.mark.parametrize(("scores", "u", "v"), RANKINGS)
def test_the_plane_of_figure_2_agrees_with_the_scores(scores, u, v):
    s = jnp.asarray(scores)
    log_alpha, log_beta = jp.plackett_luce_log_alpha_beta(s, u, v)
    prefix = s[jnp.asarray([t for t in range(s.size) if t not in (u, v)], int)]
    log_a = jp.plackett_luce_log_probability(jnp.concatenate([prefix, s[u : u + 1], s[v : v + 1]]))
    log_b = log_a + s[v] - s[u]
    if not (jnp.exp(log_beta) > 0 and jnp.isfinite(jnp.exp(log_alpha))):
        pytest.skip("alpha or beta is not representable as a number")
    plane = jp.plackett_luce_log_sensitivity_in_plane(
        log_a, log_b, jnp.exp(log_alpha), jnp.exp(log_beta)
    )
    direct = jp.plackett_luce_log_sensitivity(s, u, v)
    np.testing.assert_allclose(plane, direct, rtol=1e-11, atol=1e-10)


def test_another_prefix():
    s = [1.0, 0.2, -0.7, 0.4]
    other = [3.0, -2.0]
    with mp.workdps(60):
        exact = references.plackett_luce_sensitivity(s, 0, 2, other)
        exact = [float(mp.log(abs(e))) for e in exact]
    got = jp.plackett_luce_log_sensitivity(s, 0, 2, prefix_scores=other)
    np.testing.assert_allclose(got, exact, rtol=EXACT)


def test_batches_of_rankings():
    s = jnp.asarray(RNG.normal(size=(3, 2, 5)))
    uv, vu = jp.plackett_luce_log_sensitivity(s, 1, 3)
    assert uv.shape == vu.shape == (3, 2)
    one, _ = jp.plackett_luce_log_sensitivity(s[2, 1], 1, 3)
    np.testing.assert_allclose(uv[2, 1], one, rtol=EXACT)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jp.log_sensitivity(float("nan"), 0.0), "margin_ik.*got nan"),
        (lambda: jp.plackett_luce_log_sensitivity([1.0, 2.0], 1, 0), "0 <= u < v < K = 2"),
        (lambda: jp.plackett_luce_log_sensitivity([1.0, 2.0], 0, 2), "0 <= u < v < K = 2"),
        (lambda: jp.plackett_luce_log_sensitivity([1.0, 2.0], -1, 1), "u: expected a whole number"),
        (
            lambda: jp.plackett_luce_log_sensitivity([1.0, 2.0, 3.0], 0, 1, prefix_scores=[]),
            r"prefix_scores: expected shape \(1,\)",
        ),
        (
            lambda: jp.plackett_luce_log_sensitivity(
                [1.0, 2.0, 3.0], 0, 1, prefix_scores=[float("nan")]
            ),
            r"prefix_scores\[0\]: .*got nan",
        ),
        (
            lambda: jp.plackett_luce_log_sensitivity_in_plane(0.5, -1.0, 1.0, 1.0),
            "log_p_uv: .*at most 0; got 0.5",
        ),
        (
            lambda: jp.plackett_luce_log_sensitivity_in_plane(-1.0, -1.0, jnp.inf, 1.0),
            "alpha: .*finite.*got inf",
        ),
        (
            lambda: jp.plackett_luce_log_sensitivity_in_plane(-1.0, -1.0, 0.5, 1.0),
            "alpha.*at least 1",
        ),
        (
            lambda: jp.plackett_luce_log_sensitivity_in_plane(-1.0, -1.0, 1.0, 0.0),
            r"beta.*\(0, 1\]",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
