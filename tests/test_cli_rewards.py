"""``jaxpref rewards dominance`` and ``jaxpref rewards quadruples``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxpref.__main__ import main
from jaxpref.rewards import fragile_quadruples, read_scores, reward_dominance


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """Return a file of scores of 6 prompts with 9 responses each."""
    rows = np.random.default_rng(3).normal(0, 3, (6, 9))
    lines = [f"q{p},r{r},{rows[p, r]:.17g}" for p in range(6) for r in range(9)]
    path = tmp_path / "scores.csv"
    path.write_text("prompt,response,score\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def run_json(capsys, *arguments: str) -> dict:
    assert main(["rewards", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments: str) -> str:
    assert main(["rewards", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return err


def test_dominance_prints_what_the_library_finds(capsys, scores):
    content = run_json(capsys, "dominance", str(scores), "--threshold", "3")
    found = reward_dominance(read_scores(scores), thresholds=(3.0,))
    assert content["dominance"] == json.loads(json.dumps(found.to_dict()))
    assert content["scores"]["pairs"] == 216
    assert main(["rewards", "dominance", str(scores)]) == 0
    out = capsys.readouterr().out
    for text in ("6 prompts, 54 responses, 216 pairs", "[0.99, 1.00)", "20.99%", "counted exactly"):
        assert text in out


def test_dominance_of_pairs_and_of_another_link(capsys, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"chosen_score": 5.0, "rejected_score": 0.0}\n' * 3, encoding="utf-8")
    content = run_json(capsys, "dominance", str(path), "--link", "probit")
    assert content["dominance"]["directed"] and content["dominance"]["link"] == "probit"
    assert content["dominance"]["bins"][4]["pairs"] == 3
    assert main(["rewards", "dominance", str(path)]) == 0
    assert "no triples" in capsys.readouterr().out


def test_a_sample_of_triples_says_so(capsys, scores):
    content = run_json(capsys, "dominance", str(scores), "--most-first", "4", "--seed", "2")
    assert content["dominance"]["triples"]["method"] == "sampled"
    assert main(["rewards", "dominance", str(scores), "--most-first", "4"]) == 0
    assert "estimated from a sample" in " ".join(capsys.readouterr().out.split())


def test_quadruples_print_what_the_library_finds(capsys, scores):
    for rank in ("sensitivity", "closeness"):
        content = run_json(capsys, "quadruples", str(scores), "--rank", rank, "--top", "3")
        found = fragile_quadruples(read_scores(scores), rank=rank, top=3)
        assert content["quadruples"] == json.loads(json.dumps(found.to_dict()))
        assert len(content["quadruples"]["top"]) == 3
    assert main(["rewards", "quadruples", str(scores)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"{found.total:,} fragile quadruples in {found.prompts_with} of 6 prompts" in out
    assert "i' over k" in out and "dp_ij/dp_ik" in out
    none = ["quadruples", str(scores), "--weak", "1e-9"]
    assert main(["rewards", *none]) == 0
    assert "No fragile quadruple: 0 fragile quadruples" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["dominance", "quadruples"])
def test_files_are_written(capsys, scores, tmp_path, command):
    folder = tmp_path / "out"
    assert main(["rewards", command, str(scores), "--out", str(folder)]) == 0
    assert "Written" in capsys.readouterr().out
    content = json.loads((folder / f"{command}.json").read_text(encoding="utf-8"))
    assert content == run_json(capsys, command, str(scores))
    assert "| p" in (folder / f"{command}.md").read_text(encoding="utf-8")
    assert main(["rewards", command, str(scores), "--out", str(tmp_path / "x.md")]) == 0
    assert (tmp_path / "x.md").is_file() and (tmp_path / "x.json").is_file()


def test_bad_usage_ends_in_one_message(capsys, scores, tmp_path):
    file = str(scores)
    assert "COLUMN=VALUE; got 'q1'" in refused(capsys, "dominance", file, "--where", "q1")
    assert "it holds 'q0'" in refused(capsys, "dominance", file, "--where", "prompt=q9")
    assert "no such file" in refused(capsys, "quadruples", str(tmp_path / "none.csv"))
    assert "--weak, --strong" in refused(capsys, "quadruples", file, "--weak", "0.6")
    assert "rank: expected" in refused(capsys, "quadruples", file, "--rank", "size")
    assert "link" in refused(capsys, "dominance", file, "--link", "logit")
    missing = str(tmp_path / "no" / "x.json")
    assert "no such folder" in refused(capsys, "dominance", file, "--out", missing)


def test_conditions_and_lone_prompts_go_through(capsys, scores):
    two = run_json(capsys, "dominance", str(scores), "--where", "prompt=q1")
    assert two["scores"]["prompts"] == 1
    with scores.open("a", encoding="utf-8") as file:
        file.write("alone,r0,1.0\n")
    assert "has one response" in refused(capsys, "dominance", str(scores))
    kept = run_json(capsys, "dominance", str(scores), "--drop-lone")
    assert kept["scores"]["prompts"] == 6
    assert kept["scores"]["notes"][0].startswith("Left out: 1 prompt")
