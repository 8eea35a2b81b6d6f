"""Tasks with a text of their own; what nuisance depends on; controls of the last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from phaselab import brains, features
from phaselab.brains import alice
from phaselab.results import Store
from phaselab.stages import STAGES, Workbench, check
from phaselab.study import Study, StudyError
from tiny import PLACES, TINY, TRAIN, with_

READING = {"name": "reading", "items": 8, "text": "world"}


def bench(folder: Path, *changes: tuple[str, Any]) -> Workbench:
    return Workbench(Study.model_validate(with_(*changes)), Store(folder))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of the first model of TINY."""
    source = bench(tmp_path_factory.mktemp("trained"))
    return source.folder(source.study.models[0])


def of_a_folder(folder: Path, *tasks: dict[str, Any]) -> list[tuple[str, Any]]:
    return [("models", [{"name": "found", "folder": str(folder)}]), ("tasks", [*tasks])]


def test_a_study_of_folders_alone_has_tasks_of_a_text(trained: Path, tmp_path: Path) -> None:
    own, with_training = bench(tmp_path, *of_a_folder(trained, READING)), bench(tmp_path)
    (model,) = own.study.models
    assert check(own, own.study.models) == {}
    assert own.items(model) == {"reading": with_training.items(with_training.study.models[0])["reading"]}
    rows = pd.read_parquet(own.result("behaviour", model, own.checkpoints(model)[0]) / "curves.parquet")
    assert set(rows["task"]) == {"reading"}
    assert own.tasks(model) == ["reading"]


def test_a_task_of_a_text_that_nothing_names_is_told_with_what_to_write(trained: Path, tmp_path: Path) -> None:
    plain = {"name": "readnig", "items": 8}
    own = bench(tmp_path, *of_a_folder(trained, plain))
    with pytest.raises(StudyError, match=r"tasks: readnig: found no model with 'train', expected one, or .* cloze, "):
        check(own, own.study.models)
    other = bench(tmp_path, *of_a_folder(trained, READING | {"name": "cloze"}))
    with pytest.raises(StudyError, match=r"tasks: found 'cloze', expected a task of .* facts, facts-vo, reading, "):
        check(other, other.study.models)
    with pytest.raises(StudyError, match="reading: found shots, expected it only with a task file"):
        own = bench(tmp_path, *of_a_folder(trained, READING | {"shots": 1}))
        check(own, own.study.models)
    (tmp_path / "places.yaml").write_text(PLACES)
    file = {"name": "places", "file": str(tmp_path / "places.yaml"), "text": "world"}
    own = bench(tmp_path, *of_a_folder(trained, file))
    with pytest.raises(StudyError, match="tasks: places: found text world, expected none with a task file"):
        own.items(own.study.models[0])
    with pytest.raises(ValueError, match=r"tasks\.0\.text"):
        bench(tmp_path, ("tasks", [READING | {"text": "poems"}]))


def test_the_text_of_a_task_is_its_own_input_and_tasks_without_are_as_before(tmp_path: Path) -> None:
    plain, own = bench(tmp_path), bench(tmp_path, ("tasks.0.text", "world"), ("tasks.1.text", "world"))
    stage, other = STAGES["behaviour"], STAGES["internal"]
    before, after = (b._shared_inputs(stage, b.study.models[1]) for b in (plain, own))
    assert "tasks.reading.text" not in before
    assert "text" in before
    assert {k for k in after if k.startswith("text")} == {"text of task reading", "text of task facts"}
    # Of a text's own seed and vocabulary, whatever the model's are: the same for all.
    assert after == own._shared_inputs(stage, own.study.models[0])
    assert plain._shared_inputs(other, plain.study.models[1]) == own._shared_inputs(other, own.study.models[1])
    items = [b.items(b.study.models[1])["reading"] for b in (plain, own)]
    assert items[0] == items[1]


