"""Sources of the book: pages, notebooks and bibliography agree, and the local extension does what it says."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jupytext
import pytest
import yaml
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.md"))
STARTERS = sorted((ROOT / "notebooks" / "starters").glob("*.md"))
PAGES = sorted(path for part in ("", "sessions", "experiments") for path in (ROOT / "book" / part).glob("*.md"))
MODEL_PAGE = "11_model_page"
DIRECTIVE = re.compile(r"^(`{3,}|:{3,})\{(exercise|solution)\}([^\n]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
each_text = pytest.mark.parametrize("path", NOTEBOOKS + STARTERS + PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")


@cache
def notebook(path: Path) -> NotebookNode:
    return jupytext.read(path)


def prose(path: Path) -> str:
    """The Markdown of a page or notebook."""
    if path in PAGES:
        return path.read_text(encoding="utf-8")
    cells = [cell for cell in notebook(path).cells if cell.cell_type == "markdown"]
    captions = [str(figure.get("caption", "")) for _, figure, _ in figures(path)]
    return "\n\n".join([*(cell.source for cell in cells), *captions])


def figures(path: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Source, figure settings and image settings of the cells that make figures."""
    for cell in notebook(path).cells:
        settings = cell.metadata.get("mystnb", {})
        if "figure" in settings:
            yield cell.source, settings["figure"], settings.get("image", {})


def terms() -> set[str]:
    """Terms of the glossary: its lines that are not indented."""
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    inside = re.search(r"```\{glossary\}\n(.*?)```", text, re.DOTALL)
    assert inside
    return {line for line in inside[1].splitlines() if line and not line.startswith(" ")}


# --------------------------------------------------------------------------- contents


def test_every_page_is_in_the_contents_and_every_entry_is_a_page() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in contents["parts"] for chapter in part["chapters"]]
    for chapter in chapters:  # those of a section come after it
        chapters += chapter.get("sections", ())
    entries = [contents["root"], *(chapter["file"] for chapter in chapters if "file" in chapter)]
    globs = [chapter["glob"] for chapter in chapters if "glob" in chapter]
    pages = [path.relative_to(ROOT).with_suffix("").as_posix() for path in PAGES]
    pages += [f"book/starters/{path.stem}" for path in STARTERS]
    executed = [f"book/executed/{path.stem}" for path in NOTEBOOKS if path.stem != MODEL_PAGE]
    assert sorted(entries) == sorted(pages + executed)
    assert globs == ["book/executed/models/*"]


@each_text
def test_cited_works_and_used_terms_exist(path: Path) -> None:
    text = prose(path)
    keys = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.M))
    cited = {key for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text) for key in re.split(r"\s*,\s*", group)}
    used = {
        match[2] or match[1].strip()
        for match in re.finditer(r"\{term\}`([^`<]+?)(?:<([^>]+)>)?`", text.replace("\n", " "))
    }
    assert cited <= keys
    assert {" ".join(term.split()) for term in used} <= terms()


@each_text
def test_no_page_loads_anything_from_the_web(path: Path) -> None:
    assert not re.findall(
        r"!\[[^\]]*\]\(https?://|\{(?:image|figure)\}\s*https?://|<(?:img|script)\b[^>]*https?://",
        prose(path),
    )


# --------------------------------------------------------------------------- notebooks


@each_notebook
def test_figures_have_name_caption_and_alternative_text(path: Path) -> None:
    text = prose(path)
    for source, figure, image in figures(path):
        name = figure.get("name", "")
        assert name.startswith("fig-"), f"{name!r}: expected a name that begins with fig-"
        assert len(str(figure.get("caption", ""))) > 20, f"{name}: caption"
        drawn_as_html = re.search(r"\b(?:interactive|HTML)\(", source)
        assert drawn_as_html or len(str(image.get("alt", ""))) > 20, f"{name}: image.alt"
        assert f"{{numref}}`{name}`" in text or f"<{name}>`" in text, f"{name}: no {{numref}} names it"


