"""Derivatives through the fit: finite differences, the Laplacian form, transformations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpref import links
from jaxpref._checks import InputError
from jaxpref.data import Comparisons
from jaxpref.fit import fit_pairwise
from jaxpref.fit.implicit import fit_scores
from tests import tolerances as tol

pytestmark = pytest.mark.slow

SIZE = 6
A, B = np.triu_indices(SIZE, 1)
LAPLACIAN = 1e-10
"""The promise made for derivatives against the Laplacian form."""


def data(seed: int = 0):
    rng = np.random.default_rng(seed)
    wins = rng.integers(1, 30, (2, len(A))).astype(float)
    return jnp.asarray(wins[0]), jnp.asarray(wins[1]), jnp.asarray(rng.normal(size=(len(A), 2)))


def unknowns(wins_a, wins_b, ridge, columns, link=links.logistic):
    fit = fit_scores(
        A, B, wins_a, wins_b, num_items=SIZE, ridge=ridge, covariates=columns, link=link
    )
    return jnp.concatenate([fit.scores, fit.effects])


# Exact references


def test_derivatives_by_fractions_are_the_laplacian_form():
    wins_a, wins_b, _ = data()
    total = wins_a + wins_b

    def probability(fraction):
        fit = fit_scores(A, B, total * fraction, total * (1 - fraction), num_items=SIZE)
        return jax.nn.sigmoid(fit.scores[0] - fit.scores[4])

    found = jax.grad(probability)(wins_a / total)
    scores = np.asarray(fit_scores(A, B, wins_a, wins_b, num_items=SIZE).scores)
    p = 1 / (1 + np.exp(scores[B] - scores[A]))
    edges = np.eye(SIZE)[A] - np.eye(SIZE)[B]
    laplacian = edges.T @ (np.asarray(total * p * (1 - p))[:, None] * edges)
    p_ij = 1 / (1 + np.exp(scores[4] - scores[0]))
    unit = np.eye(SIZE)[0] - np.eye(SIZE)[4]
    expected = p_ij * (1 - p_ij) * np.asarray(total) * (edges @ np.linalg.pinv(laplacian) @ unit)
    np.testing.assert_allclose(found, expected, rtol=0, atol=LAPLACIAN)


def test_example_1_of_the_paper():
    def probability(p_ik, p_kj):
        wins = jnp.stack([100 * p_ik, 100 * p_kj])
        scores = fit_scores([0, 1], [1, 2], wins, 100 - wins, num_items=3).scores
        return jax.nn.sigmoid(scores[0] - scores[2])

    assert jax.grad(probability)(0.99, 0.02) == pytest.approx(22.37034, abs=5e-6)
    assert jax.grad(probability, argnums=1)(0.99, 0.02) == pytest.approx(11.29931, abs=5e-6)


# Independent implementations


@pytest.mark.parametrize("link", [links.logistic, links.probit], ids=lambda link: link.name)
@pytest.mark.parametrize("argument", range(4), ids=["wins_a", "wins_b", "ridge", "covariates"])
def test_derivatives_agree_with_refits(link, argument):
    wins_a, wins_b, columns = data()
    arguments = [wins_a, wins_b, jnp.asarray(0.3), columns]
    move = jnp.asarray(np.random.default_rng(1).normal(size=arguments[argument].shape))

    def along(step):
        moved = list(arguments)
        moved[argument] = moved[argument] + step * move
        return unknowns(*moved, link=link)

    _, forward = jax.jvp(along, (jnp.asarray(0.0),), (jnp.asarray(1.0),))
    difference = (along(1e-4) - along(-1e-4)) / 2e-4
    np.testing.assert_allclose(forward, difference, rtol=0, atol=1e-6)


def test_scores_are_those_of_fit_pairwise():
    wins_a, wins_b, _ = data()
    names = tuple(f"item{k}" for k in range(SIZE))
    columns = (np.asarray(x) for x in (wins_a, wins_b, jnp.zeros_like(wins_a)))
    won, lost, tied = columns
    table = Comparisons(names, A, B, won, lost, tied)
    for link in (links.logistic, links.laplace):
        pure = fit_scores(A, B, wins_a, wins_b, num_items=SIZE, ridge=0.2, link=link)
        host = fit_pairwise(table, ridge=0.2, link=link)
        np.testing.assert_allclose(pure.scores, host.scores, atol=1e-9)


# Laws


def test_forward_and_backward_derivatives_agree_and_second_ones_exist():
    wins_a, wins_b, columns = data(1)
    arguments = wins_a, wins_b, jnp.asarray(0.3), columns
    forward = jax.jacfwd(unknowns, argnums=(0, 2, 3))(*arguments)
    backward = jax.jacrev(unknowns, argnums=(0, 2, 3))(*arguments)
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_allclose(one, other, atol=tol.EXACT)
    top = lambda ridge: unknowns(wins_a, wins_b, ridge, columns)[0]  # noqa: E731
    slope = jax.grad(top)
    difference = (slope(0.3 + 1e-4) - slope(0.3 - 1e-4)) / 2e-4
    assert jax.grad(slope)(0.3) == pytest.approx(float(difference), rel=tol.FINITE_DIFF)


def test_scores_sum_to_zero_and_so_do_their_derivatives():
    wins_a, wins_b, columns = data(2)
    jacobian = jax.jacfwd(unknowns)(wins_a, wins_b, 0.0, columns)
    np.testing.assert_allclose(jacobian[:SIZE].sum(axis=0), 0.0, atol=tol.EXACT)


def test_fits_run_under_jit_and_vmap():
    wins_a, wins_b, columns = data(3)
    ridges = jnp.asarray([0.01, 1.0, 100.0])
    mapped = jax.jit(jax.vmap(lambda ridge: unknowns(wins_a, wins_b, ridge, columns)))(ridges)
    for ridge, row in zip(ridges, mapped, strict=True):
        np.testing.assert_allclose(row, unknowns(wins_a, wins_b, ridge, columns), atol=1e-9)


# Hard places and bad input


def test_float32_scores_and_derivatives_are_close_to_float64():
    wins_a, wins_b, _ = data(4)

    def margin(up, down):
        scores = fit_scores(A, B, up, down, num_items=SIZE).scores
        return scores[0] - scores[1]

    exact, slope = jax.value_and_grad(margin)(wins_a, wins_b)
    with jax.enable_x64(False):
        low = [jnp.asarray(np.asarray(x), jnp.float32) for x in (wins_a, wins_b)]
        value, low_slope = jax.value_and_grad(margin)(*low)
        assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(float(exact), abs=tol.F32)
    np.testing.assert_allclose(low_slope, slope, atol=tol.F32)


def test_separable_data_do_not_pass_for_converged():
    fit = fit_scores([0], [1], [3.0], [0.0], num_items=2, max_steps=20)
    assert not bool(fit.converged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_a": [0, 9]}, "item_a: expected indices from 0 to 2"),
        ({"item_a": [0.0, 1.0]}, "item_a: expected indices; got float"),
        ({"wins_b": [1.0]}, "wins_b: expected shape"),
        ({"wins_a": [[1.0]]}, "wins_a: expected one dimension"),
        ({"covariates": [1.0, 2.0]}, "covariates: expected shape"),
        ({"num_items": 1}, "num_items: expected"),
        ({"ridge": -1.0}, "ridge: expected"),
    ],
    ids=str,
)
def test_bad_arrays_are_refused(change, message):
    good = {"item_a": [0, 1], "item_b": [1, 2], "wins_a": [1.0, 2.0], "wins_b": [1.0, 1.0]}
    with pytest.raises(InputError, match=message):
        fit_scores(**{**good, "num_items": 3, **change})
