"""``jaxpref fit``: models, rankings, intervals, files, and options that do not go together."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from jaxpref.__main__ import main
from jaxpref.data import bundled_path, load_bundled, read_comparisons, read_rankings
from jaxpref.data.item_covariates import read_item_covariates
from jaxpref.fit import (
    FitResult,
    RankingFit,
    fit_components,
    fit_pairwise,
    fit_rankings,
    joint_sandwich,
)
from tests.test_cli_data import SEPARATED, refused, run_json, run_text, table

BASEBALL = str(bundled_path("baseball"))


def voted(folder: Path, rows: int = 400) -> str:
    """Return a file of votes with ties, raters, a covariate, and an advantage of the first."""
    rng = np.random.default_rng(1)
    names, strength = ("ant", "bee", "cat", "dog"), np.array([1.0, 0.3, -0.3, -1.0])
    lines = ["item_a,item_b,winner,rater,long_a,long_b,indoors"]
    for row in range(rows):
        a, b = rng.choice(4, 2, replace=False)
        long_a, long_b = rng.integers(1, 5, 2)
        margin = strength[a] - strength[b] + 0.5 + 0.3 * (long_a - long_b)
        odds = np.exp([margin / 2, -margin / 2, -0.3])
        said = rng.choice(["a", "b", "tie"], p=odds / odds.sum())
        inside = ("TRUE", "false")[row % 2]
        lines.append(f"{names[a]},{names[b]},{said},r{row % 20},{long_a},{long_b},{inside}")
    return table(folder, "\n".join(lines) + "\n")


def ranked(folder: Path) -> str:
    rng = np.random.default_rng(2)
    lines = ["race,score,model"]
    for race in range(60):
        points = np.round(rng.normal([1.0, 0.4, 0.0, -1.0]), 1)
        lines += [f"{race},{point},{name}" for point, name in zip(points, "wxyz", strict=True)]
    return table(folder, "\n".join(lines) + "\n", "races.csv")


FULL = ("--ties", "davidson", "--order-effect", "--covariate", "long_a:long_b")


def test_effects_are_the_librarys_with_their_sandwich(capsys, tmp_path):
    file = voted(tmp_path)
    content = run_json(capsys, "fit", file, *FULL, "--intervals", "sandwich", "--level", "0.9")
    votes = read_comparisons(file, covariates=[("long_a", "long_b")])
    options = {"ties": "davidson", "order_effect": True}
    fit = fit_pairwise(votes, comparison_covariates=tuple(votes.covariates), **options)
    joint = joint_sandwich(fit, votes)
    found = content["fit"]["effects"]
    assert [row["name"] for row in found] == ["order", "long_a - long_b", "tie"]
    assert [row["kind"] for row in found] == ["order", "comparison_covariate", "tie"]
    np.testing.assert_allclose(
        [row["standard_error"] for row in found], np.sqrt(np.diag(joint.effects)), rtol=1e-9
    )
    first = content["fit"]["leaderboard"][0]
    error = np.sqrt(joint.scores[0, 0])
    assert first["item"] == "ant"
    assert first["high"] == pytest.approx(fit.scores[0] + 1.6448536269514722 * error, rel=1e-9)
    how = content["fit"]["intervals"]
    assert (how["method"], how["cluster"], how["clusters"]) == ("sandwich", "rater", 20)


def test_the_tables_say_what_they_hold(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = run_text(capsys, "fit", voted(tmp_path), *FULL, "--quasi", "--elo")
    text = " ".join(out.split())
    for said in ("95% interval", "ranks", "q.s.e.", "Elo", "Beside the scores", "order: added to",
                 "log nu", "from the information", "400 comparisons", "by 20 raters"):  # fmt: skip
        assert said in text, said
    assert max(map(len, out.splitlines())) <= 80


def test_true_and_false_are_covariates(capsys, tmp_path):
    effects = run_json(capsys, "fit", voted(tmp_path), "--ties", "drop", "--covariate", "indoors")[
        "fit"
    ]["effects"]
    assert [row["name"] for row in effects] == ["indoors"]


def test_bootstrap_repeats_with_its_seed_and_counts_its_resamples(capsys, tmp_path):
    options = (voted(tmp_path), "--ties", "rao-kupper", "--intervals", "bootstrap",
               "--resamples", "20")  # fmt: skip
    one, two = (run_json(capsys, "fit", *options, "--seed", "3")["fit"] for _ in range(2))
    assert one == two
    other = run_json(capsys, "fit", *options, "--seed", "4")["fit"]
    assert one["leaderboard"] != other["leaderboard"]
    how = one["intervals"]
    assert how["fitted"] + how["separable"] + how["unfinished"] == how["resamples"] == 20
    assert one["effects"][0]["low"] < one["effects"][0]["estimate"] < one["effects"][0]["high"]
    free = run_json(capsys, "fit", *options, "--cluster", "none")["fit"]["intervals"]
    assert (free["cluster"], free["clusters"]) == ("none", None)


@pytest.mark.slow
def test_rankings_by_score_with_ties(capsys, tmp_path):
    file = ranked(tmp_path)
    content = run_json(capsys, "fit", file, "--rankings", "--ties", "davidson-luce")
    fit = fit_rankings(read_rankings(file), ties="davidson_luce")
    rows = content["fit"]["leaderboard"]
    assert [row["item"] for row in rows] == list(fit.rank())
    assert rows[0]["score"] == pytest.approx(fit.scores.max())
    assert content["data"]["rankings"] == 60
    assert [row["name"] for row in content["fit"]["effects"]] == [e.name for e in fit.effects]
    clustered = run_json(capsys, "fit", file, "--rankings", "--ties", "davidson-luce",
                         "--intervals", "sandwich")["fit"]  # fmt: skip
    assert clustered["intervals"]["cluster"] == "none"
    assert clustered["leaderboard"][0]["standard_error"] != rows[0]["standard_error"]
    assert "--ties davidson-luce" in refused(capsys, "fit", file, "--rankings")


def test_columns_of_rankings_are_named(capsys, tmp_path):
    text = "who,ballot_no,place_no\nx,1,1\ny,1,2\nx,2,2\ny,2,1\nx,3,1\n z,3,2\nz,4,1\nx,4,2\n"
    file = table(tmp_path, text)
    named = ("--rankings", "--ranking", "ballot_no", "--rank", "place_no", "--item", "who")
    assert run_json(capsys, "fit", file, *named)["data"]["items"] == 3
    last = run_json(capsys, "fit", file, *named, "--unlisted", "last")["fit"]
    assert last["model"]["unlisted"] == "last"
    assert "name it with rank=" in refused(
        capsys, "fit", file, "--rankings", "--ranking", "ballot_no"
    )


def test_saved_fits_come_back(capsys, tmp_path):
    run_text(capsys, "fit", BASEBALL, "--save", str(tmp_path / "board"))
    fit = FitResult.load(tmp_path / "board")
    np.testing.assert_array_equal(fit.scores, fit_pairwise(load_bundled("baseball")).scores)
    file = ranked(tmp_path)
    run_text(capsys, "fit", file, "--rankings", "--ties", "davidson-luce", "--save",
             str(tmp_path / "races.json"))  # fmt: skip
    found, back = (
        fit_rankings(read_rankings(file), ties="davidson_luce"),
        RankingFit.load(tmp_path / "races"),
    )
    np.testing.assert_array_equal(found.scores, back.scores)
    np.testing.assert_array_equal(found.covariance(), back.covariance())
    assert back.rankings == found.rankings and back.to_dict() == found.to_dict()
    assert back.probability("w", "z") == found.probability("w", "z")
    assert list(back.to_frame(backend="dict")["item"]) == list(found.rank())
    with pytest.raises(Exception, match="another kind of file"):
        FitResult.load(tmp_path / "races")


def test_each_component_has_a_leaderboard(capsys, tmp_path):
    file = table(tmp_path, SEPARATED)
    content = run_json(capsys, "fit", file, "--each-component", "--save", str(tmp_path / "fit"))
    expected = fit_components(read_comparisons(file))
    assert len(content["fits"]) == len(expected) == 2
    for part, fit in zip(content["fits"], expected, strict=True):
        assert [row["item"] for row in part["fit"]["leaderboard"]] == list(fit.rank())
    assert FitResult.load(tmp_path / "fit-2").unlinked == expected[1].unlinked


@pytest.mark.parametrize("items", [3, 200])
def test_a_figure_is_drawn_for_few_and_many(items, capsys, tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"t{a},t{(a + 1) % items}" for a in range(items)]
    rows += [f"t{a},t{b}" for a, b in rng.integers(0, items, (4 * items, 2)) if a != b]
    file = table(tmp_path, "winner,loser\n" + "\n".join(rows) + "\n")
    picture = tmp_path / "board.png"
    run_text(capsys, "fit", file, "--ridge", "0.1", "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_item_covariates_come_from_a_table(capsys, tmp_path):
    file = voted(tmp_path)
    sizes = table(
        tmp_path, "model,size,open\ndog,1,true\ncat,2,false\nbee,4,true\nant,8,false\n", "s.csv"
    )
    given = ("--items", sizes, "--item-covariate", "size", "--ridge", "1")
    found = run_json(capsys, "fit", file, "--ties", "half", *given)["fit"]["effects"]
    votes = read_comparisons(file)
    values = {"size": np.array([8.0, 4.0, 2.0, 1.0])}
    fit = fit_pairwise(votes, ties="half", ridge=1.0, item_covariates=values)
    assert found[0]["estimate"] == pytest.approx(fit.effect("size").estimate)
    assert read_item_covariates(sizes, ["open"], ["ant", "bee"])["open"].tolist() == [0.0, 1.0]
    err = refused(capsys, "fit", file, "--ties", "half", *given[:2], "--item-covariate", "sise",
                  "--ridge", "1")  # fmt: skip
    assert "'size'" in err
    short = table(tmp_path, "model,size\nant,8\nbee,x\n", "t.csv")
    bad = ("--item-covariate", "size", "--ridge", "1", "--ties", "half")
    assert "none for 'cat'" in refused(capsys, "fit", file, "--items", short, *bad)
    twice = table(tmp_path, "model,size\nant,8\nbee,4\ncat,2\ndog,1\nant,3\n", "u.csv")
    assert "'ant' has another" in refused(capsys, "fit", file, "--items", twice, *bad)
    odd = table(tmp_path, "model,size\nant,8\nbee,x\ncat,2\ndog,1\n", "v.csv")
    assert "line 3" in refused(capsys, "fit", file, "--items", odd, *bad)


CLASHES = {
    "rank without rankings": (("--rank", "r"), "--rank: expected together with --rankings"),
    "winner with rankings": (("--rankings", "--winner", "w"), "--winner: expected for comparisons"),
    "order with rankings": (("--rankings", "--order-effect"), "--order-effect: expected for"),
    "link with rankings": (("--rankings", "--link", "probit"), "--link: expected logistic"),
    "half with rankings": (("--rankings", "--ties", "half"), "'davidson-luce'"),
    "luce without rankings": (("--ties", "davidson-luce"), "expected --rankings"),
    "davidson and probit": (("--ties", "davidson", "--link", "probit"), "rao_kupper"),
    "items alone": (("--items", "x.csv"), "together with --item-covariate"),
    "item covariate alone": (("--item-covariate", "x"), "together with --items"),
    "no ridge": (("--items", "x.csv", "--item-covariate", "x"), "--ridge above 0"),
    "components and ridge": (("--each-component", "--ridge", "1"), "expected one of the two"),
    "components and component": (("--each-component", "--component", "largest"), "one of the two"),
    "components and plot": (("--each-component", "--plot", "x.png"), "one of the two"),
    "resamples": (("--resamples", "5"), "--intervals bootstrap"),
    "cluster": (("--cluster", "none"), "--intervals sandwich or bootstrap"),
    "one resample": (("--intervals", "bootstrap", "--resamples", "1"), "at least 2"),
    "level": (("--level", "1"), "--level"),
    "no such intervals": (("--intervals", "wold"), "did you mean 'wald'"),
    "no raters": (("--intervals", "sandwich", "--cluster", "rater"), "raters"),
    "order of a matrix": (("--order-effect",), "who was shown first"),
    "covariate of a matrix": (("--covariate", "x"), "item_a"),
    "infinite ridge": (("--ridge", "inf"), "finite"),
    "save": (("--save", "x.pickle"), "--save"),
}


@pytest.mark.parametrize("case", CLASHES)
def test_options_that_do_not_go_together_are_refused(case, capsys):
    options, said = CLASHES[case]
    assert said in refused(capsys, "fit", BASEBALL, *options)


def test_two_files_of_one_name_are_refused(capsys, tmp_path):
    path = str(tmp_path / "x")
    err = refused(capsys, "fit", BASEBALL, "--save", path, "--out", path + ".json")
    assert "expected two files" in err and not list(tmp_path.iterdir())


def test_a_covariate_that_is_no_number_is_named_with_its_line(capsys, tmp_path):
    file = table(tmp_path, "item_a,item_b,winner,n\nx,y,a,1\nx,y,b,\ny,x,a,2\n")
    err = refused(capsys, "fit", file, "--covariate", "n")
    assert "line 3" in err and "finite number for a covariate" in err
    assert "'n'" in refused(capsys, "fit", file, "--covariate", "nn")


def test_bootstraps_without_a_fit_say_so(capsys, tmp_path):
    file = table(tmp_path, "winner,loser\n" + "x,y\n" * 60 + "y,x\n")
    code = main(["fit", file, "--intervals", "bootstrap", "--resamples", "4", "--json"])
    out, err = capsys.readouterr()
    assert (code == 0 and json.loads(out)["fit"]["intervals"]["separable"] > 0) or (
        code == 2 and re.search(r"are separable", err)
    )


@pytest.mark.shared_data
def test_football_at_home(capsys, shared_data):
    """The home side's advantage, nearly gone on neutral ground, where it is a formality."""
    file = str(shared_data / "soccer_international" / "results.csv.gz")
    fit = run_json(capsys, "fit", file, "--ties", "davidson", "--order-effect",
                   "--covariate", "neutral", "--component", "largest")["fit"]  # fmt: skip
    effects = {row["name"]: row for row in fit["effects"]}
    assert fit["status"] == "converged" and fit["num_items"] == 316
    assert effects["order"]["low"] > 0.5 and effects["neutral"]["high"] < -0.4
    assert 0 < effects["order"]["estimate"] + effects["neutral"]["estimate"] < 0.4
    assert fit["leaderboard"][0]["item"] == "Brazil"
