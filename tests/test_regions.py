"""Regions: membership, boundaries, and every closed-form area against the printed ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import references
from problems import EACH_LINK, LINKS
from references import DIGITS
from scipy.integrate import quad
from tolerances import EXACT

import jaxpref as jp
from jaxpref._checks import InputError
from jaxpref.links._search import ends_by_search, radius_by_bisection
from jaxpref.regions import bradley_terry_area, closed_form_area

THRESHOLDS = np.concatenate(
    [
        10.0 ** np.linspace(-20, -3, 18),
        10.0 ** np.linspace(-3, 8, 221),
        1 + np.array([-1e-2, -1e-6, -1e-12, 0, 1e-15, 1e-12, 1e-6, 1e-2]),
        [2.4999999, 2.5, 2.5000001],
    ]
)


def exact_area(threshold):
    with mp.workdps(DIGITS):
        return float(references.bradley_terry_area(float(threshold)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 2e-6)])
def test_proposition_1_for_every_threshold(dtype, tolerance):
    levels = THRESHOLDS.astype(dtype)
    got = np.asarray(bradley_terry_area(jnp.asarray(levels)), np.float64)
    exact = np.array([exact_area(m) for m in levels])
    assert (np.abs(got - exact) < tolerance * exact).all()


def test_the_printed_form_would_not_do():
    # What this project avoids: Proposition 1 as printed, in float64, at M = 1e6.
    m = 1e6
    printed = np.log((m - 1) / (m + 1)) / 2 + np.log((np.sqrt(m) + 1) / (np.sqrt(m) - 1)) / (
        2 * np.sqrt(m)
    )
    assert abs(printed / exact_area(m) - 1) > 1e-6


def test_slope_of_the_area():
    levels = np.array(
        [1e-12, 1e-3, 0.39, 0.41, 0.5, 0.999, 1.001, 1.7, 2.5, 2.500001, 30.0, 1e4, 1e7]
    )
    got = jax.jit(jax.vmap(jax.grad(bradley_terry_area)))(jnp.asarray(levels))
    with mp.workdps(DIGITS):
        exact = [float(mp.diff(references.bradley_terry_area, mp.mpf(float(m)))) for m in levels]
    np.testing.assert_allclose(got, exact, rtol=1e-11)
    assert jax.grad(bradley_terry_area)(1.0) == -jnp.inf  # the curve has a vertical tangent there


@pytest.mark.parametrize("wrt", ["ik", "intersection", "union"])
@pytest.mark.parametrize("name", ["logistic", "laplace"])
def test_closed_forms_against_counting(name, wrt):
    # 1e6 points of a regular grid, shifted off the corners: an independent and obvious count.
    u = (np.arange(1000) + 0.5) / 1000
    p, q = jnp.meshgrid(jnp.asarray(u), jnp.asarray(u))
    link = LINKS[name]
    for threshold in (0.3, 1.0, 1.2, 3.0):
        area = jnp.asarray(closed_form_area(jnp.asarray(threshold), link=link, wrt=wrt))
        if name == "logistic" and wrt != "ik" and threshold < 1:
            assert jnp.isnan(area)
            continue
        inside = jp.region_contains(link.margin(p), link.margin(q), threshold, link=link, wrt=wrt)
        # A region's boundary of length about 4 crosses 4000 cells; their errors partly cancel.
        assert abs(float(area) - float(inside.mean())) < 1e-3


def test_union_and_intersection_at_one():
    # At M = 1, opposite signs and nothing else: half of the square.
    union = jnp.asarray(closed_form_area(jnp.asarray(1.0), link=jp.links.logistic, wrt="union"))
    assert abs(float(union) - 0.5) < EXACT


def test_example_1_lies_in_omega_20():
    x, y = jp.links.logistic.margin([0.99, 0.02])
    assert jp.region_contains(x, y, 20.0)
    assert not jp.region_contains(x, y, 22.4)


def test_membership_is_strict():
    # At x = 0 and y = 0 the sensitivity is exactly 1.
    assert not jp.region_contains(0.0, 0.0, 1.0)
    assert jp.region_contains(0.0, 0.0, 0.999)


@pytest.mark.parametrize("wrt", ["ik", "kj", "union", "intersection", "l1", "l2"])
def test_membership_against_the_definition(wrt):
    rng = np.random.default_rng(1)
    x, y = jnp.asarray(rng.normal(0, 4, (2, 500)))
    ik, kj = (np.asarray(s) for s in jp.sensitivity(x, y))
    value = {
        "ik": ik,
        "kj": kj,
        "union": np.maximum(ik, kj),
        "intersection": np.minimum(ik, kj),
        "l1": ik + kj,
        "l2": np.hypot(ik, kj),
    }[wrt]
    for threshold in (0.5, 2.0, 20.0):
        got = jp.region_contains(x, y, threshold, wrt=wrt)
        np.testing.assert_array_equal(got, value > threshold)


# Boundaries ---------------------------------------------------------------------------------


def test_gamma_0_as_printed():
    q = np.array([1e-12, 1e-3, 0.02, 0.049, 0.951, 0.98, 1 - 1e-9])
    margins = jp.region_boundary(jp.links.logistic.margin(q), 19.0)
    with mp.workdps(DIGITS):
        exact = np.array([float(references.gamma_0(float(v), 19)) for v in q])
        wanted = [float(mp.log(references.gamma_0(float(v), 19))) for v in q]
    np.testing.assert_allclose(jp.links.logistic.probability(margins), exact, rtol=1e-10)
    np.testing.assert_allclose(jp.links.logistic.log_probability(margins), wanted, rtol=1e-9)


@pytest.mark.parametrize("threshold", [0.2, 0.9, 1.0, 1.1, 4.0, 50.0])
@pytest.mark.parametrize("name", EACH_LINK)
def test_the_sensitivity_at_a_boundary_is_m(name, threshold):
    link = LINKS[name]
    y = jnp.asarray([-60.0, -6.0, -0.5, 0.5, 2.0, 8.0, 300.0])
    for ends in jp.region_boundaries(y, threshold, link=link):
        finite = jnp.isfinite(ends)
        value = jp.log_sensitivity(jnp.where(finite, ends, 0.0), y, link=link)[0]
        error = jnp.where(finite, value - jnp.log(threshold), 0.0)
        assert (jnp.abs(error) < 1e-10).all()


@pytest.mark.parametrize("name", EACH_LINK)
def test_the_region_lies_between_its_boundaries(name):
    link = LINKS[name]
    y, threshold = 9.0, 3.0
    near, far = jp.region_boundaries(y, threshold, link=link)
    if jnp.isnan(near):
        pytest.skip("the link's tail is too heavy for a boundary at this margin")
    x = jnp.linspace(-200.0, 50.0, 4001)
    inside = jp.region_contains(x, y, threshold, link=link)
    np.testing.assert_array_equal(inside, (x < near) & (x > far))


@pytest.mark.parametrize("name", EACH_LINK)
def test_the_search_finds_what_the_closed_forms_give(name):
    link = LINKS[name]
    y = jnp.asarray([0.7, 5.0, 40.0])
    search = jax.jit(lambda y, level: ends_by_search(link, y, level))
    for threshold in (0.5, 3.0):
        level = jnp.full_like(y, np.log(threshold))
        exact, searched = link.sensitive_ends(y, level), search(y, level)
        for want, got in zip(exact, searched, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", EACH_LINK)
def test_level_radius_solves_its_equation(name):
    link = LINKS[name]
    x = jnp.asarray([0.0, 0.3, 2.0, 15.0])
    for level in (-2.0, -0.01, 0.0, 0.01, 2.0):
        r = link.level_radius(x, level)
        solved = link.log_density_ratio(x, jnp.nan_to_num(r) - x) - level
        assert (jnp.abs(jnp.where(jnp.isnan(r), 0.0, solved)) < 1e-10).all()
        searched = radius_by_bisection(link, link.log_density(x) + level)
        apart = jnp.abs(level) > 0  # at level 0 a search near a flat peak is worth 1e-8
        np.testing.assert_allclose(
            jnp.where(apart, searched, 0.0), jnp.where(apart, r, 0.0), rtol=1e-6, atol=2e-7
        )


def test_no_boundary_between_one_over_m_plus_one_and_its_mirror():
    y = jp.links.logistic.margin(jnp.asarray([0.26, 0.5, 0.74]))
    assert jnp.isnan(jp.region_boundary(y, 3.0)).all()
    assert jnp.isfinite(jp.region_boundary(jp.links.logistic.margin(0.24), 3.0))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", EACH_LINK)
def test_no_gradient_of_a_boundary_is_nan_where_one_exists(name, dtype):
    y = jnp.asarray([-8.0, 0.0, 3.0, 80.0], dtype)
    ends = jp.region_boundary(y, 2.0, link=LINKS[name])
    slopes = jax.jit(jax.vmap(jax.grad(lambda y: jp.region_boundary(y, 2.0, link=LINKS[name]))))(y)
    assert jnp.isfinite(slopes)[jnp.isfinite(ends)].all()


def test_slopes_of_a_boundary_that_was_searched_for():
    own = jp.links.from_probability(jax.nn.sigmoid, name="own", check=False)
    y, level = jnp.asarray([-8.0, -3.0, 1.5]), jnp.full(3, 2.0)

    def slopes(link):
        slope = jax.grad(lambda y, m: jp.region_boundary(y, m, link=link), (0, 1))
        return jax.jit(jax.vmap(slope))(y, level)

    searched, exact = slopes(own), slopes(jp.links.logistic)
    np.testing.assert_allclose(searched, exact, rtol=1e-8)


# Plackett-Luce ------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (1.01, 0.99), (1.5, 0.4), (7.0, 0.9)])
def test_proposition_2_while_the_region_fits(alpha, beta):
    for factor in (1.0, 2.0, 1e4):
        m = factor * beta
        got = jp.plackett_luce_region_area(alpha, beta, m)
        assert abs(float(got) / (beta**2 / (6 * alpha * m**2)) - 1) < EXACT
        last = beta / alpha**2 if alpha <= 2 else beta / (4 * (alpha - 1))
        m = factor * last
        got = jp.plackett_luce_region_area(alpha, beta, m, wrt="vu")
        assert abs(float(got) / (beta**2 / (6 * alpha**3 * m**2)) - 1) < EXACT


@pytest.mark.parametrize("wrt", ["uv", "vu"])
@pytest.mark.parametrize("alpha", [1.0, 1.2, 1.9, 2.0, 2.5, 4.0])
def test_clipped_areas_against_integration(alpha, wrt):
    beta = 0.8
    for m in (0.02, 0.05, 0.1, 0.15, 0.2, 0.4, 0.7, 0.9):
        got = float(jp.plackett_luce_region_area(alpha, beta, m, wrt=wrt))
        assert abs(got - clipped_area(alpha, beta / m, wrt)) < 1e-8, m


def clipped_area(alpha, c, wrt):
    def slice_at(t):
        height = (np.sqrt(c * t) - t) / alpha if wrt == "uv" else np.sqrt(c * t) - alpha * t
        return max(0.0, min(height, 1 - t))

    last = c if wrt == "uv" else c / alpha**2
    return quad(slice_at, 0, min(last, 1), limit=400, epsabs=1e-12)[0]


def test_plackett_luce_area_differentiates():
    for wrt in ("uv", "vu"):
        for alpha in (1.0, 1.5, 3.0):
            for m in (0.1, 0.79, 5.0):
                grads = jax.grad(
                    lambda a, b, m, wrt=wrt: jp.plackett_luce_region_area(a, b, m, wrt=wrt),
                    (0, 1, 2),
                )(alpha, 0.8, m)
                assert all(jnp.isfinite(g) for g in grads)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jp.region_contains(0.0, 0.0, 0.0), "threshold.*above 0; got 0"),
        (lambda: jp.region_contains(0.0, 0.0, float("nan")), "threshold.*got nan"),
        (lambda: jp.region_contains(0.0, 0.0, 2.0, wrt="jk"), "wrt: expected one of 'ik'"),
        (lambda: jp.region_boundary(1.0, -1.0), "threshold.*got -1"),
        (lambda: jp.region_boundary(float("nan"), 2.0), "margin_kj.*got nan"),
        (lambda: jp.plackett_luce_region_area(jnp.inf, 0.5, 1.0), "alpha: .*finite.*got inf"),
        (lambda: jp.plackett_luce_region_area(1.0, 1.0000001, 1.0), r"beta.*got 1\.0000001"),
        (lambda: jp.plackett_luce_region_area(0.9, 0.5, 1.0), "alpha: .*at least 1.*got 0.9"),
        (lambda: jp.plackett_luce_region_area(1.5, 1.5, 1.0), r"beta: .*\(0, 1\].*got 1.5"),
        (lambda: jp.plackett_luce_region_area(1.5, 0.5, 1.0, wrt="ik"), "wrt: expected one of"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


# Theorem 1, peaks, and what scores can reach --------------------------------------------------


@pytest.mark.parametrize("threshold", [0.5, 1.5, 20.0, 1e6])
@pytest.mark.parametrize("name", EACH_LINK)
def test_theorem_1_witness_is_sensitive_however_far_beyond(name, threshold):
    link = LINKS[name]
    beyond = jnp.asarray([1e-3, 1.0, 30.0, 1e3])
    witness = jp.theorem_1_witness(threshold, link=link, beyond=beyond)
    inside = jp.region_contains(witness.margin_ik, witness.margin_kj, threshold, link=link)
    assert inside.all()
    assert (witness.log_sensitivity > np.log(threshold)).all()


@pytest.mark.parametrize("name", EACH_LINK)
def test_no_point_is_above_the_peak(name):
    link = LINKS[name]
    x = jnp.asarray([-6.0, 0.0, 0.3, 5.0])[:, None]
    peak, at = jp.peak_log_sensitivity(x, link=link)
    around = jp.log_sensitivity(x, jnp.linspace(-30.0, 30.0, 1201), link=link)[0]
    assert (around <= peak + 1e-12).all()
    reached = jp.log_sensitivity(x, at, link=link)[0]
    np.testing.assert_allclose(reached, peak, atol=1e-12)


@pytest.mark.parametrize("scores", [[1.0, 0.2, -0.7], [0.0, 3.0, 1.0], [-2.0, -2.0, -2.0]])
def test_three_items_reach_one_point_of_the_plane(scores):
    s = jnp.asarray(scores)
    log_alpha, log_beta = jp.plackett_luce_log_alpha_beta(s, 0, 1)
    ratio, point = jp.plackett_luce_reachable_pair(jnp.exp(log_alpha), jnp.exp(log_beta))
    orders = [[2, 0, 1], [2, 1, 0]]
    exact = [jnp.exp(jp.plackett_luce_log_probability(s[jnp.asarray(o)])) for o in orders]
    np.testing.assert_allclose(point, exact, rtol=1e-12)
    np.testing.assert_allclose(ratio, exact[1] / exact[0], rtol=1e-12)


# Section 3.2 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrt", ["uv", "vu"])
@pytest.mark.parametrize(("u", "v"), [(0, 1), (0, 3), (1, 2), (2, 4)])
def test_the_area_by_length_is_each_prefixs_own_and_falls(u, v, wrt):
    scores = jnp.asarray(np.random.default_rng(3).normal(0, 1.5, (2, 7)))
    for threshold in (0.02, 0.5, 2.0):  # the first two cut some regions off at the triangle
        trend = jp.plackett_luce_area_by_length(scores, u, v, threshold, wrt=wrt)
        assert trend.length.tolist() == list(range(v + 1, 8))
        for column, size in enumerate(trend.length):
            log_alpha, log_beta = jp.plackett_luce_log_alpha_beta(scores[:, :size], u, v)
            area = jp.plackett_luce_region_area(
                jnp.exp(log_alpha), jnp.exp(log_beta), threshold, wrt=wrt
            )
            np.testing.assert_allclose(jnp.exp(trend.log_area[:, column]), area, rtol=1e-12)
        assert (jnp.diff(trend.log_alpha) > 0).all() and (jnp.diff(trend.log_beta) < 0).all()
        assert (jnp.diff(trend.log_area) < 0).all()


def test_the_area_by_length_against_the_definition():
    # Eq. 10 and Prop. 2 by hand for scores log 1, log 2, log 3, log 4, u = 0 and v = 1.
    trend = jp.plackett_luce_area_by_length(jnp.log(jnp.arange(1.0, 5.0)), 0, 1, 3.0)
    alpha, beta = [1, 1 + 3, 1 + 3 + 4], [1, 2 / 5, (2 / 9) * (3 / 7)]
    exact = [b**2 / (6 * a * 9) for a, b in zip(alpha, beta, strict=True)]
    np.testing.assert_allclose(jnp.exp(trend.log_area), exact, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_area_by_length_at_gaps_of_hundreds_of_nats(dtype):
    scores = jnp.asarray([0.0, 200.0, -300.0, 400.0], dtype)

    @jax.jit
    def areas_and_slopes(s, m):
        areas, back = jax.vjp(lambda s: jp.plackett_luce_area_by_length(s, 0, 1, m).log_area, s)
        return areas, back(jnp.ones_like(areas))

    for threshold in (0.5, 2.0):  # below 1 the first two regions are cut off at the triangle
        areas, (slopes,) = areas_and_slopes(scores, jnp.asarray(threshold, dtype))
        assert areas.dtype == dtype
        # With the last place alpha is e^400 and beta e^-(200 + 700).
        last = -2 * (200 + 700) - 400 - np.log(6 * threshold**2)
        assert abs(float(areas[-1]) - last) < 1e-3
        assert jnp.isfinite(slopes).all()


def test_bad_input_of_the_area_by_length():
    for call, message in (
        (lambda: jp.plackett_luce_area_by_length([0.0, 1.0], 0, 1, 0.0), "threshold.*got 0"),
        (lambda: jp.plackett_luce_area_by_length([0.0, 1.0], 1, 0, 2.0), "u, v"),
        (lambda: jp.plackett_luce_area_by_length([0.0, 1.0], 0, 1, 2.0, wrt="ik"), "wrt: expected"),
        (lambda: jp.plackett_luce_area_by_length([0.0], 0, 1, 2.0), "scores"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_bad_input_of_the_witness_and_the_pair():
    for call, message in (
        (lambda: jp.theorem_1_witness(-1.0), "threshold.*got -1"),
        (lambda: jp.theorem_1_witness(2.0, beyond=0.0), "beyond.*got 0"),
        (
            lambda: jp.plackett_luce_reachable_pair(1.0, 0.5),
            "alpha: expected a finite number above 1",
        ),
        (lambda: jp.plackett_luce_reachable_pair(2.0, 1.0), "beta.*strictly between"),
    ):
        with pytest.raises(InputError, match=message):
            call()
