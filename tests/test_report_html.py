"""The HTML page of an audit: escaped, self-contained, whole or absent, and honest near 0 and 1."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxpref.__main__ import main
from jaxpref._checks import InputError
from jaxpref.audit import audit
from jaxpref.data import Comparisons, Rankings, bundled_path, load_bundled
from jaxpref.fit import fit_pairwise, fit_rankings
from jaxpref.links import by_name
from jaxpref.report.html import audit_page, elements, layout, plane, values, write_html
from jaxpref.report.one_vote import turn_votes

HOSTILE = (
    "<script>alert(1)</script>",
    "a \"quoted\" & 'single' name",
    "two\nlines\tand\x07bell",
    "نموذج اللغة",
    "模型" * 60,
    "</style><img src=x onerror=alert(2)>",
    "back\\slash 'x'",
)
VOID = {"meta", "br", "hr", "input", "link", "img"}


class Reader(HTMLParser):
    """Collects elements and text, and checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def journals():
    data = load_bundled("journals_path")
    fit = fit_pairwise(data)
    return fit, audit(fit, comparisons=data, links=True)


@pytest.fixture(scope="module")
def page(journals):
    fit, report = journals
    votes = turn_votes(fit, report.top)
    return audit_page(fit, report, title="journals", votes=votes, facts={"Data": "journals.csv"})


@pytest.fixture(scope="module")
def hostile():
    names = HOSTILE
    n = len(names)
    counts = np.zeros((n, n))
    for k in range(n - 1):
        counts[k, k + 1], counts[k + 1, k] = (9.0, 2.0) if k % 2 else (3.0, 8.0)
    fit = fit_pairwise(Comparisons.from_counts(counts, items=names))
    return fit, audit(fit)


@pytest.fixture(scope="module")
def ranked():
    lists = [[HOSTILE[k], HOSTILE[k - 1], HOSTILE[k - 2]] for k in (0, 1, 2, 3, 4, 5, 6)] * 2
    fit = fit_rankings(Rankings.from_lists([*lists, list(HOSTILE)], rater=["<r>", "s", "t"] * 5))
    return fit, audit(fit)


# Laws of the page ---------------------------------------------------------------------------


def test_the_page_is_one_file_that_asks_for_nothing(page):
    reader = read(page)
    wanted = [a for _, a in reader.elements if "src" in a or "srcset" in a or "data" in a]
    links = [a["href"] for a in reader.all("a")]
    assert wanted == [] and reader.all("link") == [] and reader.all("img") == []
    assert all(str(link).startswith("#") for link in links)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", page)
    policy = next(a["content"] for a in reader.all("meta") if "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")


def test_every_link_has_its_anchor_and_no_anchor_is_named_twice(page):
    reader = read(page)
    names = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(names) == len(set(names))
    assert {str(a["href"])[1:] for a in reader.all("a")} <= set(names)
    labelled = [a["aria-labelledby"] for _, a in reader.elements if "aria-labelledby" in a]
    assert set(labelled) <= set(names)


def test_the_page_opens_with_the_finding_and_ends_with_the_method(page):
    text = " ".join(read(page).text)
    order = [text.index(words) for words in ("In short", "How few", "Leaderboard  ", "Method")[:2]]
    assert order == sorted(order)
    assert "Most fragile" in text and "never compared" in text
    assert "journals.csv" in text and "converged after" in text


def test_every_header_can_be_sorted_by_and_says_how_it_is(page):
    reader = read(page)
    headers = [a for a in reader.all("th") if a.get("scope") == "col"]
    assert len(headers) > 30
    assert {a["aria-sort"] for a in headers} <= {"none", "ascending", "descending"}
    assert len(re.findall(r'<th scope="col"[^>]*><button type="button"', page)) == len(headers)


def test_the_same_audit_gives_the_same_page(journals):
    fit, report = journals
    assert audit_page(fit, report, title="x") == audit_page(fit, report, title="x")


