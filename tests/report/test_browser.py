"""The pages as Chromium shows them: at the width of a desk and of a phone, light and dark, by keyboard, without script.

Skipped where no Chromium is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gan_kd.report import page
from gan_kd.report.report import main
from tests.report.browser import Browser, find

# Boxes of text that a reader sees: what they hold must fit, and no two of them may share a place.
BOXES = "h1, h2, p, summary, pre, figcaption, .tiles div, th, td, nav li, .links a"
FAULTS = f"""(() => {{
  const seen = [...document.querySelectorAll("{BOXES}")].filter((box) => box.getClientRects().length);
  const faults = [];
  for (const box of seen)
    if (box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).display !== "inline")
      faults.push("cut: " + box.textContent.slice(0, 60));
  for (const one of document.body.querySelectorAll("*"))
    if (!one.closest(".wide table, .wide > img, .skip") && one.getBoundingClientRect().right > innerWidth + 1)
      faults.push("wider than the page: " + one.outerHTML.slice(0, 60));
  const places = seen.map((box) => [box, box.getBoundingClientRect()]);
  places.forEach(([one, a], k) => places.slice(k + 1).forEach(([other, b]) => {{
    const apart = a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
    if (!apart && !one.contains(other) && !other.contains(one))
      faults.push("overlap: " + one.textContent.slice(0, 40) + " | " + other.textContent.slice(0, 40));
  }}));
  return faults;
}})()"""
#: Least ratio of luminances (WCAG 2.1) between text and the page behind it.
CONTRAST = """(() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).map(Number);
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [red, green, blue] = parts.map((v) => linear(v / 255));
    return .2126 * red + .7152 * green + .0722 * blue;
  };
  const behind = (one) => {
    const colour = getComputedStyle(one).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? behind(one.parentElement) : colour;
  };
  const texts = [...document.querySelectorAll("h1, h2, p, a, th, td, th button, span, b, pre, summary, figcaption")];
  return Math.min(...texts.map((one) => {
    const pair = [light(getComputedStyle(one).color), light(behind(one))];
    return (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
  }));
})()"""
FOCUSED = "(() => { const one = document.activeElement; return one.textContent || one.firstChild.alt; })()"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find()
    if program is None:
        pytest.skip("no Chromium or Chrome on this machine to look at the pages with")
    made = Browser(program, tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of a run with all that a page can hold, of two seeds, and the published tables."""
    from tests.report.conftest import write_run

    root = tmp_path_factory.mktemp("pages")
    write_run(root, networks=("teacher", "baseline", "control", "distilled"))
    write_run(root, seed=7)
    published = {"table": 1, "row": "MobileNetV1", "column": "ResNet50"}
    for recipe in root.glob("runs/**/recipe.yaml"):
        recipe.write_text(recipe.read_text().replace("published: null", f"published: {published}"))
    made = main(
        [root / "runs"], root / "results", not_run="a reason that takes about as many words as a real one would"
    )
    return dict(zip(("other", "run", "seeds", "tables"), made))


