"""Checkpoints from a hub on this machine: downloaded by exact commit, checked, removed, and swept over."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
import yaml
from rich.console import Console
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

from checkpoints.hub_server import Hub, serving, use
from phaselab.book.lab import Lab
from phaselab.checkpoints import (
    Checkpoint,
    chosen,
    find,
    hub,
    load,
    manifest,
    of_repository,
    present,
)
from phaselab.cli import app
from phaselab.cli.common import facts
from phaselab.errors import PhaselabError
from phaselab.results import Store, digest_file, folders
from phaselab.stages import Workbench
from phaselab.study import Study, StudyError, load_study
from phaselab.sweep import pool

WORDS = ("a", "the", "dog", "cat", "sees", "hears")
SIZES = {
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
#: Architecture -> its configuration, as small as it goes.
TINY: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "Olmo": lambda: transformers.OlmoConfig(**SIZES),
    "Olmo2": lambda: transformers.Olmo2Config(**SIZES),
    "Olmo3": lambda: transformers.Olmo3Config(**SIZES, sliding_window=8),
    "Llama": lambda: transformers.LlamaConfig(**SIZES),
    "SmolLM3": lambda: transformers.SmolLM3Config(**SIZES),
    "GPTNeoX": lambda: transformers.GPTNeoXConfig(
        **{name: size for name, size in SIZES.items() if name != "num_key_value_heads"}
    ),
    "Mamba": lambda: transformers.MambaConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=2, state_size=4, pad_token_id=0
    ),
}


def save(folder: Path, architecture: str, seed: int, **options: object) -> Path:
    """A random model of an architecture with a word tokenizer, as a snapshot."""
    config = TINY[architecture]()
    torch.manual_seed(seed)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder, **options)
    words = Tokenizer(models.WordLevel({"<unk>": 0, **{w: i for i, w in enumerate(WORDS, 1)}}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
    (folder / "README.md").write_text("Not needed to load it.\n")
    (folder / "optimizer.bin").write_bytes(b"not needed either")
    return folder


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two checkpoints of a tiny Llama, and one with pickled weights alone."""
    root = tmp_path_factory.mktemp("snapshots")
    made = {name: save(root / name, "Llama", seed) for seed, name in enumerate(("first", "last"))}
    pickled = root / "pickled"
    shutil.copytree(made["last"], pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = load_file(made["last"] / "model.safetensors")
    for tensor in weights.values():
        # As in Amber's files: its tensors carry an attribute, and are pickled in another way for it.
        tensor.extra = {"stage": 1}
    torch.save(weights, pickled / "pytorch_model.bin")
    return {**made, "pickled": pickled}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, snapshots: dict[str, Path]) -> Iterator[Hub]:
    """A hub with one repository of two checkpoints, and an empty cache."""
    with serving() as running:
        use(monkeypatch, running.url, tmp_path / "home")
        monkeypatch.setattr(pool, "SLOW", None)  # workers that begin by themselves: others know the hub of before
        running.add("org/tiny", "step0-tokens0B", snapshots["first"])
        running.add("org/tiny", "step10-tokens1B", snapshots["last"])
        yield running


def the(revision: str, repository: str = "org/tiny") -> Checkpoint:
    return chosen(of_repository(repository), (revision,))[0]


def cached(tmp_path: Path, name: str = "*") -> list[str]:
    """Files of that name in snapshots of the cache."""
    return sorted(p.name for p in (tmp_path / "home" / "hub").glob(f"models--*/snapshots/*/{name}"))


# -------------------------------------------------------------------------------------------- listing


def test_a_repository_is_listed_once_and_pinned(server: Hub, snapshots: dict[str, Path]) -> None:
    found = chosen(of_repository("org/tiny"), "all")
    assert [(c.step, c.tokens) for c in found] == [(0, 0), (10, 10**9)]
    assert [c.commit for c in found] == [
        server.repositories["org/tiny"].revisions[name] for name in ("step0-tokens0B", "step10-tokens1B")
    ]
    # The branch moves on; what was listed stays what it was until it is refreshed.
    moved = server.add("org/tiny", "step10-tokens1B", snapshots["first"])
    assert the("step10-tokens1B").commit == found[1].commit != moved
    assert len(server.asked("GET", "/refs")) == 1
    manifest.refresh(of_repository("org/tiny"))
    assert the("step10-tokens1B").commit == moved
    server.add("org/tiny", "main", snapshots["last"])
    manifest.refresh(of_repository("org/tiny"))
    with pytest.warns(UserWarning, match="org/tiny: left out main"):
        assert len(chosen(of_repository("org/tiny"), "all")) == 2


