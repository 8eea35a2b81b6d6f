"""Models that somebody adds: found in a folder, alone or beside others; the whole of it is in added_models.py."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import transformers
import yaml
from typer.testing import CliRunner

import shell
from films_book import save
from phaselab.cli import app
from phaselab.errors import PhaselabError
from phaselab.phases import surges
from phaselab.phases.transitions import fit_transitions
from phaselab.results import Store, read_manifest
from phaselab.stages import STAGES, Workbench, check
from phaselab.study import Study, StudyError, load_study
from tiny import TINY, make, with_

ROOT = Path(__file__).parents[2]


def found(folder: Path, *revisions: str, config: Any = transformers.GPTNeoXConfig) -> Path:
    for seed, revision in enumerate(revisions):
        save(folder / revision, config, seed)
    return folder


def study_of(folder: Path, name: str = "mine", **changes: Any) -> Study:
    """A study of one model that was found; its file is in `folder`."""
    model = {"name": "my-model", "folder": "my-model", "label": "<b>\"q\" 'モデル'"}
    content = copy.deepcopy(TINY) | {"name": name, "models": [model], "tasks": []} | changes
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return load_study(folder / f"{name}.yaml")


def test_pages_of_a_model_alone_with_one_checkpoint_and_no_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found(tmp_path / "my-model", "step10-tokens1K")
    study, store = study_of(tmp_path), Store(tmp_path / "results")
    make(study, store, "my-model")
    assert shell.run_pages(study, tmp_path / "mine.yaml", store.root, ROOT / "notebooks", "09_") == {}


def test_of_a_study_of_which_nothing_could_be_made_there_is_no_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_of(tmp_path)
    (tmp_path / "_toc.yml").write_text("root: a\n")
    monkeypatch.setattr("phaselab.cli.run._sweep", lambda *_, **__: False)
    monkeypatch.setattr("phaselab.book.runner.execute_pages", lambda *_: pytest.fail("pages were executed"))
    options = ["--root", str(tmp_path), "--results", str(tmp_path / "results")]
    result = CliRunner().invoke(app, ["book", str(tmp_path / "mine.yaml"), *options], env={"COLUMNS": "500"})
    assert "mine.yaml: models: found no result of any of them, expected some" in result.output
    assert result.exit_code == 2


def test_a_curve_that_is_not_there_has_no_surge() -> None:
    assert surges(fit_transitions([], [])) == []


def test_the_same_is_taken_from_another_study_and_another_name(tmp_path: Path) -> None:
    found(tmp_path / "my-model", "step0-tokens0", "step10-tokens1K")
    tasks = [{"name": "facts", "items": 8}]
    first, store = study_of(tmp_path, "first", tasks=tasks), Store(tmp_path / "results")
    made = make(first, store, "my-model")
    other = [{"name": "renamed", "folder": "my-model"}]
    second, told = study_of(tmp_path, "second", tasks=tasks, models=other), list[str]()
    bench = Workbench(second, store, say=told.append)
    assert made == 7
    assert sum(bench.make(second.models[0], at) for at in (*bench.checkpoints(second.models[0]), None)) == 0
    assert set(told) == {"what is the same in first is taken from there"}
    for file in sorted((store.root / "first").rglob("*.parquet")):
        copied = store.root / "second" / "renamed" / file.relative_to(store.root / "first" / "my-model")
        before, after = pd.read_parquet(file), pd.read_parquet(copied)
        if "study" in before:
            column = "task" if file.name == "controls.parquet" else "model"
            assert set(after[column]) == {"renamed"}
            before = before.assign(**{"study": "second", column: "renamed"})
        pd.testing.assert_frame_equal(before, after)
        manifests = [read_manifest(path.parent) for path in (file, copied)]
        assert manifests[0]["made_by"] == manifests[1]["made_by"]
        assert manifests[1]["taken_from"] == file.parent.relative_to(store.root).as_posix()
    # Asked for anew it is made anew; what differs in what a stage reads is made, the rest taken.
    assert make(second, store, "renamed", fresh=frozenset({"brain"})) == 2
    third = study_of(tmp_path, "third", tasks=[{"name": "facts", "items": 9}])
    assert make(third, store, "my-model") == 2
    (store.root / "first" / "my-model" / "step0-tokens0" / "brain" / "curves.parquet").write_bytes(b"damaged")
    (store.root / "second" / "renamed" / "step0-tokens0" / "brain" / "curves.parquet").unlink()
    (store.root / "third" / "my-model" / "step0-tokens0" / "brain" / "curves.parquet").unlink()
    assert make(study_of(tmp_path, "fourth", tasks=tasks), store, "my-model") == 1


def test_tasks_of_texts_need_no_trained_model(tmp_path: Path) -> None:
    model = {"name": "m", "folder": str(found(tmp_path / "my-model", "step10-tokens1K"))}
    tasks = [{"name": "reading", "items": 5}, {"name": "facts-vo", "items": 5}]
    bench = Workbench(Study.model_validate(with_(("models", [model]), ("tasks", tasks))), Store(tmp_path / "results"))
    assert check(bench, bench.study.models) == {}
    trained = Workbench(Study.model_validate(TINY), Store(tmp_path / "results"))
    items = bench.items(bench.study.models[0])
    assert [len(of) for of in items.values()] == [5, 5]
    assert items["reading"] == trained.items(trained.study.models[0])["reading"][:5]
    # Which text it is stands among what results depend on.
    at = bench.checkpoints(bench.study.models[0])[0]
    assert {"text of task reading", "text of task facts-vo"} <= {
        *bench.inputs(STAGES["behaviour"], bench.study.models[0], at)
    }


def test_a_task_whose_text_is_not_there_is_told_before_anything_is_made(tmp_path: Path) -> None:
    model = {"name": "m", "folder": str(found(tmp_path / "my-model", "step10-tokens1K"))}
    bench = Workbench(
        Study.model_validate(with_(("models", [model]), ("tasks", [{"name": "cloze"}]))), Store(tmp_path / "results")
    )
    with pytest.raises(StudyError, match="books/MANIFEST.csv: not there"):
        check(bench, bench.study.models)
    with pytest.raises(PhaselabError):
        bench.items(bench.study.models[0])
    assert not (tmp_path / "results" / "tiny").exists()
