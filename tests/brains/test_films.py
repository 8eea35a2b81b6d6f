"""Published files of ds005531 are read right, and each assertion is shown able to fail by a mistake of the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat, savemat
from typer.testing import CliRunner

from brains.films_files import AMPLITUDE, CONSTANT, NX, NY, NZ, SCALE, SECONDS, SHORT, TYPES, Truth, film, make
from brains.mistakes import mistaken, noticed
from phaselab import stimuli
from phaselab.brains import BRAINS, BrainData, DataMissing, base, films
from phaselab.brains.signal import speech_lag
from phaselab.cli import app
from phaselab.encoding import encode
from phaselab.encoding.encode import read_voxels
from phaselab.encoding.folds import inner_folds, outer_folds, parts_of
from phaselab.encoding.himalaya import unique_contribution
from phaselab.errors import PhaselabError
from phaselab.features import Features, to_trs
from phaselab.results import Store
from phaselab.stages import Workbench, check
from phaselab.stats import pearson
from phaselab.study import EncodingSpec, FeatureSpec, Study, StudyError, load_study
from tiny import TRAIN

FEATURES = FeatureSpec(context="text", pooling="mean", hemodynamics="average", delays=(4,), trim=20)
SHAPE = (NX, NY, NZ)
GIVEN = EncodingSpec(folds="given", permutations=0)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    data = tmp_path_factory.mktemp("films")
    return data, make(data)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "SHAPE", SHAPE)


class Case:
    """The data as a reader (which may be mistaken) gives them; each kind of study is read once."""

    def __init__(self, module: Any, data: Path, truth: Truth) -> None:
        self.module, self.data, self.truth, self.read = module, data, truth, dict[str, BrainData]()

    def section(self, **fields: Any) -> Any:
        return self.module.FilmsSpec.model_validate({"subjects": ["S01"], "titles": ["suits"], **fields})

    def brain(self, **fields: Any) -> BrainData:
        if (key := str(sorted(fields.items()))) not in self.read:
            self.read[key] = self.module.load(self.section(**fields), self.data)
        return self.read[key]


def texts_of(brain: BrainData) -> dict[str, list[list[str]]]:
    """Run -> second -> texts."""
    found: dict[str, list[list[str]]] = {}
    for run in brain.stimulus.runs:
        found[run.name] = [[] for _ in range(run.n_trs)]
        for text, onset in zip(run.texts, run.onsets, strict=True):
            found[run.name][int(onset)].append(text)
    return found


def values(brain: BrainData, subject: str, run: str) -> np.ndarray:
    return np.asarray(brain.responses(subject, run)[:, :])


# --- Assertions ------------------------------------------------------------------------------------


def a01_coordinates_of_every_voxel(case: Case) -> None:
    mask = case.module.mask_of(case.module.Films(case.section(), case.data).path("mask", "S01"))
    x, y, z = mask % NX, mask // NX % NY, mask // (NX * NY)
    assert [x[0], y[0], z[0], x[-1], y[-1], z[-1]] == [0, 0, 0, 3, 4, 5]
    for column, mean in enumerate(values(case.brain(), "S01", "suits_run-01").mean(axis=0)):
        assert round((mean - AMPLITUDE / 4) / SCALE) == 100 * x[column] + 10 * y[column] + z[column]


def a02_column_k_is_voxel_k_of_the_mask(case: Case) -> None:
    data = case.data / "ds005531/derivatives/preprocessed_data/sub-S02/sub-S02_task-suits_run-01.mat"
    with h5py.File(data) as file:
        raw = file["dataDT"][:754]
    np.testing.assert_array_equal(
        values(case.brain(subjects=["S02"]), "S02", "suits_run-01"), raw[:, case.truth.mask - 1]
    )


def a03_rows_are_seconds_of_the_film(case: Case) -> None:
    for run, n in SECONDS["suits"].items():
        read = np.load(case.module.Films(case.section(), case.data).copy("S01", f"suits_run-{run}"))
        assert len(read) == n
        assert read[-1].mean() == pytest.approx(read[0].mean(), abs=100)


def a04_float32_as_stored(case: Case) -> None:
    for subject in ("S01", "S02"):
        read = case.brain(subjects=[subject]).responses(subject, "suits_run-02")
        assert read.dtype == np.float32
        data = case.data / f"ds005531/derivatives/preprocessed_data/sub-{subject}/sub-{subject}_task-suits_run-02.mat"
        with h5py.File(data) as file:
            np.testing.assert_array_equal(read[5], file["dataDT"][5][case.truth.mask - 1])


def a05_text_leads_by_four_seconds(case: Case) -> None:
    brain = case.brain()
    for run in brain.stimulus.runs:
        there = np.array([bool(texts) for texts in texts_of(brain)[run.name]])
        followed = values(brain, "S01", run.name)[:, case.truth.signal & (np.arange(40) != CONSTANT[1])].mean(axis=1)
        r = [np.corrcoef(there[: run.n_trs - lag], followed[lag:])[0, 1] for lag in range(13)]
        assert np.argmax(r) == 4
        assert max(r) > 0.98


def a06_constant_voxels_are_named(case: Case) -> None:
    voxel = case.truth.mask[CONSTANT[1]]
    told = [note for note in case.brain().notes if "constant" in note]
    at = (voxel - 1) % NX, (voxel - 1) // NX % NY, (voxel - 1) // (NX * NY)
    assert told == ["S01: constant in a run, where they score 0: {} (x {}, y {}, z {}).".format(voxel, *at)]
    assert not [note for note in case.brain(subjects=["S02"]).notes if "constant" in note]


def a07_texts_of_every_second_verbatim(case: Case) -> None:
    for run, seconds in texts_of(case.brain()).items():
        assert seconds == case.truth.texts[run][TYPES[0]]


def a08_a_missing_line_is_told(case: Case) -> None:
    notes = [note for note in case.brain().notes if "lacks" in note]
    assert notes == [f"{SHORT}_{TYPES[0]}_each1sec.txt lacks its last 1 s: nothing is taken to be there."]
    assert len(case.brain(titles=["bigbangtheory"]).notes) == 2  # ceiling, constant voxel


def a09_annotators_and_brackets(case: Case) -> None:
    brain = case.brain(annotation="object")
    for run, seconds in texts_of(brain).items():
        assert seconds == case.truth.texts[run][TYPES[2]]
    run = brain.stimulus.runs[0]
    # What several write of one second counts as one: their mean.
    grid = to_trs(known(brain, np.arange(len(run.texts), dtype=float)), brain.stimulus, FEATURES)[0][run.name]
    first = next(at for at in range(30, 700) if len(texts_of(brain)[run.name][at]) > 1)
    own = [i for i, onset in enumerate(run.onsets) if onset == first]
    assert grid[first + 4 - 20, 0] == pytest.approx(np.mean(own))


def a10_japanese_without_prefix_and_speaker(case: Case) -> None:
    for run, seconds in texts_of(case.brain(annotation="speech")).items():
        assert seconds == case.truth.texts[run][TYPES[1]]


def a11_no_second_twice(case: Case) -> None:
    brain, kept = case.brain(titles=["dreamgirls"]), dict[str, list[int]]()
    for run in brain.stimulus.runs:
        first = case.truth.first[run.name]
        seconds = range(first + run.dropped(20), first + run.n_trs)
        kept.setdefault(film(*run.name.split("_run-")), []).extend(seconds)
    assert all(len(seconds) == len({*seconds}) for seconds in kept.values())


def a12_number_of_kept_samples(case: Case) -> None:
    lengths = {"suits": 754 + 948 + 660, "bigbangtheory": 747 + 627, "dreamgirls": 7641 - 8 * 20}
    for title, n in lengths.items():
        brain = case.brain(titles=[title], rule="authors")
        responses = brain.scored(20)["S01"]
        features = to_trs(known(brain), brain.stimulus, FEATURES)[0]
        assert sum(len(values) for values in responses.values()) == n
        assert {run: len(values) for run, values in features.items()} == {r: len(v) for r, v in responses.items()}
    assert sum(map(len, case.brain().scored(20)["S01"].values())) == 754 + 968 + 680 - 60


def a13_transposed_responses_are_refused(case: Case) -> None:
    folder = case.data / "ds005531/derivatives/preprocessed_data/sub-S01"
    mat = folder / "turned.mat"
    with h5py.File(folder / "sub-S01_task-suits_run-01.mat") as file, h5py.File(mat, "w") as turned:
        turned["dataDT"] = file["dataDT"][()].T
    mask = case.module.mask_of(folder / "vset_100.mat")
    right = (
        r"turned.mat: dataDT: found float32 \(120, 754\), expected numbers of 754 volumes or more, 120 voxels or more"
    )
    with pytest.raises(PhaselabError, match=right):
        case.module.copy_voxels(mat, mask, 754, case.data / "turned.npy")


def a14_numbers_of_the_whole_table(case: Case) -> None:
    authors, dataset = (
        case.module.Films(case.section(titles="all", rule=rule), None).runs for rule in ("authors", "dataset")
    )
    kept = (authors["n_trs"] - authors["overlap"]).groupby(authors["fold"]).sum()
    assert kept.to_dict() == {"0": 5523, "1": 6313, "2": 5980, "3": 4446, "test": 7737}
    assert (len(authors), len(dataset)) == (41, 43)
    kept = dataset["n_trs"] - dataset["overlap"]
    assert kept.sum() == 31045
    assert kept.groupby(dataset["fold"] == "test").sum()[True] == 7737
    assert kept[~dataset["fold"].isin(["test", ""])].sum() == 22062


def a15_delayed_before_dropped(case: Case) -> None:
    brain = case.brain()
    run = brain.stimulus.runs[1]
    there = case.truth.speech[run.name]
    row = to_trs(known(brain), brain.stimulus, FEATURES)[0][run.name][:4, 0]
    np.testing.assert_array_equal(row, there[16:20])
    assert row.any()


def a16_tested_runs_never_train(case: Case) -> None:
    brain = case.brain(titles=["suits", "bigbangtheory"], rule="authors")
    lengths = {run: len(values) for run, values in brain.scored(20)["S01"].items()}
    parts, names = parts_of(lengths, GIVEN, brain.folds), np.repeat([*lengths], [*lengths.values()])
    ((train, test),) = outer_folds(parts, GIVEN)
    assert {*names[test]} == {"suits_run-03", "bigbangtheory_run-02"}
    assert {*names[train]} == {"suits_run-01", "suits_run-02", "bigbangtheory_run-01"}
    inner = [({*names[train[a]]}, {*names[train[b]]}) for a, b in inner_folds(train, parts, GIVEN)]
    suits = {"suits_run-01", "suits_run-02"}  # titles are never on both sides
    assert sorted(inner, key=lambda pair: len(pair[0])) == [
        ({"bigbangtheory_run-01"}, suits),
        (suits, {"bigbangtheory_run-01"}),
    ]


ASSERTIONS = {
    name.split("_")[0]: made
    for name, made in list(globals().items())
    if name[:3] in {f"a{n:02d}" for n in range(1, 17)}
}


def known(brain: BrainData, column: np.ndarray | None = None) -> Features:
    """Features that say, in each second, that something is there."""
    runs = np.array([run.name for run in brain.stimulus.runs for _ in run.texts])
    column = np.ones(len(runs)) if column is None else np.resize(column, len(runs))
    return Features({0: column[:, None].astype(np.float32)}, runs, np.ones(len(runs), bool), {})


@pytest.mark.parametrize("name", ASSERTIONS)
def test_published_files_are_read_right(name: str, published: tuple[Path, Truth]) -> None:
    ASSERTIONS[name](Case(films, *published))


# --- Mutations -------------------------------------------------------------------------------------

#: A mistake: what stands in films.py, what it becomes, and the assertions that find it.
MISTAKES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "C order": ('SHAPE, order="F"', 'SHAPE, order="C"', ("a06",)),
    "x and y exchanged": ("(x {}, y {}, z {})", "(y {}, x {}, z {})", ("a06",)),
    "voxels from 0": ("astype(np.int64) - 1", "astype(np.int64) - 0", ("a01", "a02")),
    "rescaled integers": ("][:, mask]", "][:, mask] / 32767", ("a02", "a04")),
    "rows not cut": ('right = f"numbers of', 'n_trs = len(values); right = f"numbers of', ("a03",)),
    "rows cut in front": ("values[start : min(start + step, n_trs)]", "values[-n_trs:]", ("a03", "a05")),
    "float64": ("np.float32, (n_trs", "np.float64, (n_trs", ("a04",)),
    "a line padded in front": ("enumerate(lines[:n_trs])", "enumerate([lines[0], *lines][:n_trs])", ("a05", "a07")),
    "a line too early": ("enumerate(lines[:n_trs])", "enumerate(lines[1:n_trs])", ("a05", "a07")),
    "dots kept": ('if text not in ("", ".", "..")', 'if text not in ("",)', ("a05", "a07", "a09")),
    "unknown speech kept": ('.replace("不明", "..")', "", ("a07",)),
    "constant voxel unseen": ("== 0]  # reads", "== 7]  # reads", ("a06",)),
    "second colon": ('part.split(":", 1)[-1]', '(part + ":" * (":" not in part)).split(":")[":" in part]', ("a07",)),
    "prefix kept": ('line.split("メイン#", 1)[-1].split("/")', 'line.split("/")', ("a07", "a10")),
    "a prefix is needed": ('line.split("メイン#", 1)[-1]', 'line.split("メイン#")[1]', ("a07",)),
    "ideographic spaces kept": ('.replace("\\u3000", "")', "", ("a07", "a10")),
    "last bracket": ('line[line.find("]")', 'line[line.rfind("]")', ("a07", "a09")),
    "annotators joined": ('else line.split("/")', "else [line]", ("a09",)),
    "speakers kept": ('part.split(":", 1)[-1].strip()', "part.strip()", ("a07", "a10")),
    "colons of captions are speakers'": ("if speech else part.strip()", "if True else part", ("a09",)),
    "a missing line not told": ("* (lacks > 0)", "* (lacks > 1)", ("a08",)),
    "told of every run": ("* (lacks > 0)", "* (lacks >= 0)", ("a08",)),
    "never dropped": (
        '"first_sample_1based"].astype(int) - 1',
        '"first_sample_1based"].astype(int) * 0',
        ("a11", "a12", "a14"),
    ),
    "dropped at the first run too": ('table["first_samples_dropped_drama2brain"].astype(int)', "20", ("a12", "a14")),
    "shape not looked at": ("fits = values.shape[0] >= n_trs and", "fits = True or", ("a13",)),
    "the second episode taken": (
        'table = table[table["split"] != "unused"]',
        'table = table.replace({"first_samples_dropped_drama2brain": {"": "20"}})',
        ("a12", "a14"),
    ),
    "no run is tested": ('.mask(table["split"] == "test", "test")', "", ("a14", "a16")),
    "the third runs are tested": ('table["split"] == "test"', 'table["run"] == "03"', ("a14", "a16")),
    "the first word tier": (
        '"speech_en": "annotation/{run}_speechTranscription_EN',
        '"speech_en": "annotation/{run}_speechTranscription',
        ("a07",),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_the_reader_is_found(name: str, published: tuple[Path, Truth], tmp_path: Path) -> None:
    data, truth = published
    (tmp_path / "ds005531").symlink_to(data / "ds005531")  # with copies of its own
    old, new, finding = MISTAKES[name]
    module = mistaken(films, old, new, base)
    module.SHAPE = SHAPE  # type: ignore[attr-defined]
    case = Case(module, tmp_path, truth)
    for assertion in finding:
        with noticed():
            ASSERTIONS[assertion](case)


def test_dropping_before_delaying_is_found(published: tuple[Path, Truth], monkeypatch: pytest.MonkeyPatch) -> None:
    align = stimuli.align

    def mistaken(part: np.ndarray, run: Any, spec: FeatureSpec) -> np.ndarray:
        return align(np.where((run.onsets < run.dropped(spec.trim))[:, None], 0, part), run, spec)

    monkeypatch.setattr(stimuli, "align", mistaken)
    with pytest.raises(AssertionError):
        a15_delayed_before_dropped(Case(films, *published))


def test_each_assertion_can_fail() -> None:
    found = {assertion for _, _, finding in MISTAKES.values() for assertion in finding}
    assert found | {"a15"} == {*ASSERTIONS}


# --- Folds, lag, voxels, copies --------------------------------------------------------------------


def section(**fields: Any) -> Any:
    return films.FilmsSpec.model_validate({"subjects": ["S01"], "titles": ["suits"], **fields})


def given(content: dict[str, Any], **brain: Any) -> Study:
    fields = {"name": "films", "subjects": ["S01"], "titles": ["suits"], "rule": "authors", **brain}
    study = {
        "name": "t",
        "title": "t",
        "brain": fields,
        "models": [{"name": "one", "train": {**TRAIN, "checkpoints": 2}}],
    }
    study["features"] = {"context": "text", "pooling": "mean", "hemodynamics": "average", "delays": [4], "trim": 20}
    study["encoding"] = {"folds": "given", "permutations": 19, "shuffles": 1, "log10_alphas": [0, 4, 5]}
    for at, value in content.items():
        part, _, name = at.partition(".")
        study[part] = study[part] | {name: value} if name else value
    return Study.model_validate(study)


def test_a_study_of_films_finds_the_planted_lag_and_signal(published: tuple[Path, Truth], tmp_path: Path) -> None:
    data, truth = published
    scores = {}
    for delay in (0, 4):
        bench = Workbench(given({"features.delays": [delay]}), Store(tmp_path / str(delay)), data)
        assert check(bench, bench.study.models) == {}
        model = bench.study.models[0]
        last = bench.checkpoints(model)[-1]
        scores[delay] = read_voxels(bench.result("brain", model, last) / "voxels.zarr")["S01"]["r"][-1]
    follows = truth.signal & (np.arange(len(truth.mask)) != CONSTANT[1])
    assert scores[4][follows].min() > 0.8
    assert np.abs(scores[4][~truth.signal]).max() < 0.2
    assert scores[4][CONSTANT[1]] == 0
    assert scores[0][follows].max() < 0.6
    table = pd.read_parquet(bench.result("controls", model, last) / "controls.parquet")
    r = table[(table["measure"] == "r") & (table["roi"] == "all")].groupby("model")["value"].mean()
    assert r["control: word rate"] > 0.1 > r["control: shuffled stimulus"]


def test_the_lag_of_speech_is_found_and_doubted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}
    for lag in (4, 10):
        make(data := tmp_path / str(lag), ("S01",), ("suits",), lag=lag)
        assert speech_lag(films.load(section(), data), "S01")[0] == lag
        study = tmp_path / "s.yaml"
        study.write_text(given({}).model_dump_json())
        result = CliRunner().invoke(app, ["data", "check", str(study), "--data", str(data)])
        assert result.exit_code == 0, result.output
        told[lag] = result.output
    assert "S01: what is said is followed after 4 s (r = 0.9" in told[4]
    assert "expected" not in told[4]
    assert "after 10 s" in told[10]
    assert "expected 3 to 8 s: are texts and responses of the same moments?" in told[10]


def test_given_folds_are_those_of_the_brain() -> None:
    lengths, folds = {"a": 30, "b": 20, "c": 25, "d": 5}, {"a": "0", "b": "1", "c": "test", "d": ""}
    parts = parts_of(lengths, GIVEN, folds)
    ((train, test),) = outer_folds(parts, GIVEN)
    assert (train.tolist(), test.tolist()) == ([*range(50)], [*range(50, 75)])
    assert [(len(a), len(b)) for a, b in inner_folds(train, parts, GIVEN)] == [(20, 30), (30, 20)]
    rng = np.random.default_rng(0)
    X = {0: {run: rng.standard_normal((n, 3)) for run, n in lengths.items()}}
    Y = {
        "s": {
            run: values @ np.ones((3, 2)) + 0.1 * rng.standard_normal((len(values), 2)) for run, values in X[0].items()
        }
    }
    r = encode(X, Y, GIVEN, given=folds)["s"].r
    assert r.min() > 0.9
    Y["s"]["d"] = np.full((5, 2), 1e6)  # in neither: not looked at
    np.testing.assert_allclose(encode(X, Y, GIVEN, given=folds)["s"].r, r, rtol=1e-6)
    aside = {run: rng.standard_normal((n, 1)) for run, n in lengths.items()}
    rois = {"s": np.array(["v", "w"])}
    rows = unique_contribution(X, aside, Y, GIVEN, rois=rois, given=folds).set_index(["measure", "roi"])["value"]
    assert rows["r2_unique", "all"] > 0.8
    # A single fold to train in is cut in two.
    (one,) = outer_folds(parts_of({"a": 30, "c": 25}, GIVEN, folds), GIVEN)
    assert [len(b) for _, b in inner_folds(one[0], np.repeat(["0", "test"], [30, 25]), GIVEN)] == [15, 15]
    with pytest.raises(
        PhaselabError, match="encoding.folds: found given, expected another: the brain data have no fold"
    ):
        parts_of(lengths, GIVEN, {})
    with pytest.raises(
        PhaselabError, match=r"encoding.folds: given: found \['0', '1'\], expected a run that is tested"
    ):
        parts_of({"a": 30, "b": 20}, GIVEN, folds)


def test_a_study_cannot_ask_for_folds_that_are_not_given(published: tuple[Path, Truth], tmp_path: Path) -> None:
    simulated = given({"brain": {"name": "simulated", "runs": 3, "minutes": 6, "vertices": 24, "subjects": 1}})
    with pytest.raises(StudyError, match="encoding.folds: found given, expected another"):
        check(Workbench(simulated, Store(tmp_path)), simulated.models)
    short = given({"features.trim": 5})
    with pytest.raises(
        StudyError, match="run suits_run-02: features.trim: found 5, expected at least 20, for they rep"
    ):
        check(Workbench(short, Store(tmp_path), published[0]), short.models)


def test_voxels_are_chosen(published: tuple[Path, Truth], tmp_path: Path) -> None:
    data, truth = published
    whole = values(films.load(section(), data), "S01", "suits_run-01")
    few = films.load(section(voxels=7), data)
    np.testing.assert_array_equal(values(few, "S01", "suits_run-01"), whole[:, [0, 5, 11, 17, 22, 28, 34]])
    language = films.load(section(voxels="language"), data)
    np.testing.assert_array_equal(values(language, "S01", "suits_run-01"), whole[:, [4, 14, 24, 34]])
    assert [*language.rois["S01"]] == ["language"] * 4
    table = tmp_path / "v.csv"
    table.write_text(f"subject,voxel,roi\nS01,{truth.mask[9]},STS\nS01,{truth.mask[2]},IFG\nS02,1,other\n")
    own = films.load(section(voxels=str(table)), data)
    np.testing.assert_array_equal(values(own, "S01", "suits_run-01"), whole[:, [2, 9]])
    assert [*own.rois["S01"]] == ["IFG", "STS"]
    assert table in BRAINS["films"].files(section(voxels=str(table)), data)["responses"]
    np.testing.assert_array_equal(
        own.scored(20)["S01"]["suits_run-02"][:, 0:1], values(own, "S01", "suits_run-02")[20:, :1]
    )
    assert len({loaded.digest for loaded in (few, language, own)}) == 3
    beyond = next(voxel for voxel in range(2, 100) if voxel not in truth.mask)
    table.write_text(f"subject,voxel,roi\nS01,{beyond},STS\n")
    for voxels, message in (
        (str(table), rf"v.csv: voxels of S01: found \['{beyond}'\], expected some of the 40 of the mask, each once"),
        (99, "brain.voxels: found 99, expected at most the 40 of S01"),
        ("langauge", "langauge: found no table that can be read"),
    ):
        with pytest.raises(PhaselabError, match=message):
            films.load(section(voxels=voxels), data)


def test_copies_outlive_the_originals_and_nothing_is_stale(tmp_path: Path) -> None:
    truth, of = make(tmp_path, ("S01",), ("suits",)), section()
    reader = films.Films(of, tmp_path)
    keys = {path: path.read_text() for path in BRAINS["films"].files(of, tmp_path)["responses"]}
    before = values(films.load(of, tmp_path), "S01", "suits_run-03")
    for run in reader.runs.index:
        reader.copy("S01", run)
        reader.path("response", "S01", run).unlink()
    assert not list((tmp_path / "ds005531").rglob("*_task-*.mat"))
    assert {path: path.read_text() for path in BRAINS["films"].files(of, tmp_path)["responses"]} == keys
    loaded = films.load(of, tmp_path)
    assert isinstance(loaded.responses("S01", "suits_run-03"), np.memmap)
    np.testing.assert_array_equal(values(loaded, "S01", "suits_run-03"), before)
    # Originals that are others: another key and other copies.
    (tmp_path / "cache/ds005531/S01/suits_run-01.key").unlink()
    with pytest.raises(
        DataMissing, match="suits_run-01.mat: not there; type: phaselab data get ds005531 --subjects S01 --tit"
    ):
        films.load(of, tmp_path)
    make(tmp_path, ("S01",), ("suits",), lag=6)
    again = values(films.load(of, tmp_path), "S01", "suits_run-03")
    assert (again != before).any()
    assert pearson(truth.speech["suits_run-03"][:674, None].astype(float), again[6:, :1])[0] > 0.8


def test_the_command_copies_and_drops_what_is_read_no_more(tmp_path: Path) -> None:
    make(tmp_path, ("S01",), ("suits",))
    study = tmp_path / "mine.yaml"
    brain = "{name: films, subjects: [S01], titles: [suits]}"
    study.write_text(f"name: mine\ntitle: Mine\nbrain: {brain}\nmodels: [{{name: m, folder: nowhere}}]\n")
    cache = ["data", "cache", str(study), "--data", str(tmp_path)]
    originals = sorted((tmp_path / "ds005531").rglob("*_task-*.mat"))
    size = sum(path.stat().st_size for path in originals)
    done = CliRunner().invoke(app, cache)
    assert done.exit_code == 0, done.output
    assert "films: 3 files of" in done.output
    assert "beside their copies" in done.output
    assert len([*(tmp_path / "cache").rglob("*.npy")]) == 3
    before = values(films.load(section(), tmp_path), "S01", "suits_run-02")
    assert size == sum(path.stat().st_size for path in originals)
    assert "removed" in CliRunner().invoke(app, [*cache, "--drop-originals"]).output
    assert not any(path.exists() for path in originals)
    np.testing.assert_array_equal(values(films.load(section(), tmp_path), "S01", "suits_run-02"), before)
    assert "nothing to copy" in CliRunner().invoke(app, cache).output


def test_what_is_not_there_or_not_right_is_named(published: tuple[Path, Truth], tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"--titles suits .*--data DATA .*, and name DATA with --data"):
        films.load(section(), None)
    make(tmp_path, ("S01",), ("suits",))
    text = tmp_path / f"ds005531/derivatives/annotation/suits_run-02_{TYPES[0]}_each1sec.txt"
    kept = text.read_bytes()
    text.write_bytes(b"\n".join(kept.split(b"\n")[:900]))
    with pytest.raises(PhaselabError, match=r"suits_run-02_.*: found 900 lines, expected 968, one a second"):
        films.load(section(), tmp_path)
    for content, message in ((b"", "found 0 lines, expected 968"), (b".\n" * 968, "found nothing that is said")):
        text.write_bytes(content)
        with pytest.raises(PhaselabError, match=f"suits_run-02_.*: {message}"):
            films.load(section(), tmp_path)
    text.write_bytes(kept)
    folder = tmp_path / "ds005531/derivatives/preprocessed_data/sub-S01"
    mat = folder / "sub-S01_task-suits_run-01.mat"
    mat.write_bytes(b"half of it")
    with pytest.raises(PhaselabError, match=r"suits_run-01.mat: cannot be read as HDF5: .*signature"):
        films.load(section(), tmp_path)
    mat.unlink()
    with h5py.File(mat, "w") as file:
        file.create_group("dataDT")
    with pytest.raises(PhaselabError, match=r"run-01.mat: dataDT: found none, but dataDT, expected numbers \(vol"):
        films.load(section(), tmp_path)
    mat.write_text("/annex/objects/SHA256E-s1--ab.mat")
    with pytest.raises(PhaselabError, match="a pointer of Git LFS or git-annex, expected the file itself"):
        films.load(section(), tmp_path)
    make(tmp_path, ("S01",), ("suits",))
    localizer = tmp_path / "ds005531/derivatives/localizer/sub-S01/sub-S01_froi_Language.mat"
    stat = loadmat(localizer)["stat"].astype(float)
    stat.flat[3:] = np.nan
    savemat(localizer, {"stat": stat})
    with pytest.raises(PhaselabError, match="froi_Language.mat: stat: found 40 numbers, 2 known, expected 40, one for"):
        films.load(section(voxels="language"), tmp_path)
    (folder / "vset_100.mat").write_bytes(b"")
    with pytest.raises(PhaselabError, match="vset_100.mat: found no numbers tvoxels of MATLAB 5"):
        films.load(section(), tmp_path)


def test_voxels_without_numbers_are_left_out_and_named(tmp_path: Path) -> None:
    truth = make(tmp_path, ("S01",), ("suits",))
    voxel = truth.mask[4]  # from 1
    (mat,) = (tmp_path / "ds005531").rglob("*suits_run-02.mat")
    with h5py.File(mat, "a") as of:
        values = of["dataDT"][...]
        values[:, voxel - 1] = np.nan
        del of["dataDT"]
        of["dataDT"] = values
    brain = films.load(section(), tmp_path)
    (told,) = [note for note in brain.notes if "no numbers" in note]
    assert told.startswith(f"S01: voxels left out, for in a run they are no numbers: {voxel} (x ")
    assert len(brain.rois["S01"]) == len(truth.mask) - 1
    assert all(np.isfinite(values).all() for values in brain.scored(0)["S01"].values())


def test_a_second_without_numbers_is_refused_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = make(tmp_path, ("S01",), ("suits",))
    (mat,) = (tmp_path / "ds005531").rglob("*suits_run-02.mat")
    monkeypatch.setattr(films, "BLOCK", 50 * 120 * 4)  # it is read in blocks
    for row, columns, value, found in (
        (130, slice(None), np.nan, f"row 130, column {truth.mask[0] - 1}: found nan, expected a number"),
        (70, truth.mask[4] - 1, np.inf, f"row 70, column {truth.mask[4] - 1}: found inf, expected a number"),
        (0, slice(None), np.nan, "row 1, column .*, expected no number, for row 0 has none"),
    ):
        with h5py.File(mat, "a") as of:
            kept = of["dataDT"][...]
            values = kept.copy()
            values[row, columns] = value
            of["dataDT"][...] = values
        with pytest.raises(PhaselabError, match=rf"suits_run-02.mat: dataDT: {found}"):
            films.load(section(), tmp_path)
        with h5py.File(mat, "a") as of:
            of["dataDT"][...] = kept
    films.load(section(), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"subjects": ["S07"]}, r"brain.subjects.*S07"),
        ({"titles": ["suit"]}, r"brain.titles.*suit'"),
        ({"annotation": "captions"}, "brain.annotation: found 'captions'"),
        ({"rule": "paper"}, "brain.rule: found 'paper'"),
        ({"voxels": 0}, "brain.voxels"),
    ],
)
def test_wrong_names_are_told_at_once(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = given({}).model_dump(mode="json")
    content["brain"] |= fields
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=message):
        load_study(path)
