"""Numbers in words, tables, files that are whole or absent, and figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxpref._checks import InputError
from jaxpref.audit import audit
from jaxpref.data import Comparisons, load_bundled
from jaxpref.fit import fit_pairwise
from jaxpref.links import by_name
from jaxpref.report import Column, Table, figures, files, numbers, one_vote, tables, words
from jaxpref.report.markdown import audit_markdown


def audited(name: str, **options):
    fit = fit_pairwise(load_bundled(name))
    return fit, audit(fit, **options)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.5, "50%"),
        (0.0004, "<0.1%"),
        (1 - 1e-12, ">99.9%"),
        (0.0333, "3.3%"),
        (0.99, "99%"),
    ],
)
def test_percent_never_claims_certainty(p, text):
    assert numbers.percent(p) == text


def test_json_holds_only_what_json_can():
    content = {
        "nan": math.nan,
        "inf": np.float64(np.inf),
        "array": np.array([1.0, np.nan]),
        "jax": jnp.asarray(2.5),
        "count": np.int64(3),
        "path": Path("a"),
        "name": "Zoë [bold]",
    }
    read = json.loads(files.to_json(content))
    assert read == {
        "nan": None,
        "inf": None,
        "array": [1.0, None],
        "jax": 2.5,
        "count": 3,
        "path": "a",
        "name": "Zoë [bold]",
    }


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = files.write_text(tmp_path / "kept.txt", "old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="kept.txt: no space left on device"):
        files.write_whole(path, fail)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]


def test_a_write_that_breaks_otherwise_leaves_nothing(tmp_path):
    def fail(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_whole(tmp_path / "new.txt", fail)
    assert list(tmp_path.iterdir()) == []


def test_markdown_cells_cannot_break_out_of_the_table():
    text = Table("", (Column("name"),), (("a|b\n<i>*x*",),)).to_markdown()
    assert text.splitlines()[-1] == r"| a\|b &lt;i>\*x\* |"


def test_a_terminal_table_shows_markup_as_text():
    from rich.console import Console

    console = Console(width=60, color_system=None)
    with console.capture() as captured:
        console.print(Table("", (Column("name"),), (("[bold]x[/bold] :smile:",),)).to_rich())
    assert "[bold]x[/bold] :smile:" in captured.get()


def test_elo_gaps_are_four_hundred_for_ten_to_one():
    assert tables.elo(math.log(10)) - tables.elo(0.0) == pytest.approx(400)


def test_wins_are_counted_back_whole():
    _, report = audited("journals_path")
    assert {tables.wins_of(row) for row in report.top} == {730, 68}


def test_one_vote_agrees_with_the_derivative_where_votes_are_many():
    fit, report = audited("journals_path")
    row = report.top[0]
    vote = one_vote.turn_one_vote(fit, row)
    first_order = -row.derivative / row.edge.comparisons
    assert vote.after - vote.before == pytest.approx(first_order, rel=0.05)
    assert (vote.winner, vote.loser) == ("Biometrika", "Comm Statist")


def test_a_vote_that_ties_an_item_to_the_rest_leaves_no_fit():
    counts = [[0, 1, 0], [0.5, 0, 5], [0, 4, 0]]
    fit = fit_pairwise(Comparisons.from_counts(counts, items=("x", "y", "z")))
    report = audit(fit)
    votes = one_vote.turn_votes(fit, report.top)
    assert votes[0].winner == "x" and math.isnan(votes[0].after)
    assert "no fit is left" in words.headline(report, votes[0])
    table = tables.fragile_predictions(report, votes)
    assert table.rows[0][-1] == "no fit" and "no fit:" in table.note
    ridged = fit_pairwise(Comparisons.from_counts(counts, items=("x", "y", "z")), ridge=0.1)
    assert math.isfinite(one_vote.turn_one_vote(ridged, audit(ridged).top[0]).after)


def test_one_refit_serves_all_rows_on_the_same_pair(monkeypatch):
    fit, report = audited("journals_path")
    calls = []

    def counting(*arguments, **options):
        calls.append(arguments)
        return fit_pairwise(*arguments, **options)

    monkeypatch.setattr(one_vote, "fit_pairwise", counting)
    assert len(one_vote.turn_votes(fit, report.top)) == 3
    assert len(calls) == 2
    monkeypatch.setattr(one_vote, "LARGEST", 3)
    assert one_vote.turn_votes(fit, report.top) == []


def test_headlines_fit_the_finding():
    _, fragile = audited("example1")
    assert words.headline(fragile).startswith("Most fragile: 'i' over 'j'")
    _, complete = audited("baseball")
    assert words.headline(complete).startswith("Every pair was compared")
    assert words.advice(complete) == ""
    even = fit_pairwise(Comparisons.from_counts([[0, 5, 0], [4, 0, 9], [0, 2, 0]]))
    calm = audit(even)
    assert calm.top[0].sensitivity < 1
    assert words.headline(calm).startswith("No unseen prediction moves faster")
    assert words.advice(calm) == ""


def test_markdown_has_every_table_of_the_audit():
    fit, report = audited("journals_path")
    text = audit_markdown(report, title="T", votes=one_vote.turn_votes(fit, report.top))
    for said in (
        "# T",
        "Most fragile predictions",
        "1 vote turned",
        "Lemma 1",
        "M-sensitive regions",
    ):
        assert said in text
    assert "![" not in text


# Figures


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_figures_are_written_in_each_format(suffix, tmp_path):
    fit, report = audited("example1")
    figure = figures.audit_figure(fit, report, title="$x_1$ [bold] 李")
    path = figures.save_figure(figure, tmp_path / f"figure{suffix}")
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_complete_design_has_a_figure_too(tmp_path):
    fit, report = audited("journals")
    path = figures.save_figure(figures.audit_figure(fit, report, title="all"), tmp_path / "a.png")
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize("link", ["logistic", "probit", "laplace", "cauchit", "student_t:4"])
def test_the_plane_is_drawn_for_every_link(link, tmp_path):
    points = figures.Points(np.array([1.0, 900.0]), np.array([-1.0, 3.0]), "two", ("$a$", "b"))
    figure = figures.plane_figure([points], link=by_name(link), thresholds=(2, 5))
    assert figures.save_figure(figure, tmp_path / "plane.png").stat().st_size > 10_000


def test_points_put_the_more_sensitive_input_first():
    fit, report = audited("baseball_path")
    points = figures.triple_points(fit, report, "")
    assert len(points.margin_moving) == 5  # pairs two apart on a path of seven
    assert np.all(np.abs(points.margin_moving) >= np.abs(points.margin_fixed))


def test_a_missing_matplotlib_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setattr(figures, "can_draw", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'jaxpref\[report\]'"):
        figures.check_figure("--plot", Path("x.png"))