def test_nuisance_makes_only_what_reads_it_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus.txt").write_text("a b")

    def files(section: Any, data: Any) -> dict[str, list[Path]]:
        return {"nuisance": [tmp_path / "corpus.txt"] if section.corpus else []}

    monkeypatch.setattr(brains.BRAINS["alice"], "files", files)
    assert alice.AliceSpec().model_dump().keys() == {"name", "seed", "subjects", "radius"}

    def inputs(name: str, **section: Any) -> dict[str, Any]:
        own = bench(tmp_path, ("brain", {"name": "alice", **section}))
        return own._shared_inputs(STAGES[name], own.study.models[0])

    for name in STAGES:
        without, with_books = inputs(name), inputs(name, corpus="books")
        reads = name in ("unique", "controls")
        assert (without != with_books) == reads, name
        assert with_books.get("brain.corpus") == ("books" if reads else None)
    one = inputs("controls", corpus="books")
    (tmp_path / "corpus.txt").write_text("a b c")
    assert inputs("controls", corpus="books") != one


def test_controls_of_nuisance_and_of_shuffled_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    extract = features.extract

    def recorded(model: Any, tokenizer: Any, stimulus: Any, *rest: Any, **options: Any) -> Any:
        read.append(stimulus)
        return extract(model, tokenizer, stimulus, *rest, **options)

    monkeypatch.setattr(features, "extract", recorded)
    own = bench(tmp_path, ("models", TINY["models"][:1]))
    (model,) = own.study.models
    last = own.checkpoints(model)[-1]
    table = pd.read_parquet(own.result("controls", model, last) / "controls.parquet")
    layers = table.groupby("model")["layer"].unique().map(sorted).to_dict()
    assert layers == {
        "control: nuisance space": [0],
        "control: word rate": [0],
        "control: true latents": [0],
        "control: shuffled words": [0, 1],
        "control: shuffled stimulus": [0, 1],
    }
    alone = table[(table["measure"] == "r") & (table["roi"] == "all") & (table["layer"] == 0)]
    means = alone.groupby("model")["value"].mean()
    assert means["control: nuisance space"] != means["control: word rate"]
    (mixed,) = (stimulus for stimulus in read if stimulus.name == "shuffled words")
    for shuffled, run in zip(mixed.runs, own.brain.stimulus.runs, strict=True):
        assert sorted(shuffled.texts) == sorted(run.texts)
        assert np.mean([a == b for a, b in zip(shuffled.texts, run.texts, strict=True)]) < 0.3
        np.testing.assert_array_equal(shuffled.onsets, run.onsets)


@pytest.mark.parametrize(("rule", "layers"), [(1.0, [1]), (0.0, [0]), (0, [0]), ("mean", [0, 1]), ("best", [0, 1])])
def test_unique_contributions_are_of_the_layer_of_the_rule(tmp_path: Path, rule: Any, layers: list[int]) -> None:
    short = {"name": "simulated", "subjects": 1, "runs": 2, "minutes": 3, "vertices": 12}
    few = ("models", TINY["models"][:1]), ("encoding.unique", True), ("brain", short)
    own = bench(tmp_path, *few, ("phases", {"layer": rule}))
    (model,) = own.study.models
    table = pd.read_parquet(own.result("unique", model, own.checkpoints(model)[0]) / "curves.parquet")
    assert sorted(table["layer"].unique()) == layers
    assert set(table["measure"]) == {"r2_unique", "r2_joint", "r2_nuisance"}


def test_models_of_one_seed_that_differ_in_the_schedule_of_their_text_have_a_text_each(tmp_path: Path) -> None:
    recipe = {**TRAIN, "steps": 100}
    schedules = ([{"until": 0.5, "mix": "narrative"}, {"until": 1, "mix": "en"}], [{"until": 1, "mix": "en"}], None)
    models = [{"name": f"m{k}", "train": recipe | ({"mixes": of} if of else {})} for k, of in enumerate(schedules)]
    study = Study.model_validate({**TINY, "models": models})
    whole = Workbench(study, Store(tmp_path))
    together = [whole.source(model).digest for model in study.models]
    alone = [Workbench(study, Store(tmp_path)).source(model).digest for model in study.models]
    assert together == alone
    assert len({*together}) == 3
