"""Checkpoints: what names say, which are chosen, and that nothing but safetensors is loaded."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from phaselab.checkpoints import Checkpoint, choose, identity, load, local_checkpoints
from phaselab.checkpoints.families import ANY
from phaselab.checkpoints.names import Reading, read_name
from phaselab.errors import PhaselabError


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "step7-tokens14336"
    config = GPTNeoXConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
    return folder


def copy_of(saved: Path, folder: Path, **changes: bytes | None) -> Checkpoint:
    """A copy of a saved checkpoint, some files replaced or (None) left out; `__` stands for a dot."""
    replaced = {name.replace("__", "."): content for name, content in changes.items()}
    folder.mkdir()
    for path in saved.iterdir():
        content = replaced.get(path.name, path.read_bytes())
        if content is not None:
            (folder / path.name).write_bytes(content)
    return Checkpoint(folder.name, 7, 14336, folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("step0-tokens0B", Reading(0, 0)),
        ("step7-tokens14336", Reading(7, 14336)),
        ("step500-tokens2B", Reading(500, 2_000_000_000)),
        ("step9-tokens15T", Reading(9, 15_000_000_000_000)),
        ("step9-tokens1.5M", Reading(9, 1_500_000)),
        ("step9-tokens3K", Reading(9, 3000)),
        ("step143000", Reading(143000, None)),
        ("stage1-step1000-tokens5B", Reading(1000, 5_000_000_000, "1")),
        ("stage2-ingredient1-step11931-tokens50B", Reading(11931, 50_000_000_000, "2")),
        ("ckpt_001", Reading(1, None)),
        ("step-125000", Reading(125000, None)),
        ("stage2-step-40000", Reading(40000, None)),
        ("checkpoint-500", Reading(500, None)),
        ("main", None),
        ("step5-tokens", None),
        ("step5-tokens1.5", None),
        ("step5-tokens2b", None),
        ("step1e3", None),
        ("xstep5", None),
        ("step5-tokens2B-old", None),
    ],
)
def test_names_say_step_and_tokens(name: str, expected: Reading | None) -> None:
    assert read_name(name, ANY) == expected


def folders(folder: Path, *names: str, table: str = "", encoding: str = "utf-8") -> Path:
    for name in names:
        (folder / name).mkdir()
    if table:
        (folder / "checkpoints.csv").write_text(table, encoding=encoding)
    return folder


def test_local_checkpoints_ascend_and_name_what_they_leave_out(tmp_path):
    folders(tmp_path, "step1000-tokens4B", "step20-tokens84M", "step0-tokens0B", "main", "notes", ".half.partial")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.warns(UserWarning, match="left out main, notes: not named"):
        found = local_checkpoints(tmp_path)
    assert [c.step for c in found] == [0, 20, 1000]
    assert found[1] == Checkpoint("step20-tokens84M", 20, 84_000_000, tmp_path / "step20-tokens84M")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("step0-tokens0B", "stage1-step1000-tokens3B", "stage1-step2000-tokens5B"),
            [(0, 0), (1000, 3e9), (2000, 5e9)],
        ),
        (("step10-tokens1B", "step11-tokens1B"), [(10, 1e9), (11, 1e9)]),
        (("step0001-tokens1B", "step0010-tokens2B"), [(1, 1e9), (10, 2e9)]),
        # One of a stage that begins from the end of the line goes on from there, as on a hub.
        (("stage1-step100-tokens4B", "stage2-ingredient1-step9-tokens1B"), [(100, 4e9), (109, 5e9)]),
    ],
)
def test_local_names_are_read_as_those_of_a_hub(tmp_path: Path, names: tuple[str, ...], expected: list[object]) -> None:
    assert [(c.step, c.tokens) for c in local_checkpoints(folders(tmp_path, *names))] == expected


def test_branches_in_a_folder_are_taken_by_name_alone(tmp_path: Path) -> None:
    branch = "stage2-ingredient1-step9-tokens1B"
    found = local_checkpoints(folders(tmp_path, "stage1-step100-tokens4B", branch, "stage2-ingredient2-step9-tokens1B"))
    assert [c.revision for c in choose(found, "all")] == ["stage1-step100-tokens4B"]
    assert [c.tokens for c in choose(found, branch)] == [5_000_000_000]
    # The table counts all training before it.
    table = f"revision,tokens\n{branch},4900000000\nstage1-step100-tokens4B,4100000000\n"
    found = local_checkpoints(folders(tmp_path, table=table))
    assert [c.tokens for c in choose(found, branch)] == [4_900_000_000]
    assert [c.tokens for c in choose(found, "all")] == [4_100_000_000]


@pytest.mark.parametrize(
    "name", ["ckpt_001", "step-125000", "stage2-step-40000", "step8", "checkpoint-500", "stage1-step8"]
)
def test_tokens_come_from_a_table_where_names_lack_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(PhaselabError, match=rf"{name}: found a name that does .* line {name},4.*checkpoints.csv"):
        local_checkpoints(folders(tmp_path, name))
    for table, encoding in (
        (f"revision,tokens\n{name},16777216\n", "utf-8"),
        (f"revision, tokens\n{name}, 16777216\n", "utf-8"),
        (f"revision;tokens\n{name};16777216\n", "utf-16"),
        (f"revision,tokens,more\r\n{name},16777216,x\r\nother,,\r\n", "utf-8-sig"),
    ):
        (found,) = local_checkpoints(folders(tmp_path, table=table, encoding=encoding))
        assert (found.revision, found.step, found.tokens) == (name, read_name(name, ANY).step, 16777216)
        assert not found.branch


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("revision,tokens\nstep8,16.7M\n", "step8: tokens: found '16.7M', expected a whole number"),
        ("revision,tokens\nstep8,2097152.0\n", "step8: tokens: found '2097152.0', expected a whole number"),
        ("step8,16777216\n", "found columns step8, 16777216, expected revision, tokens"),
        ("revision,tokens\nstep8,2,097,152\n", "line step8,4|can be read"),
        ("revision,tokens\ncheckpoint-1,5\n", "line step8,4"),
        ("\n", "can be read"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(PhaselabError, match=said) as error:
        local_checkpoints(folders(tmp_path, "step8", table=table))
    assert "\n" not in str(error.value).strip()


def test_folders_without_checkpoints_are_refused(tmp_path):
    with pytest.raises(PhaselabError, match=r"nowhere: found no such folder, expected one with sub-folders"):
        local_checkpoints(tmp_path / "nowhere")
    with pytest.raises(PhaselabError, match=r"found no checkpoints, expected sub-folders named .*ckpt_001"):
        local_checkpoints(tmp_path)
    with pytest.raises(PhaselabError, match=r"found logs, step1-tokens4b, expected sub-folders named .*ckpt_001"):
        local_checkpoints(folders(tmp_path, "logs", "step1-tokens4b"))


def test_two_names_of_one_step_and_a_stage_without_its_beginning_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PhaselabError,
        match="stage2-step9-tokens1B: found a name that does not tell .*later stage, also a checkpoint of the first",
    ):
        local_checkpoints(folders(tmp_path, "stage2-step9-tokens1B"))
    with pytest.raises(PhaselabError, match="step9-tokens1B: found another name of the same step"):
        local_checkpoints(folders(tmp_path, "stage1-step9-tokens1B", "step9-tokens1B"))


def test_identity_is_the_commit_or_a_digest_that_is_read_once(saved: Path, tmp_path: Path, monkeypatch) -> None:
    stamps = tmp_path / "stamps"
    assert identity(Checkpoint("a", 1, 1, None, "org/tiny", "c" * 40), stamps) == "org/tiny@" + "c" * 40
    assert identity(Checkpoint("a", 1, 1, saved, "org/tiny", "c" * 40), stamps) == "org/tiny@" + "c" * 40
    assert not stamps.exists()
    copy = copy_of(saved, tmp_path / "copy")
    first = identity(Checkpoint(saved.name, 7, 14336, saved), stamps)
    assert identity(copy, stamps) == first
    (copy.path / "optimizer.pt").write_bytes(b"not a part of the model")
    monkeypatch.setattr("phaselab.results.digest_file", lambda path: pytest.fail("read again"))
    assert identity(copy, stamps) == first
    monkeypatch.undo()
    weights = copy.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert identity(copy, stamps) != first
    (copy.path / "config.json").unlink()
    with pytest.raises(PhaselabError, match="copy: found .*expected config.json"):
        identity(copy, stamps)


def a_run(tokens: list[int]) -> list[Checkpoint]:
    return [Checkpoint(f"step{i}-tokens{t}", i, t, Path(f"step{i}")) for i, t in enumerate(tokens)]


def test_log_takes_exactly_as_many_with_first_and_last():
    run = a_run([0, *range(1000, 155_000, 1000)])
    for number in (2, 3, 7, 20, 60):
        chosen = choose(run, f"log:{number}")
        tokens = [c.tokens for c in chosen]
        assert len(set(tokens)) == number
        assert tokens == sorted(tokens)
        assert (tokens[0], tokens[-1]) == (0, 154_000)
    # On a grid of powers of two every other one is exactly even in the logarithm.
    powers = a_run([2**k for k in range(13)])
    assert [c.tokens for c in choose(powers, "log:7")] == [4**k for k in range(7)]
    assert choose(powers, "log:99") == powers


def test_log_skips_later_checkpoints_whose_rounded_tokens_are_zero():
    run = a_run([0, 0, 0, 1, 10, 100, 1000])
    assert [c.step for c in choose(run, "log:3")] == [0, 3, 6]
    assert [c.step for c in choose(run, "log:5")] == [0, 3, 4, 5, 6]


def test_other_choices():
    run = a_run([1, 2, 3, 4, 5, 6, 7, 8])
    assert choose(run, "all") == run
    assert [c.tokens for c in choose(run, "every:3")] == [1, 4, 7, 8]
    assert [c.tokens for c in choose(run, ("step5-tokens6", "step1-tokens2"))] == [2, 6]
    assert [c.tokens for c in choose(run, "step5-tokens6, step1-tokens2")] == [2, 6]


def test_ranges_of_tokens_hold_both_ends():
    run = a_run([0, 10, 10**3, 10**6, 10**9, 2 * 10**9, 10**12])
    assert [c.tokens for c in choose(run, "all@1K-1B")] == [10**3, 10**6, 10**9]
    assert [c.tokens for c in choose(run, "all@-1000")] == [0, 10, 10**3]
    assert [c.tokens for c in choose(run, "all@1.5B-")] == [2 * 10**9, 10**12]
    assert [c.tokens for c in choose(run, "log:3@10-1B")] == [10, 10**6, 10**9]
    assert [c.tokens for c in choose(run, "every:2@10-2B")] == [10, 10**6, 2 * 10**9]
    assert [c.tokens for c in choose(run, "log:5@1M-1M")] == [10**6]
    with pytest.raises(PhaselabError, match=r"found 'all@2T-', a range without any .*0 to 1,000,000,000,000"):
        choose(run, "all@2T-")


@pytest.mark.parametrize(
    "which",
    ["log:1", "every:0", "log", "some", "", ("step0-tokens1", "step9-tokens9"), (), "log:3@", "all@1-2-3"],
)
def test_wrong_choices_are_refused(which):
    with pytest.raises(PhaselabError, match="checkpoints: found .*expected"):
        choose(a_run([1, 2, 3]), which)


def test_load_gives_the_saved_weights_ready_to_be_read(saved, capfd):
    capfd.readouterr()
    model, tokenizer = load(Checkpoint(saved.name, 7, 14336, saved))
    assert capfd.readouterr() == ("", "")
    written = load_file(saved / "model.safetensors")
    assert torch.equal(model.gpt_neox.embed_in.weight, written["gpt_neox.embed_in.weight"])
    assert not model.training
    assert model.dtype == torch.float32
    assert tokenizer("b a")["input_ids"] == [2, 1]
    assert load(Checkpoint(saved.name, 7, 14336, saved), dtype="bfloat16")[0].dtype == torch.bfloat16


class Malicious:
    """Pickled, it would open a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def test_pickled_weights_are_tensors_or_refused(saved, tmp_path):
    checkpoint = copy_of(saved, tmp_path / "pickled", model__safetensors=None)
    weights = load_file(saved / "model.safetensors")
    torch.save(weights, checkpoint.path / "pytorch_model.bin")
    model, _ = load(checkpoint)
    assert torch.equal(model.gpt_neox.embed_in.weight, weights["gpt_neox.embed_in.weight"])
    torch.save({**weights, "more": Malicious(tmp_path / "ran")}, checkpoint.path / "pytorch_model.bin")
    with pytest.raises(PhaselabError, match=r"pickled: a .bin file holds more than tensors; .*ran nothing") as e:
        load(checkpoint)
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(e.value)


