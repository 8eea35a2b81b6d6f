"""Every notebook is executed on a study of seconds, and its sentences say what the tables say."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from html import unescape
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from filelock import FileLock
from markdown_it import MarkdownIt

import sentences
from phaselab.book import runner
from phaselab.phases import triple_phase_test
from phaselab.results import Store, digest_file
from phaselab.study import digest_of, load_study
from sentences import curves_of, numbers, steps_of
from tiny import LABEL, TINY, sweep, with_

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.md"))
#: A task of one's own whose names and options are made to break pages.
TASK = """\
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: questions.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
"""
QUESTION = {"question": f"- where? {LABEL}", "choices": [f"key {LABEL}", "lamp `$x$` **y"], "answer": 0}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Study file and results of the tiny study, and published tables, made once for all workers of a session."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if base.name.startswith("popen-") else base
    study = base / "tiny.yaml"
    with FileLock(base / "tiny.lock"):
        if not study.is_file():
            (base / "questions.jsonl").write_text(json.dumps(QUESTION) + "\n")
            (base / "mine.yaml").write_text(TASK)
            tasks = [*TINY["tasks"], {"name": "mine", "file": str(base / "mine.yaml")}]
            labels = [("title", LABEL), ("models.0.label", LABEL), ("models.1.label", f"{LABEL} 2")]
            content = yaml.safe_dump(with_(*labels, ("tasks", tasks)), allow_unicode=True)
            (base / "aside.yaml").write_text(content)
            outcome = sweep(load_study(base / "aside.yaml"), Store(base / "results"))
            assert not outcome.failures
            fewer_tables(base / "tables")
            study.write_text(content)
    return base


def behaviour(text: str, folder: Path) -> None:
    """Following and right answers at the last checkpoint, from the items themselves; steps of accuracy."""
    files = sorted((folder / "results" / "tiny" / "one").glob("*/behaviour/items.parquet"), key=steps_of)
    items = [pd.read_parquet(file) for file in files]
    last = items[-1].groupby("task")[["follows", "correct"]].mean().mean()
    said = numbers(text, r"follows the instruction in #% of the items and is right in #%")
    assert said == [round(100 * last["follows"]), round(100 * last["correct"])]
    steps = pd.Series([table[table["task"] == "reading"]["correct"].mean() for table in items]).diff().iloc[1:]
    said = numbers(text, r"In \*reading\* the largest step of accuracy between two checkpoints is #,")
    assert abs(said[0]) == pytest.approx(steps.abs().max(), abs=0.0051)


def phase_one(text: str, folder: Path) -> None:
    """The verdict, and its p-values where something was tested."""
    row = triple_phase_test(curves_of(folder, "one"), "one").table.set_index("phase").loc[1]
    assert f"is **{row['verdict']}** in one. {row['why']}" in " ".join(text.split())
    if np.isnan(row["p"]):  # no p of a test that was not made
        assert "Test: p" not in text
    else:
        assert numbers(text, r"Test: p = #[,.]") == [float(f"{row['p']:.2g}")]
    assert numbers(text, r"the layer at #% of the depth") == [67]


CHECKS: dict[str, Callable[[str, Path], None]] = {
    **sentences.CHECKS,
    "05_behaviour": behaviour,
    "06_phase_one": phase_one,
}


def glued_text(output: nbformat.NotebookNode) -> str:
    """What a page keeps for its text by ``lab.glue``."""
    return next(value for name, value in output.data.items() if name.endswith("text/plain"))


def as_text(html: str) -> str:
    """What a reader sees of HTML, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


def fewer_tables(target: Path) -> None:
    """The published tables, with fewer models in the two that take longest."""
    shutil.copytree(ROOT / "book" / "data", target)
    zero_shot, vision = (pd.read_csv(target / name) for name in ("pythia/zero_shot.csv", "vision_brain/scores.csv"))
    tasks = ["lambada_openai", "logiqa", "sciq"]
    few = zero_shot[zero_shot["model"].isin(["70m", "160m"]) & zero_shot["task"].isin(tasks)]
    few.to_csv(target / "pythia" / "zero_shot.csv", index=False)
    few = vision[vision["model_id"].str.startswith(("convnext_large", "dino_vit_base"))]
    few.to_csv(target / "vision_brain" / "scores.csv", index=False)


def of_book(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Take the page from the book that was built here, of the same source, code and tables; whether it has one."""
    (results := output.parents[2]).mkdir()
    (results / "demo").symlink_to(ROOT / "results" / "demo")
    tables = digest_of([digest_file(ROOT / name) for name in ("book/data", "published", "benchmarks/results")])
    with monkeypatch.context() as patch, suppress(ZeroDivisionError):
        patch.setattr(runner, "_run", lambda *what: 1 / 0)
        return not runner.execute(source, output, {}, tables)
    return False


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_page_is_executed_and_says_what_the_tables_say(
    source: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # from where some pages read published tables and kept results
    given = {"study": str(folder / "tiny.yaml"), "results": str(folder / "results")}
    output = tmp_path / "results" / "here" / "pages" / f"{source.stem}.ipynb"
    if "\ntables: str" in source.read_text():
        given["tables"] = str(folder / "tables")
    if 'study: str = "published:' in source.read_text():
        given.pop("study")  # a page of one published study, which the book has executed too
    if given.keys() != {"results"} or not of_book(source, output, monkeypatch):
        assert runner.execute(source, output, given)
    cells = nbformat.read(output, as_version=4).cells
    outputs = [o for cell in cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    shown = [o.data.get("text/markdown") or o.data.get("text/html", "") for o in outputs if "data" in o]
    glued = [o for o in outputs if "scrapbook" in o.get("metadata", {})]
    kept = [f"{o.metadata['scrapbook']['name']}: {glued_text(o)}" for o in glued]
    CHECKS.get(source.stem, lambda text, folder: None)("\n".join([*shown, *kept]), folder)

    markdown = [
        MarkdownIt("commonmark").render(o.data["text/markdown"])
        for o in outputs
        if "text/markdown" in o.get("data", {})
    ]
    html = [*markdown, *(o.data["text/html"] for o in outputs if "text/html" in o.get("data", {}))]
    assert not [part for part in html if "<script>alert" in part]
    if markdown and "study" in given and "lab.about()" in source.read_text():
        assert " ".join(LABEL.split()) in as_text(markdown[0])
