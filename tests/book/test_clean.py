"""Clean notebooks, buttons of pages, the reference of functions, and the package without a checkout."""

from __future__ import annotations

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

from phaselab import files
from phaselab import study as specs
from phaselab.book import runner
from phaselab.study import StudyError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import clean_notebooks  # noqa: E402
import reference  # noqa: E402

sys.path.remove(str(ROOT / "book" / "_ext"))
SOURCES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.md"))
PAGE = """\
(nb-page)=
# A page

See {numref}`fig-a`, {ref}`the method <method>`, {term}`TRs <TR>` and {glue:text}`n` models {cite:p}`a2020`.

````{exercise} Try it
:label: ex-a
How many?

```python
n = 1
```
````

````{solution} ex-a
:class: dropdown
Seven.
````
"""


def executed(study: str = "demo") -> Any:
    """A page as papermill leaves it."""
    make, glued = nbformat.v4.new_code_cell, nbformat.v4.new_output("display_data", {"text/plain": "'4'"})
    glued.metadata["scrapbook"] = {"name": "n"}
    given = 'study: str = "demo"  # embedded study\nmodel: str = ""  # one model'
    cells = [
        nbformat.v4.new_markdown_cell(PAGE),
        make(given, metadata={"tags": ["parameters"]}),
        make(f'study = "{study}"', metadata={"tags": ["injected-parameters", "remove-cell"]}),
        make("lab.glue('n', 4)", outputs=[glued], execution_count=3),
    ]
    about = {"source": "11_model_page.md", "parameters": {"study": study, "model": 'a "b"', "results": "results"}}
    return nbformat.v4.new_notebook(cells=cells, metadata={"phaselab": about})


def test_a_clean_notebook_runs_anywhere_on_published_results() -> None:
    notebook = clean_notebooks.clean(executed(), "install")
    nbformat.validate(notebook)
    sources = [cell.source for cell in notebook.cells]
    assert sources[0] == "install"
    assert sources[2] == 'study: str = "published:demo"  # embedded study\nmodel: str = "a \\"b\\""  # one model'
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
    assert len(sources) == 4  # none of papermill
    text = sources[1]
    assert text.startswith("# A page\n\nSee the figure, the method, TRs and 4 models a2020.")
    assert "**Exercise: Try it.** How many?\n\n```python\nn = 1\n```" in text
    assert "<details><summary>Solution</summary>\n\nSeven.\n\n</details>" in text
    students = clean_notebooks.clean(executed(), "install", hide=True).cells[1].source
    assert "Seven" not in students
    assert "Solution" not in students
    assert "How many?" in students


@pytest.mark.parametrize("study", ["mine.yaml", "detachment"])
def test_a_study_without_a_published_sample_stays_the_page_s_own(study: str) -> None:
    assert f'study: str = "{study}"' in clean_notebooks.clean(executed(study), "").cells[2].source


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_of_sphinx_is_left_in_a_clean_notebook(path: Path) -> None:
    cells = clean_notebooks.clean(jupytext.read(path), "install").cells
    left = [found for cell in cells if cell.cell_type == "markdown" for found in LEFT.findall(cell.source)]
    assert not left


