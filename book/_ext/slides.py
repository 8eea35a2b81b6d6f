"""Slides of the sessions, from the built book: ``make slides``, or ``python book/_ext/slides.py HTML OUT [REVEAL]``.

A deck is a session's page in other clothes: its title, objectives and plan, each figure that the plan names, the
question and the reading. Texts, numbers and pictures are those of the pages as they were built, so a deck has none of
its own; solutions are not shown. reveal.js is copied from the wheel of sphinx-revealjs, whose version is pinned: a deck
asks nothing of any server.

Why not the slides of nbconvert: its page takes require.js, jQuery, MathJax and mermaid from servers, and knows none of
the roles with which these pages refer to figures, words and works.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from html import escape
from importlib.util import find_spec
from pathlib import Path

from bs4 import BeautifulSoup, Tag

#: What a deck needs of reveal.js.
PARTS = ("LICENSE", "dist/reset.css", "dist/reveal.css", "dist/reveal.js", "dist/theme/white.css", "dist/theme/fonts")

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>{title}</title>
<link rel="stylesheet" href="reveal/dist/reset.css" />
<link rel="stylesheet" href="reveal/dist/reveal.css" />
<link rel="stylesheet" href="reveal/dist/theme/white.css" />
<style>
.reveal {{ font-size: 28px; }}
.reveal h1 {{ font-size: 1.9em; }}
.reveal :is(h1, h2) {{ text-transform: none; }}
.reveal :is(p, li, figcaption) {{ text-align: left; }}
.reveal figure img {{ max-height: 480px; margin: 0 auto; display: block; }}
.reveal figcaption {{ font-size: 0.6em; }}
.reveal table {{ font-size: 0.62em; }}
</style>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/dist/reveal.js"></script>
<script>Reveal.initialize({{hash: true, slideNumber: true, transition: "none"}});</script>
</body>
</html>
"""


def soup(path: Path) -> BeautifulSoup:
    """A page of the built book."""
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def bare(part: Tag) -> Tag:
    """A part of a page without its links, numbers of headings, sections and names: they belong to the page."""
    for mark in part.select("a.headerlink, .section-number"):
        mark.decompose()
    for outer in part.select("a, section"):  # to reveal.js a section in a section is a slide below the other
        outer.unwrap()
    for tag in (part, *part.find_all(True)):
        tag.attrs = {name: value for name, value in tag.attrs.items() if name in ("src", "alt")}
    return part


def figures(page: Path, plan: Tag) -> Iterator[str]:
    """The figures that a plan refers to, in its order; of an interactive one the caption and where to find it."""
    for link in plan.select("a:has(.std-numref)"):
        name, _, place = str(link["href"]).partition("#")
        source = (page.parent / name).resolve()
        figure = soup(source).find(id=place)
        if figure is None:
            raise SystemExit(f"{page}: its plan refers to {link['href']}, which is not in the built book")
        picture, caption = figure.find("img"), bare(figure.find("figcaption"))
        if picture is None:
            shown = f"<p>An interactive figure: open it in the book, {escape(source.name)}.</p>"
        else:
            file = (source.parent / str(picture["src"])).resolve()
            shown = f'<img src="pictures/{escape(file.name)}" alt="{escape(str(picture["alt"]))}" data-file="{file}" />'
        yield f"<figure>{shown}{caption}</figure>"


def deck(page: Path) -> tuple[str, list[str]]:
    """Title and slides of a session."""
    article = soup(page).select_one("article.bd-article, div.body")
    assert article is not None, page
    title = bare(article.h1).get_text().strip()

    def section(name: str) -> Tag:
        found = article.find(id=name)
        if found is None:
            raise SystemExit(f"{page}: no section {name!r}; a session has objectives, a plan, reading and discussion")
        return found

    shown = [*figures(page, section("plan"))]  # before its links are taken off
    first, question = bare(article.find("p")), bare(section("discussion").select_one(".exercise"))
    objectives, plan, reading = (bare(section(name)).decode_contents() for name in ("objectives", "plan", "reading"))
    question = f"<h2>Discussion</h2>{question}"
    return title, [f"<h1>{escape(title)}</h1>{first}", objectives, plan, *shown, question, reading]


def write(html: Path, out: Path, reveal: Path) -> list[Path]:
    """A deck for each session of the built book `html`, with its pictures and reveal.js, in the folder `out`."""
    pages, decks = sorted((html / "book" / "sessions").glob("session_*.html")), []
    if not pages:
        raise SystemExit(f"{html}: no book/sessions/session_1.html in it; expected the built book: make book")
    for part in PARTS:
        to = out / "reveal" / part
        to.parent.mkdir(parents=True, exist_ok=True)
        if (reveal / part).is_dir():
            shutil.copytree(reveal / part, to, dirs_exist_ok=True)
        else:
            shutil.copy(reveal / part, to)
    (out / "pictures").mkdir(exist_ok=True)
    for page in pages:
        title, slides = deck(page)
        text = BeautifulSoup("\n".join(f"<section>{slide}</section>" for slide in slides), "html.parser")
        for picture in text.select("img[data-file]"):
            shutil.copy(str(picture.attrs.pop("data-file")), out / "pictures")
        decks.append(out / f"{page.stem}.html")
        decks[-1].write_text(PAGE.format(title=escape(title), slides=text), encoding="utf-8")
    return decks


def installed() -> Path:
    """The folder of reveal.js in the installed sphinx-revealjs."""
    found = find_spec("sphinx_revealjs")
    if found is None or found.origin is None:
        raise SystemExit("sphinx-revealjs is not installed; type: make slides, or pip install -e '.[slides]'")
    return Path(found.origin).parent / "_static" / "revealjs"


if __name__ == "__main__":
    given = [Path(word) for word in sys.argv[1:]]
    if len(given) not in (2, 3):
        raise SystemExit("expected: slides.py HTML OUT [REVEAL]")
    for file in write(given[0], given[1], given[2] if given[2:] else installed()):
        print(file)