def test_parts_that_an_audit_lacks_are_left_out(journals):
    fit, report = journals
    bare = replace(
        report, fragile=(), leverage=(), cut=None, groups=(), flips=(), dominance=None,
        collect=(), multiplicity=None, links=None, summary=(),
    )  # fmt: skip
    anchors = {a["id"] for _, a in read(audit_page(fit, bare, title="x")).elements if "id" in a}
    assert {"summary", "leaderboard", "fragile", "plane", "graph", "glossary", "method"} <= anchors
    assert not {"flips", "collect", "groups", "dominance", "multiplicity", "links"} & anchors


def test_a_complete_design_has_no_plane():
    fit = fit_pairwise(load_bundled("journals"))
    report = audit(fit, flips=False, groups=False, collect=False, multiplicity=False)
    assert 'id="plane"' not in audit_page(fit, report, title="x")


# Names --------------------------------------------------------------------------------------


def test_names_are_text_whatever_they_hold(hostile):
    fit, report = hostile
    page = audit_page(fit, report, title=HOSTILE[0], facts={HOSTILE[0]: HOSTILE[5]})
    reader = read(page)
    assert len(reader.all("script")) == 1 and reader.all("img") == []
    assert not any(key.startswith("on") for _, attributes in reader.elements for key in attributes)
    text = "".join(reader.text)
    assert HOSTILE[0] in text and HOSTILE[1] in text and HOSTILE[3] in text
    assert HOSTILE[5] in text and HOSTILE[6] in text
    assert "two lines and�bell" in text and "\x07" not in page


def test_long_names_are_cut_in_figures_only(hostile):
    fit, report = hostile
    page = audit_page(fit, report, title="x")
    svg = "".join(re.findall(r"<text.*?</text>", page))
    assert HOSTILE[4] in page and HOSTILE[4] not in svg


def test_an_attribute_cannot_be_broken_out_of():
    made = elements.tag("i", title='"><b>', data_x="'")
    assert made == '<i title="&quot;&gt;&lt;b&gt;" data-x="&#x27;"></i>'


# Numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.5, "50.0%"),
        (0.9997, "99.97%"),
        (1 - 3e-9, "1 − 3e-9"),
        (3e-9, "3e-9"),
        (1.0, "1 − less than 1e-16"),
        (0.0, "less than 1e-300"),
        (math.nan, "–"),
    ],
)
def test_no_chance_is_rounded_to_certainty(p, text):
    assert values.chance(p) == text


def test_a_near_certain_prediction_is_shown_as_such():
    counts = np.zeros((4, 4))
    for k in range(3):
        counts[k, k + 1], counts[k + 1, k] = 9999.0, 1.0
    fit = fit_pairwise(Comparisons.from_counts(counts, items=("a", "b", "c", "d")))
    report = audit(fit, flips=False, groups=False, collect=False, multiplicity=False)
    assert "1 − 1e-12" in audit_page(fit, report, title="x")


# Figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["logistic", "probit"])
def test_points_stand_where_their_preferences_are(link):
    fit = fit_pairwise(load_bundled("example1"), link=by_name(link))
    report = audit(fit, flips=False, groups=False, collect=False, multiplicity=False)
    places, others = plane.find_places(fit, report)
    assert len(places) == 1 and others.shape == (0, 2)
    assert places[0].x == pytest.approx(math.log(99), rel=1e-6)
    assert places[0].y == pytest.approx(math.log(2 / 98), rel=1e-6)


def test_a_region_outline_runs_along_its_boundary():
    u = np.linspace(-plane.LIMIT, plane.LIMIT, 81)
    circle = 4.0 - np.hypot(u[None, :], u[:, None])
    path = plane.region_path(u, circle)
    corners = [tuple(map(float, point.split())) for point in re.findall(r"[ML]([\d. ]+)", path)]
    scale = plane.SIZE / (2 * plane.LIMIT)
    middle = (plane.LEFT + plane.SIZE / 2, plane.TOP + plane.SIZE / 2)
    radii = [math.dist(corner, middle) / scale for corner in corners]
    step = u[1] - u[0]
    assert len(corners) > 40 and path.count("M") == 1
    assert max(radii) < 4.0 + 0.02 and min(radii) > 4.0 - step  # interpolated along rows only


