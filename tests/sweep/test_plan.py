"""What a study takes, before anything is fetched: it adds up, says what is not known, and asks no network."""

from __future__ import annotations

import csv
import json
import shutil
import socket
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner

from phaselab.brains.base import copy_of
from phaselab.brains.films import FilmsSpec
from phaselab.brains.stories import StoriesSpec
from phaselab.cli import app
from phaselab.data import SETS
from phaselab.results import Store, write_folder
from phaselab.stages import Workbench
from phaselab.study import Study, load_study
from phaselab.sweep.plan import MEMORY, RATES, SUMS, needs, plan, ridge_operations
from tiny import CHECKPOINT, LAST, TINY

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no kept rates of a GPU, and an empty cache of the hub."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PHASELAB_MANIFESTS", str(tmp_path / "manifests"))
    monkeypatch.chdir(tmp_path)


def planned(study: str | Study, data: Path | None = None, store: Path | None = None) -> dict[str, Any]:
    loaded = load_study(study) if isinstance(study, str) else study
    return plan(Workbench(loaded, Store(store or Path("results")), data), loaded.name)


def planned_of(name: str, data: Path | None = None, **brain: Any) -> pd.DataFrame:
    """The rows of files, of a study whose brain has other fields."""
    study = load_study(name).model_dump(mode="json", exclude_defaults=True)
    changed = Study.model_validate(study | {"brain": study["brain"] | {"name": load_study(name).brain.name} | brain})
    return rows(planned(changed, data), "files")


def rows(found: dict[str, Any], what: str) -> pd.DataFrame:
    table = found["rows"]
    return table[table["what"] == what].set_index("of")


def test_rates_are_those_of_the_kept_benchmarks() -> None:
    def row(name: str, of: str) -> float:
        kept = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["rows"]
        return next(row["value"] for row in kept if row["name"] == of)

    published = load_study(ROOT / "published" / "alice" / "study.yaml")
    trained = sum(needs(published, model, 0, 0, 0)["train"]["training"] for model in published.models if model.train)
    hours = json.loads((ROOT / "published" / "alice" / "manifest.json").read_text())["hours"]["training"]
    blocks = 8 * 512 * (4 * 512 + 3 * 2048)  # of benchmarks/features.py
    paper = ridge_operations(22_262 + 7737, 4096, 60_000)
    expected = {
        "training on cpu": trained / hours / 3600,
        "states on cpu": 2 * blocks * row("features", "long captions once each: extract"),
        "ridge on cpu": paper / row("encoding-paper", "the same: CPU time"),
    }
    assert {name: rate for name, (rate, _) in RATES.items()} == pytest.approx(expected, rel=1e-3)
    for _, source in RATES.values():
        assert (ROOT / source.partition(" (")[0]).is_file()


def test_films_add_up_and_their_files_are_the_registrys() -> None:
    found = planned("films")
    table = list(csv.DictReader((ROOT / "src/phaselab/data/registries/ds005531.csv").open()))
    taken = [row for row in table if row["annotation"] in ("", "speech_en")]
    second = [row for row in taken if row["titles"] == "bigbangtheory"]
    assert len(second) == 2 * (6 + 1)
    assert planned_of("films", rule="dataset")["asked"].tolist() == [len(taken)]
    for titles, missed in (("bigbangtheory", 0), ("bigbangtheory-1", len(second))):
        chosen = {"subjects": "all", "titles": titles, "annotation": "speech_en"}
        number = sum("bigbangtheory" in row["titles"] or not row["titles"] for row in taken) - missed
        assert len(SETS["ds005531"].select(chosen)) == number
    taken = [row for row in taken if row not in second]  # rule: authors does not use it
    files, checkpoints = rows(found, "files").loc["ds005531"], rows(found, "checkpoints")
    assert (files["asked"], files["here"]) == (len(taken), 0)
    assert files["bytes kept"] == files["bytes to fetch"] == sum(int(row["bytes"]) for row in taken)
    assert checkpoints["asked"].tolist() == [20] * 4
    assert checkpoints["bytes kept"].tolist()[:3] == [20 * 29.19e9, 20 * 27.55e9, 20 * 27.0e9]
    assert isnan(checkpoints["bytes kept"].iloc[3])  # LLM-jp's are not known
    assert found["sums"]["bytes to fetch"] == files["bytes kept"] + checkpoints["bytes kept"].sum()
    for name in SUMS[:3]:
        assert found["sums"][name] == found["rows"][name].sum()
    # Six people of 87,969 to 94,900 voxels, 31,905 s less 663 and 623 of the second episode, float32.
    assert rows(found, "copies").loc["ds005531", "bytes kept"] == 4 * 30_619 * sum(SETS["ds005531"].voxels.values())
    # bfloat16 of 7.3 G parameters, and the factorised features.
    assert rows(found, "brain").loc["olmo2-7b", MEMORY] == pytest.approx(14.6e9 + 4.61e9, rel=0.01)
    assert rows(found, "brain")["cpu hours"].sum() == found["sums"]["cpu hours"]


