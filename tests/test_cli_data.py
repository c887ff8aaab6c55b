"""``jaxpref fit``, ``audit`` and ``demo``: what they say, what they write, what they refuse."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from jaxpref.__main__ import main
from jaxpref.data import bundled_path, load_bundled
from jaxpref.fit import fit_pairwise
from tests import tolerances as tol

EXAMPLE = str(bundled_path("example1"))
BASEBALL = str(bundled_path("baseball"))
JOURNALS = str(bundled_path("journals_path"))


def run_text(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def run_json(capsys, *arguments: str) -> dict:
    return json.loads(run_text(capsys, *arguments, "--json"))


def refused(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err and err.count("\n") == 1
    return err


def table(folder: Path, text: str, name: str = "votes.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


# Fits


def test_fit_is_the_librarys(capsys):
    rows = run_json(capsys, "fit", BASEBALL)["fit"]["leaderboard"]
    expected = fit_pairwise(load_bundled("baseball")).to_rows()
    assert [row["item"] for row in rows] == [row.item for row in expected]
    assert [row["score"] for row in rows] == pytest.approx([row.score for row in expected])


def test_fit_shows_rank_score_error_elo_and_how_it_ended(capsys):
    out = run_text(capsys, "fit", BASEBALL, "--elo", "--top", "2")
    rows = fit_pairwise(load_bundled("baseball")).to_rows()
    assert f"{rows[0].score:+.3f}" in out and f"{rows[0].standard_error:.3f}" in out
    assert f"{1500 + 400 / math.log(10) * rows[0].score:.0f}" in out
    assert all(
        said in " ".join(out.split()) for said in ("Converged", "log-likelihood", "gradient")
    )
    assert rows[1].item in out and rows[2].item not in out
    assert "and 5 more" in out


def test_elo_is_the_logistic_links_scale(capsys):
    assert "--elo" in refused(capsys, "fit", BASEBALL, "--elo", "--link", "probit")


def test_names_are_printed_as_they_are(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    names = ("[bold]Zoë[/bold]", "李 :smile:", "a|b")
    rows = [f'"{a}","{b}"' for a in names for b in names if a != b]
    file = table(tmp_path, "winner,loser\n" + "\n".join(rows) + "\n")
    out = run_text(capsys, "fit", file)
    assert all(name in out for name in names)


def test_columns_and_labels_can_be_named(capsys, tmp_path):
    file = table(tmp_path, "x,y,won,n\np,q,1,3\np,q,2,1\np,q,same,2\n")
    named = ("--item-a", "x", "--item-b", "y", "--winner", "won", "--weight", "n")
    labels = ("--labels-a", "1", "--labels-b", "2", "--labels-tie", "same")
    content = run_json(capsys, "fit", file, *named, *labels, "--ties", "half")
    first = content["fit"]["leaderboard"][0]
    assert (first["item"], first["wins"], first["comparisons"]) == ("p", 4, 6)
    assert content["data"]["ties"] == 2
    assert "'won'" in refused(
        capsys, "fit", file, "--item-a", "x", "--item-b", "y", "--winner", "wn"
    )


def test_weights_can_be_left_unread(capsys, tmp_path):
    file = table(tmp_path, "winner,loser,weight\np,q,5\nq,p,1\n")
    assert run_json(capsys, "fit", file)["data"]["comparisons"] == 6
    assert run_json(capsys, "fit", file, "--no-weight")["data"]["comparisons"] == 2
    assert "--no-weight" in refused(capsys, "fit", file, "--no-weight", "--weight", "weight")


def test_fit_is_written_whole_or_not_at_all(capsys, tmp_path):
    target = tmp_path / "fit.json"
    assert f"Written: {target}" in " ".join(
        run_text(capsys, "fit", BASEBALL, "--out", str(target)).replace("\n", "").split("  ")
    )
    assert json.loads(target.read_text())["fit"]["status"] == "converged"
    assert "no such folder" in refused(
        capsys, "fit", BASEBALL, "--out", str(tmp_path / "no" / "fit.json")
    )
    assert "it is a folder" in refused(capsys, "fit", BASEBALL, "--out", str(tmp_path))
    assert "is not a folder" in refused(capsys, "fit", BASEBALL, "--out", str(target / "x.json"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.json"]


# The three remedies

SEPARATED = "winner,loser\na,b\nb,a\nb,c\nc,a\nstar,a\nstar,b\np,q\nq,p\n"


def test_separated_data_name_the_items_and_the_remedies(capsys, tmp_path):
    err = refused(capsys, "fit", table(tmp_path, SEPARATED))
    for said in ("'star'", "'p', 'q'", "--ridge", "--drop", "--component"):
        assert said in err


@pytest.mark.parametrize(
    ("remedy", "items"),
    [
        (("--ridge", "0.1"), {"a", "b", "c", "star", "p", "q"}),
        (("--drop", "star", "--drop", "p", "--drop", "q"), {"a", "b", "c"}),
        (("--component", "largest"), {"a", "b", "c"}),
        (("--component", "q"), {"p", "q"}),
    ],
)
def test_each_remedy_works(remedy, items, capsys, tmp_path):
    file = table(tmp_path, SEPARATED)
    content = run_json(capsys, "fit", file, *remedy)
    assert {row["item"] for row in content["fit"]["leaderboard"]} == items
    assert set(content["data"]["left_out"]) == {"a", "b", "c", "star", "p", "q"} - items
    assert content["fit"]["status"] == "converged"
    assert run_json(capsys, "audit", file, *remedy)["audit"]["regime"]["num_items"] == len(items)


def test_unknown_items_come_with_the_closest(capsys, tmp_path):
    file = table(tmp_path, SEPARATED)
    assert "'star'" in refused(capsys, "fit", file, "--drop", "stra")
    assert "'star'" in refused(capsys, "fit", file, "--component", "sta")


# Audits


def test_audit_of_a_chain_is_eq_4(capsys):
    content = run_json(capsys, "audit", JOURNALS)
    top = content["audit"]["top"]
    assert len(top) == 3
    triple = next(row for row in top if row["triple"] and row["item_b"] == "JASA")
    p_ik, p_kj = 730 / 763, 68 / 881
    value = p_kj * (1 - p_kj) / (p_ik + p_kj - 2 * p_ik * p_kj - 1) ** 2
    assert triple["sensitivity"] == pytest.approx(value, rel=tol.EXACT)
    assert triple["triple"]["region"] == 5


def test_audit_tells_the_finding_first(capsys):
    out = run_text(capsys, "audit", EXAMPLE)
    assert out.startswith("Most fragile: 'i' over 'j', predicted at 67% and never compared.")
    for said in ("22.4", "99 of 100", "makes it 50%", "compare 'i' with 'j' directly", "Tree-like"):
        assert said in " ".join(out.split())


def test_one_vote_turned_is_a_refit(capsys):
    vote = run_json(capsys, "audit", EXAMPLE)["one_vote_turned"][0]
    odds = 98 / 2 * 2 / 98
    assert vote["after"] == pytest.approx(odds / (1 + odds), rel=tol.SOLVER)
    assert (vote["winner"], vote["wins"], vote["comparisons"]) == ("i", 99, 100)


def test_thresholds_and_top(capsys):
    audited = run_json(
        capsys, "audit", JOURNALS, "--threshold", "4", "--threshold", "2", "--top", "1"
    )
    assert [row["threshold"] for row in audited["audit"]["triples"]["regions"]] == [2, 4]
    assert len(audited["audit"]["top"]) == len(audited["one_vote_turned"]) == 1
    assert len(run_json(capsys, "audit", JOURNALS, "--pairs")["audit"]["unseen"]["item_a"]) == 3
    assert "none is listed" in run_text(capsys, "audit", JOURNALS, "--top", "0")
    assert "threshold" in refused(capsys, "audit", JOURNALS, "--threshold", "0")


def test_a_complete_design_has_nothing_unseen(capsys):
    assert run_text(capsys, "audit", BASEBALL).startswith("Every pair was compared")


@pytest.mark.parametrize("out", ["results", "results/found.md", "results/found.json"])
def test_audit_writes_json_markdown_and_a_figure(out, capsys, tmp_path):
    (tmp_path / "results").mkdir(exist_ok=True)
    plot = tmp_path / "results" / "plot.png"
    run_text(capsys, "audit", JOURNALS, "--out", str(tmp_path / out), "--plot", str(plot))
    stem = "audit" if out == "results" else "found"
    found = {path.name for path in (tmp_path / "results").iterdir()}
    assert found == {f"{stem}.json", f"{stem}.md", "plot.png"}
    content = json.loads((tmp_path / "results" / f"{stem}.json").read_text())
    assert content["audit"]["regime"]["kind"] == "tree"
    markdown = (tmp_path / "results" / f"{stem}.md").read_text()
    assert "**Most fragile: 'Biometrika' over 'JRSS-B'" in markdown and "(plot.png)" in markdown
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_unwritable_targets_are_refused_before_any_work(capsys, tmp_path):
    occupied = table(tmp_path, "", "occupied")
    assert "it is a file" in refused(capsys, "audit", EXAMPLE, "--out", occupied)
    assert "no such folder" in refused(
        capsys, "audit", EXAMPLE, "--plot", str(tmp_path / "no" / "x.png")
    )
    err = refused(capsys, "audit", EXAMPLE, "--plot", str(tmp_path / "x.txt"))
    assert "--plot: expected a name ending in .png" in err
    assert [path.name for path in tmp_path.iterdir()] == ["occupied"]


def test_no_cell_is_cut_off_in_a_narrow_window(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = run_text(capsys, "audit", JOURNALS)
    for said in ("1 vote turned\n", "44%\n", "rests on ", "730 of 763", "Statist"):
        assert said in out, out


@pytest.mark.parametrize("width", ["80", "160"])
def test_lines_fit_the_window(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    for arguments in (("audit", JOURNALS), ("fit", BASEBALL), ("sensitivity", "--scores", "2,1")):
        out = run_text(capsys, *arguments)
        assert max(map(len, out.splitlines())) <= int(width)


# Bad input, row by row

HEADER = "item_a,item_b,winner\n"
BAD_TABLES = {
    "unknown label": (HEADER + "x,y,a\nx,y,bee\n", ("line 3", "bee", "'a'")),
    "label of another layout": (HEADER + "x,y,a\nx,y,1\n", ("line 3", "'1'")),
    "missing outcome": (HEADER + "x,y,a\nx,y,\n", ("line 3", "winner")),
    "outcome NaN": (HEADER + "x,y,a\nx,y,NaN\n", ("line 3",)),
    "missing name": (HEADER + "x,y,a\n,y,a\n", ("line 3", "item_a")),
    "itself": (HEADER + "x,y,a\ny,y,a\n", ("line 3", "'y'")),
    "negative weight": ("winner,loser,weight\nx,y,1\ny,x,-2\n", ("line 3", "weight", "-2")),
    "weight NaN": ("winner,loser,weight\nx,y,1\ny,x,nan\n", ("line 3", "weight")),
    "score that is no number": ("item_a,item_b,score_a,score_b\nx,y,1,two\n", ("line 2", "two")),
    "no such columns": ("who,whom\nx,y\n", ("'who'", "--item-a")),
    "islands": ("winner,loser\na,b\nb,a\np,q\nq,p\n", ("2 islands", "--component")),
    "only wins": ("winner,loser\na,b\nb,a\nbest,a\n", ("Never lost to another item: 'best'",)),
    "only loses": ("winner,loser\na,b\nb,a\na,worst\n", ("Never beat another item: 'worst'",)),
    "ties": (HEADER + "x,y,a\nx,y,b\nx,y,tie\n", ("--ties half",)),
    "empty": ("", ("empty",)),
    "header only": (HEADER, ("no ",)),
    "matrix with a negative count": (",x,y\nx,,-1\ny,2,\n", ("-1",)),
}


@pytest.mark.parametrize("command", ["fit", "audit"])
@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_end_in_one_message(case, command, capsys, tmp_path):
    text, said = BAD_TABLES[case]
    target = tmp_path / "out.json"
    err = refused(capsys, command, table(tmp_path, text), "--json", "--out", str(target))
    assert all(part in err for part in said), err
    assert not target.exists()


def test_files_that_are_not_what_their_name_says(capsys, tmp_path):
    png = tmp_path / "picture.csv"
    png.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert "PNG" in refused(capsys, "fit", str(png))
    packed = tmp_path / "votes.csv"
    packed.write_bytes(gzip.compress(b"winner,loser\nx,y\n"))
    assert "gzip" in refused(capsys, "fit", str(packed))
    assert "no such file" in refused(capsys, "fit", str(tmp_path / "none.csv"))
    assert "directory" in refused(capsys, "fit", str(tmp_path))
    parquet = table(tmp_path, "winner,loser\nx,y\n", "votes.parquet")
    assert "Parquet" in refused(capsys, "fit", parquet)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ties", "haf"], "did you mean 'half'?"),
        (["--ridge", "-1"], "--ridge"),
        (["--ridge", "nan"], "--ridge"),
        (["--max-steps", "0"], "--max-steps"),
        (["--link", "cloglog"], "Assumption 4"),
        (["--link", "cauchit"], "concave"),
        (["--format", "cvs"], "did you mean 'csv'?"),
    ],
)
def test_bad_options_end_in_one_message(options, said, capsys):
    assert said in refused(capsys, "fit", BASEBALL, *options)


# The demo


def test_demo_tells_a_story_and_leaves_its_results(capsys, tmp_path):
    folder = tmp_path / "new" / "demo"
    out = run_text(capsys, "demo", "--out", str(folder))
    assert out.startswith("One vote in 100 changes its mind")
    assert "67% to 50%" in " ".join(out.split())
    assert str(folder.resolve()) in out.replace("\n", "")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["before-after.png", "demo.json", "demo.md", "journals.html", "plane.png"]
    content = json.loads((folder / "demo.json").read_text())
    assert set(content["data_sets"]) == {
        "example1", "journals", "journals_path", "baseball", "baseball_path",
    }  # fmt: skip
    for change in content["before_after"]["journals"]:
        assert change["before"] < 1
    assert max(change["after"] for change in content["before_after"]["journals"]) > 5
    markdown = (folder / "demo.md").read_text()
    assert markdown.startswith("# One vote in 100") and "Agresti" in markdown


# Real data


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("file", "options", "items"),
    [
        ("llmfao/crowd-comparisons.csv.gz", ("--ties", "half"), 59),
        ("nfl_538/nfl_games.csv.gz", ("--ties", "half", "--component", "largest"), 92),
    ],
)
def test_real_data_are_audited(file, options, items, capsys, shared_data):
    content = run_json(capsys, "audit", str(shared_data / file), *options)
    assert content["audit"]["regime"]["num_items"] == items
    assert content["fit"]["status"] == "converged"
    assert len(content["one_vote_turned"]) == 10
