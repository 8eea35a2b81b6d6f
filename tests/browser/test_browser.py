"""The built book in a real browser, opened from its folder as a reader would who has no server.

Every page is opened once (`survey`), everything of interest is noted, and each subtest of
`test_every_page` looks at one kind of fault. ``PHASELAB_BOOK`` names the folder of another book than
``_build/html``, ``PHASELAB_CHROMIUM`` another browser. ``_build/pages.csv`` gets the weight and the time of every page.
Without a book or a browser the tests are skipped, or fail if ``PHASELAB_REQUIRE_BROWSER=1``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
BOOK = Path(os.environ.get("PHASELAB_BOOK") or ROOT / "_build" / "html").resolve()
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
#: axe's rules that colours can break: only these are run again in the dark.
COLOUR_RULES = ["color-contrast", "link-in-text-block"]

# What a closed box hides is opened, and nothing moves, so that what is looked at is what a reader can reach.
OPEN_ALL = """() => {
  const style = document.createElement("style");
  style.textContent = "*, *::before, *::after { transition: none !important; animation: none !important }";
  document.head.append(style);
  document.querySelectorAll("details").forEach(box => { box.open = true });
  document.querySelectorAll(".toggle-hidden").forEach(box => box.classList.remove("toggle-hidden"));
}"""

READ = """() => ({
  ready: performance.getEntriesByType("navigation")[0].loadEventEnd,
  links: [...document.querySelectorAll("a[href]")].map(a => a.href),
  targets: [...document.querySelectorAll("[id], a[name]")].map(e => e.id || e.name),
})"""

# Elements that end beyond the right edge of the window, unless a box around them scrolls or cuts them off.
OVERFLOW = """() => {
  const found = [];
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) found.push(`page is ${width} px wide`);
  for (const element of document.querySelectorAll("article *")) {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= innerWidth + 1) continue;
    let around = element.parentElement;
    while (around && (getComputedStyle(around).overflowX === "visible"
        || around.getBoundingClientRect().right > innerWidth + 1)) around = around.parentElement;
    if (around && around !== document.body && around !== document.documentElement) continue;
    found.push(`${element.tagName} ${element.getAttribute("class")} ends at ${Math.round(box.right)} px`);
  }
  return found.slice(0, 5);
}"""

# Tables that are wider than their column.
WIDE = """() => [...document.querySelectorAll("article table")].filter(table => {
  const box = table.closest(".pst-scrollable-table-container, .output") || table.parentElement;
  return table.scrollWidth > box.clientWidth + 1;
}).map(table => `${table.scrollWidth} px: ${table.innerText.slice(0, 60)}`)"""

# Figures of which a part is out of sight, and boxes that scroll without a cue that they do.
CUT = """() => [
  ...[...document.querySelectorAll("article figure")].filter(f => f.scrollWidth > f.clientWidth + 1)
    .filter(f => !f.querySelector("table")).map(f => `figure ${f.id} is cut off`),
  ...[...document.querySelectorAll(".output, .pst-scrollable-table-container")]
    .filter(b => b.scrollWidth > b.clientWidth + 4 && !b.hasAttribute("data-more"))
    .map(b => `no cue: ${b.innerText.slice(0, 60)}`),
  ...[...document.querySelectorAll("[data-more]")].filter(b => b.scrollWidth <= b.clientWidth + 4)
    .map(b => `a cue, and nothing to scroll: ${b.innerText.slice(0, 60)}`),
]"""

# Pictures, and whether their place is kept for them before they come.
PICTURES = """async () => {
  await Promise.all([...document.images].map(i => i.decode().catch(() => null)));
  const kept = i => /[.]svg/.test(i.src) || i.hasAttribute("height");
  return [...document.images].map(i => ({src: i.src, alt: i.alt, width: i.naturalWidth, kept: kept(i)}));
}"""

#: Bytes that a page may load: with an interactive figure, and without.
HEAVY, LIGHT = 5_000_000, 1_500_000

# Three texts of each look, by all that axe's rules of colour heed: a page of code has thousands of a few dozen looks.
LOOKS = """() => {
  const known = new Map(), looks = new Map();
  const around = element => {
    if (!element) return [1, "nothing"];
    if (!known.has(element)) {
      const own = getComputedStyle(element), [opacity, behind] = around(element.parentElement);
      const colour = own.backgroundColor;
      const seen = own.backgroundImage !== "none" ? `picture ${known.size}` : /, 0[)]$/.test(colour) ? behind
        : colour.startsWith("rgb(") ? colour : `${colour} over ${behind}`;
      known.set(element, [opacity * own.opacity, seen]);
    }
    return known.get(element);
  };
  const note = element => {
    const box = element.getBoundingClientRect(), own = getComputedStyle(element);
    if (box.width < 2 || box.height < 2 || !element.checkVisibility({visibilityProperty: true})) return;
    const parent = element.parentElement ? getComputedStyle(element.parentElement) : own;
    const look = [element.tagName === "A", own.color, own.fontSize, own.fontWeight, own.textDecorationLine,
      own.display, parent.color, parent.display, ...around(element)].join(" ");
    const alike = looks.get(look) || looks.set(look, new Set()).get(look);
    if (alike.size < 3) alike.add(element);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (text.data.trim()) note(text.parentElement.closest("a") || text.parentElement), note(text.parentElement);
  }
  document.querySelectorAll("input, textarea, select, button").forEach(note);
  window.looks = [...looks.values()].flatMap(alike => [...alike]);
}"""

AXE = """([rules, colours]) => axe.run(colours ? {include: looks} : document, {
  preload: false,
  resultTypes: ["violations"],
  ...(colours ? {runOnly: {type: "rule", values: rules}}
    : {rules: Object.fromEntries(rules.map(rule => [rule, {enabled: false}]))}),
}).then(result => result.violations
  .filter(v => ["serious", "critical"].includes(v.impact))
  .flatMap(v => v.nodes.map(n => `${v.id}: ${n.target} ${n.html.slice(0, 120)}`)))"""


@dataclass
class Visit:
    """What was seen on one page."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    ready: float = 0.0  # milliseconds from the beginning until all is loaded and drawn
    links: list[str] = field(default_factory=list)
    targets: set[str] = field(default_factory=set)
    images: list[dict[str, Any]] = field(default_factory=list)
    light: list[str] = field(default_factory=list)
    dark: list[str] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)
    wide: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def chromium(launched: Any, absent: Callable[[str], None]) -> Any:
    """A running Chromium, where there is a book to open."""
    if not (BOOK / "index.html").is_file():
        absent(f"no book: found no {BOOK / 'index.html'}; run make book, or name one with PHASELAB_BOOK")
    return launched


