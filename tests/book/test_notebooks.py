"""Notebooks: parameters are checked, copies are clean, nothing runs twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from io import StringIO
from pathlib import Path
from typing import Any

import jupytext
import papermill
import pytest
from rich.console import Console

from phaselab.book import runner
from phaselab.book.lab import Lab
from phaselab.book.runner import check_parameters, execute, parameters_of
from phaselab.errors import PhaselabError
from phaselab.results import Store
from phaselab.study import Study, load_study
from phaselab.sweep.workers import Task

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("*.md"))

NOTEBOOK = """\
---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {name: python3, display_name: Python 3, language: python}
---

# Title

```{code-cell} ipython3
:tags: [parameters]

study: str = "demo"  # embedded study
model: str = ""  # one model
top: int = 3  # how many
share: float = 0.5
```

```{code-cell} ipython3
from phaselab.book import begin

lab = begin()
print(lab.study.name, lab.model.name, lab.parameters, top * 2)
```
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "nb.md"
    path.write_text(NOTEBOOK)
    return path


def printed(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    return "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))


def test_parameters_are_read_with_type_default_and_help(source: Path) -> None:
    known = parameters_of(jupytext.read(source), "nb")
    assert list(known) == ["study", "model", "top", "share"]
    assert (known["top"].inferred_type_name, known["top"].default, known["top"].help) == ("int", "3", "how many")


def test_strings_are_read_as_the_type_asks(source: Path) -> None:
    known = parameters_of(jupytext.read(source), "nb")
    assert check_parameters(known, {"top": "7", "share": "0.25", "model": "3"}, "nb") == {
        "top": 7,
        "share": 0.25,
        "model": "3",
    }


def wait_for(true: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_kernel_ends_with_the_process_that_began_it(source: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    slow = f"import os, time; open({str(told)!r}, 'w').write(f'{{os.getpid()}} {{os.getppid()}} .'); time.sleep(600)"
    source.write_text(NOTEBOOK.replace("lab = begin()", slow))
    code = "import sys, pathlib, phaselab.book.runner; "
    code += "phaselab.book.runner.execute(*map(pathlib.Path, sys.argv[1:]), {})"
    with subprocess.Popen([sys.executable, "-c", code, str(source), str(tmp_path / "out.ipynb")]) as process:
        wait_for(lambda: told.is_file() and told.read_text().endswith("."))
        pids = told.read_text().split()[:2]
        assert not any(map(ended, pids))
        process.kill()
    for pid in pids:
        wait_for(lambda pid=pid: ended(pid))


class Here(AbstractContextManager["Here"]):
    """For ``Workers``: each task in this process, which need not import everything anew."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, waiting: deque[Task]) -> Iterator[tuple[Task, Any, str, str]]:
        for task in waiting:
            yield task, task.function(*task.arguments), "", ""


@pytest.mark.parametrize(("device", "many"), [("cpu", True), ("cuda", False), ("auto", False)])
def test_kernels_that_may_use_cuda_import_what_looks_for_it_by_themselves(
    device: str, many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def workers(*_: object, setting: Any, **__: object) -> None:
        asked.append(setting)
        raise PhaselabError("enough")

    monkeypatch.setattr(runner, "Workers", workers)
    for name in (*(f"{n:02}_page" for n in range(runner.MANY + 1)), runner.MODEL_PAGE):
        (tmp_path / f"{name}.md").write_text(NOTEBOOK)
    given, store = {"study": "demo", "device": device}, Store(tmp_path / "results")
    with pytest.raises(PhaselabError, match="enough"):
        runner.execute_pages(load_study("demo"), tmp_path, store, given, 1, Console(file=StringIO()))
    assert asked == [(many,)]


def test_a_page_of_published_tables_is_executed_when_they_change_and_once_for_all_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "Workers", Here)
    (tmp_path / "notebooks").mkdir()
    of_tables = NOTEBOOK.replace('"demo"', '"published:detachment"')
    for name, text in {"01_own": NOTEBOOK, "02_tables": of_tables, runner.MODEL_PAGE: NOTEBOOK}.items():
        (tmp_path / "notebooks" / f"{name}.md").write_text(text)
    demo, store, given = load_study("demo"), Store(tmp_path / "results"), {"study": "demo"}

    def executed(study: str) -> list[str]:
        said, named = StringIO(), demo.model_copy(update={"name": study, "models": demo.models[:1]})
        console = Console(file=said, width=200)
        pages = ["01_own.ipynb", "02_tables.ipynb"]
        assert runner.execute_pages(named, tmp_path / "notebooks", store, given, 2, console, pages) == {}
        assert {path.name for path in (store.study(study) / "pages").glob("*.ipynb")} == {*pages}
        return sorted(re.findall(r"executed (\w+)", said.getvalue()))

    assert executed("demo") == ["01_own", "02_tables"]
    assert executed("other") == ["01_own"]
    texts = [(store.study(study) / "pages" / "02_tables.ipynb").read_bytes() for study in ("demo", "other")]
    assert texts[0] == texts[1]
    for folder in ("book/data", "published", "benchmarks/results"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "table.csv").write_text("1\n")
        assert executed("other") == ["01_own", "02_tables"]
        assert executed("other") == []
    assert executed("demo") == ["01_own"]  # the other is taken


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"modle": "x"},
            r"nb: unknown parameter 'modle'; expected one of\n  study: str = \"demo\"  embedded study",
        ),
        ({"top": "three"}, r"parameter 'top': found 'three' \(str\), expected int"),
        ({"top": 2.5}, r"parameter 'top': found 2.5 \(float\), expected int"),
        ({"study": 3}, r"parameter 'study': found 3 \(int\), expected str"),
    ],
)
def test_unknown_or_mistyped_is_refused_with_the_list(source: Path, given: dict[str, object], expected: str) -> None:
    known = parameters_of(jupytext.read(source), "nb")
    with pytest.raises(PhaselabError, match=expected) as caught:
        check_parameters(known, given, "nb")
    assert all(name in str(caught.value) for name in known)


def test_no_parameters_cell_is_said(tmp_path: Path) -> None:
    path = tmp_path / "nb.md"
    path.write_text(NOTEBOOK.replace("parameters]", "other]"))
    with pytest.raises(ValueError, match=r"nb: no cell with the tag 'parameters'"):
        parameters_of(jupytext.read(path), "nb")


def test_executed_copy_has_the_values_and_no_traces_of_the_machine(source: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "a.ipynb", tmp_path / "b.ipynb"]
    for output in outputs:
        assert execute(source, output, {"model": "neox-en-s1", "top": "4"})
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert printed(outputs[0]) == "demo neox-en-s1 {'top': 4, 'share': 0.5} 8\n"
    text = outputs[0].read_text()
    assert str(tmp_path) not in text
    assert "start_time" not in text
    assert "execution_start" not in text


def test_run_again_only_when_something_changed(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    assert execute(source, output, {}, results_digest="a")
    assert not execute(source, output, {}, results_digest="a")
    assert execute(source, output, {}, results_digest="b")
    assert execute(source, output, {"top": 9}, results_digest="b")
    source.write_text(NOTEBOOK + "\nMore.\n")
    assert execute(source, output, {"top": 9}, results_digest="b")


def test_a_failing_cell_leaves_the_old_copy_and_keeps_the_failed_one(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    execute(source, output, {})
    before = output.read_bytes()
    with pytest.raises(papermill.PapermillExecutionError, match="found 'nobody', expected one of neox-en-s0"):
        execute(source, output, {"model": "nobody"})
    assert output.read_bytes() == before
    assert output.with_suffix(".failed.ipynb").is_file()


def test_a_kernel_that_is_still_sending_its_last_answer_is_not_interrupted(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # What happens on a machine with much to do: the answer is out before its handler has ended.
    slow = """
```{code-cell} ipython3
import time

handlers = get_ipython().kernel.shell_handlers
answer = handlers["kernel_info_request"]


async def slowly(*asked):
    await answer(*asked)
    time.sleep(0.5)


handlers["kernel_info_request"] = slowly
```
"""
    source.write_text(NOTEBOOK + slow)
    assert execute(source, tmp_path / "out.ipynb", {})
    assert "KeyboardInterrupt" not in capfd.readouterr().err


def test_pages_are_executed_once_and_placed(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    broken = tmp_path / "notebooks" / "01_first.md"
    broken.write_text(NOTEBOOK.replace("top * 2", "top / 0").replace("# Title", "(nb-first)=\n# Title"))
    (tmp_path / "notebooks" / f"{runner.MODEL_PAGE}.md").write_text(NOTEBOOK)
    demo, store, said = load_study("demo"), Store(tmp_path / "results"), StringIO()
    study, own = demo.model_copy(update={"models": demo.models[:1]}), {"study": "demo"}
    model, console = f"models/{study.models[0].name}.ipynb", Console(file=said, width=200)
    assert runner.execute_pages(study, tmp_path / "notebooks", store, own, 2, console, [model]) == {}
    assert said.getvalue().count("executed") == 1
    with pytest.raises(PhaselabError, match=f"--page: found 02_none.ipynb, expected some of 01_first.ipynb, {model}"):
        runner.execute_pages(study, tmp_path / "notebooks", store, own, 2, console, ["02_none.ipynb"])
    failed = runner.execute_pages(study, tmp_path / "notebooks", store, own, 2, console)
    assert list(failed) == ["01_first.ipynb"]
    assert "failed 01_first.ipynb" in said.getvalue()
    # The page says so itself, under its own title and label.
    placed = tmp_path / "book" / "executed"
    placed.mkdir(parents=True)
    (placed / "old.ipynb").touch()
    given = {"study": "my study.yaml", "results": "results", "data": "", "device": "cpu"}
    runner.place_pages(study, store, tmp_path, given, failed)
    assert sorted(p.relative_to(placed).as_posix() for p in placed.rglob("*.ipynb")) == ["01_first.ipynb", model]
    (cell,) = json.loads((placed / "01_first.ipynb").read_text())["cells"]
    notice = "".join(cell["source"])
    assert notice.startswith("(nb-first)=\n# Title\n")
    assert "ZeroDivisionError" in notice
    assert "phaselab notebook notebooks/01_first.md -p study='my study.yaml'\n" in notice
    other = (placed / model).read_text()
    assert json.loads(other)["cells"] != [cell]
    # Made good, it is a page again; the other one stands as it was.
    broken.write_text(NOTEBOOK)
    for _ in range(2):
        assert runner.execute_pages(study, tmp_path / "notebooks", store, own, 2, console) == {}
    assert sorted(line for line in said.getvalue().splitlines() if line.startswith("executed")) == [
        "executed 01_first.ipynb",
        f"executed {model}",
    ]
    runner.place_pages(study, store, tmp_path, given, {})
    assert len(json.loads((placed / "01_first.ipynb").read_text())["cells"]) > 1
    assert (placed / model).read_text() == other


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"modle": "x"}, "unknown parameter 'modle'"),
        ({"x" * 999: ""}, "unknown parameter 'x{97}[.]{3}x{98}'; expected"),
        ({"top": "many"}, "found 'many' .str., expected int"),
    ],
)
def test_plain_papermill_is_refused_too(source: Path, tmp_path: Path, given: dict[str, str], expected: str) -> None:
    raw = tmp_path / "nb.ipynb"
    jupytext.write(jupytext.read(source), raw)
    with pytest.raises(papermill.PapermillExecutionError, match=expected):
        papermill.execute_notebook(raw, tmp_path / "out.ipynb", parameters=given, progress_bar=False)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_every_notebook_has_the_common_parameters(path: Path) -> None:
    known = parameters_of(jupytext.read(path), path.name)
    assert {"study", "model", "results", "data", "device"} <= set(known)
    assert all(p.inferred_type_name in ("str", "int", "float", "bool") and p.help for p in known.values())


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_lines_of_notebooks_end_at_column_120(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    assert [number for number, line in lines if len(line) > 120 and "http" not in line] == []


def found(tmp_path: Path, **model: object) -> Lab:
    content = {
        "name": "mine",
        "title": "Mine",
        "brain": {"name": "simulated"},
        "models": [{"name": "m", **model}],
    }
    return Lab(Study.model_validate(content), Store(tmp_path))


def test_a_model_from_a_hub_says_where_it_comes_from(tmp_path: Path) -> None:
    of_row = found(tmp_path, family="olmo2-1b", checkpoints="log:20").origin()
    assert of_row["repository"] == "allenai/OLMo-2-0425-1B, allenai/OLMo-2-0425-1B-early-training"
    assert (of_row["architecture"], of_row["checkpoints"]) == ("Olmo2ForCausalLM", "log:20")
    of_no_row = found(tmp_path, repository="me/mine").origin()
    assert of_no_row["repository"] == "me/mine"
    assert "licence" not in of_no_row  # nothing is known, and nothing is made up
    assert found(tmp_path, folder="/somewhere/run").origin()["folder"] == "run"
    assert Lab(load_study("demo"), Store(tmp_path)).origin()["architecture"] == "gpt_neox"


@pytest.mark.parametrize("text", ["5", "{}", "[1]", '[{"step": 1, "tokens": 2, "loss": 3.0}]', "[" * 10**5])
def test_a_record_of_losses_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(PhaselabError, match=rf"^{tmp_path}/training.json: "):
        found(tmp_path, folder=str(tmp_path)).loss()


def test_what_is_said_is_said_once_a_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = found(tmp_path, repository="me/mine")
    for line in ("left out main", "left out main", "another"):
        lab.bench.say(line)
    assert capsys.readouterr().out == "left out main\nanother\n"