def test_names_of_figures_and_exercises_are_unique() -> None:
    names = [figure.get("name") for path in NOTEBOOKS for _, figure, _ in figures(path)]
    for path in NOTEBOOKS + STARTERS + PAGES:
        names += re.findall(r"^:label:\s*(\S+)", prose(path), re.M)
        names += re.findall(r"^\(([\w@-]+)\)=$", prose(path), re.M)
    assert [name for name, times in Counter(names).items() if times > 1] == []


@each_notebook
def test_model_pages_have_names_of_their_own(path: Path) -> None:
    """What is executed once a model must not give the same label twice; elsewhere the mark means nothing."""
    names = [figure["name"] for _, figure, _ in figures(path)]
    names += re.findall(r"^\(([\w@-]+)\)=$|^:label:\s*(\S+)", prose(path), re.M)
    for name in names:
        text = "".join(name) if isinstance(name, tuple) else name
        assert ("@model" in text) == (path.stem == MODEL_PAGE), text


@each_text
def test_exercises_have_solutions_that_follow_them(path: Path) -> None:
    blocks = [(kind, title.strip(), body) for _, kind, title, body in DIRECTIVE.findall(prose(path))]
    assert "exercise-start" not in prose(path)
    assert "solution-start" not in prose(path)
    exercises = [block for block in blocks if block[0] == "exercise"]
    if path in NOTEBOOKS and path.stem != MODEL_PAGE:
        assert len(exercises) >= 2, f"found {len(exercises)} exercises, expected at least 2"
    for number, (kind, title, body) in enumerate(blocks):
        if kind == "exercise":
            label = re.search(r"^:label:\s*(\S+)", body, re.M)
            assert label, f"{title}: no label"
            following = blocks[number + 1 : number + 2]
            assert following, f"{label[1]}: no solution"
            assert following[0][:2] == ("solution", label[1])
        else:
            assert ":class: dropdown" in body, f"solution of {title}: not a dropdown"
            assert not re.search(r"^:label:", body, re.M), f"solution of {title}: has a label"


def test_the_method_page_tells_how_much_the_models_of_demo_read() -> None:
    from phaselab.study import load_study

    read: dict[str, list[int]] = {}
    for model in load_study("demo").models:
        assert model.train
        read.setdefault(model.train.mix, []).append(model.train.steps * model.train.batch * model.train.context)
    text = " ".join((ROOT / "book" / "method.md").read_text(encoding="utf-8").split())
    assert read == {"en": [1_024_000] * 3, "en+vo": [1_474_560]}
    assert (
        "In `demo` three models learn only the English-like language of the world, from 1,024,000 tokens each" in text
    )
    assert "two languages that tell of the same world, from 1,474,560 tokens in all, about half of them in each" in text


def test_narrative_figures_have_alternative_text() -> None:
    for path in PAGES:
        for body in re.findall(r"\{figure\}[^\n]*\n(.*?)^[`:]{3,}$", prose(path), re.M | re.DOTALL):
            assert re.search(r"^:alt: .{20,}", body, re.M), f"{path.name}: {body[:60]}"


# --------------------------------------------------------------------------- the local extension

PAGE = """# @model

Inline $a^2$ and

$$
y = X w
$$ (eq-one)

cited as {eq}`eq-one`.

```{exercise} Why
:label: ex-@model
Question.
```

````{solution} ex-@model
:class: dropdown
The secret answer.
```python
1 + 1
```
````

Closing words.
"""


def build(folder: Path, page: str) -> tuple[str, str, str]:
    """Build a book of one model page; its HTML, its source as offered for download, and the warnings."""
    from io import StringIO

    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    source, out = folder / "source", folder / "out"
    name = "book/executed/models/some-model"
    (source / name).parent.mkdir(parents=True)
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": page}
    content = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (source / f"{name}.ipynb").write_text(json.dumps(content))
    settings = {
        "extensions": ["myst_nb", "sphinx_exercise", "phaselab_book"],
        "root_doc": name,
        "html_theme": "basic",
        "html_sourcelink_suffix": "",
        "html_math_renderer": "mathml",
        "myst_enable_extensions": ["dollarmath"],
        "nb_execution_mode": "off",
    }
    warnings = StringIO()
    with docutils_namespace():
        app = Sphinx(
            str(source),
            None,
            str(out),
            str(folder / "trees"),
            "html",
            settings,
            status=None,
            warning=warnings,
        )
        app.build()
    sys.path.remove(str(ROOT / "book" / "_ext"))
    offered = next((out / "_sources").rglob("some-model*")).read_text(encoding="utf-8")
    return (out / f"{name}.html").read_text(encoding="utf-8"), offered, warnings.getvalue()


