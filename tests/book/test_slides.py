"""Slides are made of the built pages alone: their figures and texts, without solutions, without a request."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
slides = pytest.importorskip("slides")
sys.path.remove(str(ROOT / "book" / "_ext"))

SESSION = """<article class="bd-article"><section id="session-1">
<h1><span class="section-number">31. </span>Session 1: What?<a class="headerlink" href="#s">#</a></h1><p>About it.</p>
<section id="objectives"><h2>Objectives<a class="headerlink" href="#o">#</a></h2><ul><li>see</li></ul></section>
<section id="plan"><h2>Plan</h2><table><tr><td>
<a href="../executed/page.html#fig-b"><span class="std std-numref">Fig. 2</span></a>, then
<a href="../executed/page.html#fig-live"><span class="std std-numref">Fig. 3</span></a></td></tr></table></section>
<section id="reading"><h2>Reading</h2><p><a href="../bibliography.html#x">Author [2020]</a></p></section>
<section id="discussion"><h2>Discussion</h2><div class="exercise admonition"><p>Question?</p></div>
<div class="solution admonition"><p>The secret answer.</p></div></section></section></article>"""
PAGE = """<article><figure id="fig-a"><img src="../../_images/a.png" alt="A"><figcaption>one</figcaption></figure>
<figure id="fig-b"><a href="#x"><img src="../../_images/b.png" alt='A "b"'></a>
<figcaption><span class="caption-number">Fig. 2 </span>Score .31 <a href="../g.html">word</a></figcaption></figure>
<figure id="fig-live"><div class="plotly-graph-div"></div><figcaption>Live</figcaption></figure></article>"""


@pytest.fixture
def book(tmp_path: Path) -> Path:
    for name, text in {
        "html/book/sessions/session_1.html": SESSION,
        "html/book/executed/page.html": PAGE,
        "html/_images/a.png": "a",
        "html/_images/b.png": "b",
        "reveal/dist/theme/fonts/font.woff": "",
        **{f"reveal/{part}": part for part in slides.PARTS if "fonts" not in part},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_deck_has_the_figures_of_its_plan_and_no_solution(book: Path) -> None:
    for _ in range(2):  # a second time over the first
        (deck,) = slides.write(book / "html", book / "out", book / "reveal")
    text = deck.read_text()
    assert text.count("<section>") == text.count("</section>") == 7
    assert "<h1>Session 1: What?</h1>" in text
    assert '<img alt="A &quot;b&quot;" src="pictures/b.png"/>' in text.replace("'A \"b\"'", '"A &quot;b&quot;"')
    assert "Fig. 2 Score .31 word" in re.sub(r"<[^>]+>", "", text)
    assert "An interactive figure: open it in the book, page.html." in text
    assert "Question?" in text
    assert "secret answer" not in text
    assert [path.name for path in (book / "out" / "pictures").iterdir()] == ["b.png"]


def test_a_deck_asks_nothing_of_a_server_and_links_nowhere(book: Path) -> None:
    (deck,) = slides.write(book / "html", book / "out", book / "reveal")
    text = deck.read_text()
    assert "<a " not in text
    for place in re.findall(r'(?:src|href)="([^"]+)"', text):
        assert (book / "out" / place).is_file(), place


def test_what_is_missing_is_named(book: Path) -> None:
    with pytest.raises(SystemExit, match=r"no book/sessions/session_1.html in it; expected the built book"):
        slides.write(book, book / "out", book / "reveal")
    page = book / "html" / "book" / "sessions" / "session_1.html"
    page.write_text(SESSION.replace('id="reading"', 'id="books"'))
    with pytest.raises(SystemExit, match=r"session_1.html: no section 'reading'"):
        slides.write(book / "html", book / "out", book / "reveal")
    page.write_text(SESSION.replace("#fig-b", "#fig-c"))
    with pytest.raises(SystemExit, match=r"refers to \.\./executed/page.html#fig-c, which is not in the built book"):
        slides.write(book / "html", book / "out", book / "reveal")
