"""Published tables: written from whole results, read without them, and compared with a rerun."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from phaselab.book.lab import Lab
from phaselab.book.published import LARGEST, PublishedLab, compare, publish
from phaselab.cli import app
from phaselab.results import MANIFEST, Store, digest_file, read_manifest, write_json
from phaselab.stages import Workbench
from phaselab.study import Study, StudyError, load_study
from tiny import TINY, sweep, with_

STUDY = Study.model_validate(TINY)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    """Whole results of the tiny study, and a folder of what was published of them."""
    store, root = Store(tmp_path_factory.mktemp("results")), tmp_path_factory.mktemp("published")
    assert not sweep(STUDY, store).failures
    assert publish(Lab(STUDY, store), root) == root / "tiny"
    return store, root


@pytest.fixture
def lab(made: tuple[Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedLab:
    """What a notebook sees with ``study: published:tiny``, where there are no results and no data."""
    (tmp_path / "published").symlink_to(made[1])
    monkeypatch.chdir(tmp_path)
    return PublishedLab(load_study("published:tiny"), Store(tmp_path / "none"), None, "two")


def published_anew(path: Path, table: pd.DataFrame) -> None:
    """Put a table into a published folder as if it had been written so."""
    table.to_parquet(path)
    manifest = read_manifest(path.parent)
    manifest["outputs"][path.name] = digest_file(path)
    write_json(manifest, path.parent / MANIFEST)


def test_a_page_reads_the_same_from_tables_as_from_results(made: tuple[Store, Path], lab: PublishedLab) -> None:
    own = Lab(lab.study, made[0], None, "two")
    for name in ("curves", "controls", "loss", "verdicts"):
        here, there = getattr(lab, name)(), getattr(own, name)()
        pd.testing.assert_frame_equal(here.reset_index(drop=True), there, rtol=1e-3, check_dtype=False)
    assert lab.curves("all")["model"].nunique() == 2
    assert lab.tasks() == own.tasks()
    assert lab.phases().statement == own.phases().statement
    assert lab.about().data.partition("**Numbers.**")[0] == own.about().data.partition("**Numbers.**")[0]
    assert f"Published tables, made on {lab.provenance['date']}" in lab.about().data
    assert lab.provenance["machine"] in lab.about().data  # its capitals kept
    assert lab.brain.ceiling == pytest.approx(
        {who: np.mean(of) for who, of in (own.brain.ceiling or {}).items()}, abs=1e-5
    )
    assert lab.stamp().data.partition("data ")[2] == own.stamp().data.partition("data ")[2]


def test_phases_of_published_tables_are_of_the_tables(lab: PublishedLab, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["phases", "published:tiny", "--results", str(tmp_path / "none")])
    assert done.exit_code == 0
    assert lab.phases("one").statement in done.output
    assert {path.name for path in (tmp_path / "none").rglob("*") if path.is_file()} == {"phases.parquet"}


def test_what_tables_do_not_hold_is_said(lab: PublishedLab) -> None:
    assert [at.revision for at in lab.checkpoints()] == list(lab.curves().sort_values("tokens")["checkpoint"].unique())
    for asked in (lambda: lab.result("brain"), lab.load, lab.voxels, lab.outcomes):
        with pytest.raises(ValueError, match="published tables alone, expected .*phaselab run tiny"):
            asked()
    with pytest.raises(StudyError, match=r"study: found 'published:none', expected one of .*published:tiny"):
        load_study("published:none")


def test_with_a_sample_a_notebook_needs_no_training(
    made: tuple[Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    own = Lab(STUDY, made[0])
    monkeypatch.chdir(tmp_path)
    sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))
    from sample import add_sample

    sys.path.pop(0)
    add_sample(own, publish(own, Path("published")))
    lab = PublishedLab(load_study("published:tiny"), Store(tmp_path / "none"))
    assert lab.brain.digest == own.brain.digest
    assert lab.items("reading") == own.items("reading")
    assert [str(at) for at in lab.checkpoints()] == [str(at) for at in own.checkpoints()]
    for k, exact in ((-1, 1e-3), (0, 0)):  # the published one in half precision, and the untrained one made anew
        (network, tokenizer), (theirs, _) = lab.load(lab.checkpoints()[k]), own.load(own.checkpoints()[k])
        for mine, other in zip(network.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=exact, atol=exact)
        assert network.dtype == torch.float32
        assert tokenizer("where is anna")["input_ids"]
    assert [path.name for path in tmp_path.glob("none/trained/*/step*")] == ["step0-tokens0"]
    for at, there in zip(lab.checkpoints(), own.checkpoints(), strict=True):
        for subject, voxels in own.voxels(there).items():
            np.testing.assert_allclose(lab.voxels(at)[subject]["r"], voxels["r"], atol=6e-4)
            assert list(lab.voxels(at)[subject]["layers"]) == list(voxels["layers"])
        answers = lab.outcomes(at)
        pd.testing.assert_frame_equal(answers, own.outcomes(there)[answers.columns], rtol=1e-3, check_dtype=False)
    with pytest.raises(ValueError, match="published tables alone"):
        lab.result("brain")
    with pytest.raises(ValueError, match="published tables alone"):
        PublishedLab(lab.study, Store(tmp_path / "none"), None, "two").load()  # of the first model alone


def test_tables_that_were_changed_are_refused(lab: PublishedLab, made: tuple[Store, Path], tmp_path: Path) -> None:
    shutil.copytree(made[1] / "tiny", tmp_path / "copy" / "tiny")
    table = pd.read_parquet(tmp_path / "copy" / "tiny" / "curves.parquet")
    table.assign(value=table["value"] + 0.1).to_parquet(tmp_path / "copy" / "tiny" / "curves.parquet")
    with pytest.raises(
        ValueError,
        match=r"curves\.parquet: missing, or its digest is not the one in manifest\.json, expected the tables",
    ):
        PublishedLab(load_study(tmp_path / "copy" / "tiny" / "study.yaml"), Store(tmp_path), None)
    with pytest.raises(StudyError, match=r"study: found 'tiny' \(.*curves\.parquet: missing, or its digest"):
        compare(Workbench(STUDY, made[0]), (), root=tmp_path / "copy")
    (tmp_path / "copy" / "tiny" / MANIFEST).write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"manifest\.json: no manifest that can be read"):
        PublishedLab(load_study(tmp_path / "copy" / "tiny" / "study.yaml"), Store(tmp_path), None)


def test_what_others_published_is_looked_at_before_it_is_used(tmp_path: Path) -> None:
    folder = shutil.copytree(Path(__file__).parents[2] / "published" / "detachment", tmp_path / "detachment")

    def opened() -> PublishedLab:
        return PublishedLab(load_study(folder / "study.yaml"), Store(tmp_path), None)

    whole, curves = read_manifest(folder), pd.read_parquet(folder / "curves.parquet")
    assert opened().numbers
    write_json({name: of for name, of in whole.items() if name != "hours"} | {"brain": "x"}, folder / MANIFEST)
    with pytest.raises(ValueError, match=r"manifest\.json: found no hours, brain, expected them, as phaselab publish"):
        opened()
    write_json(whole, folder / MANIFEST)
    published_anew(folder / "curves.parquet", curves.drop(columns="model"))
    for open_it in (opened, lambda: compare(Workbench(load_study("detachment"), Store(tmp_path)), (), root=tmp_path)):
        with pytest.raises(ValueError, match=r"curves\.parquet: found columns study, checkpoint.*, expected study, m"):
            open_it()


def test_incomplete_and_stale_results_are_not_published(made: tuple[Store, Path], tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"(?s)results: found.*model one, why not trained yet.*phaselab run tiny"):
        publish(Lab(STUDY, Store(tmp_path)), tmp_path)
    other = Study.model_validate(with_(("encoding.permutations", 30)))
    with pytest.raises(StudyError, match=r"(?s)stage brain, stale 3.*encoding.permutations"):
        publish(Lab(other, made[0]), tmp_path)
    assert not (tmp_path / "tiny").exists()


def test_what_is_too_large_leaves_what_was_published(
    made: tuple[Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = publish(Lab(STUDY, made[0]), tmp_path).parent
    before = (root / "tiny" / MANIFEST).read_bytes()
    monkeypatch.setattr("phaselab.book.published.LARGEST", 16_000)
    with pytest.raises(
        ValueError, match=r"tiny: found files of \{'curves\.parquet': \d+\} bytes, expected at most 16000"
    ):
        publish(Lab(STUDY, made[0]), root)
    assert LARGEST == 2_000_000
    assert [(path.name, (path / MANIFEST).read_bytes()) for path in root.iterdir()] == [("tiny", before)]


def test_provenance_names_machine_commit_hours_and_digests(made: tuple[Store, Path]) -> None:
    said = json.loads((made[1] / "tiny" / MANIFEST).read_text())
    assert set(said["outputs"]) == {f"{n}.parquet" for n in ("curves", "controls", "phases", "loss")} | {"study.yaml"}
    assert said["command"] == "phaselab run tiny"
    assert {"commit", "date", "machine", "versions", "hours", "brain"} <= set(said)


def test_hours_that_are_not_known_are_no_hours_of_zero(lab: PublishedLab, made: tuple[Store, Path]) -> None:
    path = made[1] / "tiny" / MANIFEST
    before = path.read_bytes()
    for training, told in ((2.5, "2.5 hours of training and 1 hour of evaluation"), (0.0, "1 hour of evaluation")):
        write_json(lab.provenance | {"hours": {"training": training, "stages": 1.0}}, path)
        assert f" ({told}); this build computes" in PublishedLab(lab.study, Store(path.parent)).numbers
    path.write_bytes(before)


def test_a_rerun_is_compared_measure_by_measure(made: tuple[Store, Path], tmp_path: Path) -> None:
    store, root = made
    same = compare(Workbench(STUDY, store), (), root=root)
    assert len(same.drop_duplicates(["model", "checkpoint"])) == 6
    assert same["largest difference"].max() < 1e-3  # of four digits
    # One checkpoint of one model, trained anew up to there, and no further.
    step = "step1-tokens256"
    anew = compare(Workbench(STUDY, Store(tmp_path)), ["one"], step, root)
    assert set(anew["checkpoint"]) == {step}
    assert anew["largest difference"].max() < 1e-3  # of four digits
    (folder,) = (tmp_path / "trained").iterdir()
    assert not (folder / "step6-tokens1536").exists()
    with pytest.raises(StudyError, match=r"--checkpoint: found 'step4', expected one of step0-tokens0, step"):
        compare(Workbench(STUDY, Store(tmp_path / "b")), ["one"], "step4", root)
    with pytest.raises(StudyError, match="found none to compare"):
        compare(Workbench(STUDY, Store(tmp_path / "b")), (), root=root)
    with pytest.raises(StudyError, match=r"study: found 'tiny' \(.*not there\), expected one with tables in"):
        compare(Workbench(STUDY, store), (), root=tmp_path / "none")


@pytest.mark.parametrize("lost", ["row", "number", "published row"])
def test_what_only_one_of_them_has_is_no_agreement(made: tuple[Store, Path], tmp_path: Path, lost: str) -> None:
    store, root = made
    shutil.copytree(root, tmp_path / "published")
    path = tmp_path / "published" / "tiny" / "curves.parquet"
    table = pd.read_parquet(path)
    first = table.index[(table["measure"] == "accuracy") & (table["model"] == "one")][0]
    if lost == "published row":  # a row that the rerun has not
        table = pd.concat([table, table.loc[[first]].assign(task="another")])
    else:
        table = (
            table.drop(index=first) if lost == "row" else table.assign(value=table["value"].mask(table.index == first))
        )
    published_anew(path, table)
    found = compare(Workbench(STUDY, store), ["one"], root=path.parents[1])
    assert found.loc[found["largest difference"] > 1, "measure"].tolist() == ["accuracy"]


def test_compare_fails_where_numbers_are_apart(made: tuple[Store, Path], tmp_path: Path) -> None:
    import yaml

    store, root = made
    shutil.copytree(root, tmp_path / "published")
    path = tmp_path / "published" / "tiny" / "curves.parquet"
    table = pd.read_parquet(path)
    chosen = (table["measure"] == "r") & (table["model"] == "two")
    table["value"] = table["value"].mask(chosen, table["value"] + 0.02)
    published_anew(path, table)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    given = [str(tmp_path / "tiny.yaml"), "--results", str(store.root), "--folder", str(path.parents[1])]
    assert CliRunner().invoke(app, ["compare", *given, "-m", "one"]).exit_code == 0
    outcome = CliRunner().invoke(app, ["compare", *given])
    assert outcome.exit_code == 2
    assert "largest difference of 0.02, expected at most 0.01" in outcome.output
