"""Training that can be interrupted: checkpoints, rates, networks, and what makes a model stale."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from phaselab.errors import PhaselabError
from phaselab.results import MANIFEST, Store, read_manifest, write_folder
from phaselab.study import Training
from phaselab.texts import source

SMALL = Training(
    text="world",
    architecture="gpt_neox",
    hidden_size=16,
    layers=1,
    heads=2,
    intermediate_size=32,
    context=32,
    batch=2,
    steps=12,
    warmup=2,
    checkpoints=6,
)


def test_checkpoints_are_distinct_and_log_spaced() -> None:
    from phaselab.training.folder import checkpoint_steps

    for steps, n in ((1000, 20), (1150, 24), (30, 20), (7, 3), (5, 2)):
        found = checkpoint_steps(steps, n)
        assert found == sorted(set(found))
        assert (found[0], found[-1], len(found)) == (0, steps, n)
    late = np.diff(np.log(checkpoint_steps(1000, 20)[4:]))
    assert late.std() < 0.03
    assert checkpoint_steps(4, 20) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("sizes", [{"batch": 2**16, "context": 2**17}, {"hidden_size": 2**16, "layers": 1000}])
def test_what_no_memory_holds_is_said_before_a_network_is_built(sizes: dict[str, int]) -> None:
    from phaselab.training.loop import check_sizes

    with pytest.raises(PhaselabError, match=r"^train: found .* take [1-9].*TB at least, expected what the memory of"):
        check_sizes(SMALL.model_copy(update=sizes))
    check_sizes(SMALL)


def test_learning_rate_warms_up_and_falls() -> None:
    from phaselab.training.loop import learning_rate

    rates = [learning_rate(step, SMALL) for step in range(SMALL.steps + 1)]
    assert rates[1] == SMALL.learning_rate == max(rates)
    assert rates[0] == SMALL.learning_rate / 2
    assert rates[-1] == pytest.approx(SMALL.learning_rate / 10)
    assert all(a >= b for a, b in pairwise(rates[2:]))


@pytest.mark.parametrize("architecture", ["gpt_neox", "olmo2", "llama"])
def test_models_are_drawn_from_the_seed_and_leave_the_global_generator_alone(architecture: str) -> None:
    import torch

    from phaselab.training.loop import build

    training = SMALL.model_copy(update={"architecture": architecture})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (build(training, 50, 0, 1, 2).state_dict() for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = build(training.model_copy(update={"seed": 1}), 50, 0, 1, 2)
    assert not torch.equal(first[next(iter(first))], next(iter(other.state_dict().values())))
    assert other.config.model_type == architecture
    assert other.config.max_position_embeddings >= 2 * training.context
    assert other.config.rope_parameters["rope_theta"] == 1000
    if architecture == "gpt_neox":
        assert other.config.rope_parameters["partial_rotary_factor"] == 0.5


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from phaselab.training.loop import train

    return train("tiny", SMALL, Store(tmp_path_factory.mktemp("results")), None)


def test_a_trained_model_is_a_hub_like_folder(trained: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log = json.loads((trained / "training.json").read_text())
    assert [row["step"] for row in log] == [0, 1, 2, 4, 7, 12]
    assert [row["revision"] for row in log] == [f"step{r['step']}-tokens{r['step'] * 64}" for r in log]
    assert {p.name for p in trained.iterdir()} == {"training.json", *(row["revision"] for row in log)}
    assert log[-1]["loss"] < log[0]["loss"]
    last = trained / log[-1]["revision"]
    assert not list(trained.rglob("*.bin"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(last), AutoTokenizer.from_pretrained(last)
    ids = tokenizer("mira went to the mill .", return_tensors="pt")["input_ids"]
    assert ids.shape == (1, 7), "bos and six words"
    assert model(input_ids=ids).logits.shape == (1, 7, len(tokenizer))


def test_training_again_does_nothing(trained: Path) -> None:
    from phaselab.training.loop import train

    times = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    steps: list[int] = []
    assert train("tiny", SMALL, Store(trained.parents[1]), None, lambda step, n: steps.append(step)) == trained
    assert steps == []
    assert times == {p: p.stat().st_mtime_ns for p in trained.rglob("*")}


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    from phaselab.training.loop import train

    # A real kill: nothing is cleaned up, and another process takes up what lies there.
    code = f"""
import os, signal
from pathlib import Path
from phaselab.results import Store
from phaselab.study import Training
from phaselab.training.loop import train
def progress(step, steps):
    if step == 9:
        os.kill(os.getpid(), signal.SIGKILL)
training = Training.model_validate_json({SMALL.model_dump_json()!r})
train("tiny", training, Store(Path({str(tmp_path)!r})), None, progress)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    steps: list[int] = []
    resumed = train("tiny", SMALL, Store(tmp_path), None, lambda step, n: steps.append(step))
    assert steps == [8, 9, 10, 11, 12]
    assert _bytes(resumed) == _bytes(trained)