def pages() -> dict[str, Path]:
    """Name -> file of every page, those apart that only forward to another one."""
    files = {str(p.relative_to(BOOK)): p for p in sorted(BOOK.rglob("*.html"))}
    return {
        name: path
        for name, path in files.items()
        if not name.startswith("_static/") and 'http-equiv="Refresh"' not in path.read_text(encoding="utf-8")[:300]
    }


def survey(chromium: Any) -> dict[str, Visit]:
    """Every page, opened once."""
    import axe_playwright_python

    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    context = chromium.new_context(viewport=DESK, color_scheme="light")
    page = context.new_page()
    visit = Visit()
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("console", lambda said: visit.errors.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: visit.requests.append(request.url))
    page.on("requestfailed", lambda request: visit.errors.append(f"failed: {request.url}"))
    seen = {}
    for name, path in pages().items():
        seen[name] = visit = Visit()
        page.set_viewport_size(DESK)
        page.goto(path.as_uri())
        page.evaluate(OPEN_ALL)
        for key, value in page.evaluate(READ).items():
            setattr(visit, key, set(value) if key == "targets" else value)
        visit.wide = page.evaluate(WIDE)
        page.evaluate(axe)
        visit.light = page.evaluate(AXE, [COLOUR_RULES, False]) + colours(page)
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        visit.dark = colours(page)
        page.set_viewport_size(PHONE)
        page.wait_for_timeout(150)  # plotly draws its figures again
        visit.overflow = page.evaluate(OVERFLOW)
        visit.cut = page.evaluate(CUT)
        visit.images = page.evaluate(PICTURES)
    context.close()
    return seen


def colours(page: Any) -> list[str]:
    """What axe finds of the colours of a page, as they are now."""
    page.evaluate(LOOKS)
    found: list[str] = page.evaluate(AXE, [COLOUR_RULES, True])
    return found


