"""The elementary functions against 60-digit arithmetic, and their gradients at the edges."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from references import DIGITS
from tolerances import F32, ULP

from jaxpref import _numerics as nx

POSITIVE = np.concatenate([10.0 ** np.linspace(-30, 2, 60), [0.3, 0.6931, 0.6932, 1.0]])

EXACT = {
    "log1mexp": (nx.log1mexp, lambda x: mp.log(-mp.expm1(-x)), POSITIVE),
    "log1p_unit": (nx.log1p_unit, mp.log1p, np.append(10.0 ** np.linspace(-30, 0, 60), 0.37)),
    "log1p_square": (nx.log1p_square, lambda x: mp.log1p(x * x), POSITIVE),
    "log_cosh": (nx.log_cosh, lambda x: mp.log(mp.cosh(x)), POSITIVE),
    "arccosh_exp": (nx.arccosh_exp, lambda x: mp.acosh(mp.exp(x)), POSITIVE[POSITIVE > 1e-7]),
    "gauss": (nx.gauss, lambda x: mp.exp(-x * x / 2), np.linspace(0, 13, 50)),
    "mills_ratio": (
        nx.mills_ratio,
        lambda x: mp.sqrt(mp.pi / 2) * mp.exp(x * x / 2) * mp.erfc(x / mp.sqrt(2)),
        np.concatenate([[0.0], 10.0 ** np.linspace(-10, 2.5, 50)]),
    ),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", EXACT)
def test_relative_error_against_60_digits(name, dtype):
    function, reference, points = EXACT[name]
    points = points.astype(dtype)
    values = np.asarray(jax.jit(function)(jnp.asarray(points)), np.float64)
    with mp.workdps(3 * DIGITS):  # log(cosh(1e-30)) alone needs 120
        exact = np.array([float(reference(mp.mpf(float(x)))) for x in points])
    representable = np.abs(exact) > float(jnp.finfo(dtype).tiny)
    error = np.abs(values - exact)[representable] / np.abs(exact)[representable]
    assert error.max() < (ULP if dtype == "float64" else F32)


@pytest.mark.parametrize("a", [1e-3, 0.15, 0.5, 3.0, 20.0, 1e6])
def test_log_gamma_half_step(a):
    with mp.workdps(DIGITS):
        exact = float(mp.loggamma(mp.mpf(a) + 0.5) - mp.loggamma(mp.mpf(a)))
    assert abs(float(nx.log_gamma_half_step(jnp.asarray(a))) - exact) < ULP * max(1, abs(exact))


def test_mills_coefficients_come_from_the_function_they_stand_for():
    # Interpolate again at another number of points: the same coefficients must come out.
    with mp.workdps(40):
        size = 60
        places = [mp.cos(mp.pi * (j + mp.mpf(1) / 2) / size) for j in range(size)]

        def scaled(t):
            x = 4 * (1 + t) / (1 - t)
            mills = mp.sqrt(mp.pi / 2) * mp.exp(x * x / 2) * mp.erfc(x / mp.sqrt(2))
            return (x + mp.sqrt(2 / mp.pi)) * mills

        with mp.workdps(40 + 400):  # erfc(x) exp(x^2/2) cancels thousands of digits otherwise
            values = [scaled(t) for t in places]
        for k in (0, 1, 7, 15, 24):
            terms = (
                value * mp.cos(mp.pi * k * (j + mp.mpf(1) / 2) / size)
                for j, value in enumerate(values)
            )
            coefficient = 2 * mp.fsum(terms) / size / (2 if k == 0 else 1)
            assert abs(float(coefficient) - nx._MILLS[k]) < 1e-16


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_abs_drop_does_not_round_the_sum(dtype):
    x = jnp.asarray([1e8, -1e8, 1e8, 0.0, 5.0, -5.0, 1e-3], dtype)
    shift = jnp.asarray([1e-4, 1e-4, -3e8, -2.0, -5.0, 12.0, 1e8], dtype)
    for a, b, value in zip(x, shift, nx.abs_drop(x, shift), strict=True):
        exact = abs(Fraction(float(a))) - abs(Fraction(float(a)) + Fraction(float(b)))
        assert abs(Fraction(float(value)) - exact) <= np.finfo(dtype).eps * abs(exact)


EDGES = [0.0, 1e-300, 1e-30, 1.0, 80.0, 1e10, 1e300]


@pytest.mark.parametrize("name", ["log1p_square", "log_cosh", "gauss", "mills_ratio"])
def test_no_gradient_is_nan_at_the_edges(name):
    function = EXACT[name][0]
    slopes = jax.jit(jax.vmap(jax.grad(function)))(jnp.asarray(EDGES))
    assert not jnp.isnan(slopes).any()


def test_half_line_rule_on_tails_of_every_weight():
    cases = [
        (lambda s: -s, 1.0, 1.0),
        (lambda s: -s * s / 2, 1.0, np.sqrt(np.pi / 2)),
        (lambda s: -2 * jnp.log1p(s), 1.0, 1.0),
        (lambda s: -1.3 * jnp.log1p(s), 1.0, 1 / 0.3),
        (lambda s: -1000 * s, 1e-3, 1e-3),
    ]
    for log_integrand, scale, exact in cases:
        value = float(nx.integrate_half_line(log_integrand, jnp.asarray(scale)))
        assert abs(value / exact - 1) < ULP
