"""Published files of ds003020 are read right, and each assertion is shown able to fail by a mistake of the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from brains.mistakes import mistaken
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
    right = r"souls.hf5: data: found float64 \(300, 40\), expected numbers \(355, voxels\): 375 TRs of respdict.json less 20"
    with changed(case.data, "UTS01", "souls", data=np.zeros((300, 40))), pytest.raises(PhaselabError, match=right):
        case.module.load(section(case.module, stories=["souls", TEST]), case.data)


def b7_what_cannot_score_is_named(case: Case) -> None:
    notes = [note for note in case.brain().notes if "voxels" in note]
    assert notes == [
        "UTS01: constant in a story, where they score 0: voxels 7.",
        "UTS04: voxels left out, for in a story they are no numbers: 3.",
    ]
    np.testing.assert_array_equal(
        values(case.brain(), "UTS04", "souls"), np.delete(raw(case.data, "UTS04", "souls"), 3, axis=1).astype("f4")
    )


class changed:
    """A response with other arrays, as long as the block lasts."""

    def __init__(self, data: Path, subject: str, story: str, **arrays: np.ndarray | None) -> None:
        self.path, self.arrays = path_of(data, subject, story), arrays

    def __enter__(self) -> None:
        self.before = self.path.read_bytes()
        with h5py.File(self.path, "r+") as file:
            for name, array in self.arrays.items():
                file.pop(name, None)
                if array is not None:
                    file[name] = array

    def __exit__(self, *_: object) -> None:
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
    "double precision": (".astype(np.float32)", "", ("b2",)),
    "who lacks a story is not told": ("* bool(lacks)", "* 0", ("b3",)),
    "a missing story is asked for": ("if (one, story) in published)", ")", ("b3",)),
    "only what all have": ("in self.own.values())]", "in []) or 1]", ("b3",)),
    "any repeats will do": ('"individual_repeats", "2 repeats or more", *shape', '"data", *shape', ("b4", "b5")),
    "another test story": ('TEST = "wheretheressmoke"', 'TEST = "souls"', ("b4",)),
    "reliability of a single repeat": ("n * shared / (1 + (n - 1) * shared)", "shared", ("b5",)),
    "reliability, not its root": ("np.sqrt(n * shared", "1 * (n * shared", ("b5",)),
    "mean of squares": ("/ (n * (n - 1))", "/ n**2 + 1 / n", ("b5",)),
    "rows not looked at": ("n == wanted for n, wanted", "n for n, wanted", ("b6",)),
    "a number is enough": (": {self.trs[story]} TRs of", ": TRs of", ("b6",)),
    "constant voxel unseen": ("== 0]  # reads", "== 7]  # reads", ("b7",)),
    "what is no number kept": ("np.isfinite(", "~np.isnan(0 * ", ("b7",)),
    "not told": ("* bool(lost)", "* 0", ("b7",)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_the_reader_is_found(name: str, published: tuple[Path, Truth], tmp_path: Path) -> None:
    data, truth = published
    (tmp_path / "ds003020").symlink_to(data / "ds003020")  # with a cache of its own
    old, new, finding = MISTAKES[name]
    case = Case(mistaken(stories, old, new, base, signal), tmp_path, truth)
    for assertion in finding:
        with pytest.raises((AssertionError, ValueError, IndexError, KeyError, pytest.fail.Exception)):
            ASSERTIONS[assertion](case)


def test_each_assertion_can_fail() -> None:
    assert {assertion for _, _, finding in MISTAKES.values() for assertion in finding} == {*ASSERTIONS}
