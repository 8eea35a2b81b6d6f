"""A whole small study: reproducible, restartable, and damage is made good."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
import zarr
from rich.console import Console
from typer.testing import CliRunner

from phaselab.book.lab import Lab
from phaselab.cli import app
from phaselab.errors import PhaselabError
from phaselab.features import read_features
from phaselab.results import CURVE_COLUMNS, MANIFEST, Store, digest_file, folders
from phaselab.stages import Workbench, choose_device
from phaselab.study import Model, Study, StudyError, load_study
from phaselab.sweep import pool
from phaselab.sweep.states import status
from tiny import CHECKPOINT, LAST, TINY, TRAIN, sweep

#: Stages of a model of three checkpoints.
MODEL = 3 * len(CHECKPOINT) + len(LAST)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="module")
def study(path: Path) -> Study:
    return load_study(path)


@pytest.fixture(scope="module")
def store(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The results of one run of the study."""
    store = Store(tmp_path_factory.mktemp("results"))
    outcome = sweep(study, store, jobs=2)
    assert outcome.failures == {}
    assert (outcome.computed, outcome.reused) == (2 * MODEL, 0)
    return store


def curves(store: Store) -> pd.DataFrame:
    return pd.read_parquet(store.curves("tiny"))


def units(store: Store) -> dict[str, str]:
    """Digest of each file of each unit, but of the manifest, which says how long it took."""
    files = [file for folder in folders(store.root / "tiny") for file in folder.iterdir() if file.name != MANIFEST]
    return {str(file.relative_to(store.root)): digest_file(file) for file in files}


def test_the_curves_table_has_every_perspective_at_every_checkpoint(store: Store) -> None:
    table = curves(store)
    assert tuple(table) == CURVE_COLUMNS
    counts = table.groupby(["model", "perspective"]).tokens.nunique()
    assert (counts == 3).all()
    assert set(counts.index.get_level_values("perspective")) == {"brain", "behaviour", "internal"}
    assert np.isfinite(table.value[table.measure == "r"]).all()
    assert not table.duplicated(list(CURVE_COLUMNS[:-2])).any()


def test_nothing_changed_nothing_runs(study: Study, store: Store) -> None:
    before = units(store)
    outcome = sweep(study, store, jobs=1)
    assert (outcome.computed, outcome.reused) == (0, 2 * MODEL)
    assert units(store) == before


def test_a_notebook_reuses_the_sweep_and_agrees_with_it(study: Study, store: Store, tmp_path: Path) -> None:
    lab = Lab(study, store)
    pd.testing.assert_frame_equal(lab.curves("all"), curves(store))
    # And without a sweep it computes the same in its own process.
    alone = Lab(study, Store(tmp_path), model="one")
    mine = alone.curves()
    pd.testing.assert_frame_equal(mine, curves(store).query("model == 'one'").reset_index(drop=True))