def test_items_of_a_chain_stand_in_a_row_and_the_best_at_the_left():
    size = 7
    chain = np.eye(size, k=1, dtype=bool) | np.eye(size, k=-1, dtype=bool)
    places = layout.place_items(
        chain, -np.arange(size, dtype=float), width=700, height=400, apart=20
    )
    assert np.all(np.diff(places[:, 0]) > 0)


def test_items_keep_apart_and_inside():
    generator = np.random.default_rng(0)
    upper = np.triu(generator.random((60, 60)) < 0.1, 1)
    places = layout.place_items(
        upper | upper.T, generator.normal(size=60), width=700, height=400, apart=25
    )
    gaps = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(60)
    assert np.all((places >= 0) & (places <= [700, 400]))
    assert gaps.min() > 12


# Files and the command ----------------------------------------------------------------------


def test_a_page_that_cannot_be_written_leaves_nothing(journals, tmp_path):
    fit, report = journals
    with pytest.raises(InputError, match="no such folder"):
        write_html(tmp_path / "none" / "x.html", fit, report, title="x")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_page_and_the_markdown(tmp_path, capsys):
    page, summary = tmp_path / "a.html", tmp_path / "a.md"
    file = str(bundled_path("example1"))
    assert main(["audit", file, "--report", str(page), "--markdown", str(summary)]) == 0
    out = capsys.readouterr().out
    assert "a.html" in out and "a.md" in out
    assert "Audit of example1.csv" in "".join(read(page.read_text("utf-8")).text)
    assert "How little would flip it" in summary.read_text("utf-8")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.html", "a.md"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--report", "out.txt"], "--report: expected a name ending in .html or .htm"),
        (["--report", "no-such-folder/out.html"], "no such folder"),
        (["--markdown", "out.html"], "--markdown: expected a name ending in .md"),
        (["--markdown", "a.md", "--out", "b.md"], "expected one of the two"),
    ],
)
def test_a_bad_path_is_two_before_any_work(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["audit", str(bundled_path("example1")), *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_rankings_have_a_page_of_their_own(ranked):
    page = audit_page(*ranked, title="rankings", facts={"Data": "lists"})
    reader = read(page)
    text = " ".join(" ".join(reader.text).split())
    for said in (
        "How few rankings would flip it",
        "The rankings that move most",
        "How far nearly as good models disagree",
        "Left out: each rater",
        "Plackett-Luce, no prior",
        "Most fragile predictions",
    ):
        assert said in text
    names = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(names) == len(set(names))
    assert {str(a["href"])[1:] for a in reader.all("a")} <= set(names)
    assert "alert(1)</script>" in text and reader.all("img") == []  # a name, shown and not run
    assert len(reader.all("script")) == 1 and not re.search(r"https?://", page)


def test_a_ranking_audit_of_nothing_but_the_fit_has_a_page(ranked):
    fit, _ = ranked
    bare = audit(fit, top=0, flips=False, groups=False, multiplicity=False)
    text = " ".join(read(audit_page(fit, bare, title="bare")).text)
    assert "Nothing was asked for but the fit." in text and "Leaderboard" in text


def test_triples_beyond_the_axes_are_marked_on_the_edge():
    chain = [(99999, 1), (3, 99999), (5, 4), (4, 5), (2, 3)]
    wins = np.zeros((6, 6))
    for n, (up, down) in enumerate(chain):
        wins[n, n + 1], wins[n + 1, n] = up, down
    fit = fit_pairwise(Comparisons.from_counts(wins, items=tuple("ikjlmn")))
    drawn = str(plane.plane_figure(fit, audit(fit)))
    places, _ = plane.find_places(fit, audit(fit))
    far = [place for place in places if max(abs(place.x), abs(place.y)) > plane.LIMIT]
    assert 0 < len(far) < len(places)
    reader = read(drawn)
    marks = [a for a in reader.all("path") if a.get("class") == "point beyond"]
    assert len(marks) == len(far) + 1  # and one in the legend
    edge = plane.LEFT + plane.SIZE
    assert any(str(a["d"]).startswith(f"M{edge:.1f} ") for a in marks)  # pointing right
    assert "a triple beyond the axes" in "".join(reader.text)