def test_a_family_of_two_repositories_is_one_line(server: Hub, snapshots: dict[str, Path]) -> None:
    family = find("olmo2-1b")
    for repository, names in {
        family.repository: ("main", "stage1-step10000-tokens21B", "stage2-ingredient1-step9-tokens50B"),
        family.early: ("stage1-step0-tokens0B", "stage1-step1000-tokens3B", "stage1-step10000-tokens21B"),
    }.items():
        for name in names:
            server.add(repository, name, snapshots["last"])
    manifest.refresh(family)
    known = manifest.listing(family)
    assert [c.step for c in known.checkpoints] == [0, 1000, 10_000, 10_009]
    assert [c.repository for c in known.checkpoints] == [family.early, family.early, *[family.repository] * 2]
    assert [c.branch for c in known.checkpoints] == [False, False, False, True]
    assert all(len(c.commit) == 40 for c in known.checkpoints)
    del server.repositories[family.early]
    with pytest.warns(
        UserWarning, match="olmo2-1b: without the beginning of its training: .*early-training .*Repository Not Found"
    ):
        manifest.refresh(family)
    assert [c.step for c in manifest.listing(family).checkpoints] == [10_000, 10_009]


def test_committed_names_get_their_commits_from_the_hub(server: Hub, snapshots: dict[str, Path]) -> None:
    for step in (0, 1, 512, 1000):
        server.add("EleutherAI/pythia-70m", f"step{step}", snapshots["last"])
    found = chosen(find("pythia-70m"), "log:3")
    assert [c.tokens for c in found] == [0, 2_097_152, 1000 * 2_097_152]
    assert found[0].commit == server.repositories["EleutherAI/pythia-70m"].revisions["step0"]
    model, _ = load(chosen(find("pythia-70m"), "step512")[0], dtype="bfloat16")
    assert model.dtype == torch.bfloat16


def test_tokens_that_were_filled_in_survive_a_refresh(server: Hub, snapshots: dict[str, Path]) -> None:
    server.add("LLM360/K2", "ckpt_001", snapshots["last"])
    path = manifest.refresh(find("k2-65b"))
    with pytest.raises(PhaselabError, match="k2-65b: found no checkpoint whose tokens are known"):
        chosen(find("k2-65b"), "all")
    path.write_text(path.read_text().replace(",1,\n", ",1,4000\n"))
    server.add("LLM360/K2", "ckpt_002", snapshots["last"])
    manifest.refresh(find("k2-65b"))
    with pytest.warns(UserWarning, match="left out ckpt_002"):
        assert [c.tokens for c in chosen(find("k2-65b"), "all")] == [4000]


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def test_the_commands_list_show_and_refresh(server: Hub, snapshots: dict[str, Path], tmp_path: Path) -> None:
    for name in ("stage1-step1000-tokens5B", "stage1-step2000-tokens9B", "main"):
        server.add("allenai/OLMo-2-1124-7B", name, snapshots["last"])
    assert "none yet" in command("models", "show", "olmo2-32b")[1]
    code, said = command("models", "refresh", "olmo2-7b")
    assert (code, said.strip()) == (0, str(tmp_path / "home" / "phaselab" / "manifests" / "olmo2-7b.csv"))
    code, said = command("models", "show", "olmo2-7b", "--checkpoints", "all@-5B")
    assert code == 0
    assert "2, 2 of them with their commit" in said
    assert "main" in said
    assert "stage1-step1000-tokens5B (5 B)" in said
    assert "stage1-step2000" not in said
    code, said = command("models", "list")
    row = next(line for line in said.splitlines() if line.split()[:1] == ["olmo2-7b"])
    assert "5 B to 9 B" in row
    code, said = command("models", "fetch", "org/tiny", "--checkpoints", "log:2")
    assert (code, len(cached(tmp_path, "model.safetensors"))) == (0, 2)
    assert command("models", "refresh", "org/tiny", "--out", str(tmp_path / "own.csv"))[0] == 0
    assert (tmp_path / "own.csv").read_text().count("\n") == 3
    code, said = command("models", "show", "olmo-7b")
    assert code == 2
    assert "expected one of" in said