def test_extension_in_the_teachers_build(tmp_path: Path) -> None:
    html, offered, warnings = build(tmp_path, PAGE)
    assert warnings == ""
    assert html.count("<math ") == 2
    assert 'alttext="y = X w"' in html
    assert not re.search(r"<script[^>]*mathjax", html, re.IGNORECASE)
    assert "<h1>some-model" in html
    assert 'id="ex-some-model"' in html
    assert "The secret answer" in html
    assert "The secret answer" in offered
    assert "plotly" not in html


def test_pages_of_another_study_go_with_what_they_offered(tmp_path: Path) -> None:
    places = "book/executed/models/old.html", "_sources/book/executed/models/old.ipynb", "notebooks/models/old.ipynb"
    for place in places:
        (tmp_path / "out" / place).parent.mkdir(parents=True)
        (tmp_path / "out" / place).write_text("of another study")
    html, _, warnings = build(tmp_path, PAGE)
    assert warnings == ""
    assert "<h1>some-model" in html
    assert [place for place in places if (tmp_path / "out" / place).exists()] == []


def test_extension_in_the_students_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASELAB_STUDENT", "1")
    html, offered, warnings = build(tmp_path, PAGE)
    assert warnings == ""
    assert "Question." in html
    assert "Closing words" in html
    assert "secret answer" not in html
    cell = json.loads(offered)["cells"][0]["source"]
    assert "secret answer" not in cell
    assert "1 + 1" not in cell
    assert "Question." in cell
    assert "Closing words" in cell


def test_what_a_figure_says_in_numbers_follows_its_form_in_the_alternative_text() -> None:
    spec = importlib.util.spec_from_file_location("phaselab_book", ROOT / "book" / "_ext" / "phaselab_book.py")
    assert spec
    assert spec.loader
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    app = SimpleNamespace(env=SimpleNamespace(doc2path=lambda name: f"{name}.ipynb"))
    drawn = {"metadata": {"image/png": {"alt": "score: 0.2 at 0."}}, "output_type": "display_data", "data": {}}
    with_form = {"metadata": {"mystnb": {"image": {"alt": "One\n panel.", "width": "100%"}}}, "outputs": [drawn]}
    silent = {"metadata": {}, "outputs": [{"output_type": "stream", "text": "x"}]}
    source = [json.dumps({"cells": [with_form, {"metadata": {}, "source": "text"}, silent]})]
    extension.tell_what_is_seen(app, "page", source)
    told, text, other = json.loads(source[0])["cells"]
    assert told["metadata"]["mystnb"]["image"] == {"alt": "One panel. score: 0.2 at 0.", "width": "100%"}
    assert not text["metadata"]
    assert not other["metadata"]