def test_what_is_here_is_not_fetched_again(tmp_path: Path) -> None:
    of = SETS["ds005531"]
    files = of.select({"subjects": "S01", "titles": "suits,bigbangtheory-1", "annotation": "speech_en"})
    small = next(file for file in files if (file.bytes or 0) < 100_000)
    path = tmp_path / "data" / "ds005531" / small.path
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(small.bytes or 0))
    for run, known in (("01", "response mask"), ("02", "")):  # copies of two originals that were dropped
        key = tmp_path / "data" / "cache" / "ds005531" / "S01" / f"suits_run-{run}.key"
        key.parent.mkdir(parents=True, exist_ok=True)
        copy_of(key, known).touch()
    key.with_name("suits_run-01.key").write_text("response mask")  # of the other nobody knows what it is a copy of
    original = next(file for file in files if file.path.endswith("suits_run-01.mat"))
    row = rows(planned("films-small", tmp_path / "data"), "files").loc["ds005531"]
    assert (row["asked"], row["here"]) == (len(files), 2)
    assert row["bytes kept"] - row["bytes to fetch"] == (small.bytes or 0) + (original.bytes or 0)
    # A checkpoint in the cache of the hub, whose manifest has commits.
    manifest = tmp_path / "manifests" / "pythia-160m.csv"
    manifest.parent.mkdir()
    table = list(csv.DictReader((ROOT / "src/phaselab/checkpoints/manifests/pythia.csv").open()))
    pinned = [{**row, "commit": f"{number:040x}"} for number, row in enumerate(table)]
    pd.DataFrame(pinned).to_csv(manifest, index=False)
    snapshots = tmp_path / "hub" / "models--EleutherAI--pythia-160m" / "snapshots"
    (snapshots / f"{0:040x}").mkdir(parents=True)
    found = planned("films-small", tmp_path / "data")
    row = rows(found, "checkpoints").loc["pythia-160m"]
    assert row[["asked", "here", "bytes kept", "bytes to fetch"]].tolist() == [20, 1, 20 * 377e6, 19 * 377e6]
    assert not any("refresh" in line for line in found["next"])


def test_what_is_not_known_or_not_measured_is_said_so() -> None:
    found = planned("films")
    assert found["rows"]["cuda hours"][found["rows"]["what"] == "brain"].isna().all()
    assert isnan(found["sums"]["cuda hours"])
    assert rows(found, "behaviour")["cpu hours"].isna().all()
    assert rows(found, "items")["bytes kept"].isna().all()
    own = {"name": "x", "repository": "me/mine", "checkpoints": "log:5"}
    other = planned(
        Study.model_validate({**yaml.safe_load(films()), "models": [own, {**own, "name": "y", "checkpoints": "all"}]})
    )
    assert rows(other, "checkpoints")["asked"].fillna(-1).tolist() == [5, -1]
    assert rows(other, "checkpoints")["bytes kept"].isna().all()
    assert rows(other, "brain")["cpu hours"].isna().all()