def test_a_state_of_no_training_is_said_and_nothing_of_it_is_run(tmp_path: Path) -> None:
    from phaselab.training.loop import FORMAT, TRAINER, train

    kept = train("tiny", SMALL, Store(tmp_path), None, until=0) / TRAINER
    inputs = {name: of for name, of in read_manifest(kept)["inputs"].items() if name not in FORMAT}
    with zipfile.ZipFile(bomb := tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("state/data.pkl", bytes(2**24))
    for content in (b"", pickle.dumps([Path("x"), {}]), bomb.read_bytes()):
        with write_folder(kept, inputs | FORMAT, step=1) as aside:
            (aside / "state.pt").write_bytes(content)
        with pytest.raises(PhaselabError, match=rf"^{kept}: .*; expected the state of this training: remove it"):
            train("tiny", SMALL, Store(tmp_path), None)


def test_a_damaged_checkpoint_is_found_and_made_again(trained: Path, tmp_path: Path) -> None:
    from phaselab.training.loop import train

    whole = _bytes(trained)
    damaged = trained / "step4-tokens256" / "model.safetensors"
    damaged.write_bytes(whole["step4-tokens256/model.safetensors"][:-4] + b"\0\0\0\0")
    steps: list[int] = []
    train("tiny", SMALL, Store(trained.parents[1]), None, lambda step, n: steps.append(step))
    # Training ends where the damaged checkpoint has been made again.
    assert steps == [1, 2, 3, 4]
    assert _bytes(trained) == whole


def test_another_recipe_is_another_folder(trained: Path, tmp_path: Path) -> None:
    from phaselab.training.loop import train

    other = train("tiny", SMALL.model_copy(update={"steps": 2, "checkpoints": 2}), Store(tmp_path), None)
    assert other.name != trained.name
    assert sorted(p.name for p in other.iterdir()) == ["step0-tokens0", "step2-tokens128", "training.json"]


def test_other_code_of_the_same_version_is_recorded_and_trains_nothing_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import phaselab
    from phaselab.training import folder, loop

    last = read_manifest(trained / "step12-tokens768")
    assert last["made_by"]["phaselab"] == phaselab.__version__
    assert (last["inputs"]["version of text"], last["inputs"]["version of training"]) == (1, 1)
    monkeypatch.setattr(loop, "digest_code", lambda *_: "edited")
    steps: list[int] = []
    store = Store(trained.parents[1])
    assert loop.train("tiny", SMALL, store, None, lambda step, n: steps.append(step)) == trained
    assert steps == []
    monkeypatch.setattr(folder, "VERSION", 2)
    short = SMALL.model_copy(update={"steps": 2, "checkpoints": 2})
    other = loop.train("tiny", short, Store(tmp_path), None)
    assert read_manifest(other / "step2-tokens128")["made_by"]["code"] == "edited"
    monkeypatch.setattr(folder, "VERSION", 1)
    assert loop.train("tiny", short, Store(tmp_path), None) != other


def test_a_trained_model_is_found_without_training_and_its_damage_is_named(trained: Path, tmp_path: Path) -> None:
    from phaselab.training import folder, loop

    def state(training: Training, store: Store) -> tuple[Path, bool, list[str]]:
        at = folder.place("tiny", training, store, source(training, None))
        return at.folder, at.log.is_file() and not at.missing, [*at.damaged.values()]

    store = Store(tmp_path)
    assert state(SMALL, store)[1:] == (False, [])
    short = SMALL.model_copy(update={"steps": 2, "checkpoints": 2})
    made = loop.train("tiny", short, store, None)
    assert state(short, store) == (made, True, [])
    assert state(SMALL, Store(trained.parents[1])) == (trained, True, [])
    # A loss that was edited is not what the manifests say, which have a digest of themselves.
    log = made / "training.json"
    before = log.read_text()
    log.write_text(re.sub(r'"loss": \d', '"loss": 0', before, count=1))
    assert state(short, store)[2] == [f"{log}: not what the manifests of its checkpoints say"]
    loop.train("tiny", short, store, None)
    assert log.read_text() == before
    manifest = made / "step2-tokens128" / MANIFEST
    manifest.write_text(re.sub(r'"loss": \d', '"loss": 0', manifest.read_text()))
    assert "step2-tokens128/manifest.json: no manifest that can be read" in state(short, store)[2][0]
    (made / "step2-tokens128" / "model.safetensors").unlink()
    assert not state(short, store)[1]


def test_finding_a_trained_model_needs_no_network_library() -> None:
    code = "import sys, phaselab.training.folder, phaselab.texts.world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
