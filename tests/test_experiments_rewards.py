"""Experiments on reward models: folds, recorded scores, what needs data, what is measured."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

from jaxpref.cli import reproduce
from jaxpref.cli.app import run
from jaxpref.llm.reward_rows import Candidates
from jaxpref.rewards import Scores, reward_calibration, triple_shares

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def script(monkeypatch):
    """Return what imports a script of the experiments."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(EXPERIMENTS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def dialogue(question: int, turn: int) -> Candidates:
    prompt = f"\n\nHuman: question {question}\n\nAssistant: a\n\nHuman: {turn}\n\nAssistant:"
    texts = ((prompt, f" good {question} {turn}"), (prompt, " bad"))
    return Candidates(f"{question} {turn}", ("chosen", "rejected"), texts, f"line {question}")


def test_folds_share_no_first_question_and_are_of_a_size(script):
    rewards = script("_hh_rewards")
    records = [dialogue(question, turn) for question in range(20) for turn in range(3)]
    fold = rewards.assign_folds(records, 5, 0)
    assert np.bincount(fold).tolist() == [12] * 5
    assert all(len(set(fold[at : at + 3])) == 1 for at in range(0, 60, 3))
    triples = rewards.with_foreign(records, fold, 0)
    for at, record in enumerate(triples):
        assert record.names == ("chosen", "rejected", "foreign")
        foreign = record.texts[2][1]
        owners = [n for n, other in enumerate(records) if other.texts[0][1].startswith(foreign)]
        assert any(fold[n] == fold[at] and n != at for n in owners)
        assert len(foreign) <= len(record.texts[0][1])


def test_the_recorded_scores_give_the_recorded_accuracy(script):
    module = script("tabC2_crossfit")
    folder = EXPERIMENTS / "results" / module.NAME
    scores = module.read_triples(folder)
    recorded = json.loads((folder / "result.json").read_text(encoding="utf-8"))["values"]
    found = reward_calibration(Scores.from_pairs(scores[:, 0], scores[:, 1]))
    known = recorded["calibration"]["all"]
    assert len(scores) == recorded["pairs"] == 8552
    assert abs(found.accuracy - known["accuracy"]) < 1e-3  # the file holds five digits
    assert abs(found.log_loss - known["log_loss"]) < 1e-5


def test_scores_are_written_apart_from_the_result(script, tmp_path):
    module = script("tabC2_crossfit")
    table = {"subset": ["a", "b"], "fold": [0, 1]}
    table |= {name: [0.25 + n, -1.5] for n, name in enumerate(module.NAMES)}
    content = {"scores": table, "values": {}}
    module.save_scores(content, tmp_path)
    assert content == {"values": {}}
    assert module.read_triples(tmp_path).tolist() == [[0.25, 1.25, 2.25], [-1.5, -1.5, -1.5]]


def test_sensitivities_of_triples_are_those_that_the_regions_count(script):
    module = script("ext3_mitigation")
    scores = np.random.default_rng(0).normal(0, 2, (50, 3))
    logs = module.log_sensitivities(scores)
    assert abs(logs.mean()) < 1e-12  # (i, k, j) and (i, j, k) cancel
    prompts, names = np.repeat(np.arange(50), 3).tolist(), ["a", "b", "c"] * 50
    whole = Scores.from_arrays(prompts, names, scores.reshape(-1))
    shares = triple_shares(whole, thresholds=(2.0,))
    assert shares.inside == (float(np.sum(logs > np.log(2))),)


def test_items_on_data_are_skipped_in_sight_or_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("JAXPREF_DATA", raising=False)
    assert reproduce.default_items() == (list(reproduce.MODULES), ["tabC2", "tabC3"])
    assert run(["reproduce", "tabC2", "--smoke", "--out", str(tmp_path / "out")]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "tabC2: expected the folder of the data sets in JAXPREF_DATA" in message
    monkeypatch.setenv("JAXPREF_DATA", str(tmp_path))
    assert reproduce.default_items() == ([*reproduce.MODULES, "tabC2", "tabC3"], [])


@pytest.mark.shared_data
def test_the_tables_are_reproduced_from_public_scores(shared_data, tmp_path, capsys):
    items = ["tabC2", "tabC3"]
    code = run(["reproduce", *items, "--smoke", "--json", "--out", str(tmp_path / "out")])
    assert code == 0
    content = json.loads(capsys.readouterr().out)
    assert [item["item"] for item in content["items"]] == items and content["skipped"] == []


@pytest.mark.slow
@pytest.mark.shared_data
def test_responses_are_reworded_until_a_preference_flips(shared_data, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["reproduce", "rewrites", "--smoke", "--json", "--out", str(out)]) == 0
    content = json.loads((out / "tabC3_rewrites" / "result.json").read_text(encoding="utf-8"))
    for found in content["values"]["pairs"].values():
        assert found["tried"] == 2 and len(found["flips"]) <= found["near"] <= found["strong"]
        for flip in found["flips"]:
            assert flip["p_i_prime_j"] < 0.5 < flip["p_ij"] and flip["p_kj"] <= 0.5
            assert 0 < flip["i_prime"]["edits"] <= 4 and 0 < flip["j"]["edits"] <= 4
            assert "text" not in flip["j"]