def test_plotly_is_of_the_version_that_draws_the_figures() -> None:
    import plotly

    def version(path: Path) -> str:
        found = re.search(r"plotly\.js .*?v(\d+\.\d+\.\d+)", path.read_text(encoding="utf-8")[:300])
        assert found
        return found[1]

    kept = ROOT / "book" / "assets" / "plotly-gl3d.min.js"
    assert version(kept) == version(Path(plotly.__file__).parent / "package_data" / "plotly.min.js")
    assert "MIT license" in kept.read_text(encoding="utf-8")[:300]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages for teaching, as students get them: sessions, experiments and starter notebooks."""
    from io import StringIO
    from shutil import copytree

    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    folder = tmp_path_factory.mktemp("student")
    for part in ("book/sessions", "book/experiments", "notebooks/starters", "book/assets"):
        copytree(ROOT / part, folder / "source" / part)
    (folder / "source" / "index.md").write_text("# Pages\n\n```{toctree}\n:glob:\nbook/*/*\n```\n")
    settings = {
        "extensions": ["myst_nb", "sphinx_exercise", "phaselab_book"],
        "html_theme": "basic",
        "html_sourcelink_suffix": "",
        "html_math_renderer": "mathml",
        "html_static_path": ["book/assets"],
        "hide_solutions": True,
        "myst_enable_extensions": ["dollarmath"],
        "nb_execution_mode": "off",
        "exclude_patterns": ["notebooks"],
    }
    places = folder / "source", None, folder / "out", folder / "trees"
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    with docutils_namespace():  # of references to other pages there are warnings
        Sphinx(*map(lambda p: p and str(p), places), "html", settings, status=None, warning=StringIO()).build()
    sys.path.remove(str(ROOT / "book" / "_ext"))
    return folder / "out"


def test_no_solution_is_in_the_pages_sources_or_search_of_students(student: Path) -> None:
    from sphinx.search.en import SearchEnglish

    sources = [path for path in STARTERS + PAGES if path.parent.name in ("starters", "sessions", "experiments")]
    solutions = {body for path in sources for _, kind, _, body in DIRECTIVE.findall(prose(path)) if kind == "solution"}
    assert len(solutions) > 40
    files = [path for path in student.rglob("*") if path.suffix in (".html", ".ipynb", ".md", ".txt", ".js")]
    assert len([path for path in files if path.suffix == ".ipynb"]) == 8

    def plain(text: str) -> str:
        text = re.sub(r"\{\w+(?::\w)?\}`([^`<]*)(?:<[^>`]*>)?`|<[a-zA-Z/!][^>]*>", r"\1", text.replace("\\n", " "))
        return " ".join(re.findall(r"\w+", unescape(text)))

    told = (STARTERS[0].parent / "check.py").read_text("utf-8")  # in each of them
    told += "\n".join(DIRECTIVE.sub(keep_exercise, path.read_text("utf-8")) for path in sources)
    elsewhere = plain(told)
    shown = {path: plain(path.read_text("utf-8")) for path in files}
    phrases = [(body, phrase) for body in solutions for phrase in map(plain, body.splitlines()) if len(phrase) > 14]
    phrases = [(body, phrase) for body, phrase in phrases if phrase not in elsewhere]
    assert len({body for body, _ in phrases}) == len(solutions)  # each has a line by which it would be known
    assert [(path.name, phrase) for path, text in shown.items() for _, phrase in phrases if phrase in text] == []
    # Search knows stems of single words: none that only solutions have.
    language = SearchEnglish({})
    others = {language.stem(word.lower()) for word in re.findall(r"\w+", told)}
    own = {language.stem(word.lower()) for body in solutions for word in re.findall(r"[a-z]{4,}", plain(body))} - others
    index = (student / "searchindex.js").read_text("utf-8")
    known = set(json.loads(re.sub(r"^Search\.setIndex\(|\)\s*$", "", index))["terms"])
    assert "leakag" in known
    assert len(own) > 50
    assert own & known == set()


def keep_exercise(block: re.Match[str]) -> str:
    """A directive of an exercise as it stands, and nothing of a solution."""
    return block[0] if block[2] == "exercise" else ""


def test_sessions_have_all_their_parts_and_90_minutes() -> None:
    pages = [path for path in PAGES if path.parent.name == "sessions"]
    assert len(pages) == len(STARTERS) == 8
    for number, path in enumerate(pages, 1):
        text = prose(path)
        heads = ["Objectives", "Prerequisites", "Plan", "Reading", "Discussion", "Rubric"]
        assert re.findall(r"^## (\w+)$", text, re.M) == heads
        spans = [tuple(map(int, span)) for span in re.findall(r"^\| (\d+)–(\d+) \|", text, re.M)]
        assert [low for low, _ in spans] == [0, *(high for _, high in spans[:-1])]
        assert spans[-1][1] == 90
        assert f"(session-{number})=" in text
        assert text.count(f"{{ref}}`starter-{number}`") >= 2
        counted = re.search(rf"\{{ref\}}`starter-{number}` \((\d) exercises", text)
        assert counted
        assert int(counted[1]) == len(re.findall(r"\{exercise\}", prose(STARTERS[number - 1])))
        assert len(re.findall(r"\{cite:t\}", text.partition("## Reading")[2].partition("## ")[0])) >= 2
        assert re.search(r"^\| criterion \| not yet \| good \| very good \|$", text, re.M)


def test_pages_with_sliders_load_them_and_others_do_not(student: Path) -> None:
    loaded = {path: "widgets/widgets.js" in path.read_text("utf-8") for path in (student / "book").rglob("*.html")}
    assert sorted(path.stem for path, has in loaded.items() if has) == [
        "alpha",
        "changes",
        "delays",
        "emergence",
        "folds",
    ]
    for path in (path for path, has in loaded.items() if has):
        wanted = f'src="../../_static/widgets/{path.stem}.js'
        assert wanted in path.read_text("utf-8")
        assert (student / "_static" / "widgets" / f"{path.stem}.js").is_file()


def test_a_starter_for_students_is_one_whole_notebook(student: Path) -> None:
    offered = json.loads((student / "_sources" / "book" / "starters" / "session_3.ipynb").read_text("utf-8"))
    sources = ["".join(cell["source"]) for cell in offered["cells"]]
    assert all(sources)  # no cell is left empty by a solution that was taken out
    assert sum(source.startswith("share = ...") for source in sources) == 1
    assert any("def check(answer, *demands, why):" in source for source in sources)
    assert not any("from check import" in source for source in sources)


def test_the_lists_of_public_data_and_models_are_those_of_the_commands() -> None:
    from types import SimpleNamespace

    from phaselab.checkpoints.families import FAMILIES
    from phaselab.data.sets import SETS

    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    from phaselab_book import list_what_is_public

    sys.path.remove(str(ROOT / "book" / "_ext"))
    source = [(ROOT / "book" / "data_and_models.md").read_text("utf-8")]
    list_what_is_public(SimpleNamespace(), "book/data_and_models", source)
    assert "@" not in source[0]
    assert all(f"### {of.name}\n\n{of.about}.\n\n- Licence: {of.licence}" in source[0] for of in SETS.values())
    for family in FAMILIES.values():  # the seeds of one in its own row
        seeds = f", seeds 0 to {family.seeds}" if family.seeds else ""
        row = f"\n| {family.name}{seeds} | {family.repository} | {family.licence} |"
        assert (row in source[0]) == (not family.seed), family.name


def test_a_page_says_what_it_is_about_and_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'A "page" about <models> and brains, long enough to be a sentence, ' + "that goes on " * 20
    plain, _, _ = build(tmp_path / "plain", f"# Title & more\n\nShort.\n\n{said}\n")
    content = re.search('<meta name="description" content="([^"]*)"', plain)
    assert content
    assert content[1].startswith("A “page” about &lt;models&gt; and")
    assert len(unescape(content[1])) <= 202
    assert content[1].endswith(" …")
    assert '<meta property="og:title" content="Title &amp; more" />' in plain
    assert "og:url" not in plain
    assert not (tmp_path / "plain" / "out" / "sitemap.xml").exists()
    monkeypatch.setenv("PHASELAB_SITE", "https://example.org/book")
    placed, _, _ = build(tmp_path / "placed", f"# Title\n\n{said}\n")
    address = "https://example.org/book/book/executed/models/some-model.html"
    assert f'<meta property="og:url" content="{address}" />' in placed
    assert f'<link rel="canonical" href="{address}" />' in placed
    assert f"<loc>{address}</loc>" in (tmp_path / "placed" / "out" / "sitemap.xml").read_text()


@pytest.mark.parametrize("latex", [r"\nosuchcommand x", r"\begin{aligned} x &= y \end{aligned}"])
def test_extension_warns_of_maths_that_it_cannot_write(latex: str, tmp_path: Path) -> None:
    _, _, warnings = build(tmp_path, f"# Page\n\n${latex}$\n")
    assert latex in warnings
