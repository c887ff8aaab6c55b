"""One set of laws over every link, exact references, a user's own links, and the refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from problems import EACH_LINK, LINKS, MARGINS
from references import DIGITS, link_reference
from tolerances import EXACT, F32, FINITE_DIFF

from jaxpref import links
from jaxpref._checks import InputError

TOLERANCE = {"float64": EXACT, "float32": F32}
PROBABILITIES = np.concatenate(
    [
        10.0 ** np.linspace(-30, -1, 25),
        0.5 - 10.0 ** np.linspace(-7, -1, 13),
        0.5 + 10.0 ** np.linspace(-7, -1, 13),
        1 - 10.0 ** np.linspace(-5, -1, 9),
    ]
)
each_link = pytest.mark.parametrize("name", EACH_LINK)
each_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


def slopes_of(function, points):
    return jax.jit(jax.vmap(jax.grad(function)))(points)


def reference(name, function, points):
    with mp.workdps(DIGITS):
        return np.array([float(getattr(link_reference(name), function)(mp.mpf(x))) for x in points])


def tail_condition(name, exact, dtype):
    # A float32 exponent of -80 is rounded by 5e-6: that is what exp can return at best, unless
    # the exponent is carried in two pieces, as it is for the probit link.
    if dtype == "float64" or not name.startswith("student_t"):
        return 1.0
    return np.maximum(1.0, np.abs(np.log(exact)) * np.finfo(np.float32).eps * 1.5 / F32)


@each_dtype
@each_link
def test_probability_against_60_digits(name, dtype):
    points = MARGINS.astype(dtype)
    values = np.asarray(LINKS[name].probability(jnp.asarray(points)), np.float64)
    exact = reference(name, "probability", points.astype(float))
    exists = exact > float(jnp.finfo(dtype).tiny)
    error = np.abs(values - exact)[exists] / exact[exists]
    assert (error < TOLERANCE[dtype] * tail_condition(name, exact[exists], dtype)).all()


@each_dtype
@each_link
def test_log_values_against_60_digits(name, dtype):
    points = MARGINS.astype(dtype)
    for function, wanted in (
        ("log_density", reference(name, "log_density", points.astype(float))),
        ("log_probability", None),
    ):
        values = np.asarray(getattr(LINKS[name], function)(jnp.asarray(points)), np.float64)
        if wanted is None:
            with mp.workdps(400):  # 1 - tail must not round to 1
                g = link_reference(name).probability
                wanted = np.array([float(mp.log(g(mp.mpf(float(x))))) for x in points])
        error = np.abs(values - wanted) / np.maximum(1, np.abs(wanted))
        assert error.max() < TOLERANCE[dtype], function


@each_dtype
@each_link
def test_margin_against_60_digits(name, dtype):
    points = PROBABILITIES.astype(dtype)
    points = points[points >= float(jnp.finfo(dtype).tiny)]
    values = np.asarray(LINKS[name].margin(jnp.asarray(points)), np.float64)
    exact = link_reference(name)
    with mp.workdps(DIGITS):
        for p, m in zip(points, values, strict=True):
            if abs(m) > 1e15:  # tiny tails of nearly flat densities: past every margin in use
                continue
            x = mp.mpf(float(m))
            # One Newton step of the exact g from our value is our error, to second order.
            step = (exact.probability(x) - mp.mpf(float(p))) / mp.exp(exact.log_density(x))
            assert abs(step) < TOLERANCE[dtype] * abs(x), float(p)


@each_link
def test_margin_and_complement_say_the_same(name):
    tail = jnp.asarray(10.0 ** np.linspace(-300 if "0.5" not in name else -30, -1, 20))
    upper = LINKS[name].margin(1 - tail, complement=tail)
    np.testing.assert_allclose(upper, -LINKS[name].margin(tail), rtol=EXACT)


@each_link
def test_log_density_ratio_against_60_digits(name):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 5, 60), rng.uniform(-700, 700, 60), [0, 0, 700.0, -3.0]])
    y = np.concatenate([rng.normal(0, 5, 60), rng.uniform(-700, 700, 60), [0, 1e-8, 1e-8, 3.0]])
    ratio = LINKS[name].log_density_ratio
    log_density = link_reference(name).log_density
    for dtype in ("float64", "float32"):
        a, b = x.astype(dtype), y.astype(dtype)
        values = np.asarray(ratio(jnp.asarray(a), jnp.asarray(b)), np.float64)
        with mp.workdps(DIGITS):
            exact = np.array(
                [
                    float(
                        log_density(mp.mpf(float(s)) + mp.mpf(float(t)))
                        - log_density(mp.mpf(float(s)))
                    )
                    for s, t in zip(a, b, strict=True)
                ]
            )
        error = np.abs(values - exact) / np.maximum(1, np.abs(exact))
        assert error.max() < TOLERANCE[dtype], dtype


@each_link
def test_laws(name):
    link = LINKS[name]
    m = jnp.asarray(MARGINS)
    np.testing.assert_allclose(link.probability(m) + link.probability(-m), 1.0, rtol=EXACT)
    inner = m[jnp.abs(m) < 20]
    assert (jnp.diff(link.probability(jnp.unique(inner))) >= 0).all()
    np.testing.assert_allclose(link.log_density(m), link.log_density(-m), rtol=EXACT)
    small = jnp.asarray([-8.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 3.0])
    np.testing.assert_allclose(link.margin(link.probability(small)), small, rtol=1e-9, atol=1e-13)


@each_link
def test_density_is_the_derivative_of_probability(name):
    link = LINKS[name]
    points = jnp.asarray([-30.0, -3.0, -0.7, -0.0, 0.0, 0.4, 2.5, 6.0])
    points = jnp.append(points, 40.0) if name == "logistic" else points
    slopes = slopes_of(lambda m: link.probability(m), points)
    np.testing.assert_allclose(slopes, link.density(points), rtol=1e-10)
    back = slopes_of(lambda p: link.margin(p), jnp.asarray([1e-6, 0.2, 0.5, 0.9]))
    margins = link.margin(jnp.asarray([1e-6, 0.2, 0.5, 0.9]))
    np.testing.assert_allclose(back, 1 / link.density(margins), rtol=1e-10)


@each_dtype
@each_link
def test_no_gradient_is_nan_at_the_edges(name, dtype):
    link = LINKS[name]
    points = jnp.asarray([0.0, -0.0, 1e-30, 1.0, 17.0, 88.0, 100.0, 700.0, -700.0], dtype)
    for function in (link.log_density, link.log_probability, link.probability):
        slopes = slopes_of(lambda m, f=function: f(m), points)
        assert not jnp.isnan(slopes).any(), function
    tiny = jnp.asarray([1e-30, 0.25, 0.5, 0.75, 1 - 6e-8], dtype)
    assert not jnp.isnan(slopes_of(lambda p: link.margin(p), tiny)).any()


@each_link
def test_ends_of_the_unit_interval_are_infinite_margins(name):
    ends = LINKS[name].margin(jnp.asarray([0.0, 1.0]))
    assert ends[0] == -jnp.inf and ends[1] == jnp.inf


@each_link
def test_jit_vmap_and_shapes(name):
    link = LINKS[name]
    m = jnp.asarray(np.random.default_rng(0).normal(0, 2, (3, 4)))
    want = link.probability(m)
    np.testing.assert_allclose(jax.jit(lambda m: link.probability(m))(m), want, rtol=1e-13)
    np.testing.assert_allclose(jax.vmap(link.probability)(m), want, rtol=1e-13)
    assert link.probability(1.0).shape == ()


@each_link
def test_samples_have_uniform_probabilities(name):
    link = LINKS[name]
    p = np.sort(link.probability(link.sample(jax.random.key(1), (20_000,))))
    # Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is exceeded once in a thousand times.
    assert np.abs(p - (np.arange(p.size) + 0.5) / p.size).max() < 1.95 / np.sqrt(p.size)


def test_student_t_derivative_with_respect_to_its_degrees_of_freedom():
    def log_p(nu):
        return links.student_t(nu).log_probability(-4.0)

    def margin(nu):
        return links.student_t(nu).margin(0.03)

    for function in (log_p, margin):
        h = 1e-4
        difference = (function(3 + h) - function(3 - h)) / (2 * h)
        assert abs(jax.grad(function)(3.0) / difference - 1) < FINITE_DIFF
    with mp.workdps(30):
        exact = mp.diff(
            lambda nu: mp.log(mp.betainc(nu / 2, 0.5, 0, nu / (nu + 16), regularized=True) / 2), 3
        )
    assert abs(float(jax.grad(log_p)(3.0)) / float(exact) - 1) < 1e-9


def test_student_t_between_cauchit_and_probit():
    m = jnp.linspace(-20.0, 20.0, 41)
    cauchit = links.cauchit.log_probability(m)
    np.testing.assert_allclose(links.student_t(1).log_probability(m), cauchit, rtol=EXACT)
    inner = jnp.linspace(-5.0, 5.0, 41)
    probit = links.probit.log_probability(inner)
    np.testing.assert_allclose(links.student_t(1e8).log_probability(inner), probit, rtol=1e-5)


# A user's own ------------------------------------------------------------------------------

OWN = {
    "probability": lambda: links.from_probability(jax.nn.sigmoid, name="own"),
    "density": lambda: links.from_density(
        lambda m: jnp.exp(-jnp.abs(m)) / jnp.square(1 + jnp.exp(-jnp.abs(m))),
        name="own",
        check=False,
    ),
    "log_density": lambda: links.from_density(log_density=links.logistic.log_density, name="own"),
}


@pytest.mark.parametrize("given", OWN)
def test_own_logistic_equals_the_shipped_one(given):
    own = OWN[given]()
    m = jnp.asarray([-300.0, -30.0, -2.0, -1e-3, 0.0, 0.5, 3.0, 30.0])
    for function in ("probability", "log_probability", "log_density"):
        mine = getattr(own, function)(m)
        np.testing.assert_allclose(mine, getattr(links.logistic, function)(m), rtol=EXACT)
    p = jnp.asarray([1e-100, 1e-9, 0.2, 0.5, 0.7, 0.999])
    np.testing.assert_allclose(own.margin(p), links.logistic.margin(p), rtol=1e-11, atol=1e-12)
    slope = jax.grad(lambda p: own.margin(p))(0.2)
    assert abs(slope * 0.16 - 1) < 1e-10


@each_link
def test_every_shipped_link_passes_the_check(name):
    report = links.check_link(LINKS[name])
    assert report.holds, str(report)


BROKEN = {
    "Assumption 2": lambda m: jax.nn.sigmoid(m) + 0.1 * jnp.sin(m),
    "Assumption 3": lambda m: 0.1 + 0.8 * jax.nn.sigmoid(m),
    "Assumption 4": lambda m: jnp.exp(-jnp.exp(-m)),
    "Assumption 5": lambda m: jnp.where(jnp.abs(m) < 1, 0.5 + 0.35 * m, jax.nn.sigmoid(m * 1.7346)),
}


@pytest.mark.parametrize("assumption", BROKEN)
def test_a_broken_assumption_is_named_with_the_margin(assumption):
    with pytest.raises(InputError, match=f"{assumption}.* (margin|g\\()"):
        links.from_probability(BROKEN[assumption], name="broken")


def test_a_jump_is_found_where_it_is():
    def g(m):
        lower = jax.nn.sigmoid(-jnp.abs(m))
        lower = jnp.where(jnp.abs(m) > 1.2345, 0.8 * lower, lower)
        return jnp.where(m < 0, lower, 1 - lower)

    with pytest.raises(InputError, match=r"g jumps by 0.0451 at margin -?1.2345"):
        links.from_probability(g)


def test_spikes_break_the_vanishing_density():
    # Assumptions 2-5 hold for this one (its spikes narrow as they go), g' -> 0 does not.
    def log_density(m):
        nearest = jnp.round(m)
        spike = jnp.exp(-jnp.square((m - nearest) * (1 + nearest**2)))
        return jnp.logaddexp(links.logistic.log_density(m), jnp.log(1e-3 * spike + 1e-300))

    class Spiky(type(links.logistic)):
        def log_density(self, margin):
            return log_density(jnp.asarray(margin))

    failures = [check.assumption for check in links.check_link(Spiky()).failures]
    assert any(name.startswith("Density vanishes") for name in failures)


def test_complementary_log_log_is_refused_and_taken_on_request():
    with pytest.raises(InputError, match="Assumption 4: symmetry.*allow_asymmetric"):
        links.complementary_log_log()
    link = links.complementary_log_log(allow_asymmetric=True)
    m = jnp.asarray([-3.0, 0.0, 1.0])
    np.testing.assert_allclose(link.probability(m), -jnp.expm1(-jnp.exp(m)), rtol=EXACT)
    np.testing.assert_allclose(link.margin(link.probability(m)), m, atol=1e-9)


def test_a_shipped_links_name_is_not_for_others():
    for name in ("logistic", "student_t(3)", ""):
        with pytest.raises(InputError, match="name: expected one that no shipped link has"):
            links.from_probability(jax.nn.sigmoid, name=name)
    with pytest.raises(InputError, match="name: .*got 'laplace'"):
        links.from_density(links.probit.density, name="laplace")


def test_a_density_must_integrate_to_one():
    with pytest.raises(InputError, match=r"integrates to 2\.506628"):
        links.from_density(lambda m: jnp.exp(-m * m / 2))
    with pytest.raises(InputError, match="not smooth enough"):
        links.from_density(
            lambda m: jnp.where(jnp.abs(m) < 1, 0.25, 0.25 * jnp.exp(1 - jnp.abs(m)))
        )
    with pytest.raises(InputError, match="exactly one"):
        links.from_density()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logit", "did you mean 'logistic'"),
        ("student_t", "student_t:NU"),
        ("student_t:many", "student_t:NU"),
        ("student_t:-2", "above 0; got -2"),
        ("student_t:inf", "above 0; got inf"),
        ("cloglog", "Assumption 4"),
    ],
)
def test_bad_names(text, message):
    with pytest.raises(InputError, match=message):
        links.by_name(text)


def test_degrees_of_freedom_are_one_number():
    with pytest.raises(InputError, match=r"nu: expected one number; got an array of shape \(2,\)"):
        links.student_t([1.0, 2.0])


def test_names():
    assert [links.by_name(n).name for n in ("logistic", "student_t:2.5")] == [
        "logistic",
        "student_t(2.5)",
    ]
