"""Labels with signs that mean something to Markdown, HTML, rich or a shell are shown as they stand, everywhere.

What pages and figures do with one: tests/book/test_pages.py, whose study has them, and tests/figures.
"""

from __future__ import annotations

import re
from html import unescape
from io import StringIO
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from myst_parser.config.main import MdParserConfig
from myst_parser.mdit_to_docutils.base import DocutilsRenderer
from myst_parser.parsers.mdit import create_md_parser
from rich.console import Console

from phaselab.book import Lab, interactive, plain, runner
from phaselab.cli.common import facts
from phaselab.results import Store
from phaselab.stages import Workbench
from phaselab.study import Study, load_study
from tiny import LABEL, TINY, sweep, with_

ROOT = Path(__file__).parents[2]
EXTENSIONS = yaml.safe_load((ROOT / "_config.yml").read_text())["parse"]["myst_enable_extensions"]
ONE_LINE = " ".join(LABEL.split())


def as_text(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


def test_a_label_in_markdown_is_itself() -> None:
    html = MarkdownIt("commonmark").render(
        f"In **{plain(LABEL)}**, {plain(LABEL)}.\n\n- {plain(LABEL)}\n\n> {plain(LABEL)}"
    )
    assert set(re.findall(r"<(\w+)", html)) == {"p", "strong", "ul", "li", "blockquote"}
    assert as_text(html) == f"In {ONE_LINE}, {ONE_LINE}. {ONE_LINE} {ONE_LINE}"


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_any_text_in_markdown_is_itself(text: str) -> None:
    for parser in (
        MarkdownIt("commonmark"),
        create_md_parser(MdParserConfig(enable_extensions=EXTENSIONS), DocutilsRenderer),
    ):
        tokens = parser.parse(plain(text))
        inside = [child for token in tokens for child in token.children or ()]
        assert {token.type for token in tokens} <= {"paragraph_open", "inline", "paragraph_close", "front_matter"}
        assert {child.type for child in inside} <= {"text"}
        assert "".join(child.content for child in inside).split() == text.split()


def lab(tmp_path: Path, *changes: tuple[str, object]) -> Lab:
    return Lab(Study.model_validate(with_(*changes)), Store(tmp_path))


def test_the_head_and_tables_of_a_page(tmp_path: Path) -> None:
    own = lab(tmp_path, ("models.0.label", LABEL))
    assert ONE_LINE in as_text(MarkdownIt("commonmark").render(own.about().data))
    html = own.table([{LABEL: LABEL}]).data
    assert html.count("&lt;script&gt;") == 2
    assert "<script" not in html
    assert "mathjax_ignore" in html
    own.parameters["curves"] = LABEL
    assert "<script" not in own.stamp().data


def test_labels_of_a_study_are_distinct(tmp_path: Path) -> None:
    own = lab(tmp_path, ("models.0.label", "a"), ("models.1.label", "a"))
    assert own.labels == {"one": "a (one)", "two": "a (two)"}


def test_interactive_figures_draw_labels(tmp_path: Path) -> None:
    import plotly.graph_objects as go

    html = interactive(go.Figure(), name="x", alt=LABEL).data
    assert "<script>alert" not in html
    assert '"typesetMath": false' in html


def test_the_command_line_prints_labels(tmp_path: Path) -> None:
    said = StringIO()
    Console(file=said, width=400, emoji=False).print(facts(LABEL, {LABEL: LABEL, "b": [LABEL, ":bell: [/]"]}))
    assert said.getvalue().count(LABEL) == 4
    assert ":bell: [/]" in said.getvalue()


def test_names_that_differ_in_case_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="expected distinct names"):
        Study.model_validate(with_(("models.1.name", "One")))


# --------------------------------------------------------------------------- a model named my-model


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with four checkpoints of a trained model, as one's own."""
    train = {**TINY["models"][0]["train"], "checkpoints": 4}
    study = Study.model_validate(with_(("models", [{"name": "other", "train": train}])))
    return Workbench(study, Store(tmp_path_factory.mktemp("made"))).folder(study.models[0])


@pytest.mark.parametrize("others", [[], TINY["models"][:1]], ids=["alone, no tasks", "with a model and tasks"])
def test_the_page_about_a_model_of_ones_own_is_made_for_one(others: list[Any], mine: Path, tmp_path: Path) -> None:
    """It writes a study with a model called my-model, whatever that of the page is called."""
    model = {"name": "my-model", "label": "My model", "folder": str(mine), "checkpoints": "log:20"}
    content = with_(("models", [model, *others]), ("tasks", TINY["tasks"] if others else []))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    study, store, page = load_study(tmp_path / "study.yaml"), Store(tmp_path / "results"), tmp_path / "page.ipynb"
    assert sweep(study, store).failures == {}
    given = {"study": str(tmp_path / "study.yaml"), "results": str(store.root)}
    assert runner.execute(ROOT / "notebooks" / "10_your_own_model.md", page, given)
    outputs = [output for cell in nbformat.read(page, 4).cells for output in cell.get("outputs", ())]
    markdown = [output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    written = yaml.safe_load(
        next(text for text in markdown if "name: my_study" in text).strip("`").removeprefix("yaml")
    )
    assert [m["name"] for m in written["models"]] == ["my-model", "olmo2-1b"]
