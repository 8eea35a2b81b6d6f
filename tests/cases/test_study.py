"""What can be known before training is said before training, with file and field, and nothing is computed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from phaselab.brains import BRAINS
from phaselab.cli import app
from phaselab.errors import SHOWN, PhaselabError, expect
from phaselab.results import Store, folders
from phaselab.stages import STAGES, Workbench, check
from phaselab.stages.context import UnitFailed
from phaselab.study import Study, StudyError, load_study
from tiny import CHECKPOINT, LAST, TRAIN, sweep, with_

MODEL = 3 * len(CHECKPOINT) + len(LAST)
ALICE = ("brain", {"name": "alice"})
BOOKS = {**TRAIN, "text": "books"}

#: What is changed in the tiny study -> words that must stand in the message.
FAULTS: dict[str, tuple[list[tuple[str, Any]], str]] = {
    # Names that nobody knows.
    "a task's typo": ([("tasks.0.name", "raeding")], "tasks: found 'raeding', expected a task of the library"),
    "a language": ([("tasks.0.name", "reading-fr")], "tasks: found 'reading-fr', expected a task of"),
    "a mix": ([("models.1.train.mix", "fr")], "models.1.train: mix: found 'fr', expected 'en' or 'en+vo'"),
    "a probe": ([("internals.probes", ["who", "nope"])], "internals.probes: found 'nope', expected labels of the"),
    "a revision": ([("models.0.checkpoints", "step5")], "models.0.checkpoints: found 'step5', expected 'all', 'log:N'"),
    "a field": ([("features.tirm", 0)], "features.tirm: unknown field; expected one of"),
    "a region of the rule": ([("phases", {"roi": "LATL"})], "phases.roi: found 'LATL', expected one of "),
    "a measure of the rule": ([("phases", {"measure": "rr"})], "phases.measure: found 'rr', expected one of r, "),
    "accuracy of the rule": ([("phases", {"accuracy": "acuracy"})], "phases.accuracy: found 'acuracy', expected one"),
    # Choices.
    "a layer of the rule": ([("phases", {"layer": 99})], "phases.layer: found 99, expected a depth as 0.67, "),
    "log:1": ([("models.0.checkpoints", "log:1")], "models.0.checkpoints: found 'log:1', expected 'all', 'log:N' with"),
    "an empty range": ([("models.0.checkpoints", "all@1T-2T")], "models.0.checkpoints: found 'all@1T-2T', a range"),
    "a layer": ([("features.layers", [99])], "features.layers: found 99, expected 0 to 1"),
    "a layer from behind": ([("features.layers", [-3])], "features.layers: found -3, expected 0 to 1"),
    "neurons": ([("internals.sparse", [1, 99])], "internals.sparse: found 99, expected at most its 16 neurons"),
    "checkpoints": ([("models.0.train.checkpoints", 30)], "models.0.train.checkpoints: found 30, expected at most 7"),
    "vertices": ([("brain.vertices", 8)], "brain.vertices: found 8, expected 12 to 20484"),
    "minutes": ([("brain.minutes", 2)], "brain.minutes: found 2 for 3 runs, expected at least 1 minute a run"),
    # Tasks and their files.
    "shots": ([("tasks.0.shots", 2)], "tasks: reading: found shots, expected it only with a task file"),
    "permute": ([("tasks.0.permute", True)], "tasks: reading: found permute, expected it only with a task file"),
    "a task file": ([("tasks.0.file", "/no/such.yaml")], "tasks: reading: /no/such.yaml: found no file"),
    "data of a task": ([("tasks.0", {"name": "mmlu", "data": {"test": "/no/such.jsonl"}})], "/no/such.jsonl is not"),
    "items": ([("tasks.1.items", 10**6)], "tasks: facts: task facts: items: found 1000000, expected at most about"),
    # Too short.
    "trim": ([("features.trim", 60)], "features: run run-1: trim: found 60, expected fewer than its 60 TRs"),
    "block": ([("encoding.block", 40)], "encoding: block: found 40 rows, with which a test fold of 58 has 1 whole"),
    "groups": (
        [("encoding.folds", "groups"), ("encoding.n_folds", 5)],
        "encoding: groups: found 3 distinct, expected at least n_folds = 5",
    ),
    "stretches": (
        [("encoding.folds", "contiguous"), ("encoding.n_folds", 200)],
        "encoding: n: found 174 samples, expected at least n_folds = 200",
    ),
    "a gap": (
        [("encoding.folds", "contiguous"), ("encoding.n_folds", 2), ("encoding.gap", 90)],
        "encoding: gap: found 90 TRs, with which a fold of 174 samples has no training sample",
    ),
    "shuffles": (
        [("brain.minutes", 3), ("features.trim", 0)],
        "encoding.shuffles: run run-1: found 30 TRs, expected at least 40",
    ),
    "trimmed items": ([("features.hemodynamics", "none")], ": found 2 with hemodynamics: none, expected 0: each"),
    "items without time": (
        [("features.hemodynamics", "none"), ("features.trim", 0)],
        "run run-1: features.hemodynamics: found none, expected hrf",
    ),
    # Fields that would be ignored.
    "tr with alice": ([("brain", {"name": "alice", "tr": 5})], "brain.tr: unknown field; expected one of corpus, name"),
    "n_folds with runs": ([("encoding.n_folds", 4)], "encoding.n_folds: found 4 with folds: runs, expected no such"),
    "gap with runs": ([("encoding.gap", 3)], "encoding: gap: found 3 with folds: runs, expected none"),
    "delays with hrf": ([("features.delays", [1, 2, 3])], "features.delays: found (1, 2, 3) with hemodynamics: hrf"),
    "seconds with words": ([("features.seconds", 8)], "features.seconds: found 8.0 with context: words"),
    "window with text": (
        [("features.context", "text"), ("features.window", 9)],
        "features.window: found 9 with context: text",
    ),
    "block with circular": (
        [("encoding.null", "circular"), ("encoding.block", 5)],
        "encoding.block: found 5 with null: circular",
    ),
    "fdr without permutations": (
        [("encoding.permutations", 0), ("encoding.fdr", 0.1)],
        "encoding.fdr: found 0.1 with permutations: 0",
    ),
    "logistic without probes": (
        [("internals.probes", []), ("internals.logistic", True)],
        "internals.logistic: found True without probes",
    ),
    "vocabulary of the world": (
        [("models.0.train.vocabulary", 999)],
        "models.0.train.vocabulary: found 999 with text: world",
    ),
    # Twice, and in disorder.
    "alphas in disorder": ([("encoding.log10_alphas", [4, 0, 5])], "encoding.log10_alphas: found 5 from 4 to 0"),
    "one alpha five times": ([("encoding.log10_alphas", [1, 1, 5])], "encoding.log10_alphas: found 5 from 1 to 1"),
    "models of one name": ([("models.1.name", "one")], "models: expected distinct names, found one more than once"),
    "tasks of one name": ([("tasks.1.name", "reading")], "tasks: expected distinct names, found reading more than"),
    "a probe twice": ([("internals.probes", ["who", "who"])], "internals.probes: expected distinct values, found who"),
    "a layer twice": ([("features.layers", [1, 1])], "features.layers: expected distinct values, found 1 more than"),
    "a folder of results": ([("models.0.name", "pages")], "models.0.name: found 'pages', expected another"),
    # A slip of the keyboard that would cost hours.
    "a long stimulus": ([("brain.minutes", 1e9)], "brain.minutes: found 1000000000.0; "),
    "a short TR": ([("brain.tr", 1e-6)], "brain.tr: found 1e-06; "),
    "many TRs": (
        [("brain.minutes", 9e4)],
        "brain.minutes: found 90000 for 3 runs of TRs of 2 s, expected at most 10000",
    ),
    "no number": ([("encoding.memory", float("inf"))], "encoding.memory: found inf; "),
    "a seed below 0": ([("brain.seed", -1)], "brain.seed: found -1; "),
    "steps": ([("models.0.train.steps", 10**12)], "models.0.train.steps: found 1000000000000; "),
    "permutations": ([("encoding.permutations", 10**9)], "encoding.permutations: found 1000000000; "),
    # Data that are not there.
    "no folder of data": (
        [ALICE],
        "alice_data_shared/6mm: no s*-timecourses.txt; type: phaselab data get alice2016",
    ),
    "no books": ([("models.0.train", BOOKS), ("tasks", [])], "type: phaselab data get books --from FOLDER --data"),
}


@pytest.fixture(autouse=True, scope="module")
def brains() -> Iterator[None]:
    """Each brain is simulated once."""
    registered = BRAINS["simulated"]
    before, registered.load = registered.load, cache(registered.load)
    yield
    registered.load = before


def written(tmp_path: Path, *changes: tuple[str, Any]) -> Path:
    path = tmp_path / "my study.yaml"
    path.write_text(yaml.safe_dump(with_(*changes)))
    return path


def call(command: str, *arguments: object) -> Result:
    # Wide, so that messages are not broken into lines.
    options = [command, *map(str, arguments)]
    return CliRunner().invoke(app, options, env={"COLUMNS": "1000", "PHASELAB_DATA": ""})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_before_anything_is_computed(fault: str, tmp_path: Path) -> None:
    changes, words = FAULTS[fault]
    path, results = written(tmp_path, *changes), tmp_path / "results"
    found = call("run", path, "--results", results, "--data", tmp_path)
    assert found.exit_code == 2, found.output
    assert words in found.output
    assert f"phaselab: {path}: " in found.output
    assert not isinstance(found.exception, Exception)
    assert not folders(results)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    wrong = [("features.layers", [99]), ("internals.probes", ["nope"]), ("encoding.block", 50), ("tasks.0.shots", 2)]
    for command in ("run", "status"):
        found = call(command, written(tmp_path, *wrong), "--results", tmp_path / "results")
        assert found.exit_code == 2
        for words in ("features.layers: found 99", "internals.probes: found 'nope'", "block: found 50", "found shots"):
            assert words in found.output


def test_a_choice_on_the_command_line_is_looked_at_as_well(tmp_path: Path) -> None:
    found = call("run", written(tmp_path), "--results", tmp_path / "results", "--checkpoints", "log:1")
    assert (found.exit_code, folders(tmp_path / "results")) == (2, [])
    assert "--checkpoints: found 'log:1', expected 'all', 'log:N' with N >= 2" in found.output
    found = call("run", written(tmp_path), "--results", tmp_path / "results", "--checkpoints", "")
    assert (found.exit_code, folders(tmp_path / "results")) == (2, [])
    assert "--checkpoints: found nothing, expected a choice" in found.output


@pytest.mark.parametrize("jobs", ["0", "10000", "x"])
def test_no_more_workers_than_a_machine_is_good_for(jobs: str, tmp_path: Path) -> None:
    found = call("run", written(tmp_path), "--results", tmp_path / "results", "-j", jobs)
    assert (found.exit_code, folders(tmp_path / "results")) == (2, [])
    assert "--jobs" in found.output


def test_layers_of_a_folder_are_those_of_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "own" / "step1-tokens1000").mkdir(parents=True)
    config = {"model_type": "gpt2", "n_layer": 2, "n_embd": 8}
    (tmp_path / "own" / "step1-tokens1000" / "config.json").write_text(json.dumps(config))
    own = {"name": "own", "folder": str(tmp_path / "own")}
    path = written(tmp_path, ("models", [own]), ("tasks", []), ("features.layers", [3]))
    assert "models.0: own: features.layers: found 3, expected 0 to 2" in call("run", path).output


def test_unknown_fields_hide_no_other_fault(tmp_path: Path) -> None:
    wrong = [("brain.sed", 1), ("brain.runs", 1), ("modles", []), ("encoding.fdr", 2), ("encoding.fold", 3)]
    with pytest.raises(StudyError) as caught:
        load_study(written(tmp_path, *wrong))
    for words in ("brain.sed: unknown", "brain.runs: found 1", "modles: unknown", "fdr: found 2", "fold: unknown"):
        assert words in str(caught.value)


def test_a_message_quotes_little_of_what_was_found(tmp_path: Path) -> None:
    bomb = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join([*bomb, "name: *i", "title: *i", "tasks: *i", f"? {'long' * 999}\n: 1"]))
    with pytest.raises(StudyError, match="title: found ") as caught:
        load_study(path)
    assert len(str(caught.value)) < 40 * SHOWN
    with pytest.raises(PhaselabError) as short:
        expect(False, "here", "x" * 10**6, "less")
    assert len(str(short.value)) < SHOWN + 40


def test_what_was_written_out_is_read_again() -> None:
    study = Study.model_validate(with_())
    assert Study.model_validate(study.model_dump(mode="json")) == study


# ----------------------------------------------------------------------------------------- one fails, others go on


def test_sizes_that_an_architecture_does_not_take_stop_that_model_alone(tmp_path: Path) -> None:
    bad = ("models.1.train", {**TRAIN, "architecture": "llama", "hidden_size": 32, "heads": 3})
    path = written(tmp_path, bad)
    found = call("run", path, "--results", tmp_path / "results", "--checkpoints", "log:2")
    assert found.exit_code == 1
    assert f"failed two: {path}: models.1: train: found hidden_size 32, layers 1, heads 3" in found.output
    assert "hidden size (32) is not a multiple of the number of attention heads (3)" in found.output
    assert {folder.parts[-3] for folder in folders(tmp_path / "results" / "tiny")} == {"one"}
    assert len(folders(tmp_path / "results" / "tiny")) == MODEL - len(CHECKPOINT)


def test_what_a_stage_has_failed_with_stops_none_that_does_not_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.model_validate(with_(("models.0.checkpoints", "step6-tokens1536")))
    bench, tries = Workbench(study, Store(tmp_path)), []
    model = study.models[0]

    def broken(*_: Any, **options: Any) -> Any:
        tries.append(1)
        raise RuntimeError("no states today")

    at = bench.checkpoints(model)[0]
    monkeypatch.setattr("phaselab.features.extract", broken)
    with pytest.raises(UnitFailed, match="brain, controls, internal ") as caught:
        bench.make(model, at)
    assert caught.value.made == 1
    assert str(tmp_path / "tiny" / "one" / at.revision) in str(caught.value)
    assert str(caught.value).count("RuntimeError: no states today") == 1
    assert len(tries) == 1
    assert bench.state(STAGES["behaviour"], model, at)
    assert not bench.state(STAGES["brain"], model, at)


def test_checkpoints_are_not_compared_when_states_of_one_are_missing(tmp_path: Path) -> None:
    study = Study.model_validate(with_(("internals.compare", True)))
    bench = Workbench(study, Store(tmp_path))
    with pytest.raises(UnitFailed, match=r"states: found missing results, expected current ones, which compare reads"):
        bench.make(study.models[0], None)


def test_a_run_goes_on_when_a_worker_has_been_killed(tmp_path: Path) -> None:
    few = [("models", [with_()["models"][0]]), ("tasks", []), ("internals.probes", [])]
    study = Study.model_validate(with_(*few))

    def kill() -> None:
        end = time.monotonic() + 60
        while not folders(tmp_path / "tiny") and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = sweep(study, Store(tmp_path), jobs=2)
    killer.join()
    assert outcome.failures == {}
    assert outcome.curves
    assert len(folders(tmp_path / "tiny")) == MODEL


def test_a_family_that_nobody_knows_is_told_with_its_field(tmp_path: Path) -> None:
    study = written(tmp_path, ("models.0", {"name": "one", "family": "olmo99"}))
    bench = Workbench(load_study(study), Store(tmp_path))
    (said,) = check(bench, bench.study.models).values()
    assert "my study.yaml: models.0: family: found 'olmo99', expected one of " in said