def test_pickled_weights_in_parts_and_in_the_old_format(saved, tmp_path):
    checkpoint = copy_of(saved, tmp_path / "parts", model__safetensors=None)
    weights = load_file(saved / "model.safetensors")
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({n: weights[n] for n in part}, checkpoint.path / file, _use_new_zipfile_serialization=number == 1)
        index |= dict.fromkeys(part, file)
    (checkpoint.path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    model, _ = load(checkpoint)
    whole = load(Checkpoint(saved.name, 7, 14336, saved))[0].state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_files_of_a_checkpoint_are_in_its_folder(saved, tmp_path):
    checkpoint, elsewhere = copy_of(saved, tmp_path / "whole"), tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes((saved / "model.safetensors").read_bytes())
    index = dict.fromkeys(load_file(elsewhere), "../elsewhere.safetensors")
    part = checkpoint.path / "model-00001-of-00001.safetensors"
    (checkpoint.path / "model.safetensors").rename(part)
    named = checkpoint.path / "model.safetensors.index.json"
    for parts in (index, {"a": "/etc/passwd"}, ["../elsewhere.safetensors"]):
        named.write_text(json.dumps({"metadata": {}, "weight_map": parts, "sealed": "not phaselab's own"}))
        with pytest.raises(
            PhaselabError, match=r"index\.json: found weights in .*(elsewhere|passwd).*, expected them in"
        ):
            load(checkpoint)
    linked = copy_of(saved, tmp_path / "linked")
    (linked.path / "model.safetensors").unlink()
    (linked.path / "model.safetensors").symlink_to(elsewhere)
    with pytest.raises(PhaselabError, match=r"elsewhere\.safetensors, expected a file in"):
        load(linked)
    # As in a cache of the hub.
    cache = tmp_path / "models--a--b"
    for name in ("snapshots", "blobs"):
        (cache / name).mkdir(parents=True)
    cached, blob = copy_of(saved, cache / "snapshots" / "0123"), cache / "blobs" / "one"
    (cached.path / "model.safetensors").rename(blob)
    (cached.path / "model.safetensors").symlink_to("../../blobs/one")
    load(cached)


def test_a_tokenizer_that_needs_another_package_says_which(saved, tmp_path, monkeypatch):
    checkpoint = copy_of(saved, tmp_path / "old", tokenizer__json=None)
    (checkpoint.path / "tokenizer.model").write_bytes(b"sentences in pieces")
    config = {"tokenizer_class": "LlamaTokenizer"}
    (checkpoint.path / "tokenizer_config.json").write_text(json.dumps(config))
    monkeypatch.setattr("transformers.utils.import_utils.is_sentencepiece_available", lambda: False)
    with pytest.raises(PhaselabError, match="old: found .*pip install sentencepiece protobuf"):
        load(checkpoint)


def test_code_of_the_model_is_never_run(saved, tmp_path):
    config = json.loads((saved / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    checkpoint = copy_of(saved, tmp_path / "own", config__json=json.dumps(config).encode())
    (checkpoint.path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(PhaselabError, match="own: cannot be loaded as a causal language model"):
        load(checkpoint)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attn_implementation": "own/kernel"}, "own/kernel, which is code on a hub that would run, expected none"),
        ({"_attn_implementation": {"": "eager", "x": "own/kernel@main"}}, "own/kernel@main, which is code"),
        ({"text": {"experts_implementation": "own/experts"}}, "own/experts, which is code"),
        ({"num_hidden_layers": 10**7}, "10000000 layers, 16 wide, of 8 words, expected what fits into weights of"),
        ({"hidden_size": 10**12}, "2 layers, 1000000000000 wide, of 8 words, expected what fits into weights of"),
        ({"vocab_size": 10**12}, "2 layers, 16 wide, of 1000000000000 words, expected what fits into weights of"),
    ],
)
def test_what_a_configuration_may_not_ask_for_is_said(saved, tmp_path, change, said):
    """Before transformers fetches a kernel or makes room for a network that is not there."""
    config = json.loads((saved / "config.json").read_text()) | change
    checkpoint = copy_of(saved, tmp_path / "own", config__json=json.dumps(config).encode())
    with pytest.raises(PhaselabError, match=f"own/config.json: found {re.escape(said)}"):
        load(checkpoint)


def test_names_of_weights_and_long_texts_are_told_in_a_sentence(saved, tmp_path, capfd):
    weights = load_file(saved / "model.safetensors")
    other = copy_of(saved, tmp_path / "other")
    save_file(
        {f"\x1b[31m{name}": of for name, of in weights.items()}, other.path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(PhaselabError, match="other: found 28 weights missing or of another shape"):
        load(other)
    assert capfd.readouterr().err == ""
    tokenizer = json.loads((saved / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}  # of which Rust panics
    with pytest.raises(PhaselabError, match="panics: cannot be loaded as a causal language model"):
        load(copy_of(saved, tmp_path / "panics", tokenizer__json=json.dumps(tokenizer).encode()))
    with (other.path / "tokenizer.json").open("ab") as stream:
        stream.truncate(2**27 + 1)
    with pytest.raises(PhaselabError, match=r"tokenizer.json: found 134,217,729 bytes, expected at most 13"):
        load(other)


def test_pickled_weights_that_unpack_to_more_than_they_are_on_the_disk_are_refused(saved, tmp_path):
    checkpoint = copy_of(saved, tmp_path / "bomb", model__safetensors=None)
    with zipfile.ZipFile(checkpoint.path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(PhaselabError, match=r"model.bin: found 10000000 bytes when unpacked, expected about those on"):
        load(checkpoint)


def test_damaged_or_incomplete_checkpoints_name_the_folder(saved, tmp_path):
    whole = (saved / "model.safetensors").read_bytes()
    with pytest.raises(PhaselabError, match=r"cut/model.safetensors: found Error .*, expected a whole file"):
        load(copy_of(saved, tmp_path / "cut", model__safetensors=whole[: len(whole) // 2]))
    with pytest.raises(PhaselabError, match="bare: .*expected config.json, a tokenizer"):
        load(copy_of(saved, tmp_path / "bare", config__json=None, tokenizer__json=None, tokenizer_config__json=None))
    with pytest.raises(PhaselabError, match="gone: found nothing, expected config.json"):
        load(Checkpoint("gone", 0, 0, tmp_path / "gone"))
    fewer = copy_of(saved, tmp_path / "fewer")
    weights = load_file(saved / "model.safetensors")
    del weights["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]
    save_file(weights, fewer.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PhaselabError, match=r"fewer: found 1 weight missing .*layers.1.mlp.dense_h_to_4h.weight"):
        load(fewer)