def films() -> str:
    return (ROOT / "src/phaselab/studies/films.yaml").read_text()


def test_the_hours_of_a_layer_are_its_operations_at_the_measured_rate() -> None:
    study = load_study("films-small")
    trs, voxels = SETS["ds005531"].size(
        {"subjects": "S01", "titles": "suits,bigbangtheory-1", "annotation": "speech_en"}
    )
    assert (trs, voxels) == (754 + 968 + 680 + 747 + 647, 87_969)
    one = needs(study, study.models[0], trs, voxels, 1.0)
    assert one["brain"]["ridge"] == 13 * ridge_operations(trs, 768, voxels)
    assert one["brain"]["states"] == 2 * 85_056_000 * trs * (4 + 1)
    expected = 20 * sum(k / RATES[f"{work} on cpu"][0] for work, k in one["brain"].items()) / 3600
    assert planned(study)["sums"]["cpu hours"] == pytest.approx(expected)


def test_rates_of_a_gpu_are_used_when_they_were_measured_on_one(tmp_path: Path) -> None:
    kept = tmp_path / "benchmarks" / "results" / "gpu.json"
    kept.parent.mkdir(parents=True)
    rates = {"states": 3e14, "ridge": 2e13}
    for device, quick, used in (("cuda", False, True), ("cuda", True, False), ("cpu", False, False)):
        kept.write_text(json.dumps({"device": device, "quick": quick, "rates": rates}))
        found = planned("films")
        assert isnan(found["sums"]["cuda hours"]) is not used
        assert any("benchmarks/results/gpu.json" in line for line in found["rates"]) is used
    kept.write_text(json.dumps({"device": "cuda", "quick": False, "rates": {"states": 3e14}}))
    assert isnan(planned("films")["sums"]["cuda hours"])  # without the ridge's it is not known


def test_a_demo_fetches_nothing_and_what_is_made_is_counted(tmp_path: Path) -> None:
    found = planned("demo")
    assert found["sums"]["bytes to fetch"] == 0
    assert rows(found, "train")["cpu hours"].gt(0).all()
    assert rows(found, "brain")["cpu hours"].isna().all()
    assert found["next"] == ["phaselab run demo", "phaselab book demo"]
    tiny = Study.model_validate(TINY)
    bench = Workbench(tiny, Store(tmp_path / "made"))
    bench.folder(tiny.models[0])  # is trained; its results are written without being computed
    for checkpoint in bench.checkpoints(tiny.models[0]):
        for asked_for in bench.asked(tiny.models[0], checkpoint):
            last = bench.place(asked_for, tiny.models[0], checkpoint)
            took = {"seconds": 180.0, "device": "cpu"}
            with write_folder(last, bench.inputs(asked_for, tiny.models[0], checkpoint), made_by=took) as aside:
                (aside / "curves.parquet").touch()
    table = planned(tiny, store=tmp_path / "made")["rows"].set_index(["of", "what"])
    for model, there in (("one", True), ("two", False)):
        for stage in ("train", *CHECKPOINT, *LAST):
            asked = 3 if stage in CHECKPOINT else 1
            assert table.loc[(model, stage), ["asked", "here"]].tolist() == [asked, asked * there], (model, stage)
    assert table.loc["one", "cuda hours"].eq(0).all()  # nothing is left to do
    assert table.loc["two", "cuda hours"].isna().all()
    shutil.rmtree(last)
    table = planned(tiny, store=tmp_path / "made")["rows"].set_index(["of", "what"])
    assert table.loc["one", "here"].sum() == 1 + 3 * len(CHECKPOINT) + len(LAST) - 1
    # One result of three lacks; how long it takes is known from the other two, and of a GPU nothing.
    hours = table.loc[("one", asked_for.name)]
    assert hours[["asked", "here"]].tolist() == [3, 2]
    assert hours["cpu hours"] == pytest.approx(180 / 3600)
    assert isnan(hours["cuda hours"])


