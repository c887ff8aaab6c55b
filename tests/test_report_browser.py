"""The HTML page in headless Chromium: it loads offline, sorts, tells, fits a phone, and prints.

Needs the Python package playwright (its own browsers are not used) and a Chromium on the path.
"""

from __future__ import annotations

import shutil

import pytest

from jaxpref.audit import audit
from jaxpref.data import Comparisons, Rankings, load_bundled
from jaxpref.fit import fit_pairwise, fit_rankings
from jaxpref.report.html import write_html
from jaxpref.report.one_vote import turn_votes

pytestmark = pytest.mark.browser

LONG = "a_name_without_a_single_space_that_goes_on_and_on_for_longer_than_any_phone_is_wide" * 2
HOSTILE = ("<img src=x onerror=document.title='hit'>", LONG, "نموذج", "q\"'`&", "plain")


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on the path")
    with api.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def audited(data: Comparisons, path):
    fit = fit_pairwise(data)
    report = audit(fit, comparisons=data, links=True)
    votes = turn_votes(fit, report.top)
    return write_html(path, fit, report, title="An audit", votes=votes)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    wins = [(a, b) for a, b in zip(HOSTILE, HOSTILE[1:], strict=False) for _ in range(9)]
    wins += [(b, a) for a, b in zip(HOSTILE, HOSTILE[1:], strict=False)]
    winners, losers = zip(*wins, strict=True)
    return {
        "journals": audited(load_bundled("journals_path"), folder / "journals.html"),
        "hostile": audited(Comparisons.from_arrays(winners, losers), folder / "hostile.html"),
        "rankings": audited_rankings(folder / "rankings.html"),
    }


def audited_rankings(path):
    lists = [[HOSTILE[k], HOSTILE[k - 1], HOSTILE[k - 2]] for k in range(5)] * 2
    fit = fit_rankings(Rankings.from_lists([*lists, list(HOSTILE)]))
    return write_html(path, fit, audit(fit), title="An audit")


class Opened:
    """A page, and what went wrong in it."""

    def __init__(self, browser, path, **options) -> None:
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.context.close()


def column(page, table: int, place: int) -> list[str]:
    rows = page.locator("table").nth(table).locator("tbody tr")
    return [rows.nth(n).locator("th, td").nth(place).inner_text() for n in range(rows.count())]


@pytest.mark.parametrize("name", ["journals", "hostile", "rankings"])
def test_it_loads_offline_without_a_word_on_the_console(chromium, files, name):
    with Opened(chromium, files[name]) as opened:
        assert opened.wrong == []
        assert opened.requests == [files[name].as_uri()]
        assert opened.page.title() == "An audit – jaxpref audit"
        assert opened.page.locator("h2").count() >= (7 if name == "rankings" else 9)


def test_a_click_on_a_header_sorts_and_says_so(chromium, files):
    with Opened(chromium, files["journals"]) as opened:
        page = opened.page
        board = page.locator("#leaderboard table")
        header = board.locator("thead th").nth(2)
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == "descending"
        names = board.locator("tbody th").all_inner_texts()
        assert names == ["JRSS-B", "Biometrika", "JASA", "Comm Statist"]
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == "ascending"
        assert board.locator("tbody th").all_inner_texts() == names[::-1]
        assert board.locator("thead th").nth(1).get_attribute("aria-sort") == "none"
        assert "ascending" in page.locator("#said").inner_text()


def test_sorting_by_keyboard(chromium, files):
    with Opened(chromium, files["journals"]) as opened:
        page = opened.page
        page.locator("#leaderboard thead th").nth(0).locator("button").focus()
        page.keyboard.press("Enter")
        names = page.locator("#leaderboard tbody th").all_inner_texts()
        assert names == sorted(names)
        page.keyboard.press("Space")
        assert page.locator("#leaderboard tbody th").all_inner_texts() == names[::-1]


def test_the_first_stop_of_the_keyboard_skips_to_the_findings(chromium, files):
    with Opened(chromium, files["journals"]) as opened:
        page = opened.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.locator(".skip").bounding_box()["x"] >= 0
        page.keyboard.press("Enter")
        assert page.evaluate("location.hash") == "#summary"


def test_a_point_tells_what_it_is_to_mouse_and_keyboard(chromium, files):
    with Opened(chromium, files["journals"]) as opened:
        page, tip = opened.page, opened.page.locator("#tip")
        assert not tip.is_visible()
        points = page.locator("#plane .points circle")
        points.nth(0).hover()
        assert tip.is_visible() and "never compared" in tip.inner_text()
        page.mouse.move(1, 1)
        assert not tip.is_visible()
        page.locator("#plane .scroll, #plane figure").first.scroll_into_view_if_needed()
        page.keyboard.press("Tab")  # so that what has focus shows it
        points.nth(0).focus()
        first = tip.inner_text()
        page.keyboard.press("ArrowRight")
        assert tip.is_visible() and tip.inner_text() != first
        page.keyboard.press("Escape")
        assert not tip.is_visible()


def test_every_figure_takes_one_stop_of_the_keyboard_for_each_kind_of_shape(chromium, files):
    with Opened(chromium, files["journals"]) as opened:
        stops = opened.page.eval_on_selector_all(
            "svg .points", "all => all.map(g => g.querySelectorAll('[tabindex=\"0\"]').length)"
        )
        assert len(stops) >= 3 and set(stops) == {1}


def test_a_certificate_opens(chromium, files):
    with Opened(chromium, files["journals"]) as opened:
        details = opened.page.locator("#flips details").first
        assert not details.locator(".certificate").is_visible()
        details.locator("summary").click()
        assert "passes" in details.locator(".certificate").inner_text()


@pytest.mark.parametrize("name", ["journals", "hostile", "rankings"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_never_scrolls_sideways(chromium, files, name, scheme):
    size = {"width": 360, "height": 740}
    with Opened(chromium, files[name], viewport=size, color_scheme=scheme) as opened:
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_names_are_never_run(chromium, files):
    with Opened(chromium, files["hostile"]) as opened:
        assert opened.page.title() == "An audit – jaxpref audit"
        assert opened.page.locator("img").count() == 0
        assert HOSTILE[0] in opened.page.locator("#leaderboard tbody").inner_text()


def test_it_prints(chromium, files):
    with Opened(chromium, files["journals"]) as opened:
        opened.page.emulate_media(media="print")
        assert not opened.page.locator("nav").is_visible()
        printed = opened.page.pdf(format="A4", print_background=True)
        assert printed.startswith(b"%PDF") and len(printed) > 20_000


def test_it_can_be_read_without_scripts(chromium, files):
    with Opened(chromium, files["journals"], java_script_enabled=False) as opened:
        assert opened.page.locator("#leaderboard tbody tr").count() == 4
        assert opened.page.locator("#plane .points circle").first.is_visible()


def test_a_page_of_rankings_sorts_and_opens(chromium, files):
    with Opened(chromium, files["rankings"]) as opened:
        page = opened.page
        rows = page.locator("#fragile table").first.locator("tbody th")
        before = rows.all_inner_texts()
        page.locator("#fragile table").first.locator("thead th").nth(1).locator("button").click()
        assert sorted(rows.all_inner_texts()) == sorted(before)
        assert "Sorted by Chance" in page.locator("#said").inner_text()
        details = page.locator("#flips details").first
        details.locator("summary").click()
        assert "drop 1 of 1" in details.locator(".certificate").inner_text()