@pytest.mark.parametrize(
    ("family", "said"),
    [
        (
            "llm-jp-3-7.2b",
            "yu-takagi/jv3-7 .*Repository Not Found.*whether its checkpoints are public",
        ),
        ("olmo2-7b", "allenai/OLMo-2-1124-7B .*Repository Not Found"),
        ("org/gated", "org/gated .*Cannot access gated repo"),
    ],
)
def test_what_cannot_be_listed_is_one_sentence(server: Hub, family: str, said: str) -> None:
    server.add("org/gated", "step1", Path("nowhere"))
    server.repositories["org/gated"].gated = True
    code, output = command("models", "refresh", family)
    assert code == 2
    lines = output.strip().splitlines()
    assert len(lines) == 1
    assert re.search(said, lines[0])


# ------------------------------------------------------------------------------------------- downloads


@pytest.mark.parametrize("architecture", TINY)
def test_every_architecture_comes_as_it_was_saved(server: Hub, tmp_path: Path, architecture: str) -> None:
    folder = save(tmp_path / "saved", architecture, 3)
    commit = server.add("org/other", "step5-tokens1M", folder)
    checkpoint = the("step5-tokens1M", "org/other")
    assert checkpoint.commit == commit
    model, tokenizer = load(checkpoint)
    there = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = tokenizer("the dog sees a cat", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, there.eval()(tokens).logits)
    assert type(model).__name__ == f"{architecture}ForCausalLM"
    assert not model.training
    # What is said of it names the revision: of a folder in the cache one could not tell which that is.
    assert model.name_or_path == "org/other step5-tokens1M"


