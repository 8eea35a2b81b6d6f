"""Published files of ds003020 are read right, and each assertion is shown able to fail by a mistake of the reader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from brains.mistakes import mistaken, noticed
from brains.stories_files import ALL, CONSTANT, CUT, LOST, STORIES, SUBJECTS, TEST, Truth, make
from phaselab.brains import BRAINS, BrainData, DataMissing, base, signal, stories
from phaselab.cli import app
from phaselab.data import SETS
from phaselab.encoding.encode import read_voxels
from phaselab.errors import PhaselabError
from phaselab.features import Features, to_trs
from phaselab.results import Store
from phaselab.stages import Workbench, check
from phaselab.stats import pearson
from phaselab.study import FeatureSpec, Study, StudyError, load_study
from tiny import TRAIN

FEATURES = FeatureSpec(resample="sum", hemodynamics="average", delays=(2,), trim=5)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    data = tmp_path_factory.mktemp("stories")
    return data, make(data)


class Case:
    """The data as a reader (which may be mistaken) gives them; each kind of study is read once."""

    def __init__(self, module: Any, data: Path, truth: Truth) -> None:
        self.module, self.data, self.truth, self.read = module, data, truth, dict[str, BrainData]()

    def brain(self, **fields: Any) -> BrainData:
        if (key := str(sorted(fields.items()))) not in self.read:
            self.read[key] = self.module.load(section(self.module, **fields), self.data)
        return self.read[key]


def section(module: Any = stories, **fields: Any) -> Any:
    return module.StoriesSpec.model_validate({"subjects": [*SUBJECTS], "stories": [*STORIES], **fields})


def values(brain: BrainData, subject: str, story: str) -> np.ndarray:
    return np.asarray(brain.responses(subject, story)[:, :])


def raw(data: Path, subject: str, story: str, name: str = "data") -> np.ndarray:
    with h5py.File(path_of(data, subject, story)) as file:
        return np.asarray(file[name])


def path_of(data: Path, subject: str, story: str) -> Path:
    return data / f"ds003020/derivative/preprocessed_data/{subject}/{story}.hf5"


def rates(brain: BrainData, spec: FeatureSpec = FEATURES) -> dict[str, np.ndarray]:
    """How many words a row follows, by way of features that say 1 of each word."""
    runs = np.array([run.name for run in brain.stimulus.runs for _ in run.texts])
    ones = np.ones((len(runs), 1), np.float32)
    return {
        run: of[:, 0]
        for run, of in to_trs(Features({0: ones}, runs, ones[:, 0] > 0, {}), brain.stimulus, spec)[0].items()
    }


# --- Assertions ------------------------------------------------------------------------------------


def b1_words_and_times_of_each_story(case: Case) -> None:
    for run in case.brain().stimulus.runs:
        words, onsets, offsets = zip(*case.truth.words[run.name], strict=True)
        assert run.texts == words
        assert (run.tr, run.n_trs) == (2.0, ALL[run.name] - 20)
        np.testing.assert_allclose(run.onsets + 10, onsets, atol=1e-6)  # row 0 begins 10 s after the sound
        np.testing.assert_allclose(run.offsets + 10, offsets, atol=1e-6)
        assert [*run.labels["word"]] == [*words]
        assert run.starts.tolist() == [True, *[False] * (len(words) - 1)]


def b2_rows_are_where_the_words_are(case: Case) -> None:
    brain = case.brain()
    heard, scored = rates(brain), brain.scored(FEATURES.trim)["UTS01"]
    for story in STORIES:
        np.testing.assert_array_equal(heard[story], case.truth.rate[story])  # also in the first rows
        own = np.asarray(scored[story][:, :])
        assert own.dtype == np.float32
        np.testing.assert_array_equal(own, raw(case.data, "UTS01", story).astype(np.float32))
        follows = case.truth.true["UTS01"] & (np.arange(40) < 16) & (np.arange(40) != CONSTANT[1])
        assert pearson(np.repeat(heard[story][:, None], follows.sum(), 1), own[:, follows]).min() > 0.9


def b3_a_missing_story_is_left_out_and_told(case: Case) -> None:
    brain = case.brain()
    assert [*brain.groups] == [(("UTS01",), STORIES), (("UTS04",), tuple(s for s in STORIES if s != "life"))]
    assert [note for note in brain.notes if "published" in note] == [
        "UTS04: left out, for they are not published: life."
    ]
    assert [*brain.scored(0)["UTS04"]] == [story for story in STORIES if story != "life"]
    assert [run.name for run in case.brain(subjects=["UTS04"]).stimulus.runs] == [s for s in STORIES if s != "life"]


def b4_repeats_of_the_test_story_alone(case: Case) -> None:
    assert "repeats of wheretheressmoke (UTS01 10, UTS04 5)" in case.brain().ceiling_kind
    brain = case.brain(stories=["souls", "naked"])
    assert (brain.ceiling, brain.ceiling_kind) == (None, "")
    assert "The noise ceiling is from the repeats of wheretheressmoke. Without it none is known." in brain.notes


def b5_ceiling_is_what_the_true_signal_scores(case: Case) -> None:
    brain = case.brain()
    assert brain.ceiling is not None
    for subject, ceiling in brain.ceiling.items():
        here = np.delete(np.arange(SUBJECTS[subject][0]), [LOST[1]] * (subject == LOST[0]))
        true, own = case.truth.true[subject][here], values(brain, subject, TEST)
        scored = pearson(np.repeat(case.truth.rate[TEST][:, None], len(true), 1), own)
        assert ceiling.shape == true.shape
        assert np.abs(ceiling - scored)[true].max() < 0.12
        assert np.median(ceiling[~true]) < 0.25
        if subject == CONSTANT[0]:
            assert ceiling[CONSTANT[1]] == 0


def b6_respdict_and_file_agree(case: Case) -> None:
    right = r"souls.hf5: data: found float64 \(300, 40\), expected .* \(355, voxels\): 375 TRs of respdict.json less 20"
    with (
        changed(path_of(case.data, "UTS01", "souls"), data=np.zeros((300, 40))),
        pytest.raises(PhaselabError, match=right),
    ):
        case.module.load(section(case.module, stories=["souls", TEST]), case.data)


def b7_what_cannot_score_is_named(case: Case) -> None:
    notes = [note for note in case.brain().notes if "voxels" in note or "score 0" in note]
    assert notes == [
        "UTS01: constant in a run, where they score 0: 7.",
        "UTS04: voxels left out, for in a run they are no numbers: 3.",
    ]
    np.testing.assert_array_equal(
        values(case.brain(), "UTS04", "souls"), np.delete(raw(case.data, "UTS04", "souls"), 3, axis=1).astype("f4")
    )


class changed:
    """A response with other arrays, as long as the block lasts."""

    def __init__(self, path: Path, **arrays: np.ndarray | None) -> None:
        self.path, self.arrays = path, arrays

    def __enter__(self) -> None:
        self.before = self.path.read_bytes()
        self.anew()
        with h5py.File(self.path, "r+") as file:
            for name, array in self.arrays.items():
                file.pop(name, None)
                if array is not None:
                    file[name] = array

    def __exit__(self, *_: object) -> None:
        self.anew()

    def anew(self) -> None:
        """Another file of that name: a brain that was read may still have the one before open."""
        self.path.unlink()
        self.path.write_bytes(self.before)


ASSERTIONS = {
    name.split("_")[0]: made
    for name, made in list(globals().items())
    if name[:2] in {f"b{n}" for n in range(1, 8)} and name[2] == "_"
}


@pytest.mark.parametrize("name", ASSERTIONS)
def test_published_files_are_read_right(name: str, published: tuple[Path, Truth]) -> None:
    ASSERTIONS[name](Case(stories, *published))


# --- Mutations -------------------------------------------------------------------------------------

#: A mistake: what stands in stories.py, or what it has of base.py and signal.py, what it becomes, what finds it.
MISTAKES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "the first tier": ('(*tiers, "", "")[1]', '(*tiers, "", "")[0]', ("b1",)),
    "the third tier where there is one": ('(*tiers, "", "")[1]', "[*tiers][-1]", ("b1",)),
    "word by its place alone": ('if tier.lower() in ("word", "words")', 'if tier == "phones"', ("b1",)),
    "noises are words": ("if not NO_WORD.fullmatch(word[0])", "if word[0]", ("b1", "b2")),
    "noises with a name are words": ("(_.*)?)?", ")?", ("b1",)),
    "words that begin like a noise are none": ("NO_WORD.fullmatch", "NO_WORD.match", ("b1",)),
    "empty intervals are words": ('(_.*)?)?")', '(_.*)?)")', ("b1",)),
    "braces kept": ('.strip("{} ")', "", ("b1",)),
    "capitals kept": ("one.text.lower()", "one.text", ("b1",)),
    "the sound begins with the run": ("CUT, SILENCE = 10, 10.0", "CUT, SILENCE = 10, 0.0", ("b1", "b2")),
    "the files begin with the sound": ("- (CUT * tr - SILENCE)", "- 0", ("b1", "b2")),
    "five TRs cut": ("- (CUT * tr - SILENCE)", "- (5 * tr - SILENCE)", ("b1", "b2")),
    "TRs of 2.0045 s": ("default=2.0, ge", "default=2.0045, ge", ("b1", "b2")),
    "words before the first row lost": (
        "for one in tiers[tier]]",
        "for one in tiers[tier] if one.start >= CUT * tr - SILENCE]",
        ("b1", "b2"),
    ),
    "trimmed again": ("overlap=0, margin", "overlap=None, margin", ("b2",)),
    "double precision": ("story).astype(np.float32), f", "story), f", ("b2",)),
    "who lacks a story is not told": ("* bool(lacks)", "* 0", ("b3",)),
    "a missing story is asked for": ("if (one, story) in published)", ")", ("b3",)),
    "only what all have": ("sorted(asked & heard)", 'sorted(asked & heard - {"life"})', ("b3",)),
    "any repeats will do": ('"individual_repeats", "2 repeats or more", *shape', '"data", *shape', ("b4", "b5")),
    "another test story": ('TEST = "wheretheressmoke"', 'TEST = "souls"', ("b4",)),
    "reliability of a single repeat": ("n * shared / (1 + (n - 1) * shared)", "shared", ("b5",)),
    "reliability, not its root": ("np.sqrt(n * shared", "1 * (n * shared", ("b5",)),
    "mean of squares": (".sum(axis=0) - n) / (n * (n - 1)))", ".sum(axis=0)) / n**2)", ("b5",)),
    "rows not looked at": ("n == wanted for n, wanted", "n for n, wanted", ("b6",)),
    "a number is enough": (": {self.trs[story]} TRs of", ": TRs of", ("b6",)),
    "constant voxel unseen": ("== 0]  # reads", "== 7]  # reads", ("b7",)),
    "what is no number kept": ("known &= (here := first[columns])", "here = known", ("b7",)),
    "not told": ("* bool(lost)", "* 0", ("b7",)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_the_reader_is_found(name: str, published: tuple[Path, Truth], tmp_path: Path) -> None:
    data, truth = published
    (tmp_path / "ds003020").symlink_to(data / "ds003020")  # with a cache of its own
    old, new, finding = MISTAKES[name]
    case = Case(mistaken(stories, old, new, base, signal), tmp_path, truth)
    for assertion in finding:
        with noticed():
            ASSERTIONS[assertion](case)


def test_each_assertion_can_fail() -> None:
    assert {assertion for _, _, finding in MISTAKES.values() for assertion in finding} == {*ASSERTIONS}


# --- Lag, folds, voxels, what is not there or not right -------------------------------------------


def given(content: dict[str, Any], **brain: Any) -> Study:
    fields = {"name": "stories", "subjects": ["UTS01", "UTS04"], "stories": [*STORIES], **brain}
    models = [{"name": "one", "train": {**TRAIN, "checkpoints": 2}}]
    study: dict[str, Any] = {"name": "t", "title": "t", "brain": fields, "models": models}
    study["features"] = {"context": "text", "pooling": "mean", "resample": "sum", "hemodynamics": "average"}
    study["features"] |= {"delays": [2], "trim": 0}
    study["encoding"] = {"folds": "given", "permutations": 19, "shuffles": 1, "log10_alphas": [0, 4, 5]}
    for at, value in content.items():
        part, _, name = at.partition(".")
        study[part] = study[part] | {name: value}
    return Study.model_validate(study)


def test_a_study_of_stories_finds_the_planted_lag_and_signal(published: tuple[Path, Truth], tmp_path: Path) -> None:
    data, truth = published
    scores = {}
    for delay in (0, 2):
        bench = Workbench(given({"features.delays": [delay]}), Store(tmp_path / str(delay)), data)
        assert check(bench, bench.study.models) == {}
        model = bench.study.models[0]
        last = bench.checkpoints(model)[-1]
        voxels = read_voxels(bench.result("brain", model, last) / "voxels.zarr")
        scores[delay] = {subject: voxels[subject]["r"][-1] for subject in SUBJECTS}
    ceilings = bench.brain.ceiling
    assert ceilings is not None
    for subject, found in scores[2].items():  # each has stories of their own
        true = np.delete(truth.true[subject], [LOST[1]] * (subject == LOST[0]))
        assert found.shape == true.shape
        assert np.abs(found - ceilings[subject])[true].max() < 0.15
        assert np.median(np.abs(found[~true])) < 0.1
        assert scores[0][subject][true].max() < found[true].max() - 0.2
    assert scores[2]["UTS01"][CONSTANT[1]] == 0
    curves = pd.read_parquet(bench.result("brain", model, last) / "curves.parquet")
    assert {*curves["measure"]} >= {"r", "r_normalised"}
    table = pd.read_parquet(bench.result("controls", model, last) / "controls.parquet")
    r = table[(table["measure"] == "r") & (table["roi"] == "all")].groupby("model")["value"].mean()
    assert r["control: word rate"] > 0.2 > r["control: shuffled stimulus"]


def test_the_lag_of_words_is_found(published: tuple[Path, Truth], tmp_path: Path) -> None:
    study = tmp_path / "s.yaml"
    study.write_text(given({}).model_dump_json())
    result = CliRunner().invoke(app, ["data", "check", str(study), "--data", str(published[0])])
    assert result.exit_code == 0, result.output
    for subject in SUBJECTS:
        assert f"{subject}: what is said is followed after 4 s (r = 0.9" in result.output
    assert "expected" not in result.output


def test_trs_of_2_0045_s_begin_where_the_authors_class_has_them(published: tuple[Path, Truth]) -> None:
    brain = stories.load(section(tr_time=2.0045), published[0])
    for run in brain.stimulus.runs:
        assert run.tr == 2.0045
        np.testing.assert_allclose(run.onsets, [on - (10 * 2.0045 - 10) for _, on, _ in published[1].words[run.name]])
    with pytest.raises(ValueError, match="less than or equal to 2.01"):
        section(tr_time=2.5)


def test_folds_and_lengths_are_those_of_the_published_code(published: tuple[Path, Truth]) -> None:
    brain = stories.load(section(), published[0])
    assert brain.folds == {"alternateithicatom": "1", "souls": "1", "life": "2", "naked": "2", TEST: "test"}
    every = stories.Stories(section(subjects="all", stories="all"), None)
    assert [len(own) for own in every.own.values()] == [84, 84, 84, 26, 27, 27, 27, 27, 54]
    trains = [story for story in every.own["UTS05"] if story != TEST]
    assert sum(every.trs[story] - 2 * CUT for story in trains) == 9461
    assert [[every.folds[story] for story in trains].count(fold) for fold in "12345"] == [5, 5, 5, 6, 5]
    assert sum(n - 2 * CUT for n in every.trs.values()) == 28088
    # The bytes of the published files are those of so many rows of float64, a header of 2,048 bytes beside.
    files = SETS["ds003020"].table
    for one, voxels in {"UTS01": 81126, "UTS09": 98336}.items():
        own = files[(files["subjects"] == one) & (files["stories"] != TEST)]
        assert [int(n) for n in own["bytes"]] == [8 * voxels * (every.trs[s] - 2 * CUT) + 2048 for s in own["stories"]]


def test_the_study_of_stories_is_the_published_default() -> None:
    study = load_study("stories")
    found = stories.Stories(study.brain, None)
    assert [*found.own] == ["UTS01", "UTS02", "UTS03"]
    assert {*found.own["UTS01"]} == {*stories.Stories(section(subjects=["UTS05"], stories="all"), None).names}
    assert study.encoding.folds == "given"


def test_voxels_are_chosen(published: tuple[Path, Truth], tmp_path: Path) -> None:
    data, _ = published
    fields = {"subjects": ["UTS01"], "stories": ["souls", TEST]}
    whole = stories.load(section(**fields), data)
    few = stories.load(section(voxels=7, **fields), data)
    own = values(few, "UTS01", "souls")
    np.testing.assert_array_equal(own, values(whole, "UTS01", "souls")[:, [0, 5, 11, 17, 22, 28, 34]])
    assert whole.ceiling is not None
    assert few.ceiling is not None
    np.testing.assert_array_equal(few.ceiling["UTS01"], whole.ceiling["UTS01"][[0, 5, 11, 17, 22, 28, 34]])
    table = tmp_path / "v.csv"
    table.write_text("subject,voxel,roi\nUTS01,9,STS\nUTS01,0,AC\nUTS02,1,other\n")
    some = stories.load(section(voxels=str(table), **fields), data)
    np.testing.assert_array_equal(values(some, "UTS01", "souls"), values(whole, "UTS01", "souls")[:, [0, 9]])
    assert [*some.rois["UTS01"]] == ["AC", "STS"]
    assert len({brain.digest for brain in (whole, few, some)}) == 3
    assert table in BRAINS["stories"].files(section(voxels=str(table), **fields), data)["responses"]
    table.write_text("subject,voxel,roi\nUTS01,40,STS\n")
    for voxels, message in (
        (str(table), r"v.csv: voxels of UTS01: found \['40'\], expected some of the 40 of the mask, each once"),
        (99, "brain.voxels: found 99, expected at most the 40 of UTS01"),
    ):
        with pytest.raises(PhaselabError, match=message):
            stories.load(section(voxels=voxels, **fields), data)
    only = {"subjects": ["UTS04"], "voxels": str(table)}
    table.write_text("subject,voxel,roi\nUTS04,3,STS\n")
    with pytest.raises(
        PhaselabError, match="brain.voxels: UTS04: found no numbers in 3, expected a voxel that has some"
    ):
        stories.load(section(**only), data)


def test_the_ceiling_is_kept_until_its_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, ("UTS01",), ("souls", TEST))
    fields, asked = {"subjects": ["UTS01"], "stories": ["souls", TEST]}, list[int]()
    counted = stories.repeats_ceiling
    monkeypatch.setattr(stories, "repeats_ceiling", lambda repeats: asked.append(1) or counted(repeats))
    first, again = (stories.load(section(**fields), tmp_path).ceiling for _ in range(2))
    assert len(asked) == 1
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first["UTS01"], again["UTS01"])
    noise = np.random.default_rng(0).standard_normal((10, 291, 40))
    with changed(path_of(tmp_path, "UTS01", TEST), individual_repeats=noise):
        other = stories.load(section(**fields), tmp_path).ceiling
    assert other is not None
    assert other["UTS01"].mean() < first["UTS01"].mean() - 0.2


def test_a_respdict_that_is_there_holds(tmp_path: Path) -> None:
    make(tmp_path, ("UTS01",), ("souls", TEST))
    fields = {"subjects": ["UTS01"], "stories": ["souls", TEST]}
    own = tmp_path / "ds003020/derivative/respdict.json"
    own.write_text(json.dumps({"souls": 375, TEST: 311, "another": 3}))
    assert own in BRAINS["stories"].files(section(**fields), tmp_path)["stimulus"]
    stories.load(section(**fields), tmp_path)
    own.write_text(json.dumps({"souls": 380, TEST: 311}))
    with pytest.raises(
        PhaselabError, match=r"found float64 \(355, 40\), expected numbers \(360, voxels\): 380 TRs of resp"
    ):
        stories.load(section(**fields), tmp_path)
    for content, message in (
        (
            '{"souls": "375"}',
            "respdict.json: found no number for souls, wheretheressmoke, expected the TRs of each story",
        ),
        ("[375]", "respdict.json: found no number for souls, where"),
        ("{", "respdict.json:.*cannot be read"),
    ):
        own.write_text(content)
        with pytest.raises(PhaselabError, match=message):
            stories.load(section(**fields), tmp_path)


def test_what_is_not_there_or_not_right_is_named(tmp_path: Path) -> None:
    fields = {"subjects": ["UTS01"], "stories": ["souls", TEST]}
    command = f"phaselab data get ds003020 --subjects UTS01 --stories souls,{TEST} --data DATA .*, and name DATA with"
    with pytest.raises(DataMissing, match=command):
        stories.load(section(**fields), None)
    make(tmp_path, ("UTS01",), ("souls", TEST))
    response, words = path_of(tmp_path, "UTS01", "souls"), tmp_path / "ds003020/derivative/TextGrids/souls.TextGrid"
    test, data = path_of(tmp_path, "UTS01", TEST), raw(tmp_path, "UTS01", "souls")
    repeats, right = (
        raw(tmp_path, "UTS01", TEST, "individual_repeats"),
        r"expected numbers \(2 repeats or more, 291, 40\)",
    )
    for path, arrays, message in (
        (response, {"data": data.T}, r"souls.hf5: data: found float64 \(40, 355\), expected numbers \(355, voxels\)"),
        (
            response,
            {"data": data[:, :39]},
            r"smoke.hf5: data: found .* \(291, 40\), expected numbers \(291, 39\).*as in all",
        ),
        (
            response,
            {"data": data[None]},
            r"souls.hf5: data: found float64 \(1, 355, 40\), expected numbers \(355, voxels",
        ),
        (
            response,
            {"data": None, "resp": data},
            r"souls.hf5: data: found none, but resp, expected numbers \(355, voxels",
        ),
        (response, {"data": data.astype("S3")}, r"souls.hf5: data: found \|S3 \(355, 40\), expected numbers"),
        (test, {"individual_repeats": None}, rf"smoke.hf5: individual_repeats: found none, but data, note, {right}"),
        (test, {"individual_repeats": repeats[0]}, rf"individual_repeats: found float64 \(291, 40\), {right}"),
        (test, {"individual_repeats": repeats[:1]}, rf"individual_repeats: found float64 \(1, 291, 40\), {right}"),
        (
            test,
            {"individual_repeats": repeats[:, :, :9]},
            rf"individual_repeats: found float64 \(10, 291, 9\), {right}",
        ),
    ):
        with changed(path, **arrays), pytest.raises(PhaselabError, match=message):
            stories.load(section(**fields), tmp_path)
    before = response.read_bytes()
    for content, message in (
        (before[:5000], "souls.hf5: cannot be read as HDF5: .*truncated"),
        (
            b"/annex/objects/MD5E-s1--ab.hf5",
            "souls.hf5: found a pointer of Git LFS or git-annex, expected the",
        ),
        (b"", "souls.hf5: cannot be read as HDF5"),
    ):
        response.write_bytes(content)
        with pytest.raises(PhaselabError, match=message):
            stories.load(section(**fields), tmp_path)
    response.unlink()
    with pytest.raises(DataMissing, match=r"souls.hf5: not there; type: phaselab data get ds003020 --subjects UTS01"):
        stories.load(section(**fields), tmp_path)
    response.symlink_to("../../../.git/annex/objects/none")  # what datalad has not fetched
    with pytest.raises(DataMissing, match=r"souls.hf5: not there"):
        stories.load(section(**fields), tmp_path)
    response.unlink()
    make(tmp_path, ("UTS01",), ("souls", TEST))
    whole = words.read_text()
    for text, message in (
        (whole[:200], "souls.TextGrid: line 12: found"),
        (
            first_tier(whole),
            "souls.TextGrid: tiers: found phone, expected one called 'word', or two, of which the second",
        ),
        (
            re.sub('text = "[^P].*', 'text = "{ns}"', whole),
            "souls.TextGrid: tier 'transcript': found no word, expected one",
        ),
        (
            'File type = "ooTextFile"\n"TextGrid"\n0 9999 <exists> 1 "IntervalTier" "word" 0 9999 1 9000 9001 "late"',
            "souls.TextGrid: tier 'word': found a word at 9000 s, expected none after the run, at 740 s",
        ),
        (whole.replace("xmin = 0.1 \n", "xmin = 9999 \n"), "souls.TextGrid: line .*: found an interval from 9999"),
    ):
        words.write_text(text)
        with pytest.raises(PhaselabError, match=message):
            stories.load(section(**fields), tmp_path)


def first_tier(text: str) -> str:
    """A TextGrid of its first tier."""
    return text.partition("    item [2]:")[0].replace("size = 3", "size = 1", 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"subjects": ["UTS10"]}, r"brain.subjects.*UTS10"),
        ({"subjects": []}, r"(?s)brain.subjects: found \[\].*at least 1 item"),
        ({"stories": []}, r"(?s)brain.stories.*at least 1 item"),
        ({"voxels": 0}, "brain.voxels"),
        ({"tr": 2}, "brain.tr: unknown field; expected one of .*tr_time"),
    ],
)
def test_wrong_fields_are_told_at_once(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = given({}).model_dump(mode="json")
    content["brain"] |= fields
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=message):
        load_study(path)


def test_stories_that_nobody_has_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        PhaselabError, match=r"brain.stories: found \['lifes', 'souls'\], expected all, or some of adollshouse, "
    ):
        stories.load(section(stories=["lifes", "souls"]), tmp_path)
    with pytest.raises(
        PhaselabError, match="brain.stories: UTS04: found life, expected one at least that is published"
    ):
        stories.load(section(stories=["life"]), tmp_path)


def test_a_tr_without_numbers_is_refused_with_its_file(tmp_path: Path) -> None:
    make(tmp_path)
    of, path = section(subjects=["UTS01"], stories=["souls", TEST]), path_of(tmp_path, "UTS01", "souls")
    kept, one = raw(tmp_path, "UTS01", "souls"), raw(tmp_path, "UTS01", "souls")
    kept[5], one[9, 3] = np.nan, -np.inf
    for wrong, at, found in ((kept, "row 5, column 0", "nan"), (one, "row 9, column 3", "-inf")):
        with changed(path, data=wrong):
            brain = stories.load(of, tmp_path)  # of which little is read
            for responses in (brain.responses("UTS01", "souls"), brain.scored(0)["UTS01"]["souls"]):
                with pytest.raises(PhaselabError, match=rf"UTS01/souls.hf5: data: {at}: found {found}, expected a num"):
                    np.asarray(responses[:, 0:4])
    for row, message in ((0, "souls.hf5: row 0: found no number"), (177, "souls.hf5: row 177, column 0: found nan")):
        lacks = raw(tmp_path, "UTS01", "souls")
        lacks[row] = np.nan
        with changed(path, data=lacks), pytest.raises(PhaselabError, match=message):
            stories.load(of, tmp_path)
    repeats = raw(tmp_path, "UTS01", TEST, "individual_repeats")
    repeats[2, 7] = np.nan
    with (
        changed(path_of(tmp_path, "UTS01", TEST), individual_repeats=repeats),
        pytest.raises(PhaselabError, match=f"{TEST}.hf5: individual_repeats: found a TR without numbers"),
    ):
        stories.load(of, tmp_path)
