"""Losses: laws, 50-digit references, TRL's own arithmetic, and the far ends."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from tolerances import EXACT, F32

from jaxpref import InputError
from jaxpref.llm import losses
from jaxpref.llm.losses import LOSSES, LossSettings, preference_loss

GOLDEN = Path(__file__).parent / "golden"
POLICY = np.array([[-3.0, -7.0], [-12.5, -9.25], [-40.0, -90.0], [-250.0, -30.0], [-2e-3, -4.0]])
REFERENCE = np.array([[-3.5, -6.0], [-14.0, -8.0], [-35.0, -20.0], [-20.0, -28.0], [-1.0, -1.0]])
LENGTHS = np.array([[3, 7], [5, 4], [11, 23], [60, 9], [1, 2]])


def log_sigmoid(x):
    return -mp.log(1 + mp.exp(-x))


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def margin(policy, reference, beta):
    return beta * ((policy[0] - reference[0]) - (policy[1] - reference[1]))


# name -> (ours, the formula in mpmath), each of (policy, reference, lengths) of one pair
FORMULAS = {
    "dpo": (
        lambda p, r, n: losses.dpo_loss(p, r, beta=0.3),
        lambda p, r, n: -log_sigmoid(margin(p, r, mp.mpf("0.3"))),
    ),
    "conservative dpo": (
        lambda p, r, n: losses.dpo_loss(p, r, beta=0.5, label_smoothing=0.25),
        lambda p, r, n: (
            -mp.mpf("0.75") * log_sigmoid(margin(p, r, mp.mpf("0.5")))
            - mp.mpf("0.25") * log_sigmoid(-margin(p, r, mp.mpf("0.5")))
        ),
    ),
    "robust dpo": (
        lambda p, r, n: losses.robust_dpo_loss(p, r, beta=0.5, flip_rate=0.25),
        lambda p, r, n: (
            (
                -mp.mpf("0.75") * log_sigmoid(margin(p, r, mp.mpf("0.5")))
                + mp.mpf("0.25") * log_sigmoid(-margin(p, r, mp.mpf("0.5")))
            )
            / mp.mpf("0.5")
        ),
    ),
    "ipo": (
        lambda p, r, n: losses.ipo_loss(p, r, beta=0.5),
        lambda p, r, n: (margin(p, r, 1) - 1) ** 2,
    ),
    "ipo per token": (
        lambda p, r, n: losses.ipo_loss(p, r, beta=0.5, lengths=n),
        lambda p, r, n: ((p[0] - r[0]) / n[0] - (p[1] - r[1]) / n[1] - 1) ** 2,
    ),
    "simpo": (
        lambda p, r, n: losses.simpo_loss(p, n, beta=2.5, target_margin=1.5),
        lambda p, r, n: -log_sigmoid(mp.mpf("2.5") * (p[0] / n[0] - p[1] / n[1]) - mp.mpf("1.5")),
    ),
    "rpo": (
        lambda p, r, n: losses.rpo_loss(p, r, n, beta=0.5, sft_weight=0.75),
        lambda p, r, n: -log_sigmoid(margin(p, r, mp.mpf("0.5"))) - mp.mpf("0.75") * p[0] / n[0],
    ),
    "sft": (
        lambda p, r, n: losses.sft_loss(p, n)[..., 0],
        lambda p, r, n: -p[0] / n[0],
    ),
}


def as_mp(row):
    return [mp.mpf(float(value)) for value in row]


@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_gradients_match_the_formula_in_50_digits(name):
    ours, formula = FORMULAS[name]
    found = np.asarray(ours(POLICY, REFERENCE, LENGTHS))
    slopes = np.asarray(jax.grad(lambda p: jnp.sum(ours(p, REFERENCE, LENGTHS)))(POLICY))
    with mp.workdps(50):
        for row in range(len(POLICY)):
            reference, lengths = as_mp(REFERENCE[row]), as_mp(LENGTHS[row])
            policy = as_mp(POLICY[row])

            def of(a, b, formula=formula, reference=reference, lengths=lengths):
                return formula([a, b], reference, lengths)

            np.testing.assert_allclose(found[row], float(of(*policy)), rtol=EXACT)
            for side, order in enumerate([(1, 0), (0, 1)]):
                slope = float(mp.diff(of, tuple(policy), order))
                np.testing.assert_allclose(slopes[row, side], slope, rtol=1e-10, atol=1e-25)


def test_kto_pair_matches_its_formula():
    found = losses.kto_pair_loss(POLICY, REFERENCE, beta=0.1)
    ratios = POLICY - REFERENCE
    level = np.maximum(ratios.mean(axis=0), 0)
    with mp.workdps(50):
        for row, (h_chosen, h_rejected) in enumerate(ratios):
            chosen = 1 - sigmoid(mp.mpf("0.1") * (mp.mpf(h_chosen) - mp.mpf(level[1])))
            rejected = 1 - sigmoid(mp.mpf("0.1") * (mp.mpf(level[0]) - mp.mpf(h_rejected)))
            np.testing.assert_allclose(found[row], float((chosen + rejected) / 2), rtol=EXACT)


def test_kto_levels_are_means_by_weight():
    weights = np.array([2.0, 0.0, 1.0] + [0.0] * (len(POLICY) - 3))
    found = losses.kto_pair_loss(POLICY, REFERENCE, weights=weights)
    counted = np.array([0, 0, 2])
    alone = losses.kto_pair_loss(POLICY[counted], REFERENCE[counted])
    np.testing.assert_allclose(found[counted], alone, rtol=EXACT)


def test_kto_levels_are_not_differentiated():
    # Held fixed, the slope of row 0 in its own chosen log-probability has this closed form.
    policy = np.array([[-1.0, -2.0], [-3.0, -2.0]])
    reference = np.array([[-2.0, -2.0], [-3.5, -3.0]])
    slope = jax.grad(lambda p: losses.kto_pair_loss(p, reference, beta=0.5)[0])(policy)
    x = 0.5 * (1.0 - 0.5)
    expected = -0.5 * 0.5 / (np.exp(x / 2) + np.exp(-x / 2)) ** 2
    np.testing.assert_allclose(slope[0, 0], expected, rtol=EXACT)
    assert slope[1, 0] == 0


def test_plackett_luce_matches_its_product():
    policy = np.array([[-3.0, -7.0, -4.0, -9.0], [-90.0, -7.0, -4.0, -9.5]])
    reference = np.array([[-4.0, -6.0, -4.5, -7.0], [-4.0, -6.0, -4.5, -7.0]])
    found = losses.plackett_luce_dpo_loss(policy, reference, beta=0.5)
    with mp.workdps(50):
        for row in range(2):
            r = [
                (mp.mpf(p) - mp.mpf(q)) / 2
                for p, q in zip(policy[row], reference[row], strict=True)
            ]
            terms = [mp.exp(r[k]) / sum(mp.exp(x) for x in r[k:]) for k in range(4)]
            np.testing.assert_allclose(found[row], float(-mp.log(mp.fprod(terms))), rtol=EXACT)


@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_plackett_luce_of_two_is_dpo_in_value_and_gradient(beta):
    both = [
        jax.value_and_grad(lambda p, f=f: jnp.sum(f(p, REFERENCE, beta=beta)))(POLICY)
        for f in (losses.dpo_loss, losses.plackett_luce_dpo_loss)
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=EXACT), both[0], both[1])


def test_at_the_reference_the_losses_are_what_they_say():
    def at(name, policy=POLICY, lengths=LENGTHS):
        return np.asarray(preference_loss(name, policy, policy, lengths, LossSettings()))

    for name in ("dpo", "robust_dpo", "plackett_luce_dpo"):
        np.testing.assert_allclose(at(name), np.log(2), rtol=EXACT)
    np.testing.assert_allclose(at("ipo"), 25.0, rtol=EXACT)
    np.testing.assert_allclose(at("kto_pair"), 0.5, rtol=EXACT)
    three = np.array([[-1.0, -5.0, -2.0]])
    np.testing.assert_allclose(
        at("plackett_luce_dpo", three, np.array([[1, 2, 3]])), np.log(6), rtol=EXACT
    )


def test_robust_dpo_averages_to_dpo_over_the_flips():
    eps = 0.2
    right = losses.robust_dpo_loss(POLICY, REFERENCE, beta=0.1, flip_rate=eps)
    flipped = losses.robust_dpo_loss(POLICY[:, ::-1], REFERENCE[:, ::-1], beta=0.1, flip_rate=eps)
    plain = losses.dpo_loss(POLICY, REFERENCE, beta=0.1)
    np.testing.assert_allclose((1 - eps) * right + eps * flipped, plain, rtol=EXACT)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "kto_pair"])
def test_beta_may_be_a_leaf_per_member(name):
    betas = jnp.array([0.1, 0.7])

    def one(beta):
        return preference_loss(name, POLICY, REFERENCE, LENGTHS, LossSettings(beta=beta))

    mapped = jax.vmap(one)(betas)
    for row, beta in enumerate(betas):
        np.testing.assert_allclose(mapped[row], one(beta), rtol=EXACT)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("gap", [0.0, 1e3, -1e3, 3e4, -3e4])
def test_values_and_gradients_stay_finite_in_float32(name, gap):
    policy = jnp.array([[-1.0 + min(gap, 0.0), -1.0 - max(gap, 0.0)]], "float32")
    reference, lengths = jnp.full((1, 2), -1.0, "float32"), jnp.ones((1, 2), "int32")

    def loss(p):
        return preference_loss(name, p, reference, lengths, LossSettings(beta=1.0))[0]

    value, slope = jax.value_and_grad(loss)(policy)
    _, tangent = jax.jvp(loss, (policy,), (jnp.ones_like(policy),))
    assert value.dtype == jnp.float32
    assert np.isfinite([value, tangent]).all() and np.isfinite(slope).all()


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "kto_pair"])
def test_float32_agrees_with_float64(name):
    settings = LossSettings(beta=0.5, label_smoothing=0.25)
    narrow = preference_loss(
        name, POLICY.astype("float32"), REFERENCE.astype("float32"), LENGTHS, settings
    )
    wide = preference_loss(
        name,
        POLICY.astype("float32").astype("float64"),
        REFERENCE.astype("float32").astype("float64"),
        LENGTHS,
        settings,
    )
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, wide, rtol=F32)


def trl_cases():
    return json.loads((GOLDEN / "trl_losses.json").read_text(encoding="utf-8"))


OURS_FOR_TRL = {
    "dpo": lambda p, r, n: losses.dpo_loss(p, r, beta=0.1),
    "dpo_strong": lambda p, r, n: losses.dpo_loss(p, r, beta=2.0),
    "robust_dpo": lambda p, r, n: losses.robust_dpo_loss(p, r, beta=0.3, flip_rate=0.2),
    "ipo_per_token": lambda p, r, n: losses.ipo_loss(p, r, beta=0.25, lengths=n),
    "rpo": lambda p, r, n: losses.rpo_loss(p, r, n, beta=0.1, sft_weight=0.5),
    "simpo": lambda p, r, n: losses.simpo_loss(p, n, beta=2.0, target_margin=1.5),
    "conservative_dpo": lambda p, r, n: losses.dpo_loss(p, r, beta=0.1, label_smoothing=0.3),
}


def check_against_trl(measured):
    assert set(measured["cases"]) == set(OURS_FOR_TRL)
    for name, cases in measured["cases"].items():
        for pair, case in zip(measured["pairs"], cases, strict=True):
            policy, reference, lengths = (np.array(pair[k : k + 2]) for k in (0, 2, 4))
            loss = partial(OURS_FOR_TRL[name], r=reference, n=lengths)
            value, slope = jax.value_and_grad(loss)(policy)
            np.testing.assert_allclose(value, case["loss"], rtol=EXACT, err_msg=name)
            np.testing.assert_allclose(slope, case["gradient"], rtol=1e-10, atol=1e-25)


def test_losses_are_those_trl_computed():
    check_against_trl(trl_cases())


def test_losses_are_those_trl_computes_here():
    if importlib.util.find_spec("trl") is None or importlib.util.find_spec("torch") is None:
        pytest.skip("trl or torch is not installed: only its recorded numbers are compared")
    path = GOLDEN / "make_trl_losses.py"
    spec = importlib.util.spec_from_file_location("make_trl_losses", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_trl_losses"] = module
    spec.loader.exec_module(module)
    check_against_trl(module.measure())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: losses.dpo_loss([-1.0, -2.0], [-1.0]), "reference_logps"),
        (lambda: losses.dpo_loss([-1.0] * 3, [-1.0] * 3), r"shape \(..., 2\)"),
        (lambda: losses.plackett_luce_dpo_loss([-1.0], [-1.0]), "K >= 2"),
        (lambda: losses.kto_pair_loss([-1.0, -2.0], [-1.0, -2.0]), "a batch"),
        (lambda: losses.simpo_loss([-1.0, -2.0], [1]), "lengths"),
        (lambda: preference_loss("dop", [-1.0] * 2, [-1.0] * 2, [1, 1], LossSettings()), "'dpo'"),
    ],
)
def test_wrong_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()