def test_only_what_is_needed_is_downloaded_and_only_once(server: Hub, tmp_path: Path) -> None:
    said: list[str] = []
    checkpoint = the("step10-tokens1B")
    snapshot = hub.fetch(checkpoint, say=said.append)
    assert snapshot.name == checkpoint.commit
    assert cached(tmp_path) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert len(said) == 1
    assert said[0].startswith("org/tiny step10-tokens1B: downloading ")
    server.requests.clear()
    assert hub.fetch(checkpoint, say=said.append) == snapshot
    assert (server.requests, len(said)) == ([], 1)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_cut_connection_is_taken_up(
    server: Hub, snapshots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, reset: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    server.cut["model.safetensors"] = (5000, reset)
    snapshot = hub.fetch(the("step0-tokens0B"))
    assert digest_file(snapshot / "model.safetensors") == digest_file(snapshots["first"] / "model.safetensors")
    asked = server.asked("GET", "/model.safetensors")
    assert len(asked) == 2
    if not reset:
        assert asked[1]["Range"] == "bytes=5000-"
    # Files that were whole before the connection was lost are not asked for again.
    assert len(server.asked("GET", "/tokenizer.json")) == 1


def test_a_corrupted_file_is_found_deleted_and_fetched_again(server: Hub, tmp_path: Path) -> None:
    server.corrupt.add("model.safetensors")
    checkpoint = the("step0-tokens0B")
    with pytest.raises(PhaselabError, match=r"org/tiny step0-tokens0B: model.safetensors: its digest is not"):
        hub.fetch(checkpoint)
    assert cached(tmp_path, "model.safetensors") == []
    server.corrupt = {"tokenizer.json"}
    shutil.rmtree(tmp_path / "home" / "hub")
    with pytest.raises(PhaselabError, match=r"tokenizer.json: its digest"):
        hub.fetch(checkpoint)
    server.corrupt.clear()
    server.requests.clear()
    load(checkpoint)
    assert [path.rpartition("/")[2] for method, path, _ in server.requests if method == "GET"] == ["tokenizer.json"]
    # Damage on the disk is found as well, by the time of the change.
    blob = (hub.fetch(checkpoint) / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    os.utime(blob, (1, 1))
    with pytest.raises(PhaselabError, match=r"model.safetensors: its digest"):
        hub.fetch(checkpoint)
    load(checkpoint)


def test_a_cache_without_links_is_checked_by_the_list_of_the_hub(
    server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_SYMLINKS", True)
    server.corrupt.add("model.safetensors")
    with pytest.raises(PhaselabError, match=r"step0-tokens0B: model.safetensors: its digest is not the one"):
        hub.fetch(the("step0-tokens0B"))
    assert cached(tmp_path, "model.safetensors") == []
    server.corrupt.clear()
    assert not (hub.fetch(the("step0-tokens0B")) / "model.safetensors").is_symlink()
    server.requests.clear()
    load(the("step0-tokens0B"))
    assert server.requests == []


def test_a_revision_or_repository_that_is_gone(server: Hub, snapshots: dict[str, Path]) -> None:
    with pytest.raises(PhaselabError, match="found 'step11-tokens1B', expected .*step0-tokens0B, step10"):
        the("step11-tokens1B")
    first, last = the("step0-tokens0B"), the("step10-tokens1B")
    del server.repositories["org/tiny"].commits[first.commit]
    with pytest.raises(PhaselabError, match="org/tiny step0-tokens0B .*Revision Not Found"):
        hub.fetch(first)
    server.repositories["org/tiny"].gated = True
    with pytest.raises(PhaselabError, match="org/tiny step10-tokens1B .*gated"):
        hub.fetch(last)
    del server.repositories["org/tiny"]
    with pytest.raises(PhaselabError, match="org/tiny step10-tokens1B .*Repository Not Found"):
        hub.fetch(last)
    (bare := snapshots["last"].parent / "bare").mkdir()
    (bare / "README.md").write_text("Nothing else.")
    server.add("org/bare", "step1-tokens1B", bare)
    with pytest.raises(PhaselabError, match=r"org/bare step1-tokens1B: found README.md, expected config.json"):
        hub.fetch(the("step1-tokens1B", "org/bare"))


def test_a_hub_that_is_down_is_one_sentence(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = the("step0-tokens0B")
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "home")
    # huggingface_hub waits longer and longer between its attempts.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(PhaselabError, match=r"step0-tokens0B .http://127.0.0.1:9, .*Connection refused") as caught:
        hub.fetch(checkpoint)
    assert "\n" not in str(caught.value)
    with pytest.raises(PhaselabError, match="org/tiny .http://127.0.0.1:9, .*Connection refused"):
        manifest.refresh(of_repository("org/tiny"))
    assert "Retrying" not in capfd.readouterr().err  # what huggingface_hub logs of each attempt


def test_offline_works_from_the_cache(server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = the("step10-tokens1B")
    hub.fetch(here)
    server.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert the("step10-tokens1B") == here
    load(here)
    with pytest.raises(PhaselabError, match=r"step0-tokens0B .*offline mode is enabled"):
        hub.fetch(the("step0-tokens0B"))
    assert server.requests == []


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Something mounted on a folder, for the time of a block; skips the test where that is not allowed."""
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_cache_that_may_only_be_read(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = the("step10-tokens1B")
    hub.fetch(checkpoint)
    home = tmp_path / "home"
    shutil.rmtree(home / "hub" / ".locks")
    with mounted(home, "--bind", str(home)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(home)], check=True)
        with present(checkpoint, keep=lambda: False) as here:
            load(here)
        with pytest.raises(PhaselabError, match=r"org/tiny step0-tokens0B .*Read-only file system"):
            hub.fetch(the("step0-tokens0B"))
    assert cached(tmp_path, "model.safetensors") == ["model.safetensors"]


def test_a_disk_without_room_is_told_before_anything_is_downloaded(
    server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = the("step0-tokens0B")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(PhaselabError, match=r"found 1 kB free in .*hub, expected [\d.]+ kB for the"):
        hub.fetch(checkpoint)
    assert server.asked("GET", "model.safetensors") == []


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_disk_that_fills_up_is_one_sentence(server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = tmp_path / "home"
    small.mkdir()
    with mounted(small, "-t", "tmpfs", "-o", "size=96k", "tmpfs"):
        checkpoint = the("step0-tokens0B")
        # Something else takes the room after it was looked at.
        monkeypatch.setattr(hub, "_require_room", lambda what, needed: (small / "more").write_bytes(b"x" * 60_000))
        with pytest.raises(PhaselabError, match=r"org/tiny step0-tokens0B .*No space left on device") as caught:
            hub.fetch(checkpoint)
        assert "\n" not in str(caught.value)
        (small / "more").unlink()
        monkeypatch.undo()
        use(monkeypatch, server.url, small)
        load(checkpoint)


def test_pickled_weights_come_where_there_are_no_others(
    server: Hub, snapshots: dict[str, Path], tmp_path: Path
) -> None:
    server.add("org/old", "ckpt_000", snapshots["pickled"])
    checkpoint = chosen(of_repository("org/old", 1000), "all")[0]
    model, _ = load(checkpoint)
    assert cached(tmp_path, "*.bin") == ["pytorch_model.bin"]
    assert b"_rebuild_from_type_v2" in (snapshots["pickled"] / "pytorch_model.bin").read_bytes()
    weights = load_file(snapshots["last"] / "model.safetensors")
    assert torch.equal(model.model.embed_tokens.weight, weights["model.embed_tokens.weight"])


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def test_a_malicious_pickle_is_refused(server: Hub, snapshots: dict[str, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(snapshots["pickled"], bad)
    torch.save({"model.embed_tokens.weight": Malicious(tmp_path / "ran")}, bad / "pytorch_model.bin")
    server.add("org/bad", "step1-tokens1B", bad)
    with pytest.raises(PhaselabError, match="a .bin file holds more than tensors"):
        load(the("step1-tokens1B", "org/bad"))
    assert not (tmp_path / "ran").exists()


def test_code_of_the_repository_runs_only_for_who_trusts_it(
    server: Hub, snapshots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    shutil.copytree(snapshots["last"], own)
    config = json.loads((own / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnLM"},
    }
    (own / "config.json").write_text(json.dumps(config))
    (own / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class Own(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnLM(LlamaForCausalLM):\n    config_class = Own\n"
    )
    server.add("org/own", "step1-tokens1B", own)
    checkpoint = the("step1-tokens1B", "org/own")
    with pytest.raises(PhaselabError, match="cannot be loaded as a causal language model"):
        load(checkpoint)
    assert cached(tmp_path, "*.py") == []
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    assert type(load(checkpoint, trust_remote_code=True)[0]).__name__ == "OwnLM"


# --------------------------------------------------------------------------------------------- removal


def test_a_revision_goes_after_use_and_others_stay(server: Hub, tmp_path: Path) -> None:
    first, last = the("step0-tokens0B"), the("step10-tokens1B")
    hub.fetch(last)
    with present(first, keep=lambda: False) as here:
        assert here.path is not None
        load(here)
    assert not here.path.exists()
    # They share their tokenizer, which stays.
    assert len(cached(tmp_path, "tokenizer.json")) == 1
    load(last)
    with pytest.raises(RuntimeError), present(last, keep=lambda: False) as here:
        raise RuntimeError
    assert cached(tmp_path) == []
    assert list((tmp_path / "home" / "hub").glob("models--*/blobs/*")) == []


def test_a_revision_that_another_one_uses_is_left_to_it(server: Hub, tmp_path: Path) -> None:
    checkpoint = the("step0-tokens0B")
    with present(checkpoint, keep=lambda: False) as outer:
        with present(checkpoint, keep=lambda: False):
            pass
        load(outer)
    assert cached(tmp_path) == []
    with present(checkpoint, keep=lambda: True), present(checkpoint, keep=lambda: False):
        pass
    assert cached(tmp_path, "model.safetensors") == ["model.safetensors"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_revision_that_another_process_uses_is_left_to_it(server: Hub, tmp_path: Path, killed: bool) -> None:
    checkpoint = the("step0-tokens0B")
    program = (
        "from phaselab.checkpoints import Checkpoint, present\n"
        f"with present(Checkpoint('step0-tokens0B', 0, 0, None, 'org/tiny', {checkpoint.commit!r}), lambda: False):\n"
        "    print('in', flush=True)\n"
        "    input()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as other:
        assert other.stdout.readline() == "in\n"
        with present(checkpoint, keep=lambda: False):
            pass
        assert cached(tmp_path, "model.safetensors") == ["model.safetensors"]
        if killed:
            other.kill()
        else:
            other.communicate("\n", timeout=60)
    assert cached(tmp_path, "model.safetensors") == (["model.safetensors"] if killed else [])
    # The system releases what a dead process has locked.
    with present(checkpoint, keep=lambda: False) as here:
        load(here)
    assert cached(tmp_path) == []


def test_what_a_killed_download_left_behind_goes(server: Hub, tmp_path: Path) -> None:
    hub.fetch(the("step10-tokens1B"))
    (blobs,) = (tmp_path / "home" / "hub").glob("models--*/blobs")
    old, young = blobs / "a.1.incomplete", blobs / "a.2.incomplete"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    hub.fetch(the("step0-tokens0B"))
    assert (old.exists(), young.exists()) == (False, True)


def test_two_processes_download_the_same_thing(server: Hub, tmp_path: Path) -> None:
    checkpoint = the("step10-tokens1B")
    program = (
        "from phaselab.checkpoints import Checkpoint, hub\n"
        f"print(hub.fetch(Checkpoint('step10-tokens1B', 10, 1, None, 'org/tiny', {checkpoint.commit!r})))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(said) == 1
    assert len(server.asked("GET", "/model.safetensors")) == 1
    load(checkpoint)


# ---------------------------------------------------------------------------------------------- sweeps

STUDY = {
    "name": "hubbed",
    "title": "A model of a hub",
    "brain": {"name": "simulated", "subjects": 1, "runs": 3, "minutes": 6, "vertices": 24},
    "models": [{"name": "tiny", "repository": "org/tiny"}],
    "features": {"trim": 2},
    "encoding": {"permutations": 10, "shuffles": 1, "log10_alphas": [0, 4, 3]},
    "internals": {"probes": ["who"], "samples": 100},
}


def test_a_sweep_over_a_hub_keeps_results_and_no_downloads(server: Hub, tmp_path: Path) -> None:
    study, store = Study.model_validate(STUDY), Store(tmp_path / "results")
    commits = server.repositories["org/tiny"].commits
    seen = Console(file=StringIO(), width=200)
    outcome = pool.run(study, store, jobs=1, console=seen, keep_downloads=False)
    assert outcome.failures == {}
    # A log file has no bar that moves: it gets lines.
    assert "checkpoints: 2 of 2\n" in seen.file.getvalue()
    seen.print(facts(study.name, outcome.summary(study)))
    assert outcome.curves == store.curves(study.name)
    assert str(outcome.curves) in seen.file.getvalue()
    # A part of a study does not replace the table of all of it, and says so.
    part = pool.run(study, store, checkpoints="step0-tokens0B", jobs=1, console=seen)
    seen.print(facts(study.name, part.summary(study)))
    assert (part.curves, part.computed) == (None, 0)
    assert "not written: it is of all models and checkpoints of the study" in seen.file.getvalue()
    assert cached(tmp_path) == []
    assert [len(server.asked("GET", f"{c}/model.safetensors")) for c in commits] == [1, 1]
    # Whether a unit is up to date is known from its commit, without its files.
    bench, model = Workbench(study, store), study.models[0]
    server.requests.clear()
    checkpoints = bench.checkpoints(model)
    assert [bench.make(model, checkpoint) for checkpoint in checkpoints] == [0, 0]
    assert server.requests == []
    # Another commit, other tokens or another precision of the same name is another checkpoint.
    one = checkpoints[0]
    stage = next(s for s in bench.asked(model, one) if "checkpoint" in s.data)
    same = bench.inputs(stage, model, one)
    for other in (
        Workbench(study, store).inputs(stage, model, replace(one, commit="0" * 40)),
        bench.inputs(stage, model, replace(one, tokens=7)),
        Workbench(study, store).inputs(stage, model.model_copy(update={"dtype": "bfloat16"}), one),
    ):
        assert other != same
    # What fails is one sentence, and leaves finished units as they are.
    before = {str(p): digest_file(p) for p in folders(store.root)}
    server.repositories["org/tiny"].gated = True
    with pytest.raises(PhaselabError, match="org/tiny step0-tokens0B .*gated"):
        Workbench(study, store).make(model.model_copy(update={"dtype": "bfloat16"}), one)
    more = {**STUDY, "models": [*STUDY["models"], {"name": "gone", "repository": "org/gone"}]}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(more))
    options = ("--model", "gone", "--results", str(store.root), "--jobs", "1")
    code, said = command("run", str(tmp_path / "more.yaml"), *options)
    assert code == 1
    assert re.search("failed gone: org/gone .*Repository Not Found", said)
    assert {str(p): digest_file(p) for p in folders(store.root)} == before


def test_seeds_are_replicates_and_one_that_is_absent_is_left_out(
    server: Hub, snapshots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for repository in ("EleutherAI/pythia-14m", "EleutherAI/pythia-14m-seed1"):
        for name in ("step0", "step1000"):
            server.add(repository, name, snapshots["last" if name == "step1000" else "first"])
    server.add("EleutherAI/pythia-14m-seed3", "step1", Path("nowhere"))
    server.repositories["EleutherAI/pythia-14m-seed3"].gated = True
    seeds = {f"s{n}": {"family": f"pythia-14m-seed{n}", "label": f"Pythia-14m, seed {n}"} for n in (1, 2)}
    models = {"s0": {"family": "pythia-14m", "label": "Pythia-14m"}, **seeds}
    models |= {"jv": {"family": "llm-jp-3-7.2b"}}
    path, store = tmp_path / "seeds.yaml", Store(tmp_path / "results")
    content = STUDY | {"internals": {}, "models": [{"name": name, **of} for name, of in models.items()]}
    path.write_text(yaml.safe_dump(content))
    study, seen = load_study(path), Console(file=StringIO(), width=200)
    outcome = pool.run(study, store, jobs=1, console=seen)
    assert outcome.failures == {}
    assert "s2: left out, for it is absent: the hub has no EleutherAI/pythia-14m-seed2" in seen.file.getvalue()
    assert "jv: left out, for it is absent: the hub has no yu-takagi/jv3-7" in seen.file.getvalue()
    assert {*pd.read_parquet(store.curves(study.name))["model"]} == {"s0", "s1"}
    # What the hub said holds where it cannot be asked.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    lab = Lab(study, store)
    assert lab.models == ("s0", "s1")
    assert lab.seeds == {"Pythia-14m": ["s0", "s1"]}
    code, said = command("status", str(path), "--results", str(store.root))
    assert (code, said.count("left out, for it is absent")) == (0, 2), said
    code, said = command("phases", str(path), "--results", str(store.root))
    assert code == 0, said
    assert said.count("left out, for it is absent") == 2
    found = pd.read_parquet(store.study(study.name) / "phases.parquet")
    assert found.groupby("model")["seeds"].first().to_dict() == {"s0": 1, "s0, s1": 2, "s1": 1}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # One for which leave must be asked is not absent; one that comes to be is found.
    code, said = command("models", "refresh", "pythia-14m")
    assert code == 0
    assert "pythia-14m-seed4: absent: the hub has no EleutherAI/pythia-14m-seed4" in said
    assert not re.search("seed[13]: absent", said)
    server.add("EleutherAI/pythia-14m-seed2", "step0", snapshots["first"])
    assert command("models", "refresh", "pythia-14m-seed2")[0] == 0
    del server.repositories["EleutherAI/pythia-14m-seed1"]
    code, said = command("models", "refresh", "pythia-14m-seed1")
    assert code == 2
    assert "pythia-14m-seed1: whether its checkpoints are public is not known" in said
    assert [manifest.absent(find(f"pythia-14m-seed{n}")) for n in range(1, 5)] == [True, False, False, True]
    assert "absent" in command("models", "show", "pythia-14m-seed1")[1]
    gone = study.model_copy(update={"models": study.models[1:2]})
    with pytest.raises(StudyError, match=r"seeds.yaml: models: found no s1 on the hub, expected one"):
        Workbench(gone, store)