def workers_of(group: int) -> list[int]:
    """Processes of a process group that are still there."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
    rows = (line.split() for line in listed.stdout.splitlines())
    return [int(pid) for pid, pgid, state in rows if int(pgid) == group and not state.startswith("Z")]


def test_killed_and_restarted_gives_identical_results(study: Study, path: Path, store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "phaselab", "run", str(path), "--results", str(tmp_path), "--jobs", "1"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while not folders(tmp_path / "tiny") and process.poll() is None:
        time.sleep(0.02)
    # The parent alone: its workers must notice and end.
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while workers_of(process.pid):
        time.sleep(0.05)
    assert 0 < len(units(Store(tmp_path))) < len(units(store))
    again = sweep(study, Store(tmp_path), jobs=2)
    assert again.failures == {}
    assert again.reused > 0
    assert units(Store(tmp_path)) == units(store)


def test_damage_is_said_and_made_good(study: Study, store: Store) -> None:
    before = units(store)
    victim = next(sorted((store.root / "tiny" / "one").iterdir())[0].glob("brain/curves.parquet"))
    victim.write_bytes(victim.read_bytes()[:-7])
    said = StringIO()
    outcome = pool.run(study, store, jobs=1, console=Console(file=said, width=1000))
    assert outcome.computed == 1
    assert "curves.parquet" in said.getvalue()
    assert units(store) == before
    table = store.curves("tiny")
    whole = table.read_bytes()
    table.write_bytes(whole[:-9])
    assert sweep(study, store).computed == 0
    assert table.read_bytes() == whole


def test_another_model_reruns_nothing_of_the_others(store: Store) -> None:
    more = Study.model_validate({**TINY, "models": [*TINY["models"], {"name": "three", "train": {**TRAIN, "seed": 7}}]})
    outcome = sweep(more, store, jobs=2)
    assert (outcome.computed, outcome.reused) == (MODEL, 2 * MODEL)


def test_a_failure_is_reported_and_stops_no_other(study: Study, tmp_path: Path) -> None:
    broken = Study.model_validate(
        {**TINY, "models": [{"name": "gone", "folder": str(tmp_path / "nowhere")}, TINY["models"][0]]}
    )
    outcome = sweep(broken, Store(tmp_path), jobs=1)
    assert list(outcome.failures) == ["gone"]
    assert "nowhere" in outcome.failures["gone"]
    assert outcome.computed == MODEL


def test_features_are_kept_where_asked_for_and_only_there(study: Study, store: Store, tmp_path: Path) -> None:
    assert not list(store.root.rglob("features.zarr"))
    shutil.copytree(store.root, tmp_path / "results")
    kept = Store(tmp_path / "results")
    chosen = (Workbench(study, kept).checkpoints(study.models[0])[-1].revision,)
    bench = Workbench(study, kept, keep_features=True)
    assert bench.make(study.models[0], bench.checkpoints(study.models[0])[-1]) == 1
    folder = kept.study("tiny") / "one" / chosen[0] / "features"
    found = read_features(folder / "features.zarr")
    labels = Workbench(study, kept).brain.stimulus.labels
    assert {layer: values.shape for layer, values in found.layers.items()} == {
        0: (len(labels), 16),
        1: (len(labels), 16),
    }
    attributes = zarr.open_group(folder / "features.zarr", mode="r").attrs
    assert (attributes["unit"]["model"], attributes["unit"]["checkpoint"]) == ("one", chosen[0])
    assert attributes["device"] == "cpu"
    assert attributes["spec"]["pooling"] == study.features.pooling
    assert not list(store.root.rglob("features.zarr"))


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("gpu", "device: found 'gpu', expected auto, cpu, cuda or cuda:N"),
        ("cuda:99", "device: found 'cuda:99', expected auto, cpu or a CUDA device that is there"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_runs(
    path: Path, tmp_path: Path, device: str, said: str
) -> None:
    options = ["run", str(path), "--results", str(tmp_path / "none"), "--device", device]
    result = CliRunner().invoke(app, options, env={"COLUMNS": "500"})
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "none").exists()


def test_auto_takes_what_is_there() -> None:
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize(("device", "first"), [("cpu", pool.SLOW), ("cuda:0", None)])
def test_on_cuda_workers_begin_by_themselves(
    device: str, first: object, study: Study, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is forked from one which has looked for CUDA cannot use it."""
    asked: list[object] = []

    def workers(*how: object) -> None:
        asked.append(how[-1])
        raise PhaselabError("enough")

    monkeypatch.setattr(pool, "choose_device", str)
    monkeypatch.setattr(pool, "Workers", workers)
    with pytest.raises(PhaselabError, match="enough"):
        sweep(study, store, device=device)
    assert asked == [first]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"name": "raeding"}, r"tasks: found 'raeding', expected .* texts: facts, facts-vo, reading, reading-vo"),
        ({"name": "reading", "shots": 2}, r"tasks: reading: found shots, expected it only with a task file"),
    ],
)
def test_a_task_that_is_nobodys_is_refused(task: dict[str, object], expected: str, tmp_path: Path) -> None:
    wrong = Study.model_validate({**TINY, "tasks": [task]})
    with pytest.raises(StudyError, match=expected):
        Workbench(wrong, Store(tmp_path)).items(wrong.models[0])


def test_models_of_a_hub_are_swept_one_after_another_unless_more_are_asked_for() -> None:
    trained = load_study("demo").models[0]
    found = Model(name="big", family="olmo2-7b")
    other = Model(name="other", repository="me/mine")
    assert pool.workers([trained], None, "cpu") == pool.cores()
    assert [pool.workers([trained, m], None, "cpu") for m in (found, other)] == [1, 1]
    assert pool.workers([found], 3, "cpu") == 3
    assert pool.workers([trained], 3, "cuda:0") == 1


