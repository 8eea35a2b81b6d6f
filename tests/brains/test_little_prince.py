"""Files of Le Petit Prince are read right, no pickle is run, and each assertion can fail by a mistake of the reader."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from brains.little_prince_files import (
    AFFINE,
    DROPPED,
    EMPTY,
    LATE,
    NA,
    OUTSIDE,
    PEOPLE,
    RIGHT,
    SHAPE,
    SHORT,
    STUCK,
    TRS,
    WRONG,
    Truth,
    dump,
    make,
    put,
    raw,
)
from brains.mistakes import mistaken, noticed
from phaselab.brains import BRAINS, BrainData, DataMissing, base, little_prince
from phaselab.brains.signal import speech_lag
from phaselab.cli import app
from phaselab.encoding import summarise
from phaselab.encoding.encode import Scores, read_voxels
from phaselab.errors import PhaselabError
from phaselab.results import Store
from phaselab.stages import Workbench, check
from phaselab.study import Study, StudyError, load_study
from tiny import TRAIN

Published = tuple[Path, dict[str, Truth]]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    data = tmp_path_factory.mktemp("prince")
    return data, {"en": make(data, people=[*PEOPLE]), "fr": make(data, "fr")}


class Case:
    """The data as a reader (which may be mistaken) gives them; each kind of study is read once."""

    def __init__(self, module: Any, data: Path, truths: dict[str, Truth]) -> None:
        self.module, self.data, self.truths, self.read = module, data, truths, dict[str, BrainData]()

    def brain(self, language: str = "en", **fields: Any) -> BrainData:
        if (key := language + str(fields)) not in self.read:
            section = self.module.LittlePrinceSpec(language=language, **fields)
            self.read[key] = self.module.load(section, self.data)
        return self.read[key]

    def words(self, language: str) -> tuple[Any, str]:
        section = self.module.LittlePrinceSpec(language=language)
        return self.module.read_words(self.module.files(section, self.data)["stimulus"][0], section)  # type: ignore[no-any-return]


# --- Assertions ------------------------------------------------------------------------------------


def l01_responses_are_what_was_written(case: Case) -> None:
    brain = case.brain()
    for run, values in zip(brain.stimulus.runs, case.truths["en"].responses, strict=True):
        read = brain.responses("average", run.name)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values[:-10].astype(np.float32))


def l02_scans_of_each_run(case: Case) -> None:
    assert [run.n_trs for run in case.brain().stimulus.runs] == [n - 10 for n in TRS["en"]]
    assert [run.n_trs for run in case.brain(tail=0).stimulus.runs] == TRS["en"]
    assert len(case.brain(tail=0).responses("average", "section-9")) == 368
    assert [run.n_trs for run in case.words("fr")[0]] == [n - 10 for n in TRS["fr"]]


def l03_a_region_is_a_side_of_a_mask_and_its_mirror(case: Case) -> None:
    truth, found = case.truths["en"], case.brain().rois["average"]
    for place, name in zip(truth.places, found, strict=True):
        there = [roi for roi, own in truth.rois.items() if own[tuple(place)] or own[(6 - place[0], *place[1:])]]
        right = (there or ["rest"])[0]
        assert name == ("unpaired" if place[0] == 3 else f"{'L' if place[0] < 3 else 'R'} {right}")


def l04_words_verbatim(case: Case) -> None:
    for language in ("en", "fr"):
        for run, words, onsets in zip(
            case.words(language)[0], case.truths[language].words, case.truths[language].onsets, strict=True
        ):
            inside = onsets < 2 * run.n_trs
            assert list(run.texts) == [word for word, here in zip(words, inside, strict=True) if here]
            np.testing.assert_allclose(run.onsets, onsets[inside])
            assert (run.offsets >= run.onsets).all()
            assert run.starts.tolist() == [True, *[False] * (len(run.texts) - 1)]


def l05_what_was_changed_is_told(case: Case) -> None:
    told = {language: case.words(language)[1] for language in ("en", "fr")}
    for language, rows in DROPPED.items():
        assert all(f"{row} ('wrong') dropped" in told[language] for row in rows if row != 1204)
    assert all(f"{row} ({word!r}) is {RIGHT[row]!r}" in told["fr"] for row, word in WRONG.items())
    assert "1204 ('') dropped" in told["fr"]
    for row in (LATE, SHORT):
        assert f"{row} put in order of onset, its end not before it" in told["en"]
    assert f"{EMPTY} ('') dropped" in told["en"]
    assert f"{NA} " not in told["en"]
    assert told["en"].count(";") == 5


def l06_texts_lead_responses(case: Case) -> None:
    lag, r = speech_lag(case.brain(), "average")
    assert lag == 4
    assert r > 0.7


def l07_ceiling_of_the_average(case: Case) -> None:
    truth = case.truths["en"]
    r = truth.halves.mean(axis=0).clip(0)
    found = (case.brain().ceiling or {})["average"]
    np.testing.assert_allclose(found[truth.follows], np.sqrt(2 * r / (1 + r))[truth.follows], rtol=1e-6)
    assert (found[~truth.follows] == 0).all()


def l08_reliable_voxels_come_with_their_mirrors(case: Case) -> None:
    truth, brain = case.truths["en"], case.brain(voxels="reliable")
    whole = case.brain().responses("average", "section-2")
    r, places = truth.halves.mean(axis=0), [tuple(place) for place in truth.places]
    both = [r[i] + r[places.index((6 - x, y, z))] for i, (x, y, z) in enumerate(places)]
    right = sorted(sorted(range(len(both)), key=lambda i: -both[i])[: -(-len(both) // 4)])
    np.testing.assert_array_equal(brain.responses("average", "section-2"), whole[:, right])
    assert brain.rois["average"].tolist() == case.brain().rois["average"][right].tolist()
    assert len((brain.ceiling or {})["average"]) == len(right)


class Hostile:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def l09_nothing_but_one_array_is_read_and_nothing_runs(case: Case) -> None:
    values, path, canary = np.arange(12.0).reshape(3, 4), case.data / "a.gz", case.data / "canary"
    dump(values, path)
    np.testing.assert_array_equal(case.module.array_of(path, (3, 4)), values)
    good, packed = raw(path), path.read_bytes()
    pickles = {
        "hostile": pickle.dumps(Hostile(canary)),
        "hostile and an array": pickle.dumps(Hostile(canary))[:-1] + good[2:],
        "something before it": good[:2] + b"N0" + good[2:],  # None, and away with it
        "another class": good.replace(b"NumpyArrayWrapper", b"NumpyArrayWrappes"),
        "another module": good.replace(b"joblib.numpy_pickle", b"joblib_numpy_pickle"),
        "more at the end": good[:-1] + bytes(400) + b".",
        "cut": good[:-9] + b".",
        "no end": good[:-1] + b"x",
        "nothing": b"",
        "noise": bytes(range(256)),
        "a list": pickle.dumps([1.0, 2.0]),
    }
    for content in pickles.values():
        put(content, path)
        with pytest.raises(PhaselabError, match=r"a\.gz: "):
            case.module.array_of(path, (3, 4))
    several = [values, values], (values, np.zeros(2)), {"a": values}
    for other in (*several, values.astype(object), values.astype(int), values[0], values + 1j):
        dump(other, path)
        with pytest.raises(PhaselabError, match=r"a\.gz: .*expected one array \(3, 4\)"):
            case.module.array_of(path, (3, 4))
    for content in (packed[:-3], packed[: len(packed) // 2], good, b"/annex/objects/MD5E-s1--ab.gz"):
        path.write_bytes(content)
        with pytest.raises(PhaselabError, match=r"a\.gz: "):
            case.module.array_of(path, (3, 4))
    assert not canary.exists()


def l10_memory_is_bounded(case: Case) -> None:
    path = case.data / "bomb.gz"
    dump(np.arange(12.0).reshape(3, 4), path)
    path.write_bytes(gzip.compress(raw(path) + bytes(30_000_000), 9))
    tracemalloc.start()
    try:
        with pytest.raises(PhaselabError, match="cut or with more"):
            case.module.array_of(path, (3, 4))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def l11_transposed_or_of_another_run_is_refused(case: Case) -> None:
    values, path = np.ones((283, 113)), case.data / "b.gz"
    for other in (values, values.T, values[:282].T):
        dump(other, path)
        with pytest.raises(PhaselabError, match=rf"b.gz: found \({other.shape[0]}, {other.shape[1]}\), expected one "):
            case.module.array_of(path, (282, 113))


def l12_runs_of_people_by_the_order_of_their_numbers(case: Case) -> None:
    brain = case.brain(subjects=[*PEOPLE], tail=0)
    assert brain.subjects == tuple(PEOPLE)
    for person in PEOPLE:
        for number, raw_values in enumerate(case.truths["en"].people[person], 1):
            read = np.asarray(brain.responses(person, f"section-{number}"))
            assert read.dtype == np.float32
            follows = np.flatnonzero(case.truths["en"].follows)
            np.testing.assert_allclose(read[:, follows[1:4]], expected(raw_values)[:, follows[1:4]], atol=2e-3)


def expected(values: np.ndarray) -> np.ndarray:
    """Without the mean and cosines of half a period and more, of 128 s and longer; z-scored."""
    n = len(values)
    at = (np.arange(n) + 0.5) / n
    slow = np.stack([np.cos(np.pi * k * at) for k in range(n) if k == 0 or 2 * n * 2.0 / k >= 128], axis=1)
    rest = values - slow @ np.linalg.lstsq(slow, values, rcond=None)[0]
    return np.asarray(rest / rest.std(axis=0))


def l13_voxels_of_people_are_those_of_the_mask(case: Case) -> None:
    brain, truth = case.brain(subjects=[*PEOPLE]), case.truths["en"]
    assert all(brain.rois[person].tolist() == case.brain().rois["average"].tolist() for person in PEOPLE)
    for person in PEOPLE:
        read, right = np.asarray(brain.responses(person, "section-2")), expected(truth.people[person][1])[:-10]
        kept = np.arange(len(truth.places)) != OUTSIDE[1] if person == OUTSIDE[0] else slice(None)
        np.testing.assert_allclose(read[:, kept], right[:, kept], atol=2e-3)
    few = case.brain(subjects=["EN061"], voxels="reliable")
    reliable = case.brain(voxels="reliable").rois["average"]
    assert few.rois["EN061"].tolist() == reliable.tolist()


def l14_voxels_in_which_nothing_varies_are_0_and_named(case: Case) -> None:
    brain = case.brain(subjects=[*PEOPLE])
    assert (np.asarray(brain.responses(*OUTSIDE[:1], "section-1"))[:, OUTSIDE[1]] == 0).all()
    assert (np.asarray(brain.responses(STUCK[0], f"section-{STUCK[2]}"))[:, STUCK[1]] == 0).all()
    assert [note for note in brain.notes if "constant" in note] == [
        f"EN059: constant in a run, where they score 0: {OUTSIDE[1]}, {STUCK[1]}."
    ]


def l15_no_ceiling_is_known_of_people(case: Case) -> None:
    alone = case.brain(subjects=["EN061"])
    assert (alone.ceiling, alone.ceiling_kind) == (None, "")
    assert any("No noise ceiling is known of a person" in note for note in alone.notes)
    assert "1 person who listens to Le Petit Prince (en)" in alone.description
    assert not any("a person" in note for note in case.brain().notes)


ASSERTIONS = {name.split("_")[0]: made for name, made in list(globals().items()) if name[:2] in ("l0", "l1")}


@pytest.mark.parametrize("name", ASSERTIONS)
def test_published_files_are_read_right(name: str, published: Published) -> None:
    ASSERTIONS[name](Case(little_prince, *published))


# --- Mutations -------------------------------------------------------------------------------------

#: A mistake: what stands in little_prince.py or base.py, what it becomes, and the assertions that find it.
MISTAKES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "Fortran order read as C": ('order="F" if match[3] == "F" else "C"', 'order="C"', ("l01",)),
    "padding read as numbers": ("data[end + between : -1]", "data[end : -1 - between]", ("l01", "l09")),
    "byte order turned": ("np.dtype(match[5] + match[4])", 'np.dtype(">" + match[4])', ("l01",)),
    "doubles kept": ("np.save(stream, values.astype(np.float32))", "np.save(stream, values)", ("l01",)),
    "tail cut in front": (
        "prince.read(one, run, prince.trs[run] - section.tail)",
        "np.asarray(prince.read(one, run))[section.tail :]",
        ("l01", "l06"),
    ),
    "runs out of order": ("run and self.names.index(run)", "run and (self.names.index(run) + 1) % 9", ("l01",)),
    "trailing scans dropped": ("(282, 298, 340,", "(278, 294, 336,", ("l01", "l02")),
    "sides exchanged": ('"L ", "R "', '"R ", "L "', ("l03",)),
    "a mask of one side": (" | (own[mirror] & (mirror >= 0))", "", ("l03",)),
    "the last of those that overlap": ("reversed(masks)", "masks", ("l03",)),
    "the middle has a side": (" & (mirror != order)", "", ("l03",)),
    "voxels in Fortran order": ("places[inside] = order =", "places.T[inside.T] = order =", ("l03",)),
    "mirrored in y": ("places[::-1][inside]", "places[:, ::-1][inside]", ("l03", "l08")),
    "rows from 1": (
        "{row: word for row, word in other.items()",
        "{row - 1: word for row, word in other.items()",
        ("l04",),
    ),
    "faulty rows kept": ('"") | FAULTY[section.language]', '"")', ("l04", "l05")),
    "words not corrected": ('FAULTY["fr"] |=', "_ =", ("l04", "l05")),
    "empty words kept": ('table = table[table["word"] != ""]', "", ("l04",)),
    "order of the file": ('.sort_values("onset", kind="stable")', "", ("l04",)),
    "ends before beginnings": ('own[["onset", "offset"]].max(axis=1)', 'own["offset"]', ("l04",)),
    "every word begins anew": ("own.index == 0", "own.index >= 0", ("l04",)),
    "disorder not told": ('(own["index"].diff() < 0) |', "", ("l05",)),
    "r of halves is the ceiling": ("np.sqrt(2 * r / (1 + r))[order]", "r[order]", ("l07",)),
    "one draw": (".mean(axis=0).clip(0)", "[0].clip(0)", ("l07",)),
    "voxels without their mirrors": ("both = r + r[np.where(mirror < 0, order, mirror)]", "both = r", ("l08",)),
    "the least reliable": ("np.argsort(-both", "np.argsort(both", ("l08",)),
    "what else a pickle says": ("ONE_ARRAY.fullmatch", "ONE_ARRAY.search", ("l09",)),
    "what follows an array": ("between == padded and", "", ("l09",)),
    "the end of a pickle": (' and data[-1:] == b"."', "", ("l09",)),
    "the end of a stream": ("inflate.eof and", "", ("l09",)),
    "no bound": ("8 * shape[0] * shape[1] + HEADER)", "2**31)", ("l10",)),
    "any shape": ("found == shape and whole", "whole", ("l11",)),
    "the last run first": ("key=lambda path: number[path]", "key=lambda path: -number[path]", ("l12",)),
    "sections counted from the first number": (
        "dict(zip(self.names, found, strict=True))",
        '{f"section-{number[path] + 1 - min(number.values())}": path for path in found}',
        ("l12",),
    ),
    "the affine of a person's volumes": ("np.linalg.solve(image.affine, ", "np.linalg.solve(affine * 0.5, ", ("l13",)),
    "the nearest voxel": ("at.T, order=1", "at.T, order=0", ("l13",)),
    "corners for centres": (
        "affine @ np.c_[np.argwhere(inside)",
        "affine @ np.c_[np.argwhere(inside) + 0.25",
        ("l13",),
    ),
    "columns in Fortran order": ("np.c_[np.argwhere(inside)", "np.c_[np.argwhere(inside.T)[:, ::-1]", ("l13",)),
    "drift kept": ("without_drift(values, TR, CUTOFF)", "values", ("l12", "l13")),
    "drift of twice the period": ("without_drift(values, TR, CUTOFF)", "without_drift(values, TR, 256)", ("l12",)),
    "of another length": (" * n_trs**0.5", "", ("l12", "l13")),
    "what does not vary is noise": ("np.where(varies, without_drift", "np.where(True, without_drift", ("l14",)),
    "a ceiling for all": ("if of_average else None", "", ("l15",)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_the_reader_is_found(name: str, published: Published, tmp_path: Path) -> None:
    data, truths = published
    (tmp_path / "little-prince").symlink_to(data / "little-prince")  # with copies of its own
    old, new, finding = MISTAKES[name]
    case = Case(mistaken(little_prince, old, new, base), tmp_path, truths)
    for assertion in finding:
        with noticed():
            ASSERTIONS[assertion](case)


def test_each_assertion_can_fail() -> None:
    assert {assertion for _, _, finding in MISTAKES.values() for assertion in finding} == {*ASSERTIONS}


# --- A study ---------------------------------------------------------------------------------------


def given(**content: Any) -> Study:
    study = {
        "name": "t",
        "title": "t",
        "brain": {"name": "little-prince", "subjects": "average"},
        "models": [{"name": "one", "train": {**TRAIN, "checkpoints": 2}}],
        "features": {"context": "words", "pooling": "mean", "resample": "sum", "trim": 10},
        "encoding": {"folds": "runs", "permutations": 19, "shuffles": 1, "log10_alphas": [0, 6, 7]},
    }
    return Study.model_validate(study | content)


def test_a_study_finds_the_planted_signal_and_its_side(published: Published, tmp_path: Path) -> None:
    data, truths = published
    bench = Workbench(given(), Store(tmp_path), data)
    assert check(bench, bench.study.models) == {}
    model = bench.study.models[0]
    last = bench.checkpoints(model)[-1]
    folder = bench.result("brain", model, last)
    r, follows = read_voxels(folder / "voxels.zarr")["average"]["r"][-1], truths["en"].follows
    left = truths["en"].places[:, 0] < 3
    assert r[follows].min() > 0.4
    assert np.abs(r[~follows]).max() < 0.2
    rows = pd.read_parquet(folder / "curves.parquet")
    rows = rows[rows["layer"] == rows["layer"].max()]
    sides = rows[rows["measure"] == "left_minus_right"].set_index("roi")["value"]
    right = truths["en"].places[:, 0] > 3
    assert sides["all"] == pytest.approx(r[left].mean() - r[right].mean(), abs=1e-6)
    assert sides["all"] > 0.05  # there is less noise on the left
    known = rows[rows["measure"] == "r"].set_index("roi")["value"]
    assert sides["AG_TPJ"] == pytest.approx(known["L AG_TPJ"] - known["R AG_TPJ"], abs=1e-6)
    assert "unpaired" not in sides


def test_a_study_of_people_finds_the_planted_signal_and_its_lag(published: Published, tmp_path: Path) -> None:
    data, truths = published
    bench = Workbench(given(brain={"name": "little-prince", "subjects": [*PEOPLE]}), Store(tmp_path), data)
    assert check(bench, bench.study.models) == {}
    model = bench.study.models[0]
    found = read_voxels(bench.result("brain", model, bench.checkpoints(model)[-1]) / "voxels.zarr")
    follows = truths["en"].follows
    for who in PEOPLE:
        r, lag = found[who]["r"][-1], speech_lag(bench.brain, who)
        kept = follows & ~np.isin(np.arange(len(follows)), [OUTSIDE[1], STUCK[1]] if who == OUTSIDE[0] else [])
        assert r[kept].min() > 0.4
        assert np.abs(r[~follows]).max() < 0.2
        assert lag[0] == 4
    assert found[OUTSIDE[0]]["r"][-1][OUTSIDE[1]] == 0


def test_the_study_of_the_package_suits_the_data(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    bench = Workbench(load_study("little-prince"), Store(tmp_path), published[0])
    assert check(bench, bench.study.models) == {}


def test_left_minus_right_is_of_pairs_alone() -> None:
    r = np.array([[0.1, 0.3, 0.2, 0.5, 0.9]], dtype=np.float32)
    scores = {"s": Scores((0,), r, r, r, r > 0)}
    for names, right in (
        (["L a", "R a", "L b", "R b", "L c"], {"all": -0.25, "a": -0.2, "b": -0.3}),
        (["L", "R", "LATL", "RATL", "c"], {}),
        (["L a", "L a", "R b", "R b", "c"], {}),
    ):
        table = summarise(scores, {"s": np.array(names)})
        found = table[table["measure"] == "left_minus_right"].set_index("roi")["value"].to_dict()
        assert found == pytest.approx(right, abs=1e-6)


def test_the_rule_of_the_phases_may_name_it(published: Published, tmp_path: Path) -> None:
    for phases, message in (
        ({"measure": "left_minus_right", "roi": "TP"}, ""),
        ({"measure": "left_minus_right", "roi": "L TP"}, "phases.roi: found 'L TP', expected one of AG_TPJ, .*, all"),
        ({"measure": "r", "roi": "TP"}, "phases.roi: found 'TP', expected one of L AG_TPJ"),
    ):
        bench = Workbench(given(phases=phases), Store(tmp_path), published[0])
        if message:
            with pytest.raises(StudyError, match=message):
                check(bench, bench.study.models)
        else:
            check(bench, bench.study.models)


# --- What is wrong ---------------------------------------------------------------------------------


def test_what_is_not_there_or_not_right_is_named(tmp_path: Path) -> None:
    section = little_prince.LittlePrinceSpec()
    with pytest.raises(DataMissing, match=r"get little-prince --languages en --subjects average .*name DATA with"):
        little_prince.load(section, None)
    make(tmp_path)
    root = tmp_path / "little-prince"
    table = root / "annotation/EN/lppEN_word_information.csv"
    kept = pd.read_csv(table, keep_default_na=False)
    for row, column, value, message in (
        (7, "onset", 9999, r"row 7: found .*'onset': 9999.0, 'section': 1.0\}, expected section 1 to 9, seconds in"),
        (7, "onset", -1, "row 7: found .*-1"),
        (7, "section", 10, "row 7: found .*10"),
        (7, "offset", "", "row 7: found .*nan"),
        (7, "onset", "0,5", "onset: found '0,5' in row 8"),
    ):
        wrong = kept.astype(object).copy()
        wrong.loc[row, column] = value
        wrong.to_csv(table, index=False)
        with pytest.raises(PhaselabError, match=message):
            little_prince.load(section, tmp_path)
    kept[kept["section"] < 9].to_csv(table, index=False)
    with pytest.raises(PhaselabError, match="section 9: found no word"):
        little_prince.load(section, tmp_path)
    kept.to_csv(table, index=False)
    roi = root / "roi_masks/TP.nii.gz"
    roi.write_bytes(b"half of it")
    with pytest.raises(PhaselabError, match=r"TP.nii.gz: found no mask \(x, y, z\) in NIfTI"):
        little_prince.load(section, tmp_path)
    nibabel.Nifti1Image(np.ones((*SHAPE, 2), np.float32), AFFINE).to_filename(roi)
    with pytest.raises(PhaselabError, match=r"TP.nii.gz: found no mask \(x, y, z\) in NIfTI: too many"):
        little_prince.load(section, tmp_path)
    for path in (roi, root / "mask_lpp_en.nii.gz"):
        before = path.read_bytes()
        nibabel.Nifti1Image(np.zeros(SHAPE, np.float32), AFFINE).to_filename(path)
        with pytest.raises(PhaselabError, match=rf"{path.name}: found no voxel where the brain is"):
            little_prince.load(section, tmp_path)
        path.write_bytes(before)
    make(tmp_path)
    run = root / "lpp_en_average_subject/average_subject_run-2.gz"
    values = little_prince.array_of(run, (340, len(make(tmp_path).places))).copy()
    values[7, 5] = np.nan
    dump(values, run)
    with pytest.raises(PhaselabError, match=r"run-2.gz: row 7, column 5: found nan, expected a number"):
        little_prince.load(section, tmp_path).responses("average", "section-3")
    roi.unlink()
    with pytest.raises(DataMissing, match=r"TP.nii.gz: not there; type: phaselab data get little-prince --languages"):
        little_prince.load(section, tmp_path)


def person(data: Path, number: int = 11, who: str = "EN061") -> Path:
    (path,) = (data / f"little-prince/derivatives/sub-{who}/func").glob(f"sub-*_run-{number:02d}_space-MNI*.nii.gz")
    return path


def test_what_is_wrong_with_the_runs_of_a_person_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = make(tmp_path, people=["EN061"]).places
    section = little_prince.LittlePrinceSpec(subjects=["EN061"])
    path = person(tmp_path)  # the second one
    kept = path.read_bytes()
    image = nibabel.Nifti1Image.load(path)
    volumes, affine = image.get_fdata(dtype=np.float32), image.affine
    lacks, odd, far = volumes.copy(), volumes.copy(), affine.copy()
    lacks[..., 7], odd[3, 4, 5, 9], far[0, 3] = np.nan, np.inf, 500
    n, named, scans = len(places), path.name, r"numbers \(x, y, z, 298\): the scans of the section that"
    for values, at, message in (
        (volumes[..., 1:], affine, rf"{named}: found float32 \(13, 9, 10, 297\), expected {scans}"),
        (np.moveaxis(volumes, 3, 0), affine, rf"{named}: found float32 \(298, 13, 9, 10\), expected {scans}"),
        (volumes[..., 0], affine, rf"{named}: found float32 \(13, 9, 10\), expected {scans}"),
        (volumes.astype("c8"), affine, rf"{named}: found complex64 \(13, 9, 10, 298\), expected {scans}"),
        (volumes, far, rf"{named}: found volumes \(13, 9, 10\) that lack {n} of the {n} voxels of mask_lpp_en.nii.gz"),
        (volumes[:9], affine, rf"{named}: found volumes \(9, 9, 10\) that lack \d\d of the {n} voxels"),
        (lacks, affine, rf"{named}: row 7, column 0: found nan, expected a number"),
        (0 * volumes + 3, affine, rf"{named}: found scans that are all alike, expected ones that vary"),
    ):
        nibabel.Nifti1Image(np.ascontiguousarray(values), at).to_filename(path)
        with pytest.raises(PhaselabError, match=message):
            little_prince.load(section, tmp_path)
    for content, message in (
        (b"half of it", "found no scans"),
        (kept[: len(kept) // 2], "found no scans"),
        (b"/annex/objects/MD5E-s1--ab.nii.gz", "a pointer of Git LFS or git-annex, expected the file itself"),
    ):
        path.write_bytes(content)
        with pytest.raises(PhaselabError, match=rf"{named}: {message}|{message}"):
            little_prince.load(section, tmp_path)
    path.write_bytes(kept)
    monkeypatch.setattr(little_prince, "OUTSIDE", 0.5)
    nibabel.Nifti1Image(volumes[1:], affine).to_filename(path)  # the right edge; of what is there nothing moves
    brain = little_prince.load(section, tmp_path)
    assert (np.asarray(brain.responses("EN061", "section-2"))[:, places[:, 0] == 6] == 0).all()
    assert any("constant in a run, where they score 0" in note for note in brain.notes)
    # Another number of runs: which section is which cannot be known.
    extra = path.with_name(path.name.replace("run-11", "run-23"))
    extra.write_bytes(kept)
    right_ones = r"runs \[9, 11, 12, 13, 14, 19, 20, 21, 22, 23\], expected 9, a section of the book each"
    with pytest.raises(PhaselabError, match=rf"sub-EN061_task-lppEN_run-\*_space-.*: found {right_ones}"):
        little_prince.load(section, tmp_path)
    extra.unlink()
    path.unlink()
    lost = rf"{named}: not there; type: phaselab data get little-prince --languages en --subjects EN061 --data"
    with pytest.raises(DataMissing, match=lost):
        little_prince.LittlePrince(section, tmp_path).path("response", "EN061", "section-2")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"subjects": ["EN999", "EN057"]}, "EN999"),
        ({"subjects": ["average", "EN057"]}, "average"),
        ({"subjects": ["FR001"]}, "FR001"),
        ({"subjects": ["EN057"], "language": "cn"}, "EN057"),
    ],
)
def test_people_are_those_who_listened_in_the_language(fields: dict[str, Any], found: str, tmp_path: Path) -> None:
    section = little_prince.LittlePrinceSpec.model_validate(fields)
    right = rf"brain.subjects: found {found}, expected average, all, or some of {section.language.upper()}0"
    with pytest.raises(PhaselabError, match=right):
        little_prince.load(section, tmp_path)
    every = little_prince.LittlePrince(little_prince.LittlePrinceSpec(subjects="all", language="fr"), None)
    assert (len(every.people), len(every.chosen["subjects"].split(","))) == (28, 28)


def test_copies_of_people_outlive_the_originals(tmp_path: Path) -> None:
    make(tmp_path, people=[*PEOPLE])
    study = tmp_path / "mine.yaml"
    brain = "{name: little-prince, subjects: [EN059, EN061]}"
    study.write_text(f"name: mine\ntitle: Mine\nbrain: {brain}\nmodels: [{{name: m, folder: nowhere}}]\n")
    of = load_study(study).brain
    originals = sorted((tmp_path / "little-prince").rglob("sub-*_space-MNI*.nii.gz"))
    before = np.asarray(little_prince.load(of, tmp_path).responses("EN059", "section-9"))
    files = BRAINS["little-prince"].files(of, tmp_path)["responses"]
    keys = [path.read_text() for path in files if path.suffix == ".key"]
    assert len(keys) == 18
    done = CliRunner().invoke(app, ["data", "cache", str(study), "--drop-originals", "--data", str(tmp_path)])
    assert "little-prince: 18 files of" in done.output
    assert not any(path.exists() for path in originals if not path.name.startswith("._"))
    after = little_prince.load(of, tmp_path)
    np.testing.assert_array_equal(np.asarray(after.responses("EN059", "section-9")), before)
    assert [path.read_text() for path in files if path.suffix == ".key"] == keys
    listed = CliRunner().invoke(app, ["data", "get", "little-prince", "--languages", "en", "--subjects", "EN059,EN061",
        "--data", str(tmp_path), "--dry-run"])  # fmt: skip
    assert listed.output.count("a copy: ") == 18, listed.output


def test_a_mask_of_finer_voxels_is_brought_to_the_grid(tmp_path: Path) -> None:
    truth = make(tmp_path)
    before = little_prince.load(little_prince.LittlePrinceSpec(), tmp_path).rois["average"]
    fine = np.diag([2.0, 2, 2, 1])
    fine[:3, 3] = AFFINE[:3, 3] - 1
    values = truth.rois["TP"].repeat(2, 0).repeat(2, 1).repeat(2, 2).astype(np.float32)
    nibabel.Nifti1Image(values, fine).to_filename(tmp_path / "little-prince/roi_masks/TP.nii.gz")
    after = little_prince.load(little_prince.LittlePrinceSpec(), tmp_path).rois["average"]
    assert after.tolist() == before.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"language": "de"}, "brain.language: found 'de'"),
        ({"subjects": "EN057"}, "brain.subjects: found 'EN057'.*'average'"),
        ({"voxels": "language"}, "brain.voxels: found 'language'"),
        ({"tail": -1}, "brain.tail: found -1"),
    ],
)
def test_wrong_names_are_told_at_once(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = given().model_dump(mode="json")
    content["brain"] |= fields
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=message):
        load_study(path)