@pytest.mark.parametrize("name", ["run", "seeds", "tables"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_or_overlaps(browser: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    for script in (True, False):
        browser.open(pages[name], width, script=script)
        assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0
        browser.run('document.querySelectorAll("details").forEach((one) => { one.open = true; })')
        assert browser.run(FAULTS) == []
    assert browser.errors == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_the_page(browser: Browser, pages: dict[str, Path], dark: bool) -> None:
    browser.open(pages["run"], 1280, dark)
    assert browser.run("matchMedia('(prefers-color-scheme: dark)').matches") == dark
    assert browser.run(CONTRAST) >= 4.5  # level AA


def test_a_dark_page_swaps_the_plots_white_and_leaves_photographs(browser: Browser, pages: dict[str, Path]) -> None:
    def filtered(picture: str) -> bool:
        return browser.run(f"getComputedStyle(document.querySelector('{picture}')).filter") != "none"

    for dark in (False, True):
        browser.open(pages["run"], 1280, dark)
        assert filtered("img[alt^=mAP]") == dark and not filtered("img[alt^=Validation]")


def test_the_page_as_a_screen_reader_has_it(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"], 390)
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3')].map((one) => one.tagName)")
    assert levels[0] == "H1" and set(levels[1:]) == {"H2"}
    assert browser.run("[...document.images].every((one) => one.alt || one.closest('dialog'))")
    landmarks = "['header', 'nav[aria-label]', 'main'].map((one) => document.querySelectorAll(one).length)"
    assert browser.run(landmarks) == [1, 1, 1]
    assert browser.run("[...document.querySelectorAll('nav a')].every((one) => document.querySelector(one.hash))")
    # What scrolls can be reached by keyboard and has a name; what does not scroll is no stop on the way.
    wrong = "(one) => (one.scrollWidth > one.clientWidth) !== (one.tabIndex === 0 && !!one.ariaLabelledByElements)"
    assert browser.run(f"[...document.querySelectorAll('.wide')].filter({wrong}).length") == 0
    assert browser.run("document.querySelectorAll('.wide[role=region]').length") > 0


def test_sorting_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    rows = [
        ("b", "9.5 ± 0.1", "2 M"), ("a", "–", "900 k"), ("c", "−0.2\n[−3, 2]", "1 G"), ("d", "+10.0", "–"),
        ("sum", "1", "3"),
    ]  # fmt: skip
    blocks: list[page.Block] = [page.Section("One"), page.Table(("name", "points", "size"), rows, "lrr", feet=1)]
    browser.open(page.write(tmp_path, "Sorting", blocks), 1280)

    def column(number: int) -> list[Any]:
        cells = f"[...document.querySelectorAll('tbody tr, tfoot tr')].map((row) => row.cells[{number}].textContent)"
        return browser.run(cells)

    def orders() -> list[str | None]:
        return browser.run("[...document.querySelectorAll('th')].map((one) => one.getAttribute('aria-sort'))")

    for _ in range(4):  # past the link over the sections, theirs, and the first column
        browser.press("Tab")
    assert browser.run(FOCUSED) == "points" and orders() == [None] * 3
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter")
    assert column(1) == ["+10.0", "9.5 ± 0.1", "−0.2[−3, 2]", "–", "1"] and orders() == [None, "descending", None]
    browser.press("Enter")
    assert column(1) == ["−0.2[−3, 2]", "9.5 ± 0.1", "+10.0", "–", "1"] and orders() == [None, "ascending", None]
    browser.press("Tab")
    browser.press("Enter")
    assert column(2) == ["1 G", "2 M", "900 k", "–", "3"] and orders() == [None, None, "descending"]
    browser.run("document.querySelector('th button').click()")
    assert column(0) == ["a", "b", "c", "d", "sum"] and orders() == ["ascending", None, None]


def test_enlarging_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"], 390)
    browser.run("document.querySelector('.zoom').focus()")
    alt = browser.run(FOCUSED)
    assert alt.startswith("Validation images") and not browser.run("document.querySelector('dialog').open")
    browser.press("Enter")
    assert browser.run("document.querySelector('dialog').open") and browser.run(FOCUSED) == "Close"
    shown = browser.run(
        "(({naturalWidth, width, alt}) => [naturalWidth, width, alt])(document.querySelector('dialog img'))"
    )
    assert shown[0] > 1000 and shown[1] > 1000 and shown[2] == alt
    browser.press("Escape")
    assert not browser.run("document.querySelector('dialog').open") and browser.run(FOCUSED) == alt
    browser.press("Enter")
    browser.press("Enter")  # on Close
    assert not browser.run("document.querySelector('dialog').open") and browser.run(FOCUSED) == alt


def test_the_first_stop_skips_to_the_content(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"], 1280)
    browser.press("Tab")
    assert browser.run(FOCUSED) == "Skip to the content"
    assert browser.run("document.activeElement.getBoundingClientRect().top") >= 0  # seen when it has the focus
    browser.press("Enter")
    assert browser.run("document.activeElement.id") == "main"


def test_without_script_all_is_there(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"], 390, script=False)
    hidden = (
        "[...document.querySelectorAll('h2, p, table, img, summary')].filter((one) => !one.getClientRects().length)"
    )
    assert browser.run(f"{hidden}.length") == 0 and browser.run("document.querySelectorAll('button').length") == 0
    wide = "[...document.querySelectorAll('figure .wide')].every((one) => one.scrollWidth > one.clientWidth)"
    assert browser.run(wide)  # pictures that cannot be enlarged are readable as they are, and scroll


def test_a_page_asks_no_network_for_anything(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    """The page's own policy: what an edit might add is not loaded."""
    text = pages["seeds"].read_text()
    added = '<img id="far" src="http://127.0.0.1:9/far.png"><script src="http://127.0.0.1:9/far.js"></script></main>'
    (tmp_path / "edited.html").write_text(text.replace("</main>", added))
    before = len(browser.errors)
    browser.open(tmp_path / "edited.html", 1280)
    browser.run("0")
    refused = browser.errors[before:]
    del browser.errors[before:]
    assert len(refused) == 2 and all("Content Security Policy" in text for text in refused)


def test_no_browser_is_found_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find() is None
