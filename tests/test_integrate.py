"""Areas by quadrature, lattice and Monte Carlo: exact where known, else mutually consistent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import EACH_LINK, LINKS
from tolerances import F32, MONTE_CARLO

import jaxpref as jp
from jaxpref._checks import InputError
from jaxpref.integrate import sampling
from jaxpref.integrate.quadrature import quadrature_area

WRT = ("ik", "kj", "union", "intersection", "l1", "l2")
LEVELS = jnp.asarray([0.4, 1.0, 1.01, 2.0, 30.0, 1e4])


@pytest.mark.parametrize("wrt", ["ik", "union", "intersection"])
@pytest.mark.parametrize("name", ["logistic", "laplace"])
def test_quadrature_against_closed_forms(name, wrt):
    levels = LEVELS[1:] if name == "logistic" else LEVELS
    exact = jp.region_area(levels, link=LINKS[name], wrt=wrt)
    got = jp.region_area(levels, link=LINKS[name], wrt=wrt, method="quadrature")
    assert exact.method == "closed_form" and got.status == "converged"
    np.testing.assert_allclose(got.area, exact.area, rtol=1e-12)
    assert (jnp.abs(got.area - exact.area) <= 3 * got.error).all()


PAIRS = [("logistic", wrt) for wrt in WRT] + [
    ("cauchit", "l2"),
    ("probit", "intersection"),
    ("student_t(3)", "union"),
]


@pytest.mark.parametrize(("name", "wrt"), PAIRS)
def test_lattice_agrees_with_quadrature(name, wrt):
    levels = jnp.asarray([0.7, 1.3, 4.0])
    link = LINKS[name]
    quadrature = jp.region_area(levels, link=link, wrt=wrt, method="quadrature")
    points = 1 << 12 if name.startswith("student") else 1 << 17
    lattice = jp.region_area(levels, link=link, wrt=wrt, method="lattice", samples=points)
    # 31 degrees of freedom: 6 standard errors is one false alarm in a million.
    assert (jnp.abs(lattice.area - quadrature.area) < 6 * lattice.error + 1e-6).all()
    assert lattice.status == "sampled"


@pytest.mark.parametrize("name", EACH_LINK)
def test_monte_carlo_agrees_with_quadrature(name):
    levels = jnp.asarray([0.7, 1.3, 4.0])
    exact = jp.region_area(levels, link=LINKS[name]).area
    points = 1 << (14 if name.startswith("student") else 18)
    counted = jp.region_area(
        levels, link=LINKS[name], method="monte_carlo", samples=points, key=jax.random.key(5)
    )
    assert (jnp.abs(counted.area - exact) < MONTE_CARLO * counted.error).all()


@pytest.mark.parametrize("wrt", ["uv", "vu"])
def test_monte_carlo_verifies_proposition_2(wrt):
    levels = jnp.asarray([0.3, 0.9, 2.0])
    counted = jp.plackett_luce_monte_carlo_area(1.3, 0.9, levels, wrt=wrt, samples=1 << 19)
    exact = jp.plackett_luce_region_area(1.3, 0.9, levels, wrt=wrt)
    assert (jnp.abs(counted.area - exact) < MONTE_CARLO * counted.error).all()


def test_lattice_beats_monte_carlo_at_the_same_number_of_points():
    exact = jp.region_area(2.0).area
    errors = {}
    for method in ("lattice", "monte_carlo"):
        got = [
            jp.region_area(2.0, method=method, samples=1 << 20, key=jax.random.key(k)).area - exact
            for k in range(4)
        ]
        errors[method] = float(jnp.sqrt(jnp.mean(jnp.asarray(got) ** 2)))
    assert errors["lattice"] * 5 < errors["monte_carlo"]


def test_float32_lattice_counts_what_float64_counts():
    link = LINKS["logistic"]
    got32 = jp.region_area(jnp.float32(2.0), link=link, method="lattice", samples=1 << 20)
    got64 = jp.region_area(jnp.float64(2.0), link=link, method="lattice", samples=1 << 20)
    assert got32.area.dtype == jnp.float32
    assert abs(float(got32.area) - float(got64.area)) < 1e-6


@pytest.mark.parametrize("count", [1, 16_384, 16_385, 100_000])
def test_a_block_counts_its_first_points_and_no_others(count):
    level = jnp.asarray([1e-12])  # everything is inside
    for batches in (8, sampling._BATCHES_CPU * 2):  # one after the other, and all at once
        lanes = sampling._Lattice.lanes_of(1 << 20, 1 << 14)
        offset = np.full(2, 1 << 31, np.uint32)
        lattice = sampling._Lattice.at(0, 1 << 20, offset, lanes, batches)
        hits = sampling._count_block(LINKS["logistic"], level, "ik", lattice, jnp.int32(count))
        assert int(hits[0]) == min(count, batches * sampling._BATCH)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_point_and_its_complement_are_exact_and_inside(dtype):
    words = np.array([0, 1, 511, 512, 1 << 31, 2**32 - 1], np.uint32)
    p, rest = (
        np.asarray(a, np.float64) for a in sampling._unit_pair(jnp.asarray(words), jnp.dtype(dtype))
    )
    bits = 23 if dtype == "float32" else 32
    np.testing.assert_array_equal(p, (np.floor(words / 2.0 ** (32 - bits)) + 0.5) / 2.0**bits)
    assert (p + rest == 1).all() and (p > 0).all() and (rest > 0).all()


def test_lattice_points_are_where_they_should_be():
    size, start = 1_000_003, 500_000
    offset = np.array([123456789, 987654321], np.uint32)
    lanes = sampling._Lattice.lanes_of(size, 1 << 14)
    lattice = sampling._Lattice.at(start, size, offset, lanes, 4)
    words = np.asarray(lattice.batches[:, 2, None] + lattice.lanes)[:, 777]
    k = start + 2 * sampling._BATCH + 777
    for word, step, shift in zip(words, (1 / size, 0.6180339887498949), offset, strict=True):
        exact = (int(shift) / 2**32 + k * step) % 1
        assert abs(int(word) / 2**32 - exact) < 1e-9


@pytest.mark.parametrize(
    ("name", "wrt"),
    [
        ("probit", "ik"),
        ("cauchit", "intersection"),
        pytest.param("logistic", "l2", marks=pytest.mark.slow),
        ("logistic", "union"),
    ],
)
def test_slope_of_the_quadrature(name, wrt):
    def area(m):
        return jp.region_area(m, link=LINKS[name], wrt=wrt, method="quadrature").area

    levels = jnp.asarray([0.6, 1.7, 20.0])
    step = 1e-5 * levels
    difference = (area(levels + step) - area(levels - step)) / (2 * step)
    slopes = jax.jvp(area, (levels,), (jnp.ones_like(levels),))[1]
    np.testing.assert_allclose(slopes, difference, rtol=1e-6)


@pytest.mark.parametrize("name", ["logistic", "laplace"])
def test_slope_of_the_quadrature_is_the_closed_forms(name):
    def slope(method):
        return jax.vmap(jax.grad(lambda m: jp.region_area(m, link=LINKS[name], method=method).area))

    levels = jnp.asarray([0.3, 1.2, 5.0, 200.0])
    np.testing.assert_allclose(slope("quadrature")(levels), slope("closed_form")(levels), rtol=1e-9)


def test_slope_with_respect_to_the_degrees_of_freedom():
    def area(nu):
        return jp.region_area(3.0, link=jp.links.student_t(nu)).area

    h = 1e-4
    difference = (area(4 + h) - area(4 - h)) / (2 * h)
    assert abs(float(jax.grad(area)(4.0) / difference) - 1) < 1e-6


@pytest.mark.parametrize(("name", "wrt"), [("logistic", "l1"), *PAIRS[-2:]])
def test_areas_fall_with_the_threshold_and_stay_in_the_square(name, wrt):
    area = jp.region_area(LEVELS, link=LINKS[name], wrt=wrt).area
    assert (jnp.diff(area) <= 1e-12).all() and (area > 0).all() and (area <= 1 + 1e-12).all()


@pytest.mark.slow
def test_l2_lies_between_union_and_l1():
    for name in ("logistic",):
        union, l2, l1 = (
            jp.region_area([1.5, 6.0], link=LINKS[name], wrt=w).area for w in ("union", "l2", "l1")
        )
        assert (union < l2).all() and (l2 < l1).all()


def test_quadrature_in_float32():
    levels = jnp.asarray([1.1, 3.0, 100.0])
    for name in ("logistic", "probit", "cauchit"):
        double = quadrature_area(LINKS[name], levels, "ik")[0]
        single = quadrature_area(LINKS[name], levels.astype(jnp.float32), "ik")[0]
        assert single.dtype == jnp.float32
        assert (jnp.abs(single.astype(jnp.float64) / double - 1) < 20 * F32).all()


def test_a_users_own_link():
    own = jp.links.from_density(log_density=jp.links.logistic.log_density, name="own")
    got = jp.region_area([1.5, 20.0], link=own)
    assert got.method == "quadrature"
    np.testing.assert_allclose(got.area, jp.region_area([1.5, 20.0]).area, rtol=1e-9)


@pytest.mark.slow
def test_a_link_with_two_peaks_is_left_to_the_lattice():
    def log_density(m):
        both = jnp.logaddexp(-((m - 2) ** 2) / 2, -((m + 2) ** 2) / 2)
        return both - jnp.log(2 * jnp.sqrt(2 * jnp.pi))

    own = jp.links.from_density(log_density=log_density, name="two peaks")
    got = jp.region_area(2.0, link=own, samples=1 << 8)
    assert got.method == "lattice"
    with pytest.raises(InputError, match="falls on either side of 0"):
        jp.region_area(2.0, link=own, method="quadrature")


def test_progress_ends_at_the_total():
    for method in ("lattice", "monte_carlo"):
        seen = []
        jp.region_area(
            2.0, method=method, samples=1 << 15, progress=lambda a, b, s=seen: s.append((a, b))
        )
        assert seen[-1][0] == seen[-1][1] >= 1 << 15
        assert [a for a, _ in seen] == sorted(a for a, _ in seen)


def test_scalar_vector_and_jit():
    assert jp.region_area(2.0).area.shape == ()
    assert jp.region_area([[2.0, 3.0]]).area.shape == (1, 2)
    jitted = jax.jit(lambda m: jp.region_area(m, link=jp.links.probit).area)
    np.testing.assert_allclose(jitted(2.0), jp.region_area(2.0, link=jp.links.probit).area)
    with pytest.raises(InputError, match="cannot run under jit"):
        jax.jit(lambda m: jp.region_area(m, method="lattice").area)(2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold.*above 0; got 0"),
        ({"threshold": float("nan")}, "threshold.*got nan"),
        ({"threshold": [2.0, -1.0]}, r"threshold\[1\].*got -1"),
        ({"wrt": "l3"}, "wrt: expected one of"),
        ({"method": "simpson"}, "method: expected one of"),
        ({"method": "lattice", "samples": 0}, "samples: expected a whole number of at least"),
        ({"method": "monte_carlo", "samples": 0}, "samples: expected a whole number of at least 1"),
        ({"method": "lattice", "shifts": 1}, "shifts: expected a whole number of at least 2"),
        ({"method": "closed_form", "wrt": "l2"}, "no closed form is known"),
        ({"method": "closed_form", "link": LINKS["probit"]}, "no closed form is known"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        jp.region_area(**{"threshold": 2.0, **options})
