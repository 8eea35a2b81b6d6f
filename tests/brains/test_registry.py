"""A brain is one file: its section, its registry, responses read when asked for, and items without a time axis."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
import zarr
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples import example
from phaselab.brains import BRAINS, BrainData, DataMissing, Group, brain, load_brain
from phaselab.encoding import encode, summarise
from phaselab.errors import PhaselabError
from phaselab.features import extract, to_trs
from phaselab.stimuli import Run, Stimulus
from phaselab.study import BRAIN_SECTIONS, BrainSpec, EncodingSpec, Study, StudyError, digest_of, load_study

MODELS = [{"name": "a", "folder": "x"}]

#: The example of CONTRIBUTING.md: a complete brain in one file.
FOLDER = example("brains/folder.py")


def import_text(text: str, folder: Path, name: str) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(BRAINS), dict(BRAIN_SECTIONS)
    yield
    for registry, kept in zip((BRAINS, BRAIN_SECTIONS), before, strict=True):
        registry.clear()
        registry.update(kept)


def study(**brain_fields: Any) -> Study:
    return Study.model_validate({"name": "s", "title": "t", "brain": brain_fields, "models": MODELS})


def folder_data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "folder").mkdir()
    words = [(run, f"w{i}", 2.0 * i, 2.0 * i + 1) for run in ("one", "two") for i in range(30)]
    pd.DataFrame(words, columns=["run", "word", "onset", "offset"]).to_csv(tmp_path / "folder/words.csv", index=False)
    for subject, n_voxels in (("anna", 3), ("bert", 4)):
        for run in ("one", "two"):
            np.save(tmp_path / f"folder/{subject}_{run}.npy", rng.standard_normal((30, n_voxels)).astype(np.float32))
    return tmp_path


# --- Registry and sections -------------------------------------------------------------------------


def test_a_complete_brain_is_one_file(tmp_path: Path) -> None:
    module = import_text(FOLDER, tmp_path, "brain_of_a_folder")
    found = study(name="folder", subjects=["anna", "bert"])
    assert isinstance(found.brain, module.FolderSpec)
    with pytest.raises(DataMissing, match="no SUBJECT_RUN.npy; put them there"):
        load_brain(found.brain, tmp_path)
    data = folder_data(tmp_path)
    loaded = load_brain(found.brain, data)
    assert loaded.subjects == ("anna", "bert")
    assert isinstance(loaded.responses("bert", "two"), np.memmap)
    assert BRAINS[found.brain.name].stimulus == ("tr",)
    of = BRAINS[found.brain.name].files(found.brain, data)
    assert [path.name for path in of["responses"]] == [f"{s}_{r}.npy" for s in ("anna", "bert") for r in ("one", "two")]
    X = {0: {run.name: np.random.default_rng(1).standard_normal((25, 6)) for run in loaded.stimulus.runs}}
    scores = encode(X, loaded.scored(5), EncodingSpec(permutations=0))
    assert [score.r.shape for score in scores.values()] == [(1, 3), (1, 4)]
    assert len(summarise(scores, loaded.rois, loaded.ceiling))


def test_sections_keep_their_fields_in_dumps_copies_and_digests() -> None:
    one = study(name="simulated", minutes=4, runs=2)
    assert one.model_dump(mode="json")["brain"] == {
        "name": "simulated", "seed": 0, "subjects": 3, "runs": 2, "minutes": 4.0, "tr": 2.0, "vertices": 160,
    }  # fmt: skip
    assert Study.model_validate(one.model_dump(mode="json")) == one
    assert Study.model_validate_json(one.model_dump_json()) == one
    assert digest_of(one) != digest_of(study(name="simulated", minutes=5, runs=2))
    assert set(study(name="alice").model_dump()["brain"]) == {"name", "seed", "subjects", "radius"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "alice", "tr": 2.0},
            r"brain\.tr: unknown field; expected one of corpus, name, radius, seed, sub",
        ),
        (
            {"name": "simulated", "radius": "6mm"},
            r"brain\.radius: unknown field; expected one of minutes, name, runs, seed",
        ),
        ({"name": "alice", "radius": "8mm"}, r"brain\.radius: found '8mm'; .*'6mm' or '10mm'"),
        ({"name": "real"}, r"brain\.name: found 'real'; expected one of alice, .*films, .*simulated"),
        ({"name": ["alice"]}, r"brain\.name: found \['alice'\]; expected one of"),
        ({}, r"brain\.name: found None; expected one of alice, .*films, .*simulated"),
    ],
)
def test_what_is_wrong_in_a_section_is_named(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "title": "t", "brain": fields, "models": MODELS}))
    with pytest.raises(StudyError, match=message):
        load_study(path)


def test_what_cannot_be_registered_is_refused() -> None:
    with pytest.raises(
        PhaselabError, match=r"brain tiny: stimulus, nuisance: found minutes, expected fields of its section"
    ):
        brain("tiny", BrainSpec, version=1, stimulus=("minutes",))
    with pytest.raises(PhaselabError, match="brain: found a second 'alice', expected distinct names"):
        brain("alice", BrainSpec, version=1)


def test_what_a_result_depends_on_is_known_without_reading_responses(data: Path) -> None:
    alice, simulated = study(name="alice").brain, study(name="simulated").brain
    of = BRAINS[alice.name].files(alice, data)
    assert [path.suffix for path in of["stimulus"]] == [".TextGrid"]
    assert len(of["responses"]) == 2 * 28
    assert {path.parent.name for path in of["responses"]} == {"6mm", "alice_data_shared"}
    assert BRAINS[simulated.name].files(simulated, None) == {}
    assert BRAINS[simulated.name].stimulus == ("seed", "runs", "minutes", "tr")


# --- Responses -------------------------------------------------------------------------------------


def runs(*lengths: int) -> Stimulus:
    made = []
    for number, n in enumerate(lengths):
        onsets, texts = np.arange(float(n)), tuple(f"w{i}" for i in range(n))
        labels = pd.DataFrame({"word": texts})
        made.append(Run(f"run-{number}", texts, onsets, onsets + 1, 1.0, n, labels, onsets == 0))
    return Stimulus("s", tuple(made))


def whole(read: Any, groups: tuple[Group, ...], stimulus: Stimulus, n_voxels: int = 4) -> BrainData:
    rois = {subject: np.array(["a"] * n_voxels) for group in groups for subject in group.subjects}
    return BrainData("b", "", stimulus, groups, read, rois)


@pytest.mark.parametrize("kind", ["array", "memory map", "zarr", "hdf5"])
def test_responses_are_read_when_asked_for(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    np.save(tmp_path / "y.npy", values)
    group = zarr.open_group(tmp_path / "y.zarr", mode="w")
    group.create_array("y", data=values)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["y"] = values
    h5 = h5py.File(tmp_path / "y.h5")
    of = {
        "array": values,
        "memory map": np.load(tmp_path / "y.npy", mmap_mode="r"),
        "zarr": group["y"],
        "hdf5": h5["y"],
    }
    asked = []

    def read(subject: str, run: str) -> Any:
        asked.append((subject, run))
        return of[kind]

    loaded = whole(read, (Group(("s", "t"), ("run-0", "run-1")),), runs(12, 12))
    scored = loaded.scored(3)
    assert asked == []
    assert {subject: list(of_run) for subject, of_run in scored.items()} == {
        "s": ["run-0", "run-1"],
        "t": ["run-0", "run-1"],
    }
    found = scored["t"]["run-1"]
    assert asked == [("t", "run-1")]
    assert isinstance(found, np.ndarray) == (kind in ("array", "memory map"))
    assert (found.shape, found.dtype) == ((9, 4), np.float32)
    kept = values[3:]
    for rows in (slice(None), 2, -1, slice(2, 5), slice(-4, None), slice(0, 9, 2)):
        np.testing.assert_array_equal(found[rows, 1:3], kept[rows, 1:3])
    np.testing.assert_array_equal(found[:, np.array([0, 3])], kept[:, [0, 3]])
    np.testing.assert_array_equal(np.concatenate([found, found]), np.concatenate([kept, kept]))
    assert np.isfinite(found).all()
    with pytest.raises(IndexError):
        found[9, :]
    with pytest.raises(KeyError):
        scored["s"]["run-9"]
    h5.close()


def test_a_memory_map_stays_one(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.ones((12, 4), dtype=np.float32))
    mapped = np.load(tmp_path / "y.npy", mmap_mode="r")
    found = whole(lambda subject, run: mapped, (Group(("s",), ("run-0",)),), runs(12)).scored(2)["s"]["run-0"]
    assert isinstance(found, np.memmap)
    assert np.shares_memory(found, mapped)


def test_groups_have_runs_of_their_own() -> None:
    stimulus = runs(12, 10, 8)
    n_trs = {run.name: run.n_trs for run in stimulus.runs}
    groups = Group(("s",), ("run-0", "run-1", "run-2")), Group(("t", "u"), ("run-0", "run-2"))
    loaded = whole(lambda subject, run: np.ones((n_trs[run], 4)), groups, stimulus)
    assert loaded.subjects == ("s", "t", "u")
    assert {s: [len(y) for y in of.values()] for s, of in loaded.scored(2).items()} == {
        "s": [10, 8, 6],
        "t": [10, 6],
        "u": [10, 6],
    }
    assert len(loaded.digest) == 16
    with pytest.raises(
        PhaselabError, match=r"runs of s: found run-1, run-0, expected in order, of run-0, run-1, run-2"
    ):
        whole(loaded.read, (Group(("s",), ("run-1", "run-0")),), stimulus)
    with pytest.raises(PhaselabError, match="groups: found s in two, expected a subject in one"):
        whole(loaded.read, (Group(("s",), ("run-0",)), Group(("s",), ("run-1",))), stimulus)


def test_responses_of_another_shape_are_refused() -> None:
    loaded = whole(lambda subject, run: np.ones((4, 12)), (Group(("s",), ("run-0",)),), runs(12))
    with pytest.raises(PhaselabError, match=r"responses of s in run-0: found shape \(4, 12\), expected \(12, 4\): TRs"):
        loaded.responses("s", "run-0")


# --- Items -----------------------------------------------------------------------------------------

SENTENCES = '''
from typing import Literal

import numpy as np
import pandas as pd

from phaselab.brains import BrainData, Group, brain
from phaselab.stimuli import items
from phaselab.study import BrainSpec


class SentencesSpec(BrainSpec):
    name: Literal["sentences"] = "sentences"
    n: int = 48


@brain("sentences", SentencesSpec, version=1, stimulus=("n", "seed"))
def load(section, data):
    """Sentences in four groups; one voxel follows how many words of a kind they have, another one follows nothing."""
    rng = np.random.default_rng(section.seed)
    texts = [" ".join(rng.choice(["dog", "cat", "tree", "sees"], 6)) for _ in range(section.n)]
    table = pd.DataFrame({"item": range(section.n), "text": texts, "group": [f"g{i % 4}" for i in range(section.n)]})
    stimulus = items("sentences", table)
    response = {i: [text.count("dog"), rng.standard_normal()] for i, text in enumerate(texts)}
    rows = {run.name: np.array([response[i] for i in run.labels["item"]]) for run in stimulus.runs}
    return BrainData(
        name="sentences",
        description="",
        stimulus=stimulus,
        groups=(Group(("s",), tuple(rows)),),
        read=lambda subject, run: rows[run],
        rois={"s": np.array(["dogs", "noise"])},
    )
'''


def test_sentences_without_time_go_through_features_and_encoder(tmp_path: Path) -> None:
    import_text(SENTENCES, tmp_path, "brain_of_sentences")
    content = {"name": "s", "title": "t", "brain": {"name": "sentences"}, "models": MODELS}
    content["features"] = {"context": "text", "pooling": "mean", "hemodynamics": "none", "trim": 0}
    content["features"]["first_token"] = "keep"  # the tokenizer opens no text, and the first word counts
    content["encoding"] = {"folds": "runs", "permutations": 0}
    spec = Study.model_validate(content)
    loaded = load_brain(spec.brain, None)
    vocabulary = {word: i for i, word in enumerate(["<unk>", "dog", "cat", "tree", "sees"])}
    inner = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=5, pad_token_id=None, bos_token_id=None, eos_token_id=None, **shape)
    )
    features = extract(model.eval(), PreTrainedTokenizerFast(tokenizer_object=inner), loaded.stimulus, spec.features)
    X = to_trs(features, loaded.stimulus, spec.features)
    assert {run: x.shape for run, x in X[2].items()} == {f"g{i}": (12, 16) for i in range(4)}
    np.testing.assert_array_equal(np.concatenate([*X[0].values()]), features.layers[0])
    scores = encode(X, loaded.scored(spec.features.trim), spec.encoding)["s"]
    # The mean of the embeddings tells the number of dogs.
    assert scores.r[0, 0] > 0.9
    assert scores.r[0, 1] < 0.6
    # The spec of timed text is refused, by the run.
    with pytest.raises(PhaselabError, match=r"run g0: features\.hemodynamics: found hrf, expected none"):
        to_trs(features, loaded.stimulus, spec.features.model_copy(update={"hemodynamics": "hrf"}))[0]