def test_alice_says_what_is_here(data: Path, tmp_path: Path) -> None:
    here, gone = planned("alice", data), planned("alice", tmp_path)
    assert rows(here, "files")["bytes to fetch"].tolist() == [0, 0]
    assert rows(gone, "files")["here"].tolist() == [0, 0]
    assert gone["sums"]["bytes to fetch"] == gone["rows"]["bytes kept"][:2].sum()
    assert rows(gone, "train")["cpu hours"].sum() == pytest.approx(4.19, rel=0.01)  # as published
    assert any(line.startswith("phaselab data get alice2016") for line in gone["next"])
    assert not any("data get" in line for line in here["next"])


def test_sizes_that_no_publisher_states_are_not_known() -> None:
    found = planned("little-prince")
    words, others = rows(found, "files").to_dict("records")  # what is stated is told apart
    assert (words["asked"], words["bytes to fetch"], others["asked"]) == (1, 1_041_287, 9 + 3 + 7 - 1)
    assert isnan(others["bytes to fetch"])
    assert found["sums"]["bytes to fetch"] > 1e12
    assert rows(found, "checkpoints")["bytes kept"].notna().all()
    assert rows(found, "brain")["cpu hours"].notna().all()
    assert rows(planned("pereira"), "brain")["cpu hours"].isna().all()  # TRs are not known
    of, chosen = SETS["little-prince"], {"languages": "en", "subjects": "average"}
    assert of.size(chosen) == (2816, 25_870)
    assert None in [file.bytes for file in of.select(chosen)]


def test_people_of_the_little_prince_are_counted_and_dropped_originals_are_here(tmp_path: Path) -> None:
    of, chosen = SETS["little-prince"], {"languages": "en", "subjects": "EN057,EN059"}
    files = of.select(chosen)
    assert [sum(f"sub-{one}_" in file.path for file in files) for one in ("EN057", "EN059")] == [9, 9]
    assert len(files) == 18 + 2 + 1 + 7  # with words, the mask and correlations, and regions
    assert of.size(chosen) == (2816, 2 * 25_870)
    key = tmp_path / "cache/little-prince/en/EN059/section-9.key"
    key.parent.mkdir(parents=True)
    key.write_text("response mask")
    copy_of(key, "response mask").touch()
    runs, others = planned_of("little-prince", tmp_path, subjects=["EN057", "EN059"]).to_dict("records")
    last = next(file for file in files if "EN059_task-lppEN_run-17_" in file.path)
    assert (runs["asked"], runs["here"], others["asked"]) == (19, 1, 9)
    assert runs["bytes kept"] == sum(file.bytes or 0 for file in files)
    assert runs["bytes kept"] - runs["bytes to fetch"] == last.bytes
    assert runs["next"] == f"phaselab data get little-prince --languages en --subjects EN057,EN059 --data {tmp_path}"


def test_trs_of_the_registries_are_those_of_the_brains() -> None:
    from phaselab.brains.films import Films
    from phaselab.brains.stories import CUT, Stories

    chosen = {"subjects": "all", "titles": "all", "annotation": "speech_en"}
    assert SETS["ds005531"].size(chosen)[0] == Films(FilmsSpec(), None).runs["n_trs"].sum() == 31_905
    stories = Stories(StoriesSpec(), None)
    trs, _ = SETS["ds003020"].size({"subjects": "all", "stories": "all"})
    assert trs == sum(n - 2 * CUT for n in stories.trs.values())


def test_the_command_prints_and_writes_all_of_it(tmp_path: Path) -> None:
    options = ["plan", "films-small", "--json", str(tmp_path / "plan.json")]
    result = CliRunner().invoke(app, options, env={"COLUMNS": "200", "PHASELAB_DATA": ""})
    assert result.exit_code == 0, result.output
    assert "phaselab data get ds005531 --subjects S01 --titles bigbangtheory-1,suits" in result.output
    assert "encoding-paper.json" in result.output
    written = json.loads((tmp_path / "plan.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert written["sums"]["cuda hours"] is None
    assert {row["what"] for row in written["rows"]} >= {"files", "checkpoints", "brain", "behaviour"}
    assert not (tmp_path / "results").exists()