LEFT = re.compile(r"\{[\w:]+\}`[^\n]*|^[`:]{3,}\{.*|^\([\w-]+\)=", re.M)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("https://github.com/owner/name", "https://github.com/owner/name"),
        ("https://github.com/owner/name.git/", "https://github.com/owner/name.git"),
        ("https://github.com/owner/name.git", "https://github.com/owner/name"),
        ("git@github.com:owner/name.git", "https://github.com/owner/name"),
        ("ssh://git@gitlab.com/group/part/name.git", "https://gitlab.com/group/part/name"),
        ("https://someone:secret@github.com/owner/name", "https://github.com/owner/name"),
        ("/home/me/name", ""),
        ("", ""),
        ("javascript:alert(1)", ""),
    ],
)
def test_the_address_of_the_repository(
    given: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHASELAB_REPOSITORY", given)
    assert clean_notebooks.repository(tmp_path) == address.removesuffix(".git")
    monkeypatch.delenv("PHASELAB_REPOSITORY")
    clean_notebooks.git.cache_clear()
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", given or "."], check=True)
    assert clean_notebooks.repository(tmp_path) == address.removesuffix(".git")
    (tmp_path / "part").mkdir()
    assert clean_notebooks.repository(tmp_path / "part") == ""  # a book in somebody else's checkout
    first = clean_notebooks.install(tmp_path)
    assert ("git+" + address.removesuffix(".git") in first) == bool(address)
    compile(first.replace("%pip", "pass  # pip"), "first cell", "exec")


def built(folder: Path, *, strict: bool, **files: str) -> tuple[Path, str]:
    """Build pages with the theme of the book; the folder of HTML, and the warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path = path.with_suffix(".ipynb" if text.startswith("{") else ".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "index.md").write_text("# Book\n\n```{toctree}\n:glob:\nbook/*\nbook/*/*\nbook/*/*/*\n```\n")
    settings = {
        "extensions": ["myst_nb", "sphinx_exercise", "phaselab_book"],
        "html_theme": "sphinx_book_theme",
        "html_math_renderer": "mathml",
        "nb_execution_mode": "off",
        "nitpicky": strict,
        "nitpick_ignore_regex": [("py:(class|data|obj)", ".*")],
        "default_role": "code",
    }
    warnings, out = StringIO(), folder / "out"
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    with docutils_namespace():
        places = (str(folder), None, str(out), str(folder / "trees"))
        Sphinx(*places, "html", settings, status=None, warning=warnings).build()
    sys.path.remove(str(ROOT / "book" / "_ext"))
    return out, warnings.getvalue()


def page(source: str) -> str:
    """An executed page of a few cells."""
    cells = [nbformat.v4.new_markdown_cell("# A page"), nbformat.v4.new_code_cell(source)]
    about = {"phaselab": {"source": "11_model_page.md", "parameters": {"study": "demo"}}}
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=about))


def links(html: str) -> dict[str, str]:
    """Text of each button of the header -> where it leads."""
    header = html.partition('class="article-header-buttons"')[2].partition("</main>")[0]
    assert "<img" not in header.partition("bd-article")[0]  # icons of the font, which weigh nothing more
    found = re.findall(r'<a href="([^"]*)"[^>]*>(.*?)</a>', header, re.S)
    return {" ".join(re.sub(r"<[^>]+>", "", text).split()): to for to, text in found}


def test_pages_have_buttons_that_lead_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, given = "book__executed__models__one", page("from phaselab.features import extract\nextract")
    monkeypatch.setenv("PHASELAB_REPOSITORY", "")
    out, _ = built(tmp_path / "plain", strict=False, book__method="# Method\n", **{name: given})
    found = links((out / "book/executed/models/one.html").read_text("utf-8"))
    assert {*found} == {"clean .ipynb", ".ipynb"}
    clean = nbformat.read((out / "book/executed/models" / found["clean .ipynb"]).resolve(), as_version=4)
    assert "extract" in clean.cells[-1].source
    assert "clean .ipynb" not in links((out / "book/method.html").read_text("utf-8"))

    monkeypatch.setenv("PHASELAB_REPOSITORY", "https://github.com/owner/name")
    out, _ = built(tmp_path / "placed", strict=False, book__method="# Method\n", **{name: given})
    found = links((out / "book/executed/models/one.html").read_text("utf-8"))
    at = "https://github.com/owner/name"
    assert found["Repository"] == at
    assert found["Suggest edit"] == f"{at}/edit/main/notebooks/11_model_page.md"
    assert found["Binder"] == "https://mybinder.org/v2/gh/owner/name/notebooks?urlpath=lab/tree/models/one.ipynb"
    assert found["Colab"].endswith("/github/owner/name/blob/notebooks/models/one.ipynb")
    found = links((out / "book/method.html").read_text("utf-8"))
    assert found["Suggest edit"] == f"{at}/edit/main/book/method.md"
    assert "Binder" not in found

    monkeypatch.setenv("PHASELAB_REPOSITORY", "https://code.example.org/owner/name")
    out, _ = built(tmp_path / "elsewhere", strict=False, **{name: given})
    assert {*links((out / "book/executed/models/one.html").read_text("utf-8"))} == {
        "clean .ipynb",
        ".ipynb",
        "Repository",
    }


def test_the_reference_has_all_functions_and_cells_link_to_it(tmp_path: Path) -> None:
    source = "from phaselab.features import extract, to_trs\nfrom phaselab import figures\nextract\nfigures.by_region"
    text = (ROOT / "book" / "reference.md").read_text(encoding="utf-8")
    pages = {"book__reference": text, "book__executed__one": page(source)}
    out, warnings = built(tmp_path, strict=True, **pages)
    assert not re.findall("docstring of|reference target|reference.md", warnings), warnings
    html = (out / "book/executed/one.html").read_text("utf-8")
    for name in ("features.extract", "figures.by_region"):
        assert f'href="../reference.html#phaselab.{name}"' in html
    assert "#phaselab.features.to_trs" not in html  # imported, and not used
    listed = (out / "book/reference.html").read_text("utf-8")
    assert 'id="phaselab.phases.fit_transitions"' in listed
    assert "ArrayLike" in listed
    # Nothing is taken apart that a reader knows by its name, and no field stands inside the text of another.
    said = re.sub(r"<[^>]*>", "", listed)
    assert not re.findall(r"_Buffer|_NestedSequence|dtype\[|functools|PhaseSpec\(\w+=|[\w`] : ", said)
    assert "<blockquote" not in listed


def test_what_pages_import_is_in_the_reference() -> None:
    wanted: set[str] = set()
    for path in SOURCES:
        for cell in (cell for cell in jupytext.read(path).cells if cell.cell_type == "code"):
            known: dict[str, str] = {}
            reference.used(cell.source, known)
            wanted |= {*known.values()}
    assert reference.home("phaselab.figures.brain_curve") == "phaselab.curves.brain_curve"
    lacking = {
        name
        for name in map(reference.home, wanted)
        if not reference.role_of(name) and name.rpartition(".")[0] in reference.MODULES
    }
    assert lacking <= {"phaselab.results.Store", "phaselab.results.digest_code", "phaselab.results.read_manifest"} | {
        f"phaselab.study.{name}" for name in ("EncodingSpec", "FeatureSpec", "InternalSpec", "Training", "digest_of")
    }
    assert all(reference.public(name) for name in reference.MODULES)


def test_a_wheel_puts_the_sources_of_the_book_where_they_can_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, here = tmp_path / "site" / "phaselab" / "_book", tmp_path / "here"
    (own / "notebooks").mkdir(parents=True)
    (own / "published" / "there").mkdir(parents=True)
    (own / "_toc.yml").write_text("root: a\n")
    (own / "notebooks" / "01_a.md").write_text("# A\n")
    (own / "published" / "there" / "study.yaml").write_text("name: there\n")
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(StudyError, match=r"--root: found no _toc\.yml in .*here, expected a checkout"):
        runner.sources(here)
    for module in (files, runner, specs):
        monkeypatch.setattr(module, "BOOK", own)
    assert runner.sources(own) == own
    root = runner.sources(here)
    assert root == here / "phaselab-book"
    (root / "notebooks" / "01_a.md").write_text("# Mine\n")
    assert (runner.sources(here) / "notebooks" / "01_a.md").read_text() == "# Mine\n"
    assert files.shipped("notebooks/01_a.md") == own / "notebooks" / "01_a.md"
    assert files.shipped("notebooks/02_b.md") == Path("notebooks/02_b.md")
    assert specs.published() == {"published:there": own / "published" / "there" / "study.yaml"}
    (here / "notebooks").mkdir()
    (here / "notebooks" / "01_a.md").write_text("# Here\n")
    assert files.shipped("notebooks/01_a.md") == Path("notebooks/01_a.md")
