"""``jaxpref audit``: flips, groups and what to compare next, as they are told and refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxpref.__main__ import main
from jaxpref.data import bundled_path

EXAMPLE = str(bundled_path("example1"))


def run(capsys, *arguments: str) -> str:
    assert main(["audit", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys, *arguments: str) -> str:
    assert main(["audit", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err and err.count("\n") == 1
    return err


@pytest.fixture
def votes(tmp_path) -> str:
    rng = np.random.default_rng(0)
    lines = ["item_a,item_b,winner,rater"]
    for n in range(240):
        a, b = rng.choice(5, 2, replace=False)
        winner = rng.choice(["a", "b", "tie"], p=[0.5, 0.3, 0.2])
        lines.append(f"m{a},m{b},{winner},rater{n % 4}")
    path = tmp_path / "votes.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_the_answers_are_on_the_terminal(capsys, votes):
    out = " ".join(run(capsys, votes, "--ties", "half", "--links").split())
    for said in (
        "How little would flip it",
        "What to compare next",
        "Without one rater",
        "Without one item",
        "models within 1 nat of",
        "Other links than logistic",
        "cauchit",
        "there is no finite fit",
    ):
        assert said in out


def test_options_reach_the_audit(capsys, votes):
    arguments = ("--ties", "half", "--k", "2", "--budget", "drop", "--pair", "m0", "m3", "--json")
    content = json.loads(run(capsys, votes, *arguments, "--without", "rater2", "--loss", "2"))
    audited = content["audit"]
    assert {flip["budget"] for flip in audited["flips"]} == {"drop"}
    assert any({flip["ahead"], flip["behind"]} == {"m0", "m3"} for flip in audited["flips"])
    assert next(flip["k"] for flip in audited["flips"] if flip["question"] == "top_k") == 2
    raters = next(groups for groups in audited["groups"] if groups["kind"] == "rater")
    assert [row["name"] for row in raters["rows"]] == [["rater2"]]
    assert audited["multiplicity"]["loss"] == 2
    quiet = json.loads(run(capsys, EXAMPLE, "--no-flips", "--no-groups", "--no-collect", "--json"))
    assert quiet["audit"]["flips"] == quiet["audit"]["groups"] == quiet["audit"]["collect"] == []


def test_markdown_has_the_answers_too(capsys, votes, tmp_path):
    run(capsys, votes, "--ties", "half", "--out", str(tmp_path / "found.md"))
    text = (tmp_path / "found.md").read_text(encoding="utf-8")
    assert "### How little would flip it" in text and "### What to compare next" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--limit", "0"), "limit: expected a finite number of comparisons above 0"),
        (("--limit", "-3"), "limit: expected"),
        (("--loss", "0"), "loss: expected a finite number of nats above 0"),
        (("--k", "9"), "k: expected at most the number of items, 3; got 9"),
        (("--budget", "dorp"), "did you mean 'drop'"),
        (("--pair", "i", "jj"), "closest: 'j'"),
        (("--pair", "i", "i"), "expected two different items"),
        (("--without", "bob"), "raters: expected comparisons with raters"),
        (("--max-steps", "1"), "converge"),
    ],
    ids=str,
)
def test_bad_input_ends_in_one_message(arguments, said, capsys):
    if arguments[0] == "--max-steps":
        assert main(["audit", EXAMPLE, *arguments]) in (2, 3)
        assert "fit_pairwise" in capsys.readouterr().err
    else:
        assert said in refused(capsys, EXAMPLE, *arguments)


def test_an_unknown_rater_comes_with_the_closest(capsys, votes):
    err = refused(capsys, votes, "--ties", "half", "--without", "ratr2")
    assert "closest: 'rater2'" in err


def test_rankings_are_audited(capsys, tmp_path):
    path = tmp_path / "votes.jsonl"
    lists = [["x", "y", "z"]] * 6 + [["y", "z", "x"]] * 3 + [["z", "x", "y"]] * 3
    path.write_text("\n".join(map(json.dumps, lists)) + "\n", encoding="utf-8")
    content = json.loads(run(capsys, str(path), "--rankings", "--json"))
    flips = content["audit"]["flips"]
    assert {flip["question"] for flip in flips} == {"winner", "pair"}
    assert all(flip["status"] == "confirmed" for flip in flips)
    out = " ".join(run(capsys, str(path), "--rankings").split())
    assert "How little would flip it" in out and "The rankings that move most" in out
    assert "What models within 1 nat of the best predict" in out
    assert "rankings to drop until a refit" in out
    page, found = tmp_path / "page.html", tmp_path / "found.md"
    run(capsys, str(path), "--rankings", "--report", str(page), "--out", str(found), "--loss", "2")
    assert "within 2 nats" in found.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "found.json").read_text("utf-8"))["audit"]["multiplicity"]
    text = page.read_text(encoding="utf-8")
    assert "How few rankings would flip it" in text and "://" not in text
    err = refused(capsys, str(path), "--rankings", "--plot", str(tmp_path / "found.png"))
    assert "expected no --plot" in err


def test_tied_rankings_are_refused_without_an_option_that_does_not_help(capsys, tmp_path):
    path = tmp_path / "tied.csv"
    path.write_text("ranking,rank,item\n1,1,a\n1,1,b\n1,2,c\n2,1,c\n2,2,a\n2,3,b\n")
    told = refused(capsys, str(path), "--rankings")
    assert "expected rankings without ties" in told and "--ties" not in told
