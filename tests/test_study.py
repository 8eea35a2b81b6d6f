"""The study file: what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from phaselab.behaviour import library
from phaselab.checkpoints import FAMILIES
from phaselab.curves import families
from phaselab.study import Model, StudyError, digest_of, embedded, load_study

MINIMAL = {
    "name": "tiny",
    "title": "t",
    "brain": {"name": "simulated"},
    "models": [{"name": "a", "train": {"text": "world", "architecture": "olmo2"}}],
}


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("name", sorted(embedded()))
def test_embedded_studies_are_valid(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    assert study.brain.simulated == (study.brain.name == "simulated")
    assert {model.family for model in study.models if model.family} <= {*FAMILIES}
    of_text = {"cloze", "letters", "pairs"} if not study.brain.simulated else {task.name for task in study.tasks}
    assert {task.name for task in study.tasks} <= {*library()} | of_text


def test_seeds_of_a_family_are_replicates_and_other_models_are_not() -> None:
    table = families(load_study("little-prince")).set_index("model")
    groups = table.groupby("group", sort=False).size()
    assert groups[groups > 1].to_dict() == {"Pythia-160m": 10, "Pythia-410m": 10}
    assert table["seed"][[f"pythia-160m-s{n}" for n in range(10)]].tolist() == [*"0123456789"]
    assert (table.loc["olmo2-7b", "seed"], table.loc["pythia-70m", "seed"]) == ("", "0")
    assert {*table["label"]} >= {"Pythia-160m, seed 0", "Pythia-160m, seed 9"}


@pytest.mark.parametrize(
    ("models", "groups"),
    [
        (["pythia-14m", "pythia-14m-seed3"], {"pythia-14m (pythia-14m)": ["pythia-14m", "pythia-14m-seed3"]}),
        (["pythia-14m", "pythia-31m-seed3"], {"pythia-14m": ["pythia-14m"], "pythia-31m": ["pythia-31m-seed3"]}),
        (["pythia-1b", "pythia-1b-deduped"], {"pythia-1b": ["pythia-1b"], "pythia-1b-deduped": ["pythia-1b-deduped"]}),
    ],
)
def test_a_group_has_a_name_that_no_model_of_another_has(models: list[str], groups: dict[str, list[str]]) -> None:
    study = load_study("pereira")
    study = study.model_copy(update={"models": tuple(Model(name=name, family=name) for name in models)})
    found = families(study).groupby("group", sort=False)["model"].agg(list).to_dict()
    assert found == groups
    other = study.models[1].model_copy(update={"dtype": "bfloat16"})
    assert families(study.model_copy(update={"models": (study.models[0], other)}))["group"].nunique() == 2


def test_unknown_study_lists_those_that_exist() -> None:
    with pytest.raises(StudyError, match="found 'dmeo', expected a YAML file or one of .*demo"):
        load_study("dmeo")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"modles": []}, r"modles: unknown field; expected one of .*models"),
        ({"brain": {"name": "simulated", "sed": 1}}, r"brain\.sed: unknown field; expected one of .*seed"),
        ({"brain": {"name": "simulated", "runs": 1}}, r"brain\.runs: found 1; .*greater than or equal to 2"),
        ({"brain": {"name": "real"}}, r"brain\.name: found 'real'; expected one of alice, .*films, .*simulated"),
        # Of a field of several types one sentence: of the part that is wrong, or else what it may be.
        ({"brain": {"name": "stories", "subjects": ["UTS10"]}}, r"^\S+: brain\.subjects\.0: found 'UTS10'; [^\n]+$"),
        ({"brain": {"name": "films", "titles": "suits"}}, r"^\S+: brain\.titles: found 'suits'; [^\n]+; or [^\n]+$"),
        (
            {"brain": {"name": "films", "voxels": 0}},
            r"^\S+: brain\.voxels: found 0; Input should be 'all' or 'language'; or greater than .* 1; or a path$",
        ),
        ({"brain": "alice"}, r"brain: found 'alice'; .*BrainSpec"),
        ({"features": {"hemodynamics": "none"}}, r"features\.trim: found 5 with hemodynamics: none, expected 0"),
        ({"title": None}, r"title: found None"),
        ({"models": []}, r"models: found \[\]; .*at least 1 item"),
        ({"models": [{"name": "a"}]}, r"models\.0: .*exactly one of 'train', 'folder', 'family', 'rep"),
        ({"models": [{"name": "../a", "folder": "x"}]}, r"^\S+: models\.0\.name: found '\.\./a'; [^\n]+$"),
        (
            {"models": [{"name": "a", "train": {"text": "world", "architecture": "olmo2", "steps": "many"}}]},
            r"models\.0\.train\.steps: found 'many'; .*integer",
        ),
        (
            {"models": [{"name": "a", "train": {"text": "world", "architecture": "olmo2", "stpes": 3}}]},
            r"models\.0\.train\.stpes: unknown field; expected one of .*steps",
        ),
        ({"models": MINIMAL["models"] * 2}, r"expected distinct names, found a more than once"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    path = write(tmp_path, {**MINIMAL, **change})
    with pytest.raises(StudyError, match=expected) as caught:
        load_study(path)
    assert str(path) in str(caught.value)


def test_missing_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="brain: missing"):
        load_study(write(tmp_path, {k: v for k, v in MINIMAL.items() if k != "brain"}))


@pytest.mark.parametrize(("text", "expected"), [("- a", "found list"), ("a: [", "cannot be read as YAML")])
def test_not_a_study(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(StudyError, match=expected):
        load_study(path)


def test_unknown_model_lists_those_that_exist() -> None:
    with pytest.raises(StudyError, match="found 'gpt-9', expected one of neox-en-s0"):
        load_study("demo").model("gpt-9")


def test_digest_follows_content_alone() -> None:
    study = load_study("demo")
    assert digest_of(study.brain) == digest_of(load_study("demo").brain)
    assert digest_of(study.brain) != digest_of(study.brain.model_copy(update={"seed": 1}))


def test_null_is_a_field_of_the_section_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    path.write_text(f"{path.read_text()}encoding:\n  null: circular\n")
    assert load_study(path).encoding.null == "circular"