def test_a_colour_that_is_hard_to_read_is_found_wherever_it_is(chromium: Any) -> None:
    import axe_playwright_python

    page = chromium.new_page(viewport=DESK)
    page.goto((BOOK / "book" / "method.html").as_uri())
    page.evaluate(OPEN_ALL)
    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    assert colours(page) == []
    texts = "[...document.querySelectorAll('article p, article td, .bd-sidebar a')].filter(e => e.checkVisibility())"
    number = page.evaluate(f"(window.texts = {texts}).length")
    assert number > 30
    for at in (number // 3, number - 1):
        page.evaluate("at => { texts[at].style.color = 'rgba(128, 128, 128, 0.5)' }", at)
        assert any("color-contrast" in fault for fault in colours(page)), page.evaluate("at => texts[at].outerHTML", at)
        page.evaluate("at => { texts[at].style.color = ''; texts[at].style.opacity = 0.3 }", at)
        assert any("color-contrast" in fault for fault in colours(page))
        page.evaluate("at => { texts[at].style.opacity = ''; texts[at].style.backgroundColor = 'rgb(80, 80, 80)' }", at)
        assert any("color-contrast" in fault for fault in colours(page))
        page.evaluate("at => { texts[at].style.backgroundColor = '' }", at)
    link = "document.querySelector('article p a[href]')"
    page.evaluate(f"{link}.style.cssText = 'text-decoration: none; color: rgb(60, 60, 80)'")
    assert any("link-in-text-block" in fault for fault in colours(page))
    page.close()


def test_every_page(chromium: Any, subtests: pytest.Subtests) -> None:
    seen = survey(chromium)
    assert seen

    def none_of(kind: str, found: dict[str, list[str]]) -> None:
        lines = [f"{name}: {fault}" for name, faults in found.items() for fault in faults]
        with subtests.test(kind):
            if lines:
                pytest.fail("\n".join(lines), pytrace=False)

    none_of("console errors", {name: visit.errors for name, visit in seen.items()})
    # No page has a limit on its time, which is the machine's too; what it took is kept beside the book.
    measured = pd.DataFrame(
        {"page": name, "megabytes": weight(visit) / 1e6, "seconds": visit.ready / 1000} for name, visit in seen.items()
    )
    assert (measured["seconds"] > 0).all()
    measured.sort_values("seconds", ascending=False).round(3).to_csv(BOOK.parent / "pages.csv", index=False)
    none_of("requests to the network", {name: outside(visit.requests) for name, visit in seen.items()})
    none_of("broken links", {name: broken_links(visit, seen) for name, visit in seen.items()})
    none_of("broken or nameless images", {name: bad_images(visit) for name, visit in seen.items()})
    none_of("axe, light", {name: visit.light for name, visit in seen.items()})
    none_of("axe, dark", {name: visit.dark for name, visit in seen.items()})
    none_of("overflow at 390 px", {name: visit.overflow for name, visit in seen.items()})
    none_of("tables wider than their column", {name: visit.wide for name, visit in seen.items()})
    none_of("cut off at 390 px", {name: visit.cut for name, visit in seen.items()})
    none_of("too heavy", {name: too_heavy(visit) for name, visit in seen.items()})


def outside(requests: list[str]) -> list[str]:
    """Requests that leave the folder of the book."""
    return [url for url in requests if urlsplit(url).scheme not in ("file", "data", "blob", "about")]


def weight(visit: Visit) -> int:
    """Bytes of a page with all that it loads."""
    return sum(path.stat().st_size for path in loaded(visit) if path.is_file())


def loaded(visit: Visit) -> set[Path]:
    """The files that a page loads, its own among them."""
    return {Path(unquote(urlsplit(url).path)) for url in visit.requests if urlsplit(url).scheme == "file"}


def too_heavy(visit: Visit) -> list[str]:
    """The weight of a page, where it is more than pages may have."""
    most = HEAVY if any("plotly" in path.name for path in loaded(visit)) else LIGHT
    found = weight(visit)
    return [f"{found / 1e6:.1f} MB, expected {most / 1e6:g} at most"] * (found > most)


def broken_links(visit: Visit, seen: dict[str, Visit]) -> list[str]:
    """Links of a page to a file that is not there, or to a place that its page does not have."""
    broken = []
    for link in sorted(set(visit.links)):
        parts = urlsplit(link)
        if parts.scheme != "file":
            continue
        path = Path(unquote(parts.path))
        if not path.is_relative_to(BOOK) or not path.is_file():
            broken.append(f"no file: {link}")
            continue
        other = seen.get(str(path.relative_to(BOOK)))
        if parts.fragment and other is not None and unquote(parts.fragment) not in other.targets:
            broken.append(f"no such place: {link}")
    return broken


def bad_images(visit: Visit) -> list[str]:
    """Images that did not load, for which no place is kept, or whose alternative text is missing or a file's digest."""
    absent = [f"not loaded: {image['src']}" for image in visit.images if not image["width"]]
    absent += [f"without width and height: {image['src']}" for image in visit.images if not image["kept"]]
    return absent + [
        f"alternative text {image['alt']!r}: {image['src']}"
        for image in visit.images
        if not image["alt"].strip() or re.search(r"[0-9a-f]{16}", image["alt"])
    ]


def test_search_finds_ridge(chromium: Any) -> None:
    page = chromium.new_page(viewport=DESK)
    page.goto((BOOK / "search.html").as_uri() + "?q=ridge")
    # Results come one by one.
    page.wait_for_function("document.querySelector('#search-results')?.innerText.includes('finished')", timeout=15_000)
    found = page.locator("#search-results li a").evaluate_all("links => links.map(a => a.href)")
    page.close()
    assert any("/glossary.html" in link for link in found), found
    assert any("/background.html" in link for link in found), found


def test_pages_follow_the_system_into_the_dark(chromium: Any) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = chromium.new_page(viewport=DESK, color_scheme=scheme)
        page.goto((BOOK / "book" / "index.html").as_uri())
        colours[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        page.close()
    assert colours["light"] != colours["dark"]


def test_interactive_figures_answer(chromium: Any) -> None:
    """A mark tells its values when it is pointed at, and a click on the legend hides its curve."""
    names = [name for name, path in pages().items() if "plotly-graph-div" in path.read_text(encoding="utf-8")]
    assert names, "found no interactive figure in the whole book"
    silent = []
    page = chromium.new_page(viewport=DESK)
    for name in names:
        page.goto((BOOK / name).as_uri())
        drawn = page.locator(".plotly-graph-div:has(.main-svg)")
        if drawn.count() < page.locator(".plotly-graph-div").count():
            silent.append(f"{name}: a figure is not drawn")
        figures = drawn.filter(has=page.locator(".nsewdrag"))  # surfaces have no such panel
        for number in range(figures.count()):
            figure = figures.nth(number)
            figure.scroll_into_view_if_needed()
            if not answers(page, figure):
                silent.append(f"{name}: figure {number} shows no label when pointed at")
            if figure.locator(".legendtoggle").count() and not toggles(page, figure):
                silent.append(f"{name}: figure {number} keeps a curve whose name is clicked")
    page.close()
    assert not silent, "\n".join(silent)


def test_the_cortex_tells_a_value_and_lets_the_page_scroll(chromium: Any) -> None:
    page, scene = chromium.new_page(viewport=DESK), ".plotly-graph-div .gl-container canvas"
    names = [name for name, path in pages().items() if '"mesh3d"' in path.read_text(encoding="utf-8")]
    assert names, "found no cortex in the whole book"
    page.goto((BOOK / names[0]).as_uri())
    page.wait_for_selector(scene)
    figure = page.locator(".plotly-graph-div:has(.gl-container)").first
    figure.scroll_into_view_if_needed()
    figure.evaluate("gd => gd.on('plotly_hover', event => { gd.told = event.points[0].customdata })")
    box = figure.bounding_box()
    for row in range(3, 7):
        for column in range(2, 11):
            page.mouse.move(box["x"] + box["width"] * column / 12, box["y"] + box["height"] * row / 10)
            page.wait_for_timeout(120)
    assert figure.evaluate("gd => gd.told")
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, -150)
    page.wait_for_timeout(400)
    assert page.evaluate("scrollY") < before
    title = "gd => gd._fullData[1].colorbar.title.text"
    shown = figure.evaluate(title)
    figure.evaluate("gd => Plotly.restyle(gd, ...gd.layout.sliders[0].steps[0].args)")
    assert figure.evaluate(title) != shown
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_that_opens_a_page_sees_the_whole_cortex(chromium: Any, tmp_path: Path, scheme: str) -> None:
    page = chromium.new_page(viewport=PHONE, color_scheme=scheme)
    scene, hidden = ".plotly-graph-div .gl-container canvas", "e => e.scrollWidth > e.clientWidth"
    name = next(name for name, path in pages().items() if '"mesh3d"' in path.read_text(encoding="utf-8"))
    page.goto((BOOK / name).as_uri())
    page.wait_for_selector(scene)
    page.wait_for_timeout(1500)
    assert page.evaluate(CUT) == []
    assert not page.locator(".plotly-graph-div").first.evaluate(hidden)
    page.locator(scene).first.screenshot(path=tmp_path / "scene.png")
    page.close()
    brain = np.asarray(Image.open(tmp_path / "scene.png").convert("L")) < 245
    rows = slice(brain.shape[0] // 4, -brain.shape[0] // 4)  # above and below lie buttons and the colour bar
    assert brain[rows].any()
    assert not brain[rows][:, [0, 1, 2, -3, -2, -1]].any(), "the cortex reaches the edges of its window: it is cut off"


def answers(page: Any, figure: Any) -> bool:
    """Whether a hover label comes up somewhere over the figure's first panel."""
    box = figure.locator(".nsewdrag").first.bounding_box()
    for row in range(1, 8):
        for column in range(1, 12):
            page.mouse.move(box["x"] + box["width"] * column / 12, box["y"] + box["height"] * row / 8)
            page.wait_for_timeout(30)
            if figure.locator(".hoverlayer .hovertext, .hoverlayer .legend").count():
                return True
    return False


def toggles(page: Any, figure: Any) -> bool:
    """Whether a click on the first name of the legend hides a trace."""
    hidden = "gd => gd._fullData.filter(t => t.visible === 'legendonly').length"
    before = figure.evaluate(hidden)
    figure.locator(".legendtoggle").first.click(force=True)
    for _ in range(40):  # plotly first waits whether a second click comes
        page.wait_for_timeout(50)
        if figure.evaluate(hidden) != before:
            return True
    return False