def test_what_is_asked_for_anew_is_made_once_more_and_nothing_else(study: Study, store: Store) -> None:
    before = units(store)
    outcome = sweep(study, store, fresh=frozenset({"internal"}))
    assert (outcome.computed, outcome.reused) == (2 * 3, 2 * MODEL - 2 * 3)
    assert units(store) == before
    with pytest.raises(StudyError, match="--fresh: found nothing_such, expected stages: attention, behaviour, brain"):
        sweep(study, store, fresh=frozenset({"nothing_such"}))


@pytest.fixture
def copied(store: Store, tmp_path: Path) -> Store:
    """The results of the run, for a test that damages them."""
    shutil.copytree(store.root, tmp_path / "results")
    return Store(tmp_path / "results")


def doctor(path: Path, store: Store, *options: str) -> tuple[int, str]:
    given = ["doctor", str(path), "--results", str(store.root), *options]
    result = CliRunner().invoke(app, given, env={"COLUMNS": "500"})
    return result.exit_code, result.output


def test_the_doctor_names_what_is_damaged_or_stale_and_removes_just_that(path: Path, copied: Store) -> None:
    code, said = doctor(path, copied)
    assert code == 0, said
    assert "0 results are damaged or stale" in said
    one = copied.study("tiny") / "one"
    brain, behaviour = (next(iter(sorted(one.iterdir()))) / name for name in ("brain", "behaviour"))
    (brain / "curves.parquet").write_bytes(b"x")
    manifest = behaviour / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "inputs": {"version": 0}, "sealed": None}))
    weights = next((copied.root / "trained").glob("two-*/step6-*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    before = set(folders(copied.root))
    code, said = doctor(path, copied)
    assert code == 1
    for word in (
        f"damaged: {brain}\n",
        f"stale: {behaviour}\n",
        f"damaged: {weights.parent}\n",
        f"phaselab run {path}",
    ):
        assert word in said
    assert set(folders(copied.root)) == before
    code, said = doctor(path, copied, "--repair")
    assert code == 0, said
    assert before - set(folders(copied.root)) == {brain, behaviour, weights.parent}


def test_status_tells_what_failed_and_why_and_what_results_took(
    study: Study, copied: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from phaselab.stages import STAGES

    def broken(unit: object, folder: Path) -> None:
        raise ValueError("no such thing")

    bench = Workbench(study, copied)
    model, at = study.models[0], bench.checkpoints(study.models[0])[0]
    monkeypatch.setitem(STAGES, "internal", replace(STAGES["internal"], run=broken))
    shutil.rmtree(bench.place(STAGES["internal"], model, at))
    with pytest.raises(PhaselabError, match="no such thing"):
        bench.make(model, at)
    log = bench.log(STAGES["internal"], model, at)
    assert "Traceback" in log.read_text()
    table = status(bench).set_index(["model", "stage"])
    row = table.loc[("one", "internal")]
    assert (row["current"], row["missing"], row["failed"], row["running"]) == (2, 1, 1, 0)
    assert row["why"].startswith("ValueError: no such thing")
    assert f"({log})" in row["why"]
    brain = table.loc[("one", "brain")]
    assert (brain["current"], brain["failed"], brain["device"]) == (3, 0, "cpu")
    assert 0.05 < brain["GiB"] < 16
    monkeypatch.undo()
    assert bench.make(model, at) == 1
    assert not log.exists()


def test_a_model_given_twice_counts_once_and_limits_are_of_stages(study: Study, copied: Store) -> None:
    outcome = sweep(study, copied, models=("one", "one"))
    assert (outcome.computed, outcome.reused) == (0, MODEL)
    wrong = Study.model_validate({**TINY, "minutes": {"brian": 5}})
    with pytest.raises(StudyError, match=r"minutes: found \['brian'\], expected train, page, attention"):
        Workbench(wrong, copied)
    limited = Study.model_validate({**TINY, "minutes": {"brain": 5}})
    assert (limited.seconds("brain"), limited.seconds("internal")) == (300, 24 * 3600)
    assert sweep(limited, copied).reused == 2 * MODEL


def test_status_says_whole_names_and_reasons_on_a_narrow_screen(store: Store, tmp_path: Path) -> None:
    changed = tmp_path / "tiny.yaml"
    changed.write_text(yaml.safe_dump({**TINY, "tasks": [{**TINY["tasks"][0], "items": 9}, TINY["tasks"][1]]}))
    options = ["status", str(changed), "--results", str(store.root)]
    result = CliRunner().invoke(app, options, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert result.output.count("behaviour: tasks.reading.items (8 -> 9) (3 times)") == 2
    assert all(name in result.output.split() for name in ("one", "two"))
