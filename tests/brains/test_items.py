"""Brain-Score's netCDF files are read right, NaN reaches no fit, and each assertion can fail by a reader's mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brains.items_files import MAKE, Truth, write
from brains.mistakes import mistaken, noticed
from phaselab.brains import BrainData, DataMissing, items
from phaselab.brains.signal import speech_lag
from phaselab.encoding.encode import read_voxels
from phaselab.encoding.folds import outer_folds, parts_of
from phaselab.errors import PhaselabError
from phaselab.results import Store
from phaselab.stages import Workbench, check
from phaselab.study import EncodingSpec, Study, StudyError, load_study
from tiny import TRAIN

Published = tuple[Path, dict[str, Truth]]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    data = tmp_path_factory.mktemp("items")
    return data, {name: make(data) for name, make in MAKE.items()}


class Case:
    """The data as a reader (which may be mistaken) gives them."""

    def __init__(self, module: Any, data: Path, truths: dict[str, Truth]) -> None:
        self.module, self.data, self.truths = module, data, truths

    def brain(self, benchmark: str) -> BrainData:
        loaded: BrainData = self.module.load(self.module.BrainScoreSpec(benchmark=benchmark), self.data)
        return loaded


def rows_of(brain: BrainData, subject: str) -> dict[str, np.ndarray]:
    """Text -> response."""
    runs = next(runs for subjects, runs in brain.groups if subject in subjects)
    of = {run.name: run for run in brain.stimulus.runs}
    return {text: row for run in runs for text, row in zip(of[run].texts, brain.responses(subject, run), strict=True)}


# --- Assertions ------------------------------------------------------------------------------------


def n01_each_response_stands_by_its_text(case: Case) -> None:
    for benchmark, truth in case.truths.items():
        brain = case.brain(benchmark)
        for subject in brain.subjects:
            person, _, experiment = subject.partition("-") if benchmark == "Pereira2018" else (subject, "", "")
            for text, row in rows_of(brain, subject).items():
                at = truth.texts.index(text)
                own = truth.values[at, [one == person for one in truth.subjects]].astype(np.float32)
                kept = [n for n in range(len(own)) if not (subject == "b-384sentences" and n == 1)]
                np.testing.assert_array_equal(row, own[kept])
                assert row.dtype == np.float32
                assert not experiment or truth.coordinates["experiment"][at] == experiment


def n02_all_texts_once(case: Case) -> None:
    for benchmark, truth in case.truths.items():
        texts = [text for run in case.brain(benchmark).stimulus.runs for text in run.texts]
        assert sorted(texts) == sorted(truth.texts)
    assert "naïve" in " ".join(case.truths["Pereira2018"].texts)


def n03_a_run_is_a_passage_of_an_experiment(case: Case) -> None:
    brain = case.brain("Pereira2018")
    assert len(brain.stimulus.runs) == 22
    for run in brain.stimulus.runs:
        assert {run.name} == {f"{e} {p}" for e, p in run.labels[["experiment", "passage"]].to_numpy().tolist()}
        assert run.n_trs == 4
        assert run.starts.tolist() == [True, False, False, False]
    names = {benchmark: [run.name for run in case.brain(benchmark).stimulus.runs] for benchmark in MAKE}
    assert sorted(names["Blank2014"]) == ["Boar", "Elvis", "Tulips"]
    assert names["Fedorenko2016"] == ["0", "1", "2", "3", "4"]
    (alone,) = case.brain("Tuckute2024").stimulus.runs
    assert alone.starts.all()


def n04_parts_are_in_the_order_they_were_heard(case: Case) -> None:
    for run in case.brain("Blank2014").stimulus.runs:
        assert list(run.texts) == [f"{run.name} {number} {part} " for number in range(6) for part in (0, 1)]


def n05_people_are_subjects_of_the_experiments_they_did(case: Case) -> None:
    brain = case.brain("Pereira2018")
    assert [subjects for subjects, _ in brain.groups] == [
        ("a-384sentences", "b-384sentences"),
        ("a-243sentences", "b-243sentences", "c-243sentences"),
    ]
    assert [len(runs) for _, runs in brain.groups] == [12, 10]
    assert {name: len(rois) for name, rois in brain.rois.items()} == {
        "a-384sentences": 5, "b-384sentences": 3, "a-243sentences": 5, "b-243sentences": 4, "c-243sentences": 3,
    }  # fmt: skip
    assert case.brain("Fedorenko2016").subjects == ("1", "2")


def n06_who_is_left_out_is_told(case: Case) -> None:
    assert case.brain("Pereira2018").notes == (
        "No noise ceiling is published with the responses: scores are r itself.",
        "b-384sentences: 1 of 4 voxels left out for want of responses.",
        "c-384sentences: 3 of 3 voxels left out for want of responses.",
        "d-384sentences: 2 of 2 voxels left out for want of responses.",
        "d-243sentences: 2 of 2 voxels left out for want of responses.",
    )
    assert len(case.brain("Blank2014").notes) == 1
    assert case.brain("Pereira2018").ceiling is None


def n07_nothing_that_is_fitted_is_nan(case: Case) -> None:
    for benchmark in MAKE:
        for of_run in case.brain(benchmark).scored(0).values():
            assert all(np.isfinite(values).all() for values in of_run.values())


def n08_folds_never_part_a_passage(case: Case) -> None:
    brain, spec = case.brain("Pereira2018"), EncodingSpec(folds="groups", n_folds=5)
    lengths = {run: len(values) for run, values in brain.scored(0)["a-384sentences"].items()}
    passages = np.repeat([*lengths], [*lengths.values()])
    folds = outer_folds(parts_of(lengths, spec, brain.folds), spec)
    assert len(folds) == 5
    for train, test in folds:
        assert not {*passages[train]} & {*passages[test]}
    assert {run.name: len(run.texts) for run in brain.stimulus.runs}.items() >= lengths.items()
    assert all(n == 4 for n in lengths.values())


def n09_regions_as_published(case: Case) -> None:
    assert case.brain("Blank2014").rois["085"].tolist() == ["03_LH_IFG", "09_RH_IFG"]
    assert case.brain("Tuckute2024").rois["848-853"].tolist() == ["lang_LH_netw"]
    assert {*case.brain("Pereira2018").rois["a-243sentences"]} == {"language"}


def n10_dimensions_are_told_by_their_names(case: Case) -> None:
    data = case.data / "turned"
    truth, path = case.truths["Fedorenko2016"], data / "brainscore/assy_Fedorenko2016_language.nc"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(case.data / "brainscore" / path.name) as file, h5py.File(path, "w") as turned:
        for name in (*file["data"].attrs["coordinates"].split(), "presentation", "neuroid"):
            file.copy(name, turned, without_attrs=True)
        turned["data"] = file["data"][()].T
        for axis, name in enumerate(("neuroid", "presentation")):
            turned[name].make_scale(name)
            turned["data"].dims[axis].attach_scale(turned[name])
    brain = case.module.load(case.module.BrainScoreSpec(benchmark="Fedorenko2016"), data)
    np.testing.assert_array_equal(brain.responses("2", "1")[:, 0], truth.values[8:16, 2].astype(np.float32))


ASSERTIONS = {name.split("_")[0]: made for name, made in list(globals().items()) if name[:2] in ("n0", "n1")}


@pytest.mark.parametrize("name", ASSERTIONS)
def test_published_files_are_read_right(name: str, published: Published) -> None:
    ASSERTIONS[name](Case(items, *published))


# --- Mutations -------------------------------------------------------------------------------------

#: A mistake: what stands in items.py, what it becomes, and the assertions that find it.
MISTAKES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "rows of the file": ('run.labels["item"]', 'run.labels["sentence"]', ("n01",)),
    "rows counted after sorting": (
        'kind="stable", ignore_index=True)',
        'kind="stable", ignore_index=True).assign(item=range(n))',
        ("n01",),
    ),
    "all columns": ("columns[subject])]", "[*columns.values()][0])]", ("n01", "n07")),
    "text in another code": ("of.asstr()", 'of.asstr("latin-1")', ("n02",)),
    "an experiment alone": ('texts.groupby("experiment", sort=False)', '[*texts.groupby("experiment")][:1]', ("n05",)),
    "passages of both experiments": ('(texts["experiment"] + " " + texts["passage"])', 'texts["passage"]', ("n03",)),
    "each text alone": ('(texts["passage"] == "")', '(texts["passage"] != "")', ("n03",)),
    "no text alone": ('(texts["passage"] == "")', '(texts["passage"] == "-")', ("n03",)),
    "runs are experiments": ('"passage": "passage_label passage_category ', '"passage": "', ("n03", "n08")),
    "order of the file": ('["first", "sentence", "part"]', '["first"]', ("n04",)),
    "parts out of order": ('["first", "sentence", "part"]', '["first", "part", "sentence"]', ("n04",)),
    "voxels that lack all": ("there = known.all(axis=0)", "there = known.any(axis=0)", ("n05", "n07")),
    "NaN kept": ("of[there[of]]", "of", ("n05", "n07")),
    "people over experiments": (
        'np.isfinite(values[own["item"]])',
        "np.isfinite(values)",
        ("n05",),
    ),
    "not told": ("notes.append(", "str(", ("n06",)),
    "told of all": ("len(of) - len(kept)", "len(of)", ("n06",)),
    "regions not read": ('"region": "fROI_area roi"', '"region": "area"', ("n09",)),
    "dimensions by their place": ('== "/neuroid"', '== "/nobody"', ("n10",)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_the_reader_is_found(name: str, published: Published) -> None:
    old, new, finding = MISTAKES[name]
    case = Case(mistaken(items, old, new), *published)
    for assertion in finding:
        with noticed():
            ASSERTIONS[assertion](case)


def test_each_assertion_can_fail() -> None:
    assert {assertion for _, _, finding in MISTAKES.values() for assertion in finding} == {*ASSERTIONS}


# --- A study ---------------------------------------------------------------------------------------


def given(benchmark: str = "Pereira2018", **content: Any) -> Study:
    study = {
        "name": "t",
        "title": "t",
        "brain": {"name": "brainscore", "benchmark": benchmark},
        "models": [{"name": "one", "train": {**TRAIN, "checkpoints": 2}}],
        "features": {"context": "text", "pooling": "mean", "hemodynamics": "none", "trim": 0},
        "encoding": {
            "folds": "groups", "n_folds": 4, "permutations": 19, "block": 1, "shuffles": 0, "log10_alphas": [-3, 4, 8],
        },
    }  # fmt: skip
    return Study.model_validate(study | content)


@pytest.mark.filterwarnings("ignore:a test fold has")
def test_a_study_of_sentences_goes_through_and_its_controls_find_what_was_planted(
    published: Published, tmp_path: Path
) -> None:
    import pandas as pd

    bench = Workbench(given(), Store(tmp_path), published[0])
    assert check(bench, bench.study.models) == {}
    model = bench.study.models[0]
    last = bench.checkpoints(model)[-1]
    found = read_voxels(bench.result("brain", model, last) / "voxels.zarr")
    assert {subject: of["r"].shape[1] for subject, of in found.items()} == {
        "a-243sentences": 5, "a-384sentences": 5, "b-243sentences": 4, "b-384sentences": 3, "c-243sentences": 3,
    }  # fmt: skip
    assert all(np.isfinite(of["r"]).all() for of in found.values())
    table = pd.read_parquet(bench.result("controls", model, last) / "controls.parquet")
    r = table[(table["measure"] == "r") & (table["roi"] == "all")].groupby("model")["value"].mean()
    assert r["control: nuisance space"] > 0.35  # the number of words, which half of the voxels follow
    assert "control: shuffled stimulus" not in r


def test_the_study_of_the_package_suits_the_data(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    bench = Workbench(load_study("pereira"), Store(tmp_path), published[0])
    assert check(bench, bench.study.models) == {}


def test_what_does_not_suit_items_is_told_before_anything_is_made(published: Published, tmp_path: Path) -> None:
    study = given().model_dump(mode="json")
    for section, field, value, message in (
        ("encoding", "shuffles", 1, "encoding.shuffles: run .*found 4 TRs, at least 40|encoding.shuffles: .*: found 4"),
        ("features", "hemodynamics", "hrf", "features.hemodynamics: found hrf, expected none"),
    ):
        content = {**study, section: {**study[section], field: value}}
        bench = Workbench(Study.model_validate(content), Store(tmp_path), published[0])
        with pytest.raises(StudyError, match=message):
            check(bench, bench.study.models)
    with pytest.raises(PhaselabError, match="brain brainscore: lag: found items without a time axis, expected texts"):
        speech_lag(items.load(items.BrainScoreSpec(benchmark="Tuckute2024"), published[0]), "848-853")
    alone = given("Tuckute2024", encoding={"folds": "contiguous", "n_folds": 5, "block": 1, "shuffles": 1})
    bench = Workbench(alone, Store(tmp_path), published[0])
    assert check(bench, bench.study.models) == {}


# --- What is wrong ---------------------------------------------------------------------------------


def test_what_is_not_there_or_not_right_is_named(tmp_path: Path) -> None:
    section = items.BrainScoreSpec(benchmark="Fedorenko2016")
    with pytest.raises(DataMissing, match="get brainscore --benchmarks Fedorenko2016 .*name DATA with"):
        items.load(section, None)
    MAKE["Fedorenko2016"](tmp_path)
    path = tmp_path / "brainscore/assy_Fedorenko2016_language.nc"
    kept = path.read_bytes()
    named = "assy_Fedorenko2016_language.nc"
    for wrong in (b"half of it", kept[: len(kept) // 2]):
        path.write_bytes(wrong)
        with pytest.raises(PhaselabError, match=rf"{named}: cannot be read as HDF5: .*(signature|truncated)"):
            items.load(section, tmp_path)
    path.write_text("/annex/objects/SHA256E-s1--ab.nc")
    with pytest.raises(PhaselabError, match="a pointer of Git LFS or git-annex, expected the file itself"):
        items.load(section, tmp_path)
    elsewhere = tmp_path / "elsewhere.h5"
    for name in ("data", "stimulus"):  # values that lie in a file outside of the folder
        path.write_bytes(kept)
        with h5py.File(path, "a") as file, h5py.File(elsewhere, "w") as other:
            other[name] = file[name][...]
            del file[name]
            file[name] = h5py.ExternalLink("../elsewhere.h5", name)
        with pytest.raises(PhaselabError, match=r"elsewhere.h5.*expected a file in .*brainscore"):
            items.load(section, tmp_path)
    texts: dict[str, list[object]] = {"stimulus": ["a", "b"], "sentence_id": [0, 1]}
    people, lengths = {"subject_UID": [1, 1, 2]}, r"Length of values .*; expected data \(texts, voxels\), and coord"
    both = ", expected coordinates stimulus and subject or subject_id"
    for values, own, voxels, message in (
        (np.ones((2, 3)), texts, {"subject_UID": [1, 1]}, lengths),
        (np.ones((3, 2)), texts, people, lengths),
        (np.ones((2, 3)), texts, {"electrode": [1, 1, 2]}, f"found data, electrode, neuroid, .*stimulus{both}"),
        (np.ones((2, 3)), {"sentence_id": [0, 1]}, people, f"found data, .*{both}"),
        (np.ones((2, 3), "S1"), texts, people, r"data: found \|S1 \(2, 3\), expected numbers \(texts, voxels\)"),
        (np.ones((2, 3)), {"stimulus": ["a", "b"]}, people, "found texts that belong to none, expected one of p"),
        (np.ones((2, 3)), {**texts, "stimulus": ["a", ""]}, people, "found nothing in a place of stimulus or subject"),
    ):
        write(path, values, own, voxels)  # type: ignore[arg-type]
        with pytest.raises(PhaselabError, match=rf"{named}: {message}"):
            items.load(section, tmp_path)
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_group("data")
    with pytest.raises(PhaselabError, match=f"{named}: data: found none, but data, expected numbers"):
        items.load(section, tmp_path)
    write(path, np.full((2, 3), np.nan), texts, {"subject_UID": [1, 1, 2]})
    with pytest.raises(PhaselabError, match="found no voxel with a response to each text of an experiment"):
        items.load(section, tmp_path)
    for value in (np.nan, np.inf):
        write(path, np.array([[1.0, 2, 3], [value] * 3]), texts, people)  # type: ignore[arg-type]
        with pytest.raises(PhaselabError, match=f"{named}: data: text 1: found no number, expected a response to each"):
            items.load(section, tmp_path)
    values = np.array([[1.0, 2, 3], [np.nan] * 3])  # an experiment in which nobody took part
    write(path, values, {**texts, "experiment": ["one", "other"]}, people)  # type: ignore[arg-type]
    assert [group.subjects for group in items.load(section, tmp_path).groups] == [("1-one", "2-one")]
