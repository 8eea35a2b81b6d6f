"""Families: what the names of their checkpoints say, their manifests, and what is chosen of them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phaselab.checkpoints import FAMILIES, chosen, find, manifest, of_repository
from phaselab.checkpoints.names import Reading
from phaselab.cli import app
from phaselab.errors import PhaselabError
from phaselab.study import StudyError, load_study

B = 10**9

#: A row per family: name, a revision, and the step, tokens and stage that its name says.
READINGS = [
    ("olmo2-1b", "stage1-step1907359-tokens4001B", Reading(1_907_359, 4001 * B, "1")),
    ("olmo2-1b", "stage1-step1000", Reading(1000, 2_097_152_000, "1")),
    ("olmo2-7b", "stage1-step928646-tokens3896B", Reading(928_646, 3896 * B, "1")),
    ("olmo2-7b", "step150-tokens1B", Reading(150, B, "")),
    ("olmo2-7b", "stage2-ingredient3-step11931-tokens50B", Reading(11_931, 50 * B, "2")),
    ("olmo2-7b", "main", None),
    ("olmo2-13b", "stage1-step596057-tokens5001B", Reading(596_057, 5001 * B, "1")),
    ("olmo2-32b", "stage1-step721901-tokens6056B", Reading(721_901, 6056 * B, "1")),
    ("olmo-0724-7b", "step0-tokens0B", Reading(0, 0, "")),
    ("olmo-0724-7b", "step650650-tokens2729B", Reading(650_650, 2729 * B, "")),
    ("olmo3-7b", "stage1-step1000", Reading(1000, 4_194_304_000, "1")),
    ("olmo3-7b", "stage2-step1000", Reading(1000, None, "2")),
    ("amber-7b", "ckpt_000", Reading(0, 3_497_583_333, "")),
    ("amber-7b", "main", Reading(359, 1_259_130_000_000, "")),
    ("k2-65b", "ckpt_360", Reading(360, None, "")),
    ("llm-jp-3-7.2b", "step0001000", Reading(1000, None, "")),
    ("pythia-70m-seed9", "step512", Reading(512, 512 * 2_097_152, "")),
    ("pythia-70m", "step512", Reading(512, 512 * 2_097_152, "")),
    ("pythia-12b-deduped", "step143000", Reading(143_000, 299_892_736_000, "")),
    ("smollm2-135m", "step-240000", Reading(240_000, 251_658_240_000, "")),
    ("smollm2-360m", "step-160000", Reading(160_000, None, "")),
    ("smollm2-1.7b", "step-125000", Reading(125_000, None, "")),
    ("smollm3-3b", "stage1-step-40000", Reading(40_000, 94_371_840_000, "")),
    ("smollm3-3b", "stage3-step-4720000", Reading(4_720_000, 4_720_000 * 2_359_296, "")),
    ("marin-8b", "kestrel", Reading(1, 2700 * B, "")),
    ("marin-8b", "deeper-starling", Reading(6, 12_700 * B, "")),
    ("apertus-8b", "step2627139-tokens15T", Reading(2_627_139, 15_000 * B, "")),
]


@pytest.mark.parametrize(("family", "revision", "expected"), READINGS)
def test_names_say_what_the_source_says(family: str, revision: str, expected: Reading | None) -> None:
    assert find(family).read(revision) == expected


def test_every_family_has_a_reading_and_its_facts() -> None:
    sizes = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
    pythia = {f"pythia-{size}{kind}" for size in sizes for kind in ("", "-deduped")}
    assert pythia <= set(FAMILIES)
    seeds = {f"pythia-{size}-seed{n}" for size in sizes[:5] for n in range(1, 10)}
    assert seeds == {name for name, family in FAMILIES.items() if family.seed}
    assert set(FAMILIES) - pythia - seeds == {family for family, *_ in READINGS} - pythia - seeds
    for name, family in FAMILIES.items():
        assert name == family.name
        assert family.repository.count("/") == 1
        assert family.architecture.endswith("ForCausalLM")
        assert family.licence
        assert family.languages
        assert family.source.endswith(".")
    assert {f.name for f in FAMILIES.values() if not f.public} == {"llm-jp-3-7.2b", *seeds}


def test_a_seed_is_its_family_in_a_repository_of_its_own() -> None:
    one, of = find("pythia-160m-seed3"), find("pythia-160m")
    assert (one.repository, one.seed, of.seed) == ("EleutherAI/pythia-160m-seed3", 3, 0)
    assert [one.read(name) for name in ("step0", "step512")] == [of.read(name) for name in ("step0", "step512")]
    assert [name for name, family in FAMILIES.items() if family.run == "pythia-160m"] == [
        f"pythia-160m-seed{n}" for n in range(1, 10)
    ]


def test_sizes_are_those_of_the_architectures() -> None:
    sized = {name: family.size for name, family in FAMILIES.items() if family.size}
    assert {"olmo2-7b", "olmo-0724-7b", "amber-7b", "pythia-70m", "pythia-12b-deduped"} <= set(sized)
    for name, size in sized.items():
        layers, width = size["layers"], size["width"]
        matrices = layers * width * (4 * width + 3 * 11_008)
        blocks = layers * (12 * width**2 + 13 * width) + 2 * width if name.startswith("pythia") else matrices
        assert size["blocks"] == blocks, name
        assert size["bytes"] > size["weight"] * blocks, name  # with the embedding and the head


def test_a_family_that_is_none_names_the_nearest() -> None:
    with pytest.raises(PhaselabError, match=r"family: found 'olmo-7b', expected one of .*olmo2-7b"):
        find("olmo-7b")
    for name in ("../x", "a/..", "../..", "a/b/c", "/olmo2-1b", "EleutherAI//pythia"):
        with pytest.raises(PhaselabError, match=f"family: found {re.escape(repr(name))}, expected one of"):
            find(name)
    assert find("EleutherAI/pythia-160m").repository == "EleutherAI/pythia-160m"


def test_any_repository_is_read_by_all_patterns() -> None:
    bare, told = of_repository("org/own"), of_repository("org/own", 1000)
    for name in ("step7", "step-7", "ckpt_007", "stage1-step7"):
        assert bare.read(name).tokens is None
        assert (told.read(name).step, told.read(name).tokens) == (7, 7000)
    assert told.read("stage1-step7-tokens3K").tokens == 3000
    assert told.read("main") is None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of manifests, and no network."""
    monkeypatch.setenv("PHASELAB_MANIFESTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def write(folder: Path, family: str, rows: list[tuple[str, ...]]) -> Path:
    path = folder / f"{family}.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([manifest._COLUMNS, *rows])
    return path


def test_committed_manifests_agree_with_the_table(folder: Path) -> None:
    for family in FAMILIES.values():
        if not manifest.path_of(family).is_file():
            continue
        known = manifest.listing(family)
        assert known[1:] == ([], [], [])
        for checkpoint in known.checkpoints:
            said = family.read(checkpoint.revision)
            assert (checkpoint.step, checkpoint.tokens) == (said.step, said.tokens)
    pythia = manifest.listing(find("pythia-1b")).checkpoints
    assert [c.step for c in pythia[:12]] == [0, *(2**k for k in range(10)), 1000]
    assert len(pythia) == 154
    assert pythia[-1].repository == "EleutherAI/pythia-1b"
    assert [c.revision for c in manifest.listing(find("amber-7b")).checkpoints][-2:] == ["ckpt_358", "main"]


#: Family, steps in the official list of olmo_steps, tokens of a step, and names that are known from elsewhere.
LISTED = [
    ("olmo2-1b", "OLMo-2-0425-1B", 2_097_152, ("stage1-step300-tokens1B", "stage1-step1907359-tokens4001B")),
    ("olmo2-7b", "OLMo-2-1124-7B", 4_194_304, ("stage1-step150-tokens1B", "stage1-step928646-tokens3896B")),
    ("olmo2-13b", "OLMo-2-1124-13B", 8_388_608, ("stage1-step1100-tokens10B", "stage1-step596057-tokens5001B")),
    ("olmo-0724-7b", "OLMo-7B-0724", 4_194_304, ("step0-tokens0B", "step500-tokens2B", "step650650-tokens2729B")),
]


@pytest.mark.parametrize(("family", "listed", "tokens_per_step", "known"), LISTED)
def test_names_of_a_list_of_steps_are_as_those_that_are_known(
    family: str, listed: str, tokens_per_step: int, known: tuple[str, ...], folder: Path, data: Path
) -> None:
    line = manifest.listing(find(family)).checkpoints
    assert {*known} <= {c.revision for c in line}
    assert all(abs(c.tokens - c.step * tokens_per_step) < B for c in line)
    steps = {int(row["step"]) for row in csv.DictReader((data / f"olmo_steps/{listed}.csv").open())}
    assert {c.step for c in line} ^ steps <= {0, 500, 650_650, 928_646}


def test_names_that_are_to_be_confirmed_are_said_to_be(folder: Path) -> None:
    unconfirmed = {family for family, *_ in LISTED}
    assert {name for name, family in FAMILIES.items() if family.unconfirmed} == unconfirmed
    listed = CliRunner().invoke(app, ["models", "list"], env={"COLUMNS": "120"}).output
    assert listed.count("confirmed") == 1 + len(unconfirmed)  # lines may be broken before it
    assert "pythia-160m-seed1" not in listed
    shown = CliRunner().invoke(app, ["models", "show", "olmo2-7b"], env={"COLUMNS": "300"}).output
    assert "to be confirmed: 'phaselab models refresh'" in shown
    write(folder, "olmo2-7b", [("", "stage1-step150-tokens1B", "a" * 40, "150", "1000000000")])
    assert "to be confirmed" not in CliRunner().invoke(app, ["models", "show", "olmo2-7b"]).output


def test_a_refreshed_manifest_wins_and_nothing_is_dropped_in_silence(folder: Path) -> None:
    repository = "allenai/OLMo-2-0425-1B"
    early = f"{repository}-early-training"
    path = write(
        folder,
        "olmo2-1b",
        [
            (repository, "main", "a" * 40, "", ""),
            (repository, "stage1-step10000-tokens21B", "b" * 40, "10000", "21000000000"),
            (repository, "step10000-tokens21B", "b" * 40, "10000", "21000000000"),
            (repository, "stage1-step20000-tokens42B", "c" * 40, "20000", "42000000000"),
            (repository, "stage2-ingredient1-step5-tokens50B", "d" * 40, "5", "50000000000"),
            (early, "stage1-step10000-tokens21B", "e" * 40, "10000", "21000000000"),
            (early, "stage1-step0-tokens0B", "f" * 40, "0", "0"),
        ],
    )
    known = manifest.listing(find("olmo2-1b"))
    assert manifest.path_of(find("olmo2-1b")) == path
    assert [(c.step, c.repository) for c in known.checkpoints if not c.branch] == [
        (0, early),
        (10_000, repository),
        (20_000, repository),
    ]
    assert known.checkpoints[1].revision == "stage1-step10000-tokens21B"
    assert {(r.repository, r.revision) for r in known.doubles} == {
        (repository, "step10000-tokens21B"),
        (early, "stage1-step10000-tokens21B"),
    }
    assert [r.revision for r in known.strange] == ["main"]
    with pytest.warns(UserWarning, match="olmo2-1b: left out main"):
        assert len(chosen(find("olmo2-1b"), "all")) == 3
    # The ingredient begins at the end of stage 1, and is taken by name alone.
    with pytest.warns(UserWarning, match="left out main"):
        (branch,) = chosen(find("olmo2-1b"), ("stage2-ingredient1-step5-tokens50B",))
    assert (branch.step, branch.tokens, branch.commit) == (20_005, 92 * B, "d" * 40)


def test_tokens_that_nothing_states_can_be_filled_in(folder: Path) -> None:
    family = find("k2-65b")
    write(folder, "k2-65b", [("", "ckpt_001", "a" * 40, "1", ""), ("", "ckpt_002", "b" * 40, "2", "")])
    with pytest.raises(PhaselabError, match=r"k2-65b: found no checkpoint .*column tokens of .*2 checkpoints"):
        chosen(family, "all")
    write(folder, "k2-65b", [("", "ckpt_001", "a" * 40, "1", "4000"), ("", "ckpt_002", "b" * 40, "2", "")])
    with pytest.warns(UserWarning, match="left out ckpt_002"):
        assert [c.tokens for c in chosen(family, "all")] == [4000]
    write(folder, "k2-65b", [("", "ckpt_001", "a" * 40, "1", "4 B")])
    with pytest.raises(PhaselabError, match=r"k2-65b.csv: ckpt_001: tokens: found '4 B', expected a whole"):
        manifest.listing(family)
    (folder / "k2-65b.csv").write_text("revision,tokens\nckpt_001,4\n")
    with pytest.raises(PhaselabError, match=r"k2-65b.csv: found columns .*expected repository, revision"):
        manifest.listing(family)


def test_offline_without_a_manifest_or_commits_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PhaselabError, match=r"found no manifest .*HF_HUB_OFFLINE .*models refresh olmo2-32b"):
        chosen(find("olmo2-32b"), "all")
    with pytest.raises(PhaselabError, match=r"pythia-70m step0: found no commit that is known, and HF_HUB_OFFLINE"):
        chosen(find("pythia-70m"), ("step0",))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{name: m}", "expected exactly one of 'train', 'folder', 'family', 'repository', found none"),
        ("{name: m, family: olmo2-7b, folder: x}", "found folder and family"),
        ("{name: m, repository: olmo}", "models.0.repository: found 'olmo'"),
        (
            "{name: m, family: olmo2-7b, tokens_per_step: 5}",
            "tokens_per_step: expected only with 'repository'",
        ),
        ("{name: m, family: olmo2-7b, dtype: float64}", "models.0.dtype: found 'float64'"),
    ],
)
def test_a_model_has_one_origin(model: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"{{name: s, title: t, brain: {{name: simulated}}, models: [{model}]}}")
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert said in str(caught.value)
