"""The paper's experiments in smoke form, how they judge, and the command that runs them."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.integrate import trapezoid

from jaxpref import InputError
from jaxpref.cli import reproduce
from jaxpref.cli.app import run
from jaxpref.links import by_name

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


@pytest.fixture(scope="module")
def scripts() -> Any:
    """Return what imports an experiment by its name."""
    sys.path.insert(0, str(EXPERIMENTS))
    yield importlib.import_module
    sys.path.remove(str(EXPERIMENTS))


@pytest.fixture(scope="module")
def claims(scripts: Any) -> dict[str, Any]:
    """Return the claims of the smoke form."""
    module = scripts("claims")
    return module.compute(module.SMOKE)


@pytest.fixture(scope="module")
def verdicts(claims: dict[str, Any]) -> dict[str, str]:
    """Return the verdict of each claim by its item."""
    return {row["item"]: row["verdict"] for row in claims["comparison"]}


# How a verdict comes about ------------------------------------------------------------------


def judged(scripts: Any, error: float, corrected: float | None = None) -> str:
    common = scripts("_common")
    correction = None if corrected is None else common.Correction("so", corrected)
    texts = {"paper": "", "ours": 0.0, "evidence": "", "correction": correction}
    return common.judge("item", "claim", error=error, tolerance=1e-3, **texts)["verdict"]


def test_a_verdict_follows_from_the_errors(scripts: Any) -> None:
    assert judged(scripts, 0.0) == judged(scripts, 1e-3) == "holds"
    assert judged(scripts, 1.0, 0.0) == "holds with a stated correction"
    assert judged(scripts, 1.0) == judged(scripts, 1.0, 1.0) == "differs"
    assert judged(scripts, float("nan")) == judged(scripts, 1.0, float("nan")) == "differs"


def test_the_tolerance_is_half_a_unit_of_the_last_digit(scripts: Any) -> None:
    common = scripts("_common")
    assert common.printed_tolerance("0.9993") == pytest.approx(5e-5)
    judge = lambda ours: common.judge_number("i", "c", "0.96", ours, "")["verdict"]  # noqa: E731
    assert [judge(x) for x in (0.9551, 0.9649, 0.9549, 0.9651)] == ["holds"] * 2 + ["differs"] * 2


@pytest.mark.slow
def test_a_changed_verdict_and_a_missing_row_are_failures(
    scripts: Any, claims: dict[str, Any]
) -> None:
    missed = scripts("_common").missed
    assert missed(claims, claims) == []
    other = copy.deepcopy(claims)
    other["comparison"][0]["verdict"] = "differs"
    dropped = other["comparison"].pop()
    failures = missed(other, claims)
    assert len(failures) == 2 and dropped["item"] in failures[1]
    assert len(missed(other, claims, partial=True)) == 1
    assert len(missed(other, None)) == sum(r["verdict"] != "holds" for r in other["comparison"])


def test_some_of_a_figure_is_held_to_what_was_recorded_of_them(scripts: Any) -> None:
    pytest.importorskip("flax", reason="the extra llm is not installed")
    common, fig3 = scripts("_common"), scripts("fig3_strong_preferences")
    record = common.load(common.RESULTS / fig3.NAME)
    one = {name: rows[1:2] for name, rows in record["values"]["curves"][2].items()
           if name in ("p12", "p23", "p13")}  # fmt: skip
    omega = record["values"]["curves"][2]["omega"]
    config = dataclasses.replace(fig3.Config(), omegas=(tuple(omega),), seeds=(1,))
    content = {"values": {"curves": [{"omega": omega, **one}]}, "comparison": []}
    assert common.missed_alike(config, content, record) == []
    content["values"]["curves"][0]["p13"] = [[p - 0.1 for p in one["p13"][0]]]
    (failure,) = common.missed_alike(config, content, record)
    assert failure.startswith("-".join(omega)) and "0.1 from" in failure
    assert common.missed_alike(config, content, record, own=False) == []
    other = dataclasses.replace(config, pairs=32)
    assert common.missed_alike(other, content, record) == []


# The claims ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_smoke_form_agrees_with_the_record(scripts: Any, claims: dict[str, Any]) -> None:
    common = scripts("_common")
    record = common.load(common.RESULTS / "claims")
    assert [row["item"] for row in claims["comparison"]] == [
        row["item"] for row in record["comparison"]
    ]
    assert common.missed(claims, record, partial=True) == []


@pytest.mark.slow
def test_printed_probabilities_that_are_wrong_are_found_and_right_ones_kept(
    claims: dict[str, Any],
) -> None:
    rows = {row["item"]: row for row in claims["comparison"]}
    # Eq. 3 by hand: odds 9999 * 2/98, and (9801/199) * 2/98.
    odds = 0.9999 / 0.0001 * 0.02 / 0.98
    assert rows["Example 1, p_ij^1"]["ours"] == pytest.approx(odds / (1 + odds), abs=1e-9)
    assert rows["Example 1, p_ij^1"]["verdict"] == "differs"
    assert rows["Section 3.1, p_ij^1"]["verdict"] == "differs"
    assert rows["Example 1, p_ij^2"]["verdict"] == "holds"
    assert rows["C.5.2, step 4, p_ij"]["ours"] == pytest.approx(99 * 2 / (99 * 2 + 98))
    assert rows["Table C3, p_ij"]["verdict"] == rows["Table C3, p_i'j"]["verdict"] == "holds"


@pytest.mark.parametrize(
    "item",
    [
        "Lemma 2",
        "Theorem 1",
        "After Eq. 10",
        "Eq. 11",
        "Eq. 12",
        "B.2, Eq. B6",
        "B.2, antiderivative",
    ],
)
@pytest.mark.slow
def test_statements_that_need_a_correction_get_it(verdicts: dict[str, str], item: str) -> None:
    assert verdicts[item] == "holds with a stated correction"


@pytest.mark.parametrize(
    "item", ["Eq. 4", "Eq. 5", "Proposition 1", "Proposition 2, p_uv", "Theorem 2", "C.5.1, modes"]
)
@pytest.mark.slow
def test_statements_that_are_right_hold(verdicts: dict[str, str], item: str) -> None:
    assert verdicts[item] == "holds"


@pytest.mark.slow
def test_theorem_1_as_printed_fails_for_power_tails_only(claims: dict[str, Any]) -> None:
    row = next(row for row in claims["comparison"] if row["item"] == "Theorem 1")
    assert "no such p_kj for cauchit, student_t:3;" in row["why"]


def test_the_spiky_density_obeys_the_assumptions_it_is_meant_to(scripts: Any) -> None:
    density = scripts("claims_pairwise").spiky_density
    near = np.linspace(2.9, 3.1, 200_001)
    assert np.all(density(near) > 0) and density(np.array(3.0)) > 1
    assert np.max(np.abs(np.diff(density(near)))) < 1e-3  # continuous: no jump on a fine grid
    places = range(1, 9)
    triangles = [trapezoid(density(g) - np.exp(-g), g) for g in map(_around, places)]
    np.testing.assert_allclose(triangles, [4.0**-n / 2 for n in places], rtol=1e-3)


def _around(n: int) -> np.ndarray:
    return np.linspace(n - 4.0**-n, n + 4.0**-n, 4001)


def test_integrated_areas_find_the_exact_ones(scripts: Any) -> None:
    area = scripts("claims_rankings").area_by_definition
    assert area(1.0, 1.0, 2.0, "uv") == pytest.approx(1 / 24, rel=1e-10)
    assert area(2.0, 0.5, 3.0, "vu") == pytest.approx(0.25 / (6 * 8 * 9), rel=1e-10)


# Derivatives --------------------------------------------------------------------------------


@pytest.mark.slow
def test_derivatives_agree_and_a_wrong_one_is_found(
    scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = scripts("verify_gradients")
    small = module.Config(links=("logistic", "cauchit"), tails=(0.1, 1e-12))
    content = module.compute(small)
    assert {row["verdict"] for row in content["comparison"]} == {"holds"}
    monkeypatch.setattr(module, "closed_form", lambda link, x, y: np.exp(x - x))
    rows = module.compute(small)["comparison"]
    assert {r["item"].split(", ")[-1] for r in rows if r["verdict"] == "differs"} == {"closed form"}


def test_the_complex_step_says_where_it_does_not_apply(scripts: Any) -> None:
    module = scripts("verify_gradients")
    x, y = np.array([2.0, -3.0]), np.array([1.0, 0.5])
    assert module.complex_step(by_name("probit"), x, y) is None
    found = module.complex_step(by_name("logistic"), x, y)
    np.testing.assert_allclose(found, module.truth(by_name("logistic"), x, y), rtol=1e-13)
    row = {"link": "probit", "dtype": "float64", **dict.fromkeys(module.ROUTES, 1e-15)}
    assert "not applicable" in module.table([row | {"complex step": None}])
    assert "not applicable" not in module.table([row])


# The command --------------------------------------------------------------------------------


@pytest.mark.slow
def test_reproduce_writes_results_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    code = run(["reproduce", "fig1", "fig2", "fig1", "--smoke", "--json", "--out", str(out)])
    content = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [item["item"] for item in content["items"]] == ["fig1", "fig2"]
    assert all(item["verdicts"]["differs"] == 0 for item in content["items"])
    for item in content["items"]:
        result, figure = map(Path, item["files"])
        assert str(tmp_path) not in result.read_text(encoding="utf-8")
        assert figure.read_bytes().startswith(b"\x89PNG")


def test_reproduce_ends_with_3_where_a_verdict_is_not_the_recorded_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scripts: Any,
) -> None:
    module = scripts("fig2_plackett_luce_regions")
    monkeypatch.setattr(module, "proposition_2", lambda config, threshold, wrt: 1.0)
    assert run(["reproduce", "fig2", "--smoke", "--out", str(tmp_path)]) == 3
    assert "a check failed: Fig. 2" in capsys.readouterr().err


def test_an_unknown_item_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reproduce", "fig1", "claim", "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "fig1, fig2, claims, gradients" in " ".join(message.split())
    assert "closest: 'claims'" in " ".join(message.split())
    assert not (tmp_path / "out").exists()


def test_without_the_experiments_the_message_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "FOLDER", tmp_path)
    with pytest.raises(InputError, match="a clone of the repository"):
        reproduce.find_experiments()


# What trains --------------------------------------------------------------------------------

TRAINED = tuple(reproduce.TRAINED)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the items share: they start from the same fine-tuned model."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("item", TRAINED)
def test_what_trains_writes_results_and_figures(
    item: str,
    shared_data: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scripts: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("flax", reason="the extra llm is not installed")
    monkeypatch.setattr(scripts("_animal_policies"), "CACHE", cache)
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    try:
        code = run(["reproduce", item, "--smoke", "--json", "--out", str(tmp_path / "out")])
    finally:
        jax.config.update("jax_numpy_dtype_promotion", "strict")
    content = json.loads(capsys.readouterr().out)
    assert code == 0 and content["items"][0]["comparison"] == []
    result, *figures = map(Path, content["items"][0]["files"])
    assert str(tmp_path) not in result.read_text(encoding="utf-8")
    assert figures and all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)


def test_what_trains_needs_a_model_and_nothing_else_takes_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("JAXPREF_DATA", raising=False)
    for arguments, message in (
        (("fig3",), "--model: expected a checkpoint folder"),
        (("fig1", "--full"), "--full: expected an item that trains: fig3,"),
        (("--model", "x", "--processes", "2"), "--model, --processes: expected an item that"),
        (("fig3", "--full", "--smoke"), "expected at most one of the two"),
        (("fig3", "--processes", "0"), "--processes: expected a whole number"),
    ):
        assert run(["reproduce", *arguments, "--out", str(tmp_path / "out")]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_fine_tuning_sees_every_pair_equally_often_and_every_row_once_an_epoch(
    scripts: Any,
) -> None:
    pytest.importorskip("flax", reason="the extra llm is not installed")
    policies = scripts("_animal_policies")
    plan = policies.stratified_plan(policies.FineTuning(steps=80))
    assert plan.rows.shape == (80, 48) and plan.epoch.tolist() == [0] * 75 + [1] * 5
    pair = np.unravel_index(plan.rows, (20, 6, 30))[1]
    assert all((np.bincount(step, minlength=6) == 8).all() for step in pair)
    assert sorted(plan.rows[:75].ravel().tolist()) == list(range(3600))
    with pytest.raises(InputError, match="rows: expected a multiple of 6"):
        policies.stratified_plan(policies.FineTuning(rows=20))


def test_a_jump_is_measured_between_any_two_models(scripts: Any) -> None:
    pytest.importorskip("flax", reason="the extra llm is not installed")
    policies = scripts("_animal_policies")
    crossing = policies.crossing
    assert crossing([0.0, 0.3, 0.31, 1.0], [0.1, 0.15, 0.9, 1.0], 0.2, 0.8) == pytest.approx(0.01)
    assert crossing([0.0, 0.5, 1.0], [0.1, 0.5, 0.9], 0.2, 0.8) == 1.0
    assert crossing([0.0, 1.0], [0.3, 0.9], 0.2, 0.8) == float("inf")
    assert policies.alike_but_apart([0.1, 0.9], [0.0, 1.0], 0.02) == 0.0


def test_the_jump_and_its_absence_are_judged_by_numbers(scripts: Any) -> None:
    pytest.importorskip("flax", reason="the extra llm is not installed")
    figures, config = scripts("_animal_figures"), scripts("fig3_strong_preferences").Config()

    def verdicts(p23: Any, p13: Any, judge: Any) -> list[str]:
        grid = np.linspace(0, 1, len(p23))
        logit = lambda p: np.log(p) - np.log1p(-np.asarray(p))  # noqa: E731
        records = [
            {
                "member": {"omega": ["dog", "cat", "bird"], "p12": 0.99, "p23": x, "seed": 0},
                "learned": {
                    **{"p12": 0.99, "p23": a, "p13": b},
                    **{"logit12": logit(0.99), "logit23": logit(a), "logit13": logit(b)},
                    **{f"format_mass{pair}": 0.9 for pair in ("12", "23", "13")},
                },
            }
            for x, a, b in zip(grid, p23, p13, strict=True)
        ]
        (curve,) = figures.values_of(config, records)["curves"]
        return [row["verdict"] for row in judge("Fig.", curve)]

    x = np.linspace(0.001, 0.999, 21)
    jump = 1 / (1 + np.exp(-200 * (x - 0.03)))
    assert verdicts(x, np.clip(jump, 1e-6, 1 - 1e-6), figures.judge_jump)[:4] == ["holds"] * 4
    assert verdicts(x, x, figures.judge_jump) == ["differs"] * 5
    assert verdicts(x, x, figures.judge_proportional) == ["holds"] * 2


def test_the_lines_of_the_expected_labels_are_those_of_the_data(scripts: Any) -> None:
    pytest.importorskip("flax", reason="the extra llm is not installed")
    module = scripts("ext1_training_sensitivity")
    from jaxpref.llm.animals import outcome_probabilities

    config = module.Config(omega=("bird", "dog", "cat"), p12=0.9)
    constant, slope = module.label_lines(config)
    table = np.asarray(outcome_probabilities(config.omega, 0.9, 0.3)).reshape(20, 6, 30, 2)[0, :, 0]
    seen = table.sum(axis=1) > 0
    second = table[seen, 1] / table[seen].sum(axis=1)
    np.testing.assert_allclose((constant + 0.3 * slope)[seen], second, rtol=1e-6)
    assert not (constant[~seen].any() or slope[~seen].any())


def test_pairs_of_all_three_say_what_the_rankings_say(scripts: Any) -> None:
    pytest.importorskip("flax", reason="the extra llm is not installed")
    module = scripts("ext2_rankings_soften")
    config = module.Config(omega=("cat", "bird", "dog"), p12=0.9, p23=(0.2,), answers=20_000)
    batches = module.pairs_of_all(config, module.grid(config)).batches
    from jaxpref.llm.animals import ANIMALS, ORDERED_PAIRS, SUPPORT

    pair = np.asarray(ORDERED_PAIRS)[np.unravel_index(batches.rows[0], SUPPORT)[1]]
    wins_first = np.asarray(batches.reversed[0]) == 0
    odds = 0.9 / 0.1 * 0.2 / 0.8
    for (i, j), p in (((0, 1), 0.9), ((1, 2), 0.2), ((0, 2), odds / (1 + odds))):
        one, two = (ANIMALS.index(config.omega[place]) for place in (i, j))
        about = np.all(np.sort(pair, axis=-1) == np.sort([one, two]), axis=-1)
        won = (pair[..., 0] == one) == wins_first
        assert abs(about.mean() - 1 / 3) < 0.03
        assert abs(won[about].mean() - p) < 0.04  # 3,300 draws: 5 standard errors


# The page -----------------------------------------------------------------------------------


def test_the_page_says_what_the_results_say(scripts: Any) -> None:
    summary = scripts("summary")
    assert set(summary.recorded()) == set(summary.ITEMS.values())
    assert summary.ITEMS == reproduce.MODULES and summary.TRAINED == reproduce.TRAINED
    known = summary.recorded() | summary.trained()
    page = summary.text(known)
    assert (EXPERIMENTS / "README.md").read_text(encoding="utf-8") == page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    headings = len(known)
    assert len(rows) - headings == sum(len(content["comparison"]) for content in known.values())


def test_every_script_has_its_place_on_its_page(scripts: Any) -> None:
    summary = scripts("summary")
    listed = {*summary.ITEMS.values(), *summary.TRAINED.values()}
    listed |= {*summary.MEASURED, *summary.AUDITED, *summary.FITTED}
    there = {path.stem for path in EXPERIMENTS.glob("[!_]*.py")} - {"summary"}
    assert listed | {"claims_pairwise", "claims_rankings", "claims_rewards"} == there
    folder = EXPERIMENTS.parent / "benchmarks"
    page = (folder / "README.md").read_text(encoding="utf-8")
    scripts_of_ours = sorted(path.name for path in folder.glob("[!_]*.py"))
    assert [name for name in scripts_of_ours if f"benchmarks/{name}" not in page] == []


@pytest.mark.slow
def test_the_page_finds_a_value_that_moved(scripts: Any, claims: dict[str, Any]) -> None:
    compare = scripts("summary").compare
    moved = copy.deepcopy(claims)
    row = next(row for row in moved["comparison"] if row["item"] == "Table C3, p_ij")
    row["ours"] += 0.01
    assert compare(claims, claims) == []
    assert compare(moved, claims) == [
        f"Table C3, p_ij: {row['ours']} (recorded: {row['ours'] - 0.01})"
    ]


def test_importing_an_experiment_leaves_jax_as_it_was() -> None:
    names = "_common, claims, summary, verify_gradients, fig1_bradley_terry_regions"
    code = f"import jax, {names}; print(jax.config.jax_enable_x64)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=EXPERIMENTS,
        env={**os.environ, "PYTHONPATH": str(EXPERIMENTS.parent), "JAX_ENABLE_X64": "0"},
    )
    assert found.stdout.strip() == "False"
    assert jax.config.read("jax_enable_x64")
